"""What runs all the time goes by an index, on both databases, however many rows there are."""

from __future__ import annotations

import json
import re
import sys
import time

import pytest
from statements_kit import explained, overheard, plan

from bench import claims as bench_claims
from bench.half_million import BIG as BIG_ID
from bench.half_million import fill
from bridge import loading, settings
from bridge.cli import goals as cli_goals
from bridge.cli import printing
from bridge.cli.screen import Screen
from bridge.identity.choice import Evidence, Mention
from bridge.model import Key
from bridge.store import open as open_store
from bridge.store import schema
from bridge.store.database.driver import render
from bridge.store.delivery import statements as delivery_statements
from bridge.store.goals import statements as goal_statements
from bridge.store.inbox import events
from bridge.store.links import learning
from bridge.store.links import statements as link_statements
from bridge.store.operator import activity, changes, history, queries, status, tallies, threads
from bridge.store.upkeep import retention
from bridge.store.upkeep.ahead import corrections
from bridge.workbench import event as event_page
from bridge.workbench import linking, why

NOW_MS = 1_790_000_000_000
AHEAD = corrections(settings.load({}))
BIG = ("events", "goals", "attempts", "link_events", "link_keys", "link_visitors", "goal_keys", "changes")
_ONCE = Mention(1, "a.b evt_1", 1)
CUSTOMER = threads.KeyLine("a", "customer", "a", None, 1, 1, None)
SHARED = threads.Thread((CUSTOMER,), (Evidence("a", "v1", True, _ONCE, _ONCE),))


def scans(store, work):
    """The plans of all statements of `work` that walk over a whole big table."""
    with overheard(store) as said, store.write() as conn:
        work(conn)
        heard = list(said)
        return [walk for statement, values in heard if (walk := _walks(conn, statement, values))]


def _walks(conn, statement, values):
    lines = plan(conn, statement, values)
    walks = r"SCAN (%s|other)" if conn.dialect.name == "sqlite" else r".*Seq Scan on (%s)\b.*"
    bad = [line for line in lines if re.fullmatch(walks % "|".join(BIG), line)]
    return "\n".join([statement, *lines]) if bad else ""


WORK = {
    "claim": lambda conn: events.claim(conn, 20, "t", 1),
    "release": lambda conn: events.release(conn, [1], "t"),
    "look": lambda conn: status.snapshot(conn, ("default",)),
    "find": lambda conn: (queries.find(conn, "evt_1"), queries.find(conn, "ev_1"), queries.find(conn, "goal_1")),
    "show": lambda conn: (queries.show_event(conn, 1), queries.show_goal(conn, 1)),
    "bodies after days": lambda conn: retention.forget_bodies(conn, 30, 10, NOW_MS),
    "bodies at once": lambda conn: retention.forget_bodies(conn, 0, 10, NOW_MS),
    "attempts": lambda conn: retention.forget_attempts(conn, 30, 10, NOW_MS),
    "goals": lambda conn: retention.forget_goals(conn, 10, NOW_MS),
    "events": lambda conn: retention.forget_events(conn, 10, NOW_MS),
    "a time span": lambda conn: history.span(conn, 1),
    "a page of it": lambda conn: history.page(conn, history.EventSpan(1, 1, 2)),
    "types that came": lambda conn: tallies.types(conn, 1),
    "rules that fired": lambda conn: tallies.rules(conn, 1),
    "goals of some days": lambda conn: list(tallies.goals_since(conn, 1)),
    "what waits": tallies.waiting,
    "a person's events": lambda conn: threads.events_of(conn, ["a", "b"], "v1", 9, 50),
    "a person's newest events": lambda conn: list(
        queries.show_events(conn, threads.events_of(conn, ["a"], None, None, 50))
    ),
    "a person's goals": lambda conn: tallies.goals_of(conn, [1, 2]),
    "the keys of an event": lambda conn: threads.linked_to_keys(conn, threads.keys_of_event(conn, 1)),
    "a customer's keys": lambda conn: threads.linked_to_keys(conn, [CUSTOMER], ends=True),
    "who shares a visitor": lambda conn: threads.shared(conn, SHARED),
    "the people of late": lambda conn: threads.visitors_of(conn, [one.key for one in threads.last_seen(conn, 9)]),
    "what people changed": lambda conn: (changes.recent(conn, 50, 9), changes.forget_old(conn, 9, NOW_MS)),
    "sales without a visitor": lambda conn: list(tallies.unnamed_since(conn, "purchase", 1)),
    "the first page": lambda conn: (
        tallies.progress(conn),
        tallies.events_received(conn, 1, 2),
        tallies.states(conn, 1, 2),
        tallies.queues(conn, ["default"]),
    ),
    "the newest goals of rules": lambda conn: tallies.last_goals(conn, 1),
    "what attempts came to": status.attempts_made,
    "times ahead": lambda conn: AHEAD.needed(conn, NOW_MS),
    "times ahead, all": lambda conn: AHEAD.needed(conn, NOW_MS, cheap=False),
}


