"""Whose a goal is: its event's own visitor, else its thread's, its customer's, a user's, an address's."""

from __future__ import annotations

import pytest
from identity_kit import ALICE, BOB

from bridge.identity.choice import Evidence, KnownLinks, Mention, Strangers, resolve
from bridge.model import Key, NamedVisitor

CAROL = "00000000-0000-4000-8000-0000000000c0"

CHARGE = Key("stripe:live:ch_1", "charge", "ch_1")
SESSION = Key("stripe:live:cs_1", "session", "cs_1")
CUSTOMER = Key("stripe:live:cus_1", "customer", "cus_1")
OTHER_CUSTOMER = Key("stripe:live:cus_2", "customer", "cus_2")
USER = Key("user:default:live:u_1", "user", "u_1")
COLLEAGUE = Key("user:default:live:u_2", "user", "u_2")
EMAIL = Key("email:default:live:abc", "email", "abc")


def website(*, unknown=(), asked=()):
    """What a destination said: whom it does not know, and about whom it has still to be asked."""
    known = {("default", visitor): True for visitor in (ALICE, BOB, CAROL) if visitor not in asked}
    return Strangers({("default", visitor): 50 for visitor in unknown}, known, 50)


def seen(key, visitor, at_ms=10, *, sure=True, borrowed=False):
    mention = Mention(at_ms, f"event at {at_ms}", at_ms)
    return {(key.text, visitor): Evidence(key.text, visitor, sure, mention, mention, borrowed)}


def links(*, thread=None, weak=(), strong=(CHARGE,), **more):
    """One thread `t` of these strong keys with this evidence; of each weak key, its visitor."""
    people = {key.text for key, _ in weak if key.is_person}
    return KnownLinks(
        threads={key.text: "t" for key in strong},
        by_thread={"t": thread or {}},
        by_customer={key.text: seen(key, visitor) for key, visitor in weak},
        **{"people": people, **more},
    )


def found(known, keys, own=(), said=None, **more):
    more = {"weak": True, "first": False, **more}
    return resolve("default", own, keys, 50, known, said or website(), **more)


def who(*args, **more):
    one = found(*args, **more)
    return one and (one.by, one.visitor)


EVERYBODY = links(thread=seen(CHARGE, BOB), weak=[(CUSTOMER, CAROL), (USER, ALICE), (EMAIL, BOB)])
ALL = (CHARGE, CUSTOMER, USER, EMAIL)


@pytest.mark.parametrize(
    ("own", "keys", "answer"),
    [
        ([NamedVisitor(ALICE, "a")], ALL, ("own", ALICE)),
        ([], ALL, ("thread", BOB)),
        ([], ALL[1:], ("customer", CAROL)),
        ([], ALL[2:], ("user", ALICE)),
        ([], ALL[3:], ("email", BOB)),
        ([], (), None),
    ],
)
def test_the_nearest_answer_counts(own, keys, answer):
    assert who(EVERYBODY, keys, own) == answer


def test_only_a_thread_answers_a_goal_that_asks_for_nothing_weak():
    assert who(EVERYBODY, ALL, weak=False) == ("thread", BOB)
    assert who(EVERYBODY, ALL[1:], weak=False) is None


@pytest.mark.parametrize("kinds", [("user",), ("email",), ()])
def test_only_the_kinds_of_people_that_may_answer_do(kinds):
    answers = {"user": ("user", ALICE), "email": ("email", BOB)}
    assert who(EVERYBODY, ALL[2:], people=kinds) == (answers[kinds[0]] if kinds else None)


def test_of_several_own_candidates_the_first_that_is_of_use_counts():
    own = [NamedVisitor(ALICE, "a"), NamedVisitor(BOB, "b"), NamedVisitor(CAROL, "c")]
    assert found(links(), (), own).others == tuple(own[1:])
    assert who(links(), (), own, without=ALICE) == ("own", BOB)
    assert who(links(), (), own, website(unknown={ALICE, BOB})) == ("own", CAROL)
    assert who(EVERYBODY, ALL, own[:1], website(unknown={ALICE, BOB})) == ("customer", CAROL)


