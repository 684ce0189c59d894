"""A fair gate for the writers of one process: first come, first served, handed over directly.

SQLite lets one writer in at a time and makes the others sleep and try again, up to 100 ms a time. Threads of one
process wait here instead and are woken at once. It knows nothing of other processes: for those SQLite's own lock waits.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bridge.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


class Gate:
    """One holder at a time. `first` goes before those who wait, after whoever holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    @contextmanager
    def turn(self, timeout_s: float, *, first: bool = False) -> Iterator[None]:
        """Hold the gate; StoreUnavailable if it does not come free in time."""
        self._enter(timeout_s, first=first)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, timeout_s: float, *, first: bool) -> None:
        me = threading.get_ident()
        with self._lock:
            if self._holder is None:
                self._holder = me
                return
            if self._holder == me:
                raise RuntimeError("a write transaction was begun inside another one of the same thread")
            bell = threading.Lock()
            bell.acquire()
            entry = (me, bell)
            (self._waiting.appendleft if first else self._waiting.append)(entry)
        if not bell.acquire(timeout=timeout_s):
            self._give_up(entry)

    def _give_up(self, entry: tuple[int, threading.Lock]) -> None:
        with self._lock:
            if entry not in self._waiting:  # the gate was handed over at the very last moment
                return
            self._waiting.remove(entry)
        raise StoreUnavailable("the database is busy: another write of this process did not end in time")

    def _leave(self) -> None:
        with self._lock:
            if not self._waiting:
                self._holder = None
                return
            self._holder, bell = self._waiting.popleft()
            bell.release()


class Open:
    """The gate of a database that takes many writers at once: always open."""

    @contextmanager
    def turn(self, timeout_s: float, *, first: bool = False) -> Iterator[None]:  # noqa: ARG002 - Gate's signature
        """Nothing to wait for."""
        yield
