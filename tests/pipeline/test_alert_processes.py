"""Alerts with web processes, a worker and stand-ins for a chat and a mail server: each message once.

Where a state takes time to come, the rows are made older, never the waits shorter; but the processes look five times
as often as they would.
"""

from __future__ import annotations

import os
import re
import signal

import pytest
from running import ALICE, checkout, environment, eventually
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

_OFTEN = """
import sys
from bridge import alerts
alerts.LOOK_S = 1.0
from bridge.cli import main
sys.argv = ["bridge", "serve"]
main()
"""
SERVE = ["python", "-c", _OFTEN]
LAYER = "extends: stripe\ngoals:\n  - {id: purchase, notify: true}\n"


@pytest.fixture
def sql(database_url):
    engine = create_engine(database_url, poolclass=NullPool)

    def run(statement):
        with engine.begin() as conn:
            done = conn.exec_driver_sql(statement)
            return list(done) if done.returns_rows else done.rowcount

    return run


@pytest.fixture
def given(machine, database_url, chat, mail):
    """The environment of every process; the chat and the mail server are its targets."""
    (machine.folder / "mappings").mkdir()
    (machine.folder / "mappings" / "stripe.yaml").write_text(LAYER)
    datafast = machine.datafast()
    more = {"BRIDGE_ALERTS": f"{chat.url}?rto=60 {mail.url}", "BRIDGE_WORKER": "off"}
    return environment(datafast, database_url, machine.folder / "mappings", **more)


def looks_again(sql):
    """Wait until somebody has looked twice from now on."""
    for _ in range(2):
        before = sql("SELECT value FROM facts WHERE name = 'alerts_turn'")
        eventually(lambda before=before: sql("SELECT value FROM facts WHERE name = 'alerts_turn'") != before)


@pytest.mark.long
def test_a_problem_and_a_goal_are_told_once_each_to_a_chat_and_by_mail(machine, given, chat, mail, sql, command):
    webs = [machine.web(given, name, SERVE) for name in ("one", "two")]
    eventually(lambda: sql("UPDATE alert_problems SET began_at_ms = began_at_ms - 30000"), what="no worker runs")
    eventually(lambda: len(chat.messages) == len(mail.mails) == 1, what="that the problem began is told")
    assert chat.messages[0]["title"] == "No worker is running: events are stored, but nothing is sent."
    assert "python -m bridge serve" in chat.messages[0]["message"]

    machine.bridge("worker", environ=given, name="worker")
    ended = "UPDATE alert_problems SET gone_at_ms = gone_at_ms - 30000 WHERE gone_at_ms IS NOT NULL"
    eventually(lambda: sql(ended), what="a worker runs")
    eventually(lambda: len(chat.messages) == len(mail.mails) == 2, what="that it is over is told")
    assert chat.messages[1]["title"].startswith("Over: No worker is running")

    for web in webs:  # the provider tells it twice
        assert web.stripe(checkout(7)).status_code == 200
    assert webs[0].stripe({**checkout(8), "livemode": False}).status_code == 200
    eventually(lambda: len(chat.messages) == len(mail.mails) == 3, what="the good news is told")
    sql("UPDATE alert_problems SET began_at_ms = began_at_ms - 7200000, told_at_ms = told_at_ms - 7200000")
    looks_again(sql)
    assert (len(chat.messages), len(mail.mails)) == (3, 3)

    news = chat.messages[2]
    assert re.fullmatch(r"purchase 49(\.00)? USD", news["title"])
    assert ALICE in news["message"]
    for text in (news["message"], mail.mails[2]):
        assert not re.search(r"must-not-be-told|whsec_|cus_7|pi_7|evt_7|https?://", text)
    told = r"BRIDGE_ALERTS was notified at \d\d:\d\d"
    for words in (("goals",), ("why", "goal_1"), ("goals", "show", "goal_1")):
        code, shown = command(*words, **given)
        assert code == 0
        assert len(re.findall(told, shown)) == 1, shown
        assert not re.search(r"(token|password)-that-must-not-be-told", shown)
    assert 'bridge_alerts_total{outcome="sent"} 6.0' in eventually(
        lambda: (text := webs[0].get("/metrics", admin=True).text) and 'sent"} 6.0' in text and text
    )
    code, listed = command("alerts")
    assert (code, listed.count("  sent  "), "good news" in listed) == (0, 6, True)
    assert not re.search(r"(token|password)-that-must-not-be-told", listed)
    for process in machine.started:
        assert not re.search(r"(token|password)-that-must-not-be-told", process.log)


@pytest.mark.long
def test_a_process_that_is_killed_while_it_sends_doubles_nothing(machine, given, chat, sql):
    chat.hangs = True
    one = machine.web({**given, "BRIDGE_ALERTS": given["BRIDGE_ALERTS"].split()[0]}, "one", SERVE)
    eventually(lambda: sql("UPDATE alert_problems SET began_at_ms = began_at_ms - 30000"), what="no worker runs")
    eventually(lambda: chat.messages, what="the chat is being told")
    os.killpg(one.process.pid, signal.SIGKILL)
    one.ended()
    chat.hangs = False
    sql("UPDATE alerts SET changed_at_ms = changed_at_ms - 180000")
    sql("UPDATE facts SET value = '0 nobody' WHERE name = 'alerts_turn'")
    two = machine.web({**given, "BRIDGE_ALERTS": given["BRIDGE_ALERTS"].split()[0]}, "two", SERVE)
    eventually(lambda: sql("SELECT 1 FROM alerts WHERE state = 'unknown'"), what="nobody knows what became of it")
    looks_again(sql)
    assert len(chat.messages) == 1
    assert "Messages to BRIDGE_ALERTS could not be sent." in two.get("/status").json()["notes"]
    listed = machine.bridge("alerts", environ=given, name="alerts")
    assert listed.ended() == 0
    assert "may have been sent: its process ended" in listed.log
