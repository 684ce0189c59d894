"""People across tools: who signed up at one of them is found at another, in any order, and nobody else is."""

from __future__ import annotations

import itertools
import json
import random

import people_corpus
import pytest
from identity_kit import ALICE, BOB, DAY, MINUTE, Rig, stripe_event
from sqlalchemy import select

from bridge.identity import sentences
from bridge.identity.choice import FoundVisitor
from bridge.store import facts, schema

FILES = {
    "stripe.yaml": "provider: stripe\ngoals:\n"
    "  - {goal: purchase, event: checkout.session.completed, once_per: data.object.id}\n"
    "  - {goal: paid, event: invoice.paid, once_per: data.object.id}\n"
    "  - {goal: refund, event: charge.refunded, once_per: data.object.id}\n",
    "clerk.yaml": "provider: clerk\ngoals:\n  - {goal: sign_up, event: user.created, once_per: data.id}\n",
    "tally.yaml": "provider: tally\ngoals:\n  - {goal: lead, event: FORM_RESPONSE, once_per: data.responseId}\n",
    "crm.yaml": "provider: custom\nverify: {type: token, signature: {in: 'header:x'}}\nenvelope: {type: type, id: id}\n"
    "visitor: visitor\nlinks: {user: person}\ngoals:\n  - {goal: call, event: call, once_per: id}\n",
    "shop.yaml": "provider: stripe\nsecret: whsec_shop\ndatafast: {name: other, api_key: df_other}\ngoals:\n"
    "  - {goal: bought, event: checkout.session.completed, once_per: data.object.id}\n",
}
AT_S = 1_789_990_000


@pytest.fixture
def rig(store, clock):
    return Rig(store, clock, FILES, destinations=("default", "other"))


@pytest.fixture
def quick(sqlite_store, clock):
    return Rig(sqlite_store, clock, FILES, destinations=("default", "other"))


def sign_up(user="user_abc", visitor=ALICE, mail="ann@example.com", at_s=AT_S - 86_400 * 30):
    given = {"datafast_visitor_id": visitor} if visitor else {}
    data = {"id": user, "unsafe_metadata": given, "email_addresses": [{"email_address": mail}]}
    return "clerk", {"type": "user.created", "timestamp": at_s * 1000, "data": data}


def form(visitor=ALICE, mail="ann@example.com", number="r1"):
    fields = [
        {"type": "INPUT_EMAIL", "label": "Mail", "value": mail},
        {"type": "HIDDEN_FIELDS", "label": "datafast_visitor_id", "value": visitor},
    ]
    return "tally", {"eventType": "FORM_RESPONSE", "data": {"responseId": number, "fields": fields}}


def checkout(number=1, visitor=None, *, user=None, customer="cus_1", source="stripe", live=True, **fields):
    metadata = {"datafast_visitor_id": visitor} if visitor else {}
    thing = {"object": "checkout.session", "id": f"cs_{number}", "customer": customer, "client_reference_id": user}
    thing |= {"payment_intent": f"pi_{number}", "subscription": f"sub_{number}"} | fields
    thing["metadata"] = metadata | fields.get("metadata", {})
    return source, stripe_event("checkout.session.completed", thing, at_s=AT_S, live=live)


def renewal(number=1):
    thing = {"object": "invoice", "id": f"in_{number}", "subscription": f"sub_{number}", "charge": f"ch_{number}"}
    return "stripe", stripe_event("invoice.paid", thing, at_s=AT_S + 100)


def refund(number=1):
    thing = {"object": "charge", "id": f"ch_{number}", "payment_intent": f"pi_{number}"}
    return "stripe", stripe_event("charge.refunded", thing, at_s=AT_S + 200)


def customer(number="cus_1", **metadata):
    thing = {"object": "customer", "id": number, "metadata": metadata}
    return "stripe", stripe_event("customer.created", thing, at_s=AT_S - 100)


def play(rig, *events, at_once=False):
    for source, body in events:
        rig.route(body, source=source) if not at_once else rig.put(body, source)
    rig.route_all()
    rig.later(3 * MINUTE)


