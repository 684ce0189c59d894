"""The loop around route and deliver: what it says of chores that fail."""

from __future__ import annotations

import itertools

from structlog.testing import capture_logs

from bridge.errors import StoreUnavailable
from bridge.worker import Chore, Worker


def test_a_chore_that_goes_on_failing_is_told_once_a_reason_and_again_after_it_went_well():
    answers = iter(["gone", "gone", "gone", "full", None, "full", "full"])

    def work():
        reason = next(answers)
        if reason:
            raise StoreUnavailable(reason)

    seconds = itertools.count(1)
    worker = Worker(
        route=lambda: 0,
        deliver=lambda _stopping: 1_000,
        chores=[Chore("sweep", 0.5, work)],
        senders=0,
        monotonic=lambda: float(next(seconds)),
    )
    with capture_logs() as lines:
        for _ in range(7):
            worker._route_once()
    assert [line["reason"] for line in lines] == ["gone", "full", "full"]
    assert next(answers, "all were asked") == "all were asked"
