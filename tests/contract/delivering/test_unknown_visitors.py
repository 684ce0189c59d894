"""Unknown visitors never stop a destination: they are an alarm, they are asked about sparingly, and nothing is lost."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import insert, text, update
from statements_kit import overheard, plan
from website import AWAY, DAY, HOUR, MINUTE, Sending, visitor

from bridge.alarms import alarms
from bridge.model import Claim, Destination
from bridge.store import schema
from bridge.store.delivery import claims
from bridge.store.operator import status


@pytest.fixture
def sending(store, clock):
    return Sending(store, clock)


def strangers(sending, count=12):
    """So many goals of visitors nobody knows, each asked about once."""
    goals = [sending.goal(visitor(number)) for number in range(100, 100 + count)]
    sending.run_for(30_000)
    return goals


def alarm(sending):
    with sending.store.read() as conn:
        look = status.snapshot(conn, ["default"])
    found = alarms(look, None, {}, {"default": Destination("default", "df_1")})
    return [one for one in found if one.name == "none_known"]


def test_ten_of_them_raise_an_alarm_and_the_next_known_one_is_delivered_at_once(sending):
    strangers(sending, 9)
    assert alarm(sending) == []
    strangers(sending, 12)
    (told,) = alarm(sending)
    assert told.sentence.endswith("is this the key of the right website?")
    assert "DATAFAST_API_KEY" in told.detail
    assert sending.destination().pause_kind is None
    sending.website.known.add(visitor(1))
    sold = sending.goal(visitor(1))
    sending.run_for(1_500)
    assert sending.row(sold).state == "delivered"
    assert alarm(sending) == []


def test_while_none_is_known_their_tries_are_not_counted_and_none_is_rejected(sending):
    goals = strangers(sending)
    sending.run_for(10 * HOUR, nap_ms=10 * MINUTE)
    assert set(sending.states()) == {"pending"}
    assert sum(sending.row(goal).unknown_visitor_tries for goal in goals) == 9  # those before the tenth
    assert {sending.row(goal).attempts for goal in goals} == {0}


@pytest.mark.long
def test_the_days_in_which_their_tries_were_not_counted_are_not_counted_either(sending):
    """A broken connection after them is the first failure, not the end of the retry schedule."""
    goals = strangers(sending)
    sending.run_for(4 * DAY, nap_ms=30 * MINUTE)
    sending.website.refusal = AWAY
    sending.run_for(2 * HOUR, nap_ms=MINUTE)
    assert sum(sending.row(goal).attempts for goal in goals) > 0
    assert set(sending.states()) == {"pending"}


def test_each_is_asked_about_at_most_hourly_even_with_several_goals(sending):
    strangers(sending)
    for _ in range(3):
        sending.goal(visitor(105))
    sending.run_for(12 * HOUR, nap_ms=5 * MINUTE)
    for number in range(100, 112):
        times = [at for at, _, who in sending.website.said if who == visitor(number)]
        assert len(times) >= 10
        assert min(later - one for one, later in itertools.pairwise(times)) >= HOUR - 1


def test_they_take_at_most_one_request_in_ten(sending):
    """As many as the rate limit allows in an hour are waiting to be asked about again."""
    strangers(sending)
    long_ago = sending.clock.now_ms - 2 * HOUR
    for number in range(1_000, 1_100):
        sending.goal(visitor(number), unknown_at_ms=long_ago)
    sending.website.said.clear()
    sending.run_for(10 * MINUTE)
    assert 50 <= len(sending.website.said) <= 10 * 58 / 10 + 1


def test_who_was_never_asked_about_goes_before_them(sending):
    strangers(sending)
    for number in range(1_000, 1_030):
        sending.goal(visitor(number), unknown_at_ms=1)
    fresh = [sending.goal(visitor(number)) for number in range(2_000, 2_010)]
    sending.website.said.clear()
    sending.run_for(12_000)
    asked = sending.website.asked("POST")
    assert set(asked[: len(fresh)]) == {visitor(number) for number in range(2_000, 2_010)}


def test_after_one_success_their_tries_count_as_ever(sending):
    *others, last = strangers(sending)
    with sending.store.write() as conn:
        conn.execute(update(schema.goals).where(schema.goals.c.id.in_(others)).values(state="cancelled"))
    sending.website.known.add(visitor(1))
    sending.goal(visitor(1))
    sending.run_for(2_000)
    sending.run_for(4 * HOUR, nap_ms=MINUTE)
    assert (sending.row(last).state, sending.row(last).reason) == ("rejected", "unknown_visitor")


def test_workers_share_what_they_know(sending):
    strangers(sending)
    other = sending.new_worker()
    sending.website.said.clear()
    sending.run_for(50 * MINUTE, other, nap_ms=MINUTE)
    assert sending.website.said == []
    assert alarm(sending) != []


def test_the_right_key_has_all_of_them_asked_about_at_once(sending):
    goals = strangers(sending)
    sending.key = "df_2"
    sending.website.known.update(visitor(number) for number in range(100, 112))
    sending.run_for(MINUTE)
    assert {sending.row(goal).state for goal in goals} == {"delivered"}
    assert alarm(sending) == []


def test_a_claim_among_them_goes_by_an_index(store, sending):
    """With a million of them waiting, a walk over the table would stop everything."""
    strangers(sending)
    sending.clock.advance(HOUR)
    with store.write() as conn:
        conn.execute(text("ANALYZE"))
    with overheard(store) as said, store.write() as conn:
        assert isinstance(claim(conn, "a"), Claim)
    with overheard(store) as waits, store.read() as conn:
        claims.peek(conn, "default")
    asked = [(statement, values) for statement, values in (*said, *waits) if "unknown_at_ms" in statement]
    assert len(asked) > 4
    for statement, values in asked:
        with store.write() as conn:
            lines = plan(conn, statement, values)
        assert not any("Seq Scan" in line or line.startswith("SCAN") for line in lines), (statement, lines)


def claim(conn, token):
    return claims.claim(
        conn, destination="default", token_hash=_token_hash(conn), token=token, lease_ms=60_000, rate=6_000_000
    )


def _token_hash(conn):
    return conn.execute(schema.pace.select()).first().token_hash


@pytest.mark.long
@pytest.mark.parametrize("many", [20_000])
def test_a_claim_among_many_of_them_costs_what_it_costs_among_few(sqlite_store, clock, many):
    """Counted in rows that the database looks at, not in time: its step counter does not depend on the machine."""
    sending = Sending(sqlite_store, clock)
    strangers(sending)
    few = _steps(sqlite_store)
    now = clock.now_ms
    rows = [
        {
            "event_id": 1, "source": "s", "rule_id": "r", "destination": "default", "once_key": f"many{number}",
            "test": False, "name": "purchase", "description": "d", "metadata": "{}", "visitor": visitor(number + 5_000),
            "state": "pending", "happened_at_ms": now, "time_is_stated": True, "ordered_at_ms": now,
            "created_at_ms": now, "changed_at_ms": now, "due_at_ms": now - 1, "expires_at_ms": now + 7 * DAY,
            "wait_ms": 1, "unknown_at_ms": now - 1,
        }
        for number in range(many)
    ]  # fmt: skip
    with sqlite_store.write() as conn:
        conn.execute(insert(schema.goals), rows)
    assert _steps(sqlite_store) <= few * 2


def _steps(store):
    """How many hundreds of virtual instructions a claim takes."""
    count = 0

    def tick():
        nonlocal count
        count += 1

    with store.write() as conn:
        connection = conn.connection.driver_connection
        connection.set_progress_handler(tick, 100)
        try:
            claim(conn, "t")
        finally:
            connection.set_progress_handler(None, 0)
        conn.rollback()
    return count
