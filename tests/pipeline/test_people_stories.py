"""Random stories over several tools: lead, booking, sign-up, sale on another device, renewal, refund, in any order.

Each event comes one to five times, two routers race, and some time passes between. Whatever happens, the goals and
their visitors are the same. `STORIES=1000 FIRST_STORY=36` plays as many from that seed on; a failure names its seed.
"""

from __future__ import annotations

import os
import random
import threading

import pytest
from identity_kit import MINUTE, Rig
from test_people_across_tools import FILES, checkout, customer, form, refund, renewal, sign_up

FIRST = int(os.environ.get("FIRST_STORY", "0"))
STORIES = int(os.environ.get("STORIES", "2"))


def makes(provider, *goals):
    """A mapping file. goals: (name, event, path of what it is made once for)."""
    listed = "".join(f'  - {{goal: {name}, event: "{event}", once_per: {once}}}\n' for name, event, once in goals)
    return f"provider: {provider}\ngoals:\n{listed}"


MORE = {
    **FILES,
    "calcom.yaml": makes("calcom", ("booking", "BOOKING_CREATED", "payload.uid")),
    "supabase-auth.yaml": makes("supabase-auth", ("sign_up", "*", "user.id")),
    "lemonsqueezy.yaml": makes(
        "lemonsqueezy",
        ("purchase", "order_created", "data.id"),
        ("paid", "subscription_payment_success", "data.id"),
        ("refund", "order_refunded", "data.id"),
    ),
    "polar.yaml": makes("polar", ("purchase", "order.paid", "data.id"), ("refund", "order.refunded", "data.id")),
    "paddle.yaml": makes(
        "paddle",
        ("purchase", "transaction.completed", "data.id"),
        ("refund", "adjustment.created", "data.transaction_id"),
    ),
}


def booking(number, visitor, mail):
    given = {"datafast_visitor_id": visitor} if visitor else {}
    payload = {"uid": f"b{number}", "attendees": [{"email": mail}], "metadata": given}
    return "calcom", {"triggerEvent": "BOOKING_CREATED", "createdAt": "2026-09-01T10:00:00Z", "payload": payload}


def supabase(user, visitor, mail):
    given = {"datafast_visitor_id": visitor} if visitor else {}
    user = {"id": user, "email": mail, "user_metadata": given}
    return "supabase-auth", {"metadata": {"name": "after-user-created"}, "user": user}


def at_stripe(number, user, mail, dice):
    where = dice.choice(["reference", "metadata", "customer", "address"])
    return [
        checkout(
            number,
            customer=f"cus_{number}",
            user=user if where == "reference" else None,
            customer_details={"email": mail} if where == "address" else None,
            metadata={"userId": user} if where == "metadata" else {"orderId": "order_1"},
        ),
        customer(f"cus_{number}", **({"userId": user} if where == "customer" else {})),
        renewal(number),
        refund(number),
    ]


def at_lemonsqueezy(number, user, mail, dice):
    meta = {"custom_data": {"user_id": user}} if dice.random() < 0.5 else {}
    buyer = {"customer_id": 70 + number, "user_email": mail}

    def event(name, kind, number, **attributes):
        data = {"type": kind, "id": str(number), "attributes": buyer | attributes}
        return "lemonsqueezy", {"meta": {"event_name": name} | meta, "data": data}

    order, subscription = 300 + number, 500 + number
    return [
        event("order_created", "orders", order),
        event("subscription_created", "subscriptions", subscription, order_id=order),
        event("subscription_payment_success", "subscription-invoices", 900 + number, subscription_id=subscription),
        event("order_refunded", "orders", order),
    ]


def at_polar(number, user, mail, dice):
    by_id = dice.random() < 0.5

    def event(name, order):
        buyer = {"external_id": user if by_id else None, "email": mail}
        data = {"id": f"o-{number}-{order}", "subscription_id": f"s-{number}", "customer_id": f"c-{number}"}
        return "polar", {"type": name, "data": data | {"customer": buyer}}

    return [event("order.paid", 1), event("order.paid", 2), event("order.refunded", 1)]


def at_paddle(number, user, mail, dice):
    given = {"user_id": user} if dice.random() < 0.5 else None

    def event(name, data):
        return "paddle", {"event_type": name, "data": data | {"customer_id": f"ctm_{number}"}}

    first, second = (
        {"id": f"txn_{number}_{n}", "subscription_id": f"sub_{number}p", "custom_data": given} for n in (1, 2)
    )
    return [
        event("transaction.completed", first),
        event("transaction.completed", second),
        event("adjustment.created", {"id": f"adj_{number}", "transaction_id": first["id"]}),
        ("paddle", {"event_type": "customer.created", "data": {"id": f"ctm_{number}", "email": mail}}),
    ]


SHOPS = (at_stripe, at_lemonsqueezy, at_polar, at_paddle)


def story(number, dice):
    """One person's events and goals: somewhere the browser hands over the visitor, and nowhere after that.

    A test purchase and one at another website name the same user, and change nothing.
    """
    visitor, tester = (f"00000000-0000-4000-8000-{n:012}" for n in (number, 900 + number))
    signs_up = dice.choice((sign_up, supabase))
    user = f"user_{number}x" if signs_up is sign_up else f"3c5c7b33-2f8c-4e85-8b9a-{number:012x}"
    mail = f"ann{number}@example.com"
    first = dice.randrange(3)
    events = [
        form(visitor if first == 0 else None, mail, f"r{number}"),
        booking(number, visitor if first <= 1 else None, mail.upper()),
        signs_up(user, visitor if first == 2 or dice.random() < 0.5 else None, mail),
        *dice.choice(SHOPS)(number, user, mail, dice),
    ]
    expected = {(name, visitor) for name in ("lead", "booking", "sign_up", "purchase", "refund")}
    if any(body.get("type") == "invoice.paid" or "meta" in body for _, body in events):
        expected.add(("paid", visitor))
    if dice.random() < 0.5:
        there = {"customer": f"cus_there{number}", "metadata": {"userId": user}}
        events += [
            checkout(700 + number, tester, live=False, customer=f"cus_test{number}", metadata={"userId": user}),
            checkout(800 + number, source="shop", **there),
        ]
        expected |= {("purchase", tester), ("bought", None)}
    return events, expected


def race(rig):
    """Two routers, until nothing is left."""
    failures = []

    def work(router):
        try:
            rig.route_all(router)
        except Exception as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    racers = [threading.Thread(target=work, args=(rig.new_router(),)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert failures == []


@pytest.mark.parametrize("seed", range(FIRST, FIRST + STORIES))
def test_every_goal_of_a_story_has_its_first_visitor(store, clock, seed):
    dice = random.Random(seed)
    rig = Rig(store, clock, MORE, destinations=("default", "other"), BRIDGE_MATCH_EMAIL="on")
    told, expected = [], set()
    for number in range(1, 4):
        events, goals = story(number, dice)
        told += [event for event in events for _ in range(dice.randint(1, 5))]
        expected |= goals
    dice.shuffle(told)
    while told:
        size = dice.randint(1, 20)
        some, told = told[:size], told[size:]
        rig.put_told(some)
        race(rig)
        rig.later(dice.choice([0, MINUTE, 10 * MINUTE]))
    rig.later(10 * MINUTE)
    assert {(goal.name, goal.visitor) for goal in rig.goals()} == expected, f"seed {seed}"
