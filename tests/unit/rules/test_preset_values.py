"""The values of every preset: exact money, nothing that cannot be known, and the cost of a month in any order."""

# ruff: noqa: E501 - tables of bodies, one a line

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import rules, sources
from bridge.model import MISSING, Document
from bridge.rules.language.templates import with_values
from docs import values as table

PRESETS = sources.presets()
HAVING = [name for name in PRESETS if "values" in PRESETS[name] and name != "revenuecat-signed"]
TEXT = "provider: {}\ngoals: [{{id: r, goal: g, event: '*'}}]\n"
LOADED = rules.load({f"{name}.yaml": TEXT.format(name) for name in HAVING}, {}, PRESETS).sources


def value(preset, name, event_type, body):
    document = Document(body, root=body, envelope={"type": event_type})
    found = with_values(document, LOADED[preset], event_type, b"k")
    return found.derived.value(name, found)


def choices(preset, name):
    written = PRESETS[preset]["values"][name]
    return [one if isinstance(one, dict) else {"value": one} for one in (written if isinstance(written, list) else [written])]  # fmt: skip


def events(choice):
    """An event type for each glob of a value."""
    globs = choice.get("event", "*")
    return [re.sub(r"\*", "x", glob) for glob in ([globs] if isinstance(globs, str) else globs)]


# ---------------------------------------------------------------------------------------------------------- money

