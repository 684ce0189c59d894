"""`events`: the received webhooks. List them, show one, route some again.

Reading needs no mapping files; the worker does the routing, with the rules that are in force then.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from bridge.cli import describe, parameters, redaction, resources
from bridge.cli.catalogue import Command, Section
from bridge.cli.formatting import count, listing, when_short
from bridge.cli.screen import clean_lines, of_context
from bridge.errors import BridgeError, UsageError
from bridge.model import EventState, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from bridge.cli.screen import Screen
    from bridge.store import Store
    from bridge.store.operator.queries import EventDetail, EventLine


@click.group(
    cls=Section,
    examples=[
        ("events", "the newest ones, with what became of them"),
        ("events --state quarantined", "those that could not be read or routed"),
        ("events --verdict unmatched --since 1d", "those that no rule matched"),
        ("events show ev_12", "one, with every rule's reason"),
        ("events replay ev_12", "route it again, after a rule was fixed"),
        ("events ignore ev_12", "nothing can be done with it: take it out of quarantine"),
    ],
)
def events() -> None:
    """List, show, replay and ignore received webhooks (events)."""


@events.command(
    "list",
    cls=Command,
    examples=[("events list --source stripe --limit 100", "the newest hundred of one source")],
)
@click.option("--state", type=click.Choice([state.value for state in EventState]), help="Only those in this state.")
@click.option(
    "--verdict", type=click.Choice([verdict.value for verdict in Verdict]), help="Only those with this verdict."
)
@click.option("--source", help="Only those of this source.")
@click.option("--type", "event_type", help="Only those of this type, such as charge.refunded.")
@click.option("--since", type=parameters.DURATION, metavar="DURATION", help="Only those of the last 30min, 6h, 7d …")
@click.option("--before", type=parameters.EVENT, metavar="EV", help="The page before this one (ev_12).")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
def list_(
    state: str | None,
    verdict: str | None,
    source: str | None,
    event_type: str | None,
    since: int | None,
    before: int | None,
    limit: int,
) -> None:
    """List received webhooks, the newest first, with what became of them."""
    from bridge.store import clock
    from bridge.store.operator import queries

    screen = of_context()
    with resources.store() as store, store.read() as conn:
        now_ms = clock.read_ms(conn)
        wanted = queries.EventFilter(
            state=state,
            verdict=verdict,
            source=source,
            type=event_type,
            since_ms=None if since is None else now_ms - since,
            before=before,
            limit=limit,
        )
        lines = queries.list_events(conn, wanted)
        redaction.hide_goals(screen, conn, [goal for line in lines for goal in line.goals] if screen.as_json else ())
    redaction.hide_sources(screen, ((line.source, line.provider) for line in lines))
    if screen.as_json:
        screen.write_json(describe.as_json(lines))
        return
    screen.table(
        ("EVENT", "RECEIVED (UTC)", "SOURCE", "TYPE", "BECAME"),
        [_row(line) for line in lines],
        none="No event" + (" like that." if wanted != queries.EventFilter(limit=limit) else " was received yet."),
    )
    if len(lines) == limit:
        screen.say(f"More: --before {lines[-1].label}")


def _row(line: EventLine) -> tuple[str, ...]:
    mode = " (test)" if line.test else ""
    return (line.label, when_short(line.received_at_ms), f"{line.source}{mode}", line.type, _became(line))


def _became(line: EventLine) -> str:
    """Its goals; without any the verdict, and the reason if there is one."""
    if line.goals:
        return listing([f"{goal.name} {goal.state}" for goal in line.goals])
    verdict = line.verdict if line.state == EventState.ROUTED else line.state
    if verdict == Verdict.MATCHED:
        return "matched, but the goal had been made before"
    return f"{verdict}: {line.reason}" if line.reason else str(verdict)


@events.command(
    cls=Command,
    examples=[
        ("events show ev_12", "by our number"),
        ("events show evt_1Abc", "by the provider's id"),
        ("events show ev_12 --body > event.json", "its raw body, to try rules on with `explain`"),
    ],
)
@click.argument("event", metavar="EVENT")
@click.option("--body", is_flag=True, help="Write the raw body, and nothing else.")
def show(event: str, body: bool) -> None:
    """Show one event: when it came, every rule's reason, the visitor, its goals and their attempts."""
    screen = of_context()
    with resources.store() as store, store.read() as conn:
        detail = one(conn, event)
        made = describe.goals_of(conn, detail)
        moment = describe.moment(conn)
    redaction.hide_of(screen, [detail])
    if body:
        _write_body(screen, detail)
    elif screen.as_json:
        screen.write_json({**describe.as_json(detail), "goals": describe.as_json(made)})
    else:
        describe.print_event(screen, detail, made, moment)


def one(conn: Connection, text: str) -> EventDetail:
    """The event of this name; BridgeError if there is none, UsageError if there are several."""
    from bridge.store.operator import queries

    found = queries.find(conn, f"ev_{text}" if text.isdecimal() and len(text) < 7 else text).events
    if not found:
        raise BridgeError(f"There is no event {text!r}. `python -m bridge events` lists the newest.")
    if len(found) > 1:
        labels = listing([f"ev_{event_id}" for event_id in found])
        raise UsageError(f"{text!r} names {len(found)} events: {labels}. Name one of them.")
    detail = queries.show_event(conn, found[0])
    assert detail is not None
    return detail


