"""One message to one target, through apprise and over real sockets; and the commands that try and read targets."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.alerts.targets import send, targets, unreadable
from bridge.store.operator.alerting import AlertMessage

ROOT = Path(__file__).parents[2]
MESSAGE = AlertMessage("x", "news", "purchase 29.00 USD", "purchase 29.00 USD, plan pro\nVisitor: not known.")
GRUFF = "must-not-be-told"


def to(url, **more):
    (target,) = targets([url])
    return send(target, MESSAGE, **more)


def nobody():
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_chat_takes_a_message(chat):
    assert to(chat.url).ok
    (message,) = chat.messages
    assert (message["title"], message["message"], message["type"]) == (MESSAGE.title, MESSAGE.body, "success")


def test_a_mail_server_takes_a_message(mail):
    assert to(mail.url).ok
    (found,) = mail.mails
    assert re.search(r"^Subject: purchase 29\.00 USD$", found, re.MULTILINE)
    assert "to: me@example.com" in found.lower()


@pytest.mark.long
def test_a_title_is_one_header_whatever_it_contains(mail):
    (target,) = targets([mail.url])
    send(target, AlertMessage("x", "news", "a\r\nBcc: you@example.com", "b"))
    assert not any(re.search(r"^Bcc:", found, re.MULTILINE) for found in mail.mails)


@pytest.mark.long
@pytest.mark.parametrize("status", [401, pytest.param(503, marks=pytest.mark.long)])
def test_a_refusal_says_its_status_and_may_have_left(chat, status):
    chat.status = status
    done = to(chat.url)
    assert (done.ok, done.left, done.reason) == (False, True, f"it answered {status}")


@pytest.mark.long
@pytest.mark.parametrize(
    "url",
    [
        "json://127.0.0.1:{port}/token-that-must-not-be-told",
        pytest.param(
            "mailto://u:must-not-be-told@127.0.0.1:{port}?smtp=127.0.0.1&mode=insecure&from=a@example.com&to=a@example.com",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_was_never_connected_certainly_did_not_leave(url):
    done = to(url.format(port=nobody()))
    assert (done.ok, done.left) == (False, False)
    assert done.reason == "it could not be reached: connection refused"


@pytest.mark.long
def test_a_name_that_does_not_exist_is_said():
    done = to("json://nobody.invalid/token-that-must-not-be-told")
    assert (done.ok, done.left) == (False, False)
    assert "its name was not found" in done.reason


@pytest.mark.long
def test_a_target_that_hangs_is_ended(chat):
    chat.hangs = True
    done = to(f"{chat.url}?rto=60", limit_s=8.0)  # apprise has to be loaded in that time
    assert (done.ok, done.left) == (False, True)
    assert len(chat.messages) == 1


def test_a_url_that_apprise_cannot_read_is_named_without_its_secret():
    urls = ["json://127.0.0.1", "slack://token-that-must-not-be-told", "nosuch://must-not-be-told"]
    told = unreadable(urls)
    assert [re.search(r"target (\d) of 3 \((\w+)://", sentence).groups() for sentence in told] == [
        ("2", "slack"),
        ("3", "nosuch"),
    ]
    assert GRUFF not in str(told)
    done = to(urls[1])
    assert (done.ok, done.left) == (False, False)
    assert GRUFF not in done.reason


def test_apprise_is_loaded_in_no_process_of_the_bridge():
    code = "import sys, bridge.app, bridge.cli.alerts, bridge.alerts.targets; print('apprise' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def bridge(tmp_path):
    """A command in an empty folder: its exit code and what it says."""

    def run(*words, **environ):
        (tmp_path / "mappings").mkdir(exist_ok=True)
        file = tmp_path / "mappings" / "stripe.yaml"
        file.write_text("provider: stripe\ngoals:\n  - {goal: refund, event: charge.refunded, notify: true}\n")
        done = subprocess.run(
            [sys.executable, "-m", "bridge", *words],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "STRIPE_WEBHOOK_SECRET": "whsec_x" + "y" * 30, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert GRUFF not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


def test_alerts_test_says_which_targets_took_the_message(bridge, chat, mail):
    urls = f"{chat.url} {mail.url}"
    code, out = bridge("alerts", "test", BRIDGE_ALERTS=urls)
    assert (code, out.splitlines()[-1]) == (0, "Every target accepted the message.")
    assert "ok    json (1): it accepted the message" in out
    assert (len(chat.messages), len(mail.mails)) == (1, 1)


@pytest.mark.long
@pytest.mark.parametrize("as_json", [True, pytest.param(False, marks=pytest.mark.long)])
def test_alerts_test_says_which_target_refused_the_message(bridge, chat, mail, as_json):
    chat.status = 403
    code, out = bridge("alerts", "test", *["--json"] * as_json, BRIDGE_ALERTS=f"{chat.url} {mail.url}")
    assert code == 1
    if not as_json:
        assert "fail  json (1): it answered 403" in out
        return
    found = json.loads(out)
    assert (found["ok"], [one["ok"] for one in found["targets"]]) == (False, [False, True])


@pytest.mark.long
def test_alerts_test_without_targets_says_what_to_set(bridge):
    code, out = bridge("alerts", "test")
    assert (code, "BRIDGE_ALERTS is not set" in out) == (1, True)


@pytest.mark.long
def test_check_says_how_many_targets_there_are_and_which_cannot_be_read(bridge):
    code, out = bridge("check", BRIDGE_ALERTS="json://127.0.0.1/must-not-be-told ntfy://must-not-be-told")
    assert (code, "BRIDGE_ALERTS has 2 targets: json (1), ntfy (2)" in out) == (0, True)
    assert "notifies nobody" not in out
    code, out = bridge("check", BRIDGE_ALERTS="json://127.0.0.1 slack://must-not-be-told")
    assert code == 1
    assert "apprise cannot read target 2 of 2 (slack://…)" in out
    code, out = bridge("check", BRIDGE_ALERTS="json://127.0.0.1 must-not-be-told")
    assert (code, "BRIDGE_ALERTS: target 2 of 2 is not an apprise URL" in out) == (1, True)


@pytest.mark.long
def test_check_warns_of_notify_where_nobody_is_told(bridge):
    code, out = bridge("check")
    assert (code, "`notify: true` notifies nobody, because BRIDGE_ALERTS is not set (stripe: refund)" in out) == (
        0,
        True,
    )


@pytest.mark.long
def test_doctor_checks_that_targets_can_be_read(bridge):
    _, out = bridge("doctor", BRIDGE_ALERTS="json://127.0.0.1/must-not-be-told")
    assert "ok    alerts: BRIDGE_ALERTS has 1 target: json (1)" in out
    code, out = bridge("doctor", BRIDGE_ALERTS="slack://must-not-be-told")
    assert (code, "fail  alerts: BRIDGE_ALERTS: apprise cannot read target 1 of 1" in out) == (1, True)


@pytest.mark.long
def test_alerts_without_a_problem_and_without_targets(bridge):
    assert bridge("migrate")[0] == 0
    code, out = bridge("alerts")
    assert code == 0
    assert out.startswith("BRIDGE_ALERTS is not set, so nobody is notified")
    assert "None yet." in out
