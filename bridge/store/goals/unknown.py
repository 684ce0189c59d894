"""Which visitors a destination knows: those it never knew (404 to the end), and those of borrowed fields.

A visitor who was never known is passed over, so that the next candidate is tried, but not for ever: one from metadata
may still be seen (a blocked pageview) and is tried again after a day; a bare `client_reference_id` is probably a user
id of the app and is passed over for a month.

A bare UUID in a field that a site may use for its own user ids counts as a visitor only after the destination has said
that it knows it. It is asked about each once (`GET /visitors/{id}`, by the worker that claims it), and the answer is
remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.store.goals import statements

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from bridge.identity.evidence import Evidence, FoundVisitor
    from bridge.model import NamedVisitor

_DAY_MS: Final = 86_400_000
SURE_MS: Final = _DAY_MS
BARE_MS: Final = 30 * _DAY_MS
WHY: Final = "looks like a visitor id, but DataFast has never seen it; is it your own user id?"


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
        """Whether this candidate is of no use at this destination."""
        if item.borrowed and self._known.get((destination, item.visitor)) is False:
            return True
        since_ms = self._since_ms.get((destination, item.visitor))
        return since_ms is not None and self._now - since_ms < (SURE_MS if item.sure else BARE_MS)

    def unproved(self, destination: str, item: NamedVisitor | Evidence | FoundVisitor) -> bool:
        """Whether this destination has to be asked first."""
        return item.borrowed and (destination, item.visitor) not in self._known
