"""`events replay --dry-run`: what routing some events again would do, as it is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from bridge.cli import redaction, resources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.cli.screen import Screen
    from bridge.store import Store
    from bridge.workbench.replay import ForetoldEvent

SHOWN: Final = 50  # events


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
    from bridge.workbench import replay

    screen.heading(replay.summary(found))
    rows = replay.news(found)
    if rows:
        screen.say()
        table = [(f"ev_{one.event_id}", one.type, replay.sentence(one)) for one in rows[:SHOWN]]
        screen.table(("EVENT", "TYPE", "WHAT WOULD BECOME OF IT"), table)
    if len(rows) > SHOWN:
        screen.say(f"{len(rows) - SHOWN} more: --json shows all.")
