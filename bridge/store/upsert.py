"""INSERT … ON CONFLICT for both databases: they write it alike, SQLAlchemy keeps it in two places.

A process loads only the place of its own database: PostgreSQL's costs 40 ms and 4 MB, for the drivers of others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Table
    from sqlalchemy.dialects import postgresql, sqlite

    Insert: TypeAlias = sqlite.Insert | postgresql.Insert

Statement = TypeVar("Statement")


def insert(table: Table, dialect: str) -> Insert:
    """The INSERT of one database."""
    made: Insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    return made


class _Both(dict[str, Statement]):
    """Builds a database's statement when it is asked for."""

    def __init__(self, table: Table, build: Callable[[Insert], Statement]) -> None:
        super().__init__()
        self._table = table
        self._build = build

    def __missing__(self, dialect: str) -> Statement:
        self[dialect] = self._build(insert(self._table, dialect))
        return self[dialect]


def both(table: Table, build: Callable[[Insert], Statement]) -> Mapping[str, Statement]:
    """The statement that `build` makes, by the name of the dialect: `conn.execute(STATEMENT[conn.dialect.name], …)`."""
    return _Both(table, build)
