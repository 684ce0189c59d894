"""Events are routed once by whoever holds their lease, and a poisoned one takes nobody with it."""

from __future__ import annotations

import threading

from bridge.model import EventState, Verdict
from bridge.store import schema
from bridge.store.inbox import events

LEASE = 60_000


def claim(store, token="a", limit=10):
    with store.write() as conn:
        return events.claim(conn, limit, token, LEASE)


def finish(store, event_id, token="a"):
    with store.write() as conn:
        return events.finish_all(conn, token, [events.RoutingResult(event_id, Verdict.UNMATCHED, None, "{}", "h")])


def test_events_are_claimed_in_the_order_of_their_arrival(store, rows):
    ids = [rows.event(f"evt_{n}") for n in range(5)]
    assert [event.id for event in claim(store, limit=3)] == ids[:3]
    assert [event.id for event in claim(store, "b")] == ids[3:]


def test_a_claimed_event_carries_all_that_routing_needs(store, rows, clock):
    rows.event(test=True, body=b"\xff")
    (event,) = claim(store)
    assert (event.source, event.envelope.type, event.envelope.id, event.envelope.mode) == (
        "stripe",
        "a.b",
        "evt_1",
        "test",
    )
    assert (event.body, event.headers, event.query) == (b"\xff", {"x": "1"}, {"q": "1"})
    assert (event.received_at_ms, event.state, event.tries) == (clock.now_ms, EventState.RECEIVED, 1)


def test_a_routed_event_is_not_claimed_again(store, rows):
    event_id = rows.event()
    claim(store)
    assert finish(store, event_id)
    assert claim(store, "b") == []
    row = rows.one(schema.events, event_id)
    assert (row.state, row.verdict, row.trace, row.rules_hash, row.lease_token) == (
        "routed",
        "unmatched",
        "{}",
        "h",
        None,
    )


def test_a_lease_that_ran_out_is_taken_over_and_the_old_holder_writes_nothing(store, rows, clock):
    event_id = rows.event()
    claim(store, "old")
    assert claim(store, "new") == []
    clock.advance(LEASE)
    assert [event.id for event in claim(store, "new")] == [event_id]
    assert not finish(store, event_id, "old")
    assert finish(store, event_id, "new")


def test_two_routers_never_claim_the_same_event(store, rows):
    for n in range(40):
        rows.event(f"evt_{n}")
    claimed = {}

    def work(token):
        while batch := claim(store, token, limit=3):
            for event in batch:
                claimed.setdefault(event.id, []).append(token)

    threads = [threading.Thread(target=work, args=(token,)) for token in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 40
    assert all(len(tokens) == 1 for tokens in claimed.values())


def test_an_event_that_kills_its_router_is_quarantined_after_three_times_and_the_others_are_routed(store, rows, clock):
    ids = [rows.event(f"evt_{n}") for n in range(5)]
    bad = ids[2]
    routed, crashes = set(), 0
    for turn in range(100):
        token = f"t{turn}"
        batch = claim(store, token)
        if not batch and len(routed) + 1 == len(ids):
            break
        for event in batch:
            if event.id == bad:
                crashes += 1
                clock.advance(LEASE)  # the process is gone, with the rest of the batch unrouted
                break
            assert finish(store, event.id, token)
            routed.add(event.id)
    assert routed == set(ids) - {bad}
    assert crashes == 3
    row = rows.one(schema.events, bad)
    assert (row.state, row.reason) == ("quarantined", events.CRASHED)


def test_an_event_that_was_tried_before_is_claimed_alone(store, rows, clock):
    ids = [rows.event(f"evt_{n}") for n in range(3)]
    claim(store, "crashed", limit=2)
    clock.advance(LEASE)
    assert [event.id for event in claim(store, "b")] == [ids[0]]
    assert [event.id for event in claim(store, "c")] == [ids[1]]
    assert [event.id for event in claim(store, "d")] == [ids[2]]


def test_a_batch_is_finished_at_once_and_says_if_any_lease_was_lost(store, rows):
    ids = [rows.event(f"evt_{n}") for n in range(3)]
    claim(store)
    ends = [events.RoutingResult(id_, Verdict.MATCHED, None, "{}", "h") for id_ in ids]
    with store.write() as conn:
        assert events.finish_all(conn, "a", ends[:2])
    with store.write() as conn:
        assert not events.finish_all(conn, "a", ends)
        assert events.finish_all(conn, "a", [])


def test_giving_a_lease_back_is_no_try(store, rows):
    event_id = rows.event()
    claim(store)
    with store.write() as conn:
        assert events.release(conn, [event_id], "a") == 1
        assert events.release(conn, [event_id], "a") == 0
    (event,) = claim(store, "b")
    assert event.tries == 1


def test_an_event_that_many_held_for_too_long_is_not_taken_for_poison(store, rows, clock):
    """Three routers that waited for a lock longer than their leases put an innocent event into quarantine."""
    event_id = rows.event()
    for holder in "abcde":
        (event,) = claim(store, holder)
        clock.advance(LEASE + 1)
        (event,) = claim(store, "next")
        with store.write() as conn:
            assert events.release(conn, [event_id], holder) == 1
        assert rows.one(schema.events, event_id).lease_token == "next"
        clock.advance(LEASE + 1)
        with store.write() as conn:
            events.release(conn, [event_id], "next")
    (event,) = claim(store, "z")
    assert event.tries == 1


def test_a_quarantined_event_can_be_put_back(store, rows):
    event_id = rows.event()
    claim(store)
    with store.write() as conn:
        assert events.quarantine(conn, event_id, "a", "it went wrong")
    assert claim(store, "b") == []
    with store.write() as conn:
        assert events.requeue(conn, event_id)
        assert not events.requeue(conn, event_id)  # a double click
    (event,) = claim(store, "c")
    assert (event.id, event.tries, event.reason) == (event_id, 1, None)


def test_a_quarantine_that_nobody_can_mend_ends_by_hand(store, rows):
    other, event_id = rows.routed("evt_1"), rows.event("evt_2")
    claim(store)
    with store.write() as conn:
        assert events.quarantine(conn, event_id, "a", "the body is not JSON")
        assert events.ignore(conn, event_id)
        assert not events.ignore(conn, event_id)  # a double click
        assert not events.ignore(conn, other)
        row = conn.execute(schema.events.select().where(schema.events.c.id == event_id)).one()
        assert (row.state, row.verdict) == ("routed", "ignored")
        assert row.reason == "set aside by a person: the body is not JSON"
        assert events.requeue(conn, event_id)


def test_an_event_without_its_body_cannot_be_put_back(store, rows):
    event_id = rows.routed()
    with store.write() as conn:
        conn.execute(schema.events.update().values(body=None))
        assert not events.requeue(conn, event_id)
        assert not events.requeue(conn, 4711)


def test_all_events_can_be_gone_through_in_pieces(store, rows):
    ids = [rows.event(f"evt_{n}") for n in range(5)]
    seen, last = [], 0
    with store.read() as conn:
        while piece := events.stored_after(conn, last, 2):
            seen += [event.id for event in piece]
            last = piece[-1].id
        assert seen == ids
        assert events.stored_after(conn, 0, 1)[0].envelope.id == "evt_0"


def test_large_bodies_are_claimed_a_few_at_a_time(store, rows):
    """Fifty of them at once took 175 MB while they were read."""
    ids = [rows.event(f"evt_{n}", body=b"x" * (1 << 20)) for n in range(5)]
    assert [event.id for event in claim(store)] == ids[:2]
    assert [event.id for event in claim(store, "b")] == ids[2:4]
