"""`report` and `coverage`: what came of the last days.

The one has the goals, what they are worth, and what waits or was not delivered; the other the event types that no rule
uses, the rules that made no goal, and the paths that no event has.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from bridge import alarms
from bridge.cli import parameters, printing, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, of_context
from bridge.identity.sentences import WAYS
from bridge.store import clock
from bridge.text import ago, when_short
from bridge.workbench import coverage as coverages
from bridge.workbench import report as reports
from bridge.workbench import unseen
from bridge.workbench.describe import stands

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bridge.workbench.coverage import Coverage
    from bridge.workbench.report import Money, Report, RuleReport

_HEADS: Final = {"email": "E-MAIL", "by-hand": "BY HAND"}  # of a column, where the way is called otherwise


@command(
    examples=[
        ("report", "the last 7 days"),
        ("report --since 30d --json", "a month, for a script"),
    ]
)
@parameters.last("7d", "Goals")
def report(since: int) -> None:
    """Show the latest goals per source, rule and day: money, visitors, what waits, what was not delivered.

    Days are UTC. Money comes from the metadata `amount` and `currency`, added up with and without a visitor. Goals of
    test events are counted separately.
    """
    screen = of_context()
    with resources.store() as store:
        with store.read() as conn:
            since_ms = clock.read_ms(conn) - since
        found = reports.report(store, since_ms)
    if screen.as_json:
        screen.write_json(as_json(found))
    else:
        _print(screen, found, since)


def as_json(found: Report) -> dict[str, Any]:
    """Amounts are strings, as exact as the goals have them."""
    return {
        "since_ms": found.since_ms,
        "until_ms": found.until_ms,
        "goals": found.goals,
        "payments": found.payments,
        "test_goals": found.test,
        "dry_goals": found.dry,
        "dry_goals_with_visitor": found.dry_named,
        "states": dict(found.states),
        "days": {day: found.made_on(day) for day in found.days},
        "rules": [_rule_json(rule) for rule in found.rules],
        "money": [_money_json(money) for money in found.money],
        "sales": [_money_json(money) for money in found.sales],
        "through": {source: dict(ways) for source, ways in found.through.items()},
        "attribution": [
            {**asdict(one), "named": one.named, "sentence": alarms.attributed(one)} for one in found.attribution
        ],
        "waiting": [asdict(one) for one in found.waiting],
        "rejected": [{**asdict(one), "example": f"goal_{one.example}"} for one in found.failures],
    }


def _rule_json(rule: RuleReport) -> dict[str, Any]:
    return {
        "source": rule.source,
        "rule": rule.rule,
        "kind": rule.kind,
        "names": dict(rule.names),
        "goals": rule.goals,
        "states": dict(rule.states),
        "with_visitor": rule.with_visitor,
        "through": dict(rule.through),
        "without_visitor": rule.goals - rule.with_visitor,
        "days": dict(sorted(rule.days.items())),
    }


def _money_json(money: Money) -> dict[str, Any]:
    whose = {"source": money.source, "rule": money.rule} if money.rule else {}
    sums = {"with_visitor": money.with_visitor, "without_visitor": money.without_visitor}
    return {
        **whose,
        "currency": money.currency,
        **{name: {"goals": one.goals, "amount": str(one.amount)} for name, one in sums.items()},
    }


# --------------------------------------------------------------------------------------------------------- answer


def _print(screen: Screen, found: Report, since: int) -> None:
    screen.heading(found.summary(since))
    for money in found.sales:
        if money.without_visitor.goals:
            screen.say(
                f"{money.without_visitor.text} {money.currency} of sales have no visitor"
                f" ({money.without_visitor.goals} of {money.with_visitor.goals + money.without_visitor.goals})."
            )
    if found.rules:
        screen.say()
        heads = ("SOURCE", "RULE", "GOALS", "DELIVERED", "WAIT", "NO VISITOR")
        screen.table(heads, [_row(rule) for rule in found.rules], numbers=range(2, len(heads)))
        screen.section("By day (UTC)")
        screen.facts([(day, f"{made}: {found.of_day(day)}") for day in found.days if (made := found.made_on(day))])
    if found.money:
        screen.section("Money")
        columns = ("SOURCE", "RULE", "CURRENCY", "WITH A VISITOR", "GOALS", "WITHOUT", "GOALS")
        rows = [_money_row(money) for money in (*found.money, *found.sales)]
        screen.table(columns, rows, numbers=range(3, len(columns)))
    _print_visitors(screen, found)
    _print_state(screen, found)


def _print_visitors(screen: Screen, found: Report) -> None:
    """Through what each source's goals found their visitors, and how its last sales fared."""
    ways = [way for way in WAYS if any(through[way] for through in found.through.values())]
    if ways:
        screen.section("Visitors, and what they were found through")
        heads = ("SOURCE", *(_HEADS.get(way, way.upper()) for way in ways), "NO VISITOR")
        screen.table(heads, [_ways(found, source, ways) for source in found.through], numbers=range(1, len(heads)))
    if found.attribution:
        screen.section("The last sales, sign-ups and so on")
        screen.facts([(one.source, alarms.attributed(one)) for one in found.attribution])


