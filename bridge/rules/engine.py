"""An event and the rules of its source → planned goals, with a trace for every rule. Never raises.

Rules are indexed by event type, so a rule for another type costs nothing. A rule that fails is that rule's trace; the
others go on. No clock, no random, no environment: what this gives depends on its arguments alone.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from bridge import limits
from bridge.model import MISSING, Candidate, Document, PlannedGoal, Source
from bridge.rules.filters import Scope
from bridge.rules.globs import is_glob
from bridge.rules.ruleset import Evaluation, Rule, RuleSet, RuleTrace, Table
from bridge.rules.templates import Placeholder, Template
from bridge.rules.values import json_in_text, shown, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bridge.model import Path
    from bridge.rules.conditions import All
    from bridge.rules.paths import CompiledPath

ONCE_VALUE_MAX: Final = 200
IDLE_MAX: Final = 500
_NOTHING: Final = Evaluation()


class RuleFailedError(Exception):
    """A rule cannot make its goal of this event; the message says why."""


def table(rules: Sequence[Rule], when: All, visitor: tuple[Path, ...]) -> Table:
    """Index the rules of one source."""
    exact: defaultdict[str, list[int]] = defaultdict(list)
    globs = []
    for position, rule in enumerate(rules):
        for event in rule.events:
            if not is_glob(event) and position not in exact[event]:
                exact[event].append(position)
        globs += [(glob, position) for glob in rule.globs]
    return Table(
        rules=tuple(rules),
        when=when,
        visitor=visitor,
        exact={event: tuple(positions) for event, positions in exact.items()},
        globs=tuple(globs),
    )


def _idle(rules: Table, event_type: str) -> tuple[RuleTrace, ...]:
    """The traces of rules that are for other types. Threads may race to remember them: they remember the same."""
    found = rules.idle.get(event_type)
    if found is None:
        actual = shown(event_type)
        found = tuple(
            RuleTrace(rule.id, rule.goal, "event", "envelope.type", " or ".join(rule.events), actual)
            for rule in rules.rules
        )
        if len(rules.idle) >= IDLE_MAX:
            rules.idle.clear()
        rules.idle[event_type] = found
    return found


def evaluate(
    rule_set: RuleSet, source: Source, document: Document, *, event_name: str, mode: str, hash_key: bytes
) -> Evaluation:
    """What the rules of a source make of one document of an event.

    event_name: unique for this document within the source (the provider's event id, or our own): it stands in the once
    keys of rules without `once_per`. mode: `test` or `live`. hash_key: the key of the filter `hash`. Never raises.
    """
    found = rule_set.tables.get(source.name)
    if found is None:
        return _NOTHING
    return evaluate_table(found, source, document, event_name=event_name, mode=mode, hash_key=hash_key)


def evaluate_table(
    rules: Table, source: Source, document: Document, *, event_name: str, mode: str, hash_key: bytes
) -> Evaluation:
    """`evaluate`, for one indexed set of rules."""
    event_type = text_of(document.envelope.get("type", MISSING)) or ""
    positions = rules.exact.get(event_type, ())
    if rules.globs:
        matching = [position for glob, position in rules.globs if glob.matches(event_type)]
        positions = tuple(sorted({*positions, *matching}))
    if not positions:
        return Evaluation((), _idle(rules, event_type))
    traces = list(_idle(rules, event_type))
    planned = []
    making = _Making(rules, source, document, event_name, mode, Scope(document, hash_key))
    for position in positions:
        trace, goal = making.of(rules.rules[position])
        traces[position] = trace
        if goal is not None:
            planned.append(goal)
    return Evaluation(tuple(planned), tuple(traces))


class _Making:
    """One event on its way through the rules that are for its type."""

    __slots__ = ("document", "event_name", "mode", "scope", "source", "table")

    def __init__(
        self, rules: Table, source: Source, document: Document, event_name: str, mode: str, scope: Scope
    ) -> None:
        self.table, self.source, self.document = rules, source, document
        self.event_name, self.mode, self.scope = event_name, mode, scope

    def of(self, rule: Rule) -> tuple[RuleTrace, PlannedGoal | None]:
        if not rule.enabled:
            return RuleTrace(rule.id, rule.goal, "disabled", message="the rule is switched off (enabled: false)"), None
        try:
            failure = self.table.when.test(self.document) or rule.when.test(self.document)
            if failure is not None:
                return RuleTrace(rule.id, rule.goal, "condition", failure.path, failure.expected, failure.actual), None
            goal = self._goal(rule)
        except RuleFailedError as error:
            return RuleTrace(rule.id, rule.goal, "failed", message=str(error)), None
        except Exception as error:  # noqa: BLE001 - whatever a body does to one rule, the others go on
            return RuleTrace(rule.id, rule.goal, "failed", message=f"the rule failed ({type(error).__name__})"), None
        return RuleTrace(rule.id, goal.name, "matched", notes=goal.notes), goal

    def _goal(self, rule: Rule) -> PlannedGoal:
        name, notes = self._name(rule)
        metadata, more = limits.fit_metadata(self._metadata(rule.metadata))
        description, cut = self._description(rule)
        once_key, once = self._once_key(rule, name)
        return PlannedGoal(
            rule_id=rule.id,
            name=name,
            description=description,
            metadata=metadata,
            once_key=once_key,
            destination=rule.destination,
            candidates=self._candidates(rule),
            max_age_ms=rule.max_age_ms,
            wait_ms=rule.wait_ms,
            notes=(*notes, *more, *cut, *once),
        )

    def _name(self, rule: Rule) -> tuple[str, tuple[str, ...]]:
        text = rule.name.render(self.scope)
        if text is None:
            raise RuleFailedError(f"the goal's name needs {rule.name.first_missing(self.scope)}, which has no value")
        if rule.name.literal is not None:
            return text, ()
        try:
            return limits.fit_goal_name(text)
        except ValueError as error:
            raise RuleFailedError(f"{error}") from None

    def _metadata(self, metadata: tuple[tuple[str, Template], ...] | Placeholder) -> Iterable[tuple[str, str]]:
        if isinstance(metadata, Placeholder):
            return _entries(metadata, self.document)
        rendered = ((key, template.render(self.scope)) for key, template in metadata)
        return [(key, text) for key, text in rendered if text is not None]

    def _description(self, rule: Rule) -> tuple[str | None, tuple[str, ...]]:
        if rule.description is None:
            return None, ()
        text, notes = limits.fit_description(rule.description.render(self.scope, missing="") or "")
        return text or None, notes

    def _once_key(self, rule: Rule, name: str) -> tuple[str, tuple[str, ...]]:
        """*source : mode : goal name : value*; without a value *source : event : rule id*."""
        for alternative in rule.once_per:
            value = self._once_value(alternative)
            if value:
                return f"{self.source.name}:{self.mode}:{name}:{bounded(value)}", ()
        reason = "once_per has no value" if rule.once_per else "the rule has no once_per"
        return f"{self.source.name}:{self.event_name}:{rule.id}", (f"{reason}: at most one goal per event",)

    def _once_value(self, alternative: CompiledPath | Template) -> str | None:
        if isinstance(alternative, Template):
            return alternative.render(self.scope)
        return text_of(alternative.read(self.document))

    def _candidates(self, rule: Rule) -> tuple[Candidate, ...]:
        """Every visitor path that gives a value: the rule's, then the file's."""
        paths = (*rule.visitor, *self.table.visitor) if rule.visitor else self.table.visitor
        found: dict[str, Candidate] = {}
        for path in paths:
            value = path.read(self.document)
            if value is not MISSING and path.text not in found:
                found[path.text] = Candidate(path.text, value)
        return tuple(found.values())


def _entries(placeholder: Placeholder, document: Document) -> list[tuple[str, str]]:
    """The scalar entries of the first of the objects that is there."""
    for path in placeholder.paths:
        value = path.whole(document)
        if isinstance(value, str):
            value = json_in_text(value)
        if isinstance(value, dict) and value:
            pairs = ((key, text_of(inner)) for key, inner in value.items())
            return [(key, text) for key, text in pairs if text]
    return []


def bounded(value: str) -> str:
    """A once value of any length as one that an index takes: the rest of a long one becomes its hash."""
    if len(value) <= ONCE_VALUE_MAX:
        return value
    return value[:ONCE_VALUE_MAX] + "…" + hashlib.sha256(value.encode()).hexdigest()[:32]


def describe(trace: RuleTrace) -> str:
    """A trace as a sentence."""
    if trace.result == "condition":
        return f"{trace.path} is {trace.actual}, expected {trace.expected}"
    if trace.result == "event":
        return f"the rule is for {trace.expected}"
    return trace.message or trace.result
