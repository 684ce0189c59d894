"""`coverage`: which event types no rule uses, which rules made no goal, which paths no event has."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bridge.cli import parameters, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import of_context
from bridge.text import count, listing, span, when_short
from bridge.workbench import trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bridge.cli.screen import Screen
    from bridge.workbench.coverage import Coverage, RuleCoverage, TypeCoverage
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
    on = sum(rule.enabled for rule in found.rules)
    screen.heading(
        f"{count(found.events, 'event')} of {count(len(found.types), 'type')} in the last {span(since)}:"
        f" no rule uses {count(len(found.unused), 'type')}; {len(found.idle)} of {count(on, 'rule')} made no goal."
    )
    if found.unused:
        screen.say()
        screen.heading("Types that no rule uses")
        heads = ("SOURCE", "TYPE", "EVENTS", "LAST (UTC)", "NOTE")
        origins = {(rule.source, rule.rule): _called(rule) for rule in found.rules}
        screen.table(heads, [_type_row(one, origins) for one in found.unused])
    if found.idle:
        screen.say()
        screen.heading("Rules that made no goal")
        screen.table(("SOURCE", "RULE", "EVENTS", "WHY"), [_rule_row(one) for one in found.idle])


def _type_row(one: TypeCoverage, called: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    note = "" if one.known else "there is no mapping file"
    if one.off:
        note = f"switched off: {listing([called[one.source, rule] for rule in one.off])}"
    return (one.source, one.type or "(no type)", str(one.events), when_short(one.last_at_ms), note)


def _rule_row(one: RuleCoverage) -> tuple[str, ...]:
    return (one.source, _called(one), str(one.events), _why(one))


def _called(rule: RuleCoverage) -> str:
    """A rule by its id; in a layer, whose it is."""
    return f"{rule.rule} ({rule.origin})" if rule.origin else rule.rule


def _why(one: RuleCoverage) -> str:
    if not one.events:
        return f"no {' or '.join(one.types)} came"
    if one.trace is None:
        return "its events came; what it said of the newest is not kept"
    return f"ev_{one.event_id}: {trace.rule_sentence(one.trace)}"
