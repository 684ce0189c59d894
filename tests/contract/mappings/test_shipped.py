"""The shipped mapping files: pinned names, real payloads, and that they say what they do."""

# ruff: noqa: E501 - tables of cases, one a line

from __future__ import annotations

import copy
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import mapping_tests, rules, settings, sources
from bridge.model import Document

ROOT = Path(__file__).parents[3]
PAYLOADS = Path(__file__).parent / "payloads"
SHIPPED = rules.load(rules.read_files(ROOT / "mappings"), {}, sources.presets())
EXAMPLES = rules.load(rules.read_files(ROOT / "mappings" / "examples"), {}, sources.presets())
ALL = [(rule_set, name) for rule_set in (SHIPPED, EXAMPLES) for name in rule_set.sources]

# name -> (events, once_per, metadata in order, whether it is on)
STRIPE = {
    "purchase": (
        ("checkout.session.completed", "checkout.session.async_payment_succeeded"),
        "{data.object.id}",
        "provider amount currency mode plan discount",
        True,
    ),
    "refund": (
        ("charge.refunded",),
        "{data.object.id}:{data.object.amount_refunded}",
        "provider amount currency full charged",
        True,
    ),
    "dispute": (("charge.dispute.created",), "{data.object.id}", "provider amount currency reason", True),
    "dispute-escalated": (
        ("charge.dispute.funds_withdrawn",),
        "{data.object.id}",
        "provider amount currency reason",
        True,
    ),
    "payment_failed": (("invoice.payment_failed",), "{data.object.id}", "provider amount currency plan attempt", True),
    "payment_recovered": (("invoice.paid",), "{data.object.id}", "provider amount currency plan attempts", True),
    "payment-recovered-by-hand": (
        ("invoice.paid",),
        "{data.object.id}",
        "provider amount currency plan attempts",
        True,
    ),
    "cancel_scheduled": (
        ("customer.subscription.updated",),
        None,
        "provider plan amount currency interval feedback status",
        True,
    ),
    "cancel_undone": (
        ("customer.subscription.updated",),
        "{data.object.id}:{data.previous_attributes.cancel_at or id}",
        "provider plan",
        True,
    ),
    "plan_upgraded": (
        ("customer.subscription.updated",),
        "{data.object.id}:{id}",
        "provider from_plan to_plan from_amount to_amount currency interval from_monthly to_monthly",
        True,
    ),
    "plan_downgraded": (
        ("customer.subscription.updated",),
        "{data.object.id}:{id}",
        "provider from_plan to_plan from_amount to_amount currency interval from_monthly to_monthly",
        True,
    ),
    "involuntary_churn": (
        ("customer.subscription.deleted",),
        "{data.object.id}",
        "provider plan amount currency reason",
        True,
    ),
    "purchase-payment-intent": (
        ("payment_intent.succeeded",),
        "{data.object.id}",
        "provider amount currency plan",
        False,
    ),
    "trial_converted": (("customer.subscription.updated",), "{data.object.id}", "provider plan amount currency", False),
    "trial_ending": (
        ("customer.subscription.trial_will_end",),
        "{data.object.id}:{data.object.trial_end}",
        "provider plan",
        False,
    ),
    "checkout_abandoned": (("checkout.session.expired",), "{data.object.id}", "provider amount currency mode", False),
    "renewal": (("invoice.paid",), "{data.object.id}", "provider amount currency plan interval", False),
    "churned": (("customer.subscription.deleted",), "{data.object.id}", "provider plan reason feedback", False),
    "dispute_lost": (("charge.dispute.closed",), "{data.object.id}", "provider amount currency", False),
    "dispute_won": (("charge.dispute.closed",), "{data.object.id}", "provider amount currency", False),
    "card_added": (("checkout.session.completed",), "{data.object.id}", "provider", False),
}
LEMONSQUEEZY = {
    "purchase": (("order_created",), "{data.id}", "provider amount currency amount_usd product variant discount", True),
    "refund": (
        ("order_refunded",),
        "{data.id}:{data.attributes.refunded_amount or data.attributes.refunded_at}",
        "provider refunded_total currency full product",
        True,
    ),
    "refund-invoice": (
        ("subscription_payment_refunded",),
        "invoice:{data.id}:{data.attributes.refunded_amount}",
        "provider refunded_total currency full billing_reason",
        True,
    ),
    "payment_failed": (("subscription_payment_failed",), "{data.id}", "provider amount currency amount_usd", True),
    "payment_recovered": (
        ("subscription_payment_recovered",),
        "{data.id}",
        "provider amount currency amount_usd",
        True,
    ),
    "cancel_scheduled": (
        ("subscription_cancelled",),
        "{data.id}:{data.attributes.ends_at}",
        "provider product variant status ends_at",
        True,
    ),
    "cancel_undone": (
        ("subscription_resumed",),
        "{data.id}:{data.attributes.updated_at}",
        "provider product variant",
        True,
    ),
    "plan_changed": (
        ("subscription_plan_changed",),
        "{data.id}:{data.attributes.variant_id}:{data.attributes.updated_at}",
        "provider product variant",
        True,
    ),
    "subscription_paused": (
        ("subscription_paused",),
        "{data.id}:{data.attributes.updated_at}",
        "provider product mode",
        False,
    ),
    "subscription_unpaused": (
        ("subscription_unpaused",),
        "{data.id}:{data.attributes.updated_at}",
        "provider product mode",
        False,
    ),
    "license_activated": (("license_key_updated",), "{data.id}", "provider instances", False),
    "renewal": (("subscription_payment_success",), "{data.id}", "provider amount currency amount_usd", False),
    "churned": (("subscription_expired",), "{data.id}", "provider product variant", False),
}


