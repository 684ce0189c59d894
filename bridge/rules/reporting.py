"""Faults and warnings of one mapping file, each at its place: `mappings/stripe.yaml:13:7: sentence`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.rules.strict_yaml import Node

    Where = tuple[str | int, ...]
    Fault = Callable[[Where, str], None]


@dataclass(slots=True)
class Report:
    """What is wrong with a file. `fault` and `warn` take the steps to the place in its tree."""

    file: str  # with its folder, as messages name it
    tree: Node | None = None
    faults: list[tuple[int, int, str]] = field(default_factory=list)
    warnings: list[tuple[int, int, str]] = field(default_factory=list)
    faulty: set[Where] = field(default_factory=set)

    def fault(self, where: Where, sentence: str) -> None:
        self.faulty.add(where)
        self.faults.append((*self._place(where), one_line(sentence)))

    def fault_at(self, line: int, column: int, sentence: str) -> None:
        self.faults.append((line, column, one_line(sentence)))

    def warn(self, where: Where, sentence: str) -> None:
        self.warnings.append((*self._place(where), one_line(sentence)))

    def below(self, *steps: str | int) -> Fault:
        """A `fault` for what lies below these steps."""
        return lambda where, sentence: self.fault((*steps, *where), sentence)

    def is_sound(self, *steps: str | int) -> bool:
        """Whether nothing at or below these steps was found faulty so far."""
        return not any(where[: len(steps)] == steps for where in self.faulty)

    def place(self, where: Where) -> str:
        """The place as messages write it: `file:line:column`."""
        line, column = self._place(where)
        return f"{self.file}:{line}:{column}"

    def _place(self, where: Where) -> tuple[int, int]:
        return self.tree.place(where) if self.tree is not None else (1, 1)

    def lines(self, found: list[tuple[int, int, str]]) -> list[str]:
        return [f"{self.file}:{line}:{column}: {sentence}" for line, column, sentence in sorted(set(found))]


def one_line(sentence: str) -> str:
    return " ".join(sentence.split())
