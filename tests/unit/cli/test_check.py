"""`check`: every problem at once, one line each; warnings are no problems."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bridge import rules
from bridge.cli import main

GOOD = """provider: stripe
goals:
  - goal: dispute
    event: charge.dispute.created
  - goal: churned
    event: customer.subscription.deleted
    enabled: false
tests:
  - name: a dispute
    event: {type: charge.dispute.created, data: {object: {id: dp_1}}}
    goals: [{goal: dispute}]
"""
BAD = "provider: stripe\ngoals:\n  - goal: dispute\n    evnt: x\n  - goal: identify\n    event: a.b\n"
FAILING = GOOD.replace("goals: [{goal: dispute}]", "goals: [{goal: refund}]")


@pytest.fixture
def mappings(alone):
    folder = alone / "mappings"
    folder.mkdir()

    def write(**files):
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        return folder

    return write


def test_what_is_right_is_said_a_file_a_line(mappings, capsys, monkeypatch):
    mappings(stripe=GOOD)
    monkeypatch.setenv("DATAFAST_API_KEY", "df_abc")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_abc whsec_def")
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert "mappings/stripe.yaml  1 rule (1 switched off), 1 of 1 test passed, 2 secrets" in out
    assert out.endswith("No problems.\n")


@pytest.mark.parametrize(
    ("given", "code", "last"),
    [
        ({}, 0, "2 warnings."),
        ({"DATAFAST_API_KEY": "df_abc"}, 0, "1 warning."),
        ({"STRIPE_WEBHOOK_SECRET": '"whsec_abc"'}, 1, "1 problem, 1 warning."),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_abc", "PORT": "x"}, 1, "1 problem."),
        ({"PORT": "x", "BRIDGE_WORKER": "x"}, 1, "2 problems, 1 warning."),
    ],
)
def test_the_last_line_counts_problems_and_warnings(given, code, last, mappings, capsys, monkeypatch):
    mappings(stripe=GOOD)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["check"]) == code
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_what_is_no_secret_is_a_problem_at_its_line_and_is_not_shown(mappings, capsys, monkeypatch):
    mappings(stripe=GOOD)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", '"whsec_q7Kz9"')
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert "mappings/stripe.yaml:1:1: STRIPE_WEBHOOK_SECRET has quotes around its value: remove them" in out
    assert "1 of 1 test passed, no secret" in out
    assert "q7Kz9" not in out


def test_a_missing_secret_is_a_warning_and_no_fault(mappings, capsys):
    mappings(stripe=GOOD)
    assert main(["check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert any("STRIPE_WEBHOOK_SECRET" in warning for warning in told["warnings"])


OFF = "so nothing can be verified and POST /webhooks/shop answers 503"
SIGNED = """provider: custom
verify: {type: hmac-sha256, key: base64, signature: {in: "header:X-Sign"}}
envelope: {type: type}
visitor: v
secret: ${SHOP_SECRET}
goals: []
"""


@pytest.mark.parametrize(
    ("secret", "warning"),
    [
        ("no-base64!", f"secret 1 of 1 is unusable: it is not base64; {OFF}"),
    ],
)
def test_a_secret_that_can_verify_nothing_is_a_warning_at_its_line(secret, warning, mappings, capsys, monkeypatch):
    mappings(shop=SIGNED)
    monkeypatch.setenv("SHOP_SECRET", secret)
    assert main(["check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert f"mappings/shop.yaml:5:1: {warning}" in told["warnings"]
    assert not any("no-base64" in line for line in told["warnings"])


def test_one_secret_of_two_that_can_verify_nothing_is_told_by_its_number(mappings, capsys, monkeypatch):
    mappings(shop=SIGNED)
    monkeypatch.setenv("SHOP_SECRET", "no-base64!")
    monkeypatch.setenv("SHOP_SECRET_OLD", "AAAAAAAAAAA=")
    assert main(["check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "mappings/shop.yaml:5:1: secret 1 of 2 is unusable: it is not base64" in told["warnings"]


def test_all_faults_of_settings_and_files_come_at_once_each_on_a_line_of_its_own(mappings, capsys, monkeypatch):
    mappings(stripe=BAD, shop="provider: custm\ngoals: []\n")
    monkeypatch.setenv("PORT", "eighty")
    monkeypatch.setenv("BRIDGE_WORKER", "maybe")
    assert main(["check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("PORT is 'eighty'") for line in lines) == 1
    assert sum(line.startswith("BRIDGE_WORKER is 'maybe'") for line in lines) == 1
    assert any(line.startswith("mappings/stripe.yaml:4:5: ") and "event" in line for line in lines)
    assert any(line.startswith("mappings/stripe.yaml:5:") and "identify" in line for line in lines)
    assert any(line.startswith("mappings/shop.yaml:1:") for line in lines)


def test_a_failing_test_is_an_error_at_its_line(mappings, capsys):
    mappings(stripe=FAILING)
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert "0 of 1 test passed" in out
    assert "mappings/stripe.yaml:9: test 'a dispute': " in out


def test_a_file_alone_can_be_checked_without_the_others_and_without_settings(mappings, capsys, monkeypatch):
    mappings(stripe=GOOD, broken=BAD)
    monkeypatch.setenv("PORT", "eighty")
    assert main(["check", "mappings/stripe.yaml"]) == 0
    assert main(["check", "mappings/broken.yaml"]) == 1
    assert "mappings/broken.yaml:4:5: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["check"], "mappings: the folder of mapping files cannot be read"),
        (["check", "--mappings", "elsewhere"], "elsewhere: the folder of mapping files cannot be read"),
        (["check", "none.yaml"], "none.yaml:1:1: the file cannot be read (no such file or directory)"),
    ],
)
def test_what_is_not_there_is_a_fault(line, sentence, capsys, alone):
    del alone
    assert main(line) == 1
    assert sentence in capsys.readouterr().out


def test_who_installed_the_package_is_told_how_to_get_the_shipped_files(capsys, alone):
    """They are package data (`bridge/shipped`, in a clone a link to `mappings`), so no clone is needed."""
    del alone
    assert main(["check"]) == 1
    command = re.search(r"`(cp -r \S+ mappings)`", capsys.readouterr().out)[1]
    assert command.split()[2] == str(rules.SHIPPED)
    subprocess.run(shlex.split(command), check=True)
    assert main(["check"]) == 0
    assert {path.name for path in Path("mappings").iterdir()} >= {"stripe.yaml", "examples"}


def test_an_empty_folder_is_a_fault_because_nothing_would_ever_be_sent(mappings, capsys):
    mappings()
    assert main(["check"]) == 1
    assert "there is no mapping file" in capsys.readouterr().out


def test_the_same_name_twice_is_told_from_the_file_that_is_checked(mappings, capsys):
    folder = mappings(stripe=GOOD)
    (folder / "stripe.yml").write_text(GOOD)
    assert main(["check"]) == 1
    assert "each source has one file" in capsys.readouterr().out


LAYER = """extends: stripe
use: [purchase]
goals:
  - {goal: big, like: purchase, when: {value.amount: {gte: 1000 USD}}}
