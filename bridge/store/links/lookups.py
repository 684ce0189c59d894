"""The questions put to Stripe, and whose turn it is. Pauses, the rate limit and answers are rows shared by all workers.

A parked goal's turn comes at its `look_up_at_ms`. One worker asks a question, and its answer (even "nothing") is valid
for a day. A problem that affects several questions causes a pause: of everything, of a permission, of an account. It
grows while the problem lasts and ends with the first answer or a new key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, func, literal_column, select, tuple_, update

from bridge.model import Key
from bridge.store import clock
from bridge.store.delivery import claims, pauses
from bridge.store.goals import statements
from bridge.store.schema import events, goals, insert, link_keys, lookup_pauses, lookups, pace

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection

ALL: Final = "all"
_OTHER_KEYS_MAX: Final = 40  # keys of the same purchase to consider, the newest
_MINUTE: Final = 60_000  # ms
# The first and the longest pause for each reason; pauses double.
_STEPS: Final = {
    "rate": (30_000, 15 * _MINUTE),
    "unreachable": (10_000, 10 * _MINUTE),
    "key": (5 * _MINUTE, 60 * _MINUTE),
    "permission": (5 * _MINUTE, 60 * _MINUTE),
    "account": (60 * _MINUTE, 24 * 60 * _MINUTE),
}
DAY_MS: Final = 24 * 60 * _MINUTE
KEPT_MS: Final = 30 * DAY_MS
_LASTING_MS: Final = 5 * _MINUTE  # needs attention: a wrong key's pause starts this long, a slow Stripe's grows to it
_ENDED_RECENTLY_MS: Final = _MINUTE  # its question is about to be asked again, and may begin the next pause


@dataclass(frozen=True, slots=True)
class GoalToLookUp:
    """A parked goal whose turn it is, and the keys to ask about.

    own: keys from its events; thread: others of the same purchase, the newest first.
    """

    goal_id: int
    source: str
    provider: str
    account: str | None
    test: bool
    event_id: int
    event_type: str
    created_at_ms: int
    weak_at_ms: int | None
    parked_until_ms: int
    own: tuple[Key, ...]
    thread: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class LookupPause:
    """Why questions are not asked now. what: `all`, `permission:invoice`, `account:acct_1`."""

    what: str
    until_ms: int
    since_ms: int
    reason: str
    failures: int


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question and its result, as shown to people."""

    key: str
    question: str
    asked_at_ms: int
    again_at_ms: int
    outcome: str | None
    detail: str | None


# --------------------------------------------------------------------------------------------------- the next goals


def any_due(conn: Connection, fingerprint: str) -> bool:
    """Whether there is work. A check without a write, run every second."""
    values = {"now": clock.read_ms(conn), "key": fingerprint}
    return conn.execute(_DUE, values).first() is not None and conn.execute(_ALL_PAUSED, values).first() is None


def due(conn: Connection, limit: int) -> list[GoalToLookUp]:
    """The goals whose turn it is, locked until the transaction ends; goals locked by another worker are left out."""
    rows = conn.execute(_WAITING, {"now": clock.read_ms(conn), "most": limit}).all()
    own = statements.keys_of(conn, [row.goal_id for row in rows])
    return [
        GoalToLookUp(**row._mapping, own=tuple(own_keys), thread=_other_keys(conn, own_keys))  # noqa: SLF001 - public
        for row, own_keys in zip(rows, own.values(), strict=True)
    ]


def _other_keys(conn: Connection, own: Sequence[Key]) -> tuple[Key, ...]:
    """Other keys of the same purchase, the newest first."""
    own_keys = [key.text for key in own if key.strong]
    threads = conn.execute(_THREADS, {"keys": own_keys}).scalars().all() if own_keys else ()
    rows = conn.execute(_THREAD, {"threads": threads, "most": _OTHER_KEYS_MAX + len(own_keys)}) if threads else ()
    return tuple(Key(row.key, row.kind, row.ref) for row in rows if row.key not in own_keys)


