"""The commands: `python -m bridge COMMAND`.

`main` guarantees the exit codes (0 success, 1 the answer is no, 2 wrong usage, 130 Ctrl-C), that `--json` may be
anywhere on the line, and that a failure is sentences on stderr, never a traceback: even if stdout is closed, full or
gone, and even if the failure is a bug in the bridge. Each command has a module of its own, which is imported only when
the command runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from bridge.cli.catalogue import Catalogue
from bridge.cli.screen import Screen, hang_up, open_standard_streams, unwritten_reason
from bridge.errors import BridgeError, ProblemsError, UsageError

FINE, NO, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    open_standard_streams()
    words, as_json = _without_json(sys.argv[1:] if argv is None else list(argv))
    screen = Screen.standard(as_json=as_json)
    try:
        return _run(words, screen)
    except BrokenPipeError:
        return FINE
    except KeyboardInterrupt:
        screen.refuse(["Stopped; nothing more was done."])
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody, and it may quote what it must not
        unwritten = unwritten_reason(error)
        screen.refuse_plainly(f"The answer cannot be written: {unwritten}." if unwritten else _internal_error(error))
        return NO
    finally:
        hang_up()


def _run(words: list[str], screen: Screen) -> int:
    try:
        result = Catalogue().main(args=words, obj=screen, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        screen.refuse([error.format_message()], hint=_hint(error))
        return WRONG_USE
    except UnicodeEncodeError as error:  # bytes from the terminal, on their way to the database
        if not any("\udc80" <= sign <= "\udcff" for sign in str(error.object)):
            raise
        screen.refuse(["Something on this line is not UTF-8, so nothing has that name."])
        return WRONG_USE
    except click.Abort as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        screen.refuse(["Stopped; nothing more was done."])
        return NO
    except UsageError as error:
        screen.refuse([str(error)])
        return WRONG_USE
    except ProblemsError as error:
        screen.refuse(error.problems)
        return NO
    except BridgeError as error:
        screen.refuse([str(error)])
        return NO
    return result if isinstance(result, int) else FINE


def _internal_error(error: Exception) -> str:
    from bridge import logs

    return f"This is an error of the bridge itself ({logs.where(error)}). Please report it with what you typed."


def _hint(error: click.ClickException) -> str:
    """The hint after wrong usage; a command called without arguments gets its whole help."""
    context = getattr(error, "ctx", None)
    if context is None or isinstance(error, click.exceptions.NoArgsIsHelpError):
        return ""
    return f"See: {context.command_path} --help"


def _without_json(words: list[str]) -> tuple[list[str], bool]:
    """Remove `--json` from a line, anywhere before a `--`."""
    end = words.index("--") if "--" in words else len(words)
    before = [word for word in words[:end] if word != "--json"]
    return before + words[end:], len(before) < end
