"""`follows`: a goal only where another, of the same once value, was made before; by routing, on both databases."""

from __future__ import annotations

import json

import pytest
from identity_kit import ALICE, Rig, stripe_event

from bridge import rules, sources
from bridge.errors import MappingError
from bridge.workbench.trace import rule_sentence

SHIPPED = {"stripe.yaml": (rules.SHIPPED / "stripe.yaml").read_text("utf-8")}
TWO_SITES = {
    "stripe.yaml": """
provider: stripe
goals:
  - {goal: payment_failed, event: invoice.payment_failed, once_per: data.object.id}
  - goal: payment_failed
    id: other
    event: invoice.voided
    once_per: data.object.id
    datafast: {name: shop, api_key: df_shop}
  - {goal: recovered, event: invoice.paid, follows: payment_failed, once_per: data.object.id}
"""
}


def invoice(kind, name="1", **more):
    thing = {
        "object": "invoice",
        "id": f"in_{name}",
        "billing_reason": "subscription_cycle",
        "currency": "usd",
        "amount_due": 4900,
        "amount_paid": 4900 if kind == "invoice.paid" else 0,
        "attempt_count": 1,
        "subscription_details": {"metadata": {"datafast_visitor_id": ALICE}},
    }
    return stripe_event(kind, thing | more)


def failed(name="1", **more):
    return invoice("invoice.payment_failed", name, **more)


def paid(name="1", **more):
    return invoice("invoice.paid", name, **more)


@pytest.fixture
def rig(store, clock):
    return Rig(store, clock, SHIPPED)


def made(rig):
    return [(goal.name, goal.rule_id) for goal in rig.goals()]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_renewal_that_failed_and_was_paid_by_hand_has_recovered(rig, at_once):
    rig.route(failed(), paid(), at_once=at_once)
    assert made(rig) == [
        ("payment_failed", "payment_failed"),
        ("payment_recovered", "payment-recovered-by-hand"),
    ]
    recovered = rig.goals()[1]
    assert json.loads(recovered.metadata)["amount"] == "49.00"
    assert recovered.once_key == "stripe:live:payment_recovered:in_1"


def test_of_a_renewal_that_never_failed_the_trace_says_which_goal_is_not_there(rig):
    event_id = rig.put(paid())
    rig.route_all()
    assert made(rig) == []
    assert rig.event(event_id).verdict == "unmatched"
    (element,) = rig.trace(event_id)["elements"]
    (rule,) = [rule for rule in element["rules"] if rule["rule"] == "payment-recovered-by-hand"]
    assert rule["result"] == "follows"
    assert rule_sentence(rule) == "not by itself: no payment_failed with in_1 was made before"
    assert "goals" not in element


@pytest.mark.parametrize("at_once", [True, False])
def test_the_other_order_recovers_nothing_and_is_the_exception_of_law_4(rig, at_once):
    rig.route(paid(), failed(), at_once=at_once)
    assert made(rig) == [("payment_failed", "payment_failed")]


def test_a_replay_recovers_what_came_too_early(rig):
    early = paid()
    rig.route(early, failed(), at_once=False)
    rig.route(early | {"id": "evt_replayed"})
    assert [name for name, _ in made(rig)] == ["payment_failed", "payment_recovered"]


def test_another_bill_is_not_followed(rig):
    rig.route(failed("1"), paid("2"))
    assert made(rig) == [("payment_failed", "payment_failed")]


def test_live_does_not_follow_what_was_a_test(rig):
    rig.route(failed() | {"livemode": False}, paid())
    assert made(rig) == [("payment_failed", "payment_failed")]
    rig.route(paid() | {"livemode": False})
    assert [name for name, _ in made(rig)] == ["payment_failed", "payment_recovered"]


def test_a_goal_that_another_try_recovered_is_made_once(rig):
    rig.route(failed(), paid(attempt_count=2), paid())
    assert made(rig) == [("payment_failed", "payment_failed"), ("payment_recovered", "payment_recovered")]


def test_a_goal_of_another_website_is_not_followed(store, clock):
    rig = Rig(store, clock, TWO_SITES, destinations=("default", "shop"))
    rig.route(invoice("invoice.voided"), paid())
    assert [goal.destination for goal in rig.goals()] == ["shop"]
    rig.route(failed(), paid())
    assert [goal.name for goal in rig.goals()] == ["payment_failed", "payment_failed", "recovered"]


def test_the_same_event_is_not_before_itself(store, clock):
    files = {"stripe.yaml": TWO_SITES["stripe.yaml"].replace("event: invoice.payment_failed", "event: invoice.paid")}
    rig = Rig(store, clock, files)
    rig.route(paid())
    assert made(rig) == [("payment_failed", "payment_failed")]


def test_a_chain_breaks_where_its_first_link_is_missing(store, clock):
    files = {
        "stripe.yaml": """
provider: stripe
goals:
  - {goal: first, event: a, once_per: data.object.id}
  - {goal: second, event: b, follows: first, once_per: data.object.id}
  - {goal: third, event: c, follows: second, once_per: data.object.id}
"""
    }
    rig = Rig(store, clock, files)
    thing = {"id": "x", "metadata": {"datafast_visitor_id": ALICE}}
    rig.route(stripe_event("b", thing), stripe_event("c", thing), stripe_event("a", thing))
    assert made(rig) == [("first", "first")]
    rig.route(stripe_event("b", thing), stripe_event("c", thing))
    assert [name for name, _ in made(rig)] == ["first", "second", "third"]


def test_a_file_that_follows_nobody_is_refused():
    text_ = "provider: stripe\ngoals:\n  - {goal: a, event: b, once_per: id, follows: payment_fialed}\n"
    with pytest.raises(MappingError) as caught:
        rules.load({"stripe.yaml": text_}, {}, sources.presets())
    (fault,) = caught.value.problems
    assert 'no rule of this file makes the goal "payment_fialed"' in fault
