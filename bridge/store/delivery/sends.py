"""Send a goal: record the attempt before the request, then settle what became of it or take it back.

Every transition is one guarded statement (`bridge.store.delivery.statements`); if it changes no row, somebody else won
and the caller stops. What is `leased` was certainly not sent. The attempt and `sending` are committed before the
request goes out, so a goal is in doubt only if it is `sending` and its worker vanished; the sweep makes it
`unconfirmed`. Nothing here sends, waits or decides what an answer means: a `Settlement` says it.
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


def begin(
    conn: Connection, claim: Claim, need_ms: int = 0, even: Callable[[Connection], int | None] | None = None
) -> int | None:
    """Write the attempt and `sending`, before the request goes out; the attempt's id, or None: nothing may be sent.

    need_ms: how much of the lease must be left, because a request begun with less could end in doubt. even: our clock,
    if it was compared with DataFast's (`Timekeeper`).
    """
    if not statements.begin(conn, claim, need_ms):
        return None
    return statements.write_ahead(conn, claim, None if even is None else even(conn))


def settle(
    conn: Connection,
    claim: Claim,
    attempt_id: int,
    outcome: Outcome,
    ruling: Settlement,
    *,
    even: Callable[[Connection], int | None] = read_ms,
) -> Settled:
    """Write what became of an attempt, unless its lease ran out meanwhile. even: our clock (`Timekeeper`)."""
    if not statements.settle(conn, claim, outcome, ruling):
        return Settled(written=False)
    statements.end_attempt(conn, attempt_id, outcome)
    return pauses.learn(conn, claim, ruling, server_now_ms=outcome.server_now_ms, even=even)


def take_back(conn: Connection, claim: Claim) -> None:
    """The answer to `begin` was lost, so nothing was sent: the goal is free again, whatever was written."""
    if statements.take_back(conn, claim):
        statements.release_probe(conn, claim.destination, claim.token)
