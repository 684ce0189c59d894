"""Warns about what is valid but probably not what was meant; `check --strict` makes these warnings errors.

`amount: data.object.amount_total` sends those words, `">= 100"` compares with that string, and `{{x}}` is `{x}`.
Nothing here is ever a reason to refuse a file: providers add event names, and a string may look like a path.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge.globs import compile_glob, is_glob
from bridge.rules.language.filters import FILTERS
from bridge.rules.language.values import number as number_of
from bridge.rules.reading.fields import Fields
from bridge.rules.reading.report import Diagnostics, Steps, numbered
from bridge.rules.reading.strict_yaml import KEY, Node
from bridge.rules.reading.when import AMOUNT, AMOUNTS, OPERATORS
from bridge.text import nearest

if TYPE_CHECKING:
    from bridge.rules.reading.schema import GoalStanza, MappingFile

_DOTTED: Final = re.compile(r"""(?:\$\.)?[A-Za-z_][A-Za-z0-9_-]*((\.[A-Za-z0-9_*-]+)|(\[[^\]]*\]))+""")
_COMPARISON: Final = re.compile(
    r"\s*(?P<operator>>=|=>|<=|=<|!=|<>|==|[<>=≥≤≠]|!(?=\w)|[gl]te?(?=[ :=]+[0-9]))[\s:=]*(?P<operand>\S.*?)\s*"
)
_PATH: Final = r"""\s*(?P<path>[A-Za-z_][A-Za-z0-9_.\[\]*"'|=: -]*?)\s*"""
_DOUBLED: Final = re.compile(r"\{\{(?P<path>[^{}]*)\}\}")
_SIGNED: Final = re.compile(  # "#{data.number}" is the number of something, "#{value.plan}" is a value as in Ruby
    r"(?P<sign>[$%]|#(?!\{[^{}]*(?:id|no|number|order|name|key|code|ref\w*)[|}]))"
    r"\{(?P<path>[A-Za-z_][A-Za-z0-9_-]*(\.[^{}]+)?)\}"
)
_TAGGED: Final = re.compile(r"<%[=-]?" + _PATH + r"%>")
_VALUES: Final = (_DOUBLED, _SIGNED, _TAGGED, re.compile(r"\{" + _PATH + r"\}"))  # values, as other tools write them
_PLAIN: Final = re.compile(_PATH)
_FOREIGN_ROOT: Final = re.compile(r"\$json\.(?:body\.)?|\$\.?|[0-9]+__")  # how paths begin in n8n and Zapier
_FOREIGN_SIGNS: Final = " $()[]<>%:@=#"  # what other languages put around a name
_ROOTED: Final = re.compile(r"\$\.(?P<path>[^{}|]*)")
_VALUES_OF: Final = re.compile(r"(?<![\w.])values\.(?P<path>[a-z][a-z0-9_]*)")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\S*")
_SEVERAL: Final = re.compile(r"\s*[,;|]+\s*|\s+or\s+")
_CODE: Final = re.compile(
    r"\|\s*((?:money|minor):(usd|eur|gbp|jpy|chf|cad|aud|nzd|inr|brl|mxn|sek|nok|dkk|pln))\s*[|}]", re.IGNORECASE
)
_SUMMAND: Final = re.compile(r"\|\s*((plus|minus):\s*-?[0-9.]+)\s*[|}]")
_SEVERAL_PATHS: Final = re.compile(r"\s+or\s+")
_SMALL_CODE: Final = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,4})?) ?([a-z]{3}|[A-Z][a-z]{2})\s*")
_CODE_OR_NUMBER: Final = re.compile(r"[A-Za-z]{3}|-?[0-9.]+")
_COUNTRIES: Final = frozenset({"value.country", "was.value.country"})
_COUNTRY_CODES: Final = {
    "uk": "GB", "england": "GB", "usa": "US", "germany": "DE", "france": "FR", "india": "IN", "canada": "CA",
}  # fmt: skip
_DATE_TOKENS: Final = {"YYYY": "%Y", "MM": "%m", "DD": "%d", "HH": "%H", "ss": "%S", "yyyy": "%Y", "dd": "%d"}
_DATE_FORM: Final = re.compile(r"\|\s*date:([^%|}]+)[|}]")
_TWICE: Final = re.compile(
    r"\{\s*(?P<path>(?:was\.)?value\.(?:amount|monthly|monthly_before|discount|refunded_total))\s*\|\s*(?P<filter>money)\b"
)
_PHRASES: Final = tuple(
    (re.compile(form, re.IGNORECASE), better)
    for form, better in (
        (r"(?:is )?(?:not|non)[ -](?:empty|null)|is set|is present|isset", "{{exists: true}}"),
        (r"is (?:empty|null|missing|not set)|not present", "{{exists: false}}"),
        (r"contains '?\"?([^'\"]+?)'?\"?", '{{contains: "{0}"}}'),
        (r"(?:starts|begins)[ _]?with '?\"?([^'\"]+?)'?\"?", '{{prefix: "{0}"}}'),
        (r"ends[ _]?with '?\"?([^'\"]+?)'?\"?", '{{suffix: "{0}"}}'),
        (r"(?:like )?'?%([^%']+)%'?", '{{contains: "{0}"}}'),
        (r"(?:like )?'?([^%']+)%'", '{{prefix: "{0}"}}'),
        (r"(?:not )?in ?\(.*\)", "[a, b] or {{not_in: [a, b]}}"),
        (r"(?:at least|minimum|min\.?) [$€£]?([0-9][0-9,.]*)", "{{gte: {0}}}"),
        (r"(?:more|greater|larger|bigger) than [$€£]?([0-9][0-9,.]*)", "{{gt: {0}}}"),
        (r"(?:at most|maximum|max\.?|up to) [$€£]?([0-9][0-9,.]*)", "{{lte: {0}}}"),
        (r"(?:less|smaller|lower|fewer) than [$€£]?([0-9][0-9,.]*)", "{{lt: {0}}}"),
        (r"between [$€£]?([0-9][0-9,.]*) and [$€£]?([0-9][0-9,.]*)", "{{gte: {0}, lte: {1}}}"),
        (r"'([^']+)'|\"([^\"]+)\"", "{0}, without quotes inside of quotes"),
        (r"[\[(]\s*([\w'\" -]+(?:,\s*[\w'\" -]+)+)\s*[\])]", "[{0}], without quotes around it"),
    )
)
_LIKELY: Final = (  # if the field is a number or one of a few words
    (re.compile(r"([0-9]+)(?:\+| or more| and more| and up)"), "{{gte: {0}}}"),
    (re.compile(r"(?:over|above) ([0-9]+)"), "{{gt: {0}}}"),
    (re.compile(r"(?:under|below) ([0-9]+)"), "{{lt: {0}}}"),
    (re.compile(r"([0-9]+)(?:-|\.\.\.?| to )([0-9]+)"), "{{gte: {0}, lte: {1}}}"),
    (re.compile(r"not ([a-z_]+)"), "{{not: {0}}}"),
    (re.compile(r"([a-z_]+) ?[/&] ?([a-z_]+)"), "[{0}, {1}]"),
)
_OPERATORS: Final = {
    ">": "gt", ">=": "gte", "=>": "gte", "≥": "gte", "<": "lt", "<=": "lte", "=<": "lte", "≤": "lte",
    "!=": "not", "<>": "not", "≠": "not", "!": "not", "gt": "gt", "gte": "gte", "lt": "lt", "lte": "lte",
}  # fmt: skip
# Strings that are words of this language or of another one, and the equivalent here.
_WORDS: Final = {
    "*": "{exists: true}", "exists": "{exists: true}", "not null": "{exists: true}", "not_null": "{exists: true}",
    "null": "null", "NULL": "null", "None": "null", "nil": "null", "undefined": "null", "~": "null",
    "changed": "{changed: true}", "up": "{changed: up}", "down": "{changed: down}",
    "True": "true", "TRUE": "true", "False": "false", "FALSE": "false",
}  # fmt: skip
_STARRED: Final = re.compile(r"\*[^*]*\w[^*]*\*?|[^*]*\w[^*]*\*")
_REGULAR: Final = re.compile(r"/.*[\\^$*+?()|\[\]].*/[a-z]*|\^.+|.*\.[*+].*|.*\\[.dws].*")
_LISTED: Final = re.compile(
    r"[a-z][a-z0-9_.-]*(?:\s*(?:[,;|]|\|\|)\s*[a-z][a-z0-9_.-]*)+|[a-z][a-z0-9_.-]*(?: or [a-z][a-z0-9_.-]*)+"
)
_NUMBER: Final = re.compile(  # as people write numbers: 1,000 or $49 or 49 €
    r"([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?)|[$€£¥]\s*([0-9][0-9.,]*)|([0-9][0-9.,]*)\s*[$€£¥]"
)
_TYPOGRAPHIC: Final = re.compile("[\u201c\u201d\u201e\u2018\u2019\u00ab].*[\u201c\u201d\u2018\u2019\u00bb]")
_ROOTS: Final = frozenset({"value", "was", "header", "query", "envelope", "event", "body", "root", "key"})
_VALUE: Final = re.compile(r"(?:was\.)?value\.")
_AMOUNTS: Final = frozenset(f"{was}value.{name}" for name in AMOUNTS for was in ("", "was."))
_MONEY: Final = _AMOUNTS - {"value.prices", "was.value.prices"}  # without the ids of prices
_CURRENCIES: Final = frozenset({"value.currency", "was.value.currency"})
_SOME_MONEY: Final = "1000 USD"
_SUBSTRINGS: Final = (("prefix",), ("suffix",), ("contains",))
_STRING_OPERATORS: Final = frozenset({"prefix", "suffix", "contains", "glob"})
_ALIKE: Final = 0.9  # "cancelled" and "canceled" are alike; "updated" and "created" are not


