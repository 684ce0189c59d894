"""`events`: the received webhooks. Lists them, shows one, routes some again.

Reading needs no mapping files; the worker does the routing, with the rules in force at that time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from bridge import sources
from bridge.cli import parameters, printing, resources
from bridge.cli.catalogue import Section
from bridge.cli.screen import Screen, clean_lines, current_screen
from bridge.errors import BridgeError, UsageError
from bridge.model import EventState, Verdict
from bridge.store.inbox import events as inbox
from bridge.store.operator import changes, queries
from bridge.text import count, listing, when_short
from bridge.workbench import describe, stored
from bridge.workbench import replay as replays

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.model import Source
    from bridge.store import Store
    from bridge.store.operator.queries import EventDetail, EventLine
    from bridge.workbench.replay import PreviewedEvent

_SHOWN: Final = 50  # events in the preview of a replay


@click.group(
    cls=Section,
    examples=[
        ("events", "the newest events, and the outcome of each"),
        ("events --state quarantined", "events that could not be read or routed"),
        ("events --verdict unmatched --since 1d", "events that no rule matched"),
        ("events show ev_12", "one event, with every rule's reason"),
        ("events replay ev_12", "routes it again, after you have fixed a rule"),
        ("events ignore ev_12", "takes it out of quarantine, because nothing can be done with it"),
    ],
)
def events() -> None:
    """List, show, replay and ignore received webhooks (events)."""


@events.command("list", examples=[("events list --source stripe --limit 100", "the newest hundred of one source")])
@click.option("--state", type=click.Choice([state.value for state in EventState]), help="Only events in this state.")
@click.option(
    "--verdict", type=click.Choice([verdict.value for verdict in Verdict]), help="Only events with this verdict."
)
@parameters.SOURCE
@click.option("--type", metavar="TYPE", help="Only events of this type, such as charge.refunded.")
@parameters.SINCE
@parameters.UNTIL
@click.option("--before", type=parameters.event, metavar="EVENT", help="Only events before this one (ev_12).")
@parameters.LIMIT
def list_(since: int | None, until: parameters.Point | None, limit: int, **filters: Any) -> None:
    """List received webhooks, newest first, with the outcome of each."""
    screen = current_screen()
    with resources.store() as store, store.read() as conn:
        wanted = queries.EventFilter(
            since_ms=resources.since_ms(conn, since), until_ms=resources.until_ms(conn, until), limit=limit, **filters
        )
        lines = queries.list_events(conn, wanted)
        printing.hide_goals(screen, conn, [goal for line in lines for goal in line.goals] if screen.as_json else ())
    for name, provider in sorted({(line.source, line.provider) for line in lines}):
        screen.hide(sources.unshowable(printing.source_of(name, provider)))
    heads = ("EVENT", "RECEIVED (UTC)", "SOURCE", "TYPE", "RESULT")
    none = "No event has been received yet." if wanted == queries.EventFilter(limit=limit) else "No event like that."
    printing.print_page(screen, heads, lines, _row, limit=limit, none=none)


def _row(line: EventLine) -> tuple[str, ...]:
    mode = " (test)" if line.test else ""
    return (
        line.label,
        when_short(line.received_at_ms),
        f"{line.source}{mode}",
        line.type,
        describe.outcome_in_brief(line),
    )


@events.command(
    examples=[
        ("events show ev_12", "by the bridge's number"),
        ("events show evt_1Abc", "by the provider's id"),
        ("events show ev_12 --body > event.json", "its raw body, to try rules on with `explain`"),
    ]
)
@click.argument("event", metavar="EVENT")
@click.option("--body", is_flag=True, help="Print only the raw body.")
def show(event: str, body: bool) -> None:
    """Show one event: when it arrived, every rule's reason, the visitor, its goals and their attempts."""
    screen = current_screen()
    with resources.store() as store, store.read() as conn:
        detail = find_event(conn, event)
        made = queries.goals_of(conn, detail)
        moment = describe.moment(conn, resources.environ())
    printing.hide_events(screen, [detail])
    if body:
        _write_body(screen, detail)
    else:
        screen.write_json({**describe.as_json(detail), "goals": describe.as_json(made)})
        printing.print_event(screen, detail, made, moment)


