"""Messages to BRIDGE_ALERTS: made once, claimed before they are sent, and what is remembered of them."""

from __future__ import annotations

import json
import threading
import time

import pytest
from sqlalchemy import select, text, update

from bridge import settings as settings_
from bridge.alerts import Notifier
from bridge.alerts.messages import HOLD_MS, REPEAT_MS
from bridge.alerts.targets import Delivery, targets
from bridge.model import Destination
from bridge.rules import RuleSet
from bridge.store.delivery import restoring
from bridge.store.operator import actions, alerting, forgetting, queries, status
from bridge.store.operator.alerting import AlertMessage
from bridge.store.schema import alerts, goals

URLS = "json://127.0.0.1:1/secret-one mailto://127.0.0.1:2/secret-two"
SENT = Delivery(ok=True)
NOT_LEFT = Delivery(ok=False, left=False, reason="it could not be reached: connection refused")
REFUSED = Delivery(ok=False, reason="it answered 500")
on_both = pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)


class Post:
    """What the targets were sent. answer: theirs."""

    def __init__(self):
        self.sent, self.answer = [], lambda target: SENT

    def __call__(self, target, message):
        self.sent.append((target.place, message.kind, message.title))
        return self.answer(target)

    def kinds(self, place="json (1)"):
        return [kind for to, kind, _ in self.sent if to == place]


@pytest.fixture
def post():
    return Post()


@pytest.fixture
def notifier(store, post):
    def make(process="one", urls=URLS, send=None, in_store=store):
        return Notifier(
            in_store,
            settings_.load({"BRIDGE_ALERTS": urls}),
            process=process,
            rules=lambda: (RuleSet("h", {}, {}, {}, {}), None),
            destinations=lambda: {"default": Destination("default", "df_x")},
            send=send or post,
        )

    return make


@pytest.fixture
def healthy(store):
    """A worker is alive, whatever the clock says."""

    def beat():
        store.run(lambda conn: status.record_heartbeat(conn, "w", kind="worker", rules_hash=None, rules_fault=None))

    return beat


