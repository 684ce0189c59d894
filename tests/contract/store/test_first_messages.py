"""What came before there was a secret: three of each source, for an hour."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import func, select

from bridge.errors import StoreUnavailable
from bridge.store import schema
from bridge.store.inbox import first_messages
from bridge.store.inbox.first_messages import KEPT_MS, FirstMessages
from bridge.store.upkeep import retention


def seen(store, source="notion"):
    with store.read() as conn:
        return [(one.token, one.sender) for one in first_messages.messages_of(conn, source)]


def test_a_first_message_is_there_after_the_next_flush_with_time_and_sender(store, clock):
    kept = FirstMessages()
    kept.keep("notion", "secret_1", "192.0.2.1")
    assert seen(store) == []
    kept.flush(store)
    kept.flush(store)
    with store.read() as conn:
        (one,) = first_messages.messages_of(conn, "notion")
    assert (one.token, one.sender) == ("secret_1", "192.0.2.1")
    assert one.at_ms > 0
    assert "secret_1" not in repr(one)
    assert seen(store, "other") == []


def test_the_last_three_of_each_source_are_kept(store, clock):
    kept = FirstMessages()
    for number in range(5):
        kept.keep("notion", f"secret_{number}", "192.0.2.1")
        kept.flush(store)
        clock.advance(10)
    kept.keep("other", "secret_0", "192.0.2.2")
    kept.flush(store)
    assert [token for token, _ in seen(store)] == ["secret_4", "secret_3", "secret_2"]
    assert seen(store, "other") == [("secret_0", "192.0.2.2")]
    with store.read() as conn:
        assert conn.execute(select(func.count()).select_from(schema.first_messages)).scalar() == 4


def test_a_flood_between_two_flushes_costs_three_rows(store):
    kept = FirstMessages()
    for number in range(1_000):
        kept.keep("notion", f"secret_{number}", "192.0.2.1")
    kept.flush(store)
    assert sorted(token for token, _ in seen(store)) == ["secret_997", "secret_998", "secret_999"]


def test_the_same_message_again_is_the_same_with_its_last_sender(store, clock):
    kept = FirstMessages()
    for sender in ("192.0.2.1", "192.0.2.2"):
        kept.keep("notion", "secret_1", sender)
        kept.flush(store)
        clock.advance(10)
    assert seen(store) == [("secret_1", "192.0.2.2")]


def test_after_an_hour_it_is_neither_shown_nor_there(sqlite_store, clock):
    kept = FirstMessages()
    kept.keep("notion", "secret_1", "192.0.2.1")
    kept.flush(sqlite_store)
    clock.advance(KEPT_MS - 1)
    assert seen(sqlite_store) != []
    clock.advance(1)
    assert seen(sqlite_store) == []
    assert retention.purge(sqlite_store, 30)["first_messages"] == 1
    with sqlite_store.read() as conn:
        assert conn.execute(select(func.count()).select_from(schema.first_messages)).scalar() == 0


def test_what_comes_while_the_database_is_away_waits_for_it(sqlite_store, tmp_path):
    kept = FirstMessages()
    kept.keep("notion", "secret_1", "192.0.2.1")

    class Away:
        def run(self, _work):
            kept.keep("notion", "secret_2", "192.0.2.1")
            raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        kept.flush(Away())
    kept.flush(sqlite_store)
    assert sorted(token for token, _ in seen(sqlite_store)) == ["secret_1", "secret_2"]


def test_what_comes_while_others_are_written_is_written_next(sqlite_store):
    kept = FirstMessages()
    kept.keep("notion", "secret_1", "192.0.2.1")

    class Slow:
        def run(self, work):
            thread = threading.Thread(target=kept.keep, args=("notion", "secret_2", "192.0.2.1"))
            thread.start()
            thread.join()
            return sqlite_store.run(work)

    kept.flush(Slow())
    assert [token for token, _ in seen(sqlite_store)] == ["secret_1"]
    kept.flush(sqlite_store)
    assert sorted(token for token, _ in seen(sqlite_store)) == ["secret_1", "secret_2"]
