"""Read-back, sentence by sentence of ADR 5, and its laws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.datafast.goal import SentGoal, recognize
from bridge.model import CompletedGoal

if TYPE_CHECKING:
    import random

T = 1_790_000_000_000
WHEN = (T, T + 2_000)  # from T - 10 s to T + 12 s


def entry(at_ms=T + 1_000, description=None, name="purchase", by_server=None, event_id=None):
    return CompletedGoal(name, at_ms, description, by_server, event_id)


def goal(goal_id=1, description="stripe evt_1", when=WHEN):
    return SentGoal(description, when, goal_id)


def decided(entries, *goals, owned=()):
    settlement = recognize(entries, name="purchase", unconfirmed=goals or [goal()], owned=owned)
    return set(settlement.delivered), set(settlement.absent), set(settlement.unclear)


# ------------------------------------------------------------------------------------------------------ the window


@pytest.mark.parametrize(
    ("at_ms", "found"),
    [(T - 10_001, False), (T - 10_000, True), (T, True), (T + 12_000, True), (T + 12_001, False)],
)
def test_an_entry_counts_from_ten_seconds_before_the_attempt_to_ten_after_its_end(at_ms, found):
    assert decided([entry(at_ms)])[0] == ({1} if found else set())


# --------------------------------------------------------------------------------------------- which entries count


def test_an_entry_of_another_name_does_not_count():
    assert decided([entry(name="refund")]) == (set(), {1}, set())


def test_an_entry_of_the_browser_does_not_count():
    assert decided([entry(by_server=False, description="stripe evt_1")]) == (set(), {1}, set())


@pytest.mark.parametrize("by_server", [True, None])
def test_an_entry_of_a_server_or_of_nobody_said_counts(by_server):
    assert decided([entry(by_server=by_server)])[0] == {1}


def test_an_entry_with_another_description_does_not_count():
    assert decided([entry(description="stripe evt_2")]) == (set(), {1}, set())


def test_an_entry_without_a_description_is_not_another():
    assert decided([entry(description=None)])[0] == {1}


@pytest.mark.parametrize("kept", ["stripe evt_1 R&D <b>", "stripe evt_1 RD b", " stripe  evt_1 RD b "])
def test_a_description_counts_as_datafast_keeps_it(kept):
    assert decided([entry(description=kept)], goal(description="stripe evt_1 R&D <b>"))[0] == {1}


# ---------------------------------------------------------------------------------------------- k of them are left


def test_of_two_goals_and_one_entry_without_description_the_older_is_delivered():
    older, newer = goal(1, "stripe evt_1", (T, T + 500)), goal(2, "stripe evt_2", (T + 600, T + 900))
    assert decided([entry()], newer, older) == ({1}, {2}, set())


def test_the_description_beats_the_age():
    older, newer = goal(1, "stripe evt_1"), goal(2, "stripe evt_2")
    assert decided([entry(description="stripe evt_2")], older, newer) == ({2}, {1}, set())


def test_an_entry_with_a_description_leaves_the_other_to_the_other_goal():
    older, newer = goal(1, "stripe evt_1"), goal(2, "stripe evt_2")
    entries = [entry(description=None), entry(description="stripe evt_1")]
    assert decided(entries, older, newer) == ({1, 2}, set(), set())


def test_an_entry_outside_a_goals_window_is_not_its_own_however_old_it_is():
    first, second = goal(1, "a", (T, T)), goal(2, "b", (T + 600_000, T + 600_000))
    assert decided([entry(T + 600_000)], first, second) == ({2}, {1}, set())


def test_the_entry_that_vouches_is_told():
    settlement = recognize([entry(event_id="abc")], name="purchase", unconfirmed=[goal()])
    assert settlement.delivered[1].event_id == "abc"


# ------------------------------------------------------------------------------------ what the ledger owns already


def test_an_entry_that_the_ledger_owns_by_its_id_does_not_count():
    owned = [SentGoal("stripe evt_9", WHEN, event_id="abc")]
    assert decided([entry(event_id="abc")], owned=owned) == (set(), {1}, set())


def test_an_entry_that_the_ledger_owns_by_time_does_not_count():
    assert decided([entry()], owned=[SentGoal("stripe evt_9", WHEN)]) == (set(), {1}, set())


def test_of_two_entries_one_is_owned_and_one_is_left():
    assert decided([entry(), entry(T + 1_500)], owned=[SentGoal("stripe evt_9", WHEN, event_id="abc")])[0] == {1}


def test_an_owned_goal_takes_the_entry_of_its_description_and_leaves_the_other():
    entries = [entry(description=None), entry(description="stripe evt_9")]
    assert decided(entries, owned=[SentGoal("stripe evt_9", WHEN)])[0] == {1}


def test_an_owned_goal_of_another_time_takes_nothing():
    assert decided([entry()], owned=[SentGoal("stripe evt_9", (T - 900_000, T - 899_000))])[0] == {1}


def test_an_owned_id_that_is_not_in_the_list_takes_no_other_entry():
    owned = [SentGoal("stripe evt_9", WHEN, event_id="gone")]
    assert decided([entry(event_id="abc")], owned=owned)[0] == {1}


def test_the_same_description_twice_needs_two_entries():
    """Two rules of one event may send the same name."""
    first, second = goal(1, "stripe evt_1"), goal(2, "stripe evt_1")
    one = [entry(description="stripe evt_1")]
    assert decided(one, first, second) == ({1}, {2}, set())
    assert decided([*one, entry(T + 1_100, "stripe evt_1")], first, second) == ({1, 2}, set(), set())


# ------------------------------------------------------------------------------------------------- entries undated


def test_an_undated_entry_with_the_description_is_enough():
    assert decided([entry(None, "stripe evt_1")])[0] == {1}


def test_an_undated_entry_without_description_leaves_it_unclear():
    assert decided([entry(None)]) == (set(), set(), {1})


def test_an_undated_entry_with_another_description_means_absent():
    assert decided([entry(None, "stripe evt_7")]) == (set(), {1}, set())


def test_nothing_there_means_absent():
    assert decided([]) == (set(), {1}, set())


# -------------------------------------------------------------------------------------------------------- the laws

DESCRIPTIONS = st.sampled_from(["a", "b", "c"])
TIMES = st.integers(0, 60_000).map(lambda ms: T + ms)
WINDOWS = st.tuples(TIMES, st.integers(0, 5_000)).map(lambda pair: (pair[0], pair[0] + pair[1]))
ENTRIES = st.lists(
    st.builds(
        entry,
        st.none() | TIMES,
        st.none() | DESCRIPTIONS,
        st.sampled_from(["purchase", "purchase", "refund"]),
        st.sampled_from([None, True, False]),
        st.none() | st.sampled_from(["x", "y", "z"]),
    ),
    max_size=8,
)
GOALS = st.lists(st.tuples(DESCRIPTIONS, WINDOWS), min_size=1, max_size=6).map(
    lambda rows: [SentGoal(description, when, number) for number, (description, when) in enumerate(rows)]
)
OWNED = st.lists(
    st.builds(SentGoal, DESCRIPTIONS, WINDOWS, event_id=st.none() | st.sampled_from(["x", "y", "w"])), max_size=5
)


@given(ENTRIES, GOALS, OWNED)
def test_never_more_delivered_than_entries_and_each_entry_once(entries, goals, owned):
    settlement = recognize(entries, name="purchase", unconfirmed=goals, owned=owned)
    pool = list(entries)
    for found in settlement.delivered.values():
        pool.remove(found)  # raises when an entry was used twice
        assert found.name == "purchase"
        assert found.by_server is not False
    decided_ids = [*settlement.delivered, *settlement.absent, *settlement.unclear]
    assert sorted(decided_ids) == [goal.goal_id for goal in goals]


@given(ENTRIES, GOALS, OWNED, st.randoms(use_true_random=False))
def test_the_verdict_does_not_depend_on_any_order(entries, goals, owned, dice: random.Random):
    before = recognize(entries, name="purchase", unconfirmed=goals, owned=owned)
    for rows in (entries, goals, owned):
        dice.shuffle(rows)
    after = recognize(entries, name="purchase", unconfirmed=goals, owned=owned)
    assert (set(before.delivered), before.absent, before.unclear) == (
        set(after.delivered),
        after.absent,
        after.unclear,
    )


@given(ENTRIES, GOALS, OWNED)
def test_what_the_ledger_owns_never_makes_more_delivered(entries, goals, owned):
    with_owned = recognize(entries, name="purchase", unconfirmed=goals, owned=owned)
    without = recognize(entries, name="purchase", unconfirmed=goals)
    assert len(with_owned.delivered) <= len(without.delivered)


@given(GOALS, st.data())
def test_every_goal_that_was_recorded_with_its_description_is_found(goals, data):
    """Recorded goals echo their description within their window, so none of them is absent."""
    recorded = data.draw(st.lists(st.sampled_from(goals), unique=True))
    entries = [entry(goal.window[0], goal.description) for goal in recorded]
    settlement = recognize(entries, name="purchase", unconfirmed=goals)
    assert len(settlement.delivered) == len(recorded)


def test_hundreds_of_goals_of_one_visitor_are_settled_at_once():
    goals = [goal(number, f"d{number % 7}") for number in range(400)]
    entries = [entry(T + number, None if number % 3 else f"d{number % 7}") for number in range(400)]
    owned = [SentGoal("old", WHEN) for _ in range(100)]
    settlement = recognize(entries, name="purchase", unconfirmed=goals, owned=owned)
    assert len(settlement.delivered) == 300
