"""Whole lives of customers, as plans that a number reproduces: who carries the visitor, in which order, how often.

`lives(number)` plays every life cycle of the simulator once, with ids, a carrier and an order of its own; the same life
in test mode, with somebody else's visitor, comes in between. `expected` is the oracle: which goals must come of a life
and whose they are, by joining the keys of all its events at once, without a database, an order or a clock.
`arrive` takes many lives through the real inbox and racing routers; `in_order` takes them one after another.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from inbox_kit import Inbox
from sqlalchemy import select

from bridge import rules, sources
from bridge.model import Destination, Event, EventState, Request
from bridge.prepare import Preparer
from bridge.route import Router
from bridge.sandbox import scenarios, simulator
from bridge.settings import load
from bridge.store import schema

ROOT = Path(__file__).parents[2]
SECRET = "whsec_" + "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5"
ENVIRON = {simulator.secret_name(source): SECRET for source in ("stripe", "lemonsqueezy", "generic", "polar")} | {
    "DATAFAST_API_KEY": "df_key"
}
CYCLES = tuple(
    f"{scenario.name}@{shape}" if shape else scenario.name
    for scenario in scenarios.SCENARIOS.values()
    if scenario.name != "across-tools"  # test_people_stories plays people: a user is no link of a purchase
    for shape in scenario.shapes or ("",)
)
VISITOR_KEY = "datafast_visitor_id"
ORDERS = 1_000  # as many orders as this are all of them, or random ones
MINUTE, HOUR = 60_000, 3_600_000
ROUNDS = 10
WITHIN_THE_GRACE = (0, 1_000, 9_000)  # ms between two rounds
WITHIN_THE_WAIT = (0, 1_000, MINUTE, 3 * MINUTE, HOUR, 8 * HOUR)


# ------------------------------------------------------------------------------------------------------- the rules


@functools.cache
def rule_set(*, all_rules=False):
    """The shipped mappings and Polar's; with `all_rules` those that are switched off as well."""
    files = rules.read_files(ROOT / "mappings")
    files["polar.yaml"] = (ROOT / "mappings" / "examples" / "polar.yaml").read_text()
    if all_rules:
        files = {name: text.replace("enabled: false", "enabled: true") for name, text in files.items()}
    return rules.load(files, ENVIRON, sources.presets())


@functools.cache
def bridge_settings():
    return load(ENVIRON)


DESTINATIONS = {"default": Destination("default", "df_key")}


# -------------------------------------------------------------------------------------------------------- the lives


@dataclass(frozen=True, eq=False)
class Life:
    """One customer's events. told: how it is told, for a report; close: its customer has two visitors."""

    cycle: str
    number: int
    told: str
    steps: tuple[scenarios.Step, ...]  # in the order in which they happened
    rehearsal: tuple[scenarios.Step, ...]  # the same in test mode, by somebody else
    order: tuple[int, ...]  # places in `steps` and behind them in `rehearsal`, as they arrive
    as_told: bool
    close: bool

    def __str__(self):
        return f"{self.cycle} number {self.number} ({self.told}; arrives as {' '.join(map(str, self.order))})"

    @functools.cached_property
    def events(self):
        """Live ones, then those of the rehearsal."""
        return tuple(map(_received, (*self.steps, *self.rehearsal)))

    @property
    def live(self):
        return self.events[: len(self.steps)]

    @property
    def arriving(self):
        return [self.events[place] for place in self.order]


@functools.lru_cache(maxsize=4)
def lives(number, end_s):
    """Every life cycle once; the last event of each happened at `end_s`."""
    return [_life(cycle, number, end_s) for cycle in CYCLES]


def _life(cycle, number, end_s):
    dice = random.Random(f"{cycle}:{number}")
    steps = scenarios.build(cycle, seed=number, end_s=end_s, spread=dice.random() < 0.5)
    visitors = tuple(dict.fromkeys(step.visitor for step in steps if step.visitor))
    told, as_told = "the visitor as told", True
    plays = steps[0].wire in ("stripe", "lemonsqueezy")  # the others carry the visitor in each event, and never test
    if plays and dice.random() < 0.75:
        if len(visitors) > 1 and dice.random() < 0.5:
            visitors, steps = visitors[:1], tuple(_one_visitor(step, visitors) for step in steps)
        steps, places = _carried_by_one(steps, visitors, dice)
        told, as_told = f"the visitor only in {' and '.join(places)}", False
    somebody = _uuid(dice)
    rehearsal = tuple(_rehearsed(step, somebody) for step in steps) if plays and dice.random() < 0.3 else ()
    order = _order(len(steps), number, dice)
    order = list(_merged(order, _shuffled(range(len(steps), len(steps) + len(rehearsal)), dice), dice))
    return Life(cycle, number, told, steps, rehearsal, _repeated(order, dice), as_told, close=len(visitors) > 1)


