"""Document → Envelope: reads an event's type, id, time, test flag and account from where the provider keeps them.

Any value becomes a string that every database can store: no NUL, no lone surrogates, bounded (the rest of one that is
too long is replaced by its hash, so that different ids stay different). Times are milliseconds since 1970: seconds and
milliseconds are distinguished by magnitude, a string is ISO 8601 (without an offset: UTC). Nothing raises.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from bridge.masking import without_addresses
from bridge.model import MISSING, Document, Envelope
from bridge.text import storable, text_of

if TYPE_CHECKING:
    from bridge.model import EnvelopeSpec, Json, Path

MAX_TEXT: Final = 200
_DIGEST_CHARACTERS: Final = 32
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MILLISECONDS_FROM: Final = 100_000_000_000  # in seconds the year 5138, in milliseconds the year 1973
_LATEST_MS: Final = 4_102_444_800_000  # 2100: later times are typos or attacks
_NUMBER: Final = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")
_LONGEST: Final = 40


def read_envelope(spec: EnvelopeSpec, document: Document) -> Envelope:
    """The envelope of one document. Missing parts are empty or None; a missing test flag means live."""
    return Envelope(
        type=without_addresses(first_text(spec.type, document) or ""),
        id=first_text(spec.id, document),
        time_ms=_first_time(spec.time, document),
        order_ms=_first_time(spec.order, document),
        test=_is_test(spec, document),
        account=first_text(spec.account, document),
    )


def with_envelope(document: Document, envelope: Envelope) -> Document:
    """The document with the root `envelope` that rules read; `time` is in milliseconds."""
    root: dict[str, Json] = {
        "type": envelope.type,
        "id": envelope.id,
        "time": envelope.time_ms,
        "test": envelope.test,
        "account": envelope.account,
    }
    return Document(document.body, document.header, document.query, root, document.key, document.root)


def bounded_text(text: str) -> str:
    """A clean string of at most MAX_TEXT characters; whatever exceeds that is replaced by its hash."""
    text = storable(text)
    if len(text) <= MAX_TEXT:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{text[: MAX_TEXT - _DIGEST_CHARACTERS - 1]}#{digest}"


def first_text(paths: tuple[Path, ...], document: Document) -> str | None:
    """The first string or number among the values, cleaned and bounded."""
    for path in paths:
        value = path.read(document)
        text = None if value is MISSING or isinstance(value, bool) else text_of(value)
        if text and (text := bounded_text(text.strip())):
            return text
    return None


def _first_time(paths: tuple[Path, ...], document: Document) -> int | None:
    for path in paths:
        time_ms = ms_of(path.read(document))
        if time_ms is not None:
            return time_ms
    return None


def _is_test(spec: EnvelopeSpec, document: Document) -> bool:
    """Whether any of the places marks the event as a test. Without a mark it is live."""
    for path in spec.test:
        value = path.read(document)
        if value.__class__ is bool is spec.test_is.__class__:  # most events: `livemode`, and it is not false
            if value is spec.test_is:
                return True
        elif value is not MISSING and _marks_test(value, spec.test_is):
            return True
    return False


def _marks_test(value: Json, marks: Json) -> bool:
    """`true` equals `"true"`; several marks may be listed."""
    stated = text_of(value)
    listed = marks if isinstance(marks, list | tuple) else (marks,)
    return stated is not None and stated.strip().lower() in {(text_of(mark) or "").lower() for mark in listed}


# --------------------------------------------------------------------------------------------------------- times


def ms_of(value: Json) -> int | None:
    """A time in any provider's notation, in ms; None unless it is between 1970 and 2100. Never raises."""
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
