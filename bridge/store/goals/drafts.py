"""Planned goals become rows: once, by their once key, with the visitor known by then, or parked until one is.

The first event makes a goal. A later one with the same once key never makes a second, but while the first is parked,
unattributed or expired unsent, it gives it its visitor, its keys and a new wait. What becomes of a parked goal is
`parking`'s.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, exists, or_, select

from bridge.identity.sentences import unattributed, waiting
from bridge.model import GoalState
from bridge.store.database.driver import driver_of
from bridge.store.goals import proofs
from bridge.store.goals.parking import (
    CHANGE,
    as_json,
    as_own,
    bind,
    first_look,
    learn,
    next_visitor,
    park_again,
    resolve,
    sweep_parked,
    to_prove,
)
from bridge.store.goals.unknown import WHY, Unknown
from bridge.store.links import learning
from bridge.store.schema import attempts, goals
from bridge.store.upsert import both

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Row

    from bridge.identity.linking import Found, Named
    from bridge.model import Event, Key, PlannedGoal
    from bridge.settings import Settings
    from bridge.store.links.learning import Memory

__all__ = ["Made", "Wish", "bind", "learn", "make", "next_visitor", "park_again", "sweep_parked"]

DRY: Final = "a test event: nothing is sent (DATAFAST_TEST_API_KEY would send it to a second website)"


@dataclass(frozen=True, slots=True)
class Wish:
    """A planned goal of an event (or of one element of it), with what the event knows about its visitor.

    own: the visitors the event names, best first. refused: what stood there instead, in words. times: of the element.
    """

    event: Event
    planned: PlannedGoal
    destination: str
    happened_at_ms: int
    ordered_at_ms: int
    time_is_stated: bool
    keys: tuple[Key, ...] = ()
    own: tuple[Named, ...] = ()
    refused: str | None = None
    test: bool = False
    dry: bool = False
    rules_hash: str | None = None
    handover: str | None = None  # what the event is, if a visitor can be handed over by it

    @property
    def place(self) -> tuple[str, str]:
        """What it is unique by."""
        return self.destination, self.planned.once_key


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a wish. outcome: made | merged (an earlier event's goal took something from it) | known."""

    wish: Wish
    outcome: str
    goal_id: int
    state: GoalState
    found: Found | None
    message: str | None
    event_id: int  # of the event that made the goal

    @property
    def unproved(self) -> bool:
        """Does it wait until its destination has said whether it knows the visitor?"""
        return self.state is GoalState.PARKED and self.found is not None and self.found.unproved


# ------------------------------------------------------------------------------------------------------ following


