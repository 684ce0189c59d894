"""How many of the goals that can have a visitor have one, through what, and why the others have none."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from identity_kit import ALICE, BOB, MINUTE, SECRETS, STRIPE, Rig, stripe_event
from sqlalchemy import select

from bridge import identity
from bridge import settings as table
from bridge.alarms import alarms, attribution_sentence
from bridge.errors import SettingsError
from bridge.model import Destination
from bridge.store import schema
from bridge.store.goals import attribution, parking
from bridge.store.operator import status

REFERENCE = "data.object.client_reference_id"


class Shop:
    """Sells, and asks how it stands a quarter of an hour later."""

    def __init__(self, store, clock, files=None, **environ):
        self.rig = Rig(store, clock, files, **environ)
        self.store, self.clock = store, clock
        self.number = 0

    def happen(self, kind, times=1, live=True, **thing):
        for _ in range(times):
            self.number += 1
            body = {"object": "x", "id": f"x_{self.number}"} | thing
            self.rig.put(stripe_event(kind, body, at_s=self.clock.now_ms // 1000, live=live))
        self.rig.route_all()

    def sell(self, times=1, **thing):
        self.happen("checkout.session.completed", times, **thing)

    def found(self, source="stripe", ms=15 * MINUTE):
        self.clock.advance(ms)
        with self.store.read() as conn:
            found = attribution.read(conn, [source], self.clock.now_ms)
        return found[0] if found else None

    def alarm(self, share=0.5):
        """The sentence and the detail; None: all is well."""
        with self.store.write() as conn:  # what the inbox counts
            conn.exec_driver_sql("INSERT INTO source_counters (source) VALUES ('stripe') ON CONFLICT DO NOTHING")
        self.clock.advance(15 * MINUTE)
        with self.store.read() as conn:
            look = status.snapshot(conn, ["default"])
        told = alarms(look, None, self.rig.rules.sources, {"default": Destination("default", "df_1")}, share)
        return next(((one.sentence, one.detail) for one in told if one.name == "attribution"), None)


@pytest.fixture
def shop(store, clock):
    return Shop(store, clock)


def visitor(who):
    return {"metadata": {"datafast_visitor_id": who}}


def test_eight_purchases_without_a_visitor_are_an_alarm_with_the_likely_cause(shop):
    shop.sell(7)
    assert shop.alarm() is None
    shop.sell()
    sentence, detail = shop.alarm()
    assert sentence == "8 of the last 8 purchases of stripe named no visitor: is the visitor handed over at checkout?"
    assert detail.startswith(sentence)
    assert "(8 of the last 8): the places for the visitor id are empty (data.object.metadata." in detail
    assert "set metadata.datafast_visitor_id" in detail
    assert "`python -m bridge why goal_8`" in detail


TWO_GOALS = """
provider: stripe
goals:
  - {goal: purchase, event: checkout.session.completed}
  - {goal: bought_pro, event: checkout.session.completed}
