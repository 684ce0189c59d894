"""Mapping files → a `RuleSet`, or all errors of all files at once. Reads no environment and no clock.

Only `folder` reads the disk: for the files, and once per process for the shipped ones that layers extend. `load`
returns the same for the same contents, variables and presets, and raises only MappingError, whatever the files hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from bridge.errors import MappingError
from bridge.globs import event_types
from bridge.limits import PAYMENT
from bridge.model import Destination
from bridge.rules.engine import table
from bridge.rules.language.conditions import ALWAYS
from bridge.rules.language.paths import CompiledPath, value_name
from bridge.rules.language.templates import NO_VALUES, Values
from bridge.rules.reading.folder import FILES_MAX, SHIPPED_PREFIX, hash_of, own, provider_of, shipped, too_many
from bridge.rules.reading.layers import LIKE, OVERRIDE, Layer, Part, extended, merged
from bridge.rules.reading.lint import lint
from bridge.rules.reading.named import check_when
from bridge.rules.reading.report import Diagnostics, Placed, Reporter, Steps
from bridge.rules.reading.rule import RuleContext, compile_rule
from bridge.rules.reading.secrets import expand, is_secret, names_to_show, refuse_malformed, variables
from bridge.rules.reading.source import SourceContext, compile_source
from bridge.rules.reading.strict_yaml import KEY, Node, parse
from bridge.rules.reading.structure import structure
from bridge.rules.reading.verification import forbidden_to_compute, without_computing
from bridge.rules.reading.when import compile_when
from bridge.rules.ruleset import CompiledFile, Rule, RuleSet
from bridge.settings import KEY_SETTINGS, WrongKind, api_key
from bridge.text import did_you_mean

if TYPE_CHECKING:
    from bridge.model import Source
    from bridge.rules.reading.schema import DestinationStanza, GoalStanza, MappingFile, TestCaseStanza

DEFAULT: Final = "default"
_WEBSITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_STEM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


def load(
    files: Mapping[str, str], environ: Mapping[str, str], presets: Mapping[str, Any], *, folder: str = "mappings"
) -> RuleSet:
    """Compile a set of mapping files; MappingError holds all errors as `folder/file.yaml:line:column: sentence`.

    A stored set includes the shipped files that its layers extend; for other sets, those of this release are used.
    """
    folder = folder.rstrip("/") or "/"
    given, files = files, own(files)
    if not files:
        advice = "`python -m bridge init DIR --for stripe` writes a folder with one"
        raise MappingError([f"{folder}: there is no mapping file (*.yaml); {advice}"])
    if len(files) > FILES_MAX:
        raise MappingError([too_many(folder, len(files))])
    reading = _Reading(environ, presets, folder)
    reading.names = {PurePath(name).stem: name for name in files}
    reading.shipped = {PurePath(name).stem: text for name, text in given.items() if name not in files}
    compiled = [reading.file(name, files[name]) for name in sorted(files)]
    reading.finish()
    files |= {f"{SHIPPED_PREFIX}{name}.yaml": text for name, text in sorted(reading.extended.items())}
    return _rule_set(files, reading.without_unsafe_handshakes([file for file in compiled if file is not None]), reading)


class _Reading:
    """The state of reading all files; destinations are known only once all have been read."""

    def __init__(self, environ: Mapping[str, str], presets: Mapping[str, Any], folder: str) -> None:
        self.environ, self.presets, self.folder = environ, presets, folder
        self.reports: list[Diagnostics] = []
        self.destinations = Destinations(environ)
        self.stems: dict[str, str] = {}
        self.names: Mapping[str, str] = {}  # names of the files by their stems
        self.shipped: Mapping[str, str] = {}  # texts that a stored set includes
        self.extended: dict[str, str] = {}  # shipped files that layers extend

    def file(self, name: str, text: str) -> CompiledFile | None:
        tree, problems = parse(text)
        report = Diagnostics(f"{self.folder}/{name}", tree)
        self.reports.append(report)
        for problem in problems:
            report.problem_at(problem.line, problem.column, problem.sentence)
        stem = self._stem(name, report)
        layer = self._layer(tree, report) if tree is not None else None
        if tree is None or (layer is None and "extends" in tree.entries):
            return None
        tree = report.tree = tree if layer is None else layer.tree
        written = structure(tree, report)
        if written is None:
            return None
        compiled = self._compile(written, SourceContext(stem, self.presets, self.environ), report, layer)
        below = self.extended[layer.name] if layer is not None else ""
        read = _fields_read(text, below, json.dumps(self.presets.get(written.provider), default=str))
        read -= _fields_read(*(requirement.path.text for requirement in compiled.source.require))  # not for rules
        return replace(compiled, source=replace(compiled.source, reads=read))

    def _layer(self, tree: Node, report: Diagnostics) -> Layer | None:
        """The tree merged with that of the shipped file that it extends."""
        known = {**shipped(), **self.shipped}
        by_provider = {provider_of(text): name for name, text in known.items()}
        written = extended(tree, report, {*known, *by_provider}, self.names)
        if written is None:
            return None
        name = written if written in known else by_provider[written]
        self.extended[name] = known[name]
        return merged(name, known[name], tree, self.presets, report)

    def _stem(self, name: str, report: Diagnostics) -> str:
        stem = PurePath(name).stem
        if not _STEM.fullmatch(stem):
            report.problem(
                (), f'the name of the file is in its URL, so "{stem}" may hold only letters, digits, - and _'
            )
            return "unnamed"
        if stem in self.stems:
            report.problem((), f"{self.stems[stem]} is the same source; each source has one file")
        self.stems[stem] = name
        return stem

    def _compile(
        self, written: MappingFile, context: SourceContext, report: Diagnostics, layer: Layer | None
    ) -> CompiledFile:
        destination = self.destinations.name(written.datafast, ("datafast",), report, DEFAULT)
        source = compile_source(written, context, report, destination)
        values = source.values if isinstance(source.values, Values) else NO_VALUES
        rules = self._rules(written, destination, values, report, layer)
        named = [
            *(event for rule in rules for event in rule.events),
            *(event for link in source.links for event in link.events),
        ]
        source = replace(source, named_types=event_types(named))
        if source.secret_error is not None and not source.secret_problems:
            report.warn(("secret", KEY), source.secret_error)
        if written.challenge is not None:
            report.suspect(("challenge", KEY), '"challenge" does nothing: remove it; handshakes are in "handshake"')
        _refuse_values_as_ids(source, values, report)
        _warn_of_visitors(source.visitor, source.links, rules, report)
        _warn_of_types(source.envelope.type, rules, report)
        check_when(written.when, values, report.below("when"))
        when = ALWAYS if written.when is None else compile_when(written.when, report.below("when"))
        _check_follows(rules, report)
        _warn_of_payments(rules, written.provider, self.presets.get(written.provider), report)
        lint(written, self.presets.get(written.provider) or {}, report)
        place, tests = report.place(("secret", KEY)), tuple(_tests(written, rules, report))
        return CompiledFile(report.file, source, rules, when, tests, place, layer.name if layer is not None else None)

    def _rules(
        self, written: MappingFile, destination: str, values: Values, report: Diagnostics, layer: Layer | None
    ) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        seen: dict[str, int] = {}
        _refuse_layer_keys(written, report, layer)
        for i, goal in enumerate(written.goals):
            site = self.destinations.name(goal.datafast, ("goals", i, "datafast"), report, destination)
            part = layer.parts[i] if layer is not None and i < len(layer.parts) else None
            line = report.line(("goals", i))
            origin = part.origin if part is not None else ""
            context = RuleContext(written.maps, site, line if part is None else part.line, values, origin)
            rule = _rule(goal, context, report.below("goals", i), part)
            if rule.id and rule.id in seen:
                where = ("goals", i, "id" if goal.id is not None else "goal")
                report.problem(
                    where, f'id "{rule.id}" is taken by the rule on line {seen[rule.id]}; give each its own "id"'
                )
            seen.setdefault(rule.id, line)
            rules.append(rule)
        if not written.goals:
            report.suspect(("goals", KEY), "the file has no rule, so nothing is ever sent")
        return tuple(rules)

    def finish(self) -> None:
        self.destinations.check_names()
        if problems := self.sentences(lambda report: report.problems):
            raise MappingError(problems)

    def without_unsafe_handshakes(self, compiled: list[CompiledFile]) -> list[CompiledFile]:
        """The files, without handshakes that compute with a secret that could sign another source's events."""
        found = forbidden_to_compute(file.source for file in compiled)
        return [self._without_computing(file, found) if file.source.name in found else file for file in compiled]

    def _without_computing(self, file: CompiledFile, found: Mapping[str, tuple[str, ...]]) -> CompiledFile:
        report = next(report for report in self.reports if report.file == file.file)
        others = " and ".join(found[file.source.name])
        report.warn(
            ("secret", KEY),
            f"its secret is the same as that of {others}, so its handshake is not answered: give each source its own"
            f" secret",
        )
        return replace(file, source=without_computing(file.source))

    def sentences(self, kind: Callable[[Diagnostics], list[Placed]]) -> tuple[str, ...]:
        """The sentences of one kind, from all files."""
        return tuple(line for report in self.reports for line in report.lines(kind(report)))


