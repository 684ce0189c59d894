"""A process's WSGI application, `bridge.web.wsgi:app`. It is built when first needed, after any fork.

While the database prevents that, every request gets a 503: a process that starts while the database restarts must not
end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bridge import app as root
from bridge import logs, store, web
from bridge import settings as settings_
from bridge.errors import StoreError, StoreGone
from bridge.web.hooks import answer, source_at, unavailable
from bridge.web.messages import accepted
from bridge.web.metrics import AHEAD

if TYPE_CHECKING:
    from flask import Flask

    from bridge.model import Request
    from bridge.server import Deferred, HttpAnswer
    from bridge.settings import Settings

RETRY_S: Final = 1.0
COUNTING_S: Final = 2.0
NOT_YET: Final = unavailable("The database cannot be used just now. Try again soon.", 5)
log = logs.get("serve")


class Process:
    """The bridge of this process, once it has been built."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._waiting = False  # the first attempt failed, and one timer repeats it
        self._reason = ""  # why it is waiting
        self._bridge: root.Bridge | None = None
        self._application: Flask | None = None
        self._counting = threading.Thread(target=self._count_ahead, name="count", daemon=True)

    def start(self) -> None:
        """Build the bridge and start its threads, once. Raises MappingError, SettingsError: a retry would not help."""
        with self._lock:
            if not self._waiting:
                self._try()

    def _try(self) -> None:
        if self._bridge is not None or self._stopped.is_set():
            return
        settings = settings_.load(settings_.read_environment(os.environ))
        try:
            self._bridge = _build(settings)
        except StoreError as error:
            self._log_reason(str(error))
            self._retry_later()
            return
        self._application = web.create(self._bridge)
        self._bridge.start()
        self._counting.start()

    def _count_ahead(self) -> None:
        """Count once in advance: the first count of many rows takes seconds, and no request should wait for it."""
        assert self._application is not None
        with suppress(StoreError):
            for counted in self._application.extensions[AHEAD]:
                if self._stopped.is_set():
                    return
                counted.get()

    def _retry_later(self) -> None:
        """Start one timer, however many requests arrive meanwhile: their threads must not wait for the database."""
        self._waiting = True
        timer = threading.Timer(RETRY_S, self._retry)
        timer.daemon = True  # the process must be able to end while it waits for the database
        timer.start()

    def _log_reason(self, reason: str) -> None:
        """Log each reason once, not with each attempt."""
        if reason != self._reason:
            self._reason = reason
            log.error("start.waits", reason=reason)

    def _retry(self) -> None:
        with self._lock:
            try:
                self._try()
            except Exception as error:  # noqa: BLE001 - there is no caller to raise it to, and the cause may be fixed meanwhile
                self._log_reason(logs.where(error))
                self._retry_later()

    def stop(self) -> None:
        """Stop the bridge's threads; requests are still answered."""
        self._stopped.set()
        with self._lock:
            if self._counting.is_alive():
                self._counting.join(COUNTING_S)  # an open connection would leave SQLite's log beside the file
            if self._bridge is not None:
                self._bridge.stop()

    def quick_for(self, request: Any) -> Callable[[Request], HttpAnswer | Deferred] | None:
        """The function that answers gunicorn's request at once, without a thread; None: the application answers."""
        if self._application is None or self._bridge is None or request.method != "POST":
            return None
        if not request.uri.startswith("/"):
            return None  # an absolute URL, as clients send it to a proxy
        name = source_at(request.path)
        return None if name is None else partial(answer, self._bridge, name, accepted)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a request."""
        if self._application is None and not self._waiting:
            self.start()
        if self._application is None:
            start_response(NOT_YET.status, list(NOT_YET.headers))
            return (NOT_YET.body,)
        return self._application(environ, start_response)


def _build(settings: Settings) -> root.Bridge:
    """Build the bridge, first creating or migrating a SQLite database; a server's is migrated once, by the release."""
    if settings.database_url.startswith("sqlite"):
        with suppress(StoreGone):  # `/status` reports it
            store.migrate(settings.database_url, patience_s=0.0)  # we retry ourselves, and answer 503 meanwhile
    return root.build(settings, worker=settings.bridge_worker == "inline")


app = Process()
