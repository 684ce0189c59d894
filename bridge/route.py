"""Stored events → goals: evaluate the rules, learn the links, resolve the visitor, write goals, trace, verdict.

Work that needs no database is done before the transaction (`bridge.prepare`). One transaction then writes a small
batch; if it fails, its events are retried one by one, so that one bad event does not affect the others.

The trace of an event (`events.trace`, JSON) answers every "why":
    {"elements": [{                         one entry, or with `each` one per element
        "type", "id", "mode",
        "ignored": why no rule was evaluated,
        "rules": [{"rule", "goal", "result", "path", "expected", "actual", "message", "notes"}],
        "nearest": if the element made no goal, the rule that came nearest: {"rule", "goal", "failing" (of its
                   "conditions", and one more if it is switched off), "path", "expected", "actual", "message"},
        "candidates": [{"path", "value", "visitor" (accepted), "bare" (a client_reference_id), "borrowed" (to be
                        proved), "why" (refused)}],
        "keys": ["stripe:live:sub_1", …],
        "goals": [{"rule", "goal", "id", "outcome": made|merged|known, "event_id" (the event that made it), "state",
                   "destination", "once_key", "visitor", "found" (bridge.identity.choice.FoundVisitor), "message",
                   "refused" (a value that is not a visitor id), "notes"}]}],
     "stopped": {key: why it no longer links anything}}
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bridge import logs
from bridge.errors import StoreError
from bridge.prepare import Element, PreparedEvent, Preparer, followed, settle
from bridge.rules import NearMiss
from bridge.store import clock, facts
from bridge.store.database.driver import driver_of
from bridge.store.goals import making, parking, statements
from bridge.store.inbox import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from bridge.identity import JudgedCandidate
    from bridge.model import Destination
    from bridge.rules import RuleSet, RuleTrace
    from bridge.settings import Settings
    from bridge.store import Store
    from bridge.store.goals.making import MadeGoal

T = TypeVar("T")

CLAIM_BATCH: Final = 16  # events per claim: acknowledgements are slower during a claim
# Events per transaction; on SQLite, acknowledgements wait for it.
WRITE_BATCH: Final = {"sqlite": 8, "postgresql": CLAIM_BATCH}
RELEARN_BATCH: Final = 200  # events that are learned again per transaction

log = logs.get("route")


class _LeaseLost(Exception):
    """Another process is routing the event now, so this attempt must be rolled back completely."""


class Router:
    """Routes the events that wait. Used by one thread; any number of routers may share a database.

    on_goals: called after a commit that may have made goals ready to send. expiry_clock: `Timekeeper.expiry_clock`,
    which decides whether a wait is over.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        new_token: Callable[[], str],
        on_goals: Callable[[], None] = lambda: None,
        expiry_clock: Callable[[Connection], int] = clock.read_ms,
    ) -> None:
        self._store = store
        self._settings = settings
        self._on_goals = on_goals
        self._new_token = new_token
        self._expiry_clock = expiry_clock
        self._keys: dict[str, bytes] = {}
        self._unfinished: tuple[list[int], str] | None = None  # claimed, but the connection to the database was lost

    def route_batch(self, rule_set: RuleSet, destinations: Mapping[str, Destination], limit: int = CLAIM_BATCH) -> int:
        """Route the oldest waiting events and return how many were claimed. After a StoreError, try again later."""
        self._release_unfinished()
        token = self._new_token()
        claimed = self._run(lambda conn: events.claim(conn, limit, token, self._settings.bridge_lease))
        if not claimed:
            return 0
        self._unfinished = ([event.id for event in claimed], token)
        preparer = self._preparer(rule_set, destinations)
        prepared = [preparer.prepare(event) for event in claimed]
        size = WRITE_BATCH[self._store.dialect]
        for start in range(0, len(prepared), size):
            self._write(preparer, prepared[start : start + size], token)
        self._unfinished = None
        return len(claimed)

    def sweep(self) -> int:
        """Decide about parked goals whose grace period or wait is over; return how many changed state."""
        return self._run(lambda conn: parking.sweep(conn, self._settings, expiry_clock=self._expiry_clock))

    def relearn(self, rule_set: RuleSet, after_id: int = 0) -> tuple[int, int]:
        """Learn again from the stored events after `after_id`; return how many were read, and the last one's id."""
        with self._store.read() as conn:
            stored = events.stored_after(conn, after_id, RELEARN_BATCH)
        preparer = self._preparer(rule_set, {})
        prepared = [preparer.prepare(event) for event in stored]
        observations = [element.observation for event in prepared for element in event.elements]

        def learn(conn: Connection) -> None:
            parking.learn(conn, observations, self._settings, clock.read_ms(conn))

        self._store.run(learn)
        return len(stored), stored[-1].id if stored else after_id

    def _run(self, work: Callable[[Connection], T]) -> T:
        """A transaction that does not wait for the disk: if a power cut undoes it, its events are routed again.

        None of its goals can have been sent by then: an attempt is committed durably, with all it depends on, before
        sending.
        """
        return self._store.run(work, durable=False)

    def _release_unfinished(self) -> None:
        if self._unfinished is not None:
            ids, token = self._unfinished
            self._run(lambda conn: events.release(conn, ids, token))
            self._unfinished = None

    def _preparer(self, rule_set: RuleSet, destinations: Mapping[str, Destination]) -> Preparer:
        match_email = self._settings.bridge_match_email == "on"
        email_key = self._key(facts.EMAIL_KEY) if match_email else None
        return Preparer(rule_set, self._settings, destinations, self._key(facts.HASH_KEY), email_key=email_key)

    def _key(self, name: str) -> bytes:
        """The key for the `hash` filter or for e-mail addresses: permanent, and the same for every process."""
        if name not in self._keys:
            new_key = self._new_token() + self._new_token()
            self._keys[name] = self._store.run(lambda conn: facts.ensure(conn, name, lambda: new_key)).encode()
        return self._keys[name]

    def _write(self, preparer: Preparer, batch: Sequence[PreparedEvent], token: str) -> None:
        if len(batch) > 1:
            try:
                self._commit(preparer, batch, token)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - the events are retried one by one
                log.warning("route.row_by_row", events=len(batch), error=type(error).__name__)
            else:
                return
        for prepared in batch:
            self._write_one(preparer, prepared, token)

    def _commit(self, preparer: Preparer, batch: Sequence[PreparedEvent], token: str) -> None:
        if self._run(lambda conn: _commit(conn, preparer, batch, token)):
            self._on_goals()

    def _write_one(self, preparer: Preparer, prepared: PreparedEvent, token: str) -> None:
        event = prepared.event
        try:
            self._commit(preparer, [prepared], token)
        except _LeaseLost:
            log.info("route.lease_lost", event_id=event.id)
            self._run(lambda conn: events.release(conn, [event.id], token))
            if self._unfinished is not None:
                self._unfinished[0].remove(event.id)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a retry would fail again and hold up the events behind it
            log.error("route.fault", event_id=event.id, error=type(error).__name__)  # noqa: TRY400 - a trace quotes bodies
            reason = (
                f"routing this event failed here ({type(error).__name__}); `events replay {event.name}` tries again"
            )
            self._run(lambda conn: events.quarantine(conn, event.id, token, reason))


