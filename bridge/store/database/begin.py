"""How a transaction gets its turn in this process, begins, and ends on one connection, for both databases.

The gate is fair: first come, first served, handed over directly. SQLite admits one writer at a time and makes the
others sleep and retry, for up to 100 ms each time; the threads of one process wait here instead and are woken at once.
PostgreSQL admits as many as there are connections: few threads open few, and the gate stays narrow for a while if other
processes have taken the rest. The gate cannot see those processes.

A connection's `info` holds the statements that begin its transactions, under WRITE, READ and LAZY; each database's
module puts them there. A connection that died in the pool is detected at its BEGIN.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Connection, Engine, PoolProxiedConnection, Transaction

from bridge.errors import StoreUnavailable
from bridge.store.database.failures import UNANSWERED, is_server_lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

WAIT_S: Final = 2.5  # for a connection, the gate or SQLite's lock: a caller gets an answer within 3 s
ANSWER_S: Final = 12.0  # for PostgreSQL's answer within a transaction; the server itself ends a statement after 10 s

WRITE: Final = "bridge_write"
READ: Final = "bridge_read"  # on one snapshot
LAZY: Final = "bridge_lazy"  # a write that need not be on disk when it is committed
USED: Final = "bridge_used"  # when a connection's last transaction began
LEVEL: Final = "bridge_level"  # a SQLite connection's usual `synchronous`, set again on its return to the pool

GROW_S: Final = 0.1  # how long to wait before opening one more connection: about as long as opening it takes
SHARE_S: Final = 0.02  # the same if there is a free one already: one that nobody needs stays idle and is closed
GROW_FIRST_S: Final = 0.002


class Gate:
    """Admits as many holders at a time as there is room for. `first` passes those who wait, not those who hold it.

    There is room for one, and for one more whenever a thread has waited briefly, up to `most`. Even with room for
    several, they enter one by one as long as each is quick.
    """

    def __init__(self, most: int = 1) -> None:
        self._lock = threading.Lock()
        self._most = self._ceiling = most
        self._room = 1
        self._narrow_until_s = 0.0
        self._holders: set[int] = set()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    @contextmanager
    def turn(self, timeout_s: float, *, first: bool = False) -> Iterator[None]:
        """Hold the gate. Raises StoreUnavailable if it does not become free in time."""
        self._enter(timeout_s, first=first)
        try:
            yield
        finally:
            self._leave()

    def narrow(self, room: int, seconds: float = 0.0) -> None:
        """Reduce the room, and do not extend it for this long. Current holders stay."""
        with self._lock:
            self._room = max(1, min(self._room, room))
            if seconds:
                self._ceiling = self._room
                self._narrow_until_s = time.monotonic() + seconds

    def _enter(self, timeout_s: float, *, first: bool) -> None:
        thread_id = threading.get_ident()
        with self._lock:
            if thread_id in self._holders:
                raise RuntimeError("a transaction was begun inside another one of the same thread")
            free = len(self._holders) < self._room
            if free and (first or not self._holders):
                self._holders.add(thread_id)
                return
            wakeup = threading.Lock()
            wakeup.acquire()
            entry = (thread_id, wakeup)
            (self._waiting.appendleft if first else self._waiting.append)(entry)
        first_wait_s = min(timeout_s, GROW_FIRST_S if first else SHARE_S if free else GROW_S)
        if wakeup.acquire(timeout=first_wait_s) or self._make_room(entry):
            return
        if not wakeup.acquire(timeout=timeout_s - first_wait_s):
            self._give_up(entry)

    def _make_room(self, entry: tuple[int, threading.Lock]) -> bool:
        with self._lock:
            if entry not in self._waiting:  # the gate was handed over at the last moment
                return True
            if time.monotonic() > self._narrow_until_s:
                self._ceiling = self._most
            if len(self._holders) >= self._room:
                if self._room >= self._ceiling:
                    return False
                self._room += 1
            self._waiting.remove(entry)
            self._holders.add(entry[0])
            return True

    def _give_up(self, entry: tuple[int, threading.Lock]) -> None:
        with self._lock:
            if entry not in self._waiting:  # as above
                return
            self._waiting.remove(entry)
        raise StoreUnavailable("the database is busy: another transaction of this process did not end in time")

    def _leave(self) -> None:
        with self._lock:
            self._holders.discard(threading.get_ident())
            if self._waiting and len(self._holders) < self._room:
                holder, wakeup = self._waiting.popleft()
                self._holders.add(holder)
                wakeup.release()


# ---------------------------------------------------------------------------------------------------- a transaction


class NotConnected(Exception):
    """No new connection could be opened. others: how many this process has open."""

    def __init__(self, driver: Exception, others: int, *, out_of_connections: bool) -> None:
        super().__init__(str(driver))
        self.driver = driver
        self.others = others
        self.out_of_connections = out_of_connections


class _DiedInPool(StoreUnavailable):
    """The server closed the connection, most likely while it was idle: a new one may work."""


def with_sqlalchemy(engine: Engine, kind: str) -> tuple[Connection, Transaction]:
    """Begin a transaction of this kind. SQLAlchemy needs a quarter less time for one without event listeners."""
    conn = engine.connect()
    try:
        _begin(conn.connection, kind)
        return conn, conn.begin()
    except BaseException:
        conn.close()
        raise


def with_driver(engine: Engine) -> PoolProxiedConnection:
    """Begin a write transaction on the driver's own connection."""
    pooled = engine.raw_connection()
    try:
        _begin(pooled, WRITE)
    except BaseException:
        pooled.close()
        raise
    return pooled


