"""`serve`, `worker` and `migrate`: the processes of a running bridge.

`serve` looks at all settings before it starts anything, brings an embedded database to the right schema, and then
becomes gunicorn: same process id, so that signals reach it directly. A server database is never migrated here: with an
older schema the bridge answers 503 and says which command to run.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from bridge.cli import opening
from bridge.cli.catalogue import Command, command, write_settings
from bridge.cli.screen import of_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.cli.screen import Screen

GUNICORN = ("-m", "gunicorn", "-c", "python:bridge.web.gunicorn", "bridge.web.wsgi:app")


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
@click.option("--port", type=click.IntRange(0, 65_535), help="Instead of PORT.")
@click.option("--host", help="Instead of BRIDGE_HOST.")
def serve(port: int | None, host: str | None) -> None:
    """Start the bridge: receive webhooks, and send goals unless BRIDGE_WORKER is off.

    All settings are looked at first; a wrong one stops the start, and every fault is named at once. A broken mapping
    file does not: the bridge goes on with the last good set and says so. A SQLite database is created or brought up
    to date by itself; for PostgreSQL run `python -m bridge migrate` once a release.
    """
    screen = of_context()
    given = _overridden(port, host)
    settings = opening.settings()
    _print_warnings(screen, settings.warnings)
    if opening.sqlite_file(settings.database_url) is not None:
        from bridge import store

        store.migrate(settings.database_url)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *GUNICORN], {**os.environ, **given})  # noqa: S606 - our own interpreter


def _overridden(port: int | None, host: str | None) -> dict[str, str]:
    """What the line says, put where the settings are read; also by gunicorn's own configuration."""
    given = {name: str(value) for name, value in (("PORT", port), ("BRIDGE_HOST", host)) if value is not None}
    os.environ.update(given)
    return given


def _print_warnings(screen: Screen, warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", file=screen.err)


@command(
    examples=[
        ("worker", "with BRIDGE_WORKER=off on the web processes; start as many as you like"),
    ]
)
def worker() -> None:
    """Route events and send goals in a process of its own.

    Needed only where BRIDGE_WORKER is off: by default each web process has a worker of its own. Any number of workers
    may run; together they keep DataFast's pace. SIGTERM or Ctrl-C: what is being sent is finished, then it ends.
    """
    import signal
    import threading

    from bridge import app, logs

    screen = of_context()
    settings = opening.settings()
    _print_warnings(screen, settings.warnings)
    logs.configure(settings.bridge_log_format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    bridge = app.build(settings, worker=True)
    bridge.start()
    stop.wait()
    bridge.stop()


@command(
    examples=[
        ("migrate", "needs nothing but DATABASE_URL; safe to run again, and from several places at once"),
    ]
)
def migrate() -> None:
    """Create the database's tables, or bring them to this release's schema.

    Migrations only add, so the release before this one goes on working while it is replaced.
    """
    from bridge import store

    screen = of_context()
    url = opening.database_url()
    store.migrate(url)
    if screen.as_json:
        screen.write_json({"ok": True, "schema": "current"})
    else:
        screen.say("The database's schema is current.")
