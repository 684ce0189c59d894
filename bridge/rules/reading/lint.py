"""What a file says that is right by the grammar and hardly what was meant: a warning, or an error of `check --strict`.

`amount: data.object.amount_total` sends those words, `">= 100"` compares with that string, and `{{x}}` is `{x}`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from bridge.globs import is_glob
from bridge.rules.reading.report import numbered
from bridge.rules.reading.when import AMOUNTS
from bridge.text import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from bridge.rules.reading.report import Diagnostics, Steps
    from bridge.rules.reading.schema import GoalStanza, MappingFile

_DOTTED: Final = re.compile(r"""[A-Za-z_][A-Za-z0-9_-]*((\.[A-Za-z0-9_*-]+)|(\[[^\]]*\]))+""")
_COMPARISON: Final = re.compile(r"\s*(>=|=>|<=|=<|!=|<>|==|[<>=])\s*\S")
_DOUBLED: Final = re.compile(r"""\{\{\s*([A-Za-z_][A-Za-z0-9_.\[\]*"'|=: -]*?)\s*\}\}""")
_DOLLAR: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_-]*(\.[^{}]+)?)\}")
_OPERATORS: Final = {">": "gt", ">=": "gte", "=>": "gte", "<": "lt", "<=": "lte", "=<": "lte", "!=": "not", "<>": "not"}
_ROOTS: Final = frozenset({"value", "was", "header", "query", "envelope", "event"})
_AMOUNTS: Final = frozenset(f"{was}value.{name}" for name in AMOUNTS for was in ("", "was."))
_ALIKE: Final = 0.9  # "cancelled" and "canceled" are; "updated" and "created" are not


def lint(written: MappingFile, preset: Mapping[str, Any], report: Diagnostics) -> None:
    """Warn of every such place."""
    roots = _ROOTS | _roots_of(preset)
    known = _event_types(preset)
    for where, texts in _templates(written):
        for steps, text in texts:
            _lint_template((*where, *steps), text, roots, report)
    _lint_when((), written.when, report)
    for i, goal in enumerate(written.goals):
        _lint_when(("goals", i), goal.when, report)
        _lint_amounts(("goals", i), (written.when, goal.when), report)
        _lint_events(i, goal, written.provider, known, report)


def _roots_of(preset: Mapping[str, Any]) -> frozenset[str]:
    """What the paths of a preset begin with: the top of a body of this provider."""
    places = (*preset.get("envelope", {}).values(), preset.get("visitor"), *preset.get("links", ()))
    return frozenset(text.split(".")[0].split("[")[0] for place in places for text in _paths(place))


def _paths(place: Any) -> Iterator[str]:
    if isinstance(place, str) and _DOTTED.fullmatch(place):
        yield place
    elif isinstance(place, dict):
        yield from _paths(place.get("path"))
    elif isinstance(place, list):
        for entry in place:
            yield from _paths(entry)


def _templates(written: MappingFile) -> Iterator[tuple[Steps, list[tuple[Steps, str]]]]:
    for i, goal in enumerate(written.goals):
        yield ("goals", i, "goal"), [((), goal.goal)]
        if goal.description is not None:
            yield ("goals", i, "description"), [((), goal.description)]
        if isinstance(goal.metadata, dict):
            yield ("goals", i, "metadata"), [((name,), text) for name, text in goal.metadata.items()]


def _lint_template(where: Steps, text: Any, roots: Collection[str], report: Diagnostics) -> None:
    if not isinstance(text, str):
        return
    if found := _DOUBLED.search(text):
        report.suspect(where, f'"{found[0]}" is sent as "{{{found[1]}}}"; for the value write {{{found[1]}}}')
    elif found := _DOLLAR.search(text):
        report.suspect(where, f'"{found[0]}" puts a "$" before the value; for the value alone write {{{found[1]}}}')
    elif _DOTTED.fullmatch(text) and re.split(r"[.\[]", text)[0] in roots:
        report.suspect(where, f'"{text}" is sent as these very words; for the value write "{{{text}}}"')


def _lint_when(where: Steps, when: Mapping[str, Any] | None, report: Diagnostics) -> None:
    for path, expectation in (when or {}).items():
        for steps, text in _strings(expectation):
            if found := _COMPARISON.match(text):
                operator, number = found[1], text[text.index(found[1]) + len(found[1]) :].strip()
                better = f"{{{_OPERATORS[operator]}: {number}}}" if operator in _OPERATORS else number
                sentence = f'"{text}" is compared as a string; write {path}: {better}'
                report.suspect((*where, "when", path, *steps), sentence)


def _lint_amounts(where: Steps, whens: tuple[Mapping[str, Any] | None, ...], report: Diagnostics) -> None:
    """100 of which currency? Where a condition beside it says one, it is said."""
    if any(path.endswith("value.currency") for when in whens for path in _keys(when)):
        return
    for path, expectation in (whens[-1] or {}).items():
        if path in _AMOUNTS:
            for number in _numbers(expectation):
                better = f"{number} USD"
                sentence = (
                    f"{path} is compared with {number} of any currency; write {better}, or name value.currency, too"
                )
                report.suspect((*where, "when", path), sentence)


def _keys(when: Any) -> Iterator[str]:
    for entry in when if isinstance(when, list) else [when]:
        for path, below in entry.items() if isinstance(entry, dict) else ():
            yield path
            yield from _keys(below)


def _numbers(expectation: Any) -> Iterator[Any]:
    """The numbers that an amount is compared with; nothing is the same in every currency."""
    if isinstance(expectation, (int, float)) and not isinstance(expectation, bool) and expectation:
        yield expectation
    elif isinstance(expectation, (list, dict)):
        entries = expectation.values() if isinstance(expectation, dict) else expectation
        for entry in entries:
            yield from _numbers(entry)


def _strings(expectation: Any) -> Iterator[tuple[Steps, str]]:
    if isinstance(expectation, str):
        yield (), expectation
    elif isinstance(expectation, list):
        for i, entry in enumerate(expectation):
            yield from (((i, *steps), text) for steps, text in _strings(entry))
    elif isinstance(expectation, dict):
        for name, entry in expectation.items():
            if name not in ("prefix", "suffix", "contains", "matches", "glob"):
                yield from (((name, *steps), text) for steps, text in _strings(entry))


def _event_types(preset: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(str(preset.get("event_names", "")).split())


def _lint_events(i: int, goal: GoalStanza, provider: str, known: frozenset[str], report: Diagnostics) -> None:
    """Lemon Squeezy writes "cancelled", Stripe "canceled". Providers add names, so this is never a reason to refuse."""
    for where, event in numbered(goal.event):
        meant = None if event in known or is_glob(event) else nearest(event, known, likeness=_ALIKE)
        if meant is not None:
            sentence = f'{provider} is not known to send "{event}"; did you mean "{meant}"?'
            report.suspect(("goals", i, "event", *where), sentence)