@pytest.mark.parametrize("name", WORK)
def test_it_goes_by_an_index(store, rows, name):
    for n in range(3):
        rows.attempt(rows.goal(rows.routed(f"evt_{n}"), state="delivered"))
    rows.event("evt_new")
    assert scans(store, WORK[name]) == []


def test_a_walk_over_a_table_would_be_seen(store, rows):
    rows.event()
    assert scans(store, lambda conn: conn.execute(schema.events.select().where(schema.events.c.reason == "x")))


MANY = 60_000  # from which on a planner that guesses goes wrong
PAGES = {
    "one event": lambda conn: event_page.event_story(
        conn, queries.show_event(conn, BIG_ID + 10), None, {}, (), personal=False
    ),
    "one person": lambda conn: why.person_page(conn, "visitor-000000010", settings.load({})),
    "people": why.recent_people,
    "the list": lambda conn: activity.page(conn, "events", activity.ActivityFilter()),
    "a verdict": lambda conn: activity.page(
        conn, "events", activity.ActivityFilter(source="stripe", verdict="unmatched")
    ),
    "a page of the workbench": lambda conn: history.page(conn, history.span(conn, 1)),
    "an hour": lambda conn: tallies.events_received(conn, int(time.time() * 1000) - 3_600_000, int(time.time() * 1000)),
    "a customer's people": lambda conn: _recall(conn, Key("stripe:live:cus_000000010", "customer", "")),
    "a purchase's people": lambda conn: _recall(conn, Key("stripe:live:sub_000000010", "subscription", "")),
    "a user's customers": lambda conn: learning.related(conn, [USER]),
    "whose a key is": lambda conn: link_statements.with_one_customer(conn, ["stripe:live:sub_000000010"]),
    "goals made before": lambda conn: goal_statements.made_before(conn, ONCE),
    "goals that people are asked for": lambda conn: goal_statements.linked_to(conn, [], [USER]),
}
USER = "user:default:live:000000010"
ONCE = [("default", f"purchase:evt_{n:09}") for n in range(50)]
_BESIDE = (("stripe:live:cus_", "customer", "NULL"), ("user:default:live:", "user", "1"))  # …, since when it is certain


def _recall(conn, key):
    links = learning.recall(conn, [key])
    learning.recall_customers(conn, links, [key])
    assert USER in links.people


def _name_people(conn):
    """Let each event of `fill` name a customer and a user, too."""
    for owner, kind, certain in _BESIDE:
        conn.exec_driver_sql(
            "INSERT INTO link_keys (key, kind, ref, created_at_ms, used_at_ms, uses, certain_at_ms) SELECT"
            f" '{owner}' || right(key, 9), '{kind}', right(key, 9), 1, 1, 1, {certain} FROM link_keys"
            " WHERE kind = 'subscription'"
        )
        conn.exec_driver_sql(
            f"INSERT INTO link_events (key, event_id, element) SELECT '{owner}' || right(key, 9), event_id, 0"
            " FROM link_events WHERE key LIKE 'stripe:live:sub%%'"
        )


@pytest.mark.long
def test_postgresql_without_statistics_looks_at_few_rows(postgres_url):
    """A server whose autovacuum never came round: it believes that a value is that of a 200th of all rows."""
    fill(postgres_url, MANY, share=2)
    store = open_store(postgres_url)
    store.run(_name_people)
    with store.read() as conn:
        walks = {name: looked_at for name, ask in PAGES.items() if (looked_at := _looked_at(store, conn, ask))}
    store.close()
    assert walks == {}


