"""A verified request → the event to store, and a stored event → the documents that rules read.

`read` never raises: what is authentic is kept, readable or not. What it keeps beside the raw body is cleaned of
secrets and of what a database refuses. The dedupe keys say when two deliveries are one event (Design 8).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge.errors import SignatureError, UnreadableBody
from bridge.model import MISSING, Document, Envelope, NewEvent
from bridge.sources import lemonsqueezy
from bridge.sources.body import MAX_EVENTS, parse
from bridge.sources.envelope import bounded_text, clean_text, read_envelope, with_envelope
from bridge.sources.facts import Facts, query_of
from bridge.sources.stripe import is_fixture_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Event, Json, Request, Source, VerifySpec

_SECRET_HEADER: Final = re.compile(r"authorization|cookie|signature|hmac|token|secret|password|api-?key")
_SECRET_PARAMETER: Final = re.compile(r"token|secret|password|signature|api_?key|key|sig|auth", re.IGNORECASE)


def read(source: Source, request: Request) -> NewEvent:
    """The event to store. Never raises: a body that is no document comes back with the reason in `quarantine`."""
    header, query = _kept_headers(source.verify, request), _kept_query(source.verify, request)
    fault: str | None = None
    try:
        found = _documents(source, request.body, header, query)
    except UnreadableBody as error:
        envelope, keys, fault = Envelope(""), [_body_key(request)], str(error)
    else:
        envelope = _envelope(source, found)
        keys = _dedupe_keys(source, request, envelope, found[0])
    return NewEvent(source.name, source.provider, envelope, tuple(keys), header, query, request.body, fault)


def documents(source: Source, event: Event) -> tuple[Document, ...]:
    """What rules read: one document, or with `each` one per element, each with its own envelope.

    The envelope is read again by today's mapping file, so that an event can be routed again after a mend; what the
    stored headers no longer tell is taken from the event. UnreadableBody if there is no document.
    """
    if event.body is None:
        raise UnreadableBody(f"the body of {event.name} is gone: it was older than BRIDGE_RETENTION_DAYS")
    found = []
    for document in _documents(source, event.body, event.headers, event.query):
        envelope = read_envelope(source.envelope, document)
        stored = event.envelope
        if source.each is None and not (envelope.type and envelope.id):
            envelope = replace(envelope, type=envelope.type or stored.type, id=envelope.id or stored.id)
        found.append(with_envelope(document, envelope))
    return tuple(found)


def _documents(
    source: Source, body: bytes, header: Mapping[str, str], query: Mapping[str, str]
) -> tuple[Document, ...]:
    root = parse(source, body)
    document = Document(body=root, header=header, query=query, root=root)
    elements = source.each.read(document) if source.each else MISSING
    if isinstance(elements, list) and elements:
        if len(elements) > MAX_EVENTS:
            raise UnreadableBody(f"the body holds {len(elements)} events, at most {MAX_EVENTS} are taken")
        return tuple(replace(document, body=element) for element in elements)
    if isinstance(root, list) and not source.each and not read_envelope(source.envelope, document).type:
        raise UnreadableBody("the body is a list, but events are objects; `each` takes one event per element")
    if not isinstance(root, dict | list):
        raise UnreadableBody(f"the body is {_kind(root)}, but events are objects")
    return (document,)


def _kind(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return "null, true or false"
    return "a text" if isinstance(value, str) else "a number"


def _envelope(source: Source, documents: tuple[Document, ...]) -> Envelope:
    """The envelope of a whole delivery: of a batch, what its events have in common."""
    if len(documents) == 1:
        return read_envelope(source.envelope, documents[0])
    whole = replace(documents[0], body=documents[0].root)
    envelopes = [read_envelope(source.envelope, document) for document in documents]
    types = {envelope.type for envelope in envelopes}
    return replace(
        read_envelope(source.envelope, whole),
        type=types.pop() if len(types) == 1 else "batch",
        test=any(envelope.test for envelope in envelopes),
    )


# ------------------------------------------------------------------------------------------------------- dedupe


def _body_key(request: Request) -> str:
    return "sha256:" + hashlib.sha256(request.body).hexdigest()


def _dedupe_keys(source: Source, request: Request, envelope: Envelope, document: Document) -> list[str]:
    """One or two texts; a delivery is a duplicate if its source has seen either."""
    if source.provider == "lemonsqueezy":
        return lemonsqueezy.dedupe_keys(document.root) or [_body_key(request)]
    event_id = envelope.id or _signed_id(source, request)
    if not event_id or is_fixture_id(event_id):
        return [_body_key(request)]
    id_key = f"id:{envelope.type}:{event_id}"
    return [id_key] if source.id_is_signed else [id_key, _body_key(request)]


def _signed_id(source: Source, request: Request) -> str | None:
    """The id of `verify.id`, for a mapping file that says nothing of `envelope.id`."""
    places = tuple(place for spec in source.verify.schemes for place in spec.id)
    if not places:
        return None
    try:
        text = Facts(source, request).first(places)
    except SignatureError:  # a place that this body does not have
        return None
    return bounded_text(text) if text else None


# --------------------------------------------------------------------------------------- what is kept of a request


@lru_cache(maxsize=1024)
def _signature_names(spec: VerifySpec, where: str) -> frozenset[str]:
    places = [place for scheme in spec.schemes for place in scheme.signature.places]
    return frozenset(place.name.lower() for place in places if place.where == where)


@lru_cache(maxsize=1024)
def _names_a_secret(header: str) -> bool:
    return _SECRET_HEADER.search(header) is not None


def _kept_headers(spec: VerifySpec, request: Request) -> dict[str, str]:
    signatures = _signature_names(spec, "header")
    return {
        clean_text(name): clean_text(value)
        for name, value in request.headers.items()
        if name not in signatures and not _names_a_secret(name)
    }


def _kept_query(spec: VerifySpec, request: Request) -> dict[str, str]:
    if not request.query_string:
        return {}
    signatures = _signature_names(spec, "query")
    return {
        clean_text(name): clean_text(value)
        for name, value in query_of(request).items()
        if name.lower() not in signatures and not _SECRET_PARAMETER.fullmatch(name)
    }