def put_off(conn: Connection, goal_id: int, until_ms: int) -> None:
    """Set the time of this goal's next turn."""
    conn.execute(update(goals).where(goals.c.id == goal_id, _IS_PARKED).values(look_up_at_ms=until_ms))


# ------------------------------------------------------------------------------------------------------- questions


def again_at(conn: Connection, keys: Collection[str]) -> dict[tuple[str, str], int]:
    """(key, question) → when it may be asked again, for those already asked."""
    query = select(lookups.c.key, lookups.c.question, lookups.c.again_at_ms).where(lookups.c.key.in_(sorted(keys)))
    return {(row.key, row.question): row.again_at_ms for row in conn.execute(query)}


def begin(conn: Connection, key: str, question: str, goal_id: int, now: int, lease_ms: int) -> bool:
    """Reserve a question for this worker until the lease ends. False: another worker was first."""
    asked = {"goal_id": goal_id, "asked_at_ms": now, "again_at_ms": now + lease_ms}
    statement = (
        insert(lookups, conn.dialect.name)
        .values(key=key, question=question, failures=0, **asked)
        .on_conflict_do_update(
            index_elements=[lookups.c.key, lookups.c.question],
            set_={**asked, "outcome": None},
            where=lookups.c.again_at_ms <= now,
        )
    )
    return conn.execute(statement.returning(lookups.c.key)).first() is not None


def answered(conn: Connection, key: str, question: str, *, outcome: str, detail: str | None, again_at_ms: int) -> None:
    """Write the result of a question."""
    in_a_row = lookups.c.failures + 1 if outcome == "failed" else 0
    values = {"outcome": outcome, "detail": detail, "again_at_ms": again_at_ms, "failures": in_a_row}
    conn.execute(update(lookups).where(*_is(key, question)).values(values))


def failures(conn: Connection, key: str, question: str) -> int:
    """How many times in a row a question failed."""
    return int(conn.execute(select(lookups.c.failures).where(*_is(key, question))).scalar() or 0)


def asked_for_goals(conn: Connection, goal_ids: Sequence[int]) -> dict[int, list[AskedQuestion]]:
    """The questions asked for each of these goals, in order."""
    found: dict[int, list[AskedQuestion]] = {}
    columns = (lookups.c[name] for name in AskedQuestion.__slots__)
    query = select(lookups.c.goal_id, *columns).where(lookups.c.goal_id.in_(goal_ids))
    ordered = query.order_by(lookups.c.asked_at_ms, lookups.c.key)
    for goal_id, *asked in conn.execute(ordered) if goal_ids else ():
        found.setdefault(goal_id, []).append(AskedQuestion(*asked))
    return found


def forget_old(conn: Connection, limit: int, now: int) -> int:
    """Delete questions older than a month; return how many."""
    is_old = lookups.c.again_at_ms <= now - KEPT_MS
    old = select(lookups.c.key, lookups.c.question).where(is_old).order_by(lookups.c.again_at_ms).limit(limit)
    return conn.execute(delete(lookups).where(tuple_(lookups.c.key, lookups.c.question).in_(old), is_old)).rowcount


