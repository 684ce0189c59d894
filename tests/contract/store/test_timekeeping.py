"""A clock that was wrong: what waited goes on, and nothing is forgotten or given up because of it."""

from __future__ import annotations

import itertools

import pytest
from cases_kit import one_in
from sqlalchemy import insert, select, update

from bridge import settings as bridge_settings
from bridge.alarms import _has_lost_its_secret
from bridge.store import clock as store_clock
from bridge.store import schema
from bridge.store.delivery import claims
from bridge.store.goals import parking
from bridge.store.inbox import counters
from bridge.store.inbox import statements as inbox_statements
from bridge.store.operator import status
from bridge.store.upkeep import jumps, timekeeping
from bridge.store.upkeep.ahead import corrections
from bridge.store.upkeep.timekeeping import Timekeeper

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
YEAR = 365 * DAY
SETTINGS = bridge_settings.load({})


class Host:
    """A machine with one process: its clock may be wrong, its monotonic one never is."""

    def __init__(self, store, clock):
        self.store, self.clock, self.monotonic_ms = store, clock, 0
        self.start()

    def start(self):
        """A process starts; what the one before knew about the clock is in the database."""
        self.keeper = Timekeeper(self.store, SETTINGS, monotonic_ms=lambda: self.monotonic_ms)
        self.keeper.check()

    def jump(self, ms):
        """The clock is set, at once."""
        self.clock.advance(ms)

    def run(self, ms, *, step=5 * SECOND):
        """Time passes, and the process looks at the clock, sweeps and forgets meanwhile; how often it forgot."""
        forgot = 0
        for passed in range(step, ms + 1, step):
            self.monotonic_ms += step
            self.clock.advance(step)
            self.keeper.check()
            self.sweep()
            if passed % MINUTE < step:
                forgot += self.keeper.forget(30) is not None
        return forgot

    def sweep(self):
        expiry_clock = self.keeper.expiry_clock
        self.store.run(lambda conn: claims.sweep(conn, settling_ms=30_000, expiry_clock=expiry_clock))
        self.store.run(lambda conn: parking.sweep(conn, SETTINGS, expiry_clock=expiry_clock))

    def stop(self, ms):
        """The process ends, and a new one starts so much later; the machine was off."""
        self.clock.advance(ms)
        self.start()


@pytest.fixture
def host(store, clock):
    return Host(store, clock)


def destination(store, **values):
    with store.write() as conn:
        conn.execute(insert(schema.destinations).values(name="default", **values))


def memory(store):
    with store.read() as conn:
        return jumps.recall(conn)


# ---------------------------------------------------------------------------------------------- times too far ahead

HOURS = 3 * HOUR  # further than any of them can be
KEY = {"key": "k", "question": "sessions", "goal_id": 1}
PAUSE = {"key_fingerprint": "f", "reason": "r", "failures": 1}
PROBLEM = {"key": "paused default", "sentence": "s", "detail": "d"}
ALERT = {
    "about": "a", "target": "t", "place": "slack (1)", "kind": "begin", "title": "t", "body": "b",
    "made_at_ms": 1, "due_at_ms": 1, "changed_at_ms": 1,
}  # fmt: skip
PROOF = {"destination": "default", "visitor": "v"}


def parked(**values):
    return {"state": "parked", "visitor": None, "wait_ms": 96 * HOUR, **values}


