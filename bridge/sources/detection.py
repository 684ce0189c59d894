"""Which scheme signed this request? Found by trying everything that `verify` can express, with the secret at hand.

For a person at a terminal, never for an answer to a sender. A scheme counts as found only if the verifier itself then
accepts the request; how old the request is does not matter here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import TYPE_CHECKING, Final

from bridge.errors import SignatureError
from bridge.model import SHARED_KEY_FORMS, BodyForm, Place, SignatureSpec, Source, TimestampSpec, VerifySpec
from bridge.sources.envelope import ms_of
from bridge.sources.facts import Facts, compile_signed
from bridge.sources.keys import symmetric
from bridge.sources.verifier import ENCODINGS, HMACS, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bridge.model import Json, Request

_HASH_BY_SIZE: Final = {hashlib.new(name).digest_size: name for name in HMACS.values()}
_SHORTEST, _LONGEST = 22, 128  # MD5 in base64, SHA-512 in hex
_LISTS: Final = {"v1,": " "}  # Standard Webhooks: several while a secret is rotated
_SPLITS: Final = (None, ",", ";", " ")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,19}[=,:] ?|[A-Za-z][A-Za-z0-9-]{0,19} ")
_TIME: Final = re.compile(r"[0-9]{10}|[0-9]{13}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(Z|[+-][0-9:]{5})")
_ID: Final = re.compile(r"(.*[-_.])?(id|uuid|nonce|token|key|delivery)", re.IGNORECASE)
_LEAVES_MAX: Final = 200
_DEPTH_MAX: Final = 3
_TRIED_MAX: Final = 6  # timestamps, or ids
_TIMELESS_S: Final = 10**12
_PLAIN: Final = (
    "{body}", "{url}{body}", "{method}{url}{body}", "{url}", "{body}{url}", "{path}{body}", "{method}{path}{body}",
    "{url}{sorted_form}", "{other_port_url}{sorted_form}", "{body_hash_url}", "{url}.{body}",
)  # fmt: skip
_UNKEYED: Final = ("{secret}{body}", "{body}{secret}", "{secret}{method}{url}{body}", "{secret}{url}{body}")
_WITH_TIME: Final = (
    *(f"{{timestamp}}{mark}{{body}}" for mark in (".", ":", "", "\n", "|", "_", "-", " ")),
    *(f"{{body}}{mark}{{timestamp}}" for mark in ("", ".", ":", "\n", "|", "_", "-", " ")),
    "v0:{timestamp}:{body}", "v1:{timestamp}:{body}", "v1.{timestamp}.{body}", "{method}{url}{body}{timestamp}",
    "{timestamp}{method}{path}{body}", "{timestamp}{url}{body}", "{timestamp}.{url}.{body}",
    "{timestamp}.{method}.{path}.{body}", "{url}{timestamp}{body}", "{method}\n{path}\n{timestamp}\n{body}",
    "{timestamp}\n{method}\n{path}\n{body}", "{method}{path}{timestamp}{body}", "{timestamp}.{path}.{body}",
)  # fmt: skip
_WITH_ID_AND_TIME: Final = (
    "{id}.{timestamp}.{body}", "{timestamp}.{id}.{body}", "{id}{timestamp}{body}", "{timestamp}{id}{body}",
    "{id}:{timestamp}:{body}", "{id}|{timestamp}|{body}", "{timestamp}{id}", "{id}{timestamp}", "{timestamp}.{id}",
)  # fmt: skip
# For headers that name the event's type: {id} becomes {header:…}, because a type is not an id.
_WITH_EVENT_TYPE: Final = (
    "{id}.{timestamp}.{body}", "{timestamp}.{id}.{body}", "{timestamp}{id}{body}", "{id}{timestamp}{body}",
)  # fmt: skip
_EVENT_TYPE: Final = re.compile(r"(.*[-_.])?(event|event-type|topic|type)", re.IGNORECASE)
_WITH_ID: Final = ("{id}.{body}", "{id}{body}", "{id}:{body}", "{body}{id}")


@dataclass(frozen=True, slots=True)
class LocatedString:
    """The place of a string in the request, and how to extract it from what surrounds it."""

    place: Place
    split: str | None
    prefix: str
    text: str
    first: bool  # whether it is the first of the elements there


def fits(source: Source, request: Request) -> bool:
    """Whether the request passes this source's verification, regardless of its age."""
    return verifies(timeless(source), request)


