"""The rules in force: their origin, purpose and last goal; and the events received that no rule uses.

A rule has fired if it made a goal; an event whose goal an earlier event had already made does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from bridge.rules.language.conditions import flat
from bridge.sources.events import BATCH
from bridge.store.operator import queries, tallies
from bridge.text import count, listing, span
from bridge.workbench import trace

if TYPE_CHECKING:
    from bridge.model import Json
    from bridge.rules import Rule, RuleSet
    from bridge.rules.ruleset import CompiledFile
    from bridge.store import Store
    from bridge.store.operator.tallies import LastGoal, TypeTally

_OPERATOR: Final = re.compile(r"\bis (not )?(gte?|lte?|prefix|suffix|contains) ")
_WORDS: Final = {
    "gt": ("is more than ", "is not more than "),
    "gte": ("is at least ", "is not at least "),
    "lt": ("is less than ", "is not less than "),
    "lte": ("is at most ", "is not at most "),
    "prefix": ("begins with ", "does not begin with "),
    "suffix": ("ends with ", "does not end with "),
    "contains": ("contains ", "does not contain "),
}


@dataclass(frozen=True, slots=True)
class TypeCoverage:
    """The events of one type. rules: its enabled rules; off: its disabled ones. known: whether its source is.

    A batch of several types counts as used, because it cannot be determined.
    """

    source: str
    type: str
    events: int
    last_at_ms: int
    rules: tuple[str, ...]
    off: tuple[str, ...]
    known: bool = True
    batch: bool = False

    @property
    def used(self) -> bool:
        return bool(self.rules) or self.batch


@dataclass(frozen=True, slots=True)
class RuleCoverage:
    """What one rule made. events: how many events of its types arrived, except in batches.

    trace: its trace for the newest of these events (`bridge.rules.RuleTrace`, as JSON), and which event that is.
    """

    source: str
    rule: str
    goal: str
    origin: str
    enabled: bool
    types: tuple[str, ...]
    events: int
    goals: int
    last_at_ms: int | None
    trace: Mapping[str, Json] | None = None
    event_id: int | None = None

    @property
    def called(self) -> str:
        """The rule's id; in a layer, with its origin."""
        return trace.with_origin(self.rule, self.origin)

    @property
    def why(self) -> str:
        """Why the rule made no goal."""
        if not self.events:
            return f"no {listing(list(self.types), last='or')} arrived"
        if self.trace is None:
            return f"ev_{self.event_id}: routed before this rule was in force, or its trace is no longer stored"
        if self.trace["result"] == "matched":
            return f"ev_{self.event_id}: matched, but the goal {self.trace['goal']} had been made before"
        return f"ev_{self.event_id}: {trace.rule_sentence(self.trace)}"


@dataclass(frozen=True, slots=True)
class Coverage:
    events: int
    types: tuple[TypeCoverage, ...]
    rules: tuple[RuleCoverage, ...]

    @property
    def unused(self) -> tuple[TypeCoverage, ...]:
        """The types that no rule uses, the most frequent first."""
        found = (coverage for coverage in self.types if not coverage.used)
        return tuple(sorted(found, key=lambda coverage: (-coverage.events, coverage.source, coverage.type)))

    @property
    def idle(self) -> tuple[RuleCoverage, ...]:
        """The enabled rules that made no goal."""
        return tuple(rule for rule in self.rules if rule.enabled and not rule.goals)

    def summary(self, since: int) -> str:
        """The result in a sentence. since: how many ms it covers."""
        on = sum(rule.enabled for rule in self.rules)
        unused = f"no rule uses {count(len(self.unused), 'type')}" if self.unused else "every type has a rule"
        arrived = (
            f"{count(self.events, 'event')} of {count(len(self.types), 'type')} in the last {span(since)}: {unused}"
        )
        if not self.events:
            arrived = f"No event arrived in the last {span(since)}"
        return f"{arrived}; {len(self.idle)} of {count(on, 'rule')} made no goal."

    def note(self, unused: TypeCoverage) -> str:
        """A note about a type that no rule uses."""
        if unused.off:
            called = {rule.rule: rule.called for rule in self.rules if rule.source == unused.source}
            return f"switched off: {listing([called[rule] for rule in unused.off])}"
        return "" if unused.known else "there is no mapping file"


