"""An event becomes `PlannedGoal`s, and these become `GoalDraft`s; one that was stored is a `Goal`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model.event import Event, Json
    from bridge.model.link import Key, NamedVisitor


class GoalState(StrEnum):
    PARKED = "parked"
    PENDING = "pending"
    LEASED = "leased"
    SENDING = "sending"
    UNCONFIRMED = "unconfirmed"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNATTRIBUTED = "unattributed"
    HELD = "held"
    DRY = "dry"
    CANCELLED = "cancelled"


# The bridge is done with these; the others wait for a visitor, for the worker or for a person.
FINAL: Final = frozenset(map(GoalState, ("delivered", "rejected", "expired", "unattributed", "dry", "cancelled")))
UNFINAL: Final = tuple(state for state in GoalState if state not in FINAL)
# A worker has claimed these, or they may have arrived: nobody else touches them.
UNDER_WAY: Final = (GoalState.LEASED, GoalState.SENDING, GoalState.UNCONFIRMED)
# These have all they need, and the worker brings them to an end by itself.
TO_SEND: Final = (GoalState.PENDING, *UNDER_WAY)
# A person may have these sent after all; `goals retry --help` names them in this order.
RETRIABLE: Final = tuple(map(GoalState, ("rejected", "expired", "held", "unattributed", "cancelled")))

# Kinds that DataFast records only once, however often they are sent: if in doubt, they are sent again, never read back.
IDEMPOTENT: Final = ("payment",)
VISITOR_OPTIONAL: Final = ("payment",)  # kinds that DataFast takes without a visitor, too


class Candidate(NamedTuple):
    """A value that may be the visitor: where it was found and what it is (any JSON value that is not missing).

    borrowed: the field has another purpose, and often contains the app's own user id.
    """

    path: str
    value: Json
    borrowed: bool = False


class Follows(NamedTuple):
    """The goal that must have been made before another: its name, its once key, and the value in that key."""

    goal: str
    once_key: str
    value: str

    @property
    def text(self) -> str:
        """For people: `payment_failed with in_1`."""
        return f"{self.goal} with {self.value}"


class PlannedGoal(NamedTuple):
    """The goal that one rule makes for one event; its visitor is still to be resolved.

    once_key: unique within the destination (ADR 4). max_age_ms, wait_ms: None stands for the setting.
    candidates: what the rule's own visitor paths found; those of the file's paths come after them.
    notes: what was changed to fit DataFast's limits, for the trace. follows: the goal that must have been made before.
    origin: where its rule comes from, if that is a layer's. dry: its rule is dry. notify: its rule asks for an alert.
    """

    rule_id: str
    name: str
    description: str | None
    metadata: Mapping[str, str]
    once_key: str
    destination: str
    candidates: tuple[Candidate, ...] = ()
    max_age_ms: int | None = None
    wait_ms: int | None = None
    notes: tuple[str, ...] = ()
    follows: Follows | None = None
    kind: str = "goal"  # of the action; what sends it is bridge.datafast.actions
    origin: str = ""
    dry: bool = False
    notify: bool = False


@dataclass(frozen=True, slots=True)
class GoalDraft:
    """A planned goal of an event (or of one element of it), with what the event says about its visitor.

    own: the visitors that the event names, best first. refused: what was found instead, in words. dry: it is stored and
    never sent. The times are the element's.
    """

    event: Event
    planned: PlannedGoal
    destination: str
    happened_at_ms: int
    ordered_at_ms: int
    time_is_stated: bool
    keys: tuple[Key, ...] = ()
    own: tuple[NamedVisitor, ...] = ()
    refused: str | None = None
    test: bool = False
    dry: bool = False
    rules_hash: str | None = None
    handover: str | None = None  # what the event is, if a visitor can be handed over by it

    @property
    def place(self) -> tuple[str, str]:
        """What makes it unique: its destination and once key."""
        return self.destination, self.planned.once_key


@dataclass(frozen=True, slots=True)
class Goal:
    """A claimed goal, with everything that sending needs."""

    id: int
    destination: str
    visitor: str
    name: str
    description: str
    metadata: Mapping[str, str]
    once_key: str
    event_id: int
    happened_at_ms: int
    time_is_stated: bool
    created_at_ms: int
    expires_at_ms: int
    attempts: int  # those that count towards back-off
    unknown_visitor_tries: int = 0
    first_try_at_ms: int | None = None
    kind: str = "goal"
