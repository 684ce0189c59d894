"""How a sender proves itself and sets up its webhook: `verify:` → a `VerifySpec`, `handshake:` → `Handshake` values.

A scheme is that of the file, of the preset that it names, or of the provider's preset. All handshakes of a preset
count, but only the echoes of a `custom` file. A handshake that computes with the secret, or keeps what it is sent, is
reviewed once, with its preset: a mapping file cannot make the bridge sign what anyone asks for. Two sources with the
same secret are kept apart here, too (`forbidden_to_compute`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from bridge.model import (
    KEY_FORMS,
    SHARED_KEY_FORMS,
    UNSIGNED_TYPES,
    VERIFY_TYPES,
    BodyForm,
    Handshake,
    Path,
    Place,
    ReplyKind,
    SignatureSpec,
    Source,
    TimestampSpec,
    VerifySpec,
)
from bridge.rules.language.paths import CompiledPath
from bridge.rules.reading.report import Diagnostics, Reporter, Steps, below, listed, numbered
from bridge.rules.reading.schema import MappingFile, Preset, Scheme, Texts, Verify
from bridge.rules.reading.secrets import is_secret
from bridge.rules.reading.strict_yaml import KEY
from bridge.text import did_you_mean, text_of

if TYPE_CHECKING:
    from bridge.rules.reading.schema import HandshakeStanza, Scalars

CUSTOM: Final = "custom"
_PLACE: Final = re.compile(r"(header|query|body|form):(\S.*)", re.DOTALL)
_PART: Final = re.compile(r"\{([^{}]*)\}")
_URLS: Final = ("url", "other_port_url", "body_hash_url")
_SIGNED: Final = ("body", "id", "timestamp", *_URLS, "method", "path", "secret", "crc32", "sorted_form")
_DEFAULT_KEYS: Final = {"ed25519": "base64", "ecdsa-sha256": "pem", "rsa-sha256": "pem", "rsa-sha1": "pem"}
_ALLOWED_KEYS: Final = {
    **dict.fromkeys(UNSIGNED_TYPES, KEY_FORMS),
    "ed25519": ("hex", "whpk", "base64", "pem", "der"),
    "ecdsa-sha256": ("der", "pem"),
    "rsa-sha256": ("pem", "der"),
    "rsa-sha1": ("pem", "der"),
}
METHODS: Final = ("GET", "HEAD", "POST")
ECHO_ONLY: Final = (
    "the handshake of a custom sender can only echo a value of the request (echo: query:challenge): "
    "one that computes with the secret, keeps a value or answers nothing belongs to a preset"
)
OF_THE_PRESET: Final = 'the handshake of this provider belongs to its preset; "handshake" is for provider: custom'
_TOKEN_LITERALS: Final = re.compile(r"[A-Za-z0-9_-]*")


def in_preset(report: Diagnostics) -> Reporter:
    """A `Reporter` for the preset's own stanzas: the place in the file is `provider:`."""
    return lambda where, sentence: report.problem(("provider",), f"its preset has an error at {where}: {sentence}")


def valid_preset(found: Any, report: Diagnostics, where: Steps) -> Preset:
    """The preset as its schema reads it; an empty one if it is invalid, with an error at `where`."""
    try:
        return Preset.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        report.problem(where, f"its preset has an error at {first['loc']}: {first['msg']}")
        return Preset.model_validate({})


def compile_verify(file: MappingFile, preset: Preset, presets: Mapping[str, Any], report: Diagnostics) -> VerifySpec:
    """Compile `verify:`. Errors go to the report; the result may be used only if there are none."""
    written, problem = _written_verify(file, preset, presets, report)
    if written is None or (file.verify is not None and not report.is_sound("verify")):
        return VerifySpec("hmac-sha256")
    spec = _scheme(written, problem)
    return replace(spec, alternatives=tuple(_alternatives(written.or_ or (), below(problem, "or"))))


def _alternatives(written: Sequence[Scheme], problem: Reporter) -> Iterable[VerifySpec]:
    for i, scheme in enumerate(written):
        if scheme.type is None:
            problem((i,), f'an entry of "or" needs "type" (one of {", ".join(VERIFY_TYPES)})')
        else:
            yield _scheme(scheme, below(problem, i))


