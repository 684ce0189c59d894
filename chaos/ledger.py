"""The comparison: what was acknowledged, what the destination recorded, what the bridge says about each.

- `lost`: acknowledged events whose goal was not recorded, unless it is held for a person.
- `doubled`: goals recorded more than once.
- `unconfirmed`: goals for which the answer to an attempt was ever lost. Only these may double.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.databases import Database
from chaos.plan import Sent

# The legal transitions of a goal. A late write of a stopped process would be none of these.
LEGAL = {
    ("parked", "pending"),
    ("pending", "sending"),
    ("sending", "delivered"),
    ("sending", "pending"),
    ("sending", "unconfirmed"),
    ("unconfirmed", "delivered"),
    ("unconfirmed", "pending"),
    ("unconfirmed", "held"),
}
BY_FORMER = {("pending", "leased"), ("leased", "pending"), ("leased", "sending")}  # f44b843 recorded an attempt later
BY_CLOCK = {("pending", "held"), ("held", "pending")}  # too old by a clock that jumped, and not too old after all

WAITING = ("parked", "pending", "leased", "sending", "unconfirmed")


@dataclass
class Ledger:
    """The counts of one run, with a few examples of everything that should not have happened."""

    acknowledged: int = 0
    ok: int = 0
    lost: int = 0
    doubled: int = 0
    held: int = 0
    unconfirmed: int = 0
    not_stored: int = 0  # acknowledged, but not in the database
    wrong: int = 0  # another visitor or another goal than it should be
    unasked: int = 0  # recorded without an acknowledged event
    illegal: int = 0  # transitions that no live process may make
    open: int = 0  # goals that had not ended when the wait was over
    examples: dict[str, list[str]] = field(default_factory=dict)

    def holds(self, *, hold: bool, calm: bool) -> bool:
        """hold: BRIDGE_UNCONFIRMED=hold, so nothing may double. calm: no faults and no kills, so no doubt either."""
        never = (self.lost, self.not_stored, self.wrong, self.unasked, self.illegal, self.open)
        doubles = 0 if hold or calm else self.unconfirmed
        return not any(never) and self.doubled <= doubles and not (calm and self.unconfirmed)


def compare(
    database: Database,
    events: Sequence[Sent],
    acknowledged: set[str],
    recorded: Sequence[Mapping[str, Any]],
    legal: set[tuple[str, str]] = LEGAL,
) -> Ledger:
    """Count everything."""
    ledger = Ledger(acknowledged=len(acknowledged))
    found: dict[str, list[Mapping[str, Any]]] = {}
    for goal in recorded:
        found.setdefault(str(goal["description"]), []).append(goal)
    states = {row.description: row.state for row in database.rows("SELECT description, state FROM goals")}
    stored = {
        row.provider_event_id: f"{row.state}, {row.verdict}, {row.reason}"
        for row in database.rows("SELECT provider_event_id, state, verdict, reason FROM events")
    }
    known = {sent.description: sent for sent in events}
    for sent in events:
        if sent.id in acknowledged:
            _judge(ledger, sent, found.get(sent.description, []), states.get(sent.description), stored.get(sent.id))
    for description in found:
        if description not in known or (known[description].id not in acknowledged):
            _note(ledger, "unasked", description)
    ledger.unconfirmed = database.rows(
        "SELECT count(DISTINCT goal_id) FROM attempts"
        " WHERE kind = 'send' AND (outcome IS NULL OR outcome = 'unconfirmed')"
    )[0][0]
    _judge_transitions(ledger, database, legal)
    return ledger


def _judge(
    ledger: Ledger, sent: Sent, goals: Sequence[Mapping[str, Any]], state: str | None, stored: str | None
) -> None:
    if stored is None:
        _note(ledger, "not_stored", sent.id)
    if any((goal["name"], goal["visitor"]) != (sent.goal, sent.visitor) for goal in goals):
        _note(ledger, "wrong", sent.description)
    if len(goals) > 1:
        _note(ledger, "doubled", f"{sent.description} × {len(goals)} ({state})")
    if state == "held":
        ledger.held += 1
    elif not goals and state in WAITING:
        _note(ledger, "open", f"{sent.description} ({state})")
    elif not goals:
        _note(ledger, "lost", f"{sent.description} ({state}; its event: {stored})")
    elif state != "delivered":
        _note(ledger, "open", f"{sent.description} ({state})")
    elif len(goals) == 1:
        ledger.ok += 1


def _judge_transitions(ledger: Ledger, database: Database, legal: set[tuple[str, str]]) -> None:
    """Check that each transition is legal, and that the end of each attempt was written under its own lease."""
    ended = "SELECT goal_id, lease_token FROM attempts WHERE kind = 'send' AND outcome IS NOT NULL"
    tries = {(row.goal_id, row.lease_token) for row in database.rows(ended)}
    settled = set()
    for row in database.rows("SELECT * FROM chaos_transitions ORDER BY id"):
        if (row.was, row.becomes) not in legal:
            _note(ledger, "illegal", f"goal {row.goal_id}: {row.was} → {row.becomes}")
        if row.was == "sending":
            settled.add((row.goal_id, row.was_token))
        if row.was == "unconfirmed" and row.was_token is None:
            _note(ledger, "illegal", f"goal {row.goal_id}: {row.was} → {row.becomes} by nobody")
    for goal_id, _ in tries - settled:
        _note(ledger, "illegal", f"goal {goal_id}: a try ended without its lease")


def _note(ledger: Ledger, what: str, example: str) -> None:
    setattr(ledger, what, getattr(ledger, what) + 1)
    some = ledger.examples.setdefault(what, [])
    if len(some) < 5:
        some.append(example)


def attempts_by_outcome(database: Database) -> dict[str, int]:
    """How the attempts ended, for the report."""
    rows = database.rows("SELECT kind, coalesce(outcome, 'vanished') AS o, count(*) AS n FROM attempts GROUP BY 1, 2")
    return dict(sorted(Counter({f"{row.kind}: {row.o}": row.n for row in rows}).items()))


def doubts(database: Database) -> dict[str, int]:
    """Why goals were in doubt: because the destination did not answer, or because a process ended."""
    why = "SELECT coalesce(message, 'never ended') AS why, count(*) AS n FROM attempts"
    rows = database.rows(f"{why} WHERE kind = 'send' AND (outcome IS NULL OR outcome = 'unconfirmed') GROUP BY 1")
    return {row.why: row.n for row in rows}


def as_text(ledger: Ledger) -> str:
    """The table for people."""
    shown = ("acknowledged", "ok", "lost", "doubled", "unconfirmed", "held")
    width = max(len(name) for name in shown)
    lines = [f"  {name:<{width}}  {getattr(ledger, name):>7,}" for name in shown]
    never = ("not_stored", "wrong", "unasked", "illegal", "open")
    lines += [f"  {name:<{width}}  {found:>7,}   <- must be 0" for name in never if (found := getattr(ledger, name))]
    lines += [f"    {what}: {', '.join(some)}" for what, some in ledger.examples.items()]
    return "\n".join(lines)


def as_json(facts: Mapping[str, Any]) -> str:
    """One line for scripts."""
    return json.dumps(facts, ensure_ascii=False, sort_keys=True)
