"""`report`: goals by source, rule and day, their money, what waits and what failed; on both databases."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from identity_kit import ALICE, BOB, DAY, SECRETS, Rig, stripe_event
from sqlalchemy import update

from bridge import identity
from bridge.cli import main
from bridge.store import schema
from bridge.store.goals import parking
from bridge.store.operator import tallies
from bridge.workbench import report as reports

RULES = """
provider: stripe
handover: [{event: checkout.session.completed, kind: purchase}]
goals:
  - {goal: bought, event: checkout.session.completed, once_per: data.object.id,
     metadata: {amount: "{data.object.amount_total|money:data.object.currency}", currency: "{data.object.currency}"}}
  - {goal: refund, event: charge.refunded, once_per: data.object.id,
     metadata: {amount: "{data.object.amount|money:data.object.currency}", currency: "{data.object.currency}"}}
  - {goal: seen, event: price.created}
"""


def checkout(name, amount=4900, visitor=ALICE, currency="usd", **more):
    metadata = {"datafast_visitor_id": visitor} if visitor else {}
    thing = {"object": "checkout.session", "id": name, "amount_total": amount, "currency": currency}
    return stripe_event("checkout.session.completed", thing | {"metadata": metadata}, **more)


@pytest.fixture
def rig(store, clock):
    return Rig(store, clock, {"stripe.yaml": RULES})


def of(found, *names):
    return [tuple(getattr(one, name) for name in names) for one in found]


def test_goals_are_counted_by_source_rule_and_day(rig, clock):
    rig.route(checkout("cs_1"))
    clock.advance(DAY)
    rig.route(checkout("cs_2"), checkout("cs_3"), stripe_event("price.created", {"object": "price", "id": "p_1"}))
    found = reports.report(rig.store, clock.now_ms - 7 * DAY)
    assert of(found.rules, "source", "rule", "goals") == [("stripe", "bought", 3), ("stripe", "seen", 1)]
    assert len(found.days) == 8
    assert [found.rules[0].days[day] for day in found.days[-2:]] == [1, 2]
    assert (found.goals, dict(found.states)) == (4, {"pending": 3, "unattributed": 1})
    assert reports.report(rig.store, clock.now_ms - 1_000).goals == 3, "only what was made since then"


def test_of_each_source_it_is_told_what_visitors_were_found_through(rig):
    source = rig.rules.sources["stripe"]
    with rig.store.write() as conn:
        parking.bind(conn, identity.key(source, "session", "cs_2"), ALICE, rig.settings)
    rig.route(checkout("cs_1"), checkout("cs_2", visitor=None), checkout("cs_3", visitor=None))
    found = reports.report(rig.store, 0)
    assert found.through == {"stripe": {"event": 1, "by-hand": 1}}
    assert (found.rules[0].with_visitor, found.rules[0].goals) == (2, 3)


def test_money_is_told_per_currency_with_and_without_a_visitor(rig):
    rig.route(
        checkout("cs_1", 4900),
        checkout("cs_2", 1010),
        checkout("cs_3", 999, visitor=None),
        checkout("cs_4", 500, currency="jpy"),
        checkout("cs_5", None),
    )
    found = reports.report(rig.store, 0)
    bought = [(one.currency, one.with_visitor, one.without_visitor) for one in found.money]
    assert bought == [
        ("JPY", reports.Sum(1, Decimal(500)), reports.Sum()),
        ("USD", reports.Sum(2, Decimal("59.10")), reports.Sum(1, Decimal("9.99"))),
    ]
    assert of(found.sales, "currency") == [("JPY",), ("USD",)]
    assert found.sales[1].without_visitor == reports.Sum(1, Decimal("9.99"))


def test_a_refund_is_no_sale(rig):
    rig.route(
        stripe_event(
            "charge.refunded",
            {
                "object": "charge",
                "id": "ch_1",
                "amount": 900,
                "currency": "usd",
                "metadata": {"datafast_visitor_id": ALICE},
            },
        )
    )
    found = reports.report(rig.store, 0)
    assert (of(found.money, "rule", "currency"), found.sales) == ([("refund", "USD")], ())
    assert found.money[0].with_visitor == reports.Sum(1, Decimal("-9.00")), "it goes back"


DISPUTES = """
provider: stripe
goals:
  - {goal: dispute, event: charge.dispute.created, metadata: [amount, currency]}
  - {goal: dispute_won, event: charge.dispute.closed, metadata: [amount, currency]}
  - {goal: dispute_lost, event: charge.dispute.closed, metadata: [amount, currency]}
