"""The way of a webhook to its 200, written down while it is gone, is the one that docs/architecture.md describes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import requests
from docs_kit import ROOT
from stage import checkout
from walks_kit import require_described

from bridge.sandbox import sign
from chaos.plan import SECRET

MODULES = 30  # docs/adr/0030-how-big-the-house-is.md


def test_a_webhook_passes_at_most_twelve_functions_and_those_are_described(sqlite_stage, tmp_path):
    stage, walk = sqlite_stage, tmp_path / "walk"
    command = ["-m", "gunicorn", "-c", "python:walk_server", "bridge.web.wsgi:app"]
    paths = f"{ROOT}:{ROOT}/tests:{Path(__file__).parent}"
    web = stage.web(command=command, PYTHONPATH=paths, WALK=str(walk), BRIDGE_WORKER="off")
    with requests.Session() as kept:
        assert kept.get(f"http://127.0.0.1:{web.port}/healthz").status_code == 200
        for number in (1, 2):  # the first one also loads what later ones find
            body = json.dumps(checkout(number)).encode()
            headers = sign.stripe(body, SECRET, int(time.time()))
            answer = kept.post(f"http://127.0.0.1:{web.port}/webhooks/stripe", body, headers=headers)
            assert answer.json() == {"status": "accepted"}
    stops, modules, *functions = walk.read_text().splitlines()
    assert stops == "recv put commit append send"
    print(modules)
    assert len(modules.split()) <= MODULES
    require_described("A webhook to its 200", functions)
