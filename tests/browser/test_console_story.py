"""From nothing to the first goal, and from an event that made none to the one it should have made, in a browser alone.

Two web processes share a database: the browser talks to one, and Stripe posts to the other.
"""

from __future__ import annotations

import pytest
from running import ADMIN, ALICE, KEY, STRIPE_SECRET, Machine, checkout, eventually

from docs.screens import Demo, looking

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
RULES = """provider: stripe
goals:
  - goal: sale
    event: checkout.session.completed
    when:
      data.object.payment_status: paid
      data.object.amount_total: {gt: 100000}
"""


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    made.stop_all()


@pytest.fixture
def given(tmp_path, database_url):
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "stripe.yaml").write_text(RULES, "utf-8")
    return {
        "DATABASE_URL": database_url,
        "BRIDGE_MAPPINGS": str(tmp_path / "mappings"),
        "BRIDGE_ADMIN_TOKEN": ADMIN,
        "BRIDGE_RATE_PER_MINUTE": "60000",
    }


def done(page):
    """How many steps of the checklist are ticked."""
    return page.locator("ol.steps > li.done").count()


@pytest.mark.long
def test_the_checklist_ticks_itself_from_nothing_to_the_first_goal(machine, given, browser):
    datafast = machine.datafast()
    bare = machine.web(given, "bare")
    with looking(browser, Demo(bare.url, ADMIN)) as page:
        assert done(page) == 1  # the database
        assert page.locator("ol.steps > li.next").count() == 1
        assert "DATAFAST_API_KEY" in page.locator("ol.steps > li.next").inner_text()
    bare.stop()
    given |= {"DATAFAST_API_KEY": KEY, "DATAFAST_API_URL": datafast.api_url, "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET}
    shown, posted = machine.web(given, "shown"), machine.web(given, "posted")
    with looking(browser, Demo(shown.url, ADMIN)) as page:
        assert done(page) == 3  # and the key, and a secret
        assert f"{shown.url}/webhooks/stripe" in page.locator("main").inner_text()
        assert posted.stripe(checkout(1, visitor=None)).status_code == 200
        eventually(lambda: done(page) == 4, what="the first event is ticked, without a reload")
        assert posted.stripe(checkout(2, amount_total=200_000)).status_code == 200
        page.get_by_role("heading", name="The last 24 hours").wait_for(timeout=60_000)  # the checklist is done
        assert datafast.seen() == [("sale", ALICE)]
        assert page.locator("ol.steps").count() == 0


def test_a_rule_is_corrected_and_its_goal_delivered_without_a_terminal(machine, given, browser, tmp_path):
    datafast = machine.datafast()
    given |= {"DATAFAST_API_KEY": KEY, "DATAFAST_API_URL": datafast.api_url, "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET}
    shown, posted = machine.web(given, "shown"), machine.web(given, "posted")
    with looking(browser, Demo(shown.url, ADMIN)) as page:
        assert posted.stripe(checkout(7)).status_code == 200
        page.get_by_role("link", name="checkout.session.completed").click(timeout=30_000)  # it arrives while one looks
        rules = page.get_by_role("region", name="Rules")
        nearest = rules.get_by_text("Nearest to a goal").inner_text()
        assert "amount_total" in nearest
        assert "4900" in nearest

        page.get_by_role("link", name="Try with other rules").click()
        text = page.locator("textarea#text")
        assert text.input_value() == RULES
        text.fill(RULES.replace("{gt: 100000}", "{grater: 1000}"))
        page.get_by_role("button", name="Check").click()
        assert "Line 7" in page.locator("#findings").inner_text()  # an error is marked at its line
        page.locator("textarea#text").fill(RULES.replace("100000", "1000"))
        page.get_by_role("button", name="Check").click()
        page.get_by_role("heading", name="Goal sale").wait_for()
        page.locator("#result").get_by_text("1 gained").first.wait_for(timeout=60_000)  # the last 500 events
        page.get_by_role("button", name="Save").click()
        page.get_by_role("status").wait_for(timeout=60_000)
        assert (tmp_path / "mappings" / "stripe.yaml").read_text("utf-8") == RULES.replace("100000", "1000")

        page.goto(f"{shown.url}/console/events/ev_1")
        page.get_by_role("link", name="Replay it").click()
        assert "sale" in page.locator("main").inner_text()  # the preview says which goal it would make
        page.get_by_role("button").last.click()
        page.get_by_role("region", name="Goals").get_by_text("delivered").first.wait_for(timeout=60_000)
        page.goto(f"{shown.url}/console/changes")
        told = page.locator("main").inner_text()
        assert "stripe.yaml" in told
        assert "ev_1" in told
    assert datafast.seen() == [("sale", ALICE)]
