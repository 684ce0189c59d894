"""The store of alerts: remembered problems, goals to announce, and a separate outbox of messages.

A message is one row per target, unique by its subject, and claimed before it is sent: a message that is `sending` may
have been sent, so it is never sent again. `bridge.alerts` decides what to say, and sends it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, delete, func, literal_column, or_, select, update

from bridge.store import facts
from bridge.store.clock import now_ms, read_ms
from bridge.store.delivery import restoring
from bridge.store.operator import threads
from bridge.store.schema import alert_problems, alerts, attempts, events, goals, insert, link_events
from bridge.store.schema import facts as facts_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Connection, Row

TURN_MS: Final = 30_000  # how long the turn of a vanished process lasts
STALE_MS: Final = 3_600_000  # good news older than this, and messages unsent for this long, are dropped
LOST_MS: Final = 120_000  # if a message has been `sending` for this long, its process is gone
KEPT_MS: Final = 30 * 86_400_000
AT_ONCE: Final = 20  # goals per look
OVER: Final = ("sent", "failed", "unknown", "dropped")

_TURN: Final = "alerts_turn"
_REMOVED: Final = "alerts_removed"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of `/status`. gone_at_ms: the first check that no longer found it; None: it persists.

    told: a message said that it began, but none yet that it is over. told_at_ms: when the last such message was made.
    """

    key: str
    sentence: str
    detail: str
    began_at_ms: int
    gone_at_ms: int | None = None
    told: bool = False
    told_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """One message. about: unique, so that it is made once. kind: begin | over | news | test. goal_id: for good news."""

    about: str
    kind: str
    title: str
    body: str
    goal_id: int | None = None


@dataclass(frozen=True, slots=True)
class AlertClaim:
    """A message to one target, which only this process may send. tries: including this one."""

    id: int
    target: str
    place: str
    kind: str
    title: str
    body: str
    goal_id: int | None
    tries: int


# -------------------------------------------------------------------------------------------------------- whose turn


def may_take_turn(conn: Connection, process: str) -> bool:
    """Whether it is this process's turn to check, or nobody's."""
    return _is_free(facts.get(conn, _TURN), process, read_ms(conn))


def take_turn(conn: Connection, process: str) -> bool:
    """Take or keep the turn. If two processes try simultaneously, one waits here for the other, then finds it taken."""
    facts.ensure(conn, _TURN, lambda: "0 nobody")
    held = conn.execute(_HELD.with_for_update()).scalar()
    now = read_ms(conn)
    if not _is_free(held, process, now):
        return False
    facts.put(conn, _TURN, f"{now + TURN_MS} {process}")
    return True


def end_turn(conn: Connection, process: str) -> None:
    """Release the turn at a clean stop, so that another process may look immediately."""
    held = conn.execute(_HELD.with_for_update()).scalar()
    if held is not None and held.partition(" ")[2] == process:
        facts.put(conn, _TURN, "0 nobody")


_HELD: Final = select(facts_table.c.value).where(facts_table.c.name == _TURN)


def _is_free(held: str | None, process: str, now: int) -> bool:
    until, _, holder = (held or "0 nobody").partition(" ")
    return holder == process or not now < int(until) <= now + TURN_MS  # a later time was set by a clock that was ahead


# --------------------------------------------------------------------------------------------------------- problems


def problems(conn: Connection) -> dict[str, Problem]:
    """The remembered problems, by key."""
    return {row.key: Problem(**row._mapping) for row in conn.execute(select(alert_problems))}  # noqa: SLF001 - public


def remember(conn: Connection, changed: Iterable[Problem], forgotten: Collection[str]) -> None:
    """Write the changed problems."""
    for problem in changed:
        values = {name: getattr(problem, name) for name in Problem.__slots__}
        new = insert(alert_problems, conn.dialect.name).values(values)
        conn.execute(new.on_conflict_do_update(index_elements=[alert_problems.c.key], set_=values))
    if forgotten:
        conn.execute(delete(alert_problems).where(alert_problems.c.key.in_(sorted(forgotten))))


