"""The HTTP server: gunicorn's settings, our worker for it, framing. It has no routes of its own.

This module is what the server offers to the application. While it waits for the disk, an application need not hold a
thread: it may leave a `Deferred` answer. If a server does not offer this, the application waits in its thread, as WSGI
expects. It can also return memory that it no longer needs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

DEFERRED: Final = "bridge.deferred"  # in the environ, where an application may put a `Deferred`
DROPPED: Final = "bridge.dropped"  # in the environ: whether a GET had headers that WSGI cannot express
_M_MMAP_THRESHOLD: Final = -3  # options of glibc; with another C library nothing happens
_M_ARENA_MAX: Final = -8


class HttpAnswer(NamedTuple):
    """A complete answer in WSGI's terms, ready to send."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Deferred(NamedTuple):
    """An answer made once the future is done. The server cancels the future after `within_s`.

    answer: makes the answer from the future, done or cancelled. It is called by the server's loop, so it must not
    block. The future is set to running only when its result follows immediately.
    """

    future: Future[Any]
    within_s: float
    answer: Callable[[Future[Any]], HttpAnswer]


def share_memory() -> None:
    """Let all threads share one heap, and return a large body's memory once freed. Call it before starting threads.

    With 200 bodies of 1 MB at once (`make chaos MODE=memory`), a process grew to 287 MB without this, and to 206 MB
    with it. With a heap for each thread, the console takes 5 MB more.
    """
    with suppress(AttributeError, OSError):
        library = _library()
        library.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
        library.mallopt(_M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Return free memory anywhere in the heap, not only at its end. For use after a peak.

    It takes a few milliseconds, during which other threads may wait for memory.
    """
    with suppress(AttributeError, OSError):
        _library().malloc_trim(0)


def _library() -> Any:
    from ctypes import CDLL  # noqa: PLC0415 - in the worker alone

    return CDLL(None)
