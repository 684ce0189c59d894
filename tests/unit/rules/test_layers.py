"""Layers: a file that extends a shipped one, what it takes, what it changes, and where its errors are told."""
# ruff: noqa: E501 - tables of cases, one a line

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases_kit import one_in
from hypothesis import given
from hypothesis import strategies as st
from rules_kit import VISITOR

from bridge import loading, mapping_tests, rules, settings, sources
from bridge.errors import MappingError

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "mappings"
NAMES = sorted(path.stem for path in (*SHIPPED.glob("*.yaml"), *(SHIPPED / "examples").glob("*.yaml")))
STRIPE = (SHIPPED / "stripe.yaml").read_text("utf-8")


def load(text, name="stripe.yaml", **others):
    return loading.load({name: text, **{f"{stem}.yaml": more for stem, more in others.items()}}, {}, sources.presets())


def on(rule_set, source="stripe"):
    return [rule.id for rule in rule_set.rules[source] if rule.enabled]


def rule(rule_set, rule_id, source="stripe"):
    (found,) = [rule for rule in rule_set.rules[source] if rule.id == rule_id]
    return found


def faults(text, **others):
    with pytest.raises(MappingError) as caught:
        load(text, **others)
    return list(caught.value.problems)


def fault(text, **others):
    (found,) = faults(text, **others)
    return found


def results(text, name="stripe.yaml"):
    return mapping_tests.run_tests(load(text, name), settings.load({}), 1_790_000_000_000)


def checkout(**more):
    return (
        "{type: checkout.session.completed, data: {object: {id: cs_1, mode: payment, payment_status: paid,"
        " amount_total: 490000, currency: usd" + "".join(f", {key}: {value}" for key, value in more.items()) + "}}}"
    )


# ------------------------------------------------------------------------------------------------ what is taken


