"""A goal becomes an `Outcome`: where it goes, what was answered, what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from bridge.model.goal import GoalState

if TYPE_CHECKING:
    from bridge.model.goal import Goal


@dataclass(frozen=True, slots=True)
class Destination:
    """One DataFast website, known by its configured name, which survives a new key."""

    name: str
    api_key: str | None = field(repr=False)
    website_id: str | None = None


class OutcomeKind(StrEnum):
    """The classes of DataFast's answers (Design 6)."""

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
    """What became of one request to DataFast. `message` is for people: no secret, no markup, at most 300 characters.

    server_now_ms: DataFast's clock by its `Date` header, if it sent one.
    """

    kind: OutcomeKind
    status: int | None = None
    message: str = ""
    event_id: str | None = None
    retry_after_ms: int | None = None
    server_now_ms: int | None = None


@dataclass(frozen=True, slots=True)
class CompletedGoal:
    """One entry of a visitor's goal list, as DataFast tells it (both documented shapes)."""

    name: str
    at_ms: int | None
    description: str | None = None
    by_server: bool | None = None  # None: not said
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class VisitorGoals:
    """The answer to a read-back: the visitor's goals, `known` False for a 404; or why it cannot be told."""

    known: bool
    goals: tuple[CompletedGoal, ...] = ()
    failure: Outcome | None = None
    server_now_ms: int | None = None


class Health(StrEnum):
    """What an answer says about its destination."""

    SUCCESS = "success"  # it took a goal
    TAKEN = "taken"  # it took a payment, which it may take of anybody
    ANSWERED = "answered"  # it works, though this goal was refused
    FAILURE = "failure"  # not sent, refused for now, unconfirmed
    THROTTLED = "throttled"
    CONFIGURATION = "configuration"
    UNKNOWN_VISITOR = "unknown_visitor"
    KNOWN_VISITOR = "known_visitor"  # it took no goal, but said that it knows the visitor
    SILENT = "silent"  # says nothing


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is to become of a goal after a try; the store writes it if the try still owns the goal.

    due_in_ms: until the next try or look. counts: the try spends an attempt (a probe never does, the store sees to it).
    """

    state: GoalState
    health: Health
    due_in_ms: int = 0
    reason: str | None = None
    message: str | None = None
    counts: bool = False
    unknown_visitor: bool = False  # it counts towards the end of an unknown visitor's tries
    pause_ms: int = 0  # of a throttled destination


@dataclass(frozen=True, slots=True)
class Claim:
    """A goal that this worker alone may send, until the lease ends.

    probe: it goes through a paused destination to see whether it works again.
    """

    goal: Goal
    token: str
    claimed_at_ms: int
    paused_ms: int = 0
    probe: bool = False


@dataclass(frozen=True, slots=True)
class UnconfirmedGoal:
    """One goal of a group whose answers were lost, with the attempts that may have arrived.

    windows: (started_at_ms, ended_at_ms) of each attempt in doubt, by DataFast's clock as far as known.
    """

    goal: Goal
    looks: int
    absent: int
    windows: tuple[tuple[int, int], ...]
    restored: bool = False  # in doubt because a back-up was put in place, not because an answer was lost


@dataclass(frozen=True, slots=True)
class OwnedGoal:
    """A goal that the ledger knows to be delivered: its entry in a read-back is nobody else's. windows: as above."""

    description: str
    event_id: str | None
    windows: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class LookClaim:
    """All unconfirmed goals of one visitor, name and kind, for one read-back.

    owned: what the ledger already knows to be delivered for the same visitor and name. server_ms: what DataFast's clock
    says now, as far as we know. claimed_at_ms: by the database's clock.
    """

    destination: str
    visitor: str
    name: str
    token: str
    goals: tuple[UnconfirmedGoal, ...]
    owned: tuple[OwnedGoal, ...] = ()
    probe: bool = False
    server_ms: int | None = None
    claimed_at_ms: int = 0
    kind: str = "goal"


@dataclass(frozen=True, slots=True)
class ProofClaim:
    """A visitor of a borrowed field, about whom this worker alone may ask. failures: how often it told nothing."""

    destination: str
    visitor: str
    token: str
    failures: int = 0
    probe: bool = False


class LookOutcome(StrEnum):
    """What a read-back showed of one goal; kept as the outcome of its attempt."""

    FOUND = "found"
    ABSENT = "absent"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True)
class LookRuling:
    """What a read-back decides for one goal.

    looked: it counts as a look that could not tell; absent: it was not found; remote_id: DataFast's id of it;
    at_ms: when DataFast recorded it, by its own clock. failure: the answer that could not tell.
    """

    goal: UnconfirmedGoal
    settlement: Settlement
    looked: bool = False
    absent: bool = False
    remote_id: str | None = None
    at_ms: int | None = None
    failure: Outcome | None = None

    @property
    def outcome(self) -> LookOutcome:
        """What the read-back showed."""
        if self.settlement.state is GoalState.DELIVERED:
            return LookOutcome.FOUND
        return LookOutcome.ABSENT if self.absent else LookOutcome.CANNOT_TELL


@dataclass(frozen=True, slots=True)
class NotYet:
    """Nothing can be claimed now. until_ms: by the database's clock; None: nothing waits. now_ms: that clock."""

    until_ms: int | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Whether an answer was written: not, if the lease was over. news: what changed, as `pauses.learn` says."""

    written: bool
    news: str | None = None
