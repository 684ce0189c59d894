"""Named values, and the event as it was before the change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rules_kit import HEAD, KEY, PRESETS, evaluate, fault, faults

from bridge import mapping_tests, rules, settings
from bridge.model import Document
from bridge.rules.language.templates import Choice, Values

STRIPE = "provider: stripe\n"


def goals(text, body, *, presets=PRESETS, event_type="t"):
    """The goals of a whole file for a body, with what was traced."""
    found = rules.load({"stripe.yaml": text}, {}, presets)
    document = Document(body, root=body, envelope={"type": event_type})
    source = found.sources["stripe"]
    return rules.evaluate(found, source, document, event_name="e", mode="live", hash_key=KEY)


def metadata(text, body, **more):
    found = goals(text, body, **more)
    assert [trace.message for trace in found.traces if trace.result == "failed"] == []
    return [dict(goal.metadata) for goal in found.planned]


def subscription(now, before=None):
    body = {"id": "evt", "type": "customer.subscription.updated", "data": {"object": now}}
    if before is not None:
        body["data"]["previous_attributes"] = before
    return body


# ---------------------------------------------------------------------------------------------------------- names


def test_a_value_is_read_by_its_name_wherever_a_path_stands():
    text = """provider: stripe
values:
  who: "{data.object.customer}"
  big: "{data.object.amount|money:USD}"
goals:
  - goal: a
    event: t
    when: {value.big: {gte: 49}, data.object.limit: {path: value.big}}
    once_per: value.who
    description: "of {value.who}"
    metadata: {amount: "{value.big}", twice: "{value.big|plus:value.big}", no: "{value.who|default:x}"}
"""
    found = goals(text, {"data": {"object": {"customer": {"id": "cus_1"}, "amount": 4900, "limit": 49}}})
    (goal,) = found.planned
    assert goal.once_key == "stripe:live:a:cus_1"
    assert goal.description == "of cus_1"
    assert goal.metadata == {"amount": "49.00", "twice": "98", "no": "cus_1"}


def test_a_star_reads_the_elements_of_a_value_that_is_a_list():
    text = f"{STRIPE}values: {{lines: '{{data.object.lines}}'}}\ngoals:\n  - goal: a\n    event: t\n"
    text += "    metadata: {skus: '{value.lines.*.sku|join}'}\n"
    lines = [{"sku": "a"}, {"sku": {"id": "b"}}, {}]  # an object reads as its id
    assert metadata(text, {"data": {"object": {"lines": lines}}}) == [{"skus": "a, b"}]


def test_a_list_of_names_is_short_for_their_values_in_this_order():
    text = """provider: stripe
values: {plan: "{data.plan}", currency: USD, amount: "{data.amount}", nothing: "{data.nothing}"}
goals: [{goal: a, event: t, metadata: [currency, nothing, plan, amount]}]
"""
    (found,) = metadata(text, {"data": {"plan": "pro", "amount": 5}})
    assert list(found.items()) == [("currency", "USD"), ("plan", "pro"), ("amount", "5")]


def test_of_a_list_the_first_whose_event_fits_counts_even_without_a_value():
    text = """provider: stripe
values:
  v:
    - {event: "a.*", value: "{a}"}
    - {event: [b, c], value: "{b}"}
    - {value: "{rest}"}
goals: [{goal: g, event: "*", metadata: [v]}]
"""
    body = {"b": "B", "rest": "R"}
    assert metadata(text, body, event_type="a.x") == [{}]
    assert metadata(text, body, event_type="c") == [{"v": "B"}]
    assert metadata(text, body, event_type="other") == [{"v": "R"}]


def test_the_files_values_come_beside_the_presets_and_win_by_name():
    presets = {"stripe": {**PRESETS["stripe"], "values": {"mine": "{data.a}", "plan": "preset"}}}
    text = 'provider: stripe\nvalues: {plan: "{data.b}"}\ngoals: [{goal: g, event: t, metadata: [mine, plan]}]\n'
    assert metadata(text, {"data": {"a": 1, "b": 2}}, presets=presets) == [{"mine": "1", "plan": "2"}]


def test_values_may_be_made_of_values_and_one_of_itself_is_missing():
    text = """provider: stripe
