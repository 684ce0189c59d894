"""Run statements given as text, for work done once per event: 5 µs with the driver itself, 100 µs through SQLAlchemy.

In a statement, `?` stands for a value and `{now}` for the database's clock, on both databases. `{lock}` at the end
locks the rows read; `{lock_free}` also skips rows locked by others. In a write transaction SQLite locks everything
anyway. Everything that runs less often is written with SQLAlchemy.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    Row = tuple[Any, ...]

_ROWS: Final = (64, 16, 8, 7, 6, 5, 4, 3, 2, 1)  # per statement: few different ones, which SQLite keeps prepared
_NAMES_MAX: Final = 4_096  # in one IN
NOW: Final = {  # milliseconds since 1970 (bridge.store.clock)
    "sqlite": "bridge_now_ms()",
    "postgresql": "(extract(epoch from clock_timestamp()) * 1000)::bigint",
}
_RETURNING: Final = " RETURNING "
_LOCKS: Final = {"{lock}": "FOR UPDATE", "{lock_free}": "FOR UPDATE SKIP LOCKED"}


class Driver:
    """A driver's connection within a transaction."""

    __slots__ = ("_connection", "dialect")

    def __init__(self, connection: Any, dialect: str) -> None:
        self._connection = connection
        self.dialect = dialect

    def execute_raw(self, statement: str, values: Sequence[Any]) -> list[Row]:
        """Execute a statement in the driver's notation; return its rows, if any. PostgreSQL keeps it prepared."""
        cursor = self._cursor()
        if self.dialect == "sqlite":
            cursor.execute(statement, values)
        else:
            cursor.execute(statement, values, prepare=True)
        return cursor.fetchall() if cursor.description else []

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Like `execute_raw`, for a statement in the notation of this module."""
        return self.execute_raw(render(statement, self.dialect), values)

    def execute_then(self, statement: str, values: Sequence[Any], then: str, more: Sequence[Any]) -> list[Row]:
        """Like `execute`; if it returns a row, also execute `then`, which has a WHERE. One round trip on PostgreSQL.

        Returns the rows of `then` if it has RETURNING, otherwise those of the first statement.
        """
        if self.dialect == "postgresql":
            return self.execute(_combined(statement, then), (*values, *more))
        found = self.execute(statement, values)
        more_rows = self.execute(then, more) if found else []
        return more_rows if _RETURNING in then else found

    def execute_in(self, statement: str, names: Sequence[Any], values: Sequence[Any] = ()) -> list[Row]:
        """Execute a statement with a list of names at `{names}`, which follows its other values."""
        found: list[Row] = []
        for start in range(0, len(names), _NAMES_MAX):
            chunk = tuple(names[start : start + _NAMES_MAX])
            size = 1
            while size < len(chunk):
                size *= 4
            padded = chunk + chunk[-1:] * (size - len(chunk))
            found += self.execute_raw(_with_names(statement, size, self.dialect), (*values, *padded))
        return found

    def execute_rows(self, statement: str, rows: Sequence[Row]) -> list[Row]:
        """Execute a statement with `VALUES {rows}`, mostly an INSERT, with these rows of values; return its rows."""
        found: list[Row] = []
        start = 0
        for size in _ROWS:
            while len(rows) - start >= size:
                text = _with_rows(statement, len(rows[0]), size, self.dialect)
                found += self.execute_raw(text, tuple(chain.from_iterable(rows[start : start + size])))
                start += size
        return found

    def execute_many(self, statement: str, rows: Iterable[Row]) -> int:
        """Execute a statement with each of these rows of values; return how many database rows it changed."""
        cursor = self._cursor()
        cursor.executemany(render(statement, self.dialect), rows)
        return int(cursor.rowcount)

    def now_ms(self) -> int:
        return int(self.execute("SELECT {now}")[0][0])

    def _cursor(self) -> Any:
        if self.dialect == "sqlite":
            return self._connection.cursor()
        from psycopg import RawCursor, pq  # noqa: PLC0415 - loaded long since, but not where the database is SQLite

        cursor = RawCursor(self._connection)
        cursor.format = pq.Format.BINARY  # as text a body is twice as long
        return cursor


def driver_of(conn: Connection) -> Driver:
    """The driver within a SQLAlchemy transaction."""
    return Driver(conn.connection.driver_connection, conn.dialect.name)


@cache
def render(statement: str, dialect: str) -> str:
    """A statement in the driver's notation."""
    text = statement.replace("{now}", NOW[dialect])
    for word, lock in _LOCKS.items():
        text = text.replace(word, lock if dialect == "postgresql" else "")
    if dialect == "postgresql":
        number = count(1)
        text = re.sub(r"\?", lambda _: f"${next(number)}", text)
    return text


@cache
def _combined(statement: str, then: str) -> str:
    condition, returning, columns = then.partition(_RETURNING)
    then = f"{condition} AND EXISTS (SELECT FROM done){returning}{columns}"
    answer = "more" if returning else "done"
    return f"WITH done AS ({statement}), more AS ({then}) SELECT * FROM {answer}"  # noqa: S608 - no value in it


@cache
def _with_names(statement: str, names: int, dialect: str) -> str:
    return render(statement.replace("{names}", ", ".join("?" * names)), dialect)


@cache
def _with_rows(statement: str, values: int, rows: int, dialect: str) -> str:
    row = f"({', '.join('?' * values)})"
    return render(statement.replace("{rows}", ", ".join([row] * rows)), dialect)