def on_live_connection(engine: Engine, begin_on: Callable[[Engine], T]) -> T:
    """Begin a transaction, on a new connection if the pool's have died. At that point nothing is lost yet."""
    try:
        return begin_on(engine)
    except _DiedInPool:
        engine.dispose()  # the other idle ones have died, too
        return begin_on(engine)


def _begin(pooled: PoolProxiedConnection, kind: str) -> None:
    """Send BEGIN through the driver: through SQLAlchemy it costs three times as much."""
    driver: Any = pooled.driver_connection
    if isinstance(driver, sqlite3.Connection):
        if kind == LAZY:
            _relax(pooled, driver)
        driver.execute(pooled.info[kind])
        return
    try:
        driver.begin(pooled.info[kind])
    except Exception as error:
        if not driver.closed:
            raise
        pooled.invalidate(error)
        if getattr(error, "sqlstate", None) == UNANSWERED:
            raise  # it would hardly answer on another one, and the caller has waited long enough
        raise _DiedInPool("the database closed the connection") from error
    driver.limit_s = ANSWER_S
    pooled.info[USED] = time.monotonic()


def _relax(pooled: PoolProxiedConnection, driver: sqlite3.Connection) -> None:
    """Let commits not wait for the disk, until the connection is returned to the pool."""
    [level] = driver.execute("PRAGMA synchronous").fetchone()
    pooled.info[LEVEL] = level
    driver.execute(f"PRAGMA synchronous={min(level, 1)}")


@contextmanager
def discarding_dead(holder: Connection | PoolProxiedConnection) -> Iterator[None]:
    """Discard a connection that has become useless, without a rollback.

    It may be closed, and a failing rollback would hide the first error. Or its server is the wrong one: a pooler left
    within a transaction closes its own connection to that server, too, instead of giving it to the next client.
    """
    driver: Any = (holder if isinstance(holder, PoolProxiedConnection) else holder.connection).driver_connection
    try:
        yield
    except BaseException as error:
        if getattr(driver, "closed", False) or is_server_lost(error):
            holder.invalidate(error)
        raise


def limit(conn: Connection, seconds: float) -> None:
    """Limit how long PostgreSQL may take to answer in this transaction. SQLite runs within this process."""
    driver: Any = conn.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        driver.limit_s = seconds


def lock_table(conn: Connection, name: str) -> None:
    """Let nobody else read or write a table of PostgreSQL's until the end of the transaction."""
    conn.exec_driver_sql(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
