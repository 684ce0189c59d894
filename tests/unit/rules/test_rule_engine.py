# ruff: noqa: E501 - tables of cases, one a line
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules_kit import HEAD, KEY, VISITOR, evaluate, load

from bridge import mapping_tests, rules, settings
from bridge.model import Candidate, Document
from bridge.rules.engine import table
from bridge.rules.language.conditions import ALWAYS


def only(text: str, body: Any, **more: Any):
    """The one goal that is planned."""
    found = evaluate(text, body, **more)
    assert [trace.result for trace in found.traces] == ["matched"], found.traces
    (goal,) = found.planned
    return goal


def trace(text: str, body: Any):
    (found,) = evaluate(text, body).traces
    return found


RULE = "  - {goal: sale, event: paid, once_per: id, metadata: {amount: '{amount|money:USD}', plan: '{plan}'}}\n"


def test_a_rule_makes_a_goal():
    goal = only(RULE, {"type": "paid", "id": 7, "amount": 4900, "plan": "pro", "visitor": VISITOR})
    assert goal.name == "sale"
    assert goal.rule_id == "sale"
    assert goal.metadata == {"amount": "49.00", "plan": "pro"}
    assert goal.once_key == "shop:live:sale:7"
    assert goal.destination == "default"
    assert goal.candidates == ()
    assert goal.description is None
    assert goal.notes == ()


def test_metadata_without_a_text_is_left_out():
    assert only(RULE, {"type": "paid", "id": 7, "plan": {"a": 1}}).metadata == {}


# -------------------------------------------------------------------------------------------------------- once keys


@pytest.mark.parametrize(
    ("once_per", "body", "key"),
    [
        ("id", {"id": "x"}, "shop:live:sale:x"),
        ("id", {"id": 0}, "shop:live:sale:0"),
        ("id", {"id": False}, "shop:live:sale:false"),
        ("id", {"id": {"id": "inner"}}, "shop:live:sale:inner"),
        ("id", {"id": ""}, "shop:evt_1:sale"),
        ("id", {"id": None}, "shop:evt_1:sale"),
        ("id", {"id": {"a": 1}}, "shop:evt_1:sale"),
        ("id", {"id": [1]}, "shop:evt_1:sale"),
        ("id", {}, "shop:evt_1:sale"),
        ("[a, b]", {"a": "", "b": "second"}, "shop:live:sale:second"),
        ("[a, b]", {"a": {"x": 1}, "b": "second"}, "shop:live:sale:second"),
        ("[a, b]", {"a": 0, "b": "second"}, "shop:live:sale:0"),
        ("'{a}:{b}'", {"a": "x", "b": 5}, "shop:live:sale:x:5"),
        ("'{a}:{b}'", {"a": "x"}, "shop:evt_1:sale"),
        ("'{a}:{b}'", {"a": "x", "b": ""}, "shop:evt_1:sale"),
        ("'{a}:{b or a}'", {"a": "x"}, "shop:live:sale:x:x"),
        ("['{a}:{b}', a]", {"a": "x"}, "shop:live:sale:x"),
    ],
)
def test_the_once_key_is_source_mode_goal_and_value(once_per, body, key):
    goal = only(f"  - {{goal: sale, event: paid, once_per: {once_per}}}\n", {"type": "paid", **body})
    assert goal.once_key == key
    assert bool(goal.notes) == (key == "shop:evt_1:sale")


def test_without_once_per_it_is_source_event_and_rule():
    text = "  - {goal: sale, id: first-sale, event: paid}\n"
    goal = only(text, {"type": "paid"}, event_name="ev_12")
    assert goal.once_key == "shop:ev_12:first-sale"
    assert goal.notes == ("the rule has no once_per: at most one goal per event",)


def test_that_a_value_is_missing_is_said():
    assert only(RULE, {"type": "paid"}).notes == ("once_per has no value: at most one goal per event",)


def test_the_mode_stands_in_the_once_key():
    assert only(RULE, {"type": "paid", "id": 7}, mode="test").once_key == "shop:test:sale:7"


