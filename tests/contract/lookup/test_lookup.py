"""Customers from before the bridge are found at Stripe, on both databases; nothing ever waits for it."""

from __future__ import annotations

import json
import threading
import time

import pytest
from identity_kit import ALICE, BOB, DAY, HOUR, MINUTE, stripe_event
from sqlalchemy import select
from statements_kit import overheard

from bridge.errors import StoreLocked
from bridge.identity.choice import FoundVisitor
from bridge.identity.sentences import provenance
from bridge.store import schema
from bridge.store.links import lookups

BEFORE_S = 1_780_000_000  # months before the clock of the tests


def session(number=1, visitor=ALICE, **fields):
    """A checkout from before the bridge, as Stripe has it."""
    return {
        "id": f"cs_live_{number}",
        "object": "checkout.session",
        "created": BEFORE_S,
        "livemode": True,
        "status": "complete",
        "customer": f"cus_{number}",
        "metadata": {"datafast_visitor_id": visitor} if visitor else {},
        "client_reference_id": None,
        **fields,
    }


def renewal(number=1, **fields):
    """A paid invoice of a subscription, as it is since basil."""
    thing = {
        "id": f"in_{number}",
        "object": "invoice",
        "customer": f"cus_{number}",
        "parent": {"subscription_details": {"subscription": f"sub_{number}", "metadata": {}}},
        **fields,
    }
    return stripe_event("invoice.paid", thing)


def refund(number=1, **fields):
    thing = {
        "id": f"ch_{number}",
        "object": "charge",
        "amount_refunded": 100,
        "payment_intent": f"pi_{number}",
        "customer": f"cus_{number}",
        "metadata": {},
        **fields,
    }
    return stripe_event("charge.refunded", thing)


def dispute(number=1, **fields):
    return stripe_event(
        "charge.dispute.created", {"id": f"dp_{number}", "object": "dispute", "charge": f"ch_{number}", **fields}
    )


# ---------------------------------------------------------------------------------------------------- it is found


def test_a_renewal_of_an_old_subscription_finds_the_session_and_says_so(shop):
    shop.stripe.seed([session(subscription="sub_1")])
    shop.rig.route(renewal())
    assert shop.goal().state == "parked"
    assert shop.later() == 1
    goal = shop.goal()
    assert (goal.state, goal.visitor) == ("pending", ALICE)
    assert shop.stripe.asked() == ["/v1/checkout/sessions?subscription=sub_1&limit=5"]
    told = provenance(FoundVisitor.from_json(json.loads(goal.provenance)))
    assert told.startswith(
        "found through subscription sub_1, learned from Stripe's checkout session cs_live_1, looked up, "
    )
    assert told.endswith("days before")


def test_a_refund_of_an_old_payment_finds_the_session(lone_shop):
    lone_shop.stripe.seed([session(payment_intent="pi_1")])
    lone_shop.rig.route(refund())
    lone_shop.later()
    assert lone_shop.goal().visitor == ALICE


def test_a_dispute_that_names_only_its_charge_goes_by_the_charge_to_the_payment(shop):
    charge = {"id": "ch_1", "object": "charge", "payment_intent": "pi_1", "livemode": True, "metadata": {}}
    shop.stripe.seed([charge, session(payment_intent="pi_1")])
    shop.rig.route(dispute())
    assert shop.later() == 2
    assert shop.goal().visitor == ALICE
    assert [row.split("?")[0] for row in shop.stripe.asked()] == ["/v1/charges/ch_1", "/v1/checkout/sessions"]


