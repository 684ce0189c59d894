"""Choose a goal's visitor: from its own event, else its thread, its customer, its user or its e-mail address.

Pure. The values come first: what one event shows, what is remembered, and which visitor a goal found. `resolve` decides
for one goal by `KnownLinks`, which `bridge.store.links.learning` loads once for many goals, and by what destinations
have said about visitors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from bridge.identity.sentences import best_first
from bridge.model import PERSON_KINDS, NamedVisitor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from bridge.model import Key

    Usable = Callable[["Evidence"], bool]
    Ask = Callable[[Sequence[Key]], "FoundVisitor | None"]

_DAY_MS: Final = 86_400_000
SURE_MS: Final = _DAY_MS  # after which an unknown visitor is tried again
BARE_MS: Final = 30 * _DAY_MS  # the same for a bare `client_reference_id`


@dataclass(frozen=True, slots=True)
class Observation:
    """What one event, or one element of it, teaches: keys that belong together, and possibly their visitor.

    at_ms: the event's own time, for choosing among visitors. event: its name for people, such as
    `checkout.session.completed evt_1`. event_id: None for a hint from outside. sender: its source.
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
    """A visitor was named together with this key: when first and when last, by the events' own times."""

    key: str
    visitor: str
    sure: bool
    first: Mention
    last: Mention
    borrowed: bool = False  # named only by a borrowed field

    def for_person(self, key: str, sender: str) -> Evidence:
        """The same for a person's key, with the sender in the names of its events, which may come from any tool."""
        first, last = (
            mention if mention.event_id is None else replace(mention, event=f"{sender} {mention.event}")
            for mention in (self.first, self.last)
        )
        return replace(self, key=key, first=first, last=last)

    def joined(self, other: Evidence) -> Evidence:
        """Merge the two; the order does not matter."""
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
    """A visitor and how it was found: a goal's provenance.

    - by: own (a field of the event) | thread | customer | user | email
    - path: of the event's own field
    - key, kind, ref: the goal's own key that led there. If its thread or its customer led to another customer or to a
      person, they are the key of that one, and `beside` is the goal's own key.
    - via: another key of the thread, with which the visitor was named
    - event, event_id: the event that named it
    - before_ms: how long before the goal's event that was; negative: after it
    - at_ms: when that was, if a person's key led there
    - others: the event's own candidates that were not taken
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
    unproved: bool = False  # borrowed, and not yet confirmed by the destination

    @property
    def own(self) -> tuple[NamedVisitor, ...]:
        """The candidates that the event itself names, with this one first."""
        own = (NamedVisitor(self.visitor, self.path or "", self.sure, self.borrowed),) if self.by == "own" else ()
        return (*own, *self.others)

    def to_json(self) -> dict[str, Any]:
        """The fields that are set, as JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["others"] = [[other.visitor, other.path, other.sure, other.borrowed] for other in self.others]
        values["borrowed"], values["unproved"] = self.borrowed or None, self.unproved or None
        return {name: value for name, value in values.items() if value not in (None, [])}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        known = {name: value for name, value in values.items() if name in cls.__slots__}
        known["others"] = tuple(NamedVisitor(*other) for other in known.get("others", ()))
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Strangers:
    """What destinations have said about some visitors: which are passed over for now, and which must still be proved.

    A visitor who never became known (404 until the last attempt) is passed over, so that the next candidate is tried,
    but not permanently: one from metadata may still appear (a blocked pageview) and is tried again after a day; a bare
    `client_reference_id` is probably a user id of the app and is passed over for a month.

    A bare UUID in a field that a site may use for its own user ids counts as a visitor only after the destination has
    said that it knows it. It is asked about each once (`GET /visitors/{id}`, by the worker that claims it), and the
    answer is remembered.

    since_ms: (destination, visitor) → when the destination finally answered that it does not know the visitor.
    known: (destination, visitor) → whether the destination has said that it knows it.
    """

    since_ms: Mapping[tuple[str, str], int]
    known: Mapping[tuple[str, str], bool]
    now_ms: int

    def passed_over(self, destination: str, item: NamedVisitor | Evidence) -> bool:
        """Whether to skip this candidate at this destination."""
        if item.borrowed and self.known.get((destination, item.visitor)) is False:
            return True
        since_ms = self.since_ms.get((destination, item.visitor))
        return since_ms is not None and self.now_ms - since_ms < (SURE_MS if item.sure else BARE_MS)

    def unproved(self, destination: str, item: NamedVisitor | Evidence | FoundVisitor) -> bool:
        """Whether this destination must be asked about it first."""
        return item.borrowed and (destination, item.visitor) not in self.known


