"""What the network does to webhooks changes when and how often they come, never what they are."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import UsageError
from bridge.sandbox import mix, scenarios

STEPS = scenarios.build("stripe-refund", seed=1, end_s=1_790_000_000)
IDS = [step.id for step in STEPS]


@given(st.integers())
def test_each_event_comes_one_to_five_times_and_the_first_keep_their_order(seed: int) -> None:
    played = [step.id for step in mix.duplicated(STEPS, seed=seed)]
    assert set(Counter(played).values()) <= {1, 2, 3, 4, 5}
    assert list(dict.fromkeys(played)) == IDS


@given(st.integers())
def test_another_order_loses_and_adds_nothing(seed: int) -> None:
    assert sorted(step.id for step in mix.reordered(STEPS, seed=seed)) == sorted(IDS)


@pytest.mark.parametrize("change", [mix.reordered, mix.duplicated])
def test_a_seed_repeats_an_order_and_another_seed_gives_another(change: object) -> None:
    orders = {tuple(step.id for step in change(STEPS, seed=seed)) for seed in (1, 1, 2, 3, 4)}
    assert len(orders) > 1
    assert change(STEPS, seed=7) == change(STEPS, seed=7)


def test_a_value_is_set_in_every_body_that_has_its_place() -> None:
    changed = mix.changed(STEPS, [mix.parse_set("data.object.amount_total=999")])
    sessions = [step for step in changed if step.type == "checkout.session.completed"]
    assert [step.body["data"]["object"]["amount_total"] for step in sessions] == [999]
    assert sessions[0].goals == ()
    assert (
        STEPS[[step.type for step in STEPS].index("checkout.session.completed")].body["data"]["object"]["amount_total"]
        == 4900
    )


def test_a_list_is_reached_by_its_index() -> None:
    steps = scenarios.build("stripe-subscription", seed=1, end_s=1_790_000_000)
    changed = mix.changed(steps, [mix.parse_set("data.object.items.data[0].price.id=price_new")])
    values = {
        step.body["data"]["object"]["items"]["data"][0]["price"]["id"]
        for step in changed
        if step.type.startswith("customer.subscription.")
    }
    assert values == {"price_new"}


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a.b=1", ("a.b", 1)),
        ("a=text", ("a", "text")),
        ('a="1"', ("a", "1")),
        ("a=x=y", ("a", "x=y")),
        ("a=null", ("a", None)),
        ("a[0].b=true", ("a[0].b", True)),
        ("a=", ("a", "")),
    ],
)
def test_values_are_json_or_else_text(text: str, parsed: tuple[str, object]) -> None:
    assert mix.parse_set(text) == parsed


@pytest.mark.parametrize("text", ["", "a", "=1", "a[=1", "a[x]=1", "a..b]=1"])
def test_what_is_no_path_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError, match="path=value"):
        mix.parse_set(text)


@pytest.mark.parametrize("path", ["data.objekt.amount", "data.object.lines.data[7].amount", "data[0]"])
def test_a_path_that_fits_no_event_is_named(path: str) -> None:
    with pytest.raises(UsageError, match="no event of this scenario"):
        mix.changed(STEPS, [(path, 1)])
