"""HTTP as bytes: where requests begin and end in a connection's bytes, and the bytes of answers. No socket, no clock.

Everything kept here has a fixed limit: a head is refused past `HEAD_LIMIT`, a body is not read past `BODY_LIMIT` plus
one byte (so that its reader can tell that it is too long), and the framing of a chunked body is bounded. The head is
parsed by the server's own parser (`begin`), so that two readings can never differ. Trailers must be header lines,
although they are dropped: otherwise the next request could pass for a trailer.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from gunicorn.http import errors as parse_errors
from gunicorn.http import wsgi

from bridge.model import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.server import HttpAnswer

HEAD_LIMIT: Final = 32 * 1024
BODY_LIMIT: Final = 1024 * 1024
SMALL_BODY: Final = 32 * 1024  # bytes read without asking for room
READ_SIZE: Final = 16 * 1024
_LINE_LIMIT: Final = 4096  # bytes of a chunk's size with its extensions, or of a trailer
_FRAMING_LIMIT: Final = 64 * 1024  # bytes of all such lines in one body
_TRAILERS: Final = 100
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?")
_TRAILER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t\x20-\x7e\x80-\xff]*")
# Fields for framing, routing or decoding a message come too late in a trailer (RFC 9110, 6.5.1).
_NO_TRAILERS: Final = frozenset(
    b"content-length transfer-encoding host trailer connection keep-alive te upgrade expect content-type"
    b" content-encoding content-range authorization cookie".split()
)
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")


class Malformed(ValueError):
    """These bytes are not a request."""


class HeadTooLarge(ValueError):
    """The request's head is longer than any genuine one."""


class Inbound:
    """The bytes of one connection, request by request.

    `begin` gets a complete head (ending with an empty line) and returns the length of the body, or None for a chunked
    one; `feed` passes on what it raises.
    """

    __slots__ = ("_begin", "_body", "_bytes", "_head", "_searched")

    def __init__(self, begin: Callable[[bytes], int | None]) -> None:
        self._begin = begin
        self._bytes = bytearray()
        self._searched = 0
        self._head = 0
        self._body: Sized | Chunked | None = None

    def feed(self, data: bytes) -> bool:
        """Take some bytes. Returns True once the request is complete (or as much of it as is ever read)."""
        self._bytes += data
        if self._body is None:
            head = self._take_head()
            if head is None:
                return False
            self._head = len(head)
            length = self._begin(head)
            self._body = Chunked() if length is None else Sized(length)
        return self._body.take(self._bytes)

    @property
    def started(self) -> bool:
        """Whether any byte of the current request has arrived."""
        return self._body is not None or bool(self._bytes)

    @property
    def whole(self) -> bool:
        """Whether the whole request was read. If not, nothing after it on this connection can be parsed."""
        return self._body is not None and self._body.whole

    @property
    def left_over(self) -> bool:
        """Whether bytes of the next request have arrived."""
        return bool(self._bytes)

    @property
    def large(self) -> bool:
        """Whether the body is large, by its stated length or by what has arrived."""
        return self._body is not None and self._body.large

    @property
    def held(self) -> int:
        """How many bytes are held. The head counts twice, because its raw form is kept, too."""
        return len(self._bytes) + (0 if self._body is None else 2 * self._head + len(self._body.body))

    @property
    def missing(self) -> int:
        """The most bytes that the body may still lack."""
        return 0 if self._body is None else self._body.missing

    @property
    def appetite(self) -> int:
        """How many bytes to request from the socket: never more than the body lacks."""
        return READ_SIZE if self._body is None else self._body.appetite

    def next_request(self) -> bytes:
        """Return the body of the complete request. Bytes after it begin the next one."""
        body = b"" if self._body is None else bytes(self._body.body)
        self._body = None
        self._head = 0
        self._searched = 0
        return body

    def _take_head(self) -> bytes | None:
        end = self._bytes.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end > HEAD_LIMIT or (end < 0 and len(self._bytes) > HEAD_LIMIT):
            raise HeadTooLarge
        if end < 0:
            if _BARE_LF.search(self._bytes, max(0, self._searched - 1)):
                raise Malformed("a line that ends without a carriage return")
            self._searched = len(self._bytes)
            return None
        head = bytes(self._bytes[: end + 4])
        del self._bytes[: end + 4]
        return head


class Sized:
    """A body with a stated length. One that is too long is not read at all."""

    __slots__ = ("body", "large", "missing", "whole")

    def __init__(self, length: int) -> None:
        self.whole = length <= BODY_LIMIT
        self.body = bytearray()
        self.missing = length if self.whole else 0
        self.large = self.missing > SMALL_BODY

    @property
    def appetite(self) -> int:
        return min(self.missing, 4 * READ_SIZE)

    def take(self, buffer: bytearray) -> bool:
        taken = min(self.missing, len(buffer))
        self.body += buffer[:taken]
        del buffer[:taken]
        self.missing -= taken
        return not self.missing


