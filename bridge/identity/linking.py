"""What events teach about visitors, as values: evidence, the choice among it, and the key that links too much.

Beside `model`, so that the store (which keeps links) and identity (which reads events) share it without knowing each
other. Pure: no SQL, no clock. A *thread* is what strong keys join: one purchase and all that follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

    from bridge.model import Key

VISITORS_A_THREAD: Final = 2  # a customer on another device; a third, and no one customer, is no purchase's key
KEYS_A_THREAD: Final = 5_000  # a daily subscription has some 1,200 in 400 days
_SUSPECTS: Final = 24  # how many of a thread's busiest keys are asked whether they link too much


@dataclass(frozen=True, slots=True)
class Named:
    """The visitor that an event names itself.

    sure: not from a bare `client_reference_id`. borrowed: a bare UUID of a field that is not the visitor's, so that it
    may be the app's own user id; it counts where DataFast knows it.
    """

    visitor: str
    path: str
    sure: bool = True
    borrowed: bool = False


@dataclass(frozen=True, slots=True)
class Learning:
    """What one event, or one element of it, teaches: keys that belong together, and perhaps whose they are.

    event_id: None for a hint from outside. event: how people call it, `checkout.session.completed evt_1`.
    at_ms: the event's own time, for the choice among visitors.
    """

    keys: tuple[Key, ...]
    at_ms: int
    event: str
    event_id: int | None = None
    element: int = 0
    named: Named | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One event that named a visitor."""

    at_ms: int
    event: str
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A visitor was named together with this key: for the first and for the last time by the events' own clocks."""

    key: str
    visitor: str
    sure: bool
    first: Point
    last: Point
    borrowed: bool = False  # named by nothing but a borrowed field

    def joined(self, other: Evidence) -> Evidence:
        """Both together; the order does not matter."""
        return Evidence(
            self.key,
            self.visitor,
            self.sure or other.sure,
            min(self.first, other.first, key=_order),
            max(self.last, other.last, key=_order),
            self.borrowed and other.borrowed,
        )


def _order(point: Point) -> tuple[int, int, str]:
    return point.at_ms, point.event_id or 0, point.event


def choose(
    evidence: Iterable[Evidence], at_ms: int, *, first: bool = False, usable: Callable[[Evidence], bool] | None = None
) -> tuple[Evidence, Point] | None:
    """The visitor whose event is the latest not after `at_ms`, else the earliest; with `first` always the earliest.

    Visitors from a bare `client_reference_id` count only when there is no other. Never depends on the order given.
    """
    able = [item for item in evidence if usable is None or usable(item)]
    able = [item for item in able if item.sure] or able
    points = [(item, point) for item in able for point in {item.first, item.last}]
    before = [] if first else [pair for pair in points if pair[1].at_ms <= at_ms]
    if before:
        return max(before, key=_rank)
    return min(points, key=_rank, default=None)


def _rank(pair: tuple[Evidence, Point]) -> tuple[int, str, str]:
    evidence, point = pair
    return point.at_ms, evidence.visitor, evidence.key


@dataclass(frozen=True, slots=True)
class Found:
    """A visitor and how it was found: the goal's provenance.

    by: own (a field of the event) | thread | customer. path: of the own field. key, kind, ref: the goal's own key that
    led there (of a customer that only the thread was seen with: that customer, and `beside` is the goal's own key);
    via: another key of the thread, where the visitor was named. event: what named it. before_ms: how long before the
    goal's event (negative: after it). others: own candidates that were not taken.
    """

    visitor: str
    by: str
    sure: bool = True
    path: str | None = None
    key: str | None = None
    kind: str | None = None
    ref: str | None = None
    via: str | None = None
    event: str | None = None
    event_id: int | None = None
    before_ms: int | None = None
    others: tuple[Named, ...] = ()
    borrowed: bool = False
    beside: str | None = None
    unproved: bool = False  # borrowed, and the destination has not said yet that it knows it

    @property
    def own(self) -> tuple[Named, ...]:
        """The candidates that the event names itself, this one first."""
        mine = (Named(self.visitor, self.path or "", self.sure, self.borrowed),) if self.by == "own" else ()
        return (*mine, *self.others)

    def to_json(self) -> dict[str, Any]:
        """The entries that say something."""
        told = {name: getattr(self, name) for name in self.__slots__}
        told["others"] = [[other.visitor, other.path, other.sure, other.borrowed] for other in self.others]
        told["borrowed"], told["unproved"] = self.borrowed or None, self.unproved or None
        return {name: value for name, value in told.items() if value not in (None, [])}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        known = {name: value for name, value in told.items() if name in cls.__slots__}
        known["others"] = tuple(Named(*other) for other in known.get("others", ()))
        return cls(**known)