def test_a_refund_of_a_renewal_goes_by_invoice_and_subscription_to_the_session(shop):
    payment = {"type": "payment_intent", "payment_intent": "pi_1"}
    invoice = {
        "id": "in_1",
        "object": "invoice",
        "created": BEFORE_S,
        "livemode": True,
        "parent": {"subscription_details": {"subscription": "sub_1", "metadata": None}},
    }
    paid = {"id": "inpay_1", "object": "invoice_payment", "livemode": True, "invoice": "in_1", "payment": payment}
    shop.stripe.seed([invoice, paid, session(subscription="sub_1", payment_intent=None)])
    shop.rig.route(refund())
    assert shop.later() == 3
    assert shop.goal().visitor == ALICE
    assert shop.outcomes() == {
        ("pi_1", "sessions"): "nothing",
        ("pi_1", "invoices"): "keys",
        ("sub_1", "sessions"): "visitor",
    }


def test_subscription_metadata_counts_when_there_is_no_session(lone_shop):
    subscription = {
        "id": "sub_1",
        "object": "subscription",
        "created": BEFORE_S,
        "livemode": True,
        "metadata": {"datafast_visitor_id": BOB},
    }
    lone_shop.stripe.seed([subscription])
    lone_shop.rig.route(renewal())
    lone_shop.later()
    assert lone_shop.goal().visitor == BOB
    assert "Stripe's subscription sub_1, looked up" in lone_shop.goal().provenance


def test_a_payment_link_is_found_by_its_client_reference_id(lone_shop):
    lone_shop.stripe.seed([session(visitor=None, client_reference_id=f"dfv_{ALICE}", payment_intent="pi_1")])
    lone_shop.rig.route(refund())
    lone_shop.later()
    assert lone_shop.goal().visitor == ALICE


def test_a_customer_leads_to_the_sessions_of_another_purchase_as_the_last_resort(lone_shop):
    lone_shop.stripe.seed([session(1, payment_intent="pi_7"), session(2, visitor=BOB, customer="cus_2")])
    lone_shop.rig.route(stripe_event("customer.updated", {"id": "cus_1", "object": "customer"}))
    lone_shop.later()
    assert lone_shop.goal().visitor == ALICE
    assert json.loads(lone_shop.goal().provenance)["by"] == "customer"


def test_one_answer_wakes_every_goal_of_the_purchase_and_later_ones_need_none(shop):
    shop.stripe.seed([session(subscription="sub_1")])
    shop.rig.route(renewal(), stripe_event("customer.subscription.deleted", {"id": "sub_1", "object": "subscription"}))
    assert shop.later() == 1
    assert {goal.visitor for goal in shop.rig.goals()} == {ALICE}
    shop.rig.route(renewal(id="in_2"))
    assert shop.later() == 0
    assert {(goal.state, goal.visitor) for goal in shop.rig.goals()} == {("pending", ALICE)}


def test_an_event_within_the_grace_saves_the_question(shop):
    shop.stripe.seed([session(subscription="sub_1")])
    shop.rig.route(renewal())
    shop.clock.advance(20_000)
    assert shop.lookup.step() == 0
    shop.rig.route(stripe_event("checkout.session.completed", session(subscription="sub_1")))
    assert shop.later() == 0
    assert shop.stripe.asked() == []
    assert shop.rig.visitors() == {"paid": ALICE, "purchase": ALICE}


def test_the_question_comes_before_the_customers_own_visitor_counts(shop):
    """The customer bought again, as somebody else, since the bridge is there; the old subscription is Alice's."""
    shop.stripe.seed([session(subscription="sub_1")])
    bought = session(2, visitor=BOB, customer="cus_1", payment_intent="pi_2")
    shop.rig.route(stripe_event("checkout.session.completed", bought))
    shop.rig.route(renewal())
    shop.later(35_000)
    shop.rig.later(2 * MINUTE)
    assert shop.rig.visitors() == {"purchase": BOB, "paid": ALICE}


# ------------------------------------------------------------------------------------------- nothing there, caching


