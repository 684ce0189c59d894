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


class Desk:
    """A small front desk to the statements, for one destination."""

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
def desk(store, clock):
    return Desk(store, clock)


def test_a_goal_goes_from_pending_to_delivered_with_its_attempt_written_ahead(desk):
    goal = desk.goal()
    claim = desk.claim()
    assert isinstance(claim, Claim)
    assert (claim.goal.id, desk.state(goal)) == (goal, "sending")
    (ahead,) = desk.tries(goal)
    assert (ahead.id, ahead.lease_token, ahead.outcome) == (claim.attempt_id, claim.token, None)
    assert desk.settle(claim, DELIVERED).written
    row = desk.row(goal)
    assert (row.state, row.datafast_event_id, row.lease_token) == ("delivered", "e1", None)
    with desk.store.read() as conn:
        written = conn.execute(select(attempts)).one()
    assert (written.goal_id, written.outcome, written.status) == (goal, "delivered", 200)


def test_what_is_claimed_is_claimed_once(desk):
    desk.goal()
    assert isinstance(desk.claim(), Claim)
    assert isinstance(desk.claim(), NotYet)


def test_a_goal_waits_for_an_earlier_one_of_its_visitor_and_for_nobody_elses(desk, clock):
    later = desk.goal(ordered_at=clock.now_ms)
    earlier = desk.goal(ordered_at=clock.now_ms - 5)
    other = desk.goal(V2)
    first = desk.claim()
    second = desk.claim()
    assert {first.goal.id, second.goal.id} == {earlier, other}
    assert isinstance(desk.claim(), NotYet)
    mine = first if first.goal.id == earlier else second
    desk.settle(mine, DELIVERED)
    assert desk.claim().goal.id == later


def test_an_earlier_goal_that_waits_for_a_later_try_or_is_parked_holds_nobody_up(desk, clock):
    desk.goal(ordered_at=clock.now_ms - 5, due_in=10_000)
    desk.goal(ordered_at=clock.now_ms - 4, state="parked")
    desk.goal(ordered_at=clock.now_ms - 3, state="held")
    free = desk.goal(ordered_at=clock.now_ms)
    assert desk.claim().goal.id == free


def test_an_unconfirmed_earlier_goal_holds_its_visitor_up(desk, clock):
    first = desk.goal(ordered_at=clock.now_ms - 5)
    desk.goal(ordered_at=clock.now_ms)
    assert desk.send(LOST) == first
    assert isinstance(desk.claim(), NotYet)


def test_every_fifth_slot_takes_the_newest(desk):
    visitors = [f"00000000-0000-4000-8000-00000000{n:04}" for n in range(10)]
    ids = [desk.goal(visitor, due_in=n - 20) for n, visitor in enumerate(visitors)]
    sent = [desk.send(DELIVERED) for _ in range(6)]
    assert sent == [*ids[:4], ids[-1], ids[4]]


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_the_pace_of_a_token_is_never_exceeded_in_any_minute(store, clock):
    desk = Desk(store, clock, rate=58)
    for n in range(200):
        desk.goal(f"00000000-0000-4000-8000-00000000{n:04}")
    sent: list[int] = []
    while len(sent) < 130:
        claim = desk.claim()
        if isinstance(claim, NotYet):
            assert claim.until_ms is not None
            clock.advance(max(1, claim.until_ms - clock.now_ms))
            continue
        sent.append(clock.now_ms)
    for index, at in enumerate(sent):
        assert sum(at <= other < at + 60_000 for other in sent[index:]) <= 60
    assert sent[-1] - sent[0] < 130 / 58 * 60_000 * 1.02  # and no slot is wasted


def test_a_token_may_send_two_at_once_and_then_one_per_interval(store, clock):
    desk = Desk(store, clock, rate=60)
    for n in range(4):
        desk.goal(f"v{n}")
    assert [type(desk.claim()) for _ in range(3)] == [Claim, Claim, NotYet]
    clock.advance(1_000)
    assert [type(desk.claim()) for _ in range(2)] == [Claim, NotYet]


def test_a_claim_that_finds_nothing_takes_no_slot(store, clock):
    desk = Desk(store, clock, rate=58)
    for _ in range(5):
        assert isinstance(desk.claim(), NotYet)
    desk.goal()
    desk.goal(V2)
    assert isinstance(desk.claim(), Claim)
    assert isinstance(desk.claim(), Claim)


def test_what_a_former_release_leased_and_did_not_send_is_free_when_its_lease_runs_out(desk, clock):
    goal = desk.goal(state="leased", lease_token="theirs", lease_until_ms=clock.now_ms + 60_000)
    assert isinstance(desk.claim(), NotYet)
    clock.advance(60_000)
    assert desk.sweep() == ([goal], [], [])
    assert desk.claim().goal.id == goal


