"""The times that providers write, as milliseconds since 1970 UTC.

Seconds and milliseconds are told apart by magnitude, text is ISO 8601 (without an offset: UTC). Nonsense is None.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bridge.model import Json

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MILLISECONDS_FROM: Final = 100_000_000_000  # as seconds the year 5138, as milliseconds the year 1973
_LATEST_MS: Final = 4_102_444_800_000  # 2100: later times are typing errors or attacks
_NUMBER: Final = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")
_LONGEST: Final = 40


def ms_of(value: Json) -> int | None:
    """A time as any provider writes it; None for what is no time between 1970 and 2100. Never raises."""
    if isinstance(value, str):
        return _ms_of_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return _ms_of_number(value)


def _ms_of_number(number: float) -> int | None:
    if not 0 < number < _LATEST_MS:  # also false for NaN
        return None
    milliseconds = int(number if number >= _MILLISECONDS_FROM else number * 1000)
    return milliseconds if 0 < milliseconds < _LATEST_MS else None


def _ms_of_text(text: str) -> int | None:
    if not text.isascii() or len(text) > _LONGEST:
        return None
    if _NUMBER.fullmatch(text):
        return _ms_of_number(float(text) if "." in text else int(text))
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        milliseconds = (moment - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None
    return milliseconds if 0 < milliseconds < _LATEST_MS else None
