"""Queries for people about events, goals and attempts: lists, details, and searches by any id.

Lists come newest first, in pages (`before`: the id of the last line of the previous page). Nothing here writes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import case, literal, null, select

from bridge.store.delivery import restoring
from bridge.store.goals import statements as goal_statements
from bridge.store.inbox.events import event_from_row
from bridge.store.links import lookups
from bridge.store.operator import threads
from bridge.store.operator.threads import among
from bridge.store.schema import attempts, events, goals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Column, ColumnElement, Connection, Row, Select

    from bridge.model import Event, Json
    from bridge.store.links.lookups import AskedQuestion
    from bridge.store.operator.threads import KeyLine

FOUND_MAX: Final = 50
WHOLE_AT_ONCE: Final = 16  # events: a body is up to 1 MiB


@dataclass(frozen=True, slots=True)
class GoalLine:
    """One goal, as in its table, with `metadata` and `provenance` parsed."""

    id: int
    event_id: int
    source: str
    rule_id: str
    rules_hash: str | None
    destination: str
    once_key: str
    test: bool
    name: str
    description: str
    metadata: Mapping[str, str]
    visitor: str | None
    provenance: Json
    state: str
    reason: str | None
    message: str | None
    happened_at_ms: int
    created_at_ms: int
    changed_at_ms: int
    due_at_ms: int
    expires_at_ms: int
    first_try_at_ms: int | None
    attempts: int
    delivered_at_ms: int | None
    datafast_event_id: str | None
    weak_at_ms: int | None
    generation: int
    kind: str
    notify: str | None
    told_at_ms: int | None

    @property
    def label(self) -> str:
        """The goal's name for people: `goal_7`."""
        return f"goal_{self.id}"

    @property
    def called(self) -> str:
        """The goal's name; for a payment, with the money: `payment 29.00 USD`."""
        if self.kind == "goal":
            return self.name
        refund = "refunded" if "refunded" in self.metadata else ""
        return " ".join(filter(None, (self.name, self.metadata.get("amount"), self.metadata.get("currency"), refund)))


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """One attempt to send a goal, or one check whether it arrived (`kind`: send, readback). outcome None: under way.

    `restored`: it stands for the time span missing from a restored backup.
    """

    id: int
    goal_id: int
    kind: str
    started_at_ms: int
    ended_at_ms: int | None
    outcome: str | None
    status: int | None
    message: str | None


@dataclass(frozen=True, slots=True)
class EventLine:
    """One event without its body, and the goals it made."""

    id: int
    source: str
    provider: str
    type: str
    provider_event_id: str | None
    account: str | None
    test: bool
    received_at_ms: int
    routed_at_ms: int | None
    state: str
    verdict: str | None
    reason: str | None
    duplicates: int
    tries: int
    goals: tuple[GoalLine, ...] = ()

    @property
    def label(self) -> str:
        """The event's name for people: `ev_12`."""
        return f"ev_{self.id}"


@dataclass(frozen=True, slots=True)
class EventDetail:
    """One event with everything still stored: body and trace are None once retention has deleted them.

    signature: how it was verified (`bridge.receive`); None if an earlier release stored it.
    """

    line: EventLine
    event: Event
    trace: Json
    rules_hash: str | None
    signature: Json = None


@dataclass(frozen=True, slots=True)
class GoalDetail:
    """One goal with its event and its attempts, oldest first. lookups: the questions asked at its provider for it.

    For a goal without a visitor: keys may lead to one; stopped are keys beside them that no longer link anything;
    trouble is why DataFast could not be asked about a visitor. origin: of its rule in a layer, while the trace is kept.
    """

    goal: GoalLine
    event: EventLine
    attempts: tuple[AttemptLine, ...]
    lookups: tuple[AskedQuestion, ...] = ()
    keys: tuple[KeyLine, ...] = ()
    stopped: tuple[KeyLine, ...] = ()
    trouble: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Matches:
    """What a string names: ids of events and goals, newest first, at most 50 of each."""

    events: tuple[int, ...] = ()
    goals: tuple[int, ...] = ()


# -------------------------------------------------------------------------------------------------------- lists


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filter:
    """Which rows to list; None: all."""

    state: str | None = None
    source: str | None = None
    test: bool | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter(_Filter):
    """Which events to list."""

    verdict: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalFilter(_Filter):
    """Which goals to list."""

    destination: str | None = None
    name: str | None = None
    visitor: str | None = None
    rule_id: str | None = None
    reason: str | None = None
    event_id: int | None = None


def list_events(conn: Connection, criteria: EventFilter) -> list[EventLine]:
    """Events, newest first, each with its goals."""
    return event_lines(conn, _filtered(select(*EVENT_COLUMNS), events.c, events.c.received_at_ms, criteria))


def list_goals(conn: Connection, criteria: GoalFilter) -> list[GoalLine]:
    """Goals, newest first."""
    return goal_lines(conn, _filtered(select(*GOAL_COLUMNS), goals.c, goals.c.created_at_ms, criteria))


