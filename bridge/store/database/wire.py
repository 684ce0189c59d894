"""PostgreSQL's connections, none of which waits for an answer without a limit of our own.

Between the bridge and the server there may be a pooler or a proxy: it goes on acknowledging packets when the server
behind it is gone, so TCP's keep-alives see nothing, and no time limit of the server can reach us. After our own limit
the connection is closed and the caller hears `Unanswered`; nobody knows then whether a COMMIT was done.
Imported only where the database is PostgreSQL.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg

from bridge.store.database import narrow
from bridge.store.database.failures import READ_ONLY

if TYPE_CHECKING:
    from psycopg.abc import PQGen

T = TypeVar("T")

PROMPT_S: Final = 3  # for what takes the server no time: letting us in (at each address that it has), BEGIN, ROLLBACK
_AGAIN_S: Final = 0.25
# How servers and poolers say that they have no connection to spare; there is no code where none was made.
_CROWDED: Final = re.compile(
    r"too many (?:clients|connections|database connections)|connection slots|no more connections|query_wait_timeout"
    r"|max(?:imum)? ?client|max clients|connection limit",
    re.IGNORECASE,
)
_CONNECT_MOST_S: Final = 12  # where the URL has a limit of its own


class Unanswered(psycopg.OperationalError):
    """The database gave no answer in time, and the connection is closed."""

    sqlstate = "08006"  # connection_failure: what the server would say if it could


class Watched(psycopg.Connection[Any]):
    """A connection that closes itself when an answer takes longer than `limit_s`, which its user sets after BEGIN.

    Everything that psycopg waits for on an open connection (statements, BEGIN, COMMIT, ROLLBACK) comes through `wait`.
    """

    limit_s: float = PROMPT_S
    first_answer: Any = None  # whether a commit waits for the disk, as the server has it

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """As psycopg's, with a limit."""
        options.setdefault("timeout", self.limit_s)
        try:
            return super().wait(gen, *args, **options)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 - psycopg has no public name for it
            self.close()  # sends nothing that has to be answered
            raise Unanswered(f"it gave no answer for {self.limit_s:g} s") from None


def connect(*args: Any, **options: Any) -> Watched:
    """A new connection. A time limit of the URL counts as long as it is one."""
    limit_s, most_s = int(options.get("connect_timeout", PROMPT_S)), _CONNECT_MOST_S
    options["connect_timeout"] = limit_s if 0 < limit_s < most_s else most_s
    try:
        return Watched.connect(*args, **options)
    except psycopg.OperationalError as error:
        if READ_ONLY not in str(error) or options.get("target_session_attrs") != "read-write":
            raise
        made = Watched.connect(*args, **{**options, "target_session_attrs": "any"})
        if _takes_writes(made):
            return made
        raise


def _takes_writes(made: Watched) -> bool:
    """Ask the server itself: pgbouncer goes on repeating what it was told once, also when that server was promoted."""
    made.execute("BEGIN")  # if it takes none, pgbouncer is left within it (see `_ended` of the engine)
    row = made.execute("SHOW transaction_read_only").fetchone()
    if row is None or row[0] != "off":
        made.close()
        return False
    made.rollback()
    return True


def connect_patiently(patience_s: float, limit_s: float | None, args: list[Any], options: dict[str, Any]) -> Watched:
    """A new connection that has answered once; a server with none to spare is asked again until patience ends.

    limit_s: for its first answer. A pooler in session mode lets everybody in, and answers when one of its few is free.
    """
    until_s = time.monotonic() + patience_s
    while True:
        try:
            connection = connect(*args, **options)
            try:
                connection.limit_s = limit_s or max(PROMPT_S, until_s - time.monotonic())
                connection.first_answer = connection.execute("SHOW synchronous_commit").fetchone()
            except BaseException:
                connection.close()
                raise
        except psycopg.OperationalError as error:
            if time.monotonic() > until_s or not is_crowded(error):
                raise
            time.sleep(_AGAIN_S)
        else:
            connection.limit_s = PROMPT_S
            narrow.adapt(connection)
            return connection


def is_crowded(error: BaseException | None) -> bool:
    """Whether there was no connection to spare."""
    return _CROWDED.search(str(error)) is not None
