"""Upgrade a database to this release's tables, one process at a time, and report its state.

A lock held for the whole transaction makes other processes wait, and then find nothing to do: BEGIN IMMEDIATE on
SQLite, an advisory lock on PostgreSQL (whose DDL is transactional, too). A failed migration leaves nothing behind.

While a migration waits for a table, every later transaction waits behind it. So a migration locks all tables before
changing any, waits less than 2 s, lets the others pass, and tries again: a backup or a long transaction delays a
release but stops nothing.

The revision is in `bridge_version`. `alembic_version` belongs to whichever application uses Alembic's default name; up
to revision 0004 that was this one. Its row is taken over, and kept so that the previous release can read it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from sqlalchemy import column, func, insert, inspect, select, table, union, update
from sqlalchemy.schema import CreateTable

from bridge.errors import SchemaError, StoreConflict, StoreLocked
from bridge.store import schema
from bridge.store.database.begin import ANSWER_S, limit, lock_table
from bridge.store.database.engine import Store, open  # noqa: A004 - the store's own
from bridge.store.migrations import REVISIONS
from bridge.store.schema import alembic_version, bridge_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection, Executable

SchemaState: TypeAlias = Literal["current", "older", "newer", "empty"]

_LOCK: Final = 7_318_349_394_477_057  # the lock id of this program's migrations alone
_FORMER: Final = REVISIONS[: REVISIONS.index("0004") + 1]  # the revisions that were kept in alembic_version
_OURS: Final = {  # columns that no other application's tables have
    "events": {"dedupe_key", "dedupe_key_2", "lease_until_ms"},
    "goals": {"once_key", "provenance", "weak_at_ms"},
    "pace": {"token_hash", "next_at_us"},
    "link_keys": {"thread", "stopped_at_ms"},
}
_PATIENCE_S: Final = {"sqlite": 60.0, "postgresql": 600.0}  # while another process migrates or makes a backup
_LOCK_S: Final = 1.5  # for all tables together; transactions waiting behind give up after 2 s
_PAUSE_S: Final = 1.0  # in which transactions waiting behind a migration get their table
_STATEMENT_S: Final = 1_800.0  # per statement of a migration: an index over many millions of rows


def schema_state(store: Store) -> SchemaState:
    """The state of the tables. `newer`: a later release migrated them; this one still runs on the next schema."""
    with store.read() as conn:
        return _state(conn)


def _state(conn: Connection) -> SchemaState:
    found = _version(conn)
    if found is None:
        return "empty" if _former_revision(conn) is None and _require_no_tables(conn) else "older"
    if found not in REVISIONS:
        return "newer"
    return "current" if found == REVISIONS[-1] else "older"


def _version(conn: Connection) -> str | None:
    if not inspect(conn).has_table("bridge_version"):
        return None
    return conn.execute(select(bridge_version.c.version_num)).scalar()


def _former_revision(conn: Connection) -> str | None:
    """The revision that an earlier release wrote to `alembic_version`. None: that table is not ours.

    Another application's table is not even read, because its revisions may look like ours.
    """
    if not _has_tables(conn, _OURS) or not _has_tables(conn, {"alembic_version": {"version_num"}}):
        return None
    rows = set(conn.execute(select(alembic_version.c.version_num)).scalars())
    return next((revision for revision in _FORMER if rows & {revision}), None)


def _has_tables(conn: Connection, required: Mapping[str, set[str]]) -> bool:
    """Whether these tables exist with at least these columns."""
    found = inspect(conn)
    return all(
        found.has_table(table) and columns <= {column["name"] for column in found.get_columns(table)}
        for table, columns in required.items()
    )


def _require_no_tables(conn: Connection) -> bool:
    """Raise SchemaError, naming the tables, if another program has tables under the names of ours."""
    if conn.dialect.name == "postgresql" and conn.execute(select(func.current_schema())).scalar() is None:
        raise SchemaError(
            "the schema that DATABASE_URL leads to does not exist, or its role may not use it: run CREATE SCHEMA, or"
            " GRANT USAGE ON SCHEMA, in the database first"
        )
    conflicting = sorted({*schema.metadata.tables} & set(conn.execute(_NAMES[conn.dialect.name]).scalars()))
    if not conflicting:
        return True
    if _has_tables(conn, _OURS):
        raise SchemaError(
            "the bridge's tables are there, but bridge_version does not name their release: put a backup in place,"
            " then run `python -m bridge migrate`"
        )
    more = f" and {len(conflicting) - 3} more" if len(conflicting) > 3 else ""
    raise SchemaError(
        f"the database has tables or other objects named {', '.join(conflicting[:3])}{more} that are not the bridge's:"
        f" {_ADVICE[conn.dialect.name]}. Nothing was changed."
    )


_SCHEMA: Final = table("pg_namespace", column("oid"), column("nspname"))
_MINE: Final = select(_SCHEMA.c.oid).where(_SCHEMA.c.nspname == func.current_schema()).scalar_subquery()
_NAMES: Final[Mapping[str, Executable]] = {
    "sqlite": select(column("name")).select_from(table("sqlite_master")),
    "postgresql": union(
        select(column("relname")).select_from(table("pg_class")).where(column("relnamespace") == _MINE),
        select(column("typname")).select_from(table("pg_type")).where(column("typnamespace") == _MINE),
    ),
}
_ADVICE: Final = {
    "sqlite": "name another file in DATABASE_URL",
    "postgresql": (
        "give the bridge a database of its own, or a schema (CREATE SCHEMA bridge, and ?schema=bridge in DATABASE_URL)"
    ),
}


def migrate(
    database: str | Store, *, patience_s: float | None = None, on_wait: Callable[[str], None] | None = None
) -> bool:
    """Create or upgrade the tables. False: nothing to do; the tables of a later release are left unchanged.

    patience_s: how long to wait for another process's locks (at least as long as any write waits). on_wait: called
    once, with the reason, if it has to wait. A rollback to the previous release must work: its start and its release
    phase find the later release's tables.
    """
    if isinstance(database, Store):
        return _migrate(database, patience_s, on_wait)
    store = open(database, pool_size=1)
    try:
        return _migrate(store, patience_s, on_wait)
    finally:
        store.close()


def _migrate(store: Store, patience_s: float | None, on_wait: Callable[[str], None] | None) -> bool:
    until = time.monotonic() + (_PATIENCE_S[store.dialect] if patience_s is None else patience_s)
    while True:
        try:
            if schema_state(store) in ("current", "newer"):
                return False  # without waiting for transactions that are writing
            with store.write() as conn:
                return _upgrade(conn)
        except (StoreConflict, StoreLocked) as error:  # in use; or a release that is running met it in a deadlock
            if time.monotonic() > until:
                raise
            if on_wait is not None:
                on_wait(str(error))
                on_wait = None
            if store.dialect == "postgresql":
                time.sleep(_PAUSE_S)


def _upgrade(conn: Connection) -> bool:
    if conn.dialect.name == "postgresql":
        _set_limit(conn, "statement_timeout", _STATEMENT_S)
        _set_limit(conn, "idle_in_transaction_session_timeout", 60.0)  # Alembic is imported meanwhile
        conn.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        _lock_tables(conn)
        limit(conn, _STATEMENT_S + ANSWER_S)
    state = _state(conn)
    if state in ("current", "newer"):
        return False
    if state == "empty":
        _create(conn)
    else:
        _upgrade_from(conn, _former_revision(conn) if _version(conn) is None else None)
    return True


def _set_limit(conn: Connection, name: str, seconds: float) -> None:
    """Change one of PostgreSQL's time limits until the end of the transaction; 0 would be no limit."""
    conn.execute(select(func.set_config(name, f"{max(1, int(seconds * 1000))}", True)))


