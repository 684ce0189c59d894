"""What `put` acknowledged is in the database, once."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import pytest
from inbox_kit import Inbox
from sqlalchemy import select

from bridge import store as bridge_store
from bridge.errors import StoreUnavailable
from bridge.model import Ack, Envelope, NewEvent
from bridge.store import schema
from bridge.store.inbox import group_commit


def new(id_="evt_1", *, source="stripe", keys=None, body=b"{}", quarantine=None, type_="a.b", **envelope):
    return NewEvent(
        source=source,
        provider="stripe",
        envelope=Envelope(type=type_, id=id_, **envelope),
        dedupe_keys=keys or (f"{type_}:{id_}",),
        headers={"x": "1"},
        query={},
        body=body,
        quarantine=quarantine,
    )


def rows(store, table=schema.events):
    with store.read() as conn:
        return conn.execute(select(table).order_by(next(iter(table.primary_key)))).all()


@pytest.fixture
def box(store):
    made = Inbox(store)
    yield made
    made.close()


def test_an_event_is_stored_as_it_came(box, store, clock):
    event = new(test=True, time_ms=5, order_ms=6, account="acct_1", body=b"\x00\xff raw")
    assert box.put(event) is Ack.ACCEPTED
    (row,) = rows(store)
    assert (row.body, row.type, row.provider_event_id, row.account) == (b"\x00\xff raw", "a.b", "evt_1", "acct_1")
    assert (row.test, row.stated_at_ms, row.order_at_ms, row.received_at_ms) == (True, 5, 6, clock.now_ms)
    assert (row.state, row.tries, row.duplicates, row.headers) == ("received", 0, 0, '{"x": "1"}')


def test_a_repeated_delivery_only_counts_on_the_first(box, store):
    answers = [box.put(new()) for _ in range(3)]
    assert answers == [Ack.ACCEPTED, Ack.DUPLICATE, Ack.DUPLICATE]
    assert [row.duplicates for row in rows(store)] == [2]


def test_the_same_event_of_two_sources_is_two_events(box):
    assert box.put(new(source="a")) is Ack.ACCEPTED
    assert box.put(new(source="b")) is Ack.ACCEPTED


@pytest.mark.parametrize("keys", [("id:2", "body:1"), ("id:1", "body:2"), ("body:1",), ("id:1",)])
def test_either_of_two_keys_is_enough_to_be_a_duplicate(box, store, keys):
    box.put(new(keys=("id:1", "body:1")))
    assert box.put(new(keys=keys)) is Ack.DUPLICATE
    assert [row.duplicates for row in rows(store)] == [1]


def test_a_lone_body_key_meets_the_same_body_that_comes_again_with_an_id(box):
    box.put(new(keys=("body:1",)))
    assert box.put(new(keys=("id:made-up", "body:1"))) is Ack.DUPLICATE


def test_a_key_of_the_previous_release_counts_for_a_row_of_its_type_and_is_never_written(box, store):
    box.put(new(keys=("sha256:1",), type_="orders/paid"))
    known = new(keys=("sha256:1:orders/paid",), type_="orders/paid")
    again = replace(known, former_keys=(("orders/paid", "sha256:1"),))
    other = replace(new(keys=("sha256:1:orders/x",), type_="orders/x"), former_keys=(("orders/x", "sha256:1"),))
    assert box.put(again) is Ack.DUPLICATE
    assert box.put(other) is Ack.ACCEPTED
    assert box.put(replace(again, source="another")) is Ack.ACCEPTED
    first, second, third = rows(store)
    assert (first.duplicates, second.duplicates) == (1, 0)
    assert (second.dedupe_key, second.dedupe_key_2) == ("sha256:1:orders/x",) * 2
    assert third.source == "another"


def test_one_event_sent_a_hundred_times_at_once_is_stored_once(box, store):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: box.put(new()), range(100)))
    assert answers.count(Ack.ACCEPTED) == 1
    assert [row.duplicates for row in rows(store)] == [99]


def test_many_events_at_once_share_commits_and_are_all_there(box, store):
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: box.put(new(f"evt_{n % 150}")), range(200)))
    assert answers.count(Ack.ACCEPTED) == len(rows(store)) == 150
    assert sum(row.duplicates for row in rows(store)) == 50


def test_a_batch_may_hold_one_event_twice(store):
    made = [group_commit._row(new("evt_1")), group_commit._row(new("evt_2")), group_commit._row(new("evt_1"))]
    with store.driver() as driver:
        assert group_commit.store_rows(driver, made) == [Ack.ACCEPTED, Ack.ACCEPTED, Ack.DUPLICATE]


def test_counters_of_a_source_are_exact_at_once(box, store):
    for id_ in ("evt_1", "evt_1", "evt_2"):
        box.put(new(id_))
    (row,) = rows(store, schema.source_counters)
    assert (row.source, row.accepted, row.duplicates) == ("stripe", 2, 1)


def test_what_cannot_be_read_is_stored_in_quarantine_with_its_reason(box, store):
    assert box.put(new(None, keys=("body:x",), type_="", quarantine="the body is no JSON")) is Ack.ACCEPTED
    (row,) = rows(store)
    assert (row.state, row.reason) == ("quarantined", "the body is no JSON")


@pytest.mark.parametrize("text", ["nul\0", "\ud800 surrogate", "x" * 100_000, "€" * 3_000])
def test_an_authentic_event_is_never_refused_for_its_texts(box, text):
    event = new(text, type_=text, account=text, time_ms=10**30, order_ms=-(10**30))
    assert box.put(event) is Ack.ACCEPTED
    assert box.put(event) is Ack.DUPLICATE


def test_one_event_that_cannot_be_stored_fails_alone(store, monkeypatch):
    """The database refuses the row of one event; the others of its batch are stored row by row."""
    made = Inbox(store)
    started = threading.Event()
    sound = group_commit.store_rows

    def refusing(driver, batch, former):
        started.set()
        time.sleep(0.05)  # so that the others gather
        return sound(driver, [(*row[:7], None, *row[8:]) if "evt_bad" in row else row for row in batch], former)

    monkeypatch.setattr(group_commit, "store_rows", refusing)  # `test` is NOT NULL
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(made.put, new("evt_first"))
        started.wait()
        futures = {id_: pool.submit(made.put, new(id_)) for id_ in ("evt_1", "evt_bad", "evt_2", "evt_3")}
    assert first.result() is Ack.ACCEPTED
    with pytest.raises(StoreUnavailable):
        futures.pop("evt_bad").result()
    assert {future.result() for future in futures.values()} == {Ack.ACCEPTED}
    assert len(rows(store)) == 4
    made.close()


def test_a_worker_is_told_of_new_events_and_not_of_duplicates(store):
    told = []
    made = Inbox(store, lambda: told.append(1))
    made.put(new())
    made.close()
    made.put(new())
    made.close()
    assert told == [1]


def test_events_are_stored_even_if_whoever_is_told_of_them_fails(store):
    made = Inbox(store, lambda: 1 / 0)
    assert [made.put(new("evt_1")), made.put(new("evt_2"))] == [Ack.ACCEPTED, Ack.ACCEPTED]
    made.close()


def test_a_database_that_does_not_answer_is_told_before_it_does(sqlite_url):
    made = Inbox(bridge_store.open(sqlite_url))
    made.put(new())
    holder = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable):
        made.put(new("evt_2"))
    holder.execute("ROLLBACK")
    holder.close()
    assert made.put(new("evt_3")) is Ack.ACCEPTED
    made.close()


def test_a_table_that_is_locked_is_told_while_it_is(postgres_store):
    made = Inbox(postgres_store)
    made.put(new())
    with postgres_store.write() as conn:
        conn.exec_driver_sql("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            made.put(new("evt_2"))
    until_acked = [made.put(new("evt_3"))]
    assert until_acked[-1] in (Ack.ACCEPTED, Ack.DUPLICATE)
    made.close()


def test_a_server_that_is_restarted_at_once_loses_nothing_that_was_acknowledged(postgres, postgres_url):
    """`pg_ctl -m immediate` is what a crash of the server is."""
    made = bridge_store.open(postgres_url)
    box = Inbox(made)
    acked, failed, stop = [], [], threading.Event()

    def send(worker):
        number = 0
        while not stop.is_set():
            number += 1
            id_ = f"evt_{worker}_{number}"
            try:
                box.put(new(id_))
                acked.append(id_)
            except StoreUnavailable:
                failed.append(id_)
                time.sleep(0.02)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    postgres.crash()
    count = len(acked)
    end = time.monotonic() + 10
    while len(acked) < count + 20 and time.monotonic() < end:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(acked) >= count + 20
    assert failed
    assert set(acked) <= {row.provider_event_id for row in rows(made)}
    box.close()
    made.close()


def test_no_event_is_acknowledged_when_the_disk_is_full(sqlite_store):
    made = Inbox(sqlite_store)
    made.put(new())
    with sqlite_store.write() as conn:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    acked = [made.put(new("evt_small"))]

    def fill():
        acked.extend(made.put(new(f"evt_full_{number}", body=b"x" * 100_000)) for number in range(50))

    with pytest.raises(StoreUnavailable, match="full"):
        fill()
    assert len(rows(sqlite_store)) == len(acked) + 1
    with sqlite_store.write() as conn:
        conn.exec_driver_sql("PRAGMA max_page_count=1073741823")
    assert made.put(new("evt_after")) is Ack.ACCEPTED
    made.close()


def _child(box, answers):
    answers.put(box.put(new("evt_child")).value)
    box.close()


def test_a_forked_process_uses_connections_and_a_committer_of_its_own(box, store):
    box.put(new("evt_parent"))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_child, args=(box, answers))
    child.start()
    assert answers.get(timeout=10) == "accepted"
    child.join(10)
    assert child.exitcode == 0
    assert box.put(new("evt_parent_2")) is Ack.ACCEPTED
    assert len(rows(store)) == 3


class Frozen:
    """A database that answers nothing, until it is let go."""

    def __init__(self, store):
        self._store = store
        self.go_on = threading.Event()
        self.asked = threading.Event()

    def run_driver(self, work):
        self.asked.set()
        self.go_on.wait(30)
        return self._store.run_driver(work)


@pytest.fixture
def frozen(store):
    made = Frozen(store)
    yield made
    made.go_on.set()


class WatchedConnection(NewEvent):
    """An event that a weak reference can refer to."""


def vars_of(event):
    return {field.name: getattr(event, field.name) for field in fields(event)}


def test_a_database_that_stands_still_costs_no_memory_for_what_was_given_up(store, frozen):
    box = Inbox(frozen)
    under_way = box.post(new("evt_0"))
    assert frozen.asked.wait(10)
    kept = []
    for number in range(1, 50):
        event = WatchedConnection(**vars_of(new(f"evt_{number}", body=b"x" * 1000)))
        ack = box.post(event)
        kept += [weakref.ref(event), weakref.ref(ack)]
        assert ack.cancel()
    assert under_way.cancel()
    del event, ack
    assert [ref() for ref in kept] == [None] * 98  # at once: nothing has to be looked for
    frozen.go_on.set()
    assert box.put(new("evt_last")) is Ack.ACCEPTED
    box.close()
    assert {row.provider_event_id for row in rows(store)} == {"evt_0", "evt_last"}


def test_whoever_posts_while_the_inbox_is_closed_does_not_wait(frozen):
    box = Inbox(frozen)
    box.post(new("evt_0"))
    assert frozen.asked.wait(10)
    closing = threading.Thread(target=box.close)
    closing.start()
    time.sleep(0.2)
    box.post(new("evt_1"))  # the close goes on until the test lets it
    assert closing.is_alive()
    frozen.go_on.set()
    closing.join(10)
    box.close()
