"""The stand-in is held to the contract of the destination, rule by rule, over real HTTP.

Names of the rules (C1, G5, …) are those of the contract: common rules, and the order of checks of POST /goals.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from urllib.parse import urlsplit

import pytest

from bridge.sandbox.faults import KINDS
from bridge.sandbox.options import WEBSITE_ID
from bridge.sandbox.server import Options, Token, create, start

VISITOR = "0b5c2f6e-8a7d-4c3b-9e1f-2a3b4c5d6e7f"
OTHER = "1b5c2f6e-8a7d-4c3b-9e1f-2a3b4c5d6e7f"
KEY = "df_sandbox"


class Caller:
    """Speaks HTTP to a running stand-in, without any code of the bridge."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.world = sandbox.world

    def call(self, method, path, body=None, *, key=KEY, headers=None, timeout=10):
        place = urlsplit(self.sandbox.url)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        told = response.headers.get("Content-Type", "").startswith("application/json")
        return response.status, json.loads(raw) if told else raw.decode(), response.headers

    def goal(self, key=KEY, /, **changes):
        body = {"datafast_visitor_id": VISITOR, "name": "purchase"} | changes
        return self.call("POST", "/api/v1/goals", body, key=key)

    def set(self, **options):
        status, told, _ = self.call("POST", "/__fake__/options", options)
        assert status == 200, told


@pytest.fixture
def api():
    tokens = (
        Token("dft_all"),
        Token("dft_reader", scopes=("analytics:read",)),
        Token("dft_second", websites=(f"{int(WEBSITE_ID, 16) + 1:024x}",)),
    )
    with start(Options(keys=(KEY, "df_second"), tokens=tokens)) as sandbox:
        sandbox.world.seed(VISITOR, "known")
        yield Caller(sandbox)


def refused(answer, status, part=""):
    got, body, _ = answer
    assert got == status
    assert body["status"] == "error"
    assert body["error"]["code"] == status
    assert part in body["error"]["message"]


