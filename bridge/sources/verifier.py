"""One verifier for every sender: a `VerifySpec` says where the signature is and what it covers; this module checks it.

Law 3: whatever bytes and header strings arrive, `verify` returns or raises `SignatureError`, in bounded time; a source
without a usable secret never verifies. Signed bytes are never decoded before they are hashed; decoded signatures are
compared in constant time; at most `MAX_CANDIDATES` are tried. The reasons are for the log, never for the sender.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from bridge.errors import SignatureError
from bridge.model import UNSIGNED_TYPES, Document, Place
from bridge.sources.envelope import ms_of
from bridge.sources.facts import Facts, SignedText, as_bytes, compile_signed
from bridge.sources.keys import PUBLIC_TYPES, from_base64, from_hex, public_key_verifier, symmetric
from bridge.text import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.model import Request, Source, VerifySpec

    Check = Callable[[list[str], bytes], bool]  # (candidates as sent, signed bytes) → authentic?
    Decode = Callable[[str], bytes]

Key = TypeVar("Key")

MAX_CANDIDATES: Final = 16
_MAX_ELEMENTS: Final = 64
_AUTHORIZATION: Final = Place("header", "authorization")

_STAMPS: Final = {
    "seconds": re.compile(r"[0-9]{10}", re.ASCII),
    "milliseconds": re.compile(r"[0-9]{13}", re.ASCII),
    "iso": re.compile(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
    ),
}

# MD5 is broken as a hash, but no forgery of HMAC-MD5 is known (RFC 6151). For senders that offer nothing else.
HMACS: Final = {f"hmac-{name}": name for name in ("md5", "sha1", "sha256", "sha384", "sha512")}
ENCODINGS: Final = {"hex": from_hex, "base64": from_base64}


@dataclass(frozen=True, slots=True)
class _Scheme:
    """A source's `verify` stanza with its secrets, ready for use. Without any check, nothing verifies."""

    template: SignedText | None
    checks: tuple[tuple[Check, bytes, int], ...]  # each with its secret (some templates sign it) and its number
    problems: tuple[str, ...]


class Verified(NamedTuple):
    """How a request was authenticated. secret: the number of the secret that matched, from 1.

    age_ms: the age of the signed timestamp on arrival; None if the scheme has none.
    """

    scheme: str
    secret: int
    age_ms: int | None = None


def verify(source: Source, request: Request, now_s: float) -> Verified:
    """Authenticate a request and return how it was done. Raises SignatureError, and nothing else."""
    facts = Facts(source, request)
    verified = _verify_any(source, facts, now_s)
    if source.require:
        _check_requirements(source, facts)
    return verified


def problems(source: Source) -> tuple[str, ...]:
    """What makes this source's `verify` stanza or secrets unusable, one sentence each; for `check` and at start-up."""
    found = [problem for spec in source.verify.schemes for problem in _compile(spec, source.secrets).problems]
    return tuple(dict.fromkeys(found))


def can_verify(source: Source) -> bool:
    """Whether the source has a secret with which a request can be verified."""
    return any(_compile(spec, source.secrets).checks for spec in source.verify.schemes)


def _verify_any(source: Source, facts: Facts, now_s: float) -> Verified:
    """Try every scheme of the sender. If all fail, the reason comes from a scheme that the request uses."""
    failure: SignatureError | None = None
    for spec in source.verify.schemes:
        try:
            return _verify_by(spec, source.secrets, facts, now_s)
        except SignatureError as error:
            if failure is None or isinstance(failure, _Unsigned):
                failure = error
    assert failure is not None
    raise failure


def _verify_by(spec: VerifySpec, secrets: tuple[str, ...], facts: Facts, now_s: float) -> Verified:
    scheme = _compile(spec, secrets)
    if not scheme.checks:
        raise SignatureError("; ".join(scheme.problems) or "the source has no usable secret")
    elements = _elements(spec, facts)
    candidates = _candidates(spec, elements)
    timestamp, age_ms = _fresh_timestamp(spec, facts, elements, now_s) if spec.timestamp else (None, None)
    is_bare = scheme.template is not None and scheme.template.has_bare_timestamp
    if spec.timestamp and timestamp and (spec.timestamp.form or is_bare):
        _check_timestamp_form(spec.timestamp.form, timestamp)
    if spec.type == "sha256" and facts.request.body:
        _refuse_length_extension(facts)
    secret = _matching(scheme, spec, facts, candidates, timestamp)
    if secret is None:
        raise SignatureError("no signature matches")
    return Verified(spec.type, secret, age_ms)


class _Unsigned(SignatureError):
    """The request contains nothing that this scheme can check."""


