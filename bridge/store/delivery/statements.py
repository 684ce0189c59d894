"""The SQL text that runs for every goal on its way to DataFast. Each statement uses an index and decides nothing.

These statements claim, send, settle and release a goal to send, a group to read back or a visitor to prove, and read
and write a destination's pause with each claim and answer. Restores and sweeps run less often; they are written with
SQLAlchemy in the modules that decide them. A transition is one guarded statement (`WHERE state = … AND lease_token =
…`): no row means that another worker was first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge.model import Goal, GoalState, Health
from bridge.store.database.driver import driver_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from bridge.model import Claim, Outcome, ProofClaim, ReadbackClaim, ReadbackDecision, Settlement

# ------------------------------------------------------------------------------------------------- a destination

_RESTORES: Final = "(SELECT value FROM facts WHERE facts.name = 'restored')"  # bridge.store.delivery.restoring
# The time in a separate query; otherwise PostgreSQL would evaluate it for each goal in doubt.
_LOOKS: Final = (
    "EXISTS (SELECT 1 FROM goals WHERE goals.destination = destinations.name AND goals.state = 'unconfirmed'"
    " AND goals.due_at_ms <= (SELECT {now}))"
)
_DESTINATION: Final = (
    "SELECT not_before_ms, pause_kind IS NOT NULL, slots, {now},"  # noqa: S608 - no value in it
    f" CASE WHEN unknown_since_ms IS NOT NULL THEN unknown_turn_at_ms END, {_RESTORES}, {_LOOKS}"
    " FROM destinations WHERE name = ?"
)
# Settling a goal and claiming the next locks this row before that of the slot, and so does every claim.
_DESTINATION_LOCKED: Final = f"{_DESTINATION} {{lock}}"
_PAUSE: Final = (
    "SELECT pause_kind, pause_reason, not_before_ms, paused_since_ms, pause_step_ms, failures, unknown_since_ms,"  # noqa: S608
    " probe_token, unknown_visitors, clock_skew_ms, last_success_at_ms, slots, unknown_turn_at_ms,"
    f" {{now}}, {_RESTORES}, {_LOOKS} FROM destinations WHERE name = ? {{lock}}"
)
_WRITE_PAUSE: Final = (
    "UPDATE destinations SET pause_kind = ?, pause_reason = ?, not_before_ms = ?, paused_since_ms = ?,"
    " pause_step_ms = ?, failures = ?, unknown_since_ms = ?, probe_token = ?, unknown_visitors = ?,"
    " last_success_at_ms = coalesce(?, last_success_at_ms) WHERE name = ?"
)
_COUNT_SLOT: Final = (
    "UPDATE destinations SET slots = slots + 1, probe_token = coalesce(?, probe_token),"
    " not_before_ms = coalesce(?, not_before_ms) WHERE name = ?"
)
_NEXT_UNKNOWN: Final = "UPDATE destinations SET unknown_turn_at_ms = ? WHERE name = ?"
_RELEASE_PROBE: Final = (
    "UPDATE destinations SET probe_token = NULL, not_before_ms = {now} WHERE name = ? AND probe_token = ?"
)
_WRITE_SKEW: Final = "UPDATE destinations SET clock_skew_ms = ? WHERE name = ?"

# Two processes that want the same token's slot contend for this one row: the second waits for the first, and then sees
# that the slot is taken.
_TAKE_SLOT: Final = (
    "UPDATE pace SET next_at_us = (CASE WHEN next_at_us > ? THEN next_at_us ELSE ? END) + ?"
    " WHERE token_hash = ? AND next_at_us <= ? RETURNING next_at_us"
)
_SLOT: Final = "SELECT next_at_us FROM pace WHERE token_hash = ?"

# ------------------------------------------------------------------------------------------------ whose turn it is

# Both are evaluated for one candidate at a time, in the order of the index by visitor. With NOT EXISTS, or without an
# order, PostgreSQL with poor statistics compares each candidate with every open goal, and a claim takes seconds once
# thousands are held up. With IS NULL it assumes that one candidate in 200 is free, reads all waiting goals, and sorts
# them. Their states, `UNDER_WAY` and `TO_SEND`, are literals: it knows how common each is.
_UNHINDERED: Final = (
    "coalesce((SELECT FALSE FROM goals earlier WHERE earlier.destination = goals.destination"
    " AND earlier.visitor = goals.visitor AND earlier.state IN ('pending', 'leased', 'sending', 'unconfirmed')"
    " AND earlier.ordered_at_ms <= goals.ordered_at_ms AND (earlier.ordered_at_ms, earlier.event_id, earlier.id)"
    " < (goals.ordered_at_ms, goals.event_id, goals.id) AND (earlier.state <> 'pending'"
    " OR (earlier.due_at_ms <= ? AND earlier.expires_at_ms > ?))"
    " ORDER BY earlier.state, earlier.ordered_at_ms LIMIT 1), TRUE)"
)
# Only one goal per visitor and name is in flight or in doubt at a time: if DataFast shows no descriptions, an entry for
# the second would be mistaken for the first one's.
_HAS_NO_NAMESAKE: Final = (
    "coalesce((SELECT FALSE FROM goals namesake WHERE namesake.destination = goals.destination"
    " AND namesake.visitor = goals.visitor AND namesake.state IN ('leased', 'sending', 'unconfirmed')"
    " AND namesake.name = goals.name AND namesake.id <> goals.id"
    " ORDER BY namesake.state, namesake.ordered_at_ms LIMIT 1), TRUE)"
)
GOAL_COLUMNS: Final[tuple[str, ...]] = Goal.__slots__  # the columns that sending needs
_SENDABLE: Final = (  # due, not expired, and no earlier goal of its visitor is in flight
    f"SELECT {', '.join(GOAL_COLUMNS)}, paused_ms, unknown_at_ms FROM goals"  # noqa: S608 - no value in it
    " WHERE destination = ? AND state = 'pending' AND due_at_ms <= ? AND expires_at_ms > ?"
    f" AND {_UNHINDERED} AND {_HAS_NO_NAMESAKE}"
)
_OLDEST_FIRST: Final = " ORDER BY due_at_ms, id LIMIT 1 {lock_free}"
_NEWEST_FIRST: Final = " ORDER BY due_at_ms DESC, id DESC LIMIT 1 {lock_free}"
_OLDEST: Final = _SENDABLE + _OLDEST_FIRST
_NEWEST: Final = _SENDABLE + _NEWEST_FIRST
# While none of the last visitors is known, visitors never asked about go first, then those asked about longest ago.
_OLDEST_FRESH: Final = f"{_SENDABLE} AND unknown_at_ms = 0{_OLDEST_FIRST}"
_NEWEST_FRESH: Final = f"{_SENDABLE} AND unknown_at_ms = 0{_NEWEST_FIRST}"
_LEAST_RECENTLY_ASKED: Final = (
    f"{_SENDABLE} AND unknown_at_ms > 0 AND unknown_at_ms <= ?"
    " ORDER BY unknown_at_ms, due_at_ms, id LIMIT 1 {lock_free}"
)
_LAST_ASKED: Final = "SELECT max(unknown_at_ms) FROM goals WHERE destination = ? AND visitor = ? AND state = 'pending'"
_NOTE_ASKED: Final = "UPDATE goals SET unknown_at_ms = ? WHERE id = ? AND state = 'pending'"

_IN_DOUBT: Final = (
    "SELECT visitor, name, kind FROM goals WHERE destination = ? AND state = 'unconfirmed' AND due_at_ms <= ?"
    " AND (lease_token IS NULL OR lease_until_ms <= ?)"
)
_LOOK_DUE: Final = _IN_DOUBT + _OLDEST_FIRST
# After a restore, thousands may have to be read back: these take turns with goals that can be sent immediately.
_ANSWER_LOST_DUE: Final = f"{_IN_DOUBT} AND coalesce(reason, '') <> 'restored'{_OLDEST_FIRST}"
_RESTORED_DUE: Final = f"{_IN_DOUBT} AND reason = 'restored'{_OLDEST_FIRST}"
_RESTORED_OF_SOME: Final = f"{_IN_DOUBT} AND reason = 'restored' AND visitor IN ({{names}}){_OLDEST_FIRST}"
_NEXT_IN_LINE: Final = (
    "SELECT visitor FROM goals WHERE destination = ? AND state = 'pending' AND due_at_ms <= ?"
    " ORDER BY due_at_ms LIMIT ?"
)

_OPEN_PROOF: Final = "FROM visitor_proofs WHERE destination = ? AND known IS NULL"
_PROOF_DUE: Final = f"SELECT visitor {_OPEN_PROOF} AND again_at_ms <= ? ORDER BY again_at_ms LIMIT 1 {{lock_free}}"
_NEXT_PROOF: Final = f"SELECT min(again_at_ms) {_OPEN_PROOF}"

_DUE: Final = "SELECT id FROM goals WHERE destination = ? AND due_at_ms <= ?"
_ANY_DUE: Final = f"{_DUE} AND state IN ('pending', 'unconfirmed') LIMIT 1"
_ANY_LOOK: Final = f"{_DUE} AND state = 'unconfirmed' LIMIT 1"
_ANY_FRESH: Final = f"{_DUE} AND state = 'pending' AND unknown_at_ms = 0 LIMIT 1"
_ANY_ASKED: Final = f"{_DUE} AND state = 'pending' AND unknown_at_ms > 0 AND unknown_at_ms <= ? LIMIT 1"
_NEXT_DUE: Final = "SELECT min(due_at_ms) FROM goals WHERE destination = ? AND state = ? AND due_at_ms > ?"

# ------------------------------------------------------------------------------------------------- a goal on its way

# The slot's row serialises claims; at this point at the latest, a claim sees what the previous one leased.
_BEGIN: Final = (  # no value in it
    "UPDATE goals SET state = 'sending', lease_token = ?, lease_until_ms = ?,"  # noqa: S608
    " first_try_at_ms = coalesce(first_try_at_ms, ?), changed_at_ms = ?"
    f" WHERE id = ? AND state = 'pending' AND {_HAS_NO_NAMESAKE} RETURNING id"
)
_WRITE_AHEAD: Final = (
    "INSERT INTO attempts (goal_id, kind, started_at_ms, server_started_at_ms, lease_token) SELECT id, 'send', {now},"
    " ? + (SELECT clock_skew_ms FROM destinations WHERE name = goals.destination), ? FROM goals WHERE id = ?"
    " RETURNING id"
)
_SETTLED: Final = (
    "UPDATE goals SET state = ?, reason = ?, message = ?, due_at_ms = {now} + ?, changed_at_ms = {now},"
    " lease_token = NULL, lease_until_ms = NULL"
)
_SETTLE: Final = (
    f"{_SETTLED}, attempts = attempts + ?, unknown_visitor_tries = unknown_visitor_tries + ?,"  # noqa: S608
    " unknown_at_ms = CASE WHEN ? THEN {now} ELSE unknown_at_ms END,"
    " first_try_at_ms = CASE WHEN ? THEN NULL ELSE first_try_at_ms END,"
    " paused_ms = CASE WHEN ? THEN 0 ELSE paused_ms END,"
    " delivered_at_ms = CASE WHEN ? THEN {now} ELSE delivered_at_ms END,"
    " datafast_event_id = coalesce(?, datafast_event_id), looks = CASE WHEN ? THEN 0 ELSE looks END,"
    " absent = CASE WHEN ? THEN 0 ELSE absent END"
    " WHERE id = ? AND state = 'sending' AND lease_token = ?"
    " RETURNING EXISTS (SELECT 1 FROM unknown_visitors"
    " WHERE unknown_visitors.destination = goals.destination AND unknown_visitors.visitor = goals.visitor)"
)
_END_ATTEMPT: Final = (  # the answer, and when the attempt began by DataFast's clock, if the answer shows it
    "UPDATE attempts SET ended_at_ms = {now}, outcome = ?, status = ?, message = ?,"
    " server_started_at_ms = coalesce(server_started_at_ms, ? - ({now} - started_at_ms)) WHERE id = ?"
)
# The goal was due when it was leased, whatever the clock says now.
_TO_PENDING: Final = (
    "UPDATE goals SET state = 'pending', lease_token = NULL, lease_until_ms = NULL, changed_at_ms = {now},"
    " due_at_ms = CASE WHEN due_at_ms > {now} THEN {now} ELSE due_at_ms END"
)
_RELEASE: Final = (
    f"{_TO_PENDING}, first_try_at_ms = CASE WHEN ? THEN NULL ELSE first_try_at_ms END"
    " WHERE id = ? AND lease_token = ? AND state = 'sending' RETURNING id"
)
_RELEASE_VANISHED: Final = f"{_TO_PENDING} WHERE state = 'leased' AND lease_until_ms <= {{now}} RETURNING id"
_DELETE_ATTEMPT: Final = "DELETE FROM attempts WHERE id = ?"
_NOT_CONFIRMED: Final = (
    "UPDATE attempts SET ended_at_ms = {now}, outcome = 'not_sent',"
    " message = 'the database did not confirm that this attempt was recorded, so nothing was sent' WHERE id = ?"
)

# --------------------------------------------------------------------------------------------- goals in doubt, visitors

_OF_GROUP: Final = "destination = ? AND visitor = ? AND name = ? AND kind = ?"
_LEASE_GROUP: Final = (  # no value in it
    f"UPDATE goals SET lease_token = ?, lease_until_ms = ? WHERE {_OF_GROUP} AND state = 'unconfirmed'"  # noqa: S608
    f" AND (lease_token IS NULL OR lease_until_ms <= ?) RETURNING {', '.join(GOAL_COLUMNS)}, looks, absent, reason"
)
_RELEASE_GROUP: Final = (
    "UPDATE goals SET lease_token = NULL, lease_until_ms = NULL WHERE state = 'unconfirmed' AND lease_token = ?"
)
_DELIVERED: Final = (  # no value in it
    f"SELECT id, description, datafast_event_id FROM goals WHERE {_OF_GROUP} AND state = 'delivered'"  # noqa: S608
)
_ARRIVALS: Final = (
    "SELECT goal_id, outcome, started_at_ms, ended_at_ms, server_started_at_ms FROM attempts WHERE kind = 'send'"
    " AND (outcome IS NULL OR outcome IN ('unconfirmed', 'delivered')) AND goal_id IN ({names}) ORDER BY id"
)
_SETTLE_READBACK: Final = (
    f"{_SETTLED}, looks = looks + ?, absent = absent + ?, datafast_event_id = ?,"
    " delivered_at_ms = CASE WHEN ? THEN {now} ELSE delivered_at_ms END"
    " WHERE id = ? AND state = 'unconfirmed' AND lease_token = ? RETURNING id"
)
# One row for each goal in the read-back, although it was one request. Nothing depends on these rows, so they are
# written when the answer arrives.
_RECORD_READBACK: Final = (
    "INSERT INTO attempts (goal_id, kind, started_at_ms, ended_at_ms, outcome, status, message, lease_token)"
    " VALUES (?, 'readback', ?, {now}, ?, ?, ?, ?)"
)
# From now on the window is fixed by DataFast's own clock, whatever happens to ours.
_NOTE_SERVER_TIME: Final = (
    "UPDATE attempts SET server_started_at_ms = ? WHERE goal_id = ? AND kind = 'send' AND outcome = 'unconfirmed'"
)

_LEASE_PROOF: Final = (
    "UPDATE visitor_proofs SET lease_token = ?, again_at_ms = ?"
    " WHERE destination = ? AND visitor = ? RETURNING failures"
)
_SETTLE_PROOF: Final = (
    "UPDATE visitor_proofs SET known = ?, again_at_ms = {now} + ?, message = ?, failures = failures + ?,"
    " lease_token = NULL WHERE destination = ? AND visitor = ? AND lease_token = ? AND known IS NULL RETURNING visitor"
)
_RELEASE_PROOF: Final = (
    "UPDATE visitor_proofs SET again_at_ms = {now}, lease_token = NULL"
    " WHERE destination = ? AND visitor = ? AND lease_token = ? AND known IS NULL"
)


class DueGoal(NamedTuple):
    """A goal to send. unknown_at_ms: when DataFast last said that it does not know the visitor; 0: never."""

    goal: Goal
    paused_ms: int
    unknown_at_ms: int

    @property
    def visitor(self) -> str:
        """The visitor of the goal."""
        return self.goal.visitor


class Group(NamedTuple):
    """Goals in doubt of one visitor, name and kind, which are read back together."""

    visitor: str
    name: str
    kind: str


def goal_from(values: Sequence[Any]) -> Goal:
    """A row of `GOAL_COLUMNS` as what sending needs. A payment may have no known visitor."""
    goal = dict(zip(GOAL_COLUMNS, values, strict=True))
    goal |= {"visitor": goal["visitor"] or "", "metadata": json.loads(goal["metadata"])}
    return Goal(**goal | {"time_is_stated": bool(goal["time_is_stated"])})


def destination(conn: Connection, name: str, *, lock: bool) -> tuple[Any, ...]:
    """The values of `Readiness` for a registered destination."""
    [row] = driver_of(conn).execute(_DESTINATION_LOCKED if lock else _DESTINATION, (name,))
    not_before_ms, probing, *others, looks = row
    return not_before_ms, bool(probing), *others, bool(looks)


def pause(conn: Connection, name: str) -> tuple[Any, ...] | None:
    """The values of `pauses.Pause` and of the other columns of a destination. Locks the row."""
    return next(iter(driver_of(conn).execute(_PAUSE, (name,))), None)


def write_pause(conn: Connection, name: str, values: Sequence[Any], success_at_ms: int | None = None) -> None:
    """Write the values of `pauses.Pause`, and when a goal was delivered, if one was."""
    driver_of(conn).execute(_WRITE_PAUSE, (*values, success_at_ms, name))


def set_unknown_turn(conn: Connection, name: str, at_ms: int) -> None:
    """Record that an unknown visitor is asked about now, and that the next one may be only from this time on."""
    driver_of(conn).execute(_NEXT_UNKNOWN, (at_ms, name))


def release_probe(conn: Connection, name: str, token: str) -> None:
    """Record that the probe was released unsent, so that the next one may go."""
    driver_of(conn).execute(_RELEASE_PROBE, (name, token))


def write_skew(conn: Connection, name: str, skew_ms: int) -> None:
    """Remember DataFast's clock minus ours."""
    driver_of(conn).execute(_WRITE_SKEW, (skew_ms, name))