# ------------------------------------------------------------------------------------------------- C1 to C5: entry


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY, "Bearer df_unknown"])
def test_c1_a_missing_malformed_or_unknown_key_is_401(api, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in [("POST", "/goals"), ("GET", f"/visitors/{VISITOR}"), ("GET", "/analytics/metadata")]:
        refused(api.call(method, f"/api/v1{path}", {}, key=None, headers=headers), 401)


def test_c2_a_token_without_a_website_is_400(api):
    refused(api.goal("dft_all"), 400, "websiteId")
    api.set(token_without_website=422)
    refused(api.goal("dft_all"), 422)


def test_c3_a_token_without_the_scope_or_the_website_is_403(api):
    body = {"datafast_visitor_id": VISITOR, "name": "a"}
    place = f"/api/v1/goals?websiteId={WEBSITE_ID}"
    assert api.call("POST", place, body, key="dft_all")[0] == 200
    refused(api.call("POST", place, body, key="dft_reader"), 403, "goals:write")
    refused(api.call("POST", place, body, key="dft_second"), 403)
    refused(api.call("POST", "/api/v1/goals?websiteId=0123", body, key="dft_all"), 403)
    assert api.call("GET", f"/api/v1/visitors/{VISITOR}?websiteId={WEBSITE_ID}", key="dft_reader")[0] == 200


def test_c4_a_suspended_website_is_403(api):
    api.set(suspended=True)
    refused(api.goal(), 403, "Tracking suspended for this website.")


@pytest.mark.parametrize("body", [b"", b"{", b"name=purchase", b"\xff", b"[]", b'"text"', b"null", b"[" * 100_000])
def test_c5_a_body_that_is_no_json_object_is_400(api, body):
    refused(api.call("POST", "/api/v1/goals", body), 400, "JSON")


# -------------------------------------------------------------------------------------------------- C6 to C9: pace


def test_c6_more_than_sixty_a_minute_are_429_with_the_reset_in_header_and_body(api):
    api.world.set_clock(now_ms=1_800_000_000_000)
    for _ in range(60):
        assert api.goal()[0] == 200
    status, body, headers = api.goal()
    assert status == 429
    reset = int(headers["X-RateLimit-Reset"])
    assert 1_800_000_000_000 < reset <= api.world.now_ms() + 60_000
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("60", "0")
    assert (body["limit"], body["remaining"], body["reset"]) == (60, 0, reset)
    assert headers["Retry-After"] is None
    assert len(api.world.goals()) == 60


def test_c6_the_window_slides(api):
    api.set(rate_per_minute=2)
    api.goal()
    api.world.set_clock(advance_ms=40_000)
    api.goal()
    assert api.goal()[0] == 429
    api.world.set_clock(advance_ms=21_000)
    assert [api.goal()[0] for _ in range(2)] == [200, 429]


def test_c6_or_is_fixed(api):
    api.set(rate_per_minute=2, rate_window="fixed")
    api.world.set_clock(now_ms=60_000 * 30_000_000 + 50_000)
    assert [api.goal()[0] for _ in range(3)] == [200, 200, 429]
    api.world.set_clock(now_ms=60_000 * 30_000_001)
    assert [api.goal()[0] for _ in range(3)] == [200, 200, 429]


def test_c6_each_key_has_a_bucket_of_its_own_and_read_backs_count(api):
    api.set(rate_per_minute=2)
    assert api.goal()[0] == 200
    assert api.call("GET", f"/api/v1/visitors/{VISITOR}")[0] == 200
    assert api.goal()[0] == 429
    assert api.goal("df_second")[0] == 200


def test_c6_goals_may_be_free(api):
    api.set(rate_per_minute=1, rate_counts_goals=False)
    assert [api.goal()[0] for _ in range(3)] == [200, 200, 200]


def test_c6_the_envelope_and_retry_after_are_switches(api):
    api.set(rate_per_minute=1, rate_envelope=False, retry_after=True)
    api.goal()
    status, body, headers = api.goal()
    assert (status, "error" in body) == (429, False)
    assert 1 <= int(headers["Retry-After"]) <= 60


def test_c6_zero_is_no_limit(api):
    api.set(rate_per_minute=0)
    assert {api.goal()[0] for _ in range(70)} == {200}


def test_c7_a_success_has_no_rate_headers_unless_asked(api):
    assert api.goal()[2]["X-RateLimit-Limit"] is None
    api.set(rate_headers_always=True)
    assert api.goal()[2]["X-RateLimit-Remaining"] == "58"


def test_c9_the_reset_may_be_in_seconds(api):
    api.set(rate_per_minute=1, reset_in="s")
    api.goal()
    _, body, _ = api.goal()
    assert 0 < body["reset"] - api.world.now_ms() / 1000 <= 61


# ----------------------------------------------------------------------------------------------------- POST /goals


def test_a_goal_is_recorded_with_its_time_and_answered_as_documented(api):
    api.world.set_clock(now_ms=1_800_000_000_000)
    status, body, headers = api.goal(description="stripe evt_1", metadata={"plan": "pro"})
    assert status == 200
    assert body["status"] == "success"
    ((told,), (goal,)) = body["data"], api.world.goals()
    assert told["message"] == "Custom event created successfully"
    assert re.fullmatch(r"[0-9a-f]{24}", told["eventId"])
    assert goal.event_id == told["eventId"]
    assert (goal.visitor, goal.name, goal.description, goal.metadata) == (
        VISITOR,
        "purchase",
        "stripe evt_1",
        {"plan": "pro"},
    )
    assert 0 <= goal.at_ms - 1_800_000_000_000 < 5_000
    assert headers["Date"].startswith("Fri, 15 Jan 2027 08:00:0")


def test_g3_the_visitor_may_come_under_its_alias(api):
    assert api.call("POST", "/api/v1/goals", {"visitorId": VISITOR, "name": "a"})[0] == 200


@pytest.mark.parametrize("visitor", [None, "", 7, ["x"]])
def test_g3_without_a_visitor_it_is_400(api, visitor):
    refused(api.goal(datafast_visitor_id=visitor), 400, "datafast_visitor_id")


@pytest.mark.parametrize("visitor", ["x", VISITOR.replace("-4c", "-1c"), VISITOR[:-1], f"{VISITOR} ", f"s{VISITOR}"])
def test_g4_a_visitor_that_is_no_uuid4_is_400(api, visitor):
    refused(api.goal(datafast_visitor_id=visitor), 400, "UUID v4")
    api.set(uuid_only=False)
    refused(api.goal(datafast_visitor_id=visitor), 404)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("Purchase", "purchase"),
        ("a b  c", "a_b__c"),
        (" trial ", "trial"),
        ("a:b-c_1", "a:b-c_1"),
        ("x" * 64, "x" * 64),
    ],
)
def test_g5_a_name_is_normalised_and_stored_so(api, name, stored):
    assert api.goal(name=name)[0] == 200
    assert api.world.goals()[0].name == stored