def _looked_at(store, conn, ask):
    """The steps of plans that look at very many rows."""
    with overheard(store) as said:
        ask(conn)
    heard = [(statement, values) for statement, values in said if statement.startswith(("SELECT", "WITH"))]
    plans = [explained(conn, f"EXPLAIN ANALYZE {statement}", values) for statement, values in heard]
    return [line.strip() for lines in plans for line in lines if _MUCH.search(line)]


_MUCH = re.compile(r"actual .*rows=\d{5}|Removed by Filter: \d{5}|Parallel")


@pytest.mark.parametrize(("number", "statements"), [(1, 1), (50, 4)])
def test_goals_made_before_are_found_by_few_statements_and_the_index_of_once_keys(store, rows, number, statements):
    early, late = rows.routed("evt_1"), rows.routed("evt_2")
    first, *rest = places = [("default", f"once_{n}") for n in range(number)]
    for event, made in ((early, [first, ("other", "once_1")]), (late, rest)):
        for destination, once_key in made:
            rows.goal(event, destination=destination, once_key=once_key)
    asked = {*places, ("other", "once_0")}
    alike = rows.all(schema.goals)[0]._asdict()
    with store.write() as conn:  # of few, PostgreSQL reads all of a destination
        conn.execute(schema.goals.insert(), [alike | {"id": 1_000 + n, "once_key": f"more_{n}"} for n in range(3_000)])
        conn.exec_driver_sql("ANALYZE goals")  # or autovacuum may have counted just now, when there were three
    with overheard(store) as said, store.write() as conn:
        assert goal_statements.made_before(conn, asked) == set(places)
        assert goal_statements.made_before(conn, asked, late) == {first}
        heard = list(said)
        plans = [" ".join(plan(conn, statement, values)) for statement, values in heard]
    assert len(heard) == 2 * statements
    by_index = {
        "sqlite": r"sqlite_autoindex_goals_1 \(destination=\? AND once_key=\?\)",
        "postgresql": r"uq_goals_destination_once_key on .*Index Cond: .*destination = .*once_key = ",
    }
    for lines in plans:
        assert re.search(by_index[store.dialect], lines), lines


def test_the_page_of_an_event_takes_as_many_statements_for_twenty_goals_as_for_one(store, rows):
    with store.write() as conn:
        key = {"key": "stripe:live:cus_1", "kind": "customer", "ref": "cus_1"}
        conn.execute(schema.link_keys.insert().values(**key, created_at_ms=1, used_at_ms=1, uses=1))

    def said_of(id_, goals):
        event = rows.routed(id_)
        for number in range(goals):
            goal = rows.goal(event, state=("delivered", "parked")[number % 2], visitor=None)
            with store.write() as conn:
                conn.execute(schema.goal_keys.insert().values(goal_id=goal, key=key["key"]))
            rows.attempt(goal, "not_sent")
            rows.attempt(goal, "delivered")
        with overheard(store) as said, store.read() as conn:
            told = event_page.event_story(conn, queries.show_event(conn, event), None, {}, (), personal=False)
            assert [len(goal.history) for goal in told.goals] == [2] * goals
        return len(said)

    assert said_of("evt_few", 2) == said_of("evt_many", 20) <= 20


# Each with the ids of its goals, which it shows in this order.
OF_GOALS = {
    "goals": lambda conn, ids: [detail.goal.id for detail in queries.show_goals(conn, ids)],
    "a visitor's goals": lambda conn, _: [detail.goal.id for detail in why.look_up(conn, "v1", {}).goals],
    "the goals of a key": lambda conn, _: [goal.id for goal in linking.plan_cut(conn, CUSTOMER_KEY).kept][::-1],
    "goals to retry": lambda conn, ids: sorted(cli_goals._chosen(conn, ids, None, None)[1], reverse=True),
}
CUSTOMER_KEY = Key("stripe:live:cus_1", "customer", "cus_1")


