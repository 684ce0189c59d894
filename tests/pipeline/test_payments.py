"""Rules with `payment` and rules that are dry, from the webhook to what DataFast has, on both databases."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from composed import DAY, Composed
from sqlalchemy import update

from bridge.datafast.payment import PaymentAction
from bridge.model import Destination, Goal, Outcome, OutcomeKind
from bridge.sandbox.faults import KINDS
from bridge.store import schema
from bridge.store.delivery import restoring
from bridge.store.operator import actions, status
from bridge.store.operator.actions import RetryResult
from bridge.store.upkeep import retention

HOUR = 3_600_000
ALICE = "00000000-0000-4000-8000-00000000000a"
FILE = """
provider: custom
verify: {type: token, signature: {in: "header:x-token"}}
envelope: {type: type, id: id, time: at, test: test}
visitor: visitor
links: {subscription: subscription}
values:
  amount: "{cents|money:currency}"
  currency: "{currency|upper}"
  transaction: "{order}"
goals:
  - payment: {renewal: "{again}"}
    event: paid
  - payment: {refunded: true}
    id: money_back
    event: refunded
  - goal: bought
    event: paid
    once_per: order
    enabled: dry
    max_age: 2d
  - goal: upgraded
    event: upgraded
    once_per: order
    enabled: dry
