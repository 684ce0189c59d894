"""What the preset of Stripe names: money a month, the set of prices, and the rest, in every shape of its API."""

# ruff: noqa: E501 - tables of cases, one a line

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import rules, sources
from bridge.model import Document, ExactFloat

NAMES = [
    "amount",
    "currency",
    "plan",
    "price",
    "prices",
    "interval",
    "monthly",
    "monthly_before",
    "seats",
    "discount",
    "country",
    "transaction",
]
TEXT = "provider: stripe\ngoals: [{id: r, goal: g, event: '*', metadata: {%s}}]\n"
LOADED = [
    rules.load(
        {
            "stripe.yaml": TEXT
            % ", ".join(f"{name}: '{{{where}value.{name}{'|join' * (name == 'prices')}}}'" for name in part)
        },
        {},
        sources.presets(),
    )
    for where in ("", "was.")
    for part in (NAMES[:7], NAMES[7:])
]


def values(kind, now, before=None, *, was=False):
    body = {"id": "evt_1", "type": kind, "data": {"object": now}}
    if before is not None:
        body["data"]["previous_attributes"] = before
    found = {}
    for rule_set in LOADED[2:] if was else LOADED[:2]:
        source = rule_set.sources["stripe"]
        document = Document(body, root=body, envelope={"type": kind})
        result = rules.evaluate(rule_set, source, document, event_name="e", mode="live", hash_key=b"k")
        assert [trace.message for trace in result.traces if trace.result != "matched"] == []
        found |= result.planned[0].metadata
    return found


def price(identifier="price_1", amount=4900, interval="month", count=1, currency="usd", **more):
    recurring = {"interval": interval, "interval_count": count} | more.pop("recurring", {})
    return {"id": identifier, "unit_amount": amount, "currency": currency, "recurring": recurring, **more}


def item(identifier="si_1", quantity=1, **more):
    return {"id": identifier, "quantity": quantity, "price": price(**more)}


def subscription(*items, currency="usd", **more):
    return {"id": "sub_1", "currency": currency, "items": {"object": "list", "data": list(items)}, **more}


def monthly(*items, **more):
    return values("customer.subscription.updated", subscription(*items, **more)).get("monthly")


@pytest.mark.parametrize(
    ("items", "cost"),
    [
        ([item()], "49.00"),
        ([item(quantity=3)], "147.00"),
        ([item(quantity=0)], "0.00"),
        ([item(quantity=None)], "49.00"),
        ([item(amount=9600, interval="year")], "8.00"),
        ([item(amount=19200, interval="year", count=2)], "8.00"),
        ([item(amount=1000, count=3)], "3.33"),
        ([item(amount=2000, count=3)], "6.67"),
        ([item(amount=300, interval="week")], "13.00"),  # 52 weeks in 12 months
        ([item(amount=1200, interval="day")], "365.00"),
        ([item(amount=1200, interval="day", count=365)], "1.00"),
        ([item(), {"price": price("price_2", 500)}], "54.00"),
        # rounded once, at the end: three times a third of a cent
        ([{"price": price(f"p{n}", 1, count=3)} for n in range(3)], "0.01"),
        ([{"price": price(unit_amount_decimal="0.5")}, {"price": price("b", unit_amount_decimal="0.5")}], "0.01"),
        ([{"price": price(unit_amount_decimal=ExactFloat("1234.5"))}], "12.35"),
    ],
)
def test_monthly_is_the_exact_cost_of_a_month(items, cost):
    assert monthly(*items) == cost


@pytest.mark.parametrize(
    ("currency", "cost"), [("jpy", "4900"), ("kwd", "4.900"), ("ugx", "49.00"), ("isk", "49.00"), ("huf", "49.00")]
)
def test_monthly_is_in_whole_units_as_stripe_counts_them(currency, cost):
    assert monthly(item(currency=currency), currency=currency) == cost


@pytest.mark.parametrize(
    ("currency", "cost"), [("isk", "833.00"), ("ugx", "833.00"), ("huf", "833.33"), ("jpy", "83333")]
)
def test_decimals_that_are_always_zero_stay_so_when_a_year_becomes_a_month(currency, cost):
    assert monthly(item(amount=1_000_000, interval="year", currency=currency), currency=currency) == cost


