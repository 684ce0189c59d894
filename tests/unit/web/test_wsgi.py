"""A process that starts while its database is away answers 503 until it is back."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from structlog.testing import capture_logs
from werkzeug.test import Client

from bridge import store
from bridge.errors import MappingError, SettingsError, StoreUnavailable
from bridge.web import wsgi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAPPING = """
provider: custom
secret: ${SHOP_SECRET}
verify: {type: token, signature: {in: "header:x-token"}}
envelope: {type: type}
visitor: visitor
goals: [{goal: sale, event: sale}]
"""


@pytest.fixture
def process(tmp_path: Path, monkeypatch) -> Iterator[wsgi.Process]:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/disk/bridge.db")
    monkeypatch.setenv("BRIDGE_MAPPINGS", str(tmp_path / "mappings"))
    monkeypatch.setenv("SHOP_SECRET", "tok")
    monkeypatch.setattr(wsgi, "RETRY_S", 0.05)
    made = wsgi.Process()
    yield made
    made.stop()


def post(process: wsgi.Process):
    return Client(process).post("/webhooks/shop", data=b'{"type": "sale"}', headers={"X-Token": "tok"})


def test_it_answers_503_until_the_database_is_there_and_then_takes_events(process, tmp_path):
    answer = post(process)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "shop.yaml").write_text(MAPPING)
    (tmp_path / "disk").mkdir()
    store.migrate(f"sqlite:///{tmp_path}/disk/bridge.db")
    until = time.monotonic() + 10
    while post(process).status_code != 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert post(process).json == {"status": "duplicate"}


def test_requests_are_answered_while_the_process_stops(process, tmp_path):
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "shop.yaml").write_text(MAPPING)
    (tmp_path / "disk").mkdir()
    store.migrate(f"sqlite:///{tmp_path}/disk/bridge.db")
    process.start()
    process.stop()
    assert post(process).json == {"status": "accepted"}


@pytest.mark.parametrize(("method", "target", "quick"), [
    ("POST", "/webhooks/shop", True),
    ("POST", "/webhooks/nobody", True),  # 404 needs no thread either
    ("GET", "/webhooks/shop", False),
    ("POST", "/links", False),
    ("POST", "http://shop.example/webhooks/shop", False),  # the form that a proxy takes: its URL is not as it was sent
])  # fmt: skip
def test_only_a_webhook_in_its_usual_form_needs_no_thread(process, tmp_path, method, target, quick):
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "shop.yaml").write_text(MAPPING)
    (tmp_path / "disk").mkdir()
    process.start()
    head = f"{method} {target} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n"
    request = Request(Config(), IterUnreader([head.encode()]), ("192.0.2.7", 50001), 1)
    assert (process.quick_for(request) is not None) is quick


def test_a_stop_waits_for_what_is_counted_in_advance(process, tmp_path, monkeypatch):
    """It reads the database, and SQLite keeps its log beside the file until the last connection is closed."""
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "shop.yaml").write_text(MAPPING)
    (tmp_path / "disk").mkdir()
    store.migrate(f"sqlite:///{tmp_path}/disk/bridge.db")
    reading, stopping = threading.Event(), threading.Event()

    class Counted:
        def get(self):
            with process._bridge.store.read() as conn:
                conn.exec_driver_sql("SELECT count(*) FROM events")
                reading.set()
                stopping.wait(10)
                time.sleep(0.2)

    real = wsgi.web.create

    def with_counted(bridge):
        application = real(bridge)
        application.extensions[wsgi.AHEAD] = [Counted()]
        return application

    monkeypatch.setattr(wsgi.web, "create", with_counted)
    process.start()
    assert reading.wait(10)
    assert post(process).status_code == 200
    stopping.set()
    process.stop()
    assert [one.name for one in (tmp_path / "disk").iterdir()] == ["bridge.db"]


def test_mappings_that_were_never_good_end_the_start(process, tmp_path):
    (tmp_path / "disk").mkdir()
    store.migrate(f"sqlite:///{tmp_path}/disk/bridge.db")
    with pytest.raises(MappingError):
        process.start()


def test_wrong_settings_end_the_start(process, monkeypatch):
    monkeypatch.setenv("BRIDGE_LEASE", "1s")
    with pytest.raises(SettingsError):
        process.start()


def test_requests_before_the_database_is_there_make_no_more_tries(process, monkeypatch):
    tries = []

    def away(_settings):
        tries.append(threading.active_count())
        time.sleep(0.02)
        raise StoreUnavailable("away")

    monkeypatch.setattr(wsgi, "_build", away)
    for _ in range(40):
        assert post(process).status_code == 503
    tries.clear()
    with capture_logs() as lines:
        time.sleep(1.0)
    assert tries
    assert lines == []  # why it waits was said once
    assert len(tries) <= 1.0 / 0.05 + 1


def test_a_locked_database_without_tables_is_503_until_it_is_free(process, tmp_path):
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "shop.yaml").write_text(MAPPING)
    (tmp_path / "disk").mkdir()
    with closing(sqlite3.connect(tmp_path / "disk" / "bridge.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN IMMEDIATE")
        process.start()
        for _ in range(3):
            assert post(process).status_code == 503  # it is not waited for: the other one still holds it
    until = time.monotonic() + 20
    while post(process).status_code != 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert post(process).json == {"status": "duplicate"}
