"""Parked goals: what wakes them, when they are looked at again, and what becomes of them.

A goal with strong keys does not ask its customer before the grace is over, and no wait ends while an event that came
in time is still to be routed: so the order in which events arrive makes no difference. Links are learned here, because
what is learned wakes the goals that waited for it, in the same transaction.
Every transition is guarded by the state it starts from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select, update

from bridge.identity.choice import resolve
from bridge.identity.evidence import FoundVisitor, Observation
from bridge.identity.sentences import HINT, disproved, proving, unattributed, waiting
from bridge.model import IDEMPOTENT, Key, NamedVisitor
from bridge.store import clock
from bridge.store.goals import proofs, statements
from bridge.store.goals.unknown import WHY, Unknown
from bridge.store.links import learning
from bridge.store.links import statements as link_statements
from bridge.store.schema import events, goal_keys, goals, link_keys
from bridge.store.upkeep import jumps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import Connection, Row

    from bridge.identity.choice import KnownLinks
    from bridge.settings import Settings

LOOK_AGAIN_MS: Final = 1_000  # while events that may still speak are waiting to be routed
DRY_RULE: Final = "rule"  # why a goal is dry that a person may send

# Whoever changes the state first wins: a worker that sends, a sweep, another event.
CHANGE: Final = update(goals).where(goals.c.id == bindparam("goal"), goals.c.state == bindparam("was"))


# ----------------------------------------------------------------------------------------------------- learning


def learn(conn: Connection, observations: Sequence[Observation], settings: Settings, now: int) -> KnownLinks:
    """Remember what events teach, and wake the goals that waited for it."""
    links = learning.learn(conn, observations, now)
    woken = _waiting_for(conn, links.gained | links.met, links.customers_gained)
    if woken:
        _look(conn, woken, settings, now)
    return links


def bind(conn: Connection, key: Key, visitor: str, settings: Settings, event: str = HINT) -> KnownLinks:
    """A hint from outside: this key is this visitor's. event: what to call it in a provenance."""
    now = clock.read_ms(conn)
    named = NamedVisitor(visitor, event)
    return learn(conn, [Observation((key,), now, event, named=named)], settings, now)


def waiters(conn: Connection, key: Key) -> list[int]:
    """The goals that a visitor of this key may find."""
    threads = [row.thread for row in link_statements.read_keys(conn, [key.text]) if row.thread is not None]
    return [goal.id for goal in _waiting_for(conn, threads, () if key.strong else [key.text])]


def _waiting_for(conn: Connection, threads: Collection[str], customers: Collection[str]) -> Sequence[Any]:
    """The goals that wait for a key of these threads, or for these customers, in the order of their events.

    A goal waits for a customer that its event names, and for one that its purchase was seen with.
    """
    ids = statements.of_links(conn, threads, customers)
    return conn.execute(_PARKED, {"ids": ids}).all() if ids else ()


# --------------------------------------------------------------------------------------------------- looking again


def sweep(
    conn: Connection, settings: Settings, *, limit: int = 200, judged: Callable[[Connection], int] = clock.read_ms
) -> int:
    """Look at the parked goals whose grace or wait is over. Returns how many changed their state.

    judged: the time by which a wait may be ended (`Timekeeper.judged`).
    """
    now = clock.read_ms(conn)
    if conn.execute(_DUE, {"now": now, "limit": 1}).first() is None:
        return 0
    now = judged(conn)
    link_statements.lock(conn)
    jumps.lengthen(conn, jumps.recall(conn).gaps)
    return _look(conn, conn.execute(_DUE, {"now": now, "limit": limit}).all(), settings, now)


def park_again(conn: Connection, goal_id: int, settings: Settings) -> bool:
    """A person asks for another look at an unattributed goal: a new wait. False: it was not unattributed."""
    now = clock.read_ms(conn)
    until = {"parked_until_ms": now + settings.bridge_park, "expires_at_ms": now + settings.bridge_max_age}
    values = {"state": "parked", "reason": None, "due_at_ms": now, "changed_at_ms": now, **until}
    return conn.execute(CHANGE.values(**values), {"goal": goal_id, "was": "unattributed"}).rowcount == 1


def gathered(rule_id: str) -> str:
    """What a goal says of itself that a rule with `enabled: dry` made."""
    return f"made by a rule with `enabled: dry`: `goals send --rule {rule_id}` sends it"


