"""`coverage`: which event types no rule uses, which rules made no goal, which paths no event has."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bridge.cli import parameters, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import of_context
from bridge.text import when_short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bridge.cli.screen import Screen
    from bridge.workbench.coverage import Coverage, TypeCoverage
    from bridge.workbench.unseen import UnseenPath


@command(
    examples=[
        ("coverage", "the last 30 days"),
        ("coverage --since 90d --json", "a quarter, for a script"),
    ]
)
@parameters.last("30d", "Events and goals")
@parameters.MAPPINGS
def coverage(since: int, mappings: Path | None) -> None:
    """List the event types that no rule uses, with how many came, and the rules that made no goal, with the reason.

    It also names the paths in your rules that none of the newest events has; most of these are misspelt. An event type
    that no rule uses can be ticked off at its provider, or deserves a rule. Nothing is sent or changed.
    """
    from bridge.store import clock
    from bridge.workbench import coverage as coverages
    from bridge.workbench import unseen

    screen = of_context()
    given = resources.environ()
    rule_set = resources.load_rules(given, mappings or resources.mappings_folder(given))
    with resources.store() as store:
        with store.read() as conn:
            since_ms = clock.read_ms(conn) - since
        found = coverages.coverage(store, rule_set, since_ms)
        paths = unseen.unseen(store, rule_set, resources.settings_or_defaults(given), since_ms)
    if screen.as_json:
        screen.write_json({"since_ms": since_ms, **as_json(found), "unseen_paths": [asdict(one) for one in paths]})
    else:
        _print(screen, found, since)
        print_unseen(screen, paths)


def print_unseen(screen: Screen, paths: Sequence[UnseenPath]) -> None:
    """The paths that none of the newest events has, a line each, as `check` prints them."""
    if paths:
        screen.say()
        screen.heading("Paths that no event has")
    for path in paths:
        screen.line(path.line)


def as_json(found: Coverage) -> dict[str, Any]:
    """Every type that came and every rule; those that no rule uses, and those that made no goal, once more."""
    return {
        "events": found.events,
        "unused_types": [asdict(one) for one in found.unused],
        "never_fired": [asdict(one) for one in found.idle],
        "types": [{**asdict(one), "used": one.used} for one in found.types],
        "rules": [asdict(one) for one in found.rules],
    }


def _print(screen: Screen, found: Coverage, since: int) -> None:
    screen.heading(found.summary(since))
    if found.unused:
        screen.say()
        screen.heading("Types that no rule uses")
        heads = ("SOURCE", "TYPE", "EVENTS", "LAST (UTC)", "NOTE")
        screen.table(heads, [(*_came(one), found.note(one)) for one in found.unused])
    if found.idle:
        screen.say()
        screen.heading("Rules that made no goal")
        rows = [(one.source, one.called, str(one.events), one.why) for one in found.idle]
        screen.table(("SOURCE", "RULE", "EVENTS", "WHY"), rows)


def _came(one: TypeCoverage) -> tuple[str, ...]:
    return (one.source, one.type or "(no type)", str(one.events), when_short(one.last_at_ms))
