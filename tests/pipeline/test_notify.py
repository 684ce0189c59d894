"""Of which goals the owner is to be told: those of rules with `notify: true` that are sent, from a webhook on."""

from __future__ import annotations

import json

import pytest
from composed import Composed

from bridge import rules, sources
from bridge.cli import main
from bridge.errors import MappingError
from bridge.store import schema

ALICE = "00000000-0000-4000-8000-00000000000a"
FILE = """
provider: custom
verify: {type: token, signature: {in: "header:x-token"}}
envelope: {type: type, id: id, test: test}
visitor: visitor
goals:
  - {goal: bought, event: paid, once_per: order, notify: true, metadata: {plan: "{plan}"}}
  - {goal: silent, event: paid, once_per: order}
  - {goal: rehearsed, event: paid, once_per: order, notify: true, enabled: dry}
"""
ENVIRON = {"SHOP_WEBHOOK_SECRET": "a secret of the shop", "STRIPE_WEBHOOK_SECRET": "whsec_x" + "y" * 30}


@pytest.fixture
def shop(sqlite_url, clock, tmp_path):
    (tmp_path / "shop.yaml").write_text(FILE)
    with Composed(sqlite_url, clock, tmp_path, DATAFAST_TEST_API_KEY="df_test", **ENVIRON) as bridge:
        yield bridge


def post(shop, **changes):
    body = {"type": "paid", "id": "e1", "order": "o1", "plan": "pro", "visitor": ALICE, **changes}
    headers = {"x-token": ENVIRON["SHOP_WEBHOOK_SECRET"]}
    assert shop.client.post("/webhooks/shop", data=json.dumps(body), headers=headers).status_code == 200
    shop.work()


def test_goals_keep_what_their_rule_says_unless_they_are_tests_or_dry(shop):
    post(shop)
    post(shop, id="e2", order="o2", test=True)  # for the website of DATAFAST_TEST_API_KEY
    post(shop, id="e3")  # the same order again
    found = [(goal.name, goal.test, goal.state, goal.notify) for goal in shop.rows(schema.goals)]
    assert found == [
        ("bought", False, "delivered", "wanted"),
        ("silent", False, "delivered", None),
        ("rehearsed", False, "dry", None),
        ("bought", True, "delivered", None),
        ("silent", True, "delivered", None),
        ("rehearsed", True, "dry", None),
    ]


def test_a_layer_adds_it_to_a_shipped_rule_and_changes_nothing_else():
    def rule(layer):
        loaded = rules.load({"stripe.yaml": layer}, ENVIRON, sources.presets())
        return next(one for one in loaded.rules["stripe"] if one.id == "purchase")

    plain, told = rule("extends: stripe\n"), rule("extends: stripe\ngoals: [{id: purchase, notify: true}]\n")
    assert (plain.notify, told.notify) == (False, True)
    assert (told.events, told.once_per, told.metadata) == (plain.events, plain.once_per, plain.metadata)


@pytest.mark.parametrize("value", ["yes", "1", "'true'", "dry"])
def test_anything_but_true_or_false_is_an_error(value):
    with pytest.raises(MappingError, match="notify"):
        rules.load({"shop.yaml": FILE.replace("notify: true", f"notify: {value}")}, ENVIRON, sources.presets())


def test_explain_says_that_the_owner_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "shop.yaml").write_text(FILE)
    event = tmp_path / "event.json"
    monkeypatch.chdir(tmp_path)
    told = []
    for test in (False, True):
        event.write_text(json.dumps({"type": "paid", "id": "e1", "order": "o1", "visitor": ALICE, "test": test}))
        assert main(["explain", str(event), "--source", "shop"]) == 0
        told.append(capsys.readouterr().out.count("BRIDGE_ALERTS is notified on delivery"))
    assert told == [1, 0]
