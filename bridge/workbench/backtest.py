"""Compare two sets of rules on the same stored events: goals that only one makes, and goals that both make differently.

Both sets start from the goals that earlier events had made, and process the events in order of arrival, as routing
does: the first event makes a goal, a later one with the same once key does not, and a goal that follows another needs
the other first. A goal is what DataFast counts: a name at a destination. Under another name, it is lost and another is
gained; with other contents, from another event or under another once key, it has changed.
What a visitor is known by (`links`) is compared as the keys that a goal would have, without looking up visitors.

One of the sets may be the user's own on top of a release's mapping files. Those of earlier releases are kept as data
(`releases/<version>.json`, name → text), because a release's package contains only its own. They are read with this
release's grammar, presets and values, so that only the rules are compared.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import bridge
from bridge import rules
from bridge.prepare import PreparedEvent, Preparer, ReadEvent, followed, settle
from bridge.rules.reading.folder import SHIPPED_PREFIX, shipped
from bridge.store.goals import statements
from bridge.store.operator import history
from bridge.text import count, listing
from bridge.workbench import stored, trace

if TYPE_CHECKING:
    from bridge.model import Event, GoalDraft, Source
    from bridge.store import Store
    from bridge.store.goals.statements import GoalPlace

KINDS: Final = ("lost", "gained", "changed")
EXAMPLES: Final = 3  # per kind and rule
_RELEASES: Final = Path(__file__).parent / "releases"
_EXTENDS: Final = re.compile(r"^extends: *['\"]?([A-Za-z0-9_-]+)", re.MULTILINE)
_REASONS_MAX: Final = 20  # goals per rule whose reason is kept until it is known which become examples


class Difference(NamedTuple):
    """One difference between two versions of a goal: `metadata amount`, from `49.00` to nothing."""

    what: str
    before: str | None
    after: str | None

    @property
    def sentence(self) -> str:
        before, after = ("nothing" if value is None else f'"{value}"' for value in (self.before, self.after))
        return f"{self.what} {before} → {after}"


@dataclass(frozen=True, slots=True)
class Example:
    """One goal that is lost, gained or changed. why: what prevents the other set from making it."""

    kind: str  # lost | gained | changed
    event_id: int
    event_type: str
    test: bool
    goal: str
    why: str | None = None
    differences: tuple[Difference, ...] = ()

    @property
    def sentence(self) -> str:
        event = f"{self.event_type or '(no type)'}{' (test)' if self.test else ''}"
        reason = self.why or "; ".join(difference.sentence for difference in self.differences)
        return f"{event}: {reason}" if reason else event


@dataclass(slots=True)
class RuleResult:
    """The goals of one rule. present, other: how many the two sets make; None: the set has no such rule.

    origin: whose rule it is in a layer (`bridge.rules.Rule`), by the present rules if they have it.
    Lost and changed goals count for the present rule that makes them, gained ones for the other set's.
    """

    source: str
    rule: str
    goal: str
    origin: str
    present: int | None = None
    other: int | None = None
    lost: int = 0
    gained: int = 0
    changed: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        return bool(self.lost or self.gained or self.changed)

    @property
    def called(self) -> str:
        """The rule's id; in a layer, with its origin."""
        return trace.with_origin(self.rule, self.origin)

    def of_kind(self, kind: str) -> list[Example]:
        """The examples of one kind: lost, gained or changed."""
        return [example for example in self.examples if example.kind == kind]

    def count(self, example: Example) -> None:
        """Count a goal, and keep the first of each kind as examples."""
        setattr(self, example.kind, getattr(self, example.kind) + 1)
        if sum(other.kind == example.kind for other in self.examples) < EXAMPLES:
            self.examples.append(example)


