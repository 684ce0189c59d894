"""Every scenario in every shape: repeatable, ids of real forms, and no visitor where real events carry none."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest

from bridge.errors import UsageError
from bridge.model import UUID4
from bridge.sandbox import scenarios

END_S = 1_790_000_000
ALL = [
    f"{scenario.name}@{shape}" if shape else scenario.name
    for scenario in scenarios.SCENARIOS.values()
    for shape in scenario.shapes or ("",)
]
STRIPE = [name for name in ALL if name.startswith("stripe")]
# The oldest and the newest shape of each stand for those in between.
BETWEEN = tuple(f"@{shape}" for shape in ("acacia", "basil"))
every, every_stripe = (
    pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[pytest.mark.long] * name.endswith(BETWEEN)) for name in names]
    )
    for names in (ALL, STRIPE)
)
FORMS = {
    "evt": r"[13]\w{23}", "pi": r"3\w{23}", "ch": r"3\w{23}", "in": r"1\w{23}", "sub": r"1\w{23}", "cus": r"\w{14}",
    "si": r"\w{14}", "price": r"1\w{23}", "prod": r"\w{14}", "cs_live": r"a1\w{56}", "cs_test": r"a1\w{56}",
    "re": r"3\w{23}", "dp": r"1\w{23}", "txn": r"3\w{23}", "req": r"\w{14}", "acct": r"1\w{15}",
}  # fmt: skip


@cache
def build(name: str, **options: object) -> tuple[scenarios.Step, ...]:
    return scenarios.build(name, **{"seed": 1, "end_s": END_S} | options)


@every
def test_a_seed_tells_the_same_story_again_and_another_seed_another(name: str) -> None:
    assert build(name) == scenarios.build(name, seed=1, end_s=END_S)
    assert not {step.id for step in build(name)} & {step.id for step in build(name, seed=2)}


@every
def test_the_last_event_is_at_the_end_and_none_before_the_one_before_it(name: str) -> None:
    for spread in (False, True):
        times = [step.at_s for step in build(name, spread=spread)]
        assert times == sorted(times)
        assert times[-1] == END_S
    assert END_S - build(name)[0].at_s < 60


@every
def test_no_two_events_share_an_id(name: str) -> None:
    ids = [step.id for step in build(name)] + [step.id for step in build(name, test=True)]
    assert len(ids) == len(set(ids))


@every
def test_every_goal_is_of_a_visitor_whom_some_event_carries(name: str) -> None:
    steps = build(name)
    carried = {step.visitor for step in steps} - {None}
    assert {goal.visitor for step in steps for goal in step.goals} <= carried
    assert all(UUID4.fullmatch(visitor) for visitor in carried)


@every
def test_test_mode_says_so_and_promises_nothing(name: str) -> None:
    for step in build(name, test=True):
        assert step.test
        assert not step.goals
        flags = {"stripe": lambda b: not b["livemode"], "lemonsqueezy": lambda b: b["meta"]["test_mode"]}
        assert flags.get(step.wire, lambda _: True)(step.body)
        assert '"livemode": true' not in json.dumps(step.body)


@every
def test_each_has_one_line_of_help(name: str) -> None:
    text = scenarios.SCENARIOS[name.partition("@")[0]].help
    assert 10 < len(text) < 115
    assert text.endswith((".", ":", ")"))


@every_stripe
def test_stripe_ids_have_the_forms_of_real_ones(name: str) -> None:
    for step in build(name):
        for prefix, rest in re.findall(r'"(cs_live|cs_test|[a-z]+)_([A-Za-z0-9]{10,})"', json.dumps(step.body)):
            if prefix in FORMS:
                assert re.fullmatch(FORMS[prefix], rest), f"{prefix}_{rest}"


@every_stripe
def test_what_stripe_objects_point_to_was_told_by_another_event(name: str) -> None:
    """A charge of a payment intent that never was would make a join that real events make impossible."""
    steps = build(name)
    told = {step.body["data"]["object"].get("id") for step in steps}
    for step in steps:
        thing = step.body["data"]["object"]
        for field in (
            "payment_intent",
            "charge",
            "customer",
            "subscription",
            "invoice",
            "latest_charge",
            "latest_invoice",
        ):
            assert thing.get(field) is None or thing[field] in told, (step.type, field)


@pytest.mark.parametrize("event", ["charge.refunded", "charge.dispute.created", "invoice.paid", "charge.succeeded"])
def test_money_that_moves_later_carries_no_visitor(event: str) -> None:
    seen = [step for name in STRIPE for step in build(name) if step.type == event]
    assert seen
    assert all(step.visitor is None for step in seen)


@pytest.mark.parametrize("shape", ["basil", "dahlia"])
def test_since_basil_only_the_invoice_payment_joins_an_intent_to_its_invoice(shape: str) -> None:
    steps = build(f"stripe-renewal-refund@{shape}")
    refunded = next(step.body["data"]["object"] for step in steps if step.type == "charge.refunded")
    both = [
        step.type for step in steps if refunded["payment_intent"] in (text := json.dumps(step.body)) and '"in_' in text
    ]
    assert set(both) == {"invoice_payment.paid"}


@pytest.mark.parametrize("shape", ["2020", "acacia"])
def test_before_basil_the_invoice_names_its_payment_intent_and_charge(shape: str) -> None:
    paid = [step for step in build(f"stripe-renewal-refund@{shape}") if step.type == "invoice.paid"][-1]
    assert paid.body["data"]["object"]["payment_intent"].startswith("pi_")
    assert paid.body["data"]["object"]["charge"].startswith("ch_")


def test_previous_attributes_hold_the_old_values_of_what_changed_only() -> None:
    steps = build("stripe-partial-refund")
    previous = [step.body["data"]["previous_attributes"] for step in steps if step.type == "charge.refunded"]
    assert previous == [{"amount_refunded": 0}, {"amount_refunded": 2000, "refunded": False}]


def test_a_renewal_moves_the_items_and_changes_no_price() -> None:
    """The trap for whoever takes a changed `items` for another plan."""
    steps = build("stripe-renewal-refund@basil")
    step = [s for s in steps if s.type == "customer.subscription.updated"][-1]
    old, new = step.body["data"]["previous_attributes"], step.body["data"]["object"]
    assert old.keys() == {"items", "latest_invoice"}
    assert old["items"]["data"][0]["price"] == new["items"]["data"][0]["price"]
    assert old["items"]["data"][0]["current_period_end"] == new["items"]["data"][0]["current_period_start"]


def test_every_event_of_a_connected_account_names_it() -> None:
    accounts = {step.body.get("account") for step in build("stripe-connect")}
    assert len(accounts) == 1
    assert accounts.pop().startswith("acct_")


@pytest.mark.parametrize("name", ["nonsense", "stripe-refund@1999", "lemonsqueezy-order@basil", ""])
def test_an_unknown_scenario_or_version_is_answered_with_what_there_is(name: str) -> None:
    with pytest.raises(UsageError, match=r"there are|only one"):
        build(name)
