"""What people see, and what they may do to a goal."""

from __future__ import annotations

import threading

import pytest

from bridge.store import schema
from bridge.store.operator import actions, queries
from bridge.store.operator.actions import CancelResult, RetryResult
from bridge.store.operator.queries import EventFilter, GoalFilter, Matches

DAY = 86_400_000


def listed(store, **wanted):
    with store.read() as conn:
        return [line.provider_event_id for line in queries.list_events(conn, EventFilter(**wanted))]


def goals_listed(store, **wanted):
    with store.read() as conn:
        return [line.id for line in queries.list_goals(conn, GoalFilter(**wanted))]


def retry(store, goal_id, **kw):
    with store.write() as conn:
        return actions.retry(conn, goal_id, **kw)


def test_events_are_listed_newest_first_in_pages_and_by_what_they_are(store, rows, clock):
    rows.routed("evt_1", verdict="unmatched")
    rows.event("evt_2", source="polar", type_="order.paid", test=True)
    clock.advance(1_000)
    rows.event("evt_3", quarantine="no JSON")
    assert listed(store) == ["evt_3", "evt_2", "evt_1"]
    assert listed(store, limit=2) == ["evt_3", "evt_2"]
    assert listed(store, limit=2, before=2) == ["evt_1"]
    assert listed(store, state="quarantined") == ["evt_3"]
    assert listed(store, verdict="unmatched") == ["evt_1"]
    assert listed(store, source="polar") == listed(store, type="order.paid") == listed(store, test=True) == ["evt_2"]
    assert listed(store, since_ms=clock.now_ms) == ["evt_3"]


def test_a_listed_event_shows_its_goals(store, rows):
    event = rows.routed()
    goal = rows.goal(event, name="purchase", state="delivered")
    rows.event("evt_2")
    with store.read() as conn:
        second, first = queries.list_events(conn, EventFilter())
    assert (second.goals, first.label) == ((), f"ev_{event}")
    assert [(line.label, line.name, line.state) for line in first.goals] == [(f"goal_{goal}", "purchase", "delivered")]


def test_goals_are_listed_by_what_they_are(store, rows, clock):
    event = rows.routed()
    first = rows.goal(event, visitor="v1")
    clock.advance(1_000)
    second = rows.goal(event, state="rejected", destination="other", name="refund", visitor="v2", source="polar")
    assert goals_listed(store) == [second, first]
    assert goals_listed(store, limit=1) == [second]
    assert goals_listed(store, before=second) == [first]
    assert goals_listed(store, event_id=event, test=False) == [second, first]
    for wanted in ({"state": "rejected"}, {"destination": "other"}, {"name": "refund"}, {"visitor": "v2"},
                   {"source": "polar"}, {"since_ms": clock.now_ms}):  # fmt: skip
        assert goals_listed(store, **wanted) == [second]


def test_one_event_is_shown_with_body_trace_and_goals(store, rows):
    event = rows.routed(body=b"raw")
    goal = rows.goal(event)
    with store.read() as conn:
        shown = queries.show_event(conn, event)
        assert queries.show_event(conn, 4711) is None
    assert (shown.event.body, shown.trace, shown.rules_hash) == (b"raw", {"rules": []}, "h")
    assert [line.id for line in shown.line.goals] == [goal]


def test_one_goal_is_shown_with_its_event_and_attempts(store, rows):
    goal = rows.goal(provenance='{"path": "p"}')
    rows.attempt(goal, "not_sent", message="refused")
    rows.attempt(goal, "delivered", status=200)
    with store.read() as conn:
        shown = queries.show_goal(conn, goal)
        assert queries.show_goal(conn, 4711) is None
    assert (shown.goal.metadata, shown.goal.provenance) == ({"a": "1"}, {"path": "p"})
    assert [(line.outcome, line.status, line.message) for line in shown.attempts] == [
        ("not_sent", None, "refused"),
        ("delivered", 200, None),
    ]
    assert shown.event.id == shown.goal.event_id


def test_events_and_goals_are_found_by_any_id_that_people_hold(store, rows):
    event = rows.routed("evt_1")
    goal = rows.goal(event, visitor="v1")

    def find(text):
        with store.read() as conn:
            return queries.find(conn, text)

    assert find(f"ev_{event}") == find("evt_1") == Matches(events=(event,))
    assert find(f"goal_{goal}") == find("v1") == Matches(goals=(goal,))
    for nothing in ("ev_4711", "goal_4711", "ev_", "", "ev_99999999999999999999", "nobody"):
        assert find(nothing) == Matches()


