"""Facts, rule sets, heartbeats and counters."""

from __future__ import annotations

import threading

import pytest

from bridge.errors import StoreUnavailable
from bridge.store import facts, rulesets, schema
from bridge.store.inbox import counters
from bridge.store.operator import status


def test_a_fact_is_made_once_for_everybody(store):
    made = []

    def work(number):
        with store.write() as conn:
            made.append(facts.ensure(conn, facts.HASH_KEY, lambda: f"key {number}"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1


def test_a_fact_can_be_replaced(store):
    with store.write() as conn:
        facts.put(conn, "a", "1")
        facts.put(conn, "a", "2")
        assert facts.get(conn, "a") == "2"
        assert facts.get(conn, "b") is None


def test_the_last_accepted_rule_set_is_the_one_accepted_last_even_if_it_is_old(store, clock):
    with store.write() as conn:
        assert rulesets.last_accepted(conn) is None
    for hash_ in ("h1", "h2", "h1"):
        with store.write() as conn:
            rulesets.accept(conn, hash_, {"stripe.yaml": f"text of {hash_}"})
        clock.advance(1)
    with store.read() as conn:
        assert rulesets.last_accepted(conn) == {"stripe.yaml": "text of h1"}
        assert rulesets.files(conn, "h2") == {"stripe.yaml": "text of h2"}
        assert rulesets.files(conn, "h3") is None


def test_a_heartbeat_is_seen_until_its_process_is_silent_or_gone(store, clock):
    def beat(id_, **kw):
        with store.write() as conn:
            status.record_heartbeat(conn, id_, kind="worker", rules_hash="h", rules_fault=None, **kw)

    beat("a")
    began = clock.now_ms
    clock.advance(20_000)
    beat("b")
    clock.advance(20_000)
    beat("b")
    with store.read() as conn:
        assert [worker.id for worker in status.heartbeats(conn, 30_000)] == ["b"]
        both = status.heartbeats(conn, 60_000)
    assert [(worker.id, worker.started_at_ms) for worker in both] == [("b", began + 20_000), ("a", began)]
    with store.write() as conn:
        status.record_stop(conn, "b")
        assert [worker.id for worker in status.heartbeats(conn, 60_000)] == ["a"]
    clock.advance(status.FORGOTTEN_MS)
    beat("c")
    with store.read() as conn:
        assert [worker.id for worker in status.heartbeats(conn, 10**12)] == ["c"]


def test_refusals_are_summed_and_an_event_ends_their_row(store, rows):
    sums = counters.Refusals()
    for _ in range(3):
        sums.refused("stripe", "no signature")
    sums.flush(store)
    sums.flush(store)
    (row,) = rows.all(schema.source_counters)
    assert (row.refused, row.refused_in_row, row.last_refusal) == (3, 3, "no signature")
    sums.refused("stripe", "stale")
    rows.event()
    sums.accepted("stripe")
    sums.refused("stripe", "no signature")
    sums.flush(store)
    (row,) = rows.all(schema.source_counters)
    assert (row.refused, row.refused_in_row, row.accepted, row.last_refusal) == (5, 1, 1, "no signature")


def test_refusals_wait_while_the_store_is_unavailable(store, rows):
    sums = counters.Refusals()
    sums.refused("stripe", "stale")

    class Unavailable:
        def run(self, _work):
            sums.refused("stripe", "another one meanwhile")
            raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        sums.flush(Unavailable())
    sums.refused("stripe", "no signature")
    sums.flush(store)
    (row,) = rows.all(schema.source_counters)
    assert (row.refused, row.refused_in_row, row.last_refusal) == (3, 3, "no signature")
