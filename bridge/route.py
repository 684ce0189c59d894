"""Stored events → goals: evaluate the rules, learn the links, resolve the visitor, write goals, trace and verdict.

What needs no database (documents, keys, candidates, rules) is done before the transaction; then one transaction takes
a small batch, and a batch that fails is repeated event by event, so that one bad event hurts no other.

The trace of an event (`events.trace`, JSON) answers every "why":
    {"elements": [{                         one, or with `each` one per element
        "type", "id", "mode",
        "ignored": why no rule was asked,
        "rules": [{"rule", "goal", "result", "path", "expected", "actual", "message", "notes"}],
        "candidates": [{"path", "value", "visitor" (taken as one), "bare" (a client_reference_id), "why" (refused)}],
        "keys": ["stripe:live:sub_1", …],
        "goals": [{"rule", "goal", "id", "outcome": made|merged|known, "event_id" (which event made it), "state",
                   "destination", "once_key", "visitor", "found" (bridge.linking.Found), "message", "refused" (a value
                   that is no visitor id), "notes"}]}],
     "stopped": {key: why it links nothing any more}}
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from bridge import identity, logs, rules, sources
from bridge.errors import StoreError, UnreadableBody
from bridge.linking import Learning
from bridge.model import Envelope, Verdict
from bridge.store import clock, events, facts, plans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from bridge.identity import Judged
    from bridge.model import Destination, Document, Event, Key, PlannedGoal, Source
    from bridge.rules import Evaluation, RuleSet
    from bridge.settings import Settings
    from bridge.store import Store

BATCH: Final = 50  # events a transaction
TEST: Final = "test"  # the destination of test events, when it has a key
_ZEROS: Final = re.compile(r"(?:[A-Za-z]+_)*[0-]*0[0-]*")  # evt_00000000000000 is nobody's id

log = logs.get("route")


class _LeaseLost(Exception):
    """Somebody else routes the event meanwhile; nothing of this try may stay."""


# ------------------------------------------------------------------------------------------------ without database


@dataclass(frozen=True, slots=True)
class Element:
    """One document of an event, and all that can be said about it without the database."""

    envelope: Envelope
    learning: Learning
    judged: tuple[Judged, ...] = ()
    evaluation: Evaluation | None = None
    wishes: tuple[plans.Wish, ...] = ()
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
        return Verdict.IGNORED if self.reason else Verdict.UNMATCHED

    @property
    def reason(self) -> str | None:
        """Why the event was ignored."""
        reasons = [element.ignored for element in self.elements]
        return reasons[0] if reasons and all(reasons) else None


@dataclass(frozen=True, slots=True)
class Desk:
    """What preparing an event needs beside the event."""

    rule_set: RuleSet
    settings: Settings
    destinations: Mapping[str, Destination]
    hash_key: bytes = field(repr=False)

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
            replace(document, key=identity.by_kind(keys)),
            event_name=name,
            mode=envelope.mode,
            hash_key=self.hash_key,
        )
        times = (happened_ms, ordered_ms, stated_ms is not None)
        return Element(
            envelope,
            Learning(keys, ordered_ms, label, event.id, number, named[0] if named else None),
            judged,
            evaluation,
            tuple(self._wish(event, envelope, planned, keys, judged, times) for planned in evaluation.planned),
        )

    def _wish(
        self,
        event: Event,
        envelope: Envelope,
        planned: PlannedGoal,
        keys: tuple[Key, ...],
        judged: tuple[Judged, ...],
        times: tuple[int, int, bool],
    ) -> plans.Wish:
        mine = self._all_judged(planned, judged)
        refused = next((f"{item.path} {item.why}" for item in mine if item.why), None)
        redirected = envelope.test and TEST in self.destinations
        return plans.Wish(
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
        known = {item.path: item for item in judged}
        mine = [candidate for candidate in planned.candidates if candidate.path not in known]
        return (*self._judged(mine), *judged) if mine else judged


def _envelope(document: Document) -> Envelope:
    said = document.envelope
    return Envelope(
        type=said.get("type") or "",
        id=said.get("id"),
        time_ms=said.get("time"),
        test=bool(said.get("test")),
        account=said.get("account"),
    )


def _names(event: Event, documents: Sequence[Document]) -> list[str]:
    """What each document's event is called in once keys: the provider's id where it is one's own, else ours."""
    ids = [document.envelope.get("id") or "" for document in documents]
    if len(documents) == 1:
        return [event.name if not ids[0] or _ZEROS.fullmatch(ids[0]) else ids[0]]
    uses = Counter(ids)
    return [name if name and uses[name] == 1 else f"{event.name}.{i}" for i, name in enumerate(ids)]


