"""The delivery statements on both databases: who may claim what, and what each answer leaves behind."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import select

from bridge.model import (
    Claim,
    GoalState,
    Health,
    NotYet,
    Outcome,
    OutcomeKind,
    ProofClaim,
    ReadbackClaim,
    ReadbackDecision,
    Settlement,
)
from bridge.store import facts
from bridge.store.delivery import claims, pauses, restoring, statements
from bridge.store.goals import statements as goal_statements
from bridge.store.schema import attempts, destinations, events, goals, pace

V1 = "00000000-0000-4000-8000-000000000001"
V2 = "00000000-0000-4000-8000-000000000002"
_tokens = (f"lease-{n}" for n in itertools.count())
DAY = 86_400_000

DELIVERED = (Outcome(OutcomeKind.DELIVERED, 200, event_id="e1"), Settlement(GoalState.DELIVERED, Health.SUCCESS))
LOST = (
    Outcome(OutcomeKind.UNCONFIRMED, message="no answer"),
    Settlement(GoalState.UNCONFIRMED, Health.FAILURE, 30_000, "answer_lost", "no answer", counts=True),
)
REFUSED = (
    Outcome(OutcomeKind.NOT_SENT, message="connection refused"),
    Settlement(GoalState.PENDING, Health.FAILURE, 5_000, "not_sent", "connection refused", counts=True),
)
WRONG_KEY = (
    Outcome(OutcomeKind.CONFIGURATION, 401, "unknown token"),
    Settlement(GoalState.PENDING, Health.CONFIGURATION, reason="configuration", message="unknown token"),
)


class Rig:
    """Runs the statements for one destination."""

    def __init__(self, store, clock, rate=None):
        self.store, self.clock, self.rate = store, clock, rate or 60
        self.run(lambda conn: claims.register(conn, destination="default", token_hash="t1"))
        self.events = 0
        self.paced = rate is not None

    def run(self, work):
        return self.store.run(work)

    def goal(self, visitor=V1, *, name="purchase", ordered_at=0, due_in=0, state="pending", expires_in=DAY, **more):
        """Insert an event and its goal; the goal's id."""
        self.events += 1
        now = self.clock.now_ms

        def insert(conn):
            event_id = conn.execute(
                events.insert()
                .values(
                    source="stripe",
                    provider="stripe",
                    type="t",
                    test=False,
                    received_at_ms=now,
                    dedupe_key=f"k{self.events}",
                    headers="{}",
                    query="{}",
                    body=b"{}",
                    state="routed",
                )
                .returning(events.c.id)
            ).scalar_one()
            values = {
                "event_id": event_id,
                "source": "stripe",
                "rule_id": name,
                "destination": "default",
                "once_key": f"o{event_id}",
                "test": False,
                "name": name,
                "description": f"stripe evt_{event_id}",
                "metadata": "{}",
                "visitor": visitor,
                "state": state,
                "happened_at_ms": now,
                "time_is_stated": True,
                "ordered_at_ms": ordered_at or now,
                "created_at_ms": now,
                "changed_at_ms": now,
                "due_at_ms": now + due_in,
                "expires_at_ms": now + expires_in,
                "wait_ms": DAY,
            }
            return conn.execute(goals.insert().values(**values | more).returning(goals.c.id)).scalar_one()

        return self.run(insert)

    def claim(self, lease_ms=60_000):
        token = next(_tokens)
        if not self.paced:  # the clock stands still: forget the slots taken so far
            self.run(lambda conn: conn.execute(pace.update().values(next_at_us=0)))
        return self.run(
            lambda conn: claims.claim(
                conn, destination="default", token_hash="t1", token=token, lease_ms=lease_ms, rate=self.rate
            )
        )

    def settle(self, claim, answer):
        return self.run(lambda conn: claims.settle(conn, claim, *answer))

    def send(self, answer):
        """Claim and settle one goal; its id."""
        claim = self.claim()
        assert isinstance(claim, Claim), claim
        self.settle(claim, answer)
        return claim.goal.id

    def state(self, goal_id):
        return self.row(goal_id).state

    def row(self, goal_id):
        with self.store.read() as conn:
            return conn.execute(select(goals).where(goals.c.id == goal_id)).one()

    def destination(self, name="default"):
        with self.store.read() as conn:
            return conn.execute(select(destinations).where(destinations.c.name == name)).one()

    def tries(self, goal_id):
        with self.store.read() as conn:
            return conn.execute(select(attempts).where(attempts.c.goal_id == goal_id).order_by(attempts.c.id)).all()

    def look(self):
        """Claim a look thirty seconds later."""
        self.clock.advance(30_000)
        look = self.claim()
        assert isinstance(look, ReadbackClaim), look
        return look

    def hear_clock(self, skew_ms, **more):
        """An answer that says nothing but what DataFast's clock is."""
        claim, silent = ProofClaim("default", V1, "asked"), Settlement(GoalState.PARKED, Health.SILENT)
        now = self.clock.now_ms + skew_ms
        self.run(lambda conn: pauses.learn(conn, claim, silent, server_now_ms=now, **more))

    def sweep(self):
        return self.run(lambda conn: claims.sweep(conn, settling_ms=30_000))


@pytest.fixture
def rig(store, clock):
    return Rig(store, clock)


def test_a_goal_goes_from_pending_to_delivered_with_its_attempt_written_ahead(rig):
    goal = rig.goal()
    claim = rig.claim()
    assert isinstance(claim, Claim)
    assert (claim.goal.id, rig.state(goal)) == (goal, "sending")
    (ahead,) = rig.tries(goal)
    assert (ahead.id, ahead.lease_token, ahead.outcome) == (claim.attempt_id, claim.token, None)
    assert rig.settle(claim, DELIVERED).written
    row = rig.row(goal)
    assert (row.state, row.datafast_event_id, row.lease_token) == ("delivered", "e1", None)
    with rig.store.read() as conn:
        written = conn.execute(select(attempts)).one()
    assert (written.goal_id, written.outcome, written.status) == (goal, "delivered", 200)