@pytest.mark.parametrize("name", NAMES)
def test_one_line_is_the_shipped_file(name):
    folder = SHIPPED if (SHIPPED / f"{name}.yaml").exists() else SHIPPED / "examples"
    plain = load((folder / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")
    layer = load(f"extends: {name}\n", f"{name}.yaml")
    assert on(layer, name) == on(plain, name)
    assert {rule.origin for rule in layer.rules[name]} == {"shipped"}
    assert {rule.origin for rule in plain.rules[name]} == {""}
    assert layer.sources[name].visitor == plain.sources[name].visitor
    assert layer.sources[name].secret_names[0] == f"{name.upper().replace('-', '_')}_WEBHOOK_SECRET"
    assert layer.mappings[name].tests == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_goes_by_the_name_of_its_preset_too(name):
    folder = SHIPPED if (SHIPPED / f"{name}.yaml").exists() else SHIPPED / "examples"
    plain = load((folder / f"{name}.yaml").read_text("utf-8"), "own.yaml")
    layer = load(f"extends: {plain.sources['own'].provider}\n", "own.yaml")
    assert on(layer, "own") == on(plain, "own")
    assert f"shipped/{name}.yaml" in layer.files


def test_use_lists_exactly_what_is_on():
    assert on(load("extends: stripe\nuse: []\n")) == []
    assert on(load("extends: stripe\nuse: [refund, purchase]\n")) == ["purchase", "refund"]
    assert on(load("extends: stripe\nuse: [trial_converted]\n")) == ["trial_converted"]


def test_use_never_switches_on_a_second_way_of_counting_one_fact():
    assert on(load("extends: stripe\nuse: [dispute]\n")) == ["dispute", "dispute-escalated"]
    assert "purchase-payment-intent" not in on(load("extends: stripe\nuse: [purchase]\n"))
    other = "extends: stripe\nuse: []\ngoals: [{id: purchase-payment-intent, enabled: true}]\n"
    assert on(load(other)) == ["purchase-payment-intent"]


def test_a_layer_has_the_secret_of_its_own_source():
    shop = load("extends: stripe\n", "eu-shop.yaml")
    assert shop.sources["eu-shop"].secret_names[0] == "EU_SHOP_WEBHOOK_SECRET"
    named = load('extends: stripe\nsecret: "${PAY}"\n', "eu-shop.yaml")
    assert named.sources["eu-shop"].secret_names[0] == "PAY"


# ---------------------------------------------------------------------------------------------- what is changed


def test_an_override_adds_conditions_merges_metadata_and_replaces_the_rest():
    changed = rule(
        load(
            "extends: stripe\ngoals:\n"
            '  - {id: refund, when: {data.object.currency: usd}, metadata: {full: false, amount: "{data.object.amount}", site: shop},'
            " max_age: 1d, once_per: data.object.id}\n"
        ),
        "refund",
    )
    assert (changed.origin, changed.goal, changed.events) == ("override", "refund", ("charge.refunded",))
    assert [part.path.text for part in rules.engine.flat(changed.when)] == [
        "data.object.amount_refunded",
        "data.object.captured",
        "was.data.object.captured",
        "data.object.currency",
    ]
    assert [(key, template.text) for key, template in changed.metadata] == [
        ("provider", "{value.provider}"),
        ("amount", "{data.object.amount}"),
        ("currency", "{value.currency}"),
        ("charged", "{value.charged}"),
        ("site", "shop"),
    ]
    assert [path.text for path in changed.once_per] == ["data.object.id"]
    assert changed.max_age_ms == 86_400_000


def test_an_override_needs_no_more_than_its_id_and_one_key():
    assert "refund" not in on(load("extends: stripe\ngoals: [{id: refund, enabled: false}]\n"))
    assert "renewal" in on(load("extends: stripe\ngoals: [{id: renewal, enabled: true}]\n"))
    renamed = rule(load("extends: stripe\ngoals: [{id: refund, goal: money_back}]\n"), "refund")
    assert renamed.name.literal == "money_back"


def test_two_lists_of_names_are_one_list():
    changed = rule(
        load("extends: stripe\ngoals: [{id: card_added, enabled: true, metadata: [country, provider]}]\n"), "card_added"
    )
    assert [key for key, _ in changed.metadata] == ["provider", "country"]


def test_like_takes_a_shipped_rule_on_or_off():
    found = load(
        "extends: stripe\nuse: []\ngoals:\n  - {goal: late_churn, like: churned, when: {data.object.metadata.vip: true}, metadata: [monthly]}\n"
    )
    liked = rule(found, "late_churn")
    assert (liked.origin, liked.enabled, liked.events) == ("like", True, ("customer.subscription.deleted",))
    assert [key for key, _ in liked.metadata] == ["provider", "plan", "reason", "feedback", "monthly"]
    assert [path.text for path in liked.once_per] == ["{data.object.id}"]
    assert on(found) == ["late_churn"]


def test_like_takes_what_a_rule_follows():
    liked = rule(load("extends: stripe\ngoals: [{goal: rescued, like: payment-recovered-by-hand}]\n"), "rescued")
    assert liked.follows == "payment_failed"


def test_visitor_and_links_put_the_layer_first_and_keep_the_rest():
    plain = load(STRIPE).sources["stripe"]
    layer = load(
        "extends: stripe\nvisitor: data.object.metadata.mine\nlinks: {seat: data.object.metadata.seat}\n"
    ).sources["stripe"]
    assert [path.text for path in layer.visitor] == [
        "data.object.metadata.mine",
        *(path.text for path in plain.visitor),
    ]
    assert [link.kind for link in layer.links] == ["seat", *(link.kind for link in plain.links)]
    own = load("extends: generic\nvisitor: [user.visitor]\n", "generic.yaml").sources["generic"]
    assert [path.text for path in own.visitor] == ["user.visitor", "datafast_visitor_id"]


def test_values_and_maps_merge_by_name():
    layer = 'extends: polar\nvalues: {product: mine, team: "{data.metadata.team}"}\nmaps: {plans: {a: b}}\n'
    values = load(layer, "polar.yaml").sources["polar"].values.choices
    assert {"amount", "product", "team"} <= set(values)
    assert values["product"][0].source.text == "mine"
    assert load(layer.replace("team: ", "full: "), "polar.yaml")  # the shipped table is still there


def test_conditions_of_the_whole_file_are_for_all_rules():
    source = load("extends: stripe\nwhen: {data.object.metadata.site: shop}\n").mappings["stripe"]
    assert "data.object.metadata.site" in source.when.text


def test_the_headers_that_the_shipped_file_reads_are_kept():
    shopify = (SHIPPED / "examples" / "shopify.yaml").read_text("utf-8")
    reads = load(shopify, "shopify.yaml").sources["shopify"].reads
    assert load("extends: shopify\n", "shopify.yaml").sources["shopify"].reads == reads


# -------------------------------------------------------------------------------------------- where errors are told

IN_ONE_LINE = [
    ("extends: stirpe\n", '1:10: there is no shipped file "stirpe"; did you mean "stripe"?'),
    ("extends: [stripe]\n", '1:10: "extends" takes the name of one shipped file, such as stripe; no path, and no other file'),
    ("extends: ../stripe\n", '1:10: "extends" takes the name of one shipped file, such as stripe, not "../stripe"; no path, and no other file'),
    ("extends: /etc/passwd\n", '1:10: "extends" takes the name of one shipped file, such as stripe, not "/etc/passwd"; no path, and no other file'),
    ("extends: examples/polar\n", '1:10: "extends" takes the name of one shipped file, such as stripe, not "examples/polar"; no path, and no other file'),
    ("extends: stripe.yaml\n", '1:10: "extends" takes the name of one shipped file, such as stripe, not "stripe.yaml"; no path, and no other file'),
    ('extends: "stripe\\0"\n', '1:10: "extends" takes the name of one shipped file, such as stripe, not "stripe\0"; no path, and no other file'),
    ("use: []\nextends: stripe\n", '2:1: "extends" is the first line of a layer: write it above all other keys'),
    ("extends: stripe\nprovider: polar\n", '2:11: a layer of stripe has its provider "stripe"; remove "provider"'),
    ("extends: stripe\nin_layers: [purchase]\n", '2:1: "in_layers" is for shipped files; a layer says in "use" which goals are on'),
    ("extends: stripe\nuse: [refnud]\n", '2:7: no shipped rule makes the goal "refnud"; did you mean "refund"?'),
    ("extends: stripe\nuse: [refund, refund]\n", '2:15: "refund" is listed twice'),
    ("extends: stripe\nuse: refund\n", '2:6: "use" must be a list, such as [refund]'),
    ("extends: stripe\nuse: [dispute-escalated]\n", '2:7: "use" takes names of goals, and "dispute-escalated" is the id of a rule of the goal "dispute"'),
    ("extends: stripe\ngoals: [{id: refnud, enabled: true}]\n", '2:14: no shipped rule has the id "refnud"; did you mean "refund"? (a rule of your own needs "goal" and "event", or "like")'),
    ("extends: stripe\ngoals: [{goal: a, like: chruned}]\n", '2:25: there is no shipped rule "chruned"; did you mean "churned"?'),
    ("extends: stripe\ngoals: [{id: refund, like: purchase}]\n", '2:28: "refund" is a shipped rule (shipped/stripe.yaml:LINE:5), which this one changes; "like" is for a new rule'),
    ("extends: stripe\ngoals: [{id: refund, wait: 1h}, {id: refund, wait: 2h}]\n", '2:38: id "refund" is taken by the rule on line 2'),
    ("extends: stripe\ngoals: [{id: refund, metadata: {fulll: false}}]\n", '2:33: the shipped rule has no "fulll" to take away; did you mean "full"?'),
    ('extends: stripe\ngoals: [{id: refund, metadata: {a: "{b|c:}"}}]\n', None),
    ("extends: stripe\ngoals: [{id: refund, whn: {}}]\n", '2:22: unknown key "whn" in a goal; did you mean "when"?'),
    ("extends: stripe\nvisitor: [a b]\n", None),
    ('extends: stripe\nvalues: {plan: "{x|nope}"}\n', None),
    ("extends: stripe\ngoals: {refund: {}}\n", '2:8: "goals" must be a list'),
    ("provider: stripe\nuse: [refund]\ngoals: [{goal: a, event: b}]\n", '2:1: "use" needs a shipped file: write "extends: stripe" (or another name) as the first line'),
    ("provider: stripe\ngoals: [{goal: a, event: b, like: refund}]\n", '2:29: "like" needs a shipped file: write "extends: stripe" (or another name) as the first line'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), IN_ONE_LINE)
def test_an_error_of_a_layer_is_one_line_at_its_place_in_the_layer(text, told):
    found = fault(text)
    line = rule(load("extends: stripe\n"), "refund").line
    if told is None:
        assert found.startswith("mappings/stripe.yaml:2:")
        assert "shipped/" not in found
    else:
        assert found == f"mappings/stripe.yaml:{told.replace('LINE', str(line))}"


def test_a_default_id_that_is_a_shipped_one_names_both_choices():
    line = rule(load("extends: stripe\n"), "churned").line
    for goal in ("churned", "Churned"):
        assert fault(f"extends: stripe\nuse: []\ngoals:\n  - {{goal: {goal}, event: a.b}}\n") == (
            f'mappings/stripe.yaml:4:12: the shipped file has a rule "churned" (shipped/stripe.yaml:{line}:5): write id: churned'
            " to change it, or give this rule an id of its own, such as id: my-churned"
        )
    assert load("extends: stripe\ngoals: [{goal: churned, id: my-churned, event: a.b}]\n")


def test_all_errors_are_told_at_once():
    told = faults(
        "extends: stripe\nuse: [a]\nvisitor: [a b]\ngoals:\n  - {goal: refund, event: x, wait: soon}\n  - {id: nope}\n"
    )
    assert [line.split(":")[1] for line in told] == ["2", "3", "5", "5", "6"]


def test_what_only_the_merge_makes_names_both_places():
    upgraded = rule(load("extends: stripe\n"), "plan_upgraded").line
    for key in ("id: plan_upgraded", "goal: mine, like: plan_upgraded"):
        assert fault(f"extends: stripe\ngoals:\n  - {{{key}, metadata: {{a: a, b: b}}}}\n").endswith(
            f": metadata has 11 entries; DataFast takes at most 10 (together with shipped/stripe.yaml:{upgraded}:5)"
        )
        assert fault(f"extends: stripe\ngoals:\n  - {{{key}, metadata: {{Currency: a}}}}\n").endswith(
            'metadata keys "currency" and "Currency" are the same: DataFast stores them in lower case'
            f" (together with shipped/stripe.yaml:{upgraded}:5)"
        )
    alone = fault(
        "extends: stripe\ngoals:\n  - {id: card_added, metadata: {" + ", ".join(f"k{n}: a" for n in range(11)) + "}}\n"
    )
    assert alone.startswith("mappings/stripe.yaml:3:")
    generic = load("extends: generic\n", "generic.yaml")
    assert generic
    with pytest.raises(MappingError) as caught:
        load("extends: generic\ngoals: [{id: any, metadata: {a: b}}]\n", "generic.yaml")
    (told,) = caught.value.problems
    assert told.startswith(
        "mappings/generic.yaml:2:29: the shipped rule's metadata is one template (shipped/generic.yaml:"
    )


def test_a_warning_that_only_use_makes_is_told_where_use_says_so():
    warned = [
        line for line in load("extends: stripe\nuse: [purchase, payment_recovered]\n").warnings if "follow" in line
    ]
    (told,) = warned
    assert told.startswith(
        'mappings/stripe.yaml:2:17: "payment_failed" is switched off, so nothing can follow it (shipped/stripe.yaml:'
    )


def test_an_override_of_a_rule_that_is_off_is_a_warning():
    text = "extends: stripe\nuse: [purchase]\ngoals: [{id: refund, metadata: [country]}]\n"
    assert (
        'mappings/stripe.yaml:3:9: "refund" is switched off: add "refund" to "use", or write enabled: true'
        in load(text).warnings
    )


def test_a_layer_of_a_layer_is_refused():
    assert fault("extends: shop\n", shop="extends: stripe\n") == (
        'mappings/stripe.yaml:1:10: "shop" is shop.yaml of this folder, and a layer extends a shipped file; a layer of a layer is not possible'
    )
    stored = {"stripe.yaml": "extends: stripe\n", "shipped/stripe.yaml": "extends: polar\n"}
    with pytest.raises(MappingError) as caught:
        rules.load(stored, {}, sources.presets())
    assert caught.value.problems == (
        'mappings/stripe.yaml:1:10: "stripe" is itself a layer (shipped/stripe.yaml:1:1), and a layer extends a shipped file; a layer of a layer is not possible',
    )


def test_a_shipped_file_that_cannot_be_read_is_told_in_one_line():
    for text, why in (("goals: [", "1:9: "), ("- a\n", "holds no map")):
        with pytest.raises(MappingError) as caught:
            rules.load({"stripe.yaml": "extends: stripe\n", "shipped/stripe.yaml": text}, {}, sources.presets())
        (told,) = caught.value.problems
        assert told.startswith("mappings/stripe.yaml:1:10: the shipped file cannot be read: shipped/stripe.yaml")
        assert why in told


@pytest.mark.long
def test_a_link_among_the_shipped_files_is_no_shipped_file(tmp_path):
    """In a copy of the package: what a link leads to is never read."""
    shutil.copytree(ROOT / "bridge", tmp_path / "bridge", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SHIPPED, tmp_path / "mappings")
    (tmp_path / "outside.yaml").write_text("provider: stripe\ngoals: [{goal: outside, event: a}]\n")
    (tmp_path / "mappings" / "outside.yaml").symlink_to(tmp_path / "outside.yaml")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "shop.yaml").write_text("extends: outside\n")
    asked = subprocess.run(
        [sys.executable, "-m", "bridge", "check", "--mappings", "own"],
        cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert asked.returncode == 1
    assert asked.stdout.startswith('own/shop.yaml:1:10: there is no shipped file "outside"')


# --------------------------------------------------------------------------------------------------------- upgrades


def next_release(layer, *, shipped):
    """The layer on the shipped file of another release, as a stored set brings it along."""
    return rules.load({"stripe.yaml": layer, "shipped/stripe.yaml": shipped}, {}, sources.presets())


NEW = """
  - goal: brand_new
    event: invoice.sent
    once_per: "{data.object.id}"

  - goal: refund
    id: refund-in-another-way
    event: refund.created
    once_per: "{data.object.charge}"
"""
NEXT = STRIPE.replace("data.object.amount_refunded: {gt: 0}\n", "data.object.amount_refunded: {gt: 1}\n", 1).replace(
    "  # ----", NEW + "\n  # ----", 1
)


@pytest.mark.parametrize("use", ["", "use: [purchase, refund]\n", "use: [refund, trial_converted]\n", "use: []\n"])
def test_an_upgrade_brings_corrections_and_switches_nothing_on(use):
    layer = f"extends: stripe\n{use}goals: [{{id: refund, metadata: [country]}}]\n"
    before, after = load(layer), next_release(layer, shipped=NEXT)
    assert len(after.rules["stripe"]) == len(before.rules["stripe"]) + 2
    assert on(after) == on(before)
    assert "amount_refunded is gt 0" in rule(before, "refund").when.text
    assert "amount_refunded is gt 1" in rule(after, "refund").when.text


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ("use: [refund, brand_new]\n", '2:15: no shipped rule makes the goal "brand_new"'),
        ("goals: [{id: brand_new, enabled: true}]\n", '2:14: no shipped rule has the id "brand_new"'),
        ("goals: [{goal: mine, like: brand_new}]\n", '2:28: there is no shipped rule "brand_new"'),
    ],
)
def test_a_rule_that_a_release_no_longer_ships_is_told_in_the_layer(layer, told):
    assert next_release(f"extends: stripe\n{layer}", shipped=NEXT)
    assert fault(f"extends: stripe\n{layer}").startswith(f"mappings/stripe.yaml:{told}")