@pytest.mark.parametrize("name", [None, "", "  ", 7, "x" * 65, "é", "a.b", "a/b", "a\tb", "<b>", "purchase\n!"])
def test_g5_any_other_name_is_400(api, name):
    refused(api.goal(name=name), 400)


def test_g6_identify_is_reserved(api):
    refused(api.goal(name="Identify"), 400, "reserved")


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        "text",
        7,
        {f"k{n}": "v" for n in range(11)},
        {"Plan": "pro"},
        {"plan name": "pro"},
        {"": "pro"},
        {"k" * 65: "pro"},
        {"plan": "x" * 256},
        {"plan": "👩" * 128},  # 256 as JavaScript counts
    ],
)
def test_g7_metadata_that_breaks_a_limit_is_400(api, metadata):
    refused(api.goal(metadata=metadata), 400, "metadata")


def test_g7_metadata_at_its_limits_is_accepted(api):
    metadata = {f"{n}{'k' * 63}": "x" * 255 for n in range(10)}
    assert api.goal(metadata=metadata)[0] == 200
    assert api.world.goals()[0].metadata == metadata


def test_g7_the_guesses_about_metadata_are_switches(api):
    api.set(upper_case_keys="lower", long_values="cut", count="characters")
    assert api.goal(metadata={"Plan": "x" * 300, "emoji": "👩" * 255})[0] == 200
    assert api.world.goals()[0].metadata == {"plan": "x" * 255, "emoji": "👩" * 255}
    api.set(other_values="refuse")
    refused(api.goal(metadata={"n": 1}), 400)


def test_g7_other_values_become_text_as_in_javascript(api):
    given = {"n": 2999, "f": 1.5, "i": 2.0, "t": True, "x": None, "o": {"a": 1}, "l": [1, "b"]}
    api.goal(metadata=given)
    told = {"n": "2999", "f": "1.5", "i": "2", "t": "true", "x": "", "o": "[object Object]", "l": "1,b"}
    assert api.world.goals()[0].metadata == told


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("R&D <b>Kit</b>", "RD bKit/b"),
        ("O'Brien", "OBrien"),
        ("https://x.com/?conversion_id=5&a=1", "https://x.com/?c5a=1"),
        (" JavaScript:alert(1) ", "alert(1)"),
        ('"quoted"', "quoted"),
    ],
)
def test_g8_markup_is_taken_out_of_values(api, given, kept):
    api.goal(metadata={"v": given})
    assert api.world.goals()[0].metadata == {"v": kept}
    api.set(clean_values=False)
    api.goal(metadata={"v": given})
    assert api.world.goals()[1].metadata == {"v": given}


def test_g9_a_bot_is_400(api):
    api.world.seed(VISITOR, "bot")
    refused(api.goal(), 400, "bot")


def test_g10_an_unknown_visitor_is_404_with_the_sentence_that_was_seen(api):
    refused(api.goal(datafast_visitor_id=OTHER), 404, f"First event not found for visitor {OTHER}")


def test_g11_the_same_goal_twice_is_two_goals(api):
    ids = {api.goal()[1]["data"][0]["eventId"] for _ in range(3)}
    assert len(ids) == len(api.world.goals()) == 3


