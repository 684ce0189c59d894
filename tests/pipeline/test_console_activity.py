"""The activity list over HTTP: its filters, searches, downloads, and what is done with many rows at a time."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape

import pytest
from sqlalchemy import insert, select

from bridge.model import GoalState
from bridge.store import schema
from bridge.store.operator import actions, activity, changes
from bridge.web.console import activity as listing
from bridge.workbench import bulk

PATH = "/console/activity"


class Made:
    """Rows as routing and sending leave them, made by statements: only their looks matter here."""

    def __init__(self, console):
        self.store, self.now = console.bridge.store, console.clock.now_ms
        self.count = 0

    def event(self, **values):
        self.count += 1
        row = {
            "source": "stripe", "provider": "stripe", "type": "charge.refunded", "test": False, "headers": "{}",
            "query": "{}", "body": b"{}", "state": "routed", "verdict": "unmatched",
            "provider_event_id": f"evt_{self.count}", "dedupe_key": f"made:{self.count}",
            "received_at_ms": self.now - 60_000 + self.count,
        }  # fmt: skip
        with self.store.write() as conn:
            return conn.execute(insert(schema.events).values({**row, **values}).returning(schema.events.c.id)).scalar()

    def goal(self, event_id=None, state="delivered", **values):
        event_id = event_id or self.event(verdict="matched")
        now = self.now
        row = {
            "event_id": event_id, "source": "stripe", "rule_id": "refund", "destination": "default",
            "once_key": f"k{self.count}", "test": False, "name": "refund", "description": "d", "metadata": "{}",
            "visitor": "v-1", "state": state, "happened_at_ms": now, "time_is_stated": True, "ordered_at_ms": now,
            "created_at_ms": now - 9, "changed_at_ms": now, "due_at_ms": now + 9_000_000, "wait_ms": 1,
            "expires_at_ms": now + 9_000_000,
        }  # fmt: skip
        with self.store.write() as conn:
            return conn.execute(insert(schema.goals).values({**row, **values}).returning(schema.goals.c.id)).scalar()

    def attempt(self, goal_id, outcome):
        row = {"goal_id": goal_id, "kind": "send", "started_at_ms": self.now, "outcome": outcome, "lease_token": "t"}
        with self.store.write() as conn:
            conn.execute(insert(schema.attempts).values(row))

    def states(self, table=schema.goals):
        with self.store.read() as conn:
            return {row.id: row.state for row in conn.execute(select(table.c.id, table.c.state))}


@pytest.fixture
def made(console):
    return Made(console)


def rows(answer):
    """The rows of the page's table, as text."""
    assert answer.status_code == 200, answer.text[:2000]
    body = re.search(r'<tbody id="rows">(.*?)</tbody>', answer.text, re.DOTALL)
    found = re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL) if body else []
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", row)).split()) for row in found]


def links(answer, text):
    found = re.findall(r'<a [^>]*?href="([^"]+)"[^>]*>\s*(.*?)\s*</a>', answer.text, re.DOTALL)
    return [unescape(address) for address, label in found if text in label]


def test_a_row_says_what_became_of_an_event(visit, made):
    made.event(state="quarantined", verdict=None, reason="the body is no JSON")
    goal = made.goal(made.event(verdict="matched", source="shop"), "parked", visitor=None)
    made.attempt(made.goal(), "rejected")
    listed = rows(visit.get(PATH))
    assert [("no JSON" in row, "refund parked" in row) for row in listed] == [
        (False, False),
        (False, True),
        (True, False),
    ]
    (parked,) = rows(visit.get(f"{PATH}?kind=goals&state=parked"))
    assert "stripe refund parked" in parked
    assert visit.get(f"{PATH}?kind=goals").text.count(f"/console/goals/goal_{goal}") == 1
    (attempt,) = rows(visit.get(f"{PATH}?kind=deliveries&state=rejected"))
    assert "sent: rejected" in attempt


FILTERS = {
    "kind=events": 3,
    "kind=events&source=shop": 1,
    "kind=events&state=unmatched": 1,
    "kind=events&verdict=matched": 2,
    "kind=events&type=order.paid&test=yes": 1,
    "kind=events&visitor=no": 1,
    "kind=events&name=sale&rule=sale&destination=default": 1,
    "kind=goals&visitor=yes": 1,
    "kind=goals&reason=NO_VIS": 1,
    "kind=goals&since=7d&until=1ms": 2,
    "kind=goals&since=2000-01-01&until=2000-01-02T03:04": 0,
    "kind=deliveries&name=sale": 1,
    "kind=deliveries&name=refund": 0,
}


