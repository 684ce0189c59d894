"""`/console/events/ev_12`: everything known about one event, and what can be done with it and its goals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.exceptions import NotFound

from bridge import loading, logs, sources
from bridge.masking import masked
from bridge.store.inbox import events as inbox
from bridge.store.operator import actions, queries
from bridge.text import storable
from bridge.web.console.rendering import Done, change, page
from bridge.workbench import describe, event, replay, stored
from bridge.workbench.body import shown_body

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue
    from sqlalchemy import Connection

    from bridge.app import Bridge
    from bridge.model import Source
    from bridge.store.operator.queries import EventDetail, GoalLine

FIND_MAX: Final = 200  # characters of a string to find in a body

log = logs.get("console")


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The routes."""
    for path, endpoint, view, method in (
        ("/events/<name>", "show_event", _show, "GET"),
        ("/events/<name>/body", "download_body", _download, "GET"),
        ("/events/<name>/replay", "replay_event", _preview, "GET"),
        ("/events/<name>/replay", "replay_sent", _replay, "POST"),
        ("/events/<name>/ignore", "ignore_sent", _ignore, "POST"),
        ("/goals/<name>", "show_goal", _show_goal, "GET"),
        ("/goals/<name>/<any(retry, cancel):action>", "ask_about_goal", _ask, "GET"),
        ("/goals/<name>/retry", "retry_sent", _retry, "POST"),
        ("/goals/<name>/cancel", "cancel_sent", _cancel, "POST"),
    ):
        routes.add_url_rule(path, endpoint, partial(view, bridge), methods=[method])


# ------------------------------------------------------------------------------------------------------------- look


def _show(bridge: Bridge, name: str) -> ResponseReturnValue:
    number = _row_id("ev", name)
    if number is None:
        return _redirect_by_provider_id(bridge, name)
    personal, find = request.args.get("show") == "personal", request.args.get("find", "").strip()[:FIND_MAX]
    with bridge.store.read() as conn:
        detail = queries.show_event(conn, number)
        if detail is None:
            raise NotFound
        source, secrets = _unshowable(bridge, detail)
        story = event.event_story(conn, detail, source, bridge.settings.environ, secrets, personal=personal)
    if personal:
        log.info("console.personal_shown", about=name, address=request.remote_addr)
    body, line = detail.event.body, event.showable(detail.line, secrets, personal=personal)
    kept = {"Headers": masked(detail.event.headers), "Parameters": masked(detail.event.query)}
    return page(
        "event.html",
        title=line.type or "(no type)",
        here="activity",
        line=line,
        story=story,
        body=None if body is None else shown_body(detail.event, source, secrets, find, personal=personal),
        gone=describe.removal_reason(detail.line),
        kept=event.showable(kept, secrets, personal=personal),
        personal=personal,
        find=find,
    )


def _show_goal(bridge: Bridge, name: str) -> ResponseReturnValue:
    return redirect(_goal_url(_goal(bridge, name)))


def _redirect_by_provider_id(bridge: Bridge, name: str) -> ResponseReturnValue:
    with bridge.store.read() as conn:
        found = queries.find(conn, storable(name)).events
    if not found:
        raise NotFound
    return redirect(_event_url(found[0]))


def _download(bridge: Bridge, name: str) -> ResponseReturnValue:
    """The whole body as received, without secrets."""
    detail = _event(bridge, name)
    if detail.event.body is None:
        raise NotFound
    _, secrets = _unshowable(bridge, detail)
    log.info("console.personal_shown", about=detail.line.label, address=request.remote_addr)
    answer = Response(sources.without(detail.event.body, frozenset(secrets)), content_type="application/octet-stream")
    answer.headers["Content-Disposition"] = f'attachment; filename="{detail.line.label}.txt"'
    return answer


def _unshowable(bridge: Bridge, detail: EventDetail) -> tuple[Source | None, tuple[str, ...]]:
    """The source of an event, and the strings of both to hide, the longest first."""
    line = detail.line
    source = bridge.rules.sources.get(line.source) or loading.from_preset(
        line.source, line.provider, bridge.settings.environ
    )
    found = sources.unshowable(source, detail.event.body, describe.identifiers(detail))
    return source, tuple(sorted(found, key=len, reverse=True))


def _row_id(kind: str, name: str) -> int | None:
    """12 for `ev_12`; None if the name is of another kind."""
    match = re.fullmatch(rf"{kind}_([0-9]{{1,18}})", name)
    return None if match is None else int(match[1])


