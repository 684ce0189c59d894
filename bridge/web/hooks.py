"""`/webhooks/<source>`: the answers to senders. `bridge.receive` and the errors it raises make all decisions.

A sender learns as little as it needs: never why a signature failed, never a stack trace. Whatever goes wrong on our
side is 503 with `Retry-After`, so that the sender tries again; there is no other 5xx, no redirect and no 410.
Our server calls `answer` itself for a POST, because Flask would cost more than everything else together, and so that
no thread waits for the disk. The same URL is a route of the application for every other method and for other servers.
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote_to_bytes

from flask import Blueprint, Response, request

from bridge.errors import (
    BodyEncoded,
    BodyTooLarge,
    BridgeError,
    SchemaError,
    SignatureError,
    SourceOff,
    StoreUnavailable,
    UnknownSource,
)
from bridge.model import Ack, Reply
from bridge.receive import Receiver, answer_get, receive
from bridge.server import Deferred, HttpAnswer
from bridge.store.inbox.group_commit import PATIENCE_S
from bridge.web.messages import Environ, request_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.model import Request

Given = TypeVar("Given")

PREFIX: Final = "/webhooks/"
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SAFE: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


def _with_body(status: str, kind: str, body: bytes, *headers: tuple[str, str]) -> HttpAnswer:
    return HttpAnswer(status, (("Content-Type", kind), ("Content-Length", str(len(body))), *headers, *_SAFE), body)


def sentence(status: str, text: str, *headers: tuple[str, str]) -> HttpAnswer:
    """An answer of one plain sentence."""
    return _with_body(status, "text/plain; charset=utf-8", (text + "\n").encode(), *headers)


def unavailable(text: str, retry_after_s: int) -> HttpAnswer:
    """The answer if nothing was stored and the sender should try again."""
    return sentence("503 Service Unavailable", text, ("Retry-After", str(retry_after_s)))


def replied(reply: Reply) -> HttpAnswer:
    """The answer to a handshake."""
    kind = () if reply.kind is None else (("Content-Type", reply.kind),)
    length = () if reply.status == 204 else (("Content-Length", str(len(reply.body))),)
    status = "204 No Content" if reply.status == 204 else "200 OK"
    return HttpAnswer(status, (*kind, *length, *_SAFE), reply.body)


ACKS: Final = {ack: _with_body("200 OK", "application/json", b'{"status":"%s"}\n' % ack.value.encode()) for ack in Ack}
QUIET_ACK: Final = replied(Reply(status=204))
USE_POST: Final = sentence(
    "405 Method Not Allowed",
    "This address takes webhooks by POST. Paste it into the provider's webhook settings; "
    "`python -m bridge sources` says where.",
    ("Allow", "POST"),
)
REFUSALS: Final[dict[type[BridgeError], HttpAnswer]] = {
    UnknownSource: sentence("404 Not Found", "There is no source of this name."),
    SignatureError: sentence("401 Unauthorized", "The signature is missing or wrong."),
    BodyTooLarge: sentence("413 Content Too Large", "The body is longer than 1 MiB.", ("Connection", "close")),
    BodyEncoded: sentence(
        "415 Unsupported Media Type", "Compressed bodies are not accepted.", ("Accept-Encoding", "identity")
    ),
    SourceOff: unavailable("This source has no secret yet. Try again later.", SourceOff.retry_after_s),
    StoreUnavailable: unavailable("The event could not be stored. Try again soon.", StoreUnavailable.retry_after_s),
}
FAILED: Final = unavailable("The event could not be accepted. Try again soon.", 30)


def answer(bridge: Receiver, name: str, read: Callable[[Given], Request], given: Given) -> HttpAnswer | Deferred:
    """Receive a webhook, and answer as soon as its outcome is known, without waiting for it. Never raises.

    read: makes the request from what the server has given.
    """
    try:
        received = receive(bridge, name, partial(read, given))
    except Exception as error:  # noqa: BLE001 - it is logged; the sender is only told to try again
        return _refusal(error)
    if isinstance(received, Reply):
        return replied(received)
    return Deferred(received.ack, PATIENCE_S, partial(_acknowledgement, quiet=received.quiet))


def answer_handshake(bridge: Receiver, name: str, environ: Environ) -> HttpAnswer:
    """GET or HEAD: a handshake, or a person who checks the address. Never raises."""
    try:
        reply = answer_get(bridge, name, lambda: request_of(environ))
    except Exception as error:  # noqa: BLE001 - as above
        return _refusal(error)
    return USE_POST if reply is None else replied(reply)


def _acknowledgement(ack: Future[Ack], *, quiet: bool) -> HttpAnswer:
    if ack.cancelled():
        return REFUSALS[StoreUnavailable]
    error = ack.exception()
    if error is not None:
        return _refusal(error)
    return QUIET_ACK if quiet else ACKS[ack.result()]


def _refusal(error: BaseException) -> HttpAnswer:
    if isinstance(error, SchemaError):
        return unavailable(str(error), 30)
    return next((found for kind, found in REFUSALS.items() if isinstance(error, kind)), FAILED)


def source_at(raw_path: str) -> str | None:
    """The source's name in a path as it was sent, with or without a slash at its end; None for other paths."""
    if not raw_path.startswith(PREFIX):
        return None
    name = unquote_to_bytes(raw_path[len(PREFIX) :].encode("latin-1")).decode("utf-8", "replace").removesuffix("/")
    return name if name and "/" not in name else None


def blueprint(bridge: Receiver) -> Blueprint:
    """The same path as a route of the application."""
    routes = Blueprint("hooks", __name__)

    @routes.route(f"{PREFIX}<source>", methods=METHODS, strict_slashes=False, provide_automatic_options=False)
    def webhook(source: str) -> Response:
        answered = _answer_any_method(bridge, source, request.environ)
        response = Response(answered.body, answered.status, list(answered.headers))
        if not answered.body:
            response.headers.pop("Content-Type", None)  # Flask's default
        return response

    return routes


def _answer_any_method(bridge: Receiver, name: str, environ: Environ) -> HttpAnswer:
    method = environ["REQUEST_METHOD"]
    if method == "POST":
        found = answer(bridge, name, request_of, environ)
        return _await(found) if isinstance(found, Deferred) else found
    return answer_handshake(bridge, name, environ) if method in ("GET", "HEAD") else USE_POST


def _await(deferred: Deferred) -> HttpAnswer:
    wait((deferred.future,), deferred.within_s)
    deferred.future.cancel()
    return deferred.answer(deferred.future)