def take_slot(
    conn: Connection,
    token_hash: str,
    now_us: int,
    interval_us: int,
    tolerance_us: int,
    counted: tuple[str | None, int | None, str] | None = None,
) -> bool:
    """Take the token's next slot if it is due now or within the tolerance.

    counted: count it there: a probe's token, the end of its lease, until which nothing is claimed, and the destination.
    """
    values = (now_us, now_us, interval_us, token_hash, now_us + tolerance_us)
    driver = driver_of(conn)
    if counted is None:
        return bool(driver.execute(_TAKE_SLOT, values))
    return bool(driver.execute_then(_TAKE_SLOT, values, _COUNT_SLOT, counted))


def next_slot_us(conn: Connection, token_hash: str) -> int | None:
    """The time of the token's next slot; None if no worker has ever used this token."""
    return next((int(at_us) for (at_us,) in driver_of(conn).execute(_SLOT, (token_hash,))), None)


def due_goal(conn: Connection, name: str, now: int, *, newest: bool, fresh: bool) -> DueGoal | None:
    """The next goal to send. fresh: its visitor has never been reported as unknown."""
    statements = (_OLDEST, _NEWEST), (_OLDEST_FRESH, _NEWEST_FRESH)
    return _due_goal(conn, statements[fresh][newest], (name, now, now, now, now))


