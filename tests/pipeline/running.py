"""The bridge as people run it: real processes, real sockets, and a stand-in for DataFast beside them.

Every process is a child of the test, writes one log file, takes any free port, and is ended with its group by its own
id. Waiting is by deadline and never by a fixed sleep. Nothing of the developer's environment reaches a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from bridge.sandbox import server, sign
from bridge.sandbox.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0  # for a loaded machine; nothing here waits longer than it has to
ALICE = "00000000-0000-4000-8000-00000000000a"
BOB = "00000000-0000-4000-8000-00000000000b"
KEY = "df_key_that_must_not_be_told"
STRIPE_SECRET = "whsec_stripe_that_must_not_be_told"
LEMON_SECRET = "lemons-that-must-not-be-told"
GENERIC_SECRET = "whsec_bXVzdC1ub3QtYmUtdG9sZC1hdC1hbGw="
ADMIN = "admin-token-that-must-not-be-told"
SECRETS = {
    "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
    "LEMONSQUEEZY_WEBHOOK_SECRET": LEMON_SECRET,
    "GENERIC_WEBHOOK_SECRET": GENERIC_SECRET,
}


def eventually(look: Callable[[], Any], timeout_s: float = PATIENCE_S, what: str = "") -> Any:
    """What `look` gives as soon as it is something; AssertionError with its last answer when the time is over.

    To look takes a quarter of the time at most: the rest belongs to whoever is waited for.
    """
    end = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what or look}; last: {found!r}")
        time.sleep(max(0.02, 3 * (time.monotonic() - began)))


class Process:
    """A child with its log. `lines` are its structured log lines."""

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str], name: str) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        inherited = {key: os.environ[key] for key in ("LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT") if key in os.environ}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**inherited, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", errors="replace")

    @property
    def lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.log.splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict):
                    found.append(told)
        return found

    def told(self, event: str, **facts: object) -> list[dict[str, Any]]:
        """The log lines of this event with these facts."""
        return [line for line in self.lines if line.get("event") == event and facts.items() <= line.items()]

    def wait_for(self, event: str, **facts: object) -> dict[str, Any]:
        """The first log line of this event; the process must not end before."""

        def look() -> dict[str, Any] | None:
            found = self.told(event, **facts)
            assert found or self.process.poll() is None, f"{self.name} ended:\n{self.log}"
            return found[0] if found else None

        return eventually(look, what=f"{self.name} logs {event}")

    def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(timeout_s)

    def stop(self, timeout_s: float = 30.0) -> tuple[int, float]:
        """SIGTERM to the process itself; its exit code, and how many seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout_s)
        return code, time.monotonic() - started

    def kill(self) -> None:
        """End it and whatever it started. Its group is its own, and its id cannot be another's before `wait`."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class DataFast:
    """The stand-in, in a thread here: it knows every visitor and has no rate limit unless told otherwise."""

    def __init__(self) -> None:
        self._running = server.start(Options(keys=(KEY,), known="any", rate_per_minute=0))
        self.url, self.api_url = self._running.url, self._running.api_url

    def kill(self) -> None:
        self._running.stop()

    def goals(self) -> list[dict[str, Any]]:
        """What it recorded, oldest first."""
        return requests.get(f"{self.url}/__fake__/events", timeout=20).json()["events"]

    def seen(self) -> list[tuple[str, str]]:
        """(goal, visitor), oldest first."""
        return [(goal["name"], goal["visitor"]) for goal in self.goals()]

    def asked(self) -> list[dict[str, Any]]:
        """Every request to its API."""
        return requests.get(f"{self.url}/__fake__/requests", timeout=20).json()["requests"]

    def tell(self, what: str, body: object) -> None:
        """`faults`, `options`, `visitors`: see bridge.sandbox.control."""
        requests.post(f"{self.url}/__fake__/{what}", json=body, timeout=20).raise_for_status()


class Sandbox(Process, DataFast):
    """The same as `python -m bridge sandbox`."""

    def __init__(self, folder: Path) -> None:
        command = ["python", "-m", "bridge", "sandbox", "--port", "0", "--json", "--visitor", "any", "--key", KEY]
        super().__init__([*command, "--option", "rate_per_minute=0"], folder, {}, "datafast")
        told = eventually(self._told, what="the stand-in says where it is")
        self.url, self.api_url = told["url"], told["api_url"]

    def _told(self) -> Any:
        assert self.process.poll() is None, self.log
        try:
            return json.loads(self.log)
        except ValueError:
            return None


class Web(Process):
    """`python -m bridge serve` on a free port."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], name: str = "web", command: Sequence[str] | None = None
    ) -> None:
        given = {"PORT": "0", "BRIDGE_HOST": "127.0.0.1", **environ}
        super().__init__(command or ["python", "-m", "bridge", "serve"], folder, given, name)
        at = self.wait_for("listening")["at"]
        self.url = re.search(r"http://[0-9.]+:\d+", at)[0]
        eventually(self._answers, what=f"{name} answers")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.url}/healthz", timeout=20).status_code == 200
        return False

    def post(
        self, source: str, body: bytes, headers: Mapping[str, str], query: str = "", timeout_s: float = 30
    ) -> requests.Response:
        url = f"{self.url}/webhooks/{source}{query}"
        return requests.post(url, data=body, headers=dict(headers), timeout=timeout_s, allow_redirects=False)

    def get(self, path: str, *, admin: bool = False) -> requests.Response:
        headers = {"Authorization": f"Bearer {ADMIN}"} if admin else {}
        return requests.get(self.url + path, headers=headers, timeout=30, allow_redirects=False)

    def stripe(self, event: Mapping[str, Any] | bytes) -> requests.Response:
        """A signed event of Stripe."""
        body = event if isinstance(event, bytes) else json.dumps(event, indent=2).encode()
        return self.post("stripe", body, sign.stripe(body, STRIPE_SECRET, int(time.time())))


