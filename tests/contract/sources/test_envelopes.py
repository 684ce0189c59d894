"""What presets read out of real shapes of bodies: type, id, test flag, visitor, links."""

import json
from urllib.parse import urlencode

import pytest
from sources_kit import VISITOR, request

from bridge import rules, sources
from bridge.errors import MappingError
from bridge.identity.keys import keys
from bridge.sources.events import ignored


def made(provider, more=""):
    text = f"provider: {provider}\n{more}goals: [{{goal: g, event: e}}]\n"
    (source,) = rules.load(
        {"mine.yaml": text}, {"MINE_WEBHOOK_SECRET": "user:secret"}, sources.presets()
    ).sources.values()
    return source


def read(provider, body, headers=None):
    source = made(provider)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return source, sources.read(source, request(raw, headers))


def documents(source, event):
    stored = type(
        "Stored", (), {"body": event.body, "headers": event.headers, "query": event.query, "envelope": event.envelope}
    )
    return sources.documents(source, stored)


def visitors(provider, body):
    source, event = read(provider, body)
    found = [
        path.read(document) for document in documents(source, event) for path in (*source.visitor, *source.borrowed)
    ]
    return [value for value in found if value]


def link_names(provider, body):
    source, event = read(provider, body)
    (document,) = documents(source, event)
    return {key.text for key in keys(source, event.envelope, document)}


# --------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("provider", "body", "event_type", "event_id"),
    [
        (
            "stytch",
            {
                "project_id": "p",
                "event_id": "ev-1",
                "action": "CREATE",
                "object_type": "user",
                "source": "DIRECT",
                "id": "u-1",
            },
            "direct.user.create",
            "ev-1",
        ),
        ("stytch", {"event_type": "old.shape", "event_id": "ev-1"}, "old.shape", "ev-1"),
        ("stytch", {"action": "CREATE", "object_type": "user"}, "", None),
        ("recurly", {"id": "n1", "object_type": "subscription", "event_type": "created"}, "subscription.created", None),
        ("recurly", {"event_type": "created"}, "created", None),
        ("auth0", [{"log_id": "90", "data": {"type": "ss", "date": "2026-01-01T00:00:00Z"}}], "ss", "90"),
        ("auth0", [{"log_id": "90", "data": {"type": "ss"}}, {"log_id": "91", "data": {"type": "s"}}], "batch", None),
        ("auth0", {"log_id": "90", "data": {"type": "ss"}}, "ss", "90"),
        (
            "auth0-events",
            {"type": "user.created", "id": "evt_1", "time": "2026-01-01T00:00:00Z"},
            "user.created",
            "evt_1",
        ),
        (
            "kit",
            {"delivery_id": 5, "events": [{"id": "e-1", "type": "subscriber.created"}]},
            "subscriber.created",
            "e-1",
        ),
        (
            "kit",
            {"delivery_id": 5, "events": [{"id": f"e-{i}", "type": "subscriber.created"} for i in (1, 2)]},
            "subscriber.created",
            "5",
        ),
        ("creem", {"id": "evt_1", "eventType": "checkout.completed"}, "checkout.completed", "evt_1"),
        ("creem", {"id": "evt_1", "type": "checkout.completed"}, "checkout.completed", "evt_1"),
        ("supabase-auth", {"metadata": {"uuid": "u-1", "name": "after-user-created"}}, "after-user-created", "u-1"),
    ],
)
def test_type_and_id_are_read_from_the_body(provider, body, event_type, event_id):
    _, event = read(provider, body)
    assert event.quarantine is None
    assert (event.envelope.type, event.envelope.id) == (event_type, event_id)


def test_a_file_composes_a_type_of_its_own():
    source = made("bearer", 'envelope: {type: ["{kind}:{action|lower}", kind]}\n')
    for body, expected in (({"kind": "order", "action": "PAID"}, "order:paid"), ({"kind": "order"}, "order")):
        assert sources.read(source, request(json.dumps(body).encode())).envelope.type == expected


