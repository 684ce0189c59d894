"""What an acknowledgement, `/metrics`, `/status` and `/readyz` cost with half a million events, compared with none.

The database itself generates the rows, with autovacuum off and nothing analysed, as on a server whose autovacuum has
never run: no statistics, no visibility map.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

from bench import events, load, servers
from bridge import store as bridge_store
from bridge.store import schema

RATE = 50
PAGES = ("/metrics", "/status", "/readyz")
PAUSE_S = 1.2  # pages are cached for a second
BIG = 1_000_000_000  # the ids of the generated rows are above it


def run(add: Callable[..., None], name: str, folder: str, database: str, count: int) -> None:
    url = f"sqlite:///{folder}/half-million.db" if database.startswith("sqlite") else database
    bridge_store.migrate(driver(url))
    with _bridge(folder, url) as port:
        few_p50, few_p99 = _acks_ms(port, 1)
        pages = {path: _page_ms(port, path) for path in PAGES}
    fill(driver(url), count)
    with _bridge(folder, url) as port:
        for path in PAGES:
            first = _page_ms(port, path, times=1)
            add(f"{name}: {path} with {count:,} events, the first time", first, "ms")
            value = _page_ms(port, path)
            add(f"{name}: {path} with {count:,} events", value, "ms", "≤ 200", lambda value: value <= 200)
            add(f"{name}: {path} with {count:,} events, against an empty database", value / pages[path], "×")
        p50, p99 = _acks_ms(port, 100_000_000)
        add(f"{name}: ack p50 at {RATE}/s with {count:,} events", p50, "ms")
        add(f"{name}: ack p50 at {RATE}/s with {count:,} events, against an empty database", p50 / few_p50, "×")
        add(f"{name}: ack p99 at {RATE}/s with {count:,} events", p99, "ms")
        add(f"{name}: ack p99 at {RATE}/s with {count:,} events, against an empty database", p99 / few_p99, "×")


def driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


@contextlib.contextmanager
def _bridge(folder: str, url: str) -> Iterator[int]:
    with (
        servers.sandbox(folder, "--visitor", "any") as destination,
        servers.bridge(folder, url, destination) as (port, _, _),
    ):
        load.closed_loop(port, events.requests(50, first=800_000_000 + time.monotonic_ns() % 1_000_000 * 100), 4)
        time.sleep(3)
        yield port


def _acks_ms(port: int, first: int) -> tuple[float, float]:
    result = load.open_loop(port, events.requests(RATE * 20, first=500_000_000 + first), RATE)
    if set(result.statuses) != {200}:
        raise SystemExit(f"not every answer was 200: {result.statuses}")
    return result.quantile_ms(0.5), result.quantile_ms(0.99)


def _page_ms(port: int, path: str, times: int = 5) -> float:
    found = []
    for _ in range(times):
        time.sleep(PAUSE_S)
        started = time.perf_counter()
        with (
            contextlib.suppress(urllib.error.HTTPError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer,
        ):
            answer.read()
        found.append((time.perf_counter() - started) * 1000)
    return statistics.median(found)


def fill(url: str, count: int, share: int = 5) -> None:
    """Insert this many events, of which one in `share` makes a goal with a key, a visitor and an attempt."""
    store = bridge_store.open(url)
    is_sqlite = store.dialect == "sqlite"
    now = int(time.time() * 1000)
    start = now - 29 * 86_400_000
    pad = "printf('%09d', n)" if is_sqlite else "lpad(n::text, 9, '0')"
    step = max(1, 29 * 86_400_000 // count)
    with store.engine.connect() as conn:
        if not is_sqlite:
            for table in schema.metadata.tables:
                conn.exec_driver_sql(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        for statement in _ROWS:
            for first in range(1, count + 1, 20_000):
                text = statement.format(
                    series=_SERIES["sqlite" if is_sqlite else "postgresql"].format(first, min(count, first + 19_999)),
                    at=f"({start} + n * {step})",
                    body=f"CAST({_BODY.format(pad=pad)} AS BLOB)"
                    if is_sqlite
                    else f"convert_to({_BODY.format(pad=pad)}, 'UTF8')",
                    big=str(BIG),
                    pad=pad,
                    share=share,
                )
                if not is_sqlite:
                    conn.exec_driver_sql("SET LOCAL statement_timeout = 0")
                    conn.connection.driver_connection.limit_s = 600  # type: ignore[union-attr]
                conn.exec_driver_sql(text)
                conn.commit()
    store.close()


_SERIES = {
    "sqlite": "(WITH RECURSIVE s(n) AS (SELECT {} UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT n FROM s) AS t",
    "postgresql": "generate_series({}::bigint, {}::bigint) AS t(n)",
}
_BODY = (
    """'{{"id": "evt_' || {pad} || '", "object": "event", "type": "invoice.paid", "livemode": true, "pad": "' || """
    """'0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"}}'"""
)
_PLACE = "(n - n / {share} * {share})"  # no "%", which a driver would read as its own
_ROWS = (
    f"""INSERT INTO events (id, source, provider, type, provider_event_id, test, stated_at_ms, order_at_ms,
    received_at_ms, dedupe_key, dedupe_key_2, headers, query, body, state, verdict, trace, rules_hash, routed_at_ms,
    tries) SELECT {{big}} + n, CASE {_PLACE} WHEN 4 THEN 'lemonsqueezy' ELSE 'stripe' END, 'stripe', 'invoice.paid',
    'evt_' || {{pad}}, false, {{at}}, {{at}}, {{at}}, 'id:evt_' || {{pad}}, 'id:evt_' || {{pad}},
    '{{{{"stripe-signature": "t=1,v1=0123456789abcdef0123456789abcdef"}}}}', '{{{{}}}}', {{body}}, 'routed',
    CASE {_PLACE} WHEN 0 THEN 'matched' WHEN 1 THEN 'ignored' ELSE 'unmatched' END, '{{{{"rules": []}}}}', 'hash',
    {{at}}, 1 FROM {{series}}""",
    f"""INSERT INTO goals (id, event_id, source, rule_id, rules_hash, destination, once_key, test, name, description,
    metadata, visitor, state, happened_at_ms, time_is_stated, ordered_at_ms, created_at_ms, changed_at_ms, due_at_ms,
    expires_at_ms, wait_ms, attempts, delivered_at_ms, datafast_event_id) SELECT {{big}} + n, {{big}} + n, 'stripe',
    'purchase', 'hash', 'default', 'purchase:evt_' || {{pad}}, false, 'purchase', 'stripe evt_' || {{pad}},
    '{{{{"amount": "49.00", "currency": "usd"}}}}', 'visitor-' || {{pad}}, 'delivered', {{at}}, true, {{at}}, {{at}},
    {{at}}, {{at}}, {{at}} + 604800000, 3600000, 1, {{at}}, 'df_' || {{pad}} FROM {{series}} WHERE {_PLACE} = 0""",
    f"""INSERT INTO attempts (id, goal_id, kind, started_at_ms, ended_at_ms, outcome, status, lease_token)
    SELECT {{big}} + n, {{big}} + n, 'send', {{at}}, {{at}} + 100, 'delivered', 200, 'token' FROM {{series}}
    WHERE {_PLACE} = 0""",
    f"""INSERT INTO goal_keys (goal_id, key) SELECT {{big}} + n, 'stripe:live:sub_' || {{pad}} FROM {{series}}
    WHERE {_PLACE} = 0""",
    """INSERT INTO link_keys (key, kind, ref, thread, created_at_ms, used_at_ms, uses) SELECT
    'stripe:live:sub_' || {pad}, 'subscription', 'sub_' || {pad}, 'stripe:live:sub_' || {pad}, {at}, {at}, 1
    FROM {series}""",
    "INSERT INTO link_events (key, event_id, element) SELECT 'stripe:live:sub_' || {pad}, {big} + n, 0 FROM {series}",
    f"""INSERT INTO link_visitors (key, visitor, sure, first_at_ms, first_event, last_at_ms, last_event) SELECT
    'stripe:live:sub_' || {{pad}}, 'visitor-' || {{pad}}, true, {{at}}, 'invoice.paid', {{at}}, 'invoice.paid'
    FROM {{series}} WHERE {_PLACE} = 0""",
)
