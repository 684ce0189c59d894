"""The composition root: connects the bridge to the real environment, clock, randomness and threads.

`build` makes a Bridge from settings. The web process and the worker start one each, after any fork; commands build
only what they need (`destinations`, `open_store`).
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge import alerts, datafast, loading, logs, mapping_tests, route, sources, store
from bridge.deliver import Deliverer
from bridge.errors import StoreError, StoreUnavailable, UnknownSource
from bridge.lookup.step import STRIPE_URL, Lookup
from bridge.rulebook import Rulebook
from bridge.store.inbox.counters import Refusals
from bridge.store.inbox.first_messages import FirstMessages
from bridge.store.inbox.group_commit import Inbox
from bridge.store.operator import alerting, status
from bridge.store.upkeep.timekeeping import Timekeeper
from bridge.worker import WOKEN_IDLE_S, Chore, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.model import Destination, Source
    from bridge.rules import RuleSet
    from bridge.settings import Settings
    from bridge.store import Store

POOL: Final = {"inline": 5, "worker": 4, "web": 2}  # connections per process, at most (docs/operations.md)
POLL_S: Final = 0.5  # between two looks at the mapping files, and at the database file
HEARTBEAT_S: Final = 5.0
FIRST_MESSAGES_S: Final = 0.25  # a person is waiting for the answer
CLOSE_IDLE_S: Final = 2.0
SWEEP_S: Final = 1.0
UNWOKEN_IDLE_S: Final = 0.2  # in a worker process, where events arrive through another process
RETENTION_S: Final = 60.0
NOT_READY_MS: Final = 20  # how long senders wait for the clock to be checked
SHUT_DOWN_S: Final = 3.0  # to stop within, once work in progress is finished

log = logs.get("app")


class Bridge:
    """One process of the bridge. `start` after the fork, `stop` before the end."""

    def __init__(self, settings: Settings, *, worker: bool, kind: str, stripe_url: str) -> None:
        self.settings = settings
        self.store: Store = store.open(settings.database_url, pool_size=POOL[kind if worker else "web"])
        with suppress(StoreUnavailable):  # whatever needs the database waits while it is down
            store.schema_state(self.store)  # SchemaError if the tables belong to another application
        self.inbox = Inbox(self.store, on_stored=self.wake)
        self.counters = Refusals()
        self.first_messages = FirstMessages()
        self._rulebook = Rulebook(
            Path(settings.bridge_mappings),
            settings.environ,
            sources.presets(),
            self.store,
            failed_tests=lambda rule_set: mapping_tests.failures(rule_set, settings, time.time_ns() // 1_000_000),
        )
        self._id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._kind = kind
        self._client = datafast.Client(settings.datafast_api_url, settings.bridge_deadline)
        self._timekeeper = Timekeeper(self.store, settings, monotonic_ms=_monotonic_ms)
        self._deliverer = Deliverer(
            self.store,
            self._client,
            settings,
            self.destinations,
            random=random.random,
            monotonic_ms=_monotonic_ms,
            sleep_ms=lambda ms: time.sleep(ms / 1000),
            new_token=lambda: secrets.token_hex(16),
            steady=self._timekeeper.steady,
            trusted_clock=self._timekeeper.trusted_clock,
            expiry_clock=self._timekeeper.expiry_clock,
        )
        self._worker = self._build_worker() if worker else None
        looks_up = worker and settings.stripe_api_key is not None
        self._lookup = Lookup(self.store, settings, lambda: self.rules, url=stripe_url) if looks_up else None
        # A separate worker, so that a slow Stripe delays no event and no goal.
        self._lookup_worker = _chore_worker(self._lookup.step) if self._lookup is not None else None
        self._housekeeper = self._build_housekeeper()
        self._notifier = self._build_notifier() if settings.bridge_alerts else None

    # ---------------------------------------------------------------------------------------------- what others read

    @property
    def rules(self) -> RuleSet:
        """The rule set in force."""
        return self._rulebook.current

    @property
    def rules_fault(self) -> str | None:
        """Why the current mapping files were refused; None if they are in force."""
        return self._rulebook.problem

    def poll_rules(self) -> None:
        """Check the mapping files now, for somebody who has just saved them, instead of at the next interval."""
        self._rulebook.poll()

    def source(self, name: str) -> Source:
        """The source of this name. Raises UnknownSource."""
        found = self._rulebook.current.sources.get(name)
        if found is None:
            raise UnknownSource(name)
        return found

    def destinations(self) -> Mapping[str, Destination]:
        """Every destination by its name."""
        return loading.destinations(self.settings, self.rules)

    def now_s(self) -> float:
        """This machine's time, for the tolerance of signed timestamps."""
        return time.time()

    # ------------------------------------------------------------------------------------------------- start and stop

    def start(self) -> None:
        """Start the background threads."""
        self._housekeeper.start()
        for worker in (self._worker, self._lookup_worker, self._notifier):
            if worker is not None:
                worker.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Finish work in progress, return leases, close connections. Ends at most 3 s after `timeout_s`."""
        for helper in (self._lookup_worker, self._notifier):
            if helper is not None:
                helper.stop(0.0)  # it starts nothing more; its work in progress ends while the worker stops
        if self._worker is not None and not self._worker.stop(timeout_s):
            log.warning("stop.unfinished", seconds=timeout_s)
        shutdown = threading.Thread(target=self._shut_down, name="leave", daemon=True)
        shutdown.start()
        shutdown.join(SHUT_DOWN_S)
        if shutdown.is_alive():
            log.warning("stop.unwritten", reason="the database does not answer")

    def _shut_down(self) -> None:
        """Close everything. Runs in a thread of its own: a database may never answer, but the process must end."""
        self._housekeeper.stop(1.0)
        if self._lookup is not None and self._lookup_worker is not None:
            self._lookup_worker.stop(1.0)
            self._lookup.close()
        self._end_alerts()
        self._record_stop()
        self.inbox.close()
        self._client.close()
        self.store.close()

    def wake(self) -> None:
        """An event was stored: the inline worker routes it now."""
        if self._worker is not None:
            self._worker.wake()

    def _wake_senders(self) -> None:
        if self._worker is not None:
            self._worker.wake_senders()

    # --------------------------------------------------------------------------------------------------------- parts

    def _build_worker(self) -> Worker:
        settings = self.settings
        router = route.Router(
            self.store,
            settings,
            new_token=lambda: secrets.token_hex(16),
            on_goals=self._wake_senders,
            expiry_clock=self._timekeeper.expiry_clock,
        )

        def route_batch() -> int:
            self._timekeeper.check()  # first, because other decisions depend on the time
            return router.route_batch(self.rules, self.destinations())

        def deliver(stopping: Callable[[], bool]) -> int | None:
            return self._deliverer.step(stopping) if self._timekeeper.ready else NOT_READY_MS

        return Worker(
            route=route_batch,
            deliver=deliver,
            chores=(
                Chore("sweep", SWEEP_S, self._deliverer.sweep),
                Chore("parked", SWEEP_S, router.sweep),
                Chore("retention", RETENTION_S, lambda: self._timekeeper.forget(settings.bridge_retention_days)),
            ),
            senders=settings.bridge_concurrency,
            idle_s=UNWOKEN_IDLE_S if self._kind == "worker" else WOKEN_IDLE_S,
            monotonic=time.monotonic,
        )

    def _build_housekeeper(self) -> Worker:
        """Build the worker for the chores that every process has, even one that neither routes nor delivers."""
        return _chore_worker(
            lambda: 0,
            (
                Chore("rules", POLL_S, self._rulebook.poll),
                Chore("file", POLL_S, self.store.require_file),
                Chore("first_messages", FIRST_MESSAGES_S, lambda: self.first_messages.flush(self.store)),
                Chore("refusals", 1.0, lambda: self.counters.flush(self.store)),
                Chore("heartbeat", HEARTBEAT_S, self._beat),
                Chore("connections", CLOSE_IDLE_S, self.store.close_idle),
            ),
        )

    def _build_notifier(self) -> Worker:
        """Build a separate worker for alerts, so that an unresponsive target delays nothing else."""
        notifier = alerts.Notifier(
            self.store,
            self.settings,
            process=self._id,
            rules=lambda: (self.rules, self.rules_fault),
            destinations=self.destinations,
            stopping=lambda: self._notifier is None or self._notifier.stopping(),
        )
        return _chore_worker(lambda: 0, (Chore("alerts", alerts.LOOK_S, notifier.step),))

    def _beat(self) -> None:
        kind = self._kind if self._worker is not None or self._kind == "worker" else "web"
        self.store.run(
            lambda conn: status.record_heartbeat(
                conn, self._id, kind=kind, rules_hash=self.rules.hash, rules_fault=self.rules_fault
            )
        )

    def _end_alerts(self) -> None:
        """Stop sending alerts and release this process's turn, so that another process can start immediately."""
        if self._notifier is None or not self._notifier.stop(1.0):
            return
        try:
            self.store.run(lambda conn: alerting.end_turn(conn, self._id))
        except StoreError as error:
            log.warning("stop.unwritten", reason=str(error))

    def _record_stop(self) -> None:
        """Record that this process shut down cleanly, so that it does not count as a vanished worker."""
        try:
            self.counters.flush(self.store)
            self.first_messages.flush(self.store)
            self.store.run(lambda conn: status.record_stop(conn, self._id))
        except StoreError as error:
            log.warning("stop.unwritten", reason=str(error))


def _chore_worker(route: Callable[[], int], chores: tuple[Chore, ...] = ()) -> Worker:
    return Worker(route=route, deliver=lambda _stopping: 1_000, chores=chores, senders=0, monotonic=time.monotonic)


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def build(settings: Settings, *, worker: bool, kind: str = "inline", stripe_url: str = STRIPE_URL) -> Bridge:
    """Assemble one process of the bridge. Raises MappingError, StoreError. stripe_url: the base URL for lookups."""
    return Bridge(settings, worker=worker, kind=kind, stripe_url=stripe_url)