# ------------------------------------------------------------------------------------------------------- threads


class Groups:
    """Which things belong together (union-find over any hashable names)."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, name: Any) -> Any:
        parent = self._parent
        root = name
        while (above := parent.get(root, root)) != root:
            root = above
        while parent.get(name, name) != root:
            parent[name], name = root, parent[name]
        return root

    def join(self, names: Iterable[Any]) -> Any:
        """Put these into one group; its root, or None for no names. The smallest name is the root."""
        roots = sorted({self.find(name) for name in names})
        if not roots:
            return None
        for root in roots[1:]:
            self._parent[root] = roots[0]
        return roots[0]


def components(edges: Iterable[Sequence[str]], keys: Iterable[str], without: Collection[str] = ()) -> dict[str, str]:
    """Each key's thread, named by its smallest key, when the keys `without` join nothing."""
    groups = Groups()
    for edge in edges:
        groups.join(key for key in edge if key not in without)
    return {key: groups.find(key) for key in keys if key not in without}


def culprit(
    edges: Sequence[Sequence[str]], named: Mapping[str, Collection[str]], trusted: Collection[str] = ()
) -> str | None:
    """The key of a thread that links what does not belong together: without it the parts have the fewest visitors.

    edges: which keys each event named together; named: the visitors named with each key. Of equal ones the busiest.
    trusted: keys that are certainly one purchase's. None: nothing but those brought the visitors together.
    """
    busy: dict[str, int] = {}
    for edge in edges:
        for key in edge:
            busy[key] = busy.get(key, 0) + 1
    doubtful = [key for key in busy if key not in trusted]
    if not doubtful:
        return None
    if trusted and _crowd(edges, named, busy, doubtful)[0] >= _crowd(edges, named, busy, ())[0]:
        return None
    suspects = sorted(doubtful, key=lambda key: (-busy[key], key))[:_SUSPECTS]
    return min(suspects, key=lambda key: (*_crowd(edges, named, busy, (key,)), -busy[key], key))


def with_one_customer(customers: Iterable[tuple[str, Collection[str], bool | None]]) -> set[str]:
    """The keys whose events all name one customer: (key, the event's customers, whether it named a visitor).

    An event that named neither a customer nor a visitor has no say.
    """
    common: dict[str, set[str]] = {}
    for key, mine, named in customers:
        if mine or named:
            common[key] = common[key] & set(mine) if key in common else set(mine)
    return {key for key, shared in common.items() if shared}


def _crowd(
    edges: Sequence[Sequence[str]], named: Mapping[str, Collection[str]], keys: Iterable[str], without: Collection[str]
) -> tuple[int, int]:
    """The most visitors in one part, and the size of the largest part, when these keys join nothing."""
    visitors: dict[str, set[str]] = {}
    sizes: dict[str, int] = {}
    for key, part in components(edges, keys, without).items():
        visitors.setdefault(part, set()).update(named.get(key, ()))
        sizes[part] = sizes.get(part, 0) + 1
    return max(map(len, visitors.values()), default=0), max(sizes.values(), default=0)
