"""`payment:` of a rule: what a file may say, and what is made of an event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules_kit import evaluate, fault, faults, load

from bridge import limits

HEAD = """
provider: custom
verify: {type: token, signature: {in: "header:x-token"}}
envelope: {type: type}
visitor: visitor
"""
VALUES = """
values:
  amount: "{cents|money:currency}"
  currency: "{currency}"
  transaction: "{order}"
  email: "{mail}"
"""
WRITTEN = 'amount: "{a}", currency: USD, transaction_id: "{order}"'
BODY = {"type": "paid", "order": "o1", "cents": 2900, "currency": "usd", "mail": "a@b.example"}


def rule(payment, *, values="", more=""):
    return f"{HEAD}{values}goals:\n  - payment: {{{payment}}}\n    event: paid\n{more}"


def planned(text, **changes):
    evaluation = evaluate(text.lstrip(), BODY | changes)
    return evaluation.planned, evaluation.traces[0]


def test_what_is_not_written_is_the_value_of_the_same_name_and_nothing_personal():
    ((payment,), trace) = planned(rule("", values=VALUES))
    assert (payment.kind, payment.name) == ("payment", "payment")
    assert payment.metadata == {"amount": "29.00", "currency": "USD", "transaction_id": "o1"}
    assert payment.once_key == "shop:live:payment:o1"
    assert trace.result == "matched"


def test_a_field_is_overridden_by_name_and_false_takes_it_away():
    text = rule('transaction_id: "{type}-{order}", email: "{mail}"', values=VALUES + '  customer_id: "{mail}"\n')
    assert planned(text)[0][0].metadata == {
        "amount": "29.00",
        "currency": "USD",
        "transaction_id": "paid-o1",
        "customer_id": "a@b.example",
        "email": "a@b.example",
    }
    without = text.replace("payment: {", "payment: {customer_id: false, ")
    assert "customer_id" not in planned(without)[0][0].metadata


@pytest.mark.parametrize(
    ("value", "sent"),
    [(True, True), ("true", True), ("1", True), (False, False), ("no", False), ("perhaps", False), (None, False)],
)
def test_a_flag_is_sent_where_it_is_true(value, sent):
    ((payment,), _) = planned(rule('renewal: "{again}"', values=VALUES), again=value)
    assert ("renewal" in payment.metadata) is sent
    assert bool(payment.notes) is (value == "perhaps")


def test_a_refund_is_told_apart_from_its_payment():
    ((payment,), _) = planned(rule("refunded: true", values=VALUES))
    assert (payment.metadata["refunded"], payment.once_key) == ("true", "shop:live:payment refunded:o1")


def test_a_time_of_its_own_is_written_in_utc_or_left_out():
    text = rule('timestamp: "{at}"', values=VALUES)
    assert planned(text, at=1_790_000_000)[0][0].metadata["timestamp"] == "2026-09-21T14:13:20Z"
    ((payment,), _) = planned(text, at="soon")
    assert "timestamp" not in payment.metadata
    assert payment.notes[0].startswith("timestamp was left out")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cents": None}, "the payment's amount needs {value.amount}, which has no value"),
        ({"cents": -100}, "the amount of a payment is a number of zero or more"),
        ({"currency": "€"}, "amount"),
        ({"order": ""}, "the payment's transaction_id needs {value.transaction}, which has no value"),
        ({"order": "x" * 300}, "transaction_id of a payment has 1 to 255 characters"),
    ],
)
def test_a_payment_that_datafast_would_refuse_fails_by_itself(changes, says):
    (payments, trace) = planned(rule("", values=VALUES), **changes)
    assert payments == ()
    assert trace.result == "failed"
    assert says in trace.message


@pytest.mark.parametrize(
    ("payment", "sentence"),
    [
        ("amount: 3, currency: USD", 'a payment needs "transaction_id"'),
        (WRITTEN.replace('"{a}"', "data.amount"), 'such as 29.00, not "data.amount"; a path is written in braces'),
        (WRITTEN.replace("USD", "dollars"), 'three letters such as USD, not "dollars"'),
        (WRITTEN.replace('"{order}"', "o1"), '"o1" is the same for every event'),
        (WRITTEN + ", refunded: maybe", 'refunded of a payment is true or false, not "maybe"'),
        (WRITTEN + ", timestamp: now", "a timestamp is a template"),
        (WRITTEN + ", plan: pro", 'unknown key "plan" in payment'),
        (WRITTEN.replace("{a}", "{a|monney:x}"), "monney"),
        (WRITTEN.replace("{a}", "{value.amuont}"), "amuont"),
    ],
)
def test_what_can_never_be_a_payment_is_told_where_it_stands(payment, sentence):
    values = 'values: {amount: "{a}"}\n' if "amuont" in payment else ""
    assert sentence in fault(rule(payment, values=values))


def test_a_rule_makes_either_a_goal_or_a_payment():
    told = "\n".join(faults(rule(WRITTEN, more="    goal: bought\n    metadata: {a: b}\n    description: x\n")))
    assert 'a rule has either "goal" or "payment"' in told
    assert "DataFast takes no metadata with a payment" in told
    assert "DataFast takes no description with a payment" in told
    assert 'a goal needs "goal"' in fault(HEAD + "goals:\n  - {event: paid}\n")
    assert '"payment" must be a map' in fault(HEAD + "goals:\n  - {payment: 5, event: paid}\n")


def test_two_payments_of_a_file_need_ids():
    second = '  - payment: {amount: 1, currency: USD, transaction_id: "{order}"}\n    event: x\n'
    assert 'id "payment" is taken' in fault(rule(WRITTEN, more=second))


@pytest.mark.parametrize("enabled", ["true", "dry"])
def test_where_datafast_connects_the_provider_the_money_would_count_twice(enabled):
    text = f"""provider: stripe
