"""`python -m bridge backtest` as it is typed, from its start to its answer: other rules over the stored events.

The events are those of the floods, of five types. Compared with the shipped rules, the others lack a rule, add one and
change one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert

from bench import events
from bridge import store as bridge_store
from bridge.store import schema

TYPES = (
    "checkout.session.completed",
    "invoice.paid",
    "charge.refunded",
    "customer.subscription.updated",
    "price.created",
)
SHIPPED = Path(__file__).parent.parent / "mappings"
OTHER = """
provider: stripe
goals:
  - {goal: purchase, event: checkout.session.completed, once_per: data.object.id,
     metadata: {amount: "{data.object.amount_total}"}}
  - {goal: priced, event: price.created, once_per: data.object.id}
"""


def run(add: Callable[..., None], name: str, folder: str, database: str, count: int) -> None:
    """Store this many events, and compare the shipped rules with others."""
    database = f"sqlite:///{folder}/backtest.db" if database.startswith("sqlite") else database
    bridge_store.migrate(database)
    opened = bridge_store.open(database)
    with opened.write() as conn:
        for table in reversed(schema.metadata.sorted_tables):  # what the parts before have stored
            conn.execute(table.delete())
        conn.execute(insert(schema.events), [_row(number) for number in range(count)])
    opened.close()
    other = Path(folder) / f"other-{name}"
    other.mkdir()
    (other / "stripe.yaml").write_text(OTHER)
    started = time.perf_counter()
    result = _backtest(database, other)
    seconds = time.perf_counter() - started
    if (result["events"], result["gained"] > 0, result["changed"] > 0) != (count, True, True):
        raise SystemExit(f"the backtest found something else: {result['events']} events")
    add(f"{name}: backtest of {count:,} stored events", seconds, "s", "≤ 5", lambda value: value <= 5)


def _row(number: int) -> dict[str, object]:
    kind = TYPES[number % len(TYPES)]
    return {
        "source": "stripe",
        "provider": "stripe",
        "type": kind,
        "provider_event_id": f"evt_{number:024d}",
        "test": False,
        "received_at_ms": time.time_ns() // 1_000_000,
        "dedupe_key": f"evt_{number}",
        "headers": "{}",
        "query": "{}",
        "body": events.body(number, type=kind, visitor=True),
        "state": "routed",
    }


def _backtest(database: str, other: Path) -> dict[str, int]:
    environ = {**os.environ, "DATABASE_URL": database, "BRIDGE_MAPPINGS": str(SHIPPED)}
    command = [sys.executable, "-m", "bridge", "backtest", str(other), "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    result: dict[str, int] = json.loads(done.stdout)
    return result
