"""`/console/rules`: the rules in force, their origin, when each last made a goal, and what they do not cover.

Results that read every goal or event of a month are cached for a while, and coverage is a separate request.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from flask import Blueprint, Response, request

from bridge.store import clock
from bridge.store.operator import tallies
from bridge.web.cached import NOTICEABLE_S, Cached, CachedInBackground
from bridge.web.console.rendering import fragment, page
from bridge.workbench import checking, coverage, unseen

if TYPE_CHECKING:
    from bridge.app import Bridge
    from bridge.rules import RuleSet
    from bridge.store.operator.tallies import LastGoal
    from bridge.workbench.coverage import Coverage
    from bridge.workbench.unseen import UnseenPath

T = TypeVar("T")
PERIOD_MS: Final = 30 * 86_400_000
_FILE: Final = re.compile(r"([A-Za-z0-9_-]+\.ya?ml):\d+")


class Covered(NamedTuple):
    """What the events of a month show about the rules."""

    coverage: Coverage
    paths: Sequence[UnseenPath]

    @property
    def summary(self) -> str:
        return self.coverage.summary(PERIOD_MS)


class _CachedForRules(Generic[T]):
    """A value cached for the rules in force; one cached for other rules is discarded."""

    def __init__(self, bridge: Bridge, keep: Callable[[], Cached[T] | CachedInBackground[T]]) -> None:
        self._bridge = bridge
        self._keep = keep
        self._kept: tuple[RuleSet, Cached[T] | CachedInBackground[T]] | None = None

    def get(self) -> T:
        """The value, as `Cached` or `CachedInBackground` gives it."""
        kept, now = self._kept, self._bridge.rules
        if kept is None or kept[0] is not now:
            kept = self._kept = (now, self._keep())
        return kept[1].get()


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The routes."""
    last_goals = CachedInBackground(lambda: _last_goals(bridge), NOTICEABLE_S)
    covered = _CachedForRules(bridge, lambda: CachedInBackground(lambda: _covered(bridge)))
    warnings = _CachedForRules(bridge, lambda: Cached(lambda: _warnings(bridge), math.inf))

    @routes.get("/rules")
    def rules() -> Response:
        rule_set, problem = bridge.rules, bridge.rules_fault
        broken = _FILE.search(problem or "")
        return page(
            "rules.html",
            title="Rules",
            here="rules",
            sources=coverage.overview(rule_set, last_goals.get()),
            refusal=problem,
            broken=broken[1] if broken else None,
            warnings=warnings.get(),
        )

    @routes.get("/rules/coverage")
    def rules_coverage() -> Response:
        found = covered.get()
        if request.headers.get("HX-Request"):
            return fragment("_coverage.html", found=found)
        return page("coverage.html", title="Coverage", here="rules", found=found)


def _warnings(bridge: Bridge) -> list[str]:
    findings = checking.findings(bridge.rules, bridge.settings.environ)
    return [*findings.problems, *findings.suspicions, *findings.warnings]


def _last_goals(bridge: Bridge) -> list[LastGoal]:
    with bridge.store.read() as conn:
        return tallies.last_goals(conn, clock.read_ms(conn) - PERIOD_MS)


def _covered(bridge: Bridge) -> Covered:
    rule_set = bridge.rules
    with bridge.store.read() as conn:
        since_ms = clock.read_ms(conn) - PERIOD_MS
    found = coverage.coverage(bridge.store, rule_set, since_ms)
    return Covered(found, unseen.unseen(bridge.store, rule_set, bridge.settings, since_ms))
