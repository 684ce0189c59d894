"""The statements of `links`: each goes by an index, however many links there are. They decide nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, select, update

from bridge.identity import linking
from bridge.identity.linking import Evidence, Point
from bridge.model import Key
from bridge.store.database.driver import driver_of
from bridge.store.schema import link_events, link_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from bridge.identity.linking import Learning

# ---------------------------------------------------------- what runs for each event, in the driver's words

_LOCK: Final = "SELECT pg_advisory_xact_lock(7318349394477056)"  # the turn to learn, of this program alone
_WRITE_KEYS: Final = "INSERT INTO link_keys (key, kind, ref, thread, created_at_ms, used_at_ms, uses)"
_KEYS_MET: Final = (
    "ON CONFLICT (key) DO UPDATE SET used_at_ms = excluded.used_at_ms, uses = link_keys.uses + 1"
    " RETURNING key, thread, stopped_at_ms, uses"
)
_WRITE_EDGES: Final = "INSERT INTO link_events (key, event_id, element, named)"
_EDGE_KNOWN: Final = "ON CONFLICT (key, event_id, element) DO UPDATE SET named = (link_events.named OR excluded.named)"
_WRITE_EVIDENCE: Final = (
    "INSERT INTO link_visitors (key, visitor, sure, first_at_ms, first_event_id, first_event, last_at_ms,"
    " last_event_id, last_event, borrowed)"
)
_FIRST: Final = ("first_at_ms", "first_event_id", "first_event")
_LAST: Final = ("last_at_ms", "last_event_id", "last_event")
_EARLIER: Final = ", ".join(
    f"{name} = CASE WHEN excluded.first_at_ms < link_visitors.first_at_ms THEN excluded.{name}"
    f" ELSE link_visitors.{name} END"
    for name in _FIRST
)
_LATER: Final = ", ".join(
    f"{name} = CASE WHEN excluded.last_at_ms > link_visitors.last_at_ms THEN excluded.{name}"
    f" ELSE link_visitors.{name} END"
    for name in _LAST
)
_KNOWN_BEFORE: Final = (
    "ON CONFLICT (key, visitor) DO UPDATE SET sure = (link_visitors.sure OR excluded.sure),"
    f" borrowed = (link_visitors.borrowed AND excluded.borrowed), {_EARLIER}, {_LATER}"
)
_KEYS: Final = "SELECT key, thread, stopped_at_ms FROM link_keys WHERE key IN ({names})"
_EVIDENCE: Final = ", ".join(f"v.{name}" for name in ("key", "visitor", "sure", *_FIRST, *_LAST, "borrowed"))
_OF_THREADS: Final = (
    f"SELECT k.thread, {_EVIDENCE} FROM link_keys k JOIN link_visitors v ON v.key = k.key"  # noqa: S608 - no value in it
    " WHERE k.thread IN ({names}) AND k.stopped_at_ms IS NULL"
)
_OF_KEYS: Final = f"SELECT {_EVIDENCE} FROM link_visitors v WHERE v.key IN ({{names}})"  # noqa: S608 - no value in it
_SIZES: Final = "SELECT thread, count(*) FROM link_keys WHERE thread IN ({names}) GROUP BY thread"
_RENAME: Final = "UPDATE link_keys SET thread = ? WHERE thread = ?"
_CUSTOMERS: Final = (
    "SELECT DISTINCT k.thread, c.key, c.kind, c.ref FROM link_keys k JOIN link_events e ON e.key = k.key"
    " JOIN link_events mate ON mate.event_id = e.event_id AND mate.element = e.element"
    " JOIN link_keys c ON c.key = mate.key AND c.kind = 'customer' WHERE k.thread IN ({names})"
)

_SAID: Final = (  # each event of these keys with each key that it named, and again with its name if it is a customer
    "SELECT e.key, e.event_id, e.element, e.named, c.key FROM link_events e"
    " JOIN link_events mate ON mate.event_id = e.event_id AND mate.element = e.element"
    " LEFT JOIN link_keys c ON c.key = mate.key AND c.kind = 'customer' WHERE e.key IN ({names})"
)
_SEEN_WITH: Final = (  # goals of the purchases that were seen with these customers
    "SELECT DISTINCT g.goal_id FROM link_events e"
    " JOIN link_events mate ON mate.event_id = e.event_id AND mate.element = e.element"
    " JOIN link_keys k ON k.key = mate.key JOIN link_keys t ON t.thread = k.thread"
    " JOIN goal_keys g ON g.key = t.key WHERE e.key IN ({names})"
)

# ------------------------------------------------------------------------- what runs when a key is stopped

_MOVE: Final = update(link_keys).where(link_keys.c.key == bindparam("moved")).values(thread=bindparam("name"))
_STOP: Final = (
    update(link_keys)
    .where(link_keys.c.key == bindparam("stopped"))
    .values(thread=None, stopped_at_ms=bindparam("now"), stopped_reason=bindparam("reason"))
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
        driver_of(conn).ask(_LOCK)


class KeyRow(NamedTuple):
    """A key's row. thread: None for a customer; uses: 1 when it was written just now for the first time."""

    key: str
    thread: str | None
    stopped_at_ms: int | None
    uses: int = 0


