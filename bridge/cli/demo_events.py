"""What the demo plays, what must come of it, and what did: as a table and as the answer of `why`.

The same seed and the same second give the same play.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bridge import store
from bridge.cli.screen import BAD, GOOD, Screen
from bridge.identity.choice import FoundVisitor
from bridge.sandbox import scenarios
from bridge.store.operator import queries
from bridge.workbench.describe import how_known

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bridge.sandbox.scenarios import Expected, Step
    from bridge.sandbox.simulator import Sent
    from bridge.store.operator.queries import EventLine, GoalLine

FORGED: Final = "forged"
REPEATED: Final = "repeated"
HERO: Final = "charge.refunded"  # of a sale on another device: neither of the two names a visitor
_MOVING: Final = frozenset({"pending", "leased", "sending", "unconfirmed"})
_MANY: Final = 500
# A dispute names its charge, a charge its payment intent, a session both the payment intent and the visitor.
_EARLY: Final = ("charge.dispute.created", "charge.succeeded", "checkout.session.completed")


@dataclass(frozen=True, slots=True)
class Act:
    """One webhook. how: "" (as its provider sends it), `repeated`, or `forged` (signed with a wrong secret)."""

    step: Step
    how: str = ""


def play(seed: int, now_s: int) -> tuple[Act, ...]:
    """Everything that happens in the demo, in the order in which it is posted."""
    person = scenarios.build("across-tools", seed=seed, end_s=now_s, spread=True)
    early = {step.type: step for step in scenarios.build("stripe-dispute", seed=seed, end_s=now_s)}
    order = scenarios.build("lemonsqueezy-order", seed=seed, end_s=now_s)
    application = scenarios.build("generic-application", seed=seed, end_s=now_s)
    test = scenarios.build("stripe-purchase", seed=seed, end_s=now_s, test=True)[-1]
    forged = scenarios.build("lemonsqueezy-licence", seed=seed, end_s=now_s)[0]
    played = [Act(step) for step in (*person, *order, *application, *(early[name] for name in _EARLY), test)]
    return (*played, Act(checkout(person), REPEATED), Act(forged, FORGED))


def checkout(steps: Iterable[Step]) -> Step:
    return next(step for step in steps if step.type == "checkout.session.completed")


def expected(acts: Sequence[Act]) -> list[tuple[Step, Expected]]:
    """Every goal that must arrive, once."""
    return [(act.step, goal) for act in acts if not act.how for goal in act.step.goals]


def missing(
    wanted: Sequence[tuple[Step, Expected]], recorded: Iterable[Mapping[str, Any]]
) -> list[tuple[Step, Expected]]:
    """The expected goals that DataFast's stand-in did not record; each record answers for one of them."""
    left = list(recorded)
    absent = []
    for step, goal in wanted:
        found = next((record for record in left if _is(record, goal)), None)
        if found is None:
            absent.append((step, goal))
        else:
            left.remove(found)
    return absent


def _is(record: Mapping[str, Any], goal: Expected) -> bool:
    metadata = record["metadata"]
    return (
        record["name"] == goal.name
        and record["visitor"] == goal.visitor
        and all(metadata.get(key) == value for key, value in goal.metadata.items())
    )


def sentence(step: Step, goal: Expected) -> str:
    """`refund of stripe charge.refunded evt_… for visitor …`."""
    return f"{goal.name} of {step.source} {step.type} {step.id} for the visitor {goal.visitor}"


# -------------------------------------------------------------------------------------------------- what came of it


def read(url: str) -> list[EventLine]:
    """Every event with its goals, in the order of arrival."""
    with closing(store.open(url, pool_size=1)) as opened, opened.read() as conn:
        return queries.list_events(conn, queries.EventFilter(limit=_MANY))[::-1]


def settled(seen: list[EventLine]) -> bool:
    """Every event is routed, and no goal is on its way."""
    return all(event.state != "received" and all(goal.state not in _MOVING for goal in event.goals) for event in seen)


def _found_by(goal: GoalLine) -> str:
    """The kind of key that led to a goal's visitor; empty: the event names it itself."""
    found = FoundVisitor.from_json(goal.provenance) if goal.provenance else None
    return "" if found is None or found.by == "own" else (found.kind or "").replace("_", " ")


_NOTES: Final = (
    "The repeated event made no second goal, the forged one was refused, and the test purchase is not sent.",
    "The dispute came before the checkout that names its visitor, and its goal waited for it.",
    "BRIDGE_WEAK_AFTER=1s, for this demo: by default the sale waits two minutes for an event that names its visitor.",
    "BRIDGE_MAX_AGE=30d, for this demo's ten days: by default no goal older than 7 days is sent.",
)
_STATES: Final = {"dry": "test mode"}


