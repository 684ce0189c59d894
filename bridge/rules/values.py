"""JSON values as the rule language sees them: their text, their number, their equality, their look in a trace.

Exact: numbers are compared and reckoned as decimals, never as floats. Bounded: what is no sensible number (hundreds
of digits, huge exponents) is no number. Nothing here raises, whatever a body holds.
"""

from __future__ import annotations

import json
import re
from decimal import Context, Decimal
from typing import Final

from bridge.limits import storable
from bridge.model import MISSING, ExactFloat, Json, Missing

Value = Json | Missing

NUMBER: Final = re.compile(r"[+-]?[0-9]{1,60}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
EXACT: Final = Context(prec=500, Emax=999_999, Emin=-999_999, traps=[])
_BITS_MAX: Final = 200  # of an integer: 60 digits
_LARGEST: Final = 100  # no amount of anything has more than 100 digits before or behind its point
_TEXT_IN_TRACE: Final = 80
_JSON_TEXT_MAX: Final = 262_144


def text_of(value: Value) -> str | None:
    """What is sent for a value: texts as they are, true/false, numbers as in the JSON; None for all without text."""
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


def number(value: Value) -> Decimal | None:
    """The exact number a value is: a JSON number or a numeric text; None for everything else and for monsters."""
    if value.__class__ is int:
        return Decimal(value) if value.bit_length() <= _BITS_MAX else None
    if isinstance(value, Decimal):
        return value if _sensible(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    text = value if isinstance(value, str) else repr(value)
    if not NUMBER.fullmatch(text):
        return None
    exact = Decimal(text)
    return exact if _sensible(exact) else None


def _sensible(exact: Decimal) -> bool:
    return exact.is_finite() and (not exact or abs(exact.adjusted()) <= _LARGEST)


def equal(left: Value, right: Value) -> bool:
    """Numbers equal numeric texts, "true" and "false" equal booleans, missing equals nothing."""
    if left is None or right is None or left is MISSING or right is MISSING:
        return False
    if left.__class__ is str and right.__class__ is str:
        return bool(left == right)
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, (bool, str)) and isinstance(right, (bool, str)) and text_of(left) == text_of(right)
    if isinstance(left, (int, float, Decimal, str)) and isinstance(right, (int, float, Decimal, str)):
        first, second = number(left), number(right)
        return first == second if first is not None and second is not None else text_of(left) == text_of(right)
    return same(left, right)


def same(left: Value, right: Value) -> bool:
    """Whether two JSON documents are the same; too deep to tell counts as different."""
    try:
        return type(left) is type(right) and bool(left == right)
    except RecursionError:
        return False


def is_empty(value: Value) -> bool:
    """Missing, null or the empty text. Zero and false are values."""
    return value is None or value is MISSING or value == ""


def json_in_text(text: str) -> Value:
    """The document that a text holds, for paths that go on into it; MISSING if it holds none."""
    if text.lstrip()[:1] not in ("{", "[") or len(text) > _JSON_TEXT_MAX:
        return MISSING
    try:
        return json.loads(text, parse_float=ExactFloat, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return MISSING


def _refuse(constant: str) -> Json:
    raise ValueError(constant)


def shown(value: Value) -> str:
    """A value as a trace shows it: short, on one line; containers by their size only."""
    if value.__class__ is str and 0 < len(value) <= _TEXT_IN_TRACE and value.isprintable():
        return str(value)
    if value is MISSING or value is None:
        return "missing"
    if isinstance(value, dict):
        return f"an object with {len(value)} entries"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    text = text_of(value)
    if text is None:
        return "a huge number"
    if text == "":
        return '""'
    line = " ".join(text[: _TEXT_IN_TRACE * 2].split())
    return line if len(line) <= _TEXT_IN_TRACE else line[: _TEXT_IN_TRACE - 1] + "…"
