"""The ten goals of the guide, each a layer of at most six lines: signed, received, routed, and sent to the sandbox."""

from __future__ import annotations

import json
import re
import time

import pytest
from docs_kit import ROOT, blocks
from running import environment, eventually
from sources_kit import request, secret_for

from bridge import rules, sources
from bridge.rules.reading.strict_yaml import parse
from bridge.sandbox import sign
from bridge.text import text_of

VISITOR = "00000000-0000-4000-8000-000000000001"
SECTION = "### Ten goals, each in six lines"


def the_ten():
    """(name of the source, the file, its plain tree) of each block."""
    guide = ROOT / "docs/rules.md"
    wanted = guide.read_text("utf-8").split(SECTION, 1)[1].split("\n## ", 1)[0]
    listed = blocks("yaml", pages=[guide])
    found = [block.text for block in listed if block.text in wanted and block.text.startswith("extends: ")]
    plain = [parse(text)[0].plain() for text in found]
    return [(f"{each['extends']}-{n}", text, each) for n, (text, each) in enumerate(zip(found, plain, strict=True))]


TEN = the_ten()


def test_there_are_ten_of_at_most_six_lines():
    assert len(TEN) == 10
    assert max(len(text.split("\ntests:")[0].strip().splitlines()) for _, text, _ in TEN) <= 6


@pytest.fixture
def secrets():
    files = {f"{name}.yaml": text for name, text, _ in TEN}
    rule_set = rules.load(files, {}, sources.presets())
    found = {name: secret_for(source.verify) for name, source in rule_set.sources.items()}
    return rule_set, {name: f"{secret}{'' if '_' in secret else name}" for name, secret in found.items()}


def signed(source, secret, event, number):
    body = json.dumps(event).encode()
    bare = request(body, {"content-type": "application/json"}, url=f"https://x/webhooks/{source.name}")
    return sign.by_scheme(source.verify, bare, secret, f"msg_{number}", int(time.time()))


def test_they_are_sent(machine, secrets):
    rule_set, keys = secrets
    folder = machine.folder / "own"
    folder.mkdir()
    for name, text, _ in TEN:
        (folder / f"{name}.yaml").write_text(text)
    given = {f"{name.upper().replace('-', '_')}_WEBHOOK_SECRET": secret for name, secret in keys.items()}
    datafast = machine.datafast()
    web = machine.web(environment(datafast, f"sqlite:///{machine.folder / 'bridge.db'}", folder, **given))
    expected = []
    for number, (name, _, file) in enumerate(TEN):
        test = file["tests"][0]
        sent = signed(rule_set.sources[name], keys[name], {"id": f"evt_{number}", **test["event"]}, number)
        answer = web.post(name, sent.body, sent.headers)
        assert (answer.status_code, answer.json()) == (200, {"status": "accepted"}), name
        (goal,) = test["goals"]
        expected.append((goal["goal"], VISITOR, {key: text_of(value) for key, value in goal["metadata"].items()}))

    def missing():
        there = [(goal["name"], goal["visitor"], goal["metadata"]) for goal in datafast.goals()]
        return [goal for goal in expected if goal not in there]

    eventually(lambda: not missing(), what="ten goals")
    names = [goal["name"] for goal in datafast.goals()]
    assert {name: names.count(name) for name, _, _ in expected if name != "purchase"} == dict.fromkeys(
        (name for name, _, _ in expected if name != "purchase"), 1
    )
    assert re.findall("error|critical", web.log) == []
