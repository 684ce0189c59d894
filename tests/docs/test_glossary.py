"""What a person reads is written in the words of the glossary (CONTRIBUTING.md, "Words").

Read are the documents, the files that one copies or edits, every command's `--help`, and every string of the product
that is prose. What a program reads is exempt by its form: a token that `_ . / = -` join to others (`fault_percent`,
`prepare.fault`), a single word between backticks, a string of one word, and SQL. Docstrings are read where `--help`
shows them.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import pytest
from docs_kit import PAGES, ROOT, section, table

from docs import generate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_NUMBER = r"(?:\{[^}]*\}|\d[\d.,]*|one|two|three|four|five|ten|a (?:hundred|thousand|million)|requests|goals|events)"
_BETWEEN = r"(?: (?!(?:and|or|if|for|in|of|at|to|by|is|are|as|has|was|with|within|from|after|that) )[\w-]+)"
_UNIT = r"(?:second|minute|hour|day|week|month|year|event|goal|line|process|key)"


@dataclass(frozen=True)
class Entry:
    """One row of the glossary: what to say, what not to say, and the pattern that recognises the latter."""

    say: str
    instead_of: str
    pattern: re.Pattern[str]


def entry(say: str, instead_of: str, pattern: str) -> Entry:
    """The pattern stands for whole words: never for a part of a name, an option or a path."""
    whole = rf"(?<![\w./=-])(?:{pattern})(?![\w/=-]|\.\w)"
    return Entry(say, instead_of, re.compile(whole, re.IGNORECASE))


GLOSSARY = (
    entry("fix", "mend", r"mend(?:s|ed|ing)?"),
    entry("problem, error", "fault", r"faults?|faulty"),
    entry("string, value", "a text", r"(?:a|an empty|no|this|that|every|each|one|decimal) text|texts"),
    entry("space", "blank", r"blanks?"),
    entry("rate limit", "pace", r"paces?"),
    entry("58 requests per minute", "58 requests a minute", rf"{_NUMBER}{_BETWEEN}{{0,2}} an? {_UNIT}"),
    entry(
        "has been paused for 3 min", "is paused since 3 min", r"(?:is|are)(?: \w+){1,2} since|since \d+ ?(?:s|min|h|d)"
    ),
    entry("the 3rd time", "the 3. time", r"(?:the|a) (?:\{[^}]*\}|\d+)\.(?= [a-z])"),
    entry(
        "is not a valid id",
        "is no id",
        r"(?<!there )(?<!answer )(?:is|are) no (?!(?:longer|more|less|better)\b)[a-z]\w*",
    ),
    entry("backup", "back-up", r"back-ups?"),
    entry("handshake", "hand-shake", r"hand-shakes?"),
)

ANY = re.compile("|".join(one.pattern.pattern for one in GLOSSARY), re.IGNORECASE)

# ------------------------------------------------------------------------------------------- what a person reads

TOKEN = re.compile(r"`[^`\s]+`")
WRITTEN = {name for name in generate.pages() if name.partition("/")[2].removesuffix(".md") not in generate.PARTLY}
PROSE = re.compile(r"[A-Za-z}…][.,;:)]? +[{(\w]")
SQL = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|PRAGMA|FROM|WHERE|AND|ON CONFLICT)\b")


@dataclass(frozen=True)
class Line:
    """What stands at one place: the file, or `file#generated` where `make docs` writes."""

    file: str
    number: int
    text: str


def lines_of(file: Path) -> Iterator[Line]:
    """A file that is read as it is. The glossary itself is left out: it names what it forbids."""
    name = str(file.relative_to(ROOT))
    text = file.read_text("utf-8")
    if name == "CONTRIBUTING.md":
        glossary = section(name, "Words")
        text = text.replace(glossary, "\n" * glossary.count("\n"))
    generated = name in WRITTEN
    for number, line in enumerate(text.split("\n"), 1):
        generated = (generated or line.startswith("<!-- generated: ")) and line != "<!-- /generated -->"
        yield Line(f"{name}#generated" if generated else name, number, line)


def documents() -> list[Path]:
    """Pages, mapping files and presets, and what is copied, edited or run when one sets the bridge up."""
    rules = [*ROOT.glob("mappings/**/*.yaml"), *ROOT.glob("bridge/**/*.yaml")]
    shown = [*ROOT.glob("docs/*.json"), *ROOT.glob("bridge/**/*.html")]
    return [*PAGES, *rules, *shown, *(ROOT / name for name in (".env.example", "app.json", "Makefile", "Procfile"))]


def modules() -> list[Path]:
    """The product, and the templates of the generated pages."""
    return [*sorted(ROOT.glob("bridge/**/*.py")), *sorted(ROOT.glob("docs/*.py"))]


def strings_of(file: Path) -> Iterator[Line]:
    """The prose among a module's strings, with `{…}` for what is put into one."""
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    inner |= {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node, clean=False) is not None
        and isinstance(node.body[0], ast.Expr)
    }
    for node in nodes:
        if id(node) in inner:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{…}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if PROSE.search(text) and not SQL.match(text):
            yield Line(str(file.relative_to(ROOT)), node.lineno, text)


