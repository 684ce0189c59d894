"""Report the goals of some days: by source, rule and day; money with and without a visitor; waiting and failed goals.

Days are UTC. Goals of test events and of dry rules are counted separately. Money is taken from the metadata
`amount` and `currency` and added up per rule, because several rules may count the same money. Money returned to a
customer, including by a dispute, is negative.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge.limits import PAYMENT
from bridge.model import UNFINAL, GoalState
from bridge.store.clock import read_ms
from bridge.store.goals import attribution
from bridge.store.operator import tallies
from bridge.store.operator.tallies import DAY_MS
from bridge.text import count, listing, span

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store import Store
    from bridge.store.goals.attribution import Attribution
    from bridge.store.operator.tallies import GoalFacts, WaitTally

PURCHASE: Final = "purchase"  # the hand-over of a sale (`handover:`)
_DISPUTES: Final = ("dispute", "chargeback")
_KEPT: Final = ("won", "reverse")  # parts of names: disputes that end well
_LOST: Final = "lost"  # a dispute whose money was withdrawn when it began
_FAILED: Final = frozenset({GoalState.REJECTED, GoalState.EXPIRED, GoalState.UNATTRIBUTED})


@dataclass(slots=True)
class Sum:
    """A number of goals, and their money in one currency."""

    goals: int = 0
    amount: Decimal = Decimal(0)

    def add(self, amount: Decimal) -> None:
        self.goals += 1
        self.amount += amount

    @property
    def text(self) -> str:
        """The money, as exact as in the goals."""
        return f"{self.amount:,}"


@dataclass(slots=True)
class Money:
    """The worth of goals in one currency, with and without a visitor. source, rule: empty for all sales together."""

    currency: str
    source: str = ""
    rule: str = ""
    with_visitor: Sum = field(default_factory=Sum)
    without_visitor: Sum = field(default_factory=Sum)

    def add(self, amount: Decimal, *, attributed: bool) -> None:
        (self.with_visitor if attributed else self.without_visitor).add(amount)


@dataclass(slots=True)
class RuleReport:
    """The goals or payments (`kind`) of one rule: their names, states and days (`2026-11-28`).

    through: one of `bridge.identity.sentences.WAYS` -> how many of them found their visitor that way.
    """

    source: str
    rule: str
    kind: str = "goal"
    names: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)
    through: Counter[str] = field(default_factory=Counter)

    @property
    def goals(self) -> int:
        return sum(self.states.values())

    @property
    def called(self) -> str:
        """The rule's name; for payments, with their kind."""
        return self.rule if self.kind in ("goal", self.rule) else f"{self.rule} ({self.kind})"

    @property
    def with_visitor(self) -> int:
        """How many goals have a visitor."""
        return self.through.total()

    @property
    def waiting(self) -> int:
        """How many goals are not in a final state."""
        return sum(number for state, number in self.states.items() if state in UNFINAL)


@dataclass(slots=True)
class Failure:
    """Undelivered goals in one state, for one reason: how many, and the newest as an example."""

    state: str
    reason: str
    goals: int = 0
    example: int = 0
    message: str = ""

    @property
    def why(self) -> str:
        return self.message or self.reason or "no reason was kept"