def _lock_tables(conn: Connection) -> None:
    """Lock all tables at once: a migration holding one and waiting for another would block whoever needs both."""
    until = time.monotonic() + _LOCK_S
    existing = set(inspect(conn).get_table_names()) if _has_tables(conn, _OURS) else set()
    for name in sorted(existing & {*schema.metadata.tables}):
        _set_limit(conn, "lock_timeout", until - time.monotonic())
        lock_table(conn, name)


def _create(conn: Connection) -> None:
    """Create all tables at once, marked as if every migration had run. A test proves that both give the same tables."""
    schema.metadata.create_all(conn, checkfirst=False)  # a database with other programs' tables is not empty
    conn.execute(CreateTable(bridge_version, if_not_exists=True))
    conn.execute(insert(bridge_version).values(version_num=REVISIONS[-1]))


def _upgrade_from(conn: Connection, former: str | None) -> None:
    """Run the migrations. former: the revision to take over from `alembic_version`.

    That row stays and gets the newest revision, so that releases that read it treat the tables as current or newer, and
    run on them. This program never writes there again.
    """
    if former is not None:
        conn.execute(CreateTable(bridge_version, if_not_exists=True))
        conn.execute(insert(bridge_version).values(version_num=former))
    _run_alembic(conn)
    if former is not None:
        row = alembic_version.c.version_num == former
        conn.execute(update(alembic_version).where(row).values(version_num=REVISIONS[-1]))


def _run_alembic(conn: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - 180 ms and 8 MB, which a first start does not need
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
