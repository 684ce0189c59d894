"""The loop around route and deliver: what it says of chores that fail."""

from __future__ import annotations

import itertools
import time

from structlog.testing import capture_logs

from bridge.errors import StoreUnavailable
from bridge.worker import REST_MIN_S, Chore, Worker


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


def test_a_chore_that_fails_waits_for_its_turn_like_any_other():
    """The database is gone for an hour: the chore is tried once per interval, not in a circle."""
    clock = [0.0]
    tried_at: list[float] = []

    def work():
        tried_at.append(clock[0])
        raise StoreUnavailable("gone")

    worker = Worker(
        route=lambda: 0,
        deliver=lambda _stopping: 1_000,
        chores=[Chore("sweep", 5.0, work)],
        senders=0,
        monotonic=lambda: clock[0],
    )
    for clock[0] in (100.0, 101.0, 104.9, 105.0, 106.0, 110.0):
        worker._route_once()
    assert tried_at == [100.0, 105.0, 110.0]


def test_routing_gives_way_while_events_are_being_acknowledged():
    """The second batch of a flood waits at least as long as was asked for; alone it is routed at once."""
    routed_at: list[float] = []

    def route():
        routed_at.append(time.monotonic())
        if flood and len(routed_at) < 4:
            worker.wake()  # an event came in meanwhile
        return 1 if len(routed_at) < 4 else 0

    for flood in (True, False):
        routed_at.clear()
        worker = Worker(route=route, deliver=lambda _stopping: 1_000, chores=[], senders=0, monotonic=time.monotonic)
        for _ in range(4):
            worker._route_once()
        rests = [after - before for before, after in itertools.pairwise(routed_at)]
        assert (min(rests) >= REST_MIN_S) is flood


def test_a_worker_that_gives_way_stops_at_once():
    worker = Worker(
        route=lambda: worker.wake() or 1, deliver=lambda _stopping: 1_000, chores=[], senders=0,
        monotonic=itertools.count(0.0, 1_000.0).__next__,
    )  # fmt: skip
    worker.start()
    assert worker.stop(timeout_s=10_000.0)
