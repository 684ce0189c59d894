"""The clients' connections, and the room in memory that they share for requests that have arrived, or are arriving.

A connection knows what it is doing, what came of its request, and what it is to be sent. What arrives of bodies above
32 KiB shares `ROOM` bytes, whatever was announced. When they are used up, bodies wait unread, except for `FAVOURED` at
a time, those that lack the least first. A client that holds bytes meanwhile and sends none for `STALL_S` has stalled.
"""

from __future__ import annotations

import resource
import socket
import time
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bridge.server.crowd import origin_of
from bridge.server.framing import BODY_LIMIT, Inbound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bridge.server import Deferred, HttpAnswer

    Quick = Callable[[dict[str, Any]], HttpAnswer | Deferred]

FILES: Final = 64  # open files that are not connections
ROOM: Final = 16 * BODY_LIMIT  # bytes that have arrived, being read or being served: each costs four times its size
HELD_MOST: Final = 2 * ROOM  # small bodies and heads count, but are read nevertheless, up to here
FAVOURED: Final = 2
STALL_S: Final = 0.5
STRIDE: Final = 4096  # bytes that count as progress: single bytes do not


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


class Room:
    """Who holds how many bytes, and who waits. resume: has the loop read a connection again, as of a time."""

    def __init__(self, resume: Callable[[Connection, float], None]) -> None:
        self._resume = resume
        self._held = 0
        self._waiting: dict[Connection, None] = {}
        self._favoured: dict[Connection, None] = {}

    @property
    def is_overfull(self) -> bool:
        """However many small bodies there are, together they may hold no more than `HELD_MOST`."""
        return self._held > HELD_MOST

    def is_for(self, connection: Connection) -> bool:
        """Whether more of its body may be read now."""
        return connection in self._favoured or self._fits(connection, self._held)

    def hold(self, connection: Connection, held: int) -> None:
        """So many bytes of this connection are kept now."""
        self._held += held - connection.held
        connection.held = held

    def let_go(self, connection: Connection) -> None:
        """Its bytes are gone: others may go on."""
        if connection.held or connection in self._favoured:
            self.hold(connection, 0)
            self._favoured.pop(connection, None)
            if self._waiting:
                self._give(time.monotonic())

    def complete(self, connection: Connection) -> None:
        """Its body is whole, so it needs no favour any more."""
        self._favoured.pop(connection, None)

    def wait(self, connection: Connection) -> None:
        """Let its body wait unread."""
        self._waiting[connection] = None
        if len(self._favoured) < FAVOURED:
            self._give(time.monotonic())

    def leave(self, connection: Connection) -> None:
        """The connection is closed."""
        self._waiting.pop(connection, None)
        self.let_go(connection)

    def stalled(self, connections: Iterable[Connection], now: float) -> Iterator[Connection]:
        """While bodies wait for room, the clients that hold some and send nothing: to be cut off. Then, give room."""
        if not self._waiting:
            return
        for connection in list(self._waiting):
            if connection.is_readable():
                connection.moved_at = now  # the loop does not read it now
        for connection in list(connections):
            reads = connection.state in (State.READING, State.WAITING)
            if reads and connection.held >= STRIDE and now - connection.moved_at >= STALL_S:
                yield connection
        self._give(now)

    def _fits(self, connection: Connection, held: int) -> bool:
        return held + connection.inbound.appetite <= ROOM

    def _give(self, now: float) -> None:
        """Resume the bodies that fit, those that lack the least first, and only those whose bytes are here."""
        promised = self._held
        for connection in sorted(self._waiting, key=lambda waiting: waiting.inbound.missing):
            fits = self._fits(connection, promised)
            if not fits and len(self._favoured) >= FAVOURED:
                return
            if not connection.is_readable():
                continue
            promised += connection.inbound.appetite
            if not fits:
                self._favoured[connection] = None
            del self._waiting[connection]
            self._resume(connection, now)
