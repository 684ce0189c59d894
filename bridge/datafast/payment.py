"""The action `payment`: a row becomes `POST /payments`, of which DataFast records each transaction once.

So a payment whose answer was lost is sent again, and never read back. What DataFast does with `refunded` for a
transaction that it knows already is not documented, and was not tried.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bridge.datafast.goal import Recognized, utc
from bridge.limits import PAYMENT_FLAGS
from bridge.model import Outcome, OutcomeKind

if TYPE_CHECKING:
    from bridge.datafast.actions import Api
    from bridge.datafast.goal import Sendable
    from bridge.model import Destination, Goal, ReadbackClaim, VisitorGoals

_RECORDED: Final = re.compile(
    r"\bduplicate\b|\b(?:payment|transaction)\b.*\balready\b|\balready\b.*\b(?:payment|transaction)", re.IGNORECASE
)
_CONFLICT: Final = 409
_FORBIDDEN: Final = 403


class PaymentAction:
    """See `bridge.datafast.actions.Action`. The row's metadata are the payment's fields."""

    route = "payments"

    def body(self, goal: Sendable, _now_ms: int) -> dict[str, Any]:
        """The request for a payment, from its fields, which the row holds as strings."""
        fields = goal.metadata
        written: dict[str, Any] = {"datafast_visitor_id": goal.visitor} if goal.visitor else {}
        written |= {"timestamp": utc(goal.happened_at_ms), **fields, "amount": _number(fields["amount"])}
        return written | {flag: True for flag in PAYMENT_FLAGS if flag in fields}

    def send(self, api: Api, destination: Destination, goal: Goal, now_ms: int) -> Outcome:
        """Send one payment. Never raises."""
        return _reinterpreted(api.post(destination, self.route, self.body(goal, now_ms)), destination, goal)

    def recognize(self, readback: ReadbackClaim, _answer: VisitorGoals) -> Recognized:
        """Nothing shows whether a payment arrived, and nobody needs to know; only rows of a former release get here."""
        return Recognized({}, frozenset(doubtful.goal.id for doubtful in readback.goals))


def _number(amount: str) -> int | float:
    number = float(amount)
    return int(number) if number.is_integer() else number


def _reinterpreted(outcome: Outcome, destination: Destination, goal: Goal) -> Outcome:
    """The outcome, corrected where an answer means something else for a payment than for a goal.

    The status of "it is recorded already" is not documented. A token without the scope may still send goals.
    """
    is_recorded = outcome.status == _CONFLICT or _RECORDED.search(outcome.message) is not None
    if outcome.kind is OutcomeKind.REJECTED and is_recorded:
        return replace(outcome, kind=OutcomeKind.DELIVERED)
    if outcome.kind is OutcomeKind.UNKNOWN_VISITOR and not goal.visitor:
        return replace(outcome, kind=OutcomeKind.REJECTED)
    is_token = (destination.api_key or "").startswith("dft_")
    if outcome.status == _FORBIDDEN and is_token and "suspend" not in outcome.message.lower():
        advice = "give it the scope payments:write, then use `goals retry`"
        sentence = f"the token may not send payments: {advice} ({outcome.message})"
        return replace(outcome, kind=OutcomeKind.REJECTED, message=sentence)
    return outcome
