"""The action `payment`: a row becomes `POST /payments`, of which DataFast records each transaction once.

So a payment whose answer was lost is sent again, and never read back.
What it does with `refunded` of a transaction that it knows already is not documented, and was not tried.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bridge.datafast.goal import Recognized, utc
from bridge.limits import PAYMENT_FLAGS
from bridge.model import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.datafast.actions import Api
    from bridge.model import Destination, Goal, LookClaim, VisitorGoals

_KNOWN_ALREADY: Final = re.compile(
    r"\bduplicate\b|\b(?:payment|transaction)\b.*\balready\b|\balready\b.*\b(?:payment|transaction)", re.IGNORECASE
)
_CONFLICT: Final = 409
_FORBIDDEN: Final = 403


class PaymentAction:
    """See `bridge.datafast.actions.Action`. The row's metadata are the payment's fields."""

    def send(self, api: Api, destination: Destination, goal: Goal, _now_ms: int) -> Outcome:
        """Send one payment. Never raises."""
        request = body(goal.metadata, goal.visitor, goal.happened_at_ms)
        return _judged(api.post_payment(destination, request), destination, goal)

    def recognize(self, look: LookClaim, _answer: VisitorGoals) -> Recognized:
        """Nothing shows whether it arrived, and nobody needs to know; only a former release asks."""
        return Recognized({}, frozenset(doubtful.goal.id for doubtful in look.goals))


def body(fields: Mapping[str, str], visitor: str, happened_at_ms: int) -> dict[str, Any]:
    """The request, from the fields as the row holds them: text."""
    written: dict[str, Any] = {"timestamp": utc(happened_at_ms), **fields, "amount": _number(fields["amount"])}
    written |= {flag: True for flag in PAYMENT_FLAGS if flag in fields}
    return {"datafast_visitor_id": visitor, **written} if visitor else written


def _number(amount: str) -> int | float:
    number = float(amount)
    return int(number) if number.is_integer() else number


def _judged(outcome: Outcome, destination: Destination, goal: Goal) -> Outcome:
    """The outcome, where a payment's answers mean something else than a goal's.

    The status of "it is there already" is not documented. A token without the scope says nothing against goals.
    """
    if outcome.kind is OutcomeKind.REJECTED and (outcome.status == _CONFLICT or _KNOWN_ALREADY.search(outcome.message)):
        return replace(outcome, kind=OutcomeKind.DELIVERED)
    if outcome.kind is OutcomeKind.UNKNOWN_VISITOR and not goal.visitor:
        return replace(outcome, kind=OutcomeKind.REJECTED)
    token = (destination.api_key or "").startswith("dft_")
    if outcome.status == _FORBIDDEN and token and "suspend" not in outcome.message.lower():
        cure = "give it the scope payments:write, then use `goals retry`"
        sentence = f"the token may not send payments: {cure} ({outcome.message})"
        return replace(outcome, kind=OutcomeKind.REJECTED, message=sentence)
    return outcome
