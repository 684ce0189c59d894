"""Counts of what arrived and what became of it: event types, rules, goals of a time span, waiting goals, hours, days.

Each function says what it reads. As in a report, hours and days exclude goals of test events, of dry rules, and goals
that a person sent again. They are UTC. Nothing here writes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, case, exists, func, literal_column, or_, select

from bridge.model import TO_SEND, UNFINAL, GoalState
from bridge.store.clock import now_ms
from bridge.store.goals import attribution
from bridge.store.operator import status
from bridge.store.operator.threads import among
from bridge.store.schema import destinations, events, goals, link_keys, link_visitors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    Rule = tuple[str, str]  # its source and its id

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
_PAGE: Final = 5_000  # goals, plus any of the same millisecond as the last one
_EVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class TypeTally:
    """The events of one type received by one source. last_id: the newest."""

    source: str
    type: str
    events: int
    last_id: int
    last_at_ms: int


@dataclass(frozen=True, slots=True)
class RuleTally:
    """The goals that one rule made."""

    source: str
    rule_id: str
    goals: int
    last_at_ms: int


@dataclass(frozen=True, slots=True)
class LastGoal:
    """How many goals one rule made lately, and the newest of all its goals, with its event."""

    source: str
    rule_id: str
    lately: int
    goal_id: int
    event_id: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class GoalWithoutVisitor:
    """A goal without a visitor, from an event where one could have been handed over."""

    id: int
    source: str
    event_id: int
    handover: str


class GoalFacts(NamedTuple):
    """What a report says of one goal. through: how its visitor was found (`bridge.identity.sentences.WAYS`).

    None: it has no visitor, or DataFast did not know the visitor. A report reads very many of these.
    """

    id: int
    source: str
    rule_id: str
    name: str
    created_at_ms: int
    state: str
    reason: str | None
    message: str | None
    metadata: str
    handover: str | None
    test: bool
    event_id: int
    kind: str
    through: str | None

    @property
    def attributed(self) -> bool:
        return self.through is not None


@dataclass(frozen=True, slots=True)
class WaitTally:
    """Goals that are not final, in one state and for one reason."""

    state: str
    reason: str | None
    goals: int
    oldest_at_ms: int


def types(conn: Connection, since_ms: int) -> list[TypeTally]:
    """The types of the events since then. Reads each event's source and type, by the index of arrival times."""
    return [TypeTally(*row) for row in conn.execute(_TYPES, {"since": since_ms})]


def rules(conn: Connection, since_ms: int) -> list[RuleTally]:
    """The rules of the goals since then. Reads each goal's source and rule, by the index of creation times."""
    return [RuleTally(*row) for row in conn.execute(_RULES, {"since": since_ms})]


def last_goals(conn: Connection, since_ms: int) -> list[LastGoal]:
    """One for every rule that ever made a goal; lately: since then. Reads all goals, so do not call it per request."""
    newest: dict[Rule, int] = {}
    lately: Counter[Rule] = Counter()
    for span in status.id_spans(conn, goals.c.id):
        for source, rule_id, goal_id, count in conn.execute(_NEWEST, {"since": since_ms, **span}):
            newest[source, rule_id] = goal_id
            lately[source, rule_id] += count
    made = {row.id: row for row in conn.execute(_OF_RULES, {"ids": list(newest.values())})}
    return [
        LastGoal(*rule, lately[rule], goal_id, made[goal_id].event_id, made[goal_id].created_at_ms)
        for rule, goal_id in newest.items()
    ]


def goals_since(conn: Connection, since_ms: int) -> Iterator[GoalFacts]:
    """Every goal made since then, except those that a person sent again. In pages, by the index of creation times."""
    at_ms: int | None = since_ms
    while at_ms is not None:
        last_ms = conn.execute(_END_OF_PAGE, {"since": at_ms, "page": _PAGE}).scalar()
        rows = conn.execute(_GOALS, {"since": at_ms, "until": _EVER if last_ms is None else last_ms})
        yield from map(_facts, rows.all())
        at_ms = None if last_ms is None else last_ms + 1


def goals_of(conn: Connection, event_ids: Sequence[int]) -> list[GoalFacts]:
    """The goals of some events, except those that a person sent again."""
    made = _OF_GOALS.where(among(goals.c.event_id, event_ids), goals.c.generation == 1)
    return [_facts(row) for row in conn.execute(made.order_by(goals.c.id))]


