"""`restored`: the database was replaced by a backup, so goals in it may have been sent already.

The command stores the span of time about which the database knows nothing. Workers read it when they claim a goal
(`bridge.store.delivery.restoring`). While a process of the bridge runs, which would send goals, the command is refused.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from bridge.cli import parameters, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import BridgeError, UsageError
from bridge.store import Store, clock
from bridge.store.delivery import restoring
from bridge.store.operator import changes
from bridge.text import ago, count, listing, when

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store.delivery.restoring import Span, Unfinished

HEARTBEAT_WITHIN_MS: Final = 12_000  # each process sends a heartbeat every 5 s
POLL_S: Final = 0.5


@command(
    examples=[
        ("restored", "says what it will do, and asks"),
        ("restored --yes", "for scripts: does not ask"),
        ("restored --backed-up-at 2026-05-03T02:00:00Z", "if the bridge has already run on the restored database"),
    ]
)
@click.option(
    "--backed-up-at",
    type=parameters.moment,
    metavar="TIME",
    help="When the backup was made; by default the newest time in the database.",
)
@parameters.YES
def restored(backed_up_at: int | None, yes: bool) -> None:
    """Tell the bridge that its database is a restored backup, before you start it.

    A backup does not hold what was sent after it was made. So the bridge asks DataFast before it sends a goal that is
    not final, or one that is made later from an event that happened before now (a provider's retry, a replay): if
    DataFast recorded it between the backup and now, it counts as delivered; if not, it is sent. Goals of newer events
    are sent as always.

    Stop every process of the bridge first, including the one that used the lost database. Running this twice does no
    harm.
    """
    screen = current_screen()
    with resources.store() as store:
        _require_stopped(store)
        with store.read() as conn:
            now_ms = clock.read_ms(conn)
            newest_ms = restoring.newest_ms(conn, now_ms)
            waiting = restoring.count_open(conn)
        from_ms = _since(backed_up_at, newest_ms, now_ms)
        _print(screen, from_ms, now_ms, waiting)
        parameters.confirm("Is this database a restored backup, and has every other bridge stopped sending?", yes=yes)

        def remember(conn: Connection) -> Span:
            sentence = f"The database is a backup of {when(from_ms)}: goals in it may have been sent already."
            changes.record(conn, "restored", "", sentence)
            return restoring.remember(conn, from_ms, clock.read_ms(conn))

        span = store.run(remember)
    screen.answer(
        {"ok": True, "backed_up_at_ms": span.from_ms, "restored_at_ms": span.at_ms, **asdict(waiting)},
        "Noted. Start the bridge now; `python -m bridge goals --state unconfirmed` lists the goals that it asks"
        " DataFast about.",
    )


def _require_stopped(store: Store) -> None:
    """BridgeError while a process runs. A backup holds the last heartbeat of its time, so only a newer one counts."""
    with store.read() as conn:
        first_ms = restoring.last_beat_ms(conn)
        now_ms = clock.read_ms(conn)
    wait_s = 0.0 if first_ms is None else min(first_ms + HEARTBEAT_WITHIN_MS - now_ms, HEARTBEAT_WITHIN_MS) / 1000
    until = time.monotonic() + wait_s
    while first_ms is not None and time.monotonic() < until:
        time.sleep(POLL_S)
        with store.read() as conn:
            last_ms = restoring.last_beat_ms(conn)
        if last_ms is not None and last_ms > first_ms:
            raise BridgeError(
                "The bridge is running on this database, and would send what it holds. Stop every process of it (web"
                " and worker), then run `python -m bridge restored` again. If it has run since the backup was restored,"
                " add --backed-up-at with the time of the backup."
            )


def _since(backed_up_at: int | None, newest_ms: int | None, now_ms: int) -> int:
    """The start of the unknown span: nothing was sent between the database's newest time and the backup."""
    if backed_up_at is not None and backed_up_at > now_ms:
        raise UsageError(f"--backed-up-at is in the future: the clock says {when(now_ms)}.")
    known = [at for at in (backed_up_at, newest_ms) if at is not None]
    if not known:
        raise UsageError("Nothing is stored in this database. Give the time of the backup with --backed-up-at.")
    return min(known)


def _print(screen: Screen, from_ms: int, now_ms: int, waiting: Unfinished) -> None:
    states = ("pending", "parked", "in_doubt", "held")
    numbers = {state.replace("_", " "): getattr(waiting, state) for state in states}
    goals = listing([f"{number} {state}" for state, number in numbers.items()])
    screen.facts(
        [
            ("Backup", f"of {when(from_ms)}, {ago(from_ms, now_ms)}: what was sent since then is not in it"),
            ("Goals", f"{count(sum(numbers.values()), 'goal')} not sent yet: {goals}"),
            ("Events", f"{count(waiting.unrouted, 'event')} not routed yet"),
            ("Asked about", "each of these goals, and every later goal of an event older than now, before it is sent"),
        ],
        width=12,
    )
