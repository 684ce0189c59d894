"""What a process knows of a try survives a database that is busy or away: else it would be a doubt for nothing."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import insert, select, update
from structlog.testing import capture_logs

from bridge import settings as table
from bridge.deliver import TURN_MS, Deliverer
from bridge.errors import StoreUnavailable
from bridge.model import Destination, Outcome, OutcomeKind
from bridge.store import schema
from bridge.store.goals import statements as goal_statements

LEASE_MS, DEADLINE_MS = 60_000, 10_000
DELIVERED = Outcome(OutcomeKind.DELIVERED, 200, event_id="e1")
UNKNOWN = Outcome(OutcomeKind.UNKNOWN_VISITOR, 404)


class Unlucky:
    """The real store, some of whose transactions fail: before their commit, or with its answer lost; or are slow."""

    def __init__(self, store, clock):
        self.store = store
        self.clock = clock
        self.count = 0
        self.luck = []  # of the next transactions: fine, before, undone, after; or the ms until their answer comes

    def read(self):
        return self.store.read()

    def run(self, work):
        fate = self.luck.pop(0) if self.luck else "fine"
        if fate == "before":
            raise StoreUnavailable("the database is busy")

        def played(conn):
            result = work(conn)
            if fate == "undone":
                raise StoreUnavailable("a lock was waited for too long")
            return result

        result = self.store.run(played)
        self.count += 1
        if isinstance(fate, int):
            self.clock.advance(fate)
        if fate == "after":
            raise StoreUnavailable("the connection broke at COMMIT")
        return result


class Bridge:
    """A deliverer with one goal, and a DataFast that takes everything."""

    def __init__(self, store, clock):
        self.store, self.clock, self.unlucky = store, clock, Unlucky(store, clock)
        self.key, self.destinations, self.sent_to = "df_1", {}, []
        self.on_post = lambda: None
        self.answer = DELIVERED
        self.claims, self.fail_to_claim_after = itertools.count(), None
        self.slept_ms = 0
        self.deliverer = Deliverer(
            self.unlucky,
            self,
            table.load({"DATAFAST_API_KEY": "df_1"}),
            lambda: self.destinations or {"default": Destination("default", self.key)},
            random=lambda: 0.5,
            monotonic_ms=lambda: clock.now_ms,
            sleep_ms=self.sleep,
            new_token=self.new_token,
        )
        with store.write() as conn:
            self.make_goal(conn)

    def make_goal(self, conn, number=1, **more):
        now = self.clock.now_ms
        conn.execute(
            insert(schema.events).values(
                id=number, source="s", provider="stripe", type="t", test=False, received_at_ms=now,
                dedupe_key=f"k{number}", headers="{}", query="{}", state="routed",
            )
        )  # fmt: skip
        values = {
            "event_id": number, "source": "s", "rule_id": "r", "destination": "default", "once_key": f"o{number}",
            "test": False, "name": "purchase", "description": "s evt_1", "metadata": "{}", "visitor": "v",
            "state": "pending", "happened_at_ms": now, "time_is_stated": True, "ordered_at_ms": now,
            "created_at_ms": now, "changed_at_ms": now, "due_at_ms": now, "expires_at_ms": now + 86_400_000,
            "wait_ms": 1,
        }  # fmt: skip
        conn.execute(insert(schema.goals).values(**values | more))

    def change(self, **values):
        with self.store.write() as conn:
            conn.execute(update(schema.goals).values(**values))

    def note_unknown(self):
        with self.store.write() as conn:
            goal_statements.note_unknown(conn, "default", "v")

    @property
    def unknown(self):
        """The visitors on record as unknown."""
        with self.store.read() as conn:
            return conn.execute(select(schema.unknown_visitors.c.visitor)).scalars().all()

    @property
    def sent(self):
        return len(self.sent_to)

    def post(self, destination, _route, _body):
        self.sent_to.append(destination.name)
        self.on_post()
        return self.answer

    def new_token(self):
        number = next(self.claims)
        if number == self.fail_to_claim_after:
            raise StoreUnavailable("the claim waited for somebody else's lock")
        return f"lease-{number}"

    def queue(self, *numbers):
        """Goals of other visitors, which are due."""
        with self.store.write() as conn:
            for number in numbers:
                self.make_goal(conn, number, visitor=f"v{number}")

    def sleep(self, ms):
        self.slept_ms += ms
        self.clock.advance(ms)

    def step(self, *luck):
        """luck: of the step's transactions: register, claim, settle, …"""
        self.unlucky.luck = list(luck)
        return self.deliverer.step()

    @property
    def goal(self):
        with self.store.read() as conn:
            return conn.execute(select(schema.goals)).one()

    @property
    def states(self):
        with self.store.read() as conn:
            return conn.execute(select(schema.goals.c.state).order_by(schema.goals.c.id)).scalars().all()

    @property
    def transactions(self):
        """How many were committed."""
        return self.unlucky.count

    @property
    def tries(self):
        with self.store.read() as conn:
            return conn.execute(select(schema.attempts.c.outcome).order_by(schema.attempts.c.id)).scalars().all()


