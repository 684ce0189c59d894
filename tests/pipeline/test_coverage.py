"""`coverage`: event types that no rule uses, and rules that made no goal; on both databases."""

from __future__ import annotations

import json

import pytest
from identity_kit import ALICE, DAY, SECRETS, Rig, rule_set, stripe_event
from sqlalchemy import update
from statements_kit import overheard

from bridge.cli import main
from bridge.store import schema
from bridge.workbench.coverage import coverage

RULES = """
provider: stripe
goals:
  - {goal: bought, event: checkout.session.completed, once_per: data.object.id}
  - {goal: large, event: checkout.session.completed, when: {data.object.amount_total: {gt: 10000}}}
  - {goal: disputed, event: "charge.dispute.*"}
  - {goal: priced, event: price.created, enabled: false}
"""


def checkout(name):
    thing = {"object": "checkout.session", "id": name, "amount_total": 4900, "metadata": {"datafast_visitor_id": ALICE}}
    return stripe_event("checkout.session.completed", thing)


def of(kind):
    return stripe_event(kind, {"object": kind.split(".")[0], "id": "x_1"})


@pytest.fixture
def rig(store, clock):
    made = Rig(store, clock, {"stripe.yaml": RULES})
    made.route(checkout("cs_1"), checkout("cs_2"), of("price.created"), of("price.created"), of("plan.created"))
    return made


def test_types_that_no_rule_uses_are_told_with_how_many_came(rig):
    found = coverage(rig.store, rig.rules, 0)
    assert [(one.source, one.type, one.events, one.off) for one in found.unused] == [
        ("stripe", "price.created", 2, ("priced",)),
        ("stripe", "plan.created", 1, ()),
    ]
    assert (found.events, len(found.types)) == (5, 3)


def test_rules_that_made_no_goal_are_told_with_the_reason(rig):
    found = coverage(rig.store, rig.rules, 0)
    assert [(one.rule, one.events) for one in found.idle] == [("large", 2), ("disputed", 0)]
    large, disputed = found.idle
    assert (large.trace["result"], large.trace["path"], large.event_id) == ("condition", "data.object.amount_total", 2)
    assert disputed.trace is None
    by_rule = {one.rule: one for one in found.rules}
    assert (by_rule["bought"].goals, by_rule["priced"].enabled) == (2, False)


def test_a_rule_whose_goals_another_event_had_made_says_so(store, clock):
    twice = RULES + "  - {goal: bought, id: again, event: checkout.session.expired, once_per: data.object.id}\n"
    rig = Rig(store, clock, {"stripe.yaml": twice})
    rig.route(checkout("cs_1"), stripe_event("checkout.session.expired", {"object": "checkout.session", "id": "cs_1"}))
    (again,) = (one for one in coverage(rig.store, rig.rules, 0).idle if one.rule == "again")
    assert again.why == "ev_2: matched, but the goal bought had been made before"


def test_a_rule_that_came_after_its_events_says_so(rig):
    newer = rule_set(
        {"stripe.yaml": RULES + "  - {goal: planned, event: [plan.created, plan.deleted, plan.updated]}\n"}
    )
    (planned,) = (one for one in coverage(rig.store, newer, 0).idle if one.rule == "planned")
    assert planned.why == "ev_5: routed before this rule was in force, or its trace is no longer stored"
    (missed,) = (one for one in coverage(rig.store, newer, 4_000_000_000_000).idle if one.rule == "planned")
    assert missed.why == "no plan.created, plan.deleted or plan.updated arrived"


def test_only_the_time_span_counts(rig, clock):
    clock.advance(DAY)
    found = coverage(rig.store, rig.rules, clock.now_ms - 1_000)
    assert (found.events, found.unused) == (0, ())
    assert [one.rule for one in found.idle] == ["bought", "large", "disputed"]


def test_a_source_without_a_file_is_used_by_no_rule(rig):
    found = coverage(rig.store, rule_set({"shop.yaml": RULES}), 0)
    assert {one.known for one in found.unused} == {False}
    assert len(found.unused) == 3


def test_a_trace_that_retention_took_is_no_reason(rig):
    with rig.store.write() as conn:
        conn.execute(update(schema.events).values(trace=None))
    assert coverage(rig.store, rig.rules, 0).idle[0].trace is None


def test_many_rules_without_goals_take_as_many_statements_as_one(rig):
    def said_of(*kinds):
        rig.route(*map(of, kinds))
        rules = "".join(f"  - {{goal: g{n}, event: {kind}, once_per: data.none}}\n" for n, kind in enumerate(kinds))
        with overheard(rig.store) as said:
            found = coverage(rig.store, rule_set({"stripe.yaml": RULES + rules}), 0)
        assert len({one.event_id for one in found.idle} - {None}) == 1 + len(kinds)
        return len(said)

    assert said_of("plan.deleted") == said_of(*(f"product.{what}" for what in ("created", "updated", "deleted")))


@pytest.fixture
def command(sqlite_store, clock, sqlite_url, tmp_path, monkeypatch, capfd):
    rig = Rig(sqlite_store, clock, {"stripe.yaml": RULES})
    rig.route(checkout("cs_1"), of("price.created"), of("plan.created"))
    with rig.store.write() as conn:  # the command's clock is the machine's
        conn.execute(update(schema.goals).values(created_at_ms=4_000_000_000_000))
        conn.execute(update(schema.events).values(received_at_ms=4_000_000_000_000))
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings/stripe.yaml").write_text(RULES)
    for name, value in {**SECRETS, "DATABASE_URL": sqlite_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(["coverage", *words])
        out, err = capfd.readouterr()
        assert (code, err) == (0, "")
        return out

    return run


def test_the_answer_says_first_how_much_is_unused(command):
    lines = command().splitlines()
    assert lines[0] == "3 events of 3 types in the last 30 days: no rule uses 2 types; 2 of 3 rules made no goal."
    assert any(line.split()[:3] == ["stripe", "plan.created", "1"] for line in lines)
    assert any(line.endswith("switched off: priced") for line in lines)
    assert "stripe  disputed  0       no charge.dispute.* arrived" in lines
    assert "stripe  large     1       ev_1: no: data.object.amount_total is 4900, expected gt 10000" in lines


def test_as_json_both_lists_stand_beside_the_whole(command):
    told = json.loads(command("--json"))
    assert [(one["type"], one["events"]) for one in told["unused_types"]] == [("plan.created", 1), ("price.created", 1)]
    assert [one["rule"] for one in told["never_fired"]] == ["large", "disputed"]
    assert (told["events"], len(told["types"]), len(told["rules"])) == (3, 3, 4)
