"""An event and the rules of its source → planned goals, with a trace for every rule. Never raises.

Rules are indexed by event type, so rules for other types cost nothing; a path that several rules read is read once. If
a rule fails, its trace says so and the others go on. Values that DataFast would refuse are adapted here, and every
change becomes a note in the trace. No clock, randomness or environment: the result depends only on the arguments.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge import limits
from bridge.globs import is_glob
from bridge.masking import without_addresses
from bridge.model import MISSING, Candidate, Document, Follows, NamedValues, Path, PlannedGoal, Source
from bridge.rules.language.conditions import All, Condition, FieldTest, flat, shown_at
from bridge.rules.language.filters import Scope, instant, slug
from bridge.rules.language.templates import KEYED, Placeholder, Template, with_values
from bridge.rules.language.values import Value, json_in_text, shown
from bridge.rules.ruleset import Evaluation, NearMiss, Rule, RuleSet, RuleTrace, Table
from bridge.text import text_of

if TYPE_CHECKING:
    from bridge.rules.language.paths import CompiledPath

IDLE_MAX: Final = 500
ONCE_VALUE_MAX: Final = 200
_UUID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)
_PRICE_ID: Final = re.compile(  # elsewhere, `price_changed` is an ordinary word
    r"\b(?:price|prod)_(?=[A-Za-z]*[0-9])(?=[a-z0-9]*[A-Z])[A-Za-z0-9]{14,}\b", re.ASCII
)
_NO_RULES: Final = Table((), (), {}, ())
_OFF: Final = "the rule is switched off (enabled: false)"


def table(rules: Sequence[Rule], when: All, values: NamedValues | None = None) -> Table:
    """Index the rules of one source. values: the named values that they may read."""
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
    """The enabled rules for an event type, each with all its conditions."""
    found = ((rules.rules[position], rules.conditions[position]) for position in _positions(rules, event_type))
    return [(rule, conditions) for rule, conditions in found if rule.enabled]


def _texts(rule: Rule) -> Iterator[str]:
    """Everything that a rule reads, as written in its file."""
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
    """Evaluate the rules of a source on one document of an event. Never raises.

    - event_name: the document's name, unique within the source: the provider's event id, or ours. It is part of the
      once keys of rules without `once_per`.
    - mode: `test` or `live`. hash_key: for the filter `hash`.
    - near: whether to look for the rule that came nearest if there is no goal.
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
    builder = GoalBuilder(source, document, event_name, mode, hash_key)
    values: dict[str, Value] = {}  # path -> value read, shared by all rules
    texts: dict[str, str] = {}  # the same as shown in traces, for failed conditions
    for position in positions:
        rule = rules.rules[position]
        if rule.enabled:
            goals = planned if rule.follows is None else following
            traces[position] = _judge(rule, rules.conditions[position], builder, values, texts, goals)
        else:
            traces[position] = RuleTrace(rule.id, rule.goal, "disabled", message=_OFF, origin=rule.origin)
    miss = _nearest(rules, positions, traces, document) if near and not planned and not following else None
    return Evaluation(tuple(planned), tuple(traces), tuple(following), miss)


def _nearest(rules: Table, positions: tuple[int, ...], traces: list[RuleTrace], document: Document) -> NearMiss | None:
    try:
        return nearest(rules, positions, traces, document)
    except Exception:  # noqa: BLE001 - as for a rule: whatever the body causes, the event is routed
        return None


def nearest(rules: Table, positions: Sequence[int], traces: Sequence[RuleTrace], document: Document) -> NearMiss | None:
    """For an event without a goal: the rule that came nearest to making one, and the condition that failed.

    Nearest is the rule with the fewest failing conditions; ties go to enabled rules, then to the most conditions that
    hold, then to the first rule. Being switched off counts as a failing condition. A rule that cannot come nearer is
    not evaluated again, so that many rules with one condition each cost little. positions: of the rules for this type.
    None if no rule failed because of a condition.
    """
    best: tuple[int, bool, int] | None = None
    found = -1
    for is_off, result, least in ((False, "condition", 1), (True, "disabled", 0)):  # least: conditions that fail
        for position in positions:
            if traces[position].result != result:
                continue
            conditions = rules.conditions[position]
            if best is not None and best <= (1, is_off, least - len(conditions)):
                continue  # it cannot come nearer, however few conditions fail
            failing = _failing(conditions, document) if is_off or len(conditions) > 1 else 1
            rank = (failing + is_off, is_off, failing - len(conditions))
            if best is None or rank < best:
                best, found = rank, position
    if best is None:
        return None
    return NearMiss(traces[found], best[0], len(rules.conditions[found]))


def _failing(conditions: Sequence[Condition], document: Document) -> int:
    return sum(condition.test(document) is not None for condition in conditions)


def _positions(rules: Table, event_type: str) -> tuple[int, ...]:
    """The positions of the rules for this type."""
    exact = rules.exact.get(event_type, ())
    if not rules.globs:
        return exact
    return tuple(sorted({*exact, *(position for glob, position in rules.globs if glob.matches(event_type))}))


