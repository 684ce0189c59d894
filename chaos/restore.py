"""A backup that is restored, with real processes and exactly the commands of docs/operations.md.

1. Events come in. The worker is killed in the middle, so that goals are pending, sent without an answer or parked, and
   events are not routed.
2. The database is backed up. Then everything is delivered, and more events come.
3. The backup is restored. The provider sends everything again, and new events come.

The run counts what the destination has recorded.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from chaos.family import Member, free_port, wait
from chaos.plan import KEY, SECRET, Plan, Sent, make_events
from chaos.sender import Sender

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "operations.md"
OPEN = ("parked", "pending", "leased", "sending", "unconfirmed")


@dataclass
class Restore:
    """One run in a folder. url: an empty database with the bridge's tables; on SQLite, `bridge.db` of the folder."""

    plan: Plan
    folder: Path
    url: str
    say: Any
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.plan.seed)
        self.sqlite = self.url.startswith("sqlite")
        self.url = "sqlite:///bridge.db" if self.sqlite else self.url.replace("+psycopg", "", 1)
        self.port = free_port()
        self.destination = Member("datafast", self.plan.destination(self.port), {}, self.folder, self.port)
        self.generation = 0

    # ------------------------------------------------------------------------------------------------------ the play

    def play(self) -> bool:
        """Play everything in order; return whether each goal is at the destination once."""
        before, between = self._events()
        with ExitStack() as ends:
            self.destination.start()
            ends.callback(self.destination.end)
            wait(self.destination.is_up, 60, "the destination is up")
            self._first_life(ends, before)
            self._run_commands("backup", 0)
            self.facts["in_the_backup"] = self._states()
            self._lost_life(ends, between)
            self._restore()
            after = self._second_life(ends, [*before, *between])
            return self._count([*before, *between, *after])

    def _events(self) -> tuple[list[Sent], list[Sent]]:
        """Two thirds come before the backup, except for some sales, whose refunds are parked until then."""
        first = make_events(replace(self.plan, events=self.plan.events * 2 // 3), self.rng)
        refunded = {sent.id.replace("evt_r", "evt_s") for sent in first if sent.goal == "refund"}
        kept = {sent.id for sent in first if sent.id in refunded and self.rng.random() < 0.5}
        second = make_events(replace(self.plan, events=self.plan.events // 3), self.rng, first=500_000)
        between = [*second, *(sent for sent in first if sent.id in kept)]
        self.rng.shuffle(between)
        return [sent for sent in first if sent.id not in kept], between

    def _first_life(self, ends: ExitStack, events: Sequence[Sent]) -> None:
        """Send until a third is delivered; then the worker is killed, and later events are not routed."""
        web, worker = self._start(ends, BRIDGE_RATE_PER_MINUTE="1200")
        most = len(events) * 9 // 10
        self._send(web, events[:most])
        wait(lambda: len(self._recorded()) >= len(events) // 3, 600, "a third of the goals is sent")
        worker.signal(signal.SIGKILL)
        worker.end()
        self._send(web, events[most:])
        with self._connect().begin() as conn:  # as if nobody could tell whether these arrived
            some = "SELECT id FROM goals WHERE state = 'pending' ORDER BY id DESC LIMIT 3"
            conn.execute(text(f"UPDATE goals SET state = 'held', reason = 'cannot_tell' WHERE id IN ({some})"))
        self.web = web

    def _lost_life(self, ends: ExitStack, events: Sequence[Sent]) -> None:
        """Deliver everything, and more; then the machine is lost."""
        _, worker = self._start(ends, self.web)
        self._send(self.web, events)
        self._drain()
        self.facts["delivered_then"] = len(self._recorded())
        for member in (worker, self.web):
            member.signal(signal.SIGKILL)
            member.end()

    def _restore(self) -> None:
        if not self.sqlite:
            self.url = self._empty_database()
        self._run_commands("restore", 1)

    def _second_life(self, ends: ExitStack, again: Sequence[Sent]) -> list[Sent]:
        """The provider sends everything again, in another order, while new events come."""
        fresh = make_events(replace(self.plan, events=max(self.plan.events // 10, 3)), self.rng, first=900_000)
        mixed = [*again, *fresh]
        self.rng.shuffle(mixed)
        began = time.monotonic()
        web, _ = self._start(ends)
        self._send(web, mixed)
        self._drain()
        self.facts["after_the_restore_s"] = round(time.monotonic() - began, 1)
        return fresh

    # ----------------------------------------------------------------------------------------------------- the parts

    def _start(self, ends: ExitStack, web: Member | None = None, **more: str) -> tuple[Member, Member]:
        """A web process that does not send, unless one is there, and a worker."""
        self.generation += 1
        environ = {
            **self._environ(),
            "DATAFAST_API_URL": f"http://127.0.0.1:{self.port}/api/v1",
            "BRIDGE_MAPPINGS": str(ROOT / "mappings"),
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "BRIDGE_WORKER": "off",
            **self.plan.settings(),
            **more,
        }
        port = free_port()
        web_environ = {**environ, "PORT": str(port), "BRIDGE_HOST": "127.0.0.1"}
        started = web or Member(f"web-{self.generation}", ["-m", "bridge", "serve"], web_environ, self.folder, port)
        worker = Member(f"worker-{self.generation}", ["-m", "bridge", "worker"], environ, self.folder, None)
        for member in (worker,) if web else (started, worker):
            member.start()
            ends.callback(member.end)
            wait(member.is_up, 120, f"{member.name} is up")
        return started, worker

    def _environ(self) -> dict[str, str]:
        return {"DATABASE_URL": self.url, "DATAFAST_API_KEY": KEY}

    def _send(self, web: Member, events: Sequence[Sent]) -> None:
        assert web.port is not None
        sender = Sender([web.port], list(events), self.plan.senders, lambda: 1.0, self.plan.seed)
        sender.start()
        sender.join(900)

    def _run_commands(self, what: str, number: int) -> None:
        """Run the commands of the page."""
        lines = commands("SQLite" if self.sqlite else "PostgreSQL")[number]
        self.say(f"  {what}: {'; '.join(lines)}")
        path = [str(Path(sys.executable).parent), *self._server_programs(), os.environ.get("PATH", os.defpath)]
        environ = {**self._environ(), "PATH": os.pathsep.join(path), "PYTHONPATH": str(ROOT)}
        script = "\n".join(["set -e", *lines])
        done = subprocess.run(
            ["sh", "-c", script], cwd=self.folder, env=environ, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{what} failed: {done.stdout}{done.stderr}")
        for line in done.stdout.splitlines():
            self.say(f"    {line}")

    def _connect(self) -> Any:
        url = f"sqlite:///{self.folder / 'bridge.db'}" if self.sqlite else "postgresql+psycopg" + self.url[10:]
        return create_engine(url, poolclass=NullPool)

    def _rows(self, statement: str) -> list[Any]:
        with self._connect().connect() as conn:
            return list(conn.execute(text(statement)))

    def _server_programs(self) -> list[str]:
        """The folder of pg_dump in the server's own version."""
        return [] if self.sqlite else [self._rows("SELECT setting FROM pg_config WHERE name = 'BINDIR'")[0][0]]

    def _empty_database(self) -> str:
        name = f"restored_{self.plan.seed}_{os.getpid()}"
        with self._connect().connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def _states(self) -> dict[str, int]:
        goals = {row[0]: row[1] for row in self._rows("SELECT state, count(*) FROM goals GROUP BY state")}
        return goals | {"unrouted": self._rows("SELECT count(*) FROM events WHERE state = 'received'")[0][0]}

    def _drain(self) -> None:
        """Wait until everything is delivered; held goals are sent by command, as a person would."""
        end = time.monotonic() + self.plan.drain_s
        while time.monotonic() < end:
            states = self._states()
            if states.get("held"):
                retry = [sys.executable, "-m", "bridge", "goals", "retry", "--state", "held", "--yes"]
                environ = {**os.environ, **self._environ(), "PYTHONPATH": str(ROOT)}
                subprocess.run(retry, cwd=self.folder, env=environ, check=True, stdout=subprocess.DEVNULL)
            if not states["unrouted"] and not any(states.get(state) for state in (*OPEN, "held")):
                return
            time.sleep(0.25)

    def _recorded(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/__fake__/events", timeout=120) as answer:
            found: list[dict[str, Any]] = json.load(answer)["events"]
        return found

    def _count(self, events: Sequence[Sent]) -> bool:
        times = Counter(str(goal["description"]) for goal in self._recorded())
        wanted = {sent.description for sent in events}
        self.facts |= {
            "goals": len(wanted),
            "states": self._states(),
            "lost": len(wanted - times.keys()),
            "doubled": sum(number > 1 for number in times.values()),
            "unasked": len(times.keys() - wanted),
            "found_at_the_destination": self._rows("SELECT count(*) FROM goals WHERE reason = 'read_back'")[0][0],
        }
        return not (self.facts["lost"] or self.facts["doubled"] or self.facts["unasked"])


def commands(database: str) -> list[list[str]]:
    """The commands of the page for this database: those for the backup, and those for restoring it."""
    part = PAGE.read_text("utf-8").split(f"\n### {database}\n")[1].split("\n#")[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)
    return [[line.removeprefix("$ ") for line in block.splitlines()] for block in blocks]


def play(wanted: Plan, say: Any) -> tuple[bool, dict[str, Any]]:
    """Play MODE=restore."""
    from chaos.databases import Database

    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        folder = Path(made)
        named = f"sqlite:///{folder / 'bridge.db'}" if wanted.database == "sqlite" else wanted.database
        with Database(named, folder) as database:
            run = Restore(wanted, folder, database.url, say)
            began = time.monotonic()
            ok = run.play()
        facts = {"mode": wanted.mode, "seed": wanted.seed, "took_s": round(time.monotonic() - began, 1), **run.facts}
    for name, value in run.facts.items():
        say(f"  {name:<26} {value}")
    return ok, facts
