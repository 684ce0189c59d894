"""The stored events of a time span in order of arrival.

`span` and `page` use the primary key and the index of `received_at_ms`: a page reads only the rows of its events, with
their bodies. Nothing here writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from bridge.store.database.driver import driver_of
from bridge.store.inbox.events import event_from_values
from bridge.store.inbox.statements import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from bridge.model import Event

PAGE: Final = 500  # events
_LOOKED_AT: Final = 10_000  # events searched for the newest of each type


@dataclass(frozen=True, slots=True)
class EventSpan:
    """The events from `first` to `last` received at `since_ms` or later; `first` is None if there are none."""

    since_ms: int
    first: int | None
    last: int


def span(conn: Connection, since_ms: int) -> EventSpan:
    """The span of the events received since then."""
    first = next((event_id for (event_id,) in driver_of(conn).execute(_FIRST, (since_ms,))), None)
    return EventSpan(since_ms, first, _last(conn))


def page(conn: Connection, within: EventSpan, after: int | None = None) -> list[Event]:
    """The next events of a span after the event `after`, whether or not their bodies are kept; empty at the end."""
    if within.first is None:
        return []
    driver, last_read = driver_of(conn), within.first - 1 if after is None else after
    while last_read < within.last and (rows := driver.execute(_PAGE, (last_read, PAGE))):
        last_read = rows[-1][0]
        found = (event_from_values(row) for row in rows if row[0] <= within.last)
        if inside := [event for event in found if event.received_at_ms >= within.since_ms]:
            return inside
    return []


def events_by_id(conn: Connection, ids: Sequence[int]) -> list[Event]:
    """These events, in the order of their arrival."""
    return [event_from_values(row) for row in sorted(driver_of(conn).execute_in(_SOME, ids), key=itemgetter(0))]


def newest(conn: Connection, sources: Iterable[str], since_ms: int) -> list[tuple[int, str, str]]:
    """Id, source and type of the newest events of these sources since then, newest first.

    Only the last _LOOKED_AT events are examined, by the primary key.
    """
    rows = driver_of(conn).execute_in(_NEWEST, sorted(sources), (_last(conn) - _LOOKED_AT, since_ms))
    return sorted(((event_id, source, event_type) for event_id, source, event_type in rows), reverse=True)


def _last(conn: Connection) -> int:
    return driver_of(conn).execute(_LAST)[0][0] or 0


_FIRST: Final = "SELECT id FROM events WHERE received_at_ms >= ? ORDER BY received_at_ms, id LIMIT 1"
_LAST: Final = "SELECT max(id) FROM events"
# With more conditions, PostgreSQL without statistics would sort all remaining events for every page.
_PAGE: Final = f"SELECT {', '.join(COLUMNS)} FROM events WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608 - no value in it
_NEWEST: Final = "SELECT id, source, type FROM events WHERE id > ? AND received_at_ms >= ? AND source IN ({names})"
_SOME: Final = f"SELECT {', '.join(COLUMNS)} FROM events WHERE id IN ({{names}})"  # noqa: S608 - as above
