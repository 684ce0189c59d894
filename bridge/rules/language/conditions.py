"""Conditions: a `when:` map of path to expectation, compiled once, tested without ever raising.

An expectation is what one value should be: a constant or an operator. Its `holds` gets the value at the path (an
expanded object as its id, an absent value as MISSING) and the whole event, for operands that are themselves paths; its
`text` completes "expected …".

A condition's `test` returns None if it holds, else a `FailedCondition` for the trace: the path, the expected and the
actual value. A missing field fails every positive test, so it passes `not`, `not_in`, `exists: false` and `null`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Final, Protocol

from bridge.globs import Glob, of_type
from bridge.masking import HIDDEN, path_is_secret, without_secret_parameters
from bridge.model import MISSING, Document, Json
from bridge.rules.language.filters import instant
from bridge.rules.language.paths import CompiledPath, Field, Segment, identified, walk
from bridge.rules.language.values import Value, equal, number, shown, was
from bridge.text import text_of

NOW: Final = (Field("data"), Field("object"))
_PREVIOUS: Final = (Field("data"), Field("previous_attributes"))

# ---------------------------------------------------------------------------------------- expectations of a value


@dataclass(frozen=True, slots=True)
class Operand:
    """What a value is compared with: a constant, or another field."""

    constant: Value = MISSING
    path: CompiledPath | None = None

    def value(self, document: Document) -> Value:
        return self.constant if self.path is None else self.path.read(document)

    @property
    def text(self) -> str:
        return shown(self.constant) if self.path is None else f"the value at {self.path.text}"


class Expectation(Protocol):
    """A test of one value; `text` completes "expected …"."""

    def holds(self, value: Value, document: Document) -> bool: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Equals:
    operand: Operand

    def holds(self, value: Value, document: Document) -> bool:
        return equal(value, self.operand.value(document))

    @property
    def text(self) -> str:
        return self.operand.text


@dataclass(frozen=True, slots=True)
class Exists:
    expected: bool

    def holds(self, value: Value, document: Document) -> bool:  # noqa: ARG002 - part of the protocol
        return (value is not MISSING) is self.expected

    @property
    def text(self) -> str:
        return "a value" if self.expected else "missing"


@dataclass(frozen=True, slots=True)
class AnyOf:
    options: tuple[Expectation, ...]

    def holds(self, value: Value, document: Document) -> bool:
        for option in self.options:  # noqa: SIM110 - runs for every event, and is twice as fast as any()
            if option.holds(value, document):
                return True
        return False

    @property
    def text(self) -> str:
        return "one of " + ", ".join(option.text for option in self.options)


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Expectation, ...]

    def holds(self, value: Value, document: Document) -> bool:
        return all(part.holds(value, document) for part in self.parts)

    @property
    def text(self) -> str:
        return " and ".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    inner: Expectation

    def holds(self, value: Value, document: Document) -> bool:
        return not self.inner.holds(value, document)

    @property
    def text(self) -> str:
        return f"not {self.inner.text}"


@dataclass(frozen=True, slots=True)
class _Operation:
    """An operator and what it compares with."""

    operator: str
    operand: Operand

    @property
    def text(self) -> str:
        return f"{self.operator} {self.operand.text}"


@dataclass(frozen=True, slots=True)
class Compares(_Operation):
    """gt, gte, lt, lte: exact, and for numbers only."""

    limit: Decimal | None  # the operand, if it is a constant

    def holds(self, value: Value, document: Document) -> bool:
        right = self.limit if self.limit is not None else number(self.operand.value(document))
        left = number(value)
        return left is not None and right is not None and COMPARISONS[self.operator](left, right)


@dataclass(frozen=True, slots=True)
class InCurrency:
    """Accompanies the comparison of an amount: there must be this currency at this path."""

    path: CompiledPath
    code: str

    def holds(self, value: Value, document: Document) -> bool:  # noqa: ARG002 - part of the protocol
        return (text_of(self.path.read(document)) or "").upper() == self.code

    @property
    def text(self) -> str:
        return f"in {self.code}"


COMPARISONS: Final[dict[str, Callable[[Decimal, Decimal], bool]]] = {
    "eq": Decimal.__eq__,  # only for an amount with its currency
    "gt": Decimal.__gt__,
    "gte": Decimal.__ge__,
    "lt": Decimal.__lt__,
    "lte": Decimal.__le__,
}


@dataclass(frozen=True, slots=True)
class Resembles(_Operation):
    """prefix, suffix, contains: tests of a string (`contains` also of a list)."""

    def holds(self, value: Value, document: Document) -> bool:
        operand = self.operand.value(document)
        if self.operator == "contains" and isinstance(value, list):
            return any(equal(identified(e) if isinstance(e, dict) else e, operand) for e in value)
        text, piece = text_of(value), text_of(operand)
        return text is not None and piece is not None and RESEMBLANCES[self.operator](text, piece)


RESEMBLANCES: Final[dict[str, Callable[[str, str], bool]]] = {
    "prefix": lambda text, piece: text.startswith(piece),
    "suffix": lambda text, piece: text.endswith(piece),
    "contains": lambda text, piece: piece in text,
}


@dataclass(frozen=True, slots=True)
class Globs:
    glob: Glob

    def holds(self, value: Value, document: Document) -> bool:  # noqa: ARG002 - part of the protocol
        text = text_of(value)
        return text is not None and self.glob.matches(text)

    @property
    def text(self) -> str:
        return f"glob {self.glob.text}"


@dataclass(frozen=True, slots=True)
class _Change:
    expected: bool | str  # True, False, up, down

    def _is_as_expected(self, before: Value, now: Value) -> bool:
        if isinstance(self.expected, bool):
            nothing = (before is None or before is MISSING) and (now is None or now is MISSING)
            return (nothing or equal(before, now)) is not self.expected
        old, new = number(before), number(now)
        return old is not None and new is not None and (new > old if self.expected == "up" else new < old)

    @property
    def text(self) -> str:
        if isinstance(self.expected, bool):
            return "changed" if self.expected else "unchanged"
        return f"changed {self.expected}"


@dataclass(frozen=True, slots=True)
class Changed(_Change):
    """Compares the value with its previous one under data.previous_attributes (the path below data.object)."""

    segments: tuple[Segment, ...]

    def holds(self, value: Value, document: Document) -> bool:
        before = walk(document.body, (*_PREVIOUS, *self.segments))
        if before is MISSING:
            return self.expected is False
        return self._is_as_expected(identified(before) if isinstance(before, dict) else before, value)


@dataclass(frozen=True, slots=True)
class ValueChanged(_Change):
    """Compares a named value with its value in the event before the change."""

    path: CompiledPath

    def holds(self, value: Value, document: Document) -> bool:
        return self._is_as_expected(self.path.read(was(document)), value)


@dataclass(frozen=True, slots=True)
class After:
    """A time not before the one at another path, and at most a given duration after it."""

    operand: Operand
    within_ms: int | None
    within: str = ""

    def holds(self, value: Value, document: Document) -> bool:
        late, early = instant(value), instant(self.operand.value(document))
        if late is None or early is None or late < early:
            return False
        return self.within_ms is None or late - early <= timedelta(milliseconds=self.within_ms)

    @property
    def text(self) -> str:
        limit = f"within {self.within} " if self.within else ""
        return f"{limit}after {self.operand.text}"


def bound(expectation: Expectation, document: Document) -> Expectation:
    """The same expectation with values at other paths read once, for testing many elements."""
    match expectation:
        case AllOf(parts):
            return AllOf(tuple(bound(part, document) for part in parts))
        case AnyOf(options):
            return AnyOf(tuple(bound(option, document) for option in options))
        case Not(inner):
            return Not(bound(inner, document))
        case Equals(operand) | _Operation(operand=operand) | After(operand=operand):
            return replace(expectation, operand=Operand(operand.value(document)))
    return expectation


def compared_with(expectation: Expectation) -> list[CompiledPath]:
    """The further paths that an expectation reads."""
    match expectation:
        case AllOf(parts) | AnyOf(parts):
            return [path for part in parts for path in compared_with(part)]
        case Not(inner):
            return compared_with(inner)
        case Equals(operand) | _Operation(operand=operand) | After(operand=operand):
            return [] if operand.path is None else [operand.path]
    return []


def one_holds(expectation: Expectation, values: list[Json], document: Document) -> bool:
    """Whether one of the values is as expected; for `not`, `not_in` and `exists: false`, whether all are."""
    match expectation:
        case Not(inner):
            return not one_holds(inner, values, document)
        case Exists(expected):
            return bool(values) is expected
        case AnyOf(options):
            return any(one_holds(option, values, document) for option in options)
        case AllOf(parts):
            negative = [part for part in parts if isinstance(part, Not | Exists)]
            positive = [part for part in parts if not isinstance(part, Not | Exists)]
            if not all(one_holds(part, values, document) for part in negative):
                return False
            return not positive or any(all(part.holds(value, document) for part in positive) for value in values)
    return any(expectation.holds(value, document) for value in values)


# ------------------------------------------------------------------------------------------- conditions of an event


@dataclass(frozen=True, slots=True)
class FailedCondition:
    """Why a condition does not hold. actual: the value found, without secrets."""

    path: str
    expected: str
    actual: str


def shown_at(path: str, actual: str) -> str:
    """The value at a path, as a trace may show it."""
    if path_is_secret(path):
        return HIDDEN
    return without_secret_parameters(actual) if path.startswith("header.") else actual


class Condition(Protocol):
    def test(self, document: Document) -> FailedCondition | None: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class FieldTest:
    """One line of a `when:` map."""

    path: CompiledPath
    expectation: Expectation
    expected: str
    constant: str | None = None  # the expected string, if that is the whole test

    def test(self, document: Document) -> FailedCondition | None:
        value = self.path.read(document)
        if self.expectation.holds(value, document):
            return None
        return FailedCondition(self.path.text, self.expected, shown_at(self.path.text, shown(value)))

    @property
    def text(self) -> str:
        return f"{self.path.text} is {self.expected}"


@dataclass(frozen=True, slots=True)
class All:
    """A whole `when:` map, or `all:`. The first condition that fails is the reason."""

    parts: tuple[Condition, ...]

    def test(self, document: Document) -> FailedCondition | None:
        for part in self.parts:
            failure = part.test(document)
            if failure is not None:
                return failure
        return None

    @property
    def text(self) -> str:
        return " and ".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Either:
    """`any:` of a `when:` map."""

    parts: tuple[Condition, ...]

    def test(self, document: Document) -> FailedCondition | None:
        failures = []
        for part in self.parts:
            failure = part.test(document)
            if failure is None:
                return None
            failures.append(failure)
        actual = _after_first_path([(failure.path, failure.actual) for failure in failures])
        return FailedCondition(failures[0].path, "any of: " + "; ".join(part.text for part in self.parts), actual)

    @property
    def text(self) -> str:
        return "(" + " or ".join(part.text for part in self.parts) + ")"


@dataclass(frozen=True, slots=True)
class NotAll:
    """`not:` of a `when:` map."""

    inner: Condition
    paths: tuple[CompiledPath, ...]

    def test(self, document: Document) -> FailedCondition | None:
        if self.inner.test(document) is not None:
            return None
        actual = _after_first_path(
            [(path.text, shown_at(path.text, shown(path.read(document)))) for path in self.paths]
        )
        return FailedCondition(self.paths[0].text if self.paths else "not", self.text, actual or "nothing")

    @property
    def text(self) -> str:
        return f"not ({self.inner.text})"


def _after_first_path(found: Sequence[tuple[str, str]]) -> str:
    """The values at several paths, worded to follow `<the first path> is`."""
    first, *others = dict.fromkeys(found) or [("", "")]
    return "; ".join((first[1], *(f"{path} is {actual}" for path, actual in others)))


ALWAYS: Final = All(())


@dataclass(frozen=True, slots=True)
class ElementTest(FieldTest):
    """One line of a `when:` map whose path reads a list (`*`): one of its elements is as expected."""

    def test(self, document: Document) -> FailedCondition | None:
        found = self.path.read(document)
        values = found if isinstance(found, list) else []
        if one_holds(bound(self.expectation, document), values, document):
            return None
        return FailedCondition(self.path.text, self.expected, shown_at(self.path.text, _first_values(values)))


@dataclass(frozen=True, slots=True)
class ElementWhere:
    """A map of conditions for a path with `*`: one element satisfies all of them. negated: none does."""

    path: CompiledPath
    inner: All
    negated: bool = False

    def test(self, document: Document) -> FailedCondition | None:
        found = self.path.whole(document)
        elements = found if isinstance(found, list) else []
        if any(self.inner.test(Document(element)) is None for element in elements) is not self.negated:
            return None
        return FailedCondition(self.path.text, self._expected, shown_at(self.path.text, shown(found)))

    @property
    def text(self) -> str:
        return f"{self.path.text} is {self._expected}"

    @property
    def _expected(self) -> str:
        return f"a list with {'no' if self.negated else 'an'} element whose {self.inner.text}"


def _first_values(values: Sequence[Json]) -> str:
    """The first values of a list, as a trace shows them."""
    if not values:
        return "missing"
    return ", ".join(shown(value) for value in values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "")


@dataclass(frozen=True, slots=True)
class Case:
    """Events of these types (globs) that meet these conditions, and the answer for them."""

    events: tuple[str, ...]
    when: All
    answer: str


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases in order; the first that fits an event counts."""

    cases: tuple[Case, ...]

    def first_match(self, document: Document) -> str | None:
        """The answer for this event; None if no case fits."""
        event_type = text_of(document.envelope.get("type", MISSING)) or ""
        for case in of_type(self.cases, event_type):
            if case.when.test(document) is None:
                return case.answer
        return None


def flat(condition: Condition) -> tuple[Condition, ...]:
    """The conditions that must all hold, as a flat sequence."""
    if isinstance(condition, All):
        return tuple(part for inner in condition.parts for part in flat(inner))
    return (condition,)