def next_visitor(conn: Connection, goal_id: int, settings: Settings) -> bool:
    """Try the next candidate of a goal that was rejected because DataFast never knew its visitor (`unknown.unlearn`).

    True: it is pending again with another visitor. False: there is none, and the goal's message says so.
    """
    goal = conn.execute(_REJECTED, {"goal": goal_id}).first()
    if goal is None:
        return False
    now = clock.read_ms(conn)
    keys = _keys_of(conn, [goal_id]).get(goal_id, [])
    links = learning.recall(conn, keys)
    learning.recall_customers(conn, links, keys)
    own = _own_of(goal)
    unknown = Unknown(conn, [*own, *links.evidence(keys)], now)
    first = settings.bridge_customer_visitor == "first"
    found = resolve(
        goal.destination, own, keys, goal.ordered_at_ms, links, unknown, weak=True, first=first, without=goal.visitor
    )
    values = {"message": WHY} if found is None else _other(goal, found, now)
    conn.execute(CHANGE.values(changed_at_ms=now, **values), {"goal": goal_id, "was": "rejected"})
    if found is not None and found.unproved:
        proofs.want(conn, [(goal.destination, found.visitor)], now)
    return found is not None


def _own_of(goal: Row[Any]) -> Sequence[NamedVisitor]:
    """The candidates that the goal's events name themselves, as far as they were not refused."""
    return FoundVisitor.from_json(json.loads(goal.provenance)).own if goal.provenance else ()


def _other(goal: Row[Any], found: FoundVisitor, now: int) -> dict[str, Any]:
    until = now + goal.wait_ms
    waits = {"state": "parked", "visitor": None, "parked_until_ms": until, "due_at_ms": until}
    return {
        **(waits | to_prove(found) if found.unproved else _attributed(found, now)),
        "attempts": 0,
        "first_try_at_ms": None,
        "unknown_visitor_tries": 0,
        "unknown_at_ms": 0,
        "paused_ms": 0,
    }


def _look(conn: Connection, parked: Sequence[Row[Any]], settings: Settings, now: int) -> int:
    """Decide about parked goals by what is remembered now."""
    of_goal = _keys_of(conn, [goal.id for goal in parked])
    all_keys = [key for keys in of_goal.values() for key in keys]
    links = learning.recall(conn, all_keys)
    learning.recall_customers(conn, links, all_keys)
    named = [item for goal in parked for item in _own_of(goal)]
    unknown = Unknown(conn, [*named, *links.evidence(all_keys)], now)
    unrouted_ms = conn.execute(_UNROUTED).scalar()
    changed, wanted = 0, []
    for goal in parked:
        keys = of_goal.get(goal.id, [])
        over = goal.weak_at_ms is None or goal.weak_at_ms <= now
        weak = over and not _may_speak(unrouted_ms, goal.weak_at_ms)
        first = settings.bridge_customer_visitor == "first"
        whose = (goal.destination, _own_of(goal), keys, goal.ordered_at_ms, links, unknown)
        found = resolve(*whose, weak=weak, first=first)
        if found is not None and found.unproved and _is_over(goal, unrouted_ms, now):
            found = resolve(*whose, weak=weak, first=first, proved=True) or found
        if found is not None and found.unproved:
            wanted.append((goal.destination, found.visitor))
        values = _decided(goal, found, keys, unrouted_ms, now) | {"changed_at_ms": now}
        if over and not weak and values.get("state") is None:
            values["due_at_ms"] = min(values["due_at_ms"], now + LOOK_AGAIN_MS)
        result = conn.execute(CHANGE.values(**values), {"goal": goal.id, "was": "parked"})
        changed += result.rowcount if "state" in values else 0
    proofs.want(conn, wanted, now)
    return changed


def _decided(
    goal: Row[Any], found: FoundVisitor | None, keys: Sequence[Key], unrouted_ms: int | None, now: int
) -> dict[str, Any]:
    if found is not None and not found.unproved:
        return _attributed(found, now)
    stranger = goal.to_prove if found is None else None
    pairs = [(key.kind, key.id) for key in keys]
    if goal.parked_until_ms > now and (found is not None or keys or stranger is None):
        return {"due_at_ms": _next_look(goal, now), **_waits_for(goal, found, pairs)}
    if goal.parked_until_ms <= now and not _is_over(goal, unrouted_ms, now):
        return {"due_at_ms": now + LOOK_AGAIN_MS}
    if goal.kind in IDEMPOTENT:
        return without_visitor(now) | {"to_prove": None}
    sender = keys[0].text.partition(":")[0] if keys else goal.source
    refused = f"DataFast has not said in time whether it knows {found.visitor}" if found else None
    message = unattributed(sender, pairs, disproved(stranger) if stranger else refused)
    return {"state": "unattributed", "reason": "no_visitor", "message": message, "to_prove": None}


