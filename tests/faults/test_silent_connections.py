"""PostgreSQL behind a pooler or a proxy: a connection that never answers again is given up, and acks go on.

`make chaos MODE=silent` and `MODE=failover` do it for longer and print figures.
"""

from __future__ import annotations

import contextlib
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
from chaos.standby import failover

needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="needs pgbouncer (apt-get install pgbouncer)")
ACKS_AGAIN_S = 15.0
SLACK_S = 45.0  # of a loaded machine: how soon it is, `make chaos` measures


def told(stage):
    return psycopg.conninfo.conninfo_to_dict(stage.database_url.replace("+psycopg", "", 1))


@pytest.fixture
def relay(postgres_stage):
    (socket_file,) = Path(told(postgres_stage)["host"]).glob(".s.PGSQL.*[0-9]")
    made = Relay(socket_file)
    yield made
    made.close()


def url(stage, port):
    return f"postgresql://{told(stage)['user']}@127.0.0.1:{port}/{told(stage)['dbname']}"


def acks_again(stage, web, mark, *, red=True, once=True):
    """Nothing is taken for a while, and that is seen; what was sent meanwhile is sent again, and all of it is taken.

    once: nothing is refused after the first that was taken. A pooler may hand out a silent connection even then: it
    keeps those that the bridge had closed because they were idle.
    """
    began = time.monotonic()
    seen, number = set(), 1
    while stage.post(web, checkout(f"{mark}-{number}")).status_code != 200:
        if number > 1:  # the first has waited for 3 s
            seen |= {(path, stage.get(web, path).status_code) for path in ("/readyz", "/status")}
        assert time.monotonic() - began < ACKS_AGAIN_S + SLACK_S
        number += 1
    assert time.monotonic() - began < ACKS_AGAIN_S + SLACK_S
    if red:
        assert seen == {("/readyz", 503), ("/status", 503)}
    for again in range(1, number + 1):
        while stage.post(web, checkout(f"{mark}-{again}")).status_code != 200:
            assert not once
            assert time.monotonic() - began < ACKS_AGAIN_S + SLACK_S
    wait(lambda: stage.get(web, "/readyz").status_code == 200, 30, "/readyz is green")
    return [f"{mark}-{again}" for again in range(1, number + 1)]


@pytest.mark.long
def test_connections_that_fall_silent_for_good(postgres_stage, relay):
    """Between two transactions; and at a COMMIT, which is done and nobody hears of it, or never reaches the server."""
    stage = postgres_stage
    web = stage.web(DATABASE_URL=url(stage, relay.port))
    assert stage.post(web, checkout("before")).status_code == 200
    assert relay.silence() >= 1
    sent = acks_again(stage, web, "idle", red=False)
    relay.first_words, relay.last_words = b"evt_commit-1", b"COMMIT"  # the worker's own commits go on
    assert stage.post(web, checkout("commit-1")).status_code == 503
    relay.last_words = None
    sent += acks_again(stage, web, "commit")
    relay.heard = False  # its transaction goes on holding what everybody needs
    relay.first_words, relay.last_words = b"evt_lock-1", b"COMMIT"
    assert stage.post(web, checkout("lock-1")).status_code == 503
    relay.last_words = None
    sent += acks_again(stage, web, "lock")
    stage.wait_recorded("before", *sent)
    assert "Traceback" not in web.log_file.read_text()
    assert stage.sql("SELECT duplicates FROM events WHERE provider_event_id = 'evt_commit-1'")[0][0] >= 1


@pytest.mark.long
@needs_pgbouncer
@pytest.mark.parametrize("mode", ["transaction", pytest.param("session", marks=pytest.mark.long)])
def test_behind_pgbouncer(postgres_stage, relay, mode):
    """The relay is between pgbouncer and the server: pgbouncer's own connections fall silent."""
    stage = postgres_stage
    with pgbouncer(relay.port, told(stage)["user"], mode, size=8) as port:
        web = stage.web(DATABASE_URL=url(stage, port))
        for number in range(20):
            assert stage.post(web, checkout(number)).status_code == 200
        stage.wait_recorded(*range(20))
        assert stage.get(web, "/readyz").status_code == 200
        assert relay.silence() >= 1
        sent = acks_again(stage, web, "silent", red=False, once=False)
        stage.wait_recorded(*range(20), *sent)
        assert "Traceback" not in web.log_file.read_text()
        web.end()


@pytest.mark.long
@needs_pgbouncer
def test_a_failover_whose_old_server_stays_up_read_only(postgres, postgres_stage, relay):
    """The address moves; connections to the old server stay open, the bridge's own and those that a pooler keeps."""
    stage = postgres_stage
    with failover(postgres.server) as servers, pgbouncer(relay.port, told(stage)["user"], "transaction") as port:
        direct = stage.web("direct", DATABASE_URL=url(stage, relay.port))
        pooled = stage.web("pooled", DATABASE_URL=url(stage, port), BRIDGE_WORKER="off")
        assert stage.post(direct, checkout("before-1")).status_code == 200
        assert stage.post(pooled, checkout("before-2")).status_code == 200
        servers.move()
        for web in (direct, pooled):
            assert stage.post(web, checkout("during")).status_code == 503
            assert stage.get(web, "/readyz").status_code == 503
            assert "accepts no writes" in stage.get(web, "/status", admin=True).json()["problems"][0]
        relay.target = servers.socket_file
        for name, web in (("direct", direct), ("pooled", pooled)):
            wait(lambda w=web, n=name: stage.post(w, checkout(n)).status_code == 200, 60, f"{name} acknowledges again")
        stage.wait_recorded("before-1", "before-2", "direct", "pooled")
        stored = servers.rows(told(stage)["dbname"], "SELECT provider_event_id FROM events")
        assert sorted(row[0] for row in stored) == ["evt_before-1", "evt_before-2", "evt_direct", "evt_pooled"]
        for web in (direct, pooled):
            assert "Traceback" not in web.log_file.read_text()
            web.end()


@needs_pgbouncer
def test_pgbouncer_that_met_a_read_only_server_first(postgres, postgres_stage, relay):
    """It repeats to everybody what that server said of itself, and keeps its connections to it."""
    name = told(postgres_stage)["dbname"]
    postgres.execute("postgres", f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with pgbouncer(relay.port, told(postgres_stage)["user"], "transaction") as port:
        store = bridge_store.open(url(postgres_stage, port))

        def writes():
            with store.write() as conn:
                return conn.exec_driver_sql("UPDATE facts SET value = value").rowcount >= 0

        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="accepts no writes just now"):
                writes()
        postgres.execute("postgres", f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        with contextlib.suppress(StoreUnavailable):
            writes()  # the last one on a connection that pgbouncer has kept
        assert writes()
        store.close()
