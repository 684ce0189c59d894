"""`when:` of a file or a rule → conditions: a map of path to expectation, all of which must hold.

There are no regular expressions, so that no sender can keep the bridge busy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bridge.globs import compile_glob
from bridge.model import MISSING, Json
from bridge.rules.language.conditions import (
    ALWAYS,
    COMPARISONS,
    NOW,
    RESEMBLANCES,
    After,
    All,
    AllOf,
    AnyOf,
    Changed,
    Compares,
    Condition,
    Either,
    ElementTest,
    ElementWhere,
    Equals,
    Exists,
    Expectation,
    FieldTest,
    Globs,
    InCurrency,
    Not,
    NotAll,
    Operand,
    Resembles,
    ValueChanged,
    compared_with,
)
from bridge.rules.language.paths import CompiledPath, ValuePath, WasPath, compile_path, reads_list, value_name
from bridge.rules.language.values import Value, number
from bridge.rules.reading.strict_yaml import KEY
from bridge.settings import duration_ms
from bridge.text import did_you_mean, text_of

if TYPE_CHECKING:
    from bridge.rules.reading.report import Reporter, Steps

OPERATORS: Final = {
    "gt": "a number greater than this; for a value also `1000 USD`, which is true only in that currency",
    "gte": "a number greater than this, or equal",
    "lt": "a number less than this",
    "lte": "a number less than this, or equal",
    "not": "anything but this; takes any expectation: `{not: {prefix: warning_}}`",
    "in": "one of this list (a plain list means the same)",
    "not_in": "none of this list",
    "prefix": "a string that begins with this",
    "suffix": "a string that ends with this",
    "contains": "a string that contains this, or a list that has this among its elements",
    "glob": "a string of this form: `*` stands for any characters, `?` for one",
    "exists": "`true`: there is a value; `false`: there is none (`null` is none)",
    "changed": (
        "for Stripe's `….updated`, with a path below `data.object` or a `value.…`: `true` if it differs from before,"
        " `false` if not, `up` or `down` for numbers (from missing to 5 is not `up`)"
    ),
    "after": "a time that is not before the one at this path",
    "within": "with `after`: and at most this long after it, such as `14d`",
    "path": "equal to the value at another path; also as an operand: `{gt: {path: data.minimum}}`",
    "any": "at least one of a list of expectations",
    "all": "each of a list of expectations",
}
DEPTH_MAX: Final = 10
AMOUNT: Final = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,4})?) ?([A-Z]{3})\s*")
# The values that are an amount in `value.currency`.
AMOUNTS: Final = ("amount", "monthly", "monthly_before", "discount", "refunded_total", "prices")
_FOREIGN_OPERATORS: Final = {  # operators as other languages write them
    **dict.fromkeys(("eq", "equals", "equal", "is", "=", "==", "==="), "the value itself: path: value"),
    **dict.fromkeys(("ne", "neq", "isnot", "notequals", "notequal", "!=", "!==", "<>"), "not"),
    **dict.fromkeys((">", "greaterthan", "morethan", "above", "over"), "gt"),
    **dict.fromkeys((">=", "min", "atleast"), "gte"),
    **dict.fromkeys(("<", "lessthan", "below", "under"), "lt"), **dict.fromkeys(("<=", "max", "atmost"), "lte"),
    **dict.fromkeys(("startswith", "beginswith", "starts"), "prefix"), **dict.fromkeys(("endswith", "ends"), "suffix"),
    **dict.fromkeys(("includes", "include", "has", "substring"), "contains"),
    **dict.fromkeys(("regex", "regexp", "matches", "match", "like", "pattern"), "glob, prefix or contains"),
    **dict.fromkeys(("oneof", "anyof"), "in"), **dict.fromkeys(("nin", "notin", "noneof"), "not_in"),
    **dict.fromkeys(("isnull", "isempty", "empty", "missing"), "exists: false"),
    **dict.fromkeys(("notnull", "isnotnull", "notempty", "isset", "present"), "exists: true"),
    "between": "gte and lte", "to": "the value itself: path: value",
    **dict.fromkeys(("from", "was", "before", "previous"), '"was." in front of the path: was.path: value'),
}  # fmt: skip
_FOREIGN_COMBINATORS: Final = {
    **dict.fromkeys(("or", "||", "some"), "any"), **dict.fromkeys(("and", "&&", "every"), "all"), "nor": "not",
}  # fmt: skip
_COMBINATORS: Final = ("not", "any", "all")  # these join expectations of one value, and conditions on paths
_DURATION: Final = re.compile(r"[0-9]+(?:ms|s|min|h|d)")


def compile_when(when: Json, problem: Reporter, at: Steps = (), depth: int = 0) -> All:
    """Compile a `when:` map. Every error goes to `problem(where, sentence)`; wrong conditions are left out."""
    if not isinstance(when, dict):
        problem(at, 'a condition is a map of path to expectation, such as "data.object.status: paid"')
        return ALWAYS
    if depth > DEPTH_MAX:
        problem(at, f"conditions are nested more than {DEPTH_MAX} levels deep")
        return ALWAYS
    parts: list[Condition] = []
    for key, expected in when.items():
        part = _entry(key, expected, problem, (*at, key), depth)
        if part is not None:
            parts.append(part)
    return All(tuple(parts))


def _are_conditions(expected: Json) -> bool:
    """Whether this holds maps of paths, not of operators."""
    maps = expected if isinstance(expected, list) else [expected]
    return all(isinstance(item, dict) and any("." in key for key in item) for item in maps)


def _entry(key: str, expected: Json, problem: Reporter, at: Steps, depth: int) -> Condition | None:
    if key == "not":
        inner = compile_when(expected, problem, at, depth + 1)
        return NotAll(inner, tuple(_paths(inner)))
    if key in ("any", "all"):
        parts = _branches(key, expected, problem, at, depth)
        return Either(parts) if key == "any" and parts else All(parts)
    combinator = _FOREIGN_COMBINATORS.get(key.lower().lstrip("$")) if isinstance(expected, (list, dict)) else None
    if combinator is not None and _are_conditions(expected):
        problem((*at, KEY), f'"{key}" joins no conditions; write {combinator}, with a list of maps')
        return None
    try:
        path = compile_path(key)
    except ValueError as error:
        problem((*at, KEY), str(error))
        return None
    if reads_list(path):
        return _element_condition(path, expected, problem, at, depth)
    expectation = compile_expectation(expected, path, problem, at, depth)
    constant = expected if isinstance(expected, str) and isinstance(expectation, Equals) else None
    return FieldTest(path, expectation, expectation.text, constant)


def _element_condition(path: CompiledPath, expected: Json, problem: Reporter, at: Steps, depth: int) -> Condition:
    """The condition on a list's elements: a map of operators tests a single value, a map of paths a whole element."""
    if isinstance(expected, dict) and _is_when(expected):
        negated = set(expected) == {"not"}
        where = (*at, "not") if negated else at
        when = expected["not"] if negated else expected
        _refuse_operators(when, problem, where)
        inner = compile_when(when, problem, where, depth + 1)
        for outer in _outer_paths(inner):
            problem(at, f'the conditions of an element read only the element, so "{outer.text}" is not allowed there')
        return ElementWhere(path, inner, negated)
    expectation = compile_expectation(expected, path, problem, at, depth)
    return ElementTest(path, expectation, expectation.text)