def test_filters_narrow_the_list(visit, made):
    made.event(type="order.paid", source="shop", test=True)
    made.goal()
    made.attempt(
        made.goal(None, "unattributed", visitor=None, reason="no_visitor", name="sale", rule_id="sale"), "delivered"
    )
    assert {one: len(rows(visit.get(f"{PATH}?{one}"))) for one in FILTERS} == FILTERS


WRONG = {
    "kind=people": '`kind` cannot be "people"; it must be one of events, goals, deliveries.',
    "kind=events&state=delivered": '`state` cannot be "delivered"',
    "before=abc": '`before` cannot be "abc"; it must be a number.',
    "after=-1": "`after` cannot be",
    "before=99999999999999999999999": "`before` cannot be",
    "source=%00": "`source` has a character that cannot be printed",
    "source=a%E2%80%AEb": "`source` has a character that cannot be printed",
    "q=%07": "`q` has a character that cannot be printed",
    f"name={'a' * 5000}": "`name` has 5000 characters; at most 200 are searched for.",
    "since=yesterday": '`since` cannot be "yesterday"; it must be a duration such as 6h or 7d',
    "test=maybe": "it must be one of yes, no.",
    "kind=goals&type=x": "`type` is a filter for events",
    "body=x&scanned=-5": "`scanned` cannot be",
}


def test_a_wrong_value_is_answered_by_a_sentence(visit):
    for query, sentence in WRONG.items():
        answer = visit.get(f"{PATH}?{query}")
        assert answer.status_code == 400, query
        assert sentence in re.sub("</?code>", "`", unescape(answer.text))
        assert 'role="search"' in answer.text
    assert visit.get(f"{PATH}?until=0001-01-01T00:00%2B14:00").status_code in (200, 400)


def test_a_wrong_value_is_no_failure_elsewhere(visit):
    for path in ("/replay", "/retry", ".csv", "/new"):
        for query in ("before=abc", "source=%00"):
            assert visit.get(f"{PATH}{path}?{query}").status_code == 400


def test_hostile_rows_are_text(visit, made):
    made.goal(made.event(type="<script>alert(1)</script>", source='"><img src=x onerror=alert(1)>'), name="\u202egoal")
    made.event(state="quarantined", verdict=None, reason="x" * 100_000)
    for kind in ("events", "goals"):
        text = visit.get(f"{PATH}?kind={kind}").text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "\u202e" not in text
        assert len(text) < 60_000


@pytest.mark.long
def test_pages_lead_to_each_other(visit, made):
    for _ in range(120):
        made.event()
    first = visit.get(PATH)
    (older,) = links(first, "Older")
    second = visit.get(older)
    third = visit.get(links(second, "Older")[0])
    assert [len(rows(one)) for one in (first, second, third)] == [50, 50, 20]
    assert not links(third, "Older")
    assert not links(first, "Newer")
    assert rows(visit.get(links(third, "Newer")[0])) == rows(second)
    assert rows(visit.get(links(second, "Newer")[0])) == rows(first)
    assert len({*rows(first), *rows(second), *rows(third)}) == 120


def test_new_rows_are_announced(visit, made):
    made.event()
    news = unescape(re.search(r'hx-get="([^"]+)"', visit.get(f"{PATH}?source=stripe").text)[1])
    assert "new" not in visit.get(news).text
    made.event()
    made.event(source="shop")
    assert "1 new" in visit.get(news).text


def test_one_id_leads_to_its_page(visit, made):
    event = made.event(provider_event_id="evt_abc")
    goal = made.goal(event, visitor="v-77")
    for text in (f"ev_{event}", str(event), "evt_abc"):
        assert visit.get(f"{PATH}?q={text}").location == f"/console/events/ev_{event}"
    assert visit.get(f"{PATH}?q=goal_{goal}").location == f"/console/events/ev_{event}#goal_{goal}"
    assert visit.get(f"{PATH}?q=v-77").location == f"/console/events/ev_{event}#goal_{goal}"
    other = made.goal(made.event(provider_event_id="evt_abc"), visitor="v-77")
    several = visit.get(f"{PATH}?q=v-77").text
    assert f"#goal_{goal}" in several
    assert f"#goal_{other}" in several
    assert "Nothing is known of nothing-like-that" in visit.get(f"{PATH}?q=nothing-like-that").text


