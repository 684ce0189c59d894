"""What DataFast's answers say. Every documented shape is read, and nothing else raises an error.

Bytes in, values out. Strings that people will read are short and contain no markup, control characters or secrets.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from bridge.model import CompletedGoal
from bridge.text import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridge.model import Json

MESSAGE_MAX: Final = 300
_LOOKED_AT: Final = 8 * 1024  # of an error page
_SCRIPT: Final = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<[a-z/!?][^<>]*(?:>|\Z)", re.IGNORECASE)
_SECONDS_BELOW: Final = 10**12  # a time since 1970 under this is in seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. headers: lower-case names; cut: the peer ended before its body did."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    cut: bool = False


def document(body: bytes) -> Json | None:
    """The JSON of a body, or None."""
    try:
        return json.loads(body)  # a BOM, NaN and duplicate keys are accepted: nothing is decided by them
    except (ValueError, RecursionError):
        return None


def plain(text: str, secret: str | None = None) -> str:
    """One short line for people: no markup, no control characters, no secret."""
    for pattern in (_SCRIPT, _TAG):
        text = pattern.sub(" ", text[:_LOOKED_AT])
    text = _TAG.sub(" ", html.unescape(text))
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(sign) in HIDDEN else sign for sign in text)
    text = " ".join(text.split())
    if secret:
        text = text.replace(secret, "…")
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 1].rstrip() + "…"


def message(answer: Answer, secret: str | None = None) -> str:
    """What an answer says in words: `error.message`, `error`, `message`, a page's text, or nothing."""
    if is_packed(answer):
        return ""
    parsed = document(answer.body)
    if isinstance(parsed, str):
        return plain(parsed, secret)
    if parsed is None and answer.body.lstrip().startswith((b"{", b"[")):
        return ""  # JSON that was cut short
    if parsed is None:
        return plain(answer.body.decode("utf-8", "ignore"), secret)
    return plain(next(_sentences(parsed), ""), secret)


def is_packed(answer: Answer) -> bool:
    """Whether the body is compressed although `identity` was asked for. It is never unpacked."""
    return answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")


def _sentences(parsed: Json) -> Iterator[str]:
    if not isinstance(parsed, dict):
        return
    error = parsed.get("error")
    inner = error if isinstance(error, dict) else {}
    found = (inner.get("message"), inner.get("code"), error, parsed.get("message"), parsed.get("detail"))
    for value in (*found, first_row(parsed).get("message")):
        if isinstance(value, str) and value.strip():
            yield value


def first_row(parsed: Json) -> dict[str, Json]:
    """What an answer holds in `data`, which may be an object or a list of them; empty if it is neither."""
    data = parsed.get("data") if isinstance(parsed, dict) else None
    row = data[0] if isinstance(data, list) and data else data
    return row if isinstance(row, dict) else {}


def is_error(body: bytes) -> bool:
    """Whether this is DataFast's error JSON, or the older `{"error": "…"}`."""
    parsed = document(body)
    return isinstance(parsed, dict) and (
        parsed.get("status") == "error" or (isinstance(parsed.get("error"), dict | str) and bool(parsed["error"]))
    )


def is_page(answer: Answer) -> bool:
    """Whether the body is an HTML page that was not cut short."""
    if answer.cut:
        return False
    start = answer.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return True
    called_html = "html" in answer.headers.get("content-type", "").lower()
    return called_html and (start.startswith(b"<") or (is_packed(answer) and bool(start)))


def event_id(body: bytes) -> str | None:
    """The `eventId` of a recorded goal."""
    parsed = document(body)
    for holder in (first_row(parsed), parsed):
        value = holder.get("eventId") if isinstance(holder, dict) else None
        if isinstance(value, str) and value.strip():
            return plain(value)[:64]
    return None


def moment_ms(value: Any) -> int | None:
    """A time in milliseconds since 1970, from ISO 8601 (UTC if it names no zone), seconds or milliseconds."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return _iso_ms(value)
    if not 0 <= number < 10**15:
        return None
    return int(number * 1000) if number < _SECONDS_BELOW else int(number)


def _iso_ms(value: Any) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        return _epoch_ms(datetime.fromisoformat(value.strip()))
    except (ValueError, OverflowError):
        return None


def http_date_ms(text: str | None) -> int | None:
    """The time of a `Date` or `Retry-After` header."""
    try:
        return _epoch_ms(parsedate_to_datetime(text or ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _epoch_ms(moment: datetime) -> int:
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def completed_goals(body: bytes) -> tuple[CompletedGoal, ...] | None:
    """The goals of a visitor, from either documented shape; None if there is no such list.

    Goals that a payment provider made are left out, because nobody sent them.
    """
    parsed = document(body)
    if not isinstance(parsed, dict):
        return None
    holder = first_row(parsed) if "data" in parsed else parsed
    places = [place for place in (holder.get("activity"), holder) if isinstance(place, dict)]
    keys = ("completedGoals", "completedCustomGoals")
    lists = [found for key in keys for place in places if isinstance(found := place.get(key), list)]
    if not lists:
        return None
    chosen = next((entries for entries in lists if entries), [])
    return tuple(goal for entry in chosen if (goal := _completed_goal(entry)) is not None)


def _completed_goal(entry: Json) -> CompletedGoal | None:
    if not isinstance(entry, dict) or entry.get("origin") == "payment_provider":
        return None
    name, description = entry.get("name"), entry.get("description")
    if not isinstance(name, str):
        return None
    by_server, number = entry.get("isServer"), entry.get("eventId")
    return CompletedGoal(
        name=name,
        at_ms=moment_ms(entry.get("timestamp")),
        description=description if isinstance(description, str) and description.strip() else None,
        by_server=by_server if isinstance(by_server, bool) else None,
        event_id=number if isinstance(number, str) else None,
    )
