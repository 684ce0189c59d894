"""The first step: a webhook comes in, is verified, stored durably, and acknowledged. Nothing else.

A handshake is answered first and is not an event. For everything else the order is fixed: authenticate the raw bytes,
read the envelope for deduplication, store the bytes unchanged, answer. No rule is evaluated and no other service is
called, so neither a wrong rule nor a slow destination can lose an event. An authentic event is never refused: if it
cannot be read, it is kept in quarantine. Errors carry the HTTP answer (`bridge.errors`). Each webhook gets one log
line, written as soon as its outcome is known; the reason for a refusal appears there and nowhere else.
"""

from __future__ import annotations

import hashlib
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bridge import logs, sources
from bridge.errors import BodyEncoded, BodyTooLarge, BridgeError, SignatureError, SourceOff, StoreError, UnknownSource
from bridge.model import Ack, Envelope, NewEvent, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from bridge.model import Source
    from bridge.sources.verifier import Verified
    from bridge.store.inbox.counters import Refusals
    from bridge.store.inbox.first_messages import FirstMessages
    from bridge.store.inbox.group_commit import Inbox

log = logs.get("receive")


class Receiver(Protocol):
    """What receiving needs from the composition root."""

    @property
    def counters(self) -> Refusals: ...

    @property
    def inbox(self) -> Inbox: ...

    @property
    def first_messages(self) -> FirstMessages: ...

    def source(self, name: str) -> Source:
        """The source of this name. Raises UnknownSource if there is none."""

    def now_s(self) -> float: ...


class PendingAck(NamedTuple):
    """An authentic event on its way to the disk.

    ack: done when the event is durable, or failed with the StoreError that kept it from being stored. Cancel it to give
    up waiting. quiet: the sender wants an answer without a body.
    """

    ack: Future[Ack]
    quiet: bool


def receive(bridge: Receiver, name: str, read_request: Callable[[], Request]) -> PendingAck | Reply:
    """Take one webhook for the source of this name without waiting for the disk, or return the answer to its handshake.

    read_request: raises BodyTooLarge, BodyEncoded; it is called only for a known source. Raises UnknownSource,
    SourceOff, SignatureError, BodyTooLarge, BodyEncoded. Any other exception is a bug of ours: nothing is stored, and
    the sender must try again, as it must after a StoreError.
    """
    started = time.perf_counter()
    facts: dict[str, str | None] = {"source": _printable(name)}
    try:
        source = bridge.source(name)
        request = read_request()
        if source.handshakes and (reply := _handshake(bridge, source, request, started)) is not None:
            return reply
        event = _authentic_event(source, request, bridge.now_s())
        facts |= {"type": _printable(event.envelope.type), "id": _printable(event.envelope.id or "") or None}
        ack = bridge.inbox.post(event)
    except Exception as error:
        outcome, reason = _outcome(error)
        if outcome == "refused":
            bridge.counters.refused(name, reason)
        _log(facts, started, outcome, reason)
        raise
    ack.add_done_callback(partial(_acknowledged, bridge.counters, name, facts, event.quarantine, started))
    return PendingAck(ack, source.quiet)


def _acknowledged(
    counters: Refusals,
    name: str,
    facts: dict[str, str | None],
    quarantine: str | None,
    started: float,
    ack: Future[Ack],
) -> None:
    """Log and count an event's outcome. Holds no reference to the event: many may wait while the database is down."""
    if ack.cancelled():
        _log(facts, started, "unavailable", "the database did not store the event in time")
    elif (error := ack.exception()) is not None:
        _log(facts, started, *_outcome(error))
    else:
        counters.accepted(name)
        _log(facts, started, ack.result().value, quarantine)


def answer_get(bridge: Receiver, name: str, read_request: Callable[[], Request]) -> Reply | None:
    """Answer a GET or HEAD to a source's address, if it is the source's handshake; None: it is not.

    Raises the same errors as `receive`. A refusal is logged but not counted, because no event was refused.
    """
    started = time.perf_counter()
    try:
        source = bridge.source(name)
        return _handshake(bridge, source, read_request(), started) if source.handshakes else None
    except UnknownSource:
        return None
    except Exception as error:
        _log({"source": _printable(name)}, started, *_outcome(error))
        raise


def _handshake(bridge: Receiver, source: Source, request: Request, started: float) -> Reply | None:
    reply = sources.handshake(source, request, bridge.now_s())
    if reply is None:
        return None
    if reply.kept is not None:
        bridge.first_messages.keep(source.name, reply.kept, sources.sender_of(request))
    _log({"source": source.name}, started, "handshake", _FIRST_MESSAGE_KEPT if reply.kept is not None else None)
    return reply


def _authentic_event(source: Source, request: Request, now_s: float) -> NewEvent:
    if not source.secrets:
        raise SourceOff(source.secret_error or "no usable secret is set")
    signature = _verification_json(source, sources.verify(source, request, now_s), now_s)
    try:
        return sources.read(source, request, signature)
    except Exception as error:  # noqa: BLE001 - authentic, so it is kept: a later release may be able to read it
        return _unreadable(source, request, f"reading it failed ({logs.where(error)})", signature)


def _verification_json(source: Source, verified: Verified, now_s: float) -> str:
    """How a request was verified, as JSON without any part of the signature or the secret. No value needs escaping.

    secret: the number of the secret that matched, from 1; of: how many the source has; old: whether it is one of the
    source's old secrets; age_ms: the age of the signed timestamp; at_ms: the time by this machine's clock.
    """
    scheme, secret, age_ms = verified
    old = ',"old":true' if secret in source.old_secrets else ""
    age = "" if age_ms is None else f',"age_ms":{age_ms}'
    return f'{{"scheme":"{scheme}","secret":{secret},"of":{len(source.secrets)}{old}{age},"at_ms":{int(now_s * 1000)}}}'


def _unreadable(source: Source, request: Request, problem: str, signature: str) -> NewEvent:
    """The quarantined event for a body that our own code failed to read: only its raw bytes are used."""
    key = "sha256:" + hashlib.sha256(request.body).hexdigest()
    return NewEvent(source.name, source.provider, Envelope(""), (key,), {}, {}, request.body, problem, (), signature)


# ----------------------------------------------------------------------------------------------------- the log line

_REASONS = {
    BodyTooLarge: "the body is longer than 1 MiB",
    BodyEncoded: "the body is compressed, so what was signed cannot be seen",
}
_FIRST_MESSAGE_KEPT = "its first message is kept for an hour: `python -m bridge sources` shows it on a terminal"
_LOGGED_MAX = 100


def _outcome(error: BaseException) -> tuple[str, str]:
    """The outcome and the reason to log for this error."""
    if not isinstance(error, BridgeError):
        return "failed", logs.where(error)
    if isinstance(error, UnknownSource):
        return "unknown_source", "no mapping file of this name"
    if isinstance(error, StoreError):
        return "unavailable", str(error)
    if isinstance(error, SignatureError):
        return "refused", error.reason
    return "refused", _REASONS.get(type(error)) or str(error)


def _log(facts: dict[str, str | None], started: float, outcome: str, reason: str | None) -> None:
    why = {} if reason is None else {"reason": reason}
    write = log.error if outcome in ("failed", "unavailable") else log.info
    write("webhook", **facts, **why, outcome=outcome, ms=round((time.perf_counter() - started) * 1000, 2))


def _printable(value: str) -> str:
    """An untrusted value, shortened and escaped so that it cannot break a log line or a terminal."""
    short = value[:_LOGGED_MAX]
    return short if short.isprintable() else ascii(short)[1:-1]
