"""`python -m bench [--quick] [--only PART | --against REVISION] [--json FILE]`: a table of figures with their budgets.

Figures are ratios against something in the same run wherever that is possible, because machines are noisy. The load
generator runs on the same cores as what it measures; the constant view suffers from it in the same way.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from bench import (
    against,
    backtest,
    claims,
    console,
    deliveries,
    events,
    half_million,
    links,
    load,
    micro,
    node_red,
    routing,
    servers,
)

COUNTS = {True: 2_000, False: 20_000}  # events, in a quick run and in a full one
ROUNDS = 5
# Every goal is recorded, and its answer comes too late or never: the acks must not notice.
SLOW = tuple(
    word
    for option in ("fault_percent=100", 'fault_kinds=["recorded_hung"]', "fault_hang_ms=500")
    for word in ("--option", option)
)


@dataclass
class Figure:
    what: str
    value: float
    unit: str
    budget: str
    ok: bool | None = None


class Report:
    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(
        self, what: str, value: float, unit: str, budget: str = "", holds: Callable[[float], bool] | None = None
    ) -> None:
        self.figures.append(Figure(what, value, unit, budget, holds(value) if holds else None))
        figure = self.figures[-1]
        mark = {True: "ok", False: "OVER", None: ""}[figure.ok]
        print(f"{what:<62} {value:>10.2f} {unit:<8} {budget:<18} {mark}", flush=True)


def bench_micro(report: Report) -> None:
    figures = micro.run()
    report.add("HMAC and json.loads of the same body, for comparison", figures["hmac_and_json_us"], "µs")
    report.add("verify + parse a 4 KB event", figures["verify_and_parse_us"], "µs")
    reference = "HMAC and json.loads"
    one_rule = figures["one_rule_us"] / figures["hmac_and_json_us"]
    report.add(f"one rule, against {reference}", one_rule, "×", "≤ 0.6", lambda value: value <= 0.6)
    elsewhere = figures["hundred_elsewhere_us"] / figures["hmac_and_json_us"]
    report.add(f"100 rules for other events, against {reference}", elsewhere, "×", "≤ 0.2", lambda value: value <= 0.2)
    report.add("100 rules that do not match", figures["hundred_rules_us"], "µs")
    report.add("100 rules that do not match: to find the nearest", figures["nearest_us"], "µs")
    slowest = figures["slowest_detect_ms"]
    report.add("detect: the slowest of all vectors", slowest, "ms", "≤ 10", lambda value: value <= 10)


@contextlib.contextmanager
def peers(folder: str) -> Iterator[dict[str, int]]:
    """What the bridge is compared with, by name, and its port."""
    with contextlib.ExitStack() as running:
        ports = {"the constant view": running.enter_context(servers.constant(folder))}
        if node_red.executable() is None:
            print("Node-RED is not here: `npm install node-red`, and NODE_RED names its executable")
        else:
            ports["Node-RED, which stores nothing"] = running.enter_context(node_red.serving(folder))
        for port in ports.values():
            load.closed_loop(port, events.requests(500), load.CONNECTIONS)
        yield ports


def bench_acks(report: Report, name: str, folder: str, database: str, count: int) -> None:
    """Durable acknowledgements in a flood; latencies at a fixed rate; CPU; memory."""
    with (
        peers(folder) as peer_ports,
        servers.sandbox(folder, "--visitor", "any", *SLOW) as destination,
        servers.bridge(folder, database, destination) as (port, pid, start_s),
    ):
        report.add(f"{name}: start to first 200", start_s, "s")
        time.sleep(2)
        report.add(f"{name}: memory at rest (PSS)", servers.pss_mb(pid), "MB")
        for rate in (100, 200):
            result = load.open_loop(port, events.requests(rate * 10, first=10_000_000 * rate), rate)
            load.require_ok(result)
            report.add(f"{name}: ack p50 at {rate}/s, destination hangs", result.quantile_ms(0.5), "ms")
            report.add(f"{name}: ack p99 at {rate}/s, destination hangs", result.quantile_ms(0.99), "ms")
        bench_flood(report, name, port, pid, count, peer_ports)
        report.add(
            f"{name}: memory after {count:,} events (PSS)", servers.pss_mb(pid), "MB", "≤ 130", lambda v: v <= 130
        )


def bench_flood(report: Report, name: str, port: int, pid: int, count: int, peer_ports: dict[str, int]) -> None:
    """Measure by turns with its peers, because a machine's speed changes within seconds; the ratio is a median."""
    share, cpu_s = count // ROUNDS, 0.0
    rates: dict[str, list[float]] = {peer: [] for peer in ("", *peer_ports)}
    for number in range(ROUNDS):
        for peer, peer_port in peer_ports.items():
            rates[peer].append(load.closed_loop(peer_port, events.requests(share), load.CONNECTIONS).per_second)
        before = servers.cpu_s(pid)
        result = load.closed_loop(port, events.requests(share, first=share * number), load.CONNECTIONS)
        load.require_ok(result)
        servers.wait_routed(port)
        cpu_s += servers.cpu_s(pid) - before
        rates[""].append(result.per_second)
    report.add(f"{name}: acknowledged and durable", statistics.median(rates[""]), "/s")
    for peer in peer_ports:
        ratio = statistics.median(own / other for own, other in zip(rates[""], rates[peer], strict=True))
        report.add(f"{peer}", statistics.median(rates[peer]), "/s")
        report.add(f"{name}: acknowledged and durable, against {peer}", ratio, "×")
    report.add(f"{name}: CPU per event, receive + route", cpu_s * 1000 / count, "ms")


