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
Reporter = Callable[[Steps, str], None]  # reports an error: where it is, and a sentence
Placed = tuple[int, int, str]  # line, column, sentence


@dataclass(slots=True)
class Diagnostics:
    """The errors and warnings of a file. `problem`, `warn` and `suspect` take the steps to the place in its tree.

    suspicions: what was probably not meant as it is written; other warnings are about what surrounds the file.
    """

    file: str  # with its folder, as in messages
    tree: Node | None = None
    problems: list[Placed] = field(default_factory=list)
    warnings: list[Placed] = field(default_factory=list)
    suspicions: list[Placed] = field(default_factory=list)
    unsound: set[Steps] = field(default_factory=set)

    def problem(self, where: Steps, sentence: str) -> None:
        self.unsound.add(where)
        self.problems.append(self._placed(where, sentence))

    def problem_at(self, line: int, column: int, sentence: str) -> None:
        self.problems.append((line, column, one_line(sentence)))

    def warn(self, where: Steps, sentence: str) -> None:
        self.warnings.append(self._placed(where, sentence))

    def suspect(self, where: Steps, sentence: str) -> None:
        self.suspicions.append(self._placed(where, sentence))

    def suspect_at(self, line: int, column: int, sentence: str) -> None:
        self.suspicions.append((line, column, one_line(sentence)))

    def below(self, *steps: str | int) -> Reporter:
        """A `Reporter` for places below these steps."""
        return lambda where, sentence: self.problem((*steps, *where), sentence)

    def is_sound(self, *steps: str | int) -> bool:
        """Whether no error has been found at or below these steps so far."""
        return not any(where[: len(steps)] == steps for where in self.unsound)

    def place(self, where: Steps) -> str:
        """The place as in messages: `file:line:column`."""
        line, column, _ = self._place(where)
        return f"{self.file}:{line}:{column}"

    def line(self, where: Steps) -> int:
        return self._place(where)[0]

    def _place(self, where: Steps) -> tuple[int, int, str]:
        return self.tree.place(where) if self.tree is not None else (1, 1, "")

    def _placed(self, where: Steps, sentence: str) -> Placed:
        """A problem in the file below a layer is placed where the layer leads to it, and names both places."""
        line, column, other = self._place(where)
        return line, column, one_line(f"{sentence} ({other})" if other else sentence)

    def lines(self, found: list[Placed]) -> list[str]:
        return [f"{self.file}:{line}:{column}: {sentence}" for line, column, sentence in sorted(set(found))]


def one_line(sentence: str) -> str:
    return " ".join(sentence.split())


# ------------------------------------------------------------------------------ a single value or a list


def numbered(written: T | list[T] | None) -> list[tuple[Steps, T]]:
    """Each item with the steps to it."""
    if written is None:
        return []
    return [((i,), item) for i, item in enumerate(written)] if isinstance(written, list) else [((), written)]


def listed(written: T | list[T] | None) -> tuple[T, ...]:
    """The items, without the steps."""
    return tuple(item for _, item in numbered(written))


def paths(texts: Texts | None, problem: Reporter) -> tuple[CompiledPath, ...]:
    """Compile a path or a list of paths; an invalid path is reported to `problem` and left out."""
    return _compiled(texts, compile_path, problem)


def paths_or_templates(texts: Texts | None, problem: Reporter) -> tuple[Path, ...]:
    """Compile each as a template if it has a brace, else as a path; an invalid one is reported and left out."""
    return _compiled(texts, _path_or_template, problem)


def _compiled(texts: Texts | None, compile_: Callable[[str], T], problem: Reporter) -> tuple[T, ...]:
    found = []
    for where, text in numbered(texts):
        try:
            found.append(compile_(text))
        except ValueError as error:
            problem(where, str(error))
    return tuple(found)


def _path_or_template(text: str) -> Path:
    if "{" not in text or text.startswith('"'):
        return compile_path(text)
    template = compile_template(text)
    if template.literal is not None:
        raise ValueError(f'"{text}" names no path')
    return Composed(text, template)


def below(problem: Reporter, *steps: str | int) -> Reporter:
    """The same reporter, for places below these steps."""
    return lambda where, sentence: problem((*steps, *where), sentence)