def write_keys(conn: Connection, keys: Mapping[str, Key], now: int) -> list[KeyRow]:
    """Write the row of each key, in sorted order, and read it."""
    rows = [(name, key.kind, key.id, name if key.strong else None, now, now, 1) for name, key in sorted(keys.items())]
    return [KeyRow(*row) for row in driver_of(conn).insert(_WRITE_KEYS, rows, _KEYS_MET)]


def read_keys(conn: Connection, keys: Sequence[str]) -> list[KeyRow]:
    return [KeyRow(*row) for row in driver_of(conn).among(_KEYS, keys)]


def write_edges(conn: Connection, learnings: Iterable[Learning]) -> None:
    """Note which keys each event named together."""
    rows = [
        (key.text, learning.event_id, learning.element, learning.named is not None)
        for learning in learnings
        if learning.event_id is not None
        for key in learning.keys
    ]
    driver_of(conn).insert(_WRITE_EDGES, rows, _EDGE_KNOWN)


def write_evidence(conn: Connection, evidence: Iterable[Evidence]) -> None:
    """Note who was named with which keys: the earliest and the latest of what is known already and this."""
    rows = [
        (item.key, item.visitor, item.sure, *_told(item.first), *_told(item.last), item.borrowed)
        for item in sorted(evidence, key=lambda item: (item.key, item.visitor))
    ]
    driver_of(conn).insert(_WRITE_EVIDENCE, rows, _KNOWN_BEFORE)


def _told(point: Point) -> tuple[int, int | None, str]:
    return point.at_ms, point.event_id, point.event


def evidence_of_threads(conn: Connection, threads: Sequence[str]) -> Iterator[tuple[str, Evidence]]:
    """(thread, evidence) of everything that is known of these threads."""
    for thread, *row in driver_of(conn).among(_OF_THREADS, threads):
        yield thread, _evidence(row)


def evidence_of_keys(conn: Connection, keys: Sequence[str]) -> Iterator[Evidence]:
    yield from map(_evidence, driver_of(conn).among(_OF_KEYS, keys))


def _evidence(row: Sequence[Any]) -> Evidence:
    key, visitor, sure, first_at_ms, first_event_id, first_event, last_at_ms, last_event_id, last_event, borrowed = row
    return Evidence(
        key,
        visitor,
        bool(sure),
        Point(first_at_ms, first_event, first_event_id),
        Point(last_at_ms, last_event, last_event_id),
        bool(borrowed),
    )


def customers_of(conn: Connection, threads: Sequence[str]) -> list[tuple[str, Key]]:
    """(thread, customer): the customers that were named together with the threads' keys."""
    return [(thread, Key(*customer)) for thread, *customer in driver_of(conn).among(_CUSTOMERS, threads)]


def with_one_customer(conn: Connection, keys: Sequence[str]) -> set[str]:
    """Of these keys those whose events name one common customer (`linking.with_one_customer`)."""
    events: dict[tuple[str, int, int], tuple[set[str], bool | None]] = {}
    for key, event_id, element, named, customer in driver_of(conn).among(_SAID, keys):
        mine, _ = events.setdefault((key, event_id, element), (set(), named))
        if customer is not None:
            mine.add(customer)
    return linking.with_one_customer((key, mine, named) for (key, *_), (mine, named) in events.items())


def goals_seen_with(conn: Connection, customers: Sequence[str]) -> set[int]:
    """The goals of all purchases that these customers were named with."""
    return {row[0] for row in driver_of(conn).among(_SEEN_WITH, customers)}


def sizes(conn: Connection, threads: Sequence[str]) -> dict[str, int]:
    """How many keys each thread has."""
    return dict(driver_of(conn).among(_SIZES, threads))


def rename(conn: Connection, names: Mapping[str, str]) -> None:
    """Put the keys of threads into others: old name → new name."""
    if names:
        driver_of(conn).many(_RENAME, [(name, old) for old, name in names.items()])


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
