"""gunicorn's settings: `gunicorn -c python:bridge.server.gunicorn_conf bridge.web.wsgi:app` (`python -m bridge serve`).

There is one process with 32 threads: with two processes, kept connections would crowd into one of them. The worker
builds the application, and with it the inline worker, after the fork (never `preload_app`: threads do not survive a
fork). The worker also loads their code, instead of the master: shared pages do not stay shared, because reference
counting writes to them, so a master that loads only its settings saves 25 MB. WEB_CONCURRENCY is ignored: Heroku sets
it to 2 automatically.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger

from bridge import logs
from bridge import settings as table
from bridge.errors import BridgeError, ProblemsError
from bridge.server import share_memory
from bridge.server.worker import EdgeWorker, keep_signals_over_forks
from bridge.settings import database_file

if TYPE_CHECKING:
    from bridge.settings import Settings


# After this long, a computing thread (routing) yields the interpreter. An acknowledgement needs it about twenty times,
# because each system call releases it; with Python's default it would wait 5 ms each time. With 0.1 ms, the loop and
# the committer take it from each other so often that a flood costs a tenth more CPU time.
SWITCH_S: Final = 0.0003


def _settings() -> Settings:
    try:
        return table.load(table.read_environment(os.environ))
    except ProblemsError as error:
        sys.exit("\n".join(error.problems))


_conf = _settings()
logs.configure(_conf.bridge_log_format)
keep_signals_over_forks()


class _LineHandler(logging.Handler):
    """Writes messages of gunicorn and of Python's futures in the format of all other lines, without stack traces."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f" ({logs.where(record.exc_info[1])})"
        logs.get("gunicorn").log(record.levelno, "gunicorn", message=message, pid=record.process)


# Otherwise a future's callback could print a stack trace.
logging.getLogger("concurrent.futures").addHandler(_LineHandler())


class StructuredLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    """Logs the kind of an error, without a stack trace. The bridge itself logs starts and stops of processes."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers = [_LineHandler()]
        self.error_log.setLevel(logging.WARNING)

    def exception(self, msg: str, *args: Any, **_options: Any) -> None:
        kind = sys.exc_info()[0]
        self.error_log.error(f"{msg} (%s)", *args, kind.__name__ if kind else "?")


_GC_THRESHOLD = gc.get_threshold()
bind = f"[{_conf.bridge_host}]:{_conf.port}" if ":" in _conf.bridge_host else f"{_conf.bridge_host}:{_conf.port}"
workers = _conf.bridge_processes
threads = _conf.bridge_threads
worker_class = EdgeWorker
worker_connections = 4096  # simultaneous clients per process, a few KB each; fewer if fewer files may be open
backlog = 4096
keepalive = 95  # longer than the routers in front keep theirs, so that the routers close first
timeout = 60  # ends a process that hangs; the loop itself never blocks
graceful_timeout = 20
max_requests = 200_000  # against leaks; the worker stops its other threads before it stops accepting
max_requests_jitter = 20_000
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
forwarder_headers = ""  # no request header sets the path
secure_scheme_headers: dict[str, str] = {}  # or the scheme: proxies that disagree about it must not cost a sale
control_socket_disable = True
preload_app = False
accesslog = None  # bridge.receive writes one line per webhook
logger_class = StructuredLogger
proc_name = "datafast-bridge"


def on_starting(_server: Any) -> None:
    """Make a worker that replaces another use the same database file, or none."""
    database_file.hold(_conf.database_url)


def when_ready(server: Any) -> None:
    """Log where the server listens."""
    logs.get("serve").info("listening", at=",".join(str(listener) for listener in server.LISTENERS))


def pre_exec(server: Any) -> None:
    """On USR2, re-execute as a module. When run by file name, gunicorn's own `http` would shadow Python's."""
    server.START_CTX["args"] = [sys.executable, "-m", "gunicorn", *sys.argv[1:]]


def pre_fork(_server: Any, _worker: Any) -> None:
    """Freeze all objects, so that the worker's garbage collection does not touch, and so copy, the master's pages."""
    gc.freeze()


def post_fork(_server: Any, _worker: Any) -> None:
    """Collect garbage rarely while code is loaded: there is little, and looking for it takes a tenth of the start."""
    gc.set_threshold(20_000)


def post_worker_init(worker: Any) -> None:
    """After the fork, build the bridge and start its threads, which stop with the process."""
    share_memory()
    try:
        worker.wsgi.start()
    except BridgeError as error:
        problems = error.problems if isinstance(error, ProblemsError) else (str(error),)
        logs.get("serve").error("start.failed", faults=list(problems))
        sys.exit(Arbiter.APP_LOAD_ERROR)  # this also ends the server, because a retry would not help
    worker.quick_for = worker.wsgi.quick_for
    worker.deadline_s = _conf.bridge_request_deadline / 1000
    worker.at_stop.append(worker.wsgi.stop)
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()  # collections need not scan the loaded code again
    gc.set_threshold(*_GC_THRESHOLD)


def on_exit(_server: Any) -> None:
    """After a failed start, exit with 1 like all our commands; gunicorn has other exit codes."""
    if isinstance(sys.exc_info()[1], HaltServer):
        sys.exit(1)
