"""DataFast's answers: what they say, and what each means for a goal. Pure; the clock is a parameter.

A 2xx status line means that the goal was recorded, even if the rest is lost. A goal that may have been recorded,
although no answer says so, is unconfirmed, never failed. Every documented shape is read, and nothing else raises an
error. Strings for people are short and contain no markup, control characters or secrets.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from bridge.model import CompletedGoal, Outcome, OutcomeKind
from bridge.text import INVISIBLE, epoch_ms, iso_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridge.model import Json

MESSAGE_MAX: Final = 300
_SCANNED_MAX: Final = 8 * 1024  # characters of an error page
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


# ---------------------------------------------------------------------------------------------- what an answer means

SHORTEST_WAIT_MS: Final = 1_000
LONGEST_WAIT_MS: Final = 15 * 60_000
USUAL_WAIT_MS: Final = 60_000
_DAY_MS: Final = 86_400_000  # a "moment" in the first day of 1970 is a duration

_CONFIGURATION: Final = frozenset({401, 402, 403, 405, 410})
_NO_API: Final = "the API is not at this address; is DATAFAST_API_URL right?"
_CONFIGURATION_MESSAGES: Final = {
    401: "DataFast does not accept the API key; is it the one of the website's settings?",
    402: "DataFast asks for a payment: check its billing.",
    403: "DataFast does not allow it; is the website suspended, or does the token lack a scope?",
    404: _NO_API,
    405: _NO_API,
    410: _NO_API,
}
_TEMPORARY: Final = frozenset({408, 425, 503})


def classify(answer: Answer, *, now_ms: int, secret: str | None = None) -> Outcome:
    """The outcome of an answer.

    now_ms: our clock, for a reset time in an answer without a `Date`. secret: removed from the message.
    """
    kind = kind_of(answer)
    server_now_ms = http_date_ms(answer.headers.get("date"))
    reference_ms = now_ms if server_now_ms is None else server_now_ms
    delivered = kind is OutcomeKind.DELIVERED
    return Outcome(
        kind=kind,
        status=answer.status,
        message=_message(answer, kind, secret),
        event_id=event_id(answer.body) if delivered else None,
        retry_after_ms=wait_ms(answer, reference_ms) if kind is OutcomeKind.THROTTLED else None,
        server_now_ms=server_now_ms,
    )


def kind_of(answer: Answer) -> OutcomeKind:
    """The class of an answer: one row of the table of answers."""
    status = answer.status
    if 200 <= status < 300:
        return OutcomeKind.CONFIGURATION if is_page(answer) else OutcomeKind.DELIVERED
    if 300 <= status < 400 or status in _CONFIGURATION:
        return OutcomeKind.CONFIGURATION
    if status == 404:
        return OutcomeKind.UNKNOWN_VISITOR if is_error(answer.body) else OutcomeKind.CONFIGURATION
    if status == 429:
        return OutcomeKind.THROTTLED
    if status in _TEMPORARY:
        return OutcomeKind.REFUSED_FOR_NOW
    return OutcomeKind.REJECTED if 400 <= status < 500 else OutcomeKind.UNCONFIRMED


def wait_ms(answer: Answer, now_ms: int) -> int:
    """How long a 429 asks us to wait: by `Retry-After`, else by the reset in header or body (ms or s), else 1 min."""
    wait = _retry_after_ms(answer.headers.get("retry-after"), now_ms)
    if wait is None:
        parsed = document(answer.body)
        body_reset = parsed.get("reset") if isinstance(parsed, dict) else None
        resets = (moment_ms(value) for value in (answer.headers.get("x-ratelimit-reset"), body_reset))
        reset = next((moment for moment in resets if moment is not None), None)
        wait = USUAL_WAIT_MS if reset is None else reset if reset < _DAY_MS else reset - now_ms
    return min(max(wait, SHORTEST_WAIT_MS), LONGEST_WAIT_MS)


def _retry_after_ms(text: str | None, now_ms: int) -> int | None:
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9]) * 1000
    moment = http_date_ms(text)
    return None if moment is None else moment - now_ms


def _message(answer: Answer, kind: OutcomeKind, secret: str | None) -> str:
    status = answer.status
    if kind is OutcomeKind.CONFIGURATION and 200 <= status < 400:
        found = plain(answer.headers.get("location", ""), secret)
        where = "a web page" if status < 300 else f"a redirect to {found}" if found else "a redirect"
        return plain(f"{where} came instead of an answer from the API; is DATAFAST_API_URL right?", secret)
    sentence = message(answer, secret)
    if kind is OutcomeKind.CONFIGURATION:
        details = f": {sentence}" if sentence else ""
        return f"{_CONFIGURATION_MESSAGES[status]} The answer was {status}{details}"[:MESSAGE_MAX]
    if sentence or kind is OutcomeKind.DELIVERED:
        return sentence
    return f"the answer was {status}, without a message"


# ------------------------------------------------------------------------------------------------- what it says


def document(body: bytes) -> Json | None:
    """The JSON of a body, or None."""
    try:
        return json.loads(body)  # a BOM, NaN and duplicate keys are accepted: nothing is decided by them
    except (ValueError, RecursionError):
        return None


def plain(text: str, secret: str | None = None) -> str:
    """One short line for people: no markup, no control characters, no secret."""
    for pattern in (_SCRIPT, _TAG):
        text = pattern.sub(" ", text[:_SCANNED_MAX])
    text = _TAG.sub(" ", html.unescape(text))
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(character) in INVISIBLE else character for character in text)
    text = " ".join(text.split())
    if secret:
        text = text.replace(secret, "…")
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 1].rstrip() + "…"


def message(answer: Answer, secret: str | None = None) -> str:
    """An answer's message for people: `error.message`, `error`, `message` or a page's text; empty if it has none."""
    if is_compressed(answer):
        return ""
    parsed = document(answer.body)
    if isinstance(parsed, str):
        return plain(parsed, secret)
    if parsed is None and answer.body.lstrip().startswith((b"{", b"[")):
        return ""  # JSON that was cut short
    if parsed is None:
        return plain(answer.body.decode("utf-8", "ignore"), secret)
    return plain(next(_sentences(parsed), ""), secret)


def is_compressed(answer: Answer) -> bool:
    """Whether the body is compressed although `identity` was requested. It is never decompressed."""
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
    """The object in an answer's `data`, or the first of a list; empty if it is neither."""
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
    declared_html = "html" in answer.headers.get("content-type", "").lower()
    return declared_html and (start.startswith(b"<") or (is_compressed(answer) and bool(start)))


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
        return iso_ms(value.strip())
    except ValueError:
        return None


def http_date_ms(text: str | None) -> int | None:
    """The time of a `Date` or `Retry-After` header."""
    try:
        return epoch_ms(parsedate_to_datetime(text or ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


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
    by_server, entry_id = entry.get("isServer"), entry.get("eventId")
    return CompletedGoal(
        name=name,
        at_ms=moment_ms(entry.get("timestamp")),
        description=description if isinstance(description, str) and description.strip() else None,
        by_server=by_server if isinstance(by_server, bool) else None,
        event_id=entry_id if isinstance(entry_id, str) else None,
    )
