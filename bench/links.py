"""What a visitor costs with ten thousand links remembered, and with a million: to look up, and to learn from an event.

Each purchase is a thread of five keys and a customer, named once; a lookup goes from a charge to the visitor. Beside
them there are as many keys of people: each person was named once with user id and address at the sign-up, and once with
user id and customer; a lookup goes from the user, from the address and from the customer to the visitor.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from collections.abc import Callable, Iterator

from sqlalchemy import text

from bridge import store as bridge_store
from bridge.identity.evidence import Observation
from bridge.model import Key
from bridge.store.links import learning as links

SMALL = 10_000
KINDS = ("session", "payment_intent", "charge", "invoice", "subscription", "customer")
PEOPLE = ("user", "email", "customer")  # each by its own lookup
TRIES = 300


def run(add: Callable[..., None], name: str, folder: str, database: str, large: int) -> None:
    url = database if not database.startswith("sqlite") else f"sqlite:///{folder}/links.db"
    bridge_store.migrate(url)
    made = bridge_store.open(url.replace("postgresql://", "postgresql+psycopg://", 1))
    few_found, few_learned, few_people = _costs_ms(made, 0, SMALL)
    many_found, many_learned, many_people = _costs_ms(made, SMALL, large)
    made.close()
    add(f"{name}: one lookup with {SMALL:,} links", few_found, "ms")
    what = f"{name}: one lookup with {large:,} links, against {SMALL:,}"
    add(what, many_found / few_found, "×", "≤ 2", lambda value: value <= 2)
    add(f"{name}: learning an event with {SMALL:,} links", few_learned, "ms")
    what = f"{name}: learning an event with {large:,} links, against {SMALL:,}"
    add(what, many_learned / few_learned, "×", "≤ 2", lambda value: value <= 2)
    for kind, few, many in zip(PEOPLE, few_people, many_people, strict=True):
        add(f"{name}: one lookup through a person's {kind} with {SMALL:,} keys of people", few, "ms")
        what = f"{name}: one lookup through a person's {kind} with {large:,} keys of people, against {SMALL:,}"
        add(what, many / few, "×", "≤ 1.2", lambda value: value <= 1.2)


def _costs_ms(store: bridge_store.Store, first: int, last: int) -> tuple[float, float, list[float]]:
    """(a lookup, learning one event, a lookup of each kind of person), any purchase, any person.

    It is the lower quartile, because other work disturbs it less.
    """
    _fill(store, _rows, first // len(KINDS), last // len(KINDS))
    _fill(store, _person, first // 2, last // 2)
    dice = random.Random(last)
    purchases = [dice.randrange(last // len(KINDS)) for _ in range(TRIES)]
    for number in purchases[: TRIES // 5]:  # connections, caches and the statements' texts are made once
        _find(store, number)
        _learn(store, number)
    found = [_find(store, number) for number in purchases]
    learned = [_learn(store, number) for number in purchases]
    people = [dice.randrange(last // 2) for _ in range(TRIES)]
    of_people = [[_find_person(store, kind, number) for number in people][TRIES // 5 :] for kind in PEOPLE]
    return _quartile(found), _quartile(learned), list(map(_quartile, of_people))


def _quartile(costs_ms: list[float]) -> float:
    return statistics.quantiles(costs_ms)[0]


def _find(store: bridge_store.Store, number: int) -> float:
    keys = [_key(number, "charge"), _key(number, "customer")]
    started = time.perf_counter()
    with store.read() as conn:
        assert links.recall(conn, keys).find(keys, number, weak=True) is not None
    return (time.perf_counter() - started) * 1000


def _find_person(store: bridge_store.Store, kind: str, number: int) -> float:
    keys = [_person_key(number, kind)]
    started = time.perf_counter()
    with store.read() as conn:
        known = links.recall(conn, keys)
        links.recall_customers(conn, known, keys)
        assert known.find(keys, number, weak=True) is not None
    return (time.perf_counter() - started) * 1000


def _learn(store: bridge_store.Store, number: int) -> float:
    """A refund of the purchase; without the commit, which waits for the disk and for nothing else."""
    learning = Observation(
        (_key(number, "charge"), _key(number, "customer")), number, "charge.refunded", 2_000_000 + number
    )
    with store.write() as conn:
        started = time.perf_counter()
        links.learn(conn, [learning], 2_000)
        return (time.perf_counter() - started) * 1000


def _key(number: int, kind: str) -> Key:
    ref = f"{kind[:3]}_{number:08d}x"
    return Key(f"stripe:live:{ref}", kind, ref)


def _fill(store: bridge_store.Store, rows: Callable[[int], Iterator[dict[str, object]]], first: int, last: int) -> None:
    for start in range(first, last, 2_000):
        keys = [key for number in range(start, min(last, start + 2_000)) for key in rows(number)]
        with store.write() as conn:
            conn.execute(_KEYS, keys)
            conn.execute(_VISITORS, [key for key in keys if key["v"]])
            conn.execute(_EVENTS, keys)
            again = [key | {"n": key["again"]} for key in keys if key.get("again")]
            if again:
                conn.execute(_EVENTS, again)
    with store.write() as conn:
        conn.execute(text("ANALYZE"))


def _rows(number: int) -> Iterator[dict[str, object]]:
    for kind in KINDS:
        key = _key(number, kind)
        thread = None if kind == "customer" else _key(number, "charge").text
        named = {"key": key.text, "kind": kind, "ref": key.id, "thread": thread, "sure": None}
        yield {**named, "n": number, "v": f"visitor-{number}"}


def _person_key(number: int, kind: str) -> Key:
    ref = hashlib.sha256(f"{kind}{number}".encode()).hexdigest()
    return Key(f"{'stripe' if kind == 'customer' else f'{kind}:default'}:live:{ref}", kind, ref)


def _person(number: int) -> Iterator[dict[str, object]]:
    """What a sign-up says of a person, and then a purchase, which names the user again."""
    signed_up = _PEOPLE_FROM + 2 * number
    for kind in PEOPLE:
        key, bought = _person_key(number, kind), kind == "customer"
        named = {"key": key.text, "kind": kind, "ref": key.id, "thread": None, "sure": None if bought else 1000}
        again = signed_up + 1 if kind == "user" else None
        yield {**named, "n": signed_up + bought, "again": again, "v": None if bought else f"person-{number}"}


_KEYS = text(
    "INSERT INTO link_keys (key, kind, ref, thread, created_at_ms, used_at_ms, uses, certain_at_ms)"
    " VALUES (:key, :kind, :ref, :thread, 1000, 1000, 1, :sure)"
)
_VISITORS = text(
    "INSERT INTO link_visitors (key, visitor, sure, first_at_ms, first_event_id, first_event, last_at_ms,"
    " last_event_id, last_event) VALUES (:key, :v, true, :n, :n, 'session evt_1', :n, :n, 'session evt_1')"
)
_EVENTS = text("INSERT INTO link_events (key, event_id, element) VALUES (:key, :n, 0)")
_PEOPLE_FROM = 1_000_000_000  # the number of their first event
