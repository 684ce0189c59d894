"""When a wrong token is answered: later and later, within bounds, and never for those who try elsewhere."""

from __future__ import annotations

import pytest

from bridge.web.auth import ADDRESSES_MAX, FREE, LONGEST_S, WAITING_MAX, Guesses


class Clock:
    now_s = 1_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guesses(clock):
    return Guesses(clock)


def test_a_few_are_free_then_each_waits_longer_then_they_are_refused(guesses):
    assert [guesses.wrong("192.0.2.1") for _ in range(FREE)] == [0.0] * FREE
    assert [guesses.wrong("192.0.2.1") for _ in range(6)] == [1.0, 2.0, 3.0, 4.0, None, None]
    assert guesses.wrong("192.0.2.2") == 0.0


def test_who_waits_for_each_answer_has_one_a_second_and_is_forgiven_in_the_end(guesses, clock):
    for _ in range(FREE):
        guesses.wrong("192.0.2.1")
    for _ in range(100):
        wait_s = guesses.wrong("192.0.2.1")
        assert wait_s == 1.0
        clock.now_s += wait_s
    clock.now_s += FREE
    assert [guesses.wrong("192.0.2.1") for _ in range(FREE)] == [0.0] * FREE


def test_refusals_cost_nothing_more(guesses, clock):
    for _ in range(1_000):
        guesses.wrong("192.0.2.1")
    clock.now_s += LONGEST_S
    assert guesses.wrong("192.0.2.1") is not None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "a socket", True),
    ],
)
def test_a_network_of_one_person_is_one_address(guesses, one, other, same):
    for _ in range(FREE):
        guesses.wrong(one)
    assert (guesses.wrong(other) > 0) is same


@pytest.mark.long
def test_what_is_remembered_and_kept_back_is_bounded(guesses):
    kept_back = 0
    for number in range(20_000):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        kept_back += sum(bool(guesses.wrong(address)) for _ in range(FREE + 2))
    assert kept_back == WAITING_MAX
    assert len(guesses._free_at) == ADDRESSES_MAX
