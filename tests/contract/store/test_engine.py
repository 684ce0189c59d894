"""Transactions of the store behave alike on both databases."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from sqlalchemy import insert, make_url, select, text
from sqlalchemy.exc import IntegrityError

from bridge import store as bridge_store
from bridge.errors import SchemaError, StoreError, StoreUnavailable
from bridge.store import clock as store_clock
from bridge.store import schema
from bridge.store.database import postgresql
from bridge.store.database.begin import Gate
from bridge.store.database.driver import driver_of, render


def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


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
    def work(conn):
        put(conn, "a")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.run(work)
    assert names(store) == []


def test_a_read_stands_on_one_snapshot(store):
    with store.read() as conn:
        assert conn.execute(select(schema.facts)).all() == []
        writer = threading.Thread(target=lambda: store.run(lambda other: put(other, "a")))
        writer.start()
        writer.join()
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
    for url in (f"sqlite:///{tmp_path}/no/such/folder/x.db", f"postgresql://nobody@/x?host={tmp_path}"):
        with pytest.raises(StoreUnavailable), bridge_store.open(url).read():
            pass


def test_a_write_inside_a_write_is_a_fault_of_ours_and_not_a_wait(sqlite_store):
    with sqlite_store.write(), pytest.raises(RuntimeError, match="inside another"), sqlite_store.write():
        pass


def test_writers_come_in_the_order_they_asked_and_the_ack_path_before_them():
    gate, order = Gate(), []

    def work(name, **kw):
        with gate.turn(5, **kw):
            order.append(name)

    with gate.turn(5):
        threads = []
        for name, kw in (("first", {}), ("second", {}), ("ack", {"first": True})):
            threads.append(threading.Thread(target=work, args=(name,), kwargs=kw))
            threads[-1].start()
            until(lambda: len(gate._waiting) == len(threads))
    for thread in threads:
        thread.join()
    assert order == ["ack", "first", "second"]


def test_a_writer_waits_for_its_turn_only_so_long():
    gate = Gate()
    refused = []

    def work():
        with pytest.raises(StoreUnavailable, match="busy"), gate.turn(0.05):
            pass
        refused.append(True)

    with gate.turn(1):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert refused == [True]
    with gate.turn(1):
        pass


def test_a_transaction_that_meets_a_deadlock_is_run_again(postgres_store):
    for name in ("a", "b"):
        with postgres_store.write() as conn:
            put(conn, name, "0")
    both = threading.Barrier(2, timeout=5)
    tries = []

    def work(first, second):
        def cross(conn):
            tries.append(first)
            conn.execute(text("UPDATE facts SET value = value || :me WHERE name = :name"), {"me": first, "name": first})
            if len(tries) <= 2:
                both.wait()
            conn.execute(
                text("UPDATE facts SET value = value || :me WHERE name = :name"), {"me": first, "name": second}
            )

        postgres_store.run(cross)

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with postgres_store.read() as conn:
        values = conn.execute(select(schema.facts.c.value)).scalars().all()
    assert len(tries) >= 3  # on a busy machine both may have to yield, more than once
    assert sorted(map(sorted, values)) == [["0", "a", "b"], ["0", "a", "b"]]


def in_threads(*works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_connections_that_died_in_the_pool_are_replaced_unseen(postgres, postgres_store):
    everybody = threading.Barrier(3)

    def work():
        with postgres_store.read():
            everybody.wait(30)

    in_threads(work, work, work)
    for use in ("read", "write", "driver"):
        postgres.execute(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'datafast-bridge'",
        )
        with getattr(postgres_store, use)():
            pass


def test_a_connection_that_dies_within_a_transaction_is_unavailable_and_the_next_one_works(postgres, postgres_store):
    def die():
        postgres.execute(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'datafast-bridge'",
        )

    def in_the_middle(conn):
        put(conn, "a")
        die()
        put(conn, "b")

    def before_the_answer_to_commit(driver):
        driver.execute_raw(render("INSERT INTO facts VALUES (?, ?)", "postgresql"), ("c", "d"))
        die()

    with pytest.raises(StoreUnavailable):
        postgres_store.run(in_the_middle)
    with pytest.raises(StoreUnavailable):
        postgres_store.run_driver(before_the_answer_to_commit)
    assert names(postgres_store) == []


def test_a_full_pool_is_unavailable_in_time(postgres_url):
    made = bridge_store.open(postgres_url, pool_size=1)
    said = []

    def other():
        with pytest.raises(StoreUnavailable, match="did not end in time") as caught, made.read():
            pass
        said.append(caught.value)

    with made.read():
        in_threads(other)
    assert len(said) == 1
    made.close()


def test_a_process_opens_at_most_five_connections(postgres, postgres_url):
    made = bridge_store.open(postgres_url)

    def work():
        for _ in range(20):
            with made.read() as conn:
                conn.execute(text("SELECT pg_sleep(0.02)"))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        with made.read() as conn:
            most = max(
                most,
                conn.execute(text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")).scalar(),
            )
    assert 1 < most <= 5
    made.close()


def test_every_transaction_on_postgresql_has_its_time_limits(postgres_store):
    names_ = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    for use, idle in ((postgres_store.read, "30s"), (postgres_store.write, "10s")):
        with use() as conn:
            found = [conn.execute(text(f"SHOW {name}")).scalar() for name in names_]
        assert found == ["10s", "2s", idle]
    with postgres_store.engine.connect() as conn:  # nothing is left behind for whoever a pooler gives the connection
        conn.rollback()
        driver = conn.connection.driver_connection
        assert driver.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_server_that_answers_commits_early_is_made_to_wait_for_the_disk(postgres, postgres_url):
    name = make_url(postgres_url).database
    postgres.execute("postgres", f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    made = bridge_store.open(postgres_url)
    with made.write() as conn:
        assert conn.execute(text("SHOW synchronous_commit")).scalar() == "on"
    made.close()


def test_sqlite_uses_the_connection_that_was_used_last(sqlite_store):
    engine = sqlite_store.engine
    with engine.connect() as first, engine.connect() as second:
        used = [conn.connection.driver_connection for conn in (first, second)]
    with engine.connect() as again:  # the first was given back last
        assert again.connection.driver_connection is used[0]
    with engine.connect() as once_more:
        assert once_more.connection.driver_connection is used[0]


def test_sqlite_stands_as_the_design_says(sqlite_store):
    with sqlite_store.read() as conn:
        found = [
            conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_database_url_may_be_spelled_in_the_usual_ways(postgres_url, scheme):
    from bridge import settings

    url = settings.load({"DATABASE_URL": scheme + postgres_url[postgres_url.index(":") :]}).database_url
    made = bridge_store.open(url)
    assert names(made) == []
    made.close()


def test_a_socket_may_stand_in_the_query(postgres_url):
    url = make_url(postgres_url)
    made = bridge_store.open(f"postgresql://{url.username}@/{url.database}?host={url.host or url.query['host']}")
    assert names(made) == []
    made.close()


@pytest.mark.parametrize("url", ["secret-no-url", "postgresql://u:secret@[::1/x", "postgresql://u:secret@h:port/x"])
def test_a_url_that_is_none_is_one_sentence_without_the_url(url):
    with pytest.raises(StoreError, match=r"sqlite:///bridge\.db") as caught:
        bridge_store.open(url)
    assert "secret" not in str(caught.value)


def test_a_database_in_memory_can_be_used_by_many_threads():
    made = bridge_store.open("sqlite://")
    bridge_store.migrate(made)

    def work(name):
        with made.write() as conn:
            put(conn, name)

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(made) == ["0", "1", "2", "3", "4"]
    made.close()


def test_no_value_of_a_statement_stands_in_an_error(store):
    def twice(conn):
        put(conn, "a", "secret value")
        put(conn, "a", "secret value")

    with pytest.raises(IntegrityError) as caught:
        store.run(twice)
    assert "secret value" not in str(caught.value)


def test_a_lazy_transaction_does_not_wait_for_the_disk_and_the_next_one_does(store):
    level = "PRAGMA synchronous" if store.dialect == "sqlite" else "SHOW synchronous_commit"
    usual, lazy = (2, 1) if store.dialect == "sqlite" else ("on", "off")
    for durable, told in ((True, usual), (False, lazy), (True, usual)):
        with store.write(durable=durable) as conn:
            assert conn.exec_driver_sql(level).scalar() == told
    with pytest.raises(ZeroDivisionError), store.write(durable=False):
        raise ZeroDivisionError
    with store.driver() as driver:
        assert driver.execute_raw(level, ()) == [(usual,)]


def test_a_lazy_transaction_that_could_not_begin_leaves_a_connection_that_waits_for_the_disk(sqlite_url, clock):
    store, other = bridge_store.open(sqlite_url, clock=clock, pool_size=1), bridge_store.open(sqlite_url)
    with other.write(), pytest.raises(StoreUnavailable), store.write(durable=False):
        raise AssertionError("two writers at once")
    with store.read() as conn:
        assert conn.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()
    other.close()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 17, 64, 65, 200])
def test_the_driver_takes_any_number_of_rows_and_names(store, count):
    with store.write() as conn:
        driver = driver_of(conn)
        rows = [(f"{place:03}", "new") for place in range(count)]
        insert = "INSERT INTO facts (name, value) VALUES {rows}"
        driver.execute_rows(insert, [("000", "old")])
        then = "ON CONFLICT (name) DO UPDATE SET value = excluded.value RETURNING name, value"
        assert sorted(driver.execute_rows(f"{insert} {then}", rows)) == rows
        names = [name for name, _ in rows]
        asked = "SELECT name FROM facts WHERE value = ? AND name IN ({names})"
        assert sorted(driver.execute_in(asked, names, ("new",))) == [(name,) for name in names]
        if rows:
            change = "UPDATE facts SET value = ? WHERE name = ?"
            assert driver.execute_many(change, [("newer", name) for name in [*names, "nobody"]]) == count
        assert driver.now_ms() == store_clock.read_ms(conn)


def test_postgresql_keeps_statements_prepared_and_plans_them_anew_as_tables_grow(postgres_url, monkeypatch):
    made = bridge_store.open(postgres_url, pool_size=1)

    def write(*statements):
        with made.write() as conn:
            for statement in statements:
                conn.execute(text(statement))

    def plan():
        with made.write() as conn:
            conn.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
            assert driver_of(conn).execute("SELECT value FROM facts WHERE name = ?", ("7",)) == [("v",)]
            [kept] = conn.execute(text("SELECT name FROM pg_prepared_statements")).scalars()
            return conn.exec_driver_sql(f"EXPLAIN EXECUTE {kept}('7')").scalars().first()

    write("INSERT INTO facts (name, value) VALUES ('7', 'v')", "ANALYZE facts")
    assert plan().startswith("Seq Scan")
    write("INSERT INTO facts (name, value) SELECT 'n' || n, 'v' FROM generate_series(1, 20000) n")
    monkeypatch.setattr(postgresql, "_PLANS_S", 0.0)
    assert plan().startswith("Index Scan")
    made.close()


ASK = "SELECT count(*) FROM pg_prepared_statements WHERE name = ?"


def test_a_pooler_that_is_not_noticed_costs_one_more_try_and_nothing_is_prepared_from_then_on(postgres_url):
    made = bridge_store.open(postgres_url)
    tries = []

    def work(conn):
        tries.append(1)
        driver_of(conn).execute(ASK, ("",))
        if len(tries) == 1:  # as if the pooler now gave another server process; the driver is not told
            conn.exec_driver_sql("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")
        return driver_of(conn).execute("SELECT count(*) FROM pg_prepared_statements WHERE name <> ?", ("",)), (
            driver_of(conn).execute(ASK, ("",))
        )

    assert made.run(work) == ([(0,)], [(0,)])
    assert len(tries) == 2
    made.close()


def test_a_migration_that_changes_what_a_prepared_statement_returns_costs_one_more_try(postgres_url):
    made = bridge_store.open(postgres_url)
    asked = "SELECT * FROM facts WHERE name = ?"
    assert made.run(lambda conn: driver_of(conn).execute(asked, ("x",))) == []
    release = bridge_store.open(postgres_url)
    with release.write() as conn:
        conn.execute(text("ALTER TABLE facts ADD COLUMN more text"))
        conn.execute(text("INSERT INTO facts (name, value, more) VALUES ('x', 'v', 'm')"))
    release.close()
    assert made.run(lambda conn: driver_of(conn).execute(asked, ("x",))) == [("x", "v", "m")]
    made.close()


class Opened:
    closed = False


def test_connections_are_counted_while_other_threads_make_some():
    made, failures, over = postgresql.OpenConnections(), [], threading.Event()

    def count():
        while not over.is_set():
            try:
                made.still_open()
            except RuntimeError as error:
                failures.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(2)]
        for thread in threads:
            thread.start()
        kept = []
        until = time.monotonic() + 2
        while time.monotonic() < until:
            kept = [*kept[-4:], Opened()]
            made.add(kept[-1])
    finally:
        over.set()
        sys.setswitchinterval(before)
    for thread in threads:
        thread.join()
    assert failures == []
    assert made.still_open() == len(kept)
