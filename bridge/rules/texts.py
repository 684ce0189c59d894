"""One text or a list of texts, as many keys of a mapping file take: walked, and compiled as paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.rules.paths import CompiledPath, compile_one

if TYPE_CHECKING:
    from bridge.rules.reporting import Fault, Where
    from bridge.rules.schema import Texts


def numbered(texts: Texts | None) -> list[tuple[Where, str]]:
    """Each text with the steps to it."""
    if texts is None:
        return []
    return [((), texts)] if isinstance(texts, str) else [((i,), text) for i, text in enumerate(texts)]


def paths(texts: Texts | None, fault: Fault) -> tuple[CompiledPath, ...]:
    """Compile a path or a list of paths; what is none is told to `fault` and left out."""
    found = []
    for where, text in numbered(texts):
        try:
            found.append(compile_one(text))
        except ValueError as error:
            fault(where, str(error))
    return tuple(found)


def below(fault: Fault, *steps: str | int) -> Fault:
    """A `fault` for what lies below these steps."""
    return lambda where, sentence: fault((*steps, *where), sentence)