@dataclass(frozen=True, slots=True)
class Report:
    """The goals of a time span.

    - days: all of its days, the oldest first
    - sales: the money of all purchases at which a visitor can be handed over, per currency, each event once
    - waiting: all goals waiting now, whenever they were made
    - test, dry: the numbers of goals of test events, and of dry rules for live ones
    - dry_named: how many goals of dry rules have a visitor
    """

    since_ms: int
    until_ms: int
    days: tuple[str, ...]
    rules: tuple[RuleReport, ...]
    money: tuple[Money, ...]
    sales: tuple[Money, ...]
    failures: tuple[Failure, ...]
    waiting: tuple[WaitTally, ...]
    attribution: tuple[Attribution, ...]
    test: int = 0
    dry: int = 0
    dry_named: int = 0

    @property
    def goals(self) -> int:
        return sum(rule.goals for rule in self.rules)

    @property
    def payments(self) -> int:
        """How many of the goals are payments."""
        return sum(rule.goals for rule in self.rules if rule.kind == PAYMENT)

    @property
    def through(self) -> dict[str, Counter[str]]:
        """For each source: how its goals found their visitors."""
        found: dict[str, Counter[str]] = {}
        for rule in self.rules:
            found.setdefault(rule.source, Counter()).update(rule.through)
        return found

    @property
    def states(self) -> Counter[str]:
        return sum((rule.states for rule in self.rules), Counter())

    def summary(self, since: int) -> str:
        """The report in a sentence or two. since: how many ms it covers."""
        states = listing([f"{number} {state}" for state, number in sorted(self.states.items())])
        excluded = [
            text
            for number, text in (
                (self.test, f"{self.test} of test events"),
                (self.dry, f"{self.dry} of dry rules ({self.dry_named} with a visitor)"),
            )
            if number
        ]
        note = f" Not counted: {listing(excluded)}." if excluded else ""
        if not self.goals:
            return f"No goal in the last {span(since)}.{note}"
        payments = f" ({count(self.payments, 'payment')} among them)" if self.payments else ""
        return f"{count(self.goals, 'goal')}{payments} in the last {span(since)}: {states}.{note}"

    def made_on(self, day: str) -> int:
        """How many goals were made on a day."""
        return sum(rule.days[day] for rule in self.rules)

    def by_rule_on(self, day: str) -> str:
        """How many goals each rule made that day; with the source if rules of several sources share an id."""
        ids = Counter(rule.rule for rule in self.rules)
        made = sorted(
            (-rule.days[day], rule.rule if ids[rule.rule] == 1 else f"{rule.source} {rule.rule}")
            for rule in self.rules
            if rule.days[day]
        )
        return ", ".join(f"{rule} {-number}" for number, rule in made)


