"""By what a person is recognised: which values are a user's id or a person's address, and which are something else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from identity_kit import rule_set, stripe_event

from bridge.identity import people
from bridge.model import Document, Envelope, Key, PersonSpec
from bridge.rules import compile_path

EVERY = "goals: [{goal: x, event: '*'}]"
RULES = rule_set(
    {
        "stripe.yaml": f"provider: stripe\n{EVERY}",
        "supabase.yaml": f"provider: supabase-db\nsecret: x\n{EVERY}",
        "app.yaml": "provider: custom\nsecret: x\nverify: {type: token, signature: {in: 'header:X-Token'}}\n"
        f"envelope: {{type: type}}\nvisitor: v\nlinks: {{user: account}}\n{EVERY}",
    }
)
STRIPE, APP = RULES.sources["stripe"], RULES.sources["app"]
UUID = "3F2C8D0E-5F0B-4A63-9E59-0D6B1F8B7C11"
SECRET = b"k"


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("user_abc", "user_abc"),
        (" user_abc ", "user_abc"),
        (42, "42"),
        ("007", "007"),
        ("user_ABC", "user_ABC"),  # the case of an id counts, but not that of a UUID
        (UUID, UUID.lower()),
        ("ab" * 100, "ab" * 100),
        ("111", "111"),
        ("auth0|5f7c", "auth0|5f7c"),
        ("xx-7", "xx-7"),
        ("no-42", "no-42"),  # the number of somebody
        ("0xA11CE", "0xA11CE"),
    ],
)
def test_what_is_a_users_id(value, read_as):
    assert people.user_id(value) == read_as


@pytest.mark.parametrize(
    "value",
    [
        *("null", "Undefined", "guest", "Guest User", "not_logged_in", "TEST", "your-user-id", "user_id", "admin"),
        *("", " ", "0", "000", "0.0", "-1", "--", "xxx", "aaa", "00000000-0000-0000-0000-000000000000"),
        "11111111-1111-1111-1111-111111111111",
        *("anon_17", "guest-17", "$RCAnonymousID:abc", "visitor_17", "dfv_abc"),
        *(
            "ann@example.com",
            "ann%40example.com",
            "a b",
            "{{user_id}}",
            "<id>",
            "${id}",
            "[id]",
            "a\x00b",
            "ab" * 100 + "a",
        ),
        *(True, False, None, 4.5, [], {}),
    ],
)
def test_what_is_no_users_id(value):
    assert people.user_id(value) is None


@pytest.mark.parametrize(
    "address",
    [
        *("ann@example.com", " Ann@Example.COM ", "ann+shop@example.com", "anna2@example.com", "j@ann.dev"),
        *("10001@qq.com", "ann.sales@example.com"),
    ],
)
def test_what_is_a_persons_address(address):
    assert people.email_hash(address, SECRET) is not None


def test_the_address_in_any_case_and_with_any_space_is_one_person_and_hashed_with_the_key():
    one = people.email_hash("ann@example.com", SECRET)
    assert people.email_hash(" Ann@Example.COM ", SECRET) == one
    assert people.email_hash("ann+shop@example.com", SECRET) != one
    assert people.email_hash("ann@example.com", b"another key") != one
    assert "ann" not in one


@pytest.mark.parametrize(
    "address",
    [
        *("info@example.com", "info2@example.com", "info-de@example.com", "sales.team@example.com"),
        *("eu.sales@example.com", "de-ch.sales@example.com"),
        *("no-reply@example.com", "support+42@example.com", "billing@example.com"),
        *("asdf@asdf.com", "aaa@aaa.com", "123@123.com", "guest-1@shop.com", "ann@noemail.invalid", "ann@b.c"),
        *("ann", "ann@example", "ann@@example.com", "ann @example.com", "<ann@example.com>", ""),
        *(
            "a" * 65 + "@example.com",
            "ann@" + "a" * 250 + ".com",
            "an\u200bn@example.com",
            None,
            42,
            ["ann@example.com"],
        ),
    ],
)
def test_what_is_no_persons_address(address):
    assert people.email_hash(address, SECRET) is None


def test_how_long_an_address_may_be():
    longest = "ann@" + "a" * 246 + ".com"
    assert (len(longest), people.email_hash(longest, SECRET) is not None) == (254, True)
    assert people.email_hash("b" + longest, SECRET) is None


# ------------------------------------------------------------------------------------------------ in metadata


def named(metadata, source=STRIPE, event_type="checkout.session.completed", mode="live", **thing):
    body = stripe_event(event_type, {"metadata": metadata, **thing})
    found = people.keys(
        source, Envelope(event_type, test=mode == "test"), Document(body), people.Matching(True, SECRET)
    )
    return [(key.kind, key.id, key.sure) for key in found]


@pytest.mark.parametrize(
    "name", ["user_id", "userId", "USER-ID", "uid", "clerk_user_id", "supabase_uuid", "firebaseUid"]
)
def test_a_field_is_a_users_by_its_name(name):
    assert named({name: "u_abc"}) == [("user", "u_abc", True)]
    assert named({name: 42}) == [("user", "42", True)]


@pytest.mark.parametrize(
    "name", ["order_id", "organization_id", "seller_user", "id", "product", "user", "useridx", "value"]
)
def test_any_other_field_is_nobodys(name):
    assert named({name: "u_abc"}) == []


def test_a_reference_may_be_something_elses():
    assert named({"reference_id": "u_abc"}) == [("user", "u_abc", False)]
    assert named({}, client_reference_id="u_abc") == [("user", "u_abc", False)]
    assert named({"reference_id": "org_abc"}) == []
    assert named({"user_id": "org_abc"}) == []


@pytest.mark.parametrize("value", ["gid://shop/User/7", "gid://shopify/Customer/7", "acct-7", "sub|7w", "cus-7-own"])
def test_an_id_that_only_looks_like_the_id_of_a_thing(value):
    assert named({"user_id": value}) == [("user", value, True)]


@pytest.mark.parametrize("called", ["name", "label", "key"])
def test_a_field_of_a_list_is_a_users_by_what_it_is_called(called):
    assert named({called: "User ID", "value": "u_abc"}) == [("user", "u_abc", True)]
    assert named({called: "Order ID", "value": "u_abc"}) == []
    assert named({called: None, "value": "u_abc"}) == []
    assert named({called: "User ID"}) == []


def test_an_address_in_metadata_is_hashed():
    (found,) = named({"user_email": "ann@example.com"})
    assert found == ("email", people.email_hash("ann@example.com", SECRET), True)


@pytest.mark.parametrize(("table", "found"), [("profiles", ["u_abc"]), ("users", ["u_abc"]), ("orders", [])])
def test_the_id_of_a_row_is_a_users_in_the_tables_of_users_only(table, found):
    body = {"type": "INSERT", "table": table, "record": {"id": "u_abc"}}
    named_in = people.keys(RULES.sources["supabase"], Envelope("INSERT"), Document(body), people.Matching())
    assert [key.id for key in named_in] == found


# ------------------------------------------------------------------------------------------------------ names


def texts(source, mode="live", **body):
    found = people.keys(source, Envelope("sale", test=mode == "test"), Document(body), people.Matching())
    return [key.text for key in found]


def test_a_number_is_one_users_at_one_tool_only_unless_the_file_says_where_users_are():
    assert [key.text for key in _of_stripe("42")] == ["user:default:live:stripe:42"]
    assert [key.text for key in _of_stripe("u_42")] == ["user:default:live:u_42"]
    assert [key.text for key in _of_stripe(UUID)] == [f"user:default:live:{UUID.lower()}"]
    padded = "00000000-0000-0000-0000-000000000042"  # a number that was made a UUID
    assert [key.text for key in _of_stripe(padded)] == [f"user:default:live:stripe:{padded}"]
    assert texts(APP, account="42") == ["user:default:live:42"]
    assert texts(APP, account="org_42") == ["user:default:live:org_42"]  # the file must know


def _of_stripe(value):
    body = stripe_event("checkout.session.completed", {"metadata": {"user_id": value}})
    return people.keys(STRIPE, Envelope("checkout.session.completed"), Document(body), people.Matching())


def test_a_reference_that_is_a_number_is_nobodys():
    assert named({}, client_reference_id="42") == []


def test_who_is_named_by_hand_has_the_key_of_events():
    assert people.user(STRIPE, "u_42").text == "user:default:live:u_42"
    assert people.user(STRIPE, "42").text == "user:default:live:stripe:42"
    assert people.user(APP, "42").text == "user:default:live:42"
    assert people.user(APP, "guest") is None
    email = PersonSpec("email", (compile_path("email"),))
    assert people.user(replace(APP, people=(email, *APP.people)), "42").text == "user:default:live:42"


def test_a_test_event_reads_the_live_keys_of_people_and_of_nothing_else():
    found = (
        Key("stripe:test:cs_1", "session", "cs_1"),
        Key("user:default:test:u:test:1", "user", "u:test:1"),
        Key("user:default:test:stripe:42", "user", "42", sure=False),
        Key("email:default:test:abc", "email", "abc"),
    )
    assert people.live_twins(found) == (
        Key("user:default:live:u:test:1", "user", "u:test:1"),
        Key("user:default:live:stripe:42", "user", "42"),
        Key("email:default:live:abc", "email", "abc"),
    )
    assert [key.sure for key in people.live_twins(found)] == [True, False, True]


@pytest.mark.parametrize(
    ("name", "read"), [("user_id", True), ("reference-id", True), ("E-Mail", True), ("order_id", False)]
)
def test_the_names_that_are_read_are_known(name, read):
    assert people.is_read(name) is read