def _scheme(written: Scheme, problem: Reporter) -> VerifySpec:
    _check_choice(("type",), written.type, VERIFY_TYPES, problem)
    forms = numbered(written.key or _DEFAULT_KEYS.get(written.type or "", "text"))
    for where, form in forms:
        _check_choice(("key", *where), form, KEY_FORMS, problem)
    if written.signature is None and written.type != "basic":
        problem((), f'type {written.type} needs "signature", which says where the signature or token is')
    spec = VerifySpec(
        type=written.type or "",
        key=tuple(form for _, form in forms),
        signature=_signature(written, problem),
        timestamp=_timestamp(written, problem),
        id=read_places(written.id, below(problem, "id")),
        signed=written.signed or "{body}",
    )
    _check_signed(spec, problem)
    _check_key(spec, problem)
    return spec


def id_is_signed(event_id: Sequence[Path], verify: VerifySpec, *, public_url: str | None = None) -> bool:
    """Whether the signature covers the event's id: otherwise anyone could replay a body by making up another id.

    The bearer of a token or a password vouches for the whole request. If a signed URL is a fixed one, nothing covers
    the query that was sent.
    """
    return all(_covers(spec, event_id, signs_query=public_url is None) for spec in verify.schemes)


def _covers(spec: VerifySpec, event_id: Sequence[Path], *, signs_query: bool) -> bool:
    """Whether this scheme signs exactly the value that the envelope takes for the id.

    `{id}` is the first of its places with a value. The envelope must read the same places in the same order: otherwise
    a second header with another id would turn an old event into a new one.
    """
    if spec.type in UNSIGNED_TYPES:
        return True
    signed = {name.lower() for name in _PART.findall(spec.signed)}
    ids = [f"{place.where}:{place.name}".lower() for place in spec.id]
    paths = [path for path in event_id if isinstance(path, CompiledPath)]
    places = [f"{path.root}:{'.'.join(path.names)}".lower() for path in paths] or ids
    uncovered = [place for place in places if place.startswith(("header:", "query:")) and place not in signed]
    uncovered = [place for place in uncovered if not (signs_query and "url" in signed and place.startswith("query:"))]
    return not uncovered or ("id" in signed and uncovered == ids[: len(uncovered)])


def signs_its_url(verify: VerifySpec) -> bool:
    return any(not set(_PART.findall(spec.signed)).isdisjoint(_URLS) for spec in verify.schemes)


def _written_verify(
    file: MappingFile, preset: Preset, presets: Mapping[str, Any], report: Diagnostics
) -> tuple[Verify | None, Reporter]:
    """The `verify` stanza of the file, of the preset that it names, or of the provider's preset."""
    base = preset.verify if isinstance(preset.verify, Verify) else None
    if file.verify is None:
        if base is None and file.provider != CUSTOM and report.is_sound("provider"):
            report.problem(("provider",), f'provider {file.provider} has no scheme of its own; describe it in "verify"')
        return base, in_preset(report)
    own = Verify.model_validate({"preset": file.verify}) if isinstance(file.verify, str) else file.verify
    where: Steps = ("verify",) if isinstance(file.verify, str) else ("verify", "preset")
    if own.preset is not None:
        base = _preset_verify(own.preset, presets, report, where)
    elif own.type is not None and (own.signature is not None or own.type == "basic"):
        base = None  # stated in full
    if base is None and own.type is None and report.is_sound("verify"):
        report.problem(("verify",), f'verify needs "type" (one of {", ".join(VERIFY_TYPES)}) or "preset"')
    return _overlaid(base, own), report.below("verify")


def _preset_verify(name: str, presets: Mapping[str, Any], report: Diagnostics, where: Steps) -> Verify | None:
    found = presets.get(name)
    if found is None:
        report.problem(where, f'unknown preset "{name}"{did_you_mean(name, presets)}')
        return None
    verify = valid_preset(found, report, where).verify
    return verify if isinstance(verify, Verify) else None


def _overlaid(base: Verify | None, own: Verify) -> Verify:
    """`own` merged over `base` key by key, also within signature and timestamp."""
    if base is None:
        return own
    written = base.model_dump(exclude_unset=True, by_alias=True)
    for key, value in own.model_dump(exclude_unset=True, by_alias=True).items():
        written[key] = {**written.get(key, {}), **value} if isinstance(value, dict) else value
    return Verify.model_validate(written)


