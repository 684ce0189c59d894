"""`/console/`: before the first goal, a checklist that ticks itself; afterwards, the bridge's health and latest events.

Counts are cached for seconds, and computed in the background if that takes long (`bridge.web.cached`), so that pages
that poll put little load on the database. The report has a page of its own. Nothing is drawn or scaled by a script: a
chart is as wide as its place (`viewBox`), and has its numbers in a table beside it. `/console/changes` lists all of
what the first page shows a few of: what people changed, in the console and by commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from flask import Response, request

from bridge import alarms
from bridge.store.operator import changes, queries, tallies
from bridge.text import count
from bridge.web import health
from bridge.web.cached import NOTICEABLE_S, Cached, CachedInBackground
from bridge.web.console import filters, sources
from bridge.web.console.rendering import fragment, hider, page
from bridge.web.metrics import AHEAD
from bridge.workbench import describe, overview, setting_up

if TYPE_CHECKING:
    from flask import Blueprint
    from sqlalchemy import Connection

    from bridge.alarms import Alarm
    from bridge.app import Bridge
    from bridge.store.goals.attribution import Attribution
    from bridge.store.operator.queries import EventLine
    from bridge.store.operator.status import DestinationState, Snapshot
    from bridge.store.operator.tallies import Progress, Queue
    from bridge.workbench.overview import Figures, FirstStep

LIVE: Final = 10  # events
CHANGES: Final = 5
FIGURES_S: Final = 2.0  # how long they are kept
CHANGES_PAGE: Final = 50
WIDTH: Final = 480  # of a chart
_LOW, _HIGH = 64, 110  # heights of charts
_GAP: Final = 0.28  # of a bar's place
_LEAST_HEIGHT: Final = 2.0  # so that one event next to a thousand is visible


@dataclass(frozen=True, slots=True)
class Tile:
    """A number for today, and the same a week ago. states: the states of its goals, as in a filter."""

    label: str
    today: int
    before: int
    states: str


@dataclass(frozen=True, slots=True)
class QueueRow:
    """What waits for one destination, and when it will have been sent. pause: the destination's, if any."""

    queue: Queue
    drains: str
    pause: DestinationState | None


