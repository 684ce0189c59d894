"""Actions on many listed events or goals, one round at a time, and previews of them.

Each round takes the next rows of a list, newest first, and the following one continues after them, so that nothing is
taken twice. It does to each what the command of the same name does: a goal that was delivered or is being sent is left
alone, and an event makes no goal that it made before. So two rounds over the same rows send nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.model import UNDER_WAY
from bridge.store.inbox import events as inbox
from bridge.store.operator import actions, activity, changes
from bridge.text import count
from bridge.workbench import describe

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store import Store
    from bridge.store.operator.activity import ActivityFilter

ROUND: Final = 200  # rows
_PER_TRANSACTION: Final = 50  # rows: webhooks that arrive meanwhile wait for it
_TAKEN: Final = "is waiting to be routed already, or its body is gone (BRIDGE_RETENTION_DAYS)"


@dataclass(frozen=True, slots=True)
class BulkAction:
    """An action on many rows of one kind. does: the verb of a sentence such as `5 goals are cancelled`.

    fine: the outcomes that mean that something was done.
    """

    kind: str
    does: str
    act: Callable[[Connection, int], str]
    fine: frozenset[str]
    sentences: Mapping[str, str]


def _replay(conn: Connection, event_id: int) -> str:
    return "queued" if inbox.requeue(conn, event_id) else "taken"


ACTIONS: Final = {
    "replay": BulkAction(
        activity.EVENTS,
        "routed again",
        _replay,
        frozenset({"queued"}),
        {"queued": "is routed again, by the rules that are in force then", "taken": _TAKEN},
    ),
    "retry": BulkAction(
        activity.GOALS,
        "sent now",
        lambda conn, goal_id: actions.retry(conn, goal_id)[0].value,
        actions.DONE,
        describe.RETRIED,
    ),
    "cancel": BulkAction(
        activity.GOALS,
        "cancelled",
        lambda conn, goal_id: actions.cancel(conn, goal_id).value,
        frozenset({"cancelled"}),
        describe.CANCELLED,
    ),
}


@dataclass(frozen=True, slots=True)
class Round:
    """The result of a round. outcomes: how many of each; reached: where the next begins; None: it was the last."""

    action: BulkAction
    outcomes: Mapping[str, int]
    reached: int | None

    @property
    def done(self) -> int:
        """How many rows were changed."""
        return sum(number for outcome, number in self.outcomes.items() if outcome in self.action.fine)

    @property
    def left(self) -> int:
        """How many rows were left alone."""
        return sum(self.outcomes.values()) - self.done

    @property
    def sentence(self) -> str:
        """The result in words, such as `200 goals are sent now. 3 were left alone`."""
        return done_sentence(self.action, self.done, self.left)


def done_sentence(action: BulkAction, done: int, left: int) -> str:
    """How many rows of its kind an action changed, and how many it left alone."""
    sentence = f"{count(done, action.kind[:-1])} {'is' if done == 1 else 'are'} {action.does}."
    return f"{sentence} {left} {'was' if left == 1 else 'were'} left alone." if left else sentence


def run(store: Store, name: str, wanted: ActivityFilter, about: str, enough: Callable[[], bool]) -> Round:
    """Apply an action to the next matching rows, and record it as one change. about: the list, in a word."""
    action = ACTIONS[name]
    with store.read() as conn:
        found = activity.page(conn, action.kind, wanted, ROUND, enough)
    ids = sorted(row.id for row in found.rows)  # the same order everywhere, to avoid deadlocks
    so_far, change_id = Round(action, {}, found.reached), None

    def act_on(conn: Connection, part: Sequence[int]) -> tuple[Round, int | None]:
        outcomes = Counter(so_far.outcomes)
        outcomes.update(action.act(conn, row_id) for row_id in part)
        round_ = replace(so_far, outcomes=outcomes)
        return round_, changes.record(conn, name, about, round_.sentence, change_id) if round_.done else None

    for start in range(0, len(ids), _PER_TRANSACTION):
        so_far, change_id = store.run(partial(act_on, part=ids[start : start + _PER_TRANSACTION]))
    return so_far


# ------------------------------------------------------------------------------------------------------- preview


@dataclass(frozen=True, slots=True)
class PreviewedChange:
    """A preview for the goals in one state: each of them `sentence`."""

    state: str
    number: int
    changes: bool
    sentence: str


def preview(name: str, by_state: Mapping[str, int]) -> list[PreviewedChange]:
    """Preview what an action would do to goals, by state: those that it would change come first."""
    action, outcome_of = ACTIONS[name], {"retry": would_retry, "cancel": would_cancel}[name]
    found = []
    for state, number in sorted(by_state.items()):
        outcome = outcome_of(state)
        found.append(PreviewedChange(state, number, outcome in action.fine, action.sentences[outcome]))
    return sorted(found, key=lambda change: not change.changes)


def would_retry(state: str) -> str:
    """What `actions.retry` would do to most goals in a state."""
    return "under_way" if state in UNDER_WAY else _RETRIED.get(state, "queued")


_RETRIED: Final = {"delivered": "delivered", "parked": "waits", "dry": "dry", "unattributed": "rerouted"}


def would_cancel(state: str) -> str:
    """What `actions.cancel` would do to a goal in a state."""
    if state in actions.CANCELLABLE:
        return "cancelled"
    return "under_way" if state in UNDER_WAY else "final"
