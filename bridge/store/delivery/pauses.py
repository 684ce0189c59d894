"""The pause of a destination: one `not_before` and a reason, for throttling, wrong keys and repeated failure.

Beside it the row of unknown visitors: ten different ones with no success between are an alarm, never a pause. While it
lasts they are asked about sparingly (`bridge.store.delivery.turns`), and their tries do not count.

While it lies ahead nothing is claimed. Then one real goal goes through as the probe: claiming it moves `not_before`
to the end of its lease, so nobody else follows until its answer is known. `after` is the pure table of what an answer
does; the rest writes it. An answer to a request that was in flight when the pause began changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, case, select, update

from bridge.model import Health
from bridge.store.clock import now_ms, read_ms
from bridge.store.goals import proofs
from bridge.store.schema import destinations, goals
from bridge.store.upsert import insert

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Table

    from bridge.model import Settlement

FAILURES_IN_ROW: Final = 5
UNKNOWN_IN_ROW: Final = 10
FIRST_STEP_MS: Final = {"failures": 5_000, "configuration": 30_000}
LAST_STEP_MS: Final = 300_000


@dataclass(frozen=True, slots=True)
class Door:
    """Whether a destination may be sent to. probing: only one goal may pass, to see whether it works again.

    now_ms: the database's clock when it was looked at. unknown_turn_ms: while none of the last visitors was known, when
    one who was not known may be asked about again; None: some are known.
    """

    not_before_ms: int
    probing: bool
    slots: int
    now_ms: int
    unknown_turn_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """The part of a destination's row that an answer changes."""

    kind: str | None = None
    reason: str | None = None
    not_before_ms: int = 0
    since_ms: int | None = None
    step_ms: int = 0
    failures: int = 0
    unknown: tuple[str, ...] = ()
    unknown_since_ms: int | None = None
    probe_token: str | None = None


def after(pause: Pause, ruling: Settlement, *, visitor: str, token: str, now: int) -> Pause:
    """What an answer makes of a destination. Pure."""
    if pause.kind is not None and pause.probe_token != token:
        return replace(pause, unknown=(), unknown_since_ms=None) if ruling.health in _KNOWN else pause
    pause = replace(pause, probe_token=None)
    match ruling.health:
        case Health.SUCCESS | Health.KNOWN_VISITOR:
            return Pause()
        case Health.TAKEN | Health.ANSWERED:
            return _answered(pause)
        case Health.UNKNOWN_VISITOR:
            return _unknown(_answered(pause), visitor, now)
        case Health.THROTTLED:
            return _close(pause, pause.kind or "throttled", ruling.message, now, ruling.pause_ms, pause.step_ms)
        case Health.CONFIGURATION:
            return _stretch(pause, "configuration", ruling.message, now)
        case Health.FAILURE:
            return _failed(pause, ruling, now)
        case Health.SILENT:
            return replace(pause, not_before_ms=min(pause.not_before_ms, now))


_KNOWN: Final = frozenset({Health.SUCCESS, Health.KNOWN_VISITOR})
_TOOK: Final = frozenset({Health.SUCCESS, Health.TAKEN})


def _answered(pause: Pause) -> Pause:
    """It works, though it refused this goal; only a visitor whom it knows ends a row of unknown ones."""
    return Pause(unknown=pause.unknown, unknown_since_ms=pause.unknown_since_ms)


def _unknown(pause: Pause, visitor: str, now: int) -> Pause:
    seen = fingerprint(visitor)
    if pause.unknown_since_ms is not None:
        return pause
    row = pause.unknown if seen in pause.unknown else (*pause.unknown, seen)
    return replace(pause, unknown=row, unknown_since_ms=now if len(row) >= UNKNOWN_IN_ROW else None)


def _failed(pause: Pause, ruling: Settlement, now: int) -> Pause:
    pause = replace(pause, failures=pause.failures + 1)
    if pause.kind is not None:
        return _stretch(pause, pause.kind, pause.reason, now)
    if pause.failures >= FAILURES_IN_ROW:
        reason = f"{pause.failures} tries in a row failed; the last one: {ruling.message}"
        return _stretch(pause, "failures", reason, now)
    return pause


