"""Nothing forged is accepted, and nothing malformed is answered 5xx: many requests, made by a seed that is printed.

`make chaos MODE=forged EVENTS=1000000` and `MODE=malformed` are the same at any size.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from chaos import hostile
from chaos.floods import post

SEED = int(os.environ.get("BRIDGE_SEED", "0")) or random.SystemRandom().randrange(1 << 31)


def tell(capsys, what):
    with capsys.disabled():
        print(f"\nhostile: {what} (BRIDGE_SEED={SEED})")


@pytest.mark.long
@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_none_of_many_forged_requests_is_accepted(count, capsys):
    statuses, stored = hostile.ask_forged(count, SEED)
    tell(capsys, f"{count:,} forged: {dict(statuses)}, {stored} stored")
    assert statuses == {401: count}
    assert stored == 0


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.long)])
def test_none_of_many_malformed_requests_is_our_fault(count, capsys):
    statuses = hostile.ask_malformed(count, SEED, authentic=0.03)
    tell(capsys, f"{count:,} malformed: {dict(statuses)}")
    assert sum(statuses.values()) == count
    assert max(statuses) < 500
    assert statuses[200] > count / 200  # the authentic ones


def test_what_is_authentic_is_kept_whatever_it_is():
    rng = random.Random(SEED)
    with hostile.application() as application:
        kept = Counter(application.ask(hostile._authentic_rubbish(rng)) for _ in range(200))
        assert kept == {200: 200}


def test_each_forgery_is_made_from_a_request_that_would_be_accepted():
    """Else nothing would be shown by their refusal."""
    rng = random.Random(SEED)
    with hostile.application() as application:
        for source in ("stripe", "lemonsqueezy", "generic"):
            body = hostile.document(rng)
            now_s = int(hostile.time.time())
            good = hostile.Asked(source, body, hostile.signed(source, body, now_s=now_s), now_s=now_s)
            assert application.ask(good) == 200


def test_bytes_that_are_no_request_leave_the_server_whole(sqlite_stage, capsys):
    web = sqlite_stage.web(BRIDGE_WORKER="off")
    said = hostile.ask_raw(web.port, 1_000, SEED)
    tell(capsys, f"1,000 on a socket: {dict(said)}")
    assert "5xx" not in said
    assert post(web.port, b"{}") == 200
    assert "Traceback" not in web.log_file.read_text()
