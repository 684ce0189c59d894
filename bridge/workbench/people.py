"""What would find more visitors: a field that holds users' ids and is not read, and matching by e-mail address.

It reads the stored events of goals without a visitor, and those of 30 days for their addresses, which stay in memory.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from bridge.identity.people import is_read
from bridge.store.clock import read_ms
from bridge.store.operator import history, tallies
from bridge.workbench import stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bridge.model import Document, Json, Key
    from bridge.prepare import Preparer, ReadEvent
    from bridge.rules import RuleSet
    from bridge.settings import Settings
    from bridge.store import Store
    from bridge.store.operator.tallies import Unnamed

DAYS: Final = 30
_BAGS: Final = ("metadata", "custom_data", "meta_data", "notes", "hidden", "passthrough", "url_params", "tags")
_DEPTH: Final = 6
_LIKELY: Final = ("account", "login", "username", "profile", "subject", "sub", "owner", "client", "person", "member")
_OTHERS: Final = ("organi", "team", "workspace", "tenant", "order", "datafast", "company", "product", "plan", "price")


@dataclass(slots=True)
class UnreadField:
    """A field of your own in goals without a visitor. known: how many of its values are users with a visitor."""

    source: str
    path: str
    goals: int = 0
    known: int = 0
    values: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The field with the object that holds it: `metadata.account`."""
        return ".".join(self.path.split(".")[-2:])

    @property
    def is_likely(self) -> bool:
        """Whether it may hold a user's id: some are known, or it is called so and tells people apart."""
        own = self.path.rpartition(".")[2].lower()
        return self.known > 0 or (own.startswith(_LIKELY) and 2 * len(self.values) > self.goals)


@dataclass(frozen=True, slots=True)
class Improvements:
    """What would help. goals: those of the last 30 days without a visitor; by_email: how many an address would find."""

    goals: int = 0
    fields: tuple[UnreadField, ...] = ()
    by_email: int = 0


def improvements(store: Store, rule_set: RuleSet, settings: Settings) -> Improvements:
    """What would have found the visitors of goals where one could have been handed over."""
    with store.read() as conn:
        now = read_ms(conn)
        unnamed = tallies.unnamed(conn, now - DAYS * 86_400_000)
        events = {event.id: event for event in history.some(conn, [one.event_id for one in unnamed])}
    if not unnamed:
        return Improvements()
    on = replace(settings, bridge_match_email="on")
    preparer = replace(stored.preparer(store, rule_set, on, {}), email_key=secrets.token_bytes(32))
    read = {number: preparer.read(event) for number, event in events.items() if event.body is not None}
    by_email = 0
    if settings.bridge_match_email == "off":
        known = _addresses(store, preparer, now)
        by_email = sum(any(key.text in known for key in _emails(read.get(one.event_id))) for one in unnamed)
    return Improvements(len(unnamed), _fields(store, unnamed, read), by_email)


def _addresses(store: Store, preparer: Preparer, now: int) -> set[str]:
    """The keys of the addresses that were named together with a visitor."""
    found: set[str] = set()
    with store.read() as conn:
        span = history.span(conn, now - DAYS * 86_400_000)
    for events in stored.pages(store, span):
        for event in events:
            if event.body is not None:
                read = preparer.read(event)
                for document in read.documents:
                    named = document.observation.named
                    if named is not None and not named.borrowed:
                        found.update(key.text for key in document.observation.keys if key.kind == "email")
    return found


def _emails(read: ReadEvent | None) -> Iterator[Key]:
    for document in read.documents if read is not None else ():
        yield from (key for key in document.observation.keys if key.kind == "email")


def _fields(store: Store, unnamed: Sequence[Unnamed], read: Mapping[int, ReadEvent]) -> tuple[UnreadField, ...]:
    """The likeliest field of each source, and how many goals have it."""
    found: dict[tuple[str, str], UnreadField] = {}
    of_value: dict[str, list[UnreadField]] = defaultdict(list)
    for one in unnamed:
        for document in read[one.event_id].documents if one.event_id in read else ():
            for path, value in _own_fields(document.document):
                unread = found.setdefault((one.source, path), UnreadField(one.source, path))
                unread.goals += 1
                unread.values.add(value)
                of_value[value].append(unread)
    with store.read() as conn:
        for value in tallies.known_users(conn, of_value):
            for unread in of_value[value]:
                unread.known += 1
    best: dict[str, UnreadField] = {}
    for unread in sorted(found.values(), key=lambda one: (-one.known, -one.goals, one.path)):
        if unread.is_likely:
            best.setdefault(unread.source, unread)
    return tuple(best[source] for source in sorted(best))


def _own_fields(document: Document) -> Iterator[tuple[str, str]]:
    """(path, value) of what the site itself has put into an event and nobody reads."""
    todo: list[tuple[str, Json]] = [("", document.body)]
    for _ in range(_DEPTH):
        todo = [
            (f"{path}.{name}" if path else name, value)
            for path, thing in todo
            if isinstance(thing, dict)
            for name, value in thing.items()
        ]
        for path, value in todo:
            if path.rpartition(".")[2] in _BAGS and isinstance(value, dict):
                yield from ((f"{path}.{name}", str(one)) for name, one in value.items() if _may_be(name, one))


def _may_be(name: str, value: Json) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int) or not 0 < len(str(value)) <= 200:
        return False
    return name.isidentifier() and not is_read(name) and not any(word in name.lower() for word in _OTHERS)
