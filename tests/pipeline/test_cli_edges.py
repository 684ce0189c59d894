"""Real processes at the edges of a terminal: closed, full and broken streams, another locale, no width, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAPPING = "provider: stripe\ngoals:\n  - {goal: refund, event: charge.refunded}\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "stripe.yaml").write_text(MAPPING)
    return tmp_path


def environ(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **more}


def shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `bridge` is the program."""
    whole = f'bridge() {{ "{sys.executable}" -m bridge "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", whole], cwd=folder, env=environ(**more), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        pytest.param("bridge check >&-", 0, marks=pytest.mark.long),
        pytest.param("bridge check 2>&-", 0, marks=pytest.mark.long),
        ("bridge events >&- 2>&- <&-", 1),
        pytest.param("bridge check none.yaml >&-", 1, marks=pytest.mark.long),
        pytest.param("bridge chek 2>&-", 2, marks=pytest.mark.long),
    ],
)
def test_a_closed_stream_changes_no_exit_code(line, code, folder):
    done = shell(line, folder)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.long
def test_with_closed_streams_the_database_does_not_become_one_of_them(folder):
    assert shell("bridge migrate >&- 2>&- <&-", folder).returncode == 0
    with closing(sqlite3.connect(folder / "bridge.db")) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert "No event has been received yet." in shell("bridge events", folder).stdout


@pytest.mark.parametrize("line", ["bridge check", pytest.param("bridge --version", marks=pytest.mark.long)])
@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.long)])
def test_a_full_disk_behind_stdout_is_a_sentence(line, unbuffered, folder):
    done = shell(f"{line} > /dev/full", folder, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == "The answer cannot be written: no space left on device.\n"
    assert shell(f"{line} > /dev/full 2> /dev/full", folder, PYTHONUNBUFFERED=unbuffered).returncode == 1


@pytest.mark.long
def test_a_reader_of_errors_that_has_gone_is_no_traceback(folder):
    done = shell("bridge events 2>&1 >/dev/null | true; echo ${PIPESTATUS[0]}", folder)
    assert (done.stdout, done.stderr) == ("1\n", "")


LOCALES = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"},
]


every_locale = pytest.mark.parametrize(
    "locale", [LOCALES[0], pytest.param(LOCALES[1], marks=pytest.mark.long)], ids=["ascii", "latin-1"]
)


@pytest.mark.long
@every_locale
def test_another_locale_changes_letters_alone(locale, folder):
    (folder / "mappings" / "größe.yaml").write_text(MAPPING)  # no name of a source, and not to be spelled in ASCII
    done = shell("bridge check", folder, **locale)
    assert done.returncode == 1
    assert "the name of the file is in its URL" in done.stdout
    told = shell("bridge check --json", folder, **locale)
    assert json.loads(told.stdout)["ok"] is False


@every_locale
@pytest.mark.parametrize(
    "line",
    [
        "bridge why größe",
        *(
            pytest.param(f"bridge {words}", marks=pytest.mark.long)
            for words in ("--help", "serve --help", "check größe")
        ),
    ],
)
def test_no_letter_is_an_error_of_the_bridge_in_another_locale(locale, line, folder):
    done = shell(line, folder, **locale)
    assert "Traceback" not in done.stdout + done.stderr
    assert "error of the bridge itself" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("columns", ["1", *(pytest.param(one, marks=pytest.mark.long) for one in ("x", "", "9" * 30))])
def test_a_width_that_is_none_changes_nothing_but_where_lines_end(columns, folder):
    line = f'script -qec "{sys.executable} -m bridge check" /dev/null'
    done = shell(line, folder, COLUMNS=columns, TERM="", NO_COLOR="1")
    assert "2 warnings." in done.stdout
    assert "error of the bridge itself" not in done.stdout


def interrupt(process):
    """Python hears a signal that comes just before a read begins only when the read ends: a person presses again."""
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
            return


def test_ctrl_c_ends_a_command_with_130_and_a_sentence(folder):
    os.mkfifo(folder / "event.json")
    command = [sys.executable, "-m", "bridge", "explain", "event.json"]
    process = subprocess.Popen(command, cwd=folder, env=environ(), stderr=subprocess.PIPE, text=True)
    with (folder / "event.json").open("wb"):  # returns when the command reads
        interrupt(process)
    _, told = process.communicate()
    assert process.returncode == 130
    assert told.strip() == "Stopped; nothing more was done."


@pytest.mark.parametrize(
    "command", ["serve", *(pytest.param(one, marks=pytest.mark.long) for one in ("check", "worker", "doctor"))]
)
def test_a_dot_env_that_is_no_text_is_a_sentence(command, folder):
    (folder / ".env").write_bytes(b"PORT=\xff\n")
    done = shell(f"bridge {command}", folder)
    assert (done.returncode, done.stderr) == (1, ".env is not UTF-8: save it as UTF-8, or remove it\n")
