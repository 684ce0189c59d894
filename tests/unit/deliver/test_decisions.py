"""The table of answers: what becomes of a goal, and what a read-back decides. Pure, row by row."""

from __future__ import annotations

import pytest

from bridge import settings
from bridge.datafast.goal import metadata_to_send
from bridge.deliver import HOUR_MS, decide, decide_proof, decide_readback
from bridge.model import (
    Claim,
    CompletedGoal,
    DeliveredGoal,
    Goal,
    GoalState,
    Health,
    Outcome,
    OutcomeKind,
    ReadbackClaim,
    UnconfirmedGoal,
    VisitorGoals,
)

SETTINGS = settings.load({})
HOLD = settings.load({"BRIDGE_UNCONFIRMED": "hold"})
NOW = 1_790_000_000_000
VISITOR = "00000000-0000-4000-8000-000000000001"
EVEN = 0.5  # the jitter that changes nothing


def a_goal(**more):
    values = {
        "id": 1, "destination": "default", "visitor": VISITOR, "name": "purchase", "description": "stripe evt_1",
        "metadata": {"amount": "49.00"}, "once_key": "k", "event_id": 1, "happened_at_ms": NOW, "time_is_stated": True,
        "created_at_ms": NOW, "expires_at_ms": NOW + 7 * 24 * HOUR_MS, "attempts": 0,
    }  # fmt: skip
    return Goal(**values | more)


def a_claim(*, probe=False, paused_ms=0, at=NOW, **goal):
    return Claim(a_goal(**goal), "token", at, 1, paused_ms, probe)


def ruled(kind, claim=None, jitter=EVEN, **outcome):
    return decide(Outcome(kind, **outcome), claim or a_claim(), SETTINGS, jitter=jitter)


@pytest.mark.parametrize(
    ("kind", "state", "health", "counts"),
    [
        (OutcomeKind.DELIVERED, GoalState.DELIVERED, Health.SUCCESS, False),
        (OutcomeKind.REJECTED, GoalState.REJECTED, Health.ANSWERED, False),
        (OutcomeKind.CONFIGURATION, GoalState.PENDING, Health.CONFIGURATION, False),
        (OutcomeKind.THROTTLED, GoalState.PENDING, Health.THROTTLED, False),
        (OutcomeKind.UNKNOWN_VISITOR, GoalState.PENDING, Health.UNKNOWN_VISITOR, False),
        (OutcomeKind.NOT_SENT, GoalState.PENDING, Health.FAILURE, True),
        (OutcomeKind.REFUSED_FOR_NOW, GoalState.PENDING, Health.FAILURE, True),
        (OutcomeKind.UNCONFIRMED, GoalState.UNCONFIRMED, Health.FAILURE, True),
    ],
)
def test_each_class_of_answer_has_its_state_its_word_about_the_destination_and_its_price(kind, state, health, counts):
    ruling = ruled(kind)
    assert (ruling.state, ruling.health, ruling.counts) == (state, health, counts)


