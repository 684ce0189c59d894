"""A bare UUID in a borrowed field is a visitor when DataFast says so: asked about once, and remembered."""

from __future__ import annotations

import itertools
import threading

import pytest
from identity_kit import ALICE, BOB, CAROL, DAY, MINUTE, Rig, stripe_event
from sqlalchemy import select, update
from structlog.testing import capture_logs
from website import AWAY, Sending

from bridge.alarms import alarms
from bridge.model import Destination, Outcome, OutcomeKind, ProofClaim
from bridge.store import schema
from bridge.store.delivery import statements as delivery_statements
from bridge.store.goals import parking
from bridge.store.goals import statements as goal_statements
from bridge.store.links import statements
from bridge.store.operator import status

PLACE = "data.object.client_reference_id"


class Shop:
    """Routing and sending on one database."""

    def __init__(self, store, clock, **environ):
        self.clock = clock
        self.rig = Rig(store, clock, **environ)
        self.sending = Sending(store, clock, **environ)
        self.website = self.sending.website

    def sell(self, number, **fields):
        thing = {"object": "checkout.session", "id": f"cs_{number}", "payment_intent": f"pi_{number}"} | fields
        self.rig.route(stripe_event("checkout.session.completed", thing, at_s=self.clock.now_ms // 1000))

    def refund(self, number, **fields):
        thing = {"object": "charge", "id": f"ch_{number}", "payment_intent": f"pi_{number}", "amount_refunded": 1}
        self.rig.route(stripe_event("charge.refunded", thing | fields, at_s=self.clock.now_ms // 1000))

    def later(self, ms=5_000, *workers, nap_ms=0):
        self.sending.run_for(ms, *workers, nap_ms=nap_ms)
        self.rig.later(0)

    def goal(self, name):
        (found,) = [goal for goal in self.rig.goals() if goal.name == name]
        return found

    def proofs(self):
        with self.sending.store.read() as conn:
            return conn.execute(select(schema.visitor_proofs)).all()


@pytest.fixture
def shop(store, clock):
    return Shop(store, clock)


def test_it_waits_for_the_answer_and_goes_to_a_visitor_whom_the_website_knows(shop):
    shop.website.known.add(ALICE)
    shop.sell(1, client_reference_id=ALICE.upper())
    waits = shop.goal("purchase")
    assert (waits.state, waits.visitor, waits.reason, waits.to_prove) == ("parked", None, "unproved", ALICE)
    assert PLACE in waits.message
    shop.later()
    assert [(kind, who) for _, kind, who in shop.website.said] == [("GET", ALICE), ("POST", ALICE)]
    sold = shop.goal("purchase")
    assert (sold.state, sold.visitor, sold.attempts, sold.to_prove) == ("delivered", ALICE, 0, None)


def test_what_follows_the_purchase_finds_that_visitor_and_nobody_is_asked_twice(shop):
    shop.website.known.add(ALICE)
    shop.sell(1, client_reference_id=ALICE)
    shop.refund(1)
    shop.later()
    shop.sell(2, client_reference_id=ALICE)
    shop.later()
    assert {goal.visitor for goal in shop.rig.goals()} == {ALICE}
    assert shop.website.asked("GET") == [ALICE]


def test_one_whom_nobody_knows_is_no_visitor_and_the_goal_waits_for_a_link(shop):
    shop.sell(1, client_reference_id=BOB)
    shop.later(2 * MINUTE)
    goal = shop.goal("purchase")
    assert (goal.state, goal.visitor, goal.to_prove) == ("parked", None, None)
    assert f"DataFast does not know {BOB}" in goal.message
    assert shop.website.said[0][1:] == ("GET", BOB)
    assert len(shop.website.said) == 1
    shop.website.known.add(ALICE)
    shop.refund(1, metadata={"datafast_visitor_id": ALICE})
    shop.later()
    assert {goal.visitor for goal in shop.rig.goals()} == {ALICE}
    assert shop.sending.destination().unknown_visitors == "[]"


def test_a_stranger_with_no_key_beside_it_waits_for_the_user_of_this_id(shop):
    shop.rig.route(stripe_event("checkout.session.completed", {"client_reference_id": BOB, "object": "x"}))
    shop.later()
    goal = shop.goal("purchase")
    assert (goal.state, goal.reason) == ("parked", None)
    assert f"user {BOB}" in goal.message


def test_the_next_candidate_comes_after_a_no(shop):
    """The thread knows somebody; the borrowed id comes first, as it did before it had to be proved."""
    shop.website.known.add(CAROL)
    shop.refund(1, metadata={"datafast_visitor_id": CAROL})
    shop.sell(1, client_reference_id=BOB)
    assert shop.goal("purchase").to_prove == BOB
    shop.later()
    assert shop.goal("purchase").visitor == CAROL


def test_the_prefix_needs_no_proof_and_anything_else_is_the_apps_own(shop):
    shop.website.known.add(ALICE)
    shop.sell(1, client_reference_id=f"dfv_{ALICE}")
    shop.later(1_000)
    assert shop.goal("purchase").state == "delivered"
    shop.sell(2, client_reference_id="user_42")
    own = shop.rig.goals()[-1]
    assert (own.state, own.reason) == ("parked", None)
    assert "user user_42" in own.message
    assert shop.website.asked("GET") == []


def test_a_mapping_file_that_names_the_field_takes_it_as_it_is(store, clock):
    shop = Shop(store, clock)
    text = "provider: stripe\nvisitor: data.object.client_reference_id\ngoals:\n  - {goal: purchase, event: a.b}\n"
    shop.rig = Rig(store, clock, {"stripe.yaml": text})
    shop.rig.route(stripe_event("a.b", {"client_reference_id": ALICE, "object": "x"}))
    assert shop.goal("purchase").visitor == ALICE


@pytest.mark.parametrize(
    "failure", [AWAY, Outcome(OutcomeKind.UNCONFIRMED, 500), Outcome(OutcomeKind.CONFIGURATION, 403)]
)
def test_an_answer_that_does_not_tell_is_no_proof_and_is_asked_for_again(shop, failure):
    shop.website.failure = failure
    shop.website.known.add(ALICE)
    shop.sell(1, client_reference_id=ALICE)
    shop.later(5 * MINUTE, nap_ms=5_000)
    assert shop.goal("purchase").state == "parked"
    assert 2 <= len(shop.website.said) <= 8
    shop.website.failure = None
    shop.later(20 * MINUTE, nap_ms=MINUTE)
    assert shop.goal("purchase").state == "delivered"


def test_while_nothing_is_said_of_one_the_pauses_between_the_questions_grow(shop):
    shop.website.failure = AWAY
    shop.sell(1, client_reference_id=ALICE)
    shop.later(15 * MINUTE)
    asked_at = [at_ms for at_ms, *_ in shop.website.said]
    assert [then - at_ms for at_ms, then in itertools.pairwise(asked_at)] == [30_000, 2 * MINUTE, 10 * MINUTE]


def test_an_answer_that_comes_after_the_lease_changes_nothing(shop):
    """Another worker has asked by then."""
    ask = shop.website.visitor_goals

    def ask_slowly(destination, visitor):
        shop.website.visitor_goals = ask
        answer = ask(destination, visitor)
        shop.website.known.add(ALICE)
        shop.clock.advance(MINUTE)
        shop.sending.new_worker().step()
        return answer

    shop.website.visitor_goals = ask_slowly
    shop.sell(1, client_reference_id=ALICE)
    with capture_logs() as lines:
        shop.sending.worker.step()
    assert [line["outcome"] for line in lines if line["event"] == "proof"] == ["known", "lease_over"]
    assert ([proof.known for proof in shop.proofs()], shop.goal("purchase").visitor) == ([True], ALICE)


def test_a_refusal_is_a_no(shop):
    shop.website.failure = Outcome(OutcomeKind.REJECTED, 400, "a bot")
    shop.sell(1, client_reference_id=ALICE)
    shop.later()
    assert [proof.known for proof in shop.proofs()] == [False]


def test_two_workers_ask_once_and_a_vanished_one_is_followed_by_another(shop):
    shop.website.known.add(ALICE)
    for number in range(3):
        shop.sell(number, client_reference_id=ALICE)
    shop.later(10_000, shop.sending.new_worker(), shop.sending.new_worker())
    assert shop.website.asked("GET") == [ALICE]
    assert {goal.state for goal in shop.rig.goals()} == {"delivered"}


def test_an_answer_is_remembered_over_a_restart_and_forgotten_with_the_key(shop):
    shop.sell(1, client_reference_id=BOB)
    shop.later()
    shop.sending.worker = shop.sending.new_worker()
    shop.sell(2, client_reference_id=BOB)
    shop.later()
    assert shop.website.asked("GET") == [BOB]
    shop.sending.key = "df_2"
    shop.website.known.add(BOB)
    shop.later(1_000)
    shop.later(10_000)
    assert {goal.visitor for goal in shop.rig.goals()} == {BOB}


def test_a_known_sale_does_not_wait_for_those_that_have_to_be_proved(shop):
    shop.website.known.add(ALICE)
    for number in range(30):
        shop.sell(number, client_reference_id=f"00000000-0000-4000-8000-{number:012}")
    shop.sell(99, metadata={"datafast_visitor_id": ALICE})
    shop.later(3_000)
    assert shop.website.asked("POST") == [ALICE]
    assert len(shop.website.asked("GET")) >= 2


def test_a_rehearsal_asks_nobody(shop):
    thing = {"object": "checkout.session", "id": "cs_1", "client_reference_id": ALICE}
    shop.rig.route(stripe_event("checkout.session.completed", thing, live=False))
    shop.later()
    assert (shop.goal("purchase").state, shop.goal("purchase").visitor) == ("dry", None)
    assert shop.website.said == []


def test_a_wait_that_is_over_unproved_says_so(shop):
    shop.website.failure = AWAY
    shop.sell(1, client_reference_id=ALICE)
    shop.clock.advance(5 * DAY)
    shop.rig.later(0)
    goal = shop.goal("purchase")
    assert (goal.state, goal.to_prove) == ("unattributed", None)
    assert f"has not said in time whether it knows {ALICE}" in goal.message


def test_the_customer_answers_for_a_purchase_that_was_named_with_a_stranger_only(shop):
    """The app's own user id at the checkout must not keep the customer's visitor from what follows it."""
    shop.website.known.add(CAROL)
    shop.sell(1, client_reference_id=BOB, customer="cus_1")
    shop.later()
    shop.sell(2, customer="cus_1", metadata={"datafast_visitor_id": CAROL})
    shop.refund(1)
    shop.clock.advance(3 * MINUTE)
    shop.rig.later(0)
    assert shop.goal("refund").visitor == CAROL


def test_a_customer_met_later_wakes_what_follows_such_a_purchase(shop):
    shop.website.known.add(CAROL)
    shop.sell(1, client_reference_id=BOB)
    shop.later()
    shop.refund(1)
    shop.sell(2, customer="cus_1", metadata={"datafast_visitor_id": CAROL})
    shop.clock.advance(3 * MINUTE)
    shop.rig.later(0)
    assert shop.goal("refund").state == "parked"
    thing = {"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "customer": "cus_1"}
    shop.rig.route(stripe_event("charge.succeeded", thing, at_s=shop.clock.now_ms // 1000))
    assert shop.goal("refund").visitor == CAROL


def test_a_wait_that_is_over_unproved_takes_the_visitor_that_is_known_otherwise(shop):
    """A key that may send but not read proves nothing."""
    shop.website.failure = Outcome(OutcomeKind.CONFIGURATION, 403)
    shop.refund(1, metadata={"datafast_visitor_id": CAROL})
    shop.sell(1, client_reference_id=BOB)
    shop.clock.advance(5 * DAY)
    shop.rig.later(0)
    goal = shop.goal("purchase")
    assert (goal.state, goal.visitor, goal.to_prove) == ("pending", CAROL, None)


def test_a_new_key_asks_anew_about_a_stranger_of_the_purchase(shop):
    shop.sell(1, client_reference_id=BOB)
    shop.later()
    shop.refund(1)
    assert shop.goal("refund").provenance is None
    shop.sending.key = "df_2"
    shop.website.known.add(BOB)
    shop.later(1_000)
    shop.later(10_000)
    assert shop.goal("refund").visitor == BOB


def test_an_answer_that_comes_while_a_goal_turns_to_that_visitor_is_not_missed(shop):
    """On PostgreSQL both are transactions at once: one waits for the other."""
    shop.sell(1, metadata={"datafast_visitor_id": BOB}, client_reference_id=ALICE)
    store, now = shop.sending.store, shop.clock.now_ms
    asked = ProofClaim("default", ALICE, "t", probe=False)
    with store.write() as conn:
        conn.execute(update(schema.goals).values(unknown_visitor_tries=99))  # the next answer is the last
        goal_statements.ask_about(conn, [("default", ALICE)], now)
        delivery_statements.lease_proof(conn, asked, now + DAY)
    sender = threading.Thread(target=shop.sending.worker.step)
    with store.write() as conn:
        statements.lock(conn)
        delivery_statements.settle_proof(conn, asked, known=True, again_in_ms=0, message=None)
        parking.decide_proved(conn, "default", ALICE, shop.rig.settings)
        sender.start()
        sender.join(0.5)
    sender.join()
    goal = shop.goal("purchase")
    assert (goal.state, goal.visitor, goal.to_prove) == ("pending", ALICE, None)


def none_known(shop):
    with shop.sending.store.read() as conn:
        look = status.snapshot(conn, ["default"])
    found = alarms(look, None, {}, {"default": Destination("default", "df_1")})
    return [one for one in found if one.name == "none_known"]


def test_ten_strangers_of_a_borrowed_field_are_an_alarm_until_the_website_knows_one(shop):
    """A site that hands over nothing but bare UUIDs, and a key of another website."""
    strangers = [f"00000000-0000-4000-8000-{number:012}" for number in range(1, 11)]
    for number, stranger in enumerate(strangers[:9], 1):
        shop.sell(number, client_reference_id=stranger)
    shop.later(30_000)
    assert none_known(shop) == []
    shop.sell(10, client_reference_id=strangers[9])
    shop.later(30_000)
    (told,) = none_known(shop)
    assert "is this the key of the right website (DATAFAST_API_KEY)?" in told.detail
    assert {goal.state for goal in shop.rig.goals()} == {"parked"}
    shop.sending.key = "df_2"
    shop.website.known.update(strangers)
    shop.later(MINUTE)
    assert none_known(shop) == []
    shop.later(MINUTE)
    assert {goal.state for goal in shop.rig.goals()} == {"delivered"}


def test_one_whom_the_website_knows_ends_that_alarm_though_nothing_is_delivered(shop):
    for number in range(10):
        shop.sell(number, client_reference_id=f"00000000-0000-4000-8000-{number:012}")
    shop.later(30_000)
    assert none_known(shop) != []
    shop.website.known.add(ALICE)
    shop.website.refusal = Outcome(OutcomeKind.REJECTED, 400, "a bot")
    shop.sell(99, client_reference_id=ALICE)
    shop.later(30_000)
    assert none_known(shop) == []
    assert shop.sending.destination().last_success_at_ms is None


def test_answers_that_are_no_404_are_no_unknown_visitors(shop):
    shop.website.failure = Outcome(OutcomeKind.REJECTED, 400, "a bot")
    for number in range(12):
        shop.sell(number, client_reference_id=f"00000000-0000-4000-8000-{number:012}")
    shop.later(MINUTE)
    assert none_known(shop) == []


@pytest.mark.long
def test_strangers_of_a_borrowed_field_do_not_starve_a_known_visitor(shop):
    for number in range(200):
        shop.sell(number, client_reference_id=f"00000000-0000-4000-8000-{number:012}")
    shop.later(20_000)
    assert none_known(shop) != []
    shop.website.known.add(ALICE)
    shop.sell(999, metadata={"datafast_visitor_id": ALICE})
    shop.later(3_000)
    assert shop.website.asked("POST") == [ALICE]


def test_a_wrong_key_gives_up_no_goal_that_has_nothing_but_a_stranger(shop):
    shop.rig.route(stripe_event("checkout.session.completed", {"client_reference_id": BOB, "object": "x"}))
    shop.later()
    assert shop.goal("purchase").state == "parked"
    shop.sending.key = "df_2"
    shop.website.known.add(BOB)
    shop.later(1_000)
    shop.later(10_000)
    assert (shop.goal("purchase").state, shop.goal("purchase").visitor) == ("delivered", BOB)


def test_what_was_given_up_long_ago_stays_so_with_a_new_key(shop):
    shop.rig.route(stripe_event("checkout.session.completed", {"client_reference_id": BOB, "object": "x"}))
    shop.later()
    shop.clock.advance(8 * DAY)
    shop.sending.key = "df_2"
    shop.website.known.add(BOB)
    shop.later(1_000)
    shop.later(10_000)
    assert shop.goal("purchase").state == "unattributed"
