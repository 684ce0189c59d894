"""All real payloads go through receive and route: each with a verdict that can be explained, and the table is right."""

from __future__ import annotations

import pytest
from corpus import SHIPPED, TABLE, Corpus, Row, payloads, play, table

from bridge import cli

ALL = payloads()
NO_PLACE = {"github", "gitlab", "kofi", "linear", "paddle-classic", "slack"}  # nothing of ours travels with these
UPDATED = "stripe/stripe-sync-engine/subscription_updated.json"
DELETED = "stripe/stripe-sync-engine/subscription_deleted.json"
PRICE = "data.object.items.data.0.price"
WAS = "data.previous_attributes.items"
OLD = {"price": {"id": "price_old", "unit_amount": 1900, "recurring": {"interval": "month"}}}
FOLLOWING = {("stripe", "payment-recovered-by-hand")}  # needs an event before it: tests/pipeline/test_follows.py
# The shipped rules that no payload makes fire, because of the values that happen to stand in it; and the payload with
# the values with which it does.
SILENT = {
    ("stripe", "dispute"): (
        "stripe/stripe-sync-engine/charge_dispute_created.json",
        {"data.object.status": "needs_response"},  # all three are mere inquiries
    ),
    ("stripe", "payment_failed"): (
        "stripe/stripe-ruby-mock/invoice.payment_failed.json",
        {"data.object.billing_reason": "subscription_cycle"},  # both are manual
    ),
    ("stripe", "payment_recovered"): (
        "stripe/stripe-sync-engine/invoice_paid.json",
        {"data.object.amount_paid": 1900, "data.object.attempt_count": 2},  # one of nothing, two manual
    ),
    ("stripe", "renewal"): ("stripe/stripe-sync-engine/invoice_paid.json", {"data.object.amount_paid": 1900}),
    # of an update, no payload has previous attributes that matter
    ("stripe", "cancel_scheduled"): (
        UPDATED,
        {"data.object.cancel_at_period_end": True, "data.previous_attributes": {"cancel_at_period_end": False}},
    ),
    ("stripe", "cancel_undone"): (
        UPDATED,
        {
            "data.object.status": "active",
            "data.object.cancel_at_period_end": False,
            "data.previous_attributes": {"cancel_at_period_end": True},
        },
    ),
    ("stripe", "plan_upgraded"): (
        UPDATED,
        {f"{PRICE}.unit_amount": 4900, WAS: {"data": [OLD]}},
    ),
    ("stripe", "plan_downgraded"): (
        UPDATED,
        {f"{PRICE}.unit_amount": 900, WAS: {"data": [OLD]}},
    ),
    ("stripe", "trial_converted"): (
        UPDATED,
        {"data.object.status": "active", "data.previous_attributes": {"status": "trialing"}},
    ),
    ("stripe", "involuntary_churn"): (DELETED, {"data.object.cancellation_details": {"reason": "payment_failed"}}),
    ("stripe", "checkout_abandoned"): (
        "stripe/openapi-fixture-wrapped/checkout.session.expired.json",
        {"data.object.status": "expired", "data.object.amount_total": 4900},  # its status is `open`
    ),
    ("stripe", "dispute_lost"): (
        "stripe/stripe-ruby-mock/charge.dispute.closed.json",
        {"data.object.status": "lost"},  # one is won, one an inquiry
    ),
    ("lemonsqueezy", "refund-invoice"): (
        "lemonsqueezy/derived/subscription_payment_refunded.json",
        {"data.attributes.billing_reason": "renewal"},  # both are of a first payment, which the order tells
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def plain(folder) -> Corpus:
    with play(folder / "plain") as played:
        yield played


@pytest.fixture(scope="module")
def injected(folder) -> Corpus:
    with play(folder / "injected", injected=True) as played:
        yield played


@pytest.fixture(scope="module")
def everything(folder) -> Corpus:
    """With the rules that are off switched on, and a visitor in each."""
    with play(folder / "everything", injected=True, everything_on=True) as played:
        yield played


@pytest.fixture(params=["everything", *(pytest.param(name, marks=pytest.mark.long) for name in ("plain", "injected"))])
def played(request) -> Corpus:
    return request.getfixturevalue(request.param)


def test_there_are_as_many_payloads_as_the_readme_says():
    sources = [payload.source for payload in ALL]
    assert {name: sources.count(name) for name in SHIPPED} == {"stripe": 199, "lemonsqueezy": 23}
    assert len(sources) == 199 + 23 + 26


def test_each_is_accepted_as_an_event_of_its_own(played):
    wrong = {one.name: told for one, told in played.answers.items() if told != (200, {"status": "accepted"})}
    assert wrong == {}
    assert len(played.answers) == len(ALL)


def test_each_has_a_verdict(played):
    assert [row.payload.name for row in played.rows if row.event.state != "routed"] == []
    assert {row.event.verdict for row in played.rows} == {"matched", "unmatched", "ignored"}


def test_each_is_live_and_read_as_what_its_file_says(played):
    assert [row.payload.name for row in played.rows if row.event.test] == []
    assert [row.payload.name for row in played.rows if not row.event.type] == []
    ids = [row.event.provider_event_id for row in played.rows if row.payload.source == "stripe"]
    assert len(set(ids)) == 199


def test_no_rule_fails_on_what_really_comes(played):
    assert [(row.payload.name, rule) for row in played.rows for rule in row.rules if rule["result"] == "failed"] == []


def reasons(row: Row) -> list[tuple[str, ...]]:
    """Why no rule made a goal: (rule, path, expected, actual)."""
    return [(rule["rule"], rule["path"], rule["expected"], rule["actual"]) for rule in row.rules
            if rule["result"] in ("event", "condition")]  # fmt: skip


def test_the_trace_of_each_event_without_a_goal_names_every_rule_and_what_it_missed(played):
    for row in played.rows:
        known = {rule.id for rule in played.bridge.rules.rules[row.payload.source]}
        if row.event.verdict == "ignored":
            assert row.event.reason
            continue
        assert {rule["rule"] for rule in row.rules} == known, row.payload.name
        if row.event.verdict == "unmatched":
            off = [rule for rule in row.rules if rule["result"] == "disabled"]
            assert len(reasons(row)) + len(off) == len(row.rules), row.payload.name
            assert all(all(reason) for reason in reasons(row)), row.payload.name


def test_why_explains_each_kind_of_event(plain, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", plain.bridge.settings.database_url)
    said = {"matched": "matched a rule", "unmatched": "no rule matched", "ignored": "ignored: "}
    kinds = {(row.event.verdict, *(reason[0::3] for reason in reasons(row) if reason[1] != "envelope.type")): row
             for row in plain.rows if row.payload.source in SHIPPED}  # fmt: skip
    assert len(kinds) > 10
    for row in kinds.values():
        assert cli.main(["why", f"ev_{row.event.id}"]) == 0
        told = capsys.readouterr()
        assert told.err == "", row.payload.name
        assert said[row.event.verdict] in told.out, row.payload.name
        for rule in row.rules:
            if rule["result"] == "condition":
                assert f"{rule['path']} is {rule['actual']}, expected {rule['expected']}" in told.out


def test_a_visitor_at_the_documented_place_is_found(injected):
    found = 0
    for row in injected.rows:
        for goal in row.made:
            if row.payload.source not in NO_PLACE:
                assert (goal.visitor, goal.state) == (row.payload.visitor, "pending"), row.payload.name
                found += 1
    assert found > 25


def test_without_a_visitor_nothing_is_sent_to_anybody(plain):
    for row in plain.rows:
        for goal in row.made:
            if row.payload.source in SHIPPED:
                assert goal.visitor is None, row.payload.name
                assert goal.state in ("parked", "unattributed"), row.payload.name
                assert goal.message, row.payload.name


def test_most_shipped_rules_fire(everything):
    shipped = {(source, rule.id) for source in SHIPPED for rule in everything.bridge.rules.rules[source]}
    assert shipped - everything.fired() - FOLLOWING == set(SILENT)
    assert len(SILENT) < len(shipped) / 2


@pytest.mark.parametrize("rule", SILENT, ids=".".join)
def test_the_others_fire_on_a_payload_with_other_values(everything, rule):
    file, changes = SILENT[rule]
    row = everything.changed(file, 5_000 + list(SILENT).index(rule), changes)
    assert row.event.verdict == "matched"
    assert rule[1] in {one["rule"] for one in row.rules if one["result"] == "matched"}, row.lines()


def test_the_table_is_what_they_make_of_them(plain, injected):
    """`python tests/pipeline/corpus.py` writes it anew; look at the difference before you commit it."""
    assert table(plain, injected).splitlines() == TABLE.read_text("utf-8").splitlines()