_NOT_COLUMNS: Final = frozenset({"since_ms", "until_ms", "before", "limit"})


def _filtered(
    query: Select[*tuple[Any, ...]], columns: Any, came_at_ms: Column[int], criteria: _Filter
) -> Select[*tuple[Any, ...]]:
    for field in fields(criteria):
        value = getattr(criteria, field.name)
        if value is not None and field.name not in _NOT_COLUMNS:
            query = query.where(columns[field.name] == value)
    if criteria.since_ms is not None:
        query = query.where(came_at_ms >= criteria.since_ms)
    if criteria.until_ms is not None:
        query = query.where(came_at_ms < criteria.until_ms)
    if criteria.before is not None:
        query = query.where(columns.id < criteria.before)
    return query.order_by(columns.id.desc()).limit(criteria.limit)


# ------------------------------------------------------------------------------------------------------ one of it


def show_event(conn: Connection, event_id: int) -> EventDetail | None:
    """One event by our id."""
    return next(show_events(conn, [event_id], whole=True), None)


def traces_of(conn: Connection, ids: Sequence[int]) -> dict[int, Json]:
    """The traces of some events, if still stored."""
    query = select(events.c.id, events.c.trace).where(events.c.id.in_(ids), events.c.trace.is_not(None))
    return {event_id: _json(trace) for event_id, trace in conn.execute(query)}


def show_events(conn: Connection, ids: Sequence[int], *, whole: bool = False) -> Iterator[EventDetail]:
    """Some events by our ids, in their order. whole: with bodies and traces, of few events at a time."""
    query, step = (select(events), WHOLE_AT_ONCE) if whole else (_WITHOUT_BODIES, len(ids) or 1)
    for start in range(0, len(ids), step):
        chunk = ids[start : start + step]
        rows = _in_order(conn, query.where(events.c.id.in_(chunk)), chunk)
        for line, row in zip(_with_goals(conn, rows), rows, strict=True):
            yield EventDetail(line, event_from_row(row), _json(row.trace), row.rules_hash, _json(row.signature))


def show_goal(conn: Connection, goal_id: int) -> GoalDetail | None:
    """One goal by our id."""
    return next(iter(show_goals(conn, [goal_id])), None)


def show_goals(conn: Connection, ids: Sequence[int]) -> list[GoalDetail]:
    """Some goals by our ids, in their order. Only different keys of goals without a visitor take more statements."""
    rows = _in_order(conn, select(goals).where(goals.c.id.in_(ids)), ids) if ids else []
    query = select(*EVENT_COLUMNS, events.c.trace).where(events.c.id.in_({row.event_id for row in rows}))
    made_by = conn.execute(query).all() if rows else []
    return _details(conn, rows, _with_goals(conn, made_by), {event.id: _json(event.trace) for event in made_by})


def goals_of(conn: Connection, event: EventDetail, most: int | None = None) -> list[GoalDetail]:
    """The goals of an event, the first `most` of them. It takes no more statements than one goal does."""
    ids = [goal.id for goal in event.line.goals[:most]]
    rows = conn.execute(select(goals).where(goals.c.id.in_(ids)).order_by(goals.c.id)).all() if ids else []
    return _details(conn, rows, [event.line], {event.line.id: event.trace})


def _details(
    conn: Connection, rows: Sequence[Row[*tuple[Any, ...]]], made_by: Sequence[EventLine], traces: Mapping[int, Json]
) -> list[GoalDetail]:
    """Goals of these events, by their rows."""
    lines = {event.id: event for event in made_by}
    ids = [row.id for row in rows]
    unnamed = [row for row in rows if row.state in ("parked", "unattributed")]
    tries, asked = attempts_of(conn, ids), lookups.asked_for_goals(conn, ids)
    keys = threads.keys_of_goals(conn, [row.id for row in unnamed])
    to_prove = {(row.destination, row.to_prove) for row in unnamed if row.to_prove}
    troubles = goal_statements.last_problems(conn, to_prove)
    return [
        GoalDetail(
            _goal(row),
            lines[row.event_id],
            tuple(tries.get(row.id, ())),
            tuple(asked.get(row.id, ())),
            *keys.get(row.id, ((), ())),
            troubles.get((row.destination, row.to_prove)) if row.id in keys else None,
            _origin(traces[row.event_id], row.id),
        )
        for row in rows
    ]


def _origin(trace: Json, goal_id: int) -> str | None:
    return next((goal.get("origin") for goal in traced_goals(trace) if goal.get("id") == goal_id), None)


def traced_goals(trace: Json) -> Iterator[Mapping[str, Any]]:
    """The entry of a trace for each goal; empty if the trace is not stored."""
    for element in (trace or {}).get("elements", ()):
        yield from element.get("goals", ())


