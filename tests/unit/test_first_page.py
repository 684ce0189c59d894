"""What the first page says: money, when a queue is drained, the steps of a first run, charts."""

from __future__ import annotations

from decimal import Decimal

import pytest
from identity_kit import rule_set

from bridge.model import Destination
from bridge.store.operator.tallies import Progress, Queue
from bridge.text import money
from bridge.web.console.home import chart
from bridge.workbench import overview, setting_up
from bridge.workbench.overview import GoalCounts, drain_sentence, unnamed_sales
from bridge.workbench.report import Money, Sum


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("1240.00", "USD", "$1,240"),
        ("1240.5", "usd", "$1,240.50"),
        ("9.99", "EUR", "€9.99"),
        ("0.125", "USD", "$0.125"),
        ("-9.00", "GBP", "-£9"),
        ("5000", "JPY", "¥5,000"),
        ("49.00", "CHF", "49 CHF"),
        ("1E+3", "", "1,000"),
    ],
)
def test_money_is_written_as_people_write_it(amount, currency, text):
    assert money(Decimal(amount), currency) == text


def test_sales_without_a_visitor_are_told_per_currency_and_counted_together():
    dollars, euros = Money("USD"), Money("EUR")
    dollars.without_visitor = Sum(3, Decimal("1240.00"))
    assert unnamed_sales([dollars]) == "$1,240 of sales this week without a visitor (3)"
    euros.without_visitor = Sum(1_000, Decimal(99))
    assert unnamed_sales([dollars, euros]) == "$1,240 and €99 of sales this week without a visitor (1,003)"
    assert unnamed_sales([]) == ""


TAKES = "At 58 requests per minute that takes about"
IF = ", if no more arrive and DataFast accepts each on the first try."


@pytest.mark.parametrize(
    ("queue", "state", "text"),
    [
        (Queue("default", parked=9, later=3), {}, "Nothing is due."),
        (
            Queue("default", due=58),
            {},
            TAKES + " 1 min" + IF,
        ),
        (
            Queue("default", due=58, looks=1),
            {},
            TAKES + " 2 min" + IF,
        ),
        (
            Queue("default", due=10_000),
            {"paused": True},
            "Nothing is sent during the pause. " + TAKES + " 2 hours 53 min once it ends.",
        ),
        (
            Queue("default", due=1),
            {"has_key": False, "paused": True},
            "Nothing is sent until the key is set. " + TAKES + " 1 min from then on.",
        ),
    ],
)
def test_a_queue_says_honestly_how_long_it_takes(queue, state, text):
    assert drain_sentence(queue, 58, **{"has_key": True, "paused": False, **state}) == text


def test_the_stand_of_goals_adds_up():
    assert GoalCounts(1, 2, 3, 4, 5).all == 15
    assert GoalCounts(1, 2, 3, 4, 5).others == 14


# ---------------------------------------------------------------------------------------------------- the first run


NOTHING = Progress(event=False, visitor=False, goal=False)
EVENT = Progress(event=True, visitor=False, goal=False)
VISITOR = Progress(event=True, visitor=True, goal=False)
GOAL = Progress(event=True, visitor=True, goal=True)


def checklist(seen=NOTHING, *, key="df_key", files=None, wrong=None):
    rules = rule_set(files)
    return overview.steps(
        seen,
        database="SQLite",
        destinations={"default": Destination("default", key)},
        setups=[setting_up.setup(rules, name, "https://hooks.example.com") for name in rules.sources],
        wrong=wrong or {},
    )


@pytest.mark.parametrize("seen", [NOTHING, EVENT, VISITOR, GOAL])
def test_each_step_is_done_by_what_it_is_about(seen):
    done = [step.done for step in checklist(seen)]
    assert done == [True, True, True, seen.event, seen.visitor, seen.goal]
    assert not checklist(seen, key=None)[1].done


def test_a_step_says_what_to_do_next_and_what_is_wrong():
    steps = checklist(wrong={"event": ["Source stripe refused the last 12 requests."], "goal": ["It is paused."]})
    assert "posts it to this URL" in steps[3].sentence
    assert [one.url for one in steps[3].setups] == ["https://hooks.example.com/webhooks/stripe"]
    assert steps[3].wrong == ("Source stripe refused the last 12 requests.",)
    assert "datafast_visitor_id" in steps[4].sentence
    assert steps[5].wrong == ("It is paused.",)
    assert "DATAFAST_API_KEY" in checklist(key=None)[1].sentence
    assert checklist(GOAL)[5].sentence == "DataFast accepted a goal."


def test_a_source_without_its_secret_is_listed_with_its_url_and_setting():
    from bridge import rules, sources

    bare = rules.load({"stripe.yaml": "provider: stripe\ngoals: []\n"}, {}, sources.presets())
    setups = [setting_up.setup(bare, "stripe", "https://hooks.example.com")]
    _, _, secret, event, *_ = overview.steps(NOTHING, database="SQLite", destinations={}, setups=setups, wrong={})
    assert (secret.done, secret.setups) == (False, tuple(setups))
    assert secret.setups[0].secret_names == ("STRIPE_WEBHOOK_SECRET",)
    assert event.sentence.startswith("As soon as a source has its secret")
    _, _, secret, *_ = overview.steps(NOTHING, database="SQLite", destinations={}, setups=[], wrong={})
    assert "bridge init" in secret.sentence


# ----------------------------------------------------------------------------------------------------------- charts


def test_bars_are_stacked_from_below_and_the_highest_fills_the_chart():
    drawn = chart([[("a", 30), ("b", 10)], [("a", 0), ("b", 0)], [("a", 20), ("b", 0)]], ["x", "y", "z"], 100)
    assert (drawn.peak, len(drawn.bars)) == (40, 3)
    full, none, half = drawn.bars
    assert [part.kind for part in full.parts] == ["a", "b"]
    assert full.parts[0].y + full.parts[0].height == pytest.approx(100)
    assert full.parts[1].y + full.parts[1].height == pytest.approx(full.parts[0].y)
    assert 0 <= full.parts[1].y <= 4
    assert none.parts == ()
    assert half.parts[0].height == pytest.approx(full.parts[0].height * 2 / 3, abs=0.1)


def test_one_beside_a_thousand_is_seen_and_nothing_leaves_the_chart():
    drawn = chart([[("a", 100_000), ("b", 1)]], ["x"], 64)
    assert all(part.height >= 2 and part.y >= 0 for bar in drawn.bars for part in bar.parts)
    assert chart([[("a", 0)]], ["x"], 64).peak == 0
