"""Claim what is to be done next, together with its slot of the rate limit, and give it back undone.

The claim of a goal to send records its attempt and `sending`. Nothing may leave before that is committed to the disk.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bridge.model import Claim, LookClaim, NotYet, ProofClaim
from bridge.store.delivery import pauses, rate_limit, readbacks, restoring, statements, turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from bridge.store.delivery.pauses import Readiness
    from bridge.store.delivery.statements import DueGoal


def claim(
    conn: Connection,
    *,
    destination: str,
    token_hash: str,
    token: str,
    lease_ms: int,
    rate: int,
    readback_ms: tuple[int, int] = (0, 0),
    even: Callable[[Connection], int | None] | None = None,
) -> Claim | LookClaim | ProofClaim | NotYet:
    """Claim one goal to send, one group to look up, or one visitor to prove, with its slot of the token's rate limit.

    A look comes before a send, because it holds up its visitor; while a pause is being probed a goal comes first. A
    proof comes last, except in every third slot. A look for the sake of a restore takes every second slot at most,
    while there is something to send. readback_ms: how long after a restore the first such look comes, and until the
    second. even: our clock, if it was compared with DataFast's.
    """
    ready = pauses.readiness(conn, destination, lock=True)
    now = ready.now_ms
    if ready.not_before_ms > now:
        return NotYet(ready.not_before_ms, now)
    restores = restoring.spans(conn)
    chosen = turns.choose(conn, destination, ready, restored=bool(restores))
    if isinstance(chosen, NotYet):
        return chosen
    visitor = None if isinstance(chosen, str) else chosen.visitor
    if restores and visitor and restoring.doubt(conn, restores, destination, visitor, readback_ms):
        return NotYet(now, now)
    interval_us = rate_limit.interval_us(rate)
    slot_at_ms = rate_limit.take_slot(conn, token_hash, now, interval_us)
    if slot_at_ms > now:
        return NotYet(slot_at_ms, now)
    statements.count_slot(conn, destination, (token, now + lease_ms) if ready.probing else (None, None))
    if isinstance(chosen, statements.DueGoal):
        _take_turn(conn, chosen, ready, interval_us)
        return _begin(conn, chosen, ready, token, lease_ms, even)
    if isinstance(chosen, statements.Group):
        return readbacks.lease(conn, destination, chosen, token, now, lease_ms, probe=ready.probing)
    return _lease_proof(conn, ProofClaim(destination, chosen, token, probe=ready.probing), now + lease_ms)


def _lease_proof(conn: Connection, claimed: ProofClaim, until_ms: int) -> ProofClaim:
    return replace(claimed, failures=statements.lease_proof(conn, claimed, until_ms))


def _take_turn(conn: Connection, due: DueGoal, ready: Readiness, interval_us: int) -> None:
    """While no visitor is known, an unknown one is asked about in its turn only."""
    if due.unknown_at_ms and ready.unknown_turn_ms is not None:
        at_ms = ready.now_ms + turns.UNKNOWN_SHARE * interval_us // 1000
        statements.next_unknown(conn, due.goal.destination, at_ms)


def _begin(
    conn: Connection,
    due: DueGoal,
    ready: Readiness,
    token: str,
    lease_ms: int,
    even: Callable[[Connection], int | None] | None,
) -> Claim | NotYet:
    goal, now = due.goal, ready.now_ms
    if not statements.begin(conn, goal, token, now, now + lease_ms):
        return NotYet(now, now)
    attempt_id = statements.write_ahead(conn, goal, token, None if even is None else even(conn))
    return Claim(goal, token, now, attempt_id, due.paused_ms, ready.probing)


def release(conn: Connection, claimed: Claim | LookClaim | ProofClaim) -> bool:
    """Give a lease back (SIGTERM): nothing was sent or asked, and nobody has to wait until the lease runs out.

    The attempt of a goal goes with it.
    """
    if isinstance(claimed, Claim):
        if not statements.give_back(conn, claimed):
            return False
    elif isinstance(claimed, LookClaim):
        statements.give_back_group(conn, claimed.token)
    else:
        statements.give_back_proof(conn, claimed)
    statements.release_probe(conn, claimed.destination, claimed.token)
    return True
