"""The database behind a small interface: `open` a Store, then `read`, `write` or `run` a transaction.

SQLite and PostgreSQL behave alike here. The drivers are in autocommit mode and every transaction is begun explicitly
(`bridge.store.database.begin`): BEGIN IMMEDIATE behind a fair gate on SQLite (a deferred one that upgrades to a write
fails at once), BEGIN with its time limits in the same round trip on PostgreSQL, so that transaction-mode poolers work.
A thread holds one connection at most and waits for none while it does. Where the server has fewer to spare than this
process may use, its threads share what there is, and idle connections are given back.
A pooled connection that died is noticed at its BEGIN, when nothing is lost yet, and replaced once. No wait for
PostgreSQL's answer is without a limit (bridge.store.database.postgresql), and a sign that the server at the other end
is no longer the one to talk to (it is silent, shut down or read-only) throws all connections away.
Every driver error leaves as StoreUnavailable, StoreConflict or SchemaError (bridge.store.database.failures).
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

# What they log is raised as an error, too; without a handler Python would print it with its stack trace.
for _library in ("sqlalchemy", "psycopg"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

T = TypeVar("T")

NARROW_S: Final = 30.0  # how long no further connection is tried, after one could not be made
IDLE_S: Final = 6.0  # after which a connection is given back; a process that does anything keeps the one it uses
_AGAIN_S: Final = 0.1  # between two tries for the first connection
_TRIES: Final = 5  # of one transaction that meets conflicts


class Store:
    """One database. Thread-safe, and usable on both sides of a fork: a child starts with connections of its own."""

    def __init__(
        self,
        engine: Engine,
        *,
        file: File | NoFile,
        gate: Callable[[], Gate] = Gate,
        still_open: Callable[[], int] = int,
        patience_s: float = WAIT_S,
    ) -> None:
        """gate: makes that of SQLite's writers, or of all that use a server. still_open: how many connections are."""
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
        """A read transaction on one snapshot. quick: a caller waits, so give a server up that does not answer soon."""
        self._demand_usable()
        with translated(self.engine), self._transaction(READ, quick=quick) as conn:
            yield conn

    @contextmanager
    def write(self, *, durable: bool = True, quick: bool = False) -> Iterator[Connection]:
        """A write transaction, committed at the block's end.

        durable: it is on the disk by then; otherwise a power cut may take it back, but no crash of this process can,
        nor a power cut after any later durable commit. quick: as of `read`. After StoreUnavailable at the very end,
        nobody knows whether it was committed.
        """
        self._demand_usable()
        with translated(self.engine), self._transaction(WRITE if durable else LAZY, quick=quick) as conn:
            yield conn
        self._file.demand()  # only now is it known that what was committed can be found

    @contextmanager
    def driver(self) -> Iterator[Driver]:
        """A write transaction of the driver itself, without SQLAlchemy's cost, before others that wait: for acks."""
        self._demand_usable()
        with (
            translated(self.engine),
            self._begun(begin.with_driver, first=True) as pooled,
            closing(pooled),  # which rolls back what was not committed
            begin.ended(pooled),
        ):
            yield Driver(pooled.driver_connection, self.dialect)
            pooled.commit()
        self._file.demand()

    def run(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run `work` in a write transaction, and again if it meets a deadlock or a serialization failure."""
        for _ in range(_TRIES - 1):
            with suppress(StoreConflict), self.write(durable=durable) as conn:
                return work(conn)
        with self.write(durable=durable) as conn:
            return work(conn)

    def run_driver(self, work: Callable[[Driver], T]) -> T:
        """Run `work` as `run` does, in a transaction of `driver`."""
        for _ in range(_TRIES - 1):
            with suppress(StoreConflict), self.driver() as driver:
                return work(driver)
        with self.driver() as driver:
            return work(driver)

    def demand_file(self) -> None:
        """StoreGone unless the path of an embedded database still leads to the file that is open."""
        self._file.demand()

    def close(self) -> None:
        """Close the idle connections. The store stays usable and would open new ones."""
        self._after_fork()
        self.engine.dispose()
        self._file.close()

    def give_back(self) -> None:
        """Close connections to a server that have been idle for some seconds: other processes may have none."""
        if self.dialect == "postgresql":
            from bridge.store.database import postgresql  # noqa: PLC0415 - loaded long since, but not with SQLite

            postgresql.close_idle(self.engine, time.monotonic() - IDLE_S)
            self._gate.narrow(self._still_open())

    def _demand_usable(self) -> None:
        self._after_fork()
        self._file.demand_not_gone()

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
            begin.ended(conn),
        ):
            if quick:
                begin.limit(conn, WAIT_S)
            yield conn

    @contextmanager
    def _begun(self, begun: Callable[[Engine], T], *, first: bool = False, reads: bool = False) -> Iterator[T]:
        """Begin a transaction when it is this thread's turn; SQLite lets in as many as read, at any time.

        If the server has no more connections, it is another thread's turn; if this process does not even have one, the
        server is asked again until patience ends.
        """
        until_s = time.monotonic() + self._patience_s
        while True:
            left_s = max(0.0, until_s - time.monotonic())
            is_open = reads and self.dialect == "sqlite"
            with nullcontext() if is_open else self._gate.turn(min(WAIT_S, left_s), first=first):
                try:
                    found = begin.on_live_connection(self.engine, begun)
                except begin.NotConnected as error:
                    if time.monotonic() > until_s or not (error.others or error.crowded):
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
    """A store for a database URL. Connects to nothing yet.

    clock: milliseconds since 1970, instead of this machine's clock, for a database inside this process (SQLite).
    patience_s: how long to ask a server that has no connection to spare (at least as long as any write waits).
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the second for a port that is none
        raise StoreError(f"DATABASE_URL is not a URL such as {EXAMPLE}") from None
    if parsed.get_backend_name() == "sqlite":
        engine, file = sqlite.engine(parsed, clock or system_ms, pool_size)
        return Store(engine, file=file)
    from bridge.store.database import postgresql  # noqa: PLC0415 - psycopg, which a process on SQLite does not need

    engine, made = postgresql.engine(parsed, pool_size, patience_s)
    return Store(
        engine,
        file=NoFile(),
        gate=lambda: Gate(pool_size),
        still_open=made.still_open,
        patience_s=max(WAIT_S, patience_s),
    )
