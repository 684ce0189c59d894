"""What the first page of the console counts: how far a first run is, hours, days, the queue.

Each statement goes by an index. Test events' goals, rehearsals and goals that a person sent
again are not counted, as in a report. Hours and days are UTC. Nothing here writes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, case, exists, func, literal_column, select

from bridge.model import GoalState
from bridge.store.clock import now_ms
from bridge.store.schema import destinations, events, goals, link_visitors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a first run is: whether an event came, whether one led to a visitor, whether a goal was delivered."""

    event: bool
    visitor: bool
    goal: bool


@dataclass(frozen=True, slots=True)
class Queue:
    """The goals of one destination that are to be sent. due: now; later: at their next attempt; looks: are asked about.

    parked: those that wait for their visitor.
    """

    destination: str
    due: int = 0
    later: int = 0
    looks: int = 0
    parked: int = 0


def progress(conn: Connection) -> Progress:
    """What has happened at least once; a delivery counts also after retention took its goal."""
    return Progress(*(bool(value) for value in conn.execute(_PROGRESS).one()))


def came(conn: Connection, since_ms: int, until_ms: int) -> int:
    """How many events came in this time."""
    return int(conn.execute(_CAME, {"since": since_ms, "until": until_ms}).scalar_one())


def states(conn: Connection, since_ms: int, until_ms: int) -> Counter[str]:
    """The goals made in this time, by the state that they are in now."""
    found = conn.execute(_STATES, {"since": since_ms, "until": until_ms})
    return Counter({state: int(count) for state, count in found})


def queues(conn: Connection, names: Iterable[str]) -> tuple[Queue, ...]:
    """Of each of these destinations that has goals that are not final."""
    return tuple(queue for name in names if (queue := _queue(conn, name)) != Queue(name))


def _queue(conn: Connection, name: str) -> Queue:
    found: Counter[str] = Counter()
    for state, is_due, count in conn.execute(_QUEUE, {"name": name}):
        if state == GoalState.PARKED:
            found["parked"] += count
        elif state == GoalState.UNCONFIRMED:
            found["looks"] += count
        else:
            found["due" if is_due or state != GoalState.PENDING else "later"] += count
    return Queue(name, **found)


_PROGRESS: Final = select(
    exists(select(events.c.id)),
    exists(select(goals.c.id).where(goals.c.visitor.is_not(None))) | exists(select(link_visitors.c.key)),
    exists(select(goals.c.id).where(goals.c.state == GoalState.DELIVERED))
    | exists(select(destinations.c.name).where(destinations.c.last_success_at_ms.is_not(None))),
)
_COUNTED: Final = (goals.c.test.is_(False), goals.c.generation == 1, goals.c.state != GoalState.DRY)
# Times have both ends: of one end alone a planner without statistics believes that it is a third of all rows.
_CAME: Final = (
    select(func.count())
    .select_from(events)
    .where(events.c.received_at_ms >= bindparam("since"), events.c.received_at_ms < bindparam("until"))
)
_STATES: Final = (
    select(goals.c.state, func.count())
    .where(goals.c.created_at_ms >= bindparam("since"), goals.c.created_at_ms < bindparam("until"), *_COUNTED)
    .group_by(goals.c.state)
)
_IS_DUE: Final = case((goals.c.due_at_ms <= now_ms(), literal_column("1")), else_=literal_column("0")).label("is_due")
_QUEUE: Final = (
    select(goals.c.state, _IS_DUE, func.count())
    .where(goals.c.destination == bindparam("name"))
    .where(goals.c.state.in_(["parked", "pending", "leased", "sending", "unconfirmed"]))
    .group_by(goals.c.state, "is_due")
)
