"""Preview what routing stored events again would do, with the rules in force and the current data. Writes nothing.

Events are taken in order of arrival, so that the first of two makes a goal. What they would teach each other about
visitors is not known before they are routed: a goal finds only visitors named by its own event or by events already
routed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.model import Event, EventState
from bridge.prepare import PreparedEvent, Preparer, followed, settle
from bridge.store.clock import read_ms
from bridge.store.goals import making, statements
from bridge.store.operator import history
from bridge.text import count, listing

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store import Store
    from bridge.store.goals.making import PreviewedGoal
    from bridge.store.goals.statements import GoalPlace

_PAGE: Final = 200  # events
GONE: Final = "its body is gone"
WAITS: Final = "it waits to be routed already"
_STATE_FORECASTS: Final = {
    "pending": "would be sent",
    "parked": "would wait for its visitor",
    "unattributed": "would find no visitor",
    "dry": "would not be sent (it is dry)",
    "expired": "would not be sent (it is too old)",
}


@dataclass(frozen=True, slots=True)
class PreviewedEvent:
    """The expected result for an event. refused: why it would not be routed again (GONE, WAITS).

    verdict: matched, unmatched, ignored or quarantined; reason: for the last two, or why a rule failed.
    """

    event_id: int
    source: str
    type: str
    verdict: str | None = None
    reason: str | None = None
    refused: str | None = None
    goals: tuple[PreviewedGoal, ...] = ()


def preview(store: Store, preparer: Preparer, ids: Sequence[int]) -> Iterator[PreviewedEvent]:
    """Preview routing these events again, in order of arrival."""
    made: set[GoalPlace] = set()
    ordered = sorted(ids)
    for start in range(0, len(ordered), _PAGE):
        with store.read() as conn:
            events = history.events_by_id(conn, ordered[start : start + _PAGE])
            yield from _page(conn, preparer, events, made)


def _page(
    conn: Connection, preparer: Preparer, events: Sequence[Event], made: set[GoalPlace]
) -> Iterator[PreviewedEvent]:
    now_ms = read_ms(conn)
    routed = [event for event in events if event.body is not None and event.state is not EventState.RECEIVED]
    prepared = [preparer.prepare(event) for event in routed]
    asked = followed(prepared)
    if asked:
        prepared = settle(prepared, statements.made_before(conn, asked) | (asked & made))
    found = {item.event.id: _preview_event(conn, preparer, item, made, now_ms) for item in prepared}
    for event in events:
        if event.id in found:
            yield found[event.id]
        else:
            refused = GONE if event.body is None else WAITS
            yield PreviewedEvent(event.id, event.source, event.envelope.type, refused=refused)


def _preview_event(
    conn: Connection, preparer: Preparer, prepared: PreparedEvent, made: set[GoalPlace], now_ms: int
) -> PreviewedEvent:
    event = prepared.event
    drafts = [draft for element in prepared.elements for draft in element.drafts]
    goals = making.preview(conn, drafts, preparer.settings, now_ms, made)
    made |= {draft.place for draft in drafts}
    quarantined = prepared.quarantine is not None
    return PreviewedEvent(
        event.id,
        event.source,
        event.envelope.type,
        EventState.QUARANTINED.value if quarantined else prepared.verdict.value,
        prepared.quarantine or prepared.reason,
        goals=tuple(goals),
    )


def summary(found: Sequence[PreviewedEvent]) -> str:
    """How many goals would be new, take something or stay as they are, in a sentence."""
    routed = [event for event in found if event.refused is None]
    if not routed:
        return "No event would be routed again."
    goals = [goal for event in routed for goal in event.goals]
    states = Counter(goal.state.value for goal in goals if goal.outcome == "new")
    new = sum(states.values())
    by_state = [f"{number} {state}" for state, number in sorted(states.items())]
    parts = [f"{count(new, 'new goal')}{f' ({listing(by_state)})' if by_state else ''}"]
    merged, known = (sum(goal.outcome == outcome for goal in goals) for outcome in ("merged", "known"))
    if merged:
        parts.append(f"{count(merged, 'goal')} would gain something from an event")
    if known:
        parts.append(f"{count(known, 'goal')} would stay as {'it is' if known == 1 else 'they are'}")
    return f"Routing {count(len(routed), 'event')} again: {listing(parts)}. Nothing was changed."


def changed(found: Sequence[PreviewedEvent]) -> list[PreviewedEvent]:
    """The events for which something would change."""
    return [
        event
        for event in found
        if event.refused or event.verdict == "quarantined" or any(goal.outcome != "known" for goal in event.goals)
    ]


def sentence(event: PreviewedEvent) -> str:
    """The expected result for an event, in a sentence."""
    if event.refused:
        return f"nothing: {event.refused}"
    if event.verdict == "quarantined":
        return f"quarantined: {event.reason}"
    return "; ".join(map(_goal_sentence, event.goals))


def _goal_sentence(goal: PreviewedGoal) -> str:
    label = "" if goal.goal_id is None else f" goal_{goal.goal_id}"
    if goal.outcome == "known":
        return f"{goal.name} is there already{f' as{label}' if label else ''} and stays as it is"
    to = f", {goal.visitor}" if goal.visitor else ""
    return f"{goal.name} ({goal.outcome}{label}{to}): {_STATE_FORECASTS.get(goal.state.value, goal.state.value)}"
