"""`why`: what became of an event, a goal, a key such as `cus_…`, or a visitor, as far as the database remembers.

Its argument is looked up as each of these. The command needs no mapping files and makes no request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bridge.cli import printing, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError
from bridge.identity.people import is_address
from bridge.text import when
from bridge.workbench.describe import as_json
from bridge.workbench.why import Known, goal_sentences, look_up, timeline

if TYPE_CHECKING:
    from bridge.store.operator.queries import EventDetail, GoalLine


@command(
    examples=[
        ("why ev_12", "an event, by the bridge's number or by the provider's id (evt_1Abc…)"),
        ("why goal_7", "a goal: its visitor, its attempts, what happens next"),
        ("why cus_9s6XKzkNRiz8i3", "a customer, subscription, order or charge, with everything that belongs to it"),
        ("why user_2abc", "a user of your app, as one timeline across all tools"),
        ("why 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", "a visitor"),
    ]
)
@click.argument("name", metavar="X")
def why(name: str) -> None:
    """Show what happened to X, and why.

    X is an event (ev_12, or the provider's id), a goal (goal_7), a key of the provider (cus_…, sub_…, an order's
    number), a person (your app's id of a user, an e-mail address) or a DataFast visitor id. The exit code is 1 if
    nothing has that name.
    """
    screen, given = current_screen(), resources.environ()
    text = name.strip()
    with resources.store() as store, store.read() as conn:
        known = look_up(conn, f"ev_{text}" if re.fullmatch(r"\d{1,6}", text) else text, given)
        if not known.events and not known.goals and known.thread is None and text.isdigit():
            known = look_up(conn, text, given)
        printing.hide_events(screen, (*known.events, *known.timeline))
        printing.hide_goals(screen, conn, [detail.goal for detail in known.goals])
    if not (known.events or known.goals or known.thread):
        if is_address(text):
            raise BridgeError(
                "Nobody is known by this e-mail address. Addresses are remembered only while BRIDGE_MATCH_EMAIL is on,"
                " and only as hashes."
            )
        raise BridgeError(
            f"Nothing is known of {name!r}: no event (ev_12, or the provider's id), no goal (goal_7), no visitor, and"
            " no key that an event named (cus_…, sub_…) has this name. If the provider says that it was delivered,"
            " `python -m bridge doctor` says whether requests are refused."
        )
    screen.write_json(_as_json(known))
    _print(screen, known)


def _print(screen: Screen, known: Known) -> None:
    if known.thread is not None:
        printing.print_thread(screen, known.thread)
        _print_timeline(screen, known, known.timeline, [detail.goal for detail in known.goals])
        return
    for number, event in enumerate(known.events):
        if number:
            screen.say()
        printing.print_event(screen, event, known.goals_made.get(event.line.id, ()), known.moment)
    if len(known.goals) == 1:
        printing.print_goal_in_full(screen, known.goals[0], known.moment)
    elif known.goals:
        _print_timeline(screen, known, [], [detail.goal for detail in known.goals])


def _print_timeline(screen: Screen, known: Known, details: Sequence[EventDetail], goals: Sequence[GoalLine]) -> None:
    screen.heading("Timeline")
    for entry in timeline(details, goals):
        screen.facts([(when(entry.at_ms), entry.sentence)], width=25)
        for goal in entry.goals:
            head, *parts = goal_sentences(goal, known.moment)
            screen.facts([("", head)], width=27)
            for part in parts:
                screen.facts([("", part)], width=29)


def _as_json(known: Known) -> dict[str, Any]:
    return {
        "events": as_json(known.events),
        "goals": as_json([*(goal for made in known.goals_made.values() for goal in made), *known.goals]),
        "thread": as_json(known.thread),
        "timeline": as_json(known.timeline),
    }