def _event(bridge: Bridge, name: str) -> EventDetail:
    number = _row_id("ev", name)
    with bridge.store.read() as conn:
        found = None if number is None else queries.show_event(conn, number)
    if found is None:
        raise NotFound
    return found


def _goal(bridge: Bridge, name: str) -> GoalLine:
    number = _row_id("goal", name)
    with bridge.store.read() as conn:
        found = [] if number is None else queries.goals_by_id(conn, [number])
    if not found:
        raise NotFound
    return found[0]


def _event_url(event_id: int) -> str:
    return url_for("console.show_event", name=f"ev_{event_id}")


def _goal_url(goal: GoalLine) -> str:
    return f"{_event_url(goal.event_id)}#{goal.label}"


# ----------------------------------------------------------------------------------------------------------- change


def _confirm(
    title: str, back: str, button: str, *sentences: str, danger: bool = False, again: bool = False
) -> Response:
    """A preview, and the form that does it, at the same URL. again: the warning that DataFast counts it twice."""
    form = {"back": back, "button": button, "danger": danger, "again": again}
    return page("confirm.html", title=title, here="activity", sentences=sentences, form=form)


def _preview(bridge: Bridge, name: str) -> ResponseReturnValue:
    detail = _event(bridge, name)
    preparer = stored.preparer(bridge.store, bridge.rules, bridge.settings)
    found = list(replay.preview(bridge.store, preparer, [detail.line.id]))
    _, secrets = _unshowable(bridge, detail)
    each = [f"{sentence}." for preview in found if (sentence := replay.sentence(preview))]
    sentences: Sequence[str] = event.showable([replay.summary(found), *each], secrets, personal=False)
    return _confirm(f"Replay {detail.line.label}?", _event_url(detail.line.id), "Replay it", *sentences)


def _replay(bridge: Bridge, name: str) -> ResponseReturnValue:
    detail = _event(bridge, name)
    line = detail.line

    def replayed(conn: Connection) -> Done:
        if inbox.requeue(conn, event_id=line.id):
            return Done(line.label, f"{line.label} will be routed again.")
        reason = replay.WAITS if detail.event.body is not None else replay.GONE
        return Done(line.label, f"{line.label} is not routed again: {reason}.", nothing=True)

    change(bridge, "replay", replayed)
    return redirect(_event_url(line.id), 303)


def _ignore(bridge: Bridge, name: str) -> ResponseReturnValue:
    line = _event(bridge, name).line

    def ignored(conn: Connection) -> Done:
        if inbox.ignore(conn, event_id=line.id):
            return Done(line.label, f"{line.label} is ignored now.")
        return Done(line.label, f"{line.label} is not in quarantine, and was left alone.", nothing=True)

    change(bridge, "ignore", ignored)
    return redirect(_event_url(line.id), 303)


def _ask(bridge: Bridge, name: str, action: str) -> ResponseReturnValue:
    """Ask whether to send a goal, or to cancel it."""
    goal = _goal(bridge, name)
    with bridge.store.read() as conn:
        state = describe.state_sentence(goal, describe.moment(conn, bridge.settings.environ))
    sentences = event.showable([f"{goal.called}: {state}."], (), personal=False)
    if action == "cancel":
        return _confirm(f"Cancel {goal.label}?", _goal_url(goal), "Never send it", *sentences, danger=True)
    if goal.state == "delivered":
        sentences.append(describe.resend_question([goal.label]))
        return _confirm(f"Send {goal.label} again?", _goal_url(goal), "Send it again", *sentences, again=True)
    return _confirm(f"Retry {goal.label}?", _goal_url(goal), "Send it now", *sentences)


def _retry(bridge: Bridge, name: str) -> ResponseReturnValue:
    goal = _goal(bridge, name)
    again = "again" in request.form  # only where the page said that it was delivered

    def retried(conn: Connection) -> Done:
        outcome, number = actions.retry(conn, goal.id, again=again)
        sentence = f"{goal.label} {describe.retried(outcome.value, number)}."
        return Done(goal.label, sentence, nothing=outcome not in actions.DONE)

    change(bridge, "retry", retried)
    return redirect(_goal_url(goal), 303)


def _cancel(bridge: Bridge, name: str) -> ResponseReturnValue:
    goal = _goal(bridge, name)

    def cancelled(conn: Connection) -> Done:
        outcome = actions.cancel(conn, goal.id)
        sentence = f"{goal.label} {describe.CANCELLED[outcome.value]}."
        return Done(goal.label, sentence, nothing=outcome is not actions.CancelResult.CANCELLED)

    change(bridge, "cancel", cancelled)
    return redirect(_goal_url(goal), 303)
