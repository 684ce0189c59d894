"""Commands that are processes: they start, say what they do, and end as they are told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from running import ROOT, STRIPE_SECRET, environment, eventually

from chaos.family import free_port


@pytest.mark.long
def test_a_worker_of_its_own_sends_what_the_web_process_received_and_ends_by_sigterm(machine, sqlite_url):
    datafast = machine.datafast()
    environ = environment(datafast, sqlite_url, BRIDGE_WORKER="off")
    web = machine.web(environ)
    played = machine.bridge("simulate", "stripe-purchase", "--to", web.url, "--seed", "5", environ=environ, name="play")
    assert played.ended() == 0, played.log
    assert datafast.goals() == []
    worker = machine.bridge("worker", environ=environ, name="worker")
    eventually(datafast.goals, what="the worker sends the goal")
    assert worker.stop()[0] == 0
    assert web.stop()[0] == 0


def test_serve_creates_its_sqlite_database_and_a_port_on_the_line_wins(machine, tmp_path):
    datafast = machine.datafast()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ = environment(datafast, f"sqlite:///{tmp_path / 'new.db'}", PORT=str(taken.getsockname()[1]))
        web = machine.web(environ, command=["python", "-m", "bridge", "serve", "--port", "0"])
        assert web.get("/readyz").status_code == 200
    assert (tmp_path / "new.db").exists()


def test_serve_warns_of_what_is_not_set_and_starts(machine, tmp_path):
    environ = {"DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}", "BRIDGE_MAPPINGS": str(ROOT / "mappings")}
    assert "warning: DATAFAST_API_KEY is not set" in machine.web(environ).log


def test_a_taken_port_of_the_sandbox_is_a_sentence(machine):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sandbox = machine.bridge("sandbox", "--port", str(taken.getsockname()[1]), environ={})
        assert sandbox.ended() == 1
    assert "choose another --port" in sandbox.log
    assert "Traceback" not in sandbox.log


@pytest.mark.long
def test_what_the_sandbox_prints_leads_to_goals_when_it_is_pasted(machine):
    """The lines as they are, in a shell of their own; the port alone is one that is free here."""
    sandbox = machine.bridge("sandbox", "--port", str(free_port()), environ={}, name="sandbox")
    eventually(lambda: "simulate" in sandbox.log, what="it says what to do")
    port = str(free_port())
    serve, simulate = (line.replace("8000", port) for line in sandbox.log.splitlines() if line.startswith("    "))
    (machine.folder / "mappings").symlink_to(ROOT / "mappings")
    machine.run(["sh", "-c", serve], {}, "serve").wait_for("listening")
    played = machine.run(["sh", "-c", simulate], {}, "simulate")
    assert played.ended() == 0, played.log
    page = serve.split("DATAFAST_API_URL=")[1].split("/api/")[0] + "/__fake__/events"
    eventually(lambda: "purchase" in requests.get(page, timeout=20).text, what="the goal arrives")
    assert (machine.folder / "sandbox.db").exists()


def test_simulate_says_what_it_needs_to_sign_and_what_was_not_accepted(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    line = ("simulate", "stripe-purchase", "--to", "http://127.0.0.1:9")
    code, told = command(*line)
    assert code == 2
    assert "set STRIPE_WEBHOOK_SECRET" in told
    code, told = command(*line, STRIPE_WEBHOOK_SECRET=STRIPE_SECRET)
    assert code == 1
    assert told == (
        "http://127.0.0.1:9/webhooks/stripe cannot be reached (nobody listens there): start the bridge with"
        " `python -m bridge serve`, or name another --to; 0 of 5 events sent before\n"
    )
    assert STRIPE_SECRET not in told


def test_a_reader_that_leaves_early_makes_no_noise(tmp_path):
    line = f"{sys.executable} -m bridge simulate --list --json | head -n 1"
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[\n", "")


@pytest.mark.long
def test_a_reader_that_leaves_in_the_middle_of_much_is_no_failure(tmp_path):
    """More than a pipe holds: the command is still writing, inside click, when `head` has gone."""
    file = tmp_path / "long.yaml"
    rule = f"  - {{goal: {'g' * 400}, event: e}}\n"  # its id is there already, which a sentence says that repeats it
    file.write_text(f"provider: stripe\ngoals:\n{rule * 200}")
    line = f"{sys.executable} -m bridge check {file} | head -n 1; exit ${{PIPESTATUS[0]}}"
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_a_taken_port_of_serve_is_a_sentence_and_at_once(machine, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environ = {"DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}", "DATAFAST_API_KEY": "df_key"}
        given = {**environ, "BRIDGE_HOST": "127.0.0.1", "BRIDGE_MAPPINGS": str(ROOT / "mappings")}
        second = machine.bridge("serve", "--port", port, environ=given)
        assert second.ended() == 1
    assert second.log.startswith(f"Cannot listen on port {port} of 127.0.0.1: address already in use.")
    assert len(second.log.splitlines()) == 1


def test_a_database_that_serve_cannot_write_is_a_sentence_and_at_once(machine, tmp_path):
    (tmp_path / "notes.txt").write_text("no database, and longer than the head of one would be\n" * 40)
    said = {
        "missing/new.db": f"DATABASE_URL: the folder {tmp_path}/missing does not exist: create it, or name a file"
        " elsewhere",
        "notes.txt": f"DATABASE_URL: {tmp_path}/notes.txt is not a SQLite database: name another file, or put a backup"
        " there",
    }
    for number, (name, sentence) in enumerate(said.items()):
        environ = {"DATABASE_URL": f"sqlite:///{tmp_path / name}", "DATAFAST_API_KEY": "df_key", "PORT": "0"}
        serve = machine.bridge("serve", environ=environ, name=f"serve-{number}")
        assert serve.ended() == 1
        assert serve.log == f"{sentence}\n"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def nobody_listens(web) -> bool:
    try:
        web.get("/healthz")
    except requests.ConnectionError:
        return True
    return False


@pytest.mark.long
def test_usr2_starts_a_second_server_which_goes_on_when_the_first_ends(machine, tmp_path):
    web = machine.web(environment(machine.datafast(), f"sqlite:///{tmp_path / 'new.db'}"))
    web.process.send_signal(signal.SIGUSR2)
    second = eventually(lambda: [pid for pid in children(web.process.pid) if children(pid)], what="a second server")[0]
    eventually(lambda: len(web.told("listening")) == 2, what="the second server listens")
    assert web.stop()[0] == 0
    assert web.get("/readyz").status_code == 200
    os.kill(second, signal.SIGTERM)
    eventually(lambda: nobody_listens(web), what="the second server ends")
