"""Bring a database to this release's tables, one process at a time; and say how far one is.

A lock that lives as long as the transaction makes others wait and then find nothing to do: BEGIN IMMEDIATE on
SQLite, an advisory lock on PostgreSQL (its DDL is transactional, too). A failed migration leaves nothing behind.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection, Engine, inspect, text

from bridge.errors import StoreUnavailable
from bridge.store import schema
from bridge.store.engine import ANSWER_S, READ, Store, limit, open  # noqa: A004 - the store's own
from bridge.store.failures import translated
from bridge.store.migrations import REVISIONS

SchemaState: TypeAlias = Literal["current", "older", "newer", "empty"]

_LOCK: Final = 7_318_349_394_477_057  # "migrating", of this program alone
_VERSIONS: Final = (
    "CREATE TABLE IF NOT EXISTS alembic_version"
    " (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)  # Alembic's own
_PATIENCE_S: Final = 60.0  # while another process migrates
_STATEMENT_S: Final = 1_800.0  # of one statement of a migration: an index over many millions of rows


def schema_state(database: Store | Engine) -> SchemaState:
    """How far the tables are. `newer`: a later release has migrated them; this one still runs on the next schema."""
    if isinstance(database, Store):
        with database.read() as conn:
            return _state(conn)
    with translated(database), database.execution_options(**{READ: True}).connect() as conn:
        return _state(conn)


def _state(conn: Connection) -> SchemaState:
    if not inspect(conn).has_table("alembic_version"):
        return "empty"
    found = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found is None:
        return "empty"
    if found not in REVISIONS:
        return "newer"
    return "current" if found == REVISIONS[-1] else "older"


def migrate(database: str | Store, *, patience_s: float = _PATIENCE_S) -> bool:
    """Create or upgrade the tables. False: there was nothing to do; tables of a later release are left as they are.

    patience_s: how long a lock of somebody else is waited for (SQLite; at least once as long as any write waits).
    Going back to the release before must work: its start and its release phase meet the later release's tables.
    """
    if isinstance(database, Store):
        return _migrate(database, patience_s)
    store = open(database)
    try:
        return _migrate(store, patience_s)
    finally:
        store.close()


def _migrate(store: Store, patience_s: float) -> bool:
    until = time.monotonic() + patience_s
    while True:
        try:
            if schema_state(store) in ("current", "newer"):
                return False  # and nobody who writes just now is waited for
            with store.write() as conn:
                return _upgrade(conn)
        except StoreUnavailable as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise


def _upgrade(conn: Connection) -> bool:
    if conn.dialect.name == "postgresql":
        conn.execute(text(f"SET LOCAL statement_timeout = {int(_STATEMENT_S * 1000)}"))
        limit(conn, _STATEMENT_S + ANSWER_S)
        conn.execute(text(f"SET LOCAL lock_timeout = {int(_PATIENCE_S * 1000)}"))
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    state = _state(conn)
    if state in ("current", "newer"):
        return False
    if state == "empty":
        _create(conn)
    else:
        _run_alembic(conn)
    return True


def _create(conn: Connection) -> None:
    """All tables at once, marked as if every migration had run. A test proves that the migrations make the same."""
    schema.metadata.create_all(conn, checkfirst=False)  # tables of somebody else are no empty database
    conn.execute(text(_VERSIONS))
    conn.execute(text("INSERT INTO alembic_version VALUES (:newest)"), {"newest": REVISIONS[-1]})


def _run_alembic(conn: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - 180 ms and 8 MB, and a first start need not wait for it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
