"""What the stand-in remembers: visitors, goals, payments, the requests of a minute, and its own clock.

There is one lock, held briefly; lists are copied, so reading 20,000 goals never blocks the writing of the next.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bridge.sandbox.faults import Plan
from bridge.sandbox.goals import VISITOR, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bridge.sandbox.goals import Draft
    from bridge.sandbox.options import Options, Token

MINUTE_MS: Final = 60_000
_REQUESTS_KEPT: Final = 100_000


@dataclass(frozen=True, slots=True)
class Seed:
    """The seeded state of a visitor: `known` (from known_from_ms on), `bot`, or `unknown`."""

    state: str
    known_from_ms: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded goal, and the request that sent it (without its key)."""

    event_id: str
    at_ms: int
    website: str
    visitor: str
    name: str
    description: str | None
    metadata: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    raw: str = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        return {
            "event_id": self.event_id,
            "at_ms": self.at_ms,
            "timestamp": iso(self.at_ms),
            "website": self.website,
            "visitor": self.visitor,
            "name": self.name,
            "description": self.description,
            "metadata": dict(self.metadata),
            "request": {"headers": dict(self.headers), "body": self.raw},
        }


@dataclass(frozen=True, slots=True)
class PlayedWebsite:
    """One website. Its requests are counted by `bucket`, the key or token that asked."""

    id: str
    domain: str
    bucket: str = field(repr=False)