def test_nothing_there_is_remembered_for_a_day(shop):
    shop.rig.route(renewal())
    assert shop.later() == 3
    assert shop.goal().state == "parked"
    assert shop.outcomes() == {
        ("sub_1", "sessions"): "nothing",
        ("sub_1", "object"): "nothing",
        ("cus_1", "sessions"): "nothing",
    }
    shop.rig.route(renewal(id="in_2"))
    assert shop.later() == 0
    assert shop.later(23 * HOUR) == 0
    shop.stripe.seed([session(subscription="sub_1")])
    assert shop.later(2 * HOUR) == 1
    assert {goal.visitor for goal in shop.rig.goals()} == {ALICE}


def test_an_object_without_a_visitor_teaches_its_keys_and_no_more(lone_shop):
    lone_shop.stripe.seed([session(visitor=None, subscription="sub_1")])
    lone_shop.rig.route(renewal())
    lone_shop.later()
    assert lone_shop.goal().visitor is None
    assert "stripe:live:cs_live_1" in {row.key for row in lone_shop.rows(schema.link_keys)}
    assert lone_shop.outcomes()["sub_1", "sessions"] == "keys"


def test_what_came_with_the_event_is_not_asked_for(lone_shop):
    lone_shop.rig.route(stripe_event("checkout.session.completed", session(visitor=None, payment_intent="pi_1")))
    lone_shop.later()
    asked = [row.split("?")[0] for row in lone_shop.stripe.asked()]
    assert asked == ["/v1/payment_intents/pi_1", "/v1/checkout/sessions"]
    assert "customer=cus_1" in lone_shop.stripe.asked()[1]


def test_a_goal_whose_wait_is_over_is_asked_about_no_more(shop):
    shop.rig.route(renewal())
    shop.later()
    asked = len(shop.stripe.requests)
    shop.rig.later(97 * HOUR)
    assert shop.goal().state == "unattributed"
    assert shop.ask() == 0
    assert len(shop.stripe.requests) == asked


def test_old_answers_are_forgotten(shop):
    shop.rig.route(renewal())
    shop.later()
    shop.clock.advance(32 * DAY)
    forgotten = sum(iter(lambda: shop.store.run(lambda conn: lookups.forget_old(conn, 2, shop.clock.now_ms)), 0))
    assert forgotten == 3
    assert shop.rows() == []


def test_many_old_answers_are_forgotten_by_as_many_statements_as_one(sqlite_store):
    def said_of(number):
        with sqlite_store.write() as conn:
            for n in range(number):
                lookups.begin(conn, f"k{n}", "object", 1, 0, 1)
            lookups.begin(conn, "k_new", "object", 1, 1, lookups.KEPT_MS + 1)
        with overheard(sqlite_store) as said, sqlite_store.write() as conn:
            assert lookups.forget_old(conn, 100, lookups.KEPT_MS + 1) == number
            heard = len(said)
            assert conn.execute(select(schema.lookups.c.key)).scalars().all() == ["k_new"]
        return heard

    assert said_of(1) == said_of(20)


# -------------------------------------------------------------------------------------------------- modes, accounts


def test_a_live_key_asks_nothing_about_test_events(new_lone_shop):
    testing = new_lone_shop(environ={"DATAFAST_TEST_API_KEY": "df_test"}, destinations=("default", "test"))
    testing.stripe.seed([session(subscription="sub_1", livemode=False)])
    testing.rig.route(renewal() | {"livemode": False})
    assert testing.goal().state == "parked"
    assert testing.later() == 0
    assert testing.stripe.asked() == []


def test_a_test_key_teaches_test_alone(new_shop):
    shop = new_shop(
        "rk_test_0123456789", environ={"DATAFAST_TEST_API_KEY": "df_test"}, destinations=("default", "test")
    )
    shop.stripe.seed([session(subscription="sub_1", livemode=False)])
    shop.rig.route(renewal() | {"livemode": False}, renewal())
    assert shop.later() == 1
    found = {(goal.test, goal.state, goal.visitor) for goal in shop.rig.goals()}
    assert found == {(True, "pending", ALICE), (False, "parked", None)}
    assert all(":test:" in row.key for row in shop.rows(schema.link_visitors))