def test_the_goals_own_name_stands_in_the_once_key():
    text = "  - {goal: 'Sale {kind}', id: any, event: paid, once_per: id}\n"
    goal = only(text, {"type": "paid", "kind": "Big One", "id": 7})
    assert (goal.name, goal.once_key) == ("sale_big_one", "shop:live:sale_big_one:7")


def test_a_huge_once_value_stays_distinct_and_short():
    keys = {only(RULE, {"type": "paid", "id": "x" * 100_000 + end}).once_key for end in "ab"}
    assert len(keys) == 2
    assert all(len(key) < 300 for key in keys)


# ------------------------------------------------------------------------------------------------------- goal names


NAMED = "  - {goal: 'sale_{product|slug}', id: any, event: paid}\n"


def test_a_goal_name_may_be_a_template():
    assert only(NAMED, {"type": "paid", "product": "Crème & Co"}).name == "sale_creme-co"


@pytest.mark.parametrize(
    ("text", "body", "message"),
    [
        (NAMED, {}, "the goal's name needs {product|slug}, which has no value"),
        ("  - {goal: '{name}', id: any, event: paid}\n", {"name": "identify"}, "is reserved"),
        ("  - {goal: '{name}', id: any, event: paid}\n", {"name": "日本"}, "no letter or digit"),
        ("  - {goal: '{name}', id: any, event: paid}\n", {"name": "  "}, "no letter or digit"),
    ],
)
def test_a_name_that_cannot_be_fails_with_the_reason(text, body, message):
    found = trace(text, {"type": "paid", **body})
    assert found.result == "failed"
    assert message in found.message


def test_a_long_name_is_cut_and_it_is_said():
    goal = only(NAMED, {"type": "paid", "product": "x" * 100})
    assert len(goal.name) == 64
    assert "the goal's name was cut to 64 characters" in goal.notes


# ----------------------------------------------------------------------------------------------------------- metadata


def test_metadata_may_be_one_template_of_an_object():
    text = "  - {goal: a, event: paid, metadata: '{data.metadata or metadata}'}\n"
    metadata = {"id": "m1", "Plan": "pro", "n": 1, "ok": True, "none": None, "deep": {}, "empty": "", "list": []}
    assert only(text, {"type": "paid", "metadata": metadata}).metadata == {
        "id": "m1",
        "plan": "pro",
        "n": "1",
        "ok": "true",
    }
    many = {f"k{i}": i for i in range(12)}
    goal = only(text, {"type": "paid", "metadata": many})
    assert list(goal.metadata) == [f"k{i}" for i in range(10)]
    assert "k10, k11 left out: DataFast takes 10 entries" in goal.notes
    assert only(text, {"type": "paid", "metadata": '{"a": 1}'}).metadata == {"a": "1"}
    assert only(text, {"type": "paid", "metadata": "text"}).metadata == {}
    assert only(text, {"type": "paid"}).metadata == {}


def test_a_value_that_is_too_long_is_cut_and_it_is_said():
    goal = only(RULE, {"type": "paid", "id": 7, "plan": "x" * 300})
    assert goal.metadata == {"plan": "x" * 255}
    assert goal.notes == ("plan was cut to 255 characters",)


def test_numbers_and_booleans_of_the_file_are_texts():
    assert only("  - {goal: a, event: paid, metadata: {n: 5, f: 1.50, t: true}}\n", {"type": "paid"}).metadata == {
        "n": "5",
        "f": "1.50",
        "t": "true",
    }


def test_a_description_is_empty_where_a_value_is_missing():
    text = "  - {goal: a, event: paid, description: 'Plan {plan}'}\n"
    assert only(text, {"type": "paid", "plan": "pro"}).description == "Plan pro"
    assert only(text, {"type": "paid"}).description == "Plan"
    assert only("  - {goal: a, event: paid, description: '{plan}'}\n", {"type": "paid"}).description is None


def test_tables_of_the_file_are_used():
    text = HEAD + "  - {goal: a, event: paid, metadata: {plan: '{id|map:plans}'}}\nmaps: {plans: {p1: Pro, 2: Two}}\n"
    assert only(text, {"type": "paid", "id": "p1"}).metadata == {"plan": "Pro"}
    assert only(text, {"type": "paid", "id": 2}).metadata == {"plan": "Two"}
    assert only(text, {"type": "paid", "id": "p9"}).metadata == {"plan": "p9"}


