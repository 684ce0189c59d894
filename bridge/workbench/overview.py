"""The console's first page: before the first goal, what is needed and what to do next; afterwards, the numbers.

The steps depend on what the store has seen and how the sources are set up; what is wrong comes from the alarms and
notes of `/status`, which the caller passes in. Days and hours are UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from bridge.identity.sentences import advice
from bridge.model import FINAL, Destination, GoalState
from bridge.store.clock import read_ms
from bridge.store.operator import tallies
from bridge.store.operator.tallies import DAY_MS, HOUR_MS, Progress, Queue
from bridge.text import count, listing, money, span
from bridge.workbench import report

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.store import Store
    from bridge.workbench.report import Money
    from bridge.workbench.setting_up import Setup

T = TypeVar("T")
HOURS: Final = 24
DAYS: Final = 30
WEEK_MS: Final = 7 * DAY_MS
RECOUNT_MS: Final = 60_000  # how long the count of a finished day or hour is kept
_RECOUNTED_MAX: Final = 2  # finished spans counted again at a time


@dataclass(frozen=True, slots=True)
class GoalCounts:
    """Numbers of goals. waiting: to be sent or decided; rejected: also given up; unnamed: without a visitor."""

    delivered: int = 0
    waiting: int = 0
    parked: int = 0
    rejected: int = 0
    unnamed: int = 0

    @property
    def others(self) -> int:
        """The goals that are not delivered."""
        return self.waiting + self.parked + self.rejected + self.unnamed

    @property
    def all(self) -> int:
        return self.delivered + self.others


@dataclass(frozen=True, slots=True)
class HourFigures:
    """One hour: when it began, how many events arrived and how many goals were made."""

    at_ms: int
    events: int
    goals: int


@dataclass(frozen=True, slots=True)
class DayFigures:
    """One day: when it began, and what became of the goals made on it."""

    at_ms: int
    goals: GoalCounts


@dataclass(frozen=True, slots=True)
class Figures:
    """All numbers of the first page, as of `now_ms`.

    - today, before: the goals made since midnight, and those made a week earlier until the same time of day
    - hours: the last 24, the current one last; days: the last 30, today last
    - queues: those of destinations with goals that are not final
    """

    now_ms: int
    today: GoalCounts
    before: GoalCounts
    hours: tuple[HourFigures, ...]
    days: tuple[DayFigures, ...]
    queues: tuple[Queue, ...]


class _CachedSpans(Generic[T]):
    """Counts of finished time spans, which change little, so each is counted again only occasionally.

    Thus many rows are read only the first time. One per process; not thread-safe.
    """

    def __init__(self, count: Callable[[Connection, int], T]) -> None:
        self._count = count
        self._kept: dict[int, tuple[int, T]] = {}  # number of the span -> when it was counted, the count

    def get(self, conn: Connection, spans: range, now_ms: int) -> tuple[T, ...]:
        """The count of each of these spans."""
        self._kept = {number: kept for number, kept in self._kept.items() if number in spans}
        oldest = sorted(self._kept, key=lambda number: self._kept[number][0])[:_RECOUNTED_MAX]
        due = [number for number in oldest if now_ms - self._kept[number][0] >= RECOUNT_MS]
        for number in (*due, *(number for number in spans if number not in self._kept)):
            self._kept[number] = (now_ms, self._count(conn, number))
        return tuple(self._kept[number][1] for number in spans)


class FinishedSpans:
    """The finished days and hours."""

    def __init__(self) -> None:
        self.days = _CachedSpans(_day)
        self.hours = _CachedSpans(_hour)


def _day(conn: Connection, number: int) -> DayFigures:
    at_ms = number * DAY_MS
    return DayFigures(at_ms, _goal_counts(tallies.states(conn, at_ms, at_ms + DAY_MS)))


def _hour(conn: Connection, number: int) -> HourFigures:
    at_ms, until_ms = number * HOUR_MS, (number + 1) * HOUR_MS
    made = tallies.states(conn, at_ms, until_ms)
    return HourFigures(at_ms, tallies.events_received(conn, at_ms, until_ms), made.total())


def figures(store: Store, destinations: Iterable[str], finished: FinishedSpans) -> Figures:
    """All figures, as of now."""
    with store.read() as conn:
        now_ms = read_ms(conn)
        hour, day = now_ms // HOUR_MS, now_ms // DAY_MS
        today = _goal_counts(tallies.states(conn, day * DAY_MS, now_ms + 1))
        days = finished.days.get(conn, range(day - DAYS + 1, day), now_ms)
        return Figures(
            now_ms=now_ms,
            today=today,
            before=_goal_counts(tallies.states(conn, day * DAY_MS - WEEK_MS, now_ms - WEEK_MS)),
            hours=(*finished.hours.get(conn, range(hour - HOURS + 1, hour), now_ms), _hour(conn, hour)),
            days=(*days, DayFigures(day * DAY_MS, today)),
            queues=tallies.queues(conn, destinations),
        )


def unnamed(store: Store) -> str:
    """A sentence about the sales of the last 7 days without a visitor."""
    with store.read() as conn:
        return unnamed_sales(report.unnamed_sales(conn, read_ms(conn) - WEEK_MS))


def _goal_counts(states: Mapping[str, int]) -> GoalCounts:
    waiting = {state for state in GoalState if state not in FINAL and state is not GoalState.PARKED}
    return GoalCounts(
        delivered=states.get(GoalState.DELIVERED, 0),
        waiting=sum(states.get(state, 0) for state in waiting),
        parked=states.get(GoalState.PARKED, 0),
        rejected=states.get(GoalState.REJECTED, 0) + states.get(GoalState.EXPIRED, 0),
        unnamed=states.get(GoalState.UNATTRIBUTED, 0),
    )


def unnamed_sales(sales: Iterable[Money]) -> str:
    """`$1,240 of sales this week without a visitor (4)`; empty if there are none."""
    sums = [sale.without_visitor for sale in sales]
    if not sums:
        return ""
    amounts = listing([money(sale.without_visitor.amount, sale.currency) for sale in sales])
    return f"{amounts} of sales this week without a visitor ({sum(amount.goals for amount in sums):,})"


def drain_sentence(queue: Queue, rate: int, *, has_key: bool, paused: bool) -> str:
    """A sentence on when everything due now will have been sent. rate: requests per minute."""
    requests = queue.due + queue.looks
    if not requests:
        return "Nothing is due."
    minutes = -(-requests // rate)
    takes = f"At {count(rate, 'request')} per minute that takes about {span(minutes * 60_000)}"
    if not has_key:
        return f"Nothing is sent until the key is set. {takes} from then on."
    if paused:
        return f"Nothing is sent during the pause. {takes} once it ends."
    return f"{takes}, if no more arrive and DataFast accepts each on the first try."


# ----------------------------------------------------------------------------------------------------- the first run


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One step of the first run.

    sentence: what was found, or what to do next. setups: the sources whose URL or secret belongs to it. wrong: what
    prevents it, as far as is known.
    """

    title: str
    done: bool
    sentence: str
    setups: tuple[Setup, ...] = ()
    wrong: tuple[str, ...] = ()


