"""`backtest`: what other rules would have made of the stored events. It reads the database, and changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge import rules
from bridge.cli import parameters, printing, redaction, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, of_context
from bridge.errors import BridgeError, UsageError
from bridge.store import Store, clock, rulesets
from bridge.text import count, listing, span
from bridge.workbench import backtest as backtests
from bridge.workbench import stored, unseen

if TYPE_CHECKING:
    from bridge.rules import RuleSet
    from bridge.workbench.backtest import Backtest, Example, RuleResult


@dataclass(frozen=True)
class _Sets:
    """The two sets that are compared, and what people call them."""

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

    DIR is a folder of mapping files, or one file. The present rules are those of BRIDGE_MAPPINGS. Without DIR and
    --shipped, those are the other rules, and the present ones are those that a running bridge loaded last. Nothing is
    sent or written. A goal that gets another name counts as one goal lost and one gained.
    """
    screen = of_context()
    settings = resources.settings_or_defaults()
    with resources.store() as store:
        sets = _sets(store, folder, shipped)
        with store.read() as conn:
            since_ms = clock.read_ms(conn) - since
        present, other = (stored.preparer(store, one, settings) for one in (sets.present, sets.other))
        search = unseen.Search(store, sets.other, settings, since_ms)
        with screen.progress("events") as step, resources.few_collections():
            result = backtests.compare(store, present, other, since_ms, step, search.see)
        paths = search.unseen()
        examples = [example for rule in result.rules for example in rule.examples]
        with store.read() as conn:
            for rule_set in (sets.present, sets.other):
                redaction.hide_goals(screen, conn, examples, rule_set.sources)
    failed = expect_no_loss and result.lost > 0
    if screen.as_json:
        found = {**as_json(result, sets.names), "unseen_paths": [asdict(one) for one in paths]}
        screen.write_json({"ok": not failed, "since_ms": since_ms, **found})
    else:
        _print(screen, result, sets.names, since)
        printing.print_unseen(screen, paths)
    if failed:
        raise BridgeError(f"{count(result.lost, 'goal')} would be lost, and --expect-no-loss allows none.")


# ------------------------------------------------------------------------------------------------- which rules


def _sets(store: Store, folder: Path | None, shipped: str | None) -> _Sets:
    if folder is not None and shipped is not None:
        raise UsageError("Name a folder or --shipped VERSION, but not both.")
    own = resources.mappings_folder()
    if folder is not None:
        return _Sets(resources.load_rules(own), _of_path(own, folder), (str(own), str(folder)))
    if shipped is not None:
        other = _of_release(own, shipped)
        return _Sets(resources.load_rules(own), other, (str(own), f"{own} on the files of {shipped}"))
    return _Sets(_in_force(store), resources.load_rules(own), ("the rules in force", str(own)))


def _of_path(own: Path, path: Path) -> RuleSet:
    """The rules of a folder; those of one file together with the other files of one's own."""
    if path.is_dir() or not path.exists():
        return resources.load_rules(path)
    return resources.compile_rules({**rules.read_files(own), path.name: rules.read_file(path)}, str(path.parent))


def _of_release(own: Path, version: str) -> RuleSet:
    try:
        of_release = backtests.files_of(version)
    except KeyError:
        known = listing(backtests.versions())
        raise UsageError(f"The files of {version} are not known here; those of {known} are.") from None
    return resources.compile_rules(backtests.instead(rules.read_files(own), of_release), str(own))


def _in_force(store: Store) -> RuleSet:
    """The rules that a running bridge took last."""
    with store.read() as conn:
        files = rulesets.last_accepted(conn)
    if files is None:
        raise UsageError(
            "No bridge has taken any rules on this database yet, so there is nothing to compare with: name a folder"
            " (backtest ~/next/mappings), or --shipped VERSION."
        )
    return resources.compile_rules(files, "the rules in force")


# --------------------------------------------------------------------------------------------------------- answer


def as_json(result: Backtest, names: tuple[str, str]) -> dict[str, Any]:
    """The result; of the rules those whose goals differ."""
    return {
        "present": names[0],
        "other": names[1],
        "events": result.events,
        "gone": result.gone,
        "same": result.same,
        "lost": result.lost,
        "gained": result.gained,
        "changed": result.changed,
        "unreadable": dict(zip(("present", "other"), result.unreadable, strict=True)),
        "missing_sources": dict(result.missing),
        "new_sources": dict(result.new),
        "unstored": {name: list(reads) for name, reads in result.unstored.items()},
        "rules": [_rule_json(rule) for rule in result.differing],
    }


def _rule_json(rule: RuleResult) -> dict[str, Any]:
    said = asdict(rule) | {"examples": [_example_json(example) for example in rule.examples]}
    return {name: value for name, value in said.items() if name != "origin" or value}


def _example_json(example: Example) -> dict[str, Any]:
    return {
        "kind": example.kind,
        "event": f"ev_{example.event_id}",
        "type": example.event_type,
        "test": example.test,
        "goal": example.goal,
        "why": example.why,
        "differences": [one._asdict() for one in example.differences],
    }


def _print(screen: Screen, result: Backtest, names: tuple[str, str], since: int) -> None:
    screen.heading(result.summary)
    screen.say()
    notes = [("Note", note) for note in result.notes()]
    screen.facts([("Present", names[0]), ("Other", names[1]), ("Events", _events(result, since)), *notes])
    if result.differing:
        screen.say()
        heads = ("SOURCE", "RULE", "PRESENT", "OTHER", "LOST", "GAINED", "CHANGED")
        screen.table(heads, [_row(rule) for rule in result.differing])
    for rule in result.differing:
        for kind in ("lost", "gained", "changed"):
            if examples := rule.of_kind(kind):
                screen.section(f"{rule.source}: {rule.called}: {kind} {getattr(rule, kind)}")
                screen.facts([(f"ev_{example.event_id}", example.sentence) for example in examples])


def _events(result: Backtest, since: int) -> str:
    told = f"{result.events - result.gone} of the last {span(since)}"
    return f"{told}; {result.without_body}" if result.without_body else told


def _row(rule: RuleResult) -> tuple[str, ...]:
    numbers = (rule.present, rule.other, rule.lost or "", rule.gained or "", rule.changed or "")
    return (rule.source, rule.called, *("no rule" if number is None else str(number) for number in numbers))
