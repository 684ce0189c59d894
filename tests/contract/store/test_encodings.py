"""A PostgreSQL in SQL_ASCII or LATIN1 keeps every text, and finds what it has kept."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from bridge import store as bridge_store
from bridge.store import schema
from bridge.store.database import postgresql

TEXTS = ("plain", "Zoë", "☕ 日本", "😀", "\x1a", "\x1a1f600;", "é\x1a😀;", "İ", "\x85")


@pytest.fixture(params=["SQL_ASCII", "LATIN1", "WIN1252"])
def url(request, postgres):
    name = f"encoded_{request.param.lower()}"
    postgres.execute(
        "postgres", f"CREATE DATABASE {name} ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    bridge_store.migrate(postgres.url(name))
    yield postgres.url(name)
    postgres.drop(name)


def test_every_text_comes_back_and_is_found_again(url):
    store = bridge_store.open(url)
    table = schema.facts
    with store.write() as conn:
        conn.execute(insert(table), [{"name": text, "value": text} for text in TEXTS])
    with store.driver() as driver:
        driver.execute_rows(
            "INSERT INTO facts (name, value) VALUES {rows}", [(f"by the driver {text}", text) for text in TEXTS]
        )
    with store.read() as conn:
        for text in TEXTS:
            for name in (text, f"by the driver {text}"):
                assert conn.execute(select(table.c.value).where(table.c.name == name)).scalars().all() == [text]
    with store.driver() as driver:
        for text in TEXTS:
            assert driver.execute("SELECT value FROM facts WHERE name = ?", (text,)) == [(text,)]
    store.close()


def test_what_the_encoding_has_stands_there_as_it_is(url):
    store = bridge_store.open(url)
    with store.write() as conn:
        conn.execute(insert(schema.facts).values(name="a", value="Zoë"))
    store.close()
    if "sql_ascii" in url:
        return
    with psycopg.connect(url.replace("+psycopg", "", 1), client_encoding="utf8") as conn:
        assert conn.execute("SELECT value FROM facts").fetchall() == [("Zoë",)]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_an_escape_is_read_as_what_it_stands_for(text):
    there = postgresql.escaped(text, "iso8859-1")
    there.encode("iso8859-1")
    assert postgresql.unescaped(there) == text
