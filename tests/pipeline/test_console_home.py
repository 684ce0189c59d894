"""The first page of the console, and the report: from nothing to the first goal, then what they say of many."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import time

import pytest
from composed import Composed
from console_kit import TOKEN, Visit
from running import ALICE, SECRETS, STRIPE_SECRET
from sqlalchemy import insert, update

from bridge.sandbox import sign
from bridge.store import schema
from bridge.workbench import overview
from bridge.workbench import report as reports

HOUR, DAY = 3_600_000, 86_400_000
FORMULA = '=HYPERLINK("http://evil.example/";"x")'


def text_of(page):
    """What a person reads of a page."""
    shown = re.sub(r"<(title|style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())


def read(visit, path="/console/"):
    answer = visit.get(path)
    assert answer.status_code == 200, answer.text
    return text_of(answer.text)


def checkout(clock, number=1, visitor=ALICE, secret=STRIPE_SECRET):
    """A signed sale: body and headers."""
    thing = {
        "id": f"cs_live_{number}",
        "object": "checkout.session",
        "payment_status": "paid",
        "mode": "payment",
        "status": "complete",
        "amount_total": 4900,
        "currency": "usd",
        "metadata": {"datafast_visitor_id": visitor} if visitor else {},
    }
    event = {
        "id": f"evt_home_{number}",
        "object": "event",
        "type": "checkout.session.completed",
        "livemode": True,
        "created": clock.now_ms // 1000,
        "data": {"object": thing},
    }
    body = json.dumps(event).encode()
    return body, dict(sign.stripe(body, secret, int(time.time())))


def post(composed, *arguments, **more):
    body, headers = checkout(composed.clock, *arguments, **more)
    return composed.client.post("/webhooks/stripe", data=body, headers=headers).status_code


def steps(visit):
    """Title -> whether it is done, as somebody hears it who does not see the marks."""
    page = visit.get("/console/home/steps")
    assert page.status_code == 200
    return {title: done == "done" for title, done in re.findall(r"<h2>([^<]+)<span[^>]*>: ([a-z ]+)</span>", page.text)}


# ---------------------------------------------------------------------------------------------------- the first run


@pytest.fixture
def compose(console_url, clock):
    """A bridge whose console is on, with other settings each time, and somebody who is signed in there."""
    made = []

    def start(**environ):
        made.append(Composed(console_url, clock, BRIDGE_ADMIN_TOKEN=TOKEN, **environ))
        return made[-1], Visit(made[-1])

    yield start
    for one in made:
        one.__exit__()


def test_the_checklist_ticks_itself_from_nothing_to_the_first_goal(compose):
    _, visit = compose(DATAFAST_API_KEY="", **dict.fromkeys(SECRETS, ""))
    expected = dict.fromkeys(
        ("Database", "DataFast key", "Secret of a source", "First event", "First visitor", "First goal"), False
    )
    assert steps(visit) == (expected := expected | {"Database": True})
    first = read(visit)
    assert "Set DATAFAST_API_KEY to the API key of your website" in first
    assert "http://localhost/webhooks/stripe" in first
    assert "STRIPE_WEBHOOK_SECRET" in first
    assert "No events yet" in first

    _, visit = compose(DATAFAST_API_KEY="")
    assert steps(visit) == (expected := expected | {"Secret of a source": True})
    shop, visit = compose()
    assert steps(visit) == (expected := expected | {"DataFast key": True})

    assert post(shop, 1, secret="whsec_of_another_endpoint") in (400, 401, 403)
    shop.bridge.counters.flush(shop.bridge.store)
    shop, visit = compose()
    assert "Source stripe refused the last request" in read(visit)

    assert post(shop, 2, visitor=None) == 200
    shop.work()
    assert steps(visit) == (expected := expected | {"First event": True})
    assert "Hand the visitor over" in read(visit)
    assert post(shop, 3) == 200
    while shop.router.route_batch(shop.bridge.rules, shop.bridge.destinations()):
        pass
    assert steps(visit) == (expected := expected | {"First visitor": True})
    assert "HX-Refresh" not in visit.get("/console/home/steps").headers
    assert "First steps" in read(visit)
    shop.work()
    assert steps(visit) == expected | {"First goal": True}
    assert visit.get("/console/home/steps").headers["HX-Refresh"] == "true"
    assert "First steps" not in read(visit)


def test_what_keeps_the_first_goal_from_being_sent_is_said(compose, clock):
    shop, visit = compose()
    with shop.bridge.store.write() as conn:
        paused = {"pause_kind": "configuration", "pause_reason": "the API key was not accepted (401)"}
        conn.execute(
            insert(schema.destinations).values(
                name="default", paused_since_ms=clock.now_ms, not_before_ms=clock.now_ms + HOUR, **paused
            )
        )
    assert "Destination default has been paused for 0 s: the API key was not accepted (401)" in read(visit)


# --------------------------------------------------------------------------------------------------------- after it


@pytest.fixture
def busy(console, visit):
    """One delivered sale with a visitor, and one that was parked without one."""
    post(console, 1)
    post(console, 2, visitor=None)
    console.work()
    return console


def test_after_the_first_goal_the_page_says_how_the_bridge_is(busy, visit):
    with busy.bridge.store.write() as conn:
        now = busy.clock.now_ms
        conn.execute(insert(schema.workers).values(id="w", kind="inline", started_at_ms=now, seen_at_ms=now))
    page = read(visit)
    assert "Everything works, and nothing needs your attention. DataFast accepted the last goal" in page
    assert "$49 of sales this week without a visitor (1): why" in page
    assert re.search(r"\b1 delivered last \w+day 0", page)
    assert re.search(r"\b1 parked for a visitor last \w+day 0", page)
    assert "1 parked for a visitor. Nothing is due." in page
    assert "purchase delivered" in page
    assert "in the event itself, at data.object.metadata.datafast_visitor_id" in page
    assert re.search(r'href="/console/events/ev_\d+"', visit.get("/console/").text)
    assert "stripe receives" in page
    assert "generic no events yet" in page
    assert "Nobody has changed anything here yet." in page


def test_a_problem_is_the_first_sentence_and_the_same_as_that_of_status(busy, visit):
    status = visit.get("/status", headers={"Authorization": f"Bearer {TOKEN}"}).get_json()
    assert status["problems"], "no worker runs in this process"
    page, problem = ("".join(text.replace("`", "").split()) for text in (read(visit), status["problems"][0]))
    assert page.index(problem) < page.index("Goalsmadetoday")


def test_what_people_changed_last_is_there(busy, visit):
    with busy.bridge.store.write() as conn:
        for number in range(7):
            sentence = f"Change {number} & <b>more</b>"
            conn.execute(insert(schema.changes).values(at_ms=1, what="retry", about="goal_1", sentence=sentence))
    page = read(visit)
    assert "Change 6 & <b>more</b>" in page
    assert "Change 2 " in page
    assert "Change 1 " not in page


def test_rows_that_are_new_since_the_last_look_are_marked(busy, visit):
    first = visit.get("/console/").text
    assert 'class="new"' not in first
    (address,) = re.findall(r'hx-get="(/console/home/live\?after=\d+)"', first)
    assert 'class="new"' not in visit.get(address).text
    post(busy, 3)
    later = visit.get(address).text
    assert later.count('class="new"') == 1
    assert 'class="new"' not in visit.get(re.search(r'hx-get="([^"]+)"', later)[1]).text
    assert "hx-get" not in re.search(r'<div id="live"[^>]*>', visit.get("/console/?live=off").text)[0]
    for odd in ("x", "-1", "9" * 30, "%00"):
        assert visit.get(f"/console/home/live?after={odd}").status_code == 200


def test_parts_of_the_page_are_what_the_page_has(busy, visit):
    assert "Goals made today" in read(visit, "/console/home/now")
    assert "Queue" in read(visit, "/console/home/state")


def test_goals_are_set_against_those_of_a_week_before_until_the_same_time(busy, visit):
    day = (busy.clock.now_ms // DAY + 20) * DAY
    busy.clock.set(day + 12 * HOUR)
    times = [day - 7 * DAY, day - 7 * DAY + 12 * HOUR - 1, day - 7 * DAY + 12 * HOUR, day - 7 * DAY - 1, day + HOUR]
    give_goals(busy, times)
    figures = overview.figures(busy.bridge.store, ["default"], overview.FinishedSpans())
    assert (figures.today.delivered, figures.before.delivered) == (1, 2)
    made = {one.at_ms: one.goals.delivered for one in figures.days}
    assert (made[day - 7 * DAY], made[day - 8 * DAY], made[day], len(made)) == (3, 1, 1, 30)
    assert [one.at_ms for one in figures.hours][-1] == day + 12 * HOUR


def give_goals(busy, times, **values):
    """Copies of the delivered goal, made at these times."""
    (goal,) = [goal for goal in busy.goals() if goal.state == "delivered"]
    rows = [
        {**goal._mapping, "id": 1_000 + n, "once_key": f"copy_{n}", "created_at_ms": at, **values}
        for n, at in enumerate(times)
    ]
    with busy.bridge.store.write() as conn:
        conn.execute(insert(schema.goals), rows)


def test_finished_days_are_counted_again_a_few_at_a_time(busy):
    day = busy.clock.now_ms // DAY
    finished, days = overview.FinishedSpans().days, range(day - 3, day)

    def delivered(now_ms):
        with busy.bridge.store.read() as conn:
            return sum(one.goals.delivered for one in finished.get(conn, days, now_ms))

    assert delivered(0) == 0
    give_goals(busy, [(day - n) * DAY for n in (1, 2, 3)])
    assert delivered(overview.RECOUNT_MS - 1) == 0
    assert delivered(overview.RECOUNT_MS) == 2
    assert delivered(overview.RECOUNT_MS) == 3


def test_thousands_of_goals_are_counted_and_written_with_separators(busy, visit):
    give_goals(busy, [busy.clock.now_ms] * 1_500)
    page = read(visit, "/console/home/now")
    assert "1,501 delivered" in page
    drawn = visit.get("/console/").text
    assert re.search(r"<title>\d\d:00 UTC: 150[12] goals</title>", drawn)
    assert 'style="' not in drawn


def test_a_source_that_fell_silent_is_first_and_says_so(busy, visit):
    with busy.bridge.store.write() as conn:
        conn.execute(
            insert(schema.source_counters).values(
                source="lemonsqueezy", accepted=9, last_accepted_at_ms=busy.clock.now_ms - 3 * DAY, longest_gap_ms=DAY
            )
        )
    page = read(visit, "/console/home/state")
    assert "lemonsqueezy silent no genuine event has arrived for 3 d, at least twice as long as ever before" in page
    assert page.index("lemonsqueezy silent") < page.index("generic no events yet")


def test_a_paused_destination_says_since_when_and_how_long_its_goals_take(busy, visit):
    give_goals(busy, [busy.clock.now_ms] * 100, state="pending", due_at_ms=busy.clock.now_ms)
    with busy.bridge.store.write() as conn:
        conn.execute(
            update(schema.destinations).values(
                pause_kind="failures", pause_reason="DataFast does not answer", paused_since_ms=busy.clock.now_ms - HOUR
            )
        )
    page = read(visit, "/console/home/state")
    assert "default : 100 ready to send, 1 parked for a visitor." in page
    assert "Nothing is sent during the pause. At 60000 requests per minute that takes about 1 min" in page
    assert re.search(r"paused since \S+ \S+ UTC : DataFast does not answer", page)


# ------------------------------------------------------------------------------------------------------- the report


def test_the_report_is_the_one_of_the_command(busy, visit):
    told = reports.report(busy.bridge.store, busy.clock.now_ms - 7 * DAY)
    page = read(visit, "/console/report")
    assert told.summary(7 * DAY) in page
    assert "stripe purchase 2 1 1 1" in page
    assert "USD 49.00 1 49.00 1" in page
    assert told.summary(7 * DAY) in read(visit, "/console/report/summary")
    assert "in the last 30 days" in read(visit, "/console/report?since=30d")
    assert "in the last 90 days" in read(visit, "/console/report?since=90d")
    assert visit.get("/console/report?since=1s").status_code == 404


def test_an_empty_report_says_what_makes_a_goal(visit):
    assert "No goal in the last 7 days. " in read(visit, "/console/report")
    assert "An event that matches a rule makes a goal." in read(visit, "/console/report")


FORMULAS = (FORMULA, "+1", "-1+1", "@x", "\tx", "\r=1", " =1", "\uff1d1")


@pytest.mark.parametrize("name", [*FORMULAS[:2], *(pytest.param(one, marks=pytest.mark.long) for one in FORMULAS[2:])])
def test_no_cell_of_the_file_is_taken_for_a_formula(busy, visit, name):
    money = json.dumps({"amount": "-9.00", "currency": name})
    with busy.bridge.store.write() as conn:
        conn.execute(update(schema.goals).values(rule_id=name, source=name, metadata=money))
    answer = visit.get("/console/report.csv?since=30d")
    assert answer.content_type == "text/csv; charset=utf-8"
    assert 'filename="datafast-bridge-report-30d.csv"' in answer.headers["Content-Disposition"]
    heads, row = csv.reader(io.StringIO(answer.get_data(as_text=True)))
    told = dict(zip(heads, row, strict=True))
    written = name.replace("\r", "␍")
    assert told["rule"] == told["source"] == f"'{written}"
    assert told["currency"] == f"'{written.upper()}"
    assert (told["amount with visitor"], told["goals"]) == ("-9.00", "2"), "a number stays one"


def test_nothing_is_there_without_a_session(console):
    stranger = Visit(console, signed_in=False)
    for path in ("", "home/steps", "home/now", "home/state", "home/live", "report", "report/summary", "report.csv"):
        assert stranger.get(f"/console/{path}").status_code == 303
