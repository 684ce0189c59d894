"""Life cycles of Stripe customers, each in every API version. As in reality, later events have no visitor id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.sandbox.scenarios.stripe_billing import Billing

if TYPE_CHECKING:
    from bridge.sandbox.scenarios.story import Story


def purchase(story: Story, shape: str) -> None:
    """One-time purchase: the session alone carries the visitor."""
    shop = Billing(story, shape)
    shop.checkout(story.visitor(), 4900, customer=shop.customer(), plan="pro")


def delayed_payment(story: Story, shape: str) -> None:
    """A bank transfer, completed unpaid and paid four days later: one purchase, once the money has arrived."""
    shop = Billing(story, shape)
    bought = shop.checkout(story.visitor(), 19900, currency="eur", customer=shop.customer(), delayed=True)
    story.wait(days=4)
    shop.money_arrives(bought)


def delayed_failure(story: Story, shape: str) -> None:
    """A bank transfer that never comes: no goal at all."""
    shop = Billing(story, shape)
    bought = shop.checkout(story.visitor(), 19900, currency="eur", customer=shop.customer(), delayed=True)
    story.wait(days=4)
    shop.money_fails(bought)


def refund(story: Story, shape: str) -> None:
    """A purchase, and a full refund twelve days later that names no visitor."""
    shop = Billing(story, shape)
    bought = shop.checkout(story.visitor(), 4900, customer=shop.customer(), plan="pro")
    story.wait(days=12)
    shop.refund(bought.visitor, bought.charge, 4900)


def partial_refund(story: Story, shape: str) -> None:
    """A purchase, refunded in two parts: two goals, each with its own amount."""
    shop = Billing(story, shape)
    bought = shop.checkout(story.visitor(), 4900, customer=shop.customer())
    story.wait(days=3)
    shop.refund(bought.visitor, bought.charge, 2000)
    story.wait(days=1)
    shop.refund(bought.visitor, bought.charge, 2900)


def dispute(story: Story, shape: str) -> None:
    """A purchase, then a dispute that names its charge and nothing else."""
    shop = Billing(story, shape)
    bought = shop.checkout(story.visitor(), 12900, customer=shop.customer())
    story.wait(days=20)
    opened = shop.dispute(bought.visitor, bought.charge, names_intent=False)
    story.wait(days=30)
    shop.lose(opened)


def guest(story: Story, shape: str) -> None:
    """A guest checkout (no customer), refunded: the payment intent is the only way back."""
    shop = Billing(story, shape)
    bought = shop.checkout(story.visitor(), 1900, customer=None, email="guest@example.com")
    story.wait(days=2)
    shop.refund(bought.visitor, bought.charge, 1900)


def payment_link(story: Story, shape: str) -> None:
    """A Payment Link with `?client_reference_id=dfv_…`, which is all that a link can carry."""
    shop = Billing(story, shape, carriers=("client_reference_id",))
    bought = shop.checkout(story.visitor(), 2900)
    story.wait(days=1)
    shop.refund(bought.visitor, bought.charge, 2900)


def abandoned(story: Story, shape: str) -> None:
    """A checkout that nobody finished (no goal unless `checkout_abandoned` is switched on)."""
    shop = Billing(story, shape)
    shop.abandon(story.visitor(), 4900)


def subscription(story: Story, shape: str) -> None:
    """Trial, paid, renewed, upgraded, cancelled, undone, renewed, cancelled, ended."""
    shop = Billing(story, shape)
    starter, pro = shop.make.price("Starter", 1900), shop.make.price("Pro", 4900)
    subscribed = shop.subscribe(story.visitor(), starter, trial_days=14)
    story.wait(days=11)
    shop.trial_will_end(subscribed)
    story.wait(days=3)
    shop.renew(subscribed)
    story.wait(days=30)
    shop.renew(subscribed)
    story.wait(days=5)
    shop.change(subscribed, pro)
    story.wait(days=2)
    shop.cancel_later(subscribed)
    story.wait(days=1)
    shop.undo_cancel(subscribed)
    story.wait(days=22)
    shop.renew(subscribed)
    story.wait(days=10)
    shop.cancel_later(subscribed, feedback="unused")
    story.wait(days=20)
    shop.end(subscribed)


def downgrade(story: Story, shape: str) -> None:
    """Paid at once, then a cheaper plan."""
    shop = Billing(story, shape)
    subscribed = shop.subscribe(story.visitor(), shop.make.price("Pro", 4900), plan="pro")
    story.wait(days=6)
    shop.change(subscribed, shop.make.price("Starter", 1900))


def payment_failed(story: Story, shape: str) -> None:
    """A renewal fails twice and succeeds: one `payment_failed`, one `payment_recovered`."""
    shop = Billing(story, shape)
    subscribed = shop.subscribe(story.visitor(), shop.make.price("Pro", 4900))
    story.wait(days=30)
    shop.turn(subscribed)
    shop.fail(subscribed)
    story.wait(days=3)
    shop.fail(subscribed)
    story.wait(days=2)
    shop.recover(subscribed)


def involuntary_churn(story: Story, shape: str) -> None:
    """A renewal fails until Stripe gives up."""
    shop = Billing(story, shape)
    subscribed = shop.subscribe(story.visitor(), shop.make.price("Pro", 4900))
    story.wait(days=30)
    shop.turn(subscribed)
    for _ in range(3):
        shop.fail(subscribed)
        story.wait(days=4)
    shop.end(subscribed, reason="payment_failed")


def renewal_refund(story: Story, shape: str) -> None:
    """A renewal's charge is refunded, after the same customer bought something else on another device.

    The customer's latest visitor would be wrong: the way back is charge, payment intent, invoice,
    subscription, session.
    """
    shop = Billing(story, shape)
    subscribed = shop.subscribe(story.visitor(), shop.make.price("Pro", 4900))
    story.wait(days=9)
    shop.checkout(story.visitor(), 900, customer=subscribed.customer)
    story.wait(days=21)
    shop.renew(subscribed)
    story.wait(days=1)
    assert subscribed.charge is not None
    shop.refund(subscribed.visitor, subscribed.charge, 4900)


def returning_customer(story: Story, shape: str) -> None:
    """One customer buys twice, as two visitors; a refund of the first purchase belongs to the first."""
    shop = Billing(story, shape)
    customer = shop.customer()
    first = shop.checkout(story.visitor(), 4900, customer=customer)
    story.wait(days=5)
    second = shop.checkout(story.visitor(), 9900, customer=customer)
    story.wait(days=2)
    shop.refund(first.visitor, first.charge, 4900)
    shop.refund(second.visitor, second.charge, 1000)


def two_subscriptions(story: Story, shape: str) -> None:
    """Two subscriptions of one customer, begun by two visitors; each cancellation finds its own."""
    shop = Billing(story, shape)
    customer = shop.customer()
    first = shop.subscribe(story.visitor(), shop.make.price("Pro", 4900), customer=customer)
    story.wait(days=7)
    second = shop.subscribe(story.visitor(), shop.make.price("Team", 9900), customer=customer)
    story.wait(days=3)
    shop.cancel_later(first)
    shop.cancel_later(second)


def connect(story: Story, shape: str) -> None:
    """A purchase and its refund on a connected account: every event names `account`."""
    shop = Billing(story, shape, connect=True)
    bought = shop.checkout(story.visitor(), 3900, customer=shop.customer())
    story.wait(days=2)
    shop.refund(bought.visitor, bought.charge, 3900)
