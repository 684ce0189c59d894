"""Suggest what would find more visitors: an unread field with users' ids, and matching by e-mail address.

It reads the stored events of goals without a visitor, and the addresses in 30 days of events, which stay in memory.
"""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from bridge.identity.people import is_object_id, is_read, user_id
from bridge.store.clock import read_ms
from bridge.store.operator import history, tallies
from bridge.workbench import stored

if TYPE_CHECKING:
    from bridge.model import Document, Json, Key, Source
    from bridge.prepare import Preparer, ReadEvent
    from bridge.rules import RuleSet
    from bridge.settings import Settings
    from bridge.store import Store
    from bridge.store.operator.tallies import GoalWithoutVisitor

DAYS: Final = 30
_CONTAINERS: Final = ("metadata", "custom_data", "meta_data", "notes", "hidden", "passthrough", "url_params", "tags")
_DEPTH: Final = 6
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_LIKELY: Final = frozenset({"account", "login", "username", "profile", "subject", "member", "person"})
_OTHER_STEMS: Final = frozenset(
    """
    organi workspace tenant order datafast compan product affiliat referr invit
    """.split()  # noqa: SIM905
)
_OTHER_WORDS: Final = frozenset(  # words in names of fields that identify something other than a user
    """
    org orgs team teams group company business firm tenant order invoice cart checkout session booking ticket quote
    plan price variant item offer coupon promo campaign subscription license licence seat seats quantity amount total
    version env app store shop site domain project channel region country locale lang language currency type kind
    status date time at by from to name title email mail phone url link note message number count source medium seller
    vendor merchant partner agent rep manager coach creator author host sales assignee recipient gift beneficiary parent
    """.split()  # noqa: SIM905 - a list of words is read more easily
)
_DISTINCT_MIN: Final = 3  # values, if none of them is a known user


@dataclass(slots=True)
class UnreadField:
    """A site's own field in events of goals without a visitor. known: how many of its values are users with a visitor.

    sales: whether all of these goals are purchases.
    """

    source: str
    path: str
    goals: int = 0
    known: int = 0
    sales: bool = True
    values: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The field with the object that contains it: `metadata.account`."""
        return ".".join(self.path.split(".")[-2:])

    @property
    def is_likely(self) -> bool:
        """Whether it may hold user ids: its values tell people apart, and some are known or its name suggests it."""
        if 2 * len(self.values) <= self.goals:
            return False
        likely_name = bool(_words(self.path.rpartition(".")[2]) & _LIKELY)
        numbers = any(map(str.isdigit, self.values))
        if self.known:
            return likely_name or not numbers  # 42 may be an id or a quantity
        distinct = len(self.values) >= _DISTINCT_MIN and all(any(map(str.isdigit, value)) for value in self.values)
        return likely_name and distinct and not numbers


def _words(name: str) -> set[str]:
    """The words of a field's name, in lower case and without `id`: `orgId`, `org_id` and `orgid` are the same."""
    words = {word.lower() for word in _WORDS.findall(name)}
    return words | {word.removesuffix("id") for word in words}


@dataclass(frozen=True, slots=True)
class Improvements:
    """What would help. goals: those of the last 30 days without a visitor; by_email: how many an address would find."""

    goals: int = 0
    fields: tuple[UnreadField, ...] = ()
    by_email: int = 0


def improvements(store: Store, rule_set: RuleSet, settings: Settings) -> Improvements:
    """What would have found visitors for goals where one could have been handed over."""
    with store.read() as conn:
        now = read_ms(conn)
        unnamed = tallies.unnamed(conn, now - DAYS * 86_400_000)
        events = {event.id: event for event in history.events_by_id(conn, [goal.event_id for goal in unnamed])}
    if not unnamed:
        return Improvements()
    with_email = replace(settings, bridge_match_email="on")
    preparer = replace(stored.preparer(store, rule_set, with_email), email_key=secrets.token_bytes(32))
    read = {number: preparer.read(event) for number, event in events.items() if event.body is not None}
    by_email = 0
    if settings.bridge_match_email == "off":
        known = _addresses(store, preparer, now)
        by_email = sum(any(key.text in known for key in _emails(read.get(goal.event_id))) for goal in unnamed)
    by_user = settings.bridge_match_user == "on"
    return Improvements(len(unnamed), _fields(store, rule_set, unnamed, read) if by_user else (), by_email)


def _addresses(store: Store, preparer: Preparer, now: int) -> set[str]:
    """The keys of addresses that were named together with a visitor."""
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


def _fields(
    store: Store, rule_set: RuleSet, unnamed: Sequence[GoalWithoutVisitor], read: Mapping[int, ReadEvent]
) -> tuple[UnreadField, ...]:
    """The most likely field of each source, with the number of goals that have it."""
    found: dict[tuple[str, str], UnreadField] = {}
    of_key: dict[str, list[UnreadField]] = defaultdict(list)
    for goal in unnamed:
        for document in read[goal.event_id].documents if goal.event_id in read else ():
            source = rule_set.sources[goal.source]
            for path, value in _own_fields(document.document, _read_paths(source)):
                unread = found.setdefault((goal.source, path), UnreadField(goal.source, path))
                unread.goals += 1
                unread.sales &= goal.handover == "purchase"
                unread.values.add(value)
                of_key[f"user:{source.destination}:live:{value}"].append(unread)
    with store.read() as conn:
        for key in tallies.known_users(conn, of_key):
            for unread in of_key[key]:
                unread.known += 1
    best: dict[str, UnreadField] = {}
    for unread in sorted(found.values(), key=lambda unread: (-unread.known, -unread.goals, unread.path)):
        if unread.is_likely:
            best.setdefault(unread.source, unread)
    return tuple(best[source] for source in sorted(best))


def _read_paths(source: Source) -> set[str]:
    """The paths that a source's file or preset already reads."""
    linked = (path for spec in source.links for path in spec.paths)
    of_people = (path for spec in source.people for path in spec.paths)
    return {path.text for path in (*linked, *of_people, *source.visitor, *source.borrowed)}


def _own_fields(document: Document, known: Collection[str]) -> Iterator[tuple[str, str]]:
    """(path, value) of each field that the site itself put into an event and nothing reads."""
    fields: list[tuple[str, Json]] = [("", document.body)]
    for _ in range(_DEPTH):
        fields = [
            (f"{path}.{name}" if path else name, inner)
            for path, value in fields
            if isinstance(value, dict)
            for name, inner in value.items()
        ]
        for path, container in fields:
            if path.rpartition(".")[2] in _CONTAINERS and isinstance(container, dict):
                for name, inner in container.items():
                    value = user_id(inner)
                    if value and not is_object_id(value) and f"{path}.{name}" not in known and _may_hold_user_id(name):
                        yield f"{path}.{name}", value


def _may_hold_user_id(name: str) -> bool:
    low = name.lower()
    if not name.isidentifier() or is_read(name) or any(word in low for word in _OTHER_STEMS):
        return False
    return not _words(name) & _OTHER_WORDS