def resolve(
    destination: str,
    own: Sequence[NamedVisitor],
    keys: Sequence[Key],
    at_ms: int,
    links: KnownLinks,
    strangers: Strangers,
    *,
    weak: bool,
    first: bool,
    without: str | None = None,
    proved: bool = False,
    people: Collection[str] = PERSON_KINDS,
) -> FoundVisitor | None:
    """The visitor of a goal: its event's own, else its thread's, else (if `weak`) its customer's or a person's.

    without: exclude this visitor. people: the kinds of people who may answer.

    A visitor that must still be proved is returned as `unproved`: the goal waits for it, even if there is another
    candidate. proved: the goal no longer waits, so such a visitor is passed over.
    """
    users = links.users(keys)

    def usable(item: Evidence | NamedVisitor) -> bool:
        if item.visitor == without or (item.borrowed and item.visitor in users):
            return False
        if strangers.passed_over(destination, item):
            return False
        return not (proved and strangers.unproved(destination, item))

    candidates = [item for item in own if usable(item)]
    own_keys = [key for key in keys if key.applies_to(destination)]
    found = (
        as_own(candidates)
        if candidates
        else links.find(own_keys, at_ms, weak=weak, first=first, usable=usable, people=people)
    )
    return found and replace(found, unproved=strangers.unproved(destination, found))


def as_own(candidates: Sequence[NamedVisitor]) -> FoundVisitor:
    """The first of an event's candidates as the found visitor, with the others listed after it."""
    best, *others = candidates
    return FoundVisitor(best.visitor, "own", best.sure, path=best.path, others=tuple(others), borrowed=best.borrowed)


@dataclass(slots=True)
class KnownLinks:
    """What is remembered about some keys, loaded once and queried often.

    - threads: a strong key's thread; a stopped key has none
    - by_thread, by_customer: the evidence of threads, and of customers and people
    - gained, customers_gained: threads and customers that existed before and have just learned a visitor
    - met: threads that existed before, know nobody for certain and may have just met a customer
    - seen_with: the customers and people of threads, once `recall_customers` has asked
    - people_of: the people of customers
    - people: the people's keys that were read; those in `mute` lead nowhere, and those in `often` may be shared
    - stopped: keys stopped just now
    """

    threads: dict[str, str] = field(default_factory=dict)
    by_thread: dict[str, dict[tuple[str, str], Evidence]] = field(default_factory=dict)
    by_customer: dict[str, dict[tuple[str, str], Evidence]] = field(default_factory=dict)
    gained: set[str] = field(default_factory=set)
    customers_gained: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)
    seen_with: dict[str, list[Key]] = field(default_factory=dict)
    people_of: dict[str, list[Key]] = field(default_factory=dict)
    people: set[str] = field(default_factory=set)
    mute: set[str] = field(default_factory=set)
    often: set[str] = field(default_factory=set)
    stopped: dict[str, str] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)  # keys whose number of uses is round

    def strong(self, keys: Iterable[Key]) -> list[Key]:
        """Those of the keys that are strong and not stopped."""
        return [key for key in keys if key.strong and key.text in self.threads]

    def users(self, keys: Iterable[Key]) -> set[str]:
        """The ids that certainly identify a user, among these keys and those that their threads were seen with."""
        keys = list(keys)
        sure = {key.id for key in keys if key.kind == "user" and key.text in self.people and key.text not in self.mute}
        return sure | {key.id for key in self._seen_with(self.strong(keys)) if key.kind == "user"}

    def find(
        self,
        keys: Sequence[Key],
        at_ms: int,
        *,
        weak: bool,
        first: bool = False,
        usable: Usable | None = None,
        people: Collection[str] = PERSON_KINDS,
    ) -> FoundVisitor | None:
        """The visitor these keys lead to. weak: customers and people may answer, with `first` by the earliest visitor.

        The customer is the one that the keys name. If they name none that knows a visitor, the customers that their
        thread was seen with count (`recall_customers`), provided that all give the same visitor. People come last.
        """
        strong = self.strong(keys)
        evidence = [item for key in strong for item in self.by_thread.get(self.threads[key.text], {}).values()]
        chosen = choose(evidence, at_ms, usable=usable)
        if chosen is not None:
            return _found("thread", chosen, evidence, strong, at_ms)
        if not weak:
            return None
        ask = partial(self._ask, at_ms=at_ms, first=first, usable=usable)
        customers = [key for key in keys if key.kind == "customer"]
        return ask(customers) or self._through_customers(strong, ask) or self._through_people(keys, strong, people, ask)

    def _ask(self, weak: Sequence[Key], *, at_ms: int, first: bool, usable: Usable | None) -> FoundVisitor | None:
        """The visitor of customers, or of one person."""
        evidence = [item for key in weak for item in self.by_customer.get(key.text, {}).values()]
        chosen = choose(evidence, at_ms, first=first, usable=usable)
        return None if chosen is None else _found(weak[0].kind, chosen, evidence, weak, at_ms)

    def _through_customers(self, strong: Sequence[Key], ask: Ask) -> FoundVisitor | None:
        """The visitor of the customers that the thread was seen with, if there is one or all give the same."""
        customers = {key.text: key for key in self._seen_with(strong) if not key.is_person}
        found = [ask([customers[text]]) for text in sorted(customers)]
        answers = [answer for answer in found if answer is not None]
        if not answers or len(answers) < len(found) or len({answer.visitor for answer in answers}) > 1:
            return None
        return replace(answers[0], beside=_best(strong).text)

    def _through_people(
        self, keys: Sequence[Key], strong: Sequence[Key], kinds: Collection[str], ask: Ask
    ) -> FoundVisitor | None:
        """The visitor of the users, else of the e-mail addresses. If several know visitors, they must agree.

        First the people whom the keys name, else those seen with the thread, else those seen with the customer (its
        other users only if no user was named: they may be colleagues); last, those named together with any of these:
        the user's address.
        """
        seen_with = self._seen_with(strong)
        customers = {key.text: key for key in (*keys, *seen_with) if key.kind == "customer"}
        of_customer = self.people_of.get(next(iter(customers)), []) if len(customers) == 1 else []
        if self.users(keys):
            of_customer = [key for key in of_customer if key.kind != "user"]
        stages: list[tuple[Sequence[Key], Sequence[Key]]] = [
            (keys, ()),
            (seen_with, strong),
            (of_customer, list(customers.values())),
        ]
        named = [key for group, _ in stages for key in group if key.is_person and key.text not in self.mute]
        last = [other for key in named if key.kind in kinds for other in self.people_of.get(key.text, ())]
        for pairs in (stages, [(last, named)]):
            for kind in (kind for kind in PERSON_KINDS if kind in kinds):
                for people, beside in pairs:
                    answers = self._answers_of_kind(kind, people, ask)
                    if answers:
                        agreed = len({answer.visitor for answer in answers}) == 1
                        return replace(answers[0], beside=_best(beside).text if beside else None) if agreed else None
        return None

    def _answers_of_kind(self, kind: str, named: Iterable[Key], ask: Ask) -> list[FoundVisitor]:
        """The answers of the people of one kind who know a visitor."""
        people: dict[str, list[Key]] = {}
        for key in named:
            if key.kind == kind and key.text not in self.mute:
                people.setdefault(key.id, []).append(key)
        return [answer for _, keys in sorted(people.items()) if (answer := ask(keys)) is not None]

    def _seen_with(self, strong: Iterable[Key]) -> list[Key]:
        """The customers and people that the threads of these keys were seen with."""
        return [other for key in strong for other in self.seen_with.get(self.threads[key.text], ())]

    def evidence(self, keys: Iterable[Key]) -> Iterator[Evidence]:
        """All evidence to which these keys could lead."""
        for key in keys:
            thread = self.threads.get(key.text, "")
            yield from self.by_thread.get(thread, {}).values()
            weak = {other.text for other in self.seen_with.get(thread, ())} if key.strong else {key.text}
            for _ in range(2):
                weak |= {person.text for text in weak for person in self.people_of.get(text, ())}
            for text in weak:
                yield from self.by_customer.get(text, {}).values()


