"""What a claim costs with a thousand goals waiting, and with a million."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from sqlalchemy import text

from bridge import store as bridge_store
from bridge.model import Claim
from bridge.store.delivery import claims

SMALL = 1_000


def run(add: Callable[..., None], name: str, folder: str, database: str, large: int) -> None:
    url = database if not database.startswith("sqlite") else f"sqlite:///{folder}/claims.db"
    bridge_store.migrate(url)
    made = bridge_store.open(_driver(url))
    made.run(lambda conn: claims.register(conn, destination="bench", token_hash="bench"))
    few = _claim_ms(made, 1, SMALL)
    many = _claim_ms(made, SMALL + 1, large)
    made.close()
    add(f"{name}: one claim with {SMALL:,} goals waiting", few, "ms")
    what = f"{name}: one claim with {large:,} goals waiting, against {SMALL:,}"
    add(what, many / few, "×", "≤ 2", lambda value: value <= 2)


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def _claim_ms(store: bridge_store.Store, first: int, last: int) -> float:
    _fill(store, first, last)
    times = []
    for number in range(200):
        started = time.perf_counter()
        claimed = store.run(
            lambda conn: claims.claim(
                conn, destination="bench", token_hash="bench", token=f"t{number}", lease_ms=60_000, rate=60_000_000
            )
        )
        times.append((time.perf_counter() - started) * 1000)
        assert isinstance(claimed, Claim)
        store.run(lambda conn: claims.release(conn, claimed))
        time.sleep(0.001)
    return statistics.median(times)


def _fill(store: bridge_store.Store, first: int, last: int) -> None:
    """Insert goals that wait; one in fifty has the visitor of the goal before it."""
    for start in range(first, last + 1, 20_000):
        numbers = range(start, min(last + 1, start + 20_000))
        with store.write() as conn:
            conn.execute(_EVENT, [{"n": n} for n in numbers])
            conn.execute(_GOAL, [{"n": n, "v": f"visitor-{n - n % 50 // 49}"} for n in numbers])
    with store.write() as conn:
        conn.execute(text("ANALYZE"))


_EVENT = text(
    "INSERT INTO events (id, source, provider, type, test, received_at_ms, dedupe_key, headers, query, state)"
    " VALUES (1000000000 + :n, 'bench', 'stripe', 't', false, :n, 'bench-' || :n, '{}', '{}', 'routed')"
)
_GOAL = text(
    "INSERT INTO goals (id, event_id, source, rule_id, destination, once_key, test, name, description, metadata,"
    " visitor, state, happened_at_ms, time_is_stated, ordered_at_ms, created_at_ms, changed_at_ms, due_at_ms,"
    " expires_at_ms, wait_ms) VALUES (1000000000 + :n, 1000000000 + :n, 'bench', 'r', 'bench', 'bench-' || :n, false,"
    " 'g', 'd', '{}', :v, 'pending', :n, true, :n, :n, :n, :n, 9000000000000, 1)"
)