def least_recently_asked(conn: Connection, name: str, now: int, asked_before_ms: int) -> DueGoal | None:
    """The goal of the unknown visitor asked about longest ago, if that was before the given time."""
    return _due_goal(conn, _LEAST_RECENTLY_ASKED, (name, now, now, now, now, asked_before_ms))


def _due_goal(conn: Connection, statement: str, values: tuple[Any, ...]) -> DueGoal | None:
    for *goal, paused_ms, unknown_at_ms in driver_of(conn).execute(statement, values):
        return DueGoal(goal_from(goal), paused_ms, unknown_at_ms)
    return None


def last_asked_ms(conn: Connection, goal: Goal) -> int:
    """When DataFast last said, for any of the visitor's pending goals, that it does not know the visitor."""
    return int(driver_of(conn).execute(_LAST_ASKED, (goal.destination, goal.visitor))[0][0] or 0)


def note_asked(conn: Connection, goal: Goal, at_ms: int) -> None:
    """Record when DataFast last said that it does not know this goal's visitor."""
    driver_of(conn).execute(_NOTE_ASKED, (at_ms, goal.id))


def readback_due(conn: Connection, name: str, now: int, *, restored: bool | None = None) -> Group | None:
    """The next group to read back. restored: whether because of a restore; None: either."""
    statement = {None: _LOOK_DUE, False: _ANSWER_LOST_DUE, True: _RESTORED_DUE}[restored]
    return next((Group(*row) for row in driver_of(conn).execute(statement, (name, now, now))), None)


