"""A verified request → the event to store, and a stored event → the documents that rules read.

`read` never raises: an authentic event is kept, readable or not. What is kept besides the raw body is cleaned of
secrets and of what a database refuses. `dedupe` decides when two deliveries are one event.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge.errors import UnreadableBody
from bridge.masking import names_secret, without_secret_parameters
from bridge.model import MISSING, Document, Envelope, NewEvent
from bridge.sources import dedupe
from bridge.sources.body import MAX_EVENTS, legible, parse
from bridge.sources.dedupe import signed_id
from bridge.sources.envelope import read_envelope, with_envelope
from bridge.sources.facts import query_of
from bridge.text import storable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Event, Json, Request, Source, VerifySpec

BATCH: Final = "batch"  # the type of a delivery whose events are of several types
# Never kept by any release, so no rule can depend on them. Other headers are judged by the words in their names; those
# that the source's file or preset reads (an `Idempotency-Key`) are always kept, and masked wherever they are shown.
_NEVER_HEADER: Final = re.compile(r"authorization|cookie|signature|hmac|token|secret|password|api-?key")
_NEVER_PARAMETER: Final = re.compile(r"token|secret|password|signature|api_?key|key|sig|auth", re.IGNORECASE)


def read(source: Source, request: Request, signature: str | None = None) -> NewEvent:
    """The event to store. Never raises: for a body that is not a document, the reason is in `quarantine`."""
    header = _with_one_id(source, request, _kept_headers(source, request))
    query = _kept_query(source, request)
    try:
        found = _documents(source, request.body, header, query)
    except UnreadableBody as error:
        document = Document(body=legible(source, request.body), header=header, query=query)
        stated = read_envelope(source.envelope, document)
        envelope = Envelope(stated.type, stated.id)  # as far as it is legible, for people who search for the event
        keys, former = dedupe.unreadable_keys(source, request, envelope.type)
        return NewEvent(
            source.name, source.provider, envelope, keys, header, query, request.body, str(error), former, signature
        )
    envelope = _envelope(source, found)
    keys, former = dedupe.keys(source, request, envelope, found)
    return NewEvent(source.name, source.provider, envelope, keys, header, query, request.body, None, former, signature)


def documents(source: Source, event: Event) -> tuple[Document, ...]:
    """The documents that rules read: one, or with `each` one per element, each with its own envelope.

    The envelope is read again with the current mapping file, so that an event can be routed again after a fix; what the
    stored headers no longer contain is taken from the event. Raises UnreadableBody if there is no document.
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


def ignored(source: Source, document: Document) -> str | None:
    """A sentence that says why no rule is evaluated for this event; None if rules are."""
    return None if source.ignored is None else source.ignored.first_match(document)


def _documents(
    source: Source, body: bytes, header: Mapping[str, str], query: Mapping[str, str]
) -> tuple[Document, ...]:
    root = parse(source, body)
    document = Document(body=root, header=header, query=query, root=root)
    elements = source.each.read(document) if source.each else MISSING
    if isinstance(elements, list) and elements:
        if len(elements) > MAX_EVENTS:
            raise UnreadableBody(f"the body holds {len(elements)} events, at most {MAX_EVENTS} are accepted")
        return tuple(replace(document, body=element) for element in elements)
    if isinstance(root, list) and not source.each and not read_envelope(source.envelope, document).type:
        raise UnreadableBody("the body is a list, but events are objects; `each` takes one event per element")
    if not isinstance(root, dict | list):
        raise UnreadableBody(f"the body is {_kind(root)}, but events are objects")
    return (document,)


def _kind(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return "null, true or false"
    return "a string" if isinstance(value, str) else "a number"


def _envelope(source: Source, documents: tuple[Document, ...]) -> Envelope:
    """The envelope of a whole delivery; for a batch, what its events have in common."""
    if len(documents) == 1:
        return read_envelope(source.envelope, documents[0])
    whole = replace(documents[0], body=documents[0].root)
    envelopes = [read_envelope(source.envelope, document) for document in documents]
    types = {envelope.type for envelope in envelopes}
    return replace(
        read_envelope(source.envelope, whole),
        type=types.pop() if len(types) == 1 else BATCH,
        test=any(envelope.test for envelope in envelopes),
    )


# --------------------------------------------------------------------------------------- what is kept of a request


@lru_cache(maxsize=1024)
def _signature_names(spec: VerifySpec, where: str) -> frozenset[str]:
    places = [place for scheme in spec.schemes for place in scheme.signature.places]
    return frozenset(place.name.lower() for place in places if place.where == where)


@lru_cache(maxsize=4096)
def _is_kept(name: str, where: str, read: frozenset[str]) -> bool:
    if where == "header" and _NEVER_HEADER.search(name):
        return False
    if where == "query" and _NEVER_PARAMETER.fullmatch(name):
        return False
    return f"{where}.{name.lower()}" in read or not names_secret(name)


def _kept_headers(source: Source, request: Request) -> dict[str, str]:
    """The headers to store. Secrets are removed from URLs, unless a rule reads the header and needs the original."""
    signatures = _signature_names(source.verify, "header")
    return {
        storable(name): storable(value if f"header.{name}" in source.reads else without_secret_parameters(value))
        for name, value in request.headers.items()
        if name not in signatures and _is_kept(name, "header", source.reads)
    }


def _with_one_id(source: Source, request: Request, header: dict[str, str]) -> dict[str, str]:
    """Headers with a single id: exactly the value that the signature covers, under every name that an id may have.

    Standard Webhooks has two families of header names. A signed request of one family that is replayed with an id of
    the other must not become a new event.
    """
    names = _id_headers(source.verify)
    signed = signed_id(source, request) if names else None
    return header if signed is None else header | dict.fromkeys(names, storable(signed))


@lru_cache(maxsize=1024)
def _id_headers(spec: VerifySpec) -> tuple[str, ...]:
    """The headers that hold a signed id in any of the source's schemes."""
    if any("{id}" not in scheme.signed or scheme.id != spec.id for scheme in spec.schemes):
        return ()
    return tuple(place.name.lower() for place in spec.id if place.where == "header")


def _kept_query(source: Source, request: Request) -> dict[str, str]:
    if not request.query_string:
        return {}
    signatures = _signature_names(source.verify, "query")
    return {
        storable(name): storable(value)
        for name, value in query_of(request).items()
        if name.lower() not in signatures and _is_kept(name, "query", source.reads)
    }
