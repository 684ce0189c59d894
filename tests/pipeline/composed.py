"""The whole bridge in this process, with the database's clock in the test's hand and a real stand-in for DataFast.

Requests go in through the WSGI application, signed as the providers sign them; events are routed and goals sent by the
bridge's own router and deliverer, a step at a time. Nothing waits: when there is nothing to do yet, the clock moves.
"""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest
from jinja2 import BytecodeCache
from running import ADMIN, KEY, ROOT, SECRETS
from sqlalchemy import event, select

from bridge import app, rulebook, web
from bridge.route import Router
from bridge.sandbox import server, simulator
from bridge.settings import load
from bridge.store import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from conftest import Clock
    from jinja2.bccache import Bucket

    from bridge.rules import RuleSet
    from bridge.sandbox.scenarios import Step

SECOND, DAY = 1_000, 86_400_000
OF_ONE_TEST = ("DATABASE_URL", "DATAFAST_API_URL")  # what no mapping file asks for


class Rulebook(rulebook.Rulebook):
    """Reads the same files with the same settings, and runs their tests, once for all bridges of this process."""

    _sets: ClassVar[dict[Any, RuleSet]] = {}
    _passed: ClassVar[set[int]] = set()  # `_sets` keeps them, so that no other set can have their ids

    def __init__(self, *args: Any, failed_tests: Callable[[RuleSet], Sequence[str]]) -> None:
        def failed_once(rule_set: RuleSet) -> Sequence[str]:
            told = () if id(rule_set) in self._passed else failed_tests(rule_set)
            self._passed.update([] if told else [id(rule_set)])
            return told

        super().__init__(*args, failed_tests=failed_once)

    def _load(self, files: Mapping[str, str]) -> RuleSet:
        given = tuple(sorted((name, text) for name, text in self._environ.items() if name not in OF_ONE_TEST))
        key = (self._folder.name, given, tuple(sorted(files.items())))
        if key not in self._sets:
            self._sets[key] = super()._load(files)
        return self._sets[key]


class Templates(BytecodeCache):
    """Compiles each template once for all bridges of this process."""

    _compiled: ClassVar[dict[str, bytes]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if (code := self._compiled.get(bucket.key)) is not None:
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._compiled[bucket.key] = bucket.bytecode_to_string()


class Composed:
    """A bridge without threads: `post`, `work`, look."""

    def __init__(self, database_url: str, clock: Clock, mappings: Path = ROOT / "mappings", **environ: str) -> None:
        self.clock = clock
        self.datafast = server.start(server.Options(keys=(KEY, "df_test"), known="any", rate_per_minute=0))
        self.environ = {
            "DATABASE_URL": database_url,
            "DATAFAST_API_KEY": KEY,
            "DATAFAST_API_URL": self.datafast.api_url,
            "BRIDGE_MAPPINGS": str(mappings),
            "BRIDGE_RATE_PER_MINUTE": "60000",
            "BRIDGE_ADMIN_TOKEN": ADMIN,
            **SECRETS,
            **environ,
        }
        settings = load(self.environ)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app, "Rulebook", Rulebook)
            self.bridge = app.build(settings, worker=False)
        self._take_the_clock()
        application = web.create(self.bridge)
        application.jinja_env.bytecode_cache = Templates()
        self.client = application.test_client()
        tokens = itertools.count()
        self.router = Router(self.bridge.store, settings, new_token=lambda: f"router-{next(tokens)}")

    def _take_the_clock(self) -> None:
        """On SQLite each connection registers the clock; on PostgreSQL the test database has one (tests/conftest.py).

        And as with PostgreSQL there, a test run need not survive a power cut.
        """
        engine = self.bridge.store.engine
        if self.bridge.store.dialect == "sqlite":
            engine.dispose()

            @event.listens_for(engine, "connect")
            def use(connection: Any, _record: Any) -> None:
                connection.create_function("bridge_now_ms", 0, self.clock)
                connection.execute("PRAGMA synchronous=OFF")

    # ------------------------------------------------------------------------------------------------- what comes

    def post(self, step: Step) -> str:
        """A step of a scenario, signed and posted; what it was answered."""
        signed = simulator.request(step, self.environ[simulator.secret_name(step.source)], int(time.time()))
        answer = self.client.post(f"/webhooks/{step.source}", data=signed.body, headers=dict(signed.headers))
        assert answer.status_code == 200, (step.type, answer.get_data(as_text=True))
        return answer.get_json()["status"]

    def tell(self, steps: Iterable[Step]) -> None:
        """Post each step two seconds after it happened, and let the bridge do what it can at once."""
        for step in steps:
            assert step.at_s * 1000 + DAY >= self.clock.now_ms, "told too late: it would be too old to be sent"
            self.clock.set(max(self.clock.now_ms, step.at_s * 1000 + 2 * SECOND))
            self.post(step)
            self.work()

    # ------------------------------------------------------------------------------------------------- what it does

    def work(self) -> None:
        """Route and send until there is nothing to do now. At most a second goes by, for the pace."""
        while self.router.route_batch(self.bridge.rules, self.bridge.destinations()):
            pass
        end_ms = self.clock.now_ms + SECOND
        while True:
            wait_ms = self.bridge._deliverer.step()
            if wait_ms is not None:
                if self.clock.now_ms >= end_ms:
                    return
                self.clock.set(min(end_ms, self.clock.now_ms + wait_ms))

    def later(self, ms: int) -> None:
        """Time goes by; parked goals are looked at, and what is due is sent."""
        self.clock.advance(ms)
        while self.router.sweep():
            pass
        self.work()

    # ------------------------------------------------------------------------------------------------- what became

    def sent(self) -> list[tuple[str, str]]:
        """(goal, visitor) as DataFast recorded them, oldest first."""
        return [(goal.name, goal.visitor) for goal in self.datafast.world.goals()]

    def goals(self) -> list[Any]:
        with self.bridge.store.read() as conn:
            return list(conn.execute(select(schema.goals).order_by(schema.goals.c.id)).all())

    def goal(self, name: str) -> Any:
        """The one goal of this name, its provenance read."""
        (found,) = [goal for goal in self.goals() if goal.name == name]
        return found

    def provenance(self, name: str) -> dict[str, Any]:
        return json.loads(self.goal(name).provenance)

    def rows(self, table: Any) -> list[Any]:
        with self.bridge.store.read() as conn:
            return list(conn.execute(select(table)).all())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bridge.stop()
        self.datafast.stop()
