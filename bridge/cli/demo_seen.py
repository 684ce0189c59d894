"""What the bridge of the demo did, read from its database: verdicts of events, states of goals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from bridge import store
from bridge.store.schema import events, goals

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class SeenGoal:
    """A goal as the bridge has it."""

    name: str
    state: str
    message: str | None
    datafast_event_id: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A stored event, in the order of arrival."""

    id: int
    verdict: str
    goals: tuple[SeenGoal, ...]


_EVENTS = select(events.c.id, events.c.state, events.c.verdict).order_by(events.c.id)
_GOALS = select(goals.c.event_id, goals.c.name, goals.c.state, goals.c.message, goals.c.datafast_event_id).order_by(
    goals.c.id
)
_MOVING = ("pending", "leased", "sending", "unconfirmed")


def read(url: str) -> Sequence[Seen]:
    """Every event with its goals."""
    opened = store.open(url, pool_size=1)
    try:
        with opened.read() as conn:
            kept = [(row.event_id, SeenGoal(*row[1:])) for row in conn.execute(_GOALS)]
            return [
                Seen(row.id, row.verdict or row.state, tuple(goal for event, goal in kept if event == row.id))
                for row in conn.execute(_EVENTS)
            ]
    finally:
        opened.close()


def settled(url: str) -> bool:
    """Every event is routed, and no goal is on its way."""
    return all(
        seen.verdict != "received" and not any(goal.state in _MOVING for goal in seen.goals) for seen in read(url)
    )