def test_a_new_goal_can_be_named_like_any_other():
    assert on(next_release("extends: stripe\nuse: [brand_new]\n", shipped=NEXT)) == ["brand_new"]


@pytest.mark.parametrize("name", one_in(4, NAMES))
def test_the_rules_that_are_on_in_a_shipped_file_are_those_that_are_on_in_its_layers(name):
    """A rule that is new in a release ships switched off: otherwise an upgrade would switch it on for somebody."""
    folder = SHIPPED if (SHIPPED / f"{name}.yaml").exists() else SHIPPED / "examples"
    text = (folder / f"{name}.yaml").read_text("utf-8")
    written = rules.reading.strict_yaml.parse(text)[0].plain()
    assert written["in_layers"] == on(load(text, f"{name}.yaml"), name)


def test_the_stripe_rules_that_are_on_are_those_of_the_first_release_with_layers():
    assert on(load("extends: stripe\n")) == [
        "purchase",
        "refund",
        "dispute",
        "dispute-escalated",
        "payment_failed",
        "payment_recovered",
        "payment-recovered-by-hand",
        "cancel_scheduled",
        "cancel_undone",
        "plan_upgraded",
        "plan_downgraded",
        "involuntary_churn",
    ]


def test_a_set_is_named_by_the_shipped_files_too():
    layer = "extends: stripe\n"
    first, again, other = load(layer), load(layer), next_release(layer, shipped=NEXT)
    assert first.hash == again.hash != other.hash
    assert dict(first.files) == {"stripe.yaml": layer, "shipped/stripe.yaml": STRIPE}
    assert rules.own(first.files) == {"stripe.yaml": layer}
    stored = rules.load(dict(other.files), {}, sources.presets())
    assert (stored.hash, on(stored)) == (other.hash, on(other))
    assert list(load(STRIPE).files) == ["stripe.yaml"]


