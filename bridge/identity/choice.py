"""Why this visitor: a goal's own event, else its thread's evidence, else its customer's.

Pure. `resolve` decides for one goal, by `KnownLinks`, which `bridge.store.links.learning` loads once for many goals.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from bridge.identity.evidence import Evidence, FoundVisitor
from bridge.identity.sentences import best_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bridge.identity.evidence import Mention
    from bridge.model import Key, NamedVisitor

    Usable = Callable[[Evidence], bool]


class AtDestination(Protocol):
    """What a destination has said about visitors (`bridge.store.goals.unknown.Unknown`)."""

    def passed_over(self, destination: str, item: NamedVisitor | Evidence) -> bool:
        """Whether this candidate is of no use at this destination."""

    def unproved(self, destination: str, item: NamedVisitor | Evidence | FoundVisitor) -> bool:
        """Whether this destination must be asked first."""


def resolve(
    destination: str,
    own: Sequence[NamedVisitor],
    keys: Sequence[Key],
    at_ms: int,
    links: KnownLinks,
    unknown: AtDestination,
    *,
    weak: bool,
    first: bool,
    without: str | None = None,
    proved: bool = False,
) -> FoundVisitor | None:
    """The visitor of a goal: the event's own, else its thread's, else (weak) its customer's. without: not this one.

    A visitor that has still to be proved is found as `unproved`: the goal waits for it, even if another one would come
    next. proved: the goal waits no longer, so such a visitor is passed over.
    """

    def usable(item: Evidence | NamedVisitor) -> bool:
        if item.visitor == without or unknown.passed_over(destination, item):
            return False
        return not (proved and unknown.unproved(destination, item))

    left = [item for item in own if usable(item)]
    found = as_own(left) if left else links.find(keys, at_ms, weak=weak, first=first, usable=usable)
    return found and replace(found, unproved=unknown.unproved(destination, found))


def as_own(left: Sequence[NamedVisitor]) -> FoundVisitor:
    """The first of these candidates of an event, and the others after it."""
    best = left[0]
    return FoundVisitor(best.visitor, "own", best.sure, path=best.path, others=tuple(left[1:]), borrowed=best.borrowed)


@dataclass(slots=True)
class KnownLinks:
    """What is remembered of some keys, loaded once and asked often.

    threads: a strong key's thread; a key that was stopped has none. gained: threads that existed before and know a
    new visitor now. customers_gained: likewise. met: threads that were there before, know nobody
    for certain and may have met a customer now. stopped: keys that were stopped just now. seen_with: the customers of
    threads, once `recall_customers` has asked.
    """

    threads: dict[str, str] = field(default_factory=dict)
    by_thread: dict[str, dict[tuple[str, str], Evidence]] = field(default_factory=dict)
    by_customer: dict[str, dict[tuple[str, str], Evidence]] = field(default_factory=dict)
    gained: set[str] = field(default_factory=set)
    customers_gained: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)
    seen_with: dict[str, list[Key]] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)  # keys that were met a round number of times

    def strong(self, keys: Iterable[Key]) -> list[Key]:
        """The strong keys that still lead somewhere."""
        return [key for key in keys if key.strong and key.text in self.threads]

    def find(
        self, keys: Sequence[Key], at_ms: int, *, weak: bool, first: bool = False, usable: Usable | None = None
    ) -> FoundVisitor | None:
        """The visitor these keys lead to. weak: the customer may answer, with `first` by its earliest visitor.

        The customer is the one that the keys name; where they name none that knows a visitor, those that their thread
        was seen with (`recall_customers`), if all of them give the same.
        """
        strong = self.strong(keys)
        evidence = [item for key in strong for item in self.by_thread.get(self.threads[key.text], {}).values()]
        chosen = choose(evidence, at_ms, usable=usable)
        if chosen is not None:
            return _found("thread", chosen, evidence, strong, at_ms)
        if not weak:
            return None
        return self._of_customers([key for key in keys if not key.strong], at_ms, first=first, usable=usable) or (
            self._of_thread(strong, at_ms, first=first, usable=usable)
        )

    def _of_customers(
        self, customers: Sequence[Key], at_ms: int, *, first: bool, usable: Usable | None
    ) -> FoundVisitor | None:
        evidence = [item for key in customers for item in self.by_customer.get(key.text, {}).values()]
        chosen = choose(evidence, at_ms, first=first, usable=usable)
        return None if chosen is None else _found("customer", chosen, evidence, customers, at_ms)

    def _of_thread(
        self, strong: Sequence[Key], at_ms: int, *, first: bool, usable: Usable | None
    ) -> FoundVisitor | None:
        """By the customers that the thread was seen with: there is one, or all of them give the same visitor."""
        customers = {key.text: key for own in strong for key in self.seen_with.get(self.threads[own.text], ())}
        found = [self._of_customers([customers[text]], at_ms, first=first, usable=usable) for text in sorted(customers)]
        answers = [one for one in found if one is not None]
        if not answers or len(answers) < len(found) or len({one.visitor for one in answers}) > 1:
            return None
        return replace(answers[0], beside=min(strong, key=lambda key: (best_first(key.kind), key.text)).text)

    def evidence(self, keys: Iterable[Key]) -> Iterator[Evidence]:
        """Everything that these keys could lead to."""
        for key in keys:
            thread = self.threads.get(key.text, "")
            yield from self.by_thread.get(thread, {}).values()
            for customer in self.seen_with.get(thread, ()) if key.strong else (key,):
                yield from self.by_customer.get(customer.text, {}).values()


def _found(
    by: str, chosen: tuple[Evidence, Mention], evidence: Iterable[Evidence], keys: Sequence[Key], at_ms: int
) -> FoundVisitor:
    """The choice as a provenance: through the goal's own key with which the visitor was named, if it has one."""
    (picked, mention) = chosen
    there = {item.key for item in evidence if item.visitor == picked.visitor and mention in (item.first, item.last)}
    own = min(keys, key=lambda key: (key.text not in there, best_first(key.kind), key.text))
    return FoundVisitor(
        picked.visitor,
        by,
        picked.sure,
        key=own.text,
        kind=own.kind,
        ref=own.id,
        via=None if own.text in there else min(there),
        event=mention.event,
        event_id=mention.event_id,
        before_ms=at_ms - mention.at_ms,
        borrowed=picked.borrowed,
    )


def choose(
    evidence: Iterable[Evidence], at_ms: int, *, first: bool = False, usable: Callable[[Evidence], bool] | None = None
) -> tuple[Evidence, Mention] | None:
    """The visitor whose event is the latest not after `at_ms`, else the earliest; with `first` always the earliest.

    Visitors from a bare `client_reference_id` count only when there is no other. Never depends on the order given.
    """
    able = [item for item in evidence if usable is None or usable(item)]
    able = [item for item in able if item.sure] or able
    mentions = [(item, mention) for item in able for mention in {item.first, item.last}]
    before = [] if first else [pair for pair in mentions if pair[1].at_ms <= at_ms]
    if before:
        return max(before, key=_rank)
    return min(mentions, key=_rank, default=None)


def _rank(pair: tuple[Evidence, Mention]) -> tuple[int, str, str]:
    evidence, mention = pair
    return mention.at_ms, evidence.visitor, evidence.key
