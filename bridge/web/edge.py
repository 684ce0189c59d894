"""The gunicorn worker: a request gets a thread only when all its bytes are here, so no slow client ever holds one.

gunicorn's own `gthread` reads the request inside the thread, without a deadline: as many slow clients as threads
stop it for ever. Shutting late sockets from a reaper thread mends "for ever", but 200 slow clients still hold 32
threads for ten seconds each. Here one loop reads all connections without blocking, cuts them into requests
(`bridge.web.framing`), and hands whole ones to the threads; answers that a client does not take are written by the
loop as well. So a thread never waits for a client, and a slow one costs a few KB for at most the deadline.
What the application says is quick (`is_quick`: a webhook, whose answer waits for the disk but needs no thread to do
so) is served in the loop itself.

The deadline runs from accept, or a kept connection's next first byte, to the request's last byte. It cuts only a
request whose bytes have not arrived: the loop looks once more before it cuts, and a whole request waits for a thread
as long as it must. Bodies above 32 KiB share `ROOM` bytes; one that had to wait for room, however long, gets
`ROOM_S` of reading from the moment it has it, and while others wait nobody keeps it longer.
Plain HTTP/1 only: TLS ends at the router in front.
"""

from __future__ import annotations

import errno
import io
import os
import queue
import selectors
import signal
import socket
import threading
import time
from collections import deque
from email.utils import formatdate
from enum import Enum, auto
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from gunicorn.errors import ConfigError
from gunicorn.http import errors as parse_errors
from gunicorn.http import wsgi
from gunicorn.http.body import ChunkedReader
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.gthread import ThreadWorker

from bridge import logs
from bridge.web.framing import BODY_LIMIT, HeadTooLarge, Inbound
from bridge.web.later import KEY as LATER
from bridge.web.later import Later

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.web.later import Answer

ROOM: Final = 16 * BODY_LIMIT  # bytes of large bodies, being read or being served: each costs four times its size
ROOM_S: Final = 2.0
WRITE_S: Final = 10.0  # to take an answer
LINGER_S: Final = 5.0  # to read the answer while what we do not want to read still comes
LINGER_BYTES: Final = 16 * BODY_LIMIT
IDLE_AT_STOP_S: Final = 1.0  # a kept connection's client may be sending already
SWEEP_S: Final = 0.25
ACCEPTS: Final = 64  # in one go
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_FULL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ENDS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def keep_signals_over_forks() -> None:
    """A SIGTERM that reaches a worker right after its fork waits until it can be heard. Called once in the server.

    Else the server's own handler, which the worker has inherited, swallows it, and 20 s later the worker is killed.
    """
    _hear(signal.SIG_UNBLOCK)  # a server that was started anew (USR2) was forked, too
    os.register_at_fork(before=partial(_hear, signal.SIG_BLOCK), after_in_parent=partial(_hear, signal.SIG_UNBLOCK))


def _hear(how: int) -> None:
    signal.pthread_sigmask(how, _ENDS)


class State(Enum):
    IDLE = auto()  # kept, no byte of a next request yet
    READING = auto()
    WAITING = auto()  # for room
    SERVING = auto()  # a thread has it, and nobody else touches it
    WRITING = auto()  # the client is slow to take its answer
    LINGERING = auto()  # answered and shut; what still comes is thrown away


QUIET: Final = frozenset({State.IDLE, State.LINGERING})
HUNGRY: Final = frozenset({State.READING, State.WAITING})


