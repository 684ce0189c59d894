"""The rules of the house are written down where they are broken."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from functools import cache

from docs_kit import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text()
_CODE = re.compile(r'^\s+"([A-Z]+\d*)",')
_EXPLAINED = re.compile(r"(?:\n\n|\n- |\. )([a-z_]+(?:, [a-z_]+)*): ")  # `days, hours: …`


def test_every_rule_that_is_off_has_its_reason_beside_it():
    lint = tomllib.loads(PYPROJECT)["tool"]["ruff"]["lint"]
    assert lint["select"] == ["ALL"]
    part = PYPROJECT.split("[tool.ruff.lint]")[1].split("[tool.ruff.lint.pydocstyle]")[0]
    off = [line for line in part.splitlines() if _CODE.match(line)]
    assert len(off) >= len(lint["ignore"])
    listed = [line for line in part.splitlines() if re.match(r'"[^"]+" = \["', line)]
    assert [line for line in off + listed if not re.search(r"# *\S.{10,}", line)] == []


@cache
def _definitions():
    """Every class and function of the product, migrations apart: they are frozen."""
    modules = [file for file in (ROOT / "bridge").rglob("*.py") if "migrations" not in file.parts]
    assert len(modules) > 100
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (file, node) for file in modules for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)
    ]


def _defined(*kinds):
    return [(file, node) for file, node in _definitions() if isinstance(node, kinds)]


def test_no_class_name_stands_twice():
    names = Counter(node.name for _, node in _defined(ast.ClassDef))
    assert [name for name, times in names.items() if times > 1] == []


def test_no_function_has_more_than_forty_lines():
    functions = _defined(ast.FunctionDef, ast.AsyncFunctionDef)
    assert [f"{file.name}: {node.name}" for file, node in functions if node.end_lineno - node.lineno >= 40] == []


def _names_in(node):
    """The names and words of a definition's code, its docstring apart."""
    code = [part for child in ast.iter_child_nodes(node) if child is not node.body[0] for part in ast.walk(child)]
    values = [value for part in code for _, value in ast.iter_fields(part) if isinstance(value, str)]
    return {word for value in values for word in re.findall(r"\w+", value)}


def test_a_docstring_explains_only_names_that_its_code_has():
    explained = [
        (file, node, name)
        for file, node in _definitions()
        for names in _EXPLAINED.findall(re.sub(r"(?<!\n)\n(?!\n|- )", " ", ast.get_docstring(node) or ""))
        for name in names.split(", ")
    ]
    assert len(explained) > 500
    assert [f"{file.name}: {node.name}: {name}" for file, node, name in explained if name not in _names_in(node)] == []


def test_an_adr_is_at_most_forty_lines():
    adrs = sorted((ROOT / "docs/adr").glob("*.md"))
    assert len(adrs) >= 6
    assert [adr.name for adr in adrs if len(adr.read_text().splitlines()) > 40] == []


def test_the_changelog_keeps_its_form_and_names_the_version_that_there_is():
    text = (ROOT / "CHANGELOG.md").read_text()
    version = tomllib.loads(PYPROJECT)["project"]["version"]
    assert re.search(r"^## \[Unreleased\]", text, re.MULTILINE) or f"## [{version}]" in text
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }


def test_the_number_of_presets_is_the_one_that_is_told():
    from bridge import sources

    told = int(re.search(r"Presets for (\d+) providers", (ROOT / "CHANGELOG.md").read_text())[1])
    assert told == len(sources.presets())
