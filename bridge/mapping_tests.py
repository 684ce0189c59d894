"""The `tests:` of mapping files: each has an event and exactly the goals that it must make, by name and number.

A test's event is encoded as its provider would send it and prepared as in production, so that `check`, `explain` and
the router never disagree. Whatever a test states about a goal besides its name (metadata, visitor, description) must
match, metadata exactly. A disabled rule takes part in the tests that expect its goal, or that name it in `only`. The
tests of a layer are about its own rules (those it writes, changes or likes): a goal of a shipped rule is compared if a
test expects it, and otherwise only reported, so that no upgrade can break the tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from bridge import rules
from bridge.model import BodyForm, ExactFloat, GoalDraft, Json, Request, Source
from bridge.prepare import PreparedEvent, Preparer
from bridge.rules.language.values import shown
from bridge.text import text_of

if TYPE_CHECKING:
    from bridge.rules import RuleSet, RuleTrace
    from bridge.rules.reading.schema import ExpectedGoalStanza, TestCaseStanza
    from bridge.rules.ruleset import CompiledFile, Rule
    from bridge.settings import Settings

_HASH_KEY: Final = b"tests"


@dataclass(frozen=True, slots=True)
class TestResult:
    """message: empty if ok, else the expected and actual goals. also: further goals made by shipped rules."""

    __test__ = False  # pytest must not collect it

    file: str
    line: int
    name: str
    ok: bool
    message: str = ""
    also: tuple[str, ...] = ()


def run_tests(rule_set: RuleSet, settings: Settings, now_ms: int) -> tuple[TestResult, ...]:
    """Run the tests of all files, in order. now_ms: the arrival time of their events."""
    return tuple(
        _run(rule_set, settings, file, line, test, now_ms)
        for _, file in sorted(rule_set.mappings.items())
        for line, test in file.tests
    )


def failures(rule_set: RuleSet, settings: Settings, now_ms: int) -> list[str]:
    """The tests that fail, a line each: `mappings/stripe.yaml:13: test 'a sale': expected …`."""
    return [
        f"{result.file}:{result.line}: test {result.name!r}: {result.message}"
        for result in run_tests(rule_set, settings, now_ms)
        if not result.ok
    ]


def _run(
    rule_set: RuleSet, settings: Settings, file: CompiledFile, line: int, test: TestCaseStanza, now_ms: int
) -> TestResult:
    source = file.source
    table = rules.table(tuple(_rules(file, test)), file.when, source.values)
    preparer = Preparer(replace(rule_set, tables={source.name: table}), settings, {}, _HASH_KEY)
    prepared = _after(preparer.prepare_request(source, _request(source, test), now_ms, keys=test.key), test)
    result = TestResult(file.file, line, test.name, ok=False)
    if prepared.quarantine:
        return replace(result, message=f"the event would be put into quarantine: {prepared.quarantine}")
    message, also = _difference(test, prepared, {rule.id for rule in file.rules if rule.origin == "shipped"})
    return replace(result, ok=not message, message=message, also=also)


def _after(prepared: PreparedEvent, test: TestCaseStanza) -> PreparedEvent:
    """Add the goals that follow an earlier one, which the test names in `after`."""
    before = {*(test.after or ())}
    elements = []
    for element in prepared.elements:
        drafts = (
            draft for draft in element.following if draft.planned.follows and draft.planned.follows.goal in before
        )
        elements.append(replace(element, drafts=(*element.drafts, *drafts)))
    return replace(prepared, elements=tuple(elements))


def _rules(file: CompiledFile, test: TestCaseStanza) -> Iterator[Rule]:
    """The rules that take part: the enabled ones, and those that the test requests."""
    expected = {goal.goal for goal in test.goals}
    for rule in file.rules:
        if test.only is not None:
            if rule.id in test.only:
                yield replace(rule, enabled=True)
        elif rule.enabled or (rule.origin != "shipped" and expected & {rule.id, rule.name.literal}):
            yield replace(rule, enabled=True)


# ------------------------------------------------------------------------------------------------------ the request


def _request(source: Source, test: TestCaseStanza) -> Request:
    """The test's event as a request from its sender; its signature is not checked here."""
    path, query = f"/webhooks/{source.name}", urlencode(test.query)
    url = source.public_url or f"https://localhost{path}"
    return Request("POST", f"{url}?{query}" if query else url, path, query, test.headers, body_of(source, test.event))


