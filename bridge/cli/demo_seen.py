"""What the bridge of the demo did, read from its database: verdicts of events, states of goals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge import identity, store
from bridge.identity.evidence import FoundVisitor
from bridge.store.operator import queries

if TYPE_CHECKING:
    from bridge.store.operator.queries import EventLine, GoalLine

_MOVING: Final = frozenset({"pending", "leased", "sending", "unconfirmed"})
_MANY: Final = 500


def read(url: str) -> list[EventLine]:
    """Every event with its goals, in the order of arrival."""
    opened = store.open(url, pool_size=1)
    try:
        with opened.read() as conn:
            return queries.list_events(conn, queries.EventFilter(limit=_MANY))[::-1]
    finally:
        opened.close()


def settled(seen: list[EventLine]) -> bool:
    """Every event is routed, and no goal is on its way."""
    return all(event.state != "received" and all(goal.state not in _MOVING for goal in event.goals) for event in seen)


def found_by(goal: GoalLine) -> str:
    """The kind of key that led to a goal's visitor; empty: the event names it itself."""
    found = _found(goal)
    return "" if found is None or found.by == "own" else (found.kind or "").replace("_", " ")


def provenance(goal: GoalLine) -> str:
    """How its visitor was found, in a sentence."""
    found = _found(goal)
    return "has no visitor" if found is None else identity.provenance(found)


def _found(goal: GoalLine) -> FoundVisitor | None:
    return FoundVisitor.from_json(goal.provenance) if goal.provenance else None
