"""A layer that changes nothing makes of every recorded event what the shipped file makes; what it changes, shows."""

from __future__ import annotations

import json
import shutil

import golden
import pytest
from identity_kit import ALICE, Rig, stripe_event

from bridge import loading, rules, sources
from bridge.cli import main
from bridge.prepare import Preparer
from bridge.rulebook import Rulebook
from bridge.settings import load
from bridge.workbench.trace import rule_sentence

TEXTS = {file.stem: file.read_text("utf-8") for file in golden.SHIPPED}
PLAIN = rules.load({f"{name}.yaml": text for name, text in TEXTS.items()}, golden.ENVIRON, sources.presets())


class Player(golden.Player):
    def __init__(self, files):
        self.rule_set = rules.load(files, golden.ENVIRON, sources.presets())
        self.rig = Preparer(self.rule_set, load({"DATAFAST_API_KEY": "df_key"}), {}, b"golden")


def use_of(name):
    """The goals that are on in a shipped file, by name."""
    return list(dict.fromkeys(rule.goal for rule in PLAIN.rules[name] if rule.enabled))


@pytest.mark.parametrize("use", [False, pytest.param(True, marks=pytest.mark.long)], ids=["bare", "use"])
def test_a_layer_without_changes_makes_the_goals_of_the_shipped_file(use):
    """Without `use`, and with `use` of everything that is on."""
    plain = Player({f"{name}.yaml": text for name, text in TEXTS.items()})
    used = {name: f"use: {json.dumps(use_of(name))}\n" if use else "" for name in TEXTS}
    layer = Player({f"{name}.yaml": f"extends: {name}\n{used[name]}" for name in TEXTS})
    seen = made = 0
    for name, source, body, headers in [*golden.events(), *golden.mapping_tests()]:
        if source in TEXTS:
            expected = plain.play(name, source, body, headers)
            assert layer.play(name, source, body, headers) == expected
            seen, made = seen + 1, made + len(expected["goals"])
    assert seen > 300
    assert made > 100


LAYER = """extends: stripe
use: [purchase]
goals:
  - {goal: big_purchase, like: purchase, when: {value.amount: {gte: 1000 USD}}}
  - {id: purchase, metadata: {mode: false}}
"""
SALE = {"object": "checkout.session", "id": "cs_1", "mode": "payment", "payment_status": "paid", "amount_total": 490000}
SALE |= {"currency": "usd", "metadata": {"datafast_visitor_id": ALICE}}


def test_the_trace_says_whose_a_rule_is(store, clock):
    rig = Rig(store, clock, {"stripe.yaml": LAYER})
    rig.route(stripe_event("checkout.session.completed", SALE))
    assert sorted((goal.name, goal.rule_id) for goal in rig.goals()) == [
        ("big_purchase", "big_purchase"),
        ("purchase", "purchase"),
    ]
    (element,) = rig.trace(1)["elements"]
    origins = {rule["rule"]: rule["origin"] for rule in element["rules"]}
    assert origins["purchase"] == "override"
    assert origins["big_purchase"] == "like"
    assert origins["card_added"] == origins["refund"] == "shipped"
    assert {goal["rule"]: goal["origin"] for goal in element["goals"]} == {
        "purchase": "override",
        "big_purchase": "like",
    }
    assert rule_sentence(element["rules"][0]) == "matched: goal purchase"


