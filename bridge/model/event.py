"""A request becomes a `NewEvent`, then a stored `Event`; its body is a `Document`, which names keys and visitors."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


class EventState(StrEnum):
    RECEIVED = "received"
    ROUTED = "routed"
    QUARANTINED = "quarantined"


class Verdict(StrEnum):
    MATCHED = "matched"
    UNMATCHED = "unmatched"
    IGNORED = "ignored"


class Ack(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields common to all providers, who name them differently.

    time_ms: the time of the event as the provider states it (None: not stated); order_ms: good for order only.
    """

    type: str
    id: str | None = None
    time_ms: int | None = None
    order_ms: int | None = None
    test: bool = False
    account: str | None = None

    @property
    def mode(self) -> str:
        """`test` or `live`."""
        return "test" if self.test else "live"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A verified webhook on its way into the store.

    dedupe_keys: one or two strings; the event is a duplicate if any of them was seen for this source.
    former_keys: the keys that the previous release would have stored, each with the type that it would have read:
    (type, key). They are looked up and never written, and one counts only for a row of that type.
    quarantine: why it cannot be read (None: it can). headers, query: without secrets. signature: how it was
    verified, as JSON (`bridge.receive`).
    """

    source: str
    provider: str
    envelope: Envelope
    dedupe_keys: tuple[str, ...]
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes = field(repr=False)
    quarantine: str | None = None
    former_keys: tuple[tuple[str, str], ...] = ()
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A stored webhook. `id` is ours (`ev_12` for people)."""

    id: int
    source: str
    provider: str
    envelope: Envelope
    received_at_ms: int
    state: EventState
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes | None = field(repr=False)  # None once retention took it
    tries: int = 0  # how often routing began
    verdict: Verdict | None = None
    reason: str | None = None
    duplicates: int = 0

    @property
    def name(self) -> str:
        """The event's name for people: `ev_12`."""
        return f"ev_{self.id}"

    @property
    def happened_at_ms(self) -> int:
        """The event's own time, if the provider states one; one in the future counts as arrival."""
        stated = self.envelope.time_ms
        return self.received_at_ms if stated is None else min(stated, self.received_at_ms)

    @property
    def ordered_at_ms(self) -> int:
        """The best time for ordering the events of one visitor or customer."""
        order = self.envelope.order_ms
        return self.happened_at_ms if order is None else min(order, self.received_at_ms)


# ------------------------------------------------------------------------------------------------------- documents

Json: TypeAlias = Any  # what json.loads gives: dict, list, str, int, float, bool, None


class ExactFloat(float):
    """A JSON number with a point or an exponent, whose `repr` is its text: `4.10` stays `4.10` (for `parse_float`)."""

    __slots__ = ("text",)
    text: str

    def __repr__(self) -> str:
        return self.text

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.text,)


class Missing(Enum):
    """What a path reads if there is no value, or if it is `null`."""

    MISSING = "missing"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class Document:
    """What paths are read from: the body and the other roots.

    - body: the parsed body (or one element of it, with `each`); root: the whole parsed body.
    - header: lower-case names; query: the last value of each parameter.
    - envelope: `type`, `id`, `time`, `test`, `account`; key: what identity extracted, kind -> bare id.
    - derived: what rules compute from the document when they first need it.
    """

    body: Json
    header: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    envelope: Mapping[str, Json] = field(default_factory=dict)
    key: Mapping[str, str] = field(default_factory=dict)
    root: Json = None
    derived: Derived | None = field(default=None, compare=False, repr=False)


class Derived(Protocol):
    """What is computed from one document, each once: its named values, and the document as it was before the change."""

    def has(self, name: str) -> bool:
        """Whether `values:` has this name for the document's event type or any other."""

    def value(self, name: str, document: Document) -> Json | Missing:
        """The value of that name. Never raises."""

    def was(self, document: Document) -> Document:
        """The document before the change."""


class Path(Protocol):
    """A compiled path of the rule language (`bridge.rules.language.paths` makes them)."""

    @property
    def text(self) -> str:
        """The path as the user wrote it."""

    def read(self, document: Document) -> Json | Missing:
        """The value there, or MISSING (also for null); an object with an `id` reads as that id. Never raises."""

    def whole(self, document: Document) -> Json | Missing:
        """Like `read`, but an object stays the object, whether it has an `id` or not. Never raises."""
