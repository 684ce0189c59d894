"""One page of events, goals or deliveries for any filter, without scanning a whole table.

Most columns have no index of their own, and a filter may match nothing, or only old rows. So rows are examined in the
order of their ids, some at a time, until the page is full or enough have been examined; the page says how far it got,
and the next one continues there. Rare values that an index covers (events in quarantine, a source that sent little,
held goals) are found immediately, however old they are. Columns are compared in a form that no index covers, so that no
statement costs more than the rows it should examine. Nothing here writes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, func, literal, or_, select, tuple_

from bridge.model import EventState
from bridge.store.operator import queries
from bridge.store.schema import attempts, events, goals, source_counters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Column, ColumnElement, Connection, Select

    from bridge.store.operator.queries import AttemptLine, GoalLine

    # The rows of a step, by a column that holds their ids.
    Within = Callable[[Column[int]], ColumnElement[bool]]

PAGE: Final = 50
LOOKED_MAX: Final = 20_000  # rows examined per page
BODIES_STEP: Final = 2_000  # events whose bodies are searched at a time
NEW_MAX: Final = 99
_FIRST: Final = 500  # rows in the first step: enough for most pages
_NEXT: Final = 1_000  # rows after a given one, among which new ones are counted
_STEP_MAX: Final = 4_000  # if few match, each step is twice as long as the one before
_FEW: Final = 1_000  # rows with a value: if there are no more than this, all are examined
_SOURCES_MAX: Final = 40  # sources that are searched for a rare verdict
_OUT_OF_ORDER: Final = 500  # rows that may have arrived in another order than their ids'
_SLACK_MS: Final = 3_600_000
_BATCH: Final = 2 << 20  # bytes of bodies in memory at once

EVENTS: Final = "events"
GOALS: Final = "goals"
DELIVERIES: Final = "deliveries"
UNDER_WAY: Final = "under_way"  # a delivery that has no outcome yet


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityFilter:
    """Which rows to list; None: all. before, after: list only rows before, or after, this id.

    state: of an event or a goal; for a delivery, its outcome. type, verdict: of an event. name and the fields after it:
    of a goal; for an event, of any of its goals. reason: a part of it.
    """

    source: str | None = None
    state: str | None = None
    test: bool | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    type: str | None = None
    verdict: str | None = None
    reason: str | None = None
    name: str | None = None
    rule_id: str | None = None
    destination: str | None = None
    visitor: bool | None = None
    before: int | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class ListedDelivery:
    """One attempt to send a goal, or one check whether it arrived, with its goal."""

    attempt: AttemptLine
    goal: GoalLine

    @property
    def id(self) -> int:
        """The id of the attempt."""
        return self.attempt.id


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """Rows, newest first. looked: how many ids were examined.

    reached: everything down to this id (with `after`: up to it) was examined; None: nothing is left beyond.
    """

    rows: tuple[Any, ...]
    looked: int
    reached: int | None


@dataclass(frozen=True, slots=True)
class MatchCount:
    """How many rows match, by state. reached: as for `ActivityPage`."""

    by_state: dict[str, int]
    reached: int | None

    @property
    def number(self) -> int:
        """The total over all states."""
        return sum(self.by_state.values())


def page(
    conn: Connection, kind: str, criteria: ActivityFilter, size: int = PAGE, enough: Callable[[], bool] = lambda: False
) -> ActivityPage:
    """The next rows that match. enough: whether to stop before LOOKED_MAX rows have been examined."""
    view, descending = _VIEWS[kind], criteria.after is None
    found: list[Any] = []
    looked, reached = 0, None
    for step in _steps(conn, view, criteria):
        query = view.select.where(*step.filter).order_by(view.id.desc() if descending else view.id)
        found += view.rows(conn, query.limit(size + 1 - len(found)))
        looked, reached = looked + step.looked, step.reached
        if len(found) > size:
            found, reached = found[:size], found[size - 1].id
            break
        if looked >= LOOKED_MAX or enough():
            break
    else:
        reached = None
    return ActivityPage(tuple(found if descending else reversed(found)), looked, reached)


def count(
    conn: Connection, kind: str, criteria: ActivityFilter, enough: Callable[[], bool] = lambda: False
) -> MatchCount:
    """How many rows match, as far as a page would examine them."""
    view, looked, reached, found = _VIEWS[kind], 0, None, Counter[str]()
    for step in _steps(conn, view, criteria):
        query = view.select.with_only_columns(view.state, func.count()).where(*step.filter).group_by(view.state)
        found.update({row[0]: row[1] for row in conn.execute(query)})
        looked, reached = looked + step.looked, step.reached
        if looked >= LOOKED_MAX or enough():
            break
    else:
        reached = None
    return MatchCount(dict(found), reached)


def newer(conn: Connection, kind: str, criteria: ActivityFilter, after: int) -> int:
    """How many rows after this one match: at most NEW_MAX, and only among the next ones."""
    view, within = _VIEWS[kind], _between(after + 1, after + 1 + _NEXT)
    ids = view.select.with_only_columns(view.id).where(within(view.id), *view.filter(criteria, within))
    return conn.execute(select(func.count()).select_from(ids.limit(NEW_MAX).subquery())).scalar_one()


def newest_id(conn: Connection, kind: str) -> int:
    """The id of the newest row; 0 if there is none."""
    return conn.execute(select(func.max(_VIEWS[kind].id))).scalar() or 0


def sources(conn: Connection) -> list[str]:
    """The sources that ever sent something, or tried to: at most some more than are searched for a rare verdict."""
    return list(conn.execute(select(source_counters.c.source).limit(_SOURCES_MAX + 1)).scalars())


# -------------------------------------------------------------------------------------------------------- bodies


def search_bodies(
    conn: Connection, criteria: ActivityFilter, needles: Sequence[bytes], enough: Callable[[], bool] = lambda: False
) -> ActivityPage:
    """Those of the next BODIES_STEP events that match and whose bodies contain one of these (lower-case) needles."""
    found: list[int] = []
    looked, reached = 0, None
    for step in _steps(conn, _VIEWS[EVENTS], criteria, first=_FIRST // 2, most=_FIRST // 2):
        looked, reached = looked + step.looked, step.reached
        sizes = conn.execute(select(events.c.id, func.length(events.c.body)).where(*step.filter))
        for ids in _batches((row[0], row[1]) for row in sizes if row[1]):
            bodies = conn.execute(select(events.c.id, events.c.body).where(events.c.id.in_(ids)))
            found += [row.id for row in bodies if _holds(row.body, needles)]
        if len(found) >= PAGE or looked >= BODIES_STEP or enough():
            break
    else:
        reached = None
    view = _VIEWS[EVENTS]
    lines = view.rows(conn, view.select.where(events.c.id.in_(found)).order_by(events.c.id.desc())) if found else ()
    return ActivityPage(tuple(lines), looked, reached)


def _holds(body: bytes, needles: Sequence[bytes]) -> bool:
    lower = bytes(body).lower()
    return any(needle in lower for needle in needles)


def _batches(sizes: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Ids of bodies that are held in memory together."""
    batch, total = list[int](), 0
    for id_, size in sizes:
        if batch and total + size > _BATCH:
            yield batch
            batch, total = [], 0
        batch.append(id_)
        total += size
    if batch:
        yield batch


