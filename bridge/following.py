"""Rules with `follows`: a goal only where another one, of the same once value, was made before.

Asked in the routing transaction, in the order in which the events of a batch came: what an earlier event of the batch
makes counts, too; what the same event makes does not. Where the other goal is made later, nothing is made up for: the
order of events matters here, and here alone (law 4 excepts it).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bridge.store.goals import drafts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from bridge.prepare import Element, Prepared
    from bridge.rules import RuleTrace

    Place = tuple[str, str]


def settled(conn: Connection, batch: Sequence[Prepared]) -> list[Prepared]:
    """The batch, where each goal that follows another is a wish, or its trace says what is not there."""
    asked = {_followed(wish) for prepared in batch for element in prepared.elements for wish in element.following}
    if not asked:
        return list(batch)
    made = drafts.made_before(conn, asked)
    found = []
    for prepared in batch:
        told = replace(prepared, elements=tuple(_settled(element, made) for element in prepared.elements))
        made |= {wish.place for element in told.elements for wish in element.wishes}
        found.append(told)
    return found


def _followed(wish: drafts.Wish) -> Place:
    """Where the goal is that has to be there: at the destination of the one that follows it."""
    assert wish.planned.follows is not None
    return wish.destination, wish.planned.follows.once_key


def _settled(element: Element, made: set[Place]) -> Element:
    if not element.following or element.evaluation is None:
        return element
    wishes = tuple(wish for wish in element.following if _followed(wish) in made)
    traces = _told(element.evaluation.traces, element.following, {wish.planned.rule_id for wish in wishes})
    evaluation = element.evaluation._replace(traces=traces)
    return replace(element, wishes=(*element.wishes, *wishes), following=(), evaluation=evaluation)


def _told(traces: Iterable[RuleTrace], following: Iterable[drafts.Wish], matched: set[str]) -> tuple[RuleTrace, ...]:
    """The traces, which now say what came of the goals that follow others."""
    by_rule = {wish.planned.rule_id: wish.planned for wish in following}
    told = []
    for trace in traces:
        planned = by_rule.get(trace.rule_id)
        if planned is None or planned.follows is None:
            told.append(trace)
        elif trace.rule_id in matched:
            told.append(trace._replace(result="matched", message=None, notes=planned.notes))
        else:
            told.append(trace._replace(message=f"no {planned.follows.text} was made before"))
    return tuple(told)
