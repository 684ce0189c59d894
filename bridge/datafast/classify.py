"""The table of DataFast's answers: what each means for a goal (Design 6). Pure; the clock is a parameter.

A 2xx status line means that the goal was recorded, even if the rest is lost. A goal that may have been recorded, though
no answer says so, is unconfirmed, never failed. A message never contains the destination's key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.datafast import answers
from bridge.model import Outcome, OutcomeKind

if TYPE_CHECKING:
    from bridge.datafast.answers import Answer

SHORTEST_WAIT_MS: Final = 1_000
LONGEST_WAIT_MS: Final = 15 * 60_000
USUAL_WAIT_MS: Final = 60_000
_DAY_MS: Final = 86_400_000  # a "moment" in the first day of 1970 is a duration

_CONFIGURATION: Final = frozenset({401, 402, 403, 405, 410})
_NO_API: Final = "the API is not at this address; is DATAFAST_API_URL right?"
_SHUT: Final = {
    401: "DataFast does not accept the API key; is it the one of the website's settings?",
    402: "DataFast asks for a payment: check its billing.",
    403: "DataFast does not allow it; is the website suspended, or does the token lack a scope?",
    404: _NO_API,
    405: _NO_API,
    410: _NO_API,
}
_FOR_NOW: Final = frozenset({408, 425, 503})


def classify(answer: Answer, *, now_ms: int, secret: str | None = None) -> Outcome:
    """The outcome of an answer.

    now_ms: our clock, for a reset time in an answer without a `Date`. secret: removed from the message.
    """
    kind = kind_of(answer)
    server_now_ms = answers.http_date_ms(answer.headers.get("date"))
    reference_ms = now_ms if server_now_ms is None else server_now_ms
    delivered = kind is OutcomeKind.DELIVERED
    return Outcome(
        kind=kind,
        status=answer.status,
        message=_message(answer, kind, secret),
        event_id=answers.event_id(answer.body) if delivered else None,
        retry_after_ms=wait_ms(answer, reference_ms) if kind is OutcomeKind.THROTTLED else None,
        server_now_ms=server_now_ms,
    )


def kind_of(answer: Answer) -> OutcomeKind:
    """One row of the table."""
    status = answer.status
    if 200 <= status < 300:
        return OutcomeKind.CONFIGURATION if answers.is_page(answer) else OutcomeKind.DELIVERED
    if 300 <= status < 400 or status in _CONFIGURATION:
        return OutcomeKind.CONFIGURATION
    if status == 404:
        return OutcomeKind.UNKNOWN_VISITOR if answers.is_error(answer.body) else OutcomeKind.CONFIGURATION
    if status == 429:
        return OutcomeKind.THROTTLED
    if status in _FOR_NOW:
        return OutcomeKind.REFUSED_FOR_NOW
    return OutcomeKind.REJECTED if 400 <= status < 500 else OutcomeKind.UNCONFIRMED


def wait_ms(answer: Answer, now_ms: int) -> int:
    """How long a 429 asks us to wait: by `Retry-After`, else by the reset in header or body (ms or s), else 1 min."""
    asked = _retry_after_ms(answer.headers.get("retry-after"), now_ms)
    if asked is None:
        parsed = answers.document(answer.body)
        in_body = parsed.get("reset") if isinstance(parsed, dict) else None
        resets = (answers.moment_ms(value) for value in (answer.headers.get("x-ratelimit-reset"), in_body))
        reset = next((moment for moment in resets if moment is not None), None)
        asked = USUAL_WAIT_MS if reset is None else reset if reset < _DAY_MS else reset - now_ms
    return min(max(asked, SHORTEST_WAIT_MS), LONGEST_WAIT_MS)


def _retry_after_ms(text: str | None, now_ms: int) -> int | None:
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9]) * 1000
    moment = answers.http_date_ms(text)
    return None if moment is None else moment - now_ms


def _message(answer: Answer, kind: OutcomeKind, secret: str | None) -> str:
    status = answer.status
    if kind is OutcomeKind.CONFIGURATION and 200 <= status < 400:
        found = answers.plain(answer.headers.get("location", ""), secret)
        where = "a web page" if status < 300 else f"a redirect to {found}" if found else "a redirect"
        return answers.plain(f"{where} came instead of an answer from the API; is DATAFAST_API_URL right?", secret)
    told = answers.message(answer, secret)
    if kind is OutcomeKind.CONFIGURATION:
        return f"{_SHUT[status]} The answer was {status}{': ' + told if told else ''}"[: answers.MESSAGE_MAX]
    if told or kind is OutcomeKind.DELIVERED:
        return told
    return f"the answer was {status}, without a message"