def test_what_is_claimed_is_claimed_once(rig):
    rig.goal()
    assert isinstance(rig.claim(), Claim)
    assert isinstance(rig.claim(), NotYet)


def test_a_goal_waits_for_an_earlier_one_of_its_visitor_and_for_nobody_elses(rig, clock):
    later = rig.goal(ordered_at=clock.now_ms)
    earlier = rig.goal(ordered_at=clock.now_ms - 5)
    other = rig.goal(V2)
    first = rig.claim()
    second = rig.claim()
    assert {first.goal.id, second.goal.id} == {earlier, other}
    assert isinstance(rig.claim(), NotYet)
    mine = first if first.goal.id == earlier else second
    rig.settle(mine, DELIVERED)
    assert rig.claim().goal.id == later


def test_an_earlier_goal_that_waits_for_a_later_try_or_is_parked_holds_nobody_up(rig, clock):
    rig.goal(ordered_at=clock.now_ms - 5, due_in=10_000)
    rig.goal(ordered_at=clock.now_ms - 4, state="parked")
    rig.goal(ordered_at=clock.now_ms - 3, state="held")
    free = rig.goal(ordered_at=clock.now_ms)
    assert rig.claim().goal.id == free


def test_an_unconfirmed_earlier_goal_holds_its_visitor_up(rig, clock):
    first = rig.goal(ordered_at=clock.now_ms - 5)
    rig.goal(ordered_at=clock.now_ms)
    assert rig.send(LOST) == first
    assert isinstance(rig.claim(), NotYet)


def test_every_fifth_slot_takes_the_newest(rig):
    visitors = [f"00000000-0000-4000-8000-00000000{n:04}" for n in range(10)]
    ids = [rig.goal(visitor, due_in=n - 20) for n, visitor in enumerate(visitors)]
    sent = [rig.send(DELIVERED) for _ in range(6)]
    assert sent == [*ids[:4], ids[-1], ids[4]]


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_the_pace_of_a_token_is_never_exceeded_in_any_minute(store, clock):
    rig = Rig(store, clock, rate=58)
    for n in range(200):
        rig.goal(f"00000000-0000-4000-8000-00000000{n:04}")
    sent: list[int] = []
    while len(sent) < 130:
        claim = rig.claim()
        if isinstance(claim, NotYet):
            assert claim.until_ms is not None
            clock.advance(max(1, claim.until_ms - clock.now_ms))
            continue
        sent.append(clock.now_ms)
    for index, at in enumerate(sent):
        assert sum(at <= other < at + 60_000 for other in sent[index:]) <= 60
    assert sent[-1] - sent[0] < 130 / 58 * 60_000 * 1.02  # and no slot is wasted


def test_a_token_may_send_two_at_once_and_then_one_per_interval(store, clock):
    rig = Rig(store, clock, rate=60)
    for n in range(4):
        rig.goal(f"v{n}")
    assert [type(rig.claim()) for _ in range(3)] == [Claim, Claim, NotYet]
    clock.advance(1_000)
    assert [type(rig.claim()) for _ in range(2)] == [Claim, NotYet]


def test_a_claim_that_finds_nothing_takes_no_slot(store, clock):
    rig = Rig(store, clock, rate=58)
    for _ in range(5):
        assert isinstance(rig.claim(), NotYet)
    rig.goal()
    rig.goal(V2)
    assert isinstance(rig.claim(), Claim)
    assert isinstance(rig.claim(), Claim)


def test_what_a_former_release_leased_and_did_not_send_is_free_when_its_lease_runs_out(rig, clock):
    goal = rig.goal(state="leased", lease_token="theirs", lease_until_ms=clock.now_ms + 60_000)
    assert isinstance(rig.claim(), NotYet)
    clock.advance(60_000)
    assert rig.sweep() == ([goal], [], [])
    assert rig.claim().goal.id == goal


def test_a_vanished_sender_leaves_doubt_and_its_late_answer_writes_nothing(rig, clock):
    goal = rig.goal()
    claim = rig.claim()
    clock.advance(60_000)
    assert rig.sweep() == ([], [goal], [])
    assert not rig.settle(claim, DELIVERED).written
    assert rig.state(goal) == "unconfirmed"


def test_a_goal_older_than_its_max_age_expires_and_is_never_claimed(rig, clock):
    goal = rig.goal(expires_in=1_000)
    clock.advance(1_000)
    assert isinstance(rig.claim(), NotYet)
    assert rig.sweep() == ([], [], [goal])
    assert (rig.row(goal).state, rig.row(goal).reason) == ("expired", "max_age")


@pytest.mark.parametrize("tried", [False, True])
def test_a_lease_can_be_given_back_and_leaves_no_attempt(rig, clock, tried):
    goal = rig.goal(first_try_at_ms=clock.now_ms - 5 if tried else None)
    before = rig.row(goal)
    claim = rig.claim()
    assert rig.row(goal).first_try_at_ms == clock.now_ms - 5 * tried
    assert rig.run(lambda conn: claims.release(conn, claim))
    assert (rig.row(goal), rig.tries(goal)) == (before, []), "its retry schedule has not begun"
    assert rig.claim().goal.id == goal