# the goals of rules that have an id of their own
GOALS = {
    "dispute-escalated": "dispute",
    "payment-recovered-by-hand": "payment_recovered",
    "purchase-payment-intent": "purchase",
    "refund-invoice": "refund",
}


@pytest.mark.parametrize(("source", "pinned"), [("stripe", STRIPE), ("lemonsqueezy", LEMONSQUEEZY)])
def test_the_goals_are_those_that_are_pinned(source, pinned):
    found = {rule.id: rule for rule in SHIPPED.rules[source]}
    assert list(found) == list(pinned)
    for rule_id, (events, once_per, metadata, enabled) in pinned.items():
        rule = found[rule_id]
        assert rule.goal == GOALS.get(rule_id, rule_id)
        assert rule.events == events
        assert [key for key, _ in rule.metadata] == metadata.split()
        assert rule.enabled is enabled
        if once_per is not None:
            assert [once.text for once in rule.once_per] == [once_per]


def test_the_generic_file_is_what_is_pinned():
    (rule,) = SHIPPED.rules["generic"]
    source = SHIPPED.sources["generic"]
    assert (rule.id, rule.goal, rule.events, rule.once_per[0].text) == ("any", "{event}", ("*",), "id")
    assert source.provider == "standard-webhooks"
    assert [path.text for path in source.envelope.type] == ["event"]
    assert [path.text for path in source.visitor] == ["datafast_visitor_id"]
    assert source.secret_names == ("GENERIC_WEBHOOK_SECRET",)


@pytest.mark.parametrize(("rule_set", "name"), ALL)
def test_the_tests_inside_the_file_pass_and_reach_every_rule(rule_set, name):
    alone = replace(rule_set, mappings={name: rule_set.mappings[name]})
    found = mapping_tests.run_tests(alone, settings.load({}), 1_790_000_000_000)
    assert [result for result in found if not result.ok] == []
    expected = {goal.goal for _, test in rule_set.mappings[name].tests for goal in test.goals}
    assert {rule.goal for rule in rule_set.rules[name] if rule.id != "any"} <= expected | {"renewal"}