def timeless(source: Source) -> Source:
    """A copy of the source that accepts requests of any age."""
    return replace(source, verify=_timeless(source.verify), require=())


def verifies(source: Source, request: Request) -> bool:
    """Whether the request passes the verification of a `timeless` source."""
    try:
        verify(source, request, 0)
    except SignatureError:
        return False
    return True


def detect(request: Request, secret: str) -> VerifySpec | None:
    """The scheme with which this secret signed the request, in the terms of `verify`; None if it cannot be found."""
    facts = Facts(plain_source(request, VerifySpec("token"), secret), request)
    for strings in (list(_outside_body(facts)), [*_outside_body(facts), *_in_body(facts)]):  # a body may be large
        for spec in chain(_tokens(strings, secret), _hmacs(facts, strings, secret)):
            if fits(plain_source(request, spec, secret), request):
                return spec
    return None


def one_change(source: Source, request: Request, found: VerifySpec | None) -> tuple[str, VerifySpec] | None:
    """The name of the one wrong setting in the source's scheme, and the scheme with it corrected.

    found: the result of `detect`, whose values are tried first.
    """
    facts = Facts(source, request)
    strings = [*_outside_body(facts), *_in_body(facts)]
    specs = [*_with_one_setting_of(source.verify, found), *_with_another_value(source.verify, strings)]
    return next(((name, spec) for name, spec in specs if fits(replace(source, verify=spec), request)), None)


def signatures(request: Request, secret: str) -> list[tuple[str, str]]:
    """Whatever looks like a signature in the request: where it is, and of which hash."""
    facts = Facts(plain_source(request, VerifySpec("token"), secret), request)
    sizes = [
        (f"{string.place.where}:{string.place.name}", name)
        for string in _outside_body(facts)
        for _encoding, digest in _digests(string.text)[:1]  # the hex digits of one hash are the base64 of another
        if (name := _HASH_BY_SIZE.get(len(digest)))
    ]
    return list(dict.fromkeys(sizes))


# --------------------------------------------------------------------------------------- what the request holds


def plain_source(request: Request, spec: VerifySpec, secret: str) -> Source:
    """A source with this scheme that parses the body by the request's content type."""
    is_form = "x-www-form-urlencoded" in request.headers.get("content-type", "")
    return Source("custom", "custom", spec, (secret,), body=BodyForm.FORM if is_form else BodyForm.JSON)


def _timeless(spec: VerifySpec) -> VerifySpec:
    stamp = replace(spec.timestamp, tolerance_s=_TIMELESS_S) if spec.timestamp else None
    return replace(spec, timestamp=stamp, alternatives=tuple(map(_timeless, spec.alternatives)))


def _outside_body(facts: Facts) -> Iterator[LocatedString]:
    """Every string in headers, query and form: whole and split into elements, with and without the elements' names."""
    places = [(Place("header", name), text) for name, text in facts.request.headers.items()]
    places += [(Place("query", name), text) for name, text in facts.query().items()]
    if facts.source.body is BodyForm.FORM:
        with suppress(SignatureError):
            places += [(Place("form", name), text) for name, text in facts.form()]
    for place, text in places:
        for split in _SPLITS:
            if split is not None and split not in text:
                continue
            elements = [text] if split is None else text.split(split)
            for number, element in enumerate(elements):
                stripped = element.strip()
                yield LocatedString(place, split, "", stripped, number == 0)
                if name := _NAME.match(stripped):
                    yield LocatedString(place, split, name[0], stripped[name.end() :], number == 0)


def _in_body(facts: Facts) -> Iterator[LocatedString]:
    if facts.source.body is BodyForm.FORM:
        return
    with suppress(SignatureError):
        for path, text in _leaves(facts.body(), "", _DEPTH_MAX):
            yield LocatedString(Place("body", path), None, "", text, first=True)


