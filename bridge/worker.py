"""The loop around route and deliver: a few threads that can be woken, and that stop when told to.

One thread routes events and does the chores (sweep, parked goals, heartbeat, retention); `BRIDGE_CONCURRENCY` threads
deliver. Errors of the database and our own are logged and the work is retried; no error ends a thread. After `stop`
nothing more is claimed and requests in flight may finish; `stop` returns within its time limit.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge import logs
from bridge.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logs.get("worker")

WOKEN_IDLE_S: Final = 1.0  # between two looks for work, when whoever creates it also wakes the worker
REST_FACTOR: Final = 9.0  # the rest after routing while events are being received, as a multiple of the time it took
REST_MIN_S: Final = 0.02
REST_MAX_S: Final = 0.5
AFTER_ERROR_S: Final = (0.2, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Chore:
    """Work that is due at the start and then periodically."""

    name: str
    every_s: float
    work: Callable[[], object]


class Worker:
    """Runs `route` and `deliver` until it is stopped.

    route: routes some events and returns how many. deliver: does one piece of work and returns None, or the ms until
    there may be more. idle_s: how long it may sleep when other processes create the work and nobody wakes it.
    """

    def __init__(
        self,
        *,
        route: Callable[[], int],
        deliver: Callable[[Callable[[], bool]], int | None],
        chores: Sequence[Chore],
        senders: int,
        idle_s: float = WOKEN_IDLE_S,
        monotonic: Callable[[], float],
    ) -> None:
        self._route = route
        self._deliver = deliver
        self._chores = chores
        self._idle_s = idle_s
        self._monotonic = monotonic
        self._stopping = threading.Event()
        self._events = threading.Event()  # set: there may be events to route
        self._goals = [threading.Event() for _ in range(senders)]  # set: there may be goals to send; one per sender
        self._threads: list[threading.Thread] = []
        self._due_s = {chore.name: 0.0 for chore in chores}
        self._failing: dict[str, str] = {}

    def start(self) -> None:
        """Start the threads. Call it after a fork, never before."""
        self._threads = [
            threading.Thread(target=self._loop, args=(self._route_once, self._events), name="route", daemon=True),
            *(
                threading.Thread(target=self._loop, args=(self._deliver_once, wakeup), name=f"deliver-{n}", daemon=True)
                for n, wakeup in enumerate(self._goals)
            ),
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Route events now: one has arrived."""
        self._events.set()

    def wake_senders(self) -> None:
        """Make the sender threads look for goals now."""
        for wakeup in self._goals:
            wakeup.set()

    def stop(self, timeout_s: float = 15.0) -> bool:
        """Claim nothing more and wait for work in progress. False: some was still in progress at the time limit."""
        self._stopping.set()
        for wakeup in (self._events, *self._goals):
            wakeup.set()
        end = self._monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - self._monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def _loop(self, step: Callable[[], float], wakeup: threading.Event) -> None:
        errors = 0
        while not self._stopping.is_set():
            try:
                pause_s = step()
                errors = 0
            except StoreError as error:
                pause_s = AFTER_ERROR_S[min(errors, len(AFTER_ERROR_S) - 1)]
                if errors == 0:
                    log.warning("store.unavailable", reason=str(error))
                errors += 1
            except Exception as error:  # noqa: BLE001 - no error ends a thread
                pause_s = 0.0
                log.error("fault", fault=logs.where(error))  # noqa: TRY400 - a stack trace may quote what was sent
                self._stopping.wait(AFTER_ERROR_S[-1])
            if pause_s > 0 and wakeup.wait(pause_s):
                wakeup.clear()

    def _route_once(self) -> float:
        self._events.clear()
        started = self._monotonic()
        routed = self._route()
        if routed and self._events.is_set():
            # The same interpreter is receiving events: their acknowledgements go first, routing can wait.
            self._stopping.wait(min(REST_MAX_S, max(REST_MIN_S, REST_FACTOR * (self._monotonic() - started))))
        until_chore_s = self._do_chores()
        return 0.0 if routed else min(until_chore_s, self._idle_s)

    def _deliver_once(self) -> float:
        wait_ms = self._deliver(self.stopping)
        return 0.0 if wait_ms is None else wait_ms / 1000

    def _do_chores(self) -> float:
        """Do the chores that are due; return the seconds until the next. A failed chore waits for its next turn."""
        for chore in self._chores:
            now = self._monotonic()
            if now < self._due_s[chore.name]:
                continue
            self._due_s[chore.name] = now + chore.every_s
            try:
                chore.work()
                self._failing.pop(chore.name, None)
            except StoreError as error:
                self._log_failed(chore.name, str(error))
        return max(0.0, min(self._due_s.values(), default=self._monotonic() + 1) - self._monotonic())

    def _log_failed(self, name: str, reason: str) -> None:
        """Log each reason once: a database that is down for an hour would otherwise cause 7,000 log lines."""
        if self._failing.get(name) != reason:
            self._failing[name] = reason
            log.warning("chore.failed", chore=name, reason=reason)