def test_the_order_of_the_checks_is_a_switch(api):
    refused(api.goal(datafast_visitor_id=OTHER, name="é"), 400, "goal name")
    api.set(order=["visitor", "uuid", "known", "name", "reserved", "metadata", "bot"])
    refused(api.goal(datafast_visitor_id=OTHER, name="é"), 404)


def test_unknown_fields_are_ignored_unless_switched(api):
    assert api.goal(timestamp="2020-01-01")[0] == 200
    api.set(extra_fields="refuse")
    refused(api.goal(timestamp="2020-01-01"), 400, "timestamp")


def test_the_limits_of_2025(api):
    api.set(legacy="2025")
    for changes in ({"name": "x" * 33}, {"name": "a:b"}, {"metadata": {"k" * 33: "v"}}):
        refused(api.goal(**changes), 400)
    assert api.goal(name="x" * 32, metadata={"k" * 32: "v"})[0] == 200


def test_errors_may_have_the_older_form(api):
    api.set(error_form="text")
    status, body, _ = api.goal(name="identify")
    assert (status, body) == (400, {"error": '"identify" is a reserved goal name'})


# -------------------------------------------------------------------------------------------------------- payments


def pay(api, **changes):
    body = {"amount": 49, "currency": "USD", "transaction_id": "t1", "datafast_visitor_id": VISITOR} | changes
    return api.call("POST", "/api/v1/payments", body)


def test_a_payment_is_recorded_once(api):
    assert pay(api)[:2] == (200, {"message": "Payment recorded and attributed successfully", "transaction_id": "t1"})
    status, body, _ = pay(api, amount=99)
    assert (status, "duplicate" in body["message"]) == (200, True)
    assert [payment["amount"] for payment in api.world.payments.values()] == [49]


@pytest.mark.parametrize(
    "changes",
    [{"amount": -1}, {"amount": "49"}, {"amount": None}, {"amount": True}, {"currency": ""}, {"transaction_id": None}],
)
def test_a_payment_without_what_it_needs_is_400(api, changes):
    refused(pay(api, **changes), 400)


def test_a_payment_without_a_visitor_is_another_message(api):
    status, body, _ = pay(api, datafast_visitor_id=None, amount=0)
    assert (status, body["message"]) == (200, "Payment recorded without a visitor")


def test_a_payment_of_an_unknown_visitor_is_a_switch(api):
    refused(pay(api, datafast_visitor_id=OTHER), 404, "First event not found")
    api.set(unknown_payer="accept")
    assert pay(api, datafast_visitor_id=OTHER)[0] == 200


# -------------------------------------------------------------------------------------------------------- visitors


def test_a_visitor_tells_its_goals_in_the_newest_shape(api):
    api.goal(name="a", description="stripe evt_1")
    api.goal(name="b")
    status, body, _ = api.call("GET", f"/api/v1/visitors/{VISITOR}")
    assert (status, body["status"], body["data"]["visitorId"]) == (200, "success", VISITOR)
    first, second = body["data"]["activity"]["completedGoals"]
    assert first.pop("timestamp").endswith("Z")
    assert (first, second["name"]) == ({"name": "a", "origin": "manual", "description": "stripe evt_1"}, "b")
    assert "description" not in second


def test_a_visitor_tells_its_goals_in_the_older_shape(api):
    api.set(goals_shape="old", tell_description=False, tell_event_id=True)
    api.goal(name="a", description="stripe evt_1")
    activity = api.call("GET", f"/api/v1/visitors/{VISITOR}")[1]["data"]["activity"]
    (entry,) = activity["completedCustomGoals"]
    assert "completedGoals" not in activity
    assert (entry["isServer"], entry["eventId"]) == (True, api.world.goals()[0].event_id)
    assert "description" not in entry


def test_visitors_that_cannot_be_told(api):
    refused(api.call("GET", "/api/v1/visitors/x"), 400, "UUID v4")
    refused(api.call("GET", f"/api/v1/visitors/{OTHER}"), 404)
    api.world.seed(OTHER, "bot")
    refused(api.call("GET", f"/api/v1/visitors/{OTHER}"), 400, "bot")


