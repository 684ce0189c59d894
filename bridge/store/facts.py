"""The bridge's own facts: small named strings, such as the key of the filter `hash`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.store.database.driver import driver_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

HASH_KEY: Final = "hash_key"  # hex; for the filter `hash`
EMAIL_KEY: Final = "email_key"  # hex; for hashing e-mail addresses, made when first needed and kept forever

_GET: Final = "SELECT value FROM facts WHERE name = ?"  # runs for every goal: the facts about the clock and restores
_GET_TIMED: Final = "SELECT {now}, (SELECT value FROM facts WHERE name = ?)"
_GET_LOCKED: Final = f"{_GET} {{lock}}"
_PUT: Final = "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
_MAKE: Final = "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING"


def get(conn: Connection, name: str, *, lock: bool = False) -> str | None:
    """The value under a name. lock: nobody else can change it before the transaction ends."""
    rows = driver_of(conn).execute(_GET_LOCKED if lock else _GET, (name,))
    return rows[0][0] if rows else None


def get_timed(conn: Connection, name: str) -> tuple[int, str | None]:
    """The database's time, and the value under a name at that moment."""
    [(now, value)] = driver_of(conn).execute(_GET_TIMED, (name,))
    return int(now), value


def put(conn: Connection, name: str, value: str) -> None:
    """Write a value, replacing any existing one."""
    driver_of(conn).execute(_PUT, (name, value))


def ensure(conn: Connection, name: str, make: Callable[[], str]) -> str:
    """The value under a name, made now if there is none. If two make it at once, the first one's counts for both."""
    known = get(conn, name)
    if known is not None:
        return known
    driver_of(conn).execute(_MAKE, (name, make()))
    stored = get(conn, name)
    assert stored is not None
    return stored
