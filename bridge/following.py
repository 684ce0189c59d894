"""Rules with `follows`: a goal only where another one, of the same once value, was made before.

Asked in the routing transaction, in the order in which the events of a batch came: what an earlier event of the batch
makes counts, too; what the same event makes does not. Where the other goal is made later, nothing is made up for: the
order of events matters here, and here alone (law 4 excepts it).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bridge.store import plans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from bridge.desk import Element, Prepared
    from bridge.model import Follows
    from bridge.rules import RuleTrace

    Place = tuple[str, str]


def settled(conn: Connection, batch: Sequence[Prepared]) -> list[Prepared]:
    """The batch without the wishes whose goal to follow is not there, and with traces that say so."""
    asked = {place for prepared in batch for wish in _wishes(prepared) if (place := _followed(wish)) is not None}
    if not asked:
        return list(batch)
    made = plans.made_before(conn, asked)
    found = []
    for prepared in batch:
        kept = replace(prepared, elements=tuple(_element(element, made) for element in prepared.elements))
        made |= {wish.place for wish in _wishes(kept)}
        found.append(kept)
    return found


def _wishes(prepared: Prepared) -> Iterable[plans.Wish]:
    return (wish for element in prepared.elements for wish in element.wishes)


def _followed(wish: plans.Wish) -> Place | None:
    """Where the goal is that has to be there: at the destination of the one that follows it."""
    follows = wish.planned.follows
    return None if follows is None else (wish.destination, follows.once_key)


def _element(element: Element, made: set[Place]) -> Element:
    missed = {
        wish.planned.rule_id: wish.planned.follows
        for wish in element.wishes
        if wish.planned.follows is not None and _followed(wish) not in made
    }
    if not missed or element.evaluation is None:
        return element
    traces = tuple(
        _not_made(trace, missed[trace.rule_id]) if trace.result == "matched" and trace.rule_id in missed else trace
        for trace in element.evaluation.traces
    )
    kept = tuple(wish for wish in element.wishes if wish.planned.rule_id not in missed)
    return replace(element, wishes=kept, evaluation=element.evaluation._replace(traces=traces))


def _not_made(trace: RuleTrace, follows: Follows) -> RuleTrace:
    sentence = f"no {follows.goal} with {follows.value} was made before"
    return trace._replace(result="follows", message=sentence, notes=())
