"""The activity list as CSV: at most ROWS_MAX rows, without bodies, and without what a spreadsheet would execute."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request

from bridge.store import Store, clock
from bridge.store.operator import activity
from bridge.store.operator.queries import EventLine, GoalLine
from bridge.web.console import filters
from bridge.web.console.rendering import at, showable, visible
from bridge.workbench import describe

if TYPE_CHECKING:
    from bridge.app import Bridge
    from bridge.web.console.filters import Filter

ROWS_MAX: Final = 10_000
_PAGE: Final = 500
_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four: their wide forms

_HEADS: Final = {
    activity.EVENTS: ("event", "received", "source", "type", "id", "mode", "result", "goals"),
    activity.GOALS: (
        *("goal", "made", "source", "name", "visitor", "how known", "state", "why", "rule", "destination", "mode"),
        *("event", "delivered"),
    ),
    activity.DELIVERIES: ("delivery", "began", "goal", "name", "visitor", "destination", "kind", "outcome", "status"),
}


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The route."""

    @routes.get("/activity.csv")
    def activity_download() -> Response:
        with bridge.store.read(quick=True) as conn:
            chosen = filters.read(request.args, clock.read_ms(conn)).first
        answer = Response(_lines(bridge.store, chosen, showable(bridge)), mimetype="text/csv")
        answer.headers["Content-Disposition"] = f'attachment; filename="{chosen.kind}.csv"'
        return answer


def _lines(store: Store, chosen: Filter, said: Callable[[str], str]) -> Iterator[str]:
    """Page after page, each read in a short transaction of its own."""
    yield _written([_HEADS[chosen.kind]])
    left, before = ROWS_MAX, chosen.wanted.before
    while left > 0:
        with store.read() as conn:
            wanted = replace(chosen.wanted, before=before)
            found = activity.page(conn, chosen.kind, wanted, min(left, _PAGE))
        yield _written([_cells(row, said) for row in found.rows])
        left, before = left - len(found.rows), found.reached
        if before is None:
            return


def _written(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([[safe(cell) for cell in row] for row in rows])
    return text.getvalue()


def safe(value: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{visible(text)}" if text.lstrip(" ").startswith(_FORMULA) else visible(text)


def _cells(row: Any, said: Callable[[str], str]) -> Sequence[Any]:
    if isinstance(row, EventLine):
        goals = " ".join(goal.label for goal in row.goals)
        became = said(describe.became(row))
        mode = _mode(test=row.test)
        named = said(row.provider_event_id or "")
        return row.label, at(row.received_at_ms), row.source, said(row.type), named, mode, became, goals
    if isinstance(row, GoalLine):
        how, why = said(describe.how_known(row)), said(row.message or row.reason or "")
        visitor = None if row.visitor is None else said(row.visitor)
        return (
            *(row.label, at(row.created_at_ms), row.source, said(row.called), visitor, how, row.state, why),
            *(row.rule_id, row.destination, _mode(test=row.test), f"ev_{row.event_id}", at(row.delivered_at_ms)),
        )
    attempt, goal = row.attempt, row.goal
    visitor = None if goal.visitor is None else said(goal.visitor)
    began = at(attempt.started_at_ms)
    what = (attempt.kind, attempt.outcome or activity.UNDER_WAY, attempt.status)
    return attempt.id, began, goal.label, said(goal.called), visitor, goal.destination, *what


def _mode(*, test: bool) -> str:
    return "test" if test else "live"