def blocking_readback(conn: Connection, name: str, now: int, limit: int) -> Group | None:
    """A group in doubt because of a restore that holds up one of the first goals to be sent."""
    driver = driver_of(conn)
    visitors = [visitor for (visitor,) in driver.execute(_NEXT_IN_LINE, (name, now, limit))]
    return next((Group(*row) for row in driver.execute_in(_RESTORED_OF_SOME, visitors, (name, now, now))), None)


def proof_due(conn: Connection, name: str, now: int) -> str | None:
    """The next visitor to ask about, locked until the transaction ends."""
    return next((str(visitor) for (visitor,) in driver_of(conn).execute(_PROOF_DUE, (name, now))), None)


def any_due(conn: Connection, name: str, now: int) -> bool:
    """Whether there is a goal to be sent or read back."""
    return bool(driver_of(conn).execute(_ANY_DUE, (name, now)))


def any_due_while_unknown(conn: Connection, name: str, now: int, asked_before_ms: int | None) -> bool:
    """The same while no visitor is known. asked_before_ms: None if no unknown visitor may be asked about now."""
    driver = driver_of(conn)
    if driver.execute(_ANY_FRESH, (name, now)) or driver.execute(_ANY_LOOK, (name, now)):
        return True
    return asked_before_ms is not None and bool(driver.execute(_ANY_ASKED, (name, now, asked_before_ms)))


