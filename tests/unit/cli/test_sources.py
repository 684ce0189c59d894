"""`sources`: what to enter at the provider, exactly, and no secret."""

from __future__ import annotations

import json

import pytest

from bridge.cli import main

STRIPE = """provider: stripe
goals:
  - {goal: refund, event: charge.refunded}
  - {goal: churned, event: customer.subscription.deleted, enabled: false}
  - {goal: paid, event: [invoice.paid, "checkout.session.*"]}
"""
OWN = """provider: standard-webhooks
envelope: {type: event}
links:
  - {event: order.paid, path: order, kind: order}
goals:
  - {id: any, goal: "{event}", event: "*"}
"""


@pytest.fixture(autouse=True)
def files(alone, monkeypatch):
    (alone / "mappings").mkdir()
    (alone / "mappings" / "stripe.yaml").write_text(STRIPE)
    (alone / "mappings" / "own.yaml").write_text(OWN)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_never_to_be_told")


def told(capsys, *words):
    assert main(["sources", "--json", *words]) == 0
    out = capsys.readouterr().out
    assert "never_to_be_told" not in out
    return {one["source"]: one for one in json.loads(out)}


def test_the_events_are_those_of_the_rules_that_are_on_and_those_that_teach_links(capsys):
    stripe = told(capsys)["stripe"]
    assert stripe["goal_events"] == ["charge.refunded", "invoice.paid", "checkout.session.*"]
    assert set(stripe["link_events"]) == {
        "charge.succeeded",
        "checkout.session.completed",
        "customer.subscription.created",
        "invoice_payment.paid",
        "quote.accepted",
        "setup_intent.succeeded",
    }
    assert "customer.subscription.deleted" not in json.dumps(stripe)


def test_every_event_that_ties_keys_together_is_recommended_and_said_to_be_for_finding_visitors(capsys):
    """Of a payment by the PaymentIntent API only `charge.succeeded` ties the charge that a dispute names."""
    assert main(["sources", "stripe"]) == 0
    goals, finding = capsys.readouterr().out.split("Events that help to find the visitor of later events:")
    assert "Events for goals:" in goals
    assert "charge.succeeded" in finding


def test_what_ties_keys_together_is_derived_from_the_links_of_the_preset(capsys, alone):
    (alone / "mappings" / "lemonsqueezy.yaml").write_text("provider: lemonsqueezy\ngoals: []\n")
    assert told(capsys)["lemonsqueezy"]["link_events"] == [
        "license_key_created",
        "order_created",
        "subscription_created",
        "subscription_payment_success",
    ]


def test_the_links_of_a_mapping_file_are_events_to_choose(capsys):
    assert told(capsys)["own"]["link_events"] == ["order.paid"]


def test_the_command_for_stripe_names_the_url_and_every_exact_type(capsys):
    create, listen = told(capsys, "--base-url", "https://h.example/")["stripe"]["command"]
    assert create.startswith("stripe webhook_endpoints create --url https://h.example/webhooks/stripe ")
    for event in ("charge.refunded", "invoice.paid", "checkout.session.completed", "invoice_payment.paid"):
        assert f"'enabled_events[]={event}'" in create
        assert event in listen
    assert "session.*" not in create


def test_a_secret_is_set_or_missing_and_never_shown(capsys):
    sources = told(capsys)
    assert (sources["stripe"]["secret_is_set"], sources["own"]["secret_is_set"]) == (True, False)
    assert main(["sources"]) == 0
    out = capsys.readouterr().out
    assert "set (STRIPE_WEBHOOK_SECRET): 1 secret read" in out
    assert "OWN_WEBHOOK_SECRET" in out
    assert "whsec_never" not in out


def test_how_many_secrets_were_read_is_said_and_what_is_none(capsys, monkeypatch):
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET_OLD", "whsec_b1,whsec_never_to_be_told")
    monkeypatch.setenv("OWN_WEBHOOK_SECRET", "'never_to_be_told'")
    found = told(capsys)
    assert (found["stripe"]["secrets"], found["own"]["secrets"]) == (2, 0)
    assert found["stripe"]["secret"] == "set (STRIPE_WEBHOOK_SECRET and STRIPE_WEBHOOK_SECRET_OLD): 2 secrets read"
    assert found["own"]["secret"].startswith("OWN_WEBHOOK_SECRET has quotes around its value: remove them; so ")


def test_without_a_base_url_a_placeholder_says_that_it_is_one(capsys):
    assert main(["sources", "stripe"]) == 0
    out = capsys.readouterr().out
    assert "https://YOUR-HOST/webhooks/stripe" in out
    assert "--base-url" in out


def test_heroku_tells_the_address_itself(capsys, monkeypatch):
    monkeypatch.setenv("HEROKU_APP_DEFAULT_DOMAIN_NAME", "shop-1234.herokuapp.com")
    assert told(capsys)["own"]["url"] == "https://shop-1234.herokuapp.com/webhooks/own"


def test_a_source_that_is_none_is_wrong_use_and_names_those_there_are(capsys):
    assert main(["sources", "paddle"]) == 2
    assert "own and stripe" in capsys.readouterr().err


def test_broken_files_are_every_fault_a_line(capsys, alone):
    (alone / "mappings" / "own.yaml").write_text("provider: x\ngols: []\n")
    assert main(["sources"]) == 1
    assert all(line.startswith("mappings/own.yaml:") for line in capsys.readouterr().err.splitlines())


def test_gumroad_is_told_which_events_need_a_command_of_their_own(alone, capsys, monkeypatch):
    events = "[sale, refund, cancellation, 'dispute*']"
    (alone / "mappings" / "gumroad.yaml").write_text(
        f"provider: gumroad\ngoals: [{{id: any, goal: '{{resource_name}}', event: {events}}}]\n"
    )
    monkeypatch.setenv("GUMROAD_WEBHOOK_SECRET", "gum_never_to_be_told")
    gumroad = told(capsys, "gumroad", "--base-url", "https://h.example")["gumroad"]
    assert [line.split("resource_name=")[1].split()[0] for line in gumroad["subscribe"]] == [
        "refund", "dispute", "dispute_won", "cancellation",
    ]  # fmt: skip
    for line in gumroad["subscribe"]:
        assert line.startswith("curl -X PUT https://api.gumroad.com/v2/resource_subscriptions ")
        assert '"post_url=https://h.example/webhooks/gumroad?token=$GUMROAD_WEBHOOK_SECRET"' in line
    assert main(["sources", "gumroad"]) == 0
    said = capsys.readouterr().out
    ping, others = said.split("that it does not receive")
    assert "sale" in ping
    assert "refund" not in ping.split("Ping endpoint receives")[1]
    assert "scope view_sales" in others
    assert "seller_id" not in said


def test_no_other_provider_needs_such_commands(capsys):
    assert all(one["subscribe"] == [] for one in told(capsys).values())
