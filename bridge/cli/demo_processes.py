"""The processes of the demo: started with an environment of their own, waited for, and never left behind.

Each has a session of its own, so that Ctrl-C reaches the demo alone, which then ends them in order.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import requests

import bridge
from bridge import rules
from bridge.errors import BridgeError
from bridge.settings.hosts import is_of_a_host

READY_S: Final = 20.0
_LOOK_S: Final = 0.05
_END_S: Final = 20.0
_OURS: Final = ("BRIDGE_", "DATAFAST_", "STRIPE_", "LEMONSQUEEZY_")
_OTHERS: Final = frozenset({"DATABASE_URL", "PORT", "WEB_CONCURRENCY"})


class DemoError(BridgeError):
    """A part of the demo did not start."""


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without any setting of a real bridge, with this package importable from any folder."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OURS)
        and not name.endswith(("_WEBHOOK_SECRET", "_WEBHOOK_SECRET_OLD"))
        and name not in _OTHERS
        and not is_of_a_host(name)
    }
    paths = [str(Path(bridge.__file__).parents[1]), kept.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def mappings(folder: Path, sources: Iterable[str]) -> Path:
    """A folder of mapping files in which each source extends the shipped file of its name."""
    if not (rules.SHIPPED / "stripe.yaml").is_file():
        raise DemoError(f"the demo needs the shipped mapping files, but {rules.SHIPPED} has none: install it again")
    folder.mkdir()
    for source in sources:
        (folder / f"{source}.yaml").write_text(f"extends: {source}\n")
    return folder


class DemoProcess:
    """One process: `python -m bridge …` in a folder, with its output in a file there."""

    def __init__(self, name: str, arguments: Sequence[str], *, folder: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "bridge", *arguments]
        self._folder, self._environ = folder, environ
        self._log = folder / f"{arguments[0]}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it. Register `stop` before, so that an interruption leaves nothing behind."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self._command,
                cwd=self._folder,
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ask it to end, and make it end if it does not; whatever it started ends with it."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def wait(self, url: str) -> None:
        """Until it answers 200 there; DemoError says in one sentence why it does not."""
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            self.check()
            with suppress(requests.RequestException):
                if _get(url).status_code == requests.codes.ok:
                    return
            time.sleep(_LOOK_S)
        raise DemoError(f"{self.name} did not answer within {READY_S:.0f} s at {url}: {self._last_words()}")

    def check(self) -> None:
        """DemoError if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            raise DemoError(f"{self.name} ended by itself (exit code {code}): {self._last_words()}")

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return _plain(lines[-1]) if lines else "it printed nothing"


def _plain(line: str) -> str:
    """The message of a structured log line; any other line as it is."""
    with suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict):
            return str(entry.get("message") or entry.get("event") or line)
    return line


def _get(url: str) -> requests.Response:
    """One request to this machine, whatever proxy or .netrc the person has."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=5, allow_redirects=False)


def get_json(url: str) -> Any:
    answer = _get(url)
    answer.raise_for_status()
    return json.loads(answer.content)
