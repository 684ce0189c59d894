"""Output shared by several commands: an event with its reasons, a goal with its attempts, a trace, keys and visitors.

The sentences come from `bridge.workbench`; this module arranges them on the screen, and hides what no answer may show:
the tokens in the bodies of events, and the secrets of their sources. A source's mapping file says where its sender
writes its token; if the file is missing or wrong, the provider's preset says so, so that events can still be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bridge import loading, sources
from bridge.cli import resources
from bridge.errors import ProblemsError
from bridge.identity.sentences import kind_in_words
from bridge.store.operator import queries
from bridge.text import excerpt, when
from bridge.workbench import describe, trace, why

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.cli.screen import Screen
    from bridge.model import Source
    from bridge.store.operator.queries import EventDetail, GoalDetail, GoalLine
    from bridge.store.operator.threads import Thread
    from bridge.workbench.backtest import Example
    from bridge.workbench.describe import Moment


def print_page(
    screen: Screen, heads: Sequence[str], lines: Sequence[Any], row: Callable[[Any], Any], *, limit: int, none: str
) -> None:
    """Print the newest events or goals, one row each, and how to see older ones."""
    screen.write_json(describe.as_json(lines))
    screen.table(heads, [row(line) for line in lines], none=none)
    if len(lines) == limit:
        screen.say(f"More: --before {lines[-1].label}")


def print_event(screen: Screen, detail: EventDetail, goals: Sequence[GoalDetail], moment: Moment) -> None:
    """Print an event: when it arrived, what became of it, all rules and candidates, its goals with their attempts."""
    screen.heading(describe.event_title(detail))
    screen.facts(describe.event_facts(detail, moment))
    print_elements(screen, (detail.trace or {}).get("elements", ()))
    for key, reason in (detail.trace or {}).get("stopped", {}).items():
        screen.say(f"{key}: {reason}", indent=2)
    if removed := describe.removed(detail):
        screen.say(removed, indent=2)
    for goal in goals:
        screen.say()
        print_goal(screen, goal.goal, moment)
        screen.facts(describe.obstacles(goal, moment), width=15)
        _print_attempts(screen, goal)
    for sentence in describe.already_made(detail):
        screen.say()
        screen.say(sentence)


def print_goal(screen: Screen, goal: GoalLine, moment: Moment) -> None:
    """Print a goal: its visitor and how that is known, its state, what happens next."""
    screen.heading(f"{goal.label}  {goal.called}")
    screen.facts(describe.goal_facts(goal, moment))


def print_goal_in_full(screen: Screen, detail: GoalDetail, moment: Moment) -> None:
    """Print a goal with its event and its attempts."""
    print_goal(screen, detail.goal, moment)
    screen.facts(describe.origin_facts(detail), width=15)
    screen.facts(describe.obstacles(detail, moment), width=15)
    _print_attempts(screen, detail)


def _print_attempts(screen: Screen, detail: GoalDetail) -> None:
    if detail.lookups:
        lookups = [(when(lookup.asked_at_ms), describe.lookup_sentence(lookup)) for lookup in detail.lookups]
        screen.facts(lookups, width=25)
    attempts = [(when(attempt.started_at_ms), describe.attempt_sentence(attempt)) for attempt in detail.attempts]
    screen.facts(attempts or [("Attempts", describe.no_attempts(detail.goal))], width=25 if detail.attempts else 15)


# --------------------------------------------------------------------------------------------------------- a trace


def print_elements(screen: Screen, elements: Sequence[Mapping[str, Any]]) -> None:
    """Print everything about each event of a delivery; most deliveries have one."""
    for number, element in enumerate(elements, 1):
        screen.say()
        if len(elements) > 1:
            screen.heading(f"Event {number} of {len(elements)}: {element.get('type') or '(no type)'}")
        if "ignored" not in element:
            _print_candidates(screen, element)
            _print_keys(screen, element)
            _print_rules(screen, element)


def _print_candidates(screen: Screen, element: Mapping[str, Any]) -> None:
    """Print the values that might be the visitor, each with its verdict."""
    found: Sequence[Mapping[str, Any]] = element.get("candidates", ())
    screen.heading("Visitor in the event")
    if not found:
        screen.say("none of the places for a visitor id has a value", indent=2)
    screen.facts([(value["path"], f"{excerpt(value.get('value'))}: {trace.verdict(value)}") for value in found])


def _print_keys(screen: Screen, element: Mapping[str, Any]) -> None:
    """Print the keys that may lead to a visitor named by another event."""
    keys: Sequence[str] = element.get("keys", ())
    screen.heading("Keys that may lead to a visitor")
    screen.say(", ".join(keys) if keys else "none", indent=2)


def _print_rules(screen: Screen, element: Mapping[str, Any]) -> None:
    """Print every rule for this event type with its first failing condition; the others are only counted."""
    screen.heading("Rules")
    if near := trace.nearest(element):
        screen.say(f"Nearest to a goal: {near}", indent=2)
    screen.facts([(trace.called(rule), trace.rule_sentence(rule)) for rule in trace.for_its_type(element)])
    if others := trace.other_types(element):
        screen.say(others, indent=2)
    elif not element.get("rules"):
        screen.say("no rule was tried", indent=2)


# ------------------------------------------------------------------------------------------------------- a thread


def print_thread(screen: Screen, thread: Thread) -> None:
    """Print the keys that belong together, and the visitors to which they lead."""
    screen.heading("Keys")
    screen.facts([(kind_in_words(key.kind), why.key_sentence(key)) for key in thread.keys])
    screen.section("Visitors")
    visitors = why.named_visitors(thread)
    if not visitors:
        screen.say("none: no event with one of these keys carried a visitor id yet", indent=2)
    for visitor, sentences in visitors.items():
        screen.say(visitor, indent=2)
        for sentence in sentences[:6]:
            screen.say(sentence, indent=4)
    screen.say()


# ----------------------------------------------------------------------------------------------- what stays hidden


def hide_events(screen: Screen, details: Iterable[EventDetail], known: Mapping[str, Source] | None = None) -> None:
    """Hide the secrets in these events, whatever part of them is shown. known: sources that were already read."""
    for detail in details:
        event = detail.event
        source = (known or {}).get(event.source) or source_of(event.source, event.provider)
        screen.hide(sources.unshowable(source, event.body, describe.identifiers(detail)))


def hide_goals(
    screen: Screen, conn: Connection, goals: Iterable[GoalLine | Example], known: Mapping[str, Source] | None = None
) -> None:
    """Hide the secrets in the events that made these goals, or would have. known: as for `hide_events`."""
    event_ids = sorted({goal.event_id for goal in goals})
    hide_events(screen, queries.show_events(conn, event_ids, whole=True), known)


@lru_cache(maxsize=64)
def source_of(name: str, provider: str) -> Source | None:
    """The source from its current file, else from its provider's preset; None if neither can be read."""
    given, presets = resources.environ(), sources.presets()
    for file in (f"{name}.yaml", f"{name}.yml"):
        with suppress(OSError, ProblemsError):
            text = (resources.mappings_folder() / file).read_bytes().decode("utf-8-sig", "surrogateescape")
            return loading.load({f"{name}.yaml": text}, given, presets).sources[name]
    return loading.from_preset(name, provider, given)