tests:
  - name: a big one
    event: {type: checkout.session.completed, data: {object: {id: cs_1, mode: payment, payment_status: paid,
      amount_total: 490000, currency: usd}}}
    goals: [{goal: big}]
"""


def test_of_a_layer_it_says_what_is_shipped_and_what_shipped_rules_made(mappings, capsys, monkeypatch):
    mappings(stripe=LAYER)
    monkeypatch.setenv("DATAFAST_API_KEY", "df_abc")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_abc")
    assert main(["check"]) == 0
    first, also, last = capsys.readouterr().out.splitlines()
    assert first == (
        "mappings/stripe.yaml  extends stripe: 2 rules, 1 of them as shipped (20 switched off), 1 of 1 test passed,"
        " 1 secret"
    )
    assert also == "mappings/stripe.yaml:6: test 'a big one': also: purchase (shipped)"
    assert last == "No problems."
    assert main(["check", "--json", "mappings/stripe.yaml"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert (file["extends"], file["rules"], file["shipped"]) == ("stripe", 2, 1)
    assert file["also"] == [also]


def test_of_a_copy_it_names_the_rules_that_differ(mappings, capsys, monkeypatch):
    shipped = (rules.SHIPPED / "stripe.yaml").read_text("utf-8")
    mappings(stripe=shipped)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_abc")
    monkeypatch.setenv("DATAFAST_API_KEY", "df_abc")
    assert main(["check"]) == 0
    assert "copy" not in capsys.readouterr().out
    mappings(stripe=shipped.replace("{gt: 1}", "{gte: 2}"))
    assert main(["check"]) == 0
    told = (
        "mappings/stripe.yaml is a copy of a shipped file; not as shipped: payment_recovered, payment-recovered-by-hand"
    )
    out = capsys.readouterr().out.splitlines()
    assert told in out
    assert out[-1] == "No problems."
