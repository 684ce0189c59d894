"""The first step: a webhook comes in, is verified, stored durably, and acknowledged. Nothing else.

A hand-shake is answered first and is no event. For everything else the order is a law: authenticate the raw bytes,
read the envelope for dedupe, store the bytes as they are, answer. No rule is evaluated and nobody is called, so neither
a wrong rule nor a slow destination can lose an event. What is authentic is never refused: unreadable, it is kept in
quarantine. Errors carry the answer (`bridge.errors`); the reason of a refusal stands in the log line of the webhook,
one for each, and nowhere else.
"""

from __future__ import annotations

import hashlib
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from bridge import logs, sources
from bridge.errors import BodyEncoded, BodyTooLarge, BridgeError, SignatureError, SourceOff, StoreError, UnknownSource
from bridge.model import Ack, Envelope, NewEvent, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.model import Source

log = logs.get("receive")


class Counters(Protocol):
    """Refusals of each source; what was stored is counted by the store."""

    def refused(self, source: str, reason: str) -> None:
        """A request to a known source was refused."""

    def accepted(self, source: str) -> None:
        """An event came through."""


class Pending(Protocol):
    def result(self) -> Ack:
        """What became of the event. StoreUnavailable: it may or may not be stored."""


class Inbox(Protocol):
    def put(self, event: NewEvent) -> Ack:
        """Store durably, or find that it was stored before. StoreUnavailable: neither is certain."""

    def post(self, event: NewEvent, done: Callable[[Pending], None]) -> Pending:
        """The same without waiting."""


class FirstMessages(Protocol):
    """What a sender says before there is a secret, for a person to read."""

    def keep(self, source: str, token: str, sender: str) -> None:
        """Without waiting for the database; `sender` is the address as people read it."""


class Receiver(Protocol):
    """What receiving needs of the composition root."""

    @property
    def counters(self) -> Counters: ...

    @property
    def inbox(self) -> Inbox: ...

    @property
    def first_messages(self) -> FirstMessages: ...

    def source(self, name: str) -> Source:
        """UnknownSource if there is none of this name."""

    def now_s(self) -> float: ...


