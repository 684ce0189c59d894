"""What every room asks of strings: what a database takes, how a JSON value is written, which word was meant."""

from __future__ import annotations

import re
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from bridge.model import Json, Missing

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_ZEROS: Final = re.compile(r"(?:[A-Za-z]+_)*[0-]*0[0-]*")


def storable(text: str) -> str:
    """The text without what no database and no UTF-8 takes: NUL and lone surrogates become U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def text_of(value: Json | Missing) -> str | None:
    """What is sent for a value: strings as they are, true/false, numbers as in the JSON; None for anything else."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() < 10_000 else None
    if isinstance(value, float):
        return repr(value)  # of a body this is the sender's own text: its floats remember it
    if isinstance(value, Decimal):
        return format(value, "f")
    return None


def is_fixture_id(event_id: str) -> bool:
    """`evt_00000000000000`, the id of every trial event of old and of every fixture: it names no event."""
    return _ZEROS.fullmatch(event_id) is not None


def nearest(word: str, known: Collection[str], likeness: float = 0.7) -> str | None:
    """The known word that is most like this one, if one is like it at all."""
    by_lower = {each.lower(): each for each in known}
    found = get_close_matches(word[:80].lower(), list(by_lower), n=1, cutoff=likeness)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The end of a sentence: `; did you mean "metadata"?`, or what is allowed."""
    suggestion = nearest(word, known)
    if suggestion is not None:
        return f'; did you mean "{suggestion}"?'
    return f"; known are {', '.join(sorted(known))}" if len(known) <= 30 else ""
