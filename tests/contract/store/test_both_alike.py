"""SQLite and PostgreSQL are driven through the same random history; every answer and every row must be the same."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import insert, select, text

from bridge.model import Envelope, NewEvent, Verdict
from bridge.store import facts, schema
from bridge.store.inbox import counters, events, group_commit
from bridge.store.operator import actions, queries, status
from bridge.store.upkeep import retention

LEASE = 1_000
DAY = 86_400_000
IDS = st.integers(1, 6)
TOKENS = st.sampled_from(["a", "b"])
STATES = st.sampled_from(["parked", "pending", "sending", "delivered", "rejected", "held", "dry", "unattributed"])
COMPARED = (schema.events, schema.goals, schema.source_counters, schema.totals, schema.facts)


class Alike(RuleBasedStateMachine):
    """Each rule does one thing to both stores."""

    def __init__(self, stores, clock, empty, align):
        super().__init__()
        self.stores, self.clock, self.empty, self.align = stores, clock, empty, align

    def both(self, work, way="run"):
        one, two = [getattr(store, way)(work) for store in self.stores]
        assert one == two
        self.align()

    @initialize()
    def begin(self):
        self.empty()

    @rule(batch=st.lists(st.tuples(IDS, st.sampled_from([None, "x", "y"]), st.booleans()), min_size=1, max_size=4))
    def receive(self, batch):
        rows = [
            group_commit._row(
                NewEvent(
                    "stripe",
                    "stripe",
                    Envelope("a.b", f"evt_{number}"),
                    (f"id:{number}", f"body:{second}") if second else (f"id:{number}",),
                    {"h": "1"},
                    {},
                    b"\x00",
                    "unreadable" if bad else None,
                )
            )
            for number, second, bad in batch
        ]
        for row in rows:  # one by one, because of the numbers that PostgreSQL spends
            self.both(lambda driver, one=row: group_commit.store_rows(driver, [one]), "run_driver")

    @rule(token=TOKENS, limit=st.integers(1, 4))
    def claim(self, token, limit):
        self.both(lambda conn: events.claim(conn, limit, token, LEASE))

    @rule(token=TOKENS, id_=IDS, verdict=st.sampled_from(list(Verdict)))
    def finish(self, token, id_, verdict):
        self.both(lambda conn: events.finish_all(conn, token, [events.RoutingResult(id_, verdict, None, "{}", "h")]))

    @rule(token=TOKENS, ids=st.lists(IDS, max_size=3))
    def release(self, token, ids):
        self.both(lambda conn: events.release(conn, ids, token))

    @rule(token=TOKENS, id_=IDS)
    def quarantine(self, token, id_):
        self.both(lambda conn: events.quarantine(conn, id_, token, "it went wrong"))

    @rule(id_=IDS)
    def requeue(self, id_):
        self.both(lambda conn: events.requeue(conn, id_))

    @rule(id_=IDS, state=STATES)
    def make_goal(self, id_, state):
        def work(conn):
            if queries.show_event(conn, id_) is None:
                return
            number = conn.execute(select(schema.goals.c.id).order_by(schema.goals.c.id.desc()).limit(1)).scalar() or 0
            now = self.clock.now_ms
            times = dict.fromkeys(
                ("happened_at_ms", "ordered_at_ms", "created_at_ms", "changed_at_ms", "due_at_ms"), now
            )
            conn.execute(
                insert(schema.goals).values(
                    event_id=id_,
                    source="stripe",
                    rule_id="r",
                    destination="default",
                    once_key=f"k{number}",
                    test=False,
                    name="purchase",
                    description="d",
                    metadata="{}",
                    visitor=None if state == "parked" else "v",
                    state=state,
                    time_is_stated=True,
                    expires_at_ms=now + DAY,
                    wait_ms=1,
                    **times,
                )
            )

        self.both(work)

    @rule(id_=IDS, again=st.booleans())
    def retry(self, id_, again):
        self.both(lambda conn: actions.retry(conn, id_, again=again))

    @rule(id_=IDS)
    def cancel(self, id_):
        self.both(lambda conn: actions.cancel(conn, id_))

    @rule(count=st.integers(1, 3))
    def refuse(self, count):
        self.both(lambda conn: counters.refused(conn, "stripe", count=count, in_row=count, reason="stale"))

    @rule(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
    def know(self, value):
        self.both(lambda conn: (facts.put(conn, "a", value), facts.ensure(conn, "b", lambda: value)))

    @rule(ms=st.sampled_from([1, LEASE, DAY, 31 * DAY, 401 * DAY]))
    def wait(self, ms):
        self.clock.advance(ms)

    @rule(days=st.sampled_from([0, 30]))
    def purge(self, days):
        one, two = [retention.purge(store, days) for store in self.stores]
        assert one == two

    @invariant()
    def they_hold_the_same(self):
        def work(conn):
            return [conn.execute(select(table).order_by(*table.primary_key)).all() for table in COMPARED]

        self.both(work)

    @invariant()
    def they_say_the_same(self):
        self.both(lambda conn: (status.snapshot(conn, ("default",)), status.totals(conn)))
        self.both(lambda conn: (queries.list_events(conn, queries.EventFilter()), queries.find(conn, "v")))


def test_both_databases_give_the_same_answers(sqlite_store, postgres_store, clock):
    def empty():
        for store in (sqlite_store, postgres_store):
            with store.write() as conn:
                for table in reversed(schema.metadata.sorted_tables):
                    conn.execute(table.delete())
        align()

    def align():
        """PostgreSQL spends a number on a row that it then does not insert; here both have to count alike."""
        with postgres_store.write() as conn:
            for table in ("events", "goals"):
                conn.execute(
                    text(f"SELECT setval('{table}_id_seq', (SELECT coalesce(max(id), 0) + 1 FROM {table}), false)")
                )

    run_state_machine_as_test(
        lambda: Alike((sqlite_store, postgres_store), clock, empty, align),
        settings=settings(
            max_examples=settings.default.max_examples // 10,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.explicit, Phase.generate],  # a history is short enough to be read whole
        ),
    )
