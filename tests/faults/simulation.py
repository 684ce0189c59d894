"""A small world in which everything that can go wrong with a delivery does, decided by a seed.

The SQL is the real one on SQLite, the deliverer is the real one; the clock and DataFast are played. Processes crash
before, inside and after each transaction and around each request; they are stopped for longer than their lease while
the other one works; answers are lost before and after recording. After every commit the invariants are checked, and
at the end, when all is calm again, every goal must have arrived exactly once.

`Violation` names the seed: `python -m pytest tests/faults -k seed --seed=N` plays it again.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete

from bridge import settings as bridge_settings
from bridge import store as bridge_store
from bridge.deliver import Deliverer
from bridge.model import CompletedGoal, Destination, Outcome, OutcomeKind, VisitorGoals
from bridge.store import schema
from bridge.store.schema import attempts, destinations, events, goals, pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge.store import Store

START_MS = 1_790_000_000_000
LEASE_MS = 60_000
DESTINATION = Destination("default", "df_sim")
BUSY = ("sending", "unconfirmed")


class Crash(BaseException):
    """A process ends here and now."""


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass
class Entry:
    visitor: str
    name: str
    description: str
    at_ms: int


@dataclass
class World:
    """One seed's run. `storm` is True while things go wrong."""

    seed: int
    store: Store
    rng: random.Random = field(init=False)
    now_ms: int = START_MS
    storm: bool = True
    entries: list[Entry] = field(default_factory=list)
    requests_ms: list[int] = field(default_factory=list)
    blind: Counter[str] = field(default_factory=Counter)  # looks that ended in doubt, by description
    nested: bool = False
    transitions: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.hold = self.rng.random() < 0.5
        self.descriptions_told = self.rng.random() < 0.7
        self.settings = bridge_settings.load({"BRIDGE_UNCONFIRMED": "hold" if self.hold else "resend"})
        self.workers = [self.new_worker(), self.new_worker()]

    def chance(self, probability: float) -> bool:
        return self.storm and self.rng.random() < probability

    def new_worker(self) -> Deliverer:
        return Deliverer(
            _CrashingStore(self),  # type: ignore[arg-type]
            _Api(self),
            self.settings,
            lambda: {"default": DESTINATION},
            random=self.rng.random,
            monotonic_ms=lambda: self.now_ms,
            new_token=lambda: f"{self.rng.getrandbits(64):x}",
        )

    # ------------------------------------------------------------------------------------------------- the play

    def play(self, turns: int = 14) -> None:
        self.make_goals()
        for _ in range(turns):
            self.turn(self.rng.randrange(2))
        self.storm = False
        for _ in range(150):
            if self.rest():
                break
        self.check_the_end()

    def turn(self, number: int) -> None:
        """One process does one thing; a crash makes it a new process."""
        try:
            if self.rng.random() < 0.2:
                self.workers[number].sweep()
            elif self.workers[number].step() is not None:
                self.pass_time()
        except Crash:
            self.workers[number] = self.new_worker()

    def pass_time(self) -> None:
        self.now_ms += self.rng.choice((300, 2_000, 6_000, 31_000, 61_000))

    def rest(self) -> bool:
        """Calm: sweep, work, let time pass. True when nothing is left to do."""
        if all(row.state in ("delivered", "held", "expired", "rejected") for row in self.rows()):
            return True
        self.workers[0].sweep()
        if self.workers[0].step() is not None:
            self.now_ms += 20_000
        return False

    def other_one_works(self) -> None:
        """A process is stopped (SIGSTOP) for longer than its lease, and the other one goes on meanwhile."""
        if self.nested:
            return
        self.nested = True
        self.now_ms += LEASE_MS + self.rng.choice((1, 5_000, 60_000))
        try:
            self.workers[1].sweep()
            for _ in range(self.rng.choice((0, 2, 5, 10))):
                self.turn(1)
        except Crash:
            self.workers[1] = self.new_worker()
        self.nested = False

    # ------------------------------------------------------------------------------------------------ the goals

    def make_goals(self) -> None:
        with self.store.write() as conn:
            for table in (attempts, goals, events, destinations, pace):
                conn.execute(delete(table))
            for number in range(self.rng.randrange(1, 5)):
                self.make_goal(conn, number)

    def make_goal(self, conn: Any, number: int) -> None:
        ordered_at = self.now_ms - self.rng.randrange(3)
        conn.execute(
            events.insert().values(
                id=number + 1, source="s", provider="stripe", type="t", test=False, received_at_ms=self.now_ms,
                dedupe_key=f"k{number}", headers="{}", query="{}", state="routed",
            )
        )  # fmt: skip
        conn.execute(
            goals.insert().values(
                id=number + 1, event_id=number + 1, source="s", rule_id="r", destination="default",
                once_key=f"o{number}", test=False, name=self.rng.choice(("purchase", "refund")),
                description=f"s evt_{number}", metadata="{}", visitor=f"visitor-{self.rng.randrange(2)}",
                state="pending", happened_at_ms=ordered_at, time_is_stated=True, ordered_at_ms=ordered_at,
                created_at_ms=self.now_ms, changed_at_ms=self.now_ms, due_at_ms=self.now_ms,
                expires_at_ms=self.now_ms + 7 * 86_400_000, wait_ms=1,
            )
        )  # fmt: skip

    def rows(self) -> list[Any]:
        with self.store.read() as conn:
            return list(conn.exec_driver_sql("SELECT * FROM goals ORDER BY id"))

    # ----------------------------------------------------------------------------------------------- invariants

    def check(self) -> None:
        """After every commit."""
        self.transitions += 1
        rows = self.rows()
        sent = Counter(entry.description for entry in self.entries)
        for row in rows:
            arrived, excuse = sent[row.description], self.blind[row.description]
            self.demand(arrived <= 1 + excuse, f"{row.description} arrived {arrived} times")
            self.demand(row.state != "delivered" or arrived >= 1, f"{row.description}: delivered, but it never arrived")
            unsent = row.state in ("pending", "leased")
            self.demand(not unsent or arrived <= excuse, f"{row.description}: {row.state}, but it arrived")
            self.demand(row.state != "leased" or row.lease_token, f"{row.description}: leased by nobody")
        self.demand(len(rows) == len({row.once_key for row in rows}), "a goal was made twice")

    def check_request(self, visitor: str, description: str) -> None:
        """When a request goes out: it was written before, its visitor's earlier goals are through, the pace allows it."""
        rows = self.rows()
        mine = next(row for row in rows if row.description == description)
        with self.store.read() as conn:
            written = conn.exec_driver_sql(
                "SELECT id FROM attempts WHERE goal_id = ? AND lease_token = ?", (mine.id, mine.lease_token)
            ).first()
        self.demand(self.nested or (mine.state == "sending" and written is not None), "sent without an attempt row")
        for row in rows:
            earlier = (row.ordered_at_ms, row.event_id) < (mine.ordered_at_ms, mine.event_id)
            if row.visitor == visitor and row.id != mine.id and earlier:
                self.demand(row.state not in BUSY, f"{description} overtook {row.description} ({row.state})")
        self.count_request()

    def count_request(self) -> None:
        self.requests_ms.append(self.now_ms)
        recent = sum(at > self.now_ms - 60_000 for at in self.requests_ms)
        self.demand(recent <= 60, f"{recent} requests in a minute")
        burst = sum(at > self.now_ms - 1_000 for at in self.requests_ms)
        self.demand(burst <= 3, f"{burst} requests in a second")

    def check_the_end(self) -> None:
        sent = Counter(entry.description for entry in self.entries)
        for row in self.rows():
            if row.state == "held":
                self.demand(self.hold and self.blind[row.description] > 0, f"{row.description} is held without reason")
                continue
            self.demand(row.state == "delivered", f"{row.description} ended {row.state}: {row.message}")
            self.demand(sent[row.description] >= 1, f"{row.description} was lost")

    def demand(self, holds: Any, sentence: str) -> None:
        if not holds:
            raise Violation(f"seed {self.seed}, at {self.now_ms - START_MS} ms: {sentence}")