def iso(at_ms: int) -> str:
    """A time in DataFast's format: 2026-05-01T10:00:00.123Z."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class World:
    """Everything that a running sandbox knows."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.faults = Plan()
        self.payments: dict[tuple[str, str], dict[str, Any]] = {}
        self.profiles: dict[tuple[str, str], dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._seeds: dict[str, Seed] = {}
        self._goals: list[Recorded] = []
        self._by_visitor: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
        self._arrivals: dict[str, deque[int]] = defaultdict(deque)
        self._requests: deque[dict[str, Any]] = deque(maxlen=_REQUESTS_KEPT)
        self._offset_ms = 0
        self._numbers = itertools.count(1)
        self._machine = secrets.token_hex(5)

    # ---------------------------------------------------------------------------------------------------- the clock

    def now_ms(self) -> int:
        """The sandbox's clock: real time plus its adjustments."""
        return time.time_ns() // 1_000_000 + self._offset_ms

    def set_clock(self, *, now_ms: int | None = None, advance_ms: int = 0) -> None:
        """Set the clock to a time, advance it by milliseconds, or (with neither) return it to real time."""
        with self._lock:
            if now_ms is not None:
                self._offset_ms = now_ms - time.time_ns() // 1_000_000
            elif advance_ms:
                self._offset_ms += advance_ms
            else:
                self._offset_ms = 0

    # ------------------------------------------------------------------------------------------------ who may do what

    def website(self, key: str, website_id: str | None, scope: str) -> PlayedWebsite:
        """The website of a key or token; Refusal 401, 400 or 403 (C1 to C4)."""
        options = self.options
        if key in options.keys:
            index = options.keys.index(key)
            site = PlayedWebsite(_site_id(options, index), _domain(options, index), key)
        else:
            token = next((token for token in options.tokens if token.text == key), None)
            if token is None:
                raise Refusal(401, "Invalid API key")
            site = self._website_of_token(token, website_id, scope)
        if options.suspended and scope != "analytics:read":
            raise Refusal(403, "Tracking suspended for this website.")
        return site

    def _website_of_token(self, token: Token, website_id: str | None, scope: str) -> PlayedWebsite:
        options = self.options
        if not website_id:
            raise Refusal(options.token_without_website, "websiteId is required with an account token")
        ids = [_site_id(options, index) for index in range(max(1, len(options.keys)))]
        if website_id not in ids or (token.websites and website_id not in token.websites):
            raise Refusal(403, "This token has no access to the website")
        if not {"*", scope} & set(token.scopes):
            raise Refusal(403, f"This token lacks the permission {scope}")
        return PlayedWebsite(website_id, _domain(options, ids.index(website_id)), token.text)

    def count_request(self, bucket: str, *, goal: bool) -> Mapping[str, str]:
        """Count a request of a key; Refusal 429 above the rate limit (C6). Returns the headers for a success."""
        options = self.options
        limit = options.rate_per_minute
        if not limit or (goal and not options.rate_counts_goals):
            return {}
        with self._lock:
            now_ms, arrivals = self.now_ms(), self._arrivals[bucket]
            since = now_ms - MINUTE_MS if options.rate_window == "sliding" else now_ms - now_ms % MINUTE_MS - 1
            while arrivals and arrivals[0] <= since:
                arrivals.popleft()
            first = arrivals[0] if arrivals else now_ms
            reset_ms = (first if options.rate_window == "sliding" else now_ms - now_ms % MINUTE_MS) + MINUTE_MS
            if len(arrivals) < limit:
                arrivals.append(now_ms)
                return self._rate_headers(limit - len(arrivals), reset_ms) if options.rate_headers_always else {}
        raise self._too_many(reset_ms, now_ms)

    def _too_many(self, reset_ms: int, now_ms: int) -> Refusal:
        headers = self._rate_headers(0, reset_ms)
        if self.options.retry_after:
            headers["Retry-After"] = str(-(-max(reset_ms - now_ms, 0) // 1000))
        reset = int(headers["X-RateLimit-Reset"])
        return Refusal(
            429, "Rate limit exceeded", headers, limit=self.options.rate_per_minute, remaining=0, reset=reset
        )

    def _rate_headers(self, remaining: int, reset_ms: int) -> dict[str, str]:
        reset = reset_ms if self.options.reset_in == "ms" else -(-reset_ms // 1000)
        return {
            "X-RateLimit-Limit": str(self.options.rate_per_minute),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str(reset),
        }

    # ----------------------------------------------------------------------------------------------------- visitors

    def seed(self, visitor: str, state: str, known_after_ms: int = 0) -> None:
        with self._lock:
            self._seeds[visitor.lower()] = Seed(state, self.now_ms() + known_after_ms)

    def seeds(self) -> dict[str, Seed]:
        with self._lock:
            return dict(self._seeds)

    def forget_seeds(self) -> None:
        with self._lock:
            self._seeds.clear()

    def state(self, visitor: str) -> str:
        """The state of a visitor: `known`, `bot` or `unknown`."""
        seed = self._seeds.get(visitor.lower())
        if seed is None:
            fits = VISITOR.fullmatch(visitor) or not self.options.uuid_only
            return "known" if self.options.known == "any" and fits else "unknown"
        return "unknown" if seed.state == "known" and self.now_ms() < seed.known_from_ms else seed.state

    def visitors(self, website: PlayedWebsite) -> list[str]:
        """Visitors seeded as known, then those with goals, each once, in order of appearance."""
        with self._lock:
            seen = [visitor for site, visitor in self._by_visitor if site == website.domain]
            seeded = [visitor for visitor in self._seeds if self.state(visitor) == "known"]
        return list(dict.fromkeys([*seeded, *seen]))

    # -------------------------------------------------------------------------------------------------------- goals

    def record(self, website: PlayedWebsite, draft: Draft, headers: Mapping[str, str], raw: str) -> Recorded:
        """Append a goal every time, because DataFast has no idempotency key."""
        with self._lock:
            at_ms = self.now_ms()
            goal = Recorded(
                event_id=f"{at_ms // 1000:08x}{self._machine}{next(self._numbers):06x}",
                at_ms=at_ms,
                website=website.domain,
                visitor=draft.visitor,
                name=draft.name,
                description=draft.description,
                metadata=draft.metadata,
                headers=headers,
                raw=raw,
            )
            self._goals.append(goal)
            self._by_visitor[website.domain, draft.visitor.lower()].append(goal)
            return goal

    def goals(self, since: int = 0) -> Sequence[Recorded]:
        """All goals after the first `since`, oldest first."""
        with self._lock:
            return self._goals[since:]

    def count(self) -> int:
        return len(self._goals)

    def last_goals(self, count: int) -> Sequence[Recorded]:
        with self._lock:
            return self._goals[-count:]

    def goals_of(self, website: PlayedWebsite, visitor: str) -> Sequence[Recorded]:
        with self._lock:
            return list(self._by_visitor.get((website.domain, visitor.lower()), ()))

    def totals(self, website: PlayedWebsite) -> list[tuple[str, int, int]]:
        """(name, completions, visitors), the most frequent first."""
        goals = [goal for goal in self.goals() if goal.website == website.domain]
        completions = Counter(goal.name for goal in goals)
        visitors = Counter(name for name, _ in {(goal.name, goal.visitor.lower()) for goal in goals})
        return [(name, count, visitors[name]) for name, count in completions.most_common()]

    def delete_goals(
        self, website: PlayedWebsite, *, visitor: str | None, name: str | None, start_ms: int | None, end_ms: int | None
    ) -> int:
        """Delete what matches every given filter; returns how many."""

        def matches(goal: Recorded) -> bool:
            return (
                goal.website == website.domain
                and (visitor is None or goal.visitor.lower() == visitor.lower())
                and (name is None or goal.name == name)
                and (start_ms is None or goal.at_ms >= start_ms)
                and (end_ms is None or goal.at_ms <= end_ms)
            )

        with self._lock:
            kept = [goal for goal in self._goals if not matches(goal)]
            deleted = len(self._goals) - len(kept)
            self._keep(kept)
        return deleted

    def forget_goals(self) -> None:
        with self._lock:
            self._keep([])

    def _keep(self, goals: list[Recorded]) -> None:
        self._goals = goals
        self._by_visitor.clear()
        for goal in goals:
            self._by_visitor[goal.website, goal.visitor.lower()].append(goal)

    # ----------------------------------------------------------------------------------------------------- requests

    def note_request(self, row: dict[str, Any]) -> None:
        self._requests.append(row)

    def requests(self) -> list[dict[str, Any]]:
        """The latest requests to the API, refused and failed ones included: time, method, path, status and fault."""
        with self._lock:
            return list(self._requests)

    def forget_requests(self) -> None:
        self._requests.clear()


def _site_id(options: Options, index: int) -> str:
    return f"{int(options.website_id, 16) + index:024x}"


def _domain(options: Options, index: int) -> str:
    return options.domain if index == 0 else f"{index + 1}.{options.domain}"
