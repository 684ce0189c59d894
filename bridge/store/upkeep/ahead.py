"""Correct stored times that keep something waiting and lie further ahead than they can ever be set.

A clock that was briefly ahead leaves times beyond anything a correct clock would have written, and whatever waits for
them would wait for as long as the clock was ahead. Each is brought back once: to now, or, if reaching it ends a wait,
to the latest it can be. Times that only record what happened are left alone: while a clock is behind, all of them lie
ahead, and bringing them back would make everything seem old as soon as the clock is correct again.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
    update,
)

from bridge.model import TO_SEND
from bridge.store.delivery.claims import BURST, UNKNOWN_SHARE, interval_us
from bridge.store.delivery.pauses import LAST_STEP_MS
from bridge.store.operator.alerting import STALE_MS
from bridge.store.schema import (
    alert_problems,
    alerts,
    destinations,
    events,
    first_messages,
    goals,
    lookup_pauses,
    lookups,
    pace,
    unknown_visitors,
    visitor_proofs,
    workers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column, Connection, Table
    from sqlalchemy.sql.selectable import CompoundSelect

    from bridge.settings import Settings

TOLERANCE_MS: Final = 5_000  # how far two machines' clocks may differ; a shorter wait ends by itself
RETRY_AFTER_MS: Final = 15 * 60_000  # the longest pause that a destination or Stripe may ask for
LOOKUP_MS: Final = 24 * 3_600_000  # the longest time until a question, or an account, is asked again
LOOKUP_PAUSE_MS: Final = 3_600_000  # for anything but an account
JITTER: Final = 1.2  # a pause is lengthened by this factor at most

NOW: Final = bindparam("now", type_=BigInteger())


class Correction(NamedTuple):
    """Which rows hold an impossible time, and what it becomes. cheap: an index or a small table finds them."""

    name: str
    table: Table
    wrong: ColumnElement[bool]
    right: dict[str, Any]
    cheap: bool


@cache
def corrections(settings: Settings) -> Corrections:
    """The corrections for times that lie further ahead than these settings allow."""
    parked = _parked_goal_corrections(settings.bridge_weak_after)
    return Corrections((*_goal_corrections(settings), *parked, *_delivery_corrections(settings), *_other_corrections()))


class Corrections:
    """The corrections for some settings."""

    def __init__(self, rows: tuple[Correction, ...]) -> None:
        self.names = tuple(row.name for row in rows)
        self._found = {cheap: _any_wrong(row for row in rows if row.cheap or not cheap) for cheap in (True, False)}
        self._updates = {row.name: update(row.table).where(row.wrong).values(**row.right) for row in rows}

    def needed(self, conn: Connection, now: int, *, cheap: bool = True) -> bool:
        """Whether a time must be corrected. cheap: only check where the number of rows does not matter."""
        return conn.execute(self._found[cheap], {"now": now}).first() is not None

    def bring_back(self, conn: Connection, now: int) -> dict[str, int]:
        """Correct the times; return how many rows of which column."""
        done = {name: conn.execute(statement, {"now": now}).rowcount for name, statement in self._updates.items()}
        return {name: count for name, count in done.items() if count}


def _any_wrong(rows: Iterator[Correction]) -> CompoundSelect[Any]:
    wrong = ((row, select(literal(1)).select_from(row.table).where(row.wrong)) for row in rows)
    return union_all(*(select(literal(row.name)).where(exists(found)) for row, found in wrong))


def _beyond(column: Column[Any], most: int | ColumnElement[int] = 0) -> ColumnElement[bool]:
    return column > NOW + most + TOLERANCE_MS


def _at_most(column: Column[Any], latest: ColumnElement[int]) -> ColumnElement[int]:
    return case((column > latest, latest), else_=column)


def _correction(
    column: Column[Any],
    most: int | ColumnElement[int] = 0,
    *,
    where: ColumnElement[bool] | None = None,
    right: dict[str, Any] | None = None,
    cheap: bool = True,
    suffix: str = "",
) -> Correction:
    """Set a column that lies further ahead than `most` to now. right: values for other columns, or for itself."""
    name = f"{column.table.name}.{column.name}{suffix}"
    wrong = (true() if where is None else where) & _beyond(column, most)
    return Correction(name, column.table, wrong, {column.name: NOW} | (right or {}), cheap)


def _goal_corrections(settings: Settings) -> Iterator[Correction]:
    """A goal written while the clock was ahead keeps the pause it was given."""
    column, state = goals.c, goals.c.state
    changed, due, lease = column.changed_at_ms, column.due_at_ms, column.lease_until_ms
    pause = case((due > changed, NOW + due - changed), else_=NOW)
    steps_ms = (*settings.bridge_retry_schedule.steps_ms, *settings.bridge_unknown_visitor_schedule.steps_ms)
    longest_ms = max(round(max(steps_ms) * JITTER), 3_600_000, *settings.bridge_readback)
    lease_ms = settings.bridge_lease
    to_send = state.in_(TO_SEND)
    yield _correction(changed, where=to_send, right={"due_at_ms": pause}, cheap=False)
    yield _correction(due, longest_ms, where=state.in_(("pending", "unconfirmed")))
    yield _correction(column.unknown_at_ms, where=state == "pending", cheap=False)
    yield _correction(lease, lease_ms, where=state.in_(("leased", "unconfirmed")))
    waits = {"lease_until_ms": NOW + lease_ms}  # its worker may still be waiting for the answer
    yield _correction(lease, lease_ms, where=state == "sending", right=waits, suffix=" of what is being sent")


def _parked_goal_corrections(weak_after_ms: int) -> Iterator[Correction]:
    """A goal that waits for a visitor keeps its wait."""
    column, parked = goals.c, goals.c.state == "parked"
    over, weak, look_up = column.parked_until_ms, column.weak_at_ms, column.look_up_at_ms
    right = {"due_at_ms": NOW, "look_up_at_ms": _at_most(look_up, NOW)}
    yield _correction(column.changed_at_ms, where=parked, right=right, cheap=False, suffix=" of parked ones")
    right = {"parked_until_ms": NOW + column.wait_ms, "due_at_ms": NOW}
    yield _correction(over, column.wait_ms, where=parked, right=right, cheap=False)
    right = {"weak_at_ms": NOW + weak_after_ms, "due_at_ms": NOW}
    yield _correction(weak, weak_after_ms, where=parked, right=right, cheap=False)
    later = parked & (look_up > func.coalesce(over, 0) + TOLERANCE_MS)
    yield _correction(look_up, LOOKUP_MS, where=later, cheap=False)


def _delivery_corrections(settings: Settings) -> Iterator[Correction]:
    """The times that the rate limit, the destinations, the router and visitor proofs wait for."""
    lease_ms, rate = settings.bridge_lease, settings.bridge_rate_per_minute
    full_us = BURST * interval_us(rate)  # as full as it can be, because what was just sent counts
    full = pace.c.next_at_us > (NOW + TOLERANCE_MS) * 1000 + full_us
    yield Correction("pace.next_at_us", pace, full, {"next_at_us": NOW * 1000 + full_us}, cheap=True)
    column = destinations.c
    kept_ms = max(LAST_STEP_MS, lease_ms)
    paused_ms = case((column.pause_kind == "throttled", max(RETRY_AFTER_MS, kept_ms)), else_=kept_ms)
    began_ahead = (column.not_before_ms > NOW) & _beyond(column.paused_since_ms)
    wrong = _beyond(column.not_before_ms, paused_ms) | began_ahead
    yield Correction("destinations.not_before_ms", destinations, wrong, {"not_before_ms": NOW}, cheap=True)
    yield _correction(column.paused_since_ms)
    yield _correction(column.unknown_since_ms)
    yield _correction(column.unknown_turn_at_ms, UNKNOWN_SHARE * full_us // 1000)
    yield _correction(events.c.lease_until_ms, lease_ms, where=events.c.state == "received", cheap=False)
    open_ms = max(*settings.bridge_unknown_visitor_schedule.steps_ms, lease_ms)
    yield _correction(visitor_proofs.c.again_at_ms, open_ms, where=visitor_proofs.c.known.is_(None))


def _other_corrections() -> Iterator[Correction]:
    """Times that no setting affects: of lookups, and of what is remembered for a while."""
    yield _correction(lookups.c.again_at_ms, LOOKUP_MS)
    yield _correction(lookups.c.asked_at_ms, right={"again_at_ms": NOW}, cheap=False)
    until, since = lookup_pauses.c.until_ms, lookup_pauses.c.since_ms
    pause_ms = case((lookup_pauses.c.what.like("account:%"), LOOKUP_MS), else_=LOOKUP_PAUSE_MS)
    right = {"until_ms": NOW, "since_ms": _at_most(since, NOW)}
    wrong = or_(_beyond(until, pause_ms), _beyond(since))
    yield Correction("lookup_pauses.until_ms", lookup_pauses, wrong, right, cheap=True)
    for column in (alert_problems.c.began_at_ms, alert_problems.c.gone_at_ms, alert_problems.c.told_at_ms):
        yield _correction(column)
    yield _correction(alerts.c.due_at_ms, STALE_MS, where=alerts.c.state == "due")
    yield _correction(alerts.c.changed_at_ms, where=alerts.c.state == "sending")
    yield _correction(unknown_visitors.c.at_ms)
    yield _correction(first_messages.c.at_ms)
    yield _correction(workers.c.seen_at_ms, right={"started_at_ms": _at_most(workers.c.started_at_ms, NOW)})
