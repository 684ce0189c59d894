"""What events say about visitors, as values: what one event shows, what is remembered of it, and whom a goal found.

Pure: no SQL, no clock. Which evidence counts is decided in `bridge.identity.choice`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from bridge.model import NamedVisitor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Key


@dataclass(frozen=True, slots=True)
class Observation:
    """What one event, or one element of it, teaches: keys that belong together, and perhaps their visitor.

    event_id: None for a hint from outside. event: what people call it, `checkout.session.completed evt_1`.
    at_ms: the event's own time, for the choice among visitors. sender: its source.
    """

    keys: tuple[Key, ...]
    at_ms: int
    event: str
    event_id: int | None = None
    element: int = 0
    named: NamedVisitor | None = None
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Mention:
    """One event that named a visitor."""

    at_ms: int
    event: str
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A visitor was named together with this key: for the first and for the last time by the events' own clocks."""

    key: str
    visitor: str
    sure: bool
    first: Mention
    last: Mention
    borrowed: bool = False  # named by nothing but a borrowed field

    def told(self, key: str, sender: str) -> Evidence:
        """The same of a person's key, whose events are called `clerk user.created evt_1`: it may be any tool's."""
        first, last = (
            mention if mention.event_id is None else replace(mention, event=f"{sender} {mention.event}")
            for mention in (self.first, self.last)
        )
        return replace(self, key=key, first=first, last=last)

    def joined(self, other: Evidence) -> Evidence:
        """Both together; the order does not matter."""
        return Evidence(
            self.key,
            self.visitor,
            self.sure or other.sure,
            min(self.first, other.first, key=_order),
            max(self.last, other.last, key=_order),
            self.borrowed and other.borrowed,
        )


def _order(mention: Mention) -> tuple[int, int, str]:
    return mention.at_ms, mention.event_id or 0, mention.event


@dataclass(frozen=True, slots=True)
class FoundVisitor:
    """A visitor and how it was found: the goal's provenance.

    by: own (a field of the event) | thread | customer | user | email. path: of the own field. key, kind, ref: the
    goal's own key that led there (of a customer or a person that only the thread or the customer was seen with: that
    one, and `beside` is the goal's own key); via: another key of the thread, where the visitor was named. event: what
    named it. before_ms: how long before the goal's event (negative: after it). at_ms: of a person, when. others: own
    candidates that were not taken.
    """

    visitor: str
    by: str
    sure: bool = True
    path: str | None = None
    key: str | None = None
    kind: str | None = None
    ref: str | None = None
    via: str | None = None
    event: str | None = None
    event_id: int | None = None
    before_ms: int | None = None
    others: tuple[NamedVisitor, ...] = ()
    borrowed: bool = False
    beside: str | None = None
    at_ms: int | None = None
    unproved: bool = False  # borrowed, and the destination has not said yet that it knows it

    @property
    def own(self) -> tuple[NamedVisitor, ...]:
        """The candidates that the event names itself, this one first."""
        mine = (NamedVisitor(self.visitor, self.path or "", self.sure, self.borrowed),) if self.by == "own" else ()
        return (*mine, *self.others)

    def to_json(self) -> dict[str, Any]:
        """The entries that say something."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["others"] = [[other.visitor, other.path, other.sure, other.borrowed] for other in self.others]
        values["borrowed"], values["unproved"] = self.borrowed or None, self.unproved or None
        return {name: value for name, value in values.items() if value not in (None, [])}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        known = {name: value for name, value in values.items() if name in cls.__slots__}
        known["others"] = tuple(NamedVisitor(*other) for other in known.get("others", ()))
        return cls(**known)
