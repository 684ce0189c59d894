"""Forget a key, or everything stored about a person. Rows that are counted stay, without their contents.

A person is found from what is known of them (a visitor id, a customer, an e-mail address): events whose bodies contain
that string, the keys of those events, the threads and customers of those keys, their visitors, and so on until nothing
new is found. An event keeps its type, time and dedupe key (otherwise its provider could bring everything back), a goal
its name, state and times. If an event belongs to somebody else and only mentions the person, only its contents are
removed, and the search does not continue through it. `scrub` makes SQLite overwrite what it only marked as free.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote

from sqlalchemy import Text, case, cast, delete, literal, null, or_, select, update

from bridge.identity.threads import components
from bridge.model import FINAL, PERSON_KINDS
from bridge.model import VISITOR_PREFIX as PREFIX
from bridge.store import clock
from bridge.store.database import sqlite
from bridge.store.inbox import events as events_
from bridge.store.links import statements as link_statements
from bridge.store.operator import alerting, changes
from bridge.store.schema import attempts, events, goal_keys, goals, link_events, link_keys, link_visitors, lookups
from bridge.store.schema import unknown_visitors as unknown
from bridge.store.schema import visitor_proofs as proofs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Column, ColumnElement, Connection

    from bridge.store.database.engine import Store

T = TypeVar("T")

FORGOTTEN: Final = "forgotten"  # a goal's reason, and the beginning of an event's
CUT: Final = "cut by a person"  # why a person's key no longer links anything
_REQUEST_REASON: Final = "forgotten at a person's request on {} UTC"
MENTIONED: Final = "together with a person whom the event only mentioned"  # the end of such an event's reason
_MENTION_REASON: Final = f"forgotten on {{}} UTC, {MENTIONED}"
NOT_SCRUBBED: Final = (
    "The file still holds freed pages: stop the bridge and run `sqlite3 FILE VACUUM` to overwrite them."
)
VACUUM_MAX: Final = 256 * 1024 * 1024  # bytes: a SQLite file of this size is rewritten in a second or two
_CHUNK: Final = 400  # values in one IN
_PAGE: Final = 100  # bodies searched at a time
_ROUNDS: Final = 50


@dataclass
class Person:
    """Everything in the database that belongs to one person.

    mentions: other people's events that name the person; unrouted: those of them not routed yet, which stay.
    """

    visitors: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    events: set[int] = field(default_factory=set)
    goals: set[int] = field(default_factory=set)
    mentions: set[int] = field(default_factory=set)
    unrouted: set[int] = field(default_factory=set)

    @property
    def size(self) -> int:
        return len(self.visitors) + len(self.keys) + len(self.events) + len(self.goals)


# ---------------------------------------------------------------------------------------------------------- a key


def forget_key(conn: Connection, name: str) -> None:
    """Forget one key and split what it joined. A person's key stays, but no longer links anything."""
    link_statements.lock(conn)
    kind = conn.execute(select(link_keys.c.kind).where(link_keys.c.key == name)).scalar()
    if kind in PERSON_KINDS:
        link_statements.stop(conn, name, CUT, clock.read_ms(conn), {})
        _delete(conn, [name], link_visitors.c.key)
        return
    thread = conn.execute(select(link_keys.c.thread).where(link_keys.c.key == name)).scalar()
    if thread is not None:
        parts = components(link_statements.edges_in(conn, [thread]), link_statements.keys_in(conn, [thread]), (name,))
        link_statements.stop(conn, name, FORGOTTEN, 0, parts)
    _forget_keys(conn, [name])


# ------------------------------------------------------------------------------------------------------- a person


def word_matcher(words: Iterable[str]) -> Callable[[str], bool]:
    """A function that finds these strings as whole words in a reading (see `readings`).

    `user_1` is not in `user_12`, nor `ann@example.com` in `joann@example.com` or `ann@example.com.au`.
    """
    plain_words = sorted({_plain(word) for word in words} - {""})
    pattern = re.compile("|".join(map(_whole_word, plain_words)))

    def names(text: str) -> bool:
        return any(word in text for word in plain_words) and pattern.search(text) is not None

    return names


def _whole_word(word: str) -> str:
    if "@" in word:
        return rf"(?<![\w.-]){re.escape(word)}(?![\w-])(?!\.\w)"
    return rf"(?<![\w-])(?:{PREFIX})?{re.escape(word)}(?![\w-])"


def readings(raw: bytes) -> Iterator[str]:
    """A body as lower-case text: as received, and with the escapes of JSON and URLs removed, layer by layer."""
    text, before = _plain(raw.decode("utf-8", "replace")), ""
    for _ in range(_LAYERS):
        if text == before:
            return
        yield text
        text, before = _plain(unquote(_ESCAPED.sub(_unescaped, text))), text


