"""Files and arguments that no command can take: one sentence, never an error of the bridge itself."""

from __future__ import annotations

import json

import pytest

from bridge.cli import main, simulate
from bridge.rules import load
from bridge.sources import presets

FILES = {
    "kofi.yaml": "provider: kofi\nvisitor: message\ngoals:\n  - {goal: donation, event: Donation}\n",
    "gumroad.yaml": 'provider: gumroad\ngoals:\n  - {goal: sale, event: sale, metadata: {size: "{variants.Size}"}}\n',
}


@pytest.fixture
def bridge(tmp_path, monkeypatch, capsys):
    (tmp_path / "mappings").mkdir()
    for name, text in FILES.items():
        (tmp_path / "mappings" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'bridge.db'}")
    monkeypatch.setenv("KOFI_WEBHOOK_SECRET", "a-token-of-kofi")
    monkeypatch.setenv("GUMROAD_WEBHOOK_SECRET", "a-token-of-gumroad")

    def run(*words, file=None):
        if file is not None:
            (tmp_path / "event").write_bytes(file)
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.mark.parametrize("body", [b"\xff\xfe", b"", b"[1]", b"{", b'{"a": "\xff"}'])
def test_a_file_that_cannot_carry_its_token_is_one_sentence(bridge, body):
    code, said = bridge("simulate", "--file", "event", "--source", "kofi", "--to", "http://127.0.0.1:9", file=body)
    assert (code, said) == (2, "kofi has its token in its JSON, and the file is not a JSON object.\n")


@pytest.mark.parametrize("words", [("why",), ("events", "show"), ("links", "show"), ("goals", "list", "--name")])
def test_bytes_that_are_not_utf_8_are_one_sentence(bridge, words):
    assert bridge("migrate")[0] == 0
    code, said = bridge(*words, "\udcff")
    assert (code, said) == (2, "Something on this line is not UTF-8, so nothing has that name.\n")


@pytest.mark.parametrize(("option", "name"), [("--shuffle", "shuffle"), ("--test", "test"), ("--seed=3", "seed")])
def test_what_a_file_cannot_be_told_is_said(bridge, option, name):
    code, said = bridge("simulate", "--file", "event", "--source", "kofi", option, file=b"{}")
    assert (code, said) == (2, f"--{name} is for scenarios; a file is posted as it is.\n")


def test_a_scenario_and_a_file_are_not_both(bridge):
    code, said = bridge("simulate", "stripe-refund", "--file", "event", file=b"{}")
    assert (code, said.endswith("Not both.\n")) == (2, True)


def test_json_is_explained_as_the_form_that_its_sender_makes_of_it(bridge):
    event = {"type": "Donation", "message_id": "m1", "amount": "3.00", "currency": "USD"}
    code, said = bridge("--json", "explain", "event", "--source", "kofi", file=json.dumps(event).encode())
    found = json.loads(said)
    assert (code, [goal["request"]["name"] for goal in found["goals"]]) == (0, ["donation"])
    sale = {"resource_name": "sale", "sale_id": "s1", "seller_id": "s", "variants": {"Size": "L"}, "test": False}
    code, said = bridge("--json", "explain", "event", "--source", "gumroad", file=json.dumps(sale).encode())
    found = json.loads(said)
    assert (code, found["goals"][0]["request"]["metadata"]) == (0, {"size": "L"})


def test_nested_fields_of_a_form_are_sent_as_its_sender_does():
    source = load({"gumroad.yaml": FILES["gumroad.yaml"]}, {}, presets()).sources["gumroad"]
    sent = simulate._body(source, b'{"variants": {"Size": "L"}, "test": false}', [])
    assert sent == b"variants%5BSize%5D=L&test=false"


def test_a_rule_that_has_kept_no_goal_is_named(bridge):
    assert bridge("migrate")[0] == 0
    code, said = bridge("goals", "send", "--rule", "nope", "--source", "kofi", "--yes")
    assert (code, said.startswith("No goal of the rule nope of kofi is kept; ")) == (1, True)
