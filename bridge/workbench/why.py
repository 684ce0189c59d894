"""Look up an id: events, a goal, a key such as `cus_…`, a person or a visitor, and everything connected with it.

`why` prints it, and the console shows it. A person is named by a key (a customer, a user of the app, the hash of an
e-mail address), a visitor, or an event about them; their page reads events in pages, so that ten thousand are no
burden. Nothing here needs mapping files or makes a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bridge.identity.people import email_hash
from bridge.identity.sentences import BOUND, HINT, before_or_after, best_first, key_in_words
from bridge.masking import without_addresses
from bridge.model import PERSON_KINDS
from bridge.store import facts
from bridge.store.operator import queries, tallies, threads
from bridge.store.operator.threads import KEYS_MAX, KeyLine, Thread
from bridge.text import count, storable, when
from bridge.workbench import describe
from bridge.workbench.report import totals

if TYPE_CHECKING:
    from decimal import Decimal

    from sqlalchemy import Connection

    from bridge.identity.choice import Evidence
    from bridge.settings import Settings
    from bridge.store.operator.queries import EventDetail, GoalDetail, GoalLine
    from bridge.workbench.describe import Moment

PAGE: Final = 50  # events
SUMMED_MAX: Final = 500  # events of a person whose money is added up
NAME_MAX: Final = 600  # characters of a string that may name a person: keys are shorter
NEWEST: Final = 30
_BEST_TO_BIND: Final = ("customer", "user")  # binding one of them helps with every purchase
_EVENT: Final = re.compile(r"ev_(\d{1,18})")
_GAP_MS = 60_000  # the shortest time between two events of a timeline that is mentioned


@dataclass
class Known:
    """Everything that an id names."""

    moment: Moment
    events: list[EventDetail] = field(default_factory=list)
    goals_made: dict[int, list[GoalDetail]] = field(default_factory=dict)  # the goals of each event
    goals: list[GoalDetail] = field(default_factory=list)
    thread: Thread | None = None  # of a key, or of a visitor
    timeline: list[EventDetail] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One event of a timeline, by its own time, with the goals it made. sentence: what it is and its outcome.

    If only a goal is known, event_id names its event, which is not itself part of the timeline.
    """

    at_ms: int
    event_id: int
    sentence: str
    goals: tuple[GoalLine, ...]

    @property
    def without_label(self) -> str:
        """The sentence without the event's name, for use next to it."""
        return self.sentence.removeprefix(f"ev_{self.event_id}").strip()


def look_up(conn: Connection, text: str, environ: Mapping[str, str]) -> Known:
    """Everything that this id names."""
    known = Known(describe.moment(conn, environ))
    found = queries.find(conn, text)
    known.events = list(queries.show_events(conn, found.events, whole=True))
    known.goals_made = {detail.line.id: queries.goals_of(conn, detail) for detail in known.events}
    known.goals = queries.show_goals(conn, found.goals)
    keys = keys_named(conn, text)
    thread = threads.linked_to_keys(conn, keys) if keys else threads.linked_to_visitor(conn, text.lower())
    if thread.keys:
        known.thread = thread
        known.timeline = list(queries.show_events(conn, thread.events, whole=True))
    return known


@dataclass(frozen=True, slots=True)
class Named:
    """What an id names, without details. person: the parameter for the page of a person, a purchase or a visitor."""

    events: tuple[int, ...] = ()
    goals: tuple[GoalLine, ...] = ()
    person: str | None = None


def named(conn: Connection, text: str) -> Named:
    """What `why` would show for this id; a bare number is first taken as an event's."""
    for name in (f"ev_{text}", text) if text.isascii() and text.isdecimal() and len(text) < 7 else (text,):
        found = queries.find(conn, name)
        goals = queries.goals_by_id(conn, found.goals)
        if keys_named(conn, name) or threads.linked_to_visitor(conn, name.lower()).keys:
            return Named(found.events, (), name)  # whose goals its page shows
        if found.events or goals:
            return Named(found.events, tuple(goals))
    return Named()


def keys_named(conn: Connection, text: str) -> list[KeyLine]:
    """The keys that a string names; an e-mail address is also looked up by its hash."""
    return [key for name in (*email_hashes(conn, text), text) for key in threads.named(conn, name)]


def email_hashes(conn: Connection, address: str) -> list[str]:
    """The hash under which an e-mail address is stored; empty if it is not an address, or none was ever stored."""
    key = facts.get(conn, facts.EMAIL_KEY) if "@" in address else None
    hashed = email_hash(address, key.encode()) if key else None
    return [hashed] if hashed else []