# table, what is stored (a function of now), the columns to look at, and what they must become, as a distance to now
WRONG = {
    "pace": ("pace", lambda now: {"token_hash": "t", "next_at_us": (now + HOUR) * 1000}, {"next_at_us": 2_068_966}),
    "pause": (
        "destinations",
        lambda now: {"name": "d", "not_before_ms": now + HOUR, "pause_kind": "failures"},
        {"not_before_ms": 0},
    ),
    "throttled": (
        "destinations",
        lambda now: {"name": "d", "not_before_ms": now + HOUR, "pause_kind": "throttled"},
        {"not_before_ms": 0},
    ),
    "a pause begun ahead": (
        "destinations",
        lambda now: {
            "name": "d",
            "not_before_ms": now + 11 * SECOND,
            "paused_since_ms": now + 6 * SECOND,
            "pause_kind": "failures",
        },
        {"not_before_ms": 0, "paused_since_ms": 0},
    ),
    "turn of the unknown": (
        "destinations",
        lambda now: {"name": "d", "unknown_turn_at_ms": now + HOUR},
        {"unknown_turn_at_ms": 0},
    ),
    "none known": ("destinations", lambda now: {"name": "d", "unknown_since_ms": now + HOUR}, {"unknown_since_ms": 0}),
    "lookup": ("lookups", lambda now: KEY | {"asked_at_ms": now, "again_at_ms": now + 25 * HOUR}, {"again_at_ms": 0}),
    "asked ahead": (
        "lookups",
        lambda now: KEY | {"asked_at_ms": now + HOUR, "again_at_ms": now + 2 * HOUR},
        {"asked_at_ms": 0, "again_at_ms": 0},
    ),
    "lookup pause": (
        "lookup_pauses",
        lambda now: PAUSE | {"what": "all", "since_ms": now, "until_ms": now + HOURS},
        {"until_ms": 0},
    ),
    "proof": ("visitor_proofs", lambda now: PROOF | {"made_at_ms": now, "again_at_ms": now + YEAR}, {"again_at_ms": 0}),
    "unknown visitor": ("unknown_visitors", lambda now: PROOF | {"at_ms": now + HOUR}, {"at_ms": 0}),
    "first message": (
        "first_messages",
        lambda now: {"source": "s", "token": "t", "sender": "a", "at_ms": now + HOUR},
        {"at_ms": 0},
    ),
    "process": (
        "workers",
        lambda now: {"id": "w", "kind": "web", "started_at_ms": now + HOUR, "seen_at_ms": now + HOUR},
        {"started_at_ms": 0, "seen_at_ms": 0},
    ),
    "problem": (
        "alert_problems",
        lambda now: PROBLEM | {"began_at_ms": now + HOUR, "gone_at_ms": now + HOUR, "told_at_ms": now + HOUR},
        {"began_at_ms": 0, "gone_at_ms": 0, "told_at_ms": 0},
    ),
    "alert due": ("alerts", lambda now: ALERT | {"state": "due", "due_at_ms": now + YEAR}, {"due_at_ms": 0}),
    "alert being sent": (
        "alerts",
        lambda now: ALERT | {"state": "sending", "changed_at_ms": now + YEAR},
        {"changed_at_ms": 0},
    ),
    "due": ("goals", lambda now: {"due_at_ms": now + YEAR}, {"due_at_ms": 0}),
    "read-back due": ("goals", lambda now: {"state": "unconfirmed", "due_at_ms": now + YEAR}, {"due_at_ms": 0}),
    "made ahead": (
        "goals",
        lambda now: {"due_at_ms": now + HOUR, "changed_at_ms": now + HOUR},
        {"due_at_ms": 0, "changed_at_ms": 0},
    ),
    "a pause of its own, ahead": (
        "goals",
        lambda now: {"due_at_ms": now + HOUR + 5 * SECOND, "changed_at_ms": now + HOUR},
        {"due_at_ms": 5 * SECOND},
    ),
    "asked about ahead": ("goals", lambda now: {"unknown_at_ms": now + HOUR}, {"unknown_at_ms": 0}),
    "leased": (
        "goals",
        lambda now: {"state": "leased", "lease_token": "t", "lease_until_ms": now + HOUR},
        {"lease_until_ms": 0},
    ),
    "sending": (
        "goals",
        lambda now: {"state": "sending", "lease_token": "t", "lease_until_ms": now + HOUR},
        {"lease_until_ms": MINUTE},
    ),
    "reading back": (
        "goals",
        lambda now: {"state": "unconfirmed", "lease_token": "t", "lease_until_ms": now + HOUR},
        {"lease_until_ms": 0},
    ),
    "parked": (
        "goals",
        lambda now: parked(parked_until_ms=now + YEAR, due_at_ms=now + YEAR),
        {"parked_until_ms": 96 * HOUR, "due_at_ms": 0},
    ),
    "grace": (
        "goals",
        lambda now: parked(parked_until_ms=now + 96 * HOUR, weak_at_ms=now + HOUR, due_at_ms=now + HOUR),
        {"weak_at_ms": 2 * MINUTE, "parked_until_ms": 96 * HOUR, "due_at_ms": 0},
    ),
    "look-up": (
        "goals",
        lambda now: parked(parked_until_ms=now + 96 * HOUR, look_up_at_ms=now + YEAR),
        {"look_up_at_ms": 0},
    ),
    "event": ("events", lambda now: {"lease_token": "t", "lease_until_ms": now + HOUR}, {"lease_until_ms": 0}),
}


