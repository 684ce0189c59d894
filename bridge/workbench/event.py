"""Everything about one event, in the order in which people ask: its outcome, when, by which rules, for whom.

Then each of its goals: as it was or will be sent, how its values were changed, and what has happened since. The
sentences are those of `why` (`describe`, `trace`, `why`). Unknown parts are left out. Nothing here writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from bridge.datafast.actions import action_of
from bridge.identity.choice import FoundVisitor
from bridge.identity.sentences import best_first, key_in_words
from bridge.masking import HIDDEN, hidden, names_person, without_addresses
from bridge.store.operator import queries, threads
from bridge.text import count, excerpt, span
from bridge.workbench import describe, trace, why
from bridge.workbench.body import indented, provider_page
from bridge.workbench.why import TimelineStep

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.model import Json, Source
    from bridge.store.operator.queries import AttemptLine, EventDetail, GoalDetail, GoalLine
    from bridge.store.operator.threads import KeyLine
    from bridge.workbench.describe import Moment

GOALS_MAX: Final = 20  # goals shown in full
STEPS_MAX: Final = 60
AROUND: Final = 40  # events of the same thread
_SHARED: Final = 12
_NAMINGS_MAX: Final = 6  # events that named a visitor
_NOTE: Final = re.compile(r"(\S+) (?:was|lost) ")
_CLOCKS_DIFFER_MS: Final = 60_000  # at most, if the times of this machine and of the database share a timeline


@dataclass(frozen=True, slots=True)
class EventStep:
    """One moment. kind: ok | bad | wait | nothing."""

    at_ms: int
    sentence: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class RuleLine:
    """The result of one rule, as in a trace; path, expected, actual: of the condition that failed."""

    called: str
    result: str
    sentence: str
    path: str = ""
    expected: str = ""
    actual: str = ""
    nearest: bool = False


@dataclass(frozen=True, slots=True)
class TriedPlace:
    """A place where a visitor id may be: the value there, and how it was judged. taken: it named the visitor."""

    path: str
    value: str
    verdict: str
    taken: bool


@dataclass(frozen=True, slots=True)
class EventElement:
    """One event of a delivery; most deliveries have one. others: how many rules are for other types of events."""

    number: int
    type: str
    id: str
    ignored: str
    nearest: str
    rules: tuple[RuleLine, ...]
    others: str
    places: tuple[TriedPlace, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoalField:
    """One field of a goal as sent. marks: what was cut, cleaned or left out."""

    name: str
    value: str
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """An attempt to send, a read-back, or a question to a provider. next: what followed."""

    at_ms: int
    sentence: str
    took_ms: int | None
    status: int | None
    next: str = ""


@dataclass(frozen=True, slots=True)
class EventGoal:
    """One goal. key: led to its visitor; taught_by: the event that named it; request: the JSON that is sent."""

    id: int
    called: str
    state: str
    kind: str
    visitor: str | None
    facts: tuple[tuple[str, str], ...]
    how: str
    key: str | None
    taught_by: int | None
    route: str
    fields: tuple[GoalField, ...]
    marks: tuple[str, ...]
    request: str
    history: tuple[HistoryStep, ...]
    no_attempts: str
    may_be_sent: bool
    may_be_cancelled: bool


@dataclass(frozen=True, slots=True)
class EventStory:
    """The whole story, without the body. same: the other events about the same fact, with a sentence about each."""

    sentence: str
    kind: str
    facts: tuple[tuple[str, str], ...]
    steps: tuple[EventStep, ...]
    signature: str
    elements: tuple[EventElement, ...]
    stopped: tuple[str, ...]
    removed: str
    goals: tuple[EventGoal, ...]
    other_goals: tuple[tuple[int, str], ...]
    visitors: tuple[tuple[str, tuple[str, ...]], ...]
    shared: tuple[tuple[str, str], ...]
    repeated: str
    same: tuple[tuple[int, str], ...]
    neighbours: tuple[TimelineStep, ...]
    provider_page: str | None
    bindable: bool
    person: str | None


def event_story(
    conn: Connection,
    detail: EventDetail,
    source: Source | None,
    environ: Mapping[str, str],
    secrets: Sequence[str],
    *,
    personal: bool,
) -> EventStory:
    """The story of an event. source: its current definition, if there is one.

    secrets: strings to hide, the longest first. personal: whether to name people.
    """
    line, moment = detail.line, describe.moment(conn, environ)
    goals = queries.goals_of(conn, detail, GOALS_MAX)
    named = threads.keys_of_event(conn, line.id)
    thread = threads.linked_to_keys(conn, named) if named else threads.Thread()
    around = _nearest_events(thread.events, line.id)
    story = EventStory(
        sentence=describe.outcome(detail, moment),
        kind=_kind(detail),
        facts=(("Account", line.account),) if line.account else (),
        steps=tuple(_steps(detail, goals)),
        signature=describe.signature(detail.signature),
        elements=tuple(_element(number, element) for number, element in enumerate(describe.elements(detail), 1)),
        stopped=tuple(f"{key}: {reason}" for key, reason in (detail.trace or {}).get("stopped", {}).items()),
        removed=describe.removed(detail),
        goals=tuple(goal_story(goal, detail, moment, personal=personal) for goal in goals),
        other_goals=tuple((goal.id, describe.goal_outcome(goal, moment)) for goal in line.goals[GOALS_MAX:]),
        visitors=tuple((visitor, tuple(lines[:_NAMINGS_MAX])) for visitor, lines in why.named_visitors(thread).items()),
        shared=tuple(_shared(conn, thread)),
        repeated=f"Delivered {count(line.duplicates, 'more time')}, which changed nothing." if line.duplicates else "",
        same=tuple(_related_events(conn, detail, around)),
        neighbours=tuple(_neighbours(conn, around, moment)),
        provider_page=provider_page(detail, source),
        bindable=bool(named),
        person=_person(goals, named),
    )
    found: EventStory = showable(story, secrets, personal=personal)
    return found


def _shared(conn: Connection, thread: threads.Thread) -> Iterator[tuple[str, str]]:
    """The visitors to whom the keys of others also lead, each with one such key in words."""
    for visitor, key in threads.shared(conn, thread)[:_SHARED]:
        yield visitor, key_in_words(key.kind, key.ref)


def _person(goals: Sequence[GoalDetail], named: Sequence[KeyLine]) -> str | None:
    """The name under which an event's person is found: the visitor, else the most informative key."""
    visitors = (detail.goal.visitor for detail in goals if detail.goal.visitor)
    keys = sorted((key for key in named if key.kind != "email"), key=lambda key: best_first(key.kind), reverse=True)
    return next(visitors, None) or next((key.key for key in keys), None)


