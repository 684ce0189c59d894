"""Every page of the console in a real browser: accessible, within the policy, and no wider than the window."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe

from docs.screens import demo, looking, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
WIDTHS = {"telephone": 390, "rig": 1280}
LOOKS = [("telephone", "light"), ("rig", "dark"), ("telephone", "dark"), ("rig", "light")]
SIX = {(f"/console/{page}", ()) for page in ("", "activity", "events/ev_N", "people/X", "rules", "sources")}


class Seen(NamedTuple):
    """What a page says without JavaScript."""

    path: str
    headings: int
    words: int
    copiers: int


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    with demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture(scope="module")
def views(browser, shown):
    """The six pages of docs/console.md, each once and without filters."""
    return reached(browser, shown, only=SIX)


@pytest.fixture(scope="module")
def seen(browser, shown):
    """One page of each view and combination of filters."""
    return reached(browser, shown)


def reached(browser, shown, only=None):
    """Every page that can be reached by links, one of each kind: from Home on, as a person finds them."""
    with looking(browser, shown, scripts=False) as page:
        found, waiting, kinds = [], ["/console/"], {kind_of("/console/")}
        while waiting:
            path = waiting.pop(0)
            answer = page.goto(shown.url + path)
            assert answer.status == 200, (path, answer.status)
            words = len(page.locator("main").inner_text().split())
            copiers = page.locator("button[data-copy]:visible").count()
            found.append(Seen(path, page.locator("h1").count(), words, copiers))
            for link in page.locator("a[href^='/console']:not([download])").evaluate_all(
                "links => links.map(a => a.getAttribute('href'))"
            ):
                kind = kind_of(link)
                if kind in kinds or (only and kind not in only):
                    continue
                if not link.startswith("#") and "csv" not in link and "download" not in link:
                    kinds.add(kind)
                    waiting.append(link.partition("#")[0])
    assert len(found) >= len(SIX), found
    return found


def kind_of(link):
    """Pages of one view differ in ids and in what their filters say, not in which filters there are."""
    path, _, query = link.partition("#")[0].partition("?")
    path = re.sub(r"/(ev|goal)_\d+", r"/\1_N", path)
    path = re.sub(r"/console/(people|sources)/[^/]+", r"/console/\1/X", path)
    return path, tuple(sorted(part.partition("=")[0] for part in query.split("&") if part))


def wrong_with(browser, shown, to_see):
    """What keeps somebody out of pages, or is too wide; `to_see`: pages with the looks in which each is examined."""
    axe, wrong = Axe(), {}
    with looking(browser, shown) as page:
        for path, looks in to_see:
            page.goto(shown.url + path)
            page.wait_for_load_state("networkidle")
            for device, scheme in looks:
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # no colour on its way to another
                page.set_viewport_size({"width": WIDTHS[device], "height": 900})
                found = [
                    f"{one['id']}: {one['nodes'][0]['html'][:150]}" for one in axe.run(page).response["violations"]
                ]
                if found:
                    wrong[path, device, scheme] = found
            for device, width in WIDTHS.items():
                page.set_viewport_size({"width": width, "height": 900})
                if (is_wide := page.evaluate("document.documentElement.scrollWidth")) > width:
                    wrong[path, device] = f"is {is_wide} pixels wide"
    return wrong


def test_no_page_keeps_anybody_out_or_is_wider_than_the_window(browser, shown, views):
    """A page of each view at both widths, and by turns on a phone by day and on a desktop at night."""
    to_see = [(path, [LOOKS[number % 2]]) for number, (path, *_) in enumerate(views)]
    assert wrong_with(browser, shown, to_see) == {}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nor_does_any_other_or_in_another_look(browser, shown, seen):
    assert wrong_with(browser, shown, [(path, LOOKS) for path, *_ in seen]) == {}


@pytest.mark.parametrize("pages", ["views", pytest.param("seen", marks=pytest.mark.long)])
def test_every_page_says_the_same_without_javascript(request, pages):
    """Headings, tables and links; what a page loads by itself is behind a link."""
    looked_at = request.getfixturevalue(pages)
    assert [page for page in looked_at if page.headings != 1 or page.words <= 5 or page.copiers] == []


def test_one_can_sign_in_look_around_and_leave_with_the_keyboard_alone(browser, shown):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    try:
        page.goto(f"{shown.url}/console/")
        page.keyboard.type(shown.token)  # the field has the focus
        page.keyboard.press("Enter")
        page.get_by_role("navigation", name="Pages").wait_for()
        page.keyboard.press("Tab")
        assert page.locator(":focus").inner_text() == "Skip to the content"
        for name in ("Home", "Activity", "People", "Rules", "Sources"):
            tab_to(page, name)
            page.keyboard.press("Enter")
            page.locator("nav a[aria-current]", has_text=name).wait_for()
        tab_to(page, "Sign out")
        page.keyboard.press("Enter")
        page.get_by_label("Admin token").wait_for()
    finally:
        context.close()


def tab_to(page, name):
    """Press Tab until what has the focus has this name; it must be visible that it has."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focus = page.locator(":focus")
        if focus.inner_text().strip() == name:
            assert focus.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
            return
    raise AssertionError(f"no Tab leads to {name}")


def test_a_link_from_elsewhere_opens_its_page_although_the_cookie_is_strict(browser, shown, internet):
    link = f"{shown.url}/console/activity"
    internet.files["https://chat.example/"] = ("text/html", f'<title>Chat</title><a href="{link}">look</a>', {})
    with looking(browser, shown) as page:
        page.goto("https://chat.example/")
        page.get_by_text("look").click()
        page.wait_for_url(f"{shown.url}/console/activity")
        page.get_by_role("heading", name="Activity").wait_for()


def test_times_are_in_the_viewers_zone_with_utc_on_hover(browser, shown):
    with looking(browser, shown) as page:
        page.goto(f"{shown.url}/console/events/ev_1")
        first = page.locator("time[data-local]").first
        assert "UTC" in first.get_attribute("title")
        assert "UTC" not in first.inner_text()
        assert "(Europe/Berlin)" in page.locator("footer").inner_text()
        page.goto(f"{shown.url}/console/people/ev_17")
        told = page.locator("main").inner_text()  # times inside sentences, too
        assert "UTC" not in told


def test_a_session_that_ended_leads_a_page_that_is_open_to_the_door(browser, shown):
    context = browser.new_context()
    page = context.new_page()
    try:
        sign_in(page, shown)
        context.clear_cookies()
        page.evaluate("htmx.ajax('GET', '/console/home/now', '#now')")
        page.get_by_label("Admin token").wait_for()
        sign_in(page, shown)
    finally:
        context.close()
