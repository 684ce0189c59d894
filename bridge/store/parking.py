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

from bridge.linking import Found, Learning, Named
from bridge.linkwords import HINT, unattributed
from bridge.model import Key
from bridge.store import clock, link_rows, links
from bridge.store.driver import driver_of
from bridge.store.schema import events, goal_keys, goals, link_keys
from bridge.store.unknown import WHY, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import Connection, Row

    from bridge.linking import Evidence
    from bridge.settings import Settings
    from bridge.store.links import Memory

LOOK_AGAIN_MS: Final = 1_000  # while events that may still speak are waiting to be routed

# Whoever changes the state first wins: a worker that sends, a sweep, another event.
CHANGE: Final = update(goals).where(goals.c.id == bindparam("goal"), goals.c.state == bindparam("was"))


# ----------------------------------------------------------------------------------------------------- learning


def learn(conn: Connection, learnings: Sequence[Learning], settings: Settings, now: int) -> Memory:
    """Remember what events teach, and wake the goals that waited for it."""
    memory = links.learn(conn, learnings, now)
    woken = _waiting_for(conn, memory.gained, memory.customers_gained)
    if woken:
        _look(conn, woken, settings, now)
    return memory


def bind(conn: Connection, key: Key, visitor: str, settings: Settings, event: str = HINT) -> Memory:
    """A hint from outside: this key is this visitor's. event: what to call it in a provenance."""
    now = clock.read_ms(conn)
    named = Named(visitor, event)
    return learn(conn, [Learning((key,), now, event, named=named)], settings, now)


def _waiting_for(conn: Connection, threads: Collection[str], customers: Collection[str]) -> Sequence[Any]:
    """The goals that wait for a key of these threads, or for these customers, in the order of their events."""
    ids: set[int] = set()
    driver = driver_of(conn)
    ids.update(row[0] for row in driver.among(_OF_THREADS, sorted(threads)))
    ids.update(row[0] for row in driver.among(_OF_KEYS, sorted(customers)))
    return conn.execute(_PARKED, {"ids": sorted(ids)}).all() if ids else ()


# --------------------------------------------------------------------------------------------------- looking again


def sweep_parked(conn: Connection, settings: Settings, *, limit: int = 200) -> int:
    """Look at the parked goals whose grace or wait is over. Returns how many changed their state."""
    now = clock.read_ms(conn)
    if conn.execute(_DUE, {"now": now, "limit": 1}).first() is None:
        return 0
    link_rows.lock(conn)
    return _look(conn, conn.execute(_DUE, {"now": now, "limit": limit}).all(), settings, now)


def park_again(conn: Connection, goal_id: int, settings: Settings) -> bool:
    """A person asks for another look at an unattributed goal: a new wait. False: it was not unattributed."""
    now = clock.read_ms(conn)
    until = {"parked_until_ms": now + settings.bridge_park, "expires_at_ms": now + settings.bridge_max_age}
    values = {"state": "parked", "reason": None, "due_at_ms": now, "changed_at_ms": now, **until}
    return conn.execute(CHANGE.values(**values), {"goal": goal_id, "was": "unattributed"}).rowcount == 1


def next_visitor(conn: Connection, goal_id: int, settings: Settings) -> bool:
    """Try the next candidate of a goal that was rejected because DataFast never knew its visitor (`unknown.unlearn`).

    True: it is pending again with another visitor. False: there is none, and the goal's message says so.
    """
    goal = conn.execute(_REJECTED, {"goal": goal_id}).first()
    if goal is None:
        return False
    now = clock.read_ms(conn)
    keys = _keys_of(conn, [goal_id]).get(goal_id, [])
    memory = links.recall(conn, keys)
    told = Found.from_json(json.loads(goal.provenance)) if goal.provenance else None
    own = [Named(*other) for other in told.others] if told else []
    unknown = Unknown(conn, memory.visitors(keys) | {item.visitor for item in own} | {goal.visitor}, now)
    found = _next_own(goal, own, unknown) or memory.find(
        keys,
        goal.ordered_at_ms,
        weak=True,
        first=settings.bridge_customer_visitor == "first",
        usable=_usable(goal, unknown),
    )
    values = {"message": WHY} if found is None else _other(found, now)
    conn.execute(CHANGE.values(changed_at_ms=now, **values), {"goal": goal_id, "was": "rejected"})
    return found is not None


