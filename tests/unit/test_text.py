"""How times, counts and foreign texts are written."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.text import ago, clean, count, excerpt, listing, span, when


@given(st.text())
def test_no_text_from_outside_can_steer_a_terminal(text):
    shown = clean(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    shown.encode("utf-8")


def test_an_escape_sequence_is_spelled_out():
    assert clean("\x1b[2Jgone") == "\\x1b[2Jgone"


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (12 * 86_400_000, "12 days"),
        (86_400_000, "1 day"),
        (3_900_000, "1 hour 5 min"),
        (3_600_000 + 5_000, "1 hour"),
        (61_000, "1 min 1 s"),
        (3_000, "3 s"),
        (40, "40 ms"),
        (0, "0 ms"),
    ],
)
def test_a_span_has_at_most_its_two_greatest_units(ms, text):
    assert span(ms) == text


def test_times_are_utc_and_say_so():
    assert when(1_700_000_000_000) == "2023-11-14 22:13:20 UTC"


def test_a_moment_is_told_from_now_on():
    assert ago(0, 180_000) == "3 min ago"
    assert ago(180_000, 0) == "in 3 min"
    assert ago(5, 0) == "now"


def test_evidence_is_cut_and_says_so():
    assert excerpt("x" * 500, 10) == '"xxxxxxxx…'


def test_counts_agree_with_their_noun():
    assert (count(1, "rule"), count(0, "rule")) == ("1 rule", "0 rules")
    assert listing(["a", "b", "c"]) == "a, b and c"
