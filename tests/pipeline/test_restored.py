"""`restored` as an operator runs it: beside a bridge that runs, twice, without a terminal, and what `why` says then."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest
from running import ALICE, KEY, ROOT, checkout, environment, eventually


def command(folder, environ, *words):
    """`python -m bridge …` to its end: exit code, what it said, what it complained about."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, " ".join(done.stderr.split())


@pytest.mark.long
@pytest.mark.timeout(240)
def test_it_is_refused_beside_a_running_bridge_and_noted_once_that_is_stopped(machine, database_url):
    datafast = machine.datafast()
    environ = environment(datafast, database_url)
    web = machine.web(environ)
    code, _, complaint = command(machine.folder, environ, "restored", "--yes")
    assert code == 1
    assert "Stop every process of it" in complaint
    assert "--backed-up-at" in complaint
    web.kill()
    code, told, _ = command(machine.folder, environ, "restored", "--yes", "--json")
    assert code == 0, told
    first = json.loads(told)
    assert first["backed_up_at_ms"] < first["restored_at_ms"]
    code, told, _ = command(machine.folder, environ, "restored", "--yes", "--json")
    assert code == 0
    assert json.loads(told) | {"restored_at_ms": 0} == first | {"restored_at_ms": 0}
    code, told, complaint = command(machine.folder, environ, "restored")
    assert code == 2
    assert "what was sent since then is not in it" in told
    assert "add --yes" in complaint


@pytest.mark.long
@pytest.mark.timeout(240)
def test_why_says_how_the_bridge_knows_that_it_was_sent(machine, sqlite_url):
    datafast = machine.datafast()
    environ = environment(datafast, sqlite_url, BRIDGE_READBACK="200ms,400ms")
    file = machine.folder / "bridge.db"
    asleep = machine.web({**environ, "BRIDGE_WORKER": "off"}, "asleep")
    assert asleep.stripe(checkout(1)).status_code == 200
    assert asleep.stop()[0] == 0
    assert not file.with_name("bridge.db-wal").exists(), "the file is not whole by itself"
    shutil.copy(file, machine.folder / "back-up.db")
    lost = machine.web(environ, "lost")
    eventually(lambda: datafast.seen() == [("purchase", ALICE)])
    assert lost.stop()[0] == 0
    shutil.copy(machine.folder / "back-up.db", file)
    code, told, _ = command(machine.folder, environ, "restored", "--yes")
    assert (code, "1 event not routed yet" in told) == (0, True)
    again = machine.web(environ, "again")
    with sqlite3.connect(file) as conn:
        eventually(lambda: conn.execute("SELECT state FROM goals").fetchall() == [("delivered",)])
    time.sleep(3)  # an event states whole seconds, and two are allowed for a clock that is ahead
    assert again.stripe(checkout(2)).status_code == 200
    eventually(lambda: len(datafast.goals()) == 2, what="what is new is sent")
    assert [one["path"] for one in datafast.asked() if one["method"] == "GET"] == [f"/api/v1/visitors/{ALICE}"]
    code, told, _ = command(machine.folder, environ, "goals", "show", "goal_1")
    assert "DataFast recorded it at 20" in told
    assert "the backup does not cover this time; DataFast says that the goal was sent then" in told
    assert KEY not in told