def next_due_ms(conn: Connection, name: str, now: int) -> int | None:
    """The next time after now at which a goal is to be sent or read back."""
    driver = driver_of(conn)
    times = [driver.execute(_NEXT_DUE, (name, state, now))[0][0] for state in ("pending", "unconfirmed")]
    return min((int(at_ms) for at_ms in times if at_ms is not None), default=None)


def next_proof_ms(conn: Connection, name: str) -> int | None:
    """When the next visitor may be asked about; None if there is none."""
    found = driver_of(conn).execute(_NEXT_PROOF, (name,))[0][0]
    return None if found is None else int(found)


def begin(conn: Connection, goal: Goal, token: str, now: int, until_ms: int, at_ms: int | None) -> int | None:
    """Lease a goal, write `sending` and the attempt, and return the attempt's id.

    None: another process was first with a goal of this visitor. at_ms: our time, if it has been compared with
    DataFast's.
    """
    attempt = at_ms, token, goal.id
    rows = driver_of(conn).execute_then(_BEGIN, (token, until_ms, now, now, goal.id), _WRITE_AHEAD, attempt)
    return next((int(attempt_id) for (attempt_id,) in rows), None)


def settle(conn: Connection, claim: Claim, outcome: Outcome, settlement: Settlement) -> bool | None:
    """Write the outcome of a sent goal and its attempt; None: the claim no longer holds its lease.

    Returns whether the destination is on record as not knowing the visitor.
    """
    delivered, in_doubt = settlement.state is GoalState.DELIVERED, settlement.state is GoalState.UNCONFIRMED
    unknown = settlement.health is Health.UNKNOWN_VISITOR
    not_counted = unknown and not settlement.unknown_visitor  # if so, the retry schedule has not begun
    values = (
        *_settled(settlement),
        int(settlement.counts and not claim.probe),
        int(settlement.unknown_visitor),
        unknown,
        not_counted,
        not_counted,
        delivered,
        outcome.event_id if delivered else None,
        in_doubt,
        in_doubt,
        claim.goal.id,
        claim.token,
    )
    answer = (outcome.kind.value, outcome.status, outcome.message or None, outcome.server_now_ms, claim.attempt_id)
    rows = driver_of(conn).execute_then(_SETTLE, values, _END_ATTEMPT, answer)
    return next((bool(doubted) for (doubted,) in rows), None)


