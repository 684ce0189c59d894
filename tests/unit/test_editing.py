"""A mapping file while it is edited: what may be shown, the patch that git takes, and saving it whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest
from docs_kit import ROOT

from bridge.errors import EditRefused, FileChanged
from bridge.workbench import editing

PLAIN = "provider: custom\ngoals: []\n"
CONTENTS = {
    "plain": PLAIN.encode(),
    "crlf": PLAIN.replace("\n", "\r\n").encode(),
    "bom": b"\xef\xbb\xbf" + PLAIN.encode(),
    "open end": PLAIN.rstrip("\n").encode(),
    "letters": "provider: custom # é \u2028 \x0c \u202e\ngoals: []\n".encode(),
    "empty": b"",
    "first line empty": b"\n\nprovider: custom\n",
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "mappings"
    made.mkdir()
    return made


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def as_sent(text):
    """What a browser sends of a textarea."""
    return text.replace("\n", "\r\n")


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_not_changed_is_not_changed(folder, kind):
    (folder / "a.yaml").write_bytes(CONTENTS[kind])
    stored = editing.read(folder, "a.yaml")
    assert "\r" not in stored.text
    assert stored.encoded(as_sent(stored.text)) == CONTENTS[kind]
    assert editing.patch(folder, stored, as_sent(stored.text)) == ""
    assert not editing.save(folder, stored, as_sent(stored.text))


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("end", ["", "\n", "x: 1", "x: 1\n"])
def test_git_applies_the_patch(folder, kind, end):
    (folder / "a.yaml").write_bytes(CONTENTS[kind])
    stored = editing.read(folder, "a.yaml")
    text = f"# above\n{stored.text.rstrip()}\n{end}"
    apply(folder, editing.patch(folder, stored, as_sent(text)))
    assert (folder / "a.yaml").read_bytes() == stored.encoded(text)


def apply(folder, patch):
    subprocess.run(["git", "init", "-q", folder.parent], check=True)
    subprocess.run(["git", "apply", "-"], cwd=folder.parent, input=patch.encode("utf-8", "surrogateescape"), check=True)


def test_a_patch_shows_what_differs_and_little_around_it(folder):
    lines = [f"# {n}" for n in range(1_000)]
    (folder / "a.yaml").write_text("\n".join(lines))
    patch = editing.patch(folder, editing.read(folder, "a.yaml"), "\n".join(lines).replace("# 500", "# five hundred"))
    assert patch.startswith("diff --git a/mappings/a.yaml b/mappings/a.yaml\n--- a/mappings/a.yaml\n+++ b/")
    assert len(patch.splitlines()) == 12


def test_git_applies_the_patch_of_a_new_file_in_a_folder_below(tmp_path):
    folder = tmp_path / "deploy" / "mappings"
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    patch = editing.patch(folder, editing.read(folder, "tally.yaml"), as_sent("extends: tally\nuse: []"))
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=patch.encode(), check=True)
    assert (folder / "tally.yaml").read_bytes() == b"extends: tally\nuse: []"


def test_a_patch_of_very_many_lines_is_quick_and_right(folder):
    lines = [f"# {n}" for n in range(20_000)]
    (folder / "a.yaml").write_text("\n".join(lines))
    stored = editing.read(folder, "a.yaml")
    apply(folder, editing.patch(folder, stored, "\n".join(reversed(lines))))
    assert (folder / "a.yaml").read_text() == "\n".join(reversed(lines))


@pytest.mark.parametrize(
    "name", ["../a.yaml", "/etc/passwd", "a/b.yaml", ".a.yaml", "a.txt", "a.yaml\n", "", "é.yaml", "a" * 61 + ".yaml"]
)
def test_a_name_leads_nowhere_else(folder, name):
    (folder.parent / "a.yaml").write_text(PLAIN)
    for ask in (
        lambda: editing.read(folder, name),
        lambda: editing.save(folder, editing.StoredFile(name), PLAIN),
    ):
        with pytest.raises(EditRefused, match="letters, digits"):
            ask()


def test_no_link_leads_out_and_none_is_replaced(folder):
    (folder.parent / "outside.yaml").write_text(PLAIN)
    (folder / "inside.yaml").write_text(PLAIN)
    (folder / "out.yaml").symlink_to(folder.parent / "outside.yaml")
    (folder / "in.yaml").symlink_to("inside.yaml")
    with pytest.raises(EditRefused, match=r"out\.yaml is a symbolic link that leads out of the folder mappings"):
        editing.read(folder, "out.yaml")
    with pytest.raises(EditRefused, match=r"in\.yaml is a symbolic link, which saving would replace"):
        editing.save(folder, editing.read(folder, "in.yaml"), "goals: [x]")
    assert (folder / "in.yaml").is_symlink()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a: \xff\n", "not UTF-8 text .line 1."),
        (b"a: 1\nb: \x00\n", "not UTF-8 text .line 2."),
        (b"#" * 600_000, "600,000 bytes, at most 524,288"),
    ],
)
def test_what_a_page_cannot_carry_is_not_shown(folder, content, sentence):
    (folder / "a.yaml").write_bytes(content)
    with pytest.raises(EditRefused, match=sentence):
        editing.read(folder, "a.yaml")


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "a.yaml")
    with pytest.raises(EditRefused, match="not an ordinary file"):
        editing.read(folder, "a.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("provider: custom\nsecret: sesame-open-up\ngoals: []\n", 2),
        ("provider: custom\nsecret:\n  - ${A}\n  - sesame-open-up\ngoals: []\n", 4),
        ("provider: custom\nrequire:\n  query.key: sesame-open-up\ngoals: []\n", 3),
        ("provider: custom\ngoals:\n  - goal: x\n    event: y\n    datafast: {name: z, api_key: sesame-open}\n", 5),
        ("provider: custom\ngoals: []\n# secret: whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=\n", 3),
        ("provider: custom\nsecret: sesame-open-up\ngoals: [\n", 2),
        ("provider: custom\nsecret:\n- sesame-open-up\ngoals: [\n", 3),
        ("provider: custom\ngoals: [] # in-use-elsewhere\n", 2),
    ],
)
def test_a_file_that_holds_a_secret_is_neither_shown_nor_taken(folder, text, line):
    (folder / "a.yaml").write_text(text)
    with pytest.raises(EditRefused, match=f"a.yaml holds a secret itself .line {line}.") as refused:
        editing.read(folder, "a.yaml", ["in-use-elsewhere"])
    assert "sesame" not in str(refused.value)


def test_no_shipped_file_holds_one():
    folders = (ROOT / "mappings", ROOT / "mappings" / "examples")
    read = [editing.read(folder, name) for folder in folders for name in editing.file_names(folder)]
    assert len(read) > 30


def test_a_broken_file_that_names_variables_is_shown(folder):
    text = "provider: custom\nsecret: ${A} # whsec_…\n# the token\nrequire:\n  query.token: ${B}\ngoals: [\n"
    (folder / "a.yaml").write_text(text)
    assert editing.read(folder, "a.yaml").text == text


# ---------------------------------------------------------------------------------------------------------- saving


def test_a_file_is_saved_with_its_mode_and_nothing_is_left_behind(folder):
    path = folder / "a.yaml"
    path.write_bytes(CONTENTS["crlf"])
    path.chmod(0o640)
    assert editing.save(folder, editing.read(folder, "a.yaml"), as_sent("# new\n" + PLAIN))
    assert path.read_bytes() == b"# new\r\n" + CONTENTS["crlf"]
    assert path.stat().st_mode & 0o777 == 0o640
    assert left(folder) == ["a.yaml"]


def test_of_savers_at_once_one_saves_and_the_others_hear_it(folder):
    (folder / "a.yaml").write_text(PLAIN)
    stored, said = editing.read(folder, "a.yaml"), []

    def save(number):
        try:
            said.append(editing.save(folder, stored, f"# {number}\n{PLAIN}"))
        except FileChanged as error:
            said.append(str(error))

    savers = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join(30)
    assert said.count(True) == 1
    assert sum("has changed on disk since you opened it" in str(one) for one in said) == 7
    assert (folder / "a.yaml").read_text().endswith(PLAIN)


@pytest.mark.parametrize("change", ["written", "removed", "made"])
def test_what_was_changed_in_between_is_not_overwritten(folder, change):
    path = folder / "a.yaml"
    if change != "made":
        path.write_text(PLAIN)
    stored = editing.read(folder, "a.yaml")
    path.unlink() if change == "removed" else path.write_text("# theirs\n")
    with pytest.raises(FileChanged):
        editing.save(folder, stored, "# ours\n")
    assert not path.exists() if change == "removed" else path.read_text() == "# theirs\n"


def test_a_text_that_is_too_large_is_refused(folder):
    with pytest.raises(EditRefused, match="1,048,576 bytes, at most 524,288"):
        editing.save(folder, editing.StoredFile("a.yaml"), "#" * 1_048_576)
    assert left(folder) == []


SAVE_AS = """
import os, resource, sys
from pathlib import Path
from bridge.errors import EditRefused
from bridge.workbench import editing

