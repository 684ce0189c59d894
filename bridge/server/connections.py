"""The clients' connections and what they share: memory, places and threads. Decides who waits and who gives way.

A connection knows its state, the progress of its request, and what is to be sent to it.

- Memory (`Room`): the received parts of bodies above 32 KiB share `ROOM` bytes, whatever was announced. When these are
  used up, bodies wait unread, except for `FAVOURED` at a time, those that lack the least first. A client that holds
  bytes in the meantime and sends none for `STALL_S` has stalled.
- Places (`Crowd`): when they run short, the origin with the most connections (an address, or the IPv6 network of one
  customer) gives way first, and of its connections the one longest without progress. Behind a proxy, all have the same
  origin.
- Threads (`Lane`): few of them compute at a time, because each keeps the loop from the interpreter. While none of them
  finishes a request, they are waiting (for the database), and more may run.
"""

from __future__ import annotations

import logging
import resource
import socket
import threading
import time
from enum import Enum, auto
from functools import partial
from heapq import heappop, heappush
from ipaddress import IPv6Address, ip_address
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from bridge import logs
from bridge.server.framing import BODY_LIMIT, Inbound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bridge.model import Request
    from bridge.server import Deferred, HttpAnswer

    Quick = Callable[[Request], HttpAnswer | Deferred]

Member = TypeVar("Member")

FILES: Final = 64  # open files other than connections
ROOM: Final = 16 * BODY_LIMIT  # bytes received, being read or being served: each costs four times its size
HELD_MOST: Final = 2 * ROOM  # small bodies and heads count, but are still read, up to this total
FAVOURED: Final = 2
STALL_S: Final = 0.5
STRIDE: Final = 4096  # this many bytes count as progress: single bytes do not

_gunicorn_log = logging.getLogger("gunicorn.error")


class State(Enum):
    IDLE = auto()  # kept open, no byte of the next request yet
    READING = auto()
    WAITING = auto()  # waits for room
    SERVING = auto()  # in a thread, and touched by nothing else
    WRITING = auto()  # the client is slow to take its answer
    LINGERING = auto()  # answered and shut down; further bytes are discarded


QUIET: Final = frozenset({State.IDLE, State.LINGERING})
HUNGRY: Final = frozenset({State.READING, State.WAITING, State.WRITING})


class Connection:
    """One client. `deadline`: when the loop ends its current state (None: never)."""

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
        self.moved_at = time.monotonic()  # when it last made progress
        self.got = 0  # bytes received since then
        self.held = 0  # bytes that count as held
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
        """Whether bytes, or the end of the stream, have arrived."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        return True


# --------------------------------------------------------------------------------------------------------------- memory


class Room:
    """Tracks who holds how many bytes, and who waits. resume: makes the loop read a connection again, as of a time."""

    def __init__(self, resume: Callable[[Connection, float], None]) -> None:
        self._resume = resume
        self._held = 0
        self._waiting: dict[Connection, None] = {}
        self._favoured: dict[Connection, None] = {}

    @property
    def is_overfull(self) -> bool:
        """Whether the total exceeds `HELD_MOST`, the limit for all bodies, however small."""
        return self._held > HELD_MOST

    def is_for(self, connection: Connection) -> bool:
        """Whether more of a connection's body may be read now."""
        return connection in self._favoured or self._fits(connection, self._held)

    def hold(self, connection: Connection, held: int) -> None:
        """Record how many bytes of this connection are held now."""
        self._held += held - connection.held
        connection.held = held

    def let_go(self, connection: Connection) -> None:
        """Release a connection's bytes, so that others may go on."""
        if connection.held or connection in self._favoured:
            self.hold(connection, 0)
            self._favoured.pop(connection, None)
            if self._waiting:
                self._give(time.monotonic())

    def complete(self, connection: Connection) -> None:
        """Stop favouring a connection whose body is complete."""
        self._favoured.pop(connection, None)

    def wait(self, connection: Connection) -> None:
        """Let a connection's body wait unread."""
        self._waiting[connection] = None
        if len(self._favoured) < FAVOURED:
            self._give(time.monotonic())

    def leave(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._waiting.pop(connection, None)
        self.let_go(connection)

    def stalled(self, connections: Iterable[Connection], now: float) -> Iterator[Connection]:
        """While bodies wait for room: the clients to cut off, which hold some and send nothing. Then give room."""
        if not self._waiting:
            return
        for connection in list(self._waiting):
            if connection.is_readable():
                connection.moved_at = now  # the loop is not reading it now
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


# --------------------------------------------------------------------------------------------------------------- places


def places(wanted: int) -> int:
    """The limit of simultaneous connections: the wanted number, if that many files may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + FILES:
        soft = wanted + FILES if hard == resource.RLIM_INFINITY else min(hard, wanted + FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(16, min(wanted, soft - FILES))


def origin_of(client: Any) -> str:
    """The origin of a connection, by the peer address that `accept` returned."""
    if not isinstance(client, tuple):
        return ""  # a Unix socket: a client on this machine
    return origin_at(str(client[0]))


def origin_at(address: str) -> str:
    """One name for all addresses of one customer, such as an IPv6 network. Empty if this is not an address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or found.packed[:8].hex())
    return str(found)


