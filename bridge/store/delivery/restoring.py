"""A back-up was put in place: from when until when it knows nothing, and which goals are looked up for that reason.

A restored database does not know what was sent between the back-up and the restore. So a goal of an event from before
the restore is `unconfirmed` before it is sent, with an attempt that spans that time (its lease token is `restored …`),
as if an answer had been lost; the read-back then decides, in the release before as well. This happens where a goal is
claimed, so no way leads past it: parked goals that find their visitor, events that the provider repeats, replays, and
goals sent again by a person. The attempt is also the mark: a goal that has one for a restore is not doubted again, as
long as it goes to the same visitor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, case, func, insert, literal, or_, select, update

from bridge.model import IDEMPOTENT
from bridge.store import facts
from bridge.store.clock import now_ms
from bridge.store.schema import attempts, events, goals, workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

REASON: Final = "restored"  # of an unconfirmed goal
TRY: Final = "restored "  # and the visitor: lease token of the attempt that stands for what nobody knows
SLACK_MS: Final = 2_000  # a provider's clock may be ahead of ours by so much, beside the time that a restore takes
EARLIER_MS: Final = 60_000  # or ahead of DataFast's by so much: a goal is not recorded before its event happened
REPEATS_MS: Final = 7 * 86_400_000  # an event that states no time may be a repeat of an older one for so long
VISITORS_MAX: Final = 200  # whose goals are put in doubt by one transaction
SPANS_MAX: Final = 20

_FACT: Final = "restored"


class Span(NamedTuple):
    """What was sent from `from_ms` (the newest that the back-up knows) until `at_ms` (the restore) is not stored."""

    from_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Open:
    """What a back-up holds that is not over: counts, as the states are called; in_doubt: sending or unconfirmed."""

    parked: int
    pending: int
    in_doubt: int
    held: int
    unrouted: int


# -------------------------------------------------------------------------------------------------- the restore


def spans(conn: Connection) -> tuple[Span, ...]:
    """Every restore that was told, the latest last."""
    told = facts.get(conn, _FACT)
    return () if told is None else tuple(Span(*span) for span in json.loads(told))


def remember(conn: Connection, from_ms: int, at_ms: int) -> Span:
    """A restore. Told again before anything else was stored, or told better, it is the same one and ends now."""
    known = list(spans(conn))
    span = Span(from_ms, at_ms)
    if known and from_ms <= known[-1].at_ms:
        span = Span(min(from_ms, known.pop().from_ms), at_ms)
    facts.put(conn, _FACT, json.dumps([*known, span][-SPANS_MAX:]))
    return span


def newest_ms(conn: Connection, now: int) -> int | None:
    """The newest time in the database that is not ahead of the clock: the back-up is that old, or younger."""
    times = [conn.execute(statement, {"now": now}).scalar() for statement in _NEWEST]
    ready = facts.get(conn, "ready_at_ms")
    if ready is not None and int(ready) <= now:
        times.append(int(ready))
    return max((int(time) for time in times if time is not None), default=None)


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
    """When any process of the bridge said last that it runs."""
    found = conn.execute(select(func.max(workers.c.seen_at_ms))).scalar()
    return None if found is None else int(found)


def count_open(conn: Connection) -> Open:
    """What the restore is about, so far."""
    counts: dict[str, int] = {row[0]: row[1] for row in conn.execute(_BY_STATE)}
    unrouted = int(conn.execute(_UNROUTED).scalar_one())
    return Open(
        parked=counts.get("parked", 0),
        pending=counts.get("pending", 0) + counts.get("leased", 0),
        in_doubt=counts.get("sending", 0) + counts.get("unconfirmed", 0),
        held=counts.get("held", 0),
        unrouted=unrouted,
    )


_BY_STATE: Final = (
    select(goals.c.state, func.count())
    .where(goals.c.state.in_(("parked", "pending", "leased", "sending", "unconfirmed", "held")))
    .group_by(goals.c.state)
)
_UNROUTED: Final = select(func.count()).select_from(events).where(events.c.state == "received")


# ------------------------------------------------------------------------------------------------------- doubting


def doubt(
    conn: Connection, restores: Sequence[Span], destination: str, visitor: str, readback_ms: tuple[int, int]
) -> bool:
    """Before a goal of this visitor is claimed: must it be looked up first? True: nothing may be claimed just now.

    The goals of other visitors that wait for the same reason are put in doubt along with it, some at a time.
    readback_ms: how long after a restore a look is worth while, and how long after that one look is enough.
    """
    wish = {"destination": destination, "visitor": visitor}
    if not any(conn.execute(_ANY_OF_ONE, {**wish, "at": span.at_ms}).first() for span in restores):
        return False
    doubtful: set[int] = set()
    for span in restores:
        doubtful |= _span(conn, span, wish)
    if doubtful:
        worth_ms = restores[-1].at_ms + readback_ms[0]
        conn.execute(_DOUBT, {"ids": sorted(doubtful), "from": worth_ms, "sure": worth_ms + readback_ms[1]})
    return True


def _span(conn: Connection, span: Span, wish: dict[str, Any]) -> set[int]:
    """Write down for some goals that they may have been sent within the span; which ones."""
    whose = {wish["visitor"], *conn.execute(_WHOSE, {**wish, "at": span.at_ms}).scalars()}
    chosen = conn.execute(_OF_MANY, {**wish, "at": span.at_ms, "whose": sorted(whose)}).scalars().all()
    if chosen:
        conn.execute(_MARK, {"ids": chosen, "from": span.from_ms, "at": span.at_ms})
    return set(chosen)


def stands_for_a_restore() -> ColumnElement[bool]:
    """Is an attempt none, but the time that a back-up knows nothing of?"""
    return attempts.c.lease_token.startswith(TRY)


def told(conn: Connection, goal_id: int, *, sent: bool) -> None:
    """A read-back has told whether a goal was sent between the back-up and the restore."""
    conn.execute(_TOLD, {"of": goal_id, "new_outcome": "delivered" if sent else "not_sent"})


_TOLD: Final = (
    update(attempts)
    .where(attempts.c.goal_id == bindparam("of"), stands_for_a_restore(), attempts.c.outcome == "unconfirmed")
    .values(outcome=bindparam("new_outcome"))
)

_received: Final = select(events.c.received_at_ms).where(events.c.id == goals.c.event_id).scalar_subquery()
# A stated time that lies ahead of the arrival counts as the arrival (`Event.happened_at_ms`), and tells nothing.
_time_is_known: Final = and_(goals.c.time_is_stated, goals.c.happened_at_ms < _received)


def _before(at: ColumnElement[int]) -> ColumnElement[bool]:
    """Is the goal of an event that may have come before the restore?"""
    return goals.c.happened_at_ms < at + case((_time_is_known, SLACK_MS), else_=REPEATS_MS)


_mark: Final = literal(TRY).concat(goals.c.visitor)
_asked: Final = (
    select(attempts.c.id)
    .where(attempts.c.goal_id == goals.c.id, attempts.c.lease_token == _mark, attempts.c.ended_at_ms == bindparam("at"))
    .exists()
)
_TO_ASK: Final = (
    goals.c.destination == bindparam("destination"),
    goals.c.state.in_(("pending", "unconfirmed")),
    goals.c.kind.not_in(IDEMPOTENT),  # sent again, it changes nothing
    or_(goals.c.lease_token.is_(None), goals.c.lease_until_ms <= now_ms()),
    _before(bindparam("at", type_=goals.c.happened_at_ms.type)),
    ~_asked,
)
_ANY_OF_ONE: Final = select(goals.c.id).where(goals.c.visitor == bindparam("visitor"), *_TO_ASK).limit(1)
_WHOSE: Final = select(goals.c.visitor).where(*_TO_ASK).distinct().limit(VISITORS_MAX)
_OF_MANY: Final = (
    select(goals.c.id)
    .where(goals.c.visitor.in_(bindparam("whose", expanding=True)), *_TO_ASK)
    .order_by(goals.c.id)
    .with_for_update(skip_locked=True, of=goals)
)

_from: Final = bindparam("from", type_=goals.c.happened_at_ms.type)
_not_before: Final = goals.c.happened_at_ms - EARLIER_MS
_MARK: Final = insert(attempts).from_select(
    ["goal_id", "kind", "started_at_ms", "ended_at_ms", "outcome", "message", "lease_token"],
    select(
        goals.c.id,
        literal("send"),
        case((and_(_time_is_known, _not_before > _from), _not_before), else_=_from),
        bindparam("at", type_=goals.c.happened_at_ms.type),
        literal("unconfirmed"),
        literal("a back-up was put in place, which does not know what was sent in this time"),
        _mark,
    ).where(goals.c.id.in_(bindparam("ids", expanding=True))),
)

# Nothing was sent after the restore: a look that comes late enough needs no second one.
_DOUBT: Final = (
    update(goals)
    .where(goals.c.id.in_(bindparam("ids", expanding=True)), goals.c.state.in_(("pending", "unconfirmed")))
    .values(
        state="unconfirmed",
        reason=REASON,
        message="a back-up was put in place: DataFast is asked whether it has this goal before it is sent",
        due_at_ms=case((now_ms() < bindparam("from"), bindparam("from")), else_=now_ms()),
        looks=0,
        absent=case((now_ms() < bindparam("sure"), 0), else_=1),
        lease_token=None,
        lease_until_ms=None,
        changed_at_ms=now_ms(),
    )
)