def _ways(found: Report, source: str, ways: Sequence[str]) -> tuple[str, ...]:
    through = found.through[source]
    without = sum(rule.goals for rule in found.rules if rule.source == source) - through.total()
    return (source, *(str(through[way] or "") for way in ways), str(without or ""))


def _print_state(screen: Screen, found: Report) -> None:
    if found.waiting:
        screen.section("Waiting now")
        screen.facts(
            [
                (
                    f"{one.goals} {one.state}",
                    f"{stands(one.state, one.reason)}, the oldest {ago(one.oldest_at_ms, found.until_ms)}",
                )
                for one in found.waiting
            ]
        )
    if found.failures:
        screen.section("Not delivered")
        screen.facts([(f"{one.goals} {one.state}", f"{one.why} (goal_{one.example})") for one in found.failures])


def _row(rule: RuleReport) -> tuple[str, ...]:
    numbers = (rule.goals, rule.states["delivered"], rule.waiting, rule.goals - rule.with_visitor)
    return (rule.source, rule.called, *(str(number or "") for number in numbers))


def _money_row(money: Money) -> tuple[str, ...]:
    cells = [
        cell
        for one in (money.with_visitor, money.without_visitor)
        for cell in ((one.text, str(one.goals)) if one.goals else ("", ""))
    ]
    return (money.source or "all", money.rule or "sales", money.currency or "(none)", *cells)


# --------------------------------------------------------------------------------------------------------- coverage


@command(
    examples=[
        ("coverage", "the last 30 days"),
        ("coverage --since 90d --json", "a quarter, for a script"),
    ]
)
@parameters.last("30d", "Events and goals")
@parameters.MAPPINGS
def coverage(since: int, mappings: Path | None) -> None:
    """List the event types that no rule uses, and how many of each arrived; and the rules that made no goal, and why.

    It also lists the paths in your rules that none of the newest events has; most of them are misspelt. If no rule
    uses an event type, deselect it at its provider, or write a rule for it. Nothing is sent or changed.
    """
    screen = of_context()
    rule_set = resources.load_rules(mappings)
    with resources.store() as store:
        with store.read() as conn:
            since_ms = clock.read_ms(conn) - since
        found = coverages.coverage(store, rule_set, since_ms)
        paths = unseen.unseen(store, rule_set, resources.settings_or_defaults(), since_ms)
    if screen.as_json:
        screen.write_json(
            {"since_ms": since_ms, **_coverage_json(found), "unseen_paths": [asdict(one) for one in paths]}
        )
    else:
        _print_coverage(screen, found, since)
        printing.print_unseen(screen, paths)


def _coverage_json(found: Coverage) -> dict[str, Any]:
    """Every type that came and every rule; those that no rule uses, and those that made no goal, once more."""
    return {
        "events": found.events,
        "unused_types": [asdict(one) for one in found.unused],
        "never_fired": [asdict(one) for one in found.idle],
        "types": [{**asdict(one), "used": one.used} for one in found.types],
        "rules": [asdict(one) for one in found.rules],
    }


def _print_coverage(screen: Screen, found: Coverage, since: int) -> None:
    screen.heading(found.summary(since))
    if found.unused:
        screen.section("Types that no rule uses")
        heads = ("SOURCE", "TYPE", "EVENTS", "LAST (UTC)", "NOTE")
        rows = [
            (one.source, one.type or "(no type)", str(one.events), when_short(one.last_at_ms), found.note(one))
            for one in found.unused
        ]
        screen.table(heads, rows)
    if found.idle:
        screen.section("Rules that made no goal")
        others = [(one.source, one.called, str(one.events), one.why) for one in found.idle]
        screen.table(("SOURCE", "RULE", "EVENTS", "WHY"), others)
