"""What `doctor` says about the key of Stripe, asked of the stand-in."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from bridge.cli import doctor
from bridge.masking import fingerprint
from bridge.sandbox import server
from bridge.settings import load
from bridge.store.links import lookups

KEY = "rk_live_5ecret"


@pytest.fixture(scope="module")
def sandbox():
    with server.start() as made:
        yield made


@pytest.fixture
def stripe(sandbox):
    known = sandbox.stripe
    known.permissions.clear()
    known.requests.clear()
    return known


def told(sandbox, key=KEY, store=None):
    found = doctor.check_stripe(load({"STRIPE_API_KEY": key} if key else {}), store, sandbox.url)
    return [astuple(finding) for finding in found]


def test_without_a_key_there_is_nothing_to_say_and_nothing_is_asked(sandbox, stripe):
    assert told(sandbox, None) == []
    assert stripe.requests == []


def test_a_key_that_may_read_everything_is_fine(sandbox, stripe):
    assert told(sandbox) == [
        (
            "ok",
            "Stripe lookups",
            "the key (rk_live_…) may read all that is needed; goals of live events are looked up",
        )
    ]
    assert len(stripe.requests) == 5
    assert "test events, and those only where DATAFAST_TEST_API_KEY is set" in told(sandbox, "rk_test_1")[0][2]


def test_every_missing_permission_is_named_at_once(sandbox, stripe):
    stripe.permissions[KEY] = ["checkout_session", "subscription", "charge"]
    ((level, _, sentence),) = told(sandbox)
    assert level == "warn"
    assert "may not read Invoices and PaymentIntents" in sentence
    assert "dashboard.stripe.com/apikeys" in sentence


def test_a_key_that_is_none_fails_without_being_shown(sandbox, stripe):
    stripe.permissions[KEY] = None
    ((level, _, sentence),) = told(sandbox)
    assert (level, "5ecret" in sentence) == ("fail", False)
    assert "does not accept STRIPE_API_KEY" in sentence
    assert len(stripe.requests) == 1


def test_a_stripe_that_does_not_answer_is_a_warning(sandbox, stripe):
    stripe.fail(503)
    ((level, _, sentence),) = told(sandbox)
    assert level == "warn"
    assert sentence == "cannot be tried just now: Stripe answered 503"


def test_a_pause_that_is_in_force_is_told_with_its_reason(sandbox, stripe, sqlite_store):
    with sqlite_store.write() as conn:
        lookups.pause(conn, "all", "rate", "Stripe asks for a pause", fingerprint(KEY), None)
        lookups.pause(conn, "permission:invoice", "permission", "of another key", fingerprint("rk_live_2"), None)
    level, _, sentence = told(sandbox, store=sqlite_store)[-1]
    assert level == "warn"
    assert "Stripe asks for a pause; asked again in 30 s" in sentence
    assert len(told(sandbox, store=sqlite_store)) == 2