@pytest.mark.parametrize(("rule_set", "name"), ALL)
def test_a_test_shows_where_the_visitor_comes_from_if_the_provider_hands_one_over(rule_set, name):
    source = rule_set.sources[name]
    found = {goal.visitor for _, test in rule_set.mappings[name].tests for goal in test.goals} - {None}
    assert bool(found) is bool(source.visitor or source.borrowed)


@pytest.mark.parametrize(("rule_set", "name"), ALL)
def test_nothing_is_warned_of_but_the_missing_secret(rule_set, name):
    found = [warning for warning in rule_set.warnings if f"/{name}.yaml:" in warning]
    assert len(found) == 1
    assert "is not set" in found[0]


@pytest.mark.parametrize(("rule_set", "name"), ALL)
def test_every_rule_says_in_words_what_it_is_for(rule_set, name):
    lines = rule_set.files[f"{name}.yaml"].splitlines()
    for rule in rule_set.rules[name]:
        above = lines[rule.line - 2].strip()
        assert above.startswith("# "), f"{name}.yaml:{rule.line}"
        assert above.endswith((".", ")", "…", "upgrade]")), above
        if not rule.enabled:
            assert lines[rule.line].strip().startswith("enabled: false # switch on "), f"{name}.yaml:{rule.line}"


@pytest.mark.parametrize(("rule_set", "name"), ALL)
def test_every_rule_is_short_and_no_alternative_is_said_twice(rule_set, name):
    text = rule_set.files[f"{name}.yaml"]
    lines = text.partition("\ntests:")[0].splitlines()
    for rule in rule_set.rules[name]:
        below = itertools.takewhile(lambda line: line.startswith("    ") and line.strip(), lines[rule.line :])
        assert 1 + len(list(below)) <= 8, f"{name}.yaml:{rule.line}"
    chains = re.findall(r"[^{]* or [^}|]*", "\n".join(line for line in lines if not line.lstrip().startswith("#")))
    assert len(chains) == len(set(chains))


PERSONAL = re.compile(r"email(?!_confirmed|_id|[._]clicked)|user_name|customer_details|ip_country|full_name")


def test_no_shipped_rule_takes_more_than_seven_keys_or_personal_data():
    for rule_set, name in ALL:
        said = rule_set.files[f"{name}.yaml"].partition("\ntests:")[0]
        said = re.sub(r"(?m)^(?: *#|links:).*$", "", said)  # an address under `links:` is hashed
        assert PERSONAL.search(said) is None, name
        for rule in rule_set.rules[name]:
            if isinstance(rule.metadata, tuple):
                assert len(rule.metadata) <= (9 if rule.goal.startswith("plan_") else 7)


# ----------------------------------------------------------------------------------------------------- real payloads


def planned(source_name, body, event_name="evt_1"):
    """goal -> metadata of what the shipped rules make of a body, with the real envelope of its source."""
    source = SHIPPED.sources[source_name]
    envelope = {"type": source.envelope.type[0].read(Document(body=body)), "id": event_name}
    document = Document(body=body, root=body, envelope=envelope)
    found = rules.evaluate(SHIPPED, source, document, event_name=event_name, mode="live", hash_key=b"k")
    assert not [trace for trace in found.traces if trace.result == "failed"]
    return {goal.name: dict(goal.metadata) for goal in found.planned}


def payload(name):
    return json.loads((PAYLOADS / name).read_text("utf-8"))


