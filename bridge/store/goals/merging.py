"""A later event with the once key of an existing goal never makes a second one, but may add to it.

While the goal is parked, unattributed or expired unsent, it takes the event's visitor, keys and a new wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, exists, or_, select

from bridge.store.goals.parking import CHANGE, first_look
from bridge.store.schema import attempts, goals

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from bridge.model import GoalDraft


def merge(conn: Connection, draft: GoalDraft, born: dict[str, Any], now: int) -> tuple[Row[Any], dict[str, Any] | None]:
    """The existing goal, and the columns that it took from this draft; None: it took nothing.

    born: the columns with which the draft would begin as a goal of its own.
    """
    goal = conn.execute(_BY_PLACE, dict(zip(("of", "once"), draft.place, strict=True))).one()
    taken = None if draft.dry else _taken(conn, goal, born, now)
    if taken is not None:
        conn.execute(CHANGE.values(changed_at_ms=now, **taken), {"goal": goal.id, "was": goal.state})
    return goal, taken


def foretell(
    conn: Connection, draft: GoalDraft, born: dict[str, Any], now: int
) -> tuple[Row[Any] | None, dict[str, Any] | None]:
    """The same without changing anything; None where no goal is there."""
    goal = conn.execute(_FIND, dict(zip(("of", "once"), draft.place, strict=True))).one_or_none()
    return goal, None if goal is None or draft.dry else _taken(conn, goal, born, now)


def _taken(conn: Connection, goal: Row[Any], born: dict[str, Any], now: int) -> dict[str, Any] | None:
    if goal.state not in ("parked", "unattributed", "expired"):
        return None
    expires = max(goal.expires_at_ms, born["expires_at_ms"])
    if goal.state == "expired" and (expires <= now or conn.execute(_MAYBE_SENT, {"goal": goal.id}).scalar()):
        return None
    given = {name: born[name] for name in _OF_VISITOR}
    again = {"expires_at_ms": expires, "attempts": 0, "first_try_at_ms": None, "paused_ms": 0}
    if born["state"] == "pending":
        return given | again
    if goal.visitor is not None:  # expired with its visitor known: sent after all
        kept = {"state": "pending", "due_at_ms": now, "reason": None, "message": None}
        return kept | again
    if born["state"] == "unattributed":
        return None
    until = max(goal.parked_until_ms or 0, born["parked_until_ms"])
    # The customer may answer after the grace of every event of the goal that has strong keys.
    weak_at = max((at for at in (goal.weak_at_ms, born["weak_at_ms"]) if at is not None), default=None)
    values = {"parked_until_ms": until, "weak_at_ms": weak_at, "wait_ms": born["wait_ms"]}
    if goal.to_prove is not None and born["to_prove"] is None:
        given |= {name: getattr(goal, name) for name in ("to_prove", "provenance", "reason", "message")}
    return given | again | values | {"due_at_ms": first_look(until, weak_at)}


_OF_VISITOR: Final = ("state", "visitor", "provenance", "to_prove", "reason", "message", "due_at_ms")


# ---------------------------------------------------------------------------------------------------- statements

_FIND: Final = select(goals).where(goals.c.destination == bindparam("of"), goals.c.once_key == bindparam("once"))
_BY_PLACE: Final = _FIND.with_for_update()
_MAYBE_SENT: Final = select(
    exists().where(
        attempts.c.goal_id == bindparam("goal"),
        attempts.c.kind == "send",
        or_(attempts.c.outcome.is_(None), attempts.c.outcome.in_(("unconfirmed", "delivered"))),
    )
)