def find_event(conn: Connection, text: str) -> EventDetail:
    """The event of this name; BridgeError if there is none, UsageError if there are several."""
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
        raise BridgeError(f"The body of {detail.line.label} is gone: {describe.removal_reason(detail.line)}.")
    body = _without_token(detail.event.body, printing.source_of(detail.event.source, detail.event.provider))
    if sys.stdout.isatty():  # a file or a pipe gets every byte, but a terminal would interpret control characters
        screen.out.write(clean_lines(body.decode("utf-8", "backslashreplace")) + "\n")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


def _without_token(body: bytes, source: Source | None) -> bytes:
    """The body as it arrived, but without the sender's token: a sender with a token signs nothing."""
    return body if source is None else sources.without(body, sources.sender_tokens(source, body))


# ---------------------------------------------------------------------------------------------------------- replay


@events.command(
    examples=[
        ("events replay ev_12 ev_13", "these two"),
        ("events replay --state quarantined --yes", "all that are in quarantine, without asking"),
        ("events replay --verdict unmatched --since 7d --type charge.refunded", "after you have added a rule for them"),
        (
            "events replay --verdict unmatched --since 7d --until 1d --dry-run",
            "what a replay would do; nothing is changed",
        ),
    ]
)
@click.argument("names", metavar="[EVENT]...", nargs=-1)
@click.option("--state", type=click.Choice([EventState.QUARANTINED.value]), help="All events in this state.")
@click.option(
    "--verdict", type=click.Choice([verdict.value for verdict in Verdict]), help="All events with this verdict."
)
@parameters.SOURCE
@click.option("--type", metavar="TYPE", help="Only events of this type.")
@parameters.SINCE
@parameters.UNTIL
@click.option("--dry-run", is_flag=True, help="Only show what the replay would do.")
@parameters.YES
def replay(names: Sequence[str], dry_run: bool, yes: bool, **filters: Any) -> int:
    """Route events again, by the rules that are in force now.

    Goals that an event has already made stay as they are: there is only one per once key, so nothing is sent twice.
    To send a delivered goal again, use `python -m bridge goals retry`.
    """
    screen = current_screen()
    if bool(names) == any(value is not None for value in filters.values()):
        raise UsageError(
            "Name events (events replay ev_12), or select them with --state, --verdict, --source, --type, --since,"
            " --until."
        )
    with resources.store() as store:
        with store.read() as conn:
            lines = _selected(conn, names, **filters)
            if not lines:
                _require_known(conn, filters["source"], filters["type"])
        if dry_run:
            _preview(screen, store, [line.id for line in lines])
            return 0
        _confirm(lines, yes=yes, named=bool(names))
        queued, gone = _apply_to_each(store, "replay", lines, inbox.requeue, "routed again")
    reason = "its body is gone (BRIDGE_RETENTION_DAYS), or it is already waiting to be routed"
    screen.answer(
        {"ok": not gone, "queued": queued, "not_queued": gone},
        f"{count(len(queued), 'event')} will be routed again{': ' + listing(queued) if queued else ''}.",
        *(f"{label}: {reason}." for label in gone),
    )
    return 1 if gone or not queued else 0


def _apply_to_each(
    store: Store, what: str, lines: Sequence[EventLine], act: Callable[[Connection, int], bool], became: str
) -> tuple[list[str], list[str]]:
    """Apply the action to each event and record it as a change. Returns labels: events done, and the others."""
    labels = [(line.id, line.label) for line in lines]
    done = changes.act_on_each(
        store, what, labels, act, lambda changed: f"is {became}" if changed else None, f"are {became}"
    )
    results = list(zip(labels, done, strict=True))
    applied = [label for (_, label), changed in results if changed]
    return applied, [label for (_, label), changed in results if not changed]


