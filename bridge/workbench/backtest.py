"""Compare two sets of rules on the same stored events: goals that only one makes, and goals that both make differently.

Both sets start from the goals that earlier events had made, and process the events in order of arrival, as routing
does: the first event makes a goal, a later one with the same once key does not, and a goal that follows another needs
that one first. A goal is what DataFast counts: a name at a destination. Under another name, it is lost and another is
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
from bridge.store.operator import history
from bridge.text import count, listing
from bridge.workbench import stored, trace

if TYPE_CHECKING:
    from bridge.model import Event, GoalDraft, Source
    from bridge.store import Store
    from bridge.store.operator.history import GoalPlace

KINDS: Final = ("lost", "gained", "changed")
EXAMPLES: Final = 3  # per kind and rule
_RELEASES: Final = Path(__file__).parent / "releases"
_EXTENDS: Final = re.compile(r"^extends: *['\"]?([A-Za-z0-9_-]+)", re.MULTILINE)
_REASONED: Final = 20  # goals per rule, at most, whose reason is kept until it is known which become examples


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
        what = f"{self.event_type or '(no type)'}{' (test)' if self.test else ''}"
        told = self.why or "; ".join(one.sentence for one in self.differences)
        return f"{what}: {told}" if told else what


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
        if sum(one.kind == example.kind for one in self.examples) < EXAMPLES:
            self.examples.append(example)


@dataclass(frozen=True, slots=True)
class Backtest:
    """The result. events: all in the time span; gone: those without a body, which cannot be judged.

    same: goals that both make alike. unreadable: how many events each set would quarantine (present, other).
    missing, new: sources that only the present, or only the other, set has, with their numbers of events.
    unstored: what the other set reads from a request and the present one does not (source → names). Whether a stored
    event had it is unknown.
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
            return history.made_before(conn, places, first)

    return made_before


class _Made(NamedTuple):
    """A goal that one set makes from an event, without the event."""

    event_id: int
    event_type: str
    element: int
    source: str
    said: tuple[str, ...]  # what is compared, in the order of _COMPARED
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
        self.left: dict[GoalPlace, _Made] = {}  # made by this set alone, so far
        self.counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.unreadable = 0

    def rules_for(self, source: str, event_type: str) -> list[object]:
        """Everything that determines what these rules make of an event of this type."""
        table = self.preparer.rule_set.tables[source]
        found = rules.for_type(table, event_type)
        values = self.preparer.rule_set.sources[source].values if found and table.derives else None
        return [values, *((replace(rule, line=0, origin=""), conditions) for rule, conditions in found)]

    def asks(self, prepared: Sequence[PreparedEvent]) -> set[GoalPlace]:
        """The goals for which it matters whether an earlier event made them."""
        drafts = (
            draft for one in prepared for element in one.elements for draft in (*element.drafts, *element.following)
        )
        return ({draft.place for draft in drafts} | followed(prepared)) - self.made - self.earlier

    def settled(self, prepared: Sequence[PreparedEvent], earlier: Collection[GoalPlace]) -> list[PreparedEvent]:
        self.earlier.update(earlier)
        asked = followed(prepared)
        return settle(prepared, {place for place in asked if self.there(place)}) if asked else list(prepared)

    def there(self, place: GoalPlace) -> bool:
        return place in self.made or place in self.earlier

    def new(self, prepared: PreparedEvent) -> dict[GoalPlace, tuple[int, GoalDraft]]:
        """The goals that this event makes, each with its element's number."""
        found: dict[GoalPlace, tuple[int, GoalDraft]] = {}
        for number, element in enumerate(prepared.elements):
            for draft in element.drafts:
                if draft.place not in found and not self.there(draft.place):
                    found[draft.place] = (number, draft)
                    self.counts[prepared.event.source, draft.planned.rule_id] += 1
        self.made.update(found)
        return found