def test_what_identity_extracted_can_be_read():
    text = "  - {goal: a, event: paid, once_per: key.subscription}\n"
    assert only(text, {"type": "paid"}, key={"subscription": "sub_1"}).once_key == "shop:live:a:sub_1"


# ------------------------------------------------------------------------------------------------- rules and events


@pytest.mark.parametrize(
    ("event", "kind", "matches"),
    [
        ("paid", "paid", True),
        ("paid", "Paid", False),
        ("paid", "paid.later", False),
        ("[paid, refunded]", "refunded", True),
        ("customer.*", "customer.subscription.deleted", True),
        ("customer.*", "customer", False),
        ("'*.deleted'", "customer.subscription.deleted", True),
        ("'*'", "anything", True),
        ("'*'", "", True),
        ("order.?aid", "order.paid", True),
        ("[order.*, order.paid]", "order.paid", True),
    ],
)
def test_a_rule_is_for_types_and_globs(event, kind, matches):
    found = evaluate(f"  - {{goal: a, event: {event}}}\n", {"type": kind})
    assert len(found.planned) == matches
    assert [t.result for t in found.traces] == ["matched" if matches else "event"]


def test_every_rule_has_a_trace_in_the_order_of_the_file():
    text = """\
  - {goal: a, event: other}
  - {goal: b, event: paid, when: {amount: {gt: 0}}}
  - {goal: c, event: paid, enabled: false}
  - {goal: '{name}', id: d, event: paid}
  - {goal: e, event: paid}
"""
    found = evaluate(text, {"type": "paid", "amount": 0})
    assert [(t.rule_id, t.result) for t in found.traces] == [
        ("a", "event"),
        ("b", "condition"),
        ("c", "disabled"),
        ("d", "failed"),
        ("e", "matched"),
    ]
    assert [t.to_json() for t in found.traces][:3] == [
        {"rule": "a", "goal": "a", "result": "event", "path": "envelope.type", "expected": "other", "actual": "paid"},
        {"rule": "b", "goal": "b", "result": "condition", "path": "amount", "expected": "gt 0", "actual": "0"},
        {"rule": "c", "goal": "c", "result": "disabled", "message": "the rule is switched off (enabled: false)"},
    ]
    assert [rules.describe(t) for t in found.traces] == [
        "the rule is for other",
        "amount is 0, expected gt 0",
        "the rule is switched off (enabled: false)",
        "the goal's name needs {name}, which has no value",
        "matched",
    ]


def test_the_files_condition_applies_to_all_rules():
    text = HEAD + "  - {goal: a, event: paid}\nwhen: {store: 5}\n"
    assert trace(text, {"type": "paid", "store": 6}).to_json()["path"] == "store"
    assert only(text, {"type": "paid", "store": "5"}).name == "a"


def test_the_rules_own_visitor_travels_with_the_goal():
    text = "  - {goal: a, event: paid, visitor: [mine, visitor, nothing]}\n"
    goal = only(text, {"type": "paid", "visitor": "v1", "mine": ""})
    assert goal.candidates == (Candidate("mine", ""), Candidate("visitor", "v1"))


def test_a_visitor_that_is_an_object_is_a_candidate_that_identity_judges():
    text = "  - {goal: a, event: paid, visitor: mine}\n"
    assert only(text, {"type": "paid", "mine": {"a": 1}}).candidates == (Candidate("mine", {"a": 1}),)


def test_times_and_destination_travel_with_the_goal():
    text = "  - {goal: a, event: paid, max_age: 3d, wait: 2h, datafast: {name: shop2, api_key: df_1}}\n"
    goal = only(text, {"type": "paid"})
    assert (goal.max_age_ms, goal.wait_ms, goal.destination) == (259_200_000, 7_200_000, "shop2")


class Broken:
    """A condition with a fault of its own."""

    text = "broken"

    def test(self, _document):
        raise RuntimeError("secret of the body")