FIRING = {
    "stripe/stripe-ruby-mock.checkout.session.completed.json": {
        "purchase": {"provider": "stripe", "amount": "30.00", "currency": "USD", "mode": "payment"}
    },
    "stripe/stripe-ruby-mock.checkout.session.completed.payment_mode.json": {
        "purchase": {"provider": "stripe", "amount": "250.00", "currency": "USD", "mode": "payment"}
    },
    "stripe/stripe-sync-engine.checkout_session_completed.json": {
        "purchase": {"provider": "stripe", "amount": "9.99", "currency": "EUR", "mode": "payment"}
    },
    "stripe/stripe-ruby-mock.charge.refunded.json": {
        "refund": {"provider": "stripe", "amount": "1.00", "currency": "USD", "full": "true", "charged": "1.00"}
    },
    "stripe/stripe-sync-engine.charge_refunded.json": {
        "refund": {"provider": "stripe", "amount": "25.00", "currency": "USD", "full": "true", "charged": "25.00"}
    },
    "lemonsqueezy/derived.order_created.json": {
        "purchase": {
            "provider": "lemonsqueezy",
            "amount": "19.99",
            "currency": "EUR",
            "amount_usd": "21.47",
            "product": "MelodyMatrix (1 year subscription)",
            "variant": "Default",
        }
    },
    "lemonsqueezy/derived.order_refunded.json": {
        "refund": {
            "provider": "lemonsqueezy",
            "refunded_total": "19.99",
            "currency": "EUR",
            "full": "true",
            "product": "MelodyMatrix (1 year subscription)",
        }
    },
    "lemonsqueezy/derived.subscription_cancelled.json": {
        "cancel_scheduled": {
            "provider": "lemonsqueezy",
            "product": "MelodyMatrix (1 year subscription)",
            "variant": "Default",
            "status": "cancelled",
            "ends_at": "2025-06-19",
        }
    },
    "lemonsqueezy/derived.subscription_payment_failed.json": {
        "payment_failed": {"provider": "lemonsqueezy", "amount": "19.99", "currency": "EUR", "amount_usd": "21.47"}
    },
    "lemonsqueezy/derived.subscription_payment_recovered.json": {
        "payment_recovered": {"provider": "lemonsqueezy", "amount": "19.99", "currency": "EUR", "amount_usd": "21.47"}
    },
    "lemonsqueezy/derived.subscription_plan_changed.json": {
        "plan_changed": {"provider": "lemonsqueezy", "product": "MelodyMatrix (1 year subscription)", "variant": "Team"}
    },
    "lemonsqueezy/derived.subscription_resumed.json": {
        "cancel_undone": {
            "provider": "lemonsqueezy",
            "product": "MelodyMatrix (1 year subscription)",
            "variant": "Default",
        }
    },
    "lemonsqueezy/lemonsqueezy-go.order_created.json": {
        "purchase": {
            "provider": "lemonsqueezy",
            "amount": "18.59",
            "currency": "EUR",
            "amount_usd": "20.16",
            "product": "Product One",
            "variant": "Default",
        }
    },
    "lemonsqueezy/pay-rails.order_created.json": {
        "purchase": {
            "provider": "lemonsqueezy",
            "amount": "58.99",
            "currency": "USD",
            "amount_usd": "58.99",
            "product": "Product One",
            "variant": "Default",
        }
    },
}
NAMES = sorted(f"{path.parent.name}/{path.name}" for path in PAYLOADS.glob("*/*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_real_payload_makes_these_goals(name):
    assert planned(name.partition("/")[0], payload(name)) == FIRING.get(name, {})


def test_every_payload_of_the_table_is_there():
    assert set(FIRING) <= set(NAMES)


# -------------------------------------------------------------------------------------- Stripe, before and after basil

RECURRING = {
    "id": "price_1",
    "nickname": None,
    "lookup_key": None,
    "unit_amount": 4900,
    "currency": "usd",
    "recurring": {"interval": "month"},
}
LINES = {
    "2020-08-27": {
        "price": {**RECURRING, "product": "prod_1"},
        "plan": {"id": "price_1", "interval": "month"},
        "metadata": {},
    },
    "basil": {
        "pricing": {"type": "price_details", "price_details": {"price": "price_1", "product": "prod_1"}},
        "metadata": {},
    },
}


@pytest.mark.parametrize("shape", LINES)
@pytest.mark.parametrize(
    ("kind", "fields", "goal", "metadata"),
    [
        ("invoice.payment_failed", {"amount_due": 4900, "attempt_count": 1}, "payment_failed", {"attempt": "1"}),
        ("invoice.paid", {"amount_paid": 4900, "attempt_count": 2}, "payment_recovered", {"attempts": "2"}),
    ],
)
def test_invoices_work_in_every_shape(shape, kind, fields, goal, metadata):
    invoice = {
        "id": "in_1",
        "currency": "usd",
        "billing_reason": "subscription_cycle",
        "lines": {"data": [LINES[shape]]},
        **fields,
    }
    body = {"id": "evt_1", "type": kind, "data": {"object": invoice}}
    assert planned("stripe", body) == {
        goal: {"provider": "stripe", "amount": "49.00", "currency": "USD", "plan": "price_1", **metadata}
    }


@pytest.mark.parametrize("where", [("parent", "subscription_details"), ("subscription_details",)])
def test_your_own_plan_name_wins_on_invoices(where):
    holder: dict = {"metadata": {"plan": "pro"}, "subscription": "sub_1"}
    for key in reversed(where):
        holder = {key: holder}
    invoice = {
        "id": "in_1",
        "currency": "usd",
        "billing_reason": "subscription_cycle",
        "amount_due": 100,
        "lines": {"data": [LINES["basil"]]},
    }
    body = {"type": "invoice.payment_failed", "data": {"object": {**invoice, **holder}}}
    assert planned("stripe", body)["payment_failed"]["plan"] == "pro"


SUBSCRIPTIONS = {
    "2020-08-27": {
        "current_period_end": 1760000000,
        "items": {"data": [{"price": RECURRING, "plan": {"id": "price_1", "interval": "month", "amount": 4900}}]},
        "plan": {"id": "price_1"},
    },
    "basil": {
        "currency": "usd",
        "items": {"data": [{"current_period_end": 1760000000, "price": RECURRING, "plan": {"id": "price_1"}}]},
    },
}


@pytest.mark.parametrize("shape", SUBSCRIPTIONS)
@pytest.mark.parametrize(
    "scheduled",
    [
        {"cancel_at_period_end": True, "cancel_at": 1760000000},
        {"cancel_at_period_end": True},
        {"cancel_at": 1760000000},
    ],
)
def test_a_cancellation_is_seen_however_it_is_told(shape, scheduled):
    now = {"id": "sub_1", "status": "active", **SUBSCRIPTIONS[shape], **scheduled}
    before = {key: False if value is True else None for key, value in scheduled.items()}
    body = {
        "id": "evt_1",
        "type": "customer.subscription.updated",
        "data": {"object": now, "previous_attributes": before},
    }
    source = SHIPPED.sources["stripe"]
    document = Document(body=body, envelope={"type": body["type"]})
    found = rules.evaluate(SHIPPED, source, document, event_name="evt_1", mode="live", hash_key=b"k")
    (goal,) = found.planned
    assert goal.name == "cancel_scheduled"
    assert goal.once_key == "stripe:live:cancel_scheduled:sub_1:1760000000"
    assert goal.metadata == {
        "provider": "stripe",
        "plan": "price_1",
        "amount": "49.00",
        "currency": "USD",
        "interval": "month",
        "status": "active",
    }


@pytest.mark.parametrize("shape", SUBSCRIPTIONS)
def test_a_plan_change_compares_prices_and_not_presence(shape):
    now = {"id": "sub_1", "status": "active", **copy.deepcopy(SUBSCRIPTIONS[shape])}
    before = {"items": copy.deepcopy(now["items"])}
    body = {
        "id": "evt_1",
        "type": "customer.subscription.updated",
        "data": {"object": now, "previous_attributes": before},
    }
    assert planned("stripe", body) == {}
    before["items"]["data"][0]["price"] |= {"id": "price_0", "unit_amount": 900}
    assert planned("stripe", body)["plan_upgraded"] == {
        "provider": "stripe", "from_plan": "price_0", "to_plan": "price_1", "from_amount": "9.00", "to_amount": "49.00", "currency": "USD", "interval": "month",
        "from_monthly": "9.00", "to_monthly": "49.00",
    }  # fmt: skip
    before["items"]["data"][0]["price"] |= {"unit_amount": 9900}
    assert list(planned("stripe", body)) == ["plan_downgraded"]
    before["items"]["data"][0]["price"] |= {"unit_amount": 4900}
    assert planned("stripe", body) == {}


def test_a_cancellation_taken_back_is_seen_in_both_tellings():
    for before in (
        {"cancel_at_period_end": True},
        {"cancel_at": 1760000000},
        {"cancel_at_period_end": True, "cancel_at": 1760000000},
    ):
        now = {
            "id": "sub_1",
            "status": "trialing",
            "cancel_at_period_end": False,
            "cancel_at": None,
            "metadata": {"plan": "pro"},
        }
        body = {
            "id": "evt_1",
            "type": "customer.subscription.updated",
            "data": {"object": now, "previous_attributes": before},
        }
        assert planned("stripe", body) == {"cancel_undone": {"provider": "stripe", "plan": "pro"}}


def test_a_checkout_and_its_late_payment_are_one_purchase():
    source = SHIPPED.sources["stripe"]
    session = {"id": "cs_1", "mode": "payment", "payment_status": "paid", "amount_total": 100, "currency": "usd"}
    keys = set()
    for kind in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
        document = Document(body={"type": kind, "data": {"object": session}}, envelope={"type": kind})
        found = rules.evaluate(SHIPPED, source, document, event_name=kind, mode="live", hash_key=b"k")
        keys |= {goal.once_key for goal in found.planned}
    assert keys == {"stripe:live:purchase:cs_1"}


# ---------------------------------------------------------------------------------------------------- minor units

ZERO = ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"]
THREE = ["bhd", "jod", "kwd", "omr", "tnd"]
STRIPE_MONEY = dict.fromkeys(ZERO, "380000") | dict.fromkeys(THREE, "380.000") | dict.fromkeys(("ugx", "isk", "huf", "twd", "usd", "eur", "UGX"), "3800.00")  # fmt: skip


@pytest.mark.parametrize("code", STRIPE_MONEY)
@pytest.mark.parametrize(
    ("kind", "fields", "goal"),
    [
        (
            "checkout.session.completed",
            {"mode": "payment", "payment_status": "paid", "amount_total": 380000},
            "purchase",
        ),
        ("charge.refunded", {"amount": 380000, "amount_refunded": 380000}, "refund"),
        ("charge.dispute.created", {"amount": 380000, "status": "needs_response"}, "dispute"),
        ("invoice.payment_failed", {"billing_reason": "subscription_cycle", "amount_due": 380000}, "payment_failed"),
        (
            "customer.subscription.deleted",
            {
                "cancellation_details": {"reason": "payment_failed"},
                "items": {"data": [{"price": {"id": "price_1", "unit_amount": 380000}}]},
            },
            "involuntary_churn",
        ),
    ],
)
def test_stripes_amounts_have_the_decimals_that_stripe_counts(code, kind, fields, goal):
    thing = copy.deepcopy({"id": "x_1", "currency": code, **fields})
    for item in thing.get("items", {}).get("data", ()):
        item["price"]["currency"] = code
    made = planned("stripe", {"id": "evt_1", "type": kind, "data": {"object": thing}})[goal]
    assert (made["amount"], made["currency"]) == (STRIPE_MONEY[code], code.upper())


def test_elsewhere_the_common_table_counts_as_before():
    text = 'provider: %s\n%sgoals: [{goal: g, event: "*", metadata: {a: "{n|money:c}", fixed: "{n|money:UGX}"}}]\n'
    head = 'verify: {type: token, signature: {in: "query:token"}}\n'
    for provider, more, expected in (
        ("custom", head, "380000"),
        ("standard-webhooks", "", "380000"),
        ("stripe", "", "3800.00"),
    ):
        found = rules.load({"shop.yaml": text % (provider, more)}, {}, sources.presets())
        document = Document({"n": 380000, "c": "ugx"}, envelope={"type": "t"})
        result = rules.evaluate(found, found.sources["shop"], document, event_name="e", mode="live", hash_key=b"k")
        assert result.planned[0].metadata == {"a": expected, "fixed": expected}


# ------------------------------------------------------------------------------------------------- the other sellers


def example(source_name, event_type, body, header=None):
    source = EXAMPLES.sources[source_name]
    document = Document(body, root=body, header=header or {}, envelope={"type": event_type})
    found = rules.evaluate(EXAMPLES, source, document, event_name="e", mode="live", hash_key=b"k")
    return {goal.name: dict(goal.metadata) for goal in found.planned}


def test_gumroad_asks_for_nothing_but_its_token():
    assert EXAMPLES.sources["gumroad"].require == ()
    assert EXAMPLES.sources["gumroad"].secret_names == ("GUMROAD_WEBHOOK_SECRET",)


@pytest.mark.parametrize("event", ["sale", "refund", "dispute"])
@pytest.mark.parametrize("currency", ["usd", "eur", "jpy", ""])
def test_gumroads_prices_are_us_cents_whatever_the_currency_says(event, currency):
    body = {"resource_name": event, "sale_id": "s1", "price": "1233", "currency": currency, "product_name": "Pro"}
    ((_, metadata),) = example("gumroad", event, body).items()
    assert metadata.get("amount", metadata.get("charged")) == "12.33"
    assert metadata["currency"] == "USD"


@pytest.mark.parametrize(
    ("transactions", "amount"),
    [
        ([], None),
        ([{"kind": "refund", "status": "pending", "amount": "5.00"}], None),
        ([{"kind": "void", "status": "success", "amount": "5.00"}], None),
        ([{"kind": "refund", "status": "success", "amount": "0.00"}], None),
        ([{"kind": "refund", "status": "success", "amount": "41.90"}], "41.90"),
        (
            [
                {"kind": "sale", "status": "success", "amount": "1.00"},
                {"kind": "refund", "status": "success", "amount": "20.00"},
                {"kind": "refund", "status": "success", "amount": "30.05"},
            ],
            "50.05",
        ),
    ],
)
def test_a_refund_of_shopify_is_the_sum_of_what_really_went_back(transactions, amount):
    body = {"id": 5, "order_id": 1, "transactions": [{"currency": "USD"} | one for one in transactions]}
    expected = {} if amount is None else {"refund": {"provider": "shopify", "amount": amount, "currency": "USD"}}
    assert example("shopify", "refunds/create", body) == expected


@pytest.mark.parametrize(
    ("status", "counts"),
    [("succeeded", True), (None, True), ("pending", False), ("requiresAction", False), ("failed", False)],
)
def test_a_refund_of_creem_counts_when_it_is_done(status, counts):
    body = {
        "eventType": "refund.created",
        "object": {"id": "r", "status": status, "refund_amount": 100, "refund_currency": "EUR"},
    }
    assert bool(example("creem", "refund.created", body)) is counts


def test_what_goes_back_at_polar_is_the_order_with_its_tax():
    order = {"id": "o", "status": "refunded", "refunded_amount": 5000, "currency": "usd"}
    for tax, total in ((950, "59.50"), (0, "50.00"), (None, "50.00")):
        body = {"type": "order.refunded", "data": order | {"refunded_tax_amount": tax}}
        assert example("polar", "order.refunded", body)["refund"]["refunded_total"] == total
