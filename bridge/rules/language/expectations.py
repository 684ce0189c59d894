"""What one value is expected to be: the operators of a condition. Each is a frozen test that never raises.

`holds` sees the value at the path (an expanded object reads as its id, nothing as MISSING) and the whole event, for
operands that are paths themselves. `text` completes "expected …" in a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Protocol

from bridge.model import MISSING, Document, Json
from bridge.rules.language.filters import instant
from bridge.rules.language.paths import CompiledPath, Field, Segment, identified, walk
from bridge.rules.language.values import Value, equal, number, shown, was
from bridge.text import text_of

if TYPE_CHECKING:
    from bridge.globs import Glob


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
    wanted: bool

    def holds(self, value: Value, document: Document) -> bool:  # noqa: ARG002 - the protocol's
        return (value is not MISSING) is self.wanted

    @property
    def text(self) -> str:
        return "a value" if self.wanted else "missing"


@dataclass(frozen=True, slots=True)
class AnyOf:
    options: tuple[Expectation, ...]

    def holds(self, value: Value, document: Document) -> bool:
        for option in self.options:  # noqa: SIM110 - twice as fast as any() of a generator, for every event
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
class Compares:
    """gt, gte, lt, lte: numbers only, exactly."""

    operator: str
    operand: Operand
    limit: Decimal | None  # the operand, where it is a constant

    def holds(self, value: Value, document: Document) -> bool:
        right = self.limit if self.limit is not None else number(self.operand.value(document))
        left = number(value)
        return left is not None and right is not None and COMPARISONS[self.operator](left, right)

    @property
    def text(self) -> str:
        return f"{self.operator} {self.operand.text}"


@dataclass(frozen=True, slots=True)
class InCurrency:
    """Beside an amount's comparison: the currency at this path is this one."""

    path: CompiledPath
    code: str

    def holds(self, value: Value, document: Document) -> bool:  # noqa: ARG002 - the protocol's
        return (text_of(self.path.read(document)) or "").upper() == self.code

    @property
    def text(self) -> str:
        return f"in {self.code}"


COMPARISONS: Final[dict[str, Callable[[Decimal, Decimal], bool]]] = {
    "eq": Decimal.__eq__,  # of an amount with its currency alone
    "gt": Decimal.__gt__,
    "gte": Decimal.__ge__,
    "lt": Decimal.__lt__,
    "lte": Decimal.__le__,
}


@dataclass(frozen=True, slots=True)
class Resembles:
    """prefix, suffix, contains: tests of a string (`contains` of a list, too)."""

    operator: str
    operand: Operand

    def holds(self, value: Value, document: Document) -> bool:
        wanted = self.operand.value(document)
        if self.operator == "contains" and isinstance(value, list):
            return any(equal(identified(e) if isinstance(e, dict) else e, wanted) for e in value)
        text, piece = text_of(value), text_of(wanted)
        return text is not None and piece is not None and RESEMBLANCES[self.operator](text, piece)

    @property
    def text(self) -> str:
        return f"{self.operator} {self.operand.text}"


RESEMBLANCES: Final[dict[str, Callable[[str, str], bool]]] = {
    "prefix": lambda text, piece: text.startswith(piece),
    "suffix": lambda text, piece: text.endswith(piece),
    "contains": lambda text, piece: piece in text,
}


@dataclass(frozen=True, slots=True)
class Globs:
    glob: Glob

    def holds(self, value: Value, document: Document) -> bool:  # noqa: ARG002 - the protocol's
        text = text_of(value)
        return text is not None and self.glob.matches(text)

    @property
    def text(self) -> str:
        return f"glob {self.glob.text}"


@dataclass(frozen=True, slots=True)
class Changed:
    """Compares the value now with the one under data.previous_attributes, at the path's part below data.object."""

    segments: tuple[Segment, ...]
    wanted: bool | str  # True, False, up, down

    def holds(self, value: Value, document: Document) -> bool:
        before = walk(document.body, (*_PREVIOUS, *self.segments))
        if before is MISSING:
            return self.wanted is False
        return _differs(identified(before) if isinstance(before, dict) else before, value, self.wanted)

    @property
    def text(self) -> str:
        return _change(self.wanted)


@dataclass(frozen=True, slots=True)
class ValueChanged:
    """Compares a named value with what it was, in the event as it was before the change."""

    path: CompiledPath
    wanted: bool | str

    def holds(self, value: Value, document: Document) -> bool:
        return _differs(self.path.read(was(document)), value, self.wanted)

    @property
    def text(self) -> str:
        return _change(self.wanted)


def _differs(before: Value, now: Value, wanted: bool | str) -> bool:
    if isinstance(wanted, bool):
        nothing = (before is None or before is MISSING) and (now is None or now is MISSING)
        return (nothing or equal(before, now)) is not wanted
    old, new = number(before), number(now)
    return old is not None and new is not None and (new > old if wanted == "up" else new < old)


def _change(wanted: bool | str) -> str:
    if isinstance(wanted, bool):
        return "changed" if wanted else "unchanged"
    return f"changed {wanted}"


@dataclass(frozen=True, slots=True)
class After:
    """A time that is not before the one at another path, and at most so long after it."""

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
    """The same with the values at other paths read once, for a test of many elements."""
    match expectation:
        case AllOf(parts):
            return AllOf(tuple(bound(part, document) for part in parts))
        case AnyOf(options):
            return AnyOf(tuple(bound(option, document) for option in options))
        case Not(inner):
            return Not(bound(inner, document))
        case Equals(operand) | Compares(operand=operand) | Resembles(operand=operand) | After(operand=operand):
            return replace(expectation, operand=Operand(operand.value(document)))
    return expectation


def compared_with(expectation: Expectation) -> list[CompiledPath]:
    """The other paths that an expectation reads."""
    match expectation:
        case AllOf(parts) | AnyOf(parts):
            return [path for part in parts for path in compared_with(part)]
        case Not(inner):
            return compared_with(inner)
        case Equals(operand) | Compares(operand=operand) | Resembles(operand=operand) | After(operand=operand):
            return [] if operand.path is None else [operand.path]
    return []


def one_holds(expectation: Expectation, values: list[Json], document: Document) -> bool:
    """Whether one of the values is as expected; for `not`, `not_in` and `exists: false`, whether none is otherwise."""
    match expectation:
        case Not(inner):
            return not one_holds(inner, values, document)
        case Exists(wanted):
            return bool(values) is wanted
        case AnyOf(options):
            return any(one_holds(option, values, document) for option in options)
        case AllOf(parts):
            negative = [part for part in parts if isinstance(part, Not | Exists)]
            positive = [part for part in parts if not isinstance(part, Not | Exists)]
            if not all(one_holds(part, values, document) for part in negative):
                return False
            return not positive or any(all(part.holds(value, document) for part in positive) for value in values)
    return any(expectation.holds(value, document) for value in values)


_PREVIOUS: Final = (Field("data"), Field("previous_attributes"))
NOW: Final = (Field("data"), Field("object"))
