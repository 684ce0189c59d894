"""An honest provider in a process of its own: `python -m chaos.honest PORT SECONDS [EACH_PER_S]`.

It sends signed webhooks, small ones and ones of 60 KB, on new and on kept connections, on schedule whatever happens. It
prints one JSON line: how many, their statuses, and how long they waited for their 200 from the moment they were due.
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
    """The sender, and the answers so far."""

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
        self._send(connection, f"new {size}", due, f"{size}n{number}")
        connection.close()

    def _kept(self, size: str, began: float, line: int) -> None:
        """Send a quarter of the kept ones, on one connection; like any client, it notices when this was closed."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        for number in range(line, self._count, 4):
            due = began + number / self._per_s
            time.sleep(max(0.0, due - time.monotonic()))
            if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
                connection.close()
            self._send(connection, f"kept {size}", due, f"{size}k{number}")
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, kind: str, due: float, name: str) -> None:
        body = json.dumps({"id": f"evt_{name}_{due}", "type": "x", "padding": "x" * SIZES[kind.split()[1]]}).encode()
        headers = sign.stripe(body, SECRET, int(time.time()))
        status = _ask(connection, body, headers)
        took = time.monotonic() - due
        with self._lock:
            self.statuses[status] += 1
            self.took.setdefault(kind, []).append(took if status == "200" else PATIENCE_S)

    def figures(self) -> dict[str, object]:
        """The figures."""
        all_took = sorted(took for kind in self.took.values() for took in kind)
        by_kind = {kind: _quantile(sorted(took), 0.99) for kind, took in self.took.items()}
        return {
            "sent": len(all_took), "statuses": self.statuses, "p50_s": _quantile(all_took, 0.5),
            "p99_s": _quantile(all_took, 0.99), "slowest_s": _quantile(all_took, 1.0), "p99_by_kind_s": by_kind,
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


def _quantile(values: list[float], share: float) -> float:
    return round(values[int(share * (len(values) - 1))], 3) if values else 0.0


def main(port: str, seconds: str, per_s: str = "10") -> None:
    """The whole program."""
    provider = Provider(int(port), float(seconds), float(per_s))
    provider.send_all()
    print(json.dumps(provider.figures()))


if __name__ == "__main__":
    main(*sys.argv[1:])
