"""The frame of every command: exit codes, `--json` anywhere, help that teaches, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from bridge.cli import main
from bridge.cli.catalogue import EVERYDAY, MORE, Catalogue
from bridge.settings import TABLE

ROOT = Path(__file__).parents[3]


def run(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", *words],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_shows_the_eight_everyday_commands_first(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"\n  {name} ") for name in [*EVERYDAY, *MORE]]
    assert len(EVERYDAY) == 8
    assert places == sorted(places)
    assert text.index("Everyday commands") < text.index("More commands") < text.index("Options")


def test_help_names_every_setting_and_serve_explains_each(capsys):
    main(["--help"])
    short = capsys.readouterr().out
    main(["serve", "--help"])
    whole = capsys.readouterr().out
    for setting in TABLE:
        assert setting.name in short
        assert setting.help in whole
        assert setting.default is None or f"[{setting.default}]" in whole


def test_piped_help_is_not_wrapped(alone):
    lines = run("--help", cwd=alone).stdout.splitlines()
    assert any(line.lstrip().startswith("DATAFAST_API_KEY") and line.endswith("until it is set") for line in lines)


def commands():
    """Every command and sub-command, as words."""
    group = Catalogue()
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (name,), command
        if isinstance(command, click.Group):
            for part in command.list_commands(context):
                yield (name, part), command.commands[part]


@pytest.mark.parametrize(("words", "command"), [pytest.param(w, c, id=" ".join(w)) for w, c in commands()])
def test_each_help_teaches_with_an_example_and_offers_json(words, command, capsys):
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"python -m bridge {words[0]}" in text[text.index("Examples:") :]
    assert "--json" in text
    assert len(command.get_short_help_str(200)) > 20


@pytest.mark.parametrize("line", [["--json", "check"], ["check", "--json"]])
def test_json_may_stand_before_and_behind_the_command(line, capsys, alone):
    (alone / "mappings").mkdir()
    code = main(line)
    assert code in (0, 1)
    assert json.loads(capsys.readouterr().out)["ok"] is (code == 0)


def test_a_mistyped_command_is_wrong_use_and_gets_the_near_one(capsys):
    assert main(["chek"]) == 2
    assert "'check'" in capsys.readouterr().err


def test_no_command_at_all_is_wrong_use_and_shows_the_help(capsys):
    assert main([]) == 2
    assert "Everyday commands" in capsys.readouterr().err


def test_an_unknown_option_is_wrong_use_and_names_the_page_to_read(capsys):
    assert main(["check", "--mapings", "x"]) == 2
    assert "check --help" in capsys.readouterr().err


def test_wrong_settings_stop_serve_with_every_fault_a_line_and_nothing_started(alone):
    done = run("serve", cwd=alone, env={"PORT": "x", "DATAFAST_API_KEY": "sk_live_abcdef", "BRIDGE_WORKER": "no"})
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 3
    assert done.stdout == ""
    assert "sk_live_abcdef" not in done.stderr
    assert list(alone.iterdir()) == []


def test_a_reader_that_leaves_early_sees_no_traceback(alone):
    done = subprocess.run(
        f"{sys.executable} -m bridge --help | head -c 1",
        shell=True,
        cwd=alone,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_help_answers_quickly_because_it_imports_no_command(alone):
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        run("--help", cwd=alone)
        best = min(best, time.perf_counter() - start)
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, bridge.cli; bridge.cli.main(['--help']); print(*sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert not {"sqlalchemy", "pydantic", "flask", "requests", "rich", "yaml"} & set(loaded)
    assert best < 5  # the figure is printed by the benchmark; a loaded machine must not fail the tests
