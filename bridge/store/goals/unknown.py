"""Which visitors a destination knows: those it never knew (404 to the end), and those of borrowed fields.

Who was never known is passed over, so that the next candidate is tried. Not for ever: one who was named in metadata may
yet be seen (a blocked pageview) and is tried again after a day; a bare `client_reference_id` is probably the app's own
user id and is passed over for a month. Who stands in a borrowed field counts only when the destination has said that
it knows it (`bridge.store.goals.proofs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete

from bridge.store.clock import now_ms
from bridge.store.goals import statements
from bridge.store.schema import unknown_visitors as table
from bridge.store.upsert import insert

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from bridge.identity.evidence import Evidence, FoundVisitor
    from bridge.model import NamedVisitor

_DAY_MS: Final = 86_400_000
SURE_MS: Final = _DAY_MS
BARE_MS: Final = 30 * _DAY_MS
WHY: Final = "looks like a visitor id, but DataFast has never seen it; is it your own user id?"


def unlearn(conn: Connection, destination: str, visitor: str) -> None:
    """DataFast answered 404 to the end: this visitor leads nowhere at this destination."""
    new = insert(table, conn.dialect.name).values(destination=destination, visitor=visitor, at_ms=now_ms())
    conn.execute(new.on_conflict_do_update(index_elements=list(table.primary_key), set_={"at_ms": now_ms()}))


def seen(conn: Connection, destination: str, visitor: str) -> None:
    """DataFast took a goal of this visitor after all."""
    conn.execute(_SEEN, {"of": destination, "who": visitor})


class Unknown:
    """Which of some visitors are passed over now, and which still have to be proved."""

    def __init__(self, conn: Connection, candidates: Iterable[NamedVisitor | Evidence], now: int) -> None:
        borrowed: dict[str, bool] = {}
        for item in candidates:
            borrowed[item.visitor] = borrowed.get(item.visitor, False) or item.borrowed
        self._since_ms = statements.unknown(conn, borrowed)
        self._known = statements.proofs(conn, (visitor for visitor in borrowed if borrowed[visitor]))
        self._now = now

    def passed_over(self, destination: str, item: NamedVisitor | Evidence) -> bool:
        """Is there no use in this candidate at this destination?"""
        if item.borrowed and self._known.get((destination, item.visitor)) is False:
            return True
        since_ms = self._since_ms.get((destination, item.visitor))
        return since_ms is not None and self._now - since_ms < (SURE_MS if item.sure else BARE_MS)

    def unproved(self, destination: str, item: NamedVisitor | Evidence | FoundVisitor) -> bool:
        """Has this destination to be asked first?"""
        return item.borrowed and (destination, item.visitor) not in self._known


_SEEN: Final = delete(table).where(table.c.destination == bindparam("of"), table.c.visitor == bindparam("who"))