@pytest.fixture
def bridge(store, clock):
    return Bridge(store, clock)


def test_an_answer_that_cannot_be_written_at_once_is_written_later(bridge):
    assert bridge.step("fine", "fine", *["before"] * 20) is None
    assert (bridge.goal.state, bridge.sent, bridge.tries) == ("delivered", 1, ["delivered"])
    assert bridge.slept_ms == 20 * 200


def test_an_answer_whose_commit_was_not_confirmed_is_written_once(bridge):
    assert bridge.step("fine", "fine", "after") is None
    assert (bridge.goal.state, bridge.tries) == ("delivered", ["delivered"])


def test_an_answer_is_kept_no_longer_than_the_lease(bridge):
    with pytest.raises(StoreUnavailable):
        bridge.step("fine", "fine", *["before"] * 10_000)
    assert bridge.goal.state == "sending"
    assert LEASE_MS - 1_000 < bridge.slept_ms < LEASE_MS


@pytest.mark.parametrize(("fate", "tries"), [("before", []), ("after", ["not_sent"])])
def test_what_may_have_been_written_ahead_but_was_not_sent_is_taken_back(bridge, fate, tries):
    with pytest.raises(StoreUnavailable):
        bridge.step("fine", fate, "before", "after")
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
    assert (bridge.goal.first_try_at_ms is None) is not bool(sent), "its retry schedule has not begun"


def test_it_is_given_back_as_soon_as_the_database_is_there_again(bridge):
    assert bridge.step("fine", LEASE_MS - DEADLINE_MS, "before", "after") is None
    assert (bridge.goal.state, bridge.sent, bridge.tries) == ("pending", 0, [])


def test_what_is_delivered_and_the_claim_of_the_next_are_one_transaction(bridge):
    bridge.queue(2, 3)
    began = []

    def note():
        began.append((bridge.transactions, bridge.states))
        bridge.clock.advance(2_000)  # for the rate limit

    bridge.on_post = note
    assert bridge.step() is None
    assert began == [
        (2, ["sending", "pending", "pending"]),
        (3, ["delivered", "sending", "pending"]),
        (4, ["delivered", "delivered", "sending"]),
    ]
    assert (bridge.states, bridge.transactions) == (["delivered"] * 3, 5)
    assert bridge.tries == ["delivered"] * 3


@pytest.mark.parametrize(
    "fates", [("undone",), ("after",), ("before", "after"), ("after", "undone"), ("undone", "after")]
)
def test_an_answer_is_written_without_the_next_claim_if_that_failed(bridge, fates):
    """Whether or not the claim was committed, it is taken back: nothing was sent."""
    bridge.queue(2)
    assert bridge.step("fine", "fine", *fates) is None
    assert (bridge.sent, bridge.states) == (1, ["delivered", "pending"])
    assert bridge.tries == ["delivered", *["not_sent"] * (fates[0] != "undone")]
    bridge.clock.advance(2_000)  # for the rate limit
    assert bridge.step() is None
    assert (bridge.sent, bridge.states) == (2, ["delivered", "delivered"])


def test_a_claim_that_cannot_be_made_holds_no_answer_up(bridge):
    bridge.queue(2)
    bridge.fail_to_claim_after = 1
    assert bridge.step() is None
    assert (bridge.sent, bridge.states, bridge.slept_ms) == (1, ["delivered", "pending"], 200)


def test_nothing_follows_an_answer_that_begins_a_pause(bridge):
    bridge.queue(2)
    bridge.answer = Outcome(OutcomeKind.CONFIGURATION, 401)
    assert bridge.step() is None
    assert (bridge.sent, bridge.states) == (1, ["pending", "pending"])
    assert bridge.deliverer.step() == 1_000


def test_nothing_is_claimed_with_an_answer_when_the_process_is_to_stop(bridge):
    bridge.queue(2)
    assert bridge.deliverer.step(lambda: bool(bridge.sent)) is None
    assert (bridge.sent, bridge.states, bridge.tries) == (1, ["delivered", "pending"], ["delivered"])