def _idle(rules: Table, event_type: str) -> tuple[RuleTrace, ...]:
    """The traces of rules for other types. Threads may race to cache them, because they cache equal values."""
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
    builder: GoalBuilder,
    values: dict[str, Value],
    texts: dict[str, str],
    goals: list[PlannedGoal],
) -> RuleTrace:
    """The trace of one enabled rule; its goal, if any, is appended to `goals`."""
    document = builder.document
    try:
        for condition in conditions:  # inlined for speed: a hundred rules may be for the same event
            if condition.__class__ is not FieldTest:
                failure = condition.test(document)
                if failure is not None:
                    return _trace_of_failure(rule, failure.path, failure.expected, failure.actual)
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
            return _trace_of_failure(rule, text, condition.expected, texts[text])
        goal = builder.goal(rule)
    except Exception as error:  # noqa: BLE001 - whatever the body causes in one rule, the others go on
        message = str(error) if isinstance(error, RuleFailedError) else f"the rule failed ({type(error).__name__})"
        return RuleTrace(rule.id, rule.goal, "failed", message=without_addresses(message), origin=rule.origin)
    goals.append(goal)
    return _trace_of_goal(rule, goal)


def _trace_of_goal(rule: Rule, goal: PlannedGoal) -> RuleTrace:
    if goal.follows is not None:
        message = f"would need {goal.follows.text}, made before"
        return RuleTrace(rule.id, goal.name, "follows", message=message, origin=rule.origin)
    return RuleTrace(rule.id, goal.name, "matched", notes=goal.notes, origin=rule.origin)


def _trace_of_failure(rule: Rule, path: str, expected: str, actual: str) -> RuleTrace:
    """The trace of a failed condition, built like `RuleTrace` builds it, but without the cost of its constructor."""
    fields = (rule.id, rule.goal, "condition", path, expected, actual, None, (), rule.origin)
    return tuple.__new__(RuleTrace, fields)


def describe(trace: RuleTrace) -> str:
    """A trace as a sentence."""
    if trace.result == "condition":
        return f"{trace.path} is {trace.actual}, expected {trace.expected}"
    if trace.result == "event":
        return f"the rule is for {trace.expected}"
    return trace.message or trace.result


# ------------------------------------------------------------------------------------ the goal of a rule that holds


class RuleFailedError(Exception):
    """A rule cannot make its goal from this event; the message says why."""


