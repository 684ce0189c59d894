"""Counters of each source. They are rows, not variables, so they are right with many processes and after a restart.

What was stored is counted in the transaction that stores it. Refusals write nothing by themselves, or a flood of
forgeries would be a flood of writes: `Refusals` sums them in the process, and its owner writes them once a second.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, case, or_

from bridge.store.clock import now_ms
from bridge.store.schema import source_counters as table
from bridge.store.upsert import both

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store.database.engine import Store
    from bridge.store.upsert import Insert


def refused(conn: Connection, source: str, *, count: int, in_row: int, reason: str) -> None:
    """Count refusals; `in_row` of them came after the last accepted event."""
    values = {"of": source, "count": count, "in_row": in_row, "reason": reason}
    conn.execute(_REFUSED[conn.dialect.name], values)


def _refused(insert: Insert) -> Insert:
    return insert.values(
        source=bindparam("of"),
        refused=bindparam("count"),
        refused_in_row=bindparam("in_row"),
        last_refusal=bindparam("reason"),
        last_refused_at_ms=now_ms(),
        row_began_at_ms=now_ms(),
    ).on_conflict_do_update(
        index_elements=[table.c.source],
        set_={
            "refused": table.c.refused + insert.excluded.refused,
            "refused_in_row": table.c.refused_in_row + insert.excluded.refused_in_row,
            "last_refusal": insert.excluded.last_refusal,
            "last_refused_at_ms": insert.excluded.last_refused_at_ms,
            "row_began_at_ms": case(
                (
                    or_(table.c.refused_in_row == 0, table.c.row_began_at_ms.is_(None)),
                    insert.excluded.last_refused_at_ms,
                ),
                else_=table.c.row_began_at_ms,
            ),
        },
    )


_REFUSED: Final = both(table, _refused)


@dataclass
class _Sum:
    count: int = 0
    in_row: int = 0
    reason: str = ""


class Refusals:
    """Refusals since the last `flush`. Thread-safe; what was not flushed when a process is killed was never counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, _Sum] = {}

    def refused(self, source: str, reason: str) -> None:
        """A request to a known source failed verification; `reason` is for its owner, without secrets."""
        with self._lock:
            total = self._sums.setdefault(source, _Sum())
            total.count += 1
            total.in_row += 1
            total.reason = reason

    def accepted(self, source: str) -> None:
        """An event of the source came through, which ends its row of refusals."""
        with self._lock:
            if source in self._sums:
                self._sums[source].in_row = 0

    def flush(self, store: Store) -> None:
        """Write the sums. When the store is unavailable they are kept for the next time."""
        with self._lock:
            sums, self._sums = self._sums, {}
        if not sums:
            return
        try:
            store.run(lambda conn: _write(conn, sums))
        except BaseException:
            self._take_back(sums)
            raise

    def _take_back(self, sums: dict[str, _Sum]) -> None:
        with self._lock:
            for source, old in sums.items():
                new = self._sums.setdefault(source, _Sum(reason=old.reason))
                new.count += old.count
                new.in_row += old.in_row


def _write(conn: Connection, sums: dict[str, _Sum]) -> None:
    for source in sorted(sums):  # the same order everywhere, so that there is no deadlock
        total = sums[source]
        refused(conn, source, count=total.count, in_row=total.in_row, reason=total.reason)
