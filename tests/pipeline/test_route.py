"""A stored event becomes goals, links, a trace and a verdict; and nothing that one event holds hurts another."""

from __future__ import annotations

import json

import pytest
from identity_kit import ALICE, BOB, DAY, HOUR, Rig, stripe_event
from sqlalchemy import delete, text, update

from bridge import identity, route
from bridge.identity.choice import FoundVisitor
from bridge.store import schema
from bridge.store.inbox import events as stored_events


@pytest.fixture
def rig(store, clock):
    return Rig(store, clock)


def session(name, visitor=None, **more):
    metadata = {"datafast_visitor_id": visitor} if visitor else {}
    thing = {"object": "checkout.session", "id": f"cs_{name}", "payment_intent": f"pi_{name}", "metadata": metadata}
    return stripe_event("checkout.session.completed", thing | more)


def refund(name, amount=100, **more):
    thing = {"object": "charge", "id": f"ch_{name}", "payment_intent": f"pi_{name}", "amount_refunded": amount}
    return stripe_event("charge.refunded", thing | more)


# -------------------------------------------------------------------------------------------------- the whole point


def test_a_refund_twelve_days_later_is_its_buyers_and_says_how_it_was_found(rig, clock):
    rig.route(session("1", ALICE) | {"id": "evt_checkout", "created": clock.now_ms // 1000})
    clock.advance(12 * DAY)
    rig.route(refund("1") | {"created": clock.now_ms // 1000})
    (goal,) = [goal for goal in rig.goals() if goal.name == "refund"]
    assert (goal.state, goal.visitor) == ("pending", ALICE)
    assert identity.provenance(FoundVisitor.from_json(json.loads(goal.provenance))) == (
        "found through payment intent pi_1, learned from checkout.session.completed evt_checkout, 12 days before"
    )


def test_an_invoice_before_its_session_is_parked_and_woken(rig):
    rig.route(stripe_event("invoice.paid", {"object": "invoice", "id": "in_1", "subscription": "sub_1"}))
    assert [goal.state for goal in rig.goals()] == ["parked"]
    rig.route(session("1", ALICE, subscription="sub_1"))
    assert {(goal.state, goal.visitor) for goal in rig.goals()} == {("pending", ALICE)}


def test_an_event_that_no_rule_matches_teaches_all_the_same(rig):
    first = rig.put(session("1", ALICE) | {"type": "checkout.session.expired"})
    rig.route_all()
    assert rig.event(first).verdict == "unmatched"
    rig.route(refund("1"))
    assert rig.visitors() == {"refund": ALICE}


def test_a_charge_whose_only_way_back_is_long_is_found(rig):
    rig.route(session("1", ALICE, payment_intent=None, subscription="sub_1"))
    rig.route(stripe_event("invoice.paid", {"object": "invoice", "id": "in_1", "subscription": "sub_1"}))
    payment = {"object": "invoice_payment", "invoice": "in_1", "payment": {"payment_intent": "pi_1"}}
    rig.route(stripe_event("invoice_payment.paid", payment))
    rig.route(refund("1"))
    rig.route(stripe_event("charge.dispute.created", {"object": "dispute", "id": "dp_1", "charge": "ch_1"}))
    assert set(rig.visitors().values()) == {ALICE}


# ------------------------------------------------------------------------------------------------------- test events


def test_a_test_event_makes_dry_goals_and_teaches_live_nothing(rig):
    rig.route(session("1", ALICE) | {"livemode": False})
    rig.route(refund("1"))
    assert {(goal.name, goal.state, goal.visitor) for goal in rig.goals()} == {
        ("purchase", "dry", ALICE),
        ("refund", "parked", None),
    }
    rig.route(refund("1") | {"livemode": False})
    assert {goal.visitor for goal in rig.goals() if goal.state == "dry"} == {ALICE}


def test_a_test_event_wakes_no_live_goal(rig):
    rig.route(refund("1"))
    rig.route(session("1", ALICE) | {"livemode": False})
    assert [goal.state for goal in rig.goals() if goal.name == "refund"] == ["parked"]


def test_with_a_test_key_test_events_go_to_the_test_website_whatever_the_rule_says(store, clock):
    files = {
        "stripe.yaml": "provider: stripe\ndatafast: {name: shop, api_key: df_shop}\n"
        "goals: [{goal: purchase, event: checkout.session.completed}]"
    }
    rig = Rig(store, clock, files, destinations=("default", "test", "shop"))
    rig.route(session("1", ALICE) | {"livemode": False}, session("2", ALICE))
    assert {(goal.destination, goal.state, goal.test) for goal in rig.goals()} == {
        ("test", "pending", True),
        ("shop", "pending", False),
    }


def test_a_connected_account_is_another_world(rig):
    rig.route(session("1", ALICE) | {"account": "acct_1"})
    rig.route(refund("1"))
    assert rig.visitors()["refund"] is None
    rig.route(refund("1", 7) | {"account": "acct_1"})
    assert ALICE in [goal.visitor for goal in rig.goals() if goal.once_key.endswith(":7")]


# -------------------------------------------------------------------------------------------------------- the trace


def test_the_trace_says_what_every_rule_and_candidate_came_to(rig):
    event_id = rig.put(session("1", None, client_reference_id=ALICE, metadata={"datafast_visitor_id": "undefined"}))
    rig.route_all()
    (element,) = rig.trace(event_id)["elements"]
    assert (element["type"], element["mode"]) == ("checkout.session.completed", "live")
    assert [rule["result"] for rule in element["rules"]] == ["matched"] + ["event"] * 5
    undefined, bare = element["candidates"]
    assert "visitor" not in undefined
    assert 'the word "undefined"' in undefined["why"]
    assert (bare["visitor"], bare["bare"], bare["borrowed"]) == (ALICE, True, True)
    assert element["keys"] == ["stripe:live:cs_1", "stripe:live:pi_1", f"user:default:live:{ALICE}"]
    (goal,) = element["goals"]
    assert (goal["outcome"], goal["state"], goal.get("visitor")) == ("made", "parked", None)
    assert (goal["found"]["path"], goal["found"]["unproved"]) == ("data.object.client_reference_id", True)
    assert goal["message"].startswith(f"asks DataFast first whether it knows {ALICE} at data.object.client_reference_")
    assert goal["id"] == rig.goals()[0].id


def test_the_trace_of_a_second_event_names_the_goal_that_was_there(rig):
    first, second = rig.put(session("1", ALICE)), rig.put(session("1", ALICE))
    rig.route_all()
    (goal,) = rig.trace(second)["elements"][0]["goals"]
    assert (goal["outcome"], goal["event_id"]) == ("known", first)


def test_the_trace_says_that_a_key_was_stopped(rig):
    for number in range(3):
        visitor = f"00000000-0000-4000-8000-00000000000{number}"
        last = rig.put(session(f"{number}", visitor, subscription="sub_same"))
        rig.route_all()
    assert list(rig.trace(last)["stopped"]) == ["stripe:live:sub_same"]


def test_an_unmatched_event_names_the_failing_condition(store, clock):
    files = {
        "stripe.yaml": "provider: stripe\ngoals: [{goal: p, event: charge.refunded, when: {data.object.paid: true}}]"
    }
    rig = Rig(store, clock, files)
    event_id = rig.put(refund("1", paid=False))
    rig.route_all()
    (rule,) = rig.trace(event_id)["elements"][0]["rules"]
    assert rig.event(event_id).verdict == "unmatched"
    assert (rule["result"], rule["path"]) == ("condition", "data.object.paid")


def test_a_thin_notification_is_ignored_with_the_reason(rig):
    event_id = rig.put({"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.x", "livemode": True})
    rig.route_all()
    assert (rig.event(event_id).verdict, "thin" in rig.event(event_id).reason) == ("ignored", True)


# ------------------------------------------------------------------------------------------------------- bad events


def test_an_event_of_a_file_that_is_gone_is_quarantined_with_what_to_do(rig):
    event_id = rig.put(session("1", ALICE))
    with rig.store.write() as conn:
        conn.execute(update(schema.events).values(source="paddle"))
    assert rig.route_all() == 1
    row = rig.event(event_id)
    assert row.state == "quarantined"
    assert 'no mapping file for the source "paddle"' in row.reason


def test_a_body_that_is_no_document_is_quarantined_alone(rig):
    bad, good = rig.put(session("1", ALICE)), rig.put(session("2", BOB))
    with rig.store.write() as conn:
        conn.execute(update(schema.events).where(schema.events.c.id == bad).values(body=b"[[[", state="received"))
    rig.route_all()
    assert rig.event(bad).state == "quarantined"
    assert rig.event(good).verdict == "matched"


def test_an_event_that_the_database_refuses_hurts_no_other(rig):
    """The batch fails, so it is repeated row by row, and only the guilty one is set aside."""
    ids = [rig.put(session(f"{number}", ALICE)) for number in range(4)]
    refuse = {
        "sqlite": "CREATE TRIGGER refuse BEFORE INSERT ON goals WHEN NEW.once_key LIKE '%cs_2'"
        " BEGIN SELECT RAISE(ABORT, 'no'); END",
        "postgresql": "ALTER TABLE goals ADD CONSTRAINT refuse CHECK (once_key NOT LIKE '%cs_2')",
    }
    undo = {"sqlite": "DROP TRIGGER refuse", "postgresql": "ALTER TABLE goals DROP CONSTRAINT refuse"}
    with rig.store.write() as conn:
        conn.execute(text(refuse[rig.store.dialect]))
    try:
        rig.route_all()
    finally:
        with rig.store.write() as conn:
            conn.execute(text(undo[rig.store.dialect]))
    assert [rig.event(event_id).state for event_id in ids] == ["routed", "routed", "quarantined", "routed"]
    assert "events replay" in rig.event(ids[2]).reason
    with rig.store.write() as conn:
        stored_events.requeue(conn, ids[2])
    rig.route_all()
    assert len(rig.goals()) == 4


def test_whoever_lost_its_lease_writes_nothing(rig):
    event_id = rig.put(session("1", ALICE))
    claimed = rig.store.run(lambda conn: stored_events.claim(conn, 9, "mine", 1_000))
    with rig.store.write() as conn:
        conn.execute(update(schema.events).values(lease_token="somebody else's"))
    made = route.Preparer(rig.rules, rig.settings, rig.destinations, b"k")
    rig.router._write(made, [made.prepare(event) for event in claimed], "mine")
    assert rig.goals() == []
    assert rig.rows(schema.link_keys) == []
    assert rig.event(event_id).state == "received"


def test_routing_again_makes_no_second_goal(rig):
    event_id = rig.put(session("1", ALICE))
    rig.route_all()
    before = rig.goals()
    with rig.store.write() as conn:
        assert stored_events.requeue(conn, event_id)
    rig.route_all()
    assert rig.goals() == before


def test_an_id_of_zeros_is_nobodys_id(store, clock):
    files = {"stripe.yaml": "provider: stripe\ngoals: [{goal: p, event: '*'}]"}
    rig = Rig(store, clock, files)
    rig.route(session("1", ALICE) | {"id": "evt_00000000000000"}, session("2", BOB) | {"id": "evt_00000000000000"})
    assert {goal.visitor for goal in rig.goals()} == {ALICE, BOB}


# -------------------------------------------------------------------------------------------------- other senders


def test_each_element_of_a_list_is_an_event_of_its_own(store, clock):
    files = {
        "mine.yaml": "provider: custom\nsecret: a-secret-of-mine\n"
        "verify: {type: hmac-sha256, signature: {in: 'header:X-Signature'}}\n"
        "envelope: {type: kind}\neach: items\nvisitor: [visitor]\nlinks: {order: order}\n"
        "goals: [{goal: sale, event: sale}, {goal: back, event: back}]"
    }
    rig = Rig(store, clock, files)
    items = [
        {"kind": "sale", "order": 1, "visitor": ALICE},
        {"kind": "sale", "order": 2, "visitor": BOB},
        {"kind": "back", "order": 2},
        {"kind": "back", "order": 1},
    ]
    event_id = rig.put({"items": items}, "mine")
    rig.route_all()
    assert [(goal.name, goal.visitor) for goal in rig.goals()] == [
        ("sale", ALICE),
        ("sale", BOB),
        ("back", BOB),
        ("back", ALICE),
    ]
    assert len(rig.trace(event_id)["elements"]) == 4
    assert [goal.description for goal in rig.goals()] == [f"mine ev_{event_id}.{i}" for i in range(4)]


def test_the_default_description_is_what_datafast_gives_back(rig):
    rig.route(session("1", ALICE) | {"id": "R&D <1>"})
    (goal,) = rig.goals()
    assert goal.description == "stripe RD 1"


def test_lemon_squeezys_renewal_is_found_through_order_and_subscription(store, clock):
    files = {
        "lemonsqueezy.yaml": "provider: lemonsqueezy\ngoals:\n"
        "  - {goal: purchase, event: order_created, once_per: data.id}\n"
        "  - {goal: renewal, event: subscription_payment_success, once_per: data.id}"
    }
    rig = Rig(store, clock, files)

    def event(name, kind, thing, custom=None, **attributes):
        meta = {"event_name": name, "test_mode": False} | ({"custom_data": custom} if custom else {})
        return {"meta": meta, "data": {"type": kind, "id": thing, "attributes": attributes}}

    bodies = [
        event("subscription_payment_success", "subscription-invoices", "1", subscription_id=5, customer_id=9),
        event("order_created", "orders", "1", {"datafast_visitor_id": ALICE}, customer_id=9),
        event("subscription_created", "subscriptions", "5", order_id=1, customer_id=9),
    ]
    rig.route(*bodies, source="lemonsqueezy", at_once=False)
    assert rig.visitors() == {"purchase": ALICE, "renewal": ALICE}
    (goal,) = [goal for goal in rig.goals() if goal.name == "renewal"]
    assert json.loads(goal.provenance)["by"] == "thread"
    assert not goal.time_is_stated


def test_a_rules_own_path_goes_before_the_files(store, clock):
    files = {"stripe.yaml": "provider: stripe\ngoals: [{goal: p, event: '*', visitor: data.object.metadata.referrer}]"}
    rig = Rig(store, clock, files)
    rig.route(session("1", metadata={"datafast_visitor_id": ALICE, "referrer": BOB}))
    rig.route(session("2", metadata={"datafast_visitor_id": ALICE, "referrer": "nobody"}))
    assert [goal.visitor for goal in rig.goals()] == [BOB, ALICE]


def test_a_path_of_rule_and_file_alike_is_tried_where_the_rule_has_it(store, clock):
    files = {
        "stripe.yaml": "provider: stripe\nvisitor: [a, b]\n"
        "goals: [{goal: purchase, event: checkout.session.completed, visitor: b}]"
    }
    rig = Rig(store, clock, files)
    rig.route(session("1") | {"a": ALICE, "b": BOB})
    assert rig.visitors()["purchase"] == BOB


def test_the_root_key_reads_what_identity_found(store, clock):
    files = {"stripe.yaml": "provider: stripe\ngoals: [{goal: p, event: '*', metadata: {sub: '{key.subscription}'}}]"}
    rig = Rig(store, clock, files)
    parent = {"subscription_details": {"subscription": "sub_1"}}
    rig.route(stripe_event("invoice.paid", {"object": "invoice", "id": "in_1", "parent": parent}))
    assert json.loads(rig.goals()[0].metadata) == {"sub": "sub_1"}


# ------------------------------------------------------------------------------------------------------- and later


def test_a_rule_sets_how_long_its_goals_wait(store, clock):
    files = {"stripe.yaml": "provider: stripe\ngoals: [{goal: p, event: '*', wait: 1h, max_age: 1d}]"}
    rig = Rig(store, clock, files)
    rig.route(refund("1") | {"created": clock.now_ms // 1000})
    assert rig.goals()[0].expires_at_ms == clock.now_ms + DAY
    rig.later(HOUR)
    assert rig.goals()[0].state == "unattributed"


def test_the_wait_does_not_end_while_what_came_in_time_is_not_routed(rig, clock):
    rig.route(refund("1"))
    clock.advance(HOUR)
    rig.put(session("1", ALICE))
    rig.later(5 * DAY)
    assert rig.visitors() == {"refund": None}
    assert [goal.state for goal in rig.goals()] == ["parked"]
    rig.route_all()
    assert rig.visitors() == {"refund": ALICE, "purchase": ALICE}


def test_links_are_learned_again_from_the_stored_events(rig):
    rig.route(session("1", ALICE), refund("2"))
    with rig.store.write() as conn:
        for table in (schema.link_keys, schema.link_visitors, schema.link_events):
            conn.execute(delete(table))
    read, last = rig.router.relearn(rig.rules)
    assert (read, rig.router.relearn(rig.rules, last)) == (2, (0, last))
    rig.route(refund("1"))
    assert [goal.visitor for goal in rig.goals() if "ch_1" in goal.once_key] == [ALICE]


def test_what_was_claimed_when_the_database_went_away_is_given_back(rig):
    event_id = rig.put(session("1", ALICE))
    rig.store.run(lambda conn: stored_events.claim(conn, 9, "lost", 60_000))
    rig.router._unfinished = ([event_id], "lost")
    assert rig.route_all() == 1
    assert rig.event(event_id).tries == 1