def stored(rows, name, values):
    """The row, written as it is in the table of this name."""
    table = schema.metadata.tables[name]
    if name == "goals":
        return rows.goal(**values)
    if name == "events":
        rows.event()
        with rows.store.write() as conn:
            conn.execute(update(table).values(**values))
        return None
    with rows.store.write() as conn:
        conn.execute(insert(table).values(**values))
    return None


@pytest.mark.parametrize("what", one_in(4, sorted(WRONG)))
def test_a_time_that_can_never_have_been_set_is_brought_back_once(store, rows, clock, what):
    name, row, right = WRONG[what]
    stored(rows, name, row(clock.now_ms))
    ahead = corrections(SETTINGS)
    with store.write() as conn:
        assert ahead.needed(conn, clock.now_ms, cheap=False)
        assert ahead.bring_back(conn, clock.now_ms)
        assert not ahead.needed(conn, clock.now_ms, cheap=False)
        assert ahead.bring_back(conn, clock.now_ms) == {}
    (found,) = [row._mapping for row in rows.all(schema.metadata.tables[name])]
    now = clock.now_ms * 1000 if name == "pace" else clock.now_ms
    assert {column: found[column] - now for column in right} == right


# The same at their furthest: what a right clock sets is left alone.
RIGHT = {
    "pace": ("pace", lambda now: {"token_hash": "t", "next_at_us": now * 1000 + 2_068_966}),
    "pause": ("destinations", lambda now: {"name": "d", "not_before_ms": now + 5 * MINUTE, "pause_kind": "failures"}),
    "throttled": (
        "destinations",
        lambda now: {"name": "d", "not_before_ms": now + 15 * MINUTE, "pause_kind": "throttled"},
    ),
    "lookup": ("lookups", lambda now: KEY | {"asked_at_ms": now, "again_at_ms": now + DAY}),
    "account": ("lookup_pauses", lambda now: PAUSE | {"what": "account:a", "since_ms": now, "until_ms": now + DAY}),
    "retry": ("goals", lambda now: {"due_at_ms": now + round(1.2 * max(SETTINGS.bridge_retry_schedule.steps_ms))}),
    "leased": ("goals", lambda now: {"state": "leased", "lease_token": "t", "lease_until_ms": now + MINUTE}),
    "parked": (
        "goals",
        lambda now: parked(parked_until_ms=now + 96 * HOUR, weak_at_ms=now + 2 * MINUTE, due_at_ms=now + 2 * MINUTE),
    ),
    "not looked up": ("goals", lambda now: parked(parked_until_ms=now + 96 * HOUR, look_up_at_ms=now + 96 * HOUR)),
    "alert": ("alerts", lambda now: ALERT | {"state": "due", "due_at_ms": now + 15 * MINUTE}),
    "delivered": (
        "goals",
        lambda now: {"state": "delivered", "changed_at_ms": now + YEAR, "created_at_ms": now + YEAR},
    ),
}


@pytest.mark.parametrize("what", sorted(RIGHT))
def test_a_time_that_can_have_been_set_is_left_alone(store, rows, clock, what):
    name, row = RIGHT[what]
    stored(rows, name, row(clock.now_ms))
    with store.write() as conn:
        assert not corrections(SETTINGS).needed(conn, clock.now_ms, cheap=False)