def without_visitor(now: int) -> dict[str, Any]:
    """The columns of a payment that is sent though nobody knows whose it is: the money came in."""
    message = "no visitor was found: it is sent without one"
    return {"state": "pending", "reason": "no_visitor", "message": message, "due_at_ms": now}


def _waits_for(goal: Row[Any], found: FoundVisitor | None, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What a goal says of itself while it waits: for a proof; or, when that was in vain, for a link."""
    if found is not None:
        return to_prove(found) if goal.to_prove != found.visitor else {}
    if goal.to_prove is None:
        return {}
    return {"to_prove": None, "reason": None, "message": waiting(pairs, disproved(goal.to_prove))}


def to_prove(found: FoundVisitor) -> dict[str, Any]:
    """The columns of a goal that waits until its destination has said whether it knows this visitor."""
    return {
        "to_prove": found.visitor,
        "provenance": as_json(found),
        "reason": "unproved",
        "message": proving(found.visitor, found.path),
    }


def told(conn: Connection, destination: str, visitor: str, settings: Settings) -> None:
    """The destination has said whether it knows this visitor: decide about the goals that waited for it."""
    waiters = conn.execute(_TO_PROVE, {"visitor": visitor, "of": destination}).all()
    if waiters:
        _look(conn, waiters, settings, clock.read_ms(conn))


def _attributed(found: FoundVisitor, now: int) -> dict[str, Any]:
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
    """Has it waited to the end, and has every event spoken that came in time?"""
    return goal.parked_until_ms <= now and not _may_speak(unrouted_ms, goal.parked_until_ms)


def _may_speak(unrouted_ms: int | None, until_ms: int | None) -> bool:
    """Is an event that came in time still to be routed?"""
    return unrouted_ms is not None and until_ms is not None and unrouted_ms <= until_ms


def _keys_of(conn: Connection, goal_ids: Sequence[int]) -> dict[int, list[Key]]:
    found: dict[int, list[Key]] = {}
    if goal_ids:
        for row in conn.execute(_GOAL_KEYS, {"ids": goal_ids}):
            found.setdefault(row.goal_id, []).append(Key(row.key, row.kind, row.ref))
    return found


def first_look(values: Any) -> int:
    """When a goal that is parked now has to be looked at, though no link arrived; its age is asked when it is sent.

    Its grace may be over already (routing was behind): then at once, because nobody has asked the customer yet.
    """
    until, weak_at = values["parked_until_ms"], values["weak_at_ms"]
    return int(until if weak_at is None else min(until, weak_at))


def _next_look(goal: Row[Any], now: int) -> int:
    """When a goal that was looked at in vain comes next."""
    until, weak_at = goal.parked_until_ms, goal.weak_at_ms
    return int(until if weak_at is None or weak_at <= now else min(until, weak_at))


def as_json(found: FoundVisitor | None) -> str | None:
    return json.dumps(found.to_json(), ensure_ascii=False) if found else None


# ---------------------------------------------------------------------------------------------------- statements

_PARKED: Final = (
    select(goals)
    .where(goals.c.id.in_(bindparam("ids", expanding=True)), goals.c.state == "parked")
    .order_by(goals.c.ordered_at_ms, goals.c.id)
)
_TO_PROVE: Final = (
    select(goals)
    .where(goals.c.to_prove == bindparam("visitor"), goals.c.destination == bindparam("of"), goals.c.state == "parked")
    .order_by(goals.c.ordered_at_ms, goals.c.id)
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
_GOAL_KEYS: Final = (
    select(goal_keys.c.goal_id, goal_keys.c.key, link_keys.c.kind, link_keys.c.ref)
    .join_from(goal_keys, link_keys, link_keys.c.key == goal_keys.c.key)
    .where(goal_keys.c.goal_id.in_(bindparam("ids", expanding=True)))
    .order_by(goal_keys.c.goal_id, goal_keys.c.key)
)
_UNROUTED: Final = select(events.c.received_at_ms).where(events.c.state == "received").order_by(events.c.id).limit(1)