def found(rig, name):
    (goal,) = [goal for goal in rig.goals() if goal.name == name]
    return goal.visitor


# ------------------------------------------------------------------------------------------------------- any order


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_sign_up_at_clerk_finds_the_sale_at_stripe_in_any_order(quick, order):
    told = [sign_up(), checkout(user="user_abc"), renewal(), refund()]
    play(quick, *(told[place] for place in order))
    assert {(goal.name, goal.visitor) for goal in quick.goals()} == {
        ("sign_up", ALICE),
        ("purchase", ALICE),
        ("paid", ALICE),
        ("refund", ALICE),
    }


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_id_on_the_customer_is_enough(quick, order, at_once):
    told = [sign_up(), checkout(), customer(supabase_user_id="user_abc")]
    play(quick, *(told[place] for place in order), at_once=at_once)
    assert found(quick, "purchase") == ALICE


@pytest.mark.parametrize(
    "told", list(itertools.permutations([sign_up(), checkout(user="user_abc")])), ids=["first", "last"]
)
def test_a_user_of_whom_one_event_of_a_batch_is_sure_is_a_user(quick, told):
    play(quick, *told, at_once=True)
    assert found(quick, "purchase") == ALICE


def through_an_address():
    """The customer of a checkout is a user, who signed up with the address of a form; it alone has the visitor."""
    known = [form(), sign_up(visitor=None), customer(userId="user_abc")]
    return [*known, refund(), renewal(), checkout(user=None)]


