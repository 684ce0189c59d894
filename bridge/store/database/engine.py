"""The database behind one small face: `open` a Store, then `read`, `write` or `run` a transaction.

SQLite and PostgreSQL behave alike here. The drivers stand in autocommit mode and this module begins every
transaction itself: BEGIN IMMEDIATE behind a fair gate on SQLite (a deferred one that upgrades to a write fails at
once), BEGIN with its time limits in the same round trip on PostgreSQL, so that transaction-mode poolers work.
A thread holds one connection at most and waits for none while it does; where the server has fewer to spare than this
process may have, its threads share those that there are, and what has idled is given back.
A pooled connection that died is noticed by its BEGIN, when nothing is lost yet, and replaced once. No answer of
PostgreSQL is waited for without a limit (bridge.store.database.wire), and what shows that the server at the other end
is no longer the one to talk to (gone silent, shut down, read-only) throws all connections away.
Every driver error leaves as StoreUnavailable, StoreConflict or SchemaError (bridge.store.database.failures).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

from sqlalchemy import Connection, Engine, PoolProxiedConnection, Transaction, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from bridge.errors import StoreConflict, StoreError, StoreUnavailable
from bridge.settings.database_url import EXAMPLE, search_path, sqlite_file
from bridge.store.clock import system_ms
from bridge.store.database.driver import Driver
from bridge.store.database.failures import UNANSWERED, is_over, translated
from bridge.store.database.file import File, NoFile, write_ahead
from bridge.store.database.gate import Gate, Open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL, ExceptionContext

    from bridge.store.database.wire import Watched

# What they log their caller hears as an error, too; without a handler Python would print it with its stack trace.
for _library in ("sqlalchemy", "psycopg"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

T = TypeVar("T")

WAIT_S: Final = 2.5  # for a connection, for the gate, for SQLite's lock: a caller hears within 3 s
ANSWER_S: Final = 12.0  # for PostgreSQL's answer within a transaction; it ends a statement itself after 10 s
NARROW_S: Final = 30.0  # how long no further connection is tried for, after one could not be made
IDLE_S: Final = 6.0  # after that a connection is given back; a process that does anything keeps the one it uses
_AGAIN_S: Final = 0.1  # between two tries for the first connection
_EXTRA_S: Final = 1.0  # for one more connection to be let in, while others work (a pooler lets it wait in a queue)
_TRIES: Final = 5  # of one transaction that meets conflicts
READ: Final = "bridge_read"  # execution option of read transactions
_LAZY: Final = "bridge_lazy"  # of write transactions that need not be on the disk when they are done
_QUICK: Final = "bridge_quick"  # of transactions that give up when an answer takes longer than WAIT_S
_LEVEL: Final = "bridge_level"  # SQLite: how a lazy transaction's connection usually waits for the disk

_PG_LIMITS: Final = "SET LOCAL statement_timeout = 10000; SET LOCAL lock_timeout = 2000"
_PG_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout"
_PG_READS: Final = f"{_PG_IDLE} = 30000"
_PG_WRITES: Final = f"{_PG_IDLE} = 10000"  # whom the server does not hear any more must not keep its locks for long
_BEGIN: Final = "bridge_begin"  # a connection's own text, kept beside it; so are those under READ and _LAZY
_USED: Final = "bridge_used"  # when its last transaction began
_POOL: Final = "bridge_pool"  # the pool that a connection was made for
_PG_SETTLED: Final = {  # whatever the URL says
    "autocommit": True,
    "prepare_threshold": None,  # a transaction-mode pooler gives the next transaction another server connection
    "client_encoding": "utf8",
}
_PG_CONNECT: Final = {
    "application_name": "datafast-bridge",
    "target_session_attrs": "read-write",  # after a failover the old server may still answer, read-only
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


class Store:
    """One database. Thread-safe, and usable on both sides of a fork: a child starts with connections of its own."""

    def __init__(
        self,
        engine: Engine,
        gate: Callable[[], Gate | Open],
        file: File | NoFile,
        lanes: Callable[[], Gate | Open] = Open,
        connections: Callable[[], int] = int,
    ) -> None:
        """gate: for writers. lanes: for everybody. connections: how many are open, where that matters."""
        self.engine = engine
        self._file = file
        self.dialect = engine.dialect.name  # sqlite | postgresql
        self._reader = engine.execution_options(**{READ: True})
        self._lazy_writer = engine.execution_options(**{_LAZY: True})
        self._new_gate = gate
        self._gate = gate()
        self._new_lanes = lanes
        self._lanes = lanes()
        self._connections = connections
        self._pid = os.getpid()

    @contextmanager
    def read(self, *, quick: bool = False) -> Iterator[Connection]:
        """A read transaction on one snapshot. quick: somebody waits, so a server that does not answer is given up."""
        self._after_fork()
        self._file.demand_not_gone()
        engine = self._reader.execution_options(**{_QUICK: True}) if quick else self._reader
        with translated(self.engine), self._transaction(engine) as conn:
            yield conn

    @contextmanager
    def write(self, *, first: bool = False, durable: bool = True, quick: bool = False) -> Iterator[Connection]:
        """A write transaction, committed at the block's end.

        first: before other writers that wait (the ack path). durable: it is on the disk then; otherwise a power cut may
        take it back, but no crash of this process can, nor a power cut after any later durable commit.
        quick: as of `read`. StoreUnavailable at the very end leaves open whether it was committed.
        """
        self._after_fork()
        self._file.demand_not_gone()
        engine = self.engine if durable else self._lazy_writer
        engine = engine.execution_options(**{_QUICK: True}) if quick else engine
        with (
            self._gate.turn(WAIT_S, first=first),
            translated(self.engine),
            self._transaction(engine, first=first) as conn,
        ):
            yield conn
        self._file.demand()  # only now is it known that what was committed can be found

    @contextmanager
    def driver(self) -> Iterator[Driver]:
        """A write transaction in the driver's own words, without SQLAlchemy's cost: for the ack path alone."""
        self._after_fork()
        self._file.demand_not_gone()
        with (
            self._gate.turn(WAIT_S, first=True),
            translated(self.engine),
            self._begun(self.engine, _begun_driver, first=True) as pooled,
            closing(pooled),  # which rolls back what was not committed
            _ended(pooled),
        ):
            yield Driver(pooled.driver_connection, self.dialect)
            pooled.commit()
        self._file.demand()

    def run(self, work: Callable[[Connection], T], *, first: bool = False, durable: bool = True) -> T:
        """`work` in a write transaction; run again when it met a deadlock or a serialization failure."""
        for _ in range(_TRIES - 1):
            with suppress(StoreConflict), self.write(first=first, durable=durable) as conn:
                return work(conn)
        with self.write(first=first, durable=durable) as conn:
            return work(conn)

    def run_driver(self, work: Callable[[Driver], T]) -> T:
        """The same with `driver`."""
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

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            self.engine.dispose(close=False)  # they are the parent's
            self._gate = self._new_gate()
            self._file.forget()
            self._lanes = self._new_lanes()
            self._pid = os.getpid()

    def give_back(self) -> None:
        """Close connections to a server that have idled for some seconds: other processes may have none."""
        if self.dialect == "postgresql":
            _close_idle(self.engine, time.monotonic() - IDLE_S)
            self._lanes.narrow(self._connections())

    @contextmanager
    def _transaction(self, engine: Engine, *, first: bool = False) -> Iterator[Connection]:
        with (
            self._begun(engine, _begun, first=first) as (conn, transaction),
            conn,
            transaction,
            _ended(conn),
        ):
            yield conn

    @contextmanager
    def _begun(self, engine: Engine, begun: Callable[[Engine], T], *, first: bool) -> Iterator[T]:
        """A transaction begun in this thread's turn. Where no more connections can be had, it is another one's turn."""
        until_s = time.monotonic() + WAIT_S
        while True:
            with self._lanes.turn(max(0.0, until_s - time.monotonic()), first=first):
                try:
                    found = _on_live_connection(engine, begun)
                except _NotConnectedError as error:
                    if time.monotonic() > until_s or not (error.others or error.crowded):
                        raise error.driver from None
                    self._lanes.narrow(error.others, NARROW_S)
                    none = not error.others
                else:
                    yield found
                    return
            time.sleep(_AGAIN_S if none else 0.0)


@contextmanager
def _ended(holder: Connection | PoolProxiedConnection) -> Iterator[None]:
    """Throw a connection away that is of no use any more, without a rollback.

    It may be closed, and a failing rollback would hide the first error. Or its server is the wrong one: a pooler that
    is left within a transaction closes its own connection to that server, too, instead of giving it to the next.
    """
    driver: Any = (holder if isinstance(holder, PoolProxiedConnection) else holder.connection).driver_connection
    try:
        yield
    except BaseException as error:
        if getattr(driver, "closed", False) or is_over(error):
            holder.invalidate(error)
        raise


def _begun(engine: Engine) -> tuple[Connection, Transaction]:
    conn = engine.connect()
    try:
        return conn, conn.begin()
    except BaseException:
        conn.close()
        raise


def _begun_driver(engine: Engine) -> PoolProxiedConnection:
    pooled = engine.raw_connection()
    try:
        _say(pooled, pooled.info[_BEGIN])
    except BaseException:
        pooled.close()
        raise
    return pooled


class _NotConnectedError(Exception):
    """No new connection could be made; so many others of this process are open."""

    def __init__(self, driver: Exception, others: int, *, crowded: bool) -> None:
        super().__init__(str(driver))
        self.driver = driver
        self.others = others
        self.crowded = crowded


class _DiedInThePoolError(StoreUnavailable):
    """The server had closed the connection, most likely while it lay idle: a new one may do."""


def _say(pooled: PoolProxiedConnection, begin: str) -> None:
    """BEGIN, by the driver itself: SQLAlchemy's way costs three times as much."""
    driver: Any = pooled.driver_connection
    try:
        driver.execute(begin)
    except Exception as error:
        if isinstance(driver, sqlite3.Connection) or not driver.closed:
            raise
        pooled.invalidate(error)
        if getattr(error, "sqlstate", None) == UNANSWERED:
            raise  # it would hardly answer on another one, and who began this has waited for long enough
        raise _DiedInThePoolError("the database closed the connection") from error
    if not isinstance(driver, sqlite3.Connection):
        driver.limit_s = ANSWER_S
        pooled.info[_USED] = time.monotonic()