def test_why_says_whose_the_rule_of_a_goal_is(sqlite_store, sqlite_url, clock, capsys, monkeypatch):
    rig = Rig(sqlite_store, clock, {"stripe.yaml": LAYER})
    rig.route(stripe_event("checkout.session.completed", SALE))
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    told = []
    for goal in rig.goals():
        assert main(["why", f"goal_{goal.id}"]) == 0
        told += [line.split(None, 1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  Rule ")]
    assert sorted(told) == ["big_purchase of stripe (added)", "purchase of stripe (override)"]
    assert main(["why", "ev_1"]) == 0
    assert "card_added (shipped)" in capsys.readouterr().out


def test_a_file_that_extends_nothing_has_no_origins(store, clock):
    rig = Rig(store, clock, {"stripe.yaml": TEXTS["stripe"]})
    rig.route(stripe_event("checkout.session.completed", SALE))
    assert "origin" not in json.dumps(rig.trace(1))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "stripe.yaml").write_text(LAYER)
    return tmp_path / "own"


def rulebook(folder, store, failing=lambda _: []):
    return Rulebook(folder, {}, sources.presets(), store, failed_tests=failing)


def edited(book, folder, text):
    (folder / "stripe.yaml").write_text(text)
    book.poll()
    book.poll()
    return book


@pytest.mark.long
def test_a_layer_is_reloaded_like_any_file_and_may_become_a_copy(store, folder):
    book = rulebook(folder, store)
    assert book.problem is None
    edited(book, folder, LAYER.replace("[purchase]", "[purchase, refund]"))
    assert book.problem is None
    assert [rule.id for rule in book.current.rules["stripe"] if rule.enabled] == ["purchase", "refund", "big_purchase"]
    edited(book, folder, LAYER.replace("[purchase]", "[purchse]"))
    assert 'did you mean "purchase"?' in (book.problem or "")
    edited(book, folder, TEXTS["stripe"])  # the shipped file below the layer is not a file that disappeared
    assert book.problem is None
    edited(book, folder, LAYER)
    assert book.problem is None
    assert book.current.hash == rulebook(folder, store).current.hash


def test_an_upgrade_that_breaks_a_layers_tests_leaves_the_shipped_file_of_before_in_force(store, folder):
    older = TEXTS["stripe"].replace("payment_status: paid", "payment_status: [paid, settled]", 1)
    before = loading.load({"stripe.yaml": LAYER, "shipped/stripe.yaml": older}, {}, sources.presets())
    book = rulebook(folder, store)
    book._remember(before)
    upgraded = rulebook(folder, store, failing=lambda found: ["the test fails"] if found.hash != before.hash else [])
    assert upgraded.current.hash == before.hash
    assert dict(upgraded.current.files)["shipped/stripe.yaml"] == older
    assert upgraded.problem == "the test fails"


def test_a_rule_that_a_release_no_longer_ships_stays_in_force_until_the_layer_is_edited(store, folder):
    gone = "goals:\n  - {goal: farewell, event: invoice.voided}\n"
    older, layer = TEXTS["stripe"].replace("goals:\n", gone, 1), "extends: stripe\nuse: [purchase, farewell]\n"
    before = loading.load({"stripe.yaml": layer, "shipped/stripe.yaml": older}, {}, sources.presets())
    rulebook(folder, store)._remember(before)
    (folder / "stripe.yaml").write_text(layer)
    book = rulebook(folder, store)
    assert [rule.id for rule in book.current.rules["stripe"] if rule.enabled] == ["farewell", "purchase"]
    assert 'stripe.yaml:2:17: no shipped rule makes the goal "farewell"' in (book.problem or "")


def test_a_layer_that_is_in_force_is_not_taken_again(store, folder):
    book = rulebook(folder, store)
    taken = book.current
    book.poll()
    book.poll()
    assert book.current is taken


def test_a_layer_that_was_broken_at_the_start_is_sound_again_once_it_is_what_is_in_force(store, folder):
    rulebook(folder, store)
    text = (folder / "stripe.yaml").read_text()
    (folder / "stripe.yaml").write_text("extends: strip\n")
    book = rulebook(folder, store)
    assert "strip" in book.problem
    (folder / "stripe.yaml").write_text(text)
    book.poll()
    book.poll()
    assert book.problem is None


def test_explain_and_why_say_whose_a_rule_is(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "event.json").write_text(json.dumps(stripe_event("checkout.session.completed", SALE)))
    assert main(["explain", "event.json", "--source", "stripe", "--mappings", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "purchase (override)" in out
    assert "big_purchase (added)" in out
    assert "card_added (shipped)" in out
    assert main(["explain", "event.json", "--source", "stripe", "--mappings", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {goal["rule"]: goal["origin"] for goal in told["goals"]} == {"purchase": "override", "big_purchase": "like"}


def test_a_shipped_folder_may_hold_a_layer_of_another_name(tmp_path, capsys, monkeypatch):
    shutil.copytree(golden.ROOT / "mappings", tmp_path / "mappings")
    (tmp_path / "mappings" / "shop.yaml").write_text("extends: stripe\nuse: [purchase]\n")
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--mappings", "mappings"]) == 0
    assert "extends stripe: 1 rule, all as shipped (20 switched off), no tests" in capsys.readouterr().out
