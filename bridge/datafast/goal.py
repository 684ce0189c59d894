"""The action `goal`: a row becomes a `POST /goals`, and is recognized among the goals of its visitor.

A read-back (ADR 5) decides about all goals of one visitor and name together. An entry matches a goal if it has the
goal's name, does not come from the browser, lies within the goal's window, and has no other description. Each entry is
given to one goal only: first to the goals that are known to be delivered, then to the unconfirmed ones, oldest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from bridge.limits import KEYS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bridge.datafast.actions import Api
    from bridge.model import CompletedGoal, Destination, Goal, Outcome, ReadbackClaim, VisitorGoals

LATE_MS: Final = 3_600_000  # an event older than this is late
CLOCK_TOLERANCE_MS: Final = 15_000  # a request takes up to 10 s
TOLERANCE_MS: Final = 10_000  # an entry may lie this far outside a goal's window
_DROPPED: Final = str.maketrans("", "", "<>'\"&")  # characters that DataFast removes


class GoalAction:
    """See `bridge.datafast.actions.Action`. Names and values were fitted to the limits when the row was made."""

    route = "goals"

    def body(self, goal: Sendable, now_ms: int) -> dict[str, Any]:
        """The request for a goal."""
        return body(goal.visitor, goal.name, goal.description, metadata_to_send(goal, now_ms))

    def send(self, api: Api, destination: Destination, goal: Goal, now_ms: int) -> Outcome:
        """Send one goal. Never raises."""
        return api.post(destination, self.route, self.body(goal, now_ms))

    def recognize(self, readback: ReadbackClaim, answer: VisitorGoals) -> Recognized:
        """Find the goals of a group among the visitor's."""
        skew_ms = _skew_ms(readback, answer)
        return recognize(
            answer.goals if answer.known else (),
            name=readback.name,
            unconfirmed=[
                SentGoal(doubtful.goal.description, _window(doubtful.windows, skew_ms), doubtful.goal.id)
                for doubtful in readback.goals
            ],
            owned=[
                SentGoal(delivered.description, _window(delivered.windows, skew_ms), event_id=delivered.event_id)
                for delivered in readback.owned
            ],
        )


class Sendable(Protocol):
    """The parts of a goal that are sent: claimed, or as people see it. visitor: None or empty if it is not known."""

    @property
    def visitor(self) -> str | None: ...

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def happened_at_ms(self) -> int: ...


