"""Whole files as people write them: of those that are right nothing is said, and each wrong one is told at its place.

`tests/fixtures/plausible_files.txt` and `wrong_files.txt` hold them; `>>>` says what is told of a wrong one.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge import loading, rules, sources
from bridge.errors import MappingError

ROOT = Path(__file__).parents[3]


SECRETS = {
    "SHOP_WEBHOOK_SECRET": "whsec_" + "A" * 32,
    "DOCS_DATAFAST_KEY": "df_key_of_the_docs",
    "SHOP_VERIFY_TOKEN": "v" * 20,
}


def blocks(name):
    text = (ROOT / "tests" / "fixtures" / name).read_text("utf-8")
    return [block.split("\n", 1) for block in text.split("=== ")[1:]]


PLAUSIBLE = blocks("plausible_files.txt")
WRONG = [(title, *block.split(">>> ")) for title, block in blocks("wrong_files.txt")]
SHIPPED = sorted((*(ROOT / "mappings").glob("*.yaml"), *(ROOT / "mappings" / "examples").glob("*.yaml")))


def given(name):
    return {f"{name.removesuffix('.yaml').replace('-', '_').upper()}_WEBHOOK_SECRET": SECRETS["SHOP_WEBHOOK_SECRET"]}


def said(text, name="shop.yaml"):
    """The errors and the warnings of what is written in a file, without its name."""
    try:
        found = loading.load({name: text}, {**SECRETS, **given(name)}, sources.presets())
    except MappingError as error:
        return [problem.removeprefix(f"mappings/{name}:") for problem in error.problems]
    return [line.removeprefix(f"mappings/{name}:") for line in found.warnings]


@pytest.mark.parametrize("text", [text for _, text in PLAUSIBLE], ids=[title for title, _ in PLAUSIBLE])
def test_of_a_file_that_is_right_nothing_is_said(text):
    assert said(text) == []


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_of_a_shipped_file_nothing_is_said_as_a_copy_and_as_a_layer(path):
    assert said(path.read_text("utf-8"), path.name) == []
    assert said(f"extends: {path.stem}\n", path.name) == []


@pytest.mark.parametrize(("text", "told"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG])
def test_what_is_wrong_is_told_at_its_place(text, told):
    assert said(text)[:1] == [told.strip()]


GUIDE = (ROOT / "docs" / "rules.md").read_text("utf-8")
ROWS = [
    [re.findall("`([^`]+)`", cell) for cell in line.split(" | ")]
    for line in GUIDE.split("| written | what it does | instead |\n|---|---|---|\n")[1].split("\n\n")[0].splitlines()
]


def written(line):
    """A file that has this line where it belongs."""
    rule = {"event": "invoice.paid", "metadata": None, "when": None, "follows": None}
    kind = line.split(":")[0]
    kind = kind if kind in rule else "when" if "." in kind or "{gte" in line else "metadata"
    parts = [f"{kind}: {{{line}}}" if kind in ("when", "metadata") else line]
    parts += ["event: invoice.paid"] if kind != "event" else []
    provider = (
        "extends: stripe\nuse: []"
        if kind == "follows"
        else "provider: gumroad"
        if "sale" in line
        else "provider: stripe"
    )
    parts += ["once_per: data.object.id"] if kind == "follows" else []
    return f"{provider}\ngoals:\n  - goal: g\n" + "".join(f"    {part}\n" for part in parts)


@pytest.mark.parametrize(
    ("line", "better"), [(row[0][0], row[2]) for row in ROWS if row[0] and "=" not in row[0][0].split(":")[0]]
)
def test_each_row_of_the_guide_is_told_with_what_it_advises(line, better):
    (told,) = said(written(line))
    assert re.match(r"[0-9]+:[0-9]+: ", told)
    if better:
        assert all(piece in told for piece in re.findall(r"(?!gte)[A-Za-z0-9_.*]{3,}", better[0].split(":", 1)[1]))
        assert said(written(better[0])) == []


def test_there_are_enough_of_them():
    assert len(PLAUSIBLE) >= 50
    assert len(WRONG) >= 40
    assert rules.SHIPPED.exists()