@pytest.mark.parametrize("name", OF_GOALS)
def test_goals_of_many_events_take_as_many_statements_as_those_of_few(store, rows, name):
    provenance = json.dumps({"visitor": "v1", "by": "customer", "key": CUSTOMER_KEY.text})
    made = []

    def add(number):
        for _ in range(number):
            made.insert(0, rows.goal(state="delivered", provenance=provenance))
            rows.attempt(made[0])
            with store.write() as conn:
                conn.execute(schema.goal_keys.insert().values(goal_id=made[0], key=CUSTOMER_KEY.text))
        with overheard(store) as said, store.read() as conn:
            assert OF_GOALS[name](conn, made) == made
        return len(said)

    assert add(2) == add(14) <= 12


def test_why_visitors_are_not_proved_yet_is_asked_in_one_statement(store, rows):
    def add(first, number):
        made = [rows.goal(state="parked", visitor=None, to_prove=f"v{first + n}") for n in range(number)]
        with store.write() as conn:
            for n in range(number):
                asked = {"destination": "default", "visitor": f"v{first + n}", "made_at_ms": 1, "again_at_ms": 1}
                conn.execute(schema.visitor_proofs.insert().values(**asked, message=f"no answer {first + n}"))
        with overheard(store) as said, store.read() as conn:
            assert [detail.trouble for detail in queries.show_goals(conn, made)] == [
                f"no answer {first + n}" for n in range(number)
            ]
            heard = list(said)
            assert not [walk for statement, values in heard if (walk := _walks(conn, statement, values))]
        return len(heard)

    assert add(0, 2) == add(2, 16)


def _hidden(conn, _):
    goals = queries.list_goals(conn, queries.GoalFilter())
    printing.hide_goals(Screen(sys.stdout, sys.stderr), conn, goals, {"stripe": loading.from_preset("stripe", "", {})})
    return [goal.event_id for goal in goals]


# Each with the ids of its events, in this order.
OF_EVENTS = {
    "events": lambda conn, ids: [detail.line.id for detail in queries.show_events(conn, ids, whole=True)],
    "the timeline of a key": lambda conn, _: [detail.line.id for detail in why.look_up(conn, "cus_1", {}).timeline],
    "secrets of goals": _hidden,
}


@pytest.mark.parametrize("name", OF_EVENTS)
def test_whole_events_take_as_many_statements_for_many_as_for_few(store, rows, name):
    with store.write() as conn:
        row = {"key": CUSTOMER_KEY.text, "kind": "customer", "ref": "cus_1"}
        conn.execute(schema.link_keys.insert().values(**row, created_at_ms=1, used_at_ms=1, uses=1))
    made = []

    def add(number):
        for _ in range(number):
            made.insert(0, rows.routed(f"evt_{len(made)}"))
            rows.goal(made[0])
            with store.write() as conn:
                values = {"key": CUSTOMER_KEY.text, "event_id": made[0], "element": 0}
                conn.execute(schema.link_events.insert().values(**values))
        with overheard(store) as said, store.read() as conn:
            assert OF_EVENTS[name](conn, made) == made
        return len(said)

    assert add(2) == add(queries.WHOLE_AT_ONCE - 2) <= 12


def test_few_bodies_are_read_at_a_time(store, rows):
    ids = [rows.event(f"evt_{n}", body=b"%d" % n) for n in range(queries.WHOLE_AT_ONCE + 2)]
    with overheard(store) as said, store.read() as conn:
        found = queries.show_events(conn, ids, whole=True)
        assert next(found).event.body == b"0"
        assert len(said[0][1]) == queries.WHOLE_AT_ONCE
        before = len(said)
        assert [int(detail.event.body) for detail in found] == list(range(1, len(ids)))
        assert len(said) == 2 * before


@pytest.mark.parametrize("statement", ["_OLDEST", "_NEWEST"])
def test_whose_turn_it_is_is_found_without_reading_all_that_waits(postgres_store, statement):
    bench_claims._fill(postgres_store, 1, 400)
    asked = f"EXPLAIN {render(getattr(delivery_statements, statement), 'postgresql')}"
    with postgres_store.write() as conn:
        conn.exec_driver_sql("UPDATE goals SET state = 'delivered' WHERE id <= 1000000100")
        lines = explained(conn, asked, ("bench", NOW_MS, NOW_MS, NOW_MS, NOW_MS))
    candidates = [line for line in lines if " on goals  (" in line]
    assert "using ix_goals_destination_state_due_at_ms_id" in candidates[0], lines
