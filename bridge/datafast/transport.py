"""One HTTP request with one deadline for all of it, and the certain knowledge whether it was sent.

urllib3 bounds each wait, but not their sum: an answer that arrives byte by byte can last for ever. Here every
look-up, connect, handshake, send and receive gets only the time that is left, and an answer is read up to a limit.
`Exchange` is what is known about a request under way. Nothing here knows DataFast.
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

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from typing_extensions import Buffer
    from urllib3 import BaseHTTPResponse

Address: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]"

HEADERS_LIMIT: Final = 64 * 1024
_PIECE: Final = 16 * 1024  # one TLS record
_KEPT: Final = 8  # idle connections per host


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


# urllib3 cannot hand a value of ours from the call down to the socket; each request stays in one thread.
_thread = threading.local()


def _current() -> Exchange:
    exchange: Exchange = _thread.exchange
    return exchange


# ------------------------------------------------------------------------------------------------- before sending


def _look_up(host: str, port: int, timeout_s: float) -> Sequence[Address]:
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


class _Deadline(HTTPConnection):
    """A connection that gives each step only the time that is left for its request."""

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
    """Reads through `_BoundedRaw`, and keeps the status even if nothing readable follows."""

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
    response_class = _Response


class _TlsConnection(_Deadline, HTTPSConnection):
    response_class = _Response


# -------------------------------------------------------------------------------------------------------- pooling


class _Reuse(HTTPConnectionPool):
    """Keeps a connection for a moment only: if the peer closes it while it is idle, that looks like a lost answer."""

    max_idle_s = 1.0

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since_s = time.monotonic()
        super()._put_conn(conn)

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)
        if time.monotonic() - conn.idle_since_s > self.max_idle_s:
            conn.close()  # urllib3 connects it again
        return conn


class Transport:
    """Sends requests that end at the deadline of their Exchange.

    It is urllib3 alone: whatever follows redirects or reads cookies, proxies and `.netrc` may get a delivery wrong.
    tls: made once, because urllib3 would load all certificates for every connection.
    """

    def __init__(self, *, max_idle_s: float = 1.0, tls: ssl.SSLContext | None = None) -> None:
        idle = {"max_idle_s": max_idle_s}
        plain = type("Plain", (_Reuse,), {"ConnectionCls": _PlainConnection, **idle})
        secure = type("Tls", (_Reuse, HTTPSConnectionPool), {"ConnectionCls": _TlsConnection, **idle})
        self._pools = PoolManager(num_pools=2, maxsize=_KEPT, ssl_context=tls)
        self._pools.pool_classes_by_scheme = {"http": plain, "https": secure}

    def run(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, exchange: Exchange
    ) -> BaseHTTPResponse:
        """Send a request and read the head of its answer. Raises what the layers below raise."""
        _thread.exchange = exchange
        return self._pools.urlopen(
            method,
            url,
            body=body,
            headers=headers,
            timeout=exchange.remaining_s(),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def close(self) -> None:
        """Close kept connections."""
        self._pools.clear()


def read_body(response: BaseHTTPResponse, exchange: Exchange) -> tuple[bytes, bool]:
    """The body up to the exchange's limit, and whether the peer (not the limit) cut it short."""
    pieces, size, cut = [], 0, False
    try:
        while size < exchange.body_limit:
            piece = response.read1(min(_PIECE, exchange.body_limit - size))
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    except Exception:  # noqa: BLE001 - however a body breaks, it is cut short; the status line counts
        cut = True
    if cut or size >= exchange.body_limit or response.length_remaining:
        response.close()
    else:
        response.release_conn()
    return b"".join(pieces), cut
