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

from bench import events, load, servers
from chaos.family import check_out

ROUNDS = 5
CONNECTIONS = 32
ACKS = "acknowledged and durable"
CPU_ROUTED = "CPU per event, receive + route"
CPU_DELIVERED = "CPU per event, from its webhook to the delivered goal"
GOALS = "goals sent, without a rate limit"
UNITS = {ACKS: "/s", CPU_ROUTED: "ms", CPU_DELIVERED: "ms", GOALS: "/s"}


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
        add(f"  at {revision}", statistics.median(former[what] for _, former in rounds), unit)
        add("  ratio", statistics.median(own[what] / former[what] for own, former in rounds), "×")


def _database(database: str, folder: str, part: str) -> str:
    return f"sqlite:///{folder}/{part}.db" if database.startswith("sqlite") else servers.own_database(database, part)


@contextlib.contextmanager
def _running(folder: str, database: str, root: Path) -> Iterator[Running]:
    with (
        servers.sandbox(folder, "--visitor", "any", "--option", "rate_per_minute=0") as destination,
        servers.bridge(folder, database, destination, root, BRIDGE_RATE_PER_MINUTE="1000000") as (port, pid, _),
    ):
        release = Running(port, pid, destination)
        _measure(release, 100)  # the first of everything costs more
        yield release


def _measure(release: Running, count: int) -> dict[str, float]:
    """One round: `count` events that make no goal, then a tenth as many that make one each."""
    before_s = servers.cpu_s(release.pid)
    flood = load.closed_loop(release.port, events.requests(count, first=release.events), CONNECTIONS)
    load.require_ok(flood)
    servers.wait_routed(release.port)
    routed_s = servers.cpu_s(release.pid)
    release.events += count
    goals = count // 10
    sales = events.requests(goals, first=900_000_000 + release.goals, type="checkout.session.completed", visitor=True)
    load.require_ok(load.closed_loop(release.port, sales, CONNECTIONS))
    arrived_ms = servers.arrivals_ms(release.destination, release.goals + goals)[release.goals :]
    release.goals += goals
    later = arrived_ms[goals // 2 :]  # before, webhooks still came
    return {
        ACKS: flood.per_second,
        CPU_ROUTED: (routed_s - before_s) * 1000 / count,
        CPU_DELIVERED: (servers.cpu_s(release.pid) - routed_s) * 1000 / goals,
        GOALS: (len(later) - 1) * 1000 / (later[-1] - later[0]),
    }
