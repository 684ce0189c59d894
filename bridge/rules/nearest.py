"""Of an event without a goal: the rule that came nearest to making one, and the condition that kept it from it.

Nearest is the rule of which the fewest conditions fail; among those one that is switched on, then the one of which the
most conditions hold, then the first. Being switched off counts as a condition that fails. A rule that cannot come
nearer is not asked again, so that many rules with one condition each cost little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.rules.ruleset import NearMiss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.model import Document
    from bridge.rules.language.conditions import Condition
    from bridge.rules.ruleset import RuleTrace, Table


def nearest(rules: Table, positions: Sequence[int], traces: Sequence[RuleTrace], document: Document) -> NearMiss | None:
    """None where no rule for this type of event was kept from its goal by a condition. positions: of those for it."""
    best: tuple[int, bool, int] | None = None
    found = -1
    for is_off, kept_by, least in ((False, "condition", 1), (True, "disabled", 0)):  # least: conditions that fail
        if best is not None and best[0] == 1:
            break  # no rule that is switched off comes nearer
        for position in positions:
            if traces[position].result != kept_by:
                continue
            conditions = rules.conditions[position]
            if best is not None and best <= (1, is_off, least - len(conditions)):
                continue  # it cannot come nearer, however few of its conditions fail
            failing = _failing(conditions, document) if is_off or len(conditions) > 1 else 1
            rank = (failing + is_off, is_off, failing - len(conditions))
            if best is None or rank < best:
                best, found = rank, position
    if best is None:
        return None
    trace, total = traces[found], len(rules.conditions[found])
    return NearMiss(
        trace.rule_id,
        trace.goal,
        best[0],
        total,
        trace.path,
        trace.expected,
        trace.actual,
        trace.message,
        trace.origin,
    )


def _failing(conditions: Sequence[Condition], document: Document) -> int:
    return sum(condition.test(document) is not None for condition in conditions)
