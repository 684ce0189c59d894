"""`python -m bridge demo` as a person runs it: from any folder, whatever their environment holds, leaving nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docs_kit import not_told

from docs import picture

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


class Run:
    """A demo in a folder of its own, with real and wrong settings of somebody else around it."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        (folder / "home").mkdir()
        (folder / "home" / ".env").write_text("DATAFAST_API_KEY=df_real\nBRIDGE_LEASE=nonsense\n")
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.folder = folder / "home"
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temporary),
            "DEMO_TEST_MARK": self.mark,
            "DATAFAST_API_KEY": "df_real",
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
            "BRIDGE_MAX_AGE": "nonsense",
            "STRIPE_WEBHOOK_SECRET": "whsec_real",
            "PORT": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "bridge", "demo", *arguments],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def left(self) -> list[str]:
        """The command lines of processes that this demo started and that still live."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found

    def assert_nothing_left(self) -> None:
        assert self.left() == []
        assert list(self.temporary.iterdir()) == []
        assert [path.name for path in self.folder.iterdir()] == [".env"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.assert_nothing_left()


def test_once_shows_every_goal_and_ends_with_0(run: Run) -> None:
    process = run.start("--once")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, ""), out + err
    assert "All 13 expected goals arrived, each once." in out
    assert "refund 49.00 USD" in out
    assert "learned from Clerk user.created" in out
    table = out[: out.index("\n\n")].splitlines()
    assert max(map(len, table)) <= 100
    assert [line.split()[0] for line in table[1:]].count("lemonsqueezy") == 4
    assert "whsec_" not in out
    assert "df_" not in out
    assert not_told(out) == [], "the README shows what a demo prints, with lines left out"
    for layout in (picture.WIDE, picture.NARROW):
        made = picture.draw(layout, list(picture.rows(out)), picture.done(out))
        assert same_demo(made) == same_demo((ROOT / "docs" / layout.name).read_text()), "run `make picture`"


def same_demo(svg: str) -> str:
    """A picture without the visitors, who are others in each demo."""
    return re.sub(r">[0-9a-f]{6}(?= by |<)", ">visitor", svg)


@pytest.mark.long
def test_json_is_one_document_for_scripts(run: Run) -> None:
    process = run.start("--once", "--json")
    out, _ = process.communicate(timeout=PATIENCE_S)
    told = json.loads(out)
    assert process.returncode == 0
    assert told["ok"] is True
    assert told["missing"] == []
    verdicts = {event["verdict"] for event in told["events"]}
    assert verdicts == {"matched", "unmatched", "duplicate", "refused"}
    refund = next(event for event in told["events"] if event["type"] == "charge.refunded")
    assert refund["carries_visitor"] is False
    assert refund["goals"][0]["metadata"]["amount"] == "49.00"


@pytest.mark.long
def test_it_stays_up_until_it_is_stopped(run: Run) -> None:
    process = run.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    page, status = (line.split()[0] for line in lines[-6:] if line.startswith("  http://"))
    assert "purchase" in urllib.request.urlopen(page, timeout=5).read().decode()
    assert urllib.request.urlopen(status, timeout=5).status == 200
    play = next(line.strip() for line in lines if " simulate " in line)
    assert subprocess.run(play, shell=True, cwd=run.folder, env=run.environ, check=False).returncode == 0
    assert len(run.left()) >= 3
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=25)
    assert process.returncode == 0


@pytest.mark.long
def test_stopped_while_it_starts_it_leaves_nothing_either(run: Run) -> None:
    process = run.start()
    until = time.monotonic() + 20
    while len(run.left()) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=25)
    assert "Traceback" not in err


@pytest.mark.long
def test_a_part_that_does_not_start_is_one_sentence(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = run.start("--once", "--sandbox-port", str(taken.getsockname()[1]))
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("the stand-in for DataFast ended by itself")
    assert "in use" in err
