"""An outage of days, played in seconds: the real deliverer and the real SQL, with a simulated clock.

Goals come in evenly while nothing can be sent; then the destination is back. The run counts the requests that reach
it, when the backlog has been sent, and how many requests there were in any one minute.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bridge import settings as table
from bridge import store as bridge_store
from bridge.deliver import Deliverer
from bridge.model import CompletedGoal, Destination, Outcome, OutcomeKind, VisitorGoals
from bridge.store import schema
from chaos.plan import Plan
from chaos.quick import Quick, Statements
from chaos.silence import silence

START_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
LATENCY_MS = 150
DESTINATION = Destination("default", "df_outage")
KINDS = (  # how it fails, by turns of an hour
    Outcome(OutcomeKind.NOT_SENT, message="the connection was refused"),
    Outcome(OutcomeKind.REFUSED_FOR_NOW, 503, "the answer was 503, without a message"),
    Outcome(OutcomeKind.UNCONFIRMED, message="no answer came in time"),
)


@dataclass
class Outage:
    """One run. `processes` deliverers share one database and one token."""

    events: int
    hours: float
    seed: int
    processes: int = 2
    now_ms: int = START_MS
    sent_ms: list[int] = field(default_factory=list)  # POST /goals that reached the destination's address
    asked_ms: list[int] = field(default_factory=list)  # every request
    recorded: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # description: name, when, how often

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.over_ms = START_MS + round(self.hours * HOUR_MS)
        self.settings = table.load({})
        self.store = bridge_store.open("sqlite://", clock=lambda: self.now_ms)
        with self.store.write() as conn:
            schema.metadata.create_all(conn)
        pooled = self.store.engine.raw_connection()
        self.raw: Any = pooled.driver_connection
        pooled.close()
        self.statements = Statements()
        self.arrivals = sorted(self.rng.randrange(START_MS, self.over_ms) for _ in range(self.events))
        self.came = 0
        self.deliverers = [self._deliverer() for _ in range(self.processes)]

    def _deliverer(self) -> Deliverer:
        return Deliverer(
            _Store(self),  # type: ignore[arg-type]
            self,
            self.settings,
            lambda: {"default": DESTINATION},
            random=self.rng.random,
            monotonic_ms=lambda: self.now_ms,
            sleep_ms=self.sleep,
            new_token=lambda: f"{self.rng.getrandbits(64):x}",
        )

    def sleep(self, ms: int) -> None:
        self.now_ms += ms

    # ------------------------------------------------------------------------------------------------------ the play

    def play(self) -> dict[str, Any]:
        """Play from the first event to the last goal; return the counts."""
        turn = 0
        while self.came < self.events or self._open():
            turn += 1
            waits = [deliverer.step() for deliverer in self.deliverers]
            if None not in waits:
                self._pass_time(min(wait for wait in waits if wait is not None))
            if turn % 200 == 0:
                self.deliverers[0].sweep()
            if self.now_ms > self.over_ms + 30 * 24 * HOUR_MS:
                break
        return self._facts()

    def _pass_time(self, wait_ms: int) -> None:
        """A second at most is what the deliverer waits; nothing changes until the next arrival or the next due time."""
        soon = self.raw.execute(_NEXT, (self.now_ms,)).fetchone()[0]
        coming = self.arrivals[self.came] if self.came < self.events else None
        ahead = [time for time in (soon, coming) if time is not None]
        self.now_ms = max(self.now_ms + 1, min(ahead)) if wait_ms >= 1_000 and ahead else self.now_ms + wait_ms
        while self.came < self.events and self.arrivals[self.came] <= self.now_ms:
            self._arrive(self.came)
            self.came += 1

    def _arrive(self, number: int) -> None:
        now = self.arrivals[number]
        event = (number + 1, "stripe", "stripe", "t", 0, now, f"k{number}", "{}", "{}", "routed")
        self.raw.execute(_EVENT, event)
        values = {
            "id": number + 1, "event_id": number + 1, "source": "stripe", "rule_id": "r", "destination": "default",
            "once_key": f"o{number}", "test": 0, "name": "purchase", "description": f"stripe evt_{number}",
            "metadata": "{}", "visitor": f"visitor-{number // 2}", "state": "pending", "happened_at_ms": now,
            "time_is_stated": 1, "ordered_at_ms": now, "created_at_ms": now, "changed_at_ms": now, "due_at_ms": now,
            "expires_at_ms": now + 7 * 24 * HOUR_MS, "wait_ms": 1,
        }  # fmt: skip
        marks = ", ".join("?" * len(values))
        self.raw.execute(f"INSERT INTO goals ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))

    def _open(self) -> int:
        return int(self.raw.execute("SELECT count(*) FROM goals WHERE state NOT IN ('delivered')").fetchone()[0])

    # ----------------------------------------------------------------------------------------------- the destination

    def post(self, destination: Any, route: str, body: Any) -> Outcome:  # noqa: ARG002
        name, description = body["name"], body["description"]
        self.asked_ms.append(self.now_ms)
        self.sent_ms.append(self.now_ms)
        self.now_ms += LATENCY_MS
        if self.now_ms < self.over_ms:
            return KINDS[(self.now_ms - START_MS) // HOUR_MS % len(KINDS)]
        _, at, times = self.recorded.get(description, (name, self.now_ms, 0))
        self.recorded[description] = (name, at, times + 1)
        return Outcome(OutcomeKind.DELIVERED, 200)

    def visitor_goals(self, destination: Any, visitor: str) -> VisitorGoals:  # noqa: ARG002
        self.asked_ms.append(self.now_ms)
        self.now_ms += LATENCY_MS
        if self.now_ms < self.over_ms:
            return VisitorGoals(known=False, failure=KINDS[(self.now_ms - START_MS) // HOUR_MS % len(KINDS)])
        descriptions = [f"stripe evt_{number}" for number in (int(visitor[8:]) * 2, int(visitor[8:]) * 2 + 1)]
        found = [(text, self.recorded[text]) for text in descriptions if text in self.recorded]
        return VisitorGoals(known=bool(found), goals=tuple(CompletedGoal(n, at, text) for text, (n, at, _) in found))

    # ---------------------------------------------------------------------------------------------------- the counts

    def _facts(self) -> dict[str, Any]:
        rate = self.settings.bridge_rate_per_minute
        backlog = sum(at >= self.over_ms for _, at, _ in self.recorded.values())
        drained_ms = max(at for _, at, _ in self.recorded.values()) - self.over_ms
        first_ms = min(at for _, at, _ in self.recorded.values()) - self.over_ms
        asked_since = sum(at >= self.over_ms for at in self.asked_ms)
        return {
            "events": self.events,
            "hours": self.hours,
            "processes": self.processes,
            "lost": self.events - len(self.recorded),
            "doubled": sum(times > 1 for _, _, times in self.recorded.values()),
            "attempts_an_event": round(len(self.sent_ms) / self.events, 4),
            "most_in_a_minute": _most_within(self.asked_ms, 60_000),
            "backlog": backlog,
            "first_goal_after_s": round(first_ms / 1000),
            "drained_min": round(drained_ms / 60_000, 1),
            "against_ideal": round((drained_ms - first_ms) / (asked_since / rate * 60_000), 4),
            "rate": rate,
        }


_NEXT = (
    "SELECT min(due_at_ms) FROM (SELECT max(due_at_ms, not_before_ms) AS due_at_ms FROM goals, destinations"
    " WHERE state IN ('pending', 'unconfirmed') UNION ALL SELECT lease_until_ms FROM goals) WHERE due_at_ms > ?"
)
_EVENT = (
    "INSERT INTO events (id, source, provider, type, test, received_at_ms, dedupe_key, headers, query, state)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _most_within(times: list[int], span_ms: int) -> int:
    """The most requests in any window of this length."""
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - span_ms:
            first += 1
        most = max(most, last - first + 1)
    return most


class _Store:
    """The real store, whose statements take the short way to the driver."""

    def __init__(self, play: Outage) -> None:
        self._play = play

    @contextmanager
    def read(self) -> Iterator[Any]:
        with self._play.store.read() as conn:
            yield Quick(conn, self._play.statements)

    def run(self, work: Callable[[Any], Any]) -> Any:
        return self._play.store.run(lambda conn: work(Quick(conn, self._play.statements)))


def holds(facts: dict[str, Any]) -> bool:
    """Whether no goal was lost or doubled, few attempts were wasted, and the backlog was sent at the rate limit."""
    quick = facts["against_ideal"] <= 1.1 and facts["most_in_a_minute"] <= 60
    return not facts["lost"] and not facts["doubled"] and facts["attempts_an_event"] <= 1.1 and quick


def play(wanted: Plan, say: Callable[[str], None]) -> tuple[bool, dict[str, Any]]:
    """MODE=outage: 24 h for up to 3,000 events, 72 h for more."""
    with silence():
        facts = Outage(wanted.events, 24 if wanted.events <= 3_000 else 72, wanted.seed).play()
    for name, value in facts.items():
        say(f"  {name:<20} {value}")
    return holds(facts), {"mode": "outage", "seed": wanted.seed, **facts}