@dataclass(frozen=True, slots=True)
class Backtest:
    """The result. events: all in the time span; gone: those without a body, which cannot be judged.

    - same: goals that both make alike
    - unreadable: how many events each set would quarantine (present, other)
    - missing, new: sources that only the present, or only the other, set has, with their numbers of events
    - unstored: what only the other set reads from a request (source → names). Whether a stored event had it is unknown.
    """

    events: int
    gone: int
    same: int
    rules: tuple[RuleResult, ...]
    unreadable: tuple[int, int] = (0, 0)
    missing: Mapping[str, int] = field(default_factory=dict)
    new: Mapping[str, int] = field(default_factory=dict)
    unstored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        return sum(rule.lost for rule in self.rules)

    @property
    def gained(self) -> int:
        return sum(rule.gained for rule in self.rules)

    @property
    def changed(self) -> int:
        return sum(rule.changed for rule in self.rules)

    @property
    def differing(self) -> list[RuleResult]:
        """The rules whose goals differ."""
        return [rule for rule in self.rules if rule.differs]

    @property
    def summary(self) -> str:
        """The answer in a sentence."""
        if not self.differing:
            return f"No goal differs: both sets of rules make the same {count(self.same, 'goal')}."
        parts = [f"{getattr(self, kind)} {kind}" for kind in KINDS if getattr(self, kind)]
        return f"Goals: {listing(parts)}; {self.same} the same."

    @property
    def without_body(self) -> str:
        """A note about events without a body; empty if there are none."""
        return f"the bodies of {self.gone} more are gone, so they cannot be compared" if self.gone else ""

    def notes(self, present: str = "the present rules", other: str = "the other rules") -> list[str]:
        """Other differences between the two sets, in sentences. present, other: what to call them."""
        before, after = self.unreadable
        quarantined = f"{present} would quarantine {count(before, 'event')}, and {other} {after}"
        return [
            *(f"only {present} include a file for {name} ({count(n, 'event')})" for name, n in self.missing.items()),
            *(f"only {other} include a file for {name} ({count(n, 'event')})" for name, n in self.new.items()),
            *([quarantined] if before or after else []),
            *(
                f"{name}: the present file does not read {listing(list(reads))}, so stored events may lack it"
                for name, reads in self.unstored.items()
            ),
        ]


def compare(
    store: Store,
    present: Preparer,
    other: Preparer,
    since_ms: int,
    step: Callable[[int], None] = lambda _done: None,
    see: Callable[[ReadEvent], None] = lambda _read: None,
) -> Backtest:
    """Compare what two sets make of the events received since then.

    step: called with the number of events processed. see: called with each event, as the other set reads it.
    """
    with store.read() as conn:
        span = history.span(conn, since_ms)
    comparison, done = Comparison(present, other, _made_before(store, span.first or 0), see), 0
    for events in stored.pages(store, span):
        comparison.add(events)
        done += len(events)
        step(done)
    return comparison.result()


def compare_some(store: Store, present: Preparer, other: Preparer, ids: Sequence[int]) -> Backtest:
    """Like `compare`, for these events, in order of arrival."""
    comparison = Comparison(present, other, _made_before(store, min(ids, default=0)))
    for events in stored.some(store, ids):
        comparison.add(events)
    return comparison.result()


def _made_before(store: Store, first: int) -> Callable[[Iterable[GoalPlace]], set[GoalPlace]]:
    """A function that tells which goals were made by an event before the first one."""

    def made_before(places: Iterable[GoalPlace]) -> set[GoalPlace]:
        with store.read() as conn:
            return statements.made_before(conn, places, first)

    return made_before


class _Made(NamedTuple):
    """A goal that one set makes from an event, without the event."""

    event_id: int
    event_type: str
    element: int
    source: str
    compared: tuple[str, ...]  # what is compared, in the order of _COMPARED
    metadata: Mapping[str, str]
    rule_id: str
    goal: str
    place: GoalPlace
    test: bool
    why: str | None

    @property
    def as_counted(self) -> tuple[int, int, str, str, str]:
        """The part of a goal that does not depend on its once key."""
        return self.event_id, self.element, self.source, self.goal, self.place[0]


