"""Whatever an id names: events, a goal, a key such as `cus_…`, a person, a visitor; and what belongs together with it.

`why` prints it, and the console shows it. It needs no mapping files and makes no request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.identity.people import email_hash
from bridge.identity.sentences import BOUND, HINT, apart
from bridge.store import facts
from bridge.store.operator import queries, threads
from bridge.text import when
from bridge.workbench import describe

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.identity.evidence import Evidence
    from bridge.store.operator.queries import EventDetail, GoalDetail, GoalLine
    from bridge.store.operator.threads import KeyLine, Thread
    from bridge.workbench.describe import Moment

_GAP_MS = 60_000  # between two events of a timeline, from which on it is said


@dataclass
class Known:
    """Everything that an id names."""

    moment: Moment
    events: list[EventDetail] = field(default_factory=list)
    made: dict[int, list[GoalDetail]] = field(default_factory=dict)  # the goals of each event
    goals: list[GoalDetail] = field(default_factory=list)
    thread: Thread | None = None  # of a key, or of a visitor
    line: list[EventDetail] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One event of a timeline, by its own time, with the goals it made. sentence: what it is and what became of it.

    event_id names an event that is not among those of the timeline itself where only its goal is known.
    """

    at_ms: int
    event_id: int
    sentence: str
    goals: tuple[GoalLine, ...]


def look_up(conn: Connection, text: str, environ: Mapping[str, str]) -> Known:
    """Whatever this id names."""
    known = Known(describe.moment(conn, environ))
    found = queries.find(conn, text)
    known.events = _events(conn, found.events)
    known.made = {one.line.id: queries.goals_of(conn, one) for one in known.events}
    known.goals = [goal for one in found.goals if (goal := queries.show_goal(conn, one))]
    keys = keys_named(conn, text)
    thread = threads.about(conn, keys) if keys else threads.of_visitor(conn, text.lower())
    if thread.keys:
        known.thread = thread
        known.line = _events(conn, thread.events)
    return known


@dataclass(frozen=True, slots=True)
class Named:
    """What an id names, without its details. person: how the page of a person, a purchase or a visitor is asked for."""

    events: tuple[int, ...] = ()
    goals: tuple[GoalLine, ...] = ()
    person: str | None = None


def named(conn: Connection, text: str) -> Named:
    """Whatever `why` would show for this id; a bare number is the number of an event first."""
    for name in (f"ev_{text}", text) if text.isascii() and text.isdecimal() and len(text) < 7 else (text,):
        found = queries.find(conn, name)
        goals = queries.goals_by_id(conn, found.goals)
        if keys_named(conn, name) or threads.of_visitor(conn, name.lower()).keys:
            return Named(found.events, (), name)  # whose goals its page shows
        if found.events or goals:
            return Named(found.events, tuple(goals))
    return Named()


def keys_named(conn: Connection, text: str) -> list[KeyLine]:
    """The keys that a string names; an e-mail address is looked up by its hash, too."""
    return [key for name in (*hashes(conn, text), text) for key in threads.named(conn, name)]


def hashes(conn: Connection, address: str) -> list[str]:
    """The hash by which an e-mail address is remembered; none if it is no address, or none was ever remembered."""
    key = facts.get(conn, facts.EMAIL_KEY) if "@" in address else None
    hashed = email_hash(address, key.encode()) if key else None
    return [hashed] if hashed else []


def _events(conn: Connection, ids: Sequence[int]) -> list[EventDetail]:
    return [detail for one in ids if (detail := queries.show_event(conn, one))]


# -------------------------------------------------------------------------------------------------------- in words


def key_sentence(key: KeyLine) -> str:
    """A key by its whole name, and why it links nothing any more, if it does not."""
    return f"{key.key} (no longer links anything: {key.stopped_reason})" if key.stopped_reason else key.key


def taught(thread: Thread) -> dict[str, list[str]]:
    """The visitors to which these keys lead, each with who named it and when."""
    visitors: dict[str, dict[int | str, str]] = {}
    for item in sorted(thread.evidence, key=lambda item: item.first.at_ms):
        for point in (item.first, item.last):
            by = BOUND if point.event == HINT else f"named by {point.event}"
            sentence = f"{by}, {when(point.at_ms)}{_how_sure(item)}"
            told, event = visitors.setdefault(item.visitor, {}), point.event_id or sentence
            told[event] = max(told.get(event, ""), sentence, key=len)  # to a person's key an event has its sender, too
    return {visitor: list(told.values()) for visitor, told in visitors.items()}


def _how_sure(item: Evidence) -> str:
    if item.borrowed:
        return " (a bare UUID that may be your own user id: counts where DataFast knows it)"
    return "" if item.sure else " (client_reference_id only)"


def timeline(details: Sequence[EventDetail], goals: Sequence[GoalLine]) -> Iterator[TimelineEntry]:
    """Events by their own time, each with its goals; then goals whose events are not among them."""
    seen: set[int] = set()
    last_ms: int | None = None
    several = len({detail.line.source for detail in details}) > 1
    for detail in sorted(details, key=lambda one: (one.event.happened_at_ms, one.line.id)):
        line, at_ms = detail.line, detail.event.happened_at_ms
        gap = (
            f"  ({apart(at_ms - last_ms).replace(' before', ' later')})"
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


def goal_in_brief(goal: GoalLine, moment: Moment) -> list[str]:
    """A goal in a timeline: what it is and whose, then how it stands."""
    to = f" to {goal.visitor}" if goal.visitor else ""
    parts = (
        f"{goal.label} {goal.called}{to}",
        describe.standing(goal, moment),
        describe.how_known(goal),
        describe.what_next(goal, moment),
        describe.told(goal),
    )
    return [part for part in parts if part]
