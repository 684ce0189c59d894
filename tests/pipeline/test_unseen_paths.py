"""A path that no stored event of its type has is told at its place, with the one that was meant; on both databases."""

# ruff: noqa: E501 - tables of cases, one a line

from __future__ import annotations

import json

import pytest
from identity_kit import ALICE, SECRETS, Rig, rule_set, settings, stripe_event
from sqlalchemy import update

from bridge import rules
from bridge.cli import main
from bridge.store import schema
from bridge.store.operator import history
from bridge.workbench import stored
from bridge.workbench.unseen import EVENTS_MAX, Search, unseen

RULES = """provider: stripe
goals:
  - goal: bought
    event: checkout.session.completed
    when: {data.object.payment_status: paid, WHEN}
    once_per: data.object.id
    metadata: {METADATA}
"""
SALE = {"object": "checkout.session", "id": "cs_1", "payment_status": "paid", "amount_total": 4900, "currency": "usd"}
SALE |= {"metadata": {"datafast_visitor_id": ALICE, "plan": "pro"}, "discount": None, "custom_fields": []}
SALE |= {"line_items": {"data": [{"price": "price_1", "quantity": 2}]}, "customer": "cus_1"}


def written(when="data.object.id: {exists: true}", metadata='plan: "{data.object.metadata.plan}"'):
    return RULES.replace("WHEN", when).replace("METADATA", metadata)


def sale(number, **more):
    return stripe_event("checkout.session.completed", {**SALE, "id": f"cs_{number}", **more})


@pytest.fixture
def rig(store, clock):
    made = Rig(store, clock, {"stripe.yaml": written()})
    made.route(*(sale(number) for number in range(11)), sale(11, metadata={"datafast_visitor_id": ALICE, "tier": "x"}))
    made.route(stripe_event("price.created", {"object": "price", "id": "p_1", "nickname": "n"}))
    return made


def told(rig, text, name="stripe.yaml"):
    """As `check` finds it, and as `backtest` does, which has shown all events to the search before."""
    rules = rule_set({name: text})
    search = Search(rig.store, rules, settings())
    preparer = stored.preparer(rig.store, rules, settings())
    with rig.store.read() as conn:
        span = history.span(conn, 0)
    for event in (event for page in stored.pages(rig.store, span) for event in page):
        search.see(preparer.read(event))
    found = unseen(rig.store, rules, settings())
    assert search.unseen() == found
    return [one.line for one in found]


QUANTITY = "data.object.line_items.data.*.quantity"


UNSEEN = [
        (written(metadata='plan: "{data.object.metadta.plan}"'), "7:22", "data.object.metadta.plan", "data.object.metadata.plan"),
        (written("data.object.payment_state: paid"), "5:46", "data.object.payment_state", "data.object.payment_status"),
        (written(metadata='q: "{data.object.line_items.data.*.quantiy|sum}"'), "7:19", QUANTITY.replace("tity", "tiy"), QUANTITY),
        (
            written(metadata='q: "{data.object.line_items.data[0].quantiy}"'),
            "7:19",
            "data.object.line_items.data[0].quantiy",
            "data.object.line_items.data[0].quantity",
        ),
        (
            written('"data.object.line_items.data.*": {pric: price_1, quantity: 2}'),
            "5:46",
            "data.object.line_items.data.*.pric",
            "data.object.line_items.data.*.price",
        ),
        (written(metadata='plan: "{data.object.plan}"'), "7:22", "data.object.plan", "data.object.metadata.plan"),
        (written(metadata='a: "{data.object.customer.email}"'), "7:19", "data.object.customer.email", ""),
        (written("was.data.object.payment_state: x"), "5:46", "was.data.object.payment_state", "was.data.object.payment_status"),
        (
            written("data.object.amount_total: {gt: {path: data.object.amount_totl}}"),
            "5:84",
            "data.object.amount_totl",
            "data.object.amount_total",
        ),
]  # fmt: skip


def test_a_path_that_no_event_has_is_told_with_the_one_that_was_meant(rig):
    for text, place, path, meant in UNSEEN:
        sentence = f"{path} was never seen in 12 events of checkout.session.completed"
        advice = f'; did you mean "{meant}"?' if meant else ""
        assert told(rig, text) == [f"mappings/stripe.yaml:{place}: {sentence}{advice}"]


def test_of_alternatives_all_are_told_together(rig):
    (line,) = told(rig, written(metadata='a: "{data.object.foo or data.object.bar}"'))
    assert ": data.object.foo or data.object.bar were never seen in 12 events" in line


OPTIONAL = [
    'tier: "{data.object.metadata.tier}"',  # one event of twelve has it
    'd: "{data.object.discount.coupon.id}"',  # null: nobody can say what is behind it
    'c: "{data.object.custom_fields.*.key|join}"',  # the list is empty
    'c: "{data.object.custom_fields[0].key}"',
    'c: "{data.object.coupon|default:none}"',
    'p: "{data.object.plan or data.object.metadata.plan}"',
    'a: "{value.amount}", m: "{value.monthly}"',
    'h: "{header.x-anything}", k: "{key.subscription}", e: "{envelope.account}"',
]
WITHOUT = [
    "data.object.metadata.internal: {exists: false}",
    "data.object.refunded: {not: true}",
    "data.object.mode: null",
    "not: {data.object.metadata.role: tester}",
    "any: [{data.object.nope: 1}, {data.object.currency: usd}]",
    "data.object.livemode: {any: [{exists: false}, true]}",
]


