"""Which questions follow from which keys, and what Stripe's objects teach."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_kit import ALICE, BOB, rule_set

from bridge.lookup import asking
from bridge.model import Key
from bridge.store.links.lookups import GoalToLookUp

NOW_MS = 1_790_000_000_000


def key(ref, mode="live"):
    kinds = {
        "sub": "subscription",
        "pi": "payment_intent",
        "ch": "charge",
        "in": "invoice",
        "cus": "customer",
        "cs": "session",
        "seti": "setup_intent",
    }
    return Key(f"stripe:{mode}:{ref}", kinds[ref.partition("_")[0]], ref)


def asked(own, event_type, thread=""):
    found = asking.questions([key(ref) for ref in own.split()], [key(ref) for ref in thread.split()], event_type)
    return [f"{question.key.id} {question.target}" for question in found]


@pytest.mark.parametrize(
    ("event_type", "own", "thread", "questions"),
    [
        ("invoice.paid", "in_1 sub_1 cus_1", "", ["sub_1 sessions", "sub_1 object", "cus_1 sessions"]),
        ("invoice.paid", "in_1 cus_1", "", ["cus_1 sessions"]),
        ("invoice.paid", "in_1 pi_1", "", ["pi_1 sessions", "pi_1 object"]),
        ("customer.subscription.deleted", "sub_1 cus_1", "", ["sub_1 sessions", "cus_1 sessions"]),
        ("charge.refunded", "ch_1 pi_1 cus_1", "", ["pi_1 sessions", "pi_1 invoices", "cus_1 sessions"]),
        ("charge.refunded", "ch_1 pi_1", "in_1 sub_1", ["sub_1 sessions", "sub_1 object"]),
        ("charge.refunded", "ch_1", "", []),
        ("charge.dispute.created", "ch_1", "", ["ch_1 object"]),
        ("charge.dispute.created", "ch_1", "pi_1", ["pi_1 sessions", "pi_1 invoices", "pi_1 object"]),
        ("charge.dispute.created", "ch_1 pi_1", "in_1", ["pi_1 sessions", "in_1 object", "pi_1 object"]),
        ("refund.created", "ch_1 pi_1", "", ["pi_1 sessions", "pi_1 invoices", "pi_1 object"]),
        ("payment_intent.succeeded", "pi_1 ch_1", "", ["pi_1 sessions", "pi_1 invoices"]),
        ("checkout.session.completed", "cs_1 pi_1 cus_1", "", ["pi_1 object", "cus_1 sessions"]),
        ("checkout.session.completed", "cs_1 sub_1", "", ["sub_1 object"]),
        ("credit_note.created", "in_1 cus_1", "", ["in_1 object", "cus_1 sessions"]),
        ("customer.updated", "cus_1", "", ["cus_1 sessions"]),
        ("setup_intent.succeeded", "seti_1", "", []),
    ],
)
def test_the_likeliest_question_comes_first_and_nothing_known_is_asked(event_type, own, thread, questions):
    assert asked(own, event_type, thread) == questions


def test_of_many_keys_of_a_kind_two_are_followed():
    own = " ".join(f"sub_{n}" for n in range(9))
    assert asked(own, "invoice.paid") == ["sub_0 sessions", "sub_1 sessions", "sub_0 object", "sub_1 object"]


@given(
    own=st.lists(st.sampled_from(["sub_1", "sub_2", "sub_3", "pi_1", "pi_2", "ch_1", "ch_2", "in_1", "cus_1", "cs_1"])),
    thread=st.lists(st.sampled_from(["sub_4", "pi_3", "in_2", "cs_2"])),
    event_type=st.sampled_from(["invoice.paid", "charge.refunded", "charge.dispute.created", "x"]),
)
def test_there_are_never_more_than_eight_and_none_twice(own, thread, event_type):
    found = asked(" ".join(dict.fromkeys(own)), event_type, " ".join(dict.fromkeys(thread)))
    assert len(found) == len(set(found)) <= asking.QUESTIONS_PER_GOAL


@pytest.mark.parametrize("ref", ["sub_1/../../v1/charges", "sub_1?limit=100", "sub_ä", "sub 1", ""])
def test_an_id_that_could_change_the_path_is_never_asked_for(ref):
    assert asking.questions([Key(f"stripe:live:{ref}", "subscription", ref)], [], "invoice.paid") == ()


def test_a_question_is_a_path_and_parameters():
    sessions, thing = asking.Question(key("sub_1"), "sessions"), asking.Question(key("ch_1"), "object")
    invoices, customer = asking.Question(key("pi_1"), "invoices"), asking.Question(key("cus_1"), "sessions")
    assert (sessions.path, dict(sessions.params)) == ("/v1/checkout/sessions", {"subscription": "sub_1", "limit": 5})
    assert (thing.path, thing.params, thing.permission) == ("/v1/charges/ch_1", {}, "charge")
    assert (invoices.path, invoices.permission) == ("/v1/invoice_payments", "invoice")
    assert customer.params == {"customer": "cus_1", "status": "complete", "limit": 20}


def test_every_question_needs_a_permission_that_is_documented():
    text = (Path(__file__).parents[3] / "docs/stripe-lookup.md").read_text()
    for permission, name in asking.PERMISSIONS.items():
        assert f"| {name} | `rak_{permission}_read` |" in text
    assert set(asking.LISTS) == set(asking.PERMISSIONS)


# ------------------------------------------------------------------------------------------------------- learning


def observed(objects, test=False, account=None):
    waiting = GoalToLookUp(3, "stripe", "stripe", account, test, 7, "invoice.paid", NOW_MS, None, NOW_MS, (), ())
    return asking.observations(rule_set().sources["stripe"], objects, waiting, "uuid4", NOW_MS)


def taught(*objects, test=False, account=None):
    found = observed(objects, test, account)
    return [({one.text for one in learning.keys}, learning.named and learning.named.visitor) for learning in found]


def test_a_session_teaches_what_its_event_would():
    session = {
        "id": "cs_1",
        "object": "checkout.session",
        "livemode": True,
        "subscription": {"id": "sub_1", "object": "subscription"},
        "customer": "cus_1",
        "metadata": {"datafast_visitor_id": ALICE},
    }
    assert taught(session) == [({"stripe:live:cs_1", "stripe:live:sub_1", "stripe:live:cus_1"}, ALICE)]
    assert taught(session, account="acct_1")[0][0] == {
        "stripe:acct_1:live:cs_1",
        "stripe:acct_1:live:sub_1",
        "stripe:acct_1:live:cus_1",
    }


def test_the_invoice_that_a_payment_brings_along_teaches_too():
    invoice = {
        "id": "in_1",
        "object": "invoice",
        "parent": {"subscription_details": {"subscription": "sub_1", "metadata": {"datafast_visitor_id": BOB}}},
    }
    payment = {"type": "payment_intent", "payment_intent": "pi_1"}
    found = taught({"id": "inpay_1", "object": "invoice_payment", "invoice": invoice, "payment": payment})
    assert found == [
        ({"stripe:live:in_1", "stripe:live:sub_1", "stripe:live:pi_1"}, None),
        ({"stripe:live:in_1", "stripe:live:sub_1"}, BOB),
    ]


@pytest.mark.parametrize(("livemode", "test"), [(True, True), (False, False)])
def test_an_object_of_the_other_mode_teaches_nothing(livemode, test):
    thing = {"id": "sub_1", "object": "subscription", "livemode": livemode, "metadata": {"datafast_visitor_id": ALICE}}
    assert taught(thing, test=test) == []


def test_an_objects_own_time_decides_among_visitors_and_one_in_the_future_is_now():
    def at(created):
        return observed([{"id": "sub_1", "object": "subscription", "created": created}])[0]

    assert at(1_780_000_000).at_ms == 1_780_000_000_000
    for odd in (NOW_MS, -1, 0, "1780000000", None, True, 1.5):
        assert at(odd).at_ms == NOW_MS


def test_every_object_is_an_element_of_its_own_beside_those_of_the_event():
    objects = [{"id": f"sub_{n}", "object": "subscription"} for n in range(1, 201)]
    elements = {one.element for one in observed(objects)}
    assert len(elements) == 200
    assert all(1_000_000 < element < 2**31 for element in elements)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "object", "metadata", "customer", "invoice", "created", "livemode", "payment", "lines"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["id", "object", "invoice", "metadata", "created"]), _JSON), max_size=3)
)
def test_whatever_comes_back_teaches_or_not_but_never_raises(objects):
    taught(*objects)


@pytest.mark.long
def test_the_step_imports_no_stripe_before_it_asks():
    code = "import sys, bridge.lookup, bridge.app, bridge.cli.doctor; print(json.dumps('stripe' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
