"""The gunicorn worker under slow, rude and many clients: real processes, raw sockets."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
REQUEST = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@dataclass
class Server:
    port: int
    process: subprocess.Popen

    def connect(self, data: bytes = b"") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        sock.sendall(data)
        return sock

    def post(self, body=b"hello", path: str = "/echo", timeout: float = 15) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def worker(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[0]


@contextmanager
def serving(log: Path, **options: object):
    port = free_port()
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "EDGE_PORT": str(port)}
    environ |= {f"EDGE_{name.upper()}": str(value) for name, value in options.items()}
    command = [sys.executable, "-m", "gunicorn", "-c", "python:edge_server", "edge_server:app"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environ, stderr=file, stdout=file)
    server = Server(port, process)
    try:
        wait_until(lambda: answers(server))
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(25)


def answers(server: Server) -> bool:
    try:
        return server.post()[0] == 200
    except OSError:
        return False


def wait_until(true, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("edge") / "log"


@pytest.fixture(scope="module")
def server(log):
    with serving(log) as made:
        yield made


def all_of(sock: socket.socket) -> bytes:
    """What the server says until it closes."""
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


def one_answer(sock: socket.socket) -> bytes:
    """One whole answer with a length, of a connection that is kept."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(1)
        assert more, data
        data += more
    length = int(data.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    return data + body


# ------------------------------------------------------------------------------------------------------ slow clients


@contextmanager
def dripping(server: Server, first: bytes, drip: bytes, clients: int, every_s: float = 0.1):
    """So many clients that begin a request, add a little now and then, and begin anew when they are cut."""
    stop = threading.Event()
    socks: list[socket.socket | None] = [None] * clients

    def drive() -> None:
        while not stop.is_set():
            for number, sock in enumerate(socks):
                try:
                    if sock is None:
                        socks[number] = server.connect(first)
                    else:
                        sock.sendall(drip)
                except OSError:
                    if sock is not None:
                        sock.close()
                    socks[number] = None
            stop.wait(every_s)

    thread = threading.Thread(target=drive)
    thread.start()
    time.sleep(0.3)
    yield
    stop.set()
    thread.join()
    for sock in filter(None, socks):
        sock.close()


HEAD = b"POST /echo HTTP/1.1\r\nHost: h\r\n"


def served_meanwhile(server: Server, seconds: float, body: bytes = b"hello") -> tuple[list[float], int]:
    """Requests of four quick clients for a while: how long each took, and how many failed."""
    until = time.monotonic() + seconds
    took: list[float] = []
    failed = []

    def ask() -> None:
        while time.monotonic() < until:
            started = time.monotonic()
            try:
                ok = server.post(body)[0] == 200
            except OSError:
                ok = False
            took.append(time.monotonic() - started)
            if not ok:
                failed.append(1)
            time.sleep(0.02)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ask(), range(4)))
    return sorted(took), len(failed)


@pytest.mark.long
def test_a_hundred_slow_heads_and_a_hundred_slow_bodies_delay_nobody(server):
    with (
        dripping(server, HEAD, b"X: y\r\n", 100),
        dripping(server, HEAD + b"Content-Length: 3000\r\n\r\n", b"x", 100),
    ):
        took, failed = served_meanwhile(server, 3.0)
    assert len(took) > 40
    assert failed <= len(took) // 100
    assert took[-1] < 40.0


def test_slow_large_bodies_give_their_room_to_others(server):
    with dripping(server, HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 50_000, b"x" * 100, 100):
        took, failed = served_meanwhile(server, 2.0, b"x" * 200_000)
    assert failed <= len(took) // 100
    assert took[-1] < 40.0


BEGUN = (b"P", HEAD, HEAD + b"Content-Length: 5\r\n\r\nhell", HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell")


def test_a_request_that_does_not_arrive_is_cut_at_the_deadline(server):
    """All of them at once, since each takes as long as the deadline."""
    begun = [(first, time.monotonic(), server.connect(first)) for first in BEGUN]
    for first, started, sock in begun:
        with sock:
            assert all_of(sock).startswith(b"HTTP/1.1 408 "), first
            assert 0.8 < time.monotonic() - started < 40, first


def test_a_client_that_says_nothing_is_closed_without_a_word(server):
    with server.connect() as sock:
        assert all_of(sock) == b""


def test_dripping_does_not_move_the_deadline(server):
    started = time.monotonic()
    with server.connect(HEAD) as sock:
        try:
            while time.monotonic() - started < 60:
                sock.sendall(b"X: y\r\n")
                time.sleep(0.05)
        except OSError:
            pass
    assert time.monotonic() - started < 40


def test_the_deadline_of_a_kept_connection_begins_with_its_next_byte(server):
    with server.connect(REQUEST) as sock:
        assert one_answer(sock).startswith(b"HTTP/1.1 200 ")
        time.sleep(1.5)
        sock.sendall(REQUEST[:-1])
        time.sleep(0.1)
        sock.sendall(REQUEST[-1:])
        assert one_answer(sock).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        sock.sendall(REQUEST[:-1])
        assert all_of(sock).startswith(b"HTTP/1.1 408 ")
        assert 0.8 < time.monotonic() - started < 40


def test_where_no_thread_can_be_started_a_request_is_503_and_the_next_is_served(log):
    with serving(log, no_threads=25) as server:  # `serving` has met some of them
        heard = [server.post(timeout=5)[0] for _ in range(30)]
        assert set(heard) <= {200, 503}
        assert heard[-1] == 200
        began = time.monotonic()
        server.process.terminate()
        server.process.wait(25)
        assert time.monotonic() - began < 20


@pytest.mark.long
def test_a_request_that_waits_for_a_thread_is_never_cut(log):
    with serving(log.with_name("busy"), threads=1, deadline_s=0.5) as busy, ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(lambda _: busy.post(path="/sleep/0.4")[0], range(6)))
    assert statuses == [200] * 6


