"""The visitor is found: from the signed request to what DataFast recorded, over days and in any order."""

from __future__ import annotations

import json
import random
import uuid

import pytest
from composed import DAY, SECOND, Composed
from running import ALICE, BOB, checkout, environment, event, eventually
from sqlalchemy import text

from bridge import cli
from bridge.sandbox import mix, scenarios, simulator
from bridge.sandbox.scenarios import Step
from bridge.store import schema

START_S = 1_790_000_000
STRIPE = [name for name in scenarios.SCENARIOS if name.startswith("stripe-")]
# Each life cycle once, in one version of its provider's API after the other (the simulator's own tests play them all).
EVERY = [
    f"{scenario.name}@{scenario.shapes[number % len(scenario.shapes)]}" if scenario.shapes else scenario.name
    for number, scenario in enumerate(scenarios.SCENARIOS.values())
    if scenario.name not in ("polar-order", "across-tools")  # which need mapping files of their own
]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def composed(request, clock):
    """A bridge on each database."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        url = str(request.getfixturevalue("postgres_store").engine.url.render_as_string(hide_password=False))
    with Composed(url, clock) as made:
        yield made


@pytest.fixture
def embedded(sqlite_url, clock):
    with Composed(sqlite_url, clock) as made:
        yield made


def played(name, *, end_s=START_S + 150 * 86_400, **options):
    """A scenario with its days between; all of it is later than the clock's first moment."""
    return scenarios.build(name, **{"seed": 7, "end_s": end_s, "spread": True} | options)


def the(steps, event_type):
    """The only step of this type."""
    (found,) = [step for step in steps if step.type == event_type]
    return found


def expected(steps):
    return [(goal.name, goal.visitor) for step in steps for goal in step.goals]


def step(body, *, at_s=START_S):
    """One event of Stripe as a step."""
    body = body | {"created": at_s}
    return Step(at_s, "stripe", "stripe", body["type"], body["id"], body, test=not body["livemode"])


def why(composed, capsys, monkeypatch, what):
    """What `python -m bridge why` says."""
    url = composed.bridge.store.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("DATABASE_URL", url)
    capsys.readouterr()
    assert cli.main(["why", what]) == 0
    return capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ the life cycles


def test_a_refund_twelve_days_later_is_the_visitors_and_why_names_the_checkout(composed, capsys, monkeypatch):
    steps = played("stripe-refund")
    bought, refunded = the(steps, "checkout.session.completed"), the(steps, "charge.refunded")
    assert refunded.at_s - bought.at_s >= 12 * DAY // 1000
    assert bought.visitor not in json.dumps(refunded.body)
    composed.tell(steps)
    assert composed.sent() == [("purchase", bought.visitor), ("refund", bought.visitor)]
    told = why(composed, capsys, monkeypatch, refunded.id)
    assert bought.visitor in told
    assert f"checkout.session.completed {bought.id}" in " ".join(told.split())
    assert "12 days before" in told
    assert "none of the places for a visitor id has a value" in told


@pytest.mark.parametrize("shape", scenarios.SHAPES)
def test_a_charge_finds_its_way_by_intent_invoice_and_subscription_to_the_session(shape, embedded):
    steps = played(f"stripe-renewal-refund@{shape}")
    embedded.tell(steps)
    refund = the(steps, "charge.refunded")
    first, second = dict.fromkeys(visitor for _, visitor in expected(steps))
    assert embedded.sent() == expected(steps)
    assert embedded.sent()[-1] == ("refund", first) != ("refund", second)
    found = embedded.provenance("refund")
    assert found["by"] in ("thread", "key", "strong")
    assert "checkout.session.completed" in json.dumps(found)
    assert first not in json.dumps(refund.body)


def test_a_dispute_that_names_only_its_charge_is_the_buyers(composed):
    steps = played("stripe-dispute")
    thing = the(steps, "charge.dispute.created").body["data"]["object"]
    assert thing["charge"]
    assert not thing.get("payment_intent")
    assert "customer" not in thing
    composed.tell(steps)
    buyer = the(steps, "checkout.session.completed").visitor
    assert composed.sent() == expected(steps) == [("purchase", buyer), ("dispute", buyer)]


def test_every_life_cycle_makes_its_goals_for_its_visitors(sqlite_url, clock):
    """One after another on one bridge, a year apart: no life touches another."""
    with Composed(sqlite_url, clock) as composed:
        wrong = {}
        for number, name in enumerate(EVERY):
            steps = played(name, seed=number, end_s=START_S + (number + 1) * 300 * 86_400)
            before = len(composed.sent())
            composed.tell(steps)
            composed.later(10 * 60 * SECOND)
            made = sorted(composed.sent()[before:])
            if made != sorted(expected(steps)):
                wrong[name] = (made, expected(steps))
        assert wrong == {}
        assert len(composed.sent()) > 50


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 4))])
def test_in_any_order_and_doubled_they_are_the_same(seed, sqlite_url, clock):
    """All of Stripe's lives at once, within the time that a goal waits for its visitor."""
    with Composed(sqlite_url, clock) as composed:
        lives = [scenarios.build(name, seed=seed, end_s=START_S) for name in random.Random(seed).sample(STRIPE, 8)]
        steps = [step for life in lives for step in life]
        clock.set((START_S + 60) * 1000)
        shuffled = list(mix.duplicated(mix.reordered(tuple(steps), seed=seed), seed=seed))
        random.Random(seed).shuffle(shuffled)
        for step in shuffled:
            composed.post(step)
            if composed.clock.now_ms % 3 == 0:
                composed.work()
            composed.clock.advance(random.Random(step.id).randrange(400))
        composed.work()
        composed.later(10 * 60 * SECOND)
        assert sorted(composed.sent()) == sorted(expected(steps))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
