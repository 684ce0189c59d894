"""The pause of a destination: one `not_before_ms` and a reason, for throttling, a wrong key or repeated failure.

Nothing is claimed before that time. Then one real goal goes through as the probe: claiming it moves `not_before_ms` to
the end of its lease, so that nothing follows until its answer is known. An answer to a request that was in flight when
the pause began changes nothing. `next_pause` is the pure table of what an answer does; the rest reads and writes it.

Ten different unknown visitors in a row, with no success between them, raise an alarm; they never pause a destination.
While the alarm lasts they are asked about rarely (`bridge.store.delivery.claims`), and their attempts do not count.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import case, delete, select, update

from bridge.masking import fingerprint
from bridge.model import Health, Readiness, Settled
from bridge.store.clock import now_ms, read_ms
from bridge.store.delivery import statements
from bridge.store.schema import destinations, goals, insert, visitor_proofs

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Table

    from bridge.model import Claim, ProofClaim, ReadbackClaim, Settlement

FAILURES_IN_ROW: Final = 5
UNKNOWN_IN_ROW: Final = 10
FIRST_STEP_MS: Final = {"failures": 5_000, "configuration": 30_000}
LAST_STEP_MS: Final = 300_000
RECENT_MS: Final = 1_000  # after a success that was recorded
_DOUBLED_MAX: Final = 20  # a million times the first; the maximum is reached long before


@dataclass(frozen=True, slots=True)
class Pause:
    """The part of a destination's row that answers change."""

    kind: str | None = None
    reason: str | None = None
    not_before_ms: int = 0
    since_ms: int | None = None
    step_ms: int = 0
    failures: int = 0
    unknown_since_ms: int | None = None
    probe_token: str | None = None
    unknown: tuple[str, ...] = ()


_PAUSE_VALUES: Final = len(fields(Pause))


def next_pause(pause: Pause, settlement: Settlement, *, visitor: str, token: str, now: int) -> Pause:
    """What an answer makes of a destination's pause. Pure."""
    if pause.kind is not None and pause.probe_token != token:
        return replace(pause, unknown=(), unknown_since_ms=None) if settlement.health in _KNOWN else pause
    pause = replace(pause, probe_token=None)
    match settlement.health:
        case Health.SUCCESS | Health.KNOWN_VISITOR:
            return Pause()
        case Health.TAKEN | Health.ANSWERED:
            return _answered(pause)
        case Health.UNKNOWN_VISITOR:
            return _unknown(_answered(pause), visitor, now)
        case Health.THROTTLED:
            kind, wait_ms = pause.kind or "throttled", settlement.pause_ms
            return _begin_pause(pause, kind, settlement.message, now, wait_ms, pause.step_ms)
        case Health.CONFIGURATION:
            return _extend(pause, "configuration", settlement.message, now)
        case Health.FAILURE:
            return _failed(pause, settlement, now)
        case Health.SILENT:
            return replace(pause, not_before_ms=min(pause.not_before_ms, now))


_KNOWN: Final = frozenset({Health.SUCCESS, Health.KNOWN_VISITOR})
_TOOK: Final = frozenset({Health.SUCCESS, Health.TAKEN})


def _answered(pause: Pause) -> Pause:
    """It works, although it refused this goal. Only a known visitor ends a run of unknown ones."""
    return Pause(unknown=pause.unknown, unknown_since_ms=pause.unknown_since_ms)


def _unknown(pause: Pause, visitor: str, now: int) -> Pause:
    hashed = fingerprint(visitor)[:16]
    if pause.unknown_since_ms is not None:
        return pause
    streak = pause.unknown if hashed in pause.unknown else (*pause.unknown, hashed)
    return replace(pause, unknown=streak, unknown_since_ms=now if len(streak) >= UNKNOWN_IN_ROW else None)


def _failed(pause: Pause, settlement: Settlement, now: int) -> Pause:
    pause = replace(pause, failures=pause.failures + 1)
    if pause.kind is not None:
        return _extend(pause, pause.kind, pause.reason, now)
    if pause.failures >= FAILURES_IN_ROW:
        reason = f"{pause.failures} attempts in a row failed; the last one: {settlement.message}"
        return _extend(pause, "failures", reason, now)
    return pause


