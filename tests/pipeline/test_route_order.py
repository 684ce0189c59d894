"""Law 4: the same events, in any order, doubled, by two routers, give the same goals with the same visitors."""

from __future__ import annotations

import itertools
import random
import threading
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from identity_kit import ALICE, BOB, CAROL, DAY, HOUR, MINUTE, Rig, stripe_event

from bridge import store as bridge_store
from bridge.model import Key
from bridge.store import schema
from bridge.store.goals import parking

START_S = 1_789_000_000


def session(thing, **more):
    return stripe_event("checkout.session.completed", {"object": "checkout.session", "id": thing, **more})


def purchase(name, visitor, at_s=START_S):
    """A one-off payment: only the session carries the visitor, the dispute has only its charge."""
    charge = {"object": "charge", "id": f"ch_{name}", "payment_intent": f"pi_{name}", "customer": None}
    return [
        _at(at_s, session(f"cs_{name}", payment_intent=f"pi_{name}", metadata={"datafast_visitor_id": visitor})),
        _at(at_s + 5, stripe_event("charge.succeeded", charge)),
        _at(at_s + 900, stripe_event("charge.refunded", charge | {"amount_refunded": 500})),
        _at(
            at_s + 990,
            stripe_event("charge.dispute.created", {"object": "dispute", "id": f"dp_{name}", "charge": f"ch_{name}"}),
        ),
    ]


def subscription(name, visitor, customer, at_s=START_S, *, carrier="session"):
    """A subscription: charge → payment intent → invoice → subscription → session. `carrier` names the visitor."""

    def meta(which):
        return {"datafast_visitor_id": visitor} if which == carrier else {}

    invoice = {"object": "invoice", "id": f"in_{name}", "customer": customer, "metadata": meta("invoice")}
    return [
        _at(at_s, session(f"cs_{name}", subscription=f"sub_{name}", customer=customer, metadata=meta("session"))),
        _at(
            at_s + 2,
            stripe_event(
                "invoice.paid",
                invoice | {"parent": {"subscription_details": {"subscription": f"sub_{name}", "metadata": None}}},
            ),
        ),
        _at(
            at_s + 3,
            stripe_event(
                "invoice_payment.paid",
                {
                    "object": "invoice_payment",
                    "id": f"inpay_{name}",
                    "invoice": f"in_{name}",
                    "payment": {"type": "payment_intent", "payment_intent": f"pi_{name}"},
                },
            ),
        ),
        _at(
            at_s + 800,
            stripe_event(
                "charge.refunded",
                {
                    "object": "charge",
                    "id": f"ch_{name}",
                    "payment_intent": f"pi_{name}",
                    "customer": customer,
                    "amount_refunded": 100,
                },
            ),
        ),
        _at(
            at_s + 900,
            stripe_event(
                "customer.subscription.deleted",
                {
                    "object": "subscription",
                    "id": f"sub_{name}",
                    "customer": customer,
                    "metadata": meta("subscription"),
                },
            ),
        ),
    ]


def _at(at_s, event):
    return event | {"created": at_s}


@pytest.fixture
def quick(clock):
    """SQLite in memory: many lives, and no disk to wait for."""
    with opened(clock) as store:
        yield store


@contextmanager
def opened(clock):
    store = bridge_store.open("sqlite://", clock=clock)
    with store.write() as conn:
        schema.metadata.create_all(conn)
    yield store
    store.close()


def play(store, clock, batches):
    """Route batches of events a second apart, then let every grace pass."""
    rig = Rig(store, clock)
    for batch in batches:
        rig.put_all(batch)
        rig.route_all()
        clock.advance(1_000)
    rig.later(10 * MINUTE)
    return rig


def side_by_side(rig, lives):
    """Route many lives at once: each one's events in its order, one of each in every batch (few commits)."""
    for step in range(max(map(len, lives))):
        rig.put_all([life[step] for life in lives if step < len(life)])
        rig.route_all()


# --------------------------------------------------------------------------------------------------- all the orders


@pytest.mark.parametrize(
    "carrier", ["session", *(pytest.param(name, marks=pytest.mark.long) for name in ("invoice", "subscription"))]
)
def test_any_order_of_a_subscription_attributes_every_goal(carrier, quick, clock):
    rig, orders = Rig(quick, clock), list(itertools.permutations(range(5)))
    lives = []
    for number, order in enumerate(orders):
        events = subscription(f"{number}x", ALICE, f"cus_{number}", carrier=carrier)
        lives.append([events[place] for place in order])
    side_by_side(rig, lives)
    rig.later(10 * MINUTE)
    missed = [goal.once_key for goal in rig.goals() if (goal.visitor, goal.state) != (ALICE, "pending")]
    assert missed == []
    assert len(rig.goals()) == 4 * len(orders)


