"""Signed Stripe events of about 3.8 KB, each with an id of its own."""

from __future__ import annotations

import hashlib
import hmac
import json
import time

from bench import load
from bench.servers import SECRET

VISITOR = "00000000-0000-4000-8000-{:012x}"


def body(number: int, *, type: str = "invoice.finalized", visitor: bool = False) -> bytes:  # noqa: A002
    """One event. By default, no shipped rule matches its type, as with most events of a flood."""
    thing: dict[str, object] = {
        "id": f"cs_{number:024d}",
        "object": "checkout.session",
        "mode": "payment",
        "payment_status": "paid",
        "amount_total": 4900,
        "currency": "usd",
        "customer": f"cus_{number:014d}",
        "payment_intent": f"pi_{number:024d}",
        "metadata": {"datafast_visitor_id": VISITOR.format(number)} if visitor else {},
        "custom_text": {f"field_{index}": "x" * 40 for index in range(52)},
    }
    event = {
        "id": f"evt_{number:024d}",
        "object": "event",
        "api_version": "2025-03-31.basil",
        "created": int(time.time()),
        "livemode": True,
        "type": type,
        "data": {"object": thing},
    }
    return json.dumps(event, indent=2).encode()


def signed(raw: bytes) -> dict[str, str]:
    now = int(time.time())
    signature = hmac.new(SECRET.encode(), b"%d." % now + raw, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={now},v1={signature}"}


def requests(count: int, first: int = 0, **more: object) -> list[bytes]:
    """This many requests, signed now: use them within five minutes."""
    made = []
    for number in range(first, first + count):
        raw = body(number, **more)  # type: ignore[arg-type]
        made.append(load.build("/webhooks/stripe", raw, signed(raw)))
    return made