def test_every_time_that_keeps_something_waiting_has_its_most():
    """A new column of a time is either among the corrections, or known to tell only what happened."""
    history = {
        "events": {"stated_at_ms", "order_at_ms", "received_at_ms", "routed_at_ms"},
        "goals": {
            "happened_at_ms",
            "ordered_at_ms",
            "created_at_ms",
            "expires_at_ms",
            "first_try_at_ms",
            "delivered_at_ms",
            "told_at_ms",
        },
        "alerts": {"made_at_ms"},
        "attempts": {"started_at_ms", "ended_at_ms", "server_started_at_ms"},
        "destinations": {"last_success_at_ms"},
        "rule_sets": {"accepted_at_ms"},
        "workers": {"started_at_ms"},
        "source_counters": {"last_refused_at_ms", "last_accepted_at_ms", "row_began_at_ms", "gaps_began_at_ms"},
        "link_keys": {"created_at_ms", "used_at_ms", "stopped_at_ms", "certain_at_ms"},
        "link_visitors": {"first_at_ms", "last_at_ms"},
        "visitor_proofs": {"made_at_ms"},
        "lookup_pauses": {"since_ms"},
        "sessions": {"created_at_ms", "seen_at_ms"},
        "changes": {"at_ms"},
    }
    lengths = {"wait_ms", "paused_ms", "pause_step_ms", "clock_skew_ms", "longest_gap_ms", "longest_gap_before_ms"}
    known = {name.split(" ")[0] for name in corrections(SETTINGS).names}
    known |= {f"{table}.{column}" for table, columns in history.items() for column in columns}
    times = {
        f"{table.name}.{column.name}"
        for table in schema.metadata.sorted_tables
        for column in table.c
        if column.name.endswith(("_ms", "_us")) and column.name not in lengths
    }
    assert times - known == set()


# ------------------------------------------------------------------------------------------------- ahead, then right


def test_an_hour_ahead_for_ten_seconds_keeps_nothing_waiting(store, rows, clock, host):
    destination(store)
    stored(rows, "pace", {"token_hash": "t", "next_at_us": 0})
    host.jump(HOUR)
    waiting = rows.goal()
    sent = rows.goal(once_key="k2", visitor="v2")
    with store.write() as conn:
        assert claims.claim(conn, destination="default", token_hash="t", token="x", lease_ms=MINUTE, rate=58)
    host.run(10 * SECOND)
    host.jump(-HOUR)
    host.run(10 * SECOND)
    with store.read() as conn:
        now = store_clock.read_ms(conn)
        assert conn.execute(select(schema.pace.c.next_at_us)).scalar() <= now * 1000
        goals = conn.execute(select(schema.goals).where(schema.goals.c.id.in_((waiting, sent)))).all()
    assert [row.due_at_ms <= now for row in goals] == [True, True]
    waits, under_way = sorted(goals, key=lambda row: row.state)
    assert (waits.state, under_way.state) == ("pending", "sending")
    # Whoever claimed it may be waiting for the answer: as long as for any request, and no longer.
    assert under_way.lease_until_ms <= now + SETTINGS.bridge_lease


def everything(store, rows):
    """One of each thing that forgetting takes, just used."""
    event = rows.routed()
    goal = rows.goal(event, state="delivered")
    rows.attempt(goal)
    now = rows.clock.now_ms
    with store.write() as conn:
        key = {
            "key": "k",
            "kind": "subscription",
            "ref": "sub_1",
            "thread": "k",
            "created_at_ms": now,
            "used_at_ms": now,
            "uses": 1,
        }
        conn.execute(insert(schema.link_keys).values(**key))
        conn.execute(insert(schema.lookups).values(**KEY, asked_at_ms=now, again_at_ms=now))
        conn.execute(insert(schema.unknown_visitors).values(**PROOF, at_ms=now))
        conn.execute(insert(schema.visitor_proofs).values(**PROOF, known=True, made_at_ms=now, again_at_ms=now))
        conn.execute(insert(schema.first_messages).values(source="s", token="t", sender="a", at_ms=now))


def left(rows):
    names = (
        "events",
        "goals",
        "attempts",
        "link_keys",
        "lookups",
        "unknown_visitors",
        "visitor_proofs",
        "first_messages",
    )
    bodies = sum(row.body is not None for row in rows.all(schema.events))
    return {name: rows.count(schema.metadata.tables[name]) for name in names} | {"bodies": bodies}