class _Side:
    """One of the two sets, with the goals it has made so far."""

    def __init__(self, preparer: Preparer) -> None:
        self.preparer = preparer
        self.made: set[GoalPlace] = set()
        self.earlier: set[GoalPlace] = set()
        self.unmatched: dict[GoalPlace, _Made] = {}  # made by this set alone, so far
        self.counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.unreadable = 0

    def rules_for(self, source: str, event_type: str) -> list[object]:
        """Everything that determines what these rules make of an event of this type."""
        table = self.preparer.rule_set.tables[source]
        found = rules.for_type(table, event_type)
        values = self.preparer.rule_set.sources[source].values if found and table.derives else None
        return [values, *((replace(rule, line=0, origin=""), conditions) for rule, conditions in found)]

    def places_asked(self, prepared: Sequence[PreparedEvent]) -> set[GoalPlace]:
        """The goals for which it matters whether an earlier event made them."""
        drafts = (
            draft for event in prepared for element in event.elements for draft in (*element.drafts, *element.following)
        )
        return ({draft.place for draft in drafts} | followed(prepared)) - self.made - self.earlier

    def settled(self, prepared: Sequence[PreparedEvent], earlier: Collection[GoalPlace]) -> list[PreparedEvent]:
        self.earlier.update(earlier)
        asked = followed(prepared)
        return settle(prepared, {place for place in asked if self.is_made(place)}) if asked else list(prepared)

    def is_made(self, place: GoalPlace) -> bool:
        return place in self.made or place in self.earlier

    def new(self, prepared: PreparedEvent) -> dict[GoalPlace, tuple[int, GoalDraft]]:
        """The goals that this event makes, each with its element's number."""
        found: dict[GoalPlace, tuple[int, GoalDraft]] = {}
        for number, element in enumerate(prepared.elements):
            for draft in element.drafts:
                if draft.place not in found and not self.is_made(draft.place):
                    found[draft.place] = (number, draft)
                    self.counts[prepared.event.source, draft.planned.rule_id] += 1
        self.made.update(found)
        return found


