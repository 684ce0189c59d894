"""The SQL text of `links`. Each statement uses an index, however many links there are, and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge.identity.choice import Evidence, Mention
from bridge.identity.threads import keys_of_one_customer
from bridge.model import Key
from bridge.store.database.driver import driver_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from bridge.identity.choice import Observation

# -------------------------------------------------------------------- what runs for each event

_LOCK_POSTGRESQL: Final = "SELECT pg_advisory_xact_lock(7318349394477056)"  # the id of this program's lock for learning
_WRITE_KEYS: Final = (
    "INSERT INTO link_keys (key, kind, ref, thread, created_at_ms, used_at_ms, uses, certain_at_ms) VALUES {rows}"
    " ON CONFLICT (key) DO UPDATE SET used_at_ms = excluded.used_at_ms, uses = link_keys.uses + excluded.uses,"
    " certain_at_ms = coalesce(link_keys.certain_at_ms, excluded.certain_at_ms)"
    " RETURNING key, thread, stopped_at_ms, certain_at_ms, uses"
)
_EXPECT: Final = (  # creates a row for a key that no event has named yet
    "INSERT INTO link_keys (key, kind, ref, thread, created_at_ms, used_at_ms, uses) VALUES {rows}"
    " ON CONFLICT (key) DO NOTHING"
)
_WRITE_EDGES: Final = (
    "INSERT INTO link_events (key, event_id, element, named) VALUES {rows}"
    " ON CONFLICT (key, event_id, element) DO UPDATE SET named = (link_events.named OR excluded.named)"
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
_WRITE_EVIDENCE: Final = (
    "INSERT INTO link_visitors (key, visitor, sure, first_at_ms, first_event_id, first_event,"  # noqa: S608 - no value
    " last_at_ms, last_event_id, last_event, borrowed) VALUES {rows}"
    " ON CONFLICT (key, visitor) DO UPDATE SET sure = (link_visitors.sure OR excluded.sure),"
    f" borrowed = (link_visitors.borrowed AND excluded.borrowed), {_EARLIER}, {_LATER}"
)
_KEYS: Final = "SELECT key, thread, stopped_at_ms, certain_at_ms FROM link_keys WHERE key IN ({names})"
_EVIDENCE: Final = ", ".join(f"v.{name}" for name in ("key", "visitor", "sure", *_FIRST, *_LAST, "borrowed"))
_OF_THREADS: Final = (
    f"SELECT k.thread, {_EVIDENCE} FROM link_keys k JOIN link_visitors v ON v.key = k.key"  # noqa: S608 - no value in it
    " WHERE k.thread IN ({names}) AND k.stopped_at_ms IS NULL"
)
_OF_KEYS: Final = f"SELECT {_EVIDENCE} FROM link_visitors v WHERE v.key IN ({{names}})"  # noqa: S608 - no value in it
_SIZES: Final = "SELECT thread, count(*) FROM link_keys WHERE thread IN ({names}) GROUP BY thread"
_RENAME: Final = "UPDATE link_keys SET thread = ? WHERE thread = ?"
# Each BETWEEN is true for every row. Without statistics PostgreSQL assumes that a value matches one row in 200 and
# would scan the table; with these it expects few rows and uses the indexes.
USES: Final = "uses BETWEEN 0 AND 999999999999"
MATES: Final = (  # the other keys that the events of `link_events e` named
    " JOIN link_events mate ON mate.event_id = e.event_id AND mate.element = e.element"
    " AND e.element BETWEEN 0 AND 999999999 AND mate.event_id BETWEEN e.event_id AND e.event_id"
)
_CUSTOMERS: Final = (
    "SELECT DISTINCT k.thread, c.key, c.kind, c.ref FROM link_keys k"  # noqa: S608 - no value in it
    f" JOIN link_events e ON e.key = k.key{MATES} JOIN link_keys c ON c.key = mate.key AND c.stopped_at_ms IS NULL"
    " AND (c.kind = 'customer' OR (c.kind IN ('user', 'email') AND c.certain_at_ms IS NOT NULL))"
    f" WHERE k.thread IN ({{names}}) AND k.{USES}"
)
_PEOPLE_OF: Final = (
    "SELECT DISTINCT e.key, p.key, p.kind, p.ref FROM link_events e"  # noqa: S608 - no value in it
    f"{MATES} JOIN link_keys p ON p.key = mate.key AND p.kind IN ('user', 'email') AND p.stopped_at_ms IS NULL"
    " AND p.certain_at_ms IS NOT NULL WHERE e.key IN ({names})"
)
_CUSTOMERS_WITH: Final = (
    "SELECT DISTINCT e.key, c.key, c.kind, c.ref FROM link_events e"  # noqa: S608 - no value in it
    f"{MATES} JOIN link_keys c ON c.key = mate.key AND c.kind = 'customer' WHERE e.key IN ({{names}})"
)
_GUESTS: Final = (  # the addresses named by events of these keys that name no customer
    "SELECT DISTINCT e.key, a.key FROM link_events e"  # noqa: S608 - no value in it
    f"{MATES} JOIN link_keys a ON a.key = mate.key AND a.kind = 'email' WHERE e.key IN ({{names}})"
    " AND NOT EXISTS (SELECT 1 FROM link_events o JOIN link_keys c ON c.key = o.key AND c.kind = 'customer'"
    " WHERE o.event_id = e.event_id AND o.element = e.element)"
)
_NAMED_TOGETHER: Final = (  # every event of these keys, with every customer that it named, or NULL
    "SELECT e.key, e.event_id, e.element, e.named, c.key FROM link_events e"  # noqa: S608 - no value in it
    f"{MATES} LEFT JOIN link_keys c ON c.key = mate.key AND c.kind = 'customer' WHERE e.key IN ({{names}})"
)
# what runs when a key is stopped
_MOVE: Final = "UPDATE link_keys SET thread = ? WHERE key = ?"
_STOP: Final = "UPDATE link_keys SET thread = NULL, stopped_at_ms = ?, stopped_reason = ? WHERE key = ?"
_IN_THREADS: Final = "SELECT key FROM link_keys WHERE thread IN ({names}) AND stopped_at_ms IS NULL"
_EDGES: Final = (
    "SELECT e.event_id, e.element, e.key FROM link_keys k JOIN link_events e ON e.key = k.key"
    " WHERE k.thread IN ({names}) AND k.stopped_at_ms IS NULL"
)


def lock(conn: Connection) -> None:
    """Take the lock for learning until this transaction ends. On SQLite, a write transaction holds it anyway."""
    if conn.dialect.name == "postgresql":
        driver_of(conn).execute(_LOCK_POSTGRESQL)


class KeyRow(NamedTuple):
    """A key's row. thread: None for a weak one; uses: how many events have named it.

    certain_at_ms: since when it is certain that a person's key identifies a person.
    """

    key: str
    thread: str | None
    stopped_at_ms: int | None
    certain_at_ms: int | None
    uses: int = 0

    @property
    def is_mute(self) -> bool:
        """Whether a person's key leads nowhere: it was stopped, or may be an id of something else."""
        return self.stopped_at_ms is not None or self.certain_at_ms is None


