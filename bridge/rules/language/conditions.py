"""Conditions: a `when:` map of path to expectation, compiled once, tested without ever raising.

`test` returns None where the condition holds, else a `FailedCondition`: the path, what was expected and what was there,
for the trace. A missing field fails every positive test, so it passes `not`, `not_in`, `exists: false` and `null`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from bridge.masking import HIDDEN, path_is_secret, without_secret_parameters
from bridge.model import MISSING, Document, Json
from bridge.rules.language.expectations import Expectation, bound, one_holds
from bridge.rules.language.values import shown
from bridge.text import text_of

if TYPE_CHECKING:
    from bridge.globs import Glob
    from bridge.rules.language.paths import CompiledPath


@dataclass(frozen=True, slots=True)
class FailedCondition:
    """Why a condition does not hold. actual: without secrets."""

    path: str
    expected: str
    actual: str


def shown_at(path: str, actual: str) -> str:
    """What stood at a path, as a trace may show it."""
    if path_is_secret(path):
        return HIDDEN
    return without_secret_parameters(actual) if path.startswith("header.") else actual


class Condition(Protocol):
    def test(self, document: Document) -> FailedCondition | None: ...

    @property
    def text(self) -> str: ...


# ------------------------------------------------------------------------------------------- conditions of an event


@dataclass(frozen=True, slots=True)
class FieldTest:
    """One line of a `when:` map."""

    path: CompiledPath
    expectation: Expectation
    expected: str
    constant: str | None = None  # the text that is expected, where that is all

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
    """A whole `when:` map, or `all:`: the first that fails is the reason."""

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
        actual = _behind_first([(failure.path, failure.actual) for failure in failures])
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
        actual = _behind_first([(path.text, shown_at(path.text, shown(path.read(document)))) for path in self.paths])
        return FailedCondition(self.paths[0].text if self.paths else "not", self.text, actual or "nothing")

    @property
    def text(self) -> str:
        return f"not ({self.inner.text})"


def _behind_first(found: Sequence[tuple[str, str]]) -> str:
    """What stands at several paths, to be read behind `<the first path> is`."""
    first, *others = dict.fromkeys(found) or [("", "")]
    return "; ".join((first[1], *(f"{path} is {actual}" for path, actual in others)))


ALWAYS: Final = All(())
_TYPES_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class ElementTest(FieldTest):
    """One line of a `when:` map whose path reads a list (`*`): one of its elements is as expected."""

    def test(self, document: Document) -> FailedCondition | None:
        found = self.path.read(document)
        values = found if isinstance(found, list) else []
        if one_holds(bound(self.expectation, document), values, document):
            return None
        return FailedCondition(self.path.text, self.expected, shown_at(self.path.text, _some(values)))


@dataclass(frozen=True, slots=True)
class ElementWhere:
    """A map of conditions behind a path with `*`: one element satisfies all of it. negated: none does."""

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


def _some(values: Sequence[Json]) -> str:
    """The first values of a list, as a trace shows them."""
    if not values:
        return "missing"
    return ", ".join(shown(value) for value in values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "")


@dataclass(frozen=True, slots=True)
class Case:
    """Events of these types that meet these conditions, and what is true of them."""

    events: tuple[Glob, ...]
    when: All
    answer: str


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases in their order; the first that fits an event counts.

    by_type: event type -> the cases for it, remembered (at most _TYPES_MAX).
    """

    cases: tuple[Case, ...]
    by_type: dict[str, tuple[Case, ...]] = field(default_factory=dict, compare=False, repr=False)

    def of(self, document: Document) -> str | None:
        """The answer for this event; None where no case fits. Threads may race to remember: they remember the same."""
        event_type = text_of(document.envelope.get("type", MISSING)) or ""
        found = self.by_type.get(event_type)
        if found is None:
            found = tuple(case for case in self.cases if any(glob.matches(event_type) for glob in case.events))
            if len(self.by_type) >= _TYPES_MAX:
                self.by_type.clear()
            self.by_type[event_type] = found
        for case in found:
            if case.when.test(document) is None:
                return case.answer
        return None


def flat(condition: Condition) -> tuple[Condition, ...]:
    """The conditions that must all hold, one by one."""
    if isinstance(condition, All):
        return tuple(part for inner in condition.parts for part in flat(inner))
    return (condition,)
