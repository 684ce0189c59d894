"""Send a goal: its attempt written ahead, what became of it settled, or taken back.

Every transition is one guarded statement (`WHERE state = … AND lease_token = …`); no row means that somebody else won
and the caller stops. What is `leased` was certainly not sent. The attempt row and `sending` are committed before the
request goes out, so only a `sending` row whose worker vanished is in doubt, and the sweep makes it `unconfirmed`.
Nothing here sends, waits or decides what an answer means: a `Settlement` says it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, func, insert, select, update

from bridge.model import GoalState, Health, Settled
from bridge.store.clock import now_ms, read_ms
from bridge.store.delivery import pauses
from bridge.store.schema import attempts, destinations, goals

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.sql.dml import ReturningUpdate

    from bridge.model import Claim, Outcome, Settlement

_BEGIN: Final = (
    update(goals)
    .where(
        goals.c.id == bindparam("goal_id"),
        goals.c.state == "leased",
        goals.c.lease_token == bindparam("token"),
        goals.c.lease_until_ms > now_ms() + bindparam("need_ms"),
    )
    .values(state="sending", first_try_at_ms=func.coalesce(goals.c.first_try_at_ms, now_ms()), changed_at_ms=now_ms())
    .returning(goals.c.id)
)


def begin(
    conn: Connection, claimed: Claim, need_ms: int = 0, even: Callable[[Connection], int | None] | None = None
) -> int | None:
    """Write the attempt and `sending`, before the request goes out; the attempt's id, or None: nothing is sent.

    need_ms: how much of the lease must be left. A request begun with less would end in doubt. even: our clock,
    if it was compared with DataFast's (`Timekeeper`).
    """
    begun = conn.execute(_BEGIN, {"goal_id": claimed.goal.id, "token": claimed.token, "need_ms": need_ms}).first()
    if begun is None:
        return None
    values = {"of_goal": claimed.goal.id, "of_lease": claimed.token, "of_destination": claimed.goal.destination}
    at_ms = None if even is None else even(conn)
    return int(conn.execute(_WRITE_AHEAD, {**values, "at": at_ms}).scalar_one())


_SKEW: Final = select(destinations.c.clock_skew_ms).where(destinations.c.name == bindparam("of_destination"))
_WRITE_AHEAD: Final = (
    insert(attempts)
    .values(
        goal_id=bindparam("of_goal"),
        kind="send",
        started_at_ms=now_ms(),
        server_started_at_ms=bindparam("at", type_=attempts.c.started_at_ms.type) + _SKEW.scalar_subquery(),
        lease_token=bindparam("of_lease"),
    )
    .returning(attempts.c.id)
)

_END_ATTEMPT: Final = (
    update(attempts)
    .where(attempts.c.id == bindparam("attempt_id"))
    .values(
        ended_at_ms=now_ms(),
        server_started_at_ms=func.coalesce(
            attempts.c.server_started_at_ms,
            bindparam("server_now", type_=attempts.c.started_at_ms.type) - (now_ms() - attempts.c.started_at_ms),
        ),
        outcome=bindparam("new_outcome"),
        status=bindparam("new_status"),
        message=bindparam("new_message"),
    )
)


def settle(
    conn: Connection,
    claimed: Claim,
    attempt_id: int,
    outcome: Outcome,
    ruling: Settlement,
    *,
    even: Callable[[Connection], int | None] = read_ms,
) -> Settled:
    """Write what became of a try, unless its lease ran out meanwhile. even: our clock (`Timekeeper`)."""
    goal = claimed.goal
    statement = _settle_statement(
        ruling.state,
        counts=ruling.counts and not claimed.probe,
        unknown_visitor=ruling.unknown_visitor,
        unknown=ruling.health is Health.UNKNOWN_VISITOR,
    )
    written = conn.execute(
        statement,
        {
            "goal_id": goal.id,
            "token": claimed.token,
            "due_in_ms": ruling.due_in_ms,
            "new_state": ruling.state.value,
            "new_reason": ruling.reason,
            "new_message": ruling.message,
            "remote_id": outcome.event_id,
        },
    ).first()
    if written is None:
        return Settled(written=False)
    conn.execute(
        _END_ATTEMPT,
        {
            "attempt_id": attempt_id,
            "server_now": outcome.server_now_ms,
            "new_outcome": outcome.kind.value,
            "new_status": outcome.status,
            "new_message": outcome.message or None,
        },
    )
    news = pauses.learn(conn, goal.destination, ruling, visitor=goal.visitor, token=claimed.token)
    pauses.learn_clock(conn, goal.destination, outcome.server_now_ms, even)
    return Settled(written=True, news=news)


SETTLE_VALUES: Final[dict[str, Any]] = {
    "state": bindparam("new_state"),
    "reason": bindparam("new_reason"),
    "message": bindparam("new_message"),
    "due_at_ms": now_ms() + bindparam("due_in_ms"),
    "changed_at_ms": now_ms(),
    "lease_token": None,
    "lease_until_ms": None,
}


@cache
def _settle_statement(state: GoalState, *, counts: bool, unknown_visitor: bool, unknown: bool) -> ReturningUpdate[Any]:
    values = dict(SETTLE_VALUES)
    if counts:
        values["attempts"] = goals.c.attempts + 1
    if unknown_visitor:
        values["unknown_visitor_tries"] = goals.c.unknown_visitor_tries + 1
    if unknown:
        values["unknown_at_ms"] = now_ms()
    if unknown and not unknown_visitor:  # a try that does not count: the retry schedule has not begun
        values |= {"first_try_at_ms": None, "paused_ms": 0}
    if state is GoalState.DELIVERED:
        values |= {"delivered_at_ms": now_ms(), "datafast_event_id": bindparam("remote_id")}
    if state is GoalState.UNCONFIRMED:
        values |= {"looks": 0, "absent": 0}
    owned = and_(
        goals.c.id == bindparam("goal_id"), goals.c.state == "sending", goals.c.lease_token == bindparam("token")
    )
    return update(goals).where(owned).values(**values).returning(goals.c.id)


# It was due when it was leased, whatever the clock said then.
FREE: Final[dict[str, Any]] = {
    "state": "pending",
    "lease_token": None,
    "lease_until_ms": None,
    "due_at_ms": case((goals.c.due_at_ms > now_ms(), now_ms()), else_=goals.c.due_at_ms),
    "changed_at_ms": now_ms(),
}

_TAKE_BACK: Final = (
    update(goals)
    .where(
        goals.c.id == bindparam("goal_id"),
        goals.c.state.in_(("leased", "sending")),
        goals.c.lease_token == bindparam("token"),
    )
    .values(**FREE)
    .returning(goals.c.id)
)
_UNSENT_ATTEMPT: Final = (
    update(attempts)
    .where(
        attempts.c.goal_id == bindparam("of_goal"),
        attempts.c.kind == "send",
        attempts.c.lease_token == bindparam("of_lease"),
        attempts.c.outcome.is_(None),
    )
    .values(ended_at_ms=now_ms(), outcome="not_sent", message="the database did not say whether it was written ahead")
)


def take_back(conn: Connection, claimed: Claim) -> None:
    """The answer to `begin` was lost, so nothing was sent: whatever it wrote, the goal is free again."""
    if conn.execute(_TAKE_BACK, {"goal_id": claimed.goal.id, "token": claimed.token}).first() is None:
        return
    conn.execute(_UNSENT_ATTEMPT, {"of_goal": claimed.goal.id, "of_lease": claimed.token})
    pauses.release_probe(conn, claimed.goal.destination, claimed.token)
