"""`report`, `coverage` and `backtest`: what came of the last days, and what other rules would have made of them.

The first shows the goals, their value, and what waits or was not delivered; the second the event types that no rule
uses, the rules that made no goal, and the paths that no event has; the third what other rules would have made of the
stored events. They read the database and change nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bridge import alarms, rules
from bridge.cli import parameters, printing, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError, UsageError
from bridge.identity.sentences import WAYS
from bridge.store import Store, clock, rulesets
from bridge.text import ago, count, listing, span, when_short
from bridge.workbench import backtest as backtests
from bridge.workbench import coverage as coverages
from bridge.workbench import report as reports
from bridge.workbench import stored, unseen
from bridge.workbench.describe import state_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.rules import RuleSet
    from bridge.workbench.backtest import Backtest, Example, RuleResult
    from bridge.workbench.coverage import Coverage
    from bridge.workbench.report import Money, Report, RuleReport
    from bridge.workbench.unseen import UnseenPath

_HEADS: Final = {"email": "E-MAIL", "by-hand": "BY HAND"}  # column heads that differ from the way's name


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
    screen = current_screen()
    with resources.store() as store:
        with store.read() as conn:
            since_ms = clock.read_ms(conn) - since
        found = reports.report(store, since_ms)
    screen.write_json(as_json(found))
    _print(screen, found, since)


def as_json(found: Report) -> dict[str, Any]:
    """The report as JSON. Amounts are strings, as exact as in the goals."""
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
            {**asdict(source), "named": source.named, "sentence": alarms.attribution_sentence(source)}
            for source in found.attribution
        ],
        "waiting": [asdict(group) for group in found.waiting],
        "rejected": [{**asdict(group), "example": f"goal_{group.example}"} for group in found.failures],
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
    origin = {"source": money.source, "rule": money.rule} if money.rule else {}
    sums = {"with_visitor": money.with_visitor, "without_visitor": money.without_visitor}
    return {
        **origin,
        "currency": money.currency,
        **{name: {"goals": part.goals, "amount": str(part.amount)} for name, part in sums.items()},
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
        screen.facts([(day, f"{made}: {found.by_rule_on(day)}") for day in found.days if (made := found.made_on(day))])
    if found.money:
        screen.section("Money")
        columns = ("SOURCE", "RULE", "CURRENCY", "WITH A VISITOR", "GOALS", "WITHOUT", "GOALS")
        rows = [_money_row(money) for money in (*found.money, *found.sales)]
        screen.table(columns, rows, numbers=range(3, len(columns)))
    _print_visitors(screen, found)
    _print_state(screen, found)


def _print_visitors(screen: Screen, found: Report) -> None:
    """Print how each source's goals found their visitors, and how its latest sales fared."""
    ways = [way for way in WAYS if any(through[way] for through in found.through.values())]
    if ways:
        screen.section("Visitors, and what they were found through")
        heads = ("SOURCE", *(_HEADS.get(way, way.upper()) for way in ways), "NO VISITOR")
        screen.table(heads, [_ways(found, source, ways) for source in found.through], numbers=range(1, len(heads)))
    if found.attribution:
        screen.section("The last sales, sign-ups and so on")
        screen.facts([(source.source, alarms.attribution_sentence(source)) for source in found.attribution])


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
                    f"{wait.goals} {wait.state}",
                    f"{state_in_words(wait.state, wait.reason)}, the oldest {ago(wait.oldest_at_ms, found.until_ms)}",
                )
                for wait in found.waiting
            ]
        )
    if found.failures:
        screen.section("Not delivered")
        screen.facts([(f"{row.goals} {row.state}", f"{row.why} (goal_{row.example})") for row in found.failures])


def _row(rule: RuleReport) -> tuple[str, ...]:
    numbers = (rule.goals, rule.states["delivered"], rule.waiting, rule.goals - rule.with_visitor)
    return (rule.source, rule.called, *(str(number or "") for number in numbers))