# -------------------------------------------------------------------------------------------------------- good news


def delivered(conn: Connection, now: int) -> list[Row[*tuple[Any, ...]]]:
    """Delivered goals to announce, the oldest first.

    Goals that are too old, or may have been announced before a backup was restored, are marked as missed.
    """
    conn.execute(_MISS, {"before": now - STALE_MS})
    return list(conn.execute(_DELIVERED))


def mark_queued(conn: Connection, goal_ids: Sequence[int]) -> None:
    """Record that messages about these goals were made."""
    conn.execute(update(goals).where(goals.c.id.in_(goal_ids), _IS_WANTED).values(notify="queued"))


_IS_WANTED: Final = and_(goals.c.notify == literal_column("'wanted'"), goals.c.state == literal_column("'delivered'"))
_found_after_a_restore: Final = (
    select(attempts.c.id)
    .where(attempts.c.goal_id == goals.c.id, restoring.is_restore_mark(), attempts.c.outcome == "delivered")
    .exists()
)
_MISS: Final = (
    update(goals)
    .where(_IS_WANTED, or_(goals.c.delivered_at_ms < bindparam("before"), _found_after_a_restore))
    .values(notify="missed")
)
_DELIVERED: Final = select(goals).where(_IS_WANTED).order_by(goals.c.delivered_at_ms, goals.c.id).limit(AT_ONCE)


def first_known(conn: Connection, goal_id: int, event_id: int, visitor: str | None) -> Row[*tuple[Any, ...]] | None:
    """The first known event of a goal's visitor or purchase: type, source, time; None: it is the goal's own."""
    own, _ = threads.keys_of_goals(conn, [goal_id])[goal_id]
    keys = {key.key for key in threads.linked_to_keys(conn, own).keys} if own else set()
    keys |= {key.key for key in threads.linked_to_visitor(conn, visitor).keys} if visitor else set()
    queries = [select(func.min(link_events.c.event_id)).where(link_events.c.key.in_(sorted(keys)))] if keys else []
    queries += [select(func.min(goals.c.event_id)).where(goals.c.visitor == visitor)] if visitor else []
    found = (conn.execute(query).scalar() for query in queries)
    first = min((int(id_) for id_ in found if id_ is not None), default=event_id)
    if first >= event_id:
        return None
    at_ms = func.coalesce(events.c.stated_at_ms, events.c.received_at_ms).label("at_ms")
    return conn.execute(select(events.c.type, events.c.source, at_ms).where(events.c.id == first)).first()


# --------------------------------------------------------------------------------------------------------- messages


def make(conn: Connection, messages: Iterable[AlertMessage], places: Sequence[tuple[str, str]]) -> None:
    """Write messages for every target: (fingerprint, place). Existing messages are left alone."""
    now = read_ms(conn)
    times = {"made_at_ms": now, "due_at_ms": now, "changed_at_ms": now}
    rows = [
        {**asdict(message), "target": fingerprint, "place": place, "state": "due", **times}
        for message in messages
        for fingerprint, place in places
    ]
    if rows:
        conn.execute(insert(alerts, conn.dialect.name).on_conflict_do_nothing(), rows)


def withdraw(conn: Connection, identities: Collection[str]) -> None:
    """Drop unsent messages about the beginning of problems that are over."""
    drop = {"state": "dropped", "changed_at_ms": now_ms(), "message": "the problem was over before it could be sent"}
    if identities:
        conn.execute(update(alerts).where(alerts.c.about.in_(sorted(identities)), alerts.c.state == "due").values(drop))


