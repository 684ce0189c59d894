"""Templates: strings with placeholders, `{path|filter:argument|filter}` or `{a or b or c|filter}`.

A literal brace is written twice. Rendering never raises; a placeholder without a value makes the result None, unless
the caller wants it to be empty (descriptions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bridge.model import MISSING, Document, Json, Missing, Path
from bridge.rules.language.filters import Filter, Scope, compile_filter
from bridge.rules.language.paths import CompiledPath, compile_path
from bridge.text import text_of

if TYPE_CHECKING:
    from bridge.rules.language.values import Value

TEMPLATE_MAX: Final = 2_000
PLACEHOLDERS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class Placeholder:
    """What is between braces: paths, of which the first with a value counts, and filters."""

    text: str
    paths: tuple[CompiledPath, ...]
    filters: tuple[Filter, ...] = ()

    def value(self, scope: Scope) -> Value:
        value = self.unfiltered(scope)
        for apply in self.filters:
            value = apply(value, scope)
        return value

    def unfiltered(self, scope: Scope) -> Value:
        """The value before its filters."""
        paths = self.paths
        return paths[0].read(scope.document) if len(paths) == 1 else self._first(scope)

    def _first(self, scope: Scope) -> Value:
        """The first value that can be written as a string; without one, the first that is there at all."""
        spare: Value = MISSING
        for path in self.paths:
            value = path.read(scope.document)
            if text_of(value):
                return value
            if spare is MISSING:
                spare = value
        return spare


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template: literal strings and placeholders in turn."""

    text: str
    parts: tuple[str | Placeholder, ...]
    literal: str | None = None  # the whole text, where there is no placeholder

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        return tuple(part for part in self.parts if isinstance(part, Placeholder))

    @property
    def literals(self) -> tuple[str, ...]:
        return tuple(part for part in self.parts if isinstance(part, str))

    def render(self, scope: Scope, *, missing: str | None = None) -> str | None:
        """The string; with `missing` None, no string at all where one placeholder is missing or empty."""
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
        """The placeholder that has no value, for the sentence that says so."""
        return next((part.text for part in self.placeholders if not text_of(part.value(scope))), None)


def template_of(text: str, parts: tuple[str | Placeholder, ...]) -> Template:
    literals = [part for part in parts if isinstance(part, str)]
    return Template(text, parts, "".join(literals) if len(literals) == len(parts) else None)


def compile_template(text: str, maps: Mapping[str, Mapping[str, Json]] | None = None) -> Template:
    """Check and compile a template; ValueError is a sentence."""
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
    """What stands before the closing brace, and the position behind it; brackets and quotes hide braces."""
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


# ---------------------------------------------------------------------------- where a path may be


@dataclass(frozen=True, slots=True)
class Composed:
    """A template where a path may be."""

    text: str
    template: Template = field(compare=False, repr=False)

    def read(self, document: Document) -> Json | Missing:
        text = self.template.render(Scope(document))
        return MISSING if text is None else text

    whole = read


@dataclass(frozen=True, slots=True)
class BeginsWith:
    """True where the value at a path begins with a prefix; missing anywhere else."""

    path: Path
    prefix: str

    @property
    def text(self) -> str:
        return self.path.text

    def read(self, document: Document) -> Json | Missing:
        text = text_of(self.path.read(document))
        return True if text is not None and text.startswith(self.prefix) else MISSING

    whole = read
