"""The project's pages as tests read them: files, fenced blocks, snippets with a name, and what a demo's output says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"readme: ([a-z-]+)")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str, pages: list[Path] = PAGES) -> list[Block]:
    """The fenced blocks of these languages, of all pages."""
    found = []
    for page in pages:
        text = page.read_text("utf-8")
        for fence in _FENCE.finditer(text):
            line = text.count("\n", 0, fence.start()) + 1
            found.append(Block(str(page.relative_to(ROOT)), line, fence[1], fence[2]))
    return [block for block in found if block.language in languages]


def snippets() -> dict[str, Block]:
    """Name -> block of the README that says `readme: name`."""
    marked = [(_NAME.search(block.text), block) for block in blocks("python", "html", pages=[ROOT / "README.md"])]
    return {name[1]: block for name, block in marked if name}


def section(page: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return (ROOT / page).read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]


def table(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, without its head."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


# ---------------------------------------------------------------------------------------------------- the demo's output

_CHANGING = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b"), "<visitor>"),
    (re.compile(r"\b(evt|pi|ch|cus|cs)_[A-Za-z0-9]{8,}"), r"\1_<id>"),
    (re.compile(r"\b[0-9a-f]{24}\b"), "<id>"),
    (re.compile(r"\buser_\w{27}\b"), "<id>"),
    (re.compile(r", \d{1,2} [A-Z][a-z][a-z]( \d{4})?$"), ", <day>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"), "<time>"),
    (re.compile(r"(<time>, )(\d+ (?:s|min) ago|in \d+ s|now)\b"), r"\1<ago>"),
    (re.compile(r" [0-9a-f]{6}( by .*)?$"), r" <six>\1"),
    (re.compile(r" +"), " "),
)


def told(output: str) -> list[str]:
    """The lines of a demo, without what is different each time."""
    lines = []
    for line in output.splitlines():
        text = line
        for pattern, stands_for in _CHANGING:
            text = pattern.sub(stands_for, text)
        lines.append(text.rstrip())
    return lines


def shown_in_readme() -> list[str]:
    """The demo's lines in the README; `…` marks what is left out."""
    text = (ROOT / "README.md").read_text("utf-8").split("<!-- demo -->\n```\n")[1].split("```\n<!-- /demo -->")[0]
    return [line for line in told(text) if line not in ("", "…")]


def not_told(output: str) -> list[str]:
    """Lines that the README shows and a real demo does not print, in this order."""
    lines = iter(told(output))
    return [shown for shown in shown_in_readme() if shown not in lines]


def drawn(name: str) -> list[str]:
    """The lines of a picture of the demo: the cells of each row, then what stands alone."""
    svg = (ROOT / f"docs/{name}.svg").read_text("utf-8")
    rows = re.findall(r'<g class="row".*?</g>', svg, re.DOTALL)
    alone = re.sub(r"<g .*?</g>", "", svg, flags=re.DOTALL)
    cells = [" ".join(re.findall(r"<text[^>]*>([^<]+)<", row)) for row in rows]
    return told("\n".join([*cells, *re.findall(r"<text[^>]*>([^<]+)<", alone)]))
