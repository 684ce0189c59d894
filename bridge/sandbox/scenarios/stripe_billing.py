"""What happens to subscriptions at Stripe, with every webhook for it; see `stripe_account` for the rest.

Since basil, the items have the periods, invoices name their subscription under `parent`, and only
`invoice_payment.paid` connects a payment intent to its invoice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.sandbox.scenarios.story import DAY_S, Expected, Object, money
from bridge.sandbox.scenarios.stripe_account import Account

if TYPE_CHECKING:
    from bridge.sandbox.scenarios.stripe_objects import Price

MONTH_S: Final = 30 * DAY_S


@dataclass(slots=True)
class Subscription:
    """A subscription, its customer, and the open or latest invoice with its charge."""

    visitor: str
    object: Object
    customer: Object
    price: Price
    invoice: Object
    charge: Object | None = None
    intent: Object | None = None
    failures: int = 0

    @property
    def ends_s(self) -> int:
        """The end of the paid period, wherever this version keeps it."""
        item = self.object["items"]["data"][0]
        end: int = item.get("current_period_end", self.object.get("current_period_end"))
        return end


class Billing(Account):
    """An account that also sells subscriptions."""

    def subscribe(
        self,
        visitor: str,
        price: Price,
        *,
        customer: Object | None = None,
        trial_days: int = 0,
        plan: str | None = None,
    ) -> Subscription:
        """A checkout in subscription mode, with a trial or paid at once."""
        customer = customer or self.customer()
        now = self.story.now_s
        period = (now, now + (trial_days * DAY_S or MONTH_S))
        values = {"status": "trialing", "trial_start": now, "trial_end": period[1]} if trial_days else {}
        made = self.make.subscription(
            price, customer, period, self.carried("subscription", visitor), **(values or {"status": "incomplete"})
        )
        line = (price, 0 if trial_days else price.amount, _describe(price, trial=bool(trial_days)))
        invoice = self.make.invoice(made, customer, [line], reason="subscription_create", period=period)
        made["latest_invoice"] = invoice["id"]
        subscription = Subscription(visitor, made, customer, price, invoice)
        session = self.session(visitor, "subscription", line[1], price.currency, customer, customer["email"], plan)
        session |= {"subscription": made["id"]} | ({"invoice": invoice["id"]} if "invoice" in session else {})
        if trial_days:
            self._start_trial(subscription, session)
        else:
            self._start_paid(subscription, session)
        return subscription

    def _start_trial(self, subscription: Subscription, session: Object) -> None:
        self._card_added(subscription)
        self.event("customer.subscription.created", subscription.object)
        self._open(subscription)
        self._settle(subscription)
        self.event("checkout.session.completed", session | {"payment_status": "no_payment_required"})

    def _start_paid(self, subscription: Subscription, session: Object) -> None:
        self.event("customer.subscription.created", subscription.object)
        self._open(subscription)
        self._pay(subscription, by="api")
        with self.updating(subscription.object, "customer.subscription.updated"):
            subscription.object["status"] = "active"
        self._settle(subscription)
        self.event("checkout.session.completed", session, self.purchase(session, subscription.visitor))

    def _card_added(self, subscription: Subscription) -> None:
        id_ = self.make.ids.stripe("seti")
        intent = self.make.make(
            "setup_intent",
            id=id_,
            client_secret=f"{id_}_secret_{self.make.ids.letters(31)}",
            customer=subscription.customer["id"],
            payment_method=subscription.object["default_payment_method"],
        )
        self.event("setup_intent.succeeded", intent)

    def _open(self, subscription: Subscription, by: str | None = "api") -> None:
        """The invoice is created and finalised."""
        invoice, now = subscription.invoice, self.story.now_s
        self.event("invoice.created", invoice, by=by)
        invoice |= {"status": "open", "hosted_invoice_url": f"https://invoice.stripe.com/i/{self.make.ids.letters(40)}"}
        invoice["status_transitions"] |= {"finalized_at": now}
        if "effective_at" in invoice:
            invoice["effective_at"] = now
        if invoice["amount_due"]:
            self._intend(subscription)
        self.event("invoice.finalized", invoice, by=by)

    def _intend(self, subscription: Subscription) -> None:
        """The payment intent of an invoice; its metadata is empty, and since basil it names no invoice."""
        invoice = subscription.invoice
        subscription.intent = self.make.payment_intent(
            invoice["amount_due"],
            invoice["currency"],
            customer=subscription.customer["id"],
            description="Subscription update"
            if invoice["billing_reason"] != "subscription_create"
            else "Subscription creation",
            invoice=invoice["id"],
            payment_method=subscription.object["default_payment_method"],
            setup_future_usage="off_session",
        )
        if self.make.links_invoices:
            invoice["payment_intent"] = subscription.intent["id"]
        self.event("payment_intent.created", subscription.intent)

    def _pay(self, subscription: Subscription, by: str | None = None) -> None:
        intent, invoice = subscription.intent, subscription.invoice
        assert intent is not None
        subscription.charge = self.make.charge(intent, subscription.customer, email=subscription.customer["email"])
        if self.make.links_invoices:
            invoice["charge"] = subscription.charge["id"]
        self.event("charge.succeeded", subscription.charge, by=by)
        intent |= {"status": "succeeded", "amount_received": intent["amount"]}
        self.event("payment_intent.succeeded", intent, by=by)

    def _settle(self, subscription: Subscription, *goals: Expected, attempts: int = 0, by: str | None = "api") -> None:
        """The invoice is paid."""
        invoice, now = subscription.invoice, self.story.now_s
        paid = invoice["amount_due"]
        invoice |= {"status": "paid", "amount_paid": paid, "amount_remaining": 0, "attempted": True}
        invoice |= {"attempt_count": attempts, "auto_advance": False, "next_payment_attempt": None}
        invoice["status_transitions"] |= {"paid_at": now}
        if "paid" in invoice:
            invoice["paid"] = True
        self.event("invoice.paid", invoice, *goals, by=by)
        self.event("invoice.payment_succeeded", invoice, by=by)
        if paid and not self.make.links_invoices:
            self._bind(subscription)

    def _bind(self, subscription: Subscription) -> None:
        """`invoice_payment.paid`: the only event since basil that names both the invoice and its payment intent."""
        invoice, intent = subscription.invoice, subscription.intent
        assert intent is not None
        payment = self.make.make(
            "invoice_payment",
            id=self.make.ids.stripe("inpay"),
            amount_paid=invoice["amount_paid"],
            amount_requested=invoice["amount_due"],
            currency=invoice["currency"],
            invoice=invoice["id"],
            payment={"payment_intent": intent["id"], "type": "payment_intent"},
        )
        payment["status_transitions"] |= {"paid_at": self.story.now_s}
        self.event("invoice_payment.paid", payment, by=None)

    def trial_will_end(self, subscription: Subscription) -> None:
        self.event("customer.subscription.trial_will_end", subscription.object, by=None)

    def turn(self, subscription: Subscription) -> None:
        """A new period begins: the subscription moves on (and ends its trial), its invoice is drafted and finalised."""
        start = max(subscription.ends_s, self.story.now_s)
        period = (start, start + MONTH_S)
        price = subscription.price
        invoice = self.make.invoice(
            subscription.object,
            subscription.customer,
            [(price, price.amount, _describe(price))],
            reason="subscription_cycle",
            period=period,
        )
        with self.updating(subscription.object, "customer.subscription.updated", by=None):
            self._move(subscription.object, period)
            subscription.object |= {"latest_invoice": invoice["id"], "status": "active"}
        subscription.invoice, subscription.failures = invoice, 0
        self._open(subscription, by=None)

    def _move(self, subscription: Object, period: tuple[int, int]) -> None:
        bounds = {"current_period_start": period[0], "current_period_end": period[1]}
        holder = subscription if "current_period_end" in subscription else subscription["items"]["data"][0]
        holder |= bounds

    def renew(self, subscription: Subscription) -> None:
        """A period ends, and the card works."""
        self.turn(subscription)
        self._pay(subscription)
        self._settle(subscription, attempts=1, by=None)

    def fail(self, subscription: Subscription) -> None:
        """The card for the open invoice is declined; the first time, the subscription becomes past due."""
        invoice, intent = subscription.invoice, subscription.intent
        assert intent is not None
        subscription.failures += 1
        charge = self.make.charge(intent, subscription.customer, email=subscription.customer["email"])
        charge |= {"status": "failed", "paid": False, "captured": False, "amount_captured": 0}
        charge |= {"failure_code": "card_declined", "failure_message": "Your card was declined."}
        charge |= {"balance_transaction": None, "receipt_url": None}
        self.make.attach(intent, charge)
        self.event("charge.failed", charge, by=None)
        self.event("payment_intent.payment_failed", intent, by=None)
        invoice |= {"attempted": True, "attempt_count": subscription.failures}
        invoice["next_payment_attempt"] = self.story.now_s + 3 * DAY_S
        goals = [self._dunning("payment_failed", subscription)] if subscription.failures == 1 else []
        self.event("invoice.payment_failed", invoice, *goals, by=None)
        if subscription.failures == 1:
            with self.updating(subscription.object, "customer.subscription.updated", by=None):
                subscription.object["status"] = "past_due"

    def _dunning(self, goal: str, subscription: Subscription) -> Expected:
        invoice = subscription.invoice
        amount = money(invoice["amount_due"], invoice["currency"])
        return Expected(
            goal,
            subscription.visitor,
            {"provider": "stripe", "amount": amount, "currency": invoice["currency"].upper()},
        )

    def recover(self, subscription: Subscription) -> None:
        """The open invoice is paid after all."""
        self._pay(subscription)
        self._settle(
            subscription,
            self._dunning("payment_recovered", subscription),
            attempts=subscription.failures + 1,
            by=None,
        )
        with self.updating(subscription.object, "customer.subscription.updated", by=None):
            subscription.object["status"] = "active"

    def change(self, subscription: Subscription, price: Price) -> None:
        """The price changes now, with a proration that is paid at once if the new price is higher."""
        old, item = subscription.price, subscription.object["items"]["data"][0]
        goal = Expected(
            "plan_upgraded" if price.amount > old.amount else "plan_downgraded",
            subscription.visitor,
            {
                "provider": "stripe",
                "from_amount": money(old.amount, old.currency),
                "to_amount": money(price.amount, price.currency),
                "currency": price.currency.upper(),
            },
        )
        proration = (price.amount - old.amount) // 2
        with self.updating(subscription.object, "customer.subscription.updated", goal):
            priced = self.make.priced(price)
            item |= priced
            subscription.object["plan"] = priced["plan"]
        subscription.price = price
        if proration > 0:
            self._prorate(subscription, old, proration)

    def _prorate(self, subscription: Subscription, old: Price, proration: int) -> None:
        now, price = self.story.now_s, subscription.price
        lines = [(old, -old.amount // 2, f"Unused time on {old.name}"), (price, 0, f"Remaining time on {price.name}")]
        lines[1] = (price, proration - lines[0][1], lines[1][2])
        subscription.invoice = self.make.invoice(
            subscription.object,
            subscription.customer,
            lines,
            reason="subscription_update",
            period=(now, subscription.ends_s),
        )
        with self.updating(subscription.object, "customer.subscription.updated"):
            subscription.object["latest_invoice"] = subscription.invoice["id"]
        self._open(subscription)
        self._pay(subscription, by="api")
        self._settle(subscription, attempts=1)

    def cancel_later(self, subscription: Subscription, feedback: str = "too_expensive") -> None:
        """The customer cancels in the portal, at the period's end. The newest versions set only `cancel_at`."""
        goal = Expected("cancel_scheduled", subscription.visitor, {"provider": "stripe"})
        with self.updating(subscription.object, "customer.subscription.updated", goal):
            subscription.object |= {
                "cancel_at_period_end": self.make.shape != "dahlia",
                "cancel_at": subscription.ends_s,
                "canceled_at": self.story.now_s,
            }
            if "cancellation_details" in subscription.object:
                subscription.object["cancellation_details"] |= {
                    "feedback": feedback,
                    "reason": "cancellation_requested",
                }

    def undo_cancel(self, subscription: Subscription) -> None:
        """The customer stays after all."""
        goal = Expected("cancel_undone", subscription.visitor, {"provider": "stripe"})
        with self.updating(subscription.object, "customer.subscription.updated", goal):
            subscription.object |= {"cancel_at_period_end": False, "cancel_at": None, "canceled_at": None}
            if "cancellation_details" in subscription.object:
                subscription.object["cancellation_details"] |= {"feedback": None, "reason": None}

    def end(self, subscription: Subscription, reason: str = "cancellation_requested") -> None:
        """The subscription is over. Versions without `cancellation_details` cannot say why."""
        subscription.object |= {"status": "canceled", "ended_at": self.story.now_s}
        goals = []
        if "cancellation_details" in subscription.object:
            subscription.object["cancellation_details"] |= {"reason": reason}
            if reason in ("payment_failed", "payment_disputed"):
                metadata = {"provider": "stripe", "reason": reason}
                goals = [Expected("involuntary_churn", subscription.visitor, metadata)]
        self.event("customer.subscription.deleted", subscription.object, *goals, by=None)


def _describe(price: Price, *, trial: bool = False) -> str:
    if trial:
        return f"Trial period for {price.name}"
    return f"1 \u00d7 {price.name} (at ${money(price.amount, price.currency)} / month)"