_LAYERS: Final = 4  # such as a form in JSON in a form
_ESCAPED: Final = re.compile(r"\\(?:u([0-9a-f]{4})|(.))", re.DOTALL)
_SPACES: Final = "nrtbf"


def matches_any(matches: Callable[[str], object], *parts: bytes) -> bool:
    """Whether one of these parts matches in one of its readings."""
    return any(matches(reading) for part in parts for reading in readings(part))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower())


def _unescaped(found: re.Match[str]) -> str:
    if found[1]:
        return chr(int(found[1], 16))
    return " " if found[2] in _SPACES else found[2]


def search(
    store: Store,
    matches: Callable[[str], object],
    after: int = 0,
    pages: int | None = None,
    step: Callable[[int], None] = lambda _last: None,
) -> tuple[set[int], int | None]:
    """Search the events after this id. Returns the ids that match, and the last id searched (None: no more are left).

    matches: whether an event's contents (body, headers, query) match in one of their readings. pages: how many at most;
    None: all. step: called with the last id of each page.
    """
    found: set[int] = set()
    for _ in itertools.count() if pages is None else range(pages):
        with store.read() as conn:
            page = events_.stored_after(conn, after, _PAGE)
        if not page:
            return found, None
        for event in page:
            rest = json.dumps([dict(event.headers), dict(event.query)], ensure_ascii=False).encode("utf-8", "replace")
            if matches_any(matches, event.body or b"", rest):
                found.add(event.id)
        after = page[-1].id
        step(after)
    return found, after


def find_person(
    conn: Connection, *, visitor: str | None, seeds: Iterable[int] = (), people: Iterable[str] = ()
) -> Person:
    """Everything linked to what is known of a person. seeds: events that contain one of their strings.

    people: keys, complete or as bare ids: of customers, users and hashes of e-mail addresses.
    """
    person = Person(events=set(seeds))
    if visitor is not None:
        person.visitors.add(visitor)
    names = list(people)
    is_named = or_(link_keys.c.key.in_(names), link_keys.c.ref.in_(names))
    person.keys.update(conn.execute(select(link_keys.c.key).where(is_named)).scalars())
    for _ in range(_ROUNDS):
        before = person.size
        _grow(conn, person)
        if person.size == before:
            break
    return person


def _grow(conn: Connection, person: Person) -> None:
    """Follow all links by one step. A stopped key links nothing: a product's id belongs to nobody."""
    key, named, together = link_keys.c, link_visitors.c, link_events.c
    in_force = key.stopped_at_ms.is_(None)
    person.keys |= _select_where(conn, named.key, named.visitor, person.visitors)
    person.keys |= _select_where(conn, together.key, together.event_id, person.events)
    threads = _select_where(conn, key.thread, key.key, person.keys, in_force)
    person.keys |= _select_where(conn, key.key, key.thread, threads, in_force)
    linking = _select_where(conn, key.key, key.key, person.keys, in_force)
    person.events |= _select_where(conn, together.event_id, together.key, linking)
    person.visitors |= _select_where(conn, named.visitor, named.key, linking)
    person.goals |= _select_where(conn, goals.c.id, goals.c.visitor, person.visitors)
    person.goals |= _select_where(conn, goals.c.id, goals.c.event_id, person.events)
    person.events |= _select_where(conn, goals.c.event_id, goals.c.id, person.goals)


def _select_where(
    conn: Connection, column: Column[Any], by: Column[Any], values: Iterable[Any], *conditions: ColumnElement[bool]
) -> set[Any]:
    """The values in one column of a table where another column has one of these values."""
    found: set[Any] = set()
    for chunk in _chunks(sorted(values)):
        found.update(conn.execute(select(column).where(by.in_(chunk), *conditions)).scalars())
    return found - {None}


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def remove(conn: Connection, person: Person, matches: Callable[[str], object] = lambda _text: False) -> None:
    """Remove everything about the person; a goal not sent yet is never sent.

    matches: as for `search`; finds the person in goals of events that only mention them.
    """
    link_statements.lock(conn)
    if conn.dialect.name == "sqlite":
        sqlite.overwrite_deleted(conn.connection.driver_connection)
    at = f"{datetime.fromtimestamp(clock.read_ms(conn) / 1000, UTC):%Y-%m-%d %H:%M}"
    why = _REQUEST_REASON.format(at)
    visitors = person.visitors | _borrowed(conn, person)
    ids = {name.rpartition(":")[2] for name in person.keys} | person.visitors
    for chunk in _chunks(sorted(person.goals)):
        conn.execute(update(attempts).where(attempts.c.goal_id.in_(chunk)).values(message=None, lease_token=""))
        conn.execute(update(goals).where(goals.c.id.in_(chunk)).values(_EMPTY_GOAL | {"message": why}))
        _delete(conn, chunk, goal_keys.c.goal_id, lookups.c.goal_id)
        alerting.clear_text(conn, chunk)
    for chunk in _chunks(sorted(person.events)):
        conn.execute(update(events).where(events.c.id.in_(chunk)).values(_EMPTY_EVENT | {"reason": why}))
        _delete(conn, chunk, link_events.c.event_id)
    _empty_mentions(conn, sorted(person.mentions), matches, _MENTION_REASON.format(at))
    _forget_keys(conn, sorted(person.keys))
    for named in _chunks(sorted(visitors)):
        _delete(conn, named, link_visitors.c.visitor, unknown.c.visitor, proofs.c.visitor)
    changes.forget_person(conn, word_matcher({*person.keys, *visitors}))
    for named in _chunks(sorted(ids)):  # an event may have such an id (an order's); its dedupe key stays
        with_that_id = events.c.provider_event_id.in_(named), events.c.reason == why
        conn.execute(update(events).where(*with_that_id).values(provider_event_id=None))


