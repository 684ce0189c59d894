"""What is no database at the path of DATABASE_URL: one sentence and exit code 1, whatever command meets it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from running import ROOT

from bridge.cli import main

COMMANDS = (
    "serve", "worker", "migrate", "check", "why evt_1", "events list", "events show ev_1", "events replay ev_1 --yes",
    "goals list", "goals retry goal_1", "links show cus_1", "forget --customer cus_1 --yes", "restored --yes",
)  # fmt: skip


def text(file, _whole):
    file.write_text("these are my notes\n" * 400)


def little_text(file, _whole):
    file.write_text("x")


def zeros(file, _whole):
    file.write_bytes(bytes(4096))


def noise(file, _whole):
    file.write_bytes(random.Random(11).randbytes(8192))


def cut_off(file, whole):
    file.write_bytes(whole[:50])


def only_the_magic(file, whole):
    file.write_bytes(whole[:16])


def folder(file, _whole):
    file.mkdir()


def pipe(file, _whole):
    os.mkfifo(file)


def device(file, _whole):
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "rubbish",
    [
        text,
        cut_off,
        device,
        *(
            pytest.param(one, marks=pytest.mark.long)
            for one in (little_text, zeros, noise, only_the_magic, folder, pipe)
        ),
    ],
    ids=lambda one: one.__name__,
)
def test_every_command_says_one_sentence_of_what_is_no_database(
    rubbish, tmp_path, sqlite_template, monkeypatch, capsys
):
    file = tmp_path / "bridge.db"
    rubbish(file, Path(sqlite_template).read_bytes())
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{file}")
    monkeypatch.setenv("BRIDGE_MAPPINGS", str(ROOT / "mappings"))
    monkeypatch.setenv("DATAFAST_API_KEY", "df_x")
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        assert main(command.split()) == 1, command
        told = capsys.readouterr()
        said = [line for line in (told.out + told.err).splitlines() if str(file) in line]
        assert len(said) == 1, command
        assert said[0].removeprefix("✗ ").startswith("DATABASE_URL: "), command
        assert "Traceback" not in told.err, command


def test_a_damaged_database_is_a_sentence_too(tmp_path, sqlite_template, monkeypatch, capsys):
    file = tmp_path / "bridge.db"
    whole = Path(sqlite_template).read_bytes()
    file.write_bytes(whole[:100] + random.Random(12).randbytes(len(whole) - 100))
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{file}")
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        if command != "check":  # which opens no database
            assert main(command.split()) == 1, command
            told = capsys.readouterr()
            assert "malformed" in told.err, command
            assert "Traceback" not in told.err, command
            assert "error of the bridge itself" not in told.err, command


@pytest.mark.parametrize("command", ["doctor", "why evt_1", "goals list"])
def test_a_file_that_went_away_under_its_log_is_not_begun_anew(command, tmp_path, monkeypatch, capsys):
    """To follow "create it with migrate" would make an empty database beside what can still be saved."""
    (tmp_path / "bridge.db-wal").write_bytes(b"what was not moved into the file yet")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/bridge.db")
    monkeypatch.setenv("BRIDGE_MAPPINGS", str(ROOT / "mappings"))
    assert main(command.split()) == 1
    told = " ".join("".join(capsys.readouterr()).split())
    assert "Do not stop the bridge yet" in told
    assert "create it with" not in told
    assert [file.name for file in tmp_path.iterdir()] == ["bridge.db-wal"]
