"""Map all drivers' errors to the three errors that a caller can act on.

- StoreUnavailable: try later (disk full, locked, gone, shut down, not allowed).
- StoreConflict: retry the same transaction at once (deadlock, serialization failure, a statement no longer prepared).
- SchemaError: migrate.

Anything else is a bug in this program, and is raised unchanged. Messages contain only the driver's first line, because
the rest may quote values. The drivers' classes are taken from the engine (PEP 249 gives them the same names), so only
the driver in use is loaded.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bridge.errors import SchemaError, StoreConflict, StoreLocked, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from bridge.errors import StoreError

UNANSWERED: Final = "08006"  # connection_failure: our own time limit expired (bridge.store.database.postgresql)
# The server is read-only, shutting down or starting up, or did not answer.
_SERVER_LOST: Final = frozenset({UNANSWERED, "25006", "57P01", "57P02", "57P03"})
_CONFLICT: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_NOT_PREPARED: Final = frozenset({"26000", "42P05"})  # a prepared statement is missing, or exists already
_CACHED_PLAN: Final = "cached plan"  # the words of 0A000 when a migration changed what a prepared statement returns
_SCHEMA: Final = frozenset({"42P01", "42703", "3F000"})  # no such table, column, schema
_LOCKED: Final = "55P03"  # a lock did not become free within lock_timeout
_SQLITE_SCHEMA: Final = ("no such table", "no such column", "has no column named")
_OUR_ERROR: Final = ("IntegrityError", "ProgrammingError", "DataError", "NotSupportedError")
MIGRATE: Final = "the database's tables are not those of this release: run `python -m bridge migrate`"

READ_ONLY: Final = "session is read-only"  # libpq's words when it found no server that accepts writes
_SENTENCES: Final = {
    "42501": (
        "the database forbids what the bridge has to do ({}): make the role of DATABASE_URL the owner of the bridge's"
        " tables, or grant it SELECT, INSERT, UPDATE and DELETE on them and USAGE on their sequences and schema"
    ),
    "25006": (
        "the database accepts no writes just now ({}): it is a standby, or was set read-only; DATABASE_URL must name"
        " the server that accepts them"
    ),
    "53100": "the database server has no room left on its disk ({}): make room there",
}

# How servers and poolers say that they have no connection to spare; without a connection there is no error code.
_OUT_OF_CONNECTIONS: Final = re.compile(
    r"too many (?:clients|connections|database connections)|connection slots|no more connections|query_wait_timeout"
    r"|max(?:imum)? ?client|max clients|connection limit",
    re.IGNORECASE,
)


def forbidden(reason: str) -> str:
    """The sentence for a missing privilege. reason: the server's own."""
    return _SENTENCES["42501"].format(reason)


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn errors of SQLAlchemy and the engine's driver into errors of the store.

    If the error shows that the pool's other connections are useless, too, they are closed.
    """
    driver: Any = engine.dialect.dbapi
    try:
        yield
    except PoolTimeout:
        raise StoreUnavailable("the database is busy: no connection came free in time") from None
    except (DBAPIError, driver.Error) as error:
        cause = getattr(error, "orig", error)
        if getattr(error, "connection_invalidated", False) or is_server_lost(error) or _is_not_prepared(cause):
            engine.dispose()
        mapped = _mapped(cause, driver)
        if mapped is None:
            raise
        raise mapped from error


def is_server_lost(error: BaseException | None) -> bool:
    """Whether every connection to this server is useless from now on: a new one may reach another server."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) in _SERVER_LOST


def _is_not_prepared(error: BaseException | None) -> bool:
    """Whether a connection's prepared statements have become useless; those of a new connection work."""
    code = getattr(error, "sqlstate", None)
    return code in _NOT_PREPARED or (code == "0A000" and _CACHED_PLAN in str(error))


def is_out_of_connections(error: BaseException | None) -> bool:
    """Whether the server, or a pooler in front of it, had no connection to spare."""
    return _OUT_OF_CONNECTIONS.search(str(error)) is not None


def _mapped(error: BaseException | None, driver: Any) -> StoreError | None:
    reason = _first_line(error)
    if isinstance(error, sqlite3.Error) and any(word in reason for word in _SQLITE_SCHEMA):
        return SchemaError(f"{MIGRATE} ({reason})")
    if isinstance(error, sqlite3.Error) and "file is not a database" in reason:
        return StoreUnavailable("the file that DATABASE_URL names is not a SQLite database: name another one")
    if isinstance(error, sqlite3.Error) and "malformed" in reason:
        return StoreUnavailable(
            "the database file is damaged (database disk image is malformed): stop the bridge and put a backup there"
        )
    code = getattr(error, "sqlstate", None)
    if code in _SCHEMA:
        return SchemaError(f"{MIGRATE} ({reason}; or is its role not allowed to use their schema?)")
    if code in _CONFLICT or _is_not_prepared(error):
        return StoreConflict(f"the database ended the transaction, which can be tried again ({reason})")
    if code in _SENTENCES or READ_ONLY in reason:
        return StoreUnavailable(_SENTENCES.get(str(code), _SENTENCES["25006"]).format(reason))
    if code == _LOCKED or (isinstance(error, sqlite3.Error) and "locked" in reason):
        return StoreLocked(f"the database cannot be used just now: {reason}")
    if not isinstance(error, sqlite3.Error) and is_out_of_connections(error):
        return StoreUnavailable(
            f"the database server has no connection to spare ({reason}): end what else uses it, or allow more"
            " (docs/operations.md, Connections)"
        )
    if isinstance(error, tuple(getattr(driver, name) for name in _OUR_ERROR)):
        return None
    return StoreUnavailable(f"the database cannot be used just now: {reason}")


def _first_line(error: BaseException | None) -> str:
    primary = getattr(getattr(error, "diag", None), "message_primary", None)  # PostgreSQL's, without its quotations
    if primary:
        return str(primary)
    return next(iter(str(error).strip().splitlines()), "no reason given")[:200]