folder, user, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
stored = editing.read(folder, "a.yaml")
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print(editing.unsavable(folder, {}))
try:
    editing.save(folder, stored, sys.stdin.read())
except EditRefused as error:
    print(error)
"""


def as_another(folder, text, user=0, limit=0):
    done = subprocess.run(
        [sys.executable, "-c", SAVE_AS, str(folder), str(user), str(limit)],
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return done.stdout.splitlines()


def test_without_the_right_to_write_it_says_what_to_do(folder):
    (folder / "a.yaml").write_text(PLAIN)
    folder.chmod(0o555)
    for parent in folder.parents:  # up to what is everybody's
        if parent.stat().st_mode & 0o001:
            break
        parent.chmod(0o755)
    beforehand, afterwards = as_another(folder, "# new\n", 65_534 if os.geteuid() == 0 else 0)
    assert beforehand == (
        "The bridge may not write to the folder mappings: download the patch, `git apply` it, and deploy, or give it"
        " the right to write there."
    )
    assert afterwards.startswith("a.yaml is not saved: the bridge may not write to the folder mappings")
    assert (folder / "a.yaml").read_text() == PLAIN


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(folder):
    (folder / "a.yaml").write_text(PLAIN)
    assert as_another(folder, f"{PLAIN}# {'x' * 200_000}", limit=65_536) == [
        "None",
        "a.yaml is not saved: file too large; it is as it was.",
    ]
    assert ((folder / "a.yaml").read_text(), left(folder)) == (PLAIN, ["a.yaml"])


def test_a_full_disk_is_called_so(folder, monkeypatch):
    """A disk of the test's own needs root, so the file system's answer is made here."""

    def full(descriptor):
        os.fstat(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (folder / "a.yaml").write_text(PLAIN)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EditRefused, match=r"a\.yaml is not saved: the disk is full; it is as it was\."):
        editing.save(folder, editing.read(folder, "a.yaml"), "# new\n")
    assert ((folder / "a.yaml").read_text(), left(folder)) == (PLAIN, ["a.yaml"])


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, None),
        ({"DYNO": "web.1"}, "On Heroku a saved file would be gone"),
        ({"RENDER": "true"}, "On Render a saved file would be gone"),
        ({"RAILWAY_SERVICE_ID": "x"}, "On Railway a saved file would be gone"),
    ],
)
def test_where_the_disk_does_not_last_nothing_can_be_saved(folder, environ, sentence):
    said = editing.unsavable(folder, environ)
    assert said is None if sentence is None else said.startswith(sentence)


def test_on_a_volume_it_can_be_saved(folder):
    environ = {"RAILWAY_SERVICE_ID": "x", "RAILWAY_VOLUME_MOUNT_PATH": str(folder.parent)}
    assert editing.unsavable(folder, environ) is None


def test_where_there_is_no_folder_nothing_can_be_saved(folder):
    assert editing.unsavable(folder / "none", {}).startswith("The folder none is not there")
    assert editing.file_names(folder / "none") == []
