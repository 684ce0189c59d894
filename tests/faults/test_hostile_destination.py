"""A destination that drips, floods, cuts, resets, redirects and lies, on a raw socket.

Whatever it does, the client ends at its deadline, reads a bounded answer, never raises, and never calls a request
"not sent" of which a byte has left.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import ipaddress
import socket
import ssl
import struct
import threading
import time
import tracemalloc

import pytest

from bridge.datafast import Client, goal
from bridge.model import Destination, OutcomeKind

HERE = Destination("default", "df_secret_key")
GOAL = goal.body("v", "n", "", {})
DEADLINE_MS = 600
LATEST_S = 8.0  # on a busy machine; the deadline is 0.6 s, and an unbounded client takes ten seconds and more


class Peer:
    """Accepts connections and runs a script on each; counts them, and keeps what was sent to it."""

    def __init__(self, script, context=None):
        self.script = script
        self.context = context
        self.connections = 0
        self.received = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(30)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10)
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            with connection:
                self.script(self, connection)

    def read(self, connection):
        """One request, headers and body."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65_536)
            if not piece:
                raise ConnectionError
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65_536)
        self.received += head + b"\r\n\r\n" + body

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def peer():
    peers = []

    def start(script, context=None):
        peers.append(Peer(script, context))
        return peers[-1]

    yield start
    for one in peers:
        one.close()


def answers(*pieces, pause_s=0.0):
    """A script: read the request, send these bytes with pauses between, close."""

    def script(peer, connection):
        peer.read(connection)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)

    return script


def dripping(data, pause_s=0.02):
    return answers(*(data[place : place + 1] for place in range(len(data))), pause_s=pause_s)


def ask(peer, *, scheme="http", deadline_ms=10_000, **options):
    """The outcome, and how long it took."""
    client = Client(f"{scheme}://127.0.0.1:{peer.port}/api/v1", deadline_ms, **options)
    started = time.monotonic()
    outcome = client.post(HERE, "goals", goal.body("v", "purchase", "stripe evt_1", {"a": "b"}))
    took_s = time.monotonic() - started
    client.close()
    assert "df_secret_key" not in outcome.message
    assert len(outcome.message) <= 300
    return outcome, took_s


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
RECORDED = b'{"status":"success","data":[{"message":"Custom event created successfully","eventId":"67f8"}]}'


def sized(head, body):
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


# ---------------------------------------------------------------------------------------------------- the deadline


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (dripping(b"HTTP/1.1 200 OK\r\n" * 100, pause_s=0.005), OutcomeKind.DELIVERED),
        (dripping(b"H" * 1_000), OutcomeKind.UNCONFIRMED),
        (
            answers(b"HTTP/1.1 200 OK\r\n", *[b"X-Drip: %d\r\n" % n for n in range(500)], pause_s=0.02),
            OutcomeKind.DELIVERED,
        ),
        (
            answers(b"HTTP/1.1 503 No\r\n", *[b"X-Drip: %d\r\n" % n for n in range(500)], pause_s=0.02),
            OutcomeKind.REFUSED_FOR_NOW,
        ),
        (answers(OK, b"Content-Length: 999\r\n\r\n", *[b"{"] * 500, pause_s=0.02), OutcomeKind.DELIVERED),
        (answers(b"HTTP/1.1 400 No\r\nContent-Length: 999\r\n\r\n", *[b"x"] * 500, pause_s=0.02), OutcomeKind.REJECTED),
        (
            answers(OK, b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 500, pause_s=0.02),
            OutcomeKind.DELIVERED,
        ),
        (answers(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 500, pause_s=0.02), OutcomeKind.UNCONFIRMED),
        (answers(b"", pause_s=5), OutcomeKind.UNCONFIRMED),
    ],
    ids=[
        "status line",
        "no line",
        "headers after 200",
        "headers after 503",
        "body",
        "error body",
        "chunks",
        "continue",
        "silence",
    ],
)
def test_a_drip_ends_at_the_deadline(peer, script, kind):
    outcome, took_s = ask(peer(script), deadline_ms=DEADLINE_MS)
    assert outcome.kind is kind
    assert took_s < LATEST_S


