"""What a preset says it was checked against is true: `run` and `family` are what `make oracles` runs, and no others."""

import datetime as dt
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from bridge import sources
from oracles.differences import DIFFERENCES
from oracles.rows import ROWS

ROOT = Path(__file__).parents[3]
WRITTEN = yaml.load(files("bridge.sources").joinpath("presets.yaml").read_bytes(), yaml.CSafeLoader)
KEPT = json.loads((ROOT / "docs/oracles.json").read_text())
HOWS = {"run", "family", "captured", "read", "assumed"}

every = pytest.mark.parametrize("name", sorted(WRITTEN))


@every
def test_a_preset_says_itself_what_it_was_checked_against(name):
    said = WRITTEN[name].get("checked")  # not what it inherits by `like`: another sender is another check
    assert said, f"{name} lacks checked: {{how, against, on}}"
    assert set(said) == {"how", "against", "on"}
    assert said["how"] in HOWS
    assert said["against"].strip()
    assert dt.date.fromisoformat(said["on"]).isoformat() == said["on"]


def ran(*hows):
    return {(row.preset, row.how) for row in ROWS if row.how in hows}


def test_what_is_called_run_or_family_is_run_and_the_reverse():
    called = {(name, said["checked"]["how"]) for name, said in WRITTEN.items()}
    assert {pair for pair in called if pair[1] in ("run", "family")} == ran("run", "family")
    assert ran("assumed") <= called
    assert {row.how for row in ROWS} <= {"run", "family", "assumed"}


def test_the_kept_verdicts_are_of_these_rows():
    assert {(said["preset"], said["how"]) for said in KEPT} == ran("run", "family", "assumed")


def test_the_kept_differences_are_said_in_the_words_of_the_table():
    kept = {(said["preset"], why) for said in KEPT for why in said["differences"]}
    assert kept == {(difference.preset, difference.why) for difference in DIFFERENCES}, "make oracles ARGS=--write"


@pytest.mark.parametrize("said", KEPT, ids=lambda said: f"{said['preset']} {said['against']}")
def test_the_package_that_ran_is_pinned_and_named_by_the_preset(said):
    package, _, version = said["against"].rpartition("@")
    assert said["against"] in sources.presets()[said["preset"]]["checked"]["against"]
    assert version in pinned(package)
    assert said["cases"] >= 4


def pinned(package):
    node = json.loads((ROOT / "oracles/node/package-lock.json").read_text())["packages"]
    found = [entry["version"] for path, entry in node.items() if path == f"node_modules/{package}"]
    lock = (ROOT / "requirements-oracles.txt").read_text()
    return found + re.findall(rf"^{re.escape(package)}==(\S+) \\\n    --hash=sha256:", lock, re.MULTILINE)


def test_the_page_of_providers_has_a_verdict_for_each_that_ran():
    page = (ROOT / "docs/providers.md").read_text().split("\n## Verdicts\n")[1]
    assert set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)) == {row.preset for row in ROWS}


def test_a_difference_has_a_row_and_a_reason():
    rows = {(row.preset, row.library) for row in ROWS}
    assert [one for one in DIFFERENCES if (one.preset, one.library) not in rows or len(one.why) < 20] == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-oracles.txt"])
def test_a_lock_of_python_packages_has_hashes_and_names_no_package_index(name):
    lines = (ROOT / name).read_text().splitlines()
    assert not [
        line for line in lines if "://" in line or line.lstrip().startswith(("-i ", "--index", "--extra-index"))
    ]
    wanted = [index for index, line in enumerate(lines) if "==" in line]
    assert wanted
    assert all(lines[index + 1].startswith("    --hash=sha256:") for index in wanted)


def test_the_lock_of_node_packages_has_hashes_and_names_no_host():
    text = (ROOT / "oracles/node/package-lock.json").read_text()
    assert "://" not in text
    assert '"resolved"' not in text
    packages = json.loads(text)["packages"]
    assert all(re.fullmatch(r"sha512-\S+", said["integrity"]) for path, said in packages.items() if path)
    wanted = json.loads((ROOT / "oracles/node/package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
