"""What a set of mapping files compiles to, and what evaluating it returns. Frozen values with hardly any behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bridge.globs import Glob
    from bridge.model import Destination, PlannedGoal, Source
    from bridge.rules.language.conditions import All, Condition
    from bridge.rules.language.paths import CompiledPath
    from bridge.rules.language.templates import Placeholder, Template
    from bridge.rules.reading.schema import TestCaseStanza


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `goals:`.

    - goal: the name as written; name: its template.
    - once_per: alternatives, of which the first with a value counts.
    - metadata: templates by key, or one placeholder for an object; of a payment, its fields.
    - destination: a configured name.
    - line: in its file, the shipped one for `shipped`.
    - follows: the name of a goal that must have been made before, with the same once value.
    - kind: of the action that it makes.
    - origin: in a layer, where the rule comes from: `shipped`, `layer`, `override` (shipped, changed by the layer) or
      `like` (the layer's, modelled on a shipped one); empty in a file without `extends`.
    - dry: what it makes is kept and not sent.
    - notify: the owner is notified of its delivery.
    """

    id: str
    goal: str
    name: Template
    events: tuple[str, ...]
    globs: tuple[Glob, ...]
    when: All
    visitor: tuple[CompiledPath, ...] = ()
    once_per: tuple[CompiledPath | Template, ...] = ()
    description: Template | None = None
    metadata: tuple[tuple[str, Template], ...] | Placeholder = ()
    max_age_ms: int | None = None
    wait_ms: int | None = None
    destination: str = "default"
    enabled: bool = True
    line: int = 0
    follows: str | None = None
    kind: str = "goal"
    origin: str = ""
    dry: bool = False
    notify: bool = False


class RuleTrace(NamedTuple):
    """Why a rule did or did not plan a goal.

    result: matched | event (another type) | condition (see path, expected and actual) | follows (only if another goal
    was made before; see the message) | disabled | failed.

    origin: of the rule.
    """

    rule_id: str
    goal: str
    result: str
    path: str | None = None
    expected: str | None = None
    actual: str | None = None
    message: str | None = None
    notes: tuple[str, ...] = ()
    origin: str = ""

    def to_json(self) -> dict[str, Any]:
        """The JSON for the stored trace; fields that are None or empty are omitted."""
        return self.reason_json(result=self.result) | ({"notes": list(self.notes)} if self.notes else {})

    def reason_json(self, **more: Any) -> dict[str, Any]:
        """The rule (id, goal, origin), `more`, and the reason, as JSON; fields that are None are omitted."""
        head = {"rule": self.rule_id, "goal": self.goal, "origin": self.origin or None}
        why = {"path": self.path, "expected": self.expected, "actual": self.actual, "message": self.message}
        return {name: value for name, value in {**head, **more, **why}.items() if value is not None}


class NearMiss(NamedTuple):
    """The rule that came closest to making a goal, for an event without one.

    failing: how many of its `conditions` fail; being switched off counts as one more. trace: of the first failing
    condition, or of what else prevented the goal.
    """

    trace: RuleTrace
    failing: int
    conditions: int

    def to_json(self) -> dict[str, Any]:
        """The JSON for the stored trace; fields that are None or empty are omitted."""
        return self.trace.reason_json(failing=self.failing, conditions=self.conditions)


class Evaluation(NamedTuple):
    """What the rules of one source make of one document: goals to resolve and send, and a trace for every rule.

    following: goals that exist only if those that they follow were made before, which the database knows.
    nearest: the rule that came closest to making a goal, if there are no goals.
    """

    planned: tuple[PlannedGoal, ...] = ()
    traces: tuple[RuleTrace, ...] = ()
    following: tuple[PlannedGoal, ...] = ()
    nearest: NearMiss | None = None


@dataclass(frozen=True, slots=True)
class CompiledFile:
    """One mapping file, compiled. secret_place: `file:line:column`, for messages about its secrets.

    tests: each with its line. extends: the name of the shipped file below a layer.
    """

    file: str
    source: Source
    rules: tuple[Rule, ...]
    when: All
    tests: tuple[tuple[int, TestCaseStanza], ...] = ()
    secret_place: str = ""
    extends: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The rules of one source, indexed by event type, ready for `evaluate`.

    - conditions: for each rule, those of the file before its own.
    - exact, globs: event type -> positions of rules.
    - derives: whether a rule reads named values or the event before the change.
    - keyed: whether one reads the ids that the bridge recognised (`key.`), directly or through a value.
    - idle: cached traces of the rules for other types, by event type (at most IDLE_MAX).
    """

    rules: tuple[Rule, ...]
    conditions: tuple[tuple[Condition, ...], ...]
    exact: Mapping[str, tuple[int, ...]]
    globs: tuple[tuple[Glob, int], ...]
    derives: bool = True
    keyed: bool = True
    idle: dict[str, tuple[RuleTrace, ...]] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All mapping files, compiled together.

    - hash: SHA-256 of the files.
    - files: name -> text, with the shipped ones that layers extend.
    - destinations: only those that files themselves configure.
    - warnings: sentences for `check` and the start (a missing secret, a likely misspelling), never a reason to stop.
    - suspicions: the warnings about the contents of the files, which `check --strict` refuses.
    - problems: what `check` refuses and a start must not, because the other sources work: values that are not secrets.
    """

    hash: str
    files: Mapping[str, str] = field(repr=False)
    sources: Mapping[str, Source]
    destinations: Mapping[str, Destination]
    rules: Mapping[str, tuple[Rule, ...]]
    warnings: tuple[str, ...] = ()
    suspicions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    mappings: Mapping[str, CompiledFile] = field(default_factory=dict, repr=False)
    tables: Mapping[str, Table] = field(default_factory=dict, repr=False)

    def each_rule(self) -> Iterator[tuple[str, Rule]]:
        """Every rule with its source, in file order."""
        return ((source, rule) for source in sorted(self.rules) for rule in self.rules[source])
