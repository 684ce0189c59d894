"""`/healthz`, `/readyz` and `/status`: whether the process answers, can take traffic, and needs attention.

`/healthz`: the process answers. `/readyz`: an event that came now would be stored and understood. It decides whether a
router sends traffic here, so only what keeps events from being received makes it red; what needs attention without
losing events is in its fields. `/status` is 200, or 503 with a sentence for each thing that needs attention, so that
any uptime monitor is the alarm of the bridge. Names, numbers and reasons need the admin token.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response

from bridge.alarms import Alarm, alarms, notes
from bridge.errors import StoreError, StoreGone
from bridge.store.operator import status
from bridge.web import auth
from bridge.web.cached import Cached
from bridge.web.messages import facts, plain

if TYPE_CHECKING:
    from bridge.app import Bridge
    from bridge.store.operator.status import Snapshot


def blueprint(bridge: Bridge) -> Blueprint:
    """The three routes."""
    routes = Blueprint("health", __name__)
    ready = Cached(lambda: _require_ready(bridge))
    recent = Cached(lambda: snapshot(bridge))

    @routes.get("/healthz")
    def healthz() -> Response:
        return plain(200, "ok")

    @routes.get("/readyz")
    def readyz() -> Response:
        try:
            bridge.inbox.require_flowing()
            paused = ready.get()
        except StoreError as error:
            answer = facts(503, {"ready": False, "reason": str(error)})
            answer.headers["Retry-After"] = "5"
            return answer
        return facts(200, {"ready": True, **_readiness(bridge, paused)})

    @routes.get("/status")
    def show() -> Response:
        try:
            bridge.inbox.require_flowing()
            seen = recent.get()
        except StoreError as error:
            return facts(503, _summary((_store_alarm(error),), ()))
        problems, notes = assess(bridge, seen)
        details = _details(bridge, seen) if auth.is_admin() else {}
        return facts(503 if problems else 200, {**_summary(problems, notes), **details})

    return routes


def _require_ready(bridge: Bridge) -> list[str]:
    """The paused destinations. Raises StoreError if no event can be stored."""
    status.require_ready(bridge.store)
    with bridge.store.read(quick=True) as conn:
        seen = status.snapshot(conn, ())
    return sorted(state.name for state in seen.destinations if state.pause_kind is not None)


def _readiness(bridge: Bridge, paused: list[str]) -> dict[str, Any]:
    """What needs attention although events are received; names and reasons are for the owner."""
    without_secret = sorted(name for name, source in bridge.rules.sources.items() if not source.secrets)
    problem = bridge.rules_fault
    if not auth.is_admin():
        return {
            "sources": len(bridge.rules.sources),
            "sources_without_secret": len(without_secret),
            "destinations_paused": len(paused),
            "reload_refused": problem is not None,
        }
    return {
        "sources": sorted(bridge.rules.sources),
        "sources_without_secret": without_secret,
        "destinations_paused": paused,
        "reload_refused": problem,
        "rules": bridge.rules.hash,
    }


# ------------------------------------------------------------------------------------------------------- /status


def _store_alarm(error: StoreError) -> Alarm:
    if isinstance(error, StoreGone):
        return Alarm(
            "store",
            "The database file was moved, removed or replaced while it was open: the bridge must be restarted.",
            str(error),
        )
    return Alarm("store", "The database cannot be used.", str(error))


def snapshot(bridge: Bridge, *, durable: bool = True) -> Snapshot:
    """The snapshot for the configured destinations. Raises StoreError also if the store can only be read.

    durable: wait until the write that proves it is on disk. A page for a person does not wait for that.
    """
    status.require_ready(bridge.store, durable=durable)
    with bridge.store.read(quick=True) as conn:
        return status.snapshot(conn, sorted(bridge.destinations()), bridge.settings.stripe_api_key)


def assess(bridge: Bridge, seen: Snapshot) -> tuple[tuple[Alarm, ...], tuple[Alarm, ...]]:
    """The alarms and the notes."""
    share = bridge.settings.bridge_attribution_alarm
    found = alarms(seen, bridge.rules_fault, bridge.rules.sources, bridge.destinations(), share)
    return found, notes(seen, bridge.rules.sources)


def _summary(problems: tuple[Alarm, ...], notes: tuple[Alarm, ...]) -> dict[str, Any]:
    return {"ok": not problems, "problems": _sentences(problems), "notes": _sentences(notes)}


def _sentences(findings: tuple[Alarm, ...]) -> list[str]:
    """Each sentence once; the owner gets the details instead."""
    admin = auth.is_admin()
    return list(dict.fromkeys(alarm.detail if admin else alarm.sentence for alarm in findings))


def _details(bridge: Bridge, seen: Snapshot) -> dict[str, Any]:
    counters = {state.source: state for state in seen.sources}
    destinations = {state.name: state for state in seen.destinations}
    return {
        "now_ms": seen.now_ms,
        "warnings": [*bridge.settings.warnings, *bridge.rules.problems, *bridge.rules.warnings],
        "rules": {"hash": bridge.rules.hash, "fault": bridge.rules_fault},
        "sources": {
            name: {"secret": "set" if source.secrets else source.secret_error, **_fields(counters.get(name), "source")}
            for name, source in sorted(bridge.rules.sources.items())
        },
        "destinations": {
            name: {
                "key": "set" if destination.api_key else "missing",
                "oldest_due_at_ms": seen.oldest_due_at_ms.get(name),
                **_fields(destinations.get(name), "name"),
            }
            for name, destination in sorted(bridge.destinations().items())
        },
        "attribution": [
            {**asdict(row), "named": row.named} for row in seen.attribution if row.source in bridge.rules.sources
        ],
        "quarantined": seen.quarantined,
        "held": seen.held,
        "lookup_pauses": [asdict(pause) for pause in seen.lookup_pauses],
        "oldest_unrouted_at_ms": seen.oldest_unrouted_at_ms,
        "processes": [asdict(beat) for beat in seen.heartbeats],
    }


def _fields(state: Any, without: str) -> dict[str, Any]:
    if state is None:
        return {}
    return {name: value for name, value in asdict(state).items() if name != without}
