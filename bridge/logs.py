"""Structured logs: one canonical line per webhook and per attempt, with stable event names and ids.

Never a body, a secret or an SDK's exception object: callers pass ids, states and our own sentences.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


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
