"""The `verify` stanza → a `VerifySpec`: from the file, the preset that it names, or the provider's preset."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from bridge.model import Path, Place, SignatureSpec, TimestampSpec, VerifySpec
from bridge.rules.language.paths import CompiledPath
from bridge.rules.reading.report import Diagnostics, Fault, Steps, below, numbered
from bridge.rules.reading.schema import KEY_FORMS, VERIFY_TYPES, MappingFile, Preset, Scheme, Texts, Verify
from bridge.text import did_you_mean

CUSTOM: Final = "custom"
_PLACE: Final = re.compile(r"(header|query|body|form):(\S.*)", re.DOTALL)
_SIGNED_PART: Final = re.compile(r"\{([^{}]*)\}")
_URLS: Final = ("url", "other_port_url", "body_hash_url")
_SIGNED: Final = ("body", "id", "timestamp", *_URLS, "method", "path", "secret", "crc32", "sorted_form")
_UNSIGNED_TYPES: Final = ("basic", "token")
_KEY_UNSAID: Final = {"ed25519": "base64", "ecdsa-sha256": "pem", "rsa-sha256": "pem", "rsa-sha1": "pem"}
_SHARED_KEYS: Final = ("text", "whsec", "base64", "hex")
_KEYS: Final = {
    "basic": KEY_FORMS,  # what they compare is the secret itself
    "token": KEY_FORMS,
    "ed25519": ("hex", "whpk", "base64", "pem", "der"),
    "ecdsa-sha256": ("der", "pem"),
    "rsa-sha256": ("pem", "der"),
    "rsa-sha1": ("pem", "der"),
}


def in_preset(report: Diagnostics) -> Fault:
    return lambda where, sentence: report.fault(("provider",), f"its preset has an error at {where}: {sentence}")


def valid_preset(found: Any, report: Diagnostics, where: Steps) -> Preset:
    try:
        return Preset.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        report.fault(where, f"its preset has an error at {first['loc']}: {first['msg']}")
        return Preset.model_validate({})


def compile_verify(file: MappingFile, preset: Preset, presets: Mapping[str, Any], report: Diagnostics) -> VerifySpec:
    written, fault = _written_verify(file, preset, presets, report)
    if written is None or (file.verify is not None and not report.is_sound("verify")):
        return VerifySpec("hmac-sha256")
    spec = _scheme(written, fault)
    return replace(spec, alternatives=tuple(_alternatives(written.or_ or (), below(fault, "or"))))


def _alternatives(written: Sequence[Scheme], fault: Fault) -> Iterable[VerifySpec]:
    for i, scheme in enumerate(written):
        if scheme.type is None:
            fault((i,), f'an entry of "or" needs "type" (one of {", ".join(VERIFY_TYPES)})')
        else:
            yield _scheme(scheme, below(fault, i))


def _scheme(written: Scheme, fault: Fault) -> VerifySpec:
    _one_of(("type",), written.type, VERIFY_TYPES, fault)
    forms = numbered(written.key or _KEY_UNSAID.get(written.type or "", "text"))
    for where, form in forms:
        _one_of(("key", *where), form, KEY_FORMS, fault)
    if written.signature is None and written.type != "basic":
        fault((), f'type {written.type} needs "signature", which says where the signature or token is')
    spec = VerifySpec(
        type=written.type or "",
        key=tuple(form for _, form in forms),
        signature=_signature(written, fault),
        timestamp=_timestamp(written, fault),
        id=read_places(written.id, below(fault, "id")),
        signed=written.signed or "{body}",
    )
    _check_signed(spec, fault)
    _check_key(spec, fault)
    return spec


def id_is_signed(event_id: Sequence[Path], verify: VerifySpec, *, public_url: str | None = None) -> bool:
    """Whether the signature covers where the event's id is: else who replays a body only has to make up another id.

    The bearer of a token or a password vouches for the whole request. Where a signed URL is a fixed one, nothing covers
    the query that was sent.
    """
    return all(_covers(spec, event_id, signs_query=public_url is None) for spec in verify.schemes)


def _covers(spec: VerifySpec, event_id: Sequence[Path], *, signs_query: bool) -> bool:
    """Whether this scheme signs the very value that the envelope takes for the id.

    `{id}` is the first of its places that says anything. The envelope has to read the same places in the same order:
    otherwise a second header with another id would make a new event of an old one.
    """
    if spec.type in _UNSIGNED_TYPES:
        return True
    signed = {name.lower() for name in _SIGNED_PART.findall(spec.signed)}
    ids = [f"{place.where}:{place.name}".lower() for place in spec.id]
    paths = [path for path in event_id if isinstance(path, CompiledPath)]
    places = [f"{path.root}:{'.'.join(path.names)}".lower() for path in paths] or ids
    beside = [place for place in places if place.startswith(("header:", "query:")) and place not in signed]
    beside = [place for place in beside if not (signs_query and "url" in signed and place.startswith("query:"))]
    return not beside or ("id" in signed and beside == ids[: len(beside)])


def signs_its_url(verify: VerifySpec) -> bool:
    return any(not set(_SIGNED_PART.findall(spec.signed)).isdisjoint(_URLS) for spec in verify.schemes)


def _written_verify(
    file: MappingFile, preset: Preset, presets: Mapping[str, Any], report: Diagnostics
) -> tuple[Verify | None, Fault]:
    """The `verify` stanza of the file, of the preset that it names there, or of the provider's preset."""
    base = preset.verify if isinstance(preset.verify, Verify) else None
    if file.verify is None:
        if base is None and file.provider != CUSTOM and report.is_sound("provider"):
            report.fault(("provider",), f'provider {file.provider} has no scheme of its own; describe it in "verify"')
        return base, in_preset(report)
    own = Verify.model_validate({"preset": file.verify}) if isinstance(file.verify, str) else file.verify
    where: Steps = ("verify",) if isinstance(file.verify, str) else ("verify", "preset")
    if own.preset is not None:
        base = _verify_of_preset(own.preset, presets, report, where)
    elif own.type is not None and (own.signature is not None or own.type == "basic"):
        base = None  # said in full
    if base is None and own.type is None and report.is_sound("verify"):
        report.fault(("verify",), f'verify needs "type" (one of {", ".join(VERIFY_TYPES)}) or "preset"')
    return _overlaid(base, own), report.below("verify")


