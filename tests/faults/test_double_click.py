"""Sending again is safe: whoever clicks twice, from whatever processes at the same moment, sends once."""

from __future__ import annotations

import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update
from stage import PATIENCE_S, Stage, checkout

from bridge import store as bridge_store
from bridge.store import schema
from bridge.store.inbox import events
from bridge.store.operator import actions
from chaos.family import wait

CLICKS = 6


def at_once(work, count):
    """`work` from so many threads, which begin together; what they got."""
    ready = threading.Barrier(count)

    def click(number):
        ready.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(click, range(count)))


def set_state(stage, goal_id, state):
    store = bridge_store.open(stage.database_url)
    store.run(lambda conn: conn.execute(update(schema.goals).where(schema.goals.c.id == goal_id).values(state=state)))
    store.close()


def deliver(stage):
    """Five goals."""
    web = stage.web()
    for number in range(5):
        assert stage.post(web, checkout(number)).status_code == 200
    stage.wait_recorded(*range(5))
    wait(lambda: stage.sql("SELECT count(*) FROM goals WHERE state = 'delivered'")[0][0] == 5, PATIENCE_S, "written")
    web.signal(signal.SIGTERM, to="master")
    assert web.process.wait(30) == 0


@pytest.fixture(scope="module")
def delivered_file(tmp_path_factory, sqlite_template):
    """A SQLite database with the goals, to copy."""
    folder = tmp_path_factory.mktemp("delivered")
    shutil.copy(sqlite_template, folder / "bridge.db")
    made = Stage(folder, f"sqlite:///{folder / 'bridge.db'}")
    deliver(made)
    made.close()
    return folder / "bridge.db"


@pytest.fixture
def delivered(request, stage, tmp_path):
    """Some goals that were delivered, and nobody who would send more just now; two stores, as two processes have."""
    if stage.database_url.startswith("sqlite"):
        shutil.copy(request.getfixturevalue("delivered_file"), tmp_path / "bridge.db")
    else:
        deliver(stage)
    stores = [bridge_store.open(stage.database_url) for _ in range(2)]
    yield stores
    for store in stores:
        store.close()


def all_goals(store):
    with store.read() as conn:
        return conn.execute(select(schema.goals).order_by(schema.goals.c.id)).all()


def test_delivered_goals_get_one_new_generation_each_with_its_own_key(delivered):
    first = all_goals(delivered[0])
    for goal in first:
        outcomes = at_once(
            lambda n, goal=goal: delivered[n % 2].run(lambda conn: actions.retry(conn, goal.id, again=True)), CLICKS
        )
        assert sorted(outcome for outcome, _ in outcomes) == ["again"] + ["already"] * (CLICKS - 1)
        assert len({number for _, number in outcomes}) == 1
    made = all_goals(delivered[0])[len(first) :]
    assert sorted(goal.once_key for goal in made) == sorted(f"{goal.once_key}#2" for goal in first)
    assert {(goal.state, goal.generation) for goal in made} == {("pending", 2)}


def test_what_was_not_delivered_goes_out_as_itself_and_makes_no_other(stage, delivered):
    goals = all_goals(delivered[0])
    for goal, state in zip(goals, ("held", "rejected", "expired", "cancelled", "pending"), strict=True):
        set_state(stage, goal.id, state)
        outcomes = at_once(lambda n, goal=goal: delivered[n % 2].run(lambda conn: actions.retry(conn, goal.id)), CLICKS)
        assert {outcome for outcome, _ in outcomes} == {"queued"}
    assert [(goal.state, goal.attempts) for goal in all_goals(delivered[0])] == [("pending", 0)] * len(goals)


def test_an_event_is_put_back_once(stage, delivered):
    ids = [number for (number,) in stage.sql("SELECT id FROM events")]
    for number in ids:
        done = at_once(lambda n, id_=number: delivered[n % 2].run(lambda conn: events.requeue(conn, id_)), CLICKS)
        assert sorted(map(bool, done)) == [False] * (CLICKS - 1) + [True]


@pytest.mark.long
def test_commands_that_run_at_once_beside_a_worker_send_once_more_altogether(stage):
    web = stage.web()
    assert stage.post(web, checkout(1)).status_code == 200
    stage.wait_recorded(1)
    wait(lambda: stage.sql("SELECT state FROM goals") == [("delivered",)], PATIENCE_S, "it is written")
    ((goal,),) = stage.sql("SELECT id FROM goals")
    asked = stage.member("asked", ["-m", "bridge", "goals", "retry", f"goal_{goal}"], None, stage.environ())
    assert asked.process.wait(60) == 2  # nobody there to say yes
    assert "Send again, so that DataFast counts it twice?" in asked.log_file.read_text()
    words = [
        *[["goals", "retry", f"goal_{goal}", "--yes"]] * 3,
        *[["events", "replay", "evt_1", "--yes"]] * 3,
    ]
    clicks = [
        stage.member(f"click-{n}", ["-m", "bridge", *said], None, stage.environ()) for n, said in enumerate(words)
    ]
    codes = [click.process.wait(60) for click in clicks]
    assert sorted(codes[:3]) == [0, 1, 1]
    assert 0 in codes[3:]
    stage.wait_recorded(1, 1)
    wait(lambda: stage.sql("SELECT 1 FROM events WHERE state = 'received'") == [], PATIENCE_S, "all is routed")
    wait(lambda: stage.sql("SELECT 1 FROM goals WHERE state <> 'delivered'") == [], PATIENCE_S, "all is settled")
    assert len(stage.recorded()) == 2
    assert stage.sql("SELECT count(*) FROM goals") == [(2,)]