def test_the_back_off_is_the_schedule_that_a_user_reads():
    pauses = [ruled(OutcomeKind.NOT_SENT, a_claim(attempts=tried)).due_in_ms // 1000 for tried in range(11)]
    assert pauses == [5, 30, 120, 600, 1800, 3600, 7200, 14400, 21600, 21600, 21600]


def test_jitter_spreads_a_pause_over_a_fifth_to_both_sides():
    assert ruled(OutcomeKind.NOT_SENT, jitter=0.0).due_in_ms == 4_000
    assert ruled(OutcomeKind.NOT_SENT, jitter=0.999).due_in_ms == pytest.approx(6_000, abs=5)


def test_three_days_after_the_first_try_a_goal_expires_but_a_paused_destination_stops_the_clock():
    late = a_claim(attempts=20, first_try_at_ms=NOW - 70 * HOUR_MS)
    assert ruled(OutcomeKind.NOT_SENT, late).state is GoalState.EXPIRED
    paused = a_claim(attempts=20, first_try_at_ms=NOW - 70 * HOUR_MS, paused_ms=10 * HOUR_MS)
    assert ruled(OutcomeKind.NOT_SENT, paused).state is GoalState.PENDING


def test_a_goal_expires_when_its_next_try_would_come_after_the_schedules_end():
    end_ms = SETTINGS.bridge_retry_schedule.total_ms
    last = a_claim(first_try_at_ms=NOW - end_ms + 5_000)
    assert ruled(OutcomeKind.NOT_SENT, last).state is GoalState.PENDING
    over = a_claim(first_try_at_ms=NOW - end_ms + 4_999)
    ruling = ruled(OutcomeKind.NOT_SENT, over, message="refused")
    assert (ruling.state, ruling.reason, ruling.counts) == (GoalState.EXPIRED, "retries_over", True)
    assert ruling.message.endswith("refused")


def test_a_probe_that_fails_spends_nothing_and_goes_to_the_end_of_the_queue():
    ruling = ruled(OutcomeKind.NOT_SENT, a_claim(probe=True))
    assert (ruling.counts, ruling.due_in_ms, ruling.state) == (False, 0, GoalState.PENDING)


def test_an_unknown_visitor_is_tried_four_times_more_then_rejected_with_a_question():
    tries = [ruled(OutcomeKind.UNKNOWN_VISITOR, a_claim(unknown_visitor_tries=n)) for n in range(5)]
    assert [ruling.due_in_ms // 1000 for ruling in tries[:4]] == [30, 120, 600, 3600]
    assert tries[4].state is GoalState.REJECTED
    assert {(ruling.health, ruling.unknown_visitor) for ruling in tries} == {(Health.UNKNOWN_VISITOR, True)}
    assert tries[4].reason == "unknown_visitor"
    assert "is it your own user id?" in tries[4].message


def test_a_throttled_destination_waits_as_long_as_it_says_else_a_minute():
    assert ruled(OutcomeKind.THROTTLED, retry_after_ms=7_000).pause_ms == 7_000
    assert ruled(OutcomeKind.THROTTLED).pause_ms == 60_000


@pytest.mark.parametrize(
    ("known", "failure", "told"),
    [
        (True, None, True),
        (False, None, False),
        (False, OutcomeKind.REJECTED, False),
        (False, OutcomeKind.NOT_SENT, None),
        (False, OutcomeKind.CONFIGURATION, None),
    ],
)
def test_a_visitor_is_known_or_not_or_the_answer_does_not_tell(known, failure, told):
    answer = VisitorGoals(known=known, failure=failure and Outcome(failure, message="because"))
    assert decide_proof(answer) is told


# ------------------------------------------------------------------------------------------------- the read-back


def a_readback(*goals, owned=()):
    return ReadbackClaim("default", VISITOR, "purchase", "token", goals, owned)


def doubt(goal_id=1, looks=0, absent=0, description="stripe evt_1", *, restored=False):
    goal = a_goal(id=goal_id, description=description)
    return UnconfirmedGoal(goal, looks, absent, ((NOW, NOW + 1_000),), restored)


def entry(description="stripe evt_1", at=NOW + 500):
    return CompletedGoal("purchase", at, description)


def states(look, answer, chosen=SETTINGS):
    rulings, _ = decide_readback(look, answer, chosen)
    return [ruling.settlement.state for ruling in rulings]


def test_what_the_read_back_finds_is_delivered():
    assert states(a_readback(doubt()), VisitorGoals(known=True, goals=(entry(),))) == [GoalState.DELIVERED]


def test_absent_once_waits_a_minute_absent_twice_is_sent_again():
    rulings, _ = decide_readback(a_readback(doubt()), VisitorGoals(known=True), SETTINGS)
    assert (rulings[0].settlement.state, rulings[0].settlement.due_in_ms) == (GoalState.UNCONFIRMED, 60_000)
    assert rulings[0].absent
    assert states(a_readback(doubt(absent=1)), VisitorGoals(known=True)) == [GoalState.PENDING]


def test_a_visitor_who_is_not_known_has_no_goals():
    assert states(a_readback(doubt(absent=1)), VisitorGoals(known=False)) == [GoalState.PENDING]


def test_an_entry_that_the_ledger_owns_is_nobody_elses():
    owned = DeliveredGoal("stripe evt_1", None, ((NOW, NOW + 1_000),))
    look = a_readback(doubt(absent=1, description="other"), owned=(owned,))
    assert states(look, VisitorGoals(known=True, goals=(CompletedGoal("purchase", NOW + 500),))) == [GoalState.PENDING]


@pytest.mark.parametrize(("chosen", "end"), [(SETTINGS, GoalState.PENDING), (HOLD, GoalState.HELD)])
def test_three_looks_that_cannot_tell_end_the_doubt_by_the_setting(chosen, end):
    blind = VisitorGoals(known=True, failure=Outcome(OutcomeKind.CONFIGURATION, 403, "no analytics:read"))
    assert states(a_readback(doubt(looks=1)), blind, chosen) == [GoalState.UNCONFIRMED]
    assert states(a_readback(doubt(looks=2)), blind, chosen) == [end]


def test_after_a_restore_a_person_decides_whatever_the_setting_says():
    blind = VisitorGoals(known=True, failure=Outcome(OutcomeKind.CONFIGURATION, 403, "no analytics:read"))
    first, last = (
        decide_readback(a_readback(doubt(looks=looks, restored=True)), blind, SETTINGS)[0][0] for looks in (1, 2)
    )
    assert (first.settlement.state, first.settlement.reason) == (GoalState.UNCONFIRMED, "restored")
    assert (last.settlement.state, last.settlement.reason) == (GoalState.HELD, "cannot_tell")
    assert last.settlement.message.startswith("a backup was restored, and")
    assert (first.looked, last.looked) == (True, True)


def test_the_second_look_after_one_that_could_not_tell_comes_a_minute_later():
    blind = VisitorGoals(known=True, failure=Outcome(OutcomeKind.CONFIGURATION, 403, "no analytics:read"))
    (ruling,), _ = decide_readback(a_readback(doubt()), blind, SETTINGS)
    assert (ruling.settlement.due_in_ms, ruling.settlement.reason) == (60_000, "answer_lost")
    assert ruling.settlement.message.endswith("no analytics:read")


@pytest.mark.parametrize("kind", [OutcomeKind.NOT_SENT, OutcomeKind.THROTTLED, OutcomeKind.REFUSED_FOR_NOW])
def test_a_look_that_never_got_through_ends_no_doubt(kind):
    away = VisitorGoals(known=False, failure=Outcome(kind, message="because"))
    assert states(a_readback(doubt(looks=2)), away) == [GoalState.UNCONFIRMED]


@pytest.mark.parametrize(
    ("kind", "health"),
    [
        (OutcomeKind.NOT_SENT, Health.FAILURE),
        (OutcomeKind.REFUSED_FOR_NOW, Health.FAILURE),
        (OutcomeKind.UNCONFIRMED, Health.FAILURE),
        (OutcomeKind.THROTTLED, Health.THROTTLED),
        (OutcomeKind.CONFIGURATION, Health.SILENT),
    ],
)
def test_what_a_failed_look_says_about_the_destination(kind, health):
    _, told = decide_readback(
        a_readback(doubt()), VisitorGoals(known=False, failure=Outcome(kind, message="because")), SETTINGS
    )
    assert (told.health, told.message) == (health, "because")


def test_a_throttled_look_waits_as_long_as_it_is_told_else_a_minute():
    for retry_after_ms, pause_ms in ((7_000, 7_000), (None, 60_000)):
        failure = Outcome(OutcomeKind.THROTTLED, 429, retry_after_ms=retry_after_ms)
        _, told = decide_readback(a_readback(doubt()), VisitorGoals(known=False, failure=failure), SETTINGS)
        assert told.pause_ms == pause_ms


def test_an_entry_without_a_time_and_a_description_cannot_tell():
    (ruling,), _ = decide_readback(
        a_readback(doubt()), VisitorGoals(known=True, goals=(CompletedGoal("purchase", None),)), SETTINGS
    )
    assert (ruling.settlement.state, ruling.looked, ruling.absent) == (GoalState.UNCONFIRMED, True, False)


def test_a_look_that_never_got_through_is_no_look():
    away = VisitorGoals(known=False, failure=Outcome(OutcomeKind.NOT_SENT, message="connection refused"))
    rulings, health = decide_readback(a_readback(doubt(looks=2)), away, SETTINGS)
    assert (rulings[0].settlement.state, rulings[0].looked) == (GoalState.UNCONFIRMED, False)
    assert health.health is Health.FAILURE


def test_a_key_that_may_not_read_says_nothing_about_sending():
    blind = VisitorGoals(known=True, failure=Outcome(OutcomeKind.CONFIGURATION, 403, "no analytics:read"))
    assert decide_readback(a_readback(doubt()), blind, SETTINGS)[1].health is Health.SILENT


# --------------------------------------------------------------------------------------------------- occurred_at


def test_a_goal_an_hour_late_says_when_it_happened_if_a_place_is_free():
    assert metadata_to_send(a_goal(), NOW + HOUR_MS) == {"amount": "49.00"}
    late = metadata_to_send(a_goal(), NOW + HOUR_MS + 1)
    assert late == {"amount": "49.00", "occurred_at": "2026-09-21T14:13:20Z"}
    full = {f"k{n}": "v" for n in range(10)}
    assert metadata_to_send(a_goal(metadata=full), NOW + 2 * HOUR_MS) == full
