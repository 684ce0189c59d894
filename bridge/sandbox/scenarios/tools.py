"""One person across several tools: only the first tools can carry the visitor id, the later ones know other ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from bridge.sandbox.scenarios.story import Expected
from bridge.sandbox.scenarios.stripe_billing import Billing

if TYPE_CHECKING:
    from bridge.sandbox.scenarios.story import Object, Story

_EMAIL: Final = "ada@example.com"


def across(story: Story) -> None:
    """A Tally lead, a Cal.com booking, a Clerk sign-up; weeks later a Stripe subscription elsewhere, and its refund.

    It needs the mapping files of the four tools (`extends: tally` and so on) in your mappings folder. Stripe's events
    name the user of Clerk, and no visitor.
    """
    visitor, user = story.visitor(), f"user_{story.ids.letters(27)}"
    _lead(story, visitor)
    story.wait(days=1, hours=3)
    _booking(story, visitor)
    story.wait(days=3)
    _signup(story, visitor, user)
    story.wait(days=2)
    shop = Billing(story, carriers=(), user=user)
    subscribed = shop.subscribe(visitor, shop.make.price("Pro", 4900), customer=shop.customer(_EMAIL))
    story.wait(days=4)
    assert subscribed.charge is not None
    shop.refund(visitor, subscribed.charge, 4900)


def _lead(story: Story, visitor: str) -> None:
    ids, when = story.ids, _iso(story.now_s)
    response, event = ids.letters(7), ids.uuid()
    fields = [
        {"key": f"question_{ids.letters(6)}_{ids.uuid()}", "label": label, "type": kind, "value": value}
        for label, kind, value in (
            ("datafast_visitor_id", "HIDDEN_FIELDS", visitor),
            ("Your work email", "INPUT_EMAIL", _EMAIL),
            ("What do you want to measure?", "TEXTAREA", "Which campaign pays"),
        )
    ]
    data = {
        "responseId": response,
        "submissionId": response,
        "respondentId": ids.letters(6),
        "formId": ids.letters(6),
        "formName": "Ask for a demo",
        "createdAt": when,
        "fields": fields,
    }
    body = {"eventId": event, "eventType": "FORM_RESPONSE", "createdAt": when, "data": data}
    goal = Expected("lead", visitor, {"form": "Ask for a demo"})
    story.tell(source="tally", wire="tally", event_type="FORM_RESPONSE", event_id=event, body=body, goals=[goal])


def _booking(story: Story, visitor: str) -> None:
    ids = story.ids
    starts_s = story.now_s + 86_400
    uid = ids.letters(22)
    payload: Object = {
        "type": "demo",
        "title": "Demo between Grace Hopper and Ada Lovelace",
        "uid": uid,
        "bookingId": ids.number(7),
        "eventTypeId": ids.number(6),
        "length": 30,
        "startTime": _iso(starts_s),
        "endTime": _iso(starts_s + 1_800),
        "organizer": {"name": "Grace Hopper", "email": "grace@example.org", "timeZone": "Europe/Vienna"},
        "attendees": [{"name": "Ada Lovelace", "email": _EMAIL, "timeZone": "Europe/London"}],
        "responses": {"name": {"value": "Ada Lovelace"}, "email": {"value": _EMAIL}},
        "metadata": {"datafast_visitor_id": visitor},
        "status": "ACCEPTED",
    }
    body = {"triggerEvent": "BOOKING_CREATED", "createdAt": _iso(story.now_s), "payload": payload}
    goal = Expected("demo_booked", visitor, {"type": "demo", "minutes": "30"})
    story.tell(source="calcom", wire="calcom", event_type="BOOKING_CREATED", event_id=uid, body=body, goals=[goal])


def _signup(story: Story, visitor: str, user: str) -> None:
    ids, now_ms = story.ids, story.now_s * 1_000
    address = f"idn_{ids.letters(27)}"
    data: Object = {
        "object": "user",
        "id": user,
        "external_id": None,
        "first_name": "Ada",
        "last_name": "Lovelace",
        "primary_email_address_id": address,
        "email_addresses": [{"object": "email_address", "id": address, "email_address": _EMAIL}],
        "public_metadata": {},
        "private_metadata": {},
        "unsafe_metadata": {"datafast_visitor_id": visitor},
        "created_at": now_ms,
        "updated_at": now_ms,
    }
    body = {"object": "event", "type": "user.created", "timestamp": now_ms, "data": data}
    id_, goal = f"msg_{ids.letters(27)}", Expected("signup", visitor)
    story.tell(source="clerk", wire="clerk", event_type="user.created", event_id=id_, body=body, goals=[goal])


def _iso(at_s: int) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=at_s)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
