"""`/console/activity`: events, goals and deliveries in one list, with filters, a search, and a download."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus

from flask import Blueprint, Response, redirect, request

from bridge.store import clock
from bridge.store.operator import activity
from bridge.store.operator.activity import PAGE, ActivityPage
from bridge.web.console import bulk, download, filters
from bridge.web.console.filters import Filter, WrongFilter, within
from bridge.web.console.rendering import fragment, page, showable
from bridge.workbench import describe, why

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue
    from sqlalchemy import Connection

    from bridge.app import Bridge

    Answer = dict[str, Any] | str

BODIES_MAX: Final = 10_000  # the newest events whose bodies can be searched
_LOOK_S: Final = 0.05  # after which a page looks at no more rows
_BODIES_S: Final = 0.3
_RARER: Final = frozenset({"type", "name", "rule", "reason", "destination", "test", "visitor"})  # fields of the form


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The routes."""
    bulk.add(routes, bridge)
    download.add(routes, bridge)

    @routes.get("/activity")
    def activity_list() -> ResponseReturnValue:
        with bridge.store.read(quick=True) as conn:
            try:
                answer = _answer(bridge, conn, filters.read(request.args, clock.read_ms(conn)))
            except WrongFilter as error:
                answer = _list(bridge, conn, filters.everything(), None, problem=str(error), code=400)
        if isinstance(answer, str):
            return redirect(answer, 303)
        return page("activity.html", title="Activity", here="activity", **answer)  # a notice needs a connection, too

    @routes.get("/activity/new")
    def activity_news() -> Response:
        with bridge.store.read(quick=True) as conn:
            chosen = filters.read(request.args, clock.read_ms(conn))
            found = activity.newer(conn, chosen.kind, chosen.wanted, chosen.wanted.after or 0)
        return fragment("_activity_news.html", found=found, many=found == activity.NEW_MAX, address=chosen.address())


def _answer(bridge: Bridge, conn: Connection, chosen: Filter) -> Answer:
    """What the page says, or the address of another one."""
    text = filters.text(request.args, "q")
    body = filters.text(request.args, "body")
    if (text and request.args.get("in") == "bodies") or (body and chosen.kind != activity.EVENTS):
        return f"{chosen.of_kind(activity.EVENTS)}&body={quote_plus(text or body)}"
    if text:
        return _named(bridge, conn, chosen, text)
    if body:
        return _in_bodies(bridge, conn, chosen, body)
    found = activity.page(conn, chosen.kind, chosen.wanted, PAGE, within(_LOOK_S))
    if chosen.wanted.after is not None and found.reached is None:
        chosen = chosen.first
        found = activity.page(conn, chosen.kind, chosen.wanted, PAGE, within(_LOOK_S))
    return _list(bridge, conn, chosen, found, **_links(chosen, found))


# ------------------------------------------------------------------------------------------------------- searches


def _named(bridge: Bridge, conn: Connection, chosen: Filter, text: str) -> Answer:
    """What an id names: its page, if it is one thing only."""
    found = why.named(conn, text)
    places = {f"ev_{one}": f"/console/events/ev_{one}" for one in found.events}
    places |= {goal.label: f"/console/events/ev_{goal.event_id}#{goal.label}" for goal in found.goals}
    if found.person is not None:
        places[found.person] = f"/console/people/{quote(found.person, safe='')}"
    if len(places) == 1:
        return next(iter(places.values()))
    return _list(bridge, conn, chosen, None, named=text, places=places)


def _in_bodies(bridge: Bridge, conn: Connection, chosen: Filter, text: str) -> Answer:
    """The events of a part of the newest that have a string in their bodies; then the next part is asked for."""
    scanned = filters.number(request.args, "scanned")
    written = (as_is for form in (text, text.lower()) for as_is in (form, json.dumps(form)[1:-1], quote_plus(form)))
    needles = {form.encode().lower() for form in written}
    found = activity.search_bodies(conn, chosen.wanted, sorted(needles), within(_BODIES_S))
    scanned += found.looked
    more = None
    if found.reached is not None and scanned < BODIES_MAX:
        more = chosen.address(body=text, scanned=scanned, before=found.reached)
    searched: dict[str, Any] = {"body": text, "scanned": min(scanned, BODIES_MAX), "most": BODIES_MAX, "more": more}
    return _list(bridge, conn, chosen, found, **searched, onward=len(found.rows) < PAGE)


# ------------------------------------------------------------------------------------------------------- the list


def _list(
    bridge: Bridge, conn: Connection, chosen: Filter, found: ActivityPage | None, code: int = 200, **others: Any
) -> dict[str, Any]:
    """What the page says. found: None where there is a problem instead."""
    rows = found.rows if found is not None else ()
    values = {
        "chosen": chosen,
        "rows": rows,
        "moment": describe.moment(conn, bridge.settings.environ) if chosen.kind == activity.GOALS else None,
        "choices": _choices(bridge, conn, chosen),
        "kinds": filters.KINDS,
        "describe": describe,
        "said": showable(bridge),
        "all_fields": bool(_RARER & set(chosen.given)),
    }
    empty = dict.fromkeys(("problem", "body", "more", "newer", "older", "news", "reached", "named", "places"))
    return {"code": code, **values, **empty, **others}


def _links(chosen: Filter, found: ActivityPage) -> dict[str, Any]:
    """Where the pages around this one are. reached: how far down was looked, where that was not everything."""
    rows, up = found.rows, chosen.wanted.after is not None
    top = rows[0].id if rows else (chosen.wanted.before or 1) - 1
    above = found.reached if up else (top if chosen.wanted.before is not None else None)
    below = (rows[-1].id if rows else (found.reached or 0) + 1) if up else found.reached
    whole = len(rows) == PAGE
    return {
        "newer": chosen.address(after=above) if above is not None else None,
        "older": chosen.address(before=below) if below is not None else None,
        "reached": None if whole or found.reached is None else found.reached,
        "news": chosen.address("/console/activity/new", after=top) if not up and chosen.wanted.before is None else None,
    }


def _choices(bridge: Bridge, conn: Connection, chosen: Filter) -> dict[str, list[tuple[str, str]]]:
    """What each list of the form offers: what there is, and what was chosen."""
    named = {
        "source": {*bridge.rules.sources, *activity.sources(conn)},
        "destination": set(bridge.destinations()),
    }
    found = {name: sorted(names | {chosen.given.get(name, "")} - {""}) for name, names in named.items()}
    found["state"] = [str(state) for state in filters.STATES[chosen.kind]]
    return {name: [(one, one.replace("_", " ")) for one in names] for name, names in found.items()}