def test_a_connected_account_is_asked_in_its_name(lone_shop):
    lone_shop.stripe.seed([session(subscription="sub_1")], account="acct_1")
    lone_shop.rig.route(renewal() | {"account": "acct_1"})
    lone_shop.later()
    assert lone_shop.goal().visitor == ALICE
    assert {row["account"] for row in lone_shop.stripe.requests} == {"acct_1"}
    assert "stripe:acct_1:live:cs_live_1" in {row.key for row in lone_shop.rows(schema.link_keys)}


def test_an_account_that_is_closed_to_the_key_stops_only_itself(lone_shop):
    lone_shop.stripe.seed([session(2, subscription="sub_2")])
    lone_shop.rig.route(renewal() | {"account": "acct_9"})
    lone_shop.later()
    (pause,) = lone_shop.rows(schema.lookup_pauses)
    assert pause.what == "account:acct_9"
    assert "acct_9" in pause.reason
    lone_shop.rig.route(renewal(2))
    lone_shop.later()
    assert [goal.visitor for goal in lone_shop.rig.goals()] == [None, ALICE]


def test_goals_of_other_providers_are_passed_by(new_lone_shop):
    files = {"lemonsqueezy.yaml": "provider: lemonsqueezy\ngoals:\n  - {goal: sale, event: order_created}\n"}
    shop = new_lone_shop(files=files)
    body = {
        "meta": {"event_name": "order_created", "test_mode": False},
        "data": {"type": "orders", "id": "1", "attributes": {"customer_id": 7}},
    }
    shop.rig.route(body, source="lemonsqueezy")
    assert shop.goal().state == "parked"
    assert shop.later() == 0
    assert shop.goal().look_up_at_ms > shop.clock.now_ms


# ---------------------------------------------------------------------------------------------------- failures


def test_a_wrong_key_stops_all_questions_until_there_is_another(shop, new_shop):
    shop.stripe.permissions["rk_live_0123456789"] = None
    shop.stripe.seed([session(subscription="sub_1")])
    shop.rig.route(renewal())
    assert shop.later() == 1
    (pause,) = shop.rows(schema.lookup_pauses)
    assert (pause.what, pause.failures) == ("all", 1)
    assert "does not accept STRIPE_API_KEY" in pause.reason
    assert "0123456789" not in pause.reason
    assert shop.later(4 * MINUTE) == 0
    assert shop.later(2 * MINUTE) == 1
    assert shop.rows(schema.lookup_pauses)[0].failures == 2
    fixed = new_shop("rk_live_another")
    fixed.clock.advance(DAY)
    assert fixed.ask() == 1
    assert fixed.goal().visitor == ALICE


def test_a_missing_permission_stops_its_questions_alone(shop):
    shop.stripe.permissions["rk_live_0123456789"] = ["subscription"]
    metadata = {"datafast_visitor_id": BOB}
    shop.stripe.seed([{"id": "sub_1", "object": "subscription", "livemode": True, "metadata": metadata}])
    shop.rig.route(renewal())
    shop.later()
    assert shop.goal().visitor == BOB
    (pause,) = shop.rows(schema.lookup_pauses)
    assert pause.what == "permission:checkout_session"
    assert "may not read Checkout Sessions" in pause.reason
    shop.rig.route(renewal(2))
    shop.later()
    assert [row["path"] for row in shop.stripe.requests].count("/v1/checkout/sessions") == 1


def test_a_permission_that_is_granted_later_is_noticed(lone_shop):
    lone_shop.stripe.permissions["rk_live_0123456789"] = ["subscription"]
    lone_shop.stripe.seed([session(subscription="sub_1")])
    lone_shop.rig.route(renewal())
    lone_shop.later()
    assert lone_shop.goal().visitor is None
    del lone_shop.stripe.permissions["rk_live_0123456789"]
    lone_shop.later(2 * HOUR)
    assert lone_shop.goal().visitor == ALICE
    assert lone_shop.rows(schema.lookup_pauses) == []


