"""The action `goal`: a row becomes `POST /goals`, and is recognized among its visitor's goals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from bridge.datafast import readback
from bridge.limits import KEYS_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.datafast.actions import Api
    from bridge.model import Destination, Goal, LookClaim, Outcome, OwnedGoal, UnconfirmedGoal, VisitorGoals

LATE_MS: Final = 3_600_000
CLOCKS_MS: Final = 15_000  # a request takes up to 10 s


class GoalAction:
    """See `bridge.datafast.actions.Action`. What limits demand of names and values was done when the row was made."""

    def send(self, api: Api, destination: Destination, goal: Goal, now_ms: int) -> Outcome:
        """Send one goal. Never raises."""
        return api.post_goal(
            destination,
            visitor=goal.visitor,
            name=goal.name,
            description=goal.description,
            metadata=metadata_to_send(goal, now_ms),
        )

    def recognize(self, look: LookClaim, answer: VisitorGoals) -> readback.Settlement:
        """Find the goals of a group among the visitor's."""
        off_ms = _off_ms(look, answer)
        return readback.settle(
            answer.goals if answer.known else (),
            name=look.name,
            unconfirmed=[_unconfirmed(doubtful, off_ms) for doubtful in look.goals],
            owned=[_owned(entry, off_ms) for entry in look.owned],
        )


def metadata_to_send(goal: Goal, now_ms: int) -> Mapping[str, str]:
    """A goal more than an hour late carries `occurred_at` when a place is free, because DataFast dates it now."""
    late = now_ms - goal.happened_at_ms > LATE_MS
    if not late or len(goal.metadata) >= KEYS_MAX or "occurred_at" in goal.metadata:
        return goal.metadata
    return {**goal.metadata, "occurred_at": utc(goal.happened_at_ms)}


def utc(ms: int) -> str:
    """`2026-11-24T22:18:03Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _off_ms(look: LookClaim, answer: VisitorGoals) -> int:
    """How far DataFast's clock is from what we took it to say; 0 within what a request and whole seconds explain."""
    if answer.server_now_ms is None or look.server_ms is None:
        return 0
    off_ms = answer.server_now_ms - look.server_ms
    return off_ms if abs(off_ms) > CLOCKS_MS else 0


def _unconfirmed(doubtful: UnconfirmedGoal, off_ms: int) -> readback.Unconfirmed:
    goal = doubtful.goal
    return readback.Unconfirmed(goal.id, goal.description, _window(doubtful.windows, off_ms))


def _owned(delivered: OwnedGoal, off_ms: int) -> readback.Owned:
    return readback.Owned(delivered.description, _window(delivered.windows, off_ms), delivered.event_id)


def _window(windows: tuple[tuple[int, int], ...], off_ms: int) -> readback.Window:
    """One window over all tries that may have arrived; what lies between them is the goal's or known as another's.

    A try was timed by one of our clocks, before it was set or after: it counts by both.
    """
    starts, ends = zip(*windows, strict=True)
    return readback.window(min(starts) + min(off_ms, 0), max(ends) + max(off_ms, 0))
