"""`/console/report`: what `report` prints, for 7, 30 or 90 days, and the same as a CSV file.

It reads every goal of these days, so it is a separate request, and its sums are cached for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from bridge import alarms
from bridge.settings import MS
from bridge.store.clock import read_ms
from bridge.web.cached import Cached
from bridge.web.console.rendering import as_csv, fragment, hider, page
from bridge.workbench import describe, report

if TYPE_CHECKING:
    from bridge.app import Bridge
    from bridge.workbench.report import Report

PERIODS: Final = {"7d": 7, "30d": 30, "90d": 90}
KEPT_S: Final = 30.0
_HEADS: Final = (
    "source", "rule", "kind", "goals", "delivered", "waiting", "without visitor", "currency",
    "amount with visitor", "amount without visitor",
)  # fmt: skip


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The page, its summary for the first page, and the file."""
    cached = {name: Cached(partial(_report, bridge, days), KEPT_S) for name, days in PERIODS.items()}

    def requested() -> tuple[str, Report]:
        since = request.args.get("since", "7d")
        if since not in PERIODS:
            raise NotFound
        return since, cached[since].get()

    @routes.get("/report")
    def report_page() -> Response:
        since, result = requested()
        return page(
            "report.html", title="Report", here="home", since=since, periods=PERIODS, **_shown(bridge, result, since)
        )

    @routes.get("/report/summary")
    def report_summary() -> Response:
        since, result = requested()
        return fragment("_report_summary.html", since=since, **_shown(bridge, result, since))

    @routes.get("/report.csv")
    def report_csv() -> Response:
        since, result = requested()
        headers = {"Content-Disposition": f'attachment; filename="datafast-bridge-report-{since}.csv"'}
        return Response(as_csv(_rows(result)), headers=headers, content_type="text/csv; charset=utf-8")


def _report(bridge: Bridge, days: int) -> Report:
    with bridge.store.read() as conn:
        since_ms = read_ms(conn) - days * MS["d"]
    return report.report(bridge.store, since_ms, bridge.rules.sources)


def _shown(bridge: Bridge, result: Report, since: str) -> dict[str, Any]:
    return {
        "report": result,
        "summary": result.summary(PERIODS[since] * MS["d"]),
        "attribution_sentence": alarms.attribution_sentence,
        "state_in_words": describe.state_in_words,
        "hidden": hider(bridge),
    }


def _rows(result: Report) -> Iterator[Iterable[object]]:
    """A line for each rule and currency."""
    yield _HEADS
    for rule in result.rules:
        counts = (rule.goals, rule.states["delivered"], rule.waiting, rule.goals - rule.with_visitor)
        amounts = [money for money in result.money if (money.source, money.rule) == (rule.source, rule.rule)]
        begin = (rule.source, rule.rule, rule.kind, *counts)
        for money in amounts:
            yield (*begin, money.currency, money.with_visitor.amount, money.without_visitor.amount)
        if not amounts:
            yield (*begin, "", "", "")