class Machine:
    """Starts processes in one folder, and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []
        self._beside: list[DataFast] = []

    def datafast(self) -> DataFast:
        self._beside.append(DataFast())
        return self._beside[-1]

    def sandbox(self) -> Sandbox:
        return self._keep(Sandbox, self.folder)

    def web(self, environ: Mapping[str, str], name: str = "web", command: Sequence[str] | None = None) -> Web:
        return self._keep(Web, self.folder, environ, name, command)

    def run(self, command: Sequence[str], environ: Mapping[str, str], name: str) -> Process:
        return self._keep(Process, command, self.folder, environ, name)

    def bridge(self, *words: str, environ: Mapping[str, str], name: str = "command") -> Process:
        """`python -m bridge …`, whatever it is."""
        return self.run(["python", "-m", "bridge", *words], environ, name)

    def _keep(self, kind: Callable[..., Any], *args: Any) -> Any:
        made = kind.__new__(kind)
        self.started.append(made)  # before it starts: one that fails to answer is ended, too
        made.__init__(*args)
        return made

    def stop_all(self) -> None:
        for process in reversed(self.started):
            if hasattr(process, "process"):
                process.kill()
        for stand_in in self._beside:
            stand_in.kill()


def environment(
    datafast: DataFast, database_url: str, mappings: Path = ROOT / "mappings", **more: str
) -> dict[str, str]:
    """A bridge with every secret, at full speed."""
    return {
        "DATAFAST_API_KEY": KEY,
        "DATAFAST_API_URL": datafast.api_url,
        "DATABASE_URL": database_url,
        "BRIDGE_MAPPINGS": str(mappings),
        "BRIDGE_RATE_PER_MINUTE": "60000",
        "BRIDGE_ADMIN_TOKEN": ADMIN,
        **SECRETS,
        **more,
    }


def checkout(number: object = 1, visitor: str | None = ALICE, **fields: Any) -> dict[str, Any]:
    """A paid `checkout.session.completed` as Stripe sends it now. `fields` go into the session."""
    session = {
        "id": f"cs_live_{number}",
        "object": "checkout.session",
        "amount_total": 4900,
        "currency": "usd",
        "customer": f"cus_{number}",
        "mode": "payment",
        "payment_intent": f"pi_{number}",
        "payment_status": "paid",
        "status": "complete",
        "metadata": {"plan": "pro", **({"datafast_visitor_id": visitor} if visitor else {})},
        "customer_details": {"email": "somebody-whose-name-must-not-be-told@example.com"},
        **fields,
    }
    return event("checkout.session.completed", session, f"evt_{number}")


def event(event_type: str, thing: Mapping[str, Any], event_id: str, *, live: bool = True) -> dict[str, Any]:
    """An event of Stripe that happened now."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": "2025-08-27.basil",
        "created": int(time.time()),
        "data": {"object": dict(thing)},
        "livemode": live,
        "type": event_type,
    }