def _leaves(value: Json, path: str, depth: int) -> list[tuple[str, str]]:
    """The strings and whole numbers of a document by their path, limited in depth and number."""
    found: list[tuple[str, str]] = []
    for name, below in value.items() if isinstance(value, dict) else ():
        if isinstance(below, dict) and depth > 1:
            found += _leaves(below, f"{path}{name}.", depth - 1)
        elif isinstance(below, str) or (isinstance(below, int) and not isinstance(below, bool)):
            found.append((f"{path}{name}", str(below)))
        if len(found) >= _LEAVES_MAX:
            break
    return found


def _digests(text: str) -> list[tuple[str, bytes]]:
    """The digests that a string may encode: the encoding, and the bytes."""
    found: list[tuple[str, bytes]] = []
    if not _SHORTEST <= len(text) <= _LONGEST:
        return found
    for encoding, decode in ENCODINGS.items():
        try:
            decoded = decode(text)
        except ValueError:
            continue
        if len(decoded) in _HASH_BY_SIZE:
            found.append((encoding, decoded))
    return found


# ------------------------------------------------------------------------------------------------ what is tried


def _tokens(strings: list[LocatedString], secret: str) -> Iterator[VerifySpec]:
    token = secret.strip()
    for string in strings:
        if string.split is None and string.text == token:
            yield VerifySpec("token", signature=SignatureSpec((string.place,), None, string.prefix))
    yield VerifySpec("basic")


def _hmacs(facts: Facts, strings: list[LocatedString], secret: str) -> Iterator[VerifySpec]:
    by_digest: dict[bytes, list[tuple[LocatedString, str]]] = {}
    for string in strings:
        for encoding, digest in _digests(string.text):
            by_digest.setdefault(digest, []).append((string, encoding))
    hashes = {_HASH_BY_SIZE[len(digest)] for digest in by_digest}
    keys = _keys(secret)
    for template, stamp, event_id, message in _messages(facts, strings, secret):
        for form, key in keys:
            for name in hashes:
                for signature, encoding in by_digest.get(hmac.digest(key, message, name), ()):
                    yield _spec(f"hmac-{name}", form, signature, encoding, stamp, event_id, template)
        unkeyed = by_digest.get(hashlib.sha256(message).digest(), ()) if "{secret}" in template else ()
        for signature, encoding in unkeyed:
            yield _spec("sha256", "text", signature, encoding, stamp, event_id, template)


def _keys(secret: str) -> list[tuple[str, bytes]]:
    """The secret as a key, in every form it can take; two forms may yield the same key."""
    found: dict[bytes, str] = {}
    for form in SHARED_KEY_FORMS:
        try:
            found.setdefault(symmetric(form, secret), form)
        except ValueError:
            continue
    return [(form, key) for key, form in found.items()]


def _messages(
    facts: Facts, strings: list[LocatedString], secret: str
) -> Iterator[tuple[str, LocatedString | None, LocatedString | None, bytes]]:
    """What may have been signed: the template, its timestamp and id, and the bytes. Common ones come first."""
    stamps = _distinct(string for string in strings if _TIME.fullmatch(string.text) and ms_of(string.text) is not None)
    whole = [string for string in strings if string.split is None and not string.prefix]
    ids = _distinct(string for string in whole if _ID.fullmatch(string.place.name))
    types = [string for string in whole if _names_event_type(string)][:_TRIED_MAX]
    tried = (
        *product(_PLAIN, (None,), (None,)),
        *product(_WITH_TIME, stamps, (None,)),
        *product(_WITH_ID_AND_TIME, stamps, ids),
        *product(_WITH_ID, (None,), ids),
        *product(_WITH_EVENT_TYPE, stamps, types),
        *product(_UNKEYED, (None,), (None,)),
    )
    for written, stamp, event_id in tried:
        template, key = written, secret.strip().encode("utf-8", "surrogatepass")
        if event_id is not None and (event_id.place.where != "header" or _names_event_type(event_id)):
            template = written.replace("{id}", f"{{{event_id.place.where}:{event_id.place.name}}}")
        try:
            message = compile_signed(template).render(
                facts,
                timestamp=stamp.text if stamp else None,
                event_id=event_id.text if event_id else None,
                secret=key,
            )
        except (SignatureError, ValueError):
            continue
        yield template, stamp, event_id, message


