"""The bridge's own facts: small texts under a name, such as the key of the filter `hash`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from bridge.store.schema import facts as table
from bridge.store.upsert import both

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from bridge.store.upsert import Insert

HASH_KEY: Final = "hash_key"  # hex; of the filter `hash`


def _values(insert: Insert) -> Insert:
    return insert.values(name=bindparam("of"), value=bindparam("new"))


_KEEP_FIRST: Final = both(table, lambda insert: _values(insert).on_conflict_do_nothing())
_REPLACE: Final = both(
    table,
    lambda insert: _values(insert).on_conflict_do_update(
        index_elements=[table.c.name], set_={"value": insert.excluded.value}
    ),
)


def get(conn: Connection, name: str) -> str | None:
    """What is known under the name."""
    return conn.execute(select(table.c.value).where(table.c.name == name)).scalar()


def put(conn: Connection, name: str, value: str) -> None:
    """Know this under the name from now on."""
    conn.execute(_REPLACE[conn.dialect.name], {"of": name, "new": value})


def ensure(conn: Connection, name: str, make: Callable[[], str]) -> str:
    """What is known under the name; made now if nothing is. Of two that make it at once, the first wins for both."""
    known = get(conn, name)
    if known is not None:
        return known
    conn.execute(_KEEP_FIRST[conn.dialect.name], {"of": name, "new": make()})
    settled = get(conn, name)
    assert settled is not None
    return settled
