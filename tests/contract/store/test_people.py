"""What people look up and take away by hand (`threads`, `forgetting`, `durability_doubt`), on both databases."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select, update

from bridge.identity.choice import Observation
from bridge.model import Key, NamedVisitor
from bridge.store import schema
from bridge.store.clock import read_ms
from bridge.store.database import sqlite
from bridge.store.delivery import claims
from bridge.store.links import learning as links
from bridge.store.operator import actions, forgetting, status, threads

ANN, BOB = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


def key(name, kind="charge"):
    return Key(f"stripe:live:{name}", kind, name)


@pytest.fixture
def teach(store):
    """Learn from an event: its keys, and perhaps whose they are."""

    def learn(event_id, *keys, visitor=None, at_ms=1_000):
        named = None if visitor is None else NamedVisitor(visitor, "data.object.metadata.datafast_visitor_id")
        learning = Observation(keys, at_ms, f"a.b evt_{event_id}", event_id, named=named)
        store.run(lambda conn: links.learn(conn, [learning], read_ms(conn)))

    return learn


@pytest.fixture
def purchase(teach, rows):
    """Ann's session names her; her charge and her dispute only hang on it. Bob has one of his own."""
    ids = [rows.routed(f"evt_{n}", body=b'{"email": "ann\\u0040example.com"}' if n == 2 else b"{}") for n in range(5)]
    teach(ids[0], key("cs_1", "session"), key("pi_1", "payment_intent"), key("cus_1", "customer"), visitor=ANN)
    teach(ids[1], key("ch_1"), key("pi_1", "payment_intent"))
    teach(ids[2], key("dp_1", "dispute"), key("ch_1"))
    teach(ids[3], key("cs_2", "session"), key("cus_2", "customer"), visitor=BOB)
    return ids


def names(thread):
    return {line.ref for line in thread.keys}


@pytest.mark.parametrize("name", ["ch_1", "stripe:live:dp_1", "cus_1"])
def test_a_key_shows_all_of_its_purchase_and_nothing_of_another(store, purchase, name):
    with store.read() as conn:
        thread = threads.linked_to_keys(conn, threads.named(conn, name))
    assert {"cs_1", "pi_1", "ch_1", "dp_1"} <= names(thread)
    assert not {"cs_2", "cus_2"} & names(thread)
    assert {item.visitor for item in thread.evidence} == {ANN}
    assert sorted(thread.events) == purchase[:3]


def test_a_visitor_shows_the_purchases_in_which_it_was_named(store, purchase):
    with store.read() as conn:
        assert {"cs_1", "ch_1", "dp_1"} <= names(threads.linked_to_visitor(conn, ANN))
        assert threads.linked_to_visitor(conn, ANN[:-1] + "c") == threads.Thread()
        assert threads.named(conn, "ch_nobody") == []


def test_a_forgotten_key_takes_apart_what_it_joined(store, purchase):
    store.run(lambda conn: forgetting.forget_key(conn, "stripe:live:ch_1"))
    with store.read() as conn:
        assert threads.named(conn, "ch_1") == []
        assert names(threads.linked_to_keys(conn, threads.named(conn, "dp_1"))) == {"dp_1"}
        assert {"cs_1", "pi_1"} <= names(threads.linked_to_keys(conn, threads.named(conn, "pi_1")))


def test_a_person_is_all_that_hangs_together_and_nobody_else(store, purchase, rows):
    goal = rows.goal(purchase[2], visitor=ANN)
    rows.goal(purchase[3], visitor=BOB)
    with store.read() as conn:
        by_visitor = forgetting.find_person(conn, visitor=ANN)
        by_customer = forgetting.find_person(conn, visitor=None, people=["cus_1"])
        by_seed = forgetting.find_person(conn, visitor=None, seeds=[purchase[2]])
    assert by_visitor == by_customer == by_seed
    assert by_visitor.events == set(purchase[:3])
    assert (by_visitor.visitors, by_visitor.goals) == ({ANN}, {goal})


@pytest.mark.parametrize("stopped", [False, True])
def test_a_key_that_was_stopped_leads_to_nobody_elses_purchases(store, teach, rows, stopped):
    ids = [rows.routed(f"evt_{n}") for n in range(2)]
    shared = key("info", "user")
    teach(ids[0], key("cs_1", "session"), shared, visitor=ANN)
    teach(ids[1], key("cs_2", "session"), shared, visitor=BOB)
    if stopped:
        with store.write() as conn:
            row = schema.link_keys.c.key == "stripe:live:info"
            conn.execute(update(schema.link_keys).where(row).values(stopped_at_ms=1, stopped_reason="shared"))
    with store.read() as conn:
        of_ann, of_key = threads.linked_to_visitor(conn, ANN), threads.linked_to_keys(conn, threads.named(conn, "info"))
        person = forgetting.find_person(conn, visitor=ANN)
    assert "info" in names(of_ann)
    assert ("cs_2" in names(of_ann), BOB in {item.visitor for item in of_ann.evidence}) == (not stopped,) * 2
    assert sorted(of_ann.events) == (ids[:1] if stopped else ids)
    assert ("info" in {line.ref for line in of_ann.leading}) == (not stopped)
    assert (person.visitors, person.events) == (({ANN}, {ids[0]}) if stopped else ({ANN, BOB}, set(ids)))
    assert sorted(of_key.events) == ids, "what is asked for by its name is shown"


