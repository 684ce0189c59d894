"""Lookups as processes: a web process receives, a worker asks Stripe, and without a key nobody imports its package."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from running import ALICE, BOB, KEY, checkout, environment, event, eventually

HERE = Path(__file__).parent
LIVE = "rk_live_that_must_not_be_told"


def worker(machine, datafast, database_url, name, **more):
    environ = environment(datafast, database_url, BRIDGE_WEAK_AFTER="2s", **more)
    made = machine.run(["python", str(HERE / "looking_up.py"), datafast.url], environ, name)
    made.wait_for("working")
    return made


def renewal():
    thing = {
        "id": "in_1",
        "object": "invoice",
        "amount_paid": 4900,
        "attempt_count": 2,
        "billing_reason": "subscription_cycle",
        "currency": "usd",
        "customer": "cus_1",
        "metadata": {},
        "parent": {"subscription_details": {"metadata": {}, "subscription": "sub_1"}},
    }
    return event("invoice.paid", thing, "evt_in_1")


def session():
    """The checkout from before the bridge, as Stripe has it."""
    return {
        "id": "cs_live_old",
        "object": "checkout.session",
        "created": 1_780_000_000,
        "livemode": True,
        "subscription": "sub_1",
        "customer": "cus_1",
        "metadata": {"datafast_visitor_id": ALICE},
    }


def seed(datafast):
    answer = requests.post(f"{datafast.url}/__fake__/stripe", json={"objects": [session()]}, timeout=20)
    answer.raise_for_status()


@pytest.mark.long
def test_a_renewal_of_an_old_customer_is_looked_up_by_the_worker(machine, database_url):
    datafast = machine.datafast()
    seed(datafast)
    web = machine.web(environment(datafast, database_url, BRIDGE_WORKER="off"))
    asking = worker(machine, datafast, database_url, "asking", STRIPE_API_KEY=LIVE)
    assert web.stripe(renewal()).status_code == 200
    eventually(lambda: datafast.seen() == [("payment_recovered", ALICE)], what="the goal is delivered")
    asked = requests.get(f"{datafast.url}/__fake__/stripe", timeout=20).json()["requests"]
    assert [row["path"] for row in asked] == ["/v1/checkout/sessions"]
    assert asking.told("lookup", outcome="visitor")
    code, _ = asking.stop()
    assert code == 0
    assert asking.told("modules", stripe=True)
    assert LIVE not in asking.log + web.log
    assert KEY not in asking.log


@pytest.mark.long
def test_a_bridge_that_has_nothing_to_ask_never_imports_the_package(machine, sqlite_url):
    datafast = machine.datafast()
    web = machine.web(environment(datafast, sqlite_url, BRIDGE_WORKER="off"))
    without = worker(machine, datafast, sqlite_url, "without")
    web.stripe(renewal())
    web.stripe(checkout(2, BOB))
    eventually(lambda: datafast.seen() == [("purchase", BOB)], what="the worker works")
    assert without.stop()[0] == 0
    assert without.told("modules", stripe=False)


@pytest.mark.long
def test_a_stripe_that_is_not_there_holds_up_nothing(machine, sqlite_url):
    """A closed port: other goals are delivered at once, and the end of the process takes no longer."""
    datafast = machine.datafast()
    web = machine.web(environment(datafast, sqlite_url, BRIDGE_WORKER="off"))
    environ = environment(datafast, sqlite_url, BRIDGE_WEAK_AFTER="2s", STRIPE_API_KEY=LIVE)
    lost = machine.run(["python", str(HERE / "looking_up.py"), "http://127.0.0.1:9"], environ, "lost")
    lost.wait_for("working")
    web.stripe(renewal())
    lost.wait_for("lookup.paused")
    web.stripe(checkout(2, BOB))
    eventually(lambda: datafast.seen() == [("purchase", BOB)], what="the other goal is delivered")
    code, seconds = lost.stop()
    assert code == 0
    assert seconds < 20