def _refuse_operators(when: Json, problem: Reporter, at: Steps) -> None:
    """Report operators among the paths of an element's map: they would be read as field names."""
    for name in when if isinstance(when, dict) else ():
        if name in OPERATORS and name not in _COMBINATORS:
            problem(
                (*at, name, KEY),
                f'"{name}" is an operator among paths: write it after a path, or write a field of this name'
                f' as "body.{name}"',
            )


def _outer_paths(condition: Condition) -> list[CompiledPath]:
    """The paths that lead out of an element: in a long list, reading them for each element would take forever."""
    if isinstance(condition, All | Either):
        return [path for part in condition.parts for path in _outer_paths(part)]
    if isinstance(condition, NotAll):
        return _outer_paths(condition.inner)
    paths = _paths(condition)
    if isinstance(condition, FieldTest):
        paths += compared_with(condition.expectation)
    return [path for path in paths if path.root != "body" or isinstance(path, ValuePath | WasPath)]


def _is_when(expected: Json) -> bool:
    """Whether a map is a `when:` of paths, not one of operators."""
    if isinstance(expected, list):
        return any(_is_when(item) for item in expected)
    if not isinstance(expected, dict):
        return False
    return any(_is_when(value) if key in _COMBINATORS else key not in OPERATORS for key, value in expected.items())