def _stretch(pause: Pause, kind: str, reason: str | None, now: int) -> Pause:
    """Begin a pause with its first step, or go on with twice the last one."""
    first = FIRST_STEP_MS.get(kind, FIRST_STEP_MS["failures"])
    step = first if pause.step_ms == 0 else min(pause.step_ms * 2, LAST_STEP_MS)
    return _close(pause, kind, reason, now, step, step)


def _close(pause: Pause, kind: str, reason: str | None, now: int, wait_ms: int, step_ms: int) -> Pause:
    return replace(
        pause,
        kind=kind,
        reason=reason,
        not_before_ms=now + wait_ms,
        since_ms=pause.since_ms if pause.since_ms is not None else now,
        step_ms=step_ms,
    )


def fingerprint(text: str) -> str:
    """A short hash: enough to tell texts apart, without keeping them."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --------------------------------------------------------------------------------------------------- statements

_ROW: Final = select(destinations, now_ms().label("now")).where(destinations.c.name == bindparam("destination"))
_ROW_LOCKED: Final = _ROW.with_for_update(of=destinations)


def door(conn: Connection, destination: str) -> Door:
    """May this destination, which is registered, be sent to?"""
    row = conn.execute(_ROW, {"destination": destination}).one()
    turn = None if row.unknown_since_ms is None else row.unknown_turn_at_ms
    return Door(row.not_before_ms, row.pause_kind is not None, row.slots, int(row.now), turn)


def none_known(conn: Connection, destination: str, visitor: str) -> bool:
    """Is, or with this visitor will be, none of the last visitors known? Holds the row until the transaction ends."""
    row = conn.execute(_ROW_LOCKED, {"destination": destination}).first()
    return row is not None and _unknown(_pause_of(row), visitor, 0).unknown_since_ms is not None


def next_unknown(conn: Connection, destination: str, at_ms: int) -> None:
    """One who was not known is asked about now; the next of them not before this time."""
    conn.execute(update(destinations).where(destinations.c.name == destination).values(unknown_turn_at_ms=at_ms))


_COUNT: Final = (
    update(destinations).where(destinations.c.name == bindparam("destination")).values(slots=destinations.c.slots + 1)
)

_PROBE: Final = _COUNT.values(probe_token=bindparam("token"), not_before_ms=bindparam("until"))


def count_slot(conn: Connection, destination: str, probe: tuple[str, int] | None) -> None:
    """Count a slot of the destination; a probe (its token, its lease's end) shuts the door behind it."""
    if probe is None:
        conn.execute(_COUNT, {"destination": destination})
    else:
        conn.execute(_PROBE, {"destination": destination, "token": probe[0], "until": probe[1]})


def learn(conn: Connection, destination: str, ruling: Settlement, *, visitor: str, token: str) -> str | None:
    """Write what an answer says about its destination.

    Returns what changed: `paused`, `reopened`; `none_known`, when it does not know the last ten; `known`, when it does.
    """
    row = conn.execute(_ROW_LOCKED, {"destination": destination}).first()
    if row is None:
        return None
    before = _pause_of(row)
    now = int(row.now)
    then = after(before, ruling, visitor=visitor, token=token, now=now)
    values: dict[str, Any] = {"last_success_at_ms": now} if ruling.health in _TOOK else {}
    if then != before:
        values |= _columns(then)
    if values:
        conn.execute(update(destinations).where(destinations.c.name == destination).values(**values))
    if before.kind is not None and then.kind is None:
        _forgive(conn, destination, before, now)
        return "reopened"
    if before.kind is None and then.kind is not None:
        return "paused"
    if (before.unknown_since_ms is None) is (then.unknown_since_ms is None):
        return None
    return "known" if then.unknown_since_ms is None else "none_known"


def _pause_of(row: Any) -> Pause:
    return Pause(
        row.pause_kind,
        row.pause_reason,
        row.not_before_ms,
        row.paused_since_ms,
        row.pause_step_ms,
        row.failures,
        tuple(json.loads(row.unknown_visitors)),
        row.unknown_since_ms,
        row.probe_token,
    )


def _columns(pause: Pause) -> dict[str, Any]:
    return {
        "pause_kind": pause.kind,
        "pause_reason": pause.reason,
        "not_before_ms": pause.not_before_ms,
        "paused_since_ms": pause.since_ms,
        "pause_step_ms": pause.step_ms,
        "failures": pause.failures,
        "unknown_visitors": json.dumps(list(pause.unknown)),
        "unknown_since_ms": pause.unknown_since_ms,
        "probe_token": pause.probe_token,
    }


def _forgive(conn: Connection, destination: str, pause: Pause, now: int) -> None:
    """The 72 h of a goal do not count the time during which its destination was paused."""
    if pause.since_ms is None:
        return
    began = case(
        (goals.c.first_try_at_ms > pause.since_ms, goals.c.first_try_at_ms),
        else_=pause.since_ms,
    )
    conn.execute(
        update(goals)
        .where(
            goals.c.destination == destination,
            goals.c.state.in_(("pending", "unconfirmed")),
            goals.c.first_try_at_ms.is_not(None),
        )
        .values(paused_ms=goals.c.paused_ms + (now - began))
    )


def release_probe(conn: Connection, destination: str, token: str) -> None:
    """The probe gave its lease back unsent: the next one may go."""
    conn.execute(
        update(destinations)
        .where(destinations.c.name == destination, destinations.c.probe_token == token)
        .values(probe_token=None, not_before_ms=now_ms())
    )


def reopen(conn: Connection, destination: str) -> None:
    """End a pause by hand, or because the key is another one."""
    row = conn.execute(_ROW_LOCKED, {"destination": destination}).first()
    if row is None or row.pause_kind is None:
        return
    conn.execute(update(destinations).where(destinations.c.name == destination).values(**_columns(Pause())))
    _forgive(conn, destination, _pause_of(row), int(row.now))


def learn_clock(
    conn: Connection, destination: str, server_now_ms: int | None, even: Callable[[Connection], int | None] = read_ms
) -> None:
    """Remember how far DataFast's clock is from ours (its `Date` has whole seconds). even: ours (`Timekeeper`)."""
    if server_now_ms is None or (our_now_ms := even(conn)) is None:
        return
    row = conn.execute(_ROW, {"destination": destination}).first()
    if row is None:
        return
    skew = server_now_ms - our_now_ms
    if row.clock_skew_ms is None or abs(row.clock_skew_ms - skew) > 1_500:
        conn.execute(update(destinations).where(destinations.c.name == destination).values(clock_skew_ms=skew))


def clock_skew_ms(conn: Connection, destination: str) -> int:
    """DataFast's clock minus ours, 0 while unknown."""
    found = conn.execute(select(destinations.c.clock_skew_ms).where(destinations.c.name == destination)).scalar()
    return int(found or 0)


def ensure(conn: Connection, destination: str, key_fingerprint: str) -> None:
    """Make a destination's row; a new key ends what the old one caused."""
    row = conn.execute(_ROW, {"destination": destination}).first()
    if row is None:
        insert_once(conn, destinations, {"name": destination, "key_fingerprint": key_fingerprint})
        return
    if row.key_fingerprint != key_fingerprint:
        reopen(conn, destination)
        _forget_strangers(conn, destination)
        values = {"key_fingerprint": key_fingerprint, "unknown_visitors": "[]", "unknown_since_ms": None}
        conn.execute(update(destinations).where(destinations.c.name == destination).values(**values))


def _forget_strangers(conn: Connection, destination: str) -> None:
    """Another key may be another website's: whom the old one did not know is asked about at once.

    A parked goal does not say which strangers of its purchase were passed over, so every one is looked at. One that had
    nothing but a stranger, and so was given up, waits again.
    """
    proofs.forget_strangers(conn, destination)
    here = goals.c.destination == destination
    unknown = {"unknown_at_ms": 0, "unknown_visitor_tries": 0, "due_at_ms": now_ms()}
    conn.execute(update(goals).where(here, goals.c.state == "pending", goals.c.unknown_at_ms > 0).values(**unknown))
    conn.execute(update(goals).where(here, goals.c.state == "parked").values(due_at_ms=now_ms()))
    given_up = (goals.c.state == "unattributed", goals.c.provenance.is_not(None), goals.c.expires_at_ms > now_ms())
    again = {"state": "parked", "reason": None, "due_at_ms": now_ms(), "parked_until_ms": now_ms() + goals.c.wait_ms}
    conn.execute(update(goals).where(here, *given_up).values(**again, changed_at_ms=now_ms()))


def insert_once(conn: Connection, table: Table, values: dict[str, Any]) -> None:
    """Insert a row unless it is there; of two at once, one wins and nobody fails."""
    conn.execute(insert(table, conn.dialect.name).values(**values).on_conflict_do_nothing())