def test_a_claim_that_nobody_confirmed_is_taken_back_and_its_attempt_says_so(rig):
    goal = rig.goal()
    claim = rig.claim()
    for _ in range(2):
        rig.run(lambda conn: claims.take_back(conn, claim))
        (attempt,) = rig.tries(goal)
        assert (rig.state(goal), attempt.outcome, attempt.ended_at_ms is None) == ("pending", "not_sent", False)
        assert rig.row(goal).first_try_at_ms is None
    again = rig.claim()
    rig.run(lambda conn: claims.take_back(conn, claim))
    assert rig.state(goal) == "sending", "it is somebody else's by now"
    assert rig.settle(again, DELIVERED).written


def test_a_lost_answer_is_looked_up_with_all_of_its_kind_and_what_is_owned(rig, clock):
    owned = rig.goal(ordered_at=clock.now_ms - 9)
    assert rig.send(DELIVERED) == owned
    lost = rig.goal(ordered_at=clock.now_ms)
    rig.send(LOST)
    clock.advance(30_000)
    look = rig.claim()
    assert isinstance(look, ReadbackClaim)
    assert [goal.goal.id for goal in look.goals] == [lost]
    assert [entry.description for entry in look.owned] == [rig.row(owned).description]
    assert look.goals[0].windows == ((clock.now_ms - 30_000, clock.now_ms - 30_000),)
    assert isinstance(rig.claim(), NotYet)
    found = Settlement(GoalState.DELIVERED, Health.SUCCESS)
    health = Settlement(GoalState.UNCONFIRMED, Health.ANSWERED)
    assert rig.run(
        lambda conn: claims.settle_readback(conn, look, [ReadbackDecision(look.goals[0], found)], health=health)
    ).written
    assert rig.state(lost) == "delivered"


def test_a_goal_that_was_sent_again_owns_the_entry_of_the_try_that_was_answered(rig, clock):
    """The try in doubt may have left an entry, too; the other one was taken for the next goal, which was lost."""
    rig.goal(ordered_at=clock.now_ms - 9)
    rig.send(LOST)
    clock.advance(30_000)
    look = rig.claim()
    again = [ReadbackDecision(look.goals[0], Settlement(GoalState.PENDING, Health.SILENT))]
    health = Settlement(GoalState.UNCONFIRMED, Health.SILENT)
    rig.run(lambda conn: claims.settle_readback(conn, look, again, health=health))
    clock.advance(60_000)
    answered_at = clock.now_ms
    rig.send(DELIVERED)
    rig.goal(ordered_at=clock.now_ms)
    rig.send(LOST)
    clock.advance(30_000)
    (owned,) = rig.claim().owned
    assert owned.windows == ((answered_at, answered_at),)


def test_a_look_whose_lease_ran_out_writes_nothing(rig, clock):
    lost = rig.goal()
    rig.send(LOST)
    clock.advance(30_000)
    stale = rig.claim()
    clock.advance(60_000)
    fresh = rig.claim()
    assert isinstance(fresh, ReadbackClaim)
    health = Settlement(GoalState.UNCONFIRMED, Health.ANSWERED)
    again = Settlement(GoalState.PENDING, Health.ANSWERED)
    rulings = [ReadbackDecision(stale.goals[0], again, absent=True)]
    assert not rig.run(lambda conn: claims.settle_readback(conn, stale, rulings, health=health)).written
    assert rig.state(lost) == "unconfirmed"


def test_a_wrong_key_pauses_at_once_then_one_goal_probes_and_its_success_reopens(rig, clock):
    for n in range(3):
        rig.goal(f"00000000-0000-4000-8000-00000000{n:04}")
    first = rig.send(WRONG_KEY)
    assert (rig.destination().pause_kind, rig.row(first).attempts) == ("configuration", 0)
    waiting = rig.claim()
    assert waiting == NotYet(clock.now_ms + 30_000, clock.now_ms)
    clock.advance(30_000)
    probe = rig.claim()
    assert probe.probe
    assert isinstance(rig.claim(), NotYet)
    rig.settle(probe, WRONG_KEY)
    assert rig.claim() == NotYet(clock.now_ms + 60_000, clock.now_ms)
    clock.advance(60_000)
    probe = rig.claim()
    assert rig.settle(probe, DELIVERED).news == "reopened"
    assert rig.destination().pause_kind is None
    assert isinstance(rig.claim(), Claim)


def test_five_failures_in_a_row_pause_and_the_pause_is_not_counted_for_the_goals(rig, clock):
    for n in range(8):
        rig.goal(f"00000000-0000-4000-8000-00000000{n:04}")
    for _ in range(5):
        tried = rig.send(REFUSED)
    assert rig.destination().pause_kind == "failures"
    clock.advance(5_000)
    probe = rig.claim()
    rig.settle(probe, DELIVERED)
    assert rig.row(tried).paused_ms == 5_000
    assert rig.row(probe.goal.id).attempts == 0


def test_a_pause_that_goes_on_is_subtracted_once_at_its_end(rig, clock):
    goal, _ = rig.goal(), rig.goal(V2)
    rig.send(WRONG_KEY)
    clock.advance(30_000)
    rig.send(WRONG_KEY)
    assert rig.row(goal).paused_ms == 0
    clock.advance(60_000)
    rig.run(lambda conn: pauses.reopen(conn, "default"))
    assert rig.row(goal).paused_ms == 90_000


def test_a_pause_is_not_counted_for_a_goal_in_doubt_either(rig, clock):
    doubtful = rig.goal()
    rig.send(LOST)
    rig.goal(V2)
    rig.send(WRONG_KEY)
    clock.advance(30_000)
    rig.send(DELIVERED)
    assert rig.destination().pause_kind is None
    assert (rig.state(doubtful), rig.row(doubtful).paused_ms) == ("unconfirmed", 30_000)