class Comparison:
    """Takes the stored events page by page, in order of arrival.

    made_before: which of some goals were made by an event before the first one (`bridge.store.operator.history`).
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
        self._alike = _alike(present.rule_set.sources, other.rule_set.sources)
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
            ours, theirs = self._judged(read)
            present.append(ours)
            other.append(theirs)
        asked = self._present.asks(present) | self._other.asks(other)
        earlier = self._made_before(sorted(asked)) if asked else set()
        for one, another in zip(
            self._present.settled(present, earlier), self._other.settled(other, earlier), strict=True
        ):
            self._compare(one, another)

    def _judged(self, read: ReadEvent) -> tuple[PreparedEvent, PreparedEvent]:
        """Judge an event by both sets. Most sources differ only in some rules: both sets then read an event alike.

        If they have the same rules for its type, what one set makes of it is what both make.
        """
        ours, other, of_other = self._present.preparer.judge(read), self._other.preparer, read
        if read.event.source not in self._alike:
            of_other = other.read(read.event, names=False)
        self._see(of_other)
        types = {document.envelope.type for document in read.documents}
        same = of_other is read and all(self._is_same(read.event.source, one) for one in types)
        theirs = ours if same else other.judge(of_other)
        for document in (*read.documents, *of_other.documents):
            document.names.release()  # a page of events is held, and their bodies may be large
        return ours, theirs

    def _is_same(self, source: str, event_type: str) -> bool:
        """Whether both sets have the same rules for this type of event."""
        known = self._same_rules.get((source, event_type))
        if known is None:
            known = self._present.rules_for(source, event_type) == self._other.rules_for(source, event_type)
            self._same_rules[source, event_type] = known
        return known

    def _compare(self, present: PreparedEvent, other: PreparedEvent) -> None:
        self._present.unreadable += present.quarantine is not None
        self._other.unreadable += other.quarantine is not None
        ours, theirs = self._present.new(present), self._other.new(other)
        for place in ours.keys() & theirs.keys():
            if _says_the_same(*ours[place], *theirs[place]):
                self._same += 1
            else:
                self._pair(_made(present.event, *ours[place], None), _made(other.event, *theirs[place], None))
        for place in ours.keys() - theirs.keys():
            made = self._alone(present.event, *ours[place], other, self._other)
            self._meet(made, self._present, self._other)
        for place in theirs.keys() - ours.keys():
            made = self._alone(other.event, *theirs[place], present, self._present)
            self._meet(made, self._other, self._present)

    def _alone(self, event: Event, element: int, draft: GoalDraft, instead: PreparedEvent, side: _Side) -> _Made:
        """A goal that the other side does not make from this event, with the reason while reasons are needed."""
        which = (event.source, draft.planned.rule_id, side is self._other)
        self._reasons[which] += 1
        why = _why(draft, element, instead, side) if self._reasons[which] <= _REASONED else None
        return _made(event, element, draft, why)

    def _meet(self, made: _Made, mine: _Side, others: _Side) -> None:
        """Match a goal with the other side's, which may have made it from an earlier event."""
        match = others.left.pop(made.place, None)
        if match is None:
            mine.left[made.place] = made
        elif mine is self._present:
            self._pair(made, match)
        else:
            self._pair(match, made)

    def _pair(self, ours: _Made, theirs: _Made) -> None:
        differences = tuple(_differences(ours, theirs))
        if not differences:
            self._same += 1
            return
        self._changed.append((ours, _example("changed", ours, differences)))

    def result(self) -> Backtest:
        """The result. Call it once, at the end."""
        self._pair_left()
        results = self._results()
        for kind, side in (("lost", self._present), ("gained", self._other)):
            for made in sorted(side.left.values(), key=lambda one: (one.event_id, one.element)):
                results[made.source, made.rule_id].count(_example(kind, made))
        for made, example in self._changed:
            results[made.source, made.rule_id].count(example)
        ours, theirs = (side.preparer.rule_set.sources for side in (self._present, self._other))
        return Backtest(
            events=self._events,
            gone=self._gone,
            same=self._same,
            rules=tuple(results.values()),
            unreadable=(self._present.unreadable, self._other.unreadable),
            missing={name: self._of_source[name] for name in sorted(ours.keys() - theirs.keys())},
            new={name: self._of_source[name] for name in sorted(theirs.keys() - ours.keys())},
            unstored={
                name: tuple(sorted(reads))
                for name in sorted(ours.keys() & theirs.keys())
                if (reads := theirs[name].reads - ours[name].reads)
            },
        )

    def _pair_left(self) -> None:
        """Pair goals of one event and name under two once keys: they are one goal that has changed."""
        theirs: defaultdict[tuple[int, int, str, str, str], list[_Made]] = defaultdict(list)
        for made in self._other.left.values():
            theirs[made.as_counted].append(made)
        for made in list(self._present.left.values()):
            if matches := theirs.get(made.as_counted):
                match = matches.pop(0)
                del self._present.left[made.place], self._other.left[match.place]
                self._pair(made, match)

    def _results(self) -> dict[tuple[str, str], RuleResult]:
        """Every rule of both sets, in the order of the files."""
        results: dict[tuple[str, str], RuleResult] = {}
        for side, name in ((self._present, "present"), (self._other, "other")):
            for source, rule in side.preparer.rule_set.each_rule():
                result = results.setdefault((source, rule.id), RuleResult(source, rule.id, rule.goal, rule.origin))
                setattr(result, name, side.counts[source, rule.id])
        return results


def _alike(ours: Mapping[str, Source], theirs: Mapping[str, Source]) -> frozenset[str]:
    """The sources that read events in the same way in both sets."""
    return frozenset(name for name in ours.keys() & theirs.keys() if _reading(ours[name]) == _reading(theirs[name]))