def test_500_days_ahead_for_a_minute_takes_nothing(store, rows, host):
    everything(store, rows)
    whole = left(rows)
    host.jump(500 * DAY)
    assert host.run(MINUTE) == 0
    host.jump(-500 * DAY)
    assert host.run(MINUTE) == 0
    assert left(rows) == whole
    assert memory(store).wait.why == "jumped"


class Stopped(Timekeeper):
    """Of a process that is stopped inside a round of forgetting; the clock is set meanwhile."""

    asked, clock = 0, None

    def _has_not_jumped(self, conn):
        self.asked += 1
        if self.asked == 2:
            self.clock.advance(-60 * DAY)
        return super()._has_not_jumped(conn)


def test_a_round_of_forgetting_ends_where_the_clock_was_set_meanwhile(store, rows, clock, host):
    goal = rows.goal(rows.routed(), state="delivered")
    rows.attempt(goal)
    host.keeper = Stopped(store, SETTINGS, monotonic_ms=lambda: host.monotonic_ms)
    host.keeper.clock = clock
    host.keeper.check()
    host.keeper.asked = 10
    host.run(29 * DAY, step=DAY)
    host.monotonic_ms += 2 * DAY
    clock.advance(2 * DAY)
    host.keeper.check()
    host.keeper.asked = 0
    done = host.keeper.forget(30)
    assert host.keeper.asked > 2
    assert done["bodies"] == 1  # before it was stopped
    assert done["attempts"] == 0
    assert left(rows)["attempts"] == 1


def test_the_moment_of_a_jump_takes_nothing_either(store, rows, clock, host):
    """Between a look at the clock and what is decided by it, the clock may be set."""
    everything(store, rows)
    pending, parked_ = rows.goal(once_key="k2"), rows.goal(once_key="k3", **parked(parked_until_ms=clock.now_ms + DAY))
    whole = left(rows)
    host.jump(500 * DAY)
    host.sweep()
    assert host.keeper.forget(30) is None
    assert left(rows) == whole
    states = {row.id: row.state for row in rows.all(schema.goals)}
    assert (states[pending], states[parked_]) == ("pending", "parked")


def test_what_was_held_for_a_clock_ahead_is_let_go(store, rows, clock, host):
    goal = rows.goal(due_at_ms=clock.now_ms + MINUTE)
    host.jump(500 * DAY)
    host.run(10 * SECOND)
    held = rows.one(schema.goals, goal)
    assert (held.state, held.reason) == ("held", "clock")
    assert "goals retry" in held.message
    host.jump(-500 * DAY)
    host.run(10 * SECOND)
    assert rows.one(schema.goals, goal).state == "pending"


def test_a_wait_for_a_visitor_is_as_long_as_it_would_have_been(store, rows, clock, host):
    until = clock.now_ms + 3 * DAY
    goal = rows.goal(**parked(parked_until_ms=until, due_at_ms=until))
    host.jump(10 * YEAR)
    host.run(MINUTE)
    assert rows.one(schema.goals, goal).parked_until_ms == until + 10 * YEAR
    host.jump(-10 * YEAR)
    host.run(MINUTE)
    row = rows.one(schema.goals, goal)
    assert row.state == "parked"
    assert until <= row.parked_until_ms <= clock.now_ms + 96 * HOUR


def test_tries_of_a_goal_are_not_over_because_of_a_jump(store, rows, clock, host):
    goal = rows.goal(first_try_at_ms=clock.now_ms - HOUR, attempts=3)
    host.jump(30 * DAY)
    host.run(10 * SECOND)
    assert clock.now_ms - rows.one(schema.goals, goal).first_try_at_ms == HOUR + 10 * SECOND
    host.jump(-30 * DAY)
    host.run(10 * SECOND)
    assert 0 <= clock.now_ms - rows.one(schema.goals, goal).first_try_at_ms <= HOUR + 20 * SECOND


# ------------------------------------------------------------------------------------------------ behind, then right


