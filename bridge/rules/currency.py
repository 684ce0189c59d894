"""Minor units: how many decimals an amount of a currency has, as the payment providers count them.

Every currency has two, but those of the two tables. Where a provider counts a currency in another way, its preset says
so (`decimals:`): Stripe has two decimals for the Ugandan shilling that are always 00. The Icelandic króna has two here,
although it has no coins below one, because that is how it is counted (contract of the senders, 3.5).
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

from bridge.rules.values import EXACT

ZERO: Final = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF")
)
THREE: Final = frozenset(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"))
_CODE: Final = re.compile(r"[A-Za-z]{3}", re.ASCII)


@lru_cache(maxsize=500)
def decimals(currency: str) -> int | None:
    """The number of decimals of a currency by its three-letter code, in any case; None if it is no code."""
    code = currency.strip().upper()
    if not _CODE.fullmatch(code):
        return None
    return 0 if code in ZERO else 3 if code in THREE else 2


def major(minor: Decimal, places: int) -> Decimal:
    """4900 with two places -> 49.00, exactly; a fraction of a minor unit is kept."""
    moved = EXACT.plus(minor.scaleb(-places, EXACT))  # plus makes 0 of -0
    whole = moved.quantize(Decimal(1).scaleb(-places), context=EXACT)
    return whole if whole == moved else plain(moved)


def minor_text(minor: int, places: int) -> str:
    """The text of `major` for a whole number from zero on, without its cost."""
    if not places:
        return str(minor)
    digits = str(minor).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}"


def minor(amount: Decimal, places: int) -> Decimal:
    """49.00 with two places -> 4900, exactly."""
    return plain(amount.scaleb(places, EXACT))


def plain(exact: Decimal) -> Decimal:
    """Without superfluous zeros behind the point, and never as 1E+2."""
    exact = EXACT.plus(exact)
    whole = exact.to_integral_value(context=EXACT)
    return whole.quantize(Decimal(1), context=EXACT) if whole == exact else exact.normalize(EXACT)
