"""The store's own statements at a third of the cost: each is compiled once, then given to SQLite's driver as text.

Only for simulations that execute millions of them. The SQL, the transaction and the connection are the real ones; what
is left out is what SQLAlchemy does around each execution. A statement that is built anew for each call, or
takes a list of varying length, goes through SQLAlchemy as always.
"""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIALECT = sqlite.dialect()
_KEPT = 200


class Answer:
    """The part of SQLAlchemy's result that the store uses."""

    def __init__(self, rows: list[Any], rowcount: int = 0) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        (row,) = self._rows
        return row

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def scalars(self) -> Iterator[Any]:
        return (row[0] for row in self._rows)

    def scalar_one(self) -> Any:
        ((value,),) = self._rows
        return value


class _Compiled:
    def __init__(self, statement: Any, values: dict[str, Any]) -> None:
        written = statement.compile(dialect=_DIALECT).construct_expanded_state(values)
        self.text = written.statement
        self.names = tuple(written.positiontup)
        self.given = written.parameters
        self.row: Any = None

    def execute(self, raw: Any, values: dict[str, Any]) -> Answer:
        known = {**self.given, **values}
        cursor = raw.execute(self.text, [known[name] for name in self.names])
        if cursor.description is None:
            return Answer([], cursor.rowcount)
        if self.row is None:
            named: Any = namedtuple  # noqa: PYI024 - mypy wants to know its names in advance
            self.row = named("Row", [column[0] for column in cursor.description])._make
        return Answer([self.row(row) for row in cursor])


class Statements:
    """The statement objects that are executed again and again. They are kept, so that no other object gets their id."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, Any] = OrderedDict()
        self._compiled: dict[int, _Compiled] = {}
        self._kept: list[Any] = []

    def compiled(self, statement: Any, values: dict[str, Any]) -> _Compiled | None:
        """The compiled statement; None: it was not seen before, or not among the last ones."""
        key = id(statement)
        found = self._compiled.get(key)
        if found is not None:
            return found
        if key in self._seen:
            self._kept.append(statement)
            return self._compiled.setdefault(key, _Compiled(statement, values))
        self._seen[key] = statement
        if len(self._seen) > _KEPT:
            self._seen.popitem(last=False)
        return None


class Quick:
    """Takes the place of a Connection of SQLAlchemy, within its transaction."""

    def __init__(self, conn: Any, statements: Statements) -> None:
        self._conn = conn
        self._statements = statements
        self._raw = conn.connection.driver_connection

    def execute(self, statement: Any, values: dict[str, Any] | None = None) -> Any:
        varies = values is not None and any(isinstance(value, list) for value in values.values())
        compiled = None if varies else self._statements.compiled(statement, values or {})
        if compiled is None:
            return self._conn.execute(statement, values) if values else self._conn.execute(statement)
        return compiled.execute(self._raw, values or {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)
