"""One person over all sources: the keys that belong together, the visitors, a timeline with goals, the money.

A person is whom a key names (a customer, a user of the app, the hash of an e-mail address), a visitor, or whoever an
event is about. `why` says the same of them; here it is read in pages, so that ten thousand events are no burden.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge.identity.sentences import best_first, one_key
from bridge.masking import without_addresses
from bridge.store.operator import queries, tallies, threads
from bridge.store.operator.threads import KEYS_MAX, KeyLine, SharedVisitor, Thread
from bridge.text import count, storable
from bridge.workbench import describe, why
from bridge.workbench.report import totals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from sqlalchemy import Connection

    from bridge.settings import Settings
    from bridge.store.operator.queries import GoalLine
    from bridge.workbench.describe import Moment
    from bridge.workbench.why import TimelineEntry

PAGE: Final = 50  # events
ADDED_UP: Final = 500  # events whose money is
LONGEST: Final = 600  # characters of what names a person: a key is shorter
NEWEST: Final = 30
_WHO: Final = ("customer", "user")  # binding one of them helps with every purchase
_BAD: Final = frozenset({"rejected", "expired", "unattributed", "held"})
_EVENT: Final = re.compile(r"ev_(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Someone:
    """Whom a string names. named: the keys of this name; visitor: the DataFast visitor, if it names one."""

    name: str
    called: str
    named: Sequence[KeyLine]
    thread: Thread
    visitor: str | None = None


class LineStep(NamedTuple):
    """An event of a timeline; how its goals stand: ok, wait, bad, or empty; and sentences about each of them."""

    at_ms: int
    event_id: int
    sentence: str
    stands: str
    goals: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class PersonPage:
    """What is known of a person.

    seen_ms: when an event first and last named one of the keys. bindable: the key to bind, if any. money_is_all: False
    where only that of the newest events was added up. older: the event before which there are more.
    """

    someone: Someone
    seen_ms: tuple[int, int] | None
    bindable: str | None
    summary: str
    visitors: Mapping[str, Sequence[str]]
    shared: Sequence[SharedVisitor]
    money: Mapping[str, Decimal]
    money_is_all: bool
    line: Sequence[LineStep]
    older: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A customer, user or address that was seen lately, and the visitors to whom it leads."""

    key: KeyLine
    visitors: Sequence[str]


def who(conn: Connection, text: str) -> Someone | None:
    """Whom a string names; None if nobody is known by it."""
    name = readable(text)
    if not name or len(name) > LONGEST:
        return None
    event = _EVENT.fullmatch(name)
    keys = threads.of_event(conn, int(event[1])) if event else why.keys_named(conn, name)
    if keys:
        return Someone(name, _called(name, keys, event is not None), keys, threads.about(conn, keys, ends=True))
    visitor = name.lower()
    thread = threads.of_visitor(conn, visitor, ends=True)
    if thread.keys or queries.find(conn, visitor).goals:
        return Someone(visitor, f"visitor {visitor}", (), thread, visitor)
    return None


def readable(text: str) -> str:
    """What somebody has typed, or put into an address, as a database takes it."""
    return storable(text.strip())


def _called(name: str, keys: Sequence[KeyLine], by_event: bool) -> str:
    if by_event:
        return f"the person of {name}"
    best = min(keys, key=lambda key: key.kind != "user")
    return without_addresses(one_key(best.kind, best.ref))


def look(conn: Connection, text: str, settings: Settings, before: int | None = None) -> PersonPage | None:
    """Everything about the person whom this names, with a page of events; None if nobody is known by it."""
    someone = who(conn, text)
    if someone is None:
        return None
    keys = [key.key for key in someone.thread.leading]
    newest = threads.events_of(conn, keys, someone.visitor, None, ADDED_UP + 1)
    ids = newest if before is None else threads.events_of(conn, keys, someone.visitor, before, PAGE + 1)
    visitors = {name: list(map(without_addresses, told)) for name, told in why.taught(someone.thread).items()}
    moment = describe.moment(conn, settings.environ)
    entries = why.timeline(queries.show_events(conn, ids[:PAGE]), ())
    return PersonPage(
        someone,
        _seen_ms(someone.thread.leading or someone.thread.keys),
        next((key.key for key in sorted(someone.thread.keys, key=_most_telling) if may_be_bound(key, settings)), None),
        _summary(someone, len(visitors)),
        visitors,
        threads.shared(conn, someone.thread),
        totals(tallies.goals_of(conn, newest[:ADDED_UP])),
        len(newest) <= ADDED_UP,
        [_step(one, moment) for one in entries],
        ids[PAGE - 1] if len(ids) > PAGE else None,
    )


def _step(entry: TimelineEntry, moment: Moment) -> LineStep:
    sentence = without_addresses(entry.sentence.removeprefix(f"ev_{entry.event_id}").strip())
    goals = [list(map(without_addresses, why.goal_in_brief(goal, moment))) for goal in entry.goals]
    return LineStep(entry.at_ms, entry.event_id, sentence, _stands(entry.goals), goals)


def _stands(goals: Sequence[GoalLine]) -> str:
    states = {goal.state for goal in goals}
    if states & _BAD:
        return "bad"
    return "wait" if states - {"delivered", "dry", "cancelled"} else "ok" if "delivered" in states else ""


def may_be_bound(key: KeyLine, settings: Settings) -> bool:
    """As by `links add`: of live events, no e-mail address, and a user only where users find somebody."""
    if key.kind == "email" or (key.kind == "user" and settings.bridge_match_user == "off"):
        return False
    return ":test:" not in key.key and public(key) is not None


def _most_telling(key: KeyLine) -> tuple[bool, tuple[int, str]]:
    return key.kind not in _WHO, best_first(key.kind)


def _summary(someone: Someone, visitors: int) -> str:
    """How much is known, in a sentence."""
    keys = someone.thread.keys
    if not keys:
        return "Goals were sent for this visitor. No key of a customer or purchase leads to it."
    belong = count(len(keys), "key belongs", "keys belong")
    many = belong if len(keys) < KEYS_MAX else f"More than {KEYS_MAX - 1} keys belong"
    to = f"lead to {count(visitors, 'visitor')}" if visitors else "lead to no visitor yet"
    to = to if len(keys) > 1 else to.replace("lead", "leads", 1)
    return f"{many} to this person and {to}."


def _seen_ms(keys: Sequence[KeyLine]) -> tuple[int, int] | None:
    if not keys:
        return None
    return min(key.created_at_ms for key in keys), max(key.used_at_ms for key in keys)


def lately(conn: Connection) -> list[Seen]:
    """The people whom events named last."""
    keys = threads.last_seen(conn, NEWEST)
    visitors = threads.visitors_of(conn, [key.key for key in keys])
    return [Seen(key, visitors.get(key.key, ())) for key in keys]


def address_of(conn: Connection, text: str) -> str | None:
    """What names a person in an address of the console; None if nothing is known that could.

    An e-mail address becomes its hash; a key that holds one becomes the last event that named it.
    """
    name = readable(text)
    if "@" not in name:
        return name or None
    keys = why.keys_named(conn, name)
    hashed = next(iter(why.hashes(conn, name)), None)
    if hashed is None or not any(key.kind == "email" for key in keys):
        for event_id in threads.events_of(conn, [key.key for key in keys], None, None, 1):
            return f"ev_{event_id}"
    return hashed


def public(key: KeyLine | SharedVisitor) -> str | None:
    """By what the person of a key is named where nobody may read an e-mail address; None if it holds one."""
    name = key.ref if key.kind == "email" else key.key
    return name if without_addresses(name) == name else None
