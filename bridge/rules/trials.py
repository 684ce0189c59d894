"""The `tests:` of mapping files: each an event and the goals that must come of it, names and number exactly.

What a test states of a goal beside its name (metadata, visitor, description) must be so, metadata to the letter. A rule
that is switched off takes part in the tests that expect its goal, or name it in `only`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from bridge.model import MISSING, VISITOR_PREFIX, Document
from bridge.rules.engine import describe, evaluate_table, table
from bridge.rules.making import candidates
from bridge.rules.paths import identified
from bridge.rules.values import equal, shown, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.model import Candidate, Json, Path, PlannedGoal, Source
    from bridge.rules.ruleset import CompiledFile, ExpectedGoal, Rule, RuleSet, RuleTrace, TestCase

_HASH_KEY: Final = b"tests"


@dataclass(frozen=True, slots=True)
class TestResult:
    """message: empty if ok, else what was expected and what came."""

    __test__ = False  # pytest must not collect it

    file: str
    line: int
    name: str
    ok: bool
    message: str = ""


def run_tests(rule_set: RuleSet) -> tuple[TestResult, ...]:
    """Run the tests of all files, in their order."""
    return tuple(
        TestResult(file.file, test.line, test.name, not message, message)
        for _, file in sorted(rule_set.mappings.items())
        for test in file.tests
        for message in [run_test(file, test)]
    )


def run_test(file: CompiledFile, test: TestCase) -> str:
    """What is wrong, or nothing."""
    rules = tuple(_rules(file, test))
    used = table(rules, file.when)
    planned: list[PlannedGoal] = []
    traces: list[RuleTrace] = []
    for i, document in enumerate(_documents(file.source, test)):
        found = evaluate_table(used, file.source, document, event_name=f"test[{i}]", mode="live", hash_key=_HASH_KEY)
        own = (*candidates(file.source.visitor, document), *_lent(file.source, document))
        planned += (goal._replace(candidates=(*goal.candidates, *own)) for goal in found.planned)
        traces += found.traces
    return _difference(test, planned, traces)


def _lent(source: Source, document: Document) -> Iterator[Candidate]:
    """Visitors in borrowed fields; one without the prefix is none before DataFast has said so, which no test asks."""
    for candidate in candidates(source.borrowed, document):
        if str(candidate.value).lower().startswith(VISITOR_PREFIX):
            yield candidate


def _rules(file: CompiledFile, test: TestCase) -> Iterator[Rule]:
    """The rules that take part: those switched on, and those that the test wants."""
    expected = {goal.goal for goal in test.goals}
    for rule in file.rules:
        if test.only is not None:
            if rule.id in test.only:
                yield replace(rule, enabled=True)
        elif rule.enabled or rule.id in expected or rule.name.literal in expected:
            yield replace(rule, enabled=True)


def _documents(source: Source, test: TestCase) -> Iterator[Document]:
    """The test's body as the source would read it; with `each`, one document per element."""
    whole = Document(body=test.body, header=test.headers, query=test.query, root=test.body)
    elements = source.each.whole(whole) if source.each is not None else None
    for body in elements if isinstance(elements, list) else [test.body]:
        document = replace(whole, body=body)
        yield replace(document, envelope=_envelope(source, document), key={**_keys(source, document), **test.key})


def _envelope(source: Source, document: Document) -> dict[str, Json]:
    spec = source.envelope
    found: dict[str, Json] = {name: _first(getattr(spec, name), document) for name in ("type", "id", "time", "account")}
    marks = spec.test_is if isinstance(spec.test_is, (list, tuple)) else (spec.test_is,)
    found["test"] = any(equal(path.read(document), mark) for path in spec.test for mark in marks)
    return found


def _first(paths: tuple[Path, ...], document: Document) -> str | None:
    return next((text for path in paths if (text := text_of(path.read(document)))), None)


def _keys(source: Source, document: Document) -> dict[str, str]:
    """What `key.…` reads: here, the first of the ids that the links of this source name."""
    keys: dict[str, str] = {}
    for link in source.links:
        for path in link.paths:
            value = path.read(document)
            text = text_of(identified(value) if isinstance(value, dict) else value)
            if value is not MISSING and text:
                keys.setdefault(link.kind, text)
    return keys


# ---------------------------------------------------------------------------------------------------- comparison


def _difference(test: TestCase, planned: list[PlannedGoal], traces: list[RuleTrace]) -> str:
    left = list(planned)
    faults = []
    for expected in test.goals:
        same_name = [goal for goal in left if goal.name == expected.goal]
        if not same_name:
            faults.append(f"expected the goal {expected.goal}, got {_names(planned)}{_why(expected.goal, traces)}")
            continue
        best = min(same_name, key=lambda goal: len(_mismatches(expected, goal)))
        faults += _mismatches(expected, best)
        left.remove(best)
    wanted = ", ".join(goal.goal for goal in test.goals) or "no goal"
    faults += [f"expected {wanted}, got also {goal.name} (rule {goal.rule_id})" for goal in left if not faults]
    return "; ".join(faults)


def _names(planned: list[PlannedGoal]) -> str:
    return ", ".join(goal.name for goal in planned) or "no goal"


def _why(name: str, traces: list[RuleTrace]) -> str:
    """The reason of the rule that should have made this goal."""
    reasons = [describe(t) for t in traces if name in (t.goal, t.rule_id) and t.result in ("condition", "failed")]
    reasons += [describe(t) for t in traces if name in (t.goal, t.rule_id) and t.result == "event"]
    return f" ({reasons[0]})" if reasons else ""


def _mismatches(expected: ExpectedGoal, goal: PlannedGoal) -> list[str]:
    found = []
    if expected.metadata is not None:
        for key in sorted({*expected.metadata, *goal.metadata}):
            wanted, got = expected.metadata.get(key), goal.metadata.get(key)
            if wanted != got:
                found.append(f"{goal.name}: expected {key} {_said(wanted)}, got {_said(got)}")
    if expected.visitor is not None:
        visitors = [text_of(candidate.value) or "" for candidate in goal.candidates]
        got = next((visitor.removeprefix(VISITOR_PREFIX) for visitor in visitors if visitor), None)
        if got != expected.visitor:
            found.append(f"{goal.name}: expected the visitor {expected.visitor}, got {_said(got)}")
    if expected.description is not None and expected.description != goal.description:
        found.append(f"{goal.name}: expected the description {expected.description}, got {_said(goal.description)}")
    return found


def _said(value: str | None) -> str:
    return "nothing" if value is None else f'"{shown(value)}"'
