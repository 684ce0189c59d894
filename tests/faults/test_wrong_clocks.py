"""Real processes whose clock is set wrong, and right again, or who stand still for 30 days: nothing is lost.

`make chaos MODE=clock` is the long version.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos import clocks
from chaos.plan import Plan

SHORT = Plan(mode="clock", events=30, seed=301, webs=1, workers=1, senders=4, drain_s=150)


@pytest.mark.long
def test_an_hour_ahead_for_two_seconds_keeps_nothing_waiting(tmp_path, database_url):
    play(tmp_path, database_url, replace(clocks.SCENARIOS["hour"], lasts_s=2.0))


@pytest.mark.long
def test_a_start_with_a_clock_500_days_ahead_takes_nothing(tmp_path, database_url):
    facts = play(tmp_path, database_url, replace(clocks.SCENARIOS["days-restart"], lasts_s=2.0))
    assert facts["held"] == 0  # all of it goes when the clock is right


@pytest.mark.long
def test_a_stop_of_30_days_takes_nothing(tmp_path, database_url):
    facts = play(tmp_path, database_url, clocks.SCENARIOS["stop"])
    assert facts["note"].startswith("The bridge stood still for more than 7 days"), facts


def play(folder, database_url, scenario):
    facts = clocks.run_scenario(replace(SHORT, database=database_url), scenario, folder)
    assert set(facts["wrong"]) <= {"kept waiting"}, facts  # a loaded machine may take its time
    assert facts["acknowledged"] == SHORT.events
    return facts