class GoalBuilder:
    """One event from which rules make goals."""

    __slots__ = ("document", "event_name", "mode", "scope", "source")

    def __init__(self, source: Source, document: Document, event_name: str, mode: str, hash_key: bytes) -> None:
        self.source, self.document = source, document
        self.event_name, self.mode, self.scope = event_name, mode, Scope(document, hash_key, source.decimals)

    def goal(self, rule: Rule) -> PlannedGoal:
        """The goal of a rule. Raises RuleFailedError if it cannot be made."""
        name, notes = self._name(rule)
        metadata, more = self._payment(rule) if rule.kind == limits.PAYMENT else self._fitted(rule)
        description, cut = self._description(rule)
        once_key, once, value = self._once_key(rule, name, metadata)
        return PlannedGoal(
            rule_id=rule.id,
            name=name,
            description=description,
            metadata=metadata,
            once_key=once_key,
            destination=rule.destination,
            candidates=_candidates(rule.visitor, self.document) if rule.visitor else (),
            max_age_ms=rule.max_age_ms,
            wait_ms=rule.wait_ms,
            notes=(*notes, *more, *cut, *once),
            kind=rule.kind,
            origin=rule.origin,
            dry=rule.dry,
            notify=rule.notify,
            follows=None if rule.follows is None else self._follows(rule.follows, value),
        )

    def _name(self, rule: Rule) -> tuple[str, tuple[str, ...]]:
        text = rule.name.render(self.scope)
        if text is None:
            raise RuleFailedError(f"the goal's name needs {rule.name.first_missing(self.scope)}, which has no value")
        if rule.name.literal is not None:
            return text, ()
        self._refuse_ids(rule.name)
        try:
            return limits.fit_goal_name(text)
        except ValueError as error:
            raise RuleFailedError(f"{error}") from None

    def _refuse_ids(self, name: Template) -> None:
        """An id in the name would make a separate, meaningless goal for every price or person."""
        for placeholder in name.placeholders:
            path, bar, filters = placeholder.text[1:-1].partition("|")
            found = self._id_after_filters(placeholder) if filters else None
            if found is not None:
                better = f"{path}|map:names{bar}{filters}"
            else:
                found = id_in(text_of(placeholder.value(self.scope)) or "", self.source.object_ids)
                better = f"{placeholder.text[1:-1]}|map:names"
            if found is not None:
                raise RuleFailedError(
                    f"the goal's name would hold the id {found}: give it a name in maps and write"
                    f" {{{better}}}, with maps: {{names: {{{found}: pro}}}}"
                )

    def _id_after_filters(self, placeholder: Placeholder) -> str | None:
        """The id that is left after the filters, unchanged or as `slug` writes it: price_1Lab as price-1lab."""
        found = id_in(text_of(placeholder.unfiltered(self.scope)) or "", self.source.object_ids)
        kept = found is not None and slug(found) in slug(text_of(placeholder.value(self.scope)) or "")
        return found if kept else None

    def _fitted(self, rule: Rule) -> tuple[dict[str, str], tuple[str, ...]]:
        return limits.fit_metadata(self._metadata(rule.metadata))

    def _payment(self, rule: Rule) -> tuple[dict[str, str], tuple[str, ...]]:
        """The fields of a payment. Raises RuleFailedError if one that DataFast requires is missing or wrong."""
        fields = dict(rule.metadata) if isinstance(rule.metadata, tuple) else {}
        texts = {name: text for name, template in fields.items() if (text := template.render(self.scope)) is not None}
        for name in limits.PAYMENT_NEEDS:
            if name not in texts:
                raise RuleFailedError(
                    f"the payment's {name} needs {fields[name].first_missing(self.scope)}, which has no value"
                )
        if "timestamp" in texts:
            moment = instant(texts["timestamp"])
            texts["timestamp"] = "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            return limits.fit_payment(texts.items())
        except ValueError as error:
            raise RuleFailedError(f"{error}") from None

    def _metadata(self, metadata: tuple[tuple[str, Template], ...] | Placeholder) -> Iterable[tuple[str, str]]:
        if isinstance(metadata, Placeholder):
            return _entries(metadata, self.document)
        scope = self.scope
        return [(key, text) for key, template in metadata if (text := template.render(scope)) is not None]

    def _description(self, rule: Rule) -> tuple[str | None, tuple[str, ...]]:
        if rule.description is None:
            return None, ()
        text, notes = limits.fit_description(rule.description.render(self.scope, missing="") or "")
        return text or None, notes

    def _once_key(self, rule: Rule, name: str, metadata: Mapping[str, str]) -> tuple[str, tuple[str, ...], str | None]:
        """The once key, notes, and the once value.

        The key is *source : mode : goal name : value*; without a value it is *source : event : rule id*.
        A payment is unique by its transaction and by whether it is a refund, because both are sent; no goal has such a
        name.
        """
        if rule.kind == limits.PAYMENT:
            name = f"{name} refunded" if "refunded" in metadata else name
            if not rule.once_per:
                return self._key_of(name, metadata["transaction_id"]), (), metadata["transaction_id"]
        for alternative in rule.once_per:
            value = self._once_value(alternative)
            if value:
                return self._key_of(name, value), (), value
        reason = "once_per has no value" if rule.once_per else "the rule has no once_per"
        return f"{self.source.name}:{self.event_name}:{rule.id}", (f"{reason}: at most one goal per event",), None

    def _key_of(self, name: str, value: str) -> str:
        return f"{self.source.name}:{self.mode}:{name}:{bounded(value)}"

    def _follows(self, name: str, value: str | None) -> Follows:
        """The goal that must exist already: the same source, mode and once value under another name."""
        if value is None:
            raise RuleFailedError(f"once_per has no value, so it is not known which {name} this goal follows")
        return Follows(name, self._key_of(name, value), value)

    def _once_value(self, alternative: CompiledPath | Template) -> str | None:
        if isinstance(alternative, Template):
            return alternative.render(self.scope)
        return text_of(alternative.read(self.document))


def id_in(text: str, object_ids: tuple[str, ...]) -> str | None:
    """The id in a string meant for (a part of) a goal's name: a UUID, or the id of a price or product."""
    uuid = _UUID.search(text)
    if uuid is not None:
        return uuid[0]
    found = _with_prefix(object_ids).search(text) if object_ids else None
    return (found or _PRICE_ID.search(text) or (None,))[0]


@lru_cache(maxsize=64)
def _with_prefix(object_ids: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, object_ids))})\w+", re.ASCII)


def _candidates(paths: Iterable[Path], document: Document) -> tuple[Candidate, ...]:
    """The values at visitor paths, in order."""
    found = ((path.text, path.read(document)) for path in paths)
    return tuple(Candidate(text, value) for text, value in found if value is not MISSING)


def _entries(placeholder: Placeholder, document: Document) -> list[tuple[str, str]]:
    """The scalar entries of the first object that exists."""
    for path in placeholder.paths:
        value = path.whole(document)
        if isinstance(value, str):
            value = json_in_text(value)
        if isinstance(value, dict) and value:
            pairs = ((key, text_of(inner)) for key, inner in value.items())
            return [(key, text) for key, text in pairs if text]
    return []


def bounded(value: str) -> str:
    """A once value short enough for an index: the rest of a long one is replaced by its hash."""
    if len(value) <= ONCE_VALUE_MAX:
        return value
    return value[:ONCE_VALUE_MAX] + "…" + hashlib.sha256(value.encode()).hexdigest()[:32]