class _CrashingStore:
    """The real store, in whose every transaction the process may end or be stopped."""

    def __init__(self, world: World) -> None:
        self._world = world

    @contextmanager
    def read(self) -> Iterator[Any]:
        with self._world.store.read() as conn:
            yield conn

    def run(self, work: Callable[[Any], Any]) -> Any:
        world = self._world
        self._incident()

        def with_crash(conn: Any) -> Any:
            result = work(conn)
            if world.chance(0.03):
                raise Crash  # before the commit: nothing of it happened
            return result

        result = world.store.run(with_crash)
        world.check()
        self._incident()
        return result

    def _incident(self) -> None:
        if self._world.chance(0.03):
            raise Crash
        if self._world.chance(0.03):
            self._world.other_one_works()


class _Api:
    """DataFast as it is on a bad day: it records what it is asked to, and its answers may be lost."""

    def __init__(self, world: World) -> None:
        self._world = world

    def post_goal(self, destination: Any, *, visitor: str, name: str, description: str, metadata: Any) -> Outcome:  # noqa: ARG002
        world = self._world
        world.check_request(visitor, description)
        if not world.storm:
            return self._record(visitor, name, description)
        fate = world.rng.random()
        if fate < 0.40:
            return self._record(visitor, name, description)
        if fate < 0.55:
            self._record(visitor, name, description)
            return Outcome(OutcomeKind.UNCONFIRMED, message="recorded, then lost")
        if fate < 0.62:
            return Outcome(OutcomeKind.UNCONFIRMED, message="lost before it was recorded")
        if fate < 0.68:
            self._record(visitor, name, description)
            raise Crash
        if fate < 0.74:
            raise Crash
        if fate < 0.80:
            self._record(visitor, name, description)
            world.other_one_works()  # the answer comes after the lease
            return Outcome(OutcomeKind.DELIVERED, 200)
        if fate < 0.84:
            world.other_one_works()  # the deadline was over before it could be sent
            return Outcome(OutcomeKind.NOT_SENT, message="stopped for too long")
        kind = world.rng.choice(
            (
                OutcomeKind.NOT_SENT,
                OutcomeKind.REFUSED_FOR_NOW,
                OutcomeKind.THROTTLED,
                OutcomeKind.CONFIGURATION,
                OutcomeKind.UNKNOWN_VISITOR,
            )
        )
        return Outcome(kind, retry_after_ms=5_000, message="not now")

    def _record(self, visitor: str, name: str, description: str) -> Outcome:
        self._world.entries.append(Entry(visitor, name, description, self._world.now_ms))
        return Outcome(OutcomeKind.DELIVERED, 200)

    def visitor_goals(self, destination: Any, visitor: str) -> VisitorGoals:  # noqa: ARG002
        world = self._world
        world.count_request()
        if world.chance(0.04):
            raise Crash
        if world.chance(0.04):
            world.other_one_works()
        if world.chance(0.3):
            kind = world.rng.choice((OutcomeKind.UNCONFIRMED, OutcomeKind.NOT_SENT, OutcomeKind.CONFIGURATION))
            if kind is not OutcomeKind.NOT_SENT:
                self._note_blindness(visitor)
            return VisitorGoals(known=False, failure=Outcome(kind, message="could not be read"))
        mine = [entry for entry in world.entries if entry.visitor == visitor]
        found = [
            CompletedGoal(entry.name, entry.at_ms, entry.description if world.descriptions_told else None)
            for entry in mine
        ]
        noise = CompletedGoal("purchase", world.now_ms, None, by_server=False)  # the website's own goal
        return VisitorGoals(known=bool(mine), goals=(*found, noise))

    def _note_blindness(self, visitor: str) -> None:
        """The third look that cannot tell may end in a second sending (`resend`): the one excuse for a double."""
        for row in self._world.rows():
            if row.visitor == visitor and row.state == "unconfirmed" and row.looks >= 2:
                self._world.blind[row.description] += 1


def new_store(world_clock: Callable[[], int]) -> Store:
    """One database for many seeds, in memory: the statements are what is tested, not the disk."""
    made = bridge_store.open("sqlite://", clock=world_clock)
    with made.write() as conn:
        schema.metadata.create_all(conn)
    return made


class Seeds:
    """Plays seeds on one database; its clock is that of the world being played."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.store = new_store(lambda: self.world.now_ms if self.world else START_MS)
        self.transitions = 0

    def play(self, seed: int) -> World:
        self.world = World(seed, self.store)
        self.world.play()
        self.transitions += self.world.transitions
        return self.world
