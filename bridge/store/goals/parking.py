"""Parked goals: what wakes them, when they are checked again, and how their wait ends.

A goal with strong keys does not use its customer's visitor before the grace period is over, and no wait ends while an
event that arrived in time is still to be routed, so the order in which events arrive makes no difference. Links are
learned here, because learning wakes the goals that waited for it, in the same transaction. Every transition is guarded
by the state from which it starts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select, update

from bridge.identity.choice import FoundVisitor, Observation, resolve
from bridge.identity.sentences import HINT, NEVER_SEEN, disproved, proving, unattributed, waiting
from bridge.model import PERSON_KINDS, VISITOR_OPTIONAL, Key, NamedVisitor
from bridge.store import clock
from bridge.store.goals import statements
from bridge.store.inbox.events import OLDEST_UNROUTED
from bridge.store.links import learning
from bridge.store.links import statements as link_statements
from bridge.store.schema import goals
from bridge.store.upkeep import jumps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import Connection, Row

    from bridge.identity.choice import KnownLinks
    from bridge.settings import Settings

AT_ONCE: Final = 200  # goals per sweep
LOOK_AGAIN_MS: Final = 1_000  # the delay while events that may name a visitor wait to be routed
FORGOTTEN_KEY: Final = "waits again: the key through which its visitor was found is forgotten"
DRY_RULE: Final = "rule"  # the reason of a goal that is dry because of its rule; a person may still send it

# The columns for a goal that was never tried.
UNTRIED: Final = {
    "attempts": 0,
    "first_try_at_ms": None,
    "unknown_visitor_tries": 0,
    "unknown_at_ms": 0,
    "paused_ms": 0,
}

# The first to change the state wins: a worker that sends, a sweep, or another event.
CHANGE: Final = update(goals).where(goals.c.id == bindparam("goal"), goals.c.state == bindparam("was"))


# ----------------------------------------------------------------------------------------------------- learning


def learn(conn: Connection, observations: Sequence[Observation], settings: Settings, now: int) -> KnownLinks:
    """Learn the links in these events, and wake the goals that waited for them."""
    links = learning.learn(conn, observations, now)
    _reconsider(conn, _waiting_for(conn, links.gained | links.met, links.customers_gained), settings, now)
    return links


def bind(conn: Connection, key: Key, visitor: str, settings: Settings, event: str = HINT) -> KnownLinks:
    """Learn from outside that a key belongs to a visitor. event: the name of this origin in a provenance."""
    now = clock.read_ms(conn)
    named = NamedVisitor(visitor, event)
    return learn(conn, [Observation((key,), now, event, named=named)], settings, now)


def waiting_for(conn: Connection, key: Key) -> list[int]:
    """The ids of the goals that wait for a visitor of this key."""
    return [goal.id for goal in conn.execute(_PARKED, {"ids": _reachable_by(conn, key)})]


def _reachable_by(conn: Connection, key: Key) -> list[int]:
    """The ids of the goals whose visitor may be found through this key, in any state."""
    threads = [row.thread for row in link_statements.read_keys(conn, [key.text]) if row.thread is not None]
    weak = set() if key.strong else {key.text}
    return statements.linked_to(conn, threads, weak | learning.related(conn, weak if key.is_person else ()))


def found_by(conn: Connection, key: Key) -> list[int]:
    """The ids of the goals whose visitor was found through this key."""
    rows = conn.execute(_WITH_PROVENANCE, {"ids": _reachable_by(conn, key)}).all()
    found = ((row.id, FoundVisitor.from_json(json.loads(row.provenance))) for row in rows)
    return [goal_id for goal_id, visitor in found if key.text in (visitor.key, visitor.via, visitor.beside)]


def look_again(conn: Connection, goal_ids: Sequence[int], settings: Settings) -> None:
    """Make goals that were not sent yet look for their visitor again, after a key was forgotten."""
    now = clock.read_ms(conn)
    for goal in conn.execute(_NOT_SENT, {"ids": goal_ids}).all():
        until = now + goal.wait_ms
        values: dict[str, Any] = {"state": "parked", "visitor": None, "provenance": None, "message": FORGOTTEN_KEY}
        values |= {"reason": None, "parked_until_ms": until, "due_at_ms": now, "changed_at_ms": now}
        conn.execute(CHANGE.values(**values), {"goal": goal.id, "was": goal.state})
    _reconsider(conn, conn.execute(_PARKED, {"ids": goal_ids}).all(), settings, now)


def _waiting_for(conn: Connection, threads: Collection[str], customers: Collection[str]) -> Sequence[Any]:
    """The goals that wait for a key of these threads, or for these customers, in the order of their events.

    A goal waits for a customer named by its event, and for one seen with its purchase.
    """
    ids = statements.linked_to(conn, threads, customers)
    return conn.execute(_PARKED, {"ids": ids}).all() if ids else ()


# --------------------------------------------------------------------------------------------------- looking again


def sweep(conn: Connection, settings: Settings, *, expiry_clock: Callable[[Connection], int] = clock.read_ms) -> int:
    """Decide about parked goals whose grace period or wait is over. Returns how many changed state.

    expiry_clock: `Timekeeper.expiry_clock`, which decides whether a wait is over.
    """
    now = clock.read_ms(conn)
    if conn.execute(_DUE, {"now": now, "limit": 1}).first() is None:
        return 0
    now = expiry_clock(conn)
    link_statements.lock(conn)
    jumps.extend_waits(conn, jumps.recall(conn).gaps)
    return _reconsider(conn, conn.execute(_DUE, {"now": now, "limit": AT_ONCE}).all(), settings, now)


def dry_message(rule_id: str) -> str:
    """The message of a goal made by a rule with `enabled: dry`."""
    return f"made by a rule with `enabled: dry`: `goals send --rule {rule_id}` sends it"


def next_visitor(conn: Connection, goal_id: int, settings: Settings) -> bool:
    """Try the next candidate of a goal that was rejected because DataFast never knew its visitor.

    True: the goal waits with another visitor. False: there is none, and the goal's message says so.
    """
    goal = conn.execute(_REJECTED, {"goal": goal_id}).first()
    if goal is None:
        return False
    now = clock.read_ms(conn)
    found = _Memory(conn, [goal], settings, now).find(goal, weak=True, without=goal.visitor)
    values = {"message": NEVER_SEEN} if found is None else _next_visitor_columns(goal, found, now)
    conn.execute(CHANGE.values(changed_at_ms=now, **values), {"goal": goal_id, "was": "rejected"})
    if found is not None and found.unproved:
        statements.ask_about(conn, [(goal.destination, found.visitor)], now)
    return found is not None


def _next_visitor_columns(goal: Row[Any], found: FoundVisitor, now: int) -> dict[str, Any]:
    until = now + goal.wait_ms
    waits = {"state": "parked", "visitor": None, "parked_until_ms": until, "due_at_ms": until}
    return UNTRIED | (waits | to_prove(found) if found.unproved else _attributed_columns(found, now))


class _Memory:
    """What is remembered about some goals: their keys, what these link, and which visitors are passed over."""

    def __init__(self, conn: Connection, rows: Sequence[Row[Any]], settings: Settings, now: int) -> None:
        self.keys = statements.keys_of(conn, [goal.id for goal in rows])
        keys = [key for own_keys in self.keys.values() for key in own_keys]
        self._links = learning.recall(conn, keys)
        learning.recall_customers(conn, self._links, keys)
        self._own = {goal.id: _own_candidates(goal) for goal in rows}
        named = [item for own in self._own.values() for item in own]
        self._strangers = statements.strangers(conn, [*named, *self._links.evidence(keys)], now)
        self._first = settings.bridge_customer_visitor == "first"
        self._people = person_kinds(settings)

    def find(
        self, goal: Row[Any], *, weak: bool, without: str | None = None, proved: bool = False
    ) -> FoundVisitor | None:
        """See `resolve`."""
        return resolve(
            goal.destination,
            self._own[goal.id],
            self.keys[goal.id],
            goal.ordered_at_ms,
            self._links,
            self._strangers,
            weak=weak,
            first=self._first,
            without=without,
            proved=proved,
            people=self._people,
        )


def person_kinds(settings: Settings) -> tuple[str, ...]:
    """The kinds of people's keys through which visitors are found."""
    chosen = {"user": settings.bridge_match_user, "email": settings.bridge_match_email}
    return tuple(kind for kind in PERSON_KINDS if chosen[kind] == "on")


