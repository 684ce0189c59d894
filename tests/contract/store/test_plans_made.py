"""Goals by their once key: what the first event makes, what a later one gives, and what becomes of the parked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from identity_kit import ALICE, BOB, DAY, HOUR, MINUTE, settings
from sqlalchemy import insert, select, update

from bridge.identity.choice import Observation
from bridge.model import Envelope, Event, EventState, GoalDraft, Key, NamedVisitor, PlannedGoal
from bridge.store import schema
from bridge.store.goals import making, parking, statements

SETTINGS = settings()


class Bench:
    """Makes goals of events that exist, and reads them back."""

    def __init__(self, store, clock):
        self.store, self.clock = store, clock

    def event(self, *, stated_ms=None):
        row = {
            "source": "stripe",
            "provider": "stripe",
            "type": "charge.refunded",
            "provider_event_id": "evt_1",
            "test": False,
            "stated_at_ms": stated_ms,
            "received_at_ms": self.clock.now_ms,
            "dedupe_key": f"k{self.clock.now_ms}-{len(self.events())}",
            "headers": "{}",
            "query": "{}",
            "body": b"{}",
            "state": "routed",
        }
        with self.store.write() as conn:
            event_id = conn.execute(insert(schema.events).values(**row)).inserted_primary_key[0]
        envelope = Envelope("charge.refunded", "evt_1", stated_ms)
        now = self.clock.now_ms
        return Event(event_id, "stripe", "stripe", envelope, now, EventState.RECEIVED, {}, {}, b"{}")

    def events(self):
        with self.store.read() as conn:
            return conn.execute(select(schema.events)).all()

    def draft(self, once="once", visitor=None, keys="", *, stated_ms=None, **more):
        event = self.event(stated_ms=stated_ms)
        planned = PlannedGoal("rule", "refund", None, {"amount": "1"}, once, "default")
        planned = planned._replace(**{name: more.pop(name) for name in list(more) if name.endswith("_ms")})
        at_ms = event.happened_at_ms
        own = (NamedVisitor(visitor, "a.b"),) if visitor else ()
        return GoalDraft(event, planned, "default", at_ms, at_ms, stated_ms is not None, _keys(keys), own, **more)

    def make(self, *drafts, learn=True, **environ):
        used = settings(**environ)
        with self.store.write() as conn:
            lessons = [_lesson(draft) for draft in drafts] if learn else []
            links = parking.learn(conn, lessons, used, self.clock.now_ms)
            return making.make(conn, drafts, links, used, self.clock.now_ms)

    def goal(self, once="once"):
        with self.store.read() as conn:
            return conn.execute(select(schema.goals).where(schema.goals.c.once_key == once)).one()

    def change(self, **values):
        with self.store.write() as conn:
            conn.execute(update(schema.goals).values(**values))

    def sweep(self, **environ):
        with self.store.write() as conn:
            return parking.sweep(conn, settings(**environ))


def _keys(names):
    return tuple(
        Key(f"stripe:live:{name}", "customer" if name[:3] == "cus" else "charge", name) for name in names.split()
    )


def _lesson(draft):
    named = draft.own[0] if draft.own else None
    return Observation(draft.keys, draft.ordered_at_ms, f"charge.refunded {draft.event.name}", draft.event.id, 0, named)


@pytest.fixture
def bench(store, clock):
    return Bench(store, clock)


# ----------------------------------------------------------------------------------------------------------- birth


def test_an_own_visitor_makes_the_goal_pending(bench, clock):
    (made,) = bench.make(bench.draft(visitor=ALICE, keys="ch_1"))
    goal = bench.goal()
    assert (made.outcome, made.goal_id, goal.state, goal.visitor) == ("made", goal.id, "pending", ALICE)
    assert (goal.due_at_ms, goal.created_at_ms) == (clock.now_ms, clock.now_ms)
    assert json.loads(goal.provenance) == {"visitor": ALICE, "by": "own", "sure": True, "path": "a.b"}
    assert goal.description == "stripe evt_1"
    assert json.loads(goal.metadata) == {"amount": "1"}


def test_keys_without_a_visitor_park_the_goal_until_its_wait_is_over(bench, clock):
    bench.make(bench.draft(keys="ch_1"))
    goal = bench.goal()
    assert (goal.state, goal.visitor) == ("parked", None)
    assert goal.parked_until_ms == clock.now_ms + 96 * HOUR
    assert goal.due_at_ms == goal.weak_at_ms == clock.now_ms + 2 * MINUTE
    assert goal.message == "waits for an event of charge ch_1 that carries a visitor id"


def test_a_rule_may_set_its_own_wait_and_age(bench, clock):
    bench.make(bench.draft(keys="ch_1", wait_ms=HOUR, max_age_ms=DAY))
    assert bench.goal().parked_until_ms == clock.now_ms + HOUR
    assert bench.goal().expires_at_ms == clock.now_ms + DAY


def test_age_counts_from_the_events_own_time_if_it_states_one(bench, clock):
    bench.make(bench.draft("stated", ALICE, stated_ms=clock.now_ms - DAY), bench.draft("arrival", ALICE))
    assert bench.goal("stated").expires_at_ms == clock.now_ms + 6 * DAY
    assert bench.goal("arrival").expires_at_ms == clock.now_ms + 7 * DAY


def test_a_customer_alone_has_no_grace(bench):
    bench.make(bench.draft("known", ALICE, "cus_1"))
    bench.make(bench.draft("later", keys="cus_1"))
    assert (bench.goal("later").visitor, bench.goal("later").weak_at_ms) == (ALICE, None)


def test_no_visitor_and_no_key_is_unattributed_at_once(bench):
    bench.make(bench.draft(refused='a.b is the word "undefined"'))
    goal = bench.goal()
    assert (goal.state, goal.reason) == ("unattributed", "no_visitor")
    assert 'no visitor id (a.b is the word "undefined") and no key' in goal.message


def test_a_test_event_is_dry_at_once_with_the_visitor_known_by_then(bench):
    bench.make(bench.draft("paid", ALICE, "ch_1 cus_1"))
    bench.make(
        bench.draft("a", keys="ch_1", dry=True, test=True),
        bench.draft("b", keys="ch_9 cus_1", dry=True, test=True),
        bench.draft("c", keys="ch_8", dry=True, test=True),
    )
    assert [(bench.goal(once).state, bench.goal(once).visitor) for once in "abc"] == [
        ("dry", ALICE),
        ("dry", ALICE),
        ("dry", None),
    ]


# --------------------------------------------------------------------------------------------------------- once keys


def test_a_second_event_with_the_same_once_key_makes_no_second_goal(bench):
    first, second = bench.make(bench.draft(visitor=ALICE), bench.draft(visitor=BOB))
    assert (first.outcome, second.outcome, second.goal_id) == ("made", "known", first.goal_id)
    assert second.event_id == first.draft.event.id
    (third,) = bench.make(bench.draft(visitor=BOB))
    assert third.outcome == "known"
    assert bench.goal().visitor == ALICE


def test_another_destination_is_another_goal(bench):
    other = bench.draft(visitor=ALICE)
    bench.make(bench.draft(visitor=ALICE), replace(other, destination="shop"))
    with bench.store.read() as conn:
        assert len(conn.execute(select(schema.goals)).all()) == 2


@pytest.mark.parametrize("at_once", [True, False])
def test_a_later_event_gives_a_parked_goal_its_visitor(bench, at_once):
    drafts = [bench.draft(keys="ch_1"), bench.draft(visitor=ALICE, keys="ch_2")]
    if at_once:
        outcomes = [made.outcome for made in bench.make(*drafts)]
    else:
        outcomes = [made.outcome for draft in drafts for made in bench.make(draft)]
    assert outcomes == ["made", "merged"]
    assert (bench.goal().state, bench.goal().visitor) == ("pending", ALICE)
    assert bench.goal().message is None


def test_a_later_event_gives_a_parked_goal_its_keys_and_a_new_wait(bench, clock):
    bench.make(bench.draft(keys="ch_1"))
    clock.advance(HOUR)
    bench.make(bench.draft(keys="ch_2"))
    assert bench.goal().parked_until_ms == clock.now_ms + 96 * HOUR
    assert bench.goal().weak_at_ms == clock.now_ms + 2 * MINUTE
    bench.make(bench.draft("other", ALICE, "ch_2"))
    assert (bench.goal().state, bench.goal().visitor) == ("pending", ALICE)


def test_a_later_event_parks_an_unattributed_goal_again(bench):
    bench.make(bench.draft())
    bench.make(bench.draft(keys="ch_1"))
    assert (bench.goal().state, bench.goal().reason) == ("parked", None)
    bench.make(bench.draft("other", ALICE, "ch_1"))
    assert bench.goal().visitor == ALICE


def test_a_later_event_without_anything_takes_nothing_away(bench):
    bench.make(bench.draft(keys="ch_1"))
    bench.make(bench.draft())
    assert bench.goal().state == "parked"


def test_a_later_event_revives_a_goal_that_expired_unsent(bench, clock):
    bench.make(bench.draft(visitor=ALICE))
    bench.change(state="expired", reason="max_age", attempts=3)
    clock.advance(8 * DAY)
    bench.make(bench.draft(keys="ch_1"))
    goal = bench.goal()
    assert (goal.state, goal.visitor, goal.reason, goal.attempts) == ("pending", ALICE, None, 0)
    assert goal.expires_at_ms == clock.now_ms + 7 * DAY


@pytest.mark.parametrize("outcome", [None, "unconfirmed", "delivered"])
def test_a_goal_that_may_have_been_sent_is_never_revived(bench, outcome):
    (made,) = bench.make(bench.draft(visitor=ALICE))
    row = {"goal_id": made.goal_id, "kind": "send", "started_at_ms": 1, "lease_token": "t", "outcome": outcome}
    with bench.store.write() as conn:
        conn.execute(insert(schema.attempts).values(**row))
    bench.change(state="expired")
    assert bench.make(bench.draft(visitor=BOB))[0].outcome == "known"
    assert bench.goal().state == "expired"


@pytest.mark.parametrize(
    "state", ["pending", "leased", "sending", "unconfirmed", "delivered", "rejected", "held", "dry", "cancelled"]
)
def test_a_goal_that_is_on_its_way_or_done_takes_nothing(bench, state):
    bench.make(bench.draft(visitor=ALICE))
    bench.change(state=state)
    assert bench.make(bench.draft(visitor=BOB, keys="ch_1"))[0].outcome == "known"
    assert (bench.goal().state, bench.goal().visitor) == (state, ALICE)


# ------------------------------------------------------------------------------------------------------------ waking


def test_a_link_wakes_exactly_the_goals_that_wait_for_it(bench):
    bench.make(bench.draft("a", keys="ch_1"), bench.draft("b", keys="ch_2"))
    bench.make(bench.draft("c", ALICE, "ch_1"))
    assert (bench.goal("a").state, bench.goal("b").state) == ("pending", "parked")
    assert json.loads(bench.goal("a").provenance)["ref"] == "ch_1"


def test_a_hint_from_outside_wakes_as_an_event_does(bench):
    bench.make(bench.draft(keys="ch_1 cus_1"))
    with bench.store.write() as conn:
        parking.bind(conn, Key("stripe:live:ch_1", "charge", "ch_1"), ALICE, SETTINGS)
    assert bench.goal().visitor == ALICE
    assert json.loads(bench.goal().provenance)["event"] == "a hint"


def test_a_customer_who_is_learned_after_the_grace_wakes_at_once(bench, clock):
    bench.make(bench.draft(keys="ch_1 cus_1"))
    clock.advance(HOUR)
    bench.sweep()
    assert bench.goal().state == "parked"
    bench.make(bench.draft("other", ALICE, "ch_9 cus_1"))
    assert (bench.goal().state, bench.goal().visitor) == ("pending", ALICE)


def test_the_end_of_the_wait_says_what_to_do(bench, clock):
    bench.make(bench.draft(keys="ch_1"))
    clock.advance(96 * HOUR - 1)
    bench.sweep()
    assert bench.goal().state == "parked"
    clock.advance(1)
    assert bench.sweep() == 1
    goal = bench.goal()
    assert (goal.state, goal.reason) == ("unattributed", "no_visitor")
    assert goal.message.startswith("no event of charge ch_1 carried a visitor id; set ")


def test_a_link_after_the_wait_wakes_nobody(bench, clock):
    bench.make(bench.draft(keys="ch_1"))
    clock.advance(96 * HOUR)
    bench.sweep()
    bench.make(bench.draft("other", ALICE, "ch_1"))
    bench.sweep()
    assert bench.goal().state == "unattributed"


# --------------------------------------------------------------------------------------------------- wrong visitors


def reject(bench):
    goal = bench.goal()
    bench.change(state="rejected", reason="unknown_visitor", unknown_visitor_tries=4, attempts=4)
    with bench.store.write() as conn:
        statements.note_unknown(conn, "default", goal.visitor)
        return parking.next_visitor(conn, goal.id, SETTINGS)


def test_a_visitor_nobody_knows_is_followed_by_the_next_own_candidate(bench):
    draft = bench.draft(visitor=ALICE, keys="ch_1")
    bench.make(replace(draft, own=(NamedVisitor(ALICE, "a.b"), NamedVisitor(BOB, "client_reference_id", sure=False))))
    assert reject(bench)
    goal = bench.goal()
    assert (goal.state, goal.visitor, goal.unknown_visitor_tries, goal.attempts) == ("pending", BOB, 0, 0)
    assert json.loads(goal.provenance)["path"] == "client_reference_id"
    assert not reject(bench)
    assert bench.goal().state == "rejected"
    assert "is it your own user id?" in bench.goal().message


def test_a_visitor_nobody_knows_is_followed_by_the_threads(bench):
    bench.make(bench.draft("other", BOB, "ch_1"))
    draft = bench.draft(visitor=ALICE, keys="ch_1")
    bench.make(draft)
    bench.store.run(
        lambda conn: conn.execute(
            update(schema.goals).where(schema.goals.c.once_key == "other").values(state="delivered")
        )
    )
    goal = bench.goal()
    with bench.store.write() as conn:
        conn.execute(
            update(schema.goals).where(schema.goals.c.id == goal.id).values(state="rejected", reason="unknown_visitor")
        )
        statements.note_unknown(conn, "default", ALICE)
        assert parking.next_visitor(conn, goal.id, SETTINGS)
    assert bench.goal().visitor == BOB
    assert json.loads(bench.goal().provenance)["by"] == "thread"


def test_only_a_goal_whose_visitor_was_unknown_tries_the_next(bench):
    (made,) = bench.make(bench.draft(visitor=ALICE))
    with bench.store.write() as conn:
        assert not parking.next_visitor(conn, made.goal_id, SETTINGS)


def test_who_was_unknown_is_passed_over_by_the_next_goals(bench):
    with bench.store.write() as conn:
        statements.note_unknown(conn, "default", ALICE)
    bench.make(bench.draft(visitor=ALICE, keys="ch_1"))
    goal = bench.goal()
    assert goal.state == "parked"
    assert "is it your own user id?" in goal.message
