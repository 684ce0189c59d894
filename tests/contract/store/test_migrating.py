"""A database is brought to the tables of this release, once, by whoever comes first."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from urllib.parse import quote

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, insert, inspect, select, text

from bridge import store as bridge_store
from bridge.errors import SchemaError
from bridge.settings import database_url
from bridge.store import migrating, schema
from bridge.store.migrations import REVISIONS
from bridge.store.operator import status


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    """A database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.db'}"
        return
    postgres = request.getfixturevalue("postgres")
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def empty(empty_url):
    made = bridge_store.open(empty_url)
    yield made
    made.close()


def test_the_migrations_make_exactly_the_tables_of_the_schema(empty):
    with empty.write() as conn:
        migrating._run_alembic(conn)
    with empty.read() as conn:
        context = MigrationContext.configure(
            conn, opts={"compare_server_default": True, "version_table": "bridge_version"}
        )
        assert compare_metadata(context, schema.with_dialect_options("sqlite", "postgresql")) == []


DEFINITIONS = {
    "sqlite": "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name",
    "postgresql": """
        SELECT table_name, column_name, data_type, is_nullable, column_default, ordinal_position::text
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION SELECT tablename, indexname, indexdef, '', '', '' FROM pg_indexes WHERE schemaname = 'public'
        UNION SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', ''
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        ORDER BY 1, 2, 3""",
}


class Unwanted(Exception):
    """Ends a transaction so that nothing of it stays."""


def definitions(opened, make):
    """What the database says of the tables that `make` made; they are not kept."""
    with suppress(Unwanted), opened.write() as conn:
        make(conn)
        found = [" ".join(map(str, row)) for row in conn.execute(text(DEFINITIONS[opened.dialect]))]
        versions = conn.execute(text("SELECT version_num FROM bridge_version")).scalars().all()
        raise Unwanted
    parts = sorted(sorted("".join(line.split()).removesuffix(")").split(",")) for line in found)  # in whatever order
    return parts, versions


WRITTEN = """
import sys
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from bridge.store import schema

for dialect in sys.argv[1:]:
    schema.with_dialect_options(dialect)  # as making the tables there does
with create_engine("sqlite://").connect() as nothing:
    made = produce_migrations(MigrationContext.configure(nothing), schema.with_dialect_options("sqlite", "postgresql"))
print(render_python_code(made.upgrade_ops))
"""


def written_after(*dialects):
    """A migration of all tables, written by a process that has used these databases."""
    return subprocess.run([sys.executable, "-c", WRITTEN, *dialects], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def written_alone():
    return written_after()


@pytest.mark.parametrize(
    "used", ["postgresql sqlite", *(pytest.param(one, marks=pytest.mark.long) for one in ("sqlite", "postgresql"))]
)
def test_a_migration_is_written_the_same_whichever_databases_tables_were_made_before(written_alone, used):
    assert written_alone.count("sqlite_where") == written_alone.count("postgresql_where") > 5
    assert written_after(*used.split()) == written_alone


def test_an_empty_database_gets_what_all_migrations_make(empty):
    at_once, step_by_step = (definitions(empty, way) for way in (migrating._create, migrating._run_alembic))
    assert len(at_once[0]) > 40
    assert at_once == step_by_step


def test_tables_without_a_version_are_no_empty_database(empty):
    bridge_store.migrate(empty)
    with empty.write() as conn:
        conn.execute(text("DELETE FROM bridge_version"))
    with pytest.raises(SchemaError, match="does not name their release"):
        bridge_store.migrate(empty)
    with pytest.raises(SchemaError, match="does not name their release"):
        bridge_store.schema_state(empty)


def test_a_database_says_how_far_it_is(empty):
    assert bridge_store.schema_state(empty) == "empty"
    assert bridge_store.migrate(empty) is True
    assert bridge_store.schema_state(empty) == "current"
    assert bridge_store.migrate(empty) is False


def test_a_later_releases_tables_are_left_alone_but_can_be_used(empty):
    bridge_store.migrate(empty)
    with empty.write() as conn:
        conn.execute(text("UPDATE bridge_version SET version_num = '9999'"))
        conn.execute(text("ALTER TABLE facts ADD COLUMN later TEXT"))
    assert bridge_store.schema_state(empty) == "newer"
    assert bridge_store.migrate(empty) is False
    assert bridge_store.schema_state(empty) == "newer"
    with empty.write() as conn:
        conn.execute(insert(schema.facts).values(name="a", value="b"))
        assert conn.execute(select(schema.facts)).all() == [("a", "b")]


# ------------------------------------------------------------------------------------------------ in company


def former(conn, revision):
    """The tables as a release left them that kept its revision in Alembic's default table."""
    config = Config()
    config.set_main_option("script_location", "bridge/store/migrations")
    config.attributes["connection"] = conn
    command.upgrade(config, revision)
    conn.execute(text("DROP TABLE bridge_version"))
    conn.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    conn.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})


def versions(conn, table):
    return sorted(conn.execute(text(f"SELECT version_num FROM {table}")).scalars())


