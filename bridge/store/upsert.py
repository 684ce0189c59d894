"""INSERT … ON CONFLICT for both databases: they write it alike, but SQLAlchemy has it in two modules.

A process loads only the module of its own database: PostgreSQL's costs 40 ms and 4 MB, for drivers it does not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.dialects import postgresql, sqlite

    Insert: TypeAlias = sqlite.Insert | postgresql.Insert


def insert(table: Table, dialect: str) -> Insert:
    """The INSERT of one database."""
    made: Insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    return made
