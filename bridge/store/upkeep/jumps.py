"""Handle time that passed only on the clock: the clock was set, or the bridge was stopped for weeks.

One fact holds the state: the heartbeat (the newest time stored, hourly), the gaps of the clock, and whether deletion
waits. After a gap, a wait continues with what was left of it. A goal that became too old within a gap is held, because
it could not have been sent in time. `timekeeping` decides whether there was a gap.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, case, false, func, literal, or_, select, update

from bridge.model import TO_SEND, UNDER_WAY, GoalState
from bridge.store import facts
from bridge.store.clock import now_ms
from bridge.store.schema import attempts, destinations, events, goals, source_counters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Update

FACT: Final = "clock"
REASON: Final = "clock"  # why a goal is held
BEAT_MS: Final = 3_600_000  # between two heartbeats
GAPS_MAX: Final = 20

Gap = tuple[int, int]  # milliseconds since 1970: the clock's time before and after


@dataclass(frozen=True, slots=True)
class Wait:
    """Why deletion waits, and since when. ran_ms: how long the bridge has run since; counted_at_ms: the last count."""

    why: str
    since_ms: int
    ran_ms: int
    counted_at_ms: int


@dataclass(frozen=True, slots=True)
class ClockState:
    """What is known about the clock. moved_ms: by how much it was set, as far as that has been handled."""

    heartbeat_ms: int | None = None
    moved_ms: int = 0
    gaps: tuple[Gap, ...] = ()
    wait: Wait | None = None


def recall(conn: Connection) -> ClockState:
    return _read(facts.get(conn, FACT))


def recall_now(conn: Connection) -> tuple[int, ClockState]:
    """The database's time, and what is known about the clock at that time."""
    now, text = facts.get_timed(conn, FACT)
    return now, _read(text)


def recall_locked(conn: Connection) -> ClockState:
    """Like `recall`, but locked until the transaction ends."""
    facts.ensure(conn, FACT, lambda: json.dumps(asdict(ClockState())))
    return _read(facts.get(conn, FACT, lock=True))


def keep(conn: Connection, state: ClockState) -> None:
    facts.put(conn, FACT, json.dumps(asdict(state)))


@lru_cache(maxsize=4)
def _read(text: str | None) -> ClockState:
    if text is None:
        return ClockState()
    stored = json.loads(text)
    gaps = tuple((int(before), int(after)) for before, after in stored["gaps"])
    return ClockState(
        stored["heartbeat_ms"], stored["moved_ms"], gaps, Wait(**stored["wait"]) if stored["wait"] else None
    )


def newest_ms(conn: Connection, now: int) -> int | None:
    """The newest time stored by a release without heartbeats; None if there is none."""
    columns = (events.c.received_at_ms, attempts.c.started_at_ms)
    times = [conn.execute(select(func.max(column)).where(column <= now)).scalar() for column in columns]
    return max((int(time) for time in times if time is not None), default=None)


# --------------------------------------------------------------------------------------------------------- a jump


def moved(conn: Connection, state: ClockState, delta: int) -> ClockState:
    """Note that the clock was set, or this machine suspended: its offset from DataFast's must be learned again."""
    _forget_skews(conn, delta, delta)
    return replace(state, moved_ms=state.moved_ms + delta)


def clock_unknown(conn: Connection, delta: int) -> None:
    """Note that the clock may have been set by an unknown amount: its offset from DataFast's must be learned again."""
    _forget_skews(conn, delta - BEAT_MS, delta)


def _forget_skews(conn: Connection, least: int, most: int) -> None:
    """Forget offsets, and widen the times of attempts in doubt that only our clock, before or after, has timed."""
    conn.execute(update(destinations).values(clock_skew_ms=None))
    conn.execute(_TIMED_BY_OUR_CLOCK.values(started_at_ms=attempts.c.started_at_ms + min(0, least)))
    conn.execute(_TIMED_BY_OUR_CLOCK.values(ended_at_ms=attempts.c.ended_at_ms + max(0, most)))