MINOR = {  # preset -> (event type, value, the body of an amount in minor units)
    "stripe": [
        ("checkout.session.completed", "amount", lambda n, c: {"data": {"object": {"amount_total": n, "currency": c}}}),
        ("charge.refunded", "amount", lambda n, c: {"data": {"object": {"amount_refunded": n, "currency": c}}}),
        ("invoice.paid", "amount", lambda n, c: {"data": {"object": {"amount_paid": n, "currency": c}}}),
        ("invoice.payment_failed", "amount", lambda n, c: {"data": {"object": {"amount_due": n, "currency": c}}}),
        ("payment_intent.succeeded", "amount", lambda n, c: {"data": {"object": {"amount_received": n, "currency": c}}}),
        ("customer.subscription.updated", "amount",
         lambda n, c: {"data": {"object": {"items": {"data": [{"price": {"unit_amount": n, "currency": c}}]}}}}),
        ("charge.dispute.created", "amount", lambda n, c: {"data": {"object": {"amount": n, "currency": c}}}),
    ],
    "lemonsqueezy": [
        ("order_created", "amount", lambda n, c: {"data": {"attributes": {"total": n, "currency": c}}}),
        ("subscription_payment_failed", "amount", lambda n, c: {"data": {"attributes": {"total": n, "currency": c}}}),
        ("order_refunded", "refunded_total", lambda n, c: {"data": {"attributes": {"refunded_amount": n, "currency": c}}}),
    ],
    "clerk": [
        ("paymentAttempt.updated", "amount",
         lambda n, c: {"data": {"totals": {"grand_total": {"amount": n, "currency": c}}}}),
    ],
    "polar": [
        ("order.paid", "amount", lambda n, c: {"data": {"total_amount": n, "currency": c}}),
        ("checkout.updated", "amount", lambda n, c: {"data": {"total_amount": n, "currency": c}}),
        ("refund.created", "amount", lambda n, c: {"data": {"amount": n, "tax_amount": 0, "currency": c}}),
        ("subscription.active", "amount", lambda n, c: {"data": {"amount": n, "currency": c}}),
        ("order.refunded", "refunded_total", lambda n, c: {"data": {"refunded_amount": n, "currency": c}}),
    ],
    "dodo": [
        ("payment.succeeded", "amount", lambda n, c: {"data": {"total_amount": n, "currency": c}}),
        ("refund.succeeded", "amount", lambda n, c: {"data": {"amount": n, "currency": c}}),
        ("subscription.active", "amount", lambda n, c: {"data": {"recurring_pre_tax_amount": n, "currency": c}}),
    ],
    "paddle": [
        ("transaction.completed", "amount",
         lambda n, c: {"data": {"currency_code": c, "details": {"totals": {"grand_total": str(n)}}}}),
        ("adjustment.created", "amount", lambda n, c: {"data": {"currency_code": c, "totals": {"total": str(n)}}}),
        ("subscription.updated", "amount",
         lambda n, c: {"data": {"currency_code": c, "items": [{"price": {"unit_price": {"amount": str(n)}}}]}}),
    ],
    "creem": [
        ("checkout.completed", "amount", lambda n, c: {"object": {"order": {"amount_paid": n, "currency": c}}}),
        ("refund.created", "amount", lambda n, c: {"object": {"refund_amount": n, "refund_currency": c}}),
        ("subscription.paid", "amount", lambda n, c: {"object": {"product": {"price": n, "currency": c}}}),
        ("dispute.created", "amount", lambda n, c: {"object": {"amount": n, "currency": c}}),
    ],
    "chargebee": [
        ("payment_succeeded", "amount", lambda n, c: {"content": {"transaction": {"amount": n, "currency_code": c}}}),
        ("invoice_generated", "amount", lambda n, c: {"content": {"invoice": {"total": n, "currency_code": c}}}),
    ],
    "calcom": [("BOOKING_PAID", "amount", lambda n, c: {"payload": {"price": n, "currency": c}})],
}  # fmt: skip
DOLLARS = {  # in US cents, whatever the currency
    "gumroad": ("sale", lambda n: {"price": str(n), "currency": "jpy"}),
    "github": ("sponsorship", lambda n: {"sponsorship": {"tier": {"monthly_price_in_cents": n}}}),
}
WHOLE = {  # in whole units
    "whop": [
        ("payment.succeeded", lambda a: {"data": {"settlement_amount": a}}),
        ("payment_succeeded", lambda a: {"data": {"total": a}}),
        ("refund.created", lambda a: {"data": {"amount": a}}),
    ],
    "shopify": [
        ("orders/paid", lambda a: {"total_price": a}),
        ("refunds/create", lambda a: {"transactions": [{"kind": "refund", "status": "success", "amount": a}]}),
    ],
    "woocommerce": [("order.updated", lambda a: {"total": a})],
    "revenuecat": [("RENEWAL", lambda a: {"event": {"price": "999", "price_in_purchased_currency": a}})],
    "kofi": [("Donation", lambda a: {"amount": a})],
    "buymeacoffee": [("donation.created", lambda a: {"data": {"amount": a}})],
    "calendly": [("invitee.created", lambda a: {"payload": {"payment": {"amount": a}}})],
}
PLACES = {"jpy": 0, "USD": 2, "eur": 2, "kwd": 3, "huf": 2}
CENTS = st.integers(0, 10**10)


def test_every_amount_of_a_preset_is_held_to_its_unit():
    assert {name for name in HAVING if "amount" in PRESETS[name]["values"]} == {*MINOR, *DOLLARS, *WHOLE}
    for preset, said in MINOR.items():
        told = [event for event, name, _ in said if name == "amount"]
        for choice in choices(preset, "amount"):
            assert any(rules_match(glob, event) for glob in globs_of(choice) for event in told), choice


def globs_of(choice):
    globs = choice.get("event", "*")
    return [globs] if isinstance(globs, str) else globs


def rules_match(glob, event):
    return re.fullmatch(re.escape(glob).replace(r"\*", ".*"), event)


@given(CENTS, st.sampled_from(sorted(PLACES)))
def test_an_amount_is_never_in_minor_units(cents, currency):
    for preset, said in MINOR.items():
        for event, name, body in said:
            found = Decimal(str(value(preset, name, event, body(cents, currency))))
            exact = Decimal(cents).scaleb(-PLACES[currency])
            assert (found, found.as_tuple().exponent) == (exact, -PLACES[currency]), (preset, event)


