"""What is remembered: threads, customers, the guard, visitors nobody knows; on both databases, by an index."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from identity_kit import ALICE, BOB, CAROL, DAY
from sqlalchemy import delete, select
from statements_kit import overheard, plan

from bridge import store as bridge_store
from bridge.identity.choice import Observation
from bridge.identity.threads import components
from bridge.model import Key, NamedVisitor
from bridge.store import schema
from bridge.store.goals import statements as goal_statements
from bridge.store.links import learning, statements
from bridge.store.upkeep import retention


def key(name):
    """`cus1` is a customer, anything else a strong key."""
    return Key(f"s:live:{name}", "customer" if name.startswith("cus") else "order", name)


def lesson(names, visitor=None, *, at_ms=0, event_id=None, sure=True, number=[0]):  # noqa: B006
    number[0] += 1
    own_id = number[0] if event_id is None else event_id
    named = NamedVisitor(visitor, "path", sure) if visitor else None
    return Observation(tuple(map(key, names.split())), at_ms or own_id, f"type evt_{own_id}", own_id, 0, named)


def learn(store, *lessons, now=1_000):
    with store.write() as conn:
        return learning.learn(conn, lessons, now)


def who(store, names, *, at_ms=10**9, weak=True, **more):
    keys = tuple(map(key, names.split()))
    with store.read() as conn:
        found = learning.recall(conn, keys).find(keys, at_ms, weak=weak, **more)
    return found and found.visitor


def threads(store):
    with store.read() as conn:
        return {row.ref: row.thread for row in conn.execute(select(schema.link_keys))}


# ------------------------------------------------------------------------------------------------------- threads


def test_strong_keys_join_transitively(store):
    learn(store, lesson("session subscription", ALICE))
    learn(store, lesson("subscription invoice"))
    learn(store, lesson("intent charge"))
    assert who(store, "charge") is None
    learn(store, lesson("invoice intent"))
    assert who(store, "charge") == ALICE
    assert len(set(threads(store).values())) == 1


def test_a_customer_joins_nothing_and_answers_only_as_the_weaker_one(store):
    learn(store, lesson("session1 cus1", ALICE), lesson("session2 cus1", BOB))
    assert who(store, "session1 cus1") == ALICE
    assert who(store, "session2 cus1") == BOB
    assert who(store, "other cus1") == BOB
    assert who(store, "other cus1", weak=False) is None
    assert who(store, "other cus1", first=True) == ALICE


def test_a_customer_knows_the_visitors_of_its_threads_whichever_came_first(store):
    learn(store, lesson("invoice subscription cus1"))
    learn(store, lesson("session subscription", ALICE))
    learn(store, lesson("session9 subscription9", BOB))
    learn(store, lesson("invoice9 subscription9 cus9"))
    assert (who(store, "cus1"), who(store, "cus9")) == (ALICE, BOB)


def test_a_merge_of_old_threads_tells_whom_each_of_them_learned(store):
    learn(store, lesson("a1 a2", ALICE), lesson("b1 b2"))
    links = learn(store, lesson("a2 b2"))
    assert {links.threads[key(name).text] for name in ("a2", "b2")} == links.gained
    assert learn(store, lesson("a1 a2")).gained == set()


def test_two_visitors_of_one_thread_are_told_apart_by_time(store):
    learn(store, lesson("subscription", ALICE, at_ms=100), lesson("subscription", BOB, at_ms=200))
    assert [who(store, "subscription", at_ms=at) for at in (50, 150, 250)] == [ALICE, ALICE, BOB]


def test_a_sure_visitor_goes_before_a_bare_client_reference_id(store):
    learn(store, lesson("session subscription", BOB, at_ms=200, sure=False), lesson("subscription", ALICE, at_ms=100))
    assert who(store, "session") == ALICE


def test_the_elements_of_one_event_are_not_joined(store):
    one = lesson("a1 a2", ALICE)
    other = Observation((key("b1"), key("b2")), 1, one.event, one.event_id, 1)
    learn(store, one, other)
    assert who(store, "b1") is None


def test_a_provenance_names_the_goals_own_key_and_the_event_that_named_the_visitor(store):
    learn(store, lesson("session intent", ALICE, at_ms=1_000, event_id=7), lesson("intent charge"))
    keys = (key("charge"), key("intent"))
    with store.read() as conn:
        found = learning.recall(conn, keys).find(keys, 1_000 + DAY, weak=False)
    assert (found.by, found.ref, found.event, found.event_id) == ("thread", "intent", "type evt_7", 7)
    assert found.before_ms == DAY
    with store.read() as conn:
        found = learning.recall(conn, keys[:1]).find(keys[:1], 1_000, weak=False)
    assert (found.ref, found.via) == ("charge", "s:live:intent")


# ------------------------------------------------------------------------------------------------------ the guard


def test_a_key_that_would_join_a_third_visitor_stops_and_the_rest_comes_apart(store):
    for number, visitor in enumerate((ALICE, BOB)):
        learn(store, lesson(f"session{number} product", visitor))
    links = learn(store, lesson("session2 product", CAROL))
    assert list(links.stopped) == ["s:live:product"]
    assert "third visitor" in links.stopped["s:live:product"]
    assert [who(store, f"session{number}") for number in range(3)] == [ALICE, BOB, CAROL]
    assert who(store, "product") is None
    assert learn(store, lesson("session3 product", "someone else")).stopped == {}
    assert who(store, "session3") == "someone else"


@pytest.fixture(scope="module")
def memory_store():
    made = bridge_store.open("sqlite://")
    with made.write() as conn:
        schema.metadata.create_all(conn)
    yield made
    made.close()


def emptied(store):
    with store.write() as conn:
        for table in (schema.link_keys, schema.link_visitors, schema.link_events):
            conn.execute(delete(table))
    return store


def in_batches(store, lessons, sizes):
    left = list(lessons)
    while left:
        size = sizes[len(left) % len(sizes)]
        learn(store, *left[:size])
        left = left[size:]


SOLD = [
    lesson(f"{names}", visitor)
    for number, visitor in enumerate((ALICE, BOB, CAROL, "d" * 8), start=1)
    for names, visitor in (
        (f"session{number} intent{number}", visitor),
        (f"intent{number} charge{number}", None),
        (f"charge{number} product", None),
    )
]
SIZES = st.lists(st.integers(1, 6), min_size=3, max_size=3)
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(lessons=st.permutations(SOLD), sizes=SIZES)
def test_in_any_order_the_guard_finds_the_product_and_nobody_stays_mixed(memory_store, lessons, sizes):
    in_batches(emptied(memory_store), lessons, sizes)
    with memory_store.read() as conn:
        stopped = conn.execute(select(schema.link_keys.c.ref).where(schema.link_keys.c.stopped_at_ms.is_not(None)))
        assert stopped.scalars().all() == ["product"]
    for number, visitor in enumerate((ALICE, BOB, CAROL, "d" * 8), start=1):
        assert who(memory_store, f"charge{number}") == visitor


# ------------------------------------------------------------------------------------------------- against a model

NAMES = st.lists(st.sampled_from([*"abdefgh", "cus1", "cus2"]), min_size=1, max_size=4, unique=True)
ONE = st.builds(
    lambda names, visitor, at: (" ".join(names), visitor, at),
    NAMES,
    st.sampled_from([None, None, ALICE, BOB]),
    st.integers(1, 30),
)


@QUICK
@given(told=st.lists(ONE, min_size=1, max_size=9), sizes=SIZES, rng=st.randoms())
def test_in_any_order_and_any_batches_threads_and_answers_are_the_same(memory_store, told, sizes, rng):
    lessons = [
        lesson(names, visitor, at_ms=at, event_id=number) for number, (names, visitor, at) in enumerate(told, start=1)
    ]
    expected = _model(lessons)
    mixed = lessons * rng.choice((1, 2))
    rng.shuffle(mixed)
    in_batches(emptied(memory_store), mixed, sizes)
    found = threads(memory_store)
    strong = sorted(name for name in found if not name.startswith("cus"))
    for one in strong:
        for other in strong:
            assert (found[one] == found[other]) == (expected[key(one).text] == expected[key(other).text])
    for name in strong:
        visitors = {
            item.named.visitor
            for item in lessons
            if item.named
            and any(
                strong_key.strong and expected[strong_key.text] == expected[key(name).text] for strong_key in item.keys
            )
        }
        answers = {who(memory_store, name, at_ms=at, weak=False) for at in range(0, 32, 5)}
        assert answers - {None} <= visitors
        assert bool(visitors) == (None not in answers)


def _model(lessons):
    edges = [[item.text for item in one.keys if item.strong] for one in lessons]
    return components(edges, {name for edge in edges for name in edge})


# ----------------------------------------------------------------------------------------------------------- size


def test_a_thread_without_end_is_cut_though_nobody_was_named(memory_store):
    emptied(memory_store)
    for start in range(0, 5_200, 52):
        learn(memory_store, *(lesson(f"order{number} product") for number in range(start, start + 52)))
    with memory_store.read() as conn:
        stopped = conn.execute(select(schema.link_keys).where(schema.link_keys.c.stopped_at_ms.is_not(None))).all()
    assert [row.ref for row in stopped] == ["product"]
    assert "holds more than" in stopped[0].stopped_reason
    assert len(set(threads(memory_store).values()) - {None}) == 5_200


# ------------------------------------------------------------------------------------------------------------ age

YEAR = 400 * DAY


def aged(store, clock, ms):
    clock.advance(ms)
    while store.run(lambda conn: retention.forget_links(conn, 2, clock.now_ms)):
        pass


def test_links_go_after_400_days_without_use(store, clock):
    learn(store, lesson("a b cus1", ALICE), now=clock.now_ms)
    aged(store, clock, YEAR - 1)
    assert who(store, "a") == ALICE
    aged(store, clock, 1)
    assert (threads(store), who(store, "a"), who(store, "cus1")) == ({}, None, None)
    with store.read() as conn:
        assert conn.execute(select(schema.link_events)).all() == []


def test_a_thread_in_use_keeps_its_visitor_and_loses_its_old_keys(store, clock):
    learn(store, lesson("session subscription", ALICE), lesson("subscription zinvoice1"), now=clock.now_ms)
    clock.advance(YEAR - DAY)
    learn(store, lesson("subscription invoice2"), now=clock.now_ms)
    aged(store, clock, DAY)
    assert set(threads(store)) == {"session", "subscription", "invoice2"}
    assert who(store, "invoice2") == ALICE
    aged(store, clock, YEAR)
    assert threads(store) == {}


# ------------------------------------------------------------------------------------------------ unknown visitors


def named(visitor, *, sure=True):
    return NamedVisitor(visitor, "path", sure)


def test_a_visitor_nobody_knows_is_passed_over_there_for_a_while(store, clock):
    with store.write() as conn:
        goal_statements.note_unknown(conn, "default", ALICE)
    clock.advance(DAY - 1)
    with store.read() as conn:
        asked = goal_statements.strangers(conn, [named(ALICE), named(BOB)], clock.now_ms)
        assert asked.passed_over("default", named(ALICE))
        assert not asked.passed_over("default", named(BOB))
        assert not asked.passed_over("other", named(ALICE))
        later = goal_statements.strangers(conn, [named(ALICE)], clock.now_ms + 1)
        assert not later.passed_over("default", named(ALICE))
        assert later.passed_over("default", named(ALICE, sure=False))
    with store.write() as conn:
        goal_statements.forget_unknown(conn, "default", ALICE)
        assert not goal_statements.strangers(conn, [named(ALICE)], clock.now_ms).passed_over(
            "default", named(ALICE, sure=False)
        )


# -------------------------------------------------------------------------------------------------- by an index


def test_every_look_up_goes_by_an_index(store):
    """A table that is read from end to end would make a million links slow."""
    keys = tuple(map(key, ("a", "b", "cus1")))
    learn(store, lesson("a b cus1", ALICE), lesson("b d", BOB))
    with overheard(store) as said, store.write() as conn:
        learning.learn(conn, [lesson("a x", CAROL), lesson("x d"), lesson("x cus1")], 2_000)
        learning.recall(conn, keys).find(keys, 5, weak=True)
        statements.customers_of(conn, ["s:live:a"])
        goal_statements.strangers(conn, [NamedVisitor(ALICE, "p", sure=False, borrowed=True)], 5)
        goal_statements.linked_to(conn, ["s:live:a"], ["s:live:cus1"])
        links = learning.recall(conn, keys[1:2])
        learning.recall_customers(conn, links, keys[1:2])
    asked = [(statement, values) for statement, values in said if "link_" in statement or "unknown" in statement]
    assert len(asked) > 15
    for statement, values in asked:
        with store.write() as conn:
            assert not _scans(plan(conn, statement, values)), statement


def test_every_look_up_of_a_person_goes_by_an_index_and_walks_over_none(store):
    user, mail = (Key(f"{kind}:default:live:{kind}1", kind, f"{kind}1") for kind in ("user", "email"))

    def of_person(number, *keys, visitor=None):
        own = lesson("", visitor, event_id=number)
        return replace(own, keys=keys, sender="shop")

    learn(store, of_person(900, user, mail, visitor=ALICE), of_person(901, user, key("cus1"), key("o1")))
    with overheard(store) as said, store.write() as conn:
        for number in range(2, 6):  # at the fourth customer it stops
            learning.learn(conn, [of_person(900 + number, user, mail, key(f"cus{number}"))], 2_000)
        for keys in ((user,), (mail,), (key("cus1"),), (key("o1"),)):
            links = learning.recall(conn, keys)
            learning.recall_customers(conn, links, keys)
            links.find(keys, 5, weak=True)
        learning.related(conn, [user.text])
    asked = [(statement, values) for statement, values in said if "link_" in statement]
    assert any("stopped_reason" in statement for statement, _ in asked)
    assert sum("'email'" in statement for statement, _ in asked) > 4
    for statement, values in asked:
        with store.write() as conn:
            lines = plan(conn, statement, values)
            assert not _scans(lines), statement
            assert not [line for line in lines if line.startswith("SCAN ") and "CONSTANT" not in line], statement


def _scans(lines):
    """Does the database read a whole table for this?"""
    return [
        line
        for line in lines
        if "Seq Scan" in line or (line.startswith("SCAN ") and "USING" not in line and "CONSTANT" not in line)
    ]
