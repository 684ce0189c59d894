"""The owner's routes of a real server: guesses wait without a thread, metrics stay here, and where it listens."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest
import requests
from running import ADMIN, Machine

WRONG = {"Authorization": "Bearer wrong"}
RIGHT = {"Authorization": f"Bearer {ADMIN}"}


@pytest.fixture
def environ(tmp_path):
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "shop.yaml").write_text("provider: stripe\ngoals: []\n", encoding="utf-8")
    return {"DATABASE_URL": f"sqlite:///{tmp_path / 'bridge.db'}", "BRIDGE_MAPPINGS": str(tmp_path / "mappings")}


def timed(url, headers):
    started = time.monotonic()
    answer = requests.get(url, headers=headers, timeout=60)
    return answer, time.monotonic() - started, time.monotonic()


@pytest.mark.long
def test_guesses_wait_without_a_thread_and_whoever_knows_the_token_does_not(machine: Machine, environ):
    web = machine.web({**environ, "BRIDGE_ADMIN_TOKEN": ADMIN, "BRIDGE_THREADS": "2"})
    assert [web.get("/metrics").status_code for _ in range(20)] == [401] * 20  # without a token nobody guesses
    with ThreadPoolExecutor(24) as pool:
        guesses = [pool.submit(timed, f"{web.url}/metrics", WRONG) for _ in range(24)]
        time.sleep(0.5)
        right, _, right_at = timed(f"{web.url}/metrics", RIGHT)
        for path in ("/healthz", "/status", "/readyz"):
            assert requests.get(web.url + path, headers=RIGHT, timeout=60).status_code in (200, 503)
        told = [guess.result() for guess in as_completed(guesses)]
    assert right.status_code == 200
    waited = sorted((took_s, at) for answer, took_s, at in told if answer.status_code == 401)
    assert 9 <= len(waited) < len(told)  # five for nothing, then each waits longer, then no more
    assert waited[-1][0] > 2
    assert right_at < waited[-1][1]
    refused = [answer for answer, _, _ in told if answer.status_code == 429]
    assert len(refused) == len(told) - len(waited)
    assert {answer.headers["Retry-After"] for answer in refused} == {"5"}
    for answer, _, _ in told:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again, _, _ = timed(f"{web.url}/status", WRONG)
    assert again.status_code in (200, 503, 429)
    total = lambda: re.search(r"\nbridge_wrong_tokens_total (\S+)", web.get("/metrics", admin=True).text)[1]  # noqa: E731
    deadline = time.monotonic() + 60
    while float(total()) < 25 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert float(total()) == 25
    assert re.search(r"2[45] wrong bearer tokens were refused", web.get("/status", admin=True).text)
    code, _ = web.stop()
    assert code == 0


def ask(web, *lines, version="1.1"):
    """The status of a request of these very bytes."""
    host, port = re.search(r"//([0-9.]+):(\d+)", web.url).groups()
    with socket.create_connection((host, int(port)), timeout=60) as wire:
        head = "\r\n".join((f"GET /metrics HTTP/{version}", *lines, "Connection: close", "", ""))
        wire.sendall(head.encode("latin-1"))
        return int(wire.makefile("rb").readline().split()[1])


def test_metrics_without_a_token_are_for_a_neighbour_that_comes_straight(machine: Machine, environ):
    web = machine.web(environ)
    assert web.get("/metrics").status_code == 200  # as `requests` asks
    assert ask(web, "Host: localhost:8000", "User-Agent: curl/8.5.0", "Accept: */*") == 200
    for more in (
        ("Host: localhost", "X-Forwarded-For: 127.0.0.1"),
        ("Host: localhost", "x-forwarded-host:"),
        ("Host: localhost", "X-Real-Ip: 127.0.0.1"),
        ("Host: localhost", "Forwarded: for=127.0.0.1"),
        ("Host: localhost", "Via: 1.1 varnish"),
        ("Host: localhost", "CF-Ray: 1"),
        ("Host: localhost", "X-Whatever-Comes-Next: 1"),
        ("Host: bridge.example.com",),
        ("Host: rebound.example:8000",),
    ):
        assert ask(web, *more) == 401, more
    assert ask(web, "Host: 127.0.0.1:8000", version="1.0") == 401
    assert ask(web, "Host: localhost", "X_Forwarded_For: 127.0.0.1") == 401  # which WSGI is not even told
    assert ask(web, "Host: localhost", "Cookie: a_b=c:d_e") == 200


@pytest.mark.parametrize(
    ("words", "more", "dot_env", "listens"),
    [
        (("--port", "0"), {}, "", "127.0.0.1"),
        ((), {"PORT": "0"}, "", "0.0.0.0"),
        pytest.param((), {}, "PORT=0\n", "127.0.0.1", marks=pytest.mark.long),
        pytest.param(("--port", "0"), {"PORT": "1"}, "", "0.0.0.0", marks=pytest.mark.long),
        pytest.param((), {"PORT": "0"}, "BRIDGE_HOST=127.0.0.1\n", "127.0.0.1", marks=pytest.mark.long),
        pytest.param(("--port", "0"), {"BRIDGE_HOST": "127.0.0.2"}, "", "127.0.0.2", marks=pytest.mark.long),
        (("--port", "0", "--host", "127.0.0.3"), {"BRIDGE_HOST": "127.0.0.2", "PORT": "1"}, "", "127.0.0.3"),
    ],
)
def test_it_listens_here_alone_unless_a_platform_names_the_port(
    machine: Machine, environ, words, more, dot_env, listens
):
    (machine.folder / ".env").write_text(dot_env, encoding="utf-8")
    process = machine.bridge("serve", *words, environ=environ | more)
    assert process.wait_for("listening")["at"].startswith(f"http://{listens}:")
    process.kill()