class Taken:
    """A webhook that is authentic and read, and has yet to be stored. What becomes of it is told to the log.

    quiet: its sender wants an answer without a body.
    """

    __slots__ = ("_bridge", "_event", "_started", "quiet")

    def __init__(self, bridge: Receiver, event: NewEvent, started: float, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bridge = bridge
        self._event = event
        self._started = started

    def put(self) -> Ack:
        """Store it; returns when it is durable. StoreError: not stored, the sender must try again."""
        return self._told(lambda: self._bridge.inbox.put(self._event))

    def post(self, done: Callable[[Callable[[], Ack]], None]) -> Callable[[], Ack]:
        """The same without waiting: `done` is called with what returns or raises as `put` does.

        Returned is the same for whoever waits no longer.
        """
        try:
            pending = self._bridge.inbox.post(self._event, lambda pending: done(partial(self._told, pending.result)))
        except Exception as error:
            self._tell(*_outcome(error))
            raise
        return partial(self._told, pending.result)

    def _told(self, stored: Callable[[], Ack]) -> Ack:
        try:
            ack = stored()
        except Exception as error:
            self._tell(*_outcome(error))
            raise
        self._bridge.counters.accepted(self._event.source)
        self._tell(ack.value, self._event.quarantine)
        return ack

    def _tell(self, outcome: str, reason: str | None) -> None:
        _tell(self._event.source, self._event, self._started, outcome, reason)


def receive(bridge: Receiver, name: str, request: Request | Callable[[], Request]) -> Ack | Reply:
    """Take one webhook of the source of this name; returns when its event is durable, or what a hand-shake is answered.

    request: the request, or what reads it (raises BodyTooLarge, BodyEncoded), which is asked only for a known source.
    Raises UnknownSource, SourceOff, SignatureError, BodyTooLarge, BodyEncoded, or StoreError: not stored, try again.
    Anything else that is raised is a fault of our own: nothing is stored, and the sender must try again, too.
    """
    taken = take(bridge, name, request)
    return taken if isinstance(taken, Reply) else taken.put()


def take(bridge: Receiver, name: str, request: Request | Callable[[], Request]) -> Taken | Reply:
    """The first half of `receive`, which waits for nothing: the event to store. Raises the same, but StoreError."""
    started = time.perf_counter()
    try:
        source = bridge.source(name)
        read = request if isinstance(request, Request) else request()
        if source.handshakes and (reply := _answered(bridge, source, read, started)) is not None:
            return reply
        return Taken(bridge, _authentic_event(source, read, bridge.now_s()), started, quiet=source.quiet)
    except Exception as error:
        outcome, reason = _outcome(error)
        if outcome == "refused":
            bridge.counters.refused(name, reason)
        _tell(name, None, started, outcome, reason)
        raise


def look_in(bridge: Receiver, name: str, request: Callable[[], Request]) -> Reply | None:
    """A GET or HEAD to a source's address: what its hand-shake is answered, None if it has none that is meant.

    Raises what `take` does. A refusal is a line of the log but not counted: no event was refused.
    """
    started = time.perf_counter()
    try:
        source = bridge.source(name)
        return _answered(bridge, source, request(), started) if source.handshakes else None
    except UnknownSource:
        return None
    except Exception as error:
        _tell(name, None, started, *_outcome(error))
        raise


def _answered(bridge: Receiver, source: Source, request: Request, started: float) -> Reply | None:
    reply = sources.handshake(source, request, bridge.now_s())
    if reply is None:
        return None
    if reply.kept is not None:
        bridge.first_messages.keep(source.name, reply.kept, sources.sender_of(request))
    _tell(source.name, None, started, "handshake", _KEPT if reply.kept is not None else None)
    return reply


def _authentic_event(source: Source, request: Request, now_s: float) -> NewEvent:
    if not source.secrets:
        raise SourceOff(source.secret_fault or "no usable secret is set")
    sources.verify(source, request, now_s)
    try:
        return sources.read(source, request)
    except Exception as error:  # noqa: BLE001 - authentic, so it is kept: reading may be mended later
        return _unread(source, request, f"reading it failed ({logs.where(error)})")


def _unread(source: Source, request: Request, fault: str) -> NewEvent:
    """The event for a body on which our own reading failed: nothing of it is trusted but its bytes."""
    key = "sha256:" + hashlib.sha256(request.body).hexdigest()
    return NewEvent(source.name, source.provider, Envelope(""), (key,), {}, {}, request.body, fault)


# ----------------------------------------------------------------------------------------------------- the log line

_REASONS = {
    BodyTooLarge: "the body is longer than 1 MiB",
    BodyEncoded: "the body is compressed, so what was signed cannot be seen",
}
_KEPT = "its first message is kept for an hour: `python -m bridge sources` shows it on a terminal"
_TEXT_MAX = 100


def _outcome(error: Exception) -> tuple[str, str]:
    """How the log calls it, and the reason for the owner of the source."""
    if not isinstance(error, BridgeError):
        return "failed", logs.where(error)
    if isinstance(error, UnknownSource):
        return "unknown_source", "no mapping file of this name"
    if isinstance(error, StoreError):
        return "unavailable", str(error)
    if isinstance(error, SignatureError):
        return "refused", error.reason
    return "refused", _REASONS.get(type(error)) or str(error)


def _tell(name: str, event: NewEvent | None, started: float, outcome: str, reason: str | None) -> None:
    facts: dict[str, object] = {"source": _told(name)}
    if event is not None:
        facts["type"] = _told(event.envelope.type)
        facts["id"] = _told(event.envelope.id or "") or None
    if reason is not None:
        facts["reason"] = reason
    facts["outcome"] = outcome
    facts["ms"] = round((time.perf_counter() - started) * 1000, 2)
    tell = log.error if outcome in ("failed", "unavailable") else log.info
    tell("webhook", **facts)


def _told(text: str) -> str:
    """A text from outside, so that it cannot break a line or a terminal."""
    short = text[:_TEXT_MAX]
    return short if short.isprintable() else ascii(short)[1:-1]
