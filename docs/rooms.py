"""Draw the rooms of `bridge/` in the order of the import contract, and write the page that says what each is for."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]
STEPS: Final = ("receive", "route", "lookup", "deliver")
WIDTH, EDGE, GAP, HEIGHT, IN_A_ROW = 420, 8, 6, 24, 3  # three rooms per row are still readable on a phone
STYLE: Final = """\
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#1f2328;text-anchor:middle}
.layer{fill:#f6f8fa;stroke:#d0d7de}.step{fill:#116329;font-weight:600}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.layer{fill:#151b23;stroke:#3d444d}.step{fill:#56d364}}"""
PAGE: Final = """\
# Rooms

{note}

What each room of `bridge/` is for: the first sentence of its docstring, in the order of the [map](architecture.md).

| room | |
|---|---|
{rows}
"""


def layers() -> list[list[str]]:
    """The rooms, top layer first; rooms in the same layer may not import each other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [re.split(r"\s*[|:]\s*", layer) for contract in contracts for layer in contract.get("layers", [])]


def page(note: str) -> str:
    """The page `docs/rooms.md`: one row per room."""
    rows = [f"| `{room}` | {_promise(room)} |" for layer in layers() for room in layer]
    return PAGE.format(note=note, rows="\n".join(rows))


def _promise(room: str) -> str:
    """The first sentence of a room's docstring."""
    path = ROOT / "bridge" / room
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    summary = " ".join((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.) ", summary, maxsplit=1)[0].replace("|", "\\|").replace("<", "\\<")


def picture() -> str:
    """The layers as an SVG, stacked from top to bottom."""
    drawn, top = [], EDGE
    for layer in layers():
        rows = [layer[at : at + IN_A_ROW] for at in range(0, len(layer), IN_A_ROW)]
        height = HEIGHT * len(rows)
        drawn.append(f'<rect class="layer" x="{EDGE}" y="{top}" width="{WIDTH - 2 * EDGE}" height="{height}" rx="5"/>')
        drawn += [line for n, row in enumerate(rows) for line in _row(row, len(rows[0]), top + n * HEIGHT)]
        top += height + GAP
    title = "The rooms of bridge/; each may import what is below it"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + EDGE - GAP}" role="img">'
    return "\n".join([head, f"<title>{title}</title>", f"<style>{STYLE}</style>", *drawn, "</svg>\n"])


def _row(rooms: list[str], columns: int, top: int) -> Iterator[str]:
    share = (WIDTH - 2 * EDGE) / columns
    for n, room in enumerate(rooms):
        kind = ' class="step"' if room in STEPS else ""
        yield f'<text{kind} x="{EDGE + share * (n + 0.5):g}" y="{top + 17}">{room}</text>'