# --------------------------------------------------------------------------------------------------------- steps


@dataclass(frozen=True, slots=True)
class _View:
    """A table as the list shows it. few: the ids of all rows that may match, if an index shows that they are few."""

    id: Column[int]
    state: Column[str]
    came_at_ms: Column[int]
    select: Select[*tuple[Any, ...]]
    rows: Callable[[Connection, Select[*tuple[Any, ...]]], list[Any]]
    filter: Callable[[ActivityFilter, Within], list[ColumnElement[bool]]]
    few: Callable[[Connection, ActivityFilter], list[int] | None]


@dataclass(frozen=True, slots=True)
class _Step:
    """Some rows, and which of them match. reached: the last one examined; None: there are no more."""

    filter: Sequence[ColumnElement[bool]]
    looked: int
    reached: int | None


def _steps(
    conn: Connection, view: _View, criteria: ActivityFilter, first: int = _FIRST, most: int = _STEP_MAX
) -> Iterator[_Step]:
    """All rows that may match, some at a time, in the order of the page."""
    low, high = _bounds(conn, view, criteria)
    few = view.few(conn, criteria)
    if few is not None:
        ids = [id_ for id_ in few if low <= id_ < high]
        yield _step(view, criteria, _listed(ids), len(ids), None)
    elif view.id is events.c.id and criteria.state in _BY_STATE:
        yield from _in_state(conn, view, criteria, low, high)
    else:
        yield from _by_ids(conn, view, criteria, low, high, (first, most))


def _step(view: _View, criteria: ActivityFilter, within: Within, looked: int, reached: int | None) -> _Step:
    return _Step((within(view.id), *view.filter(criteria, within)), looked, reached)


