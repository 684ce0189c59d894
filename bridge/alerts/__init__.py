"""Alerts: notify the targets of `BRIDGE_ALERTS` when a problem begins or ends, and about goals with `notify`.

It checks problems and delivered goals every few seconds, and sends what is due. `messages` is pure: the wording and the
timing. `targets` sends from a separate process, because sending takes memory and may take long.

Every process does this if `BRIDGE_ALERTS` is set, so that a dead worker is reported, too. They take turns, and one row
per message and target, claimed before sending, keeps two of them from sending it twice. A message that certainly did
not leave is retried. One that may have left is not, so a process that is killed in between loses that message.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from bridge import logs
from bridge.alarms import alarms
from bridge.alerts import messages, targets
from bridge.identity.choice import FoundVisitor
from bridge.store.clock import read_ms
from bridge.store.operator import alerting, status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection, Row

    from bridge.alarms import Alarm
    from bridge.alerts.targets import Delivery, Target
    from bridge.model import Destination
    from bridge.rules import RuleSet
    from bridge.settings import Settings
    from bridge.store import Store
    from bridge.store.operator.alerting import AlertClaim

LOOK_S: Final = 5.0
RETRY_MS: Final = (60_000, 5 * 60_000, 15 * 60_000)  # for messages that certainly did not leave

log = logs.get("alerts")


class Notifier:
    """One process's part in notifying the owner.

    process: a unique name. rules: the rules in force, and why newer ones are not.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        process: str,
        rules: Callable[[], tuple[RuleSet, str | None]],
        destinations: Callable[[], Mapping[str, Destination]],
        stopping: Callable[[], bool] = lambda: False,
        send: Callable[[Target, AlertClaim], Delivery] = targets.send,
    ) -> None:
        self._store = store
        self._settings = settings
        self._targets = {target.fingerprint: target for target in targets.targets(settings.bridge_alerts)}
        self._process = process
        self._rules = rules
        self._destinations = destinations
        self._stopping = stopping
        self._send = send

    def step(self) -> None:
        """Look, if it is this process's turn, and send what is due."""
        with self._store.read() as conn:
            if not alerting.may_take_turn(conn, self._process):
                return
            found = {messages.key_of(alarm): alarm for alarm in self._alarms(conn)}
        if self._store.run(lambda conn: self._look(conn, found), durable=False):
            working = dict(self._targets)
            while working and not self._stopping() and self._send_one(working):
                pass

    def _alarms(self, conn: Connection) -> tuple[Alarm, ...]:
        """The alarms of `/status`."""
        rules, problem = self._rules()
        destinations = self._destinations()
        seen = status.snapshot(conn, sorted(destinations), self._settings.stripe_api_key)
        return alarms(seen, problem, rules.sources, destinations, self._settings.bridge_attribution_alarm)

    def _look(self, conn: Connection, found: Mapping[str, Alarm]) -> bool:
        """Create messages for what has changed; return whether it was this process's turn."""
        if not alerting.take_turn(conn, self._process):
            return False
        now = read_ms(conn)
        changes = messages.step(alerting.problems(conn), found, now)
        alerting.remember(conn, changes.remembered, changes.forgotten)
        alerting.withdraw(conn, changes.over)
        rows = alerting.delivered(conn, now)
        places = [(target.fingerprint, target.place) for target in self._targets.values()]
        alerting.make(conn, [*changes.messages, *(messages.news(_story(conn, row)) for row in rows)], places)
        alerting.mark_queued(conn, [row.id for row in rows])
        alerting.tidy(conn, now)
        return True

    def _send_one(self, working: dict[str, Target]) -> bool:
        """Claim a message, send it, and write the outcome; return whether there was one.

        A failing target delays the others only once: it is then removed from the working ones.
        """
        claim = self._store.run(lambda conn: alerting.claim(conn, working))
        if claim is None:
            return False
        delivery = self._send(self._targets[claim.target], claim)
        tries = claim.tries - 1
        if delivery.ok:
            state, again_in_ms = "sent", 0
        elif not delivery.left and tries < len(RETRY_MS):
            state, again_in_ms = "due", RETRY_MS[tries]
        else:
            state, again_in_ms = "failed", 0
        fields = {"alert": claim.id, "kind": claim.kind, "target": claim.place, "goal": claim.goal_id}
        if delivery.ok:
            log.info("alert.sent", **fields)
        else:
            del working[claim.target]
            log.warning("alert.failed", **fields, reason=delivery.reason, again=state == "due")
        self._store.run(lambda conn: alerting.settle(conn, claim, state, delivery.reason or None, again_in_ms))
        return True


def _story(conn: Connection, row: Row[*tuple[Any, ...]]) -> messages.GoalStory:
    """What is known about a goal and its visitor."""
    first = alerting.first_known(conn, row.id, row.event_id, row.visitor)
    return messages.GoalStory(
        row.id,
        row.name if row.kind == "goal" or "refunded" not in json.loads(row.metadata) else f"{row.name} refunded",
        row.source,
        json.loads(row.metadata),
        row.visitor,
        FoundVisitor.from_json(json.loads(row.provenance)) if row.provenance else None,
        row.created_at_ms,
        *((first.type, first.source, row.happened_at_ms - first.at_ms) if first is not None else ()),
    )