def _settled(settlement: Settlement) -> tuple[Any, ...]:
    return settlement.state.value, settlement.reason, settlement.message, settlement.due_in_ms


def release_goal(conn: Connection, claim: Claim, *, confirmed: bool = True) -> bool:
    """Release a goal that was not sent. confirmed: whether the database had confirmed that the attempt was recorded."""
    driver = driver_of(conn)
    if not driver.execute(_RELEASE, (claim.goal.first_try_at_ms is None, claim.goal.id, claim.token)):
        return False
    driver.execute(_DELETE_ATTEMPT if confirmed else _NOT_CONFIRMED, (claim.attempt_id,))
    return True


def release_vanished(conn: Connection) -> list[int]:
    """Release goals that a worker of an earlier release leased and did not send; return their ids."""
    return [goal_id for (goal_id,) in driver_of(conn).execute(_RELEASE_VANISHED)]


def lease_group(
    conn: Connection, name: str, group: Group, token: str, now: int, until_ms: int
) -> list[tuple[Goal, int, int, str | None]]:
    """Lease goals in doubt; return (goal, looks, absent, reason) for each, in order."""
    rows = driver_of(conn).execute(_LEASE_GROUP, (token, until_ms, name, *group, now))
    goals = [(goal_from(goal), looks, absent, reason) for *goal, looks, absent, reason in rows]
    return sorted(goals, key=lambda row: row[0].id)


