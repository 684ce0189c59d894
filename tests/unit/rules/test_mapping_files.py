"""What is read of a folder of mapping files, and what no message says of what stands in them."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_kit import PRESETS

from bridge import rules
from bridge.errors import MappingError
from bridge.rules.reading.strict_yaml import SIZE_MAX

RULE = "provider: stripe\ngoals:\n  - goal: dispute\n    event: charge.dispute.created\n"
MB = 1 << 20


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "stripe.yaml").write_text(RULE)
    return tmp_path


def refusal(folder):
    with pytest.raises(MappingError) as caught:
        rules.read_files(folder)
    return caught.value.problems


def address_space():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_a_file_that_is_too_large_is_refused_before_it_is_read(folder):
    with (folder / "large.yaml").open("wb") as file:
        file.truncate(400 * MB)
    before, peak = address_space(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(folder) == (
        f"{folder}/large.yaml:1:1: the file has 419,430,400 bytes, at most 524,288 are allowed; it was not read",
    )
    assert address_space() - before < 20 * MB
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < 20 * MB


def test_the_largest_file_that_is_allowed_is_read(folder):
    (folder / "a.yaml").write_text("#" * SIZE_MAX)
    assert len(rules.read_files(folder)["a.yaml"]) == SIZE_MAX
    (folder / "a.yaml").write_text("#" * (SIZE_MAX + 1))
    assert "has 524,289 bytes" in refusal(folder)[0]


def test_what_an_editor_or_a_system_leaves_is_no_mapping_file(folder):
    for name in (".stripe.yaml", ".#stripe.yaml", "._stripe.yaml", ".yaml", "stripe.yaml~", "#stripe.yaml#"):
        (folder / name).write_text("x")
    (folder / ".#b.yaml").unlink(missing_ok=True)
    (folder / ".#b.yaml").symlink_to("somebody@host.1234")  # Emacs
    assert rules.read_files(folder) == {"stripe.yaml": RULE}


def test_pipes_devices_folders_and_links_to_nowhere_are_neither_read_nor_waited_for(folder):
    os.mkfifo(folder / "pipe.yaml")
    (folder / "zero.yaml").symlink_to("/dev/zero")
    (folder / "folder.yaml").mkdir()
    (folder / "nowhere.yaml").symlink_to(folder / "no")
    (folder / "itself.yaml").symlink_to(folder / "itself.yaml")
    assert rules.read_files(folder) == {"stripe.yaml": RULE}
    for name in ("pipe.yaml", "zero.yaml", "folder.yaml"):
        with pytest.raises(MappingError, match=r"not an ordinary file|cannot be read"):
            rules.read_file(folder / name)


def test_too_many_files_are_not_even_opened(folder):
    for number in range(500):
        os.mkfifo(folder / f"pipe{number}")
        (folder / f"a{number}.yaml").symlink_to(folder / "stripe.yaml")
    assert refusal(folder) == (f"{folder}: there are 501 mapping files, at most 500 are allowed",)


def test_a_limit_of_open_files_is_named_as_what_it_is(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), hard))  # the lowest number that was free
        os.close(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        of_the_folder = refusal(folder)
        with pytest.raises(MappingError) as caught:
            rules.read_file(folder / "stripe.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limit = "this process has as many files open as it may: raise the limit (`ulimit -n`)"
    assert of_the_folder == (f"{folder}: the folder of mapping files cannot be read ({limit})",)
    assert caught.value.problems == (f"{folder}/stripe.yaml:1:1: the file cannot be read ({limit})",)


PASS = "hunter2Kq9Zx"
WAYS = (
    "*{}", "&{}", "!{}", "!!{}", "!<{}>", "!{}!x", "@{}", "`{}", "%{}", "|{}", ">{}", "'{}", '"{}', '"\\{}"',
    "[{}", "{{{}",
    "[*{}]", "{{*{}: 1}}", "a: {}", "a{}: b", "{}: ", "*{}: x", "&{} x", "- {}", "? {}", "[a, *{}", "x[{}", "x{{{}",
    "{} [", "]{}", "}}{}", "\t{}", "x #: {}: y", "!{} [", "'a'{}", '"a"{}', "[a]{}", "&a{} *b{}",
    "{{{}: 1, {}: 2}}", "[[{}: *x]", "*{}*", "<<: *{}", "--- {}", "... {}", "{}\n{}: [", "|2{}", "!{}{{}}",
    "${{{}}}", "'${{{}}}'", "${{{}", "whsec_{}: 1",
)  # fmt: skip
PLACES = (
    "secret: {}", "secret:\n  {}", "secret:\n  - {}", "secret:\n- {}", "secret: [{}]", "secret: [a,\n{}]",
    "secret: [a,\n  {}]",
    "secret: >\n  {}", '"secret": {}', "? secret\n: {}", "require:\n  header.x-token: {}", "require: {{a: {}}}",
    "datafast: {{name: x, api_key: {}}}", "datafast:\n  name: x\n  api_key: {}", "verify:\n  type: token\n  secret: {}",
    "secret:\n  a:\n    b: {}", "Secret: {}", "secrets: {}", "secret : {}", "secret: {}\nsecret: {}",
)  # fmt: skip


def told(text):
    """Everything that is said of a file with this at its beginning, in its middle, and at its end."""
    for whole in (f"{text}\n{RULE}", f"provider: stripe\n{text}\ngoals: []\n", f"{RULE}{text}", f"{RULE}{text}\n"):
        try:
            found = rules.load({"stripe.yaml": whole}, {}, PRESETS)
        except MappingError as error:
            yield whole, error.problems
        else:
            yield whole, (*found.warnings, *found.problems)


def parts(secret):
    return {secret[at : at + 4] for at in range(len(secret) - 3)}


@pytest.mark.parametrize(
    "place",
    [pytest.param(place, marks=[pytest.mark.long] * (number % 4 > 0)) for number, place in enumerate(PLACES)],
    ids=range(len(PLACES)),
)
def test_no_part_of_a_secret_stands_in_a_message(place):
    for way in WAYS:
        for text, sentences in told(place.format(*[way.replace("{}", PASS).replace("{{", "{").replace("}}", "}")] * 2)):
            shown = [sentence for sentence in sentences if any(part in sentence for part in parts(PASS))]
            assert shown == [], text


@pytest.mark.long
@given(st.text(alphabet="*&!|>%@`'\"[]{},:#-? \n\\", max_size=6), st.text(alphabet="*&!|>'\"[]{},:# \n\\", max_size=4))
@settings(max_examples=150)
def test_no_part_of_a_secret_stands_in_a_message_whatever_is_around_it(before, behind):
    behind = behind.replace("\n", "")
    for text, sentences in told(f"secret: {before}{PASS}{behind}"):
        if text.splitlines() and "\n" in before and not before.endswith("\n "):
            continue  # what begins a line of its own, at its very left, is no part of the secret to anybody
        assert not any(part in sentence for part in parts(PASS) for sentence in sentences), text