# ------------------------------------------------------------------------------------------------- tests of a layer

TESTED = """extends: stripe
goals:
  - {goal: big_purchase, like: purchase, when: {value.amount: {gte: 1000 USD}}}
tests:
  - {name: big, event: EVENT, goals: EXPECTED}
"""


def outcome(expected, event=None, layer=TESTED):
    (result,) = results(layer.replace("EVENT", event or checkout()).replace("EXPECTED", expected))
    return result


def test_a_test_of_a_layer_compares_the_layers_own_rules():
    result = outcome("[{goal: big_purchase}]")
    assert (result.message, result.also) == ("", ("purchase",))
    assert outcome("[]").message == "expected no goal, but got big_purchase (rule big_purchase)"
    both = outcome(
        '[{goal: purchase, metadata: {provider: stripe, amount: "4900.00", currency: USD, mode: payment}}, {goal: big_purchase}]'
    )
    assert (both.message, both.also) == ("", ())
    assert 'expected amount "1"' in outcome("[{goal: purchase, metadata: {amount: 1}}, {goal: big_purchase}]").message


def test_a_shipped_rule_that_is_off_takes_no_part():
    off = TESTED.replace("goals:\n", "use: []\ngoals:\n", 1)
    assert (
        "expected the goal purchase, got big_purchase"
        in outcome("[{goal: purchase}, {goal: big_purchase}]", layer=off).message
    )
    assert outcome("[{goal: big_purchase}]", layer=off).also == ()


