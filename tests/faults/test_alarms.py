"""`/status` as an uptime monitor sees it: red for the right reason, and green again after what its sentence asks for.

Real processes on real databases. Where a state takes minutes to come, the rows are made older, never the alarm easier.
"""

from __future__ import annotations

import json
import socket
import time
import uuid

import pytest
import requests
from stage import KEY, OTHER_KEY, PATIENCE_S, ROOT, SECRET, checkout, event

from bridge.sandbox import sign
from bridge.store.schema import source_counters
from chaos.family import wait

MIN = 60_000


class Monitor:
    """Asks `/status` of one web process."""

    def __init__(self, stage, web):
        self.stage, self.web = stage, web

    def told(self):
        """What everybody is told; the code must say the same."""
        answer = self.stage.get(self.web, "/status")
        assert answer.status_code == (503 if answer.json()["problems"] else 200)
        return answer.json()["problems"]

    def red(self, sentence, *words):
        """Exactly this is wrong, and the owner is told these words."""
        wait(lambda: self.told() == [sentence], PATIENCE_S, f"/status says {sentence!r}; last: {self.told()}")
        owner = " ".join(self.stage.get(self.web, "/status", admin=True).json()["problems"])
        assert all(word in owner for word in words), owner

    def noted(self):
        """What the owner may want to know."""
        return self.stage.get(self.web, "/status", admin=True).json()["notes"]

    def green(self):
        wait(lambda: self.told() == [], PATIENCE_S, f"/status is green; last: {self.told()}")


def start(stage, name="web", **more):
    return Monitor(stage, stage.web(name, **more))


def again(stage, monitor, **more):
    """The same bridge, stopped in order and started with other settings."""
    monitor.web.process.terminate()
    assert monitor.web.process.wait(30) == 0
    return start(stage, "again", **more)


def older(stage, table, column, ms, where):
    """What waits has waited for so much longer."""
    rows = f"{table} WHERE {where}"
    wait(lambda: stage.sql(f"SELECT 1 FROM {rows}"), PATIENCE_S, f"a row of {rows}")
    stage.sql(f"UPDATE {table} SET {column} = {column} - {ms} WHERE {where}")


def somebody():
    return str(uuid.uuid4())


# ------------------------------------------------------------------------------------------------------ destinations


def test_a_wrong_key_is_red_until_the_key_is_right(stage):
    monitor = start(stage, DATAFAST_API_KEY="df_" + "x" * 48)
    monitor.green()
    stage.post(monitor.web, checkout(1))
    monitor.red("A destination is paused.", "Destination default has been paused for", "401")
    monitor = again(stage, monitor)
    monitor.green()
    stage.wait_recorded(1)


@pytest.mark.long
def test_a_destination_that_fails_in_a_row_is_red_until_it_works(sqlite_stage):
    stage = sqlite_stage
    monitor = start(stage)
    stage.fault(kind="503", times=5)
    for number in range(5):
        stage.post(monitor.web, checkout(number, somebody()))
    monitor.red("A destination is paused.", "5 attempts in a row failed")
    monitor.green()
    stage.wait_recorded(*range(5))


@pytest.mark.long
def test_ten_unknown_visitors_in_a_row_are_red_until_the_key_is_of_the_right_website(sqlite_stage):
    stage = sqlite_stage
    stage.option(known="seeded")
    patient = {"BRIDGE_UNKNOWN_VISITOR_SCHEDULE": "1h"}
    monitor = start(stage, **patient)
    for number in range(9):
        stage.post(monitor.web, checkout(number, somebody()))
    tried = "SELECT count(*) FROM goals WHERE unknown_visitor_tries = 1"
    wait(lambda: stage.sql(tried)[0][0] == 9, PATIENCE_S, "nine are unknown")
    monitor.green()
    stage.post(monitor.web, checkout(9, somebody()))
    monitor.red(
        "A website knows none of the last 10 visitors: is this the key of the right website?",
        "destination default has known none of the last 10 different visitors",
        "(DATAFAST_API_KEY)",
    )
    stage.option(known="any")
    monitor = again(stage, monitor, DATAFAST_API_KEY=OTHER_KEY, **patient)
    monitor.green()
    stage.post(monitor.web, checkout("known"))
    stage.wait_recorded(*range(10), "known")  # those that the other key did not know, too