def _rule(goal: GoalStanza, context: RuleContext, problem: Reporter, part: Part | None) -> Rule:
    """Compile a rule; an error that only the merge with the shipped rule causes is reported with both places."""
    found: list[tuple[Steps, str]] = []
    rule = compile_rule(goal, context, lambda where, sentence: found.append((where, sentence)))
    together, alone = "", set[str]()
    if found and part is not None and part.origin in (OVERRIDE, LIKE):
        together = part.merged_with
        compile_rule(part.alone(goal), context, lambda _, sentence: alone.add(sentence))
    for where, sentence in found:
        problem(where, sentence if sentence in alone else sentence + together)
    return rule


def _refuse_layer_keys(written: MappingFile, report: Diagnostics, layer: Layer | None) -> None:
    """Refuse `use` and `like` in a file without `extends`, where they mean nothing."""
    needs = 'needs a shipped file: write "extends: stripe" (or another name) as the first line'
    if layer is None and written.use is not None:
        report.problem(("use", KEY), f'"use" {needs}')
    for i, goal in enumerate(written.goals):
        if layer is None and goal.like is not None:
            report.problem(("goals", i, "like", KEY), f'"like" {needs}')
    if layer is not None and written.in_layers is not None:
        report.problem(("in_layers", KEY), '"in_layers" is for shipped files; a layer says in "use" which goals are on')