def _kind(detail: EventDetail) -> str:
    if detail.line.state == "quarantined":
        return "bad"
    if detail.line.state == "received":
        return "wait"
    return describe.worst_kind(detail.line.goals)


# ----------------------------------------------------------------------------------------------------- the timeline


def _steps(detail: EventDetail, goals: Sequence[GoalDetail]) -> list[EventStep]:
    """The known moments, in order."""
    line, stated_ms = detail.line, detail.event.envelope.time_ms
    steps = [] if stated_ms is None else [EventStep(stated_ms, f"It happened, according to {line.provider}")]
    steps += _received(detail)
    if line.routed_at_ms is not None:
        steps.append(EventStep(line.routed_at_ms, f"Routed: {_VERDICTS.get(line.verdict or '', 'done')}"))
        steps += _visitors_found(detail, line.routed_at_ms)
    known = {step.sentence for step in steps}
    for goal in goals:
        steps += [step for step in _sent(goal) if step.sentence not in known]
    return sorted(steps, key=lambda step: step.at_ms)[:STEPS_MAX]


_VERDICTS: Final = {"matched": "a rule matched", "unmatched": "no rule matched", "ignored": "ignored"}


def _received(detail: EventDetail) -> Iterator[EventStep]:
    """The moments recorded on receipt, by this machine's clock; the row's own time is the database's."""
    stored_ms, remembered = detail.line.received_at_ms, detail.signature or {}
    at_ms = remembered.get("at_ms")
    if at_ms is None or not 0 <= stored_ms - at_ms <= _CLOCKS_DIFFER_MS:
        yield EventStep(stored_ms, "Received, verified and stored")
        return
    if "age_ms" in remembered:
        yield EventStep(at_ms - remembered["age_ms"], "Signed by its sender")
    yield EventStep(at_ms, "Received and verified")
    yield EventStep(stored_ms, "Stored and acknowledged")


_VISITOR_FOUND: Final = "Visitor found for {}"


def _visitors_found(detail: EventDetail, at_ms: int) -> Iterator[EventStep]:
    for goal in queries.traced_goals(detail.trace):
        if goal.get("visitor") and goal.get("outcome") == "made":
            yield EventStep(at_ms, _VISITOR_FOUND.format(goal.get("goal")), "ok")


