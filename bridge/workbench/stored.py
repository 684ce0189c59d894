"""What the workbench reads of the database: stored events in pages, and what preparing them needs.

Each page is a short transaction of its own, so that nothing waits for the workbench, however long it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bridge import loading
from bridge.prepare import Preparer
from bridge.store import Store, facts
from bridge.store.operator import history

if TYPE_CHECKING:
    from bridge.model import Event
    from bridge.rules import RuleSet
    from bridge.settings import Settings


def preparer(store: Store, rule_set: RuleSet, settings: Settings) -> Preparer:
    """What prepares events as routing does: also the filter `hash` gives what it gives there."""
    with store.read() as conn:
        key, email_key = (facts.get(conn, name) for name in (facts.HASH_KEY, facts.EMAIL_KEY))
    known = email_key.encode() if email_key else None
    destinations = loading.destinations(settings, rule_set)
    return Preparer(rule_set, settings, destinations, (key or "").encode(), email_key=known, near=False)


def pages(store: Store, span: history.EventSpan) -> Iterator[list[Event]]:
    """The events of a span, in the order of their arrival."""
    after: int | None = None
    while True:
        with store.read() as conn:
            events = history.page(conn, span, after)
        if not events:
            return
        yield events
        after = events[-1].id


def some(store: Store, ids: Sequence[int]) -> Iterator[list[Event]]:
    """These events, in the order of their arrival."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), history.PAGE):
        with store.read() as conn:
            events = history.events_by_id(conn, ordered[start : start + history.PAGE])
        yield events
