"""Where a command's answer goes: a terminal (rich), a pipe (plain, one line per fact, never wrapped), or JSON.

A command gives its answer as a value, and for people as headings, sentences, facts and tables. This module writes the
requested one and decides its format. rich is imported for a terminal only. Strings from outside are cleaned, so that
no webhook can move the cursor.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from bridge.errors import os_reason
from bridge.masking import hidden, hidden_in
from bridge.text import clean, escaped

if TYPE_CHECKING:
    from rich.console import Console

_CANNOT_WRITE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
_NARROWEST, _WIDEST = 40, 1_000  # columns; COLUMNS can have any value
GOOD, WARN, BAD, QUIET, STRONG = "green", "yellow", "red", "dim", "bold"
MARKS: Final = {"ok": GOOD, "warn": WARN, "fail": BAD}
STATES: Final = {
    "delivered": GOOD, "matched": GOOD, "routed": "", "unmatched": "", "ignored": QUIET, "dry": QUIET,
    "cancelled": QUIET, "parked": WARN, "pending": "", "leased": "", "sending": "", "received": "",
    "unconfirmed": WARN, "held": BAD, "rejected": BAD, "expired": BAD, "unattributed": BAD, "quarantined": BAD,
}  # fmt: skip


class Screen:
    """The output of one command."""

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool = False, terminal: bool | None = None) -> None:
        self.out, self.err, self.as_json = out, err, as_json
        self.terminal = (out.isatty() if terminal is None else terminal) and not as_json
        self._console: Console | None = None
        self._hidden: tuple[str, ...] = ()

    @classmethod
    def standard(cls, *, as_json: bool) -> Screen:
        """A screen on stdout and stderr, which then never fail on a character that the locale cannot encode."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        return cls(sys.stdout, sys.stderr, as_json=as_json)

    # ------------------------------------------------------------------------------------------------- answers

    def hide(self, secrets: Iterable[str]) -> None:
        """From now on, replace these secrets with `…`, even if a long one was cut."""
        self._hidden = tuple(sorted({*self._hidden, *secrets}, key=len, reverse=True))

    def write_json(self, value: Any) -> None:
        """Write one JSON document, for scripts. A terminal may show it, so control characters are escaped."""
        if not self.as_json:
            return
        ascii_only = not (self.out.encoding or "utf-8").lower().replace("-", "").startswith("utf")
        value = hidden_in(value, self._hidden) if self._hidden else value
        self.out.write(escaped(json.dumps(value, ensure_ascii=ascii_only, indent=2, default=str)) + "\n")

    def answer(self, value: Any, *sentences: str) -> None:
        """Write the whole answer: as JSON, or as these sentences."""
        self.write_json(value)
        for sentence in sentences:
            self.say(sentence)

    def refuse(self, sentences: Iterable[str], hint: str = "") -> None:
        """Say on stderr, one reason per line, why a command did not do what it was asked to do."""
        problems = [clean_lines(hidden(sentence, self._hidden)) for sentence in sentences]
        self.write_json({"ok": False, "faults": problems})
        with suppress(OSError):  # nobody reads it; the exit code says it too
            for problem in problems:
                click.echo(problem, file=self.err)
            if hint:
                click.echo(clean(hint), file=self.err)

    def warn(self, sentence: str) -> None:
        """Write a warning to stderr, apart from the answer."""
        click.echo(self.warning(sentence), file=self.err)

    def warning(self, sentence: str) -> str:
        """The line that `warn` writes."""
        return f"warning: {self._clean(sentence)}"

    def refuse_plainly(self, sentence: str) -> None:
        """Write the last sentence, on stderr only: stdout may be what failed, and stderr may fail as well."""
        with suppress(OSError):
            self.err.write(clean(sentence) + "\n")
            self.err.flush()

    def say(self, text: str = "", *, style: str = "", indent: int = 0) -> None:
        """Write a sentence, or an empty line."""
        if not self.terminal:
            self._write(f"{' ' * indent}{self._clean(text)}")
            return
        from rich.padding import Padding
        from rich.text import Text

        self._rich().print(Padding(Text(self._clean(text), style=style), (0, 0, 0, indent)))

    def line(self, text: str) -> None:
        """Write a line that is never wrapped: a place in a file, a command to copy."""
        self._write(self._clean(text))

    def heading(self, text: str) -> None:
        """Write the title of what follows."""
        self.say(text, style=STRONG)

    def section(self, text: str) -> None:
        """Write the title of what follows, separated from what came before."""
        self.say()
        self.heading(text)

    def mark(self, level: str, text: str) -> None:
        """Write a finding: `ok`, `warn` or `fail`, and its sentence."""
        self.facts([(level, text)], width=6, label_style=MARKS[level], indent=0)

    def facts(
        self, pairs: Sequence[tuple[str, str]], *, indent: int = 2, width: int | None = None, label_style: str = QUIET
    ) -> None:
        """Write labels and values, one per line; on a terminal, a long value continues below its beginning."""
        label_width = width or max((len(label) for label, _ in pairs), default=0) + 2
        if not self.terminal:
            for label, value in pairs:
                self._write(f"{' ' * indent}{self._clean(label):<{label_width}}{self._clean(value)}".rstrip())
            return
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid()
        grid.add_column(width=label_width, no_wrap=True)
        grid.add_column(overflow="fold")
        for label, value in pairs:
            grid.add_row(Text(self._clean(label), style=label_style), Text(self._clean(value)))
        self._rich().print(Padding(grid, (0, 0, 0, indent)))

    def table(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        none: str = "Nothing.",
        numbers: Collection[int] = (),
    ) -> None:
        """Write rows under heads; on a terminal the cells are wrapped, in a pipe each row is one line.

        numbers: the columns (from 0) whose cells are right-aligned.
        """
        texts = [["" if cell is None else self._clean(cell) for cell in row] for row in rows]
        if not texts:
            self.say(none)
        elif self.terminal:
            self._rich_table(heads, texts, numbers)
        else:
            self._plain_table(heads, texts, numbers)

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int], None]]:
        """Show the progress of long work by `step(done)`, on a terminal only."""
        if not self.terminal or not self.err.isatty():
            yield lambda _done: None
            return
        from rich.console import Console

        with Console(file=self.err).status(label) as status:
            yield lambda done: status.update(f"{label}: {done}")

    # --------------------------------------------------------------------------------------------------- means

    def _write(self, line: str) -> None:
        """Write a line for people: nothing if the answer is JSON."""
        if not self.as_json:
            self.out.write(f"{line}\n")

    def _clean(self, value: Any) -> str:
        return clean(hidden_in(value, self._hidden) if self._hidden else value)

    def _plain_table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> None:
        widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
        alignments = ["rjust" if i in numbers else "ljust" for i in range(len(heads))]
        for row in [heads, *rows]:
            cells = zip(row, alignments, widths, strict=True)
            line = "  ".join(getattr(cell, align)(width) for cell, align, width in cells)
            self._write(line.rstrip())

    def _rich_table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=QUIET)
        for i, head in enumerate(heads):
            table.add_column(head, overflow="fold", justify="right" if i in numbers else "left")
        for row in rows:
            table.add_row(*(Text(cell, style=STATES.get(cell, "")) for cell in row))
        self._rich().print(table)

    def _rich(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self.out, markup=False, highlight=False, emoji=False)
            self._console.width = min(max(self._console.width, _NARROWEST), _WIDEST)
        return self._console


def open_standard_streams() -> None:
    """Open closed standard streams (`>&-`) on the null device: otherwise a database would get their file number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - it belongs to the process
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


def unwritten_reason(error: Exception) -> str | None:
    """Why the output cannot be written (a full disk, a closed stdout); None if this is not the error."""
    cause = error if isinstance(error, OSError) and error.errno in _CANNOT_WRITE else None
    try:
        sys.stdout.flush()
    except OSError as flush_error:
        cause = flush_error
    return None if cause is None else os_reason(cause)


def hang_up() -> None:
    """Drop unwritten output, or the interpreter would fail when it closes the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):  # a replacement stream may have no file number
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def clean_lines(text: str) -> str:
    """Several lines, each of them cleaned."""
    return "\n".join(map(clean, text.split("\n")))


def current_screen() -> Screen:
    """The screen of the running command."""
    screen = click.get_current_context().find_root().obj
    assert isinstance(screen, Screen)
    return screen