class Connection:
    """One client. `deadline`: when the loop ends the state it is in (None: it does not)."""

    __slots__ = (
        "accepted_at", "client", "deadline", "inbound", "kept", "later", "lingered", "out", "request", "requests",
        "room", "room_at", "server", "sock", "state", "unread", "watched",
    )  # fmt: skip

    def __init__(
        self, sock: socket.socket, client: Any, server: Any, begin: Callable[[Connection, bytes], int | None]
    ) -> None:
        self.sock = sock
        self.client = client
        self.server = server
        self.inbound = Inbound(partial(begin, self))
        self.state = State.READING
        self.accepted_at = time.monotonic()
        self.deadline: float | None = None
        self.request: Any = None
        self.requests = 0
        self.room = 0
        self.room_at = 0.0
        self.out = b""
        self.kept = False
        self.later: Later | None = None
        self.unread = False
        self.lingered = 0
        self.watched = 0


class Written:
    """What gunicorn's response writes to instead of a socket: headers and body leave together."""

    def __init__(self) -> None:
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        self.data += data

    def send(self, data: bytes) -> int:
        self.data += data
        return len(data)


def plain(status: str, sentence: str, *headers: str) -> bytes:
    """An answer that no application made. The connection ends with it."""
    body = (sentence + "\n").encode()
    head = (f"HTTP/1.1 {status}", "Connection: close", "Content-Type: text/plain; charset=utf-8", *headers)
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", "")).encode() + body


@lru_cache(maxsize=256)
def rendered(answer: Answer, version: tuple[int, int], now_s: int, *, kept: bool) -> bytes:
    """An answer as bytes; the few that there are say the same for a second."""
    head = (
        f"HTTP/{version[0]}.{version[1]} {answer.status}",
        f"Server: {wsgi.SERVER}",
        f"Date: {formatdate(now_s, usegmt=True)}",
        f"Connection: {'keep-alive' if kept else 'close'}",
        *(f"{name}: {value}" for name, value in answer.headers),
    )
    return "\r\n".join((*head, "", "")).encode("latin-1") + answer.body


TOO_LATE: Final = plain("408 Request Timeout", "The request did not arrive in time.")
NO_PLACE: Final = plain("503 Service Unavailable", "Too many connections. Try again soon.", "Retry-After: 5")
FAILED: Final = plain("503 Service Unavailable", "This could not be done just now. Try again soon.", "Retry-After: 30")
MALFORMED: Final = plain("400 Bad Request", "This is not a well-formed HTTP request.")
LONG_HEAD: Final = plain("431 Request Header Fields Too Large", "The request's head is too large.")
REFUSALS: Final[tuple[tuple[type[Exception], bytes], ...]] = (
    (HeadTooLarge, LONG_HEAD),
    (parse_errors.LimitRequestHeaders, LONG_HEAD),
    (parse_errors.LimitRequestLine, plain("414 URI Too Long", "The address is too long.")),
    (parse_errors.ExpectationFailed, plain("417 Expectation Failed", "Only 100-continue can be expected.")),
)


class EdgeWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """See the module's text. `at_stop` holds what must be stopped with the process, beside its connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at_stop: list[Callable[[], None]] = []
        self.deadline_s = 10.0
        self.is_quick: Callable[[Any], bool] = lambda _request: False
        self._retiring = False
        self._stoppers: list[threading.Thread] | None = None
        self._connections: dict[Connection, None] = {}  # in the order of accept
        self._ready: queue.SimpleQueue[Connection | None] = queue.SimpleQueue()
        self._calls: deque[Callable[[], None]] = deque()  # what the loop is to do, from any thread
        self._rung = False
        self._threads = 0
        self._serving = 0
        self._room = ROOM
        self._waiting: deque[Connection] = deque()
        self._swept_at = 0.0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:  # noqa: ARG003 - gunicorn's signature
        """Refuse what this worker does not do."""
        if cfg.is_ssl:
            raise ConfigError("The bridge speaks plain HTTP: TLS ends at the router or proxy in front of it.")

    def init_signals(self) -> None:
        """From here on the worker hears signals itself."""
        super().init_signals()
        _hear(signal.SIG_UNBLOCK)

    def get_thread_pool(self) -> None:
        """None: the threads are this worker's own, started as they are needed."""

    # ------------------------------------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Serve until told to stop, then finish what is under way within the grace period."""
        self.poller.register(self.method_queue.fileno(), READ, self.method_queue.run_callbacks)
        self.set_accept_enabled(enabled=True)
        while self.alive and not self._retired():
            self._turn()
            if not self.is_parent_alive():
                break
        self._finish()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Ctrl-C gives leases back as SIGTERM does; the arbiter kills what does not end."""
        self.handle_exit(sig, frame)

    def _turn(self) -> None:
        for key, _ in self.poller.select(SWEEP_S if self._connections or not self.alive else 1.0):
            try:
                key.data(key.fileobj)
            except Exception as error:  # noqa: BLE001 - one connection's fault must not end all others
                self.log.error("A connection failed: %s", logs.where(error))  # noqa: TRY400 - no stack in logs
        now = time.monotonic()
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            self.notify()
            for connection in list(self._connections):
                if self._is_late(connection, now):
                    self._expire(connection)
            if self.alive and not self._accepting:
                self.set_accept_enabled(enabled=True)

    def _retired(self) -> bool:
        """After `max_requests`: what stops with the process stops first, so that nobody waits for it meanwhile."""
        return self._retiring and not self._stop_others()

    def _stop_others(self) -> bool:
        """Begin (once) to run what `at_stop` holds; True while it runs."""
        if self._stoppers is None:
            self._stoppers = [threading.Thread(target=stop, daemon=True) for stop in self.at_stop]
            for thread in self._stoppers:
                thread.start()
        return any(thread.is_alive() for thread in self._stoppers)

    def _finish(self) -> None:
        self.alive = False
        until = time.monotonic() + self.cfg.graceful_timeout - 1.0
        self._stop_others()
        if self._accepting:
            for listener in self.sockets:
                self.accept(listener)  # whoever came before now is served
        self.set_accept_enabled(enabled=False)
        for listener in self.sockets:
            listener.close()
        for connection in self._connections:
            if connection.state is State.IDLE or (connection.state is State.READING and not connection.inbound.started):
                connection.deadline = time.monotonic() + IDLE_AT_STOP_S
        while (self._connections or self._stop_others()) and time.monotonic() < until:
            self._turn()
        for connection in list(self._connections):
            self._close(connection)
        for _ in range(self._threads):
            self._ready.put(None)

    # ----------------------------------------------------------------------------------------------- accepting

    def accept(self, listener: Any) -> None:
        """Take the clients that wait, and what they have already sent."""
        server = listener.getsockname()
        for _ in range(ACCEPTS):
            if len(self._connections) >= self.worker_connections and not self._make_place():
                return
            try:
                sock, client = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._make_place()
                return
            sock.setblocking(False)
            connection = Connection(sock, client, server, self._begin)
            connection.deadline = connection.accepted_at + self.deadline_s
            self._connections[connection] = None
            self._read(connection)

    def _make_place(self) -> bool:
        """At the limit of connections: the oldest that has nothing for us goes, a kept one first."""
        young = time.monotonic() - 1.0
        for states in (QUIET, HUNGRY):
            for connection in self._connections:
                if connection.state in states and connection.accepted_at < young:
                    if states is HUNGRY:
                        self._send(connection, NO_PLACE)
                    self._close(connection)
                    return True
        self.set_accept_enabled(enabled=False)  # until a sweep
        return False

    # ------------------------------------------------------------------------------------------------- reading

    def _on_readable(self, connection: Connection, _sock: object) -> None:
        if connection.state is State.LINGERING:
            self._discard(connection)
        elif connection.state is State.SERVING:
            self._watch(connection, 0)  # a next request, or its end, before this one is answered
        else:
            self._read(connection)

    def _read(self, connection: Connection) -> bool:
        """Read once, without waiting; False when there was nothing to read."""
        try:
            data = connection.sock.recv(connection.inbound.appetite)
        except (BlockingIOError, InterruptedError):
            self._watch(connection, READ)
            return False
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return False
        if connection.state is State.IDLE:
            self._await_request(connection)
        self._feed(connection, data)
        return True

    def _await_request(self, connection: Connection) -> None:
        connection.state = State.READING
        connection.deadline = time.monotonic() + self.deadline_s

    def _feed(self, connection: Connection, data: bytes) -> None:
        inbound = connection.inbound
        try:
            whole = inbound.feed(data)
        except Exception as error:  # noqa: BLE001 - whatever the parser says of it, it is the sender's fault
            self._refuse(connection, error)
            return
        if whole:
            self._dispatch(connection)
        elif inbound.needs_room and not connection.room and not self._take_room(connection):
            connection.state = State.WAITING
            connection.deadline = None
            self._waiting.append(connection)
            self._watch(connection, 0)
        else:
            self._watch(connection, READ)

    def _begin(self, connection: Connection, head: bytes) -> int | None:
        """Let gunicorn's parser read the head: its length of the body is the one that counts."""
        connection.requests += 1
        request = Request(self.cfg, IterUnreader([head]), connection.client, connection.requests)
        connection.request = request
        reader = request.body.reader
        length = None if isinstance(reader, ChunkedReader) else int(reader.length)
        if request._expected_100_continue:  # noqa: SLF001 - else gunicorn answers it when it is too late
            request._expected_100_continue = False  # noqa: SLF001
            if length is None or length <= BODY_LIMIT:
                self._send(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
        return length

    def _refuse(self, connection: Connection, error: Exception) -> None:
        """Bytes that are no request. Never more in the log than the kind of fault: a head may hold secrets."""
        self.log.info("A request was not well-formed: %s", type(error).__name__)
        answer = next((answer for kind, answer in REFUSALS if isinstance(error, kind)), MALFORMED)
        self._send(connection, answer)
        connection.unread = True
        self._linger(connection)

    # ---------------------------------------------------------------------------------------------------- room

    def _take_room(self, connection: Connection) -> bool:
        need = connection.inbound.needs_room
        if need > self._room or (self._waiting and self._waiting[0] is not connection):
            return False
        self._room -= need
        connection.room = need
        connection.room_at = time.monotonic()
        return True

    def _give_room_back(self, connection: Connection) -> None:
        self._room += connection.room
        connection.room = 0
        while self._waiting and self._take_room(self._waiting[0]):
            granted = self._waiting.popleft()
            granted.state = State.READING
            granted.deadline = granted.room_at + ROOM_S
            self._watch(granted, READ)

    # ----------------------------------------------------------------------------------------------- deadlines

    def _is_late(self, connection: Connection, now: float) -> bool:
        if connection.deadline is None:
            return False
        reading_in_room = connection.room and connection.state is State.READING
        if self._waiting and reading_in_room and now >= connection.room_at + ROOM_S:
            return True
        return now >= connection.deadline

    def _expire(self, connection: Connection) -> None:
        """End a state whose time is over."""
        if connection.state is State.READING:
            self._cut(connection)
        elif connection.later is not None and connection.later.late is not None:
            self._answer(connection, connection.later, connection.later.late)
        elif connection.state in (State.IDLE, State.WRITING, State.LINGERING):
            self._close(connection)

    def _cut(self, connection: Connection) -> None:
        """End a request that did not arrive: only when its bytes are really not here."""
        while connection.state is State.READING and self._read(connection):
            pass
        if connection.state is State.READING and connection in self._connections:
            if connection.inbound.started:
                self._send(connection, TOO_LATE)
            self._close(connection)

    # ------------------------------------------------------------------------------------------------- serving

    def _dispatch(self, connection: Connection) -> None:
        connection.state = State.SERVING
        connection.deadline = None
        self._serving += 1
        if connection.inbound.whole and not connection.room and self.is_quick(connection.request):
            self._handle_here(connection)
            return
        self._watch(connection, 0)
        if self._threads < min(self._serving, self.cfg.threads):
            self._start_thread()
        if self._threads:
            self._ready.put(connection)
        else:
            connection.out, connection.kept, connection.unread = FAILED, False, True
            self._write(connection)
            self._call(partial(self._served, connection))

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"web-{self._threads + 1}", daemon=True).start()
        except RuntimeError as error:  # the system has none to give: those that are there must do
            self.log.error("No thread could be started: %s", logs.where(error))  # noqa: TRY400 - no stack in logs
        else:
            self._threads += 1

    def _work(self) -> None:
        while (connection := self._ready.get()) is not None:
            if connection.inbound.whole and self.is_quick(connection.request):  # a large one: the thread only reads it
                connection.later = Later(partial(self._deliver, connection))
            self.handle(connection)
            self._call(partial(self._handled, connection))

    def _handle_here(self, connection: Connection) -> None:
        """In the loop itself: what waits for nothing costs less than a thread's turn. Its answer may come later."""
        connection.later = later = Later(partial(self._deliver, connection))
        later.handled = True  # before any answer can be looked at
        self.handle(connection)
        if later.late is None:
            connection.later = None
            self._call(partial(self._served, connection))  # not at once: there may be a next request, and a next
        else:
            connection.deadline = time.monotonic() + later.within_s

    def _handled(self, connection: Connection) -> None:
        """Back from a thread: the answer is there, or came meanwhile, or is awaited from now on."""
        later = connection.later
        if later is None or later.late is None:
            connection.later = None
            self._served(connection)
        elif later.early is not None:
            self._answer(connection, later, later.early)
        else:
            later.handled = True
            connection.deadline = time.monotonic() + later.within_s

    def handle(self, connection: Connection) -> None:
        """Serve the request of a connection; runs in a thread or the loop, and never raises."""
        connection.unread = not connection.inbound.whole
        answer = Written()
        try:
            connection.kept = self._run_application(connection, answer)
        except Exception as error:  # noqa: BLE001 - the application answers its own faults; this is what escaped
            self.log.error("A request failed: %s", logs.where(error))  # noqa: TRY400 - no stack in logs
            answer.data[:] = MALFORMED if isinstance(error, parse_errors.ParseException) else FAILED
            connection.kept = False
            if connection.later is not None:
                connection.later.late = None
        connection.out = bytes(answer.data)
        self._write(connection)

    def _run_application(self, connection: Connection, answer: Written) -> bool:
        request, later = connection.request, connection.later
        request.body = io.BytesIO(connection.inbound.next_request())
        response, environ = wsgi.create(request, answer, connection.client, connection.server, self.cfg)
        environ["wsgi.multithread"] = True
        if later is not None:
            environ[LATER] = later
        self.nr += 1
        self._retiring = self._retiring or self.nr >= self.max_requests
        if connection.unread or not self.alive:
            response.force_close()
        parts = self.wsgi(environ, response.start_response)
        if later is not None and later.late is not None:
            return not (response.must_close or request.should_close())
        try:
            for part in parts:
                response.write(part)
            response.close()
        finally:
            if hasattr(parts, "close"):
                parts.close()
        return not (connection.unread or response.should_close())

    def _deliver(self, connection: Connection, later: Later, make: Callable[[], Answer]) -> None:
        self._call(partial(self._answer, connection, later, make))

    def _answer(self, connection: Connection, later: Later, make: Callable[[], Answer]) -> None:
        """Send what was promised, unless something else was sent meanwhile."""
        if connection.later is not later:
            return
        if not later.handled and later.early is None:
            later.early = make
            return
        connection.later = None
        connection.kept = connection.kept and self.alive
        try:
            connection.out = rendered(make(), connection.request.version, int(time.time()), kept=connection.kept)
        except Exception as error:  # noqa: BLE001 - as in `handle`
            self.log.error("An answer failed: %s", logs.where(error))  # noqa: TRY400 - no stack in logs
            connection.out, connection.kept = FAILED, False
        self._write(connection)
        self._served(connection)

    def _call(self, call: Callable[[], None]) -> None:
        """Have the loop do something, from any thread: one wake-up for all that comes before it looks."""
        self._calls.append(call)
        if not self._rung:
            self._rung = True
            self.method_queue.defer(self._do_calls)

    def _do_calls(self) -> None:
        self._rung = False  # first: whoever comes from here on rings again
        for _ in range(len(self._calls)):
            try:
                self._calls.popleft()()
            except Exception as error:  # noqa: BLE001 - one connection's fault must not end all others
                self.log.error("A connection failed: %s", logs.where(error))  # noqa: TRY400 - no stack in logs

    def _served(self, connection: Connection) -> None:
        """Back in the loop: the connection's next request, or its end."""
        self._serving -= 1
        connection.request = None
        if connection.room:
            self._give_room_back(connection)
        if connection.out:
            connection.state = State.WRITING
            connection.deadline = time.monotonic() + WRITE_S
            self._watch(connection, WRITE)
        else:
            self._go_on(connection)

    def _go_on(self, connection: Connection) -> None:
        if not connection.kept:
            self._linger(connection)
        elif connection.inbound.left_over:
            self._await_request(connection)
            self._feed(connection, b"")
        else:
            connection.state = State.IDLE
            connection.accepted_at = time.monotonic()
            connection.deadline = connection.accepted_at + (self.cfg.keepalive if self.alive else IDLE_AT_STOP_S)
            self._watch(connection, READ)

    # ------------------------------------------------------------------------------------------------- writing

    def _write(self, connection: Connection) -> None:
        """Send what the client takes without waiting; the rest stays in `out`."""
        if not connection.out:
            return
        try:
            sent = connection.sock.send(connection.out)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            connection.kept = False
            sent = len(connection.out)
        connection.out = connection.out[sent:]

    def _on_writable(self, connection: Connection, _sock: object) -> None:
        self._write(connection)
        if not connection.out:
            self._go_on(connection)

    def _send(self, connection: Connection, answer: bytes) -> None:
        """A short answer of our own; whoever does not take it goes without."""
        try:
            connection.sock.send(answer)
        except OSError:
            connection.kept = False

    # ------------------------------------------------------------------------------------------------- closing

    def _linger(self, connection: Connection) -> None:
        """Close so that the answer is not lost: bytes left unread would make the system reset the connection.

        Where more is expected to come, it is thrown away for a while; elsewhere there is nothing to wait for.
        """
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        connection.state = State.LINGERING
        connection.accepted_at = time.monotonic()
        connection.deadline = connection.accepted_at + LINGER_S
        self._discard(connection)

    def _discard(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(4 * 16384)
        except (BlockingIOError, InterruptedError):
            if connection.unread:
                self._watch(connection, READ)
            else:
                self._close(connection)
            return
        except OSError:
            data = b""
        connection.lingered += len(data)
        if not data or connection.lingered > LINGER_BYTES:
            self._close(connection)
        else:
            self._watch(connection, READ)

    def _close(self, connection: Connection) -> None:
        self._watch(connection, 0)
        self._connections.pop(connection, None)
        if connection.state is State.WAITING:
            self._waiting.remove(connection)
        if connection.room:
            self._give_room_back(connection)
        connection.sock.close()

    def _watch(self, connection: Connection, events: int) -> None:
        """Have the loop call when the socket can be read or written, or (0) not at all."""
        if events == connection.watched:
            return
        if connection.watched:
            self.poller.unregister(connection.sock)
        if events:
            callback = self._on_writable if events == WRITE else self._on_readable
            self.poller.register(connection.sock, events, partial(callback, connection))
        connection.watched = events