def test_when_stripe_asks_for_a_pause_it_gets_it(lone_shop):
    lone_shop.stripe.seed([session(subscription="sub_1")])
    lone_shop.stripe.fail(429, retry_after_s=120)
    lone_shop.rig.route(renewal())
    assert lone_shop.later() == 1
    assert lone_shop.later(MINUTE) == 0
    assert lone_shop.later(2 * MINUTE) == 1
    assert lone_shop.goal().visitor == ALICE
    assert lone_shop.rows(schema.lookup_pauses) == []


@pytest.mark.parametrize("status", [503, 409])
def test_when_stripe_is_down_it_is_asked_ever_less(lone_shop, status):
    lone_shop.stripe.seed([session(subscription="sub_1")])
    lone_shop.stripe.fail(status, times=4)
    lone_shop.rig.route(renewal())
    lone_shop.clock.advance(40_000)
    waits = []
    while lone_shop.goal().visitor is None and len(waits) < 6:
        assert lone_shop.lookup.step() == 1
        begins = lone_shop.clock.now_ms
        while lone_shop.goal().visitor is None and not _due(lone_shop):
            lone_shop.clock.advance(1_000)
        waits.append((lone_shop.clock.now_ms - begins) // 1000)
    assert waits == [10, 20, 40, 80, 0]
    assert lone_shop.goal().visitor == ALICE


def _due(shop):
    with shop.store.read() as conn:
        return lookups.any_due(conn, shop.lookup._fingerprint)


def test_nobody_who_listens_is_a_pause_too_and_takes_no_longer_than_the_deadline(lone_shop):
    silent = lone_shop.new_lookup("http://127.0.0.1:9")
    lone_shop.rig.route(renewal())
    lone_shop.clock.advance(40_000)
    assert silent.step() == 1
    (pause,) = lone_shop.rows(schema.lookup_pauses)
    assert pause.what == "all"
    assert "cannot be asked just now" in pause.reason
    silent.close()


def test_an_answer_that_does_not_come_is_given_up_at_the_deadline(lone_shop, sandbox):
    hasty = lone_shop.new_lookup(sandbox.url, deadline_ms=300)
    lone_shop.stripe.fail(200, hang_ms=1_500)
    lone_shop.rig.route(renewal())
    lone_shop.clock.advance(40_000)
    assert hasty.step() == 1
    assert lone_shop.rows(schema.lookup_pauses)[0].what == "all"
    hasty.close()


def test_a_question_that_stripe_refuses_is_set_aside_and_the_others_go_on(lone_shop):
    lone_shop.stripe.fail(400)
    lone_shop.stripe.seed(
        [{"id": "sub_1", "object": "subscription", "livemode": True, "metadata": {"datafast_visitor_id": BOB}}]
    )
    lone_shop.rig.route(renewal())
    lone_shop.later()
    assert lone_shop.goal().visitor == BOB
    assert lone_shop.outcomes() == {("sub_1", "sessions"): "failed", ("sub_1", "object"): "visitor"}
    assert lone_shop.rows(schema.lookup_pauses) == []


# ------------------------------------------------------------------------------------------------- many workers


def test_the_pace_is_two_questions_a_second_for_all_together(shop, sandbox):
    other = shop.new_lookup(sandbox.url)
    shop.rig.route(*(renewal(number) for number in range(12)))
    shop.clock.advance(MINUTE)
    begins, asked = shop.clock.now_ms, 0
    while shop.clock.now_ms - begins < 8_000:
        asked += shop.lookup.step() + other.step()
        shop.clock.advance(250)
    assert 16 <= asked <= 17
    other.close()


def test_one_question_is_asked_by_one_worker(shop, sandbox):
    """The second finds the question taken while the first still waits for its answer."""
    shop.rig.route(renewal())
    shop.clock.advance(MINUTE)
    second = shop.new_lookup(sandbox.url)
    seen = []

    class Slow:
        def ask(self, question, account):
            seen.append((question.key.id, question.target))
            if len(seen) == 1:
                shop.clock.advance(1_000)
                assert second.step() == 0
            return first.ask(question, account)

        def close(self):
            pass

    from bridge.lookup.client import StripeClient

    first = StripeClient("rk_live_0123456789", sandbox.url, 5_000)
    slow = shop.new_lookup(sandbox.url, new_api=lambda *_: Slow())
    assert slow.step() == 1
    assert seen == [("sub_1", "sessions")]
    assert len(shop.stripe.requests) == 1
    first.close()


def test_a_question_is_leased_to_one_worker_at_a_time(shop):
    """Two goals of one purchase ask the same: both workers may have read that it was free."""

    def begin(goal_id, now):
        return shop.store.run(lambda conn: lookups.begin(conn, "stripe:live:sub_1", "sessions", goal_id, now, MINUTE))

    assert begin(1, 1_000)
    assert not begin(2, 1_000 + MINUTE - 1)
    assert [(row.goal_id, row.again_at_ms) for row in shop.rows()] == [(1, 1_000 + MINUTE)]
    assert begin(2, 1_000 + MINUTE)


def test_workers_that_race_ask_each_question_once_and_find_everybody(shop, sandbox):
    """Three workers on one database, with every thread of a purchase asked for by two goals."""
    for number in range(1, 7):
        shop.stripe.seed([session(number, subscription=f"sub_{number}")])
        gone = {"id": f"sub_{number}", "object": "subscription"}
        shop.rig.route(renewal(number), stripe_event("customer.subscription.deleted", gone))
    shop.clock.advance(MINUTE)
    stopping = threading.Event()
    locked, errors = [], []

    def work():
        _ask_until(stopping, shop.new_lookup(sandbox.url), locked, errors)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(500):  # 50 s of its clock: no lease ends meanwhile, however slow this machine is
        shop.clock.advance(1_000 if locked else 100)  # an answer that met a lock is asked for again after its lease
        if all(goal.visitor == ALICE for goal in shop.rig.goals()):
            break
        time.sleep(0.02)
    stopping.set()
    for worker in workers:
        worker.join(30)
    assert errors == []
    assert {goal.visitor for goal in shop.rig.goals()} == {ALICE}
    sessions = [asked for asked in shop.stripe.asked() if "checkout/sessions?subscription" in asked]
    assert sorted(set(sessions)) == [f"/v1/checkout/sessions?subscription=sub_{n}&limit=5" for n in range(1, 7)]
    assert len(sessions) == 6 or locked


def _ask_until(stopping, lookup, locked, errors):
    """A worker's loop. locked: errors of a machine so busy that others hold their locks for two seconds."""
    try:
        while not stopping.is_set():
            try:
                asked = lookup.step()
            except StoreLocked as error:
                locked.append(error)
                asked = 0
            if not asked:
                stopping.wait(0.01)
    except BaseException as error:
        errors.append(error)
        raise
    finally:
        lookup.close()


def test_a_worker_that_vanished_leaves_its_question_to_the_next(shop, sandbox):
    class Vanishes(BaseException):
        pass

    class Gone:
        def ask(self, question, account):
            raise Vanishes

        def close(self):
            pass

    shop.stripe.seed([session(subscription="sub_1")])
    shop.rig.route(renewal())
    shop.clock.advance(MINUTE)
    with pytest.raises(Vanishes):
        shop.new_lookup(sandbox.url, new_api=lambda *_: Gone()).step()
    assert shop.ask() == 0
    assert shop.later(MINUTE) == 1
    assert shop.goal().visitor == ALICE


# ---------------------------------------------------------------------------------------- what people see and forget


def test_what_was_asked_is_told_with_the_goal(lone_shop):
    from bridge.store.operator import queries
    from bridge.workbench.describe import lookup_sentence

    lone_shop.stripe.permissions["rk_live_0123456789"] = ["checkout_session"]
    lone_shop.stripe.seed([session(visitor=None, subscription="sub_1")])
    lone_shop.rig.route(renewal())
    lone_shop.later()
    with lone_shop.store.read() as conn:
        told = [lookup_sentence(one) for one in queries.show_goal(conn, lone_shop.goal().id).lookups]
    assert told == [
        "asked Stripe for the Checkout sessions of sub_1: cs_live_1 names no visitor",
        'asked Stripe for sub_1: STRIPE_API_KEY may not read Subscriptions: give the restricted key "Read" there',
        "asked Stripe for the Checkout sessions of cus_1: cs_live_1 names no visitor",
    ]


def test_forgetting_a_person_takes_what_was_asked_along(shop):
    from sqlalchemy import select

    from bridge.store.operator import forgetting

    shop.stripe.seed([session(subscription="sub_1")])
    shop.rig.route(renewal(), renewal(2))
    shop.later()
    assert shop.goals_of_visitor(ALICE) == 1
    with shop.store.write() as conn:
        forgetting.remove(conn, forgetting.find_person(conn, visitor=ALICE))
    with shop.store.read() as conn:
        left = repr([conn.execute(select(table)).all() for table in schema.metadata.sorted_tables])
    for text in (ALICE, "sub_1'", "cus_1'", "cs_live_1", "in_1'"):
        assert text not in left
    assert "sub_2" in left


def test_a_person_who_is_forgotten_meanwhile_is_asked_about_no_more(shop):
    from bridge.store.operator import forgetting

    shop.rig.route(renewal())
    with shop.store.write() as conn:
        forgetting.remove(conn, forgetting.find_person(conn, visitor=None, people=["cus_1"]))
    assert shop.later() == 0
    assert shop.stripe.asked() == []


PLANS = {
    "any due": lambda conn: lookups.any_due(conn, "k"),
    "due": lambda conn: lookups.due(conn, 20),
    "again": lambda conn: lookups.again_at(conn, ["stripe:live:sub_1"]),
    "begin": lambda conn: lookups.begin(conn, "k", "sessions", 1, 1, 1),
    "answered": lambda conn: lookups.answered(conn, "k", "sessions", outcome="nothing", detail=None, again_at_ms=1),
    "put off": lambda conn: lookups.put_off(conn, 1, 1),
    "told": lambda conn: lookups.asked_for_goals(conn, [1]),
    "old": lambda conn: lookups.forget_old(conn, 10, 1),
}


@pytest.mark.parametrize("name", PLANS)
def test_it_goes_by_an_index_however_many_rows_there_are(shop, name):
    shop.rig.route(renewal(), refund(2))
    shop.later()
    with shop.store.write() as conn:
        conn.exec_driver_sql("UPDATE goals SET look_up_at_ms = 0")
    assert walks(shop.store, PLANS[name]) == []


def walks(store, work):
    """The plans that go over a whole table."""
    import re

    from sqlalchemy import event

    said, big = [], "goals|events|goal_keys|link_keys|lookups"
    found = []

    def keep(_conn, _cursor, statement, parameters, _context, _many):
        if not statement.startswith(("EXPLAIN", "SET")):
            said.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", keep)
    try:
        with store.write() as conn:
            work(conn)
            assert said
            if store.dialect == "postgresql":
                # As if the tables were large: whether two rows are sorted depends on when an autovacuum came by.
                conn.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
            explain = "EXPLAIN QUERY PLAN" if store.dialect == "sqlite" else "EXPLAIN"
            for statement, parameters in tuple(said):
                plan = "\n".join(str(row[-1]) for row in conn.exec_driver_sql(f"{explain} {statement}", parameters))
                if "look_up_at_ms <=" in statement:
                    assert "ix_goals_look_up" in plan, plan
                if re.search(rf"^SCAN ({big})$|Seq Scan on ({big})\b", plan, re.MULTILINE):
                    found.append(f"{statement}\n{plan}")
    finally:
        event.remove(store.engine, "before_cursor_execute", keep)
    return found
