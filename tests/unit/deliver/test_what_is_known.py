"""What a process knows of a try survives a database that is busy or away: else it would be a doubt for nothing."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from bridge import settings as table
from bridge.deliver import Deliverer
from bridge.errors import StoreUnavailable
from bridge.model import Destination, Outcome, OutcomeKind
from bridge.store import schema

LEASE_MS, DEADLINE_MS = 60_000, 10_000


class Unlucky:
    """The real store, some of whose transactions fail: before their commit, or with its answer lost; or are slow."""

    def __init__(self, store, clock):
        self.store = store
        self.clock = clock
        self.luck = []  # of the next transactions: fine, before, after; or the ms until their answer comes

    def read(self):
        return self.store.read()

    def run(self, work):
        fate = self.luck.pop(0) if self.luck else "fine"
        if fate == "before":
            raise StoreUnavailable("the database is busy")
        result = self.store.run(work)
        if isinstance(fate, int):
            self.clock.advance(fate)
        if fate == "after":
            raise StoreUnavailable("the connection broke at COMMIT")
        return result


class Bridge:
    """A deliverer with one goal, and a DataFast that takes everything."""

    def __init__(self, store, clock):
        self.store, self.clock, self.unlucky = store, clock, Unlucky(store, clock)
        self.sent = 0
        self.slept_ms = 0
        self.deliverer = Deliverer(
            self.unlucky,
            self,
            table.load({"DATAFAST_API_KEY": "df_1"}),
            lambda: {"default": Destination("default", "df_1")},
            random=lambda: 0.5,
            monotonic_ms=lambda: clock.now_ms,
            sleep_ms=self.sleep,
            new_token=lambda: "lease",
        )
        with store.write() as conn:
            self.make_goal(conn)

    def make_goal(self, conn):
        now = self.clock.now_ms
        conn.execute(
            insert(schema.events).values(
                id=1, source="s", provider="stripe", type="t", test=False, received_at_ms=now, dedupe_key="k",
                headers="{}", query="{}", state="routed",
            )
        )  # fmt: skip
        conn.execute(
            insert(schema.goals).values(
                event_id=1, source="s", rule_id="r", destination="default", once_key="o", test=False, name="purchase",
                description="s evt_1", metadata="{}", visitor="v", state="pending", happened_at_ms=now,
                time_is_stated=True, ordered_at_ms=now, created_at_ms=now, changed_at_ms=now, due_at_ms=now,
                expires_at_ms=now + 86_400_000, wait_ms=1,
            )
        )  # fmt: skip

    def post_goal(self, destination, **_goal):
        self.sent += 1
        return Outcome(OutcomeKind.DELIVERED, 200, event_id="e1")

    def sleep(self, ms):
        self.slept_ms += ms
        self.clock.advance(ms)

    def step(self, *luck):
        """luck: of the step's transactions: register, claim, begin, settle, …"""
        self.unlucky.luck = list(luck)
        return self.deliverer.step()

    @property
    def goal(self):
        with self.store.read() as conn:
            return conn.execute(select(schema.goals)).one()

    @property
    def tries(self):
        with self.store.read() as conn:
            return conn.execute(select(schema.attempts.c.outcome).order_by(schema.attempts.c.id)).scalars().all()


@pytest.fixture
def bridge(store, clock):
    return Bridge(store, clock)


def test_an_answer_that_cannot_be_written_at_once_is_written_later(bridge):
    assert bridge.step("fine", "fine", "fine", *["before"] * 20) is None
    assert (bridge.goal.state, bridge.sent, bridge.tries) == ("delivered", 1, ["delivered"])
    assert bridge.slept_ms == 20 * 200


def test_an_answer_whose_commit_was_not_confirmed_is_written_once(bridge):
    assert bridge.step("fine", "fine", "fine", "after") is None
    assert (bridge.goal.state, bridge.tries) == ("delivered", ["delivered"])


def test_an_answer_is_kept_no_longer_than_the_lease(bridge):
    with pytest.raises(StoreUnavailable):
        bridge.step("fine", "fine", "fine", *["before"] * 10_000)
    assert bridge.goal.state == "sending"
    assert LEASE_MS - 1_000 < bridge.slept_ms < LEASE_MS


@pytest.mark.parametrize(("fate", "tries"), [("before", []), ("after", ["not_sent"])])
def test_what_may_have_been_written_ahead_but_was_not_sent_is_taken_back(bridge, fate, tries):
    with pytest.raises(StoreUnavailable):
        bridge.step("fine", "fine", fate, "before", "after")
    assert (bridge.goal.state, bridge.goal.lease_token, bridge.sent) == ("pending", None, 0)
    assert bridge.tries == tries
    bridge.clock.advance(2_000)
    assert bridge.step() is None
    assert (bridge.goal.state, bridge.sent) == ("delivered", 1)
    assert bridge.tries == [*tries, "delivered"]


@pytest.mark.parametrize(
    ("left_ms", "sent", "tries"), [(DEADLINE_MS + 1, 1, ["delivered"]), (DEADLINE_MS, 0, []), (1, 0, [])]
)
def test_what_was_claimed_too_slowly_is_given_back_without_a_try(bridge, left_ms, sent, tries):
    """A request that begins when less of the lease is left than it may take could end in doubt."""
    assert bridge.step("fine", LEASE_MS - left_ms) is None
    assert (bridge.sent, bridge.tries) == (sent, tries)
    assert bridge.goal.state == ("delivered" if sent else "pending")
    assert bridge.goal.lease_token is None


@pytest.mark.parametrize(
    ("left_ms", "sent", "outcome"), [(DEADLINE_MS, 1, "delivered"), (DEADLINE_MS - 1, 0, "not_sent")]
)
def test_a_process_that_was_stopped_before_it_sent_does_not_send(bridge, left_ms, sent, outcome):
    """It was stopped between the attempt's commit and the request; somebody else may have the goal soon."""
    assert bridge.step("fine", "fine", LEASE_MS - left_ms) is None
    assert (bridge.sent, bridge.tries) == (sent, [outcome])
