"""Show an event's body to people: indented, searchable, without secrets, and by default without personal data.

A body is at most 1 MiB. A page shows as much of it as a person reads; a search covers all of it and shows the matching
lines. The provider's own page about the event is found by the ids in it. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge import masking, sources
from bridge.errors import UnreadableBody
from bridge.globs import event_types
from bridge.presets import stated
from bridge.text import clean, escaped

if TYPE_CHECKING:
    from bridge.model import Event, Json, Source
    from bridge.store.operator.queries import EventDetail

SHOWN_MAX: Final = 40_000  # characters of a body on a page
LINE_MAX: Final = 1_000  # characters of one line
_AROUND: Final = 2  # lines shown before and after a match
_BEFORE: Final = 60  # characters of a long line shown before a match
_NAMED: Final = re.compile(r"\{([a-z_.]+)\}")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)


class BodyPart(NamedTuple):
    """A piece of a line. found: whether it matches the search."""

    text: str
    found: bool


class BodyLine(NamedTuple):
    """One line. number: from 1; gap: whether lines were left out before it."""

    number: int
    parts: tuple[BodyPart, ...]
    gap: bool


@dataclass(frozen=True, slots=True)
class ShownBody:
    """A body, or a part of it, as lines.

    size: bytes as received. found: the number of matches. cut: whether only a part is shown. unreadable: why it is
    shown as plain text, not as a document.
    """

    size: int
    lines: tuple[BodyLine, ...]
    found: int = 0
    cut: bool = False
    unreadable: str | None = None


def shown_body(
    event: Event, source: Source | None, secrets: Collection[str], find: str = "", *, personal: bool
) -> ShownBody:
    """The body of an event that still has one. secrets: strings to hide, the longest first."""
    body = event.body or b""
    unreadable = None
    try:
        document = sources.parse(source, body) if source is not None else json.loads(body)
        whole = indented(document, personal=personal)
    except (UnreadableBody, ValueError, RecursionError) as error:
        unreadable = str(error) if isinstance(error, UnreadableBody) else "the form of this body is not known"
        text = body.decode("utf-8", "backslashreplace").splitlines() or [""]
        whole = iter(text if personal else map(masking.without_addresses, text))
    spell = escaped if unreadable is None else clean
    lines = (spell(masking.hidden(line, secrets)) for line in whole)
    shown, found, cut = _searched(list(lines), find) if find else _beginning(lines)
    return ShownBody(len(body), shown, found, cut, unreadable)


def indented(document: Json, *, personal: bool) -> Iterator[str]:
    """A document as lines of indented JSON; without `personal`, personal data is left out."""
    return _lines(document, _Place(personal=personal))


class _Place(NamedTuple):
    """The place of a value in a document. within: the name of the object around it; end: what follows it.

    of_person: the object describes a person; answer: it was typed into a form.
    """

    name: str | None = None
    within: str = ""
    indent: int = 0
    end: str = ""
    personal: bool = False
    of_person: bool = False
    answer: bool = False


def _lines(value: Json, place: _Place) -> Iterator[str]:
    """A document as lines of indented JSON, numbers as the sender wrote them."""
    space = "  " * place.indent
    head = space if place.name is None else f"{space}{_text(_name(place))}: "
    if not isinstance(value, dict | list) or not value:
        yield head + _leaf(value, place) + place.end
        return
    around, last = place.name or place.within, len(value) - 1  # elements belong to the name of their list
    below = place._replace(within=around, indent=place.indent + 1)
    if isinstance(value, dict):
        yield head + "{"
        if not place.personal:
            below = below._replace(
                of_person=masking.describes_person(value), answer=place.answer or masking.is_typed_in(value)
            )
        for at, (name, inner) in enumerate(value.items()):
            yield from _lines(inner, below._replace(name=name, end="," if at < last else ""))
    else:
        yield head + "["
        for at, inner in enumerate(value):
            yield from _lines(inner, below._replace(name=None, end="," if at < last else ""))
    yield space + ("}" if isinstance(value, dict) else "]") + place.end


def _name(place: _Place) -> str:
    """A field's name, hidden if it contains an e-mail address."""
    name = place.name or ""
    return name if place.personal else masking.without_addresses(name)


def _leaf(value: Json, place: _Place) -> str:
    if not place.personal and value not in (None, "", [], {}) and not isinstance(value, bool):
        if masking.names_person(place.name or place.within, place.within) or _is_persons(value, place):
            return _text(masking.HIDDEN)
        value = masking.without_addresses(value) if isinstance(value, str) else value
    return repr(value) if isinstance(value, float) else _text(value)