def _money_row(money: Money) -> tuple[str, ...]:
    cells = [
        cell
        for part in (money.with_visitor, money.without_visitor)
        for cell in ((part.text, str(part.goals)) if part.goals else ("", ""))
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
    screen = current_screen()
    rule_set = resources.load_rules(mappings)
    with resources.store() as store:
        with store.read() as conn:
            since_ms = clock.read_ms(conn) - since
        found = coverages.coverage(store, rule_set, since_ms)
        paths = unseen.unseen(store, rule_set, resources.settings_or_defaults(), since_ms)
    screen.write_json({"since_ms": since_ms, **_coverage_json(found), "unseen_paths": [asdict(path) for path in paths]})
    _print_coverage(screen, found, since)
    _print_unseen(screen, paths)


def _coverage_json(found: Coverage) -> dict[str, Any]:
    """Every event type and every rule; the types that no rule uses and the rules that made no goal are listed again."""
    return {
        "events": found.events,
        "unused_types": [asdict(event_type) for event_type in found.unused],
        "never_fired": [asdict(rule) for rule in found.idle],
        "types": [{**asdict(event_type), "used": event_type.used} for event_type in found.types],
        "rules": [asdict(rule) for rule in found.rules],
    }


def _print_coverage(screen: Screen, found: Coverage, since: int) -> None:
    screen.heading(found.summary(since))
    if found.unused:
        screen.section("Types that no rule uses")
        heads = ("SOURCE", "TYPE", "EVENTS", "LAST (UTC)", "NOTE")
        rows = [
            (row.source, row.type or "(no type)", str(row.events), when_short(row.last_at_ms), found.note(row))
            for row in found.unused
        ]
        screen.table(heads, rows)
    if found.idle:
        screen.section("Rules that made no goal")
        others = [(rule.source, rule.called, str(rule.events), rule.why) for rule in found.idle]
        screen.table(("SOURCE", "RULE", "EVENTS", "WHY"), others)


def _print_unseen(screen: Screen, paths: Sequence[UnseenPath]) -> None:
    """Print the paths that none of the newest events has, one per line, like `check`."""
    if paths:
        screen.section("Paths that no event has")
    for path in paths:
        screen.line(path.line)


# --------------------------------------------------------------------------------------------------------- backtest


@dataclass(frozen=True)
class _RuleSets:
    """The two sets to compare, and their names for people."""

    present: RuleSet
    other: RuleSet
    names: tuple[str, str]


@command(
    examples=[
        ("backtest ~/next/mappings", "the rules of that folder against those of BRIDGE_MAPPINGS"),
        ("backtest stripe.yaml --since 7d", "one file, in place of the file of that name"),
        ("backtest --shipped 0.1.0", "your rules on top of the files that release 0.1.0 shipped"),
        ("backtest --expect-no-loss", "in CI: the folder BRIDGE_MAPPINGS against the rules in force"),
    ]
)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--shipped", metavar="VERSION", help="Instead of DIR, use the files that this release of the bridge shipped."
)
@parameters.last("30d", "Events")
@click.option("--expect-no-loss", is_flag=True, help="Exit code 1 if any goal is lost.")
def backtest(folder: Path | None, shipped: str | None, since: int, expect_no_loss: bool) -> None:
    """Show which goals other rules would have made from the stored events: lost, gained and changed, per rule.

    DIR is a folder of mapping files, or one file. The present rules are those of BRIDGE_MAPPINGS. If you give
    neither DIR nor --shipped, the rules of BRIDGE_MAPPINGS are the other rules, and the present rules are those that a
    running bridge loaded last. Nothing is sent or written. A goal that gets another name counts as one goal lost and
    one gained.
    """
    screen = current_screen()
    settings = resources.settings_or_defaults()
    with resources.store() as store:
        sets = _sets(store, folder, shipped)
        with store.read() as conn:
            since_ms = clock.read_ms(conn) - since
        present, other = (stored.preparer(store, rule_set, settings) for rule_set in (sets.present, sets.other))
        search = unseen.Search(store, sets.other, settings, since_ms)
        with screen.progress("events") as step, resources.infrequent_gc():
            result = backtests.compare(store, present, other, since_ms, step, search.see)
        paths = search.unseen()
        examples = [example for rule in result.rules for example in rule.examples]
        with store.read() as conn:
            for rule_set in (sets.present, sets.other):
                printing.hide_goals(screen, conn, examples, rule_set.sources)
    failed = expect_no_loss and result.lost > 0
    found = {**_backtest_json(result, sets.names), "unseen_paths": [asdict(path) for path in paths]}
    screen.write_json({"ok": not failed, "since_ms": since_ms, **found})
    _print_backtest(screen, result, sets.names, since)
    _print_unseen(screen, paths)
    if failed:
        raise BridgeError(f"{count(result.lost, 'goal')} would be lost, and --expect-no-loss allows none.")


