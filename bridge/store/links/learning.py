"""Remembered keys: which belong to one thread, and which visitors were named with them.

`learn` takes what a batch of events teaches, joins threads and stops a key that would join three visitors who have no
customer in common; the `Memory` it returns answers for all keys of the batch. Learners take turns: SQLite has one
writer, on PostgreSQL a lock that lives as long as the transaction (a merge moves keys that another learner may hold, so
row locks alone could wait for each other in a circle). Every key that is touched is written before it is read, so
nobody misses anybody.
All look-ups go by an index. Choosing a visitor is `bridge.identity.linking`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from bridge.identity import linking
from bridge.identity.linking import Evidence, Found, Groups, Point
from bridge.identity.sentences import best_first
from bridge.store.links import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from bridge.identity.linking import Learning
    from bridge.model import Key

    Usable = Callable[[Evidence], bool]

# -------------------------------------------------------------------------------------------------------- memory


@dataclass(slots=True)
class Memory:
    """What is remembered of some keys, loaded once and asked often.

    threads: a strong key's thread; a key that was stopped has none. gained: threads that were there before and know
    a visitor now whom they did not know. customers_gained: likewise. met: threads that were there before, know nobody
    for certain and may have met a customer now. stopped: keys that were stopped just now. seen_with: the customers of
    threads, once `meet` has asked.
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
    ) -> Found | None:
        """The visitor these keys lead to. weak: the customer may answer, with `first` by its earliest visitor.

        The customer is the one that the keys name; where they name none that knows a visitor, those that their thread
        was seen with (`meet`), if all of them give the same.
        """
        strong = self.strong(keys)
        evidence = [item for key in strong for item in self.by_thread.get(self.threads[key.text], {}).values()]
        chosen = linking.choose(evidence, at_ms, usable=usable)
        if chosen is not None:
            return _found("thread", chosen, evidence, strong, at_ms)
        if not weak:
            return None
        return self._of_customers([key for key in keys if not key.strong], at_ms, first=first, usable=usable) or (
            self._of_thread(strong, at_ms, first=first, usable=usable)
        )

    def _of_customers(
        self, customers: Sequence[Key], at_ms: int, *, first: bool, usable: Usable | None
    ) -> Found | None:
        evidence = [item for key in customers for item in self.by_customer.get(key.text, {}).values()]
        chosen = linking.choose(evidence, at_ms, first=first, usable=usable)
        return None if chosen is None else _found("customer", chosen, evidence, customers, at_ms)

    def _of_thread(self, strong: Sequence[Key], at_ms: int, *, first: bool, usable: Usable | None) -> Found | None:
        """The customers that the thread was seen with: one, or all of one mind."""
        customers = {key.text: key for own in strong for key in self.seen_with.get(self.threads[own.text], ())}
        found = [self._of_customers([customers[text]], at_ms, first=first, usable=usable) for text in sorted(customers)]
        answers = [one for one in found if one is not None]
        if not answers or len(answers) < len(found) or len({one.visitor for one in answers}) > 1:
            return None
        return replace(answers[0], beside=min(strong, key=lambda key: (best_first(key.kind), key.text)).text)

    def evidence(self, keys: Iterable[Key]) -> Iterator[Evidence]:
        """All that these keys could lead to."""
        for key in keys:
            thread = self.threads.get(key.text, "")
            yield from self.by_thread.get(thread, {}).values()
            for customer in self.seen_with.get(thread, ()) if key.strong else (key,):
                yield from self.by_customer.get(customer.text, {}).values()


def _found(
    by: str, chosen: tuple[Evidence, Point], evidence: Iterable[Evidence], keys: Sequence[Key], at_ms: int
) -> Found:
    """The choice as a provenance: through the goal's own key with which the visitor was named, if it has one."""
    (picked, point) = chosen
    there = {item.key for item in evidence if item.visitor == picked.visitor and point in (item.first, item.last)}
    own = min(keys, key=lambda key: (key.text not in there, best_first(key.kind), key.text))
    return Found(
        picked.visitor,
        by,
        picked.sure,
        key=own.text,
        kind=own.kind,
        ref=own.id,
        via=None if own.text in there else min(there),
        event=point.event,
        event_id=point.event_id,
        before_ms=at_ms - point.at_ms,
        borrowed=picked.borrowed,
    )


