"""A database is brought to the tables of this release, once, by whoever comes first."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, insert, select, text
from sqlalchemy.exc import ProgrammingError

from bridge import store as bridge_store
from bridge.errors import StoreError
from bridge.store import migrating, schema
from bridge.store.migrations import REVISIONS


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
        context = MigrationContext.configure(conn, opts={"compare_server_default": True})
        assert compare_metadata(context, schema.complete("sqlite", "postgresql")) == []


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


def definitions(opened, make):
    """What the database says of the tables that `make` made; they are not kept."""
    with opened.engine.connect() as conn, conn.begin() as transaction:
        make(conn)
        found = [" ".join(map(str, row)) for row in conn.execute(text(DEFINITIONS[opened.dialect]))]
        versions = conn.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
        transaction.rollback()
    parts = sorted(sorted("".join(line.split()).removesuffix(")").split(",")) for line in found)  # in whatever order
    return parts, versions


def test_an_empty_database_gets_what_all_migrations_make(empty):
    at_once, step_by_step = (definitions(empty, way) for way in (migrating._create, migrating._run_alembic))
    assert len(at_once[0]) > 40
    assert at_once == step_by_step


def test_tables_without_a_version_are_no_empty_database(empty):
    bridge_store.migrate(empty)
    with empty.write() as conn:
        conn.execute(text("DELETE FROM alembic_version"))
    with pytest.raises((StoreError, ProgrammingError)):
        bridge_store.migrate(empty)
    assert bridge_store.schema_state(empty) == "empty"


def test_a_database_says_how_far_it_is(empty):
    assert bridge_store.schema_state(empty) == "empty"
    assert bridge_store.migrate(empty) is True
    assert bridge_store.schema_state(empty) == "current"
    assert bridge_store.schema_state(empty.engine) == "current"
    assert bridge_store.migrate(empty) is False


def test_a_later_releases_tables_are_left_alone_but_can_be_used(empty):
    bridge_store.migrate(empty)
    with empty.write() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        conn.execute(text("ALTER TABLE facts ADD COLUMN later TEXT"))
    assert bridge_store.schema_state(empty) == "newer"
    assert bridge_store.migrate(empty) is False
    assert bridge_store.schema_state(empty) == "newer"
    with empty.write() as conn:
        conn.execute(insert(schema.facts).values(name="a", value="b"))
        assert conn.execute(select(schema.facts)).all() == [("a", "b")]


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
