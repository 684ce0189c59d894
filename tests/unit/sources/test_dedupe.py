"""Once, and only once: when two deliveries are one event, and how what the previous release stored is recognised."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_kit import NOW, paths, request, signed_request, source

from bridge import sources
from bridge.globs import event_types
from bridge.model import FormerSpec

ORDER = b'{"id": 11, "total": "50.00"}'
SHOPIFY = replace(source("shopify"), named_types=event_types(["orders/paid", "orders/*"]))
RESEND_SECRET = "whsec_" + "a2V5" * 8


def sha(body):
    return "sha256:" + hashlib.sha256(body).hexdigest()


def read(made, body, headers=None):
    return sources.read(made, request(body, headers))


def known_by(made, body, headers=None):
    return set(read(made, body, headers).dedupe_keys)


def topic(name, **more):
    return {"X-Shopify-Topic": name, **more}


# ------------------------------------------------------------------------------------------------ type and body


def test_the_same_bytes_under_two_types_that_rules_name_are_two_events():
    assert not known_by(SHOPIFY, ORDER, topic("orders/paid")) & known_by(SHOPIFY, ORDER, topic("orders/create"))


def test_the_same_bytes_under_one_type_are_one_event():
    first = known_by(SHOPIFY, ORDER, topic("orders/paid", **{"X-Shopify-Event-Id": "1"}))
    again = known_by(SHOPIFY, ORDER, topic("orders/paid", **{"X-Shopify-Event-Id": "2"}))
    assert first & again


@given(st.lists(st.text("abcdef/", min_size=1, max_size=12), min_size=2, max_size=20, unique=True))
def test_all_types_that_nobody_names_share_one_key(types):
    """A topic is not signed: who replays one request under twenty made-up topics makes one event."""
    made = replace(SHOPIFY, named_types=event_types(["orders/paid", "*"]))
    assert len({read(made, ORDER, topic(name)).dedupe_keys for name in types}) == 1


@pytest.mark.parametrize(
    ("patterns", "named", "other"),
    [
        (["order.updated"], "order.updated", "order.created"),
        (["order.*"], "order.created", "customer.created"),
        (["order.?"], "order.x", "order.xy"),
        (["*"], None, "order.created"),
        (["**", "a*"], "ab", "order.created"),
    ],
)
def test_a_type_is_named_by_name_or_glob_but_not_by_a_lone_star(patterns, named, other):
    types = event_types(patterns)
    assert named is None or named in types
    assert other not in types
    assert None not in types


# ------------------------------------------------------------------------------------------------------- signed ids


def test_one_signed_request_with_a_forged_second_id_is_a_duplicate():
    """A sender of Standard Webhooks signs one id; the same request may carry another under the other names."""
    made = source("resend", RESEND_SECRET)
    body = json.dumps({"type": "email.sent", "created_at": "2026-11-28T10:00:00Z", "data": {}}).encode()
    signed = signed_request(made, RESEND_SECRET, body, NOW, "msg_1").headers  # webhook-*
    known = set()
    for number in range(20):
        sent = request(body, {**signed, "svix-id": f"msg_forged{number}"})
        sources.verify(made, sent, NOW)
        event = sources.read(made, sent)
        known.add(event.dedupe_keys)
        assert event.envelope.id == event.headers["svix-id"] == "msg_1"
    assert known == {("id:email.sent:msg_1",)}


def test_the_two_families_of_names_are_one_id():
    made = source("resend")
    body = b'{"type": "email.sent"}'
    assert known_by(made, body, {"svix-id": "msg_1"}) == known_by(made, body, {"webhook-id": "msg_1"})


def test_an_id_of_which_a_part_could_not_be_read_is_no_id():
    """Two such ids would be one."""
    one, other = ('{"id": "evt_%s", "type": "a"}' % end for end in ("\\u0000", "\\ud83d"))  # noqa: UP031
    assert not known_by(source("stripe"), one.encode()) & known_by(source("stripe"), other.encode())


def test_where_the_envelope_says_the_id_the_signed_one_does_not_stand_in():
    """Supabase signs an id of the attempt; an event without its own id is known by its body."""
    made = replace(source("svix"), envelope=replace(source("svix").envelope, id=paths("metadata.uuid")))
    body = b'{"type": "a"}'
    assert read(made, body, {"svix-id": "msg_1"}).dedupe_keys == (sha(body),)
    assert ("a", "id:a:msg_1") in read(made, body, {"svix-id": "msg_1"}).former_keys


# ---------------------------------------------------------------------------------------------------------- retries

GUMROAD = replace(source("gumroad"), retry_fields=("retry_count",))


@pytest.mark.parametrize("retry", [b"sale_id=1&price=5&retry_count=1", b"retry_count=2&sale_id=1&price=5"])
def test_what_a_retry_adds_to_a_form_is_left_out_of_its_hash(retry):
    assert known_by(GUMROAD, retry) == known_by(GUMROAD, b"sale_id=1&price=5") == {sha(b"sale_id=1&price=5")}


@pytest.mark.parametrize("other", [b"sale_id=1&price=5&retry_counts=1", b"sale_id=1&price=6&retry_count=1"])
def test_and_nothing_else_is(other):
    assert known_by(GUMROAD, other) != known_by(GUMROAD, b"sale_id=1&price=5")


def hubspot(attempt, *ids):
    return json.dumps(
        [{"eventId": one, "subscriptionType": "a", "occurredAt": 1.8e12, "attemptNumber": attempt} for one in ids]
    )


@pytest.mark.parametrize("retry", [(1, 7, 8), (1, 8, 7)])
def test_a_batch_is_known_by_the_ids_of_its_events_whatever_a_retry_writes_beside_them(retry):
    made = source("hubspot-v3")
    first = hubspot(0, 7, 8).encode()
    assert known_by(made, first) & known_by(made, hubspot(*retry).encode())
    assert sha(first) in known_by(made, first)  # which is what the previous release stored
    assert not known_by(made, first) & known_by(made, hubspot(0, 7, 9).encode())


@pytest.mark.parametrize("nameless", [None, "", "0000", 7])
def test_a_batch_in_which_one_event_has_no_id_of_its_own_is_known_by_its_bytes(nameless):
    body = hubspot(0, 7, nameless).encode()
    assert known_by(source("hubspot-v3"), body) == {sha(body)}


# ------------------------------------------------------------------------------------------- the previous release


def test_a_named_type_still_has_its_former_key_for_that_type_alone():
    assert read(SHOPIFY, ORDER, topic("orders/paid")).former_keys == (("orders/paid", sha(ORDER)),)


def test_an_unnamed_type_and_a_signed_id_need_no_former_key():
    assert read(SHOPIFY, ORDER, topic("other")).former_keys == ()
    assert read(source("stripe"), b'{"id": "evt_1", "type": "a"}').former_keys == ()


@pytest.mark.parametrize(
    "body", [b'{"id": "evt_1", "type": "a", "n": "x\\u0000"}', b'\xef\xbb\xbf{"id": "evt_1", "type": "a"}']
)
def test_a_body_that_was_quarantined_for_its_characters_is_recognised(body):
    assert ("", sha(body)) in read(source("stripe"), body).former_keys


def test_a_preset_says_how_the_previous_release_read_type_and_id():
    made = replace(source("stytch"), former=FormerSpec(type=(), id=paths("header.webhook-id"), id_is_signed=True))
    event = read(made, b'{"event_type": "x"}', {"webhook-id": "msg_1"})
    assert event.former_keys == (("", sha(event.body)), ("", "id::msg_1"))


@pytest.mark.parametrize("named", [(), ("sale",)])
def test_a_retry_that_the_previous_release_stored_is_recognised(named):
    """Its hash held the number of the retry."""
    made = replace(GUMROAD, named_types=event_types(named))
    retry = b"resource_name=sale&sale_id=1&retry_count=1"
    assert ("sale", sha(retry)) in read(made, retry).former_keys


@pytest.mark.parametrize("value", ["{%22type%22:%22a%22,%22n%22:%22%5Cu0000%22", "%EF%BB%BF{%22type%22:%22a%22"])
def test_a_document_in_a_form_that_was_quarantined_for_its_characters_is_recognised(value):
    body = f"data={value},%22message_id%22:%221%22}}".encode()
    event = read(source("kofi"), body)
    assert event.dedupe_keys == ("id:a:1",)
    assert ("", sha(body)) in event.former_keys


def test_a_single_event_of_a_preset_with_each_has_the_type_that_the_previous_release_read():
    """Auth0 sends one log as an object, too; only a batch had the type of its events."""
    made = replace(source("auth0"), former=FormerSpec(paths("type"), (), id_is_signed=True))
    body = b'{"log_id": "1", "type": "log", "data": {"type": "ss"}}'
    assert ("log", sha(body)) in read(made, body).former_keys


# ------------------------------------------------------------------------------------------------- what is legible


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "evt_9", "type": "charge.refunded", "data": {"a": 1, "a": 2}}',
        b'{"id": "evt_9", "type": "charge.refunded", "data": {"obj',
        b'{"id": "evt_9", "n": 1e999, "type": "charge.refunded", "x": NaN}',
        b'\xef\xbb\xbf {"id" : "evt_9" , "type":"charge.refunded", "big": ' + b"9" * 5000 + b"}",
        b'{"id": "evt_9", "type": "charge.refunded", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id": "evt_9", "deep": ' + b"[" * 1_200 + b"]" * 1_200 + b', "type": "charge.refunded"}',
        b'{"id": "evt_9", "type": "charge.refunded", "twice": {"\\ud800": 1, "\\ud801": 2}}',
        b'{"id": "evt_9", "twice": {"\\u0000": 1, "\\ud801": 2}, "type": "charge.refunded"}',
        b'{"id": "evt_9", "type": "charge.refunded", "bytes": "\xff\xfe"}',
    ],
)
def test_what_is_quarantined_keeps_the_type_and_id_that_are_legible(body):
    with ThreadPoolExecutor(1) as fresh:  # what is left of C's stack in this thread depends on what ran before
        event = fresh.submit(read, source("stripe"), body).result()
    assert event.quarantine
    assert (event.envelope.type, event.envelope.id) == ("charge.refunded", "evt_9")
    assert event.dedupe_keys == (sha(body),)
    assert event.body == body


@pytest.mark.parametrize(
    "value",
    [
        "{%22message_id%22:%22m-1%22,%22type%22:%22Donation%22,%22amount%22:NaN}",
        "{%22message_id%22:%22m-1%22,%22type%22:%22Donation%22,",
    ],
)
def test_so_does_an_unreadable_document_in_a_form(value):
    event = read(source("kofi"), f"data={value}".encode())
    assert event.quarantine
    assert (event.envelope.type, event.envelope.id) == ("Donation", "m-1")


@pytest.mark.parametrize(
    "body", [b'{"id": "evt_1", "id": "evt_2", "type": "a"', b"[1, 2", b"", b"{", b'{"id"', b'{"id":}']
)
def test_an_id_that_stands_twice_or_nowhere_is_none(body):
    assert read(source("stripe"), body).envelope.id is None


def test_the_topic_of_an_unreadable_body_is_kept_and_tells_two_of_them_apart():
    paid = read(SHOPIFY, b"rubbish", topic("orders/paid"))
    assert (paid.envelope.type, paid.quarantine is None) == ("orders/paid", False)
    assert paid.dedupe_keys != read(SHOPIFY, b"rubbish", topic("orders/create")).dedupe_keys
    assert ("", sha(b"rubbish")) in paid.former_keys


@given(st.binary(max_size=200))
def test_whatever_a_body_holds_is_read_without_an_exception(body):
    for name in ("stripe", "gumroad", "kofi", "hubspot-v3"):
        event = read(source(name), body)
        assert event.dedupe_keys
        assert "\0" not in (event.envelope.id or "") + event.envelope.type
