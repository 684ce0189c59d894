"""The modes without a storm of signals: forgeries, malformed requests, slow clients, large bodies, one event at once.

Each plays one thing at its full size and says what it counted; the tests play the same things smaller.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from bridge.sandbox import sign
from chaos import hostile, plan
from chaos.databases import Database
from chaos.family import Member, wait
from chaos.run import Run, quiet

Facts = dict[str, Any]
Say = Callable[[str], None]


def forged(wanted: plan.Plan, say: Say) -> tuple[bool, Facts]:
    """MODE=forged: EVENTS forgeries, none accepted."""
    statuses, stored = hostile.ask_forged(wanted.events, wanted.seed)
    say(f"  {wanted.events:,} forged: {dict(statuses)}; {stored} stored")
    facts = {"mode": "forged", "seed": wanted.seed, "statuses": statuses, "stored": stored}
    return not stored and set(statuses) == {401}, facts


def malformed(wanted: plan.Plan, say: Say) -> tuple[bool, Facts]:
    """MODE=malformed: EVENTS requests in this process, and a tenth as many on a socket; none is answered 5xx."""
    statuses = hostile.ask_malformed(wanted.events, wanted.seed)
    with bridge(replace(wanted, workers=0, webs=1)) as run:
        port = run.webs[0].port or 0
        raw = hostile.ask_raw(port, max(1, wanted.events // 10), wanted.seed)
        alive = post(port, b"{}") == 200
    say(f"  {wanted.events:,} malformed: {dict(statuses)}")
    say(f"  {max(1, wanted.events // 10):,} on a socket: {dict(raw)}; alive afterwards: {alive}")
    facts = {"mode": "malformed", "seed": wanted.seed, "statuses": statuses, "raw": raw}
    return alive and max(statuses) < 500 and "5xx" not in raw, facts


def slow(wanted: plan.Plan, say: Say, seconds: float = 60.0) -> tuple[bool, Facts]:
    """MODE=slow: 100 slow heads and 100 slow bodies at a time for a minute; the others are served meanwhile."""
    with bridge(replace(wanted, workers=0, webs=1)) as run:
        port = run.webs[0].port or 0
        over = threading.Event()
        crowd = [
            threading.Thread(target=_drip, args=(port, over, number % 2 == 0), daemon=True) for number in range(200)
        ]
        for thread in crowd:
            thread.start()
        time.sleep(1.0)
        took = _ask_for(port, seconds, per_second=20)
        over.set()
    served = sorted(took_s for took_s in took if took_s is not None)
    facts = {
        "mode": "slow", "seed": wanted.seed, "seconds": seconds, "asked": len(took), "served": len(served),
        "share": round(len(served) / len(took), 4), "p99_s": round(served[int(0.99 * (len(served) - 1))], 3),
        "slowest_s": round(served[-1], 3),
    }  # fmt: skip
    say(f"  {facts['served']} of {facts['asked']} served, p99 {facts['p99_s']} s, slowest {facts['slowest_s']} s")
    return len(served) >= 0.99 * len(took) and served[-1] <= 12, facts


def memory(wanted: plan.Plan, say: Say, waiting: int = 100_000) -> tuple[bool, Facts]:
    """MODE=memory: this many goals wait, and 200 bodies of 1 MB come at once."""
    more = {"BRIDGE_RATE_PER_MINUTE": "1"}
    with bridge(replace(wanted, workers=0, webs=1, more=more), before=lambda made: _fill(made, waiting)) as run:
        web = run.webs[0]
        time.sleep(3)
        rest = pss_mb(web)
        seen = Peak(web)
        body = b'{"type": "x", "padding": "' + b"x" * 1_000_000 + b'"}'
        with ThreadPoolExecutor(200) as pool:
            answers = Counter(pool.map(lambda n: post(web.port or 0, body + b" " * n), range(200)))
        time.sleep(2)
        peak = seen.stop()
    facts = {"mode": "memory", "waiting": waiting, "rest_mb": rest, "peak_mb": peak, "answers": dict(answers)}
    say(f"  {waiting:,} goals waiting: {rest} MB; with 200 bodies of 1 MB at once: {peak} MB; answers {dict(answers)}")
    return peak <= 256 and set(answers) <= {200, 503, 429}, facts


def same(wanted: plan.Plan, say: Say, times: int = 1_000) -> tuple[bool, Facts]:
    """MODE=same: one event, a thousand times at once, on four processes."""
    rng = random.Random(wanted.seed)
    with bridge(replace(wanted, webs=4, workers=0, faults=0, events=1)) as run:
        (sent,) = run.events
        ports = [web.port or 0 for web in run.webs]
        with ThreadPoolExecutor(64) as pool:
            answers = Counter(pool.map(lambda _: post(rng.choice(ports), sent.body, tries=20), range(times)))
        wait(run.recorded, 60, "the goal arrives")
        time.sleep(3)
        goals = len(run.recorded())
        rows = run.database.rows("SELECT count(*), max(duplicates) FROM events")[0]
    facts = {"mode": "same", "seed": wanted.seed, "answers": dict(answers), "goals": goals, "events": rows[0]}
    say(f"  {times:,} times at once on 4 processes: {dict(answers)}, {rows[0]} event, {goals} goal")
    return goals == 1 and rows[0] == 1 and set(answers) == {200}, facts


# ------------------------------------------------------------------------------------------------------------ parts


@contextlib.contextmanager
def bridge(
    wanted: plan.Plan,
    before: Callable[[Database], None] = lambda _: None,
    *,
    unread: bool = False,
    files: int | None = None,
) -> Iterator[Run]:
    """Run the processes of a run without its signals. before: what is done to the empty database.

    unread: nobody reads what the webs write. files: how many files a web may open.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Database(wanted.database, Path(folder)) as database:
        before(database)
        run = Run(replace(wanted, events=min(wanted.events, 10)), Path(folder), database, quiet)
        members = [run.destination, *run.webs, *run.workers]
        for web in run.webs:
            web.unread, web.files = unread, files
        try:
            for member in members:
                member.start()
            for member in members:
                wait(member.is_up, 120, f"{member.name} is up")
            for web in run.webs:
                wait(partial(_healthy, web.port), 120, f"{web.name} answers")
            yield run
        finally:
            for member in reversed(members):
                member.end()


