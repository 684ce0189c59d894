"""Of an event without a goal: which rule came nearest, and what kept it from its goal."""

from __future__ import annotations

import pytest
from rules_kit import HEAD, evaluate, load

from bridge import rules
from bridge.model import Document
from bridge.workbench.trace import nearest

THREE = """
  - {goal: free, event: sale, when: {mode: free}}
  - {goal: paid, event: sale, when: {mode: paid, status: done, amount: {gt: 0}}}
  - {goal: large, event: sale, when: {mode: paid, status: done, amount: {gt: 1000}, country: US}}
"""


def near(text, **event):
    return evaluate(HEAD + text, {"type": "sale", **event}).nearest


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"mode": "paid", "status": "open", "amount": 5}, ("paid", 1, 3, "status", "open", "done")),
        ({"mode": "trial", "status": "done", "amount": 5}, ("paid", 1, 3, "mode", "trial", "paid")),
        ({"mode": "trial"}, ("free", 1, 1, "mode", "trial", "free")),
        ({"mode": "paid", "status": "done", "amount": 0, "country": "US"}, ("large", 1, 4, "amount", "0", "gt 1000")),
    ],
)
def test_the_rule_of_which_the_fewest_conditions_fail_is_the_nearest(event, expected):
    found = near(THREE, **event)
    assert (found.trace.rule_id, found.failing, found.conditions, found.trace.path) == expected[:4]
    assert expected[4] in found.trace.actual
    assert expected[5] in found.trace.expected


def test_an_event_that_makes_a_goal_misses_nothing():
    assert near(THREE, mode="free") is None


def test_nobody_has_to_ask_for_it():
    """Routing remembers it; `replay --dry-run` and `backtest` need the goals alone, of many events."""
    found = load(HEAD + THREE)
    event = Document(body={"type": "sale", "mode": "trial"}, envelope={"type": "sale"})

    def looked_for(*, near):
        known = {"event_name": "evt_1", "mode": "live", "hash_key": b"k"}
        return rules.evaluate(found, found.sources["shop"], event, **known, near=near).nearest

    assert looked_for(near=True) is not None
    assert looked_for(near=False) is None


def test_a_rule_for_other_events_is_never_the_nearest():
    assert near("  - {goal: refund, event: refund, when: {mode: free}}\n", mode="paid") is None


def test_that_it_is_switched_off_is_what_a_rule_is_missing():
    off = "  - {goal: sold, event: sale, enabled: false, when: {mode: paid}}\n"
    found = near(off, mode="paid")
    assert (found.trace.rule_id, found.failing, found.trace.path) == ("sold", 1, None)
    assert "switched off" in found.trace.message
    assert near(off, mode="free").failing == 2
    on = "  - {goal: free, event: sale, when: {mode: free}}\n"
    assert near(off + on, mode="paid").trace.rule_id == "free", "of two as near, the one that is switched on"
    assert near(off + on.replace("mode: free", "mode: free, status: done"), mode="paid").trace.rule_id == "sold"


def test_the_conditions_of_the_file_count_too():
    text = HEAD.replace("goals:", "when: {shop: mine}\ngoals:") + "  - {goal: sold, event: sale, when: {mode: paid}}\n"
    found = evaluate(text, {"type": "sale", "mode": "paid", "shop": "theirs"}).nearest
    assert (found.failing, found.conditions, found.trace.path) == (1, 2, "shop")


def test_in_words_it_says_what_was_there_and_what_was_expected():
    found = near(THREE, mode="paid", status="open", amount=5)
    assert nearest({"nearest": found.to_json()}) == ("paid: status is open, expected done; its other conditions hold")
    two = near("  - {goal: large, event: sale, when: {mode: paid, status: done, amount: {gt: 9}}}\n", mode="paid")
    assert nearest({"nearest": two.to_json()}) == (
        "large: status is missing, expected done; 2 of its 3 conditions fail"
    )
    off = "  - {goal: sold, event: sale, enabled: false, when: {mode: paid}}\n"
    said = "sold: the rule is switched off (enabled: false)"
    assert nearest({"nearest": near(off, mode="paid").to_json()}) == said
    assert nearest({"nearest": near(off, mode="free").to_json()}) == f"{said}, and 1 condition fails"
    assert nearest({}) == ""