def _commit(conn: Connection, preparer: Preparer, batch: Sequence[PreparedEvent], token: str) -> bool:
    """Write everything about some events, or nothing. False: no goal was made, and no goal's visitor was learned."""
    now = driver_of(conn).now_ms()
    readable = [prepared for prepared in batch if prepared.quarantine is None]
    if preceding := followed(readable):
        readable = settle(readable, statements.made_before(conn, preceding))
    observations = [element.observation for prepared in readable for element in prepared.elements]
    links = parking.learn(conn, observations, preparer.settings, now)
    drafts = [draft for prepared in readable for element in prepared.elements for draft in element.drafts]
    made = iter(making.make(conn, drafts, links, preparer.settings, now))
    for key, why in links.stopped.items():
        log.warning("link.stopped", key=key, reason=why)
    ends = [
        events.RoutingResult(
            prepared.event.id,
            prepared.verdict,
            prepared.reason,
            _trace(prepared, made, links.stopped),
            preparer.rule_set.hash,
        )
        for prepared in readable
    ]
    leases_held = events.finish_all(conn, token, ends)
    for prepared in batch:
        if prepared.quarantine is not None:
            leases_held &= events.quarantine(conn, prepared.event.id, token, prepared.quarantine)
    if not leases_held:
        raise _LeaseLost
    return bool(drafts or links.gained or links.customers_gained)