class Crowd(Generic[Member]):
    """Members in the order in which they give way. Every operation takes constant time."""

    def __init__(self) -> None:
        self._origins: dict[Member, str] = {}
        self._lines: dict[str, dict[Member, None]] = {}  # by origin; the one longest without progress first
        self._sizes: dict[int, dict[str, None]] = {}  # origins by the length of their line
        self._most = 0

    def __len__(self) -> int:
        return len(self._origins)

    def put(self, member: Member, origin: str) -> None:
        """Add a member, or note its progress: it is now the last in its line."""
        line = self._lines.setdefault(origin, {})
        before = len(line)
        line.pop(member, None)
        line[member] = None
        self._origins[member] = origin
        self._resize(origin, before, len(line))

    def drop(self, member: Member) -> None:
        """Remove a member, if it is one."""
        origin = self._origins.pop(member, None)
        if origin is None:
            return
        line = self._lines[origin]
        del line[member]
        if not line:
            del self._lines[origin]
        self._resize(origin, len(line) + 1, len(line))

    def first(self) -> Member | None:
        """The member that gives way next."""
        if not self._most:
            return None
        return next(iter(self._lines[next(iter(self._sizes[self._most]))]))

    def _resize(self, origin: str, before: int, after: int) -> None:
        if before:
            self._sizes[before].pop(origin)
            if not self._sizes[before]:
                del self._sizes[before]
        if after:
            self._sizes.setdefault(after, {})[origin] = None
        self._most = max(self._most, after)
        if self._most not in self._sizes:
            self._most = after  # one less than before: lines change by one at a time


# -------------------------------------------------------------------------------------------------------------- threads


class Lane(Generic[Member]):
    """Requests waiting for one of these threads: small ones first, otherwise in order of arrival.

    Only the loop may call it. serve: called in a thread with the request and this lane; it makes the loop call `done`.
    fail: called in the loop with a request that no thread can take, because the system has none left.
    """

    def __init__(
        self,
        few: int,
        most: int,
        serve: Callable[[Member, Lane[Member]], None],
        fail: Callable[[Member, Lane[Member]], None],
    ) -> None:
        self.running = 0
        self._few, self._most, self._limit = few, most, few
        self._serve, self._fail = serve, fail
        self._threads = 0
        self._handed: SimpleQueue[Member | None] = SimpleQueue()
        self._waiting: list[tuple[int, int, Member]] = []
        self._count = count()
        self._is_stuck = False

    def put(self, request: Member, size: int) -> None:
        """Queue a request of this many bytes for a thread."""
        heappush(self._waiting, (size, next(self._count), request))
        self._hand_out()

    def done(self) -> None:
        """Note that a request has come back from its thread."""
        self.running -= 1
        self._is_stuck = False
        if not self._waiting:
            self._limit = self._few
        self._hand_out()

    def look(self) -> None:
        """Let more threads run if the present ones are stuck. Call it periodically."""
        if self._waiting and self._is_stuck:
            self._limit = min(2 * self._limit, self._most)
        self._is_stuck = bool(self._waiting)
        self._hand_out()

    def end(self) -> None:
        """Let each thread end after its current request."""
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
        except RuntimeError as error:  # the system has no more; the existing ones must suffice
            _gunicorn_log.error("No thread could be started: %s", logs.where(error))
        else:
            self._threads += 1

    def _work(self) -> None:
        while (request := self._handed.get()) is not None:
            self._serve(request, self)
