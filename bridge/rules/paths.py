"""Paths: where a value is in an event. `compile_path` judges the text once; reading never raises and is bounded.

    data.object.metadata.plan      dotted, into the body
    items[0].id   items[-1].id     an element of a list
    notes[name=visitor].value      the first element whose field is that (the field may be dotted: [a.b=c])
    data."a.b".c                   a quoted key
    header.x  query.x  envelope.type  key.subscription  root.x  body.header

A path that goes on into a text reads it as JSON. `null` reads as missing. At a path's end an object with an `id`
reads as that id (providers expand ids on request); `whole` gives the object itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from bridge.model import MISSING, Document, Json, Missing
from bridge.rules.values import Value, equal, is_empty, json_in_text

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOTS: Final = ("header", "query", "envelope", "key", "root", "body")
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
    """The first element of a list whose field equals this text, as a condition would say it."""

    field: tuple[Segment, ...]
    text: str


Segment = Field | Index | Where


@dataclass(frozen=True, slots=True)
class CompiledPath:
    """One path (see the module). `root` is one of ROOTS; `names`: the plain names it begins with; `rest`: the rest."""

    text: str
    root: str
    segments: tuple[Segment, ...]
    names: tuple[str, ...]
    rest: tuple[Segment, ...]

    def read(self, document: Document) -> Json | Missing:
        # Written out, because every event runs through here a hundred times: names down nested objects, and no more.
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
        if value.__class__ is dict:
            return identified(value)
        return MISSING if value is None else value

    def whole(self, document: Document) -> Json | Missing:
        value = walk(self._start(document), self.segments)
        return MISSING if value is None else value

    def _start(self, document: Document) -> Json:
        start = getattr(document, self.root)
        return document.body if start is None and self.root == "root" else start

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class FirstPath:
    """Several paths: the first that is not empty."""

    text: str
    paths: tuple[CompiledPath, ...]

    def read(self, document: Document) -> Json | Missing:
        for path in self.paths:
            value = path.read(document)
            if not is_empty(value):
                return value
        return MISSING

    def whole(self, document: Document) -> Json | Missing:
        for path in self.paths:
            value = path.whole(document)
            if not is_empty(value):
                return value
        return MISSING

    def __str__(self) -> str:
        return self.text


def identified(value: dict[str, Json]) -> Json:
    """An expanded object reads as its id; an object without one stays as it is."""
    identifier = value.get("id")
    return identifier if isinstance(identifier, (str, int)) and not isinstance(identifier, bool) else value


def walk(value: Value, segments: Sequence[Segment]) -> Value:
    """Follow the segments. None: a null stands there (or on the way); MISSING: nothing does."""
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
        else:
            value = _element(value, segment)
    return value


def _element(elements: list[Json], where: Where) -> Value:
    for element in elements:
        value = walk(element, where.field)
        if isinstance(value, dict):
            value = identified(value)
        if equal(value, where.text):
            return element
    return MISSING


def compile_path(path: str | Sequence[str]) -> CompiledPath | FirstPath:
    """Judge and compile a path, or a list of which the first non-empty counts. ValueError is a sentence."""
    if not isinstance(path, str):
        paths = tuple(compile_one(text) for text in path)
        return paths[0] if len(paths) == 1 else FirstPath(" or ".join(p.text for p in paths), paths)
    return compile_one(path)


def compile_one(path: str) -> CompiledPath:
    """Compile one path; ValueError says where it stops making sense."""
    text = path.strip()
    if not text:
        raise ValueError("a path is empty")
    if len(text) > PATH_MAX:
        raise ValueError(f"a path has {len(text)} characters, {PATH_MAX} are allowed")
    segments, quoted_first = _segments(text)
    if len(segments) > SEGMENTS_MAX:
        raise ValueError(f'path "{text}" has {len(segments)} parts, {SEGMENTS_MAX} are allowed')
    first = segments[0]
    if isinstance(first, Field) and not quoted_first and first.name in ROOTS:
        return _path(text, first.name, _lower_header(first.name, segments[1:]))
    return _path(text, "body", segments)


def _path(text: str, root: str, segments: tuple[Segment, ...]) -> CompiledPath:
    plain = takewhile(lambda segment: isinstance(segment, Field), segments)
    names = tuple(segment.name for segment in plain if isinstance(segment, Field))
    return CompiledPath(text, root, segments, names, segments[len(names) :])


def _lower_header(root: str, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    if root == "header" and segments and isinstance(segments[0], Field):
        return (Field(segments[0].name.lower()), *segments[1:])
    return segments


def _segments(text: str) -> tuple[tuple[Segment, ...], bool]:
    """The parts of a path, and whether the first is a quoted key."""
    segments: list[Segment] = []
    position = 0
    while position < len(text):
        if text[position] == "[":
            segment, position = _bracket(text, position)
        else:
            if segments:
                if text[position] != ".":
                    raise ValueError(_trouble(text, position))
                position += 1
            segment, position = _key(text, position)
        segments.append(segment)
    return tuple(segments), text.startswith('"')


def _key(text: str, position: int) -> tuple[Segment, int]:
    if quoted := _QUOTED.match(text, position):
        return Field(_unquoted(quoted[1])), quoted.end()
    if text[position : position + 1] == "'":
        raise ValueError(f'path "{text}": a key is quoted with ", not with \'; a text of your own is no path')
    if name := _NAME.match(text, position):
        return Field(name[0]), name.end()
    raise ValueError(_trouble(text, position))


def _bracket(text: str, position: int) -> tuple[Segment, int]:
    if index := _INDEX.match(text, position):
        return Index(int(index[1])), index.end()
    if match := _MATCH.match(text, position):
        value = match[2]
        quoted = _QUOTED.fullmatch(value)
        return Where(_segments(match[1].strip())[0], _unquoted(quoted[1]) if quoted else value.strip()), match.end()
    if text.startswith('["', position) and (quoted := _QUOTED.match(text, position + 1)):
        end = quoted.end()
        if text[end : end + 1] == "]":
            return Field(_unquoted(quoted[1])), end + 1
    raise ValueError(f'path "{text}": after "[" comes a number, or key=value, and then "]"')


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _trouble(text: str, position: int) -> str:
    rest = text[position : position + 10]
    if not rest:
        return f'path "{text}" ends with "."'
    if rest[0] == '"':
        return f'path "{text}" opens a quote at "{rest}" that is not closed'
    hint = " (a key with such a character is written in double quotes)"
    return f'path "{text}" cannot be read from "{rest}" on{hint}'
