"""An answer that comes later: how the application waits for the disk without keeping a thread.

A server that can do so puts a `Later` into the environ under `KEY`. The application may `promise` an answer, return
nothing, and `answer` from any thread. With a server that offers none it waits in its thread, as WSGI wants it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

KEY: Final = "bridge.later"
DROPPED: Final = "bridge.dropped"  # of the same server's environ: whether a GET had headers that WSGI cannot tell


class Answer(NamedTuple):
    """What WSGI wants, ready made."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Later:
    """The answer to one request. deliver: takes what makes the answer, from any thread, and calls it in the loop."""

    __slots__ = ("_deliver", "early", "handled", "late", "within_s")

    def __init__(self, deliver: Callable[[Later, Callable[[], Answer]], None]) -> None:
        self._deliver = deliver
        self.late: Callable[[], Answer] | None = None
        self.within_s = 0.0
        self.early: Callable[[], Answer] | None = None  # it came before the server was done with the request
        self.handled = False

    def promise(self, within_s: float, late: Callable[[], Answer]) -> None:
        """There will be an answer. late: makes one when none came in time; what comes after that is not sent."""
        self.within_s = within_s
        self.late = late

    def answer(self, make: Callable[[], Answer]) -> None:
        """Here it is: `make` is called by the server, and must not wait."""
        self._deliver(self, make)
