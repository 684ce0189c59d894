"""What reads like a path and is none: a value composed of several, and a flag told by how a value begins.

A provider may say an event's type in pieces: `"{source}.{object_type}.{action|lower}"` is one type of three fields. A
composed value without one of its pieces is missing as a whole, so that the next place can be tried. Reading never
raises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.model import MISSING, Document, Json, Missing
from bridge.rules.filters import Scope
from bridge.rules.paths import compile_one
from bridge.rules.templates import Template, compile_template
from bridge.rules.texts import numbered
from bridge.rules.values import text_of

if TYPE_CHECKING:
    from bridge.model import Path
    from bridge.rules.reporting import Fault
    from bridge.rules.schema import Texts


@dataclass(frozen=True, slots=True)
class Composed:
    """A template where a path may be."""

    text: str
    template: Template = field(compare=False, repr=False)

    def read(self, document: Document) -> Json | Missing:
        text = self.template.render(Scope(document))
        return MISSING if text is None else text

    whole = read


@dataclass(frozen=True, slots=True)
class BeginsWith:
    """True where the value at a path begins with a prefix; missing anywhere else."""

    path: Path
    prefix: str

    @property
    def text(self) -> str:
        return self.path.text

    def read(self, document: Document) -> Json | Missing:
        text = text_of(self.path.read(document))
        return True if text is not None and text.startswith(self.prefix) else MISSING

    whole = read


def paths_or_templates(texts: Texts | None, fault: Fault) -> tuple[Path, ...]:
    """Compile each as a template if it holds a brace, else as a path; what is neither is told and left out."""
    found: list[Path] = []
    for where, text in numbered(texts):
        try:
            found.append(_composed(text) if "{" in text and not text.startswith('"') else compile_one(text))
        except ValueError as error:
            fault(where, str(error))
    return tuple(found)


def _composed(text: str) -> Composed:
    template = compile_template(text)
    if template.literal is not None:
        raise ValueError(f'"{text}" names no path')
    return Composed(text, template)
