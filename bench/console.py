"""What the pages of the console cost over HTTP, with a million events and a hundred thousand goals.

The rows are those of `half_million`, with one goal in ten events, and made more like life: some goals have no visitor,
some were rejected, some wait. Each page is requested again and again, as by a browser that is signed in.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

import requests

from bench import servers
from bench.half_million import BIG, driver, fill
from bridge import store as bridge_store

TOKEN = "bench-admin-token-0123456789"
TIMES = 40  # each page
PAGES = (
    "/console/",
    "/console/home/now",
    "/console/home/live",
    "/console/activity",
    "/console/activity?kind=goals",
    "/console/activity?kind=goals&visitor=no&test=no&since=7d",
    "/console/events/ev_{event}",
    "/console/people",
    "/console/people/visitor-{visitor}",
    "/console/rules",
    "/console/sources",
    "/console/sources/stripe",
)
LONG = ("/console/report", "/console/report?since=30d")  # reads every goal of the days: no limit


def run(add: Callable[..., None], name: str, folder: str, database: str, count: int) -> None:
    url = f"sqlite:///{folder}/console.db" if database.startswith("sqlite") else database
    bridge_store.migrate(driver(url))
    fill(driver(url), count, share=10)
    vary_goals(driver(url))
    with _bridge(folder, url) as (port, pid):
        requests.get(f"http://127.0.0.1:{port}/status")
        plain_mb = _settled_mb(pid)
    with _bridge(folder, url, BRIDGE_ADMIN_TOKEN=TOKEN) as (port, pid):
        browser = signed_in(port)
        place = {"event": BIG + count - 10, "visitor": f"{count - 10:09d}"}
        for path in PAGES:
            _page(add, name, browser, (port, pid), path.format(**place))
        gained = _settled_mb(pid) - plain_mb
        add(f"{name}: memory that a worker gains by the console (PSS)", gained, "MB", "≤ 8", lambda value: value <= 8)
        add(f"{name}: first load of Home", _first_load_kb(browser, port), "KB", "≤ 60", lambda value: value <= 60)
        for path in LONG:
            add(f"{name}: {path}, the first time", _took_ms(browser, port, path)[0], "ms")


@contextlib.contextmanager
def _bridge(folder: str, url: str, **settings: str) -> Iterator[tuple[int, int]]:
    with (
        servers.sandbox(folder, "--visitor", "any") as destination,
        servers.bridge(folder, url, destination, **settings) as (port, pid, _),
    ):
        time.sleep(3)
        yield port, pid


def signed_in(port: int) -> requests.Session:
    """A browser that has signed in."""
    browser = requests.Session()
    form = browser.get(f"http://127.0.0.1:{port}/console/").text
    csrf = re.search(r'name="csrf_token" value="([^"]+)"', form)
    assert csrf is not None, form[:500]
    browser.post(f"http://127.0.0.1:{port}/console/sign-in", {"token": TOKEN, "csrf_token": csrf[1]})
    return browser


def _page(add: Callable[..., None], name: str, browser: requests.Session, server: tuple[int, int], path: str) -> None:
    """Measure one page. Its CPU time, unlike the rest, is the same on a machine that does other things meanwhile."""
    port, pid = server
    took, status, before_s = [], 0, servers.cpu_s(pid)
    for number in range(TIMES):
        took_ms, status = _took_ms(browser, port, path)
        took.append(took_ms)
        time.sleep(0.15 * (number % 8 == 0))  # so that some requests come after cached values have expired
    cpu_ms = (servers.cpu_s(pid) - before_s) * 1000 / TIMES
    if status != HTTPStatus.OK:
        print(f"{name}: {path} answers {status}")
        return
    add(f"{name}: {path}, the first time", took[0], "ms")
    add(f"{name}: {path}, p50", statistics.median(took), "ms")
    add(f"{name}: {path}, p95", sorted(took)[int(TIMES * 0.95)], "ms", "≤ 100", lambda value: value <= 100)
    add(f"{name}: {path}, CPU", cpu_ms, "ms")


def _took_ms(browser: requests.Session, port: int, path: str) -> tuple[float, int]:
    started = time.perf_counter()
    status = browser.get(f"http://127.0.0.1:{port}{path}").status_code
    return (time.perf_counter() - started) * 1000, status


def _settled_mb(pid: int) -> float:
    """The memory once the work at the start, or for the last page, is done: the median of ten seconds."""
    found = []
    for _ in range(10):
        time.sleep(1)
        found.append(servers.pss_mb(pid))
    return statistics.median(found)


def _first_load_kb(browser: requests.Session, port: int) -> float:
    """Home and everything that it loads, as it is sent."""
    page = browser.get(f"http://127.0.0.1:{port}/console/")
    parts = sorted(set(re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text)))
    answers = (page, *(browser.get(f"http://127.0.0.1:{port}{part}") for part in parts))
    return sum(int(answer.headers["Content-Length"]) for answer in answers) / 1024


def vary_goals(url: str) -> None:
    """In a hundred goals: ten without a visitor, three rejected, two parked; five hundred wait to be sent."""
    store = bridge_store.open(url)
    place = f"((id - {BIG}) / 10 - (id - {BIG}) / 1000 * 100)"
    with store.engine.connect() as conn:
        if store.dialect != "sqlite":
            conn.exec_driver_sql("SET LOCAL statement_timeout = 0")
            conn.connection.driver_connection.limit_s = 600  # type: ignore[union-attr]
        for statement in _VARIATIONS:
            conn.exec_driver_sql(statement.format(place=place))
        if store.dialect != "sqlite":
            conn.exec_driver_sql("ANALYZE")  # as autovacuum has done long before there are a million rows
        conn.commit()
    store.close()


_VARIATIONS = (
    """UPDATE goals SET handover = 'purchase',
    reason = CASE WHEN {place} < 10 THEN 'no_visitor' WHEN {place} < 13 THEN 'unknown_visitor' END,
    visitor = CASE WHEN {place} < 10 OR {place} IN (20, 21) THEN NULL ELSE visitor END,
    state = CASE WHEN {place} < 10 THEN 'unattributed' WHEN {place} < 13 THEN 'rejected'
    WHEN {place} IN (20, 21) THEN 'parked' ELSE state END""",
    """UPDATE goals SET state = 'pending' WHERE state = 'delivered' AND id IN
    (SELECT id FROM goals ORDER BY id DESC LIMIT 500)""",
    """INSERT INTO source_counters (source, accepted, last_accepted_at_ms, longest_gap_ms)
    SELECT 'stripe', count(*), max(received_at_ms), 3600000 FROM events""",
)