def test_a_borrowed_value_that_is_the_users_id_names_no_visitor():
    user = Key(f"user:default:live:{ALICE}", "user", ALICE)
    own = [NamedVisitor(ALICE, "client_reference_id", borrowed=True)]
    known = links(people={user.text})
    assert who(known, [user], own) is None
    assert who(known, [user], [NamedVisitor(ALICE, "metadata.visitor")]) == ("own", ALICE)
    assert who(known, [USER], own) == ("own", ALICE)
    assert who(links(people={user.text}, mute={user.text}), [user], own) == ("own", ALICE)
    assert who(links(), [user], own) == ("own", ALICE)  # nobody has read it as a user's yet
    assert who(links(seen_with={"t": [user]}), [CHARGE], own) is None
    borrowed = links(thread=seen(CHARGE, ALICE, borrowed=True), seen_with={"t": [user]})
    assert who(borrowed, [CHARGE]) is None


def test_a_visitor_to_be_proved_is_waited_for_even_if_another_one_would_come_next():
    own, said = [NamedVisitor(ALICE, "a", borrowed=True)], website(asked={ALICE})
    waiting = found(EVERYBODY, ALL, own, said)
    assert (waiting.visitor, waiting.unproved) == (ALICE, True)
    given_up = found(EVERYBODY, ALL, own, said, proved=True)
    assert (given_up.by, given_up.visitor, given_up.unproved) == ("thread", BOB, False)


def test_people_and_their_visitors_stay_on_one_website():
    elsewhere = Key("user:eu:live:u_1", "user", "u_1")
    assert who(links(weak=[(elsewhere, ALICE)]), [elsewhere]) is None


# --------------------------------------------------------------------------------------------- customers of a thread


def test_the_customers_of_a_thread_answer_if_all_of_them_agree():
    both = {"t": [CUSTOMER, OTHER_CUSTOMER]}
    agreed = found(links(weak=[(CUSTOMER, ALICE), (OTHER_CUSTOMER, ALICE)], seen_with=both), [CHARGE])
    assert (agreed.by, agreed.visitor, agreed.ref, agreed.beside) == ("customer", ALICE, "cus_1", CHARGE.text)
    assert who(links(weak=[(CUSTOMER, ALICE), (OTHER_CUSTOMER, BOB)], seen_with=both), [CHARGE]) is None
    assert who(links(weak=[(CUSTOMER, ALICE)], seen_with=both), [CHARGE]) is None
    assert who(links(seen_with=both), [CHARGE]) is None


def test_the_customer_whom_the_event_names_comes_before_those_of_its_thread():
    known = links(weak=[(CUSTOMER, ALICE), (OTHER_CUSTOMER, BOB)], seen_with={"t": [CUSTOMER]})
    assert who(known, [CHARGE, OTHER_CUSTOMER]) == ("customer", BOB)


# -------------------------------------------------------------------------------------------------------- people


def test_several_users_of_an_event_must_agree_and_who_knows_nobody_has_no_say():
    assert who(links(weak=[(USER, ALICE), (COLLEAGUE, BOB), (EMAIL, CAROL)]), [USER, COLLEAGUE, EMAIL]) is None
    assert who(links(weak=[(USER, ALICE), (COLLEAGUE, ALICE)]), [USER, COLLEAGUE]) == ("user", ALICE)
    assert who(links(weak=[(USER, ALICE)], people={USER.text, COLLEAGUE.text}), [USER, COLLEAGUE]) == ("user", ALICE)


def test_a_person_whose_key_is_mute_leads_nowhere():
    assert who(links(weak=[(USER, ALICE)], mute={USER.text}), [USER]) is None
    assert who(links(weak=[(USER, ALICE), (EMAIL, BOB)], mute={USER.text}), [USER, EMAIL]) == ("email", BOB)
    known = links(weak=[(EMAIL, BOB)], people_of={USER.text: [EMAIL]}, mute={USER.text})
    assert who(known, [USER]) is None


