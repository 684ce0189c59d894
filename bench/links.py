"""What a visitor costs with ten thousand links remembered, and with a million: to look up, and to learn from an event.

Each purchase is a thread of five keys and a customer, named once; a lookup goes from a charge to the visitor. There
are also as many keys of people: each person was named once with user id and address at the sign-up, and once with
user id and customer; a lookup goes from the user, from the address and from the customer to the visitor.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import psycopg

from bench import servers
from bridge import store as bridge_store
from bridge.identity.choice import Observation
from bridge.model import Key
from bridge.store.links import learning as links

SMALL = 10_000
KINDS = ("session", "payment_intent", "charge", "invoice", "subscription", "customer")
PEOPLE = ("user", "email", "customer")  # each by its own lookup
TRIES = 400
WARM = 60


def run(add: Callable[..., None], name: str, folder: str, database: str, large: int) -> None:
    few = _filled(servers.own_database(database, "few_links"), f"{folder}/few_links.db", SMALL)
    many = _filled(database, f"{folder}/links.db", large)
    found, learned, *person_costs = _costs_ms((few, SMALL), (many, large))
    few.close()
    many.close()
    for what, budget, costs in (
        ("one lookup with {:,} links", 2.0, found),
        ("learning an event with {:,} links", 2.0, learned),
        *(
            (f"one lookup through a person's {kind} with {{:,}} keys of people", 1.2, costs)
            for kind, costs in zip(PEOPLE, person_costs, strict=True)
        ),
    ):
        add(f"{name}: {what.format(SMALL)}", costs[0], "ms")
        against = f"{name}: {what.format(large)}, against {SMALL:,}"
        add(against, costs[1] / costs[0], "×", f"≤ {budget:g}", lambda value, budget=budget: value <= budget)


def _filled(database: str, path: str, size: int) -> bridge_store.Store:
    """A store that has had time to settle: with statistics, and nothing left to write or to clean up."""
    url = database if not database.startswith("sqlite") else f"sqlite:///{path}"
    bridge_store.migrate(url)
    store = bridge_store.open(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with closing(_connect(url)) as conn:
        for table, columns, rows in _tables(size):
            _write(conn, table, columns, rows)
        for statement in _SETTLE[store.dialect]:
            conn.execute(statement)
    return store


def _write(conn: Any, table: str, columns: str, rows: Iterator[tuple[object, ...]]) -> None:
    """Write many rows in one transaction, as fast as the database takes them."""
    if isinstance(conn, sqlite3.Connection):
        conn.execute("PRAGMA cache_size = -1000000")
        conn.execute("BEGIN")
        conn.executemany(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(columns.split()))})", rows)
        conn.execute("COMMIT")
        return
    with conn.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _connect(url: str) -> Any:
    """A connection of its own, because those of the store have time limits of seconds."""
    if url.startswith("sqlite"):
        return sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    return psycopg.connect(url, autocommit=True)


_SETTLE = {"sqlite": ("ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"), "postgresql": ("VACUUM ANALYZE", "CHECKPOINT")}


def _costs_ms(*stores: tuple[bridge_store.Store, int]) -> list[list[float]]:
    """What it costs in each store to look up, to learn an event, and to look up by each kind of a person's keys.

    Purchases and people are drawn at random, and the stores take turns, so that other work disturbs them alike. The
    costs are lower quartiles, because other work disturbs these less.
    """
    dice = random.Random(len(stores))
    tasks: list[tuple[Callable[[bridge_store.Store, int], float], int]] = [
        (_find, len(KINDS)),
        (_learn, len(KINDS)),
        *((partial(_find_person, kind=kind), 2) for kind in PEOPLE),
    ]
    costs_ms = []
    for task, keys in tasks:
        tried: list[list[float]] = [[] for _ in stores]
        for _ in range(WARM + TRIES):
            for (store, size), times in zip(stores, tried, strict=True):
                times.append(task(store, dice.randrange(size // keys)))
        # connections, caches and the statements' texts are made once
        costs_ms.append([statistics.quantiles(times[WARM:])[0] for times in tried])
    return costs_ms


def _find(store: bridge_store.Store, number: int) -> float:
    keys = [_key(number, "charge"), _key(number, "customer")]
    started = time.perf_counter()
    with store.read() as conn:
        assert links.recall(conn, keys).find(keys, number, weak=True) is not None
    return (time.perf_counter() - started) * 1000


def _find_person(store: bridge_store.Store, number: int, kind: str) -> float:
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


def _tables(size: int) -> Iterator[tuple[str, str, Iterator[tuple[object, ...]]]]:
    """(table, columns, rows) of this many links of purchases, and as many keys of people."""

    def key_rows() -> Iterator[KeyRow]:
        yield from chain.from_iterable(map(_purchase_rows, range(size // len(KINDS))))
        yield from chain.from_iterable(map(_person_rows, range(size // 2)))

    yield (
        "link_keys",
        "key, kind, ref, thread, created_at_ms, used_at_ms, uses, certain_at_ms",
        ((*row.key, row.thread, 1000, 1000, 1, row.sure) for row in key_rows()),
    )
    yield (
        "link_visitors",
        "key, visitor, sure, first_at_ms, first_event_id, first_event, last_at_ms, last_event_id, last_event",
        (
            (row.key[0], row.visitor, True, *2 * (row.events[0], row.events[0], "session evt_1"))
            for row in key_rows()
            if row.visitor
        ),
    )
    yield "link_events", "key, event_id, element", ((row.key[0], n, 0) for row in key_rows() for n in row.events)


class KeyRow(NamedTuple):
    """A key, as (key, kind, ref), and what is known of it. sure: since when it is surely a person's."""

    key: tuple[str, str, str]
    thread: str | None
    sure: int | None
    visitor: str | None
    events: tuple[int, ...]


def _purchase_rows(number: int) -> Iterator[KeyRow]:
    """The keys that one event names for a purchase."""
    for kind in KINDS:
        key = _key(number, kind)
        thread = None if kind == "customer" else _key(number, "charge").text
        yield KeyRow((key.text, kind, key.id), thread, None, f"visitor-{number}", (number,))


def _person_key(number: int, kind: str) -> Key:
    ref = hashlib.sha256(f"{kind}{number}".encode()).hexdigest()
    return Key(f"{'stripe' if kind == 'customer' else f'{kind}:default'}:live:{ref}", kind, ref)


def _person_rows(number: int) -> Iterator[KeyRow]:
    """The keys of a person that a sign-up names, and then a purchase, which names the user again."""
    signed_up = _PEOPLE_FROM + 2 * number
    bought = signed_up + 1
    for kind, events in (("user", (signed_up, bought)), ("email", (signed_up,)), ("customer", (bought,))):
        key, is_named = _person_key(number, kind), kind != "customer"
        yield KeyRow(
            (key.text, kind, key.id), None, 1000 if is_named else None, f"person-{number}" if is_named else None, events
        )


_PEOPLE_FROM = 1_000_000_000  # the number of their first event
