"""After a backup was restored: which span of time it lacks, and which goals are read back for that reason.

A restored database does not know what was sent between the backup and the restore. So a goal of an event from before
the restore becomes `unconfirmed` before it is sent, with an attempt that spans that time (its lease token is `restored
…`), as if an answer had been lost. The read-back then decides, in the previous release as well. This happens when a
goal is claimed, so it covers every case: parked goals that find their visitor, events that the provider repeats,
replays, and goals that a person sends again. The attempt also serves as a mark: a goal that has one for a restore is
not put in doubt again, as long as it goes to the same visitor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import and_, bindparam, case, func, insert, literal, or_, select, update

from bridge.model import IDEMPOTENT, UNFINAL
from bridge.store import facts
from bridge.store.clock import now_ms
from bridge.store.schema import attempts, events, goals, workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

REASON: Final = "restored"  # of an unconfirmed goal
MARK: Final = "restored "  # and the visitor: the lease token of the attempt that represents the unknown span
TOLERANCE_MS: Final = 2_000  # how far a provider's clock may be ahead of ours, besides the time that a restore takes
CLOCK_TOLERANCE_MS: Final = 60_000  # or ahead of DataFast's: a goal is not recorded before its event happened
REPEATS_MS: Final = 7 * 86_400_000  # for how long an event that states no time may repeat an older one
VISITORS_MAX: Final = 200  # visitors whose goals one transaction puts in doubt
SPANS_MAX: Final = 20

FACT: Final = "restored"  # bridge.store.delivery.statements reads it, too


class Span(NamedTuple):
    """What was sent from `from_ms` (the newest time in the backup) until `at_ms` (the restore) is not known."""

    from_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The numbers of unfinished goals and events in a backup, by state. in_doubt: sending or unconfirmed."""

    parked: int
    pending: int
    in_doubt: int
    held: int
    unrouted: int


# -------------------------------------------------------------------------------------------------- the restore


def spans(recorded: str | None) -> tuple[Span, ...]:
    """Every reported restore, the latest last. recorded: the fact that holds them."""
    return () if recorded is None else tuple(Span(*span) for span in json.loads(recorded))


def remember(conn: Connection, from_ms: int, at_ms: int) -> Span:
    """Record a restore. If reported again before anything new was stored, it is the same one, and its span ends now."""
    recorded = list(spans(facts.get(conn, FACT)))
    span = Span(from_ms, at_ms)
    if recorded and from_ms <= recorded[-1].at_ms:
        span = Span(min(from_ms, recorded.pop().from_ms), at_ms)
    facts.put(conn, FACT, json.dumps([*recorded, span][-SPANS_MAX:]))
    return span


def newest_ms(conn: Connection, now: int) -> int | None:
    """The newest time in the database that is not ahead of the clock: the backup was made then, or later."""
    times = [conn.execute(statement, {"now": now}).scalar() for statement in _NEWEST]
    times.append(facts.get(conn, "ready_at_ms"))
    return max((int(time) for time in times if time is not None and int(time) <= now), default=None)


_NEWEST: Final = tuple(
    select(func.max(column)).where(column <= bindparam("now"))
    for column in (
        events.c.received_at_ms,
        events.c.routed_at_ms,
        goals.c.changed_at_ms,
        attempts.c.started_at_ms,
        attempts.c.ended_at_ms,
        workers.c.seen_at_ms,
    )
)


def last_beat_ms(conn: Connection) -> int | None:
    """The last heartbeat of any process of the bridge."""
    found = conn.execute(select(func.max(workers.c.seen_at_ms))).scalar()
    return None if found is None else int(found)


def count_open(conn: Connection) -> Unfinished:
    """Count the goals and events that the restore concerns."""
    counts: dict[str, int] = {row[0]: row[1] for row in conn.execute(_BY_STATE)}
    return Unfinished(
        parked=counts.get("parked", 0),
        pending=counts.get("pending", 0) + counts.get("leased", 0),
        in_doubt=counts.get("sending", 0) + counts.get("unconfirmed", 0),
        held=counts.get("held", 0),
        unrouted=int(conn.execute(_UNROUTED).scalar_one()),
    )


_BY_STATE: Final = select(goals.c.state, func.count()).where(goals.c.state.in_(UNFINAL)).group_by(goals.c.state)
_UNROUTED: Final = select(func.count()).select_from(events).where(events.c.state == "received")


# ------------------------------------------------------------------------------------------------------- doubting


def doubt(
    conn: Connection, restores: Sequence[Span], destination: str, visitor: str, readback_ms: tuple[int, int]
) -> bool:
    """Whether a goal of this visitor must be read back before it is sent. True: nothing may be claimed just now.

    Goals of other visitors that wait for the same reason are put in doubt along with it, a batch at a time.
    readback_ms: how long after a restore a read-back is worthwhile, and how long after that a single one is enough.
    """
    target = {"destination": destination, "visitor": visitor}
    if not any(conn.execute(_ANY_OF_VISITOR, {**target, "at": span.at_ms}).first() for span in restores):
        return False
    doubtful = {goal_id for span in restores for goal_id in _mark_span(conn, span, target)}
    if doubtful:
        worth_ms = restores[-1].at_ms + readback_ms[0]
        conn.execute(_DOUBT, {"ids": sorted(doubtful), "from": worth_ms, "sure": worth_ms + readback_ms[1]})
    return True


