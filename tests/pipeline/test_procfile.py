"""The Procfile's own lines as processes on PostgreSQL: a release, a web process without a worker, and two workers."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Bell
from threading import Thread

import psycopg
import pytest
from running import ROOT, checkout, environment, eventually

CONNECTIONS = 5


def procfile() -> dict[str, str]:
    """As Heroku reads it: whatever is no `name: command` is skipped."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))


class Dynos:
    """One application: its processes each with a name of their own at the database."""

    def __init__(self, machine, url: str) -> None:
        self.machine, self.url = machine, url
        self.datafast = machine.datafast()
        self.admin = psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True)

    def environ(self, name: str) -> dict[str, str]:
        url = f"{self.url}&application_name={name}".replace("postgresql+psycopg://", "postgres://", 1)
        # Heroku sets WEB_CONCURRENCY by itself
        return environment(self.datafast, url, BRIDGE_WORKER="off", WEB_CONCURRENCY="4")

    def release(self):
        return self.machine.run(["sh", "-c", procfile()["release"]], self.environ("release"), "release")

    def web(self):
        return self.machine.web(self.environ("web"), "web", ["sh", "-c", f"exec {procfile()['web']}"])

    def worker(self, name: str):
        return self.machine.run(["sh", "-c", f"exec {procfile()['worker']}"], self.environ(name), name)

    def sql(self, statement: str) -> list[tuple]:
        return self.admin.execute(statement).fetchall()

    def connections(self) -> dict[str, int]:
        held = "SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1"
        return dict(self.sql(held))

    def close(self) -> None:
        self.admin.close()


@pytest.fixture
def empty(machine, postgres):
    name = postgres.create()
    made = Dynos(machine, postgres.url(name))
    yield made
    made.close()
    machine.stop_all()
    postgres.drop(name)


@pytest.fixture
def dynos(machine, postgres_url):
    """The same on a database that has its tables."""
    made = Dynos(machine, postgres_url)
    yield made
    made.close()
    machine.stop_all()


@pytest.mark.long
def test_the_lines_of_the_procfile_deliver_each_event_once_and_stop_in_time(empty):
    web = empty.web()
    early = web.stripe(checkout("early"))
    assert early.status_code == 503
    assert "python -m bridge migrate" in early.text
    assert int(early.headers["Retry-After"]) > 0
    assert web.get("/readyz").status_code == 503
    assert web.get("/healthz").status_code == 200
    release = empty.release()
    assert release.ended() == 0, release.log

    def ready() -> bool:
        return web.get("/readyz").status_code == 200

    eventually(ready, what="the web process finds the tables by itself")
    empty.datafast.tell("faults", {"kind": "recorded_drip", "drip_ms": 2, "times": 12})  # something is under way
    visitors = {str(number): str(uuid.uuid4()) for number in range(40)}
    first, second = empty.worker("worker1"), empty.worker("worker2")
    most, enough = {}, Bell()

    def watch() -> None:
        while not enough.wait(0.02):
            for name, count in empty.connections().items():
                most[name] = max(most.get(name, 0), count)

    watcher = Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(32) as many:
        sales = [checkout(number, visitor) for number, visitor in visitors.items()] * 3
        answers = list(many.map(web.stripe, sales))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["status"] for answer in answers) == ["accepted"] * 40 + ["duplicate"] * 80
    eventually(lambda: len(empty.datafast.goals()) >= 8, what="some are delivered")
    assert first.process.poll() is None, first.log
    code, took_s = first.stop()
    assert (code, took_s < 20) == (0, True), first.log
    eventually(lambda: len(empty.datafast.goals()) >= 40, what="all are delivered")
    stops = [process.stop() for process in (web, second)]
    enough.set()
    watcher.join()
    assert [code for code, _ in stops] == [0, 0]
    assert max(took for _, took in stops) < 20
    assert empty.sql("SELECT state, count(*) FROM goals GROUP BY 1") == [("delivered", 40)]
    assert empty.sql("SELECT count(*) FROM goals WHERE lease_token IS NOT NULL") == [(0,)]
    assert empty.sql("SELECT count(*) FROM events WHERE state <> 'routed' OR lease_token IS NOT NULL") == [(0,)]
    assert sorted(empty.datafast.seen()) == sorted(("purchase", visitor) for visitor in visitors.values())
    assert {name for name in most if name.startswith(("web", "worker"))} == {"web", "worker1", "worker2"}
    assert max(most[name] for name in ("web", "worker1", "worker2")) <= CONNECTIONS, most
    assert empty.sql("SELECT count(*) FROM workers") == [(0,)]  # all took their leave
    for process in (web, first, second):
        assert "Traceback" not in process.log


@pytest.mark.long
def test_one_web_process_whatever_heroku_sets(dynos):
    web = dynos.web()
    eventually(lambda: dynos.sql("SELECT 1 FROM workers WHERE kind = 'web'"), what="a heartbeat")
    children = (f"/proc/{web.process.pid}/task/{web.process.pid}/children",)
    with open(*children) as told:  # noqa: PTH123 - a file of the kernel
        assert len(told.read().split()) == 1
    # no worker is running, and it says so
    status = web.get("/status")
    assert (status.status_code, "No worker" in status.text) == (503, True)


@pytest.mark.long
def test_an_older_schema_is_503_with_the_command_to_run_and_heals(dynos):
    dynos.admin.execute("ALTER TABLE events RENAME COLUMN stated_at_ms TO of_a_later_release")
    web, worker = dynos.web(), dynos.worker("worker")
    answer = web.stripe(checkout("older"))
    assert (answer.status_code, "run `python -m bridge migrate`" in answer.text) == (503, True)
    assert web.get("/status").status_code == 503
    dynos.admin.execute("ALTER TABLE events RENAME COLUMN of_a_later_release TO stated_at_ms")
    assert web.stripe(checkout("older")).json() == {"status": "accepted"}
    eventually(dynos.datafast.seen, what="it is delivered")
    assert worker.process.poll() is None
    assert "Traceback" not in web.log + worker.log


@pytest.mark.long
def test_what_postgresql_refuses_in_a_text_is_taken_all_the_same(dynos):
    web, _worker = dynos.web(), dynos.worker("worker")
    odd = [
        checkout("nul", note="\0", client_reference_id="\0") | {"id": "evt_\0nul", "account": "acct_\0"},
        b'{"id": "evt_half", "type": "charge.refunded", "created": 1, "data": {"object": {"id": "ch_\\ud800"}}}',
        b'{"id": "evt_' + b"x" * 5_000 + b'", "type": "' + b"y" * 5_000 + b'", "created": 1}',
        checkout("far") | {"id": "evt_far", "created": 10**17},
        checkout("old") | {"id": "evt_old", "created": -(10**17)},
        b"\0",
    ]
    assert [web.stripe(event).status_code for event in odd] == [200] * len(odd)
    marked = json.dumps(checkout("mark")).encode()
    assert web.stripe(marked).status_code == 200
    eventually(lambda: "stripe evt_mark" in {goal["description"] for goal in dynos.datafast.goals()})
    states = dynos.sql("SELECT state, verdict FROM events ORDER BY id")
    assert len(states) == len(odd) + 1
    assert {state for state, _ in states} <= {"routed", "quarantined"}
    assert "fault" not in {line["event"] for line in web.lines}


def test_the_procfile_is_what_heroku_needs():
    lines = procfile()
    assert lines["release"] == "python -m bridge migrate && python -m bridge check"
    assert set(lines) == {"release", "web", "worker"}
    assert all("datafast-bridge" not in line for line in lines.values())
