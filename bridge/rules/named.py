"""Named values: what `values:` of a preset and of a file call by a name, and rules read as `{value.plan}`.

A value is a template, or code of the bridge (`builtin`), or a list of both by event type, of which the first that is
for the event's type counts. It is computed when the first rule asks for it, once per event, and again only for the
event as it was before the change. A value that needs itself is missing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge.model import MISSING, Document
from bridge.rules.before import before
from bridge.rules.filters import Scope
from bridge.rules.globs import compile_glob
from bridge.rules.recurring import BUILTINS
from bridge.rules.schema import Chosen, Preset
from bridge.rules.spelling import did_you_mean
from bridge.rules.strict_yaml import KEY
from bridge.rules.templates import Placeholder, Template, compile_template
from bridge.rules.texts import below, numbered
from bridge.rules.values import Value, is_empty, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.model import Derived, Json, Source
    from bridge.rules.globs import Glob
    from bridge.rules.reporting import Fault, Where
    from bridge.rules.schema import SaidValue

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
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
            self._before = before(document, Computed(self._choices, self._hash_key, self._counted))
        return self._before


NO_VALUES: Final = Values({})


def with_values(document: Document, source: Source, event_type: str, hash_key: bytes) -> Document:
    """The document with room for its values and for what it was before the change."""
    derived = (source.values or NO_VALUES).of(event_type, hash_key, source.decimals)
    roots = (document.body, document.header, document.query, document.envelope, document.key, document.root)
    return Document(*roots, derived)


# --------------------------------------------------------------------------------------------------- compilation


def compile_values(said: Mapping[str, SaidValue], maps: Mapping[str, Mapping[str, Json]], fault: Fault) -> Values:
    """Compile `values:`; every problem is told to `fault`, and what has one is left out."""
    choices: dict[str, tuple[Choice, ...]] = {}
    for name, value in said.items():
        if not NAME.fullmatch(name):
            fault((name, KEY), f'the name of a value is a word such as plan or seats_left, not "{name[:40]}"')
        listed = value if isinstance(value, list) else [value]
        steps = [(name, i) if isinstance(value, list) else (name,) for i in range(len(listed))]
        choices[name] = tuple(
            choice
            for one, where in zip(listed, steps, strict=True)
            if (choice := _choice(one, maps, below(fault, *where))) is not None
        )
        if not listed:
            fault((name,), "a list without an entry is never a value; leave the name out")
    return Values(choices)


@lru_cache(maxsize=64)
def preset_values(said: str) -> tuple[Values, tuple[tuple[Where, str], ...]]:
    """Compile a preset's `values:`, given as JSON, and what is wrong with them.

    They are the same for all files and at every reload (their templates know no `maps`), so once a process is enough.
    """
    problems: list[tuple[Where, str]] = []
    values = Preset.model_validate({"values": json.loads(said)}).values
    return compile_values(values, {}, lambda where, text: problems.append((where, text))), tuple(problems)


def _choice(said: object, maps: Mapping[str, Mapping[str, Json]], fault: Fault) -> Choice | None:
    if not isinstance(said, Chosen):
        source = _template(text_of(said) or "", maps, fault)
        return Choice((compile_glob("*"),), source) if source is not None else None
    globs = tuple(compile_glob(text) for _, text in numbered(said.event))
    if (said.value is None) is (said.builtin is None):
        fault((), 'an entry takes either "value" (a template) or "builtin"')
        return None
    if said.builtin is not None:
        compute = BUILTINS.get(said.builtin)
        if compute is None:
            fault(("builtin",), f'there is no builtin "{said.builtin[:60]}"' + did_you_mean(said.builtin, BUILTINS))
            return None
        return Choice(globs, compute)
    template = _template(text_of(said.value) or "", maps, below(fault, "value"))
    return Choice(globs, template) if template is not None else None


def _template(text: str, maps: Mapping[str, Mapping[str, Json]], fault: Fault) -> Template | None:
    try:
        return compile_template(text, maps)
    except ValueError as error:
        fault((), str(error))
        return None


def merged(*layers: Values) -> Values:
    """All values; a later layer's win by name."""
    return Values({name: choices for layer in layers for name, choices in layer.choices.items()})


# ------------------------------------------------------------------------------------------- what texts read of them

_READ: Final = re.compile(r'(?:^|(?<=[\s{|:]))(?:was\.)?value\."?([A-Za-z0-9_]+)')


def check_text(text: str, values: Values, fault: Fault) -> None:
    """Tell of each value that a path or a placeholder reads and nobody names.

    Where there are no values at all, `value` is an ordinary field of the body.
    """
    for name in dict.fromkeys(_READ.findall(text)):
        if values.choices and name not in values.choices:
            known = did_you_mean(name, values.choices)
            fault(
                (), f'no value is called "{name[:40]}"{known} (a field of the body that is called value is body.value)'
            )


def check_template(template: Template, values: Values, fault: Fault) -> None:
    """The same of all placeholders of a template."""
    for placeholder in template.placeholders:
        check_text(placeholder.text, values, fault)


def check_when(when: Json, values: Values, fault: Fault) -> None:
    """The same of a `when:` map: of its paths, and of those that values are compared with."""
    if isinstance(when, list):
        for i, each in enumerate(when):
            check_when(each, values, below(fault, i))
    if not isinstance(when, dict):
        return
    for key, expected in when.items():
        check_text(key, values, below(fault, key, KEY))
        if key in ("path", "after") and isinstance(expected, str):
            check_text(expected, values, below(fault, key))
        check_when(expected, values, below(fault, key))