def test_an_overridden_rule_is_the_layers():
    layer = "extends: stripe\ngoals: [{id: purchase, metadata: {mode: false}}]\ntests:\n  - {name: a, event: EVENT, goals: EXPECTED}\n"
    assert "but got purchase" in outcome("[]", layer=layer).message
    assert outcome('[{goal: purchase, metadata: {provider: stripe, amount: "4900.00", currency: USD}}]', layer=layer).ok


def test_a_visitor_of_a_layer_is_found():
    layer = TESTED.replace("goals:\n", "visitor: data.object.metadata.mine\ngoals:\n", 1)
    assert outcome(f"[{{goal: big_purchase, visitor: {VISITOR}}}]", checkout(metadata=f"{{mine: {VISITOR}}}"), layer).ok


# --------------------------------------------------------------------------------------------------------- copies


def test_a_copy_is_told_by_which_rules_it_differs():
    assert rules.copy_of(STRIPE) == ("stripe", (), ())
    older = STRIPE.replace("{gt: 1}", "{gte: 2}").replace("  - goal: card_added\n", "  - goal: card_stored\n")
    assert rules.copy_of(older) == ("stripe", ("payment_recovered", "payment-recovered-by-hand"), ("card_added",))
    charged = STRIPE.replace('charged: "{data.object.amount_captured or ', 'charged: "{')
    assert rules.copy_of(charged) == ("stripe", ("refund",), ())
    comments = "\n".join(line for line in STRIPE.splitlines() if not line.lstrip().startswith("#"))
    assert rules.copy_of(comments) == ("stripe", (), ())