def test_whoever_does_not_take_the_answer_holds_no_thread(log):
    with serving(log.with_name("readers"), threads=2) as slow:
        lazy = [slow.connect(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n") for _ in range(6)]
        time.sleep(0.5)
        started = time.monotonic()
        assert slow.post()[0] == 200
        assert time.monotonic() - started < 40
        whole = one_answer(lazy[0])
        assert len(whole) > 8_000_000
        for sock in lazy:
            sock.close()


# ---------------------------------------------------------------------------------------------------- many clients


@pytest.mark.long
def test_two_hundred_large_bodies_at_once_are_served_in_bounded_memory(log):
    body = b"x" * (1 << 20)
    with serving(log.with_name("large"), deadline_s=10) as large:
        worker = large.worker()
        peak = [0]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], worker.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(200) as pool:
            statuses = list(pool.map(lambda _: large.post(body, timeout=30)[0], range(200)))
        done.set()
        watcher.join()
    assert statuses == [200] * 200
    assert peak[0] < 180 << 20


def test_at_the_limit_of_connections_the_oldest_idle_ones_make_place(log):
    with serving(log.with_name("full"), connections=20, deadline_s=10) as full:
        kept = [full.connect(REQUEST) for _ in range(10)]
        for sock in kept:
            one_answer(sock)
        slow = [full.connect(HEAD) for _ in range(15)]
        time.sleep(1.2)
        assert [full.post(timeout=5)[0] for _ in range(10)] == [200] * 10
        for sock in (*kept, *slow):
            sock.close()


# ------------------------------------------------------------------------------------------------------ whole requests


def test_requests_behind_each_other_are_answered_in_order(server):
    lengths = [0, 3, 70_000, 1]
    data = b"".join(HEAD + b"Content-Length: %d\r\n\r\n%s" % (n, b"x" * n) for n in lengths)
    with server.connect() as sock:
        threading.Thread(target=sock.sendall, args=(data,)).start()
        told = [int(one_answer(sock).split(b"\r\n\r\n")[1].split()[0]) for _ in lengths]
    assert told == lengths


@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"llo"], [b"x"] * 300, [b"y" * 100_000, b"z" * 100_000], []])
def test_a_chunked_body_arrives_whole(server, pieces):
    data = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    with server.connect(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + data) as sock:
        assert one_answer(sock).split(b"\r\n\r\n")[1].split()[0] == b"%d" % sum(map(len, pieces))