class Comparison:
    """Takes the stored events page by page, in order of arrival.

    made_before: which of some goals were made by an event before the first one (`bridge.store.goals.statements`).
    see: as for `compare`.
    """

    def __init__(
        self,
        present: Preparer,
        other: Preparer,
        made_before: Callable[[Iterable[GoalPlace]], set[GoalPlace]],
        see: Callable[[ReadEvent], None] = lambda _read: None,
    ) -> None:
        self._present, self._other = _Side(present), _Side(other)
        self._made_before, self._see = made_before, see
        self._alike = _sources_read_alike(present.rule_set.sources, other.rule_set.sources)
        self._same_rules: dict[tuple[str, str], bool] = {}
        self._events = self._gone = self._same = 0
        self._of_source: defaultdict[str, int] = defaultdict(int)
        self._changed: list[tuple[_Made, Example]] = []
        self._reasons: defaultdict[tuple[str, str, bool], int] = defaultdict(int)

    def add(self, events: Sequence[Event]) -> None:
        """Process the next events."""
        self._events += len(events)
        readable = [event for event in events if event.body is not None]
        self._gone += len(events) - len(readable)
        for event in readable:
            self._of_source[event.source] += 1
        present, other = [], []
        for event in readable:
            read = self._present.preparer.read(event, names=False)
            by_present, by_other = self._judged(read)
            present.append(by_present)
            other.append(by_other)
        asked = self._present.places_asked(present) | self._other.places_asked(other)
        earlier = self._made_before(sorted(asked)) if asked else set()
        for by_present, by_other in zip(
            self._present.settled(present, earlier), self._other.settled(other, earlier), strict=True
        ):
            self._compare(by_present, by_other)

    def _judged(self, read: ReadEvent) -> tuple[PreparedEvent, PreparedEvent]:
        """Judge an event by both sets. Most sources differ only in some rules: both sets then read an event alike.

        If they have the same rules for its type, what one set makes of it is what both make.
        """
        by_present, other, other_read = self._present.preparer.judge(read), self._other.preparer, read
        if read.event.source not in self._alike:
            other_read = other.read(read.event, names=False)
        self._see(other_read)
        types = {document.envelope.type for document in read.documents}
        same = other_read is read and all(self._has_same_rules(read.event.source, event_type) for event_type in types)
        by_other = by_present if same else other.judge(other_read)
        for document in (*read.documents, *other_read.documents):
            document.names.release()  # a page of events is held, and their bodies may be large
        return by_present, by_other

    def _has_same_rules(self, source: str, event_type: str) -> bool:
        """Whether both sets have the same rules for this type of event."""
        known = self._same_rules.get((source, event_type))
        if known is None:
            known = self._present.rules_for(source, event_type) == self._other.rules_for(source, event_type)
            self._same_rules[source, event_type] = known
        return known

    def _compare(self, present: PreparedEvent, other: PreparedEvent) -> None:
        self._present.unreadable += present.quarantine is not None
        self._other.unreadable += other.quarantine is not None
        by_present, by_other = self._present.new(present), self._other.new(other)
        for place in by_present.keys() & by_other.keys():
            if _have_same_contents(*by_present[place], *by_other[place]):
                self._same += 1
            else:
                self._pair(_made(present.event, *by_present[place], None), _made(other.event, *by_other[place], None))
        for place in by_present.keys() - by_other.keys():
            made = self._one_sided(present.event, *by_present[place], other, self._other)
            self._match(made, self._present, self._other)
        for place in by_other.keys() - by_present.keys():
            made = self._one_sided(other.event, *by_other[place], present, self._present)
            self._match(made, self._other, self._present)

    def _one_sided(self, event: Event, element: int, draft: GoalDraft, other: PreparedEvent, side: _Side) -> _Made:
        """A goal that the other side does not make from this event, with the reason while reasons are needed."""
        group = (event.source, draft.planned.rule_id, side is self._other)
        self._reasons[group] += 1
        why = _why(draft, element, other, side) if self._reasons[group] <= _REASONS_MAX else None
        return _made(event, element, draft, why)

    def _match(self, made: _Made, side: _Side, other: _Side) -> None:
        """Match a goal with the other side's, which may have made the same one from an earlier event."""
        match = other.unmatched.pop(made.place, None)
        if match is None:
            side.unmatched[made.place] = made
        elif side is self._present:
            self._pair(made, match)
        else:
            self._pair(match, made)

    def _pair(self, present: _Made, other: _Made) -> None:
        differences = tuple(_differences(present, other))
        if not differences:
            self._same += 1
            return
        self._changed.append((present, _example("changed", present, differences)))

    def result(self) -> Backtest:
        """The result. Call it once, at the end."""
        self._pair_unmatched()
        results = self._results()
        for kind, side in (("lost", self._present), ("gained", self._other)):
            for made in sorted(side.unmatched.values(), key=lambda made: (made.event_id, made.element)):
                results[made.source, made.rule_id].count(_example(kind, made))
        for made, example in self._changed:
            results[made.source, made.rule_id].count(example)
        present, other = (side.preparer.rule_set.sources for side in (self._present, self._other))
        return Backtest(
            events=self._events,
            gone=self._gone,
            same=self._same,
            rules=tuple(results.values()),
            unreadable=(self._present.unreadable, self._other.unreadable),
            missing={name: self._of_source[name] for name in sorted(present.keys() - other.keys())},
            new={name: self._of_source[name] for name in sorted(other.keys() - present.keys())},
            unstored={
                name: tuple(sorted(reads))
                for name in sorted(present.keys() & other.keys())
                if (reads := other[name].reads - present[name].reads)
            },
        )

    def _pair_unmatched(self) -> None:
        """Pair goals of one event and name under two once keys: they are one goal that has changed."""
        candidates: defaultdict[tuple[int, int, str, str, str], list[_Made]] = defaultdict(list)
        for made in self._other.unmatched.values():
            candidates[made.as_counted].append(made)
        for made in list(self._present.unmatched.values()):
            if matches := candidates.get(made.as_counted):
                match = matches.pop(0)
                del self._present.unmatched[made.place], self._other.unmatched[match.place]
                self._pair(made, match)

    def _results(self) -> dict[tuple[str, str], RuleResult]:
        """Every rule of both sets, in the order of the files."""
        results: dict[tuple[str, str], RuleResult] = {}
        for side, name in ((self._present, "present"), (self._other, "other")):
            for source, rule in side.preparer.rule_set.each_rule():
                result = results.setdefault((source, rule.id), RuleResult(source, rule.id, rule.goal, rule.origin))
                setattr(result, name, side.counts[source, rule.id])
        return results


def _sources_read_alike(present: Mapping[str, Source], other: Mapping[str, Source]) -> frozenset[str]:
    """The sources that read events in the same way in both sets."""
    return frozenset(name for name in present.keys() & other.keys() if _reading(present[name]) == _reading(other[name]))


def _reading(source: Source) -> Source:
    """A source without the parts that only its rules use."""
    return replace(source, values=None, named_types=frozenset(), reads=frozenset(), handovers=None)


# ------------------------------------------------------------------------------------------------ what is compared


def _have_same_contents(element: int, present: GoalDraft, other_element: int, other: GoalDraft) -> bool:
    """Whether two goals of one event and place evidently do not differ; `_differences` finds how others do."""
    first, second = present.planned, other.planned
    return present is other or (
        element == other_element
        and first.metadata == second.metadata
        and first.description == second.description
        and (first.max_age_ms, first.wait_ms, first.kind) == (second.max_age_ms, second.wait_ms, second.kind)
        and present.own[:1] == other.own[:1]
        and present.keys == other.keys
    )


