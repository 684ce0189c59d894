"""Builds Stripe's objects with ids in Stripe's formats, and computes what an update changed.

It knows how the objects refer to each other in each API version, and nothing about what happens when.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge.sandbox.scenarios import shapes
from bridge.sandbox.scenarios.story import DAY_S, Ids, Object, Story

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Price:
    """A recurring price as the seller created it."""

    id: str
    product: str
    name: str
    amount: int
    currency: str
    created_s: int


def listed(url: str, *items: Object) -> Object:
    """Stripe's envelope for a list."""
    return {"object": "list", "data": list(items), "has_more": False, "total_count": len(items), "url": url}


def difference(before: Object, after: Object) -> Object:
    """`previous_attributes`: the old values of what changed; for a changed object, only what changed in it."""
    previous: Object = {}
    for key, old in before.items():
        new = after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            previous[key] = difference(old, new)
        else:
            previous[key] = copy.deepcopy(old)
    return previous


class Objects:
    """The objects of one account in one API version."""

    def __init__(self, story: Story, shape: str) -> None:
        self.shape = shape
        self.live = not story.test
        self._story = story
        self._number = 0

    @property
    def ids(self) -> Ids:
        return self._story.ids

    @property
    def links_invoices(self) -> bool:
        """Before basil, charges and payment intents named their invoice, and invoices their payment intent."""
        return self.shape in ("2020", "acacia")

    def make(self, name: str, /, **values: Any) -> Object:
        """An object of this account, created now."""
        values.setdefault("created", self._story.now_s)
        values.setdefault("livemode", self.live)
        template = shapes.stripe(name, self.shape)
        for automatic in ("created", "livemode"):
            if automatic not in template:
                del values[automatic]
        return shapes.stripe(name, self.shape, **values)

    def price(self, name: str, amount: int, currency: str = "usd") -> Price:
        ids = self.ids
        return Price(
            ids.stripe("price"), f"prod_{ids.letters(14)}", name, amount, currency, self._story.now_s - 90 * DAY_S
        )

    def customer(self, email: str, name: str) -> Object:
        return self.make(
            "customer",
            id=f"cus_{self.ids.letters(14)}",
            email=email,
            name=name,
            invoice_prefix=self.ids.letters(8).upper(),
            preferred_locales=["en"],
        )

    def session(self, **values: Any) -> Object:
        live = "live" if self.live else "test"
        values.setdefault("expires_at", self._story.now_s + DAY_S)
        return self.make("checkout.session", id=f"cs_{live}_a1{self.ids.letters(56)}", **values)

    def payment_intent(self, amount: int, currency: str, **values: Any) -> Object:
        id_ = self.ids.stripe("pi", "3")
        return self.make(
            "payment_intent",
            id=id_,
            amount=amount,
            currency=currency,
            client_secret=f"{id_}_secret_{self.ids.letters(25)}",
            status="requires_payment_method",
            **values,
        )

    def charge(self, intent: Object, customer: Object | None, *, email: str | None = None) -> Object:
        """The charge of a successful payment intent; the intent then names it, in the way of its version."""
        id_ = self.ids.stripe("ch", "3")
        details = shapes.stripe("charge", self.shape)["billing_details"] | {"email": email}
        charge = self.make(
            "charge",
            id=id_,
            amount=intent["amount"],
            amount_captured=intent["amount"],
            balance_transaction=self.ids.stripe("txn", "3"),
            billing_details=details,
            currency=intent["currency"],
            customer=customer and customer["id"],
            description=intent["description"],
            invoice=intent.get("invoice"),
            metadata=dict(intent["metadata"]),
            payment_intent=intent["id"],
            payment_method=intent["payment_method"],
            receipt_url=f"https://pay.stripe.com/receipts/payment/{self.ids.letters(64)}",
            refunds=listed(f"/v1/charges/{id_}/refunds"),
        )
        self.attach(intent, charge)
        return charge

    def attach(self, intent: Object, charge: Object) -> None:
        if "charges" in intent:
            intent["charges"] = listed(f"/v1/charges?payment_intent={intent['id']}", copy.deepcopy(charge))
        if "latest_charge" in intent:
            intent["latest_charge"] = charge["id"]

    def item(self, subscription: str, price: Price, period: tuple[int, int]) -> Object:
        return self.make(
            "subscription_item",
            id=f"si_{self.ids.letters(14)}",
            subscription=subscription,
            current_period_start=period[0],
            current_period_end=period[1],
            **self.priced(price),
        )

    def priced(self, price: Price) -> dict[str, Object]:
        """The fields `price` and `plan` of a subscription item."""
        common = {
            "id": price.id,
            "product": price.product,
            "nickname": price.name,
            "currency": price.currency,
            "created": price.created_s,
        }
        amount = str(price.amount)
        return {
            "price": self.make("price", **common, unit_amount=price.amount, unit_amount_decimal=amount),
            "plan": self.make("plan", **common, amount=price.amount, amount_decimal=amount),
        }

    def subscription(
        self, price: Price, customer: Object, period: tuple[int, int], metadata: Mapping[str, str], **values: Any
    ) -> Object:
        id_ = self.ids.stripe("sub")
        return self.make(
            "subscription",
            id=id_,
            billing_cycle_anchor=self._story.now_s,
            currency=price.currency,
            current_period_start=period[0],
            current_period_end=period[1],
            customer=customer["id"],
            default_payment_method=self.ids.stripe("pm"),
            items=listed(f"/v1/subscription_items?subscription={id_}", self.item(id_, price, period)),
            metadata=dict(metadata),
            plan=self.priced(price)["plan"],
            start_date=self._story.now_s,
            **values,
        )

    def invoice(
        self,
        subscription: Object,
        customer: Object,
        lines: Sequence[tuple[Price, int, str]],
        *,
        reason: str,
        period: tuple[int, int],
    ) -> Object:
        """A draft invoice of a subscription; each line is (price, amount, description)."""
        id_ = self.ids.stripe("in")
        self._number += 1
        total = sum(amount for _, amount, _ in lines)
        rows = [self._line(id_, subscription, line, period, reason) for line in lines]
        metadata = dict(subscription["metadata"])
        parent = {
            "quote_details": None,
            "subscription_details": {"metadata": metadata, "subscription": subscription["id"]},
            "type": "subscription_details",
        }
        return self.make(
            "invoice",
            id=id_,
            amount_due=total,
            amount_remaining=total,
            billing_reason=reason,
            currency=subscription["items"]["data"][0]["price"]["currency"],
            customer=customer["id"],
            customer_email=customer["email"],
            customer_name=customer["name"],
            lines=listed(f"/v1/invoices/{id_}/lines", *rows),
            number=f"{customer['invoice_prefix']}-{self._number:04}",
            parent=parent,
            period_start=period[0],
            period_end=period[0],
            subscription=subscription["id"],
            subscription_details={"metadata": metadata},
            **dict.fromkeys(("subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax"), total),
        )

    def _line(
        self, invoice: str, subscription: Object, line: tuple[Price, int, str], period: tuple[int, int], reason: str
    ) -> Object:
        price, amount, description = line
        item, proration = subscription["items"]["data"][0]["id"], reason == "subscription_update"
        details = {
            "invoice_item": self.ids.stripe("ii") if proration else None,
            "proration": proration,
            "proration_details": {"credited_items": None},
            "subscription": subscription["id"],
            "subscription_item": item,
        }
        return self.make(
            "line_item",
            id=self.ids.stripe("il"),
            amount=amount,
            amount_excluding_tax=amount,
            currency=price.currency,
            description=description,
            invoice=invoice,
            metadata=dict(subscription["metadata"]),
            parent={
                "invoice_item_details": None,
                "subscription_item_details": details,
                "type": "subscription_item_details",
            },
            period={"start": period[0], "end": period[1]},
            pricing={
                "price_details": {"price": price.id, "product": price.product},
                "type": "price_details",
                "unit_amount_decimal": str(price.amount),
            },
            proration=proration,
            subscription=subscription["id"],
            subscription_item=item,
            subtotal=amount,
            unit_amount_excluding_tax=str(price.amount),
            **self.priced(price),
        )
