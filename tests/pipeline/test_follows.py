"""`follows`: a goal only where another, of the same once value, was made before; by routing, on both databases."""

from __future__ import annotations

import json

import pytest
from identity_kit import ALICE, Desk, stripe_event

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
def desk(store, clock):
    return Desk(store, clock, SHIPPED)


def made(desk):
    return [(goal.name, goal.rule_id) for goal in desk.goals()]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_renewal_that_failed_and_was_paid_by_hand_has_recovered(desk, at_once):
    desk.route(failed(), paid(), at_once=at_once)
    assert made(desk) == [
        ("payment_failed", "payment_failed"),
        ("payment_recovered", "payment-recovered-by-hand"),
    ]
    recovered = desk.goals()[1]
    assert json.loads(recovered.metadata)["amount"] == "49.00"
    assert recovered.once_key == "stripe:live:payment_recovered:in_1"


def test_of_a_renewal_that_never_failed_the_trace_says_which_goal_is_not_there(desk):
    event_id = desk.put(paid())
    desk.route_all()
    assert made(desk) == []
    assert desk.event(event_id).verdict == "unmatched"
    (element,) = desk.trace(event_id)["elements"]
    (rule,) = [rule for rule in element["rules"] if rule["rule"] == "payment-recovered-by-hand"]
    assert rule["result"] == "follows"
    assert rule_sentence(rule) == "not by itself: no payment_failed with in_1 was made before"
    assert "goals" not in element


@pytest.mark.parametrize("at_once", [True, False])
def test_the_other_order_recovers_nothing_and_is_the_exception_of_law_4(desk, at_once):
    desk.route(paid(), failed(), at_once=at_once)
    assert made(desk) == [("payment_failed", "payment_failed")]


def test_a_replay_recovers_what_came_too_early(desk):
    early = paid()
    desk.route(early, failed(), at_once=False)
    desk.route(early | {"id": "evt_replayed"})
    assert [name for name, _ in made(desk)] == ["payment_failed", "payment_recovered"]


def test_another_bill_is_not_followed(desk):
    desk.route(failed("1"), paid("2"))
    assert made(desk) == [("payment_failed", "payment_failed")]


def test_live_does_not_follow_what_was_a_test(desk):
    desk.route(failed() | {"livemode": False}, paid())
    assert made(desk) == [("payment_failed", "payment_failed")]
    desk.route(paid() | {"livemode": False})
    assert [name for name, _ in made(desk)] == ["payment_failed", "payment_recovered"]


def test_a_goal_that_another_try_recovered_is_made_once(desk):
    desk.route(failed(), paid(attempt_count=2), paid())
    assert made(desk) == [("payment_failed", "payment_failed"), ("payment_recovered", "payment_recovered")]


def test_a_goal_of_another_website_is_not_followed(store, clock):
    desk = Desk(store, clock, TWO_SITES, destinations=("default", "shop"))
    desk.route(invoice("invoice.voided"), paid())
    assert [goal.destination for goal in desk.goals()] == ["shop"]
    desk.route(failed(), paid())
    assert [goal.name for goal in desk.goals()] == ["payment_failed", "payment_failed", "recovered"]


def test_the_same_event_is_not_before_itself(store, clock):
    files = {"stripe.yaml": TWO_SITES["stripe.yaml"].replace("event: invoice.payment_failed", "event: invoice.paid")}
    desk = Desk(store, clock, files)
    desk.route(paid())
    assert made(desk) == [("payment_failed", "payment_failed")]


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
    desk = Desk(store, clock, files)
    thing = {"id": "x", "metadata": {"datafast_visitor_id": ALICE}}
    desk.route(stripe_event("b", thing), stripe_event("c", thing), stripe_event("a", thing))
    assert made(desk) == [("first", "first")]
    desk.route(stripe_event("b", thing), stripe_event("c", thing))
    assert [name for name, _ in made(desk)] == ["first", "second", "third"]


def test_a_file_that_follows_nobody_is_refused():
    text_ = "provider: stripe\ngoals:\n  - {goal: a, event: b, once_per: id, follows: payment_fialed}\n"
    with pytest.raises(MappingError) as caught:
        rules.load({"stripe.yaml": text_}, {}, sources.presets())
    (fault,) = caught.value.problems
    assert 'no rule of this file makes the goal "payment_fialed"' in fault