@pytest.mark.parametrize("head", [b"", OK + b"Content-Length: 999\r\n\r\n"], ids=["headers", "body"])
def test_a_late_byte_does_not_prolong_the_wait(peer, head):
    """Each wait gets what is left, not the whole deadline again."""

    def script(server, connection):
        server.read(connection)
        connection.sendall(head)
        time.sleep(1.4)
        connection.sendall(b"H")
        time.sleep(5)

    _, took_s = ask(peer(script), deadline_ms=1_500)
    assert took_s < 2.4


def test_an_answer_that_repeats_the_request_does_not_carry_the_key_on(peer):
    def script(server, connection):
        server.read(connection)
        connection.sendall(sized(b"HTTP/1.1 400 No\r\nContent-Type: text/plain\r\n", server.received))

    server = peer(script)
    outcome, _ = ask(server)
    assert b"Bearer df_secret_key" in server.received
    assert "Bearer …" in outcome.message


def test_a_peer_that_accepts_and_never_reads_ends_at_the_deadline(peer):
    outcome, took_s = ask(peer(lambda *_: time.sleep(3)), deadline_ms=DEADLINE_MS)
    assert outcome.kind is OutcomeKind.UNCONFIRMED
    assert outcome.message == "127.0.0.1 did not answer within 600ms"
    assert took_s < LATEST_S


def test_a_peer_that_takes_a_large_request_slowly_ends_at_the_deadline():
    """More than the socket's buffers hold: the sending itself has to end."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", 2_000)
        started = time.monotonic()
        outcome = client.post(HERE, "goals", goal.body("v", "n", "x" * 8_000_000, {}))
        assert time.monotonic() - started < 60
        assert outcome.kind is OutcomeKind.UNCONFIRMED
        client.close()


def test_a_full_backlog_ends_at_the_deadline_and_was_not_sent():
    """The kernel accepts no more: a connect that never completes."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", DEADLINE_MS)
        started = time.monotonic()
        outcome = client.post(HERE, "goals", GOAL)
        assert time.monotonic() - started < LATEST_S
        assert outcome.kind is OutcomeKind.NOT_SENT
        assert outcome.message == "could not connect to 127.0.0.1 within 600ms"
        client.close()


def test_a_resolver_that_never_answers_ends_at_the_deadline(monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(10) and [])
    client = Client("http://datafast.example", DEADLINE_MS)
    started = time.monotonic()
    outcome = client.post(HERE, "goals", GOAL)
    assert time.monotonic() - started < LATEST_S
    answer.set()
    assert (outcome.kind, outcome.message) == (
        OutcomeKind.NOT_SENT,
        "could not connect to datafast.example within 600ms",
    )
    client.close()


# ---------------------------------------------------------------------------------------------- certainly not sent


def test_a_refused_connection_was_not_sent():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}", DEADLINE_MS)
    outcome = client.post(HERE, "goals", GOAL)
    assert (outcome.kind, outcome.message) == (
        OutcomeKind.NOT_SENT,
        "could not connect to 127.0.0.1: connection refused",
    )
    client.close()


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example"])
def test_a_name_that_is_none_was_not_sent(host):
    client = Client(f"http://{host}", DEADLINE_MS)
    outcome = client.post(HERE, "goals", GOAL)
    assert outcome.kind is OutcomeKind.NOT_SENT
    assert outcome.message.startswith(f"could not find the address of {host}")
    client.close()