@dataclass(frozen=True, slots=True)
class Row:
    """One posted event and what became of it. seen: as the bridge has it; recorded: its goals at the stand-in."""

    act: Act
    sent: Sent
    seen: EventLine | None
    recorded: tuple[Mapping[str, Any], ...]

    @property
    def verdict(self) -> str:
        if self.seen is not None:
            return self.seen.verdict or self.seen.state
        return self.sent.answer if self.sent.ok else "refused"

    def goals(self) -> str:
        if self.recorded:
            return ", ".join(map(_goal_text, self.recorded))
        kept = self.seen.goals if self.seen else ()
        return ", ".join(f"{goal.name} ({_STATES.get(goal.state, goal.state)})" for goal in kept)

    def cells(self) -> tuple[str, ...]:
        visitor = self.recorded[0]["visitor"][:6] if self.recorded else ""
        if visitor and self.seen and (kind := _found_by(self.seen.goals[0])):
            visitor += f" by {kind}"
        return (self.act.step.source, self.act.step.type, self.verdict, self.goals(), visitor)

    def to_json(self) -> dict[str, Any]:
        step = self.act.step
        named = ("name", "visitor", "description", "metadata")
        return {
            "source": step.source,
            "type": step.type,
            "id": step.id,
            "carries_visitor": step.visitor is not None,
            "answer": self.sent.answer,
            "verdict": self.verdict,
            "goals": [{name: record[name] for name in named} for record in self.recorded],
            "kept": [{"name": goal.name, "state": goal.state} for goal in (self.seen.goals if self.seen else ())],
        }


def rows(
    acts: Sequence[Act], sent: Sequence[Sent], seen: Sequence[EventLine], recorded: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """What was posted beside what came of it.

    The bridge numbers events as they come, so that the n-th accepted one is the n-th that it has.
    """
    stored, by_id = iter(seen), {record["event_id"]: record for record in recorded}
    result = []
    for act, one in zip(acts, sent, strict=True):
        event = next(stored, None) if one.answer == "accepted" else None
        ids = [goal.datafast_event_id or "" for goal in event.goals] if event else []
        result.append(Row(act, one, event, tuple(by_id[id_] for id_ in ids if id_ in by_id)))
    return result


def _goal_text(record: Mapping[str, Any]) -> str:
    """`refund 49.00 USD`, or the goal's name with its first value."""
    metadata = record["metadata"]
    amount = metadata.get("amount") or metadata.get("refunded_total")
    if amount:
        return f"{record['name']} {amount} {metadata.get('currency', '')}".rstrip()
    values = [value for name, value in metadata.items() if name not in ("provider", "occurred_at")]
    return " ".join([record["name"], *values[:1]])


def table(screen: Screen, rows: Sequence[Row], wanted: int, absent: Sequence[str]) -> None:
    """Each event, its verdict and the goal as the stand-in recorded it; then whether all is there."""
    shown = [row for row in rows if row.verdict != "unmatched"]
    screen.table(("source", "event", "verdict", "goal at DataFast", "visitor"), [row.cells() for row in shown])
    screen.say()
    screen.say(f"{len(rows) - len(shown)} more events made no goal; some of them tie the ids of a purchase together.")
    if not absent:
        screen.say(f"All {wanted} expected goals arrived, each once.", style=GOOD)
    else:
        screen.say(f"{len(absent)} of {wanted} expected goals did not arrive:", style=BAD)
        for sentence in absent:
            screen.say(sentence, indent=2)
    for note in _NOTES:
        screen.say(note)


def hero(screen: Screen, rows: Sequence[Row], folder: Path, environ: Mapping[str, str]) -> None:
    """The refund of a sale on another device: how its visitor was found, and the whole answer of `why`."""
    row = next(row for row in rows if row.act.step.type == HERO)
    screen.section("Neither the sale at Stripe nor its refund names a visitor, yet both are attributed:")
    for goal in row.seen.goals if row.seen else ():
        for part in (how_known(goal) or "has no visitor").split(", "):
            screen.say(part, indent=2)
    command = [sys.executable, "-m", "bridge", "why", row.act.step.id]
    answer = subprocess.run(command, cwd=folder, env=dict(environ), capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter and module
    if answer.returncode == 0:
        screen.section(f"$ python -m bridge why {row.act.step.id}")
        for line in answer.stdout.rstrip().splitlines():
            screen.line(line)