def _is(key: str, question: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return lookups.c.key == key, lookups.c.question == question


# ---------------------------------------------------------------------------------------------------------- pauses


def paused(conn: Connection, fingerprint: str) -> dict[str, LookupPause]:
    """The current pauses of this key, by what they stop."""
    return {pause.what: pause for pause in _pauses(conn, fingerprint, over_ms=0)}


def lasting_pauses(conn: Connection, fingerprint: str) -> list[LookupPause]:
    """This key's pauses of five minutes or more in total. Those of an account are left out: its owner chose so."""
    return [
        pause
        for pause in _pauses(conn, fingerprint, over_ms=_ENDED_RECENTLY_MS)
        if pause.until_ms >= pause.since_ms + _LASTING_MS and not pause.what.startswith("account:")
    ]


def _pauses(conn: Connection, fingerprint: str, over_ms: int) -> list[LookupPause]:
    """The pauses of this key that last, or ended recently enough."""
    table = lookup_pauses.c
    columns = (table[name] for name in LookupPause.__slots__)
    is_recent = table.until_ms > clock.read_ms(conn) - over_ms
    query = select(*columns).where(table.key_fingerprint == fingerprint, is_recent).order_by(table.what)
    return [LookupPause(*row) for row in conn.execute(query)]


def pause(conn: Connection, what: str, cause: str, reason: str, fingerprint: str, retry_after_ms: int | None) -> int:
    """Pause questions, longer each time; return the end of the pause. what: as in `LookupPause`. cause: of `_STEPS`."""
    now = clock.read_ms(conn)
    row = conn.execute(select(lookup_pauses).where(lookup_pauses.c.what == what).with_for_update()).first()
    same_key = row is not None and row.key_fingerprint == fingerprint
    failures = row.failures + 1 if row is not None and same_key else 1
    first, last = _STEPS[cause]
    until = now + max(pauses.doubled(first, failures - 1, last), retry_after_ms or 0)
    values = {
        "key_fingerprint": fingerprint,
        "until_ms": until,
        "since_ms": row.since_ms if row is not None and same_key else now,
        "reason": reason,
        "failures": failures,
    }
    new = insert(lookup_pauses, conn.dialect.name).values(what=what, **values)
    conn.execute(new.on_conflict_do_update(index_elements=[lookup_pauses.c.what], set_=values))
    return until


def reopen(conn: Connection, what: Collection[str]) -> None:
    """An answer came: end the pauses that it disproves."""
    conn.execute(delete(lookup_pauses).where(lookup_pauses.c.what.in_(sorted(what))))


def take_turn(conn: Connection, fingerprint: str, per_minute: int) -> bool:
    """Take a slot of the rate limit that all workers share; False: not yet."""
    if conn.execute(select(pace.c.token_hash).where(pace.c.token_hash == fingerprint)).first() is None:
        pauses.insert_once(conn, pace, {"token_hash": fingerprint, "next_at_us": 0})
    return claims.reserve(conn, fingerprint, per_minute) == 0


# ------------------------------------------------------------------------------------------------------ statements

# A literal, not a parameter: SQLite uses a partial index only if it can see that the condition matches the index's.
_IS_PARKED: Final = goals.c.state == literal_column("'parked'")
_DUE: Final = select(goals.c.id).where(_IS_PARKED, goals.c.look_up_at_ms <= bindparam("now")).limit(1)
_ALL_PAUSED: Final = select(lookup_pauses.c.what).where(
    lookup_pauses.c.what == ALL,
    lookup_pauses.c.key_fingerprint == bindparam("key"),
    lookup_pauses.c.until_ms > bindparam("now"),
)
_WAITING: Final = (
    select(
        goals.c.id.label("goal_id"),
        *(goals.c[name] for name in ("source", "test", "event_id", "created_at_ms", "weak_at_ms")),
        func.coalesce(goals.c.parked_until_ms, goals.c.created_at_ms).label("parked_until_ms"),
        *(events.c.provider, events.c.account, events.c.type.label("event_type")),
    )
    .join_from(goals, events, events.c.id == goals.c.event_id)
    .where(_IS_PARKED, goals.c.look_up_at_ms <= bindparam("now"))
    .order_by(goals.c.look_up_at_ms, goals.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True, of=goals)
)
_THREADS: Final = (
    select(link_keys.c.thread)
    .distinct()
    .where(link_keys.c.key.in_(bindparam("keys", expanding=True)), link_keys.c.stopped_at_ms.is_(None))
)
_THREAD: Final = (
    select(link_keys.c.key, link_keys.c.kind, link_keys.c.ref)
    .where(link_keys.c.thread.in_(bindparam("threads", expanding=True)), link_keys.c.stopped_at_ms.is_(None))
    .order_by(link_keys.c.created_at_ms.desc(), link_keys.c.key)
    .limit(bindparam("most"))
)
