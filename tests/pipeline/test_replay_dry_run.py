"""`events replay --dry-run`: what routing events again would do is what it then does, and nothing is changed before."""

from __future__ import annotations

import json

import pytest
from identity_kit import ALICE, DAY, HOUR, SECRETS, Rig, rule_set, stripe_event
from sqlalchemy import update

from bridge.cli import main
from bridge.store import schema
from bridge.store.inbox import events as inbox
from bridge.workbench import replay, stored

OLD = """
provider: stripe
goals:
  - {goal: bought, event: checkout.session.completed, once_per: data.object.id}
  - {goal: failed, event: invoice.payment_failed, once_per: data.object.id}
"""
NEW = (
    OLD
    + """
  - {goal: again, event: checkout.session.completed, once_per: data.object.customer}
  - {goal: refund, event: charge.refunded, once_per: data.object.id}
  - {goal: recovered, event: invoice.paid, follows: failed, once_per: data.object.id}
"""
)


def thing(kind, name, visitor=None, **more):
    metadata = {"metadata": {"datafast_visitor_id": visitor}} if visitor else {}
    return stripe_event(kind, {"object": kind.rpartition(".")[0], "id": name} | metadata | more)


HAPPENED = (
    lambda: thing("checkout.session.completed", "cs_1", ALICE, customer="cus_1"),
    lambda: thing("checkout.session.completed", "cs_2", ALICE, customer="cus_1"),
    lambda: thing("charge.refunded", "ch_1", customer="cus_1"),
    lambda: thing("charge.refunded", "ch_2"),
    lambda: thing("invoice.payment_failed", "in_1", ALICE),
    lambda: thing("invoice.paid", "in_1", ALICE),
    lambda: thing("invoice.paid", "in_2", ALICE),
    lambda: thing("price.created", "p_1"),
)


@pytest.fixture
def rig(store, clock):
    made = Rig(store, clock, {"stripe.yaml": OLD})
    made.route(*(happened() for happened in HAPPENED))
    made.rules = rule_set({"stripe.yaml": NEW})
    return made


def previewed(rig, *ids):
    preparer = stored.preparer(rig.store, rig.rules, rig.settings)
    return list(replay.preview(rig.store, preparer, ids or range(1, len(HAPPENED) + 1)))


def goals(found):
    return [(one.event_id, goal.name, goal.outcome, goal.state.value) for one in found for goal in one.goals]


def everything(store):
    with store.read() as conn:
        return {table.name: sorted(map(str, conn.execute(table.select()))) for table in schema.metadata.sorted_tables}


def test_what_is_foretold_is_what_a_replay_then_does(rig):
    found = previewed(rig)
    there = {goal.id for goal in rig.goals()}
    new = {(goal.name, goal.once_key, goal.state.value) for one in found for goal in one.goals if goal.outcome == "new"}
    with rig.store.write() as conn:
        assert all(inbox.requeue(conn, one.event_id) for one in found)
    rig.route_all()
    assert new == {(goal.name, goal.once_key, goal.state) for goal in rig.goals() if goal.id not in there}
    assert len(new) == 4
    verdicts = {row.id: row.verdict for row in rig.rows(schema.events)}
    assert {one.event_id: one.verdict for one in found} == verdicts


def test_each_goal_is_foretold_with_its_state(rig):
    assert goals(previewed(rig)) == [
        (1, "bought", "known", "pending"),
        (1, "again", "new", "pending"),
        (2, "bought", "known", "pending"),
        (2, "again", "known", "pending"),
        (3, "refund", "new", "parked"),
        (4, "refund", "new", "parked"),
        (5, "failed", "known", "pending"),
        (6, "recovered", "new", "pending"),
    ]


def test_nothing_is_changed(rig):
    before = everything(rig.store)
    assert previewed(rig)
    assert everything(rig.store) == before


def test_a_goal_that_has_grown_too_old_is_not_sent(rig, clock):
    clock.advance(30 * DAY)
    (one,) = previewed(rig, 6)
    assert [(goal.name, goal.state.value) for goal in one.goals] == [("recovered", "expired")]


def test_a_goal_without_a_visitor_that_would_find_one_takes_it(rig):
    rig.route(thing("charge.refunded", "ch_2"))
    with rig.store.write() as conn:
        conn.execute(update(schema.goals).where(schema.goals.c.name == "refund").values(state="unattributed"))
        body = json.dumps(thing("charge.refunded", "ch_2", ALICE)).encode()
        conn.execute(update(schema.events).where(schema.events.c.id == 4).values(body=body))
    (one,) = previewed(rig, 4)
    assert [(goal.outcome, goal.state.value, goal.visitor) for goal in one.goals] == [("merged", "pending", ALICE)]


def test_an_event_that_would_not_be_routed_says_why(rig):
    waiting = rig.put(thing("price.created", "p_2"))
    with rig.store.write() as conn:
        conn.execute(update(schema.events).where(schema.events.c.id == 1).values(body=None))
    assert [one.refused for one in previewed(rig, 1, waiting, 8)] == [replay.GONE, None, replay.WAITS]
    assert previewed(rig, 8)[0].verdict == "unmatched"


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(sqlite_store, clock, sqlite_url, tmp_path, monkeypatch, capfd):
    from bridge.store.clock import system_ms

    clock.set(system_ms())
    rig = Rig(sqlite_store, clock, {"stripe.yaml": OLD})
    rig.route(*(happened() for happened in HAPPENED))
    with rig.store.write() as conn:
        moved = update(schema.events).where(schema.events.c.id <= 2)
        conn.execute(moved.values(received_at_ms=clock.now_ms - 2 * HOUR))
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings/stripe.yaml").write_text(NEW)
    for name, value in {**SECRETS, "DATABASE_URL": sqlite_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        before = everything(sqlite_store)
        code = main(["events", "replay", *words])
        out, err = capfd.readouterr()
        assert everything(sqlite_store) == before
        return code, out, err

    return run


def test_the_answer_counts_first_and_asks_nothing(command):
    code, out, err = command("--since", "1d", "--until", "1h", "--dry-run")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith("Routing 2 events again: 1 new goal (1 ")
    assert lines[0].endswith(" and 3 goals would stay as they are. Nothing was changed.")
    assert any(line.startswith("ev_1   checkout.session.completed  ") and "again (new" in line for line in lines)
    assert not any(line.startswith("ev_2 ") for line in lines)


def test_until_is_a_time_or_how_long_ago(command):
    def selected(*words):
        return json.loads(command("--dry-run", "--json", *words)[1])["events"]

    assert (selected("--until", "1h"), selected("--until", "2000-01-01T00:00:00Z"), selected("--since", "1h")) == (
        2,
        0,
        6,
    )
    code, _, err = command("--until", "soon", "--dry-run")
    assert code == 2
    assert "'soon' is neither a duration (6h, 7d) nor a time like 2026-05-03T14:00:00Z" in err


def test_as_json_every_event_has_its_goals(command):
    told = json.loads(command("ev_1", "ev_8", "--dry-run", "--json")[1])
    assert (told["ok"], told["dry_run"], told["routed"], told["not_routed"]) == (True, True, 2, [])
    assert told["goals"] == {"new": 1, "merged": 0, "known": 1}
    assert [(one["event"], [goal["name"] for goal in one["goals"]]) for one in told["foretold"]] == [
        ("ev_1", ["bought", "again"]),
        ("ev_8", []),
    ]
