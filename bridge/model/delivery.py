"""A goal is claimed, sent to its `Destination` and settled by the `Outcome`; one whose answer was lost is read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from bridge.model.goal import GoalState

if TYPE_CHECKING:
    from bridge.model.goal import Goal


@dataclass(frozen=True, slots=True)
class Destination:
    """One DataFast website. Its configured name stays the same when its key changes."""

    name: str
    api_key: str | None = field(repr=False)
    website_id: str | None = None


class OutcomeKind(StrEnum):
    """The classes of DataFast's answers."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    CONFIGURATION = "configuration"
    UNKNOWN_VISITOR = "unknown_visitor"
    THROTTLED = "throttled"
    NOT_SENT = "not_sent"
    REFUSED_FOR_NOW = "refused_for_now"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request to DataFast.

    message: for people; at most 300 characters, without secrets or markup. server_now_ms: DataFast's clock by its
    `Date` header, if it sent one.
    """

    kind: OutcomeKind
    status: int | None = None
    message: str = ""
    event_id: str | None = None
    retry_after_ms: int | None = None
    server_now_ms: int | None = None


@dataclass(frozen=True, slots=True)
class CompletedGoal:
    """One entry of a visitor's list of goals at DataFast, from either documented shape."""

    name: str
    at_ms: int | None
    description: str | None = None
    by_server: bool | None = None  # None: DataFast does not say
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class VisitorGoals:
    """The answer to a read-back: the visitor's goals (`known` is False for a 404), or the failure."""

    known: bool
    goals: tuple[CompletedGoal, ...] = ()
    failure: Outcome | None = None
    server_now_ms: int | None = None


class Health(StrEnum):
    """What an answer shows about its destination."""

    SUCCESS = "success"  # it took a goal
    TAKEN = "taken"  # it took a payment, which it may take from anybody
    ANSWERED = "answered"  # it works, though this goal was refused
    FAILURE = "failure"  # not sent, refused for now, unconfirmed
    THROTTLED = "throttled"
    CONFIGURATION = "configuration"
    UNKNOWN_VISITOR = "unknown_visitor"
    KNOWN_VISITOR = "known_visitor"  # it took no goal, but it knows the visitor
    SILENT = "silent"  # the answer says nothing about it


@dataclass(frozen=True, slots=True)
class Settlement:
    """The new state of a goal after an attempt; the store writes it if the attempt still owns the goal.

    due_in_ms: the time until the next attempt or read-back. counts: the attempt counts towards back-off (in the store,
    a probe never does).
    """

    state: GoalState
    health: Health
    due_in_ms: int = 0
    reason: str | None = None
    message: str | None = None
    counts: bool = False
    unknown_visitor: bool = False  # it counts as one of the attempts after which an unknown visitor is given up
    pause_ms: int = 0  # how long a throttled destination is paused


@dataclass(frozen=True, slots=True)
class Claim:
    """A goal that only this worker may send, until the lease ends.

    attempt_id: the attempt that was recorded with the lease. probe: the goal is sent to a paused destination, to see
    whether that works again.
    """

    goal: Goal
    token: str
    claimed_at_ms: int
    attempt_id: int
    paused_ms: int = 0
    probe: bool = False

    @property
    def destination(self) -> str:
        """The goal's destination."""
        return self.goal.destination

    @property
    def visitor(self) -> str:
        """The goal's visitor."""
        return self.goal.visitor


@dataclass(frozen=True, slots=True)
class UnconfirmedGoal:
    """One goal of a group whose answers were lost, with the attempts that may have arrived.

    windows: (started_at_ms, ended_at_ms) of each attempt in doubt, by DataFast's clock as far as known.
    """

    goal: Goal
    looks: int
    absent: int
    windows: tuple[tuple[int, int], ...]
    restored: bool = False  # in doubt because a backup was restored, not because an answer was lost


@dataclass(frozen=True, slots=True)
class DeliveredGoal:
    """A goal that is known to be delivered: its entry in a read-back belongs to no other goal.

    windows: as in `UnconfirmedGoal`.
    """

    description: str
    event_id: str | None
    windows: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ReadbackClaim:
    """All unconfirmed goals of one visitor, name and kind, for one read-back.

    owned: goals of the same visitor and name that are known to be delivered. server_ms: DataFast's clock, as far as we
    know. claimed_at_ms: by the database's clock.
    """

    destination: str
    visitor: str
    name: str
    token: str
    goals: tuple[UnconfirmedGoal, ...]
    owned: tuple[DeliveredGoal, ...] = ()
    probe: bool = False
    server_ms: int | None = None
    claimed_at_ms: int = 0
    kind: str = "goal"


@dataclass(frozen=True, slots=True)
class ProofClaim:
    """A visitor of a borrowed field, about whom only this worker may ask. failures: how often there was no answer."""

    destination: str
    visitor: str
    token: str
    failures: int = 0
    probe: bool = False


class ReadbackOutcome(StrEnum):
    """What a read-back showed about one goal; stored as the outcome of its attempt."""

    FOUND = "found"
    ABSENT = "absent"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True)
class ReadbackDecision:
    """What a read-back decides for one goal.

    looked: the read-back counts, although it could not tell. absent: it did not find the goal. remote_id: its id there.
    at_ms: when DataFast recorded it, by DataFast's clock. failure: the answer that could not tell.
    """

    goal: UnconfirmedGoal
    settlement: Settlement
    looked: bool = False
    absent: bool = False
    remote_id: str | None = None
    at_ms: int | None = None
    failure: Outcome | None = None

    @property
    def outcome(self) -> ReadbackOutcome:
        """The outcome to store for the read-back."""
        if self.settlement.state is GoalState.DELIVERED:
            return ReadbackOutcome.FOUND
        return ReadbackOutcome.ABSENT if self.absent else ReadbackOutcome.CANNOT_TELL


@dataclass(frozen=True, slots=True)
class NotYet:
    """Nothing can be claimed before until_ms (None: nothing waits). now_ms: the database's clock, as is until_ms."""

    until_ms: int | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether goals may be sent to a destination. probing: only one, to see whether it works again.

    now_ms: the database's clock when the row was read. unknown_turn_ms: when an unknown visitor may be asked about
    again, while none of the last ones is known; None: some are known. restores: what is remembered of restores.
    looks: whether the time of any goal in doubt has come.
    """

    not_before_ms: int
    probing: bool
    slots: int
    now_ms: int
    unknown_turn_ms: int | None = None
    restores: str | None = None
    looks: bool = True


@dataclass(frozen=True, slots=True)
class Settled:
    """Whether an answer was written: it is not if the lease was over.

    news: see `pauses.learn`. ready: the destination's readiness after it, for the rest of the transaction. doubted: the
    destination is on record as not knowing the visitor.
    """

    written: bool
    news: str | None = None
    ready: Readiness | None = None
    doubted: bool = False
