"""`backtest`: other rules over the events that are stored, on both databases; exactly what differs is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from identity_kit import ALICE, BOB, SECRETS, Rig, rule_set, stripe_event
from sqlalchemy import update

from bridge import loading, rules, sources
from bridge.cli import main
from bridge.sources.body import MAX_EVENTS
from bridge.store import schema
from bridge.workbench import backtest, stored

RULES = """
provider: stripe
goals:
  - {goal: bought, event: checkout.session.completed, once_per: data.object.id,
     metadata: {amount: "{data.object.amount_total|money:data.object.currency}"}}
  - {goal: gone, event: customer.subscription.deleted, once_per: data.object.id}
  - {goal: failed, event: invoice.payment_failed, once_per: data.object.id}
  - {goal: recovered, event: invoice.paid, follows: failed, once_per: data.object.id}
  - {goal: off, id: off, event: checkout.session.completed, enabled: false}
"""


def checkout(name="cs_1", amount=4900, visitor=ALICE, **more):
    thing = {"object": "checkout.session", "id": name, "amount_total": amount, "currency": "usd", "customer": "cus_1"}
    return stripe_event("checkout.session.completed", thing | {"metadata": {"datafast_visitor_id": visitor}}, **more)


def of(kind, name):
    return stripe_event(kind, {"object": kind.split(".")[0], "id": name})


@pytest.fixture
def rig(store, clock):
    return Rig(store, clock, {"stripe.yaml": RULES})


def compare(rig, text, since_ms=0, present=None, **files):
    """The present rules against others: a file `stripe.yaml` of this text, and more files."""
    other = rule_set({"stripe.yaml": text} | {f"{name}.yaml": text for name, text in files.items()})
    return against(rig, other, since_ms, present)


def against(rig, other, since_ms=0, present=None):
    ours, theirs = (stored.preparer(rig.store, one, rig.settings) for one in (present or rig.rules, other))
    return backtest.compare(rig.store, ours, theirs, since_ms)


def told(result):
    """(rule, lost, gained, changed) of the rules that differ."""
    return [(rule.rule, rule.lost, rule.gained, rule.changed) for rule in result.rules if rule.differs]


def example(result):
    (found,) = [example for rule in result.rules for example in rule.examples]
    return found


def test_exactly_the_rule_that_is_lost_the_one_gained_and_the_one_changed_are_named(rig):
    rig.route(
        checkout("cs_1"), checkout("cs_2"), of("customer.subscription.deleted", "sub_1"), of("price.created", "p")
    )
    other = RULES.replace("  - {goal: gone, event: customer.subscription.deleted, once_per: data.object.id}\n", "")
    other = other.replace("|money:data.object.currency}", "}") + "  - {goal: priced, event: price.created}\n"
    result = compare(rig, other)
    assert told(result) == [("bought", 0, 0, 2), ("gone", 1, 0, 0), ("priced", 0, 1, 0)]
    assert (result.events, result.gone, result.same) == (4, 0, 0)
    by_rule = {rule.rule: rule for rule in result.rules}
    assert by_rule["bought"].examples[0].differences == (("metadata amount", "49.00", "4900"),)
    assert by_rule["gone"].examples[0].why == "there is no rule gone"
    assert by_rule["priced"].examples[0].event_type == "price.created"
    assert (by_rule["priced"].present, by_rule["priced"].other) == (None, 1)


def test_the_same_rules_make_the_same_goals(rig):
    rig.route(checkout(), of("invoice.payment_failed", "in_1"), of("invoice.paid", "in_1"))
    result = compare(rig, RULES)
    assert (told(result), result.same) == ([], 3)


def test_a_rule_that_reads_an_id_which_the_bridge_recognised_makes_what_it_makes_in_routing(rig):
    rig.route(checkout(), checkout("cs_2"))
    keyed = RULES.replace(
        "  - {goal: gone", '  - {goal: of_cus, event: "checkout.*", when: {key.customer: cus_1}}\n  - {goal: gone'
    )
    assert told(compare(rig, keyed)) == [("of_cus", 0, 2, 0)]
    by_value = 'values: {buyer: "{key.customer}"}\n' + keyed.replace("key.customer: cus_1", "value.buyer: cus_1")
    assert told(compare(rig, by_value)) == [("of_cus", 0, 2, 0)]


def test_goals_that_follow_others_differ_where_the_rules_for_their_own_type_are_the_same(rig):
    rig.route(of("invoice.payment_failed", "in_1"), of("invoice.paid", "in_1"))
    result = compare(rig, RULES.replace("goal: failed, event", "goal: failed, enabled: false, event"))
    assert told(result) == [("failed", 1, 0, 0), ("recovered", 1, 0, 0)]


def test_of_a_lost_goal_the_condition_is_named_that_fails(rig):
    rig.route(checkout(amount=900), checkout("cs_2", amount=9900))
    result = compare(rig, RULES.replace("once_per", "when: {data.object.amount_total: {gt: 1000}}, once_per", 1))
    assert told(result) == [("bought", 1, 0, 0)]
    assert example(result).why == "data.object.amount_total is 900, expected gt 1000"
    assert result.same == 1


def test_a_rule_that_is_switched_off_loses_its_goals_and_one_that_is_switched_on_gains_them(rig):
    rig.route(checkout())
    off = compare(rig, RULES.replace("goal: bought", "goal: bought, enabled: false"))
    assert told(off) == [("bought", 1, 0, 0)]
    assert example(off).why == "the rule is switched off (enabled: false)"
    assert told(compare(rig, RULES.replace("enabled: false", "enabled: true"))) == [("off", 0, 1, 0)]


def test_under_another_name_a_goal_is_lost_and_another_one_gained(rig):
    rig.route(checkout())
    result = compare(rig, RULES.replace("goal: bought", "goal: sold, id: bought"))
    assert told(result) == [("bought", 1, 1, 0)]
    assert result.rules[0].examples[0].why == "the rule makes sold instead"


def test_the_first_event_wins_across_all_stored_events(rig):
    """Per customer instead of per checkout: the first goal changes, the other two are not made any more."""
    rig.route(*(checkout(f"cs_{n}") for n in range(3)))
    result = compare(rig, RULES.replace("data.object.id,\n", "data.object.customer,\n", 1))
    assert told(result) == [("bought", 2, 0, 1)]
    lost, _, changed = result.rules[0].examples
    assert lost.why == "made before: only one per stripe:live:bought:cus_1"
    assert changed.differences == (("only once per", "stripe:live:bought:cs_0", "stripe:live:bought:cus_1"),)


def test_what_an_event_before_the_time_span_has_made_is_made_by_neither(rig, clock):
    rig.route(checkout())
    clock.advance(60_000)
    rig.route(checkout(), checkout("cs_2"))
    result = compare(rig, RULES.replace("goal: gone", "goal: left"), since_ms=clock.now_ms - 1_000)
    assert (told(result), result.events, result.same) == ([], 2, 1)


def test_a_goal_that_another_event_makes_first_has_changed(rig):
    small, large = checkout(amount=900), checkout(amount=9900)
    rig.route(small, large)
    result = compare(rig, RULES.replace("once_per", "when: {data.object.amount_total: {gt: 1000}}, once_per", 1))
    assert told(result) == [("bought", 0, 0, 1)]
    assert example(result).differences == (("metadata amount", "9.00", "99.00"), ("made by", "ev_1", "ev_2"))[:2]


def test_goals_that_follow_others_are_lost_with_them(rig):
    rig.route(of("invoice.payment_failed", "in_1"), of("invoice.paid", "in_1"), of("invoice.paid", "in_2"))
    result = compare(rig, RULES.replace("goal: failed, ", "goal: failed, when: {data.object.id: other}, "))
    assert told(result) == [("failed", 1, 0, 0), ("recovered", 1, 0, 0)]
    assert result.rules[3].examples[0].why == "no failed with in_1 was made before"


def test_a_goal_follows_one_that_was_made_before_the_time_span(rig, clock):
    rig.route(of("invoice.payment_failed", "in_1"))
    clock.advance(60_000)
    rig.route(of("invoice.paid", "in_1"))
    result = compare(rig, RULES, since_ms=clock.now_ms - 1_000)
    assert (told(result), result.same) == ([], 1)


def test_another_visitor_and_other_keys_are_changes(rig):
    rig.route(checkout())
    visitor = compare(rig, "visitor: [data.object.client]\n" + RULES)
    assert told(visitor) == [("bought", 0, 0, 1)]
    (difference,) = example(visitor).differences
    assert difference == ("visitor", ALICE, None)
    keys = compare(rig, RULES + "links: [{kind: tab, path: data.object.amount_total}]\n")
    (difference,) = example(keys).differences
    assert difference.what == "keys that lead to a visitor"
    assert "4900" in difference.after


def test_a_source_that_only_one_of_the_two_sets_has_is_said(rig):
    rig.route(checkout())
    result = compare(rig, RULES)
    assert (result.missing, result.new) == ({}, {})
    other = rule_set({"shop.yaml": RULES})
    result = against(rig, other)
    assert (dict(result.missing), dict(result.new)) == ({"stripe": 1}, {"shop": 0})
    assert example(result).why == "there is no mapping file for stripe"
    back = against(rig, rig.rules, present=other)
    assert (told(back)[0][2], dict(back.new), back.unreadable) == (1, {"stripe": 1}, (1, 0))


def test_events_without_their_bodies_are_counted(rig):
    first, second = rig.put(checkout()), rig.put(checkout("cs_2"))
    rig.route_all()
    with rig.store.write() as conn:
        conn.execute(update(schema.events).where(schema.events.c.id == first).values(body=None))
    result = compare(rig, RULES.replace("goal: bought", "goal: sold"))
    assert (result.events, result.gone) == (2, 1)
    assert {example.event_id for rule in result.rules for example in rule.examples} == {second}


def test_an_event_that_one_set_cannot_read_is_counted_and_loses_its_goals(rig):
    event = checkout()
    event["data"]["object"]["lines"] = [{}] * (MAX_EVENTS + 1)
    rig.route(event)
    result = compare(rig, "each: data.object.lines\n" + RULES)
    assert told(result) == [("bought", 1, 0, 0)]
    assert result.unreadable == (0, 1)


def test_what_only_the_other_set_reads_of_a_request_is_said(rig):
    result = compare(rig, RULES.replace("once_per", "when: {header.x-shop: a}, once_per", 1))
    assert dict(result.unstored) == {"stripe": ("header.x-shop",)}


def test_only_some_examples_of_each_kind_are_kept_but_all_are_counted(rig):
    rig.route(*(checkout(f"cs_{n}") for n in range(30)))
    result = compare(rig, RULES.replace("goal: bought", "goal: sold"))
    assert told(result) == [("bought", 30, 0, 0), ("sold", 0, 30, 0)]
    assert [len(rule.examples) for rule in result.rules if rule.differs] == [backtest.EXAMPLES] * 2


def test_pages_of_events_do_not_show(rig, monkeypatch):
    from bridge.store.operator import history

    rig.route(*(checkout(f"cs_{n % 4}") for n in range(12)))
    whole = compare(rig, RULES.replace("goal: bought", "goal: sold"))
    monkeypatch.setattr(history, "PAGE", 1)
    assert compare(rig, RULES.replace("goal: bought", "goal: sold")) == whole


def everything(store):
    """All rows of all tables."""
    with store.read() as conn:
        return {table.name: sorted(map(str, conn.execute(table.select()))) for table in schema.metadata.sorted_tables}


def test_nothing_is_written(rig):
    rig.route(checkout(), checkout("cs_2", visitor=BOB))
    before = everything(rig.store)
    assert compare(rig, RULES.replace("goal: bought", "goal: sold")).lost == 2
    assert everything(rig.store) == before


# ------------------------------------------------------------------------------------------------------- releases


def test_every_release_that_the_changelog_names_has_its_files():
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    released = [
        line[4:].split("]")[0] for line in changelog.splitlines() if line.startswith("## [") and "Unrel" not in line
    ]
    assert released == backtest.versions()[-2::-1], "keep the shipped files of a release in bridge/workbench/releases"


@pytest.mark.parametrize("version", backtest.versions())
def test_the_files_of_a_release_are_read_by_this_one(version):
    files = backtest.files_of(version)
    assert {"stripe.yaml", "lemonsqueezy.yaml", "generic.yaml", "polar.yaml"} <= files.keys()
    assert loading.load(files, SECRETS, sources.presets()).rules["stripe"]


def test_own_files_stand_on_those_of_a_release():
    own = {"stripe.yaml": "mine", "tally.yaml": "mine, too", "shop.yaml": "extends: stripe\ngoals: []\n"}
    assert backtest.on_release(own, {"stripe.yaml": "theirs", "polar.yaml": "unused"}) == {
        "stripe.yaml": "theirs",
        "tally.yaml": "mine, too",
        "shop.yaml": "extends: stripe\ngoals: []\n",
        "shipped/stripe.yaml": "theirs",
    }


def test_a_layer_stands_on_the_files_of_a_release(rig):
    """What differs between two releases of the shipped rule reaches the layer, and each rule says whose it is."""
    layer = {"stripe.yaml": "extends: stripe\nuse: [purchase]\ngoals:\n  - {goal: big, like: purchase}\n"}
    base = (
        rules.SHIPPED.joinpath("stripe.yaml")
        .read_text()
        .replace("- goal: purchase\n", "- goal: purchase\n    max_age: 2d\n", 1)
    )
    rig.route(
        checkout() | {"data": {"object": checkout()["data"]["object"] | {"mode": "payment", "payment_status": "paid"}}}
    )
    ours = loading.load(layer, SECRETS, sources.presets())
    theirs = loading.load(backtest.on_release(layer, {"stripe.yaml": base}), SECRETS, sources.presets())
    result = against(rig, theirs, present=ours)
    found = {rule.rule: (rule.origin, rule.changed) for rule in result.rules}
    assert (found["purchase"], found["big"]) == (("shipped", 1), ("like", 0)), "`like` takes no max_age"


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(sqlite_store, clock, sqlite_url, tmp_path, monkeypatch, capfd):
    """`main` in a folder with `mappings`, whose rules have routed a checkout and the end of a subscription."""
    rig = Rig(sqlite_store, clock, {"stripe.yaml": RULES})
    rig.route(checkout(), of("customer.subscription.deleted", "sub_1"))
    with rig.store.write() as conn:  # the command's clock is the machine's
        conn.execute(update(schema.events).values(received_at_ms=4_000_000_000_000))
    for name, value in {**SECRETS, "DATABASE_URL": sqlite_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    for folder, text in (("mappings", RULES), ("next", RULES.replace("goal: gone", "goal: left"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "stripe.yaml").write_text(text)

    def run(*words):
        code = main(["backtest", *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_the_answer_begins_with_what_differs_and_shows_examples(command):
    code, out, err = command("next")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "Goals: 1 lost and 1 gained; 1 the same."
    assert "SOURCE  RULE  PRESENT  OTHER    LOST  GAINED  CHANGED" in lines
    assert "stripe  gone  1        no rule  1" in lines
    assert "  ev_2  customer.subscription.deleted: there is no rule gone" in lines
    assert max(map(len, lines)) <= 80


def test_a_loss_is_an_exit_code_for_ci(command):
    assert command("next", "--expect-no-loss")[0] == 1
    assert command("next", "--expect-no-loss")[2] == "1 goal would be lost, and --expect-no-loss allows none.\n"
    assert command("mappings", "--expect-no-loss")[:1] == (0,)
    code, out, _ = command("next", "--expect-no-loss", "--json")
    assert (code, json.loads(out.split("\n}\n")[0] + "\n}")["ok"]) == (1, False)


def test_as_json_the_rules_are_those_that_differ(command):
    told = json.loads(command("next", "--json")[1])
    assert [(rule["source"], rule["rule"], rule["lost"], rule["gained"]) for rule in told["rules"]] == [
        ("stripe", "gone", 1, 0),
        ("stripe", "left", 0, 1),
    ]
    assert told["rules"][0]["examples"] == [
        {
            "kind": "lost",
            "event": "ev_2",
            "type": "customer.subscription.deleted",
            "test": False,
            "goal": "gone",
            "why": "there is no rule gone",
            "differences": [],
        }
    ]
    assert (told["events"], told["gone"], told["same"], told["ok"]) == (2, 0, 1, True)


def test_one_file_stands_in_for_the_file_of_its_name(command):
    assert command("next/stripe.yaml")[1].startswith("Goals: 1 lost and 1 gained; 1 the same.")


def test_without_a_folder_the_folder_is_compared_with_the_rules_in_force(command, sqlite_store):
    from bridge.store import rulesets

    assert command()[0] == 2
    with sqlite_store.write() as conn:
        rulesets.accept(conn, "hash", {"stripe.yaml": RULES.replace("goal: gone", "goal: left")})
    code, out, _ = command()
    assert (code, out.splitlines()[0]) == (0, "Goals: 1 lost and 1 gained; 1 the same.")
    assert "  Present  the rules in force" in out.splitlines()


def test_a_release_is_named_by_its_version(command):
    code, out, _ = command("--shipped", "0.1.0")
    assert (code, out.splitlines()[0]) == (0, "Goals: 2 lost; 0 the same.")
    code, _, err = command("--shipped", "9.9")
    assert (code, err) == (
        2,
        f"The files of 9.9 are not included in this release; those of 0.1.0 and {backtest.versions()[-1]} are.\n",
    )
    assert command("next", "--shipped", "0.1.0")[0] == 2


def test_a_secret_in_an_example_is_hidden(command, sqlite_store):
    with sqlite_store.write() as conn:
        body = json.dumps(checkout("cs_9") | {"access_token": "tok_very_secret_1234"}).encode()
        conn.execute(update(schema.events).where(schema.events.c.id == 1).values(body=body))
    Path("next/stripe.yaml").write_text(RULES.replace("metadata: {", 'metadata: {tab: "{access_token}", '))
    out = command("next")[1]
    assert "metadata tab nothing" in out
    assert "tok_very_secret_1234" not in out
