"""`serve` on SQLite while somebody moves or replaces its file: red until a restart, and nothing lost or sent."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import requests
from stage import PATIENCE_S, checkout

from chaos.family import wait

WORDS = "The database file was moved, removed or replaced while it was open: the bridge must be restarted."


def rows(file):
    with closing(sqlite3.connect(file, timeout=30)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {name for (name,) in conn.execute("SELECT provider_event_id FROM events")}


def is_red(stage, web):
    status, ready = stage.get(web, "/status"), stage.get(web, "/readyz")
    red = status.status_code == ready.status_code == 503
    return red and status.json()["problems"] == [WORDS] and "restarted" in ready.json()["reason"]


class Posting:
    """Posts one event after another, as a provider does; `acknowledged` are those that got a 200."""

    def __init__(self, stage, web):
        self.acknowledged, self._ended = set(), False
        self._stage, self._web = stage, web
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_raised):
        self._ended = True
        self._thread.join()

    def _run(self):
        number = 0
        while not self._ended:
            number += 1
            try:
                answer = self._stage.post(self._web, checkout(number))
            except requests.ConnectionError:
                continue  # its process was just killed
            assert answer.status_code in (200, 503)
            if answer.status_code == 200:
                self.acknowledged.add(f"evt_{number}")


@pytest.mark.long
def test_a_replaced_file_is_red_until_a_restart_and_every_200_is_in_the_file_that_was_there(sqlite_stage):
    stage = sqlite_stage
    file = stage.folder / "bridge.db"
    another = Path(shutil.copy(file, stage.folder / "another.db"))
    web = stage.web(BRIDGE_WORKER="off")
    with Posting(stage, web) as posting:
        wait(lambda: len(posting.acknowledged) > 5, PATIENCE_S, "events are acknowledged")
        os.link(file, stage.folder / "kept.db")
        another.replace(file)
        wait(lambda: is_red(stage, web), PATIENCE_S, "both are red")
        log = file.with_name("bridge.db-wal")  # it stays at the path, where it would be read into the new file
        wait(lambda: log.stat().st_size == 0, PATIENCE_S, "the log is in the file that was there")
        (pid,) = web.children()
        os.kill(pid, signal.SIGKILL)  # the process that takes its place must not begin anew with the other file
        wait(lambda: web.children() not in ([], [pid]), PATIENCE_S, "another process takes its place")
        wait(lambda: stage.answers(web), PATIENCE_S, "it answers")
        wait(lambda: is_red(stage, web), PATIENCE_S, "it stays so")
    assert rows(file) == set()
    assert rows(stage.folder / "kept.db") >= posting.acknowledged
    web.end()
    again = stage.web("again")
    assert stage.post(again, checkout("after")).status_code == 200
    stage.wait_recorded("after")
    again.end()
    assert rows(file) == {"evt_after"}
    assert rows(stage.folder / "kept.db") >= posting.acknowledged


@pytest.mark.long
def test_no_goal_leaves_a_file_that_was_moved_and_all_go_when_it_is_back(sqlite_stage):
    stage = sqlite_stage
    file = stage.folder / "bridge.db"
    stage.fault(kind="503", times=3)
    web = stage.web(BRIDGE_RETRY_SCHEDULE="2s")
    for number in range(3):
        assert stage.post(web, checkout(number)).status_code == 200
    wait(lambda: stage.sql("SELECT 1 FROM attempts"), PATIENCE_S, "a goal was tried")
    moved = file.rename(stage.folder / "moved.db")
    wait(lambda: is_red(stage, web), PATIENCE_S, "both are red")
    assert stage.post(web, checkout("lost")).status_code == 503
    before = stage.recorded()
    time.sleep(4)  # the goals that wait are due by now
    assert stage.recorded() == before
    assert not file.exists()
    moved.rename(file)
    assert stage.post(web, checkout("lost")).status_code == 503
    web.end()
    stage.web("again")
    stage.wait_recorded(0, 1, 2)
