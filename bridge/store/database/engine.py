"""The database behind a small interface: `open` a Store, then `read`, `write` or `run` a transaction.

SQLite and PostgreSQL behave alike here. The drivers are in autocommit mode and every transaction is begun explicitly
(`bridge.store.database.begin`): BEGIN IMMEDIATE behind a fair gate on SQLite (a deferred one that upgrades to a write
fails at once), BEGIN with its time limits in the same round trip on PostgreSQL, so that transaction-mode poolers work.
A thread holds at most one connection, and never waits for another while it does. If the server has fewer to spare than
this process may use, the threads share what there is, and idle connections are closed.
A pooled connection that died is detected at its BEGIN, when nothing is lost yet, and replaced once. Every wait for
PostgreSQL has a limit (bridge.store.database.postgresql), and any sign that the server is no longer the right one (it
is silent, shut down or read-only) discards all connections.
Every driver error is raised as StoreUnavailable, StoreConflict or SchemaError (bridge.store.database.failures).
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from bridge.errors import StoreConflict, StoreError
from bridge.settings.database_url import EXAMPLE
from bridge.store.clock import system_ms
from bridge.store.database import begin, sqlite
from bridge.store.database.begin import LAZY, READ, WAIT_S, WRITE, Gate
from bridge.store.database.driver import Driver
from bridge.store.database.failures import translated
from bridge.store.database.sqlite import NoFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from bridge.store.database.sqlite import File

# What they log is also raised as an error; without a handler, Python would print it with its stack trace.
for _library in ("sqlalchemy", "psycopg"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

T = TypeVar("T")

NARROW_S: Final = 30.0  # how long no further connection is tried after one failed
IDLE_S: Final = 6.0  # after which an idle connection is closed; a busy process keeps the one it uses
_AGAIN_S: Final = 0.1  # between two tries for the first connection
_TRIES: Final = 5  # for one transaction that meets conflicts


class Store:
    """One database. Thread-safe, and usable on both sides of a fork: a child opens connections of its own."""

    def __init__(
        self,
        engine: Engine,
        *,
        file: File | NoFile,
        gate: Callable[[], Gate] = Gate,
        still_open: Callable[[], int] = int,
        patience_s: float = WAIT_S,
    ) -> None:
        """gate: makes the gate for SQLite's writers, or all users of a server. still_open: counts open connections."""
        self.engine = engine
        self.dialect = engine.dialect.name  # sqlite | postgresql
        self._file = file
        self._new_gate = gate
        self._gate = gate()
        self._still_open = still_open
        self._patience_s = patience_s
        self._pid = os.getpid()

    @contextmanager
    def read(self, *, quick: bool = False) -> Iterator[Connection]:
        """A read transaction on one snapshot. quick: a caller waits, so give up soon if the server does not answer."""
        self._require_usable()
        with translated(self.engine), self._transaction(READ, quick=quick) as conn:
            yield conn

    @contextmanager
    def write(self, *, durable: bool = True, quick: bool = False) -> Iterator[Connection]:
        """A write transaction, committed at the block's end.

        durable: it is on disk by then; otherwise a power cut may undo it, but neither a crash of this process nor a
        power cut after a later durable commit can. quick: as for `read`. If the commit itself raises StoreUnavailable,
        it is unknown whether it happened.
        """
        self._require_usable()
        with translated(self.engine), self._transaction(WRITE if durable else LAZY, quick=quick) as conn:
            yield conn
        self._file.require()  # only now is it certain that what was committed can be found

    @contextmanager
    def driver(self) -> Iterator[Driver]:
        """A write transaction on the driver itself, without SQLAlchemy's cost and ahead of those waiting: for acks."""
        self._require_usable()
        with (
            translated(self.engine),
            self._begun(begin.with_driver, first=True) as pooled,
            closing(pooled),  # closing rolls back what was not committed
            begin.discarding_dead(pooled),
        ):
            yield Driver(pooled.driver_connection, self.dialect)
            pooled.commit()
        self._file.require()

    def run(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run `work` in a write transaction, and retry it after a deadlock or a serialization failure."""
        for _ in range(_TRIES - 1):
            with suppress(StoreConflict), self.write(durable=durable) as conn:
                return work(conn)
        with self.write(durable=durable) as conn:
            return work(conn)

    def run_driver(self, work: Callable[[Driver], T]) -> T:
        """Like `run`, in a transaction of `driver`."""
        for _ in range(_TRIES - 1):
            with suppress(StoreConflict), self.driver() as driver:
                return work(driver)
        with self.driver() as driver:
            return work(driver)

    def require_file(self) -> None:
        """Raise StoreGone unless the path of an embedded database still leads to the open file."""
        self._file.require()

    def close(self) -> None:
        """Close the idle connections. The store stays usable: it opens new ones when needed."""
        self._after_fork()
        self.engine.dispose()
        self._file.close()

    def close_idle(self) -> None:
        """Close server connections that have been idle for some seconds: other processes may have none."""
        if self.dialect == "postgresql":
            from bridge.store.database import postgresql  # noqa: PLC0415 - loaded long since, but not with SQLite

            postgresql.close_idle(self.engine, time.monotonic() - IDLE_S)
            self._gate.narrow(self._still_open())

    def _require_usable(self) -> None:
        self._after_fork()
        self._file.require_not_gone()

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            self.engine.dispose(close=False)  # they are the parent's
            self._gate = self._new_gate()
            self._file.forget()
            self._pid = os.getpid()

    @contextmanager
    def _transaction(self, kind: str, *, quick: bool) -> Iterator[Connection]:
        with (
            self._begun(partial(begin.with_sqlalchemy, kind=kind), reads=kind == READ) as (conn, transaction),
            conn,
            transaction,
            begin.discarding_dead(conn),
        ):
            if quick:
                begin.limit(conn, WAIT_S)
            yield conn

    @contextmanager
    def _begun(self, begin_on: Callable[[Engine], T], *, first: bool = False, reads: bool = False) -> Iterator[T]:
        """Begin a transaction when it is this thread's turn; SQLite admits any number of readers at any time.

        If the server has no more connections, the turn passes to another thread; if this process has none at all, the
        server is asked again until patience ends.
        """
        until_s = time.monotonic() + self._patience_s
        while True:
            left_s = max(0.0, until_s - time.monotonic())
            is_open = reads and self.dialect == "sqlite"
            with nullcontext() if is_open else self._gate.turn(min(WAIT_S, left_s), first=first):
                try:
                    found = begin.on_live_connection(self.engine, begin_on)
                except begin.NotConnected as error:
                    if time.monotonic() > until_s or not (error.others or error.out_of_connections):
                        raise error.driver from None
                    self._gate.narrow(error.others, NARROW_S)
                    pause_s = 0.0 if error.others else _AGAIN_S
                else:
                    yield found
                    return
            time.sleep(pause_s)


def open(  # noqa: A001 - read as store.open
    url: str, *, clock: Callable[[], int] | None = None, pool_size: int = 5, patience_s: float = 0.0
) -> Store:
    """A store for a database URL. It does not connect yet.

    clock: returns milliseconds since 1970, in place of this machine's clock, for a database in this process (SQLite).
    patience_s: how long to keep asking a server that has no connection to spare (at least as long as any write waits).
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: the port is invalid
        raise StoreError(f"DATABASE_URL is not a URL such as {EXAMPLE}") from None
    if parsed.get_backend_name() == "sqlite":
        engine, file = sqlite.engine(parsed, clock or system_ms, pool_size)
        return Store(engine, file=file)
    from bridge.store.database import postgresql  # noqa: PLC0415 - psycopg, which a process on SQLite does not need

    engine, connections = postgresql.engine(parsed, pool_size, patience_s)
    return Store(
        engine,
        file=NoFile(),
        gate=lambda: Gate(pool_size),
        still_open=connections.still_open,
        patience_s=max(WAIT_S, patience_s),
    )