# --------------------------------------------------------------------------------------------------- with database


class Router:
    """Routes what waits. One thread uses it; any number of routers may work on one database."""

    def __init__(self, store: Store, settings: Settings, *, new_token: Callable[[], str]) -> None:
        self._store = store
        self._settings = settings
        self._new_token = new_token
        self._hash_key: bytes | None = None
        self._unfinished: tuple[list[int], str] | None = None  # claimed, but the database went away

    def route_batch(self, rule_set: RuleSet, destinations: Mapping[str, Destination], limit: int = BATCH) -> int:
        """Route the oldest events that wait; how many were claimed. StoreError: try again later."""
        self._give_back()
        token = self._new_token()
        claimed = self._store.run(lambda conn: events.claim(conn, limit, token, self._settings.bridge_lease))
        if not claimed:
            return 0
        self._unfinished = ([event.id for event in claimed], token)
        desk = Desk(rule_set, self._settings, destinations, self._key())
        self._write(desk, [desk.prepare(event) for event in claimed], token)
        self._unfinished = None
        return len(claimed)

    def sweep(self) -> int:
        """Look at the parked goals whose grace or wait is over; how many changed their state."""
        return self._store.run(lambda conn: plans.sweep_parked(conn, self._settings))

    def relearn(self, rule_set: RuleSet, after_id: int = 0, limit: int = 200) -> tuple[int, int]:
        """Learn again from stored events behind `after_id`; how many were read, and the last one's id."""
        with self._store.read() as conn:
            stored = events.after(conn, after_id, limit)
        desk = Desk(rule_set, self._settings, {}, self._key())
        prepared = [desk.prepare(event) for event in stored]
        learnings = [element.learning for one in prepared for element in one.elements]

        def learn(conn: Connection) -> None:
            plans.learn(conn, learnings, self._settings, clock.read_ms(conn))

        self._store.run(learn)
        return len(stored), stored[-1].id if stored else after_id

    def _give_back(self) -> None:
        if self._unfinished is not None:
            ids, token = self._unfinished
            self._store.run(lambda conn: events.release(conn, ids, token))
            self._unfinished = None

    def _key(self) -> bytes:
        """The key of the filter `hash`, the same for every process and for ever."""
        if self._hash_key is None:
            made = self._new_token() + self._new_token()
            text = self._store.run(lambda conn: facts.ensure(conn, facts.HASH_KEY, lambda: made))
            self._hash_key = text.encode()
        return self._hash_key

    def _write(self, desk: Desk, batch: Sequence[Prepared], token: str) -> None:
        if len(batch) > 1:
            try:
                self._store.run(lambda conn: _commit(conn, desk, batch, token))
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - found out one by one
                log.warning("route.row_by_row", events=len(batch), error=type(error).__name__)
            else:
                return
        for prepared in batch:
            self._write_one(desk, prepared, token)

    def _write_one(self, desk: Desk, prepared: Prepared, token: str) -> None:
        event = prepared.event
        try:
            self._store.run(lambda conn: _commit(conn, desk, [prepared], token))
        except _LeaseLost:
            log.info("route.lease_lost", event_id=event.id)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - it would fail again, and hold up those behind it
            log.error("route.fault", event_id=event.id, error=type(error).__name__)  # noqa: TRY400 - a trace quotes bodies
            reason = (
                f"routing this event failed here ({type(error).__name__}); `events replay {event.name}` tries again"
            )
            self._store.run(lambda conn: events.quarantine(conn, event.id, token, reason))


