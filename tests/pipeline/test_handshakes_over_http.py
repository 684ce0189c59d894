"""Hand-shakes over real HTTP: by the bridge's own worker as `serve` starts it, and by a plain WSGI server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import structlog
from running import eventually
from sources_kit import ED25519

from bridge import app, store, web
from bridge import settings as table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "a_secret_of_some_length"
NOTION = "secret_of_notion_0123456789"
PROVIDERS = (
    "discord", "dropbox", "intercom", "mailchimp", "meta", "microsoft-graph", "okta", "slack", "stripe", "trello",
    "twitter", "woocommerce", "zoom",
)  # fmt: skip
CUSTOM = """
verify: {type: token, signature: {in: "header:X-Token"}}
envelope: {type: type}
handshake: {method: GET, echo: "query:challenge"}
"""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """One of the two, in one folder with one database."""

    url: str
    folder: Path
    log: Callable[[], str] = str

    def ask(self, method: str, path: str, body: bytes | None = None, headers=None) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        with closing(connection):
            connection.request(method, f"/webhooks/{path}", body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def rows(self, statement: str) -> list[tuple]:
        with closing(sqlite3.connect(self.folder / "bridge.db")) as conn:
            return conn.execute(statement).fetchall()


def environment(folder: Path) -> dict[str, str]:
    """Every source but Notion has its secret."""
    mappings = folder / "mappings"
    mappings.mkdir()
    rule = "visitor: v\ngoals:\n  - {goal: a, event: b}\n"
    for name in (*PROVIDERS, "notion", "notion-later"):
        provider = "notion" if name.startswith("notion") else name
        (mappings / f"{name}.yaml").write_text(f"provider: {provider}\n{rule}")
    (mappings / "own.yaml").write_text(f"provider: custom{CUSTOM}{rule}")
    given = {f"{name.upper().replace('-', '_')}_WEBHOOK_SECRET": SECRET for name in (*PROVIDERS, "own", "notion-later")}
    return {
        **given,
        "DISCORD_WEBHOOK_SECRET": ED25519.public_key().public_bytes_raw().hex(),
        "META_VERIFY_TOKEN": "chosen",
        "BRIDGE_MAPPINGS": str(mappings),
        "DATABASE_URL": f"sqlite:///{folder / 'bridge.db'}",
        "DATAFAST_API_KEY": "df_key",
        "DATAFAST_API_URL": "http://127.0.0.1:9/api/v1",
        "BRIDGE_ADMIN_TOKEN": "admin-token-of-the-test",
    }


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module", params=["worker", "plain wsgi"])
def server(request, shared_machine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("handshakes")
    environ = environment(folder)
    if request.param == "worker":
        process = shared_machine.web(environ, name=folder.name)  # one log each, if it is started again
        yield Server(process.url, folder, lambda: process.log)
        assert "Traceback" not in process.log
        return
    store.migrate(environ["DATABASE_URL"])
    bridge = app.build(table.load(environ), worker=False)
    bridge.start()
    with make_server("127.0.0.1", 0, web.create(bridge), handler_class=Quiet) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield Server(f"http://127.0.0.1:{made.server_port}", folder)
        made.shutdown()
        thread.join(10)
    bridge.stop()


def v0(prefix: str, stamp_header: str, signature_header: str, document: object) -> tuple[bytes, dict[str, str]]:
    """A request as Slack and Zoom sign it."""
    body, stamp = json.dumps(document).encode(), str(int(time.time()))
    digest = hmac.new(SECRET.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    return body, {stamp_header: stamp, signature_header: prefix + digest}


def slack(document):
    return v0("v0=", "X-Slack-Request-Timestamp", "X-Slack-Signature", document)


def discord(document):
    body, stamp = json.dumps(document).encode(), str(int(time.time()))
    signature = ED25519.sign(stamp.encode() + body).hex()
    return body, {"X-Signature-Timestamp": stamp, "X-Signature-Ed25519": signature}


WEBSUB = "hub.mode=subscribe&hub.challenge=1158201444"
CHALLENGE = {"type": "url_verification", "token": "t", "challenge": "3eZbrw1aB"}
CRC = base64.b64encode(hmac.new(SECRET.encode(), b"abc", hashlib.sha256).digest())


@pytest.mark.parametrize(
    ("method", "path", "headers", "kind", "said"),
    [
        ("GET", "dropbox?challenge=a%20b", {}, "text/plain", b"a b"),
        ("GET", "dropbox/?challenge=a", {}, "text/plain", b"a"),
        ("GET", f"meta?{WEBSUB}&hub.verify_token=chosen", {}, "text/plain", b"1158201444"),
        ("GET", "twitter?crc_token=abc", {}, "application/json", b'{"response_token": "sha256=%s"}' % CRC),
        ("GET", "okta", {"X-Okta-Verification-Challenge": "c"}, "application/json", b'{"verification": "c"}'),
        ("GET", "own?challenge=c", {}, "text/plain", b"c"),
        ("GET", "microsoft-graph?validationToken=t", {}, "text/plain", b"t"),
        ("POST", "microsoft-graph?validationToken=Validation%3A+t", {}, "text/plain", b"Validation: t"),
        ("GET", "mailchimp?token=" + SECRET, {}, None, b""),
        ("HEAD", "mailchimp", {}, None, b""),
        ("HEAD", "trello", {}, None, b""),
        ("HEAD", "intercom", {}, None, b""),
    ],
)  # fmt: skip
def test_an_unsigned_hand_shake_is_answered(server, method, path, headers, kind, said):
    answer = server.ask(method, path, b"" if method == "POST" else None, headers)
    assert (answer.status, answer.body) == (200, said)
    assert answer.headers.get("content-type", "").partition(";")[0] == (kind or "")
    assert answer.headers["content-length"] == str(len(said))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_signed_hand_shakes_are_answered_and_forged_ones_are_not(server):
    body, headers = slack(CHALLENGE)
    answer = server.ask("POST", "slack", body, headers)
    assert (answer.status, answer.body) == (200, b"3eZbrw1aB")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert server.ask("POST", "slack", body, {**headers, "X-Slack-Signature": "v0=" + "0" * 64}).status == 401
    zoom = {"event": "endpoint.url_validation", "payload": {"plainToken": "qgg8vl"}}
    body, headers = v0("v0=", "x-zm-request-timestamp", "x-zm-signature", zoom)
    said = json.loads(server.ask("POST", "zoom", body, headers).body)
    encrypted = hmac.new(SECRET.encode(), b"qgg8vl", hashlib.sha256).hexdigest()
    assert said == {"plainToken": "qgg8vl", "encryptedToken": encrypted}
    assert server.ask("POST", "zoom", body).status == 401


def test_discord_hears_204_without_a_body_for_whatever_it_signs(server):
    for document in (
        {"version": 1, "type": 0},
        {"type": 1, "event": {"type": "X"}},
        {"type": 1, "event": {"type": "X"}},
    ):
        body, headers = discord(document)
        answer = server.ask("POST", "discord", body, headers)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers.get("content-length", "0") == "0"  # wsgiref says so by itself
        assert "transfer-encoding" not in answer.headers
        forged = server.ask("POST", "discord", body + b" ", headers)
        assert (forged.status, forged.body) == (401, b"The signature is missing or wrong.\n")
    assert server.rows("SELECT type, duplicates FROM events WHERE source = 'discord'") == [("X", 1)]


def test_after_a_204_the_connection_takes_the_next_request(server):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    body, headers = discord({"version": 1, "type": 0})
    with closing(connection):
        for _ in range(3):
            connection.request("POST", "/webhooks/discord", body, headers)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (204, b"")


def test_woocommerces_ping_is_answered_200(server):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = server.ask("POST", "woocommerce", b"webhook_id=7", form)
    assert (answer.status, answer.body) == (200, b"")
    for body in (b"webhook_id=7&order=1", b"webhook_id=x", b""):
        assert server.ask("POST", "woocommerce", body, form).status == 401
    assert server.ask("POST", "woocommerce", b"webhook_id=7", {**form, "X-WC-Webhook-Signature": "AAAA"}).status == 401


@pytest.mark.parametrize(
    "path",
    [
        f"meta?{WEBSUB}&hub.verify_token=other", f"meta?{WEBSUB}", "dropbox?challenge=" + "x" * 257,
        "dropbox?challenge=a%0Ab", "twitter?crc_token=%7B%22a%22%3A1%7D", "twitter?crc_token=" + "x" * 129,
    ],
)  # fmt: skip
def test_a_hand_shake_that_is_not_its_senders_hears_401_and_not_why(server, path):
    answer = server.ask("GET", path)
    assert (answer.status, answer.body) == (401, b"The signature is missing or wrong.\n")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "stripe?hub.challenge=1&challenge=1&crc_token=1"), ("GET", "slack?challenge=1"), ("GET", "dropbox"),
        ("HEAD", "stripe"), ("HEAD", "dropbox?challenge=1"), ("GET", "trello"), ("GET", "intercom"), ("GET", "twitter"),
        ("GET", "meta?hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=chosen"), ("GET", "nobody?challenge=1"),
        ("PUT", "dropbox?challenge=1"), ("OPTIONS", "trello"),
    ],
)  # fmt: skip
def test_every_other_look_is_405_with_the_sentence_as_ever(server, method, path):
    answer = server.ask(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.body.startswith(b"" if method == "HEAD" else b"This address takes webhooks by POST.")


def test_no_header_of_a_proxy_changes_an_answer(server):
    for headers in (
        {"X-Forwarded-For": "1.1.1.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"},
        {"X-Http-Method-Override": "POST", "Forwarded": "for=1.1.1.1"},
    ):
        assert server.ask("GET", "dropbox?challenge=a", headers=headers).body == b"a"
        assert server.ask("HEAD", "trello", headers=headers).status == 200


def test_notions_first_message_is_kept_for_a_person_and_nowhere_told(server):
    with structlog.testing.capture_logs() as lines:  # of the plain server, which is in this process
        keep_first_messages(server)
    told = [_get(server, path).decode() for path in ("/status", "/readyz", "/metrics", "/healthz")]
    assert "secret_" not in json.dumps([*told, lines, server.log()])


def keep_first_messages(server):
    body = json.dumps({"verification_token": NOTION}).encode()
    answer = server.ask("POST", "notion", body, {"X-Forwarded-For": "6.6.6.6, 192.0.2.7"})
    assert (answer.status, answer.body) == (200, b"")
    kept = "SELECT source, token, sender FROM first_messages"
    rows = eventually(lambda: server.rows(kept), what="it is written")
    assert rows == [("notion", NOTION, "192.0.2.7 by 127.0.0.1")]
    for number in range(5):
        server.ask("POST", "notion", json.dumps({"verification_token": f"secret_forged_{number}"}).encode())
    eventually(lambda: NOTION not in json.dumps(server.rows(kept)), what="the last three stay")
    assert len(server.rows(kept)) == 3
    other = server.ask("POST", "notion", b'{"type": "page.created", "id": "1"}')
    assert other.status == 503
    assert server.ask("POST", "notion", b'{"type": "x", "verification_token": "secret_0123456789"}').status == 503


def _get(server, path):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    with closing(connection):
        connection.request("GET", path, headers={"Authorization": "Bearer admin-token-of-the-test"})
        return connection.getresponse().read()


def test_with_a_secret_an_unsigned_first_message_leaves_nothing_behind(server):
    body = json.dumps({"verification_token": NOTION}).encode()
    assert server.ask("POST", "notion-later", body).status == 401
    signed = {"X-Notion-Signature": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
    assert server.ask("POST", "notion-later", body, signed).status == 200
    time.sleep(0.6)  # longer than it would take to be written
    assert server.rows("SELECT * FROM first_messages WHERE source = 'notion-later'") == []


def test_in_the_end_no_hand_shake_was_stored_as_an_event(server):
    assert {source for (source,) in server.rows("SELECT source FROM events")} <= {"discord"}
    assert server.rows("SELECT count(*) FROM events WHERE state = 'quarantined'") == [(0,)]
