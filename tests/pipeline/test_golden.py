"""The first law of upgrading: goals, names, once keys and dedupe keys of every fixture event are those of f44b843."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
from golden import FILE, Player, events

from bridge.model import Ack, Envelope, NewEvent
from bridge.store.inbox import Inbox

RECORD = json.loads(gzip.decompress(FILE.read_bytes()))
NEW = NewEvent("", "", Envelope(""), ("",), {}, {}, b"{}")
THEN = {entry["name"]: entry for entry in RECORD["events"]}


def deliveries():
    """Each recorded event as its provider would send it again: (name, source, body, headers)."""
    yield from (event for event in events() if event[0] in THEN)
    for entry in THEN.values():
        if "body" in entry:
            yield entry["name"], entry["source"], entry["body"].encode(), entry["headers"]


@pytest.fixture(scope="module")
def now() -> dict[str, dict[str, Any]]:
    player = Player()
    return {event[0]: player.play(*event) for event in deliveries()}


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


def test_what_the_previous_release_stored_and_a_provider_repeats_is_a_duplicate(store):
    """The second law, on both databases: the rows are those of f44b843, with its keys and its reading of the type."""
    then = [
        replace(NEW, source=entry["source"], envelope=Envelope(entry["type"]), dedupe_keys=tuple(entry["dedupe"]))
        for entry in THEN.values()
    ]
    box = Inbox(store)
    for event in then:
        box.put(event)
    player = Player()
    answers = {name: box.put(player.read(source, body, headers)) for name, source, body, headers in deliveries()}
    box.close()
    assert {name for name, answer in answers.items() if answer is not Ack.DUPLICATE} == set()
    assert len(answers) == len(THEN)
