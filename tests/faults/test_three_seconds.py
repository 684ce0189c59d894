"""A store that does not answer is 503 within 3 s, whatever it is that stands still, and all goes on by itself.

The bridge's own time for a webhook stands in its log line (`ms`); the client's is longer on a loaded machine.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from stage import checkout

from chaos.family import wait

PROMISE_MS = 3_000
SLACK_S = 20.0  # of a loaded machine, for the client
AT_ONCE = 12


class Wire:
    """Between the bridge and PostgreSQL; while it is `still`, it takes connections and bytes, and hands none on."""

    def __init__(self, server: Path) -> None:
        self.server = server
        self.moving = threading.Event()
        self.moving.set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.sockets = [self.listener]
        self.threads = []
        self.start(self.accept)

    def start(self, work, *args):
        thread = threading.Thread(target=work, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.sockets.append(client)
                self.start(self.serve, client)

    def serve(self, client):
        self.moving.wait()
        upstream = socket.socket(socket.AF_UNIX)
        self.sockets.append(upstream)
        upstream.connect(str(self.server))
        self.start(self.hand_on, client, upstream)
        self.start(self.hand_on, upstream, client)

    def hand_on(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self.moving.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def still(self):
        self.moving.clear()
        yield
        self.moving.set()

    def close(self):
        self.moving.set()
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def wire(postgres_stage):
    host = psycopg.conninfo.conninfo_to_dict(postgres_stage.database_url.replace("+psycopg", "", 1))["host"]
    (socket_file,) = Path(host).glob(".s.PGSQL.*[0-9]")
    made = Wire(socket_file)
    yield made
    made.close()


def through(wire, stage):
    """The same database, reached by TCP through the wire."""
    told = psycopg.conninfo.conninfo_to_dict(stage.database_url.replace("+psycopg", "", 1))
    return f"postgresql://{told['user']}@127.0.0.1:{wire.port}/{told['dbname']}"


def event(mark, number, size=0):
    """A checkout that is so much larger."""
    return {**checkout(f"{mark}-{number}"), "padding": "x" * size}


def refused(stage, web, mark, count=AT_ONCE, size=0):
    """So many events at once are all 503, in time."""

    def post(number):
        began = time.monotonic()
        answer = stage.post(web, event(mark, number, size))
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        return time.monotonic() - began

    with ThreadPoolExecutor(count) as pool:
        slowest_s = max(pool.map(post, range(count)))
    assert slowest_s < PROMISE_MS / 1000 + SLACK_S
    wait(lambda: len(refusals_ms(web)) >= count, 10, "each refusal is logged")  # the line comes after the answer
    assert max(refusals_ms(web)) < PROMISE_MS + stage.pulse.missed_ms()


def refusals_ms(web):
    """How long each event that was refused had waited."""
    return [line["ms"] for line in lines(web) if line.get("event") == "webhook" and line["outcome"] == "unavailable"]


def lines(web):
    whole = web.log_file.read_text().rpartition("\n")[0]  # the last line may just be written
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def taken(stage, web, mark, count=AT_ONCE, size=0):
    """What the provider sends again is stored once, without a restart."""
    for number in range(count):
        wait(lambda n=number: stage.post(web, event(mark, n, size)).status_code == 200, 60, "it is taken")
    counted = stage.sql(f"SELECT count(*) FROM events WHERE provider_event_id LIKE 'evt_{mark}-%%'")
    assert counted[0][0] == count


@pytest.mark.long
def test_a_server_that_takes_connections_and_answers_nothing(postgres_stage, wire):
    stage = postgres_stage
    web = stage.web(BRIDGE_WORKER="off", DATABASE_URL=through(wire, stage))
    (pid,) = web.children()
    assert stage.post(web, checkout("before")).status_code == 200
    with wire.still():
        refused(stage, web, "kept")  # on a connection that was open
        refused(stage, web, "later")  # while the committer still waits for the first
        assert stage.get(web, "/healthz").status_code == 200
    taken(stage, web, "kept")
    taken(stage, web, "later")
    assert web.children() == [pid]


@pytest.mark.long
@pytest.mark.parametrize(
    "lock",
    [
        "SELECT 1 FROM source_counters FOR UPDATE",
        "LOCK TABLE events IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE source_counters IN SHARE MODE",
    ],
)
def test_a_lock_that_another_session_of_postgresql_holds(postgres_stage, lock):
    stage = postgres_stage
    web = stage.web(BRIDGE_WORKER="off")
    (pid,) = web.children()
    assert stage.post(web, checkout("before")).status_code == 200
    with psycopg.connect(stage.database_url.replace("+psycopg", "", 1)) as other:
        other.execute(lock)
        refused(stage, web, "kept")
        refused(stage, web, "later")
    taken(stage, web, "kept")
    taken(stage, web, "later")
    assert web.children() == [pid]


@pytest.mark.long
def test_a_lock_that_another_process_of_sqlite_holds(sqlite_stage):
    stage = sqlite_stage
    web = stage.web(BRIDGE_WORKER="off")
    (pid,) = web.children()
    assert stage.post(web, checkout("before")).status_code == 200
    with stage.locked():
        refused(stage, web, "kept")
        refused(stage, web, "later")
    taken(stage, web, "kept")
    taken(stage, web, "later")
    assert web.children() == [pid]


@pytest.mark.long
@pytest.mark.parametrize("size", [0, 40_000])  # the second is read by a thread
def test_more_at_once_than_there_are_threads(sqlite_stage, size):
    """Each waits for itself, not for a thread that another one keeps: the last of a hundred once heard after 11 s."""
    stage = sqlite_stage
    web = stage.web(BRIDGE_WORKER="off")
    assert stage.post(web, checkout("before")).status_code == 200
    with stage.locked():
        refused(stage, web, "many", 100, size)
    taken(stage, web, "many", 100, size)


@pytest.mark.long
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_stop_while_the_database_answers_nothing_ends_in_time(postgres_stage, wire, command):
    stage = postgres_stage
    environ = {"DATABASE_URL": through(wire, stage)}
    if command == "serve":
        process = stage.web(**environ)
    else:
        process = stage.member("worker", ["-m", "bridge", "worker"], None, stage.environ(**environ))
    wait(lambda: stage.sql("SELECT 1 FROM workers"), 60, "it works")
    with wire.still():
        time.sleep(2)
        process.signal(signal.SIGTERM, to="master")
        began = time.monotonic()
        assert process.process.wait(60) == 0, process.log_file.read_text()
        assert time.monotonic() - began < 20
