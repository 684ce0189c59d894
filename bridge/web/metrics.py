"""`/metrics` for Prometheus. Every number comes from the database, so it is correct with any number of processes.

Counts that take long, because there are many rows, are made in the background (`bridge.web.cached`). The numbers show
sales, so the caller needs BRIDGE_ADMIN_TOKEN or, if none is set, must be on this machine (`bridge.web.auth`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from bridge.errors import StoreError
from bridge.identity.sentences import WAYS
from bridge.store.operator import status
from bridge.web import auth
from bridge.web.cached import Cached, CachedInBackground
from bridge.web.messages import plain, unavailable

if TYPE_CHECKING:
    from bridge.app import Bridge
    from bridge.store.operator.status import Snapshot, Totals


AHEAD: Final = "bridge.ahead"  # the application's extension: counts made ahead of the first request


def blueprint(bridge: Bridge) -> Blueprint:
    """The route."""
    routes = Blueprint("metrics", __name__)
    totals = CachedInBackground(lambda: _totals(bridge))
    recent = Cached(lambda: render(totals.get(), _snapshot(bridge)))
    routes.record_once(lambda state: state.app.extensions.setdefault(AHEAD, []).append(totals))

    @routes.get("/metrics")
    def metrics() -> Response:
        if not (auth.is_admin() or ("Authorization" not in request.headers and auth.is_local())):
            return plain(
                401, "The bearer token is missing or wrong: send BRIDGE_ADMIN_TOKEN.", {"WWW-Authenticate": "Bearer"}
            )
        try:
            return Response(recent.get(), content_type=CONTENT_TYPE_LATEST)
        except StoreError:
            return unavailable("The database cannot be used just now.", 5)

    return routes


def _totals(bridge: Bridge) -> Totals:
    with bridge.store.read() as conn:
        return status.totals(conn)


def _snapshot(bridge: Bridge) -> Snapshot:
    with bridge.store.read() as conn:
        seen = status.snapshot(conn, sorted(bridge.destinations()))
    known = bridge.rules.sources
    return replace(
        seen,
        sources=tuple(state for state in seen.sources if state.source in known),
        attribution=tuple(found for found in seen.attribution if found.source in known),
    )


def render(totals: Totals, seen: Snapshot) -> bytes:
    """The numbers in Prometheus' text format."""
    families = [*_counts(totals), *_sources(seen), *_attribution(seen), *_destinations(seen), *_bridge(seen)]
    return generate_latest(_Collected(families))


class _Collected:
    """A collector, in prometheus-client's terms, of existing metric families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def _counts(totals: Totals) -> Iterator[Metric]:
    events, goals, attempts = (sorted(counts.items()) for counts in (totals.events, totals.goals, totals.attempts))
    yield _gauge("bridge_events", "Events by what became of them", ("source", "state", "verdict"), events)
    yield _gauge("bridge_goals", "Goals by state", ("destination", "state"), goals)
    payments = sorted(totals.payments.items())
    yield _gauge("bridge_payments", "Those of bridge_goals that are payments", ("destination", "state"), payments)
    alerts = CounterMetricFamily(
        "bridge_alerts", "Messages to BRIDGE_ALERTS by what became of them", labels=("outcome",)
    )
    for outcome, number in sorted(totals.alerts.items()):
        alerts.add_metric((outcome,), number)
    yield alerts
    text = "Goals sent and read back, by outcome; none yet: under way"
    yield _gauge("bridge_attempts", text, ("kind", "outcome"), attempts)


def _sources(seen: Snapshot) -> Iterator[Metric]:
    for name, text, field in (
        ("bridge_webhooks_accepted", "New events", "accepted"),
        ("bridge_webhooks_duplicate", "Repeated deliveries", "duplicates"),
        ("bridge_webhooks_refused", "Requests that were refused", "refused"),
    ):
        family = CounterMetricFamily(name, text, labels=("source",))
        for state in seen.sources:
            family.add_metric((state.source,), getattr(state, field))
        yield family
    in_row = (((state.source,), state.refused_in_row) for state in seen.sources)
    yield _gauge("bridge_webhooks_refused_in_row", "Refusals since the last event", ("source",), in_row)


def _attribution(seen: Snapshot) -> Iterator[Metric]:
    ways = {
        found.source: {**dict.fromkeys(WAYS, 0), **found.through, "none": found.goals - found.named}
        for found in seen.attribution
    }
    yield _gauge(
        "bridge_attribution_goals",
        "The last goals of purchases, sign-ups and so on by what led to their visitor; none: no visitor",
        ("source", "through"),
        (((source, way), goals) for source, through in ways.items() for way, goals in through.items()),
    )
    others = (((found.source,), found.others) for found in seen.attribution)
    text = "Goals of 30 days without a visitor from other events"
    yield _gauge("bridge_unattributed_others", text, ("source",), others)


def _destinations(seen: Snapshot) -> Iterator[Metric]:
    known = seen.destinations
    paused = (((state.name, state.pause_kind or ""), int(state.pause_kind is not None)) for state in known)
    yield _gauge("bridge_destination_paused", "1: paused", ("destination", "kind"), paused)
    last_ms = ((state.name, state.last_success_at_ms) for state in known)
    success = (((name,), at_ms / 1000) for name, at_ms in last_ms if at_ms is not None)
    name = "bridge_destination_last_success_timestamp_seconds"
    yield _gauge(name, "Last goal that was delivered", ("destination",), success)
    due = (((name,), _age_s(seen, due_at_ms)) for name, due_at_ms in seen.oldest_due_at_ms.items())
    yield _gauge("bridge_goals_oldest_due_seconds", "How long the oldest due goal waits", ("destination",), due)


def _bridge(seen: Snapshot) -> Iterator[Metric]:
    unrouted = _age_s(seen, seen.oldest_unrouted_at_ms)
    yield GaugeMetricFamily("bridge_events_oldest_unrouted_seconds", "How long the oldest event waits", unrouted)
    workers = sum(beat.kind != "web" for beat in seen.heartbeats)
    yield CounterMetricFamily("bridge_wrong_tokens", "Wrong bearer tokens that were refused", seen.wrong_tokens.count)
    yield GaugeMetricFamily("bridge_workers", "Processes that route and deliver", workers)


def _age_s(seen: Snapshot, at_ms: int | None) -> float:
    return 0.0 if at_ms is None else max(seen.now_ms - at_ms, 0) / 1000
