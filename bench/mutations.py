"""Small wrong changes of a Python source, each of which a test should notice. Pure: text in, mutants out.

A comparison is flipped, a whole number moved by one (a large one doubled), a condition negated or dropped, a statement
left out, a constant or an operator exchanged; in SQL that is written as text, a comparison is flipped and AND becomes
OR. What no test can be asked to notice is left alone: annotations, decorators, docstrings, log lines, messages,
`assert`, the size of a cache, a second row where only the first is read, and what locks a row (SQLite has none).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

_COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COUNTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult}
_NAMED = {"min": "max", "max": "min", "any": "all", "all": "any", "and_": "or_", "or_": "and_"}
_FILTERS = ("where", "and_", "or_")  # SQLAlchemy's: each argument is a condition
_SQL = re.compile(r"\b(SELECT|UPDATE|INSERT|DELETE|WHERE|AND)\b")
_SQL_PARTS = re.compile(r"<=|>=|<>|<|>|=|\bAND\b|\bIS NOT NULL\b|\bIS NULL\b")
_SQL_FLIPPED = {
    "<=": "<",
    "<": "<=",
    ">=": ">",
    ">": ">=",
    "=": "<>",
    "<>": "=",
    "AND": "OR",
    "IS NULL": "IS NOT NULL",
    "IS NOT NULL": "IS NULL",
}
_UNNOTICED = ("maxsize", "skip_locked")  # keywords
_LARGE = 1_000  # one more makes no difference
_LEFT_ALONE = (ast.JoinedStr, ast.Assert, ast.Raise, ast.Import, ast.ImportFrom)


Change = tuple[ast.expr | ast.stmt, str, str]  # what is replaced, its new text, the kind of change


@dataclass(frozen=True)
class Mutant:
    """One change: these bytes of the source are replaced. what: the kind of change, in a few words."""

    file: str
    line: int
    start: int
    end: int
    new: str
    what: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutants(file: str, source: bytes) -> list[Mutant]:
    """Every mutant of a source, in the order of the text. Some are the same program, or none: see `is_another`."""
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    found = [
        Mutant(
            file,
            node.lineno,
            begins[node.lineno - 1] + node.col_offset,
            begins[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0),
            new,
            what,
        )
        for node, new, what in _changes(ast.parse(source))
    ]
    return sorted(dict.fromkeys(found), key=lambda mutant: (mutant.start, mutant.end, mutant.what, mutant.new))


def is_another(mutant: Mutant, source: bytes) -> bool:
    """Whether it is Python, and not the same program."""
    try:
        return ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _changes(node: ast.AST) -> Iterator[Change]:
    """The changes of this node and of everything below it."""
    if isinstance(node, _LEFT_ALONE) or _is_docstring_or_log(node) or _is_for_types(node):
        return
    if isinstance(node, ast.keyword) and node.arg in _UNNOTICED:
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "limit":
        yield from ((node.args[0], "0", "boundary"), *_changes(node.func))
        return
    yield from _of(node)
    for name, below in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for child in below if isinstance(below, list) else [below]:
            if isinstance(child, ast.AST):
                yield from _changes(child)


def _is_docstring_or_log(node: ast.AST) -> bool:
    """A docstring, or what is written to the log."""
    if not isinstance(node, ast.Expr):
        return False
    value = node.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        owner = value.func.value
        return isinstance(owner, ast.Name) and owner.id == "log"
    return isinstance(value, ast.Constant)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _of(node: ast.AST) -> Iterator[Change]:
    for kinds, change in _KINDS.items():
        if isinstance(node, kinds):
            yield from change(node)


def _compared(node: ast.Compare) -> Iterator[Change]:
    for at, op in enumerate(node.ops):
        flipped = [*node.ops]
        flipped[at] = _COMPARED[type(op)]()
        yield node, _with(node, ops=flipped), "comparison"


def _joined(node: ast.BoolOp) -> Iterator[Change]:
    yield node, _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And()), "and/or"
    for at in range(len(node.values)):
        rest = node.values[:at] + node.values[at + 1 :]
        new = ast.unparse(rest[0]) if len(rest) == 1 else _with(node, values=rest)
        yield node, f"({new})", "condition dropped"


def _counted(node: ast.BinOp) -> Iterator[Change]:
    if type(node.op) in _COUNTED:
        yield node, _with(node, op=_COUNTED[type(node.op)]()), "operator"


def _not(node: ast.UnaryOp) -> Iterator[Change]:
    if isinstance(node.op, ast.Not):
        yield node, f"({ast.unparse(node.operand)})", "negation dropped"


def _constant(node: ast.Constant) -> Iterator[Change]:
    match node.value:
        case bool(value):
            yield node, str(not value), "constant"
        case int(value) if value >= _LARGE:
            yield node, str(value * 2), "boundary"
        case int(value):
            yield node, str(value + 1), "boundary"
            yield node, f"({value - 1})", "boundary"
        case str(value) if _SQL.search(value):
            for part in _SQL_PARTS.finditer(value):
                yield node, repr(value[: part.start()] + _SQL_FLIPPED[part[0]] + value[part.end() :]), "SQL"


def _name(node: ast.Name) -> Iterator[Change]:
    if isinstance(node.ctx, ast.Load) and node.id in _NAMED:
        yield node, _NAMED[node.id], "function"


def _call(node: ast.Call) -> Iterator[Change]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _FILTERS and len(node.args) > 1:
        for at in range(len(node.args)):
            yield node, _with(node, args=node.args[:at] + node.args[at + 1 :]), "condition dropped"


def _branch(node: ast.If | ast.IfExp | ast.While) -> Iterator[Change]:
    yield node.test, f"(not ({ast.unparse(node.test)}))", "condition negated"


def _loop(node: ast.comprehension) -> Iterator[Change]:
    for condition in node.ifs:
        yield condition, "True", "condition dropped"


def _statement(node: ast.stmt) -> Iterator[Change]:
    yield node, "pass", "statement dropped"


def _answer(node: ast.Return) -> Iterator[Change]:
    if node.value is not None and not isinstance(node.value, ast.Constant):
        yield node.value, "None", "answer dropped"


def _with(node: ast.AST, **fields: object) -> str:
    changed = deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return ast.unparse(changed)


_KINDS: dict[Any, Callable[[Any], Iterator[Change]]] = {
    ast.Compare: _compared,
    ast.BoolOp: _joined,
    ast.BinOp: _counted,
    ast.UnaryOp: _not,
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Call: _call,
    (ast.If, ast.IfExp, ast.While): _branch,
    ast.comprehension: _loop,
    (ast.Expr, ast.AugAssign, ast.Continue, ast.Break): _statement,
    ast.Return: _answer,
}