def test_the_visitors_are_listed_page_by_page(api):
    api.world.seed(OTHER, "known")
    api.goal(name="a")
    status, body, _ = api.call("GET", "/api/v1/visitors?limit=1")
    assert (status, [row["visitorId"] for row in body["data"]]) == (200, [VISITOR])
    assert body["pagination"] == {"limit": 1, "offset": 0, "total": 2, "hasMore": True}
    with_goal = api.call("GET", "/api/v1/visitors?completedGoal=a")[1]
    assert [row["visitorId"] for row in with_goal["data"]] == [VISITOR]


def test_each_website_has_its_own_goals(api):
    api.goal()
    api.goal("df_second", name="refund")
    for key, name in ((KEY, "purchase"), ("df_second", "refund")):
        told = api.call("GET", f"/api/v1/visitors/{VISITOR}", key=key)[1]
        assert [entry["name"] for entry in told["data"]["activity"]["completedGoals"]] == [name]


# ------------------------------------------------------------------------------------------------------- analytics


def test_goals_are_counted_without_those_of_the_life_cycle(api):
    api.world.seed(OTHER, "known")
    for name, visitor in [("a", VISITOR), ("a", VISITOR), ("a", OTHER), ("b", OTHER), ("subscription_started", OTHER)]:
        api.goal(name=name, datafast_visitor_id=visitor)
    status, body, _ = api.call("GET", "/api/v1/analytics/goals")
    assert status == 200
    assert body["data"] == [
        {"goal": "a", "completions": 3, "visitors": 2},
        {"goal": "b", "completions": 1, "visitors": 1},
    ]
    assert body["pagination"] == {"limit": 100, "offset": 0, "total": 2}


def test_the_metadata_tells_which_website_a_key_belongs_to(api):
    for key, domain in ((KEY, "shop.example"), ("df_second", "2.shop.example")):
        (row,) = api.call("GET", "/api/v1/analytics/metadata", key=key)[1]["data"]
        assert row["domain"] == domain
        assert set(row) == {"domain", "timezone", "name", "kpiColorScheme", "kpi", "currency"}


# -------------------------------------------------------------------------------------------------------- identify


def test_a_visitor_is_identified_step_by_step(api):
    def identify(**changes):
        body = {"user_id": "u1", "datafast_visitor_id": VISITOR} | changes
        return api.call("POST", "/api/v1/identify", body)

    assert [identify(**fields)[1]["data"]["action"] for fields in ({"plan": "pro"}, {}, {"plan": "max"})] == [
        "created",
        "unchanged",
        "updated",
    ]
    refused(identify(user_id="x" * 256), 400)
    refused(identify(user_id=None), 400)
    refused(identify(datafast_visitor_id="x"), 400)
    refused(identify(datafast_visitor_id=OTHER), 404)
    profile = api.call("GET", f"/api/v1/visitors/{VISITOR}")[1]["data"]["profile"]
    assert profile == {"user_id": "u1", "plan": "max"}


# --------------------------------------------------------------------------------------------------- DELETE /goals


def test_goals_are_deleted_by_filters_only(api):
    api.goal(name="a")
    api.goal(name="b")
    refused(api.call("DELETE", "/api/v1/goals"), 400)
    refused(api.call("DELETE", "/api/v1/goals?start=2020-01-01"), 400)
    refused(api.call("DELETE", "/api/v1/goals?start=soon&end=later"), 400)
    assert api.call("DELETE", "/api/v1/goals?start=2020-01-01&end=2020-01-02")[0] == 200
    assert len(api.world.goals()) == 2
    body = api.call("DELETE", "/api/v1/goals?name=a")[1]
    assert body["data"][0]["goal_name"] == "a"
    assert [goal.name for goal in api.world.goals()] == ["b"]
    assert api.call("DELETE", f"/api/v1/goals?datafast_visitor_id={VISITOR}&start=2020-01-01&end=2999-01-01")[0] == 200
    assert api.world.goals() == []


