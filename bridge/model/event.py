"""A request becomes a `NewEvent`, stored it is an `Event`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

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
    """What every provider has, each under another name.

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
    former_keys: what the previous release would have stored, each with its type of the event: (type, key). They are
    looked up and never written, and one counts only for a row of that type.
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
        """What people call it: `ev_12`."""
        return f"ev_{self.id}"

    @property
    def happened_at_ms(self) -> int:
        """The event's own time, if the provider states one; one in the future counts as arrival (Design 6)."""
        stated = self.envelope.time_ms
        return self.received_at_ms if stated is None else min(stated, self.received_at_ms)

    @property
    def ordered_at_ms(self) -> int:
        """The best time for ordering the events of one visitor or customer."""
        order = self.envelope.order_ms
        return self.happened_at_ms if order is None else min(order, self.received_at_ms)