def test_a_vanished_sender_leaves_doubt_and_its_late_answer_writes_nothing(desk, clock):
    goal = desk.goal()
    claim = desk.claim()
    clock.advance(60_000)
    assert desk.sweep() == ([], [goal], [])
    assert not desk.settle(claim, DELIVERED).written
    assert desk.state(goal) == "unconfirmed"


def test_a_goal_older_than_its_max_age_expires_and_is_never_claimed(desk, clock):
    goal = desk.goal(expires_in=1_000)
    clock.advance(1_000)
    assert isinstance(desk.claim(), NotYet)
    assert desk.sweep() == ([], [], [goal])
    assert (desk.row(goal).state, desk.row(goal).reason) == ("expired", "max_age")


@pytest.mark.parametrize("tried", [False, True])
def test_a_lease_can_be_given_back_and_leaves_no_attempt(desk, clock, tried):
    goal = desk.goal(first_try_at_ms=clock.now_ms - 5 if tried else None)
    before = desk.row(goal)
    claim = desk.claim()
    assert desk.row(goal).first_try_at_ms == clock.now_ms - 5 * tried
    assert desk.run(lambda conn: claims.release(conn, claim))
    assert (desk.row(goal), desk.tries(goal)) == (before, []), "its retry schedule has not begun"
    assert desk.claim().goal.id == goal


def test_a_claim_that_nobody_confirmed_is_taken_back_and_its_attempt_says_so(desk):
    goal = desk.goal()
    claim = desk.claim()
    for _ in range(2):
        desk.run(lambda conn: claims.take_back(conn, claim))
        (attempt,) = desk.tries(goal)
        assert (desk.state(goal), attempt.outcome, attempt.ended_at_ms is None) == ("pending", "not_sent", False)
        assert desk.row(goal).first_try_at_ms is None
    again = desk.claim()
    desk.run(lambda conn: claims.take_back(conn, claim))
    assert desk.state(goal) == "sending", "it is somebody else's by now"
    assert desk.settle(again, DELIVERED).written


def test_a_lost_answer_is_looked_up_with_all_of_its_kind_and_what_is_owned(desk, clock):
    owned = desk.goal(ordered_at=clock.now_ms - 9)
    assert desk.send(DELIVERED) == owned
    lost = desk.goal(ordered_at=clock.now_ms)
    desk.send(LOST)
    clock.advance(30_000)
    look = desk.claim()
    assert isinstance(look, ReadbackClaim)
    assert [goal.goal.id for goal in look.goals] == [lost]
    assert [entry.description for entry in look.owned] == [desk.row(owned).description]
    assert look.goals[0].windows == ((clock.now_ms - 30_000, clock.now_ms - 30_000),)
    assert isinstance(desk.claim(), NotYet)
    found = Settlement(GoalState.DELIVERED, Health.SUCCESS)
    health = Settlement(GoalState.UNCONFIRMED, Health.ANSWERED)
    assert desk.run(
        lambda conn: claims.settle_readback(conn, look, [ReadbackDecision(look.goals[0], found)], health=health)
    ).written
    assert desk.state(lost) == "delivered"


def test_a_goal_that_was_sent_again_owns_the_entry_of_the_try_that_was_answered(desk, clock):
    """The try in doubt may have left an entry, too; the other one was taken for the next goal, which was lost."""
    desk.goal(ordered_at=clock.now_ms - 9)
    desk.send(LOST)
    clock.advance(30_000)
    look = desk.claim()
    again = [ReadbackDecision(look.goals[0], Settlement(GoalState.PENDING, Health.SILENT))]
    health = Settlement(GoalState.UNCONFIRMED, Health.SILENT)
    desk.run(lambda conn: claims.settle_readback(conn, look, again, health=health))
    clock.advance(60_000)
    answered_at = clock.now_ms
    desk.send(DELIVERED)
    desk.goal(ordered_at=clock.now_ms)
    desk.send(LOST)
    clock.advance(30_000)
    (owned,) = desk.claim().owned
    assert owned.windows == ((answered_at, answered_at),)


def test_a_look_whose_lease_ran_out_writes_nothing(desk, clock):
    lost = desk.goal()
    desk.send(LOST)
    clock.advance(30_000)
    stale = desk.claim()
    clock.advance(60_000)
    fresh = desk.claim()
    assert isinstance(fresh, ReadbackClaim)
    health = Settlement(GoalState.UNCONFIRMED, Health.ANSWERED)
    again = Settlement(GoalState.PENDING, Health.ANSWERED)
    rulings = [ReadbackDecision(stale.goals[0], again, absent=True)]
    assert not desk.run(lambda conn: claims.settle_readback(conn, stale, rulings, health=health)).written
    assert desk.state(lost) == "unconfirmed"