def _next_own(goal: Row[Any], own: Sequence[Named], unknown: Unknown) -> Found | None:
    for place, item in enumerate(own):
        if item.visitor != goal.visitor and not unknown.passed_over(goal.destination, item.visitor, sure=item.sure):
            others = tuple((other.visitor, other.path, other.sure) for other in own[place + 1 :])
            return Found(item.visitor, "own", item.sure, path=item.path, others=others)
    return None


def _other(found: Found, now: int) -> dict[str, Any]:
    return {
        **_attributed(found, now),
        "attempts": 0,
        "first_try_at_ms": None,
        "unknown_visitor_tries": 0,
        "paused_ms": 0,
    }


def _usable(goal: Row[Any], unknown: Unknown) -> Callable[[Evidence], bool]:
    def usable(item: Evidence) -> bool:
        return not unknown.passed_over(goal.destination, item.visitor, sure=item.sure) and (
            item.visitor != goal.visitor
        )

    return usable


def _look(conn: Connection, parked: Sequence[Row[Any]], settings: Settings, now: int) -> int:
    """Decide about parked goals by what is remembered now."""
    of_goal = _keys_of(conn, [goal.id for goal in parked])
    memory = links.recall(conn, [key for keys in of_goal.values() for key in keys])
    unknown = Unknown(conn, memory.visitors(key for keys in of_goal.values() for key in keys), now)
    unrouted_ms = conn.execute(_UNROUTED).scalar()
    changed = 0
    for goal in parked:
        keys = of_goal.get(goal.id, [])
        over = goal.weak_at_ms is None or goal.weak_at_ms <= now
        weak = over and not _may_speak(unrouted_ms, goal.weak_at_ms)
        first = settings.bridge_customer_visitor == "first"
        found = memory.find(keys, goal.ordered_at_ms, weak=weak, first=first, usable=_usable(goal, unknown))
        values = _decided(goal, found, keys, unrouted_ms, now) | {"changed_at_ms": now}
        if over and not weak and values.get("state") is None:
            values["due_at_ms"] = min(values["due_at_ms"], now + LOOK_AGAIN_MS)
        result = conn.execute(CHANGE.values(**values), {"goal": goal.id, "was": "parked"})
        changed += result.rowcount if "state" in values else 0
    return changed


def _decided(
    goal: Row[Any], found: Found | None, keys: Sequence[Key], unrouted_ms: int | None, now: int
) -> dict[str, Any]:
    if found is not None:
        return _attributed(found, now)
    if goal.parked_until_ms > now:
        return {"due_at_ms": _next_look(goal, now)}
    if _may_speak(unrouted_ms, goal.parked_until_ms):
        return {"due_at_ms": now + LOOK_AGAIN_MS}
    sender = keys[0].text.partition(":")[0] if keys else goal.source
    message = unattributed(sender, [(key.kind, key.id) for key in keys])
    return {"state": "unattributed", "reason": "no_visitor", "message": message}


def _attributed(found: Found, now: int) -> dict[str, Any]:
    return {
        "state": "pending",
        "visitor": found.visitor,
        "provenance": as_json(found),
        "reason": None,
        "message": None,
        "due_at_ms": now,
    }


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


def as_json(found: Found | None) -> str | None:
    return json.dumps(found.to_json(), ensure_ascii=False) if found else None


# ---------------------------------------------------------------------------------------------------- statements

_OF_THREADS: Final = (
    "SELECT DISTINCT g.goal_id FROM link_keys k JOIN goal_keys g ON g.key = k.key"
    " WHERE k.thread IN ({names}) AND k.stopped_at_ms IS NULL"
)
_OF_KEYS: Final = "SELECT goal_id FROM goal_keys WHERE key IN ({names})"
_PARKED: Final = (
    select(goals)
    .where(goals.c.id.in_(bindparam("ids", expanding=True)), goals.c.state == "parked")
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