def body(visitor: str | None, name: str, description: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The request. visitor None: it is not known yet, and people look at what would be sent."""
    written: dict[str, Any] = {"datafast_visitor_id": visitor, "name": name}
    if description:
        written["description"] = description
    if metadata:
        written["metadata"] = dict(metadata)
    return written


def metadata_to_send(goal: Sendable, now_ms: int) -> Mapping[str, str]:
    """A goal that is more than an hour late says `occurred_at`, if there is room, because DataFast dates it now."""
    late = now_ms - goal.happened_at_ms > LATE_MS
    if not late or len(goal.metadata) >= KEYS_MAX or "occurred_at" in goal.metadata:
        return goal.metadata
    return {**goal.metadata, "occurred_at": utc(goal.happened_at_ms)}


def utc(ms: int) -> str:
    """`2026-11-24T22:18:03Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _skew_ms(readback: ReadbackClaim, answer: VisitorGoals) -> int:
    """How far DataFast's clock is from what we thought; 0 if a request and whole seconds can explain the difference."""
    if answer.server_now_ms is None or readback.server_ms is None:
        return 0
    skew_ms = answer.server_now_ms - readback.server_ms
    return skew_ms if abs(skew_ms) > CLOCK_TOLERANCE_MS else 0


def _window(windows: tuple[tuple[int, int], ...], skew_ms: int) -> tuple[int, int]:
    """One window over all attempts that may have arrived. An entry between them is this goal's, or known as another's.

    Our clock may have been set since an attempt was timed, so the attempt counts by both clocks.
    """
    starts, ends = zip(*windows, strict=True)
    return min(starts) + min(skew_ms, 0), max(ends) + max(skew_ms, 0)


# ------------------------------------------------------------------------------------------------------ read-back


class SentGoal(NamedTuple):
    """A goal that may have been recorded. window: when its attempts were under way, by DataFast's clock.

    goal_id: of an unconfirmed goal. A goal that is known to be delivered has none, and perhaps DataFast's id of it.
    """

    description: str
    window: tuple[int, int]
    goal_id: int = 0
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Recognized:
    """What a read-back shows, by goal id.

    delivered: each with the entry that matches it. absent: no entry can be it. unclear: an entry without time and
    description is left over, and might be it.
    """

    delivered: Mapping[int, CompletedGoal]
    absent: frozenset[int]
    unclear: frozenset[int] = frozenset()


def recognize(
    entries: Iterable[CompletedGoal], *, name: str, unconfirmed: Iterable[SentGoal], owned: Iterable[SentGoal] = ()
) -> Recognized:
    """Decide for all unconfirmed goals of one visitor and name. The order of the arguments does not matter."""
    waiting = sorted(unconfirmed, key=lambda goal: (goal.window[0], goal.goal_id))
    sent = sorted((entry for entry in entries if entry.name == name and entry.by_server is not False), key=_order)
    free, delivered_before = _without_known_ids(sent, list(owned))
    matched = _match(free, [*delivered_before, *waiting])
    found = {goal.goal_id: matched.get(index) for index, goal in enumerate(waiting, len(delivered_before))}
    delivered = {goal_id: free[index] for goal_id, index in found.items() if index is not None}
    missing = frozenset(found) - delivered.keys()
    unmatched = (entry for index, entry in enumerate(free) if index not in matched.values())
    undated = any(entry.at_ms is None and entry.description is None for entry in unmatched)
    return Recognized(delivered, frozenset() if undated else missing, missing if undated else frozenset())


def _order(entry: CompletedGoal) -> tuple[int, str, str]:
    return (entry.at_ms or 0, entry.description or "", entry.event_id or "")


def _without_known_ids(
    entries: Sequence[CompletedGoal], owned: Sequence[SentGoal]
) -> tuple[list[CompletedGoal], list[SentGoal]]:
    """Take out the entries whose id is known, and the goals that therefore need no other entry."""
    ids = {goal.event_id for goal in owned if goal.event_id}
    free = [entry for entry in entries if entry.event_id is None or entry.event_id not in ids]
    any_id = any(entry.event_id for entry in entries)
    return free, [goal for goal in owned if not (any_id and goal.event_id)]


def _match(entries: Sequence[CompletedGoal], goals: Sequence[SentGoal]) -> dict[int, int]:
    """Give each goal in turn an entry, moving earlier goals to others where they have a choice: goal's index → entry's.

    A goal that has an entry keeps one, so earlier goals come first, and as many goals as possible get one. Which goals
    get one does not depend on the order of the entries (augmenting paths of a bipartite graph).
    """
    fitting = [[index for index, entry in enumerate(entries) if _fits(entry, goal)] for goal in goals]
    matching: dict[int, int] = {}
    for goal in range(len(goals)):
        _add_to_matching(goal, fitting, matching)
    return matching


def _add_to_matching(goal: int, fitting: Sequence[Sequence[int]], matching: dict[int, int]) -> None:
    """Give one more goal an entry, if an augmenting path leads to a free one. All are indices."""
    goal_of = {entry: matched_goal for matched_goal, entry in matching.items()}
    reached_from: dict[int, int] = {}
    queue, free = [goal], None
    for current in queue:  # grows while it is walked: breadth first
        for entry in fitting[current]:
            if entry in reached_from:
                continue
            reached_from[entry] = current
            if entry not in goal_of:
                free = entry
                break
            queue.append(goal_of[entry])
        if free is not None:
            break
    while free is not None:  # back along the path: each goal takes the entry reached from it and leaves its own
        current, taken = reached_from[free], free
        free = matching.get(current)
        matching[current] = taken


def _fits(entry: CompletedGoal, goal: SentGoal) -> bool:
    if entry.description is not None and _as_stored(entry.description) != _as_stored(goal.description):
        return False
    if entry.at_ms is None:
        return entry.description is not None
    from_ms, to_ms = goal.window
    return from_ms - TOLERANCE_MS <= entry.at_ms <= to_ms + TOLERANCE_MS


def _as_stored(description: str) -> str:
    return " ".join(description.translate(_DROPPED).split())