def test_ten_years_behind_then_right_loses_nothing(store, rows, clock, host):
    everything(store, rows)
    whole = left(rows)
    host.jump(-10 * YEAR)
    host.run(MINUTE)
    now = clock.now_ms
    unstated = rows.goal(once_key="k2")
    waits = rows.goal(once_key="k3", **parked(parked_until_ms=now + 96 * HOUR, due_at_ms=now + 96 * HOUR))
    late = rows.goal(once_key="k4", expires_at_ms=now + 10 * YEAR + 7 * DAY)
    host.jump(10 * YEAR)
    host.run(MINUTE)
    states = {row.id: (row.state, row.reason) for row in rows.all(schema.goals)}
    assert states[unstated] == ("held", "clock")
    assert states[waits] == ("parked", None)
    assert states[late] == ("pending", None)
    host.run(3 * DAY, step=6 * HOUR)
    assert {name: left(rows)[name] - count for name, count in whole.items() if name in ("events", "link_keys")} == {
        "events": 2,
        "link_keys": 0,
    }


def test_a_wait_that_begins_after_the_jump_for_an_event_from_before_it_is_given_too(store, rows, clock, host):
    host.jump(-10 * YEAR)
    host.run(10 * SECOND)
    until = clock.now_ms + 96 * HOUR
    host.jump(10 * YEAR)
    host.run(10 * SECOND)
    goal = rows.goal(**parked(parked_until_ms=until, due_at_ms=until))
    host.run(10 * SECOND)
    row = rows.one(schema.goals, goal)
    assert (row.state, row.parked_until_ms > clock.now_ms + 95 * HOUR) == ("parked", True)


# -------------------------------------------------------------------------------------------------------- a stop


def test_a_stop_of_30_days_loses_nothing_at_the_start(store, rows, clock, host):
    everything(store, rows)
    pending = rows.goal(once_key="k2")
    waits = rows.goal(once_key="k3", **parked(parked_until_ms=clock.now_ms + DAY, due_at_ms=clock.now_ms + DAY))
    whole = left(rows)
    host.stop(30 * DAY)
    assert host.run(MINUTE) == 0
    assert left(rows) == whole
    states = {row.id: (row.state, row.reason) for row in rows.all(schema.goals)}
    assert (states[pending], states[waits]) == (("held", "clock"), ("parked", None))


def test_what_another_process_made_while_goals_were_held_is_not_given_up(store, rows, clock, host):
    goal = rows.goal(state="cancelled")
    host.stop(30 * DAY)

    def meanwhile(conn):
        conn.exec_driver_sql("UPDATE goals SET state = 'pending'")
        return host.keeper.expiry_clock(conn)

    swept = store.run(lambda conn: claims.sweep(conn, settling_ms=30_000, expiry_clock=meanwhile))
    assert (swept, rows.one(schema.goals, goal).state) == (([], [], []), "pending")
    host.sweep()
    assert (rows.one(schema.goals, goal).state, rows.one(schema.goals, goal).reason) == ("held", "clock")


def test_a_stop_of_six_days_is_a_stop(store, rows, clock, host):
    goal = rows.goal(expires_at_ms=clock.now_ms + DAY)
    host.stop(6 * DAY)
    assert host.run(MINUTE) > 0
    assert rows.one(schema.goals, goal).state == "expired"


def test_forgetting_goes_on_after_24_hours_of_running(host):
    host.stop(30 * DAY)
    assert host.run(20 * HOUR, step=4 * HOUR) == 0
    assert host.run(8 * HOUR, step=2 * HOUR) > 0


def test_running_is_added_up_over_restarts(host):
    host.stop(30 * DAY)
    for _ in range(23):
        assert host.run(HOUR, step=HOUR) == 0
        host.stop(0)
    assert host.run(2 * HOUR, step=30 * MINUTE) > 0