def _branches(key: str, branches: Json, problem: Reporter, at: Steps, depth: int) -> tuple[Condition, ...]:
    if isinstance(branches, dict):
        branches = [{path: expected} for path, expected in branches.items()]
        return tuple(compile_when(branch, problem, at, depth + 1) for branch in branches)
    if not isinstance(branches, list) or not branches:
        problem(at, f'"{key}" takes a list of conditions, each a map of path to expectation')
        return ()
    return tuple(compile_when(branch, problem, (*at, i), depth + 1) for i, branch in enumerate(branches))


def _paths(condition: Condition) -> list[CompiledPath]:
    if isinstance(condition, FieldTest | ElementWhere):
        return [condition.path]
    if isinstance(condition, (All, Either)):
        return [path for part in condition.parts for path in _paths(part)]
    return list(condition.paths) if isinstance(condition, NotAll) else []


def compile_expectation(
    expected: Json, path: CompiledPath, problem: Reporter, at: Steps, depth: int = 0
) -> Expectation:
    """Compile the expectation for one path."""
    if depth > DEPTH_MAX:
        problem(at, f"conditions are nested more than {DEPTH_MAX} levels deep")
        return Exists(expected=True)
    if expected is None:
        return Exists(expected=False)
    if isinstance(expected, list):
        return AnyOf(_several(expected, path, problem, at, depth))
    if not isinstance(expected, dict):
        money = _money("eq", expected, path) if value_name(path) in AMOUNTS else None
        return money or Equals(Operand(expected))
    if not expected:
        problem(at, "an empty map expects nothing; to expect any value write {exists: true}")
    if "within" in expected and "after" not in expected:
        problem((*at, "within", KEY), '"within" needs "after": {after: the.path.of.the.earlier.time, within: 14d}')
    parts = tuple(
        _after(expected, problem, at)
        if name == "after"
        else _operator(name, operand, path, problem, (*at, name), depth)
        for name, operand in expected.items()
        if name != "within"
    )
    return parts[0] if len(parts) == 1 else AllOf(parts)


def _after(expected: dict[str, Json], problem: Reporter, at: Steps) -> Expectation:
    within, within_ms = expected.get("within"), None
    if within is not None:
        try:
            within_ms = duration_ms(str(within))
        except ValueError as error:
            problem((*at, "within"), f'"{within}" must be {error}')
    earlier = expected["after"]
    if not isinstance(earlier, str) or _DURATION.fullmatch(earlier.strip()):
        problem((*at, "after"), '"after" takes the path of the earlier time: {after: the.path, within: 14d}')
        return Exists(expected=True)
    operand = _operand({"path": earlier}, problem, (*at, "after"))
    return After(operand, within_ms, "" if within is None else str(within))


def _several(options: Json, path: CompiledPath, problem: Reporter, at: Steps, depth: int) -> tuple[Expectation, ...]:
    if not isinstance(options, list) or not options:
        problem(at, "this must be a list with at least one entry")
        return ()
    return tuple(compile_expectation(o, path, problem, (*at, i), depth + 1) for i, o in enumerate(options))