def _best(keys: Iterable[Key]) -> Key:
    """The most informative key for a person."""
    return min(keys, key=lambda key: (best_first(key.kind), key.text))


def _found(
    by: str, chosen: tuple[Evidence, Mention], evidence: Iterable[Evidence], keys: Sequence[Key], at_ms: int
) -> FoundVisitor:
    """The choice as a provenance: through the goal's own key if the visitor was named with one."""
    found, mention = chosen
    named_with = {item.key for item in evidence if item.visitor == found.visitor and mention in (item.first, item.last)}
    own = min(keys, key=lambda key: (key.text not in named_with, best_first(key.kind), key.text))
    return FoundVisitor(
        found.visitor,
        by,
        found.sure,
        key=own.text,
        kind=own.kind,
        ref=own.id,
        via=None if own.text in named_with else min(named_with),
        event=mention.event,
        event_id=mention.event_id,
        before_ms=at_ms - mention.at_ms,
        at_ms=mention.at_ms if own.is_person else None,
        borrowed=found.borrowed,
    )


def choose(
    evidence: Iterable[Evidence], at_ms: int, *, first: bool = False, usable: Callable[[Evidence], bool] | None = None
) -> tuple[Evidence, Mention] | None:
    """The visitor with the latest event not after `at_ms`, else the one with the earliest. first: always the earliest.

    Visitors from a bare `client_reference_id` count only if there is no other. The order of the input is irrelevant.
    """
    candidates = [item for item in evidence if usable is None or usable(item)]
    candidates = [item for item in candidates if item.sure] or candidates
    mentions = [(item, mention) for item in candidates for mention in {item.first, item.last}]
    before = [] if first else [pair for pair in mentions if pair[1].at_ms <= at_ms]
    if before:
        return max(before, key=_rank)
    return min(mentions, key=_rank, default=None)


def _rank(pair: tuple[Evidence, Mention]) -> tuple[int, str, str]:
    evidence, mention = pair
    return mention.at_ms, evidence.visitor, evidence.key