# ------------------------------------------------------------------------------------------------------------ trace


def _trace(prepared: PreparedEvent, made: Iterable[MadeGoal], stopped: Mapping[str, str]) -> str:
    made = iter(made)
    elements = [_element_json(element, [next(made) for _ in element.drafts]) for element in prepared.elements]
    trace = f'{{"elements":[{",".join(elements)}]'
    keys = {key.text for element in prepared.elements for key in element.observation.keys} if stopped else ()
    if linked := {key: why for key, why in stopped.items() if key in keys}:
        trace += f',"stopped":{_encode(linked)}'
    return trace + "}"


def _element_json(element: Element, made: Sequence[MadeGoal]) -> str:
    """The trace of an element as JSON. Most rules' traces are the same for every event, and are cached as strings."""
    encoded = _encode(_element_trace(element, made, rules=False))
    if element.evaluation is None or not element.evaluation.traces:
        return encoded
    rules = ",".join(
        _static_json(trace) if trace.result in _STATIC else _encode(trace.to_json())
        for trace in element.evaluation.traces
    )
    return f'{encoded[:-1]},"rules":[{rules}]}}'


_STATIC: Final = ("event", "disabled")  # such a trace depends only on the event's type


@lru_cache(maxsize=4_096)
def _static_json(trace: RuleTrace) -> str:
    return _encode(trace.to_json())


_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def preview(prepared: PreparedEvent) -> dict[str, Any]:
    """The part of an event's trace that needs no database (`explain`)."""
    return {"elements": [_element_trace(element, ()) for element in prepared.elements]}


def _element_trace(element: Element, made: Sequence[MadeGoal], *, rules: bool = True) -> dict[str, Any]:
    envelope, evaluation = element.envelope, element.evaluation
    trace = {
        "type": envelope.type,
        "id": envelope.id,
        "mode": envelope.mode,
        "ignored": element.ignored,
        "rules": [trace.to_json() for trace in evaluation.traces] if evaluation and rules else None,
        "nearest": _nearest(element),
        "candidates": [_candidate_trace(item) for item in element.judged],
        "keys": [key.text for key in element.observation.keys],
        "goals": [_goal_trace(item) for item in made],
    }
    return {name: value for name, value in trace.items() if value not in (None, [])}


def _nearest(element: Element) -> dict[str, Any] | None:
    """The rule that came nearest to a goal. One that failed, or whose preceding goal was not made, takes precedence."""
    if element.evaluation is None or element.drafts or element.following:
        return None
    for trace in element.evaluation.traces:
        if trace.result in ("failed", "follows"):
            return NearMiss(trace, 1, 1).to_json()
    near = element.evaluation.nearest
    return None if near is None else near.to_json()


def _candidate_trace(judged: JudgedCandidate) -> dict[str, Any]:
    trace = {
        "path": judged.path,
        "value": judged.shown,
        "visitor": judged.visitor,
        "bare": not judged.sure or None,
        "borrowed": judged.borrowed or None,
        "why": judged.why,
    }
    return {name: value for name, value in trace.items() if value is not None}


def _goal_trace(made: MadeGoal) -> dict[str, Any]:
    planned = made.draft.planned
    trace = {
        "rule": planned.rule_id,
        "origin": planned.origin or None,
        "goal": planned.name,
        "id": made.goal_id,
        "outcome": made.outcome,
        "event_id": made.event_id if made.outcome != "made" else None,
        "state": made.state.value,
        "destination": made.draft.destination,
        "once_key": planned.once_key,
        "visitor": made.found.visitor if made.found and not made.unproved else None,
        "found": made.found.to_json() if made.found else None,
        "message": made.message,
        "refused": made.draft.refused,
        "notes": list(planned.notes) or None,
    }
    return {name: value for name, value in trace.items() if value is not None}
