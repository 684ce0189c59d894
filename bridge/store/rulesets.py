"""Every accepted set of mapping files, under its hash: goals refer to it; a start with a broken set uses the last."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, func, select

from bridge.store.clock import read_ms
from bridge.store.schema import rule_sets as table
from bridge.store.upsert import both

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

_ACCEPT: Final = both(
    table,
    lambda insert: insert.values(
        hash=bindparam("of"), files=bindparam("texts"), accepted_at_ms=bindparam("at")
    ).on_conflict_do_update(index_elements=[table.c.hash], set_={"accepted_at_ms": insert.excluded.accepted_at_ms}),
)


def accept(conn: Connection, hash_: str, files: Mapping[str, str]) -> None:
    """Remember a set (file name to text) as the one that was accepted last, whatever the clock said before."""
    last = conn.execute(select(func.max(table.c.accepted_at_ms))).scalar()
    at_ms = max(read_ms(conn), int(last or 0) + 1)
    conn.execute(_ACCEPT[conn.dialect.name], {"of": hash_, "texts": json.dumps(dict(files)), "at": at_ms})


def last_accepted(conn: Connection) -> dict[str, str] | None:
    """The files of the set that was accepted last; None before the first."""
    wish = select(table.c.files).order_by(table.c.accepted_at_ms.desc(), table.c.hash).limit(1)
    return _files(conn.execute(wish).scalar())


def files(conn: Connection, hash_: str) -> dict[str, str] | None:
    """The files of the set with this hash."""
    return _files(conn.execute(select(table.c.files).where(table.c.hash == hash_)).scalar())


def _files(text: str | None) -> dict[str, str] | None:
    return None if text is None else dict(json.loads(text))
