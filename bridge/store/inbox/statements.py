"""The SQL text that runs for every event in the inbox. It decides nothing."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from bridge.store.database.driver import driver_of, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

GAPS_MS: Final = 30 * 86_400_000  # the longest silence between two events is kept for this period and the one before

NEW_COLUMNS: Final = (
    "source", "provider", "dedupe_key", "dedupe_key_2", "type", "provider_event_id", "account", "test",
    "stated_at_ms", "order_at_ms", "headers", "query", "body", "state", "reason", "signature",
)  # fmt: skip
_NEW: Final = f"({'?, ' * len(NEW_COLUMNS)}{{now}})"
_INSERT: Final = (
    f"INSERT INTO events ({', '.join(NEW_COLUMNS)}, received_at_ms) VALUES {_NEW}"  # noqa: S608 - no value in it
    " ON CONFLICT DO NOTHING RETURNING source, dedupe_key"
)
BY_KEY: Final = "SELECT id, type, dedupe_key FROM events WHERE source = ? AND dedupe_key IN ({names})"
BY_KEY_2: Final = "SELECT id, type, dedupe_key_2 FROM events WHERE source = ? AND dedupe_key_2 IN ({names})"
REPEATED_ID: Final = "UPDATE events SET duplicates = duplicates + 1 WHERE id = ?"
REPEATED: Final = (
    "UPDATE events SET duplicates = duplicates + 1 WHERE id = (SELECT min(id) FROM events"
    " WHERE (source = ? AND dedupe_key = ?) OR (source = ? AND dedupe_key_2 = ?))"
)

# Count accepted events: source, new ones, duplicates. Any of them ends a run of refusals, and the silence before it may
# be the longest so far.
_GAP: Final = "(excluded.last_accepted_at_ms - source_counters.last_accepted_at_ms)"
_OVER: Final = (
    f"(source_counters.gaps_began_at_ms IS NULL OR excluded.last_accepted_at_ms NOT BETWEEN"
    f" source_counters.gaps_began_at_ms AND source_counters.gaps_began_at_ms + {GAPS_MS})"
)
STORED: Final = (  # no value in it
    "INSERT INTO source_counters (source, accepted, duplicates, last_accepted_at_ms) VALUES (?, ?, ?, {now})"  # noqa: S608
    " ON CONFLICT (source) DO UPDATE SET accepted = source_counters.accepted + excluded.accepted,"
    " duplicates = source_counters.duplicates + excluded.duplicates, refused_in_row = 0,"
    " last_accepted_at_ms = excluded.last_accepted_at_ms,"
    f" longest_gap_ms = CASE WHEN {_OVER} OR source_counters.longest_gap_ms IS NULL"
    f" OR source_counters.longest_gap_ms < {_GAP} THEN {_GAP} ELSE source_counters.longest_gap_ms END,"
    f" longest_gap_before_ms = CASE WHEN {_OVER} THEN source_counters.longest_gap_ms"
    " ELSE source_counters.longest_gap_before_ms END,"
    f" gaps_began_at_ms = CASE WHEN {_OVER} THEN excluded.last_accepted_at_ms"
    " ELSE source_counters.gaps_began_at_ms END"
)

# Two simultaneous routers see different rows on PostgreSQL; on SQLite the second waits until the first is done.
_WAITING: Final = (
    "SELECT id, tries, coalesce(length(body), 0) FROM events"
    " WHERE state = 'received' AND (lease_until_ms IS NULL OR lease_until_ms <= {now}) ORDER BY id LIMIT ? {lock_free}"
)
COLUMNS: Final = (
    "id", "source", "provider", "type", "provider_event_id", "stated_at_ms", "order_at_ms", "test", "account",
    "received_at_ms", "state", "headers", "query", "body", "tries", "verdict", "reason", "duplicates",
)  # fmt: skip
_CLAIM: Final = (  # noqa: S608 - no value in it
    "UPDATE events SET tries = tries + 1, lease_token = ?, lease_until_ms = {now} + ? WHERE id IN ({names}) RETURNING "
) + ", ".join(COLUMNS)
_FINISH: Final = (
    "UPDATE events SET state = 'routed', verdict = ?, reason = ?, trace = ?, rules_hash = ?, routed_at_ms = {now},"
    " lease_token = NULL, lease_until_ms = NULL WHERE id = ? AND state = 'received' AND lease_token = ?"
)


@cache
def insert_text(rows: int, dialect: str) -> str:
    """An INSERT that returns the (source, first key) of the new rows. These pairs must be distinct."""
    return render(_INSERT.replace(_NEW, ", ".join([_NEW] * rows)), dialect)


def waiting(conn: Connection, limit: int) -> list[tuple[int, int, int]]:
    """The oldest events waiting for routing: (id, tries, bytes of the body)."""
    return [(event_id, tries, size) for event_id, tries, size in driver_of(conn).execute(_WAITING, (limit,))]


def claim(conn: Connection, event_ids: Sequence[int], token: str, lease_ms: int) -> list[tuple[Any, ...]]:
    """Lease these events; return the values of `COLUMNS` for each, in any order."""
    return driver_of(conn).execute_in(_CLAIM, event_ids, (token, lease_ms))


def finish(conn: Connection, ends: Sequence[tuple[Any, ...]]) -> int:
    """End the routing of events: (verdict, reason, trace, rules hash, id, token); return how many leases still held."""
    return driver_of(conn).execute_many(_FINISH, ends)
