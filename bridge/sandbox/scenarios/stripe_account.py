"""A Stripe account that sells: what happens to it, and every webhook that Stripe sends as a result.

Each method is one action of a buyer, a seller or the calendar. It updates the objects and records the events,
side events included, in an order in which Stripe may send them.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.sandbox.scenarios import shapes
from bridge.sandbox.scenarios.story import DAY_S, Expected, Object, Story, money
from bridge.sandbox.scenarios.stripe_objects import Objects, difference, listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(slots=True)
class Purchase:
    """A checkout in payment mode, and the visitor to whom everything that follows must be attributed."""

    visitor: str
    session: Object
    intent: Object
    customer: Object | None
    charge: Object


class Account:
    """One account in one API version.

    carriers: where the shop's code puts the visitor id: session, subscription, payment_intent, client_reference_id.
    user: the app's own id of the buyer, which the shop's code puts into client_reference_id instead.
    """

    def __init__(
        self,
        story: Story,
        shape: str = "basil",
        *,
        connect: bool = False,
        carriers: Sequence[str] = ("session",),
        user: str | None = None,
    ) -> None:
        self.story = story
        self.make = Objects(story, shape)
        self._version = shapes.STRIPE[shape]
        self._account = story.ids.account() if connect else None
        self._carriers = frozenset(carriers)
        self._user = user

    # ------------------------------------------------------------------------------------------------ recording

    def event(
        self,
        name: str,
        thing: Object,
        *goals: Expected,
        previous: Object | None = None,
        by: str | None = "api",
    ) -> None:
        """Record one event. by: an API call caused it (api), or Stripe itself (None)."""
        ids = self.story.ids
        family = "3" if str(thing.get("id", "")).partition("_")[2][:1] == "3" else "1"
        id_ = ids.stripe("evt", family)
        body: Object = {
            "id": id_,
            "object": "event",
            "api_version": self._version,
            "created": self.story.now_s,
            "data": {"object": thing} | ({"previous_attributes": previous} if previous is not None else {}),
            "livemode": self.make.live,
            "pending_webhooks": 1,
            "request": {
                "id": f"req_{ids.letters(14)}" if by else None,
                "idempotency_key": ids.uuid() if by else None,
            },
            "type": name,
        }
        if self._account:
            body["account"] = self._account
        self.story.tell(source="stripe", wire="stripe", event_type=name, event_id=id_, body=body, goals=goals)

    @contextmanager
    def updating(self, thing: Object, name: str, *goals: Expected, by: str | None = "api") -> Iterator[None]:
        """Change an object in the block; the event then says what changed."""
        before = copy.deepcopy(thing)
        yield
        self.event(name, thing, *goals, previous=difference(before, thing), by=by)

    def carried(self, carrier: str, visitor: str) -> dict[str, str]:
        return {"datafast_visitor_id": visitor} if carrier in self._carriers else {}

    # ---------------------------------------------------------------------------------------------- one-time

    def customer(self, email: str = "ada@example.com", name: str = "Ada Lovelace") -> Object:
        customer = self.make.customer(email, name)
        self.event("customer.created", customer)
        return customer

    def checkout(
        self,
        visitor: str,
        amount: int,
        *,
        customer: Object | None = None,
        currency: str = "usd",
        plan: str | None = None,
        email: str = "ada@example.com",
        delayed: bool = False,
    ) -> Purchase:
        """A paid checkout in payment mode; `delayed`: the money is still on its way (see `money_arrives`)."""
        intent = self.make.payment_intent(
            amount, currency, customer=customer and customer["id"], metadata=self.carried("payment_intent", visitor)
        )
        intent["payment_method"] = self.make.ids.stripe("pm")
        session = self.session(visitor, "payment", amount, currency, customer, email, plan)
        session |= {"payment_intent": intent["id"], "payment_status": "unpaid" if delayed else "paid"}
        self.event("payment_intent.created", intent)
        charge = self.make.charge(intent, customer, email=email)
        purchase = Purchase(visitor, session, intent, customer, charge)
        if delayed:
            self._wait_for_money(purchase)
        else:
            self._take_money(purchase)
        self.event("checkout.session.completed", session, *(() if delayed else (self.purchase(session, visitor),)))
        return purchase

    def session(
        self,
        visitor: str,
        mode: str,
        amount: int,
        currency: str,
        customer: Object | None,
        email: str,
        plan: str | None,
    ) -> Object:
        session = self.make.session(
            amount_subtotal=amount,
            amount_total=amount,
            client_reference_id=f"dfv_{visitor}" if "client_reference_id" in self._carriers else self._user,
            currency=currency,
            customer=customer and customer["id"],
            metadata=self.carried("session", visitor) | ({"plan": plan} if plan else {}),
            mode=mode,
        )
        session["customer_details"] |= {"email": email}
        if mode != "payment":
            session |= {"payment_method_collection": "always"} if "payment_method_collection" in session else {}
            session |= {"customer_creation": None, "invoice_creation": None} if "invoice_creation" in session else {}
        return session

    def purchase(self, session: Object, visitor: str) -> Expected:
        currency = session["currency"]
        metadata = {
            "provider": "stripe",
            "amount": money(session["amount_total"], currency),
            "currency": currency.upper(),
            "mode": session["mode"],
        }
        if "plan" in session["metadata"]:
            metadata["plan"] = session["metadata"]["plan"]
        return Expected("purchase", visitor, metadata)

    def _take_money(self, purchase: Purchase) -> None:
        self.event("charge.succeeded", purchase.charge)
        purchase.intent |= {"status": "succeeded", "amount_received": purchase.intent["amount"]}
        self.make.attach(purchase.intent, purchase.charge)
        self.event("payment_intent.succeeded", purchase.intent)

    def _wait_for_money(self, purchase: Purchase) -> None:
        purchase.charge |= {"status": "pending", "paid": False}
        purchase.intent |= {"status": "processing"}
        self.make.attach(purchase.intent, purchase.charge)
        self.event("charge.pending", purchase.charge)
        self.event("payment_intent.processing", purchase.intent)

    def money_arrives(self, purchase: Purchase) -> None:
        """A delayed payment succeeds."""
        purchase.charge |= {"status": "succeeded", "paid": True}
        self._take_money(purchase)
        purchase.session["payment_status"] = "paid"
        goal = self.purchase(purchase.session, purchase.visitor)
        self.event("checkout.session.async_payment_succeeded", purchase.session, goal, by=None)

    def money_fails(self, purchase: Purchase) -> None:
        """A delayed payment fails for good."""
        purchase.charge |= {"status": "failed", "failure_code": "insufficient_funds"}
        purchase.intent |= {"status": "requires_payment_method"}
        self.make.attach(purchase.intent, purchase.charge)
        self.event("charge.failed", purchase.charge, by=None)
        self.event("payment_intent.payment_failed", purchase.intent, by=None)
        self.event("checkout.session.async_payment_failed", purchase.session, by=None)

    def abandon(self, visitor: str, amount: int) -> None:
        """A checkout that nobody finished, expired after a day."""
        session = self.session(visitor, "payment", amount, "usd", None, "", None)
        session |= {"payment_status": "unpaid", "status": "expired"}
        session["customer_details"] = None
        self.event("checkout.session.expired", session, by=None)

    # ----------------------------------------------------------------------------------------- money going back

    def refund(self, visitor: str, charge: Object, amount: int) -> None:
        """Refund all or part of a charge."""
        refund = self.make.make(
            "refund",
            id=self.make.ids.stripe("re", "3"),
            amount=amount,
            balance_transaction=self.make.ids.stripe("txn", "3"),
            charge=charge["id"],
            currency=charge["currency"],
            payment_intent=charge["payment_intent"],
        )
        total = charge["amount_refunded"] + amount
        goal = Expected(
            "refund",
            visitor,
            {
                "provider": "stripe",
                "amount": money(amount, charge["currency"]),
                "currency": charge["currency"].upper(),
                "full": "true" if total == charge["amount"] else "false",
            },
        )
        if self.make.shape != "2020":
            self.event("refund.created", refund)
        with self.updating(charge, "charge.refunded", goal):
            charge |= {"amount_refunded": total, "refunded": total == charge["amount"]}
            if "refunds" in charge:
                charge["refunds"] = listed(charge["refunds"]["url"], refund, *charge["refunds"]["data"])
        with self.updating(refund, "charge.refund.updated", by=None):
            refund["receipt_number"] = f"{self.make.ids.number(4)}-{self.make.ids.number(4)}"

    def dispute(self, visitor: str, charge: Object, *, names_intent: bool = True) -> Object:
        """The buyer's bank takes the money back; a dispute names its charge, but not always the payment intent."""
        dispute = self.make.make(
            "dispute",
            id=self.make.ids.stripe("dp"),
            amount=charge["amount"],
            charge=charge["id"],
            currency=charge["currency"],
            payment_intent=charge["payment_intent"] if names_intent else None,
        )
        dispute["evidence_details"] |= {"due_by": self.story.now_s + 9 * DAY_S}
        currency = charge["currency"]
        metadata = {
            "provider": "stripe",
            "amount": money(charge["amount"], currency),
            "currency": currency.upper(),
            "reason": "fraudulent",
        }
        self.event("charge.dispute.created", dispute, Expected("dispute", visitor, metadata), by=None)
        self.event("charge.dispute.funds_withdrawn", dispute, by=None)
        return dispute

    def lose(self, dispute: Object) -> None:
        dispute["status"] = "lost"
        self.event("charge.dispute.closed", dispute, by=None)
