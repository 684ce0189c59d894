"""A rig that routes on a real database, a stand-in for Stripe, and the step that asks it."""

from __future__ import annotations

import pytest
from identity_kit import MINUTE, Rig

from bridge.lookup.step import Lookup
from bridge.sandbox import server
from bridge.store import schema

LIVE = "rk_live_0123456789"
TEST = "rk_test_0123456789"


class Shop:
    """Events come in, are routed; what waits is looked up, a step at a time."""

    def __init__(self, store, clock, sandbox, key=LIVE, **options):
        environ = {"STRIPE_API_KEY": key} | options.pop("environ", {})
        self.rig = Rig(store, clock, **options, **environ)
        self.store, self.clock, self.stripe = store, clock, sandbox.stripe
        self.lookup = self.new_lookup(sandbox.url)

    def new_lookup(self, url, **options):
        return Lookup(self.store, self.rig.settings, lambda: self.rig.rules, url=url, **options)

    def ask(self, lookup=None):
        """Ask all there is to ask now; a second goes by when the pace says so. How many questions."""
        asked = idle = 0
        while idle < 3:
            if (lookup or self.lookup).step():
                asked, idle = asked + 1, 0
            else:
                self.clock.advance(600)
                idle += 1
        return asked

    def later(self, ms=MINUTE):
        """Time goes by; what is due then is asked."""
        self.clock.advance(ms)
        return self.ask()

    def goal(self):
        (found,) = self.rig.goals()
        return found

    def goals_of_visitor(self, visitor):
        return sum(goal.visitor == visitor for goal in self.rig.goals())

    def rows(self, table=schema.lookups):
        return self.rig.rows(table)

    def outcomes(self):
        return {(row.key.rpartition(":")[2], row.question): row.outcome for row in self.rows()}


@pytest.fixture
def sandbox():
    with server.start() as made:
        yield made


@pytest.fixture
def shop(store, clock, sandbox):
    made = Shop(store, clock, sandbox)
    yield made
    made.lookup.close()


@pytest.fixture
def new_shop(store, clock, sandbox):
    """Shops with other keys or settings."""
    yield from _shops(store, clock, sandbox)


def _shops(store, clock, sandbox):
    made = []

    def new(*args, **options):
        made.append(Shop(store, clock, sandbox, *args, **options))
        return made[-1]

    yield new
    for one in made:
        one.lookup.close()


@pytest.fixture
def lone_shop(new_lone_shop):
    """A shop on SQLite alone, for what is no matter of the database."""
    return new_lone_shop()


@pytest.fixture
def new_lone_shop(sqlite_store, clock, sandbox):
    yield from _shops(sqlite_store, clock, sandbox)
