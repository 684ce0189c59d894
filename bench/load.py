"""A load generator that is cheap compared with what it measures: one thread, kept connections, prebuilt requests.

Closed loop: each connection sends the next request as soon as its answer has arrived. Open loop: requests go out at
their scheduled times, and latency counts from the schedule, so that a stall is not hidden. Loopback only.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

CONNECTIONS = 32  # of a closed loop


@dataclass
class Result:
    """Latencies in seconds, in the order of answers; statuses by number; the whole duration."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    duration_s: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.duration_s if self.duration_s else 0.0

    def quantile_ms(self, q: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000 if ordered else float("nan")


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.since = 0.0

    def send(self, request: bytes, since: float) -> None:
        self.since, self.buffer = since, b""
        self.socket.sendall(request)

    def read_status(self) -> int | None:
        """Read once; return the status when the whole answer has arrived, None before."""
        chunk = self.socket.recv(65536)
        if not chunk:
            raise ConnectionError("the server closed a kept connection")
        self.buffer += chunk
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            return None
        return int(self.buffer[9:12])


def build(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One HTTP/1.1 request as bytes."""
    head = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def closed_loop(port: int, requests: list[bytes], connections: int) -> Result:
    """Send as fast as the server answers."""
    result, waiting = Result(), deque(requests)
    started = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        busy = 0
        for _ in range(min(connections, len(waiting))):
            connection = _Connection(port)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(waiting.popleft(), time.perf_counter())
            busy += 1
        while busy:
            for key, _ in selector.select():
                connection = key.data
                status = connection.read_status()
                if status is None:
                    continue
                now = time.perf_counter()
                result.latencies_s.append(now - connection.since)
                result.statuses[status] = result.statuses.get(status, 0) + 1
                if waiting:
                    connection.send(waiting.popleft(), now)
                else:
                    busy -= 1
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    result.duration_s = time.perf_counter() - started
    return result


def open_loop(port: int, requests: list[bytes], per_second: float) -> Result:
    """Send at a fixed rate, whatever the server does."""
    result, idle = Result(), deque([_Connection(port) for _ in range(8)])
    started = time.perf_counter()
    busy = 0
    with selectors.DefaultSelector() as selector:
        for connection in idle:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        sent = 0
        while sent < len(requests) or busy:
            due = started + sent / per_second
            while sent < len(requests) and time.perf_counter() >= due:
                if idle:
                    connection = idle.popleft()
                else:
                    connection = _Connection(port)
                    selector.register(connection.socket, selectors.EVENT_READ, connection)
                connection.send(requests[sent], due)
                sent, busy = sent + 1, busy + 1
                due = started + sent / per_second
            pause = max(0.0, due - time.perf_counter()) if sent < len(requests) else 1.0
            for key, _ in selector.select(pause):
                connection = key.data
                status = connection.read_status()
                if status is None:
                    continue
                result.latencies_s.append(time.perf_counter() - connection.since)
                result.statuses[status] = result.statuses.get(status, 0) + 1
                busy -= 1
                idle.append(connection)
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    result.duration_s = time.perf_counter() - started
    return result


def require_ok(result: Result) -> None:
    """End the run unless every answer was 200."""
    if set(result.statuses) != {200}:
        raise SystemExit(f"not every answer was 200: {result.statuses}")
