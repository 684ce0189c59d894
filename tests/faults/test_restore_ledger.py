"""The pages' own commands for backup and restore, with real processes, on both databases: each goal is there once.

`make chaos MODE=restore EVENTS=3000` is the long version.
"""

from __future__ import annotations

import pytest

from chaos import restore
from chaos.plan import Plan


@pytest.mark.long
def test_the_documented_back_up_and_restore_lose_and_double_nothing(tmp_path, database_url):
    plan = Plan(mode="restore", events=45, faults=10, seed=201, senders=4, drain_s=120)
    lines = []
    run = restore.Restore(plan, tmp_path, database_url, lines.append)
    assert run.play(), (run.facts, lines)
    there = run.facts["in_the_backup"]
    assert there["unrouted"], there
    assert there["pending"] + there.get("sending", 0), there
    assert run.facts["found_at_the_destination"] > 12
    assert any("python -m bridge restored --yes" in line for line in lines)
