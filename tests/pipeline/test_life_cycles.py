"""Law 4 over whole lives: in any order, each event one to five times, two workers racing, each goal finds its visitor.

Each number plays every life cycle of the simulator once (17 of Stripe in 4 API versions, 6 of Lemon Squeezy, one each
of an own application and of Polar), each life in an order of its own: all of them where a life has at most a thousand,
else random ones. Mostly a single event of a thread carries the visitor, in any of the places in which it may stand;
test mode comes in between with the same ids and somebody else's visitor; rounds come seconds or hours apart, and now
and then nobody routes for a while. The test suite takes a few numbers; the whole proof, a thousand orders of each life
cycle on each database, is

    LIFE_CYCLES=1000 python -m pytest tests/pipeline/test_life_cycles.py -n 2

A failure names the life cycle and its number; `LIFE_CYCLES=118-118` plays number 118 again (`40-99` a range).
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from life_cycles import MINUTE, Bridge, bridge_settings, expected, lives, schedule

from bridge import store as bridge_store
from bridge.store import schema

FEW = {"sqlite": 5, "postgresql": 2}


def numbers(database):
    first, dash, last = os.environ.get("LIFE_CYCLES", f"{FEW[database]}").partition("-")
    return range(int(first), int(last) + 1) if dash else range(int(first))


def chosen(database):
    """The first number is played by `make test` already, on SQLite."""
    for number in numbers(database):
        yield pytest.param(database, number, marks=[] if (database, number) == ("sqlite", 0) else pytest.mark.long)


@pytest.mark.long
@pytest.mark.parametrize(("database", "number"), [each for database in FEW for each in chosen(database)])
def test_every_order_of_arrival_gives_the_same_goals_with_the_right_visitors(request, clock, database, number):
    store = request.getfixturevalue("sqlite_store" if database == "sqlite" else "postgres_store")
    all_rules = number % 2 == 1
    playing = lives(number, clock.now_ms // 1000)
    wanted = {life: expected(life, all_rules=all_rules) for life in playing}
    bridge = Bridge(store, clock, all_rules=all_rules)
    bridge.arrive(schedule(playing, number, slowly=number % 4 >= 2), number)
    assert bridge.faults == []
    assert {event.state for event in bridge.rows(schema.events)} == {"routed"}
    bridge.later(10 * MINUTE)  # the grace is over, the wait is not
    sent = bridge.sent()
    assert [f"{life} misses {missed}" for life, goals in wanted.items() if (missed := goals - sent)] == []
    assert sent == set().union(*wanted.values())
    assert {(goal.visitor is None, goal.state) for goal in bridge.goals()} <= {(False, "pending"), (True, "parked")}
    rehearsed = bridge.goals(test=True)
    assert {goal.state for goal in rehearsed} <= {"dry"}
    assert {goal.visitor for goal in rehearsed}.isdisjoint({visitor for _, _, _, visitor in sent if visitor})
    bridge.later(bridge_settings().bridge_park)
    assert {(goal.visitor is None, goal.state) for goal in bridge.goals()} <= {
        (False, "pending"),
        (True, "unattributed"),
    }


@pytest.mark.long
def test_in_the_order_in_which_they_happened_the_events_give_what_the_scenarios_promise(clock):
    store = bridge_store.open("sqlite://", clock=clock)
    with store.write() as conn:
        schema.metadata.create_all(conn)
    playing = [life for number in (0, 2) for life in lives(number, clock.now_ms // 1000)]
    bridge = Bridge(store, clock)
    bridge.in_order([event for life in playing for event in life.live])
    bridge.later(10 * MINUTE)
    sent = bridge.sent()
    store.close()
    assert sent == set().union(*map(expected, playing))
    told = [life for life in playing if life.as_told]
    promised = Counter((goal.name, goal.visitor) for life in told for step in life.steps for goal in step.goals)
    assert Counter((name, visitor) for life in told for _, name, _, visitor in expected(life)) == promised
    assert len(told) > 20


@pytest.mark.long
def test_wherever_a_single_event_carries_the_visitor_every_goal_that_leads_there_is_found(clock):
    """The oracle is none that expects too little: nearly every goal has a visitor, whichever event carried it."""
    playing = [life for number in (0, 1) for life in lives(number, clock.now_ms // 1000) if not life.as_told]
    goals = [goal for life in playing for goal in expected(life)]
    lost = [goal for goal in goals if goal[3] is None]
    assert len(goals) > 150
    assert {name for _, name, _, _ in lost} <= {"dispute"}  # it names its charge alone, and no customer
    assert len(lost) < len(goals) / 40


@pytest.mark.parametrize(
    "number", [pytest.param(number, marks=pytest.mark.long if number else []) for number in numbers("postgresql")]
)
def test_three_workers_that_take_single_events_of_the_same_lives_never_miss_each_other(store, clock, number):
    playing = [life for life in lives(number, clock.now_ms // 1000) if len(life.steps) < 12][number % 4 :: 4]
    bridge = Bridge(store, clock)
    bridge.race([event for life in playing for event in life.arriving], f"race:{number}", workers=3)
    assert bridge.faults == []
    bridge.later(10 * MINUTE)
    assert bridge.sent() == set().union(*map(expected, playing))
