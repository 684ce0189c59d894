"""The statements of delivery: claim with pace and pause, begin, settle, look, prove, sweep.

Every transition is one guarded statement (`WHERE state = … AND lease_token = …`); no row means that somebody else won
and the caller stops. What is `leased` was certainly not sent. The attempt row and `sending` are committed before the
request goes out, so only a `sending` row whose worker vanished is in doubt, and the sweep makes it `unconfirmed`.
Nothing here sends, waits or decides what an answer means: it is told by a `Settlement`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, func, insert, literal_column, or_, select, update

from bridge.model import Claim, Goal, GoalState, Health, LookClaim, NotYet, OwnedGoal, ProofClaim, UnconfirmedGoal
from bridge.store.clock import now_ms, read_ms
from bridge.store.delivery import pauses, restoring
from bridge.store.goals import proofs
from bridge.store.schema import attempts, destinations, goals, pace
from bridge.store.upkeep import jumps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Row, Select
    from sqlalchemy.sql.dml import ReturningUpdate

    from bridge.model import LookRuling, Outcome, Settlement

Window = tuple[int, int]  # milliseconds, both ends included

EVERY_FIFTH: Final = 5
EVERY_THIRD: Final = 3  # slot takes a proof, if one is due, whatever else is
UNKNOWN_SHARE: Final = 10  # while no visitor is known: one request in so many is for one who was not
ASKED_AGAIN_MS: Final = 3_600_000  # and each of them is asked about at most so often
IN_LINE: Final = 50  # so many of those that wait longest are asked whether a look holds them up
BURST: Final = 2

PENDING: Final[ColumnElement[str]] = literal_column("'pending'")
_BUSY: Final = ("leased", "sending", "unconfirmed")


# -------------------------------------------------------------------------------------------------------- claim

_earlier = goals.alias("earlier")

# Both are asked of one candidate at a time, by its visitor: as NOT EXISTS, PostgreSQL without statistics joins the
# candidates to all that is open, and a claim takes seconds as soon as thousands are held up.
_unhindered: Final = (
    select(_earlier.c.id)
    .where(
        _earlier.c.destination == goals.c.destination,
        _earlier.c.visitor == goals.c.visitor,
        _earlier.c.state.in_(("pending", *_BUSY)),
        _earlier.c.ordered_at_ms <= goals.c.ordered_at_ms,
        or_(
            _earlier.c.ordered_at_ms < goals.c.ordered_at_ms,
            _earlier.c.event_id < goals.c.event_id,
            and_(_earlier.c.event_id == goals.c.event_id, _earlier.c.id < goals.c.id),
        ),
        or_(
            _earlier.c.state != "pending",
            and_(_earlier.c.due_at_ms <= bindparam("now"), _earlier.c.expires_at_ms > bindparam("now")),
        ),
    )
    .limit(1)
    .scalar_subquery()
    .is_(None)
)

# Of one visitor and name, one goal at a time is under way or in doubt, whichever is the earlier: where DataFast tells
# no descriptions, an entry of the second would be taken for the first one's.
_namesake: Final = goals.alias("namesake")

_has_no_namesake: Final = (
    select(_namesake.c.id)
    .where(
        _namesake.c.destination == goals.c.destination,
        _namesake.c.visitor == goals.c.visitor,
        _namesake.c.state.in_(_BUSY),
        _namesake.c.name == goals.c.name,
        _namesake.c.id != goals.c.id,
    )
    .limit(1)
    .scalar_subquery()
    .is_(None)
)


def _sendable(*, newest: bool) -> Select[Any]:
    """The goal whose turn it is: due, not expired, and no earlier one of its visitor still on its way."""
    order = (goals.c.due_at_ms.desc(), goals.c.id.desc()) if newest else (goals.c.due_at_ms, goals.c.id)
    return (
        select(goals)
        .where(
            goals.c.destination == bindparam("destination"),
            goals.c.state == PENDING,
            goals.c.due_at_ms <= bindparam("now"),
            goals.c.expires_at_ms > bindparam("now"),
            _unhindered,
            _has_no_namesake,
        )
        .order_by(*order)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


_OLDEST: Final = _sendable(newest=False)
_NEWEST: Final = _sendable(newest=True)

# While none of the last visitors was known: who was never asked about goes first, then who was asked longest ago.
_NEVER_ASKED: Final[ColumnElement[int]] = literal_column("0", goals.c.unknown_at_ms.type)
_OLDEST_FRESH: Final = _OLDEST.where(goals.c.unknown_at_ms == _NEVER_ASKED)
_NEWEST_FRESH: Final = _NEWEST.where(goals.c.unknown_at_ms == _NEVER_ASKED)
_ASKED: Final = (
    goals.c.unknown_at_ms > _NEVER_ASKED,
    goals.c.unknown_at_ms <= bindparam("now") - ASKED_AGAIN_MS,
)
_LONGEST_AGO: Final = (
    _OLDEST.where(*_ASKED).order_by(None).order_by(goals.c.unknown_at_ms, goals.c.due_at_ms, goals.c.id)
)
_LAST_ASKED: Final = select(func.max(goals.c.unknown_at_ms)).where(
    goals.c.destination == bindparam("destination"),
    goals.c.visitor == bindparam("visitor"),
    goals.c.state == PENDING,
)
_AS_ASKED: Final = (
    update(goals)
    .where(goals.c.id == bindparam("goal_id"), goals.c.state == PENDING)
    .values(unknown_at_ms=bindparam("asked_at"))
)

_LOOK_DUE: Final = (
    select(goals.c.visitor, goals.c.name)
    .where(
        goals.c.destination == bindparam("destination"),
        goals.c.state == "unconfirmed",
        goals.c.due_at_ms <= bindparam("now"),
        or_(goals.c.lease_token.is_(None), goals.c.lease_until_ms <= bindparam("now")),
    )
    .order_by(goals.c.due_at_ms, goals.c.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)

# After a restore thousands may be looked up: these take turns with what can be sent at once.
_RESTORED: Final = goals.c.reason == restoring.REASON
_ANSWER_LOST_DUE: Final = _LOOK_DUE.where(goals.c.reason.is_distinct_from(restoring.REASON))
_RESTORED_DUE: Final = _LOOK_DUE.where(_RESTORED)
_RESTORED_OF_SOME: Final = _RESTORED_DUE.where(goals.c.visitor.in_(bindparam("visitors", expanding=True)))
_NEXT_IN_LINE: Final = (
    select(goals.c.visitor)
    .where(
        goals.c.destination == bindparam("destination"),
        goals.c.state == PENDING,
        goals.c.due_at_ms <= bindparam("now"),
    )
    .order_by(goals.c.due_at_ms)
    .limit(IN_LINE)
)

# Two processes that want the same token's slot meet in this one row: the second waits for the first and then sees
# the slot taken.
_TAKE_SLOT: Final = (
    update(pace)
    .where(
        pace.c.token_hash == bindparam("of_token"),
        pace.c.next_at_us <= bindparam("now_us") + bindparam("tolerance_us"),
    )
    .values(
        next_at_us=case((pace.c.next_at_us > bindparam("now_us"), pace.c.next_at_us), else_=bindparam("now_us"))
        + bindparam("interval_us")
    )
    .returning(pace.c.next_at_us)
)

# The slot's row lets one claim after the other through; what the one before leased is seen here, if not yet above.
_LEASE: Final = (
    update(goals)
    .where(goals.c.id == bindparam("goal_id"), goals.c.state == PENDING, _has_no_namesake)
    .values(
        state="leased",
        lease_token=bindparam("token"),
        lease_until_ms=bindparam("now") + bindparam("lease_ms"),
        changed_at_ms=bindparam("now"),
    )
    .returning(goals.c.id)
)


def interval_us(rate_per_minute: int) -> int:
    """The pause between two requests of a token, in microseconds, rounded up."""
    return -(-60_000_000 // rate_per_minute)


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
    """Claim one goal to send, one group to look up, or one visitor to prove, with its slot of the token's pace.

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
    chosen = _choose(conn, wish, door, restored=bool(restores))
    if isinstance(chosen, NotYet):
        return chosen
    look, proof, goal = chosen
    visitor = look.visitor if look is not None else goal.visitor if goal is not None else None
    if restores and visitor is not None and restoring.doubt(conn, restores, destination, visitor, readback_ms):
        return NotYet(now, now)
    slot_at_ms = _take_slot(conn, token_hash, now, interval_us(rate))
    if slot_at_ms > now:
        return NotYet(slot_at_ms, now)
    pauses.count_slot(conn, destination, probe=(token, now + lease_ms) if door.probing else None)
    if goal is not None:
        if goal.unknown_at_ms and door.unknown_turn_ms is not None:
            pauses.next_unknown(conn, destination, now + UNKNOWN_SHARE * interval_us(rate) // 1000)
        return _lease(conn, goal, token, now, lease_ms, probe=door.probing)
    if proof is not None:
        claimed = ProofClaim(destination, proof, token, probe=door.probing)
        return replace(claimed, failures=proofs.lease(conn, claimed, now + lease_ms))
    assert look is not None
    return _lease_group(conn, destination, look, token, now, lease_ms, probe=door.probing)


def _choose(
    conn: Connection, wish: dict[str, Any], door: pauses.Door, *, restored: bool
) -> tuple[Row[Any, Any] | None, str | None, Row[Any] | None] | NotYet:
    """Whose turn it is: one to look up, one to prove, or a goal to send."""
    destination, now = wish["destination"], door.now_ms
    look = _look_first(conn, wish, door, restored=restored) if not door.probing else None
    proof = proofs.due(conn, destination, now) if look is None and _proofs_turn(door) else None
    goal = None if look or proof else _next_goal(conn, wish, door)
    if isinstance(goal, NotYet):
        return goal
    if look is None and goal is None and proof is None and (door.probing or restored):
        look = conn.execute(_LOOK_DUE, wish).first()
    if look is None and goal is None and proof is None:
        proof = proofs.due(conn, destination, now)
    if look is None and goal is None and proof is None:
        return NotYet(_next_due(conn, destination, door), now)
    return look, proof, goal


def _look_first(conn: Connection, wish: dict[str, Any], door: pauses.Door, *, restored: bool) -> Row[Any, Any] | None:
    """A look that comes before any send. Of restored goals first those that hold up a goal of their visitor."""
    if not restored:
        return conn.execute(_LOOK_DUE, wish).first()
    look = conn.execute(_ANSWER_LOST_DUE, wish).first()
    if look is not None or door.slots % 2 == 0:
        return look
    in_line = conn.execute(_NEXT_IN_LINE, wish).scalars().all()
    if in_line:
        look = conn.execute(_RESTORED_OF_SOME, {**wish, "visitors": in_line}).first()
    return look or conn.execute(_RESTORED_DUE, wish).first()


def _newest_turn(slots: int) -> bool:
    return slots % EVERY_FIFTH == EVERY_FIFTH - 1


def _proofs_turn(door: pauses.Door) -> bool:
    return not door.probing and door.slots % EVERY_THIRD == EVERY_THIRD - 1


def _next_goal(conn: Connection, wish: dict[str, Any], door: pauses.Door) -> Row[Any] | NotYet | None:
    """The goal whose turn it is. NotYet: look again at once."""
    newest = _newest_turn(door.slots)
    if door.unknown_turn_ms is None:
        return conn.execute(_NEWEST if newest else _OLDEST, wish).first()
    goal = conn.execute(_NEWEST_FRESH if newest else _OLDEST_FRESH, wish).first()
    if goal is None and door.unknown_turn_ms <= door.now_ms:
        goal = conn.execute(_LONGEST_AGO, wish).first()
    if goal is None:
        return None
    asked_at = int(conn.execute(_LAST_ASKED, {**wish, "visitor": goal.visitor}).scalar() or 0)
    if asked_at == goal.unknown_at_ms:
        return goal
    conn.execute(_AS_ASKED, {"goal_id": goal.id, "asked_at": asked_at})  # another goal's answer was about this visitor
    return NotYet(door.now_ms, door.now_ms)


def _take_slot(conn: Connection, token_hash: str, now: int, interval: int) -> int:
    """Take the token's next slot if it is now; else write nothing and say when it will be."""
    tolerance = interval * (BURST - 1)
    slot = {"of_token": token_hash, "now_us": now * 1000, "interval_us": interval, "tolerance_us": tolerance}
    if conn.execute(_TAKE_SLOT, slot).first() is not None:
        return now
    next_at = conn.execute(select(pace.c.next_at_us).where(pace.c.token_hash == token_hash)).scalar_one()
    return max(-((tolerance - int(next_at)) // 1000), now + 1)


def reserve(conn: Connection, token_hash: str, rate: int) -> int:
    """Take a slot of a token's pace for a request that a person asked for (`doctor`); 0: taken, else ms to wait."""
    if conn.execute(select(pace.c.token_hash).where(pace.c.token_hash == token_hash)).first() is None:
        return 0  # no worker has ever used this token
    now = read_ms(conn)
    return _take_slot(conn, token_hash, now, interval_us(rate)) - now


def _lease(conn: Connection, row: Row[Any], token: str, now: int, lease_ms: int, *, probe: bool) -> Claim | NotYet:
    leased = conn.execute(_LEASE, {"goal_id": row.id, "token": token, "now": now, "lease_ms": lease_ms}).first()
    if leased is None:  # somebody was quicker with another goal of this visitor
        return NotYet(now, now)
    return Claim(goal_of(row), token, now, row.paused_ms, probe)


_NEXT_DUE: Final = (
    select(func.min(goals.c.due_at_ms))
    .where(goals.c.destination == bindparam("destination"), goals.c.state == bindparam("state"))
    .where(goals.c.due_at_ms > bindparam("now"))
)


def _next_due(conn: Connection, destination: str, door: pauses.Door) -> int | None:
    """When the next goal of the destination becomes due; None if none waits for a time."""
    now = door.now_ms
    times = [
        conn.execute(_NEXT_DUE, {"destination": destination, "state": state, "now": now}).scalar()
        for state in ("pending", "unconfirmed")
    ]
    times += [proofs.next_at(conn, destination), door.unknown_turn_ms]
    return min((int(time) for time in times if time is not None and time > now), default=None)


def waits(conn: Connection, destination: str) -> NotYet | None:
    """Cheaply, without a write: is there anything to claim? None: try to; else when to look again."""
    door = pauses.door(conn, destination)
    now = door.now_ms
    if door.not_before_ms > now:
        return NotYet(door.not_before_ms, now)
    if _any_due(conn, destination, door) or (proofs.next_at(conn, destination) or now + 1) <= now:
        return None
    return NotYet(_next_due(conn, destination, door), now)


def _any_due(conn: Connection, destination: str, door: pauses.Door) -> bool:
    """Is there a goal to be sent or looked up?"""
    wish = {"destination": destination, "now": door.now_ms}
    if door.unknown_turn_ms is None:
        return conn.execute(_ANY_DUE, wish).first() is not None
    asked = (_ANY_ASKED,) if door.unknown_turn_ms <= door.now_ms else ()
    return any(conn.execute(statement, wish).first() is not None for statement in (_ANY_FRESH, _ANY_LOOK, *asked))


def _any(*states: str) -> Select[Any]:
    return (
        select(goals.c.id)
        .where(
            goals.c.destination == bindparam("destination"),
            goals.c.state.in_(states) if len(states) > 1 else goals.c.state == literal_column(f"'{states[0]}'"),
            goals.c.due_at_ms <= bindparam("now"),
        )
        .limit(1)
    )


_ANY_DUE: Final = _any("pending", "unconfirmed")
_ANY_LOOK: Final = _any("unconfirmed")
_ANY_FRESH: Final = _any("pending").where(goals.c.unknown_at_ms == _NEVER_ASKED)
_ANY_ASKED: Final = _any("pending").where(*_ASKED)


def goal_of(row: Row[Any]) -> Goal:
    """A row of `goals` as the value that sending needs."""
    return Goal(
        id=row.id,
        destination=row.destination,
        visitor=row.visitor,
        name=row.name,
        description=row.description,
        metadata=json.loads(row.metadata),
        once_key=row.once_key,
        event_id=row.event_id,
        happened_at_ms=row.happened_at_ms,
        time_is_stated=row.time_is_stated,
        created_at_ms=row.created_at_ms,
        expires_at_ms=row.expires_at_ms,
        attempts=row.attempts,
        unknown_visitor_tries=row.unknown_visitor_tries,
        first_try_at_ms=row.first_try_at_ms,
    )


# ------------------------------------------------------------------------------------------------ begin, settle


@dataclass(frozen=True, slots=True)
class Settled:
    """written: False if the lease was over and nothing was written. news: what changed, as `pauses.learn` says."""

    written: bool
    news: str | None = None


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


_SETTLE_VALUES: Final[dict[str, Any]] = {
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
    values = dict(_SETTLE_VALUES)
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
_FREE: Final[dict[str, Any]] = {
    "state": "pending",
    "lease_token": None,
    "lease_until_ms": None,
    "due_at_ms": case((goals.c.due_at_ms > now_ms(), now_ms()), else_=goals.c.due_at_ms),
    "changed_at_ms": now_ms(),
}


def release(conn: Connection, claimed: Claim) -> bool:
    """Give a lease back (SIGTERM): nothing was sent, nobody waits for it to run out."""
    statement = (
        update(goals)
        .where(goals.c.id == claimed.goal.id, goals.c.state == "leased", goals.c.lease_token == claimed.token)
        .values(**_FREE)
        .returning(goals.c.id)
    )
    given_back = conn.execute(statement).first() is not None
    if given_back:
        pauses.release_probe(conn, claimed.goal.destination, claimed.token)
    return given_back


_TAKE_BACK: Final = (
    update(goals)
    .where(
        goals.c.id == bindparam("goal_id"),
        goals.c.state.in_(("leased", "sending")),
        goals.c.lease_token == bindparam("token"),
    )
    .values(**_FREE)
    .returning(goals.c.id)
)
_UNSENT_ATTEMPT: Final = (
    update(attempts)
    .where(
        attempts.c.goal_id == bindparam("of_goal"),
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


# ------------------------------------------------------------------------------------------------------ look up


_GROUP: Final = (
    update(goals)
    .where(
        goals.c.destination == bindparam("of_destination"),
        goals.c.visitor == bindparam("of_visitor"),
        goals.c.state == "unconfirmed",
        goals.c.name == bindparam("of_name"),
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
)


def _lease_group(
    conn: Connection, destination: str, look: Row[Any, Any], token: str, now: int, lease_ms: int, *, probe: bool
) -> LookClaim | NotYet:
    """Lease all unconfirmed goals of one visitor and name: they can only be told apart together."""
    whose = {"of_destination": destination, "of_visitor": look.visitor, "of_name": look.name}
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
    return LookClaim(destination, look.visitor, look.name, token, group, owned, probe, now + skew)


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
        **_SETTLE_VALUES,
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
    .where(attempts.c.goal_id == bindparam("of_goal"), attempts.c.outcome == "unconfirmed")
    .values(server_started_at_ms=bindparam("at"))
)


def settle_look(
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
        mine = mine or row is not None
        if row is not None and ruling.at_ms is not None:
            conn.execute(_DATE, {"of_goal": row.id, "at": ruling.at_ms})
        if row is not None and ruling.goal.restored and ruling.settlement.state in _TOLD:
            restoring.told(conn, ruling.goal.goal.id, sent=ruling.settlement.state is GoalState.DELIVERED)
    if not mine:
        return Settled(written=False)
    news = pauses.learn(conn, look.destination, health, visitor=look.visitor, token=look.token)
    pauses.learn_clock(conn, look.destination, server_now_ms, even)
    return Settled(written=True, news=news)


def release_look(conn: Connection, look: LookClaim) -> None:
    """Give a group back (SIGTERM)."""
    conn.execute(
        update(goals)
        .where(goals.c.state == "unconfirmed", goals.c.lease_token == look.token)
        .values(lease_token=None, lease_until_ms=None)
    )
    pauses.release_probe(conn, look.destination, look.token)


# -------------------------------------------------------------------------------------------------------- prove


def release_proof(conn: Connection, claim: ProofClaim) -> None:
    """Give a visitor who was to be proved back (SIGTERM)."""
    proofs.release(conn, claim)
    pauses.release_probe(conn, claim.destination, claim.token)


# -------------------------------------------------------------------------------------------------------- sweep

_UNSENT: Final = (
    update(goals)
    .where(goals.c.state == "leased", goals.c.lease_until_ms <= now_ms())
    .values(**_FREE)
    .returning(goals.c.id)
)

_IN_DOUBT: Final = (
    update(goals)
    .where(goals.c.state == "sending", goals.c.lease_until_ms <= now_ms())
    .values(
        state="unconfirmed",
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

# Its end is not known; nothing else of its visitor and name was sent until now.
_VANISHED: Final = (
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
        message="it grew older than max_age before it could be sent; DataFast would have dated it today",
        changed_at_ms=now_ms(),
    )
    .returning(goals.c.id)
)


def sweep(
    conn: Connection, *, settling_ms: int, judged: Callable[[Connection], int] = read_ms
) -> tuple[list[int], list[int], list[int]]:
    """Take up what vanished workers left: ids of goals (free again, in doubt, too old).

    judged: the time by which a goal may be given up (`Timekeeper.judged`). What grew too old while the clock jumped is
    held.
    """
    free = [row.id for row in conn.execute(_UNSENT)]
    doubtful = [row.id for row in conn.execute(_IN_DOUBT, {"settling_ms": settling_ms})]
    if doubtful:
        conn.execute(_VANISHED, {"doubtful": doubtful})
    gaps = jumps.recall(conn).gaps
    jumps.hold_too_old(conn, gaps)
    # Another process may have made one of those meanwhile: the next sweep holds it.
    too_old = _TOO_OLD.where(~jumps.grew_too_old(gaps)) if gaps else _TOO_OLD
    old = [row.id for row in conn.execute(too_old, {"until": judged(conn)})]
    return free, doubtful, old


_ANYTHING: Final = (
    select(goals.c.id)
    .where(
        or_(
            and_(goals.c.state.in_(("leased", "sending")), goals.c.lease_until_ms <= now_ms()),
            and_(goals.c.state == "pending", goals.c.expires_at_ms <= now_ms()),
        )
    )
    .limit(1)
)


def anything_to_sweep(conn: Connection) -> bool:
    """Whether `sweep` would find something: a read that saves idle workers a write."""
    return conn.execute(_ANYTHING).first() is not None


def register(conn: Connection, *, destination: str, token_hash: str) -> None:
    """Make the rows of a destination and of its token; a new key ends a pause that the old one caused."""
    pauses.ensure(conn, destination, token_hash)
    exists = conn.execute(select(pace.c.token_hash).where(pace.c.token_hash == token_hash)).first()
    if exists is None:
        pauses.insert_once(conn, pace, {"token_hash": token_hash, "next_at_us": 0})