def _extend(pause: Pause, kind: str, reason: str | None, now: int) -> Pause:
    """Begin a pause with the first step, or extend it by twice the last one."""
    first = FIRST_STEP_MS.get(kind, FIRST_STEP_MS["failures"])
    step = first if pause.step_ms == 0 else doubled(pause.step_ms, 1, LAST_STEP_MS)
    return _begin_pause(pause, kind, reason, now, step, step)


def doubled(first_ms: int, times: int, last_ms: int) -> int:
    """The length of a pause that has doubled this many times, up to the maximum."""
    return min(first_ms << min(times, _DOUBLED_MAX), last_ms)


def _begin_pause(pause: Pause, kind: str, reason: str | None, now: int, wait_ms: int, step_ms: int) -> Pause:
    return replace(
        pause,
        kind=kind,
        reason=reason,
        not_before_ms=now + wait_ms,
        since_ms=pause.since_ms if pause.since_ms is not None else now,
        step_ms=step_ms,
    )


# ------------------------------------------------------------------------------------------------- as it is stored


def readiness(conn: Connection, destination: str, *, lock: bool = False) -> Readiness:
    """Whether goals may be sent to this registered destination. lock: keep others from changing its row."""
    return Readiness(*statements.destination(conn, destination, lock=lock))


def none_known(conn: Connection, destination: str, visitor: str) -> bool:
    """Whether none of the last visitors is known, including this one. Locks the row."""
    found = _read(conn, destination)
    return found is not None and _unknown(found.pause, visitor, 0).unknown_since_ms is not None


def learn(
    conn: Connection,
    claim: Claim | ReadbackClaim | ProofClaim,
    settlement: Settlement,
    *,
    server_now_ms: int | None = None,
    trusted_clock: Callable[[Connection], int | None] = read_ms,
) -> Settled:
    """Write what an answer shows about its destination, and how far DataFast's clock is from ours.

    The news says what changed: `paused`, `reopened`; `none_known`, when it does not know the last ten visitors;
    `known`, when it knows one again. server_now_ms: from the answer's `Date`, which has whole seconds. trusted_clock:
    our time (`Timekeeper`).
    """
    destination = claim.destination
    found = _read(conn, destination)
    if found is None:
        return Settled(written=True)
    before, now = found.pause, found.now_ms
    after = next_pause(before, settlement, visitor=claim.visitor, token=claim.token, now=now)
    delivered = settlement.health in _TOOK
    if after != before or (delivered and not _is_recent(found.success_at_ms, now)):
        statements.write_pause(conn, destination, _values(after), now if delivered else None)
    if server_now_ms is not None and (our_now_ms := trusted_clock(conn)) is not None:
        skew_now_ms = server_now_ms - our_now_ms
        if found.skew_ms is None or abs(found.skew_ms - skew_now_ms) > 1_500:
            statements.write_skew(conn, destination, skew_now_ms)
    if before.kind is not None and after.kind is None:
        _exclude_pause(conn, destination, before, now)
    return Settled(written=True, news=_change(before, after), ready=_ready(found, after))


def _is_recent(at_ms: int | None, now: int) -> bool:
    """Whether the last recorded success is recent enough: its time is only read by people."""
    return at_ms is not None and 0 <= now - at_ms < RECENT_MS


def _ready(found: _State, after: Pause) -> Readiness:
    turn_ms = None if after.unknown_since_ms is None else found.unknown_turn_ms
    pausing = after.not_before_ms, after.kind is not None
    return Readiness(*pausing, found.slots, found.now_ms, turn_ms, found.restores, found.looks)


def _change(before: Pause, after: Pause) -> str | None:
    if (before.kind is None) is not (after.kind is None):
        return "reopened" if after.kind is None else "paused"
    if (before.unknown_since_ms is None) is not (after.unknown_since_ms is None):
        return "known" if after.unknown_since_ms is None else "none_known"
    return None


