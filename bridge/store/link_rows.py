"""The statements of `links`: each goes by an index, however many links there are. They decide nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, case, func, or_, select, text, update

from bridge.linking import Evidence, Point
from bridge.store.schema import link_events, link_keys, link_visitors
from bridge.store.upsert import both

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from bridge.linking import Learning
    from bridge.model import Key
    from bridge.store.upsert import Insert

_LOCK: Final = text("SELECT pg_advisory_xact_lock(7318349394477056)")  # the turn to learn, of this program alone


def _key_upsert(insert: Insert) -> Any:
    return insert.on_conflict_do_update(
        index_elements=[link_keys.c.key],
        set_={"used_at_ms": insert.excluded.used_at_ms, "uses": link_keys.c.uses + 1},
    ).returning(link_keys.c.key, link_keys.c.thread, link_keys.c.stopped_at_ms, link_keys.c.uses)


def _evidence_upsert(insert: Insert) -> Insert:
    new, old = insert.excluded, link_visitors.c
    earlier, later = new.first_at_ms < old.first_at_ms, new.last_at_ms > old.last_at_ms
    return insert.on_conflict_do_update(
        index_elements=[old.key, old.visitor],
        set_={
            "sure": or_(old.sure, new.sure),
            **{name: case((earlier, new[name]), else_=old[name]) for name in _FIRST},
            **{name: case((later, new[name]), else_=old[name]) for name in _LAST},
        },
    )


_FIRST: Final = ("first_at_ms", "first_event_id", "first_event")
_LAST: Final = ("last_at_ms", "last_event_id", "last_event")

_WRITE_KEYS: Final = both(link_keys, _key_upsert)
_WRITE_EDGES: Final = both(link_events, lambda insert: insert.on_conflict_do_nothing())
_WRITE_EVIDENCE: Final = both(link_visitors, _evidence_upsert)

_KEYS: Final = select(link_keys.c.key, link_keys.c.thread, link_keys.c.stopped_at_ms).where(
    link_keys.c.key.in_(bindparam("keys", expanding=True))
)
_OF_THREADS: Final = (
    select(link_keys.c.thread, link_visitors)
    .join_from(link_keys, link_visitors, link_visitors.c.key == link_keys.c.key)
    .where(link_keys.c.thread.in_(bindparam("threads", expanding=True)), link_keys.c.stopped_at_ms.is_(None))
)
_OF_KEYS: Final = select(link_visitors).where(link_visitors.c.key.in_(bindparam("keys", expanding=True)))
_SIZES: Final = (
    select(link_keys.c.thread, func.count())
    .where(link_keys.c.thread.in_(bindparam("threads", expanding=True)))
    .group_by(link_keys.c.thread)
)
_RENAME: Final = update(link_keys).where(link_keys.c.thread == bindparam("old")).values(thread=bindparam("name"))
_MOVE: Final = update(link_keys).where(link_keys.c.key == bindparam("moved")).values(thread=bindparam("name"))
_STOP: Final = (
    update(link_keys)
    .where(link_keys.c.key == bindparam("stopped"))
    .values(thread=None, stopped_at_ms=bindparam("now"), stopped_reason=bindparam("reason"))
)
_mate = link_events.alias("mate")
_mate_key = link_keys.alias("mate_key")
_CUSTOMERS: Final = (
    select(_mate.c.key)
    .distinct()
    .join_from(link_keys, link_events, link_events.c.key == link_keys.c.key)
    .join(
        _mate,
        (_mate.c.event_id == link_events.c.event_id) & (_mate.c.element == link_events.c.element),
    )
    .join(_mate_key, (_mate_key.c.key == _mate.c.key) & (_mate_key.c.kind == "customer"))
    .where(link_keys.c.thread == bindparam("thread"))
)
_IN_THREADS: Final = select(link_keys.c.key).where(
    link_keys.c.thread.in_(bindparam("threads", expanding=True)), link_keys.c.stopped_at_ms.is_(None)
)
_EDGES: Final = (
    select(link_events.c.event_id, link_events.c.element, link_events.c.key)
    .join_from(link_keys, link_events, link_events.c.key == link_keys.c.key)
    .where(link_keys.c.thread.in_(bindparam("threads", expanding=True)), link_keys.c.stopped_at_ms.is_(None))
)


def lock(conn: Connection) -> None:
    """Wait for the turn to learn, until this transaction ends. On SQLite a write transaction has it anyway."""
    if conn.dialect.name == "postgresql":
        conn.execute(_LOCK)


def write_keys(conn: Connection, keys: Mapping[str, Key], now: int) -> Sequence[Any]:
    """Write the row of each key, in sorted order, and read it: key, thread, stopped_at_ms, uses (1: it is new)."""
    rows = [
        {
            "key": name,
            "kind": keys[name].kind,
            "ref": keys[name].id,
            "thread": name if keys[name].strong else None,
            "created_at_ms": now,
            "used_at_ms": now,
            "uses": 1,
        }
        for name in sorted(keys)
    ]
    return conn.execute(_WRITE_KEYS[conn.dialect.name], rows).all()


def read_keys(conn: Connection, keys: Sequence[str]) -> Sequence[Any]:
    return conn.execute(_KEYS, {"keys": keys}).all()


def write_edges(conn: Connection, learnings: Iterable[Learning]) -> None:
    """Note which keys each event named together."""
    rows = [
        {"key": key.text, "event_id": learning.event_id, "element": learning.element}
        for learning in learnings
        if learning.event_id is not None
        for key in learning.keys
    ]
    if rows:
        conn.execute(_WRITE_EDGES[conn.dialect.name], rows)


def write_evidence(conn: Connection, evidence: Iterable[Evidence]) -> None:
    """Note who was named with which keys: the earliest and the latest of what is known already and this."""
    rows = [
        {
            "key": item.key,
            "visitor": item.visitor,
            "sure": item.sure,
            "first_at_ms": item.first.at_ms,
            "first_event_id": item.first.event_id,
            "first_event": item.first.event,
            "last_at_ms": item.last.at_ms,
            "last_event_id": item.last.event_id,
            "last_event": item.last.event,
        }
        for item in sorted(evidence, key=lambda item: (item.key, item.visitor))
    ]
    if rows:
        conn.execute(_WRITE_EVIDENCE[conn.dialect.name], rows)


def evidence_of_threads(conn: Connection, threads: Sequence[str]) -> Iterator[tuple[str, Evidence]]:
    """(thread, evidence) of everything that is known of these threads."""
    if threads:
        for row in conn.execute(_OF_THREADS, {"threads": threads}):
            yield row.thread, _evidence(row)


def evidence_of_keys(conn: Connection, keys: Sequence[str]) -> Iterator[Evidence]:
    if keys:
        yield from map(_evidence, conn.execute(_OF_KEYS, {"keys": keys}))


def _evidence(row: Row[Any]) -> Evidence:
    return Evidence(
        row.key,
        row.visitor,
        row.sure,
        Point(row.first_at_ms, row.first_event, row.first_event_id),
        Point(row.last_at_ms, row.last_event, row.last_event_id),
    )


def customers_of(conn: Connection, thread: str) -> Sequence[str]:
    """The customers that were named together with a thread's keys."""
    return conn.execute(_CUSTOMERS, {"thread": thread}).scalars().all()


