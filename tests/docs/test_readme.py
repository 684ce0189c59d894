"""The README's claims, each held to what it is about."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pytest
from docs_kit import ROOT, blocks, drawn, section, shown_in_readme, snippets, table
from identity_kit import Rig, stripe_event
from stripe._encode import _api_encode

from bridge import identity, limits, rules, sources
from bridge.model import Candidate
from bridge.snippet import TOOLS as SCRIPT

README = (ROOT / "README.md").read_text()
VISITOR = "3f2c8d0e-5f0b-4a63-9e59-0d6b1f8b7c11"
SHIPPED = rules.load(rules.read_files(ROOT / "mappings"), {}, sources.presets())

# ----------------------------------------------------------------------------------------------------- the first screen


FIRST_SCREEN = README.split("\n## ")[0]


def test_the_first_sentence_says_what_it_is_and_why_a_connected_stripe_is_not_enough():
    sentence = " ".join(FIRST_SCREEN.split("\n\n")[1].split())
    assert sentence.count(". ") == 0
    assert "webhooks into [DataFast](https://datafa.st) goals" in sentence
    assert "connecting Stripe to DataFast is not enough" in sentence


def test_the_first_screen_has_a_clone_a_picture_for_each_width_and_links():
    assert "$ git clone " in FIRST_SCREEN
    assert re.findall(r'(?:srcset|src)="([^"]+)"', FIRST_SCREEN) == ["docs/demo-narrow.svg", "docs/demo.svg"]
    assert len(re.findall(r"\]\(", FIRST_SCREEN)) >= 6
    headings = re.findall(r"^## (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^a-z -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


@pytest.mark.parametrize("name", ["demo", "demo-narrow"])
def test_the_picture_of_the_demo_has_its_hero(name):
    shown = drawn(name)
    assert "stripe charge.refunded → refund 49.00 USD <six> by user" in shown
    assert "All 13 expected goals arrived, each once." in shown


def test_the_demo_in_words_says_how_the_visitor_of_the_refund_is_known():
    assert any("learned from Clerk user.created" in line and "How known" in line for line in shown_in_readme())


def test_the_rule_of_the_readme_makes_the_goal_beside_it(sqlite_store, clock):
    rule = next(block for block in blocks("yaml") if block.page == "README.md").text
    assert len(rule.splitlines()) == 3
    beside = next(block for block in blocks("json") if block.page == "README.md").text
    said = json.loads(beside[beside.index("{") :])
    rig = Rig(sqlite_store, clock, {"stripe.yaml": f"provider: stripe\ngoals:\n{rule}"})
    session = {
        "object": "checkout.session",
        "id": "cs_1",
        "payment_intent": "pi_1",
        "metadata": {"datafast_visitor_id": VISITOR},
    }
    dispute = {"object": "dispute", "id": "dp_1", "payment_intent": "pi_1", "reason": "fraudulent"}
    rig.route(stripe_event("checkout.session.completed", session))
    rig.route(stripe_event("charge.dispute.created", dispute, event_id="evt_1PzT4m"))
    (goal,) = rig.goals()
    assert said == {
        "datafast_visitor_id": goal.visitor,
        "name": goal.name,
        "description": goal.description,
        "metadata": json.loads(goal.metadata),
    }


# ------------------------------------------------------------------------------------------------------- the snippets


class Cookies:
    """A framework's request, as far as the snippets look."""

    def __init__(self, cookies):
        self.cookies = cookies


def run_python(name, cookies):
    """Run a snippet; what it handed to the provider's SDK."""
    calls = []
    create = SimpleNamespace(create=lambda **given: calls.append(given))
    scope = {
        "request": Cookies(cookies),
        "stripe": SimpleNamespace(checkout=SimpleNamespace(Session=create)),
        "polar": SimpleNamespace(checkouts=create),
    }
    exec(snippets()[name].text, scope)
    (given,) = calls
    return given


STRIPE = {"stripe-subscription": "subscription_data", "stripe-payment": "payment_intent_data"}


@pytest.mark.parametrize(("name", "lives_on"), STRIPE.items())
def test_stripe_gets_the_visitor_on_the_session_and_on_what_lives_on(name, lives_on):
    wire = dict(_api_encode(run_python(name, {"datafast_visitor_id": VISITOR})))
    assert wire["metadata[datafast_visitor_id]"] == VISITOR
    assert wire[f"{lives_on}[metadata][datafast_visitor_id]"] == VISITOR
    assert wire["mode"] == name.removeprefix("stripe-")


