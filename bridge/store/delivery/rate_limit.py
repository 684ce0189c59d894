"""The rate limit of a token: when its next request may go out, by the database's clock.

DataFast counts per token, so all processes that use a token take their slots from one row (of `pace`, by GCRA).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.store.clock import read_ms
from bridge.store.delivery import pauses, statements
from bridge.store.schema import pace

if TYPE_CHECKING:
    from sqlalchemy import Connection

BURST: Final = 2


def interval_us(rate_per_minute: int) -> int:
    """The pause between two requests of a token, in microseconds, rounded up."""
    return -(-60_000_000 // rate_per_minute)


def take_slot(
    conn: Connection,
    token_hash: str,
    now: int,
    interval: int,
    counted: tuple[str | None, int | None, str] | None = None,
) -> int:
    """Take the token's next slot if it is now; otherwise write nothing and return when it will be.

    counted: see `statements.take_slot`.
    """
    tolerance = interval * (BURST - 1)
    if statements.take_slot(conn, token_hash, now * 1000, interval, tolerance, counted):
        return now
    next_at = statements.next_slot_us(conn, token_hash)
    assert next_at is not None
    return max(-((tolerance - next_at) // 1000), now + 1)


def reserve(conn: Connection, token_hash: str, rate: int) -> int:
    """Take a slot for a request that a person asked for (`doctor`); 0: taken, else how many ms to wait."""
    if statements.next_slot_us(conn, token_hash) is None:
        return 0  # no worker has ever used this token
    now = read_ms(conn)
    return take_slot(conn, token_hash, now, interval_us(rate)) - now


def register(conn: Connection, *, destination: str, token_hash: str) -> None:
    """Make the rows of a destination and of its token; a new key ends a pause that the old one caused."""
    pauses.ensure(conn, destination, token_hash)
    if statements.next_slot_us(conn, token_hash) is None:
        pauses.insert_once(conn, pace, {"token_hash": token_hash, "next_at_us": 0})