# ------------------------------------------------------------------------------------------- what the request contains


def _elements(spec: VerifySpec, facts: Facts) -> list[str]:
    """The strings that may be signatures (or the timestamp next to them), without stray spaces.

    Supabase separates signatures with ", ", every other sender with a space.
    """
    split = spec.signature.split
    elements: list[str] = []
    for place in spec.signature.places or (_AUTHORIZATION,):
        text = facts.text(place)
        if text is None:
            continue
        if split:
            found = [element.strip() for element in text.split(split, _MAX_ELEMENTS)]
            elements += [element.removesuffix(",") for element in found] if split == " " else found
        else:
            elements.append(text.strip())
    if not elements:
        raise _Unsigned("the request carries no signature")
    return elements


def _candidates(spec: VerifySpec, elements: list[str]) -> list[str]:
    prefix, stamp = spec.signature.prefix, spec.timestamp
    if stamp and not stamp.places and not stamp.prefix:
        elements = elements[1:]  # the first is the timestamp
    if spec.type in UNSIGNED_TYPES:  # the scheme of an Authorization header is case-insensitive (RFC 9110)
        prefix = (prefix or ("Basic " if spec.type == "basic" else "")).lower()
        found = [element[len(prefix) :].strip() for element in elements if element.lower().startswith(prefix)]
    else:
        found = [element[len(prefix) :] for element in elements if element.startswith(prefix)]
    found = [candidate for candidate in found if candidate]
    if not found:
        raise _Unsigned("the request carries no signature of the expected form")
    if len(found) > MAX_CANDIDATES:
        raise SignatureError(f"the request carries more than {MAX_CANDIDATES} signatures")
    return found


def _fresh_timestamp(spec: VerifySpec, facts: Facts, elements: list[str], now_s: float) -> tuple[str, int]:
    """The timestamp as signed, and its age in ms."""
    assert spec.timestamp is not None
    text = _timestamp(spec, facts, elements)
    stated_ms = ms_of(text)
    if stated_ms is None:
        raise SignatureError("the timestamp is not a valid time")
    age_s = now_s - stated_ms / 1000
    if not abs(age_s) <= spec.timestamp.tolerance_s:
        when = "old" if age_s > 0 else "in the future"
        raise SignatureError(
            f"the timestamp is {abs(age_s):.0f} s {when}, at most {spec.timestamp.tolerance_s} s are allowed"
        )
    return text, int(now_s * 1000) - stated_ms


def _timestamp(spec: VerifySpec, facts: Facts, elements: list[str]) -> str:
    stamp = spec.timestamp
    assert stamp is not None
    if stamp.places:
        text = facts.first(stamp.places)
        if not text:
            raise SignatureError("the timestamp is missing")
        return text
    if not stamp.prefix:
        return elements[0]
    found = [element[len(stamp.prefix) :] for element in elements if element.startswith(stamp.prefix)]
    if len(found) != 1:
        raise SignatureError("the timestamp is missing" if not found else "the timestamp is repeated")
    return found[0]


def _check_timestamp_form(form: str | None, timestamp: str) -> None:
    """If nothing separates the timestamp from the body, its own form must show where it ends.

    Otherwise its last digits could be moved into the body, or the body's first digits into it, under the same
    signature.
    """
    if not any(_STAMPS[name].fullmatch(timestamp) for name in ((form,) if form else _STAMPS)):
        raise SignatureError("the timestamp is not of the exact form that this scheme needs")


def _refuse_length_extension(facts: Facts) -> None:
    """Refuse a body that a length-extension attack could have made.

    Without a key, anyone who has seen one hash can compute the hash of the same body with more bytes after it.

    The padding between them (0x80, zeros, a length) occurs in no document, so a body that is not a document is refused.
    """
    body = facts.request.body
    try:
        body.decode()
    except UnicodeDecodeError:
        raise SignatureError("the body is not UTF-8, so an unkeyed hash says nothing of it") from None
    if b"\0" in body:
        raise SignatureError("the body holds a NUL byte, so an unkeyed hash says nothing of it")
    facts.body()


def _matching(
    scheme: _Scheme, spec: VerifySpec, facts: Facts, candidates: list[str], timestamp: str | None
) -> int | None:
    """The number of the secret for which one of the candidates is valid."""
    event_id = facts.first(spec.id) if scheme.template is not None and scheme.template.uses_id else None
    message = b""
    for index, (check, secret, number) in enumerate(scheme.checks):
        template = scheme.template
        if template is not None and (index == 0 or template.uses_secret):
            message = template.render(facts, timestamp=timestamp, event_id=event_id, secret=secret)
        if check(candidates, message):
            return number
    return None