"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def shop(request, clock, tmp_path):
    """A bridge with one source, on each database."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        url = str(request.getfixturevalue("postgres_store").engine.url.render_as_string(hide_password=False))
    with made(url, clock, tmp_path) as bridge:
        yield bridge


@pytest.fixture
def embedded(sqlite_url, clock, tmp_path):
    with made(sqlite_url, clock, tmp_path, DATAFAST_TEST_API_KEY="df_test") as bridge:
        yield bridge


def made(url, clock, folder, **environ):
    (folder / "shop.yaml").write_text(FILE)
    return Composed(url, clock, folder, SHOP_WEBHOOK_SECRET="a secret of the shop", **environ)


def post(shop, kind="paid", order="o1", **changes):
    body = {"type": kind, "id": f"{kind}-{order}", "order": order, "cents": 2900, "currency": "usd", "visitor": ALICE}
    body = {name: value for name, value in (body | changes).items() if value is not None}
    answer = shop.client.post("/webhooks/shop", data=json.dumps(body), headers={"x-token": "a secret of the shop"})
    assert answer.get_json()["status"] == "accepted"
    shop.work()


def payments(shop):
    return list(shop.datafast.world.payments.values())


def asked(shop, place="/payments"):
    return [row["status"] for row in shop.datafast.world.requests() if row["path"].endswith(place)]


def states(shop, name="payment"):
    return [goal.state for goal in shop.goals() if goal.name == name]


def tries(shop):
    return [row.outcome for row in shop.rows(schema.attempts)]


# ------------------------------------------------------------------------------------------------------- payments


def test_a_payment_arrives_with_its_time_and_once(shop):
    at_ms = shop.clock.now_ms - 3 * DAY
    post(shop, at=at_ms, again=True)
    post(shop, id="the same order told again", at=at_ms, again=True)
    (payment,) = payments(shop)
    stamp = payment.pop("timestamp")
    assert payment == {
        "datafast_visitor_id": ALICE,
        "amount": 29,
        "currency": "USD",
        "transaction_id": "o1",
        "renewal": True,
    }
    assert stamp.startswith("20")
    assert stamp.endswith("Z")
    assert asked(shop) == [200]
    assert shop.goal("payment").once_key == "shop:live:payment:o1"
    assert (shop.goal("payment").kind, shop.goal("payment").state) == ("payment", "delivered")


def test_a_payment_is_sent_however_old_because_it_carries_its_time(shop):
    post(shop, at=shop.clock.now_ms - 90 * DAY)
    assert states(shop) == ["delivered"]


def test_a_refund_is_a_payment_of_its_own_of_the_same_transaction(shop):
    post(shop)
    post(shop, "refunded")
    assert [goal.once_key for goal in shop.goals() if goal.name == "payment"] == [
        "shop:live:payment:o1",
        "shop:live:payment refunded:o1",
    ]
    assert asked(shop) == [200, 200]
    assert tries(shop) == ["delivered", "delivered"]


@pytest.mark.parametrize("kind", ["recorded_dropped", "recorded_500", "reset", "504"])
def test_a_payment_whose_answer_was_lost_is_sent_again_and_counts_once(shop, kind):
    shop.datafast.world.faults.put(_fault(kind))
    post(shop)
    assert states(shop) == ["pending"]
    shop.later(HOUR)
    assert states(shop) == ["delivered"]
    assert [payment["transaction_id"] for payment in payments(shop)] == ["o1"]
    assert tries(shop) == ["unconfirmed", "delivered"]
    assert asked(shop, f"/visitors/{ALICE}") == []


def _fault(kind):
    return replace(KINDS[kind], path="/payments", hang_ms=100)


@pytest.mark.parametrize("status_", [200, 400, 409, 422])
def test_a_transaction_that_is_there_already_is_delivered_whatever_the_status(shop, status_):
    shop.datafast.world.options = _changed(shop, duplicate_payment=status_)
    shop.datafast.world.payments["shop.example", "o1"] = {"amount": 1}
    post(shop)
    assert states(shop) == ["delivered"]
    assert asked(shop) == [status_]
    assert payments(shop) == [{"amount": 1}]


def _changed(shop, **options):
    return replace(shop.datafast.world.options, **options)


def test_the_payment_of_an_unknown_visitor_is_tried_to_the_end_and_then_rejected(shop):
    shop.datafast.world.seed(ALICE, "unknown")
    post(shop)
    assert (states(shop), asked(shop)) == (["pending"], [404])
    for _ in range(8):
        shop.later(2 * HOUR)
    goal = shop.goal("payment")
    assert (goal.state, goal.reason, payments(shop)) == ("rejected", "unknown_visitor", [])


def test_a_payment_without_a_visitor_waits_and_is_then_sent_without_one(shop):
    post(shop, visitor=None)
    assert (states(shop), asked(shop)) == (["delivered"], [200])
    post(shop, order="o2", visitor=None, subscription="s1")
    assert states(shop) == ["delivered", "parked"]
    post(shop, "other", order="o3", subscription="s1")
    assert states(shop) == ["delivered", "delivered"]
    post(shop, order="o4", visitor=None, subscription="s2")
    shop.later(30 * DAY)
    assert [payment.get("datafast_visitor_id") for payment in payments(shop)] == [None, ALICE, None]
    assert {goal.state for goal in shop.goals() if goal.name == "payment"} == {"delivered"}


def test_a_payment_without_a_visitor_that_was_cancelled_can_be_sent_after_all(shop):
    shop.datafast.world.faults.put(_fault("503"))
    post(shop, visitor=None)
    goal = shop.goal("payment")
    shop.bridge.store.run(lambda conn: actions.cancel(conn, goal.id))
    assert retried(shop, goal) == RetryResult.QUEUED
    shop.work()
    assert states(shop) == ["delivered"]


def test_a_payment_that_was_taken_does_not_prove_its_visitor(shop):
    shop.datafast.world.options = _changed(shop, unknown_payer="accept")
    shop.datafast.world.seed(ALICE, "unknown")
    with shop.bridge.store.write() as conn:
        conn.execute(schema.unknown_visitors.insert().values(visitor=ALICE, destination="default", at_ms=1))
    post(shop)
    assert states(shop) == ["delivered"]
    (row,) = shop.rows(schema.destinations)
    assert row.last_success_at_ms is not None
    assert len(shop.rows(schema.unknown_visitors)) == 1


def test_what_a_vanished_worker_left_is_sent_again_without_a_look(shop):
    post(shop, visitor=None, subscription="s1")
    goal = shop.goal("payment")
    with shop.bridge.store.write() as conn:
        gone = {"state": "sending", "visitor": ALICE, "lease_token": "gone", "lease_until_ms": shop.clock.now_ms - 1}
        conn.execute(update(schema.goals).where(schema.goals.c.id == goal.id).values(**gone))
        conn.execute(
            schema.attempts.insert().values(
                goal_id=goal.id, kind="send", started_at_ms=shop.clock.now_ms - 2, lease_token="gone"
            )
        )
    shop.bridge._deliverer.sweep()
    assert states(shop) == ["pending"]
    shop.later(HOUR)
    assert (states(shop), tries(shop)) == (["delivered"], ["unconfirmed", "delivered"])


def test_after_a_restore_a_payment_is_sent_without_a_look(shop):
    shop.datafast.world.faults.put(_fault("503"))
    post(shop)
    with shop.bridge.store.write() as conn:
        restoring.remember(conn, shop.clock.now_ms - HOUR, shop.clock.now_ms + 1)
    shop.later(HOUR)
    assert (states(shop), asked(shop, f"/visitors/{ALICE}")) == (["delivered"], [])


def test_no_payment_of_a_test_event_is_sent_though_its_goals_are(embedded):
    post(embedded, test=True)
    assert payments(embedded) == []
    payment = embedded.goal("payment")
    assert (payment.state, payment.reason, payment.destination) == ("dry", "test", "default")
    assert payment.message == "a test event: its payment is never sent"
    assert embedded.goal("bought").destination == "test"
    assert retried(embedded, payment) == RetryResult.DRY


def test_a_token_without_the_scope_rejects_the_payment_and_stops_no_goal():
    class Api:
        def post(self, _destination, _route, _body):
            return Outcome(OutcomeKind.CONFIGURATION, 403, self.message)

    api, goal = Api(), _goal()
    api.message = "This token lacks the permission payments:write"
    outcome = PaymentAction().send(api, Destination("default", "dft_1"), goal, 0)
    assert outcome.kind is OutcomeKind.REJECTED
    assert "payments:write" in outcome.message
    api.message = "Tracking suspended for this website."
    assert PaymentAction().send(api, Destination("default", "dft_1"), goal, 0).kind is OutcomeKind.CONFIGURATION


def _goal():
    fields = {"amount": "29.50", "currency": "USD", "transaction_id": "o1"}
    return Goal(1, "default", ALICE, "payment", "", fields, "k", 1, 0, True, 0, 0, 0, kind="payment")


def test_payments_are_counted_apart_also_when_they_are_gone(shop):
    post(shop)
    with shop.bridge.store.read() as conn:
        before = status.totals(conn)
    assert before.payments == {("default", "delivered"): 1}
    assert before.goals == {("default", "delivered"): 1, ("default", "dry"): 1}
    with shop.bridge.store.write() as conn:
        assert retention.forget_goals(conn, 10, shop.clock.now_ms + 500 * DAY) == 2
    with shop.bridge.store.read() as conn:
        after = status.totals(conn)
    assert (after.payments, after.goals) == (before.payments, before.goals)


def test_a_kind_of_a_later_release_is_no_payment(shop):
    post(shop)
    with shop.bridge.store.write() as conn:
        conn.execute(update(schema.goals).where(schema.goals.c.kind == "payment").values(kind="later"))
    for days in (0, 500):  # stored, and deleted
        with shop.bridge.store.write() as conn:
            retention.forget_goals(conn, 10, shop.clock.now_ms + days * DAY)
        with shop.bridge.store.read() as conn:
            counted = status.totals(conn)
        assert counted.payments == {}
        assert sum(counted.goals.values()) == 2


# -------------------------------------------------------------------------------------------------------------- dry


def retried(shop, goal):
    return shop.bridge.store.run(lambda conn: actions.retry(conn, goal.id))[0]


def send(shop, name):
    return [
        shop.bridge.store.run(lambda conn, goal=goal: actions.send_dry(conn, goal.id))
        for goal in shop.goals()
        if goal.name == name
    ]


def test_what_a_dry_rule_makes_is_kept_until_somebody_sends_it(shop):
    post(shop)
    goal = shop.goal("bought")
    assert (goal.state, goal.reason, goal.visitor) == ("dry", "rule", ALICE)
    assert goal.message == "made by a rule with `enabled: dry`: `goals send --rule bought` sends it"
    shop.later(HOUR)
    assert shop.sent() == []
    assert send(shop, "bought") == [RetryResult.QUEUED]
    assert send(shop, "bought") == [RetryResult.UNKNOWN]
    shop.work()
    assert shop.sent() == [("bought", ALICE)]
    assert shop.goal("bought").expires_at_ms == goal.expires_at_ms


def test_what_is_over_age_is_left_alone_unless_it_is_named(shop):
    post(shop)
    shop.later(3 * DAY)
    assert send(shop, "bought") == [RetryResult.OVER_AGE]
    assert shop.goal("bought").state == "dry"
    assert retried(shop, shop.goal("bought")) == RetryResult.QUEUED
    shop.work()
    assert shop.sent() == [("bought", ALICE)]


def test_a_visitor_who_was_not_known_yet_is_looked_for_when_it_is_sent(shop):
    post(shop, "upgraded", visitor=None, subscription="s1")
    assert (shop.goal("upgraded").state, shop.goal("upgraded").visitor) == ("dry", None)
    post(shop, "other", order="o2", subscription="s1")
    assert send(shop, "upgraded") == [RetryResult.LOOKED_FOR]
    shop.later(1_000)
    assert shop.sent() == [("upgraded", ALICE)]


def test_without_anything_that_could_lead_to_a_visitor_none_is_waited_for(shop):
    post(shop, "upgraded", visitor=None)
    assert send(shop, "upgraded") == [RetryResult.LOOKED_FOR]
    shop.later(1_000)
    assert states(shop, "upgraded") == ["unattributed"]


def test_a_visitor_who_comes_later_wakes_what_was_sent_meanwhile(shop):
    post(shop, "upgraded", visitor=None, subscription="s1")
    send(shop, "upgraded")
    shop.later(1_000)
    assert states(shop, "upgraded") == ["parked"]
    post(shop, "other", order="o2", subscription="s1")
    assert shop.sent() == [("upgraded", ALICE)]


def test_once_the_rule_is_on_an_event_that_is_routed_again_sends_nothing_of_its_own(shop, tmp_path):
    post(shop)
    (tmp_path / "shop.yaml").write_text(FILE.replace("enabled: dry", "enabled: true"))
    for _ in range(2):  # a file that is being written is not read
        shop.bridge._rulebook.poll()
    post(shop, id="told again")
    post(shop, order="o2")
    assert states(shop, "bought") == ["dry", "delivered"]
    assert shop.sent() == [("bought", ALICE)]


def test_a_goal_of_a_test_event_is_never_sent_by_hand(shop):
    post(shop, "upgraded", test=True)
    assert send(shop, "upgraded") == [RetryResult.UNKNOWN]
    assert retried(shop, shop.goal("upgraded")) == RetryResult.DRY
