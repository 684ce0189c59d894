"""Every accepted set of mapping files, by hash. Goals refer to theirs; a start with a broken set uses the last one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from bridge.store.clock import read_ms
from bridge.store.schema import insert
from bridge.store.schema import rule_sets as table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


def accept(conn: Connection, hash_: str, files: Mapping[str, str]) -> None:
    """Store a set (file name to content) as the last accepted one, even if the clock went back."""
    last = conn.execute(select(func.max(table.c.accepted_at_ms))).scalar()
    at_ms = max(read_ms(conn), int(last or 0) + 1)
    values = {"hash": hash_, "files": json.dumps(dict(files)), "accepted_at_ms": at_ms}
    new = insert(table, conn.dialect.name).values(**values)
    conn.execute(new.on_conflict_do_update(index_elements=[table.c.hash], set_={"accepted_at_ms": at_ms}))


def last_accepted(conn: Connection) -> dict[str, str] | None:
    """The files of the last accepted set; None before the first."""
    query = select(table.c.files).order_by(table.c.accepted_at_ms.desc(), table.c.hash).limit(1)
    return _files(conn.execute(query).scalar())


def files(conn: Connection, hash_: str) -> dict[str, str] | None:
    """The files of the set with this hash."""
    return _files(conn.execute(select(table.c.files).where(table.c.hash == hash_)).scalar())


def _files(text: str | None) -> dict[str, str] | None:
    return None if text is None else dict(json.loads(text))
