"""A terminal gets tables and colour, a pipe plain unwrapped lines, and neither an escape sequence from outside."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.cli.screen import Screen

ROOT = Path(__file__).parents[3]
LONG = "word " * 60
ROWS = [("ev_1", "checkout.session.completed", "delivered"), ("ev_2", "x\x1b[2J", "held")]


def screen(*, terminal):
    return Screen(io.StringIO(), io.StringIO(), terminal=terminal)


def test_a_pipe_gets_every_row_and_sentence_on_one_line():
    piped = screen(terminal=False)
    piped.say(LONG)
    piped.facts([("Label", LONG)])
    piped.table(("A", "B", "C"), ROWS)
    assert len(piped.out.getvalue().splitlines()) == 2 + 3
    assert "\x1b" not in piped.out.getvalue()


def test_columns_of_a_piped_table_stand_under_each_other():
    piped = screen(terminal=False)
    piped.table(("EVENT", "TYPE", "STATE"), [("ev_1", "a", "b"), ("ev_1000", "longer", "c")])
    lines = piped.out.getvalue().splitlines()
    assert len({line.index(word) for line, word in zip(lines, ("TYPE", "a", "longer"), strict=True)}) == 1


def test_a_terminal_wraps_long_texts_under_their_beginning(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = screen(terminal=True)
    shown.facts([("Label", LONG)])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.out.getvalue()).splitlines()
    assert len(lines) > 3
    assert all(len(line) <= 80 for line in lines)
    assert all(line.startswith(" " * 9) for line in lines[1:])


@pytest.mark.parametrize("terminal", [True, False])
def test_an_escape_sequence_from_a_webhook_is_spelled_out(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    shown = screen(terminal=terminal)
    shown.table(("A", "B", "C"), ROWS)
    shown.say("\x1b]0;title\x07")
    shown.mark("fail", "\x1b[31mred")
    assert "\\x1b[2J" in shown.out.getvalue()
    assert "\x1b[2J" not in shown.out.getvalue()
    assert "\x07" not in shown.out.getvalue()


def test_square_brackets_are_text_and_not_markup(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    shown = screen(terminal=True)
    shown.say("data.items[0] [bold]")
    assert "data.items[0] [bold]" in shown.out.getvalue()


def test_an_empty_table_is_a_sentence():
    piped = screen(terminal=False)
    piped.table(("A",), [], none="No goal has been made yet.")
    assert piped.out.getvalue() == "No goal has been made yet.\n"


@pytest.mark.parametrize(("as_json", "written"), [(True, '{\n  "goals": 1\n}\n'), (False, "1 goal\nA\n1\n  a  b\n")])
def test_a_script_gets_the_value_alone_and_people_the_words_alone(as_json, written):
    shown = Screen(io.StringIO(), io.StringIO(), as_json=as_json)
    shown.write_json({"goals": 1})
    shown.say("1 goal")
    shown.table(("A",), [("1",)])
    shown.facts([("a", "b")])
    assert shown.out.getvalue() == written


def test_a_refusal_is_sentences_on_stderr_and_with_json_an_answer_too():
    shown = Screen(io.StringIO(), io.StringIO(), as_json=True)
    shown.refuse(["one", "two\x1b"])
    assert shown.err.getvalue() == "one\ntwo\\x1b\n"
    assert '"ok": false' in shown.out.getvalue()


def on_terminal(*words, cwd, width, **environ):
    """What a person sees: the bytes that a command writes to a terminal of this width."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", *words], cwd=cwd, stdin=slave, stdout=slave, stderr=slave, close_fds=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(width), **environ},
    )  # fmt: skip
    os.close(slave)
    seen, end = b"", time.monotonic() + 30
    while time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            try:
                piece = os.read(master, 65_536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
        elif process.poll() is not None:
            break
    os.close(master)
    process.wait(10)
    return seen.decode()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_help_line_is_wider_than_the_terminal(alone, width):
    text = on_terminal("--help", cwd=alone, width=width)
    assert "Everyday commands" in text
    assert max(len(line) for line in text.splitlines()) <= width


def test_colour_is_for_terminals_and_not_when_no_color_is_set(alone):
    line = ("simulate", "--list")
    assert "\x1b[" in on_terminal(*line, cwd=alone, width=120)
    assert "\x1b[3" not in on_terminal(*line, cwd=alone, width=120, NO_COLOR="1")
