"""The gunicorn worker: a request gets a thread only once all its bytes have arrived, so slow clients never hold one.

gunicorn's own `gthread` reads the request inside the thread, without a deadline, so slow clients block it (ADR 19).
Here one loop reads all connections without blocking, splits them into requests (`framing`), and hands complete ones to
threads; the loop writes the answers, too. So a thread never waits for a client, and a slow client costs a few KB until
the deadline.

Requests that the application can answer without blocking (`quick_for`: webhooks, whose answers wait for the disk but
need no thread for it) are served in the loop itself.

The deadline runs from accept, or from the first byte of the next request on a kept connection, to the request's last
byte. It ends only a request whose bytes have not arrived: the loop checks once more before it ends one, and a complete
request waits for a thread as long as necessary.

When connections run short, kept ones are closed after their answer, and a newcomer replaces an idle one, otherwise one
that has made no progress. Large bodies wait unread until there is room (`connections`). Webhooks with such bodies have
separate threads, the largest another one, so that they delay neither pages nor each other.

Plain HTTP/1 only: TLS ends at the router in front.
"""

from __future__ import annotations

import errno
import io
import os
import selectors
import signal
import socket
import threading
import time
from collections import deque
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
from bridge.server import DEFERRED, DROPPED, Deferred, HttpAnswer, framing
from bridge.server.connections import HUNGRY, QUIET, STRIDE, Connection, Crowd, Lane, Room, State, places
from bridge.server.framing import BODY_LIMIT, SMALL_BODY, Written, received, refusal, rendered

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.server.connections import Quick

FEW_THREADS: Final = 4
HOOK_THREADS: Final = 2  # threads for webhooks with larger bodies, which are parsed there and never block
HEAVY: Final = 4 * SMALL_BODY  # one at a time: parsing a body of 1 MiB may take 0.2 s
ROOM_S: Final = 2.0  # at least this long to read a body that had to wait for room
CROWDED: Final = 0.75  # share of places in use from which no connection is kept
YOUNG_S: Final = 0.25  # no connection gives way before this long without progress (less if there are few places)
WRITE_S: Final = 10.0  # to take an answer
LINGER_S: Final = 5.0  # for the client to read the answer while unwanted bytes still arrive
LINGER_BYTES: Final = 16 * BODY_LIMIT
IDLE_AT_STOP_S: Final = 1.0  # the client of a kept connection may already be sending
SWEEP_S: Final = 0.25
CUT_S: Final = 0.05  # share of a sweep spent looking for late bytes
AGAIN_S: Final = 0.02  # how long to pause accepting when there was no place
LOOK_S: Final = 0.05  # how often to check for stuck threads
ACCEPTS: Final = 64  # in one go
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_FULL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ENDS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def keep_signals_over_forks() -> None:
    """Hold a SIGTERM that reaches a worker right after its fork until it can be handled. Called once in the server.

    Otherwise the inherited handler of the server swallows it, and the worker is killed 20 s later.
    """
    _mask_end_signals(signal.SIG_UNBLOCK)  # a re-executed server (USR2) was forked, too
    os.register_at_fork(
        before=partial(_mask_end_signals, signal.SIG_BLOCK),
        after_in_parent=partial(_mask_end_signals, signal.SIG_UNBLOCK),
    )


def _mask_end_signals(how: int) -> None:
    signal.pthread_sigmask(how, _ENDS)


@lru_cache(maxsize=256)
def _drops(head: bytes) -> bool:
    """Whether a header has `_` in its name: gunicorn hides it, because WSGI cannot distinguish it from one with `-`."""
    return any(b"_" in line.partition(b":")[0] for line in head.split(b"\r\n")[1:])


class EdgeWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """See the module docstring. at_stop: functions that stop what must end with the process besides its connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at_stop: list[Callable[[], None]] = []
        self.deadline_s = 10.0
        self.quick_for: Callable[[Any], Quick | None] = lambda _request: None
        self._retiring = False
        self._stoppers: list[threading.Thread] | None = None
        self._connections: dict[Connection, None] = {}  # in the order of accept
        self._places = 0
        self._young_s = YOUNG_S
        self._quiet: Crowd[Connection] = Crowd()
        self._hungry: Crowd[Connection] = Crowd()
        self._room = Room(self._resume)
        self._pages, self._hooks, self._heavy = (
            Lane(few, most, self._serve, self._fail)
            for few, most in (
                (min(FEW_THREADS, self.cfg.threads), self.cfg.threads),
                (HOOK_THREADS, HOOK_THREADS),
                (1, 1),
            )
        )
        self._calls: deque[Callable[[], None]] = deque()  # calls for the loop to make, added from any thread
        self._wake_pending = False
        self._swept_at = 0.0
        self._notified_at = 0.0
        self._looked_at = 0.0
        self._full_at = 0.0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:  # noqa: ARG003 - gunicorn's signature
        """Refuse TLS, which this worker does not support."""
        if cfg.is_ssl:
            raise ConfigError("The bridge speaks plain HTTP: TLS ends at the router or proxy in front of it.")

    def init_signals(self) -> None:
        """From here on the worker handles signals itself."""
        super().init_signals()
        _mask_end_signals(signal.SIG_UNBLOCK)

    def get_thread_pool(self) -> None:
        """No pool: this worker starts its own threads when they are needed."""

    # ------------------------------------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Serve until told to stop, then finish requests in progress within the grace period."""
        self._places = places(self.worker_connections)
        self._young_s = min(YOUNG_S, self._places / 4000)
        self.poller.register(self.method_queue.fileno(), READ, self.method_queue.run_callbacks)
        self.set_accept_enabled(enabled=True)
        while self.alive and not self._retired():
            self._turn()
            if not self.is_parent_alive():
                break
        self._finish()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Handle Ctrl-C like SIGTERM, which releases leases; the arbiter kills whatever does not end."""
        self.handle_exit(sig, frame)

    def _turn(self) -> None:
        for key, _ in self.poller.select(self._patience_s()):
            try:
                key.data(key.fileobj)
            except Exception as error:  # noqa: BLE001 - an error in one connection must not end all others
                self.log.error("A connection failed: %s", logs.where(error))  # noqa: TRY400 - no stack in logs
            if time.monotonic() - self._notified_at >= 1.0:
                self._notify()
        now = time.monotonic()
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            self._notify()
            for connection in list(self._connections):
                if connection.deadline is not None and now >= connection.deadline:
                    self._expire(connection, until=now + CUT_S)
            for connection in self._room.stalled(self._connections, now):
                self._turn_away(connection)
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._pages.look()
        if self.alive and not self._accepting and now - self._full_at >= AGAIN_S:
            self.set_accept_enabled(enabled=True)

    def _notify(self) -> None:
        """Tell the arbiter that the loop is alive, even if one iteration takes long."""
        self._notified_at = time.monotonic()
        self.notify()

    def _patience_s(self) -> float:
        if self.alive and not self._accepting:
            return AGAIN_S
        if self._pages.running:
            return LOOK_S
        return SWEEP_S if self._connections or not self.alive else 1.0

    def _retired(self) -> bool:
        """Whether the worker may end after `max_requests`: `at_stop` finishes first, so that no client waits for it."""
        return self._retiring and not self._stop_others()

    def _stop_others(self) -> bool:
        """Start (once) the functions in `at_stop`; True while they run."""
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
                self.accept(listener)  # clients that have already connected are served
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
        for lane in (self._pages, self._hooks, self._heavy):
            lane.end()

    # ----------------------------------------------------------------------------------------------- accepting

    def accept(self, listener: Any) -> None:
        """Accept waiting clients, and read what they have already sent."""
        server = listener.getsockname()
        for _ in range(ACCEPTS):
            if len(self._connections) >= self._places and not self._make_place():
                self._pause_accepting()
                return
            try:
                sock, client = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                if not self._make_place():
                    self._pause_accepting()
                return
            sock.setblocking(False)
            connection = Connection(sock, client, server, self._begin)
            connection.deadline = connection.moved_at + self.deadline_s
            self._connections[connection] = None
            self._hungry.put(connection, connection.origin)
            self._read(connection)

    def _make_place(self) -> bool:
        """At the limit of connections, close one that has sent nothing to read, preferably an idle one."""
        giving = self._quiet.first()
        if giving is not None:
            self._close(giving)
            return True
        for _ in range(ACCEPTS):
            giving = self._hungry.first()
            if giving is None or time.monotonic() - giving.moved_at < self._young_s:
                return False
            if not giving.is_readable():
                self._turn_away(giving)
                return True
            self._read_overlooked(giving)
            if len(self._connections) < self._places:
                return True
        return False

    def _read_overlooked(self, connection: Connection) -> None:
        """Read a connection whose bytes have arrived but were not read by the loop yet."""
        connection.moved_at = time.monotonic()
        self._hungry.put(connection, connection.origin)
        if connection.state is State.READING:
            self._read(connection)

    def _turn_away(self, connection: Connection) -> None:
        if connection.state is not State.WRITING:
            self._send(connection, framing.NO_PLACE)
        self._close(connection)

    def _pause_accepting(self) -> None:
        """If no connection can give way, leave newcomers in the backlog for a moment to keep the loop from spinning."""
        self.set_accept_enabled(enabled=False)
        self._full_at = time.monotonic()

    @property
    def _crowded(self) -> bool:
        return len(self._connections) > CROWDED * self._places

    def _become(self, connection: Connection, state: State) -> None:
        """Change a connection's state; it is now the last of its queue to give way."""
        connection.state = state
        connection.moved_at = time.monotonic()
        connection.got = 0
        for states, crowd in ((QUIET, self._quiet), (HUNGRY, self._hungry)):
            if state in states:
                crowd.put(connection, connection.origin)
            else:
                crowd.drop(connection)

    def _note_progress(self, connection: Connection, received: int) -> None:
        connection.got += received
        if connection.got >= STRIDE:
            connection.got = 0
            connection.moved_at = time.monotonic()
            self._hungry.put(connection, connection.origin)

    # ------------------------------------------------------------------------------------------------- reading

    def _read(self, connection: Connection, _sock: object = None) -> bool:
        """Read once, without blocking; False if there was nothing to read, or no room for it."""
        if connection.state is State.LINGERING:
            self._discard(connection)
            return False
        if connection.state is State.SERVING:
            self._watch(connection, 0)  # a further request, or the end of the stream, before this one is answered
            return False
        if connection.inbound.large and not self._room.is_for(connection):
            self._wait_for_room(connection)
            return False
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
        self._feed(connection, data)
        return True

    def _await_request(self, connection: Connection) -> None:
        self._become(connection, State.READING)
        connection.deadline = connection.moved_at + self.deadline_s

    def _feed(self, connection: Connection, data: bytes) -> None:
        inbound = connection.inbound
        try:
            whole = inbound.feed(data)
        except Exception as error:  # noqa: BLE001 - whatever the parser raises is caused by the bytes
            self._refuse(connection, error)
            return
        if not whole or inbound.large:
            self._room.hold(connection, inbound.held)
        if not whole:
            if connection.state is not State.READING:
                self._await_request(connection)
            self._note_progress(connection, len(data))
            self._watch(connection, READ)
            while self._room.is_overfull and (giving := self._hungry.first()) is not None:
                self._turn_away(giving)
            return
        self._become(connection, State.SERVING)
        connection.deadline = None
        self._room.complete(connection)
        connection.quick = self.quick_for(connection.request)
        if connection.quick is None or inbound.large or not inbound.whole:
            self._queue(connection)
            return
        self.handle(connection)  # work that does not block costs less than a switch of threads
        if connection.deferred is None:
            self._call(self._answer, connection)  # not immediately: there may be many further requests
        else:
            self._await_answer(connection, connection.deferred)

    def _begin(self, connection: Connection, head: bytes) -> int | None:
        """Parse the head with gunicorn's parser; return the length of the body by its reading."""
        connection.requests += 1
        request = Request(self.cfg, IterUnreader([head]), connection.client, connection.requests)
        connection.request = request
        request.drops = head.startswith(b"GET ") and _drops(head)
        reader = request.body.reader
        length = None if isinstance(reader, ChunkedReader) else int(reader.length)
        if request._expected_100_continue:  # noqa: SLF001 - otherwise gunicorn answers it too late
            request._expected_100_continue = False  # noqa: SLF001
            if length is None or length <= BODY_LIMIT:
                self._send(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
        return length

    def _refuse(self, connection: Connection, error: Exception) -> None:
        """Answer bytes that are not a request. Only the kind of error is logged, because a head may hold secrets."""
        self.log.info("A request was not well-formed: %s", type(error).__name__)
        self._send(connection, refusal(error))
        connection.unread = True
        self._linger(connection)

    def _wait_for_room(self, connection: Connection) -> None:
        connection.state = State.WAITING  # in its place among the hungry
        connection.deadline = None
        self._watch(connection, 0)
        self._room.wait(connection)

    def _resume(self, connection: Connection, now: float) -> None:
        """Read a connection again: there is room for its body."""
        connection.state = State.READING
        connection.moved_at = now
        connection.deadline = now + max(ROOM_S, self.deadline_s / 2)
        self._watch(connection, READ)

    # ----------------------------------------------------------------------------------------------- deadlines

    def _expire(self, connection: Connection, until: float) -> None:
        """End a state whose time is over. until: from then on, slow work waits for the next sweep."""
        if connection.state is State.READING:
            self._cut(connection, until)
        elif connection.deferred is not None:
            connection.deadline = None
            connection.deferred.future.cancel()  # which calls `_answer`; if it cannot be cancelled, it is being done
        elif connection.state in (State.IDLE, State.WRITING, State.LINGERING):
            self._close(connection)

    def _cut(self, connection: Connection, until: float) -> None:
        """End a request that did not arrive, but only if its bytes are really missing."""
        while connection.state is State.READING:
            if time.monotonic() >= until:
                return
            if not self._read(connection):
                break
        if connection.state is State.READING and connection in self._connections:
            if connection.inbound.started:
                self._send(connection, framing.TOO_LATE)
            self._close(connection)

    # ------------------------------------------------------------------------------------------------- serving

    def _queue(self, connection: Connection) -> None:
        """Queue the request for a thread."""
        self._watch(connection, 0)
        lane = self._pages
        if connection.quick is not None and connection.inbound.whole:
            lane = self._hooks if connection.held <= HEAVY else self._heavy
        lane.put(connection, connection.held)

    def _serve(self, connection: Connection, lane: Lane[Connection]) -> None:
        """Runs in a thread."""
        self.handle(connection)
        self._call(self._handled, connection, lane)

    def _fail(self, connection: Connection, lane: Lane[Connection]) -> None:
        """Answer a request that no thread can take."""
        connection.out, connection.kept, connection.unread = framing.FAILED, False, True
        self._call(self._handled, connection, lane)

    def _handled(self, connection: Connection, lane: Lane[Connection]) -> None:
        """A request is back from its thread: the answer is ready, or awaited from now on."""
        lane.done()
        if connection.deferred is None:
            self._answer(connection)
        else:
            self._await_answer(connection, connection.deferred)

    def _await_answer(self, connection: Connection, deferred: Deferred) -> None:
        connection.deadline = time.monotonic() + deferred.within_s
        deferred.future.add_done_callback(partial(self._call, self._answer, connection))

    def handle(self, connection: Connection) -> None:
        """Let the application answer a connection's request. Runs in a thread or in the loop, and never raises."""
        connection.unread = not connection.inbound.whole
        request, body, written = connection.request, connection.inbound.next_request(), Written()
        try:
            self.nr += 1
            self._retiring = self._retiring or self.nr >= self.max_requests
            last = connection.unread or not self.alive or self._crowded
            if connection.quick is None:
                answer: HttpAnswer | Deferred | None = self._run_application(connection, body, written, last=last)
            else:
                answer = connection.quick(received(request, body, connection.client, connection.server))
                connection.kept = not (last or request.should_close())
            if isinstance(answer, Deferred):
                connection.deferred = answer
            elif answer is not None:
                written.data += rendered(answer, request.version, int(time.time()), kept=connection.kept)
        except Exception as error:  # noqa: BLE001 - the application answers its own errors; this one escaped
            self.log.error("A request failed: %s", logs.where(error))  # noqa: TRY400 - no stack in logs
            written.data[:] = framing.MALFORMED if isinstance(error, parse_errors.ParseException) else framing.FAILED
            connection.kept = False
        connection.out = bytes(written.data)

    def _run_application(self, connection: Connection, body: bytes, written: Written, *, last: bool) -> Deferred | None:
        request = connection.request
        request.body = io.BytesIO(body)
        response, environ = wsgi.create(request, written, connection.client, connection.server, self.cfg)
        environ.update({"wsgi.multithread": True, DROPPED: request.drops, DEFERRED: None})
        if last:
            response.force_close()
        parts = self.wsgi(environ, response.start_response)
        try:
            deferred: Deferred | None = environ[DEFERRED]
            if deferred is None:
                for part in parts:
                    response.write(part)
                response.close()
            connection.kept = not (last or request.should_close() if deferred else response.should_close())
            return deferred
        finally:
            if hasattr(parts, "close"):
                parts.close()

    def _call(self, call: Callable[..., None], *arguments: object) -> None:
        """Make the loop call something; callable from any thread. All calls until it looks share one wake-up."""
        self._calls.append(partial(call, *arguments))
        if not self._wake_pending:
            self._wake_pending = True
            self.method_queue.defer(self._do_calls)

    def _do_calls(self) -> None:
        self._wake_pending = False  # first, so that any later call wakes the loop again
        for _ in range(len(self._calls)):
            try:
                self._calls.popleft()()
            except Exception as error:  # noqa: BLE001 - an error in one connection must not end all others
                self.log.error("A connection failed: %s", logs.where(error))  # noqa: TRY400 - no stack in logs

    def _continue(self, connection: Connection) -> None:
        if not connection.kept:
            self._linger(connection)
        elif connection.inbound.left_over:
            self._feed(connection, b"")
        else:
            self._become(connection, State.IDLE)
            connection.deadline = connection.moved_at + (self.cfg.keepalive if self.alive else IDLE_AT_STOP_S)
            self._watch(connection, READ)

    # ------------------------------------------------------------------------------------------------- writing

    def _answer(self, connection: Connection, _awaited: object = None) -> None:
        """Send as much of the answer as the client takes without blocking. Runs in the loop."""
        if connection.deferred is not None:
            self._render(connection, connection.deferred)
        try:
            sent = connection.sock.send(connection.out) if connection.out else 0
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            connection.kept = False
            sent = len(connection.out)
        connection.out = connection.out[sent:]
        self._sent(connection)

    def _render(self, connection: Connection, deferred: Deferred) -> None:
        connection.deferred = None
        connection.kept = connection.kept and self.alive and not self._crowded
        try:
            answer = deferred.answer(deferred.future)
            connection.out = rendered(answer, connection.request.version, int(time.time()), kept=connection.kept)
        except Exception as error:  # noqa: BLE001 - as in `handle`
            self.log.error("An answer failed: %s", logs.where(error))  # noqa: TRY400 - no stack in logs
            connection.out, connection.kept = framing.FAILED, False

    def _sent(self, connection: Connection) -> None:
        """Wait until the client takes the rest; if nothing is left, go on to the next request or close."""
        connection.request = None
        if not connection.out:
            self._room.let_go(connection)
            self._continue(connection)
            return
        if connection.state is not State.WRITING:
            self._room.let_go(connection)
            self._become(connection, State.WRITING)
            connection.deadline = connection.moved_at + WRITE_S
            self._watch(connection, WRITE)
        self._room.hold(connection, len(connection.out))

    def _send(self, connection: Connection, answer: bytes) -> None:
        """Send a short answer of our own. A client that does not take it immediately does not get it."""
        try:
            connection.sock.send(answer)
        except OSError:
            connection.kept = False

    # ------------------------------------------------------------------------------------------------- closing

    def _linger(self, connection: Connection) -> None:
        """Close without losing the answer: unread bytes would make the system reset the connection.

        If more bytes are expected, they are read and discarded for a while; otherwise there is nothing to wait for.
        """
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._become(connection, State.LINGERING)
        self._room.let_go(connection)
        connection.deadline = connection.moved_at + LINGER_S
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
        self._quiet.drop(connection)
        self._hungry.drop(connection)
        connection.sock.close()
        self._room.leave(connection)

    def _watch(self, connection: Connection, events: int) -> None:
        """Have the loop call back when the socket can be read or written, or (0) never."""
        if events == connection.watched:
            return
        if connection.watched:
            self.poller.unregister(connection.sock)
        if events:
            callback: Callable[..., object] = self._answer if events == WRITE else self._read
            self.poller.register(connection.sock, events, partial(callback, connection))
        connection.watched = events
