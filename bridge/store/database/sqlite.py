"""SQLite's engine, and its file. Only this module opens it: privately, and always the file that was opened first.

One connection is kept that does nothing, so that the log beside the file stays the same one for as long as this process
has any connection: closing the last one would remove it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import create_engine, event
from sqlalchemy.pool import QueuePool

from bridge.errors import StoreGone, StoreUnavailable
from bridge.settings.database_file import Watch, make_private
from bridge.settings.database_url import sqlite_file
from bridge.store.database.begin import LAZY, LEVEL, READ, WAIT_S, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

    Connect = Callable[..., sqlite3.Connection]

_PRAGMAS: Final = ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "journal_size_limit=67108864")


def engine(url: URL, clock: Callable[[], int], pool_size: int) -> tuple[Engine, File | NoFile]:
    """The engine of a SQLite URL, and what watches its file."""
    path = sqlite_file(str(url))
    file: File | NoFile = NoFile() if path is None else File(path)
    in_memory = url.database in (None, "", ":memory:")
    made = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1 if in_memory else pool_size,
        max_overflow=0 if in_memory else pool_size,
        pool_use_lifo=True,  # each has a cache of its own: the one that was used last has the pages
        pool_timeout=WAIT_S,
        connect_args={"isolation_level": None, "timeout": WAIT_S, "check_same_thread": False},
        hide_parameters=True,
    )

    @event.listens_for(made, "do_connect")
    def connect(dialect: Any, _record: Any, cargs: list[str], cparams: dict[str, Any]) -> sqlite3.Connection:
        return file.connect(lambda name, **more: dialect.connect(name, **{**cparams, **more}), *cargs)

    @event.listens_for(made, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        record.info.update({READ: "BEGIN", WRITE: "BEGIN IMMEDIATE", LAZY: "BEGIN IMMEDIATE"})
        connection.create_function("bridge_now_ms", 0, clock)
        write_ahead(connection)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(made, "checkin")
    def restore(connection: sqlite3.Connection | None, record: Any) -> None:
        level = record.info.pop(LEVEL, None)
        if connection is not None and level is not None:
            connection.execute(f"PRAGMA synchronous={level}")

    return made, file


class NoFile:
    """Stands for the file of a database that has none to watch: a server's, or one in memory. Nothing can be gone."""

    def connect(self, connect: Connect, name: str) -> sqlite3.Connection:
        return connect(name)

    def _nothing(self) -> None: ...

    demand_not_gone = demand = forget = close = _nothing


class File:
    """The file of a SQLite database, and the only way to it. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._watch = Watch(path)
        self._lock = threading.Lock()
        self._kept: sqlite3.Connection | None = None
        self.demand_not_gone = self._watch.demand_not_gone

    def connect(self, connect: Connect, name: str) -> sqlite3.Connection:
        """A new connection; StoreGone where it would lead to another file than the first one."""
        with self._lock:
            if self._kept is None:
                self._kept = self._first(connect, name)
        self.demand()
        connection = _opened(connect, name)
        try:
            self.demand()
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
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # which opens the log
            self._watch.begin(before)
        except BaseException:
            connection.close()
            raise
        return connection

    def demand(self) -> None:
        """StoreGone, now and from now on, unless the path leads to the open file.

        The log is moved each time: a transaction that was open at the first time may have kept it, or written to it.
        """
        try:
            self._watch.demand()
        except StoreGone:
            self._complete()
            raise

    def _complete(self) -> None:
        """Move the log into the file that was left: it is whole then, wherever it went.

        The log, which stays at the path, is empty then; otherwise SQLite would read it into whatever file is put there.
        """
        with self._lock, suppress(sqlite3.Error):
            if self._kept is not None:
                self._kept.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def forget(self) -> None:
        """Leave to the parent process, after a fork, what it has open."""
        self._lock = threading.Lock()
        self._kept = None
        self._watch.end()

    def close(self) -> None:
        with suppress(StoreUnavailable):
            self.demand()
        with self._lock:
            kept, self._kept = self._kept, None
            self._watch.end()
        if kept is not None:
            kept.close()


def _opened(connect: Connect, name: str) -> sqlite3.Connection:
    """Open a file that is there: SQLite's own way would put an empty one in the place of one that vanished."""
    if name.startswith("file:"):
        return connect(name)
    return connect(f"file:{quote(os.fsencode(name))}?mode=rw", uri=True)


def write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. The switch itself does not wait for SQLite's lock, so it is tried again."""
    for _ in range(50):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.02)
        else:
            return
