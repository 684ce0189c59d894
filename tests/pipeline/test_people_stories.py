"""Random stories over several tools: lead, booking, sign-up, sale on another device, renewal, refund, in any order.

Each event comes one to five times, two routers race, and some time passes between. Whatever happens, the goals and
their visitors are the same. `STORIES=1000 FIRST_STORY=36` plays as many from that seed on; a failure names its seed.
"""

from __future__ import annotations

import os
import random
import threading

import pytest
from identity_kit import MINUTE, Desk
from test_people_across_tools import FILES, checkout, customer, form, refund, renewal, sign_up

FIRST = int(os.environ.get("FIRST_STORY", "0"))
STORIES = int(os.environ.get("STORIES", "2"))
BOOKINGS = "provider: calcom\ngoals:\n  - {goal: booking, event: BOOKING_CREATED, once_per: payload.uid}\n"
MORE = {**FILES, "calcom.yaml": BOOKINGS}


def booking(number, visitor, mail):
    given = {"datafast_visitor_id": visitor} if visitor else {}
    payload = {"uid": f"b{number}", "attendees": [{"email": mail}], "metadata": given}
    return "calcom", {"triggerEvent": "BOOKING_CREATED", "createdAt": "2026-09-01T10:00:00Z", "payload": payload}


def story(number, dice):
    """One person's events and goals: somewhere the browser hands over the visitor, and nowhere after that."""
    visitor, user = f"00000000-0000-4000-8000-{number:012}", f"user_{number}x"
    mail = f"ann{number}@example.com"
    first = dice.randrange(3)
    at_stripe = dice.choice(["reference", "metadata", "customer", "address"])
    events = [
        form(visitor if first == 0 else None, mail, f"r{number}"),
        booking(number, visitor if first <= 1 else None, mail.upper()),
        sign_up(user, visitor if first == 2 or dice.random() < 0.5 else None, mail),
        checkout(
            number,
            customer=f"cus_{number}",
            user=user if at_stripe == "reference" else None,
            customer_details={"email": mail} if at_stripe == "address" else None,
            metadata={"userId": user} if at_stripe == "metadata" else {},
        ),
        customer(f"cus_{number}", **({"userId": user} if at_stripe == "customer" else {})),
        renewal(number),
        refund(number),
    ]
    return events, {(name, visitor) for name in ("lead", "booking", "sign_up", "purchase", "paid", "refund")}


def race(desk):
    """Two routers, until nothing is left."""
    failures = []

    def work(router):
        try:
            desk.route_all(router)
        except Exception as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    racers = [threading.Thread(target=work, args=(desk.new_router(),)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert failures == []


@pytest.mark.parametrize("seed", range(FIRST, FIRST + STORIES))
def test_every_goal_of_a_story_has_its_first_visitor(store, clock, seed):
    dice = random.Random(seed)
    desk = Desk(store, clock, MORE, destinations=("default", "other"), BRIDGE_MATCH_EMAIL="on")
    told, expected = [], set()
    for number in range(1, 4):
        events, goals = story(number, dice)
        told += [event for event in events for _ in range(dice.randint(1, 5))]
        expected |= goals
    dice.shuffle(told)
    while told:
        size = dice.randint(1, 20)
        some, told = told[:size], told[size:]
        desk.put_told(some)
        race(desk)
        desk.later(dice.choice([0, MINUTE, 10 * MINUTE]))
    desk.later(10 * MINUTE)
    assert {(goal.name, goal.visitor) for goal in desk.goals()} == expected, f"seed {seed}"