goals:
  - payment: {{{WRITTEN}}}
    enabled: {enabled}
    event: invoice.paid
"""
    (warning,) = [line for line in _real(text).warnings if "twice" in line]
    assert warning.startswith(
        "mappings/stripe.yaml:3:5: DataFast connects Stripe itself: with that connected, this payment"
    )
    assert not [line for line in _real(text.replace(enabled, "false")).warnings if "twice" in line]
    assert not [line for line in _real(text.replace("stripe", "gumroad"), "gumroad.yaml").warnings if "twice" in line]


def _real(text, name="stripe.yaml"):
    from bridge import presets, rules

    return rules.load({name: text}, {}, presets.presets())


def test_a_dry_rule_is_on_and_says_so():
    text = rule("", values=VALUES, more="    enabled: dry\n")
    assert planned(text)[0][0].dry is True
    assert load(text).rules["shop"][0].enabled is True


@given(st.text(max_size=300))
def test_whatever_the_event_holds_the_payment_is_one_that_datafast_takes_or_none(text):
    values = {"amount": "29", "currency": "USD", "transaction_id": "t"}
    for name in values:
        try:
            fitted, _ = limits.fit_payment((values | {name: text}).items())
        except ValueError:
            continue
        assert float(fitted["amount"]) >= 0
        assert fitted["currency"].isascii()
        assert len(fitted["currency"]) == 3
        assert 0 < limits.length(fitted["transaction_id"]) <= limits.VALUE_MAX


# ----------------------------------------------------------------------------------------------------------- layers


def test_a_payment_is_like_a_shipped_goal_and_dry_by_a_layer():
    text = """extends: gumroad
use: []
goals:
  - payment: {amount: 1, currency: USD, transaction_id: "{sale_id}"}
    id: mine
    like: purchase
  - {id: refund, enabled: dry}
"""
    found = _real(text, "gumroad.yaml").rules["gumroad"]
    by_id = {rule.id: rule for rule in found}
    payment = by_id["mine"]
    assert (payment.kind, payment.origin, payment.events, payment.once_per) == ("payment", "like", ("sale",), ())
    assert payment.when == by_id["purchase"].when
    assert (by_id["refund"].enabled, by_id["refund"].dry) == (True, True)
    assert by_id["payment"].enabled is False
    shipped = _real("extends: gumroad\nuse: [payment]\n", "gumroad.yaml").rules["gumroad"]
    assert [rule.id for rule in shipped if rule.enabled] == ["payment"]
