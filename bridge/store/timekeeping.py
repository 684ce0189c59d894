"""The keeper of time: notices that the database's clock jumped, and decides what that changes.

A jump is more than an hour between what the clock says and what this machine's monotonic clock leads one to expect, or
a start more than seven days behind the heartbeat (or before it). Then forgetting waits, because what seems old may not
be: for 24 hours of running, added up over restarts, at most seven days by the calendar. Until a jump was seen to,
`steady` goes on with the time from before it, so that nothing is given up in between.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bridge import logs
from bridge.store import clock, jumps, retention
from bridge.store.ahead import SLACK_MS, Ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from bridge.settings import Settings
    from bridge.store.engine import Store
    from bridge.store.jumps import Memory

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
JUMP_MS: Final = HOUR_MS  # a step of more is a jump
STOP_MS: Final = 7 * DAY_MS  # a stop of more may be a clock that was wrong
RUN_MS: Final = DAY_MS  # forgetting waits for so much running
CALENDAR_MS: Final = 7 * DAY_MS  # or for so long, whatever the host does
LOOK_MS: Final = 1_000
PROBE_MS: Final = 5_000  # between two looks for times that lie too far ahead

log = logs.get("clock")


class Timekeeper:
    """One in each process that works. `look` and `forget` are called by one thread, `steady` by any."""

    def __init__(self, store: Store, settings: Settings, *, monotonic_ms: Callable[[], int]) -> None:
        self._store = store
        self._ahead = Ahead(settings)
        self._monotonic_ms = monotonic_ms
        self._seen: tuple[int, int, int] | None = None  # the database's time, the monotonic one, jumps until then
        self._probed_ms: int | None = None
        self._counted_ms = monotonic_ms()  # up to when running was counted

    @property
    def ready(self) -> bool:
        """Has it looked once? Before that, nobody should decide by the time."""
        return self._seen is not None

    def steady(self, now_ms: int) -> int:
        """The database's time; while it has jumped and nobody has seen to that, what it would be without the jump."""
        if self._seen is None:
            return now_ms
        expected = self._seen[0] + self._monotonic_ms() - self._seen[1]
        return now_ms if abs(now_ms - expected) <= JUMP_MS else expected

    # ------------------------------------------------------------------------------------------------------- look

    def look(self) -> None:
        """Once a second, however often it is called: has the clock jumped, does a time lie too far ahead?"""
        monotonic = self._monotonic_ms()
        if self._seen is not None and 0 <= monotonic - self._seen[1] < LOOK_MS:
            return
        with self._store.read() as conn:
            now, memory = clock.read_ms(conn), jumps.recall(conn)
            probing = self._probed_ms is None or monotonic - self._probed_ms >= PROBE_MS
            wrong = probing and self._ahead.any(conn, now, cheap=self._seen is not None)
        if wrong or self._seen is None or self._gap(memory, now) or _beats(memory, now):
            now, memory = self._store.run(self._see_to_it)
        self._seen = (now, self._monotonic_ms(), memory.jumps)
        if probing:
            self._probed_ms = monotonic

    def _see_to_it(self, conn: Connection) -> tuple[int, Memory]:
        memory, now = jumps.recall_locked(conn), clock.read_ms(conn)
        known = memory
        if memory.heartbeat_ms is None:
            memory = replace(memory, heartbeat_ms=jumps.newest_ms(conn, now))
        gap = self._gap(memory, now)
        if gap is not None:
            memory = self._jumped(conn, memory, *gap)
        done = self._ahead.bring_back(conn, now)
        if done:
            log.warning("clock.brought_back", rows=done)
        if gap is not None or done or self._seen is None:
            freed = jumps.let_go(conn)
            if freed:
                log.info("clock.let_go", goals=[f"goal_{goal_id}" for goal_id in freed])
        if gap is not None or _beats(memory, now):
            memory = replace(memory, heartbeat_ms=now, gaps=jumps.past(memory.gaps, now + SLACK_MS))
        if memory != known:
            jumps.keep(conn, memory)
        return now, memory

    def _gap(self, memory: Memory, now: int) -> jumps.Gap | None:
        """What the clock should say, and what it says, if these are far apart and nobody has seen to it yet."""
        if self._seen is None:
            before = memory.heartbeat_ms
            return (before, now) if before is not None and not before - JUMP_MS <= now <= before + STOP_MS else None
        if memory.jumps != self._seen[2]:
            return None  # another process has
        expected = self._seen[0] + self._monotonic_ms() - self._seen[1]
        return (expected, now) if abs(now - expected) > JUMP_MS else None

    def _jumped(self, conn: Connection, memory: Memory, before: int, after: int) -> Memory:
        stopped = self._seen is None and after > before
        log.warning("clock.jumped", before_ms=before, after_ms=after, stopped=stopped)
        memory = jumps.jumped(conn, memory, before, after)
        if self._seen is not None:
            jumps.moved(conn, after - before)
        if memory.wait is None:
            why = "stopped" if stopped else "jumped"
            return replace(memory, wait=jumps.Wait(why, since_ms=after, ran_ms=0, counted_at_ms=after))
        if 0 < after - before <= CALENDAR_MS:  # a host that sleeps at night: it must not wait for ever
            return memory
        return replace(memory, wait=replace(memory.wait, since_ms=after, counted_at_ms=after))

    # ----------------------------------------------------------------------------------------------------- forget

    def forget(self, days: int) -> dict[str, int] | None:
        """One round of forgetting, unless that waits (None). days: BRIDGE_RETENTION_DAYS."""
        now = self._store.run(self._may_forget)
        return None if now is None else retention.purge(self._store, days, now)

    def _may_forget(self, conn: Connection) -> int | None:
        """The time by which may be forgotten: the one that was judged, for the clock may jump just behind it."""
        memory, now = jumps.recall(conn), clock.read_ms(conn)
        if self._seen is None or self._gap(memory, now) is not None or memory.jumps != self._seen[2]:
            return None  # the next look sees to it
        ran_ms, self._counted_ms = self._monotonic_ms() - self._counted_ms, self._monotonic_ms()
        if memory.wait is None:
            return now
        memory = jumps.recall_locked(conn)
        wait = memory.wait and _counted(memory.wait, now, ran_ms)
        if wait is not None and wait.ran_ms < RUN_MS and now - wait.since_ms < CALENDAR_MS:
            jumps.keep(conn, replace(memory, wait=wait))
            return None
        log.info("retention.resumed")
        jumps.keep(conn, replace(memory, wait=None))
        return now


def _beats(memory: Memory, now: int) -> bool:
    beat = memory.heartbeat_ms
    return beat is None or not beat - SLACK_MS <= now < beat + HOUR_MS


def _counted(wait: jumps.Wait, now: int, ran_ms: int) -> jumps.Wait:
    """With the running since it was counted last; two processes that run at once count once."""
    ran = min(ran_ms, max(0, now - wait.counted_at_ms))
    since = min(wait.since_ms, now)
    return replace(wait, since_ms=since, ran_ms=wait.ran_ms + ran, counted_at_ms=now)
