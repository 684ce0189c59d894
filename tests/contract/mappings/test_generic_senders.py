"""The senders in the comments of generic.yaml are programs: run as text, verified as a sender's request would be."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import standardwebhooks

from bridge import rules, sources
from bridge.errors import SignatureError
from bridge.model import Request

ROOT = Path(__file__).parents[3]
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmn").decode()
VISITOR = "00000000-0000-4000-8000-000000000001"


def snippet(heading: str) -> str:
    """The indented lines below a heading in the file's comments."""
    text = (ROOT / "mappings" / "generic.yaml").read_text("utf-8")
    below = text.split(heading, 1)[1].split("\n", 1)[1]
    lines = re.match(r"#\n((?:#   .*\n)+)", below)
    assert lines is not None
    return "".join(line[4:] + "\n" for line in lines[1].splitlines())


@pytest.fixture
def receiver():
    """A server on this machine that keeps the requests it gets."""
    kept: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept.append(Request("POST", self.path, self.path, "", headers, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kept
    server.shutdown()
    thread.join()
    server.server_close()


def environment(url: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "BRIDGE_URL": url, "GENERIC_WEBHOOK_SECRET": SECRET, "VISITOR": VISITOR}


def check(request: Request) -> None:
    """The request is one that the shipped file accepts, and becomes its goal; others agree that it is signed well."""
    files = {"generic.yaml": (ROOT / "mappings" / "generic.yaml").read_text("utf-8")}
    rule_set = rules.load(files, {"GENERIC_WEBHOOK_SECRET": SECRET}, sources.presets())
    source = rule_set.sources["generic"]
    now_s = int(request.headers["webhook-timestamp"])
    sources.verify(source, request, now_s)
    standardwebhooks.Webhook(SECRET).verify(request.body, dict(request.headers))
    with pytest.raises(SignatureError):
        sources.verify(source, Request("POST", "", "", "", request.headers, request.body + b" "), now_s)
    assert request.path == "/webhooks/generic"
    assert json.loads(request.body) == {
        "event": "signup",
        "id": "user_42",
        "datafast_visitor_id": VISITOR,
        "metadata": {"plan": "pro"},
    }


def test_the_sender_in_python_works_as_it_stands(receiver):
    url, kept = receiver
    program = snippet("A sender in Python")
    assert len(program.splitlines()) == 6
    program = f"visitor = {VISITOR!r}\n{program}"
    subprocess.run([sys.executable, "-c", program], check=True, env=environment(url), timeout=30)
    (request,) = kept
    check(request)


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("curl")), reason="needs openssl and curl")
def test_the_sender_in_shell_works_as_it_stands(receiver):
    url, kept = receiver
    program = snippet("The same in shell")
    assert len(program.splitlines()) == 6
    subprocess.run(["sh", "-euc", program], check=True, env=environment(url), timeout=30, capture_output=True)
    (request,) = kept
    check(request)


def test_the_secret_maker_of_the_comments_makes_one():
    text = (ROOT / "mappings" / "generic.yaml").read_text("utf-8")
    program = re.search(r'#   python3 -c "(.*)"', text)
    assert program is not None
    made = subprocess.run([sys.executable, "-c", program[1]], check=True, capture_output=True, text=True, timeout=30)
    rule_set = rules.load({"generic.yaml": text}, {"GENERIC_WEBHOOK_SECRET": made.stdout}, sources.presets())
    assert rule_set.sources["generic"].secrets == (made.stdout.strip(),)
    assert not sources.problems(rule_set.sources["generic"])