def test_the_older_range_is_ignored_so_that_everything_of_a_name_goes(api):
    api.goal(name="a")
    refused(api.call("DELETE", "/api/v1/goals?startAt=2020-01-01&endAt=2020-01-02"), 400)
    api.set(delete_knows_old_range=True)
    api.call("DELETE", "/api/v1/goals?name=a&startAt=2020-01-01&endAt=2020-01-02")
    assert len(api.world.goals()) == 1
    api.set(delete_knows_old_range=False)
    api.call("DELETE", "/api/v1/goals?name=a&startAt=2020-01-01&endAt=2020-01-02")
    assert api.world.goals() == []


# -------------------------------------------------------------------------------------------------- seeding, clock


def test_visitors_are_seeded(api):
    rows = [{"id": OTHER, "state": "bot"}, {"id": VISITOR, "state": "unknown"}]
    assert api.call("POST", "/__fake__/visitors", rows)[:2] == (200, {"seeded": 2})
    refused(api.goal(datafast_visitor_id=OTHER.upper()), 400, "bot")
    refused(api.goal(), 404)
    told = {row["id"]: row["state"] for row in api.call("GET", "/__fake__/visitors")[1]["visitors"]}
    assert told == {OTHER: "bot", VISITOR: "unknown"}
    assert api.call("DELETE", "/__fake__/visitors")[0] == 200
    assert api.world.seeds() == {}


def test_a_visitor_becomes_known_after_a_while(api):
    api.call("POST", "/__fake__/visitors", {"id": OTHER, "state": "known", "known_after_ms": 5_000})
    assert api.goal(datafast_visitor_id=OTHER)[0] == 404
    api.call("POST", "/__fake__/clock", {"advance_ms": 5_001})
    assert api.goal(datafast_visitor_id=OTHER)[0] == 200


def test_any_uuid_may_be_known_for_a_demo(api):
    api.set(known="any")
    assert api.goal(datafast_visitor_id=OTHER)[0] == 200
    refused(api.goal(datafast_visitor_id="x"), 400)
    api.world.seed(OTHER, "unknown")
    assert api.goal(datafast_visitor_id=OTHER)[0] == 404


def test_the_clock_is_set_and_put_back(api):
    told = api.call("POST", "/__fake__/clock", {"now_ms": 1_900_000_000_000})[1]
    assert 0 <= told["now_ms"] - 1_900_000_000_000 < 5_000
    assert told["now"].startswith("2030-03-17T17:46:4")
    api.call("POST", "/__fake__/clock", {})
    assert abs(api.call("GET", "/__fake__/clock")[1]["now_ms"] / 1000 - time.time()) < 5


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("visitors", {"id": 7}),
        ("visitors", {"id": "x", "state": "dead"}),
        ("visitors", {"id": "x", "known_after_ms": "soon"}),
        ("visitors", b"nonsense"),
        ("clock", {"now": 5}),
        ("clock", {"now_ms": "soon"}),
        ("faults", {"kind": "nonsense"}),
        ("faults", {"kind": "500", "times": 0}),
        ("faults", {"kind": "500", "colour": "red"}),
        ("options", {"nonsense": 1}),
        ("options", {"suspended": "yes"}),
        ("options", {"rate_per_minute": True}),
        ("options", {"known": "some"}),
        ("options", {"order": "name"}),
        ("options", {"keys": ["df_mine"]}),
    ],
)
def test_a_wrong_order_to_the_stand_in_is_400_with_a_sentence(api, path, body):
    status, told, _ = api.call("POST", f"/__fake__/{path}", body)
    assert status == 400
    assert told["error"]


def test_options_never_tell_the_keys(api):
    assert KEY not in json.dumps(api.call("GET", "/__fake__/options")[1])


def test_events_tell_the_goals_and_the_requests_they_came_by(api):
    api.goal(name="A", description="stripe evt_1", metadata={"k": "v"})
    api.goal(name="b")
    told = api.call("GET", "/__fake__/events")[1]
    assert told["count"] == 2
    first = told["events"][0]
    assert (first["name"], first["visitor"], first["website"]) == ("a", VISITOR, "shop.example")
    assert json.loads(first["request"]["body"])["name"] == "A"
    assert KEY not in json.dumps(told)
    later = api.call("GET", f"/__fake__/events?since=1&visitor={VISITOR}")[1]["events"]
    assert [event["name"] for event in later] == ["b"]
    assert [event["name"] for event in api.call("GET", "/__fake__/events?name=a")[1]["events"]] == ["a"]
    assert api.call("DELETE", "/__fake__/events")[1]["count"] == 0
    assert api.world.goals() == []


