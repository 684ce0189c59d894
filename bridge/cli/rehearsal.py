"""`events replay --dry-run`: what routing some events again would do, as it is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from bridge.cli import redaction, resources
from bridge.cli.formatting import count, listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.cli.screen import Screen
    from bridge.store import Store
    from bridge.store.goals.making import ForetoldGoal
    from bridge.workbench.replay import ForetoldEvent

SHOWN: Final = 50  # events
_WOULD: Final = {
    "pending": "would be sent",
    "parked": "would wait for its visitor",
    "unattributed": "would find no visitor",
    "dry": "would not be sent (it is dry)",
    "expired": "would not be sent (it is too old)",
}


def show(screen: Screen, store: Store, ids: Sequence[int]) -> None:
    """Foretell what becomes of these events, by the mapping files as they are now, and show it."""
    from bridge import app
    from bridge.workbench import replay, stored

    given = resources.environ()
    settings = resources.settings_or_defaults(given)
    rule_set = resources.load_rules(given, resources.mappings_folder(given))
    for source in rule_set.sources.values():
        redaction.hide_source(screen, source)
    preparer = stored.preparer(store, rule_set, settings, app.destinations(settings, rule_set))
    found = list(replay.foretell(store, preparer, ids))
    if screen.as_json:
        screen.write_json(as_json(found))
    else:
        _print(screen, found)


def as_json(found: Sequence[ForetoldEvent]) -> dict[str, Any]:
    """How many goals would be new, take something or stay as they are; then each event with its goals."""
    goals = Counter(goal.outcome for one in found for goal in one.goals)
    return {
        "ok": True,
        "dry_run": True,
        "events": len(found),
        "routed": sum(one.refused is None for one in found),
        "not_routed": [f"ev_{one.event_id}" for one in found if one.refused is not None],
        "goals": {outcome: goals[outcome] for outcome in ("new", "merged", "known")},
        "foretold": [{**asdict(one), "event": f"ev_{one.event_id}"} for one in found],
    }


def _print(screen: Screen, found: Sequence[ForetoldEvent]) -> None:
    screen.heading(_summary(found))
    rows = [one for one in found if one.refused or one.verdict == "quarantined" or any(map(_is_news, one.goals))]
    if rows:
        screen.say()
        screen.table(("EVENT", "TYPE", "WHAT WOULD BECOME OF IT"), [_row(one) for one in rows[:SHOWN]])
    if len(rows) > SHOWN:
        screen.say(f"{len(rows) - SHOWN} more: --json shows all.")


def _summary(found: Sequence[ForetoldEvent]) -> str:
    routed = [one for one in found if one.refused is None]
    if not routed:
        return "No event would be routed again."
    goals = [goal for one in routed for goal in one.goals]
    states = Counter(goal.state.value for goal in goals if goal.outcome == "new")
    new = sum(states.values())
    told = [f"{number} {state}" for state, number in sorted(states.items())]
    said = [f"{count(new, 'new goal')}{f' ({listing(told)})' if told else ''}"]
    merged, known = (sum(goal.outcome == outcome for goal in goals) for outcome in ("merged", "known"))
    if merged:
        said.append(f"{count(merged, 'goal')} would take something from an event")
    if known:
        said.append(f"{count(known, 'goal')} would stay as {'it is' if known == 1 else 'they are'}")
    return f"Routing {count(len(routed), 'event')} again: {listing(said)}. Nothing was changed."


def _is_news(goal: ForetoldGoal) -> bool:
    return goal.outcome != "known"


def _row(one: ForetoldEvent) -> tuple[str, ...]:
    if one.refused:
        what = f"nothing: {one.refused}"
    elif one.verdict == "quarantined":
        what = f"quarantined: {one.reason}"
    else:
        what = "; ".join(map(_goal, one.goals))
    return (f"ev_{one.event_id}", one.type, what)


def _goal(goal: ForetoldGoal) -> str:
    there = "" if goal.goal_id is None else f" goal_{goal.goal_id}"
    if goal.outcome == "known":
        return f"{goal.name} is there already{f' as{there}' if there else ''} and stays as it is"
    to = f", {goal.visitor}" if goal.visitor else ""
    return f"{goal.name} ({goal.outcome}{there}{to}): {_WOULD.get(goal.state.value, goal.state.value)}"
