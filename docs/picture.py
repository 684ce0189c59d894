"""Draws the README's picture of a demo from a real one: `make picture`.

The demo's table becomes two SVG files, one for wide screens and one for telephones, both readable in light and dark.
Events that no rule matches and repetitions of a row are left out. A test compares what is drawn with a demo's output.
"""

from __future__ import annotations

import subprocess
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT: Final = Path(__file__).parents[1]
COLUMNS: Final = ("source", "event", "verdict", "goal at DataFast", "visitor")
DONE: Final = "goals arrived, each once."
STYLE: Final = """\
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#1f2328}
.card{fill:#fff;stroke:#d0d7de}.rule{stroke:#d0d7de}.quiet{fill:#59636e}.goal{fill:#116329;font-weight:600}
.none{fill:#a40e26}.visitor{fill:#0550ae}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.card{fill:#0d1117;stroke:#3d444d}.rule{stroke:#3d444d}
.quiet{fill:#9198a1}.goal{fill:#56d364}.none{fill:#ff7b72}.visitor{fill:#79c0ff}}"""


class Row(NamedTuple):
    """One line of the demo's table."""

    source: str
    event: str
    verdict: str
    goal: str
    visitor: str

    @property
    def outcome(self) -> str:
        return self.goal or self.verdict


class Layout(NamedTuple):
    """Where the cells of a row stand: x and y from the row's upper left corner, in pixels.

    head: the y of the last line above the rows, where the headings of the goal and the visitor stand.
    """

    name: str
    width: int
    row_height: int
    head: int
    source: tuple[int, int]
    event: tuple[int, int]
    arrow: tuple[int, int]
    outcome: tuple[int, int]
    visitor: tuple[int, int]


WIDE: Final = Layout("demo.svg", 860, 28, 31, (24, 19), (146, 19), (374, 19), (404, 19), (604, 19))
NARROW: Final = Layout("demo-narrow.svg", 420, 50, 52, (16, 19), (124, 19), (16, 40), (36, 40), (200, 40))


def run() -> str:
    """What a demo prints."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", "demo", "--once"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def rows(output: str) -> Iterator[Row]:
    """The rows that are drawn: each thing that may happen, once."""
    head, *lines = output.partition("\n\n")[0].splitlines()
    starts = [head.index(column) for column in COLUMNS]
    seen = set()
    for line in lines:
        cells = zip(starts, [*starts[1:], None], strict=True)
        row = Row(*(line[start:end].strip() for start, end in cells))
        kind = (row.source, row.event, row.verdict)
        if row.verdict != "unmatched" and kind not in seen:
            seen.add(kind)
            yield row


def done(output: str) -> str:
    """The demo's own sentence about how it ended."""
    return next(line for line in output.splitlines() if line.endswith(DONE))


def draw(layout: Layout, drawn: Sequence[Row], end: str) -> str:
    """The picture as SVG."""
    x = layout.source[0]
    top = layout.head + 21
    bottom = top + len(drawn) * layout.row_height
    height = bottom + 46
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {layout.width} {height}" role="img">',
            "<title>What `make demo` shows: webhooks, the goals that they become, and their visitors</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{layout.width - 1}" height="{height - 1}" rx="8"/>',
            _text((x, 31), "$ make demo", "quiet"),
            _text((layout.outcome[0], layout.head), COLUMNS[3], "quiet"),
            _text((layout.visitor[0], layout.head), COLUMNS[4], "quiet"),
            _line(layout, top - 4),
            *(line for n, row in enumerate(drawn) for line in _row(layout, row, top + n * layout.row_height)),
            _line(layout, bottom + 8),
            _text((x, bottom + 31), end, ""),
            "</svg>\n",
        ]
    )


def _row(layout: Layout, row: Row, top: int) -> Iterator[str]:
    yield f'<g class="row" transform="translate(0 {top})">'
    yield _text(layout.source, row.source, "quiet")
    yield _text(layout.event, row.event, "")
    yield _text(layout.arrow, "→", "quiet")
    yield _text(layout.outcome, row.outcome, "goal" if row.goal else "none")
    if row.visitor:
        yield _text(layout.visitor, row.visitor, "visitor")
    yield "</g>"


def _text(place: tuple[int, int], text: str, kind: str) -> str:
    return f'<text x="{place[0]}" y="{place[1]}" class="{kind}">{escape(text, quote=False)}</text>'


def _line(layout: Layout, y: int) -> str:
    return f'<path class="rule" d="M0.5 {y}.5H{layout.width - 0.5}"/>'


def main() -> int:
    """Play the demo and write both files."""
    output = run()
    drawn = list(rows(output))
    for layout in (WIDE, NARROW):
        (ROOT / "docs" / layout.name).write_text(draw(layout, drawn, done(output)), "utf-8")
        print(f"wrote docs/{layout.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
