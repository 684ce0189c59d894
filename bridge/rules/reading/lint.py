"""What a file says that is right by the grammar and hardly what was meant: a warning, or an error of `check --strict`.

`amount: data.object.amount_total` sends those words, `">= 100"` compares with that string, and `{{x}}` is `{x}`.
Nothing here is ever a reason to refuse a file: providers add names of events, and a string may look like a path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from bridge.globs import compile_glob, is_glob
from bridge.rules.language.values import number as number_of
from bridge.rules.reading.report import numbered
from bridge.rules.reading.strict_yaml import KEY
from bridge.rules.reading.when import AMOUNT, AMOUNTS, OPERATORS
from bridge.text import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from bridge.rules.reading.report import Diagnostics, Steps
    from bridge.rules.reading.schema import GoalStanza, MappingFile

_DOTTED: Final = re.compile(r"""(?:\$\.)?[A-Za-z_][A-Za-z0-9_-]*((\.[A-Za-z0-9_*-]+)|(\[[^\]]*\]))+""")
_COMPARISON: Final = re.compile(r"\s*(>=|=>|<=|=<|!=|<>|==|[<>=])\s*\S")
_PATH: Final = r"""\s*(?P<path>[A-Za-z_][A-Za-z0-9_.\[\]*"'|=: -]*?)\s*"""
_DOUBLED: Final = re.compile(r"\{\{" + _PATH + r"\}\}")
_DOLLAR: Final = re.compile(r"\$\{(?P<path>[A-Za-z_][A-Za-z0-9_-]*(\.[^{}]+)?)\}")
_TAGGED: Final = re.compile(r"<%[=-]?" + _PATH + r"%>")
_VALUES: Final = (_DOUBLED, _DOLLAR, _TAGGED, re.compile(r"\{" + _PATH + r"\}"))  # of the event, as others write them
_ROOTED: Final = re.compile(r"\$\.(?P<path>[^{}|]*)")
_VALUES_OF: Final = re.compile(r"(?<![\w.])values\.(?P<path>[a-z][a-z0-9_]*)")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\S*")
_SEVERAL: Final = re.compile(r"\s*[,;|]+\s*|\s+or\s+")
_SMALL_CODE: Final = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,4})?) ?([a-z]{3}|[A-Z][a-z]{2})\s*")
_OPERATORS: Final = {">": "gt", ">=": "gte", "=>": "gte", "<": "lt", "<=": "lte", "=<": "lte", "!=": "not", "<>": "not"}
_ROOTS: Final = frozenset({"value", "was", "header", "query", "envelope", "event"})
_AMOUNTS: Final = frozenset(f"{was}value.{name}" for name in AMOUNTS for was in ("", "was."))
_MONEY: Final = _AMOUNTS - {"value.prices", "was.value.prices"}  # and not the ids of prices
_SOME_MONEY: Final = "1000 USD"
_OF_STRINGS: Final = ("prefix", "suffix", "contains", "glob")
_ALIKE: Final = 0.9  # "cancelled" and "canceled" are; "updated" and "created" are not


def lint(written: MappingFile, preset: Mapping[str, Any], report: Diagnostics) -> None:
    """Warn of every such place."""
    envelope = written.envelope.model_dump() if written.envelope is not None else {}
    named = frozenset(_places(preset)) | frozenset(_places({"envelope": envelope, "visitor": written.visitor}))
    roots = _ROOTS | {re.split(r"[.\[]", path)[0] for path in named if _DOTTED.fullmatch(path)}
    known = _event_types(preset)
    known_values = {*written.values, *preset.get("values", {})}
    types = {event for goal in written.goals for _, event in numbered(goal.event)}
    for where, text in _templates(written):
        if text not in types:
            _lint_template(where, text, (roots, named), report)
        _lint_values(where, "".join(re.findall(r"\{[^{}]*\}", text)), known_values, report)
    _lint_when(("when",), written.when, report)
    for i, goal in enumerate(written.goals):
        for where, path, _ in _conditions(("goals", i, "when"), goal.when):
            _lint_values((*where, KEY), path, known_values, report)
        _lint_when(("goals", i, "when"), goal.when, report)
        _lint_amounts(("goals", i, "when"), (written.when, goal.when), report)
        _lint_false(("goals", i, "metadata"), goal.metadata, report)
        _lint_events(i, goal, written.provider, known, report)


