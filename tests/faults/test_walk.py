"""The way of a webhook to its 200, written down while it is gone, is the one that docs/architecture.md describes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import requests
from docs_kit import ROOT
from stage import checkout
from walks_kit import demand_described

from bridge.sandbox import sign
from chaos.plan import SECRET


def test_a_webhook_passes_at_most_twelve_functions_and_those_are_described(sqlite_stage, tmp_path):
    stage, walk = sqlite_stage, tmp_path / "walk"
    command = ["-m", "gunicorn", "-c", "python:walk_server", "bridge.web.wsgi:app"]
    paths = f"{ROOT}:{ROOT}/tests:{Path(__file__).parent}"
    web = stage.web(command=command, PYTHONPATH=paths, WALK=str(walk), BRIDGE_WORKER="off")
    body = json.dumps(checkout(1)).encode()
    with requests.Session() as kept:
        assert kept.get(f"http://127.0.0.1:{web.port}/healthz").status_code == 200
        headers = sign.stripe(body, SECRET, int(time.time()))
        answer = kept.post(f"http://127.0.0.1:{web.port}/webhooks/stripe", body, headers=headers)
    assert answer.json() == {"status": "accepted"}
    stops, *functions = walk.read_text().splitlines()
    assert stops == "recv put commit append send"
    demand_described("A webhook to its 200", functions)
