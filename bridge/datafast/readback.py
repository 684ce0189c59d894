"""Which unconfirmed goals were recorded after all, told from the visitor's list of goals (Design 6, read-back). Pure.

All goals of one visitor and name are settled together. An entry vouches for a goal if it bears the name, does not come
from the browser, lies within the goal's window, and has no other description. Entries vouch first for the goals that
the ledger already owns, then for the unconfirmed ones, the oldest first; each vouches for one goal only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bridge.model import CompletedGoal

SLACK_MS: Final = 10_000
_DROPPED: Final = str.maketrans("", "", "<>'\"&")  # signs that DataFast takes out of texts


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when a goal may have been recorded, by DataFast's clock, both ends included."""

    from_ms: int
    to_ms: int


def window(started_ms: int, ended_ms: int, skew_ms: int = 0) -> Window:
    """The window of an attempt by our clock; skew_ms: DataFast's clock minus ours."""
    return Window(started_ms + skew_ms - SLACK_MS, ended_ms + skew_ms + SLACK_MS)


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A goal whose attempt got no answer."""

    goal_id: int
    description: str
    window: Window


@dataclass(frozen=True, slots=True)
class Owned:
    """A goal that the ledger knows as delivered: by DataFast's id of it, or by its description and time."""

    description: str
    window: Window
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """The verdict, by goal id.

    delivered: with the entry that vouches for it. absent: no entry can be it. unclear: an entry without time and
    description is left over that might be it.
    """

    delivered: Mapping[int, CompletedGoal]
    absent: frozenset[int]
    unclear: frozenset[int] = frozenset()


def settle(
    entries: Iterable[CompletedGoal], *, name: str, unconfirmed: Iterable[Unconfirmed], owned: Iterable[Owned] = ()
) -> Settlement:
    """Decide for all unconfirmed goals of one visitor and name. The order of the arguments does not matter."""
    waiting = sorted(unconfirmed, key=lambda goal: (goal.window.from_ms, goal.goal_id))
    sent = sorted((entry for entry in entries if entry.name == name and entry.by_server is not False), key=_order)
    free, claims = _without_known_ids(sent, list(owned))
    vouching = _vouch(free, [*claims, *waiting])
    found = {goal.goal_id: vouching.get(len(claims) + place) for place, goal in enumerate(waiting)}
    delivered = {goal_id: free[index] for goal_id, index in found.items() if index is not None}
    missing = frozenset(found) - delivered.keys()
    left = (entry for index, entry in enumerate(free) if index not in vouching.values())
    undated = any(entry.at_ms is None and entry.description is None for entry in left)
    return Settlement(delivered, frozenset() if undated else missing, missing if undated else frozenset())


def _order(entry: CompletedGoal) -> tuple[int, str, str]:
    return (entry.at_ms or 0, entry.description or "", entry.event_id or "")


def _without_known_ids(
    entries: Sequence[CompletedGoal], owned: Sequence[Owned]
) -> tuple[list[CompletedGoal], list[Owned]]:
    """Take out the entries whose id the ledger knows, and the goals that need no other entry for that reason."""
    ids = {goal.event_id for goal in owned if goal.event_id}
    free = [entry for entry in entries if entry.event_id is None or entry.event_id not in ids]
    told = any(entry.event_id for entry in entries)
    return free, [goal for goal in owned if not (told and goal.event_id)]


def _vouch(entries: Sequence[CompletedGoal], goals: Sequence[Owned | Unconfirmed]) -> dict[int, int]:
    """Give each goal in turn an entry, moving earlier ones over where they have a choice: goal's index -> entry's.

    A goal that got an entry never loses it, so the earlier goals come first, and as many get one as can. Which goals
    get one does not depend on the order of the entries (augmenting paths of a bipartite graph).
    """
    fitting = [[index for index, entry in enumerate(entries) if _fits(entry, goal)] for goal in goals]
    holds: dict[int, int] = {}
    for goal in range(len(goals)):
        _place(goal, fitting, holds)
    return holds


def _place(goal: int, fitting: Sequence[Sequence[int]], holds: dict[int, int]) -> None:
    holder = {entry: one for one, entry in holds.items()}
    asked_by: dict[int, int] = {}
    asking, free = [goal], None
    for one in asking:  # grows while it is walked: breadth first
        for entry in fitting[one]:
            if entry in asked_by:
                continue
            asked_by[entry] = one
            if entry not in holder:
                free = entry
                break
            asking.append(holder[entry])
        if free is not None:
            break
    while free is not None:  # back along the path: each takes the entry it asked for and leaves its own
        one, taken = asked_by[free], free
        free = holds.get(one)
        holds[one] = taken


def _fits(entry: CompletedGoal, goal: Owned | Unconfirmed) -> bool:
    if entry.description is not None and _as_kept(entry.description) != _as_kept(goal.description):
        return False
    if entry.at_ms is None:
        return entry.description is not None
    return goal.window.from_ms <= entry.at_ms <= goal.window.to_ms


def _as_kept(description: str) -> str:
    return " ".join(description.translate(_DROPPED).split())
