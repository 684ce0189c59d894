"""One goal of an event: as it was or will be sent, what was done to its values, and what happened to it since."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from bridge.datafast import goal as goals_
from bridge.datafast import payment
from bridge.identity.evidence import FoundVisitor
from bridge.text import span
from bridge.workbench import describe
from bridge.workbench.body import indented

if TYPE_CHECKING:
    from bridge.store.operator.queries import AttemptLine, EventDetail, GoalDetail, GoalLine
    from bridge.workbench.describe import Moment

_NOTE: Final = re.compile(r"(\S+) (?:was|lost) ")


@dataclass(frozen=True, slots=True)
class GoalField:
    """A line of a goal as it is sent. marks: what was cut, cleaned or left out."""

    name: str
    value: str
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Try:
    """An attempt to send, a look at DataFast, or a question to a provider. next: what followed."""

    at_ms: int
    sentence: str
    took_ms: int | None
    status: int | None
    next: str = ""


@dataclass(frozen=True, slots=True)
class EventGoal:
    """One goal. key: that led to its visitor; taught_by: the event that taught it; request: the JSON that is sent."""

    id: int
    called: str
    state: str
    kind: str
    visitor: str | None
    facts: tuple[tuple[str, str], ...]
    how: str
    key: str | None
    taught_by: int | None
    place: str
    fields: tuple[GoalField, ...]
    marks: tuple[str, ...]
    request: str
    tries: tuple[Try, ...]
    no_attempts: str
    may_be_sent: bool
    may_be_cancelled: bool


_STATES: Final = {
    "delivered": "ok", "parked": "wait", "unconfirmed": "wait", "pending": "wait", "leased": "wait", "sending": "wait",
    "held": "bad", "rejected": "bad", "expired": "bad", "unattributed": "bad",
}  # fmt: skip


def state_kind(state: str) -> str:
    """How a state is coloured: ok | wait | bad | nothing."""
    return _STATES.get(state, "")


def goal_story(detail: GoalDetail, event: EventDetail, moment: Moment, *, personal: bool) -> EventGoal:
    """A goal with all that is known of it. personal: whether people are named."""
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
        kind=state_kind(goal.state) or "mute",
        visitor=goal.visitor,
        facts=tuple(fact for fact in facts if fact[0] not in left_out),
        how=describe.how_known(goal),
        key=found.key if found else None,
        taught_by=found.event_id if found and found.event_id != goal.event_id else None,
        place="goals" if goal.kind == "goal" else "payments",
        fields=written,
        marks=rest,
        request="\n".join(indented(request, personal=personal)) if request else "",
        tries=_tries(detail, moment),
        no_attempts=describe.no_attempts(goal),
        may_be_sent=describe.may_be_sent(goal),
        may_be_cancelled=describe.may_be_cancelled(goal),
    )


def _request(detail: GoalDetail, moment: Moment) -> dict[str, Any]:
    """The request as it was sent last, or would be sent now."""
    goal = detail.goal
    if describe.forgotten(goal.reason):
        return {}
    if goal.kind != "goal":
        return payment.body(goal.metadata, goal.visitor or "", goal.happened_at_ms)
    sent = [one.started_at_ms for one in detail.attempts if one.kind == "send"]
    metadata = goals_.metadata_to_send(goal, sent[-1] if sent else moment.now_ms)
    return goals_.body(goal.visitor, goal.name, goal.description, metadata)


def _marks(event: EventDetail, goal: GoalLine) -> list[str]:
    """What the trace says was cut, cleaned or left out."""
    told = (one for element in describe.elements(event) for one in element.get("goals", ()))
    return [str(note) for one in told if one.get("id") == goal.id for note in one.get("notes", ())]


def _fields(request: Mapping[str, Any], marks: Sequence[str]) -> tuple[tuple[GoalField, ...], tuple[str, ...]]:
    """The lines of a goal, each with what was done to it; then what was done to none of them."""
    flat = {name: value for name, value in request.items() if name not in ("metadata", "datafast_visitor_id")}
    flat |= request.get("metadata", {})
    of_field: dict[str, list[str]] = {}
    rest = []
    for mark in marks:
        head = _NOTE.match(mark.removeprefix("the "))
        if head and head[1] in flat:
            of_field.setdefault(head[1], []).append(mark)
        else:
            rest.append(mark)
    lines = (GoalField(name, str(value), tuple(of_field.get(name, ()))) for name, value in flat.items())
    return tuple(lines), tuple(rest)


def _tries(detail: GoalDetail, moment: Moment) -> tuple[Try, ...]:
    lookups = [Try(one.asked_at_ms, describe.lookup_sentence(one), None, None) for one in detail.lookups]
    attempts = [
        Try(
            one.started_at_ms,
            describe.try_sentence(one),
            None if one.ended_at_ms is None else one.ended_at_ms - one.started_at_ms,
            one.status,
            _after(detail.attempts, at),
        )
        for at, one in enumerate(detail.attempts)
    ]
    if attempts:
        attempts[-1] = replace(attempts[-1], next=describe.what_next(detail.goal, moment) or "nothing more")
    return tuple(sorted([*lookups, *attempts], key=lambda one: one.at_ms))


def _after(attempts: Sequence[AttemptLine], at: int) -> str:
    """What followed an attempt that was not the last."""
    if at + 1 == len(attempts):
        return ""
    following, ended_ms = attempts[at + 1], attempts[at].ended_at_ms or attempts[at].started_at_ms
    what = "DataFast was asked" if following.kind == "readback" else "sent again"
    return f"{what} {span(max(following.started_at_ms - ended_ms, 0))} later"
