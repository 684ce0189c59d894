"""`backtest`: what other rules would have made of the stored events. It reads the database, and changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.cli import parameters, redaction, resources
from bridge.cli.catalogue import command
from bridge.cli.coverage import print_unseen
from bridge.cli.screen import of_context
from bridge.errors import BridgeError, UsageError
from bridge.text import count, listing, span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.cli.screen import Screen
    from bridge.rules import RuleSet
    from bridge.store import Store
    from bridge.workbench.backtest import Backtest, Difference, Example, RuleResult


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
        ("backtest --shipped 0.1.0", "your rules on the files that release 0.1.0 shipped"),
        ("backtest --expect-no-loss", "in CI: the folder BRIDGE_MAPPINGS against the rules in force"),
    ]
)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--shipped", metavar="VERSION", help="The files that this release of the bridge shipped, instead of DIR.")
@parameters.last("30d", "Events")
@click.option("--expect-no-loss", is_flag=True, help="Exit code 1 if any goal is lost.")
def backtest(folder: Path | None, shipped: str | None, since: int, expect_no_loss: bool) -> None:
    """Show what other rules would have made of the stored events: goals lost, gained and changed, per rule.

    DIR is a folder of mapping files, or one file. The present rules are those of BRIDGE_MAPPINGS; without DIR and
    --shipped these are the other ones, and the present rules are those that a running bridge took last. Nothing is
    sent and nothing is written. A goal under another name is lost, and another one is gained.
    """
    from bridge import app
    from bridge.store import clock
    from bridge.workbench import backtest as backtests
    from bridge.workbench import stored, unseen

    screen = of_context()
    given = resources.environ()
    settings = resources.settings_or_defaults(given)
    with resources.store() as store:
        sets = _sets(store, given, folder, shipped)
        with store.read() as conn:
            since_ms = clock.read_ms(conn) - since
        present, other = (
            stored.preparer(store, one, settings, app.destinations(settings, one)) for one in (sets.present, sets.other)
        )
        with screen.progress("events") as step:
            result = backtests.compare(store, present, other, since_ms, step)
        paths = unseen.unseen(store, sets.other, settings, since_ms)
        _hide(screen, store, result)
    failed = expect_no_loss and result.lost > 0
    if screen.as_json:
        found = {**as_json(result, sets.names), "unseen_paths": [asdict(one) for one in paths]}
        screen.write_json({"ok": not failed, "since_ms": since_ms, **found})
    else:
        _print(screen, result, sets.names, since)
        print_unseen(screen, paths)
    if failed:
        raise BridgeError(f"{count(result.lost, 'goal')} would be lost, and --expect-no-loss allows none.")


# ------------------------------------------------------------------------------------------------- which rules


def _sets(store: Store, given: Mapping[str, str], folder: Path | None, shipped: str | None) -> _Sets:
    if folder is not None and shipped is not None:
        raise UsageError("Name a folder or --shipped VERSION, but not both.")
    own = resources.mappings_folder(given)
    if folder is not None:
        return _Sets(resources.load_rules(given, own), _of_path(given, own, folder), (str(own), str(folder)))
    if shipped is not None:
        other = _of_release(given, own, shipped)
        return _Sets(resources.load_rules(given, own), other, (str(own), f"{own} on the files of {shipped}"))
    return _Sets(_in_force(store, given), resources.load_rules(given, own), ("the rules in force", str(own)))


def _of_path(given: Mapping[str, str], own: Path, path: Path) -> RuleSet:
    """The rules of a folder; those of one file together with the other files of one's own."""
    from bridge import rules

    if path.is_dir() or not path.exists():
        return resources.load_rules(given, path)
    return resources.compile_rules(given, {**rules.read_files(own), path.name: rules.read_file(path)}, str(path.parent))


def _of_release(given: Mapping[str, str], own: Path, version: str) -> RuleSet:
    from bridge import rules
    from bridge.workbench import shipped

    try:
        of_release = shipped.files(version)
    except KeyError:
        known = listing(shipped.versions())
        raise UsageError(f"The files of {version} are not known here; those of {known} are.") from None
    return resources.compile_rules(given, shipped.instead(rules.read_files(own), of_release), str(own))