@pytest.mark.parametrize("seed", range(12))
def test_what_waits_is_woken_by_whatever_closes_the_way_to_its_visitor(sqlite_store, clock, seed):
    rig = Rig(sqlite_store, clock, FILES, destinations=("default", "other"), BRIDGE_MATCH_EMAIL="on")
    told = through_an_address()
    order = list(range(len(told)))
    if seed:  # in the order of 0 only the checkout, which comes last, tells whose refund it was
        random.Random(seed).shuffle(order)
    for place in order:
        play(rig, told[place])
        rig.later(10 * MINUTE)
    assert {(goal.name, goal.visitor) for goal in rig.goals()} == {
        (name, ALICE) for name in ("lead", "sign_up", "purchase", "paid", "refund")
    }, order


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_waited_is_woken_after_days(rig, order):
    told = [sign_up(), checkout(), customer(userId="user_abc")]
    for place in order:
        play(rig, told[place])
        rig.later(DAY // 4)
    assert found(rig, "purchase") == ALICE


def test_it_is_said_how_the_visitor_was_found(rig):
    play(rig, sign_up(at_s=1_777_800_000), checkout(user="user_abc"))
    (goal,) = [goal for goal in rig.goals() if goal.name == "purchase"]
    provenance = FoundVisitor.from_json(json.loads(goal.provenance))
    assert sentences.provenance(provenance) == "via user user_abc, learned from Clerk user.created, 3 May"
    assert provenance.by == "user"


# ----------------------------------------------------------------------------------------------------- precedence


def test_the_customer_comes_before_the_user_and_the_thread_before_both(quick):
    play(quick, sign_up(visitor=ALICE), checkout(2, BOB), checkout(1, user="user_abc"))
    assert {goal.once_key.rpartition(":")[2]: goal.visitor for goal in quick.goals() if goal.name == "purchase"} == {
        "cs_2": BOB,
        "cs_1": BOB,
    }


def test_the_user_comes_before_the_address(sqlite_store, clock):
    rig = Rig(sqlite_store, clock, FILES, BRIDGE_MATCH_EMAIL="on")
    play(
        rig,
        form(BOB, "ann@example.com"),
        sign_up(visitor=ALICE, mail="other@example.com"),
        checkout(user="user_abc", customer_details={"email": " Ann@Example.com"}),
    )
    assert found(rig, "purchase") == ALICE


@pytest.mark.parametrize(("which", "visitor"), [("first", ALICE), ("latest", BOB)])
def test_the_first_or_the_latest_visitor_of_a_user_counts(sqlite_store, clock, which, visitor):
    rig = Rig(sqlite_store, clock, FILES, BRIDGE_CUSTOMER_VISITOR=which)
    later = sign_up(visitor=BOB, at_s=AT_S - 100)
    later[1]["type"] = "user.updated"
    play(rig, later, sign_up(visitor=ALICE), checkout(user="user_abc"))
    assert found(rig, "purchase") == visitor


@pytest.mark.parametrize(("which", "visitor"), [("first", ALICE), ("latest", BOB)])
def test_the_first_or_the_latest_visitor_of_an_address_counts(sqlite_store, clock, which, visitor):
    rig = Rig(sqlite_store, clock, FILES, BRIDGE_CUSTOMER_VISITOR=which, BRIDGE_MATCH_EMAIL="on")
    play(rig, sign_up("user_2", BOB, at_s=AT_S - 100), sign_up("user_1", ALICE))
    play(rig, checkout(customer_details={"email": "ann@example.com"}))
    assert found(rig, "purchase") == visitor


def test_users_who_disagree_say_nothing(quick):
    play(quick, sign_up(visitor=ALICE), sign_up("user_xyz", BOB))
    play(quick, checkout(user="user_abc", metadata={"userId": "user_xyz"}))
    assert found(quick, "purchase") is None


# ------------------------------------------------------------------------------------------------ nobody else's


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_colleague_of_the_same_customer_is_not_found_by_the_other_users_sign_up(quick, order):
    told = [
        sign_up("user_ann"),
        checkout(1, user=None, metadata={"userId": "user_ann"}),
        checkout(2, user=None, metadata={"userId": "user_bob"}),
    ]
    play(quick, *(told[place] for place in order))
    assert {goal.once_key.rpartition(":")[2]: goal.visitor for goal in quick.goals() if goal.name == "purchase"} == {
        "cs_1": ALICE,
        "cs_2": None,
    }


def test_two_websites_never_mix(quick):
    play(quick, sign_up(), checkout(user="user_abc", source="shop"))
    assert found(quick, "bought") is None


def test_a_test_event_reads_live_users_and_teaches_none(store, clock):
    rig = Rig(store, clock, FILES, destinations=("default", "test"))
    play(rig, checkout(1, user="user_abc", live=False), sign_up())
    assert found(rig, "purchase") == ALICE
    play(rig, checkout(2, BOB, live=False, metadata={"userId": "user_new"}))
    play(rig, checkout(3, customer="cus_3", metadata={"userId": "user_new"}))
    assert {goal.once_key.rpartition(":")[2]: goal.visitor for goal in rig.goals()}["cs_3"] is None


def test_a_reference_counts_once_somebody_names_it_as_a_user(rig):
    play(rig, checkout(1, ALICE, user="abc-1"), checkout(2, user="abc-1", customer="cus_2"))
    assert {goal.visitor for goal in rig.goals()} == {ALICE, None}
    play(rig, customer("cus_3", userId="abc-1"))
    assert {goal.visitor for goal in rig.goals()} == {ALICE}


@pytest.mark.parametrize("at_once", [False, True])
def test_an_id_of_more_than_three_customers_stops(rig, at_once):
    play(rig, sign_up("demo-team", visitor=ALICE))
    play(rig, *(customer(f"cus_{n}", userId="demo-team") for n in range(4)), at_once=at_once)
    play(rig, checkout(9, customer="cus_9", user="demo-team"))
    assert found(rig, "purchase") is None
    (row,) = rig.rows(schema.link_keys, schema.link_keys.c.kind == "user")
    assert "more than three customers of stripe" in row.stopped_reason


@pytest.mark.parametrize("guests", [3, 4])
def test_an_id_of_more_than_three_guests_stops(store, clock, guests):
    """A guest has no customer, but an address."""
    rig = Rig(store, clock, FILES, BRIDGE_MATCH_EMAIL="on")
    bought = {"customer": None, "metadata": {"userId": "demo-team"}}
    mails = [{"email": f"ann{number % guests}@mail.example"} for number in range(5)]
    play(rig, sign_up("demo-team", visitor=ALICE))
    play(rig, *(checkout(n, customer_details=mail, **bought) for n, mail in enumerate(mails)), at_once=guests == 4)
    play(rig, checkout(9, **bought))
    stopped = [row.stopped_reason or "" for row in rig.rows(schema.link_keys, schema.link_keys.c.kind == "user")]
    assert ["more than three e-mail addresses of guests" in reason for reason in stopped] == [guests == 4]
    assert (rig.goals()[-1].visitor is None) is (guests == 4)


def test_three_customers_of_one_user_are_still_one_person(rig):
    play(rig, sign_up(), *(customer(f"cus_{n}", userId="user_abc") for n in range(2)))
    play(rig, checkout(9, customer="cus_9", user="user_abc"))
    assert found(rig, "purchase") == ALICE


def test_a_number_crosses_only_where_a_file_names_its_path(quick):
    play(quick, ("crm", {"type": "call", "id": "1", "person": 42, "visitor": ALICE}))
    play(quick, checkout(1, metadata={"userId": "42"}))
    assert found(quick, "purchase") is None
    play(quick, ("crm", {"type": "call", "id": "2", "person": "42"}))
    assert {goal.visitor for goal in quick.goals() if goal.name == "call"} == {ALICE}


def test_a_uuid_that_a_user_has_is_nobody_elses_visitor(quick):
    user = "3c5c7b33-2f8c-4e85-8b9a-9af9c2d8e123"
    play(quick, sign_up(user), checkout(user=user.upper()))
    assert found(quick, "purchase") == ALICE
    assert quick.rows(schema.visitor_proofs) == []


def test_switched_off_nothing_is_shared(sqlite_store, clock):
    rig = Rig(sqlite_store, clock, FILES, BRIDGE_MATCH_USER="off")
    play(rig, sign_up(), checkout(user="user_abc"))
    assert found(rig, "purchase") is None
    assert rig.rows(schema.link_keys, schema.link_keys.c.kind == "user") == []


# --------------------------------------------------------------------------------------------------------- e-mail


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_address_finds_the_visitor_and_is_nowhere_in_clear(store, clock, order):
    rig = Rig(store, clock, FILES, BRIDGE_MATCH_EMAIL="on")
    told = [form(mail="  Canary@Example.COM "), checkout(customer_details={"email": "canary@example.com"})]
    play(rig, *(told[place] for place in order))
    assert found(rig, "purchase") == ALICE
    with rig.store.read() as conn:
        for table in schema.metadata.sorted_tables:
            for row in conn.execute(select(*(column for column in table.c if column.name != "body"))):
                assert "canary@" not in repr(row).lower(), table.name
        assert len(facts.get(conn, facts.EMAIL_KEY)) >= 32


def test_by_default_an_address_links_nothing(quick):
    play(quick, form(), checkout(customer_details={"email": "ann@example.com"}))
    assert found(quick, "purchase") is None
    with quick.store.read() as conn:
        assert facts.get(conn, facts.EMAIL_KEY) is None


# --------------------------------------------------------------------------------------------------------- corpus


def test_the_corpus_finds_most_checkouts_and_never_a_wrong_visitor(sqlite_store, clock):
    off = people_corpus.play(sqlite_store, clock, 1, by_email=False)
    assert [case.name for case, visitors in off if people_corpus.wrong(case, visitors)] == []
    buyers = [people_corpus.right(*one) for one in off if one[0].visitor]
    assert len(buyers) == 60
    assert len(off) - len(buyers) == 20
    assert sum(buyers) >= 45
    written = [line.split("  ") for line in people_corpus.TABLE.read_text().splitlines()[1:-2]]
    said = ["right" if people_corpus.right(*one) else "-" for one in off]
    assert [next(word for word in line[1:] if word).strip() for line in written] == said


def test_the_corpus_finds_more_by_address_and_never_a_wrong_visitor(sqlite_store, clock):
    on = people_corpus.play(sqlite_store, clock, 2, by_email=True)
    assert [case.name for case, visitors in on if people_corpus.wrong(case, visitors)] == []
    assert sum(people_corpus.right(*one) for one in on if one[0].visitor) >= 51
