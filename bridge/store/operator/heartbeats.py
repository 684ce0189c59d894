"""The heartbeats of the bridge's processes, from which any of them sees which workers run, and with which rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select

from bridge.store.clock import now_ms
from bridge.store.schema import insert
from bridge.store.schema import workers as table

if TYPE_CHECKING:
    from sqlalchemy import Connection

FORGOTTEN_MS: Final = 86_400_000  # a process that was killed is forgotten after a day


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last heartbeat of a process. kind: inline | worker (these route and deliver) | web."""

    id: str
    kind: str
    started_at_ms: int
    seen_at_ms: int
    rules_hash: str | None
    rules_fault: str | None


def beat(conn: Connection, id_: str, *, kind: str, rules_hash: str | None, rules_fault: str | None) -> None:
    """A process is alive and works with these rules; `rules_fault`: why it refused newer ones."""
    seen = {"seen_at_ms": now_ms(), "rules_hash": rules_hash, "rules_fault": rules_fault}
    new = insert(table, conn.dialect.name).values(id=id_, kind=kind, started_at_ms=now_ms(), **seen)
    conn.execute(new.on_conflict_do_update(index_elements=[table.c.id], set_=seen))
    conn.execute(delete(table).where(table.c.seen_at_ms < now_ms() - FORGOTTEN_MS))


def gone(conn: Connection, id_: str) -> None:
    """A process ended in order."""
    conn.execute(delete(table).where(table.c.id == id_))


def all_seen(conn: Connection, within_ms: int) -> list[Heartbeat]:
    """The processes that were seen lately, the latest first."""
    query = select(table).where(table.c.seen_at_ms >= now_ms() - within_ms).order_by(table.c.seen_at_ms.desc())
    return [Heartbeat(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name
