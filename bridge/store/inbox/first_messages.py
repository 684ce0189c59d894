"""Messages sent before a source had a secret: the last three of each source, kept for a person for an hour.

They are not authenticated, so the bridge never uses them, and never shows them in a log, status or page. Like refusals,
they are not written immediately, because a flood of them would become a flood of writes: `FirstMessages` holds the last
three, and its owner writes them a few times per second.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select

from bridge.store.clock import now_ms
from bridge.store.schema import first_messages as table
from bridge.store.schema import insert

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store.database.engine import Store

KEPT: Final = 3  # per source
KEPT_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class FirstMessage:
    """sender: an address, and the proxy used. Only the provider's own page can tell whether the address is genuine."""

    token: str = field(repr=False)
    sender: str
    at_ms: int


class FirstMessages:
    """First messages since the last `flush`. Thread-safe; unflushed messages are lost if the process is killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[str, str]] = {}  # source -> token -> sender, the last one last

    def keep(self, source: str, token: str, sender: str) -> None:
        """Remember a message without waiting for the database."""
        with self._lock:
            senders = self._waiting.setdefault(source, {})
            senders.pop(token, None)
            senders[token] = sender
            if len(senders) > KEPT:
                del senders[next(iter(senders))]

    def flush(self, store: Store) -> None:
        """Write the messages. If the store is unavailable, they are kept for the next time."""
        if not self._waiting:
            return
        with self._lock:
            waiting = {source: dict(senders) for source, senders in self._waiting.items()}
        store.run(lambda conn: _write(conn, waiting))
        with self._lock:
            for source, senders in waiting.items():
                self._waiting[source] = {
                    token: sender for token, sender in self._waiting[source].items() if token not in senders
                }
            self._waiting = {source: left for source, left in self._waiting.items() if left}


def _write(conn: Connection, waiting: dict[str, dict[str, str]]) -> None:
    for source in sorted(waiting):  # the same order everywhere, to prevent deadlocks
        for token, sender in waiting[source].items():
            again = {"sender": sender, "at_ms": now_ms()}
            new = insert(table, conn.dialect.name).values(source=source, token=token, **again)
            conn.execute(new.on_conflict_do_update(index_elements=[table.c.source, table.c.token], set_=again))
        last = select(table.c.token).where(table.c.source == source).order_by(*_LAST_FIRST).limit(KEPT)
        conn.execute(delete(table).where(table.c.source == source, table.c.token.not_in(last)))


_LAST_FIRST: Final = (table.c.at_ms.desc(), table.c.token)


def forget_old(conn: Connection, now: int) -> int:
    """Delete messages older than an hour; return how many."""
    return conn.execute(delete(table).where(table.c.at_ms <= now - KEPT_MS)).rowcount


def messages_of(conn: Connection, source: str) -> list[FirstMessage]:
    """The messages of the last hour, the latest first."""
    statement = select(table.c.token, table.c.sender, table.c.at_ms).where(
        table.c.source == source, table.c.at_ms > now_ms() - KEPT_MS
    )
    return [FirstMessage(*row) for row in conn.execute(statement.order_by(*_LAST_FIRST).limit(KEPT))]
