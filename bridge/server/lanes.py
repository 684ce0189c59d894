"""Threads, and the requests that wait for one. It knows no socket: what a request is, its owner knows.

Few threads compute at a time, because each of them keeps the loop from the interpreter. While none of them finishes a
request, they are waiting (for the database), and more may run.
"""

from __future__ import annotations

import logging
import threading
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from bridge import logs

if TYPE_CHECKING:
    from collections.abc import Callable

Request = TypeVar("Request")

_gunicorn_log = logging.getLogger("gunicorn.error")


class Lane(Generic[Request]):
    """Requests that wait for one of these threads: small ones first, otherwise in order of arrival.

    Only the loop calls it. serve: is called in a thread with the request and this lane, and has the loop call `done`.
    fail: is called in the loop with a request that no thread can take, because the system has none.
    """

    def __init__(
        self,
        few: int,
        most: int,
        serve: Callable[[Request, Lane[Request]], None],
        fail: Callable[[Request, Lane[Request]], None],
    ) -> None:
        self.running = 0
        self._few, self._most, self._limit = few, most, few
        self._serve, self._fail = serve, fail
        self._threads = 0
        self._handed: SimpleQueue[Request | None] = SimpleQueue()
        self._waiting: list[tuple[int, int, Request]] = []
        self._count = count()
        self._is_stuck = False

    def put(self, request: Request, size: int) -> None:
        """Let a request of so many bytes wait for a thread."""
        heappush(self._waiting, (size, next(self._count), request))
        self._hand_out()

    def done(self) -> None:
        """A request has come back from its thread."""
        self.running -= 1
        self._is_stuck = False
        if not self._waiting:
            self._limit = self._few
        self._hand_out()

    def look(self) -> None:
        """Called now and then: requests must not wait for threads that are stuck."""
        if self._waiting and self._is_stuck:
            self._limit = min(2 * self._limit, self._most)
        self._is_stuck = bool(self._waiting)
        self._hand_out()

    def end(self) -> None:
        """Let each thread end after what it is doing."""
        for _ in range(self._threads):
            self._handed.put(None)

    def _hand_out(self) -> None:
        while self._waiting and self.running < self._limit:
            self.running += 1
            request = heappop(self._waiting)[2]
            if self._threads < self.running:
                self._start()
            if self._threads:
                self._handed.put(request)
            else:
                self._fail(request, self)

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"web-{self._threads + 1}", daemon=True).start()
        except RuntimeError as error:  # the system has no more; the existing ones must do
            _gunicorn_log.error("No thread could be started: %s", logs.where(error))
        else:
            self._threads += 1

    def _work(self) -> None:
        while (request := self._handed.get()) is not None:
            self._serve(request, self)