@pytest.mark.parametrize(
    "odd",
    [
        {"price": price(recurring={"usage_type": "metered"})},
        {"price": price(recurring={"meter": "mtr_1"})},
        {"price": price(billing_scheme="tiered", unit_amount=None)},
        {"price": price(tiers_mode="volume")},
        {"price": price(transform_quantity={"divide_by": 10, "round": "up"})},
        {"price": price(currency="eur")},
        {"price": price(unit_amount=None)},
        {"price": price(recurring={"interval": "century"})},
        {"price": price(recurring={"interval_count": 0})},
        {"price": price(recurring={"interval_count": "2"})},
        {"price": "price_not_expanded"},
        {"price": price(), "quantity": "many"},
        {"plan": {"id": "plan_1", "amount": 100, "currency": "usd", "interval": "month", "usage_type": "metered"}},
        {},
    ],
)
def test_monthly_is_missing_where_an_item_has_no_fixed_price(odd):
    assert monthly(item()) == "49.00"
    assert monthly(item(), odd) is None


def test_monthly_is_missing_where_not_all_items_are_in_the_event():
    whole = subscription(item())
    whole["items"]["has_more"] = True
    assert "monthly" not in values("customer.subscription.updated", whole)


def test_many_items_with_awkward_intervals_cost_no_time():
    items = [{"price": price(f"p{n}", 1, count=1 + n % 1_000)} for n in range(5_000)]
    assert monthly(*items) is None