def _empty_mentions(conn: Connection, mentions: Sequence[int], matches: Callable[[str], object], why: str) -> None:
    """Empty other people's events, and remove from their goals only what names the person."""
    for chunk in _chunks(mentions):
        conn.execute(update(events).where(events.c.id.in_(chunk)).values(_EMPTY_EVENT | {"reason": why}))
        for goal in conn.execute(select(goals).where(goals.c.event_id.in_(chunk))).all():
            metadata: dict[str, str] = json.loads(goal.metadata)
            items = metadata.items()
            kept = {name: value for name, value in items if not matches_any(matches, f"{name} {value}".encode())}
            values: dict[str, Any] = {} if kept == metadata else {"metadata": json.dumps(kept, ensure_ascii=False)}
            if matches_any(matches, goal.description.encode()):
                values["description"] = ""
            if matches_any(matches, goal.once_key.encode()):
                values["once_key"] = _EMPTY_GOAL["once_key"]
            if values:
                conn.execute(update(goals).where(goals.c.id == goal.id).values(values))
                alerting.clear_text(conn, [goal.id])


def _forget_keys(conn: Connection, keys: Sequence[str]) -> None:
    for chunk in _chunks(keys):
        _delete(conn, chunk, *(table.c.key for table in (link_visitors, link_events, goal_keys, lookups, link_keys)))


def _delete(conn: Connection, values: Sequence[Any], *columns: Column[Any]) -> None:
    for column in columns:
        conn.execute(delete(column.table).where(column.in_(values)))


def _borrowed(conn: Connection, person: Person) -> set[str]:
    """The bare UUIDs that DataFast was asked about for their events: a site's own user id is a personal key, too."""
    found = _select_where(conn, goals.c.to_prove, goals.c.id, person.goals)
    for trace in _select_where(conn, events.c.trace, events.c.id, person.events):
        for element in json.loads(trace).get("elements", ()):
            candidates = element.get("candidates", ())
            found |= {candidate["visitor"] for candidate in candidates if candidate.get("visitor")}
    return found


def scrub(store: Store) -> bool:
    """Overwrite freed pages and the write-ahead log of a SQLite file. False: the file is in use or large."""
    return store.dialect != "sqlite" or sqlite.overwrite_freed(store.engine, VACUUM_MAX)


# ------------------------------------------------------------------------------------------------- what is left

_EMPTY_GOAL: Final = {
    "once_key": literal("forgotten:") + cast(goals.c.id, Text),
    "description": "",
    "metadata": "{}",
    "visitor": None,
    "provenance": None,
    "to_prove": None,
    "reason": FORGOTTEN,
    "datafast_event_id": None,
    "state": case((goals.c.state.in_([state.value for state in FINAL]), goals.c.state), else_="cancelled"),
    "lease_token": None,
    "lease_until_ms": None,
}
_FORGOTTEN_ID: Final = literal("forgotten:") + cast(events.c.id, Text)
_EMPTY_EVENT: Final = {
    # An id that contains an address is removed, too, although the provider could then bring the event back.
    **{
        column.name: case((or_(column.contains("@"), column.contains("%40", autoescape=True)), other), else_=column)
        for column, other in (
            (events.c.provider_event_id, null()),
            (events.c.dedupe_key, _FORGOTTEN_ID),
            (events.c.dedupe_key_2, null()),
        )
    },
    "headers": "{}",
    "query": "{}",
    "body": None,
    "trace": None,
    "verdict": case((events.c.state == "routed", events.c.verdict), else_="ignored"),
    "state": "routed",
    "lease_token": None,
    "lease_until_ms": None,
}
