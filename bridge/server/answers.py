"""The bytes of answers: an application's, rendered, and our own to what reaches none. No socket, no clock."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from gunicorn.http import errors as parse_errors
from gunicorn.http import wsgi

from bridge.server.framing import HeadTooLarge

if TYPE_CHECKING:
    from bridge.server import HttpAnswer


class Written:
    """What gunicorn's response writes to instead of a socket: headers and body leave together."""

    def __init__(self) -> None:
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        self.data += data

    def send(self, data: bytes) -> int:
        self.data += data
        return len(data)


def rendered(answer: HttpAnswer, version: tuple[int, int], now_s: int, *, kept: bool) -> bytes:
    """An application's answer. version: of HTTP, as the request says it."""
    head = (
        f"HTTP/{version[0]}.{version[1]} {answer.status}",
        f"Server: {wsgi.SERVER}",
        f"Date: {formatdate(now_s, usegmt=True)}",
        f"Connection: {'keep-alive' if kept else 'close'}",
        *(f"{name}: {value}" for name, value in answer.headers if name != "Connection"),
    )
    return "\r\n".join((*head, "", "")).encode("latin-1") + answer.body


def _plain(status: str, sentence: str, *headers: str) -> bytes:
    """An answer that no application made. The connection ends with it."""
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