@pytest.mark.parametrize("restarts", [True, pytest.param(False, marks=pytest.mark.long)])
def test_it_goes_on_within_seven_days_on_a_host_that_sleeps_most_of_the_day(host, restarts):
    awake = 2 * MINUTE
    host.stop(30 * DAY)
    times = []
    for hours in range(0, 24 * 15, 12):
        if host.run(awake, step=awake // 2):
            times.append(hours / 24)
        host.jump(12 * HOUR - awake)  # asleep, or off: the monotonic clock stands still
        if restarts:
            host.start()
    assert times
    assert times[0] <= 7
    assert max(later - before for before, later in itertools.pairwise(times)) <= 7.5


def test_two_processes_see_to_a_jump_once_and_count_its_running_once(store, rows, clock, host):
    goal = rows.goal(**parked(parked_until_ms=clock.now_ms + DAY))
    other = Timekeeper(store, SETTINGS, monotonic_ms=lambda: host.monotonic_ms)
    other.check()
    until = rows.one(schema.goals, goal).parked_until_ms
    host.jump(YEAR)
    host.monotonic_ms += 2 * SECOND
    host.keeper.check()
    other.check()
    assert rows.one(schema.goals, goal).parked_until_ms == until + YEAR - 2 * SECOND
    assert memory(store).moved_ms == YEAR - 2 * SECOND
    for _ in range(10):
        host.run(MINUTE, step=MINUTE)
        other.check()
        assert other.forget(30) is None
    assert memory(store).wait.ran_ms <= 11 * MINUTE


def test_the_heartbeat_is_the_newest_stored_time_to_the_hour(store, clock, host):
    began = clock.now_ms
    host.run(50 * MINUTE, step=10 * MINUTE)
    assert memory(store).heartbeat_ms == began
    host.run(10 * MINUTE, step=10 * MINUTE)
    assert memory(store).heartbeat_ms == began + HOUR


def test_a_database_of_a_release_without_a_heartbeat_tells_by_its_newest_event(store, rows, clock):
    rows.event()
    clock.advance(30 * DAY)
    Host(store, clock)
    assert memory(store).wait.why == "stopped"


def test_a_new_database_has_nothing_to_wait_for(store, clock):
    host = Host(store, clock)
    assert host.run(MINUTE) > 0
    assert memory(store).wait is None


def test_a_jump_of_less_than_an_hour_changes_nothing(store, host):
    host.jump(timekeeping.JUMP_MS - MINUTE)
    assert host.run(MINUTE) > 0
    assert (memory(store).gaps, memory(store).wait) == ((), None)


def test_a_machine_that_was_suspended_takes_no_distance_to_another_clock_for_known(store, host):
    """Its clock and DataFast's went on together, which nobody can tell from a clock that was set."""
    destination(store, clock_skew_ms=3 * SECOND)
    host.run(MINUTE)
    host.jump(2 * HOUR)  # by the monotonic clock
    with store.read() as conn:
        assert host.keeper.trusted_clock(conn) is None
    host.run(5 * SECOND)
    with store.read() as conn:
        assert conn.execute(select(schema.destinations.c.clock_skew_ms)).scalar_one() is None
    with store.read() as conn:
        assert host.keeper.trusted_clock(conn) == store_clock.read_ms(conn)


def refuse(store):
    with store.write() as conn:
        counters.refused(conn, "stripe", count=1, in_row=1, reason="the signature does not match")


def hear(store):
    store.run_driver(lambda driver: driver.execute(inbox_statements.STORED, ("stripe", 1, 0)))


def silent(store):
    """Is the source taken to have lost its secret?"""
    with store.read() as conn:
        check = status.snapshot(conn, ())
    return _has_lost_its_secret(check.sources[0], check.now_ms)


def test_a_clock_ahead_for_a_minute_makes_no_source_silent(store, host):
    hear(store)
    host.run(MINUTE)
    hear(store)
    for _ in range(6):
        refuse(store)
        host.run(3 * MINUTE)
    host.jump(500 * DAY)
    host.run(MINUTE)
    refuse(store)
    assert not silent(store)


@pytest.mark.long
def test_a_stop_of_30_days_makes_no_source_silent(store, host):
    hear(store)
    host.run(MINUTE)
    hear(store)
    refuse(store)
    host.stop(30 * DAY)
    for _ in range(5):
        refuse(store)
        host.run(3 * MINUTE)
    assert not silent(store)


@pytest.mark.long
def test_a_swapped_secret_is_told_in_time_though_the_clock_was_ahead(store, host):
    hear(store)
    host.run(MINUTE)
    hear(store)
    host.jump(500 * DAY)
    host.run(MINUTE)
    hear(store)
    refuse(store)
    host.jump(-500 * DAY)
    host.run(MINUTE)
    for _ in range(6):
        refuse(store)
        host.run(30 * MINUTE, step=MINUTE)
    assert silent(store)