"""


def test_what_a_bank_takes_back_is_negative_once_and_what_is_won_again_is_not(store, clock):
    rig = Rig(store, clock, {"stripe.yaml": DISPUTES})
    disputed = {"object": "dispute", "id": "dp_1", "amount": 900, "currency": "usd"}
    rig.route(*(stripe_event(f"charge.dispute.{what}", disputed) for what in ("created", "closed")))
    money = {one.rule: one.without_visitor.amount for one in reports.report(rig.store, 0).money}
    assert money == {"dispute": Decimal("-9.00"), "dispute_won": Decimal("9.00")}


def test_a_sale_that_two_rules_count_is_one_sale(store, clock):
    twice = (
        RULES
        + """
  - goal: whale
    event: checkout.session.completed
    metadata: {amount: "{value.amount}", currency: usd}
"""
    )
    rig = Rig(store, clock, {"stripe.yaml": twice})
    rig.route(checkout("cs_1", 4900), checkout("cs_2", 1010, visitor=None))
    found = reports.report(rig.store, 0)
    assert of(found.money, "rule", "currency") == [("bought", "USD"), ("whale", "USD")]
    (sales,) = found.sales
    assert sales.with_visitor == reports.Sum(1, Decimal("49.00"))
    assert sales.without_visitor == reports.Sum(1, Decimal("10.10"))


def test_the_sales_without_a_visitor_are_those_of_the_report_without_reading_the_others(store, clock):
    twice = (
        RULES
        + """
  - goal: whale
    event: checkout.session.completed
    metadata: {amount: "{value.amount}", currency: "{data.object.currency}"}
"""
    )
    rig = Rig(store, clock, {"stripe.yaml": twice})
    rig.route(
        checkout("cs_1", 4900),
        checkout("cs_2", 1010, visitor=None),
        checkout("cs_3", 999, visitor=None),
        checkout("cs_4", 500, visitor=None, currency="jpy"),
        checkout("cs_5", 700, visitor=BOB),
    )
    with store.write() as conn:
        unknown = {"state": "rejected", "reason": "unknown_visitor"}
        conn.execute(update(schema.goals).where(schema.goals.c.visitor == BOB).values(**unknown))
    wanted = {one.currency: one.without_visitor for one in reports.report(store, 0).sales}
    assert wanted["USD"].goals == 3
    with store.read() as conn:
        assert {one.currency: one.without_visitor for one in reports.unnamed_sales(conn, 0)} == wanted
        assert reports.unnamed_sales(conn, clock.now_ms + 1) == ()


def test_payments_and_their_refunds_are_rows_of_their_own(store, clock):
    paid = """provider: stripe
goals:
  - {payment: {amount: "12.50", currency: usd, transaction_id: "{data.object.id}"}, id: money, event: invoice.paid}
  - payment: {amount: "2.50", currency: usd, transaction_id: "{data.object.id}", refunded: "true"}
    id: back
    event: invoice.voided
