"""A stand-in for DataFast on this machine, for the demo, the tests and the benchmark.

`create` makes the application, `Sandbox.run` serves it until it is stopped, `start` serves it in a thread. It follows
DataFast's documentation and knows nothing of the bridge, so that it shares none of its mistakes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flask import Flask

from bridge.sandbox.api import api
from bridge.sandbox.control import control
from bridge.sandbox.options import Options, Token
from bridge.sandbox.serving import Server
from bridge.sandbox.stripe_api import StripeWorld, stripe_api
from bridge.sandbox.world import World

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Options", "Sandbox", "Token", "create", "start"]


def create(options: Options | None = None) -> Flask:
    """Make the application. Faults need a real connection, so they work in a running `Sandbox` only."""
    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["sandbox"] = World(options or Options())
    app.register_blueprint(api)
    app.register_blueprint(control)
    app.extensions["sandbox.stripe"] = StripeWorld()
    app.register_blueprint(stripe_api)
    return app


class Sandbox:
    """A running stand-in: `with start() as sandbox: … sandbox.api_url … sandbox.world.goals()`."""

    def __init__(self, options: Options | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = Server(host, port, create(options))
        self._thread = threading.Thread(target=self.run, name="sandbox", daemon=True)
        self._running = threading.Event()

    @property
    def world(self) -> World:
        return self._server.world

    @property
    def stripe(self) -> StripeWorld:
        """What the stand-in for Stripe's API knows; its base URL is `url`."""
        known: StripeWorld = self._server.app.extensions["sandbox.stripe"]
        return known

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    @property
    def api_url(self) -> str:
        return self.url + "/api/v1"

    def run(self) -> None:
        """Serve until `stop`."""
        self._running.set()
        self._server.serve_forever(poll_interval=0.02)

    def start(self) -> Self:
        self._thread.start()
        self._running.wait()
        return self

    def stop(self) -> None:
        if self._running.is_set():
            self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(options: Options | None = None, *, host: str = "127.0.0.1", port: int = 0) -> Sandbox:
    """Run a stand-in in a thread of this process; port 0 takes a free one."""
    return Sandbox(options, host=host, port=port).start()
