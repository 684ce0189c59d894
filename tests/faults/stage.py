"""The bridge in processes of its own, which the tests of this folder stop, starve and cut off; a DataFast beside it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import requests
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from bridge.sandbox import sign
from bridge.sandbox.options import Options
from bridge.sandbox.server import start
from chaos.family import Member, answers, free_port, wait
from chaos.plan import KEY, SECRET
from chaos.run import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PATIENCE_S = 90.0  # for a loaded machine; nothing waits longer than it has to
VISITOR = "00000000-0000-4000-8000-00000000000a"
OTHER_KEY = "df_" + "d" * 48  # of another website
ADMIN = "admin-of-the-stage"


def checkout(number: object, visitor: str = VISITOR) -> dict[str, Any]:
    """A paid checkout of Stripe that carries its visitor: one goal `purchase`, called `stripe evt_<number>`."""
    session = {
        "id": f"cs_{number}",
        "object": "checkout.session",
        "mode": "payment",
        "payment_status": "paid",
        "amount_total": 4900,
        "currency": "usd",
        "payment_intent": f"pi_{number}",
        "metadata": {"datafast_visitor_id": visitor},
    }
    return event(f"evt_{number}", "checkout.session.completed", session)


def event(event_id: str, kind: str, thing: Mapping[str, Any]) -> dict[str, Any]:
    """An event of Stripe that happened now."""
    now = int(time.time())
    return {"id": event_id, "created": now, "livemode": True, "type": kind, "data": {"object": dict(thing)}}


class Pulse:
    """Beats in this process, and notes when the machine had no time for it: nor had it for the bridge."""

    BEAT_S, LATE_S = 0.05, 0.1

    def __init__(self) -> None:
        self._missed: list[tuple[float, float]] = []  # (when, s)
        self._over = threading.Event()
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def _beat(self) -> None:
        due = time.monotonic() + self.BEAT_S
        while not self._over.wait(self.BEAT_S):
            late_s = time.monotonic() - due
            if late_s > self.LATE_S:
                self._missed.append((time.monotonic(), late_s))
            due = time.monotonic() + self.BEAT_S

    def missed_ms(self, within_s: float = 3.0) -> float:
        """How much time was missing in the worst stretch of so many seconds."""
        worst_s = (sum(s for at, s in self._missed if until - within_s <= at <= until) for until, _ in self._missed)
        return 1000 * max(worst_s, default=0.0)

    def end(self) -> None:
        self._over.set()


class Stage:
    """Processes in one folder, on one database. Everything that waits is short."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.datafast = start(Options(keys=(KEY, OTHER_KEY), known="any", rate_per_minute=0))
        self.members: list[Member] = []
        self.pulse = Pulse()

    def environ(self, **more: str) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database_url,
            "DATAFAST_API_KEY": KEY,
            "DATAFAST_API_URL": self.datafast.api_url,
            "BRIDGE_MAPPINGS": str(ROOT / "mappings"),
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "BRIDGE_RATE_PER_MINUTE": "60000",
            "BRIDGE_LEASE": "2s",
            "BRIDGE_DEADLINE": "1s",
            "BRIDGE_READBACK": "300ms,600ms",
            "BRIDGE_RETRY_SCHEDULE": "200ms,500ms,1s",
            "BRIDGE_LOG_FORMAT": "json",
            "BRIDGE_ADMIN_TOKEN": ADMIN,
            **more,
        }

    def web(self, name: str = "web", command: list[str] | None = None, **more: str) -> Member:
        """`serve` on a free port, up."""
        port = free_port()
        environ = self.environ(PORT=str(port), BRIDGE_HOST="127.0.0.1", **more)
        made = self.member(name, command or ["-m", "bridge", "serve"], port, environ)
        wait(lambda: self.answers(made), PATIENCE_S, f"{name} answers")
        return made

    def member(self, name: str, words: list[str], port: int | None, environ: Mapping[str, str]) -> Member:
        made = Member(name, words, environ, self.folder, port)
        self.members.append(made)
        made.start()
        return made

    def answers(self, web: Member) -> bool:
        assert web.process is not None
        assert web.process.poll() is None, web.log_file.read_text()
        if not answers(web.port):
            return False
        try:
            return requests.get(f"http://127.0.0.1:{web.port}/healthz", timeout=20).status_code == 200
        except requests.RequestException:
            return False

    def post(self, web: Member, event: Mapping[str, Any] | bytes, timeout_s: float = 30) -> requests.Response:
        """A signed event of Stripe; ConnectionError is the caller's."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        headers = sign.stripe(body, SECRET, int(time.time()))
        return requests.post(f"http://127.0.0.1:{web.port}/webhooks/stripe", body, headers=headers, timeout=timeout_s)

    def get(self, web: Member, path: str, *, admin: bool = False) -> requests.Response:
        headers = {"Authorization": f"Bearer {ADMIN}"} if admin else {}
        return requests.get(f"http://127.0.0.1:{web.port}{path}", headers=headers, timeout=30)

    def command(self, *words: str, **more: str) -> str:
        """`python -m bridge …`, which must succeed; what it says."""
        made = self.member(f"command-{len(self.members)}", ["-m", "bridge", *words], None, self.environ(**more))
        assert made.process is not None
        assert made.process.wait(60) == 0, made.log_file.read_text()
        return made.log_file.read_text()

    def doctor(self, *, fails: bool, **more: str) -> str:
        """What `doctor` says; its exit code must say whether something fails."""
        made = self.member(f"doctor-{len(self.members)}", ["-m", "bridge", "doctor"], None, self.environ(**more))
        assert made.process is not None
        assert made.process.wait(60) == int(fails), made.log_file.read_text()
        return made.log_file.read_text()

    def sql(self, statement: str) -> list[Any]:
        """On a connection of its own."""
        engine = create_engine(self.database_url, poolclass=NullPool)
        with engine.begin() as conn:
            done = conn.exec_driver_sql(statement)
            return list(done) if done.returns_rows else []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else's transaction stands in the way: of every write on SQLite, of every goal on PostgreSQL."""
        engine = create_engine(self.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as conn:
            conn.exec_driver_sql("BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else "BEGIN")
            if engine.dialect.name != "sqlite":
                conn.exec_driver_sql("SELECT 1 FROM goals FOR UPDATE")
            yield
            conn.exec_driver_sql("ROLLBACK")

    def fault(self, **fault: Any) -> None:
        """The next requests at DataFast meet this (see bridge.sandbox.faults)."""
        requests.post(f"{self.datafast.url}/__fake__/faults", json=fault, timeout=20).raise_for_status()

    def option(self, **options: Any) -> None:
        """DataFast behaves otherwise from now on."""
        requests.post(f"{self.datafast.url}/__fake__/options", json=options, timeout=20).raise_for_status()

    def recorded(self) -> list[str]:
        """Descriptions of the goals at the destination, in their order."""
        return [goal.description or "" for goal in self.datafast.world.goals()]

    def wait_recorded(self, *numbers: object) -> None:
        """Until exactly these checkouts have become goals."""
        wanted = sorted(f"stripe evt_{number}" for number in numbers)
        wait(lambda: sorted(self.recorded()) == wanted, PATIENCE_S, f"{wanted} arrive")

    def close(self) -> None:
        for member in self.members:
            member.end()
        self.datafast.stop()
        self.pulse.end()
