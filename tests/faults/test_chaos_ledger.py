"""The ledger of loss in short: real processes, real signals, a bad destination, on both databases.

`make chaos` is the long version, its figures are in docs/reliability.md; a seed plays the same events and faults again.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from chaos import ledger, run
from chaos.outage import Outage
from chaos.plan import Plan

SHORT = Plan(events=90, kills=4, webs=1, workers=1, senders=4, gap_s=(0.05, 0.4), drain_s=90)


def play(plan, tmp_path, capsys):
    result, facts = run.play(plan, tmp_path)
    with capsys.disabled():
        print(f"\nledger: {ledger.as_json({name: facts[name] for name in ('mode', 'seed', 'tries', 'took_s')})}")
    assert run.holds(plan, result), (asdict(result), facts)
    assert result.acknowledged == plan.events
    return result, facts


@pytest.mark.long
def test_kills_and_a_bad_destination_lose_nothing(tmp_path, database_url, capsys):
    plan = replace(SHORT, database=database_url, seed=101, faults=15)
    result, facts = play(plan, tmp_path, capsys)
    assert result.ok == plan.events
    assert facts["faults_met"]


@pytest.mark.long
def test_stops_and_starts_in_order_leave_no_doubt(tmp_path, sqlite_url, capsys):
    plan = replace(SHORT, mode="term", database=sqlite_url, seed=102, faults=0, kills=3)
    result, facts = play(plan, tmp_path, capsys)
    assert (result.unconfirmed, result.doubled, facts["exits_not_0"]) == (0, 0, 0)
    assert facts["slowest_exit_s"] < 20


@pytest.mark.long
def test_a_process_that_slept_through_its_lease_writes_nothing(tmp_path, postgres_url, capsys):
    plan = replace(SHORT, mode="stop", database=postgres_url, seed=103, kills=3, unconfirmed="hold")
    result, _ = play(plan, tmp_path, capsys)
    assert result.illegal == 0
    assert result.doubled == 0


def test_a_ledger_with_a_fault_does_not_hold():
    good = ledger.Ledger(acknowledged=10, ok=10)
    assert good.holds(hold=True, calm=True)
    for name in ("lost", "not_stored", "wrong", "unasked", "illegal", "open"):
        assert not replace(good, **{name: 1}).holds(hold=False, calm=False), name
    assert replace(good, doubled=1, unconfirmed=1).holds(hold=False, calm=False)
    assert not replace(good, doubled=2, unconfirmed=1).holds(hold=False, calm=False)
    assert not replace(good, doubled=1, unconfirmed=1).holds(hold=True, calm=False)
    assert not replace(good, unconfirmed=1).holds(hold=False, calm=True)


@pytest.mark.long
def test_an_outage_costs_its_probes_and_drains_at_the_pace():
    """A probe every five minutes and a dozen tries while the pause grows: over a day 298 for 3,000 events, below 1.1.

    `make chaos MODE=outage` plays that day.
    """
    events, hours = 800, 6
    facts = Outage(events=events, hours=hours, seed=7).play()
    assert (facts["lost"], facts["doubled"]) == (0, 0), facts
    assert round(facts["attempts_an_event"] * events) - events <= hours * 12 + 10, facts
    assert facts["most_in_a_minute"] <= 60
    assert facts["against_ideal"] <= 1.02
