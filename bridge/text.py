"""String helpers for every room: what a database can store, how to write values, times and counts, what was meant.

Everything from outside goes through `clean` before it reaches a terminal: a webhook may contain escape sequences.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bridge.model import Json, Missing

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_ZEROS: Final = re.compile(r"(?:[A-Za-z]+_)*[0-]*0[0-]*")
_UNITS: Final = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "min"), (1_000, "s"))
_UNPLAIN: Final = re.compile(r"[^\n -~]")
INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # characters, by Unicode category


def storable(text: str) -> str:
    """The text in a form that databases and UTF-8 accept: NUL and lone surrogates become U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def text_of(value: Json | Missing) -> str | None:
    """The string to send for a value: strings unchanged, true/false, numbers as in the JSON; None for anything else."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() < 10_000 else None
    if isinstance(value, float):
        return repr(value)  # for a body's floats, this is the sender's own spelling
    if isinstance(value, Decimal):
        return format(value, "f")
    return None


def is_fixture_id(event_id: str) -> bool:
    """`evt_00000000000000`, the id of old trial events and of fixtures, which identifies no event."""
    return event_id.endswith(("0", "-")) and _ZEROS.fullmatch(event_id) is not None


def nearest(word: str, known: Collection[str], likeness: float = 0.7) -> str | None:
    """The known word most similar to this one, if any is similar."""
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word[:80].lower(), list(by_lower), n=1, cutoff=likeness)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The end of a sentence: `; did you mean "metadata"?`, or what is allowed."""
    suggestion = nearest(word, known)
    if suggestion is not None:
        return f'; did you mean "{suggestion}"?'
    return f"; known are {', '.join(sorted(known))}" if len(known) <= 30 else ""


# ----------------------------------------------------------------------------------------------------- for people


def clean(value: Any) -> str:
    """A string with every control or invisible character spelled out; other values as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(c if unicodedata.category(c) not in INVISIBLE else _spelled(c) for c in text)


def escaped(document: str) -> str:
    """A JSON document in which such characters are JSON's own escapes: the same data. Line ends are its layout."""
    return _UNPLAIN.sub(lambda found: _as_json_escape(found[0]), document)


def _as_json_escape(character: str) -> str:
    return json.dumps(character)[1:-1] if unicodedata.category(character) in INVISIBLE else character


def _spelled(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def excerpt(value: Any, limit: int = 60) -> str:
    """A value as JSON for people: cleaned and cut."""
    text = clean(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def when(ms: int | None) -> str:
    """`2026-11-24 22:18:03 UTC`."""
    if ms is None:
        return "never"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def when_short(ms: int | None) -> str:
    """`11-24 22:18:03`, for tables."""
    return "" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%m-%d %H:%M:%S")


def iso_ms(text: str) -> int:
    """An ISO 8601 time in milliseconds since 1970; UTC if it names no zone. Raises ValueError."""
    return epoch_ms(datetime.fromisoformat(text))


def epoch_ms(moment: datetime) -> int:
    """A time in milliseconds since 1970; UTC if it has no zone."""
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def span(ms: int) -> str:
    """A duration as exact as people need it: `12 days`, `1 hour 5 min`, `3 s`."""
    left, parts = abs(ms), []
    for size, name in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 and name in ('day', 'hour') else ''}")
        elif parts:
            break
        if len(parts) == 2 or (parts and count >= 10):
            break
    return " ".join(parts) or f"{abs(ms)} ms"


def ago(ms: int, now_ms: int) -> str:
    """`3 min ago`, `in 2 hours`, `now`."""
    distance = now_ms - ms
    if abs(distance) < 1_000:
        return "now"
    return f"{span(distance)} ago" if distance > 0 else f"in {span(distance)}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 rule`, `2 rules`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `11th`, `23rd`."""
    end = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{end}"


def listing(items: list[str], none: str = "none", last: str = "and") -> str:
    """`a, b and c`. last: the word before the last one."""
    if not items:
        return none
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


_SIGNS: Final = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "CAD": "CA$", "AUD": "A$", "BRL": "R$"}


def money(amount: Decimal, currency: str) -> str:
    """`$1,240`, `€9.99`, `49 CHF`."""
    exponent = amount.as_tuple().exponent
    places = 0 if amount == amount.to_integral_value() else max(2, -int(exponent))
    sign = _SIGNS.get(currency.upper())
    number = f"{abs(amount):,.{places}f}"
    minus = "-" if amount < 0 else ""
    return f"{minus}{sign}{number}" if sign else f"{minus}{number} {currency}".rstrip()
