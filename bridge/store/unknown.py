"""Visitors whom a destination never knew (404 to the end): passed over, so that the next candidate is tried.

Not for ever: one who was named in metadata may yet be seen (a blocked pageview) and is tried again after a day; a bare
`client_reference_id` is probably the app's own user id and is passed over for a month.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete

from bridge.store.clock import now_ms
from bridge.store.driver import driver_of
from bridge.store.schema import unknown_visitors as table
from bridge.store.upsert import both

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from bridge.store.upsert import Insert

_DAY_MS: Final = 86_400_000
SURE_MS: Final = _DAY_MS
BARE_MS: Final = 30 * _DAY_MS
WHY: Final = "looks like a visitor id, but DataFast has never seen it; is it your own user id?"


def unlearn(conn: Connection, destination: str, visitor: str) -> None:
    """DataFast answered 404 to the end: this visitor leads nowhere at this destination."""
    conn.execute(_UNLEARN[conn.dialect.name], {"destination": destination, "visitor": visitor})


def seen(conn: Connection, destination: str, visitor: str) -> None:
    """DataFast took a goal of this visitor after all."""
    conn.execute(_SEEN, {"of": destination, "who": visitor})


class Unknown:
    """Which of some visitors are passed over now."""

    def __init__(self, conn: Connection, visitors: Collection[str], now: int) -> None:
        rows = driver_of(conn).among(_LOAD, sorted(visitors))
        self._age_ms = {(destination, visitor): now - at_ms for destination, visitor, at_ms in rows}

    def passed_over(self, destination: str, visitor: str, *, sure: bool) -> bool:
        age_ms = self._age_ms.get((destination, visitor))
        return age_ms is not None and age_ms < (SURE_MS if sure else BARE_MS)


def _unlearn(insert: Insert) -> Insert:
    return insert.values(
        destination=bindparam("destination"), visitor=bindparam("visitor"), at_ms=now_ms()
    ).on_conflict_do_update(
        index_elements=[table.c.destination, table.c.visitor], set_={"at_ms": insert.excluded.at_ms}
    )


_UNLEARN: Final = both(table, _unlearn)
_SEEN: Final = delete(table).where(table.c.destination == bindparam("of"), table.c.visitor == bindparam("who"))
_LOAD: Final = "SELECT destination, visitor, at_ms FROM unknown_visitors WHERE visitor IN ({names})"