def unnamed_since(conn: Connection, handover: str, since_ms: int) -> Iterator[GoalFacts]:
    """Those of `goals_since` whose events have a goal without a visitor where one could have been handed over."""
    for row in conn.execute(_GOALS_UNNAMED, {"of_handover": handover, "since": since_ms}):
        yield _facts(row)


def _facts(row: Any) -> GoalFacts:
    *facts, visitor, provenance = row
    unknown = row.reason == "unknown_visitor" and row.state == GoalState.REJECTED
    values: tuple[Any, ...] = (*facts, None if visitor is None or unknown else attribution.through(provenance))
    return GoalFacts(*values)


def waiting(conn: Connection) -> list[WaitTally]:
    """Tallies of all goals that are not final, whenever made. Reads only these, by the index of states."""
    return [WaitTally(*row) for row in conn.execute(_WAITING)]


_TYPES: Final = (
    select(events.c.source, events.c.type, func.count(), func.max(events.c.id), func.max(events.c.received_at_ms))
    .where(events.c.received_at_ms >= bindparam("since"))
    .group_by(events.c.source, events.c.type)
    .order_by(events.c.source, events.c.type)
)
_RULES: Final = (
    select(goals.c.source, goals.c.rule_id, func.count(), func.max(goals.c.created_at_ms))
    .where(goals.c.created_at_ms >= bindparam("since"))
    .group_by(goals.c.source, goals.c.rule_id)
)
_OF_GOALS: Final = select(
    *(goals.c[name] for name in GoalFacts._fields if name != "through"), goals.c.visitor, goals.c.provenance
)
_NEWEST: Final = (
    select(
        goals.c.source,
        goals.c.rule_id,
        func.max(goals.c.id),
        func.sum(case((goals.c.created_at_ms >= bindparam("since"), 1), else_=0)),
    )
    .where(goals.c.id.between(bindparam("first"), bindparam("last")))
    .group_by(goals.c.source, goals.c.rule_id)
)
_OF_RULES: Final = select(goals.c.id, goals.c.event_id, goals.c.created_at_ms).where(
    goals.c.id.in_(bindparam("ids", expanding=True))
)
# A page has both bounds: PostgreSQL without statistics would sort all goals after its beginning, for each page.
_END_OF_PAGE: Final = (
    select(goals.c.created_at_ms)
    .where(goals.c.created_at_ms >= bindparam("since"))
    .order_by(goals.c.created_at_ms)
    .offset(bindparam("page"))
    .limit(1)
)
_GOALS: Final = (
    _OF_GOALS.where(goals.c.created_at_ms >= bindparam("since"), goals.c.created_at_ms <= bindparam("until"))
    .where(goals.c.generation == 1)
    .order_by(goals.c.created_at_ms, goals.c.id)
)
_GOALS_UNNAMED: Final = _OF_GOALS.where(
    goals.c.created_at_ms >= bindparam("since"),
    goals.c.generation == 1,
    goals.c.event_id.in_(
        select(goals.c.event_id).where(
            goals.c.handover == bindparam("of_handover"),
            goals.c.created_at_ms >= bindparam("since"),
            or_(
                goals.c.visitor.is_(None),
                and_(goals.c.state == GoalState.REJECTED, goals.c.reason == "unknown_visitor"),
            ),
        )
    ),
).order_by(goals.c.created_at_ms, goals.c.id)
_WAITING: Final = (
    select(goals.c.state, goals.c.reason, func.count(), func.min(goals.c.created_at_ms))
    .where(goals.c.state.in_(UNFINAL))
    .group_by(goals.c.state, goals.c.reason)
    .order_by(goals.c.state, goals.c.reason)
)


# ------------------------------------------------------------------------------------------------------- people

_UNNAMED_MAX: Final = 500


def unnamed(conn: Connection, since_ms: int) -> list[GoalWithoutVisitor]:
    """The newest live goals since then without a visitor where one could have been handed over, one per event."""
    return [GoalWithoutVisitor(*row) for row in conn.execute(_UNNAMED, {"since": since_ms})]


def known_users(conn: Connection, keys: Iterable[str]) -> set[str]:
    """Which of these users' keys lead to a visitor."""
    sorted_keys = sorted(keys)
    found: set[str] = set()
    for start in range(0, len(sorted_keys), _UNNAMED_MAX):
        found.update(conn.execute(_KNOWN_USERS, {"keys": sorted_keys[start : start + _UNNAMED_MAX]}).scalars())
    return found


