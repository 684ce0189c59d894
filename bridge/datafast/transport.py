"""One HTTP request with one deadline for all of it, and the certain knowledge whether it was sent.

`requests` bounds each wait, never their sum: an answer that drips a byte at a time lasts for ever. Here every look-up,
connect, handshake, send and receive gets only the time that is left, and an answer is read up to a limit.
`Exchange` is what is known of a request under way; it says `sent` from the first byte that may have left.
Nothing here knows DataFast.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import queue
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from requests import PreparedRequest, Response
    from typing_extensions import Buffer

Address: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]"

HEADERS_LIMIT: Final = 64 * 1024
_PIECE: Final = 16 * 1024  # one TLS record
_KEPT: Final = 8  # idle connections a host


@dataclass(slots=True)
class Exchange:
    """One request under way.

    deadline_s: on the monotonic clock; body_limit: how much of the answer's body is read.
    sent: from the first byte that may have left; status: from the moment the status line was read.
    """

    deadline_s: float
    body_limit: int
    sent: bool = False
    status: int | None = None

    def remaining_s(self) -> float:
        """The time that is left; TimeoutError when none is."""
        left = self.deadline_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the request is over")
        return left


# urllib3 has no place to hand a value of our own from the call down to the socket; each request stays in one thread.
_thread = threading.local()


def _current() -> Exchange:
    exchange: Exchange = _thread.exchange
    return exchange


# ------------------------------------------------------------------------------------------------- before sending


def _look_up(host: str, port: int, timeout_s: float) -> Sequence[Address]:
    """Resolve a name; a literal address at once, a name in a thread, because getaddrinfo knows no deadline."""
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
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            answers.put(error)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError("the name was not resolved in time") from None
    if isinstance(answer, UnicodeError):  # a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, "this is no host name") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _connect(addresses: Sequence[Address], exchange: Exchange) -> socket.socket:
    """Try each address with its share of the time, so that one dead address leaves time for the next."""
    failure: OSError = OSError("the name has no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(exchange.remaining_s() / (len(addresses) - index))
            connection.connect(address)
            connection.settimeout(exchange.remaining_s())  # of a TLS handshake, all of it
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


class _Deadline(HTTPConnection):
    """A connection that gives each step only the time that is left of its request."""

    idle_since_s = 0.0

    def _new_conn(self) -> socket.socket:
        exchange = _current()
        try:
            addresses = _look_up(self._dns_host, self.port or self.default_port, exchange.remaining_s())
            return _connect(addresses, exchange)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except OSError as error:
            raise NewConnectionError(self, "no connection") from error

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        exchange = _current()
        exchange.sent = True
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            self.sock.settimeout(exchange.remaining_s())
            self.sock.sendall(view[start : start + _PIECE])


# ------------------------------------------------------------------------------------------------------ receiving


class _BoundedRaw(io.RawIOBase):
    """A socket's stream that ends at the deadline with TimeoutError, and at the limit as if the peer had closed."""

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


class _Answer(http.client.HTTPResponse):
    """Reads through `_BoundedRaw`, and notes the status line even if nothing readable follows it."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._exchange = _current()
        self.fp = io.BufferedReader(_BoundedRaw(self.fp.detach(), sock, self._exchange))

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status >= http.HTTPStatus.OK:
            self._exchange.status = status
        return version, status, reason


class _PlainConnection(_Deadline):
    response_class = _Answer


class _TlsConnection(_Deadline, HTTPSConnection):
    response_class = _Answer


# -------------------------------------------------------------------------------------------------------- pooling


class _Reuse(HTTPConnectionPool):
    """Uses a kept connection for a moment only: one that the peer closed while idle reads as a lost answer."""

    max_idle_s = 1.0

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since_s = time.monotonic()
        super()._put_conn(conn)

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)
        if time.monotonic() - conn.idle_since_s > self.max_idle_s:
            conn.close()  # it connects again by itself
        return conn


class Transport(HTTPAdapter):
    """A `requests` adapter whose requests end at the deadline of their Exchange, by the classes above.

    It is used without a Session: redirects, cookies, proxies and `.netrc` are a Session's, and each is a way to get
    a delivery wrong. tls: read once, because urllib3 would load the hundred certificates for every connection.
    """

    def __init__(self, *, max_idle_s: float = 1.0, tls: ssl.SSLContext | None = None) -> None:
        self._max_idle_s = max_idle_s
        self._tls = tls
        super().__init__(pool_connections=2, pool_maxsize=_KEPT)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._tls)
        idle = {"max_idle_s": self._max_idle_s}
        plain = type("Plain", (_Reuse,), {"ConnectionCls": _PlainConnection, **idle})
        tls = type("Tls", (_Reuse, HTTPSConnectionPool), {"ConnectionCls": _TlsConnection, **idle})
        self.poolmanager.pool_classes_by_scheme = {"http": plain, "https": tls}

    def cert_verify(self, *_: Any) -> None:
        """Leave the pool alone: its context verifies already, always."""

    def run(self, request: PreparedRequest, exchange: Exchange) -> Response:
        """Send a request and read the head of its answer. Raises whatever the layers below raise."""
        _thread.exchange = exchange
        return self.send(request, stream=True, timeout=exchange.remaining_s())


def read_body(response: Response, exchange: Exchange) -> tuple[bytes, bool]:
    """The body up to the exchange's limit, and whether the peer (not the limit) cut it short."""
    pieces, size, cut = [], 0, False
    try:
        while size < exchange.body_limit:
            piece = response.raw.read1(min(_PIECE, exchange.body_limit - size))
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    except Exception:  # noqa: BLE001 - any way a body can break is a cut body; the status line counts
        cut = True
    if cut or size >= exchange.body_limit or response.raw.length_remaining:
        response.raw.close()
    else:
        response.raw.release_conn()
    return b"".join(pieces), cut