@pytest.mark.long
def test_a_website_without_a_key_is_red_while_goals_wait_for_it(sqlite_stage):
    stage = sqlite_stage
    monitor = start(stage, DATAFAST_API_KEY="")
    stage.post(monitor.web, checkout(1))
    monitor.green()
    older(stage, "goals", "due_at_ms", 2 * MIN, "state = 'pending'")
    monitor.red("Goals are waiting because a website has no key.", "default has no key", "set DATAFAST_API_KEY.")
    monitor = again(stage, monitor)
    monitor.green()
    stage.wait_recorded(1)


@pytest.mark.long
def test_goals_for_a_website_that_is_no_longer_configured_are_red_until_it_is(sqlite_stage):
    stage = sqlite_stage
    monitor = start(stage, DATAFAST_TEST_API_KEY=OTHER_KEY)
    stage.fault(kind="429", retry_after_s=3)
    stage.post(monitor.web, checkout(1) | {"livemode": False})
    wait(lambda: stage.sql("SELECT 1 FROM goals WHERE reason = 'throttled'"), PATIENCE_S, "it is put off")
    monitor = again(stage, monitor)
    older(stage, "goals", "due_at_ms", 2 * MIN, "state = 'pending'")
    monitor.red(
        "Goals are waiting for a website that is no longer configured.", "Destination test", "set DATAFAST_TEST_API_KEY"
    )
    monitor = again(stage, monitor, DATAFAST_TEST_API_KEY=OTHER_KEY)
    monitor.green()
    stage.wait_recorded(1)


@pytest.mark.long
def test_a_goal_that_is_due_for_long_is_red_until_it_is_sent_and_a_rate_limit_alone_is_none(sqlite_stage):
    stage = sqlite_stage
    monitor = start(stage)
    stage.fault(kind="429", retry_after_s=6)
    stage.post(monitor.web, checkout(1))
    wait(lambda: stage.sql("SELECT 1 FROM goals WHERE reason = 'throttled'"), PATIENCE_S, "it is put off")
    monitor.green()
    older(stage, "goals", "due_at_ms", 16 * MIN, "state = 'pending'")
    monitor.red("Goals have been waiting for more than 15 minutes.", "default has been due for 16 min")
    monitor.green()
    stage.wait_recorded(1)


@pytest.mark.long
def test_held_goals_are_red_until_somebody_decides(stage):
    monitor = start(stage, BRIDGE_UNCONFIRMED="hold")
    stage.fault(kind="recorded_dropped")
    stage.fault(kind="500", path="/visitors", times=3)
    stage.post(monitor.web, checkout(1))
    monitor.red("Goals are held for a decision.", "1 goal is held", "goals retry", "goals cancel")
    stage.command("goals", "cancel", "goal_1")
    monitor.green()


# ----------------------------------------------------------------------------------------------------------- workers


@pytest.mark.long
def test_no_worker_and_events_that_wait_are_red_until_one_runs(stage):
    monitor = start(stage, BRIDGE_WORKER="off")
    nobody = "No worker is running: events are stored, but nothing is sent."
    monitor.red(nobody, "BRIDGE_WORKER=inline", "python -m bridge worker")
    stage.post(monitor.web, checkout(1))
    older(stage, "events", "received_at_ms", 16 * MIN, "state = 'received'")
    waits = "Events have been waiting for more than 15 minutes."
    wait(lambda: monitor.told() == [nobody, waits], PATIENCE_S, "both are told")
    worker = stage.member("worker", ["-m", "bridge", "worker"], None, stage.environ())
    monitor.green()
    stage.wait_recorded(1)
    worker.end()  # as if by the machine: it cannot say goodbye
    older(stage, "workers", "seen_at_ms", 31_000, "kind = 'worker'")
    monitor.red(nobody)
    stage.member("next", ["-m", "bridge", "worker"], None, stage.environ())
    monitor.green()


