"""The stand-in's page in a real browser, as wide as a desktop and as a phone: Chromium, driven by Playwright."""

from __future__ import annotations

import pytest
import requests

from bridge.sandbox.server import Options, start

pytestmark = pytest.mark.browser
VISITOR = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def sandbox():
    with start(Options(known="any")) as running:
        send(running, "purchase", {"amount": "49.00", "note": "plain"})
        send(
            running,
            "refund",
            {"amount": "20.00", "comment": "(script)alert(1)"},
            description="<script>document.title='x'</script>",
        )
        send(running, "a" * 64, {f"key_{n}_{'k' * 50}": "v" * 255 for n in range(10)})
        yield running


def send(running, name, metadata, description="stripe evt_1"):
    answer = requests.post(
        f"{running.api_url}/goals",
        json={"datafast_visitor_id": VISITOR, "name": name, "metadata": metadata, "description": description},
        headers={"Authorization": "Bearer df_sandbox"},
        timeout=5,
    )
    assert answer.status_code == 200, answer.text


@pytest.fixture(params=[1280, 390])
def page(request, browser, sandbox):
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    problems = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    opened.goto(sandbox.url)
    yield opened
    assert problems == []
    opened.close()


def test_the_page_lists_the_goals_that_were_received(page):
    text = page.inner_text("body")
    assert "purchase" in text
    assert "49.00" in text
    assert VISITOR in text


def test_what_a_goal_says_is_text_and_never_runs(page):
    assert page.title() != "x"
    assert page.locator("script").count() == 0
    assert "<script>document.title" in page.inner_text("body") or "scriptdocument.title" in page.inner_text("body")


def test_nothing_is_wider_than_the_screen(page):
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