def _order(count, number, dice):
    """All the orders in turn where there are few, else random ones; some are only held back, as after an outage."""
    if math.factorial(count) <= ORDERS:
        return _permutation(count, number * 617 % math.factorial(count))  # 617 is prime: none comes twice
    if number % 8 == 7:
        order = list(range(count))
        for place in range(count):
            if dice.random() < 0.2:
                order.remove(place)
                order.insert(dice.randint(order.index(place - 1) + 1 if place else 0, len(order)), place)
        return order
    return _shuffled(range(count), dice)


def _permutation(count, rank):
    left, order = list(range(count)), []
    for size in range(count, 0, -1):
        place, rank = divmod(rank, math.factorial(size - 1))
        order.append(left.pop(place))
    return order


def _shuffled(places, dice):
    order = list(places)
    dice.shuffle(order)
    return order


def _merged(first, second, dice):
    first, second = list(first), list(second)
    while first or second:
        yield (first if dice.random() * (len(first) + len(second)) < len(first) else second).pop(0)


def _repeated(order, dice):
    """Each event one to five times; the copies come at any later moment."""
    arrivals = [(at, place) for at, place in enumerate(order)]
    for at, place in enumerate(order):
        arrivals += [(dice.uniform(at, len(order)), place) for _ in range(dice.randint(0, 4))]
    return tuple(place for _, place in sorted(arrivals))


# ---------------------------------------------------------------------------------------------------- the carriers


def _one_visitor(step, visitors):
    """The customer came back on the same device: what was two visitors' is the first one's."""
    text = json.dumps(step.body)
    for visitor in visitors[1:]:
        text = text.replace(visitor, visitors[0])
    return replace(step, body=json.loads(text), visitor=step.visitor and visitors[0])


def _carried_by_one(steps, visitors, dice):
    """Take the visitors off all events and put each onto one event of its thread, in one of the places it may have."""
    bare = [replace(step, body=_without(step.body, visitors), visitor=None) for step in steps]
    told = []
    for visitor in visitors:
        place = dice.choice([place for place in _thread_of(steps, visitor, visitors) if _places(bare[place])])
        body, where = _with(bare[place], visitor, dice)
        bare[place] = replace(bare[place], body=body, visitor=visitor)
        told.append(f"{place} {bare[place].type} {where}")
    return tuple(bare), told


def _thread_of(steps, visitor, visitors):
    """The events that are one visitor's: of a customer with one visitor all, else those of the visitor's thread."""
    if len(visitors) == 1:
        return range(len(steps))
    facts = Facts([_received(step) for step in steps])
    return [place for place, thread in enumerate(facts.threads) if visitor in facts.by_thread.get(thread, ())]


def _without(value, visitors):
    if isinstance(value, list):
        return [_without(item, visitors) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: item for name, item in value.items() if not (isinstance(item, str) and _names(item, visitors))}
    return {name: _without(item, visitors) for name, item in kept.items()}


def _names(text, visitors):
    return any(visitor in text for visitor in visitors)


def _places(step):
    """Where an event of this form may carry the visitor: paths of objects that hold it."""
    if step.wire == "lemonsqueezy":
        return [("meta", "custom_data")]
    thing = step.body["data"]["object"]
    paths = [("metadata",)] if "metadata" in thing else []
    if thing["object"] == "checkout.session":
        paths.append(())
    if thing["object"] == "invoice":
        paths += [
            path
            for path in (("parent", "subscription_details"), ("subscription_details",), ("lines", "data", -1))
            if _reached(thing, path)
        ]
        paths = [(*path, "metadata") if len(path) > 1 or path == ("subscription_details",) else path for path in paths]
    return [("data", "object", *path) for path in paths]


def _reached(thing, path):
    for name in path:
        try:
            thing = thing[name]
        except (KeyError, IndexError, TypeError):
            return None
    return thing