@pytest.mark.long
def test_two_purchases_of_one_customer_are_never_mixed_in_any_order(quick, clock):
    rng, rig = random.Random(4), Rig(quick, clock)
    lives = []
    for number in range(100):
        order = subscription(f"{number}a", ALICE, f"cus_{number}")
        order += subscription(f"{number}b", BOB, f"cus_{number}", START_S + 40)
        order *= rng.choice((1, 2))
        rng.shuffle(order)
        lives.append(order)
    side_by_side(rig, lives)
    rig.later(10 * MINUTE)
    assert len(rig.goals()) == 100 * 8
    for goal in rig.goals():
        thing = goal.once_key.removesuffix(":100")
        assert goal.visitor == (ALICE if thing.endswith("a") else BOB), goal.once_key


LIFE = st.permutations(
    purchase("p", ALICE)
    + subscription("q", BOB, "cus_q", carrier="invoice")
    + subscription("r", CAROL, "cus_r", carrier="subscription")
)


@settings(max_examples=settings.default.max_examples * 2 // 5, deadline=None, suppress_health_check=list(HealthCheck))
@given(order=LIFE, sizes=st.lists(st.integers(1, 6), min_size=14, max_size=14), doubles=st.lists(st.integers(0, 13)))
def test_any_order_in_any_batches_with_doubles_gives_the_same_goals(order, sizes, doubles, clock):
    arriving = order + [order[place] for place in doubles]
    batches, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= len(arriving):
            break
        batches.append(arriving[start : start + size])
        start += size
    by_thread = {"_p": ALICE, "_q": BOB, "_r": CAROL}
    with opened(clock) as store:
        goals = play(store, clock, batches).goals()
    assert len(goals) == 11
    for goal in goals:
        name = next(name for name in by_thread if name in goal.once_key)
        assert goal.visitor == by_thread[name]


def test_a_random_order_gives_the_same_on_postgresql(postgres_store, clock):
    events = subscription("a", ALICE, "cus_a") + subscription("b", BOB, "cus_b", carrier="subscription")
    random.Random(7).shuffle(events)
    rig = play(postgres_store, clock, [[event] for event in events])
    assert {(goal.name, goal.visitor) for goal in rig.goals()} == {
        (name, visitor) for name in ("purchase", "paid", "refund", "churned") for visitor in (ALICE, BOB)
    }


# --------------------------------------------------------------------------------------------------- two at a time


@pytest.mark.parametrize("seed", range(6))
def test_two_routers_never_miss_each_other(seed, store, clock):
    rng = random.Random(seed)
    events = [
        event
        for number in range(6)
        for event in subscription(f"s{number}x", ALICE, f"cus_{number}", carrier=rng.choice(("session", "invoice")))
    ]
    rng.shuffle(events)
    rig = Rig(store, clock)
    rig.put_all(events)
    routers = [rig.new_router() for _ in range(3)]
    failures = []

    def work(router):
        try:
            while router.route_batch(rig.rules, rig.destinations, rng.randint(1, 3)):
                pass
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(router,)) for router in routers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rig.route_all()
    assert {(goal.state, goal.visitor) for goal in rig.goals()} == {("pending", ALICE)}
    assert len(rig.goals()) == 24


def test_a_worker_waits_for_what_another_one_is_learning_of_the_same_thread_by_another_key(postgres_store, clock):
    rig = Rig(postgres_store, clock)
    rig.route(stripe_event("invoice.created", {"object": "invoice", "id": "in_1", "subscription": "sub_1"}))
    invoice = Key("stripe:live:in_1", "invoice", "in_1")
    rig.put(stripe_event("customer.subscription.deleted", {"object": "subscription", "id": "sub_1"}))
    other = threading.Thread(target=rig.route_all)
    with postgres_store.write() as conn:
        parking.bind(conn, invoice, ALICE, rig.settings)
        other.start()
        other.join(0.5)  # without its turn it would look now, find nobody, and park the goal for ever
    other.join()
    assert rig.visitors() == {"churned": ALICE}


# ------------------------------------------------------------------------------------------------------ weak keys


