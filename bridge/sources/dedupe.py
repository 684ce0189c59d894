"""Decide when two deliveries are one event: when one of the keys of the second is known for the source (ADR 17).

An event is identified by (type, id) if the provider sends an id *of the event*, else by a hash of the body; a batch
also by the ids of its events. The hash covers the event's type if the source's rules or links name it: Shopify sends
the same bytes under several topics, each a separate event. All other types share one hash, because a topic is not
signed, and anybody who replays a request could invent any number of them.

Events stored by the previous release are recognised by the key that it made (`former`), which is looked up and never
written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bridge.errors import SignatureError
from bridge.model import BodyForm, FormerSpec
from bridge.sources.body import may_be_repaired
from bridge.sources.envelope import bounded_text, first_text, read_envelope
from bridge.sources.facts import Facts
from bridge.text import is_fixture_id, text_of

if TYPE_CHECKING:
    from bridge.model import Document, Envelope, Json, Request, Source

    Keys = tuple[str, ...]
    Former = tuple[tuple[str, str], ...]  # (type of the stored event, key)


def keys(source: Source, request: Request, envelope: Envelope, found: tuple[Document, ...]) -> tuple[Keys, Former]:
    """The keys of a readable event (for a batch, of all its documents), and those that the previous release made."""
    document = found[0] if len(found) == 1 else replace(found[0], body=found[0].root)
    fingerprint = _FINGERPRINTS[source.fingerprint](document.root) if source.fingerprint is not None else []
    if fingerprint:
        current, former = tuple(fingerprint), []  # unchanged since the previous release
    else:
        current = _keys(source, request, envelope)
        if len(found) > 1 and len(current) == 1 and (batch := _batch_key(source, found)):
            current = (batch, *current)
        former = _former(source, request, envelope, document)
    if source.body is BodyForm.JSON_FIELD or may_be_repaired(request.body):  # a form encodes escapes once more
        former.append(("", _hash(request.body)))  # it was quarantined, without a type
    return current, tuple(pair for pair in dict.fromkeys(former) if pair[1] not in current)


def unreadable_keys(source: Source, request: Request, event_type: str) -> tuple[Keys, Former]:
    """The same for a body that is not a document: even a legible part of it does not identify the event."""
    key = _body_key(source, request, event_type)
    return (key,), ((("", _hash(request.body)),) if key != _hash(request.body) else ())


def signed_id(source: Source, request: Request) -> str | None:
    """The value at `verify.id`, exactly as the signature covers it."""
    places = tuple(place for scheme in source.verify.schemes for place in scheme.id)
    if not places:
        return None
    try:
        text = Facts(source, request).first(places)
    except SignatureError:  # this body has no such place
        return None
    return bounded_text(text) if text else None


def _keys(source: Source, request: Request, envelope: Envelope) -> Keys:
    # If a file says where the id is, only that place counts: without one, the signed id may be the attempt's.
    event_id = envelope.id or (None if source.envelope.id else signed_id(source, request))
    if _identifies_nothing(event_id):
        return (_body_key(source, request, envelope.type),)
    id_key = f"id:{envelope.type}:{event_id}"
    return (id_key,) if source.id_is_signed else (id_key, _body_key(source, request, envelope.type))


def _batch_key(source: Source, found: tuple[Document, ...]) -> str | None:
    """A key made from its events' ids, if each has one: HubSpot writes the attempt's number into every event."""
    events = [read_envelope(source.envelope, document) for document in found]
    ids = {event.id for event in events if not _identifies_nothing(event.id)}
    if len(ids) < len(events):
        return None
    named = sorted([event.type, event.id or "", event.time_ms or 0] for event in events)
    return "ids:" + hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _identifies_nothing(event_id: str | None) -> bool:
    """Whether there is no usable id: none, a fixture's, or one with U+FFFD in it (two of those could collide)."""
    return not event_id or is_fixture_id(event_id) or "\ufffd" in event_id


def _body_key(source: Source, request: Request, event_type: str) -> str:
    key = _hash(_without_retry_fields(source, request.body))
    return f"{key}:{event_type}" if event_type and event_type in source.named_types else key


