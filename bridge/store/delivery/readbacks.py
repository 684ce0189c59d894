"""Look up what a lost answer left in doubt: one read-back of a visitor settles all of its goals of one name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, case, insert, or_, select, update

from bridge.model import GoalState, LookClaim, NotYet, OwnedGoal, Settled, UnconfirmedGoal
from bridge.store.clock import now_ms, read_ms
from bridge.store.delivery import pauses, restoring
from bridge.store.delivery.sends import SETTLE_VALUES
from bridge.store.delivery.turns import goal_of
from bridge.store.schema import attempts, goals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection, Row

    from bridge.model import LookRuling, Settlement

READBACK: Final = "readback"  # kind of the attempts that only asked

Window = tuple[int, int]  # milliseconds, both ends included

_GROUP: Final = (
    update(goals)
    .where(
        goals.c.destination == bindparam("of_destination"),
        goals.c.visitor == bindparam("of_visitor"),
        goals.c.state == "unconfirmed",
        goals.c.name == bindparam("of_name"),
        goals.c.kind == bindparam("of_kind"),
        or_(goals.c.lease_token.is_(None), goals.c.lease_until_ms <= bindparam("now")),
    )
    .values(lease_token=bindparam("token"), lease_until_ms=bindparam("now") + bindparam("lease_ms"))
    .returning(goals)
)

_ARRIVED: Final = (
    select(
        attempts.c.goal_id,
        attempts.c.outcome,
        attempts.c.started_at_ms,
        attempts.c.ended_at_ms,
        attempts.c.server_started_at_ms,
    )
    .where(
        attempts.c.goal_id.in_(bindparam("goal_ids", expanding=True)),
        attempts.c.kind == "send",
        or_(attempts.c.outcome.is_(None), attempts.c.outcome.in_(("unconfirmed", "delivered"))),
    )
    .order_by(attempts.c.id)
)

_DELIVERED: Final = select(goals.c.id, goals.c.description, goals.c.datafast_event_id).where(
    goals.c.destination == bindparam("of_destination"),
    goals.c.visitor == bindparam("of_visitor"),
    goals.c.state == "delivered",
    goals.c.name == bindparam("of_name"),
    goals.c.kind == bindparam("of_kind"),
)


def lease(
    conn: Connection, destination: str, look: Row[Any, Any, Any], token: str, now: int, lease_ms: int, *, probe: bool
) -> LookClaim | NotYet:
    """Lease all unconfirmed goals of one visitor and name: they can only be told apart together."""
    whose = {"of_destination": destination, "of_visitor": look.visitor, "of_name": look.name, "of_kind": look.kind}
    leased = conn.execute(_GROUP, {**whose, "token": token, "now": now, "lease_ms": lease_ms}).all()
    rows = sorted(leased, key=lambda row: row.id)
    if not rows:
        return NotYet(now, now)
    skew = pauses.clock_skew_ms(conn, destination)
    windows = _windows(conn, [row.id for row in rows], skew, now, lease_ms)
    group = tuple(
        UnconfirmedGoal(goal_of(row), row.looks, row.absent, windows.get(row.id, ()), row.reason == restoring.REASON)
        for row in rows
    )
    owned = tuple(_owned(conn, whose, skew, now, lease_ms))
    return LookClaim(destination, look.visitor, look.name, token, group, owned, probe, now + skew, now, look.kind)


def _windows(
    conn: Connection, goal_ids: Sequence[int], skew_ms: int, now: int, lease_ms: int
) -> dict[int, tuple[Window, ...]]:
    """When each goal's tries that may have arrived were under way, by DataFast's clock. Of an answered one, only that.

    Where our own clock was set meanwhile, a try took no longer than a lease. Before DataFast's clock was known, it may
    have been ours or the one that it was found to be.

    Not when it was found to be delivered: a read-back may have found it long after it arrived.
    """
    found: dict[int, list[Window]] = {}
    rows = conn.execute(_ARRIVED, {"goal_ids": goal_ids}).all() if goal_ids else []
    answered = {row.goal_id for row in rows if row.outcome == "delivered"}
    for row in rows:
        if row.goal_id in answered and row.outcome != "delivered":
            continue
        took_ms = (now if row.ended_at_ms is None else row.ended_at_ms) - row.started_at_ms
        took_ms = took_ms if took_ms >= 0 else lease_ms
        start, end = row.server_started_at_ms, row.server_started_at_ms
        if start is None:
            start, end = row.started_at_ms + min(skew_ms, 0), row.started_at_ms + max(skew_ms, 0)
            start = start if row.started_at_ms <= now + lease_ms else 0  # by a clock that was ahead: at any time
        found.setdefault(row.goal_id, []).append((start, end + took_ms))
    return {goal_id: tuple(spans) for goal_id, spans in found.items()}


def _owned(conn: Connection, whose: dict[str, str], skew_ms: int, now: int, lease_ms: int) -> Iterable[OwnedGoal]:
    rows = conn.execute(_DELIVERED, whose).all()
    windows = _windows(conn, [row.id for row in rows], skew_ms, now, lease_ms)
    for row in rows:
        if row.id in windows:  # else retention took its tries, which were long ago
            yield OwnedGoal(row.description, row.datafast_event_id, windows[row.id])


_SETTLE_LOOK: Final = (
    update(goals)
    .where(
        goals.c.id == bindparam("goal_id"),
        goals.c.state == "unconfirmed",
        goals.c.lease_token == bindparam("token"),
    )
    .values(
        **SETTLE_VALUES,
        looks=goals.c.looks + bindparam("looked"),
        absent=goals.c.absent + bindparam("not_found"),
        datafast_event_id=bindparam("remote_id"),
        delivered_at_ms=case(
            (bindparam("new_state", type_=goals.c.state.type) == "delivered", now_ms()), else_=goals.c.delivered_at_ms
        ),
    )
    .returning(goals.c.id)
)


_TOLD: Final = (GoalState.DELIVERED, GoalState.PENDING)


# From now on its window stands by DataFast's own clock, whatever happens to ours.
_DATE: Final = (
    update(attempts)
    .where(attempts.c.goal_id == bindparam("of_goal"), attempts.c.kind == "send", attempts.c.outcome == "unconfirmed")
    .values(server_started_at_ms=bindparam("at"))
)

# One row for each goal that the read-back was about, though it was one request. Nothing hangs on these rows, so they
# are written when the answer is there.
_RECORD: Final = insert(attempts).values(
    goal_id=bindparam("of_goal"),
    kind=READBACK,
    started_at_ms=bindparam("claimed_at"),
    ended_at_ms=now_ms(),
    outcome=bindparam("shown"),
    status=bindparam("answered"),
    message=bindparam("failure"),
    lease_token=bindparam("of_lease"),
)


def settle(
    conn: Connection,
    look: LookClaim,
    rulings: Iterable[LookRuling],
    *,
    health: Settlement,
    server_now_ms: int | None = None,
    even: Callable[[Connection], int | None] = read_ms,
) -> Settled:
    """Write what a read-back showed, unless the lease ran out meanwhile."""
    mine = False
    for ruling in rulings:
        row = conn.execute(
            _SETTLE_LOOK,
            {
                "goal_id": ruling.goal.goal.id,
                "token": look.token,
                "new_state": ruling.settlement.state.value,
                "new_reason": ruling.settlement.reason,
                "new_message": ruling.settlement.message,
                "due_in_ms": ruling.settlement.due_in_ms,
                "looked": int(ruling.looked),
                "not_found": int(ruling.absent),
                "remote_id": ruling.remote_id,
            },
        ).first()
        if row is None:
            continue
        mine = True
        conn.execute(_RECORD, _attempt(look, ruling))
        if ruling.at_ms is not None:
            conn.execute(_DATE, {"of_goal": row.id, "at": ruling.at_ms})
        if ruling.goal.restored and ruling.settlement.state in _TOLD:
            restoring.told(conn, ruling.goal.goal.id, sent=ruling.settlement.state is GoalState.DELIVERED)
    if not mine:
        return Settled(written=False)
    news = pauses.learn(conn, look.destination, health, visitor=look.visitor, token=look.token)
    pauses.learn_clock(conn, look.destination, server_now_ms, even)
    return Settled(written=True, news=news)


def _attempt(look: LookClaim, ruling: LookRuling) -> dict[str, Any]:
    failure = ruling.failure
    return {
        "of_goal": ruling.goal.goal.id,
        "of_lease": look.token,
        "claimed_at": look.claimed_at_ms,
        "shown": ruling.outcome.value,
        "answered": failure.status if failure else None,
        "failure": failure.message if failure else None,
    }
