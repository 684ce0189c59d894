"""A trace in words: of the rules for other types of events the nearest are named, and the rest are counted."""

# ruff: noqa: E501 - sentences of one line

from __future__ import annotations

import io

import pytest

from bridge.cli.printing import print_elements
from bridge.cli.screen import Screen


def other(name, types, origin="shipped"):
    return {"rule": name, "goal": name, "origin": origin, "result": "event", "expected": types}


STRIPE = [
    other("purchase", "checkout.session.completed or checkout.session.async_payment_succeeded"),
    other("refund", "charge.refunded", "override"),
    other("dispute", "charge.dispute.created"),
    other("dispute-escalated", "charge.dispute.funds_withdrawn"),
    other("churned", "customer.subscription.deleted"),
    other("plan_upgraded", "customer.subscription.updated"),
]


def told(event_type, rules):
    out = io.StringIO()
    print_elements(Screen(out, out), [{"type": event_type, "rules": rules}])
    return out.getvalue().splitlines()[-1].strip()


@pytest.mark.parametrize(
    ("event_type", "sentence"),
    [
        ("price.created", "6 rules are for event types other than price.created."),
        ("", "6 rules are for event types other than (none)."),
        (
            "customer.subscription.created",
            "6 rules are for event types other than customer.subscription.created: churned (shipped, customer.subscription.deleted), plan_upgraded (shipped, customer.subscription.updated) and 4 more",
        ),
        (
            "charge.dispute.closed",
            "6 rules are for event types other than charge.dispute.closed: dispute (shipped, charge.dispute.created), dispute-escalated (shipped, charge.dispute.funds_withdrawn), refund (override, charge.refunded) and 3 more",
        ),
    ],
)
def test_the_nearest_are_named_and_the_rest_are_counted(event_type, sentence):
    assert told(event_type, STRIPE) == sentence


def test_three_are_all_named_and_those_for_the_event_come_first():
    mine = {"rule": "fee", "goal": "fee", "result": "matched"}
    assert told("price.created", [mine, *STRIPE[1:3]]) == (
        "2 others are for event types other than price.created: refund (override, charge.refunded), dispute (shipped,"
        " charge.dispute.created)"
    )
