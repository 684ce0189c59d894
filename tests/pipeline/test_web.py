"""The web process as it is deployed: limits, refusals and slow clients over real sockets; what it says and what not."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from cases_kit import one_in
from running import ROOT, SECRETS, STRIPE_SECRET, Web

from bridge.sandbox import sign

LIMIT = 1 << 20
FORGED = int(os.environ.get("BRIDGE_FORGED", "10000"))  # requests; more by hand
MALFORMED = int(os.environ.get("BRIDGE_MALFORMED", "20000"))


@pytest.fixture(scope="module")
def web(shared_machine) -> Web:
    environ = {
        "DATABASE_URL": f"sqlite:///{shared_machine.folder / 'bridge.db'}",
        "BRIDGE_MAPPINGS": str(ROOT / "mappings"),
        "BRIDGE_REQUEST_DEADLINE": "1s",
        **SECRETS,
    }
    return shared_machine.web(environ)


def signed(body: bytes) -> dict[str, str]:
    return dict(sign.stripe(body, STRIPE_SECRET, int(time.time())))


def event(number: object, size: int = 0) -> bytes:
    fields = {
        "id": f"evt_{number}",
        "object": "event",
        "type": "charge.updated",
        "livemode": True,
        "data": {"object": {}},
    }
    body = json.dumps({**fields, "fill": ""}).encode()
    return body.replace(b'"fill": ""', b'"fill": "' + b"x" * max(size - len(body), 0) + b'"')


def connect(web: Web) -> socket.socket:
    place = urlsplit(web.url)
    return socket.create_connection((place.hostname, place.port), timeout=20)


@pytest.mark.parametrize("chunked", one_in(2, [True, False]))
@pytest.mark.parametrize(
    ("extra", "status"),
    [
        pytest.param(-1, 200, marks=pytest.mark.long),
        (0, 200),
        (1, 413),
        pytest.param(3_000_000, 413, marks=pytest.mark.long),
    ],
)
def test_the_limit_of_a_body_is_exact(web, chunked, extra, status):
    body = event(f"limit_{chunked}_{extra}", LIMIT + extra)
    sent = iter([body[:70_000], body[70_000:]]) if chunked else body
    answer = requests.post(f"{web.url}/webhooks/stripe", data=sent, headers=signed(body), timeout=20)
    assert answer.status_code == status


def test_a_compressed_body_is_415(web):
    body = gzip.compress(event("zip"))
    answer = web.post("stripe", body, {**signed(body), "Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "identity")


def test_an_event_is_taken_with_a_slash_behind_the_name_and_without_a_redirect(web):
    body = event("slash")
    for address in ("stripe/", "stripe"):
        assert web.post(address, body, signed(body)).status_code == 200


@pytest.mark.parametrize("path", one_in(2, ["/healthz", "/readyz"]))
def test_the_process_says_that_it_lives(web, path):
    assert web.get(path).status_code == 200


@pytest.mark.long
def test_slow_clients_are_cut_and_delay_nobody(web):
    slow = [connect(web) for _ in range(120)]
    for number, sock in enumerate(slow):
        sock.sendall(b"POST /webhooks/stripe HTTP/1.1\r\nHost: h\r\n" + b"Content-Length: 50\r\n\r\n{" * (number % 2))
    took = []
    for number in range(50):
        started = time.monotonic()
        body = event(f"quick_{number}")
        assert web.post("stripe", body, signed(body)).status_code == 200
        took.append(time.monotonic() - started)
    assert max(took) < 40.0
    for sock in slow:
        assert sock.recv(100).startswith(b"HTTP/1.1 408 ")
        sock.close()


@pytest.mark.parametrize("count", [500, pytest.param(FORGED, marks=pytest.mark.long)])
def test_forged_requests_are_never_accepted(web, count):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    place = urlsplit(web.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    refused = 0
    for number in range(count):
        body = event(f"forged_{number}")
        connection.request("POST", "/webhooks/stripe", body, _forged(chance, body))
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (401, 408), f"seed {seed}, request {number}"  # 408: the machine stood still meanwhile
        refused += answer.status == 401
    connection.close()
    assert refused > 0.9 * count
    assert web.get("/readyz").status_code == 200


def _forged(chance: random.Random, body: bytes) -> dict[str, str]:
    """A right header with one fault, of a kind that once fooled somebody."""
    now = int(time.time())
    right = dict(sign.stripe(body, STRIPE_SECRET, now))["Stripe-Signature"]
    stamp, signature = right.split(",")
    at = chance.randrange(3, len(signature))
    other = chance.choice([digit for digit in "0123456789abcdef" if digit != signature[at]])
    return {
        "Stripe-Signature": chance.choice(
            (
                f"{stamp},{signature[:at]}{other}{signature[at + 1 :]}",
                f"{stamp},v0={signature[3:]}",
                f"t={now - 1},{signature}",
                f"{stamp},{signature[:-1]}",
                f"{stamp},{signature}00",
                f"{stamp},v1=",
                signature,
                stamp,
                "",
                dict(sign.stripe(body, "whsec_another", now))["Stripe-Signature"],
                dict(sign.stripe(body, "", now))["Stripe-Signature"],
                dict(sign.stripe(body, STRIPE_SECRET, now - 4_000))["Stripe-Signature"],
                dict(sign.stripe(body, STRIPE_SECRET, now + 4_000))["Stripe-Signature"],
                dict(sign.stripe(body + b" ", STRIPE_SECRET, now))["Stripe-Signature"],
            )
        )
    }


@pytest.mark.long
@pytest.mark.parametrize("count", [1_000, pytest.param(MALFORMED, marks=pytest.mark.long)])
def test_malformed_requests_are_never_our_fault(web, count):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    body = event("malformed")
    head = f"POST /webhooks/stripe HTTP/1.1\r\nHost: h\r\nStripe-Signature: {signed(body)['Stripe-Signature']}\r\n"
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    for number in range(count):
        data = bytearray(chance.choice((whole, chunked)))
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(3)] = chance.choice(
                (b"", b"\r\n", b"\n", b"\x00", b":", b" ", b"9", b"\xff")
            )
        with connect(web) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            said = sock.recv(100)
        assert not said.startswith(b"HTTP/1.1 5"), f"seed {seed}, request {number}: {bytes(data)!r} got {said!r}"
    assert web.get("/readyz").status_code == 200


def test_it_is_one_process_without_a_control_socket(web):
    master = psutil.Process(web.process.pid)
    (worker,) = master.children()
    sockets = {
        Path(found.laddr).name for each in (master, worker) for found in each.net_connections("unix") if found.laddr
    }
    assert not [name for name in sockets if "gunicorn" in name]


def test_every_line_of_the_log_is_structured_and_none_tells_what_was_sent(web):
    lines = [line for line in web.log.splitlines() if not line.startswith("warning: ")]
    assert lines
    assert all(json.loads(line)["event"] for line in lines)
    for hidden in (STRIPE_SECRET, "Traceback", "Stripe-Signature", "xxxxxxxxxx"):
        assert hidden not in web.log
