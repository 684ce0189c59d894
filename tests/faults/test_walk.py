"""The way of a webhook to its 200, written down while it is gone, is the one that docs/architecture.md describes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import requests
from stage import checkout

from bridge.sandbox import sign
from chaos.plan import SECRET

ROOT = Path(__file__).parents[2]
SECTION = "## A webhook to its 200"
MOST = 12


def described() -> list[str]:
    section = (ROOT / "docs" / "architecture.md").read_text().split(SECTION)[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `([^`]+)`", section, re.MULTILINE)


def test_a_webhook_passes_at_most_twelve_functions_and_those_are_described(sqlite_stage, tmp_path):
    stage, walk = sqlite_stage, tmp_path / "walk"
    command = ["-m", "gunicorn", "-c", "python:walk_server", "bridge.web.wsgi:app"]
    paths = f"{ROOT}:{Path(__file__).parent}"
    web = stage.web(command=command, PYTHONPATH=paths, WALK=str(walk), BRIDGE_WORKER="off")
    body = json.dumps(checkout(1)).encode()
    with requests.Session() as kept:
        assert kept.get(f"http://127.0.0.1:{web.port}/healthz").status_code == 200
        headers = sign.stripe(body, SECRET, int(time.time()))
        answer = kept.post(f"http://127.0.0.1:{web.port}/webhooks/stripe", body, headers=headers)
    assert answer.json() == {"status": "accepted"}
    stops, *functions = walk.read_text().splitlines()
    print("\n".join(functions))
    assert stops == "recv put commit append send"
    assert functions == described()
    assert len(functions) <= MOST