def test_a_probe_that_is_given_back_lets_the_next_one_through_at_once(rig, clock):
    rig.goal()
    rig.send(WRONG_KEY)
    clock.advance(30_000)
    probe = rig.claim()
    assert probe.probe
    assert isinstance(rig.claim(), NotYet)
    assert rig.run(lambda conn: claims.release(conn, probe))
    assert rig.claim().probe


def test_a_probe_whose_worker_vanished_is_followed_by_another(rig, clock):
    rig.goal()
    rig.goal(V2)
    rig.send(WRONG_KEY)
    clock.advance(30_000)
    assert rig.claim().probe
    clock.advance(60_000)
    rig.sweep()
    assert rig.claim().probe


def test_an_answer_in_flight_when_the_pause_began_does_not_lengthen_it(rig, clock):
    for n in range(3):
        rig.goal(f"00000000-0000-4000-8000-00000000{n:04}")
    one, two = rig.claim(), rig.claim()
    rig.settle(one, WRONG_KEY)
    clock.advance(1_000)
    assert rig.settle(two, WRONG_KEY).news is None
    assert rig.destination().not_before_ms == clock.now_ms + 29_000


def test_a_new_key_ends_the_pause_of_the_old_one(rig):
    rig.goal()
    rig.send(WRONG_KEY)
    assert isinstance(rig.claim(), NotYet)
    rig.run(lambda conn: claims.register(conn, destination="default", token_hash="t1-new"))
    assert isinstance(rig.claim(), Claim)


def test_a_destination_clock_that_differs_moves_the_windows(rig, clock):
    rig.goal()
    answer = (Outcome(OutcomeKind.UNCONFIRMED, 500, server_now_ms=clock.now_ms + 90_000), LOST[1])
    rig.send(answer)
    began = clock.now_ms
    clock.advance(30_000)
    look = rig.claim()
    assert look.goals[0].windows == ((began + 90_000, began + 90_000),)


def test_an_entry_never_vouches_for_a_namesake_that_was_sent_meanwhile(rig, clock):
    """Without descriptions, the second of two would have been taken for the first: one lost, the other doubled."""
    retried = rig.goal(ordered_at=2, due_in=60_000)
    doubtful = rig.goal(ordered_at=3)
    rig.send(LOST)
    assert rig.state(doubtful) == "unconfirmed"
    later = goals.update().where(goals.c.id == doubtful).values(due_at_ms=clock.now_ms + DAY)
    rig.run(lambda conn: conn.execute(later))
    clock.advance(60_000)
    assert isinstance(rig.claim(), NotYet)
    other = rig.goal(name="refund", ordered_at=1)
    assert rig.claim().goal.id == other
    assert rig.state(retried) == "pending"


