"""Structured logs: one canonical line per webhook and per attempt, with stable event names and ids.

No line contains a body, a secret or an SDK's exception object: callers pass ids, states and our own sentences.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import sys
import threading
import time
from contextlib import contextmanager
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal

from bridge.masking import without_addresses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict, FilteringBoundLogger

    _Item = bytes | threading.Event | None  # a line, an event to set after writing, the end


@contextmanager
def _as_if_not_installed(package: str) -> Iterator[None]:
    """Hide an optional package from a library that would otherwise import it."""
    loaded = {package: sys.modules[package]} if package in sys.modules else {}
    sys.modules[package] = None  # type: ignore[assignment] # Python's way to say that there is none
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(loaded)


# structlog would load rich into every process (40 ms and 3 MB) to draw stack traces, which no line of ours has.
with _as_if_not_installed("rich"):
    import structlog


def configure(log_format: str = "auto") -> None:
    """Set up logging for a process: `console`, `json`, or `auto` (console on a terminal)."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else _as_json
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _without_addresses,
            *([_escaped] if console else ()),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,
    )


def _without_addresses(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Remove e-mail addresses: an event's type or id, or a key, may be one or contain one."""
    return {name: without_addresses(value) if isinstance(value, str) else value for name, value in line.items()}


_encode: Final = json.JSONEncoder(default=repr).encode  # `dumps` would make one for each line


def _as_json(_logger: object, _method: str, line: EventDict) -> str:
    return _encode(line)


def _escaped(_logger: object, _method: str, line: EventDict) -> EventDict:
    """For a terminal, spell out the characters that could move its cursor or reverse its letters."""
    return {
        name: ascii(value)[1:-1] if isinstance(value, str) and not value.isprintable() else value
        for name, value in line.items()
    }


class _Lines:
    """Passes lines to the thread that writes them, so that a caller waits neither for a reader nor for a lock.

    With structlog's own logger, under load, every thread that logs waits for another that waits for the interpreter: in
    a flood of webhooks this took half of the time.
    """

    def __init__(self, *_args: object) -> None:
        self._stream = sys.stderr

    def msg(self, line: str) -> None:
        if self._is_stderr():
            _writer.put((line + "\n").encode("utf-8", "backslashreplace"))
        else:
            self._stream.write(line + "\n")

    def _is_stderr(self) -> bool:
        """Whether lines go to stderr itself, and not to a stand-in, which may be closed before they are written."""
        try:
            return self._stream.fileno() == _STDERR
        except (OSError, ValueError):  # it has no number, or is closed
            return False

    debug = info = warning = error = critical = msg


class _Writer:
    """The queue of this process, and the one thread that may wait for the reader of the lines.

    A line that finds the queue full is dropped and counted; as soon as there is room, another line says how
    many were.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._drops = count(1)
        self._dropped = 0
        self._reported = 0
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, line: bytes) -> None:
        """Queue a line."""
        if self._queue.qsize() >= _QUEUE_MAX:
            self._dropped = next(self._drops)
            return
        self._queue.put(line)
        if self._thread is None and not self._start():
            self._write_waiting()

    def flush(self, within_s: float) -> None:
        """Wait until everything is written, up to this time limit: the reader may be gone."""
        if self._thread is None and self._queue.empty():
            return
        written = threading.Event()
        self._queue.put(written)
        if self._start():
            written.wait(within_s)

    def stop(self) -> None:
        """Write the waiting lines and end the thread, if that is quick: a process should fork without one."""
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            thread.join(_BEFORE_FORK_S)

    def _start(self) -> bool:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._write_all, name="log", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system has no more, or the interpreter ends
                    return False
                self._thread = thread
        return True

    def _write_all(self) -> None:
        while self._write_some():
            if self._queue.empty():
                time.sleep(_PAUSE_S)
                if self._reported != self._dropped:
                    self._report_dropped()

    def _write_waiting(self) -> None:
        while not self._queue.empty():
            self._write_some()

    def _write_some(self) -> bool:
        """Wait for a line, and write it together with those after it: every write releases the interpreter."""
        item: _Item | Literal[False] = self._queue.get()
        while isinstance(item, bytes):
            chunk, item = item, self._next()
            while isinstance(item, bytes) and len(chunk) + len(item) <= _CHUNK_MAX:
                chunk, item = chunk + item, self._next()
            _write(chunk)
        if isinstance(item, threading.Event):
            item.set()
        elif item is None:
            self._thread = None
            return False
        return True

    def _next(self) -> _Item | Literal[False]:
        """The next item in the queue; False if it is empty."""
        try:
            return self._queue.get_nowait()
        except Empty:
            return False

    def _report_dropped(self) -> None:
        lines = self._dropped - self._reported
        self._reported += lines
        get("log").warning("log.dropped", lines=lines, message=f"{lines} lines were dropped: nobody read them in time")


def _write(data: bytes) -> None:
    """Write whole lines, however slow their reader is. A pipe takes each in one piece, so lines do not mix."""
    while data:
        try:
            data = data[os.write(_STDERR, data) :]
        except BlockingIOError:  # another process that shares the pipe made it non-blocking
            select.select([], [_STDERR], [], 1.0)
        except OSError:  # the reader is gone
            return


_STDERR: Final = 2
_QUEUE_MAX: Final = 4096
_CHUNK_MAX: Final = select.PIPE_BUF  # bytes that a pipe writes atomically
_PAUSE_S: Final = 0.02  # so that a flood of lines does not wake the thread for each
_BEFORE_FORK_S: Final = 0.2
_AT_EXIT_S: Final = 1.0
_writer = _Writer()


def flush(within_s: float = _AT_EXIT_S) -> None:
    """Write the lines of this process, if they are read in time."""
    _writer.flush(within_s)


def _reset() -> None:
    """Start over after a fork: the thread and the waiting lines belong to the parent."""
    global _writer  # noqa: PLW0603 - there is one in each process
    _writer = _Writer()


os.register_at_fork(before=lambda: _writer.stop(), after_in_child=_reset)  # noqa: PLW0108 - it is another one by then
atexit.register(flush)


def say(line: str) -> None:
    """Write a sentence for a person unchanged, without waiting for its reader."""
    _Lines().msg(line)


def get(name: str) -> FilteringBoundLogger:
    """The logger of one part of the bridge: `get("deliver").info("attempt", goal=7, outcome="delivered")`."""
    logger: FilteringBoundLogger = structlog.get_logger(part=name)
    return logger


def where(error: BaseException) -> str:
    """Describe an unexpected error by its kind and place in the code, never by its message, which may quote input."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    at = "" if place is None else f" at {place.tb_frame.f_globals.get('__name__', '?')}:{place.tb_lineno}"
    return type(error).__name__ + at
