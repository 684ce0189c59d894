"""Who a purchase belongs to: the customer that it was seen with answers for it, and one customer's key never stops."""

from __future__ import annotations

import itertools
import json

import pytest
from identity_kit import ALICE, BOB, CAROL, MINUTE, Rig, stripe_event

from bridge.identity import sentences
from bridge.identity.choice import FoundVisitor

DAVE = "00000000-0000-4000-8000-00000000000d"


@pytest.fixture
def rig(store, clock):
    return Rig(store, clock)


@pytest.fixture
def quick(sqlite_store, clock):
    return Rig(sqlite_store, clock)


def session(number, visitor=None, customer="cus_1", at_s=1_789_990_000, **fields):
    thing = {"object": "checkout.session", "id": f"cs_{number}", "payment_intent": f"pi_{number}", "customer": customer}
    metadata = {"datafast_visitor_id": visitor} if visitor else {}
    return stripe_event("checkout.session.completed", thing | fields | {"metadata": metadata}, at_s=at_s)


def charge(number, customer="cus_1", at_s=1_789_990_100):
    thing = {"object": "charge", "id": f"ch_{number}", "payment_intent": f"pi_{number}", "customer": customer}
    return stripe_event("charge.succeeded", thing, at_s=at_s)


def dispute(number, at_s=1_789_990_200):
    thing = {"object": "dispute", "id": f"du_{number}", "charge": f"ch_{number}"}
    return stripe_event("charge.dispute.created", thing, at_s=at_s)


def of_dispute(rig):
    (goal,) = [goal for goal in rig.goals() if goal.name == "dispute"]
    return goal


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_dispute_finds_its_visitor_through_the_customer_of_its_purchase_in_any_order(quick, order):
    told = [session("a", ALICE), charge("b"), dispute("b")]
    for place in order:
        quick.route(told[place])
    assert of_dispute(quick).visitor is None or of_dispute(quick).weak_at_ms is None
    quick.later(3 * MINUTE)
    assert (of_dispute(quick).state, of_dispute(quick).visitor) == ("pending", ALICE)


@pytest.mark.parametrize("last", [0, 1])
def test_what_comes_after_the_grace_wakes_it(rig, last):
    told = [session("a", ALICE), charge("b")]
    rig.route(told[1 - last], dispute("b"))
    rig.later(3 * MINUTE)
    assert of_dispute(rig).state == "parked"
    rig.route(told[last])
    assert (of_dispute(rig).state, of_dispute(rig).visitor) == ("pending", ALICE)


def test_a_merge_brings_the_customer_of_the_other_thread(rig):
    rig.route(session("a", ALICE), charge("b"))
    thing = {"object": "dispute", "id": "du_1", "payment_intent": "pi_other"}
    rig.route(stripe_event("charge.dispute.created", thing))
    rig.later(3 * MINUTE)
    assert of_dispute(rig).state == "parked"
    payment = {
        "object": "invoice_payment",
        "invoice": "in_1",
        "payment": {"payment_intent": "pi_other", "charge": "ch_b"},
    }
    rig.route(stripe_event("invoice_payment.paid", payment))
    assert of_dispute(rig).visitor == ALICE


def test_why_says_which_customer_it_was(rig):
    rig.route(session("a", ALICE), charge("b"), dispute("b"))
    rig.later(3 * MINUTE)
    said = sentences.provenance(FoundVisitor.from_json(json.loads(of_dispute(rig).provenance)))
    assert "customer cus_1, seen with the purchase of ch_b, learned from" in said


@pytest.mark.parametrize(("other", "state"), [(ALICE, "pending"), (BOB, "parked"), (None, "parked")])
def test_several_customers_answer_only_if_all_are_of_one_mind(rig, other, state):
    rig.route(session("a", ALICE, "cus_1"), session("c", other, "cus_2"), charge("b", "cus_1"), charge("b", "cus_2"))
    rig.route(dispute("b"))
    rig.later(3 * MINUTE)
    assert of_dispute(rig).state == state


# ------------------------------------------------------------------------------------- a subscription of many visitors


def subscription(number, visitor, at_s, customer="cus_1"):
    thing = {"object": "subscription", "id": f"sub_{number}", "customer": customer}
    thing |= {"metadata": {"datafast_visitor_id": visitor}}
    return stripe_event("customer.subscription.updated", thing, at_s=at_s)


def ended(number, at_s):
    thing = {"object": "subscription", "id": f"sub_{number}"}
    return stripe_event("customer.subscription.deleted", thing, at_s=at_s)


VISITORS = (ALICE, BOB, CAROL, DAVE)


@pytest.mark.parametrize("at_once", [True, False])
def test_one_customers_subscription_keeps_linking_however_many_visitors_it_had(rig, at_once):
    changes = [subscription(1, who, 1_789_000_000 + 100 * n) for n, who in enumerate(VISITORS)]
    rig.route(*changes, ended(1, 1_789_000_250), at_once=at_once)
    (goal,) = [goal for goal in rig.goals() if goal.name == "churned"]
    assert goal.visitor == CAROL  # the latest not after it
    assert stopped(rig) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::3])
def test_a_key_of_several_customers_stops_in_any_order(quick, order):
    """A product's id under `subscription`: each customer has a visitor."""
    changes = [subscription(1, who, 1_789_000_000 + n, f"cus_{n}") for n, who in enumerate(VISITORS)]
    for place in order:
        quick.route(changes[place])
    assert stopped(quick) == ["sub_1"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::3])
def test_it_stops_too_when_only_the_fourth_event_is_another_customers(quick, order):
    changes = [subscription(1, who, 1_789_000_000 + n) for n, who in enumerate(VISITORS[:3])]
    changes.append(subscription(1, BOB, 1_789_000_001, "cus_2"))
    for place in order:
        quick.route(changes[place])
    assert stopped(quick) == ["sub_1"]


def test_a_key_whose_events_name_no_customer_stops_as_ever(rig):
    rig.route(*(subscription(1, who, 1_789_000_000 + n, None) for n, who in enumerate(VISITORS[:3])))
    assert stopped(rig) == ["sub_1"]


def stopped(rig):
    from bridge.store import schema

    return [row.ref for row in rig.rows(schema.link_keys, schema.link_keys.c.stopped_at_ms.is_not(None))]
