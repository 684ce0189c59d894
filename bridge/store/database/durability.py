"""Whether an answer 200 may be trusted: does this database have a commit on the disk before it says so?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LAX: Final = "off"
_FULL: Final = (2, 3)  # FULL, EXTRA


def doubt(conn: Connection) -> str | None:
    """Why a commit may be lost when the machine stops, in a sentence; None: it may not."""
    if conn.dialect.name == "sqlite":
        level = conn.execute(text("PRAGMA synchronous")).scalar()
        return None if level in _FULL else "SQLite does not wait for the disk (PRAGMA synchronous is not FULL)"
    if conn.execute(text("SHOW fsync")).scalar() == _LAX:
        return "the server runs with fsync = off: what it acknowledged is lost when its machine stops"
    if conn.execute(text("SELECT setting FROM pg_settings WHERE name = 'synchronous_commit'")).scalar() == _LAX:
        return (
            "synchronous_commit is off on the server; the bridge switches it on for what it acknowledges, but whatever"
            " else uses this database may lose commits"
        )
    return None
