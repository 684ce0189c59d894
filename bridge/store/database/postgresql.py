"""PostgreSQL's connections, which never wait for an answer longer than a limit of our own.

A pooler or proxy between the bridge and the server continues to acknowledge packets when the server behind it is gone,
so TCP keep-alives detect nothing, and no time limit of the server can reach us. After our own limit the connection is
closed and `Unanswered` is raised; it is then unknown whether a COMMIT happened.
Imported only if the database is PostgreSQL.
"""

from __future__ import annotations

import codecs
import re
import sys
import threading
import time
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

import psycopg
from psycopg import pq
from psycopg.types.string import StrDumperUnknown, TextLoader
from sqlalchemy import create_engine, event
from sqlalchemy.pool import QueuePool

from bridge.settings.database_url import search_path
from bridge.store.database import begin
from bridge.store.database.begin import LAZY, READ, USED, WAIT_S, WRITE
from bridge.store.database.failures import READ_ONLY, UNANSWERED, is_out_of_connections

if TYPE_CHECKING:
    from psycopg.abc import Buffer, PQGen
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL, ExceptionContext

T = TypeVar("T")

PROMPT_S: Final = 3  # for what takes the server no time: accepting us (at each of its addresses), BEGIN, ROLLBACK
_CONNECT_MAX_S: Final = 12  # if the URL sets its own limit
_EXTRA_S: Final = 1.0  # for one more connection to be accepted while others work (a pooler may queue it)
_POOL: Final = "bridge_pool"  # the pool that a connection was opened for
_PLANS_S: Final = 10.0  # how long a plan is kept: tables grow, and it was made for their former size
_ON_REQUEST: Final = sys.maxsize  # prepare only statements that ask for it, however often the others run

_LIMITS: Final = "SET LOCAL statement_timeout = 10000; SET LOCAL lock_timeout = 2000"
_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout"
_READS: Final = f"{_IDLE} = 30000"
_WRITES: Final = f"{_IDLE} = 10000"  # a client that the server no longer hears from must not keep its locks for long
_FIXED: Final = {  # whatever the URL says
    "autocommit": True,
    "prepare_threshold": None,  # until it is known that there is no pooler in between
    "client_encoding": "utf8",
}
_DEFAULTS: Final = {
    "application_name": "datafast-bridge",
    "target_session_attrs": "read-write",  # after a failover the old server may still answer, read-only
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def engine(url: URL, pool_size: int, patience_s: float) -> tuple[Engine, OpenConnections]:
    """The engine for a PostgreSQL URL, and its connections. patience_s: for a connection in a pooler's queue."""
    schemas = url.query.get("schema")  # our option, not the driver's; a pooler would lose a session's setting
    path = f"; SET LOCAL search_path = {search_path(str(schemas))}" if schemas else ""
    url = url.difference_update_query(["schema"])
    if "+" not in url.drivername:
        url = url.set(drivername="postgresql+psycopg")
    new_engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,  # so that a connection that is not needed stays idle
        pool_timeout=WAIT_S,
        connect_args={name: value for name, value in _DEFAULTS.items() if name not in url.query} | _FIXED,
        hide_parameters=True,
    )
    opened = OpenConnections()
    event.listen(new_engine, "do_connect", partial(_do_connect, opened, patience_s))
    _listen_to_pool(new_engine, path)
    return new_engine, opened


def _do_connect(
    opened: OpenConnections, patience_s: float, _dialect: Any, _record: Any, args: list[Any], options: dict[str, Any]
) -> WatchedConnection:
    others = opened.still_open()
    answer_s = _EXTRA_S if others else max(PROMPT_S, patience_s)
    try:
        connection = _new_connection(opened, answer_s, args, options)
    except psycopg.OperationalError as error:
        out_of_connections = is_out_of_connections(error)
        raise begin.NotConnected(error, opened.still_open(), out_of_connections=out_of_connections) from None
    opened.add(connection)
    return connection


