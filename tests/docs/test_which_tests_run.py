"""What `make quick`, `make test`, `make test-all` and CI run: nothing is left out where everything is meant."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib

import pytest
from docs_kit import ROOT

TOOLS = ("chromium", "strace", "pgbouncer", "node", "npm", "apt-get")
ON_ALL_CORES = {"quick": "auto", "test": "$((2 * $(getconf _NPROCESSORS_ONLN)))", "test-all": "auto"}
FEWER = re.compile(r"-[mk]|--(deselect|ignore|lf|last-failed|sw|stepwise)|tests")


def pytest_words(target):
    """The words after `pytest` of what `make target` would run; style, types and imports come first."""
    alone = {"PATH": os.environ["PATH"]}  # without what a `make` around this test was told
    said = subprocess.run(
        ["make", "-n", target], cwd=ROOT, env=alone, check=True, capture_output=True, text=True
    ).stdout
    lines = [line for line in said.splitlines() if " -m pytest" in line]
    assert len(lines) == 1, said
    for check in ("ruff check .", "ruff format --check .", "mypy", "lint-imports"):
        assert 0 <= said.find(f"/{check}") < said.find(lines[0]), check
    return shlex.split(lines[0].partition(" -m pytest")[2].replace(ON_ALL_CORES[target], "CORES"))


@pytest.mark.parametrize(
    ("target", "chosen"), [("quick", ["-m", "not long", "tests/unit"]), ("test", ["-m", "not long"]), ("test-all", [])]
)
def test_a_target_of_make_chooses_by_the_marker_and_quick_by_its_folder(target, chosen):
    assert pytest_words(target) == ["--dist", "worksteal", "-n", "CORES", *chosen]


def test_no_other_marker_and_no_setting_leaves_a_test_out():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert [word for word in options["addopts"].split() if FEWER.match(word)] == []
    assert {marker.partition(":")[0] for marker in options["markers"]} == {"browser", "long"}
    assert {"norecursedirs", "python_files", "python_functions", "collect_ignore"}.isdisjoint(options)
    hooks = re.compile(r"collect_ignore|pytest_ignore_collect|pytest_collection_modifyitems|pytest_deselected")
    assert [file for file in (ROOT / "tests").rglob("conftest.py") if hooks.search(file.read_text())] == []


def program(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def ci(tmp_path):
    """`.ci/run` with a git and a make that only say what was asked of them; `make` says and ends as it is told."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        program(tools, name, "exit 0")
    program(tools, "git", 'while [ $# -gt 1 ]; do shift; done; mkdir -p "$1"')
    program(tools, "make", f'echo "$BRIDGE_SEEDS" "$@" >>{tmp_path}/asked; echo "$SAYS"; exit "$CODE"')

    def run(says, code=0):
        environ = {"PATH": f"{tools}:{os.environ['PATH']}", "SAYS": says, "CODE": str(code), "TMPDIR": str(tmp_path)}
        done = subprocess.run([ROOT / ".ci/run"], env=environ, capture_output=True, text=True, check=False)
        asked = (tmp_path / "asked").read_text().splitlines()
        (tmp_path / "asked").unlink()
        return done.returncode, asked

    return run


def test_ci_runs_everything_with_all_seeds_and_then_the_oracles(ci):
    code, (tests, oracles) = ci("==== 5000 passed in 1200.00s ====")
    assert code == 0
    assert tests.split()[:2] == ["10000", "test-all"]
    assert oracles.split() == ["oracles"]


@pytest.mark.parametrize("left_out", ["3 skipped", "1 deselected", "12 deselected, 1 skipped"])
def test_ci_fails_where_a_test_did_not_run(ci, left_out):
    code, asked = ci(f"==== 5000 passed, {left_out} in 1200.00s (0:20:00) ====")
    assert (code, len(asked)) == (1, 1)


def test_ci_fails_where_a_test_fails(ci):
    code, asked = ci("==== 1 failed, 4999 passed in 1200.00s ====", code=2)
    assert (code, len(asked)) == (2, 1)
