"""A 200 is only said after its event is on the disk: seen from outside, by the system calls of the process.

`strace` shows in which order the write-ahead log is synced and answers go out. On PostgreSQL the server syncs; there
it is shown that the acknowledging transaction waits for it, whatever the server's default is.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from stage import checkout, event

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace (apt-get install strace)")
CALLS = "trace=recvfrom,read,sendto,sendmsg,write,writev,fdatasync,fsync,pwrite64"


def calls(trace):
    """(what, path or text) of each finished call, in the order in which they ended."""
    unfinished = {}
    for line in trace.splitlines():
        if "<unfinished ...>" in line:
            thread = line.split(" ", 1)[0]
            unfinished[thread] = line.split("<unfinished")[0]
        elif "resumed>" in line:
            thread = line.split(" ", 1)[0]
            yield unfinished.pop(thread, "") + line.split("resumed>", 1)[1]
        else:
            yield line


def proofs(trace):
    """For each answer `accepted`: was the log written, and then synced, since the answer before?

    Other transactions may write in between (routing does not wait for the disk); none of them syncs for the ack.
    """
    written = synced = False
    for call in calls(trace):
        if "pwrite64(" in call and "bridge.db-wal" in call:
            written = True
        elif re.search(r"f(data)?sync\(", call) and "bridge.db-wal" in call and call.rstrip().endswith("= 0"):
            synced = synced or written
        elif re.search(r"(sendto|sendmsg|write|writev)\(", call) and "HTTP/1.1 200" in call and "accepted" in call:
            yield synced
            written = synced = False


@needs_strace
@pytest.mark.parametrize("worker", [pytest.param("off", marks=pytest.mark.long), "inline"])
def test_the_log_is_synced_before_each_answer(sqlite_stage, worker):
    stage = sqlite_stage
    trace = stage.folder / "trace"
    traced = ["-c", _UNDER_STRACE, str(trace), CALLS]
    web = stage.web(command=traced, BRIDGE_WORKER=worker)
    for number in range(12):  # one after the other: every answer has a commit of its own
        answer = stage.post(web, event(f"evt_{number}", "customer.updated", {"id": f"cus_{number}"}), timeout_s=60)
        assert answer.json() == {"status": "accepted"}
    web.end()
    found = list(proofs(trace.read_text(errors="replace")))
    assert found == [True] * 12


_UNDER_STRACE = (
    "import os, sys; trace, calls = sys.argv[1:];"
    " os.execvp('strace', ['strace', '-f', '-y', '-s', '400', '-e', calls, '-o', trace,"
    " sys.executable, '-m', 'bridge', 'serve'])"
)


def test_a_trace_without_a_sync_is_noticed():
    lines = (
        '10 pwrite64(9</tmp/bridge.db-wal>, "x"..., 24, 0) = 24\n'
        "10 fdatasync(9</tmp/bridge.db-wal> <unfinished ...>\n"
        "11 read(3<pipe>, 1) = 1\n"
        "10 <... fdatasync resumed>) = 0\n"
        '10 sendto(7<socket>, "HTTP/1.1 200 OK {\\"status\\":\\"accepted\\"}") = 1\n'
    )
    assert list(proofs(lines)) == [True]
    assert list(proofs(lines.replace("fdatasync", "fdatafync"))) == [False]
    swapped = lines.splitlines()
    assert list(proofs("\n".join([*swapped[:3], swapped[4], swapped[3]]))) == [False]
    assert list(proofs(lines + lines.splitlines()[-1])) == [True, False]


def test_what_is_acknowledged_survives_that_the_process_and_its_log_writers_die(sqlite_stage):
    """The database as it lies on the disk at the moment of the 200, read by somebody else."""
    stage = sqlite_stage
    web = stage.web(BRIDGE_WORKER="off")

    def send(number):
        answer = stage.post(web, checkout(number))
        return answer.status_code, {path.name: path.read_bytes() for path in stage.folder.glob("bridge.db*")}

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, range(12)))
    web.end()
    copy = stage.folder / "copy"
    for number, (status, files) in enumerate(answers):
        assert status == 200
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name in ("bridge.db", "bridge.db-wal"):
            (copy / name).write_bytes(files.get(name, b""))
        with closing(sqlite3.connect(copy / "bridge.db")) as conn:
            wanted = (f"evt_{number}",)
            assert conn.execute("SELECT 1 FROM events WHERE provider_event_id = ?", wanted).fetchall() == [(1,)]


@pytest.mark.long
@pytest.mark.parametrize("setting", ["off", pytest.param("on", marks=pytest.mark.long)])
def test_the_acknowledging_transaction_waits_for_the_disk_whatever_the_servers_default(
    postgres, postgres_stage, setting
):
    stage = postgres_stage
    address = stage.database_url.replace("+psycopg", "", 1)
    with psycopg.connect(address, autocommit=True) as conn:
        name = conn.info.dbname
        conn.execute("CREATE TABLE seen (setting text)")
        conn.execute(
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$"
        )
        conn.execute("CREATE TRIGGER see AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION see()")
    postgres.execute("postgres", f'ALTER DATABASE "{name}" SET synchronous_commit = {setting}')
    web = stage.web(BRIDGE_WORKER="off")
    assert stage.post(web, checkout(1)).status_code == 200
    web.end()
    with psycopg.connect(address) as conn:
        assert conn.execute("SELECT setting FROM seen").fetchall() == [("on",)]
