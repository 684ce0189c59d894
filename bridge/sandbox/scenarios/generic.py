"""Events of your own application, and a Polar order, both signed according to Standard Webhooks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bridge.sandbox.scenarios.story import Expected, Story, money

if TYPE_CHECKING:
    from collections.abc import Mapping


def _send(story: Story, visitor: str, event: str, metadata: Mapping[str, str]) -> None:
    id_ = f"msg_{story.ids.letters(27)}"
    body = {"event": event, "id": id_, "datafast_visitor_id": visitor, "metadata": dict(metadata)}
    goal = Expected(event, visitor, dict(metadata))
    story.tell(source="generic", wire="standard-webhooks", event_type=event, event_id=id_, body=body, goals=[goal])


def application(story: Story) -> None:
    """Your own application reports a sign-up, an invited colleague and a booked demo."""
    visitor = story.visitor()
    _send(story, visitor, "signup", {"plan": "free", "method": "google"})
    story.wait(hours=2)
    _send(story, visitor, "invited_teammate", {"seats": "2"})
    story.wait(days=1)
    _send(story, visitor, "demo_booked", {"length": "30 min"})


def polar(story: Story) -> None:
    """A paid order at Polar (needs `mappings/examples/polar.yaml` in your mappings folder)."""
    visitor, ids = story.visitor(), story.ids
    when = datetime.fromtimestamp(story.now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    customer, product = ids.uuid(), ids.uuid()
    body = {
        "type": "order.paid",
        "timestamp": when,
        "data": {
            "id": ids.uuid(),
            "created_at": when,
            "modified_at": None,
            "status": "paid",
            "paid": True,
            "subtotal_amount": 4900,
            "discount_amount": 0,
            "net_amount": 4900,
            "tax_amount": 0,
            "total_amount": 4900,
            "refunded_amount": 0,
            "currency": "usd",
            "billing_reason": "purchase",
            "customer_id": customer,
            "product_id": product,
            "checkout_id": ids.uuid(),
            "subscription_id": None,
            "metadata": {"datafast_visitor_id": visitor},
            "custom_field_data": {},
            "customer": {"id": customer, "email": "ada@example.com", "name": "Ada Lovelace", "metadata": {}},
            "product": {"id": product, "name": "Pro"},
        },
    }
    goal = Expected("purchase", visitor, {"amount": money(4900, "usd"), "currency": "USD"})
    id_ = f"msg_{ids.letters(27)}"
    story.tell(source="polar", wire="polar", event_type="order.paid", event_id=id_, body=body, goals=[goal])
