"""Whose turn it is at a destination: a goal to send, a group to look up, or a visitor to prove.

Nothing is leased here (`bridge.store.delivery.claims`); what is chosen is locked until the transaction ends.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, func, literal_column, or_, select, update

from bridge.model import Goal, NotYet
from bridge.store.delivery import pauses, restoring
from bridge.store.goals import proofs
from bridge.store.schema import goals

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row, Select

EVERY_FIFTH: Final = 5
EVERY_THIRD: Final = 3  # slot takes a proof, if one is due, whatever else is
UNKNOWN_SHARE: Final = 10  # while no visitor is known: one request in so many is for one who was not
ASKED_AGAIN_MS: Final = 3_600_000  # and each of them is asked about at most so often
IN_LINE: Final = 50  # so many of those that wait longest are asked whether a look holds them up

PENDING: Final[ColumnElement[str]] = literal_column("'pending'")
_BUSY: Final = ("leased", "sending", "unconfirmed")

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

HAS_NO_NAMESAKE: Final = (
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
            HAS_NO_NAMESAKE,
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
    select(goals.c.visitor, goals.c.name, goals.c.kind)
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


def choose(
    conn: Connection, wish: dict[str, Any], door: pauses.Door, *, restored: bool
) -> tuple[Row[Any, Any, Any] | None, str | None, Row[Any] | None] | NotYet:
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


def _look_first(
    conn: Connection, wish: dict[str, Any], door: pauses.Door, *, restored: bool
) -> Row[Any, Any, Any] | None:
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
        visitor=row.visitor or "",  # a payment's need not be known
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
        kind=row.kind,
        first_try_at_ms=row.first_try_at_ms,
    )
