"""Which event types no rule uses, and which rules made no goal: the present rules against what came.

A rule counts as having fired when it made a goal; that an earlier event had made the same goal does not count again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.store.operator import tallies
from bridge.text import count, listing, span
from bridge.workbench import trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridge.model import Json
    from bridge.rules import Rule, RuleSet
    from bridge.store import Store
    from bridge.store.operator.tallies import TypeTally

_BATCH: Final = "batch"  # the type of a delivery whose events are of several types


@dataclass(frozen=True, slots=True)
class TypeCoverage:
    """The events of one type. rules: those for it that are switched on; off: those that are not. known: its source is.

    A batch of several types is used, as far as anybody can say.
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
    """What one rule made. events: how many came that it is for, without those in batches.

    trace: what it said of the newest of these events (`bridge.rules.RuleTrace`, as JSON), and which event that is.
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
        """The rule by its id; in a layer, whose it is."""
        return f"{self.rule} ({self.origin})" if self.origin else self.rule

    @property
    def why(self) -> str:
        """Why it made no goal."""
        if not self.events:
            return f"no {' or '.join(self.types)} came"
        if self.trace is None:
            return "its events came; what it said of the newest is not kept"
        return f"ev_{self.event_id}: {trace.rule_sentence(self.trace)}"


@dataclass(frozen=True, slots=True)
class Coverage:
    events: int
    types: tuple[TypeCoverage, ...]
    rules: tuple[RuleCoverage, ...]

    @property
    def unused(self) -> tuple[TypeCoverage, ...]:
        """The types that no rule uses, the most frequent first."""
        found = (one for one in self.types if not one.used)
        return tuple(sorted(found, key=lambda one: (-one.events, one.source, one.type)))

    @property
    def idle(self) -> tuple[RuleCoverage, ...]:
        """The rules that are switched on and made no goal."""
        return tuple(rule for rule in self.rules if rule.enabled and not rule.goals)

    def summary(self, since: int) -> str:
        """What was found, in a sentence. since: how many ms it covers."""
        on = sum(rule.enabled for rule in self.rules)
        return (
            f"{count(self.events, 'event')} of {count(len(self.types), 'type')} in the last {span(since)}:"
            f" no rule uses {count(len(self.unused), 'type')}; {len(self.idle)} of {count(on, 'rule')} made no goal."
        )

    def note(self, unused: TypeCoverage) -> str:
        """What is to be said of a type that no rule uses."""
        if unused.off:
            called = {rule.rule: rule.called for rule in self.rules if rule.source == unused.source}
            return f"switched off: {listing([called[rule] for rule in unused.off])}"
        return "" if unused.known else "there is no mapping file"


def coverage(store: Store, rule_set: RuleSet, since_ms: int) -> Coverage:
    """The rules against the events and goals since then."""
    with store.read() as conn:
        came = tallies.types(conn, since_ms)
        made = {(one.source, one.rule_id): one for one in tallies.rules(conn, since_ms)}
        rules = []
        for source, rule in _all(rule_set):
            mine = [one for one in came if one.source == source and is_for(rule, one.type)]
            tally = made.get((source, rule.id))
            newest = max((one.last_id for one in mine), default=None)
            looked_into = newest is not None and tally is None and rule.enabled
            rules.append(
                RuleCoverage(
                    source,
                    rule.id,
                    rule.goal,
                    rule.origin,
                    bool(rule.enabled),
                    rule.events,
                    sum(one.events for one in mine),
                    tally.goals if tally else 0,
                    tally.last_at_ms if tally else None,
                    _said(tallies.trace(conn, newest), rule.id) if looked_into and newest else None,
                    newest if looked_into else None,
                )
            )
    types = tuple(_type(rule_set, one) for one in came)
    return Coverage(sum(one.events for one in came), types, tuple(rules))


def is_for(rule: Rule, event_type: str) -> bool:
    """Whether a rule is for events of this type."""
    return event_type in rule.events or any(glob.matches(event_type) for glob in rule.globs)


def _type(rule_set: RuleSet, came: TypeTally) -> TypeCoverage:
    source = rule_set.sources.get(came.source)
    mine = [rule for rule in rule_set.rules.get(came.source, ()) if is_for(rule, came.type)]
    return TypeCoverage(
        came.source,
        came.type,
        came.events,
        came.last_at_ms,
        tuple(rule.id for rule in mine if rule.enabled),
        tuple(rule.id for rule in mine if not rule.enabled),
        source is not None,
        source is not None and source.each is not None and came.type == _BATCH,
    )


def _all(rule_set: RuleSet) -> Iterator[tuple[str, Rule]]:
    for source in sorted(rule_set.rules):
        for rule in rule_set.rules[source]:
            yield source, rule


def _said(trace: Json, rule_id: str) -> Mapping[str, Json] | None:
    """What the rule said of an event, by the event's trace."""
    for element in (trace or {}).get("elements", ()):
        for rule in element.get("rules", ()):
            if rule.get("rule") == rule_id and rule.get("result") != "event":
                found: Mapping[str, Json] = rule
                return found
    return None
