"""The memory of keys: which belong to one thread, and which visitors were named with them.

`learn` takes what a batch of events teaches, joins threads, and stops a key that would join three visitors without a
common customer; the `KnownLinks` it returns covers all keys of the batch. Learners take turns: SQLite has one writer,
PostgreSQL a lock held until the transaction ends (a merge moves keys that another learner may hold, so row locks alone
could deadlock). Every key is written before it is read, so learners never miss each other. All lookups use an index.
`bridge.identity.choice` chooses a visitor.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bridge.identity.choice import Evidence, KnownLinks, Mention
from bridge.identity.sentences import key_in_words
from bridge.identity.threads import KEYS_PER_THREAD, VISITORS_PER_THREAD, DisjointSets, components, overlinking_key
from bridge.store.links import statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from bridge.identity.choice import Observation
    from bridge.model import Key

_STEPS: Final = 2  # steps from a customer to people: the customer's user, that user's address

# --------------------------------------------------------------------------------------------------------- learn


def learn(conn: Connection, observations: Sequence[Observation], now: int) -> KnownLinks:
    """Learn what these events teach. Neither their order nor that of the calls makes a difference."""
    statements.lock(conn)
    links = KnownLinks()
    remaining = [observation for observation in observations if observation.keys]
    if not remaining:
        return links
    statements.write_edges(conn, remaining)
    cleared: set[Observation] = set()
    # Three visitors end a round: the rest is learned with the threads as they are without the stopped key.
    while remaining:
        remaining = _Round(conn, links, remaining, cleared, now).run()
    _stop_oversized(conn, links, now)
    _stop_shared(conn, links, observations, now)
    # Customers can use what their people have learned: goals that wait for those customers are checked, too.
    links.customers_gained |= related(conn, (text for text in links.customers_gained if text in links.people))
    return _recall_after_stop(conn, links, observations) if links.stopped else links


def _recall_after_stop(conn: Connection, links: KnownLinks, observations: Sequence[Observation]) -> KnownLinks:
    """The memory after a key was stopped: threads have come apart, so everything is read again."""
    fresh = recall(conn, [key for observation in observations for key in observation.keys])
    fresh.stopped, fresh.gained = links.stopped, set(fresh.by_thread)
    fresh.customers_gained, fresh.met = links.customers_gained, set(fresh.threads.values())
    return fresh


def recall(conn: Connection, keys: Iterable[Key]) -> KnownLinks:
    """Load what is remembered about these keys, without learning anything."""
    links, keys = KnownLinks(), list(keys)
    texts = sorted({key.text for key in keys})
    if texts:
        rows = statements.read_keys(conn, texts)
        links.threads = {row.key: row.thread for row in rows if row.thread is not None and row.stopped_at_ms is None}
        links.people = {key.text for key in keys if key.is_person}
        links.mute = {row.key for row in rows if row.is_mute}
        customers = sorted({key.text for key in keys if not key.strong})
        _recall_evidence(conn, links, sorted(set(links.threads.values())), customers)
    return links


def recall_customers(conn: Connection, links: KnownLinks, keys: Iterable[Key]) -> None:
    """Load the customers and people seen with the threads of these keys, and the people of the customers.

    This includes threads that know a visitor, because the destination may not know that one.
    """
    keys = list(keys)
    threads = sorted({links.threads[key.text] for key in links.strong(keys)} - links.seen_with.keys())
    links.seen_with.update((thread, []) for thread in threads)
    for thread, customer in statements.customers_of(conn, threads):
        links.seen_with[thread].append(customer)
    weak = [key for key in keys if not key.strong] + [key for thread in threads for key in links.seen_with[thread]]
    for _ in range(_STEPS):
        weak += _recall_people(conn, links, (key.text for key in weak))
    unread = sorted({key.text for key in keys if key.is_person} - links.people)
    links.people.update(unread)
    links.mute.update(row.key for row in statements.read_keys(conn, unread) if row.is_mute)
    _recall_evidence(conn, links, (), sorted({key.text for key in weak} - links.by_customer.keys()))


def _recall_people(conn: Connection, links: KnownLinks, weak: Iterable[str]) -> list[Key]:
    """Load the people named with these customers and people; return those that were new."""
    new = sorted(set(weak) - links.people_of.keys())
    links.people_of.update((text, []) for text in new)
    found = [(text, person) for text, person in statements.people_of(conn, new) if person.text != text]
    for text, person in found:
        links.people_of[text].append(person)
    links.people.update(person.text for _, person in found)
    return [person for _, person in found]


class _Round:
    """One pass over observations: write and read the keys, add links, write what changed."""

    def __init__(
        self,
        conn: Connection,
        links: KnownLinks,
        observations: Sequence[Observation],
        cleared: set[Observation],
        now: int,
    ) -> None:
        self._conn, self._links, self._observations, self._now = conn, links, observations, now
        self._cleared = cleared  # those with three visitors but a single customer
        self._joined = DisjointSets()
        self._new: set[str] = set()  # keys new in this batch; a strong one starts a thread with its name
        self._before: dict[str, set[str]] = {}  # the visitors that each older thread knew
        self._customers_before: dict[str, set[str]] = {}
        self._now_certain: set[str] = set()  # people who were not certainly people before
        self._evidence: dict[tuple[str, str], Evidence] = {}  # to be written

    def run(self) -> list[Observation]:
        """Do the round; return the observations that are left for the next one."""
        self._load()
        for position, observation in enumerate(self._observations):
            if observation not in self._cleared and self._joins_too_many(observation):
                self._save(self._observations[:position])
                own = tuple(key.text for key in observation.keys if key.text in self._links.threads)
                if not _stop(self._conn, self._links, own, _evidence(observation), self._now, _THIRD_VISITOR):
                    self._cleared.add(observation)
                return list(self._observations[position:])
            self._join(observation)
        self._save(self._observations)
        return []

    def _load(self) -> None:
        named = [key for observation in self._observations for key in observation.keys]
        keys = {key.text: key for key in sorted(named, key=lambda key: key.sure)}  # one event that is certain suffices
        uses = Counter(key.text for key in named)
        links = self._links
        for row in statements.write_keys(self._conn, keys, uses, self._now):
            before = row.uses - uses[row.key]
            if before == 0 and not links.stopped:  # in a later round, its evidence exists already
                self._new.add(row.key)
            if keys[row.key].is_person:
                self._note_person(row, before)
            elif row.thread is not None and row.stopped_at_ms is None:
                links.threads[row.key] = row.thread
                if row.uses // _CHECK_EVERY > before // _CHECK_EVERY:
                    links.busy.add(row.key)
            else:
                links.threads.pop(row.key, None)
        old = sorted({links.threads[key] for key in keys if key in links.threads} - self._new)
        customers = sorted(key.text for key in keys.values() if not key.strong)
        for thread in old:
            links.by_thread.pop(thread, None)
        people = _recall_people(self._conn, links, (key.text for key in keys.values() if key.is_person))
        _recall_evidence(self._conn, links, old, sorted({*customers, *(person.text for person in people)}))
        self._before = {thread: _visitors(links.by_thread.get(thread)) for thread in old}
        self._customers_before = {key: _visitors(links.by_customer.get(key)) for key in customers}

    def _note_person(self, row: statements.KeyRow, before: int) -> None:
        """Note what a person's row says. before: its uses before these events."""
        links = self._links
        links.people.add(row.key)
        (links.mute.add if row.is_mute else links.mute.discard)(row.key)
        if row.certain_at_ms == self._now and before:
            self._now_certain.add(row.key)
        if row.uses > CUSTOMERS_A_PERSON and row.stopped_at_ms is None:
            links.often.add(row.key)

    def _threads(self, observation: Observation) -> set[str]:
        threads = self._links.threads
        return {self._joined.find(threads[key.text]) for key in observation.keys if key.text in threads}

    def _joins_too_many(self, observation: Observation) -> bool:
        """Whether this event makes a thread of three visitors, or says something new about a key in one."""
        threads = self._threads(observation)
        visitors = {visitor for thread in threads for _, visitor in self._links.by_thread.get(thread, ())}
        known = len(visitors)
        if observation.named is not None:
            visitors.add(observation.named.visitor)
        if not threads or len(visitors) <= VISITORS_PER_THREAD:
            return False
        own = {key.text for key in observation.keys if key.text in self._links.threads}
        grows = len(visitors) > known or len(threads) > 1
        return grows or statements.with_one_customer(self._conn, sorted(own)) != own

    def _join(self, observation: Observation) -> None:
        links, threads = self._links, self._threads(observation)
        named = _evidence(observation)
        if threads:
            root = self._joined.join(threads)
            known = links.by_thread.setdefault(root, {})
            for thread in threads - {root}:
                known.update(links.by_thread.pop(thread, {}))
            for item in named:
                if item.key in links.threads:
                    _add(known, item)
        for item in named:
            if item.key in self._customers_before:
                _add(links.by_customer.setdefault(item.key, {}), item)
            _add(self._evidence, item)

    # ------------------------------------------------------------------------------------------------- writing

    def _save(self, learned: Sequence[Observation]) -> None:
        self._note_gains()
        self._pass_to_customers(learned)
        self._rename_threads()
        statements.write_evidence(self._conn, self._evidence.values())
        self._evidence = {}

    def _note_gains(self) -> None:
        """Note the older threads that have learned a visitor."""
        self._grown = {
            thread
            for thread, before in self._before.items()
            if _visitors(self._links.by_thread.get(self._joined.find(thread))) - before
        }

    def _pass_to_customers(self, learned: Sequence[Observation]) -> None:
        """Let each customer lead to the visitors of every thread it was seen with, whichever of the two came first."""
        pairs = {
            (key.text, thread)
            for observation in learned
            for key in observation.keys
            if not key.strong
            for thread in self._threads(observation)
        }
        seen_with = statements.customers_of(self._conn, sorted(self._grown))
        pairs.update((customer.text, self._joined.find(thread)) for thread, customer in seen_with)
        links = self._links
        links.people.update(customer.text for _, customer in seen_with if customer.is_person)
        for customer, thread in sorted(pairs):
            known = links.by_customer.setdefault(customer, {})
            for item in links.by_thread.get(thread, {}).values():
                place, before = (customer, item.visitor), known.get((customer, item.visitor))
                _add(known, self._evidence_for(item, customer))
                if known[place] != before:
                    self._evidence[place] = known[place]
        for customer, known in links.by_customer.items():
            if customer not in self._new and _visitors(known) - self._customers_before.get(customer, set()):
                links.customers_gained.add(customer)
        links.customers_gained |= {person for person in self._now_certain if links.by_customer.get(person)}
        for observation in learned:
            self._note_customers(observation)
        self._note_threads(pairs)

    def _evidence_for(self, item: Evidence, customer: str) -> Evidence:
        """A thread's visitors, as evidence for a customer or a person seen with it."""
        if customer in self._links.people:
            return item.for_person(customer, item.key.partition(":")[0])
        return replace(item, key=customer)

    def _note_customers(self, observation: Observation) -> None:
        """Note older customers and people without a visitor who were named with a person who has one."""
        links = self._links
        if any(key.is_person and self._knows(key.text) for key in observation.keys):
            links.customers_gained.update(
                key.text
                for key in observation.keys
                if not key.strong and key.text not in self._new and not links.by_customer.get(key.text)
            )

    def _knows(self, weak: str, steps: int = 1) -> bool:
        """Whether a customer or person knows a visitor, directly or through people within this many steps."""
        links = self._links
        return bool(links.by_customer.get(weak)) or (
            steps > 0 and any(self._knows(person.text, steps - 1) for person in links.people_of.get(weak, ()))
        )

    def _note_threads(self, pairs: set[tuple[str, str]]) -> None:
        """Note older threads without a visitor that met a customer who leads to one, or joined another thread.

        pairs: (customer, thread). A borrowed visitor does not count yet, because a destination may not know it.
        """
        roots = [self._joined.find(thread) for thread in self._before]
        known = self._links.by_thread
        waiting = {root for root in roots if all(item.borrowed for item in known.get(root, {}).values())}
        met = {(customer, thread) for customer, thread in pairs if thread in waiting}
        self._recall_reachable_people({customer for customer, _ in met})
        with_customer = {thread for customer, thread in met if self._knows(customer, _STEPS)}
        self._met = {
            thread
            for thread, root in zip(self._before, roots, strict=True)
            if root in waiting and (root in with_customer or roots.count(root) > 1)
        }

    def _recall_reachable_people(self, customers: set[str]) -> None:
        """Load the people to whom these customers lead, as many steps as a goal follows to find its visitor."""
        links, people = self._links, customers
        for _ in range(_STEPS):
            people = {person.text for person in _recall_people(self._conn, links, people)}
            _recall_evidence(self._conn, links, (), sorted(people - links.by_customer.keys()))

    def _rename_threads(self) -> None:
        """Give joined threads the name of the largest, so that few rows are written."""
        parts: dict[str, set[str]] = {}
        threads_met = {self._links.threads[key] for key in self._new if key in self._links.threads}
        for thread in sorted(threads_met | set(self._before)):
            parts.setdefault(self._joined.find(thread), set()).add(thread)
        joined = [threads for threads in parts.values() if len(threads - self._new) > 1]
        sizes = statements.sizes(self._conn, sorted(set().union(*joined)))
        names: dict[str, str] = {}
        links, known = self._links, self._links.by_thread
        for root, threads in parts.items():
            name = min(threads, key=lambda thread: (thread in self._new, -sizes.get(thread, 0), thread))
            names.update(dict.fromkeys(threads, name))
            if root != name and root in known:
                known[name] = known.pop(root)
        statements.rename(self._conn, {thread: name for thread, name in names.items() if thread != name})
        for key, thread in links.threads.items():
            links.threads[key] = names.get(thread, thread)
        links.gained.update(names.get(thread, thread) for thread in self._grown)
        links.met.update(names.get(thread, thread) for thread in self._met)


