"""Times as providers write them; nonsense is no time and never an exception."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.model import ExactFloat
from bridge.sources.envelope import ms_of

NOON = 1_700_000_000_000


@pytest.mark.parametrize(
    "written",
    [
        1_700_000_000,
        1_700_000_000_000,
        1_700_000_000.0,
        ExactFloat("1700000000.000"),
        "1700000000",
        " 1700000000000 ",
        "1700000000.000",
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20+00:00",
        "2023-11-14T17:13:20-05:00",
        "2023-11-14T22:13:20",
        "2023-11-14 22:13:20",
        "2023-11-14T22:13:20.000000Z",
        "2023-11-14T22:13:20.000000123Z",
    ],
)
def test_one_instant_in_many_hands(written):
    assert ms_of(written) == NOON


def test_fractions_are_kept_to_the_millisecond():
    assert ms_of("2023-11-14T22:13:20.123456Z") == NOON + 123
    assert ms_of("2023-11-14T22:13:20.037339943Z") == NOON + 37
    assert ms_of(1_700_000_000.5) == NOON + 500


@pytest.mark.parametrize(
    "nonsense",
    [
        None, True, False, 0, -1, -1_700_000_000, 10**30, 10**400, float("nan"), float("inf"), 5e9, "", "hello",
        "-1700000000", "\N{FULLWIDTH DIGIT ONE}700000000", "30000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00",
        "2200-01-01", "9" * 5000, "1e9", "1_700_000_000", "0x10", [], {}, [1_700_000_000], {"time": 1_700_000_000},
        "2023-13-01T00:00:00Z", "0000-00-00 00:00:00", "T22:13", "\0",
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_nonsense_is_no_time(nonsense):
    assert ms_of(nonsense) is None


@settings(deadline=None)
@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text("0123456789-:.TZ+ ", max_size=30))
def test_any_value_is_a_time_of_this_century_or_none(value):
    found = ms_of(value)
    assert found is None or 0 < found < 4_102_444_800_000


@settings(deadline=None)
@given(st.integers(31_536_000_000, 4_070_908_800_000))
def test_iso_and_numbers_agree(milliseconds):
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC) + timedelta(milliseconds=milliseconds % 1000)
    assert ms_of(moment.isoformat()) == milliseconds
    assert ms_of(moment.isoformat().replace("+00:00", "Z")) == milliseconds
    if milliseconds >= 100_000_000_000:
        assert ms_of(milliseconds) == ms_of(str(milliseconds)) == milliseconds
