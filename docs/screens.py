"""Takes the pictures of the console from a real demo: `make screens`. The tests of pages look at the same demo.

A digest of what the pictures show, the templates and the stylesheet, is written next to them (`docs/screens/taken-of`):
by it, a test notices that they are stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs/screens"
CONSOLE: Final = ROOT / "bridge/web/console"
PATIENCE_S: Final = 240.0
_SIGN_IN: Final = re.compile(r"(http://127\.0\.0\.1:\d+)/console/ .*?sign in is\s+(\S+)", re.DOTALL)


class Demo(NamedTuple):
    """Where a demo's bridge is, and the token that opens its console."""

    url: str
    token: str


@contextlib.contextmanager
def demo(folder: Path) -> Iterator[Demo]:
    """`python -m bridge demo`, once all its goals have arrived."""
    log_file = folder / "demo.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge", "demo"],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _started(process, log_file)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _started(process: subprocess.Popen[bytes], log_file: Path) -> Demo:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        log = log_file.read_text("utf-8")
        if (found := _SIGN_IN.search(log)) and "Ctrl-C" in log:
            return Demo(found[1], found[2])
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"the demo did not say where its console is:\n{log_file.read_text('utf-8')}")


@contextlib.contextmanager
def looking(
    browser: Browser, shown: Demo, *, width: int = 1280, scheme: str = "light", scripts: bool = True
) -> Iterator[Page]:
    """A page of the console, signed in. Everything that breaks the policy, or fails in a script, ends in an error."""
    context = browser.new_context(
        viewport={"width": width, "height": 900 if width > 600 else 844},
        color_scheme=scheme,  # type: ignore[arg-type]
        java_script_enabled=scripts,
        timezone_id="Europe/Berlin",
        locale="en-GB",
    )
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        sign_in(page, shown)
        yield page
    finally:
        context.close()
    assert problems == []


def sign_in(page: Page, shown: Demo) -> None:
    page.goto(f"{shown.url}/console/")
    page.get_by_label("Admin token").fill(shown.token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation", name="Pages").wait_for()


# ------------------------------------------------------------------------------------------------------ the pictures


class Shot(NamedTuple):
    """A picture: its file's name, the page, the width and the colour scheme."""

    name: str
    path: str
    width: int = 1280
    scheme: str = "light"


def shots(page: Page, shown: Demo) -> list[Shot]:
    """What is pictured: the pages, one event and one person of the demo, some of them narrow or dark."""
    page.goto(f"{shown.url}/console/activity?kind=goals&name=refund&source=stripe")
    event = page.locator("main a[href*='/events/']").first.get_attribute("href") or ""
    person = page.locator("main a[href*='/people/']").first.get_attribute("href") or ""
    pages = {
        "home": "/console/",
        "activity": "/console/activity",
        "event": event.partition("#")[0],
        "person": person,
        "rules": "/console/rules",
        "try": f"/console/rules/try?event={event.rpartition('/')[2].partition('#')[0]}",
        "sources": "/console/sources",
    }
    found = [Shot(name, path) for name, path in pages.items()]
    dark = [Shot(f"{name}-dark", pages[name], scheme="dark") for name in ("home", "event")]
    narrow = [Shot(f"{name}-narrow", pages[name], width=390) for name in ("home", "event")]
    return [*found, *dark, *narrow]


def digest() -> str:
    """A digest of everything that decides how pages look."""
    found = hashlib.sha256()
    for file in sorted([*CONSOLE.glob("templates/*.html"), *CONSOLE.glob("static/console.*")]):
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


def main() -> int:
    """Take every picture again."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the tests bring a browser of their own

    chromium = shutil.which("chromium")
    if chromium is None:
        print("The pictures are taken by Chromium: apt-get install chromium", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder)) as shown, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with looking(browser, shown) as page:
            wanted = shots(page, shown)
        for shot in wanted:
            take(browser, shown, shot)
        browser.close()
    (FOLDER / "taken-of").write_text(digest() + "\n", "utf-8")
    return 0


def take(browser: Browser, shown: Demo, shot: Shot) -> None:
    """Take one picture, of what fits on a screen and a half."""
    with looking(browser, shown, width=shot.width, scheme=shot.scheme) as page:
        page.goto(shown.url + shot.path)
        page.wait_for_load_state("networkidle")
        height = min(page.evaluate("document.documentElement.scrollHeight"), 1350 if shot.width > 600 else 1500)
        page.set_viewport_size({"width": shot.width, "height": height})
        page.screenshot(path=FOLDER / f"{shot.name}.png", animations="disabled")


if __name__ == "__main__":
    sys.exit(main())
