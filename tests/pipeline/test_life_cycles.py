"""Law 4 over whole lives: in any order, each event one to five times, two workers racing, every goal is the right one's.

Each number plays every life cycle of the simulator once (17 of Stripe in 4 API versions, 6 of Lemon Squeezy, one each of
an own application and of Polar), each life in an order of its own: all of them where a life has at most a thousand, else
random ones. Usually a single event of a thread carries the visitor, in any of the places in which it may stand. The test
suite takes a few numbers; the whole proof, a thousand orders of each life cycle on one database, is

    LIFE_CYCLES=1000 pytest tests/pipeline/test_life_cycles.py -k sqlite       (and -k postgresql)

A failure names the life cycle and its number: `LIFE_CYCLES=118- pytest … -k sqlite` plays number 118 alone again.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from life_cycles import MINUTE, Bridge, expected, lives, schedule

from bridge.store import schema

FEW = {"sqlite": 8, "postgresql": 3}


def numbers(database):
    asked = os.environ.get("LIFE_CYCLES", "")
    if asked.endswith("-"):
        return [int(asked[:-1])]
    return range(int(asked or FEW[database]))


@pytest.mark.parametrize(
    ("database", "number"), [(database, number) for database in FEW for number in numbers(database)]
)
def test_every_order_of_arrival_gives_the_same_goals_with_the_right_visitors(request, clock, database, number):
    store = request.getfixturevalue("sqlite_store" if database == "sqlite" else "postgres_store")
    all_rules = number % 2 == 1
    playing = lives(number, clock.now_ms // 1000)
    goals = {life: expected(life, all_rules=all_rules) for life in playing}
    bridge = Bridge(store, clock, all_rules=all_rules)
    bridge.arrive(schedule(playing, number, slowly=number % 4 >= 2), number)
    assert bridge.faults == []
    assert {event.state for event in bridge.rows(schema.events)} == {"routed"}
    bridge.later(10 * MINUTE)  # the grace is over, the wait is not
    sent = bridge.sent()
    assert [f"{life}: {wanted - sent}" for life, wanted in goals.items() if wanted - sent] == []
    assert sent == set().union(*goals.values())