@given(CENTS)
def test_what_a_provider_counts_in_us_cents_is_in_dollars(cents):
    for preset, (event, body) in DOLLARS.items():
        assert Decimal(str(value(preset, "amount", event, body(cents)))) == Decimal(cents).scaleb(-2)
        assert value(preset, "currency", event, body(cents)) == "USD"


@given(st.decimals(0, 10**6, places=2))
def test_what_a_provider_writes_in_whole_units_stays_so(amount):
    for preset, said in WHOLE.items():
        for event, body in said:
            assert Decimal(str(value(preset, "amount", event, body(str(amount))))) == amount, (preset, event)


def test_a_currency_that_is_missing_makes_no_amount():
    for preset, said in MINOR.items():
        for event, name, body in said:
            assert value(preset, name, event, body(4900, None)) is MISSING, (preset, event)
            assert value(preset, name, event, body(None, "usd")) is MISSING, (preset, event)


@pytest.mark.parametrize("preset", HAVING)
@pytest.mark.parametrize("body", [{}, {"data": None, "object": [], "event": "", "content": 0, "payload": {}}], ids=["empty", "odd"])  # fmt: skip
def test_what_an_event_does_not_tell_is_missing_and_never_zero(preset, body):
    for name in PRESETS[preset]["values"]:
        for choice in choices(preset, name):
            constant = "{" not in choice.get("value", "{")
            for event in events(choice):
                found = value(preset, name, event, body)
                assert constant or found is MISSING, (name, event, found)
                assert name not in ("amount", "monthly", "refunded_total") or found is MISSING


def test_refunds_of_woocommerce_are_added_up_and_are_above_zero():
    two = {"currency": "EUR", "refunds": [{"id": 1, "total": "-19.35"}, {"id": 2, "total": "-10.00"}]}
    assert str(value("woocommerce", "refunded_total", "order.updated", two)) == "29.35"
    assert value("woocommerce", "refunded_total", "order.updated", {"currency": "EUR", "refunds": []}) is MISSING


# ---------------------------------------------------------------------------------------------------- the month


def stripe(items, currency):
    listed = [
        {"quantity": quantity, "price": {"id": f"p{n}", "unit_amount": amount, "currency": currency,
                                         "recurring": {"interval": interval, "interval_count": count}}}
        for n, (amount, quantity, interval, count) in enumerate(items)
    ]  # fmt: skip
    return {"data": {"object": {"currency": currency, "items": {"data": listed}}}}


def paddle(items, currency):
    listed = [
        {"quantity": quantity, "price": {"id": f"p{n}",
                                         "unit_price": {"amount": str(amount), "currency_code": currency},
                                         "billing_cycle": {"interval": interval, "frequency": count}}}
        for n, (amount, quantity, interval, count) in enumerate(items)
    ]  # fmt: skip
    return {"data": {"currency_code": currency, "items": listed}}


def polar(items, currency):
    ((amount, quantity, interval, count),) = items
    return {"data": {"amount": amount * quantity, "currency": currency, "recurring_interval": interval,
                     "recurring_interval_count": count, "prices": [{"id": "p", "amount_type": "fixed"}]}}  # fmt: skip


def dodo(items, currency):
    ((amount, quantity, interval, count),) = items
    return {"data": {"recurring_pre_tax_amount": amount * quantity, "currency": currency, "quantity": quantity,
                     "payment_frequency_interval": interval.capitalize(), "payment_frequency_count": count}}  # fmt: skip


def chargebee(items, currency):
    ((amount, quantity, interval, count),) = items
    sold = [{"item_price_id": "p", "item_type": "plan", "unit_price": amount, "quantity": quantity, "free_quantity": 0},
            {"item_price_id": "setup", "item_type": "charge", "unit_price": 7, "quantity": 1}]  # fmt: skip
    return {"content": {"subscription": {"currency_code": currency, "billing_period_unit": interval,
                                         "billing_period": count, "subscription_items": sold}}}  # fmt: skip