@pytest.mark.long
def test_paused_look_ups_are_red_until_the_key_may_ask(postgres_stage):
    """A renewal whose visitor only Stripe knows."""
    stage = postgres_stage
    wrong, right = "rk_live_wrong_of_the_stage", "rk_live_right_of_the_stage"
    stage.datafast.stripe.permissions[wrong] = None
    monitor = start(stage, BRIDGE_WORKER="off", STRIPE_API_KEY=wrong)
    words = [str(ROOT / "tests" / "pipeline" / "looking_up.py"), stage.datafast.url]
    settings = {"BRIDGE_WEAK_AFTER": "2s"}
    worker = stage.member("asks", words, None, stage.environ(STRIPE_API_KEY=wrong, **settings))
    monitor.green()
    stage.post(monitor.web, renewal())
    monitor.red("Lookups at Stripe are paused.", "does not accept STRIPE_API_KEY", "python -m bridge doctor")
    worker.process.terminate()
    assert worker.process.wait(30) == 0
    stage.member("asks again", words, None, stage.environ(STRIPE_API_KEY=right, **settings))
    monitor = again(stage, monitor, BRIDGE_WORKER="off", STRIPE_API_KEY=right)
    monitor.green()


def renewal():
    thing = {"id": "in_1", "object": "invoice", "customer": "cus_1", "billing_reason": "subscription_cycle"}
    paid = {"amount_paid": 4900, "attempt_count": 2, "currency": "usd", "metadata": {}}
    parent = {"subscription_details": {"metadata": {}, "subscription": "sub_1"}}
    return event("evt_in_1", "invoice.paid", {**thing, **paid, "parent": parent})


# ----------------------------------------------------------------------------------------------------------- sources


@pytest.mark.long
def test_quarantine_is_red_until_somebody_sets_it_aside(stage):
    monitor = start(stage)
    assert stage.post(monitor.web, b"no JSON").status_code == 200
    monitor.red("Events are in quarantine.", "1 verified event", "events replay", "events ignore")
    stage.command("events", "ignore", "ev_1")
    monitor.green()


REFUSED = "A source is refusing requests."
NOBODYS_SECRET = "whsec_of_somebody_else"
FLOOD = 2_000


def forge(monitor, times=1, secret=NOBODYS_SECRET, at_s=None):
    """What a stranger sends, or a provider whose secret is another one now."""
    for _ in range(times):
        forged = sign.stripe(b"{}", secret, now() if at_s is None else at_s)
        assert post(monitor.web, "stripe", b"{}", forged).status_code == 401