def _hash(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def _without_retry_fields(source: Source, body: bytes) -> bytes:
    """A form without the fields that differ between a retry and the first delivery."""
    if not source.retry_fields or source.body is not BodyForm.FORM:
        return body
    names = tuple(name.encode() + b"=" for name in source.retry_fields)
    return b"&".join(pair for pair in body.split(b"&") if not pair.startswith(names))


def _former(source: Source, request: Request, envelope: Envelope, document: Document) -> list[tuple[str, str]]:
    """The keys that the previous release (f44b843) would have stored for this delivery.

    It hashed every body without the type and with the number of the retry, and fell back on the signed id if the
    envelope had none.
    """
    as_today = source.former is None and source.id_is_signed and source.fingerprint is None
    if as_today and envelope.id and not is_fixture_id(envelope.id):
        return []  # nearly every event
    spec = source.former or FormerSpec(source.envelope.type, source.envelope.id, source.id_is_signed)
    found = [] if source.former is None else [("", _hash(request.body))]  # it stored no type for what it could not read
    event_id = first_text(spec.id, document)
    for event_type in _former_types(source, spec, envelope, document):
        by_body = [(event_type, _hash(body)) for body in (request.body, _without_retry_fields(source, request.body))]
        named = event_id or signed_id(source, request)  # the latter if its `verify` had one
        if named and not is_fixture_id(named):
            found.append((event_type, f"id:{event_type}:{named}"))
        if not (event_id and spec.id_is_signed) or is_fixture_id(event_id) or source.fingerprint is not None:
            found += by_body
    return found


def _former_types(source: Source, spec: FormerSpec, envelope: Envelope, document: Document) -> list[str]:
    """The type; for a batch, also the type that its events share."""
    batch = source.each is not None and document.body is document.root
    stated = [] if source.former is None else [first_text(spec.type, document) or ""]
    return [*stated, envelope.type] if batch or not stated else stated


# ------------------------------------------------------------------------------------------- without ids of events


def _lemonsqueezy_keys(body: Json) -> list[str]:
    """Two keys, either of which marks a duplicate: `id:…` if there is a webhook_id, and `fp:…` for what happened.

    Lemon Squeezy has no documented event id and no timestamp in its signature. Empty if the body is not an event.
    """
    meta, data = _object_at(body, "meta"), _object_at(body, "data")
    event_name = text_of(meta.get("event_name"))
    if not event_name or not data:
        return []
    kind, number = text_of(data.get("type")) or "", text_of(data.get("id")) or ""
    found = [_fingerprint(meta, data, [event_name, kind, number])]
    webhook_id = text_of(meta.get("webhook_id"))
    if webhook_id:
        # It is undocumented what a webhook_id identifies. Combined with the object, it can only be too specific.
        parts = (event_name, kind, number, webhook_id)
        found.insert(0, "id:" + ":".join(bounded_text(part) for part in parts))
    return found


def _fingerprint(meta: dict[str, Json], data: dict[str, Json], names: list[str]) -> str:
    attributes = _object_at(data, "attributes")
    test = meta.get("test_mode") is True or attributes.get("test_mode") is True
    canonical = json.dumps([*names, test, _without_renderings(attributes)], sort_keys=True, separators=(",", ":"))
    return "fp:" + hashlib.sha256(canonical.encode()).hexdigest()


def _without_renderings(value: Json) -> Json:
    """The document without signed URLs and formatted amounts, at any depth."""
    if isinstance(value, dict):
        return {
            key: _without_renderings(below)
            for key, below in value.items()
            if key != "urls" and not key.endswith("_formatted")
        }
    return [_without_renderings(below) for below in value] if isinstance(value, list) else value


def _object_at(value: Json, key: str) -> dict[str, Json]:
    below = value.get(key) if isinstance(value, dict) else None
    return below if isinstance(below, dict) else {}


_FINGERPRINTS: Final = {"lemonsqueezy": _lemonsqueezy_keys}  # by `Source.fingerprint`