def test_a_wrong_key_pauses_at_once_then_one_goal_probes_and_its_success_reopens(desk, clock):
    for n in range(3):
        desk.goal(f"00000000-0000-4000-8000-00000000{n:04}")
    first = desk.send(WRONG_KEY)
    assert (desk.destination().pause_kind, desk.row(first).attempts) == ("configuration", 0)
    waiting = desk.claim()
    assert waiting == NotYet(clock.now_ms + 30_000, clock.now_ms)
    clock.advance(30_000)
    probe = desk.claim()
    assert probe.probe
    assert isinstance(desk.claim(), NotYet)
    desk.settle(probe, WRONG_KEY)
    assert desk.claim() == NotYet(clock.now_ms + 60_000, clock.now_ms)
    clock.advance(60_000)
    probe = desk.claim()
    assert desk.settle(probe, DELIVERED).news == "reopened"
    assert desk.destination().pause_kind is None
    assert isinstance(desk.claim(), Claim)


def test_five_failures_in_a_row_pause_and_the_pause_is_not_counted_for_the_goals(desk, clock):
    for n in range(8):
        desk.goal(f"00000000-0000-4000-8000-00000000{n:04}")
    for _ in range(5):
        tried = desk.send(REFUSED)
    assert desk.destination().pause_kind == "failures"
    clock.advance(5_000)
    probe = desk.claim()
    desk.settle(probe, DELIVERED)
    assert desk.row(tried).paused_ms == 5_000
    assert desk.row(probe.goal.id).attempts == 0


def test_a_pause_that_goes_on_is_subtracted_once_at_its_end(desk, clock):
    goal, _ = desk.goal(), desk.goal(V2)
    desk.send(WRONG_KEY)
    clock.advance(30_000)
    desk.send(WRONG_KEY)
    assert desk.row(goal).paused_ms == 0
    clock.advance(60_000)
    desk.run(lambda conn: pauses.reopen(conn, "default"))
    assert desk.row(goal).paused_ms == 90_000


def test_a_pause_is_not_counted_for_a_goal_in_doubt_either(desk, clock):
    doubtful = desk.goal()
    desk.send(LOST)
    desk.goal(V2)
    desk.send(WRONG_KEY)
    clock.advance(30_000)
    desk.send(DELIVERED)
    assert desk.destination().pause_kind is None
    assert (desk.state(doubtful), desk.row(doubtful).paused_ms) == ("unconfirmed", 30_000)


def test_a_probe_that_is_given_back_lets_the_next_one_through_at_once(desk, clock):
    desk.goal()
    desk.send(WRONG_KEY)
    clock.advance(30_000)
    probe = desk.claim()
    assert probe.probe
    assert isinstance(desk.claim(), NotYet)
    assert desk.run(lambda conn: claims.release(conn, probe))
    assert desk.claim().probe


def test_a_probe_whose_worker_vanished_is_followed_by_another(desk, clock):
    desk.goal()
    desk.goal(V2)
    desk.send(WRONG_KEY)
    clock.advance(30_000)
    assert desk.claim().probe
    clock.advance(60_000)
    desk.sweep()
    assert desk.claim().probe


def test_an_answer_in_flight_when_the_pause_began_does_not_lengthen_it(desk, clock):
    for n in range(3):
        desk.goal(f"00000000-0000-4000-8000-00000000{n:04}")
    one, two = desk.claim(), desk.claim()
    desk.settle(one, WRONG_KEY)
    clock.advance(1_000)
    assert desk.settle(two, WRONG_KEY).news is None
    assert desk.destination().not_before_ms == clock.now_ms + 29_000


def test_a_new_key_ends_the_pause_of_the_old_one(desk):
    desk.goal()
    desk.send(WRONG_KEY)
    assert isinstance(desk.claim(), NotYet)
    desk.run(lambda conn: claims.register(conn, destination="default", token_hash="t1-new"))
    assert isinstance(desk.claim(), Claim)


def test_a_destination_clock_that_differs_moves_the_windows(desk, clock):
    desk.goal()
    answer = (Outcome(OutcomeKind.UNCONFIRMED, 500, server_now_ms=clock.now_ms + 90_000), LOST[1])
    desk.send(answer)
    began = clock.now_ms
    clock.advance(30_000)
    look = desk.claim()
    assert look.goals[0].windows == ((began + 90_000, began + 90_000),)


def test_an_entry_never_vouches_for_a_namesake_that_was_sent_meanwhile(desk, clock):
    """Without descriptions, the second of two would have been taken for the first: one lost, the other doubled."""
    retried = desk.goal(ordered_at=2, due_in=60_000)
    doubtful = desk.goal(ordered_at=3)
    desk.send(LOST)
    assert desk.state(doubtful) == "unconfirmed"
    later = goals.update().where(goals.c.id == doubtful).values(due_at_ms=clock.now_ms + DAY)
    desk.run(lambda conn: conn.execute(later))
    clock.advance(60_000)
    assert isinstance(desk.claim(), NotYet)
    other = desk.goal(name="refund", ordered_at=1)
    assert desk.claim().goal.id == other
    assert desk.state(retried) == "pending"


