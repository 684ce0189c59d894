"""`why`: what became of an event, a goal, a key such as `cus_…`, or a visitor, as far as the database remembers.

What it is given is looked up as each of these. It needs no mapping files and makes no request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from bridge.cli import describe, redaction, resources
from bridge.cli.catalogue import command
from bridge.cli.formatting import when
from bridge.cli.screen import of_context
from bridge.errors import BridgeError
from bridge.identity.sentences import HINT, apart, in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from bridge.cli.screen import Screen
    from bridge.identity.evidence import Evidence
    from bridge.store.operator.queries import EventDetail, GoalDetail, GoalLine
    from bridge.store.operator.threads import KeyLine, Thread


@dataclass
class Known:
    """Everything that an id names."""

    moment: describe.Moment
    events: list[EventDetail] = field(default_factory=list)
    made: dict[int, list[GoalDetail]] = field(default_factory=dict)  # the goals of each event
    goals: list[GoalDetail] = field(default_factory=list)
    thread: Thread | None = None  # of a key, or of a visitor
    line: list[EventDetail] = field(default_factory=list)


@command(
    examples=[
        ("why ev_12", "an event, by our number or by the provider's id (evt_1Abc…)"),
        ("why goal_7", "a goal: its visitor, its attempts, what happens next"),
        ("why cus_9s6XKzkNRiz8i3", "a customer, subscription, order, charge …: everything that belongs together"),
        ("why user_2abc", "a user of your app: one line of time over all tools"),
        ("why 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", "a visitor"),
    ]
)
@click.argument("what", metavar="X")
def why(what: str) -> None:
    """Show what became of X, and why.

    X is an event (ev_12, or the provider's id), a goal (goal_7), a key of the provider (cus_…, sub_…, an order's
    number), a person (your app's id of a user, an e-mail address) or a DataFast visitor id. The exit code is 1 if
    nothing of that name is known.
    """
    screen = of_context()
    text = what.strip()
    with resources.store() as store, store.read() as conn:
        known = look_up(conn, f"ev_{text}" if re.fullmatch(r"\d{1,6}", text) else text)
        if not known.events and not known.goals and known.thread is None and text.isdigit():
            known = look_up(conn, text)
        redaction.hide_of(screen, (*known.events, *known.line))
        redaction.hide_goals(screen, conn, [detail.goal for detail in known.goals])
    if not (known.events or known.goals or known.thread):
        raise BridgeError(
            f"Nothing is known of {what!r}: no event (ev_12, or the provider's id), no goal (goal_7), no visitor, and"
            " no key that an event named (cus_…, sub_…) has this name. If the provider says that it was delivered,"
            " `python -m bridge doctor` says whether requests are refused."
        )
    if screen.as_json:
        screen.write_json(_as_json(known))
    else:
        _print(screen, known)


def look_up(conn: Connection, text: str) -> Known:
    """Whatever this id names."""
    from bridge.store.operator import queries, threads

    known = Known(describe.moment(conn))
    found = queries.find(conn, text)
    known.events = _events(conn, found.events)
    known.made = {one.line.id: describe.goals_of(conn, one) for one in known.events}
    known.goals = [goal for one in found.goals if (goal := queries.show_goal(conn, one))]
    keys = keys_named(conn, text)
    thread = threads.about(conn, keys) if keys else threads.of_visitor(conn, text.lower())
    if thread.keys:
        known.thread = thread
        known.line = _events(conn, thread.events)
    return known


def keys_named(conn: Connection, text: str) -> list[KeyLine]:
    """The keys that a string names; an e-mail address is hashed before it is looked up."""
    from bridge.store.operator import threads

    return [key for name in hashes(conn, text) or [text] for key in threads.named(conn, name)]


def hashes(conn: Connection, address: str) -> list[str]:
    """The hash by which an e-mail address is remembered; none if it is no address, or none was ever remembered."""
    from bridge.identity.people import email_hash
    from bridge.store import facts

    key = facts.get(conn, facts.EMAIL_KEY) if "@" in address else None
    hashed = email_hash(address, key.encode()) if key else None
    return [hashed] if hashed else []


def _events(conn: Connection, ids: Sequence[int]) -> list[EventDetail]:
    from bridge.store.operator import queries

    return [detail for one in ids if (detail := queries.show_event(conn, one))]


def _print(screen: Screen, known: Known) -> None:
    if known.thread is not None:
        print_thread(screen, known.thread)
        _print_timeline(screen, known.line, [detail.goal for detail in known.goals], known.moment)
        return
    for number, event in enumerate(known.events):
        if number:
            screen.say()
        describe.print_event(screen, event, known.made.get(event.line.id, ()), known.moment)
    if len(known.goals) == 1:
        describe.print_goal_in_full(screen, known.goals[0], known.moment)
    elif known.goals:
        _print_timeline(screen, [], [detail.goal for detail in known.goals], known.moment)


def print_thread(screen: Screen, thread: Thread) -> None:
    """The keys that belong together, and the visitors to which they lead."""
    screen.heading("Keys")
    screen.facts([(in_words(key.kind), f"{key.key}{_stopped(key.stopped_reason)}") for key in thread.keys])
    screen.say()
    screen.heading("Visitors")
    visitors: dict[str, list[str]] = {}
    for item in sorted(thread.evidence, key=lambda item: item.first.at_ms):
        for point in (item.first, item.last):
            by = "bound by a person or by your site" if point.event == HINT else f"named by {point.event}"
            sentence = f"{by}, {when(point.at_ms)}{_how_sure(item)}"
            if sentence not in visitors.setdefault(item.visitor, []):
                visitors[item.visitor].append(sentence)
    if not visitors:
        screen.say("none: no event with one of these keys carried a visitor id yet", indent=2)
    for visitor, sentences in visitors.items():
        screen.say(visitor, indent=2)
        for sentence in sentences[:6]:
            screen.say(sentence, indent=4)
    screen.say()


def _how_sure(item: Evidence) -> str:
    if item.borrowed:
        return " (a bare UUID that may be your own user id: counts where DataFast knows it)"
    return "" if item.sure else " (client_reference_id only)"


def _stopped(reason: str | None) -> str:
    return f" (no longer links anything: {reason})" if reason else ""


def _print_timeline(
    screen: Screen, details: Sequence[EventDetail], goals: Sequence[GoalLine], moment: describe.Moment
) -> None:
    """Events by their own time, each with its goals; then goals whose events are not among them."""
    screen.heading("Timeline")
    seen = set()
    last_ms: int | None = None
    several = len({detail.line.source for detail in details}) > 1
    for detail in sorted(details, key=lambda one: (one.event.happened_at_ms, one.line.id)):
        at_ms = detail.event.happened_at_ms
        gap = (
            f"  ({apart(at_ms - last_ms).replace(' before', ' later')})"
            if last_ms and at_ms - last_ms >= 60_000
            else ""
        )
        last_ms = at_ms
        line = detail.line
        verdict = line.verdict or line.state
        event = f"{line.source}: {line.type}" if several else line.type
        screen.facts([(when(at_ms), f"{line.label}  {event} {line.provider_event_id or ''}  {verdict}{gap}")], width=25)
        for goal in line.goals:
            seen.add(goal.id)
            _print_goal_briefly(screen, goal, moment)
    for goal in goals:
        if goal.id not in seen:
            screen.facts([(when(goal.happened_at_ms), f"of ev_{goal.event_id}")], width=25)
            _print_goal_briefly(screen, goal, moment)


def _print_goal_briefly(screen: Screen, goal: GoalLine, moment: describe.Moment) -> None:
    to = f" to {goal.visitor}" if goal.visitor else ""
    screen.facts([("", f"{goal.label} {goal.called}{to}")], width=27)
    next_ = describe.what_next(goal, moment)
    for part in (describe.standing(goal, moment), describe.how_known(goal), next_, describe.told(goal)):
        if part:
            screen.facts([("", part)], width=29)


def _as_json(known: Known) -> dict[str, Any]:
    return {
        "events": describe.as_json(known.events),
        "goals": describe.as_json([*(goal for made in known.made.values() for goal in made), *known.goals]),
        "thread": describe.as_json(known.thread),
        "timeline": describe.as_json(known.line),
    }
