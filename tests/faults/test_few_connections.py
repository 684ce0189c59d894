"""A PostgreSQL with few connections: as many processes as docs/operations.md allows go on, and commands get in.

`PROCESSES=4 WORKERS=2` in front of it is the size of a small plan.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psycopg
import pytest
from stage import checkout

from bridge import store as bridge_store
from bridge.errors import StoreUnavailable
from chaos.family import wait
from chaos.pooler import PROGRAM, pgbouncer
from chaos.relay import Relay

PROCESSES, WORKERS = int(os.environ.get("PROCESSES", "2")), int(os.environ.get("WORKERS", "1"))
ENOUGH = 200  # webhooks
CONNECTIONS = 2 * PROCESSES + 4 * WORKERS + 1


@pytest.fixture
def few(postgres_url, postgres):
    """A URL of a role with a connection limit; and how the limit is set."""
    parts = psycopg.conninfo.conninfo_to_dict(postgres_url.replace("+psycopg", "", 1))
    role = f"few_{parts['dbname']}"
    schema = "; ".join(
        f"GRANT ALL ON ALL {things} IN SCHEMA {name} TO {role}"
        for things in ("TABLES", "SEQUENCES", "FUNCTIONS")
        for name in ("public", "bridge_test")
    )
    postgres.execute(
        parts["dbname"],
        f"CREATE ROLE {role} LOGIN; GRANT USAGE, CREATE ON SCHEMA public, bridge_test TO {role}; {schema}",
    )

    def limit(connections):
        postgres.execute("postgres", f"ALTER ROLE {role} CONNECTION LIMIT {connections}")

    limit(CONNECTIONS)
    yield postgres_url.replace("postgres:@", f"{role}:@", 1), limit
    postgres.execute(parts["dbname"], f"DROP OWNED BY {role}; DROP ROLE {role}")


def held(url):
    """A connection that somebody else has."""
    return psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True)


def test_who_finds_no_connection_hears_it_in_one_sentence_or_waits_for_one(few):
    url, limit = few
    limit(1)
    with held(url):
        with pytest.raises(StoreUnavailable, match=r"no connection to spare .*docs/operations.md"):
            bridge_store.schema_state(bridge_store.open(url))
        patient = bridge_store.open(url, pool_size=1, patience_s=30)
        found = []
        asking = threading.Thread(target=lambda: found.append(bridge_store.schema_state(patient)))
        asking.start()
        time.sleep(1)
        assert found == []
    asking.join(30)
    assert found == ["current"]
    patient.close()


def test_threads_share_the_connections_that_can_be_had(few):
    url, limit = few
    limit(2)
    store = bridge_store.open(url, pool_size=5)
    done = []

    def work():
        for _ in range(10):
            with store.write() as conn:
                conn.exec_driver_sql("SELECT pg_sleep(0.01)")
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 80
    store.close()


def test_what_idles_is_given_back_and_the_one_in_use_is_kept(few, monkeypatch):
    url, _ = few
    monkeypatch.setattr("bridge.store.database.engine.IDLE_S", 0.5)
    store = bridge_store.open(url, pool_size=5)
    barrier = threading.Barrier(4)

    def work():
        with store.read() as conn:
            barrier.wait(30)
            conn.exec_driver_sql("SELECT 1")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def used():
        with store.read() as conn:
            return conn.exec_driver_sql("SELECT count(*) FROM pg_stat_activity WHERE usename = user").scalar()

    assert used() == 4
    until = time.monotonic() + 20
    while used() > 1 and time.monotonic() < until:
        time.sleep(0.1)
        store.close_idle()
    assert used() == 1
    store.close()


def test_nobody_begins_a_transaction_inside_another_one(few):
    store = bridge_store.open(few[0], pool_size=1)
    with store.read(), pytest.raises(RuntimeError, match="inside another one"), store.write():
        pass
    store.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_processes_and_commands_on_the_connections_of_a_small_plan(postgres_stage, few):
    stage = postgres_stage
    url, _ = few
    web = stage.web(DATABASE_URL=url, BRIDGE_PROCESSES=str(PROCESSES), BRIDGE_WORKER="off")
    for number in range(WORKERS):
        stage.member(f"worker-{number}", ["-m", "bridge", "worker"], None, stage.environ(DATABASE_URL=url))
    sent, slowest_s, over = [], [0.0], threading.Event()

    def send(sender):
        while not over.is_set():
            number = f"{sender}-{len(sent)}"
            began = time.monotonic()
            answer = stage.post(web, checkout(number))
            slowest_s[0] = max(slowest_s[0], time.monotonic() - began)
            assert answer.status_code == 200, answer.text
            sent.append(number)
            over.wait(0.05 if len(sent) < ENOUGH else 1.0)  # a busy machine's commands take long, and all has to arrive

    failed = []

    def sending(sender):
        try:
            send(sender)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=sending, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    for words in (("migrate",), ("goals",), ("events", "list"), ("migrate",)):
        stage.command(*words, DATABASE_URL=url)
    over.set()
    for thread in threads:
        thread.join()
    assert not failed
    print(f"{len(sent)} webhooks, the slowest in {slowest_s[0]:.2f} s")
    stage.wait_recorded(*sent)


needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="needs pgbouncer (apt-get install pgbouncer)")


@needs_pgbouncer
def test_behind_a_pooler_nothing_is_prepared(postgres_url):
    """The next transaction may run at a server process that does not have it."""
    parts = psycopg.conninfo.conninfo_to_dict(postgres_url.replace("+psycopg", "", 1))
    relay = Relay(next(Path(parts["host"]).glob(".s.PGSQL.*[0-9]")))
    try:
        with pgbouncer(relay.port, parts["user"], "transaction", size=2) as port:
            url = f"postgresql://{parts['user']}@127.0.0.1:{port}/{parts['dbname']}"
            made = [bridge_store.open(url, pool_size=1) for _ in range(3)]
            for _ in range(4):
                for store in made:
                    with store.driver() as driver:
                        assert driver.execute("SELECT count(*) FROM pg_prepared_statements") == [(0,)]
            for store in made:
                store.close()
    finally:
        relay.close()


@pytest.mark.long
@needs_pgbouncer
def test_a_session_pool_of_two_routes_and_sends(postgres_stage):
    """It lets everybody in, and the third one waits until one of the first two leaves."""
    stage = postgres_stage
    parts = psycopg.conninfo.conninfo_to_dict(stage.database_url.replace("+psycopg", "", 1))
    relay = Relay(next(Path(parts["host"]).glob(".s.PGSQL.*[0-9]")))
    try:
        with pgbouncer(relay.port, parts["user"], "session", size=2) as port:
            url = f"postgresql://{parts['user']}@127.0.0.1:{port}/{parts['dbname']}?pgbouncer=true"
            web = stage.web(DATABASE_URL=url)
            wait(lambda: stage.get(web, "/readyz").status_code == 200, 60, "/readyz is green")
            sent = list(range(40))
            for number in sent:
                assert stage.post(web, checkout(number)).status_code == 200
            stage.wait_recorded(*sent)
            assert stage.get(web, "/readyz").status_code == 200
            stage.command("goals", DATABASE_URL=url)
            web.end()
    finally:
        relay.close()


def test_a_server_that_is_gone_is_not_waited_for(tmp_path):
    began = time.monotonic()
    store = bridge_store.open(f"postgresql+psycopg://u@/d?host={tmp_path}", pool_size=1, patience_s=60)
    with pytest.raises(StoreUnavailable):
        bridge_store.schema_state(store)
    assert time.monotonic() - began < 30
