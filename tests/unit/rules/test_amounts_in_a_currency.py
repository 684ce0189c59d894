"""`1000 USD` beside a value: true only in that currency."""

from __future__ import annotations

import pytest
from rules_kit import PRESETS

from bridge import rules, sources
from bridge.errors import MappingError
from bridge.model import Document

FILE = """provider: stripe
secret: ${STRIPE_WEBHOOK_SECRET}
visitor: data.object.v
goals:
  - {goal: g, event: invoice.paid, when: {%s}}
"""


def matches(when, amount, currency, values=""):
    rule_set = rules.load({"stripe.yaml": FILE % when + values}, {}, sources.presets())
    source = rule_set.sources["stripe"]
    body = {
        "type": "invoice.paid",
        "data": {"object": {"object": "invoice", "amount_paid": amount, "currency": currency, "v": "x"}},
    }
    derived = source.values.derive("invoice.paid", b"k", source.decimals)
    document = Document(body, envelope={"type": "invoice.paid", "id": "evt_1"}, derived=derived)
    found = rules.evaluate(rule_set, source, document, event_name="evt_1", mode="live", hash_key=b"k")
    return bool(found.planned)


@pytest.mark.parametrize(
    ("when", "amount", "currency", "expected"),
    [
        ("value.amount: {gte: 1000 USD}", 100_000, "usd", True),
        ("value.amount: {gte: 1000 USD}", 99_999, "usd", False),
        ("value.amount: {gte: 1000 USD}", 100_000, "eur", False),
        ("value.amount: {gte: 1000 JPY}", 1_000, "jpy", True),
        ("value.amount: 49.00 EUR", 4_900, "eur", True),
        ("value.amount: 49 EUR", 4_900, "usd", False),
        ("value.amount: {not: 49 EUR}", 4_900, "usd", True),
        ("value.amount: {any: [49 EUR, 49 USD]}", 4_900, "usd", True),
        ("value.amount: [49 EUR, 45 USD]", 4_900, "usd", False),
        ("value.amount: {gt: 10 USD, lt: 50 USD}", 4_900, "usd", True),
        ("data.object.note: 49 EUR", 4_900, "eur", False),
    ],
)
def test_an_amount_is_compared_in_its_own_currency(when, amount, currency, expected):
    assert matches(when, amount, currency) is expected


@pytest.mark.parametrize(
    ("when", "expected"), [("{gte: 10 USD}", True), ("{gte: 60 USD}", False), ("{gte: 10 JPY}", False)]
)
def test_a_value_whose_name_says_a_currency_is_in_that_one_whatever_was_paid_with(when, expected):
    values = 'values: {amount_usd: "{data.object.amount_paid|money:USD}"}\n'
    assert matches(f"value.amount_usd: {when}", 4_900, "eur", values) is expected


@pytest.mark.parametrize("wrong", ["1000USDX", "1.000,00 USD", "USD 1000", "-5 USD"])
def test_what_is_no_amount_is_told(wrong):
    with pytest.raises(MappingError, match='for a value also "1000 USD"'):
        matches(f"value.amount: {{gte: '{wrong}'}}", 1, "usd")


def test_a_field_of_the_body_has_no_currency():
    with pytest.raises(MappingError, match="takes a number"):
        matches("data.object.amount_paid: {gte: 1000 USD}", 1, "usd")


def test_values_without_a_currency_are_told():
    text = """provider: custom
secret: x
verify: {type: token, signature: {in: "header:X-Token"}}
envelope: {type: type}
visitor: v
values: {amount: "{a}"}
goals:
  - {goal: g, event: e, when: {value.amount: {gt: 5 USD}}}
"""
    with pytest.raises(MappingError, match='"5 USD" is compared with the value "currency", which'):
        rules.load({"own.yaml": text}, {}, {**PRESETS})
