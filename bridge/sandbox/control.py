"""What only the stand-in has: seeding, faults, switches and a clock under `/__fake__`, and the page of goals at `/`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, jsonify, render_template, request

from bridge.sandbox import faults
from bridge.sandbox.api import world
from bridge.sandbox.options import changed
from bridge.sandbox.world import iso

if TYPE_CHECKING:
    from bridge.sandbox.world import Recorded

control = Blueprint("control", __name__, template_folder="templates")
_STATES: Final = ("known", "bot", "unknown")
_ON_PAGE: Final = 200


@control.get("/")
def page() -> tuple[str, dict[str, str]]:
    """The page of received goals, newest first, for people."""
    goals = [_row(goal) for goal in reversed(world().last_goals(_ON_PAGE))]
    html = render_template(
        "sandbox.html", goals=goals, count=world().count(), api=request.host_url + "api/v1", now=iso(world().now_ms())
    )
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


def _row(goal: Recorded) -> dict[str, Any]:
    date, _, clock = iso(goal.at_ms).rstrip("Z").partition("T")
    return {"goal": goal, "date": date, "clock": clock.partition(".")[0]}


def _bad_request(message: str) -> tuple[Response, int]:
    return jsonify({"error": message}), 400


def _items() -> list[Any]:
    """The JSON of the request as a list."""
    given = request.get_json(force=True, silent=True)
    return given if isinstance(given, list) else [given]


@control.post("/__fake__/visitors")
def seed_visitors() -> Any:
    """Seed `{"id", "state": "known" | "bot" | "unknown", "known_after_ms": 0}`, or a list of them."""
    items = _items()
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("id"), str):
            return _bad_request('a visitor is {"id": "…", "state": "known", "known_after_ms": 0}')
        if item.get("state", "known") not in _STATES:
            return _bad_request(f"state must be one of {', '.join(_STATES)}")
        if not isinstance(item.get("known_after_ms", 0), int):
            return _bad_request("known_after_ms must be a whole number")
    for item in items:
        world().seed(item["id"], item.get("state", "known"), item.get("known_after_ms", 0))
    return jsonify({"seeded": len(items)})


@control.get("/__fake__/visitors")
def show_visitors() -> Response:
    seeds = world().seeds().items()
    rows = [{"id": visitor, **asdict(seed), "state": world().state(visitor)} for visitor, seed in seeds]
    return jsonify({"visitors": rows})


@control.delete("/__fake__/visitors")
def forget_visitors() -> Response:
    world().forget_seeds()
    return jsonify({"visitors": 0})


@control.get("/__fake__/events")
def show_events() -> Response:
    """All recorded goals, oldest first; `?since=120` omits the first 120, `?visitor=` and `?name=` filter."""
    args = request.args
    goals = world().goals(max(args.get("since", 0, type=int), 0))
    visitor, name = args.get("visitor"), args.get("name")
    chosen = [goal.to_json() for goal in goals if visitor in (None, goal.visitor) and name in (None, goal.name)]
    return jsonify({"count": world().count(), "events": chosen})


@control.delete("/__fake__/events")
def forget_events() -> Response:
    world().forget_goals()
    return jsonify({"count": 0, "events": []})


@control.get("/__fake__/payments")
def show_payments() -> Response:
    """All recorded payments as they were sent, oldest first."""
    payments = [{"website": website, **body} for (website, _), body in world().payments.items()]
    return jsonify({"count": len(payments), "payments": payments})


@control.delete("/__fake__/payments")
def forget_payments() -> Response:
    world().payments.clear()
    return jsonify({"count": 0, "payments": []})


@control.get("/__fake__/requests")
def show_requests() -> Response:
    """Every request to the API: `at_ms`, `method`, `path`, `status`, `fault`."""
    return jsonify({"requests": world().requests()})


@control.delete("/__fake__/requests")
def forget_requests() -> Response:
    world().forget_requests()
    return jsonify({"requests": []})


@control.post("/__fake__/faults")
def put_faults() -> Any:
    """Queue `{"kind": "recorded_500", "times": 1, "path": "/goals", "hang_ms": 30000}`, or a list of them."""
    try:
        wanted = [faults.read(item if isinstance(item, dict) else {}) for item in _items()]
    except ValueError as error:
        return _bad_request(str(error))
    for fault, times in wanted:
        world().faults.put(fault, times)
    return jsonify(world().faults.to_json())


@control.get("/__fake__/faults")
def show_faults() -> Response:
    return jsonify(world().faults.to_json())


@control.delete("/__fake__/faults")
def clear_faults() -> Response:
    world().faults.clear()
    return jsonify(world().faults.to_json())


@control.post("/__fake__/options")
def change_options() -> Any:
    """Change switches at run time: `{"suspended": true}`."""
    item = _items()[0]
    try:
        world().options = changed(world().options, item if isinstance(item, dict) else {})
    except ValueError as error:
        return _bad_request(str(error))
    return show_options()


@control.get("/__fake__/options")
def show_options() -> Response:
    options = asdict(world().options)
    return jsonify({name: value for name, value in options.items() if name not in ("keys", "tokens")})


@control.post("/__fake__/clock")
def set_clock() -> Any:
    """Set the clock: `{"now_ms": …}` or `{"advance_ms": …}`; `{}` returns it to real time."""
    item = _items()[0]
    values = item if isinstance(item, dict) else {}
    if set(values) - {"now_ms", "advance_ms"} or not all(type(value) is int for value in values.values()):
        return _bad_request('a clock is set by {"now_ms": …} or {"advance_ms": …}, in whole milliseconds')
    world().set_clock(**values)
    return show_clock()


@control.get("/__fake__/clock")
def show_clock() -> Response:
    now_ms = world().now_ms()
    return jsonify({"now_ms": now_ms, "now": iso(now_ms)})