def test_one_person_across_five_tools_is_one_visitor_in_any_order(seed, sqlite_url, clock, tmp_path):
    tools = ("tally", "calcom", "clerk", "stripe")
    for tool in tools:
        (tmp_path / f"{tool}.yaml").write_text(f"extends: {tool}\n")
    secrets = {simulator.secret_name(tool): "whsec_" + "a2V5" * 8 for tool in tools}
    steps = scenarios.build("across-tools", seed=seed, end_s=START_S)
    with Composed(sqlite_url, clock, tmp_path, **secrets) as composed:
        clock.set((START_S + 60) * 1000)
        for step in mix.duplicated(mix.reordered(steps, seed=seed), seed=seed):
            composed.post(step)
            composed.work()
            composed.clock.advance(300)
        composed.later(10 * 60 * SECOND)
        assert sorted(composed.sent()) == sorted(expected(steps))
        assert len({visitor for _, visitor in composed.sent()}) == 1


# ------------------------------------------------------------------------------------------------------- parking


def invoice_paid(number, **fields):
    """A renewal that had failed before: it names its subscription, and no visitor."""
    thing = {
        "id": f"in_{number}",
        "object": "invoice",
        "amount_paid": 4900,
        "attempt_count": 2,
        "billing_reason": "subscription_cycle",
        "currency": "usd",
        "customer": f"cus_{number}",
        "metadata": {},
        "parent": {"subscription_details": {"metadata": {}, "subscription": f"sub_{number}"}},
        **fields,
    }
    return event("invoice.paid", thing, f"evt_in_{number}")


def test_an_invoice_before_its_checkout_is_parked_and_sent_within_a_second_of_it(composed):
    invoice, session = invoice_paid(1), checkout(1, ALICE, mode="subscription", subscription="sub_1")
    composed.clock.set(START_S * 1000)
    composed.post(step(invoice))
    composed.work()
    composed.later(30 * 60 * SECOND)
    assert composed.goal("payment_recovered").state == "parked"
    assert "sub_1" in composed.goal("payment_recovered").message
    assert composed.sent() == []
    woken_ms = composed.clock.now_ms
    composed.post(step(session))
    composed.work()
    assert sorted(composed.sent()) == [("payment_recovered", ALICE), ("purchase", ALICE)]
    assert composed.goal("payment_recovered").delivered_at_ms - woken_ms <= SECOND


@pytest.mark.long
def test_the_same_with_processes_takes_less_than_a_second(machine, postgres_url):
    datafast = machine.datafast()
    web = machine.web(environment(datafast, postgres_url))
    web.stripe(invoice_paid(1))
    number = uuid.uuid4().hex
    web.stripe(checkout(number, BOB))
    eventually(lambda: ("purchase", BOB) in datafast.seen(), what="the worker is at work")
    assert len(datafast.seen()) == 1
    web.stripe(checkout(1, ALICE, mode="subscription", subscription="sub_1"))
    eventually(lambda: len(datafast.seen()) >= 3, what="both are delivered")
    told = {goal["name"]: goal for goal in datafast.goals() if goal["visitor"] == ALICE}
    assert set(told) == {"payment_recovered", "purchase"}
    assert told["payment_recovered"]["at_ms"] - told["purchase"]["at_ms"] < 1_000


def test_a_wait_that_is_over_says_what_was_missing(composed, capsys, monkeypatch):
    composed.clock.set(START_S * 1000)
    composed.post(step(invoice_paid(1)))
    composed.work()
    composed.later(97 * 3_600 * SECOND)
    goal = composed.goal("payment_recovered")
    assert goal.state == "unattributed"
    assert "sub_1" in goal.message
    told = why(composed, capsys, monkeypatch, "evt_in_1")
    assert "sub_1" in told
    assert composed.sent() == []


# ------------------------------------------------------------------------------------------------ test mode, bots


def test_test_events_are_dry_and_never_teach_or_wake_what_is_live(composed):
    composed.clock.set(START_S * 1000)
    composed.post(step(invoice_paid(1)))
    rehearsed = checkout(1, BOB, mode="subscription", subscription="sub_1") | {"id": "evt_test", "livemode": False}
    composed.post(step(rehearsed))
    composed.work()
    states = {goal.name: (goal.state, goal.visitor) for goal in composed.goals()}
    assert states == {"payment_recovered": ("parked", None), "purchase": ("dry", BOB)}
    composed.later(3_600 * SECOND)
    assert composed.sent() == []
    composed.post(step(checkout(1, ALICE, mode="subscription", subscription="sub_1")))
    composed.work()
    assert sorted(composed.sent()) == [("payment_recovered", ALICE), ("purchase", ALICE)]
    keys = {row.key for row in composed.rows(schema.link_keys)}
    assert {key.split(":")[1] for key in keys} == {"live", "test"}


