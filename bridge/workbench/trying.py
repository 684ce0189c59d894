"""One mapping file, tried before it is saved: what `check` says, the goals of an event, a backtest.

The folder is taken with this one file replaced, in memory. Nothing is sent, stored or written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from bridge import rules
from bridge.errors import EditRefused, MappingError
from bridge.store.operator import history
from bridge.workbench import backtest, checking, stored, unseen
from bridge.workbench.explain import Explained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bridge.model import Event
    from bridge.rules import RuleSet
    from bridge.settings import Settings
    from bridge.store import Store
    from bridge.workbench.checking import FileReport, FolderReport

EVENTS: Final = 500  # of the source, the newest, that a backtest goes through
_PLACE: Final = re.compile(r":(\d+):(?:(\d+):)? ")


@dataclass(frozen=True, slots=True)
class Remark:
    """What `check` says. line, column: in the file that is tried; None where it is about something else."""

    sentence: str
    is_problem: bool
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """A file, checked. rule_set: of the whole folder; None where it cannot be loaded."""

    name: str
    remarks: tuple[Remark, ...]
    rule_set: RuleSet | None = None
    file: FileReport | None = None

    @property
    def problems(self) -> int:
        return sum(remark.is_problem for remark in self.remarks)

    @property
    def lines(self) -> dict[int, bool]:
        """The lines of which something is said, and whether that is a problem."""
        found: dict[int, bool] = {}
        for remark in self.remarks:
            if remark.line is not None:
                found[remark.line] = found.get(remark.line, False) or remark.is_problem
        return found


def check(folder: Path, name: str, text: str, settings: Settings, now_ms: int) -> Trial:
    """Judge the folder with this text in place of one file. Never raises."""
    try:
        texts = rules.read_files(folder) if folder.exists() else {}
    except MappingError as error:
        return Trial(name, tuple(Remark(fault, is_problem=True) for fault in error.faults))
    report = checking.check_files({**texts, name: text}, settings.environ, settings, folder.name, now_ms, only=name)
    remarks = _remarks(report, f"{folder.name}/{name}", folder.name)
    return Trial(name, tuple(remarks), report.rule_set, next(iter(report.files), None))


def _remarks(report: FolderReport, file: str, folder: str) -> Iterator[Remark]:
    """Of this file in the order of its lines, problems first; then problems of others."""
    own, others = [], []
    for sentences, is_problem in ((report.faults, True), (report.suspicions, False), (report.warnings, False)):
        for sentence in sentences:
            place = _PLACE.match(sentence, len(file)) if sentence.startswith(file) else None
            if place is not None:
                column = int(place[2]) if place[2] else None
                own.append(Remark(sentence[place.end() :], is_problem, int(place[1]), column))
            elif is_problem or not sentence.startswith(f"{folder}/"):
                others.append(Remark(sentence, is_problem))
    yield from sorted(own, key=lambda one: (not one.is_problem, one.line or 0, one.column or 0))
    yield from others


def demand_sound(trial: Trial) -> None:
    """EditRefused where something is wrong."""
    first = next((one for one in trial.remarks if one.is_problem), None)
    if first is not None:
        more = f" (and {trial.problems - 1} more)" if trial.problems > 1 else ""
        place = f"line {first.line}: " if first.line is not None else ""
        raise EditRefused(f"{trial.name} is not saved, because it has a problem: {place}{first.sentence}{more}")


def explain(store: Store, rule_set: RuleSet, settings: Settings, event: Event) -> Explained | None:
    """What these rules would make of a stored event; None without a file for its source, or without its body."""
    source = rule_set.sources.get(event.source)
    if source is None or event.body is None:
        return None
    preparer = replace(stored.preparer(store, rule_set, settings), near=True)
    return Explained(source, event, preparer.prepare(event), settings, None)


def compare(store: Store, settings: Settings, source: str, present: RuleSet, other: RuleSet) -> backtest.Backtest:
    """What the file would have made of the newest events of its source, against the rules in force."""
    with store.read() as conn:
        ids = [event_id for event_id, _, _ in history.newest(conn, [source], 0)[:EVENTS]]
    ours, theirs = (stored.preparer(store, rule_set, settings) for rule_set in (present, other))
    return backtest.compare_some(store, ours, theirs, ids)


def unseen_paths(store: Store, rule_set: RuleSet, settings: Settings, source: str) -> tuple[unseen.UnseenPath, ...]:
    """The paths of one file that none of the stored events has."""
    return unseen.unseen(store, replace(rule_set, sources={source: rule_set.sources[source]}), settings)
