"""An event, read and asked about: what routing can find out without the database, and without ever raising.

Documents, keys, visitor candidates and rules meet here. What comes out is a `Prepared`: per document what it teaches,
which goals it wants, and the traces; or why the event is quarantined.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from bridge import identity, limits, logs, rules, sources
from bridge.errors import UnreadableBody
from bridge.identity.linking import Learning
from bridge.model import Envelope, Event, EventState, Verdict
from bridge.store.goals import drafts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bridge.identity import Judged
    from bridge.model import Destination, Document, Key, PlannedGoal, Request, Source
    from bridge.rules import Evaluation, RuleSet
    from bridge.settings import Settings

TEST: Final = "test"  # the destination of test events, when it has a key
_ZEROS: Final = re.compile(r"(?:[A-Za-z]+_)*[0-]*0[0-]*")  # evt_00000000000000 is nobody's id

log = logs.get("route")


@dataclass(frozen=True, slots=True)
class Element:
    """One document of an event, and all that can be said about it without the database."""

    envelope: Envelope
    learning: Learning
    judged: tuple[Judged, ...] = ()
    evaluation: Evaluation | None = None
    wishes: tuple[drafts.Wish, ...] = ()
    following: tuple[drafts.Wish, ...] = ()  # wishes only if what they follow was made before (`bridge.following`)
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """An event, ready to be written; or why it is quarantined."""

    event: Event
    elements: tuple[Element, ...] = ()
    quarantine: str | None = None

    @property
    def verdict(self) -> Verdict:
        if any(element.wishes for element in self.elements):
            return Verdict.MATCHED
        return Verdict.IGNORED if self.ignored else Verdict.UNMATCHED

    @property
    def ignored(self) -> str | None:
        """Why no rule was asked."""
        reasons = [element.ignored for element in self.elements]
        return reasons[0] if reasons and all(reasons) else None

    @property
    def reason(self) -> str | None:
        """Why no goal came of it, if more can be said than that no rule matched."""
        if self.verdict is Verdict.MATCHED:
            return None
        failed = (
            f"the rule {trace.rule_id} failed: {trace.message}"
            for element in self.elements
            for trace in (element.evaluation.traces if element.evaluation else ())
            if trace.result == "failed"
        )
        return self.ignored or next(failed, None)


@dataclass(frozen=True, slots=True)
class Desk:
    """What preparing an event needs beside the event."""

    rule_set: RuleSet
    settings: Settings
    destinations: Mapping[str, Destination]
    hash_key: bytes = field(repr=False)
    keys: Mapping[str, str] = field(default_factory=dict)

    def arrive(
        self, source: Source, request: Request, at_ms: int, *, keys: Mapping[str, str] | None = None
    ) -> Prepared:
        """Do with a request all that receiving and routing do before anything is written. Never raises.

        at_ms: when it arrives. keys: what paths read under the root `key`, beside what the event names itself.
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

    def prepare(self, event: Event) -> Prepared:
        """Read the event and ask the rules. Never raises."""
        source = self.rule_set.sources.get(event.source)
        if source is None:
            return Prepared(
                event,
                quarantine=f'there is no mapping file for the source "{event.source}" any more: put {event.source}.yaml'
                f" back and route it again with `events replay {event.name}`",
            )
        try:
            documents = sources.documents(source, event)
            names = _names(event, documents)
            elements = [self._element(source, event, i, document, names[i]) for i, document in enumerate(documents)]
        except UnreadableBody as error:
            return Prepared(event, quarantine=str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not stop the events behind this one
            log.error("prepare.fault", event_id=event.id, error=type(error).__name__)  # noqa: TRY400 - a trace quotes bodies
            return Prepared(event, quarantine=f"reading this event failed here ({type(error).__name__})")
        return Prepared(event, tuple(elements))

    def _element(self, source: Source, event: Event, number: int, document: Document, name: str) -> Element:
        envelope = _envelope(document)
        stated_ms = event.envelope.time_ms if envelope.time_ms is None else envelope.time_ms
        happened_ms = event.received_at_ms if stated_ms is None else min(stated_ms, event.received_at_ms)
        ordered_ms = event.ordered_at_ms if event.envelope.order_ms is not None else happened_ms
        label = f"{envelope.type or 'an event'} {name}"
        why = sources.ignored(source, document)
        if why is not None:
            return Element(envelope, Learning((), ordered_ms, label, event.id, number), ignored=why)
        keys = identity.keys(source, envelope, document)
        judged = self._judged(identity.candidates(source, document))
        named = identity.ranked(judged)
        evaluation = rules.evaluate(
            self.rule_set,
            source,
            replace(document, key={**identity.by_kind(keys), **self.keys}),
            event_name=name,
            mode=envelope.mode,
            hash_key=self.hash_key,
        )
        times = (happened_ms, ordered_ms, stated_ms is not None)
        made = bool(evaluation.planned or evaluation.following)
        handover = source.handovers.of(document) if made and source.handovers is not None else None

        def wishes(goals: Iterable[PlannedGoal]) -> tuple[drafts.Wish, ...]:
            described = (_described(planned, event, name) for planned in goals)
            return tuple(
                replace(self._wish(event, envelope, planned, keys, judged, times), handover=handover)
                for planned in described
            )

        return Element(
            envelope,
            Learning(keys, ordered_ms, label, event.id, number, named[0] if named else None),
            judged,
            evaluation,
            wishes(evaluation.planned),
            wishes(evaluation.following),
        )

    def _wish(
        self,
        event: Event,
        envelope: Envelope,
        planned: PlannedGoal,
        keys: tuple[Key, ...],
        judged: tuple[Judged, ...],
        times: tuple[int, int, bool],
    ) -> drafts.Wish:
        mine = self._all_judged(planned, judged)
        refused = next((f"{item.path} {item.why}" for item in mine if item.why and not item.lent), None)
        redirected = envelope.test and TEST in self.destinations
        return drafts.Wish(
            event,
            planned,
            TEST if redirected else planned.destination,
            *times,
            keys=keys,
            own=identity.ranked(mine),
            refused=refused,
            test=envelope.test,
            dry=envelope.test and not redirected,
            rules_hash=self.rule_set.hash,
        )

    def _judged(self, candidates: Iterable[Any]) -> tuple[Judged, ...]:
        return tuple(identity.judge(candidate, self.settings.bridge_visitor_id) for candidate in candidates)

    def _all_judged(self, planned: PlannedGoal, judged: tuple[Judged, ...]) -> tuple[Judged, ...]:
        """The rule's candidates, then the file's and those that only code can find."""
        if not planned.candidates:
            return judged
        mine = {candidate.path for candidate in planned.candidates}
        return (*self._judged(planned.candidates), *(item for item in judged if item.path not in mine))


def _envelope(document: Document) -> Envelope:
    said = document.envelope
    return Envelope(
        type=said.get("type") or "",
        id=said.get("id"),
        time_ms=said.get("time"),
        test=bool(said.get("test")),
        account=said.get("account"),
    )


def _described(planned: PlannedGoal, event: Event, name: str) -> PlannedGoal:
    """With the default description: each element of a batch has its own, and all as DataFast gives them back."""
    if planned.description is not None or name == event.name:
        return planned
    return planned._replace(description=limits.clean_value(f"{event.source} {name}"))


def _names(event: Event, documents: Sequence[Document]) -> list[str]:
    """What each document's event is called in once keys: the provider's id where it is one's own, else ours."""
    ids = [document.envelope.get("id") or "" for document in documents]
    if len(documents) == 1:
        return [event.name if not ids[0] or _ZEROS.fullmatch(ids[0]) else ids[0]]
    uses = Counter(ids)
    return [name if name and uses[name] == 1 else f"{event.name}.{i}" for i, name in enumerate(ids)]