def tidy(conn: Connection, now: int) -> None:
    """Give up messages that wait too long or lost their process, and delete old ones, which stay counted."""
    lost = {"state": "unknown", "changed_at_ms": now, "message": "its process ended; it may have been sent"}
    conn.execute(update(alerts).where(alerts.c.state == "sending", alerts.c.changed_at_ms < now - LOST_MS).values(lost))
    late = {"state": "dropped", "changed_at_ms": now, "message": "it could not be sent for an hour"}
    conn.execute(update(alerts).where(alerts.c.state == "due", alerts.c.made_at_ms < now - STALE_MS).values(late))
    old = (alerts.c.made_at_ms < now - KEPT_MS, alerts.c.state.in_(OVER))
    if conn.execute(select(alerts.c.id).where(*old).limit(1)).first() is None:
        return
    counts = counted(conn, only_removed=True)
    for (state,) in conn.execute(delete(alerts).where(*old).returning(alerts.c.state)):
        counts[state] = counts.get(state, 0) + 1
    facts.put(conn, _REMOVED, json.dumps(counts))


def claim(conn: Connection, fingerprints: Collection[str]) -> AlertClaim | None:
    """The next message to one of these targets, which only the caller may send now; None: nothing is due."""
    columns = [alerts.c[name] for name in AlertClaim.__slots__]
    due = and_(
        alerts.c.state == "due",
        alerts.c.target.in_(sorted(fingerprints)),
        or_(alerts.c.due_at_ms <= now_ms(), alerts.c.due_at_ms > now_ms() + STALE_MS),  # set by a clock that was ahead
    )
    row = conn.execute(select(*columns).where(due).order_by(alerts.c.id).limit(1)).first()
    if row is None:
        return None
    due_row = update(alerts).where(alerts.c.id == row.id, alerts.c.state == "due")
    taken = conn.execute(due_row.values(state="sending", tries=alerts.c.tries + 1, changed_at_ms=now_ms()))
    values = {**row._mapping, "tries": row.tries + 1}  # noqa: SLF001 - SQLAlchemy's public name
    return AlertClaim(**values) if taken.rowcount == 1 else None


def settle(conn: Connection, claim: AlertClaim, state: str, reason: str | None, again_in_ms: int = 0) -> None:
    """Write the outcome of a message, if it is still recorded as being sent."""
    end = {"state": state, "message": reason, "changed_at_ms": now_ms(), "due_at_ms": now_ms() + again_in_ms}
    conn.execute(update(alerts).where(alerts.c.id == claim.id, alerts.c.state == "sending").values(end))
    if state == "sent" and claim.goal_id is not None:
        values = {"told_at_ms": func.coalesce(goals.c.told_at_ms, now_ms())}
        conn.execute(update(goals).where(goals.c.id == claim.goal_id).values(values))


def clear_text(conn: Connection, goal_ids: Sequence[int]) -> None:
    """Remove the text of messages about these goals."""
    state = case((alerts.c.state == "due", "dropped"), else_=alerts.c.state)
    conn.execute(update(alerts).where(alerts.c.goal_id.in_(goal_ids)).values(title="", body="", state=state))


# ------------------------------------------------------------------------------------------------------- to look at


def latest(conn: Connection, limit: int) -> list[Row[*tuple[Any, ...]]]:
    """The newest messages, without their text."""
    names = ("id", "made_at_ms", "changed_at_ms", "kind", "place", "state", "title", "message", "goal_id", "tries")
    query = select(*(alerts.c[name] for name in names)).order_by(alerts.c.id.desc()).limit(limit)
    return list(conn.execute(query))


def counted(conn: Connection, *, only_removed: bool = False) -> dict[str, int]:
    """How many messages were ever finished, by outcome."""
    counts: dict[str, int] = json.loads(facts.get(conn, _REMOVED) or "{}")
    stored = select(alerts.c.state, func.count()).where(alerts.c.state.in_(OVER)).group_by(alerts.c.state)
    for state, number in () if only_removed else conn.execute(stored):
        counts[state] = counts.get(state, 0) + number
    return counts


def failures(conn: Connection, since_ms: int) -> list[Row[*tuple[Any, ...]]]:
    """(place, message, time) of messages that could not be sent since then, newest first."""
    query = select(alerts.c.place, alerts.c.message, alerts.c.changed_at_ms)
    failed = alerts.c.state.in_(("failed", "unknown"))
    newest = alerts.c.changed_at_ms.desc()
    return list(conn.execute(query.where(failed, alerts.c.changed_at_ms > since_ms).order_by(newest).limit(100)))
