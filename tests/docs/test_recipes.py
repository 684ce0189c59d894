"""The recipes of CONTRIBUTING name files that exist, and count those of the product."""

from __future__ import annotations

import re

import pytest
from docs_kit import ROOT, section

_PARTS = section("CONTRIBUTING.md", "Six changes").split("\n### ")[1:]
RECIPES = {heading: text for heading, _, text in (part.partition("\n") for part in _PARTS)}
_PATH = re.compile(r"`((?:bridge|tests|oracles|mappings)/[\w./]+)`|(tests/[\w./]+)")


def test_there_are_six():
    assert len(RECIPES) == 6


@pytest.mark.parametrize("heading", RECIPES)
def test_a_recipe_names_as_many_files_of_the_product_as_it_says(heading):
    files = re.findall(r"^\d+\. `(bridge/[^`]+)`", RECIPES[heading], re.MULTILINE)
    assert len(files) == int(re.search(r": (\d) files?$", heading)[1]) <= 5


@pytest.mark.parametrize("heading", RECIPES)
def test_what_a_recipe_names_exists(heading):
    named = {quoted or bare for quoted, bare in _PATH.findall(RECIPES[heading])}
    assert len(named) >= 2
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
