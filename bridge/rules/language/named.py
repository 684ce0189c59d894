"""Named values: what `values:` of a preset and of a file call by a name, and rules read as `{value.plan}`.

A value is a template, or code of the bridge (`builtin`), or a list of both by event type, of which the first that is
for the event's type counts. It is computed when the first rule asks for it, once per event, and again only for the
event as it was before the change. A value that needs itself is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bridge.globs import of_type
from bridge.model import MISSING, Derived, Document, Source
from bridge.rules.language.filters import Scope
from bridge.rules.language.templates import Placeholder, Template
from bridge.rules.language.values import Value, before, is_empty

KEYED: Final = re.compile(r"\bkey\b")  # what reads the ids that the bridge recognised, or a field of that name


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
        """Whether one of them may read `key.`; those of code do not."""
        sources = (choice.source for choices in self.choices.values() for choice in choices)
        return any(isinstance(source, Template) and KEYED.search(source.text) for source in sources)

    def of(self, event_type: str, hash_key: bytes, counted: Mapping[str, int]) -> Derived:
        """What is to be computed of one event."""
        return Computed(self.choices, event_type, hash_key, counted)


class Computed:
    """What was computed of one document so far."""

    __slots__ = ("_before", "_choices", "_counted", "_event_type", "_hash_key", "_known")

    def __init__(
        self, choices: Mapping[str, tuple[Choice, ...]], event_type: str, hash_key: bytes, counted: Mapping[str, int]
    ) -> None:
        self._choices, self._event_type, self._hash_key, self._counted = choices, event_type, hash_key, counted
        self._known: dict[str, Value] = {}
        self._before: Document | None = None

    def has(self, name: str) -> bool:
        return name in self._choices

    def value(self, name: str, document: Document) -> Value:
        known = self._known
        if name not in known:
            known[name] = MISSING  # what it is while it is computed: a value that needs itself is missing
            for choice in of_type(self._choices.get(name, ()), self._event_type)[:1]:
                known[name] = choice.read(Scope(document, self._hash_key, self._counted))
        return known[name]

    def was(self, document: Document) -> Document:
        if self._before is None:
            made = before(document, Computed(self._choices, self._event_type, self._hash_key, self._counted))
            self._before = document if made.body is document.body else made
        return self._before


NO_VALUES: Final = Values({})


def with_values(document: Document, source: Source, event_type: str, hash_key: bytes) -> Document:
    """The document with room for its values and for what it was before the change."""
    derived = (source.values or NO_VALUES).of(event_type, hash_key, source.decimals)
    roots = (document.body, document.header, document.query, document.envelope, document.key, document.root)
    return Document(*roots, derived)
