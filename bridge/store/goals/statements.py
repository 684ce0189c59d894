"""The SQL text that makes goals from events. Each statement uses an index and decides nothing.

What runs less than once per event, such as parking and merging, is written with SQLAlchemy in the module that decides
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bridge.identity.choice import Strangers
from bridge.model import Key
from bridge.store.database.driver import driver_of
from bridge.store.links.statements import MATES, USES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from bridge.identity.choice import Evidence
    from bridge.model import NamedVisitor

    GoalPlace = tuple[str, str]  # a destination and something unique there: a once key, a visitor

_COLUMNS: Final = (
    "event_id", "source", "rule_id", "rules_hash", "destination", "once_key", "test", "name", "description", "metadata",
    "visitor", "provenance", "state", "reason", "message", "happened_at_ms", "time_is_stated", "ordered_at_ms",
    "created_at_ms", "changed_at_ms", "due_at_ms", "expires_at_ms", "wait_ms", "parked_until_ms", "weak_at_ms",
    "to_prove", "handover", "kind", "notify",
)  # fmt: skip
_MAKE: Final = (
    f"INSERT INTO goals ({', '.join(_COLUMNS)}) VALUES {{rows}}"  # noqa: S608 - no value in it
    " ON CONFLICT (destination, once_key) DO NOTHING RETURNING id, destination, once_key"
)
_WRITE_KEYS: Final = "INSERT INTO goal_keys (goal_id, key) VALUES {rows} ON CONFLICT DO NOTHING"
_MADE: Final = (  # with a list of once keys, PostgreSQL without statistics would read all goals of their destination
    "WITH asked (destination, once_key) AS (VALUES {rows})"
    " SELECT destination, once_key, event_id FROM asked JOIN goals USING (destination, once_key)"
)
_OF_THREADS: Final = (
    "SELECT DISTINCT g.goal_id FROM link_keys k JOIN goal_keys g ON g.key = k.key"
    " WHERE k.thread IN ({names}) AND k.stopped_at_ms IS NULL"
)
_OF_KEYS: Final = "SELECT goal_id FROM goal_keys WHERE key IN ({names})"
_KEYS_OF: Final = (
    "SELECT g.goal_id, k.key, k.kind, k.ref FROM goal_keys g JOIN link_keys k ON k.key = g.key"
    " WHERE g.goal_id IN ({names}) ORDER BY g.goal_id, g.key"
)
_SEEN_WITH: Final = (  # goals of purchases seen with these customers
    "SELECT DISTINCT g.goal_id FROM link_events e"  # noqa: S608 - no value in it
    f"{MATES} JOIN link_keys k ON k.key = mate.key JOIN link_keys t ON t.thread = k.thread AND t.{USES}"
    " JOIN goal_keys g ON g.key = t.key WHERE e.key IN ({names})"
)
_ASK_ABOUT: Final = (
    "INSERT INTO visitor_proofs (destination, visitor, made_at_ms, again_at_ms) VALUES {rows} ON CONFLICT DO NOTHING"
)
_PROOFS: Final = (
    "SELECT destination, visitor, known FROM visitor_proofs WHERE known IS NOT NULL AND visitor IN ({names})"
)
_TROUBLES: Final = (
    "WITH asked (destination, visitor) AS (VALUES {rows}) SELECT destination, visitor, message"
    " FROM asked JOIN visitor_proofs USING (destination, visitor) WHERE known IS NULL"
)
_UNKNOWN: Final = "SELECT destination, visitor, at_ms FROM unknown_visitors WHERE visitor IN ({names})"
_NOTE_UNKNOWN: Final = (
    "INSERT INTO unknown_visitors (destination, visitor, at_ms) VALUES (?, ?, {now})"
    " ON CONFLICT (destination, visitor) DO UPDATE SET at_ms = excluded.at_ms"
)
_FORGET_UNKNOWN: Final = "DELETE FROM unknown_visitors WHERE destination = ? AND visitor = ?"


def make(conn: Connection, rows: Iterable[Mapping[str, Any]]) -> dict[GoalPlace, int]:
    """Write goals, except those that exist already; return the ids of the new ones."""
    written = driver_of(conn).execute_rows(_MAKE, [tuple(row[name] for name in _COLUMNS) for row in rows])
    return {(destination, once_key): goal_id for goal_id, destination, once_key in written}


def write_keys(conn: Connection, rows: Sequence[tuple[int, str]]) -> None:
    """Record which keys lead to which goals: (goal id, key)."""
    driver_of(conn).execute_rows(_WRITE_KEYS, rows)


def keys_of(conn: Connection, goal_ids: Sequence[int]) -> dict[int, list[Key]]:
    """The keys that lead to each of these goals."""
    found: dict[int, list[Key]] = {goal_id: [] for goal_id in goal_ids}
    for goal_id, *key in driver_of(conn).execute_in(_KEYS_OF, goal_ids):
        found[goal_id].append(Key(*key))
    return found


def made_before(conn: Connection, places: Iterable[GoalPlace], event_id: int | None = None) -> set[GoalPlace]:
    """Which of these goals exist already, in any state. event_id: only those that an event before this one made."""
    made = driver_of(conn).execute_rows(_MADE, list(places))
    return {(destination, once_key) for destination, once_key, by in made if event_id is None or by < event_id}


def linked_to(conn: Connection, threads: Collection[str], customers: Collection[str]) -> list[int]:
    """The goals of these threads, of these customers, and of purchases seen with them."""
    driver, weak = driver_of(conn), sorted(customers)
    found = driver.execute_in(_OF_THREADS, sorted(threads))
    found += driver.execute_in(_OF_KEYS, weak) + driver.execute_in(_SEEN_WITH, weak)
    return sorted({goal_id for (goal_id,) in found})


def ask_about(conn: Connection, pairs: Iterable[GoalPlace], now: int) -> None:
    """Queue these (destination, visitor) pairs to be asked about, unless already done."""
    driver_of(conn).execute_rows(_ASK_ABOUT, [(*pair, now, now) for pair in sorted(set(pairs))])


def last_problems(conn: Connection, pairs: Iterable[GoalPlace]) -> dict[GoalPlace, str | None]:
    """Why the last request about each of these visitors had no answer."""
    rows = driver_of(conn).execute_rows(_TROUBLES, list(pairs))
    return {(destination, visitor): message for destination, visitor, message in rows}


def strangers(conn: Connection, candidates: Iterable[NamedVisitor | Evidence], now: int) -> Strangers:
    """What destinations have said about these visitors, as far as they were asked."""
    borrowed: dict[str, bool] = {}
    for item in candidates:
        borrowed[item.visitor] = borrowed.get(item.visitor, False) or item.borrowed
    driver = driver_of(conn)
    unknown = driver.execute_in(_UNKNOWN, sorted(borrowed))
    proved = driver.execute_in(_PROOFS, sorted(visitor for visitor in borrowed if borrowed[visitor]))
    return Strangers(
        {(destination, visitor): at_ms for destination, visitor, at_ms in unknown},
        {(destination, visitor): bool(known) for destination, visitor, known in proved},
        now,
    )


def note_unknown(conn: Connection, destination: str, visitor: str) -> None:
    """Record a destination's final answer that it does not know this visitor."""
    driver_of(conn).execute(_NOTE_UNKNOWN, (destination, visitor))


def forget_unknown(conn: Connection, destination: str, visitor: str) -> None:
    """Record that a destination knows this visitor after all."""
    driver_of(conn).execute(_FORGET_UNKNOWN, (destination, visitor))
