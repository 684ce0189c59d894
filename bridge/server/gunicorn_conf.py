"""gunicorn's settings: `gunicorn -c python:bridge.server.gunicorn_conf bridge.web.wsgi:app` (`python -m bridge serve`).

There is one process with 32 threads: with two, kept connections would crowd into one of them. The worker builds the
application, and with it the inline worker, after the fork (never `preload_app`: threads do not survive a fork). It also
loads their code, not the master: pages that both have are shared only for a moment, because counting references writes
to them, so a master that loads nothing but its settings saves 25 MB. WEB_CONCURRENCY is not read: Heroku sets it to 2
by itself.
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
from bridge.errors import BridgeError, FaultsError
from bridge.server import share_memory
from bridge.server.worker import EdgeWorker, keep_signals_over_forks
from bridge.settings import database_file

if TYPE_CHECKING:
    from bridge.settings import Settings


# After this long a thread that computes (routing) hands the interpreter on. An acknowledgement needs it some twenty
# times, because each system call gives it away; with Python's 5 ms it would wait for so long each time.
SWITCH_S: Final = 0.0001


def _settings() -> Settings:
    try:
        return table.load(table.read_environment(os.environ))
    except FaultsError as error:
        sys.exit("\n".join(error.faults))


_now = _settings()
logs.configure(_now.bridge_log_format)
keep_signals_over_forks()


class _LineHandler(logging.Handler):
    """Writes messages of gunicorn and of Python's futures in the form of all other lines, without stacks."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f" ({logs.where(record.exc_info[1])})"
        logs.get("gunicorn").log(record.levelno, "gunicorn", message=message, pid=record.process)


logging.getLogger("concurrent.futures").addHandler(
    _LineHandler()
)  # otherwise a callback of a future could print a stack


class StructuredLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    """Logs an error by its kind, without a stack trace. The bridge itself logs starts and stops of processes."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers = [_LineHandler()]
        self.error_log.setLevel(logging.WARNING)

    def exception(self, msg: str, *args: Any, **_options: Any) -> None:
        kind = sys.exc_info()[0]
        self.error_log.error(f"{msg} (%s)", *args, kind.__name__ if kind else "?")


_USUAL = gc.get_threshold()
bind = f"[{_now.bridge_host}]:{_now.port}" if ":" in _now.bridge_host else f"{_now.bridge_host}:{_now.port}"
workers = _now.bridge_processes
threads = _now.bridge_threads
worker_class = EdgeWorker
worker_connections = 4096  # clients at once in a process, each a few KB; fewer where fewer files may be open
backlog = 4096
keepalive = 95  # longer than the routers in front keep theirs, so that they are the ones to close
timeout = 60  # ends a process that hangs; the loop itself never waits
graceful_timeout = 20
max_requests = 200_000  # against leaks; the worker stops its other threads before it stops accepting
max_requests_jitter = 20_000
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
forwarder_headers = ""  # no header of a request says its path
secure_scheme_headers: dict[str, str] = {}  # nor its scheme: two proxies that disagree about it must not cost a sale
control_socket_disable = True
preload_app = False
accesslog = None  # bridge.receive writes one line per webhook
logger_class = StructuredLogger
proc_name = "datafast-bridge"


def on_starting(_server: Any) -> None:
    """Let a worker that replaces another one use the same database file, or none."""
    database_file.hold(_now.database_url)


def when_ready(server: Any) -> None:
    """Log where the server listens."""
    logs.get("serve").info("listening", at=",".join(str(listener) for listener in server.LISTENERS))


def pre_exec(server: Any) -> None:
    """At USR2, start anew as a module. By its file's name, gunicorn's own `http` would come before Python's."""
    server.START_CTX["args"] = [sys.executable, "-m", "gunicorn", *sys.argv[1:]]


def pre_fork(_server: Any, _worker: Any) -> None:
    """Freeze what is there: the worker's garbage collection must not touch, and thereby copy, the master's pages."""
    gc.freeze()


def post_fork(_server: Any, _worker: Any) -> None:
    """Collect seldom while code is loaded: there is little garbage, and looking for it takes a tenth of the start."""
    gc.set_threshold(20_000)


def post_worker_init(worker: Any) -> None:
    """After the fork, build the bridge and start its threads, which stop with the process."""
    share_memory()
    try:
        worker.wsgi.start()
    except BridgeError as error:
        faults = error.faults if isinstance(error, FaultsError) else (str(error),)
        logs.get("serve").error("start.failed", faults=list(faults))
        sys.exit(Arbiter.APP_LOAD_ERROR)  # which also ends the server: trying again would not help
    worker.quick_for = worker.wsgi.quick_for
    worker.deadline_s = _now.bridge_request_deadline / 1000
    worker.at_stop.append(worker.wsgi.stop)
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()  # collections need not look through the code again
    gc.set_threshold(*_USUAL)


def on_exit(_server: Any) -> None:
    """After a failed start, exit with 1, as every command of ours does; gunicorn has other exit codes."""
    if isinstance(sys.exc_info()[1], HaltServer):
        sys.exit(1)
