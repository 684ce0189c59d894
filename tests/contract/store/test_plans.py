"""What runs all the time goes by an index, on both databases, however many rows there are."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import event as sqlalchemy_event

from bridge.store import events, ledger, retention, schema, status

BIG = ("events", "goals", "attempts", "link_events", "goal_keys")


def scans(store, work):
    """The plans of all statements of `work` that walk over a whole big table."""
    said = []

    def keep(_conn, _cursor, statement, parameters, _context, many):
        if not many and not statement.startswith("EXPLAIN"):
            said.append((statement, parameters))

    sqlalchemy_event.listen(store.engine, "before_cursor_execute", keep)
    try:
        with store.write() as conn:
            work(conn)
            sqlalchemy_event.remove(store.engine, "before_cursor_execute", keep)
            return [plan for statement, parameters in said if (plan := _walks(store, conn, statement, parameters))]
    finally:
        if sqlalchemy_event.contains(store.engine, "before_cursor_execute", keep):
            sqlalchemy_event.remove(store.engine, "before_cursor_execute", keep)


def _walks(store, conn, statement, parameters):
    if store.dialect == "sqlite":
        plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        lines = [row.detail for row in plan]
        bad = [line for line in lines if re.fullmatch(rf"SCAN ({'|'.join(BIG)}|other)", line)]
    else:
        conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
        lines = [row[0] for row in conn.exec_driver_sql(f"EXPLAIN {statement}", parameters)]
        bad = [line for line in lines if re.search(rf"Seq Scan on ({'|'.join(BIG)})\b", line)]
    return "\n".join([statement, *lines]) if bad else ""


WORK = {
    "claim": lambda conn: events.claim(conn, 20, "t", 1),
    "release": lambda conn: events.release(conn, [1], "t"),
    "look": lambda conn: status.look(conn, ("default",)),
    "find": lambda conn: (ledger.find(conn, "evt_1"), ledger.find(conn, "ev_1"), ledger.find(conn, "goal_1")),
    "show": lambda conn: (ledger.show_event(conn, 1), ledger.show_goal(conn, 1)),
    "bodies after days": lambda conn: retention.forget_bodies(conn, 30, 10),
    "bodies at once": lambda conn: retention.forget_bodies(conn, 0, 10),
    "attempts": lambda conn: retention.forget_attempts(conn, 30, 10),
    "goals": lambda conn: retention.forget_goals(conn, 10),
    "events": lambda conn: retention.forget_events(conn, 10),
}


@pytest.mark.parametrize("name", WORK)
def test_it_goes_by_an_index(store, rows, name):
    for n in range(3):
        rows.attempt(rows.goal(rows.routed(f"evt_{n}"), state="delivered"))
    rows.event("evt_new")
    assert scans(store, WORK[name]) == []


def test_a_walk_over_a_table_would_be_seen(store, rows):
    rows.event()
    assert scans(store, lambda conn: conn.execute(schema.events.select().where(schema.events.c.reason == "x")))