def test_the_users_of_a_thread_are_told_with_the_key_that_leads_to_them():
    known = links(weak=[(USER, ALICE)], seen_with={"t": [USER]}, strong=(CHARGE, SESSION))
    one = found(known, [CHARGE, SESSION])
    assert (one.by, one.visitor, one.ref, one.beside) == ("user", ALICE, "u_1", SESSION.text)
    assert found(known, [CHARGE]).beside == CHARGE.text


def test_the_user_whom_the_event_names_comes_before_the_one_of_its_thread():
    known = links(weak=[(USER, ALICE), (COLLEAGUE, BOB)], seen_with={"t": [USER]})
    assert who(known, [CHARGE, COLLEAGUE]) == ("user", BOB)


def test_the_users_of_a_customer_answer_unless_the_event_names_one_of_its_own():
    known = links(weak=[(COLLEAGUE, BOB)], people_of={CUSTOMER.text: [COLLEAGUE]}, people={USER.text, COLLEAGUE.text})
    one = found(known, [CUSTOMER])
    assert (one.by, one.visitor, one.beside) == ("user", BOB, CUSTOMER.text)
    assert who(known, [CUSTOMER, USER]) is None
    assert who(known, [CUSTOMER, OTHER_CUSTOMER]) is None  # whose user it is, nobody knows
    of_thread = links(weak=[(USER, ALICE)], seen_with={"t": [CUSTOMER]}, people_of={CUSTOMER.text: [USER]})
    assert who(of_thread, [CHARGE]) == ("user", ALICE)


def test_the_address_of_a_customer_answers_though_the_event_names_a_user():
    known = links(weak=[(EMAIL, BOB)], people_of={CUSTOMER.text: [EMAIL]}, people={USER.text, EMAIL.text})
    assert who(known, [CUSTOMER, USER]) == ("email", BOB)


def test_a_user_who_knows_nobody_is_found_by_the_address_that_was_named_with_the_user():
    known = links(weak=[(EMAIL, BOB)], people_of={USER.text: [EMAIL]}, people={USER.text, EMAIL.text})
    one = found(known, [USER])
    assert (one.by, one.visitor, one.beside) == ("email", BOB, USER.text)
    assert who(known, [USER], people=("email",)) is None  # the user must not lead there


# ------------------------------------------------------------------------------------------------ how it is told


def test_the_key_with_which_the_visitor_was_named_is_told_if_the_goal_has_it():
    thread = {
        **seen(CHARGE, ALICE, 10),
        ("cs", ALICE): Evidence(SESSION.text, ALICE, True, *[Mention(20, "e", 20)] * 2),
    }
    known = links(thread=thread, strong=(CHARGE, SESSION))
    near, far = found(known, [CHARGE, SESSION]), found(known, [CHARGE])
    assert (near.key, near.via) == (SESSION.text, None)
    assert (far.key, far.via, far.event_id, far.before_ms) == (CHARGE.text, SESSION.text, 20, 30)


def test_when_a_person_was_seen_is_told_and_of_a_purchase_only_how_long_before():
    assert found(links(weak=[(USER, ALICE)]), [USER]).at_ms == 10
    assert found(links(thread=seen(CHARGE, ALICE)), [CHARGE]).at_ms is None


@pytest.mark.parametrize(
    ("keys", "visitors"),
    [
        ([CHARGE], {BOB, CAROL, ALICE}),  # its own, its customer's, and the customer's user's
        ([CUSTOMER], {CAROL, ALICE}),
        ([USER], {ALICE}),
        ([SESSION], set()),
    ],
)
def test_everything_that_keys_could_lead_to_is_listed(keys, visitors):
    known = links(
        thread=seen(CHARGE, BOB),
        weak=[(CUSTOMER, CAROL), (USER, ALICE)],
        seen_with={"t": [CUSTOMER]},
        people_of={CUSTOMER.text: [USER]},
    )
    assert {item.visitor for item in known.evidence(keys)} == visitors
