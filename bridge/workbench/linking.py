"""What people do with links: bind a key to a visitor, cut a key, forget a person; each with a preview.

`links add`, `links forget` and `forget` do it, and so does the console. A preview of a binding is the binding itself,
rolled back before anybody can see it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.errors import UsageError
from bridge.identity.people import email_hash, is_address, owners
from bridge.model import EventState
from bridge.store import Store, facts
from bridge.store.goals import parking
from bridge.store.operator import forgetting, queries, threads
from bridge.text import ago, count, listing
from bridge.workbench import describe, stored, why

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bridge.identity.choice import KnownLinks
    from bridge.model import Event, Key
    from bridge.prepare import Preparer
    from bridge.settings import Settings
    from bridge.store.operator.forgetting import Person
    from bridge.store.operator.queries import GoalDetail, GoalLine
    from bridge.store.operator.threads import KeyLine
    from bridge.workbench.describe import Moment

_OPEN: Final = ("pending", "held")


@dataclass(frozen=True, slots=True)
class Binding:
    """A key that leads to a visitor now, and the goals that waited for it."""

    key: Key
    visitor: str
    links: KnownLinks
    goals: tuple[GoalDetail, ...]
    moment: Moment

    @property
    def done(self) -> str:
        """What was bound."""
        return f"{self.key.text} leads to {self.visitor}."

    @property
    def sent(self) -> int:
        """How many goals are sent because of it."""
        return sum(detail.goal.state == "pending" for detail in self.goals)

    def sentences(self) -> Iterator[str]:
        """When each goal that waited for the key is sent, or why it is not sent."""
        key, moment = self.key, self.moment
        if key.text in self.links.mute or (key.strong and key.text not in self.links.threads):
            stopped = f"{key.text} was stopped and no longer links anything (`links show {key.id}`)"
            yield f"But {stopped}, so no goal is sent."
        elif not self.goals:
            yield "No goal waits for it."
        for detail in self.goals:
            yield f"{detail.goal.label} {detail.goal.name}: {_when_sent(key, detail, moment)}."


def bind(conn: Connection, key: Key, visitor: str, settings: Settings, environ: Mapping[str, str]) -> Binding:
    """Make a key lead to a visitor, and wake the goals that waited for it."""
    waiting = parking.waiting_for(conn, key)
    links = parking.bind(conn, key, visitor, settings)
    goals = queries.show_goals(conn, waiting)
    return Binding(key, visitor, links, tuple(goals), describe.moment(conn, environ))


def preview(store: Store, key: Key, visitor: str, settings: Settings, environ: Mapping[str, str]) -> Binding:
    """Preview `bind`: everything is rolled back."""
    with store.write() as conn:
        trial = conn.begin_nested()
        binding = bind(conn, key, visitor, settings, environ)
        trial.rollback()
    return binding


def _when_sent(key: Key, detail: GoalDetail, moment: Moment) -> str:
    goal = detail.goal
    stopped = describe.blocked_by(goal, moment)
    if goal.state == "pending":
        return stopped or "is sent now"
    if goal.reason == "unproved":
        return f"waits; {goal.message}{f'; {stopped}' if stopped else ''}"
    if not key.strong and (goal.weak_at_ms or 0) > moment.now_ms:
        return (
            f"is sent {ago(goal.weak_at_ms or 0, moment.now_ms)} (BRIDGE_WEAK_AFTER), unless an event of its own"
            " purchase names another visitor before then"
        )
    if detail.stopped:
        first = detail.stopped[0]
        between = f"{first.key}, the link between them, no longer links anything ({first.stopped_reason})"
        return f"is not sent yet: {between}"
    return f"is not sent yet, because it waits for something else; `python -m bridge why {goal.label}` says for what"


# ------------------------------------------------------------------------------------------------------------ a key


@dataclass(frozen=True, slots=True)
class Cut:
    """A key to be forgotten. again: the goals that look for their visitor once more; kept: those that stay."""

    key: Key
    again: tuple[GoalLine, ...] = ()
    kept: tuple[GoalLine, ...] = ()

    def sentences(self) -> Iterator[tuple[str, list[str]]]:
        """What would change and what would stay: a heading, and a line for each goal."""
        if self.again:
            yield (
                "These goals found their visitor through it and would look for one again:",
                [f"{goal.label} {goal.called} to {goal.visitor}" for goal in self.again],
            )
        if self.kept:
            yield "These were sent, or are over, and stay as they are:", [_kept(goal) for goal in self.kept]

    @property
    def done(self) -> str:
        """The result, in a sentence."""
        result = "is cut: it no longer links anything" if self.key.is_person else "is forgotten"
        return f"{self.key.text} {result}."


def _kept(goal: GoalLine) -> str:
    remote = f", DataFast's id {goal.datafast_event_id}" if goal.datafast_event_id else ""
    return f"{goal.label} {goal.called} to {goal.visitor}: {goal.state}{remote}"


def plan_cut(conn: Connection, key: Key) -> Cut:
    """What forgetting a key would do."""
    goals = queries.goals_by_id(conn, parking.found_by(conn, key))
    again = tuple(goal for goal in goals if goal.state in _OPEN)
    return Cut(key, again, tuple(goal for goal in goals if goal.state not in (*_OPEN, "parked")))


def cut(conn: Connection, planned: Cut, settings: Settings) -> None:
    """Forget a key; the goals that found their visitor through it look for one again."""
    forgetting.forget_key(conn, planned.key.text)
    parking.look_again(conn, [goal.id for goal in planned.again], settings)


# --------------------------------------------------------------------------------------------------------- a person


PAGES_AT_ONCE: Final = 20  # of a hundred bodies, that are looked through at a time
_ADDRESS: Final = re.compile(r"[\w.+'-]{1,64}@[\w.-]{0,190}\w")
_LETTER: Final = re.compile(r"[^\W\d_]")
_MARK: Final = re.compile(r"[\d_|]")
_DISTINCTIVE_MIN: Final = 5  # characters: shorter ids (`pro`, `v2`) occur in other people's bodies, too


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Everything stored about a person, as far as the stored bodies have been searched for their ids.

    holds: whether the text of a body names the person. people: the customers, users and addresses among the keys.
    found: the events that only their bodies connect with the person; looked_at: the last event whose body was searched;
    None: all were.
    """

    person: Person
    holds: Callable[[str], bool]
    people: tuple[KeyLine, ...]
    found: frozenset[int]
    looked_at: int | None


