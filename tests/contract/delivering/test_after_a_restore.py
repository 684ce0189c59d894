"""After a restore: what is looked up, in which turn, and what the look decides."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, text, update
from website import AWAY, DAY, HOUR, MINUTE, Sending, visitor

from bridge.model import CompletedGoal, Outcome, OutcomeKind, VisitorGoals
from bridge.store import facts, schema
from bridge.store.delivery import restoring
from bridge.store.operator import actions

S = 1_000


class Restored(Sending):
    """A bridge whose database was an hour old when it was put in place."""

    def __init__(self, store, clock, **environ):
        super().__init__(store, clock, **environ)
        self.entries = []
        self.website.visitor_goals = self._visitor_goals

    def _visitor_goals(self, _destination, who):
        self.website.said.append((self.clock.now_ms, "GET", who))
        if self.website.failure is not None:
            return VisitorGoals(known=False, failure=self.website.failure)
        return VisitorGoals(known=True, goals=tuple(entry for owner, entry in self.entries if owner == who))

    def recorded(self, who, at_ms, name="purchase", description=None):
        self.entries.append((who, CompletedGoal(name, at_ms, description)))

    def restore(self, hours=1):
        """An hour passes of which nothing is stored."""
        from_ms = self.clock.now_ms
        self.clock.advance(hours * HOUR)
        with self.store.write() as conn:
            return restoring.remember(conn, from_ms, self.clock.now_ms)

    def settled(self):
        """Look once where one look is enough."""
        self.clock.advance(2 * MINUTE)
        self.run_for(5 * S)

    def told(self, goal_id):
        row = self.row(goal_id)
        return row.state, row.reason


@pytest.fixture
def sending(store, clock):
    return Restored(store, clock, BRIDGE_RATE_PER_MINUTE="600")


def test_what_was_sent_in_the_lost_time_is_delivered_and_the_rest_is_sent(sending, clock):
    sent, unsent = sending.goal(visitor(1)), sending.goal(visitor(2))
    sending.website.known.update({visitor(1), visitor(2)})
    sending.recorded(visitor(1), clock.now_ms + 5 * MINUTE)
    sending.restore()
    sending.settled()
    assert sending.told(sent) == ("delivered", "read_back")
    assert "before the backup was restored: DataFast recorded it at 20" in sending.row(sent).message
    assert sending.told(unsent)[0] == "delivered"
    assert sending.website.asked("POST") == [visitor(2)]
    assert sorted(sending.website.asked("GET")) == [visitor(1), visitor(2)]


def test_a_look_soon_after_the_restore_is_repeated_before_it_counts(sending):
    goal = sending.goal(visitor(1))
    sending.website.known.add(visitor(1))
    sending.restore()
    sending.run_for(29 * S)
    assert sending.website.said == [], "what was sent just before may not show yet"
    sending.run_for(3 * S)
    assert sending.told(goal) == ("unconfirmed", "restored")
    sending.run_for(70 * S)
    assert sending.told(goal)[0] == "delivered"
    assert [how for _, how, _ in sending.website.said] == ["GET", "GET", "POST"]


@pytest.mark.parametrize("known", [True, False], ids=["with descriptions", "without"])
def test_two_alike_share_neither_one_record_nor_both_go_out(sending, clock, known):
    first, second = sending.goal(visitor(1)), sending.goal(visitor(1))
    sending.website.known.add(visitor(1))
    sending.recorded(visitor(1), clock.now_ms + MINUTE, description="s evt_1" if known else None)
    sending.restore()
    sending.settled()
    assert (sending.told(first), sending.told(second)[0]) == (("delivered", "read_back"), "delivered")
    assert len(sending.website.asked("POST")) == 1


def test_a_record_of_before_the_back_up_or_before_the_event_vouches_for_nothing(sending, clock):
    sending.recorded(visitor(1), clock.now_ms - 5 * MINUTE)
    goal = sending.goal(visitor(1))
    sending.website.known.add(visitor(1))
    sending.restore()
    later = sending.goal(visitor(2), happened_at_ms=clock.now_ms - 10 * MINUTE)
    sending.recorded(visitor(2), clock.now_ms - 20 * MINUTE)
    sending.website.known.add(visitor(2))
    sending.settled()
    assert {sending.told(goal)[0], sending.told(later)[0]} == {"delivered"}
    assert sorted(sending.website.asked("POST")) == [visitor(1), visitor(2)]


def test_events_of_after_the_restore_are_sent_at_once_and_those_without_a_time_are_asked_about(sending, clock):
    sending.restore()
    clock.advance(MINUTE)
    sending.website.known.update({visitor(1), visitor(2)})
    fresh = sending.goal(visitor(1), happened_at_ms=clock.now_ms - S)
    timeless = sending.goal(visitor(2), time_is_stated=False)
    sending.run_for(S)
    assert sending.told(fresh) == ("delivered", None)
    assert sending.told(timeless)[0] == "unconfirmed"
    sending.run_for(2 * MINUTE)
    assert sending.told(timeless)[0] == "delivered"
    assert sending.website.asked("GET")[0] == visitor(2)
    clock.advance(8 * DAY)
    sending.goal(visitor(3), time_is_stated=False)
    sending.run_for(S)
    assert visitor(3) not in sending.website.asked("GET")


def test_fresh_goals_get_every_second_slot_while_hundreds_are_looked_up(sending, clock):
    for number in range(60):
        sending.goal(visitor(100 + number))
    sending.restore()
    clock.advance(2 * MINUTE)
    fresh = [visitor(500 + number) for number in range(20)]
    sending.website.known.update(fresh)
    for who in fresh:
        sending.goal(who, happened_at_ms=clock.now_ms - S)
    waits = sending.goal(visitor(150), name="refund", happened_at_ms=clock.now_ms - S)
    sending.website.known.add(visitor(150))
    sending.run_for(6 * S)
    hows = [how for _, how, _ in sending.website.said]
    posted = [n for n, (_, how, who) in enumerate(sending.website.said) if how == "POST" and who in fresh]
    assert len(posted) == 20, "60 looks take longer, and these do not wait for them"
    assert posted[-1] < 60, "of 140 requests or so, because what a look finds missing is to be sent as well"
    assert hows[:20].count("GET") >= 8, "nor do the looks wait for them"
    assert visitor(150) in sending.website.asked("GET")[:3], "whoever holds up a newer goal is looked up first"
    assert sending.told(waits)[0] == "delivered"


def test_a_doubt_of_the_back_up_is_looked_up_over_the_whole_time(sending, clock):
    """It was absent when it was looked up in the lost time, so it was sent again then."""
    goal = sending.goal(visitor(1), state="unconfirmed", reason="answer_lost")
    with sending.store.write() as conn:
        conn.execute(
            schema.attempts.insert().values(
                goal_id=goal, kind="send", started_at_ms=clock.now_ms, ended_at_ms=clock.now_ms,
                outcome="unconfirmed", lease_token="x",
            )
        )  # fmt: skip
    sending.recorded(visitor(1), clock.now_ms + 5 * MINUTE)
    sending.restore()
    sending.settled()
    assert sending.told(goal) == ("delivered", "read_back")
    assert sending.website.asked("POST") == []


def test_what_nobody_can_tell_is_held_even_where_doubts_are_sent_again(sending):
    goal = sending.goal(visitor(1))
    sending.website.known.add(visitor(1))
    sending.website.failure = Outcome(OutcomeKind.CONFIGURATION, 403, "Missing scope: analytics:read")
    sending.restore()
    sending.run_for(10 * MINUTE, nap_ms=5 * S)
    assert sending.told(goal) == ("held", "cannot_tell")
    assert "a backup was restored" in sending.row(goal).message
    assert sending.website.asked("POST") == []
    sending.website.failure = None
    sending.restore(hours=0)  # the key was fixed, and the command was run again
    sending.store.run(lambda conn: actions.retry(conn, goal))
    looks = len(sending.website.asked("GET"))
    sending.settled()
    assert sending.told(goal)[0] == "delivered"
    assert len(sending.website.asked("GET")) == looks + 1


def test_a_destination_that_is_away_decides_nothing(sending):
    goal = sending.goal(visitor(1))
    sending.website.known.add(visitor(1))
    sending.website.failure = AWAY
    sending.restore()
    sending.run_for(HOUR, nap_ms=20 * S)
    assert sending.told(goal)[0] == "unconfirmed"
    sending.website.failure = None
    sending.run_for(10 * MINUTE, nap_ms=5 * S)
    assert sending.told(goal)[0] == "delivered"


@pytest.mark.parametrize("state", ["held", "rejected", "expired", "cancelled"])
def test_what_a_person_sends_again_is_looked_up_too(sending, clock, state):
    goal = sending.goal(visitor(1), state=state)
    sending.recorded(visitor(1), clock.now_ms + MINUTE)
    sending.restore()
    clock.advance(DAY)
    sending.store.run(lambda conn: actions.retry(conn, goal))
    sending.run_for(S)
    assert sending.told(goal) == ("delivered", "read_back")


def test_a_look_that_was_under_way_when_the_back_up_was_made_is_made_anew(sending, clock):
    goal = sending.goal(visitor(1), state="unconfirmed", reason="answer_lost", absent=1)
    with sending.store.write() as conn:
        conn.execute(update(schema.goals).values(lease_token="gone", lease_until_ms=clock.now_ms + 10 * S))
    sending.recorded(visitor(1), clock.now_ms + MINUTE)
    sending.restore()
    sending.settled()
    assert sending.told(goal) == ("delivered", "read_back")


def test_told_twice_is_one_restore_and_one_later_is_another(store, clock):
    def told(from_ms):
        with store.write() as conn:
            return restoring.remember(conn, from_ms, clock.now_ms)

    now = clock.now_ms
    assert told(now - HOUR) == (now - HOUR, now)
    clock.advance(MINUTE)
    assert told(now - HOUR) == (now - HOUR, now + MINUTE)
    clock.advance(DAY)
    assert told(now + HOUR) == (now + HOUR, now + MINUTE + DAY)
    with store.read() as conn:
        known = facts.get(conn, restoring.FACT)
        assert restoring.spans(known) == (
            (now - HOUR, now + MINUTE),
            (now + HOUR, now + MINUTE + DAY),
        )
    clock.advance(MINUTE)
    assert told(now + DAY) == (now + HOUR, clock.now_ms), "nothing was stored since the last one"


def test_the_back_up_is_as_old_as_its_newest_time(sending, store, clock):
    with store.read() as conn:
        assert restoring.newest_ms(conn, clock.now_ms) is None
    sending.goal(visitor(1), changed_at_ms=clock.now_ms + 5 * S, state="held")
    sending.goal(visitor(1), changed_at_ms=clock.now_ms + 500 * DAY)  # by a clock that was wrong
    with store.read() as conn:
        assert restoring.newest_ms(conn, clock.now_ms + HOUR) == clock.now_ms + 5 * S
        assert restoring.count_open(conn) == restoring.Unfinished(0, 1, 0, 1, 0)
        assert conn.execute(select(schema.facts)).all() == []
    with store.write() as conn:
        facts.put(conn, "ready_at_ms", str(clock.now_ms + MINUTE))  # a process that stored nothing was ready then
    with store.read() as conn:
        assert restoring.newest_ms(conn, clock.now_ms + HOUR) == clock.now_ms + MINUTE
        assert restoring.newest_ms(conn, clock.now_ms + 10 * S) == clock.now_ms + 5 * S


def test_the_next_candidate_of_a_goal_is_looked_up_as_well(sending, clock):
    """In the lost time its first visitor turned out to be unknown, and it was sent to the second."""
    goal = sending.goal(visitor(1))
    sending.recorded(visitor(2), clock.now_ms + MINUTE)
    sending.restore()
    sending.settled()
    assert sending.website.asked("POST") == [visitor(1)]
    with sending.store.write() as conn:
        conn.execute(update(schema.goals).values(visitor=visitor(2), state="pending", due_at_ms=clock.now_ms))
    sending.run_for(5 * S)
    assert sending.told(goal) == ("delivered", "read_back")
    assert sending.website.asked("POST") == [visitor(1)]


def test_of_two_restores_each_has_its_own_answer(sending, clock):
    """Of the time before the first, the look said that the goal was not sent then."""
    goal = sending.goal(visitor(1))
    answers = []
    for expected in ("pending", "delivered"):
        sending.restore()
        sending.settled()
        assert sending.told(goal)[0] == expected
        sending.recorded(visitor(1), clock.now_ms + MINUTE)
        with sending.store.read() as conn:
            marks = select(schema.attempts.c.outcome).where(restoring.is_restore_mark())
            answers.append(conn.execute(marks.order_by(schema.attempts.c.id)).scalars().all())
    assert answers == [["not_sent"], ["not_sent", "delivered"]]


def test_thousands_that_are_looked_up_leave_every_second_slot_to_thousands_that_are_new(sending, clock):
    """A claim is a matter of milliseconds then, too: with one that compares all with all, this takes minutes."""

    def many(first, number, happened_at_ms):
        event, goal = dict(sending.an_event), dict(sending.a_goal)
        for names, row in ((("received_at_ms",), event), (("happened_at_ms", "due_at_ms", "ordered_at_ms"), goal)):
            row.update(dict.fromkeys(names, happened_at_ms))
        ids = range(first, first + number)
        with sending.store.write() as conn:
            conn.execute(
                insert(schema.events),
                [event | {"id": n, "dedupe_key": f"m{n}", "received_at_ms": happened_at_ms + S} for n in ids],
            )
            conn.execute(
                insert(schema.goals),
                [goal | {"id": n, "event_id": n, "once_key": f"m{n}", "visitor": visitor(n)} for n in ids],
            )

    sending.goal(visitor(1))
    with sending.store.read() as conn:
        sending.an_event = conn.execute(select(schema.events)).one()._mapping
        sending.a_goal = conn.execute(select(schema.goals)).one()._mapping
    many(10_000, 3_000, clock.now_ms)
    sending.restore()
    clock.advance(2 * MINUTE)
    many(20_000, 1_000, clock.now_ms - 2 * S)
    sending.website.known.update(visitor(n) for n in range(20_000, 21_000))
    with (
        sending.store.write() as conn
    ):  # PostgreSQL's autovacuum does it when it likes: perhaps while there was one row
        conn.execute(text("ANALYZE"))
    sending.run_for(3 * S)
    hows = [how for _, how, _ in sending.website.said]
    assert len(hows) > 20
    assert {how: abs(hows.count(how) - len(hows) / 2) <= 1 for how in ("GET", "POST")} == {"GET": True, "POST": True}