# ----------------------------------------------------------------------------------------------------- the guard

_THIRD_VISITOR: Final = (
    "{ref} would join a third visitor to one thread, and the events that name it have no customer in common, so it is"
    " not the key of one purchase (is it a product's id?); it links nothing any more"
)
_OVERSIZED: Final = (
    f"{{ref}} holds more than {KEYS_PER_THREAD} keys together, so it is not the key of one purchase (is it a"
    " product's id?); it links nothing any more"
)
_SHARED_BY: Final = "{who} was seen with more than three customers of {provider}, so nobody can say whose it is"
_SHARED_BY_GUESTS: Final = (
    "{who} was seen with more than three e-mail addresses of guests, so nobody can say whose it is"
)
CUSTOMERS_A_PERSON: Final = 3  # of one provider
_CHECK_EVERY: Final = 100  # uses of a key between two checks of its thread's size


def _stop(
    conn: Connection, links: KnownLinks, own: tuple[str, ...], new: Iterable[Evidence], now: int, why: str
) -> bool:
    """Find the key that links unrelated keys, and remove it from the threads of the keys `own`.

    new: evidence not written yet. False: there is no such key, because all the visitors belong to one customer.
    """
    threads = sorted({links.threads[key] for key in own})
    edges = [*statements.edges_in(conn, threads), own]
    keys = statements.keys_in(conn, threads)
    trusted = statements.with_one_customer(conn, sorted(keys)) if why is _THIRD_VISITOR else set()
    named: dict[str, set[str]] = {}
    for item in (*statements.evidence_of_keys(conn, sorted(keys)), *new):
        named.setdefault(item.key, set()).add(item.visitor)
    overlinking = overlinking_key(edges, named, trusted)
    if overlinking is None:
        return False
    links.stopped[overlinking] = why.format(ref=overlinking.rpartition(":")[2])
    statements.stop(conn, overlinking, links.stopped[overlinking], now, components(edges, keys, (overlinking,)))
    for thread in threads:
        links.by_thread.pop(thread, None)
    return True


