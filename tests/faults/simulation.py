"""A small world in which everything that can go wrong with a delivery does, decided by a seed.

The SQL is the real one on SQLite, the deliverer is the real one; the clock and DataFast are played. Processes crash
before, inside and after each transaction and around each request; they are stopped for longer than their lease while
the other one works; answers are lost before and after recording; the database's clock is set ahead and back by seconds
to years. After every commit the invariants are checked, and at the end, when all is calm again (but the clock may still
be wrong), every goal and payment must have arrived exactly once, those of dry rules too; what was held because of the
clock, after one retry by a person.

`Violation` names the seed: `BRIDGE_SEED=N python -m pytest tests/faults -k no_seed` plays it again.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge import settings as bridge_settings
from bridge import store as bridge_store
from bridge.deliver import Deliverer
from bridge.errors import StoreError, StoreUnavailable
from bridge.model import CompletedGoal, Destination, Outcome, OutcomeKind, VisitorGoals
from bridge.store import schema
from bridge.store.operator import actions
from bridge.store.upkeep.timekeeping import Timekeeper
from chaos.quick import Quick, Statements

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from bridge.store import Store

START_MS = 1_790_000_000_000
LEASE_MS = 60_000
DESTINATION = Destination("default", "df_sim")
STEPS_MS = (30_000, 3_540_000, 3_600_000, 86_400_000, 30 * 86_400_000, 500 * 86_400_000, 3_650 * 86_400_000)
GOALS_MAX = 7
PAID = '{"amount": "1", "currency": "USD", "transaction_id": "%d"}'
BUSY = ("sending", "unconfirmed")
ENDED = ("delivered", "held", "expired", "rejected")


class Row(NamedTuple):
    """What the invariants look at."""

    id: int
    event_id: int
    description: str
    visitor: str
    name: str
    state: str
    once_key: str
    lease_token: str | None
    lease_until_ms: int | None
    ordered_at_ms: int
    looks: int
    message: str | None
    reason: str | None
    kind: str


_UNWRITTEN = (
    "SELECT id FROM goals WHERE state = 'sending' AND NOT EXISTS"
    " (SELECT 1 FROM attempts WHERE goal_id = goals.id AND lease_token = goals.lease_token)"
)
_KEPT = "SELECT count(*), sum(body IS NULL) FROM events"
_ROWS = f"SELECT {', '.join(Row._fields)} FROM goals ORDER BY id"


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
    raw: sqlite3.Connection  # the same database, for the play's own questions: SQLAlchemy would cost more than the play
    statements: Statements
    rng: random.Random = field(init=False)
    true_ms: int = START_MS  # DataFast's clock, and every monotonic one
    wrong_ms: int = 0  # how far the database's is ahead of it
    storm: bool = True
    entries: list[Entry] = field(default_factory=list)
    requests_ms: list[int] = field(default_factory=list)
    blind: Counter[str] = field(default_factory=Counter)  # looks that ended in doubt, by description
    forward_ms: list[int] = field(default_factory=list)  # when the clock was set ahead
    nested: bool = False
    transitions: int = 0
    made: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.kinds = random.Random(f"kinds {self.seed}")
        self.mixed = self.kinds.random() < 0.3  # there are payments, and goals of a dry rule
        self.hold = self.rng.random() < 0.5
        self.descriptions_told = self.rng.random() < 0.5
        self.settings = bridge_settings.load({"BRIDGE_UNCONFIRMED": "hold" if self.hold else "resend"})
        self.jumpy = self.rng.random() < 0.5
        self.keepers = [self.new_keeper(), self.new_keeper()]
        self.workers = [self.new_worker(0), self.new_worker(1)]

    @property
    def now_ms(self) -> int:
        """What the database's clock says."""
        return self.true_ms + self.wrong_ms

    def chance(self, probability: float) -> bool:
        return self.storm and self.rng.random() < probability

    def new_keeper(self) -> Timekeeper:
        store: Any = _CrashingStore(self)
        return Timekeeper(store, self.settings, monotonic_ms=lambda: self.true_ms)

    def new_worker(self, number: int) -> Deliverer:
        return Deliverer(
            _CrashingStore(self),  # type: ignore[arg-type]
            _Api(self),
            self.settings,
            lambda: {"default": DESTINATION},
            random=self.rng.random,
            monotonic_ms=lambda: self.true_ms,
            sleep_ms=self.sleep,
            new_token=lambda: f"{self.rng.getrandbits(64):x}",
            steady=self.keepers[number].steady,
            trusted_clock=self.keepers[number].trusted_clock,
            expiry_clock=self.keepers[number].expiry_clock,
        )

    def start_again(self, number: int) -> None:
        """A process ended, and a new one takes its place."""
        self.keepers[number] = self.new_keeper()
        self.workers[number] = self.new_worker(number)

    # ------------------------------------------------------------------------------------------------- the play

    def play(self, turns: int = 14) -> None:
        self.make_goals()
        self.look_in_peace()
        for _ in range(turns):
            self.turn(self.rng.randrange(2))
        self.storm = False
        if self.rng.random() < 0.5:
            self.set_clock(0)
        for _ in range(200):
            if self.rest():
                break
        self.check_the_end()

    def turn(self, number: int) -> None:
        """One process does one thing; a crash makes it a new process."""
        if self.jumpy and self.chance(0.12):
            self.set_clock(self.rng.choice((0, self.rng.choice((-1, 1)) * self.rng.choice(STEPS_MS))))
        if self.jumpy and self.chance(0.05) and self.made < GOALS_MAX:
            self.make_goal(self.made)
        if self.mixed:
            self.send_gathered()
        try:
            self.look(number)
            if self.rng.random() < 0.2:
                self.workers[number].sweep()
            elif self.workers[number].step() is not None:
                self.pass_time()
        except Crash:
            self.start_again(number)
        except StoreError:  # its loop tries again
            self.pass_time()

    def look(self, number: int) -> None:
        """What a process does once a second; the clock may be set just before its next piece of work."""
        keeper = self.keepers[number]
        if not keeper.ready or not self.chance(0.2):
            keeper.check()
        if self.jumpy and self.chance(0.1):
            keeper.forget(30)

    def set_clock(self, wrong_ms: int) -> None:
        """Both processes live to see it: who starts within the second after it cannot tell it from a stop."""
        if wrong_ms > self.wrong_ms:
            self.forward_ms.append(self.true_ms)
        self.look_in_peace()
        self.wrong_ms = wrong_ms
        self.true_ms += 1_000
        self.look_in_peace()

    def look_in_peace(self) -> None:
        storm, self.storm = self.storm, False
        for keeper in self.keepers:
            keeper.check()
        self.storm = storm

    def sleep(self, ms: int) -> None:
        self.true_ms += ms

    def pass_time(self) -> None:
        self.true_ms += self.rng.choice((300, 2_000, 6_000, 31_000, 61_000))

    def rest(self) -> bool:
        """Calm: sweep, work, let time pass until something is due. True when nothing is left to do."""
        rows = self.rows()
        self.keepers[0].check()
        if self.mixed and self.send_gathered(all_=True):
            return False
        if all(row.state in ENDED for row in rows):
            return not self.retry_held(rows)
        self.workers[0].sweep()
        if self.workers[0].step() is not None:
            self.skip_time()
        return False

    def send_gathered(self, *, all_: bool = False) -> bool:
        """A person sends what a dry rule has gathered; whether there was any."""
        dry = [row.id for row in self.rows() if row.state == "dry" and (all_ or self.kinds.random() < 0.1)]
        for goal_id in dry:
            self.store.run(partial(actions.retry if all_ else actions.send_dry, goal_id=goal_id))
        return bool(dry)

    def retry_held(self, rows: list[Row]) -> bool:
        """A person sends what was held because of the clock; whether there was any."""
        held = [row.id for row in rows if row.reason == "clock"]
        for goal_id in held:
            self.store.run(partial(actions.retry, goal_id=goal_id))
        return bool(held)

    def skip_time(self) -> None:
        self.true_ms += max(500, min(self.next_ms() - self.now_ms, 30_000))

    def next_ms(self) -> int:
        """When the next thing is due: a goal, the end of a lease, the end of a pause."""
        times = "SELECT due_at_ms FROM goals WHERE state IN ('pending', 'unconfirmed')"
        times += " UNION ALL SELECT lease_until_ms FROM goals UNION ALL SELECT not_before_ms FROM destinations"
        ahead = f"SELECT min(due_at_ms) FROM ({times}) WHERE due_at_ms > ?"
        return self.raw.execute(ahead, (self.now_ms,)).fetchone()[0] or 0

    def other_one_works(self) -> None:
        """A process is stopped (SIGSTOP) for longer than its lease, and the other one goes on meanwhile."""
        if self.nested:
            return
        self.nested = True
        self.true_ms += LEASE_MS + self.rng.choice((1, 5_000, 60_000))
        try:
            self.workers[1].sweep()
            for _ in range(self.rng.choice((0, 2, 5, 10))):
                self.turn(1)
            for _ in range(self.rng.choice((0, 0, 0, 15))):  # until it has done what the stopped one had begun
                if self.workers[1].step() is not None:
                    self.skip_time()
        except Crash:
            self.start_again(1)
        except StoreError:
            self.pass_time()
        self.nested = False

    # ------------------------------------------------------------------------------------------------ the goals

    def make_goals(self) -> None:
        for table in ("attempts", "goals", "events", "destinations", "pace", "facts"):
            self.raw.execute(f"DELETE FROM {table}")
        for number in range(self.rng.randrange(1, 5)):
            self.make_goal(number)

    def make_goal(self, number: int) -> None:
        self.made += 1
        now, ordered_at = self.now_ms, self.now_ms - self.rng.randrange(3)
        self.insert(
            "events", id=number + 1, source="s", provider="stripe", type="t", test=False, received_at_ms=now,
            dedupe_key=f"k{number}", headers="{}", query="{}", state="routed", body=b"{}",
        )  # fmt: skip
        paid = self.mixed and self.kinds.random() < 0.5
        kept = self.mixed and self.kinds.random() < 0.3
        name = self.rng.choice(("purchase", "refund"))
        self.insert(
            "goals", id=number + 1, event_id=number + 1, source="s", rule_id="r", destination="default",
            once_key=f"o{number}", test=False, name="payment" if paid else name, kind="payment" if paid else "goal",
            description=f"s evt_{number}", metadata=PAID % number if paid else "{}",
            visitor=f"visitor-{self.rng.randrange(2)}", state="dry" if kept else "pending",
            reason="rule" if kept else None,
            happened_at_ms=ordered_at, time_is_stated=True, ordered_at_ms=ordered_at,
            created_at_ms=now, changed_at_ms=now, due_at_ms=now, expires_at_ms=now + 7 * 86_400_000, wait_ms=1,
        )  # fmt: skip

    def insert(self, table: str, **values: object) -> None:
        marks = ", ".join("?" * len(values))
        self.raw.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))

    def rows(self) -> list[Row]:
        return [Row._make(row) for row in self.raw.execute(_ROWS)]

    # ----------------------------------------------------------------------------------------------- invariants

    def check(self) -> None:
        """After every commit."""
        self.transitions += 1
        rows = self.rows()
        sent = Counter(entry.description for entry in self.entries)
        for row in rows:
            arrived, excuse = sent[row.description], self.blind[row.description]
            self.require(arrived <= 1 + excuse, f"{row.description} arrived {arrived} times")
            self.require(
                row.state != "delivered" or arrived >= 1, f"{row.description}: delivered, but it never arrived"
            )
            self.require(row.state != "dry" or arrived == 0, f"{row.description}: dry, but it arrived")
            if row.kind == "payment":  # DataFast takes each once, so it is sent again without a look
                self.require(row.state != "unconfirmed", f"{row.description}: a payment is looked up")
                continue
            unsent = row.state in ("pending", "leased")
            self.require(not unsent or arrived <= excuse, f"{row.description}: {row.state}, but it arrived")
            self.require(row.state != "leased" or row.lease_token, f"{row.description}: leased by nobody")
        unwritten = self.raw.execute(_UNWRITTEN).fetchone()
        self.require(unwritten is None, "a goal is sending without a try under its own lease")
        doubtful = Counter((row.visitor, row.name) for row in rows if row.state in ("leased", *BUSY))
        self.require(
            max(doubtful.values(), default=0) <= 1, "two goals of a visitor and name are under way or in doubt"
        )
        self.require(len(rows) == len({row.once_key for row in rows}), "a goal was made twice")
        kept = self.raw.execute(_KEPT).fetchone()
        self.require(len(rows) == self.made and kept == (self.made, 0), f"something was forgotten: {kept}, {self.made}")

    def check_request(self, visitor: str, description: str) -> None:
        """When a request goes out: it was written down, the visitor's earlier goals are through, the pace allows it."""
        rows = self.rows()
        mine = next(row for row in rows if row.description == description)
        written = self.raw.execute(
            "SELECT id FROM attempts WHERE goal_id = ? AND lease_token = ?", (mine.id, mine.lease_token)
        ).fetchone()
        self.require(self.nested or (mine.state == "sending" and written is not None), "sent without an attempt row")
        for row in rows:
            earlier = (row.ordered_at_ms, row.event_id) < (mine.ordered_at_ms, mine.event_id)
            if row.visitor == visitor and row.id != mine.id and earlier:
                self.require(row.state not in BUSY, f"{description} overtook {row.description} ({row.state})")
        self.count_request()

    def count_request(self) -> None:
        """A clock that is set ahead forgets the slots that were taken, once."""
        self.requests_ms.append(self.true_ms)
        for span_ms, most in ((60_000, 60), (1_000, 3)):
            came, forgot = (
                sum(at > self.true_ms - span_ms for at in times) for times in (self.requests_ms, self.forward_ms)
            )
            self.require(came <= most + 3 * forgot, f"{came} requests in {span_ms} ms")

    def check_the_end(self) -> None:
        sent = Counter(entry.description for entry in self.entries)
        for row in self.rows():
            if row.state == "held":
                self.require(self.hold and self.blind[row.description] > 0, f"{row.description} is held without reason")
                continue
            self.require(row.state == "delivered", f"{row.description} ended {row.state}: {row.message}")
            self.require(sent[row.description] >= 1, f"{row.description} was lost")

    def require(self, holds: Any, sentence: str) -> None:
        if not holds:
            raise Violation(f"seed {self.seed}, at {self.true_ms - START_MS} ms: {sentence}")