def lint(written: MappingFile, preset: Mapping[str, Any], report: Diagnostics) -> None:
    """Report a suspicion at each place that was probably not meant as it is written."""
    own = {"envelope": written.envelope.model_dump() if written.envelope is not None else {}}
    places = [*_places(preset), *_places(own)]
    named = {*places, *_paths(written.visitor)}
    roots = _ROOTS | {re.split(r"[.\[]", path)[0] for path in named if _DOTTED.fullmatch(path)}
    known_values = {*written.values, *preset.get("values", {})}
    nested = _nested_names(preset, roots)
    parts = [*_paths(written.each), *_paths(preset.get("each"))]
    sampled = "" if parts else written.provider  # with `each`, paths start at a part, but samples are of whole bodies
    read_by = [path for path in (*places, *_paths(preset.get("borrowed")), *parts) if "{" not in path]
    fields = Fields(sampled, read_by, preset.get("values", {}), nested=bool(nested))
    lint_path = _PathLint(nested, known_values, fields, report)
    documented = frozenset(str(preset.get("event_names", "")).split())
    _lint_quotes(report.tree, report)
    for where, path in _bare_paths(written):
        lint_path(where, path)
    types = {event for goal in written.goals for _, event in numbered(goal.event)}
    for where, text in _templates(written):
        found = chain(_foreign_syntax(text), _sent_literally(where, text, (roots, named), fields))
        if text not in types and (sentence := next(found, None)):
            report.suspect(where, sentence)
        if "metadata" in where and text == where[-1] and text in known_values:
            report.suspect(where, f'"{text}" is sent literally; for the value write "{{value.{text}}}"')
        placeholders = re.findall(r"\{[^{}]*\}", text.replace("{{", "").replace("}}", ""))
        _lint_values(where, "".join(placeholders), known_values, report)
        for n, path in _placeholder_paths(placeholders):
            lint_path(where, path, f'; a constant is written "|default:{path}"' if n else "")
    _lint_when(("when",), written.when, fields, report)
    for i, goal in enumerate(written.goals):
        for where, path, _ in _conditions(("goals", i, "when"), goal.when):
            _lint_values((*where, KEY), path, known_values, report)
            lint_path((*where, KEY), _full_path(where, path))
        _lint_when(("goals", i, "when"), goal.when, fields, report)
        _lint_amounts(("goals", i, "when"), (written.when, goal.when), report)
        _lint_false(("goals", i, "metadata"), goal.metadata, report)
        _lint_events(i, goal, written.provider, (documented, fields.types), report)