def _rule_set(files: Mapping[str, str], compiled: Iterable[CompiledFile], reading: _Reading) -> RuleSet:
    by_name = {file.source.name: file for file in compiled}
    return RuleSet(
        hash=hash_of(files),
        files=dict(files),
        sources={name: file.source for name, file in by_name.items()},
        destinations=reading.destinations.known,
        rules={name: file.rules for name, file in by_name.items()},
        warnings=reading.sentences(lambda report: report.warnings + report.suspicions),
        suspicions=reading.sentences(lambda report: report.suspicions),
        mappings=by_name,
        tables={name: table(file.rules, file.when, file.source.values) for name, file in by_name.items()},
    )


_FIELD: Final = re.compile(r"""\b(header|query)\.(?:\\?"([^"\\]+)|([^\s.\[\]{}"'|,;:]+))""")


def _fields_read(*texts: str) -> frozenset[str]:
    """The headers and parameters that a file or its preset names anywhere, even in a comment."""
    return frozenset(
        f"{root}.{(quoted or plain).lower()}" for text in texts for root, quoted, plain in _FIELD.findall(text)
    )


def _tests(written: MappingFile, rules: tuple[Rule, ...], report: Diagnostics) -> Iterator[tuple[int, TestCaseStanza]]:
    ids = {rule.id for rule in rules}
    for i, test in enumerate(written.tests):
        for n, name in enumerate(test.only or ()):
            if name not in ids:
                report.problem(("tests", i, "only", n), f'there is no rule with the id "{name}"')
        yield report.line(("tests", i)), test


def _check_follows(rules: tuple[Rule, ...], report: Diagnostics) -> None:
    """A rule's `follows` must name a goal of the file, made by a rule that is switched on."""
    for i, rule in enumerate(rules):
        if rule.follows is not None and rule.follows == rule.name.literal:
            report.problem(("goals", i, "follows"), f'the goal "{rule.follows}" cannot follow itself')
    names = {rule.name.literal or "" for rule in rules}
    if any(rule.name.literal is None for rule in rules):
        return  # a template may make any name
    on = {rule.name.literal for rule in rules if rule.enabled}
    for i, rule in enumerate(rules):
        if rule.follows is not None and rule.follows not in names:
            known = did_you_mean(rule.follows, names)
            report.problem(("goals", i, "follows"), f'no rule of this file makes the goal "{rule.follows}"{known}')
        elif rule.follows is not None and rule.enabled and rule.follows not in on:
            report.suspect(("goals", i, "follows"), f'"{rule.follows}" is switched off, so nothing can follow it')


def _warn_of_payments(
    rules: tuple[Rule, ...], provider: str, preset: Mapping[str, Any] | None, report: Diagnostics
) -> None:
    """Some providers' payments reach DataFast directly, so a rule would count them twice."""
    reason = (preset or {}).get("payments_by")
    for i, rule in enumerate(rules):
        if reason and rule.kind == PAYMENT and rule.enabled:
            sentence = (
                f"{reason}: with that connected, this payment of {provider} counts the same money twice; use it only"
                " while that is not connected"
            )
            report.warn(("goals", i, "payment", KEY), sentence)