values: {a: "{value.b|upper}", b: "{data.b}", loop: "{value.back}", back: "{value.loop or data.b}"}
goals: [{goal: g, event: t, metadata: [a, loop]}]
"""
    assert metadata(text, {"data": {"b": "x"}}) == [{"a": "X", "loop": "x"}]


def test_a_value_that_needs_itself_as_it_was_is_missing_and_no_rule_fails():
    text = """provider: stripe
values: {loop: "{was.value.back}", back: "{was.value.loop}"}
goals: [{goal: g, event: t, metadata: [loop]}]
"""
    assert metadata(text, {"data": {"object": {"a": 1}, "previous_attributes": {"a": 2}}}) == [{}]
    assert metadata(text, {"data": {"object": {"a": 1}}}) == [{}]


def test_a_value_is_computed_once_for_all_rules_and_not_at_all_if_none_asks():
    asked = []

    def compute(scope):
        asked.append(scope.document.body)
        return "x"

    values = Values({"v": (Choice(("*",), compute),)})
    text = """goals:
  - {goal: a, event: t, when: {value.v: x}, metadata: {v: "{value.v}"}}
  - {goal: b, event: t, when: {value.v: y}}
"""
    found = rules.load({"stripe.yaml": STRIPE + text}, {}, PRESETS)
    source = replace(found.sources["stripe"], values=values)

    def run(event_type):
        document = Document({}, envelope={"type": event_type})
        return rules.evaluate(found, source, document, event_name="e", mode="live", hash_key=KEY).planned

    assert [goal.metadata for goal in run("t")] == [{"v": "x"}]
    assert len(asked) == 1
    assert run("another") == ()
    assert len(asked) == 1


def test_a_value_keeps_its_kind():
    text = """provider: stripe
values: {n: "{data.n}", l: "{data.l}"}
goals:
  - goal: g
    event: t
    when: {value.n: {gt: 9}, value.l: {contains: b}}
    metadata: {all: "{value.l|join}", sum: "{value.l.*|count}"}