@pytest.mark.long
def test_what_was_seen_once_or_is_declared_optional_is_not_told(rig):
    for metadata in OPTIONAL:
        assert told(rig, written(metadata=metadata)) == [], metadata


@pytest.mark.long
def test_a_condition_that_holds_without_its_path_is_not_told(rig):
    for when in WITHOUT:
        assert told(rig, written(when=when)) == [], when


def test_rules_for_types_that_never_came_and_rules_that_are_off_are_left_alone(rig):
    other = written(metadata='a: "{data.object.nope}"').replace("checkout.session.completed", "invoice.paid")
    assert told(rig, other) == []
    assert told(rig, written(metadata='a: "{data.object.nope}"') + "    enabled: false\n") == []


def test_of_several_types_one_is_enough(rig):
    both = written(when="data.object.nickname: {exists: true}")
    both = both.replace("event: checkout.session.completed", "event: [checkout.session.completed, price.created]")
    assert told(rig, both) == []
    (line,) = told(rig, both.replace("nickname", "nicknam"))
    assert "never seen in 13 events of price.created or checkout.session.completed; did you mean" in line


def test_what_a_shipped_file_names_is_never_told(rig):
    assert told(rig, "extends: stripe\nuse: [purchase, refund]\n") == []
    assert told(rig, (rules.SHIPPED / "stripe.yaml").read_text("utf-8")) == []


def test_of_a_layer_its_own_lines_are_told(rig):
    layer = """extends: stripe
visitor: data.object.metadata.visitr
values: {team: "{data.object.metadata.team}"}
goals:
  - {goal: big, like: purchase, when: {value.amount: {gte: 10 USD}}, metadata: {plan: "{data.object.metadata.plann}"}}
  - {id: purchase, metadata: {tier: "{data.object.metadata.tire}"}}
"""
    found = [
        line.removeprefix("mappings/stripe.yaml:").split(" were ")[0].split(" was ")[0] for line in told(rig, layer)
    ]
    assert found == [
        "2:10: data.object.metadata.visitr",
        "3:16: data.object.metadata.team",
        "5:87: data.object.metadata.plann",
        "6:37: data.object.metadata.tire",
    ]


@pytest.mark.long
def test_of_very_many_events_the_newest_are_read(sqlite_store, clock):
    rig = Rig(sqlite_store, clock, {"stripe.yaml": written()})
    rig.put_all([sale(number) for number in range(EVENTS_MAX + 20)])
    (line,) = told(rig, written(metadata='a: "{data.object.nope}"'))
    assert f"never seen in {EVENTS_MAX} events" in line


def test_bodies_that_are_gone_are_not_counted(rig):
    with rig.store.write() as conn:
        conn.execute(update(schema.events).where(schema.events.c.id <= 10).values(body=None))
    (line,) = told(rig, written(metadata='a: "{data.object.nope}"'))
    assert "never seen in 2 events" in line
    with rig.store.write() as conn:
        conn.execute(update(schema.events).values(body=None))
    assert told(rig, written(metadata='a: "{data.object.nope}"')) == []


# ---------------------------------------------------------------------------------------------------- the commands


@pytest.fixture
def command(sqlite_store, clock, sqlite_url, tmp_path, monkeypatch, capfd):
    rig = Rig(sqlite_store, clock, {"stripe.yaml": written()})
    rig.route(*(sale(number) for number in range(3)))
    with rig.store.write() as conn:  # the command's clock is the machine's
        conn.execute(update(schema.events).values(received_at_ms=4_000_000_000_000))
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings/stripe.yaml").write_text(written(metadata='plan: "{data.object.metadta.plan}"'))
    for name, value in {**SECRETS, "DATABASE_URL": sqlite_url, "DATAFAST_API_KEY": "df_key"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(list(words))
        out, err = capfd.readouterr()
        assert err == ""
        return code, out

    return run


LINE = (
    "mappings/stripe.yaml:7:22: data.object.metadta.plan was never seen in 3 events of checkout.session.completed;"
    ' did you mean "data.object.metadata.plan"?'
)


@pytest.mark.long
def test_check_warns_and_fails_with_strict(command):
    code, out = command("check")
    assert (code, out.splitlines()[-2:]) == (0, [f"warn  {LINE}", "1 warning."])
    code, out = command("check", "--strict")
    assert (code, out.splitlines()[-2:]) == (1, [LINE, "1 problem."])


@pytest.mark.parametrize("url", ["sqlite:///nowhere.db", "postgresql://127.0.0.1:1/none", "nonsense"])
def test_check_says_nothing_where_no_database_can_be_read(command, monkeypatch, url, tmp_path):
    monkeypatch.setenv("DATABASE_URL", url)
    code, out = command("check", "mappings/stripe.yaml")
    assert (code, out.splitlines()[-1]) == (0, "No problems.")
    assert not (tmp_path / "nowhere.db").exists()


def test_coverage_and_backtest_tell_them_too(command, tmp_path):
    _, out = command("coverage")
    assert out.splitlines()[-2:] == ["Paths that no event has", LINE]
    (path,) = json.loads(command("coverage", "--json")[1])["unseen_paths"]
    assert (path["path"], path["events"], path["rule"]) == ("data.object.metadta.plan", 3, "bought")
    (tmp_path / "next").mkdir()
    (tmp_path / "next/stripe.yaml").write_text(written(when="data.object.payment_state: paid"))
    _, out = command("backtest", "next")
    assert out.splitlines()[-1].startswith(
        "next/stripe.yaml:5:46: data.object.payment_state was never seen in 3 events"
    )
    assert len(json.loads(command("backtest", "next", "--json")[1])["unseen_paths"]) == 1
