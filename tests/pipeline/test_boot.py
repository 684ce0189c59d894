"""What a start costs and needs: no SDK of a provider, no network, and no code that the process will not use."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from running import ALICE, KEY, ROOT, SECRETS, checkout, environment, eventually

ARENA = 64 << 20  # bytes of addresses that glibc reserves for one

# Stands in front of everything on the path: tells a file what a process does that it should not.
TRAP = """
import os, sys

def _tell(what):
    with open(os.environ["TRAP"], "a") as file:
        file.write(what + "\\n")

def _here(host):
    text = host.decode() if isinstance(host, bytes) else host
    return text in (None, "", "localhost", "::1", "0.0.0.0") or str(text).startswith("127.")

def _watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple) and not _here(args[1][0]):
        _tell(f"connected to {args[1]}")
    if event == "socket.getaddrinfo" and not _here(args[0]):
        _tell(f"looked up {args[0]}")
    if event == "import" and (args[0] == "stripe" or args[0].startswith("stripe.")):
        _tell(f"imported {args[0]}")

sys.addaudithook(_watch)
_tell("watching")
"""
WATCH_IMPORTS = """
class Watch:
    def find_spec(self, name, path=None, target=None):
        with open(os.environ["IMPORTED"], "a") as file:
            file.write(f"{os.getpid()} {name}\\n")

sys.meta_path.insert(0, Watch())
"""


def trapped(folder):
    """An environment in which a process tells on itself, and what it told."""
    (folder / "trap").mkdir()
    (folder / "trap" / "sitecustomize.py").write_text(TRAP + WATCH_IMPORTS)
    told, imported = folder / "told.txt", folder / "imported.txt"
    path = os.pathsep.join((str(folder / "trap"), str(ROOT)))
    environ = {"PYTHONPATH": path, "TRAP": str(told), "IMPORTED": str(imported)}
    return environ, lambda: set(told.read_text().splitlines())


@pytest.fixture
def trap(tmp_path):
    return trapped(tmp_path)


@pytest.fixture(scope="module")
def served(shared_machine):
    """A web process in the trap, on SQLite, up to its first goal; and what it told."""
    environ, told = trapped(shared_machine.folder)
    datafast = shared_machine.datafast()
    web = shared_machine.web({**environment(datafast, f"sqlite:///{shared_machine.folder / 'bridge.db'}"), **environ})
    assert web.stripe(checkout()).status_code == 200
    eventually(lambda: datafast.seen() == [("purchase", ALICE)])
    return web, told


def run(code: str, environ: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=True, cwd="/"
    )
    return done.stdout.strip()


def test_the_trap_catches_what_it_should(trap):
    environ, told = trap
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 9), 0.01)\nexcept OSError: pass\nimport stripe"
    run(code, environ)
    assert told() >= {"watching", "connected to ('192.0.2.1', 9)", "imported stripe"}


@pytest.mark.long
def test_the_hot_path_does_not_load_the_sdk_of_stripe():
    parts = "bridge.web.wsgi, bridge.server.gunicorn_conf, bridge.app, bridge.cli.serve"
    code = f"import sys, {parts}; print(*sorted(n for n in sys.modules if n.split('.')[0] in ('stripe', 'alembic')))"
    assert run(code, {"PYTHONPATH": str(ROOT)}) == ""


@pytest.mark.long
def test_the_threads_of_a_worker_share_one_heap(served):
    """By itself, glibc gives threads arenas of their own, each of which keeps the memory that is freed in it."""
    master = served[0].process.pid
    [worker] = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    maps = Path(f"/proc/{worker}/maps").read_text()
    used_and_spare = re.findall(r"^(\w+)-(\w+) rw-p .*\n\2-(\w+) ---p", maps, re.MULTILINE)
    sizes = [int(end, 16) - int(begin, 16) for begin, _, end in used_and_spare]
    assert ARENA not in sizes


@pytest.mark.long
def test_what_serves_on_sqlite_loads_nothing_for_others_and_its_master_next_to_nothing(served, shared_machine):
    """Up to the first goal, and with a database that has to be created: what is loaded is start and memory."""
    imported = [line.split() for line in (shared_machine.folder / "imported.txt").read_text().splitlines()]
    everywhere = {name for _, name in imported}
    master = {name for pid, name in imported if int(pid) == served[0].process.pid}
    assert {"bridge.server.gunicorn_conf", "gunicorn.arbiter"} <= master
    assert {"bridge.app", "sqlalchemy", "flask", "pydantic"} <= everywhere
    assert not everywhere & {"psycopg", "sqlalchemy.dialects.postgresql", "alembic", "rich", "rich.console", "stripe"}
    assert not everywhere & {"apprise", "requests", "urllib3"}
    assert not master & {"bridge.app", "bridge.store", "sqlalchemy", "flask", "pydantic", "yaml"}


def test_starting_working_and_stopping_need_no_network_and_no_sdk(served):
    web, told = served
    assert web.stop()[0] == 0  # so it is the last of those that share the process
    assert told() == {"watching"}


@pytest.mark.long
def test_it_starts_where_datafast_cannot_be_reached(trap, machine):
    """With the real address of DataFast: as long as nothing is to be sent, it is not asked."""
    environ, told = trap
    given = {"DATAFAST_API_KEY": KEY, "BRIDGE_MAPPINGS": str(ROOT / "mappings"), **SECRETS, **environ}
    web = machine.web({**given, "DATABASE_URL": f"sqlite:///{machine.folder / 'bridge.db'}"})
    assert web.get("/readyz").status_code == 200
    assert web.stripe(checkout(1, None)).status_code == 200
    check = machine.bridge("check", environ=given)
    assert check.ended() == 0, check.log
    assert web.stop()[0] == 0
    assert told() == {"watching"}


def test_the_release_before_runs_on_the_tables_of_a_later_one(machine):
    datafast = machine.datafast()
    file = machine.folder / "bridge.db"
    environ = environment(datafast, f"sqlite:///{file}")
    assert machine.bridge("migrate", environ=environ).ended() == 0
    with closing(sqlite3.connect(file)) as conn, conn:
        conn.execute("UPDATE bridge_version SET version_num = '9999'")
        conn.execute("ALTER TABLE goals ADD COLUMN later TEXT")
    web = machine.web(environ)
    assert web.get("/readyz").status_code == 200
    assert web.stripe(checkout()).status_code == 200
    eventually(lambda: datafast.seen() == [("purchase", ALICE)])
