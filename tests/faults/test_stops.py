"""Stopping at bad moments: while a worker starts, while its leases run, in the middle of a commit."""

from __future__ import annotations

import platform
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
from stage import checkout

from chaos.family import answers, free_port, wait
from chaos.run import ROOT


@pytest.mark.long
def test_a_stop_that_comes_right_after_the_fork_is_heard(sqlite_stage):
    """The server's handler, inherited by the worker, swallowed it; after 20 s the worker was killed while sending."""
    stage, port = sqlite_stage, free_port()
    path = f"{ROOT}:{ROOT / 'tests' / 'faults'}"
    environ = stage.environ(PORT=str(port), BRIDGE_HOST="127.0.0.1", PYTHONPATH=path)
    words = ["-m", "gunicorn", "-c", "python:slow_fork", "bridge.web.wsgi:app"]
    web = stage.member("web", words, port, environ)
    wait(lambda: answers(port) and web.children(), 60, "the worker is forked")
    web.signal(signal.SIGTERM, to="master")
    began = time.monotonic()
    assert web.process.wait(60) == 0
    assert time.monotonic() - began < 15, web.log_file.read_text()


def heaps(pid):
    """The heaps that glibc made for threads: 64 MiB each from a multiple of that, the first part in use."""
    size = 64 * 2**20
    lines = (line.split()[0].split("-") for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    spans = [(int(start, 16), int(end, 16)) for start, end in lines]
    pairs = [(one, other) for one, other in pairwise(spans) if one[1] == other[0]]
    return [one for one, other in pairs if one[0] % size == 0 and other[1] == one[0] + size]


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc makes a heap for each thread")
def test_the_threads_of_a_worker_share_one_heap(sqlite_stage):
    stage = sqlite_stage
    web = stage.web(BRIDGE_WORKER="off")
    assert stage.post(web, checkout(1)).status_code == 200
    worker = stage.member("worker", ["-m", "bridge", "worker"], None, stage.environ())
    stage.wait_recorded(1)
    assert heaps(worker.process.pid) == []


@pytest.mark.long
def test_a_worker_gives_its_leases_back_and_ends_in_time(stage):
    web = stage.web(BRIDGE_WORKER="off")
    for number in range(20):
        assert stage.post(web, checkout(number)).status_code == 200
    patient = stage.environ(BRIDGE_LEASE="10min")  # what is not given back is not sent within this test
    worker = stage.member("worker", ["-m", "bridge", "worker"], None, patient)
    wait(stage.recorded, 60, "the worker sends")
    worker.signal(signal.SIGTERM)
    began = time.monotonic()
    assert worker.process.wait(60) == 0
    assert time.monotonic() - began < 20
    told = worker.log_file.read_text()
    assert "stop.unfinished" not in told
    again = stage.member("again", ["-m", "bridge", "worker"], None, stage.environ())
    stage.wait_recorded(*range(20))
    again.end()


@pytest.mark.long
def test_a_stop_while_the_database_is_busy_leaves_no_goal_in_doubt(stage):
    """DataFast has answered, but its answer could not be written for longer than a transaction waits."""
    web = stage.web(BRIDGE_DEADLINE="5s", BRIDGE_LEASE="10min")
    stage.fault(kind="recorded_drip", drip_ms=4)
    assert stage.post(web, checkout(1)).status_code == 200
    wait(stage.recorded, 60, "it is recorded, and the answer on its way")
    with stage.locked():
        web.signal(signal.SIGTERM, to="master")
        time.sleep(4)
        assert web.process.poll() is None
    assert web.process.wait(60) == 0
    assert stage.sql("SELECT outcome FROM attempts") == [("delivered",)], web.log_file.read_text()
    assert stage.sql("SELECT state FROM goals") == [("delivered",)]
