"""The rules in force, source by source: whose each rule is, what it is for, and when it last made a goal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from bridge.rules.language.conditions import flat

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.rules import Rule, RuleSet
    from bridge.rules.ruleset import CompiledFile
    from bridge.store.operator.tallies import LastGoal

_ORIGINS: Final = {"shipped": "shipped", "override": "override", "layer": "added", "like": "added"}
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
class RuleOverview:
    """One rule. origin: in a layer `shipped`, `override` or `added`. state: `on`, `disabled` or `dry`.

    conditions: in words, all of which must hold. last: the newest of its goals; None if it never made one.
    """

    id: str
    goal: str
    origin: str
    state: str
    is_payment: bool
    notify: bool
    events: tuple[str, ...]
    conditions: tuple[str, ...]
    follows: str | None
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
    """Every source with its rules, in the order of their files."""
    last = {(goal.source, goal.rule_id): goal for goal in goals}
    return tuple(_source(name, rule_set.mappings[name], last) for name in sorted(rule_set.mappings))


def _source(name: str, file: CompiledFile, last: Mapping[tuple[str, str], LastGoal]) -> SourceOverview:
    rules = tuple(_rule(rule, file, last.get((name, rule.id))) for rule in file.rules)
    return SourceOverview(name, file.source.provider, PurePath(file.file).name, file.extends, rules)


def _rule(rule: Rule, file: CompiledFile, last: LastGoal | None) -> RuleOverview:
    return RuleOverview(
        rule.id,
        rule.goal,
        _ORIGINS.get(rule.origin, ""),
        "disabled" if not rule.enabled else "dry" if rule.dry else "on",
        rule.kind != "goal",
        rule.notify,
        rule.events,
        tuple(_in_words(condition.text) for condition in (*flat(file.when), *flat(rule.when))),
        rule.follows,
        last,
    )


def _in_words(condition: str) -> str:
    """`is gt 0` as a sentence has it. `not more than`, and never `at most`: a missing value is not more, either."""
    return _OPERATOR.sub(lambda found: _WORDS[found[2]][bool(found[1])], condition)
