"""What an event would do under the present rules, and why: `explain` prints it. Nothing is sent or stored.

It uses no network and no database, so what other events told about the visitor is unknown here, and a goal without a
visitor of its own is shown as waiting for one. `bridge.workbench.why` explains events that really arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge import identity, route, sources
from bridge import settings as settings_
from bridge.datafast.actions import action_of
from bridge.errors import SignatureError
from bridge.model import VISITOR_OPTIONAL
from bridge.text import ago, count, listing, when
from bridge.workbench import trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Event, GoalDraft, Request, Source
    from bridge.prepare import PreparedEvent, Preparer
    from bridge.settings import Settings


class _PlannedRow(NamedTuple):
    """See `bridge.datafast.goal.Sendable`."""

    visitor: str | None
    name: str
    description: str
    metadata: Mapping[str, str]
    happened_at_ms: int


@dataclass(frozen=True)
class Explained:
    """An event as it would be routed, and what it would send."""

    source: Source
    event: Event
    prepared: PreparedEvent
    settings: Settings
    signature: str | None  # the result of verification; None: a bare body has no signature

    @property
    def drafts(self) -> list[GoalDraft]:
        return [draft for element in self.prepared.elements for draft in element.drafts]

    @property
    def ids(self) -> set[str]:
        """The ids by which it would be found."""
        found = {self.event.envelope.id, self.event.envelope.account, self.event.envelope.type}
        found |= {key.id for element in self.prepared.elements for key in element.observation.keys}
        found |= {item.visitor for element in self.prepared.elements for item in element.judged}
        return {text for text in found if text}

    @property
    def following(self) -> list[GoalDraft]:
        """The goals it would send if another goal was made before, which only the database knows."""
        return [draft for element in self.prepared.elements for draft in element.following]


def explain_request(preparer: Preparer, source: Source, request: Request, now_ms: int, *, signed: bool) -> Explained:
    """Do everything with a request that receiving and routing do before anything is written."""
    prepared = preparer.prepare_request(source, request, now_ms)
    signature = _signature(source, request, now_ms / 1000) if signed else None
    return Explained(source, prepared.event, prepared, preparer.settings, signature)


def _signature(source: Source, request: Request, now_s: float) -> str:
    if not source.secrets:
        return f"cannot be checked: {source.secret_error or 'its secret is not set'}"
    try:
        sources.verify(source, request, now_s)
    except SignatureError as error:
        return f"would be refused (401): {error.reason}"
    return "is valid"


def as_json(explained: Explained) -> dict[str, Any]:
    """The trace as it would be stored, and the goals as they would be sent."""
    prepared = explained.prepared
    return {
        "source": explained.source.name,
        "type": explained.event.envelope.type,
        "id": explained.event.envelope.id,
        "mode": explained.event.envelope.mode,
        "signature": explained.signature,
        "verdict": "quarantined" if prepared.quarantine else prepared.verdict.value,
        "reason": prepared.quarantine or prepared.reason,
        **route.preview(prepared),
        "goals": [as_sent(explained, draft) for draft in (*explained.drafts, *explained.following)],
    }


def as_sent(explained: Explained, draft: GoalDraft) -> dict[str, Any]:
    """A goal as it would be sent, and its fate."""
    return {
        "rule": draft.planned.rule_id,
        "kind": draft.planned.kind,
        **({"origin": draft.planned.origin} if draft.planned.origin else {}),
        "destination": draft.destination,
        "once_key": draft.planned.once_key,
        "what": _forecast(explained, draft),
        "request": {name: value for name, value in _request(explained, draft).items() if value not in ({}, "")},
    }


def _request(explained: Explained, draft: GoalDraft) -> Mapping[str, Any]:
    """The body that would be sent at once."""
    visitor, planned = draft.own[0].visitor if draft.own else None, draft.planned
    description = planned.description or f"{explained.source.name} {explained.event.envelope.id or 'ev_…'}"
    goal = _PlannedRow(visitor, planned.name, description, planned.metadata, draft.happened_at_ms)
    return action_of(planned.kind).body(goal, draft.happened_at_ms)


def _forecast(explained: Explained, draft: GoalDraft) -> str:
    """What would happen to a goal, in a sentence."""
    notifies = draft.planned.notify and not (draft.test or draft.dry or draft.planned.dry)
    condition = "" if draft.planned.follows is None else f"{_prerequisite(draft)}; if it was: "
    news = "; BRIDGE_ALERTS is notified on delivery" if notifies else ""
    return f"{condition}{_own_forecast(explained, draft)}{news}"


def _own_forecast(explained: Explained, draft: GoalDraft) -> str:
    if draft.dry and draft.planned.kind != "goal":
        return f"a test event: its {draft.planned.kind} would never be sent"
    if draft.dry:
        return "a test event: nothing would be sent (DATAFAST_TEST_API_KEY would send it to a second website)"
    if draft.planned.dry:
        return f"would be kept, not sent: the rule is dry (`goals send --rule {draft.planned.rule_id}` would send it)"
    pairs = [(key.kind, key.id) for key in draft.keys]
    if not draft.own and not pairs and draft.planned.kind in VISITOR_OPTIONAL:
        return "would be sent, without a visitor"
    if not draft.own and not pairs:
        return f"would find no visitor: {identity.unattributed(explained.source.provider, pairs, draft.refused)}"
    age_ms = explained.event.received_at_ms - draft.happened_at_ms
    limit_ms = draft.planned.max_age_ms or explained.settings.bridge_max_age
    if age_ms > limit_ms:
        limit = settings_.duration_text(limit_ms)
        return f"would not be sent if it came now: it is older than {limit}, and DataFast would date it now"
    if not draft.own:
        return f"{identity.waiting(pairs, draft.refused)} (or uses one learned from an earlier event)"
    first = draft.own[0]
    if first.borrowed:
        return f"would be sent if DataFast, which is asked first, knows {first.visitor} ({first.path})"
    return "would be sent"


def summary(explained: Explained) -> str:
    """The answer in a sentence."""
    prepared = explained.prepared
    if prepared.quarantine:
        return f"It would be accepted and put into quarantine: {prepared.quarantine}"
    if prepared.ignored:
        return f"It would be ignored: {prepared.ignored}"
    if explained.drafts:
        names = listing([draft.planned.name for draft in explained.drafts])
        made = f"{count(len(explained.drafts), 'goal')}: {names}."
    else:
        made = "No goal is certain." if explained.following else _no_goal(prepared)
    return " ".join([made, *(f"{draft.planned.name} {_prerequisite(draft)}." for draft in explained.following)])


def _no_goal(prepared: PreparedEvent) -> str:
    elements = route.preview(prepared)["elements"]
    near = trace.nearest(elements[0]) if len(elements) == 1 and prepared.reason is None else ""
    return f"No goal: {prepared.reason or 'no rule matches'}{f'. The nearest is {near}' if near else ''}."


def _prerequisite(draft: GoalDraft) -> str:
    """What must exist before a goal that follows another one."""
    follows = draft.planned.follows
    return "" if follows is None else f"would need {follows.text}, made before"


def event_read(explained: Explained) -> list[tuple[str, str]]:
    """What was read from the event, as pairs of a label and a value."""
    event, envelope = explained.event, explained.event.envelope
    facts = [
        ("Source", f"{explained.source.name} ({explained.source.provider})"),
        ("Event", f"{envelope.type or '(no type)'} {envelope.id or '(no id)'}, {envelope.mode} mode"),
    ]
    if envelope.time_ms is not None:
        facts.append(("Happened", f"{when(envelope.time_ms)}, {ago(envelope.time_ms, event.received_at_ms)}"))
    if envelope.account:
        facts.append(("Account", envelope.account))
    if explained.signature:
        facts.append(("Signature", explained.signature))
    return facts
