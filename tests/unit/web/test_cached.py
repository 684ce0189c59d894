"""What takes long to count is counted in the background, and nobody waits for it but the first."""

from __future__ import annotations

import threading
import time

import pytest

from bridge.errors import StoreUnavailable
from bridge.web import cached
from bridge.web.cached import CachedInBackground

PATIENCE_S = 30


class Asked:
    """Counts how often it was asked; each time after the first it waits until it may answer."""

    def __init__(self, fails=False):
        self.times = 0
        self.fails = fails
        self.may_answer = threading.Event()
        self.answered = threading.Event()

    def __call__(self):
        self.times += 1
        if self.times > 1:
            assert self.may_answer.wait(PATIENCE_S)
            self.answered.set()
            if self.fails:
                raise StoreUnavailable("gone")
        return self.times


def test_what_is_quick_is_asked_for_each_time(monkeypatch):
    monkeypatch.setattr(cached, "LONG_S", PATIENCE_S)
    asked = Asked()
    asked.may_answer.set()
    counted = CachedInBackground(asked)
    assert [counted.get() for _ in range(3)] == [1, 2, 3]


def test_who_asks_says_what_is_long(monkeypatch):
    monkeypatch.setattr(cached, "LONG_S", PATIENCE_S)
    asked = Asked()
    counted = CachedInBackground(asked, long_s=0.0)
    assert [counted.get() for _ in range(3)] == [1, 1, 1]
    asked.may_answer.set()
    while counted.get() == 1:
        threading.Event().wait(0.01)
    assert counted.get() > 1


@pytest.mark.parametrize("fails", [False, True])
def test_what_takes_long_is_asked_for_in_the_background_by_one(monkeypatch, fails):
    monkeypatch.setattr(cached, "LONG_S", 0.0)
    monkeypatch.setattr(cached, "SHARE", 0.0)
    monkeypatch.setattr(cached, "FRESH_S", PATIENCE_S)
    asked = Asked(fails)
    counted = CachedInBackground(asked)
    assert [counted.get() for _ in range(5)] == [1, 1, 1, 1, 1]
    while asked.times < 2:  # the thread has begun
        threading.Event().wait(0.01)
    assert asked.times == 2
    asked.may_answer.set()
    assert asked.answered.wait(PATIENCE_S)
    while not fails and counted.get() == 1:
        threading.Event().wait(0.01)
    assert (counted.get() > 1) is not fails


def test_what_the_first_one_raises_is_raised():
    def gone():
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        CachedInBackground(gone).get()


@pytest.mark.parametrize("error", [StoreUnavailable("it took too long"), ZeroDivisionError("a bug")])
def test_what_fails_in_the_background_is_asked_for_a_twentieth_of_the_time_as_well(monkeypatch, error):
    monkeypatch.setattr(cached, "LONG_S", 0.0)
    monkeypatch.setattr(cached, "FRESH_S", 0.0)
    began = []
    took_s = 0.05

    def ask():
        began.append((time.monotonic(), threading.current_thread()))
        if len(began) > 1:
            threading.Event().wait(took_s)
            raise error
        return "first"

    counted = CachedInBackground(ask)
    while len(began) < 3:
        assert counted.get() == "first"
        threading.Event().wait(0.005)
    (second_s, _), (third_s, thread) = began[1:]
    assert third_s - second_s >= took_s + cached.SHARE * took_s
    thread.join(PATIENCE_S)