class Chunked:
    """A chunked body. Trailers are checked and dropped, because nothing in them is signed."""

    __slots__ = ("_framing", "_left", "_step", "_trailers", "body", "whole")

    def __init__(self) -> None:
        self.whole = True
        self.body = bytearray()
        self._left = 0
        self._framing = 0
        self._trailers = 0
        self._step: Callable[[bytearray], bool] | None = self._size

    @property
    def appetite(self) -> int:
        """Less if it is mostly framing: a thousand one-byte chunks take as long as a webhook."""
        return READ_SIZE if self._framing <= len(self.body) + _LINE_LIMIT else READ_SIZE // 8

    @property
    def large(self) -> bool:
        return len(self.body) > SMALL_BODY

    @property
    def missing(self) -> int:
        return BODY_LIMIT - len(self.body)

    def take(self, buffer: bytearray) -> bool:
        while self._step is not None and self._step(buffer):
            pass
        return self._step is None

    def _size(self, buffer: bytearray) -> bool:
        line = self._line(buffer)
        if line is None:
            return False
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise Malformed("a chunk that does not begin with its size")
        self._left = int(match[1], 16)
        self._step = self._data if self._left else self._trailer
        return True

    def _data(self, buffer: bytearray) -> bool:
        taken = min(self._left, len(buffer), BODY_LIMIT + 1 - len(self.body))
        self.body += buffer[:taken]
        del buffer[:taken]
        self._left -= taken
        if len(self.body) > BODY_LIMIT:
            self.whole = False
            self._step = None
        elif not self._left:
            self._step = self._end_of_data
        return self._step == self._end_of_data

    def _end_of_data(self, buffer: bytearray) -> bool:
        if len(buffer) < 2:
            return False
        if buffer[:2] != b"\r\n":
            raise Malformed("a chunk that is longer than its size")
        del buffer[:2]
        self._step = self._size
        return True

    def _trailer(self, buffer: bytearray) -> bool:
        line = self._line(buffer)
        if line is None:
            return False
        if not line:
            self._step = None
            return False
        match = _TRAILER.fullmatch(line)
        self._trailers += 1
        if match is None or match[1].lower() in _NO_TRAILERS or self._trailers > _TRAILERS:
            raise Malformed("a trailer that is not a header line, or may not come last")
        return True

    def _line(self, buffer: bytearray) -> bytes | None:
        end = buffer.find(b"\r\n", 0, _LINE_LIMIT)
        if end < 0:
            if len(buffer) >= _LINE_LIMIT or _BARE_LF.search(buffer):
                raise Malformed("a chunk that does not begin with its size")
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        self._framing += end + 2
        if self._framing > _FRAMING_LIMIT:
            raise Malformed("more framing than body")
        return line


# -------------------------------------------------------------------------------------------------------------- answers


class Written:
    """Takes the place of a socket for gunicorn's response, so that headers and body are sent together."""

    def __init__(self) -> None:
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        self.data += data

    def send(self, data: bytes) -> int:
        self.data += data
        return len(data)


def received(request: Any, body: bytes, client: Any, server: Any) -> Request:
    """A request that gunicorn has parsed, with its whole body, as an application would find it in WSGI's environ.

    Only an empty Content-Type differs, which is none there. client, server: both ends' addresses, as a socket has them.
    """
    headers: dict[str, str] = {}
    for field, value in request.headers:
        name = _header(field)
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    host = headers.get("host") or (f"{server[0]}:{server[1]}" if isinstance(server, tuple) else "")
    path, _, query = request.uri.partition("?")
    url = f"{request.scheme}://{host}{request.uri}"
    address = client[0] if isinstance(client, tuple) else ""
    if request.proxy_protocol_info:
        address = request.proxy_protocol_info["client_addr"]
    return Request(request.method, url, path, query, headers, body, address)


@lru_cache(maxsize=1024)
def _header(field: str) -> str:
    return field.replace("_", "-").lower()


@lru_cache(maxsize=64)  # in a flood, nearly all answers of a second are the same bytes
def rendered(answer: HttpAnswer, version: tuple[int, int], now_s: int, *, kept: bool) -> bytes:
    """The bytes of an application's answer. version: the HTTP version of the request."""
    head = (
        f"HTTP/{version[0]}.{version[1]} {answer.status}",
        f"Server: {wsgi.SERVER}",
        f"Date: {formatdate(now_s, usegmt=True)}",
        f"Connection: {'keep-alive' if kept else 'close'}",
        *(f"{name}: {value}" for name, value in answer.headers if name != "Connection"),
    )
    return "\r\n".join((*head, "", "")).encode("latin-1") + answer.body


def _plain(status: str, sentence: str, *headers: str) -> bytes:
    """An answer not made by an application. It ends the connection."""
    body = (sentence + "\n").encode()
    head = (f"HTTP/1.1 {status}", "Connection: close", "Content-Type: text/plain; charset=utf-8", *headers)
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", "")).encode() + body


TOO_LATE: Final = _plain("408 Request Timeout", "The request did not arrive in time.")
NO_PLACE: Final = _plain("503 Service Unavailable", "Too many connections. Try again soon.", "Retry-After: 5")
FAILED: Final = _plain("503 Service Unavailable", "This could not be done just now. Try again soon.", "Retry-After: 30")
MALFORMED: Final = _plain("400 Bad Request", "This is not a well-formed HTTP request.")
_LONG_HEAD: Final = _plain("431 Request Header Fields Too Large", "The request's head is too large.")
REFUSALS: Final[tuple[tuple[type[Exception], bytes], ...]] = (
    (HeadTooLarge, _LONG_HEAD),
    (parse_errors.LimitRequestHeaders, _LONG_HEAD),
    (parse_errors.LimitRequestLine, _plain("414 URI Too Long", "The address is too long.")),
    (parse_errors.ExpectationFailed, _plain("417 Expectation Failed", "Only 100-continue can be expected.")),
)


def refusal(error: Exception) -> bytes:
    """The answer to bytes that the parser refused."""
    return next((answer for kind, answer in REFUSALS if isinstance(error, kind)), MALFORMED)