def _sent(detail: GoalDetail) -> Iterator[EventStep]:
    """The attempts. The visitor was found before the first of them; the time of that is stored only for routing."""
    goal = detail.goal
    if goal.visitor and detail.attempts:
        yield EventStep(detail.attempts[0].started_at_ms, _VISITOR_FOUND.format(goal.name), "ok")
    for attempt in detail.attempts:
        asked = (
            f"Asked DataFast about {goal.label}" if attempt.kind == "readback" else f"Sent {goal.called} ({goal.label})"
        )
        yield EventStep(attempt.started_at_ms, asked)
        if attempt.ended_at_ms is not None:
            answer = (attempt.outcome or "answered").replace("_", " ")
            status = f" with {attempt.status}" if attempt.status else ""
            kind = {"delivered": "ok", "found": "ok", "rejected": "bad"}.get(attempt.outcome or "", "wait")
            yield EventStep(attempt.ended_at_ms, f"Answered{status}: {answer}", kind)


# -------------------------------------------------------------------------------------------------- rules and visitor


def _element(number: int, element: Mapping[str, Any]) -> EventElement:
    near = element.get("nearest") or {}
    lines = [_rule(rule, nearest=rule["rule"] == near.get("rule")) for rule in trace.for_its_type(element)]
    return EventElement(
        number=number,
        type=str(element.get("type") or ""),
        id=str(element.get("id") or ""),
        ignored=str(element.get("ignored") or ""),
        nearest=trace.nearest(element),
        rules=tuple(sorted(lines, key=lambda line: (line.result != "matched", not line.nearest))),
        others=trace.other_types(element),
        places=tuple(
            TriedPlace(item["path"], excerpt(item.get("value")), trace.verdict(item), "visitor" in item)
            for item in element.get("candidates", ())
        ),
        keys=tuple(element.get("keys", ())),
    )


def _rule(rule: Mapping[str, Any], *, nearest: bool) -> RuleLine:
    line = RuleLine(trace.called(rule), rule["result"], _verdict(rule), nearest=nearest)
    if rule["result"] != "condition":
        return line
    path, expected, actual = (str(rule.get(name) or "") for name in ("path", "expected", "actual"))
    return replace(line, path=path, expected=expected, actual=actual)


def _verdict(rule: Mapping[str, Any]) -> str:
    """The rest of the verdict, because the line already shows the result."""
    return trace.rule_sentence(rule).removeprefix(f"{rule['result']}: ")


# ----------------------------------------------------------------------------------------------------------- one goal


def goal_story(detail: GoalDetail, event: EventDetail, moment: Moment, *, personal: bool) -> EventGoal:
    """A goal with all that is known about it. personal: whether to name people."""
    goal, request = detail.goal, _request(detail, moment)
    found = FoundVisitor.from_json(goal.provenance) if goal.provenance else None
    written, rest = _fields(request, _marks(event, goal))
    facts = [
        *describe.goal_facts(goal, moment),
        *describe.origin_facts(detail)[:1],
        *describe.obstacles(detail, moment),
    ]
    left_out = ("Visitor", "How known", "Metadata", "Fields", "Description")
    return EventGoal(
        id=goal.id,
        called=goal.called,
        state=goal.state,
        kind=describe.state_kind(goal.state) or "mute",
        visitor=goal.visitor,
        facts=tuple(fact for fact in facts if fact[0] not in left_out),
        how=describe.how_known(goal),
        key=found.key if found else None,
        taught_by=found.event_id if found and found.event_id != goal.event_id else None,
        route=action_of(goal.kind).route,
        fields=written,
        marks=rest,
        request="\n".join(indented(request, personal=personal)) if request else "",
        history=_history(detail, moment),
        no_attempts=describe.no_attempts(goal),
        may_be_sent=describe.may_be_sent(goal),
        may_be_cancelled=describe.may_be_cancelled(goal),
    )


def _request(detail: GoalDetail, moment: Moment) -> Mapping[str, Any]:
    """The request as last sent, or as it would be sent now."""
    goal = detail.goal
    if describe.forgotten(goal.reason):
        return {}
    sent = [attempt.started_at_ms for attempt in detail.attempts if attempt.kind == "send"]
    return action_of(goal.kind).body(goal, sent[-1] if sent else moment.now_ms)


def _marks(event: EventDetail, goal: GoalLine) -> list[str]:
    """What was cut, cleaned or left out, according to the trace."""
    traced = queries.traced_goals(event.trace)
    return [str(note) for item in traced if item.get("id") == goal.id for note in item.get("notes", ())]