def _verify_of_preset(name: str, presets: Mapping[str, Any], report: Diagnostics, where: Steps) -> Verify | None:
    found = presets.get(name)
    if found is None:
        report.fault(where, f'unknown preset "{name}"{did_you_mean(name, presets)}')
        return None
    verify = valid_preset(found, report, where).verify
    return verify if isinstance(verify, Verify) else None


def _overlaid(base: Verify | None, own: Verify) -> Verify:
    """`own` over `base`: key by key, also within signature and timestamp."""
    if base is None:
        return own
    written = base.model_dump(exclude_unset=True, by_alias=True)
    for key, value in own.model_dump(exclude_unset=True, by_alias=True).items():
        written[key] = {**written.get(key, {}), **value} if isinstance(value, dict) else value
    return Verify.model_validate(written)


def _one_of(where: Steps, value: str | None, allowed: tuple[str, ...], fault: Fault) -> None:
    if value is not None and value not in allowed:
        fault(where, f'unknown {where[0]} "{value}"{did_you_mean(value, allowed)}')


def _signature(written: Scheme, fault: Fault) -> SignatureSpec:
    if written.signature is None:
        return SignatureSpec(())
    if not numbered(written.signature.in_):
        fault(("signature",), 'signature needs "in"')
    places = read_places(written.signature.in_, below(fault, "signature", "in"))
    return SignatureSpec(places, written.signature.split, written.signature.prefix, written.signature.encoding)


def _timestamp(written: Scheme, fault: Fault) -> TimestampSpec | None:
    stamp = written.timestamp
    if stamp is None:
        return None
    if not numbered(stamp.in_):
        fault(("timestamp",), 'timestamp needs "in"')
    places = () if stamp.in_ == "signature" else read_places(stamp.in_, below(fault, "timestamp", "in"))
    return TimestampSpec(places, stamp.prefix, stamp.tolerance, stamp.form)


def read_places(texts: Texts | None, fault: Fault) -> tuple[Place, ...]:
    """The places that these strings name: `header:X`, `query:x`, `body:a.b`, `form:x`."""
    places = []
    for where, text in numbered(texts):
        match = _PLACE.fullmatch(text.strip())
        if match is None:
            fault(where, f'"{text}" is not a valid place; write header:Name, query:name, body:a.b or form:name')
        else:
            places.append(Place(match[1], match[2].strip()))
    return tuple(places)


def _check_key(spec: VerifySpec, fault: Fault) -> None:
    """A form of key that no secret can have for this type of signature would refuse whatever comes."""
    allowed = _KEYS.get(spec.type, _SHARED_KEYS)
    for form in spec.key:
        if spec.type in VERIFY_TYPES and form in KEY_FORMS and form not in allowed:
            fault(("key",), f'type {spec.type} takes the key {" or ".join(allowed)}, not "{form}"')


def _check_signed(spec: VerifySpec, fault: Fault) -> None:
    names = _SIGNED_PART.findall(spec.signed)
    if spec.type == "sha256" and "secret" not in names:
        fault(("signed",), 'type sha256 has no key, so "signed" must hold {secret}: without it anyone could sign')
    elif spec.type not in _UNSIGNED_TYPES and not set(names) - {"secret"}:
        fault(("signed",), '"signed" names nothing of the request, such as {body}')
    for name in names:
        if name not in _SIGNED and not _PLACE.fullmatch(name):
            fault(("signed",), f'"signed" names {{{name}}}{did_you_mean(name, _SIGNED)}')
    for name, there in (("timestamp", spec.timestamp is not None), ("id", bool(spec.id))):
        if f"{{{name}}}" in spec.signed and not there:
            fault(("signed",), f'"signed" names {{{name}}}, but verify does not say where the {name} is')
