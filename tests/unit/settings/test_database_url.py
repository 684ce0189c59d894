"""DATABASE_URL: what SQLAlchemy or the driver cannot take is one sentence that names the part and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import make_conninfo

from bridge import settings
from bridge.errors import SettingsError
from bridge.settings import database_url
from bridge.settings.database_file import unusable
from bridge.settings.database_url import canonical, sqlite_file

PG = "postgresql://user:q7Kz9@host:5432/name"


def refusal(url: str) -> str:
    with pytest.raises(SettingsError) as caught:
        settings.load({"DATABASE_URL": url})
    [told] = caught.value.problems
    assert told.startswith("DATABASE_URL: ")
    assert "q7Kz9" not in told
    return told


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (f"{PG}?pg_bouncer=true", 'PostgreSQL\'s own library does not know the option "pg_bouncer": take it out'),
        (f"{PG}?schema=,", 'the option "schema" must be the name of a schema'),
        (f"{PG}?sslaccept=strict", "write sslmode=verify-full&sslrootcert=system"),
        (f"{PG}?sslmode=require&sslrootcert=system", 'the option "sslmode" must be verify-full'),
        (f"{PG}?target_session_attrs=read-only", "because the bridge writes"),
        (f"{PG}?replication=database", 'the option "replication" is for copying'),
        ("prisma+postgres://accelerate.prisma-data.net/?api_key=q7Kz9", "take the direct URL (postgres://)"),
        (f"{PG}?sslmod=require", 'the option "sslmod" (did you mean sslmode?): take it out'),
        (f"{PG}?sslmode=never", 'the option "sslmode" must be one of disable, allow, prefer, require, verify-ca'),
        (f"{PG}?connect_timeout=soon", 'the option "connect_timeout" must be a whole number'),
        (f"{PG}?sslmode=require&sslmode=prefer", 'the option "sslmode" appears twice'),
        (f"{PG}?host=h:x", 'the options "host" and "port" must be ?host=one:5432&host=two:5432, or'),
        (f"{PG}?host=h&port=1,2", 'the options "host" and "port" must be'),
        (f"{PG}?port=x", 'the options "host" and "port" must be'),
        ("postgress://user:q7Kz9@host/name", "the bridge does not work with postgress:// (did you mean"),
        ("mysql://user:q7Kz9@host/name", "the bridge does not work with mysql://; write sqlite:///"),
        (f'"{PG}"', "quotes around it"),
        (f"psql '{PG}'", "quotes around it"),
        (f"DATABASE_URL={PG}", "the URL has something before it"),
        (f"jdbc:{PG}", "the URL has something before it"),
        ("postgresql://user:q7Kz9@host:abc/name", "its port"),
        ("postgresql://user:q7Kz9@host:99999/name", "its port"),
        ("postgresql://user:q7@Kz9@host/name", "special character"),
        ("postgresql://user:a@b:q7Kz9@host/name", "special character"),
        ("postgresql://user:a@q7/Kz9@host/name", "special character"),
        ("postgresql://user@one:1,two:2/name", "?host=one&host=two"),
        ("postgresql://user@%2Frun%2Fpg/name", "?host=/run/postgresql"),
        ("postgresql://user:%00@host/name", "a character that no database takes"),
        ("postgresql:/user:q7Kz9@host/name", "does not begin like a database URL"),
        ("sqlite://x.db", "three slashes (sqlite:///x.db), or four"),
        ("sqlite:x.db", "three slashes"),
        ("sqlite3:///x.db", "three slashes"),
        ("sqlite+aiosqlite:///x.db", "write sqlite:///bridge.db"),
        ("sqlite:///x.db?mode=rwc", 'SQLite\'s driver does not know the option "mode"'),
        ("sqlite:///x.db?timout=5", '"timout" (did you mean timeout?)'),
        ("sqlite:///x.db?timeout=soon", 'the option "timeout" has a value'),
        ("sqlite:///file:x.db?uri=true&mode=ro", "read-only"),
        ("sqlite:///file:x.db", "uri=true"),
    ],
)  # fmt: skip
def test_a_wrong_url_is_a_sentence_that_names_the_part_and_shows_no_password(url, sentence):
    assert sentence in refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        PG,
        "postgres://u@h/d",
        "POSTGRES://u@h/d",
        "postgresql+asyncpg://u@h/d",
        "postgresql://",
        "postgresql:///name?host=/run/postgresql",
        "postgresql://u:p%40ss@[::1]:5432/d?sslmode=require&channel_binding=require&application_name=x",
        "postgresql://u@/d?host=one:5432&host=two:5433",
        "postgresql://u@/d?host=one,two&port=5432,5433",
        "postgresql://u@/d?host=::1",
        "postgresql://u:p@h/d?options=-c%20search_path%3Dx",
        "sqlite://",
        "sqlite:///bridge.db",
        "sqlite:////data/bridge.db?timeout=5",
        "sqlite:///file:x.db?uri=true&mode=rwc&cache=shared",
    ],
)
def test_a_url_that_the_driver_takes_is_taken(url):
    engine = sqlalchemy.create_engine(canonical(url))
    engine.dialect.create_connect_args(engine.url)


def connecting(url: str) -> dict[str, object]:
    engine = sqlalchemy.create_engine(canonical(url))
    _, arguments = engine.dialect.create_connect_args(engine.url)
    pq.Conninfo.parse(make_conninfo(**{k: v for k, v in arguments.items() if k not in ("context", "schema")}).encode())
    return {k: v for k, v in arguments.items() if k not in ("context", "host", "port", "user", "password", "dbname")}


PASTED = [  # as Supabase, Vercel, Neon, Prisma, Heroku, DigitalOcean, Aiven, Cloud SQL, node-postgres, JDBC, Rails and
    # SQLAlchemy write them
    ("pgbouncer=true&connection_limit=1", {}),
    ("sslmode=require&supa=base-pooler.x", {"sslmode": "require"}),
    ("sslmode=require&pgbouncer=true&pool_timeout=15", {"sslmode": "require"}),
    ("connect_timeout=9", {"connect_timeout": "9"}),
    ("workaround=supabase-pooler.vercel", {}),
    ("sslmode=require&channel_binding=require", {"sslmode": "require", "channel_binding": "require"}),
    ("sslmode=require&options=endpoint%3Dep-cool-1", {"sslmode": "require", "options": "endpoint=ep-cool-1"}),
    ("schema=public", {"schema": "public"}),
    ("schema=Shop&statement_cache_size=0&socket_timeout=3", {"schema": "Shop"}),
    ("currentSchema=Shop,public&prepareThreshold=0", {"schema": "shop,public"}),
    ("search_path=shop", {"schema": "shop"}),
    ("sslaccept=accept_invalid_certs&sslmode=require", {"sslmode": "require"}),
    ("ssl=true", {"sslmode": "require"}),
    ("ssl=0", {"sslmode": "disable"}),
    ("ssl=true&sslmode=no-verify", {"sslmode": "require"}),
    ("ssl-mode=REQUIRED", {"sslmode": "require"}),
    ("sslmode=require&uselibpqcompat=true", {"sslmode": "require"}),
    ("sslmode=verify-full&sslrootcert=system", {"sslmode": "verify-full", "sslrootcert": "system"}),
    ("sslrootcert=%2Fapp%2Fca.pem", {"sslrootcert": "/app/ca.pem"}),
    ("targetServerType=primary", {"target_session_attrs": "read-write"}),
    ("target_session_attrs=any", {"target_session_attrs": "any"}),
    ("prepare_threshold=0", {}),
    ("prepare_threshold=5&autocommit=off", {}),
    ("application_name=shop&statement_timeout=60000", {"application_name": "shop"}),
    ("pool=5&prepared_statements=false&encoding=utf8", {}),
    ("pool_size=5&max_overflow=2&conn_max_age=600&ssl_require=true", {}),
    ("binary_parameters=yes&default_query_exec_mode=simple_protocol&pool_max_conns=4", {}),
    ("client_encoding=latin1&TimeZone=UTC", {}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), PASTED, ids=[options for options, _ in PASTED])
def test_what_hosts_write_for_other_clients_is_understood(options, expected):
    for base in (PG, "postgres://user:q7%25%40z9@host/name", "postgresql+psycopg2://u@h:25060/d"):
        assert connecting(f"{base}?{options}") == expected


def test_a_user_and_a_password_may_be_options_and_a_socket_may_have_colons():
    assert connecting("postgresql://host/name?user=u&password=q7Kz9") == {}
    assert canonical("postgresql://u:p@/d?host=/cloudsql/a:b:c").endswith("?host=/cloudsql/a:b:c")


def test_a_url_that_needs_no_change_but_its_scheme_gets_no_other():
    url = "://u:p%40a%25ss@[::1]:5432/d?options=-c%20search_path%3Dx&sslmode=prefer"
    assert canonical(f"postgres{url}") == f"postgresql+psycopg{url}"


def test_a_schema_is_named_exactly():
    assert database_url.search_path("Shop") == '"Shop"'
    assert database_url.search_path('a"b, public') == '"a""b", "public"'


def test_the_options_of_postgresql_are_those_that_its_library_knows():
    assert {option.keyword.decode() for option in pq.Conninfo.get_defaults()} == database_url.LIBPQ


WORDS = st.sampled_from(
    ("sqlite", "postgresql", "postgres", "://", "/", "//", ":", "@", "?", "&", "=", "%", "%40", "%00", ",", "[::1]",
     "host", "/name", "x.db", "schema=public", "sslmode=", "require", "é",
     "host=a:1", "host=a,b", "port=1,2", "port=5")
)  # fmt: skip


@given(st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=8).map("".join))
def test_whatever_the_url_is_it_is_refused_or_taken_by_sqlalchemy_as_it_was_read(text):
    try:
        found = canonical(text)
    except ValueError:
        return
    engine = sqlalchemy.create_engine(found)
    engine.dialect.create_connect_args(engine.url)
    file = sqlite_file(found)
    if file is not None:
        assert str(file) == str(Path(engine.url.database))


def test_a_path_that_can_never_be_opened_is_a_sentence(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    said = {
        "no/x.db": "no does not exist: create it",
        "file/x.db": "file is not a folder",
        "folder": f"folder is a folder: name a file in it, such as {tmp_path}/folder/bridge.db",
        "pipe": "pipe is not an ordinary file",
        "x" * 300: "its path cannot be used (file name too long)",
    }
    for name, sentence in said.items():
        assert sentence in unusable(f"sqlite:///{tmp_path}/{name}")
    assert unusable(f"sqlite:///{tmp_path}/new.db") is None
    assert unusable(f"sqlite:///{tmp_path}/empty?timeout=5") is None
    for memory in ("sqlite://", "sqlite:///:memory:"):
        assert unusable(memory).startswith("a database in memory is lost when its process ends: name a file")
    assert unusable("postgresql://u@h/d") is None


@pytest.fixture
def not_root():
    """Root may write anywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65_534)
    yield
    os.seteuid(before)


@pytest.mark.usefixtures("not_root")
def test_a_folder_that_cannot_be_written_is_a_sentence():
    assert unusable("sqlite:////usr/x.db").startswith("/usr/x.db and its folder must be readable and writable")