class _State(NamedTuple):
    """A destination's row. skew_ms: DataFast's clock minus ours."""

    pause: Pause
    skew_ms: int | None
    success_at_ms: int | None
    slots: int
    unknown_turn_ms: int | None
    now_ms: int
    restores: str | None
    looks: bool


def _read(conn: Connection, destination: str) -> _State | None:
    """The known state of a destination, and the current time. Locks the row."""
    row = statements.pause(conn, destination)
    if row is None:
        return None
    *values, unknown = row[:_PAUSE_VALUES]
    return _State(Pause(*[*values, tuple(json.loads(unknown))]), *row[_PAUSE_VALUES:])


def _values(pause: Pause) -> tuple[Any, ...]:
    return (*astuple(pause)[:-1], json.dumps(pause.unknown))


def _exclude_pause(conn: Connection, destination: str, pause: Pause, now: int) -> None:
    """Exclude the time for which a destination was paused from the 72 h of its goals."""
    if pause.since_ms is None:
        return
    began = case((goals.c.first_try_at_ms > pause.since_ms, goals.c.first_try_at_ms), else_=pause.since_ms)
    was_tried = goals.c.state.in_(("pending", "unconfirmed")), goals.c.first_try_at_ms.is_not(None)
    affected = update(goals).where(goals.c.destination == destination, *was_tried)
    conn.execute(affected.values(paused_ms=goals.c.paused_ms + (now - began)))


def reopen(conn: Connection, destination: str) -> None:
    """End a pause, because a person says so or because the key has changed."""
    found = _read(conn, destination)
    if found is None or found.pause.kind is None:
        return
    statements.write_pause(conn, destination, _values(Pause()))
    _exclude_pause(conn, destination, found.pause, found.now_ms)


def clock_skew_ms(conn: Connection, destination: str) -> int:
    """DataFast's clock minus ours, in ms; 0 while unknown."""
    found = conn.execute(select(destinations.c.clock_skew_ms).where(destinations.c.name == destination)).scalar()
    return int(found or 0)


def ensure(conn: Connection, destination: str, key_fingerprint: str) -> None:
    """Create a destination's row; a new key ends what the old one caused."""
    is_destination = destinations.c.name == destination
    known = conn.execute(select(destinations.c.key_fingerprint).where(is_destination)).first()
    if known is None:
        insert_once(conn, destinations, {"name": destination, "key_fingerprint": key_fingerprint})
    elif known.key_fingerprint != key_fingerprint:
        reopen(conn, destination)
        _forget_strangers(conn, destination)
        values = {"key_fingerprint": key_fingerprint, "unknown_visitors": "[]", "unknown_since_ms": None}
        conn.execute(update(destinations).where(is_destination).values(**values))


def _forget_strangers(conn: Connection, destination: str) -> None:
    """A new key may belong to another website, so ask again immediately about visitors unknown under the old one.

    A parked goal does not record which unknown visitors of its purchase were passed over, so every parked goal is
    looked at. A goal that was given up because its only visitor was unknown waits again.
    """
    not_known = visitor_proofs.c.destination == destination, visitor_proofs.c.known.is_not(True)
    conn.execute(delete(visitor_proofs).where(*not_known))
    here = goals.c.destination == destination
    unknown = {"unknown_at_ms": 0, "unknown_visitor_tries": 0, "due_at_ms": now_ms()}
    conn.execute(update(goals).where(here, goals.c.state == "pending", goals.c.unknown_at_ms > 0).values(**unknown))
    conn.execute(update(goals).where(here, goals.c.state == "parked").values(due_at_ms=now_ms()))
    given_up = (goals.c.state == "unattributed", goals.c.provenance.is_not(None), goals.c.expires_at_ms > now_ms())
    parked = {"state": "parked", "reason": None, "due_at_ms": now_ms(), "parked_until_ms": now_ms() + goals.c.wait_ms}
    conn.execute(update(goals).where(here, *given_up).values(**parked, changed_at_ms=now_ms()))


def insert_once(conn: Connection, table: Table, values: dict[str, Any]) -> None:
    """Insert a row unless it exists; if two processes do so simultaneously, neither fails."""
    conn.execute(insert(table, conn.dialect.name).values(**values).on_conflict_do_nothing())