def help_of(command: click.Command, name: str) -> Iterator[Line]:
    """What `python -m bridge NAME --help` prints, at the place of the function that it runs."""
    code = inspect.unwrap(command.callback) if command.callback else None
    where = inspect.getsourcefile(code) if code else None
    file = str(ROOT / "bridge/cli/catalogue.py") if where is None or not where.startswith(str(ROOT)) else where
    number = inspect.getsourcelines(code)[1] if code else 1
    shown = " ".join(command.get_help(click.Context(command, info_name=name, terminal_width=10_000)).split())
    yield Line(file.removeprefix(f"{ROOT}/"), number, shown)


def offences(lines: Iterable[Line]) -> Iterator[tuple[str, str]]:
    """The file, and `file:line: "word"; say "word"`, for each word that the glossary replaces."""
    for line in lines:
        text = " ".join(TOKEN.sub("`…`", line.text).split())
        for one in GLOSSARY if ANY.search(text) else ():
            for found in one.pattern.finditer(text):
                yield line.file, f'{line.file}:{line.number}: "{found[0]}"; say "{one.say}"'


@pytest.fixture(scope="module")
def read() -> dict[str, list[str]]:
    """File -> its offences, of everything that a person reads."""
    lines = [line for file in documents() for line in lines_of(file)]
    lines += [line for file in modules() for line in strings_of(file)]
    lines += [line for name, command in generate.every_command().items() for line in help_of(command, name)]
    found: dict[str, list[str]] = {}
    for file, offence in offences(lines):
        found.setdefault(file, []).append(offence)
    return found


# ------------------------------------------------------------------------------------------------------------ tests


def test_what_a_person_reads_is_in_the_words_of_the_glossary(read):
    found = [offence for _, offences in sorted(read.items()) for offence in offences]
    assert found == [], "\n" + "\n".join(found)


def test_contributing_shows_the_glossary_that_is_held():
    rows = table(section("CONTRIBUTING.md", "Words"))
    assert [(row[0], row[1]) for row in rows] == [(one.say, one.instead_of) for one in GLOSSARY]


@pytest.mark.parametrize("one", GLOSSARY, ids=lambda one: one.instead_of)
def test_an_entry_knows_what_it_replaces_from_what_replaces_it(one):
    assert one.pattern.search(f"It says {one.instead_of}, and more.")
    assert one.pattern.search(one.say) is None


SEEN = {
    "Mended by hand": "fix",
    "Every fault at once.": "problem, error",
    "it is an empty text": "string, value",
    "1.099 requests an event": "58 requests per minute",
    "asks {…} times a second": "58 requests per minute",
    "one JSON object a line": "58 requests per minute",
    "are paused since {…}": "has been paused for 3 min",
    "for the {…}. time": "the 3rd time",
    "{…} is no UUID": "is not a valid id",
}
EXEMPT = (
    "fault_percent",
    "tests/faults/test_alarms.py",
    "FAULTS=10",
    "`fault`, `prepare.fault`",
    "--fault-percent 10",
    "plain text",
    "text/plain",
    "there is no UUID",
    "it is no longer there",
    "the answer is no",
    "it takes a minute",
    "once a day",
    "two events and a goal",
    "exits with 1 if a goal is lost",
    "known since 12:03",
)


@pytest.mark.parametrize(("text", "say"), SEEN.items())
def test_a_word_is_found_in_what_is_written_around_it(text, say):
    ((_, offence),) = offences([Line("page.md", 7, text)])
    assert offence.startswith("page.md:7: ")
    assert offence.endswith(f'say "{say}"')


@pytest.mark.parametrize("text", EXEMPT)
def test_what_a_program_reads_and_what_is_plain_english_is_left_alone(text):
    assert list(offences([Line("page.md", 1, text)])) == []


MODULE = '''
"""A fault of the module."""
NAME = "fault"
SQL = "SELECT fault FROM pace"


def say(count: int) -> str:
    """A fault of the function."""
    return f"{count} requests a minute, " "{NAME}" f"{'a fault' if count else ''}"
'''


def test_of_a_module_its_prose_is_read_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "said.py").write_text(MODULE)
    said = [text for _, text in offences(strings_of(tmp_path / "said.py"))]
    assert said == [
        'said.py:9: "{…} requests a minute"; say "58 requests per minute"',
        'said.py:9: "fault"; say "problem, error"',
    ]