def write_keys(conn: Connection, keys: Mapping[str, Key], uses: Mapping[str, int], now: int) -> list[KeyRow]:
    """Write and read the row of each key, in sorted order. uses: how many events name it now."""
    rows = [
        (
            *(name, key.kind, key.id, name if key.strong else None),
            *(now, now, uses[name], now if key.is_person and key.sure else None),
        )
        for name, key in sorted(keys.items())
    ]
    return [KeyRow(*row) for row in driver_of(conn).execute_rows(_WRITE_KEYS, rows)]


def expect(conn: Connection, keys: Iterable[Key], now: int) -> None:
    """Create rows for people for whom goals of test events wait, so that an event naming them wakes the goals."""
    driver_of(conn).execute_rows(_EXPECT, [(key.text, key.kind, key.id, None, now, now, 1) for key in keys])


def read_keys(conn: Connection, keys: Sequence[str]) -> list[KeyRow]:
    return [KeyRow(*row) for row in driver_of(conn).execute_in(_KEYS, keys)]


def write_edges(conn: Connection, observations: Iterable[Observation]) -> None:
    """Record which keys each event named together."""
    rows = [
        (key.text, observation.event_id, observation.element, observation.named is not None)
        for observation in observations
        if observation.event_id is not None
        for key in observation.keys
    ]
    driver_of(conn).execute_rows(_WRITE_EDGES, rows)


