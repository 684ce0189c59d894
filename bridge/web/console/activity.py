"""`/console/activity`: events, goals and deliveries in one list, with filters and a search; and what is done with it.

The list can be downloaded, its events replayed, and its goals retried or cancelled: a preview first, then one round at
a time until all are done. htmx sends the next round automatically; without JavaScript a button does. Leaving the page
stops it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus

from flask import Blueprint, Response, redirect, request

from bridge.store import Store, clock
from bridge.store.operator import activity
from bridge.store.operator.activity import PAGE, ActivityPage
from bridge.store.operator.queries import EventLine, GoalLine
from bridge.text import count
from bridge.web.console import filters
from bridge.web.console.filters import PATH, Filter, WrongFilter, time_limit
from bridge.web.console.rendering import as_csv, at, changed, fragment, hider, notice, page
from bridge.workbench import bulk, describe, replay, stored, why
from bridge.workbench.bulk import ACTIONS, ROUND

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue
    from sqlalchemy import Connection

    from bridge.app import Bridge

    Answer = dict[str, Any] | str

BODIES_MAX: Final = 10_000  # the newest events whose bodies can be searched
PREVIEWED: Final = 25  # events with a preview of the result
ROWS_MAX: Final = 10_000  # of a download
_ROWS_AT_ONCE: Final = 500
_LIST_S: Final = 0.05  # the time limit after which a page examines no more rows
_BODIES_S: Final = 0.3
_MORE_FIELDS: Final = frozenset({"type", "name", "rule", "reason", "destination", "test", "visitor"})  # of the form
_HEADS: Final = {
    activity.EVENTS: ("event", "received", "source", "type", "id", "mode", "result", "goals"),
    activity.GOALS: (
        *("goal", "made", "source", "name", "visitor", "how known", "state", "why", "rule", "destination", "mode"),
        *("event", "delivered"),
    ),
    activity.DELIVERIES: ("delivery", "began", "goal", "name", "visitor", "destination", "kind", "outcome", "status"),
}


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The routes."""
    path = "/activity/<any(replay, retry, cancel):bulk_action>"
    routes.add_url_rule("/activity", "activity_list", partial(_show, bridge))
    routes.add_url_rule("/activity/new", "activity_news", partial(_news, bridge))
    routes.add_url_rule("/activity.csv", "activity_download", partial(_download, bridge))
    routes.add_url_rule(path, "activity_asked", partial(_bulk_get, bridge))
    routes.add_url_rule(path, "activity_done", partial(_round, bridge), methods=["POST"])


def _show(bridge: Bridge) -> ResponseReturnValue:
    with bridge.store.read(quick=True) as conn:
        try:
            answer = _answer(bridge, conn, filters.read(request.args, clock.read_ms(conn)))
        except WrongFilter as error:
            answer = _list(bridge, conn, filters.everything(), None, problem=str(error), code=400)
    if isinstance(answer, str):
        return redirect(answer, 303)
    return page("activity.html", title="Activity", here="activity", **answer)  # a notice needs a connection, too


def _news(bridge: Bridge) -> Response:
    with bridge.store.read(quick=True) as conn:
        chosen = filters.read(request.args, clock.read_ms(conn))
        found = activity.newer(conn, chosen.kind, chosen.wanted, chosen.wanted.after or 0)
    return fragment("_activity_news.html", found=found, many=found == activity.NEW_MAX, address=chosen.address())


def _answer(bridge: Bridge, conn: Connection, chosen: Filter) -> Answer:
    """The page, or a redirect to another one."""
    text = filters.text(request.args, "q")
    body = filters.text(request.args, "body")
    if (text and request.args.get("in") == "bodies") or (body and chosen.kind != activity.EVENTS):
        return f"{chosen.of_kind(activity.EVENTS)}&body={quote_plus(text or body)}"
    if text:
        return _find_by_id(bridge, conn, chosen, text)
    if body:
        return _search_bodies(bridge, conn, chosen, body)
    found = activity.page(conn, chosen.kind, chosen.wanted, PAGE, time_limit(_LIST_S))
    if chosen.wanted.after is not None and found.reached is None:
        chosen = chosen.first
        found = activity.page(conn, chosen.kind, chosen.wanted, PAGE, time_limit(_LIST_S))
    return _list(bridge, conn, chosen, found, **_links(chosen, found))


# ------------------------------------------------------------------------------------------------------- searches