def _names_event_type(string: LocatedString) -> bool:
    where, name = string.place.where, string.place.name
    return where == "header" and name != "content-type" and _EVENT_TYPE.fullmatch(name) is not None


def _distinct(found: Iterable[LocatedString]) -> list[LocatedString]:
    """The first few distinct strings. Those from headers are more likely than those from the body."""
    order = sorted(found, key=lambda string: (string.place.where == "body", bool(_NAME.match(string.text))))
    return list({string.text: string for string in reversed(order)}.values())[::-1][:_TRIED_MAX]


def _spec(
    kind: str,
    form: str,
    signature: LocatedString,
    encoding: str,
    stamp: LocatedString | None,
    event_id: LocatedString | None,
    template: str,
) -> VerifySpec:
    timestamp = None
    if stamp is not None:
        is_same_place = stamp.place == signature.place and stamp.split == signature.split
        is_element = is_same_place and (stamp.prefix or stamp.first)
        timestamp = TimestampSpec((), stamp.prefix) if is_element else TimestampSpec((stamp.place,))
    return VerifySpec(
        kind,
        (form,),
        SignatureSpec((signature.place,), signature.split or _LISTS.get(signature.prefix), signature.prefix, encoding),
        timestamp,
        (event_id.place,) if event_id is not None and "{id}" in template else (),
        template,
    )


# --------------------------------------------------------------------------------------------- one wrong setting


def _with_one_setting_of(spec: VerifySpec, found: VerifySpec | None) -> Iterator[tuple[str, VerifySpec]]:
    """The scheme with one setting taken from another scheme."""
    if found is None:
        return
    yield "type", replace(spec, type=found.type)
    yield "key", replace(spec, key=found.key)
    for name in ("encoding", "prefix", "split", "places"):
        signature = replace(spec.signature, **{name: getattr(found.signature, name)})
        yield f"signature.{'in' if name == 'places' else name}", replace(spec, signature=signature)
    if spec.timestamp is not None and found.timestamp is not None:
        yield "timestamp.in", replace(spec, timestamp=replace(spec.timestamp, places=found.timestamp.places))
        yield "timestamp.prefix", replace(spec, timestamp=replace(spec.timestamp, prefix=found.timestamp.prefix))
    yield "timestamp", replace(spec, timestamp=found.timestamp)
    yield "id", replace(spec, id=found.id)
    yield "signed", replace(spec, signed=found.signed)


def _with_another_value(spec: VerifySpec, strings: list[LocatedString]) -> Iterator[tuple[str, VerifySpec]]:
    """The scheme with a different value for one setting, for schemes with an uncommon template."""
    for kind in HMACS:
        yield "type", replace(spec, type=kind)
    for form in SHARED_KEY_FORMS:
        yield "key", replace(spec, key=(form,))
    for encoding in ENCODINGS:
        yield "signature.encoding", replace(spec, signature=replace(spec.signature, encoding=encoding))
    for split in _SPLITS:
        yield "signature.split", replace(spec, signature=replace(spec.signature, split=split))
    likely = [string for string in strings if _digests(string.text)]
    for prefix in dict.fromkeys(string.prefix for string in likely):
        yield "signature.prefix", replace(spec, signature=replace(spec.signature, prefix=prefix))
    for place in dict.fromkeys(string.place for string in likely):
        yield "signature.in", replace(spec, signature=replace(spec.signature, places=(place,)))
    if spec.timestamp is not None:
        times = [string for string in strings if _TIME.fullmatch(string.text)]
        for place in dict.fromkeys(string.place for string in times):
            yield "timestamp.in", replace(spec, timestamp=replace(spec.timestamp, places=(place,)))
        for prefix in dict.fromkeys(string.prefix for string in times):
            yield "timestamp.prefix", replace(spec, timestamp=replace(spec.timestamp, prefix=prefix))
