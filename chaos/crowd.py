"""A hostile crowd in a process of its own: `python -m chaos.crowd KIND PORT SECONDS SEED [COUNT]`.

One loop drives all clients; a client that is dropped connects again at once. It prints its counts as one JSON line.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import random
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.sandbox import sign
from chaos.plan import SECRET

ADDRESS = "/webhooks/stripe"
MEBIBYTE = 1 << 20
COUNTS = {
    "kept": 540,
    "stalled": 2_000,
    "announced": 500,
    "large": 200,
    "percent": 1,
    "parse": 8,
    "chunks": 100,
    "log": 20,
}
ASK_EVERY_S = 0.8


def post(body_length: int, *, address: str = ADDRESS, more: str = "") -> bytes:
    """The head of a request."""
    return f"POST {address} HTTP/1.1\r\nHost: x\r\nContent-Length: {body_length}\r\n{more}\r\n".encode()


CHUNKED = f"POST {ADDRESS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
STAGES: tuple[Callable[[random.Random], bytes], ...] = (
    lambda _: b"",
    lambda _: b"POST /webh",
    lambda rng: b"POST / HTTP/1.1\r\nHost: x\r\n" + b"X-Padding: " + b"x" * rng.randrange(4_000),
    lambda rng: post(20_000) + b"x" * rng.randrange(19_000),
    lambda rng: CHUNKED + b"4000\r\n" + b"x" * rng.randrange(16_000),
    lambda _: b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
)


def announcing(rng: random.Random) -> bytes:
    """A MiB is announced, by its length or in one chunk, but only a little of it is sent."""
    some = b"x" * rng.randrange(2_000)
    return post(MEBIBYTE) + some if rng.random() < 0.5 else CHUNKED + b"100000\r\n" + some


def large(rng: random.Random) -> bytes:
    """A whole body of a MiB; one in sixteen is authentic."""
    body = b'{"id": "evt_%d", "type": "x", "padding": "' % rng.getrandbits(60)
    body += b"x" * (MEBIBYTE - len(body) - 2) + b'"}'
    if rng.random() < 1 / 16:
        headers = sign.stripe(body, SECRET, int(time.time()))
        return post(len(body), more="".join(f"{name}: {value}\r\n" for name, value in headers.items())) + body
    return post(len(body)) + body


def percent(_rng: random.Random) -> bytes:
    """A form of nothing but percent signs."""
    more = "Content-Type: application/x-www-form-urlencoded\r\n"
    return post(MEBIBYTE, address="/webhooks/thrivecart", more=more) + b"%" * MEBIBYTE


PARSED = (  # what takes longest to parse; it is refused only afterwards, because the secret would be in it
    *(("thrivecart", unit * (MEBIBYTE // len(unit))) for unit in (b"\xed\xa0\x80", b"%41x", b"a=%&", b"%ff", b"+")),
    ("thrivecart", b"&".join(b"a[%d][%s]=%s" % (n, b"x" * 40, b"%" * 50) for n in range(9_000))),
    ("slack", b"[" * (MEBIBYTE // 2) + b"]" * (MEBIBYTE // 2)),
    ("slack", b"[" + b"1.5e9," * (MEBIBYTE // 6 - 2) + b"1]"),
    ("slack", b"[" + b"{}," * (MEBIBYTE // 3 - 2) + b"1]"),
    ("slack", b"{" + b",".join(b'"%x":0' % n for n in range(95_000)) + b"}"),
    ("slack", b'{"a":"' + b"\xed\xa0\x80" * (MEBIBYTE // 3 - 8) + b'"}'),
    ("slack", b'{"a":"' + b"\\ud83d" * (MEBIBYTE // 6 - 8) + b'"}'),
    ("slack", b'{"a":' + b"1" * (MEBIBYTE - 6) + b"}"),
)


def parsed(rng: random.Random) -> bytes:
    """A whole body that is not an event, for a source that must parse it to find out."""
    source, body = rng.choice(PARSED)
    return post(len(body), address=f"/webhooks/{source}") + body


def chopped(_rng: random.Random) -> bytes:
    """As many chunks of one byte as are accepted."""
    return CHUNKED + b"1\r\nx\r\n" * 87_000 + b"0\r\n\r\n"


def refused(_rng: random.Random) -> bytes:
    """A request that is refused, which is logged."""
    return post(2) + b"{}"


@dataclass(eq=False)
class Client:
    """One of the crowd. every_s: how long after an answer it asks again (None: it stalls)."""

    make: Callable[[random.Random], bytes]
    every_s: float | None
    deaf: bool = False  # it does not read its answers
    sock: socket.socket | None = None
    out: bytes | memoryview = b""
    seen: bytes = field(default=b"", repr=False)


class Crowd:
    """Clients of one kind against one port."""

    def __init__(self, kind: str, port: int, seed: int, count: int) -> None:
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._address = ("127.0.0.1", port)
        self._poll = select.epoll()
        self._by_number: dict[int, Client] = {}
        self._due: list[tuple[float, int, Client]] = []
        self._tie = itertools.count()
        self._clients = [self._client(kind, number) for number in range(count)]

    def _client(self, kind: str, number: int) -> Client:
        if kind == "stalled":
            stage = number % len(STAGES)
            return Client(STAGES[stage], None, deaf=stage == len(STAGES) - 1)
        if kind == "announced":
            return Client(announcing, None)
        if kind == "kept":
            return Client(lambda _: b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", ASK_EVERY_S)
        make, every_s = {
            "large": (large, 0.0),
            "percent": (percent, 1.0),
            "parse": (parsed, 0.0),
            "chunks": (chopped, 0.0),
            "log": (refused, 0.0),
        }[kind]
        return Client(make, every_s)

    def play(self, seconds: float) -> None:
        """Play for this many seconds."""
        until = time.monotonic() + seconds
        for client in self._clients:
            self._connect(client)
        while (now := time.monotonic()) < until:
            while self._due and self._due[0][0] <= now:
                self._ask(heapq.heappop(self._due)[2])
            wait = min(until, self._due[0][0] if self._due else until) - now
            for number, events in self._poll.poll(max(0.0, wait)):
                if number in self._by_number:
                    self._serve(self._by_number[number], events)

    def _connect(self, client: Client) -> None:
        sock = socket.socket()
        if client.deaf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(self._address)
        client.sock = sock
        client.seen = b""
        client.out = client.make(self.rng)
        self._by_number[sock.fileno()] = client
        self._poll.register(sock, select.EPOLLOUT | select.EPOLLRDHUP)
        self.counts["came"] += 1

    def _ask(self, client: Client) -> None:
        if client.sock is None:
            self._connect(client)
            return
        client.seen = b""
        client.out = client.make(self.rng)
        self._write(client)

    def _serve(self, client: Client, events: int) -> None:
        if events & select.EPOLLOUT and not events & (select.EPOLLERR | select.EPOLLHUP):
            self._write(client)
        if client.sock is not None and events & select.EPOLLIN and not client.deaf:
            self._read(client)
        if client.sock is not None and events & (select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP):
            self._dropped(client)

    def _write(self, client: Client) -> None:
        assert client.sock is not None
        with contextlib.suppress(BlockingIOError):
            try:
                while client.out:
                    client.out = memoryview(client.out)[client.sock.send(client.out) :]
            except BlockingIOError:
                raise
            except OSError:
                self._dropped(client)
                return
        listen = select.EPOLLRDHUP | (0 if client.deaf else select.EPOLLIN)
        self._poll.modify(client.sock, listen | (select.EPOLLOUT if client.out else 0))

    def _read(self, client: Client) -> None:
        assert client.sock is not None
        try:
            data = client.sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._dropped(client)
            return
        client.seen += data
        if client.seen.startswith(b"HTTP/1.1 100"):
            client.seen = b""
        if b"\r\n\r\n" in client.seen and (client.every_s is not None):
            self._answered(client)

    def _answered(self, client: Client) -> None:
        """Count an answer. Answers are short: the whole answer arrives with its head."""
        self.counts[client.seen[9:12].decode()] += 1
        if b"connection: close" in client.seen.lower():
            self._disconnect(client)
        client.seen = b""
        client.out = b""
        every_s = 0.0 if client.every_s is None else client.every_s
        heapq.heappush(self._due, (time.monotonic() + every_s, next(self._tie), client))

    def _dropped(self, client: Client) -> None:
        self.counts[client.seen[9:12].decode() or "dropped"] += 1
        self._disconnect(client)
        self._connect(client)

    def _disconnect(self, client: Client) -> None:
        assert client.sock is not None
        del self._by_number[client.sock.fileno()]
        client.sock.close()
        client.sock = None


def main(kind: str, port: str, seconds: str, seed: str, *count: str) -> None:
    """The whole program."""
    crowd = Crowd(kind, int(port), int(seed), int(count[0]) if count else COUNTS[kind])
    crowd.play(float(seconds))
    print(json.dumps(crowd.counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