def test_live_events_never_teach_what_is_rehearsed(composed):
    composed.clock.set(START_S * 1000)
    composed.post(step(checkout(1, ALICE, mode="subscription", subscription="sub_1")))
    rehearsed = invoice_paid(1) | {"livemode": False}
    composed.post(step(rehearsed))
    composed.work()
    goal = composed.goal("payment_recovered")
    assert (goal.state, goal.visitor) == ("dry", None)


def test_with_a_second_website_test_events_go_there(sqlite_url, clock):
    with Composed(sqlite_url, clock, DATAFAST_TEST_API_KEY="df_test") as composed:
        clock.set(START_S * 1000)
        composed.post(step(checkout(1, BOB) | {"livemode": False}))
        composed.post(step(checkout(2, ALICE)))
        composed.work()
        sites = {goal.visitor: goal.website for goal in composed.datafast.world.goals()}
        assert set(sites) == {ALICE, BOB}
        assert sites[ALICE] != sites[BOB]


@pytest.mark.parametrize("name", ["stripe-refund", "lemonsqueezy-order", "stripe-subscription"])
def test_a_rehearsed_life_sends_nothing(name, embedded):
    steps = played(name, test=True)
    embedded.tell(steps)
    embedded.later(3_600 * SECOND)
    assert embedded.sent() == []
    assert {goal.state for goal in embedded.goals()} == {"dry"}


# -------------------------------------------------------------------------------------------------- wrong visitors


@pytest.mark.parametrize(
    "value",
    [
        "",
        "undefined",
        "s-123",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("null", "None", "user_42", "{{visitor}}")),
    ],
)
def test_a_value_that_is_no_visitor_id_is_refused_and_named(value, embedded, capsys, monkeypatch):
    embedded.clock.set(START_S * 1000)
    embedded.post(step(checkout(1, None, metadata={"datafast_visitor_id": value})))
    embedded.work()
    embedded.later(SECOND)
    assert embedded.sent() == []
    assert embedded.goal("purchase").state == "parked"
    told = why(embedded, capsys, monkeypatch, "evt_1")
    if value:
        assert value in told
        assert "metadata.datafast_visitor_id" in told


def test_a_visitor_whom_datafast_never_knew_makes_room_for_the_next(embedded, capsys, monkeypatch):
    own_user_id = str(uuid.uuid4())
    embedded.datafast.world.seed(own_user_id, "unknown", 0)
    embedded.clock.set(START_S * 1000)
    bought = checkout(1, own_user_id, mode="subscription", subscription="sub_1")
    embedded.post(step(bought))
    embedded.work()
    assert embedded.goal("purchase").visitor == own_user_id
    paid = invoice_paid(
        1, parent={"subscription_details": {"subscription": "sub_1", "metadata": {"datafast_visitor_id": ALICE}}}
    )
    embedded.post(step(paid))
    embedded.work()
    for _ in range(8):
        embedded.later(3_600 * SECOND)
    assert sorted(embedded.sent()) == [("payment_recovered", ALICE), ("purchase", ALICE)]
    told = why(embedded, capsys, monkeypatch, "evt_1")
    assert own_user_id in told


def test_a_visitor_in_a_payment_link_is_certain(embedded):
    embedded.clock.set(START_S * 1000)
    embedded.post(step(checkout(1, None, client_reference_id=f"dfv_{ALICE}")))
    embedded.work()
    assert embedded.sent() == [("purchase", ALICE)]
    assert embedded.provenance("purchase")["sure"] is True


def test_a_connected_account_never_mixes_with_another(embedded):
    embedded.clock.set(START_S * 1000)
    for account, visitor in (("acct_1", ALICE), ("acct_2", BOB)):
        body = checkout(1, visitor, mode="subscription", subscription="sub_1", id=f"cs_{account}")
        embedded.post(step(body | {"account": account, "id": f"evt_{account}"}))
        paid = invoice_paid(1, id=f"in_{account}")
        embedded.post(step(paid | {"account": account, "id": f"evt_in_{account}"}))
    embedded.work()
    recovered = [visitor for name, visitor in embedded.sent() if name == "payment_recovered"]
    assert recovered == [ALICE, BOB]


def test_nothing_of_a_body_stands_in_a_trace_or_in_provenance(embedded):
    embedded.clock.set(START_S * 1000)
    embedded.post(step(checkout(1, ALICE)))
    embedded.work()
    with embedded.bridge.store.read() as conn:
        told = json.dumps([tuple(row) for row in conn.execute(text("SELECT trace FROM events"))])
        told += json.dumps([tuple(row) for row in conn.execute(text("SELECT provenance, message FROM goals"))])
    assert "must-not-be-told" not in told