def _fields(request: Mapping[str, Any], marks: Sequence[str]) -> tuple[tuple[GoalField, ...], tuple[str, ...]]:
    """The fields of a goal, each with its changes, then the changes that belong to none of them."""
    flat = {name: value for name, value in request.items() if name not in ("metadata", "datafast_visitor_id")}
    flat |= request.get("metadata", {})
    marks_of: dict[str, list[str]] = {}
    rest = []
    for mark in marks:
        match = _NOTE.match(mark.removeprefix("the "))
        if match and match[1] in flat:
            marks_of.setdefault(match[1], []).append(mark)
        else:
            rest.append(mark)
    lines = (GoalField(name, str(value), tuple(marks_of.get(name, ()))) for name, value in flat.items())
    return tuple(lines), tuple(rest)


def _history(detail: GoalDetail, moment: Moment) -> tuple[HistoryStep, ...]:
    lookups = [
        HistoryStep(lookup.asked_at_ms, describe.lookup_sentence(lookup), None, None) for lookup in detail.lookups
    ]
    attempts = [
        HistoryStep(
            attempt.started_at_ms,
            describe.attempt_sentence(attempt),
            None if attempt.ended_at_ms is None else attempt.ended_at_ms - attempt.started_at_ms,
            attempt.status,
            _what_followed(detail.attempts, number),
        )
        for number, attempt in enumerate(detail.attempts)
    ]
    if attempts:
        attempts[-1] = replace(attempts[-1], next=describe.next_step(detail.goal, moment) or "nothing more")
    return tuple(sorted([*lookups, *attempts], key=lambda step: step.at_ms))


def _what_followed(attempts: Sequence[AttemptLine], at: int) -> str:
    """What followed an attempt that was not the last."""
    if at + 1 == len(attempts):
        return ""
    following, ended_ms = attempts[at + 1], attempts[at].ended_at_ms or attempts[at].started_at_ms
    verb = "DataFast was asked" if following.kind == "readback" else "sent again"
    return f"{verb} {span(max(following.started_at_ms - ended_ms, 0))} later"


# ------------------------------------------------------------------------------------------------------ other events


def _nearest_events(ids: Sequence[int], event_id: int) -> list[int]:
    """The events of a thread nearest to this one."""
    return sorted(sorted(ids, key=lambda other: abs(other - event_id))[:AROUND])


def _related_events(conn: Connection, detail: EventDetail, around: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Events that had already made its goals, that found its goals already made, or that have the same provider id."""
    goal_ids = {goal.id for goal in detail.line.goals}
    for goal in _goals_made_before(detail.trace):
        if goal["event_id"] == detail.line.id:
            continue  # it was routed again
        yield goal["event_id"], f"made goal_{goal.get('id')}: there is only one per {goal.get('once_key')}"
    others = [event_id for event_id in around if event_id != detail.line.id]
    for event_id, other in sorted(queries.traces_of(conn, others).items()) if goal_ids and others else ():
        for goal in _goals_made_before(other):
            if goal.get("id") in goal_ids:
                yield event_id, f"would have made goal_{goal['id']}, which was there already"
    provider_id = detail.line.provider_event_id
    for event_id in queries.events_named(conn, provider_id) if provider_id else ():
        if event_id != detail.line.id:
            yield event_id, "has the same id from the provider"


def _goals_made_before(found: Json) -> Iterator[Mapping[str, Any]]:
    return (goal for goal in queries.traced_goals(found) if goal.get("outcome") != "made" and goal.get("event_id"))


def _neighbours(conn: Connection, around: Sequence[int], moment: Moment) -> Iterator[TimelineStep]:
    if len(around) < 2:
        return
    for entry in why.timeline(list(queries.show_events(conn, around)), ()):
        outcomes = tuple((describe.goal_outcome(goal, moment),) for goal in entry.goals[:3])
        kind = describe.worst_kind(entry.goals)
        yield TimelineStep(entry.at_ms, entry.event_id, entry.without_label, kind, outcomes)


# ---------------------------------------------------------------------------------------------------- what is hidden


def showable(value: Any, secrets: Sequence[str], *, personal: bool) -> Any:
    """A story without secrets (the longest first) and, unless requested, without personal data."""
    if isinstance(value, str):
        text = hidden(value, secrets) if secrets else value
        return text if personal else without_addresses(text)
    if isinstance(value, GoalField) and not personal and names_person(value.name):
        return replace(value, value=HIDDEN)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: showable(getattr(value, field.name), secrets, personal=personal) for field in fields(value)
        }
        return replace(value, **changed)
    if isinstance(value, dict):
        return {
            showable(key, secrets, personal=personal): showable(inner, secrets, personal=personal)
            for key, inner in value.items()
        }
    if isinstance(value, tuple | list):
        return type(value)(showable(inner, secrets, personal=personal) for inner in value)
    return value