def test_a_try_whose_process_vanished_has_an_end(rig, clock):
    """Else its window grew until today, and any later goal of the same name was taken for it."""
    rig.goal()
    rig.claim()
    began = clock.now_ms
    clock.advance(60_001)
    rig.run(lambda conn: claims.sweep(conn, settling_ms=0))
    clock.advance(DAY // 2)
    look = rig.claim()
    assert isinstance(look, ReadbackClaim)
    assert look.goals[0].windows == ((began, began + 60_001),)


# ------------------------------------------------------------------------------------------------------ pauses


def test_a_pause_is_forgiven_from_the_first_try_on_to_what_is_still_to_be_sent_there(rig, clock):
    rig.run(lambda conn: claims.register(conn, destination="other", token_hash="t2"))
    later = {"due_in": DAY, "first_try_at_ms": clock.now_ms - 9}
    tried, held = rig.goal("a", **later), rig.goal("b", state="held", **later)
    elsewhere, never = rig.goal("c", destination="other", **later), rig.goal("d", due_in=DAY)
    rig.goal("e")
    rig.send(WRONG_KEY)
    clock.advance(10_000)
    during = rig.goal("f", due_in=DAY, first_try_at_ms=clock.now_ms)
    clock.advance(20_000)
    rig.send(DELIVERED)
    forgiven = [rig.row(goal).paused_ms for goal in (tried, during, held, elsewhere, never)]
    assert forgiven == [30_000, 20_000, 0, 0, 0]


def test_a_pause_that_a_person_ends_is_forgiven_too_and_one_that_is_none_changes_nothing(rig, clock):
    tried = rig.goal("a", due_in=DAY, first_try_at_ms=clock.now_ms - 9)
    rig.goal("b")
    rig.send(WRONG_KEY)
    clock.advance(10_000)
    for _ in range(2):
        rig.run(lambda conn: pauses.reopen(conn, "default"))
        rig.run(lambda conn: pauses.reopen(conn, "never registered"))
        assert (rig.row(tried).paused_ms, rig.destination().pause_kind) == (10_000, None)


def test_a_destination_remembers_its_last_success_and_what_changed_is_said_once(rig, clock):
    for n in range(4):
        rig.goal(f"v{n}")
    said = []
    for answer in (DELIVERED, REFUSED, WRONG_KEY):
        claim = rig.claim()
        said.append(rig.settle(claim, answer).news)
        clock.advance(1_000)
    assert said == [None, None, "paused"]
    assert rig.destination().last_success_at_ms == clock.now_ms - 3_000


def test_a_success_is_recorded_once_a_second(rig, clock):
    began, recorded = clock.now_ms, []
    for at in (0, 999, 1_000, 500):  # in the end the clock is set back
        clock.set(began + at)
        rig.goal()
        rig.send(DELIVERED)
        recorded.append(rig.destination().last_success_at_ms - began)
    assert recorded == [0, 0, 1_000, 500]


def test_only_the_probe_itself_gives_its_turn_back(rig, clock):
    rig.run(lambda conn: claims.register(conn, destination="other", token_hash="t2"))
    rig.goal()
    rig.send(WRONG_KEY)
    clock.advance(30_000)
    probe = rig.claim()
    for destination, token in (("default", "another"), ("other", probe.token)):
        rig.run(lambda conn, of=(destination, token): statements.release_probe(conn, *of))
        assert isinstance(rig.claim(), NotYet)


def test_the_same_key_again_ends_no_pause(rig):
    rig.goal()
    rig.send(WRONG_KEY)
    before = rig.destination()
    rig.run(lambda conn: claims.register(conn, destination="default", token_hash="t1"))
    assert rig.destination() == before


def test_a_new_key_has_strangers_asked_about_anew_at_its_own_destination(rig, clock):
    rig.run(lambda conn: claims.register(conn, destination="other", token_hash="t2"))
    unknown = {"unknown_at_ms": 1, "unknown_visitor_tries": 3, "due_in": DAY}
    given_up = {"state": "unattributed", "provenance": "{}", "due_in": DAY}
    stranger, fresh = rig.goal("a", **unknown), rig.goal("b", due_in=DAY)
    parked, elsewhere = rig.goal("c", state="parked", due_in=DAY), rig.goal("d", destination="other", **unknown)
    again, nobody = rig.goal("e", **given_up), rig.goal("f", **given_up | {"provenance": None})
    too_old, sent = rig.goal("g", expires_in=0, **given_up), rig.goal("h", state="delivered", **unknown)
    clock.advance(1_000)
    rig.run(lambda conn: claims.register(conn, destination="default", token_hash="t1-new"))
    now, later = clock.now_ms, clock.now_ms - 1_000 + DAY
    row = rig.row(stranger)
    assert (row.unknown_at_ms, row.unknown_visitor_tries, row.due_at_ms) == (0, 0, now)
    assert [rig.row(goal).due_at_ms for goal in (fresh, parked, elsewhere, sent)] == [later, now, later, later]
    assert (rig.row(elsewhere).unknown_visitor_tries, rig.row(sent).unknown_visitor_tries) == (3, 3)
    row = rig.row(again)
    assert (row.state, row.due_at_ms, row.parked_until_ms) == ("parked", now, now + DAY)
    assert [rig.state(goal) for goal in (nobody, too_old)] == ["unattributed"] * 2


def test_the_row_of_unknown_visitors_begins_anew_with_a_new_key(rig):
    refused = (
        Outcome(OutcomeKind.UNKNOWN_VISITOR, 404, "not found"),
        Settlement(GoalState.PENDING, Health.UNKNOWN_VISITOR, DAY, "unknown_visitor", unknown_visitor=True),
    )
    said = []
    for n in range(11):
        rig.goal(f"v{n}")
        claim = rig.claim()
        said.append(rig.settle(claim, refused).news)
    assert said == [*[None] * 9, "none_known", None]
    rig.run(lambda conn: claims.register(conn, destination="default", token_hash="t1-new"))
    row = rig.destination()
    assert (row.unknown_since_ms, row.unknown_visitors, row.key_fingerprint) == (None, "[]", "t1-new")


def test_datafasts_clock_is_learned_again_where_it_is_more_than_a_second_and_a_half_away(rig, clock):
    def learned(skew_ms, **more):
        rig.hear_clock(skew_ms, **more)
        with rig.store.read() as conn:
            return pauses.clock_skew_ms(conn, "default")

    assert learned(500, trusted_clock=lambda _conn: None) == 0, "our own clock cannot be told"
    told = (90_000, 91_500, 88_500, 91_501, 90_000)
    assert [learned(skew) for skew in told] == [90_000, 90_000, 90_000, 91_501, 90_000]
    with rig.store.read() as conn:
        assert pauses.clock_skew_ms(conn, "never registered") == 0


# ------------------------------------------------------------------------------------------------- what vanished


@pytest.mark.parametrize(
    ("values", "over_at"),
    [
        ({"state": "leased", "lease_until_ms": 5_000}, 5_000),
        ({"state": "sending", "lease_until_ms": 5_000}, 5_000),
        ({"state": "pending", "expires_at_ms": 5_000}, 5_000),
        ({"state": "parked", "expires_at_ms": 5_000}, None),
        ({"state": "unconfirmed", "lease_until_ms": 5_000}, None),
        ({"state": "pending", "lease_until_ms": 5_000}, None),
    ],
)
def test_there_is_something_to_sweep_as_soon_as_it_is_over_and_not_before(rig, clock, values, over_at):
    now = clock.now_ms
    rig.goal(**{name: now + value if isinstance(value, int) else value for name, value in values.items()})
    for after_ms in (4_999, 5_000):
        clock.set(now + after_ms)
        with rig.store.read() as conn:
            found = claims.anything_to_sweep(conn)
        assert found is (over_at == after_ms)
        assert any(rig.sweep()) is found


def test_what_vanished_while_it_was_sent_waits_for_its_look_with_nothing_said_of_it(rig, clock):
    goal = rig.goal(looks=2, absent=1, attempts=1, state="pending")
    rig.claim()
    clock.advance(60_000)
    rig.sweep()
    row = rig.row(goal)
    assert (row.looks, row.absent, row.attempts, row.due_at_ms - clock.now_ms) == (0, 0, 2, 30_000)
    assert (row.reason, row.lease_token, row.lease_until_ms) == ("worker_vanished", None, None)


def test_the_end_of_a_try_that_vanished_is_no_end_of_others(rig, clock):
    goal = rig.goal()
    rig.send(REFUSED)
    clock.advance(5_000)
    rig.claim()
    asked = {"goal_id": goal, "kind": "readback", "started_at_ms": 1, "lease_token": "t"}
    rig.run(lambda conn: conn.execute(attempts.insert().values(**asked)))
    clock.advance(30_000)
    other = rig.goal(V2)
    assert rig.claim().goal.id == other
    clock.advance(30_000)
    rig.sweep()
    assert [one.outcome for one in rig.tries(goal)] == ["not_sent", "unconfirmed", None]
    assert [one.outcome for one in rig.tries(other)] == [None]


# ------------------------------------------------------------------------------------------------ the rate limit


def test_a_person_waits_for_a_slot_of_the_token_as_workers_do(store, clock):
    rig = Rig(store, clock, rate=60)

    def waits(token):
        return rig.run(lambda conn: claims.reserve(conn, token, 60))

    assert [waits("t1") for _ in range(3)] == [0, 0, 1_000]
    clock.advance(400)
    assert (waits("t1"), waits("never used")) == (600, 0)
    clock.advance(600)
    assert [waits("t1") for _ in range(2)] == [0, 1_000]


# -------------------------------------------------------------------------------------------------- the read-back


def test_before_datafasts_clock_is_known_a_try_may_have_been_at_either_time(rig, clock):
    for skew in (-90_000, 90_000):
        rig.goal(f"v{skew}")
        rig.send(LOST)
        began = clock.now_ms
        rig.hear_clock(skew)
        look = rig.look()
        assert look.goals[0].windows == ((began + min(skew, 0), began + max(skew, 0)),)
        assert look.server_ms == clock.now_ms + skew


@pytest.mark.parametrize(
    ("started", "ended", "window"),
    [
        (-10_000, -7_000, (-10_000, -7_000)),
        (-7_000, -7_001, (-7_000, 53_000)),
        (-7_000, -10_000, (-7_000, 53_000)),  # the clock was set back meanwhile: as long as a lease
        (-10_000, None, (-10_000, 0)),
        (60_000, 61_000, (60_000, 61_000)),
        (60_001, 61_001, (None, 61_001)),  # by a clock that was ahead: at any time
    ],
)
def test_when_a_try_was_under_way(rig, clock, started, ended, window):
    goal = rig.goal(state="unconfirmed")
    now = clock.now_ms
    times = {"started_at_ms": now + started, "ended_at_ms": None if ended is None else now + ended}
    row = {"goal_id": goal, "kind": "send", "outcome": "unconfirmed", "lease_token": "t", **times}
    rig.run(lambda conn: conn.execute(attempts.insert().values(**row)))
    look = rig.claim()
    assert look.goals[0].windows == ((0 if window[0] is None else now + window[0], now + window[1]),)


def test_only_a_try_that_may_have_arrived_has_a_window(rig, clock):
    goal, now = rig.goal(state="unconfirmed"), clock.now_ms
    for began, outcome in ((1, None), (3, "unconfirmed"), (5, "not_sent"), (7, "configuration")):
        row = {"goal_id": goal, "kind": "send", "outcome": outcome, "lease_token": "t"}
        times = {"started_at_ms": now - began, "ended_at_ms": now - began}
        rig.run(lambda conn, row=row | times: conn.execute(attempts.insert().values(**row)))
    assert rig.claim().goals[0].windows == ((now - 1, now - 1), (now - 3, now - 3))


def test_a_delivered_goal_without_tries_owns_nothing(rig):
    rig.goal(state="delivered", description="long ago")
    rig.goal()
    rig.send(LOST)
    assert rig.look().owned == ()


def test_a_look_is_about_the_goals_of_its_visitor_and_name_that_nobody_looks_up(rig, clock):
    mine = [rig.goal(state="unconfirmed") for _ in range(2)]
    rig.goal(state="unconfirmed", name="refund")
    rig.goal(V2, state="unconfirmed")
    rig.goal(state="pending", due_in=DAY)
    taken = {"state": "unconfirmed", "lease_token": "somebody's"}
    rig.goal(**taken, lease_until_ms=clock.now_ms + 1)
    mine.append(rig.goal(**taken, lease_until_ms=clock.now_ms))
    look = rig.claim()
    assert [one.goal.id for one in look.goals] == mine
    assert {rig.row(goal).lease_until_ms for goal in mine} == {clock.now_ms + 60_000}


def test_a_look_that_is_given_back_is_free_at_once_and_no_other_is(rig, clock):
    lost = rig.goal()
    rig.send(LOST)
    look = rig.look()
    other = rig.goal(V2, state="unconfirmed", lease_token="another", lease_until_ms=clock.now_ms + DAY)
    assert rig.run(lambda conn: claims.release(conn, look))
    assert rig.row(other).lease_token == "another"
    assert (rig.row(lost).lease_token, rig.row(lost).lease_until_ms) == (None, None)
    assert rig.claim().goals[0].goal.id == lost


def test_a_lease_that_is_no_longer_ours_is_not_given_back(rig, clock):
    rig.goal()
    stale = rig.claim()
    clock.advance(60_000)
    rig.sweep()
    assert not rig.run(lambda conn: claims.release(conn, stale)), "it is in doubt"
    assert [one.outcome for one in rig.tries(stale.goal.id)] == ["unconfirmed"]


def test_a_proof_that_another_worker_has_leased_is_not_given_back(rig, clock):
    rig.run(lambda conn: goal_statements.ask_about(conn, [("default", V1)], clock.now_ms))
    stale = rig.claim()
    clock.advance(60_000)
    leased = rig.claim()
    assert (stale.visitor, leased.visitor) == (V1, V1)
    rig.run(lambda conn: claims.release(conn, stale))
    assert isinstance(rig.claim(), NotYet)
    rig.run(lambda conn: claims.release(conn, leased))
    assert isinstance(rig.claim(), ProofClaim)


def test_what_a_look_said_is_counted_and_what_it_found_is_dated(rig, clock):
    lost, held = rig.goal(), rig.goal(V2, state="held")
    try_of_held = {"goal_id": held, "kind": "send", "started_at_ms": 1, "outcome": "unconfirmed", "lease_token": "t"}
    rig.run(lambda conn: conn.execute(attempts.insert().values(**try_of_held)))
    rig.send(LOST)
    health = Settlement(GoalState.UNCONFIRMED, Health.ANSWERED)
    again = Settlement(GoalState.UNCONFIRMED, Health.ANSWERED, 30_000, "answer_lost", "not there yet")
    found = Settlement(GoalState.DELIVERED, Health.SUCCESS)
    for number, more in enumerate(({"absent": True}, {"looked": True}), 1):
        look = rig.look()
        rulings = [ReadbackDecision(look.goals[0], again, **more)]
        rig.run(lambda conn, look=look, rulings=rulings: claims.settle_readback(conn, look, rulings, health=health))
        row = rig.row(lost)
        assert (row.absent, row.looks, row.due_at_ms - clock.now_ms) == (1, number - 1, 30_000)
        assert (row.message, row.delivered_at_ms) == ("not there yet", None)
    look = rig.look()
    ruling = ReadbackDecision(look.goals[0], found, remote_id="e9", at_ms=clock.now_ms - 5_000)
    rig.run(lambda conn: claims.settle_readback(conn, look, [ruling], health=health))
    row = rig.row(lost)
    assert (row.state, row.datafast_event_id, row.delivered_at_ms) == ("delivered", "e9", clock.now_ms)
    sent, *looks = rig.tries(lost)
    assert (sent.server_started_at_ms, sent.outcome) == (clock.now_ms - 5_000, "unconfirmed")
    assert [one.kind for one in looks] == ["readback"] * 3
    assert {one.server_started_at_ms for one in (*looks, *rig.tries(held))} == {None}


# ------------------------------------------------------------------------------------------------ whose turn it is


def test_of_two_at_the_same_time_the_earlier_event_goes_first_and_of_one_event_the_first_goal(rig):
    one = rig.goal(ordered_at=5, due_in=-1, name="b")
    two = rig.goal(ordered_at=5, due_in=-9, name="c", event_id=rig.row(one).event_id, once_key="c")
    three = rig.goal(ordered_at=5, due_in=-20, name="a")
    assert [rig.send(DELIVERED) for _ in range(3)] == [one, two, three]


def test_it_looks_again_when_the_next_one_is_due(rig, clock):
    rig.goal("a", due_in=5_000)
    rig.goal("b", due_in=3_000, state="unconfirmed")
    rig.goal("c", due_in=1_000, state="held")
    assert rig.claim() == NotYet(clock.now_ms + 3_000, clock.now_ms)
    rig.run(lambda conn: goal_statements.ask_about(conn, [("default", V1)], clock.now_ms + 2_000))
    assert rig.claim() == NotYet(clock.now_ms + 2_000, clock.now_ms)


def test_what_is_due_is_taken_to_the_millisecond(rig, clock):
    rig.goal(due_in=5_000)
    clock.advance(4_999)
    assert rig.claim() == NotYet(clock.now_ms + 1, clock.now_ms)
    clock.advance(1)
    assert isinstance(rig.claim(), Claim)


def test_a_look_that_writes_nothing_says_whether_there_is_anything_to_claim(rig, clock):
    def waits():
        with rig.store.read() as conn:
            return claims.peek(conn, "default")

    assert waits() == NotYet(None, clock.now_ms)
    soon = rig.goal(due_in=5_000)
    assert waits() == NotYet(clock.now_ms + 5_000, clock.now_ms)
    clock.advance(4_999)
    assert waits() == NotYet(clock.now_ms + 1, clock.now_ms)
    clock.advance(1)
    assert waits() is None
    assert rig.send(WRONG_KEY) == soon
    clock.advance(29_999)
    assert waits() == NotYet(clock.now_ms + 1, clock.now_ms)
    clock.advance(1)
    assert waits() is None
    rig.send(LOST)
    rig.run(lambda conn: pauses.reopen(conn, "default"))
    assert waits() == NotYet(clock.now_ms + 30_000, clock.now_ms)
    clock.advance(30_000)
    assert waits() is None


HOUR = 3_600_000


@pytest.mark.parametrize(
    ("turn_in", "asked", "state", "waits_for", "claimed"),
    [
        (1_000, -HOUR, "pending", 1_000, False),
        (0, -HOUR, "pending", None, True),
        (0, 1 - HOUR, "pending", 0, False),
        (1_000, None, "pending", None, True),
        (1_000, 0, "unconfirmed", None, True),
    ],
)
def test_while_nobody_is_known_who_was_asked_about_waits_for_an_hour_and_for_a_turn(
    rig, clock, turn_in, asked, state, waits_for, claimed
):
    now = clock.now_ms
    rig.goal(unknown_at_ms=0 if asked is None else now + asked, state=state)
    since = destinations.update().values(unknown_since_ms=now, unknown_turn_at_ms=now + turn_in)
    rig.run(lambda conn: conn.execute(since))
    with rig.store.read() as conn:
        found = claims.peek(conn, "default")
    if claimed:
        assert (found, waits_for) == (None, None)
    else:
        assert found == NotYet(now + waits_for if waits_for else None, now)
    assert isinstance(rig.claim(), NotYet) is not claimed
    took_turn = claimed and asked == -HOUR
    assert rig.destination().unknown_turn_at_ms == now + (10_000 if took_turn else turn_in)


def test_while_somebody_is_known_who_was_asked_about_takes_no_turn(rig, clock):
    rig.goal(unknown_at_ms=clock.now_ms - 1)
    before = rig.destination().unknown_turn_at_ms
    assert isinstance(rig.claim(), Claim)
    assert rig.destination().unknown_turn_at_ms == before


def test_two_goals_of_one_who_is_not_known_are_asked_about_as_one(rig, clock):
    now = clock.now_ms
    first = rig.goal(unknown_at_ms=now - 3 * HOUR)
    rig.goal(unknown_at_ms=now - HOUR // 2, ordered_at=now + 1)
    other = rig.goal(V2, unknown_at_ms=now - 2 * HOUR)
    rig.run(lambda conn: conn.execute(destinations.update().values(unknown_since_ms=now, unknown_turn_at_ms=now)))
    assert rig.claim() == NotYet(now, now)
    assert rig.row(first).unknown_at_ms == now - HOUR // 2
    assert rig.claim().goal.id == other


# ------------------------------------------------------------------------------------------------ after a restore

READBACK_MS = (30_000, 60_000)


def doubted(rig, visitor):
    def doubt(conn):
        return restoring.doubt(conn, restoring.spans(facts.get(conn, restoring.FACT)), "default", visitor, READBACK_MS)

    return rig.run(doubt)


def test_what_may_have_been_sent_before_a_restore_is_doubted_once(rig, clock):
    at, days = clock.now_ms, 7 * DAY
    rig.run(lambda conn: restoring.remember(conn, at - HOUR, at))
    clock.advance(8 * DAY)
    cases = {
        (at + 1_999, True): True, (at + 2_000, True): False,
        (at + days - 1, False): True, (at + days, False): False,
        (clock.now_ms, True): False,
    }  # fmt: skip
    for number, ((happened, stated), expected) in enumerate(cases.items()):
        rig.goal(f"v{number}", happened_at_ms=happened, time_is_stated=stated)
        assert [doubted(rig, f"v{number}") for _ in range(2)] == [expected, False], (happened - at, stated)


def test_a_stated_time_that_is_the_arrival_does_not_show_that_an_event_is_new(rig, clock):
    rig.run(lambda conn: restoring.remember(conn, clock.now_ms - HOUR, clock.now_ms))
    clock.advance(DAY)
    for visitor, before_ms, expected in ((V1, 1, False), (V2, 0, True)):
        rig.goal(visitor, happened_at_ms=clock.now_ms - before_ms)
        assert doubted(rig, visitor) is expected


@pytest.mark.parametrize(("happened_after", "from_after"), [(-5, 0), (60_000, 0), (60_001, 1), (70_000, 10_000)])
def test_a_goal_was_not_sent_long_before_its_event(rig, clock, happened_after, from_after):
    at = clock.now_ms
    rig.run(lambda conn: restoring.remember(conn, at - HOUR, at))
    goal = rig.goal(happened_at_ms=at - HOUR + happened_after)
    assert doubted(rig, V1)
    (attempt,) = rig.tries(goal)
    assert (attempt.started_at_ms, attempt.ended_at_ms) == (at - HOUR + from_after, at)
    assert (attempt.outcome, attempt.kind) == ("unconfirmed", "send")


@pytest.mark.parametrize(
    ("later", "due_in", "absent"), [(0, 30_000, 0), (29_999, 1, 0), (30_001, 0, 0), (89_999, 0, 0), (90_000, 0, 1)]
)
def test_when_it_is_looked_up_and_whether_one_look_is_enough(rig, clock, later, due_in, absent):
    rig.run(lambda conn: restoring.remember(conn, clock.now_ms - HOUR, clock.now_ms))
    goal = rig.goal(looks=2, lease_token="old", lease_until_ms=clock.now_ms, state="unconfirmed")
    clock.advance(later)
    assert doubted(rig, V1)
    row = rig.row(goal)
    assert (row.state, row.reason, row.due_at_ms - clock.now_ms) == ("unconfirmed", "restored", due_in)
    assert (row.absent, row.looks, row.lease_token, row.lease_until_ms) == (absent, 0, None, None)


@pytest.mark.parametrize("values", [{"state": "held"}, {"state": "pending", "destination": "other"}])
def test_what_is_not_about_to_be_sent_there_is_not_doubted(rig, clock, values):
    rig.run(lambda conn: restoring.remember(conn, clock.now_ms - HOUR, clock.now_ms))
    rig.goal(**values)
    rig.goal(V2)
    assert not doubted(rig, V1)


def test_what_a_restore_is_about_is_counted_by_its_state(rig):
    states = ("parked", "pending", "leased", "sending", "unconfirmed", "unconfirmed", "held", "delivered", "rejected")
    for number, state in enumerate(states):
        rig.goal(f"v{number}", state=state)
    rig.run(lambda conn: conn.execute(events.update().where(events.c.id <= 4).values(state="received")))
    with rig.store.read() as conn:
        told = restoring.count_open(conn)
    assert told == restoring.Unfinished(parked=1, pending=2, in_doubt=3, held=1, unrouted=4)


def test_after_a_restore_too_a_lost_answer_is_looked_up_before_anything_is_sent(rig, clock):
    rig.run(lambda conn: restoring.remember(conn, clock.now_ms - HOUR, clock.now_ms))
    clock.advance(8 * DAY)
    lost = rig.goal()
    rig.send(LOST)
    rig.goal(V2, due_in=-1)
    assert rig.look().goals[0].goal.id == lost
