"""Templates, and named values: strings with placeholders, `{path|filter:argument|filter}` or `{a or b or c|filter}`.

A literal brace is written twice. Rendering never raises; a placeholder without a value makes the result None, unless
the caller wants it rendered as empty (descriptions).

The named values from `values:` of presets and files, which rules read as `{value.plan}`, are here, too. Each is a
template, code of the bridge (`builtin`), or a list of both by event type, of which the first for the event's type
counts. A value is computed when a rule first needs it, once per event, and once more for the event before the change.
A value that depends on itself is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge.globs import of_type
from bridge.model import MISSING, Derived, Document, Json, Missing, Path, Source
from bridge.rules.language.filters import Filter, Scope, compile_filter
from bridge.rules.language.paths import CompiledPath, compile_path
from bridge.rules.language.values import Value, before, is_empty
from bridge.text import text_of

KEYED: Final = re.compile(r"\bkey\b")  # reads the ids that the bridge recognised, or a field of that name
TEMPLATE_MAX: Final = 2_000
PLACEHOLDERS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class Placeholder:
    """The contents of a pair of braces: paths, of which the first with a value counts, and filters."""

    text: str
    paths: tuple[CompiledPath, ...]
    filters: tuple[Filter, ...] = ()

    def value(self, scope: Scope) -> Value:
        value = self.unfiltered(scope)
        for apply in self.filters:
            value = apply(value, scope)
        return value

    def unfiltered(self, scope: Scope) -> Value:
        """The value before filtering."""
        paths = self.paths
        return paths[0].read(scope.document) if len(paths) == 1 else self._first(scope)

    def _first(self, scope: Scope) -> Value:
        """The first value that can be written as a string; if there is none, the first that exists."""
        fallback: Value = MISSING
        for path in self.paths:
            value = path.read(scope.document)
            if text_of(value):
                return value
            if fallback is MISSING:
                fallback = value
        return fallback


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template: literal strings and placeholders in turn."""

    text: str
    parts: tuple[str | Placeholder, ...]
    literal: str | None = None  # the whole text, if there is no placeholder

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        return tuple(part for part in self.parts if isinstance(part, Placeholder))

    @property
    def literals(self) -> tuple[str, ...]:
        return tuple(part for part in self.parts if isinstance(part, str))

    def render(self, scope: Scope, *, missing: str | None = None) -> str | None:
        """Render the string; with `missing` None, return None if any placeholder is missing or empty."""
        if self.literal is not None:
            return self.literal
        if len(self.parts) == 1 and isinstance(self.parts[0], Placeholder):
            return text_of(self.parts[0].value(scope)) or missing
        texts = []
        for part in self.parts:
            text = part if isinstance(part, str) else text_of(part.value(scope)) or missing
            if text is None:
                return None
            texts.append(text)
        return "".join(texts)

    def first_missing(self, scope: Scope) -> str | None:
        """The first placeholder without a value, for error messages."""
        return next((part.text for part in self.placeholders if not text_of(part.value(scope))), None)


def template_of(text: str, parts: tuple[str | Placeholder, ...]) -> Template:
    literals = [part for part in parts if isinstance(part, str)]
    return Template(text, parts, "".join(literals) if len(literals) == len(parts) else None)


def compile_template(text: str, maps: Mapping[str, Mapping[str, Json]] | None = None) -> Template:
    """Check and compile a template. Raises ValueError with a sentence."""
    if len(text) > TEMPLATE_MAX:
        raise ValueError(f"a template has {len(text)} characters, at most {TEMPLATE_MAX} are allowed")
    parts: list[str | Placeholder] = []
    literal, position = "", 0
    while position < len(text):
        if text[position : position + 2] in ("{{", "}}"):
            literal, position = literal + text[position], position + 2
        elif text[position] == "}":
            raise ValueError(f'"{text}" has a "}}" without a "{{" (a literal brace is written twice)')
        elif text[position] == "{":
            inner, position = _inner(text, position + 1)
            parts += [literal, _placeholder(inner, maps or {})] if literal else [_placeholder(inner, maps or {})]
            literal = ""
        else:
            literal, position = literal + text[position], position + 1
    parts += [literal] if literal else []
    if sum(isinstance(part, Placeholder) for part in parts) > PLACEHOLDERS_MAX:
        raise ValueError(f"a template has more than {PLACEHOLDERS_MAX} placeholders")
    return template_of(text, tuple(parts))


def _inner(text: str, start: int) -> tuple[str, int]:
    """The text before the closing brace, and the position after it; braces in brackets and quotes do not count."""
    for position, character in _outside(text, start):
        if character == "}":
            return text[start:position], position + 1
        if character == "{":
            break
    raise ValueError(f'"{text}" has a "{{" that is never closed (a literal brace is written twice)')


