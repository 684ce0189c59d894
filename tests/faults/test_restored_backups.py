"""A back-up is put in place at a random moment of a random life: each goal is at the destination once.

The life goes through the real inbox, router and deliverer by a clock that the dice move; the destination is in memory
and loses answers, kills senders, and may keep descriptions to itself. What the back-up missed is told again by the
provider, in any order, between events that are new. `RESTORE_SEEDS=2000` makes it longer.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter

import pytest
from identity_kit import Rig
from inbox_kit import Inbox
from sqlalchemy import delete, func, insert, select, update

from bridge.deliver import Deliverer
from bridge.model import CompletedGoal, Destination, Envelope, NewEvent, Outcome, OutcomeKind, VisitorGoals
from bridge.store import clock as store_clock
from bridge.store import schema
from bridge.store.delivery import restoring
from bridge.store.inbox import events
from bridge.store.operator import actions

S, MINUTE, HOUR = 1_000, 60_000, 3_600_000
SEEDS = int(os.environ.get("RESTORE_SEEDS", "12"))
VISITORS = [f"00000000-0000-4000-8000-{n:012}" for n in range(3)]
TABLES = schema.metadata.sorted_tables


class Killed(Exception):
    """The process that sends is gone."""


class Website:
    """A destination that records, and that answers, loses its answer or has its sender killed."""

    def __init__(self, clock, dice):
        self.clock, self.dice = clock, dice
        self.entries = []  # (visitor, name, description, ms)
        self.tells = dice.random() < 0.5
        self.before_record = self.after_record = None
        self.looks = Counter()
        self.trouble = 0.3

    def post(self, _destination, _route, body):
        if self.before_record:
            self.before_record()
        fate = self.dice.random() if self.dice.random() < self.trouble else 1
        recorded = not fate < 0.4
        if recorded:
            sent = (body["datafast_visitor_id"], body["name"], body["description"])
            self.entries.append((*sent, self.clock.now_ms))
        if self.after_record:
            self.after_record()
        self.clock.advance(self.dice.randint(1, 3_000))
        if 0.2 < fate < 0.6:
            raise Killed
        if fate < 0.8:
            return Outcome(OutcomeKind.UNCONFIRMED, message="no answer")
        return Outcome(OutcomeKind.DELIVERED, 200, server_now_ms=self.clock.now_ms)

    def visitor_goals(self, _destination, visitor):
        self.looks[visitor] += 1
        self.clock.advance(self.dice.randint(1, 500))
        if self.dice.random() < self.trouble / 3:
            return VisitorGoals(known=False, failure=Outcome(OutcomeKind.NOT_SENT, message="refused"))
        goals = tuple(
            CompletedGoal(name, at_ms, description if self.tells else None)
            for who, name, description, at_ms in self.entries
            if who == visitor
        )
        return VisitorGoals(known=True, goals=goals, server_now_ms=self.clock.now_ms)


class Life:
    """One bridge, one provider, one destination."""

    def __init__(self, store, clock, seed):
        self.store, self.clock = store, clock
        self.dice = dice = random.Random(seed)
        self.website = Website(clock, dice)
        self.rig = Rig(store, clock, BRIDGE_RATE_PER_MINUTE="60000")
        self.inbox = Inbox(store)
        self.told = []  # every event that the provider ever sent: (id, body, whether it states its time)
        self.customers = {}
        self.worker = self._worker()

    def _worker(self):
        tokens = iter(range(10**9))
        mark = self.dice.random()
        return Deliverer(
            self.store,
            self.website,
            self.rig.settings,
            lambda: {"default": Destination("default", "df_key")},
            random=lambda: 0.5,
            monotonic_ms=lambda: self.clock.now_ms,
            sleep_ms=self.clock.advance,
            new_token=lambda: f"{mark}-{next(tokens)}",
        )

    # -------------------------------------------------------------------------------------------------- the provider

    def happens(self, customer=None):
        """Something new at the provider: a sale with its visitor, or a refund that only its customer leads to."""
        number = len(self.told)
        sale = customer is not None or self.dice.random() < 0.6
        customer = customer or f"cus_{self.dice.randint(1, 4)}"
        visitor = self.customers.setdefault(customer, self.dice.choice(VISITORS))
        thing = {"object": "checkout.session", "id": f"cs_{number}", "customer": customer, "amount_total": 4900}
        type_ = "checkout.session.completed"
        if not sale:
            thing = {"object": "charge", "id": f"ch_{number}", "customer": customer, "amount_refunded": number}
            type_ = "charge.refunded"
        else:
            thing["metadata"] = {"datafast_visitor_id": visitor}
        body = {"id": f"evt_{number}", "object": "event", "type": type_, "livemode": True, "data": {"object": thing}}
        at_s = self.clock.now_ms // 1000
        if self.dice.random() < 0.8:
            body["created"] = at_s
        self.told.append((body["id"], body, visitor))
        return body

    def receive(self, body):
        envelope = Envelope(type=body["type"], id=body["id"], time_ms=body.get("created") and body["created"] * 1000)
        keys = (f"{body['type']}:{body['id']}",)
        self.inbox.put(NewEvent("stripe", "stripe", envelope, keys, {}, {}, json.dumps(body).encode()))

    # ---------------------------------------------------------------------------------------------------- the bridge

    def work(self, steps):
        for _ in range(steps):
            try:
                wait_ms = self.worker.step()
            except Killed:
                self.worker = self._worker()
                continue
            if wait_ms is not None:
                return

    def act(self):
        """Anything at all."""
        match self.dice.choices(("event", "route", "work", "time", "sweep", "hold"), (4, 3, 5, 3, 1, 0.3))[0]:
            case "event":
                self.receive(self.happens())
            case "route":
                self.rig.route_all()
            case "work":
                self.work(self.dice.randint(1, 4))
            case "time":
                self.clock.advance(self.dice.choice((S, 10 * S, MINUTE, 5 * MINUTE)))
            case "sweep":
                self.worker.sweep()
                self.rig.later(0)
            case "hold":
                with self.store.write() as conn:
                    some = select(schema.goals.c.id).where(schema.goals.c.state == "pending").limit(1)
                    conn.execute(update(schema.goals).where(schema.goals.c.id.in_(some)).values(state="held"))

    def settle(self, *, also=()):
        """Until every goal is delivered, or in one of `also`: a person sends what is held."""
        for _ in range(400):
            self.rig.route_all()
            self.rig.later(0)
            self.worker.sweep()
            self.work(200)
            with self.store.write() as conn:
                for goal_id in conn.execute(select(schema.goals.c.id).where(schema.goals.c.state == "held")).scalars():
                    actions.retry(conn, goal_id)
            left = set(self.rig.rows(schema.goals.c.state)) - {("delivered",), *also}
            if not left:
                return
            self.clock.advance(20 * S)
        raise AssertionError(f"these never end: {left}")

    def take(self):
        with self.store.read() as conn:
            return {table: [dict(row._mapping) for row in conn.execute(select(table))] for table in TABLES}

    def put_in_place(self, backup):
        with self.store.write() as conn:
            for table in reversed(TABLES):
                conn.execute(delete(table))
            for table in TABLES:
                if backup[table]:
                    conn.execute(insert(table), backup[table])
                if conn.dialect.name == "postgresql" and "id" in table.c and table.c.id.type.python_type is int:
                    top = conn.execute(select(func.max(table.c.id))).scalar()
                    name = f"{table.name}_id_seq"
                    conn.exec_driver_sql(f"SELECT setval('{name}', {top or 1}, {'true' if top else 'false'})")
        self.worker = self._worker()
        self.rig.router = self.rig.new_router()


def live(store, clock, seed, *, tell=True):
    """A life with a restore in it; whoever does not `tell` the bridge of it forgets the command."""
    life = Life(store, clock, seed)
    dice = life.dice
    life.put_in_place({table: [] for table in TABLES})
    for _ in range(dice.randint(5, 40)):
        life.act()
    backup = backed_up(life)
    for _ in range(dice.randint(0, 40)):
        life.act()
    if dice.random() < 0.6:
        life.settle(also=[("parked",)])
    clock.advance(dice.choice((0, S, MINUTE, HOUR)))
    life.put_in_place(backup)
    for _ in range(dice.randint(1, 2) if tell else 0):  # told twice is told once
        restored(life)
        clock.advance(dice.choice((0, S, MINUTE)))
    clock.advance(15 * S)
    told_again(life)
    life.settle()
    life.inbox.close()
    return life


def backed_up(life):
    """A back-up, perhaps made while a goal is being sent: just before or just after it is recorded."""
    backups = []
    if life.dice.random() < 0.4:

        def back_up():
            if not backups:
                backups.append(life.take())

        where = life.dice.choice(("before_record", "after_record"))
        setattr(life.website, where, back_up)
        life.rig.route_all()
        life.work(2)
        setattr(life.website, where, None)
    return backups[0] if backups else life.take()


def restored(life):
    with life.store.write() as conn:
        now_ms = store_clock.read_ms(conn)
        newest_ms = restoring.newest_ms(conn, now_ms)
        restoring.remember(conn, now_ms - 6 * HOUR if newest_ms is None else newest_ms, now_ms)


def told_again(life):
    """The provider repeats everything, in any order, while new things happen; a person replays events."""
    again = [body for _, body, _ in life.told]
    life.dice.shuffle(again)
    while again:
        for _ in range(min(len(again), life.dice.randint(0, 3))):
            life.receive(again.pop())
        life.act()
        if life.dice.random() < 0.1:
            with life.store.write() as conn:
                for event_id in conn.execute(select(schema.events.c.id).limit(2)).scalars():
                    events.requeue(conn, event_id)
    for customer in list(life.customers):  # each leads to its visitor in the end
        life.receive(life.happens(customer))


def ledger(life):
    """(lost, doubled): goals of every event that the provider ever sent."""
    wanted, seen = Counter(), Counter()
    for event_id, body, visitor in life.told:
        name = "purchase" if body["type"].startswith("checkout") else "refund"
        wanted[(visitor, name, f"stripe {event_id}" if life.website.tells else "")] += 1
    for visitor, name, description, _ in life.website.entries:
        seen[(visitor, name, description if life.website.tells else "")] += 1
    return sorted((wanted - seen).elements()), sorted((seen - wanted).elements())


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.long] * (seed > 3)) for seed in range(SEEDS)])
def test_each_goal_is_at_the_destination_once(sqlite_store, clock, seed):
    assert ledger(live(sqlite_store, clock, seed)) == ([], [])


@pytest.mark.long
def test_each_goal_is_there_once_on_postgresql(postgres_store, clock):
    told = {seed: ledger(live(postgres_store, clock, seed)) for seed in range(SEEDS // 4)}
    assert {seed: wrong for seed, wrong in told.items() if wrong != ([], [])} == {}


@pytest.mark.long
def test_whoever_does_not_say_so_sends_much_twice(sqlite_store, clock):
    doubled = sum(len(ledger(live(sqlite_store, clock, seed, tell=False))[1]) for seed in range(6))
    assert doubled > 6
