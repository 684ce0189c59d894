"""A person's actions on a goal: send it (again) or cancel it. Each action is one guarded statement.

Sending again is safe: a goal that was not delivered returns to `pending`; a delivered one gets a new generation with
its own key (`…#2`), once, however often somebody clicks. A goal in flight belongs to the worker that holds its lease:
the answer says so, and there is no race.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, select, update

from bridge.model import RETRIABLE, UNDER_WAY, VISITOR_OPTIONAL, GoalState
from bridge.store.clock import now_ms, read_ms
from bridge.store.goals import parking
from bridge.store.inbox import events
from bridge.store.operator.forgetting import FORGOTTEN
from bridge.store.schema import goal_keys, goals, insert

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row


class RetryResult(StrEnum):
    """The result of a request to send a goal."""

    QUEUED = "queued"  # it is pending and due now
    AGAIN = "again"  # a new generation is pending, with this `goal_id`
    ALREADY = "already"  # it was sent again before, as the generation with this `goal_id`
    DELIVERED = "delivered"  # nothing done: it was delivered, and sending it again needs confirmation
    REROUTED = "rerouted"  # it has no visitor, so its event is routed again to look for one
    NO_VISITOR = "no_visitor"  # nothing done: it has no visitor, and its event's body is gone
    UNDER_WAY = "under_way"  # nothing done: it is being sent, or DataFast is asked whether it arrived
    WAITS = "waits"  # nothing done: it is parked until its visitor is known
    DRY = "dry"  # nothing done: goals of test events are never sent
    LOOKED_FOR = "looked_for"  # a dry rule made it: it now waits for its visitor, or none was found
    OVER_AGE = "over_age"  # nothing done: a dry rule made it, and it is older than max_age
    UNKNOWN = "unknown"  # there is no such goal


class CancelResult(StrEnum):
    """The result of a request to cancel a goal."""

    CANCELLED = "cancelled"
    FINAL = "final"  # nothing done: it is final already
    UNDER_WAY = "under_way"  # nothing done: it may have been sent
    UNKNOWN = "unknown"


# The results of `retry` after which the goal is on its way.
DONE: Final = frozenset({RetryResult.QUEUED, RetryResult.AGAIN, RetryResult.REROUTED, RetryResult.LOOKED_FOR})
CANCELLABLE: Final = ("pending", "parked", "held")


def retry(conn: Connection, goal_id: int, *, again: bool = False) -> tuple[RetryResult, int]:
    """Send a goal now. `again`: even if it was delivered. Returns the goal that will be sent, or this one."""
    row = conn.execute(select(goals).where(goals.c.id == goal_id).with_for_update()).first()
    if row is None:
        return RetryResult.UNKNOWN, goal_id
    if row.reason == FORGOTTEN:
        return RetryResult.NO_VISITOR, goal_id  # its contents are gone, delivered or not
    match row.state:
        case "delivered":
            return _new_generation(conn, row) if again else (RetryResult.DELIVERED, goal_id)
        case "pending":
            due_now = {"due_at_ms": now_ms(), "unknown_at_ms": 0, "changed_at_ms": now_ms()}
            conn.execute(update(goals).where(*_unchanged(row), goals.c.due_at_ms > now_ms()).values(due_now))
            return RetryResult.QUEUED, goal_id
        case state if state in RETRIABLE:
            return _send_again(conn, row), goal_id
        case state if state in UNDER_WAY:
            return RetryResult.UNDER_WAY, goal_id
        case "dry" if row.reason == parking.DRY_RULE:
            return _send_dry(conn, row, {}), goal_id
    return (RetryResult.DRY if row.state == "dry" else RetryResult.WAITS), goal_id


def send_dry(conn: Connection, goal_id: int) -> RetryResult:
    """Send a goal that a dry rule made, unless it has grown older than its `max_age`."""
    row = conn.execute(select(goals).where(goals.c.id == goal_id, _MADE_DRY).with_for_update()).first()
    if row is None:
        return RetryResult.UNKNOWN
    if row.expires_at_ms <= read_ms(conn):
        return RetryResult.OVER_AGE
    return _send_dry(conn, row, {"expires_at_ms": row.expires_at_ms})


_MADE_DRY: Final = and_(goals.c.state == "dry", goals.c.reason == parking.DRY_RULE)


def _send_dry(conn: Connection, row: Row[*tuple[Any, ...]], more: dict[str, Any]) -> RetryResult:
    """Look for its visitor, which nobody has done since it was made; without one, it waits as if it were made now."""
    now = read_ms(conn)
    values = _fresh(row, now) | more
    if row.visitor is None:
        may_find = row.provenance or conn.execute(select(goal_keys.c.key).where(goal_keys.c.goal_id == row.id)).first()
        until = now + row.wait_ms if may_find else now
        values |= {"state": "parked", "reason": None, "message": None, "parked_until_ms": until}
    conn.execute(update(goals).where(goals.c.id == row.id, _MADE_DRY).values(**values))
    return RetryResult.QUEUED if row.visitor is not None else RetryResult.LOOKED_FOR


def cancel(conn: Connection, goal_id: int) -> CancelResult:
    """Never send this goal, unless it is in flight or already final."""
    end = {"state": "cancelled", "reason": "by_hand", "message": "cancelled by a person", "changed_at_ms": now_ms()}
    stopped = update(goals).where(goals.c.id == goal_id, goals.c.state.in_(CANCELLABLE)).values(end)
    if conn.execute(stopped).rowcount == 1:
        return CancelResult.CANCELLED
    state = conn.execute(select(goals.c.state).where(goals.c.id == goal_id)).scalar()
    if state is None:
        return CancelResult.UNKNOWN
    return CancelResult.UNDER_WAY if state in UNDER_WAY else CancelResult.FINAL


def _unchanged(row: Row[*tuple[Any, ...]]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return goals.c.id == row.id, goals.c.state == row.state


def _fresh(row: Row[*tuple[Any, ...]], now: int) -> dict[str, Any]:
    """The values of a goal never tried: with all attempts left, and its full `max_age` counted from now."""
    return {
        "state": GoalState.PENDING.value,
        "reason": "by_hand",
        "message": "sent by a person",
        "changed_at_ms": now,
        "due_at_ms": now,
        "expires_at_ms": now + max(row.expires_at_ms - row.happened_at_ms, 0),
        **parking.UNTRIED,
        "looks": 0,
        "absent": 0,
        "lease_token": None,
        "lease_until_ms": None,
        "delivered_at_ms": None,
        "datafast_event_id": None,
    }


def _send_again(conn: Connection, row: Row[*tuple[Any, ...]]) -> RetryResult:
    """Send the same goal: as far as is known, it was never delivered."""
    if row.visitor is None and row.kind not in VISITOR_OPTIONAL:
        return RetryResult.REROUTED if events.requeue(conn, row.event_id) else RetryResult.NO_VISITOR
    conn.execute(update(goals).where(*_unchanged(row)).values(_fresh(row, read_ms(conn))))
    return RetryResult.QUEUED


def _new_generation(conn: Connection, row: Row[*tuple[Any, ...]]) -> tuple[RetryResult, int]:
    """Make a copy with the next key. A second click finds that key taken and makes none."""
    generation = row.generation + 1
    base = row.once_key if row.generation == 1 else row.once_key.rpartition("#")[0]
    now = read_ms(conn)
    copy = {name: value for name, value in row._mapping.items() if name != "id"}  # noqa: SLF001 - public in SQLAlchemy
    copy |= _fresh(row, now) | {"once_key": f"{base}#{generation}", "generation": generation, "created_at_ms": now}
    copy |= {"notify": None, "told_at_ms": None}  # the first one has been announced already
    new = insert(goals, conn.dialect.name).values(copy).on_conflict_do_nothing().returning(goals.c.id)
    made = conn.execute(new).scalar()
    if made is not None:
        return RetryResult.AGAIN, int(made)
    same_key = (goals.c.destination == row.destination, goals.c.once_key == copy["once_key"])
    return RetryResult.ALREADY, int(conn.execute(select(goals.c.id).where(*same_key)).scalar_one())
