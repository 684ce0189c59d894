"""`handshake:` → `Handshake` values: of a preset in full, of a `custom` file echoes only.

A handshake that computes with the secret, or keeps what it is sent, is reviewed once, with its preset: a mapping file
cannot make the bridge sign what anyone asks for. Two sources with one secret are kept apart here, too (`apart`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bridge.model import BodyForm, Handshake, Place, ReplyKind, Source, VerifySpec
from bridge.rules.reading.report import Diagnostics, Fault, below, numbered
from bridge.rules.reading.secrets import is_secret
from bridge.rules.reading.strict_yaml import KEY
from bridge.rules.reading.verification import CUSTOM, in_preset, read_places
from bridge.text import text_of

if TYPE_CHECKING:
    from bridge.rules.reading.schema import HandshakeStanza, MappingFile, Preset, Scalars

METHODS: Final = ("GET", "HEAD", "POST")
ECHO_ONLY: Final = (
    "the handshake of a custom sender can only echo a value of the request (echo: query:challenge): "
    "one that computes with the secret, keeps a value or answers nothing belongs to a preset"
)
OF_THE_PRESET: Final = 'the handshake of this provider belongs to its preset; "handshake" is for provider: custom'
_TEMPLATE: Final = re.compile(r"\{([^{}]*)\}")
_TOKEN_LITERALS: Final = re.compile(r"[A-Za-z0-9_-]*")


def verify_token_variable(name: str) -> str:
    """The variable that holds the verify token of a source: `meta` -> META_VERIFY_TOKEN."""
    return name.upper().replace("-", "_") + "_VERIFY_TOKEN"


def compile_handshakes(
    file: MappingFile, preset: Preset, name: str, environ: Mapping[str, str], report: Diagnostics
) -> tuple[Handshake, ...]:
    """The handshakes of a source. Errors go to the report."""
    compiling = _Compiling(name, environ, report)
    if file.handshake is None:
        return tuple(compiling.one(written, in_preset(report)) for _, written in numbered(preset.handshake))
    if not report.is_sound("handshake"):
        return ()
    if file.provider != CUSTOM:
        report.fault(("handshake", KEY), OF_THE_PRESET)
        return ()
    return tuple(
        compiling.one(written, report.below("handshake", *where), echo_only=True)
        for where, written in numbered(file.handshake)
    )


class _Compiling:
    """What one source's handshakes are compiled with."""

    def __init__(self, name: str, environ: Mapping[str, str], report: Diagnostics) -> None:
        self.variable = verify_token_variable(name)
        self.environ = environ
        self.report = report

    def one(self, written: HandshakeStanza, fault: Fault, *, echo_only: bool = False) -> Handshake:
        """One entry."""
        does, place = _does(written, fault)
        if echo_only and (does is not ReplyKind.ECHO or written.body is not None):
            fault((), ECHO_ONLY)
        methods = tuple(method for _, method in numbered(written.method))
        for where, method in numbered(written.method):
            if method not in METHODS:
                fault(("method", *where), f'a handshake is sent by {", ".join(METHODS)}, not "{method[:20]}"')
        made = Handshake(
            does,
            methods,
            when=tuple(_condition(place, value, below(fault, "when")) for place, value in (written.when or {}).items()),
            body=written.body,
            signed=written.signed if written.signed is not None else methods == ("POST",),
            place=place,
            fields=_fields(written, does, below(fault, "json")),
        )
        return self._with_verify_token(written, made, fault)

    def _with_verify_token(self, written: HandshakeStanza, made: Handshake, fault: Fault) -> Handshake:
        place = _place(written.verify_token, below(fault, "verify_token"))
        if place is None:
            return made
        value = self.environ.get(self.variable, "").strip()
        if not is_secret(value):
            self.report.warn((), f"{self.variable} is not set, so the handshake of this sender is answered 401")
            value = ""
        return replace(made, verify_token=place, variable=self.variable, expected=value or None)


def _does(written: HandshakeStanza, fault: Fault) -> tuple[ReplyKind, Place | None]:
    """What is done, and with the value at which place."""
    wanted = [
        (ReplyKind.ECHO, written.echo, "echo"),
        (ReplyKind.HMAC, written.hmac, "hmac"),
        (ReplyKind.KEEP, written.keep, "keep"),
    ]
    found = [(does, _place(text, below(fault, key))) for does, text, key in wanted if text is not None]
    if written.answer is not None:
        found.append((ReplyKind(written.answer), None))
    if len(found) != 1:
        fault((), 'a handshake needs exactly one answer, such as "echo", which says where the value to be echoed is')
    return found[0] if found else (ReplyKind.ECHO, None)


def _place(text: str | None, fault: Fault) -> Place | None:
    return next(iter(read_places(text, fault)), None)


def _condition(text: str, value: Scalars, fault: Fault) -> tuple[Place, tuple[str, ...]]:
    place = _place(text, lambda _where, sentence: fault((text, KEY), sentence))
    values = tuple(text_of(one) or "" for one in (value if isinstance(value, list) else [value]))
    return place or Place("header", ""), values


def _fields(written: HandshakeStanza, does: ReplyKind, fault: Fault) -> tuple[tuple[str, str], ...]:
    known = ("value", "hex", "base64") if does is ReplyKind.HMAC else ("value",)
    for name, template in (written.json_ or {}).items():
        for part in _TEMPLATE.findall(template):
            if part not in known:
                fault((name,), f"the answer of this handshake can hold {{{'}, {'.join(known)}}}, not {{{part[:20]}}}")
    return tuple((written.json_ or {}).items())


# ------------------------------------------------------------------------------------------------ shared secrets


def apart(sources: Iterable[Source]) -> dict[str, tuple[str, ...]]:
    """Which sources (name -> the names of others) must not compute: with their secret a token could sign an event.

    A token signs nothing where the body is signed, since no JSON body is one. A scheme that covers only a time and a
    nonce (Mailgun) is another matter: there, who chooses the token chooses what is signed.
    """
    known = tuple(sources)
    signable = [one for one in known if any(_is_a_tokens(scheme, one.body) for scheme in one.verify.schemes)]
    found = {
        source.name: tuple(other.name for other in signable if set(other.secrets) & set(source.secrets))
        for source in known
        if any(one.does is ReplyKind.HMAC for one in source.handshakes)
    }
    return {name: others for name, others in found.items() if others}


def _is_a_tokens(scheme: VerifySpec, body: BodyForm) -> bool:
    """Whether what this scheme signs of an event can be a token, as a whole."""
    names = set(_TEMPLATE.findall(scheme.signed))
    if scheme.type != "hmac-sha256" or names & {"url", "path", "secret"}:
        return False
    literals = _TEMPLATE.sub("", scheme.signed)
    return _TOKEN_LITERALS.fullmatch(literals) is not None and ("body" not in names or body is not BodyForm.JSON)


def without_computing(source: Source) -> Source:
    """The source, answering no handshake that takes its secret."""
    return replace(source, handshakes=tuple(one for one in source.handshakes if one.does is not ReplyKind.HMAC))
