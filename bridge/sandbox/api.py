"""The documented routes of DataFast's API, on a `World`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, current_app, g, jsonify, request

from bridge.sandbox.goals import LIFECYCLE, VISITOR, Refusal, checked
from bridge.sandbox.world import World, iso

if TYPE_CHECKING:
    from bridge.sandbox.world import PlayedWebsite, Recorded

api = Blueprint("api", __name__, url_prefix="/api/v1")
_SHOWN: Final = ("Content-Type", "User-Agent", "Accept", "Accept-Encoding")


def world() -> World:
    """The world of the current application."""
    found: World = current_app.extensions["sandbox"]
    return found


def _enter(scope: str) -> PlayedWebsite:
    """Check authentication first, then the rate limit (C1 to C6)."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Refusal(401, "Missing or malformed Authorization header")
    site = world().website(key.strip(), request.args.get("websiteId"), scope)
    g.rate_headers = world().count_request(
        site.bucket, goal=request.method == "POST" and request.path.endswith("/goals")
    )
    return site


@api.after_request
def _add_rate_headers(response: Response) -> Response:
    response.headers.update(g.get("rate_headers", {}))
    return response


def _body() -> dict[str, Any]:
    try:
        parsed = json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise Refusal(400, "Invalid JSON body") from None
    if not isinstance(parsed, dict):
        raise Refusal(400, "Invalid JSON body: an object is expected")
    return parsed


def _success(data: Any, **more: Any) -> Response:
    return jsonify({"status": "success", "data": data, **more})


@api.errorhandler(Refusal)
def _refused(refusal: Refusal) -> tuple[Response, int, dict[str, str]]:
    options = world().options
    body: dict[str, Any] = dict(refusal.fields)
    if options.error_form == "text":
        body["error"] = refusal.message
    elif options.rate_envelope or refusal.status != 429:
        body |= {"status": "error", "error": {"code": refusal.status, "message": refusal.message}}
    return jsonify(body), refusal.status, refusal.headers


# ------------------------------------------------------------------------------------------------------------ goals


@api.post("/goals")
def post_goal() -> Response:
    site = _enter("goals:write")
    draft = checked(_body(), world().options, world().state)
    headers = {name: request.headers[name] for name in _SHOWN if name in request.headers}
    goal = world().record(site, draft, headers, request.get_data(as_text=True))
    return _success([{"message": "Custom event created successfully", "eventId": goal.event_id}])


@api.delete("/goals")
def delete_goals() -> Response:
    site = _enter("goals:write")
    args = request.args
    start, end = args.get("start"), args.get("end")
    if world().options.delete_knows_old_range:
        start, end = start or args.get("startAt"), end or args.get("endAt")
    visitor, name = args.get("datafast_visitor_id") or args.get("visitorId"), args.get("name")
    if not (visitor or name or start or end):
        raise Refusal(400, "At least one filter is required")
    if bool(start) != bool(end):
        raise Refusal(400, "A time range needs both start and end")
    world().delete_goals(site, visitor=visitor, name=name, start_ms=_moment(start, "start"), end_ms=_moment(end, "end"))
    result = {"message": "Goal events deleted successfully" + (" within time range" if start else "")}
    return _success([result | ({"goal_name": name} if name else {}) | {"timeRange": {"start": start, "end": end}}])


def _moment(text: str | None, name: str) -> int | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(400, f"Invalid {name}: must be an ISO 8601 date") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


# --------------------------------------------------------------------------------------------------------- visitors


@api.get("/visitors/<visitor>")
def get_visitor(visitor: str) -> Response:
    site = _enter("analytics:read")
    _require_visitor(visitor)
    goals = world().goals_of(site, visitor)
    activity: dict[str, Any] = {"visitCount": 1, "pageViewCount": 1, "currentUrl": "/", "visitedPages": ["/"]}
    if world().options.goals_shape == "old":
        activity["completedCustomGoals"] = [_entry(goal) | {"isServer": True} for goal in goals]
    else:
        activity["completedGoals"] = [_entry(goal) | {"origin": "manual"} for goal in goals]
    profile = world().profiles.get((site.domain, visitor.lower()))
    data = {"visitorId": visitor, "identity": {}, "activity": activity, "prediction": None}
    return _success(data | ({"profile": profile} if profile else {}))