# -------------------------------------------------------------------------------------------------------- in words


def key_sentence(key: KeyLine) -> str:
    """A key by its full name, and if it no longer links anything, why."""
    return f"{key.key} (no longer links anything: {key.stopped_reason})" if key.stopped_reason else key.key


def named_visitors(thread: Thread) -> dict[str, list[str]]:
    """The visitors to whom these keys lead, each with a sentence for each event that named them."""
    visitors: dict[str, dict[int | str, str]] = {}
    for item in sorted(thread.evidence, key=lambda item: item.first.at_ms):
        sender = item.key.partition(":")[0]
        for point in (item.first, item.last):
            event = (
                point.event if sender in PERSON_KINDS else f"{sender} {point.event}"
            )  # a person's evidence has it already
            naming = BOUND if point.event == HINT else f"named by {event}"
            sentence = f"{naming}, {when(point.at_ms)}{_reservation(item)}"
            by_event, place = visitors.setdefault(item.visitor, {}), point.event_id or sentence
            by_event[place] = max(by_event.get(place, ""), sentence, key=len)
    return {visitor: list(by_event.values()) for visitor, by_event in visitors.items()}


def _reservation(item: Evidence) -> str:
    if item.borrowed:
        return " (a bare UUID that may be your own user id: counts where DataFast knows it)"
    return "" if item.sure else " (client_reference_id only)"


def timeline(details: Sequence[EventDetail], goals: Sequence[GoalLine]) -> Iterator[TimelineEntry]:
    """Events by their own time, each with its goals, then goals whose events are not among them."""
    seen: set[int] = set()
    last_ms: int | None = None
    several = len({detail.line.source for detail in details}) > 1
    for detail in sorted(details, key=lambda detail: (detail.event.happened_at_ms, detail.line.id)):
        line, at_ms = detail.line, detail.event.happened_at_ms
        gap = (
            f"  ({before_or_after(at_ms - last_ms).replace(' before', ' later')})"
            if last_ms and at_ms - last_ms >= _GAP_MS
            else ""
        )
        last_ms = at_ms
        event = f"{line.source}: {line.type}" if several else line.type
        verdict = line.verdict or line.state
        sentence = f"{line.label}  {event} {line.provider_event_id or ''}  {verdict}{gap}"
        yield TimelineEntry(at_ms, line.id, sentence, line.goals)
        seen |= {goal.id for goal in line.goals}
    for goal in goals:
        if goal.id not in seen:
            yield TimelineEntry(goal.happened_at_ms, goal.event_id, f"of ev_{goal.event_id}", (goal,))


def goal_sentences(goal: GoalLine, moment: Moment) -> list[str]:
    """A goal in a timeline: what it is and whose, then its state."""
    to = f" to {goal.visitor}" if goal.visitor else ""
    parts = (
        f"{goal.label} {goal.called}{to}",
        describe.state_sentence(goal, moment),
        describe.how_known(goal),
        describe.next_step(goal, moment),
        describe.notification(goal),
    )
    return [part for part in parts if part]


# -------------------------------------------------------------------------------------------------------- a person


@dataclass(frozen=True, slots=True)
class NamedPerson:
    """The person whom a string names. named: the keys of this name; visitor: the DataFast visitor, if it names one."""

    name: str
    called: str
    named: Sequence[KeyLine]
    thread: Thread
    visitor: str | None = None


@dataclass(frozen=True, slots=True)
class TimelineStep:
    """An event of a timeline on a page.

    kind: the worst of its goals' states: ok, wait, bad or "". goals: sentences about each.
    """

    at_ms: int
    event_id: int
    sentence: str
    kind: str
    goals: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class PersonPage:
    """What is known about a person.

    - seen_ms: when an event first and last named one of the keys
    - bindable: the key to bind, if there is one
    - visitors: each with sentences about the events that named them
    - shared: as in `threads.shared`
    - money_is_all: False if only the newest events' money was added up
    - older: the event before which there are more
    """

    someone: NamedPerson
    seen_ms: tuple[int, int] | None
    bindable: str | None
    summary: str
    visitors: Mapping[str, Sequence[str]]
    shared: Sequence[tuple[str, KeyLine]]
    money: Mapping[str, Decimal]
    money_is_all: bool
    timeline: Sequence[TimelineStep]
    older: int | None


