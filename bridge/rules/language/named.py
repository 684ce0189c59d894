"""Named values: what `values:` of a preset and of a file call by a name, and rules read as `{value.plan}`.

A value is a template, or code of the bridge (`builtin`), or a list of both by event type, of which the first that is
for the event's type counts. It is computed when the first rule asks for it, once per event, and again only for the
event as it was before the change. A value that needs itself is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bridge.model import MISSING, Derived, Document, Source
from bridge.rules.language.filters import Scope
from bridge.rules.language.templates import Placeholder, Template
from bridge.rules.language.values import Value, before, is_empty

if TYPE_CHECKING:
    from bridge.globs import Glob

KEYED: Final = re.compile(r"\bkey\b")  # what reads the ids that the bridge recognised, or a field of that name
_TYPES_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to compute a value, for events of these types."""

    globs: tuple[Glob, ...]
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
    """The values of one source. by_type: event type -> what is for it, remembered (at most _TYPES_MAX)."""

    choices: Mapping[str, tuple[Choice, ...]]
    by_type: dict[str, dict[str, Choice | None]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def keyed(self) -> bool:
        """Whether one of them may read `key.`; those of code do not."""
        sources = (choice.source for choices in self.choices.values() for choice in choices)
        return any(isinstance(source, Template) and KEYED.search(source.text) for source in sources)

    def of(self, event_type: str, hash_key: bytes, counted: Mapping[str, int]) -> Derived:
        """What is to be computed of one event. Threads may race to remember a type: they remember the same."""
        found = self.by_type.get(event_type)
        if found is None:
            found = {name: _for(event_type, choices) for name, choices in self.choices.items()}
            if len(self.by_type) >= _TYPES_MAX:
                self.by_type.clear()
            self.by_type[event_type] = found
        return Computed(found, hash_key, counted)


def _for(event_type: str, choices: tuple[Choice, ...]) -> Choice | None:
    return next((choice for choice in choices if any(glob.matches(event_type) for glob in choice.globs)), None)


class Computed:
    """What was computed of one document so far."""

    __slots__ = ("_before", "_choices", "_counted", "_hash_key", "_known")

    def __init__(self, choices: Mapping[str, Choice | None], hash_key: bytes, counted: Mapping[str, int]) -> None:
        self._choices, self._hash_key, self._counted = choices, hash_key, counted
        self._known: dict[str, Value] = {}
        self._before: Document | None = None

    def has(self, name: str) -> bool:
        return name in self._choices

    def value(self, name: str, document: Document) -> Value:
        known = self._known
        if name not in known:
            known[name] = MISSING  # what it is while it is computed: a value that needs itself is missing
            choice = self._choices.get(name)
            if choice is not None:
                known[name] = choice.read(Scope(document, self._hash_key, self._counted))
        return known[name]

    def was(self, document: Document) -> Document:
        if self._before is None:
            made = before(document, Computed(self._choices, self._hash_key, self._counted))
            self._before = document if made.body is document.body else made
        return self._before


NO_VALUES: Final = Values({})


def with_values(document: Document, source: Source, event_type: str, hash_key: bytes) -> Document:
    """The document with room for its values and for what it was before the change."""
    derived = (source.values or NO_VALUES).of(event_type, hash_key, source.decimals)
    roots = (document.body, document.header, document.query, document.envelope, document.key, document.root)
    return Document(*roots, derived)
