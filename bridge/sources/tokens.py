"""Find the secrets in a body: the token that identifies its sender, and fields named like secrets.

A body is stored as it arrived. Before any part of its event is shown, this module says what to hide. Nothing here
raises.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

from bridge.errors import UnreadableBody
from bridge.masking import names_secret
from bridge.model import BodyForm, Document, Source, VerifySpec
from bridge.sources.body import legible, parse
from bridge.sources.facts import text_below
from bridge.text import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bridge.model import Json, Place

_SHORTEST: Final = 4  # characters of a token; hiding a shorter one would hide half of every answer
_SHORTEST_NAMED: Final = 8  # the same for what is a secret only by its name
_LONGEST_WORDS: Final = 24  # characters of lower-case words; a longer string is a token
_DEEPEST: Final = 80
_ANY_FORM: Final = (  # to read a body of unknown format
    Source("", "custom", VerifySpec("token"), body=BodyForm.JSON),
    Source("", "custom", VerifySpec("token"), body=BodyForm.FORM),
)


def unshowable(source: Source | None, body: bytes | None = None, ids: Iterable[str] = ()) -> frozenset[str]:
    """The strings of an event and its source that must be hidden. source None: it has neither mapping file nor preset.

    ids: the ids that identify the event; they are not secret, whatever their fields are called.
    """
    found = frozenset() if body is None else named_secrets(source, body) - frozenset(ids)
    return found if source is None else found | known_secrets(source) | sender_tokens(source, body or b"")


def known_secrets(source: Source) -> frozenset[str]:
    """The source's own secrets, and the variables that its `require:` compares with."""
    required = (text for requirement in source.require if requirement.secret for text in requirement.expected)
    return frozenset(text for text in (*source.secrets, *required) if len(text) >= _SHORTEST_NAMED)


def sender_tokens(source: Source, body: bytes) -> frozenset[str]:
    """The values in a body at the places where this source's sender authenticates itself."""
    document = _document(source, body)
    found = {text_below(document, place.name) for place in _places(source) if place.where in ("body", "form")}
    whole = Document(body=document, root=document)
    secrets = (requirement.path.read(whole) for requirement in source.require if requirement.secret)
    found |= {text_of(value) for value in secrets if value}
    return frozenset(text for text in found if text and len(text) >= _SHORTEST)


def named_secrets(source: Source | None, body: bytes) -> frozenset[str]:
    """The strings in a body whose fields have the names of secrets. source None: the body's format is unknown."""
    documents = [_document(reader, body) for reader in ((source,) if source is not None else _ANY_FORM)]
    return frozenset(text for document in documents for text in _named(document) if _looks_secret(text))


def without(body: bytes, secrets: frozenset[str]) -> bytes:
    """A body with `***` in place of each of these, in whatever encoding it appears."""
    for secret in sorted(secrets, key=len, reverse=True):
        spelled = json.dumps(secret)[1:-1]
        forms = (secret, spelled, quote_plus(secret), quote(secret, safe=""), quote_plus(spelled))
        for form in sorted(set(forms), key=len, reverse=True):
            body = body.replace(form.encode("utf-8", "surrogatepass"), b"***")
    return body


def _places(source: Source) -> Iterator[Place]:
    for spec in source.verify.schemes:
        yield from spec.signature.places
    for handshake in source.handshakes:
        if handshake.place is not None and names_secret(handshake.place.name):
            yield handshake.place


def _document(source: Source, body: bytes) -> Json:
    try:
        return parse(source, body)
    except UnreadableBody:
        return legible(source, body)


def _looks_secret(text: str) -> bool:
    """Whether a value can be a secret, and is not a word about one: `"password": "required"`."""
    words = not text.strip("abcdefghijklmnopqrstuvwxyz_- ")
    return len(text) >= (_LONGEST_WORDS if words else _SHORTEST_NAMED)


def _named(value: Json, name: str = "", depth: int = 0) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _named(inner, key, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner, name, depth + 1)
    elif isinstance(value, str):
        if names_secret(name, in_body=True):
            yield value
        elif value[:1] == "{":  # a form's field that holds JSON
            yield from _named(legible(_ANY_FORM[0], value.encode("utf-8", "replace")), "", depth + 1)