def test_a_rule_that_breaks_is_its_own_trace_and_the_others_go_on():
    found = load(HEAD + "  - {goal: a, event: paid}\n  - {goal: b, event: paid}\n")
    first, second = found.rules["shop"]
    broken = replace(found, tables={"shop": table((replace(first, when=Broken()), second), ALWAYS)})
    read = Document(body={"type": "paid"}, envelope={"type": "paid"})
    made = rules.evaluate(broken, found.sources["shop"], read, event_name="e", mode="live", hash_key=KEY)
    assert [(t.rule_id, t.result, t.message) for t in made.traces] == [
        ("a", "failed", "the rule failed (RuntimeError)"),
        ("b", "matched", None),
    ]


def test_an_unknown_source_has_no_rules():
    found = load(HEAD + RULE)
    other = load(HEAD + RULE, name="other.yaml").sources["other"]
    assert rules.evaluate(found, other, Document(body={}), event_name="e", mode="live", hash_key=KEY).traces == ()


def test_the_traces_of_many_event_types_stay_bounded():
    found = load(HEAD + RULE)
    for i in range(2000):
        read = Document(body={}, envelope={"type": f"type_{i}"})
        rules.evaluate(found, found.sources["shop"], read, event_name="e", mode="live", hash_key=KEY)
    assert len(found.tables["shop"].idle) <= 500


# ------------------------------------------------------------------------------------------------ tests inside files


def results(text: str):
    return [
        (result.ok, result.message)
        for result in mapping_tests.run_tests(load(text), settings.load({}), 1_790_000_000_000)
    ]


TESTED = HEAD + RULE


def test_the_tests_of_a_file_pass():
    text = (
        TESTED
        + f"""\
tests:
  - name: a sale
    event: {{type: paid, id: 1, amount: 4900, plan: pro, visitor: {VISITOR}}}
    goals: [{{goal: sale, metadata: {{amount: "49.00", plan: pro}}, visitor: {VISITOR}}}]
  - name: nothing
    event: {{type: other}}
    goals: []
"""
    )
    assert results(text) == [(True, ""), (True, "")]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("event: {type: other}, goals: [{goal: sale}]", "expected the goal sale, got no goal (the rule is for paid)"),
        ("event: {type: paid}, goals: []", "expected no goal, but got sale (rule sale)"),
        (
            "event: {type: paid, amount: 1}, goals: [{goal: sale, metadata: {amount: '0.02', plan: pro}}]",
            'sale: expected amount "0.02", got "0.01"; sale: expected plan "pro", got nothing',
        ),
        ("event: {type: paid, plan: x}, goals: [{goal: sale, metadata: {}}]", 'sale: expected plan nothing, got "x"'),
        (
            f"event: {{type: paid, visitor: {VISITOR}}}, goals: [{{goal: sale, visitor: w}}]",
            f'sale: expected the visitor w, got "{VISITOR}"',
        ),
        (
            "event: {type: paid, visitor: ' '}, goals: [{goal: sale, visitor: v}]",
            "sale: expected the visitor v, got nothing (visitor is empty: leave the key out where there is no cookie)",
        ),
        ("event: {type: paid}, goals: [{goal: sale, description: d}]", "sale: expected the description d, got nothing"),
        ("event: {type: paid}, goals: [{goal: sale}, {goal: sale}]", "expected the goal sale, got sale"),
        ("event: {type: paid}, goals: [{goal: salle}]", "expected the goal salle, got sale"),
    ],
)
def test_a_test_that_fails_says_expected_and_got(test, message):
    assert results(TESTED + f"tests:\n  - {{name: x, {test}}}\n") == [(False, message)]


def test_the_reason_of_a_condition_is_in_the_message():
    text = (
        HEAD
        + "  - {goal: a, event: paid, when: {n: 1}}\ntests: [{name: x, event: {type: paid, n: 2}, goals: [{goal: a}]}]"
    )
    assert results(text) == [(False, "expected the goal a, got no goal (n is 2, expected 1)")]


def test_the_tests_of_a_disabled_rule_still_run():
    text = (
        HEAD
        + """\
  - {goal: a, event: paid}
  - {goal: b, event: paid, enabled: false}
  - {goal: '{kind}', id: c, event: paid, enabled: false}
tests:
  - {name: the one that is on, event: {type: paid}, goals: [{goal: a}]}
  - {name: both, event: {type: paid}, goals: [{goal: a}, {goal: b}]}
  - {name: the named one only, event: {type: paid, kind: x}, only: c, goals: [{goal: x}]}
"""
    )
    assert results(text) == [(True, "")] * 3
    assert results(text.replace("goal: b, event: paid, en", "goal: b, event: other, en"))[1][0] is False


