"""Structured logs: one canonical line per webhook and per attempt, with stable event names and ids.

Never a body, a secret or an SDK's exception object: callers pass ids, states and our own sentences.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import FilteringBoundLogger


@contextmanager
def _as_if_not_installed(package: str) -> Iterator[None]:
    """For what a library imports only to be nicer, and can do without."""
    loaded = {package: sys.modules[package]} if package in sys.modules else {}
    sys.modules[package] = None  # type: ignore[assignment] # Python's way to say that there is none
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(loaded)


# structlog would load rich into every process, 40 ms and 3 MB, to draw stack traces, and no line of ours holds one.
with _as_if_not_installed("rich"):
    import structlog


def configure(log_format: str = "auto") -> None:
    """Set up logging for a process: `console`, `json`, or `auto` (console on a terminal)."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer() if not console else structlog.processors.UnicodeDecoder(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,
    )


class _Lines:
    """Writes a line to stderr in one system call and without a lock.

    With structlog's own, under load every thread that logs waits for one that waits for the interpreter: in a flood
    of webhooks that was half of all time. A line is below what a pipe takes whole, so lines do not mix.
    """

    def __init__(self, *_args: object) -> None:
        self._stream = sys.stderr

    def msg(self, line: str) -> None:
        data = (line + "\n").encode("utf-8", "backslashreplace")
        try:
            number = self._stream.fileno()
        except (OSError, ValueError):  # a stand-in for stderr, or none any more
            self._stream.write(line + "\n")
            return
        while data:
            try:
                data = data[os.write(number, data) :]
            except OSError:  # nobody reads: a line is not worth a request
                return

    debug = info = warning = error = critical = msg


def get(name: str) -> FilteringBoundLogger:
    """The logger of one part of the bridge: `get("deliver").info("attempt", goal=7, outcome="delivered")`."""
    logger: FilteringBoundLogger = structlog.get_logger(part=name)
    return logger


def where(error: BaseException) -> str:
    """An unexpected fault by its kind and its place in the code: never its message, which may hold what was sent."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    at = "" if place is None else f" at {place.tb_frame.f_globals.get('__name__', '?')}:{place.tb_lineno}"
    return type(error).__name__ + at
