"""Globs: `*` for any characters (dots, too), `?` for one; nothing else is special. Linear time for any text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

_CACHE_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Glob:
    """A compiled glob: the pieces between its stars, each a regular expression without repetition."""

    text: str
    pieces: tuple[re.Pattern[str], ...]
    last_width: int  # of the piece after the last star, in characters

    def matches(self, text: str) -> bool:
        if len(self.pieces) == 1:
            return self.pieces[0].fullmatch(text) is not None
        first, *middle, last = self.pieces
        start = first.match(text)
        if start is None:
            return False
        position = start.end()
        for piece in middle:
            found = piece.search(text, position)
            if found is None:
                return False
            position = found.end()
        end = len(text) - self.last_width
        return end >= position and last.fullmatch(text, end) is not None


def compile_glob(text: str) -> Glob:
    pieces = tuple(
        re.compile("".join("." if character == "?" else re.escape(character) for character in piece), re.DOTALL)
        for piece in text.split("*")
    )
    return Glob(text, pieces, len(text.rpartition("*")[2]))


def is_glob(text: str) -> bool:
    return "*" in text or "?" in text


@dataclass(frozen=True, slots=True)
class EventTypeSet:
    """A set of event types, by name and by glob."""

    names: frozenset[str]
    globs: tuple[Glob, ...]

    def __contains__(self, event_type: object) -> bool:
        if not isinstance(event_type, str):
            return False
        return event_type in self.names or any(glob.matches(event_type) for glob in self.globs)


def event_types(patterns: Iterable[str]) -> EventTypeSet:
    """The types that these patterns name; a pattern of stars alone names none, it only excludes none."""
    named = {pattern for pattern in patterns if pattern.strip("*")}
    globs = sorted(pattern for pattern in named if is_glob(pattern))
    return EventTypeSet(frozenset(named.difference(globs)), tuple(compile_glob(glob) for glob in globs))


class OfTypes(Protocol):
    """Anything that concerns events of these types (globs)."""

    @property
    def events(self) -> tuple[str, ...]: ...


Spec = TypeVar("Spec", bound=OfTypes)
_cache: dict[tuple[int, str], tuple[object, tuple[Any, ...]]] = {}


def of_type(specs: tuple[Spec, ...], event_type: str) -> tuple[Spec, ...]:
    """Those of a source's specs that concern events of this type.

    Cached, because every event needs it. Threads may race to cache, because they cache equal values.
    """
    place = (id(specs), event_type)
    cached = _cache.get(place)
    if cached is not None and cached[0] is specs:
        return cached[1]
    found = tuple(spec for spec in specs if any(compile_glob(pattern).matches(event_type) for pattern in spec.events))
    if len(_cache) >= _CACHE_MAX:
        _cache.clear()
    _cache[place] = (specs, found)
    return found
