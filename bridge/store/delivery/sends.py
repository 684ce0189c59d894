"""Settle what became of a goal that was claimed, or take back a claim whose commit nobody confirmed.

Every transition is one guarded statement (`bridge.store.delivery.statements`); if it changes no row, somebody else won
and the caller stops. The attempt and `sending` are committed by the claim, before the request goes out, so a goal is in
doubt only if it is `sending` and its worker vanished; the sweep makes it `unconfirmed`. Nothing here sends, waits or
decides what an answer means: a `Settlement` says it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.model import Settled
from bridge.store.clock import read_ms
from bridge.store.delivery import pauses, statements

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from bridge.model import Claim, Outcome, Settlement


def settle(
    conn: Connection,
    claim: Claim,
    outcome: Outcome,
    ruling: Settlement,
    *,
    even: Callable[[Connection], int | None] = read_ms,
) -> Settled:
    """Write what became of an attempt, unless its lease ran out meanwhile. even: our clock (`Timekeeper`)."""
    if not statements.settle(conn, claim, outcome, ruling):
        return Settled(written=False)
    statements.end_attempt(conn, claim, outcome)
    return pauses.learn(conn, claim, ruling, server_now_ms=outcome.server_now_ms, even=even)


def take_back(conn: Connection, claim: Claim) -> None:
    """The answer to the claim was lost, so nothing was sent: the goal is free again, whatever was written."""
    if statements.give_back(conn, claim, confirmed=False):
        statements.release_probe(conn, claim.destination, claim.token)
