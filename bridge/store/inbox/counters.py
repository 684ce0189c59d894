"""Counters for what each source sent, and for wrong bearer tokens.

They are rows, not variables, so they are right with many processes and after a restart. Stored events are counted in
the transaction that stores them. Refusals are not written immediately, because a flood of forgeries would become a
flood of writes: each process sums them up and writes the sums once per second.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, Text, case, cast, or_

from bridge.store import facts
from bridge.store.clock import now_ms, read_ms
from bridge.store.schema import facts as facts_table
from bridge.store.schema import insert
from bridge.store.schema import source_counters as table

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store.database.engine import Store


def refused(conn: Connection, source: str, *, count: int, in_row: int, reason: str) -> None:
    """Count refusals, of which `in_row` came after the last accepted event."""
    new = insert(table, conn.dialect.name).values(
        source=source,
        refused=count,
        refused_in_row=in_row,
        last_refusal=reason,
        last_refused_at_ms=now_ms(),
        row_began_at_ms=now_ms(),
    )
    begins = or_(table.c.refused_in_row == 0, table.c.row_began_at_ms.is_(None))
    sums = {
        "refused": table.c.refused + new.excluded.refused,
        "refused_in_row": table.c.refused_in_row + new.excluded.refused_in_row,
        "last_refusal": new.excluded.last_refusal,
        "last_refused_at_ms": new.excluded.last_refused_at_ms,
        "row_began_at_ms": case((begins, new.excluded.last_refused_at_ms), else_=table.c.row_began_at_ms),
    }
    conn.execute(new.on_conflict_do_update(index_elements=[table.c.source], set_=sums))


@dataclass
class _RefusalCount:
    count: int = 0
    in_row: int = 0
    reason: str = ""


class Refusals:
    """Refusals and wrong bearer tokens since the last `flush`. Thread-safe.

    Unflushed counts are lost if the process is killed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, _RefusalCount] = {}
        self._wrong_tokens = 0

    def refused(self, source: str, reason: str) -> None:
        """Count a request to a known source that failed verification; `reason` is for its owner, without secrets."""
        with self._lock:
            total = self._sums.setdefault(source, _RefusalCount())
            total.count += 1
            total.in_row += 1
            total.reason = reason

    def wrong_token(self) -> None:
        """Count a request with a wrong bearer token."""
        with self._lock:
            self._wrong_tokens += 1

    def accepted(self, source: str) -> None:
        """Note an accepted event of the source, which ends its run of refusals."""
        with self._lock:
            if source in self._sums:
                self._sums[source].in_row = 0

    def flush(self, store: Store) -> None:
        """Write the sums. If the store is unavailable, they are kept for the next time."""
        with self._lock:
            sums, self._sums = self._sums, {}
            wrong_tokens, self._wrong_tokens = self._wrong_tokens, 0
        if not sums and not wrong_tokens:
            return
        try:
            store.run(lambda conn: _write(conn, sums, wrong_tokens))
        except BaseException:
            self._take_back(sums, wrong_tokens)
            raise

    def _take_back(self, sums: dict[str, _RefusalCount], wrong_tokens: int) -> None:
        with self._lock:
            self._wrong_tokens += wrong_tokens
            for source, old in sums.items():
                new = self._sums.setdefault(source, _RefusalCount(reason=old.reason))
                new.count += old.count
                new.in_row += old.in_row


def _write(conn: Connection, sums: dict[str, _RefusalCount], wrong_tokens: int) -> None:
    for source in sorted(sums):  # the same order everywhere, to prevent deadlocks
        total = sums[source]
        refused(conn, source, count=total.count, in_row=total.in_row, reason=total.reason)
    if wrong_tokens:
        _add(conn, wrong_tokens)


# -------------------------------------------------------------------------------------------------- wrong tokens

_COUNT: Final = "wrong_tokens"
_LAST: Final = "wrong_token_at_ms"


@dataclass(frozen=True, slots=True)
class TokenTries:
    """The total of wrong tokens, and when the last one came (None if there was none)."""

    count: int = 0
    last_at_ms: int | None = None


def wrong_tokens(conn: Connection) -> TokenTries:
    """The counts written by all processes."""
    count, last = facts.get(conn, _COUNT), facts.get(conn, _LAST)
    return TokenTries(int(count or 0), None if last is None else int(last))


def _add(conn: Connection, count: int) -> None:
    value = facts_table.c.value
    new = insert(facts_table, conn.dialect.name).values(name=_COUNT, value=str(count))
    total = cast(cast(value, BigInteger) + count, Text)
    conn.execute(new.on_conflict_do_update(index_elements=[facts_table.c.name], set_={"value": total}))
    facts.put(conn, _LAST, str(read_ms(conn)))