"""
    assert metadata(text, {"data": {"n": 10, "l": ["a", "b"]}}) == [{"all": "a, b", "sum": "2"}]
    assert metadata(text, {"data": {"n": "9", "l": ["a", "b"]}}) == []


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("metadata: [plam]", '5:50: "plam" is not the name of a value; did you mean "plan"?'),
        ("metadata: [plan, plan]", '5:56: "plan" is listed twice'),
        ('metadata: {a: "{value.plam}"}', 'no value is named "plam"; did you mean "plan"?'),
        ('metadata: {a: "{x|minus:value.plam}"}', 'no value is named "plam"; did you mean "plan"?'),
        ('metadata: {a: "{was.value.plam}"}', 'no value is named "plam"; did you mean "plan"?'),
        ("once_per: value.plam", 'no value is named "plam"; did you mean "plan"?'),
        ("when: {value.plam: x}", 'no value is named "plam"; did you mean "plan"?'),
        ("when: {any: [{a: {gt: {path: value.plam}}}]}", 'no value is named "plam"; did you mean "plan"?'),
        ('metadata: {a: "{was.was.x}"}', 'says "was" twice'),
        ("when: {was.data.object.x: {changed: true}}", '"changed" looks into data.previous_attributes'),
    ],
)
def test_a_misspelt_value_is_told_where_it_stands(rule, said):
    text = "provider: stripe\nvalues:\n  plan: x\ngoals:\n  - {goal: g, event: t, once_per: id, " + rule + "}\n"
    if "once_per: value" in rule:
        text = text.replace("once_per: id, ", "")
    assert said in fault(text)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("{Plan: x}", 'the name of a value is a word such as plan or seats_left, not "Plan"'),
        ("{plan: {evnt: a}}", 'unknown key "evnt" in an entry of a value; did you mean "event"?'),
        ("{plan: {event: a}}", 'an entry takes either "value" (a template) or "builtin"'),
        ("{plan: []}", "a list without an entry is never a value"),
        ("{plan: {builtin: stripe.montly}}", 'there is no builtin "stripe.montly"; did you mean "stripe.monthly"?'),
        ('{plan: "{a|b}"}', 'unknown filter "b"'),
        ('{plan: "{value.plam}"}', 'no value is named "plam"; did you mean "plan"?'),
    ],
)
def test_a_faulty_value_is_told_where_it_stands(values, said):
    found = faults(f"provider: stripe\nvalues: {values}\ngoals: []\n")
    assert any(said in line for line in found), found


def test_a_body_with_a_field_called_value_reads_as_before_where_no_values_are_named():
    text = "  - {goal: a, event: t, when: {value.amount: 5}, metadata: {v: '{value.amount}', all: '{value}'}}"
    (goal,) = evaluate(text, {"type": "t", "value": {"amount": 5}}).planned
    assert goal.metadata == {"v": "5"}
    named = (
        HEAD.replace("goals:", "values: {plan: x}\ngoals:")
        + "  - {goal: a, event: t, metadata: {v: '{body.value.amount}'}}"
    )
    (goal,) = evaluate(named, {"type": "t", "value": {"amount": 5}}).planned
    assert goal.metadata == {"v": "5"}


def test_a_body_with_a_field_called_was_reads_as_before():
    text = "  - {goal: a, event: t, metadata: {v: '{was.plan}'}}"
    (goal,) = evaluate(text, {"type": "t", "was": {"plan": "old"}}).planned
    assert goal.metadata == {"v": "old"}


# ------------------------------------------------------------------------------------------------------------ was


def was(path, body):
    text = "  - {goal: a, event: '*', metadata: {v: '{" + path + "}'}}"
    (goal,) = evaluate(text, body).planned
    return goal.metadata.get("v")


NOW = {
    "id": "sub_1",
    "status": "active",
    "quantity": 5,
    "cancel_at": 7,
    "plan": {"id": "p2", "nickname": "Two", "deep": {"a": 1, "b": 2}},
    "items": {"object": "list", "data": [{"id": "si_1"}, {"id": "si_2"}]},
}
BEFORE = {
    "status": "trialing",
    "cancel_at": None,
    "plan": {"id": "p1", "deep": {"a": 0}},
    "items": {"data": [{"id": "si_0"}]},
    "gone": "x",
}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("was.data.object.status", "trialing"),
        ("was.data.object.quantity", "5"),  # did not change
        ("was.data.object.cancel_at", None),  # null: was absent
        ("was.data.object.plan.nickname", "Two"),  # objects merge key by key …
        ("was.data.object.plan", "p1"),
        ("was.data.object.plan.deep.a", "0"),
        ("was.data.object.plan.deep.b", "2"),  # … at every depth
        ("was.data.object.items.data[0]", "si_0"),
        ("was.data.object.items.data[1]", None),  # lists replace
        ("was.data.object.items.object", "list"),
        ("was.data.object.gone", "x"),
        ("was.body.data.object.status", "trialing"),
        ("was.root.data.object.status", "trialing"),
        ("was.data.previous_attributes.status", None),
        ("was.type", "customer.subscription.updated"),
        ("was.data.object.items.data.*.id|count", "1"),
    ],
)
def test_was_is_the_object_with_the_previous_attributes_laid_over_it(path, text):
    body = subscription(NOW, BEFORE)
    assert was(path, body) == text
    assert body == subscription(NOW, BEFORE)  # nothing was altered


@pytest.mark.parametrize("body", [subscription(NOW), {"data": {"object": NOW, "previous_attributes": 5}}])
def test_without_previous_attributes_nothing_was_otherwise(body):
    assert was("was.data.object.status", body) == "active"


@pytest.mark.parametrize("body", [{}, {"data": 5}, {"data": {"previous_attributes": {"a": 1}}}])
def test_was_of_a_body_of_another_form_is_what_is_there(body):
    assert was("was.data.object.a", body) == ("1" if "previous_attributes" in str(body) else None)


SEATS = """provider: stripe
values: {seats: "{data.object.seats}", tags: "{data.object.tags}"}
goals:
  - {goal: g, event: "*", when: {value.%s: {changed: %s}}, metadata: {from: "{was.value.seats}", to: "{value.seats}"}}