def creem(items, currency):
    ((amount, quantity, interval, count),) = items
    period = CREEM.get((interval, count))
    return {"object": {"product": {"price": amount, "currency": currency, "billing_period": period},
                       "items": [{"product_id": "prod_1", "units": quantity}]}}  # fmt: skip


CREEM = {
    ("day", 1): "every-day",
    ("month", 1): "every-month",
    ("month", 3): "every-three-months",
    ("month", 6): "every-six-months",
    ("year", 1): "every-year",
}
MONTHLY = {  # preset -> (a subscription of items, how many it can have)
    "stripe": ("customer.subscription.updated", stripe, 5),
    "paddle": ("subscription.updated", paddle, 5),
    "polar": ("subscription.updated", polar, 1),
    "dodo": ("subscription.updated", dodo, 1),
    "chargebee": ("subscription_changed", chargebee, 1),
    "creem": ("subscription.update", creem, 1),
}
PER_MONTH = {"day": Fraction(365, 12), "week": Fraction(52, 12), "month": Fraction(1), "year": Fraction(1, 12)}
ITEM = st.tuples(
    st.integers(0, 10**7), st.integers(0, 500), st.sampled_from(sorted(PER_MONTH)), st.sampled_from([1, 2, 3, 6, 12])
)


def monthly(preset, items, currency="usd"):
    event, body, _ = MONTHLY[preset]
    return value(preset, "monthly", event, body(items, currency))


def test_every_preset_with_a_cost_per_month_is_tried():
    assert {name for name in HAVING if "monthly" in PRESETS[name]["values"]} == set(MONTHLY)


@given(st.lists(ITEM, min_size=1, max_size=5), st.sampled_from(sorted(PLACES)), st.randoms(use_true_random=False))
def test_a_month_costs_the_exact_sum_rounded_once_in_any_order(items, currency, random):
    for preset, (_, _, most) in MONTHLY.items():
        some = items[:most]
        if preset == "creem" and some[0][2:] not in CREEM:
            assert monthly(preset, some, currency) is MISSING  # it has no such interval
            continue
        exact = sum(amount * quantity * PER_MONTH[interval] / count for amount, quantity, interval, count in some)
        expected = Decimal(int(exact + Fraction(1, 2))).scaleb(-PLACES[currency])
        found = monthly(preset, some, currency)
        assert Decimal(str(found)) == expected
        assert monthly(preset, random.sample(some, len(some)), currency) == found


