"""Each read-back is recorded as an attempt of its goal, shown and counted, and never taken for a send."""

from __future__ import annotations

import pytest
from website import MINUTE, Sending, visitor

from bridge.model import CompletedGoal, Outcome, OutcomeKind, VisitorGoals
from bridge.store import schema
from bridge.store.operator import forgetting, queries, status
from bridge.store.upkeep import jumps, retention
from bridge.text import when
from bridge.workbench.describe import attempt_sentence

ANN = visitor(1)
LOST = Outcome(OutcomeKind.UNCONFIRMED, message="the connection was closed")
GONE = Outcome(OutcomeKind.REJECTED, 418, "no coffee here")


@pytest.fixture
def sending(store, clock):
    return Sending(store, clock)


@pytest.fixture
def lost(sending):
    """A goal whose answer was lost, just before its first look."""
    sending.website.known.add(ANN)
    sending.website.refusal = LOST
    goal = sending.goal(ANN)
    sending.run_for(20_000)
    assert sending.row(goal).state == "unconfirmed"
    return goal


def attempts_of(sending, goal):
    with sending.store.read() as conn:
        return tuple(queries.attempts_of(conn, [goal]).get(goal, ()))


def counted(sending):
    with sending.store.read() as conn:
        return {labels: count for labels, count in status.totals(conn).attempts.items() if labels[0] == "readback"}


def test_a_look_that_does_not_find_the_goal_says_so_with_its_time(sending, lost):
    sending.run_for(15_000)
    asked_ms = sending.website.said[-1][0]
    sent, look = attempts_of(sending, lost)
    assert (sent.kind, look.kind, look.outcome, look.started_at_ms) == ("send", "readback", "absent", asked_ms)
    assert look.ended_at_ms >= asked_ms
    assert attempt_sentence(look) == f"asked DataFast at {when(asked_ms)[11:19]}: not there yet"
    assert counted(sending) == {("readback", "absent"): 1}


def test_a_look_that_finds_it_and_one_that_cannot_be_read(sending, lost):
    sending.website.failure = GONE
    sending.run_for(15_000)
    sending.website.failure = None
    entry = CompletedGoal("purchase", sending.clock.now_ms - 35_000, description=sending.row(lost).description)
    sending.website.visitor_goals = lambda *_: VisitorGoals(known=True, goals=(entry,))
    sending.run_for(MINUTE + 5_000)
    assert sending.row(lost).state == "delivered"
    _, unread, found = attempts_of(sending, lost)
    assert attempt_sentence(unread).endswith(": could not be read (no coffee here)")
    assert (unread.outcome, unread.status) == ("cannot_tell", 418)
    assert attempt_sentence(found).endswith(": found")
    assert counted(sending) == {("readback", "cannot_tell"): 1, ("readback", "found"): 1}


def test_one_request_is_a_row_of_each_goal_that_it_was_about(sending, lost):
    now = sending.clock.now_ms
    twin = sending.goal(ANN, state="unconfirmed", due_at_ms=now + MINUTE)
    sent = {"goal_id": twin, "kind": "send", "started_at_ms": now, "outcome": "unconfirmed", "lease_token": "t"}
    with sending.store.write() as conn:
        conn.execute(schema.attempts.insert().values(**sent, ended_at_ms=now))
    sending.run_for(15_000)
    assert [kind for _, kind, _ in sending.website.said] == ["POST", "GET"]
    assert [len(attempts_of(sending, goal)) for goal in (lost, twin)] == [2, 2]


def test_a_goal_that_is_sent_again_is_looked_up_by_the_times_of_its_sends_alone(sending, lost):
    sending.run_for(2 * MINUTE)  # absent twice, sent again, lost again
    sending.run_for(5 * MINUTE)
    kinds = [attempt.kind for attempt in attempts_of(sending, lost)]
    assert kinds[:5] == ["send", "readback", "readback", "send", "readback"]
    assert sending.row(lost).state == "unconfirmed"
    before = [attempt for attempt in attempts_of(sending, lost) if attempt.kind == "readback"]
    with sending.store.write() as conn:
        jumps.clock_unknown(conn, 2 * 3_600_000)
    assert [attempt for attempt in attempts_of(sending, lost) if attempt.kind == "readback"] == before


def test_retention_counts_what_it_removes_and_forgetting_takes_the_answers_words(sending, lost):
    sending.website.failure = GONE
    sending.run_for(15_000)
    with sending.store.write() as conn:
        person = forgetting.find_person(conn, visitor=ANN)
        forgetting.remove(conn, person)
    assert [(attempt.kind, attempt.message) for attempt in attempts_of(sending, lost)] == [
        ("send", None),
        ("readback", None),
    ]
    before = counted(sending)
    with sending.store.write() as conn:
        conn.execute(schema.goals.update().values(state="held"))
    sending.clock.advance(401 * 86_400_000)
    retention.purge(sending.store, 30)
    assert attempts_of(sending, lost) == ()
    assert counted(sending) == before == {("readback", "cannot_tell"): 1}


def test_rows_of_another_kind_are_no_goals_of_the_same_name(sending, lost):
    """They are neither sent as goals nor looked up with them."""
    other = sending.goal(visitor(2), kind="later")
    now = sending.clock.now_ms
    doubtful = sending.goal(ANN, kind="later", state="unconfirmed", due_at_ms=now + MINUTE)
    sending.run_for(15_000)
    assert sending.row(other).state == "rejected"
    assert visitor(2) not in sending.website.asked("POST")
    assert [len(attempts_of(sending, goal)) for goal in (lost, doubtful)] == [2, 0]