def _write_body(screen: Screen, detail: EventDetail) -> None:
    if detail.event.body is None:
        raise BridgeError(f"The body of {detail.line.label} is gone: {describe.gone(detail.line)}.")
    body = redaction.masked_body(detail.event)
    if sys.stdout.isatty():  # a file or a pipe gets every byte, but a terminal would obey what the body holds
        screen.out.write(clean_lines(body.decode("utf-8", "backslashreplace")) + "\n")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


# ---------------------------------------------------------------------------------------------------------- replay


@dataclass(frozen=True)
class _Selection:
    """Which events are to be routed again."""

    ids: tuple[int, ...]
    delivered: int  # goals that were delivered already


@events.command(
    cls=Command,
    examples=[
        ("events replay ev_12 ev_13", "these two"),
        ("events replay --state quarantined --yes", "all that are in quarantine, without a question"),
        ("events replay --verdict unmatched --since 7d --type charge.refunded", "after you added a rule for them"),
    ],
)
@click.argument("names", metavar="[EVENT]...", nargs=-1)
@click.option("--state", type=click.Choice([EventState.QUARANTINED.value]), help="All of this state.")
@click.option("--verdict", type=click.Choice([verdict.value for verdict in Verdict]), help="All with this verdict.")
@click.option("--source", help="Only those of this source.")
@click.option("--type", "event_type", help="Only those of this type.")
@click.option("--since", type=parameters.DURATION, metavar="DURATION", help="Only those of the last 30min, 6h, 7d …")
@click.option("--yes", is_flag=True, help="Do not ask.")
def replay(names: Sequence[str], yes: bool, **filters: Any) -> None:
    """Route events again, by the rules in force now.

    Goals that an event has already made stay as they are: there is only one per once key, so nothing is sent twice.
    To send a delivered goal again, use `python -m bridge goals retry`.
    """
    screen = of_context()
    if bool(names) == any(value is not None for value in filters.values()):
        raise UsageError(
            "Name events (events replay ev_12), or select them with --state, --verdict, --source, --type, --since."
        )
    with resources.store() as store:
        with store.read() as conn:
            selection = _selected(conn, names, filters)
        _confirm(selection, yes=yes, named=bool(names))
        queued, gone = _requeue(store, selection.ids)
    if screen.as_json:
        screen.write_json({"ok": not gone, "queued": queued, "not_queued": gone})
    else:
        screen.say(f"{count(len(queued), 'event')} will be routed again{': ' + listing(queued) if queued else ''}.")
        for label in gone:
            screen.say(f"{label}: its body is gone (BRIDGE_RETENTION_DAYS), or it is already waiting to be routed.")
    if gone or not queued:
        raise click.exceptions.Exit(1)


def _selected(conn: Connection, names: Sequence[str], filters: dict[str, Any]) -> _Selection:
    from bridge.store import clock
    from bridge.store.operator import queries

    lines: list[EventLine] = []
    if names:
        lines = [one(conn, name).line for name in names]
    else:
        since = filters.pop("since")
        since_ms = None if since is None else clock.read_ms(conn) - since
        wanted = {"type": filters.pop("event_type"), "since_ms": since_ms, "limit": 1000, **filters}
        before: int | None = None
        while page := queries.list_events(conn, queries.EventFilter(before=before, **wanted)):
            lines += page
            before = page[-1].id
    delivered = sum(goal.state == "delivered" for line in lines for goal in line.goals)
    return _Selection(tuple(line.id for line in reversed(lines)), delivered)


def _confirm(selection: _Selection, *, yes: bool, named: bool) -> None:
    """Ask before much is done, or where a goal was delivered."""
    if not selection.ids or (named and not selection.delivered):
        return
    delivered = ""
    if selection.delivered:
        were = "was" if selection.delivered == 1 else "were"
        delivered = f"; {count(selection.delivered, 'goal')} {were} already delivered and will not be sent again"
    parameters.confirm(f"Route {count(len(selection.ids), 'event')} again{delivered}?", yes=yes)


def _requeue(store: Store, ids: Sequence[int]) -> tuple[list[str], list[str]]:
    from bridge.store.inbox import events as events_

    queued: list[str] = []
    gone: list[str] = []
    for event_id in ids:
        done = store.run(partial(events_.requeue, event_id=event_id))
        (queued if done else gone).append(f"ev_{event_id}")
    return queued, gone


# ---------------------------------------------------------------------------------------------------------- ignore


@events.command(cls=Command, examples=[("events ignore ev_12 ev_13", "nothing can be done with these two")])
@click.argument("names", metavar="EVENT...", nargs=-1, required=True)
def ignore(names: Sequence[str]) -> None:
    """Take events that can never be read out of quarantine, so that /status is green again.

    Nothing is removed: they are kept as ignored, with the reason, and `events replay` can still route them again.
    """
    from bridge.store.inbox import events as events_

    screen = of_context()
    with resources.store() as store:
        with store.read() as conn:
            lines = [one(conn, name).line for name in names]
        done = {line.label: store.run(partial(events_.ignore, event_id=line.id)) for line in lines}
    ignored, others = ([label for label, was in done.items() if was is wanted] for wanted in (True, False))
    if screen.as_json:
        screen.write_json({"ok": not others, "ignored": ignored, "not_in_quarantine": others})
    for label, was in () if screen.as_json else done.items():
        screen.say(f"{label} is {'ignored now' if was else 'not in quarantine, and was left alone'}.")
    if others:
        raise click.exceptions.Exit(1)
