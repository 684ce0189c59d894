"""The client against the stand-in, over real HTTP: what goes out, and what comes back as which outcome."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace

import pytest

from bridge import __version__
from bridge.datafast import Client
from bridge.datafast.goal import body
from bridge.model import Destination, Outcome, OutcomeKind
from bridge.sandbox.faults import KINDS
from bridge.sandbox.goals import Draft
from bridge.sandbox.options import WEBSITE_ID
from bridge.sandbox.server import Options, Token, start

VISITOR = "0b5c2f6e-8a7d-4c3b-9e1f-2a3b4c5d6e7f"
KEY = "df_sandbox"
TOKEN = "dft_account"
HERE = Destination("default", KEY)


@pytest.fixture
def sandbox():
    tokens = (Token(TOKEN), Token("dft_reader", scopes=("analytics:read",)))
    with start(Options(tokens=tokens)) as running:
        running.world.seed(VISITOR, "known")
        yield running


@pytest.fixture
def client(sandbox):
    client = Client(sandbox.api_url, 5_000)
    yield client
    client.close()


def post(client, destination=HERE, **changes) -> Outcome:
    goal = {"visitor": VISITOR, "name": "purchase", "description": "stripe evt_1", "metadata": {"amount": "49.00"}}
    return client.post(destination, "goals", body(**(goal | changes)))


# --------------------------------------------------------------------------------------------------- what goes out


def test_a_goal_arrives_whole(client, sandbox):
    outcome = post(client)
    (goal,) = sandbox.world.goals()
    assert outcome.kind is OutcomeKind.DELIVERED
    assert outcome.event_id == goal.event_id
    assert (goal.visitor, goal.name, goal.description, goal.metadata) == (
        VISITOR,
        "purchase",
        "stripe evt_1",
        {"amount": "49.00"},
    )


def test_the_body_holds_the_documented_fields_only(client, sandbox):
    post(client)
    assert json.loads(sandbox.world.goals()[0].raw) == {
        "datafast_visitor_id": VISITOR,
        "name": "purchase",
        "description": "stripe evt_1",
        "metadata": {"amount": "49.00"},
    }


def test_an_empty_description_and_no_metadata_are_left_out(client, sandbox):
    post(client, description="", metadata={})
    assert json.loads(sandbox.world.goals()[0].raw) == {"datafast_visitor_id": VISITOR, "name": "purchase"}


def test_the_headers_name_the_project_and_ask_for_no_compression(client, sandbox):
    post(client)
    assert sandbox.world.goals()[0].headers == {
        "Content-Type": "application/json",
        "User-Agent": f"datafast-bridge/{__version__}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }


def test_texts_of_every_script_survive(client, sandbox):
    metadata = {"plan": "Größe Ω 漢字 👩‍👩‍👧"}
    post(client, description="añb", metadata=metadata)
    (goal,) = sandbox.world.goals()
    assert (goal.description, goal.metadata) == ("añb", metadata)


def test_a_netrc_entry_does_not_replace_the_key(client, tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert post(client).kind is OutcomeKind.DELIVERED


def test_a_proxy_of_the_environment_is_not_used(client, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert post(client).kind is OutcomeKind.DELIVERED


# ------------------------------------------------------------------------------------------------- keys and tokens


def test_a_token_names_its_website_in_the_query(client):
    assert post(client, Destination("default", TOKEN, WEBSITE_ID)).kind is OutcomeKind.DELIVERED


def test_a_website_key_leaves_the_website_out(client):
    """Sent with a key, the sandbox would not mind; the documents say to omit it."""
    assert "websiteId" not in client._address(Destination("default", KEY, WEBSITE_ID), KEY, "/goals")
    assert "websiteId" in client._address(Destination("default", TOKEN, WEBSITE_ID), TOKEN, "/goals")


def test_a_token_without_the_permission_is_a_fault_of_the_configuration(client):
    outcome = post(client, Destination("default", "dft_reader", WEBSITE_ID))
    assert (outcome.kind, outcome.status) == (OutcomeKind.CONFIGURATION, 403)


def test_a_wrong_key_is_a_fault_of_the_configuration_and_stays_secret(client):
    outcome = post(client, Destination("default", "df_wrong_key"))
    assert (outcome.kind, outcome.status) == (OutcomeKind.CONFIGURATION, 401)
    assert outcome.message.startswith("DataFast does not accept the API key; is it the one of")
    assert outcome.message.endswith("The answer was 401: Invalid API key")


def test_without_a_key_nothing_is_asked(client, sandbox):
    outcome = post(client, Destination("shop", None))
    assert (outcome.kind, outcome.status) == (OutcomeKind.CONFIGURATION, None)
    assert outcome.message == "destination shop has no API key"
    assert sandbox.world.requests() == []


@pytest.mark.parametrize("key", ["df_a\nX-Evil: 1", "df_ключ", "df_a\0"])
def test_a_key_that_is_no_header_is_a_fault_of_the_configuration(client, sandbox, key):
    outcome = post(client, Destination("default", key))
    assert outcome.kind is OutcomeKind.CONFIGURATION
    assert key not in outcome.message
    assert sandbox.world.requests() == []


# --------------------------------------------------------------------------------------------------------- answers


def test_an_unknown_visitor(client):
    unknown = VISITOR.replace("0b", "1b")
    outcome = post(client, visitor=unknown)
    assert (outcome.kind, outcome.status) == (OutcomeKind.UNKNOWN_VISITOR, 404)
    assert outcome.message == f"First event not found for visitor {unknown}"


def test_a_bot(client, sandbox):
    sandbox.world.seed(VISITOR, "bot")
    assert post(client).kind is OutcomeKind.REJECTED


def test_a_wrong_goal(client):
    assert post(client, name="Straße").kind is OutcomeKind.REJECTED


def test_a_suspended_website(client, sandbox):
    sandbox.world.options = Options(suspended=True)
    outcome = post(client)
    assert outcome.kind is OutcomeKind.CONFIGURATION
    assert outcome.message.startswith("DataFast does not allow it; is the website suspended")
    assert outcome.message.endswith("The answer was 403: Tracking suspended for this website.")


@pytest.mark.parametrize("options", [Options(reset_in="ms"), Options(reset_in="s"), Options(retry_after=True)])
def test_the_rate_limit_says_how_long_to_wait(client, sandbox, options):
    sandbox.world.options = replace(options, rate_per_minute=2)
    sandbox.world.set_clock(now_ms=1_800_000_000_000)
    post(client)
    post(client)
    outcome = post(client)
    assert outcome.kind is OutcomeKind.THROTTLED
    assert 57_000 <= outcome.retry_after_ms <= 61_000


FAULTS = {
    "recorded_dropped": OutcomeKind.UNCONFIRMED,
    "recorded_reset": OutcomeKind.UNCONFIRMED,
    "recorded_hung": OutcomeKind.UNCONFIRMED,
    "recorded_cut": OutcomeKind.DELIVERED,
    "recorded_drip": OutcomeKind.UNCONFIRMED,
    "recorded_empty": OutcomeKind.DELIVERED,
    "recorded_500": OutcomeKind.UNCONFIRMED,
    "recorded_504": OutcomeKind.UNCONFIRMED,
    "reset": OutcomeKind.UNCONFIRMED,
    "dropped": OutcomeKind.UNCONFIRMED,
    "hung": OutcomeKind.UNCONFIRMED,
    "500": OutcomeKind.UNCONFIRMED,
    "502": OutcomeKind.UNCONFIRMED,
    "503": OutcomeKind.REFUSED_FOR_NOW,
    "504": OutcomeKind.UNCONFIRMED,
    "408": OutcomeKind.REFUSED_FOR_NOW,
    "425": OutcomeKind.REFUSED_FOR_NOW,
    "429": OutcomeKind.THROTTLED,
    "html": OutcomeKind.CONFIGURATION,
    "empty_500": OutcomeKind.UNCONFIRMED,
    "text_500": OutcomeKind.UNCONFIRMED,
    "redirect": OutcomeKind.CONFIGURATION,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_of_the_destination_has_its_class(client, sandbox, kind):
    patient = KINDS[kind].end not in ("hang", "drip")
    asked = Client(sandbox.api_url, 10_000 if patient else 500)
    sandbox.world.faults.put(KINDS[kind])
    outcome = post(asked)
    asked.close()
    assert outcome.kind is FAULTS[kind]
    assert sandbox.world.count() == (1 if kind.startswith("recorded_") else 0)
    assert post(client).kind is OutcomeKind.DELIVERED


# ------------------------------------------------------------------------------------------------------- read-back


@pytest.mark.parametrize("shape", ["new", "old"])
def test_the_goals_of_a_visitor_are_read_in_both_shapes(client, sandbox, shape):
    sandbox.world.options = Options(goals_shape=shape)
    post(client)
    answer = client.visitor_goals(HERE, VISITOR)
    (recorded,) = sandbox.world.goals()
    (goal,) = answer.goals
    assert (answer.known, answer.failure) == (True, None)
    assert (goal.name, goal.at_ms, goal.description) == ("purchase", recorded.at_ms, "stripe evt_1")
    assert goal.by_server is (True if shape == "old" else None)
    assert abs(answer.server_now_ms - recorded.at_ms) < 10_000


def test_a_visitor_whom_nobody_knows_is_not_a_failure(client):
    answer = client.visitor_goals(HERE, VISITOR.replace("0b", "1b"))
    assert (answer.known, answer.goals, answer.failure) == (False, (), None)


@pytest.mark.parametrize("kind", ["500", "429", "dropped", "html", "recorded_cut", "recorded_empty"])
def test_a_read_back_that_fails_cannot_tell(client, sandbox, kind):
    sandbox.world.faults.put(replace(KINDS[kind], path="/visitors"))
    answer = client.visitor_goals(HERE, VISITOR)
    assert answer.failure is not None
    assert answer.goals == ()


def test_a_throttled_read_back_says_so(client, sandbox):
    sandbox.world.options = Options(rate_per_minute=1)
    post(client)
    assert client.visitor_goals(HERE, VISITOR).failure.kind is OutcomeKind.THROTTLED


@pytest.mark.parametrize("visitor", ["", ".", "..", "...."])
def test_a_visitor_that_would_be_another_path_is_not_asked_for(client, sandbox, visitor):
    assert client.visitor_goals(HERE, visitor).failure.kind is OutcomeKind.REJECTED
    assert sandbox.world.requests() == []


@pytest.mark.parametrize("visitor", ["a/../../goals", "a?b", "a#b", "é\ud800", " x"])
def test_a_visitor_of_strange_signs_stays_one_segment_of_the_path(client, sandbox, visitor):
    client.visitor_goals(HERE, visitor)
    (request,) = sandbox.world.requests()
    assert re.fullmatch(r"/api/v1/visitors/[^/?#]+", request["path"])


def test_a_history_longer_than_64_kib_is_read(client, sandbox):
    website = sandbox.world.website(KEY, None, "goals:write")
    for number in range(700):
        goal = Draft({}, Options(), str, VISITOR, "purchase", f"stripe evt_{number:020}")
        sandbox.world.record(website, goal, {}, "")
    assert len(client.visitor_goals(HERE, VISITOR).goals) == 700


def test_the_website_of_a_key(client):
    assert client.website(HERE) == "shop.example"


def test_the_website_of_a_wrong_key(client):
    outcome = client.website(Destination("default", "df_wrong"))
    assert isinstance(outcome, Outcome)
    assert outcome.kind is OutcomeKind.CONFIGURATION


# --------------------------------------------------------------------------------------------------------- threads


def test_many_threads_share_a_client(sandbox):
    sandbox.world.options = Options(rate_per_minute=0)
    client = Client(sandbox.api_url, 10_000)
    outcomes = []

    def work(worker):
        outcomes.extend(post(client, description=f"{worker} {number}") for number in range(25))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.DELIVERED}
    assert {outcome.event_id for outcome in outcomes} == {goal.event_id for goal in sandbox.world.goals()}
    assert len({goal.description for goal in sandbox.world.goals()}) == 200
    client.close()