def test_what_was_claimed_with_an_answer_is_given_back_if_the_process_is_to_stop(bridge):
    bridge.queue(2)
    assert bridge.deliverer.step(lambda: bridge.states == ["delivered", "sending"]) is None
    assert (bridge.sent, bridge.states, bridge.tries) == (1, ["delivered", "pending"], ["delivered"])


def test_an_answer_that_came_too_late_claims_nothing(bridge):
    bridge.queue(2)

    def too_long():
        bridge.clock.advance(LEASE_MS)
        bridge.deliverer.sweep()

    bridge.on_post = too_long
    assert bridge.step() is None
    assert (bridge.sent, bridge.states) == (1, ["unconfirmed", "pending"])


def test_a_new_key_is_used_for_the_next_goal(bridge):
    bridge.queue(2)
    bridge.on_post = lambda: setattr(bridge, "key", "df_2")
    assert bridge.step() is None
    assert (bridge.sent, bridge.states) == (1, ["delivered", "pending"])


def test_a_destination_is_registered_once_and_again_under_another_key(bridge):
    bridge.step()
    assert bridge.deliverer.step() == 1_000, "only the next claim finds that there is no more"
    bridge.unlucky.luck = ["before"]  # of whatever it writes
    assert bridge.deliverer.step() == 1_000, "there is nothing to send, and nothing to write"
    bridge.key = "df_2"
    with pytest.raises(StoreUnavailable):
        bridge.deliverer.step()


def test_destinations_without_a_key_are_left_alone(bridge):
    bridge.key = None
    assert bridge.deliverer.step() == 1_000
    assert bridge.goal.state == "pending"


@pytest.mark.parametrize(("due_in_ms", "wait_ms"), [(1, 1), (400, 400), (1_000, 1_000), (5_000, 1_000)])
def test_it_waits_until_the_next_goal_is_due_at_most_a_second(bridge, due_in_ms, wait_ms):
    bridge.change(due_at_ms=bridge.clock.now_ms + due_in_ms)
    assert bridge.deliverer.step() == wait_ms


def test_an_idle_destination_is_looked_at_without_a_write(bridge):
    bridge.answer = Outcome(OutcomeKind.REJECTED, 400)
    bridge.step()
    bridge.step()  # a claim shows that there is no more
    before = bridge.transactions
    assert (bridge.step(), bridge.transactions) == (1_000, before)


def test_of_several_destinations_each_has_its_turn_and_the_shortest_wait_counts(bridge):
    bridge.destinations = {name: Destination(name, f"df_{name}") for name in ("default", "b", "c")}
    bridge.change(due_at_ms=bridge.clock.now_ms + 400)
    assert bridge.deliverer.step() == 400
    for number in range(2, 8):
        with bridge.store.write() as conn:
            bridge.make_goal(conn, number, destination=("default", "b", "c")[number % 3], visitor=f"v{number}")
    bridge.on_post = lambda: bridge.clock.advance(TURN_MS)
    for _ in range(6):
        assert bridge.deliverer.step() is None
    assert sorted(bridge.sent_to[:3]) == sorted(bridge.sent_to[3:]) == ["b", "c", "default"]


def test_a_turn_of_a_destination_that_answers_quickly_takes_a_transaction_a_goal(bridge):
    bridge.destinations = {name: Destination(name, f"df_{name}") for name in ("default", "b")}
    for _ in range(2):
        bridge.deliverer.step()
    bridge.clock.advance(10_000)  # for the rate limit, as below
    bridge.sent_to.clear()
    for number in range(2, 8):
        with bridge.store.write() as conn:
            bridge.make_goal(conn, number, destination=("default", "b")[number % 2], visitor=f"v{number}")
    before = bridge.transactions
    bridge.on_post = lambda: bridge.clock.advance(2_000 if len(bridge.sent_to) == 2 else TURN_MS - 1)
    assert bridge.deliverer.step() is None
    first, second = bridge.sent_to
    assert (first, bridge.transactions - before) == (second, 3)
    assert bridge.deliverer.step() is None
    assert bridge.sent_to[2] != first


def test_a_worker_that_is_to_stop_gives_back_what_it_claimed(bridge):
    assert bridge.deliverer.step(lambda: True) is None
    assert (bridge.goal.state, bridge.goal.lease_token, bridge.sent, bridge.tries) == ("pending", None, 0, [])


