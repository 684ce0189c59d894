"""The ways of an event to its goals and of a goal to DataFast, recorded by a profiler, are those that are described."""

from __future__ import annotations

import json
import sys
import time

import pytest
from composed import Composed
from running import SECRETS
from walks_kit import Steps, require_described

from bridge.sandbox import sign

VISITOR = "00000000-0000-4000-8000-00000000000a"


@pytest.fixture
def composed(sqlite_url, clock):
    """A bridge that has done all of it once, so that nothing is made for the first time."""
    with Composed(sqlite_url, clock) as made:
        post(made, 1)
        made.work()
        yield made


def post(composed, number):
    session = {
        "object": "checkout.session",
        "id": f"cs_live_{number}",
        "mode": "payment",
        "payment_status": "paid",
        "amount_total": 4900,
        "currency": "eur",
        "customer": f"cus_{number}",
        "metadata": {"datafast_visitor_id": VISITOR},
    }
    event = {
        "object": "event",
        "id": f"evt_{number}",
        "type": "checkout.session.completed",
        "created": composed.clock.now_ms // 1000,
        "livemode": True,
        "data": {"object": session},
    }
    body = json.dumps(event).encode()
    headers = sign.stripe(body, SECRETS["STRIPE_WEBHOOK_SECRET"], int(time.time()))
    assert composed.client.post("/webhooks/stripe", data=body, headers=dict(headers)).status_code == 200


def recorded(steps, work):
    sys.setprofile(steps)
    try:
        work()
    finally:
        sys.setprofile(None)
    return steps.functions


def test_an_event_passes_these_functions_and_becomes_a_goal(composed):
    post(composed, 2)
    bridge = composed.bridge
    rules, destinations = bridge.rules, bridge.destinations()
    steps = Steps(
        callers=("bridge.route", "bridge.prepare"),
        rooms=("bridge.route", "bridge.prepare", "bridge.sources", "bridge.identity", "bridge.rules", "bridge.store."),
        classes=("Router", "Preparer"),
    )
    functions = recorded(steps, lambda: composed.router.route_batch(rules, destinations))
    assert [goal.state for goal in composed.goals()] == ["delivered", "pending"]
    require_described("An event to its goals", functions)


def test_a_goal_passes_these_functions_to_datafast_and_back(composed):
    post(composed, 2)
    composed.router.route_batch(composed.bridge.rules, composed.bridge.destinations())
    deliverer = composed.bridge._deliverer
    steps = Steps(
        callers=("bridge.deliver", "bridge.datafast.goal", "bridge.datafast.client"),
        rooms=("bridge.deliver", "bridge.datafast", "bridge.store."),
        classes=("Deliverer", "GoalAction", "Client", "Transport"),
    )
    functions = recorded(steps, deliverer.step)
    assert [goal.state for goal in composed.goals()] == ["delivered", "delivered"]
    require_described("A goal to DataFast and back", functions)
