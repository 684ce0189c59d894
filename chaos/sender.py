"""A provider: sends signed events, and repeats each until it is answered 200.

It never runs ahead of the run's signals, so that these are spread over all events.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from bridge.sandbox import sign
from chaos.plan import SECRET, Sent

Span = tuple[int, float, float]  # port, from, until


def slowest_s(refused: Sequence[Span], stopped: Sequence[Span]) -> tuple[float, float]:
    """The slowest 503 without the time during which its process was stopped (SIGSTOP), and as its client saw it.

    A stopped process answers nobody, so the first figure is due to the bridge, and the second to the storm of signals.
    """
    slowest_running, slowest_seen = 0.0, 0.0
    for port, began, ended in refused:
        stopped_s = sum(max(0.0, min(ended, until) - max(began, since)) for at, since, until in stopped if at == port)
        slowest_running = max(slowest_running, ended - began - stopped_s)
        slowest_seen = max(slowest_seen, ended - began)
    return round(slowest_running, 2), round(slowest_seen, 2)


class Sender:
    """Threads that send. acknowledged: the ids of the events that were answered with 200."""

    def __init__(
        self,
        ports: Sequence[int],
        deliveries: Sequence[Sent],
        threads: int,
        allowed: Callable[[], float],
        seed: int,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.acknowledged: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.refused: list[Span] = []  # the 503s
        self.slowest_ack_s = 0.0  # from an event's first try to its 200
        self._ports = ports
        self._left = list(reversed(deliveries))
        self._total = len(deliveries)
        self._allowed = allowed
        self._now_s = now_s  # it signs by this clock
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_all, args=(random.Random(seed + n),), name=f"sender-{n}", daemon=True)
            for n in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, within_s: float) -> None:
        """Wait until everything is acknowledged."""
        end = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._over.set()
        if any(thread.is_alive() for thread in self._threads):
            raise TimeoutError(f"{len(self._left)} events were not acknowledged within {within_s:.0f} s")

    @property
    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _next(self) -> Sent | None:
        while not self._over.is_set():
            with self._lock:
                if not self._left:
                    return None
                if (self._total - len(self._left)) < self._allowed() * self._total:
                    return self._left.pop()
            time.sleep(0.01)
        return None

    def _send_all(self, rng: random.Random) -> None:
        while (sent := self._next()) is not None:
            began = time.monotonic()
            while not self._over.is_set() and not self._send(sent, rng.choice(self._ports)):
                time.sleep(rng.uniform(0.01, 0.1))
            self.slowest_ack_s = max(self.slowest_ack_s, time.monotonic() - began)

    def _send(self, sent: Sent, port: int) -> bool:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        headers = {"Content-Type": "application/json", **sign.stripe(sent.body, SECRET, int(self._now_s()))}
        try:
            connection.request("POST", "/webhooks/stripe", sent.body, headers)
            answer = connection.getresponse()
            answer.read()
            outcome = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            outcome = type(error).__name__
        finally:
            connection.close()
        with self._lock:
            self.answers[outcome] += 1
            if outcome == "200":
                self.acknowledged.add(sent.id)
            elif outcome == "503":
                self.refused.append((port, began, time.monotonic()))
        return outcome == "200"
