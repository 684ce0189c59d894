"""What routing one event costs (CPU of this process), and how long a batch keeps SQLite's other writers waiting.

`flood`: events that no rule matches; `lives`: the simulator's life cycles, of which one event in six makes a goal.
The cost is compared with parsing the same bodies with `json.loads`, so that runs on different machines compare.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import events
from bench.servers import SECRET
from bridge import rules, sources
from bridge import store as bridge_store
from bridge.model import Destination, Event, EventState, NewEvent, Request
from bridge.prepare import Preparer
from bridge.route import CLAIM_BATCH, Router
from bridge.sandbox import scenarios, simulator
from bridge.settings import load
from bridge.store.database.begin import Gate
from bridge.store.database.sqlite import NoFile
from bridge.store.inbox.group_commit import Inbox

ENVIRON = {"DATAFAST_API_KEY": "df_bench", "STRIPE_WEBHOOK_SECRET": SECRET, "LEMONSQUEEZY_WEBHOOK_SECRET": SECRET}
DESTINATIONS = {"default": Destination("default", "df_bench")}
SETTINGS = load(ENVIRON)


class Watched(Gate):
    """A gate that remembers for how many ms it was held by those without priority."""

    def __init__(self) -> None:
        super().__init__()
        self.held_ms: list[float] = []

    @contextmanager
    def turn(self, timeout_s: float, *, first: bool = False) -> Iterator[None]:
        with super().turn(timeout_s, first=first):
            started = time.perf_counter()
            try:
                yield
            finally:
                if not first:
                    self.held_ms.append((time.perf_counter() - started) * 1000)


def run(add: Callable[..., None], name: str, folder: str, database: str, count: int) -> None:
    rule_set = rules.load(rules.read_files(Path(__file__).parents[1] / "mappings"), ENVIRON, sources.presets())
    for what, arriving in (("flood", _flood(rule_set, count)), ("lives", _lives(rule_set, count))):
        parse_us = _us(partial(_parse, arriving), len(arriving))
        prepare_us = _us(partial(_prepare, rule_set, arriving), len(arriving))
        url = database if not database.startswith("sqlite") else f"sqlite:///{folder}/routing-{what}.db"
        together_us, held_ms = _route(rule_set, url, arriving, CLAIM_BATCH)
        add(f"{name}, {what}: CPU of routing an event, {CLAIM_BATCH} at once", together_us, "µs")
        add(f"{name}, {what}: CPU of routing an event, against parsing its JSON", together_us / parse_us, "×")
        add(f"{name}, {what}: CPU of reading an event and asking the rules", prepare_us, "µs")
        if held_ms:
            held_ms.sort()
            add(f"{name}, {what}: a batch holds up other writers, p50", statistics.median(held_ms), "ms")
            add(f"{name}, {what}: a batch holds up other writers, p95", held_ms[int(len(held_ms) * 0.95)], "ms")
    alone_us, _ = _route(rule_set, url, _flood(rule_set, count // 10, first=6_000_000_000), 1)
    add(f"{name}, flood: CPU of routing an event, one at once", alone_us, "µs")


def _us(work: Callable[[], object], count: int) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) / count * 1e6


def _flood(rule_set: rules.RuleSet, count: int, first: int = 5_000_000_000) -> list[NewEvent]:
    return [_read(rule_set, "stripe", {}, events.body(number)) for number in range(first, first + count)]


def _lives(rule_set: rules.RuleSet, count: int) -> list[NewEvent]:
    """This many events of customers whose life cycles overlap."""
    names = [name for name in scenarios.SCENARIOS if name.startswith(("stripe", "lemonsqueezy"))]
    lives = (
        scenarios.build(name, seed=seed, end_s=int(time.time()) - 1) for seed in itertools.count() for name in names
    )
    dice, steps = random.Random(1), list[tuple[float, scenarios.Step]]()
    for number, life in enumerate(lives):
        if len(steps) >= count:
            break
        steps += [(number + dice.random() * 20 + place / len(life), step) for place, step in enumerate(life)]
    steps.sort(key=lambda pair: pair[0])
    return [_signed(rule_set, step) for _, step in steps[:count]]


def _signed(rule_set: rules.RuleSet, step: scenarios.Step) -> NewEvent:
    signed = simulator.request(step, SECRET, int(time.time()))
    return _read(rule_set, step.source, {name.lower(): value for name, value in signed.headers.items()}, signed.body)


def _read(rule_set: rules.RuleSet, source: str, headers: dict[str, str], body: bytes) -> NewEvent:
    path = f"/webhooks/{source}"
    return sources.read(rule_set.sources[source], Request("POST", f"http://x{path}", path, "", headers, body))


def _parse(arriving: Sequence[NewEvent]) -> None:
    for event in arriving:
        json.loads(event.body)


def _prepare(rule_set: rules.RuleSet, arriving: Sequence[NewEvent]) -> None:
    preparer = Preparer(rule_set, SETTINGS, DESTINATIONS, b"key")
    for number, event in enumerate(arriving):
        preparer.prepare(
            Event(
                number, event.source, event.provider, event.envelope, 1 << 60, EventState.RECEIVED, event.headers,
                event.query, event.body,
            )
        )  # fmt: skip


def _route(rule_set: rules.RuleSet, url: str, arriving: Sequence[NewEvent], batch: int) -> tuple[float, list[float]]:
    """CPU µs per event, and how long each write transaction held SQLite's gate."""
    bridge_store.migrate(url)
    opened = bridge_store.open(url.replace("postgresql://", "postgresql+psycopg://", 1))
    gates: list[Watched] = []

    def gate() -> Watched:
        gates.append(Watched())
        return gates[-1]

    store = bridge_store.Store(opened.engine, file=NoFile(), gate=gate) if opened.dialect == "sqlite" else opened
    inbox, tokens = Inbox(store), itertools.count()
    with ThreadPoolExecutor(32) as senders:
        list(senders.map(lambda event: inbox.post(event).result(), arriving))
    inbox.close()
    router = Router(store, SETTINGS, new_token=lambda: f"{next(tokens)}")
    router.route_batch(rule_set, DESTINATIONS, 1)
    for watched in gates:
        watched.held_ms.clear()
    spent_us = _us(lambda: _all(router, rule_set, batch), len(arriving) - 1)
    store.close()
    return spent_us, [ms for watched in gates for ms in watched.held_ms]


def _all(router: Router, rule_set: rules.RuleSet, batch: int) -> None:
    while router.route_batch(rule_set, DESTINATIONS, batch):
        pass
