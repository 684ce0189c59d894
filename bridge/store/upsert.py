"""INSERT … ON CONFLICT for both databases: they write it alike, SQLAlchemy keeps it in two places."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Table

    Insert: TypeAlias = sqlite.Insert | postgresql.Insert

Statement = TypeVar("Statement")


def both(table: Table, build: Callable[[Insert], Statement]) -> Mapping[str, Statement]:
    """The statement that `build` makes, by the name of the dialect: `conn.execute(STATEMENT[conn.dialect.name], …)`."""
    return {"sqlite": build(sqlite.insert(table)), "postgresql": build(postgresql.insert(table))}
