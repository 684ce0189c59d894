"""`serve`, `worker` and `migrate`: the processes of a running bridge.

Before it starts anything, `serve` checks all settings and whether an embedded database can be written; then it hands
its process to gunicorn: same process id, so that signals reach it directly. It loads nothing that gunicorn's master
would keep and never use. The worker creates or migrates an embedded database. A server database is never migrated
here: with an older schema, the bridge answers 503 and says which command to run.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from bridge.cli import resources
from bridge.cli.catalogue import Command, command, write_settings
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError, StoreError, StoreUnavailable
from bridge.settings import LOCALHOST, Settings, database_file, database_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

    from bridge.app import Bridge

RETRY_S = 1.0  # between two attempts to reach the database
_REMEDY: Final = "put a backup there, or name another file in DATABASE_URL"
GUNICORN = ("-c", "python:bridge.server.gunicorn_conf", "bridge.web.wsgi:app")


class Serve(Command):
    """Its help is the reference of every setting."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        write_settings(formatter, advanced=True)


@click.command(
    cls=Serve,
    examples=[
        ("serve", "listens on BRIDGE_HOST:PORT; providers post to /webhooks/<source>"),
        ("serve --port 9000", "the same on another port"),
    ],
)
@click.option("--port", type=click.IntRange(0, 65_535), metavar="PORT", help="Port to listen on, instead of PORT.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on, instead of BRIDGE_HOST.")
def serve(port: int | None, host: str | None) -> None:
    """Start the bridge: receive webhooks, and send goals unless BRIDGE_WORKER is off.

    The bridge checks all settings first; if one is wrong, it lists every problem and does not start. A broken mapping
    file does not stop it: the bridge keeps the last good rules and says so. A SQLite database is created or
    migrated automatically; for PostgreSQL, run `python -m bridge migrate` once per release.
    """
    screen = current_screen()
    _override(port, host)
    settings = resources.settings()
    _print_warnings(screen, settings.warnings)
    _require_writable(settings.database_url)
    _require_address(settings.bridge_host, settings.port)
    _become_gunicorn()


def _override(port: int | None, host: str | None) -> None:
    """Put the options where the settings are read, also by gunicorn's configuration."""
    if port is not None and host is None and not resources.environ().get("PORT", "").strip():
        # A port that a person types does not come from a platform.
        host = resources.environ().get("BRIDGE_HOST", "").strip() or LOCALHOST
    given = {"PORT": port, "BRIDGE_HOST": host}
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})


def _require_writable(url: str) -> None:
    """Fail with one sentence instead of answering 503 for ever. A process that holds the lock can write the file."""
    import sqlite3

    file = database_url.sqlite_file(url)
    if file is None:
        return
    database_file.make_private(file)
    try:
        with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as conn:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("SELECT count(*) FROM sqlite_master").fetchone()  # fails if the file is damaged
    except sqlite3.Error as error:
        if "locked" not in str(error):
            raise StoreUnavailable(f"the database {file} cannot be used: {error}; {_REMEDY}") from None


def _require_address(host: str, port: int) -> None:
    """Fail with one sentence instead of gunicorn's eleven lines in five seconds, if the address is in use."""
    if "LISTEN_FDS" in os.environ:
        return  # systemd has already opened the socket
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except (OSError, UnicodeError) as error:  # the second for a string that cannot be a host name
        reason = (getattr(error, "strerror", None) or "it is not the name of a host").lower()
        raise BridgeError(
            f"Cannot listen on port {port} of {host}: {reason}. Stop what"
            " listens there, or choose another address: --port or PORT, --host or BRIDGE_HOST."
        ) from None


def _become_gunicorn() -> None:
    """Never returns. From here on, the command line is gunicorn's, with which it restarts itself (USR2)."""
    import gunicorn.__main__
    from gunicorn.app.wsgiapp import run

    sys.argv = [gunicorn.__main__.__file__, *GUNICORN]
    run()


def _print_warnings(screen: Screen, warnings: Sequence[str]) -> None:
    """Write warnings like log lines: a pipe that nobody reads must not keep the bridge from starting."""
    if not warnings:
        return
    from bridge import logs

    for warning in warnings:
        logs.say(screen.warning(warning))
    logs.flush()  # so that later output comes after them


@command(examples=[("worker", "where the web processes have BRIDGE_WORKER=off; start as many as you like")])
def worker() -> None:
    """Route events and send goals in a separate process.

    Needed only where BRIDGE_WORKER is off: by default each web process has a worker of its own. Any number of workers
    may run; together they keep to DataFast's rate limit. On SIGTERM or Ctrl-C a worker finishes what it is sending, and
    then exits.
    """
    from bridge import logs

    settings = resources.settings()
    _print_warnings(current_screen(), settings.warnings)
    _require_writable(settings.database_url)
    logs.configure(settings.bridge_log_format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    running = _build(settings, stop)
    if running is not None:
        running.start()
        stop.wait()
        running.stop()


def _build(settings: Settings, stop: Event) -> Bridge | None:
    """The worker's bridge once the database can be used; a restart of the database must not end the process."""
    from bridge import app, logs
    from bridge.server import share_memory

    share_memory()
    logged = ""
    while not stop.is_set():
        try:
            return app.build(settings, worker=True, kind="worker")
        except StoreError as error:
            if str(error) != logged:
                logged = str(error)
                logs.get("worker").warning("start.waits", reason=logged)
            stop.wait(RETRY_S)
    return None


_SCHEMA: Final = {
    "current": "The database's schema is current.",
    "newer": "The database's schema is of a later release; this release runs on it as it is.",
}


_WAITING: Final = (
    "Waiting for up to 10 min, because {}: a backup or a long transaction uses the tables. The bridge keeps working."
)


@command(examples=[("migrate", "needs only DATABASE_URL; safe to run again, and in several places at the same time")])
def migrate() -> None:
    """Create the database's tables, or bring them to this release's schema.

    Migrations only add to the schema, so the previous release keeps working while you replace it.
    """
    from bridge import store

    screen = current_screen()
    with closing(store.open(resources.database_url(), pool_size=1, patience_s=resources.CONNECTION_S)) as opened:
        store.migrate(opened, on_wait=lambda reason: click.echo(_WAITING.format(reason), file=screen.err))
        state = store.schema_state(opened)
    screen.answer({"ok": True, "schema": state}, _SCHEMA[state])
