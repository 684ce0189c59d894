"""Transactions of the store behave alike on both databases."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import insert, select, text

from bridge.errors import SchemaError, StoreUnavailable
from bridge.store import clock as store_clock
from bridge.store import schema


def put(conn, name, value="1"):
    conn.execute(insert(schema.facts).values(name=name, value=value))


def names(store):
    with store.read() as conn:
        return sorted(conn.execute(select(schema.facts.c.name)).scalars())


def test_a_write_is_seen_by_the_next_read(store):
    with store.write() as conn:
        put(conn, "a")
    assert names(store) == ["a"]


def test_a_write_that_raises_leaves_nothing(store):
    with pytest.raises(ZeroDivisionError), store.write() as conn:
        put(conn, "a")
        raise ZeroDivisionError
    assert names(store) == []


def test_a_read_stands_on_one_snapshot(store):
    with store.read() as conn:
        assert conn.execute(select(schema.facts)).all() == []
        with store.write() as other:
            put(other, "a")
        assert conn.execute(select(schema.facts)).all() == []


def test_the_databases_clock_is_the_tests_clock(store, clock):
    with store.read() as conn:
        assert store_clock.read_ms(conn) == clock.now_ms
    clock.advance(5_000)
    with store.read() as conn:
        assert store_clock.read_ms(conn) == clock.now_ms


def test_many_threads_that_write_at_once_all_get_their_turn(store):
    def work(number):
        for step in range(10):
            with store.write() as conn:
                put(conn, f"{number}:{step}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(store)) == 80


def test_a_missing_table_says_to_migrate(store):
    with pytest.raises(SchemaError, match="python -m bridge migrate"), store.read() as conn:
        conn.execute(text("select * from nothing_of_this_name"))


def test_a_database_that_cannot_be_reached_is_unavailable(tmp_path):
    from bridge import store as bridge_store

    for url in (f"sqlite:///{tmp_path}/no/such/folder/x.db", f"postgresql://nobody@/x?host={tmp_path}"):
        with pytest.raises(StoreUnavailable), bridge_store.open(url).read():
            pass
