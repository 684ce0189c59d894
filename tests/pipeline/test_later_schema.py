"""Law 11, with this release as the previous one: it runs on tables that a later release has added to.

What a migration may add until a release later: columns (nullable, or with a default), tables, indexes. Every table gets
some of each, and everything that this release does is done on them, by its own processes.
"""

from __future__ import annotations

import json

import pytest
from running import ALICE, BOB, checkout, environment, event, eventually
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from bridge import store as bridge_store
from bridge.store import schema
from bridge.store.upkeep import retention

DAYS = 86_400_000


@pytest.fixture
def later_url(database_url):
    """A database that a later release has migrated."""
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as conn:
        for table in schema.metadata.tables:
            conn.execute(text(f"ALTER TABLE {table} ADD COLUMN later_text TEXT"))
            conn.execute(text(f"ALTER TABLE {table} ADD COLUMN later_number INTEGER NOT NULL DEFAULT 7"))
            conn.execute(text(f"CREATE INDEX ix_later_{table} ON {table} (later_number, later_text)"))
        conn.execute(text("CREATE TABLE later_things (id INTEGER PRIMARY KEY, name TEXT NOT NULL)"))
        conn.execute(text("UPDATE bridge_version SET version_num = '9999'"))
    return database_url


def rows(url, statement):
    with create_engine(url, poolclass=NullPool).begin() as conn:
        done = conn.execute(text(statement))
        return [tuple(row) for row in done] if done.returns_rows else []


def refund(number):
    thing = {
        "id": f"ch_{number}", "object": "charge", "amount": 4900, "amount_refunded": 4900, "refunded": True,
        "currency": "usd", "payment_intent": f"pi_{number}", "metadata": {},
    }  # fmt: skip
    return event("charge.refunded", thing, f"evt_refund_{number}")


@pytest.mark.long
def test_all_that_this_release_does_is_done_on_the_tables_of_the_next(machine, later_url):
    datafast = machine.datafast()
    environ = environment(datafast, later_url)

    def command(*words, code=0):
        done = machine.bridge(*words, environ=environ, name=f"command-{len(machine.started)}")
        assert done.ended() == code, (words, done.log)
        return done.log

    assert "later release" in command("migrate")
    web = machine.web({**environ, "BRIDGE_WORKER": "off"})
    worker = machine.bridge("worker", environ=environ, name="worker")
    assert web.get("/readyz").status_code == 200

    # receive, route, learn, wait for the visitor, deliver
    assert web.stripe(refund(1)).json() == {"status": "accepted"}
    eventually(lambda: rows(later_url, "SELECT state FROM goals") == [("parked",)], what="the refund waits")
    assert web.stripe(checkout(1)).json() == {"status": "accepted"}
    assert web.stripe(checkout(1)).json() == {"status": "duplicate"}
    eventually(lambda: sorted(datafast.seen()) == [("purchase", ALICE), ("refund", ALICE)], what="both are delivered")
    assert web.stripe(b"no JSON").json() == {"status": "accepted"}
    eventually(lambda: web.get("/status").json()["problems"] == ["Events are in quarantine."], what="/status is right")
    assert web.get("/metrics", admin=True).status_code == 200

    # what a person does
    command("events", "list", "--json")
    command("events", "show", "evt_1")
    ((unread,),) = rows(later_url, "SELECT id FROM events WHERE state = 'quarantined'")
    command("events", "ignore", f"ev_{unread}")
    command("events", "replay", "evt_1", "--yes")
    eventually(lambda: web.get("/status").status_code == 200, what="/status is green")
    command("goals", "list")
    (goal,) = (f"goal_{number}" for (number,) in rows(later_url, "SELECT id FROM goals WHERE name = 'purchase'"))
    command("goals", "show", goal)
    command("goals", "retry", goal, "--yes")
    eventually(lambda: len(datafast.seen()) == 3, what="it is sent again")
    for name in ("evt_1", goal, "cus_1", ALICE):
        command("why", name)
    assert web.stripe(checkout(2, None)).status_code == 200
    eventually(lambda: rows(later_url, "SELECT 1 FROM goals WHERE state = 'parked'"), what="it waits")
    command("links", "add", "stripe", "payment_intent", "pi_2", BOB)
    eventually(lambda: ("purchase", BOB) in datafast.seen(), what="the link wakes it")
    command("links", "show", "pi_2")
    command("relearn")
    command("check")
    command("forget", "--visitor", BOB, "--yes")
    assert BOB not in json.dumps(rows(later_url, "SELECT visitor FROM goals WHERE visitor IS NOT NULL"))

    # the ends of processes and of rows
    assert worker.stop()[0] == 0
    assert web.stop()[0] == 0
    for log in (web.log, worker.log):
        assert "Traceback" not in log
        assert "fault" not in {line.get("event") for line in web.lines + worker.lines}
    moved = " = ".join(("received_at_ms", f"received_at_ms - {500 * DAYS}"))
    rows(later_url, f"UPDATE events SET {moved}")
    rows(later_url, f"UPDATE goals SET created_at_ms = created_at_ms - {500 * DAYS}, changed_at_ms = 0")
    rows(later_url, f"UPDATE attempts SET started_at_ms = started_at_ms - {500 * DAYS}")
    store = bridge_store.open(later_url)
    retention.purge(store, 30)
    store.close()
    for table in ("events", "goals", "attempts"):
        assert rows(later_url, f"SELECT count(*) FROM {table}") == [(0,)]
    assert rows(later_url, "SELECT version_num FROM bridge_version") == [("9999",)]
    assert rows(later_url, "SELECT DISTINCT later_number FROM rule_sets") == [(7,)]
