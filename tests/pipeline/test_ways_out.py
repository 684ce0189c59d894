"""A goal that waits names the ways out, and `links add` says truly when it will be sent."""

from __future__ import annotations

import time

import pytest
from identity_kit import ALICE, DAY, MINUTE, Rig, stripe_event
from test_whose_purchase import VISITORS, charge, dispute, subscription

from bridge import cli


@pytest.fixture
def rig(sqlite_store, clock, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", sqlite_store.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("DATAFAST_API_KEY", "df_key")
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "stripe.yaml").write_text("provider: stripe\ngoals: [{goal: a, event: b}]\n")
    return Rig(sqlite_store, clock)


def said(capsys, *words):
    capsys.readouterr()
    assert cli.main(list(words)) == 0
    return capsys.readouterr().out


def test_why_names_the_command_and_the_look_ups(rig, capsys, monkeypatch):
    rig.route(charge("b"), dispute("b"))
    told = said(capsys, "why", "goal_1")
    assert "links add stripe charge ch_b VISITOR" in told
    assert "STRIPE_API_KEY" in told
    monkeypatch.setenv("STRIPE_API_KEY", "rk_live_1")
    assert "STRIPE_API_KEY" not in said(capsys, "why", "goal_1")


def test_why_names_a_key_that_was_stopped(rig, capsys):
    rig.route(*(subscription(1, who, 1_789_000_000 + n, f"cus_{n}") for n, who in enumerate(VISITORS)))
    thing = {"object": "invoice", "id": "in_1", "subscription": "sub_1"}
    rig.route(stripe_event("invoice.paid", thing))
    told = said(capsys, "why", f"goal_{rig.goals()[-1].id}")
    assert "stripe:live:sub_1 no longer links anything" in told
    assert "no customer in common" in told
    assert "links add stripe invoice in_1" in told


def test_why_of_a_goal_that_waits_for_a_proof(rig, capsys):
    thing = {"object": "checkout.session", "id": "cs_1", "client_reference_id": ALICE}
    rig.route(stripe_event("checkout.session.completed", thing))
    told = said(capsys, "why", "goal_1")
    assert "not known" in told
    assert f"asks DataFast first whether it knows {ALICE}" in told
    assert "in the event itself" not in told


def test_links_add_says_what_is_sent_now(rig, capsys):
    rig.route(charge("b"), dispute("b"))
    assert "goal_1 dispute: is sent now." in said(capsys, "links", "add", "stripe", "charge", "ch_b", ALICE)
    assert "No goal waits for it." in said(capsys, "links", "add", "stripe", "charge", "ch_9", ALICE)


def test_links_add_says_what_is_sent_after_the_grace(rig, capsys):
    rig.clock.set(time.time_ns() // 1_000_000)  # the command is a process of its own, by the real clock
    rig.route(charge("b"), dispute("b"))
    told = said(capsys, "links", "add", "stripe", "customer", "cus_1", ALICE)
    assert "goal_1 dispute: is sent in " in told
    assert "BRIDGE_WEAK_AFTER" in told
    rig.later(3 * MINUTE)
    assert rig.goals()[0].visitor == ALICE


def test_links_add_says_that_a_stopped_key_sends_nothing(rig, capsys):
    rig.route(*(subscription(1, who, 1_789_000_000 + n, f"cus_{n}") for n, who in enumerate(VISITORS)))
    told = said(capsys, "links", "add", "stripe", "subscription", "sub_1", ALICE)
    assert "was stopped and no longer links anything" in told


def test_why_of_a_goal_that_waits_for_a_proof_says_that_nobody_can_be_asked(rig, capsys, monkeypatch):
    thing = {"object": "checkout.session", "id": "cs_1", "client_reference_id": ALICE}
    rig.route(stripe_event("checkout.session.completed", thing))
    monkeypatch.delenv("DATAFAST_API_KEY")
    told = said(capsys, "why", "goal_1")
    assert "waits until DATAFAST_API_KEY is set" in told
    assert "DATAFAST_API_KEY is set" in said(capsys, "links", "add", "stripe", "session", "cs_1", ALICE)


def test_the_way_out_of_a_goal_that_no_longer_waits_ends_with_a_retry(rig, capsys):
    rig.route(charge("b"), dispute("b"))
    rig.later(5 * DAY)
    told = " ".join(said(capsys, "why", "goal_1").split())
    assert "links add stripe charge ch_b VISITOR`, if you know whose it is, then `python -m bridge goals retry" in told


def test_no_command_is_named_that_would_bind_another_key(rig, capsys):
    """`links add` knows no Connect accounts: it would bind the platform's own charge of that id."""
    thing = {"object": "dispute", "id": "du_1", "charge": "ch_b"}
    rig.route(stripe_event("charge.dispute.created", thing, account="acct_1"))
    told = said(capsys, "why", "goal_1")
    assert "links add" not in told
    assert "STRIPE_API_KEY" in told
