"""What is remembered of a key or a visitor, for people: the keys of the purchase, whom they lead to, which events.

It only reads, by index, and at most what a person can read. `bridge.store.links` learns and resolves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, or_, select

from bridge.identity.evidence import Evidence, Mention
from bridge.store.schema import goal_keys, link_events, link_keys, link_visitors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

KEYS_MAX: Final = 200
EVENTS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A remembered key. thread: None for a customer; stopped_reason: why it links nothing any more."""

    key: str
    kind: str
    ref: str
    thread: str | None
    created_at_ms: int
    used_at_ms: int
    stopped_reason: str | None


@dataclass(frozen=True, slots=True)
class Thread:
    """Keys that belong together. events: our ids, the newest ones, at most 100."""

    keys: tuple[KeyLine, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    events: tuple[int, ...] = ()


_COLUMNS: Final = tuple(link_keys.c[name] for name in KeyLine.__slots__)
_NAMED: Final = (
    select(*_COLUMNS)
    .where(or_(link_keys.c.key == bindparam("text"), link_keys.c.ref == bindparam("text")))
    .order_by(link_keys.c.key)
    .limit(KEYS_MAX)
)
_TOGETHER: Final = (
    select(*_COLUMNS)
    .where(link_keys.c.thread.in_(bindparam("threads", expanding=True)), link_keys.c.stopped_at_ms.is_(None))
    .order_by(link_keys.c.created_at_ms, link_keys.c.key)
    .limit(KEYS_MAX)
)
_EVIDENCE: Final = select(link_visitors).where(link_visitors.c.key.in_(bindparam("keys", expanding=True)))
_KEYS_OF_VISITOR: Final = (
    select(*_COLUMNS)
    .join_from(link_visitors, link_keys, link_keys.c.key == link_visitors.c.key)
    .where(link_visitors.c.visitor == bindparam("visitor"))
    .order_by(link_keys.c.created_at_ms, link_keys.c.key)
    .limit(KEYS_MAX)
)
_mate = link_events.alias("mate")
_MATES: Final = (
    select(*_COLUMNS)
    .distinct()
    .join_from(link_events, _mate, _mate.c.event_id == link_events.c.event_id)
    .join(link_keys, link_keys.c.key == _mate.c.key)
    .where(link_events.c.key.in_(bindparam("keys", expanding=True)), _mate.c.element == link_events.c.element)
    .order_by(link_keys.c.created_at_ms, link_keys.c.key)
    .limit(KEYS_MAX)
)
_OF_GOAL: Final = (
    select(*_COLUMNS)
    .join_from(goal_keys, link_keys, link_keys.c.key == goal_keys.c.key)
    .where(goal_keys.c.goal_id == bindparam("goal"))
    .order_by(link_keys.c.key)
)
_EVENTS: Final = (
    select(link_events.c.event_id)
    .distinct()
    .where(link_events.c.key.in_(bindparam("keys", expanding=True)))
    .order_by(link_events.c.event_id.desc())
    .limit(EVENTS_MAX)
)


def named(conn: Connection, text: str) -> list[KeyLine]:
    """The keys that a string names: whole (`stripe:live:cus_1`) or by the bare id (`cus_1`)."""
    return [KeyLine(*row) for row in conn.execute(_NAMED, {"text": text})]


def of_goal(conn: Connection, goal_id: int) -> tuple[tuple[KeyLine, ...], tuple[KeyLine, ...]]:
    """The keys of a goal; and those beside them that were stopped: what they joined is another purchase now."""
    own = [KeyLine(*row) for row in conn.execute(_OF_GOAL, {"goal": goal_id})]
    threads = sorted({key.thread for key in own if key.thread is not None})
    keys = {key.key for key in own} | {row.key for row in conn.execute(_TOGETHER, {"threads": threads})}
    beside = [KeyLine(*row) for row in conn.execute(_MATES, {"keys": sorted(keys)})]
    stopped = {key.key: key for key in (*own, *beside) if key.stopped_reason}
    return tuple(own), tuple(stopped.values())


def about(conn: Connection, keys: Sequence[KeyLine]) -> Thread:
    """Everything that is linked to these keys; a customer brings the purchases that it was named with."""
    together = {key.key: key for key in keys}
    customers = [key.key for key in keys if key.thread is None]
    if customers:
        together |= {key.key: key for key in (KeyLine(*row) for row in conn.execute(_MATES, {"keys": customers}))}
    threads = sorted({key.thread for key in together.values() if key.thread is not None and not key.stopped_reason})
    if threads:
        together |= {key.key: key for key in (KeyLine(*row) for row in conn.execute(_TOGETHER, {"threads": threads}))}
    return _thread(conn, together.values())


def of_visitor(conn: Connection, visitor: str) -> Thread:
    """The purchases in which a visitor was named."""
    found = [KeyLine(*row) for row in conn.execute(_KEYS_OF_VISITOR, {"visitor": visitor})]
    return about(conn, [key for key in found if key.thread is not None] or found)


def _thread(conn: Connection, lines: Iterable[KeyLine]) -> Thread:
    keys = tuple(sorted(lines, key=lambda key: (key.created_at_ms, key.key)))[:KEYS_MAX]
    names = [key.key for key in keys]
    if not names:
        return Thread()
    evidence = tuple(
        Evidence(
            row.key,
            row.visitor,
            row.sure,
            Mention(row.first_at_ms, row.first_event, row.first_event_id),
            Mention(row.last_at_ms, row.last_event, row.last_event_id),
            row.borrowed,
        )
        for row in conn.execute(_EVIDENCE, {"keys": names})
    )
    return Thread(keys, evidence, tuple(conn.execute(_EVENTS, {"keys": names}).scalars()))