def jumped(conn: Connection, state: ClockState, before: int, after: int) -> ClockState:
    """Let waits continue after the clock went from `before` to `after` without the time between them."""
    if after > before:
        _shift_times(conn, before, after)
        return replace(state, gaps=(*state.gaps, (before, after))[-GAPS_MAX:])
    tried_later = goals.c.first_try_at_ms > after
    conn.execute(update(goals).where(goals.c.state.in_(_TRIED), tried_later).values(first_try_at_ms=after))
    for column in (*_HEARD, source_counters.c.gaps_began_at_ms):
        conn.execute(update(source_counters).where(column > after).values({column: after}))
    return replace(state, gaps=past(state.gaps, after))


def _shift_times(conn: Connection, before: int, after: int) -> None:
    """Move the times that tell how long a goal has been tried, a destination paused and a source silent."""
    delta = after - before
    tried, paused = goals.c.first_try_at_ms, destinations.c.paused_since_ms
    conn.execute(update(goals).where(goals.c.state.in_(_TRIED), tried.is_not(None)).values({tried: tried + delta}))
    conn.execute(update(destinations).where(paused.is_not(None)).values({paused: paused + delta}))
    conn.execute(_longer_waits(before, after))
    for column in _HEARD:  # `before` may be a heartbeat, which is up to an hour old
        later = case((column + delta > after, literal(after, BigInteger)), else_=column + delta)
        heard_before = column <= before + BEAT_MS, column < after
        conn.execute(update(source_counters).where(*heard_before).values({column: later}))


def _longer_waits(before: int, after: int) -> Update:
    """Extend the wait of parked goals whose wait was not over before the gap."""
    until, weak = goals.c.parked_until_ms, goals.c.weak_at_ms
    longer = {until: until + (after - before), weak: case((weak > before, weak + (after - before)), else_=weak)}
    return update(goals).where(goals.c.state == "parked", until > before).values(longer)


def past(gaps: tuple[Gap, ...], now: int) -> tuple[Gap, ...]:
    """The gaps that lie in the past. A clock that went back undoes those ahead of it."""
    return tuple((before, min(after, now)) for before, after in gaps if before < now)


def extend_waits(conn: Connection, gaps: Sequence[Gap]) -> None:
    """Extend the waits of goals parked after a jump for earlier events: these did not end within the jump either."""
    for before, after in gaps:
        conn.execute(_longer_waits(before, after).where(goals.c.parked_until_ms <= after))


def hold_too_old(conn: Connection, gaps: Sequence[Gap]) -> None:
    """Hold the goals that became too old within a gap."""
    if gaps:
        conn.execute(_HOLD.where(grew_too_old(gaps)))


def grew_too_old(gaps: Sequence[Gap]) -> ColumnElement[bool]:
    """Whether a goal became too old within a gap."""
    expires = goals.c.expires_at_ms
    return or_(false(), *((expires > before) & (expires <= after) for before, after in gaps))


def release_held(conn: Connection) -> list[int]:
    """Release goals that are not too old after all, because the clock is correct again; return their ids."""
    not_too_old = goals.c.state == "held", goals.c.reason == REASON, goals.c.expires_at_ms > now_ms()
    columns = {"state": "pending", "reason": None, "message": None, "due_at_ms": now_ms(), "changed_at_ms": now_ms()}
    return list(conn.execute(update(goals).where(*not_too_old).values(columns).returning(goals.c.id)).scalars())


# ---------------------------------------------------------------------------------------------------- statements

_TRIED: Final = (*TO_SEND, GoalState.HELD)
_HEARD: Final = tuple(
    source_counters.c[name] for name in ("last_accepted_at_ms", "last_refused_at_ms", "row_began_at_ms")
)
_TIMED_BY_OUR_CLOCK: Final = update(attempts).where(  # only by our clock, and in doubt
    attempts.c.kind == "send",
    attempts.c.server_started_at_ms.is_(None),
    attempts.c.goal_id.in_(select(goals.c.id).where(goals.c.state.in_(UNDER_WAY))),
)
_HOLD: Final = (
    update(goals)
    .where(goals.c.state == "pending")
    .values(
        state="held",
        reason=REASON,
        message="it grew older than max_age while the clock jumped or the bridge stood still; `goals retry` sends it,"
        " and DataFast dates it then",
        changed_at_ms=now_ms(),
    )
)