def _on_live_connection(engine: Engine, begun: Callable[[Engine], T]) -> T:
    """A transaction begun; when the pool's connections have died, on a new one. Nothing is lost yet at that point."""
    try:
        return begun(engine)
    except _DiedInThePoolError:
        engine.dispose()  # the others that lie idle died as well
        return begun(engine)


def open(  # noqa: A001 - read as store.open
    url: str, *, clock: Callable[[], int] | None = None, pool_size: int = 5, patience_s: float = 0.0
) -> Store:
    """A store for a database URL. Connects to nothing yet.

    clock: milliseconds since 1970, instead of this machine's clock, for a database inside this process (SQLite).
    patience_s: how long a server with no connection to spare is asked again.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the second for a port that is none
        raise StoreError(f"DATABASE_URL is no URL such as {EXAMPLE}") from None
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, clock or system_ms, pool_size)
    return _open_postgresql(parsed, pool_size, patience_s)


def _open_sqlite(url: URL, clock: Callable[[], int], pool_size: int) -> Store:
    in_memory = url.database in (None, "", ":memory:")
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1 if in_memory else pool_size,
        max_overflow=0 if in_memory else pool_size,
        pool_timeout=WAIT_S,
        connect_args={"isolation_level": None, "timeout": WAIT_S, "check_same_thread": False},
        hide_parameters=True,
    )

    path = sqlite_file(str(url))
    file: File | NoFile = NoFile() if path is None else File(path)

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _record: Any, cargs: list[str], cparams: dict[str, Any]) -> sqlite3.Connection:
        return file.connect(lambda name, **more: dialect.connect(name, **{**cparams, **more}), *cargs)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        record.info[_BEGIN] = "BEGIN IMMEDIATE"
        connection.create_function("bridge_now_ms", 0, clock)
        write_ahead(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "journal_size_limit=67108864"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        options = conn.get_execution_options()
        if options.get(_LAZY):
            _relax(conn.connection)
        _say(conn.connection, "BEGIN" if options.get(READ) else "BEGIN IMMEDIATE")

    @event.listens_for(engine, "checkin")
    def restore(connection: sqlite3.Connection | None, record: Any) -> None:
        level = record.info.pop(_LEVEL, None)
        if connection is not None and level is not None:
            connection.execute(f"PRAGMA synchronous={level}")

    return Store(engine, Gate, file)


def _relax(pooled: PoolProxiedConnection) -> None:
    """The next commit need not wait for the disk; until the connection is given back to the pool."""
    driver: Any = pooled.driver_connection
    [level] = driver.execute("PRAGMA synchronous").fetchone()
    pooled.info[_LEVEL] = level
    driver.execute(f"PRAGMA synchronous={min(level, 1)}")


def _open_postgresql(url: URL, pool_size: int, patience_s: float) -> Store:
    from bridge.store.database import wire  # noqa: PLC0415 - psycopg, which a process on SQLite does not need

    schemas = url.query.get("schema")  # ours, not the driver's; a session's own setting would get lost in a pooler
    path = f"; SET LOCAL search_path = {search_path(str(schemas))}" if schemas else ""
    url = url.difference_update_query(["schema"])
    if "+" not in url.drivername:
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,  # so that what is not needed idles
        pool_timeout=WAIT_S,
        connect_args={name: value for name, value in _PG_CONNECT.items() if name not in url.query} | _PG_SETTLED,
        hide_parameters=True,
    )

    connections = _connect_patiently(engine, patience_s)

    @event.listens_for(engine, "connect")
    def prepare(connection: Watched, record: Any) -> None:
        row = connection.first_answer
        lax = row is not None and row[0] == "off"  # a commit would be answered before it is on the disk
        newer = connection.info.server_version >= 170_000
        limits = _PG_LIMITS + ("; SET LOCAL transaction_timeout = 0" if newer else "") + path
        record.info[_BEGIN] = f"BEGIN; {limits}; {_PG_WRITES}" + ("; SET LOCAL synchronous_commit = on" if lax else "")
        record.info[READ] = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {limits}; {_PG_READS}"
        record.info[_LAZY] = f"BEGIN; {limits}; {_PG_WRITES}; SET LOCAL synchronous_commit = off"
        record.info[_POOL] = engine.pool

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        options = conn.get_execution_options()
        _say(conn.connection, conn.info[READ if options.get(READ) else _LAZY if options.get(_LAZY) else _BEGIN])
        if options.get(_QUICK):
            limit(conn, WAIT_S)

    @event.listens_for(engine, "checkin")
    def take_back(connection: Watched | None, record: Any) -> None:
        if connection is not None:
            connection.limit_s = wire.PROMPT_S
            if record.info.get(_POOL) is not engine.pool:  # that pool was thrown away while this one was at work
                record.invalidate()

    @event.listens_for(engine, "handle_error")
    def keep_the_others(context: ExceptionContext) -> None:
        context.invalidate_pool_on_disconnect = False  # by the wall clock, which may jump; see `translated`

    return Store(engine, Open, NoFile(), lambda: Gate(pool_size), connections)


def _connect_patiently(engine: Engine, patience_s: float) -> Callable[[], int]:
    """How many connections are open."""
    import psycopg  # noqa: PLC0415 - as above

    from bridge.store.database import wire  # noqa: PLC0415

    made = Made()

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, args: list[Any], options: dict[str, Any]) -> Watched:
        try:
            connection = wire.connect_patiently(patience_s, _EXTRA_S if made.still_open() else None, args, options)
        except psycopg.OperationalError as error:
            raise _NotConnectedError(error, made.still_open(), crowded=wire.is_crowded(error)) from None
        made.add(connection)
        return connection

    return made.still_open


class Made:
    """The connections that were made, as long as somebody has them. Thread-safe, which a WeakSet is not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: WeakSet[Watched] = WeakSet()

    def add(self, connection: Watched) -> None:
        """One more."""
        with self._lock:
            self._all.add(connection)

    def still_open(self) -> int:
        """How many are open."""
        with self._lock:
            return sum(not connection.closed for connection in self._all)


def _close_idle(engine: Engine, before_s: float) -> None:
    """Those that were last used before then. What holds the queue's lock keeps everybody from taking one meanwhile."""
    queue: Any = engine.pool._pool  # type: ignore[attr-defined]  # noqa: SLF001 - the pool has no other way
    with queue.mutex:
        for record in tuple(queue.queue):
            if record.dbapi_connection is not None and record.info.get(_USED, before_s) < before_s:
                record.close()


def limit(conn: Connection, seconds: float) -> None:
    """How long an answer of PostgreSQL may take in this transaction; SQLite answers within this process."""
    driver: Any = conn.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        driver.limit_s = seconds
