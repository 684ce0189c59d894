"""The data for `/readyz`, `/status` and `/metrics`, in a few cheap queries.

`require_ready` proves by a write that events can be received. `snapshot` reads what may need attention, by index only,
however many rows there are. `totals` counts everything, including rows that retention deleted, so that counters never
decrease; it scans indexes and is only for the owner. `bridge.alarms` judges all this. Heartbeats tell each process of
the bridge which workers run, and with which rules.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, delete, false, func, literal_column, select

from bridge.errors import SchemaError, StoreUnavailable
from bridge.limits import PAYMENT
from bridge.masking import fingerprint
from bridge.store import facts
from bridge.store.clock import now_ms, read_ms
from bridge.store.database import sqlite
from bridge.store.database.failures import MIGRATE, forbidden
from bridge.store.goals import attribution
from bridge.store.inbox import counters
from bridge.store.inbox.events import OLDEST_UNROUTED
from bridge.store.links import lookups
from bridge.store.migrating import schema_state
from bridge.store.migrations import REVISIONS
from bridge.store.operator import alerting
from bridge.store.schema import attempts, bridge_version, destinations, events, goals, insert, source_counters, workers
from bridge.store.schema import totals as removed
from bridge.store.upkeep import jumps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Column, Connection, Select, Table

    from bridge.store.database.engine import Store
    from bridge.store.goals.attribution import Attribution
    from bridge.store.links.lookups import LookupPause
    from bridge.store.upkeep.jumps import Wait

SEEN_RECENTLY_MS: Final = 30_000  # a running process sends a heartbeat every few seconds
FORGOTTEN_MS: Final = 86_400_000  # a process that was killed is forgotten after a day
_COUNT_MAX: Final = 1_000  # no more than this are counted
_SPAN: Final = 20_000  # ids
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class SourceState:
    """The counters of one source since the database was created.

    row_began_at_ms: the first refusal since the last accepted event. longest_gap_ms: the longest silence between two
    events in the last 30 days or more; None: there were fewer than two.
    """

    source: str
    accepted: int
    duplicates: int
    refused: int
    refused_in_row: int
    last_refusal: str | None
    last_refused_at_ms: int | None
    last_accepted_at_ms: int | None
    row_began_at_ms: int | None = None
    longest_gap_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DestinationState:
    """One destination: its pause, if any (`pause_kind` None: open), and its last success.

    unknown_since_ms: since when it has known none of the last ten different visitors.
    """

    name: str
    pause_kind: str | None
    pause_reason: str | None
    paused_since_ms: int | None
    not_before_ms: int
    failures: int
    last_success_at_ms: int | None
    unknown_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class FailedRules:
    """Events of one source in the last 24 hours for which a rule failed and made no goal, with the newest reason."""

    source: str
    events: int
    reason: str


@dataclass(frozen=True, slots=True)
class AlertTrouble:
    """How many messages to BRIDGE_ALERTS failed, or may have failed, in the last 24 hours, and the newest of them.

    count: up to 100. place: the target, in a form that may be shown.
    """

    count: int
    place: str
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last heartbeat of a process. kind: inline | worker (these route and deliver) | web."""

    id: str
    kind: str
    started_at_ms: int
    seen_at_ms: int
    rules_hash: str | None
    rules_fault: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What may need attention.

    oldest_due_at_ms: for each destination asked for, None if nothing is due; also for destinations no longer
    configured, if something is due. oldest_unrouted_at_ms: of all events. quarantined, held: how many, up to 1,000.
    heartbeats: the processes seen in the last 30 s. lookup_pauses: why Stripe is not asked for five minutes or more.
    forgetting_waits: whether deletion waits, because the clock jumped or may have.
    """

    now_ms: int
    oldest_due_at_ms: Mapping[str, int | None]
    oldest_unrouted_at_ms: int | None
    quarantined: int
    held: int
    destinations: tuple[DestinationState, ...]
    sources: tuple[SourceState, ...]
    heartbeats: tuple[Heartbeat, ...]
    lookup_pauses: tuple[LookupPause, ...] = ()
    failed_rules: tuple[FailedRules, ...] = ()
    forgetting_waits: Wait | None = None
    wrong_tokens: counters.TokenTries = field(default_factory=counters.TokenTries)
    attribution: tuple[Attribution, ...] = ()
    alert_trouble: AlertTrouble | None = None

    @property
    def worker_seen_at_ms(self) -> int | None:
        """When a process that routes and delivers was last seen; None if none was in the last 30 s."""
        return max((beat.seen_at_ms for beat in self.heartbeats if beat.kind != "web"), default=None)


@dataclass(frozen=True, slots=True)
class Totals:
    """The all-time totals.

    events: (source, state, verdict or ""); goals, and of them payments: (destination, state); attempts: (kind, outcome
    or ""); alerts: what became of a message.
    """

    events: Mapping[tuple[str, str, str], int]
    goals: Mapping[tuple[str, str], int]
    attempts: Mapping[tuple[str, str], int]
    payments: Mapping[tuple[str, str], int] = field(default_factory=dict)
    alerts: Mapping[str, int] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------------------- ready


def require_ready(store: Store, *, durable: bool = True) -> None:
    """Raise StoreUnavailable or SchemaError unless an event could be stored now. It writes: only that proves it.

    durable: also wait for the disk.
    """
    try:
        _prove(store, durable=durable)
    except SchemaError:
        schema_state(store)  # its error names the tables, if they are another application's
        raise


def _prove(store: Store, *, durable: bool) -> None:
    with store.write(durable=durable, quick=True) as conn:
        version = conn.execute(select(bridge_version.c.version_num)).scalar()
        if version in REVISIONS[:-1] or version is None:
            raise SchemaError(MIGRATE)
        for statement in _ALLOWED:
            conn.execute(statement)
        if store.dialect == "postgresql" and conn.execute(_NUMBERS).scalar() is False:
            raise StoreUnavailable(forbidden("permission denied for sequence events_id_seq"))
        facts.put(conn, "ready_at_ms", str(read_ms(conn)))


_ALLOWED: Final = (  # what an event needs, applied to no row: privileges are checked all the same
    events.insert().from_select(["source"], select(events.c.source).where(false())),
    events.update().where(false()).values(duplicates=0),
    source_counters.insert().from_select(["source"], select(source_counters.c.source).where(false())),
    source_counters.update().where(false()).values(accepted=0),
)
# Only inserting a row would check the privilege on the sequence that numbers it.
_NUMBERS: Final = select(func.has_sequence_privilege(func.pg_get_serial_sequence("events", "id"), "USAGE, UPDATE"))


def durability_doubt(conn: Connection) -> str | None:
    """Why an acknowledged commit may be lost when the machine stops, as a sentence; None: it cannot be."""
    if conn.dialect.name == "sqlite":
        waits = sqlite.waits_for_disk(conn.connection.driver_connection)
        return None if waits else "SQLite does not wait for the disk (PRAGMA synchronous is not FULL)"
    if conn.execute(select(func.current_setting("fsync"))).scalar() == "off":
        return "the server runs with fsync = off: what it acknowledged is lost when its machine stops"
    if conn.execute(select(func.current_setting("synchronous_commit"))).scalar() == "off":
        return (
            "synchronous_commit is off on the server; the bridge switches it on for what it acknowledges, but whatever"
            " else uses this database may lose commits"
        )
    return None


# --------------------------------------------------------------------------------------------------- heartbeats


def record_heartbeat(conn: Connection, id_: str, *, kind: str, rules_hash: str | None, rules_fault: str | None) -> None:
    """Record that a process is alive and uses these rules. rules_fault: why it refused newer ones."""
    seen = {"seen_at_ms": now_ms(), "rules_hash": rules_hash, "rules_fault": rules_fault}
    new = insert(workers, conn.dialect.name).values(id=id_, kind=kind, started_at_ms=now_ms(), **seen)
    conn.execute(new.on_conflict_do_update(index_elements=[workers.c.id], set_=seen))
    conn.execute(delete(workers).where(workers.c.seen_at_ms < now_ms() - FORGOTTEN_MS))


def record_stop(conn: Connection, id_: str) -> None:
    """Record that a process ended cleanly."""
    conn.execute(delete(workers).where(workers.c.id == id_))


def heartbeats(conn: Connection, within_ms: int) -> list[Heartbeat]:
    """The processes seen within this time, the latest first."""
    query = select(workers).where(workers.c.seen_at_ms >= now_ms() - within_ms).order_by(workers.c.seen_at_ms.desc())
    return [Heartbeat(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name


# --------------------------------------------------------------------------------------------------------- look


def snapshot(conn: Connection, names: Iterable[str], stripe_key: str | None = None) -> Snapshot:
    """What may need attention now. names: the configured destinations."""
    known = destination_states(conn)
    configured = {name: _oldest_due(conn, name) for name in names}
    others = {
        state.name: _oldest_due(conn, state.name) for state in known if configured and state.name not in configured
    }
    now = read_ms(conn)
    troubles = alerting.failures(conn, now - _DAY_MS)
    counted = tuple(SourceState(**row._mapping) for row in conn.execute(_SOURCES))  # noqa: SLF001 - public
    return Snapshot(
        now_ms=now,
        oldest_due_at_ms={**configured, **{name: due for name, due in others.items() if due is not None}},
        oldest_unrouted_at_ms=conn.execute(OLDEST_UNROUTED).scalar(),
        quarantined=_count_capped(conn, events, "quarantined"),
        held=_count_capped(conn, goals, "held"),
        destinations=known,
        sources=counted,
        heartbeats=tuple(heartbeats(conn, SEEN_RECENTLY_MS)),
        lookup_pauses=() if stripe_key is None else tuple(lookups.lasting_pauses(conn, fingerprint(stripe_key))),
        failed_rules=_failed_rules(conn),
        forgetting_waits=jumps.recall(conn).wait,
        wrong_tokens=counters.wrong_tokens(conn),
        attribution=attribution.read(conn, [state.source for state in counted], now) if configured else (),
        alert_trouble=AlertTrouble(len(troubles), *troubles[0]) if troubles else None,
    )


def destination_states(conn: Connection) -> tuple[DestinationState, ...]:
    """Every destination that anything was ever sent to, with its pause."""
    return tuple(DestinationState(**row._mapping) for row in conn.execute(_DESTINATIONS))  # noqa: SLF001 - public


_DESTINATIONS: Final = select(*(destinations.c[name] for name in DestinationState.__dataclass_fields__)).order_by(
    destinations.c.name
)
_GAP, _GAP_BEFORE = source_counters.c.longest_gap_ms, source_counters.c.longest_gap_before_ms
_LONGEST: Final = case((func.coalesce(_GAP, 0) < _GAP_BEFORE, _GAP_BEFORE), else_=_GAP).label("longest_gap_ms")
_SOURCES: Final = select(
    *(source_counters.c[name] for name in SourceState.__dataclass_fields__ if name != "longest_gap_ms"), _LONGEST
).order_by(source_counters.c.source)
_OLDEST_DUE: Final = (
    select(goals.c.due_at_ms)
    .where(goals.c.destination == bindparam("destination"), goals.c.state == bindparam("state"))
    .where(goals.c.due_at_ms <= now_ms())
    .order_by(goals.c.due_at_ms)
    .limit(1)
)


_FAILED: Final = (
    select(events.c.source, events.c.reason)
    .where(events.c.verdict == "unmatched", events.c.reason.is_not(None))
    .where(events.c.received_at_ms > now_ms() - _DAY_MS)
    .order_by(events.c.received_at_ms.desc())
    .limit(_COUNT_MAX)
)


def _failed_rules(conn: Connection) -> tuple[FailedRules, ...]:
    newest: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for source, reason in conn.execute(_FAILED):
        newest.setdefault(source, reason)
        counts[source] += 1
    return tuple(FailedRules(source, counts[source], newest[source]) for source in sorted(newest))


def _oldest_due(conn: Connection, name: str) -> int | None:
    times = [
        conn.execute(_OLDEST_DUE, {"destination": name, "state": state}).scalar()
        for state in ("pending", "unconfirmed")
    ]
    return min((int(time) for time in times if time is not None), default=None)


def _count_capped(conn: Connection, table: Table, state: str) -> int:
    capped = select(table.c.id).where(table.c.state == state).limit(_COUNT_MAX).subquery()
    return int(conn.execute(select(func.count()).select_from(capped)).scalar_one())


# ------------------------------------------------------------------------------------------------------- totals


def totals(conn: Connection) -> Totals:
    """Count everything that ever existed, except what a person had deleted."""
    counts: dict[str, Counter[tuple[str, ...]]] = {}
    for what, columns in COUNTED.items():
        counts[what] = attempts_made(conn) if what == "attempts" else _counted(conn, _counts(columns))
    counts["payments"] = _counted(conn, _counts(COUNTED["goals"]).where(_IS_PAYMENT))
    for row in conn.execute(select(removed)):
        key = (row.a, row.b, row.c)[: len(COUNTED[row.what])]
        counts[row.what][key] += row.removed
        if row.what == "goals" and row.c == PAYMENT:
            counts["payments"][key] += row.removed
    found = {what: dict(counter) for what, counter in counts.items()}
    return Totals(**found, alerts=alerting.counted(conn))  # type: ignore[arg-type]


def attempts_made(conn: Connection) -> Counter[tuple[str, ...]]:
    """The stored attempts by kind and outcome, which no index covers."""
    made = _counts(COUNTED["attempts"]).where(attempts.c.id.between(bindparam("first"), bindparam("last")))
    counts: Counter[tuple[str, ...]] = Counter()
    for span in id_spans(conn, attempts.c.id):
        counts.update(_counted(conn, made, span))
    return counts


def id_spans(conn: Connection, id_: Column[int]) -> Iterator[dict[str, int]]:
    """The `first` and `last` id of one batch of rows after another, until all are covered.

    Grouping all rows at once without an index takes SQLite 80 bytes per row, which the process then keeps.
    """
    query = select(func.min(id_)).where(id_ > bindparam("last"))
    last = 0
    while (first := conn.execute(query, {"last": last}).scalar()) is not None:
        last = first + _SPAN - 1
        yield {"first": first, "last": last}


def _counted(conn: Connection, query: Select[*tuple[Any, ...]], values: Any = None) -> Counter[tuple[str, ...]]:
    return Counter({(*map(str, row[:-1]),): int(row[-1]) for row in conn.execute(query, values)})


# The first condition is the index's, which a parameter would not match.
_IS_PAYMENT: Final = and_(goals.c.kind != literal_column("'goal'"), goals.c.kind == PAYMENT)
# What tells rows apart in the counts. Retention records what it deletes in the same words; for a payment, its kind.
COUNTED: Final[Mapping[str, tuple[Column[str], ...]]] = {
    "events": (events.c.source, events.c.state, events.c.verdict),
    "goals": (goals.c.destination, goals.c.state),
    "attempts": (attempts.c.kind, attempts.c.outcome),
}


def _counts(columns: tuple[Column[str], ...]) -> Select[*tuple[Any, ...]]:
    return select(*(func.coalesce(column, "") for column in columns), func.count()).group_by(*columns)