def test_a_test_may_have_headers_a_query_and_keys():
    text = """\
provider: github
goals:
  - goal: a
    event: push
    visitor: query.v
    once_per: key.order
    when: {header.x-other: {exists: true}}
tests:
  - {name: x, event: {}, headers: {X-GitHub-Event: push, X-Other: 1}, query: {v: %s}, key: {order: 5}, goals: [{goal: a, visitor: %s}]}
""" % (VISITOR, VISITOR)  # noqa: UP031 - the text is full of braces
    assert results(text) == [(True, "")]


def test_each_element_of_a_list_is_an_event_in_a_test():
    text = """\
provider: custom
verify: {type: basic}
envelope: {type: kind}
each: body.events
visitor: v
goals: [{goal: a, event: x, once_per: id, metadata: {shop: '{root.shop}', id: '{id}'}}]
tests:
  - name: two
    event: {shop: s1, events: [{kind: x, id: 1}, {kind: y, id: 2}, {kind: x, id: 3}]}
    goals: [{goal: a, metadata: {shop: s1, id: "1"}}, {goal: a, metadata: {shop: s1, id: "3"}}]
"""
    assert results(text) == [(True, "")]


def test_keys_come_from_the_links_in_a_test():
    text = """\
provider: stripe
goals: [{goal: a, event: x, once_per: "{key.customer}", metadata: {c: "{key.customer}"}}]
tests: [{name: x, event: {type: x, data: {object: {customer: {id: cus_1}}}}, goals: [{goal: a, metadata: {c: cus_1}}]}]
"""
    assert results(text) == [(True, "")]


def test_a_test_reads_its_event_as_production_does():
    """`envelope.time` in milliseconds, links only for their events, numbers as they are written, forms as forms."""
    text = """\
provider: custom
verify: {type: basic}
envelope: {type: kind, time: at}
links: [{kind: order, path: order, event: other}]
visitor: v
goals:
  - goal: a
    event: x
    metadata: {at: "{envelope.time}", order: "{key.order}", price: "{price}"}
tests:
  - name: one
    event: {kind: x, at: 1790000000, order: o_1, price: 4.10}
    goals: [{goal: a, metadata: {at: "1790000000000", price: "4.10"}}]
"""
    assert results(text) == [(True, "")]


def test_a_test_of_a_form_is_a_form():
    text = """\
provider: query-token
body: form
envelope: {type: resource_name}
goals: [{goal: a, event: sale, metadata: {plan: "{fields.plan}", one: "{list[0]}", off: "{off}"}}]
tests: [{name: x, event: {resource_name: sale, fields: {plan: pro}, list: [1, 2], off: false},
         goals: [{goal: a, metadata: {plan: pro, one: "1", off: "false"}}]}]
"""
    assert results(text) == [(True, "")]


def test_a_test_of_an_event_that_cannot_be_read_says_so():
    text = HEAD + "  - {goal: a, event: x}\ntests: [{name: x, event: [1], goals: [{goal: a}]}]"
    ((ok, message),) = results(text)
    assert not ok
    assert message.startswith("the event would be put into quarantine: the body is a list")


def test_the_example_of_the_grammar_works():
    text = f"""\
provider: stripe
secret: ${{STRIPE_WEBHOOK_SECRET}}
visitor:
  - data.object.metadata.datafast_visitor_id
  - data.object.client_reference_id

goals:
  - goal: purchase
    event: [checkout.session.completed, checkout.session.async_payment_succeeded]
    when:
      data.object.payment_status: paid
      data.object.amount_total: {{gt: 0}}
    once_per: data.object.id           # at most one goal of this name per value, whatever events bring it
    metadata:
      amount: "{{data.object.amount_total|money:data.object.currency}}"
      currency: "{{data.object.currency|upper}}"
      plan: "{{data.object.metadata.plan or data.object.metadata.product|default:unknown}}"

  - goal: dispute                      # the smallest rule: two lines
    event: charge.dispute.created

tests:
  - name: a paid checkout is a purchase
    event: {{type: checkout.session.completed, data: {{object: {{id: cs_1, payment_status: paid, amount_total: 4900, currency: usd,
            metadata: {{datafast_visitor_id: {VISITOR}, plan: pro}}}}}}}}
    goals:
      - {{goal: purchase, metadata: {{amount: "49.00", currency: USD, plan: pro}}}}
"""
    assert results(text) == [(True, "")]