@given(st.integers(1, 10**5), st.integers(1, 50))
def test_prices_of_equal_worth_cost_the_same_per_month(worth, quantity):
    # 52 weeks and 365 days are the twelve months of a year: each of these is `worth` * 52 * 365 a year
    year = worth * 52 * 365 * 12
    same = [(year, quantity, "year", 1), (year // 12, quantity, "month", 1), (year // 4, quantity, "month", 3),
            (year // 52, quantity, "week", 1), (year // 365, quantity, "day", 1), (2 * year, quantity, "year", 2)]  # fmt: skip
    for preset in MONTHLY:
        known = [item for item in same if preset != "creem" or item[2:] in CREEM]
        assert len({str(monthly(preset, [item])) for item in known}) == 1, preset


UNKNOWN = {  # preset -> what makes the cost of a month unknown
    "stripe": [
        lambda body: body["data"]["object"]["items"]["data"][0]["price"]["recurring"].update(usage_type="metered"),
        lambda body: body["data"]["object"]["items"]["data"][0]["price"].update(billing_scheme="tiered"),
        lambda body: body["data"]["object"]["items"]["data"][0]["price"].update(transform_quantity={"divide_by": 10}),
        lambda body: body["data"]["object"]["items"]["data"][0]["price"].update(currency="eur"),
        lambda body: body["data"]["object"]["items"]["data"][0]["price"].update(unit_amount=None),
        lambda body: body["data"]["object"]["items"].update(has_more=True),
    ],
    "paddle": [
        lambda body: body["data"]["items"][0]["price"].update(unit_price_overrides=[{"country_codes": ["DE"]}]),
        lambda body: body["data"]["items"][0]["price"]["unit_price"].update(currency_code="EUR"),
        lambda body: body["data"]["items"][0]["price"].update(billing_cycle=None),
        lambda body: body["data"].update(items="many"),
    ],
    "polar": [
        lambda body: body["data"]["prices"].append({"id": "q", "amount_type": "metered_unit"}),
        lambda body: body["data"].update(amount=None),
        lambda body: body["data"].update(recurring_interval=None),
        lambda body: body["data"].update(currency=None),
    ],
    "dodo": [
        lambda body: body["data"].update(on_demand=True),
        lambda body: body["data"].update(meters=[{"meter_id": "m"}]),
        lambda body: body["data"].update(recurring_pre_tax_amount=None),
        lambda body: body["data"].update(payment_frequency_interval=None),
    ],
    "chargebee": [
        lambda body: body["content"]["subscription"]["subscription_items"].append({"item_type": "addon"}),
        lambda body: body["content"]["subscription"]["subscription_items"][0].update(metered_quantity="3"),
        lambda body: body["content"]["subscription"]["subscription_items"][0].update(free_quantity=1),
        lambda body: body["content"]["subscription"]["subscription_items"][0].pop("unit_price"),
        lambda body: body["content"]["subscription"].update(item_tiers=[{"starting_unit": 1}]),
        lambda body: body["content"]["subscription"].update(billing_period_unit=None),
        lambda body: body["content"]["subscription"].update(currency_code=None),
    ],
    "creem": [
        lambda body: body["object"]["product"].update(billing_period="once"),
        lambda body: body["object"]["product"].update(price=None),
        lambda body: body["object"]["items"].append({"product_id": "prod_2", "units": 1}),
        lambda body: body["object"].update(product="prod_1"),
    ],
}


@pytest.mark.parametrize("preset", MONTHLY)
def test_a_month_whose_cost_cannot_be_known_is_missing(preset):
    event, body, most = MONTHLY[preset]
    items = [(4900, 2, "month", 1), (500, 1, "year", 1)][:most]
    assert value(preset, "monthly", event, body(items, "usd")) is not MISSING
    for change in UNKNOWN[preset]:
        changed = body(items, "usd")
        change(changed)
        assert value(preset, "monthly", event, changed) is MISSING


def test_an_older_catalogue_of_chargebee_has_one_plan_and_addons_whose_period_is_not_told():
    plan = {"plan_id": "pro", "plan_unit_price": 4900, "plan_quantity": 2, "currency_code": "USD"}
    plan |= {"billing_period": 1, "billing_period_unit": "year"}
    body = {"content": {"subscription": plan}}
    assert str(value("chargebee", "monthly", "subscription_changed", body)) == "8.17"
    body["content"]["subscription"]["addons"] = [{"id": "seats", "unit_price": 100}]
    assert value("chargebee", "monthly", "subscription_changed", body) is MISSING


KEYS = ["data", "object", "items", "price", "prices", "amount", "currency", "quantity", "payload", "content"]
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
)


@pytest.mark.long
@given(st.sampled_from(HAVING), BODIES)
def test_no_body_makes_a_value_raise(preset, body):
    for name in PRESETS[preset]["values"]:
        for choice in choices(preset, name):
            value(preset, name, events(choice)[0], body)


# ----------------------------------------------------------------------------------------------------- the table


def test_the_table_tells_every_value_with_its_meaning_and_unit():
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.table().splitlines()[2:]]
    assert len(rows) > 100
    for preset, name, told, meaning, unit in rows:
        assert all((preset, name, told, meaning.strip("|"), unit.strip(" |"))), (preset, name)
    told = {(row[0].strip("| `"), row[1].strip("`")) for row in rows}
    steps = {"provider", "price_currency", "nothing", "refunds"}
    for name in table.providers():
        assert {value for preset, value in told if preset == name} == set(PRESETS[name].get("values", {})) - steps
