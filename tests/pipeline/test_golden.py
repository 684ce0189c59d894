"""The first law of upgrading: goals, names, once keys and dedupe keys of every fixture event are those of f44b843."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from golden import FILE, Player, events

RECORD = json.loads(gzip.decompress(FILE.read_bytes()))
THEN = {entry["name"]: entry for entry in RECORD["events"]}


@pytest.fixture(scope="module")
def now() -> dict[str, dict[str, Any]]:
    player = Player()
    files = [event for event in events() if event[0] in THEN]
    tests = [
        (entry["name"], entry["source"], entry["body"].encode(), entry["headers"])
        for entry in THEN.values()
        if "body" in entry
    ]
    return {event[0]: player.play(*event) for event in [*files, *tests]}


def test_every_recorded_event_is_played(now):
    assert now.keys() == THEN.keys()
    assert sum(len(entry["goals"]) for entry in THEN.values()) > 150


def test_no_rule_id_or_goal_name_is_gone_and_none_was_switched_on():
    rules = Player().rule_set.rules
    for source, then in RECORD["rules"].items():
        mine = {rule.id: rule for rule in rules[source]}
        for rule_id, name, _ in then:
            assert mine[rule_id].name.text == name, f"{source}: {rule_id}"


@pytest.mark.parametrize("part", ["rule", "name", "once", "metadata", "visitor"])
def test_every_goal_is_the_same(now, part):
    differences = {
        name: (said, got)
        for name in THEN
        if (said := [goal[part] for goal in THEN[name]["goals"]])
        != (got := [goal[part] for goal in now[name]["goals"]])
    }
    assert differences == {}


def test_each_delivery_is_still_known_by_its_former_keys(now):
    """The second law: what the previous release stored and a provider repeats is a duplicate."""
    forgotten = {
        name: THEN[name]["dedupe"]
        for name in THEN
        if not {*now[name]["dedupe"], *now[name]["former"]} & set(THEN[name]["dedupe"])
    }
    assert forgotten == {}
