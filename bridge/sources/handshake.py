"""Handshakes: the messages by which a sender checks a webhook's address before it sends events there.

Presets define which exist (`handshake:`); this module answers them. A handshake is never an event and never stored.
Whatever arrives, `handshake` returns or raises SignatureError or SourceOff. An echo contains only what the request
contained, as bounded plain text or JSON. An answer is computed with the secret only after the request's own signature
was verified, or over a short token without any character of JSON: no answer is ever the signature of an event (ADR 15).
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64encode
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from bridge.errors import SignatureError, SourceOff
from bridge.model import Handshake, Reply, ReplyKind, Request
from bridge.sources.facts import Facts, as_bytes
from bridge.sources.keys import symmetric
from bridge.sources.verifier import verify

if TYPE_CHECKING:
    from bridge.model import Place, Source

BODY_MAX: Final = 4_096  # bytes: a larger body is an event, and is not parsed here
ECHO_MAX: Final = 256  # characters
TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TOKEN_BODY: Final = re.compile(TOKEN.pattern.encode())
_KEPT: Final = re.compile(r"[!-~]{8,200}")
_PART: Final = re.compile(r"\{(value|hex|base64)\}")
_EMPTY: Final = Reply()
_NO_CONTENT: Final = Reply(status=204)


def handshake(source: Source, request: Request, now_s: float) -> Reply | None:
    """The answer to this request if it is one of the source's handshakes, else None.

    Raises SignatureError (it is not from the sender) or SourceOff (it needs a secret, and none is set).
    """
    if len(request.body) > BODY_MAX:
        return None
    facts = Facts(source, request)
    for entry in source.handshakes:
        if request.method in entry.methods:
            value = _value(entry, facts)
            if value is not None:
                return _reply(entry, facts, value, now_s)
    if request.method == "POST" and _TOKEN_BODY.fullmatch(request.body) and computes(source):
        raise SignatureError("the body is a token like those of handshakes, which this bridge signs for anyone")
    return None


def computes(source: Source) -> bool:
    """Whether any of the source's handshakes needs the secret for its answer."""
    return any(entry.does is ReplyKind.HMAC for entry in source.handshakes)


def sender_of(request: Request) -> str:
    """Where it came from, for people: the peer, and the client that the last proxy names. Nothing depends on it."""
    stated = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    try:
        return f"{ip_address(stated)} by {request.address}"
    except ValueError:
        return request.address


# --------------------------------------------------------------------------------------------- is it a handshake?


def _value(entry: Handshake, facts: Facts) -> str | None:
    """The value that this handshake carries (empty if it needs none); None if the request is not this handshake."""
    if entry.body is not None and not _is_whole_body(entry.body, facts):
        return None
    if not all(_holds(place, allowed, facts) for place, allowed in entry.when):
        return None
    if entry.place is None:
        return ""
    value = _text(entry.place, facts)
    if value and entry.does is ReplyKind.KEEP and not _KEPT.fullmatch(value):
        return None
    return value or None


def _is_whole_body(body: str, facts: Facts) -> bool:
    """Whether this is the whole body, and no signature comes with it."""
    pattern = re.escape(body.encode()).replace(re.escape(b"{digits}"), rb"\d{1,20}")
    places = (place for scheme in facts.source.verify.schemes for place in scheme.signature.places)
    signed = any(_text(place, facts) for place in places)
    return re.fullmatch(pattern, facts.request.body) is not None and not signed


def _holds(place: Place, allowed: tuple[str, ...], facts: Facts) -> bool:
    if place.where == "body" and not any(value.encode() in facts.request.body for value in allowed):
        return False  # this rules out most events, which are then not parsed twice
    return (_text(place, facts) or "") in allowed  # so "" requires the value to be absent


def _text(place: Place, facts: Facts) -> str | None:
    try:
        return facts.text(place)
    except SignatureError:  # the body is not a document
        return None


# --------------------------------------------------------------------------------------------------- the answer


def _reply(entry: Handshake, facts: Facts, value: str, now_s: float) -> Reply:
    if entry.does is ReplyKind.KEEP:
        return _first_message(facts, value, now_s)
    if entry.does is ReplyKind.HMAC:
        return _computed(entry, facts, value, now_s)
    if entry.signed:
        _verifying_secret(facts, now_s)
    if entry.verify_token is not None:
        _check_verify_token(entry, entry.verify_token, facts)
    if entry.does is ReplyKind.ECHO:
        return _echo(entry, value)
    return _NO_CONTENT if entry.does is ReplyKind.NO_CONTENT else _EMPTY


def _first_message(facts: Facts, value: str, now_s: float) -> Reply:
    """The secret itself, from an unauthenticated sender: kept for a person to read while the source has no secret."""
    if not facts.source.secrets:
        return Reply(kept=value)
    verify(facts.source, facts.request, now_s)
    return _EMPTY


def _computed(entry: Handshake, facts: Facts, value: str, now_s: float) -> Reply:
    secrets = (_verifying_secret(facts, now_s),) if entry.signed else facts.source.secrets
    if not TOKEN.fullmatch(value):
        raise SignatureError("the token of the handshake is not 1 to 128 letters, digits, - and _")
    digest = hmac.digest(_key(facts.source, secrets), value.encode(), "sha256")
    return _json(entry, {"value": value, "hex": digest.hex(), "base64": b64encode(digest).decode()})


def _verifying_secret(facts: Facts, now_s: float) -> str:
    """The secret with which the request is verified."""
    source = facts.source
    if not source.secrets:
        raise SourceOff(source.secret_error or "no usable secret is set")
    return source.secrets[verify(source, facts.request, now_s).secret - 1]


def _key(source: Source, secrets: tuple[str, ...]) -> bytes:
    """The key of the first secret that is usable."""
    for secret in secrets:
        try:
            return symmetric("text", secret)
        except ValueError:
            continue
    raise SourceOff(source.secret_error or "no usable secret is set")


def _check_verify_token(entry: Handshake, place: Place, facts: Facts) -> None:
    if entry.expected is None:
        raise SignatureError(f"{entry.variable} is not set, so the handshake's verify token cannot be compared")
    given = _text(place, facts) or ""
    expected = entry.expected.encode("utf-8", "surrogatepass")
    forms = (given.encode("utf-8", "surrogatepass"), as_bytes(given))  # from a query or body, and from a header
    if not any(hmac.compare_digest(form, expected) for form in forms):
        raise SignatureError(f"the handshake's verify token is not the value of {entry.variable}")


def _echo(entry: Handshake, value: str) -> Reply:
    if len(value) > ECHO_MAX or not value.isprintable():
        raise SignatureError(
            f"the value that the handshake asks to be echoed is not 1 to {ECHO_MAX} printable characters"
        )
    if entry.fields:
        return _json(entry, {"value": value})
    return Reply(value.encode(), "text/plain; charset=utf-8")


def _json(entry: Handshake, values: dict[str, str]) -> Reply:
    stated = {name: _PART.sub(lambda part: values[part[1]], template) for name, template in entry.fields}
    return Reply(json.dumps(stated).encode(), "application/json")