def _mark_span(conn: Connection, span: Span, target: dict[str, str]) -> Sequence[int]:
    """Record for some goals that they may have been sent within the span; return their ids."""
    visitors = {target["visitor"], *conn.execute(_VISITORS, {**target, "at": span.at_ms}).scalars()}
    chosen = conn.execute(_OF_VISITORS, {**target, "at": span.at_ms, "visitors": sorted(visitors)}).scalars().all()
    if chosen:
        conn.execute(_WRITE_MARKS, {"ids": chosen, "from": span.from_ms, "at": span.at_ms})
    return chosen


def is_restore_mark() -> ColumnElement[bool]:
    """Whether this is not a real attempt, but represents the span that a backup lacks."""
    return attempts.c.lease_token.startswith(MARK)


def end_doubt(conn: Connection, goal_id: int, *, sent: bool) -> None:
    """Record that a read-back has shown whether a goal was sent between the backup and the restore."""
    conn.execute(_END_DOUBT, {"of": goal_id, "new_outcome": "delivered" if sent else "not_sent"})


_END_DOUBT: Final = (
    update(attempts)
    .where(attempts.c.goal_id == bindparam("of"), is_restore_mark(), attempts.c.outcome == "unconfirmed")
    .values(outcome=bindparam("new_outcome"))
)

_received: Final = select(events.c.received_at_ms).where(events.c.id == goals.c.event_id).scalar_subquery()
# A stated time later than the arrival is replaced by the arrival (`Event.happened_at_ms`), so it shows nothing.
_time_is_known: Final = and_(goals.c.time_is_stated, goals.c.happened_at_ms < _received)


def _before(at: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether the goal belongs to an event that may have arrived before the restore."""
    return goals.c.happened_at_ms < at + case((_time_is_known, TOLERANCE_MS), else_=REPEATS_MS)


_mark_of: Final = literal(MARK).concat(goals.c.visitor)
_is_marked: Final = (
    select(attempts.c.id)
    .where(
        attempts.c.goal_id == goals.c.id, attempts.c.lease_token == _mark_of, attempts.c.ended_at_ms == bindparam("at")
    )
    .exists()
)
_IS_DOUBTFUL: Final = (
    goals.c.destination == bindparam("destination"),
    goals.c.state.in_(("pending", "unconfirmed")),
    goals.c.kind.not_in(IDEMPOTENT),  # sent again, it changes nothing
    or_(goals.c.lease_token.is_(None), goals.c.lease_until_ms <= now_ms()),
    _before(bindparam("at", type_=goals.c.happened_at_ms.type)),
    ~_is_marked,
)
_ANY_OF_VISITOR: Final = select(goals.c.id).where(goals.c.visitor == bindparam("visitor"), *_IS_DOUBTFUL).limit(1)
_VISITORS: Final = select(goals.c.visitor).where(*_IS_DOUBTFUL).distinct().limit(VISITORS_MAX)
_OF_VISITORS: Final = (
    select(goals.c.id)
    .where(goals.c.visitor.in_(bindparam("visitors", expanding=True)), *_IS_DOUBTFUL)
    .order_by(goals.c.id)
    .with_for_update(skip_locked=True, of=goals)
)

_from: Final = bindparam("from", type_=goals.c.happened_at_ms.type)
_not_before: Final = goals.c.happened_at_ms - CLOCK_TOLERANCE_MS
_WRITE_MARKS: Final = insert(attempts).from_select(
    ["goal_id", "kind", "started_at_ms", "ended_at_ms", "outcome", "message", "lease_token"],
    select(
        goals.c.id,
        literal("send"),
        case((and_(_time_is_known, _not_before > _from), _not_before), else_=_from),
        bindparam("at", type_=goals.c.happened_at_ms.type),
        literal("unconfirmed"),
        literal("a backup was restored that does not know what was sent in this time"),
        _mark_of,
    ).where(goals.c.id.in_(bindparam("ids", expanding=True))),
)

# Nothing was sent after the restore, so one read-back that comes late enough suffices.
_DOUBT: Final = (
    update(goals)
    .where(goals.c.id.in_(bindparam("ids", expanding=True)), goals.c.state.in_(("pending", "unconfirmed")))
    .values(
        state="unconfirmed",
        reason=REASON,
        message="a backup was restored: DataFast is asked whether it has this goal before it is sent",
        due_at_ms=case((now_ms() < bindparam("from"), bindparam("from")), else_=now_ms()),
        looks=0,
        absent=case((now_ms() < bindparam("sure"), 0), else_=1),
        lease_token=None,
        lease_until_ms=None,
        changed_at_ms=now_ms(),
    )
)
