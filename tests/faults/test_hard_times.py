"""PostgreSQL lives and refuses: no privileges, read-only, no room, frozen, everybody thrown out, low time limits.

503 within 3 s meanwhile with a sentence and no stack trace, no event is blamed for it, and all goes on by itself. A
`serve` that was started in the middle of it waits, and works when it is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import psycopg
import pytest
from stage import checkout

from chaos.family import free_port, wait

PROMISE_MS = 3_000
ROLE = "bridge_hard_times"


@pytest.fixture
def admin(postgres_stage):
    with psycopg.connect(postgres_stage.database_url.replace("+psycopg", "", 1), autocommit=True) as conn:
        yield conn


@pytest.fixture
def stage(postgres_stage, admin):
    """As a role that may only do what the bridge needs."""
    admin.execute(f"CREATE ROLE {ROLE} LOGIN")
    superuser = postgres_stage.database_url
    told = psycopg.conninfo.conninfo_to_dict(superuser.replace("+psycopg", "", 1))
    postgres_stage.database_url = f"postgresql+psycopg://{ROLE}@/{told['dbname']}?host={told['host']}"
    yield postgres_stage
    for member in postgres_stage.members:
        member.end()
    admin.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def grant(admin):
    admin.execute(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE};"
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}"
    )


def start_meanwhile(stage, name):
    """`serve`, while the database cannot be used."""
    port = free_port()
    environ = stage.environ(PORT=str(port), BRIDGE_HOST="127.0.0.1", BRIDGE_WORKER="off")
    made = stage.member(name, ["-m", "bridge", "serve"], port, environ)
    wait(made.is_up, 60, f"{name} listens")
    return made


def refused(stage, web, mark, said):
    """503 in time; and red, with this sentence for the owner."""
    assert stage.post(web, checkout(mark)).status_code == 503
    assert stage.get(web, "/readyz").status_code == 503
    red = stage.get(web, "/status", admin=True)
    assert red.status_code == 503
    assert said in red.json()["problems"][0], red.json()["problems"]


def over(stage, webs, *marks):
    """All that was refused is sent again, taken, and arrives; in time, without a trace, and no event was blamed."""
    for web in webs:
        for mark in marks:
            wait(lambda w=web, m=mark: stage.post(w, checkout(m)).status_code == 200, 60, f"{web.name} takes {mark}")
        wait(lambda w=web: stage.get(w, "/readyz").status_code == 200, 30, f"{web.name} is ready")
        text = web.log_file.read_text()
        assert "Traceback" not in text
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        slowest_ms = max(line["ms"] for line in lines if line.get("event") == "webhook")
        assert slowest_ms < PROMISE_MS + stage.pulse.missed_ms()
        assert not [line for line in lines if line.get("event") in ("fault", "route.fault", "route.row_by_row")]
    wait(lambda: set(stage.recorded()) >= {f"stripe evt_{mark}" for mark in marks}, 90, f"{marks} arrive")
    assert stage.sql("SELECT count(*) FROM events WHERE state = 'quarantined'")[0][0] == 0


@pytest.mark.long
def test_privileges_that_are_missing_or_taken_away(stage, admin):
    early = start_meanwhile(stage, "early")
    wait(lambda: "forbids" in early.log_file.read_text(), 30, "it says why it waits")
    assert stage.post(early, checkout("early")).status_code == 503
    grant(admin)
    web = stage.web()
    over(stage, [web, early], "early")
    for revoked in ("INSERT ON events", "UPDATE ON source_counters", "UPDATE ON facts"):
        admin.execute(f"REVOKE {revoked} FROM {ROLE}")
        if "facts" not in revoked:
            refused(stage, web, "revoked", "forbids what the bridge has to do")
        else:
            wait(lambda: stage.get(web, "/readyz").status_code == 503, 10, "/readyz is red")
        grant(admin)
        over(stage, [web], "revoked")
    admin.execute(f"REVOKE INSERT, UPDATE ON goals, link_keys, attempts FROM {ROLE}")
    assert stage.post(web, checkout("unroutable")).status_code == 200
    time.sleep(3)
    assert "stripe evt_unroutable" not in stage.recorded()
    grant(admin)
    over(stage, [web], "unroutable")


@pytest.mark.long
def test_a_server_that_refuses_writes_has_no_room_or_freezes(stage, admin, postgres):
    grant(admin)
    web = stage.web()
    assert stage.post(web, checkout("before")).status_code == 200

    admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    admin.execute("SELECT pg_reload_conf()")
    try:
        wait(lambda: stage.get(web, "/readyz").status_code == 503, 10, "it is noticed")
        refused(stage, web, "read-only", "accepts no writes")
        started = [start_meanwhile(stage, "while-read-only")]
    finally:
        admin.execute("SET default_transaction_read_only = off")
        admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        admin.execute("SELECT pg_reload_conf()")
    over(stage, [web, *started], "before", "read-only")

    admin.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    refused(stage, web, "full", "has no room left on its disk")
    admin.execute("DROP FUNCTION full_disk CASCADE")
    over(stage, [web], "full")

    pids = server_pids(postgres)
    try:
        tell(pids, signal.SIGSTOP)
        refused(stage, web, "frozen", "database")
        started.append(start_meanwhile(stage, "while-frozen"))
        assert stage.post(started[-1], checkout("frozen")).status_code == 503
    finally:
        tell(pids, signal.SIGCONT)
    over(stage, [web, *started], "frozen")


def server_pids(postgres):
    """The server's first process and all that it has started."""
    first = int((Path(postgres.server.pgdata) / "postmaster.pid").read_text().splitlines()[0])
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, children)]


def tell(pids, what):
    """One whose connection was given back meanwhile has ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


@pytest.mark.long
def test_everybody_is_thrown_out_again_and_again(stage, admin):
    grant(admin)
    web = stage.web()
    ended = threading.Event()

    def throw_out():
        while not ended.wait(0.5):
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (ROLE,))

    thrower = threading.Thread(target=throw_out)
    thrower.start()
    statuses = {}
    until = time.monotonic() + 4
    while time.monotonic() < until:
        mark = f"thrown-{len(statuses)}"
        statuses[mark] = stage.post(web, checkout(mark)).status_code
    ended.set()
    thrower.join()
    assert set(statuses.values()) <= {200, 503}
    taken = [mark for mark, status in statuses.items() if status == 200]
    assert len(taken) > len(statuses) / 2
    over(stage, [web], *list(statuses)[-1:])
    wait(lambda: set(stage.recorded()) >= {f"stripe evt_{mark}" for mark in taken}, 90, "what was acknowledged arrives")
    assert len(stage.recorded()) == len(set(stage.recorded()))


def test_low_time_limits_of_the_role_do_not_matter(stage, admin):
    grant(admin)
    for setting, limit in (
        ("statement_timeout", "50ms"),
        ("lock_timeout", "10ms"),
        ("idle_in_transaction_session_timeout", "50ms"),
        ("idle_session_timeout", "300ms"),
    ):
        admin.execute(f"ALTER ROLE {ROLE} SET {setting} = '{limit}'")
    web = stage.web()
    for number in range(5):
        wait(lambda n=number: stage.post(web, checkout(n)).status_code == 200, 30, "it is taken")
        time.sleep(0.4)
    assert stage.get(web, "/readyz").status_code == 200
    over(stage, [web], *range(5))
