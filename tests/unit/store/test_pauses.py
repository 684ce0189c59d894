"""What an answer makes of its destination: the pure table behind the pause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.model import GoalState, Health, Settlement
from bridge.store.delivery.pauses import LAST_STEP_MS, Pause, next_pause

NOW = 1_790_000_000_000


def told(pause, health, *, token="probe", visitor="v", now=NOW, pause_ms=0, message="because"):
    ruling = Settlement(GoalState.PENDING, health, message=message, pause_ms=pause_ms)
    return next_pause(pause, ruling, visitor=visitor, token=token, now=now)


def paused(kind, step_ms=30_000, **more):
    return Pause(kind, "because", NOW - 1, NOW - 60_000, step_ms, probe_token="probe", **more)


def test_four_failures_are_bad_luck_five_are_a_pause_of_five_seconds():
    pause = Pause()
    for _ in range(4):
        pause = told(pause, Health.FAILURE)
        assert pause.kind is None
    pause = told(pause, Health.FAILURE)
    assert (pause.kind, pause.not_before_ms, pause.since_ms) == ("failures", NOW + 5_000, NOW)


@pytest.mark.parametrize("health", [Health.SUCCESS, Health.ANSWERED, Health.UNKNOWN_VISITOR])
def test_an_answer_ends_a_row_of_failures(health):
    assert told(Pause(failures=4), health).failures == 0


def test_a_wrong_key_is_a_pause_at_once():
    pause = told(Pause(), Health.CONFIGURATION)
    assert (pause.kind, pause.not_before_ms, pause.reason) == ("configuration", NOW + 30_000, "because")


def test_each_probe_that_fails_doubles_the_pause_up_to_five_minutes():
    pause = paused("configuration")
    steps = []
    for _ in range(5):
        pause = told(pause, Health.CONFIGURATION)
        steps.append(pause.not_before_ms - NOW)
        pause = Pause(pause.kind, pause.reason, NOW, pause.since_ms, pause.step_ms, probe_token="probe")
    assert steps == [60_000, 120_000, 240_000, LAST_STEP_MS, LAST_STEP_MS]


def test_a_throttled_destination_waits_exactly_until_its_reset():
    assert told(Pause(), Health.THROTTLED, pause_ms=7_000).not_before_ms == NOW + 7_000


@pytest.mark.parametrize("kind", ["failures", "configuration", "throttled"])
@pytest.mark.parametrize("health", [Health.SUCCESS, Health.ANSWERED])
def test_a_probe_that_is_answered_reopens_at_once(kind, health):
    assert told(paused(kind), health) == Pause()


@pytest.mark.parametrize("health", list(Health))
def test_an_answer_that_was_in_flight_when_the_pause_began_changes_nothing(health):
    pause = paused("configuration")
    assert told(pause, health, token="another") == pause


def test_ten_unknown_visitors_are_no_pause_and_only_a_delivered_goal_ends_their_row():
    pause = Pause()
    for n in range(9):
        pause = told(pause, Health.UNKNOWN_VISITOR, visitor=f"v{n}")
    assert pause.unknown_since_ms is None
    pause = told(pause, Health.ANSWERED)
    pause = told(pause, Health.UNKNOWN_VISITOR, visitor="v9")
    assert (pause.kind, pause.not_before_ms, pause.unknown_since_ms) == (None, 0, NOW)
    for health in (Health.ANSWERED, Health.UNKNOWN_VISITOR, Health.FAILURE, Health.THROTTLED, Health.SILENT):
        pause = told(pause, health, visitor="v10", now=NOW + 1)
        assert pause.unknown_since_ms == NOW
        pause = replace(pause, kind=None)
    assert told(pause, Health.SUCCESS) == Pause()


def test_a_success_in_flight_ends_the_row_though_a_pause_has_begun():
    pause = paused("throttled", unknown=("a",), unknown_since_ms=NOW)
    after_success = told(pause, Health.SUCCESS, token="another")
    assert (after_success.unknown, after_success.unknown_since_ms, after_success.kind) == ((), None, "throttled")


def test_a_pause_that_the_previous_release_began_for_unknown_visitors_ends_with_its_first_probe():
    old = paused("unknown_visitors", unknown=tuple("abcdefghij"))
    then = told(old, Health.UNKNOWN_VISITOR, visitor="v11")
    assert (then.kind, then.unknown_since_ms) == (None, NOW)


def test_the_same_unknown_visitor_counts_once():
    pause = Pause()
    for _ in range(20):
        pause = told(pause, Health.UNKNOWN_VISITOR, visitor="one")
    assert (len(pause.unknown), pause.unknown_since_ms) == (1, None)


def test_a_probe_that_says_nothing_lets_the_next_one_go_at_once():
    pause = told(Pause("failures", "because", NOW + 60_000, NOW, 5_000, probe_token="probe"), Health.SILENT)
    assert (pause.kind, pause.not_before_ms, pause.probe_token) == ("failures", NOW, None)