def _find_by_id(bridge: Bridge, conn: Connection, chosen: Filter, text: str) -> Answer:
    """The address of the page of whatever an id names; if it names several things, a list of them."""
    found = why.named(conn, text)
    places = {f"ev_{event_id}": f"/console/events/ev_{event_id}" for event_id in found.events}
    places |= {goal.label: f"/console/events/ev_{goal.event_id}#{goal.label}" for goal in found.goals}
    if found.person is not None:
        places[found.person] = f"/console/people/{quote(found.person, safe='')}"
    if len(places) == 1:
        return next(iter(places.values()))
    return _list(bridge, conn, chosen, None, named=text, places=places)


def _search_bodies(bridge: Bridge, conn: Connection, chosen: Filter, text: str) -> Answer:
    """The events with a string in their bodies, among a part of the newest; the page then requests the next part."""
    scanned = filters.number(request.args, "scanned")
    cases = (text, text.lower())
    spellings = (spelling for case in cases for spelling in (case, json.dumps(case)[1:-1], quote_plus(case)))
    needles = {spelling.encode().lower() for spelling in spellings}
    found = activity.search_bodies(conn, chosen.wanted, sorted(needles), time_limit(_BODIES_S))
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
    """The page with the list. found: None if there is a problem instead."""
    rows = found.rows if found is not None else ()
    values = {
        "chosen": chosen,
        "rows": rows,
        "moment": describe.moment(conn, bridge.settings.environ) if chosen.kind == activity.GOALS else None,
        "choices": _choices(bridge, conn, chosen),
        "kinds": filters.KINDS,
        "describe": describe,
        "hidden": hider(bridge),
        "all_fields": bool(_MORE_FIELDS & set(chosen.given)),
    }
    empty = dict.fromkeys(("problem", "body", "more", "newer", "older", "news", "reached", "named", "places"))
    return {"code": code, **values, **empty, **others}


def _links(chosen: Filter, found: ActivityPage) -> dict[str, Any]:
    """Links to the adjacent pages. reached: the last row examined, if not all were."""
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
    """The options of each list in the form: what exists, and what was chosen."""
    named = {
        "source": {*bridge.rules.sources, *activity.sources(conn)},
        "destination": set(bridge.destinations()),
    }
    found = {name: sorted(names | {chosen.given.get(name, "")} - {""}) for name, names in named.items()}
    found["state"] = [str(state) for state in filters.STATES[chosen.kind]]
    return {name: [(option, option.replace("_", " ")) for option in names] for name, names in found.items()}


# ------------------------------------------------------------------------------------------------------------- download


def _download(bridge: Bridge) -> Response:
    """The list as CSV: at most ROWS_MAX rows, without bodies."""
    with bridge.store.read(quick=True) as conn:
        chosen = filters.read(request.args, clock.read_ms(conn)).first
    answer = Response(_lines(bridge.store, chosen, hider(bridge)), mimetype="text/csv")
    answer.headers["Content-Disposition"] = f'attachment; filename="{chosen.kind}.csv"'
    return answer


def _lines(store: Store, chosen: Filter, hide: Callable[[str], str]) -> Iterator[str]:
    """Page after page, each read in a short transaction of its own."""
    yield as_csv([_HEADS[chosen.kind]])
    left, before = ROWS_MAX, chosen.wanted.before
    while left > 0:
        with store.read() as conn:
            wanted = replace(chosen.wanted, before=before)
            found = activity.page(conn, chosen.kind, wanted, min(left, _ROWS_AT_ONCE))
        yield as_csv([_cells(row, hide) for row in found.rows])
        left, before = left - len(found.rows), found.reached
        if before is None:
            return


def _cells(row: Any, hide: Callable[[str], str]) -> Sequence[Any]:
    if isinstance(row, EventLine):
        goals = " ".join(goal.label for goal in row.goals)
        became = hide(describe.outcome_in_brief(row))
        mode = _mode(test=row.test)
        named = hide(row.provider_event_id or "")
        return row.label, at(row.received_at_ms), row.source, hide(row.type), named, mode, became, goals
    if isinstance(row, GoalLine):
        how, why = hide(describe.how_known(row)), hide(row.message or row.reason or "")
        visitor = None if row.visitor is None else hide(row.visitor)
        return (
            *(row.label, at(row.created_at_ms), row.source, hide(row.called), visitor, how, row.state, why),
            *(row.rule_id, row.destination, _mode(test=row.test), f"ev_{row.event_id}", at(row.delivered_at_ms)),
        )
    attempt, goal = row.attempt, row.goal
    visitor = None if goal.visitor is None else hide(goal.visitor)
    began = at(attempt.started_at_ms)
    attempted = (attempt.kind, attempt.outcome or activity.UNDER_WAY, attempt.status)
    return attempt.id, began, goal.label, hide(goal.called), visitor, goal.destination, *attempted


