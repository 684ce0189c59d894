"""An event whose routing fails, or kills the process: set aside after at most three crashes; nobody else is hurt."""

from __future__ import annotations

import pytest
import requests
from stage import PATIENCE_S, checkout

from chaos.family import wait

_POISONED = """
import os, signal, sys
from bridge import route
routed = route.Preparer.prepare
def prepare(self, event):
    if b"poison" in event.body:
        os.kill(os.getpid(), signal.SIGKILL)
    return routed(self, event)
route.Preparer.prepare = prepare
from bridge.cli import main
sys.argv = ["bridge", "worker"]
main()
"""

_RAISING = """
import sys
from bridge import rules
evaluate = rules.evaluate
def failing(rule_set, source, document, **options):
    if "poison" in str(document.body):
        raise ArithmeticError("the text of a body that must not be told")
    return evaluate(rule_set, source, document, **options)
rules.evaluate = failing
from bridge.cli import main
sys.argv = ["bridge", "worker"]
main()
"""


def problems(web):
    answer = requests.get(f"http://127.0.0.1:{web.port}/status", timeout=30)
    assert answer.status_code == (503 if answer.json()["problems"] else 200)
    return answer.json()["problems"]


@pytest.mark.long
def test_an_event_that_kills_its_process_is_quarantined_after_three_crashes_and_fixed_by_replay(stage):
    short = {"BRIDGE_LEASE": "400ms", "BRIDGE_DEADLINE": "200ms"}
    web = stage.web(BRIDGE_WORKER="off", **short)
    for number in ("a", "poison", "b", "c"):
        assert stage.post(web, checkout(number)).status_code == 200
    worker = stage.member("worker", ["-c", _POISONED], None, stage.environ(**short))
    crashes = 0
    while not set(stage.recorded()) >= {"stripe evt_a", "stripe evt_b", "stripe evt_c"}:
        if worker.process.poll() is not None:
            assert worker.process.returncode == -9
            crashes += 1
            assert crashes <= 3
            worker.start()
        wait(lambda: worker.process.poll() is not None or len(stage.recorded()) == 3, PATIENCE_S, "it goes on")
    assert 1 <= crashes <= 3
    wait(lambda: "Events are in quarantine." in problems(web), PATIENCE_S, "/status is red")
    assert "stripe evt_poison" not in stage.recorded()
    worker.end()

    stage.member("fixed", ["-m", "bridge", "worker"], None, stage.environ(**short))
    command = ["-m", "bridge", "events", "replay", "evt_poison"]
    replay = stage.member("replay", command, None, stage.environ(**short))
    assert replay.process.wait(60) == 0, replay.log_file.read_text()
    stage.wait_recorded("a", "b", "c", "poison")
    wait(lambda: problems(web) == [], PATIENCE_S, "/status is green")


@pytest.mark.long
def test_an_event_on_which_a_rule_raises_is_quarantined_at_once_and_fixed_by_replay(stage):
    web = stage.web(BRIDGE_WORKER="off")
    for number in ("a", "poison", "b"):
        assert stage.post(web, checkout(number)).status_code == 200
    worker = stage.member("worker", ["-c", _RAISING], None, stage.environ())
    stage.wait_recorded("a", "b")
    wait(lambda: problems(web) == ["Events are in quarantine."], PATIENCE_S, "/status is red")
    assert worker.process.poll() is None
    told = stage.command("events", "show", "evt_poison")
    assert "ArithmeticError" in told
    assert "must not be told" not in told + worker.log_file.read_text()
    assert stage.post(web, checkout("c")).status_code == 200  # and it goes on
    stage.wait_recorded("a", "b", "c")
    worker.end()
    stage.member("fixed", ["-m", "bridge", "worker"], None, stage.environ())
    stage.command("events", "replay", "evt_poison")
    stage.wait_recorded("a", "b", "c", "poison")
    wait(lambda: problems(web) == [], PATIENCE_S, "/status is green")