@pytest.mark.parametrize("on_record", [["v"], []], ids=["delivered", "visitor unknown for the last time"])
def test_an_answer_that_comes_after_the_lease_says_nothing_about_its_visitor(bridge, on_record):
    """The goal is in doubt by then, and its read-back will tell."""

    def too_long():
        bridge.clock.advance(LEASE_MS)
        bridge.deliverer.sweep()

    bridge.on_post = too_long
    if on_record:
        bridge.note_unknown()
    else:
        bridge.answer = UNKNOWN
        bridge.change(unknown_visitor_tries=99)
    assert bridge.deliverer.step() is None
    assert (bridge.goal.state, bridge.sent, bridge.unknown) == ("unconfirmed", 1, on_record)


@pytest.mark.parametrize(
    ("answer", "on_record"),
    [(DELIVERED, []), (UNKNOWN, ["v"]), (Outcome(OutcomeKind.REJECTED, 400), ["v"])],
    ids=["delivered", "visitor unknown", "rejected"],
)
def test_a_visitor_who_was_unknown_is_forgotten_as_soon_as_a_goal_is_delivered(bridge, answer, on_record):
    bridge.note_unknown()
    bridge.answer = answer
    bridge.step()
    assert bridge.unknown == on_record


@pytest.mark.parametrize("says_its_time", [True, False])
def test_the_time_at_datafast_is_noted_ahead_once_its_clock_was_compared_with_ours(bridge, says_its_time):
    """A read-back looks for a goal by the time at DataFast, which only its answers tell."""
    bridge.queue(2, 3)
    ahead = []

    def note():
        with bridge.store.read() as conn:
            newest = select(schema.attempts.c.server_started_at_ms).order_by(schema.attempts.c.id.desc()).limit(1)
            ahead.append(conn.execute(newest).scalar_one() is not None)

    bridge.on_post = note
    server_now_ms = bridge.clock.now_ms if says_its_time else None
    bridge.answer = Outcome(OutcomeKind.DELIVERED, 200, event_id="e1", server_now_ms=server_now_ms)
    for _ in range(3):
        bridge.step()
        bridge.clock.advance(1_000)
    assert ahead == [False, False, says_its_time]  # the second was claimed together with the first's answer


def test_the_time_in_an_answer_that_comes_after_the_lease_is_compared_with_nothing(bridge):
    """What an earlier process learned about the clocks may be wrong by now."""
    bridge.queue(2)
    bridge.answer = Outcome(OutcomeKind.DELIVERED, 200, event_id="e1", server_now_ms=bridge.clock.now_ms)

    def too_long():
        with bridge.store.write() as conn:
            conn.execute(update(schema.destinations).values(clock_skew_ms=90_000))
        bridge.clock.advance(LEASE_MS)
        bridge.deliverer.sweep()

    bridge.on_post = too_long
    bridge.step()
    bridge.on_post = lambda: None
    bridge.answer = Outcome(OutcomeKind.DELIVERED, 200, event_id="e2")
    bridge.step()
    with bridge.store.read() as conn:
        times = conn.execute(select(schema.attempts.c.server_started_at_ms)).scalars().all()
    assert (bridge.sent, times) == (2, [None, None])


def test_a_pause_and_its_end_are_logged_once_each(bridge):
    bridge.queue(2, 3)
    with capture_logs() as lines:
        bridge.answer = Outcome(OutcomeKind.CONFIGURATION, 401)
        bridge.step()
        bridge.answer = Outcome(OutcomeKind.DELIVERED, 200, event_id="e1")
        for _ in range(9):
            bridge.clock.advance(3_600_000)
            bridge.step()
    told = [line["event"] for line in lines if line["event"].startswith("destination.")]
    assert (told, bridge.states) == (["destination.paused", "destination.reopened"], ["delivered"] * 3)


def test_a_probe_whose_claim_was_not_confirmed_leaves_the_destination_free_for_another(bridge):
    bridge.answer = Outcome(OutcomeKind.CONFIGURATION, 401)
    bridge.step()
    bridge.clock.advance(3_600_000)
    with pytest.raises(StoreUnavailable):
        bridge.step("after")
    with bridge.store.read() as conn:
        assert conn.execute(select(schema.destinations.c.probe_token)).scalar_one() is None


@pytest.mark.parametrize(("message", "kept"), [("There is no such visitor.", "There is no such visitor."), ("", None)])
def test_what_datafast_said_is_kept_with_the_attempt(bridge, message, kept):
    bridge.answer = Outcome(OutcomeKind.CONFIGURATION, 401, message=message)
    bridge.step()
    with bridge.store.read() as conn:
        assert conn.execute(select(schema.attempts.c.message)).scalar_one() == kept