def _operator(  # noqa: C901 - one branch per operator
    name: str, operand: Json, path: CompiledPath, problem: Reporter, at: Steps, depth: int
) -> Expectation:
    if name in COMPARISONS and name != "eq":
        if (money := _money(name, operand, path)) is not None:
            return money
        needed = f'"{name}" takes a number (for a value also "1000 USD")'
        compared = _checked(operand, lambda constant: number(constant) is not None, needed, problem, at)
        return Compares(name, compared, number(compared.constant))
    if name in RESEMBLANCES:
        return Resembles(name, _checked(operand, text_of, f'"{name}" takes a string', problem, at))
    match name:
        case "not":
            return Not(compile_expectation(operand, path, problem, at, depth + 1))
        case "in" | "any":
            return AnyOf(_several(operand, path, problem, at, depth))
        case "not_in":
            return Not(AnyOf(_several(operand, path, problem, at, depth)))
        case "all":
            return AllOf(_several(operand, path, problem, at, depth))
        case "glob":
            return _glob(operand, problem, at)
        case "exists":
            return _exists(operand, problem, at)
        case "changed":
            return _changed(operand, path, problem, at)
        case "path":
            return Equals(_operand({"path": operand}, problem, at))
    instead = _FOREIGN_OPERATORS.get(name.lower().strip("$ ").replace("_", "").replace("-", ""))
    advice = f"; write {instead}" if instead else did_you_mean(name, OPERATORS)
    problem((*at, KEY), f'unknown operator "{name}"{advice}')
    return Exists(expected=True)


def _money(name: str, operand: Json, path: CompiledPath) -> Expectation | None:
    """`1000 USD` beside a value: true only if `value.currency` of the same event is that currency."""
    found = AMOUNT.fullmatch(operand) if isinstance(operand, str) and value_name(path) is not None else None
    if found is None:
        return None
    amount = Operand(found[1])
    compared = Compares(name, amount, number(amount.constant))
    if str(value_name(path)).endswith(f"_{found[2].lower()}"):
        return compared  # `amount_usd` is in that currency, whatever the event's is
    currency = compile_path("was.value.currency" if isinstance(path, WasPath) else "value.currency")
    return AllOf((compared, InCurrency(currency, found[2])))


def _operand(operand: Json, problem: Reporter, at: Steps) -> Operand:
    if isinstance(operand, dict) and set(operand) == {"path"}:
        try:
            path = compile_path(str(operand["path"]))
        except ValueError as error:
            problem(at, str(error))
            return Operand()
        if reads_list(path):
            problem(at, f'"{path}" reads a list, but a value is compared with one value')
        return Operand(path=path)
    return Operand(operand)


def _checked(operand: Json, valid: Callable[[Value], object], needed: str, problem: Reporter, at: Steps) -> Operand:
    """Check that a constant is of the kind that its operator needs."""
    compiled = _operand(operand, problem, at)
    if compiled.path is None and compiled.constant is not MISSING and not valid(compiled.constant):
        problem(at, f"{needed}, or {{path: another.path}}")
    return compiled


def _glob(operand: Json, problem: Reporter, at: Steps) -> Expectation:
    text = text_of(operand)
    if not text:
        problem(at, '"glob" takes a string such as "customer.*"')
    return Globs(compile_glob(text or "*"))


def _exists(operand: Json, problem: Reporter, at: Steps) -> Expectation:
    if not isinstance(operand, bool):
        problem(at, '"exists" takes true or false')
    return Exists(expected=bool(operand))


def _changed(operand: Json, path: CompiledPath, problem: Reporter, at: Steps) -> Expectation:
    if not isinstance(operand, bool) and operand not in ("up", "down"):
        problem(at, '"changed" takes true, false, up or down')
        operand = True
    if path.root != "body" or path.segments[:2] != NOW or len(path.segments) < 3 or reads_list(path):
        if value_name(path) is not None and not isinstance(path, WasPath) and not reads_list(path):
            return ValueChanged(operand, path)
        needed = 'a path below data.object, or a value such as "value.plan"'
        problem((*at, KEY), f'"changed" looks into data.previous_attributes, so it needs {needed}, not "{path}"')
    return Changed(operand, path.segments[2:])