def _check_requirements(source: Source, facts: Facts) -> None:
    """Check `require:`, which is part of authentication: values that only the right sender (or account) would send."""
    body = facts.body()
    document = Document(body=body, header=facts.request.headers, query=facts.query(), root=body)
    for requirement in source.require:
        stated = text_of(requirement.path.read(document))
        given = (stated or "").strip().encode("utf-8", "surrogatepass")
        allowed = [text.strip().encode("utf-8", "surrogatepass") for text in requirement.expected]
        if not given or not any(hmac.compare_digest(given, text) for text in allowed if text):
            raise SignatureError(f"`require` is not met: {requirement.path.text} has another value")


# ------------------------------------------------------------------------------------------- what the source prescribes


@lru_cache(maxsize=256)
def _compile(spec: VerifySpec, secrets: tuple[str, ...]) -> _Scheme:
    found: list[str] = []
    template = None
    if not spec.signature.places and spec.type != "basic":
        found.append("`signature` must say where the signature is: `in: header:X-Signature`")
    if spec.type not in UNSIGNED_TYPES:
        try:
            template = compile_signed(spec.signed)
        except ValueError as error:
            found.append(str(error))
        if spec.type == "sha256" and template is not None and not template.uses_secret:
            found.append("`type: sha256` has no key, so `signed` must hold {secret}: without it anyone could sign")
    if found:
        return _Scheme(None, (), tuple(found))
    checks = []
    for number, secret in enumerate(secrets, 1):
        try:
            given = secret.strip().encode("utf-8", "surrogatepass")
            checks += [(check, given, number) for check in _checks(spec, secret)]
        except ValueError as error:
            found.append(f"secret {number} of {len(secrets)} is unusable: {error}")
    return _Scheme(template, tuple(checks), tuple(found))


def _checks(spec: VerifySpec, secret: str) -> list[Check]:
    """The checks for one secret, one per form of its key. Raises ValueError with a sentence if it has none."""
    decode = ENCODINGS[spec.signature.encoding]
    if spec.type == "token":
        return [_token_check(symmetric("text", secret))]
    if spec.type == "basic":
        if not secret.strip().strip(":"):
            raise ValueError("the secret is empty; it is written user:password")
        return [_basic_check(symmetric("text", secret))]
    if spec.type in PUBLIC_TYPES:
        verifiers = _forms(spec.key, lambda form: public_key_verifier(spec.type, form, secret))
        return [_public_key_check(verifies, decode) for verifies in verifiers]
    keys = dict.fromkeys(_forms(spec.key, lambda form: symmetric(form, secret)))  # two forms may yield the same key
    if spec.type == "sha256":
        return [_digest_check(lambda message: hashlib.sha256(message).digest(), decode)]
    return [_digest_check(partial(hmac.digest, key, digest=HMACS[spec.type]), decode) for key in keys]


def _forms(forms: tuple[str, ...], read: Callable[[str], Key]) -> list[Key]:
    """The keys in a secret, one per form that fits. Raises the error of the first form if none fits."""
    found, problems = [], []
    for form in forms:
        try:
            found.append(read(form))
        except ValueError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    return found


def _decoded(candidates: list[str], decode: Decode) -> list[bytes]:
    """The candidates that can be decoded; a bad one next to a good one is ignored (Paddle's own vector has one)."""
    found = []
    for candidate in candidates:
        try:
            found.append(decode(candidate))
        except ValueError:
            continue
    return found


def _digest_check(digest: Callable[[bytes], bytes], decode: Decode) -> Check:
    def check(candidates: list[str], message: bytes) -> bool:
        given = _decoded(candidates, decode)
        if not given:
            return False
        expected = digest(message)
        return any(hmac.compare_digest(signature, expected) for signature in given)

    return check


def _public_key_check(verifies: Callable[[bytes, bytes], bool], decode: Decode) -> Check:
    return lambda candidates, message: any(verifies(signature, message) for signature in _decoded(candidates, decode))


def _token_check(token: bytes) -> Check:
    def check(candidates: list[str], _: bytes) -> bool:
        # Header strings are the received bytes as Latin-1; query and body strings are decoded UTF-8.
        given = [form for text in candidates for form in (as_bytes(text), text.encode("utf-8", "surrogatepass"))]
        return any(hmac.compare_digest(form, token) for form in given)

    return check


def _basic_check(user_and_password: bytes) -> Check:
    return lambda candidates, _: any(
        hmac.compare_digest(pair, user_and_password) for pair in _decoded(candidates, from_base64)
    )
