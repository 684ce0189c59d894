"""Check mapping files: every problem with its place, and the results of their own tests.

It reads no environment, clock or database: their values are passed as arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge import loading, mapping_tests, rules, sources
from bridge.errors import MappingError
from bridge.limits import PAYMENT
from bridge.text import count, nearest

if TYPE_CHECKING:
    from bridge.rules import RuleSet
    from bridge.settings import Settings

_SECRETS_ALIKE: Final = 0.87  # GITHUB_… is not a misspelt GITLAB_WEBHOOK_SECRET


@dataclass
class FileReport:
    """The findings in one mapping file.

    - extends: the shipped file below a layer
    - shipped: how many of that file's rules the layer leaves unchanged
    - also: the goals that these rules made of the tests' events
    - differs, lacks: in a copy of a shipped file, the rules that were changed or are missing
    """

    file: str
    rules: int = 0
    off: int = 0
    dry: int = 0
    payments: int = 0
    tests: int = 0
    passed: int = 0
    secrets: int = 0
    extends: str | None = None
    shipped: int = 0
    also: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        kinds = {"dry": self.dry, "sent as payments": self.payments, "switched off": self.off}
        some = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
        off = f" ({some})" if some else ""
        tests = f"{self.passed} of {count(self.tests, 'test')} passed" if self.tests else "no tests"
        secrets = count(self.secrets, "secret") if self.secrets else "no secret"
        layer = f"extends {self.extends}: " if self.extends else ""
        number = "all" if self.shipped == self.rules else f"{self.shipped} of them"
        shipped = f", {number} as shipped" if self.extends else ""
        return f"{layer}{count(self.rules, 'rule')}{shipped}{off}, {tests}, {secrets}"

    @property
    def as_a_copy(self) -> list[str]:
        """How a copy differs from this release's shipped file."""
        parts = [f"not as shipped: {', '.join(self.differs)}"] if self.differs else []
        parts += [f"only in the shipped file: {', '.join(self.lacks)}"] if self.lacks else []
        return [f"{self.file} is a copy of a shipped file; {'; '.join(parts)}"] if parts else []


@dataclass
class FolderReport:
    """The findings in a set of mapping files. rule_set: None if they cannot be loaded.

    suspicions: warnings about what is written, which `check --strict` counts as problems; warnings: all others.
    """

    rule_set: RuleSet | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    suspicions: list[str] = field(default_factory=list)
    files: list[FileReport] = field(default_factory=list)


def check_files(
    texts: Mapping[str, str],
    environ: Mapping[str, str],
    settings: Settings,
    folder: str,
    now_ms: int,
    only: str | None = None,
) -> FolderReport:
    """Load these files and run their tests. folder: their place in messages. now_ms: when test events arrive.

    only: the one file to test and report on; None: all.
    """
    try:
        rule_set = loading.load(texts, environ, sources.presets(), folder=folder)
    except MappingError as error:
        return FolderReport(problems=list(error.problems))
    report = findings(rule_set, environ)
    names = sorted(texts) if only is None else [only]
    report.files = [_file(rule_set, name, texts[name], folder) for name in names]
    tested = {name: file for name, file in rule_set.mappings.items() if Path(file.file).name in names}
    _run_tests(report, replace(rule_set, mappings=tested), settings, now_ms)
    return report


def findings(rule_set: RuleSet, environ: Mapping[str, str]) -> FolderReport:
    """The findings in a set that could be loaded, before its tests run."""
    read_names = {name for source in rule_set.sources.values() for name in source.secret_names}
    suspicions = [*rule_set.suspicions, *misspelt(set(environ) - read_names, environ, read_names, _SECRETS_ALIKE)]
    warnings = [warning for warning in rule_set.warnings if warning not in suspicions]
    return FolderReport(rule_set, list(rule_set.problems), [*warnings, *_unnotified(rule_set, environ)], suspicions)


def misspelt(unread: Collection[str], given: Mapping[str, str], known: Collection[str], likeness: float) -> list[str]:
    """Messages about variables that nothing reads, whose names resemble one that is read but not set."""
    unset = [name for name in known if not given.get(name)]
    meant = {name: nearest(name, unset, likeness=likeness) for name in sorted(unread)}
    return [f"{name} is set, but nothing reads it; did you mean {likely}?" for name, likely in meant.items() if likely]


def _unnotified(rule_set: RuleSet, given: Mapping[str, str]) -> list[str]:
    """Messages about rules with `notify: true` if nobody is notified."""
    if given.get("BRIDGE_ALERTS", "").strip():
        return []
    names = ", ".join(f"{name}: {rule.id}" for name, rule in rule_set.each_rule() if rule.notify and rule.enabled)
    return [f"`notify: true` notifies nobody, because BRIDGE_ALERTS is not set ({names})"] if names else []


def _file(rule_set: RuleSet, name: str, text: str, folder: str) -> FileReport:
    source = Path(name).stem
    found = rule_set.rules.get(source, ())
    on = [rule for rule in found if rule.enabled]
    report = FileReport(str(Path(folder) / name), len(on), len(found) - len(on))
    report.dry, report.payments = sum(rule.dry for rule in on), sum(rule.kind == PAYMENT for rule in on)
    report.secrets = len(rule_set.sources[source].secrets)
    report.extends = rule_set.mappings[source].extends
    report.shipped = sum(rule.origin == "shipped" and rule.enabled for rule in found)
    if (copy := rules.copy_of(text)) is not None:
        report.differs, report.lacks = list(copy.differs), list(copy.lacks)
    return report


def _run_tests(report: FolderReport, rule_set: RuleSet, settings: Settings, now_ms: int) -> None:
    by_file = {Path(file.file).name: file for file in report.files}
    for result in mapping_tests.run_tests(rule_set, settings, now_ms):
        file = by_file[Path(result.file).name]
        file.tests += 1
        file.passed += result.ok
        if result.also:
            goals = ", ".join(f"{name} (shipped)" for name in result.also)
            file.also.append(f"{file.file}:{result.line}: test {result.name!r}: also: {goals}")
        if not result.ok:
            report.problems.append(f"{file.file}:{result.line}: test {result.name!r}: {result.message}")
