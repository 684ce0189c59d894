"""The kinds of actions in the outbox, and what each of them needs (docs/adr/0021).

A row of `goals` names its kind. Claiming, leases, the rate limit, attempts, pauses and retries are the same for all
kinds; what differs is in one module per kind, behind `Action`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from bridge.datafast.goal import GoalAction, Recognized
from bridge.datafast.payment import PaymentAction
from bridge.model import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.datafast.goal import Sendable
    from bridge.model import Destination, Goal, ReadbackClaim, VisitorGoals


class Api(Protocol):
    """What actions and read-backs need of a DataFast client (`bridge.datafast.Client`)."""

    def post(self, destination: Destination, route: str, body: Mapping[str, Any]) -> Outcome:
        """Send one request to a route of the API (`goals`). Never raises."""

    def visitor_goals(self, destination: Destination, visitor: str) -> VisitorGoals:
        """Read a visitor's goals back. Never raises."""


class Action(Protocol):
    """What one kind provides: it turns a row into a request, and tells from a read-back which rows arrived.

    route: where it is sent, below the API's URL.
    """

    route: str

    def body(self, goal: Sendable, now_ms: int) -> Mapping[str, Any]:
        """The body of the request, within DataFast's limits, if the row is sent at `now_ms`."""

    def send(self, api: Api, destination: Destination, goal: Goal, now_ms: int) -> Outcome:
        """Send a row. Never raises."""

    def recognize(self, readback: ReadbackClaim, answer: VisitorGoals) -> Recognized:
        """The rows of a group that DataFast has, according to a readable answer."""


class _LaterKind:
    """A kind that a later release wrote. This release cannot send it, so the goal is rejected with that reason."""

    route = ""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def body(self, _goal: Sendable, _now_ms: int) -> Mapping[str, Any]:
        return {}

    def send(self, _api: Api, _destination: Destination, _goal: Goal, _now_ms: int) -> Outcome:
        sentence = f'this release of the bridge cannot send a "{self._kind}": upgrade it, then use `goals retry`'
        return Outcome(OutcomeKind.REJECTED, message=sentence)

    def recognize(self, readback: ReadbackClaim, _answer: VisitorGoals) -> Recognized:
        return Recognized({}, frozenset(), frozenset(doubtful.goal.id for doubtful in readback.goals))


ACTIONS: Final[Mapping[str, Action]] = {"goal": GoalAction(), "payment": PaymentAction()}


def action_of(kind: str) -> Action:
    """The action of a row's kind."""
    return ACTIONS.get(kind) or _LaterKind(kind)
