"""Accept → goal at the destination: idle, one at a time; then many at once, without a rate limit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench import events, load, servers

UNLIMITED = "1000000"  # goals per minute
CPU = "CPU per event, from its webhook to the delivered goal"
RATE = "goals sent, without a rate limit"
_IDLE = 30


def run(add: Callable[..., None], name: str, folder: str, database: str, count: int) -> None:
    with (
        servers.sandbox(folder, "--visitor", "any", "--option", "rate_per_minute=0") as destination,
        servers.bridge(folder, database, destination, BRIDGE_RATE_PER_MINUTE=UNLIMITED) as (port, pid, _),
    ):
        waits = []
        for number in range(_IDLE):
            sent_ms = time.time() * 1000
            load.require_ok(load.closed_loop(port, _sales(1, number), 1))
            waits.append(servers.arrivals_ms(destination, number + 1)[-1] - sent_ms)
            time.sleep(0.05)
        cpu_ms, per_second = deliver(port, pid, destination, count, before=_IDLE)
    add(f"{name}: {CPU}", cpu_ms, "ms")
    add(f"{name}: {RATE}", per_second, "/s")
    idle = f"{name}: accept → goal at the destination, idle, p50"
    add(idle, statistics.median(waits), "ms", "≤ 50", lambda value: value <= 50)


def deliver(port: int, pid: int, destination: int, count: int, *, before: int) -> tuple[float, float]:
    """Send this many sales; return the CPU time of each in ms, and the goals sent per second.

    before: how many the destination already has.
    """
    before_s = servers.cpu_s(pid)
    load.require_ok(load.closed_loop(port, _sales(count, before), load.CONNECTIONS))
    arrived_ms = servers.arrivals_ms(destination, before + count)[before:]
    cpu_s = servers.cpu_s(pid) - before_s
    later = arrived_ms[count // 2 :]  # before, webhooks still came
    return cpu_s * 1000 / count, (len(later) - 1) * 1000 / (later[-1] - later[0])


def _sales(count: int, first: int) -> list[bytes]:
    return events.requests(count, first=900_000_000 + first, type="checkout.session.completed", visitor=True)