def release_group(conn: Connection, token: str) -> None:
    """Release goals that were leased for a read-back."""
    driver_of(conn).execute(_RELEASE_GROUP, (token,))


def delivered(conn: Connection, name: str, group: Group) -> list[tuple[int, str, str | None]]:
    """(id, description, DataFast's id) of the delivered goals of a group."""
    return driver_of(conn).execute(_DELIVERED, (name, *group))


def arrivals(conn: Connection, goal_ids: Sequence[int]) -> list[tuple[int, str | None, int, int | None, int | None]]:
    """Attempts that may have arrived: (goal id, outcome, began, ended, began by DataFast's clock)."""
    return driver_of(conn).execute_in(_ARRIVALS, goal_ids)


def settle_readback(conn: Connection, readback: ReadbackClaim, decision: ReadbackDecision) -> bool:
    """Write the result of a read-back for a goal, if the claim still holds its lease."""
    driver, goal_id, settlement = driver_of(conn), decision.goal.goal.id, decision.settlement
    counted = int(decision.looked), int(decision.absent), decision.remote_id, settlement.state is GoalState.DELIVERED
    if not driver.execute(_SETTLE_READBACK, (*_settled(settlement), *counted, goal_id, readback.token)):
        return False
    answer = (decision.failure.status, decision.failure.message) if decision.failure else (None, None)
    driver.execute(_RECORD_READBACK, (goal_id, readback.claimed_at_ms, decision.outcome.value, *answer, readback.token))
    if decision.at_ms is not None:
        driver.execute(_NOTE_SERVER_TIME, (decision.at_ms, goal_id))
    return True


def lease_proof(conn: Connection, claim: ProofClaim, until_ms: int) -> int:
    """Lease a visitor to ask about; return how many requests in a row had no answer."""
    return int(driver_of(conn).execute(_LEASE_PROOF, (claim.token, until_ms, claim.destination, claim.visitor))[0][0])


def settle_proof(
    conn: Connection, claim: ProofClaim, known: bool | None, again_in_ms: int, message: str | None
) -> bool:
    """Write whether a visitor is known (None: inconclusive), if the claim still holds its lease."""
    values = (known, again_in_ms, message, int(known is None), claim.destination, claim.visitor, claim.token)
    return bool(driver_of(conn).execute(_SETTLE_PROOF, values))


def release_proof(conn: Connection, claim: ProofClaim) -> None:
    """Release a visitor who was leased to be asked about."""
    driver_of(conn).execute(_RELEASE_PROOF, (claim.destination, claim.visitor, claim.token))