def _in_force(store: Store, given: Mapping[str, str]) -> RuleSet:
    """The rules that a running bridge took last."""
    from bridge.store import rulesets

    with store.read() as conn:
        files = rulesets.last_accepted(conn)
    if files is None:
        raise UsageError(
            "No bridge has taken any rules on this database yet, so there is nothing to compare with: name a folder"
            " (backtest ~/next/mappings), or --shipped VERSION."
        )
    return resources.compile_rules(given, files, "the rules in force")


# --------------------------------------------------------------------------------------------------------- answer


def _hide(screen: Screen, store: Store, result: Backtest) -> None:
    """What is secret in the events that are shown as examples."""
    from bridge.store.operator import queries

    shown = sorted({example.event_id for rule in result.rules for example in rule.examples})
    with store.read() as conn:
        redaction.hide_of(screen, [detail for one in shown if (detail := queries.show_event(conn, one))])


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
        "rules": [_rule_json(rule) for rule in result.rules if rule.differs],
    }


def _rule_json(rule: RuleResult) -> dict[str, Any]:
    return {
        "source": rule.source,
        "rule": rule.rule,
        "goal": rule.goal,
        **({"origin": rule.origin} if rule.origin else {}),
        "present": rule.present,
        "other": rule.other,
        "lost": rule.lost,
        "gained": rule.gained,
        "changed": rule.changed,
        "examples": [_example_json(example) for example in rule.examples],
    }


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
    screen.heading(_summary(result))
    screen.say()
    screen.facts([("Present", names[0]), ("Other", names[1]), ("Events", _events(result, since)), *_notes(result)])
    differing = [rule for rule in result.rules if rule.differs]
    if differing:
        screen.say()
        heads = ("SOURCE", "RULE", "PRESENT", "OTHER", "LOST", "GAINED", "CHANGED")
        screen.table(heads, [_row(rule) for rule in differing])
    for rule in differing:
        for kind in ("lost", "gained", "changed"):
            examples = [example for example in rule.examples if example.kind == kind]
            if examples:
                screen.say()
                screen.heading(f"{rule.source}: {_named(rule)}: {kind} {getattr(rule, kind)}")
                screen.facts([(f"ev_{example.event_id}", _example(example)) for example in examples])


def _summary(result: Backtest) -> str:
    if not (result.lost or result.gained or result.changed):
        return f"No goal differs: both sets make the same {count(result.same, 'goal')}."
    parts = [
        f"{number} {word}"
        for number, word in ((result.lost, "lost"), (result.gained, "gained"), (result.changed, "changed"))
        if number
    ]
    return f"Goals: {listing(parts)}; {result.same} the same."


def _events(result: Backtest, since: int) -> str:
    gone = f"; the bodies of {result.gone} are gone, so nobody can say what becomes of these" if result.gone else ""
    return f"{result.events - result.gone} of the last {span(since)}{gone}"


def _notes(result: Backtest) -> list[tuple[str, str]]:
    notes = []
    for name, events in result.missing.items():
        notes.append(("Note", f"only the present rules have a file for {name} ({count(events, 'event')})"))
    for name, events in result.new.items():
        notes.append(("Note", f"only the other rules have a file for {name} ({count(events, 'event')})"))
    present, other = result.unreadable
    if present or other:
        told = f"quarantined by the present rules: {count(present, 'event')}, by the other ones: {other}"
        notes.append(("Note", told))
    for name, reads in result.unstored.items():
        paths = listing(list(reads))
        notes.append(("Note", f"{name}: the present file does not read {paths}, so stored events may lack it"))
    return notes


def _row(rule: RuleResult) -> tuple[str, ...]:
    numbers = (rule.present, rule.other, rule.lost or "", rule.gained or "", rule.changed or "")
    return (rule.source, _named(rule), *("no rule" if number is None else str(number) for number in numbers))


def _named(rule: RuleResult) -> str:
    return f"{rule.rule} ({rule.origin})" if rule.origin else rule.rule


def _example(example: Example) -> str:
    what = f"{example.event_type or '(no type)'}{' (test)' if example.test else ''}"
    told = example.why or "; ".join(map(_difference, example.differences))
    return f"{what}: {told}" if told else what


def _difference(one: Difference) -> str:
    return f"{one.what} {_value(one.before)} → {_value(one.after)}"


def _value(value: str | None) -> str:
    return "nothing" if value is None else f'"{value}"'