def test_a_key_leads_to_a_person(visit, made, console):
    values = {"kind": "customer", "created_at_ms": 1, "used_at_ms": 1, "uses": 1}
    with console.bridge.store.write() as conn:
        conn.execute(insert(schema.link_keys).values(key="stripe:live:cus_1/é", ref="cus_1/é", **values))
    assert visit.get(f"{PATH}?q=cus_1/é").location == "/console/people/cus_1%2F%C3%A9"


def test_bodies_are_searched_by_and_by(visit, made, monkeypatch):
    wanted = made.event(body=json.dumps({"mail": "Jörg@example.com"}).encode())
    for _ in range(600):
        made.event()
    monkeypatch.setattr(activity, "BODIES_STEP", 250)
    answer = visit.get(f"{PATH}?q=JÖRG@example&in=bodies&source=stripe")
    assert answer.location == f"{PATH}?kind=events&source=stripe&body=J%C3%96RG%40example"
    assert visit.get(f"{PATH}?kind=goals&state=held&body=x&source=a").location == f"{PATH}?kind=events&source=a&body=x"
    assert len(rows(visit.get(answer.location))) == 1  # of a source that sent little, all are searched at once
    assert "250 of the newest 10,000" in visit.get(f"{PATH}?body=nowhere").text
    answer, parts = visit.get(f"{PATH}?body=jörg@EXAMPLE"), 1
    while more := links(answer, "Search the next"):
        assert rows(answer) == []
        answer, parts = visit.get(more[0]), parts + 1
    assert (parts, len(rows(answer))) == (3, 1)
    assert f"ev_{wanted}" in rows(answer)[0]


def test_no_more_bodies_are_searched_than_it_says(visit, made):
    made.event()
    made.event()
    assert not links(visit.get(f"{PATH}?body=x&scanned=10000&before=2"), "Search the next")


# ------------------------------------------------------------------------------------------------------- download


def test_a_download_has_what_the_list_has(visit, made, monkeypatch):
    monkeypatch.setattr(listing, "_ROWS_AT_ONCE", 2)
    for formula in ("=1+1", "+1", "-1", "@x", "\tx", "\rx", " =1", "\uff1d1", "plain"):
        made.event(type=formula)
    goal = made.goal(name="refund", visitor="=cmd|' /C calc'!A0", message="for jane@example.com", state="rejected")
    answer = visit.get(f"{PATH}.csv?kind=events")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="events.csv"'
    assert answer.mimetype == "text/csv"
    table = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert len(table) == 10
    types = [row["type"] for row in table[1:]]
    assert types == ["plain", "'\uff1d1", "' =1", "'␍x", "'\tx", "'@x", "'-1", "'+1", "'=1+1"]
    (row,) = csv.DictReader(io.StringIO(visit.get(f"{PATH}.csv?kind=goals&state=rejected").text, newline=""))
    assert (row["goal"], row["visitor"], row["why"]) == (f"goal_{goal}", "'=cmd|' /C calc'!A0", "for j…@…")
    assert not {"body", "metadata"} & set(row)
    made.attempt(goal, "rejected")
    (row,) = csv.DictReader(io.StringIO(visit.get(f"{PATH}.csv?kind=deliveries").text, newline=""))
    assert (row["goal"], row["outcome"]) == (f"goal_{goal}", "rejected")


def test_a_download_ends_where_it_says(visit, made, monkeypatch):
    monkeypatch.setattr(listing, "ROWS_MAX", 3)
    for _ in range(5):
        made.event()
    assert len(visit.get(f"{PATH}.csv").text.splitlines()) == 4


# ------------------------------------------------------------------------------------------------------ many rows


def test_goals_are_retried_round_by_round(visit, made, console, monkeypatch):
    monkeypatch.setattr(bulk, "ROUND", 2)
    goals = [made.goal(None, "rejected") for _ in range(5)]
    delivered = made.goal()
    preview = visit.get(f"{PATH}/retry?kind=goals&state=rejected&source=stripe")
    assert "<strong>5 goals</strong> match:" in preview.text
    assert "5 rejected: each is due now" in preview.text
    later = made.goal(None, "rejected")
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', preview.text.partition("<form class=")[2]))
    rounds = 0
    answer = visit.post(f"{PATH}/retry", **fields)
    while answer.location.startswith(f"{PATH}/retry"):
        rounds += 1
        page = visit.get(answer.location)
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text.partition("<form class=")[2]))
        assert fields["done"] == str(2 * rounds)
        answer = visit.post(f"{PATH}/retry", **fields)
    assert "5 goals are sent now." in visit.get(answer.location).text
    states = made.states()
    assert [states[goal] for goal in goals] == ["pending"] * 5
    assert (states[delivered], states[later]) == ("delivered", "rejected")
    with console.bridge.store.read() as conn:
        told = changes.recent(conn, 10)
    assert [one.sentence for one in told] == ["1 goal is sent now.", *["2 goals are sent now."] * 2]
    assert {(one.what, one.about) for one in told} == {("retry", "source=stripe state=rejected")}


