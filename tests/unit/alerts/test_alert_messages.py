"""When a problem is told, and what a message says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.alarms import Alarm
from bridge.alerts import messages
from bridge.alerts.messages import GoalStory, key_of, news, plain, step, value
from bridge.identity.choice import FoundVisitor

HOLD, HOUR = messages.HOLD_MS, messages.REPEAT_MS
PAUSED = Alarm("paused", "A destination is paused.", "Destination default has been paused for 5 s: 401", "default")
OTHER = Alarm("paused", "A destination is paused.", "Destination eu has been paused for 5 s: 401", "eu")


class Watch:
    """What is remembered from look to look."""

    def __init__(self):
        self.known, self.now_ms, self.told = {}, 1_790_000_000_000, []

    def look(self, *alarms, after_ms=5_000):
        self.now_ms += after_ms
        found = step(self.known, {key_of(alarm): alarm for alarm in alarms}, self.now_ms)
        self.known |= {problem.key: problem for problem in found.remembered}
        for key in found.forgotten:
            del self.known[key]
        self.told += found.messages
        return [message.kind for message in found.messages]

    def lasts(self, ms, *alarms):
        """Looks every 5 s for so long; what was told meanwhile."""
        return [kind for _ in range(ms // 5_000) for kind in self.look(*alarms)]


def test_a_problem_is_told_once_when_it_has_lasted_and_once_when_it_is_over():
    watch = Watch()
    assert watch.look(PAUSED) == []
    assert watch.lasts(HOLD - 5_000, PAUSED) == []
    assert watch.look(PAUSED) == ["begin"]
    assert watch.lasts(HOUR * 5, PAUSED) == []
    assert watch.lasts(HOLD) == []
    assert watch.look() == ["over"]
    assert watch.lasts(HOUR * 2) == []
    assert watch.known == {}


def test_what_passes_sooner_is_not_told():
    watch = Watch()
    assert watch.lasts(HOLD, PAUSED) == []
    assert watch.lasts(HOUR) == []
    assert watch.known == {}


def test_a_problem_that_comes_back_before_its_end_was_told_is_the_same_one():
    watch = Watch()
    assert watch.lasts(HOLD + 5_000, PAUSED) == ["begin"]
    assert watch.lasts(HOLD - 5_000) == []
    assert watch.lasts(HOUR * 2, PAUSED) == []


def test_one_that_flaps_within_the_hold_is_still_told():
    watch = Watch()
    kinds = []
    for _ in range(20):
        kinds += watch.lasts(15_000, PAUSED) + watch.lasts(10_000)
    assert kinds == ["begin"]


def test_a_problem_that_comes_and_goes_is_told_to_begin_at_most_once_an_hour():
    watch = Watch()
    kinds = []
    for _ in range(60):  # five hours
        kinds += watch.lasts(150_000, PAUSED) + watch.lasts(150_000)
    assert kinds == ["begin", "over"] * 5


def test_one_that_still_holds_at_the_end_of_the_hour_is_told_then():
    watch = Watch()
    assert watch.lasts(60_000, PAUSED) + watch.lasts(60_000) == ["begin", "over"]
    assert watch.lasts(HOUR - 120_000, PAUSED) == []
    assert watch.lasts(60_000, PAUSED) == ["begin"]


def test_two_things_with_one_sentence_are_two_problems():
    watch = Watch()
    assert watch.lasts(HOLD + 5_000, PAUSED, OTHER) == ["begin", "begin"]
    assert watch.lasts(HOLD + 5_000, OTHER) == ["over"]
    assert "(default)" in watch.told[-1].body


def test_the_messages_of_a_problem_have_unlike_names():
    watch = Watch()
    for _ in range(3):
        watch.lasts(60_000, PAUSED)
        watch.lasts(HOUR)
    assert len({message.about for message in watch.told}) == len(watch.told) == 6


def test_the_end_withdraws_the_beginning_that_was_not_sent_yet():
    watch = Watch()
    watch.lasts(60_000, PAUSED)
    watch.lasts(HOLD)
    last = step(watch.known, {}, watch.now_ms + 5_000)
    assert last.over == (watch.told[0].about,)


def test_a_clock_that_was_ahead_silences_nothing():
    watch = Watch()
    watch.lasts(HOLD + 5_000, PAUSED)
    watch.lasts(HOUR)
    watch.lasts(HOLD, PAUSED)  # remembered, and then the clock is put back by a day
    watch.now_ms -= 24 * HOUR
    assert watch.lasts(HOLD + 10_000, PAUSED) == ["begin"]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=60))
def test_beginnings_and_ends_take_turns_and_keep_their_hour(spells):
    watch = Watch()
    began = []
    for there, looks in spells:
        for _ in range(looks):
            for kind in watch.look(*([PAUSED] if there else [])):
                began += [watch.now_ms] if kind == "begin" else []
    kinds = [message.kind for message in watch.told]
    assert kinds == ["begin", "over"] * (len(kinds) // 2) + ["begin"] * (len(kinds) % 2)
    assert all(later - earlier >= HOUR for earlier, later in itertools.pairwise(began))


def test_a_beginning_says_the_sentence_the_detail_and_the_time():
    watch = Watch()
    watch.lasts(HOLD + 5_000, PAUSED)
    message = watch.told[0]
    assert message.title == "A destination is paused."
    assert message.body.splitlines() == [
        "A destination is paused.",
        "Destination default has been paused for 5 s: 401",
        f"It began at {messages.clock(watch.known['paused default'].began_at_ms)}.",
    ]


def test_a_detail_that_begins_with_its_sentence_says_it_once():
    watch = Watch()
    sentence = "6 of the last 8 purchases of stripe named no visitor: is the visitor handed over at checkout?"
    watch.lasts(HOLD + 5_000, Alarm("attribution", sentence, f"{sentence} The likely cause: x.", "stripe"))
    assert watch.told[0].body.count("6 of the last 8") == 1


# ------------------------------------------------------------------------------------------------------ good news


def story(**values):
    given = {
        "goal_id": 7,
        "name": "purchase",
        "source": "stripe",
        "metadata": {"amount": "1240.00", "currency": "USD", "plan": "pro"},
        "visitor": "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
        "found": FoundVisitor("1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", "own", path="data.object.metadata.x"),
        "created_at_ms": 1,
    }
    return GoalStory(**{**given, **values})


def test_good_news_says_what_whose_and_since_when():
    found = FoundVisitor(
        "v", "customer", kind="customer", ref="cus_secret", event="a.b evt_secret", before_ms=86_400_000
    )
    message = news(
        story(found=found, first_event="form_response", first_source="tally", first_before_ms=19 * 86_400_000)
    )
    assert message.title == "purchase 1,240.00 USD"
    assert message.body.splitlines() == [
        "purchase 1,240.00 USD, plan pro, from stripe (goal_7)",
        "Visitor: 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed, found through its customer, learned from a.b, 1 day before.",
        "First known from form_response of tally, 19 days before.",
    ]
    assert "secret" not in message.body


def test_good_news_without_a_visitor_or_a_past():
    assert news(story(visitor=None, found=None)).body.splitlines()[1:] == [
        "Visitor: not known.",
        "Nothing was known of them before.",
    ]


@pytest.mark.parametrize(
    ("metadata", "title"),
    [
        ({"amount": "29", "currency": "USD"}, "purchase 29 USD"),
        ({"amount": "-1234567.5", "currency": "EUR"}, "purchase -1,234,567.5 EUR"),
        ({"amount": "1E999999", "currency": "EUR"}, "purchase 1E999999 EUR"),
        ({"amount": "NaN", "currency": "EUR"}, "purchase NaN EUR"),
        ({"amount": "29"}, "purchase"),
        ({}, "purchase"),
    ],
)
def test_money_is_said_if_both_parts_are_there(metadata, title):
    assert news(story(metadata=metadata)).title == title


HOSTILE = [
    "two\nlines\r\nand\x0bmore",
    "@everyone @here <!channel> <@U123>",
    "`code` *bold* [click](https://evil.example) ~~x~~ ||y||",
    "\u202eright to left\u2066 \u200b\ufeff \x1b[31mred\x00",
    "x" * 1_000_000,
    "\ud800 half",
    "To: me@example.com\r\nBcc: you@example.com",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_value_from_outside_stays_in_its_place(hostile):
    message = news(
        story(
            name=hostile,
            source=hostile,
            visitor=hostile,
            metadata={hostile: hostile, "amount": hostile, "currency": hostile, "plan": hostile},
            first_event=hostile,
            first_source=hostile,
            first_before_ms=1,
        )
    )
    assert len(message.title) <= messages.TITLE_MAX
    assert len(message.body) <= messages.BODY_MAX
    assert "\n" not in message.title
    assert len(message.body.splitlines()) <= 3
    for text in (message.title, message.body):
        text.encode()
        assert not {"<", ">", "`", "*", "\x00", "\x1b", "\u202e", "\u2066", "\ufeff"} & set(text)
        assert not any(mark in text for mark in ("@everyone", "@here", "](", "https://", "Bcc: you@ex"))


@given(st.text(max_size=500))
def test_cleaning_twice_changes_nothing_that_is_seen(text):
    assert "\n" not in value(text)
    assert plain(text).count("\n") == text[: 4 * messages.BODY_MAX].count("\n")
    assert len(value(text)) <= messages.VALUE_MAX
