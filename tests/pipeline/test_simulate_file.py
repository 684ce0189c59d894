"""`simulate --file`: a body of one's own, signed for a source of one's own, becomes a goal."""

from __future__ import annotations

import json
from functools import partial

import pytest
from running import environment, eventually

SECRET = "tally_secret_nobody_sees"
MAPPING = """provider: tally
secret: ${TALLY_WEBHOOK_SECRET}
visitor: "data.hiddenFields.datafast_visitor_id"
goals:
  - goal: lead
    event: FORM_RESPONSE
    metadata: {form: "{data.formName}"}
"""
BODY = {
    "eventId": "e-1",
    "eventType": "FORM_RESPONSE",
    "createdAt": "2026-01-01T00:00:00Z",
    "data": {
        "formName": "Demo",
        "hiddenFields": {"datafast_visitor_id": "00000000-0000-4000-8000-000000000001"},
    },
}


@pytest.fixture
def simulate(machine, monkeypatch, command):
    """`simulate` in the folder of the machine."""
    monkeypatch.chdir(machine.folder)
    return partial(command, "simulate")


def test_a_file_is_signed_posted_and_becomes_a_goal_and_its_repetition_a_duplicate(machine, simulate, sqlite_url):
    datafast = machine.datafast()
    folder = machine.folder / "own"
    folder.mkdir()
    (folder / "tally.yaml").write_text(MAPPING)
    (machine.folder / "event.json").write_text(json.dumps(BODY))
    environ = environment(datafast, sqlite_url, BRIDGE_MAPPINGS=str(folder), TALLY_WEBHOOK_SECRET=SECRET)
    web = machine.web(environ)
    port = web.url.rsplit(":", 1)[1]
    line = ("--file", "event.json", "--source", "tally", "--set", "createdAt=null")
    assert simulate(*line, **environ, PORT=port) == (0, "ok    FORM_RESPONSE e-1: 200 accepted\n")
    eventually(datafast.goals, what="the goal is sent")
    assert [(goal["name"], goal["metadata"]["form"]) for goal in datafast.goals()] == [("lead", "Demo")]
    code, told = simulate(*line, "--to", web.url)
    assert (code, "200 duplicate" in told) == (0, True)


def test_what_is_missing_is_one_sentence(machine, simulate, tmp_path):
    folder = machine.folder / "own"
    folder.mkdir()
    (folder / "tally.yaml").write_text(MAPPING)
    (machine.folder / "event.json").write_text("{}")
    environ = {"BRIDGE_MAPPINGS": str(folder), "DATABASE_URL": f"sqlite:///{tmp_path / 'none.db'}"}

    def said(*words):
        code, told = simulate(*words, **environ)
        assert code == 2, told
        return told

    assert said("--file", "event.json", "--source", "tally") == (
        "To sign for tally, set TALLY_WEBHOOK_SECRET to what the bridge has.\n"
    )
    assert "There is no source 'other'" in said("--file", "event.json", "--source", "other")
    assert said("--file", "none.json", "--source", "tally").startswith("none.json: ")
    assert "or a file: --file event.json" in said()