def _check_choice(where: Steps, value: str | None, allowed: tuple[str, ...], problem: Reporter) -> None:
    if value is not None and value not in allowed:
        problem(where, f'unknown {where[0]} "{value}"{did_you_mean(value, allowed)}')


def _signature(written: Scheme, problem: Reporter) -> SignatureSpec:
    if written.signature is None:
        return SignatureSpec(())
    if not numbered(written.signature.in_):
        problem(("signature",), 'signature needs "in"')
    places = read_places(written.signature.in_, below(problem, "signature", "in"))
    return SignatureSpec(places, written.signature.split, written.signature.prefix, written.signature.encoding)


def _timestamp(written: Scheme, problem: Reporter) -> TimestampSpec | None:
    stamp = written.timestamp
    if stamp is None:
        return None
    if not numbered(stamp.in_):
        problem(("timestamp",), 'timestamp needs "in"')
    places = () if stamp.in_ == "signature" else read_places(stamp.in_, below(problem, "timestamp", "in"))
    return TimestampSpec(places, stamp.prefix, stamp.tolerance, stamp.form)


def read_places(texts: Texts | None, problem: Reporter) -> tuple[Place, ...]:
    """The places that these strings name: `header:X`, `query:x`, `body:a.b`, `form:x`."""
    places = []
    for where, text in numbered(texts):
        match = _PLACE.fullmatch(text.strip())
        if match is None:
            problem(where, f'"{text}" is not a valid place; write header:Name, query:name, body:a.b or form:name')
        else:
            places.append(Place(match[1], match[2].strip()))
    return tuple(places)


def _check_key(spec: VerifySpec, problem: Reporter) -> None:
    """A key form that no secret of this signature type can have would refuse every request."""
    allowed = _ALLOWED_KEYS.get(spec.type, SHARED_KEY_FORMS)
    for form in spec.key:
        if spec.type in VERIFY_TYPES and form in KEY_FORMS and form not in allowed:
            problem(("key",), f'type {spec.type} takes the key {" or ".join(allowed)}, not "{form}"')


def _check_signed(spec: VerifySpec, problem: Reporter) -> None:
    names = _PART.findall(spec.signed)
    if spec.type == "sha256" and "secret" not in names:
        problem(("signed",), 'type sha256 has no key, so "signed" must hold {secret}: without it anyone could sign')
    elif spec.type not in UNSIGNED_TYPES and not set(names) - {"secret"}:
        problem(("signed",), '"signed" names nothing of the request, such as {body}')
    for name in names:
        if name not in _SIGNED and not _PLACE.fullmatch(name):
            problem(("signed",), f'"signed" names {{{name}}}{did_you_mean(name, _SIGNED)}')
    for name, is_given in (("timestamp", spec.timestamp is not None), ("id", bool(spec.id))):
        if f"{{{name}}}" in spec.signed and not is_given:
            problem(("signed",), f'"signed" names {{{name}}}, but verify does not say where the {name} is')


# ------------------------------------------------------------------------------------------------------ handshakes


def verify_token_variable(name: str) -> str:
    """The variable that holds the verify token of a source: `meta` -> META_VERIFY_TOKEN."""
    return name.upper().replace("-", "_") + "_VERIFY_TOKEN"


def compile_handshakes(
    file: MappingFile, preset: Preset, name: str, environ: Mapping[str, str], report: Diagnostics
) -> tuple[Handshake, ...]:
    """Compile the handshakes of a source. Errors go to the report."""
    compiler = _HandshakeCompiler(name, environ, report)
    if file.handshake is None:
        return tuple(compiler.compile(written, in_preset(report)) for _, written in numbered(preset.handshake))
    if not report.is_sound("handshake"):
        return ()
    if file.provider != CUSTOM:
        report.problem(("handshake", KEY), OF_THE_PRESET)
        return ()
    return tuple(
        compiler.compile(written, report.below("handshake", *where), echo_only=True)
        for where, written in numbered(file.handshake)
    )