def _selected(
    conn: Connection, names: Sequence[str], since: int | None, until: parameters.Point | None, **filters: Any
) -> list[EventLine]:
    """The events to route again, in the order of arrival."""
    if names:
        return [find_event(conn, name).line for name in reversed(names)]
    until_ms = resources.until_ms(conn, until)
    wanted = queries.EventFilter(since_ms=resources.since_ms(conn, since), until_ms=until_ms, **filters)
    return resources.all_matching(partial(queries.list_events, conn), wanted)


def _require_known(conn: Connection, source: str | None, event_type: str | None) -> None:
    """BridgeError for a source or type without any stored event: most likely a typing error."""
    if source and not queries.list_events(conn, queries.EventFilter(source=source, limit=1)):
        raise BridgeError(
            f"There is no event from the source {source!r}. `python -m bridge sources` lists the sources."
        )
    if event_type and not queries.list_events(conn, queries.EventFilter(type=event_type, limit=1)):
        raise BridgeError(f"There is no event of the type {event_type!r}. `python -m bridge coverage` lists the types.")


def _confirm(lines: Sequence[EventLine], *, yes: bool, named: bool) -> None:
    """Ask before routing events that were not named, or any whose goal was delivered."""
    sent = sum(goal.state == "delivered" for line in lines for goal in line.goals)
    if not lines or (named and not sent):
        return
    were = "was" if sent == 1 else "were"
    delivered = f"; {count(sent, 'goal')} {were} already delivered and will not be sent again" if sent else ""
    parameters.confirm(f"Route {count(len(lines), 'event')} again{delivered}?", yes=yes)


# --------------------------------------------------------------------------------------- a replay, before it is done


def _preview(screen: Screen, store: Store, ids: Sequence[int]) -> None:
    """Preview the result for these events with the current mapping files, and show it."""
    settings = resources.settings_or_defaults()
    rule_set = resources.load_rules()
    for source in rule_set.sources.values():
        screen.hide(sources.unshowable(source))
    preparer = stored.preparer(store, rule_set, settings)
    found = list(replays.preview(store, preparer, ids))
    screen.write_json(_previews_json(found))
    _print_previews(screen, found)


def _previews_json(found: Sequence[PreviewedEvent]) -> dict[str, Any]:
    """How many goals would be new, take something or stay as they are; then each event with its goals."""
    goals = Counter(goal.outcome for event in found for goal in event.goals)
    return {
        "ok": True,
        "dry_run": True,
        "events": len(found),
        "routed": sum(event.refused is None for event in found),
        "not_routed": [f"ev_{event.event_id}" for event in found if event.refused is not None],
        "goals": {outcome: goals[outcome] for outcome in ("new", "merged", "known")},
        "foretold": [{**asdict(event), "event": f"ev_{event.event_id}"} for event in found],
    }


def _print_previews(screen: Screen, found: Sequence[PreviewedEvent]) -> None:
    screen.heading(replays.summary(found))
    rows = replays.changed(found)
    if rows:
        screen.say()
        table = [(f"ev_{event.event_id}", event.type, replays.sentence(event)) for event in rows[:_SHOWN]]
        screen.table(("EVENT", "TYPE", "WHAT WOULD BECOME OF IT"), table)
    if len(rows) > _SHOWN:
        screen.say(f"{len(rows) - _SHOWN} more: --json shows all.")


# ---------------------------------------------------------------------------------------------------------- ignore


@events.command(examples=[("events ignore ev_12 ev_13", "nothing can be done with these two")])
@click.argument("names", metavar="EVENT...", nargs=-1, required=True)
def ignore(names: Sequence[str]) -> int:
    """Take events that can never be read out of quarantine, so that /status is green again.

    Nothing is removed: they are kept as ignored, with the reason, and `events replay` can still route them again.
    """
    with resources.store() as store:
        with store.read() as conn:
            lines = [find_event(conn, name).line for name in names]
        ignored, others = _apply_to_each(store, "ignore", lines, inbox.ignore, "taken out of quarantine")
    became = {True: "ignored now", False: "not in quarantine, and was left alone"}
    current_screen().answer(
        {"ok": not others, "ignored": ignored, "not_in_quarantine": others},
        *(f"{line.label} is {became[line.label in ignored]}." for line in lines),
    )
    return 1 if others else 0