def _mode(*, test: bool) -> str:
    return "test" if test else "live"


# ------------------------------------------------------------------------------------------------------------ many rows


_TITLES: Final = {
    "replay": "Replay these events?",
    "retry": "Retry these goals?",
    "cancel": "Cancel these goals?",
}


def _bulk_get(bridge: Bridge, bulk_action: str) -> Response:
    chosen = _chosen_rows(bridge, bulk_action, request.args)
    return _progress(bulk_action, chosen) if "done" in request.args else _preview(bridge, bulk_action, chosen)


def _chosen_rows(bridge: Bridge, name: str, values: Any) -> Filter:
    """The list, from a row on: what comes after the preview is not part of it."""
    kind = ACTIONS[name].kind
    with bridge.store.read(quick=True) as conn:
        chosen = filters.read({**values.to_dict(), "kind": kind}, clock.read_ms(conn))
        before = chosen.wanted.before or activity.newest_id(conn, kind) + 1
    return replace(chosen, wanted=replace(chosen.wanted, before=before, after=None))


def _preview(bridge: Bridge, name: str, chosen: Filter) -> Response:
    action = ACTIONS[name]
    with bridge.store.read(quick=True) as conn:
        matching = activity.count(conn, action.kind, chosen.wanted, time_limit(_LIST_S))
        first = None
        if name == "replay":
            first = activity.page(conn, action.kind, chosen.wanted, PREVIEWED, time_limit(_LIST_S))
    number = f"{'at least ' if matching.reached is not None else ''}{count(matching.number, action.kind[:-1])}"
    preview = None
    if first is not None and first.rows:
        preparer = stored.preparer(bridge.store, bridge.rules, bridge.settings)
        preview = replay.summary(list(replay.preview(bridge.store, preparer, [row.id for row in first.rows])))
    return _bulk_page(
        name,
        chosen,
        number=number,
        size=ROUND if matching.reached is not None else min(ROUND, matching.number),
        any=bool(matching.number) or matching.reached is not None,
        states=bulk.preview(name, matching.by_state) if name != "replay" else (),
        preview=preview,
        preview_of=len(first.rows) if first is not None else 0,
    )


def _round(bridge: Bridge, bulk_action: str) -> ResponseReturnValue:
    """Process the next rows, then show the progress."""
    chosen = _chosen_rows(bridge, bulk_action, request.form)
    done = bulk.run(bridge.store, bulk_action, chosen.wanted, _filter_text(chosen), time_limit(2.0))
    if done.done:
        bridge.wake()
        changed(bulk_action, _filter_text(chosen), done.sentence)
    so_far = filters.number(request.form, "done") + done.done
    left = filters.number(request.form, "left") + done.left
    if done.reached is None:
        notice(bulk.done_sentence(ACTIONS[bulk_action], so_far, left))
        if request.headers.get("HX-Request"):  # which would put the list where the round was
            return Response(headers={"HX-Redirect": chosen.address()})
        return redirect(chosen.address(), 303)
    return redirect(chosen.address(f"{PATH}/{bulk_action}", before=done.reached, done=so_far, left=left), 303)


def _filter_text(chosen: Filter) -> str:
    """The filter, for the row of recent changes."""
    return " ".join(f"{name}={value}" for name, value in sorted(chosen.given.items())) or f"all {chosen.kind}"


def _progress(name: str, chosen: Filter) -> Response:
    done, left = filters.number(request.args, "done"), filters.number(request.args, "left")
    return _bulk_page(name, chosen, so_far=bulk.done_sentence(ACTIONS[name], done, left), done=done, left=left)


def _bulk_page(name: str, chosen: Filter, **values: Any) -> Response:
    empty = dict.fromkeys(("number", "any", "states", "preview", "preview_of", "so_far", "done", "left"))
    return page(
        "activity_bulk.html",
        title=_TITLES[name],
        here="activity",
        chosen=chosen,
        button=name.capitalize(),
        action=f"{PATH}/{name}",
        **{**empty, "size": ROUND, **values},
    )