def test_a_layer_and_a_file_of_ones_own_are_no_copies():
    assert rules.copy_of("extends: stripe\n") is None
    one = "provider: typeform\ngoals: [{goal: lead, event: form_response}]\n"
    assert rules.copy_of(one) is None
    assert rules.copy_of(one + "in_layers: [lead]\n") == ("typeform", ("lead",), ())
    assert rules.copy_of("provider: stripe\ngoals: [{goal: refund, event: a}]\n") is None
    assert rules.copy_of("provider: [") is None
    assert rules.copy_of("provider: github\ngoals: 5\n") is None


# ------------------------------------------------------------------------------------------------- whatever it holds

YAMLISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["refund", "purchase", "a.b", "{a}", "false", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "refund", "amount", "any", "gt", "event", "kind", "path"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
FILE_KEYS = sorted(set(rules.schema_json()["properties"]) - {"extends"})
RULE_KEYS = sorted(rules.schema_json()["$defs"]["Goal"]["properties"])


@given(
    name=st.sampled_from(["stripe", "generic", "polar"]),
    file=st.dictionaries(st.sampled_from(FILE_KEYS), YAMLISH, max_size=2),
    begun=st.sampled_from(
        [{"id": "refund"}, {"id": "any"}, {"goal": "mine", "like": "refund"}, {"goal": "refund"}, {}]
    ),
    said=st.dictionaries(st.sampled_from(RULE_KEYS), YAMLISH, max_size=3),
)
def test_whatever_a_layer_holds_its_errors_are_told_one_a_line_in_the_layer(name, file, begun, said):
    whole = {"extends": name, "goals": [begun | said], **file}
    try:
        load(json.dumps(whole), f"{name}.yaml")
    except MappingError as error:
        for found in error.problems:
            assert found.startswith(f"mappings/{name}.yaml:1:")
            assert "\n" not in found
