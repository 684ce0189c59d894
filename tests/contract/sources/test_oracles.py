"""The oracles' own half of the work: the bridge judges all their requests as expected, and a wrong verdict is told.

The libraries themselves run in `make oracles`. Two of them, Stripe's and that of Standard Webhooks, are at hand here.
"""

from dataclasses import replace

import pytest

from oracles import python
from oracles.__main__ import bridge_accepts, judge_all
from oracles.cases import cases
from oracles.differences import difference
from oracles.rows import ROWS, STANDARD, standard


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.preset} {row.library} {row.form}".strip())
def test_the_bridge_judges_every_request_of_a_row_as_expected(row):
    told = list(cases(row, None))
    for case in told:
        known = difference(row.preset, row.library, case.name)
        allowed = {case.good} if known is None else {case.good, known.bridge}
        assert bridge_accepts(row.preset, case) in allowed, case.name
    assert len({case.name for case in told}) == len(told)
    assert {case.good for case in told} == {True, False}


def rows(*presets):
    return [row for row in ROWS if row.preset in presets and row.library in ("stripe", "standardwebhooks")]


def test_a_library_and_the_bridge_that_agree_have_no_problem():
    verdicts, problems = judge_all(rows("stripe", "standard-webhooks"), python.LIBRARIES)
    assert problems == []
    assert [(one.preset, bool(one.differences)) for one in verdicts] == [("standard-webhooks", False), ("stripe", True)]
    assert min(one.cases for one in verdicts) > 15


def test_a_preset_that_refuses_what_its_provider_sends_is_told():
    wrong = standard("github", "standardwebhooks", signs=STANDARD)  # a preset of quite another scheme
    (verdict,), problems = judge_all([wrong], python.LIBRARIES)
    assert "good: the library accepts, the bridge refuses" in verdict.wrong
    assert "signed by the library: the library accepts, the bridge refuses" in verdict.wrong
    assert problems[0].startswith("github against standardwebhooks@")


@pytest.mark.parametrize(("verify", "line"), [
    (lambda *_: True, "changed: the library accepts, the bridge refuses"),
    (lambda *_: False, "good: the library refuses, the bridge accepts"),
    (lambda *_: 1 / 0, "good: the library refuses, the bridge accepts"),
])  # fmt: skip
def test_a_library_of_another_mind_is_told(verify, line):
    other = {"stripe": replace(python.LIBRARIES["stripe"], verify=verify)}
    (verdict,), _ = judge_all(rows("stripe"), other)
    assert line in verdict.wrong


def test_a_difference_that_is_gone_is_told():
    refusing = replace(python.LIBRARIES["stripe"], verify=lambda *_: False)
    (verdict,), problems = judge_all(rows("stripe"), {"stripe": refusing})
    assert verdict.differences == []
    assert "differences.py, stripe against stripe: ('310 s ahead',) no longer differ" in problems