# --------------------------------------------------------------------------------------------------------- learn


def learn(conn: Connection, learnings: Sequence[Learning], now: int) -> Memory:
    """Remember what these events teach. The order among them, and among calls, makes no difference."""
    statements.lock(conn)
    memory = Memory()
    todo = [learning for learning in learnings if learning.keys]
    if not todo:
        return memory
    statements.write_edges(conn, todo)
    cleared: set[Learning] = set()
    while todo:  # three visitors end a round: the rest meets the threads as they are without the key that was stopped
        todo = _Round(conn, memory, todo, cleared, now).run()
    _stop_crowds(conn, memory, now)
    return _again(conn, memory, learnings) if memory.stopped else memory


def _again(conn: Connection, memory: Memory, learnings: Sequence[Learning]) -> Memory:
    """What is remembered after a key was stopped: threads have come apart, so all is read anew."""
    fresh = recall(conn, [key for learning in learnings for key in learning.keys])
    fresh.stopped, fresh.gained = memory.stopped, set(fresh.by_thread)
    fresh.customers_gained, fresh.met = memory.customers_gained, set(fresh.threads.values())
    return fresh


def recall(conn: Connection, keys: Iterable[Key]) -> Memory:
    """What is remembered of these keys, without learning anything."""
    memory = Memory()
    texts = sorted({key.text for key in keys})
    if texts:
        rows = statements.read_keys(conn, texts)
        memory.threads = {row.key: row.thread for row in rows if row.thread is not None and row.stopped_at_ms is None}
        customers = sorted({key.text for key in keys if not key.strong})
        _recall_evidence(conn, memory, sorted(set(memory.threads.values())), customers)
    return memory


def meet(conn: Connection, memory: Memory, keys: Iterable[Key]) -> None:
    """Recall the customers that the threads of these keys were seen with.

    Also where a thread knows a visitor: perhaps one whom the destination does not know.
    """
    threads = sorted({memory.threads[key.text] for key in memory.strong(keys)} - memory.seen_with.keys())
    if not threads:
        return
    memory.seen_with.update((thread, []) for thread in threads)
    for thread, customer in statements.customers_of(conn, threads):
        memory.seen_with[thread].append(customer)
    new = {key.text for thread in threads for key in memory.seen_with[thread]} - memory.by_customer.keys()
    _recall_evidence(conn, memory, (), sorted(new))


