"""Take over what vanished workers left behind, and expire goals that became too old."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, bindparam, case, or_, select, update

from bridge.model import IDEMPOTENT
from bridge.store.clock import now_ms, read_ms
from bridge.store.delivery import statements
from bridge.store.schema import attempts, goals
from bridge.store.upkeep import jumps

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

# What DataFast records once, however often it is sent, is sent again without a look.
_IN_DOUBT: Final = (
    update(goals)
    .where(goals.c.state == "sending", goals.c.lease_until_ms <= now_ms())
    .values(
        state=case((goals.c.kind.in_(IDEMPOTENT), "pending"), else_="unconfirmed"),
        reason="worker_vanished",
        message="the process that was sending it vanished before the answer came",
        due_at_ms=now_ms() + bindparam("settling_ms"),
        attempts=goals.c.attempts + 1,
        looks=0,
        absent=0,
        lease_token=None,
        lease_until_ms=None,
        changed_at_ms=now_ms(),
    )
    .returning(goals.c.id)
)

# When it ended is not known; no other goal of its visitor and name was sent until now.
_VANISHED: Final = (
    update(attempts)
    .where(
        attempts.c.goal_id.in_(bindparam("doubtful", expanding=True)),
        attempts.c.kind == "send",
        attempts.c.outcome.is_(None),
    )
    .values(ended_at_ms=now_ms(), outcome="unconfirmed", message="the process vanished before the answer came")
)

_TOO_OLD: Final = (
    update(goals)
    .where(goals.c.state == "pending", goals.c.expires_at_ms <= bindparam("until"))
    .values(
        state="expired",
        reason="max_age",
        message="it became older than max_age before it could be sent; DataFast would have dated it today",
        changed_at_ms=now_ms(),
    )
    .returning(goals.c.id)
)


def sweep(
    conn: Connection, *, settling_ms: int, judged: Callable[[Connection], int] = read_ms
) -> tuple[list[int], list[int], list[int]]:
    """Take over what vanished workers left; the ids of the goals that are free again, in doubt, and too old.

    judged: the time by which a goal may be given up (`Timekeeper.judged`). Goals that became too old because the clock
    jumped are held.
    """
    free = statements.free_vanished(conn)
    doubtful = [row.id for row in conn.execute(_IN_DOUBT, {"settling_ms": settling_ms})]
    if doubtful:
        conn.execute(_VANISHED, {"doubtful": doubtful})
    gaps = jumps.recall(conn).gaps
    jumps.hold_too_old(conn, gaps)
    # Another process may have made such a goal meanwhile: the next sweep holds it.
    too_old = _TOO_OLD.where(~jumps.grew_too_old(gaps)) if gaps else _TOO_OLD
    old = [row.id for row in conn.execute(too_old, {"until": judged(conn)})]
    return free, doubtful, old


_ANYTHING: Final = (
    select(goals.c.id)
    .where(
        or_(
            and_(goals.c.state.in_(("leased", "sending")), goals.c.lease_until_ms <= now_ms()),
            and_(goals.c.state == "pending", goals.c.expires_at_ms <= now_ms()),
        )
    )
    .limit(1)
)


def anything_to_sweep(conn: Connection) -> bool:
    """Whether `sweep` would find something: a read that saves idle workers a write."""
    return conn.execute(_ANYTHING).first() is not None
