"""Life cycles of Lemon Squeezy customers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.sandbox.scenarios.lemonsqueezy_store import LemonSqueezyStore

if TYPE_CHECKING:
    from bridge.sandbox.scenarios.story import Story


def order(story: Story) -> None:
    """An order in euros, refunded in part and then in full."""
    store = LemonSqueezyStore(story)
    sale = store.order(story.visitor(), 4900, currency="EUR", product="Café guide (2nd edition) ✓")
    story.wait(days=3)
    store.refund(sale, 2000)
    story.wait(days=2)
    store.refund(sale, 4900)


def subscription(story: Story) -> None:
    """Paid, renewed, cancelled, resumed, renewed, cancelled, expired."""
    store = LemonSqueezyStore(story)
    sale = store.subscribe(story.visitor(), 1900)
    story.wait(days=30)
    store.renew(sale)
    story.wait(days=4)
    store.cancel(sale)
    story.wait(days=1)
    store.resume(sale)
    story.wait(days=25)
    store.renew(sale)
    story.wait(days=10)
    store.cancel(sale)
    story.wait(days=20)
    store.expire(sale)


def trial(story: Story) -> None:
    """A trial (a free order is not a purchase) that becomes a paid subscription, and later a bigger plan."""
    store = LemonSqueezyStore(story)
    sale = store.subscribe(story.visitor(), 2900, trial_days=7)
    story.wait(days=7)
    store.renew(sale)
    story.wait(days=3)
    store.change(sale, "Team")


def payment_failed(story: Story) -> None:
    """A renewal fails and is recovered; later a month is refunded in part."""
    store = LemonSqueezyStore(story)
    sale = store.subscribe(story.visitor(), 1900, currency="EUR")
    story.wait(days=30)
    invoice = store.fail(sale)
    story.wait(days=3)
    store.recover(sale, invoice)
    story.wait(days=1)
    store.refund_invoice(sale, invoice, 500)


def licence(story: Story) -> None:
    """An order with a licence key, which is activated."""
    store = LemonSqueezyStore(story)
    sale = store.order(story.visitor(), 7900)
    key = store.license(sale)
    story.wait(hours=1)
    store.activate(sale, key)


def paused(story: Story) -> None:
    """A subscription is paused and unpaused (no goal unless the rule is switched on)."""
    store = LemonSqueezyStore(story)
    sale = store.subscribe(story.visitor(), 1900)
    story.wait(days=8)
    store.pause(sale)
    story.wait(days=9)
    store.unpause(sale)
