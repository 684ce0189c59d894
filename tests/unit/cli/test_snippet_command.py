"""`snippet` at the terminal: HTML to paste, a file with its tag, the bridge's own copy, and names that are wrong."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re

import pytest

from bridge import snippet
from bridge.cli import main
from bridge.errors import UsageError
from bridge.presets import presets


def run(capsys, *words, code=0):
    assert main(["snippet", *words]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def hash_of(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_what_is_printed_is_html_whose_script_has_the_hash_that_is_told(capsys):
    out = run(capsys, "--for", "stripe,calcom,tally")
    assert out == snippet.inline(["stripe", "calcom", "tally"])
    (script,) = re.findall(r"<script>(.*)</script>", out, re.DOTALL)
    assert re.findall(r"'(sha256-[^']+)'", out) == [hash_of(script)]
    comment = out.partition("<script>")[0]
    assert max(map(len, comment.splitlines())) <= 80
    assert comment.startswith("<!-- ")
    assert comment.endswith(" -->\n")
    assert "<" not in comment[4:]


def test_the_same_tools_give_the_same_bytes_however_they_are_written(capsys):
    out = run(capsys, "--for", "stripe,calcom")
    assert run(capsys, "--for", " Cal.com , STRIPE,stripe,") == out
    assert "calendly" not in out
    assert run(capsys) == snippet.inline(snippet.TOOLS)


def test_the_script_for_all_tools_is_small_and_can_stand_inside_html():
    code = snippet.script()
    assert len(gzip.compress(code.encode(), mtime=0)) <= 4096
    assert "//" not in code.replace("://", "")
    assert not re.search(r"</script|<!--", code, re.IGNORECASE)
    assert code.isascii()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("strpe", 'The snippet has no tool "strpe"; did you mean "stripe"?\n'),
        ("stripe,tallly", 'The snippet has no tool "tallly"; did you mean "tally"?\n'),
        ("clerk", f'The snippet has no tool "clerk"; known are {", ".join(sorted(snippet.TOOLS))}\n'),
        (",", f"The snippet needs at least one tool; known are {', '.join(sorted(snippet.TOOLS))}\n"),
    ],
)
def test_an_unknown_tool_is_a_sentence_with_the_nearest_one(capsys, given, sentence):
    assert run(capsys, "--for", given, code=2) == sentence


def test_a_caller_hears_the_same():
    with pytest.raises(UsageError, match='did you mean "stripe"'):
        snippet.inline(["strype"])


@pytest.mark.parametrize("out", ["public/", "public/visitor.js"])
def test_a_file_is_written_with_the_tag_that_loads_it(alone, capsys, out):
    said = run(capsys, "--for", "polar", "--out", out)
    (file,) = (alone / "public").iterdir()
    assert file.read_text() == snippet.script(["polar"])
    assert file.name == (snippet.file_name(file.read_text()) if out == "public/" else "visitor.js")
    assert f'src="/{file.name}"' in said
    assert f'integrity="{hash_of(file.read_text())}"' in said
    assert max(map(len, said.splitlines())) <= 100
    assert run(capsys, "--for", "polar", "--out", out) == said, "a second time is no harm"


def test_a_file_that_cannot_be_written_is_a_sentence(alone, capsys):
    (alone / "public").write_text("a file")
    assert run(capsys, "--out", "public/", code=1).startswith("public/bridge.")


def test_the_tag_of_the_bridges_own_copy_names_a_file_that_it_serves(capsys):
    said = run(capsys, "--base-url", "https://hooks.example.com/")
    (name,) = re.findall(r'src="https://hooks\.example\.com/([^"/]+)"', said)
    assert f'integrity="{hash_of(snippet.hosted()[name].decode())}"' in said
    assert "--base-url" in run(capsys, "--base-url", "https://h.example", "--for", "stripe", code=2)


def test_scripts_get_the_parts(alone, capsys):
    told = json.loads(run(capsys, "--for", "stripe", "--json"))
    assert told == {
        "tools": ["stripe"],
        "script": snippet.script(["stripe"]),
        "csp": hash_of(snippet.script(["stripe"])),
        "html": snippet.inline(["stripe"]),
    }
    told = json.loads(run(capsys, "--for", "stripe", "--out", "public", "--json"))
    assert (alone / told["file"]).read_text() == snippet.script(["stripe"])
    assert told["integrity"] == hash_of(snippet.script(["stripe"]))


@pytest.mark.parametrize("tool", snippet.TOOLS)
def test_what_a_tool_carries_comes_back_where_its_preset_looks(tool):
    known = snippet.TOOLS[tool]
    fields = {re.findall(r"\w+", key)[-1].removeprefix("metadata_") for key in known["keys"]}
    places = " ".join(presets()[tool].get("borrowed" if "prefix" in known else "visitor", ()))
    assert [field for field in fields if not re.search(rf"\b{field}\b", places)] == []
