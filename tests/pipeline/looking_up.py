"""A worker process of the bridge that asks a stand-in for Stripe: `python looking_up.py URL`. Settings: environment.

What it says at its end: whether the package `stripe` was imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from bridge import app, logs
from bridge.settings import load


def main(url: str) -> None:
    settings = load(os.environ)
    logs.configure("json")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    bridge = app.build(settings, worker=True, kind="worker", stripe_url=url)
    bridge.start()
    logs.get("test").info("working")
    stopping.wait()
    bridge.stop()
    logs.get("test").info("modules", stripe="stripe" in sys.modules)


if __name__ == "__main__":
    main(sys.argv[1])