def _outside(text: str, start: int = 0) -> list[tuple[int, str]]:
    """The characters from `start` on that are neither in quotes nor in brackets."""
    found = []
    quoted = bracketed = False
    for position in range(start, len(text)):
        character = text[position]
        if character == '"' and (position == 0 or text[position - 1] != "\\"):
            quoted = not quoted
        elif not quoted and character == "[":
            bracketed = True
        elif not quoted and character == "]":
            bracketed = False
        elif not quoted and not bracketed:
            found.append((position, character))
    return found


def _split(text: str, separator: str) -> list[str]:
    """Split where the separator is outside quotes and brackets."""
    outside = {position for position, _ in _outside(text)}
    pieces, start, position = [], 0, 0
    while position < len(text):
        if text.startswith(separator, position) and position in outside:
            pieces.append(text[start:position])
            start = position = position + len(separator)
        else:
            position += 1
    return [*pieces, text[start:]]


def _placeholder(inner: str, maps: Mapping[str, Mapping[str, Json]]) -> Placeholder:
    first, *filters = _split(inner, "|")
    if not first.strip():
        raise ValueError(f'"{{{inner}}}" names no path')
    paths = tuple(compile_path(path) for path in _split(first, " or "))
    return Placeholder("{" + inner + "}", paths, tuple(compile_filter(text, maps) for text in filters))


# ---------------------------------------------------------------------------- in place of a path


@dataclass(frozen=True, slots=True)
class Composed:
    """A template in place of a path."""

    text: str
    template: Template = field(compare=False, repr=False)

    def read(self, document: Document) -> Json | Missing:
        text = self.template.render(Scope(document))
        return MISSING if text is None else text

    whole = read


@dataclass(frozen=True, slots=True)
class BeginsWith:
    """True if the value at a path begins with a prefix, else MISSING."""

    path: Path
    prefix: str

    @property
    def text(self) -> str:
        return self.path.text

    def read(self, document: Document) -> Json | Missing:
        text = text_of(self.path.read(document))
        return True if text is not None and text.startswith(self.prefix) else MISSING

    whole = read


# ------------------------------------------------------------------------------------------------- named values


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to compute a value, for events of these types (globs)."""

    events: tuple[str, ...]
    source: Template | Callable[[Scope], Value]

    def read(self, scope: Scope) -> Value:
        if not isinstance(self.source, Template):
            return self.source(scope)
        parts = self.source.parts
        if len(parts) == 1 and isinstance(parts[0], Placeholder):
            value = parts[0].value(scope)  # a number stays a number, a list a list
            return MISSING if is_empty(value) else value
        return self.source.render(scope) or MISSING


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one source."""

    choices: Mapping[str, tuple[Choice, ...]]

    @property
    def keyed(self) -> bool:
        """Whether one of them may read `key.`; values computed by code do not."""
        sources = (choice.source for choices in self.choices.values() for choice in choices)
        return any(isinstance(source, Template) and KEYED.search(source.text) for source in sources)

    def derive(self, event_type: str, hash_key: bytes, decimals: Mapping[str, int]) -> Derived:
        """The values to compute for one event."""
        return Computed(self.choices, event_type, hash_key, decimals)


class Computed:
    """The values computed for one document so far."""

    __slots__ = ("_before", "_choices", "_decimals", "_event_type", "_hash_key", "_known")

    def __init__(
        self, choices: Mapping[str, tuple[Choice, ...]], event_type: str, hash_key: bytes, decimals: Mapping[str, int]
    ) -> None:
        self._choices, self._event_type, self._hash_key, self._decimals = choices, event_type, hash_key, decimals
        self._known: dict[str, Value] = {}
        self._before: Document | None = None

    def has(self, name: str) -> bool:
        return name in self._choices

    def value(self, name: str, document: Document) -> Value:
        known = self._known
        if name not in known:
            known[name] = MISSING  # its value during its own computation: a value that depends on itself is missing
            for choice in of_type(self._choices.get(name, ()), self._event_type)[:1]:
                known[name] = choice.read(Scope(document, self._hash_key, self._decimals))
        return known[name]

    def was(self, document: Document) -> Document:
        if self._before is None:
            made = before(document, Computed(self._choices, self._event_type, self._hash_key, self._decimals))
            self._before = document if made.body is document.body else made
        return self._before


NO_VALUES: Final = Values({})


def with_values(document: Document, source: Source, event_type: str, hash_key: bytes) -> Document:
    """The document with room for its values and for its state before the change."""
    derived = (source.values or NO_VALUES).derive(event_type, hash_key, source.decimals)
    roots = (document.body, document.header, document.query, document.envelope, document.key, document.root)
    return Document(*roots, derived)