"""


@pytest.mark.parametrize(
    ("before", "now", "true", "up", "down"),
    [
        ({"seats": 3}, {"seats": 5}, True, True, False),
        ({"seats": 5}, {"seats": 3}, True, False, True),
        ({"seats": "5"}, {"seats": 5}, False, False, False),
        ({"seats": None}, {"seats": 5}, True, False, False),  # from missing to 5 is not up
        ({"seats": 5}, {}, True, False, False),
        ({"other": 1}, {"seats": 5}, False, False, False),
        (None, {"seats": 5}, False, False, False),
        ({"seats": None}, {}, False, False, False),
    ],
)
def test_changed_works_on_values(before, now, true, up, down):
    for wanted, holds in (("true", true), ("false", not true), ("up", up), ("down", down)):
        body = subscription(now, before)
        assert bool(goals(SEATS % ("seats", wanted), body).planned) is holds, wanted


def test_a_list_has_changed_where_an_element_has():
    same = subscription({"tags": ["a", "b"]}, {"tags": ["a", "b"]})
    other = subscription({"tags": ["a", "b"]}, {"tags": ["a"]})
    assert [bool(goals(SEATS % ("tags", "true"), body).planned) for body in (same, other)] == [False, True]


def test_a_failed_change_of_a_value_says_what_it_is():
    (trace,) = goals(SEATS % ("seats", "up"), subscription({"seats": 3}, {"seats": 5})).traces
    assert (trace.path, trace.actual, trace.expected) == ("value.seats", "3", "changed up")


# ---------------------------------------------------------------------------------------------------- ids in names


@pytest.mark.parametrize(
    ("provider", "value", "refused"),
    [
        ("stripe", "price_1Lab", "price_1Lab"),
        ("stripe", "price_basic_y", "price_basic_y"),
        ("stripe", "prod_NWjs8kKbJWmuuc", "prod_NWjs8kKbJWmuuc"),
        ("stripe", "pro", None),
        ("stripe", "plan_pro", None),
        ("stripe", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-42d3-a456-426614174000"),
        ("lemonsqueezy", "of-123E4567-E89B-12D3-A456-426614174000", "123E4567-E89B-12D3-A456-426614174000"),
        ("lemonsqueezy", "price_1MoBy5LkdIwHuixZtHBIqhfy", "price_1MoBy5LkdIwHuixZtHBIqhfy"),
        ("lemonsqueezy", "price_changed", None),
        ("lemonsqueezy", "prod_deployed2026", None),
    ],
)
def test_an_id_never_enters_a_goals_name(provider, value, refused):
    text = f"provider: {provider}\ngoals: [{{id: r, goal: 'bought_{{plan}}', event: t}}]\n"
    found = rules.load({"shop.yaml": text}, {}, PRESETS)
    document = Document({"plan": value}, envelope={"type": "t"})
    result = rules.evaluate(found, found.sources["shop"], document, event_name="e", mode="live", hash_key=KEY)
    if refused is None:
        assert [goal.name for goal in result.planned] == [f"bought_{value}"]
    else:
        assert result.planned == ()
        message = result.traces[0].message
        assert f"the id {refused}: give it a name in maps" in message
        assert f"{{plan|map:names}}, with maps: {{names: {{{refused}: pro}}}}" in message


def test_an_id_with_a_name_in_maps_is_that_name():
    text = "maps: {names: {price_1Lab: pro}}\ngoals: [{id: r, goal: 'bought_{plan|map:names}', event: t}]\n"
    (goal,) = goals(STRIPE + text, {"plan": "price_1Lab"}).planned
    assert goal.name == "bought_pro"


@pytest.mark.parametrize("filters", ["slug", "lower|slug", "upper"])
def test_an_id_that_a_filter_spells_in_another_way_is_still_one(filters):
    text = f"goals: [{{id: r, goal: 'bought_{{plan|{filters}}}', event: t}}]\n"
    result = goals(STRIPE + text, {"plan": "price_1Lab"})
    assert result.planned == ()
    message = result.traces[0].message
    assert f"{{plan|map:names|{filters}}}, with maps: {{names: {{price_1Lab: pro}}}}" in message
    (goal,) = goals(STRIPE + text, {"plan": "Pro"}).planned
    assert goal.name == "bought_pro"


def test_that_advice_works():
    text = "maps: {names: {price_1Lab: Pro}}\ngoals: [{id: r, goal: 'bought_{plan|map:names|slug}', event: t}]\n"
    (goal,) = goals(STRIPE + text, {"plan": "price_1Lab"}).planned
    assert goal.name == "bought_pro"


def test_a_value_whose_name_is_in_brackets_is_the_same():
    text = "values: {plan: '{kind}'}\ngoals: [{goal: g, event: t, metadata: {plan: '{value[\"plan\"]}'}}]\n"
    (goal,) = goals(STRIPE + text, {"kind": "pro"}).planned
    assert goal.metadata == {"plan": "pro"}


# --------------------------------------------------------------------------------------------------------- follows

FOLLOWING = """provider: stripe
goals:
  - {goal: first, event: a, once_per: data.object.id%s}
  - {goal: second, event: b, follows: %s, once_per: data.object.id}