def _places(file: Mapping[str, Any]) -> Iterator[str]:
    """The paths at which a preset or a file itself reads something."""
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
    """Every string of a file that is sent, computed with, or used as part of a key."""
    for name, value in written.values.items():
        for i, choice in enumerate(value if isinstance(value, list) else [value]):
            at: Steps = ("values", name, i, "value") if isinstance(value, list) else ("values", name)
            text = getattr(choice, "value", choice)
            yield from [(at, text)] if isinstance(text, str) else []
    for i, goal in enumerate(written.goals):
        sent = goal.model_dump(include={"goal", "description", "once_per", "metadata", "payment"})
        for where, text in _leaves(sent, ("goals", i)):
            names_value = where[2] == "metadata" and isinstance(goal.metadata, list)
            is_path = where[2] == "once_per" and not ("{" in str(text) or "$" in str(text))
            if isinstance(text, str) and not names_value and not is_path:
                yield where, text


def _leaves(written: Any, where: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """The leaves of maps and lists, each with the steps to it."""
    if isinstance(written, (dict, list)):
        for step, below in written.items() if isinstance(written, dict) else enumerate(written):
            yield from _leaves(below, (*where, step))
    else:
        yield where, written


def _foreign_syntax(text: str) -> Iterator[str]:
    """What is wrong with a template that is written in the syntax of another language."""
    if (found := _DOUBLED.search(text)) and (_foreign_path(found["path"]) or "$" in found["path"]):
        better = f"write {{{path}}}" if (path := _foreign_path(found["path"])) else "write its path in single braces"
        yield f'"{found[0]}" is sent as "{{{found["path"].strip()}}}"; for the value {better}'
    if found := _TAGGED.search(text):
        yield f'"{found[0]}" is sent as it stands; for the value write {{{found["path"]}}}'
    if found := _SIGNED.search(text):
        yield f'"{found[0]}" puts a "{found["sign"]}" before the value; for the value alone write {{{found["path"]}}}'
    if (found := _CODE.search(text)) and not found[2].isupper():
        yield f'"{found[1]}" looks for a field "{found[2]}"; write {found[1].partition(":")[0]}:{found[2].upper()}'
    if found := _SUMMAND.search(text):
        yield f'"{found[1]}" looks for a field of that name; "{found[2]}" takes a path'
    if "{" in text and (found := _ROOTED.search(text)):
        yield f'"{found[0]}" names a field "$"; a path begins in the body: write {found[1]}'


def _sent_literally(
    where: Steps, text: str, paths: tuple[Collection[str], Collection[str]], fields: Fields
) -> Iterator[str]:
    """What is wrong with a string that is sent literally, or divided twice. paths: first names, whole paths."""
    roots, named = paths
    for path in _possible_paths(text):
        if re.split(r"[.\[]", path)[0] in roots:
            yield f'"{text}" is sent literally; for the value write "{{{path}}}"'
    if "_" in text and text in named:
        yield f'"{text}" is sent literally; for the value write "{{{text}}}"'
    if where[-1] != "goal" and (meant := _named_path(text, fields)) is not None:
        yield f'"{text}" is sent as it stands; for the value write "{{{meant}}}"'
    if found := _DATE_FORM.search(text):
        yield f'"{found[1]}" is the same for every date; write it with "%": {_as_strftime(found[1])}'
    if found := _TWICE.search(text):
        yield f"{found['path']} is in whole units already, and {found['filter']} divides it once more"


def _foreign_path(text: str) -> str:
    """The path in another tool's expression, `$json.body.id` or `12__data__id`; empty if it is not a path."""
    path = _FOREIGN_ROOT.sub("", text.strip(), count=1) if _FOREIGN_ROOT.match(text.strip()) else text.strip()
    path = path.replace("__", ".") if "__" in path else path
    return path if _PLAIN.fullmatch(path) else ""


def _possible_paths(text: str) -> Iterator[str]:
    """Paths that lack only their braces: the string itself, and without what other languages put around a name."""
    for plain in (text, text.removeprefix("$."), text.strip(_FOREIGN_SIGNS), text.lstrip(_FOREIGN_SIGNS)):
        if _DOTTED.fullmatch(plain) and not plain.startswith("$"):
            yield plain


def _nested_names(preset: Mapping[str, Any], roots: Collection[str]) -> dict[str, str]:
    """For a preset with nested bodies: what a path may begin with by mistake, and where that is in the body.

    `metadata` is `data.object.metadata`. Empty for flat bodies, where any field may be at the top.
    """
    own = [*_paths(preset.get("visitor")), *(path for link in preset.get("links", ()) for path in _paths(link))]
    if not own or any(not _DOTTED.fullmatch(path) for path in own):
        return {}
    written = [
        path for value in preset.get("values", {}).values() for path in re.findall(r"[{ :]([a-z][\w.]*)", str(value))
    ]
    found: dict[str, str] = {}
    for path in sorted((*own, *written), key=len):
        names = path.split(".")
        for depth in range(1, len(names) - 1):
            if names[depth] not in roots and names[0] in roots:
                found.setdefault(names[depth], ".".join(names[: depth + 1]))
    return found


class _PathLint(NamedTuple):
    """Checks that a path begins in the body: `metadata.plan` alone is nowhere, and `plan` is the name of a value."""

    nested: Mapping[str, str]
    known_values: Collection[str]
    fields: Fields
    report: Diagnostics

    def __call__(self, where: Steps, path: str, advice: str = "") -> None:
        first, dot, rest = path.partition(".")
        if first.startswith("$"):
            return  # reported as the syntax of another language
        if self.nested and not dot and path in self.known_values:
            self.report.suspect(where, f'"{path}" looks for a field of that name; for the value write value.{path}')
        elif dot and first in self.nested:
            self.report.suspect(where, f'"{path}" begins in the middle of the body; write {self.nested[first]}.{rest}')
        elif (first != "values" or rest not in self.known_values) and (found := self.fields.misplaced(path)):
            self.report.suspect(where, found + (advice if path.isalpha() and "did you mean" not in found else ""))


def _bare_paths(written: MappingFile) -> Iterator[tuple[Steps, str]]:
    """Paths that are written without braces: those of visitors, and of `once_per`."""
    for where, path in numbered(written.visitor):
        yield ("visitor", *where), path
    for i, goal in enumerate(written.goals):
        for key in ("visitor", "once_per"):
            for where, path in numbered(getattr(goal, key)):
                if "{" not in path and "$" not in path:
                    yield ("goals", i, key, *where), path


def _placeholder_paths(placeholders: list[str]) -> Iterator[tuple[int, str]]:
    """The paths in a template's braces, each with its position among the alternatives; also those of filters."""
    for placeholder in placeholders:
        alternatives, *filters = placeholder[1:-1].split("|")
        yield from ((n, path.strip()) for n, path in enumerate(_SEVERAL_PATHS.split(alternatives)))
        for filter_ in filters:
            name, _, argument = filter_.strip().partition(":")
            if name.strip() in ("money", "minor", "minus", "plus") and not _CODE_OR_NUMBER.fullmatch(argument.strip()):
                yield 0, argument.strip()


def _full_path(where: Steps, path: str) -> str:
    """The path of a condition on elements, appended to that of their list."""
    lists = [step for step in where[:-1] if isinstance(step, str) and "*" in step]
    return ".".join([*lists, path])


def _named_path(text: str, fields: Fields) -> str | None:
    """The path that a string without braces names: the end of a field's path, `amount_total`, or one with a filter."""
    if "{" in text or fields.is_unknown or text in fields.values:
        return None
    path, bar, filters = text.partition("|")
    if bar and filters.partition(":")[0].strip() in FILTERS and _DOTTED.fullmatch(path.strip()):
        return text.strip()
    for found in _DOTTED.finditer(text):
        if fields.has(found[0]) or _VALUE.match(found[0]):
            return found[0]
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*", text):
        return None
    meant = fields.ending(text)
    return meant if meant is not None and ("." in text or fields.is_value(meant)) else None


def _as_strftime(text: str) -> str:
    for token, code in _DATE_TOKENS.items():
        text = text.replace(token, code)
    return re.sub("(?<!%)mm", "%m", text)


def _lint_quotes(node: Node | None, report: Diagnostics) -> None:
    """Typographic quotes are part of the string. The contents of a test are data."""
    if node is None or node.file:
        return
    for key, child in node.entries.items():
        if key != "tests":
            _lint_quotes(child, report)
    for child in node.elements:
        _lint_quotes(child, report)
    if isinstance(node.value, str) and _TYPOGRAPHIC.fullmatch(node.value):
        problem = f"{node.value} is in typographic quotes, which are part of the string"
        report.suspect_at(node.line, node.column, f'{problem}; write "{node.value[1:-1]}"')


def _lint_values(where: Steps, paths: str, known: Collection[str], report: Diagnostics) -> None:
    """`values:` is a key of the file; `value.` reads one of them."""
    found = _VALUES_OF.search(paths)
    if found and found["path"] in known:
        report.suspect(where, f'"{found[0]}" names a field "values" of the body; write value.{found["path"]}')


def _conditions(where: Steps, when: Any) -> Iterator[tuple[Steps, str, Any]]:
    """Every path of a `when:` with its expectation, also inside `any`, `all`, `not` and elements of lists."""
    if isinstance(when, list):
        for i, entry in enumerate(when):
            yield from _conditions((*where, i), entry)
    for path, expected in when.items() if isinstance(when, dict) else ():
        elements = "*" in path and isinstance(expected, dict) and not set(expected) & set(OPERATORS)
        if path in ("any", "all", "not") or elements:
            yield from _conditions((*where, path), expected)
        else:
            yield (*where, path), path, expected


def _lint_when(where: Steps, when: Mapping[str, Any] | None, fields: Fields, report: Diagnostics) -> None:
    for steps, path, expected in _conditions(where, when):
        reported = _lint_literals(steps, _full_path(steps, path), expected, fields, report)
        if found := _ROOTED.match(path):
            report.suspect(
                (*steps, KEY), f'"{path}" names a field "$"; a path begins in the body: write {found["path"]}'
            )
        for inner, text in _leaves(expected):
            is_read = isinstance(text, str) and inner not in reported and not _STRING_OPERATORS & set(inner)
            if is_read and (sentence := _misread(path, inner, text)) is not None:
                report.suspect((*steps, *inner), sentence)


def _lint_literals(where: Steps, path: str, expected: Any, fields: Fields, report: Diagnostics) -> set[Steps]:
    """Report literals that a field can never equal, according to the provider's events; returns their places."""
    reported: set[Steps] = set()
    for inner, literal in _leaves(expected):
        found = fields.impossible(path, literal) if _is_compared(inner) else None
        if found is not None and not (isinstance(literal, str) and _misread(path, inner, literal)):
            why, better = found
            text = str(literal).lower() if isinstance(literal, bool) else literal
            better = better or (_meant(text, path, likely=True) if isinstance(text, str) else None)
            at = path.rpartition(".*.")[2]
            advice = f"; write {at}: {_negated(better, inner)}" if better else ""
            report.suspect((*where, *inner), f'"{text}" never equals {at}: {why}{advice}')
            reported.add(inner)
    for inner, text in _resembled(expected):
        plain = text.strip("*%^$")
        if plain and plain != text and (text.strip("*") != text or text.strip("%") != text or text[0] == "^"):
            report.suspect(
                (*where, *inner), f'"{inner[-1]}" looks for "{text}" as it stands; write {inner[-1]}: {plain}'
            )
    return reported


def _negated(better: str, inner: Steps) -> str:
    return f"{{not: {better}}}" if inner == ("not",) else better


def _resembled(expectation: Any) -> Iterator[tuple[Steps, str]]:
    """The substrings that `prefix`, `suffix` and `contains` look for."""
    for where, text in _leaves(expectation):
        if where[-1:] in _SUBSTRINGS and set(where[:-1]) <= {"not"} and isinstance(text, str):
            yield where, text


def _misread(path: str, inner: Steps, text: str) -> str | None:
    """What is wrong with a string that a path is compared with, and what to write. inner: the steps below the path."""
    as_string = f'"{text}" is compared as a string'
    reason, better = as_string, None
    if inner[-1:] == ("after",) and _DATE.fullmatch(text):
        return f'"{text}" is read as a path; "after" takes the path of an earlier time'
    if found := _COMPARISON.fullmatch(text):
        operator, number = _OPERATORS.get(found["operator"]), found["operand"]
        if path in _MONEY and not _is_amount(number):
            reason, number = f'{as_string}, and "{number}" is not an amount', _SOME_MONEY
        better = f"{{{operator}: {number}}}" if operator else number
    elif path in _AMOUNTS and (found := _SMALL_CODE.fullmatch(text)):
        better = f"{found[1]} {found[2].upper()}"
    elif path in _CURRENCIES and _is_compared(inner) and not re.fullmatch("[A-Z]{3}", text):
        better = text.upper() if re.fullmatch("[A-Za-z]{3}", text) else "USD"
    elif found := next((hit for form in _VALUES if (hit := form.fullmatch(text.strip()))), None):
        reason = f'"{text}" is compared as it stands; for a value of the event'
        return f"{reason} write {path}: {{path: {_foreign_path(found['path']) or 'another.path'}}}"
    elif AMOUNT.fullmatch(text) and not _VALUE.match(path) and _is_compared(inner):
        return f"{as_string}; an amount in a currency is for values: write value.amount: {text}"
    elif path in _MONEY and not _is_amount(text) and _is_compared(inner):
        reason, better = f'"{text}" is not an amount, so {path} never equals it', _SOME_MONEY
    elif _is_compared(inner):
        better = _country_code(text) if path in _COUNTRIES else _meant(text, path)
        better = _negated(better, inner) if better else None
    return f"{reason}; write {path}: {better}" if better else None


def _country_code(text: str) -> str | None:
    """The two-letter country code that was meant; None if this is one."""
    code = _COUNTRY_CODES.get(text.lower(), text.upper())
    return None if code == text and len(code) == 2 else code if len(code) == 2 else "US"


def _from_phrase(text: str) -> str | None:
    """The expectation that English or SQL words stand for: `is not empty`, `LIKE '%pro%'`."""
    for form, better in _PHRASES:
        if found := form.fullmatch(text.strip()):
            return better.format(
                *(group.replace(",", "") if group[0].isdecimal() else group for group in found.groups() if group)
            )
    return None


def _meant(text: str, path: str, *, likely: bool = False) -> str | None:
    """The expectation that a string looks like. likely: the field can never equal the string itself."""
    if (better := _WORDS.get(text) or _from_phrase(text)) is not None:
        return better
    for form, write in _LIKELY if likely else ():
        if found := form.fullmatch(text):
            return write.format(*found.groups())
    if _STARRED.fullmatch(text):
        return f'{{glob: "{text}"}}'
    if _REGULAR.fullmatch(text):
        return "{glob: …}, {prefix: …} or {contains: …}, because there are no regular expressions"
    if _LISTED.fullmatch(text):
        return f"[{', '.join(piece for piece in _SEVERAL.split(text) if piece)}]"
    if (found := _NUMBER.fullmatch(text)) and not _VALUE.match(path):
        return (found[1] or found[2] or found[3]).replace(",", "")
    return None


def _is_amount(text: str) -> bool:
    return AMOUNT.fullmatch(text) is not None or number_of(text) is not None


def _is_compared(inner: Steps) -> bool:
    """Whether a string at this place of an expectation is compared for equality."""
    return all(isinstance(step, int) or step in ("not", "in", "not_in", "any", "all") for step in inner)


def _lint_amounts(where: Steps, whens: tuple[Mapping[str, Any] | None, ...], report: Diagnostics) -> None:
    """Report an amount of 100 in no particular currency, unless another condition names the currency."""
    if any(path.endswith("value.currency") for when in whens for _, path, _ in _conditions((), when)):
        return
    for steps, path, expected in _conditions(where, whens[-1]):
        for _, number in _leaves(expected) if path in _AMOUNTS else ():
            if isinstance(number, bool) or not number_of(number):
                continue  # zero is the same in every currency
            better = f"{number} USD"
            sentence = f"{path} is compared with {number} of any currency; write {better}, or name value.currency, too"
            report.suspect(steps, sentence)


def _lint_false(where: Steps, metadata: Any, report: Diagnostics) -> None:
    """Report a `false` that is sent: in a rule that changes or is like a shipped one, the merge has removed it."""
    for name, written in metadata.items() if isinstance(metadata, dict) else ():
        if written is False:
            report.suspect(
                (*where, name),
                f'"{name}: false" sends the word "false": it takes an entry away only from a shipped rule (one that'
                f' "id" or "like" names); leave the entry out, or write {name}: "false"',
            )


def _lint_events(
    i: int, goal: GoalStanza, provider: str, types: tuple[frozenset[str], frozenset[str]], report: Diagnostics
) -> None:
    """Report likely misspelt types: Lemon Squeezy writes "cancelled", Stripe "canceled".

    types: those that the provider documents, and those of the samples, which are a few of many.
    """
    documented, sampled = types
    known = documented | sampled
    families = {f"{event[: dot.start()]}{dot[0]}*" for event in known for dot in re.finditer(r"[._:/]", event)}
    for where, event in numbered(goal.event):
        pieces = [piece for piece in _SEVERAL.split(event) if piece]
        at = ("goals", i, "event", *where)
        glob = compile_glob(event)
        if (
            event in known
            or not event.strip("*")
            or _TYPOGRAPHIC.fullmatch(event)
            or (is_glob(event) and any(glob.matches(name) for name in known))
        ):
            continue
        if len(pieces) > 1:
            report.suspect(at, f'"{event}" is the name of one type of event; write [{", ".join(pieces)}]')
        elif (other := _same_words(event, known) or _other_event(event, documented)) is not None:
            report.suspect(at, f'{provider} is not known to send "{event}"; did you mean "{other}"?')
        else:
            likely = documented | {name for name in sampled if len(_words_of(name)) == len(_words_of(event))}
            meant = nearest(event, families if is_glob(event) else likely, likeness=_ALIKE)
            if meant not in (None, event):
                report.suspect(at, f'{provider} is not known to send "{event}"; did you mean "{meant}"?')


def _words_of(event: str) -> list[str]:
    return re.split(r"[._:/ -]+", event.lower())


def _same_words(event: str, known: Collection[str]) -> str | None:
    """The type with the same words and other separators: `orders_paid`, `order.created`."""
    plain = "".join(_words_of(event)).rstrip("s")
    return min((name for name in known if "".join(_words_of(name)).rstrip("s") == plain), key=_shortest, default=None)


def _other_event(event: str, known: Collection[str]) -> str | None:
    """The type with one word more or less, or with another last word."""
    words = _words_of(event)
    others = {name: _words_of(name) for name in known}
    longer = [name for name, other in others.items() if len(words) > 1 and other[-len(words) :] == words]
    shorter = [name for name, other in others.items() if len(other) > 2 and words[-len(other) :] == other]
    same_ends = [name for name, other in others.items() if len(words) == 2 and (other[0], other[-1]) == tuple(words)]
    deleted = []
    if words[-1] in ("canceled", "cancelled", "ended", "removed"):
        deleted = [name for name, other in others.items() if other == [*words[:-1], "deleted"]]
    return next((min(found, key=_shortest) for found in (longer, shorter, deleted, same_ends) if found), None)


def _shortest(event: str) -> tuple[int, str]:
    return len(event), event