def steps(
    seen: Progress,
    *,
    database: str,
    destinations: Mapping[str, Destination],
    setups: Sequence[Setup],
    wrong: Mapping[str, Sequence[str]],
) -> tuple[FirstStep, ...]:
    """Every step of the first run. wrong: for the steps `secret`, `event`, `visitor` and `goal`, what prevents them."""
    ready = tuple(setup for setup in setups if setup.secret_is_set)
    causes = {name: tuple(sentences) for name, sentences in wrong.items()}
    return (
        FirstStep("Database", done=True, sentence=f"{database} answers, and its schema is current."),
        _key(destinations),
        _secret(setups, ready),
        FirstStep("First event", seen.event, _event(seen, ready), () if seen.event else ready, causes.get("event", ())),
        FirstStep("First visitor", seen.visitor, _visitor(seen, ready or setups), (), causes.get("visitor", ())),
        FirstStep("First goal", seen.goal, _goal(seen), (), () if seen.goal else causes.get("goal", ())),
    )


def _key(destinations: Mapping[str, Destination]) -> FirstStep:
    with_key = sorted(name for name, destination in destinations.items() if destination.api_key)
    if with_key:
        sentence = f"Set for {listing(with_key)}. `python -m bridge doctor` asks DataFast whether it is valid."
        return FirstStep("DataFast key", done=True, sentence=sentence)
    sentence = (
        "Set `DATAFAST_API_KEY` to the API key of your website (df_…), which DataFast shows in the website's settings,"
        " and restart the bridge. Until then goals are made and wait; none is lost."
    )
    return FirstStep("DataFast key", done=False, sentence=sentence)


def _secret(setups: Sequence[Setup], ready: tuple[Setup, ...]) -> FirstStep:
    if ready:
        return FirstStep("Secret of a source", True, f"Set for {listing([setup.source for setup in ready])}.")
    if not setups:
        return FirstStep(
            "Secret of a source",
            False,
            "There is no mapping file yet: `python -m bridge init` writes one for each of your tools.",
        )
    sentence = (
        "Enter one of these URLs at its provider, put the secret that the provider shows into the setting beside it,"
        " and restart the bridge."
    )
    return FirstStep("Secret of a source", False, sentence, tuple(setups))


def _event(seen: Progress, ready: tuple[Setup, ...]) -> str:
    if seen.event:
        return "An event arrived; its signature was valid, and it is stored."
    if not ready:
        return "As soon as a source has its secret, send a test event from the provider's page."
    return "Send a test event from the provider's page, or sell something: the provider posts it to this URL."


def _visitor(seen: Progress, setups: Sequence[Setup]) -> str:
    if seen.visitor:
        return "An event named a visitor of your website."
    asked = advice(setups[0].provider, ()) if setups else "put the cookie datafast_visitor_id into the checkout"
    return f"Hand the visitor over, so that an event names one: {asked}."


def _goal(seen: Progress) -> str:
    if seen.goal:
        return "DataFast accepted a goal."
    return (
        "The first event that names a visitor and matches a rule makes a goal, which is sent at once; what became of"
        " each event is below."
    )
