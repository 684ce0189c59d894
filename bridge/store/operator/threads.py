"""What is remembered of a key or a visitor, for people: the purchase's keys, the visitors they lead to, the events.

It only reads, by index, and no more than a person can take in. `bridge.store.links` learns and resolves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, or_, select, union

from bridge.model import PERSON_KINDS
from bridge.store.links import statements
from bridge.store.schema import goal_keys, goals, link_events, link_keys, link_visitors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Column, ColumnElement, CompoundSelect, Connection, Select

    from bridge.identity.choice import Evidence

KEYS_MAX: Final = 200
EVENTS_MAX: Final = 100
_SEEN: Final = 2_000  # keys that events named last, of which those of people and customers are shown
_ENDS: Final = 500  # events
_ELEMENTS: Final = 999_999_999  # per event; see `statements.MATES`
_KINDS: Final = ("customer", *PERSON_KINDS)


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A remembered key. thread: None for a customer; stopped_reason: why it no longer links anything."""

    key: str
    kind: str
    ref: str
    thread: str | None
    created_at_ms: int
    used_at_ms: int
    stopped_reason: str | None


@dataclass(frozen=True, slots=True)
class Thread:
    """Keys that belong together. events: our ids, the newest 100 at most. leading: the keys that lead to them."""

    keys: tuple[KeyLine, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    events: tuple[int, ...] = ()
    leading: tuple[KeyLine, ...] = ()


_COLUMNS: Final = tuple(link_keys.c[name] for name in KeyLine.__slots__)
_KEYS: Final = select(*_COLUMNS).order_by(link_keys.c.created_at_ms, link_keys.c.key).limit(KEYS_MAX)
_mate = link_events.alias("mate")


def among(column: Column[int], ids: Sequence[int]) -> ColumnElement[bool]:
    """Whether a column has one of these ids, phrased so that both databases use its index.

    Without statistics, PostgreSQL expects a 200th of all rows for each id. A range around the ids adds no condition,
    but makes it expect few.
    """
    return and_(column.in_(ids), column >= min(ids, default=0), column <= max(ids, default=0))


def named(conn: Connection, text: str) -> list[KeyLine]:
    """The keys that a string names: in full (`stripe:live:cus_1`) or by the bare id (`cus_1`)."""
    query = select(*_COLUMNS).where(or_(link_keys.c.key == text, link_keys.c.ref == text))
    in_order = query.order_by(link_keys.c.key.concat(""))  # an order without an index, which PostgreSQL might scan
    return _lines(conn, in_order.limit(KEYS_MAX))


def keys_of_event(conn: Connection, event_id: int) -> list[KeyLine]:
    """The keys that an event named."""
    query = select(*_COLUMNS).distinct().join_from(link_events, link_keys, link_keys.c.key == link_events.c.key)
    return _lines(conn, query.where(among(link_events.c.event_id, [event_id])).order_by(link_keys.c.key))


def keys_of_goals(
    conn: Connection, goal_ids: Sequence[int]
) -> dict[int, tuple[tuple[KeyLine, ...], tuple[KeyLine, ...]]]:
    """For each goal its keys, and stopped keys beside them, which now belong to another purchase."""
    query = select(goal_keys.c.goal_id, *_COLUMNS).join_from(goal_keys, link_keys, link_keys.c.key == goal_keys.c.key)
    ordered = query.where(among(goal_keys.c.goal_id, goal_ids)).order_by(link_keys.c.key)
    own: dict[int, tuple[KeyLine, ...]] = dict.fromkeys(goal_ids, ())
    for goal_id, *key in conn.execute(ordered) if goal_ids else ():
        own[goal_id] += (KeyLine(*key),)
    stopped = {keys: _stopped(conn, keys) for keys in set(own.values())}  # goals of one event mostly have the same keys
    return {goal_id: (keys, stopped[keys]) for goal_id, keys in own.items()}


def _stopped(conn: Connection, own: Sequence[KeyLine]) -> tuple[KeyLine, ...]:
    threads = {key.thread for key in own if key.thread is not None}
    keys = {key.key for key in (*own, *_in_threads(conn, threads))}
    named_together = _named_with(conn, sorted(keys)) if keys else ()
    return tuple({key.key: key for key in (*own, *named_together) if key.stopped_reason}.values())


def linked_to_keys(conn: Connection, keys: Sequence[KeyLine], *, ends: bool = False) -> Thread:
    """Everything linked to these keys; a customer brings in the purchases that it was named with.

    A person brings in the customers, too. A stopped key brings in nothing, unless no other is given. ends: examine
    only the first and the last 500 events, so that the page of a person with very many is quick.
    """
    given = _linking(keys) or list(keys)
    together = {key.key: key for key in keys}
    person_keys = [key.key for key in given if key.kind in PERSON_KINDS]
    if person_keys:
        together |= {key.key: key for key in _named_with(conn, person_keys, ends=ends)}
    customers = [key for key in (*given, *_linking(together.values())) if key.thread is None]
    if named_with := [key.key for key in customers if key.kind not in PERSON_KINDS]:
        together |= {key.key: key for key in _named_with(conn, named_with, ends=ends)}
    threads = {key.thread for key in _linking(together.values()) if key.thread is not None}
    together |= {key.key: key for key in _in_threads(conn, threads)}
    return _thread(conn, together.values(), given)


def linked_to_visitor(conn: Connection, visitor: str, *, ends: bool = False) -> Thread:
    """The purchases in which a visitor was named. ends: see `linked_to_keys`."""
    named_with = select(link_visitors.c.key).where(link_visitors.c.visitor == visitor)
    found = _lines(conn, _KEYS.where(link_keys.c.key.in_(named_with)))
    linking = _linking(found)
    if not linking:
        return _thread(conn, found)
    given = [key for key in linking if key.thread is not None or key.kind in PERSON_KINDS] or linking
    return linked_to_keys(conn, [*given, *(key for key in found if key.stopped_reason)], ends=ends)


def events_of(conn: Connection, keys: Sequence[str], visitor: str | None, before: int | None, limit: int) -> list[int]:
    """A page of ids of the events that named one of these keys or whose goals have this visitor, newest first."""
    person_events = event_ids(keys, visitor, before).subquery()
    newest = select(person_events.c.event_id).order_by(person_events.c.event_id.desc()).limit(limit)
    return list(conn.execute(newest).scalars())


def event_ids(keys: Sequence[str], visitor: str | None, before: int | None = None) -> CompoundSelect[Any]:
    """The statement that selects all events of a person, each once."""
    queries = [select(link_events.c.event_id).distinct().where(link_events.c.key.in_(keys))]
    if visitor is not None:
        queries.append(select(goals.c.event_id).where(goals.c.visitor == visitor))
    return union(*(query if before is None else query.where(query.selected_columns[0] < before) for query in queries))


def shared(conn: Connection, thread: Thread) -> list[tuple[str, KeyLine]]:
    """This thread's visitors to whom other customers', users' or addresses' keys also lead, each with one such key."""
    visitors = {item.visitor for item in thread.evidence}
    query = (
        select(link_visitors.c.visitor, *_COLUMNS)
        .join_from(link_visitors, link_keys, link_keys.c.key == link_visitors.c.key)
        .where(link_visitors.c.visitor.in_(sorted(visitors)), link_keys.c.kind.in_(_KINDS))
        .where(link_keys.c.key.not_in([key.key for key in thread.keys]))
        .order_by(link_visitors.c.visitor, link_keys.c.key)
        .limit(EVENTS_MAX)
    )
    return [(visitor, KeyLine(*key)) for visitor, *key in conn.execute(query)] if visitors else []


def last_seen(conn: Connection, limit: int) -> list[KeyLine]:
    """The keys of customers, users and addresses that events named last."""
    recent = select(*_COLUMNS).order_by(link_keys.c.used_at_ms.desc()).limit(_SEEN).subquery()
    people = select(recent).where(recent.c.kind.in_(_KINDS)).order_by(recent.c.used_at_ms.desc(), recent.c.key)
    return _lines(conn, people.limit(limit))


def people_among(conn: Connection, keys: Sequence[str]) -> list[KeyLine]:
    """The keys of customers, users and addresses among these, at most 200."""
    return _lines(conn, _KEYS.where(link_keys.c.key.in_(keys[:_SEEN]), link_keys.c.kind.in_(_KINDS)))


def visitors_of(conn: Connection, keys: Sequence[str]) -> dict[str, list[str]]:
    """The visitors to whom each of these keys leads."""
    found: dict[str, list[str]] = {}
    query = select(link_visitors.c.key, link_visitors.c.visitor).where(link_visitors.c.key.in_(keys))
    for key, visitor in conn.execute(query.order_by(link_visitors.c.last_at_ms.desc(), link_visitors.c.visitor)):
        found.setdefault(key, []).append(visitor)
    return found


def _linking(keys: Iterable[KeyLine]) -> list[KeyLine]:
    return [key for key in keys if not key.stopped_reason]


def _in_threads(conn: Connection, threads: Collection[str]) -> list[KeyLine]:
    if not threads:
        return []
    return _lines(conn, _KEYS.where(link_keys.c.thread.in_(sorted(threads)), link_keys.c.stopped_at_ms.is_(None)))


def _named_with(conn: Connection, keys: Sequence[str], *, ends: bool = False) -> list[KeyLine]:
    """The keys that one event, or one element of it, named together with these."""
    own: Any = link_events.c
    of_keys = and_(own.key.in_(keys), own.element.between(0, _ELEMENTS))
    if ends:
        ends_of_keys = select(own.event_id, own.element).where(of_keys).limit(_ENDS)
        parts = (ends_of_keys.order_by(own.event_id).subquery(), ends_of_keys.order_by(own.event_id.desc()).subquery())
        own = union(*(select(part.c.event_id, part.c.element) for part in parts)).subquery().c
    same = and_(own.event_id == _mate.c.event_id, own.element == _mate.c.element)
    few = _mate.c.event_id.between(own.event_id, own.event_id)
    named = (
        _KEYS.distinct()
        .select_from(_mate)
        .join(own.event_id.table, and_(same, few))
        .join(link_keys, link_keys.c.key == _mate.c.key)
    )
    return _lines(conn, named if ends else named.where(of_keys))


def _lines(conn: Connection, query: Select[*tuple[Any, ...]]) -> list[KeyLine]:
    return [KeyLine(*row) for row in conn.execute(query)]


def _thread(conn: Connection, lines: Iterable[KeyLine], given: Iterable[KeyLine] = ()) -> Thread:
    """These keys, with the visitors and events they lead to. A stopped one leads to none, unless asked for."""
    keys = tuple(sorted(lines, key=lambda key: (key.created_at_ms, key.key)))[:KEYS_MAX]
    asked = {key.key for key in given}
    leading = tuple(key for key in keys if key.key in asked or not key.stopped_reason)
    if not leading:
        return Thread(keys)
    names = [key.key for key in leading]
    evidence = tuple(statements.evidence_of_keys(conn, names))
    event_id = link_events.c.event_id + 0  # an order without an index, which PostgreSQL might scan
    newest = select(event_id).distinct().where(link_events.c.key.in_(names)).order_by(event_id.desc()).limit(EVENTS_MAX)
    return Thread(keys, evidence, tuple(conn.execute(newest).scalars()), leading)