def test_a_client_that_asks_first_may_go_on(server):
    with server.connect(HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n") as sock:
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert one_answer(sock).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_asks_first_hears_at_once_that_it_is_too_much(server):
    with server.connect(HEAD + b"Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n") as sock:
        assert all_of(sock).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("stated", [True, False])
def test_whoever_sends_too_much_still_hears_the_answer(server, stated):
    body = b"x" * 3_000_000
    status, _ = server.post(body if stated else iter([body]))
    assert status == 413


def test_an_application_that_fails_is_503_without_a_word_of_why(server, log):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("POST", "/fail", b"")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
    said = answer.read()
    assert b"secret" not in said
    assert b"secret" not in log.read_bytes()


RUDE = [
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",  # a TLS client
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"GET /\x00 HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nA : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: x\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\r\nSecret: \x01s3cret\r\n\r\n",
    b"GET / HTTP/1.1\r\ns3cret\r\n\r\n",
    b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    b"GET / HTTP/1.1\r\nA: " + b"b" * 9000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000,
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 5x\r\n\r\nhello",
    HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    HEAD + b"Content-Length: 99999999999999999999999999999999\r\n\r\n",
    HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: gzip, chunked, chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: snake\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloooo\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
    HEAD + b"Expect: a miracle\r\n\r\n",
    b"GET / HTTP/1.1\r\nSCRIPT_NAME: /x\r\n\r\n",
    b"CONNECT h:80 HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("data", RUDE, ids=range(len(RUDE)))
def test_bytes_that_are_no_request_are_never_our_fault(server, log, data):
    with server.connect(data) as sock:
        sock.shutdown(socket.SHUT_WR)
        said = all_of(sock)
    assert not said.startswith(b"HTTP/1.1 5")
    assert b"s3cret" not in said + log.read_bytes()
    assert b"Traceback" not in said + log.read_bytes()
    assert server.post()[0] == 200


def test_random_bytes_are_never_our_fault(server):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(300):
        data = bytearray(chance.choice((REQUEST, *RUDE)))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.choice(b"\r\n\x00 :;0159ax\xff")
        with server.connect(bytes(data)) as sock:
            sock.shutdown(socket.SHUT_WR)
            assert not all_of(sock).startswith(b"HTTP/1.1 5"), f"seed {seed}: {bytes(data)!r}"
    assert server.post()[0] == 200


# ------------------------------------------------------------------------------------------- answers that come later


def text(answer: bytes) -> bytes:
    return answer.split(b"\r\n\r\n")[1]


@pytest.mark.long
def test_answers_that_come_later_keep_no_thread_waiting(log):
    with serving(log.with_name("later"), threads=1) as single, ThreadPoolExecutor(60) as pool:
        started = time.monotonic()
        told = list(pool.map(lambda _: single.post(path="/quick/later/1"), range(60)))
        assert time.monotonic() - started < 45  # one after the other it would be sixty
        assert told == [(200, b"MainThread")] * 60  # the loop has made them


def test_an_answer_that_does_not_come_in_time_is_replaced_and_not_sent_as_well(server):
    with server.connect(b"POST /quick/later/0.8/0.3 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n") as sock:
        assert text(one_answer(sock)) == b"late"
        time.sleep(1)
        sock.sendall(REQUEST)
        assert text(one_answer(sock)).startswith(b"5 ")


def test_requests_behind_each_other_wait_for_the_answer_that_comes_later(server):
    paths = [b"/quick/later/0.5", b"/echo", b"/quick/later/0", b"/quick", b"/quick/later/0.1/2"]
    heads = [b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n" % path for path in paths]
    with server.connect(b"".join(heads)) as sock:
        told = [text(one_answer(sock)).split()[0] for _ in paths]
    assert told == [b"MainThread", b"0", b"MainThread", b"0", b"MainThread"]


@pytest.mark.long
def test_thousands_of_quick_requests_behind_each_other_are_no_depth(server):
    quick = b"POST /quick HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
    with server.connect() as sock:
        threading.Thread(target=sock.sendall, args=(quick * 3_000,)).start()
        assert {one_answer(sock)[:12] for _ in range(3_000)} == {b"HTTP/1.1 200"}


def test_whoever_leaves_before_the_answer_hurts_nobody(server):
    for _ in range(20):
        server.connect(b"POST /quick/later/0.2 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").close()
    before = server.worker().cpu_times().user
    time.sleep(1)
    assert server.worker().cpu_times().user - before < 0.5  # nobody spins on what cannot be read
    assert server.post()[0] == 200


@pytest.mark.parametrize("path", ["/quick/broken", "/quick/unmade", "/later/broken"])
def test_an_application_that_fails_after_its_promise_is_503(server, path):
    assert server.post(path=path)[0] == 503
    assert server.post()[0] == 200


def test_what_was_promised_is_answered_while_the_worker_stops(log):
    with serving(log.with_name("promised")) as stopping:
        sock = stopping.connect(b"POST /quick/later/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.3)
        stopping.process.send_signal(signal.SIGTERM)
        said = all_of(sock)
        sock.close()
    assert text(said) == b"MainThread"
    assert b"Connection: close" in said


# ------------------------------------------------------------------------------------------------------ stop and start


def test_sigterm_finishes_what_is_under_way_and_ends_soon(log):
    with serving(log.with_name("stop"), stop_s=1.5) as stopping, ThreadPoolExecutor(1) as pool:
        idle = stopping.connect(REQUEST)
        one_answer(idle)
        silent = stopping.connect()
        under_way = pool.submit(stopping.post, path="/sleep/1")
        arriving = stopping.connect(REQUEST[:-1])
        time.sleep(0.3)
        started = time.monotonic()
        stopping.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        arriving.sendall(REQUEST[-1:])
        assert one_answer(arriving).startswith(b"HTTP/1.1 200 ")
        assert under_way.result()[0] == 200
        assert stopping.process.wait(20) == 0
        assert 1.4 < time.monotonic() - started < 19  # not its whole grace
        for sock in (idle, silent, arriving):
            sock.close()


def test_a_worker_that_retires_loses_no_request(log):
    with serving(log.with_name("retire"), max_requests=40, stop_s=0.3) as retiring:
        told = [retiring.post()]
        until = time.monotonic() + 40
        while time.monotonic() < until and len({body for _, body in told}) < 3:
            told.append(retiring.post())
    assert {status for status, _ in told} == {200}
    assert len({body for _, body in told}) == 3  # three processes


def test_a_late_look_that_finds_a_whole_request_leaves_its_answer_time(server):
    """Whatever stood still meanwhile: the request came in time, so its promise begins when it is found."""
    body = b"x" * 30_000
    with server.connect(b"POST /quick/later/0.3/5 HTTP/1.1\r\nHost: h\r\n") as sock:
        time.sleep(0.3)
        server.worker().suspend()
        try:
            sock.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(1.5)
        finally:
            server.worker().resume()
        assert one_answer(sock).endswith(b"MainThread")