def _stop_oversized(conn: Connection, links: KnownLinks, now: int) -> None:
    """A huge thread slows down every lookup, so check its size from time to time, even without visitors."""
    for key in sorted(links.busy & set(links.threads)):
        thread = links.threads[key]
        if statements.sizes(conn, [thread]).get(thread, 0) > KEYS_PER_THREAD:
            _stop(conn, links, (key,), (), now, _OVERSIZED)


def _stop_shared(conn: Connection, links: KnownLinks, observations: Iterable[Observation], now: int) -> None:
    """Stop people's keys seen with more than three customers of one provider, such as a shared account or an order.

    Guests have no customer, so a user's id stops after more than three addresses of guests.
    """
    frequent: dict[str, Key] = {}
    guests: set[str] = set()
    for observation in observations:
        named = {key.text: key for key in observation.keys if key.text in links.often}
        kinds = {key.kind for key in observation.keys}
        if "customer" in kinds:
            frequent |= named
        elif "email" in kinds:
            frequent |= {text: key for text, key in named.items() if key.kind == "user"}
            guests |= named.keys()
    customers = statements.customers_with(conn, sorted(frequent))
    seen = [(person, customer.text.partition(":")[0]) for person, customer in customers]
    seen += [(person, "") for person, _ in statements.guests_with(conn, sorted(guests & frequent.keys()))]
    for (person, provider), number in sorted(Counter(seen).items()):
        if number > CUSTOMERS_A_PERSON and person not in links.stopped:
            who = key_in_words(frequent[person].kind, frequent[person].id)
            links.stopped[person] = (
                _SHARED_BY.format(who=who, provider=provider) if provider else _SHARED_BY_GUESTS.format(who=who)
            )
            statements.stop(conn, person, links.stopped[person], now, {})


