"""The commands: `python -m bridge COMMAND`.

`main` promises the exit codes (0 fine, 1 the answer is no, 2 wrong use), that `--json` may stand anywhere on the
line, and that an expected failure is sentences on stderr, never a traceback. Each command lives in a module of its
own, which is imported only when that command runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from bridge.cli.catalogue import Catalogue
from bridge.cli.screen import Screen, hang_up
from bridge.errors import BridgeError, FaultsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

FINE, NO, WRONG_USE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words, as_json = _without_json(sys.argv[1:] if argv is None else list(argv))
    screen = Screen.standard(as_json=as_json)
    try:
        return _run(words, screen)
    except BrokenPipeError:
        hang_up()
        return FINE


def _run(words: list[str], screen: Screen) -> int:
    try:
        result = Catalogue().main(args=words, obj=screen, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        screen.refuse([error.format_message()], hint=_hint(error))
        return WRONG_USE
    except click.Abort:
        screen.refuse(["Stopped; nothing more was done."])
        return NO
    except UsageError as error:
        screen.refuse([str(error)])
        return WRONG_USE
    except FaultsError as error:
        screen.refuse(error.faults)
        return NO
    except BridgeError as error:
        screen.refuse([str(error)])
        return NO
    return result if isinstance(result, int) else FINE


def _hint(error: click.ClickException) -> str:
    """Where a wrong use finds the right one; a command called with nothing gets its whole help."""
    context = getattr(error, "ctx", None)
    if context is None or isinstance(error, click.exceptions.NoArgsIsHelpError):
        return ""
    return f"See: {context.command_path} --help"


def _without_json(words: list[str]) -> tuple[list[str], bool]:
    """Take `--json` out of a line, wherever it stands before a `--`."""
    end = words.index("--") if "--" in words else len(words)
    before = [word for word in words[:end] if word != "--json"]
    return before + words[end:], len(before) < end