PARTS = {  # each with how many events in a quick run, and in a full one
    "routing": (routing.run, 1_000, 5_000),
    "backtest": (backtest.run, 1_000, 10_000),
    "claims": (claims.run, 20_000, 1_000_000),
    "links": (links.run, 50_000, 1_000_000),
    "half-million": (half_million.run, 50_000, 500_000),
    "console": (console.run, 50_000, 1_000_000),
}


def measure(report: Report, folder: str, databases: dict[str, str], only: str | None, *, quick: bool) -> None:
    """Measure everything, or only one part."""
    count = COUNTS[quick]
    if only in (None, "micro"):
        bench_micro(report)
    if only in (None, "acks"):
        for name, database in databases.items():
            bench_acks(report, name, folder, database, count)
    if only in (None, "delivery"):
        for name, database in databases.items():
            deliveries.run(report.add, name, folder, database, count // 10)
    for part, (run, few, many) in PARTS.items():
        for name, database in databases.items() if only in (None, part) else ():
            own = servers.own_database(database, part)
            run(report.add, name, folder, own, few if quick else many)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--only", choices=("micro", "acks", "delivery", *PARTS), help="one part")
    either.add_argument("--against", metavar="REVISION", help="only compare with this earlier release, by turns")
    options = parser.parse_args()
    report = Report()
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    compileall.compile_dir(servers.ROOT / "bridge", quiet=1)  # as it is installed: else each start compiles, in 0.4 s
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, servers.postgres() as postgres:
        databases = {"SQLite": f"sqlite:///{folder}/bench.db", "PostgreSQL": postgres}
        if options.against:
            for name, database in databases.items():
                against.run(report.add, name, folder, database, COUNTS[options.quick], options.against)
        else:
            measure(report, folder, databases, options.only, quick=options.quick)
    if options.json:
        with open(options.json, "w") as file:
            json.dump([asdict(figure) for figure in report.figures], file, indent=1, ensure_ascii=False)
    over = [figure.what for figure in report.figures if figure.ok is False]
    print(f"\n{len(over)} over budget" + "".join(f"\n  {what}" for what in over))
    return 0


if __name__ == "__main__":
    sys.exit(main())
