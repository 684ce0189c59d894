"""Values that are recomputed only at intervals, so that reloading a page does not load the database."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from bridge import logs
from bridge.errors import StoreError
from bridge.server import give_back_memory

log = logs.get("web")

T = TypeVar("T")
FRESH_S: Final = 1.0
LONG_S: Final = 0.1
NOTICEABLE_S: Final = 0.02  # long for a part of a page
SHARE: Final = 20.0  # after a slow computation, wait this many times its duration


class Cached(Generic[T]):
    """Calls `compute` if the last value is older than `fresh_s`. An exception is cached as long as a value."""

    def __init__(self, compute: Callable[[], T], fresh_s: float = FRESH_S) -> None:
        self._compute = compute
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._computed_at: float | None = None
        self._value: T | None = None
        self._error: Exception | None = None

    def get(self) -> T:
        """The value; raises what computing it raised."""
        with self._lock:
            if self._computed_at is None or time.monotonic() - self._computed_at >= self._fresh_s:
                self._value = self._error = None
                try:
                    self._value = self._compute()
                except Exception as error:  # noqa: BLE001 - it is raised below, and for every caller in the meantime
                    self._error = error
                self._computed_at = time.monotonic()
            if self._error is not None:
                raise self._error.with_traceback(None)
            return self._value  # type: ignore[return-value] # set above


class CachedInBackground(Generic[T]):
    """The same for a value whose cost grows with the number of rows.

    Once it has taken long, it is computed in the background, for at most a twentieth of the time (even if that fails,
    for instance by a time limit), and callers get the last value meanwhile. The first call raises what `compute`
    raises; after that, the last value stays. long_s: how many seconds count as long; LONG_S by default.
    """

    def __init__(self, compute: Callable[[], T], long_s: float | None = None) -> None:
        self._compute = compute
        self._long_s = LONG_S if long_s is None else long_s
        self._lock = threading.Lock()
        self._value: tuple[T] | None = None
        self._took_s = 0.0
        self._next_s = 0.0

    def get(self) -> T:
        """The value."""
        with self._lock:
            due = time.monotonic() >= self._next_s
            if self._value is None or (due and self._took_s < self._long_s):
                self._value = (self._timed(),)
            elif due:
                self._next_s = math.inf  # a thread is computing it
                threading.Thread(target=self._refresh, name="count", daemon=True).start()
            return self._value[0]

    def _timed(self) -> T:
        began = time.monotonic()
        try:
            return self._compute()
        finally:
            self._took_s = time.monotonic() - began
            self._next_s = time.monotonic() + (SHARE * self._took_s if self._took_s >= self._long_s else 0.0)
            if self._took_s >= LONG_S:
                give_back_memory()

    def _refresh(self) -> None:
        try:
            value = self._timed()
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and the next try may succeed
            self._next_s = max(self._next_s, time.monotonic() + FRESH_S)
            if not isinstance(error, StoreError):
                log.error("fault", fault=logs.where(error))  # noqa: TRY400 - no stack in logs
        else:
            with self._lock:
                self._value = (value,)