class _Round:
    """One pass over learnings: write and read the keys, join in memory, write what changed."""

    def __init__(
        self, conn: Connection, memory: Memory, learnings: Sequence[Learning], cleared: set[Learning], now: int
    ) -> None:
        self._conn, self._memory, self._learnings, self._now = conn, memory, learnings, now
        self._cleared = cleared  # of three visitors, but one customer's
        self._groups = Groups()
        self._new: set[str] = set()  # keys that this batch meets first; a strong one founds a thread of its name
        self._before: dict[str, set[str]] = {}  # the visitors each older thread knew
        self._customers_before: dict[str, set[str]] = {}
        self._evidence: dict[tuple[str, str], Evidence] = {}  # to be written

    def run(self) -> list[Learning]:
        """Returns the learnings that are left for the next round."""
        self._load()
        for position, learning in enumerate(self._learnings):
            if learning not in self._cleared and self._crowded(learning):
                self._save(self._learnings[:position])
                own = tuple(key.text for key in learning.keys if key.text in self._memory.threads)
                if not _stop(self._conn, self._memory, own, _evidence(learning), self._now, _THIRD):
                    self._cleared.add(learning)
                return list(self._learnings[position:])
            self._join(learning)
        self._save(self._learnings)
        return []

    def _load(self) -> None:
        keys = {key.text: key for learning in self._learnings for key in learning.keys}
        rows = statements.write_keys(self._conn, keys, self._now)
        memory = self._memory
        for row in rows:
            if row.uses == 1 and not memory.stopped:  # in a later round its evidence is there already
                self._new.add(row.key)
            if row.thread is not None and row.stopped_at_ms is None:
                memory.threads[row.key] = row.thread
                if row.uses % _LOOK_EVERY == 0:
                    memory.busy.add(row.key)
            else:
                memory.threads.pop(row.key, None)
        old = sorted({memory.threads[key] for key in keys if key in memory.threads} - self._new)
        customers = sorted(key.text for key in keys.values() if not key.strong)
        for thread in old:
            memory.by_thread.pop(thread, None)
        _recall_evidence(self._conn, memory, old, customers)
        self._before = {thread: _visitors(memory.by_thread.get(thread)) for thread in old}
        self._customers_before = {key: _visitors(memory.by_customer.get(key)) for key in customers}

    def _threads(self, learning: Learning) -> set[str]:
        threads = self._memory.threads
        return {self._groups.find(threads[key.text]) for key in learning.keys if key.text in threads}

    def _crowded(self, learning: Learning) -> bool:
        """Would this event make a thread of three visitors, or does it say something new about a key of one?"""
        threads = self._threads(learning)
        visitors = {visitor for thread in threads for _, visitor in self._memory.by_thread.get(thread, ())}
        known = len(visitors)
        if learning.named is not None:
            visitors.add(learning.named.visitor)
        if not threads or len(visitors) <= linking.VISITORS_A_THREAD:
            return False
        own = {key.text for key in learning.keys if key.text in self._memory.threads}
        grows = len(visitors) > known or len(threads) > 1
        return grows or statements.with_one_customer(self._conn, sorted(own)) != own

    def _join(self, learning: Learning) -> None:
        memory, threads = self._memory, self._threads(learning)
        named = _evidence(learning)
        if threads:
            root = self._groups.join(threads)
            known = memory.by_thread.setdefault(root, {})
            for thread in threads - {root}:
                known.update(memory.by_thread.pop(thread, {}))
            for item in named:
                if item.key in memory.threads:
                    _add(known, item)
        for item in named:
            if item.key in self._customers_before:
                _add(memory.by_customer.setdefault(item.key, {}), item)
            _add(self._evidence, item)

    # ------------------------------------------------------------------------------------------------- writing

    def _save(self, learned: Sequence[Learning]) -> None:
        self._note_gains()
        self._tell_customers(learned)
        self._rename_threads()
        statements.write_evidence(self._conn, self._evidence.values())
        self._evidence = {}

    def _note_gains(self) -> None:
        """Which older threads know somebody whom they did not know."""
        self._grown = {
            thread
            for thread, before in self._before.items()
            if _visitors(self._memory.by_thread.get(self._groups.find(thread))) - before
        }

    def _tell_customers(self, learned: Sequence[Learning]) -> None:
        """A customer points to the visitors of each thread it was seen with, whichever of the two came first."""
        pairs = {
            (key.text, thread)
            for learning in learned
            for key in learning.keys
            if not key.strong
            for thread in self._threads(learning)
        }
        seen_with = statements.customers_of(self._conn, sorted(self._grown))
        pairs.update((customer.text, self._groups.find(thread)) for thread, customer in seen_with)
        memory = self._memory
        for customer, thread in sorted(pairs):
            known = memory.by_customer.setdefault(customer, {})
            for item in memory.by_thread.get(thread, {}).values():
                place, before = (customer, item.visitor), known.get((customer, item.visitor))
                _add(known, replace(item, key=customer))
                if known[place] != before:
                    self._evidence[place] = known[place]
        for customer, known in memory.by_customer.items():
            if customer not in self._new and _visitors(known) - self._customers_before.get(customer, set()):
                memory.customers_gained.add(customer)
        self._note_met({thread for customer, thread in pairs if memory.by_customer.get(customer)})

    def _note_met(self, with_customer: set[str]) -> None:
        """Older threads that know nobody, and that a customer who knows somebody, or another thread, was joined to.

        Somebody borrowed is nobody yet: a destination may not know it.
        """
        roots = [self._groups.find(thread) for thread in self._before]
        self._met = {
            thread
            for thread, root in zip(self._before, roots, strict=True)
            if (root in with_customer or roots.count(root) > 1)
            and all(item.borrowed for item in self._memory.by_thread.get(root, {}).values())
        }

    def _rename_threads(self) -> None:
        """Give joined threads one name: the larger one's, so that few rows are written."""
        parts: dict[str, set[str]] = {}
        threads_met = {self._memory.threads[key] for key in self._new if key in self._memory.threads}
        for thread in sorted(threads_met | set(self._before)):
            parts.setdefault(self._groups.find(thread), set()).add(thread)
        joined = [threads for threads in parts.values() if len(threads - self._new) > 1]
        sizes = statements.sizes(self._conn, sorted(set().union(*joined)))
        names: dict[str, str] = {}
        for root, threads in parts.items():
            name = min(threads, key=lambda thread: (thread in self._new, -sizes.get(thread, 0), thread))
            names.update(dict.fromkeys(threads, name))
            self._rename_in_memory(root, name)
        statements.rename(self._conn, {thread: name for thread, name in names.items() if thread != name})
        memory = self._memory
        for key, thread in memory.threads.items():
            memory.threads[key] = names.get(thread, thread)
        memory.gained.update(names.get(thread, thread) for thread in self._grown)
        memory.met.update(names.get(thread, thread) for thread in self._met)

    def _rename_in_memory(self, root: str, name: str) -> None:
        known = self._memory.by_thread
        if root != name and root in known:
            known[name] = known.pop(root)


