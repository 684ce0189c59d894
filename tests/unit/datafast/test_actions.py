"""What the outbox holds is sent by its kind, and a kind that nobody here knows is told to a person."""

from __future__ import annotations

from bridge.datafast.actions import ACTIONS, action_of
from bridge.model import Destination, Goal, OutcomeKind, ReadbackClaim, UnconfirmedGoal, VisitorGoals

HERE = Destination("default", "df_1")


class NoRequest:
    """Any request to it is an error."""


def a_goal(**changes):
    values = {
        "id": 1, "destination": "default", "visitor": "v", "name": "purchase", "description": "d", "metadata": {},
        "once_key": "o", "event_id": 1, "happened_at_ms": 0, "time_is_stated": True, "created_at_ms": 0,
        "expires_at_ms": 1, "attempts": 0,
    }  # fmt: skip
    return Goal(**values | changes)


def test_a_kind_of_a_later_release_is_not_sent_as_something_else():
    outcome = action_of("survey").send(NoRequest(), HERE, a_goal(kind="survey"), 0)
    assert outcome.kind is OutcomeKind.REJECTED
    assert '"survey"' in outcome.message
    assert "goals retry" in outcome.message


def test_nobody_can_tell_whether_an_unknown_kind_arrived():
    look = ReadbackClaim(
        "default", "v", "purchase", "t", (UnconfirmedGoal(a_goal(id=7), 0, 0, ((0, 1),)),), kind="survey"
    )
    settled = action_of("survey").recognize(look, VisitorGoals(known=True))
    assert (dict(settled.delivered), settled.absent, settled.unclear) == ({}, frozenset(), frozenset({7}))


def test_a_row_is_a_goal_unless_it_says_otherwise():
    assert action_of(a_goal().kind) is ACTIONS["goal"]