def _with(step, visitor, dice):
    body, path = copy.deepcopy(step.body), dice.choice(_places(step))
    holder = _reached(body, path[:-1])
    if path == ("data", "object"):
        body["data"]["object"]["client_reference_id"] = f"dfv_{visitor}"
        return body, "client_reference_id"
    holder[path[-1]] = (holder.get(path[-1]) or {}) | {VISITOR_KEY: visitor}
    return body, ".".join(map(str, path))


def _uuid(dice):
    text = "".join(dice.choices("0123456789abcdef", k=32))
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _rehearsed(step, somebody):
    """The same event in test mode: with the same ids in it, another id of its own, and somebody else's visitor."""
    text = json.dumps(step.body).replace(step.id, _other_id(step.id))
    if step.visitor:
        text = text.replace(step.visitor, somebody)
    body = json.loads(text)
    if step.wire == "stripe":
        body["livemode"] = False
    else:
        body["meta"]["test_mode"] = True
    return replace(step, id=_other_id(step.id), body=body, visitor=step.visitor and somebody, goals=(), test=True)


def _other_id(text):
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def _received(step):
    """A step as the web process hands it to the inbox."""
    signed = simulator.request(step, SECRET, step.at_s)
    headers = {name.lower(): value for name, value in signed.headers.items()}
    path = f"/webhooks/{step.source}"
    request = Request("POST", f"http://127.0.0.1{path}", path, "", headers, signed.body)
    event = sources.read(rule_set().sources[step.source], request)
    assert event.quarantine is None
    return event


# ------------------------------------------------------------------------------------------------------- the oracle


class Facts:
    """What a life's events say together, whatever their order."""

    def __init__(self, events, *, all_rules=False):
        rig = Preparer(rule_set(all_rules=all_rules), bridge_settings(), DESTINATIONS, b"key")
        self.elements = []
        for event in events:
            prepared = rig.prepare(_stored(event))
            assert prepared.quarantine is None
            self.elements += prepared.elements
        self._root = {}
        for element in self.elements:
            self._join([key.text for key in element.observation.keys if key.strong])
        self.threads = [self._thread(element.observation.keys) for element in self.elements]
        self.by_thread, self.by_customer, self.seen_with = {}, {}, {}
        self._learn()

    def _find(self, key):
        while self._root.setdefault(key, key) != key:
            key = self._root[key]
        return key

    def _join(self, keys):
        for one, other in itertools.pairwise(keys):
            self._root[self._find(one)] = self._find(other)

    def _thread(self, keys):
        return next((self._find(key.text) for key in keys if key.strong), None)

    def _learn(self):
        for element, thread in zip(self.elements, self.threads, strict=True):
            if element.observation.named:
                visitor = element.observation.named.visitor
                self.by_thread.setdefault(thread, set()).add(visitor)
                for key in element.observation.keys:
                    if not key.strong:
                        self.by_customer.setdefault(key.text, set()).add(visitor)
        self.by_thread.pop(None, None)
        for element, thread in zip(self.elements, self.threads, strict=True):
            for key in element.observation.keys:
                if not key.strong:
                    self.by_customer.setdefault(key.text, set()).update(self.by_thread.get(thread, ()))
                    self.seen_with.setdefault(thread, set()).add(key.text)

    def goals(self):
        """{(destination, goal, once key, visitor or None)}: the own visitor, else the thread's, else the customer's.

        The customer's: of the one that the event names, else of those that the thread was seen with, if of one mind.
        """
        places = {}
        for element, thread in zip(self.elements, self.threads, strict=True):
            for draft in element.drafts:
                own, threads, customers, met = places.setdefault(
                    (draft.destination, draft.planned.name, draft.planned.once_key), (set(), set(), set(), set())
                )
                met.update(self._met(thread))
                own.update(named.visitor for named in draft.own[:1])
                threads.update(self.by_thread.get(thread, ()))
                for key in draft.keys:
                    if not key.strong:
                        customers.update(self.by_customer.get(key.text, ()))
        return {
            (*place, _only(own or threads or customers or met))
            for place, (own, threads, customers, met) in places.items()
        }

    def _met(self, thread):
        answers = [self.by_customer.get(customer, set()) for customer in self.seen_with.get(thread, ())]
        return set().union(*answers) if all(answers) and thread is not None else set()


def _only(visitors):
    assert len(visitors) < 2, "this life is told in a way in which law 4 says nothing"
    return next(iter(visitors), None)


