"""Whether a destination knows the visitor of a borrowed field: who is to be asked about, and what was answered.

A bare UUID in a field that a site may use for its own user ids is no visitor before the destination has said so. Each
is asked about once (`GET /visitors/{id}`, by whichever worker claims it) and remembered. Nothing here asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, func, select, update

from bridge.store.clock import now_ms
from bridge.store.goals import statements
from bridge.store.schema import visitor_proofs as table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from bridge.model import ProofClaim


def want(conn: Connection, pairs: Iterable[tuple[str, str]], now: int) -> None:
    """Have these (destination, visitor) asked about, unless they were."""
    rows = [(destination, visitor, now, now) for destination, visitor in sorted(set(pairs))]
    statements.ask_about(conn, rows)


def due(conn: Connection, destination: str, now: int) -> str | None:
    """The visitor whose turn it is to be asked about, held until the transaction ends."""
    found = conn.execute(_DUE, {"destination": destination, "now": now}).first()
    return None if found is None else str(found.visitor)


def next_at(conn: Connection, destination: str) -> int | None:
    """When the next one may be asked about; None: nobody is to be."""
    found = conn.execute(_NEXT, {"destination": destination}).scalar()
    return None if found is None else int(found)


def lease(conn: Connection, claim: ProofClaim, until_ms: int) -> int:
    """This worker asks, and nobody else before the lease is over; how often in a row it could not be told."""
    row = conn.execute(_LEASE, {**_whose(claim), "token": claim.token, "until": until_ms}).one()
    return int(row.failures)


def settle(conn: Connection, claim: ProofClaim, known: bool | None, *, again_in_ms: int, message: str) -> bool:
    """Write the answer (None: it could not be told), unless the lease ran out meanwhile."""
    values = {
        **_whose(claim),
        "token": claim.token,
        "answer": known,
        "again_in": again_in_ms,
        "new_message": message or None,
        "failed": int(known is None),
    }
    return conn.execute(_SETTLE, values).first() is not None


def release(conn: Connection, claim: ProofClaim) -> None:
    """Give a lease back (SIGTERM)."""
    conn.execute(_RELEASE, {**_whose(claim), "token": claim.token})


def forget_strangers(conn: Connection, destination: str) -> None:
    """Another key may be another website's: whom the old one did not know is asked about anew."""
    conn.execute(delete(table).where(table.c.destination == destination, table.c.known.is_not(True)))


def trouble(conn: Connection, destination: str, visitor: str) -> str | None:
    """Why the last try to ask about this visitor told nothing."""
    found = conn.execute(_TROUBLE, {"of": destination, "who": visitor}).scalar()
    return None if found is None else str(found)


def _whose(claim: ProofClaim) -> dict[str, Any]:
    return {"of": claim.destination, "who": claim.visitor}


# ---------------------------------------------------------------------------------------------------- statements

_IT: Final = (table.c.destination == bindparam("of"), table.c.visitor == bindparam("who"))
_MINE: Final = (*_IT, table.c.lease_token == bindparam("token"), table.c.known.is_(None))
_DUE: Final = (
    select(table.c.visitor)
    .where(
        table.c.destination == bindparam("destination"),
        table.c.known.is_(None),
        table.c.again_at_ms <= bindparam("now"),
    )
    .order_by(table.c.again_at_ms)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_NEXT: Final = select(func.min(table.c.again_at_ms)).where(
    table.c.destination == bindparam("destination"), table.c.known.is_(None)
)
_LEASE: Final = (
    update(table)
    .where(*_IT)
    .values(lease_token=bindparam("token"), again_at_ms=bindparam("until"))
    .returning(table.c.failures)
)
_SETTLE: Final = (
    update(table)
    .where(*_MINE)
    .values(
        known=bindparam("answer"),
        again_at_ms=now_ms() + bindparam("again_in"),
        message=bindparam("new_message"),
        failures=table.c.failures + bindparam("failed"),
        lease_token=None,
    )
    .returning(table.c.visitor)
)
_RELEASE: Final = update(table).where(*_MINE).values(again_at_ms=now_ms(), lease_token=None)
_TROUBLE: Final = select(table.c.message).where(*_IT, table.c.known.is_(None))
