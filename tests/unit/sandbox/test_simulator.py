"""The player: what it posts, in which order and pace, and how it tells what became of each request."""

from __future__ import annotations

import hashlib
import hmac
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from bridge.errors import UsageError
from bridge.sandbox import scenarios, simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW_S = 1_790_000_000
SECRETS = {"stripe": "whsec_one", "lemonsqueezy": "two", "generic": "whsec_" + "QUJD" * 8, "polar": "three"}
ANSWERS = {
    "/webhooks/stripe": (200, b'{"status":"accepted"}'),
    "/webhooks/lemonsqueezy": (401, b'{"error":"signature missing or wrong"}'),
    "/redirected": (302, b""),
}


class Listener(ThreadingHTTPServer):
    """Remembers what it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        status, answer = ANSWERS.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Location", self.server.url + "/elsewhere")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def play(name: str, *targets: str) -> list[simulator.Sent]:
    steps = scenarios.build(name, seed=1, end_s=NOW_S, spread=True)
    return list(simulator.play(steps, targets, SECRETS, lambda: NOW_S))


def test_each_step_is_posted_to_its_source_and_the_answer_is_told(listener: Listener) -> None:
    sent = play("stripe-refund", listener.url)
    assert [one.answer for one in sent] == ["accepted"] * len(sent)
    assert all(one.ok and one.ms > 0 for one in sent)
    assert {path for path, _, _ in listener.got} == {"/webhooks/stripe"}


def test_what_is_posted_is_signed_over_the_bytes_that_arrive(listener: Listener) -> None:
    play("stripe-purchase", listener.url)
    _, headers, body = listener.got[-1]
    expected = hmac.new(b"whsec_one", b"%d." % NOW_S + body, hashlib.sha256).hexdigest()
    assert headers["Stripe-Signature"] == f"t={NOW_S},v1={expected}"
    play("lemonsqueezy-order", listener.url)
    _, headers, body = listener.got[-1]
    assert headers["X-Signature"] == hmac.new(b"two", body, hashlib.sha256).hexdigest()
    assert b"\\/" in body
    assert b"\\u2713" in body


def test_a_refusal_is_no_success_and_is_told_as_it_was_answered(listener: Listener) -> None:
    sent = play("lemonsqueezy-order", listener.url)
    assert [(one.ok, one.status) for one in sent] == [(False, 401)] * 3
    assert "signature missing" in sent[0].answer


def test_a_redirect_is_not_followed(listener: Listener) -> None:
    assert play("stripe-purchase", listener.url + "/redirected")[0].status == 302
    assert "/elsewhere" not in {path for path, _, _ in listener.got}


def test_nobody_there_is_a_sentence_and_no_exception() -> None:
    server = Listener()
    server.server_close()
    sent = play("stripe-purchase", server.url)
    assert {(one.status, one.answer) for one in sent} == {(None, "nobody listens there")}


def test_several_machines_take_turns(listener: Listener) -> None:
    sent = play("stripe-refund", listener.url, listener.url + "/webhooks/stripe/")
    assert [one.url.endswith("/") for one in sent] == [False, True] * 4


@pytest.mark.parametrize(
    ("to", "url"),
    [
        ("http://h:1", "http://h:1/webhooks/stripe"),
        ("http://h:1/", "http://h:1/webhooks/stripe"),
        ("https://h/my/hook", "https://h/my/hook"),
    ],
)
def test_a_bare_url_gets_the_hook_of_the_source(to: str, url: str) -> None:
    assert simulator.target(to, "stripe") == url


@pytest.mark.parametrize("to", ["localhost:8000", "", "ftp://h/x", "http://"])
def test_what_is_no_url_is_refused_in_words(to: str) -> None:
    with pytest.raises(UsageError, match="must be a URL"):
        simulator.target(to, "stripe")


def test_all_missing_secrets_are_named_at_once() -> None:
    steps = [scenarios.build(name, seed=1, end_s=NOW_S)[0] for name in ("stripe-refund", "lemonsqueezy-order")]
    with pytest.raises(UsageError, match="LEMONSQUEEZY_WEBHOOK_SECRET and STRIPE_WEBHOOK_SECRET"):
        simulator.secrets_from({}, steps)
    environ = {"STRIPE_WEBHOOK_SECRET": " whsec_new, whsec_old ", "LEMONSQUEEZY_WEBHOOK_SECRET": "a pass, phrase"}
    assert simulator.secrets_from(environ, steps) == {"stripe": "whsec_new", "lemonsqueezy": "a pass, phrase"}
