"""Nothing that a person can set, type, ask or see in a log is missing from the docs."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import click
import pytest
from docs_kit import ROOT

from bridge import app, web
from bridge import settings as table
from bridge.store.operator.status import Snapshot, SourceState, Totals
from bridge.web import metrics
from docs import generate

SETTINGS = (ROOT / "docs/settings.md").read_text()
COMMANDS = (ROOT / "docs/commands.md").read_text()
HTTP = (ROOT / "docs/http.md").read_text()
CODE = sorted((ROOT / "bridge").rglob("*.py"))


@pytest.mark.parametrize("page", sorted(generate.pages()))
def test_a_generated_page_is_as_the_code_writes_it(page):
    assert (ROOT / page).read_text() == generate.pages()[page](), "run `make docs`"


def test_every_setting_is_documented_with_its_default():
    for setting in table.TABLE:
        default = "unset" if setting.default is None else f"`{setting.default}`"
        assert f"| `{setting.name}` | {default} | " in SETTINGS


def test_the_example_of_an_env_file_has_every_everyday_setting_and_no_value_that_is_wrong():
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line[1:].split("=", 1) for line in lines if re.match(r"#[A-Z_]+=", line))
    assert {setting.name for setting in table.TABLE if setting.group == "everyday"} <= set(given)
    assert replace(table.load(given), environ={}) == replace(table.load({}), environ={}), "its values are the defaults"
    for number, line in enumerate(lines):
        if re.match(r"#[A-Z_]+=", line):
            assert lines[number - 1].startswith("#"), f"{line} has no comment"


_READ = re.compile(r"""(?:environ|given)(?:\.get\(|\[)["']([A-Z_]+)["']""")
_OF_A_REQUEST = re.compile(r"(HTTP|SERVER|CONTENT|PATH|QUERY|RAW|REQUEST|REMOTE|SCRIPT)_|wsgi\.")


def test_no_variable_is_read_that_is_neither_a_setting_nor_named_on_the_page_of_settings():
    names = {name for file in CODE for name in _READ.findall(file.read_text()) if not _OF_A_REQUEST.match(name)}
    assert "DYNO" in names
    assert [name for name in sorted(names) if f"`{name}" not in SETTINGS] == []


def test_every_command_and_every_option_is_documented():
    for name, command in generate.every_command().items():
        assert f"# `{name}`" in COMMANDS
        part = COMMANDS.split(f"# `{name}`\n")[1].split("\n#")[0]
        for param in command.params:
            if isinstance(param, click.Option) and param.opts != ["--json"]:
                assert f"| `{param.opts[0]}" in part, f"{name} {param.opts[0]}"


def test_every_route_is_documented(sqlite_url):
    given = {"DATABASE_URL": sqlite_url, "BRIDGE_MAPPINGS": str(ROOT / "mappings")}
    bridge = app.build(table.load(given), worker=False)
    try:
        rules = list(web.create(bridge).url_map.iter_rules())
    finally:
        bridge.stop()
    assert len(rules) >= 7
    for rule in rules:
        method = "POST" if rule.rule.startswith("/links") else "GET"
        assert f"| `{method} {rule.rule}` |" in HTTP
    assert "| `POST /webhooks/<source>` |" in HTTP


def calls(file, *names):
    """The calls of these functions in a file, by the last word of their names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) in names:
            yield node


def test_every_alarm_is_documented_by_its_sentence():
    files = (ROOT / "bridge/alarms.py", ROOT / "bridge/web/health.py")
    sentences = [call.args[1].value for file in files for call in calls(file, "Alarm")]
    assert len(sentences) >= 9
    assert [sentence for sentence in sentences if f"| {sentence} |" not in HTTP] == []


def test_every_metric_is_documented():
    look = Snapshot(0, {"default": 0}, None, 0, 0, (), (SourceState("s", 1, 1, 1, 0, None, None, None),), ())
    names = re.findall(r"^# TYPE (\w+)", metrics.render(Totals({}, {}, {}), look).decode(), re.MULTILINE)
    assert len(names) >= 12
    assert [name for name in names if f"| `{name}` |" not in HTTP] == []


def test_every_log_line_is_documented_by_its_name():
    names = set()
    for file in CODE:
        for call in calls(file, "info", "warning", "error"):
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in ("log", "logs.get('serve')"):
                names.add(call.args[0].value)
    assert {"attempt", "rules.reloaded", "listening"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in HTTP] == []
