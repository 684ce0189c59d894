"""Stored times that keep something waiting, and how far ahead each of them can be set at most.

A clock that was ahead for a moment leaves times behind that lie beyond anything a right clock would have written, and
what waits for them would wait as long as the clock was ahead. Each is brought back once: to now, or, where reaching
it ends a wait, to the latest it can be. Times that only tell what happened are left alone: while a clock is behind,
all of them lie ahead, and to bring them back would make everything old as soon as the clock is right again.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, bindparam, case, exists, func, literal, or_, select, union_all, update

from bridge.store.delivery.pauses import LAST_STEP_MS
from bridge.store.delivery.rate_limit import BURST, interval_us
from bridge.store.delivery.turns import UNKNOWN_SHARE
from bridge.store.schema import (
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
    from sqlalchemy import Column, Connection, Table
    from sqlalchemy.sql.selectable import CompoundSelect

    from bridge.settings import Settings

SLACK_MS: Final = 5_000  # what the clocks of two machines may differ by; a shorter wait ends by itself
RETRY_AFTER_MS: Final = 15 * 60_000  # the longest pause that a destination or Stripe may ask for
LOOKUP_MS: Final = 24 * 3_600_000  # the longest time until a question is asked again, or an account
LOOKUP_PAUSE_MS: Final = 3_600_000  # of anything but an account
JITTER: Final = 1.2  # a pause is lengthened by so much at most

NOW: Final = bindparam("now", type_=BigInteger())


class Correction(NamedTuple):
    """Which rows hold a time that cannot be, and what it becomes. cheap: an index or a small table finds them."""

    name: str
    table: Table
    wrong: ColumnElement[bool]
    right: dict[str, Any]
    cheap: bool = True


class Most(NamedTuple):
    """How far ahead some settings let a time be set."""

    lease_ms: int
    retry_ms: int
    unknown_ms: int
    readback_ms: int
    weak_after_ms: int
    rate_per_minute: int

    @classmethod
    def of(cls, settings: Settings) -> Most:
        """Read from the table of settings."""
        return cls(
            settings.bridge_lease,
            max(settings.bridge_retry_schedule.steps_ms),
            max(settings.bridge_unknown_visitor_schedule.steps_ms),
            max(settings.bridge_readback),
            settings.bridge_weak_after,
            settings.bridge_rate_per_minute,
        )


@cache
def within(most: Most) -> Ahead:
    """What looks for times beyond that."""
    return Ahead(most)


class Ahead:
    """The corrections for some settings."""

    def __init__(self, most: Most) -> None:
        self._all = (*_of_goals(most), *_of_others(most))
        self._found = {cheap: _found([one for one in self._all if one.cheap or not cheap]) for cheap in (True, False)}
        self._updates = {one.name: update(one.table).where(one.wrong).values(**one.right) for one in self._all}

    def any(self, conn: Connection, now: int, *, cheap: bool = True) -> bool:
        """Is a time to be brought back? cheap: as far as that can be told however many rows there are."""
        return conn.execute(self._found[cheap], {"now": now}).first() is not None

    def bring_back(self, conn: Connection, now: int) -> dict[str, int]:
        """Write what is right; how many rows of which column."""
        done = {name: conn.execute(statement, {"now": now}).rowcount for name, statement in self._updates.items()}
        return {name: count for name, count in done.items() if count}


def _found(corrections: list[Correction]) -> CompoundSelect[Any]:
    return union_all(*(select(literal(one.name)).where(exists(_rows(one))) for one in corrections))


def _rows(one: Correction) -> Any:
    return select(literal(1)).select_from(one.table).where(one.wrong)


def _beyond(column: Column[Any], most: int | ColumnElement[int] = 0) -> ColumnElement[bool]:
    return column > NOW + most + SLACK_MS


def _at_most(column: Column[Any], latest: ColumnElement[int]) -> ColumnElement[int]:
    return case((column > latest, latest), else_=column)


def _of_goals(most: Most) -> tuple[Correction, ...]:
    """A goal that was written by a clock ahead keeps the pause it was given; one that waits for a visitor, its wait."""
    lease_ms = most.lease_ms
    longest_ms = max(round(max(most.retry_ms, most.unknown_ms) * JITTER), 3_600_000, most.readback_ms)
    state, due, changed = goals.c.state, goals.c.due_at_ms, goals.c.changed_at_ms
    sent = state.in_(("pending", "unconfirmed"))
    to_send = state.in_(("pending", "leased", "sending", "unconfirmed"))
    parked = state == "parked"
    pause = case((due > changed, NOW + due - changed), else_=NOW)
    wait_over, weak = goals.c.parked_until_ms, goals.c.weak_at_ms
    look_up = goals.c.look_up_at_ms
    return (
        Correction(
            "goals.changed_at_ms",
            goals,
            to_send & _beyond(changed),
            {"due_at_ms": pause, "changed_at_ms": NOW},
            cheap=False,
        ),
        Correction(
            "goals.changed_at_ms of parked ones",
            goals,
            parked & _beyond(changed),
            {"due_at_ms": NOW, "changed_at_ms": NOW, "look_up_at_ms": _at_most(look_up, NOW)},
            cheap=False,
        ),
        Correction("goals.due_at_ms", goals, sent & _beyond(due, longest_ms), {"due_at_ms": NOW}),
        Correction(
            "goals.parked_until_ms",
            goals,
            parked & _beyond(wait_over, goals.c.wait_ms),
            {"parked_until_ms": NOW + goals.c.wait_ms, "due_at_ms": NOW},
            cheap=False,
        ),
        Correction(
            "goals.weak_at_ms",
            goals,
            parked & _beyond(weak, most.weak_after_ms),
            {"weak_at_ms": NOW + most.weak_after_ms, "due_at_ms": NOW},
            cheap=False,
        ),
        Correction(
            "goals.look_up_at_ms",
            goals,
            parked & _beyond(look_up, LOOKUP_MS) & (look_up > func.coalesce(wait_over, 0) + SLACK_MS),
            {"look_up_at_ms": NOW},
            cheap=False,
        ),
        Correction(
            "goals.unknown_at_ms",
            goals,
            (state == "pending") & _beyond(goals.c.unknown_at_ms),
            {"unknown_at_ms": NOW},
            cheap=False,
        ),
        Correction(
            "goals.lease_until_ms",
            goals,
            state.in_(("leased", "unconfirmed")) & _beyond(goals.c.lease_until_ms, lease_ms),
            {"lease_until_ms": NOW},
        ),
        Correction(  # its worker may still be waiting for the answer
            "goals.lease_until_ms of what is being sent",
            goals,
            (state == "sending") & _beyond(goals.c.lease_until_ms, lease_ms),
            {"lease_until_ms": NOW + lease_ms},
        ),
    )


def _of_others(most: Most) -> tuple[Correction, ...]:
    lease_ms = most.lease_ms
    full_us = BURST * interval_us(most.rate_per_minute)
    row = destinations.c
    kept_ms = max(LAST_STEP_MS, lease_ms)
    throttled = row.pause_kind == "throttled"
    shut = case((throttled, max(RETRY_AFTER_MS, kept_ms)), else_=kept_ms)
    unknown_ms = max(most.unknown_ms, lease_ms)
    turn_ms = UNKNOWN_SHARE * full_us // 1000
    until, since = lookup_pauses.c.until_ms, lookup_pauses.c.since_ms
    pause_ms = case((lookup_pauses.c.what.like("account:%"), LOOKUP_MS), else_=LOOKUP_PAUSE_MS)
    asked = lookups.c.asked_at_ms
    return (
        Correction(  # as full as it can be: what was sent just before still counts
            "pace.next_at_us",
            pace,
            pace.c.next_at_us > (NOW + SLACK_MS) * 1000 + full_us,
            {"next_at_us": NOW * 1000 + full_us},
        ),
        Correction(
            "destinations.not_before_ms",
            destinations,
            _beyond(row.not_before_ms, shut) | ((row.not_before_ms > NOW) & _beyond(row.paused_since_ms)),
            {"not_before_ms": NOW},
        ),
        Correction(
            "destinations.paused_since_ms", destinations, _beyond(row.paused_since_ms), {"paused_since_ms": NOW}
        ),
        Correction(
            "destinations.unknown_since_ms", destinations, _beyond(row.unknown_since_ms), {"unknown_since_ms": NOW}
        ),
        Correction(
            "destinations.unknown_turn_at_ms",
            destinations,
            _beyond(row.unknown_turn_at_ms, turn_ms),
            {"unknown_turn_at_ms": NOW},
        ),
        Correction(
            "events.lease_until_ms",
            events,
            (events.c.state == "received") & _beyond(events.c.lease_until_ms, lease_ms),
            {"lease_until_ms": NOW},
            cheap=False,
        ),
        Correction(
            "visitor_proofs.again_at_ms",
            visitor_proofs,
            visitor_proofs.c.known.is_(None) & _beyond(visitor_proofs.c.again_at_ms, unknown_ms),
            {"again_at_ms": NOW},
        ),
        Correction("lookups.again_at_ms", lookups, _beyond(lookups.c.again_at_ms, LOOKUP_MS), {"again_at_ms": NOW}),
        Correction(
            "lookups.asked_at_ms", lookups, _beyond(asked), {"again_at_ms": NOW, "asked_at_ms": NOW}, cheap=False
        ),
        Correction(
            "lookup_pauses.until_ms",
            lookup_pauses,
            or_(_beyond(until, pause_ms), _beyond(since)),
            {"until_ms": NOW, "since_ms": _at_most(since, NOW)},
        ),
        Correction("unknown_visitors.at_ms", unknown_visitors, _beyond(unknown_visitors.c.at_ms), {"at_ms": NOW}),
        Correction("first_messages.at_ms", first_messages, _beyond(first_messages.c.at_ms), {"at_ms": NOW}),
        Correction(
            "workers.seen_at_ms",
            workers,
            _beyond(workers.c.seen_at_ms),
            {"seen_at_ms": NOW, "started_at_ms": _at_most(workers.c.started_at_ms, NOW)},
        ),
    )
