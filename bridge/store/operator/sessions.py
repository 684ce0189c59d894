"""Who is signed in to the console: one row per browser, the same for every process.

A session ends after a week without a visit, after thirty days, at sign-out, and when the admin token changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, or_, select, update

from bridge.store.clock import now_ms
from bridge.store.schema import sessions

if TYPE_CHECKING:
    from sqlalchemy import Connection

IDLE_MS: Final = 7 * 86_400_000
LONGEST_MS: Final = 30 * 86_400_000
SEEN_MS: Final = 3_600_000  # a visit is recorded once an hour at most, so that most reads write nothing


@dataclass(frozen=True, slots=True)
class Session:
    """proof: shows which admin token opened it. stale: its last visit should be recorded again."""

    proof: str
    notice: str | None
    stale: bool


def begin(conn: Connection, id_: str, proof: str) -> None:
    """Start a session after sign-in, and remove expired ones."""
    conn.execute(delete(sessions).where(_over))
    conn.execute(insert(sessions).values(id=id_, proof=proof, created_at_ms=now_ms(), seen_at_ms=now_ms()))


def find(conn: Connection, id_: str) -> Session | None:
    """The session of a cookie, unless it has expired."""
    stale = (sessions.c.seen_at_ms < now_ms() - SEEN_MS).label("stale")
    row = conn.execute(select(sessions.c.proof, sessions.c.notice, stale).where(sessions.c.id == id_, ~_over)).first()
    return None if row is None else Session(row.proof, row.notice, bool(row.stale))


def touch(conn: Connection, id_: str) -> None:
    """Record a visit."""
    conn.execute(update(sessions).where(sessions.c.id == id_).values(seen_at_ms=now_ms()))


def leave_notice(conn: Connection, id_: str, notice: str | None) -> None:
    """Set the notice that the next page shows once; None: it was shown."""
    conn.execute(update(sessions).where(sessions.c.id == id_).values(notice=notice))


def end(conn: Connection, id_: str) -> None:
    """End a session at sign-out."""
    conn.execute(delete(sessions).where(sessions.c.id == id_))


# A session from the future counts as expired, so that a clock set back makes no session permanent.
_over = or_(
    sessions.c.seen_at_ms < now_ms() - IDLE_MS,
    sessions.c.created_at_ms < now_ms() - LONGEST_MS,
    sessions.c.created_at_ms > now_ms() + LONGEST_MS,
)
