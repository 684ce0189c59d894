"""Delete what is no longer needed, a few rows at a time, so that no lock is held for long.

Bodies, headers, traces and attempts are deleted after `BRIDGE_RETENTION_DAYS` (0: as soon as the event's goals are
final); verdicts, provenance and once keys stay for 400 days, links for 400 days after their last use. A goal that waits
for its visitor or delivery keeps everything. Deleted rows are counted in `totals` within the same transaction. SQLite's
log file is cut at the end.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, delete, exists, func, or_, select, update

from bridge.identity.choice import BARE_MS
from bridge.model import FINAL, UNDER_WAY, GoalState
from bridge.store.clock import read_ms
from bridge.store.database import sqlite
from bridge.store.inbox import first_messages
from bridge.store.links import lookups, statements
from bridge.store.operator import changes
from bridge.store.operator.status import COUNTED
from bridge.store.schema import (
    attempts,
    events,
    goal_keys,
    goals,
    insert,
    link_events,
    link_keys,
    link_visitors,
    unknown_visitors,
    visitor_proofs,
)
from bridge.store.schema import totals as removed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection, Row

    from bridge.store.database.engine import Store

DAY_MS: Final = 86_400_000
ROWS_MS: Final = 400 * DAY_MS
LINKS_MS: Final = 400 * DAY_MS  # from their last use
QUARANTINE_MS: Final = 30 * DAY_MS  # only a person ends a quarantine, so 0 days would leave no chance
READ_BACK_MS: Final = 3_600_000  # attempts of delivered goals help to identify the doubtful ones of the same visitor
BATCH: Final = 200  # rows per transaction
ROUNDS: Final = 50  # transactions per call; the next call continues
_LOG_PAGES: Final = 8_000  # 32 MB of SQLite's write-ahead log


def purge(
    store: Store, days: int, now: int | None = None, may_continue: Callable[[Connection], bool] = lambda _: True
) -> dict[str, int]:
    """One round of deletion; return how many rows of each kind.

    days: BRIDGE_RETENTION_DAYS. now: instead of the clock's time. may_continue: asked in each transaction.
    """
    if now is None:
        now = store.run(read_ms)
    in_batches = partial(_in_batches, store, may_continue)
    done = {
        "bodies": in_batches(lambda conn: forget_bodies(conn, days, BATCH, now)),
        "attempts": in_batches(lambda conn: forget_attempts(conn, days, BATCH, now)),
        "goals": in_batches(lambda conn: forget_goals(conn, BATCH, now)),
        "events": in_batches(lambda conn: forget_events(conn, BATCH, now)),
        "links": in_batches(lambda conn: forget_links(conn, BATCH, now)),
        "lookups": in_batches(lambda conn: lookups.forget_old(conn, BATCH, now)),
        "changes": in_batches(lambda conn: changes.forget_old(conn, BATCH, now)),
        "first_messages": in_batches(lambda conn: first_messages.forget_old(conn, now)),
    }
    if store.dialect == "sqlite":
        sqlite.bound_log(store.engine, _LOG_PAGES)
    return done


def _in_batches(store: Store, may_continue: Callable[[Connection], bool], work: Callable[[Connection], int]) -> int:
    total = 0
    for _ in range(ROUNDS):
        count = store.run(lambda conn: work(conn) if may_continue(conn) else 0)
        total += count
        if count < BATCH:
            break
    return total


# ------------------------------------------------------------------------------------------------------- bodies

_goal_of_event = exists().where(goals.c.event_id == events.c.id)
_has_unfinal_goals = _goal_of_event.where(goals.c.state.not_in(FINAL))
# A held goal has all it needs to be sent.
_has_open_goals = _goal_of_event.where(goals.c.state.not_in(FINAL | {GoalState.HELD}))


def forget_bodies(conn: Connection, days: int, limit: int, now: int) -> int:
    """Delete body, headers, query and trace of finished events, the oldest first; return how many."""
    if days:
        is_old = events.c.received_at_ms <= now - days * DAY_MS
        is_finished = and_(is_old, events.c.state != "received", ~_has_open_goals)
    else:
        is_old = events.c.received_at_ms <= now - QUARANTINE_MS
        is_over = or_(events.c.state == "routed", and_(events.c.state == "quarantined", is_old))
        is_finished = and_(is_over, ~_has_unfinal_goals)
    has_body = events.c.body.is_not(None)
    old = select(events.c.id).where(has_body, is_finished).order_by(events.c.received_at_ms).limit(limit)
    forget = update(events).where(events.c.id.in_(old)).values(body=None, headers="{}", query="{}", trace=None)
    return conn.execute(forget).rowcount


# ------------------------------------------------------------------------------------------------------- rows


def forget_attempts(conn: Connection, days: int, limit: int, now: int) -> int:
    """Delete attempts of final goals, unless a read-back may still need them; return how many."""
    other = goals.alias("other")
    in_doubt = exists().where(
        other.c.destination == goals.c.destination,
        other.c.visitor == goals.c.visitor,
        other.c.state.in_(UNDER_WAY),
    )
    old = (
        select(attempts.c.id)
        .join(goals, goals.c.id == attempts.c.goal_id)
        .where(attempts.c.started_at_ms <= now - max(days * DAY_MS, READ_BACK_MS))
        .where(goals.c.state.in_(FINAL), ~in_doubt)
        .order_by(attempts.c.started_at_ms)
        .limit(limit)
    )
    deleted = delete(attempts).where(attempts.c.id.in_(old)).returning(*COUNTED["attempts"])
    return _count_removed(conn, "attempts", conn.execute(deleted))


def forget_goals(conn: Connection, limit: int, now: int) -> int:
    """Delete goals older than 400 days and their dependent rows; return how many. Open goals are kept."""
    old = (
        select(goals.c.id)
        .where(goals.c.created_at_ms <= now - ROWS_MS, goals.c.state.in_(FINAL | {GoalState.HELD}))
        .order_by(goals.c.created_at_ms)
        .limit(limit)
    )
    ids = list(conn.execute(old).scalars())
    if not ids:
        return 0
    deleted_attempts = delete(attempts).where(attempts.c.goal_id.in_(ids)).returning(*COUNTED["attempts"])
    _count_removed(conn, "attempts", conn.execute(deleted_attempts))
    conn.execute(delete(goal_keys).where(goal_keys.c.goal_id.in_(ids)))
    kind = case((goals.c.kind == "goal", ""), else_=goals.c.kind)
    deleted = delete(goals).where(goals.c.id.in_(ids)).returning(*COUNTED["goals"], kind)
    return _count_removed(conn, "goals", conn.execute(deleted))


def forget_events(conn: Connection, limit: int, now: int) -> int:
    """Delete events older than 400 days that have no goals left; return how many. A replay would then be new."""
    old = (
        select(events.c.id)
        .where(events.c.received_at_ms <= now - ROWS_MS, events.c.state != "received", ~_goal_of_event)
        .order_by(events.c.received_at_ms)
        .limit(limit)
    )
    ids = list(conn.execute(old).scalars())
    if not ids:
        return 0
    conn.execute(delete(link_events).where(link_events.c.event_id.in_(ids)))
    deleted = delete(events).where(events.c.id.in_(ids)).returning(*COUNTED["events"])
    return _count_removed(conn, "events", conn.execute(deleted))


def _count_removed(conn: Connection, what: str, rows: Iterable[Row[Any]]) -> int:
    counts = Counter(tuple(value or "" for value in row) for row in rows)
    key_columns = (removed.c.what, removed.c.a, removed.c.b, removed.c.c)
    for key, count in sorted(counts.items()):
        a, b, c = (*key, "", "")[:3]
        new = insert(removed, conn.dialect.name).values(what=what, a=a, b=b, c=c, removed=count)
        sums = {"removed": removed.c.removed + new.excluded.removed}
        conn.execute(new.on_conflict_do_update(index_elements=key_columns, set_=sums))
    return counts.total()


# ------------------------------------------------------------------------------------------------------- links


def forget_links(conn: Connection, limit: int, now: int) -> int:
    """Examine the keys not seen for 400 days, oldest first; return how many were examined.

    A thread still in use keeps the keys with which a visitor was named, and the one it is named after, however old they
    are. Its other old keys are deleted, so that a subscription of many years does not grow without limit.
    """
    conn.execute(delete(unknown_visitors).where(unknown_visitors.c.at_ms <= now - BARE_MS))
    conn.execute(delete(visitor_proofs).where(visitor_proofs.c.made_at_ms <= now - LINKS_MS))
    query = select(link_keys.c.key).where(link_keys.c.used_at_ms <= now - LINKS_MS).order_by(link_keys.c.used_at_ms)
    if conn.execute(query.limit(1)).first() is None:
        return 0
    statements.lock(conn)
    old = list(conn.execute(query.limit(limit)).scalars())
    kept = {row.key: row.used_at_ms for row in conn.execute(_STILL_NEEDED, {"keys": old, "before": now - LINKS_MS})}
    if kept:  # they become as young as the youngest key of their thread
        conn.execute(_RENEW, [{"of": key, "used": used_at_ms} for key, used_at_ms in kept.items()])
    deleted = [key for key in old if key not in kept]
    for table in (link_events, link_visitors, link_keys):
        conn.execute(delete(table).where(table.c.key.in_(deleted)))
    return len(old)


_mate = link_keys.alias("mate")
_STILL_NEEDED: Final = (
    select(link_keys.c.key, func.max(_mate.c.used_at_ms).label("used_at_ms"))
    .join_from(link_keys, _mate, _mate.c.thread == link_keys.c.thread)
    .where(
        link_keys.c.key.in_(bindparam("keys", expanding=True)),
        _mate.c.used_at_ms > bindparam("before"),
        or_(link_keys.c.thread == link_keys.c.key, exists().where(link_visitors.c.key == link_keys.c.key)),
    )
    .group_by(link_keys.c.key)
)
_RENEW: Final = update(link_keys).where(link_keys.c.key == bindparam("of")).values(used_at_ms=bindparam("used"))
