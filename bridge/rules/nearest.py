"""Of an event without a goal: the rule that came nearest to making one, and the condition that kept it from it.

Nearest is the rule of which the fewest conditions fail; among those one that is switched on, then the one of which the
most conditions hold, then the first. Being switched off counts as a condition that fails. A rule with one condition is
not asked again, so that many rules with one condition each cost nothing.
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
    best: tuple[tuple[int, bool, int], int] | None = None
    for is_off in (False, True):
        if best is not None and best[0][0] == 1:
            break  # no rule that is switched off comes nearer
        for position in positions:
            if traces[position].result != ("disabled" if is_off else "condition"):
                continue
            conditions = rules.conditions[position]
            failing = _failing(conditions, document) if is_off or len(conditions) > 1 else 1
            rank = (failing + is_off, is_off, failing - len(conditions))
            if best is None or rank < best[0]:
                best = rank, position
    if best is None:
        return None
    trace, total = traces[best[1]], len(rules.conditions[best[1]])
    return NearMiss(
        trace.rule_id,
        trace.goal,
        best[0][0],
        total,
        trace.path,
        trace.expected,
        trace.actual,
        trace.message,
        trace.origin,
    )


def _failing(conditions: Sequence[Condition], document: Document) -> int:
    return sum(condition.test(document) is not None for condition in conditions)
