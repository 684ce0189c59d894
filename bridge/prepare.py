"""Everything about an event that needs no database: read it, find its keys and visitors, evaluate the rules.

Pure, and never raises. The result is a `PreparedEvent`: for each document, the links learned from it, the drafts of its
goals and the traces of the rules; or why the event is quarantined. Production, `explain` and the tests of mapping files
all prepare events here. `settle` decides what depends on goals that were made before (`follows`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from bridge import identity, limits, logs, rules, sources
from bridge.errors import UnreadableBody
from bridge.identity.choice import Observation
from bridge.masking import without_addresses
from bridge.model import Document, Envelope, Event, EventState, GoalDraft, Verdict
from bridge.text import is_fixture_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from bridge.identity import JudgedCandidate
    from bridge.model import Destination, PlannedGoal, Request, Source
    from bridge.rules import Evaluation, RuleSet, RuleTrace
    from bridge.settings import Settings

    Place = tuple[str, str]  # what makes a goal unique: its destination and its once key
    Found = tuple[Observation, tuple[JudgedCandidate, ...]]

TEST: Final = "test"  # the destination for test events, if it has a key

log = logs.get("route")


@dataclass(frozen=True, slots=True)
class Element:
    """One document of an event: the keys and visitors it names, and the drafts of its goals."""

    envelope: Envelope
    names: Names
    evaluation: Evaluation | None = None
    drafts: tuple[GoalDraft, ...] = ()
    following: tuple[GoalDraft, ...] = ()  # made only if the goals that they follow were made before (`settle`)
    ignored: str | None = None

    @property
    def observation(self) -> Observation:
        """What is learned from it: its keys, and the visitor that it names."""
        return self.names.found()[0]

    @property
    def judged(self) -> tuple[JudgedCandidate, ...]:
        """The values that were judged as visitors."""
        return self.names.found()[1]


@dataclass(frozen=True, slots=True)
class PreparedEvent:
    """An event, ready to be written; or why it is quarantined."""

    event: Event
    elements: tuple[Element, ...] = ()
    quarantine: str | None = None

    @property
    def verdict(self) -> Verdict:
        if any(element.drafts for element in self.elements):
            return Verdict.MATCHED
        return Verdict.IGNORED if self.ignored else Verdict.UNMATCHED

    @property
    def ignored(self) -> str | None:
        """Why no rule was evaluated."""
        reasons = [element.ignored for element in self.elements]
        return reasons[0] if reasons and all(reasons) else None

    @property
    def reason(self) -> str | None:
        """Why it made no goal, if there is more to say than that no rule matched."""
        if self.verdict is Verdict.MATCHED:
            return None
        failed = (
            f"the rule {trace.rule_id} failed: {trace.message}"
            for element in self.elements
            for trace in (element.evaluation.traces if element.evaluation else ())
            if trace.result == "failed"
        )
        return self.ignored or next(failed, None)


class Names:
    """What is learned from a document, and the values judged as visitors. Both are computed once, when first needed."""

    __slots__ = ("_found", "_look")

    def __init__(self, look: Callable[[], Found]) -> None:
        self._look: Callable[[], Found] | None = look
        self._found: Found | None = None

    def found(self) -> Found:
        if self._look is not None:
            self._found, self._look = self._look(), None  # this also releases the document
        assert self._found is not None
        return self._found

    def release(self) -> None:
        """Keep the result, if there is one, and release the document."""
        self._look = None


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """One document of an event, before the rules are evaluated: what it names, and its own name in once keys.

    times: when it happened, the time that orders it, and whether the provider states when it happened.
    """

    document: Document
    name: str
    envelope: Envelope
    times: tuple[int, int, bool]
    names: Names
    ignored: str | None = None

    @property
    def observation(self) -> Observation:
        """What is learned from it: its keys, and the visitor that it names."""
        return self.names.found()[0]


@dataclass(frozen=True, slots=True)
class ReadEvent:
    """An event, taken apart; or why it is quarantined."""

    event: Event
    documents: tuple[ReadDocument, ...] = ()
    quarantine: str | None = None


@dataclass(frozen=True, slots=True)
class Preparer:
    """What preparing needs besides the event. near: whether `why` may ask which rule came nearest to a goal."""

    rule_set: RuleSet
    settings: Settings
    destinations: Mapping[str, Destination]
    hash_key: bytes = field(repr=False)
    keys: Mapping[str, str] = field(default_factory=dict)
    email_key: bytes | None = field(default=None, repr=False)  # for hashing e-mail addresses
    near: bool = True

    def prepare_request(
        self, source: Source, request: Request, at_ms: int, *, keys: Mapping[str, str] | None = None
    ) -> PreparedEvent:
        """Do what receiving and routing do with a request before anything is written. Never raises.

        at_ms: when it arrives. keys: values for paths under the root `key`, in addition to those the event names
        itself.
        """
        new = sources.read(source, request)
        event = Event(
            id=0,
            source=source.name,
            provider=source.provider,
            envelope=new.envelope,
            received_at_ms=at_ms,
            state=EventState.RECEIVED,
            headers=new.headers,
            query=new.query,
            body=request.body,
        )
        return replace(self, keys=keys or {}).prepare(event)

    def prepare(self, event: Event) -> PreparedEvent:
        """Read the event and evaluate the rules. Never raises."""
        return self.judge(self.read(event))

    def read(self, event: Event, *, names: bool = True) -> ReadEvent:
        """Split the event into documents and find what they name. Never raises.

        names: False defers this until it is needed, which for most events without a goal is never.
        """
        source = self.rule_set.sources.get(event.source)
        if source is None:
            return ReadEvent(
                event,
                quarantine=f'there is no mapping file for the source "{event.source}" any more: put {event.source}.yaml'
                f" back and route it again with `events replay {event.name}`",
            )
        try:
            documents = sources.documents(source, event)
            called = _names(event, documents)
            read = [self._document(source, event, i, document, called[i]) for i, document in enumerate(documents)]
            for read_document in read if names else ():
                read_document.names.found()
        except UnreadableBody as error:
            return ReadEvent(event, quarantine=str(error))
        except Exception as error:  # noqa: BLE001 - a bug of ours must not stop the events behind this one
            return ReadEvent(event, quarantine=_problem(event, error))
        return ReadEvent(event, tuple(read))

    def judge(self, read: ReadEvent) -> PreparedEvent:
        """Evaluate the rules on an event read by this source, or by one that reads identically. Never raises."""
        event = read.event
        if read.quarantine is not None:
            return PreparedEvent(event, quarantine=read.quarantine)
        source = self.rule_set.sources[event.source]
        try:
            elements = tuple(self._element(source, event, document) for document in read.documents)
        except Exception as error:  # noqa: BLE001 - as above
            return PreparedEvent(event, quarantine=_problem(event, error))
        return PreparedEvent(event, elements)

    def _document(self, source: Source, event: Event, number: int, document: Document, name: str) -> ReadDocument:
        envelope = _envelope(document)
        times = _times(event, envelope)
        ignored = sources.ignored(source, document)

        def look() -> Found:
            called = without_addresses(f"{envelope.type or 'an event'} {name}")
            if ignored is not None:
                return Observation((), times[1], called, event.id, number, sender=source.name), ()
            keys = identity.keys(source, envelope, document, self._matching())
            judged = self._judged(identity.candidates(source, document))
            named = next(iter(identity.ranked(judged)), None)
            return Observation(keys, times[1], called, event.id, number, named, source.name), judged

        return ReadDocument(document, name, envelope, times, Names(look), ignored)

    def _matching(self) -> identity.Matching:
        by_email = self.settings.bridge_match_email == "on"
        return identity.Matching(self.settings.bridge_match_user == "on", self.email_key if by_email else None)

    def _element(self, source: Source, event: Event, read: ReadDocument) -> Element:
        if read.ignored is not None:
            return Element(read.envelope, read.names, ignored=read.ignored)
        document, envelope = read.document, read.envelope
        table = self.rule_set.tables.get(source.name)
        keyed = table is not None and table.keyed
        ids = {**identity.by_kind(read.observation.keys), **self.keys} if keyed else self.keys
        evaluation = rules.evaluate(
            self.rule_set,
            source,
            Document(document.body, document.header, document.query, document.envelope, ids, document.root),
            event_name=read.name,
            mode=envelope.mode,
            hash_key=self.hash_key,
            near=self.near,
        )
        if not (evaluation.planned or evaluation.following):
            return Element(envelope, read.names, evaluation)
        (observation, judged), (happened_ms, ordered_ms, is_stated) = read.names.found(), read.times
        keys = observation.keys
        element_fields = {
            "happened_at_ms": happened_ms,
            "ordered_at_ms": ordered_ms,
            "time_is_stated": is_stated,
            "keys": (*keys, *identity.live_twins(keys)) if envelope.test else keys,
            "test": envelope.test,
            "handover": source.handovers.first_match(document) if source.handovers is not None else None,
        }

        def drafts(goals: Iterable[PlannedGoal]) -> tuple[GoalDraft, ...]:
            described = (_described(goal, event, read.name) for goal in goals)
            return tuple(self._draft(event, goal, judged, element_fields) for goal in described)

        goals, following = drafts(evaluation.planned), drafts(evaluation.following)
        return Element(envelope, read.names, evaluation, goals, following)

    def _draft(
        self, event: Event, planned: PlannedGoal, judged: tuple[JudgedCandidate, ...], element_fields: Mapping[str, Any]
    ) -> GoalDraft:
        candidates = self._all_judged(planned, judged)
        # Payments of test events are never sent: nobody paid that money.
        redirected = element_fields["test"] and TEST in self.destinations and planned.kind == "goal"
        return GoalDraft(
            event,
            planned,
            TEST if redirected else planned.destination,
            own=identity.ranked(candidates),
            refused=next((f"{item.path} {item.why}" for item in candidates if item.why and not item.app_value), None),
            dry=element_fields["test"] and not redirected,
            rules_hash=self.rule_set.hash,
            **element_fields,
        )

    def _judged(self, candidates: Iterable[Any]) -> tuple[JudgedCandidate, ...]:
        return tuple(identity.judge(candidate, self.settings.bridge_visitor_id) for candidate in candidates)

    def _all_judged(self, planned: PlannedGoal, judged: tuple[JudgedCandidate, ...]) -> tuple[JudgedCandidate, ...]:
        """The rule's candidates, then the file's and those found by code."""
        if not planned.candidates:
            return judged
        own = {candidate.path for candidate in planned.candidates}
        return (*self._judged(planned.candidates), *(item for item in judged if item.path not in own))


def _problem(event: Event, error: Exception) -> str:
    log.error("prepare.fault", event_id=event.id, error=type(error).__name__)  # a traceback quotes bodies
    return f"reading this event failed here ({type(error).__name__})"


def _envelope(document: Document) -> Envelope:
    found = document.envelope
    return Envelope(
        type=found.get("type") or "",
        id=found.get("id"),
        time_ms=found.get("time"),
        test=bool(found.get("test")),
        account=found.get("account"),
    )


def _times(event: Event, envelope: Envelope) -> tuple[int, int, bool]:
    """When an element happened, the time that orders it, and whether the provider states when it happened."""
    stated_ms = event.envelope.time_ms if envelope.time_ms is None else envelope.time_ms
    happened_ms = event.received_at_ms if stated_ms is None else min(stated_ms, event.received_at_ms)
    ordered_ms = event.ordered_at_ms if event.envelope.order_ms is not None else happened_ms
    return happened_ms, ordered_ms, stated_ms is not None


def _described(planned: PlannedGoal, event: Event, name: str) -> PlannedGoal:
    """The goal with its default description, one per element of a batch, in the form in which DataFast returns it."""
    if planned.description is not None or name == event.name:
        return planned
    return planned._replace(description=limits.clean_value(without_addresses(f"{event.source} {name}")))


def _names(event: Event, documents: Sequence[Document]) -> list[str]:
    """The name of each document's event in once keys: the provider's id if it is unique, else ours."""
    ids = [document.envelope.get("id") or "" for document in documents]
    if len(documents) == 1:
        return [event.name if not ids[0] or is_fixture_id(ids[0]) else ids[0]]
    uses = Counter(ids)
    return [name if name and uses[name] == 1 else f"{event.name}.{i}" for i, name in enumerate(ids)]


# ------------------------------------------------------------------------------------ goals that follow others


def followed(batch: Iterable[PreparedEvent]) -> set[Place]:
    """The destinations and once keys of the goals that other goals of these events follow."""
    return {_followed(draft) for prepared in batch for element in prepared.elements for draft in element.following}


def settle(batch: Iterable[PreparedEvent], made: Collection[Place]) -> list[PreparedEvent]:
    """The batch with every following goal decided: it becomes a draft, or its trace says which goal was missing.

    made: the goals that exist. Goals made by an earlier event of the batch count too; those of the same event do not.
    If the other goal is made later, the decision stands: here, and only here, the order of events matters (law 4
    excepts it).
    """
    existing, settled = set(made), []
    for prepared in batch:
        event = replace(prepared, elements=tuple(_settled(element, existing) for element in prepared.elements))
        existing |= {draft.place for element in event.elements for draft in element.drafts}
        settled.append(event)
    return settled


def _followed(draft: GoalDraft) -> Place:
    """The destination and once key of the goal that this one follows; the destination is the same."""
    assert draft.planned.follows is not None
    return draft.destination, draft.planned.follows.once_key


def _settled(element: Element, made: Collection[Place]) -> Element:
    if not element.following or element.evaluation is None:
        return element
    drafts = tuple(draft for draft in element.following if _followed(draft) in made)
    by_rule = {draft.planned.rule_id: draft.planned for draft in element.following}
    matched = {draft.planned.rule_id for draft in drafts}
    traces = tuple(_settled_trace(trace, by_rule.get(trace.rule_id), matched) for trace in element.evaluation.traces)
    evaluation = element.evaluation._replace(traces=traces)
    return replace(element, drafts=(*element.drafts, *drafts), following=(), evaluation=evaluation)


def _settled_trace(trace: RuleTrace, planned: PlannedGoal | None, matched: Collection[str]) -> RuleTrace:
    if planned is None or planned.follows is None:
        return trace
    if trace.rule_id in matched:
        return trace._replace(result="matched", message=None, notes=planned.notes)
    return trace._replace(message=f"no {planned.follows.text} was made before")
