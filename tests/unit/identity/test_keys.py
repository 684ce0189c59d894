"""Which keys an event names: their names, and for Stripe every shape since 2014."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_kit import ALICE, rule_set, stripe_event

from bridge import identity
from bridge.identity import people
from bridge.identity.keys import BadBinding, binding, linking_types
from bridge.model import Document, Envelope, LinkSpec, PersonSpec, Source, VerifySpec
from bridge.rules import compile_path

RULES = rule_set(
    {
        "stripe.yaml": "provider: stripe\ngoals: [{goal: x, event: '*'}]",
        "lemonsqueezy.yaml": "provider: lemonsqueezy\ngoals: [{goal: x, event: '*'}]",
    }
)
STRIPE, LEMONS = RULES.sources["stripe"], RULES.sources["lemonsqueezy"]


def names(event_type, thing, source=STRIPE, **envelope):
    body = stripe_event(event_type, thing)
    found = identity.keys(source, Envelope(event_type, **envelope), Document(body))
    return {key.kind: key.id for key in found}


def texts(event_type, thing, **envelope):
    body = stripe_event(event_type, thing)
    return [key.text for key in identity.keys(STRIPE, Envelope(event_type, **envelope), Document(body))]


# ------------------------------------------------------------------------------------------------------- naming


def test_a_name_carries_provider_account_and_mode():
    charge = {"object": "charge", "id": "ch_1"}
    assert texts("charge.succeeded", charge) == ["stripe:live:ch_1"]
    assert texts("charge.succeeded", charge, test=True) == ["stripe:test:ch_1"]
    assert texts("charge.succeeded", charge, account="acct_1") == ["stripe:acct_1:live:ch_1"]


def test_a_file_of_another_name_has_the_same_keys_where_the_preset_has_links():
    other = rule_set({"shop.yaml": "provider: stripe\nsecret: whsec_1\ngoals: [{goal: x, event: '*'}]"}).sources["shop"]
    assert identity.key(other, "charge", "ch_1").text == "stripe:live:ch_1"


def test_numbers_of_different_things_are_different_keys():
    order, subscription = identity.key(LEMONS, "order", 1), identity.key(LEMONS, "subscription", "1")
    assert order.text == "lemonsqueezy:live:order:1"
    assert subscription.text == "lemonsqueezy:live:subscription:1"


def test_a_source_without_built_in_links_names_keys_after_itself():
    mine = Source("mine", "custom", VerifySpec("token"), links=(LinkSpec("order", (compile_path("order"),)),))
    (key,) = identity.keys(mine, Envelope("sale"), Document({"order": 7}))
    assert (key.text, key.strong) == ("mine:live:order:7", True)


def test_a_link_is_for_the_types_that_its_globs_match():
    spec = LinkSpec("order", (compile_path("id"),), events=("order_*", "ref?nd"))
    mine = Source("mine", "custom", VerifySpec("token"), links=(spec,))
    for event_type, found in (("order_created", 1), ("refund", 1), ("reffund", 0), ("created.order_", 0)):
        assert len(identity.keys(mine, Envelope(event_type), Document({"id": "7"}))) == found


def test_a_link_of_another_sender_may_be_where_stripe_has_one():
    spec = LinkSpec("charge", (compile_path("data.object.charge"),))
    mine = Source("mine", "custom", VerifySpec("token"), links=(spec,))
    (key,) = identity.keys(mine, Envelope("sale"), Document({"data": {"object": {"charge": "ch_1"}}}))
    assert key.text == "mine:live:charge:ch_1"


def test_each_of_several_paths_and_each_of_a_list_is_a_key():
    spec = LinkSpec("order", (compile_path("a"), compile_path("b")))
    mine = Source("mine", "custom", VerifySpec("token"), links=(spec,))
    found = identity.keys(mine, Envelope("x"), Document({"a": ["1", 2], "b": "3"}))
    assert [key.id for key in found] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "value", ["", "  ", None, True, False, 1.5, {}, [], "None", "null", "in_00000000000000", "0", "a\x00b", "x" * 201]
)
def test_what_is_no_id_is_no_key(value):
    assert identity.key(STRIPE, "invoice", value) is None


@pytest.mark.parametrize("value", [-1, "Guest", "anonymous"])
def test_who_buys_without_an_account_is_no_customer(value):
    assert identity.key(LEMONS, "customer", value) is None
    assert identity.key(LEMONS, "order", value).id == str(value)


def test_only_customers_are_weak():
    found = identity.keys(
        STRIPE,
        Envelope("invoice.paid"),
        Document(stripe_event("invoice.paid", {"object": "invoice", "id": "in_1", "customer": "cus_1"})),
    )
    assert {key.kind: key.strong for key in found} == {"invoice": True, "customer": False}
    assert identity.by_kind(found) == {"invoice": "in_1", "customer": "cus_1"}


# ------------------------------------------------------------------------------------------------ Stripe's shapes

SESSION = {
    "object": "checkout.session",
    "id": "cs_1",
    "customer": "cus_1",
    "subscription": "sub_1",
    "invoice": "in_1",
    "payment_intent": None,
    "setup_intent": "seti_1",
    "payment_link": "plink_1",
}


def test_a_session_names_all_of_its_purchase_but_never_the_payment_link():
    assert names("checkout.session.completed", SESSION) == {
        "session": "cs_1",
        "subscription": "sub_1",
        "invoice": "in_1",
        "setup_intent": "seti_1",
        "customer": "cus_1",
    }


@pytest.mark.parametrize(
    "shape",
    [
        {"parent": {"subscription_details": {"subscription": "sub_1", "metadata": None}}},
        {"parent": None, "subscription": "sub_1"},
        {"subscription_details": {"subscription": "sub_1", "metadata": None}},
        {"lines": {"data": [{"parent": {"subscription_item_details": {"subscription": "sub_1"}}}]}},
        {"lines": {"data": [{"subscription": "sub_1"}]}},
        {"lines": {"data": [{"parent": {"invoice_item_details": {"subscription": "sub_1"}}}]}},
        {"lines": {"data": [{"id": "sub_1", "type": "subscription"}]}},
        {"subscription": {"id": "sub_1", "object": "subscription", "customer": None}},
    ],
)
def test_an_invoice_names_its_subscription_in_every_version(shape):
    assert names("invoice.paid", {"object": "invoice", "id": "in_1", **shape}) == {
        "invoice": "in_1",
        "subscription": "sub_1",
    }


def test_a_line_whose_id_is_its_own_names_no_subscription():
    lines = {"data": [{"id": "il_1", "type": "invoiceitem"}]}
    assert names("invoice.paid", {"object": "invoice", "id": "in_1", "lines": lines}) == {"invoice": "in_1"}


def test_an_invoice_of_many_lines_names_the_subscription_of_each():
    lines = {"data": [{"subscription": "sub_1"}, {"subscription": None}, {"subscription": "sub_2"}]}
    assert texts("invoice.paid", {"object": "invoice", "parent": None, "lines": lines}) == [
        "stripe:live:sub_1",
        "stripe:live:sub_2",
    ]


@pytest.mark.parametrize(
    "shape",
    [
        {"payment_intent": "pi_1", "charge": "ch_1"},
        {"payments": {"data": [{"payment": {"payment_intent": "pi_1", "charge": "ch_1"}}]}},
        {"payment_intent": {"object": "payment_intent", "id": "pi_1", "latest_charge": "ch_1"}},
    ],
)
def test_an_invoice_names_its_payment_in_every_version(shape):
    found = names("invoice.paid", {"object": "invoice", "id": "in_1", **shape})
    assert (found["payment_intent"], found["charge"]) == ("pi_1", "ch_1")


@pytest.mark.parametrize(
    ("event_type", "thing", "found"),
    [
        (
            "invoice_payment.paid",
            {"object": "invoice_payment", "id": "inpay_1", "invoice": "in_1", "payment": {"payment_intent": "pi_1"}},
            {"invoice": "in_1", "payment_intent": "pi_1"},
        ),
        (
            "payment_intent.succeeded",
            {"object": "payment_intent", "id": "pi_1", "latest_charge": "ch_1", "customer": "cus_1", "metadata": {}},
            {"payment_intent": "pi_1", "charge": "ch_1", "customer": "cus_1"},
        ),
        (
            "payment_intent.succeeded",
            {"object": "payment_intent", "id": "pi_1", "charges": {"data": [{"id": "ch_1", "object": "charge"}]}},
            {"payment_intent": "pi_1", "charge": "ch_1"},
        ),
        (
            "charge.refunded",
            {"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "invoice": "in_1", "customer": "cus_1"},
            {"charge": "ch_1", "payment_intent": "pi_1", "invoice": "in_1", "customer": "cus_1"},
        ),
        ("refund.created", {"object": "refund", "id": "re_1", "charge": "ch_1"}, {"charge": "ch_1"}),
        ("charge.dispute.created", {"object": "dispute", "id": "dp_1", "charge": "ch_1"}, {"charge": "ch_1"}),
        (
            "charge.dispute.created",
            {"object": "dispute", "charge": {"object": "charge", "id": "ch_1", "payment_intent": "pi_1"}},
            {"charge": "ch_1", "payment_intent": "pi_1"},
        ),
        (
            "radar.early_fraud_warning.created",
            {"object": "radar.early_fraud_warning", "id": "issfr_1", "charge": "ch_1", "payment_intent": "pi_1"},
            {"charge": "ch_1", "payment_intent": "pi_1"},
        ),
        (
            "credit_note.created",
            {"object": "credit_note", "id": "cn_1", "invoice": "in_1", "customer": "cus_1"},
            {"invoice": "in_1", "customer": "cus_1"},
        ),
        (
            "quote.accepted",
            {"object": "quote", "id": "qt_1", "subscription": "sub_1", "invoice": "in_1", "customer": "cus_1"},
            {"quote": "qt_1", "subscription": "sub_1", "invoice": "in_1", "customer": "cus_1"},
        ),
        (
            "setup_intent.succeeded",
            {"object": "setup_intent", "id": "seti_1", "customer": "cus_1"},
            {"setup_intent": "seti_1", "customer": "cus_1"},
        ),
        (
            "customer.subscription.deleted",
            {"object": "subscription", "id": "sub_1", "customer": {"id": "cus_1"}, "latest_invoice": "in_1"},
            {"subscription": "sub_1", "invoice": "in_1", "customer": "cus_1"},
        ),
        ("customer.deleted", {"id": "cus_1", "object": "customer", "deleted": True}, {"customer": "cus_1"}),
        ("customer.updated", {"id": "cus_1"}, {"customer": "cus_1"}),
        ("charge.refunded", {"id": "ch_1"}, {"charge": "ch_1"}),
        ("invoice.upcoming", {"object": "invoice", "id": None, "subscription": "sub_1"}, {"subscription": "sub_1"}),
        ("product.updated", {"object": "product", "id": "prod_1"}, {}),
        ("charge.succeeded", None, {}),
        ("charge.succeeded", [], {}),
    ],
)
def test_what_each_of_stripes_objects_names(event_type, thing, found):
    assert names(event_type, thing) == found


def test_the_lines_of_an_invoice_are_candidates_too():
    lines = {"data": [{"metadata": None}, {"metadata": {"datafast_visitor_id": ALICE}}]}
    body = stripe_event("invoice.paid", {"object": "invoice", "lines": lines})
    (candidate,) = identity.candidates(STRIPE, Document(body))
    assert candidate.path == "data.object.lines.data[1].metadata.datafast_visitor_id"
    assert candidate.value == ALICE


def test_a_line_that_the_preset_reads_as_well_is_one_candidate():
    lines = {"data": [{"metadata": {"datafast_visitor_id": ALICE}}]}
    body = stripe_event("invoice.paid", {"object": "invoice", "lines": lines})
    assert len(identity.candidates(STRIPE, Document(body))) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "object", "id", "lines", "payments", "payment", "parent", "subscription", "charge", "charges"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from(["invoice.paid", "payment_intent.succeeded", "invoice_payment.paid", "x"]))
def test_no_body_makes_extraction_raise(thing, event_type):
    for name in ("invoice", "payment_intent", "invoice_payment", "charge", None):
        body = {"data": {"object": {"object": name, **thing} if isinstance(thing, dict) else thing}}
        found = identity.keys(STRIPE, Envelope(event_type), Document(body))
        assert len({key.text for key in found}) == len(found) <= 40
        identity.candidates(STRIPE, Document(body))


# ------------------------------------------------------------------------------------------------- Lemon Squeezy


def test_lemon_squeezys_order_and_subscription_meet_in_the_order():
    def keys(event_type, data):
        body = {"meta": {"event_name": event_type}, "data": data}
        return {key.text for key in identity.keys(LEMONS, Envelope(event_type), Document(body))}

    order = keys("order_created", {"type": "orders", "id": "1", "attributes": {"customer_id": 9, "identifier": "u-1"}})
    made = keys(
        "subscription_created",
        {"type": "subscriptions", "id": "5", "attributes": {"customer_id": 9, "order_id": 1, "order_item_id": 3}},
    )
    paid = keys(
        "subscription_payment_success",
        {"type": "subscription-invoices", "id": "1", "attributes": {"customer_id": 9, "subscription_id": 5}},
    )
    assert order & made == {"lemonsqueezy:live:order:1", "lemonsqueezy:live:customer:9"}
    assert made & paid == {"lemonsqueezy:live:subscription:5", "lemonsqueezy:live:customer:9"}
    assert order & paid == {"lemonsqueezy:live:customer:9"}


# --------------------------------------------------------------------------------------------------- other senders


def sender(*links, **more):
    """A sender of our own. links: (kind, path)."""
    specs = tuple(LinkSpec(kind, (compile_path(path),)) for kind, path in links)
    return Source("mine", "custom", VerifySpec("token"), links=specs, **more)


def test_of_a_list_twenty_and_of_an_event_forty_keys_are_read():
    mine = sender(("a", "a"), ("b", "b"), ("c", "c"))
    found = identity.keys(mine, Envelope("x"), Document({kind: list(range(1, 31)) for kind in ("a", "b", "c")}))
    assert [(key.kind, key.id) for key in found] == [(kind, str(n)) for kind in ("a", "b") for n in range(1, 21)]


@pytest.mark.parametrize(
    ("value", "id_"), [("x" * 200, "x" * 200), (" 7 ", "7"), (7, "7"), ("NULL", None), ("x\ny", None)]
)
def test_what_is_an_id(value, id_):
    found = identity.key(LEMONS, "order", value)
    assert (found and found.id) == id_


def test_only_a_sender_whose_links_are_its_providers_names_an_account():
    mine = sender(("order", "order"))
    assert identity.key(mine, "order", "7", account="acct_1").text == "mine:live:order:7"
    assert identity.key(STRIPE, "charge", "ch_1", account="acct_1").text == "stripe:acct_1:live:ch_1"


def test_the_types_worth_having_for_their_links_are_those_that_tie_two_kinds():
    both = (LinkSpec("order", (compile_path("order"),), ("sale.*",)), LinkSpec("customer", (compile_path("customer"),)))
    mine = Source("mine", "custom", VerifySpec("token"), links=both)
    assert linking_types(mine, ["sale.created", "sale.paid", "sale.failed", "refund"]) == ("sale.paid",)
    assert linking_types(mine, ["sale.failed", "sale.aborted"]) == ("sale.aborted",)
    alone = Source("mine", "custom", VerifySpec("token"), links=both[:1])
    assert linking_types(alone, ["sale.created", "sale.paid"]) == ()
    assert linking_types(STRIPE, ["checkout.session.completed", "product.updated"]) == ("checkout.session.completed",)


def test_a_person_binds_a_key_to_a_visitor_or_is_told_why_not():
    key, visitor = binding(LEMONS, "order", " 7 ", ALICE.upper(), "uuid4", users=True)
    assert (key.text, visitor) == ("lemonsqueezy:live:order:7", ALICE)
    for kind, value, who, words in (
        ("Order", "7", ALICE, "lower-case letters"),
        ("order", "7", "undefined", "datafast_visitor_id"),
        ("order", "", ALICE, "the provider's own"),
        ("order", "ann@example.com", ALICE, "an e-mail address cannot be bound"),
        ("email", "ann", ALICE, "an e-mail address cannot be bound"),
    ):
        with pytest.raises(BadBinding, match=words):
            binding(LEMONS, kind, value, who, "uuid4", users=True)


def test_an_empty_borrowed_field_is_no_candidate_and_an_empty_own_one_is_refused_by_name():
    mine = sender(visitor=(compile_path("own"),), borrowed=(compile_path("lent"),))
    for value, paths in ((ALICE, ["own", "lent"]), ("", ["own"]), (None, [])):
        found = identity.candidates(mine, Document({"own": value, "lent": value}))
        assert [candidate.path for candidate in found] == paths
    assert [one.borrowed for one in identity.candidates(mine, Document({"own": ALICE, "lent": ALICE}))] == [False, True]


def test_the_first_id_of_each_kind_is_what_paths_read():
    every = sender(("order", "a"))
    found = identity.keys(every, Envelope("x"), Document({"a": ["1", "2"]}))
    assert identity.by_kind(found) == {"order": "1"}


@pytest.mark.parametrize(
    ("event_type", "users"),
    [("checkout.session.completed", ["u_1"]), ("product.updated", []), ("transfer.created", [])],
)
def test_people_are_read_in_events_of_the_types_that_name_them(event_type, users):
    body = stripe_event(event_type, {"client_reference_id": "u_1", "metadata": {"user_id": "u_1"}})
    found = people.keys(STRIPE, Envelope(event_type), Document(body), people.Matching())
    assert sorted({key.id for key in found}) == users


@pytest.mark.parametrize("metadata", [{}, {"user_id": "u_1"}])
def test_a_user_is_sure_if_one_of_its_places_is(metadata):
    body = stripe_event("checkout.session.completed", {"client_reference_id": "u_1", "metadata": metadata})
    found = identity.keys(STRIPE, Envelope("checkout.session.completed"), Document(body))
    assert [key.sure for key in found if key.kind == "user"] == [bool(metadata)]


def test_of_one_event_ten_people_are_read_beside_forty_keys():
    lines = [{"metadata": {"user_id": f"u_{number}"}, "subscription": f"sub_{number}"} for number in range(60)]
    body = stripe_event("invoice.paid", {"id": "in_1", "lines": {"data": lines}})
    found = identity.keys(STRIPE, Envelope("invoice.paid"), Document(body))
    users = [key.id for key in found if key.is_person]
    assert len(found) - len(users) <= 40
    assert users[:10] == [f"u_{number}" for number in range(10)]
    assert len(found) <= 50


def test_a_later_place_makes_a_user_sure_although_no_further_key_is_kept():
    places = (PersonSpec("reference", (compile_path("refs"),)), PersonSpec("user", (compile_path("users"),)))
    source = sender(("a", "a"), ("b", "b"), people=places)
    users = [f"u_{number}" for number in range(10)]
    body = {"a": list(range(1, 21)), "b": list(range(1, 21)), "refs": users, "users": ["u_3", "u_99", "u_4"]}
    found = identity.keys(source, Envelope("x"), Document(body))
    assert [key.id for key in found if key.is_person] == users
    assert [key.id for key in found if key.is_person and key.sure] == ["u_3"]


def test_nobody_is_recognised_by_what_is_switched_off():
    body = stripe_event("checkout.session.completed", {"client_reference_id": "u_1", "customer_email": "a@example.com"})

    def kinds(matching):
        found = people.keys(STRIPE, Envelope("checkout.session.completed"), Document(body), matching)
        return {key.kind for key in found}

    assert kinds(people.Matching()) == {"user"}
    assert kinds(people.Matching(email_key=b"k")) == {"user", "email"}
    assert kinds(people.Matching(users=False)) == set()
    assert kinds(people.Matching(users=False, email_key=b"k")) == {"email"}


def test_expanded_objects_are_read_three_deep():
    fourth = {"object": "payment_intent", "id": "pi_4", "latest_charge": "ch_5"}
    third = {"object": "charge", "id": "ch_3", "payment_intent": fourth}
    second = {"object": "payment_intent", "id": "pi_2", "latest_charge": third}
    found = texts("charge.succeeded", {"object": "charge", "id": "ch_1", "payment_intent": second})
    assert [text.rpartition(":")[2] for text in found] == ["ch_1", "pi_2", "ch_3", "pi_4"]
