"""The client of Stripe: every answer is a class of its own, nothing is raised, nothing secret is said."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from bridge.lookup.asking import AnswerKind, Question
from bridge.lookup.client import StripeClient
from bridge.model import Key
from bridge.sandbox import server

KEY = "rk_live_5ecret"
SESSIONS = Question(Key("stripe:live:sub_1", "subscription", "sub_1"), "sessions")
CHARGE = Question(Key("stripe:live:ch_1", "charge", "ch_1"), "object")
INVOICES = Question(Key("stripe:live:pi_1", "payment_intent", "pi_1"), "invoices")


@pytest.fixture
def sandbox():
    with server.start() as made:
        yield made


@pytest.fixture
def client(sandbox):
    made = StripeClient(KEY, sandbox.url, 5_000)
    yield made
    made.close()


def test_a_list_gives_its_objects_and_an_object_itself(sandbox, client):
    session = {"id": "cs_1", "object": "checkout.session", "subscription": "sub_1"}
    sandbox.stripe.seed([session, {"id": "ch_1", "object": "charge"}])
    assert [thing["id"] for thing in client.ask(SESSIONS, None).objects] == ["cs_1"]
    assert [thing["id"] for thing in client.ask(CHARGE, None).objects] == ["ch_1"]


def test_the_invoice_of_a_payment_comes_whole(sandbox, client):
    payment = {"type": "payment_intent", "payment_intent": "pi_1"}
    invoice = {"id": "in_1", "object": "invoice", "customer": "cus_1"}
    sandbox.stripe.seed(
        [{"id": "inpay_1", "object": "invoice_payment", "invoice": "in_1", "payment": payment}, invoice]
    )
    (thing,) = client.ask(INVOICES, None).objects
    assert thing["invoice"]["customer"] == "cus_1"


def test_requests_carry_key_version_and_account_and_no_telemetry(client, sandbox):
    client.ask(SESSIONS, "acct_1")
    client.ask(SESSIONS, None)
    own, other = sandbox.stripe.requests[1], sandbox.stripe.requests[0]
    assert (own["account"], other["account"]) == ("acct_sandbox", "acct_1")
    assert own["mode"] == "live"
    assert own["version"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, AnswerKind.RATE),
        (500, AnswerKind.UNREACHABLE),
        (503, AnswerKind.UNREACHABLE),
        (409, AnswerKind.UNREACHABLE),
        (400, AnswerKind.REFUSED),
    ],
)
def test_every_status_has_its_class(status, kind, sandbox, client):
    sandbox.stripe.fail(status)
    answer = client.ask(SESSIONS, None)
    assert answer.kind is kind
    assert len(sandbox.stripe.requests) == 1, "the SDK must not try again by itself"


def test_a_wish_to_wait_is_heard_and_bounded(sandbox, client):
    sandbox.stripe.fail(429, retry_after_s=7)
    assert client.ask(SESSIONS, None).retry_after_ms == 7_000
    sandbox.stripe.fail(429, retry_after_s=1_000_000)
    assert client.ask(SESSIONS, None).retry_after_ms == 15 * 60_000
    sandbox.stripe.fail(429)
    assert client.ask(SESSIONS, None).retry_after_ms is None


def test_what_is_not_there_is_missing(client):
    assert client.ask(CHARGE, None).kind is AnswerKind.MISSING
    assert client.ask(SESSIONS, None).objects == ()


def test_refusals_say_what_to_do_and_never_the_key(sandbox, client):
    sandbox.stripe.permissions[KEY] = []
    denied, foreign = client.ask(SESSIONS, None), client.ask(SESSIONS, "acct_9")
    sandbox.stripe.permissions[KEY] = None
    unknown = client.ask(SESSIONS, None)
    assert [denied.kind, foreign.kind, unknown.kind] == [AnswerKind.PERMISSION, AnswerKind.ACCOUNT, AnswerKind.KEY]
    assert 'may not read Checkout Sessions: give the restricted key "Read" there' in denied.message
    assert "5ecret" not in denied.message + foreign.message + unknown.message + repr(client)


def test_a_key_that_is_bound_to_other_addresses_is_no_matter_of_one_permission(sandbox, client):
    sandbox.stripe.fail(403)
    answer = client.ask(SESSIONS, None)
    assert (answer.kind, "other IP addresses" in answer.message) == (AnswerKind.KEY, True)


# --------------------------------------------------------------------------------------------------- hostile peers


def answering(*pieces, pause_s=0.0):
    """A server that says these bytes to whoever connects, and what its URL is."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection, listener:
            connection.recv(65_536)
            try:
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause_s)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread, f"http://127.0.0.1:{listener.getsockname()[1]}"


def http(body, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"rubbish\r\n\r\n",
        http(b"<html>not json</html>"),
        http(b"\xff\xfe"),
        http(b"[" * 100_000),
        http(b"{}")[:-1],
        http(b'{"object": "list", "data": 7}', "502 Bad Gateway"),
        http(b"", "302 Found", "Location: http://127.0.0.1:9/"),
        http(b'{"error": "text"}', "400 Bad Request"),
        http(b'{"error": {"message": null}}', "418 I'm a teapot"),
        http(b"null"),
        http(b"[1, 2]"),
    ],
)
def test_nothing_that_comes_back_is_raised_or_followed(said):
    thread, url = answering(said)
    client = StripeClient(KEY, url, 5_000)
    answer = client.ask(SESSIONS, None)
    assert answer.kind in (AnswerKind.UNREACHABLE, AnswerKind.REFUSED)
    assert answer.objects == ()
    client.close()
    thread.join(10)


def test_odd_lists_are_read_as_far_as_they_go():
    thread, url = answering(http(b'{"object": "list", "data": [7, null, {"id": "cs_1"}]}'))
    client = StripeClient(KEY, url, 5_000)
    answer = client.ask(SESSIONS, None)
    assert (answer.kind, [thing["id"] for thing in answer.objects]) == (AnswerKind.FOUND, ["cs_1"])
    client.close()
    thread.join(10)


def test_an_answer_that_drips_is_given_up_at_the_deadline():
    drops = [bytes([byte]) for byte in http(b" " * 2_000 + b"{}")]  # for 100 s
    thread, url = answering(*drops, pause_s=0.05)
    client = StripeClient(KEY, url, 400)
    begun = time.monotonic()
    assert client.ask(SESSIONS, None).kind is AnswerKind.UNREACHABLE
    assert time.monotonic() - begun < 60
    client.close()
    thread.join(20)


def test_an_answer_of_gigabytes_is_read_to_the_limit():
    endless = (b"x" * 65_536 for _ in range(200))
    thread, url = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", *endless)
    client = StripeClient(KEY, url, 5_000)
    answer = client.ask(SESSIONS, None)
    assert (answer.kind, answer.message) == (AnswerKind.REFUSED, "Stripe's answer is not JSON, or is too long")
    client.close()
    thread.join(20)


def test_a_netrc_file_does_not_replace_the_key(sandbox, tmp_path, monkeypatch):
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login somebody password else\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    client = StripeClient(KEY, sandbox.url, 5_000)
    assert client.ask(SESSIONS, None).kind is AnswerKind.FOUND
    client.close()
