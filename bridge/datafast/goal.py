"""The action `goal`: a row becomes a `POST /goals`, and is recognized among the goals of its visitor."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from bridge.datafast import readback
from bridge.limits import KEYS_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.datafast.actions import Api
    from bridge.model import Destination, Goal, LookClaim, Outcome, VisitorGoals

LATE_MS: Final = 3_600_000
CLOCKS_MS: Final = 15_000  # a request takes up to 10 s


class GoalAction:
    """See `bridge.datafast.actions.Action`. Names and values were fitted to the limits when the row was made."""

    def send(self, api: Api, destination: Destination, goal: Goal, now_ms: int) -> Outcome:
        """Send one goal. Never raises."""
        return api.post_goal(
            destination,
            visitor=goal.visitor,
            name=goal.name,
            description=goal.description,
            metadata=metadata_to_send(goal, now_ms),
        )

    def recognize(self, look: LookClaim, answer: VisitorGoals) -> readback.Recognized:
        """Find the goals of a group among the visitor's."""
        off_ms = _off_ms(look, answer)
        return readback.recognize(
            answer.goals if answer.known else (),
            name=look.name,
            unconfirmed=[
                readback.SentGoal(doubtful.goal.description, _window(doubtful.windows, off_ms), doubtful.goal.id)
                for doubtful in look.goals
            ],
            owned=[
                readback.SentGoal(
                    delivered.description, _window(delivered.windows, off_ms), event_id=delivered.event_id
                )
                for delivered in look.owned
            ],
        )


class Dated(Protocol):
    """A goal with the time of its event: claimed, or as people see it."""

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def happened_at_ms(self) -> int: ...


def body(visitor: str | None, name: str, description: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The request. visitor None: it is not known yet, and people look at what would be sent."""
    written: dict[str, Any] = {"datafast_visitor_id": visitor, "name": name}
    if description:
        written["description"] = description
    if metadata:
        written["metadata"] = dict(metadata)
    return written


def metadata_to_send(goal: Dated, now_ms: int) -> Mapping[str, str]:
    """A goal that is more than an hour late says `occurred_at`, if there is room, because DataFast dates it now."""
    late = now_ms - goal.happened_at_ms > LATE_MS
    if not late or len(goal.metadata) >= KEYS_MAX or "occurred_at" in goal.metadata:
        return goal.metadata
    return {**goal.metadata, "occurred_at": utc(goal.happened_at_ms)}


def utc(ms: int) -> str:
    """`2026-11-24T22:18:03Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _off_ms(look: LookClaim, answer: VisitorGoals) -> int:
    """How far DataFast's clock is from what we thought; 0 if a request and whole seconds can explain the difference."""
    if answer.server_now_ms is None or look.server_ms is None:
        return 0
    off_ms = answer.server_now_ms - look.server_ms
    return off_ms if abs(off_ms) > CLOCKS_MS else 0


def _window(windows: tuple[tuple[int, int], ...], off_ms: int) -> tuple[int, int]:
    """One window over all attempts that may have arrived. An entry between them is this goal's, or known as another's.

    Our clock may have been set since an attempt was timed, so the attempt counts by both clocks.
    """
    starts, ends = zip(*windows, strict=True)
    return min(starts) + min(off_ms, 0), max(ends) + max(off_ms, 0)
