"""What is stored of a verified request, when two deliveries are one event, and what rules read of it later."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sources_kit import URL, VISITOR, envelope_spec, request, source, source_of

from bridge import sources
from bridge.errors import UnreadableBody
from bridge.model import Envelope, Event, EventState
from bridge.rules.language.paths import compile_path

PAYLOADS = Path(__file__).parent / "payloads"
STRIPE = source("stripe")


def payload(name):
    return (PAYLOADS / name).read_bytes().rstrip(b"\n")


def read(made, body, headers=None, url=URL):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return sources.read(made, request(raw, headers, url))


def keys(made, body, headers=None):
    return read(made, body, headers).dedupe_keys


def sha(body):
    return "sha256:" + hashlib.sha256(body).hexdigest()


def stored(event, made):
    return Event(
        12,
        made.name,
        made.provider,
        event.envelope,
        1_800_000_000_000,
        EventState.RECEIVED,
        event.headers,
        event.query,
        event.body,
    )


def documents(made, body, headers=None):
    return sources.documents(made, stored(read(made, body, headers), made))


# ----------------------------------------------------------------------------------------------------- envelopes


@pytest.mark.parametrize(
    ("preset", "file", "headers", "expected"),
    [
        ("clerk", "clerk.user.created.json", {"svix-id": "m1"}, ("user.created", "m1", 1_654_012_345_678, False)),
        (
            "coinbase-commerce",
            "coinbase.charge_created.json",
            {},
            ("charge:created", "24934862-d980-46cb-9402-43c81b0cdba6", 1_485_895_742_000, False),
        ),
        (
            "dodo",
            "dodo.payment.succeeded.json",
            {"webhook-id": "m"},
            ("payment.succeeded", "m", 1_699_335_116_000, False),
        ),
        (
            "github",
            "github.ping.json",
            {"X-GitHub-Event": "ping", "X-GitHub-Delivery": "d"},
            ("ping", "d", None, False),
        ),
        ("gitlab-token", "gitlab.push.json", {"Idempotency-Key": "i"}, ("push", "i", None, False)),
        ("linear", "linear.comment.create.json", {"Linear-Delivery": "d"}, ("Comment", "d", 1_579_783_998_084, False)),
        (
            "paddle",
            "paddle.transaction.completed.json",
            {},
            ("transaction.completed", "evt_01hs0tqfme2xwb2hvwv87p8y3w", 1_710_498_758_286, False),
        ),
        ("polar", "polar.order.paid.json", {"webhook-id": "m"}, ("order.paid", "m", 1_748_779_200_000, False)),
        ("resend", "resend.json", {"svix-id": "m"}, ("email.received", "m", 1_708_645_272_126, False)),
        (
            "sendgrid",
            "sendgrid.dropped.json",
            {},
            ("dropped", "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA", 1_600_112_492_000, False),
        ),
        (
            "shopify",
            "shopify.orders_paid.json",
            {
                "X-Shopify-Topic": "orders/paid",
                "X-Shopify-Event-Id": "e",
                "X-Shopify-Triggered-At": "2025-01-01T00:00:00Z",
            },
            ("orders/paid", "e", 1_735_689_600_000, False),
        ),
        (
            "square",
            "square.webhooks.test_notification.json",
            {},
            ("webhooks.test_notification", "ac3ac95b-f97d-458c-a6e6-18981597e05f", 1_657_744_259_037, False),
        ),
        (
            "tally",
            "tally.form_response.json",
            {},
            ("FORM_RESPONSE", "a4cb511e-d513-4fa5-baee-b815d718dfd1", 1_687_964_421_889, False),
        ),
        ("typeform", "typeform.form_response.json", {}, ("form_response", "LtWXD3crgy", 1_516_299_422_000, False)),
        ("gumroad", "gumroad.sale.form.txt", {}, ("sale", None, None, False)),
        ("kofi", "kofi.form.txt", {}, ("Donation", "00000000-0000-4000-8000-0000000000ee", 1_735_689_600_000, False)),
        ("lemonsqueezy", "order_created.json", {"X-Event-Name": "order_refunded"}, ("order_created", None, None, True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_envelope_of_a_real_body(preset, file, headers, expected):
    event = read(source(preset), payload(file), headers)
    found = event.envelope
    assert (found.type, found.id, found.time_ms, found.test) == expected
    assert event.quarantine is None


@pytest.mark.parametrize(
    ("preset", "file"),
    [
        ("dodo", "dodo.payment.succeeded.json"),
        ("gumroad", "gumroad.sale.form.txt"),
        ("polar", "polar.order.paid.json"),
        ("shopify", "shopify.orders_paid.json"),
        ("tally", "tally.form_response.json"),
        ("typeform", "typeform.form_response.json"),
    ],
)
def test_the_visitor_is_at_a_documented_place(preset, file):
    made = source(preset)
    (document,) = documents(made, payload(file))
    assert VISITOR in [path.read(document) for path in made.visitor]


def test_stripes_envelope_with_account_and_mode():
    body = {"id": "evt_1", "type": "charge.refunded", "created": 1_700_000_000, "livemode": True, "account": "acct_1"}
    assert read(STRIPE, body).envelope == Envelope("charge.refunded", "evt_1", 1_700_000_000_000, None, False, "acct_1")
    assert read(STRIPE, {**body, "livemode": False}).envelope.mode == "test"
    assert read(STRIPE, {"type": "a"}).envelope.mode == "live"


def test_lemon_squeezys_time_is_good_for_order_only():
    envelope = read(source("lemonsqueezy"), payload("subscription_updated.json")).envelope
    assert (envelope.time_ms, envelope.order_ms) == (None, 1_718_806_096_000)


@pytest.mark.parametrize(
    ("said", "body", "test"),
    [
        ("test", {"test": True}, True),
        ("test", {"test": "true"}, True),
        ("test", {"test": " True "}, True),
        ("test", {"test": False}, False),
        ("test", {"test": 1}, False),
        ("test", {"test": None}, False),
        ("test", {"test": {"a": 1}}, False),
        ("test", {}, False),
        (["test", "meta.test"], {"test": False, "meta": {"test": True}}, True),
        ({"path": "live", "is": False}, {"live": "false"}, True),
        ({"path": "live", "is": False}, {"live": 0}, False),
        ({"path": "live", "is": False}, {}, False),
        ({"path": "mode", "is": ["test", "sandbox"]}, {"mode": "SANDBOX"}, True),
        ({"path": "mode", "is": ["test", "sandbox"]}, {"mode": "prod"}, False),
    ],
)
def test_an_event_is_a_test_only_if_its_provider_says_so(said, body, test):
    made = replace(source("query-token"), envelope=envelope_spec({"test": said}))
    assert read(made, body).envelope.test is test


def test_over_long_and_unstorable_texts_are_made_fit_and_stay_different():
    long = [read(STRIPE, {"type": "t" * 5000 + end, "id": "i" * 300 + end}) for end in "ab"]
    assert len({event.envelope.id for event in long}) == len({event.envelope.type for event in long}) == 2
    assert len(long[0].dedupe_keys[0]) < 500
    made = source("github")
    event = read(made, {}, {"X-GitHub-Event": "a\0\ud800b", "X-GitHub-Delivery": "\0", "X-Odd\0": "\udfff"})
    assert event.envelope.type == "a��b"
    assert event.headers["x-odd�"] == "�"


# -------------------------------------------------------------------------------------------------------- dedupe


def test_an_event_is_known_by_its_type_and_id():
    one = {"id": "evt_1", "type": "a", "pending_webhooks": 1}
    assert keys(STRIPE, one) == keys(STRIPE, {**one, "pending_webhooks": 2}) == ("id:a:evt_1",)
    assert keys(STRIPE, one) != keys(STRIPE, {**one, "type": "b"})


ZEROS = ["evt_00000000000000", "evt_test_0000", "0", "00000000-0000-0000-0000-000000000000"]


@pytest.mark.parametrize("event_id", [*ZEROS, "", None, " ", {}, [], True])
def test_an_id_of_zeros_or_none_at_all_names_no_event(event_id):
    body = json.dumps({"id": event_id, "type": "a"}).encode()
    assert keys(STRIPE, body) == (sha(body),)


@pytest.mark.parametrize("event_id", ["evt_10000000", "evt_0a0", "100", "evt_1"])
def test_an_id_with_zeros_in_it_is_an_id(event_id):
    assert keys(STRIPE, {"id": event_id, "type": "a"}) == (f"id:a:{event_id}",)


@pytest.mark.parametrize("kind", ["order.paid@v1.2", "build@2024-01", "user@signup", "@channel"])
def test_a_type_with_an_at_sign_keeps_its_name(kind):
    assert read(STRIPE, {"type": kind}).envelope.type == kind


def test_an_address_in_a_type_is_masked():
    assert read(STRIPE, {"type": "signup of ann@example.com"}).envelope.type == "signup of a…@…"


def test_an_unreadable_body_is_known_by_its_hash_and_kept():
    for body in (b"", b"rubbish", b'{"id": "evt_1", "id": "evt_2"}', b"[" * 5000, b'"text"', b"17", b"null", b"[]"):
        event = read(STRIPE, body)
        assert event.dedupe_keys == (sha(body),)
        assert event.quarantine
        assert event.envelope == Envelope("")
        assert event.body == body


@pytest.mark.parametrize(
    ("preset", "header"),
    [
        ("github", "X-GitHub-Delivery"),
        ("shopify", "X-Shopify-Event-Id"),
        ("razorpay", "X-Razorpay-Event-Id"),
        ("linear", "Linear-Delivery"),
    ],
)
def test_where_the_id_is_not_signed_the_body_is_a_second_key(preset, header):
    made, body = source(preset), b'{"a": 1}'
    first, second = keys(made, body, {header: "1"})
    assert first.startswith("id:")
    assert first.endswith(":1")
    assert second == sha(body)
    assert keys(made, body) == (sha(body),)


def test_a_custom_sender_whose_signature_covers_an_id_is_known_by_it():
    verify = sources.presets()["svix"]["verify"]
    made = source_of("custom", {"verify": verify, "envelope": {"type": "kind"}})
    assert keys(made, {"kind": "a"}, {"svix-id": "m1"}) == ("id:a:m1",)


def test_the_id_of_a_custom_sender_may_stand_in_the_body():
    verify = {"type": "hmac-sha256", "signature": {"in": "header:X-Sign"}, "id": "body:event.id"}
    made = source_of("custom", {"verify": verify, "envelope": {"type": "kind"}})
    assert keys(made, {"kind": "a", "event": {"id": "e1"}}) == ("id:a:e1",)
    assert keys(made, {"kind": "a"}) == (sha(b'{"kind": "a"}'),)


@pytest.mark.parametrize(
    ("preset", "body"),
    [
        ("gumroad", b"resource_name=sale&sale_id=1"),
        ("calcom", b'{"triggerEvent": "BOOKING_CREATED", "payload": {"uid": "1"}}'),
        ("calendly", b'{"event": "invitee.created", "payload": {"uri": "https://1"}}'),
        ("postmark", b'{"RecordType": "Bounce", "MessageID": "1", "ID": 2}'),
    ],
)
def test_an_objects_id_alone_is_no_events_id(preset, body):
    assert keys(source(preset), body) == (sha(body),)


# ------------------------------------------------------------------------------------------------ Lemon Squeezy


def squeezed(change=None, file="subscription_updated.json"):
    body = json.loads(payload(file))
    if change:
        change(body)
    return keys(source("lemonsqueezy"), body)


def test_lemon_squeezy_has_two_keys():
    webhook_id, fingerprint = squeezed()
    assert webhook_id == "id:subscription_updated:subscriptions:421953:00000000-0000-4000-8000-000000000004"
    assert fingerprint.startswith("fp:")


def test_a_redelivery_with_fresh_signed_urls_has_the_same_fingerprint():
    def again(body):
        body["meta"]["webhook_id"] = "another"
        body["data"]["attributes"]["urls"] = {"customer_portal": "https://x?signature=2"}
        body["data"]["attributes"]["status_formatted"] = "Aktiv"

    assert squeezed(again)[1] == squeezed()[1]
    assert squeezed(again)[0] != squeezed()[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["meta"].update(event_name="subscription_paused"),
        lambda body: body["data"].update(id="421954"),
        lambda body: body["data"].update(type="orders"),
        lambda body: body["data"]["attributes"].update(updated_at="2024-06-19T14:08:17.000000Z"),
        lambda body: body["data"]["attributes"].update(renews_at="2025-01-01T00:00:00.000000Z"),
        lambda body: (body["meta"].update(test_mode=False), body["data"]["attributes"].update(test_mode=False)),
    ],
)
def test_another_happening_has_another_fingerprint(change):
    assert squeezed(change)[1] != squeezed()[1]


def test_an_order_and_its_refund_and_its_second_partial_refund_are_three_events():
    def refunded(amount):
        return lambda body: body["data"]["attributes"].update(refunded_amount=amount)

    order = squeezed(None, "order_created.json")
    first, second = (squeezed(refunded(amount), "order_refunded.json") for amount in (100, 200))
    assert len({order[1], first[1], second[1]}) == 3


def test_without_a_webhook_id_the_fingerprint_remains_and_without_both_the_body():
    assert [key[:3] for key in squeezed(lambda body: body["meta"].pop("webhook_id"))] == ["fp:"]
    for body in (
        b"{}",
        b'{"meta": []}',
        b'{"meta": {"event_name": "a"}, "data": []}',
        b'{"meta": null, "data": {"id": 1}}',
    ):
        assert keys(source("lemonsqueezy"), body) == (sha(body),)


def test_the_event_name_is_the_signed_bodys_and_never_the_headers():
    event = read(source("lemonsqueezy"), payload("order_created.json"), {"X-Event-Name": "order_refunded"})
    assert event.envelope.type == "order_created"


def test_php_escapes_are_read_and_the_bytes_are_kept():
    attributes = b'{"url":"https:\\/\\/x","n":"caf\\u00e9"}'
    body = b'{"meta":{"event_name":"order_created"},"data":{"type":"orders","attributes":' + attributes + b"}}"
    event = read(source("lemonsqueezy"), body)
    assert event.body == body
    (document,) = documents(source("lemonsqueezy"), body)
    assert document.body["data"]["attributes"] == {"url": "https://x", "n": "café"}


# ---------------------------------------------------------------------------------------------- what is kept


def test_headers_and_query_are_kept_without_what_authenticates():
    headers = {
        "Stripe-Signature": "s",
        "Authorization": "a",
        "Proxy-Authorization": "a",
        "Cookie": "c",
        "X-Api-Key": "k",
        "X-Hub-Signature": "s",
        "X-Gitlab-Token": "t",
        "User-Agent": "u",
        "X-Event-Name": "e",
    }
    event = read(STRIPE, {}, headers, URL + "?token=t&API_KEY=k&sig=s&v=1&v=2&empty=")
    assert event.headers == {"user-agent": "u", "x-event-name": "e"}
    assert event.query == {"v": "2", "empty": ""}


def test_the_parameter_that_is_the_token_is_not_kept_whatever_its_name():
    made = source_of("custom", {"verify": {"type": "token", "signature": {"in": "query:Door"}}})
    assert read(made, {}, {}, URL + "?Door=x&door=x&a=1").query == {"a": "1"}


# -------------------------------------------------------------------------------------------------- documents


def test_a_document_holds_body_and_the_roots_beside_it():
    body = {"id": "evt_1", "type": "a", "created": 1_700_000_000}
    event = read(STRIPE, body, {"X-A": "1"}, URL + "?b=2")
    (document,) = sources.documents(STRIPE, stored(event, STRIPE))
    assert document.body == document.root == body
    assert (document.header["x-a"], document.query["b"]) == ("1", "2")
    assert document.envelope == {"type": "a", "id": "evt_1", "time": 1_700_000_000_000, "test": False, "account": None}


def test_the_envelope_is_read_again_by_todays_mapping_file():
    event = stored(read(STRIPE, {"kind": "b", "number": 7}), STRIPE)
    assert event.envelope == Envelope("")
    fixed = replace(STRIPE, envelope=envelope_spec({"type": "kind", "id": "number"}))
    (document,) = sources.documents(fixed, event)
    assert (document.envelope["type"], document.envelope["id"]) == ("b", "7")


def test_what_is_not_told_any_more_is_taken_from_the_stored_event():
    event = replace(stored(read(STRIPE, {}), STRIPE), envelope=Envelope("a", "evt_1"))
    (document,) = sources.documents(STRIPE, event)
    assert (document.envelope["type"], document.envelope["id"]) == ("a", "evt_1")


def test_each_element_of_a_batch_is_an_event_of_its_own():
    made = source("kit")
    body = {"events": [{"type": "a", "n": 1}, {"type": "b", "n": 2}]}
    first, second = documents(made, body)
    assert (first.body["n"], first.envelope["type"], first.root) == (1, "a", body)
    assert (second.body["n"], second.envelope["type"]) == (2, "b")
    assert read(made, body).envelope.type == "batch"
    assert read(made, {"events": [{"type": "a"}, {"type": "a"}]}).envelope.type == "a"


def test_a_batch_whose_events_are_tests_in_part_is_kept_as_a_test():
    made = replace(source("kit"), envelope=envelope_spec({"type": "type", "test": "test"}))
    body = {"events": [{"type": "a"}, {"type": "a", "test": True}]}
    assert read(made, body).envelope.test
    assert [document.envelope["test"] for document in documents(made, body)] == [False, True]


def test_a_list_as_the_whole_body_needs_each():
    (document,) = documents(source("sendgrid"), payload("sendgrid.dropped.json"))
    assert document.body["event"] == "dropped"
    assert "`each` takes one event per element" in read(source("query-token"), [{"type": "a"}]).quarantine
    first = replace(source("query-token"), envelope=envelope_spec({"type": "[0].type"}))
    assert read(first, [{"type": "a"}]).envelope.type == "a"


def test_where_the_list_of_each_is_not_there_the_body_is_the_event():
    (document,) = documents(source("kit"), {"type": "ping"})
    assert document.envelope["type"] == "ping"
    assert len(documents(source("kit"), {"events": []})) == 1


def test_a_batch_has_a_bound():
    made = replace(source("kit"), each=compile_path("events"))
    assert "20000 events, at most 10000" in read(made, {"events": [1] * 20_000}).quarantine


def test_an_event_without_its_body_says_why():
    event = replace(stored(read(STRIPE, {}), STRIPE), body=None)
    with pytest.raises(UnreadableBody, match="ev_12 is gone: it was older than BRIDGE_RETENTION_DAYS"):
        sources.documents(STRIPE, event)


# ----------------------------------------------------------------------------------------------------- ignored


@pytest.mark.parametrize(
    ("preset", "body", "headers", "words"),
    [
        ("stripe", {"object": "v2.core.event", "type": "v1.billing.meter"}, {}, "thin notification"),
        ("slack", {"type": "url_verification", "challenge": "c"}, {}, "handshake"),
        ("github", {"zen": "z"}, {"X-GitHub-Event": "ping"}, "handshake"),
        ("zoom", {"event": "endpoint.url_validation"}, {}, "handshake"),
        ("notion", {"verification_token": "v"}, {}, "Notion"),
        ("square", {"type": "webhooks.test_notification"}, {}, "square"),
    ],
)
def test_what_tells_of_nothing_is_ignored_with_the_reason(preset, body, headers, words):
    made = source(preset)
    (document,) = documents(made, body, headers)
    assert words in sources.ignored(made, document)


@pytest.mark.parametrize(
    ("preset", "body"),
    [
        ("stripe", {"object": "event", "type": "a"}),
        ("slack", {"event": {"type": "message"}}),
        ("polar", {"type": "ping"}),
    ],
)
def test_everything_else_is_for_the_rules(preset, body):
    made = source(preset)
    (document,) = documents(made, body)
    assert sources.ignored(made, document) is None


def test_a_thin_notifications_time_is_iso():
    body = {
        "object": "v2.core.event",
        "id": "evt_t",
        "type": "v1.x",
        "created": "2024-09-17T06:20:52.246Z",
        "livemode": False,
    }
    envelope = read(STRIPE, body).envelope
    assert (envelope.time_ms, envelope.test) == (1_726_554_052_246, True)


def test_the_address_in_a_header_that_a_rule_reads_is_kept_as_it_came_and_in_no_other():
    address = "https://shop.example/thanks?plan=pro&code=SPRING"
    made = replace(STRIPE, reads=frozenset({"header.x-page"}))
    found = read(made, {"id": "1"}, {"x-page": address, "referer": address})
    assert found.headers["x-page"] == address
    assert found.headers["referer"] == "https://shop.example/thanks?plan=pro&code=…"
