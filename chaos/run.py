"""One run: processes start, events come in, signals are sent, everything drains, and the ledger is drawn up."""

from __future__ import annotations

import json
import random
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaos import ledger, plan
from chaos.databases import Database
from chaos.family import ROOT, Family, Member, check_out, free_port, wait
from chaos.sender import Sender, Span, slowest_s

Say = Callable[[str], None]


FORMER_UNTIL = 0.3  # of the signals: only the former release runs
MIXED_UNTIL = 0.7  # both run, on the new tables


def quiet(_: str) -> None:
    """Say nothing."""


class Run:
    """Everything that belongs to one run, while it lasts."""

    def __init__(self, wanted: plan.Plan, folder: Path, database: Database, say: Say, former: Path = ROOT) -> None:
        """former: the root of the release that wrote the database."""
        self.former = former
        self.plan = wanted
        self.database = database
        self.say = say
        self.rng = random.Random(wanted.seed)
        self.events = plan.make_events(wanted, self.rng)
        self.signals = 0
        self.stopped: list[Span] = []
        self.acknowledged: set[str] = set()
        self.facts: dict[str, Any] = {}
        self.relay = database.behind_a_relay(wanted.pooler) if wanted.mode in ("silent", "failover") else None
        self.servers = database.follow() if wanted.mode == "failover" else None
        self.destination_port = free_port()
        words = wanted.destination(self.destination_port)
        self.destination = Member("datafast", words, wanted.destination_environ, folder, self.destination_port)
        self.webs = [self._web(number, folder) for number in range(wanted.webs)]
        self.workers = [self._worker(number, folder) for number in range(wanted.workers)]

    # ---------------------------------------------------------------------------------------------------- processes

    def _environ(self, **more: str) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database.url,
            "DATAFAST_API_KEY": plan.KEY,
            "DATAFAST_API_URL": f"http://127.0.0.1:{self.destination_port}/api/v1",
            "BRIDGE_MAPPINGS": str(ROOT / "mappings"),
            "STRIPE_WEBHOOK_SECRET": plan.SECRET,
            **self.plan.settings(),
            **more,
        }

    def _web(self, number: int, folder: Path) -> Member:
        port = free_port()
        environ = self._environ(PORT=str(port), BRIDGE_HOST="127.0.0.1")
        return Member(f"web-{number}", ["-m", "bridge", "serve"], environ, folder, port)

    def _worker(self, number: int, folder: Path) -> Member:
        return Member(f"worker-{number}", ["-m", "bridge", "worker"], self._environ(), folder, None)

    # ------------------------------------------------------------------------------------------------------ the run

    def play(self) -> ledger.Ledger:
        """Play everything in order; return the ledger."""
        self.destination.start()
        try:
            wait(self.destination.is_up, 60, "the destination is up")
            for member in (*self.webs, *self.workers):
                member.root = self.former
            with Family([*self.webs, *self.workers], self.rng) as family:
                family.wait_up()
                self._send_and_signal(family)
                family.wait_up()
                self.drain()
                self.facts["starts"] = sum(member.starts for member in family.members)
                return self.draw_up()
        finally:
            self.destination.end()

    def _send_and_signal(self, family: Family) -> None:
        ports = [member.port for member in self.webs if member.port is not None]
        order = plan.deliveries(self.plan, self.events, self.rng)
        sender = Sender(ports, order, self.plan.senders, self._allowed, self.plan.seed)
        began = time.monotonic()
        sender.start()
        while self.signals < self.plan.kills:
            time.sleep(self.rng.uniform(*self.plan.gap_s))
            self._disturb(family, sender)
            self.signals += 1
            if self.signals % 25 == 0:
                self.say(f"  {self.signals} of {self.plan.kills} · {len(sender.acknowledged):,} acknowledged")
        for member in family.members:
            if member.root != ROOT:  # processes that still run the former release
                member.root = ROOT
                member.signal(signal.SIGKILL)
        sender.join(900)
        self.acknowledged = sender.acknowledged
        slowest, seen = slowest_s(sender.refused, self.stopped)
        self.facts |= {"answers": dict(sender.answers), "slowest_503_s": slowest}
        self.facts["slowest_ack_s"] = round(sender.slowest_ack_s, 2)
        if self.stopped:
            self.facts["slowest_503_with_stops_s"] = seen
        self.facts["sending_s"] = round(time.monotonic() - began, 1)

    def _allowed(self) -> float:
        """Which share of the events may have been sent by now."""
        return (self.signals + 1) / (self.plan.kills or 1) if self.plan.kills else 1.0

    def _disturb(self, family: Family, sender: Sender) -> None:
        match self.plan.mode:
            case "kill":
                to = self.rng.choices(("group", "child", "master"), (70, 15, 15))[0]
                family.hit(self.rng, signal.SIGKILL, to=to)
            case "stop":
                since = time.monotonic()
                member = family.hit(self.rng, signal.SIGSTOP)
                time.sleep(self.rng.uniform(2.1, 4.5))  # longer than a lease
                member.signal(signal.SIGCONT)
                self.stopped.append((member.port or 0, since, time.monotonic()))
            case "term":
                took_s, code = family.term(self.rng)
                self.facts["slowest_exit_s"] = max(self.facts.get("slowest_exit_s", 0.0), round(took_s, 2))
                self.facts["exits_not_0"] = self.facts.get("exits_not_0", 0) + (code != 0)
            case "pg-restart":
                self.database.crash()
            case "upgrade":
                family.hit(self.rng, signal.SIGKILL, then=self._release())
            case "silent":
                self._fall_silent()
            case "failover":
                self._fail_over(sender)

    def _release(self) -> Path:
        """The release to start next: first the former one, then either of them on the new tables, then this one."""
        part = self.signals / self.plan.kills
        if part < FORMER_UNTIL:
            return self.former
        if not self.facts.get("migrated_after"):
            self.database.migrate(ROOT)
            self.facts["migrated_after"] = self.signals
        former = part < MIXED_UNTIL and self.rng.random() < 0.5
        self.facts["former_starts_on_new_tables"] = self.facts.get("former_starts_on_new_tables", 0) + former
        return self.former if former else ROOT

    def _fall_silent(self) -> None:
        """Silence some connections or all; or one at its COMMIT, which is carried out but never answered, or lost."""
        assert self.relay is not None
        if self.rng.random() < 0.5:
            self.facts["silenced"] = self.facts.get("silenced", 0) + self.relay.silence(
                self.rng.choice((0.3, 0.6, 1.0))
            )
        else:
            self.relay.heard, self.relay.last_words = self.rng.random() < 0.5, b"COMMIT"
            self.facts["commits_unanswered"] = self.facts.get("commits_unanswered", 0) + 1

    def _fail_over(self, sender: Sender) -> None:
        assert self.relay is not None
        assert self.servers is not None
        self.facts["promoting_s"] = round(self.servers.move(), 2)
        self.relay.target = self.servers.socket_file
        self.database.moved(self.servers)
        began, before = time.monotonic(), len(sender.acknowledged)
        wait(lambda: len(sender.acknowledged) > before, 60, "something is acknowledged after the move")
        self.facts["acks_after_move_s"] = round(time.monotonic() - began, 2)

    def drain(self) -> None:
        """Wait until no event and no goal is open."""
        began = time.monotonic()
        end = began + self.plan.drain_s
        while self._open() and time.monotonic() < end:
            time.sleep(0.25)
        self.facts["draining_s"] = round(time.monotonic() - began, 1)

    def _open(self) -> int:
        goals = "SELECT count(*) FROM goals WHERE state IN ('parked','pending','leased','sending','unconfirmed')"
        events = "SELECT count(*) FROM events WHERE state = 'received'"
        return int(self.database.rows(goals)[0][0]) + int(self.database.rows(events)[0][0])

    def recorded(self) -> list[dict[str, Any]]:
        """The goals at the destination."""
        found: list[dict[str, Any]] = self._get("events")["events"]
        return found

    def _get(self, what: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.destination_port}/__fake__/{what}", timeout=120) as answer:
            return json.load(answer)

    def draw_up(self) -> ledger.Ledger:
        """Compare what was acknowledged with what was recorded."""
        recorded = self.recorded()
        self.facts["faults_met"] = self._get("faults")["met"]
        self.facts["tries"] = ledger.attempts_by_outcome(self.database)
        self.facts["doubts"] = ledger.doubts(self.database)
        self.facts["states"] = {
            row[0]: row[1] for row in self.database.rows("SELECT state, count(*) FROM goals GROUP BY state")
        }
        legal = ledger.LEGAL | {"clock": ledger.BY_CLOCK, "upgrade": ledger.BY_FORMER}.get(self.plan.mode, set())
        return ledger.compare(self.database, self.events, self.acknowledged, recorded, legal)


def play(wanted: plan.Plan, folder: Path | None = None, say: Say = quiet) -> tuple[ledger.Ledger, dict[str, Any]]:
    """Play one run, in this folder or in a new one that is then removed; return the ledger and more facts."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        place = folder or Path(made)
        began = time.monotonic()
        former = check_out(wanted.former, place) if wanted.former else ROOT
        with Database(wanted.database, place, former) as database:
            run = Run(wanted, place, database, say, former)
            result = run.play()
        facts = {
            "mode": wanted.mode,
            "database": database.kind,
            "events": wanted.events,
            "signals": run.signals,
            "fault_percent": wanted.faults,
            "unconfirmed_setting": wanted.unconfirmed,
            "seed": wanted.seed,
            "took_s": round(time.monotonic() - began, 1),
            **asdict(result),
            **run.facts,
        }
    return result, facts


def holds(wanted: plan.Plan, result: ledger.Ledger) -> bool:
    """Whether the run kept every promise."""
    calm = wanted.mode == "term" and wanted.faults == 0
    return result.holds(hold=wanted.unconfirmed == "hold", calm=calm)
