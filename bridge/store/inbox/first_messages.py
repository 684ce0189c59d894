"""What senders said before their source had a secret: kept for a person, for an hour, the last three of each source.

Nobody has authenticated them, so they are never used by themselves, and they are in no log, status or page. Like
refusals they write nothing at once, or a flood of them would be a flood of writes: `FirstMessages` holds the last three
and its owner writes them a few times a second.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, select

from bridge.store.clock import now_ms
from bridge.store.schema import first_messages as table
from bridge.store.upsert import both

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store.database.engine import Store

KEPT: Final = 3  # of a source
KEPT_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class FirstMessage:
    """sender: an address, and through which proxy; whether it is the provider's, only its own page can tell."""

    token: str = field(repr=False)
    sender: str
    at_ms: int


class FirstMessages:
    """First messages since the last `flush`. Thread-safe; what was not flushed when a process is killed is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[str, str]] = {}  # source -> token -> sender, the last one last

    def keep(self, source: str, token: str, sender: str) -> None:
        """Without waiting for the database."""
        with self._lock:
            of_source = self._waiting.setdefault(source, {})
            of_source.pop(token, None)
            of_source[token] = sender
            if len(of_source) > KEPT:
                del of_source[next(iter(of_source))]

    def flush(self, store: Store) -> None:
        """Write them. When the store is unavailable they are kept for the next time."""
        if not self._waiting:
            return
        with self._lock:
            waiting = {source: dict(of_source) for source, of_source in self._waiting.items()}
        store.run(lambda conn: _write(conn, waiting))
        with self._lock:
            for source, of_source in waiting.items():
                self._waiting[source] = {
                    token: sender for token, sender in self._waiting[source].items() if token not in of_source
                }
            self._waiting = {source: left for source, left in self._waiting.items() if left}


_PUT: Final = both(
    table,
    lambda insert: insert.values(
        source=bindparam("of"), token=bindparam("what"), sender=bindparam("who"), at_ms=now_ms()
    ).on_conflict_do_update(
        index_elements=[table.c.source, table.c.token],
        set_={"sender": insert.excluded.sender, "at_ms": insert.excluded.at_ms},
    ),
)


def _write(conn: Connection, waiting: dict[str, dict[str, str]]) -> None:
    for source in sorted(waiting):  # the same order everywhere, so that there is no deadlock
        for token, sender in waiting[source].items():
            conn.execute(_PUT[conn.dialect.name], {"of": source, "what": token, "who": sender})
        last = select(table.c.token).where(table.c.source == source).order_by(*_LAST_FIRST).limit(KEPT)
        conn.execute(delete(table).where(table.c.source == source, table.c.token.not_in(last)))


_LAST_FIRST: Final = (table.c.at_ms.desc(), table.c.token)


def forget_old(conn: Connection, now: int) -> int:
    """Remove what is older than an hour; how many."""
    return conn.execute(delete(table).where(table.c.at_ms <= now - KEPT_MS)).rowcount


def of_source(conn: Connection, source: str) -> list[FirstMessage]:
    """Those of the last hour, the last one first."""
    statement = select(table.c.token, table.c.sender, table.c.at_ms).where(
        table.c.source == source, table.c.at_ms > now_ms() - KEPT_MS
    )
    return [FirstMessage(*row) for row in conn.execute(statement.order_by(*_LAST_FIRST).limit(KEPT))]