def _sets(store: Store, folder: Path | None, shipped: str | None) -> _RuleSets:
    if folder is not None and shipped is not None:
        raise UsageError("Name a folder or --shipped VERSION, but not both.")
    own = resources.mappings_folder()
    if folder is not None:
        return _RuleSets(resources.load_rules(own), _rules_at(own, folder), (str(own), str(folder)))
    if shipped is not None:
        other = _rules_with_release(own, shipped)
        return _RuleSets(resources.load_rules(own), other, (str(own), f"{own} on the files of {shipped}"))
    return _RuleSets(_rules_in_force(store), resources.load_rules(own), ("the rules in force", str(own)))


def _rules_at(own: Path, path: Path) -> RuleSet:
    """The rules of a folder; for one file, its rules together with those of your other files."""
    if path.is_dir() or not path.exists():
        return resources.load_rules(path)
    return resources.compile_rules({**rules.read_files(own), path.name: rules.read_file(path)}, str(path.parent))


def _rules_with_release(own: Path, version: str) -> RuleSet:
    try:
        release_files = backtests.files_of(version)
    except KeyError:
        known = listing(backtests.versions())
        raise UsageError(f"The files of {version} are not included in this release; those of {known} are.") from None
    return resources.compile_rules(backtests.on_release(rules.read_files(own), release_files), str(own))


def _rules_in_force(store: Store) -> RuleSet:
    """The rules that a running bridge loaded last."""
    with store.read() as conn:
        files = rulesets.last_accepted(conn)
    if files is None:
        raise UsageError(
            "No bridge has taken any rules on this database yet, so there is nothing to compare with: name a folder"
            " (backtest ~/next/mappings), or --shipped VERSION."
        )
    return resources.compile_rules(files, "the rules in force")


def _backtest_json(result: Backtest, names: tuple[str, str]) -> dict[str, Any]:
    """The result, with only those rules whose goals differ."""
    return {
        "present": names[0],
        "other": names[1],
        **{name: getattr(result, name) for name in ("events", "gone", "same", "lost", "gained", "changed")},
        "unreadable": dict(zip(("present", "other"), result.unreadable, strict=True)),
        "missing_sources": dict(result.missing),
        "new_sources": dict(result.new),
        "unstored": {name: list(reads) for name, reads in result.unstored.items()},
        "rules": [_result_json(rule) for rule in result.differing],
    }


def _result_json(rule: RuleResult) -> dict[str, Any]:
    fields = asdict(rule) | {"examples": [_example_json(example) for example in rule.examples]}
    return {name: value for name, value in fields.items() if name != "origin" or value}


def _example_json(example: Example) -> dict[str, Any]:
    return {
        "kind": example.kind,
        "event": f"ev_{example.event_id}",
        "type": example.event_type,
        "test": example.test,
        "goal": example.goal,
        "why": example.why,
        "differences": [difference._asdict() for difference in example.differences],
    }


def _print_backtest(screen: Screen, result: Backtest, names: tuple[str, str], since: int) -> None:
    screen.heading(result.summary)
    screen.say()
    notes = [("Note", note) for note in result.notes()]
    screen.facts([("Present", names[0]), ("Other", names[1]), ("Events", _events(result, since)), *notes])
    if result.differing:
        screen.say()
        heads = ("SOURCE", "RULE", "PRESENT", "OTHER", "LOST", "GAINED", "CHANGED")
        screen.table(heads, [_result_row(rule) for rule in result.differing])
    for rule in result.differing:
        for kind in ("lost", "gained", "changed"):
            if examples := rule.of_kind(kind):
                screen.section(f"{rule.source}: {rule.called}: {kind} {getattr(rule, kind)}")
                screen.facts([(f"ev_{example.event_id}", example.sentence) for example in examples])


def _events(result: Backtest, since: int) -> str:
    counted = f"{result.events - result.gone} of the last {span(since)}"
    return f"{counted}; {result.without_body}" if result.without_body else counted


def _result_row(rule: RuleResult) -> tuple[str, ...]:
    numbers = (rule.present, rule.other, rule.lost or "", rule.gained or "", rule.changed or "")
    return (rule.source, rule.called, *("no rule" if number is None else str(number) for number in numbers))
