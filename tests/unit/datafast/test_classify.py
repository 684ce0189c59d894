"""The table of DataFast's answers, row by row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.datafast import Answer, classify
from bridge.model import OutcomeKind

NOW = 1_790_000_000_000
JSON = {"content-type": "application/json"}
HTML = {"content-type": "text/html; charset=utf-8"}
RECORDED = b'{"status":"success","data":[{"message":"Custom event created successfully","eventId":"67f8b9b5c320277d"}]}'
UNKNOWN = b'{"status":"error","error":{"code":404,"message":"First event not found for visitor x"}}'


def of(status, body=b"", headers=JSON, *, cut=False, secret=None):
    return classify(Answer(status, headers, body, cut), now_ms=NOW, secret=secret)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, RECORDED, OutcomeKind.DELIVERED),
        (200, b"", OutcomeKind.DELIVERED),
        (200, b"not json", OutcomeKind.DELIVERED),
        (201, b"{}", OutcomeKind.DELIVERED),
        (202, b"", OutcomeKind.DELIVERED),
        (204, b"", OutcomeKind.DELIVERED),
        (301, b"", OutcomeKind.CONFIGURATION),
        (302, b"", OutcomeKind.CONFIGURATION),
        (307, b"", OutcomeKind.CONFIGURATION),
        (308, b"", OutcomeKind.CONFIGURATION),
        (400, b"", OutcomeKind.REJECTED),
        (401, b"", OutcomeKind.CONFIGURATION),
        (402, b"", OutcomeKind.CONFIGURATION),
        (403, b"", OutcomeKind.CONFIGURATION),
        (404, UNKNOWN, OutcomeKind.UNKNOWN_VISITOR),
        (404, b'{"error":"First event not found for visitor x"}', OutcomeKind.UNKNOWN_VISITOR),
        (404, b'{"status":"error"}', OutcomeKind.UNKNOWN_VISITOR),
        (404, b"", OutcomeKind.CONFIGURATION),
        (404, b"Not Found", OutcomeKind.CONFIGURATION),
        (404, b'{"detail":"Not Found"}', OutcomeKind.CONFIGURATION),
        (404, b'{"error":null}', OutcomeKind.CONFIGURATION),
        (404, b"[]", OutcomeKind.CONFIGURATION),
        (405, b"", OutcomeKind.CONFIGURATION),
        (408, b"", OutcomeKind.REFUSED_FOR_NOW),
        (409, b"", OutcomeKind.REJECTED),
        (410, b"", OutcomeKind.CONFIGURATION),
        (413, b"", OutcomeKind.REJECTED),
        (418, b"", OutcomeKind.REJECTED),
        (422, b"", OutcomeKind.REJECTED),
        (425, b"", OutcomeKind.REFUSED_FOR_NOW),
        (429, b"", OutcomeKind.THROTTLED),
        (451, b"", OutcomeKind.REJECTED),
        (500, b"", OutcomeKind.UNCONFIRMED),
        (502, b"", OutcomeKind.UNCONFIRMED),
        (503, b"", OutcomeKind.REFUSED_FOR_NOW),
        (504, b"", OutcomeKind.UNCONFIRMED),
        (599, b"", OutcomeKind.UNCONFIRMED),
        (101, b"", OutcomeKind.UNCONFIRMED),
        (700, b"", OutcomeKind.UNCONFIRMED),
    ],
)
def test_each_status_has_its_row(status, body, kind):
    assert of(status, body).kind is kind


def test_a_recorded_goal_keeps_its_event_id_and_the_clock_of_the_server():
    outcome = of(200, RECORDED, JSON | {"date": "Mon, 21 Sep 2026 13:33:20 GMT"})
    assert (outcome.event_id, outcome.status) == ("67f8b9b5c320277d", 200)
    assert outcome.server_now_ms == 1_789_997_600_000


@pytest.mark.parametrize(
    ("body", "event_id"),
    [
        (b'{"data":{"eventId":"one"}}', "one"),
        (b'{"data":[{"eventId":"one"},{"eventId":"two"}]}', "one"),
        (b'{"eventId":"one"}', "one"),
        (b'{"data":[]}', None),
        (b'{"data":[{"eventId":7}]}', None),
        (b'{"data":"one"}', None),
        (b'["one"]', None),
        (b'{"data":[{"eventId":"' + b"x" * 999 + b'"}]}', "x" * 64),
    ],
)
def test_the_event_id_is_read_from_a_list_and_from_an_object(body, event_id):
    assert of(200, body).event_id == event_id


def test_a_cut_body_after_a_2xx_is_delivered():
    assert of(200, RECORDED[:40], cut=True).kind is OutcomeKind.DELIVERED


@pytest.mark.parametrize("body", [b"<!DOCTYPE html><html></html>", b"\xef\xbb\xbf\n <HTML><body>", b"<html lang=en>"])
@pytest.mark.parametrize("headers", [HTML, JSON, {}])
def test_a_whole_web_page_with_a_2xx_is_no_answer_of_the_api(body, headers):
    outcome = of(200, body, headers)
    assert outcome.kind is OutcomeKind.CONFIGURATION
    assert "DATAFAST_API_URL" in outcome.message


def test_a_compressed_page_that_calls_itself_html_is_no_answer_of_the_api():
    assert of(200, b"\x1f\x8b\x08\x00", HTML | {"content-encoding": "gzip"}).kind is OutcomeKind.CONFIGURATION


@pytest.mark.parametrize(
    ("body", "headers", "cut"),
    [(b"<html><body>", HTML, True), (RECORDED, HTML, False), (b"", HTML, False), (b"<xml/>", JSON, False)],
    ids=["cut page", "JSON called HTML", "empty", "markup of another kind"],
)
def test_what_may_be_a_recorded_goal_stays_delivered(body, headers, cut):
    assert of(200, body, headers, cut=cut).kind is OutcomeKind.DELIVERED


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (401, "the API key"),
        (402, "a payment"),
        (403, "the website suspended"),
        *((s, "API_URL") for s in (404, 405, 410)),
    ],
)
def test_what_shuts_a_destination_says_what_to_look_at(status, what):
    told = of(status, b"<h1>nope</h1>").message
    assert what in told
    assert told.endswith(f"The answer was {status}: nope")
    assert of(status, b"").message.endswith(f"The answer was {status}")
    assert len(of(status, b"x" * 5_000).message) <= 300


def test_a_redirect_says_where_it_leads():
    outcome = of(302, b"", {"location": "https://elsewhere.example/login"})
    assert "https://elsewhere.example/login" in outcome.message


# ------------------------------------------------------------------------------------------------------------ waiting

LATER = NOW + 30_000


@pytest.mark.parametrize(
    ("headers", "body", "wait_ms"),
    [
        ({}, b"", 60_000),
        ({"x-ratelimit-reset": str(LATER)}, b"", 30_000),
        ({"x-ratelimit-reset": str(LATER // 1000)}, b"", 30_000),
        ({"x-ratelimit-reset": f"{LATER / 1000:.3f}"}, b"", 30_000),
        ({}, json.dumps({"limit": 60, "remaining": 0, "reset": LATER}).encode(), 30_000),
        ({}, json.dumps({"reset": LATER // 1000}).encode(), 30_000),
        ({}, json.dumps({"reset": str(LATER)}).encode(), 30_000),
        ({"x-ratelimit-reset": str(LATER)}, json.dumps({"reset": NOW}).encode(), 30_000),
        ({"x-ratelimit-reset": "soon"}, json.dumps({"reset": LATER}).encode(), 30_000),
        ({"x-ratelimit-reset": str(NOW - 5_000)}, b"", 1_000),
        ({"x-ratelimit-reset": str(NOW + 86_400_000)}, b"", 900_000),
        ({"x-ratelimit-reset": "30"}, b"", 30_000),
        ({"x-ratelimit-reset": "nan"}, b"", 60_000),
        ({"x-ratelimit-reset": "-1"}, b"", 60_000),
        ({"x-ratelimit-reset": "9" * 400}, b"", 60_000),
        ({}, b'{"reset":true}', 60_000),
        ({}, b'{"reset":{}}', 60_000),
        ({}, b'{"reset":' + b"9" * 5_000 + b"}", 60_000),
        ({"retry-after": "7"}, b"", 7_000),
        ({"retry-after": "7", "x-ratelimit-reset": str(LATER)}, b"", 7_000),
        ({"retry-after": "0"}, b"", 1_000),
        ({"retry-after": "99999"}, b"", 900_000),
        ({"retry-after": "Mon, 21 Sep 2026 14:13:50 GMT"}, b"", 30_000),
        ({"retry-after": "later"}, b"", 60_000),
        ({"retry-after": "٣"}, b"", 60_000),
    ],
)
def test_a_429_waits_for_its_reset(headers, body, wait_ms):
    assert of(429, body, headers).retry_after_ms == wait_ms


def test_the_reset_is_counted_on_the_clock_of_the_server():
    date = {"date": "Mon, 21 Sep 2026 13:33:20 GMT"}  # forty minutes behind ours
    outcome = of(429, b"", date | {"x-ratelimit-reset": "1789997610"})
    assert outcome.retry_after_ms == 10_000


def test_only_a_429_says_how_long_to_wait():
    assert of(503, b"", {"retry-after": "7"}).retry_after_ms is None


# ----------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"status":"error","error":{"code":400,"message":"Visitor is a bot"}}', "Visitor is a bot"),
        (b'{"error":"Visitor is a bot"}', "Visitor is a bot"),
        (b'{"message":"Visitor is a bot"}', "Visitor is a bot"),
        (b'"Visitor is a bot"', "Visitor is a bot"),
        (b"Visitor is a bot\n", "Visitor is a bot"),
        (b'{"error":{"message":"a &lt;b&gt;bold&lt;/b&gt; <i>claim</i>"}}', "a bold claim"),
        (b"<html><head><style>p{}</style><script>evil()</script></head><h1>Bad   gateway</h1>", "Bad gateway"),
        (b"<script>never closed", "the answer was 400, without a message"),
        (b'{"error":{"message":"\\u001b[31mred\\u202e\\ud800"}}', "[31mred"),
        (b'{"error":{"message":"1 < 2 and 3 > 2"}}', "1 < 2 and 3 > 2"),
        (b"", "the answer was 400, without a message"),
        (b"{}", "the answer was 400, without a message"),
        (b"[1,2]", "the answer was 400, without a message"),
        (b'{"error":', "the answer was 400, without a message"),
        (b"[" * 60_000, "the answer was 400, without a message"),
        (b"\xff\xfe\x00", "the answer was 400, without a message"),
    ],
)
def test_a_message_is_read_from_every_shape_and_carries_no_markup(body, message):
    assert of(400, body).message == message


def test_a_message_is_cut_at_300_characters():
    message = of(400, json.dumps({"error": "ab " * 300}).encode()).message
    assert len(message) <= 300
    assert message.endswith("…")


@pytest.mark.parametrize("shape", ['{{"error":"no such key {0}"}}', "<p>no such key {0}</p>", '"{0}"', "{0}{0}"])
def test_an_answer_that_repeats_the_key_does_not_carry_it_on(shape):
    key = "df_0123456789abcdef"
    outcome = of(401, shape.format(key).encode(), secret=key)
    assert key not in outcome.message
    assert "…" in outcome.message


def test_a_redirect_that_repeats_the_key_does_not_carry_it_on():
    assert "df_secret" not in of(302, b"", {"location": "/login?key=df_secret"}, secret="df_secret").message


def test_a_compressed_body_is_not_shown():
    assert of(500, b"\x1f\x8bgarbage", {"content-encoding": "gzip"}).message == "the answer was 500, without a message"


@given(
    st.integers(100, 999),
    st.binary(max_size=300),
    st.dictionaries(
        st.sampled_from(["date", "retry-after", "x-ratelimit-reset", "content-type", "location", "content-encoding"]),
        st.text(max_size=30),
    ),
    st.booleans(),
)
def test_any_answer_has_an_outcome(status, body, headers, cut):
    outcome = classify(Answer(status, headers, body, cut), now_ms=NOW)
    assert len(outcome.message) <= 300
    outcome.message.encode()
    assert (outcome.retry_after_ms is not None) == (outcome.kind is OutcomeKind.THROTTLED)
    if outcome.retry_after_ms is not None:
        assert 1_000 <= outcome.retry_after_ms <= 900_000


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["error", "message", "data", "eventId", "reset", "status"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_has_an_outcome(parsed):
    body = json.dumps(parsed).encode()
    for status in (200, 400, 404, 429, 500):
        assert of(status, body).status == status


def test_hostile_markup_is_stripped_in_linear_time():
    for body in (b"<" * 65_536, b"<a" * 32_768, b"<script" * 9_000, b"&lt;" * 16_000):
        of(400, body)  # the suite's time limit is the assertion: quadratic, this takes minutes
