"""Rows for the store's tests, made by the statements of the product where there are some."""

from __future__ import annotations

import json

import pytest
from inbox_kit import Inbox
from sqlalchemy import insert, select

from bridge.model import Envelope, NewEvent
from bridge.store import clock as store_clock
from bridge.store import schema
from bridge.store.inbox import events


class Rows:
    """Makes events, goals and attempts in a store, each with sound defaults."""

    def __init__(self, store, clock):
        self.store = store
        self.clock = clock
        self.inbox = Inbox(store)

    def event(self, id_="evt_1", *, source="stripe", type_="a.b", test=False, body=b"{}", quarantine=None):
        """Receive an event; our id of it."""
        keys = (f"{type_}:{id_}",)
        envelope = Envelope(type=type_, id=id_, test=test)
        self.inbox.put(NewEvent(source, "stripe", envelope, keys, {"x": "1"}, {"q": "1"}, body, quarantine))
        with self.store.read() as conn:
            return conn.execute(select(schema.events.c.id).where(schema.events.c.dedupe_key == keys[0])).scalar_one()

    def routed(self, id_="evt_1", verdict="matched", **kw):
        event_id = self.event(id_, **kw)
        with self.store.write() as conn:
            (claimed,) = [event for event in events.claim(conn, 100, "t", 60_000) if event.id == event_id]
            end = events.RoutingResult(event_id, verdict_of(verdict), None, '{"rules": []}', "h")
            assert events.finish_all(conn, "t", [end])
        return claimed.id

    def goal(self, event_id=None, state="pending", **values):
        """A goal in any state; its id."""
        if event_id is None:
            event_id = self.routed(f"evt_of_goal_{values.get('once_key', self.count(schema.goals))}")
        number = self.count(schema.goals) + 1
        now = self.clock.now_ms
        row = {
            "event_id": event_id, "source": "stripe", "rule_id": "r", "destination": "default",
            "once_key": f"k{number}", "test": False, "name": "purchase", "description": "d",
            "metadata": json.dumps({"a": "1"}), "visitor": "v1", "state": state, "happened_at_ms": now,
            "time_is_stated": True, "ordered_at_ms": now, "created_at_ms": now, "changed_at_ms": now,
            "due_at_ms": now, "expires_at_ms": now + 7 * 86_400_000, "wait_ms": 1,
        }  # fmt: skip
        with self.store.write() as conn:
            return conn.execute(insert(schema.goals).values(**{**row, **values}).returning(schema.goals.c.id)).scalar()

    def attempt(self, goal_id, outcome="delivered", **values):
        with self.store.write() as conn:
            now = store_clock.read_ms(conn)
            row = {"goal_id": goal_id, "kind": "send", "started_at_ms": now, "outcome": outcome, "lease_token": "t"}
            conn.execute(insert(schema.attempts).values(**{**row, **values}))

    def count(self, table):
        return len(self.all(table))

    def all(self, table):
        with self.store.read() as conn:
            return conn.execute(select(table).order_by(*table.primary_key)).all()

    def one(self, table, id_):
        return next(row for row in self.all(table) if row.id == id_)


def verdict_of(text):
    from bridge.model import Verdict

    return Verdict(text)


@pytest.fixture
def rows(store, clock):
    made = Rows(store, clock)
    yield made
    made.inbox.close()


# Their statements are written once for both databases (those that are texts are prepared on both in
# test_statements.py) and take no lease.
ALIKE = {
    "test_activity",
    "test_alerting",  # but what claims
    "test_attribution",
    "test_changes",
    "test_overview",
    "test_people",
    "test_plans_made",
    "test_queries_and_actions",
    "test_retention",
    "test_small_tables",
    "test_status",
    "test_timekeeping",
}


def pytest_generate_tests(metafunc):
    """On both databases in `make test`, too: here are the statements' own tests. Those of ALIKE are on SQLite there."""
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "store" in metafunc.fixturenames and "store" not in chosen:
        long = [pytest.mark.long] if metafunc.module.__name__ in ALIKE else []
        metafunc.parametrize("store", ["sqlite", pytest.param("postgresql", marks=long)], indirect=True)


@pytest.fixture
def store(request):
    return request.getfixturevalue("sqlite_store" if request.param == "sqlite" else "postgres_store")