def test_a_second_click_changes_nothing(visit, made, console):
    goal = made.goal(None, "held")
    form = {"kind": "goals", "state": "held", "before": str(goal + 1), "csrf_token": visit.csrf()}
    for _ in range(2):
        assert visit.post(f"{PATH}/cancel", **form).status_code == 303
    assert made.states()[goal] == "cancelled"
    with console.bridge.store.read() as conn:
        assert [one.sentence for one in changes.recent(conn, 10)] == ["1 goal is cancelled."]


def test_what_was_delivered_is_left_alone(visit, made, console):
    made.goal(visitor="sent")
    made.goal(None, "sending", visitor="sent")
    answer = visit.post(f"{PATH}/retry", kind="goals", csrf_token=visit.csrf())
    assert "0 goals are sent now. 2 were left alone." in visit.get(answer.location).text
    with console.bridge.store.read() as conn:
        assert changes.recent(conn, 10) == []


def test_events_are_routed_again(visit, made, console):
    event = made.event(body=b'{"id": "evt_1", "type": "charge.refunded", "object": "event"}')
    gone = made.event(body=None)
    preview = visit.get(f"{PATH}/replay?kind=events&state=unmatched").text
    assert "<strong>2 events</strong> match" in preview
    assert "Routing 1 event again:" in preview
    answer = visit.post(f"{PATH}/replay", kind="events", state="unmatched", csrf_token=visit.csrf())
    assert "1 event is routed again. 1 was left alone." in visit.get(answer.location).text
    assert made.states(schema.events) == {event: "received", gone: "routed"}


def test_a_round_of_htmx_ends_on_the_list(visit, made):
    made.goal(None, "held")
    answer = visit.post(
        f"{PATH}/cancel", kind="goals", state="held", csrf_token=visit.csrf(), headers={"HX-Request": "true"}
    )
    assert answer.headers["HX-Redirect"] == f"{PATH}?kind=goals&state=held"


def test_nothing_is_done_without_the_token_or_by_get(visit, made):
    goal = made.goal(None, "held")
    assert visit.post(f"{PATH}/cancel", kind="goals", state="held").status_code == 403
    visit.get(f"{PATH}/cancel?kind=goals&state=held&done=0")
    assert made.states()[goal] == "held"


def test_what_is_foretold_of_a_goal_comes_true(made):
    with made.store.write() as conn:
        for state in GoalState:
            ids = [made_in(conn, made, state, n) for n in (1, 2)]
            outcomes = actions.retry(conn, ids[0])[0].value, actions.cancel(conn, ids[1]).value
            assert (bulk.would_retry(state), bulk.would_cancel(state)) == outcomes, state


def made_in(conn, made, state, number):
    event = {
        "source": "stripe", "provider": "stripe", "type": "a", "test": False, "received_at_ms": 1, "headers": "{}",
        "query": "{}", "body": b"{}", "state": "routed", "dedupe_key": f"of {state} {number}",
    }  # fmt: skip
    event_id = conn.execute(insert(schema.events).values(event).returning(schema.events.c.id)).scalar()
    now = made.now
    row = {
        "event_id": event_id, "source": "stripe", "rule_id": "r", "destination": "default", "test": False, "name": "n",
        "once_key": f"{state} {number}", "description": "d", "metadata": "{}", "state": state, "happened_at_ms": now,
        "visitor": None if state in ("unattributed", "parked") else "v", "time_is_stated": True, "ordered_at_ms": now,
        "created_at_ms": now, "changed_at_ms": now, "due_at_ms": now, "expires_at_ms": now + 9, "wait_ms": 1,
    }  # fmt: skip
    return conn.execute(insert(schema.goals).values(row).returning(schema.goals.c.id)).scalar()