def write_evidence(conn: Connection, evidence: Iterable[Evidence]) -> None:
    """Record who was named with which keys, extending the earliest and latest times already known."""
    rows = [
        (item.key, item.visitor, item.sure, *_mention_columns(item.first), *_mention_columns(item.last), item.borrowed)
        for item in sorted(evidence, key=lambda item: (item.key, item.visitor))
    ]
    driver_of(conn).execute_rows(_WRITE_EVIDENCE, rows)


def _mention_columns(mention: Mention) -> tuple[int, int | None, str]:
    return mention.at_ms, mention.event_id, mention.event


def evidence_of_threads(conn: Connection, threads: Sequence[str]) -> Iterator[tuple[str, Evidence]]:
    """(thread, evidence) for everything known about these threads."""
    for thread, *row in driver_of(conn).execute_in(_OF_THREADS, threads):
        yield thread, _evidence(row)


def evidence_of_keys(conn: Connection, keys: Sequence[str]) -> Iterator[Evidence]:
    yield from map(_evidence, driver_of(conn).execute_in(_OF_KEYS, keys))


def _evidence(row: Sequence[Any]) -> Evidence:
    key, visitor, sure, first_at_ms, first_event_id, first_event, last_at_ms, last_event_id, last_event, borrowed = row
    return Evidence(
        key,
        visitor,
        bool(sure),
        Mention(first_at_ms, first_event, first_event_id),
        Mention(last_at_ms, last_event, last_event_id),
        bool(borrowed),
    )


def customers_of(conn: Connection, threads: Sequence[str]) -> list[tuple[str, Key]]:
    """(thread, key): the customers and people named together with the threads' keys."""
    return [(thread, Key(*customer)) for thread, *customer in driver_of(conn).execute_in(_CUSTOMERS, threads)]


def people_of(conn: Connection, customers: Sequence[str]) -> list[tuple[str, Key]]:
    """(customer, person): the people named together with these customers."""
    return [(customer, Key(*person)) for customer, *person in driver_of(conn).execute_in(_PEOPLE_OF, customers)]


def customers_with(conn: Connection, people: Sequence[str]) -> list[tuple[str, Key]]:
    """(person, customer): the customers named together with these people."""
    return [(person, Key(*customer)) for person, *customer in driver_of(conn).execute_in(_CUSTOMERS_WITH, people)]


def guests_with(conn: Connection, people: Sequence[str]) -> list[tuple[str, str]]:
    """(person, address): the addresses named together with these people by events without a customer."""
    return [(person, address) for person, address in driver_of(conn).execute_in(_GUESTS, people) if address != person]


def with_one_customer(conn: Connection, keys: Sequence[str]) -> set[str]:
    """Those of these keys whose events name one common customer (`keys_of_one_customer`)."""
    events: dict[tuple[str, int, int], tuple[set[str], bool | None]] = {}
    for key, event_id, element, named, customer in driver_of(conn).execute_in(_NAMED_TOGETHER, keys):
        customers, _ = events.setdefault((key, event_id, element), (set(), named))
        if customer is not None:
            customers.add(customer)
    return keys_of_one_customer((key, customers, named) for (key, *_), (customers, named) in events.items())


def sizes(conn: Connection, threads: Sequence[str]) -> dict[str, int]:
    """How many keys each thread has."""
    return dict(driver_of(conn).execute_in(_SIZES, threads))


def rename(conn: Connection, names: Mapping[str, str]) -> None:
    """Move the keys of threads into other threads: old name → new name."""
    if names:
        driver_of(conn).execute_many(_RENAME, [(name, old) for old, name in names.items()])


def keys_in(conn: Connection, threads: Sequence[str]) -> list[str]:
    return [key for (key,) in driver_of(conn).execute_in(_IN_THREADS, threads)]


def edges_in(conn: Connection, threads: Sequence[str]) -> list[tuple[str, ...]]:
    """Which keys of these threads each event named together."""
    edges: dict[tuple[int, int], list[str]] = {}
    for event_id, element, key in driver_of(conn).execute_in(_EDGES, threads):
        edges.setdefault((event_id, element), []).append(key)
    return list(map(tuple, edges.values()))


def stop(conn: Connection, key: str, reason: str, now: int, parts: Mapping[str, str]) -> None:
    """Stop a key from joining others; `parts` says which thread each of the others is in now."""
    driver = driver_of(conn)
    driver.execute(_STOP, (now, reason, key))
    if parts:
        driver.execute_many(_MOVE, [(name, moved) for moved, name in parts.items()])
