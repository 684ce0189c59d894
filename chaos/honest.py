"""An honest provider in a process of its own: `python -m chaos.honest PORT SECONDS [EACH_PER_S]`.

Signed webhooks, small and of 60 KB, on new connections and on kept ones, at their times whatever happens. It prints one
JSON line: how many, their statuses, and how long each had to wait for its 200 from the moment that it was due.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from bridge.sandbox import sign
from chaos.plan import SECRET

SIZES = {"small": 300, "large": 60_000}
PATIENCE_S = 30.0


class Provider:
    """What was sent and heard so far."""

    def __init__(self, port: int, seconds: float, per_s: float) -> None:
        self.statuses: Counter[str] = Counter()
        self.took: dict[str, list[float]] = {}
        self._port = port
        self._per_s = per_s
        self._count = round(seconds * per_s)
        self._lock = threading.Lock()

    def send_all(self) -> None:
        """All four kinds at once; returns when the last is answered."""
        began = time.monotonic()
        with ThreadPoolExecutor(40) as pool:
            for size in SIZES:
                for line in range(4):
                    pool.submit(self._kept, size, began, line)
            for number in range(self._count):
                time.sleep(max(0.0, began + number / self._per_s - time.monotonic()))
                for size in SIZES:
                    pool.submit(self._new, size, began + number / self._per_s, number)

    def _new(self, size: str, due: float, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        self._one(connection, f"new {size}", due, f"{size}n{number}")
        connection.close()

    def _kept(self, size: str, began: float, line: int) -> None:
        """A quarter of the kept ones, on one connection; as any client does, it sees when it was closed."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        for number in range(line, self._count, 4):
            due = began + number / self._per_s
            time.sleep(max(0.0, due - time.monotonic()))
            if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
                connection.close()
            self._one(connection, f"kept {size}", due, f"{size}k{number}")
        connection.close()

    def _one(self, connection: http.client.HTTPConnection, kind: str, due: float, name: str) -> None:
        body = json.dumps({"id": f"evt_{name}_{due}", "type": "x", "padding": "x" * SIZES[kind.split()[1]]}).encode()
        headers = sign.stripe(body, SECRET, int(time.time()))
        said = _ask(connection, body, headers)
        took = time.monotonic() - due
        with self._lock:
            self.statuses[said] += 1
            self.took.setdefault(kind, []).append(took if said == "200" else PATIENCE_S)

    def told(self) -> dict[str, object]:
        """The figures."""
        every = sorted(took for kind in self.took.values() for took in kind)
        by_kind = {kind: _p(sorted(took), 0.99) for kind, took in self.took.items()}
        return {
            "sent": len(every), "statuses": self.statuses, "p50_s": _p(every, 0.5), "p99_s": _p(every, 0.99),
            "slowest_s": _p(every, 1.0), "p99_by_kind_s": by_kind,
        }  # fmt: skip


def _ask(connection: http.client.HTTPConnection, body: bytes, headers: Mapping[str, str]) -> str:
    try:
        connection.request("POST", "/webhooks/stripe", body, dict(headers))
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__
    return str(answer.status)


def _p(values: list[float], share: float) -> float:
    return round(values[int(share * (len(values) - 1))], 3) if values else 0.0


def main(port: str, seconds: str, per_s: str = "10") -> None:
    """The whole program."""
    provider = Provider(int(port), float(seconds), float(per_s))
    provider.send_all()
    print(json.dumps(provider.told()))


if __name__ == "__main__":
    main(*sys.argv[1:])
