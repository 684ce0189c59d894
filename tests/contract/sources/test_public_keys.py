"""Senders that sign with a key pair need nothing beside requirements.txt, and cost nothing where there is none."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bridge import sources
from bridge.sources.keys import PUBLIC_TYPES

ROOT = Path(__file__).parents[3]
PAIRED = [name for name, said in sources.presets().items() if said["verify"]["type"] in PUBLIC_TYPES]

# Only what requirements.txt pins can be imported here: a package that a developer has beside it is not there.
ALONE = r"""
import re, sys
from importlib.metadata import packages_distributions

pinned = set(re.findall(r"^([\w.-]+)==", open("requirements.txt").read(), re.MULTILINE)) - set(sys.argv[2:])
owners = packages_distributions()

class Pinned:
    def find_spec(self, name, path=None, target=None):
        names = {one.lower().replace("_", "-") for one in owners.get(name.partition(".")[0], ())}
        if names and not names & (pinned | {"datafast-bridge"}):
            raise ModuleNotFoundError(name + " is not in requirements.txt", name=name)

sys.meta_path.insert(0, Pinned())
sys.path.insert(0, "tests")
from sources_kit import NOW, secret_for, signed_request, source
from bridge import sources

secret = secret_for(source(sys.argv[1]).verify)
made = source(sys.argv[1], secret)
sources.verify(made, signed_request(made, secret), NOW)
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_presets_with_a_key_pair_are_known():
    assert {"discord", "sendgrid", "standard-webhooks-ed25519"} <= set(PAIRED)


@pytest.mark.parametrize("name", [PAIRED[0], *(pytest.param(name, marks=pytest.mark.long) for name in PAIRED[1:])])
def test_requirements_txt_alone_verifies(name):
    ended = run(ALONE, name)
    assert ended.returncode == 0, ended.stderr


def test_the_run_above_sees_nothing_that_is_not_pinned():
    ended = run(ALONE, "discord", "cryptography")
    assert "cryptography is not in requirements.txt" in ended.stderr


def test_the_package_and_what_it_needs_are_pinned_with_hashes():
    text = (ROOT / "requirements.txt").read_text()
    for name in ("cryptography", "cffi", "pycparser"):
        assert re.search(rf"^{name}==\S+ \\\n    --hash=sha256:[0-9a-f]{{64}}", text, re.MULTILINE), name


@pytest.mark.long
def test_a_start_without_such_a_source_does_not_load_it():
    told = "sys.exit('cryptography' in sys.modules)"
    assert run(f"import sys, bridge.web, bridge.worker, bridge.app; {told}").returncode == 0
    assert run(f"import sys, cryptography; {told}").returncode == 1