class Overview:
    """The page's data, each part cached for as long as it may be."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        finished = overview.FinishedSpans()
        self.figures = Cached(
            lambda: overview.figures(bridge.store, sorted(bridge.destinations()), finished), FIGURES_S
        )
        self.unnamed = CachedInBackground(lambda: overview.unnamed(bridge.store), NOTICEABLE_S)
        self._unnamed = Cached(self.unnamed.get, FIGURES_S)
        self._seen = Cached(lambda: health.snapshot(bridge, durable=False))

    def steps(self, progress: Progress) -> tuple[FirstStep, ...]:
        """The checklist."""
        bridge, seen = self._bridge, self._seen.get()
        problems, notes = health.assess(bridge, seen)
        base, _ = sources.base_address(bridge)
        return overview.steps(
            progress,
            database="SQLite" if bridge.store.dialect == "sqlite" else "PostgreSQL",
            destinations=bridge.destinations(),
            setups=[setting_up.setup(bridge.rules, name, base) for name in sorted(bridge.rules.sources)],
            wrong={
                "event": [note.detail for note in notes if note.name in ("refused", "no_secret")],
                "goal": [problem.detail for problem in problems],
            },
        )

    def now(self) -> dict[str, Any]:
        """Health, today, the queue, the sources. headline: one sentence on health; problems, notes: all, in detail."""
        bridge, figures, seen = self._bridge, self.figures.get(), self._seen.get()
        problems, notes = health.assess(bridge, seen)
        today = datetime.fromtimestamp(figures.now_ms / 1000, UTC)
        return {
            "headline": problems[0].detail if problems else alarms.all_clear(seen),
            "problems": problems,
            "notes": notes,
            "unnamed": self._unnamed.get(),
            "day": f"{today:%Y-%m-%d}",
            "weekday": f"{today:%A}",
            "tiles": _tiles(figures),
            "queues": [self._queue(queue, seen) for queue in figures.queues],
            "rate": bridge.settings.bridge_rate_per_minute,
            "sources": sorted(sources.rows(bridge, seen), key=lambda row: row.silent is None),
            "attribution": [_attribution_bar(row) for row in seen.attribution if row.source in bridge.rules.sources],
        }

    def _queue(self, queue: Queue, seen: Snapshot) -> QueueRow:
        states = {state.name: state for state in seen.destinations}
        state, destination = states.get(queue.destination), self._bridge.destinations().get(queue.destination)
        pause = state if state is not None and state.pause_kind else None
        drains = overview.drain_sentence(
            queue,
            self._bridge.settings.bridge_rate_per_minute,
            has_key=destination is not None and bool(destination.api_key),
            paused=pause is not None,
        )
        return QueueRow(queue, drains, pause)

    def charts(self) -> dict[str, Any]:
        """The charts and their tables."""
        figures = self.figures.get()
        hours = [datetime.fromtimestamp(figure.at_ms / 1000, UTC).strftime("%H:00") for figure in figures.hours]
        days = [datetime.fromtimestamp(figure.at_ms / 1000, UTC).strftime("%-d %b") for figure in figures.days]
        return {
            "hours": list(zip(hours, figures.hours, strict=True)),
            "days": list(zip(days, figures.days, strict=True)),
            "events_chart": _hourly(hours, [figure.events for figure in figures.hours], "event"),
            "goals_chart": _hourly(hours, [figure.goals for figure in figures.hours], "goal"),
            "days_chart": chart(
                [(("bar", figure.goals.delivered), ("bar second", figure.goals.others)) for figure in figures.days],
                [
                    f"{day}: {count(figure.goals.all, 'goal')}, {figure.goals.delivered} delivered"
                    for day, figure in zip(days, figures.days, strict=True)
                ],
                _HIGH,
            ),
        }


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The page, the parts of it that are refreshed, and the recent changes."""
    routes.add_url_rule("/changes", "recent_changes", partial(_changes, bridge))
    data = Overview(bridge)
    ahead = (data.figures, data.unnamed)
    routes.record_once(lambda state: state.app.extensions.setdefault(AHEAD, []).extend(ahead))

    @routes.get("/")
    def home() -> Response:
        with bridge.store.read(quick=True) as conn:
            progress, events, changed = tallies.progress(conn), _newest_events(conn), changes.recent(conn, CHANGES)
        live = {"live": events, "after": None, "polls": request.args.get("live") != "off", **_row_functions(bridge)}
        if not progress.goal:
            return page("first_run.html", title="First steps", here="home", steps=data.steps(progress), **live)
        now: dict[str, Any] = {"now": data.now(), "problem_page": _problem_page}
        return page("home.html", title="Home", here="home", changes=changed, **now, **data.charts(), **live)

    @routes.get("/home/steps")
    def home_steps() -> Response:
        with bridge.store.read(quick=True) as conn:
            progress = tallies.progress(conn)
        answer = fragment("_first_steps.html", steps=data.steps(progress), hidden=hider(bridge))
        if progress.goal:
            answer.headers["HX-Refresh"] = "true"  # the checklist is done: the page becomes another one
        return answer

    @routes.get("/home/now")
    def home_now() -> Response:
        return fragment("_home_now.html", now=data.now(), problem_page=_problem_page, hidden=hider(bridge))

    @routes.get("/home/state")
    def home_state() -> Response:
        return fragment("_home_state.html", now=data.now(), hidden=hider(bridge))

    @routes.get("/home/live")
    def home_live() -> Response:
        known = filters.row_id(request.args, "after")
        with bridge.store.read(quick=True) as conn:
            events = _newest_events(conn)
        return fragment("_home_live.html", live=events, after=known, polls=True, **_row_functions(bridge))


def _changes(bridge: Bridge) -> Response:
    before = filters.row_id(request.args, "before")
    with bridge.store.read() as conn:
        rows = changes.recent(conn, CHANGES_PAGE + 1, before)
    older = rows[CHANGES_PAGE - 1].id if len(rows) > CHANGES_PAGE else None
    shown = rows[:CHANGES_PAGE]
    return page("changes.html", title="Recent changes", rows=shown, older=older, newest=before is None)