def _is_persons(value: Json, place: _Place) -> bool:
    """Whether a value is personal, by its surroundings or by its own form."""
    name = place.name or place.within
    if not isinstance(value, str):
        return False
    return (
        (place.of_person and name in _NAMES)
        or (place.answer and name in _ANSWERS)
        or masking.is_telephone_number(value)
    )


_NAMES: Final = frozenset({"name", "public_name"})
_ANSWERS: Final = frozenset({"value", "answer", "text", "labels"})


def _text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# ------------------------------------------------------------------------------------------------------ what is shown


def _beginning(lines: Iterable[str]) -> tuple[tuple[BodyLine, ...], int, bool]:
    """(lines, found, cut) of a body without a search."""
    shown: list[BodyLine] = []
    room = SHOWN_MAX
    cut = False
    for number, line in enumerate(lines, 1):
        if room <= 0:
            return tuple(shown), 0, True
        cut = cut or len(line) > LINE_MAX
        text = _cut(line)
        shown.append(BodyLine(number, (BodyPart(text, found=False),), gap=False))
        room -= len(text) + 20
    return tuple(shown), 0, cut


def _searched(lines: list[str], find: str) -> tuple[tuple[BodyLine, ...], int, bool]:
    """The lines that contain a string, and those around them; all lines if there is room."""
    pattern = re.compile(re.escape(find), re.IGNORECASE)
    hits = [at for at, line in enumerate(lines) if pattern.search(line)]
    found = sum(len(pattern.findall(lines[at])) for at in hits)
    small = sum(map(len, lines)) <= SHOWN_MAX and all(len(line) <= LINE_MAX for line in lines)
    near = {at for hit in hits for at in range(hit - _AROUND, hit + _AROUND + 1) if 0 <= at < len(lines)}
    numbers = range(len(lines)) if small else sorted(near)
    shown: list[BodyLine] = []
    room, last = SHOWN_MAX, -1
    for at in numbers:
        if room <= 0:
            break
        parts = tuple(_marked(lines[at], pattern))
        shown.append(BodyLine(at + 1, parts, gap=at > last + 1))
        room -= sum(len(part.text) for part in parts) + 20
        last = at
    return tuple(shown), found, not small


def _marked(line: str, pattern: re.Pattern[str]) -> Iterator[BodyPart]:
    """A line in pieces with the matches marked; for a long line, only the part around the first match."""
    first = pattern.search(line)
    if len(line) > LINE_MAX:
        start = max(first.start() - _BEFORE, 0) if first else 0
        line = ("…" if start else "") + line[start : start + LINE_MAX] + ("…" if start + LINE_MAX < len(line) else "")
    end = 0
    for match in pattern.finditer(line):
        if match.start() > end:
            yield BodyPart(line[end : match.start()], found=False)
        yield BodyPart(match[0], found=True)
        end = match.end()
    if end < len(line):
        yield BodyPart(line[end:], found=False)


def _cut(line: str) -> str:
    return line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]}…"


# -------------------------------------------------------------------------------------------- the provider's own page


def provider_page(detail: EventDetail, source: Source | None) -> str | None:
    """The URL of the provider's own page (`page` of its preset); None if there is none, or an id is missing."""
    line = detail.line
    pages: Sequence[Mapping[str, Any]] = stated(line.provider, "page") or ()
    for page in pages:
        pattern = page.get("test" if line.test else "live")
        if pattern and ("event" not in page or line.type in event_types(page["event"])):
            address = _filled_in(pattern, {"id": line.provider_event_id, "account": line.account}, detail, source)
            if address is not None:
                return address
    return None


def _filled_in(pattern: str, known: Mapping[str, str | None], detail: EventDetail, source: Source | None) -> str | None:
    """The URL pattern with its ids filled in; None if the event lacks one or has something else in its place."""
    names = _NAMED.findall(pattern)
    document = _document(detail, source) if set(names) - set(known) else {}
    for name in names:
        value = known[name] if name in known else _value_at(document, name)
        if value is None or not _ID.fullmatch(value):
            return None
        pattern = pattern.replace(f"{{{name}}}", value)
    return pattern


def _document(detail: EventDetail, source: Source | None) -> Json:
    if source is None or detail.event.body is None:
        return {}
    try:
        return sources.parse(source, detail.event.body)
    except UnreadableBody:
        return {}


def _value_at(document: Json, path: str) -> str | None:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return None if document is None or isinstance(document, dict | list | bool) else str(document)