def _healthy(port: int | None) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    return False


def post(port: int, body: bytes, tries: int = 1) -> int:
    """Post a signed event of Stripe; return the status, or 0 if there was no answer."""
    status = 0
    for _ in range(tries):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/webhooks/stripe", body, sign.stripe(body, plan.SECRET, int(time.time())))
            status = connection.getresponse().status
        connection.close()
        if status == 200:
            break
        time.sleep(0.05)
    return status


def _drip(port: int, over: threading.Event, head_only: bool) -> None:
    """A client that sends a byte per second, and connects again when it is cut off."""
    start = b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\n"
    start += b"" if head_only else b"Content-Length: 100000\r\n\r\n"
    while not over.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
            peer.sendall(start)
            while not over.wait(1.0):
                peer.sendall(b"X")
        over.wait(0.2)


def _ask_for(port: int, seconds: float, per_second: int) -> list[float | None]:
    """How long each of the others waited for its 200; None: it got none. They are sent on schedule."""
    began = time.monotonic()

    def ask(number: int) -> float | None:
        due = began + number / per_second
        time.sleep(max(0.0, due - time.monotonic()))
        body = b'{"type": "x", "id": "evt_%d"}' % number
        return time.monotonic() - due if post(port, body) == 200 else None

    with ThreadPoolExecutor(64) as pool:
        return list(pool.map(ask, range(round(seconds * per_second))))


def _fill(database: Database, count: int) -> None:
    """Insert this many goals that wait for their turn."""
    url = database.url.replace("postgresql://", "postgresql+psycopg://", 1)
    now = time.time_ns() // 1_000_000
    series = (
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        if database.kind == "sqlite"
        else f"WITH n(i) AS (SELECT generate_series(1, {count}))"
    )
    events = (
        "INSERT INTO events (source, provider, type, test, received_at_ms, dedupe_key, headers, query, body, state)"
        f" {series} SELECT 'stripe', 'stripe', 't', false, {now}, 'k' || i, '{{}}', '{{}}', NULL, 'routed' FROM n"
    )
    goals = (
        "INSERT INTO goals (event_id, source, rule_id, destination, once_key, test, name, description, metadata,"
        " visitor, state, happened_at_ms, time_is_stated, ordered_at_ms, created_at_ms, changed_at_ms, due_at_ms,"
        " expires_at_ms, wait_ms) SELECT id, 'stripe', 'r', 'default', 'o' || id, false, 'purchase', 'd' || id,"
        f" '{{}}', 'v' || id, 'pending', {now}, false, {now}, {now}, {now}, {now} + id, {now} + 600000000, 1"
        " FROM events"
    )
    engine = create_engine(url)
    with engine.begin() as conn:
        conn.execute(text(events.replace(":", "\\:")))
        conn.execute(text(goals.replace(":", "\\:")))
    engine.dispose()


def pss_mb(member: Member) -> float:
    """Memory of a process and its children, shared pages counted once."""
    total = 0
    for pid in (member.pid, *member.children()):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return round(total / 1024, 1)


class Peak:
    """The most memory that a member has taken since."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._most = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            with contextlib.suppress(OSError):  # a process that ends just now
                self._most = max(self._most, pss_mb(self._member))

    def stop(self) -> float:
        self._over.set()
        self._thread.join()
        return self._most
