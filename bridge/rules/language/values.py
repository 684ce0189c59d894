"""JSON values in the rule language: numbers, equality, amounts, their form in a trace, their state before a change.

Exact: numbers are compared and computed as decimals, never as floats. Bounded: a value with hundreds of digits or a
huge exponent does not count as a number. Nothing here raises, whatever a body contains.
"""

from __future__ import annotations

import json
import re
from decimal import Context, Decimal
from functools import lru_cache
from typing import Final

from bridge.model import MISSING, Derived, Document, ExactFloat, Json, Missing
from bridge.text import text_of

Value = Json | Missing

NUMBER: Final = re.compile(r"[+-]?[0-9]{1,60}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
EXACT: Final = Context(prec=500, Emax=999_999, Emin=-999_999, traps=[])
_BITS_MAX: Final = 200  # bits of an integer: 60 digits
_LARGEST: Final = 100  # no realistic amount has more than 100 digits before or after its point
_TEXT_IN_TRACE: Final = 80
_JSON_TEXT_MAX: Final = 262_144


def number(value: Value) -> Decimal | None:
    """The exact number of a JSON number or numeric string; None for anything else and for numbers out of bounds."""
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
    """Compare two values: numbers equal numeric strings, "true" and "false" equal booleans, MISSING equals nothing."""
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
    """Whether two JSON documents are the same; documents nested too deep to compare count as different."""
    try:
        return type(left) is type(right) and bool(left == right)
    except RecursionError:
        return False


def is_empty(value: Value) -> bool:
    """Missing, null or the empty string. Zero and false are values."""
    return value is None or value is MISSING or value == ""


def json_in_text(text: str) -> Value:
    """The JSON document in a string, for paths that continue into it; MISSING if there is none."""
    if text.lstrip()[:1] not in ("{", "[") or len(text) > _JSON_TEXT_MAX:
        return MISSING
    try:
        return json.loads(text, parse_float=ExactFloat, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return MISSING


def _refuse(constant: str) -> Json:
    raise ValueError(constant)


def shown(value: Value) -> str:
    """A value as a trace shows it: short, on one line; containers only by their size."""
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


# --------------------------------------------------------------------------------------------------------- money

# How many decimals an amount in minor units has, as the payment providers count them: two, except for the currencies in
# these tables. If a provider counts a currency differently, its preset says so (`decimals:`). The Icelandic króna has
# two, although it has no coins below one, because that is how it is counted (contract of the senders, 3.5).
ZERO: Final = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF")
)
THREE: Final = frozenset(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"))
_CODE: Final = re.compile(r"[A-Za-z]{3}", re.ASCII)


@lru_cache(maxsize=500)
def decimals(currency: str) -> int | None:
    """The number of decimals of a currency by its three-letter code, in any case; None if it is not a code."""
    code = currency.strip().upper()
    if not _CODE.fullmatch(code):
        return None
    return 0 if code in ZERO else 3 if code in THREE else 2


def major(minor: Decimal, places: int) -> Decimal:
    """4900 with two places -> 49.00, exactly; a fraction of a minor unit is kept."""
    moved = EXACT.plus(minor.scaleb(-places, EXACT))  # plus() turns -0 into 0
    whole = moved.quantize(Decimal(1).scaleb(-places), context=EXACT)
    return whole if whole == moved else plain(moved)


def minor_text(minor: int, places: int) -> str:
    """`major` as a string, for whole numbers from zero on: much faster."""
    if not places:
        return str(minor)
    digits = str(minor).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}"


def minor(amount: Decimal, places: int) -> Decimal:
    """49.00 with two places -> 4900, exactly."""
    return plain(amount.scaleb(places, EXACT))


def plain(exact: Decimal) -> Decimal:
    """The number without trailing zeros after the point, and never as 1E+2."""
    exact = EXACT.plus(exact)
    whole = exact.to_integral_value(context=EXACT)
    return whole.quantize(Decimal(1), context=EXACT) if whole == exact else exact.normalize(EXACT)


# ----------------------------------------------------------------------------------------------- before the change

# `data.previous_attributes` is laid over `data.object`, as Stripe sends both. Objects are merged key by key; lists and
# single values replace; null means that nothing was there. An event without previous values counts as unchanged. The
# document is never altered, and only what changed is copied.


def was(document: Document) -> Document:
    """The document before the change; cached if the document has room for it."""
    return document.derived.was(document) if document.derived is not None else before(document)


def before(document: Document, derived: Derived | None = None) -> Document:
    """Build the document before the change, with room for values derived from it."""
    body = _body(document.body)
    root = body if document.root is None or document.root is document.body else document.root
    return Document(body, document.header, document.query, document.envelope, document.key, root, derived)


def _body(body: Json) -> Json:
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("previous_attributes"), dict):
        return body
    rest = {name: value for name, value in data.items() if name != "previous_attributes"}
    return {**body, "data": {**rest, "object": _laid_over(data.get("object"), data["previous_attributes"])}}


def _laid_over(now: Json, changed: Json) -> Json:
    if not isinstance(now, dict) or not isinstance(changed, dict):
        return changed
    return {**now, **{name: _laid_over(now.get(name), value) for name, value in changed.items()}}
