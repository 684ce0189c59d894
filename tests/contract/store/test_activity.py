"""The list of what happened: any filter finds what it is to find, and walks over no whole table."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import delete, insert, update
from statements_kit import overheard, plan

from bridge.store import schema
from bridge.store.inbox import counters
from bridge.store.operator import activity
from bridge.store.operator.activity import ActivityFilter

NOW_MS = 1_790_000_000_000
BIG = ("events", "goals", "attempts")


@pytest.fixture
def listed(store, rows):
    """Some of everything: events of three sources, a goal of every third, two attempts of each goal."""
    for n in range(30):
        source = ("stripe", "shop", "ghost")[n % 3] if n < 27 else "stripe"
        event_id = rows.routed(f"evt_{n}", verdict="matched" if n % 3 == 0 else "unmatched", source=source, test=n == 4)
        if n % 3 == 0:
            state = "held" if n == 3 else "delivered"
            goal = rows.goal(event_id, state, name=f"goal{n % 2}", visitor=f"v{n}" if n % 2 else None, source=source)
            rows.attempt(goal, "rejected")
            rows.attempt(goal, "delivered")
    rows.event("evt_broken", quarantine="the body is no JSON 50%_")
    return rows


def walked(store, kind, wanted, **options):
    """Every row that a filter lets through, page after page."""
    found = []
    while True:
        with store.read() as conn:
            page = activity.page(conn, kind, wanted, **options)
        found += page.rows
        if page.reached is None:
            return found
        wanted = ActivityFilter(**{**fields_of(wanted), "before": page.reached})


def fields_of(wanted):
    return {name: getattr(wanted, name) for name in ActivityFilter.__slots__}


EXPECTED = {
    "source": lambda event, _goals, value: event.source == value,
    "test": lambda event, _goals, value: bool(event.test) == value,
    "verdict": lambda event, _goals, value: event.verdict == value,
    "state": lambda event, _goals, value: event.state == value,
    "reason": lambda event, _goals, value: value.lower() in (event.reason or "").lower(),
    "name": lambda _event, goals, value: any(goal.name == value for goal in goals),
    "visitor": lambda _event, goals, value: any((goal.visitor is not None) == value for goal in goals),
    "since_ms": lambda event, _goals, value: event.received_at_ms >= value,
    "until_ms": lambda event, _goals, value: event.received_at_ms < value,
}
CHOICES = {
    "source": ("stripe", "ghost", "nobody"),
    "test": (True, False),
    "verdict": ("matched", "ignored"),
    "state": ("quarantined", "routed"),
    "reason": ("JSON 50%_", "%"),
    "name": ("goal1", "goal9"),
    "visitor": (True, False),
}
PAIRS = [
    dict(pair)
    for one, other in itertools.combinations(CHOICES, 2)
    for pair in itertools.product(
        ((one, value) for value in CHOICES[one]), ((other, value) for value in CHOICES[other])
    )
]


def test_any_two_filters_find_what_both_let_through(store, listed):
    of_event = {}
    for goal in listed.all(schema.goals):
        of_event.setdefault(goal.event_id, []).append(goal)
    every = listed.all(schema.events)
    for given in [{}, *PAIRS]:
        expected = [
            event.id
            for event in reversed(every)
            if all(EXPECTED[name](event, of_event.get(event.id, ()), value) for name, value in given.items())
        ]
        assert [line.id for line in walked(store, "events", ActivityFilter(**given), size=4)] == expected, given


def test_goals_and_deliveries_are_found_by_their_own(store, listed):
    goals = list(reversed(listed.all(schema.goals)))
    for given, expected in (
        ({"state": "held"}, [goal for goal in goals if goal.state == "held"]),
        (
            {"visitor": False, "name": "goal0"},
            [goal for goal in goals if goal.visitor is None and goal.name == "goal0"],
        ),
        ({"destination": "elsewhere"}, []),
        ({"source": "stripe", "rule_id": "r"}, goals),
    ):
        assert [line.id for line in walked(store, "goals", ActivityFilter(**given))] == [
            goal.id for goal in expected
        ], given
    rejected = walked(store, "deliveries", ActivityFilter(state="rejected", name="goal1"), size=2)
    assert {one.attempt.outcome for one in rejected} == {"rejected"}
    assert [one.goal.id for one in rejected] == [goal.id for goal in goals if goal.name == "goal1"]


def test_a_page_stays_the_same_while_rows_arrive(store, listed):
    with store.read() as conn:
        first = activity.page(conn, "events", ActivityFilter(), 5)
    below = ActivityFilter(before=first.reached)
    with store.read() as conn:
        before = activity.page(conn, "events", below, 5)
    new = [listed.event(f"evt_new_{n}") for n in range(3)]
    with store.read() as conn:
        assert activity.page(conn, "events", below, 5) == before
        assert activity.newer(conn, "events", ActivityFilter(), first.rows[0].id) == 3
        assert activity.newer(conn, "events", ActivityFilter(source="nobody"), first.rows[0].id) == 0
        above = activity.page(conn, "events", ActivityFilter(after=first.rows[-1].id), 5)
    assert [line.id for line in above.rows] == [new[0], *(line.id for line in first.rows[:4])]


def test_times_bound_the_list_exactly(store, listed, clock):
    clock.advance(1_000)
    since = clock.now_ms
    inside = [listed.event("evt_in_1"), listed.event("evt_in_2")]
    clock.advance(1_000)
    until = clock.now_ms
    listed.event("evt_late")
    found = walked(store, "events", ActivityFilter(since_ms=since, until_ms=until))
    assert [line.id for line in found] == inside[::-1]
    assert walked(store, "events", ActivityFilter(since_ms=until + 1)) == []
    assert walked(store, "events", ActivityFilter(until_ms=1)) == []


def many(store, number, first=10_000_000, **values):
    """So many events far above the others, made by one statement."""
    row = {
        "source": "shop", "provider": "generic", "type": "a", "test": False, "received_at_ms": NOW_MS, "headers": "{}",
        "query": "{}", "body": b"{}", "state": "routed", "verdict": "unmatched",
    } | values  # fmt: skip
    with store.write() as conn:
        conn.execute(
            insert(schema.events), [{**row, "id": first + n, "dedupe_key": f"many:{first + n}"} for n in range(number)]
        )


def test_what_is_rare_is_found_at_once_however_old_it_is(store, listed):
    many(store, 2_600)
    for given in ({"state": "quarantined"}, {"source": "ghost"}, {"verdict": "matched"}):
        with store.read() as conn:
            page = activity.page(conn, "events", ActivityFilter(**given), enough=lambda: True)
        assert page.rows
        assert page.reached is None, given


def test_what_no_index_knows_is_looked_for_in_parts(store, listed):
    many(store, 2_600)
    with store.read() as conn:
        page = activity.page(conn, "events", ActivityFilter(type="a.b"), enough=lambda: True)
        assert (page.rows, page.looked) == ((), 500)
        rest = activity.page(conn, "events", ActivityFilter(type="a.b", before=page.reached))
    assert len(rest.rows) == 31
    assert rest.looked < 4_000  # ten million numbers lie between them


def test_where_little_matches_few_statements_look_at_many_rows(store, rows):
    event_id = rows.routed()
    for number in range(20):
        rows.goal(event_id, id=10_000_000 + 900 * number)
    with overheard(store) as said, store.read() as conn:
        assert activity.page(conn, "goals", ActivityFilter(name="refund")).rows == ()
    assert sum("FROM goals" in statement for statement, _ in said) <= 18  # two for each step, and some to begin


def test_a_page_looks_at_no_more_than_so_many(store, listed, monkeypatch):
    many(store, 2_600)
    monkeypatch.setattr(activity, "LOOKED_MAX", 1_500)
    with store.read() as conn:
        page = activity.page(conn, "events", ActivityFilter(type="a.b"))
        counted = activity.count(conn, "events", ActivityFilter(type="a"))
    assert (page.rows, page.looked) == ((), 1_500)
    assert (counted.number, counted.reached) == (1_500, page.reached)


def test_a_source_that_fell_silent_is_found_below_what_came_since(store, listed):
    many(store, 1_100, first=1_000_000, source="old", received_at_ms=1_000)
    many(store, 1_100)
    with store.write() as conn:
        conn.execute(delete(schema.source_counters))
        conn.execute(insert(schema.source_counters).values(source="old", last_accepted_at_ms=1_000))
    with store.read() as conn:
        page = activity.page(conn, "events", ActivityFilter(source="old"), enough=lambda: True)
    assert len(page.rows) == 50


def test_bodies_are_searched_in_parts_and_in_any_case(store, listed):
    many(store, 600, body=b'{"a": 1}')
    special = listed.event("evt_jane", body=b'{"mail": "JANE@example.com", "n": "\\u00fc"}')
    with store.write() as conn:
        conn.execute(update(schema.events).where(schema.events.c.id == 10_000_100).values(body=None))
    with store.read() as conn:
        for needle in (b"jane@example", b"\\u00fc"):
            page = activity.search_bodies(conn, ActivityFilter(), [b"nowhere", needle])
            assert [line.id for line in page.rows] == [special]
        assert activity.search_bodies(conn, ActivityFilter(source="shop"), [b"jane"]).rows == ()
        part = activity.search_bodies(conn, ActivityFilter(), [b"nowhere"], enough=lambda: True)
    assert (part.rows, part.looked) == ((), 250)


def test_no_filter_walks_over_a_table(store, listed):
    many(store, 1_200)
    for kind in ("events", "goals", "deliveries"):
        for given in (*PAIRS, {"since_ms": 1, "until_ms": NOW_MS}, {"destination": "default"}, {"rule_id": "r"}):
            if kind != "events" and "verdict" in given:
                continue
            with overheard(store) as said, store.read() as conn:
                activity.page(conn, kind, ActivityFilter(**given))
                activity.count(conn, kind, ActivityFilter(**given))
                activity.newer(conn, kind, ActivityFilter(**given), 1)
                heard = list(said)
            with store.read() as conn:
                for statement, values in heard:
                    assert not walk(conn, statement, values), (kind, given, statement)


def walk(conn, statement, values):
    """The lines of a plan that read a whole table, or sort what they read of an index."""
    lines = plan(conn, statement, values)
    if conn.dialect.name == "sqlite":
        return [line for line in lines if line.startswith(tuple(f"SCAN {name}" for name in BIG))]
    return [line for line in lines if any(f"Seq Scan on {name}" in line for name in BIG)]


def test_the_sources_are_known(store, listed):
    with store.write() as conn:
        counters.refused(conn, "wrong", count=1, in_row=1, reason="x")
    with store.read() as conn:
        assert {"stripe", "shop", "ghost", "wrong"} <= set(activity.sources(conn))