_COMPARED: Final = ("description", "visitor", "max_age", "wait", "kind", "keys that lead to a visitor")


def _made(event: Event, element: int, draft: GoalDraft, why: str | None) -> _Made:
    planned = draft.planned
    compared = (
        planned.description or "",
        draft.own[0].visitor if draft.own else "",
        "" if planned.max_age_ms is None else f"{planned.max_age_ms} ms",
        "" if planned.wait_ms is None else f"{planned.wait_ms} ms",
        planned.kind,
        ", ".join(sorted(key.text for key in draft.keys)),
    )
    return _Made(
        event.id,
        event.envelope.type,
        element,
        event.source,
        compared,
        planned.metadata,
        planned.rule_id,
        planned.name,
        draft.place,
        draft.test,
        why,
    )


def _differences(present: _Made, other: _Made) -> Iterator[Difference]:
    for key in sorted({*present.metadata, *other.metadata}):
        before, after = present.metadata.get(key), other.metadata.get(key)
        if before != after:
            yield Difference(f"metadata {key}", before, after)
    if present.event_id != other.event_id:
        yield Difference("made by", f"ev_{present.event_id}", f"ev_{other.event_id}")
    if present.place != other.place:
        yield Difference("only once per", present.place[1], other.place[1])
    for name, before, after in zip(_COMPARED, present.compared, other.compared, strict=True):
        if before != after and not (name == "description" and present.event_id != other.event_id):  # it names the event
            yield Difference(name, before or None, after or None)


def _example(kind: str, made: _Made, differences: tuple[Difference, ...] = ()) -> Example:
    return Example(kind, made.event_id, made.event_type, made.test, made.goal, made.why, differences)


def _why(draft: GoalDraft, number: int, other_event: PreparedEvent, side: _Side) -> str:
    """Why the other side does not make this goal from the event."""
    source, rule_id, name = other_event.event.source, draft.planned.rule_id, draft.planned.name
    if other_event.quarantine is not None:
        known = source in side.preparer.rule_set.sources
        return other_event.quarantine if known else f"there is no mapping file for {source}"
    if number >= len(other_event.elements):
        return "the body is not taken apart into the same events"
    element = other_event.elements[number]
    if element.ignored is not None:
        return element.ignored
    if any(other.place == draft.place for other in element.drafts):
        return f"made before: only one per {draft.planned.once_key}"
    traces = {trace.rule_id: trace for trace in (element.evaluation.traces if element.evaluation else ())}
    trace = traces.get(rule_id)
    if trace is None:
        return f"there is no rule {rule_id}"
    if trace.result != "matched":
        return rules.describe(trace)
    made = next((other for other in element.drafts if other.planned.rule_id == rule_id), None)
    if made is None or made.planned.name != name:
        return f"the rule makes {trace.goal} instead"
    if side.is_made(made.place) and made.destination == draft.destination:
        return f"made before: only one per {made.planned.once_key}"
    return f"the rule sends it to {made.destination} instead"


# ------------------------------------------------------------------------------------------- the files of a release


def versions() -> list[str]:
    """The releases whose files are known, oldest first; the last is this release."""
    kept = (path.stem for path in _RELEASES.glob("*.json"))
    earlier = sorted((name for name in kept if name != bridge.__version__), key=_version_numbers)
    return [*earlier, bridge.__version__]


def files_of(version: str) -> dict[str, str]:
    """The mapping files that a release shipped, with its examples. Raises KeyError for an unknown version."""
    if version == bridge.__version__:
        return {f"{name}.yaml": text for name, text in shipped().items()}
    if version not in versions():
        raise KeyError(version)
    found: dict[str, str] = json.loads((_RELEASES / f"{version}.json").read_text("utf-8"))
    return found


def on_release(own: Mapping[str, str], release: Mapping[str, str]) -> dict[str, str]:
    """The user's own set on top of a release's files.

    A layer is put on the release's file; a file of the same name is replaced by it; any other stays unchanged.
    """
    found = {}
    for name, text in own.items():
        below = _EXTENDS.search(text)
        found[name] = text if below else release.get(name, text)
        if below and (base := release.get(f"{below[1]}.yaml")) is not None:
            found[f"{SHIPPED_PREFIX}{below[1]}.yaml"] = base
    return found


def _version_numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