# ------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize("state", ["rejected", "expired", "held", "cancelled"])
def test_what_was_not_delivered_goes_out_as_the_same_goal_with_its_age_counted_anew(store, rows, clock, state):
    goal = rows.goal(state=state, attempts=9, first_try_at_ms=1, unknown_visitor_tries=4, reason="r", due_at_ms=5)
    clock.advance(30 * DAY)
    assert retry(store, goal) == (RetryResult.QUEUED, goal)
    row = rows.one(schema.goals, goal)
    assert (row.state, row.due_at_ms, row.attempts, row.first_try_at_ms) == ("pending", clock.now_ms, 0, None)
    assert row.expires_at_ms == clock.now_ms + 7 * DAY
    assert retry(store, goal) == (RetryResult.QUEUED, goal)
    assert rows.count(schema.goals) == 1


def test_a_goal_that_waits_for_a_later_try_is_due_now(store, rows, clock):
    goal = rows.goal(due_at_ms=clock.now_ms + 1_000, attempts=3)
    assert retry(store, goal) == (RetryResult.QUEUED, goal)
    row = rows.one(schema.goals, goal)
    assert (row.due_at_ms, row.attempts) == (clock.now_ms, 3)


def test_sending_a_delivered_goal_again_has_to_be_confirmed_and_makes_a_new_generation(store, rows, clock):
    goal = rows.goal(state="delivered", once_key="stripe:live:purchase:1", delivered_at_ms=1, datafast_event_id="x")
    assert retry(store, goal) == (RetryResult.DELIVERED, goal)
    assert rows.count(schema.goals) == 1
    made, second = retry(store, goal, again=True)
    assert made is RetryResult.AGAIN
    row = rows.one(schema.goals, second)
    assert (row.once_key, row.generation, row.state) == ("stripe:live:purchase:1#2", 2, "pending")
    assert (row.delivered_at_ms, row.datafast_event_id, row.visitor) == (None, None, "v1")
    assert rows.one(schema.goals, goal).state == "delivered"
    with store.write() as conn:
        conn.execute(schema.goals.update().values(state="delivered"))
    _, third = retry(store, second, again=True)
    assert rows.one(schema.goals, third).once_key == "stripe:live:purchase:1#3"


def test_a_double_click_sends_once(store, rows):
    goal = rows.goal(state="delivered")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(retry(store, goal, again=True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.value for answer, _ in answers) == ["again", "already", "already", "already"]
    assert len({goal_id for _, goal_id in answers}) == 1
    assert rows.count(schema.goals) == 2


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        ("leased", "under_way"),
        ("sending", "under_way"),
        ("unconfirmed", "under_way"),
        ("parked", "waits"),
        ("dry", "dry"),
    ],
)
def test_what_is_on_its_way_waits_or_is_a_test_is_left_alone(store, rows, state, answer):
    goal = rows.goal(state=state)
    before = rows.all(schema.goals)
    assert retry(store, goal, again=True) == (RetryResult(answer), goal)
    assert rows.all(schema.goals) == before


def test_a_goal_without_a_visitor_has_its_event_routed_again(store, rows):
    goal = rows.goal(state="unattributed", visitor=None)
    event = rows.one(schema.goals, goal).event_id
    assert retry(store, goal) == (RetryResult.REROUTED, goal)
    assert rows.one(schema.events, event).state == "received"
    with store.write() as conn:
        conn.execute(schema.events.update().values(body=None, state="routed"))
    assert retry(store, goal) == (RetryResult.NO_VISITOR, goal)
    assert retry(store, 4711) == (RetryResult.UNKNOWN, 4711)


@pytest.mark.parametrize(
    ("state", "answer"),
    [("pending", "cancelled"), ("parked", "cancelled"), ("held", "cancelled"), ("leased", "under_way"),
     ("sending", "under_way"), ("unconfirmed", "under_way"), ("delivered", "final"), ("rejected", "final")],
)  # fmt: skip
def test_only_what_is_not_sent_and_not_over_can_be_cancelled(store, rows, state, answer):
    goal = rows.goal(state=state)
    with store.write() as conn:
        assert actions.cancel(conn, goal) is CancelResult(answer)
        assert actions.cancel(conn, 4711) is CancelResult.UNKNOWN
    assert rows.one(schema.goals, goal).state == ("cancelled" if answer == "cancelled" else state)