@pytest.mark.parametrize("revision", ["0001", pytest.param("0003", marks=pytest.mark.long), "0004"])
def test_a_revision_in_alembics_default_table_is_taken_over_and_still_there_for_the_release_before(empty, revision):
    with empty.write() as conn:
        former(conn, revision)
    assert bridge_store.schema_state(empty) == "older"
    assert bridge_store.migrate(empty) is True
    assert bridge_store.schema_state(empty) == "current"
    assert bridge_store.migrate(empty) is False
    with empty.read() as conn:
        assert versions(conn, "bridge_version") == [REVISIONS[-1]]
        assert versions(conn, "alembic_version") == [REVISIONS[-1]]  # current, or of a later release: it runs on them


@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param([], id="none"),
        pytest.param(["3f2a9c"], id="one", marks=pytest.mark.long),
        pytest.param(["3f2a9c", "77aa01"], id="several heads"),
        pytest.param(["0001"], id="one that looks like ours", marks=pytest.mark.long),
        pytest.param([REVISIONS[-1]], id="one that looks like our newest"),
    ],
)
def test_the_alembic_version_of_another_application_is_left_alone(empty, theirs):
    with empty.write() as conn:
        conn.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        conn.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY)"))
        for revision in theirs:
            conn.execute(text("INSERT INTO alembic_version VALUES (:it)"), {"it": revision})
    assert bridge_store.schema_state(empty) == "empty"
    assert bridge_store.migrate(empty) is True
    with empty.write() as conn:  # the next release finds an older schema
        conn.execute(text("DELETE FROM bridge_version"))
        conn.execute(text("INSERT INTO bridge_version VALUES ('0000')"))
    assert bridge_store.schema_state(empty) == "newer"
    with empty.read() as conn:
        assert versions(conn, "alembic_version") == theirs


def test_an_alembic_version_that_is_shared_gives_up_our_row_alone(empty):
    with empty.write() as conn:
        former(conn, "0002")
        conn.execute(text("INSERT INTO alembic_version VALUES ('3f2a9c')"))
    assert bridge_store.migrate(empty) is True
    with empty.read() as conn:
        assert versions(conn, "alembic_version") == sorted([REVISIONS[-1], "3f2a9c"])


def test_tables_of_another_application_are_named_and_left_alone(empty):
    with empty.write() as conn:
        for name in ("events", "goals", "users"):
            conn.execute(text(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, title TEXT)"))
        conn.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        conn.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
    for ask in (bridge_store.migrate, bridge_store.schema_state, status.require_ready):
        with pytest.raises(SchemaError, match="named events, goals that are not the bridge's"):
            ask(empty)
    with empty.read() as conn:
        assert set(inspect(conn).get_table_names()) == {"events", "goals", "users", "alembic_version"}


def test_other_things_than_tables_are_in_the_way_as_well(empty):
    with empty.write() as conn:
        conn.execute(text("CREATE VIEW facts AS SELECT 1 AS one"))
    with pytest.raises(SchemaError, match="named facts that"):
        bridge_store.migrate(empty)


REQUIRED = {
    **dict.fromkeys(("source", "provider", "type", "headers", "query", "state"), "x"),
    "dedupe_key": text("clock_timestamp()::text"),
    "test": False,
    "received_at_ms": 1,
}


def test_a_schema_of_its_own_is_enough(postgres):
    name = postgres.create()
    postgres.execute(name, 'CREATE TABLE events (id int); CREATE SCHEMA "Bridge"')
    url = f"{postgres.url(name)}&schema=Bridge&pgbouncer=true&prepare_threshold=0"
    for given in (database_url.canonical(url), f"{postgres.url(name)}&options=-csearch_path%3D%22Bridge%22"):
        bridge_store.migrate(given)
        opened = bridge_store.open(given)
        with opened.write() as conn:
            conn.execute(insert(schema.events).values(REQUIRED))
        assert bridge_store.schema_state(opened) == "current"
        opened.close()
    with pytest.raises(SchemaError, match="the schema that DATABASE_URL leads to does not exist"):
        bridge_store.migrate(url.replace("Bridge", "nothing").partition("&pgbouncer")[0])
    postgres.drop(name)


@pytest.mark.parametrize(
    "name", ["Bridge", *(pytest.param(one, marks=pytest.mark.long) for one in ("my-app", "a b")), "a.b"]
)
def test_tables_in_a_schema_whose_name_needs_quotes_are_named_as_well(postgres, name):
    database = postgres.create()
    postgres.execute(database, f'CREATE SCHEMA "{name}"; CREATE TABLE "{name}".events (id int)')
    url = database_url.canonical(f"{postgres.url(database)}&schema={quote(name)}")
    with pytest.raises(SchemaError, match="named events that are not the bridge's"):
        bridge_store.migrate(url)
    postgres.execute(database, f'DROP TABLE "{name}".events')
    assert bridge_store.migrate(url) is True
    postgres.drop(database)


@pytest.mark.long
def test_a_backup_delays_a_migration_and_keeps_no_event_waiting(postgres):
    """Whoever comes after a migration that waits for a table waits behind it: so it waits briefly, again and again."""
    name = postgres.create()
    opened = bridge_store.open(postgres.url(name))
    with opened.write() as conn:
        former(conn, "0001")
    done, said, written = [], [], 0
    with psycopg.connect(postgres.url(name).replace("+psycopg", "")) as backup:
        backup.execute("LOCK TABLE goals, events, destinations IN ACCESS SHARE MODE")
        migration = threading.Thread(
            target=lambda: done.append(bridge_store.migrate(postgres.url(name), on_wait=said.append))
        )
        migration.start()
        until = time.monotonic() + 5
        while time.monotonic() < until:
            with opened.write() as conn:
                conn.execute(text("UPDATE destinations SET slots = 1"))
                conn.execute(text("UPDATE goals SET attempts = 1"))
            written += 1
            time.sleep(0.01)
        assert migration.is_alive()
        assert len(said) == 1
    migration.join(30)
    assert done == [True]
    assert written > 1  # while the backup held the tables; none would get in behind a migration that waits for its end
    opened.close()
    postgres.drop(name)


def test_a_migration_that_ends_a_deadlock_with_a_running_release_is_tried_again(postgres):
    """It locks the tables in the order of their names, and a transaction may need the same ones in another order."""
    name = postgres.create()
    opened = bridge_store.open(postgres.url(name))
    with opened.write() as conn:
        former(conn, "0001")
    done, said = [], []
    with psycopg.connect(postgres.url(name).replace("+psycopg", "")) as running:
        running.execute("SET deadlock_timeout = '1min'")  # so the migration is the one that gives way
        running.execute("LOCK TABLE goals IN ROW EXCLUSIVE MODE")
        migration = threading.Thread(
            target=lambda: done.append(bridge_store.migrate(postgres.url(name), on_wait=said.append))
        )
        migration.start()
        waiting = "SELECT 1 FROM pg_locks WHERE relation = 'goals'::regclass AND NOT granted"
        while running.execute(waiting).fetchone() is None:
            time.sleep(0.01)
        running.execute("LOCK TABLE attempts IN ROW EXCLUSIVE MODE")
    migration.join(30)
    assert (done, len(said)) == ([True], 1)
    assert "deadlock" in said[0]
    opened.close()
    postgres.drop(name)


def test_processes_that_migrate_at_once_wait_for_each_other(empty_url):
    done = []

    def work():
        done.append(bridge_store.migrate(empty_url))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False, False, False, True]


