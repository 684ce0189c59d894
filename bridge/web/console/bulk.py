"""Replay the events of a list, or retry or cancel its goals: a preview first, then a round at a time until it is over.

htmx sends the next round by itself; without JavaScript a button does. Whoever leaves the page has stopped it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, redirect, request

from bridge.store import clock
from bridge.store.operator import activity
from bridge.text import count
from bridge.web.console import filters
from bridge.web.console.filters import PATH, Filter, within
from bridge.web.console.rendering import changed, notice, page
from bridge.workbench import bulk, replay, stored
from bridge.workbench.bulk import ACTIONS, ROUND

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from bridge.app import Bridge

FORETOLD: Final = 25  # events of which is said what would become of them
_LOOK_S: Final = 0.05
_TITLES: Final = {
    "replay": "Replay these events?",
    "retry": "Retry these goals?",
    "cancel": "Cancel these goals?",
}
_BUTTONS: Final = {"replay": "Replay", "retry": "Retry", "cancel": "Cancel"}


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The routes."""
    path = "/activity/<any(replay, retry, cancel):what>"

    @routes.get(path)
    def activity_asked(what: str) -> Response:
        chosen = _chosen(bridge, what, request.args)
        return _under_way(what, chosen) if "done" in request.args else _preview(bridge, what, chosen)

    @routes.post(path)
    def activity_done(what: str) -> ResponseReturnValue:
        return _round(bridge, what, _chosen(bridge, what, request.form))


def _chosen(bridge: Bridge, what: str, values: Any) -> Filter:
    """The list, from a row on: what comes after the preview is not part of it."""
    kind = ACTIONS[what].kind
    with bridge.store.read(quick=True) as conn:
        chosen = filters.read({**values.to_dict(), "kind": kind}, clock.read_ms(conn))
        before = chosen.wanted.before or activity.newest_id(conn, kind) + 1
    return replace(chosen, wanted=replace(chosen.wanted, before=before, after=None))


def _preview(bridge: Bridge, what: str, chosen: Filter) -> Response:
    action = ACTIONS[what]
    with bridge.store.read(quick=True) as conn:
        matching = activity.count(conn, action.kind, chosen.wanted, within(_LOOK_S))
        first = activity.page(conn, action.kind, chosen.wanted, FORETOLD, within(_LOOK_S)) if what == "replay" else None
    number = f"{'at least ' if matching.reached is not None else ''}{count(matching.number, action.kind[:-1])}"
    said = None
    if first is not None and first.rows:
        preparer = stored.preparer(bridge.store, bridge.rules, bridge.settings)
        said = replay.summary(list(replay.foretell(bridge.store, preparer, [row.id for row in first.rows])))
    return _page(
        what,
        chosen,
        number=number,
        size=ROUND if matching.reached is not None else min(ROUND, matching.number),
        any=bool(matching.number) or matching.reached is not None,
        states=bulk.foretell(what, matching.by_state) if what != "replay" else (),
        foretold=said,
        foretold_of=len(first.rows) if first is not None else 0,
    )


def _round(bridge: Bridge, what: str, chosen: Filter) -> ResponseReturnValue:
    """Do the next rows, then show how far it came."""
    done = bulk.run(bridge.store, what, chosen.wanted, _about(chosen), within(2.0))
    if done.done:
        bridge.wake()
        changed(what, _about(chosen), done.sentence)
    so_far = filters.number(request.form, "done") + done.done
    left = filters.number(request.form, "left") + done.left
    if done.reached is None:
        notice(bulk.done_sentence(ACTIONS[what], so_far, left))
        if request.headers.get("HX-Request"):  # which would put the list where the round was
            return Response(headers={"HX-Redirect": chosen.address()})
        return redirect(chosen.address(), 303)
    return redirect(chosen.address(f"{PATH}/{what}", before=done.reached, done=so_far, left=left), 303)


def _about(chosen: Filter) -> str:
    """The filter, for the row of recent changes."""
    return " ".join(f"{name}={value}" for name, value in sorted(chosen.given.items())) or f"all {chosen.kind}"


def _under_way(what: str, chosen: Filter) -> Response:
    done, left = filters.number(request.args, "done"), filters.number(request.args, "left")
    return _page(what, chosen, so_far=bulk.done_sentence(ACTIONS[what], done, left), done=done, left=left)


def _page(what: str, chosen: Filter, **values: Any) -> Response:
    empty = dict.fromkeys(("number", "any", "states", "foretold", "foretold_of", "so_far", "done", "left"))
    return page(
        "activity_bulk.html",
        title=_TITLES[what],
        here="activity",
        chosen=chosen,
        button=_BUTTONS[what],
        action=f"{PATH}/{what}",
        **{**empty, "size": ROUND, **values},
    )