def _places(file: Mapping[str, Any]) -> Iterator[str]:
    """The paths at which a preset or a file itself looks for something."""
    for place in (*file.get("envelope", {}).values(), file.get("visitor"), *file.get("links", ())):
        yield from _paths(place)


def _paths(place: Any) -> Iterator[str]:
    if isinstance(place, str):
        yield place
    elif isinstance(place, dict):
        yield from _paths(place.get("path"))
    elif isinstance(place, list):
        for entry in place:
            yield from _paths(entry)


def _templates(written: MappingFile) -> Iterator[tuple[Steps, str]]:
    """Every string of a file that is sent, computed with or made a key of."""
    for name, value in (written.values or {}).items():
        for i, choice in enumerate(value if isinstance(value, list) else [value]):
            at: Steps = ("values", name, i, "value") if isinstance(value, list) else ("values", name)
            yield from _strings_of(at, getattr(choice, "value", choice))
    for i, goal in enumerate(written.goals):
        fields: dict[str, Any] = {"goal": goal.goal, "description": goal.description, "once_per": goal.once_per}
        fields["metadata"] = None if isinstance(goal.metadata, list) else goal.metadata
        fields["payment"] = goal.payment.model_dump() if goal.payment is not None else None
        for key, written_ in fields.items():
            for where, text in _strings_of(("goals", i, key), written_):
                if key != "once_per" or "{" in text or "$" in text:
                    yield where, text