"""


def test_a_purchase_that_makes_two_goals_is_one_purchase(store, clock):
    shop = Shop(store, clock, {"stripe.yaml": TWO_GOALS})
    shop.sell(4)
    assert (shop.found().goals, shop.alarm()) == (4, None)
    shop.sell(4)
    assert shop.alarm()[0].startswith("8 of the last 8 purchases")


def test_it_is_over_as_soon_as_half_of_them_have_one(shop):
    shop.sell(8)
    shop.sell(7, **visitor(ALICE))
    assert shop.alarm()[0].startswith("8 of the last 15 purchases")
    shop.sell(1, **visitor(ALICE))
    assert shop.alarm() is None


def test_two_of_eight_are_too_few_and_four_are_enough(shop):
    shop.sell(6)
    shop.sell(2, **visitor(ALICE))
    sentence = "6 of the last 8 purchases of stripe named no visitor: is the visitor handed over at checkout?"
    assert shop.alarm()[0] == sentence
    assert shop.alarm(share=0.25) is None
    assert shop.alarm(share=0.0) is None
    shop.sell(4, **visitor(ALICE))
    assert shop.alarm() is None


def test_only_the_last_twenty_count(shop):
    shop.sell(30)
    shop.sell(10, **visitor(ALICE))
    assert shop.found().goals == 20
    assert shop.alarm() is None


def test_renewals_refunds_and_the_like_are_counted_beside_and_never_an_alarm(shop):
    shop.happen("invoice.paid", 10, billing_reason="subscription_cycle")
    shop.happen("charge.refunded", 10, amount_refunded=1)
    shop.happen("customer.updated", 3)
    assert (shop.found().goals, shop.found().others) == (0, 23)
    assert shop.alarm() is None
    told = "no goal yet from an event that can hand over a visitor; 23 other goals of the last 30 days without one"
    assert attribution_sentence(shop.found()) == told


def test_the_first_invoice_of_a_subscription_can_have_one(shop):
    shop.happen("invoice.paid", 10, billing_reason="subscription_create")
    assert shop.found().goals == 10


def test_they_are_a_quarter_of_an_hour_old(shop):
    shop.sell(8)
    assert shop.found(ms=14 * MINUTE) is None
    assert shop.found(ms=MINUTE).goals == 8


@pytest.mark.parametrize("destinations", [("default",), ("default", "test")])
def test_those_of_a_test_never_count(store, clock, destinations):
    shop = Shop(store, clock)
    shop.rig = Rig(store, clock, destinations=destinations)
    shop.sell(10, live=False)
    assert len(shop.rig.goals()) == 10
    assert shop.found() is None


def test_through_what_they_found_it_is_told(shop):
    shop.sell(3, **visitor(ALICE))
    shop.sell(1, subscription="sub_1")
    shop.happen("charge.refunded", 1, amount_refunded=1, subscription="sub_1", **visitor(BOB))
    shop.sell(1, customer="cus_1")
    shop.happen("customer.updated", 1, customer="cus_1", **visitor(BOB))
    shop.sell(1, id="cs_77", object="checkout.session")
    with shop.store.write() as conn:
        key = identity.key(shop.rig.rules.sources["stripe"], "session", "cs_77")
        parking.bind(conn, key, BOB, shop.rig.settings)
    shop.rig.later(3 * MINUTE)
    shop.sell(1)
    found = shop.found()
    assert dict(found.through) == {"event": 3, "thread": 1, "customer": 1, "by-hand": 1}
    assert attribution_sentence(found).startswith(
        "6 of the last 7 purchases have a visitor (3 in the event itself, 1 through its purchase, 1 through its"
        " customer, 1 bound by hand)"
    )


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (visitor(ALICE), "the last purchase has a visitor (in the event itself)"),
        ({}, "the last purchase has no visitor"),
    ],
)
def test_of_one_it_is_told_in_the_singular(shop, named, told):
    shop.sell(1, **named)
    assert attribution_sentence(shop.found()) == told


def test_what_is_told_can_be_written_as_json(shop):
    """`/status` writes it for the owner."""
    shop.sell(2, **visitor(ALICE))
    assert json.loads(json.dumps(asdict(shop.found())))["through"] == {"event": 2}


def test_other_ids_in_the_field_are_named_as_the_cause_by_their_place_alone(shop):
    shop.sell(8, client_reference_id="user_42")
    _, detail = shop.alarm()
    assert f"{REFERENCE} holds something other than the visitor's id" in detail
    assert "user_42" not in detail


def test_visitors_whom_nobody_knows_are_named_as_the_cause(shop):
    """Bare UUIDs, of which DataFast has said that it does not know them; and one that waits to be asked about."""
    for number in range(8):
        shop.sell(1, client_reference_id=f"00000000-0000-4000-8000-{number:012}")
    _, detail = shop.alarm()
    assert f"DataFast does not know the visitor ids at {REFERENCE}" in detail
    assert "the key may be another website's" in detail


def test_one_that_was_never_known_to_the_end_is_no_visitor(shop):
    shop.sell(8, **visitor(ALICE))
    with shop.store.write() as conn:
        conn.execute(schema.goals.update().values(state="rejected", reason="unknown_visitor"))
    _, detail = shop.alarm()
    assert "DataFast does not know the visitor ids there" in detail


def test_what_was_forgotten_does_not_count(shop):
    shop.sell(8)
    with shop.store.write() as conn:
        conn.execute(schema.goals.update().values(reason="forgotten"))
    assert shop.found() is None


def test_a_file_says_its_own_events_and_what_they_are_called(store, clock):
    text = STRIPE + "  - {goal: any, event: 'a.*'}\nhandover: [{event: 'a.*', when: {data.object.new: true}}]\n"
    shop = Shop(store, clock, {"stripe.yaml": text})
    shop.sell(9)
    shop.happen("a.b", 8, new=True)
    shop.happen("a.b", 9, new=False)
    sentence, _ = shop.alarm()
    assert sentence == "8 of the last 8 goals of stripe named no visitor: is the visitor handed over?"
    shop.happen("a.c", 8, new=True, **visitor(ALICE))
    assert shop.alarm() is None


def test_of_a_source_without_a_file_nothing_is_told(shop):
    shop.sell(8)
    shop.rig.rules = replace(shop.rig.rules, sources={})
    assert shop.alarm() is None


@pytest.mark.parametrize(("text", "share"), [("off", 0.0), ("0.5", 0.5), (".25", 0.25), ("1", 1.0)])
def test_the_share_is_a_setting(text, share):
    assert table.load({"BRIDGE_ATTRIBUTION_ALARM": text}).bridge_attribution_alarm == share


@pytest.mark.parametrize("text", ["0", "0.0", "50%", "1.5", "-0.5", "on", "nan", "0.5x"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(SettingsError, match=r"BRIDGE_ATTRIBUTION_ALARM is .*a share above 0 and at most 1"):
        table.load({"BRIDGE_ATTRIBUTION_ALARM": text, **SECRETS})


def test_what_a_merged_goal_is_stays_what_its_first_event_was(shop):
    shop.sell(2, id="cs_1")
    with shop.store.read() as conn:
        assert conn.execute(select(schema.goals.c.handover)).scalars().all() == ["purchase"]
