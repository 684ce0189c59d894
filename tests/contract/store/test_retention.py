"""What is not needed any more goes, and nothing that is."""

from __future__ import annotations

from sqlalchemy import update

from bridge.model import FINAL, Ack, Envelope, GoalState, NewEvent
from bridge.store import schema
from bridge.store.database import sqlite
from bridge.store.upkeep import retention

DAY = 86_400_000
WAITING = sorted(set(GoalState) - FINAL - {GoalState.HELD})


def bodies(rows):
    return [row.body for row in rows.all(schema.events)]


def test_bodies_headers_and_traces_go_after_their_days_and_verdicts_stay(store, rows, clock):
    rows.routed()
    clock.advance(30 * DAY - 1)
    retention.purge(store, 30)
    assert bodies(rows) == [b"{}"]
    clock.advance(1)
    retention.purge(store, 30)
    (row,) = rows.all(schema.events)
    assert (row.body, row.headers, row.query, row.trace) == (None, "{}", "{}", None)
    assert (row.verdict, row.state, row.provider_event_id) == ("matched", "routed", "evt_1")


def test_what_waits_for_visitor_or_delivery_keeps_its_event_whole(store, rows, clock):
    for state in WAITING:
        rows.attempt(rows.goal(state=state.value))
    clock.advance(31 * DAY)
    retention.purge(store, 30)
    retention.purge(store, 0)
    assert bodies(rows) == [b"{}"] * len(WAITING)
    assert rows.count(schema.attempts) == len(WAITING) == 5


def test_with_no_days_bodies_go_as_soon_as_all_goals_are_final(store, rows):
    for state in FINAL:
        rows.goal(state=state.value)
    both = rows.routed("evt_both")
    rows.goal(both, state="delivered")
    rows.goal(both, state="pending")
    retention.purge(store, 0)
    assert bodies(rows) == [None] * len(FINAL) + [b"{}"]


def test_with_no_days_the_body_of_an_event_without_goals_goes_once_it_is_routed(store, rows, clock):
    rows.routed(verdict="unmatched")
    rows.event("evt_2")
    rows.event("evt_3", quarantine="no JSON")
    retention.purge(store, 0)
    assert bodies(rows) == [None, b"{}", b"{}"]
    clock.advance(30 * DAY)
    retention.purge(store, 0)
    assert bodies(rows) == [None, b"{}", None]


def test_a_held_goal_keeps_its_body_for_the_days_only(store, rows, clock):
    rows.goal(state="held")
    retention.purge(store, 0)
    assert bodies(rows) == [b"{}"]
    clock.advance(2 * DAY)
    retention.purge(store, 2)
    assert bodies(rows) == [None]


def test_tries_go_with_their_goal_final_unless_another_goal_of_the_visitor_is_in_doubt(store, rows, clock):
    rows.attempt(rows.goal(state="delivered", visitor="v1"))
    rows.attempt(rows.goal(state="delivered", visitor="v2"))
    doubtful = rows.goal(state="unconfirmed", visitor="v1")
    retention.purge(store, 0)
    assert rows.count(schema.attempts) == 2  # a read-back within the hour may need them
    clock.advance(retention.READ_BACK_MS)
    retention.purge(store, 0)
    assert rows.count(schema.attempts) == 1
    with store.write() as conn:
        conn.execute(update(schema.goals).where(schema.goals.c.id == doubtful).values(state="delivered"))
    retention.purge(store, 0)
    assert rows.count(schema.attempts) == 0


def test_tries_stay_their_days(store, rows, clock):
    rows.attempt(rows.goal(state="rejected"))
    clock.advance(30 * DAY - 1)
    retention.purge(store, 30)
    assert rows.count(schema.attempts) == 1
    clock.advance(1)
    retention.purge(store, 30)
    assert rows.count(schema.attempts) == 0


def test_rows_stay_for_400_days_and_so_does_the_memory_of_what_was_seen(store, rows, clock):
    rows.attempt(rows.goal(rows.routed(), state="delivered"))
    clock.advance(400 * DAY - 1)
    retention.purge(store, 30)
    again = NewEvent("stripe", "stripe", Envelope("a.b", "evt_1"), ("a.b:evt_1",), {}, {}, b"{}")
    assert rows.inbox.put(again) is Ack.DUPLICATE
    clock.advance(1)
    done = {what: count for what, count in retention.purge(store, 30).items() if count}
    assert done == {"goals": 1, "events": 1}
    assert rows.count(schema.events) == rows.count(schema.goals) == rows.count(schema.attempts) == 0


def test_a_young_goal_of_an_old_event_stays_with_it(store, rows, clock):
    event = rows.routed()
    clock.advance(400 * DAY)
    rows.goal(event, state="delivered", once_key="young#2")
    retention.purge(store, 30)
    assert rows.count(schema.events) == rows.count(schema.goals) == 1


def test_work_is_done_in_batches_and_the_rest_the_next_time(store, rows, clock, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 3)
    monkeypatch.setattr(retention, "ROUNDS", 2)
    for n in range(10):
        rows.routed(f"evt_{n}")
    clock.advance(30 * DAY)
    assert retention.purge(store, 30)["bodies"] == 6
    assert retention.purge(store, 30)["bodies"] == 4
    assert set(bodies(rows)) == {None}


def test_sqlites_log_is_cut_when_it_has_grown(sqlite_store, sqlite_url):
    from pathlib import Path

    log = Path(sqlite_url.removeprefix("sqlite:///") + "-wal")
    with sqlite_store.write() as conn:
        for n in range(20):
            conn.execute(schema.facts.insert().values(name=str(n), value="x" * 8_000))
    assert log.stat().st_size > 100_000
    sqlite.bound_log(sqlite_store.engine, pages_max=10)
    assert log.stat().st_size == 0