def related(conn: Connection, people: Iterable[str]) -> set[str]:
    """The people named with these, and the customers named with any of them."""
    asked = sorted(people)
    both = {*asked, *(person.text for _, person in statements.people_of(conn, asked))}
    return both | {customer.text for _, customer in statements.customers_with(conn, sorted(both))}


def _recall_evidence(conn: Connection, links: KnownLinks, threads: Sequence[str], customers: Sequence[str]) -> None:
    for thread, item in statements.evidence_of_threads(conn, threads):
        _add(links.by_thread.setdefault(thread, {}), item)
    links.by_customer.update((customer, {}) for customer in customers if customer not in links.by_customer)
    for item in statements.evidence_of_keys(conn, customers):
        _add(links.by_customer[item.key], item)


def _visitors(known: Mapping[tuple[str, str], Evidence] | None) -> set[str]:
    return {visitor for _, visitor in known or ()}


def _add(known: dict[tuple[str, str], Evidence], item: Evidence) -> None:
    place = (item.key, item.visitor)
    known[place] = known[place].joined(item) if place in known else item


def _evidence(observation: Observation) -> list[Evidence]:
    if observation.named is None:
        return []
    mention = Mention(observation.at_ms, observation.event, observation.event_id)
    named = observation.named
    found = []
    for key in observation.keys:
        item = Evidence(key.text, named.visitor, named.sure, mention, mention, named.borrowed)
        if not key.is_person:
            found.append(item)
        elif key.id != item.visitor:  # else it is a user's own id, in a field that may hold a visitor's
            found.append(item.for_person(key.text, observation.sender))
    return found
