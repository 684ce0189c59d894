"""`/status`: 200, or 503 with a sentence for each thing that needs attention.

It turns any uptime monitor into the alarm of the bridge. Names, numbers and reasons need the admin token.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response

from bridge.alarms import Alarm, alarms, notes
from bridge.errors import StoreError, StoreGone
from bridge.lookup.step import fingerprint
from bridge.store.operator import status
from bridge.web import auth
from bridge.web.cached import Cached
from bridge.web.responses import facts

if TYPE_CHECKING:
    from bridge.app import Bridge
    from bridge.store.operator.status import Snapshot


def blueprint(bridge: Bridge) -> Blueprint:
    """The route."""
    routes = Blueprint("status", __name__)
    recent = Cached(lambda: snapshot(bridge))

    @routes.get("/status")
    def show() -> Response:
        try:
            bridge.inbox.demand_flowing()
            seen = recent.get()
        except StoreError as error:
            return facts(503, _summary((_of_store(error),), ()))
        share = bridge.settings.bridge_attribution_alarm
        found = alarms(seen, bridge.rules_fault, bridge.rules.sources, bridge.destinations(), share)
        details = _details(bridge, seen) if auth.is_admin() else {}
        return facts(503 if found else 200, {**_summary(found, notes(seen, bridge.rules.sources)), **details})

    return routes


def _of_store(error: StoreError) -> Alarm:
    if isinstance(error, StoreGone):
        return Alarm(
            "store",
            "The database file was moved, removed or replaced while it was open: the bridge must be restarted.",
            str(error),
        )
    return Alarm("store", "The database cannot be used.", str(error))


def snapshot(bridge: Bridge) -> Snapshot:
    """The snapshot for the configured destinations; StoreError also where the store can only be read."""
    status.demand_ready(bridge.store)
    key = bridge.settings.stripe_api_key
    with bridge.store.read(quick=True) as conn:
        return status.snapshot(conn, sorted(bridge.destinations()), None if key is None else fingerprint(key))


def _summary(found: tuple[Alarm, ...], noted: tuple[Alarm, ...]) -> dict[str, Any]:
    return {"ok": not found, "problems": _sentences(found), "notes": _sentences(noted)}


def _sentences(found: tuple[Alarm, ...]) -> list[str]:
    """Each sentence once; the owner gets the details instead."""
    admin = auth.is_admin()
    return list(dict.fromkeys(alarm.detail if admin else alarm.sentence for alarm in found))


def _details(bridge: Bridge, seen: Snapshot) -> dict[str, Any]:
    counters = {state.source: state for state in seen.sources}
    destinations = {state.name: state for state in seen.destinations}
    return {
        "now_ms": seen.now_ms,
        "warnings": [*bridge.settings.warnings, *bridge.rules.problems, *bridge.rules.warnings],
        "rules": {"hash": bridge.rules.hash, "fault": bridge.rules_fault},
        "sources": {
            name: {"secret": "set" if source.secrets else source.secret_fault, **_fields(counters.get(name), "source")}
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
            {**asdict(one), "named": one.named} for one in seen.attribution if one.source in bridge.rules.sources
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