def attempts_of(conn: Connection, goal_ids: Sequence[int]) -> dict[int, list[AttemptLine]]:
    """The attempts of each of these goals, oldest first."""
    found: dict[int, list[AttemptLine]] = {}
    query = select(*ATTEMPT_COLUMNS).where(among(attempts.c.goal_id, goal_ids)).order_by(attempts.c.id)
    for attempt in attempt_lines(conn, query) if goal_ids else ():
        found.setdefault(attempt.goal_id, []).append(attempt)
    return found


def find(conn: Connection, text: str) -> Matches:
    """What a string names: `ev_12`, `goal_7`, a provider's event id, a visitor. Link keys are for `store.links`."""
    our_id = re.fullmatch(r"(ev|goal)_(\d{1,18})", text)
    if our_id is not None:
        table = events if our_id[1] == "ev" else goals
        ids = tuple(conn.execute(select(table.c.id).where(table.c.id == int(our_id[2]))).scalars())
        return Matches(events=ids) if our_id[1] == "ev" else Matches(goals=ids)
    visitor_goals = select(goals.c.id).where(goals.c.visitor == text).order_by(_newest(goals.c.id)).limit(FOUND_MAX)
    return Matches(events_named(conn, text), tuple(conn.execute(visitor_goals).scalars()))


def events_named(conn: Connection, text: str) -> tuple[int, ...]:
    """Our ids of the newest events with this provider id, at most 50."""
    named = select(events.c.id).where(events.c.provider_event_id == text)
    return tuple(conn.execute(named.order_by(_newest(events.c.id)).limit(FOUND_MAX)).scalars())


def _newest(id_: Column[int]) -> ColumnElement[int]:
    """Newest first, in a form no index covers: without statistics, PostgreSQL would scan all ids for a few rows."""
    return (id_ + 0).desc()


# --------------------------------------------------------------------------------------------------------- rows

EVENT_COLUMNS: Final = tuple(events.c[field.name] for field in fields(EventLine) if field.name != "goals")
GOAL_COLUMNS: Final = tuple(goals.c[field.name] for field in fields(GoalLine))
_LEFT_OUT: Final = {"body": null(), "trace": null(), "headers": literal("{}"), "query": literal("{}")}
_WITHOUT_BODIES: Final = select(
    *(column for column in events.c if column.name not in _LEFT_OUT),
    *(value.label(name) for name, value in _LEFT_OUT.items()),
)
ATTEMPT_COLUMNS: Final = (
    *(attempts.c[field.name] for field in fields(AttemptLine) if field.name != "kind"),
    case((restoring.is_restore_mark(), "restored"), else_=attempts.c.kind).label("kind"),
)


def event_lines(conn: Connection, query: Select[*tuple[Any, ...]]) -> list[EventLine]:
    """The events of a query for EVENT_COLUMNS, each with its goals."""
    return _with_goals(conn, conn.execute(query).all())


def goal_lines(conn: Connection, query: Select[*tuple[Any, ...]]) -> list[GoalLine]:
    """The goals of a query for GOAL_COLUMNS."""
    return [_goal(row) for row in conn.execute(query)]


def goals_by_id(conn: Connection, ids: Iterable[int]) -> list[GoalLine]:
    """These goals, the oldest first."""
    return goal_lines(conn, select(*GOAL_COLUMNS).where(goals.c.id.in_(sorted(ids))).order_by(goals.c.id))


def attempt_lines(conn: Connection, query: Select[*tuple[Any, ...]]) -> list[AttemptLine]:
    """The attempts of a query for ATTEMPT_COLUMNS."""
    return [AttemptLine(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001 - public in SQLAlchemy


def _in_order(conn: Connection, query: Select[*tuple[Any, ...]], ids: Iterable[int]) -> list[Row[*tuple[Any, ...]]]:
    found = {row.id: row for row in conn.execute(query)}
    return [found[id_] for id_ in ids if id_ in found]


def _with_goals(conn: Connection, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[EventLine]:
    made = _goals_of(conn, [row.id for row in rows])
    return [
        EventLine(**{column.name: row._mapping[column] for column in EVENT_COLUMNS}, goals=tuple(made.get(row.id, ())))  # noqa: SLF001
        for row in rows
    ]


def _goals_of(conn: Connection, event_ids: Sequence[int]) -> dict[int, list[GoalLine]]:
    found: dict[int, list[GoalLine]] = {}
    query = select(*GOAL_COLUMNS).where(among(goals.c.event_id, event_ids)).order_by(goals.c.id)
    for row in conn.execute(query) if event_ids else ():
        found.setdefault(row.event_id, []).append(_goal(row))
    return found


def _goal(row: Row[*tuple[Any, ...]]) -> GoalLine:
    values: dict[str, Any] = {column.name: row._mapping[column] for column in GOAL_COLUMNS}  # noqa: SLF001
    return GoalLine(**{**values, "metadata": json.loads(row.metadata), "provenance": _json(row.provenance)})


def _json(text: str | None) -> Json:
    return None if text is None else json.loads(text)
