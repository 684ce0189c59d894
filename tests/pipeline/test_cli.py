"""The commands as a person types them, on a database in which real things happened.

A bridge with the shipped mappings received signed events and sent their goals to the stand-in for DataFast; then it was
stopped. Each test gets a copy of its database, an environment, and calls `main`.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from cases_kit import one_in
from running import ALICE, BOB, KEY, SECRETS, STRIPE_SECRET, checkout, environment, event, eventually

from bridge import app, receive, settings, store
from bridge.cli import main
from bridge.model import Request
from bridge.sandbox import sign
from bridge.sandbox.options import Options
from bridge.sandbox.server import start
from bridge.store.operator import queries, status

ROOT = Path(__file__).parents[2]
MAIL = "somebody-whose-name-must-not-be-told@example.com"


def stripe_request(told, at_s=None):
    body = json.dumps(told).encode()
    headers = {
        name.lower(): value for name, value in sign.stripe(body, STRIPE_SECRET, int(at_s or time.time())).items()
    }
    return Request("POST", "http://h.example/webhooks/stripe", "/webhooks/stripe", "", headers, body)


HAPPENED = (
    checkout(1),
    event("charge.refunded", {"id": "ch_1", "object": "charge", "payment_intent": "pi_1", "customer": "cus_1",
          "amount": 4900, "amount_refunded": 4900, "refunded": True, "currency": "usd"}, "evt_refund"),
    checkout(2, BOB, payment_status="unpaid"),
    event("charge.dispute.created", {"id": "dp_9", "object": "dispute", "charge": "ch_9", "payment_intent": "pi_9",
          "status": "needs_response", "amount": 900, "currency": "usd", "reason": "fraudulent"}, "evt_dispute"),
    event("price.created", {"id": "price_1", "object": "price"}, "evt_price"),
    checkout(3, None, customer=None, payment_intent=None, metadata={"plan": "\x1b[31mred\u202e"}),
)  # fmt: skip


@dataclass
class Stage:
    """A place to type commands in: what happened, and what became of it."""

    environ: dict[str, str]
    database: Path
    sandbox: object
    ids: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def happened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("happened")
    url = f"sqlite:///{folder / 'bridge.db'}"
    with start(Options(keys=(KEY,), known="any", rate_per_minute=0)) as sandbox:
        environ = environment(sandbox, url)
        store.migrate(url)
        bridge = app.build(settings.load(environ), worker=True)
        for told in HAPPENED:
            receive.receive(bridge, "stripe", partial(stripe_request, told)).ack.result(10)
        receive.receive(bridge, "stripe", partial(stripe_request, HAPPENED[0])).ack.result(10)  # delivered again
        bridge.start()
        eventually(lambda: len(sandbox.world.goals()) >= 2 and _routed(bridge.store))
        bridge.stop()
        yield Stage(environ, folder / "bridge.db", sandbox)


def _routed(opened):
    with opened.read() as conn:
        lines = queries.list_events(conn, queries.EventFilter())
    return all(line.state == "routed" for line in lines) and len(lines) == len(HAPPENED)


@pytest.fixture
def stage(happened, tmp_path, monkeypatch):
    shutil.copy(happened.database, tmp_path / "bridge.db")
    environ = {**happened.environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'bridge.db'}"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return Stage(environ, tmp_path / "bridge.db", happened.sandbox)


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def bridge(stage, capfd):
    def run(*words, stdin=None):
        if stdin is not None:
            sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
        code = main(list(words))
        told = capfd.readouterr()
        answer = Answer(code, told.out, told.err)
        assert "Traceback" not in answer.err
        return answer

    before = sys.stdin
    yield run
    sys.stdin = before


# ------------------------------------------------------------------------------------------------------------ why


def test_why_tells_an_event_with_its_rules_candidates_goal_and_tries(bridge):
    answer = bridge("why", "evt_1")
    assert answer.code == 0
    for text in (
        "checkout.session.completed  evt_1",
        "delivered 1 more time",
        f'data.object.metadata.datafast_visitor_id  "{ALICE}": is a visitor id',
        "stripe:live:cs_live_1",
        "purchase",
        "matched: goal purchase",
        f"Visitor        {ALICE}",
        "delivered",
        "sent: delivered (200)",
    ):
        assert text in answer.out


def test_why_names_path_expected_and_actual_of_the_condition_that_failed(bridge):
    out = bridge("why", "evt_2").out
    assert "no: data.object.payment_status is " in out
    assert "unpaid" in out
    assert "paid" in out.split("expected", 1)[1]


def test_why_and_explain_name_the_nearest_rule_and_the_one_condition_that_fails(bridge):
    out = bridge("why", "evt_2").out
    near = next(line for line in out.splitlines() if line.startswith("  Nearest"))
    assert near.split(maxsplit=1)[1].startswith("purchase: data.object.payment_status is unpaid, expected ")
    assert near.endswith("; its other conditions hold")
    (element,) = bridge("why", "evt_2", "--json").json["events"][0]["trace"]["elements"]
    assert (element["nearest"]["rule"], element["nearest"]["failing"]) == ("purchase", 1)
    body = json.dumps(HAPPENED[2]).encode()
    answer = bridge("explain", "-", "--source", "stripe", stdin=body)
    assert f"The nearest is {near.split(maxsplit=1)[1]}." in answer.out.splitlines()[0]
    assert "Nearest" not in bridge("why", "evt_1").out


def test_why_of_an_event_that_no_rule_is_for_says_so(bridge):
    assert "for event types other than price.created" in bridge("why", "evt_price").out


def test_why_tells_a_goal_and_how_its_visitor_is_known(bridge):
    refund = next(goal for goal in bridge("goals", "--json").json if goal["name"] == "refund")
    out = bridge("why", f"goal_{refund['id']}").out
    assert ALICE in out
    assert "learned from checkout.session.completed evt_1" in out
    assert "evt_refund" in out


@pytest.mark.parametrize("what", ["cus_1", "stripe:live:pi_1", ALICE, ALICE.upper()])
def test_why_tells_a_customer_a_key_and_a_visitor_as_one_time_line(bridge, what):
    out = bridge("why", what).out
    assert ALICE in out
    assert out.index("evt_1") < out.index("evt_refund")
    assert "purchase to" in out
    assert "refund to" in out


def test_why_says_what_a_goal_waits_for(bridge):
    out = bridge("why", "evt_dispute").out
    assert "parked" in out
    assert "waits for an event of payment intent pi_9" in out


def test_a_goal_that_waits_for_a_key_or_a_pause_says_so_wherever_it_is_shown(bridge, stage, monkeypatch):
    with closing(sqlite3.connect(stage.database)) as conn, conn:
        conn.execute("UPDATE goals SET state = 'pending' WHERE id = 1")
        conn.execute("UPDATE destinations SET pause_kind = 'configuration', pause_reason = 'bad key'")
    shown = (("why", "goal_1"), ("why", "evt_1"), ("goals", "show", "goal_1"), ("goals",))
    for words in shown:
        assert "the destination default is paused (bad key)" in bridge(*words).out
    monkeypatch.delenv("DATAFAST_API_KEY")
    for words in shown:
        assert "waits until DATAFAST_API_KEY is set" in bridge(*words).out


def test_why_of_nothing_known_is_a_no_that_says_what_was_looked_for(bridge):
    answer = bridge("why", "cus_nobody")
    assert answer.code == 1
    assert answer.out == ""
    assert "no event (ev_12" in answer.err


def test_why_needs_no_valid_mappings_and_no_other_valid_setting(bridge, monkeypatch):
    monkeypatch.setenv("BRIDGE_MAPPINGS", "/nowhere")
    monkeypatch.setenv("BRIDGE_THREADS", "many")
    assert bridge("why", "ev_1").code == 0
    assert bridge("events").code == 0
    assert bridge("goals").code == 0


def test_why_as_json_holds_the_trace_the_goal_and_its_attempts_but_no_body(bridge):
    told = bridge("why", "evt_1", "--json").json
    assert told["events"][0]["trace"]["elements"][0]["rules"]
    assert told["goals"][0]["goal"]["visitor"] == ALICE
    assert told["goals"][0]["attempts"][0]["outcome"] == "delivered"
    assert MAIL not in json.dumps(told)


def test_what_a_webhook_holds_cannot_steer_the_terminal(bridge):
    out = bridge("why", "evt_3").out
    assert "red" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


# --------------------------------------------------------------------------------------- a database that is not ready


READERS = [["why", "ev_1"], ["events"], ["goals"], ["links", "show", "cus_1"], ["events", "replay", "ev_1"]]


@pytest.mark.parametrize("line", READERS, ids=" ".join)
def test_without_a_database_a_question_names_the_command_to_run_and_creates_nothing(bridge, monkeypatch, line):
    monkeypatch.setenv("DATABASE_URL", "sqlite:///other.db")
    answer = bridge(*line)
    assert answer.code == 1
    assert "python -m bridge migrate" in answer.err
    assert not Path("other.db").exists()


@pytest.mark.parametrize("line", READERS, ids=" ".join)
def test_an_older_schema_is_one_sentence_with_the_command_to_run(bridge, stage, line):
    opened = store.open(stage.environ["DATABASE_URL"])
    with opened.write() as conn:
        conn.exec_driver_sql("UPDATE bridge_version SET version_num = '0001'")
    opened.close()
    answer = bridge(*line)
    assert answer.code == 1
    assert "python -m bridge migrate" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_migrate_needs_nothing_but_the_database(bridge, monkeypatch, tmp_path):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'fresh.db'}")
    monkeypatch.setenv("DATAFAST_API_KEY", "sk_wrong")
    monkeypatch.setenv("BRIDGE_MAPPINGS", "/nowhere")
    assert bridge("migrate").code == 0
    assert bridge("migrate", "--json").json == {"ok": True, "schema": "current"}
    assert bridge("events").out == "No event has been received yet.\n"
    assert bridge("goals").out == "No goal has been made yet.\n"


def test_migrate_of_the_release_before_finds_the_later_tables_fine(bridge, stage):
    with closing(sqlite3.connect(stage.database)) as conn, conn:
        conn.execute("UPDATE bridge_version SET version_num = '9999'")
    answer = bridge("migrate")
    assert (answer.code, answer.err) == (0, "")
    assert "a later release" in answer.out
    assert bridge("migrate", "--json").json == {"ok": True, "schema": "newer"}


# ---------------------------------------------------------------------------------------------------------- events


def test_events_are_listed_newest_first_with_what_became_of_them(bridge):
    lines = bridge("events").out.splitlines()
    assert lines[0].split()[0] == "EVENT"
    assert [line.split()[0] for line in lines[1:]] == [f"ev_{n}" for n in range(6, 0, -1)]
    assert "purchase delivered" in lines[-1]


def test_events_can_be_filtered_and_paged(bridge):
    assert [one["type"] for one in bridge("events", "--verdict", "unmatched", "--json").json] == [
        "price.created",
        "checkout.session.completed",
    ]
    page = bridge("events", "list", "--limit", "2")
    assert "More: --before ev_5" in page.out
    assert [one["id"] for one in bridge("events", "--before", "ev_5", "--limit", "2", "--json").json] == [4, 3]
    assert bridge("events", "--since", "1h", "--type", "charge.refunded", "--json").json[0]["provider_event_id"] == (
        "evt_refund"
    )
    assert bridge("events", "--state", "quarantined").out == "No event like that.\n"


def test_a_duration_that_is_none_is_wrong_use(bridge):
    answer = bridge("events", "--since", "yesterday")
    assert answer.code == 2
    assert "500ms, 5s, 2min" in answer.err


def test_an_event_is_shown_by_either_name_and_its_body_is_what_came(bridge):
    by_ours, by_theirs = (bridge("events", "show", name).out.splitlines() for name in ("ev_1", "evt_1"))
    assert by_ours[:2] == by_theirs[:2]  # behind these it says how long ago things were
    assert json.loads(bridge("events", "show", "ev_1", "--body").out) == HAPPENED[0]
    assert bridge("events", "show", "ev_99").code == 1


def test_replay_of_named_events_asks_where_a_goal_was_delivered(bridge):
    asked = bridge("events", "replay", "ev_2", "ev_5")
    assert asked.code == 2
    assert "Route 2 events again; 1 goal was already delivered and will not be sent again?" in asked.err
    assert bridge("events", "replay", "ev_2", "ev_5", "--yes").code == 0
    assert "already waiting to be routed" in bridge("events", "replay", "ev_2", "--yes").out
    assert [one["id"] for one in bridge("events", "--state", "received", "--json").json] == [5, 2]


def test_rubbish_is_taken_out_of_quarantine_and_told_from_what_is_in_none(bridge, stage):
    with closing(sqlite3.connect(stage.database)) as conn, conn:
        conn.execute("UPDATE events SET state = 'quarantined', reason = 'the body is not JSON' WHERE id = 5")
    answer = bridge("events", "ignore", "ev_5", "ev_2")
    assert answer.code == 1
    assert answer.out == "ev_5 is ignored now.\nev_2 is not in quarantine, and was left alone.\n"
    told = bridge("events", "show", "ev_5", "--json").json["line"]
    assert (told["verdict"], told["reason"]) == ("ignored", "set aside by a person: the body is not JSON")
    assert bridge("events", "ignore", "ev_5", "--json").json["not_in_quarantine"] == ["ev_5"]
    assert bridge("events", "replay", "ev_5").code == 0


def test_replay_by_filter_is_asked_about_and_refused_where_nobody_can_answer(bridge):
    answer = bridge("events", "replay", "--verdict", "unmatched")
    assert answer.code == 2
    assert "add --yes" in answer.err
    done = bridge("events", "replay", "--verdict", "unmatched", "--yes", "--json").json
    assert done == {"ok": True, "queued": ["ev_3", "ev_5"], "not_queued": []}


def test_replay_of_nothing_in_particular_is_wrong_use(bridge):
    assert bridge("events", "replay", "--yes").code == 2


@pytest.mark.parametrize("ending", ["--dry-run", "--yes"])
def test_replay_of_a_source_or_type_of_which_nothing_is_stored_says_so(bridge, ending):
    for option, said in (("--source", "from the source 'nobody'"), ("--type", "of the type 'nobody'")):
        answer = bridge("events", "replay", option, "nobody", ending)
        assert (answer.code, answer.out) == (1, "")
        assert f"There is no event {said}." in answer.err


# ----------------------------------------------------------------------------------------------------------- goals


def test_goals_are_listed_with_their_state_and_visitor_in_full(bridge):
    out = bridge("goals").out
    assert f"purchase  {ALICE}  delivered" in out
    assert [one["name"] for one in bridge("goals", "--state", "parked", "--json").json] == ["purchase", "dispute"]
    assert [one["name"] for one in bridge("goals", "--visitor", ALICE, "--json").json] == ["refund", "purchase"]
    assert [one["name"] for one in bridge("goals", "--event", "ev_1", "--json").json] == ["purchase"]


def purchase(bridge):
    return next(one["id"] for one in bridge("goals", "--name", "purchase", "--json").json if one["visitor"])


def test_a_delivered_goal_is_sent_again_only_after_a_yes_and_only_once(bridge):
    goal = f"goal_{purchase(bridge)}"
    refused = bridge("goals", "retry", goal)
    assert refused.code == 2
    assert "Send again, so that DataFast counts it twice?" in refused.err
    again = bridge("goals", "retry", goal, "--yes")
    assert again.code == 0
    assert "is sent again, as goal_" in again.out
    twice = bridge("goals", "retry", goal, "--yes")
    assert twice.code == 1
    assert "was sent again before" in twice.out
    assert len([one for one in bridge("goals", "--json").json if one["name"] == "purchase" and one["visitor"]]) == 2


def test_a_parked_goal_can_be_cancelled_and_a_delivered_one_not(bridge):
    parked = bridge("goals", "--state", "parked", "--name", "dispute", "--json").json[0]["id"]
    assert bridge("goals", "cancel", f"goal_{parked}").code == 0
    answer = bridge("goals", "cancel", str(purchase(bridge)), "goal_99")
    assert answer.code == 1
    assert "already final" in answer.out
    assert "goal_99 does not exist" in answer.out


def test_retry_of_a_whole_state_is_asked_about(bridge):
    parked = bridge("goals", "--state", "parked", "--name", "dispute", "--json").json[0]["id"]
    bridge("goals", "cancel", str(parked))
    assert bridge("goals", "retry", "--state", "cancelled").code == 2
    told = bridge("goals", "retry", "--state", "cancelled", "--yes", "--json").json
    assert told["goals"][0]["outcome"] == "rerouted"


def test_a_goal_is_shown_with_every_try(bridge):
    told = bridge("goals", "show", str(purchase(bridge)), "--json").json
    assert told["attempts"][0]["status"] == 200
    assert bridge("goals", "show", "goal_99").code == 1
    assert bridge("goals", "show", "seven").code == 2


# ----------------------------------------------------------------------------------------- links, relearn, forget


def test_a_link_by_hand_wakes_the_goal_that_waited_for_it(bridge):
    assert bridge("links", "add", "stripe", "payment_intent", "pi_9", BOB).code == 0
    assert BOB in bridge("links", "show", "pi_9").out
    dispute = bridge("goals", "--name", "dispute", "--json").json[0]
    assert (dispute["state"], dispute["visitor"]) == ("pending", BOB)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stripe", "customer", "cus_1", "undefined"], "leave the key out"),
        (["stripe", "Customer!", "cus_1", BOB], "kind should be a word"),
        (["nobody", "customer", "cus_1", BOB], "There is no source 'nobody'"),
        (["stripe", "customer", "", BOB], "cannot be remembered as an id"),
    ],
)
def test_a_link_that_cannot_be_meant_is_wrong_use(bridge, words, sentence):
    answer = bridge("links", "add", *words)
    assert answer.code == 2
    assert sentence in answer.err


def test_a_forgotten_key_leads_nowhere_and_the_rest_stays(bridge):
    assert bridge("links", "forget", "cus_1").code == 0
    assert bridge("links", "show", "cus_1").code == 1
    shown = bridge("links", "show", "pi_1").out
    assert ALICE in shown
    assert "named by stripe checkout.session.completed " in shown


def test_relearn_brings_a_forgotten_link_back_from_the_stored_events(bridge):
    bridge("links", "forget", "cus_1")
    assert bridge("relearn", "--json").json == {"ok": True, "events": len(HAPPENED)}
    assert ALICE in bridge("links", "show", "cus_1").out


def test_forget_asks_first_and_leaves_no_trace_of_the_person_in_the_file(bridge, stage):
    texts = [ALICE, "cus_1", "pi_1", "cs_live_1"]
    assert all(text.encode() in stage.database.read_bytes() for text in texts)
    asked = bridge("forget", "--customer", "cus_1")
    assert asked.code == 2
    assert "2 events, 2 goals" in asked.err
    done = bridge("forget", "--customer", "cus_1", "--yes")
    assert done.code == 0
    assert f"and the visitor at DataFast:\n    {ALICE}" in done.out  # what remains to be done at DataFast
    left = b"".join(file.read_bytes() for file in stage.database.parent.glob("bridge.db*"))
    assert [text for text in texts if text.encode() in left] == []
    assert BOB.encode() in left
    assert bridge("goals", "--name", "purchase", "--json").json[-1]["state"] == "delivered"
    assert bridge("forget", "--customer", "cus_1", "--yes").code == 1


def test_forget_finds_a_person_by_the_address_in_stored_bodies(bridge, stage):
    assert bridge("forget", "--email", MAIL.upper(), "--yes").code == 0
    left = b"".join(file.read_bytes() for file in stage.database.parent.glob("bridge.db*"))
    assert MAIL.encode() not in left


def test_forget_of_nobody_is_wrong_use(bridge):
    assert bridge("forget").code == 2


# --------------------------------------------------------------------------------------------------------- explain


def test_explain_shows_the_goal_as_it_would_be_sent_and_touches_nothing(bridge, stage, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "sqlite:///untouched.db")
    file = tmp_path / "event.json"
    file.write_text(json.dumps(checkout(7)))
    sent = len(stage.sandbox.world.goals())
    told = bridge("explain", str(file), "--source", "stripe", "--json").json
    assert told["verdict"] == "matched"
    assert told["goals"][0]["request"] == {
        "datafast_visitor_id": ALICE,
        "name": "purchase",
        "description": "stripe evt_7",
        "metadata": {"provider": "stripe", "amount": "49.00", "currency": "USD", "mode": "payment", "plan": "pro"},
    }
    assert told["goals"][0]["what"] == "would be sent"
    assert not Path("untouched.db").exists()
    assert len(stage.sandbox.world.goals()) == sent


def test_explain_names_the_first_failing_condition(bridge):
    body = json.dumps(checkout(7, payment_status="unpaid")).encode()
    out = bridge("explain", "-", "--source", "stripe", stdin=body).out
    assert out.startswith("No goal: no rule matches.")
    assert "no: data.object.payment_status is " in out


def test_explain_says_what_a_goal_without_a_visitor_waits_for(bridge):
    body = json.dumps(HAPPENED[3]).encode()
    out = bridge("explain", "-", "--source", "stripe", stdin=body).out
    assert "waits for an event of payment intent pi_9" in out


def test_explain_says_what_a_goal_would_need_that_follows_another(bridge):
    thing = {"id": "in_1", "object": "invoice", "billing_reason": "subscription_cycle", "amount_paid": 4900,
             "attempt_count": 1, "currency": "usd", "customer": "cus_1"}  # fmt: skip
    body = json.dumps(event("invoice.paid", thing, "evt_by_hand")).encode()
    out = bridge("explain", "-", "--source", "stripe", stdin=body).out
    assert "No goal is certain. payment_recovered would need payment_failed with in_1, made before." in out
    assert "not by itself: would need payment_failed with in_1, made before" in " ".join(out.split())
    told = bridge("explain", "-", "--source", "stripe", "--json", stdin=body).json
    assert told["verdict"] == "unmatched"
    assert told["goals"][0]["what"].startswith("would need payment_failed with in_1, made before; if it was: ")


def test_explain_says_that_a_test_event_is_never_sent(bridge):
    body = json.dumps({**checkout(7), "livemode": False}).encode()
    assert "a test event: nothing would be sent" in bridge("explain", "-", "--source", "stripe", stdin=body).out


def test_explain_says_that_an_old_event_would_not_be_sent(bridge):
    body = json.dumps({**checkout(7), "created": 1_600_000_000}).encode()
    assert "older than 7d" in bridge("explain", "-", "--source", "stripe", stdin=body).out


@pytest.mark.parametrize(
    ("age_s", "secret", "sentence"),
    [
        (0, STRIPE_SECRET, "is valid"),
        (0, "whsec_other", "would be refused"),
        (9_000, STRIPE_SECRET, "would be refused"),
    ],
)
def test_explain_looks_at_the_signature_of_a_captured_request(bridge, tmp_path, monkeypatch, age_s, secret, sentence):
    request = stripe_request(checkout(7), time.time() - age_s)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    file = tmp_path / "captured.http"
    file.write_bytes(f"POST /webhooks/stripe HTTP/1.1\r\nHost: h.example\r\n{head}\r\n".encode() + request.body)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", secret)
    told = bridge("explain", str(file), "--json").json
    assert told["signature"].startswith(sentence)
    assert told["verdict"] == "matched"
    assert secret not in json.dumps(told)


def test_explain_of_what_cannot_be_read_says_that_it_would_be_kept(bridge):
    answer = bridge("explain", "-", "--source", "stripe", stdin=b'{"a": NaN}')
    assert answer.code == 1
    assert answer.out.startswith("It would be accepted and put into quarantine")


def test_explain_asks_for_the_source_when_there_are_several(bridge):
    answer = bridge("explain", "-", stdin=b"{}")
    assert answer.code == 2
    assert "generic, lemonsqueezy and stripe" in answer.err
    assert bridge("explain", "-", "--source", "shop", stdin=b"{}").code == 2


# ---------------------------------------------------------------------------------------------------------- doctor


def findings(answer):
    return {(one["level"], one["about"]): one["sentence"] for one in answer.json["findings"]}


def test_doctor_tells_which_website_the_key_belongs_to(bridge):
    answer = bridge("doctor", "--json")
    assert "shop.example" in findings(answer)["ok", "destination default"]
    assert answer.code == 0


def test_doctor_sends_bridge_test_and_reads_it_back(bridge, stage):
    answer = bridge("doctor", "--visitor", BOB, "--json")
    assert answer.code == 0
    assert "read back from DataFast" in findings(answer)["ok", "bridge_test"]
    assert [goal.name for goal in stage.sandbox.world.goals() if goal.visitor == BOB] == ["bridge_test"]


def test_doctor_fails_for_a_key_that_datafast_does_not_know(bridge, monkeypatch):
    monkeypatch.setenv("DATAFAST_API_KEY", "df_of_somebody_else")
    answer = bridge("doctor", "--json")
    assert answer.code == 1
    assert ("fail", "destination default") in findings(answer)
    assert "df_of_somebody_else" not in answer.out


def test_doctor_names_every_fault_and_goes_on(bridge, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "sqlite:///none.db")
    monkeypatch.setenv("BRIDGE_MAPPINGS", "/nowhere")
    monkeypatch.setenv("BRIDGE_THREADS", "many")
    answer = bridge("doctor")
    assert answer.code == 1
    assert [line.split()[1] for line in answer.out.splitlines() if line.startswith("fail")] == [
        "settings:",
        "mappings:",
        "database:",
    ]


def test_doctor_says_when_no_worker_is_at_work(bridge, stage):
    opened = store.open(stage.environ["DATABASE_URL"])
    with opened.write() as conn:
        conn.exec_driver_sql("DELETE FROM workers")
    opened.close()
    assert "No worker was seen" in findings(bridge("doctor", "--json"))["warn", "worker"]


def test_doctor_tells_a_paused_destination_with_its_reason(bridge, stage):
    opened = store.open(stage.environ["DATABASE_URL"])
    with opened.write() as conn:
        conn.exec_driver_sql(
            "INSERT INTO destinations (name, not_before_ms, pause_kind, pause_reason, paused_since_ms) VALUES"
            " ('default', 0, 'configuration', 'the key is wrong', 1790000000000) ON CONFLICT (name) DO UPDATE SET"
            " pause_kind = excluded.pause_kind, pause_reason = excluded.pause_reason,"
            " paused_since_ms = excluded.paused_since_ms"
        )
    opened.close()
    out = bridge("doctor").out
    assert "fail  paused: A destination is paused. Destination default has been paused for" in out
    assert "the key is wrong" in out


def test_doctor_fails_where_a_process_is_seen_and_no_worker(bridge, stage):
    """That is where /status says 503; without a process nobody asks it."""
    opened = store.open(stage.environ["DATABASE_URL"])
    with opened.write() as conn:
        status.record_heartbeat(conn, "w", kind="web", rules_hash="h", rules_fault=None)
    opened.close()
    answer = bridge("doctor", "--json")
    assert answer.code == 1
    assert findings(answer)["fail", "no worker"].startswith("No worker is running: events are stored, but nothing")


def test_a_visitor_that_is_none_is_wrong_use_of_doctor(bridge):
    answer = bridge("doctor", "--visitor", "s" + BOB)
    assert answer.code == 2
    assert "session id" in answer.err


# ------------------------------------------------------------------------------------------------------------ laws


EVERY = [
    ["check"], ["sources"], ["doctor"], ["why", "ev_1"], ["why", "cus_1"], ["events"], ["goals"],
    ["events", "show", "ev_1"], ["goals", "show", "1"], ["links", "show", "cus_1"], ["simulate", "--list"],
]  # fmt: skip


@pytest.mark.parametrize("line", EVERY, ids=" ".join)
@pytest.mark.parametrize("form", one_in(2, ["text", "json"]))
def test_no_command_shows_a_secret_or_a_body(bridge, line, form):
    answer = bridge(*line, *(["--json"] if form == "json" else []))
    assert answer.code == 0
    for secret in (KEY, *SECRETS.values(), MAIL, "admin-token-that-must-not-be-told"):
        assert secret not in answer.out + answer.err
    if form == "json":
        assert answer.json
