"""Stored events: claimed for routing under a lease, finished, quarantined, put back.

A claim increments `tries`, which exposes an event whose routing kills the process: after a crash it is claimed alone,
so that no other event suffers, and after three crashes it is quarantined. The lease's token guards every result: a
router that has lost its lease writes nothing. This module has nothing to do with rules: verdict and trace come from the
router.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, func, literal, select, update

from bridge.model import Envelope, Event, EventState, Verdict
from bridge.store.clock import now_ms
from bridge.store.inbox import statements
from bridge.store.schema import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

CRASHES_MAX: Final = 3
CLAIM_BYTES: Final = 2 << 20  # bytes of bodies per claim: reading a document takes several times as much
CRASHED: Final = (
    f"routing this event ended the process {CRASHES_MAX} times; after the cause is fixed,"
    " `events replay` routes it again"
)

# The arrival time of the event that has waited longest for routing.
OLDEST_UNROUTED: Final = (
    select(events.c.received_at_ms).where(events.c.state == "received").order_by(events.c.id).limit(1)
)

_holds_lease = and_(
    events.c.id == bindparam("event_id"), events.c.state == "received", events.c.lease_token == bindparam("token")
)

_QUARANTINE: Final = (
    update(events)
    .where(_holds_lease)
    .values(state="quarantined", reason=bindparam("new_reason"), lease_token=None, lease_until_ms=None)
)

_is_own_lease = events.c.lease_token == bindparam("token")

# A process that releases an event is alive, so the claim did not end in a crash, even if another router holds it now.
_RELEASE: Final = (
    update(events)
    .where(events.c.id.in_(bindparam("chosen", expanding=True)), events.c.state == "received", events.c.tries > 0)
    .values(
        tries=events.c.tries - 1,
        lease_token=case((_is_own_lease, None), else_=events.c.lease_token),
        lease_until_ms=case((_is_own_lease, None), else_=events.c.lease_until_ms),
    )
)


@dataclass(frozen=True, slots=True)
class RoutingResult:
    """How routing an event ended."""

    event_id: int
    verdict: Verdict
    reason: str | None
    trace_json: str | None
    rules_hash: str | None


def claim(conn: Connection, limit: int, token: str, lease_ms: int) -> list[Event]:
    """Lease the oldest events waiting for routing to the holder of the token, in order of arrival."""
    chosen = _choose(statements.waiting(conn, limit))
    if not chosen:
        return []
    rows = statements.claim(conn, chosen, token, lease_ms)
    claimed = sorted(map(event_from_values, rows), key=lambda event: event.id)
    for event in claimed:
        if event.tries > CRASHES_MAX:
            quarantine(conn, event.id, token, CRASHED)
    return [event for event in claimed if event.tries <= CRASHES_MAX]


def _choose(candidates: Sequence[tuple[int, int, int]]) -> list[int]:
    """All up to the first one tried before, or only that one if it is the oldest. Fewer if bodies are large."""
    fresh: list[int] = []
    total = 0
    for event_id, tries, size in candidates:
        total += size
        if tries > 0 or total > CLAIM_BYTES:
            return fresh or [event_id]
        fresh.append(event_id)
    return fresh


def finish_all(conn: Connection, token: str, ends: Sequence[RoutingResult]) -> bool:
    """End the routing of these events. False: at least one lease was lost, so the caller must roll back the batch."""
    values = [(end.verdict.value, end.reason, end.trace_json, end.rules_hash, end.event_id, token) for end in ends]
    return not values or statements.finish(conn, values) == len(values)


def quarantine(conn: Connection, event_id: int, token: str, reason: str) -> bool:
    """Quarantine an event that cannot be routed: it stays visible and can be requeued. False: the lease was lost."""
    return conn.execute(_QUARANTINE, {"event_id": event_id, "token": token, "new_reason": reason}).rowcount == 1


def release(conn: Connection, event_ids: Sequence[int], token: str) -> int:
    """Release leases unrouted (SIGTERM, or an error not caused by the events): the claim is not counted.

    Called once by whoever made the claim, even if its lease has expired. Returns how many of the events still wait for
    routing.
    """
    return conn.execute(_RELEASE, {"chosen": list(event_ids), "token": token}).rowcount


def requeue(conn: Connection, event_id: int) -> bool:
    """Route an event again. Goals it has made stay as they are, because their once keys exist.

    False: there is no such event, its body was deleted (retention), or it is already waiting.
    """
    statement = (
        update(events)
        .where(events.c.id == event_id, events.c.state != "received", events.c.body.is_not(None))
        .values(state="received", tries=0, verdict=None, reason=None, lease_token=None, lease_until_ms=None)
    )
    return conn.execute(statement).rowcount == 1


def ignore(conn: Connection, event_id: int) -> bool:
    """End a quarantine: the event is kept as `ignored`, with the reason why it could not be read or routed.

    False: there is no such event, or it is not in quarantine.
    """
    statement = (
        update(events)
        .where(events.c.id == event_id, events.c.state == "quarantined")
        .values(
            state="routed",
            verdict="ignored",
            reason=literal("set aside by a person: ") + func.coalesce(events.c.reason, ""),
            routed_at_ms=now_ms(),
        )
    )
    return conn.execute(statement).rowcount == 1


def stored_after(conn: Connection, event_id: int, limit: int) -> list[Event]:
    """The next events that still have their bodies, in order of arrival, for processing in batches."""
    stored = select(events).where(events.c.id > event_id, events.c.body.is_not(None)).order_by(events.c.id).limit(limit)
    return [event_from_row(row) for row in conn.execute(stored)]


def event_from_row(row: Row[Any]) -> Event:
    """Convert a row of `events` to the value that routing needs."""
    return event_from_values([row._mapping[name] for name in statements.COLUMNS])  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping


def event_from_values(row: Sequence[Any]) -> Event:
    """Convert values of `statements.COLUMNS` to an event."""
    (id_, source, provider, type_, provider_event_id, stated_at_ms, order_at_ms, test, account, *more) = row
    received_at_ms, state, headers, query, body, tries, verdict, reason, duplicates = more
    return Event(
        id=id_,
        source=source,
        provider=provider,
        envelope=Envelope(type_, provider_event_id, stated_at_ms, order_at_ms, bool(test), account),
        received_at_ms=received_at_ms,
        state=EventState(state),
        headers=json.loads(headers) if headers != "{}" else {},
        query=json.loads(query) if query != "{}" else {},
        body=body,
        tries=tries,
        verdict=None if verdict is None else Verdict(verdict),
        reason=reason,
        duplicates=duplicates,
    )
