"""Which connection gives way when they run short: bookkeeping only; no socket, no clock.

The origin with the most connections (an address, or the IPv6 network of one customer) gives way first, and of its
connections the one that has gone longest without progress. Behind a proxy all have one origin.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any, Generic, TypeVar

Member = TypeVar("Member")


def origin_of(client: Any) -> str:
    """The origin of a connection, by the peer address that `accept` returned."""
    if not isinstance(client, tuple):
        return ""  # a Unix socket: a client on this machine
    return origin_at(str(client[0]))


def origin_at(address: str) -> str:
    """One name for all addresses that one customer may have, such as an IPv6 network. Empty for what is no address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or found.packed[:8].hex())
    return str(found)


class Crowd(Generic[Member]):
    """Members in the order in which they give way. Every step takes the same time, however many there are."""

    def __init__(self) -> None:
        self._origins: dict[Member, str] = {}
        self._lines: dict[str, dict[Member, None]] = {}  # by origin; progress longest ago comes first
        self._sizes: dict[int, dict[str, None]] = {}  # origins by the length of their line
        self._most = 0

    def __len__(self) -> int:
        return len(self._origins)

    def put(self, member: Member, origin: str) -> None:
        """Add a member, or note its progress: it is the last of its line now."""
        line = self._lines.setdefault(origin, {})
        before = len(line)
        line.pop(member, None)
        line[member] = None
        self._origins[member] = origin
        self._resize(origin, before, len(line))

    def drop(self, member: Member) -> None:
        """Remove a member, if it is one."""
        origin = self._origins.pop(member, None)
        if origin is None:
            return
        line = self._lines[origin]
        del line[member]
        if not line:
            del self._lines[origin]
        self._resize(origin, len(line) + 1, len(line))

    def first(self) -> Member | None:
        """The member that gives way now."""
        if not self._most:
            return None
        return next(iter(self._lines[next(iter(self._sizes[self._most]))]))

    def _resize(self, origin: str, before: int, after: int) -> None:
        if before:
            self._sizes[before].pop(origin)
            if not self._sizes[before]:
                del self._sizes[before]
        if after:
            self._sizes.setdefault(after, {})[origin] = None
        self._most = max(self._most, after)
        if self._most not in self._sizes:
            self._most = after  # one less than before: lines change by one at a time