def test_requests_are_told_also_the_refused(api):
    api.goal()
    api.goal("df_wrong")
    api.world.faults.put(KINDS["503"])
    api.goal()
    rows = api.call("GET", "/__fake__/requests")[1]["requests"]
    assert [(row["method"], row["path"], row["status"], row["fault"]) for row in rows] == [
        ("POST", "/api/v1/goals", 200, None),
        ("POST", "/api/v1/goals", 401, None),
        ("POST", "/api/v1/goals", 503, "503"),
    ]
    api.call("DELETE", "/__fake__/requests")
    assert api.world.requests() == []


# ------------------------------------------------------------------------------------------------------ C8: faults


def test_c8_a_fault_meets_the_next_requests_of_its_path(api):
    order = {"kind": "503", "times": 2, "path": "/goals"}
    assert api.call("POST", "/__fake__/faults", order)[1]["waiting"] == ["503", "503"]
    assert api.call("GET", f"/api/v1/visitors/{VISITOR}")[0] == 200
    assert [api.goal()[0] for _ in range(3)] == [503, 503, 200]
    assert api.call("GET", "/__fake__/faults")[1]["met"] == {"503": 2}


def test_c8_waiting_faults_are_cleared(api):
    api.call("POST", "/__fake__/faults", [{"kind": "500"}, {"kind": "502"}])
    assert api.call("DELETE", "/__fake__/faults")[1]["waiting"] == []
    assert api.goal()[0] == 200


@pytest.mark.parametrize("kind", ["recorded_500", "recorded_504", "500", "502", "503", "504", "408", "425", "429"])
def test_c8_a_status_comes_instead_of_the_answer(api, kind):
    api.call("POST", "/__fake__/faults", {"kind": kind})
    assert api.goal()[0] == int(kind[-3:])
    assert len(api.world.goals()) == kind.startswith("recorded")


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("html", 200, "<!DOCTYPE html>"),
        ("502", 502, "<!DOCTYPE html>"),
        ("empty_500", 500, None),
        ("text_500", 500, None),
    ],
)
def test_c8_bodies_of_other_kinds(api, kind, status, body):
    api.call("POST", "/__fake__/faults", {"kind": kind})
    if kind == "empty_500":
        with pytest.raises(json.JSONDecodeError):
            api.goal()
        return
    got, told, _ = api.goal()
    assert got == status
    assert told.startswith(body) if body else told == {"error": "asked for: text_500"}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("recorded_dropped", http.client.RemoteDisconnected),
        ("dropped", http.client.RemoteDisconnected),
        ("recorded_reset", ConnectionResetError),
        ("reset", ConnectionResetError),
        ("recorded_cut", http.client.IncompleteRead),
        ("recorded_hung", TimeoutError),
        ("hung", TimeoutError),
        ("recorded_drip", TimeoutError),
    ],
)
def test_c8_the_connection_breaks_before_or_after_recording(api, kind, error):
    api.call("POST", "/__fake__/faults", {"kind": kind, "drip_ms": 1_000})
    with pytest.raises(error):
        api.call("POST", "/api/v1/goals", {"datafast_visitor_id": VISITOR, "name": "a"}, timeout=0.3)
    assert len(api.world.goals()) == kind.startswith("recorded")
    assert api.goal()[0] == 200


def test_c8_a_hung_request_ends_by_itself(api):
    api.call("POST", "/__fake__/faults", {"kind": "recorded_hung", "hang_ms": 50})
    with pytest.raises(http.client.RemoteDisconnected):
        api.goal()


def test_c8_faults_by_chance_repeat_with_their_seed(api):
    def run():
        api.world.faults.clear()
        api.set(fault_percent=50, fault_kinds=["503", "500"], rate_per_minute=0, seed=0)
        api.set(seed=7)
        return [api.goal()[0] for _ in range(60)]

    statuses = run()
    assert 10 <= statuses.count(200) <= 50
    assert {503, 500} < set(statuses)
    api.set(seed=8)
    api.goal()
    assert run() == statuses


