"""`check`: are the settings and the mapping files right, and do the tests inside the files pass?

It reports every problem of all three at once, one per line and never wrapped, so that an editor can jump to it. It
makes no request. If a database can be read, it also reports the paths that no stored event has; otherwise it does not
mention them. A missing secret is a warning: it may be set any minute, and the other sources work. A
value that is evidently not a secret is a problem, although the bridge starts with it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bridge import rules, settings
from bridge.alerts import targets
from bridge.cli import parameters, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError, ProblemsError, SettingsError
from bridge.text import count
from bridge.workbench import checking

if TYPE_CHECKING:
    from bridge.rules import RuleSet

_LIKENESS: Final = 0.85  # DATAFAST_KEY probably means DATAFAST_API_KEY
_PATIENCE_S: Final = 2.0  # for a database that may not answer: its contents only add warnings


@dataclass
class CheckReport(checking.FolderReport):
    """The findings of `check`, also those in the settings; `ok` if nothing is wrong."""

    alerts: str | None = None  # how many targets BRIDGE_ALERTS has, and for which services

    @property
    def ok(self) -> bool:
        return not self.problems


@command(
    examples=[
        ("check", "settings, and every file of the folder BRIDGE_MAPPINGS"),
        ("check mappings/stripe.yaml", "one file, while you edit it; settings are not checked"),
        ("check --mappings ~/shop/mappings", "another folder"),
        ("check --strict", "before a release: what is probably a mistake counts as a problem, too"),
    ]
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@parameters.MAPPINGS
@click.option("--strict", is_flag=True, help="Also fail on warnings about the contents of the files.")
def check(file: Path | None, mappings: Path | None, strict: bool) -> int:
    """Check settings and mapping files, and run the tests inside the files.

    Prints every problem, one per line: `mappings/stripe.yaml:13:7: unknown key "metadatta" …`. The exit code
    is 0 if there is no problem, and 1 otherwise. Warnings are not problems, but with --strict those about the contents
    of the files are (`amount: data.object.amount_total` would send those words literally). A secret that is not set yet
    is always only a warning. If the database can be read, the command also warns about paths that are in none of its
    newest events.
    """
    screen = current_screen()
    report = CheckReport()
    given = resources.environ()
    if file is None and mappings is None:
        _check_settings(report, given)
    found = _texts(report, file, mappings or resources.mappings_folder())
    if found is not None:
        _check_mappings(report, given, *found)
    report.warnings = [warning for warning in report.warnings if warning not in report.suspicions]
    if strict:
        report.problems += report.suspicions
    else:
        report.warnings += report.suspicions
    lists = {name: getattr(report, name) for name in ("warnings", "suspicions", "alerts")}
    files = [asdict(file) for file in report.files]
    screen.write_json({"ok": report.ok, "faults": report.problems, **lists, "files": files})
    _print(screen, report)
    return 0 if report.ok else 1


def _check_settings(report: CheckReport, given: dict[str, str]) -> None:
    try:
        loaded = settings.load(given)
        report.problems += loaded.problems
        report.warnings += loaded.warnings
        names = [setting.name for setting in settings.TABLE]
        own_names = [name for name in names if name.startswith(("BRIDGE_", "DATAFAST_"))]
        report.suspicions += checking.misspelt(set(given) - set(names), given, own_names, _LIKENESS)
        if loaded.bridge_alerts:  # apprise is loaded only if there are targets
            report.alerts = targets.summary(loaded.bridge_alerts)
            report.problems += targets.unreadable(loaded.bridge_alerts)
        resources.require_usable(loaded.database_url)
    except SettingsError as error:
        report.problems += error.problems


def _texts(report: CheckReport, file: Path | None, folder: Path) -> tuple[str, dict[str, str]] | None:
    """The folder as it is shown, and name -> text; None if it cannot be read, which is reported."""
    try:
        if file is None:
            return str(folder), rules.read_files(folder)
        return str(file.parent), {file.name: rules.read_file(file)}
    except ProblemsError as error:
        report.problems += error.problems
        return None


def _check_mappings(report: CheckReport, given: dict[str, str], folder: str, texts: dict[str, str]) -> None:
    settings = resources.settings_or_defaults()
    found = checking.check_files(texts, given, settings, folder, resources.now_ms())
    report.problems += found.problems
    report.warnings += [warning for warning in found.warnings if warning not in report.warnings]
    report.suspicions += found.suspicions
    report.files = found.files
    if found.rule_set is not None:
        report.suspicions += _unseen(found.rule_set)


def _unseen(rule_set: RuleSet) -> list[str]:
    """The paths that no stored event has; empty if the database cannot be read."""
    with resources.maybe_store(_PATIENCE_S) as (store, _):
        if store is None:
            return []
        from bridge.workbench import unseen

        with suppress(BridgeError):
            return [path.line for path in unseen.unseen(store, rule_set, resources.settings_or_defaults())]
    return []


def _print(screen: Screen, report: CheckReport) -> None:
    for file in report.files:
        screen.facts([(file.file, file.summary)], indent=0, width=max(len(f.file) for f in report.files) + 2)
        for sentence in (*file.also, *file.as_a_copy):
            screen.line(sentence)
    if report.alerts:
        screen.line(report.alerts)
    for warning in report.warnings:
        screen.mark("warn", warning)
    for problem in report.problems:
        screen.line(problem)
    screen.say(_verdict(report))


def _verdict(report: CheckReport) -> str:
    """The last line, which people read first: how much there is to fix."""
    problems, warnings = count(len(report.problems), "problem"), count(len(report.warnings), "warning")
    if report.warnings:
        return f"{problems}, {warnings}." if report.problems else f"{warnings}."
    return f"{problems}." if report.problems else "No problems."