def _own_candidates(goal: Row[Any]) -> Sequence[NamedVisitor]:
    """The candidates named by the goal's own events, except those that were refused."""
    return FoundVisitor.from_json(json.loads(goal.provenance)).own if goal.provenance else ()


def _reconsider(conn: Connection, parked: Sequence[Row[Any]], settings: Settings, now: int) -> int:
    """Decide about parked goals with what is remembered now; return how many changed state."""
    if not parked:
        return 0
    memory = _Memory(conn, parked, settings, now)
    unrouted_ms = conn.execute(OLDEST_UNROUTED).scalar()
    changed, to_prove_pairs = 0, []
    for goal in parked:
        grace_over = goal.weak_at_ms is None or goal.weak_at_ms <= now
        weak = grace_over and not _unrouted_by(unrouted_ms, goal.weak_at_ms)
        found = memory.find(goal, weak=weak)
        if found is not None and found.unproved and _is_over(goal, unrouted_ms, now):
            found = memory.find(goal, weak=weak, proved=True) or found
        if found is not None and found.unproved:
            to_prove_pairs.append((goal.destination, found.visitor))
        values = _decided_columns(goal, found, memory.keys[goal.id], unrouted_ms, now) | {"changed_at_ms": now}
        if grace_over and not weak and values.get("state") is None:
            values["due_at_ms"] = min(values["due_at_ms"], now + LOOK_AGAIN_MS)
        result = conn.execute(CHANGE.values(**values), {"goal": goal.id, "was": "parked"})
        changed += result.rowcount if "state" in values else 0
    statements.ask_about(conn, to_prove_pairs, now)
    return changed