def report(store: Store, since_ms: int, sources: Iterable[str] = ()) -> Report:
    """The report on the time since then. sources: also report their attribution, even if they made no goal."""
    with store.read() as conn:
        now_ms = read_ms(conn)
        sums = _Totals()
        for goal in tallies.goals_since(conn, since_ms):
            sums.add(goal)
        named = sorted({*sources, *(source for source, _ in sums.rules)})
        return Report(
            since_ms=since_ms,
            until_ms=now_ms,
            days=tuple(map(_day, range(since_ms // DAY_MS, now_ms // DAY_MS + 1))),
            rules=tuple(sums.rules[key] for key in sorted(sums.rules)),
            money=tuple(sums.money[key] for key in sorted(sums.money)),
            sales=tuple(sums.sales[key] for key in sorted(sums.sales)),
            failures=tuple(
                sorted(sums.failures.values(), key=lambda failure: (-failure.goals, failure.state, failure.reason))
            ),
            waiting=tuple(tallies.waiting(conn)),
            attribution=attribution.read(conn, named, now_ms),
            test=sums.test,
            dry=sums.dry,
            dry_named=sums.dry_named,
        )


def unnamed_sales(conn: Connection, since_ms: int) -> tuple[Money, ...]:
    """The report's sales without a visitor; other sales are not read."""
    sums = _Totals()
    for goal in tallies.unnamed_since(conn, PURCHASE, since_ms):
        if not goal.test and goal.state != GoalState.DRY:
            sums.earn(goal)
    return tuple(sale for _, sale in sorted(sums.sales.items()) if sale.without_visitor.goals)


class _Totals:
    """The sums of a report, to which goals are added."""

    def __init__(self) -> None:
        self.rules: dict[tuple[str, str], RuleReport] = {}
        self.money: dict[tuple[str, str, str], Money] = {}
        self.sales: dict[str, Money] = {}
        self.failures: dict[tuple[str, str], Failure] = {}
        self.sold: set[tuple[int, str, Decimal]] = set()  # by event, whichever rule made the goal
        self.test = self.dry = self.dry_named = 0

    def add(self, goal: GoalFacts) -> None:
        if goal.test:
            self.test += 1
            return
        if goal.state == GoalState.DRY:
            self.dry += 1
            self.dry_named += goal.attributed
            return
        rule = self.rules.get((goal.source, goal.rule_id))
        if rule is None:
            rule = RuleReport(goal.source, goal.rule_id, goal.kind)
            self.rules[goal.source, goal.rule_id] = rule
        rule.names[goal.name] += 1
        rule.states[goal.state] += 1
        rule.days[_day(goal.created_at_ms // DAY_MS)] += 1
        if goal.through is not None:
            rule.through[goal.through] += 1
        if goal.state in _FAILED:
            self._fail(goal)
        self.earn(goal)

    def _fail(self, goal: GoalFacts) -> None:
        reason = goal.reason or ""
        failure = self.failures.setdefault((goal.state, reason), Failure(goal.state, reason))
        failure.goals += 1
        failure.example, failure.message = goal.id, goal.message or ""

    def earn(self, goal: GoalFacts) -> None:
        """Add only a goal's money."""
        worth = money_of(goal)
        if worth is None:
            return
        currency, amount = worth
        place = (goal.source, goal.rule_id, currency)
        if place not in self.money:
            self.money[place] = Money(currency, goal.source, goal.rule_id)
        self.money[place].add(amount, attributed=goal.attributed)
        if goal.handover == PURCHASE and (sale := (goal.event_id, currency, amount)) not in self.sold:
            self.sold.add(sale)
            if currency not in self.sales:
                self.sales[currency] = Money(currency)
            self.sales[currency].add(amount, attributed=goal.attributed)


def totals(goals: Iterable[GoalFacts]) -> dict[str, Decimal]:
    """The money of some goals per currency, each event once, whichever rule made it; without tests and dry rules."""
    found: dict[str, Decimal] = {}
    seen: set[tuple[int, str, Decimal]] = set()
    for goal in goals:
        worth = None if goal.test or goal.state == GoalState.DRY else money_of(goal)
        if worth is not None and (goal.event_id, *worth) not in seen:
            seen.add((goal.event_id, *worth))
            found[worth[0]] = found.get(worth[0], Decimal(0)) + worth[1]
    return dict(sorted(found.items()))


def money_of(goal: GoalFacts) -> tuple[str, Decimal] | None:
    """Currency and amount of a goal, negative if returned to the customer; None if no money moves."""
    if '"amount"' not in goal.metadata:
        return None
    worth, called = _amount_in(goal.metadata), f"{goal.rule_id} {goal.name}".lower()
    if worth is None or (_is_dispute(called) and _LOST in called):
        return None
    currency, amount, refunded = worth
    back = (refunded and goal.kind == PAYMENT) or "refund" in called or _is_dispute(called)
    return currency, -abs(amount) if back else amount


def _is_dispute(called: str) -> bool:
    """Whether a goal is about a dispute that takes money, by its rule's id and its own name."""
    return any(word in called for word in _DISPUTES) and not any(word in called for word in _KEPT)


@lru_cache(maxsize=1_024)
def _amount_in(text: str) -> tuple[str, Decimal, bool] | None:
    """Currency, amount, and whether it was refunded, by the metadata. Cached: many goals have the same."""
    metadata: Mapping[str, str] = json.loads(text)
    try:
        amount = Decimal(metadata.get("amount", ""))
    except InvalidOperation:
        return None
    if not amount.is_finite():
        return None
    return str(metadata.get("currency", "")).upper(), amount, metadata.get("refunded") == "true"


@lru_cache(maxsize=128)
def _day(number: int) -> str:
    """The day with this number since 1970."""
    return datetime.fromtimestamp(number * DAY_MS / 1000, UTC).date().isoformat()