_UNNAMED: Final = (
    select(func.max(goals.c.id), goals.c.source, goals.c.event_id, func.min(goals.c.handover))
    .where(
        goals.c.handover.is_not(None),
        goals.c.created_at_ms >= bindparam("since"),
        goals.c.visitor.is_(None),
        goals.c.state.in_(("parked", "unattributed")),
        func.coalesce(goals.c.reason, "") != "forgotten",
    )
    .group_by(goals.c.source, goals.c.event_id)
    .order_by(func.max(goals.c.id).desc())
    .limit(_UNNAMED_MAX)
)
_KNOWN_USERS: Final = (
    select(link_keys.c.key)
    .join_from(link_keys, link_visitors, link_visitors.c.key == link_keys.c.key)
    .where(
        link_keys.c.key.in_(bindparam("keys", expanding=True)),
        link_keys.c.stopped_at_ms.is_(None),
        link_keys.c.certain_at_ms.is_not(None),
    )
)


# ---------------------------------------------------------------------------------- the first page of the console


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a first run: whether an event came, one led to a visitor, and a goal was delivered."""

    event: bool
    visitor: bool
    goal: bool


@dataclass(frozen=True, slots=True)
class Queue:
    """One destination's goals to be sent. due: now; later: at their next attempt; looks: to be checked for arrival.

    parked: waiting for their visitor.
    """

    destination: str
    due: int = 0
    later: int = 0
    looks: int = 0
    parked: int = 0


def progress(conn: Connection) -> Progress:
    """What has happened at least once. A delivery still counts after retention has deleted its goal."""
    return Progress(*(bool(value) for value in conn.execute(_PROGRESS).one()))


def events_received(conn: Connection, since_ms: int, until_ms: int) -> int:
    """How many events were received in this time span."""
    return int(conn.execute(_CAME, {"since": since_ms, "until": until_ms}).scalar_one())


def states(conn: Connection, since_ms: int, until_ms: int) -> Counter[str]:
    """The number of goals made in this time span, by their present state."""
    found = conn.execute(_STATES, {"since": since_ms, "until": until_ms})
    return Counter({state: int(count) for state, count in found})


def queues(conn: Connection, names: Iterable[str]) -> tuple[Queue, ...]:
    """The queue of each of these destinations that has goals that are not final."""
    return tuple(queue for name in names if (queue := _queue(conn, name)) != Queue(name))


def _queue(conn: Connection, name: str) -> Queue:
    found: Counter[str] = Counter()
    for state, is_due, count in conn.execute(_QUEUE, {"name": name}):
        if state == GoalState.PARKED:
            found["parked"] += count
        elif state == GoalState.UNCONFIRMED:
            found["looks"] += count
        else:
            found["due" if is_due or state != GoalState.PENDING else "later"] += count
    return Queue(name, **found)


_PROGRESS: Final = select(
    exists(select(events.c.id)),
    exists(select(goals.c.id).where(goals.c.visitor.is_not(None))) | exists(select(link_visitors.c.key)),
    exists(select(goals.c.id).where(goals.c.state == GoalState.DELIVERED))
    | exists(select(destinations.c.name).where(destinations.c.last_success_at_ms.is_not(None))),
)
_COUNTED: Final = (goals.c.test.is_(False), goals.c.generation == 1, goals.c.state != GoalState.DRY)
# Time spans have both bounds: from one alone, a planner without statistics expects a third of all rows.
_CAME: Final = (
    select(func.count())
    .select_from(events)
    .where(events.c.received_at_ms >= bindparam("since"), events.c.received_at_ms < bindparam("until"))
)
_STATES: Final = (
    select(goals.c.state, func.count())
    .where(goals.c.created_at_ms >= bindparam("since"), goals.c.created_at_ms < bindparam("until"), *_COUNTED)
    .group_by(goals.c.state)
)
_IS_DUE: Final = case((goals.c.due_at_ms <= now_ms(), literal_column("1")), else_=literal_column("0")).label("is_due")
_QUEUE: Final = (
    select(goals.c.state, _IS_DUE, func.count())
    .where(goals.c.destination == bindparam("name"))
    .where(goals.c.state.in_((GoalState.PARKED, *TO_SEND)))
    .group_by(goals.c.state, "is_due")
)
