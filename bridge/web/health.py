"""`/healthz`: the process answers. `/readyz`: an event that came now would be stored and understood.

`/readyz` decides whether a router sends traffic here, so only what keeps events from being received makes it red.
What needs attention without losing events is in its fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response

from bridge.errors import StoreError
from bridge.store.operator import status
from bridge.web import auth
from bridge.web.cached import Cached
from bridge.web.responses import facts, plain

if TYPE_CHECKING:
    from bridge.app import Bridge


def blueprint(bridge: Bridge) -> Blueprint:
    """The two routes."""
    routes = Blueprint("health", __name__)
    ready = Cached(lambda: _demand_ready(bridge))

    @routes.get("/healthz")
    def healthz() -> Response:
        return plain(200, "ok")

    @routes.get("/readyz")
    def readyz() -> Response:
        try:
            bridge.inbox.demand_flowing()
            paused = ready.get()
        except StoreError as error:
            answer = facts(503, {"ready": False, "reason": str(error)})
            answer.headers["Retry-After"] = "5"
            return answer
        return facts(200, {"ready": True, **_fields(bridge, paused)})

    return routes


def _demand_ready(bridge: Bridge) -> list[str]:
    """The paused destinations; StoreError when no event can be stored."""
    status.demand_ready(bridge.store)
    with bridge.store.read(quick=True) as conn:
        seen = status.snapshot(conn, ())
    return sorted(state.name for state in seen.destinations if state.pause_kind is not None)


def _fields(bridge: Bridge, paused: list[str]) -> dict[str, Any]:
    """What needs attention although events are received; names and reasons are for the owner."""
    without_secret = sorted(name for name, source in bridge.rules.sources.items() if not source.secrets)
    fault = bridge.rules_fault
    if not auth.is_admin():
        return {
            "sources": len(bridge.rules.sources),
            "sources_without_secret": len(without_secret),
            "destinations_paused": len(paused),
            "reload_refused": fault is not None,
        }
    return {
        "sources": sorted(bridge.rules.sources),
        "sources_without_secret": without_secret,
        "destinations_paused": paused,
        "reload_refused": fault,
        "rules": bridge.rules.hash,
    }