def _reading(source: Source) -> Source:
    """A source without the parts that only its rules use."""
    return replace(source, values=None, named_types=frozenset(), reads=frozenset(), handovers=None)


# ------------------------------------------------------------------------------------------------ what is compared


def _says_the_same(element: int, ours: GoalDraft, other_element: int, theirs: GoalDraft) -> bool:
    """Whether two goals of one event and place evidently do not differ; `_differences` finds how others do."""
    one, other = ours.planned, theirs.planned
    return ours is theirs or (
        element == other_element
        and one.metadata == other.metadata
        and one.description == other.description
        and (one.max_age_ms, one.wait_ms, one.kind) == (other.max_age_ms, other.wait_ms, other.kind)
        and ours.own[:1] == theirs.own[:1]
        and ours.keys == theirs.keys
    )


_COMPARED: Final = ("description", "visitor", "max_age", "wait", "kind", "keys that lead to a visitor")


def _made(event: Event, element: int, draft: GoalDraft, why: str | None) -> _Made:
    planned = draft.planned
    said = (
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
        said,
        planned.metadata,
        planned.rule_id,
        planned.name,
        draft.place,
        draft.test,
        why,
    )


def _differences(ours: _Made, theirs: _Made) -> Iterator[Difference]:
    for key in sorted({*ours.metadata, *theirs.metadata}):
        before, after = ours.metadata.get(key), theirs.metadata.get(key)
        if before != after:
            yield Difference(f"metadata {key}", before, after)
    if ours.event_id != theirs.event_id:
        yield Difference("made by", f"ev_{ours.event_id}", f"ev_{theirs.event_id}")
    if ours.place != theirs.place:
        yield Difference("only once per", ours.place[1], theirs.place[1])
    for what, before, after in zip(_COMPARED, ours.said, theirs.said, strict=True):
        if before != after and not (what == "description" and ours.event_id != theirs.event_id):  # it names the event
            yield Difference(what, before or None, after or None)


def _example(kind: str, made: _Made, differences: tuple[Difference, ...] = ()) -> Example:
    return Example(kind, made.event_id, made.event_type, made.test, made.goal, made.why, differences)


def _why(draft: GoalDraft, element: int, instead: PreparedEvent, side: _Side) -> str:
    """Why the other side does not make this goal from the event."""
    source, rule_id, name = instead.event.source, draft.planned.rule_id, draft.planned.name
    if instead.quarantine is not None:
        known = source in side.preparer.rule_set.sources
        return instead.quarantine if known else f"there is no mapping file for {source}"
    if element >= len(instead.elements):
        return "the body is not taken apart into the same events"
    there = instead.elements[element]
    if there.ignored is not None:
        return there.ignored
    if any(one.place == draft.place for one in there.drafts):
        return f"made before: only one per {draft.planned.once_key}"
    traces = {trace.rule_id: trace for trace in (there.evaluation.traces if there.evaluation else ())}
    trace = traces.get(rule_id)
    if trace is None:
        return f"there is no rule {rule_id}"
    if trace.result != "matched":
        return rules.describe(trace)
    made = next((one for one in there.drafts if one.planned.rule_id == rule_id), None)
    if made is None or made.planned.name != name:
        return f"the rule makes {trace.goal} instead"
    if side.there(made.place) and made.destination == draft.destination:
        return f"made before: only one per {made.planned.once_key}"
    return f"the rule sends it to {made.destination} instead"


# ------------------------------------------------------------------------------------------- the files of a release


def versions() -> list[str]:
    """The releases whose files are known, oldest first; the last is this release."""
    kept = (path.stem for path in _RELEASES.glob("*.json"))
    earlier = sorted((name for name in kept if name != bridge.__version__), key=_in_order)
    return [*earlier, bridge.__version__]


def files_of(version: str) -> dict[str, str]:
    """The mapping files that a release shipped, with its examples. Raises KeyError for an unknown version."""
    if version == bridge.__version__:
        return {f"{name}.yaml": text for name, text in shipped().items()}
    if version not in versions():
        raise KeyError(version)
    found: dict[str, str] = json.loads((_RELEASES / f"{version}.json").read_text("utf-8"))
    return found


def instead(own: Mapping[str, str], of_release: Mapping[str, str]) -> dict[str, str]:
    """The user's own set on top of a release's files.

    A layer is put on the release's file; a file of the same name is replaced by it; any other stays unchanged.
    """
    found = {}
    for name, text in own.items():
        below = _EXTENDS.search(text)
        found[name] = text if below else of_release.get(name, text)
        if below and (base := of_release.get(f"{below[1]}.yaml")) is not None:
            found[f"{SHIPPED_PREFIX}{below[1]}.yaml"] = base
    return found


def _in_order(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
