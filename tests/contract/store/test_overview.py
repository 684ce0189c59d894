"""What the first page of the console counts, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from bridge.store import schema
from bridge.store.operator import tallies
from bridge.store.operator.tallies import Progress, Queue

HOUR, DAY = tallies.HOUR_MS, tallies.DAY_MS


def read(store, ask, *arguments):
    with store.read() as conn:
        return ask(conn, *arguments)


def test_a_first_run_goes_from_nothing_to_a_delivered_goal(store, rows):
    assert read(store, tallies.progress) == Progress(event=False, visitor=False, goal=False)
    event = rows.routed()
    assert read(store, tallies.progress) == Progress(event=True, visitor=False, goal=False)
    rows.goal(event, visitor=None, state="parked")
    assert read(store, tallies.progress) == Progress(event=True, visitor=False, goal=False)
    rows.goal(event, state="pending")
    assert read(store, tallies.progress) == Progress(event=True, visitor=True, goal=False)
    rows.goal(event, state="delivered")
    assert read(store, tallies.progress) == Progress(event=True, visitor=True, goal=True)


def test_a_visitor_that_is_only_linked_and_a_goal_that_is_gone_count(store, clock):
    with store.write() as conn:
        told = {"first_at_ms": 1, "first_event": "a", "last_at_ms": 1, "last_event": "a"}
        conn.execute(insert(schema.link_visitors).values(key="k", visitor="v", sure=True, **told))
        conn.execute(insert(schema.destinations).values(name="default", last_success_at_ms=clock.now_ms))
    assert read(store, tallies.progress) == Progress(event=False, visitor=True, goal=True)


def test_events_are_counted_in_the_time_they_came_in(store, rows, clock):
    now = clock.now_ms - clock.now_ms % HOUR
    clock.set(now - 1)
    rows.event("last_millisecond")
    clock.set(now)
    rows.event("first_millisecond")
    assert read(store, tallies.events_received, now - HOUR, now) == 1
    assert read(store, tallies.events_received, now, now + HOUR) == 1
    assert read(store, tallies.events_received, now - HOUR, now + 1) == 2


@pytest.mark.parametrize("unlike", [{"test": True}, {"generation": 2}, {"state": "dry"}])
def test_what_a_report_does_not_count_is_not_counted_here(store, rows, clock, unlike):
    rows.goal(**unlike)
    now = clock.now_ms
    assert read(store, tallies.states, now - DAY, now + 1) == {}


def test_goals_are_counted_by_what_became_of_them(store, rows, clock):
    now = clock.now_ms
    rows.goal(state="delivered", created_at_ms=now - DAY)
    rows.goal(state="delivered", created_at_ms=now - DAY)
    rows.goal(state="parked", created_at_ms=now)
    assert read(store, tallies.states, now - DAY, now) == {"delivered": 2}, "the end is not part of it"
    assert read(store, tallies.states, now - DAY + 1, now + 1) == {"parked": 1}


def test_a_queue_tells_what_is_due_from_what_waits_for_its_next_attempt_and_for_an_answer(store, rows, clock):
    for state in ("delivered", "held", "rejected"):
        rows.goal(state=state)
    assert read(store, tallies.queues, ["default", "test"]) == ()
    rows.goal(state="pending")
    rows.goal(state="sending", due_at_ms=clock.now_ms + HOUR)
    rows.goal(state="pending", due_at_ms=clock.now_ms + 1)
    rows.goal(state="unconfirmed", due_at_ms=clock.now_ms + HOUR)
    rows.goal(state="parked", visitor=None)
    rows.goal(state="pending", destination="test")
    assert read(store, tallies.queues, ["default", "test", "none"]) == (
        Queue("default", due=2, later=1, looks=1, parked=1),
        Queue("test", due=1),
    )