"""
    rig = Rig(store, clock, {"stripe.yaml": paid})
    visitor = {"datafast_visitor_id": ALICE}
    for kind in ("invoice.paid", "invoice.voided"):
        rig.route(stripe_event(kind, {"object": "invoice", "id": "in_1", "metadata": visitor}))
    found = reports.report(rig.store, 0)
    assert of(found.rules, "rule", "kind", "goals") == [("back", "payment", 1), ("money", "payment", 1)]
    assert [(one.rule, one.with_visitor.amount) for one in found.money] == [
        ("back", Decimal("-2.50")),
        ("money", Decimal("12.50")),
    ]
    assert (found.goals, found.payments) == (2, 2)


def test_of_rehearsals_it_is_told_how_many_have_a_visitor(store, clock):
    rig = Rig(store, clock, {"stripe.yaml": RULES.replace("once_per: data.object.id,", "enabled: dry,", 1)})
    rig.route(checkout("cs_1"), checkout("cs_2", visitor=None))
    found = reports.report(rig.store, 0)
    assert (found.goals, found.dry, found.dry_named) == (0, 2, 1)


def test_a_visitor_whom_datafast_never_knew_is_none(rig):
    rig.route(checkout("cs_1"))
    with rig.store.write() as conn:
        conn.execute(update(schema.goals).values(state="rejected", reason="unknown_visitor", message="404"))
    found = reports.report(rig.store, 0)
    assert found.money[0].without_visitor.goals == 1
    assert (found.rules[0].goals, found.rules[0].with_visitor) == (1, 0)
    assert of(found.failures, "state", "reason", "goals", "message") == [("rejected", "unknown_visitor", 1, "404")]


def test_tests_and_rehearsals_are_counted_apart(rig):
    rig.route(checkout("cs_1", live=False), checkout("cs_2"))
    found = reports.report(rig.store, 0)
    assert (found.goals, found.test) == (1, 1)


def test_what_waits_is_told_whenever_it_was_made(rig, clock):
    rig.route(checkout("cs_1"), checkout("cs_2"))
    clock.advance(30 * DAY)
    found = reports.report(rig.store, clock.now_ms - DAY)
    assert (found.goals, of(found.waiting, "state", "goals")) == (0, [("pending", 2)])


def test_pages_of_goals_do_not_show(rig, clock, monkeypatch):
    for number in range(6):
        rig.route(checkout(f"cs_{number}"))
        clock.advance(number % 2)
    whole = reports.report(rig.store, 0)
    monkeypatch.setattr(tallies, "_PAGE", 2)
    assert reports.report(rig.store, 0) == whole
    assert whole.goals == 6


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(sqlite_store, clock, sqlite_url, tmp_path, monkeypatch, capfd):
    rig = Rig(sqlite_store, clock, {"stripe.yaml": RULES})
    rig.route(checkout("cs_1"), checkout("cs_2", 1_240_00, visitor=None))
    with rig.store.write() as conn:  # the command's clock is the machine's
        from bridge.store.clock import system_ms

        conn.execute(update(schema.goals).values(created_at_ms=system_ms() - 60_000))
        given_up = {"state": "unattributed", "reason": "no_visitor", "message": "nobody named a visitor"}
        conn.execute(update(schema.goals).where(schema.goals.c.id == 2).values(**given_up))
    for name, value in {**SECRETS, "DATABASE_URL": sqlite_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(list(words))
        out, err = capfd.readouterr()
        assert (code, err) == (0, "")
        return out

    return run


def test_the_answer_is_for_a_screen_of_eighty_columns(command):
    lines = command("report").splitlines()
    assert lines[0] == "2 goals in the last 7 days: 1 pending and 1 unattributed."
    assert lines[1] == "1,240.00 USD of sales have no visitor (1 of 2)."
    assert "SOURCE  RULE    GOALS  DELIVERED  WAIT  NO VISITOR" in lines
    assert "stripe  bought      2                1           1" in lines
    assert "SOURCE  EVENT  NO VISITOR" in lines
    assert "stripe      1           1" in lines
    assert "SOURCE  RULE    CURRENCY  WITH A VISITOR  GOALS   WITHOUT  GOALS" in lines
    assert "stripe  bought  USD                49.00      1  1,240.00      1" in lines
    assert "all     sales   USD                49.00      1  1,240.00      1" in lines
    assert any(line.endswith("2: bought 2") for line in lines)
    assert any(line.startswith("  1 pending") for line in lines)
    assert any(
        line.startswith("  1 unattributed") and line.endswith("nobody named a visitor (goal_2)") for line in lines
    )


def test_what_waits_in_one_state_for_several_reasons_is_told_apart(command, sqlite_store):
    with sqlite_store.write() as conn:
        again = {"state": "pending", "reason": "unknown_visitor"}
        conn.execute(update(schema.goals).where(schema.goals.c.id == 2).values(**again))
    lines = [line for line in command("report").splitlines() if line.startswith("  1 pending")]
    assert sorted("(unknown visitor), the oldest" in line for line in lines) == [False, True]


def test_as_json_amounts_are_exact(command):
    told = json.loads(command("report", "--since", "1d", "--json"))
    assert told["money"] == [
        {
            "source": "stripe",
            "rule": "bought",
            "currency": "USD",
            "with_visitor": {"goals": 1, "amount": "49.00"},
            "without_visitor": {"goals": 1, "amount": "1240.00"},
        }
    ]
    assert told["through"] == {"stripe": {"event": 1}}
    assert told["sales"][0]["without_visitor"] == {"goals": 1, "amount": "1240.00"}
    assert (told["goals"], told["states"]) == (2, {"pending": 1, "unattributed": 1})
    assert told["rejected"][0]["example"] == "goal_2"
    assert sum(told["days"].values()) == 2


def test_where_nothing_happened_it_says_so(command, sqlite_store):
    assert command("report", "--since", "1s").startswith("No goal in the last 1 s.")


def test_the_list_of_goals_shows_the_source(command):
    assert "  SOURCE  NAME    VISITOR  " in command("goals").splitlines()[0]
    assert "  stripe  bought  " in command("goals").splitlines()[1]