@pytest.mark.parametrize(
    ("type_", "sentence"),
    [
        ('"{a|lowr}"', 'did you mean "lower"'),
        ('"{a"', "never closed"),
        ('"{{a}}"', "names no path"),
        ('["{}"]', "names no path"),
    ],
)
def test_a_composed_type_that_cannot_be_read_is_told(type_, sentence):
    with pytest.raises(MappingError) as caught:
        made("bearer", f"envelope: {{type: {type_}}}\n")
    assert sentence in str(caught.value)
    assert "mine.yaml:2:" in str(caught.value)


# ------------------------------------------------------------------------------------------------- once, and only once


def test_two_orders_of_one_second_are_two_events_at_woocommerce():
    headers = {"X-WC-Webhook-Topic": "order.created", "X-WC-Webhook-Delivery-ID": "one per second"}
    first, second = (read("woocommerce", {"id": number}, headers)[1] for number in (101, 102))
    assert set(first.dedupe_keys).isdisjoint(second.dedupe_keys)
    assert first.envelope.type == "order.created"


def test_each_attempt_of_supabase_is_the_same_event_though_its_header_changes():
    body = {"metadata": {"uuid": "u-1", "name": "after-user-created"}}
    first, again = (read("supabase-auth", body, {"webhook-id": name})[1] for name in ("msg_1", "msg_2"))
    assert first.dedupe_keys == again.dedupe_keys
    assert made("supabase-auth").id_is_signed


@pytest.mark.parametrize("name", [name for name, said in sources.presets().items() if "formerly" in said])
def test_what_was_read_formerly_differs_from_what_is_read_now(name):
    said = sources.presets()[name]
    assert said["formerly"].keys() <= {"type", "id"}
    for key, before in said["formerly"].items():
        assert before != said["envelope"].get(key)


# ---------------------------------------------------------------------------------------------------------- test flag


@pytest.mark.parametrize(
    ("event_id", "test"),
    [("ntfsimevt_01", True), ("evt_01", False), ("evt_ntfsimevt_", False), (None, False), (7, False)],
)
def test_paddles_simulator_sends_test_events(event_id, test):
    _, event = read("paddle", {"event_id": event_id, "event_type": "transaction.completed"})
    assert event.envelope.test is test


def test_a_file_may_tell_a_test_event_by_how_a_value_begins_instead():
    source = made("paddle", "envelope: {test: {path: [data.mode, data.id], prefix: test_}}\n")
    for data, test in (({"mode": "test_x"}, True), ({"id": "test_1"}, True), ({"mode": "live"}, False)):
        body = json.dumps({"event_id": "ntfsimevt_1", "event_type": "a", "data": data}).encode()
        assert sources.read(source, request(body)).envelope.test is test


# ---------------------------------------------------------------------------------------------------- visitor, links


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("clerk", {"type": "user.created", "data": {"private_metadata": {"datafast_visitor_id": VISITOR}}}),
        ("clerk", {"type": "session.created", "data": {"user": {"unsafe_metadata": {"datafast_visitor_id": VISITOR}}}}),
        ("resend", {"type": "email.clicked", "data": {"tags": {"datafast_visitor_id": VISITOR}}}),
        ("polar", {"type": "order.paid", "data": {"metadata": {"reference_id": f"dfv_{VISITOR}"}}}),
        ("beehiiv", {"event_type": "subscription.created", "data": {"utm_medium": f"dfv_{VISITOR}"}}),
        ("calendly", {"event": "invitee.created", "payload": {"tracking": {"utm_content": f"dfv_{VISITOR}"}}}),
        (
            "calcom",
            {
                "triggerEvent": "BOOKING_CREATED",
                "payload": {"userFieldsResponses": {"datafast_visitor_id": {"value": VISITOR}}},
            },
        ),
        (
            "whop",
            {
                "type": "refund.created",
                "data": {"payment": {"id": "pay_1", "metadata": {"datafast_visitor_id": VISITOR}}},
            },
        ),
        (
            "auth0-events",
            {"type": "user.created", "data": {"object": {"user_metadata": {"datafast_visitor_id": VISITOR}}}},
        ),
        (
            "kit",
            {
                "events": [
                    {
                        "id": "1",
                        "type": "subscriber.created",
                        "data": {"subscriber": {"fields": {"datafast_visitor_id": VISITOR}}},
                    }
                ]
            },
        ),
    ],
)
def test_the_visitor_is_found_where_the_provider_gives_it_back(provider, body):
    assert [value.removeprefix("dfv_") for value in visitors(provider, body)] == [VISITOR]