def _strings_of(where: Steps, value: Any) -> Iterator[tuple[Steps, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _strings_of((*where, name), below)
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _strings_of((*where, i), below)


def _lint_template(
    where: Steps, text: str, paths: tuple[Collection[str], Collection[str]], report: Diagnostics
) -> None:
    """paths: what paths begin with, and whole ones."""
    roots, named = paths
    plain = text.removeprefix("$.")
    if found := _DOUBLED.search(text):
        report.suspect(where, f'"{found[0]}" is sent as "{{{found[1]}}}"; for the value write {{{found[1]}}}')
    elif found := _TAGGED.search(text):
        report.suspect(where, f'"{found[0]}" is sent as it stands; for the value write {{{found[1]}}}')
    elif found := _DOLLAR.search(text):
        report.suspect(where, f'"{found[0]}" puts a "$" before the value; for the value alone write {{{found[1]}}}')
    elif "{" in text and (found := _ROOTED.search(text)):
        report.suspect(where, f'"{found[0]}" names a field "$"; a path begins in the body: write {found[1]}')
    elif _DOTTED.fullmatch(text) and re.split(r"[.\[]", plain)[0] in roots:
        report.suspect(where, f'"{text}" is sent as these very words; for the value write "{{{plain}}}"')
    elif "_" in text and text in named:
        report.suspect(where, f'"{text}" is sent as this very word; for the value write "{{{text}}}"')


def _lint_values(where: Steps, paths: str, known: Collection[str], report: Diagnostics) -> None:
    """`values:` is the key of a file, and `value.` is what reads one of them."""
    found = _VALUES_OF.search(paths)
    if found and found["path"] in known:
        report.suspect(where, f'"{found[0]}" names a field "values" of the body; write value.{found["path"]}')


def _conditions(where: Steps, when: Any) -> Iterator[tuple[Steps, str, Any]]:
    """Every path of a `when:` with what is expected of it, also below `any`, `all`, `not` and of a list's elements."""
    if isinstance(when, list):
        for i, entry in enumerate(when):
            yield from _conditions((*where, i), entry)
    for path, expected in when.items() if isinstance(when, dict) else ():
        elements = "*" in path and isinstance(expected, dict) and not set(expected) & set(OPERATORS)
        if path in ("any", "all", "not") or elements:
            yield from _conditions((*where, path), expected)
        else:
            yield (*where, path), path, expected


def _lint_when(where: Steps, when: Mapping[str, Any] | None, report: Diagnostics) -> None:
    for steps, path, expected in _conditions(where, when):
        if found := _ROOTED.match(path):
            report.suspect(
                (*steps, KEY), f'"{path}" names a field "$"; a path begins in the body: write {found["path"]}'
            )
        for inner, text in _strings(expected):
            at = (*steps, *inner)
            if inner[-1:] == ("after",) and _DATE.fullmatch(text):
                report.suspect(at, f'"{text}" is read as a path; "after" takes the path of an earlier time')
            if found := _COMPARISON.match(text):
                operator, number = found[1], text[text.index(found[1]) + len(found[1]) :].strip()
                none = f', and "{number}" is not an amount' if path in _MONEY and not _is_amount(number) else ""
                wanted = _SOME_MONEY if none else number
                better = f"{{{_OPERATORS[operator]}: {wanted}}}" if operator in _OPERATORS else wanted
                report.suspect(at, f'"{text}" is compared as a string{none}; write {path}: {better}')
            elif path in _AMOUNTS and (found := _SMALL_CODE.fullmatch(text)):
                report.suspect(at, f'"{text}" is compared as a string; write {path}: {found[1]} {found[2].upper()}')
            elif found := next((hit for form in _VALUES if (hit := form.fullmatch(text.strip()))), None):
                better = f"{{path: {found['path']}}}"
                report.suspect(
                    at, f'"{text}" is compared as it stands; for a value of the event write {path}: {better}'
                )
            elif path in _MONEY and not _is_amount(text) and _is_compared(inner):
                report.suspect(at, f'"{text}" is not an amount, so {path} never equals it; write {path}: {_SOME_MONEY}')


def _is_amount(text: str) -> bool:
    return AMOUNT.fullmatch(text) is not None or number_of(text) is not None


def _is_compared(inner: Steps) -> bool:
    """Whether a string at this place of an expectation is compared for being equal."""
    return all(isinstance(step, int) or step in ("not", "in", "not_in", "any", "all") for step in inner)


def _lint_amounts(where: Steps, whens: tuple[Mapping[str, Any] | None, ...], report: Diagnostics) -> None:
    """100 of which currency? Where a condition beside it says one, it is said."""
    if any(path.endswith("value.currency") for when in whens for _, path, _ in _conditions((), when)):
        return
    for steps, path, expected in _conditions(where, whens[-1]):
        for number in _numbers(expected) if path in _AMOUNTS else ():
            better = f"{number} USD"
            sentence = f"{path} is compared with {number} of any currency; write {better}, or name value.currency, too"
            report.suspect(steps, sentence)


def _lint_false(where: Steps, metadata: Any, report: Diagnostics) -> None:
    """In a rule that a layer changes or likes, `false` has taken the entry away before anybody looks here."""
    for name, written in metadata.items() if isinstance(metadata, dict) else ():
        if written is False:
            report.suspect(
                (*where, name),
                f'"{name}: false" sends the word "false": it takes an entry away only from a shipped rule (one that'
                f' "id" or "like" names); leave the entry out, or write {name}: "false"',
            )


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
            if name not in _OF_STRINGS:
                yield from (((name, *steps), text) for steps, text in _strings(entry))


def _event_types(preset: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(str(preset.get("event_names", "")).split())


def _lint_events(i: int, goal: GoalStanza, provider: str, known: frozenset[str], report: Diagnostics) -> None:
    """Lemon Squeezy writes "cancelled", Stripe "canceled". Providers add names, so this is never a reason to refuse."""
    families = {f"{event[: dot.start()]}{dot[0]}*" for event in known for dot in re.finditer(r"[._:/]", event)}
    for where, event in numbered(goal.event):
        pieces = [piece for piece in _SEVERAL.split(event) if piece]
        at = ("goals", i, "event", *where)
        if any(compile_glob(event).matches(one) for one in known) or not event.strip("*"):
            continue
        if len(pieces) > 1:
            report.suspect(at, f'"{event}" is the name of one type of event; write [{", ".join(pieces)}]')
        elif (meant := nearest(event, families if is_glob(event) else known, likeness=_ALIKE)) not in (None, event):
            report.suspect(at, f'{provider} is not known to send "{event}"; did you mean "{meant}"?')
