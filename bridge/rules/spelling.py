"""Did you mean …? One way to suggest a word, for keys, operators, filters, presets and event names."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def nearest(word: str, known: Collection[str], likeness: float = 0.7) -> str | None:
    """The known word that is most like this one, if one is like it at all."""
    found = get_close_matches(word[:80].lower(), list(known), n=1, cutoff=likeness)
    return found[0] if found else None


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The end of a sentence: `; did you mean "metadata"?`, or what is allowed."""
    suggestion = nearest(word, known)
    if suggestion is not None:
        return f'; did you mean "{suggestion}"?'
    return f"; known are {', '.join(sorted(known))}" if len(known) <= 30 else ""
