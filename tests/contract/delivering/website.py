"""A website at DataFast that knows whom it is told to know, and a deliverer that sends to it."""

from __future__ import annotations

import itertools
import json

from sqlalchemy import insert, select

from bridge.deliver import Deliverer
from bridge.model import Destination, Outcome, OutcomeKind, VisitorGoals
from bridge.settings import load
from bridge.store import schema

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
_IDLE_MS = 1_000  # what a deliverer says when there is nothing to do
NOT_FOUND = Outcome(OutcomeKind.UNKNOWN_VISITOR, 404, "First event not found")
AWAY = Outcome(OutcomeKind.NOT_SENT, message="connection refused")


def visitor(number):
    return f"00000000-0000-4000-8000-{number:012}"


class Website:
    """What a DataFast client is, in memory. said: (ms, POST or GET, visitor)."""

    def __init__(self, clock):
        self.clock = clock
        self.known = set()
        self.said = []
        self.failure = None  # of reading a visitor
        self.refusal = None  # of a goal

    def post(self, _destination, _route, body):
        visitor = body["datafast_visitor_id"]
        self.said.append((self.clock.now_ms, "POST", visitor))
        if self.refusal is not None:
            return self.refusal
        return Outcome(OutcomeKind.DELIVERED, 200, event_id="e") if visitor in self.known else NOT_FOUND

    def visitor_goals(self, _destination, visitor):
        self.said.append((self.clock.now_ms, "GET", visitor))
        if self.failure is not None:
            return VisitorGoals(known=False, failure=self.failure)
        return VisitorGoals(known=visitor in self.known)

    def asked(self, how):
        return [visitor for _, kind, visitor in self.said if kind == how]


class Sending:
    """Workers on one database that send to one website."""

    def __init__(self, store, clock, **environ):
        self.store, self.clock = store, clock
        self.website = Website(clock)
        self.key = "df_1"
        self.settings = load({"DATAFAST_API_KEY": "df_1", **environ})
        self.numbers = itertools.count(1)
        self._tokens = itertools.count()
        self.worker = self.new_worker()

    def new_worker(self):
        return Deliverer(
            self.store,
            self.website,
            self.settings,
            lambda: {"default": Destination("default", self.key)},
            random=lambda: 0.5,
            monotonic_ms=lambda: self.clock.now_ms,
            sleep_ms=self.clock.advance,
            new_token=lambda: f"{id(self)}-{next(self._tokens)}",
        )

    def run_for(self, ms, *workers, nap_ms=0):
        """Let workers work until so much time is over. nap_ms: how long they look away when there is nothing to do."""
        until = self.clock.now_ms + ms
        workers = itertools.cycle(workers or (self.worker,))
        while self.clock.now_ms < until:
            wait_ms = next(workers).step()
            if wait_ms is not None:
                wait_ms = max(wait_ms, nap_ms) if wait_ms == _IDLE_MS else wait_ms
                self.clock.advance(min(wait_ms, until - self.clock.now_ms))

    def goal(self, who, **values):
        """A goal that waits to be sent; its id."""
        number, now = next(self.numbers), self.clock.now_ms
        with self.store.write() as conn:
            conn.execute(
                insert(schema.events).values(
                    id=number, source="s", provider="stripe", type="t", test=False, received_at_ms=now,
                    dedupe_key=f"k{number}", headers="{}", query="{}", state="routed",
                )
            )  # fmt: skip
            row = {
                "event_id": number, "source": "s", "rule_id": "r", "destination": "default", "once_key": f"o{number}",
                "test": False, "name": "purchase", "description": f"s evt_{number}", "metadata": "{}", "visitor": who,
                "state": "pending", "happened_at_ms": now, "time_is_stated": True, "ordered_at_ms": now,
                "created_at_ms": now, "changed_at_ms": now, "due_at_ms": now, "expires_at_ms": now + 7 * DAY,
                "wait_ms": 4 * DAY,
            }  # fmt: skip
            return conn.execute(insert(schema.goals).values(**row | values).returning(schema.goals.c.id)).scalar_one()

    def row(self, goal_id):
        with self.store.read() as conn:
            return conn.execute(select(schema.goals).where(schema.goals.c.id == goal_id)).one()

    def states(self):
        with self.store.read() as conn:
            return conn.execute(select(schema.goals.c.state).order_by(schema.goals.c.id)).scalars().all()

    def destination(self):
        with self.store.read() as conn:
            return conn.execute(select(schema.destinations)).one()

    def provenance(self, goal_id):
        return json.loads(self.row(goal_id).provenance)