def _refuse_values_as_ids(source: Source, values: Values, report: Diagnostics) -> None:
    """Where ids are looked for, a path that names a value would read a body field called `value`."""
    linked = [path for link in source.links for path in link.paths]
    for key, found in (("visitor", source.visitor), ("links", linked)):
        for path in found:
            if isinstance(path, CompiledPath) and value_name(path) in values.choices:
                report.problem((key,), f'"{path}" cannot be read here: ids are found before values are computed')


def _warn_of_visitors(visitor: object, links: object, rules: tuple[Rule, ...], report: Diagnostics) -> None:
    if not visitor and not links and not all(rule.visitor for rule in rules):
        report.suspect(
            (), 'nothing says where the visitor id is; add "visitor: [path]", or every goal stays unattributed'
        )


def _warn_of_types(types: object, rules: tuple[Rule, ...], report: Diagnostics) -> None:
    if not types and any(event.strip("*") for rule in rules for event in rule.events):
        sentence = (
            'nothing says where the type of an event is; add "envelope: {type: path}", or only event: "*" matches'
        )
        report.suspect((), sentence)


# ---------------------------------------------------------------------------------------------------- destinations


class Destinations:
    """The DataFast websites that files name, each by a configured name, which stays the same when its key changes.

    Collects the configuration of all files, then checks the names that they use. `default` and `test` belong to the
    settings.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.known: dict[str, Destination] = {}
        self._used: list[tuple[str, Steps, Diagnostics]] = []

    def name(self, written: str | DestinationStanza | None, where: Steps, report: Diagnostics, default: str) -> str:
        """The name of the destination that a file or rule gives; the entry may also configure it."""
        if written is None:
            return default
        if isinstance(written, str):
            self._used.append((written, where, report))
            return written
        if written.api_key is None:
            self._used.append((written.name, (*where, "name"), report))
            if written.website_id is not None:
                report.problem((*where, "website_id"), f'website_id of "{written.name}" needs its api_key beside it')
        else:
            self._configure(written, written.api_key, where, report)
        return written.name

    def _configure(self, written: DestinationStanza, key: str, where: Steps, report: Diagnostics) -> None:
        if written.name in KEY_SETTINGS:
            setting = KEY_SETTINGS[written.name]
            report.problem((*where, "name"), f'"{written.name}" is the website of {setting}; choose another name')
        elif not _WEBSITE.fullmatch(written.name):
            report.problem((*where, "name"), f'"{written.name[:60]}" may hold only letters, digits, "-", "_" and "."')
        website_id = self._read(written.website_id, "website_id", where, report)
        found = Destination(written.name, self._key(written.name, key, where, report), website_id)
        if self.known.setdefault(written.name, found) != found:
            report.problem((*where, "name"), f'"{written.name}" is configured twice, differently')
        self._check_website(found, where, report)

    def _key(self, name: str, text: str, where: Steps, report: Diagnostics) -> str | None:
        key = self._read(text, "api_key", where, report)
        if key is None or not is_secret(key):
            missing = " and ".join(names_to_show(variables(text), self._environ)) or "its api_key"
            report.warn((*where, "api_key"), f'{missing} is not set: goals for the website "{name}" wait until it is')
            return None
        if not variables(text):
            report.warn(
                (*where, "api_key"), "a key is written in the file itself; write ${NAME} and set it in the environment"
            )
        try:
            return api_key(key)
        except WrongKind as error:
            report.problem((*where, "api_key"), f'the key of the website "{name}" cannot be used: {error}')
        except ValueError as error:
            report.problem((*where, "api_key"), f'the key of the website "{name}" must be {error}')
        return None

    def _read(self, text: str | None, key: str, where: Steps, report: Diagnostics) -> str | None:
        if text is None:
            return None
        refuse_malformed(text, report.below(*where, key))
        return expand(text, self._environ)

    @staticmethod
    def _check_website(found: Destination, where: Steps, report: Diagnostics) -> None:
        if found.website_id is not None and not re.fullmatch(r"[0-9a-fA-F]{24}", found.website_id):
            report.problem(
                (*where, "website_id"), "website_id must be 24 hex digits (not the dfid_… of the script tag)"
            )
        if found.api_key is not None and found.api_key.startswith("dft_") and found.website_id is None:
            report.problem(where, f'"{found.name}" has an account token (dft_…), which needs "website_id"')

    def check_names(self) -> None:
        """Every name in use must be configured in one of the files."""
        for name, where, report in self._used:
            if name == "test":
                report.problem(where, '"test" is the website of test-mode events; other goals cannot be sent there')
            elif name != DEFAULT and name not in self.known:
                guess = did_you_mean(name, [DEFAULT, *self.known])
                report.problem(where, f'no website is named "{name}"{guess}')
