"""Paths: the places of values in an event. `compile_path` checks a path once; reading never raises and is bounded.

    data.object.metadata.plan      dotted, into the body
    items[0].id   items[-1].id     an element of a list
    notes[name=visitor].value      the first element whose field has this value (the field may be dotted: [a.b=c])
    data."a.b".c                   a quoted key
    refunds.*.amount               this field of every element that has it, as a list
    items.*[kind=tax].amount       the same, of the elements whose field has this value
    header.x  query.x  envelope.type  key.subscription  root.x  body.header
    value.plan                     the value of this name in `values:`
    was.data.object.status         any path, in the event as it was before the change

A path that continues into a string parses it as JSON. `null` counts as missing. At the end of a path, an object with an
`id` reads as that id (providers expand ids on request); `whole` returns the object itself. Reading is linear in the
body's size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from bridge.model import MISSING, Document, Json, Missing
from bridge.rules.language.values import Value, equal, json_in_text, was

ROOTS: Final = ("header", "query", "envelope", "key", "root", "body")
NAMED: Final = "value"
BEFORE: Final = "was"
PATH_MAX: Final = 500
SEGMENTS_MAX: Final = 40

_NAME: Final = re.compile(r"""[^\s.\[\]{}"|]+""")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_INDEX: Final = re.compile(r"\[(-?[0-9]{1,9})\]", re.ASCII)
_MATCH: Final = re.compile(r'\[((?:"[^"]*"|[^"\]=])+)=("(?:[^"\\]|\\["\\])*"|[^\]]*)\]')


@dataclass(frozen=True, slots=True)
class Field:
    name: str


@dataclass(frozen=True, slots=True)
class Index:
    position: int


