"""One client's connection: what it is doing, what came of its request, and what it is to be sent."""

from __future__ import annotations

import resource
import socket
import time
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bridge.server.crowd import origin_of
from bridge.server.framing import Inbound

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.server import Deferred, HttpAnswer

    Quick = Callable[[dict[str, Any]], HttpAnswer | Deferred]

FILES: Final = 64  # open files that are not connections


class State(Enum):
    IDLE = auto()  # kept, no byte of a next request yet
    READING = auto()
    WAITING = auto()  # for room
    SERVING = auto()  # a thread has it, and nothing else touches it
    WRITING = auto()  # the client is slow to take its answer
    LINGERING = auto()  # answered and shut; what still comes is thrown away


QUIET: Final = frozenset({State.IDLE, State.LINGERING})
HUNGRY: Final = frozenset({State.READING, State.WAITING, State.WRITING})


class Connection:
    """One client. `deadline`: when the loop ends the state it is in (None: it does not)."""

    __slots__ = (
        "client", "deadline", "deferred", "got", "held", "inbound", "kept", "lingered", "moved_at", "origin", "out",
        "quick", "request", "requests", "server", "sock", "state", "unread", "watched",
    )  # fmt: skip

    def __init__(
        self, sock: socket.socket, client: Any, server: Any, begin: Callable[[Connection, bytes], int | None]
    ) -> None:
        self.sock = sock
        self.client = client
        self.origin = origin_of(client)
        self.server = server
        self.inbound = Inbound(partial(begin, self))
        self.state = State.READING
        self.moved_at = time.monotonic()  # when it last got on
        self.got = 0  # bytes since
        self.held = 0  # bytes of it that count as held
        self.deadline: float | None = None
        self.request: Any = None
        self.requests = 0
        self.out = b""
        self.kept = False
        self.quick: Quick | None = None
        self.deferred: Deferred | None = None
        self.unread = False
        self.lingered = 0
        self.watched = 0

    def is_readable(self) -> bool:
        """Whether bytes, or an end, are here already."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        return True


def places(wanted: int) -> int:
    """How many connections there may be at once: what is wanted, if so many files may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + FILES:
        soft = wanted + FILES if hard == resource.RLIM_INFINITY else min(hard, wanted + FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(16, min(wanted, soft - FILES))