def test_a_try_whose_process_vanished_has_an_end(desk, clock):
    """Else its window grew until today, and any later goal of the same name was taken for it."""
    desk.goal()
    desk.claim()
    began = clock.now_ms
    clock.advance(60_001)
    desk.run(lambda conn: claims.sweep(conn, settling_ms=0))
    clock.advance(DAY // 2)
    look = desk.claim()
    assert isinstance(look, ReadbackClaim)
    assert look.goals[0].windows == ((began, began + 60_001),)


# ------------------------------------------------------------------------------------------------------ pauses


def test_a_pause_is_forgiven_from_the_first_try_on_to_what_is_still_to_be_sent_there(desk, clock):
    desk.run(lambda conn: claims.register(conn, destination="other", token_hash="t2"))
    later = {"due_in": DAY, "first_try_at_ms": clock.now_ms - 9}
    tried, held = desk.goal("a", **later), desk.goal("b", state="held", **later)
    elsewhere, never = desk.goal("c", destination="other", **later), desk.goal("d", due_in=DAY)
    desk.goal("e")
    desk.send(WRONG_KEY)
    clock.advance(10_000)
    during = desk.goal("f", due_in=DAY, first_try_at_ms=clock.now_ms)
    clock.advance(20_000)
    desk.send(DELIVERED)
    forgiven = [desk.row(goal).paused_ms for goal in (tried, during, held, elsewhere, never)]
    assert forgiven == [30_000, 20_000, 0, 0, 0]


def test_a_pause_that_a_person_ends_is_forgiven_too_and_one_that_is_none_changes_nothing(desk, clock):
    tried = desk.goal("a", due_in=DAY, first_try_at_ms=clock.now_ms - 9)
    desk.goal("b")
    desk.send(WRONG_KEY)
    clock.advance(10_000)
    for _ in range(2):
        desk.run(lambda conn: pauses.reopen(conn, "default"))
        desk.run(lambda conn: pauses.reopen(conn, "never registered"))
        assert (desk.row(tried).paused_ms, desk.destination().pause_kind) == (10_000, None)


def test_a_destination_remembers_its_last_success_and_what_changed_is_said_once(desk, clock):
    for n in range(4):
        desk.goal(f"v{n}")
    said = []
    for answer in (DELIVERED, REFUSED, WRONG_KEY):
        claim = desk.claim()
        said.append(desk.settle(claim, answer).news)
        clock.advance(1_000)
    assert said == [None, None, "paused"]
    assert desk.destination().last_success_at_ms == clock.now_ms - 3_000


def test_a_success_is_recorded_once_a_second(desk, clock):
    began, recorded = clock.now_ms, []
    for at in (0, 999, 1_000, 500):  # in the end the clock is set back
        clock.set(began + at)
        desk.goal()
        desk.send(DELIVERED)
        recorded.append(desk.destination().last_success_at_ms - began)
    assert recorded == [0, 0, 1_000, 500]


def test_only_the_probe_itself_gives_its_turn_back(desk, clock):
    desk.run(lambda conn: claims.register(conn, destination="other", token_hash="t2"))
    desk.goal()
    desk.send(WRONG_KEY)
    clock.advance(30_000)
    probe = desk.claim()
    for destination, token in (("default", "another"), ("other", probe.token)):
        desk.run(lambda conn, of=(destination, token): statements.release_probe(conn, *of))
        assert isinstance(desk.claim(), NotYet)


def test_the_same_key_again_ends_no_pause(desk):
    desk.goal()
    desk.send(WRONG_KEY)
    before = desk.destination()
    desk.run(lambda conn: claims.register(conn, destination="default", token_hash="t1"))
    assert desk.destination() == before


def test_a_new_key_has_strangers_asked_about_anew_at_its_own_destination(desk, clock):
    desk.run(lambda conn: claims.register(conn, destination="other", token_hash="t2"))
    unknown = {"unknown_at_ms": 1, "unknown_visitor_tries": 3, "due_in": DAY}
    given_up = {"state": "unattributed", "provenance": "{}", "due_in": DAY}
    stranger, fresh = desk.goal("a", **unknown), desk.goal("b", due_in=DAY)
    parked, elsewhere = desk.goal("c", state="parked", due_in=DAY), desk.goal("d", destination="other", **unknown)
    again, nobody = desk.goal("e", **given_up), desk.goal("f", **given_up | {"provenance": None})
    too_old, sent = desk.goal("g", expires_in=0, **given_up), desk.goal("h", state="delivered", **unknown)
    clock.advance(1_000)
    desk.run(lambda conn: claims.register(conn, destination="default", token_hash="t1-new"))
    now, later = clock.now_ms, clock.now_ms - 1_000 + DAY
    row = desk.row(stranger)
    assert (row.unknown_at_ms, row.unknown_visitor_tries, row.due_at_ms) == (0, 0, now)
    assert [desk.row(goal).due_at_ms for goal in (fresh, parked, elsewhere, sent)] == [later, now, later, later]
    assert (desk.row(elsewhere).unknown_visitor_tries, desk.row(sent).unknown_visitor_tries) == (3, 3)
    row = desk.row(again)
    assert (row.state, row.due_at_ms, row.parked_until_ms) == ("parked", now, now + DAY)
    assert [desk.state(goal) for goal in (nobody, too_old)] == ["unattributed"] * 2


def test_the_row_of_unknown_visitors_begins_anew_with_a_new_key(desk):
    refused = (
        Outcome(OutcomeKind.UNKNOWN_VISITOR, 404, "not found"),
        Settlement(GoalState.PENDING, Health.UNKNOWN_VISITOR, DAY, "unknown_visitor", unknown_visitor=True),
    )
    said = []
    for n in range(11):
        desk.goal(f"v{n}")
        claim = desk.claim()
        said.append(desk.settle(claim, refused).news)
    assert said == [*[None] * 9, "none_known", None]
    desk.run(lambda conn: claims.register(conn, destination="default", token_hash="t1-new"))
    row = desk.destination()
    assert (row.unknown_since_ms, row.unknown_visitors, row.key_fingerprint) == (None, "[]", "t1-new")


def test_datafasts_clock_is_learned_again_where_it_is_more_than_a_second_and_a_half_away(desk, clock):
    def learned(skew_ms, **more):
        desk.hear_clock(skew_ms, **more)
        with desk.store.read() as conn:
            return pauses.clock_skew_ms(conn, "default")

    assert learned(500, trusted_clock=lambda _conn: None) == 0, "our own clock cannot be told"
    told = (90_000, 91_500, 88_500, 91_501, 90_000)
    assert [learned(skew) for skew in told] == [90_000, 90_000, 90_000, 91_501, 90_000]
    with desk.store.read() as conn:
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
def test_there_is_something_to_sweep_as_soon_as_it_is_over_and_not_before(desk, clock, values, over_at):
    now = clock.now_ms
    desk.goal(**{name: now + value if isinstance(value, int) else value for name, value in values.items()})
    for after_ms in (4_999, 5_000):
        clock.set(now + after_ms)
        with desk.store.read() as conn:
            found = claims.anything_to_sweep(conn)
        assert found is (over_at == after_ms)
        assert any(desk.sweep()) is found


def test_what_vanished_while_it_was_sent_waits_for_its_look_with_nothing_said_of_it(desk, clock):
    goal = desk.goal(looks=2, absent=1, attempts=1, state="pending")
    desk.claim()
    clock.advance(60_000)
    desk.sweep()
    row = desk.row(goal)
    assert (row.looks, row.absent, row.attempts, row.due_at_ms - clock.now_ms) == (0, 0, 2, 30_000)
    assert (row.reason, row.lease_token, row.lease_until_ms) == ("worker_vanished", None, None)


def test_the_end_of_a_try_that_vanished_is_no_end_of_others(desk, clock):
    goal = desk.goal()
    desk.send(REFUSED)
    clock.advance(5_000)
    desk.claim()
    asked = {"goal_id": goal, "kind": "readback", "started_at_ms": 1, "lease_token": "t"}
    desk.run(lambda conn: conn.execute(attempts.insert().values(**asked)))
    clock.advance(30_000)
    other = desk.goal(V2)
    assert desk.claim().goal.id == other
    clock.advance(30_000)
    desk.sweep()
    assert [one.outcome for one in desk.tries(goal)] == ["not_sent", "unconfirmed", None]
    assert [one.outcome for one in desk.tries(other)] == [None]


# ------------------------------------------------------------------------------------------------ the rate limit


def test_a_person_waits_for_a_slot_of_the_token_as_workers_do(store, clock):
    desk = Desk(store, clock, rate=60)

    def waits(token):
        return desk.run(lambda conn: claims.reserve(conn, token, 60))

    assert [waits("t1") for _ in range(3)] == [0, 0, 1_000]
    clock.advance(400)
    assert (waits("t1"), waits("never used")) == (600, 0)
    clock.advance(600)
    assert [waits("t1") for _ in range(2)] == [0, 1_000]


# -------------------------------------------------------------------------------------------------- the read-back


def test_before_datafasts_clock_is_known_a_try_may_have_been_at_either_time(desk, clock):
    for skew in (-90_000, 90_000):
        desk.goal(f"v{skew}")
        desk.send(LOST)
        began = clock.now_ms
        desk.hear_clock(skew)
        look = desk.look()
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
def test_when_a_try_was_under_way(desk, clock, started, ended, window):
    goal = desk.goal(state="unconfirmed")
    now = clock.now_ms
    times = {"started_at_ms": now + started, "ended_at_ms": None if ended is None else now + ended}
    row = {"goal_id": goal, "kind": "send", "outcome": "unconfirmed", "lease_token": "t", **times}
    desk.run(lambda conn: conn.execute(attempts.insert().values(**row)))
    look = desk.claim()
    assert look.goals[0].windows == ((0 if window[0] is None else now + window[0], now + window[1]),)


def test_only_a_try_that_may_have_arrived_has_a_window(desk, clock):
    goal, now = desk.goal(state="unconfirmed"), clock.now_ms
    for began, outcome in ((1, None), (3, "unconfirmed"), (5, "not_sent"), (7, "configuration")):
        row = {"goal_id": goal, "kind": "send", "outcome": outcome, "lease_token": "t"}
        times = {"started_at_ms": now - began, "ended_at_ms": now - began}
        desk.run(lambda conn, row=row | times: conn.execute(attempts.insert().values(**row)))
    assert desk.claim().goals[0].windows == ((now - 1, now - 1), (now - 3, now - 3))


def test_a_delivered_goal_without_tries_owns_nothing(desk):
    desk.goal(state="delivered", description="long ago")
    desk.goal()
    desk.send(LOST)
    assert desk.look().owned == ()


def test_a_look_is_about_the_goals_of_its_visitor_and_name_that_nobody_looks_up(desk, clock):
    mine = [desk.goal(state="unconfirmed") for _ in range(2)]
    desk.goal(state="unconfirmed", name="refund")
    desk.goal(V2, state="unconfirmed")
    desk.goal(state="pending", due_in=DAY)
    taken = {"state": "unconfirmed", "lease_token": "somebody's"}
    desk.goal(**taken, lease_until_ms=clock.now_ms + 1)
    mine.append(desk.goal(**taken, lease_until_ms=clock.now_ms))
    look = desk.claim()
    assert [one.goal.id for one in look.goals] == mine
    assert {desk.row(goal).lease_until_ms for goal in mine} == {clock.now_ms + 60_000}


def test_a_look_that_is_given_back_is_free_at_once_and_no_other_is(desk, clock):
    lost = desk.goal()
    desk.send(LOST)
    look = desk.look()
    other = desk.goal(V2, state="unconfirmed", lease_token="another", lease_until_ms=clock.now_ms + DAY)
    assert desk.run(lambda conn: claims.release(conn, look))
    assert desk.row(other).lease_token == "another"
    assert (desk.row(lost).lease_token, desk.row(lost).lease_until_ms) == (None, None)
    assert desk.claim().goals[0].goal.id == lost


def test_a_lease_that_is_no_longer_ours_is_not_given_back(desk, clock):
    desk.goal()
    stale = desk.claim()
    clock.advance(60_000)
    desk.sweep()
    assert not desk.run(lambda conn: claims.release(conn, stale)), "it is in doubt"
    assert [one.outcome for one in desk.tries(stale.goal.id)] == ["unconfirmed"]


def test_a_proof_that_another_worker_has_leased_is_not_given_back(desk, clock):
    desk.run(lambda conn: goal_statements.ask_about(conn, [("default", V1)], clock.now_ms))
    stale = desk.claim()
    clock.advance(60_000)
    leased = desk.claim()
    assert (stale.visitor, leased.visitor) == (V1, V1)
    desk.run(lambda conn: claims.release(conn, stale))
    assert isinstance(desk.claim(), NotYet)
    desk.run(lambda conn: claims.release(conn, leased))
    assert isinstance(desk.claim(), ProofClaim)


def test_what_a_look_said_is_counted_and_what_it_found_is_dated(desk, clock):
    lost, held = desk.goal(), desk.goal(V2, state="held")
    try_of_held = {"goal_id": held, "kind": "send", "started_at_ms": 1, "outcome": "unconfirmed", "lease_token": "t"}
    desk.run(lambda conn: conn.execute(attempts.insert().values(**try_of_held)))
    desk.send(LOST)
    health = Settlement(GoalState.UNCONFIRMED, Health.ANSWERED)
    again = Settlement(GoalState.UNCONFIRMED, Health.ANSWERED, 30_000, "answer_lost", "not there yet")
    found = Settlement(GoalState.DELIVERED, Health.SUCCESS)
    for number, more in enumerate(({"absent": True}, {"looked": True}), 1):
        look = desk.look()
        rulings = [ReadbackDecision(look.goals[0], again, **more)]
        desk.run(lambda conn, look=look, rulings=rulings: claims.settle_readback(conn, look, rulings, health=health))
        row = desk.row(lost)
        assert (row.absent, row.looks, row.due_at_ms - clock.now_ms) == (1, number - 1, 30_000)
        assert (row.message, row.delivered_at_ms) == ("not there yet", None)
    look = desk.look()
    ruling = ReadbackDecision(look.goals[0], found, remote_id="e9", at_ms=clock.now_ms - 5_000)
    desk.run(lambda conn: claims.settle_readback(conn, look, [ruling], health=health))
    row = desk.row(lost)
    assert (row.state, row.datafast_event_id, row.delivered_at_ms) == ("delivered", "e9", clock.now_ms)
    sent, *looks = desk.tries(lost)
    assert (sent.server_started_at_ms, sent.outcome) == (clock.now_ms - 5_000, "unconfirmed")
    assert [one.kind for one in looks] == ["readback"] * 3
    assert {one.server_started_at_ms for one in (*looks, *desk.tries(held))} == {None}


# ------------------------------------------------------------------------------------------------ whose turn it is


def test_of_two_at_the_same_time_the_earlier_event_goes_first_and_of_one_event_the_first_goal(desk):
    one = desk.goal(ordered_at=5, due_in=-1, name="b")
    two = desk.goal(ordered_at=5, due_in=-9, name="c", event_id=desk.row(one).event_id, once_key="c")
    three = desk.goal(ordered_at=5, due_in=-20, name="a")
    assert [desk.send(DELIVERED) for _ in range(3)] == [one, two, three]


def test_it_looks_again_when_the_next_one_is_due(desk, clock):
    desk.goal("a", due_in=5_000)
    desk.goal("b", due_in=3_000, state="unconfirmed")
    desk.goal("c", due_in=1_000, state="held")
    assert desk.claim() == NotYet(clock.now_ms + 3_000, clock.now_ms)
    desk.run(lambda conn: goal_statements.ask_about(conn, [("default", V1)], clock.now_ms + 2_000))
    assert desk.claim() == NotYet(clock.now_ms + 2_000, clock.now_ms)


def test_what_is_due_is_taken_to_the_millisecond(desk, clock):
    desk.goal(due_in=5_000)
    clock.advance(4_999)
    assert desk.claim() == NotYet(clock.now_ms + 1, clock.now_ms)
    clock.advance(1)
    assert isinstance(desk.claim(), Claim)


def test_a_look_that_writes_nothing_says_whether_there_is_anything_to_claim(desk, clock):
    def waits():
        with desk.store.read() as conn:
            return claims.peek(conn, "default")

    assert waits() == NotYet(None, clock.now_ms)
    soon = desk.goal(due_in=5_000)
    assert waits() == NotYet(clock.now_ms + 5_000, clock.now_ms)
    clock.advance(4_999)
    assert waits() == NotYet(clock.now_ms + 1, clock.now_ms)
    clock.advance(1)
    assert waits() is None
    assert desk.send(WRONG_KEY) == soon
    clock.advance(29_999)
    assert waits() == NotYet(clock.now_ms + 1, clock.now_ms)
    clock.advance(1)
    assert waits() is None
    desk.send(LOST)
    desk.run(lambda conn: pauses.reopen(conn, "default"))
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
    desk, clock, turn_in, asked, state, waits_for, claimed
):
    now = clock.now_ms
    desk.goal(unknown_at_ms=0 if asked is None else now + asked, state=state)
    since = destinations.update().values(unknown_since_ms=now, unknown_turn_at_ms=now + turn_in)
    desk.run(lambda conn: conn.execute(since))
    with desk.store.read() as conn:
        found = claims.peek(conn, "default")
    if claimed:
        assert (found, waits_for) == (None, None)
    else:
        assert found == NotYet(now + waits_for if waits_for else None, now)
    assert isinstance(desk.claim(), NotYet) is not claimed
    took_turn = claimed and asked == -HOUR
    assert desk.destination().unknown_turn_at_ms == now + (10_000 if took_turn else turn_in)


