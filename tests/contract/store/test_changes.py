"""What people changed: newest first, in pages, without addresses, removed with the person and after 400 days."""

from __future__ import annotations

from bridge.store.operator import changes, forgetting
from bridge.store.operator.forgetting import Person
from bridge.store.upkeep import retention

ANN = "00000000-0000-4000-8000-00000000000a"


def record(store, *sentences, about="goal_1"):
    for sentence in sentences:
        store.run(lambda conn, sentence=sentence: changes.record(conn, "retry", about, sentence))


def told(store, limit=50, before=None):
    with store.read() as conn:
        return changes.recent(conn, limit, before)


def test_the_newest_comes_first_a_page_at_a_time(store, clock):
    for number in range(5):
        record(store, f"change {number}")
        clock.advance(1_000)
    first = told(store, 2)
    assert [one.sentence for one in first] == ["change 4", "change 3"]
    assert first[0].at_ms - first[1].at_ms == 1_000
    assert [one.sentence for one in told(store, 9, first[-1].id)] == ["change 2", "change 1", "change 0"]


def test_what_touches_many_rows_is_one_change_that_grows_with_each(store):
    seen = []

    def act(conn, number):
        seen.append([one.sentence for one in changes.recent(conn, 9)])
        return number

    rows = [(number, f"goal_{number}") for number in range(1, 6)]
    said = {2: "is sent now"}.get
    assert changes.act_on_each(store, "retry", rows, act, said, "are sent now") == [1, 2, 3, 4, 5]
    assert seen == [[], [], *[["goal_2 is sent now."]] * 3]
    changes.act_on_each(store, "retry", rows, act, lambda _number: "is sent now", "are sent now")
    assert seen[-1] == ["goal_1, goal_2, goal_3 and 1 more are sent now.", "goal_2 is sent now."]
    assert [one.about for one in told(store)] == ["goal_1", "goal_2"]


def test_no_row_holds_an_address(store):
    record(
        store,
        "shop:live:customer:Ann.Lee+x@example.com leads to a visitor.",
        about="shop:live:customer:Ann.Lee+x@example.com",
    )
    (row,) = told(store)
    assert (row.about, row.sentence) == (
        "shop:live:customer:A…@…",
        "shop:live:customer:A…@… leads to a visitor.",
    )


def test_they_go_after_400_days_and_not_before(store, clock):
    record(store, "old")
    clock.advance(1)
    record(store, "young")
    clock.advance(400 * retention.DAY_MS - 1)
    assert retention.purge(store, 30)["changes"] == 1
    assert [one.sentence for one in told(store)] == ["young"]


def test_with_a_person_goes_what_was_changed_about_them_and_nothing_else(store):
    record(
        store,
        "user:default:live:user_1 leads to a visitor.",
        f"stripe:live:cus_9 leads to {ANN.upper()}.",
        "user:default:live:user_12 is cut.",
        "goal_1 is sent.",
    )
    person = Person(visitors={ANN}, keys={"user:default:live:user_1"}, goals={1})
    store.run(lambda conn: forgetting.remove(conn, person))
    assert [one.sentence for one in told(store)] == ["goal_1 is sent.", "user:default:live:user_12 is cut."]


def test_a_bound_on_many_rows(store):
    record(store, *[f"stripe:live:cus_{number} is forgotten." for number in range(450)], "goal_1 is sent.")
    keys = {f"stripe:live:cus_{number}" for number in range(450)}
    store.run(lambda conn: forgetting.remove(conn, Person(keys=keys)))
    assert [one.sentence for one in told(store)] == ["goal_1 is sent."]
