"""The rate limit of a token: when its next request may go out, by the database's clock.

DataFast counts per token, so every process that uses one takes its slots from the same row (`pace`, GCRA).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, case, select, update

from bridge.store.clock import read_ms
from bridge.store.delivery import pauses
from bridge.store.schema import pace

if TYPE_CHECKING:
    from sqlalchemy import Connection

BURST: Final = 2

# Two processes that want the same token's slot meet in this one row: the second waits for the first and then sees
# the slot taken.
_TAKE_SLOT: Final = (
    update(pace)
    .where(
        pace.c.token_hash == bindparam("of_token"),
        pace.c.next_at_us <= bindparam("now_us") + bindparam("tolerance_us"),
    )
    .values(
        next_at_us=case((pace.c.next_at_us > bindparam("now_us"), pace.c.next_at_us), else_=bindparam("now_us"))
        + bindparam("interval_us")
    )
    .returning(pace.c.next_at_us)
)


def interval_us(rate_per_minute: int) -> int:
    """The pause between two requests of a token, in microseconds, rounded up."""
    return -(-60_000_000 // rate_per_minute)


def take_slot(conn: Connection, token_hash: str, now: int, interval: int) -> int:
    """Take the token's next slot if it is now; else write nothing and say when it will be."""
    tolerance = interval * (BURST - 1)
    slot = {"of_token": token_hash, "now_us": now * 1000, "interval_us": interval, "tolerance_us": tolerance}
    if conn.execute(_TAKE_SLOT, slot).first() is not None:
        return now
    next_at = conn.execute(select(pace.c.next_at_us).where(pace.c.token_hash == token_hash)).scalar_one()
    return max(-((tolerance - int(next_at)) // 1000), now + 1)


def reserve(conn: Connection, token_hash: str, rate: int) -> int:
    """Take a slot of a token's pace for a request that a person asked for (`doctor`); 0: taken, else ms to wait."""
    if conn.execute(select(pace.c.token_hash).where(pace.c.token_hash == token_hash)).first() is None:
        return 0  # no worker has ever used this token
    now = read_ms(conn)
    return take_slot(conn, token_hash, now, interval_us(rate)) - now


def register(conn: Connection, *, destination: str, token_hash: str) -> None:
    """Make the rows of a destination and of its token; a new key ends a pause that the old one caused."""
    pauses.ensure(conn, destination, token_hash)
    exists = conn.execute(select(pace.c.token_hash).where(pace.c.token_hash == token_hash)).first()
    if exists is None:
        pauses.insert_once(conn, pace, {"token_hash": token_hash, "next_at_us": 0})
