"""`handover:` of a preset or a file, compiled: the events by which a site can hand its visitor over.

A checkout, an order, a sign-up, a booking, a form; not a renewal, a refund or a failed charge, whose visitor is found
by memory. Goals of such events should have a visitor, and `bridge.store.goals.attribution` watches whether they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.globs import Glob, compile_glob
from bridge.model import MISSING
from bridge.rules.language.conditions import ALWAYS, All
from bridge.rules.reading.report import below, numbered
from bridge.rules.reading.when import compile_when
from bridge.text import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.model import Document
    from bridge.rules.reading.report import Fault
    from bridge.rules.reading.schema import HandoverStanza

ANY: Final = "goal"  # what they are called when nobody says


@dataclass(frozen=True, slots=True)
class _Handover:
    kind: str
    events: tuple[Glob, ...]
    when: All


@dataclass(frozen=True, slots=True)
class Handovers:
    """The entries in their order; the first that fits counts."""

    entries: tuple[_Handover, ...]

    def of(self, document: Document) -> str | None:
        """The kind of this event; None: no visitor can be handed over by it."""
        event_type = text_of(document.envelope.get("type", MISSING)) or ""
        for entry in self.entries:
            if any(glob.matches(event_type) for glob in entry.events) and entry.when.test(document) is None:
                return entry.kind
        return None


def compile_handovers(said: Iterable[HandoverStanza], fault: Fault) -> Handovers:
    """Faults are told to `fault`, by their place in the list."""
    return Handovers(
        tuple(
            _Handover(
                entry.kind or ANY,
                tuple(compile_glob(text) for _, text in numbered(entry.event)),
                ALWAYS if entry.when is None else compile_when(entry.when, below(fault, i, "when")),
            )
            for i, entry in enumerate(said)
        )
    )
