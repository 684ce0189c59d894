"""Time that passed on the clock alone: a clock that was put right (or wrong), a bridge that stood still for weeks.

What is remembered of it is one fact: the heartbeat (the newest time that was stored, hourly), the gaps of the clock,
and whether forgetting waits. A wait goes on behind a gap with what was left of it; a goal that grew too old within one
is held, because nobody could have sent it in time. Deciding that there was a gap is `timekeeping`'s.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, case, false, func, or_, select, update

from bridge.store import facts
from bridge.store.clock import now_ms
from bridge.store.schema import attempts, destinations, events, goals, source_counters
from bridge.store.schema import facts as table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

FACT: Final = "clock"
REASON: Final = "clock"  # of a goal that is held
BEAT_MS: Final = 3_600_000  # between two heartbeats
GAPS_MAX: Final = 20

Gap = tuple[int, int]  # milliseconds since 1970: what the clock said before, and after


@dataclass(frozen=True, slots=True)
class Wait:
    """Forgetting waits. ran_ms: how long the bridge has been running since; counted_at_ms: up to when that is."""

    why: str
    since_ms: int
    ran_ms: int
    counted_at_ms: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known about the clock. moved_ms: by how much it was set, as far as somebody has seen to it."""

    heartbeat_ms: int | None = None
    moved_ms: int = 0
    gaps: tuple[Gap, ...] = ()
    wait: Wait | None = None


def recall(conn: Connection) -> Memory:
    """What is known."""
    return _read(facts.get(conn, FACT))


def recall_locked(conn: Connection) -> Memory:
    """The same, and nobody else changes it before the transaction ends."""
    facts.ensure(conn, FACT, lambda: _written(Memory()))
    return _read(conn.execute(_LOCKED).scalar())


def keep(conn: Connection, memory: Memory) -> None:
    """Know this from now on."""
    facts.put(conn, FACT, _written(memory))


def _read(text: str | None) -> Memory:
    if text is None:
        return Memory()
    said = json.loads(text)
    gaps = tuple((int(before), int(after)) for before, after in said["gaps"])
    return Memory(said["heartbeat_ms"], said["moved_ms"], gaps, Wait(**said["wait"]) if said["wait"] else None)


def _written(memory: Memory) -> str:
    return json.dumps(asdict(memory))


def newest_ms(conn: Connection, now: int) -> int | None:
    """The newest time that a release without a heartbeat has left behind, if it tells anything."""
    times = [conn.execute(statement, {"now": now}).scalar() for statement in _NEWEST]
    return max((int(time) for time in times if time is not None), default=None)


# --------------------------------------------------------------------------------------------------------- a jump


def moved(conn: Connection, memory: Memory, delta: int) -> Memory:
    """The clock was set, or this machine was suspended: how far DataFast's is from it has to be learned anew."""
    conn.execute(_NO_SKEWS)
    _widen(conn, delta, delta)
    return replace(memory, moved_ms=memory.moved_ms + delta)


def stood_still(conn: Connection, delta: int) -> None:
    """Nobody saw by how much the clock was set, if at all: how far DataFast's is from it has to be learned anew."""
    conn.execute(_NO_SKEWS)
    _widen(conn, delta - BEAT_MS, delta)


def _widen(conn: Connection, least: int, most: int) -> None:
    """A try that was timed by our clock alone counts by the clock from before and by the one from now."""
    conn.execute(_EARLIER, {"delta": min(0, least)})
    conn.execute(_LATER, {"delta": max(0, most)})


def jumped(conn: Connection, memory: Memory, before: int, after: int) -> Memory:
    """The clock said `before`, and then `after` without the time between them: let what waits go on."""
    if after > before:
        for statement in (_FIRST_TRIES, _PAUSES):
            conn.execute(statement, {"delta": after - before})
        conn.execute(_WAITS, {"delta": after - before, "before": before})
        for statement in _SILENCES:
            conn.execute(statement, {"delta": after - before, "before": before, "after": after})
        gaps = (*memory.gaps, (before, after))[-GAPS_MAX:]
    else:
        conn.execute(_LATER_TRIES, {"after": after})
        for statement in _LATER_SILENCES:
            conn.execute(statement, {"after": after})
        gaps = past(memory.gaps, after)
    return replace(memory, gaps=gaps)


def past(gaps: tuple[Gap, ...], now: int) -> tuple[Gap, ...]:
    """The gaps as far as they lie behind: what lies ahead of a clock that went back was undone."""
    return tuple((before, min(after, now)) for before, after in gaps if before < now)


def lengthen(conn: Connection, gaps: Sequence[Gap]) -> None:
    """Goals that were parked after a jump, for an event from before it: their wait did not end within it either."""
    for before, after in gaps:
        conn.execute(_WAITS_WITHIN, {"delta": after - before, "before": before, "after": after})