def body_of(source: Source, event: Json) -> bytes:
    """An event as JSON, in the form in which this source sends bodies."""
    if source.body is BodyForm.JSON:
        return _encoded(event).encode("utf-8", "surrogatepass")
    if source.body is BodyForm.JSON_FIELD:
        return urlencode({source.body_field or "": _encoded(event)}).encode()
    fields = _flat(event) if isinstance(event, dict) else ()
    return urlencode(list(fields), errors="surrogatepass").encode()


def _encoded(value: Json) -> str:
    """JSON with numbers written as in the file: 4.10 stays 4.10."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_encoded(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_encoded, value)) + "]"
    return value.text if isinstance(value, ExactFloat) else json.dumps(value)


def _flat(event: Mapping[str, Json], above: str = "") -> Iterator[tuple[str, str]]:
    """The fields of a form: `{a: {b: 1}, c: [2], d: [{e: 3}]}` is `a[b]=1&c[]=2&d[0][e]=3`."""
    for key, value in event.items():
        name = f"{above}[{key}]" if above else key
        if isinstance(value, dict):
            yield from _flat(value, name)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield from _flat({str(position): item for position, item in enumerate(value)}, name)
        else:
            fields = [(f"{name}[]", item) for item in value] if isinstance(value, list) else [(name, value)]
            yield from ((field, text) for field, item in fields if (text := text_of(item)) is not None)


# ---------------------------------------------------------------------------------------------------- comparison


def _difference(test: TestCaseStanza, prepared: PreparedEvent, shipped: set[str]) -> tuple[str, tuple[str, ...]]:
    """The difference, or an empty string; and the goals of shipped rules that a layer's test does not expect."""
    drafts = [draft for element in prepared.elements for draft in element.drafts]
    left = sorted(drafts, key=lambda draft: draft.planned.rule_id in shipped)
    problems = []
    for expected in test.goals:
        same_name = [draft for draft in left if draft.planned.name == expected.goal]
        if not same_name:
            problems.append(f"expected the goal {expected.goal}, got {_names(drafts)}{_why(expected.goal, prepared)}")
            continue
        best = min(same_name, key=lambda draft: len(_mismatches(expected, draft)))
        problems += _mismatches(expected, best)
        left.remove(best)
    expected_names = ", ".join(goal.goal for goal in test.goals)
    expected_only = f"expected {expected_names}, but also got" if expected_names else "expected no goal, but got"
    problems += [
        f"{expected_only} {draft.planned.name} (rule {draft.planned.rule_id})"
        for draft in left
        if not problems and draft.planned.rule_id not in shipped
    ]
    also = (draft.planned.name for draft in left if draft.planned.rule_id in shipped)
    return "; ".join(problems), tuple(dict.fromkeys(also))


def _names(drafts: list[GoalDraft]) -> str:
    return ", ".join(draft.planned.name for draft in drafts) or "no goal"


def _why(name: str, prepared: PreparedEvent) -> str:
    """Why the rule for this goal did not make it, or why no rule was evaluated."""
    if prepared.ignored:
        return f" (the event is ignored: {prepared.ignored})"
    reasons = [rules.describe(trace) for trace in _traces(name, prepared, "condition", "failed", "follows")]
    reasons += [rules.describe(trace) for trace in _traces(name, prepared, "event")]
    return f" ({reasons[0]})" if reasons else ""


def _traces(name: str, prepared: PreparedEvent, *results: str) -> Iterator[RuleTrace]:
    for element in prepared.elements:
        for trace in element.evaluation.traces if element.evaluation else ():
            if name in (trace.goal, trace.rule_id) and trace.result in results:
                yield trace


def _mismatches(expected: ExpectedGoalStanza, draft: GoalDraft) -> list[str]:
    found, goal = [], draft.planned
    fields = expected.metadata if expected.payment is None else expected.payment
    if fields is not None:
        for key in sorted({*fields, *goal.metadata}):
            want, got = fields.get(key), goal.metadata.get(key)
            if want != got:
                found.append(f"{goal.name}: expected {key} {_quoted(want)}, got {_quoted(got)}")
    if expected.visitor is not None:
        got = next((named.visitor for named in draft.own if not named.borrowed), None)  # tests never ask DataFast
        if got != expected.visitor.lower():
            refused = f" ({draft.refused})" if got is None and draft.refused else ""
            found.append(f"{goal.name}: expected the visitor {expected.visitor}, got {_quoted(got)}{refused}")
    if expected.description is not None and expected.description != goal.description:
        found.append(f"{goal.name}: expected the description {expected.description}, got {_quoted(goal.description)}")
    return found


def _quoted(value: str | None) -> str:
    return "nothing" if value is None else f'"{shown(value)}"'
