"""Answers to wrong bearer tokens take longer and longer. Right tokens never come here.

Each address has a few tries that are answered at once, then one per second: an answer waits for its turn, and a server
that can delay answers holds no thread for it. An address that does not wait for answers gets 429 at once. Memory is
bounded: only the latest addresses are kept, an IPv6 network as one. Thread-safe; each process has its own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from bridge.server.crowd import origin_at

if TYPE_CHECKING:
    from collections.abc import Callable

FREE: Final = 5  # tries of an address that are answered at once
EACH_S: Final = 1.0  # what each further try costs, and how soon a try is forgiven
LONGEST_S: Final = 4.0  # the longest delay of an answer
ADDRESSES_MAX: Final = 1_024
WAITING_MAX: Final = 64  # answers delayed at the same time: each holds a connection


class Guesses:
    """When the next wrong try of each address is answered."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when all tries of an address are forgiven
        self._waiting: list[float] = []  # when each delayed answer goes out

    def wrong(self, address: str) -> float | None:
        """How many seconds to delay the answer; None: refuse the request now, because there are too many."""
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
