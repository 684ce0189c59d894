"""Claim the next work at a destination together with a slot of the rate limit; settle it, or release it undone.

DataFast counts per token, so all processes that use a token take their slots from one row (of `pace`, by GCRA, and by
the database's clock). One read-back of a visitor settles all its goals of one name that lost answers left in doubt.
Every transition is one guarded statement (`bridge.store.delivery.statements`); if it changes no row, another worker was
first and the caller stops. The claim of a goal to send records its attempt and `sending`, which is committed to the
disk before the request goes out, so a goal is in doubt only if it is `sending` and its worker vanished; the sweep makes
it `unconfirmed`. Nothing here sends, waits or interprets an answer: a `Settlement` does that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, bindparam, case, or_, select, update

from bridge.model import (
    IDEMPOTENT,
    Claim,
    DeliveredGoal,
    GoalState,
    NotYet,
    ProofClaim,
    ReadbackClaim,
    Settled,
    UnconfirmedGoal,
)
from bridge.store.clock import now_ms, read_ms
from bridge.store.delivery import pauses, restoring, statements
from bridge.store.schema import attempts, goals, pace
from bridge.store.upkeep import jumps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

    from bridge.model import Outcome, ReadbackDecision, Readiness, Settlement
    from bridge.store.delivery.statements import DueGoal, Group

    Window = tuple[int, int]  # milliseconds, both ends included

BURST: Final = 2  # slots of the rate limit
NEWEST_EVERY: Final = 5  # one slot in this many goes to the newest goal
PROOF_EVERY: Final = 3  # one slot in this many goes to a proof, if one is due
UNKNOWN_SHARE: Final = 10  # while no visitor is known, one request in this many is for an unknown one
ASKED_AGAIN_MS: Final = 3_600_000  # and each of them is asked about again after this time at the earliest
QUEUE_HEAD: Final = 50  # how many of the longest-waiting goals are checked for a read-back that holds them up


def claim(
    conn: Connection,
    *,
    destination: str,
    token_hash: str,
    token: str,
    lease_ms: int,
    rate: int,
    readback_ms: tuple[int, int] = (0, 0),
    trusted_clock: Callable[[Connection], int | None] | None = None,
    ready: Readiness | None = None,
) -> Claim | ReadbackClaim | ProofClaim | NotYet:
    """Claim one goal to send, one group to read back, or one visitor to prove, with its slot of the token's rate limit.

    A read-back comes before a send, because it holds up its visitor, but not while a pause is probed. A proof comes
    last, except in every third slot. Read-backs after a restore take at most every second slot while other work waits.
    readback_ms: delays of the first and second one. trusted_clock: our time, if known. ready: if already read.
    """
    ready = ready or pauses.readiness(conn, destination, lock=True)
    now = ready.now_ms
    if ready.not_before_ms > now:
        return NotYet(ready.not_before_ms, now)
    restores = restoring.spans(ready.restores)
    chosen = _choose(conn, destination, ready, restored=bool(restores))
    if isinstance(chosen, NotYet):
        return chosen
    visitor = None if isinstance(chosen, str) else chosen.visitor
    if restores and visitor and restoring.doubt(conn, restores, destination, visitor, readback_ms):
        return NotYet(now, now)
    interval = interval_us(rate)
    probe = (token, now + lease_ms) if ready.probing else (None, None)
    if (slot_at_ms := take_slot(conn, token_hash, now, interval, (*probe, destination))) > now:
        return NotYet(slot_at_ms, now)
    if isinstance(chosen, statements.DueGoal):
        _take_turn(conn, chosen, ready, interval)
        return _begin(conn, chosen, ready, token, lease_ms, trusted_clock)
    if isinstance(chosen, statements.Group):
        return _lease_group(conn, destination, chosen, token, now, lease_ms, probe=ready.probing)
    proof = ProofClaim(destination, chosen, token, probe=ready.probing)
    return replace(proof, failures=statements.lease_proof(conn, proof, now + lease_ms))


def _take_turn(conn: Connection, due: DueGoal, ready: Readiness, interval: int) -> None:
    """While no visitor is known, limit how often an unknown one is asked about."""
    if due.unknown_at_ms and ready.unknown_turn_ms is not None:
        at_ms = ready.now_ms + UNKNOWN_SHARE * interval // 1000
        statements.set_unknown_turn(conn, due.goal.destination, at_ms)


def _begin(
    conn: Connection,
    due: DueGoal,
    ready: Readiness,
    token: str,
    lease_ms: int,
    trusted_clock: Callable[[Connection], int | None] | None,
) -> Claim | NotYet:
    goal, now = due.goal, ready.now_ms
    our_now_ms = None if trusted_clock is None else trusted_clock(conn)
    attempt_id = statements.begin(conn, goal, token, now, now + lease_ms, our_now_ms)
    if attempt_id is None:
        return NotYet(now, now)
    return Claim(goal, token, now, attempt_id, due.paused_ms, ready.probing)


def release(conn: Connection, claimed: Claim | ReadbackClaim | ProofClaim) -> bool:
    """Release a lease (SIGTERM): nothing was sent or asked, so nobody needs to wait until the lease expires.

    A goal's attempt is deleted with it.
    """
    if isinstance(claimed, Claim):
        if not statements.release_goal(conn, claimed):
            return False
    elif isinstance(claimed, ReadbackClaim):
        statements.release_group(conn, claimed.token)
    else:
        statements.release_proof(conn, claimed)
    statements.release_probe(conn, claimed.destination, claimed.token)
    return True


def settle(
    conn: Connection,
    claim: Claim,
    outcome: Outcome,
    settlement: Settlement,
    *,
    trusted_clock: Callable[[Connection], int | None] = read_ms,
) -> Settled:
    """Write the outcome of an attempt, unless its lease has expired. trusted_clock: our time (`Timekeeper`)."""
    doubted = statements.settle(conn, claim, outcome, settlement)
    if doubted is None:
        return Settled(written=False)
    settled = pauses.learn(conn, claim, settlement, server_now_ms=outcome.server_now_ms, trusted_clock=trusted_clock)
    return replace(settled, doubted=doubted)


def settle_readback(
    conn: Connection,
    readback: ReadbackClaim,
    decisions: Iterable[ReadbackDecision],
    *,
    health: Settlement,
    server_now_ms: int | None = None,
    trusted_clock: Callable[[Connection], int | None] = read_ms,
) -> Settled:
    """Write the result of a read-back, unless the lease has expired."""
    written = [decision for decision in decisions if statements.settle_readback(conn, readback, decision)]
    for decision in written:
        state = decision.settlement.state
        if decision.goal.restored and state in (GoalState.DELIVERED, GoalState.PENDING):
            restoring.end_doubt(conn, decision.goal.goal.id, sent=state is GoalState.DELIVERED)
    if not written:
        return Settled(written=False)
    return pauses.learn(conn, readback, health, server_now_ms=server_now_ms, trusted_clock=trusted_clock)


def take_back(conn: Connection, claim: Claim) -> None:
    """The answer to the claim was lost, so nothing was sent: release the goal, whether or not the claim was written."""
    if statements.release_goal(conn, claim, confirmed=False):
        statements.release_probe(conn, claim.destination, claim.token)


# ------------------------------------------------------------------------------------------------- what comes next


def _choose(conn: Connection, destination: str, ready: Readiness, *, restored: bool) -> Group | str | DueGoal | NotYet:
    """Choose what is next: a group to read back, a visitor to prove or a goal to send.

    restored: whether a backup was restored.
    """
    now = ready.now_ms
    if ready.looks and not ready.probing:
        readback = _readback_first(conn, destination, ready, restored=restored)
        if readback is not None:
            return readback
    is_proof_turn = not ready.probing and ready.slots % PROOF_EVERY == PROOF_EVERY - 1
    proof = statements.proof_due(conn, destination, now) if is_proof_turn else None
    chosen: Group | str | DueGoal | NotYet | None = proof or _next_goal(conn, destination, ready)
    if chosen is None and ready.looks and (ready.probing or restored):
        chosen = statements.readback_due(conn, destination, now)
    return chosen or statements.proof_due(conn, destination, now) or NotYet(_next_due(conn, destination, ready), now)


def _readback_first(conn: Connection, destination: str, ready: Readiness, *, restored: bool) -> Group | None:
    """A read-back that comes before any send. Of restored goals, those holding up a goal of their visitor go first."""
    now = ready.now_ms
    readback = statements.readback_due(conn, destination, now, restored=False if restored else None)
    if readback is not None or not restored or ready.slots % 2 == 0:
        return readback
    blocking = statements.blocking_readback(conn, destination, now, QUEUE_HEAD)
    return blocking or statements.readback_due(conn, destination, now, restored=True)


def _next_goal(conn: Connection, destination: str, ready: Readiness) -> DueGoal | NotYet | None:
    """The next goal to send. NotYet: look again immediately."""
    now = ready.now_ms
    newest = ready.slots % NEWEST_EVERY == NEWEST_EVERY - 1
    if ready.unknown_turn_ms is None:
        return statements.due_goal(conn, destination, now, newest=newest, fresh=False)
    due = statements.due_goal(conn, destination, now, newest=newest, fresh=True)
    if due is None and ready.unknown_turn_ms <= now:
        due = statements.least_recently_asked(conn, destination, now, now - ASKED_AGAIN_MS)
    if due is None:
        return None
    asked_at = statements.last_asked_ms(conn, due.goal)
    if asked_at == due.unknown_at_ms:
        return due
    statements.note_asked(conn, due.goal, asked_at)  # the answer for another goal concerned this visitor
    return NotYet(now, now)


def peek(conn: Connection, destination: str) -> NotYet | None:
    """Check, cheaply and without a write, for anything to claim. None: try to claim; else when to look again."""
    ready = pauses.readiness(conn, destination)
    now = ready.now_ms
    if ready.not_before_ms > now:
        return NotYet(ready.not_before_ms, now)
    if _any_due(conn, destination, ready) or (statements.next_proof_ms(conn, destination) or now + 1) <= now:
        return None
    return NotYet(_next_due(conn, destination, ready), now)


def _any_due(conn: Connection, destination: str, ready: Readiness) -> bool:
    """Whether there is a goal to be sent or read back."""
    now, turn_ms = ready.now_ms, ready.unknown_turn_ms
    if turn_ms is None:
        return statements.any_due(conn, destination, now)
    return statements.any_due_while_unknown(conn, destination, now, now - ASKED_AGAIN_MS if turn_ms <= now else None)


def _next_due(conn: Connection, destination: str, ready: Readiness) -> int | None:
    """When there will be work at the destination; None if nothing waits for a certain time."""
    now = ready.now_ms
    times = (
        statements.next_due_ms(conn, destination, now),
        statements.next_proof_ms(conn, destination),
        ready.unknown_turn_ms,
    )
    return min((time for time in times if time is not None and time > now), default=None)


# ------------------------------------------------------------------------------------------------- goals in doubt


def _lease_group(
    conn: Connection, destination: str, group: Group, token: str, now: int, lease_ms: int, *, probe: bool
) -> ReadbackClaim | NotYet:
    """Lease all unconfirmed goals of one visitor, name and kind, because they can only be identified together."""
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
        DeliveredGoal(description, event_id, windows[goal_id])
        for goal_id, description, event_id in delivered
        if goal_id in windows  # else its attempts were deleted by retention
    )
    visitor, name, kind = group
    return ReadbackClaim(destination, visitor, name, token, doubtful, owned, probe, now + skew, now, kind)


def _windows(
    conn: Connection, goal_ids: Sequence[int], skew_ms: int, now: int, lease_ms: int
) -> dict[int, tuple[Window, ...]]:
    """The time windows, by DataFast's clock, of each goal's attempts that may have arrived.

    If an attempt was answered, only that one counts. The time at which a read-back found the goal is no evidence: it
    may have arrived long before. If our clock was set in between, an attempt is taken to last at most a lease. Before
    DataFast's clock was known, it may have been equal to ours, or off by as much as was found later.
    """
    found: dict[int, list[Window]] = {}
    attempts = statements.arrivals(conn, goal_ids)
    answered = {goal_id for goal_id, outcome, *_ in attempts if outcome == "delivered"}
    for goal_id, outcome, started_at_ms, ended_at_ms, server_started_at_ms in attempts:
        if goal_id in answered and outcome != "delivered":
            continue
        duration_ms = (now if ended_at_ms is None else ended_at_ms) - started_at_ms
        duration_ms = duration_ms if duration_ms >= 0 else lease_ms
        if server_started_at_ms is not None:
            start = end = server_started_at_ms
        else:
            start, end = started_at_ms + min(skew_ms, 0), started_at_ms + max(skew_ms, 0)
            if started_at_ms > now + lease_ms:
                start = 0  # it was timed by a clock that was ahead, so it may have begun at any time
        found.setdefault(goal_id, []).append((start, end + duration_ms))
    return {goal_id: tuple(spans) for goal_id, spans in found.items()}


# ------------------------------------------------------------------------------------------------- the rate limit


def interval_us(rate_per_minute: int) -> int:
    """The pause between two requests of a token, in microseconds, rounded up."""
    return -(-60_000_000 // rate_per_minute)


def take_slot(
    conn: Connection,
    token_hash: str,
    now: int,
    interval: int,
    counted: tuple[str | None, int | None, str] | None = None,
) -> int:
    """Take the token's next slot if it is now; otherwise write nothing and return when it will be.

    counted: see `statements.take_slot`.
    """
    tolerance = interval * (BURST - 1)
    if statements.take_slot(conn, token_hash, now * 1000, interval, tolerance, counted):
        return now
    next_at = statements.next_slot_us(conn, token_hash)
    assert next_at is not None
    return max(-((tolerance - next_at) // 1000), now + 1)


def reserve(conn: Connection, token_hash: str, rate: int) -> int:
    """Take a slot for a request made by a person (`doctor`). Returns 0 if taken, else how many ms to wait."""
    if statements.next_slot_us(conn, token_hash) is None:
        return 0  # no worker has ever used this token
    now = read_ms(conn)
    return take_slot(conn, token_hash, now, interval_us(rate)) - now


def register(conn: Connection, *, destination: str, token_hash: str) -> None:
    """Create the rows of a destination and its token; a new key ends a pause that the old one caused."""
    pauses.ensure(conn, destination, token_hash)
    if statements.next_slot_us(conn, token_hash) is None:
        pauses.insert_once(conn, pace, {"token_hash": token_hash, "next_at_us": 0})


# ------------------------------------------------------------------------------------------------------- the sweep


def sweep(
    conn: Connection, *, settling_ms: int, expiry_clock: Callable[[Connection], int] = read_ms
) -> tuple[list[int], list[int], list[int]]:
    """Take over the work of vanished workers; return the ids of the goals now free, in doubt, and too old.

    expiry_clock: `Timekeeper.expiry_clock`, which decides whether a goal is too old. Goals that are too old only
    because the clock jumped are held.
    """
    freed = statements.release_vanished(conn)
    doubtful = [row.id for row in conn.execute(_IN_DOUBT, {"settling_ms": settling_ms})]
    if doubtful:
        conn.execute(_END_VANISHED, {"doubtful": doubtful})
    gaps = jumps.recall(conn).gaps
    jumps.hold_too_old(conn, gaps)
    # Another process may have made such a goal in the meantime: the next sweep holds it.
    too_old = _TOO_OLD.where(~jumps.grew_too_old(gaps)) if gaps else _TOO_OLD
    expired = [row.id for row in conn.execute(too_old, {"until": expiry_clock(conn)})]
    return freed, doubtful, expired


def anything_to_sweep(conn: Connection) -> bool:
    """Whether `sweep` would find anything: a read that saves idle workers a write."""
    return conn.execute(_ANY_TO_SWEEP).first() is not None


# Whatever DataFast records only once, however often it is sent, is sent again without a read-back.
_IN_DOUBT: Final = (
    update(goals)
    .where(goals.c.state == "sending", goals.c.lease_until_ms <= now_ms())
    .values(
        state=case((goals.c.kind.in_(IDEMPOTENT), "pending"), else_="unconfirmed"),
        reason="worker_vanished",
        message="the process that was sending it vanished before the answer came",
        due_at_ms=now_ms() + bindparam("settling_ms"),
        attempts=goals.c.attempts + 1,
        looks=0,
        absent=0,
        lease_token=None,
        lease_until_ms=None,
        changed_at_ms=now_ms(),
    )
    .returning(goals.c.id)
)

# Its end is unknown; no other goal of its visitor and name was sent until now.
_END_VANISHED: Final = (
    update(attempts)
    .where(
        attempts.c.goal_id.in_(bindparam("doubtful", expanding=True)),
        attempts.c.kind == "send",
        attempts.c.outcome.is_(None),
    )
    .values(ended_at_ms=now_ms(), outcome="unconfirmed", message="the process vanished before the answer came")
)

_TOO_OLD: Final = (
    update(goals)
    .where(goals.c.state == "pending", goals.c.expires_at_ms <= bindparam("until"))
    .values(
        state="expired",
        reason="max_age",
        message="it became older than max_age before it could be sent; DataFast would have dated it today",
        changed_at_ms=now_ms(),
    )
    .returning(goals.c.id)
)

_ANY_TO_SWEEP: Final = (
    select(goals.c.id)
    .where(
        or_(
            and_(goals.c.state.in_(("leased", "sending")), goals.c.lease_until_ms <= now_ms()),
            and_(goals.c.state == "pending", goals.c.expires_at_ms <= now_ms()),
        )
    )
    .limit(1)
)
