"""What people changed, newest first: a row per action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from bridge.store.clock import now_ms
from bridge.store.schema import changes

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Change:
    """One action. what: replay, retry, cancel, …; about: what was changed (`ev_12`, `stripe.yaml`)."""

    id: int
    at_ms: int
    what: str
    about: str
    sentence: str


def record(conn: Connection, what: str, about: str, sentence: str) -> None:
    """Remember an action of now."""
    conn.execute(insert(changes).values(at_ms=now_ms(), what=what, about=about, sentence=sentence))


def recent(conn: Connection, limit: int, before: int | None = None) -> list[Change]:
    """The newest, or those before the change of an id."""
    query = select(changes).order_by(changes.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(changes.c.id < before)
    return [Change(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name