def _listen_to_pool(engine: Engine, path: str) -> None:
    """Prepare each new connection for its transactions, and discard those that no pool takes back."""

    @event.listens_for(engine, "connect")
    def prepare(connection: WatchedConnection, record: Any) -> None:
        record.info.update(_begin_statements(connection, path), **{_POOL: engine.pool})

    @event.listens_for(engine, "checkin")
    def take_back(connection: WatchedConnection | None, record: Any) -> None:
        if connection is not None:
            connection.limit_s = PROMPT_S
            if record.info.get(_POOL) is not engine.pool:  # that pool was discarded while this connection was in use
                record.invalidate()

    @event.listens_for(engine, "handle_error")
    def keep_the_others(context: ExceptionContext) -> None:
        context.invalidate_pool_on_disconnect = False  # that goes by the wall clock, which may jump; see `translated`


def _begin_statements(connection: WatchedConnection, path: str) -> dict[str, str]:
    """How a connection's transactions begin: each with its limits, which a pooler would lose between transactions."""
    commits_early = connection.commits_early  # a commit would be answered before it is on disk
    newer = connection.info.server_version >= 170_000
    limits = _LIMITS + ("; SET LOCAL transaction_timeout = 0" if newer else "") + path
    return {
        WRITE: f"BEGIN; {limits}; {_WRITES}" + ("; SET LOCAL synchronous_commit = on" if commits_early else ""),
        READ: f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {limits}; {_READS}",
        LAZY: f"BEGIN; {limits}; {_WRITES}; SET LOCAL synchronous_commit = off",
    }


class OpenConnections:
    """The connections opened so far that are still in use. Thread-safe, unlike a WeakSet.

    prepares: whether statements may be kept prepared, as far as known.
    """

    def __init__(self) -> None:
        self.prepares = True
        self._lock = threading.Lock()
        self._all: WeakSet[WatchedConnection] = WeakSet()

    def add(self, connection: WatchedConnection) -> None:
        with self._lock:
            self._all.add(connection)

    def still_open(self) -> int:
        with self._lock:
            return sum(not connection.closed for connection in self._all)


def close_idle(engine: Engine, before_s: float) -> None:
    """Close idle connections last used before then. The queue's lock keeps other threads from taking one meanwhile."""
    queue: Any = engine.pool._pool  # type: ignore[attr-defined]  # noqa: SLF001 - the pool has no other way
    with queue.mutex:
        for record in tuple(queue.queue):
            if record.dbapi_connection is not None and record.info.get(USED, before_s) < before_s:
                record.close()


