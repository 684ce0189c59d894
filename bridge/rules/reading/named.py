"""Compiles `values:` of a preset or a file, and finds which of them a path, a template or a condition reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge.rules.language.prices import BUILTINS
from bridge.rules.language.templates import Choice, Template, Values, compile_template
from bridge.rules.reading.report import Reporter, Steps, below, listed, numbered
from bridge.rules.reading.schema import Chosen, NamedValue, Preset
from bridge.rules.reading.strict_yaml import KEY
from bridge.text import did_you_mean, text_of

if TYPE_CHECKING:
    from bridge.model import Json

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


def compile_values(
    written: Mapping[str, NamedValue], maps: Mapping[str, Mapping[str, Json]], problem: Reporter
) -> Values:
    """Compile `values:`; every problem goes to `problem`, and a value with a problem is left out."""
    choices: dict[str, tuple[Choice, ...]] = {}
    for name, value in written.items():
        if not NAME.fullmatch(name):
            problem((name, KEY), f'the name of a value is a word such as plan or seats_left, not "{name[:40]}"')
        entries = numbered(value)
        choices[name] = tuple(
            choice
            for where, entry in entries
            if (choice := _choice(entry, maps, below(problem, name, *where))) is not None
        )
        if not entries:
            problem((name,), "a list without an entry is never a value; leave the name out")
    return Values(choices)


@lru_cache(maxsize=64)
def preset_values(written: str) -> tuple[Values, tuple[tuple[Steps, str], ...]]:
    """Compile a preset's `values:`, given as JSON; also returns what is wrong with them.

    They are the same for all files and at every reload (their templates know no `maps`), so once per process is enough.
    """
    problems: list[tuple[Steps, str]] = []
    values = Preset.model_validate({"values": json.loads(written)}).values
    return compile_values(values, {}, lambda where, text: problems.append((where, text))), tuple(problems)


def _choice(written: object, maps: Mapping[str, Mapping[str, Json]], problem: Reporter) -> Choice | None:
    if not isinstance(written, Chosen):
        source = _template(text_of(written) or "", maps, problem)
        return Choice(("*",), source) if source is not None else None
    events = listed(written.event)
    if (written.value is None) is (written.builtin is None):
        problem((), 'an entry takes either "value" (a template) or "builtin"')
        return None
    if written.builtin is not None:
        compute = BUILTINS.get(written.builtin)
        if compute is None:
            problem(
                ("builtin",), f'there is no builtin "{written.builtin[:60]}"' + did_you_mean(written.builtin, BUILTINS)
            )
            return None
        return Choice(events, compute)
    template = _template(text_of(written.value) or "", maps, below(problem, "value"))
    return Choice(events, template) if template is not None else None


def _template(text: str, maps: Mapping[str, Mapping[str, Json]], problem: Reporter) -> Template | None:
    try:
        return compile_template(text, maps)
    except ValueError as error:
        problem((), str(error))
        return None


def merged_values(*layers: Values) -> Values:
    """All values; a later layer's values win by name."""
    return Values({name: choices for layer in layers for name, choices in layer.choices.items()})


def circular(own: Values, known: Values) -> Iterator[str]:
    """The names of a file's own values that need themselves, possibly through others: they can never be computed."""
    needs = {name: _needed(choices) for name, choices in known.choices.items()}
    for name in own.choices:
        waiting, seen = list(needs[name]), set[str]()
        while waiting:
            if (other := waiting.pop()) not in seen:
                seen.add(other)
                waiting += needs.get(other, ())
        if name in seen:
            yield name


def _needed(choices: tuple[Choice, ...]) -> list[str]:
    """The values without which this one is missing."""
    parts = [part for choice in choices if isinstance(choice.source, Template) for part in choice.source.placeholders]
    return [name for part in parts if len(part.paths) == 1 for name in _READ.findall(part.text)]


# ------------------------------------------------------------------------------------------- which values are read

_MONEY: Final = re.compile(r"\s*[0-9.]+ ?[A-Z]{3}\s*")  # as in `when`, for comparison with a value
_READ: Final = re.compile(r'(?:^|(?<=[\s{|:]))(?:was\.)?value\."?([A-Za-z0-9_]+)')


def check_text(text: str, values: Values, problem: Reporter) -> None:
    """Report each value that a path or a placeholder reads and that is not in `values:`.

    If there are no values at all, `value` is an ordinary field of the body.
    """
    for name in dict.fromkeys(_READ.findall(text)):
        if values.choices and name not in values.choices:
            known = did_you_mean(name, values.choices)
            problem((), f'no value is named "{name[:40]}"{known} (a field of the body named value is body.value)')


def check_template(template: Template, values: Values, problem: Reporter) -> None:
    """Check all placeholders of a template like `check_text`."""
    for placeholder in template.placeholders:
        check_text(placeholder.text, values, problem)


def check_when(when: Json, values: Values, problem: Reporter) -> None:
    """Check the paths of a `when:` map, and those that values are compared with, like `check_text`."""
    if isinstance(when, list):
        for i, entry in enumerate(when):
            check_when(entry, values, below(problem, i))
    if not isinstance(when, dict):
        return
    for key, expected in when.items():
        check_text(key, values, below(problem, key, KEY))
        if key in ("path", "after") and isinstance(expected, str):
            check_text(expected, values, below(problem, key))
        if values.choices and "currency" not in values.choices and _MONEY.fullmatch(str(expected)):
            problem((key,), f'"{expected}" is compared with the value "currency", which `values:` does not have')
        check_when(expected, values, below(problem, key))
