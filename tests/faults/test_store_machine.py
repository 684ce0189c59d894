"""The statements of delivery and of planned goals, driven on both databases through the same random history.

Every answer and every row must be the same. Events, the inbox and what people do are driven so in
tests/contract/store/test_both_alike.py.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import insert, select, text

from bridge import settings as table
from bridge.deliver import decide, decide_readback
from bridge.identity.choice import Observation
from bridge.model import (
    Claim,
    CompletedGoal,
    Envelope,
    Event,
    EventState,
    GoalDraft,
    Key,
    NamedVisitor,
    Outcome,
    OutcomeKind,
    PlannedGoal,
    ReadbackClaim,
    VisitorGoals,
)
from bridge.store import schema
from bridge.store.delivery import claims
from bridge.store.goals import making, parking, statements

SETTINGS = table.load({"BRIDGE_PARK": "2h", "BRIDGE_WEAK_AFTER": "2min"})
LEASE = 60_000
VISITORS = st.sampled_from(["00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"])
KEYS = st.lists(
    st.sampled_from(["charge:ch_1", "charge:ch_2", "invoice:in_1", "customer:cus_1"]), max_size=2, unique=True
)
NAMES = st.sampled_from(["purchase", "refund"])
KINDS = st.sampled_from(list(OutcomeKind)) | st.sampled_from([OutcomeKind.DELIVERED, OutcomeKind.UNCONFIRMED])
WHICH = st.integers(0, 3)
COMPARED = (
    schema.goals,
    schema.attempts,
    schema.destinations,
    schema.pace,
    schema.goal_keys,
    schema.link_keys,
    schema.link_visitors,
    schema.unknown_visitors,
)


class Delivering(RuleBasedStateMachine):
    """Each rule does one thing to both stores."""

    def __init__(self, stores, clock, empty, align):
        super().__init__()
        self.stores, self.clock, self.empty, self.align = stores, clock, empty, align
        self.claims, self.count = [], 0

    def both(self, work):
        one, two = [store.run(work) for store in self.stores]
        assert one == two
        return one

    @initialize()
    def begin_anew(self):
        self.empty()
        self.claims, self.count = [], 0
        self.both(lambda conn: claims.register(conn, destination="default", token_hash="t"))

    @rule(visitors=st.lists(VISITORS, min_size=1, max_size=3), keys=KEYS, name=NAMES)
    def plan_some(self, visitors, keys, name):
        for visitor in visitors:
            self.plan_one(self.count + 100, visitor, keys, name)

    @rule(once=st.integers(1, 5), visitor=st.none() | VISITORS, keys=KEYS, name=NAMES)
    def plan(self, once, visitor, keys, name):
        self.plan_one(once, visitor, keys, name)

    def plan_one(self, once, visitor, keys, name):
        self.count += 1
        event_id, now = self.count, self.clock.now_ms
        event = Event(
            event_id, "stripe", "stripe", Envelope("a.b", f"evt_{event_id}"), now, EventState.RECEIVED, {}, {}, b""
        )
        found = tuple(Key(f"stripe:live:{key}", *key.split(":")) for key in keys)
        own = (NamedVisitor(visitor, "path"),) if visitor else ()
        planned = PlannedGoal("r", name, None, {"a": "1"}, f"once-{once}", "default")
        draft = GoalDraft(event, planned, "default", now, now, time_is_stated=False, keys=found, own=own)
        lesson = Observation(found, now, f"a.b evt_{event_id}", event_id, 0, own[0] if own else None)

        def work(conn):
            conn.execute(
                insert(schema.events).values(
                    id=event_id, source="stripe", provider="stripe", type="a.b", test=False, received_at_ms=now,
                    dedupe_key=f"k{event_id}", headers="{}", query="{}", state="routed",
                )
            )  # fmt: skip
            links = parking.learn(conn, [lesson], SETTINGS, now)
            return [
                (made.outcome, made.goal_id, made.state, made.message)
                for made in making.make(conn, [draft], links, SETTINGS, now)
            ]

        self.both(work)
        self.align()

    @rule(key=KEYS, visitor=VISITORS)
    def hint(self, key, visitor):
        for text_ in key:
            found = Key(f"stripe:live:{text_}", *text_.split(":"))
            self.both(lambda conn, found=found: parking.bind(conn, found, visitor, SETTINGS) and None)

    @rule()
    def look_at_the_parked(self):
        self.both(lambda conn: parking.sweep(conn, SETTINGS))

    @rule(rate=st.sampled_from([58, 60_000]))
    def claim(self, rate):
        self.claim_one(rate)

    def claim_one(self, rate=60_000):
        self.count += 1
        token = f"lease-{self.count}"

        def work(conn):
            return claims.claim(conn, destination="default", token_hash="t", token=token, lease_ms=LEASE, rate=rate)

        claimed = self.both(work)
        if isinstance(claimed, Claim | ReadbackClaim):
            self.claims.append(claimed)
        self.align()
        return claimed

    @rule(kind=KINDS, found=st.integers(0, 2), again=st.integers(2, 5), pause_ms=st.sampled_from([40, 31_000, 61_000]))
    def work(self, kind, found, again, pause_ms):
        """What a deliverer does in one go, a few times."""
        for _ in range(again):
            claimed = self.claim_one()
            if isinstance(claimed, Claim):
                self.settle_one(claimed, kind, 0.5)
            elif isinstance(claimed, ReadbackClaim):
                self.settle_look_one(claimed, found, fails=found == 2, told=found == 1)
            self.clock.advance(pause_ms)

    @rule(which=WHICH, kind=KINDS, jitter=st.sampled_from([0.0, 0.99]))
    def settle(self, which, kind, jitter):
        mine = [claim for claim in self.claims if isinstance(claim, Claim)]
        if mine:
            self.settle_one(mine[which % len(mine)], kind, jitter)

    def settle_one(self, claim, kind, jitter):
        outcome = Outcome(kind, 200 if kind is OutcomeKind.DELIVERED else None, "said", server_now_ms=self.clock.now_ms)
        ruling = decide(outcome, claim, SETTINGS, jitter=jitter)

        def work(conn):
            settled = claims.settle(conn, claim, outcome, ruling)
            if settled.written and ruling.unknown_visitor:
                statements.note_unknown(conn, "default", claim.goal.visitor)
                parking.next_visitor(conn, claim.goal.id, SETTINGS)
            return settled

        self.both(work)

    @rule(which=WHICH, found=st.integers(0, 2), fails=st.booleans(), told=st.booleans())
    def settle_readback(self, which, found, fails, told):
        looks = [claim for claim in self.claims if isinstance(claim, ReadbackClaim)]
        if looks:
            self.settle_look_one(looks[which % len(looks)], found, fails, told)

    def settle_look_one(self, look, found, fails, told):
        now = self.clock.now_ms
        entries = [
            CompletedGoal(look.name, now, goal.goal.description if told else None) for goal in look.goals[:found]
        ]
        failure = Outcome(OutcomeKind.UNCONFIRMED, message="lost") if fails else None
        answer = VisitorGoals(known=bool(entries), goals=tuple(entries), failure=failure)
        rulings, health = decide_readback(look, answer, SETTINGS)
        self.both(lambda conn: claims.settle_readback(conn, look, rulings, health=health))

    @rule(which=WHICH)
    def give_back(self, which):
        if self.claims:
            claim = self.claims[which % len(self.claims)]
            self.both(lambda conn: claims.release(conn, claim))
            self.align()  # SQLite gives the number of a last attempt that is removed to the next one

    @rule(which=WHICH)
    def take_back(self, which):
        mine = [claim for claim in self.claims if isinstance(claim, Claim)]
        if mine:
            self.both(lambda conn: claims.take_back(conn, mine[which % len(mine)]))

    @rule()
    def sweep(self):
        self.both(lambda conn: [sorted(ids) for ids in claims.sweep(conn, settling_ms=30_000)])

    @rule(ms=st.sampled_from([1, 1_100, 31_000, LEASE + 1, 31_000, 300_000, 3 * 3_600_000]))
    def wait(self, ms):
        self.clock.advance(ms)

    @rule(key=st.sampled_from(["t", "t2"]))
    def another_key(self, key):
        self.both(lambda conn: claims.register(conn, destination="default", token_hash=key))
        self.both(lambda conn: claims.register(conn, destination="default", token_hash="t"))

    @invariant()
    def they_hold_the_same(self):
        self.both(lambda conn: [conn.execute(select(t).order_by(*t.primary_key)).all() for t in COMPARED])

    @invariant()
    def they_would_do_the_same(self):
        self.both(lambda conn: (claims.peek(conn, "default"), claims.anything_to_sweep(conn)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lives", [2, pytest.param(20, marks=pytest.mark.long)])
def test_both_databases_deliver_alike(sqlite_store, postgres_store, clock, lives):
    def empty():
        for store in (sqlite_store, postgres_store):
            with store.write() as conn:
                for each in reversed(schema.metadata.sorted_tables):
                    conn.execute(each.delete())
        align()

    def align():
        """PostgreSQL spends a number on a row that it then does not insert; here both have to count alike."""
        with postgres_store.write() as conn:
            for name in ("goals", "attempts"):
                conn.execute(
                    text(f"SELECT setval('{name}_id_seq', (SELECT coalesce(max(id), 0) + 1 FROM {name}), false)")
                )

    run_state_machine_as_test(
        lambda: Delivering((sqlite_store, postgres_store), clock, empty, align),
        settings=settings(
            max_examples=lives,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.explicit, Phase.generate],
        ),
    )