class Unanswered(psycopg.OperationalError):
    """The database gave no answer in time, and the connection is closed."""

    sqlstate = UNANSWERED  # the code that the server would give if it could


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that closes itself if an answer takes longer than `limit_s`, which its user sets after BEGIN.

    Every wait of psycopg on an open connection (statements, BEGIN, COMMIT, ROLLBACK) goes through `wait`.
    """

    limit_s: float = PROMPT_S
    commits_early: bool = False  # whether the server answers a commit before it is on disk
    siblings: OpenConnections | None = None
    _planned_s: float = 0.0

    def begin(self, statement: str) -> None:
        """Begin a transaction. Every few seconds, prepared statements are planned again, because tables grow."""
        now_s = time.monotonic()
        if self.prepare_threshold is not None and now_s - self._planned_s > _PLANS_S:
            statement, self._planned_s = f"{statement}; DISCARD PLANS", now_s
        self.execute(statement)

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        options.setdefault("timeout", self.limit_s)
        try:
            return super().wait(gen, *args, **options)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 - psycopg has no public name for it
            self.close()  # sends nothing that needs an answer
            raise Unanswered(f"it gave no answer for {self.limit_s:g} s") from None
        except (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement):
            if self.siblings is not None:
                self.siblings.prepares = False  # a pooler that did not reveal itself (see `_new_connection`)
            raise


def _new_connection(
    opened: OpenConnections, answer_s: float, args: list[Any], options: dict[str, Any]
) -> WatchedConnection:
    """A new connection that has answered once.

    answer_s: limit for the first answer. A pooler in session mode accepts everybody, and answers once one of its few
    connections is free. In transaction mode it gives each transaction another server process, without the statements
    that an earlier one prepared. It reveals itself: the process id it first reports is its own, for cancel requests.
    """
    connection = _opened(*args, **options)
    try:
        connection.limit_s = answer_s
        first = connection.execute("SELECT current_setting('synchronous_commit') = 'off', pg_backend_pid()")
        [(connection.commits_early, process)] = first.fetchall()
    except BaseException:
        connection.close()
        raise
    connection.limit_s, connection.siblings = PROMPT_S, opened
    direct = opened.prepares and process == connection.info.backend_pid
    connection.prepare_threshold = _ON_REQUEST if direct else None
    _adapt(connection)
    return connection


def _opened(*args: Any, **options: Any) -> WatchedConnection:
    """A new connection. If the URL sets a time limit, that one is used, up to _CONNECT_MAX_S."""
    limit_s, max_s = int(options.get("connect_timeout", PROMPT_S)), _CONNECT_MAX_S
    options["connect_timeout"] = limit_s if 0 < limit_s < max_s else max_s
    try:
        return WatchedConnection.connect(*args, **options)
    except psycopg.OperationalError as error:
        if READ_ONLY not in str(error) or options.get("target_session_attrs") != "read-write":
            raise
        connection = WatchedConnection.connect(*args, **{**options, "target_session_attrs": "any"})
        if _accepts_writes(connection):
            return connection
        raise


def _accepts_writes(connection: WatchedConnection) -> bool:
    """Ask the server itself: pgbouncer repeats what it heard once, even after that server was promoted."""
    connection.execute(
        "BEGIN"
    )  # if it accepts no writes, pgbouncer is left within this transaction (see `discarding_dead`)
    row = connection.execute("SHOW transaction_read_only").fetchone()
    if row is None or row[0] != "off":
        connection.close()
        return False
    connection.rollback()
    return True


# --------------------------------------------------------------------------- a database whose encoding lacks characters

# Old servers and old dumps make databases in LATIN1 and similar encodings. A character that the encoding has is stored
# unchanged, as earlier releases did; any other is written as U+001A, its code point in hex and ";", and decoded when
# read. The same string is always written in the same way, so that keys are found.
_WHOLE: Final = ("UTF8", "SQL_ASCII")  # the first has every character, the second stores bytes unchanged
_MARK: Final = "\x1a"
_ESCAPE: Final = re.compile("\x1a([0-9a-f]{1,6});")
_CODECS: Final = {
    **{f"LATIN{number}": f"iso8859-{part}" for number, part in enumerate((1, 2, 3, 4, 9, 10, 13, 14, 15, 16), 1)},
    **{f"ISO_8859_{part}": f"iso8859-{part}" for part in range(5, 9)},
    **{f"WIN{page}": f"cp{page}" for page in (866, 874, *range(1250, 1259))},
}


def _adapt(connection: psycopg.Connection[Any]) -> None:
    """Let a connection write and read every string, if its database's encoding lacks characters."""
    name = (connection.pgconn.parameter_status(b"server_encoding") or b"UTF8").decode()
    if name in _WHOLE:
        return
    dumper = _dumper(_CODECS.get(name, "ascii"))
    connection.adapters.register_dumper(str, dumper)
    for kind in ("text", "varchar", "bpchar"):
        connection.adapters.register_loader(kind, _Loader)
        connection.adapters.register_loader(kind, _BinaryLoader)


def escaped(text: str, codec: str) -> str:
    """The string, using only characters of the encoding."""
    if text.isascii() and _MARK not in text:
        return text
    return "".join(_escaped(character, codec) for character in text)


def _escaped(character: str, codec: str) -> str:
    if character != _MARK:
        try:
            codecs.encode(character, codec)
        except UnicodeEncodeError:
            pass
        else:
            return character
    return f"{_MARK}{ord(character):x};"


def unescaped(text: str) -> str:
    """Undo `escaped`; a string that it did not make stays unchanged."""
    return _ESCAPE.sub(lambda found: chr(min(int(found[1], 16), 0x10FFFF)), text) if _MARK in text else text


@cache
def _dumper(codec: str) -> type[StrDumperUnknown]:
    class Escaping(StrDumperUnknown):
        def dump(self, obj: str) -> Buffer | None:
            return super().dump(escaped(obj, codec))

    return Escaping


class _Loader(TextLoader):
    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        return unescaped(text) if isinstance(text, str) else text


class _BinaryLoader(_Loader):
    format = pq.Format.BINARY
