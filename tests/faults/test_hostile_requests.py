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


def test_none_of_ten_thousand_forged_requests_is_accepted(capsys):
    statuses, stored = hostile.ask_forged(10_000, SEED)
    tell(capsys, f"10,000 forged: {dict(statuses)}, {stored} stored")
    assert statuses == {401: 10_000}
    assert stored == 0


def test_none_of_twenty_thousand_malformed_requests_is_our_fault(capsys):
    statuses = hostile.ask_malformed(20_000, SEED, authentic=0.03)
    tell(capsys, f"20,000 malformed: {dict(statuses)}")
    assert sum(statuses.values()) == 20_000
    assert max(statuses) < 500
    assert statuses[200] > 100  # the authentic ones


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


@pytest.mark.timeout(300)
def test_bytes_that_are_no_request_leave_the_server_whole(sqlite_stage, capsys):
    web = sqlite_stage.web(BRIDGE_WORKER="off")
    said = hostile.ask_raw(web.port, 1_000, SEED)
    tell(capsys, f"1,000 on a socket: {dict(said)}")
    assert "5xx" not in said
    assert post(web.port, b"{}") == 200
    assert "Traceback" not in web.log_file.read_text()
