"""Checks a parsed file against the schema: which keys exist and the shape of their values, in words for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from bridge.rules.reading.schema import MODELS, Chosen, MappingFile, Strict
from bridge.rules.reading.strict_yaml import KEY, QUOTES, Node
from bridge.text import did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from bridge.model import Json
    from bridge.rules.reading.report import Diagnostics, Steps

NULL_IS_A_VALUE: Final = (("challenge",), ("tests", "*", "event"))
VARIABLES_ARE_READ: Final = (
    ("secret",),
    ("require",),
    ("public_url",),
    ("datafast",),
    ("goals", "*", "datafast"),
    ("tests",),  # the contents of a test are data
)
_VARIABLE: Final = re.compile(r"\$\{[A-Z][A-Z0-9_]*\}")  # "${plan}" is a dollar sign and a placeholder
_CLOSE: Final = re.compile(r"[a-z_]+:\S")
_ROUNDS_MAX: Final = 5
# Replacements for a required value that is wrong, while the rest is checked. # becomes the number of the place.
_FILLERS: Final[dict[tuple[str, ...], Json]] = {
    ("provider",): "custom",
    ("goals",): [],
    ("goals", "*"): {"goal": "filler-#", "event": "filler"},
    ("goals", "*", "goal"): "filler-#",
    ("goals", "*", "event"): "filler",
    ("goals", "*", "payment"): {"amount": "1", "currency": "USD", "transaction_id": "{envelope.id}"},
    ("tests", "*"): {"name": "filler", "event": ""},
    ("tests", "*", "name"): "filler",
    ("tests", "*", "event"): "",
    ("tests", "*", "goals", "*"): {"goal": "filler"},
    ("tests", "*", "goals", "*", "goal"): "filler",
    ("links", "*"): {"kind": "filler", "path": "filler"},
    ("links", "*", "kind"): "filler",
    ("links", "*", "path"): "filler",
    ("datafast", "name"): "default",
    ("goals", "*", "datafast", "name"): "default",
    ("verify", "signature", "in"): "header:filler",
    ("verify", "timestamp", "in"): "header:filler",
    ("verify", "or", "*"): {"type": "basic"},
    ("verify", "or", "*", "signature", "in"): "header:filler",
    ("verify", "or", "*", "timestamp", "in"): "header:filler",
    ("envelope", "test", "path"): "filler",
    ("body", "json_field"): "filler",
}
_NAMES_OF_VALUES: Final = ("goals", "*", "metadata", "*")  # a filler here would be reported as an unknown name
_WORDS: Final = {
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "dict_type": "must be a map",
    "model_type": "must be a map",
    "list_type": "must be a list",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than_equal": "must be 1 or more",
    "less_than_equal": "is too large",
}
# Keys as people write them who know another tool, or an older page of the docs.
_HINTS: Final = {
    "rules": 'write "goals"',
    "name": 'a rule\'s name in DataFast is its "goal"',
    "events": 'write "event"; it may be a list',
    "if": 'write "when"',
    "on": 'write "event"',
    "type": 'write "event"',
    "properties": 'write "metadata"',
    "dedupe": 'write "once_per"',
    "disabled": "write enabled: false",
    "secrets": 'write "secret"; it may be a list',
    "source": "each file is one source, named after the file",
}


def structure(tree: Node, report: Diagnostics) -> MappingFile | None:
    """The file as read by the schema; every error goes to the report.

    Wrong values are removed or replaced, so that the rest can still be checked: all errors of a file are reported at
    once. If there are errors, the result serves only for these checks. None: there is no map at all.
    """
    if tree.kind != "mapping":
        report.problem(
            (), 'a mapping file is a map with the keys "provider" and "goals", or with "extends" as its first line'
        )
        return None
    plain = _plain(tree, (), report)
    _refuse_empty_keys(tree, (), report, plain)
    for _ in range(_ROUNDS_MAX):  # a filled-in value may reveal errors that the wrong one hid
        try:
            return MappingFile.model_validate(plain)
        except ValidationError as error:
            for details in error.errors(include_url=False, include_context=True):
                where = _steps(details)
                _report(details["type"], where, details, tree, report)
                _patch(plain, where, details["type"])
    return None


def _steps(details: ErrorDetails) -> Steps:
    """The steps to an error, without the members of unions."""
    return tuple(step for step in details["loc"] if isinstance(step, int) or not step.startswith("~"))


def _patch(plain: Json, where: Steps, kind: str) -> None:
    """Remove a wrong value, or replace it with a valid one if a value is required."""
    if _pattern(where) == _NAMES_OF_VALUES:
        where = where[:-1]
    if where[:1] == ("values",) and len(where) == 2:
        plain["values"][where[1]] = "filler"  # the name stays known
        return
    holder: Any = plain
    for step in where[:-1]:
        try:
            holder = holder[step]
        except (KeyError, IndexError, TypeError):
            return
    last = where[-1]
    filler = _FILLERS.get((*_pattern(where[:-1]), "*" if isinstance(last, int) else last))
    if isinstance(holder, list) and isinstance(last, int):
        holder[last] = _filler(filler, where) if filler is not None else "filler"
    elif isinstance(holder, dict) and filler is not None and kind != "extra_forbidden":
        holder[last] = _filler(filler, where)
    elif isinstance(holder, dict):
        holder.pop(last, None)


def _filler(filler: Json, where: Steps) -> Json:
    """A different filler for each place, because two rules must not seem to have the same name."""
    number = "-".join(str(step) for step in where if isinstance(step, int))
    if isinstance(filler, dict):
        return {key: value.replace("#", number) for key, value in filler.items()}
    return filler.replace("#", number) if isinstance(filler, str) else filler


def _pattern(where: Steps) -> tuple[str, ...]:
    return tuple("*" if isinstance(step, int) else step for step in where)


def _plain(node: Node, where: Steps, report: Diagnostics) -> Any:
    """The tree as JSON values. A `${NAME}` where none is expanded is an error, never an ordinary string."""
    if _pattern(where) in VARIABLES_ARE_READ:
        return node.plain()
    if node.kind == "mapping":
        return {key: _plain(child, (*where, key), report) for key, child in node.entries.items()}
    if node.kind == "sequence":
        return [_plain(child, (*where, i), report) for i, child in enumerate(node.elements)]
    if isinstance(node.value, str) and (variable := _VARIABLE.search(node.value)):
        report.problem(
            where, f"{variable[0]} is not read here; ${{NAME}} is read in secret, require, public_url and datafast only"
        )
        return _VARIABLE.sub("variable", node.value)  # so that nothing else is reported about it
    return node.value


def _refuse_empty_keys(node: Node, where: Steps, report: Diagnostics, plain: Json) -> None:
    """A key without a value is a mistake, never a default."""
    model = model_at(where)
    for key in list(node.entries) if model is not None and node.kind == "mapping" else ():
        child = node.entries[key]
        if child.kind == "scalar" and child.value is None and key in known_keys(model):
            if _pattern((*where, key)) not in NULL_IS_A_VALUE:
                report.problem((*where, key, KEY), f'"{key}" has no value')
                plain.pop(key)
        elif child.kind == "mapping":
            _refuse_empty_keys(child, (*where, key), report, plain[key])
        for i, element in enumerate(child.elements):
            _refuse_empty_keys(element, (*where, key, i), report, plain[key][i])


def model_at(where: Steps) -> type[Strict] | None:
    """The model of the map at this place; None if there is none."""
    if where[:1] == ("values",) and len(where) in (2, 3):
        return Chosen  # the keys of `values` are names chosen by the user
    return MODELS.get(_pattern(where))


def known_keys(model: type[Strict] | None) -> list[str]:
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _report(kind: str, where: Steps, details: ErrorDetails, tree: Node, report: Diagnostics) -> None:
    parent = where[:-1]
    if kind == "extra_forbidden":
        report.problem((*where, KEY), _unknown_key(str(where[-1]), parent))
    elif kind == "missing":
        key = str(where[-1])
        if (*parent, key, KEY) not in report.unsound:  # else it is there, without a value
            report.problem(parent, f'{_called(parent)} needs "{key}"')
            report.unsound.add(where)
    else:
        report.problem(where, _sentence(where, kind, details, _value_at(tree, where)))


def _unknown_key(key: str, parent: Steps) -> str:
    model = model_at(parent)
    called = model.called if model is not None else "this map"
    if parent == ("verify",) and key == "secret":
        return 'unknown key "secret" in verify: "secret" is a key of the file itself'
    known = known_keys(model)
    guess = did_you_mean(key, known)
    if "did you mean" not in guess and key in _HINTS:
        guess = f"; {_HINTS[key]}"
    return f'unknown key "{key[:60]}" in {called}{guess}'


def _called(where: Steps) -> str:
    model = model_at(where)
    return model.called if model is not None else "this map"


def _sentence(where: Steps, kind: str, details: ErrorDetails, value: Json) -> str:
    subject = next((f'"{step}"' for step in reversed(where) if isinstance(step, str)), "this")
    if where and isinstance(where[-1], int):
        subject = f"an entry of {subject}"
    if kind == "literal_error":
        expected = details.get("ctx", {}).get("expected", "")
        return f"{subject} must be {expected}".replace("'", "")
    words = _WORDS.get(kind) or details["msg"]
    if where and where[-1] == "when":
        words += " of path to expectation, such as {data.status: paid, data.total: {gte: 100}}"
    if isinstance(value, str) and kind in ("dict_type", "model_type") and _CLOSE.match(value):
        words += '; write a space after the ":" of a key'
    if kind == "list_type" and isinstance(value, dict) and value and set(map(type, value.values())) == {bool}:
        return f"{subject} {words}, such as [{', '.join(map(str, value))}]"
    if kind == "list_type" and isinstance(value, str):
        return f"{subject} {words}, such as [{', '.join(value.replace(',', ' ').split())}]"
    return f"{subject} {words}{_quotes(value, words)}"


def _quotes(value: Json, words: str) -> str:
    """If a string was expected and YAML read something else, quotes fix it."""
    if "string" not in words and "path" not in words and "name" not in words:
        return ""
    if isinstance(value, (bool, int, float)):
        return f"; {QUOTES}"
    if isinstance(value, dict) and value and all(inner is None for inner in value.values()):
        return f'; a template begins with "{{", so {QUOTES}'
    return ""


def _value_at(tree: Node, where: Steps) -> Any:
    node = tree
    for step in where:
        if isinstance(step, int) and step < len(node.elements):
            node = node.elements[step]
        elif isinstance(step, str) and step in node.entries:
            node = node.entries[step]
    return node.plain()