def test_a_migration_that_fails_leaves_nothing_behind(empty, monkeypatch):
    sound = migrating._create

    def failing(conn):
        sound(conn)
        raise ZeroDivisionError

    monkeypatch.setattr(migrating, "_create", failing)
    with pytest.raises(ZeroDivisionError):
        bridge_store.migrate(empty)
    assert bridge_store.schema_state(empty) == "empty"
    monkeypatch.undo()
    assert bridge_store.migrate(empty) is True


def test_the_names_of_the_revisions_are_those_of_the_scripts():
    config = Config()
    config.set_main_option("script_location", "bridge/store/migrations")
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == REVISIONS


def test_a_start_does_not_load_alembic():
    code = "import sys; from bridge import store; assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_destination_that_was_paused_for_unknown_visitors_is_tried_at_once_after_the_upgrade(empty):
    config = Config()
    config.set_main_option("script_location", "bridge/store/migrations")
    with empty.write() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")
        insertion = "INSERT INTO destinations (name, pause_kind, not_before_ms) VALUES (:name, :kind, 9)"
        conn.execute(text(insertion), [{"name": kind, "kind": kind} for kind in ("unknown_visitors", "failures")])
    bridge_store.migrate(empty)
    with empty.read() as conn:
        rows = conn.execute(select(schema.destinations.c.pause_kind, schema.destinations.c.not_before_ms)).all()
    assert sorted(rows) == [("failures", 9), ("unknown_visitors", 0)]


def test_a_visitor_of_a_bare_client_reference_id_alone_has_to_be_proved_after_the_upgrade(empty):
    """The previous release remembered it as not sure: it may as well be the app's own user id."""
    config = Config()
    config.set_main_option("script_location", "bridge/store/migrations")
    with empty.write() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")
        for visitor, sure in (("bare", False), ("metadata", True)):
            seen = {"key": "stripe:live:sub_1", "visitor": visitor, "sure": sure, "first_at_ms": 1, "last_at_ms": 1}
            columns = (schema.link_visitors.c[name] for name in (*seen, "first_event", "last_event"))
            table = Table("link_visitors", MetaData(), *(Column(column.name, column.type) for column in columns))
            conn.execute(insert(table).values(**seen, first_event="e", last_event="e"))
    assert bridge_store.migrate(empty) is True
    with empty.read() as conn:
        rows = conn.execute(select(schema.link_visitors.c.visitor, schema.link_visitors.c.borrowed)).all()
    assert sorted(rows) == [("bare", True), ("metadata", False)]
