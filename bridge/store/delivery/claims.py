"""Claim what is to be done next, together with its slot of the rate limit, and give it back undone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, update

from bridge.model import Claim, LookClaim, NotYet, ProofClaim
from bridge.store.delivery import pauses, rate_limit, readbacks, restoring, turns
from bridge.store.delivery.sends import FREE
from bridge.store.goals import proofs
from bridge.store.schema import goals

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# The slot's row lets one claim after the other through; what the one before leased is seen here, if not yet above.
_LEASE: Final = (
    update(goals)
    .where(goals.c.id == bindparam("goal_id"), goals.c.state == turns.PENDING, turns.HAS_NO_NAMESAKE)
    .values(
        state="leased",
        lease_token=bindparam("token"),
        lease_until_ms=bindparam("now") + bindparam("lease_ms"),
        changed_at_ms=bindparam("now"),
    )
    .returning(goals.c.id)
)


def claim(
    conn: Connection,
    *,
    destination: str,
    token_hash: str,
    token: str,
    lease_ms: int,
    rate: int,
    readback_ms: tuple[int, int] = (0, 0),
) -> Claim | LookClaim | ProofClaim | NotYet:
    """Claim one goal to send, one group to look up, or one visitor to prove, with its slot of the token's rate limit.

    A look comes before a send, because it holds up its visitor; while a pause is being probed a goal comes first. A
    proof comes last, but for every third slot. A look for the sake of a restore takes every second slot at most, while
    there is something to send. readback_ms: how long after a restore the first such look comes, and until the second.
    """
    door = pauses.door(conn, destination)
    now = door.now_ms
    if door.not_before_ms > now:
        return NotYet(door.not_before_ms, now)
    wish = {"destination": destination, "now": now}
    restores = restoring.spans(conn)
    chosen = turns.choose(conn, wish, door, restored=bool(restores))
    if isinstance(chosen, NotYet):
        return chosen
    look, proof, goal = chosen
    visitor = look.visitor if look is not None else goal.visitor if goal is not None else None
    if restores and visitor is not None and restoring.doubt(conn, restores, destination, visitor, readback_ms):
        return NotYet(now, now)
    slot_at_ms = rate_limit.take_slot(conn, token_hash, now, rate_limit.interval_us(rate))
    if slot_at_ms > now:
        return NotYet(slot_at_ms, now)
    pauses.count_slot(conn, destination, probe=(token, now + lease_ms) if door.probing else None)
    if goal is not None:
        if goal.unknown_at_ms and door.unknown_turn_ms is not None:
            pauses.next_unknown(conn, destination, now + turns.UNKNOWN_SHARE * rate_limit.interval_us(rate) // 1000)
        return _lease(conn, goal, token, now, lease_ms, probe=door.probing)
    if look is not None:
        return readbacks.lease(conn, destination, look, token, now, lease_ms, probe=door.probing)
    assert proof is not None
    claimed = ProofClaim(destination, proof, token, probe=door.probing)
    return replace(claimed, failures=proofs.lease(conn, claimed, now + lease_ms))


def _lease(conn: Connection, row: Row[Any], token: str, now: int, lease_ms: int, *, probe: bool) -> Claim | NotYet:
    leased = conn.execute(_LEASE, {"goal_id": row.id, "token": token, "now": now, "lease_ms": lease_ms}).first()
    if leased is None:  # somebody was quicker with another goal of this visitor
        return NotYet(now, now)
    return Claim(turns.goal_of(row), token, now, row.paused_ms, probe)


def release(conn: Connection, claimed: Claim | LookClaim | ProofClaim) -> bool:
    """Give a lease back (SIGTERM): nothing was sent or asked, and nobody waits for the lease to run out."""
    if isinstance(claimed, Claim):
        destination = claimed.goal.destination
        goal = {"goal_id": claimed.goal.id, "token": claimed.token}
        if conn.execute(_GIVE_BACK, goal).first() is None:
            return False
    elif isinstance(claimed, LookClaim):
        destination = claimed.destination
        conn.execute(_GIVE_BACK_GROUP, {"token": claimed.token})
    else:
        destination = claimed.destination
        proofs.release(conn, claimed)
    pauses.release_probe(conn, destination, claimed.token)
    return True


_GIVE_BACK: Final = (
    update(goals)
    .where(goals.c.id == bindparam("goal_id"), goals.c.state == "leased", goals.c.lease_token == bindparam("token"))
    .values(**FREE)
    .returning(goals.c.id)
)
_GIVE_BACK_GROUP: Final = (
    update(goals)
    .where(goals.c.state == "unconfirmed", goals.c.lease_token == bindparam("token"))
    .values(lease_token=None, lease_until_ms=None)
)