def named_person(conn: Connection, text: str) -> NamedPerson | None:
    """The person whom a string names; None if nobody is known by it."""
    name = cleaned(text)
    if not name or len(name) > NAME_MAX:
        return None
    match = _EVENT.fullmatch(name)
    keys = threads.keys_of_event(conn, int(match[1])) if match else keys_named(conn, name)
    if keys:
        return NamedPerson(
            name, _in_words(name, keys, match is not None), keys, threads.linked_to_keys(conn, keys, ends=True)
        )
    visitor = name.lower()
    thread = threads.linked_to_visitor(conn, visitor, ends=True)
    if thread.keys or queries.find(conn, visitor).goals:
        return NamedPerson(visitor, f"visitor {visitor}", (), thread, visitor)
    return None


def cleaned(text: str) -> str:
    """User input (typed, or from a URL) made safe for the database."""
    return storable(text.strip())


def _in_words(name: str, keys: Sequence[KeyLine], by_event: bool) -> str:
    if by_event:
        return f"the person of {name}"
    best = min(keys, key=lambda key: key.kind != "user")
    return without_addresses(key_in_words(best.kind, best.ref))


def person_page(conn: Connection, text: str, settings: Settings, before: int | None = None) -> PersonPage | None:
    """Everything about the person named by this, with a page of events; None if nobody is known by it."""
    someone = named_person(conn, text)
    if someone is None:
        return None
    keys = [key.key for key in someone.thread.leading]
    newest = threads.events_of(conn, keys, someone.visitor, None, SUMMED_MAX + 1)
    ids = newest if before is None else threads.events_of(conn, keys, someone.visitor, before, PAGE + 1)
    visitors = {name: list(map(without_addresses, namings)) for name, namings in named_visitors(someone.thread).items()}
    best = sorted(someone.thread.keys, key=_best_to_bind_first)
    moment = describe.moment(conn, settings.environ)
    entries = timeline(list(queries.show_events(conn, ids[:PAGE])), ())
    return PersonPage(
        someone,
        _seen_ms(someone.thread.leading or someone.thread.keys),
        next((key.key for key in best if may_be_bound(key, settings)), None),
        _summary(someone, len(visitors)),
        visitors,
        threads.shared(conn, someone.thread),
        totals(tallies.goals_of(conn, newest[:SUMMED_MAX])),
        len(newest) <= SUMMED_MAX,
        [_step(entry, moment) for entry in entries],
        ids[PAGE - 1] if len(ids) > PAGE else None,
    )


def _step(entry: TimelineEntry, moment: Moment) -> TimelineStep:
    goals = tuple(tuple(map(without_addresses, goal_sentences(goal, moment))) for goal in entry.goals)
    sentence = without_addresses(entry.without_label)
    return TimelineStep(entry.at_ms, entry.event_id, sentence, describe.worst_kind(entry.goals), goals)


def may_be_bound(key: KeyLine, settings: Settings) -> bool:
    """Whether `links add` allows it: a live key, not an e-mail address, and a user only if users are matched."""
    if key.kind == "email" or (key.kind == "user" and settings.bridge_match_user == "off"):
        return False
    return ":test:" not in key.key and public_name(key) is not None


def _best_to_bind_first(key: KeyLine) -> tuple[bool, tuple[int, str]]:
    return key.kind not in _BEST_TO_BIND, best_first(key.kind)


def _summary(someone: NamedPerson, visitors: int) -> str:
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


def recent_people(conn: Connection) -> list[tuple[KeyLine, Sequence[str]]]:
    """The customers, users and addresses named most recently, each with the visitors to whom it leads."""
    keys = threads.last_seen(conn, NEWEST)
    visitors = threads.visitors_of(conn, [key.key for key in keys])
    return [(key, visitors.get(key.key, ())) for key in keys]


def url_name(conn: Connection, text: str) -> str | None:
    """The name for a person in a URL of the console; None if nothing suitable is known.

    An e-mail address becomes its hash; a key that holds one becomes the last event that named it.
    """
    name = cleaned(text)
    if "@" not in name:
        return name or None
    keys = keys_named(conn, name)
    hashed = next(iter(email_hashes(conn, name)), None)
    if hashed is None or not any(key.kind == "email" for key in keys):
        for event_id in threads.events_of(conn, [key.key for key in keys], None, None, 1):
            return f"ev_{event_id}"
    return hashed


def public_name(key: KeyLine) -> str | None:
    """The name for a key's person where e-mail addresses must not appear; None if it contains one."""
    name = key.ref if key.kind == "email" else key.key
    return name if without_addresses(name) == name else None