@dataclass(frozen=True, slots=True)
class Where:
    """The first element of a list whose field equals this string, compared as in a condition."""

    field: tuple[Segment, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Every:
    """Every element of a list, or an object's field named `*` if it has one."""


Segment = Field | Index | Where | Every


@dataclass(frozen=True, slots=True)
class CompiledPath:
    """One path (see the module). `root` is one of ROOTS; `names`: the plain names it begins with; `rest`: the rest."""

    text: str
    root: str
    segments: tuple[Segment, ...]
    names: tuple[str, ...]
    rest: tuple[Segment, ...]

    def read(self, document: Document) -> Json | Missing:
        value = self.whole(document)
        return identified(value) if value.__class__ is dict else value

    def whole(self, document: Document) -> Json | Missing:
        # A special case for speed (a hundred calls per event): it only follows names down nested objects.
        value = document.body if self.root == "body" else self._start(document)
        for name in self.names:
            if value.__class__ is dict:
                value = value.get(name)
            elif value is None:
                return MISSING
            else:
                value = walk(self._start(document), self.segments)
                break
        else:
            if self.rest:
                value = walk(value, self.rest)
        return MISSING if value is None else value

    def _start(self, document: Document) -> Json:
        start = getattr(document, self.root)
        return document.body if start is None else start  # a document that is not an element of a list is its own root

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class EveryPath(CompiledPath):
    """A path with `*`, which reads a list. parts: the segments before, between and after the stars."""

    parts: tuple[tuple[Segment, ...], ...] = ()

    def read(self, document: Document) -> Json | Missing:
        found = self.whole(document)
        if not isinstance(found, list):
            return found
        return [identified(value) if value.__class__ is dict else value for value in found]

    def whole(self, document: Document) -> Json | Missing:
        """The values found; MISSING if there is no list."""
        first = _unfolded(walk(self._start(document), self.parts[0]))
        if first is None:
            return MISSING
        found: list[Json] = [_from_element(element, self.parts[1]) for element in first]
        for part in self.parts[2:]:
            found = [_from_element(element, part) for value in found for element in _unfolded(value) or ()]
        return [value for value in found if value is not None and value is not MISSING]


def _unfolded(value: Value) -> list[Json] | None:
    """The elements that `*` iterates over; None if this is not a list."""
    if isinstance(value, str):
        value = json_in_text(value)
    if isinstance(value, dict) and "*" in value:
        return [value["*"]]
    return value if isinstance(value, list) else None


def _from_element(element: Json, segments: tuple[Segment, ...]) -> Value:
    """Follow the segments after a star; `[key=value]` directly after it selects the elements."""
    rest = segments
    while rest and isinstance(rest[0], Where) and isinstance(element, dict):
        if _element([element], rest[0]) is MISSING:
            return MISSING
        rest = rest[1:]
    return walk(element, rest)


@dataclass(frozen=True, slots=True)
class ValuePath(CompiledPath):
    """`value.plan`: the value of this name in `values:`; if there is none, the field `value` of the body.

    name: of the value; tail: the path that continues into it; field: the path that reads the field.
    """

    name: str
    tail: CompiledPath | None
    field: CompiledPath

    def read(self, document: Document) -> Json | Missing:
        named = document.derived
        if named is None or not named.has(self.name):
            return self.field.read(document)
        value = named.value(self.name, document)
        return value if self.tail is None else self.tail.read(Document(value))

    def whole(self, document: Document) -> Json | Missing:
        named = document.derived
        if named is None or not named.has(self.name):
            return self.field.whole(document)
        value = named.value(self.name, document)
        return value if self.tail is None else self.tail.whole(Document(value))


@dataclass(frozen=True, slots=True)
class WasPath(CompiledPath):
    """`was.…`: the inner path, read in the event before the change; if the body has a field `was`, that field."""

    inner: CompiledPath
    field: CompiledPath

    def read(self, document: Document) -> Json | Missing:
        if _has_field(document.body, BEFORE):
            return self.field.read(document)
        return self.inner.read(was(document))

    def whole(self, document: Document) -> Json | Missing:
        if _has_field(document.body, BEFORE):
            return self.field.whole(document)
        return self.inner.whole(was(document))


def _has_field(body: Json, name: str) -> bool:
    return body.__class__ is dict and name in body


def identified(value: dict[str, Json]) -> Json:
    """The id of an expanded object; an object without an id is returned unchanged."""
    identifier = value.get("id")
    return identifier if isinstance(identifier, (str, int)) and not isinstance(identifier, bool) else value


def walk(value: Value, segments: Sequence[Segment]) -> Value:
    """Follow the segments. None: there is a null here or on the way; MISSING: there is nothing."""
    for segment in segments:
        if isinstance(value, str):
            value = json_in_text(value)
        if value is None or value is MISSING:
            return value
        if isinstance(segment, Field):
            value = value.get(segment.name, MISSING) if hasattr(value, "get") else MISSING
        elif not isinstance(value, list):
            return MISSING
        elif isinstance(segment, Index):
            position = segment.position
            value = value[position] if -len(value) <= position < len(value) else MISSING
        elif isinstance(segment, Where):
            value = _element(value, segment)
        else:
            return MISSING  # a star where a single value is required: in a match, [a.*=b]
    return value


def _element(elements: list[Json], where: Where) -> Value:
    for element in elements:
        value = walk(element, where.field)
        if isinstance(value, dict):
            value = identified(value)
        if equal(value, where.text):
            return element
    return MISSING


def compile_path(path: str) -> CompiledPath:
    """Compile one path. Raises ValueError, which says where it is malformed."""
    text = path.strip()
    if not text:
        raise ValueError("a path is empty")
    if len(text) > PATH_MAX:
        raise ValueError(f"a path has {len(text)} characters, at most {PATH_MAX} are allowed")
    segments, quoted_first = _segments(text)
    if len(segments) > SEGMENTS_MAX:
        raise ValueError(f'path "{text}" has {len(segments)} parts, at most {SEGMENTS_MAX} are allowed')
    return _path(text, "body", segments) if quoted_first else _rooted(text, segments)


def _rooted(text: str, segments: tuple[Segment, ...]) -> CompiledPath:
    """Compile the path by its first part, which may name a root."""
    first, rest, field = segments[0], segments[1:], _path(text, "body", segments)
    root = first.name if isinstance(first, Field) else ""
    if root in ROOTS:
        return _path(text, root, _lower_header(root, rest))
    if root == NAMED and rest and isinstance(rest[0], Field):
        tail = _path(text, "body", rest[1:]) if rest[1:] else None
        return ValuePath(*_shape(text, "body", segments), name=rest[0].name, tail=tail, field=field)
    if root == BEFORE and rest:
        inner = _rooted(text, rest)
        if isinstance(inner, WasPath):
            raise ValueError(f'path "{text}" says "was" twice; there is one event before the change')
        return WasPath(*_shape(text, "body", segments), inner=inner, field=field)
    return field


def _path(text: str, root: str, segments: tuple[Segment, ...]) -> CompiledPath:
    if any(isinstance(segment, Every) for segment in segments):
        return EveryPath(*_shape(text, root, segments), parts=_parts(segments))
    return CompiledPath(*_shape(text, root, segments))


def _shape(
    text: str, root: str, segments: tuple[Segment, ...]
) -> tuple[str, str, tuple[Segment, ...], tuple[str, ...], tuple[Segment, ...]]:
    plain = takewhile(lambda segment: isinstance(segment, Field), segments)
    names = tuple(segment.name for segment in plain if isinstance(segment, Field))
    return text, root, segments, names, segments[len(names) :]


def _parts(segments: tuple[Segment, ...]) -> tuple[tuple[Segment, ...], ...]:
    """Split at the stars."""
    parts: list[tuple[Segment, ...]] = [()]
    for segment in segments:
        if isinstance(segment, Every):
            parts.append(())
        else:
            parts[-1] = (*parts[-1], segment)
    return tuple(parts)


def reads_list(path: CompiledPath) -> bool:
    """Whether the path reads a list of values (`*`)."""
    if isinstance(path, WasPath):
        return reads_list(path.inner)
    if isinstance(path, ValuePath):
        return path.tail is not None and reads_list(path.tail)
    return isinstance(path, EveryPath)


def value_name(path: CompiledPath) -> str | None:
    """The name of the named value that a path reads, or None."""
    inner = path.inner if isinstance(path, WasPath) else path
    return inner.name if isinstance(inner, ValuePath) else None


def _lower_header(root: str, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    if root == "header" and segments and isinstance(segments[0], Field):
        return (Field(segments[0].name.lower()), *segments[1:])
    return segments


def _segments(text: str) -> tuple[tuple[Segment, ...], bool]:
    """The parts of a path, and whether the first one is a quoted key."""
    segments: list[Segment] = []
    position = 0
    while position < len(text):
        if text[position] == "[":
            segment, position = _bracket(text, position)
        else:
            if segments:
                if text[position] != ".":
                    raise ValueError(_syntax_error(text, position))
                position += 1
            segment, position = _key(text, position)
        segments.append(segment)
    return tuple(segments), text.startswith('"')


def _key(text: str, position: int) -> tuple[Segment, int]:
    if quoted := _QUOTED.match(text, position):
        return Field(_unquoted(quoted[1])), quoted.end()
    if text[position : position + 1] == "'":
        raise ValueError(
            f'path "{text}": a key is quoted with ", not with \'; a string of your own is not a valid path'
        )
    if name := _NAME.match(text, position):
        return Every() if name[0] == "*" else Field(name[0]), name.end()
    raise ValueError(_syntax_error(text, position))


def _bracket(text: str, position: int) -> tuple[Segment, int]:
    if index := _INDEX.match(text, position):
        return Index(int(index[1])), index.end()
    if match := _MATCH.match(text, position):
        value = match[2]
        quoted = _QUOTED.fullmatch(value)
        field = _segments(match[1].strip())[0]
        if any(isinstance(segment, Every) for segment in field):
            raise ValueError(f'path "{text}": within brackets there is one value, so no "*"')
        return Where(field, _unquoted(quoted[1]) if quoted else value.strip()), match.end()
    if text.startswith('["', position) and (quoted := _QUOTED.match(text, position + 1)):
        end = quoted.end()
        if text[end : end + 1] == "]":
            return Field(_unquoted(quoted[1])), end + 1
    raise ValueError(f'path "{text}": after "[" comes a number, or key=value, and then "]"')


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _syntax_error(text: str, position: int) -> str:
    rest = text[position : position + 10]
    if not rest:
        return f'path "{text}" ends with "."'
    if rest[0] == '"':
        return f'path "{text}" opens a quote at "{rest}" that is never closed'
    hint = " (a key with such a character is written in double quotes)"
    if rest[0] in "{}":
        hint = ": a path stands here without braces, which are for templates"
    return f'path "{text}" cannot be read from "{rest}" onwards{hint}'