def _commit(conn: Connection, desk: Desk, batch: Sequence[Prepared], token: str) -> None:
    """Write everything about some events, or nothing."""
    now = clock.read_ms(conn)
    good = [prepared for prepared in batch if prepared.quarantine is None]
    learnings = [element.learning for prepared in good for element in prepared.elements]
    memory = plans.learn(conn, learnings, desk.settings, now)
    wishes = [wish for prepared in good for element in prepared.elements for wish in element.wishes]
    made = iter(plans.make(conn, wishes, memory, desk.settings, now))
    for key, why in memory.stopped.items():
        log.warning("link.stopped", key=key, reason=why)
    ends = [
        events.End(
            prepared.event.id,
            prepared.verdict,
            prepared.reason,
            _trace(prepared, made, memory.stopped),
            desk.rule_set.hash,
        )
        for prepared in good
    ]
    held = events.finish_all(conn, token, ends)
    for prepared in batch:
        if prepared.quarantine is not None:
            held &= events.quarantine(conn, prepared.event.id, token, prepared.quarantine)
    if not held:
        raise _LeaseLost


# ------------------------------------------------------------------------------------------------------------ trace


def _trace(prepared: Prepared, made: Iterable[plans.Made], stopped: Mapping[str, str]) -> str:
    made = iter(made)
    elements = [_element_trace(element, [next(made) for _ in element.wishes]) for element in prepared.elements]
    trace: dict[str, Any] = {"elements": elements}
    mine = {key.text for element in prepared.elements for key in element.learning.keys}
    if told := {key: why for key, why in stopped.items() if key in mine}:
        trace["stopped"] = told
    return json.dumps(trace, ensure_ascii=False, separators=(",", ":"))


def foretold(prepared: Prepared) -> dict[str, Any]:
    """The trace that an event would get, as far as it needs no database (`explain`)."""
    return {"elements": [_element_trace(element, ()) for element in prepared.elements]}


def _element_trace(element: Element, made: Sequence[plans.Made]) -> dict[str, Any]:
    envelope = element.envelope
    trace = {
        "type": envelope.type,
        "id": envelope.id,
        "mode": envelope.mode,
        "ignored": element.ignored,
        "rules": [trace.to_json() for trace in element.evaluation.traces] if element.evaluation else None,
        "candidates": [_candidate_trace(item) for item in element.judged],
        "keys": [key.text for key in element.learning.keys],
        "goals": [_goal_trace(item) for item in made],
    }
    return {name: value for name, value in trace.items() if value not in (None, [])}


def _candidate_trace(judged: Judged) -> dict[str, Any]:
    trace = {
        "path": judged.path,
        "value": judged.shown,
        "visitor": judged.visitor,
        "bare": not judged.sure or None,
        "why": judged.why,
    }
    return {name: value for name, value in trace.items() if value is not None}


def _goal_trace(made: plans.Made) -> dict[str, Any]:
    planned = made.wish.planned
    trace = {
        "rule": planned.rule_id,
        "goal": planned.name,
        "id": made.goal_id,
        "outcome": made.outcome,
        "event_id": made.event_id if made.outcome != "made" else None,
        "state": made.state.value,
        "destination": made.wish.destination,
        "once_key": planned.once_key,
        "visitor": made.found.visitor if made.found else None,
        "found": made.found.to_json() if made.found else None,
        "message": made.message,
        "refused": made.wish.refused,
        "notes": list(planned.notes) or None,
    }
    return {name: value for name, value in trace.items() if value is not None}
