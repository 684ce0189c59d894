"""Look up what a lost answer left in doubt: one read-back of a visitor settles all its goals of one name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.model import GoalState, LookClaim, NotYet, OwnedGoal, Settled, UnconfirmedGoal
from bridge.store.clock import read_ms
from bridge.store.delivery import pauses, restoring, statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

    from bridge.model import LookRuling, Settlement
    from bridge.store.delivery.statements import Group

    Window = tuple[int, int]  # milliseconds, both ends included


def lease(
    conn: Connection, destination: str, group: Group, token: str, now: int, lease_ms: int, *, probe: bool
) -> LookClaim | NotYet:
    """Lease all unconfirmed goals of one visitor, name and kind, because they can only be told apart together."""
    leased = statements.lease_group(conn, destination, group, token, now, now + lease_ms)
    if not leased:
        return NotYet(now, now)
    skew = pauses.clock_skew_ms(conn, destination)
    delivered = statements.delivered(conn, destination, group)
    ids = [goal.id for goal, *_ in leased] + [goal_id for goal_id, *_ in delivered]
    windows = _windows(conn, ids, skew, now, lease_ms)
    doubtful = tuple(
        UnconfirmedGoal(goal, looks, absent, windows.get(goal.id, ()), reason == restoring.REASON)
        for goal, looks, absent, reason in leased
    )
    owned = tuple(
        OwnedGoal(description, event_id, windows[goal_id])
        for goal_id, description, event_id in delivered
        if goal_id in windows  # else retention took its attempts, which were long ago
    )
    visitor, name, kind = group
    return LookClaim(destination, visitor, name, token, doubtful, owned, probe, now + skew, now, kind)


def _windows(
    conn: Connection, goal_ids: Sequence[int], skew_ms: int, now: int, lease_ms: int
) -> dict[int, tuple[Window, ...]]:
    """When the attempts of each goal that may have arrived were under way, by DataFast's clock.

    If an attempt was answered, only that one counts. When a read-back found the goal says nothing: it may have arrived
    long before. If our own clock was set meanwhile, an attempt took at most a lease. Before DataFast's clock was known,
    it may have been equal to ours, or as far away as it was found to be later.
    """
    found: dict[int, list[Window]] = {}
    attempts = statements.arrived(conn, goal_ids)
    answered = {goal_id for goal_id, outcome, *_ in attempts if outcome == "delivered"}
    for goal_id, outcome, started_at_ms, ended_at_ms, server_started_at_ms in attempts:
        if goal_id in answered and outcome != "delivered":
            continue
        took_ms = (now if ended_at_ms is None else ended_at_ms) - started_at_ms
        took_ms = took_ms if took_ms >= 0 else lease_ms
        start = end = server_started_at_ms
        if start is None or end is None:
            start, end = started_at_ms + min(skew_ms, 0), started_at_ms + max(skew_ms, 0)
            start = start if started_at_ms <= now + lease_ms else 0  # by a clock that was ahead: at any time
        found.setdefault(goal_id, []).append((start, end + took_ms))
    return {goal_id: tuple(spans) for goal_id, spans in found.items()}


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
    mine = [ruling for ruling in rulings if statements.settle_look(conn, look, ruling)]
    for ruling in mine:
        state = ruling.settlement.state
        if ruling.goal.restored and state in (GoalState.DELIVERED, GoalState.PENDING):
            restoring.end_doubt(conn, ruling.goal.goal.id, sent=state is GoalState.DELIVERED)
    if not mine:
        return Settled(written=False)
    return pauses.learn(conn, look, health, server_now_ms=server_now_ms, even=even)
