"""gunicorn's settings of the bridge, and a profiler in its worker that writes down which way a webhook goes.

What hands a request on is a call of the system or of a queue. At each the functions of ours that are under way are
written down; those that have returned before are asides, not the way.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from walks_kit import place_of

from bridge.server import gunicorn_conf
from bridge.server.gunicorn_conf import *  # noqa: F403

STOPS = {
    ("recv", "bridge.server.worker"),  # the bytes are here
    ("put", "bridge.store.inbox.group_commit"),  # the event waits for the committer
    ("commit", "bridge.store.database.engine"),  # it is durable
    ("append", "bridge.server.worker"),  # the future has called the loop
    ("send", "bridge.server.worker"),  # the answer leaves
}
THREADS = ("MainThread", "bridge-inbox")  # of the loop and of the committer
LOOP = {f"server.worker.EdgeWorker.{name}" for name in ("run", "_turn", "_do_calls")}  # which all connections share


class Walk:
    def __init__(self) -> None:
        self.functions: list[str] = []
        self.modules: set[str] = set()
        self.stops: list[str] = []

    def __call__(self, frame, what, called):
        if what == "call" and place_of(frame) and threading.current_thread().name in THREADS:
            self.modules.add(frame.f_globals["__name__"])
        if what != "c_call":
            return
        stop = called.__name__, frame.f_globals.get("__name__")
        if stop not in STOPS:
            return
        if stop[0] == "recv":
            self.functions, self.modules, self.stops = [], set(), []
        self.stops.append(stop[0])
        under_way = []
        while frame is not None:
            if place := place_of(frame):
                under_way.append(place)
            frame = frame.f_back
        under_way = [name for name in reversed(under_way) if name not in LOOP]
        self.functions += [name for name in under_way if name not in self.functions]
        if stop[0] == "send":
            Path(os.environ["WALK"]).write_text(
                "\n".join([" ".join(self.stops), " ".join(sorted(self.modules)), *self.functions])
            )


def post_worker_init(worker):
    threading.setprofile(walk := Walk())
    gunicorn_conf.post_worker_init(worker)
    sys.setprofile(walk)
