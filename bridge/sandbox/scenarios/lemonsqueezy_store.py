"""A Lemon Squeezy store: what happens in it, and every webhook that it sends as a result.

The visitor is in `meta.custom_data` of order, subscription and licence events. Payments of later months do not have it
here: the documentation says that they may, nobody has seen it, and the bridge must not depend on it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bridge.sandbox.scenarios import shapes
from bridge.sandbox.scenarios.story import DAY_S, Expected, Object, Story, money

_API: Final = "https://api.lemonsqueezy.com/v1"
_SIGNS: Final = {"USD": "$", "EUR": "€"}
_RATE: Final = {"USD": "1.00000000", "EUR": "1.07424309"}
_AMOUNTS: Final = ("subtotal", "total")


def _when(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def _priced(attributes: Object, total: int, currency: str) -> None:
    """Write one amount into every field that shows it: in cents, in dollar cents, and as text."""
    dollars = round(total * float(_RATE[currency]))
    attributes |= {"currency": currency, "currency_rate": _RATE[currency]}
    for field in attributes:
        if field.endswith("_formatted") and field.removesuffix("_formatted") in attributes:
            bare = field.removesuffix("_formatted")
            if isinstance(attributes[bare], int):
                cents = total if bare in _AMOUNTS else 0
                attributes[field] = f"{_SIGNS[currency]}{money(cents, currency)}"
    for name in _AMOUNTS:
        attributes |= {name: total, f"{name}_usd": dollars}


@dataclass(slots=True)
class Resource:
    """One JSON:API resource of the store: its type, its id and its attributes."""

    type: str
    id: int
    attributes: Object


@dataclass(slots=True)
class Sale:
    """An order, its subscription if it began one, and the visitor who placed the order."""

    visitor: str
    order: Resource
    subscription: Resource | None = None
    total: int = 0
    currency: str = "USD"

    @property
    def product(self) -> str:
        name: str = self.order.attributes["first_order_item"]["product_name"]
        return name


class LemonSqueezyStore:
    """One store. Each method is something that happens in it, and records the webhooks that report it."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._customer = story.ids.number(7)

    # ------------------------------------------------------------------------------------------------ recording

    def event(self, name: str, resource: Resource, visitor: str | None, *goals: Expected) -> None:
        meta: Object = {"test_mode": self.story.test, "event_name": name, "webhook_id": self.story.ids.uuid()}
        if visitor:
            meta["custom_data"] = {"datafast_visitor_id": visitor}
        body = {"meta": meta, "data": self._document(resource)}
        self.story.tell(
            source="lemonsqueezy",
            wire="lemonsqueezy",
            event_type=name,
            event_id=meta["webhook_id"],
            body=body,
            goals=goals,
        )

    def _document(self, resource: Resource) -> Object:
        here = f"{_API}/{resource.type}/{resource.id}"
        names = shapes.lemonsqueezy(resource.type)["relationships"]
        relationships = {
            name: {"links": {"related": f"{here}/{name}", "self": f"{here}/relationships/{name}"}} for name in names
        }
        self._sign_urls(resource)
        return {
            "type": resource.type,
            "id": str(resource.id),
            "attributes": copy.deepcopy(resource.attributes),
            "relationships": relationships,
            "links": {"self": here},
        }

    def _sign_urls(self, resource: Resource) -> None:
        """Sign the links in a body again, as for every rendering."""
        for name in resource.attributes.get("urls", {}):
            tail = f"expires={self.story.now_s + DAY_S}&signature={self.story.ids.hex(64)}"
            resource.attributes["urls"][name] = f"https://app.lemonsqueezy.com/my-orders/{resource.id}/{name}?{tail}"

    def _resource(self, kind: str, **values: Any) -> Resource:
        attributes = shapes.lemonsqueezy(kind)["attributes"]
        now = _when(self.story.now_s)
        attributes |= {"created_at": now, "updated_at": now, "customer_id": self._customer}
        attributes |= {"test_mode": self.story.test}
        unknown = values.keys() - attributes.keys()
        if unknown:
            raise KeyError(f"{kind} has no {sorted(unknown)}")
        return Resource(kind, self.story.ids.number(7), attributes | values)

    def _touch(self, resource: Resource, **values: Any) -> None:
        resource.attributes |= {"updated_at": _when(self.story.now_s), **values}

    # -------------------------------------------------------------------------------------------------- orders

    def order(self, visitor: str, total: int, *, currency: str = "USD", product: str = "Pro plan") -> Sale:
        """A paid order: one `order_created`."""
        ids, now = self.story.ids, _when(self.story.now_s)
        order = self._resource("orders", identifier=ids.uuid(), order_number=ids.number(5))
        _priced(order.attributes, total, currency)
        order.attributes["first_order_item"] |= {
            "id": ids.number(7),
            "order_id": order.id,
            "product_name": product,
            "price": total,
            "created_at": now,
            "updated_at": now,
            "test_mode": self.story.test,
        }
        sale = Sale(visitor, order, total=total, currency=currency)
        metadata = {"provider": "lemonsqueezy", "amount": money(total, currency), "currency": currency}
        goals = [Expected("purchase", visitor, metadata | {"product": product})] if total else []
        self.event("order_created", order, visitor, *goals)
        return sale

    def refund(self, sale: Sale, total: int) -> None:
        """`total` of the order is now refunded (the amount grows; if it is only a part, `refunded` stays false)."""
        full = total == sale.total
        self._refunded(sale.order, total, sale.currency, full=full)
        metadata = {
            "provider": "lemonsqueezy",
            "refunded_total": money(total, sale.currency),
            "currency": sale.currency,
            "full": "true" if full else "false",
        }
        self.event("order_refunded", sale.order, sale.visitor, Expected("refund", sale.visitor, metadata))

    def _refunded(self, resource: Resource, total: int, currency: str, *, full: bool) -> None:
        status = ("refunded", "Refunded") if full else ("partial_refund", "Partial refund")
        self._touch(resource, status=status[0], status_formatted=status[1], refunded=full)
        resource.attributes |= {
            "refunded_at": _when(self.story.now_s) if full else None,
            "refunded_amount": total,
            "refunded_amount_usd": round(total * float(_RATE[currency])),
            "refunded_amount_formatted": f"{_SIGNS[currency]}{money(total, currency)}",
        }

    def license(self, sale: Sale) -> Resource:
        """The licence key of an order."""
        secret = self.story.ids.uuid().upper()
        item = sale.order.attributes["first_order_item"]
        key = self._resource(
            "license-keys",
            order_id=sale.order.id,
            order_item_id=item["id"],
            key=secret,
            key_short=f"XXXX-{secret[-12:]}",
        )
        self.event("license_key_created", key, sale.visitor)
        return key

    def activate(self, sale: Sale, key: Resource) -> None:
        self._touch(key, status="active", status_formatted="Active", instances_count=1)
        self.event("license_key_updated", key, sale.visitor)

    # ------------------------------------------------------------------------------------------- subscriptions

    def subscribe(self, visitor: str, price: int, *, currency: str = "USD", trial_days: int = 0) -> Sale:
        """An order with its subscription and the first invoice (of zero in a trial)."""
        sale = self.order(visitor, 0 if trial_days else price, currency=currency)
        item = sale.order.attributes["first_order_item"]
        until = self.story.now_s + (trial_days or 30) * DAY_S
        subscription = self._resource(
            "subscriptions",
            order_id=sale.order.id,
            order_item_id=item["id"],
            billing_anchor=datetime.fromtimestamp(until, UTC).day,
            renews_at=_when(until),
        )
        if trial_days:
            trial = {"status": "on_trial", "status_formatted": "On Trial", "trial_ends_at": _when(until)}
            subscription.attributes |= trial
        subscription.attributes["first_subscription_item"] |= {
            "id": self.story.ids.number(6),
            "subscription_id": subscription.id,
            "created_at": _when(self.story.now_s),
            "updated_at": _when(self.story.now_s),
        }
        sale.subscription, sale.total = subscription, price
        self.event("subscription_created", subscription, visitor)
        self.event("subscription_payment_success", self._invoice(sale, "initial", 0 if trial_days else price), visitor)
        self._updated(sale)
        return sale

    def _invoice(self, sale: Sale, reason: str, total: int, **values: Any) -> Resource:
        assert sale.subscription is not None
        invoice = self._resource(
            "subscription-invoices", subscription_id=sale.subscription.id, billing_reason=reason, **values
        )
        _priced(invoice.attributes, total, sale.currency)
        if not total:
            invoice.attributes |= {"card_brand": None, "card_last_four": None}
        return invoice

    def _updated(self, sale: Sale) -> None:
        """`subscription_updated`: the catch-all event that accompanies every other subscription event."""
        assert sale.subscription is not None
        self.event("subscription_updated", sale.subscription, sale.visitor)

    def _update(self, sale: Sale, **values: Any) -> None:
        assert sale.subscription is not None
        self._touch(sale.subscription, **values)
        self._updated(sale)

    def renew(self, sale: Sale) -> Resource:
        """A new period, which is paid."""
        invoice = self._invoice(sale, "renewal", sale.total)
        self.event("subscription_payment_success", invoice, None)
        self._update(sale, status="active", status_formatted="Active", renews_at=_when(self.story.now_s + 30 * DAY_S))
        return invoice

    def fail(self, sale: Sale) -> Resource:
        """A renewal whose card is declined."""
        invoice = self._invoice(sale, "renewal", sale.total, status="pending", status_formatted="Pending")
        self.event("subscription_payment_failed", invoice, None, self._dunning("payment_failed", sale))
        self._update(sale, status="past_due", status_formatted="Past Due")
        return invoice

    def recover(self, sale: Sale, invoice: Resource) -> None:
        """The failed invoice is paid after all; the success event accompanies it."""
        self._touch(invoice, status="paid", status_formatted="Paid")
        self.event("subscription_payment_success", invoice, None)
        self.event("subscription_payment_recovered", invoice, None, self._dunning("payment_recovered", sale))
        self._update(sale, status="active", status_formatted="Active")

    def _dunning(self, goal: str, sale: Sale) -> Expected:
        amount = money(sale.total, sale.currency)
        return Expected(goal, sale.visitor, {"provider": "lemonsqueezy", "amount": amount, "currency": sale.currency})

    def refund_invoice(self, sale: Sale, invoice: Resource, total: int) -> None:
        """All or part of one month's payment is refunded."""
        full = total == sale.total
        self._refunded(invoice, total, sale.currency, full=full)
        metadata = {
            "provider": "lemonsqueezy",
            "refunded_total": money(total, sale.currency),
            "currency": sale.currency,
            "full": "true" if full else "false",
            "billing_reason": "renewal",
        }
        self.event("subscription_payment_refunded", invoice, None, Expected("refund", sale.visitor, metadata))

    def cancel(self, sale: Sale) -> None:
        """The subscription is cancelled, and remains paid until `ends_at`."""
        assert sale.subscription is not None
        self._transition(
            sale,
            "subscription_cancelled",
            "cancel_scheduled",
            status="cancelled",
            status_formatted="Cancelled",
            cancelled=True,
            ends_at=sale.subscription.attributes["renews_at"],
        )

    def resume(self, sale: Sale) -> None:
        active = {"status": "active", "status_formatted": "Active", "cancelled": False, "ends_at": None}
        self._transition(sale, "subscription_resumed", "cancel_undone", **active)

    def expire(self, sale: Sale) -> None:
        self._transition(sale, "subscription_expired", None, status="expired", status_formatted="Expired")

    def pause(self, sale: Sale) -> None:
        paused = {"mode": "void", "resumes_at": _when(self.story.now_s + 30 * DAY_S)}
        self._transition(sale, "subscription_paused", None, status="paused", status_formatted="Paused", pause=paused)

    def unpause(self, sale: Sale) -> None:
        self._transition(sale, "subscription_unpaused", None, status="active", status_formatted="Active", pause=None)

    def change(self, sale: Sale, variant: str) -> None:
        number = self.story.ids.number(6)
        self._transition(sale, "subscription_plan_changed", "plan_changed", variant_id=number, variant_name=variant)

    def _transition(self, sale: Sale, event: str, goal: str | None, **values: Any) -> None:
        assert sale.subscription is not None
        self._touch(sale.subscription, **values)
        metadata = {"provider": "lemonsqueezy", "product": sale.product}
        goals = [Expected(goal, sale.visitor, metadata)] if goal else []
        self.event(event, sale.subscription, sale.visitor, *goals)
        self._updated(sale)
