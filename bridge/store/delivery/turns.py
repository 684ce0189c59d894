"""Whose turn it is at a destination: a goal to send, a group to look up, or a visitor to prove.

Nothing is leased here (`bridge.store.delivery.claims`); what is chosen is locked until the transaction ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.model import NotYet
from bridge.store.delivery import pauses, statements

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store.delivery.pauses import Readiness
    from bridge.store.delivery.statements import DueGoal, Group

EVERY_FIFTH: Final = 5  # slot takes the newest goal
EVERY_THIRD: Final = 3  # slot takes a proof, if one is due, whatever else is due
UNKNOWN_SHARE: Final = 10  # while no visitor is known, one request in so many is for an unknown one
ASKED_AGAIN_MS: Final = 3_600_000  # and each of them is asked about again after so long at the earliest
IN_LINE: Final = 50  # so many of the goals that have waited longest are asked whether a look holds them up


def choose(conn: Connection, destination: str, ready: Readiness, *, restored: bool) -> Group | str | DueGoal | NotYet:
    """Whose turn it is: a group to look up, a visitor to prove, or a goal to send. restored: was there a restore?"""
    now = ready.now_ms
    look = None if ready.probing else _look_first(conn, destination, ready, restored=restored)
    if look is not None:
        return look
    proofs_turn = not ready.probing and ready.slots % EVERY_THIRD == EVERY_THIRD - 1
    proof = statements.proof_due(conn, destination, now) if proofs_turn else None
    chosen: Group | str | DueGoal | NotYet | None = proof or _next_goal(conn, destination, ready)
    if chosen is None and (ready.probing or restored):
        chosen = statements.look_due(conn, destination, now)
    return chosen or statements.proof_due(conn, destination, now) or NotYet(_next_due(conn, destination, ready), now)


def _look_first(conn: Connection, destination: str, ready: Readiness, *, restored: bool) -> Group | None:
    """A look that comes before any send. Of restored goals, those come first that hold up a goal of their visitor."""
    now = ready.now_ms
    look = statements.look_due(conn, destination, now, restored=False if restored else None)
    if look is not None or not restored or ready.slots % 2 == 0:
        return look
    hindering = statements.look_that_hinders(conn, destination, now, IN_LINE)
    return hindering or statements.look_due(conn, destination, now, restored=True)


def _next_goal(conn: Connection, destination: str, ready: Readiness) -> DueGoal | NotYet | None:
    """The goal whose turn it is. NotYet: look again at once."""
    now = ready.now_ms
    newest = ready.slots % EVERY_FIFTH == EVERY_FIFTH - 1
    if ready.unknown_turn_ms is None:
        return statements.due_goal(conn, destination, now, newest=newest, fresh=False)
    due = statements.due_goal(conn, destination, now, newest=newest, fresh=True)
    if due is None and ready.unknown_turn_ms <= now:
        due = statements.longest_ago(conn, destination, now, now - ASKED_AGAIN_MS)
    if due is None:
        return None
    asked_at = statements.last_asked_ms(conn, due.goal)
    if asked_at == due.unknown_at_ms:
        return due
    statements.note_asked(conn, due.goal, asked_at)  # the answer to another goal was about this visitor
    return NotYet(now, now)


def waits(conn: Connection, destination: str) -> NotYet | None:
    """Whether there is anything to claim, cheaply and without a write. None: try it; else when to look again."""
    ready = pauses.readiness(conn, destination)
    now = ready.now_ms
    if ready.not_before_ms > now:
        return NotYet(ready.not_before_ms, now)
    if _any_due(conn, destination, ready) or (statements.next_proof_ms(conn, destination) or now + 1) <= now:
        return None
    return NotYet(_next_due(conn, destination, ready), now)


def _any_due(conn: Connection, destination: str, ready: Readiness) -> bool:
    """Whether there is a goal to be sent or looked up."""
    now, turn_ms = ready.now_ms, ready.unknown_turn_ms
    if turn_ms is None:
        return statements.any_due(conn, destination, now)
    return statements.any_due_while_unknown(conn, destination, now, now - ASKED_AGAIN_MS if turn_ms <= now else None)


def _next_due(conn: Connection, destination: str, ready: Readiness) -> int | None:
    """When there will be something to do at the destination; None: nothing waits for a time."""
    now = ready.now_ms
    times = (
        statements.next_due_ms(conn, destination, now),
        statements.next_proof_ms(conn, destination),
        ready.unknown_turn_ms,
    )
    return min((time for time in times if time is not None and time > now), default=None)
