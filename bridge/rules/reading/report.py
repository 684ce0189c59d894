"""Errors and warnings of one mapping file, each with its place: `mappings/stripe.yaml:13:7: sentence`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from bridge.rules.language.paths import CompiledPath, compile_path
from bridge.rules.language.templates import Composed, compile_template

if TYPE_CHECKING:
    from bridge.model import Path
    from bridge.rules.reading.schema import Texts
    from bridge.rules.reading.strict_yaml import Node

T = TypeVar("T")
Steps = tuple[str | int, ...]
Fault = Callable[[Steps, str], None]
Told = tuple[int, int, str]  # line, column, sentence


@dataclass(slots=True)
class Diagnostics:
    """The errors and warnings of a file. `fault`, `warn` and `suspect` take the steps to the place in its tree.

    suspicions: what is hardly what was meant; other warnings are about the surroundings of the file.
    """

    file: str  # with its folder, as in messages
    tree: Node | None = None
    faults: list[Told] = field(default_factory=list)
    warnings: list[Told] = field(default_factory=list)
    suspicions: list[Told] = field(default_factory=list)
    faulty: set[Steps] = field(default_factory=set)

    def fault(self, where: Steps, sentence: str) -> None:
        self.faulty.add(where)
        self.faults.append(self._told(where, sentence))

    def fault_at(self, line: int, column: int, sentence: str) -> None:
        self.faults.append((line, column, one_line(sentence)))

    def warn(self, where: Steps, sentence: str) -> None:
        self.warnings.append(self._told(where, sentence))

    def suspect(self, where: Steps, sentence: str) -> None:
        self.suspicions.append(self._told(where, sentence))

    def suspect_at(self, line: int, column: int, sentence: str) -> None:
        self.suspicions.append((line, column, one_line(sentence)))

    def below(self, *steps: str | int) -> Fault:
        """A `fault` function for places below these steps."""
        return lambda where, sentence: self.fault((*steps, *where), sentence)

    def is_sound(self, *steps: str | int) -> bool:
        """Whether no error has been found at or below these steps so far."""
        return not any(where[: len(steps)] == steps for where in self.faulty)

    def place(self, where: Steps) -> str:
        """The place as in messages: `file:line:column`."""
        line, column, _ = self._place(where)
        return f"{self.file}:{line}:{column}"

    def line(self, where: Steps) -> int:
        return self._place(where)[0]

    def _place(self, where: Steps) -> tuple[int, int, str]:
        return self.tree.place(where) if self.tree is not None else (1, 1, "")

    def _told(self, where: Steps, sentence: str) -> Told:
        """A problem in the file below a layer is reported where the layer leads to it, with both places."""
        line, column, other = self._place(where)
        return line, column, one_line(f"{sentence} ({other})" if other else sentence)

    def lines(self, found: list[Told]) -> list[str]:
        return [f"{self.file}:{line}:{column}: {sentence}" for line, column, sentence in sorted(set(found))]


def one_line(sentence: str) -> str:
    return " ".join(sentence.split())


# ------------------------------------------------------------------------------ one or a list of them


def numbered(written: T | list[T] | None) -> list[tuple[Steps, T]]:
    """Each item with the steps to it."""
    if written is None:
        return []
    return [((i,), one) for i, one in enumerate(written)] if isinstance(written, list) else [((), written)]


def listed(written: T | list[T] | None) -> tuple[T, ...]:
    """The items, without the steps."""
    return tuple(one for _, one in numbered(written))


def paths(texts: Texts | None, fault: Fault) -> tuple[CompiledPath, ...]:
    """Compile a path or a list of paths; an invalid path is reported to `fault` and left out."""
    return _compiled(texts, compile_path, fault)


def paths_or_templates(texts: Texts | None, fault: Fault) -> tuple[Path, ...]:
    """Compile each as a template if it has a brace, else as a path; an invalid one is reported and left out."""
    return _compiled(texts, _path_or_template, fault)


def _compiled(texts: Texts | None, compile_: Callable[[str], T], fault: Fault) -> tuple[T, ...]:
    found = []
    for where, text in numbered(texts):
        try:
            found.append(compile_(text))
        except ValueError as error:
            fault(where, str(error))
    return tuple(found)


def _path_or_template(text: str) -> Path:
    if "{" not in text or text.startswith('"'):
        return compile_path(text)
    template = compile_template(text)
    if template.literal is not None:
        raise ValueError(f'"{text}" names no path')
    return Composed(text, template)


def below(fault: Fault, *steps: str | int) -> Fault:
    """A `fault` function for places below these steps."""
    return lambda where, sentence: fault((*steps, *where), sentence)
