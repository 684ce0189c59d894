"""`sources`: how a webhook is set up, and the first message of a source without a secret, on a terminal only."""

from __future__ import annotations

import json
import os
import pty
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from bridge import store as bridge_store
from bridge.cli import main
from bridge.store.inbox.first_messages import FirstMessages

RULE = "goals:\n  - {goal: a, event: b}\n"
TOKEN = "secret_of_the_first_message_0123456789"


@pytest.fixture
def files(alone):
    (alone / "mappings").mkdir()

    def write(**said):
        for name, provider in said.items():
            (alone / "mappings" / f"{name}.yaml").write_text(f"provider: {provider}\n{RULE}")
        return alone

    return write


def keep(folder, source="notion", token=TOKEN, sender="192.0.2.7 by 10.0.0.1"):
    database = bridge_store.open(f"sqlite:///{folder / 'bridge.db'}")
    bridge_store.migrate(database)
    kept = FirstMessages()
    kept.keep(source, token, sender)
    kept.flush(database)
    database.close()


def all_of(master):
    """What is written to a terminal until its other side is closed."""
    told = b""
    with suppress(OSError), os.fdopen(master, "rb", buffering=0) as terminal:  # Linux: EIO when it is closed
        while more := terminal.read(65536):
            told += more
    return told.decode().replace("\r\n", "\n")


@pytest.fixture
def on_a_terminal(monkeypatch):
    """What a command writes to a terminal of 80 columns."""

    def run(*words, **environ):
        master, slave = pty.openpty()
        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as beside:
            for name, value in {"COLUMNS": "80", "TERM": "dumb", **environ}.items():
                patch.setenv(name, value)
            told = beside.submit(all_of, master)
            with os.fdopen(slave, "w") as terminal:
                patch.setattr(sys, "stdout", terminal)
                patch.setattr(sys, "stderr", terminal)
                assert main(words) == 0
            return told.result()

    return run


def test_a_first_message_is_shown_on_a_terminal_with_its_age_and_sender(files, on_a_terminal):
    keep(files(notion="notion"))
    told = on_a_terminal("sources", "notion")
    assert f"    {TOKEN}\n" in told
    assert "from 192.0.2.7 by 10.0.0.1" in told
    assert " ago" in told or "now" in told
    assert "compare it with Notion's page" in told


def test_it_is_not_shown_to_a_pipe_nor_as_json(files, capsys):
    keep(files(notion="notion"))
    for words in (["sources"], ["sources", "notion"], ["sources", "--json"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert TOKEN not in out
        assert "on a terminal" in out


def test_it_is_not_shown_once_there_is_a_secret_or_for_another_source(files, on_a_terminal):
    keep(files(notion="notion", other="notion"))
    assert TOKEN not in on_a_terminal("sources", "other")
    assert TOKEN not in on_a_terminal("sources", "--json")
    assert TOKEN not in on_a_terminal("sources", NOTION_WEBHOOK_SECRET="secret_that_is_set")


def test_what_a_stranger_sent_cannot_move_the_cursor(files, on_a_terminal):
    keep(files(notion="notion"), token="secret_\x1b[2J", sender="\x1b]0;x\x07")
    told = on_a_terminal("sources", "notion")
    assert "\x1b[2J" not in told
    assert "\x1b]0;" not in told


def test_without_a_message_or_a_database_it_says_what_to_do(files, on_a_terminal):
    folder = files(notion="notion")
    assert "There is no database" in " ".join(on_a_terminal("sources").split())
    keep(folder, "another")
    assert "None within the last hour. Have Notion send it" in " ".join(on_a_terminal("sources").split())


def test_sources_that_have_no_first_message_need_no_database(files, on_a_terminal):
    files(slack="slack", stripe="stripe")
    told = on_a_terminal("sources")
    assert "database" not in told
    assert "First message" not in told


def steps(capsys, name):
    assert main(["sources", "--json", name]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    return one, dict(one["set_up"])


def test_with_a_secret_sources_says_how_notions_token_can_be_read(files, capsys, monkeypatch):
    files(notion="notion")
    monkeypatch.setenv("NOTION_WEBHOOK_SECRET", "not-known-yet-0123456789")
    said = steps(capsys, "notion")[1]["Secret from"]
    assert "unset NOTION_WEBHOOK_SECRET" in said
    assert "have Notion send it again" in said
    assert "python -m bridge sources notion" in said
    assert main(["sources", "notion"]) == 0
    assert "Secret from" in "".join(capsys.readouterr().out.splitlines()[:6])


def test_a_verify_token_is_set_or_missing_and_never_shown(files, capsys, monkeypatch):
    files(meta="meta")
    assert "missing: set META_VERIFY_TOKEN" in steps(capsys, "meta")[1]["Verify token"]
    monkeypatch.setenv("META_VERIFY_TOKEN", "never-to-be-told")
    one, said = steps(capsys, "meta")
    assert said["Verify token"].startswith("set (META_VERIFY_TOKEN)")
    assert "never-to-be-told" not in json.dumps(one)


@pytest.mark.parametrize(
    ("provider", "later", "get"),
    [
        ("slack", True, "405 and a sentence"),
        ("zoom", True, "405 and a sentence"),
        ("twitter", True, "405 and a sentence"),
        ("dropbox", False, "405 and a sentence"),
        ("trello", False, "405 and a sentence"),
        ("mailchimp", False, "200"),
    ],
)
def test_sources_says_which_check_is_answered_and_when(files, capsys, monkeypatch, provider, later, get):
    files(x=provider)
    one, said = steps(capsys, "x")
    assert ("once the secret is set" in said["Set-up"]) is later
    assert one["get_answers"] == get
    monkeypatch.setenv("X_WEBHOOK_SECRET", "a_secret_of_some_length")
    assert "once the secret is set" not in steps(capsys, "x")[1]["Set-up"]


def test_a_preset_that_cannot_be_set_up_is_marked_by_sources_and_check(files, capsys):
    files(coinbase="coinbase-commerce")
    assert main(["sources"]) == 0
    assert "Warning  it cannot be set up: Coinbase Commerce was shut down" in capsys.readouterr().out
    assert main(["check"]) == 0
    assert "coinbase-commerce cannot be set up: Coinbase Commerce was shut down" in capsys.readouterr().out
    files(stripe="stripe")
    assert steps(capsys, "stripe")[0]["cannot_be_set_up"] is None
