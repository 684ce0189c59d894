"""What the demo plays, and what must come of it. Pure: the same seed and the same second give the same play."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bridge.sandbox import scenarios

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bridge.sandbox.scenarios import Expected, Step

FORGED: Final = "forged"
REPEATED: Final = "repeated"
HERO: Final = "charge.refunded"  # of a sale on another device: neither of the two names a visitor
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
