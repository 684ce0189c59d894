"""SQLite's engine and its file. Only this module opens the file: privately, and always the one that was opened first.

One connection is kept open and unused, so that the log beside the file stays the same as long as this process has any
connection: closing the last one would remove the log.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import create_engine, event
from sqlalchemy.pool import QueuePool

from bridge.errors import StoreGone, StoreUnavailable
from bridge.settings.database_file import Watch, make_private
from bridge.settings.database_url import sqlite_file
from bridge.store.database.begin import LAZY, LEVEL, READ, WAIT_S, WRITE
from bridge.store.database.failures import translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

    Connect = Callable[..., sqlite3.Connection]

_PRAGMAS: Final = ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "journal_size_limit=67108864")


def engine(url: URL, clock: Callable[[], int], pool_size: int) -> tuple[Engine, File | NoFile]:
    """The engine for a SQLite URL, and the watcher of its file."""
    path = sqlite_file(str(url))
    file: File | NoFile = NoFile() if path is None else File(path)
    in_memory = url.database in (None, "", ":memory:")
    new_engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1 if in_memory else pool_size,
        max_overflow=0 if in_memory else pool_size,
        pool_use_lifo=True,  # each has its own cache, and the one used last has the pages
        pool_timeout=WAIT_S,
        connect_args={"isolation_level": None, "timeout": WAIT_S, "check_same_thread": False},
        hide_parameters=True,
    )

    @event.listens_for(new_engine, "do_connect")
    def connect(dialect: Any, _record: Any, cargs: list[str], cparams: dict[str, Any]) -> sqlite3.Connection:
        return file.connect(lambda name, **more: dialect.connect(name, **{**cparams, **more}), *cargs)

    @event.listens_for(new_engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        record.info.update({READ: "BEGIN", WRITE: "BEGIN IMMEDIATE", LAZY: "BEGIN IMMEDIATE"})
        connection.create_function("bridge_now_ms", 0, clock)
        write_ahead(connection)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(new_engine, "checkin")
    def restore(connection: sqlite3.Connection | None, record: Any) -> None:
        level = record.info.pop(LEVEL, None)
        if connection is not None and level is not None:
            connection.execute(f"PRAGMA synchronous={level}")

    return new_engine, file


class NoFile:
    """Stands in for the file of a database without one to watch: on a server or in memory. Nothing can be gone."""

    def connect(self, connect: Connect, name: str) -> sqlite3.Connection:
        return connect(name)

    def _nothing(self) -> None: ...

    require_not_gone = require = forget = close = _nothing


class File:
    """The file of a SQLite database, and the only way to open it. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._watch = Watch(path)
        self._lock = threading.Lock()
        self._kept: sqlite3.Connection | None = None
        self.require_not_gone = self._watch.require_not_gone

    def connect(self, connect: Connect, name: str) -> sqlite3.Connection:
        """A new connection. Raises StoreGone if it would lead to a file other than the first one."""
        with self._lock:
            if self._kept is None:
                self._kept = self._first(connect, name)
        self.require()
        connection = _opened(connect, name)
        try:
            self.require()
        except BaseException:
            connection.close()
            raise
        return connection

    def _first(self, connect: Connect, name: str) -> sqlite3.Connection:
        make_private(self._path)
        before = self._watch.before()
        connection = _opened(connect, name)
        try:
            write_ahead(connection)
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # a read opens the log
            self._watch.begin(before)
        except BaseException:
            connection.close()
            raise
        return connection

    def require(self) -> None:
        """Raise StoreGone, now and from now on, unless the path leads to the open file.

        The log is merged each time: a transaction open at the first time may have prevented it, or written more.
        """
        try:
            self._watch.require()
        except StoreGone:
            self._complete()
            raise

    def _complete(self) -> None:
        """Merge the log into the old file, so that the file is complete, wherever it was moved.

        The log stays at the path, but empty; otherwise SQLite would replay it into whatever file is put there.
        """
        with self._lock, suppress(sqlite3.Error):
            if self._kept is not None:
                self._kept.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def forget(self) -> None:
        """After a fork, leave the open connections to the parent process."""
        self._lock = threading.Lock()
        self._kept = None
        self._watch.end()

    def close(self) -> None:
        with suppress(StoreUnavailable):
            self.require()
        with self._lock:
            kept, self._kept = self._kept, None
            self._watch.end()
        if kept is not None:
            kept.close()


def _opened(connect: Connect, name: str) -> sqlite3.Connection:
    """Open an existing file: by default, SQLite would create an empty one in place of a file that vanished."""
    if name.startswith("file:"):
        return connect(name)
    return connect(f"file:{quote(os.fsencode(name))}?mode=rw", uri=True)


def write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. The switch does not wait for SQLite's lock, so it is retried."""
    for _ in range(50):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.02)
        else:
            return


def waits_for_disk(connection: Any) -> bool:
    """Whether a commit waits until it is on the disk."""
    return connection.execute("PRAGMA synchronous").fetchone()[0] in (2, 3)  # FULL, EXTRA


def overwrite_deleted(connection: Any) -> None:
    """From now on, overwrite what this connection deletes."""
    connection.execute("PRAGMA secure_delete = ON")


def overwrite_freed(engine: Engine, bytes_max: int) -> bool:
    """Overwrite the file's freed pages, and the log. False: the file is in use, or larger than this."""
    with closing(engine.raw_connection()) as pooled, suppress(sqlite3.OperationalError):
        driver: Any = pooled.driver_connection
        pages, size = (driver.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        if pages * size <= bytes_max:
            driver.execute("VACUUM")
            return bool(driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
    return False


def bound_log(engine: Engine, pages_max: int) -> None:
    """Truncate the log when it has grown: it can restart only at a moment without readers."""
    unless_busy = suppress(sqlite3.OperationalError)  # another process is busy with it
    with translated(engine), unless_busy, closing(engine.raw_connection()) as pooled:
        driver: Any = pooled.driver_connection
        _busy, pages, _moved = driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if pages > pages_max:
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