def flood(port):
    """Unsigned requests over one connection, as fast as they are answered."""
    some = 50
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stranger:
        for _ in range(FLOOD // some):
            stranger.sendall(b"POST /webhooks/stripe HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}" * some)
            heard = b""
            while heard.count(b"HTTP/1.1 401") < some:
                heard += stranger.recv(65_536)


def hours_pass(stage, hours=1):
    """All that is known of the sources is so much older."""
    times = [column.name for column in source_counters.columns if column.name.endswith("_at_ms")]
    stage.sql("UPDATE source_counters SET " + ", ".join(f"{name} = {name} - {hours * 60 * MIN}" for name in times))


def counted(stage, refused):
    """The process writes what it refused once a second."""
    told = "SELECT sum(refused) FROM source_counters"
    wait(lambda: stage.sql(told)[0][0] == refused, PATIENCE_S, f"{refused} refusals are counted")


@pytest.mark.long
def test_what_a_stranger_sends_turns_nothing_red_however_much_it_is(stage):
    """An early POST is told in the notes; so is the flood. It takes no signature to send one, and all are refused."""
    monitor = start(stage)
    stage.post(monitor.web, checkout(1))
    hours_pass(stage)
    stage.post(monitor.web, checkout(2))
    for name, answer in (("stripe", 401), ("lemonsqueezy", 503), ("generic", 503)):
        for _ in range(5):
            assert post(monitor.web, name, b"{}", {}).status_code == answer
    monitor.green()
    wait(lambda: len(monitor.noted()) == 3, PATIENCE_S, "all three are told to the owner")
    flood(monitor.web.port)
    counted(stage, FLOOD + 15)
    monitor.green()
    assert stage.get(monitor.web, "/readyz").status_code == 200
    doctor = stage.command("doctor")
    assert f"Source stripe refused the last {FLOOD + 5:,} requests" in doctor
    assert "LEMONSQUEEZY_WEBHOOK_SECRET is not set" in doctor


@pytest.mark.long
def test_a_swapped_secret_is_red_in_time_until_it_is_right(stage):
    monitor = start(stage)
    for number in range(3):
        stage.post(monitor.web, checkout(number))
        hours_pass(stage)
    forge(monitor, 4)
    counted(stage, 4)
    hours_pass(stage)
    monitor.green()
    forge(monitor)
    monitor.red(
        REFUSED,
        "Source stripe refused the last 5 requests",
        "no genuine event has arrived for 2 h",
        "The likely cause is that the provider now uses another secret: compare STRIPE_WEBHOOK_SECRET",
    )
    assert "A source is refusing requests." in stage.doctor(fails=True)
    monitor = again(stage, monitor, STRIPE_WEBHOOK_SECRET=NOBODYS_SECRET, STRIPE_WEBHOOK_SECRET_OLD=SECRET)
    body = json.dumps(checkout(3)).encode()
    assert post(monitor.web, "stripe", body, sign.stripe(body, NOBODYS_SECRET, now())).status_code == 200
    monitor.green()
    stage.doctor(fails=False)


@pytest.mark.long
def test_a_secret_that_was_lost_is_red_until_it_is_back(sqlite_stage):
    stage = sqlite_stage
    monitor = start(stage)
    for number in range(2):
        stage.post(monitor.web, checkout(number))
        hours_pass(stage)
    monitor = again(stage, monitor, STRIPE_WEBHOOK_SECRET="")
    for count in range(1, 6):
        assert post(monitor.web, "stripe", b"{}", {}).status_code == 503
        counted(stage, count)
        hours_pass(stage)
    monitor.red(REFUSED, "The likely cause is that its secret was lost: STRIPE_WEBHOOK_SECRET", "is not set")
    monitor = again(stage, monitor)
    assert stage.post(monitor.web, checkout(9)).status_code == 200
    monitor.green()


@pytest.mark.long
def test_a_clock_that_is_wrong_is_red_in_time_until_it_is_right(sqlite_stage):
    """The sender's clock or ours: an hour lies between them."""
    stage = sqlite_stage
    monitor = start(stage)
    for number in range(2):
        stage.post(monitor.web, checkout(number))
        hours_pass(stage)
    forge(monitor, secret=SECRET, at_s=now() - 3600)
    counted(stage, 1)
    hours_pass(stage)
    forge(monitor, 4, secret=SECRET, at_s=now() - 3600)
    monitor.red(REFUSED, "the timestamp is 360", "s old", "clock")
    assert stage.post(monitor.web, checkout(9)).status_code == 200
    monitor.green()


@pytest.mark.long
def test_of_a_source_whose_file_is_deleted_nothing_is_left_after_a_restart(sqlite_stage):
    """It was red, and it had notes; both are gone with the file."""
    stage = sqlite_stage
    folder = stage.folder / "rules"
    folder.mkdir()
    for name in ("stripe", "lemonsqueezy"):
        (folder / f"{name}.yaml").write_text((ROOT / "mappings" / f"{name}.yaml").read_text())
    own = {"BRIDGE_MAPPINGS": str(folder)}
    monitor = start(stage, **own)
    for number in range(2):
        stage.post(monitor.web, checkout(number))
        hours_pass(stage)
    forge(monitor)
    counted(stage, 1)
    hours_pass(stage)
    forge(monitor, 4)
    monitor.red(REFUSED)
    (folder / "stripe.yaml").unlink()
    monitor = again(stage, monitor, **own)
    monitor.green()
    assert monitor.noted() == []
    assert "stripe" not in stage.get(monitor.web, "/status", admin=True).text.lower().replace("stripe lookups", "")
    refused = [line for line in stage.get(monitor.web, "/metrics", admin=True).text.splitlines() if "refused" in line]
    assert not any("stripe" in line for line in refused)
    assert "stripe" not in stage.command("doctor", **own)
    assert "stripe" not in stage.command("sources", **own)


@pytest.mark.long
def test_an_empty_generic_source_never_alarms(sqlite_stage):
    """The shipped file without a secret, and one without a rule: whoever finds the address may knock for ever."""
    stage = sqlite_stage
    folder = stage.folder / "rules"
    folder.mkdir()
    (folder / "generic.yaml").write_text((ROOT / "mappings" / "generic.yaml").read_text())
    (folder / "empty.yaml").write_text("provider: standard-webhooks\ngoals: []\n")
    monitor = start(stage, BRIDGE_MAPPINGS=str(folder), EMPTY_WEBHOOK_SECRET="whsec_" + "c2VjcmV0" * 4)
    for count in range(1, 8):
        for name, answer in (("generic", 503), ("empty", 401)):
            assert post(monitor.web, name, b"{}", {}).status_code == answer
        counted(stage, 2 * count)
        hours_pass(stage, 24)
    monitor.green()


def post(web, source, body, headers):
    return requests.post(f"http://127.0.0.1:{web.port}/webhooks/{source}", body, headers=headers, timeout=30)


def now():
    return int(time.time())


# ---------------------------------------------------------------------------------------------------------- visitors


def sell_without_a_visitor(stage, web, numbers, **session):
    for number in numbers:
        told = checkout(number)
        told["data"]["object"] |= {"metadata": {}, **session}
        assert stage.post(web, told).status_code == 200


def renew(stage, web, numbers):
    for number in numbers:
        told = renewal()
        told["id"] = told["data"]["object"]["id"] = f"in_{number}"
        assert stage.post(web, told).status_code == 200


@pytest.mark.long
def test_eight_purchases_without_a_visitor_are_red_until_it_is_handed_over_and_ten_renewals_are_not(stage):
    monitor = start(stage)
    renew(stage, monitor.web, range(10))
    sell_without_a_visitor(stage, monitor.web, range(7))
    older(stage, "goals", "created_at_ms", 16 * MIN, "name = 'payment_recovered'")
    made = "SELECT count(*) FROM goals WHERE name = 'purchase'"
    wait(lambda: stage.sql(made)[0][0] == 7, PATIENCE_S, "seven are sold")
    stage.sql(f"UPDATE goals SET created_at_ms = created_at_ms - {16 * MIN}")
    monitor.green()
    sell_without_a_visitor(stage, monitor.web, [7], client_reference_id="user_42")
    older(stage, "goals", "created_at_ms", 16 * MIN, "description = 'stripe evt_7'")
    sentence = "8 of the last 8 purchases of stripe named no visitor: is the visitor handed over at checkout?"
    monitor.red(sentence, "The likely cause (7 of the last 8): the places for the visitor id are empty")
    assert sentence in stage.doctor(fails=True)
    metrics = stage.get(monitor.web, "/metrics", admin=True).text
    assert 'bridge_attribution_goals{source="stripe",through="none"} 8.0' in metrics
    off = again(stage, monitor, BRIDGE_ATTRIBUTION_ALARM="off")
    off.green()
    monitor = again(stage, off)
    monitor.red(sentence)
    for number in range(10, 18):
        stage.post(monitor.web, checkout(number))
    stage.wait_recorded(*range(10, 18))
    stage.sql(f"UPDATE goals SET created_at_ms = created_at_ms - {16 * MIN}")
    monitor.green()
    assert "8 of the last 16 purchases have a visitor (8 in the event itself)" in stage.doctor(fails=False)


# ---------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.long
def test_a_database_that_can_only_be_read_is_red_until_it_can_be_written(postgres_stage, postgres):
    stage = postgres_stage
    monitor = start(stage)
    monitor.green()
    name = stage.sql("SELECT current_database()")[0][0]
    postgres.execute("postgres", f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    drop_connections(postgres, name)
    monitor.red("The database cannot be used.", "read-only")
    assert "read-only" in stage.doctor(fails=True)
    postgres.execute("postgres", f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    drop_connections(postgres, name)
    monitor.green()


def drop_connections(postgres, name):
    """A setting of a database is read by each new connection."""
    ask = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    postgres.execute("postgres", ask)


@pytest.mark.long
def test_an_older_schema_is_red_until_somebody_migrates(stage):
    monitor = start(stage)
    monitor.green()
    version = stage.sql("SELECT version_num FROM bridge_version")[0][0]
    stage.sql("DELETE FROM bridge_version")
    monitor.red("The database cannot be used.", "run `python -m bridge migrate`")
    stage.sql(f"INSERT INTO bridge_version VALUES ('{version}')")
    monitor.green()


def test_refused_files_are_red_until_they_are_fixed(sqlite_stage):
    stage = sqlite_stage
    folder = stage.folder / "rules"
    folder.mkdir()
    good = (ROOT / "mappings" / "stripe.yaml").read_text()
    (folder / "stripe.yaml").write_text(good)
    monitor = start(stage, BRIDGE_MAPPINGS=str(folder))
    monitor.green()
    (folder / "stripe.yaml").write_text(good + "\nunknown: 1\n")
    monitor.red("The current mapping files were refused; the last good ones are in force.", "stripe.yaml:")
    (folder / "stripe.yaml").write_text(good)
    monitor.green()


def test_two_keys_are_of_two_websites():
    """Else the tests above would prove nothing."""
    assert KEY != OTHER_KEY
