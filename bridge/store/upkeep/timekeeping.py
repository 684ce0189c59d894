"""Detect jumps of the database's clock, and decide what they change.

A jump is a difference of more than an hour between the clock and what this machine's monotonic clock predicts, or a
start more than seven days after the heartbeat (or before it). Deletion by age then waits, because what seems old may
not be: for 24 hours of running time, added up over restarts, but at most seven calendar days. Until a jump has been
handled, `steady` continues the time from before it, so that nothing is given up in between.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge import logs
from bridge.errors import StoreUnavailable
from bridge.store.upkeep import jumps, retention
from bridge.store.upkeep.ahead import TOLERANCE_MS, corrections

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from bridge.settings import Settings
    from bridge.store.database.engine import Store
    from bridge.store.upkeep.jumps import ClockState

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
STEP_MS: Final = 5_000  # slow answers and different clock rates explain no more than this
JUMP_MS: Final = HOUR_MS  # a longer step is a jump
STOP_MS: Final = 7 * DAY_MS  # a longer stop may be a wrong clock
RUN_MS: Final = DAY_MS  # how much running time deletion waits for
CALENDAR_MS: Final = 7 * DAY_MS  # how long it waits at most, whatever the host does
LOOK_MS: Final = 1_000
PROBE_MS: Final = 5_000  # between two searches for times that lie too far ahead

log = logs.get("clock")


class _Clocks(NamedTuple):
    """The database's clock and this machine's monotonic one, read together."""

    now_ms: int
    monotonic_ms: int


class Timekeeper:
    """One per working process. `check` and `forget` are called by one thread, `steady` by any."""

    def __init__(self, store: Store, settings: Settings, *, monotonic_ms: Callable[[], int]) -> None:
        self._store = store
        self._ahead = corrections(settings)
        self._monotonic_ms = monotonic_ms
        self._seen: _Clocks | None = None
        self._moved_ms = 0  # by how much the clock had been set by then
        self._probed_ms: int | None = None
        self._counted_ms = monotonic_ms()  # up to when running time was counted

    @property
    def ready(self) -> bool:
        """Whether the clock has been checked once. Before that, nothing should depend on the time."""
        return self._seen is not None

    def steady(self, now_ms: int) -> int:
        """The database's time; after a jump that has not been handled, what it would be without the jump."""
        return now_ms - self._step(_Clocks(now_ms, self._monotonic_ms()), 0)

    def trusted_clock(self, conn: Connection) -> int | None:
        """The time by the clock whose offset from DataFast's is known; None after a step that has not been handled.

        A clock that was set looks the same as a suspended machine, during which DataFast's clock went on as well.
        """
        clocks, state = self._clocks(conn)
        return None if self._stepped(state, clocks) else clocks.now_ms

    def expiry_clock(self, conn: Connection) -> int:
        """The time that decides whether something may be given up."""
        clocks, state = self._clocks(conn)
        return clocks.now_ms - max(0, self._stepped(state, clocks))

    def _step(self, clocks: _Clocks, moved_ms: int) -> int:
        """By how much the clock was set since the last look. moved_ms: the part that other processes have handled.

        What they handled and this clock does not show happened before this process began to look.
        """
        if self._seen is None:
            return 0
        step = clocks.now_ms - self._seen.now_ms - (clocks.monotonic_ms - self._seen.monotonic_ms)
        if abs(step) <= STEP_MS or abs(step - moved_ms) <= STEP_MS:
            return 0
        return step - moved_ms

    def _clocks(self, conn: Connection) -> tuple[_Clocks, ClockState]:
        """Both clocks at the same moment, and what is known about the database's.

        A slow answer, or a process stopped between the two readings, looks like a step.
        """
        for _ in range(3):
            before = self._monotonic_ms()
            (now, state), after = jumps.recall_now(conn), self._monotonic_ms()
            if after - before <= STEP_MS // 2:
                return _Clocks(now, after), state
        raise StoreUnavailable("the database answers too slowly to tell the time by its clock")

    def check(self) -> None:
        """Find out, at most once per second, whether the clock jumped or a stored time lies too far ahead."""
        monotonic = self._monotonic_ms()
        if self._seen is not None and 0 <= monotonic - self._seen.monotonic_ms < LOOK_MS:
            return
        with self._store.read() as conn:
            clocks, state = self._clocks(conn)
            now = clocks.now_ms
            probing = self._probed_ms is None or monotonic - self._probed_ms >= PROBE_MS
            wrong = probing and self._ahead.needed(conn, now, cheap=self._seen is not None)
        if wrong or self._seen is None or self._gap(state, clocks) or _heartbeat_due(state, now):
            clocks, state = self._store.run(self._handle)
        self._seen, self._moved_ms = clocks, state.moved_ms
        if probing:
            self._probed_ms = monotonic

    def _handle(self, conn: Connection) -> tuple[_Clocks, ClockState]:
        known = state = jumps.recall_locked(conn)
        clocks, _ = self._clocks(conn)
        now = clocks.now_ms
        if state.heartbeat_ms is None:
            state = replace(state, heartbeat_ms=jumps.newest_ms(conn, now))
        gap = self._gap(state, clocks)
        if gap is not None and self._stepped(state, clocks):
            state = jumps.moved(conn, state, gap[1] - gap[0])
        elif gap is not None:
            jumps.clock_unknown(conn, gap[1] - gap[0])
        if gap is not None and abs(gap[1] - gap[0]) > JUMP_MS:
            state = self._jumped(conn, state, *gap)
        corrected = self._ahead.bring_back(conn, now)
        if corrected:
            log.warning("clock.brought_back", rows=corrected)
        if gap is not None or corrected or self._seen is None:
            freed = jumps.release_held(conn)
            if freed:
                log.info("clock.let_go", goals=[f"goal_{goal_id}" for goal_id in freed])
        if gap is not None or _heartbeat_due(state, now):
            state = replace(state, heartbeat_ms=now, gaps=jumps.past(state.gaps, now + TOLERANCE_MS))
        if state != known:
            jumps.keep(conn, state)
        return clocks, state

    def _gap(self, state: ClockState, clocks: _Clocks) -> jumps.Gap | None:
        """The clock's expected and actual time, if they are far apart and that has not been handled."""
        now, before = clocks.now_ms, state.heartbeat_ms
        step = self._stepped(state, clocks)
        if step:
            return now - step, now
        return (before, now) if before is not None and not before - JUMP_MS <= now <= before + STOP_MS else None

    def _stepped(self, state: ClockState, clocks: _Clocks) -> int:
        return self._step(clocks, state.moved_ms - self._moved_ms)

    def _jumped(self, conn: Connection, state: ClockState, before: int, after: int) -> ClockState:
        stopped = self._seen is None and after > before
        log.warning("clock.jumped", before_ms=before, after_ms=after, stopped=stopped)
        state = jumps.jumped(conn, state, before, after)
        if state.wait is None:
            why = "stopped" if stopped else "jumped"
            return replace(state, wait=jumps.Wait(why, since_ms=after, ran_ms=0, counted_at_ms=after))
        if 0 < after - before <= CALENDAR_MS:  # deletion must not wait forever on a host that sleeps at night
            return state
        return replace(state, wait=replace(state.wait, since_ms=after, counted_at_ms=after))

    def forget(self, days: int) -> dict[str, int] | None:
        """Do one round of deletion by age; None while deletion waits. days: BRIDGE_RETENTION_DAYS."""
        now = self._store.run(self._may_forget)
        return None if now is None else retention.purge(self._store, days, now, self._has_not_jumped)

    def _has_not_jumped(self, conn: Connection) -> bool:
        """Whether the clock has not jumped since `_may_forget`: after a stop, new rows may bear any time."""
        clocks, state = self._clocks(conn)
        return state.wait is None and self._gap(state, clocks) is None

    def _may_forget(self, conn: Connection) -> int | None:
        """The time to delete rows by: the one that was checked, because the clock may jump right afterwards."""
        clocks, state = self._clocks(conn)
        now = clocks.now_ms
        if self._seen is None or self._gap(state, clocks) is not None:
            return None  # the next look handles it
        ran_ms, self._counted_ms = self._monotonic_ms() - self._counted_ms, self._monotonic_ms()
        if state.wait is None:
            return now
        state = jumps.recall_locked(conn)
        wait = state.wait and _counted(state.wait, now, ran_ms)
        if wait is not None and wait.ran_ms < RUN_MS and now - wait.since_ms < CALENDAR_MS:
            jumps.keep(conn, replace(state, wait=wait))
            return None
        log.info("retention.resumed")
        jumps.keep(conn, replace(state, wait=None))
        return now


def _heartbeat_due(state: ClockState, now: int) -> bool:
    beat = state.heartbeat_ms
    return beat is None or not beat - TOLERANCE_MS <= now < beat + HOUR_MS


def _counted(wait: jumps.Wait, now: int, ran_ms: int) -> jumps.Wait:
    """The wait with the running time since the last count added. Processes running in parallel count once."""
    ran = min(ran_ms, max(0, now - wait.counted_at_ms))
    since = min(wait.since_ms, now)
    return replace(wait, since_ms=since, ran_ms=wait.ran_ms + ran, counted_at_ms=now)
