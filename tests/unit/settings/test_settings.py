"""The table of settings: every fault at once, one sentence each, secrets masked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import settings
from bridge.errors import SettingsError


def faults(**environ):
    with pytest.raises(SettingsError) as caught:
        settings.load(environ)
    return caught.value.problems


def test_nothing_has_to_be_set():
    loaded = settings.load({})
    assert (loaded.port, loaded.bridge_lease, loaded.bridge_readback) == (8000, 60_000, (30_000, 60_000))
    assert loaded.warnings == ("DATAFAST_API_KEY is not set: goals wait until it is set",)


def test_an_admin_token_that_is_too_short_for_the_console_is_a_problem_but_no_fault():
    short, enough = settings.load({"BRIDGE_ADMIN_TOKEN": "x" * 15}), settings.load({"BRIDGE_ADMIN_TOKEN": "x" * 16})
    assert short.bridge_admin_token == "x" * 15
    assert [problem.split(",")[0] for problem in short.problems] == ["BRIDGE_ADMIN_TOKEN has fewer than 16 characters"]
    assert (enough.problems, settings.load({}).problems) == ((), ())


def test_every_wrong_value_is_told_at_once():
    told = faults(PORT="99999", BRIDGE_WORKER="on", BRIDGE_LEASE="soon", DATAFAST_API_KEY="sk_live_123")
    assert [fault.split(" ")[0] for fault in told] == ["DATAFAST_API_KEY", "BRIDGE_WORKER", "PORT", "BRIDGE_LEASE"]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "http", "PORT is 'http', but must be a port number from 0 to 65535"),
        ("BRIDGE_WORKER", "on", "BRIDGE_WORKER is 'on', but must be one of inline, off"),
        (
            "BRIDGE_MAX_AGE",
            "1 week",
            "BRIDGE_MAX_AGE is '1 week', but must be a duration such as 500ms, 5s, 2min, 1h or 3d",
        ),
        ("BRIDGE_MAX_AGE", "0s", "BRIDGE_MAX_AGE is '0s', but must be a duration such as 500ms, 5s, 2min, 1h or 3d"),
        ("BRIDGE_RATE_PER_MINUTE", "0", "BRIDGE_RATE_PER_MINUTE is '0', but must be a whole number above zero"),
        ("DATAFAST_API_URL", "http://datafa.st", "https (plain http only on this machine"),
        ("DATABASE_URL", "mysql://u:secret@h/d", "sqlite:///bridge.db or postgresql://user:password@host/name"),
        ("DATABASE_URL", "postgres", "sqlite:///bridge.db or postgresql://user:password@host/name"),
        ("DATABASE_URL", "sqlite+aiosqlite:///a.db", "sqlite:///bridge.db or postgresql://user:password@host/name"),
        ("DATAFAST_API_KEY", "eyJ2IjoidjIi", "this is the token of a shared dashboard link"),
        ("DATAFAST_API_KEY", "dft_abc", "which needs DATAFAST_WEBSITE_ID"),
        ("STRIPE_API_KEY", "whsec_abc", "it belongs in STRIPE_WEBHOOK_SECRET"),
        ("STRIPE_API_KEY", "pk_live_abc", "this is a publishable key"),
        ("STRIPE_API_KEY", "rk_live_", "must be a restricted key of Stripe (rk_live_…, or rk_test_… for test mode)"),
        ("DATAFAST_WEBSITE_ID", "dfid_x", "but must be 24 hex digits"),
        ("BRIDGE_LEASE", "19s", "must be at least twice BRIDGE_DEADLINE (10s)"),
        ("BRIDGE_READBACK", "30s", "two durations such as 30s,60s"),
        ("BRIDGE_RETRY_SCHEDULE", "5s,later", "durations separated by commas"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_what_is_allowed(name, value, sentence):
    [told] = faults(**{name: value})
    assert sentence in told
    assert "\n" not in told


@pytest.mark.parametrize("name", [setting.name for setting in settings.TABLE if setting.secret])
def test_no_fault_shows_a_secret(name):
    secret = "sk_live_5ecret5ecret"
    try:
        told = repr(settings.load({name: secret, "PORT": "x"}))
    except SettingsError as error:
        told = str(error)
    assert "5ecret" not in told


def test_a_file_database_on_a_dyno_is_refused_with_the_name_of_the_add_on():
    [told] = faults(DYNO="web.1")
    assert "heroku addons:create heroku-postgresql:essential-0" in told
    assert settings.load({"DYNO": "web.1", "BRIDGE_ALLOW_EPHEMERAL": "1"}).database_url == "sqlite:///bridge.db"


@pytest.mark.parametrize(
    ("given_url", "dialect_url"),
    [
        ("postgres://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql://u@h/d?host=/run/pg", "postgresql+psycopg://u@h/d?host=/run/pg"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("sqlite:////data/bridge.db", "sqlite:////data/bridge.db"),
    ],
)
def test_a_database_url_is_taken_as_hosts_write_it(given_url, dialect_url):
    assert settings.load({"DATABASE_URL": given_url}).database_url == dialect_url


def test_a_schedule_repeats_its_last_step_until_its_end():
    schedule = settings.load({"BRIDGE_RETRY_SCHEDULE": "5s,1h...3d"}).bridge_retry_schedule
    assert [schedule.pause_ms(n) for n in (1, 2, 3, 9)] == [5_000, 3_600_000, 3_600_000, 3_600_000]
    assert (schedule.total_ms, str(schedule)) == (3 * 86_400_000, "5s,1h...3d")


@given(st.integers(min_value=1, max_value=10**9))
def test_a_duration_written_is_the_duration_read(ms):
    assert settings.duration_ms(settings.duration_text(ms)) == ms


@given(st.dictionaries(st.sampled_from([setting.name for setting in settings.TABLE]), st.text(max_size=40), max_size=5))
def test_whatever_the_environment_holds_the_answer_is_settings_or_faults(environ):
    told = ()
    try:
        settings.load(environ)
    except SettingsError as error:
        told = error.problems
    assert all(fault and "\n" not in fault for fault in told)


def test_dot_env_fills_what_is_not_set_and_is_not_read_on_a_dyno(tmp_path):
    (tmp_path / ".env").write_text("PORT=1234\nBRIDGE_HOST=127.0.0.1\n")
    assert settings.read_environment({"PORT": "1"}, tmp_path) == {"PORT": "1", "BRIDGE_HOST": "127.0.0.1"}
    assert settings.read_environment({"DYNO": "web.1"}, tmp_path) == {"DYNO": "web.1"}


def test_a_secret_key_of_stripe_works_and_is_more_than_is_needed():
    assert "may do everything" in settings.load({"STRIPE_API_KEY": "sk_live_1"}).warnings[-1]
    assert len(settings.load({"STRIPE_API_KEY": "rk_live_1"}).warnings) == 1