class _HandshakeCompiler:
    """Compiles the handshakes of one source."""

    def __init__(self, name: str, environ: Mapping[str, str], report: Diagnostics) -> None:
        self.variable = verify_token_variable(name)
        self.environ = environ
        self.report = report

    def compile(self, written: HandshakeStanza, problem: Reporter, *, echo_only: bool = False) -> Handshake:
        """Compile one entry; errors go to `problem`."""
        does, place = _reply_kind(written, problem)
        if echo_only and (does is not ReplyKind.ECHO or written.body is not None):
            problem((), ECHO_ONLY)
        methods = listed(written.method)
        for where, method in numbered(written.method):
            if method not in METHODS:
                problem(("method", *where), f'a handshake is sent by {", ".join(METHODS)}, not "{method[:20]}"')
        made = Handshake(
            does,
            methods,
            when=tuple(
                _condition(place, value, below(problem, "when")) for place, value in (written.when or {}).items()
            ),
            body=written.body,
            signed=written.signed if written.signed is not None else methods == ("POST",),
            place=place,
            fields=_fields(written, does, below(problem, "json")),
        )
        return self._with_verify_token(written, made, problem)

    def _with_verify_token(self, written: HandshakeStanza, made: Handshake, problem: Reporter) -> Handshake:
        place = _place(written.verify_token, below(problem, "verify_token"))
        if place is None:
            return made
        value = self.environ.get(self.variable, "").strip()
        if not is_secret(value):
            self.report.warn((), f"{self.variable} is not set, so the handshake of this sender is answered 401")
            value = ""
        return replace(made, verify_token=place, variable=self.variable, expected=value or None)


def _reply_kind(written: HandshakeStanza, problem: Reporter) -> tuple[ReplyKind, Place | None]:
    """What the handshake does, and the place of the value it uses."""
    at = {ReplyKind.ECHO: written.echo, ReplyKind.HMAC: written.hmac, ReplyKind.KEEP: written.keep}
    found = [(does, _place(text, below(problem, does.value))) for does, text in at.items() if text is not None]
    if written.answer is not None:
        found.append((ReplyKind(written.answer), None))
    if len(found) != 1:
        problem((), 'a handshake needs exactly one answer, such as "echo", which says where the value to be echoed is')
    return found[0] if found else (ReplyKind.ECHO, None)


def _place(text: str | None, problem: Reporter) -> Place | None:
    return next(iter(read_places(text, problem)), None)


def _condition(text: str, value: Scalars, problem: Reporter) -> tuple[Place, tuple[str, ...]]:
    place = _place(text, lambda _where, sentence: problem((text, KEY), sentence))
    values = tuple(text_of(item) or "" for item in listed(value))
    return place or Place("header", ""), values


def _fields(written: HandshakeStanza, does: ReplyKind, problem: Reporter) -> tuple[tuple[str, str], ...]:
    known = ("value", "hex", "base64") if does is ReplyKind.HMAC else ("value",)
    for name, template in (written.json_ or {}).items():
        for part in _PART.findall(template):
            if part not in known:
                problem((name,), f"the answer of this handshake can hold {{{'}, {'.join(known)}}}, not {{{part[:20]}}}")
    return tuple((written.json_ or {}).items())


# ------------------------------------------------------------------------------------------------ shared secrets


def forbidden_to_compute(sources: Iterable[Source]) -> dict[str, tuple[str, ...]]:
    """The sources that must not compute, because a token could sign an event of another: name -> names of those others.

    If the body is signed, a token signs nothing, since no JSON body is a token. A scheme that covers only a time and a
    nonce (Mailgun) is different: whoever chooses the token chooses what is signed.
    """
    known = tuple(sources)
    signable = [
        source for source in known if any(_covers_only_a_token(spec, source.body) for spec in source.verify.schemes)
    ]
    found = {
        source.name: tuple(other.name for other in signable if set(other.secrets) & set(source.secrets))
        for source in known
        if any(handshake.does is ReplyKind.HMAC for handshake in source.handshakes)
    }
    return {name: others for name, others in found.items() if others}


def _covers_only_a_token(scheme: VerifySpec, body: BodyForm) -> bool:
    """Whether everything that this scheme signs of an event can, as a whole, be a token."""
    names = set(_PART.findall(scheme.signed))
    if scheme.type != "hmac-sha256" or names & {"url", "path", "secret"}:
        return False
    literals = _PART.sub("", scheme.signed)
    return _TOKEN_LITERALS.fullmatch(literals) is not None and ("body" not in names or body is not BodyForm.JSON)


def without_computing(source: Source) -> Source:
    """The source without handshakes that compute with its secret."""
    return replace(source, handshakes=tuple(each for each in source.handshakes if each.does is not ReplyKind.HMAC))
