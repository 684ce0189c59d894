"""How many wrong bearer tokens were tried, and when the last one was. The counts are rows, shared by all processes.

Each process adds its tries up and writes once per second, as refusals are written: a flood of tries causes few writes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, Text, cast

from bridge.store import facts
from bridge.store.clock import read_ms
from bridge.store.schema import facts as table
from bridge.store.upsert import both

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store.database.engine import Store
    from bridge.store.upsert import Insert

_COUNT: Final = "wrong_tokens"
_LAST: Final = "wrong_token_at_ms"


@dataclass(frozen=True, slots=True)
class TokenTries:
    """How many there ever were; when the last one was, None if there was none."""

    count: int = 0
    last_at_ms: int | None = None


class WrongTokens:
    """Those since the last `flush`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def count(self) -> None:
        """One more."""
        with self._lock:
            self._count += 1

    def flush(self, store: Store) -> None:
        """Write the sum. When the store is unavailable it is kept for the next time."""
        with self._lock:
            count, self._count = self._count, 0
        if not count:
            return
        try:
            store.run(lambda conn: _add(conn, count))
        except BaseException:
            with self._lock:
                self._count += count
            raise


def tried(conn: Connection) -> TokenTries:
    """The written counts of all processes."""
    count, last = facts.get(conn, _COUNT), facts.get(conn, _LAST)
    return TokenTries(int(count or 0), None if last is None else int(last))


def _add(conn: Connection, count: int) -> None:
    conn.execute(_ADD[conn.dialect.name], {"name": _COUNT, "value": str(count)})
    facts.put(conn, _LAST, str(read_ms(conn)))


def _added(insert: Insert) -> Insert:
    total = cast(table.c.value, BigInteger) + cast(insert.excluded.value, BigInteger)
    return insert.on_conflict_do_update(index_elements=[table.c.name], set_={"value": cast(total, Text)})


_ADD: Final = both(table, _added)