def _by_ids(
    conn: Connection, view: _View, criteria: ActivityFilter, low: int, high: int, sizes: tuple[int, int]
) -> Iterator[_Step]:
    """Steps by id. Each begins at the next existing row, because ids may have gaps of any size."""
    size, most = sizes
    descending = criteria.after is None
    edge = func.max(view.id) if descending else func.min(view.id)
    while (at := conn.execute(select(edge).where(view.id >= low, view.id < high)).scalar()) is not None:
        start, end = (max(low, at + 1 - size), at + 1) if descending else (at, min(high, at + size))
        low, high = (low, start) if descending else (end, high)
        reached = None if low >= high else start if descending else end - 1
        yield _step(view, criteria, _between(start, end), end - start, reached)
        size = min(2 * size, most)


def _between(start: int, end: int) -> Within:
    return lambda column: and_(column >= start, column < end)


_BY_STATE: Final = (EventState.RECEIVED.value, EventState.QUARANTINED.value)  # an index has these in the order of ids


def _in_state(conn: Connection, view: _View, criteria: ActivityFilter, low: int, high: int) -> Iterator[_Step]:
    """The events in a state, in the order of their index, so that the planner uses no other index."""
    place, descending = tuple_(events.c.state, events.c.id), criteria.after is None
    order = (events.c.state.desc(), events.c.id.desc()) if descending else (events.c.state, events.c.id)
    while low < high:
        some = place >= tuple_(criteria.state, low), place < tuple_(criteria.state, high)
        ids = list(conn.execute(select(events.c.id).where(*some).order_by(*order).limit(_FEW)).scalars())
        full = len(ids) == _FEW
        yield _step(view, criteria, _listed(ids), len(ids), ids[-1] if full else None)
        low, high = (low, ids[-1] if full else low) if descending else (ids[-1] + 1 if full else high, high)


def _listed(ids: Sequence[int]) -> Within:
    return lambda column: column.in_(ids)


def _bounds(conn: Connection, view: _View, criteria: ActivityFilter) -> tuple[int, int]:
    """The lowest id that may match, and the id before which rows may match."""
    # In two queries: for both at once, SQLite would walk the whole index.
    low, high = (conn.execute(select(end(view.id))).scalar() for end in (func.min, func.max))
    if low is None or high is None:
        return 0, 0
    lows, highs = [low], [high + 1]
    if criteria.after is not None:
        lows.append(criteria.after + 1)
    if criteria.before is not None:
        highs.append(criteria.before)
    if criteria.since_ms is not None:
        ids = _nearest(conn, view, view.came_at_ms >= criteria.since_ms, view.came_at_ms)
        lows.append(min(ids, default=high + 1))
    until_ms = _until_ms(conn, view, criteria)
    if until_ms is not None:
        ids = _nearest(conn, view, view.came_at_ms < until_ms, view.came_at_ms.desc())
        highs.append(max(ids, default=low - 1) + 1)
    return max(lows), min(highs)


def _nearest(conn: Connection, view: _View, reached: ColumnElement[bool], order: ColumnElement[int]) -> Sequence[int]:
    """The ids of the first rows on one side of a time."""
    return conn.execute(select(view.id).where(reached).order_by(order).limit(_OUT_OF_ORDER)).scalars().all()


def _until_ms(conn: Connection, view: _View, criteria: ActivityFilter) -> int | None:
    """The time before which rows may match: for a source that fell silent, shortly after its last event."""
    if criteria.source is None or view.id is not events.c.id:
        return criteria.until_ms
    last = select(source_counters.c.last_accepted_at_ms).where(source_counters.c.source == criteria.source)
    last_ms = conn.execute(last).scalar()
    ends = [ms for ms in (criteria.until_ms, None if last_ms is None else last_ms + _SLACK_MS) if ms is not None]
    return min(ends, default=None)


# ------------------------------------------------------------------------------------------------------ rare values


def _few_events(conn: Connection, criteria: ActivityFilter) -> list[int] | None:
    if criteria.source is None and criteria.verdict is None:
        return None
    searched = [criteria.source] if criteria.source is not None else sources(conn)
    rest = () if criteria.verdict is None else (EventState.ROUTED.value, criteria.verdict)
    found: list[int] = []
    for source in searched:
        found += _with_prefix(conn, events.c.id, _INDEXED, (source, *rest), _FEW + 1 - len(found))
    return found if 0 < len(searched) <= _SOURCES_MAX and len(found) <= _FEW else None


_INDEXED: Final = (events.c.source, events.c.state, events.c.verdict)  # ix_events_source_state_verdict


def _few_goals(conn: Connection, criteria: ActivityFilter) -> list[int] | None:
    if criteria.state is None:
        return None
    found = _with_prefix(conn, goals.c.id, (goals.c.state, goals.c.due_at_ms), (criteria.state,), _FEW + 1)
    return found if len(found) <= _FEW else None


