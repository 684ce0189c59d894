"""Named ways in which an answer can go wrong, and which request meets one.

A fault is queued (`put`: for the next `times` requests) or occurs by chance (`Options.fault_percent`, seeded).
For a caller, all that matters is whether the request was carried out first, so each kind states it.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.sandbox.options import Options


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which an answer goes wrong.

    carried_out: whether the request is carried out first. status, body: of an answer that replaces the real one.
    end: `answer` normally, `drop` the connection (FIN), `reset` it (RST), `cut` the answer in its body, `drip` it byte
    by byte from its status line on, or `hang` for hang_ms and then drop.
    """

    kind: str
    carried_out: bool = False
    status: int | None = None
    body: Literal["envelope", "text", "html", "empty"] = "envelope"
    end: Literal["answer", "drop", "reset", "cut", "drip", "hang"] = "answer"
    path: str = "/goals"  # "*": any; else the beginning of the path after /api/v1
    hang_ms: int = 30_000
    drip_ms: int = 50
    retry_after_s: int = 0  # the Retry-After of its answer; 0: none


KINDS: Final[Mapping[str, Fault]] = {
    fault.kind: fault
    for fault in (
        Fault("recorded_dropped", carried_out=True, end="drop"),
        Fault("recorded_reset", carried_out=True, end="reset"),
        Fault("recorded_hung", carried_out=True, end="hang"),
        Fault("recorded_cut", carried_out=True, end="cut"),
        Fault("recorded_drip", carried_out=True, end="drip"),
        Fault("recorded_empty", carried_out=True, status=200, body="empty"),
        Fault("recorded_500", carried_out=True, status=500),
        Fault("recorded_504", carried_out=True, status=504),
        Fault("reset", end="reset"),
        Fault("dropped", end="drop"),
        Fault("hung", end="hang"),
        Fault("500", status=500),
        Fault("502", status=502, body="html"),
        Fault("503", status=503),
        Fault("504", status=504),
        Fault("408", status=408),
        Fault("425", status=425),
        Fault("429", status=429),
        Fault("html", status=200, body="html"),
        Fault("empty_500", status=500, body="empty"),
        Fault("text_500", status=500, body="text"),
        Fault("redirect", status=302, body="html"),
    )
}

MIXED: Final = ("recorded_dropped", "recorded_hung", "recorded_500", "503", "429", "reset")  # for ledgers of losses


def read(wanted: Mapping[str, Any]) -> tuple[Fault, int]:
    """A fault from JSON (`{"kind", "times"?, "path"?, …}`), and how often it occurs; ValueError says what is wrong."""
    kind, times = str(wanted.get("kind")), wanted.get("times", 1)
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}; the kinds are: {', '.join(KINDS)}")
    if not isinstance(times, int) or times < 1:
        raise ValueError("times must be a whole number above zero")
    changes = {
        name: wanted[name] for name in ("path", "hang_ms", "drip_ms", "retry_after_s", "status") if name in wanted
    }
    if unknown := set(wanted) - {"kind", "times", *changes}:
        raise ValueError(f"there is no field {', '.join(sorted(unknown))}")
    return replace(KINDS[kind], **changes), times


class Plan:
    """Decides which request meets which fault. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Fault] = deque()
        self._met: Counter[str] = Counter()
        self._random = random.Random()  # noqa: S311 - dice for faults, not a secret
        self._seed: int | None = None

    def put(self, fault: Fault, times: int = 1) -> None:
        with self._lock:
            self._queue.extend([fault] * times)

    def clear(self) -> None:
        with self._lock:
            self._queue.clear()
            self._met.clear()

    def to_json(self) -> dict[str, Any]:
        """The waiting faults, and those that requests have met so far."""
        with self._lock:
            return {"waiting": [fault.kind for fault in self._queue], "met": dict(self._met), "kinds": list(KINDS)}

    def take(self, path: str, options: Options) -> Fault | None:
        """The fault that this request meets, or None. path: after /api/v1."""
        with self._lock:
            fault = self._queued(path) or self._by_chance(path, options)
            if fault is not None:
                self._met[fault.kind] += 1
            return fault

    def _queued(self, path: str) -> Fault | None:
        for fault in self._queue:
            if _concerns(fault.path, path):
                self._queue.remove(fault)
                return fault
        return None

    def _by_chance(self, path: str, options: Options) -> Fault | None:
        if not options.fault_percent or not _concerns(options.fault_path, path):
            return None
        if options.seed != self._seed:
            self._seed = options.seed
            self._random.seed(options.seed)
        if self._random.random() * 100 >= options.fault_percent:
            return None
        kind = self._random.choice(options.fault_kinds or MIXED)
        return replace(KINDS[kind], hang_ms=options.fault_hang_ms, retry_after_s=options.fault_retry_after_s)


def _concerns(wanted: str, path: str) -> bool:
    return wanted == "*" or path.startswith(wanted)
