"""One HTTP request with one deadline for all of it, and the certain knowledge whether it was sent.

The standard library's client bounds each wait, but not their sum: an answer that arrives byte by byte can last for
ever. Here every name lookup, connect, handshake, send and receive gets only the time that is left, and an answer is
read up to a limit. No redirect is followed, and no cookies, proxies or `.netrc` are used, because they could deliver to
the wrong place. `Exchange` is what is known about a request under way. Nothing here knows DataFast.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import queue
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Buffer

Address: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]"

HEADERS_LIMIT: Final = 64 * 1024
_CHUNK: Final = 16 * 1024  # one TLS record
_IDLE_MAX: Final = 8  # idle connections per host


@dataclass(slots=True)
class Exchange:
    """One request under way.

    deadline_s: by the monotonic clock. body_limit: how many bytes of the answer's body are read. sent: True from the
    first byte that may have left. status: set once the status line has been read.
    """

    deadline_s: float
    body_limit: int
    sent: bool = False
    status: int | None = None

    def remaining_s(self) -> float:
        """The time that is left; raises TimeoutError when there is none."""
        left = self.deadline_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the request is over")
        return left


# http.client cannot hand a value of ours from the call down to the socket; each request stays in one thread.
_thread = threading.local()


def _current() -> Exchange:
    exchange: Exchange = _thread.exchange
    return exchange


# ------------------------------------------------------------------------------------------------- before sending


def _resolve(host: str, port: int, timeout_s: float) -> Sequence[Address]:
    """Resolve a name, in a thread, because getaddrinfo has no deadline. A literal address needs no thread."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    answers: queue.SimpleQueue[Sequence[Address] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - the thread that waits raises it again
            answers.put(error)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError("the name was not resolved in time") from None
    if isinstance(answer, UnicodeError):  # a label of the name is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, "this is not a valid host name") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _connect(addresses: Sequence[Address], exchange: Exchange) -> socket.socket:
    """Try each address with its share of the time, so that a dead address leaves time for the next."""
    failure: OSError = OSError("the name has no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(exchange.remaining_s() / (len(addresses) - index))
            connection.connect(address)
            connection.settimeout(exchange.remaining_s())  # for the whole TLS handshake
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


# ------------------------------------------------------------------------------------------------------ receiving


class _BoundedRaw(io.RawIOBase):
    """A socket's stream. At the deadline it raises TimeoutError; at the limit it ends as if the peer had closed it."""

    def __init__(self, stream: io.RawIOBase, sock: socket.socket, exchange: Exchange) -> None:
        self._stream = stream
        self._sock = sock
        self._exchange = exchange
        self._left = exchange.body_limit + HEADERS_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int | None:
        if self._left <= 0:
            return 0
        self._sock.settimeout(self._exchange.remaining_s())
        count = self._stream.readinto(buffer)
        self._left -= count or 0
        return count

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            super().close()


class _Response(http.client.HTTPResponse):
    """Reads through `_BoundedRaw`, and keeps the status even if nothing readable follows.

    finish: is told whether the whole answer was read, so that its connection may be used again.
    """

    finish: Callable[..., None]

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._exchange = _current()
        self.fp = io.BufferedReader(_BoundedRaw(self.fp.detach(), sock, self._exchange))

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status >= http.HTTPStatus.OK:
            self._exchange.status = status
        return version, status, reason


# -------------------------------------------------------------------------------------------------------- pooling


class _Origin(NamedTuple):
    """Where connections lead."""

    secure: bool
    host: str
    port: int | None


@lru_cache(maxsize=64)
def _parts(url: str) -> tuple[_Origin, str]:
    """Where to connect, and what to ask for there. What an address must not contain is quoted."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Origin(parts.scheme == "https", parts.hostname or "", parts.port), quote(target, safe="%/:=&?~+!$,;'@()*[]")


class _Connection(http.client.HTTPConnection):
    """A connection that gives each step only the time that is left for its request."""

    response_class = _Response

    def __init__(self, origin: _Origin, tls: ssl.SSLContext | None) -> None:
        self.default_port = 443 if origin.secure else 80
        super().__init__(origin.host, origin.port or self.default_port)
        self._tls = tls
        self._chunks: list[Any] = []
        self._idle_since_s = 0.0

    def connect(self) -> None:
        exchange = _current()
        plain = _connect(_resolve(self.host, self.port, exchange.remaining_s()), exchange)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host.rstrip(".")) if self._tls else plain
        except BaseException:
            plain.close()
            raise

    def send(self, data: Any) -> None:
        """Keep what http.client hands on in pieces, because each would be a packet of its own."""
        self._chunks.append(data)

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> _Response:
        """Send a request, and read the head of its answer."""
        self.request(method, target, body, dict(headers))
        view, self._chunks = memoryview(b"".join(self._chunks)), []
        if self.sock is None:
            self.connect()
        exchange = _current()
        exchange.sent = True
        with suppress(BrokenPipeError):  # it may have answered without having read everything
            for start in range(0, len(view), _CHUNK):
                self.sock.settimeout(exchange.remaining_s())
                self.sock.sendall(view[start : start + _CHUNK])
        response = self.getresponse()
        assert isinstance(response, _Response)
        return response

    def mark_idle(self) -> None:
        """Note that it is idle from now on."""
        self._idle_since_s = time.monotonic()

    def is_usable(self, max_idle_s: float) -> bool:
        """Whether it has been idle for a moment only, and the peer has not closed it."""
        if self.sock is None or time.monotonic() - self._idle_since_s > max_idle_s:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


class Transport:
    """Sends requests that end at the deadline of their Exchange. Thread-safe.

    max_idle_s: how long a connection is kept: if the peer closes it while it is idle, that looks like a lost answer.
    tls: for https.
    """

    def __init__(self, *, max_idle_s: float = 1.0, tls: ssl.SSLContext | None = None) -> None:
        self._max_idle_s = max_idle_s
        self._tls = tls
        self._idle: dict[_Origin, list[_Connection]] = {}

    def run(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, exchange: Exchange
    ) -> _Response:
        """Send a request and read the head of its answer. Raises what the layers below raise."""
        _thread.exchange = exchange
        origin, target = _parts(url)
        connection = self._connection(origin)
        try:
            response = connection.ask(method, target, headers, body)
        except BaseException:
            connection.close()
            raise
        response.finish = partial(self._finish, origin, connection)
        return response

    def _connection(self, origin: _Origin) -> _Connection:
        """A kept connection, or a new one."""
        idle = self._idle.setdefault(origin, [])
        with suppress(IndexError):
            while True:
                kept = idle.pop()
                if kept.is_usable(self._max_idle_s):
                    return kept
                kept.close()
        if origin.secure and self._tls is None:
            raise ValueError("https needs a TLS context")
        return _Connection(origin, self._tls if origin.secure else None)

    def _finish(self, origin: _Origin, connection: _Connection, *, complete: bool) -> None:
        """Keep a connection whose answer was read as a whole, unless it is to be closed."""
        idle = self._idle.setdefault(origin, [])
        if complete and connection.sock is not None and len(idle) < _IDLE_MAX:
            connection.mark_idle()
            idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close kept connections."""
        while self._idle:
            for connection in self._idle.popitem()[1]:
                connection.close()


def read_body(response: _Response, exchange: Exchange) -> tuple[bytes, bool]:
    """The body up to the exchange's limit, and whether the peer (not the limit) cut it short."""
    chunks, size, cut = [], 0, False
    try:
        while size < exchange.body_limit and response.length != 0:
            chunk = response.read1(min(_CHUNK, exchange.body_limit - size))
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
    except Exception:  # noqa: BLE001 - however a body breaks, it is cut short; the status line counts
        cut = True
    cut = cut or (size < exchange.body_limit and bool(response.length))
    response.close()
    response.finish(complete=not cut and size < exchange.body_limit)
    return b"".join(chunks), cut