def _with_prefix(
    conn: Connection, id_: Column[int], index: Sequence[Column[Any]], values: Sequence[str], limit: int
) -> list[int]:
    """The first ids that an index has for values of its first columns. They are sorted as it is, so that it is used.

    The last of these columns is compared as a range: otherwise its order would be ignored. The others are not, or
    PostgreSQL would use another index with the same beginning, and sort.
    """
    if limit <= 0:
        return []
    last = len(values) - 1
    same = [column == value for column, value in zip(index[:last], values, strict=False)]
    query = select(id_).where(*same, index[last] >= values[last], index[last] <= values[last])
    return list(conn.execute(query.order_by(*index[last:]).limit(limit)).scalars())


# --------------------------------------------------------------------------------------------------------- filters


def _plain(column: Column[Any]) -> ColumnElement[Any]:
    """A column in a form that no index covers."""
    return column + 0 if column.type.python_type is int else column.concat("")


def _same(columns: Any, criteria: ActivityFilter, *names: str) -> list[ColumnElement[bool]]:
    given = ((columns[name], getattr(criteria, name)) for name in names)
    return [
        column == value if isinstance(value, bool) else _plain(column) == value
        for column, value in given
        if value is not None
    ]


def _period(came_at_ms: Column[int], criteria: ActivityFilter) -> list[ColumnElement[bool]]:
    since, until = criteria.since_ms, criteria.until_ms
    return [
        *([_plain(came_at_ms) >= since] if since is not None else ()),
        *([_plain(came_at_ms) < until] if until is not None else ()),
    ]


def _has(text: str | None, *columns: Column[Any]) -> list[ColumnElement[bool]]:
    """Conditions that one of the columns contains the text, ignoring case."""
    if text is None:
        return []
    return [or_(*(func.lower(column).contains(text.lower(), autoescape=True) for column in columns))]


def _goal_conditions(criteria: ActivityFilter) -> list[ColumnElement[bool]]:
    found = _same(goals.c, criteria, "name", "rule_id", "destination")
    if criteria.visitor is not None:
        known = _plain(goals.c.visitor).is_not(None)
        found.append(known if criteria.visitor else ~known)
    return found


def _filter_events(criteria: ActivityFilter, within: Within) -> list[ColumnElement[bool]]:
    found = _same(events.c, criteria, "source", "state", "test", "type", "verdict")
    found += [*_period(events.c.received_at_ms, criteria), *_has(criteria.reason, events.c.reason)]
    conditions = _goal_conditions(criteria)
    if conditions:
        found.append(events.c.id.in_(select(goals.c.event_id).where(within(goals.c.event_id), *conditions)))
    return found


def _filter_goals(criteria: ActivityFilter, _within: Within) -> list[ColumnElement[bool]]:
    found = _same(goals.c, criteria, "source", "state", "test")
    found += [*_period(goals.c.created_at_ms, criteria), *_has(criteria.reason, goals.c.reason, goals.c.message)]
    return found + _goal_conditions(criteria)


def _filter_deliveries(criteria: ActivityFilter, _within: Within) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    conditions = _same(goals.c, criteria, "source", "test") + _goal_conditions(criteria)
    if conditions:  # a scalar subquery: for a join, PostgreSQL would scan all goals
        its_goal = select(literal(1)).where(goals.c.id == attempts.c.goal_id, *conditions)
        found.append(its_goal.scalar_subquery() == 1)
    if criteria.state == UNDER_WAY:
        found.append(attempts.c.outcome.is_(None))
    elif criteria.state is not None:
        found.append(attempts.c.outcome == criteria.state)
    return found + _period(attempts.c.started_at_ms, criteria) + _has(criteria.reason, attempts.c.message)


def _deliveries(conn: Connection, query: Select[*tuple[Any, ...]]) -> list[ListedDelivery]:
    attempt_lines = queries.attempt_lines(conn, query)
    found = {goal.id: goal for goal in queries.goals_by_id(conn, {attempt.goal_id for attempt in attempt_lines})}
    return [ListedDelivery(attempt, found[attempt.goal_id]) for attempt in attempt_lines]


_VIEWS: Final = {
    EVENTS: _View(
        events.c.id,
        events.c.state,
        events.c.received_at_ms,
        select(*queries.EVENT_COLUMNS),
        queries.event_lines,
        _filter_events,
        _few_events,
    ),
    GOALS: _View(
        goals.c.id,
        goals.c.state,
        goals.c.created_at_ms,
        select(*queries.GOAL_COLUMNS),
        queries.goal_lines,
        _filter_goals,
        _few_goals,
    ),
    DELIVERIES: _View(
        attempts.c.id,
        attempts.c.outcome,
        attempts.c.started_at_ms,
        select(*queries.ATTEMPT_COLUMNS),
        _deliveries,
        _filter_deliveries,
        lambda _conn, _wanted: None,
    ),
}