def sizes(conn: Connection, threads: Sequence[str]) -> dict[str, int]:
    """How many keys each thread has."""
    return {row[0]: row[1] for row in conn.execute(_SIZES, {"threads": threads})} if threads else {}


def rename(conn: Connection, names: Mapping[str, str]) -> None:
    """Put the keys of threads into others: old name → new name."""
    if names:
        conn.execute(_RENAME, [{"old": old, "name": name} for old, name in names.items()])


def keys_in(conn: Connection, threads: Sequence[str]) -> Sequence[str]:
    return conn.execute(_IN_THREADS, {"threads": threads}).scalars().all()


def edges_in(conn: Connection, threads: Sequence[str]) -> list[tuple[str, ...]]:
    """Which keys of these threads each event named together."""
    edges: dict[tuple[int, int], list[str]] = {}
    for row in conn.execute(_EDGES, {"threads": threads}):
        edges.setdefault((row.event_id, row.element), []).append(row.key)
    return list(map(tuple, edges.values()))


def stop(conn: Connection, key: str, reason: str, now: int, parts: Mapping[str, str]) -> None:
    """The key joins nothing any more; `parts` says which thread each of the others is in now."""
    conn.execute(_STOP, {"stopped": key, "now": now, "reason": reason})
    if parts:
        conn.execute(_MOVE, [{"moved": moved, "name": name} for moved, name in parts.items()])
