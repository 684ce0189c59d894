"""An event and the rules of its source → planned goals, with a trace for every rule. Never raises.

Rules are indexed by event type, so a rule for another type costs nothing; of those for this type, a path that several
ask for is read once. A rule that fails is that rule's trace; the others go on. No clock, no random, no environment:
what this gives depends on its arguments alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from bridge.globs import is_glob
from bridge.masking import without_addresses
from bridge.model import MISSING, Document, NamedValues, PlannedGoal, Source
from bridge.rules.goals import Making, RuleFailedError
from bridge.rules.language.conditions import All, Condition, FieldTest, flat, shown_at
from bridge.rules.language.named import KEYED, with_values
from bridge.rules.language.values import Value, shown
from bridge.rules.ruleset import Evaluation, NearMiss, Rule, RuleSet, RuleTrace, Table
from bridge.text import text_of

IDLE_MAX: Final = 500
_NO_RULES: Final = Table((), (), {}, ())
_OFF: Final = "the rule is switched off (enabled: false)"


def table(rules: Sequence[Rule], when: All, values: NamedValues | None = None) -> Table:
    """Index the rules of one source. values: those that they may read."""
    exact: defaultdict[str, list[int]] = defaultdict(list)
    globs = []
    for position, rule in enumerate(rules):
        for event in rule.events:
            if not is_glob(event) and position not in exact[event]:
                exact[event].append(position)
        globs += [(glob, position) for glob in rule.globs]
    texts = [when.text, *(text for rule in rules for text in _texts(rule))]
    derives = any(map(_DERIVED.search, texts))
    return Table(
        rules=tuple(rules),
        conditions=tuple((*flat(when), *flat(rule.when)) for rule in rules),
        exact={event: tuple(positions) for event, positions in exact.items()},
        globs=tuple(globs),
        derives=derives,
        keyed=any(map(KEYED.search, texts)) or (derives and values is not None and values.keyed),
    )


_DERIVED: Final = re.compile(r"\b(?:value|was)[.\[]")


def for_type(rules: Table, event_type: str) -> list[tuple[Rule, tuple[Condition, ...]]]:
    """The rules for a type of event that are switched on, each with all its conditions."""
    found = ((rules.rules[position], rules.conditions[position]) for position in _positions(rules, event_type))
    return [(rule, conditions) for rule, conditions in found if rule.enabled]


def _texts(rule: Rule) -> Iterator[str]:
    """All that a rule reads, as its file says it."""
    yield rule.when.text
    yield from (template.text for template in (rule.name, rule.description) if template is not None)
    yield from (path.text for path in (*rule.once_per, *rule.visitor))
    if isinstance(rule.metadata, tuple):
        yield from (template.text for _, template in rule.metadata)
    else:
        yield rule.metadata.text


def evaluate(
    rule_set: RuleSet,
    source: Source,
    document: Document,
    *,
    event_name: str,
    mode: str,
    hash_key: bytes,
    near: bool = True,
) -> Evaluation:
    """What the rules of a source make of one document of an event.

    event_name: unique for this document within the source (the provider's event id, or our own): it stands in the once
    keys of rules without `once_per`. mode: `test` or `live`. hash_key: the key of the filter `hash`. near: whether the
    rule that came nearest is looked for where there is no goal. Never raises.
    """
    rules = rule_set.tables.get(source.name, _NO_RULES)
    event_type = text_of(document.envelope.get("type", MISSING)) or ""
    idle = _idle(rules, event_type)
    positions = _positions(rules, event_type)
    if not positions:
        return Evaluation((), idle)
    traces = list(idle)
    planned: list[PlannedGoal] = []
    following: list[PlannedGoal] = []
    if rules.derives:
        document = with_values(document, source, event_type, hash_key)
    making = Making(source, document, event_name, mode, hash_key)
    values: dict[str, Value] = {}  # what was read: path -> value, for all rules
    texts: dict[str, str] = {}  # the same as traces show it, where a rule missed it
    for position in positions:
        rule = rules.rules[position]
        if rule.enabled:
            goals = planned if rule.follows is None else following
            traces[position] = _judge(rule, rules.conditions[position], making, values, texts, goals)
        else:
            traces[position] = RuleTrace(rule.id, rule.goal, "disabled", message=_OFF, origin=rule.origin)
    miss = _nearest(rules, positions, traces, document) if near and not planned and not following else None
    return Evaluation(tuple(planned), tuple(traces), tuple(following), miss)


def _nearest(rules: Table, positions: tuple[int, ...], traces: list[RuleTrace], document: Document) -> NearMiss | None:
    try:
        return nearest(rules, positions, traces, document)
    except Exception:  # noqa: BLE001 - as of a rule: whatever a body does to it, the event is routed
        return None


def nearest(rules: Table, positions: Sequence[int], traces: Sequence[RuleTrace], document: Document) -> NearMiss | None:
    """Of an event without a goal: the rule that came nearest to making one, and the condition that kept it from it.

    Nearest is the rule of which the fewest conditions fail; among those one that is switched on, then the one of which
    the most conditions hold, then the first. Being switched off counts as a condition that fails. A rule that cannot
    come nearer is not asked again, so that many rules with one condition each cost little. positions: of the rules for
    this type. None where none of them was kept from its goal by a condition.
    """
    best: tuple[int, bool, int] | None = None
    found = -1
    for is_off, kept_by, least in ((False, "condition", 1), (True, "disabled", 0)):  # least: conditions that fail
        if best is not None and best[0] == 1:
            break  # no rule that is switched off comes nearer
        for position in positions:
            if traces[position].result != kept_by:
                continue
            conditions = rules.conditions[position]
            if best is not None and best <= (1, is_off, least - len(conditions)):
                continue  # it cannot come nearer, however few of its conditions fail
            failing = _failing(conditions, document) if is_off or len(conditions) > 1 else 1
            rank = (failing + is_off, is_off, failing - len(conditions))
            if best is None or rank < best:
                best, found = rank, position
    if best is None:
        return None
    trace, total = traces[found], len(rules.conditions[found])
    seen = (trace.path, trace.expected, trace.actual, trace.message, trace.origin)
    return NearMiss(trace.rule_id, trace.goal, best[0], total, *seen)


def _failing(conditions: Sequence[Condition], document: Document) -> int:
    return sum(condition.test(document) is not None for condition in conditions)


def _positions(rules: Table, event_type: str) -> tuple[int, ...]:
    """Which rules are for this type."""
    exact = rules.exact.get(event_type, ())
    if not rules.globs:
        return exact
    return tuple(sorted({*exact, *(position for glob, position in rules.globs if glob.matches(event_type))}))


def _idle(rules: Table, event_type: str) -> tuple[RuleTrace, ...]:
    """The traces of rules that are for other types. Threads may race to remember them: they remember the same."""
    found = rules.idle.get(event_type)
    if found is None:
        actual = shown(event_type)
        found = tuple(
            RuleTrace(
                rule.id, rule.goal, "event", "envelope.type", " or ".join(rule.events), actual, origin=rule.origin
            )
            for rule in rules.rules
        )
        if len(rules.idle) >= IDLE_MAX:
            rules.idle.clear()
        rules.idle[event_type] = found
    return found


def _judge(
    rule: Rule,
    conditions: tuple[Condition, ...],
    making: Making,
    values: dict[str, Value],
    texts: dict[str, str],
    goals: list[PlannedGoal],
) -> RuleTrace:
    """The trace of one rule that is switched on; its goal, if there is one, goes to `goals`."""
    document = making.document
    try:
        for condition in conditions:  # in one piece with what is around it: a hundred rules may have the same event
            if condition.__class__ is not FieldTest:
                failure = condition.test(document)
                if failure is not None:
                    return _missed(rule, failure.path, failure.expected, failure.actual)
                continue
            text = condition.path.text
            if text in values:
                value = values[text]
            else:
                value = values[text] = condition.path.read(document)
            if value.__class__ is str and condition.constant is not None:  # nearly every condition: text equals text
                if value == condition.constant:
                    continue
            elif condition.expectation.holds(value, document):
                continue
            if text not in texts:
                texts[text] = shown_at(text, shown(value))
            return _missed(rule, text, condition.expected, texts[text])
        goal = making.goal(rule)
    except Exception as error:  # noqa: BLE001 - whatever a body does to one rule, the others go on
        message = str(error) if isinstance(error, RuleFailedError) else f"the rule failed ({type(error).__name__})"
        return RuleTrace(rule.id, rule.goal, "failed", message=without_addresses(message), origin=rule.origin)
    goals.append(goal)
    return _made(rule, goal)


def _made(rule: Rule, goal: PlannedGoal) -> RuleTrace:
    if goal.follows is not None:
        message = f"would need {goal.follows.text}, made before"
        return RuleTrace(rule.id, goal.name, "follows", message=message, origin=rule.origin)
    return RuleTrace(rule.id, goal.name, "matched", notes=goal.notes, origin=rule.origin)


def _missed(rule: Rule, path: str, expected: str, actual: str) -> RuleTrace:
    """The trace of a condition that does not hold, made as `RuleTrace` makes it, without the call of Python's."""
    fields = (rule.id, rule.goal, "condition", path, expected, actual, None, (), rule.origin)
    return tuple.__new__(RuleTrace, fields)


def describe(trace: RuleTrace) -> str:
    """A trace as a sentence."""
    if trace.result == "condition":
        return f"{trace.path} is {trace.actual}, expected {trace.expected}"
    if trace.result == "event":
        return f"the rule is for {trace.expected}"
    return trace.message or trace.result
