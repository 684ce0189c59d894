"""MODE=clock: real processes whose clock is set wrong from outside, and then right; or that stand still for 30 days.

CLOCK=hour|days|days-restart|years|years-restart|stop|all, LASTS=70 (seconds that it is wrong; `hour` always takes 10).

- On SQLite, the database's clock is that of the bridge's processes. A `sitecustomize` moves it.
- The world's clock (of the destination, the provider, and, with PostgreSQL, of the bridge) is moved in the same way.
- PostgreSQL's clock is a function that hides its own.

Webhooks are signed by the clock of the process that reads them, so that events are accepted while it is wrong.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bridge.store.schema import attempts, events, goal_keys, goals, link_events, link_keys, link_visitors
from chaos import ledger
from chaos.databases import Database
from chaos.family import ROOT, Member, wait
from chaos.plan import KEY, Plan, Sent
from chaos.run import Run, Say, quiet
from chaos.sender import Sender

Facts = dict[str, Any]

DAY_MS: Final = 86_400_000
WITHIN_S: Final = 60.0  # waiting goals are sent within a minute after the clock is right
KEPT: Final = (events, goals, goal_keys, attempts, link_keys, link_visitors, link_events)

_SITECUSTOMIZE = """
import mmap, os, struct, time
_ahead = mmap.mmap(os.open(os.environ["CHAOS_CLOCK"], os.O_RDONLY), 8, prot=mmap.PROT_READ)
_true_ns = time.time_ns
time.time_ns = lambda: _true_ns() + struct.unpack("q", _ahead[:8])[0] * 1_000_000
time.time = lambda: time.time_ns() / 1e9
"""
_POSTGRESQL = (
    "CREATE TABLE public.chaos_clock (ahead_ms BIGINT)",
    "INSERT INTO public.chaos_clock VALUES (0)",
    "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT"  # noqa: ISC004
    " pg_catalog.clock_timestamp() + (SELECT ahead_ms FROM public.chaos_clock) * interval '1 millisecond' $$",
    "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || quote_ident(current_database())"  # noqa: ISC004
    " || ' SET search_path = public, pg_catalog'; END $$",
)


@dataclass(frozen=True)
class Scenario:
    """What happens to the clock. restart: it changes while no process runs. passes: time really passes."""

    ahead_ms: int
    lasts_s: float = 70.0  # longer than the minute between two rounds of forgetting
    restart: bool = False
    passes: bool = False


SCENARIOS: Final = {
    "hour": Scenario(3_600_000, 10.0),
    "days": Scenario(500 * DAY_MS),
    "days-restart": Scenario(500 * DAY_MS, restart=True),
    "years": Scenario(-3_652 * DAY_MS),
    "years-restart": Scenario(-3_652 * DAY_MS, restart=True),
    "stop": Scenario(30 * DAY_MS, 0.0, restart=True, passes=True),
}


class Clock:
    """The clock of some processes; `environ` makes them read it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.clock"
        before = folder / "before"
        before.mkdir(exist_ok=True)
        (before / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self.environ = {"CHAOS_CLOCK": str(self._file), "PYTHONPATH": f"{before}{os.pathsep}{ROOT}"}
        self._file.write_bytes(bytes(8))
        self._ahead_ms = 0

    def set(self, ahead_ms: int) -> None:
        self._ahead_ms = ahead_ms
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", ahead_ms))

    def now_s(self) -> float:
        return time.time() + self._ahead_ms / 1_000


class Clocks:
    """The clocks of the bridge's processes, of the world, and of PostgreSQL."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.bridge = Clock(folder, "bridge")
        self.world = Clock(folder, "world")
        self._database = database
        if database.kind == "postgresql":
            database.do(*_POSTGRESQL)

    def set(self, ahead_ms: int) -> None:
        """Set how far the database's clock is ahead of the world's."""
        if self._database.kind == "sqlite":
            self.bridge.set(ahead_ms)
        else:
            self._database.do(f"UPDATE public.chaos_clock SET ahead_ms = {ahead_ms}")

    def advance(self, ms: int) -> None:
        """Let this much time pass, everywhere."""
        self.set(ms)
        self.bridge.set(ms)
        self.world.set(ms)


@dataclass
class ClockRun:
    """One scenario on an empty database."""

    plan: Plan
    scenario: Scenario
    folder: Path
    database: Database
    facts: Facts = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clocks = Clocks(self.folder, self.database)
        more = {**self.clocks.bridge.environ, "BRIDGE_RATE_PER_MINUTE": "1200", "BRIDGE_RETENTION_DAYS": "7"}
        more |= {"BRIDGE_ADMIN_TOKEN": KEY}
        plan = replace(self.plan, more={**more, **self.plan.more}, destination_environ=self.clocks.world.environ)
        self.run = Run(plan, self.folder, self.database, quiet)
        self.members = [*self.run.webs, *self.run.workers]

    def play(self) -> bool:
        """Everything, in order; whether nothing was lost, doubled, deleted or kept waiting."""
        sent = self.run.events
        first, meanwhile, last = (sent[len(sent) * part // 3 : len(sent) * (part + 1) // 3] for part in range(3))
        with ExitStack() as ends:
            for member in (self.run.destination, *self.members):
                ends.callback(member.end)
            self._start(self.run.destination)
            self._start(*self.members)
            self._send(first)
            wait(lambda: len(self.run.recorded()) > len(first) // 2, 120, "half of the first goals have arrived")
            rows = self._rows()
            if self.scenario.passes:
                self._stand_still(meanwhile)
            else:
                self._set_wrong(meanwhile)
            began = time.monotonic()
            if self.scenario.restart:
                self._start(*self.members)
            self.run.drain()
            self.facts["waiting_s"] = round(time.monotonic() - began, 1)
            self.facts["note"] = self._notes()
            self._send(last if not self.scenario.passes else self._later(last))
            self.run.drain()
            return self._count(rows)

    # ----------------------------------------------------------------------------------------------------- the clock

    def _set_wrong(self, meanwhile: Sequence[Sent]) -> None:
        began = time.monotonic()
        if self.scenario.restart:
            self._kill()
        self.clocks.set(self.scenario.ahead_ms)
        if self.scenario.restart:
            self._start(*self.members)
            began = time.monotonic()
        half = len(meanwhile) // 2
        self._send(meanwhile[:half])
        self.facts["by_the_wrong_clock"] = self._received_far_off()
        time.sleep(max(0.0, self.scenario.lasts_s - (time.monotonic() - began)))
        self._send(meanwhile[half:])  # and these still wait when it is right
        self.facts["sent_meanwhile"] = len(self.run.recorded())
        if self.scenario.restart:
            self._kill()
        self.facts["waited"] = self._waiting()
        self.clocks.set(0)

    def _stand_still(self, meanwhile: Sequence[Sent]) -> None:
        """The destination fails, so that much is waiting or in doubt when the bridge is stopped."""
        self._set_destination_options(fault_percent=100)
        self._send(meanwhile)
        self.facts["by_the_wrong_clock"] = 0
        for member in self.members:
            member.signal(signal.SIGTERM, to="master")
        for member in self.members:
            assert member.process is not None
            member.process.wait(60)
        self.facts["waited"] = self._waiting()
        self.clocks.advance(self.scenario.ahead_ms)
        self._set_destination_options(fault_percent=self.plan.faults)

    def _later(self, sent: Sequence[Sent]) -> list[Sent]:
        """The same events, but created after the time that has passed meanwhile."""
        later = {}
        for event in sent:
            body = json.loads(event.body)
            body["created"] += self.scenario.ahead_ms // 1_000
            later[event.id] = replace(event, body=json.dumps(body).encode())
        self.run.events = [later.get(event.id, event) for event in self.run.events]
        return list(later.values())

    def _received_far_off(self) -> int:
        far = "SELECT count(*) FROM events WHERE abs(received_at_ms - :now) > :far"
        return int(self.database.rows(far, now=round(time.time() * 1000), far=abs(self.scenario.ahead_ms) // 2)[0][0])

    # ------------------------------------------------------------------------------------------------------ the parts

    def _start(self, *members: Member) -> None:
        for member in members:
            member.start()
        wait(lambda: all(member.is_up() for member in members), 120, "the processes are up")

    def _kill(self) -> None:
        for member in self.members:
            member.end()

    def _send(self, sent: Sequence[Sent]) -> None:
        ports = [member.port for member in self.run.webs if member.port is not None]
        sender = Sender(ports, sent, self.plan.senders, lambda: 1.0, self.plan.seed, now_s=self.clocks.bridge.now_s)
        sender.start()
        sender.join(600)
        self.run.acknowledged |= sender.acknowledged

    def _waiting(self) -> dict[str, int]:
        states = self.database.rows("SELECT state, count(*) FROM goals WHERE state <> 'delivered' GROUP BY state")
        return {row[0]: row[1] for row in states} | {"unrouted": self._count_rows("events WHERE state = 'received'")}

    def _count_rows(self, what: str) -> int:
        return int(self.database.rows(f"SELECT count(*) FROM {what}")[0][0])

    def _rows(self) -> dict[str, set[tuple[Any, ...]]]:
        """The keys of all rows that deletion by age could remove."""
        found = {}
        for table in KEPT:
            names = ", ".join(column.name for column in table.primary_key)
            found[table.name] = {tuple(row) for row in self.database.rows(f"SELECT {names} FROM {table.name}")}
        return found

    def _notes(self) -> str:
        """What /status notes about deletion by age."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.run.webs[0].port}/status", headers={"Authorization": f"Bearer {KEY}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status = json.load(answer)
        except urllib.error.HTTPError as refused:
            status = json.load(refused)
        return next((note for note in map(str, status["notes"]) if "deleted by age" in note), "")

    def _set_destination_options(self, **options: object) -> None:
        port = self.run.destination_port
        body = json.dumps(options).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/__fake__/options", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=60).close()

    def _count(self, rows: Mapping[str, set[tuple[Any, ...]]]) -> bool:
        now = self._rows()
        gone = {table: len(keys - now[table]) for table, keys in rows.items() if keys - now[table]}
        known = self._count_rows("events"), self._count_rows("goals")
        self._send(self.run.events)  # again: all duplicates
        self.run.drain()
        again = self._count_rows("events") - known[0], self._count_rows("goals") - known[1]
        result = self.run.draw_up()
        self.facts |= {
            **asdict(result),
            "states": self.run.facts["states"],
            "rows_gone": gone,
            "bodies_gone": self._count_rows("events WHERE body IS NULL"),
            "stored_again": sum(again),
        }
        wrong = {
            "lost, doubled, open": not result.holds(hold=True, calm=False),
            "deleted": bool(gone or self.facts["bodies_gone"]),
            "stored again": any(again),
            "kept waiting": self.facts["waiting_s"] > WITHIN_S,
            "no note": not self.facts["note"] and self.scenario.ahead_ms != SCENARIOS["hour"].ahead_ms,
            "nothing was wrong": not self.scenario.passes and not self.facts["by_the_wrong_clock"],
        }
        self.facts["wrong"] = [what for what, is_so in wrong.items() if is_so]
        return not self.facts["wrong"]


def play(wanted: Plan, say: Say) -> tuple[bool, Facts]:
    """Play the scenarios, each on a database of its own."""
    which, lasts = os.environ.get("CLOCK", "all"), os.environ.get("LASTS")
    facts: Facts = {}
    for name, scenario in SCENARIOS.items():
        if which in ("all", name):
            changed = lasts is not None and name not in ("hour", "stop")
            chosen = replace(scenario, lasts_s=float(lasts or 0)) if changed else scenario
            facts[name] = run_scenario(wanted, chosen)
            say(f"  {name}: {ledger.as_json(facts[name])}")
    held = bool(facts) and not any(fact["wrong"] for fact in facts.values())
    return held, {"mode": "clock", "seed": wanted.seed, "scenarios": facts}


def run_scenario(wanted: Plan, scenario: Scenario, folder: Path | None = None) -> Facts:
    """Play one scenario; return its facts."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        place = folder or Path(made)
        with Database(wanted.database, place) as database:
            run = ClockRun(wanted, scenario, place, database)
            run.play()
    return run.facts