@dataclass(frozen=True, slots=True)
class WantedPerson:
    """The person to be forgotten. keys: of one person; typed: the other strings that were entered."""

    keys: Sequence[KeyLine]
    visitor: str | None = None
    typed: Sequence[str] = ()


def plan_forgetting(
    store: Store,
    preparer: Preparer,
    wanted: WantedPerson,
    found: Iterable[int] = (),
    after: int | None = 0,
) -> Forgetting:
    """Everything that belongs to a person, after the next part of the search through bodies.

    found: the events that earlier parts have found. after: the event behind which to search; None: no search.
    """
    names = [key.key for key in wanted.keys]
    with store.read() as conn:
        by_links = forgetting.find_person(conn, visitor=wanted.visitor, people=names)
        holds = mention_matcher(conn, wanted.keys, [*wanted.typed, wanted.visitor or ""])
    seeds = set(found)
    if after is not None:
        more, after = forgetting.search(store, holds, after, PAGES_AT_ONCE)
        seeds |= more
    seeds -= by_links.events
    others = {
        event.id: event.state
        for events in stored.some(store, list(seeds))
        for event in events
        if _belongs_to_another(preparer, event, by_links.keys, holds)
    }
    with store.read() as conn:
        person = forgetting.find_person(conn, visitor=wanted.visitor, seeds=seeds - set(others), people=names)
        for event_id in others.keys() - person.events:
            (person.mentions if others[event_id] is EventState.ROUTED else person.unrouted).add(event_id)
        people = threads.people_among(conn, sorted(person.keys))
    return Forgetting(person, holds, tuple(people), frozenset(seeds), after)


def forget(conn: Connection, plan: Forgetting) -> str:
    """Remove everything that belongs to a person; return what was removed, in a sentence."""
    forgetting.remove(conn, plan.person, plan.holds)
    return f"Removed: {stored_amounts(plan.person)}."