def hold_too_old(conn: Connection, gaps: Sequence[Gap]) -> list[int]:
    """Hold what grew too old within a gap; ids."""
    found: list[int] = []
    for before, after in gaps:
        found += conn.execute(_HOLD, {"before": before, "after": after}).scalars()
    return found


def grew_too_old(gaps: Sequence[Gap]) -> ColumnElement[bool]:
    """The goals that grew too old within a gap."""
    expires = goals.c.expires_at_ms
    return or_(false(), *((expires > before) & (expires <= after) for before, after in gaps))


def let_go(conn: Connection) -> list[int]:
    """Goals that were held because of a clock that is right again: they are not too old after all; ids."""
    return list(conn.execute(_LET_GO).scalars())


# ---------------------------------------------------------------------------------------------------- statements

_TRIED: Final = ("pending", "leased", "sending", "unconfirmed", "held")
_DELTA: Final = bindparam("delta", type_=goals.c.due_at_ms.type)
_BEFORE: Final = bindparam("before", type_=goals.c.due_at_ms.type)
_AFTER: Final = bindparam("after", type_=goals.c.due_at_ms.type)
_LOCKED: Final = select(table.c.value).where(table.c.name == FACT).with_for_update()
_NEWEST: Final = tuple(
    select(func.max(column)).where(column <= bindparam("now"))
    for column in (events.c.received_at_ms, attempts.c.started_at_ms)
)

# How long a goal has been tried, and how long its destination has been paused, are told by the distance to now.
_FIRST_TRIES: Final = (
    update(goals)
    .where(goals.c.state.in_(_TRIED), goals.c.first_try_at_ms.is_not(None))
    .values(first_try_at_ms=goals.c.first_try_at_ms + _DELTA)
)
_LATER_TRIES: Final = (
    update(goals).where(goals.c.state.in_(_TRIED), goals.c.first_try_at_ms > _AFTER).values(first_try_at_ms=_AFTER)
)
_PAUSES: Final = (
    update(destinations)
    .where(destinations.c.paused_since_ms.is_not(None))
    .values(paused_since_ms=destinations.c.paused_since_ms + _DELTA)
)
# How long a source has been silent, and refusing, is told by distances, too.
_HEARD: Final = tuple(
    source_counters.c[name] for name in ("last_accepted_at_ms", "last_refused_at_ms", "row_began_at_ms")
)
_SILENCES: Final = tuple(  # `before` may be a heartbeat, which is up to an hour old
    update(source_counters)
    .where(column <= _BEFORE + BEAT_MS, column < _AFTER)
    .values({column: case((column + _DELTA > _AFTER, _AFTER), else_=column + _DELTA)})
    for column in _HEARD
)
_LATER_SILENCES: Final = tuple(
    update(source_counters).where(column > _AFTER).values({column: _AFTER})
    for column in (*_HEARD, source_counters.c.gaps_began_at_ms)
)
_NO_SKEWS: Final = update(destinations).values(clock_skew_ms=None)
_timed_by_us: Final = update(attempts).where(  # alone, and in doubt
    attempts.c.kind == "send",
    attempts.c.server_started_at_ms.is_(None),
    attempts.c.goal_id.in_(select(goals.c.id).where(goals.c.state.in_(("leased", "sending", "unconfirmed")))),
)
_started: Final = attempts.c.started_at_ms + _DELTA
_ended: Final = attempts.c.ended_at_ms + _DELTA
_EARLIER: Final = _timed_by_us.values(started_at_ms=_started)
_LATER: Final = _timed_by_us.values(ended_at_ms=_ended)
_WAITS: Final = (
    update(goals)
    .where(goals.c.state == "parked", goals.c.parked_until_ms > _BEFORE)
    .values(
        parked_until_ms=goals.c.parked_until_ms + _DELTA,
        weak_at_ms=case((goals.c.weak_at_ms > _BEFORE, goals.c.weak_at_ms + _DELTA), else_=goals.c.weak_at_ms),
    )
)
_WAITS_WITHIN: Final = _WAITS.where(goals.c.parked_until_ms <= _AFTER)
_HOLD: Final = (
    update(goals)
    .where(goals.c.state == "pending", goals.c.expires_at_ms > _BEFORE, goals.c.expires_at_ms <= _AFTER)
    .values(
        state="held",
        reason=REASON,
        message="it grew older than max_age while the clock jumped or the bridge stood still; `goals retry` sends it,"
        " and DataFast dates it then",
        changed_at_ms=now_ms(),
    )
    .returning(goals.c.id)
)
_LET_GO: Final = (
    update(goals)
    .where(goals.c.state == "held", goals.c.reason == REASON, goals.c.expires_at_ms > now_ms())
    .values(state="pending", reason=None, message=None, due_at_ms=now_ms(), changed_at_ms=now_ms())
    .returning(goals.c.id)
)