def _newest_events(conn: Connection) -> list[EventLine]:
    """The newest events with their goals."""
    return queries.list_events(conn, queries.EventFilter(limit=LIVE))


def _problem_page(alarm: Alarm) -> str | None:
    """The page that shows the problem; None if no page of the console does."""
    address = _PROBLEM_PAGES.get(alarm.name)
    return None if address is None else address.format(about=quote(alarm.about or "", safe=""))


_PROBLEM_PAGES: Final = {
    "quarantine": "/console/activity?kind=events&state=quarantined",
    "unrouted": "/console/activity?kind=events&state=received",
    "failed_rules": "/console/activity?kind=events&source={about}&state=unmatched",
    "held": "/console/activity?kind=goals&state=held",
    **dict.fromkeys(
        ("late", "no_key", "no_destination", "paused", "none_known"),
        "/console/activity?kind=goals&destination={about}&state=pending",
    ),
    **dict.fromkeys(("refusals", "refused", "no_secret", "attribution"), "/console/sources/{about}"),
    "reload": "/console/rules",
}


def _row_functions(bridge: Bridge) -> dict[str, Any]:
    """The values that describe the rows of events."""
    hidden = hider(bridge)
    return {"outcome_in_brief": describe.outcome_in_brief, "how_known": describe.how_known, "hidden": hidden}


def _tiles(figures: Figures) -> tuple[Tile, ...]:
    today, before = figures.today, figures.before
    return (
        Tile("delivered", today.delivered, before.delivered, "delivered"),
        Tile("waiting", today.waiting, before.waiting, "pending"),
        Tile("parked for a visitor", today.parked, before.parked, "parked"),
        Tile("rejected or given up", today.rejected, before.rejected, "rejected"),
        Tile("without a visitor", today.unnamed, before.unnamed, "unattributed"),
    )


def _attribution_bar(found: Attribution) -> dict[str, Any]:
    """How many of a source's last goals have a visitor: in words, and as the share of a bar."""
    percent = round(100 * found.named / found.goals) if found.goals else 0
    return {"source": found.source, "sentence": alarms.attribution_sentence(found), "percent": percent}


def _hourly(hours: list[str], numbers: list[int], noun: str) -> Chart:
    titles = [f"{hour} UTC: {count(number, noun)}" for hour, number in zip(hours, numbers, strict=True)]
    return chart([(("bar", number),) for number in numbers], titles, _LOW)


# --------------------------------------------------------------------------------------------------------------- charts


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a bar. kind: a class of the stylesheet."""

    y: float
    height: float
    kind: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One place of a chart: its bar's parts, from below, and its text on hover."""

    x: float
    parts: tuple[Rectangle, ...]
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """width: of a bar. ground: the outline of all places, full or empty. peak: the largest sum, which fills one."""

    bars: tuple[Bar, ...]
    height: int
    width: float
    ground: str
    peak: int


def chart(values: Sequence[Sequence[tuple[str, int]]], titles: Sequence[str], height: int) -> Chart:
    """A bar for each of `values`: (kind, number) of its parts, from below."""
    step = WIDTH / max(len(values), 1)
    width = round(step * (1 - _GAP), 2)
    peak = max((sum(number for _, number in parts) for parts in values), default=0)
    bars = tuple(
        Bar(round(place * step + step * _GAP / 2, 2), _stacked(parts, peak, height), title)
        for place, (parts, title) in enumerate(zip(values, titles, strict=True))
    )
    ground = "".join(f"M{bar.x} 0h{width}v{height}h-{width}z" for bar in bars)
    return Chart(bars, height, width, ground, peak)


def _stacked(parts: Sequence[tuple[str, int]], peak: int, height: int) -> tuple[Rectangle, ...]:
    found, top = [], float(height)
    for kind, number in parts:
        if number:
            size = max(number / peak * (height - _LEAST_HEIGHT * len(parts)), _LEAST_HEIGHT)
            top -= size
            found.append(Rectangle(round(top, 2), round(size, 2), kind))
    return tuple(found)
