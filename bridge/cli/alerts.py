"""`alerts`: the latest messages to BRIDGE_ALERTS, the current problems, and whether the targets answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from bridge import alarms, loading
from bridge.alerts import messages, targets
from bridge.cli import parameters, resources
from bridge.cli.catalogue import Section
from bridge.cli.screen import current_screen
from bridge.errors import BridgeError, ProblemsError
from bridge.store.operator import alerting, status
from bridge.text import count, when_short

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from bridge.alarms import Alarm
    from bridge.store.operator.alerting import Problem

_KINDS = {"begin": "problem", "over": "over", "news": "good news"}
_STATES = {
    "due": "waits",
    "sending": "is being sent",
    "sent": "sent",
    "failed": "not sent",
    "unknown": "may have been sent",
    "dropped": "dropped",
}


@click.group(
    cls=Section,
    examples=[
        ("alerts", "the current problems, and the newest messages"),
        ("alerts test", "one message to each target of BRIDGE_ALERTS"),
    ],
)
def alerts() -> None:
    """Show the messages to BRIDGE_ALERTS, and test its targets."""


@alerts.command("list", examples=[("alerts list --limit 5", "the current problems, and the last five messages")])
@parameters.LIMIT
def list_(limit: int) -> None:
    """Show the current problems, and the newest messages with the outcome of each."""
    screen = current_screen()
    settings = resources.settings()
    with resources.store() as store, store.read() as conn:
        found = {messages.key_of(alarm): alarm for alarm in _alarms(conn)}
        known, rows = alerting.problems(conn), alerting.latest(conn, limit)
    screen.write_json(
        {
            "targets": [target.place for target in targets.targets(settings.bridge_alerts)],
            "problems": [_problem(key, alarm, known) for key, alarm in found.items()],
            "messages": [dict(row._mapping) for row in rows],  # noqa: SLF001 - SQLAlchemy's public name
        }
    )
    if not settings.bridge_alerts:
        screen.say("BRIDGE_ALERTS is not set, so nobody is notified (docs/alerts.md).")
    else:
        screen.say(f"{targets.summary(settings.bridge_alerts)}.")
    screen.heading("Problems now")
    for key, alarm in found.items():
        screen.facts([(_reported(known.get(key)), f"{alarm.sentence} {alarm.explanation}")])
    if not found:
        screen.say("none", indent=2)
    screen.heading("Messages")
    screen.table(("MADE (UTC)", "KIND", "TO", "STATE", "ABOUT"), [_row(row) for row in rows], none="None yet.")


def _alarms(conn: Connection) -> tuple[Alarm, ...]:
    """The alarms of `/status`, as far as a command can know them."""
    settings = resources.settings_or_defaults()
    try:
        rule_set = resources.load_rules()
    except ProblemsError:
        rule_set = None
    destinations = loading.destinations(settings, rule_set)
    seen = status.snapshot(conn, sorted(destinations), settings.stripe_api_key)
    sources = rule_set.sources if rule_set else {}
    return alarms.alarms(seen, None, sources, destinations, settings.bridge_attribution_alarm)


def _problem(key: str, alarm: Alarm, known: Mapping[str, Problem]) -> dict[str, Any]:
    problem = known.get(key)
    return {
        "name": alarm.name,
        "about": alarm.about,
        "sentence": alarm.sentence,
        "detail": alarm.detail,
        "began_at_ms": problem and problem.began_at_ms,
        "told_at_ms": problem.told_at_ms if problem and problem.told else None,
    }


def _reported(problem: Problem | None) -> str:
    if problem is None or not problem.told:
        return "not reported yet"
    return f"reported {when_short(problem.told_at_ms)}"


def _row(row: Row[*tuple[Any, ...]]) -> tuple[str, ...]:
    state = _STATES[row.state] + (f": {row.message}" if row.message else "")
    about = f"goal_{row.goal_id} {row.title}" if row.goal_id else row.title
    return when_short(row.made_at_ms), _KINDS.get(row.kind, row.kind), row.place, state, about


@alerts.command("test", examples=[("alerts test", "says which targets accepted it")])
def test() -> int:
    """Send one test message to each target of BRIDGE_ALERTS, and say which accepted it.

    The exit code is 1 if one did not. The command needs no database and stores nothing.
    """
    screen = current_screen()
    urls = resources.settings().bridge_alerts
    if not urls:
        raise BridgeError(
            "BRIDGE_ALERTS is not set. Set it to one or more apprise URLs, such as slack://… (docs/alerts.md)."
        )
    found = targets.targets(urls)
    answers = []
    for number, target in enumerate(found, 1):
        delivery = targets.send(target, messages.trial(number, len(found)))
        answers.append({"target": target.place, "ok": delivery.ok, "reason": delivery.reason or None})
        screen.mark("ok" if delivery.ok else "fail", f"{target.place}: {delivery.reason or 'it accepted the message'}")
    failed = sum(not answer["ok"] for answer in answers)
    outcome = f"{count(failed, 'target')} did not accept" if failed else "Every target accepted"
    screen.answer({"ok": not failed, "targets": answers}, "", f"{outcome} the message.")
    return 1 if failed else 0