def _stored(event):
    return Event(
        id=1, source=event.source, provider=event.provider, envelope=event.envelope, received_at_ms=1 << 60,
        state=EventState.RECEIVED, headers=event.headers, query=event.query, body=event.body,
    )  # fmt: skip


def expected(life, *, all_rules=False):
    """The goals that must come of a life."""
    return Facts(life.live, all_rules=all_rules).goals()


# ------------------------------------------------------------------------------------------------------ the arrival


def schedule(playing, number, *, slowly):
    """Rounds of arrivals. slowly: a round may come hours after another, so two visitors of a customer share one."""
    dice = random.Random(f"schedule:{number}")
    timed = []
    for life in playing:
        first, last = 0.0, float(ROUNDS)
        if slowly and life.close:
            first = float(dice.randrange(ROUNDS))
            last = first + 1
        at = sorted(dice.uniform(first, last) for _ in life.order)
        timed += zip(at, life.arriving, strict=True)
    timed.sort(key=lambda pair: pair[0])
    rounds = [[] for _ in range(ROUNDS)]
    for at, event in timed:
        rounds[min(int(at), ROUNDS - 1)].append(event)
    pauses = [dice.choice(WITHIN_THE_WAIT if slowly else WITHIN_THE_GRACE) for _ in rounds]
    return list(zip(rounds, pauses, strict=True))


class Bridge:
    """A store with an inbox and routers on it, as processes of the bridge have them."""

    def __init__(self, store, clock, *, all_rules=False):
        self.store, self.clock = store, clock
        self.rules = rule_set(all_rules=all_rules)
        self._tokens = itertools.count()
        self.faults = []

    def router(self):
        return Router(self.store, bridge_settings(), new_token=lambda: f"t{next(self._tokens)}")

    def arrive(self, rounds, number, workers=2):
        """Put and route at once; between two rounds the clock moves. Now and then nobody routes for a round."""
        routers = [self.router() for _ in range(workers)]
        inbox, dice = Inbox(self.store), random.Random(f"outages:{number}")
        with ThreadPoolExecutor(8) as senders:
            for turn, (events, pause_ms) in enumerate(rounds):
                outage = turn + 1 < len(rounds) and dice.random() < 0.25
                with self._racing([] if outage else routers, f"{number}:{turn}"):
                    list(senders.map(functools.partial(inbox.put, patience_s=60), events))
                self.clock.advance(pause_ms)
        inbox.close()

    @contextmanager
    def _racing(self, routers, seed, sizes=(1, 2, 5, 17, 50)):
        done = threading.Event()
        racing = [
            threading.Thread(target=self._work, args=(router, done, random.Random(f"{seed}:{place}"), sizes))
            for place, router in enumerate(routers)
        ]
        for thread in racing:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in racing:
                thread.join()

    def _work(self, router, done, dice, sizes):
        try:
            while True:
                last = done.is_set()
                routed = router.route_batch(self.rules, DESTINATIONS, dice.choice(sizes))
                if dice.random() < 0.3:
                    router.sweep()
                if last and not routed:
                    return
                if not routed:
                    time.sleep(0.002)
        except Exception as fault:  # noqa: BLE001 - a thread's fault is the test's
            self.faults.append(fault)

    def race(self, events, seed, workers):
        """Store everything; then routers take one event or two at a time, so that they meet each other's lives."""
        inbox = Inbox(self.store)
        with ThreadPoolExecutor(8) as senders:
            list(senders.map(functools.partial(inbox.put, patience_s=60), events))
        inbox.close()
        with self._racing([self.router() for _ in range(workers)], seed, sizes=(1, 2)):
            pass

    def in_order(self, events):
        """One router, one event after another."""
        inbox, router = Inbox(self.store), self.router()
        for event in events:
            inbox.put(event)
        while router.route_batch(self.rules, DESTINATIONS, 50):
            pass
        inbox.close()

    def later(self, ms):
        """Let time pass, and look at what is due by then."""
        router = self.router()
        self.clock.advance(ms)
        while router.sweep():
            pass

    def rows(self, table):
        with self.store.read() as conn:
            return conn.execute(select(table)).all()

    def goals(self, *, test=False):
        return [goal for goal in self.rows(schema.goals) if goal.test is test]

    def sent(self):
        return {(goal.destination, goal.name, goal.once_key, goal.visitor) for goal in self.goals()}