def _decided_columns(
    goal: Row[Any], found: FoundVisitor | None, keys: Sequence[Key], unrouted_ms: int | None, now: int
) -> dict[str, Any]:
    if found is not None and not found.unproved:
        return _attributed_columns(found, now)
    disproved_visitor = goal.to_prove if found is None else None
    pairs = [(key.kind, key.id) for key in keys]
    if goal.parked_until_ms > now and (found is not None or keys or disproved_visitor is None):
        weak_at_ms = goal.weak_at_ms if goal.weak_at_ms is not None and goal.weak_at_ms > now else None
        return {"due_at_ms": first_check(goal.parked_until_ms, weak_at_ms), **_waiting_columns(goal, found, pairs)}
    if goal.parked_until_ms <= now and not _is_over(goal, unrouted_ms, now):
        return {"due_at_ms": now + LOOK_AGAIN_MS}
    if goal.kind in VISITOR_OPTIONAL:
        return columns_without_visitor(now) | {"to_prove": None}
    sender = next((key.text.partition(":")[0] for key in keys if not key.is_person), goal.source)
    refused = f"DataFast has not said in time whether it knows {found.visitor}" if found else None
    message = unattributed(sender, pairs, disproved(disproved_visitor) if disproved_visitor else refused)
    return {"state": "unattributed", "reason": "no_visitor", "message": message, "to_prove": None}


def columns_without_visitor(now: int) -> dict[str, Any]:
    """The columns for a payment sent without a known visitor: the money came in."""
    message = "no visitor was found: it is sent without one"
    return {"state": "pending", "reason": "no_visitor", "message": message, "due_at_ms": now}


def _waiting_columns(goal: Row[Any], found: FoundVisitor | None, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The message of a goal that waits for a proof or, if the visitor was unknown, for a link."""
    if found is not None:
        return to_prove(found) if goal.to_prove != found.visitor else {}
    if goal.to_prove is None:
        return {}
    return {"to_prove": None, "reason": None, "message": waiting(pairs, disproved(goal.to_prove))}


def to_prove(found: FoundVisitor) -> dict[str, Any]:
    """The columns for a goal that waits for its destination to say whether it knows this visitor."""
    return {
        "to_prove": found.visitor,
        "provenance": as_json(found),
        "reason": "unproved",
        "message": proving(found.visitor, found.path),
    }


def decide_proved(conn: Connection, destination: str, visitor: str, settings: Settings) -> None:
    """Decide about the goals that waited for the destination to say whether it knows this visitor."""
    waiting_goals = conn.execute(_TO_PROVE, {"visitor": visitor, "of": destination}).all()
    _reconsider(conn, waiting_goals, settings, clock.read_ms(conn))


def _attributed_columns(found: FoundVisitor, now: int) -> dict[str, Any]:
    return {
        "state": "pending",
        "visitor": found.visitor,
        "provenance": as_json(found),
        "to_prove": None,
        "reason": None,
        "message": None,
        "due_at_ms": now,
    }


def _is_over(goal: Row[Any], unrouted_ms: int | None, now: int) -> bool:
    """Whether a goal's wait is over, and every event that arrived in time has been routed."""
    return goal.parked_until_ms <= now and not _unrouted_by(unrouted_ms, goal.parked_until_ms)


def _unrouted_by(unrouted_ms: int | None, until_ms: int | None) -> bool:
    """Whether an event that arrived in time is still to be routed."""
    return unrouted_ms is not None and until_ms is not None and unrouted_ms <= until_ms


def first_check(until_ms: int, weak_at_ms: int | None) -> int:
    """When to check a newly parked goal even if no link arrives. Its age is checked when it is sent.

    If its grace period is over already (routing was behind), it is checked immediately, because its customer was not
    considered yet.
    """
    return until_ms if weak_at_ms is None else min(until_ms, weak_at_ms)


def as_json(found: FoundVisitor | None) -> str | None:
    return json.dumps(found.to_json(), ensure_ascii=False) if found else None


# ---------------------------------------------------------------------------------------------------- statements

_OF_IDS: Final = goals.c.id.in_(bindparam("ids", expanding=True))
_IN_ORDER: Final = select(goals).order_by(goals.c.ordered_at_ms, goals.c.id)
_PARKED: Final = _IN_ORDER.where(_OF_IDS, goals.c.state == "parked")
_NOT_SENT: Final = _IN_ORDER.where(_OF_IDS, goals.c.state.in_(("pending", "held")))
_TO_PROVE: Final = _IN_ORDER.where(
    goals.c.to_prove == bindparam("visitor"), goals.c.destination == bindparam("of"), goals.c.state == "parked"
)
_WITH_PROVENANCE: Final = (
    select(goals.c.id, goals.c.provenance).where(_OF_IDS, goals.c.provenance.is_not(None)).order_by(goals.c.id)
)
_DUE: Final = (
    select(goals)
    .where(goals.c.state == "parked", goals.c.due_at_ms <= bindparam("now"))
    .order_by(goals.c.due_at_ms)
    .limit(bindparam("limit"))
)
_REJECTED: Final = (
    select(goals)
    .where(goals.c.id == bindparam("goal"), goals.c.state == "rejected", goals.c.reason == "unknown_visitor")
    .with_for_update()
)
