"""What one value is expected to be: the operators of a condition. Each is a frozen test that never raises.

`holds` sees the value at the path (an expanded object reads as its id, nothing as MISSING) and the whole event, for
operands that are paths themselves. `text` completes "expected …" in a trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Protocol

from bridge.model import MISSING, Document
from bridge.rules.paths import CompiledPath, Field, identified, walk
from bridge.rules.values import Value, equal, number, shown, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.rules.globs import Glob
    from bridge.rules.paths import Segment


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


COMPARISONS: Final[dict[str, Callable[[Decimal, Decimal], bool]]] = {
    "gt": Decimal.__gt__,
    "gte": Decimal.__ge__,
    "lt": Decimal.__lt__,
    "lte": Decimal.__le__,
}


@dataclass(frozen=True, slots=True)
class Resembles:
    """prefix, suffix, contains: tests of a text (`contains` of a list, too)."""

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
        before = identified(before) if isinstance(before, dict) else before
        if isinstance(self.wanted, bool):
            now = None if value is MISSING else value
            unchanged = (before is None and now is None) or equal(before, now)
            return unchanged is not self.wanted
        old, new = number(before), number(value)
        return old is not None and new is not None and (new > old if self.wanted == "up" else new < old)

    @property
    def text(self) -> str:
        if isinstance(self.wanted, bool):
            return "changed" if self.wanted else "unchanged"
        return f"changed {self.wanted}"


_PREVIOUS: Final = (Field("data"), Field("previous_attributes"))
NOW: Final = (Field("data"), Field("object"))
