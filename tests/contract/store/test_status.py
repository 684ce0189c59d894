"""What /readyz, /status and /metrics are told."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, text, update

from bridge import store as bridge_store
from bridge.errors import SchemaError, StoreUnavailable
from bridge.masking import fingerprint
from bridge.store import schema
from bridge.store.inbox import counters
from bridge.store.links import lookups
from bridge.store.operator import status, tallies
from bridge.store.upkeep import retention

DAY = 86_400_000


def look(store, *names):
    with store.read() as conn:
        return status.snapshot(conn, names or ("default",))


def totals(store):
    with store.read() as conn:
        return status.totals(conn)


def test_an_empty_store_is_ready_and_gives_no_reason_to_look(store, clock):
    status.require_ready(store)
    found = look(store)
    assert found.now_ms == clock.now_ms
    assert (found.oldest_due_at_ms, found.oldest_unrouted_at_ms) == ({"default": None}, None)
    assert (found.quarantined, found.held, found.destinations, found.sources, found.heartbeats) == (0, 0, (), (), ())
    assert found.worker_seen_at_ms is None


def test_a_store_without_tables_or_with_older_ones_is_not_ready(tmp_path, store):
    with pytest.raises(SchemaError, match="migrate"):
        status.require_ready(bridge_store.open(f"sqlite:///{tmp_path}/empty.db"))
    with store.write() as conn:
        version = conn.execute(text("SELECT version_num FROM bridge_version")).scalar_one()
        conn.execute(text("DELETE FROM bridge_version"))
    with pytest.raises(SchemaError, match="migrate"):
        status.require_ready(store)
    with store.write() as conn:
        conn.execute(text("INSERT INTO bridge_version VALUES ('9999')"))
    status.require_ready(store)  # a later release's tables: this one still runs on them
    with store.write() as conn:
        conn.execute(text(f"UPDATE bridge_version SET version_num = '{version}'"))


def test_a_store_that_cannot_be_written_is_not_ready(sqlite_store):
    with sqlite_store.write() as conn:
        conn.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable):
        status.require_ready(sqlite_store)


@pytest.mark.parametrize(
    "privilege", ["UPDATE ON events", "INSERT ON source_counters", "ALL ON SEQUENCE events_id_seq"]
)
def test_a_role_that_may_not_do_all_that_an_event_needs_is_not_ready(postgres, postgres_url, privilege):
    database = postgres_url.partition("?")[0].rpartition("/")[2]
    role = f"few_rights_{database}"
    postgres.execute(
        database,
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA public, bridge_test TO {role};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA public, bridge_test TO {role};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
    )
    limited = bridge_store.open(postgres_url.replace("postgres:@", f"{role}:@", 1))
    try:
        status.require_ready(limited)
        postgres.execute(database, f"REVOKE {privilege} FROM {role}")
        with pytest.raises(StoreUnavailable, match=r"forbids what the bridge has to do .*USAGE on their sequences"):
            status.require_ready(limited)
    finally:
        limited.close()
        postgres.execute(database, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_the_oldest_due_goal_of_a_destination_is_found_and_not_the_one_that_waits(store, rows, clock):
    began = clock.now_ms
    rows.goal(due_at_ms=began + 10_000)
    rows.goal(due_at_ms=began - 5_000, destination="other")
    rows.goal(due_at_ms=began - 9_000, state="delivered")
    assert look(store, "default", "other").oldest_due_at_ms == {"default": None, "other": began - 5_000}
    rows.goal(due_at_ms=began - 7_000, state="unconfirmed")
    assert look(store).oldest_due_at_ms == {"default": began - 7_000}


def test_quarantine_held_goals_and_unrouted_events_are_counted(store, rows, clock):
    received = clock.now_ms
    rows.event()
    clock.advance(1_000)
    rows.event("evt_2", quarantine="no JSON")
    rows.goal(rows.event("evt_3"), state="held")
    found = look(store)
    assert (found.quarantined, found.held, found.oldest_unrouted_at_ms) == (1, 1, received)


def test_paused_destinations_refusals_and_heartbeats_are_told(store, rows, clock):
    with store.write() as conn:
        conn.execute(
            insert(schema.destinations).values(name="default", pause_kind="failures", pause_reason="5 in a row")
        )
        counters.refused(conn, "stripe", count=3, in_row=2, reason="stale")
        status.record_heartbeat(conn, "web", kind="web", rules_hash="h", rules_fault="stripe.yaml:1:1: no")
    found = look(store)
    assert [(row.name, row.pause_kind, row.pause_reason) for row in found.destinations] == [
        ("default", "failures", "5 in a row")
    ]
    assert [(row.source, row.refused, row.refused_in_row) for row in found.sources] == [("stripe", 3, 2)]
    assert found.heartbeats[0].rules_fault == "stripe.yaml:1:1: no"
    assert found.worker_seen_at_ms is None
    with store.write() as conn:
        status.record_heartbeat(conn, "inline", kind="inline", rules_hash="h", rules_fault=None)
    assert look(store).worker_seen_at_ms == clock.now_ms
    clock.advance(status.SEEN_RECENTLY_MS + 1)
    assert look(store).worker_seen_at_ms is None


def test_totals_do_not_go_back_when_retention_removes_rows(store, rows, clock):
    rows.attempt(rows.goal(rows.routed(), state="delivered"))
    rows.goal(rows.routed("evt_2"), state="rejected")
    rows.routed("evt_3", verdict="ignored")
    rows.event("evt_4")
    before = totals(store)
    assert before.events == {
        ("stripe", "routed", "matched"): 2,
        ("stripe", "routed", "ignored"): 1,
        ("stripe", "received", ""): 1,
    }
    assert before.goals == {("default", "delivered"): 1, ("default", "rejected"): 1}
    assert before.attempts == {("send", "delivered"): 1}
    clock.advance(401 * DAY)
    retention.purge(store, 30)
    assert rows.count(schema.goals) == 0
    assert totals(store) == before


def test_a_goal_is_counted_once_wherever_it_is(store, rows):
    goal = rows.goal()
    with store.write() as conn:
        conn.execute(update(schema.goals).where(schema.goals.c.id == goal).values(state="delivered"))
    assert totals(store).goals == {("default", "delivered"): 1}


def test_what_waits_for_a_destination_that_is_configured_no_more_is_found(store, rows, clock):
    with store.write() as conn:
        conn.execute(insert(schema.destinations), [{"name": "default"}, {"name": "gone"}, {"name": "idle"}])
    rows.goal(due_at_ms=clock.now_ms - 5_000, destination="gone")
    assert look(store).oldest_due_at_ms == {"default": None, "gone": clock.now_ms - 5_000}
    with store.read() as conn:
        assert status.snapshot(conn, ()).oldest_due_at_ms == {}  # who asks for none wants to know of none


def test_a_pause_of_look_ups_that_lasts_is_told_until_it_is_over_or_the_key_is_another(store, clock):
    def paused(key="mine"):
        with store.read() as conn:
            return [pause.what for pause in status.snapshot(conn, ("default",), key).lookup_pauses]

    def pause(what, why):
        with store.write() as conn:
            return lookups.pause(conn, what, why, "a sentence", fingerprint("mine"), None)

    pause(lookups.ALL, "rate")
    assert paused() == []  # half a minute is nobody's business
    pause("account:acct_1", "account")
    assert paused() == []  # its owner's choice
    until = pause("permission:invoice", "permission")
    assert (paused(), paused("another"), paused(None)) == (["permission:invoice"], [], [])
    clock.set(until + 1_000)
    assert paused() == ["permission:invoice"]  # the next question is on its way
    clock.set(until + 61_000)
    assert paused() == []
    for _ in range(4):
        clock.set(pause(lookups.ALL, "rate") + 1)
    assert paused() == [lookups.ALL]
    with store.write() as conn:
        lookups.reopen(conn, [lookups.ALL])
    assert paused() == []


def test_attempts_and_the_goals_of_rules_are_all_counted_however_far_apart_they_are(store, rows, clock):
    ids = [2_000_000_000 + number for number in (0, 1, 19_999, 20_000, 900_000)]
    for number, goal in enumerate(ids):
        made = rows.goal(id=goal, rule_id=("a", "b")[number % 2], created_at_ms=clock.now_ms + number)
        rows.attempt(made, ("delivered", "not_sent")[number % 2], id=goal)
    rows.attempt(ids[0], None)
    with store.read() as conn:
        assert status.totals(conn).attempts == {("send", "delivered"): 3, ("send", "not_sent"): 2, ("send", ""): 1}
        found = tallies.last_goals(conn, clock.now_ms + 1)
    assert {(one.rule_id, one.lately, one.goal_id) for one in found} == {("a", 2, ids[4]), ("b", 2, ids[3])}
    assert {one.at_ms - clock.now_ms for one in found} == {4, 3}
