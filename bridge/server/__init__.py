"""The HTTP server: gunicorn's settings, our worker for it, framing. It knows no route.

This module has what the server offers to the application. An application need not keep a thread while it waits (for the
disk): it may leave a `Deferred` answer. If a server does not offer this, the application waits in its thread, as WSGI
expects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

DEFERRED: Final = "bridge.deferred"  # in the environ, where an application may put a `Deferred`
DROPPED: Final = "bridge.dropped"  # in the environ: whether a GET had headers that WSGI cannot express


class HttpAnswer(NamedTuple):
    """What WSGI wants, ready to send."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Deferred(NamedTuple):
    """An answer that is made when the future is done. The server cancels the future after `within_s`.

    answer: makes the answer from the future, done or cancelled; the server's loop calls it, so it must not wait.
    The future is set to running only when its result follows at once.
    """

    future: Future[Any]
    within_s: float
    answer: Callable[[Future[Any]], HttpAnswer]
