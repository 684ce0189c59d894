"""The processes of a run, as they run in production: started, signalled, and started again when they end.

Each is a child in a session of its own, with one log file; nothing but its own group is ever signalled.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port that nobody listens on, below those that the system assigns to outgoing connections, so it stays free."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def check_out(revision: str, folder: Path) -> Path:
    """Write the files of a Git revision into a folder of their own; return it."""
    archive = subprocess.run(
        ["git", "archive", "--end-of-options", revision], check=False, cwd=ROOT, capture_output=True
    )
    if archive.returncode != 0:
        raise SystemExit(f"Git cannot check out the release {revision!r}: {archive.stderr.decode().strip()}")
    into = folder / f"release-{revision.replace('/', '-')}"
    into.mkdir(exist_ok=True)
    subprocess.run(["tar", "-x", "-C", str(into)], input=archive.stdout, check=True)
    return into


class Member:
    """One process of a run. port: None if it does not listen."""

    def __init__(self, name: str, words: list[str], environ: Mapping[str, str], folder: Path, port: int | None) -> None:
        self.name = name
        self.port = port
        self.starts = 0
        self.unread = False  # its output goes into a pipe that nobody reads
        self.files: int | None = None  # how many it may open
        self.log_file = folder / f"{name}.log"
        self._words = words
        self._folder = folder
        keep = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
        self._environ = {**keep, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ}
        self.root = ROOT  # of the release that is started next
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        self.starts += 1
        limit = [] if self.files is None else ["prlimit", f"--nofile={self.files}:{self.files}"]
        with self._output() as log:
            self.process = subprocess.Popen(
                [*limit, sys.executable, *self._words],
                cwd=self._folder,
                env={**self._environ, **self._other_release()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _other_release(self) -> dict[str, str]:
        if self.root == ROOT:
            return {}
        return {"PYTHONPATH": str(self.root), "BRIDGE_MAPPINGS": str(self.root / "mappings")}

    def _output(self) -> IO[bytes]:
        if not self.unread:
            return self.log_file.open("ab")
        self._unread, filled = os.pipe()
        return os.fdopen(filled, "wb")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def is_up(self) -> bool:
        """Alive, and listening if it should."""
        if self.process is None or self.process.poll() is not None:
            return False
        return self._has_threads() if self.port is None else answers(self.port)

    def _has_threads(self) -> bool:
        """A worker does not listen: it is up when its threads run. Before that, a signal just ends it."""
        with contextlib.suppress(OSError):
            return len(list(Path(f"/proc/{self.pid}/task").iterdir())) >= 4
        return False

    def children(self) -> list[int]:
        """The processes that it has forked (gunicorn's worker)."""
        with contextlib.suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def signal(self, number: int, *, to: str = "group") -> None:
        """Signal the whole group, the `master` alone, or its `child` alone."""
        with contextlib.suppress(ProcessLookupError):
            children = self.children() if to == "child" else []
            if children:
                os.kill(children[0], number)
            elif to == "group":
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    def end(self) -> None:
        """End it and what it has forked, whatever state it is in."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGCONT)
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


class Family:
    """Several processes, and a supervisor that restarts those that have ended. Use it as a context."""

    def __init__(self, members: list[Member], rng: random.Random) -> None:
        self.members = members
        self._rng = rng
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._supervisor = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        for member in self.members:
            member.start()
        self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._supervisor.join()
        for member in self.members:
            member.end()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for member in self.members:
                with self._lock:
                    if member.process is not None and member.process.poll() is not None:
                        time.sleep(self._rng.uniform(0, 0.2))
                        member.start()

    def wait_up(self, within_s: float = 120.0) -> None:
        """Wait until every process is up."""
        wait(lambda: all(member.is_up() for member in self.members), within_s, "all processes are up")

    def hit(self, rng: random.Random, number: int, *, to: str = "group", then: Path = ROOT) -> Member:
        """Signal one that is up. then: the root of the release that is started after it has ended."""
        chosen = rng.choice(self.members)
        wait(chosen.is_up, 120, f"{chosen.name} is up")
        chosen.root = then
        chosen.signal(number, to=to)
        return chosen

    def term(self, rng: random.Random) -> tuple[float, int]:
        """End one with SIGTERM, as a platform does; return how many seconds it took, and its exit code."""
        chosen = rng.choice(self.members)
        wait(chosen.is_up, 120, f"{chosen.name} is up")
        with self._lock:  # so that its end is seen here, not by the supervisor
            began = time.monotonic()
            chosen.signal(signal.SIGTERM, to="master")
            assert chosen.process is not None
            try:
                code = chosen.process.wait(40)
            except subprocess.TimeoutExpired:
                chosen.end()
                code = -9
            took_s = time.monotonic() - began
            chosen.start()
        return took_s, code


def wait(holds: Callable[[], object], within_s: float, what: str) -> None:
    """Wait until something holds; TimeoutError names what did not. Checking takes at most a quarter of the time."""
    end = time.monotonic() + within_s
    while True:
        began = time.monotonic()
        if holds():
            return
        if time.monotonic() > end:
            raise TimeoutError(f"not within {within_s:.0f} s: {what}")
        time.sleep(max(0.02, 3 * (time.monotonic() - began)))