class _CrashingStore:
    """The real store, in whose every transaction the process may end or be stopped."""

    dialect = "played"  # there is no log file to be cut

    def __init__(self, world: World) -> None:
        self._world = world

    @contextmanager
    def read(self) -> Iterator[Any]:
        with self._world.store.read() as conn:
            yield Quick(conn, self._world.statements)

    def run(self, work: Callable[[Any], Any]) -> Any:
        world = self._world
        self._incident()

        def with_crash(conn: Any) -> Any:
            result = work(Quick(conn, world.statements))
            if world.chance(0.03):
                raise Crash  # before the commit: nothing of it happened
            if world.chance(0.03):
                raise StoreUnavailable("the database is busy")
            return result

        result = world.store.run(with_crash)
        world.check()
        if world.chance(0.02):
            raise StoreUnavailable("the answer to COMMIT was lost")
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

    def post(self, destination: Any, route: str, body: Any) -> Outcome:
        world, visitor, name = self._world, body["datafast_visitor_id"], body.get("name", "payment")
        description = body["description"] if route == "goals" else f"s evt_{body['transaction_id']}"
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
            return self._answer(OutcomeKind.DELIVERED, 200)
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

    def _answer(self, kind: OutcomeKind, status: int) -> Outcome:
        return Outcome(kind, status, server_now_ms=self._world.true_ms // 1_000 * 1_000)

    def _record(self, visitor: str, name: str, description: str) -> Outcome:
        if name != "payment" or all(entry.description != description for entry in self._world.entries):
            self._world.entries.append(Entry(visitor, name, description, self._world.true_ms))
        return self._answer(OutcomeKind.DELIVERED, 200)

    def visitor_goals(self, destination: Any, visitor: str) -> VisitorGoals:
        world = self._world
        world.count_request()
        if world.chance(0.04):
            raise Crash
        if world.chance(0.1):
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
        noise = CompletedGoal("purchase", world.true_ms, None, by_server=False)  # the website's own goal
        return VisitorGoals(known=bool(mine), goals=(*found, noise), server_now_ms=world.true_ms // 1_000 * 1_000)

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
        self._statements = Statements()
        pooled = self.store.engine.raw_connection()
        self._raw: sqlite3.Connection = pooled.driver_connection
        pooled.close()  # back into the pool, which holds this one connection only

    def play(self, seed: int) -> World:
        self.world = World(seed, self.store, self._raw, self._statements)
        self.world.play()
        self.transitions += self.world.transitions
        return self.world
