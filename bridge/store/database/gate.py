"""A fair gate for the threads of one process: first come, first served, handed over directly.

SQLite lets one writer in at a time and makes the others sleep and try again, for up to 100 ms each time. The threads of
one process wait here instead and are woken at once. PostgreSQL lets in as many as there are connections: few threads
make few, and the gate stays narrow for a while where other processes have taken the rest. It knows nothing of those.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bridge.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


GROW_S: Final = 0.1  # how long to wait before making one more connection: about what making it takes
SHARE_S: Final = 0.02  # the same where there is another one already: what nobody needs idles, and is given back
GROW_FIRST_S: Final = 0.002


class Gate:
    """As many holders at a time as there is room for. `first` goes before those who wait, after those who hold it.

    There is room for one, and for one more whenever a thread has waited for a moment, up to `most`. Where there is room
    for several, they come in one by one as long as each is quick.
    """

    def __init__(self, most: int = 1) -> None:
        self._lock = threading.Lock()
        self._most = self._ceiling = most
        self._room = 1
        self._narrow_until_s = 0.0
        self._holders: set[int] = set()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    @contextmanager
    def turn(self, timeout_s: float, *, first: bool = False) -> Iterator[None]:
        """Hold the gate; StoreUnavailable if it does not come free in time."""
        self._enter(timeout_s, first=first)
        try:
            yield
        finally:
            self._leave()

    def narrow(self, room: int, seconds: float = 0.0) -> None:
        """Have less room, and make no more for that long. Those inside stay."""
        with self._lock:
            self._room = max(1, min(self._room, room))
            if seconds:
                self._ceiling = self._room
                self._narrow_until_s = time.monotonic() + seconds

    def _enter(self, timeout_s: float, *, first: bool) -> None:
        me = threading.get_ident()
        with self._lock:
            if me in self._holders:
                raise RuntimeError("a transaction was begun inside another one of the same thread")
            free = len(self._holders) < self._room
            if free and (first or not self._holders):
                self._holders.add(me)
                return
            bell = threading.Lock()
            bell.acquire()
            entry = (me, bell)
            (self._waiting.appendleft if first else self._waiting.append)(entry)
        moment_s = min(timeout_s, GROW_FIRST_S if first else SHARE_S if free else GROW_S)
        if bell.acquire(timeout=moment_s) or self._make_room(entry):
            return
        if not bell.acquire(timeout=timeout_s - moment_s):
            self._give_up(entry)

    def _make_room(self, entry: tuple[int, threading.Lock]) -> bool:
        with self._lock:
            if entry not in self._waiting:  # the gate was handed over at the very last moment
                return True
            if time.monotonic() > self._narrow_until_s:
                self._ceiling = self._most
            if len(self._holders) >= self._room:
                if self._room >= self._ceiling:
                    return False
                self._room += 1
            self._waiting.remove(entry)
            self._holders.add(entry[0])
            return True

    def _give_up(self, entry: tuple[int, threading.Lock]) -> None:
        with self._lock:
            if entry not in self._waiting:  # as above
                return
            self._waiting.remove(entry)
        raise StoreUnavailable("the database is busy: another transaction of this process did not end in time")

    def _leave(self) -> None:
        with self._lock:
            self._holders.discard(threading.get_ident())
            if self._waiting and len(self._holders) < self._room:
                holder, bell = self._waiting.popleft()
                self._holders.add(holder)
                bell.release()