def coverage(store: Store, rule_set: RuleSet, since_ms: int) -> Coverage:
    """Compare the rules with the events and goals since then."""
    with store.read() as conn:
        types = tallies.types(conn, since_ms)
        by_rule = {(tally.source, tally.rule_id): tally for tally in tallies.rules(conn, since_ms)}
        rules = []
        for source, rule in rule_set.each_rule():
            matching = [tally for tally in types if tally.source == source and is_for(rule, tally.type)]
            made = by_rule.get((source, rule.id))
            newest = max((tally.last_id for tally in matching), default=None)
            rules.append(
                RuleCoverage(
                    source,
                    rule.id,
                    rule.goal,
                    rule.origin,
                    bool(rule.enabled),
                    rule.events,
                    sum(tally.events for tally in matching),
                    made.goals if made else 0,
                    made.last_at_ms if made else None,
                    event_id=newest if made is None and rule.enabled else None,
                )
            )
        traces = queries.traces_of(conn, sorted({rule.event_id for rule in rules if rule.event_id is not None}))
    rules = [replace(rule, trace=_rule_trace(traces.get(rule.event_id or 0), rule.rule)) for rule in rules]
    used = tuple(_type(rule_set, tally) for tally in types)
    return Coverage(sum(tally.events for tally in types), used, tuple(rules))


def is_for(rule: Rule, event_type: str) -> bool:
    """Whether a rule is for events of this type."""
    return event_type in rule.events or any(glob.matches(event_type) for glob in rule.globs)


def _type(rule_set: RuleSet, tally: TypeTally) -> TypeCoverage:
    source = rule_set.sources.get(tally.source)
    rules = [rule for rule in rule_set.rules.get(tally.source, ()) if is_for(rule, tally.type)]
    return TypeCoverage(
        tally.source,
        tally.type,
        tally.events,
        tally.last_at_ms,
        tuple(rule.id for rule in rules if rule.enabled),
        tuple(rule.id for rule in rules if not rule.enabled),
        source is not None,
        source is not None and source.each is not None and tally.type == BATCH,
    )


def _rule_trace(found: Json, rule_id: str) -> Mapping[str, Json] | None:
    """The rule's part of an event's trace."""
    for element in (found or {}).get("elements", ()):
        for rule in element.get("rules", ()):
            if rule.get("rule") == rule_id and rule.get("result") != "event":
                rule_trace: Mapping[str, Json] = rule
                return rule_trace
    return None


# ---------------------------------------------------------------------------------------------- the rules themselves


@dataclass(frozen=True, slots=True)
class RuleOverview:
    """One rule. origin: in a layer `shipped`, `override` or `added`. state: `on`, `disabled` or `dry`.

    conditions: in words; all must hold. last: its newest goal; None if it never made one.
    """

    rule: Rule
    origin: str
    state: str
    conditions: tuple[str, ...]
    last: LastGoal | None


@dataclass(frozen=True, slots=True)
class SourceOverview:
    """The rules of one mapping file. extends: the shipped file below a layer."""

    source: str
    provider: str
    file: str
    extends: str | None
    rules: tuple[RuleOverview, ...]

    @property
    def on(self) -> list[RuleOverview]:
        return [rule for rule in self.rules if rule.state != "disabled"]

    @property
    def disabled(self) -> list[RuleOverview]:
        return [rule for rule in self.rules if rule.state == "disabled"]


def overview(rule_set: RuleSet, goals: Iterable[LastGoal]) -> tuple[SourceOverview, ...]:
    """Every source with its rules, in the order of the files."""
    last = {(goal.source, goal.rule_id): goal for goal in goals}
    return tuple(_source(name, rule_set.mappings[name], last) for name in sorted(rule_set.mappings))


def _source(name: str, file: CompiledFile, last: Mapping[tuple[str, str], LastGoal]) -> SourceOverview:
    rules = tuple(_rule(rule, file, last.get((name, rule.id))) for rule in file.rules)
    return SourceOverview(name, file.source.provider, PurePath(file.file).name, file.extends, rules)


def _rule(rule: Rule, file: CompiledFile, last: LastGoal | None) -> RuleOverview:
    return RuleOverview(
        rule,
        trace.origin_in_words(rule.origin),
        "disabled" if not rule.enabled else "dry" if rule.dry else "on",
        tuple(_in_words(condition.text) for condition in (*flat(file.when), *flat(rule.when))),
        last,
    )


def _in_words(condition: str) -> str:
    """`is gt 0` in words. `not more than` instead of `at most`: a missing value is not more, either."""
    return _OPERATOR.sub(lambda match: _WORDS[match[2]][bool(match[1])], condition)
