"""Threads: the keys that belong to one purchase, and how to find a key that links unrelated ones.

A *thread* is a set of strong keys joined by events: one purchase and everything that follows from it. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

# A customer on a second device is a second visitor; a third one without a common customer means several purchases.
VISITORS_PER_THREAD: Final = 2
KEYS_PER_THREAD: Final = 5_000  # a daily subscription has some 1,200 in 400 days
_SUSPECTS: Final = 24  # how many of a thread's most used keys are checked for linking too much


class DisjointSets:
    """Groups of names that belong together (union-find over any hashable names)."""

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
        """Put these into one group and return its root, the smallest name; None for no names."""
        roots = sorted({self.find(name) for name in names})
        if not roots:
            return None
        for root in roots[1:]:
            self._parent[root] = roots[0]
        return roots[0]


def components(edges: Iterable[Sequence[str]], keys: Iterable[str], without: Collection[str] = ()) -> dict[str, str]:
    """Each key's thread, named by its smallest key, when the keys `without` join nothing."""
    groups = DisjointSets()
    for edge in edges:
        groups.join(key for key in edge if key not in without)
    return {key: groups.find(key) for key in keys if key not in without}


def overlinking_key(
    edges: Sequence[Sequence[str]], named: Mapping[str, Collection[str]], trusted: Collection[str] = ()
) -> str | None:
    """The key of a thread that links unrelated keys: the one without which the parts have the fewest visitors.

    edges: which keys each event named together; named: the visitors named with each key. Ties go to the key with the
    most events. trusted: keys that certainly belong to one purchase; None is returned if only they brought the visitors
    together.
    """
    uses: dict[str, int] = {}
    for edge in edges:
        for key in edge:
            uses[key] = uses.get(key, 0) + 1
    doubtful = [key for key in uses if key not in trusted]
    if not doubtful:
        return None
    if trusted and _largest_part(edges, named, uses, doubtful)[0] >= _largest_part(edges, named, uses, ())[0]:
        return None
    suspects = sorted(doubtful, key=lambda key: (-uses[key], key))[:_SUSPECTS]
    return min(suspects, key=lambda key: (*_largest_part(edges, named, uses, (key,)), -uses[key], key))


def keys_of_one_customer(events: Iterable[tuple[str, Collection[str], bool | None]]) -> set[str]:
    """The keys whose events all name one customer.

    events: (key, the event's customers, whether it named a visitor). Those that named neither are ignored.
    """
    common: dict[str, set[str]] = {}
    for key, customers, named in events:
        if customers or named:
            common[key] = common[key] & set(customers) if key in common else set(customers)
    return {key for key, shared in common.items() if shared}


def _largest_part(
    edges: Sequence[Sequence[str]], named: Mapping[str, Collection[str]], keys: Iterable[str], without: Collection[str]
) -> tuple[int, int]:
    """The most visitors in one part, and the largest part's size, if these keys join nothing."""
    visitors: dict[str, set[str]] = {}
    sizes: dict[str, int] = {}
    for key, part in components(edges, keys, without).items():
        visitors.setdefault(part, set()).update(named.get(key, ()))
        sizes[part] = sizes.get(part, 0) + 1
    return max(map(len, visitors.values()), default=0), max(sizes.values(), default=0)
