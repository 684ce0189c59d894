"""A value that is asked for at most so often, whoever asks: nobody makes the database work by reloading a page."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
FRESH_S: Final = 1.0


class Recent(Generic[T]):
    """Calls `ask` when the last value is older than `fresh_s`. What it raises is kept as long."""

    def __init__(self, ask: Callable[[], T], fresh_s: float = FRESH_S) -> None:
        self._ask = ask
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._value: T | None = None
        self._error: Exception | None = None

    def get(self) -> T:
        """The value; raises what asking for it raised."""
        with self._lock:
            if self._asked_at is None or time.monotonic() - self._asked_at >= self._fresh_s:
                self._value = self._error = None
                try:
                    self._value = self._ask()
                except Exception as error:  # noqa: BLE001 - it is raised below, and to all who ask in the meantime
                    self._error = error
                self._asked_at = time.monotonic()
            if self._error is not None:
                raise self._error.with_traceback(None)
            return self._value  # type: ignore[return-value] # set above