def test_a_borrowed_field_is_no_place_of_the_visitor_by_itself():
    for name, said in sources.presets().items():
        if name == "stripe":
            continue  # its session's client_reference_id is judged by code
        assert not {*said.get("visitor", ())} & {*said.get("borrowed", ())}, name
        for path in said.get("visitor", ()):
            assert not any(word in path for word in ("utm_", "reference_id", "ext_ref", "salesforce")), name


@pytest.mark.parametrize(
    ("provider", "body", "names"),
    [
        (
            "whop",
            {
                "type": "refund.created",
                "data": {
                    "id": "rf_1",
                    "payment": {"id": "pay_1", "membership": {"id": "mem_1"}, "user": {"id": "u_1"}},
                },
            },
            {"whop:live:payment:pay_1", "whop:live:membership:mem_1", "whop:live:customer:u_1"},
        ),
        (
            "whop",
            {"type": "dispute.created", "data": {"id": "dp_1", "payment": "pay_1"}},
            {"whop:live:payment:pay_1"},
        ),
        (
            "whop",
            {
                "type": "payment.succeeded",
                "data": {"id": "pay_1", "membership": {"id": "mem_1"}, "user": {"id": "u_1"}},
            },
            {"whop:live:payment:pay_1", "whop:live:membership:mem_1", "whop:live:customer:u_1"},
        ),
        (
            "clerk",
            {"type": "paymentAttempt.updated", "data": {"payer": {"user_id": "user_1"}}},
            {"clerk:live:customer:user_1", "user:default:live:user_1"},
        ),
        ("calcom", {"triggerEvent": "BOOKING_CANCELLED", "payload": {"bookingId": 91}}, {"calcom:live:booking:91"}),
        (
            "recurly",
            {"object_type": "subscription", "event_type": "created", "uuid": "abc"},
            {"recurly:live:subscription:abc"},
        ),
        # links that came after the first release: keys keep the name that a file's own links have given them
        ("loops", {"eventName": "contact.created", "contactIdentity": {"id": "c_1"}}, {"mine:live:customer:c_1"}),
        ("savvycal", {"type": "event.created", "payload": {"id": "event_1"}}, {"mine:live:booking:event_1"}),
    ],
)
def test_what_has_no_visitor_is_linked_to_what_has_one(provider, body, names):
    assert link_names(provider, body) == names


# ----------------------------------------------------------------------------------------------- trial messages


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("loops", {"eventName": "testing.testEvent"}),
        ("calcom", {"triggerEvent": "PING"}),
        ("kit", {"events": [{"id": "1", "type": "webhook_endpoint.test"}]}),
        ("revenuecat", {"event": {"type": "TEST"}}),
        ("gumroad", urlencode({"test": "true", "seller_id": "s", "price": "0"}).encode()),
    ],
)
def test_a_trial_message_is_ignored_with_a_sentence(provider, body):
    source, event = read(provider, body)
    (document,) = documents(source, event)
    assert "test" in ignored(source, document) or "tries" in ignored(source, document)


def test_what_gumroad_says_of_a_sale_is_not_ignored():
    for form in ({"test": "true", "resource_name": "sale"}, {"sale_id": "1"}):
        source, event = read("gumroad", urlencode(form).encode())
        (document,) = documents(source, event)
        assert ignored(source, document) is None
