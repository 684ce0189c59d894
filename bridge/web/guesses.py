"""Whoever tries wrong bearer tokens waits longer and longer for the answer; a right one is never asked about here.

Each address has a few tries a minute for nothing, then one a second: the answer comes when its turn does, and a server
that can answer later holds no thread for it. Who does not wait for answers is told 429 at once. What is remembered is
bounded: the addresses seen last, an IPv6 network as one. Thread-safe; each process has its own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from bridge.server.crowd import origin_at

if TYPE_CHECKING:
    from collections.abc import Callable

FREE: Final = 5  # tries of an address that are answered at once
EACH_S: Final = 1.0  # what each further one costs, and how soon it is forgiven
LONGEST_S: Final = 4.0  # that an answer is kept back
ADDRESSES_MAX: Final = 1_024
WAITING_MAX: Final = 64  # answers kept back at once: each holds a connection


class Guesses:
    """When the next wrong try of each address is answered."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when all its tries are forgiven
        self._waiting: list[float] = []  # when each answer that is kept back goes out

    def wrong(self, address: str) -> float | None:
        """How many seconds to keep the answer back; None: refuse it now, there are too many."""
        origin = origin_at(address)
        with self._lock:
            now = self._monotonic()
            free_at = max(self._free_at.pop(origin, now), now) + EACH_S
            wait_s = max(free_at - now - FREE * EACH_S, 0.0)
            self._waiting = [at for at in self._waiting if at > now]
            refused = wait_s > LONGEST_S or (wait_s > 0 and len(self._waiting) >= WAITING_MAX)
            self._free_at[origin] = free_at - EACH_S if refused else free_at
            while len(self._free_at) > ADDRESSES_MAX:
                self._free_at.popitem(last=False)
            if refused:
                return None
            if wait_s:
                self._waiting.append(now + wait_s)
            return wait_s