def test_a_customer_answers_only_after_the_grace_and_only_where_the_thread_is_silent(store, clock):
    rig = Rig(store, clock)
    rig.route(session("cs_1", customer="cus_1", subscription="sub_1", metadata={"datafast_visitor_id": ALICE}))
    lone = stripe_event(
        "charge.refunded", {"object": "charge", "id": "ch_9", "customer": "cus_1", "amount_refunded": 1}
    )
    rig.route(lone)
    assert rig.visitors()["refund"] is None
    rig.later(2 * MINUTE - 1)
    assert rig.visitors()["refund"] is None
    rig.later(1)
    assert rig.visitors()["refund"] == ALICE
    (goal,) = [goal for goal in rig.goals() if goal.name == "refund"]
    assert '"by": "customer"' in goal.provenance
    assert goal.state == "pending"


def test_the_own_thread_wins_within_the_grace(store, clock):
    rig = Rig(store, clock)
    rig.route(session("cs_1", customer="cus_1", subscription="sub_1", metadata={"datafast_visitor_id": ALICE}))
    rig.route(
        stripe_event(
            "charge.refunded",
            {
                "object": "charge",
                "id": "ch_9",
                "payment_intent": "pi_9",
                "customer": "cus_1",
                "amount_refunded": 1,
            },
        )
    )
    clock.advance(MINUTE)
    rig.route(session("cs_9", payment_intent="pi_9", customer="cus_1", metadata={"datafast_visitor_id": BOB}))
    rig.later(HOUR)
    assert rig.visitors()["refund"] == BOB


def test_the_grace_does_not_end_while_an_event_that_came_within_it_waits_to_be_routed(store, clock):
    rig = Rig(store, clock)
    rig.route(session("cs_1", customer="cus_1", subscription="sub_1", metadata={"datafast_visitor_id": ALICE}))
    refund = {"object": "charge", "id": "ch_9", "payment_intent": "pi_9", "customer": "cus_1", "amount_refunded": 1}
    rig.route(stripe_event("charge.refunded", refund))
    clock.advance(MINUTE)
    rig.put(session("cs_9", payment_intent="pi_9", customer="cus_1", metadata={"datafast_visitor_id": BOB}))
    rig.later(DAY)  # nothing was routed meanwhile: an outage of ours
    assert rig.visitors()["refund"] is None
    rig.route_all()
    assert rig.visitors()["refund"] == BOB


def test_a_customers_visitor_is_the_latest_not_after_the_event_else_the_earliest(store, clock):
    rig = Rig(store, clock)
    for number, (visitor, at_s) in enumerate(((BOB, START_S + 100), (ALICE, START_S))):
        rig.route(
            _at(at_s, session(f"cs_{number}", customer="cus_1", metadata={"datafast_visitor_id": visitor})),
        )
    for at_s, visitor in ((START_S + 50, ALICE), (START_S + 100, BOB), (START_S + 500, BOB), (START_S - 5, ALICE)):
        body = _at(at_s, stripe_event("customer.updated", {"object": "customer", "id": "cus_1"}))
        rig.route(body)
        assert [goal.visitor for goal in rig.goals() if goal.once_key.endswith(f"{body['id']}:profile")] == [visitor]


def test_the_first_visitor_of_a_customer_counts_when_the_setting_says_so(store, clock):
    rig = Rig(store, clock, BRIDGE_CUSTOMER_VISITOR="first")
    for number, (visitor, at_s) in enumerate(((BOB, START_S + 100), (ALICE, START_S))):
        rig.route(_at(at_s, session(f"cs_{number}", customer="cus_1", metadata={"datafast_visitor_id": visitor})))
    rig.route(_at(START_S + 500, stripe_event("customer.updated", {"object": "customer", "id": "cus_1"})))
    assert rig.visitors()["profile"] == ALICE


def test_an_event_that_was_routed_after_its_grace_asks_the_customer_at_once_and_not_at_the_end_of_its_wait(
    store, clock
):
    rig = Rig(store, clock)
    rig.route(session("cs_1", customer="cus_1", subscription="sub_1", metadata={"datafast_visitor_id": ALICE}))
    rig.put(stripe_event("charge.refunded", {"object": "charge", "id": "ch_9", "customer": "cus_1"}))
    clock.advance(10 * MINUTE)  # an outage of ours
    rig.route_all()
    rig.later(0)
    assert rig.visitors()["refund"] == ALICE