def _require_visitor(visitor: str) -> None:
    if world().options.uuid_only and not VISITOR.fullmatch(visitor):
        raise Refusal(400, "Invalid visitor ID: must be a UUID v4")
    state = world().state(visitor)
    if state == "bot":
        raise Refusal(400, "Visitor is flagged as a bot")
    if state == "unknown":
        raise Refusal(404, "Visitor has no pageviews on this website.")


def _entry(goal: Recorded) -> dict[str, Any]:
    options = world().options
    entry: dict[str, Any] = {"name": goal.name, "timestamp": iso(goal.at_ms)}
    if options.tell_description and goal.description:
        entry["description"] = goal.description
    if options.tell_event_id:
        entry["eventId"] = goal.event_id
    return entry


@api.get("/visitors")
def list_visitors() -> Response:
    site = _enter("analytics:read")
    limit, offset = _page(most=250)
    goal_name = request.args.get("completedGoal")
    found = world().visitors(site)
    if goal_name:
        found = [
            visitor for visitor in found if any(goal.name == goal_name for goal in world().goals_of(site, visitor))
        ]
    rows = [{"visitorId": visitor, "activity": {"visitCount": 1}} for visitor in found[offset : offset + limit]]
    more = offset + limit < len(found)
    return _success(rows, pagination={"limit": limit, "offset": offset, "total": len(found), "hasMore": more})


def _page(most: int) -> tuple[int, int]:
    limit = request.args.get("limit", 100, type=int)
    return min(max(limit, 1), most), max(request.args.get("offset", 0, type=int), 0)


# -------------------------------------------------------------------------------------------------------- analytics


@api.get("/analytics/goals")
def analytics_goals() -> Response:
    site = _enter("analytics:read")
    limit, offset = _page(most=1_000)
    rows = [
        {"goal": name, "completions": completions, "visitors": visitors}
        for name, completions, visitors in world().totals(site)
        if name not in LIFECYCLE
    ]
    pagination = {"limit": limit, "offset": offset, "total": len(rows)}
    return _success(rows[offset : offset + limit], pagination=pagination)


@api.get("/analytics/metadata")
def analytics_metadata() -> Response:
    site = _enter("analytics:read")
    row = {"domain": site.domain, "timezone": "UTC", "name": site.domain, "kpiColorScheme": "green"}
    return _success([row | {"kpi": "purchase", "currency": "USD"}])


# ----------------------------------------------------------------------------------------------- payments, identify


@api.post("/payments")
def post_payment() -> Response:
    site = _enter("payments:write")
    body = _body()
    amount, transaction = body.get("amount"), body.get("transaction_id")
    if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
        raise Refusal(400, "amount must be zero or greater")
    for name in ("currency", "transaction_id"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise Refusal(400, f"Missing required field: {name}")
    visitor = body.get("datafast_visitor_id")
    known = isinstance(visitor, str) and bool(visitor) and world().state(visitor) == "known"
    if visitor and not known and world().options.unknown_payer == "refuse":
        raise Refusal(404, f"First event not found for visitor {visitor}")
    key = (site.domain, str(transaction))
    if world().payments.setdefault(key, body) is not body:
        message = "Payment already recorded: duplicate transaction_id"
        if world().options.duplicate_payment >= 400:
            raise Refusal(world().options.duplicate_payment, message)
    else:
        message = "Payment recorded and attributed successfully" if known else "Payment recorded without a visitor"
    return jsonify({"message": message, "transaction_id": transaction})


@api.post("/identify")
def post_identify() -> Response:
    site = _enter("identify:write")
    body = _body()
    user, visitor = body.get("user_id"), body.get("datafast_visitor_id")
    if not isinstance(user, str) or not 0 < len(user) <= 255:
        raise Refusal(400, "user_id is required and must be at most 255 characters")
    if not isinstance(visitor, str) or not VISITOR.fullmatch(visitor):
        raise Refusal(400, "datafast_visitor_id is required and must be a UUID v4")
    _require_visitor(visitor)
    profile_key = (site.domain, visitor.lower())
    before = world().profiles.get(profile_key)
    now = {**(before or {}), **{name: value for name, value in body.items() if name != "datafast_visitor_id"}}
    world().profiles[profile_key] = now
    action = "created" if before is None else "unchanged" if before == now else "updated"
    message = f"Profile {action} successfully"
    return _success({"message": message, "profileId": f"profile_{visitor[:8]}", "action": action})