# ----------------------------------------------------------------------------------------------------- the guard

_THIRD: Final = (
    "{ref} would join a third visitor to one thread, and the events that name it have no customer in common, so it is"
    " no key of a purchase (a product's id?); it links nothing any more"
)
_CROWD: Final = (
    f"{{ref}} holds more than {linking.KEYS_A_THREAD} keys together, so it is no key of a purchase (a product's id?);"
    " it links nothing any more"
)
_LOOK_EVERY: Final = 100  # uses of a key, between two looks at the size of its thread


def _stop(conn: Connection, memory: Memory, own: tuple[str, ...], told: Iterable[Evidence], now: int, why: str) -> bool:
    """Find the key that links what does not belong together, and take it out of the threads of the keys `own`.

    told: evidence that is not written yet. False: there is none, because all its visitors are one customer's.
    """
    threads = sorted({memory.threads[key] for key in own})
    edges = [*statements.edges_in(conn, threads), own]
    keys = statements.keys_in(conn, threads)
    trusted = statements.with_one_customer(conn, sorted(keys)) if why is _THIRD else set()
    named: dict[str, set[str]] = {}
    for item in (*statements.evidence_of_keys(conn, sorted(keys)), *told):
        named.setdefault(item.key, set()).add(item.visitor)
    guilty = linking.culprit(edges, named, trusted)
    if guilty is None:
        return False
    memory.stopped[guilty] = why.format(ref=guilty.rpartition(":")[2])
    statements.stop(conn, guilty, memory.stopped[guilty], now, linking.components(edges, keys, (guilty,)))
    for thread in threads:
        memory.by_thread.pop(thread, None)
    return True


def _stop_crowds(conn: Connection, memory: Memory, now: int) -> None:
    """A thread without end costs every look-up: look at its size now and then, whether it knows visitors or not."""
    for key in sorted(memory.busy & set(memory.threads)):
        thread = memory.threads[key]
        if statements.sizes(conn, [thread]).get(thread, 0) > linking.KEYS_A_THREAD:
            _stop(conn, memory, (key,), (), now, _CROWD)


def _recall_evidence(conn: Connection, memory: Memory, threads: Sequence[str], customers: Sequence[str]) -> None:
    for thread, item in statements.evidence_of_threads(conn, threads):
        _add(memory.by_thread.setdefault(thread, {}), item)
    for item in statements.evidence_of_keys(conn, customers):
        _add(memory.by_customer.setdefault(item.key, {}), item)


def _visitors(known: Mapping[tuple[str, str], Evidence] | None) -> set[str]:
    return {visitor for _, visitor in known or ()}


def _add(known: dict[tuple[str, str], Evidence], item: Evidence) -> None:
    place = (item.key, item.visitor)
    known[place] = known[place].joined(item) if place in known else item


def _evidence(learning: Learning) -> list[Evidence]:
    if learning.named is None:
        return []
    point = Point(learning.at_ms, learning.event, learning.event_id)
    named = learning.named
    return [Evidence(key.text, named.visitor, named.sure, point, point, named.borrowed) for key in learning.keys]