# -------------------------------------------------------------------------------------------------------- properties

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(["paid", "1e999"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "id", "amount", "plan", "visitor", "data", "object", "a"]), inner)
    ),
    max_leaves=25,
)
HOSTILE = load(
    HEAD
    + """\
  - {goal: sale, event: '*', once_per: '{id}:{amount}', metadata: {amount: '{amount|money:plan}', plan: '{plan|slug}'}}
  - {goal: '{plan}', id: named, event: '*', metadata: '{data}', description: '{amount|minus:id} {plan|date:%Y}'}
  - {goal: c, event: [paid, '*d'], visitor: [data.object, plan], when: {any: [{amount: {gt: 0}}, {not: {plan: {in: [a]}}}]}}
  - {goal: d, event: '*', when: {data.object.a: {changed: up}}, once_per: data.object}
"""
)


@given(JSON, JSON, st.text(max_size=5))
def test_evaluate_never_raises_whatever_the_document(body, event_type, mode):
    read = Document(body=body, root=body, envelope={"type": event_type}, header={"a": "b"}, query={})
    found = rules.evaluate(HOSTILE, HOSTILE.sources["shop"], read, event_name="e", mode=mode, hash_key=KEY)
    assert len(found.traces) == 4
    for goal in found.planned:
        assert len(goal.metadata) <= 10
        assert 0 < len(goal.name) <= 64
        goal.once_key.encode()
    for found_trace in found.traces:
        assert found_trace.to_json()["result"] in {"matched", "event", "condition", "disabled", "failed"}


def test_the_same_event_gives_the_same_goals():
    body = {"type": "paid", "id": 1, "amount": 5, "plan": "usd"}
    read = Document(body=body, envelope={"type": "paid"})
    one, two = (
        rules.evaluate(HOSTILE, HOSTILE.sources["shop"], read, event_name="e", mode="live", hash_key=KEY)
        for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize("expected", ["https://other.example", "{contains: other.example}"])
def test_a_trace_shows_no_secret_of_an_address_in_a_header(expected):
    text = f"  - goal: g\n    event: sale\n    when: {{header.x-page: {expected}}}\n"
    found = load(HEAD + text)
    body = {"type": "sale"}
    header = {"x-page": "https://shop.example/?plan=pro&access_token=abcdef"}
    read = Document(body=body, root=body, envelope=body, header=header)
    [trace] = rules.evaluate(found, found.sources["shop"], read, event_name="e", mode="live", hash_key=KEY).traces
    assert trace.actual == "https://shop.example/?plan=pro&access_token=…"


@pytest.mark.parametrize(
    ("when", "actual"),
    [
        ("{any: [{plan: pro}, {client_secret: zzz}]}", "free; client_secret is …"),
        ("{any: [{client_secret: zzz}, {plan: pro}]}", "…; plan is free"),
        ("{any: [{plan: pro}, {all: [{plan: free}, {client_secret: zzz}]}]}", "free; client_secret is …"),
        ("{not: {plan: free, client_secret: {exists: true}}}", "free; client_secret is …"),
        ("{items.*.client_secret: zzz}", "…"),
    ],
)
def test_a_trace_shows_no_secret_behind_the_first_path(when, actual):
    body = {"type": "sale", "plan": "free", "client_secret": "abcdef", "items": [{"client_secret": "abcdef"}]}
    assert trace(f"  - goal: g\n    event: sale\n    when: {when}\n", body).actual == actual


@pytest.mark.parametrize("events", ["[t, t]", "['t*', 't*']"])
def test_a_type_that_is_named_twice_makes_one_goal(events):
    found = evaluate(f"  - {{goal: a, event: {events}}}\n", {"type": "t"})
    assert [trace.result for trace in found.traces] == ["matched"]
    assert len(found.planned) == 1
