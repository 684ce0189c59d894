"""This release and an earlier one, by turns: what an acknowledgement and a delivered goal cost, as ratios.

Both run all the time, each with a database and a sandbox of its own, and one idles while the other is measured. Each
ratio is a median of rounds, because the speed of a shared machine changes within seconds.
"""

from __future__ import annotations

import compileall
import contextlib
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import deliveries, events, load, servers
from chaos.family import check_out

ROUNDS = 15
ACKS = "acknowledged and durable"
CPU = "CPU per event, receive + route"
UNITS = {ACKS: "/s", CPU: "ms", deliveries.CPU: "ms", deliveries.RATE: "/s"}


@dataclass
class Running:
    """A release, its ports, and how many events and goals it has had."""

    port: int
    pid: int
    destination: int
    events: int = 0
    goals: int = 0


def run(add: Callable[..., None], name: str, folder: str, database: str, count: int, revision: str) -> None:
    """Add the figures of both and their ratios. revision: of the earlier release, in Git."""
    earlier_root = check_out(revision, Path(folder))
    compileall.compile_dir(earlier_root / "bridge", quiet=1)
    with (
        _running(folder, _database(database, folder, "now"), servers.ROOT) as now,
        _running(folder, _database(database, folder, "earlier"), earlier_root) as earlier,
    ):
        rounds = [(_measure(now, count // ROUNDS), _measure(earlier, count // ROUNDS)) for _ in range(ROUNDS)]
    for what, unit in UNITS.items():
        add(f"{name}: {what}", statistics.median(own[what] for own, _ in rounds), unit)
        add(f"{name}: {what}, at {revision}", statistics.median(former[what] for _, former in rounds), unit)
        ratio = statistics.median(own[what] / former[what] for own, former in rounds)
        add(f"{name}: {what}, against {revision}", ratio, "×")


def _database(database: str, folder: str, part: str) -> str:
    return f"sqlite:///{folder}/{part}.db" if database.startswith("sqlite") else servers.own_database(database, part)


@contextlib.contextmanager
def _running(folder: str, database: str, root: Path) -> Iterator[Running]:
    with (
        servers.sandbox(folder, "--visitor", "any", "--option", "rate_per_minute=0") as destination,
        servers.bridge(folder, database, destination, root, BRIDGE_RATE_PER_MINUTE=deliveries.UNLIMITED) as started,
    ):
        release = Running(*started[:2], destination)
        _measure(release, 100)  # the first of everything costs more
        yield release


def _measure(release: Running, count: int) -> dict[str, float]:
    """One round: `count` events that make no goal, then a tenth as many that make one each."""
    before_s = servers.cpu_s(release.pid)
    flood = load.closed_loop(release.port, events.requests(count, first=release.events), load.CONNECTIONS)
    load.require_ok(flood)
    servers.wait_routed(release.port)
    cpu_s = servers.cpu_s(release.pid) - before_s
    goals = count // 10
    cpu_ms, rate = deliveries.deliver(release.port, release.pid, release.destination, goals, before=release.goals)
    release.events, release.goals = release.events + count, release.goals + goals
    return {ACKS: flood.per_second, CPU: cpu_s * 1000 / count, deliveries.CPU: cpu_ms, deliveries.RATE: rate}