tests:
  - {name: t, event: {type: b, data: {object: {id: x}}}, after: %s, goals: [%s]}
"""


@pytest.mark.parametrize(
    ("after", "made", "ok"),
    [("[first]", "{goal: second}", True), ("first", "", False), ("[]", "", True), ("[other]", "{goal: second}", False)],
)
def test_a_file_test_says_which_goals_were_made_before(after, made, ok):
    found = rules.load({"stripe.yaml": FOLLOWING % ("", "First", after, made)}, {}, PRESETS)
    (result,) = mapping_tests.run_tests(found, settings.load({}), 1_790_000_000_000)
    assert result.ok is ok, result.message


def test_a_form_in_a_file_test_holds_lists_of_maps_as_forms_do():
    text = """provider: custom
verify: {type: token, signature: {in: "query:token"}}
envelope: {type: type}
body: form
visitor: visitor
goals:
  - {goal: g, event: t, metadata: {second: '{items."1".kind}'}}
tests:
  - {name: n, event: {type: t, items: [{kind: a}, {kind: b}]}, goals: [{goal: g, metadata: {second: b}}]}
"""
    (result,) = mapping_tests.run_tests(rules.load({"shop.yaml": text}, {}, {}), settings.load({}), 1_790_000_000_000)
    assert result.ok, result.message


def test_a_goal_that_follows_names_the_once_key_of_the_other():
    found = goals(FOLLOWING % ("", "first", "[]", ""), {"data": {"object": {"id": "x"}}}, event_type="b")
    assert found.planned == ()
    assert [goal.follows for goal in found.following] == [("first", "stripe:live:first:x", "x")]
    assert rules.describe(found.traces[1]) == "would need first with x, made before"


def test_without_a_once_value_nothing_can_be_followed():
    found = goals(FOLLOWING % ("", "first", "[]", ""), {}, event_type="b")
    assert (found.planned, found.following) == ((), ())
    assert [trace.message for trace in found.traces if trace.result == "failed"] == [
        "once_per has no value, so it is not known which first this goal follows"
    ]


def test_who_follows_a_goal_that_is_switched_off_is_warned():
    found = rules.load({"stripe.yaml": FOLLOWING % (", enabled: false", "first", "[]", "")}, {}, PRESETS)
    assert any('"first" is switched off, so nothing can follow it' in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{goal: g, event: t, follows: g}", '"follows" needs "once_per"'),
        ("{goal: g, event: t, follows: h, once_per: id}", 'no rule of this file makes the goal "h"'),
        ("{goal: g, event: t, follows: identify, once_per: id}", "is reserved"),
        ("{goal: g, event: t, follows: G, once_per: id}", 'the goal "g" cannot follow itself'),
    ],
)
def test_what_cannot_be_followed_is_told(text, said):
    assert any(said in line for line in faults(f"provider: stripe\ngoals: [{text}]\n"))