@pytest.mark.parametrize("cookies", [{}, {"datafast_visitor_id": ""}])
@pytest.mark.parametrize("name", STRIPE)
def test_without_a_cookie_stripe_gets_no_such_key(name, cookies):
    wire = dict(_api_encode(run_python(name, cookies)))
    assert [key for key in wire if "metadata" in key] == []
    assert "mode" in wire


def test_polar_gets_the_visitor_and_never_an_empty_text():
    assert run_python("polar", {"datafast_visitor_id": VISITOR})["request"]["metadata"] == {
        "datafast_visitor_id": VISITOR
    }
    for cookies in ({}, {"datafast_visitor_id": ""}):
        assert "metadata" not in run_python("polar", cookies)["request"]


def test_the_bridge_takes_what_the_script_gives_a_payment_link_for_certain():
    judged = identity.judge(Candidate("data.object.client_reference_id", f"{SCRIPT['stripe']['prefix']}{VISITOR}"))
    assert (judged.visitor, judged.sure) == (VISITOR, True)


@pytest.mark.parametrize(("name", "path"), [("stripe", "data.object.metadata"), ("polar", "data.metadata")])
def test_the_places_of_the_snippets_are_those_where_the_preset_looks(name, path):
    assert f"{path}.datafast_visitor_id" in sources.presets()[name]["visitor"]


# --------------------------------------------------------------------------------------------------------- the tables


@pytest.mark.parametrize(("label", "source"), [("Stripe", "stripe"), ("Lemon Squeezy", "lemonsqueezy")])
def test_the_table_of_goals_is_what_the_shipped_files_hold(label, source):
    rows = {row[0]: row for row in table(section("README.md", "What you get without editing"))}
    for cell, enabled in ((rows[label][1], True), (rows[label][2], False)):
        shipped = {rule.name.literal for rule in SHIPPED.rules[source] if rule.enabled is enabled}
        assert set(re.findall(r"`(\w+)`", cell)) == shipped


def test_the_examples_that_the_readme_names_are_those_there_are():
    row = next(row for row in table(section("README.md", "What you get without editing")) if "examples" in row[1])
    assert {name.strip().lower().replace(".", "") for name in row[0].split(",")} == {
        file.stem for file in (ROOT / "mappings/examples").glob("*.yaml")
    }


def test_the_goals_that_datafast_makes_itself_are_those_that_are_refused():
    text = section("README.md", "What you get without editing").split("DataFast makes")[1].split("itself")[0]
    assert set(re.findall(r"`(\w+)`", text)) == set(limits.RESERVED) - {"identify"}


def test_the_table_of_dependencies_is_pyprojects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w-]+", name)[0].lower() for name in project["dependencies"]}
    rows = table(section("README.md", "How it works"))
    named = {name.strip() for row in rows for name in row[0].partition(" (")[0].split(",")}
    assert named == wanted


def test_what_is_said_of_stripes_package_is_true():
    code = "import sys, bridge.web, bridge.worker, bridge.app; sys.exit('stripe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_the_permissions_of_the_restricted_key_are_those_that_are_used():
    from bridge.lookup.asking import PERMISSIONS

    text = " ".join(section("README.md", "When something is wrong").split())
    assert [name for name in PERMISSIONS.values() if name not in text] == []


def test_deploying_takes_five_commands_that_end_with_sources_and_doctor():
    (block,) = blocks("console", pages=[ROOT / "README.md"])[3:4]
    lines = block.text.splitlines()
    assert len(lines) == 5
    assert "-m bridge sources" in lines[3]
    assert "-m bridge doctor --visitor" in lines[4]


def test_the_defaults_that_the_readme_names_are_the_settings():
    from bridge.settings import TABLE

    default = {setting.name: setting.default for setting in TABLE}
    assert ("`BRIDGE_MAX_AGE` (7 days)" in README, default["BRIDGE_MAX_AGE"]) == (True, "7d")
    assert ("`BRIDGE_RETENTION_DAYS` (30)" in README, default["BRIDGE_RETENTION_DAYS"]) == (True, "30")
    assert ("58 requests per minute" in README, default["BRIDGE_RATE_PER_MINUTE"]) == (True, "58")
    assert ("within four days" in README, default["BRIDGE_PARK"]) == (True, "96h")
    assert ("for 72 h" in README, default["BRIDGE_RETRY_SCHEDULE"].endswith("...72h")) == (True, True)