@pytest.mark.parametrize("text_", ["ann@example.com", "ANN@example.com"])
def test_an_address_is_found_in_bodies_however_it_is_written(store, purchase, text_):
    assert forgetting.search(store, forgetting.word_matcher([text_]))[0] == {purchase[2]}
    assert forgetting.search(store, forgetting.word_matcher(["nobody@example.com"]))[0] == set()


def test_nothing_that_tells_of_a_person_is_left_in_any_row(store, purchase, rows):
    rows.goal(purchase[0], visitor=ANN, once_key="stripe:live:purchase:cs_1", message=f"no event of {ANN}")
    sent = rows.goal(purchase[1], "delivered", visitor=ANN, provenance=json.dumps({"visitor": ANN}), once_key="k-pi_1")
    store.run(lambda conn: forgetting.remove(conn, forgetting.find_person(conn, visitor=ANN)))
    with store.read() as conn:
        dump = "\n".join(str(row) for table in schema.metadata.sorted_tables for row in conn.execute(select(table)))
        states = dict(conn.execute(select(schema.goals.c.id, schema.goals.c.state)).all())
        kept = conn.execute(select(schema.events.c.dedupe_key).where(schema.events.c.id == purchase[0])).scalar()
    assert [name for name in (ANN, "cs_1", "pi_1", "ch_1", "dp_1", "cus_1") if name in dump] == []
    assert BOB in dump
    assert states[sent] == "delivered"
    assert set(states.values()) == {"delivered", "cancelled"}
    assert kept  # or the provider could bring everything back


def test_a_user_id_that_datafast_was_asked_about_is_forgotten_too_and_the_order_that_an_event_is_called_by(
    store, purchase, rows
):
    user = "00000000-0000-4000-8000-0000000000ee"
    other = "00000000-0000-4000-8000-0000000000ff"
    trace = json.dumps({"elements": [{"candidates": [{"path": "client_reference_id", "visitor": user}]}]})
    waiting = rows.goal(purchase[1], "parked", to_prove=other)
    sent = rows.goal(purchase[0], "delivered", visitor=ANN)
    with store.write() as conn:
        events = schema.events
        conn.execute(events.update().where(events.c.id == purchase[0]).values(trace=trace, provider_event_id="ch_1"))
        conn.execute(events.update().where(events.c.id == purchase[3]).values(provider_event_id="cs_1"))
        for visitor in (user, other, BOB):
            known = {"destination": "default", "visitor": visitor, "known": False, "made_at_ms": 1, "again_at_ms": 1}
            conn.execute(schema.visitor_proofs.insert().values(**known))
    store.run(lambda conn: forgetting.remove(conn, forgetting.find_person(conn, visitor=ANN)))
    with store.read() as conn:
        assert conn.execute(select(schema.visitor_proofs.c.visitor)).scalars().all() == [BOB]
        names = conn.execute(select(schema.events.c.provider_event_id).order_by(schema.events.c.id)).scalars().all()
        told = dict(conn.execute(select(schema.events.c.id, schema.events.c.reason)).all())
    assert (names[0], names[1], names[3]) == (None, "evt_1", "cs_1")  # Bob's is not hers
    assert told[purchase[0]].startswith("forgotten at a person's request on 20")
    assert told[purchase[3]] is None
    for goal in (waiting, sent):
        assert store.run(lambda conn, goal=goal: actions.retry(conn, goal, again=True)) == ("no_visitor", goal)


def test_scrubbing_leaves_the_database_as_it_was(store, purchase):
    assert forgetting.scrub(store) is True
    with store.read() as conn:
        assert threads.named(conn, "ch_1")


def test_a_file_that_is_large_or_in_use_is_not_scrubbed(sqlite_store):
    assert sqlite.overwrite_freed(sqlite_store.engine, bytes_max=0) is False
    with sqlite_store.write():
        assert forgetting.scrub(sqlite_store) is False


def test_a_database_that_does_not_wait_for_the_disk_is_told(store):
    if store.dialect == "sqlite":
        with store.read() as conn:
            assert status.durability_doubt(conn) is None
        raw = store.engine.raw_connection()
        raw.cursor().execute("PRAGMA synchronous = OFF")
        raw.close()
        with store.read() as conn:
            assert "not FULL" in status.durability_doubt(conn)
    else:
        with store.read() as conn:
            assert "fsync = off" in status.durability_doubt(conn)  # the tests' server runs so on purpose


def test_a_person_who_asks_takes_a_turn_in_the_pace_and_waits_for_it(store):
    with store.write() as conn:
        assert claims.reserve(conn, "token", 58) == 0  # nobody has ever used this token
        claims.register(conn, destination="default", token_hash="token")
    waits = [store.run(lambda conn: claims.reserve(conn, "token", 58)) for _ in range(3)]
    assert waits[:2] == [0, 0]
    assert 900 < waits[2] < 1_100


def test_of_very_many_events_the_first_and_the_last_tell_the_keys(store, teach, monkeypatch):
    monkeypatch.setattr(threads, "_ENDS", 2)
    customer = Key("stripe:live:cus_1", "customer", "cus_1")
    for number in range(1, 8):
        teach(number, customer, key(f"ch_{number}"))
    with store.read() as conn:
        named = threads.named(conn, "cus_1")
        whole, ends = (
            {one.ref for one in threads.linked_to_keys(conn, named, ends=ends).keys} - {"cus_1"}
            for ends in (False, True)
        )
    assert whole == {f"ch_{number}" for number in range(1, 8)}
    assert ends == {"ch_1", "ch_2", "ch_6", "ch_7"}
