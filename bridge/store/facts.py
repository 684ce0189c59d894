"""The bridge's own facts: small strings under a name, such as the key of the filter `hash`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from bridge.store.schema import facts as table
from bridge.store.upsert import insert

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

HASH_KEY: Final = "hash_key"  # hex; of the filter `hash`
EMAIL_KEY: Final = "email_key"  # hex; of the hash of e-mail addresses, made when it is first needed and kept for ever


def get(conn: Connection, name: str) -> str | None:
    return conn.execute(select(table.c.value).where(table.c.name == name)).scalar()


def put(conn: Connection, name: str, value: str) -> None:
    new = insert(table, conn.dialect.name).values(name=name, value=value)
    conn.execute(new.on_conflict_do_update(index_elements=[table.c.name], set_={"value": value}))


def ensure(conn: Connection, name: str, make: Callable[[], str]) -> str:
    """The value under the name; made now if there is none. Of two that make it at once, the first wins for both."""
    known = get(conn, name)
    if known is not None:
        return known
    conn.execute(insert(table, conn.dialect.name).values(name=name, value=make()).on_conflict_do_nothing())
    settled = get(conn, name)
    assert settled is not None
    return settled