def test_every_kind_of_fault_has_a_name_that_is_its_key():
    assert all(name == fault.kind for name, fault in KINDS.items())


# ------------------------------------------------------------------------------------------------------ the server


@pytest.mark.long
def test_goals_can_be_read_while_others_arrive(api):
    api.set(rate_per_minute=0)
    failures = []

    def write():
        failures.extend(status for status in (api.goal()[0] for _ in range(50)) if status != 200)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    seen = 0
    while any(thread.is_alive() for thread in threads):
        status, told, _ = api.call("GET", "/__fake__/events")
        assert status == 200
        assert len(told["events"]) >= seen
        seen = len(told["events"])
    assert failures == []
    assert api.world.count() == 300
    assert len({goal.event_id for goal in api.world.goals()}) == 300


@pytest.mark.long
def test_twenty_thousand_goals_stay_cheap(api):
    from bridge.sandbox.goals import Draft

    website = api.world.website(KEY, None, "goals:write")
    for number in range(20_000):
        api.world.record(website, Draft({}, Options(), str, VISITOR, "a", f"stripe evt_{number}"), {}, "{}")
    started = time.process_time()
    assert api.goal()[0] == 200
    told = api.call("GET", "/__fake__/events?since=19990")[1]
    one_and_ten = time.process_time() - started
    assert (told["count"], len(told["events"])) == (20_001, 11)
    started = time.process_time()
    assert len(api.call("GET", "/__fake__/events")[1]["events"]) == 20_001
    assert one_and_ten < (time.process_time() - started) / 2


def test_a_connection_is_kept_for_the_next_request(api):
    place = urlsplit(api.sandbox.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=5)
    for _ in range(3):
        connection.request("GET", "/__fake__/clock")
        response = connection.getresponse()
        response.read()
        assert response.headers["Connection"] == "keep-alive"
    connection.close()


def test_a_body_without_a_usable_length_is_refused(api):
    place = urlsplit(api.sandbox.url)
    for headers, status in [
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "9999999"}, 413),
        ({"Content-Length": "x"}, 411),
    ]:
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=5)
        connection.putrequest("POST", "/api/v1/goals")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()


def test_it_listens_on_this_machine_only(api):
    assert api.sandbox.url.startswith("http://127.0.0.1:")


def test_an_unknown_route_is_a_page_and_not_an_error_of_the_api(api):
    status, body, _ = api.call("GET", "/api/v1/nonsense")
    assert (status, body.lower().startswith("<!doctype html>")) == (404, True)


def test_the_application_works_without_the_server_too():
    client = create(Options(known="any")).test_client()
    answer = client.post(
        "/api/v1/goals",
        json={"datafast_visitor_id": VISITOR, "name": "a"},
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == 200


# -------------------------------------------------------------------------------------------------------- the page


def test_the_page_says_what_to_do_while_there_is_no_goal(api):
    status, page, headers = api.call("GET", "/", key=None)
    assert status == 200
    assert f"DATAFAST_API_URL={api.sandbox.api_url}" in page
    assert KEY not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_the_page_lists_the_goals_escaped_newest_first(api):
    api.set(clean_values=False)
    api.goal(name="older")
    api.goal(name="newer", description="<script>alert(1)</script>", metadata={"k": "<img src=x onerror=alert(1)>"})
    page = api.call("GET", "/", key=None)[1]
    assert page.index("newer") < page.index("older")
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>2</b> goals received" in page


def test_the_page_shows_the_last_two_hundred(api):
    from bridge.sandbox.goals import Draft

    website = api.world.website(KEY, None, "goals:write")
    for number in range(205):
        api.world.record(website, Draft({}, Options(), str, VISITOR, f"goal_{number:03}"), {}, "")
    page = api.call("GET", "/", key=None)[1]
    assert page.count('<th scope="row"') == 200
    assert "goal_204" in page
    assert "goal_004" not in page
    assert "The last 200 of 205" in page