def _belongs_to_another(preparer: Preparer, event: Event, keys: Collection[str], holds: Callable[[str], bool]) -> bool:
    """Whether an event that names the person belongs to another: it says whose it is, and names other people only."""
    source, documents = preparer.rule_set.sources.get(event.source), preparer.read(event).documents
    if source is None or any(key.text in keys for document in documents for key in document.observation.keys):
        return False
    named = [owner for document in documents for owner in owners(source, document.envelope, document.document)]
    if any(forgetting.matches_any(holds, text.encode()) for text, _ in named):
        return False
    return any(sure for _, sure in named)


def keys_of(conn: Connection, *, customer: str = "", user: str = "", email: str = "") -> list[KeyLine]:
    """The keys of the person who was named in one or more of these ways.

    Raises UsageError for what is not an address, and like `require_one_person`.
    """
    if email and not is_address(email):
        raise UsageError(f"--email should be a whole address such as ann@example.com, not {email!r}.")
    found: list[KeyLine] = []
    for text, kind in ((customer, "customer"), (user, "user"), (email, "email")):
        named = why.keys_named(conn, text) if text else []
        meant = [key for key in named if key.kind == kind or key.key == text]
        chosen = named if kind == "email" or (kind == "customer" and not meant) else meant
        require_one_person(text, chosen)
        found += chosen
    return found


def require_one_person(text: str, named: Sequence[KeyLine]) -> list[str]:
    """The keys of the person named. Raises UsageError if it may be several people: 42 is an id in many places."""
    keys = [key.key for key in named]
    distinct = {key.key.replace(":test:", ":live:", 1) if key.kind == "user" else key.key for key in named}
    if len(distinct) > 1 and any(key.ref == text and not is_distinctive(text) for key in named):
        raise UsageError(f"{text!r} names {listing(keys)}. Name one of them.")
    return keys


def is_distinctive(identifier: str) -> bool:
    """Whether an id names the same thing wherever it occurs; 42 may be an amount, and `pro` a plan that was bought."""
    if "@" in identifier:
        return True
    return len(identifier) >= _DISTINCTIVE_MIN and bool(_LETTER.search(identifier) and _MARK.search(identifier))


def mention_matcher(conn: Connection, named: Iterable[KeyLine], typed: Iterable[str] = ()) -> Callable[[str], bool]:
    """A function that tells whether a body's text names this person: by a distinctive id, or by a hashed address.

    typed: other strings that were entered. Events with any other id are found only through links.
    """
    ids = [key.ref for key in named if key.kind != "email"]
    by_id = forgetting.word_matcher(word for word in (*ids, *typed) if is_distinctive(word))
    hashes = {key.ref for key in named if key.kind == "email"}
    email_key = (facts.get(conn, facts.EMAIL_KEY) or "").encode()

    def holds(text: str) -> bool:
        return by_id(text) or bool(
            hashes and any(email_hash(address, email_key) in hashes for address in _ADDRESS.findall(text))
        )

    return holds


def stored_amounts(person: Person) -> str:
    """How much is stored about a person, in numbers."""
    counted = {
        "event": len(person.events),
        "goal": len(person.goals),
        "key": len(person.keys),
        "visitor id": len(person.visitors),
    }
    parts = [count(number, name) for name, number in counted.items() if number]
    if person.mentions:
        single = len(person.mentions) == 1
        parts.append(f"the {'body' if single else 'bodies'} of {count(len(person.mentions), 'event')} of others")
    return listing(parts)


def about_mentions(person: Person) -> str:
    """What happens to other people's events that mention a person; empty if there are none."""
    number, sentences = len(person.mentions), []
    if number == 1:
        sentences = ["1 event of others mentions this person: it loses its body, and its goals and links stay."]
    elif number:
        sentences = [
            f"{number} events of others mention this person: they lose their bodies, and their goals and links stay."
        ]
    if person.unrouted:
        single = len(person.unrouted) == 1
        sentences.append(
            f"{count(len(person.unrouted), 'event')} of others that {'mentions' if single else 'mention'} this person"
            f" {'has' if single else 'have'} not been routed, and {'stays as it is' if single else 'stay as they are'}:"
            " forget the person again afterwards."
        )
    return " ".join(sentences)


def left_to_do(person: Person) -> str:
    """What only the owner can do after a person was forgotten; the visitors follow it."""
    left = "What is left for you to do: delete the customer at the provider"
    if not person.visitors:
        return f"{left}. No visitor was known, so there is nothing to delete at DataFast."
    return f"{left}, and the {'visitor' if len(person.visitors) == 1 else 'visitors'} at DataFast:"