def test_while_somebody_is_known_who_was_asked_about_takes_no_turn(desk, clock):
    desk.goal(unknown_at_ms=clock.now_ms - 1)
    before = desk.destination().unknown_turn_at_ms
    assert isinstance(desk.claim(), Claim)
    assert desk.destination().unknown_turn_at_ms == before


def test_two_goals_of_one_who_is_not_known_are_asked_about_as_one(desk, clock):
    now = clock.now_ms
    first = desk.goal(unknown_at_ms=now - 3 * HOUR)
    desk.goal(unknown_at_ms=now - HOUR // 2, ordered_at=now + 1)
    other = desk.goal(V2, unknown_at_ms=now - 2 * HOUR)
    desk.run(lambda conn: conn.execute(destinations.update().values(unknown_since_ms=now, unknown_turn_at_ms=now)))
    assert desk.claim() == NotYet(now, now)
    assert desk.row(first).unknown_at_ms == now - HOUR // 2
    assert desk.claim().goal.id == other


# ------------------------------------------------------------------------------------------------ after a restore

READBACK_MS = (30_000, 60_000)


def doubted(desk, visitor):
    def doubt(conn):
        return restoring.doubt(conn, restoring.spans(facts.get(conn, restoring.FACT)), "default", visitor, READBACK_MS)

    return desk.run(doubt)


def test_what_may_have_been_sent_before_a_restore_is_doubted_once(desk, clock):
    at, days = clock.now_ms, 7 * DAY
    desk.run(lambda conn: restoring.remember(conn, at - HOUR, at))
    clock.advance(8 * DAY)
    cases = {
        (at + 1_999, True): True, (at + 2_000, True): False,
        (at + days - 1, False): True, (at + days, False): False,
        (clock.now_ms, True): False,
    }  # fmt: skip
    for number, ((happened, stated), expected) in enumerate(cases.items()):
        desk.goal(f"v{number}", happened_at_ms=happened, time_is_stated=stated)
        assert [doubted(desk, f"v{number}") for _ in range(2)] == [expected, False], (happened - at, stated)


def test_a_stated_time_that_is_the_arrival_does_not_show_that_an_event_is_new(desk, clock):
    desk.run(lambda conn: restoring.remember(conn, clock.now_ms - HOUR, clock.now_ms))
    clock.advance(DAY)
    for visitor, before_ms, expected in ((V1, 1, False), (V2, 0, True)):
        desk.goal(visitor, happened_at_ms=clock.now_ms - before_ms)
        assert doubted(desk, visitor) is expected


@pytest.mark.parametrize(("happened_after", "from_after"), [(-5, 0), (60_000, 0), (60_001, 1), (70_000, 10_000)])
def test_a_goal_was_not_sent_long_before_its_event(desk, clock, happened_after, from_after):
    at = clock.now_ms
    desk.run(lambda conn: restoring.remember(conn, at - HOUR, at))
    goal = desk.goal(happened_at_ms=at - HOUR + happened_after)
    assert doubted(desk, V1)
    (attempt,) = desk.tries(goal)
    assert (attempt.started_at_ms, attempt.ended_at_ms) == (at - HOUR + from_after, at)
    assert (attempt.outcome, attempt.kind) == ("unconfirmed", "send")


@pytest.mark.parametrize(
    ("later", "due_in", "absent"), [(0, 30_000, 0), (29_999, 1, 0), (30_001, 0, 0), (89_999, 0, 0), (90_000, 0, 1)]
)
def test_when_it_is_looked_up_and_whether_one_look_is_enough(desk, clock, later, due_in, absent):
    desk.run(lambda conn: restoring.remember(conn, clock.now_ms - HOUR, clock.now_ms))
    goal = desk.goal(looks=2, lease_token="old", lease_until_ms=clock.now_ms, state="unconfirmed")
    clock.advance(later)
    assert doubted(desk, V1)
    row = desk.row(goal)
    assert (row.state, row.reason, row.due_at_ms - clock.now_ms) == ("unconfirmed", "restored", due_in)
    assert (row.absent, row.looks, row.lease_token, row.lease_until_ms) == (absent, 0, None, None)


@pytest.mark.parametrize("values", [{"state": "held"}, {"state": "pending", "destination": "other"}])
def test_what_is_not_about_to_be_sent_there_is_not_doubted(desk, clock, values):
    desk.run(lambda conn: restoring.remember(conn, clock.now_ms - HOUR, clock.now_ms))
    desk.goal(**values)
    desk.goal(V2)
    assert not doubted(desk, V1)


def test_what_a_restore_is_about_is_counted_by_its_state(desk):
    states = ("parked", "pending", "leased", "sending", "unconfirmed", "unconfirmed", "held", "delivered", "rejected")
    for number, state in enumerate(states):
        desk.goal(f"v{number}", state=state)
    desk.run(lambda conn: conn.execute(events.update().where(events.c.id <= 4).values(state="received")))
    with desk.store.read() as conn:
        told = restoring.count_open(conn)
    assert told == restoring.Unfinished(parked=1, pending=2, in_doubt=3, held=1, unrouted=4)


def test_after_a_restore_too_a_lost_answer_is_looked_up_before_anything_is_sent(desk, clock):
    desk.run(lambda conn: restoring.remember(conn, clock.now_ms - HOUR, clock.now_ms))
    clock.advance(8 * DAY)
    lost = desk.goal()
    desk.send(LOST)
    desk.goal(V2, due_in=-1)
    assert desk.look().goals[0].goal.id == lost
