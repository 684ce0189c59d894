"""How command-line parameters are parsed (durations, times, names of events and goals), and the confirmation question.

Without a terminal nobody could answer, so the question becomes a refusal that names `--yes`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from bridge.errors import BridgeError, UsageError
from bridge.settings import duration_ms
from bridge.text import clean, iso_ms


def duration(value: str) -> int:
    """Parse `30min`, `6h`, `7d` into milliseconds."""
    try:
        return duration_ms(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not {error}") from None


def moment(value: str) -> int:
    """Parse `2026-05-03T14:00:00Z` into milliseconds since 1970; UTC unless it says otherwise."""
    try:
        return iso_ms(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a time like 2026-05-03T14:00:00Z") from None


class Point(NamedTuple):
    """A point in time: milliseconds since 1970, or milliseconds before now."""

    ms: int
    is_ago: bool

    def at(self, now_ms: int) -> int:
        return now_ms - self.ms if self.is_ago else self.ms


def _point(value: str) -> Point:
    """Parse `6h` (ago) or `2026-05-03T14:00:00Z`."""
    with suppress(ValueError):
        return Point(duration_ms(value), is_ago=True)
    with suppress(ValueError):
        return Point(iso_ms(value), is_ago=False)
    raise click.BadParameter(f"{value!r} is neither a duration (6h, 7d) nor a time like 2026-05-03T14:00:00Z")


def event(value: str, prefix: str = "ev_") -> int:
    """Parse `ev_12` or `12`."""
    number = value.removeprefix(prefix)
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise click.BadParameter(f"{value!r} is not like {prefix}12")
    return int(number)


def goal(value: str) -> int:
    """Parse `goal_7` or `7`."""
    return event(value, "goal_")


# Options shared by several commands.
MAPPINGS: Final = click.option(
    "--mappings",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Folder of mapping files, instead of BRIDGE_MAPPINGS.",
)
SINCE: Final = click.option("--since", type=duration, metavar="DURATION", help="Only the last 30min, 6h, 7d …")
UNTIL: Final = click.option(
    "--until", type=_point, metavar="TIME", help="Only what arrived before this time: 1d (ago), or 2026-05-03T14:00Z."
)


def last(default: str, noun: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `--since` of commands that always cover some span of time."""
    help_ = f"{noun} of the last 6h, 7d, 30d …"
    return click.option("--since", type=duration, metavar="DURATION", default=default, show_default=True, help=help_)


LIMIT: Final = click.option(
    "--limit", metavar="N", type=click.IntRange(1, 1000), default=20, show_default=True, help="Show at most N lines."
)
SOURCE: Final = click.option("--source", metavar="NAME", help="Only this source.")
BASE_URL: Final = click.option("--base-url", metavar="URL", help="The bridge's public address: https://…")
YES: Final = click.option("--yes", is_flag=True, help="Do not ask.")


def confirm(question: str, *, yes: bool) -> None:
    """Go on only after a yes; UsageError if nobody can be asked."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{question} There is no terminal to answer on: add --yes to confirm.")
    if not click.confirm(clean(question), err=True):
        raise BridgeError("Nothing was done.")
