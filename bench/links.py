"""What a visitor costs with ten thousand links remembered, and with a million: to look up, and to learn from an event.

Each purchase is a thread of five keys and a customer, named once; a lookup goes from a charge to the visitor.
"""

from __future__ import annotations

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
TRIES = 300


def run(add: Callable[..., None], name: str, folder: str, database: str, large: int) -> None:
    url = database if not database.startswith("sqlite") else f"sqlite:///{folder}/links.db"
    bridge_store.migrate(url)
    made = bridge_store.open(url.replace("postgresql://", "postgresql+psycopg://", 1))
    few_found, few_learned = _costs_ms(made, 0, SMALL)
    many_found, many_learned = _costs_ms(made, SMALL, large)
    made.close()
    add(f"{name}: one lookup with {SMALL:,} links", few_found, "ms")
    what = f"{name}: one lookup with {large:,} links, against {SMALL:,}"
    add(what, many_found / few_found, "×", "≤ 2", lambda value: value <= 2)
    add(f"{name}: learning an event with {SMALL:,} links", few_learned, "ms")
    what = f"{name}: learning an event with {large:,} links, against {SMALL:,}"
    add(what, many_learned / few_learned, "×", "≤ 2", lambda value: value <= 2)


def _costs_ms(store: bridge_store.Store, first: int, last: int) -> tuple[float, float]:
    """(a lookup, learning one event), any purchase; the lower quartile, because other work disturbs it less."""
    _fill(store, first // len(KINDS), last // len(KINDS))
    dice = random.Random(last)
    purchases = [dice.randrange(last // len(KINDS)) for _ in range(TRIES)]
    for number in purchases[: TRIES // 5]:  # connections, caches and the statements' texts are made once
        _find(store, number)
        _learn(store, number)
    found = [_find(store, number) for number in purchases]
    learned = [_learn(store, number) for number in purchases]
    return statistics.quantiles(found)[0], statistics.quantiles(learned)[0]


def _find(store: bridge_store.Store, number: int) -> float:
    keys = [_key(number, "charge"), _key(number, "customer")]
    started = time.perf_counter()
    with store.read() as conn:
        assert links.recall(conn, keys).find(keys, number, weak=True) is not None
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


def _fill(store: bridge_store.Store, first: int, last: int) -> None:
    for start in range(first, last, 2_000):
        keys = [key for number in range(start, min(last, start + 2_000)) for key in _rows(number)]
        with store.write() as conn:
            for statement in (_KEYS, _VISITORS, _EVENTS):
                conn.execute(statement, keys)
    with store.write() as conn:
        conn.execute(text("ANALYZE"))


def _rows(number: int) -> Iterator[dict[str, object]]:
    for kind in KINDS:
        key = _key(number, kind)
        thread = None if kind == "customer" else _key(number, "charge").text
        yield {"key": key.text, "kind": kind, "ref": key.id, "thread": thread, "n": number, "v": f"visitor-{number}"}


_KEYS = text(
    "INSERT INTO link_keys (key, kind, ref, thread, created_at_ms, used_at_ms, uses)"
    " VALUES (:key, :kind, :ref, :thread, 1000, 1000, 1)"
)
_VISITORS = text(
    "INSERT INTO link_visitors (key, visitor, sure, first_at_ms, first_event_id, first_event, last_at_ms,"
    " last_event_id, last_event) VALUES (:key, :v, true, :n, :n, 'session evt_1', :n, :n, 'session evt_1')"
)
_EVENTS = text("INSERT INTO link_events (key, event_id, element) VALUES (:key, :n, 0)")