@pytest.fixture
def passes(clock, healthy):
    """Looks for so long, with or without a live worker."""

    def run(ms, *notifiers, working=True, every=5_000):
        for _ in range(ms // every):
            clock.advance(every)
            if working:
                healthy()
            for one in notifiers:
                one.step()

    return run


def all_of(store, table=alerts):
    with store.read() as conn:
        return conn.execute(select(table).order_by(*table.primary_key)).all()


def test_a_problem_is_told_to_each_target_when_it_begins_and_when_it_is_over(notifier, passes, post):
    one, two = notifier("one"), notifier("two")
    passes(60_000, one, two, working=False)
    assert post.kinds() == post.kinds("mailto (2)") == ["begin"]
    passes(60_000, one, two)
    assert post.kinds() == post.kinds("mailto (2)") == ["begin", "over"]
    passes(2 * REPEAT_MS, one, two, every=600_000)
    assert len(post.sent) == 4


@on_both
def test_another_process_takes_over_when_one_is_gone(notifier, passes, post):
    one, two = notifier("one"), notifier("two")
    passes(HOLD_MS - 5_000, one, working=False)
    passes(120_000, two, working=False)
    assert post.kinds() == ["begin"]
    passes(60_000, one)
    assert post.kinds() == ["begin", "over"]


@on_both
def test_only_one_process_looks_at_a_time_until_it_gives_its_turn_back(store, notifier):
    assert store.run(lambda conn: alerting.take_turn(conn, "one"))
    assert not store.run(lambda conn: alerting.take_turn(conn, "two"))
    assert store.run(lambda conn: alerting.take_turn(conn, "one"))
    store.run(lambda conn: alerting.end_turn(conn, "two"))
    assert not store.run(lambda conn: alerting.take_turn(conn, "two"))
    store.run(lambda conn: alerting.end_turn(conn, "one"))
    assert store.run(lambda conn: alerting.take_turn(conn, "two"))


def test_a_turn_that_was_taken_by_a_clock_ahead_ends(store, clock):
    store.run(lambda conn: alerting.take_turn(conn, "one"))
    clock.advance(-3_600_000)
    assert store.run(lambda conn: alerting.take_turn(conn, "two"))


@on_both
def test_the_same_message_is_made_once(store):
    message = AlertMessage("x", "begin", "t", "b")
    for _ in range(2):
        store.run(lambda conn: alerting.make(conn, [message] * 2, [("f", "json (1)")]))
    assert len(all_of(store)) == 1


def test_of_two_that_claim_at_once_one_sends(postgres_store):
    store = postgres_store
    store.run(lambda conn: alerting.make(conn, [AlertMessage("x", "begin", "t", "b")], [("f", "json (1)")]))
    others = []
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    other = threading.Thread(target=lambda: others.append(store.run(lambda conn: alerting.claim(conn, ["f"]))))
    with store.write() as conn:
        assert alerting.claim(conn, ["f"]) is not None
        other.start()
        until = time.monotonic() + 60
        while not conn.execute(waits).scalar():
            assert time.monotonic() < until
    other.join()
    assert others == [None]


# ------------------------------------------------------------------------------------------------- what went wrong


def test_what_certainly_did_not_leave_is_sent_again_three_times(store, notifier, passes, post):
    one = notifier()
    post.answer = lambda target: NOT_LEFT if target.place == "json (1)" else SENT
    passes(HOLD_MS + 5_000, one, working=False)
    assert post.kinds() == post.kinds("mailto (2)") == ["begin"]
    passes(25 * 60_000, one, working=False, every=60_000)
    assert post.kinds() == ["begin"] * 4
    assert post.kinds("mailto (2)") == ["begin"]
    assert [row.state for row in all_of(store)] == ["failed", "sent"]


@pytest.mark.parametrize("answer", [REFUSED, Delivery(ok=False, reason="no answer within 30 s")])
def test_what_may_have_left_is_not_sent_again(store, notifier, passes, post, answer):
    one = notifier()
    post.answer = lambda _: answer
    passes(REPEAT_MS, one, working=False, every=240_000)
    assert post.kinds() == ["begin"]
    assert {row.state for row in all_of(store)} == {"failed"}
    with store.read() as conn:
        seen = status.snapshot(conn, ["default"])
    assert (seen.alert_trouble.count, seen.alert_trouble.reason) == (2, answer.reason)


@on_both
def test_a_process_that_dies_between_claim_and_answer_costs_the_message(store, notifier, passes, post):
    class Killed(BaseException):
        pass

    def die(_target, _message):
        raise Killed

    dying, other = notifier("one", send=die), notifier("two")
    passes(HOLD_MS, dying, working=False)
    with pytest.raises(Killed):
        passes(5_000, dying, working=False)
    passes(REPEAT_MS // 2, other, working=False, every=120_000)
    assert sorted(row.state for row in all_of(store)) == ["sent", "unknown"]  # the other target's was not claimed yet
    assert len(post.sent) == 1


def test_a_beginning_that_was_not_sent_is_not_sent_after_the_end(store, notifier, passes, post):
    one = notifier(urls=URLS.split(maxsplit=1)[0])
    post.answer = lambda _: NOT_LEFT
    passes(HOLD_MS + 5_000, one, working=False)
    post.answer = lambda _: SENT
    passes(HOLD_MS + 10_000, one)
    assert post.kinds() == ["begin", "over"]  # the first one failed
    assert [row.state for row in all_of(store)] == ["dropped", "sent"]


def test_messages_to_a_target_that_is_gone_from_the_setting_are_dropped(store, notifier, passes, post):
    passes(HOLD_MS, notifier("one"), working=False)
    store.run(lambda conn: alerting.make(conn, [AlertMessage("x", "begin", "t", "b")], [("gone", "slack (9)")]))
    passes(REPEAT_MS + 60_000, notifier("one"), working=False, every=60_000)
    assert [row.state for row in all_of(store) if row.place == "slack (9)"] == ["dropped"]


def test_what_is_old_is_removed_and_stays_counted(store, notifier, passes, clock, healthy):
    one = notifier()
    passes(60_000, one, working=False)
    with store.read() as conn:
        before = alerting.counted(conn)
    clock.advance(alerting.KEPT_MS + 60_000)
    healthy()
    one.step()
    with store.read() as conn:
        counted = alerting.counted(conn)
        assert status.totals(conn).alerts == counted
    assert before == {"sent": 2}
    assert counted["sent"] >= 2
    assert not [row for row in all_of(store) if row.kind == "begin"]


def test_the_database_holds_no_url(store, notifier, passes):
    passes(60_000, notifier(), working=False)
    assert "secret" not in str(all_of(store))
    assert len({target.fingerprint for target in targets(URLS.split())}) == 2


# ------------------------------------------------------------------------------------------------------ good news


def wanted(rows, state="delivered", **values):
    given = {"notify": "wanted", "delivered_at_ms": rows.clock.now_ms if state == "delivered" else None}
    return rows.goal(state=state, metadata=json.dumps({"amount": "29.00", "currency": "USD"}), **{**given, **values})


@on_both
def test_a_delivered_goal_is_told_once_by_any_number_of_processes(store, rows, notifier, passes, post):
    goal = wanted(rows)
    one, two = notifier("one"), notifier("two")
    passes(60_000, one, two)
    assert post.sent == [("json (1)", "news", "purchase 29.00 USD"), ("mailto (2)", "news", "purchase 29.00 USD")]
    told = rows.one(goals, goal)
    assert (told.notify, told.told_at_ms is not None) == ("queued", True)
    assert all_of(store)[0].goal_id == goal


@pytest.mark.parametrize("state", ["pending", "parked", "rejected", "dry", "unconfirmed", "held", "cancelled"])
def test_a_goal_that_is_not_delivered_is_not_told(rows, notifier, passes, post, state):
    goal = wanted(rows, state)
    passes(30_000, notifier())
    assert post.sent == []
    assert rows.one(goals, goal).notify == "wanted"


def test_a_goal_whose_rule_does_not_say_so_is_not_told(rows, notifier, passes, post):
    rows.goal(state="delivered", delivered_at_ms=rows.clock.now_ms)
    passes(30_000, notifier())
    assert post.sent == []


def test_old_news_is_missed(rows, notifier, passes, post):
    goal = wanted(rows, delivered_at_ms=rows.clock.now_ms - alerting.STALE_MS - 10_000)
    passes(30_000, notifier())
    assert post.sent == []
    assert rows.one(goals, goal).notify == "missed"


def test_a_generation_that_a_person_sends_again_is_not_told_again(store, rows, notifier, passes, post):
    goal = wanted(rows)
    passes(10_000, notifier())
    outcome, number = store.run(lambda conn: actions.retry(conn, goal, again=True))
    assert outcome is actions.RetryResult.AGAIN
    with store.write() as conn:
        conn.execute(
            update(goals).where(goals.c.id == number).values(state="delivered", delivered_at_ms=rows.clock.now_ms)
        )
    passes(30_000, notifier())
    assert len(post.sent) == 2
    again = rows.one(goals, number)
    assert (again.notify, again.told_at_ms) == (None, None)


@pytest.mark.parametrize(("outcome", "told"), [("delivered", 0), ("not_sent", 2)])
def test_what_a_restored_backup_may_have_told_before_is_not_told_again(rows, notifier, passes, post, outcome, told):
    goal = wanted(rows)
    rows.attempt(goal, outcome, lease_token=f"{restoring.MARK}v1")
    passes(30_000, notifier())
    assert len(post.sent) == told
    assert rows.one(goals, goal).notify == ("queued" if told else "missed")


def test_the_story_says_since_when_a_visitor_is_known(store, rows, notifier, passes, clock):
    first = rows.routed("evt_first", type_="form_response")
    rows.goal(first, state="rejected")
    clock.advance(2 * 86_400_000)
    wanted(rows, once_key="second")
    passes(10_000, notifier())
    assert "First known from form_response, 2 days before." in all_of(store)[0].body


def test_nobody_is_told_of_more_goals_at_once_than_a_look_takes(rows, notifier, passes, post):
    for number in range(alerting.AT_ONCE + 5):
        wanted(rows, once_key=f"many{number}")
    one = notifier(urls=URLS.split(maxsplit=1)[0])
    passes(5_000, one)
    assert len(post.sent) == alerting.AT_ONCE
    passes(5_000, one)
    assert len(post.sent) == alerting.AT_ONCE + 5


def test_forget_removes_what_messages_say_of_a_person(store, rows, notifier, passes, post):
    wanted(rows)
    post.answer = lambda _: NOT_LEFT
    passes(10_000, notifier())
    assert "29.00" in str(all_of(store))
    person = forgetting.Person(goals={all_of(store)[0].goal_id})
    store.run(lambda conn: forgetting.remove(conn, person))
    assert "29.00" not in str(all_of(store))
    post.answer = lambda _: SENT
    passes(120_000, notifier())
    assert len(post.sent) == 2  # those that failed before


def test_lists_say_what_was_told(store, rows, notifier, passes):
    goal = wanted(rows)
    passes(10_000, notifier())
    with store.read() as conn:
        line = queries.show_goal(conn, goal).goal
        newest = alerting.latest(conn, 5)
    assert line.told_at_ms is not None
    assert [(row.kind, row.place, row.state, row.goal_id) for row in newest] == [
        ("news", "mailto (2)", "sent", goal),
        ("news", "json (1)", "sent", goal),
    ]


def test_looking_for_news_goes_by_its_own_index(sqlite_store):
    with sqlite_store.read() as conn:
        query = str(alerting._DELIVERED.compile(dialect=conn.dialect, compile_kwargs={"literal_binds": True}))
        plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    assert "ix_goals_notify" in str(plan)
