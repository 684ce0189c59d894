"""Both documented shapes of a visitor's goals, and what is neither."""

from __future__ import annotations

import json

import pytest

from bridge.datafast.answers import completed_goals, moment_ms
from bridge.model import CompletedGoal

AT = "2026-05-01T10:00:00.123Z"
AT_MS = 1_777_629_600_123


def told(activity):
    return completed_goals(json.dumps({"status": "success", "data": {"visitorId": "v", "activity": activity}}).encode())


def test_the_newest_shape_is_read():
    entries = [{"name": "purchase", "description": "stripe evt_1", "timestamp": AT, "origin": "manual"}]
    assert told({"completedGoals": entries}) == (CompletedGoal("purchase", AT_MS, "stripe evt_1"),)


def test_the_older_shape_is_read():
    entries = [
        {"name": "a", "description": "d", "isServer": False, "timestamp": AT},
        {"name": "b", "isServer": True, "timestamp": AT},
    ]
    expected = (CompletedGoal("a", AT_MS, "d", by_server=False), CompletedGoal("b", AT_MS, None, by_server=True))
    assert told({"completedCustomGoals": entries}) == expected


def test_goals_of_a_payment_provider_are_left_out():
    entries = [{"name": "payment", "timestamp": AT, "origin": "payment_provider"}, {"name": "a", "origin": "manual"}]
    assert told({"completedGoals": entries}) == (CompletedGoal("a", None),)


def test_an_empty_newer_list_does_not_hide_the_older_one():
    entries = [{"name": "a", "timestamp": AT}]
    assert told({"completedGoals": [], "completedCustomGoals": entries}) == (CompletedGoal("a", AT_MS),)


def test_no_goal_yet_is_an_empty_list():
    assert told({"completedGoals": []}) == ()


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b'{"data":{}}', b'{"data":{"activity":{}}}', b'{"data":[]}']
)
def test_without_a_list_it_cannot_be_told(body):
    assert completed_goals(body) is None


def test_entries_that_are_none_are_passed_over():
    assert told({"completedGoals": [None, 7, {}, {"name": 3}, {"name": "a", "description": 4, "isServer": "yes"}]}) == (
        CompletedGoal("a", None),
    )


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (AT, AT_MS),
        ("2026-05-01T12:00:00.123+02:00", AT_MS),
        ("2026-05-01T10:00:00.123", AT_MS),
        (AT_MS, AT_MS),
        (str(AT_MS), AT_MS),
        (AT_MS / 1000, AT_MS),
        (1_777_629_600, 1_777_629_600_000),
        ("", None),
        ("yesterday", None),
        (True, None),
        (None, None),
        ([], None),
        ({}, None),
        (float("nan"), None),
        (float("inf"), None),
        (-1, None),
        (10**30, None),
        (10**400, None),
        ("9999999-01-01", None),
    ],
)
def test_a_time_is_read_from_iso_seconds_and_milliseconds(value, ms):
    assert moment_ms(value) == ms
