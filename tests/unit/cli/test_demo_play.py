"""What the demo plays and what it counts as arrived."""

from __future__ import annotations

from bridge.cli import demo

NOW_S = 1_790_000_000
ACTS = demo.play(7, NOW_S)
WANTED = demo.expected(ACTS)


def record(goal: object, **changes: object) -> dict[str, object]:
    return {"name": goal.name, "visitor": goal.visitor, "metadata": {**goal.metadata, "occurred_at": "x"}} | changes


def test_the_hero_and_its_sale_name_no_visitor_and_belong_to_the_one_of_the_lead() -> None:
    hero = next(act.step for act in ACTS if act.step.type == demo.HERO)
    checkout = demo.checkout([act.step for act in ACTS])
    lead = next(act.step for act in ACTS if act.step.source == "tally")
    assert (hero.visitor, checkout.visitor) == (None, None)
    assert (hero.at_s - lead.at_s) / 86_400 > 10
    assert hero.goals[0].visitor == checkout.goals[0].visitor == lead.visitor


def test_it_shows_five_providers_a_repetition_a_forgery_and_test_mode() -> None:
    assert {act.step.source for act in ACTS} == {"stripe", "lemonsqueezy", "generic", "tally", "calcom", "clerk"}
    assert {act.how for act in ACTS} == {"", demo.REPEATED, demo.FORGED}
    assert [act.step.test for act in ACTS].count(True) == 1
    assert all(step.goals for step, _ in WANTED)


def test_a_repetition_and_a_forgery_promise_no_goal_of_their_own() -> None:
    extra = [act for act in ACTS if act.how]
    assert all(act.step.goals for act in extra)
    assert len(WANTED) == sum(len(act.step.goals) for act in ACTS if not act.how) == 13


def test_nothing_is_missing_when_every_goal_was_recorded_whatever_else_was() -> None:
    records = [record(goal) for _, goal in reversed(WANTED)] + [record(WANTED[0][1], name="another")]
    assert demo.not_arrived(WANTED, records) == []


def test_one_record_answers_for_one_goal_only() -> None:
    records = [record(goal) for _, goal in WANTED]
    twice = [WANTED[0], *WANTED]
    assert demo.not_arrived(twice, records) == [WANTED[0]]


def test_a_record_of_another_visitor_name_or_value_is_not_the_goal() -> None:
    step, goal = WANTED[0]
    for wrong in ({"visitor": "other"}, {"name": "other"}, {"metadata": {}}):
        assert demo.not_arrived([(step, goal)], [record(goal, **wrong)]) == [(step, goal)]
    assert goal.name in demo.sentence(step, goal)
    assert step.id in demo.sentence(step, goal)