OLD_ITEM = {"id": "si_1", "quantity": 2, "plan": {"id": "plan_1", "amount": 4900, "currency": "usd", "interval": "month", "interval_count": 1, "nickname": "Pro"}}  # fmt: skip
SHAPES = {
    "a price": subscription({**item(quantity=2), "price": price("plan_1", nickname="Pro")}, quantity=None),
    "a plan beside it": subscription({**OLD_ITEM, "price": price("plan_1", nickname="Pro")}),
    "a plan": {"id": "sub_1", "items": {"data": [OLD_ITEM]}},
    "a plan and no items": {"id": "sub_1", "quantity": 2, "plan": OLD_ITEM["plan"]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_subscription_says_the_same_in_every_shape(shape):
    assert values("customer.subscription.updated", SHAPES[shape]) == {
        "amount": "49.00",
        "currency": "USD",
        "plan": "Pro",
        "price": "Pro",
        "prices": "plan_1",
        "interval": "month",
        "monthly": "98.00",
        "monthly_before": "98.00",
        "seats": "2",
    }


def test_prices_are_a_set():
    items = [{"price": price(name)} for name in ("p2", "p1", "p2", "p3")]
    for order in itertools.permutations(items):
        assert values("customer.subscription.updated", subscription(*order))["prices"] == "p1, p2, p3"


INVOICE = {"id": "in_1", "currency": "eur", "amount_due": 5000, "amount_paid": 4900, "total": 5000}
LINES = {
    "basil": {"quantity": 2, "pricing": {"price_details": {"price": "price_1", "product": "prod_1"}}},
    "acacia": {"quantity": 2, "price": price("price_1"), "plan": {"id": "price_1", "interval": "month"}},
    "old": {"quantity": 2, "plan": {"id": "price_1", "interval": "month"}},
}


@pytest.mark.parametrize("shape", LINES)
def test_an_invoice_says_the_same_in_every_shape_but_for_what_basil_left_out(shape):
    found = values(
        "invoice.paid",
        INVOICE | {"lines": {"data": [LINES[shape]]}, "total_discount_amounts": [{"amount": 300}, {"amount": 50}]},
    )
    expected = {
        "amount": "49.00", "currency": "EUR", "plan": "price_1", "price": "price_1", "prices": "price_1", "interval": "month",
        "seats": "2", "discount": "3.50", "transaction": "in_1",
    }  # fmt: skip
    if shape == "basil":
        del expected["interval"]
    assert found == expected


@pytest.mark.parametrize(
    ("kind", "thing", "expected"),
    [
        (
            "checkout.session.completed",
            {"id": "cs_1", "amount_total": 4900, "currency": "usd", "metadata": {"plan": "pro"}, "payment_intent": "pi_1",
             "total_details": {"amount_discount": 100}, "customer_details": {"address": {"country": "DE"}}},
            {"amount": "49.00", "currency": "USD", "plan": "pro", "discount": "1.00", "country": "DE", "transaction": "pi_1"},
        ),
        (
            "checkout.session.completed",
            {"id": "cs_1", "amount_total": 0, "currency": "usd", "payment_intent": None, "invoice": {"id": "in_1"}},
            {"amount": "0.00", "currency": "USD", "transaction": "in_1"},
        ),
        ("invoice.payment_failed", INVOICE, {"amount": "50.00", "currency": "EUR", "seats": None, "transaction": "in_1"}),
        ("payment_intent.succeeded", {"id": "pi_1", "amount": 50, "amount_received": 49, "currency": "usd"},
         {"amount": "0.49", "currency": "USD", "transaction": "pi_1"}),
        ("charge.succeeded", {"id": "ch_1", "amount": 49, "currency": "usd", "payment_intent": "pi_1",
                              "billing_details": {"address": {"country": "US"}}},
         {"amount": "0.49", "currency": "USD", "country": "US", "transaction": "pi_1"}),
        ("charge.dispute.created", {"id": "dp_1", "amount": 49, "currency": "usd", "charge": "ch_1"},
         {"amount": "0.49", "currency": "USD", "transaction": "ch_1"}),
        ("customer.created", {"id": "cus_1"}, {}),
    ],
)  # fmt: skip
def test_values_of_other_events(kind, thing, expected):
    assert values(kind, thing) == {name: value for name, value in expected.items() if value is not None}


def test_of_a_refund_the_amount_is_what_went_back_this_time():
    charge = {"id": "ch_1", "amount": 4900, "amount_refunded": 1500, "currency": "usd"}
    assert values("charge.refunded", charge, {"amount_refunded": 500})["amount"] == "10.00"
    assert values("charge.refunded", charge)["amount"] == "15.00"


def test_was_of_values_is_what_they_were():
    now = subscription({**item(quantity=5), "price": price("price_2", 9900)}, quantity=5)
    before = {"quantity": 3, "items": {"data": [{**item(quantity=3)}]}}
    found = values("customer.subscription.updated", now, before, was=True)
    assert (found["seats"], found["prices"], found["monthly"], found["amount"]) == ("3", "price_1", "147.00", "49.00")


# ------------------------------------------------------------------------------------- before, in the seats of now


@pytest.mark.parametrize(
    ("then", "now", "cost"),
    [
        ([item(quantity=10)], [{**item(quantity=3), "price": price("price_2", 9900)}], "147.00"),  # the same item
        ([item("si_0", 10)], [{**item("si_9", 3), "price": price("price_1")}], "147.00"),  # the same price
        ([item("si_0", 10)], [{**item("si_9", 3), "price": price("price_2")}], "147.00"),  # replaced by one
        (  # the base is replaced, the add-on stays
            [item("si_0", 10), {"id": "si_a", "quantity": 1, "price": price("add", 500)}],
            [{"id": "si_a", "quantity": 2, "price": price("add", 500)}, {**item("si_9", 3), "price": price("price_2")}],
            "157.00",
        ),
        ([item("si_0", 10), {"id": "si_a", "quantity": 4, "price": price("add", 500)}], [item("si_0", 3)], "167.00"),  # gone
        (
            [{"id": "si_0", "quantity": 10, "price": price("p1", product="prod_1")}, {"quantity": 1, "price": price("q1", product="prod_2")}],
            [{"id": "si_8", "quantity": 2, "price": price("q2", product="prod_2")}, {"quantity": 7, "price": price("p2", product={"id": "prod_1"})}],
            "441.00",
        ),
    ],
)  # fmt: skip
def test_before_is_reckoned_in_the_quantities_of_now(then, now, cost):
    found = values("customer.subscription.updated", subscription(*now), {"items": {"data": then}})
    assert found["monthly_before"] == cost


SHIPPED = rules.load({"stripe.yaml": (rules.SHIPPED / "stripe.yaml").read_text("utf-8")}, {}, sources.presets())
COST = st.integers(0, 20_000)
SEATS = st.integers(1, 50)


def changes(now, then):
    body = {
        "id": "evt_1",
        "type": "customer.subscription.updated",
        "data": {"object": now, "previous_attributes": then},
    }
    document = Document(body, root=body, envelope={"type": body["type"]})
    found = rules.evaluate(SHIPPED, SHIPPED.sources["stripe"], document, event_name="e", mode="live", hash_key=b"k")
    return [goal.name for goal in found.planned]


@given(COST, COST, SEATS, SEATS)
def test_seats_never_decide_whether_a_plan_is_dearer(old, new, before, now):
    then = {"items": {"data": [item("si_1", before, amount=old) | {"price": price("price_old", old)}]}}
    found = changes(subscription({"id": "si_2", "quantity": now, "price": price("price_new", new)}), then)
    assert found == (["plan_upgraded"] if new > old else ["plan_downgraded"] if new < old else [])


@given(st.lists(st.tuples(COST, SEATS), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_another_order_of_the_items_is_never_a_change(costs, random):
    items = [
        {"id": f"si_{n}", "quantity": seats, "price": price(f"p{n}", cost)} for n, (cost, seats) in enumerate(costs)
    ]
    shuffled = random.sample(items, len(items))
    assert changes(subscription(*shuffled), {"items": {"data": items}}) == []