def test_a_name_that_nobody_knows_was_not_sent(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    client = Client("http://datafast.example", DEADLINE_MS)
    outcome = client.post(HERE, "goals", GOAL)
    assert (outcome.kind, outcome.message) == (
        OutcomeKind.NOT_SENT,
        "could not find the address of datafast.example: name or service not known",
    )
    client.close()


def test_a_dead_first_address_leaves_time_for_the_second(peer, monkeypatch):
    living = peer(answers(sized(OK, RECORDED)))
    with socket.socket() as dead, contextlib.ExitStack() as stack:
        dead.bind(("127.0.0.2", 0))
        dead.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(dead.getsockname())
        both = [dead.getsockname(), ("127.0.0.1", living.port)]
        rows = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in both]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
        client = Client("http://datafast.example", DEADLINE_MS)
        outcome = client.post(HERE, "goals", GOAL)
        assert outcome.kind is OutcomeKind.DELIVERED
        client.close()


# ---------------------------------------------------------------------------------------------------- lost answers


def resetting(*pieces):
    def script(peer, connection):
        peer.read(connection)
        for piece in pieces:
            connection.sendall(piece)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return script


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (answers(), "127.0.0.1 closed the connection before it answered"),
        (resetting(), "127.0.0.1 closed the connection before it answered"),
        (answers(b"HTTP"), "127.0.0.1 sent an answer that is not HTTP"),
        (answers(b"hello\r\n\r\n"), "127.0.0.1 sent an answer that is not HTTP"),
        (answers(b"HTTP/1.1 abc OK\r\n\r\n"), "127.0.0.1 sent an answer that is not HTTP"),
        (answers(b"HTTP/1.1 -200 OK\r\n\r\n"), "127.0.0.1 sent an answer that is not HTTP"),
        (answers(b"SSH-2.0-OpenSSH_9.2\r\n"), "127.0.0.1 sent an answer that is not HTTP"),
        (answers(b"\x00\xff" * 40_000), "127.0.0.1 sent an answer that is not HTTP"),
        (answers(b"HTTP/1.1 100 Continue\r\n\r\n"), "127.0.0.1 closed the connection before it answered"),
        (answers(b"HTTP/1.1 200 " + b"x" * 100_000), "127.0.0.1 sent an answer that is not HTTP"),
    ],
    ids=["close", "reset", "half a word", "hello", "letters", "negative", "ssh", "binary", "continue", "endless line"],
)
def test_an_answer_that_is_none_is_unconfirmed(peer, script, message):
    outcome, _ = ask(peer(script))
    assert (outcome.kind, outcome.status, outcome.message) == (OutcomeKind.UNCONFIRMED, None, message)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (answers(OK + b"Content-Length: 500\r\n\r\n" + RECORDED[:20]), OutcomeKind.DELIVERED),
        (resetting(OK + b"Content-Length: 500\r\n\r\n" + RECORDED[:20]), OutcomeKind.DELIVERED),
        (answers(OK + b"Transfer-Encoding: chunked\r\n\r\n500\r\nabc"), OutcomeKind.DELIVERED),
        (answers(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), OutcomeKind.DELIVERED),
        (answers(b"HTTP/1.1 200 OK\r\n"), OutcomeKind.DELIVERED),
        (answers(b"HTTP/1.1 200\r\n\r\n"), OutcomeKind.DELIVERED),
        (answers(OK + b"Content-Length: many\r\n\r\n"), OutcomeKind.DELIVERED),
        (answers(OK + b"Content-Length: 5, 6\r\n\r\n"), OutcomeKind.DELIVERED),
        (answers(OK + b"no colon here\r\n\r\n"), OutcomeKind.DELIVERED),
        (answers(b"HTTP/1.1 500 No\r\nContent-Length: 500\r\n\r\nabc"), OutcomeKind.UNCONFIRMED),
        (answers(b"HTTP/1.1 503 No\r\nContent-Length: 500\r\n\r\nabc"), OutcomeKind.REFUSED_FOR_NOW),
        (answers(b"HTTP/1.1 401 No\r\nContent-Length: 500\r\n\r\nabc"), OutcomeKind.CONFIGURATION),
    ],
)
def test_once_the_status_line_is_read_it_counts(peer, script, kind):
    outcome, _ = ask(peer(script))
    assert outcome.kind is kind