def made_before(conn: Connection, places: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these goals, each by destination and once key, are there already, in whatever state."""
    return {place for place in places if conn.execute(_IS_MADE, dict(zip(("of", "once"), place, strict=True))).scalar()}


# ------------------------------------------------------------------------------------------------------- making


def make(conn: Connection, wishes: Sequence[Wish], memory: Memory, settings: Settings, now: int) -> list[Made]:
    """Write the goals of a batch. `memory` has learned from the same events, in this transaction."""
    if not wishes:
        return []
    learning.meet(conn, memory, (key for wish in wishes if wish.dry for key in wish.keys))
    named = [named for wish in wishes for named in wish.own]
    unknown = Unknown(conn, [*named, *memory.evidence(key for wish in wishes for key in wish.keys)], now)
    found = [_resolve(wish, memory, unknown, settings) for wish in wishes]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for wish, visitor in zip(wishes, found, strict=True):
        if wish.place not in rows:
            rows[wish.place] = _row(wish, visitor, memory, settings, now)
    inserted = conn.execute(_INSERT[conn.dialect.name], list(rows.values())).all()
    ids = {(row.destination, row.once_key): row.id for row in inserted}
    made = []
    for wish, visitor in zip(wishes, found, strict=True):
        goal_id = ids.pop(wish.place, None)
        if goal_id is None:
            made.append(_merge(conn, wish, visitor, memory, settings, now))
        else:
            row = rows[wish.place]
            made.append(Made(wish, "made", goal_id, GoalState(row["state"]), visitor, row["message"], wish.event.id))
    _write_keys(conn, made)
    proofs.want(conn, [(one.wish.destination, one.found.visitor) for one in made if one.found and one.unproved], now)
    return made


def _resolve(wish: Wish, memory: Memory, unknown: Unknown, settings: Settings) -> Found | None:
    """The visitor: the event's own, else its thread's, else (without strong keys, or in a test) its customer's."""
    weak = wish.dry or not memory.strong(wish.keys)
    first = settings.bridge_customer_visitor == "first"
    found = resolve(wish.destination, wish.own, wish.keys, wish.ordered_at_ms, memory, unknown, weak=weak, first=first)
    return None if found is not None and found.unproved and wish.dry else found  # of a rehearsal nobody is asked


def _row(wish: Wish, found: Found | None, memory: Memory, settings: Settings, now: int) -> dict[str, Any]:
    event, planned = wish.event, wish.planned
    return {
        "event_id": event.id,
        "source": event.source,
        "rule_id": planned.rule_id,
        "rules_hash": wish.rules_hash,
        "destination": wish.destination,
        "once_key": planned.once_key,
        "test": wish.test,
        "name": planned.name,
        "description": planned.description or f"{event.source} {event.envelope.id or event.name}",
        "metadata": json.dumps(dict(planned.metadata), ensure_ascii=False),
        "handover": None if wish.test or wish.dry else wish.handover,
        "happened_at_ms": wish.happened_at_ms,
        "time_is_stated": wish.time_is_stated,
        "ordered_at_ms": wish.ordered_at_ms,
        "created_at_ms": now,
        "changed_at_ms": now,
        **_birth(wish, found, memory, settings, now),
    }


def _birth(wish: Wish, found: Found | None, memory: Memory, settings: Settings, now: int) -> dict[str, Any]:
    """The columns that say in which state a goal begins, and until when."""
    wait_ms = wish.planned.wait_ms or settings.bridge_park
    start_ms = wish.happened_at_ms if wish.time_is_stated else wish.event.received_at_ms
    values: dict[str, Any] = {
        "visitor": found.visitor if found and not found.unproved else None,
        "provenance": as_json(found),
        "to_prove": None,
        "reason": None,
        "message": None,
        "due_at_ms": now,
        "wait_ms": wait_ms,
        "expires_at_ms": start_ms + (wish.planned.max_age_ms or settings.bridge_max_age),
        "parked_until_ms": None,
        "weak_at_ms": None,
    }
    if wish.dry:
        return values | {"state": "dry", "reason": "test", "message": DRY}
    if found and not found.unproved:
        return values | {"state": "pending"}
    pairs = [(key.kind, key.id) for key in wish.keys]
    refused = _refused(wish)
    if not wish.keys and not found:
        message = unattributed(wish.event.provider, pairs, refused)
        return values | {"state": "unattributed", "reason": "no_visitor", "message": message}
    until = wish.event.received_at_ms + wait_ms
    weak_at = wish.event.received_at_ms + settings.bridge_weak_after if memory.strong(wish.keys) else None
    values |= {"state": "parked", "parked_until_ms": until, "weak_at_ms": weak_at}
    values |= to_prove(found) if found else {"message": waiting(pairs, refused), "provenance": _lent(wish)}
    return values | {"due_at_ms": first_look(values)}


def _lent(wish: Wish) -> str | None:
    """The borrowed candidates, though none is known: with another key they may be, and are asked about anew."""
    left = [item for item in wish.own if item.borrowed]
    return as_json(as_own(left)) if left else None


def _refused(wish: Wish) -> str | None:
    return WHY if wish.own else wish.refused  # a wish with visitors of its own has none only if all are passed over


def _write_keys(conn: Connection, made: Iterable[Made]) -> None:
    rows = [
        (item.goal_id, key.text)
        for item in made
        if item.outcome != "known" and item.state is not GoalState.DRY
        for key in item.wish.keys
    ]
    driver_of(conn).insert(_WRITE_KEYS, rows, "ON CONFLICT DO NOTHING")


# ------------------------------------------------------------------------------------------------------ merging


def _merge(conn: Connection, wish: Wish, found: Found | None, memory: Memory, settings: Settings, now: int) -> Made:
    """A later event with the once key of a goal that is there: what it can still give."""
    goal = conn.execute(_BY_PLACE, dict(zip(("of", "once"), wish.place, strict=True))).one()
    state = GoalState(goal.state)
    values = _gift(conn, goal, wish, _birth(wish, found, memory, settings, now), now)
    if values is None:
        return Made(wish, "known", goal.id, state, None, None, goal.event_id)
    conn.execute(CHANGE.values(changed_at_ms=now, **values), {"goal": goal.id, "was": goal.state})
    return Made(wish, "merged", goal.id, GoalState(values["state"]), found, values.get("message"), goal.event_id)


def _gift(conn: Connection, goal: Row[Any], wish: Wish, birth: dict[str, Any], now: int) -> dict[str, Any] | None:
    """The columns that a goal takes from a later event; None: it takes nothing."""
    if wish.dry or goal.state not in ("parked", "unattributed", "expired"):
        return None
    expires = max(goal.expires_at_ms, birth["expires_at_ms"])
    if goal.state == "expired" and (expires <= now or _maybe_sent(conn, goal.id)):
        return None
    given = {name: birth[name] for name in _GIVEN}
    again = {"expires_at_ms": expires, "attempts": 0, "first_try_at_ms": None, "paused_ms": 0}
    if birth["state"] == "pending":
        return given | again
    if goal.visitor is not None:  # expired with its visitor known: sent after all
        kept = {"state": "pending", "due_at_ms": now, "reason": None, "message": None}
        return kept | again
    if birth["state"] == "unattributed":
        return None
    values = {
        "parked_until_ms": max(goal.parked_until_ms or 0, birth["parked_until_ms"]),
        "weak_at_ms": _later(goal, birth),
        "wait_ms": birth["wait_ms"],
        "expires_at_ms": expires,
    }
    if goal.to_prove is not None and birth["to_prove"] is None:
        given |= {"to_prove": goal.to_prove, "provenance": goal.provenance, "reason": goal.reason}
        given |= {"message": goal.message}
    return given | again | values | {"due_at_ms": first_look(values)}


_GIVEN: Final = ("state", "visitor", "provenance", "to_prove", "reason", "message", "due_at_ms")


def _later(goal: Row[Any], birth: dict[str, Any]) -> int | None:
    """When the customer may answer: after the grace of every event of the goal that has strong keys."""
    both_at = [at for at in (goal.weak_at_ms, birth["weak_at_ms"]) if at is not None]
    return max(both_at, default=None)


def _maybe_sent(conn: Connection, goal_id: int) -> bool:
    return bool(conn.execute(_MAYBE_SENT, {"goal": goal_id}).scalar())


# ---------------------------------------------------------------------------------------------------- statements

_INSERT: Final = both(
    goals,
    lambda insert: insert.on_conflict_do_nothing(index_elements=[goals.c.destination, goals.c.once_key]).returning(
        goals.c.id, goals.c.destination, goals.c.once_key
    ),
)
_WRITE_KEYS: Final = "INSERT INTO goal_keys (goal_id, key)"
_BY_PLACE: Final = (
    select(goals).where(goals.c.destination == bindparam("of"), goals.c.once_key == bindparam("once")).with_for_update()
)
_IS_MADE: Final = select(exists().where(goals.c.destination == bindparam("of"), goals.c.once_key == bindparam("once")))
_MAYBE_SENT: Final = select(
    exists().where(
        attempts.c.goal_id == bindparam("goal"),
        attempts.c.kind == "send",
        or_(attempts.c.outcome.is_(None), attempts.c.outcome.in_(("unconfirmed", "delivered"))),
    )
)
