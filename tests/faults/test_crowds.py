"""Crowds that fill the worker's places and its room: whoever means it is still served. In full: MODE=crowd of chaos."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from stage import PATIENCE_S
from test_web_edge import all_of, one_answer, serving

from chaos.family import Member, free_port, wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from stage import Stage
    from test_web_edge import Server

MEBIBYTE = 1 << 20
KEPT = b"POST /quick/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
STALLED = (
    b"",
    b"POST /qui",
    b"POST /quick/x HTTP/1.1\r\nHost: h\r\nX: ",
    b"POST /quick/x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhel",
    b"POST /quick/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
)
ANNOUNCED = b"POST /quick/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % MEBIBYTE


@contextmanager
def crowd(count: int, one: Callable[[int], None]):
    """So many clients, each of which does the same again and again, whatever becomes of it."""
    over = threading.Event()

    def act(number: int) -> None:
        while not over.is_set():
            try:
                one(number)
            except (OSError, AssertionError):  # it was cut off
                over.wait(0.01)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def connect_from(server: Server, address: str, data: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=15, source_address=(address, 0))
    sock.sendall(data)
    return sock


@pytest.mark.long
def test_kept_connections_that_always_ask_again_leave_places_for_others(tmp_path):
    closed = []

    def ask(_number: int) -> None:
        with server.connect() as sock:
            for _ in range(20):
                sock.sendall(KEPT)
                if b"Connection: close" in one_answer(sock):
                    closed.append(True)
                    return
                time.sleep(0.2)

    with serving(tmp_path / "log", connections=20, deadline_s=10) as server, crowd(40, ask):
        time.sleep(0.5)
        assert [server.post(path="/quick/x", timeout=30)[0] for _ in range(20)] == [200] * 20
        assert closed


@pytest.mark.long
def test_a_crowd_that_stalls_and_comes_again_leaves_places_for_others(tmp_path):
    def stall(number: int) -> None:
        with server.connect(STALLED[number % len(STALLED)]) as sock:
            all_of(sock)

    with serving(tmp_path / "log", connections=20, deadline_s=10) as server, crowd(40, stall):
        time.sleep(0.5)
        assert [server.post(path="/quick/x", timeout=30)[0] for _ in range(5)] == [200] * 5


def test_whoever_has_the_most_gives_way_and_a_slow_one_elsewhere_does_not(tmp_path):
    with serving(tmp_path / "log", connections=16, deadline_s=10) as server:
        slow = connect_from(server, "127.0.0.2", KEPT[:-1])
        greedy = [connect_from(server, "127.0.0.3", KEPT[:-1]) for _ in range(15)]
        time.sleep(0.5)
        late = [connect_from(server, "127.0.0.4", KEPT[:-1]) for _ in range(5)]
        for sock in (slow, *late):
            time.sleep(0.1)
            sock.sendall(b"o")
            assert one_answer(sock).startswith(b"HTTP/1.1 200")
        refused = [all_of(sock) for sock in greedy[:5]]
        assert all(answer.startswith(b"HTTP/1.1 503") for answer in refused)
        for sock in (slow, *late, *greedy):
            sock.close()


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(ANNOUNCED, id="nothing came", marks=pytest.mark.long),
        pytest.param(ANNOUNCED + b"x" * 33_000, id="a little came"),
    ],
)
def test_room_is_taken_by_what_came_not_by_what_was_announced(tmp_path, first):
    with serving(tmp_path / "log", deadline_s=60) as server:
        announced = [server.connect(first) for _ in range(100)]
        time.sleep(0.5)
        for size in (60_000, MEBIBYTE):
            assert server.post(b"x" * size, path="/quick/x", timeout=30)[0] == 200
        for sock in announced:
            sock.close()


def test_whoever_fills_the_room_and_stalls_gives_it_up(tmp_path):
    with serving(tmp_path / "log", deadline_s=60) as server:
        full = [server.connect(ANNOUNCED + b"x" * (MEBIBYTE - 1)) for _ in range(20)]
        for size in (60_000, MEBIBYTE):
            assert server.post(b"x" * size, path="/quick/x", timeout=30)[0] == 200
        for sock in full:
            sock.close()


def test_a_large_body_may_pause_as_long_as_nobody_waits_for_room(tmp_path):
    with serving(tmp_path / "log", deadline_s=60) as server, server.connect(ANNOUNCED + b"x" * 600_000) as slow:
        time.sleep(2.5)  # longer than anybody keeps room that others wait for
        slow.sendall(b"x" * (MEBIBYTE - 600_000))
        assert one_answer(slow).startswith(b"HTTP/1.1 200 ")


def test_with_few_open_files_a_crowd_neither_stops_nor_heats_the_worker(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(tmp_path / "log", connections=4096, deadline_s=60) as server:
        worker = server.worker()
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (80, 80))  # fewer than it reckoned with
        crowded = [server.connect(KEPT[:-1]) for _ in range(200)]
        time.sleep(0.5)
        used = sum(worker.cpu_times()[:2])
        time.sleep(1.0)
        assert sum(worker.cpu_times()[:2]) - used < 0.5
        assert [server.post(path="/quick/x", timeout=30)[0] for _ in range(10)] == [200] * 10
        for sock in crowded:
            sock.close()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


@pytest.mark.parametrize(
    "trailer",
    [b"GET /swallowed HTTP/1.1\r\nHost: h\r\n", b"X: 1\r\n folded\r\n", b"Content-Length: 3\r\n", b"X: \x00\r\n"],
)
def test_a_request_that_stands_for_a_trailer_is_not_swallowed(server, trailer):
    head = b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect(head + b"2\r\nhi\r\n0\r\n" + trailer + b"\r\n" + KEPT) as sock:
        said = all_of(sock)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("crowds") / "log") as made:
        yield made


@pytest.mark.long
def test_a_log_that_nobody_reads_stops_neither_answers_nor_the_stop(sqlite_stage: Stage):
    port = free_port()
    environ = sqlite_stage.environ(PORT=str(port), BRIDGE_HOST="127.0.0.1")
    web = Member("web", ["-m", "bridge", "serve"], environ, sqlite_stage.folder, port)
    web.unread = True
    sqlite_stage.members.append(web)
    web.start()
    wait(lambda: sqlite_stage.answers(web), PATIENCE_S, "the bridge answers")
    for number in range(300):  # a line each of more than 400 bytes, and a pipe takes 64 KB
        event = {"id": f"evt_{number:0100}", "type": "x" * 100}
        assert sqlite_stage.post(web, event).status_code == 200
    web.signal(signal.SIGTERM, to="master")
    assert web.process is not None
    assert web.process.wait(25) == 0


class Blocked(Member):
    """Its output goes into a pipe that is full already."""

    def _output(self):
        read, full = os.pipe()
        os.set_blocking(full, False)  # of the pipe's end, whoever holds it
        with suppress(BlockingIOError):
            while True:
                os.write(full, b"x" * 4096)
        os.set_blocking(full, True)
        self.kept = read
        return os.fdopen(full, "wb")


@pytest.mark.long
def test_a_pipe_that_is_full_keeps_the_bridge_from_nothing_though_it_has_a_warning_to_write(sqlite_stage: Stage):
    port = free_port()
    environ = sqlite_stage.environ(PORT=str(port), BRIDGE_HOST="127.0.0.1", DATAFAST_API_KEY="")
    web = Blocked("web", ["-m", "bridge", "serve"], environ, sqlite_stage.folder, port)
    sqlite_stage.members.append(web)
    web.start()
    wait(lambda: sqlite_stage.answers(web), 30, "the bridge answers")
    os.close(web.kept)