def test_a_whole_answer_in_chunks_is_read(peer):
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(RECORDED[n : n + 7]), RECORDED[n : n + 7]) for n in range(0, len(RECORDED), 7)
    )
    outcome, _ = ask(peer(answers(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")))
    assert outcome.event_id == "67f8"


def test_a_redirect_is_not_followed(peer):
    target = peer(answers(sized(OK, RECORDED)))
    location = b"Location: http://127.0.0.1:%d/\r\n" % target.port
    for status in (b"301", b"302", b"303", b"307", b"308"):
        outcome, _ = ask(peer(answers(sized(b"HTTP/1.1 %s Moved\r\n%s" % (status, location), b""))))
        assert outcome.kind is OutcomeKind.CONFIGURATION
    assert target.connections == 0


def test_the_request_is_sent_once_whatever_happens(peer):
    hostile = peer(resetting())
    ask(hostile)
    assert hostile.connections == 1
    assert hostile.received.count(b"POST /api/v1/goals") == 1


# ---------------------------------------------------------------------------------------------------------- floods


def flooding(head, piece):
    def script(peer, connection):
        peer.read(connection)
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return script


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (flooding(b"HTTP/1.1 400 No\r\n\r\n", b"x" * 65_536), OutcomeKind.REJECTED),
        (
            flooding(b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b"x" * 1024 + b"\r\n"),
            OutcomeKind.REJECTED,
        ),
        (flooding(b"HTTP/1.1 200 OK\r\n", b"X-Flood: " + b"x" * 1_000 + b"\r\n"), OutcomeKind.DELIVERED),
        (flooding(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536), OutcomeKind.DELIVERED),
        (flooding(b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 100), OutcomeKind.UNCONFIRMED),
        (
            flooding(b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 1_000),
            OutcomeKind.REJECTED,
        ),
    ],
    ids=["body", "chunks", "headers", "one header", "continue", "trailers"],
)
def test_a_flood_is_read_to_a_limit_in_bounded_memory(peer, script, kind):
    hostile = peer(script)
    tracemalloc.start()
    try:
        outcome, took_s = ask(hostile, deadline_ms=20_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.kind is kind
    assert peak < 4_000_000
    assert took_s < 5


def test_a_gzip_bomb_is_not_unpacked(peer):
    bomb = gzip.compress(b"\0" * 50_000_000)  # 48 KB
    head = b"HTTP/1.1 400 No\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    hostile = peer(answers(sized(head, bomb)))
    tracemalloc.start()
    try:
        outcome, _ = ask(hostile)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (outcome.kind, outcome.message) == (OutcomeKind.REJECTED, "the answer was 400, without a message")
    assert peak < 4_000_000
    assert b"Accept-Encoding: identity" in hostile.received


# ------------------------------------------------------------------------------------------------ kept connections


def keeping(idle_s=10.0):
    """Answer every request on one connection, and close it after so long without one."""

    def script(peer, connection):
        connection.settimeout(idle_s)
        while True:
            peer.read(connection)
            connection.sendall(sized(OK, RECORDED))

    return script


def test_requests_in_quick_succession_share_a_connection(peer):
    server = peer(keeping())
    client = Client(f"http://127.0.0.1:{server.port}", 5_000)
    for _ in range(5):
        assert client.post(HERE, "goals", GOAL).event_id == "67f8"
    assert server.connections == 1
    client.close()


def test_a_connection_is_not_used_again_after_a_second(peer):
    server = peer(keeping())
    client = Client(f"http://127.0.0.1:{server.port}", 5_000, max_idle_ms=50)
    for _ in range(3):
        assert client.post(HERE, "goals", GOAL).event_id == "67f8"
        time.sleep(0.1)
    assert server.connections == 3
    client.close()


def test_a_connection_that_the_destination_closed_while_idle_is_no_lost_answer(peer):
    server = peer(keeping(idle_s=0.05))
    client = Client(f"http://127.0.0.1:{server.port}", 5_000)
    for _ in range(3):
        assert client.post(HERE, "goals", GOAL).kind is OutcomeKind.DELIVERED
        time.sleep(0.2)
    client.close()


def test_the_rest_of_a_long_answer_does_not_become_the_next_one(peer):
    head = b"HTTP/1.1 400 No\r\nContent-Type: text/plain\r\n"
    long = b"x" * 65_536 + sized(b"HTTP/1.1 200 OK\r\n", b"{}") * 10

    def script(server, connection):
        while True:
            server.read(connection)
            connection.sendall(sized(head, long))

    server = peer(script)
    client = Client(f"http://127.0.0.1:{server.port}", 5_000)
    for _ in range(3):
        assert client.post(HERE, "goals", GOAL).status == 400
    assert server.connections == 3
    client.close()


# ------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of our own for 127.0.0.1: (file of the certificate, server context)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + made.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return str(file), context


def test_a_trusted_certificate_is_accepted(peer, certificate):
    file, context = certificate
    outcome, _ = ask(peer(answers(sized(OK, RECORDED)), context), scheme="https", ca_file=file)
    assert (outcome.kind, outcome.event_id) == (OutcomeKind.DELIVERED, "67f8")


def test_a_certificate_that_nobody_vouches_for_is_refused_before_the_key_is_sent(peer, certificate):
    server = peer(answers(sized(OK, RECORDED)), certificate[1])
    outcome, _ = ask(server, scheme="https")
    assert outcome.kind is OutcomeKind.NOT_SENT
    assert outcome.message == "the certificate of 127.0.0.1 was not accepted: self-signed certificate"
    assert server.received == b""


def test_a_certificate_of_another_host_is_refused(peer, certificate):
    file, context = certificate
    server = peer(answers(sized(OK, RECORDED)), context)
    client = Client(f"https://localhost:{server.port}", 5_000, ca_file=file)
    outcome = client.post(HERE, "goals", GOAL)
    assert outcome.kind is OutcomeKind.NOT_SENT
    assert "localhost" in outcome.message
    client.close()


def test_plain_http_on_the_secure_port_was_not_sent(peer):
    outcome, _ = ask(peer(lambda _, connection: connection.sendall(b"HTTP/1.1 400 No\r\n\r\n")), scheme="https")
    assert outcome.kind is OutcomeKind.NOT_SENT
    assert outcome.message.startswith("no secure connection to 127.0.0.1: ")


def test_a_handshake_that_never_ends_was_not_sent(peer):
    outcome, took_s = ask(peer(lambda *_: time.sleep(3)), scheme="https", deadline_ms=DEADLINE_MS)
    assert (outcome.kind, outcome.message) == (OutcomeKind.NOT_SENT, "could not connect to 127.0.0.1 within 600ms")
    assert took_s < LATEST_S


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", OK + b"Content-Length: 999\r\n\r\n"])
def test_a_drip_over_tls_ends_at_the_deadline(peer, certificate, head):
    file, context = certificate
    server = peer(answers(head, *[b"H"] * 500, pause_s=0.02), context)
    outcome, took_s = ask(server, scheme="https", ca_file=file, deadline_ms=DEADLINE_MS)
    assert outcome.kind is (OutcomeKind.DELIVERED if head else OutcomeKind.UNCONFIRMED)
    assert took_s < LATEST_S


def test_a_secure_connection_that_is_cut_after_sending_is_unconfirmed(peer, certificate):
    file, context = certificate
    outcome, _ = ask(peer(resetting(), context), scheme="https", ca_file=file)
    assert outcome.kind is OutcomeKind.UNCONFIRMED
