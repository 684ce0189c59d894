"""What a sender is told, and what the log is told of it."""

from __future__ import annotations

import gzip
import io
import json
import logging
from concurrent.futures import Future

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop import SECRET, sale, shop, signed
from sqlalchemy import select

from bridge.errors import SchemaError, StoreUnavailable
from bridge.model import Ack
from bridge.receive import receive
from bridge.server.framing import BODY_LIMIT
from bridge.store.schema import events, source_counters


@pytest.fixture(params=["waits", "later"])
def client(new_client, request):
    return new_client(request.param)


def stored(bridge):
    with bridge.store.read() as conn:
        return conn.execute(select(events).order_by(events.c.id)).all()


def counted(bridge):
    bridge.counters.flush(bridge.store)
    with bridge.store.read() as conn:
        return conn.execute(select(source_counters)).one()


# ---------------------------------------------------------------------------------------------------- what comes in


@pytest.mark.parametrize("address", ["/webhooks/shop", "/webhooks/shop/", "/webhooks/shop?a=1", "/webhooks/shop/?a=1"])
def test_a_signed_event_is_accepted_with_or_without_a_slash(client, bridge, address):
    data = sale()
    answer = client.post(address, data=data, headers=signed(data))
    assert (answer.status_code, answer.json) == (200, {"status": "accepted"})
    assert [row.body for row in stored(bridge)] == [data]


def test_the_same_event_again_is_a_duplicate(client, bridge):
    data = sale()
    client.post("/webhooks/shop", data=data, headers=signed(data))
    answer = client.post("/webhooks/shop", data=data, headers=signed(data))
    assert (answer.status_code, answer.json) == (200, {"status": "duplicate"})
    assert [row.duplicates for row in stored(bridge)] == [1]


def test_an_authentic_body_that_is_no_document_is_kept_with_200(client, bridge):
    data = b'{"type": NaN'
    answer = client.post("/webhooks/shop", data=data, headers=signed(data))
    assert (answer.status_code, answer.json) == (200, {"status": "accepted"})
    assert [(row.state, row.body) for row in stored(bridge)] == [("quarantined", data)]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "nonsense", "multipart/form-data"])
def test_a_content_type_is_no_reason_to_refuse(client, kind):
    data = sale()
    assert client.post("/webhooks/shop", data=data, headers=signed(data), content_type=kind).status_code == 200


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Signature": ""}, {"X-Signature": "00" * 32}, {"X-Signature": "é" * 64}, signed(sale(), "another")],
)
def test_whoever_cannot_sign_hears_401_and_not_why(client, bridge, headers):
    answer = client.post("/webhooks/shop", data=sale(), headers=headers)
    assert (answer.status_code, answer.text) == (401, "The signature is missing or wrong.\n")
    assert stored(bridge) == []


def test_a_refusal_is_counted_and_ends_with_the_next_event(client, bridge):
    client.post("/webhooks/shop", data=sale())
    client.post("/webhooks/shop", data=sale())
    row = counted(bridge)
    assert (row.refused, row.refused_in_row) == (2, 2)
    assert row.last_refusal
    client.post("/webhooks/shop", data=sale(), headers=signed(sale()))
    assert counted(bridge).refused_in_row == 0


@pytest.mark.parametrize("name", ["nobody", "..", "%2e%2e", "caf%C3%A9", "%FF", "shop%00", "shop%2Fa", "a/b", ""])
def test_an_unknown_source_is_404(client, bridge, name):
    assert client.post(f"/webhooks/{name}", data=sale(), headers=signed(sale())).status_code == 404
    assert stored(bridge) == []


def test_a_source_without_a_secret_is_503_and_asks_to_come_again(client, bridge):
    answer = client.post("/webhooks/off", data=sale(), headers=signed(sale(), ""))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert stored(bridge) == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP", "identity, gzip"])
def test_a_compressed_body_is_415(client, encoding):
    data = gzip.compress(sale())
    answer = client.post("/webhooks/shop", data=data, headers={**signed(data), "Content-Encoding": encoding})
    assert answer.status_code == 415


@pytest.mark.parametrize("encoding", ["identity", "", " Identity "])
def test_a_body_that_is_not_compressed_may_say_so(client, encoding):
    data = sale()
    answer = client.post("/webhooks/shop", data=data, headers={**signed(data), "Content-Encoding": encoding})
    assert answer.status_code == 200


@pytest.mark.parametrize(("extra", "status"), [(-1, 200), (0, 200), (1, 413)])
@pytest.mark.parametrize("stated", [True, False])
def test_the_limit_of_a_body_is_exact_with_and_without_a_length(client, extra, status, stated):
    data = b'"' + b"x" * (BODY_LIMIT + extra - 2) + b'"'
    options = {"content_length": len(data)} if stated else {"environ_overrides": {"wsgi.input_terminated": True}}
    answer = client.post("/webhooks/shop", input_stream=io.BytesIO(data), headers=signed(data), **options)
    assert answer.status_code == status


def test_a_length_that_lies_hides_nothing(client):
    data = b"x" * (BODY_LIMIT + 1)
    answer = client.post(
        "/webhooks/shop",
        input_stream=io.BytesIO(data),
        headers=signed(data),
        content_length=10,
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("address", ["/webhooks/shop", "/webhooks/shop/", "/webhooks/nobody"])
def test_any_other_method_is_405_with_a_sentence(client, method, address):
    answer = client.open(address, method=method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert answer.text.startswith("This address takes webhooks by POST.")


def test_head_is_405_without_a_body(client):
    answer = client.head("/webhooks/shop")
    assert (answer.status_code, answer.data) == (405, b"")


# -------------------------------------------------------------------------------------------------- when we fail


class Broken:
    def __init__(self, error):
        self.error = error

    def post(self, _event):
        future = Future()
        future.set_exception(self.error)
        return future


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (StoreUnavailable("the database is gone"), "5"),
        (SchemaError("The database is older than this release: run `python -m bridge migrate`"), "30"),
        (ZeroDivisionError("s3cret"), "30"),
        (RecursionError(), "30"),
        (MemoryError(), "30"),
    ],
)
def test_whatever_fails_inside_is_503_and_asks_to_come_again(client, bridge, lines, error, wait):
    bridge.inbox.close()
    real, bridge.inbox = bridge.inbox, Broken(error)
    answer = client.post("/webhooks/shop", data=sale(), headers=signed(sale()))
    bridge.inbox = real
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, wait)
    assert "Traceback" not in answer.text
    assert "s3cret" not in answer.text + json.dumps(lines)


def test_an_older_schema_says_which_command_to_run(client, bridge):
    real, bridge.inbox = bridge.inbox, Broken(SchemaError("Run `python -m bridge migrate`"))
    answer = client.post("/webhooks/shop", data=sale(), headers=signed(sale()))
    bridge.inbox = real
    assert "python -m bridge migrate" in answer.text


def test_a_reader_that_fails_keeps_the_event_in_quarantine(client, bridge):
    class Trap:
        text = "type"

        def read(self, _document):
            raise ZeroDivisionError("body: 4242")

    source = shop()
    object.__setattr__(source.envelope, "type", (Trap(),))
    bridge.sources["shop"] = source
    data = sale()
    answer = client.post("/webhooks/shop", data=data, headers=signed(data))
    assert answer.status_code == 200
    row = stored(bridge)[0]
    assert (row.state, row.body) == ("quarantined", data)
    assert "ZeroDivisionError" in row.reason
    assert "4242" not in row.reason


# ------------------------------------------------------------------------------------------------------- the line


def test_one_line_tells_all_of_a_webhook(client, lines):
    data = sale()
    client.post("/webhooks/shop", data=data, headers=signed(data))
    (line,) = lines
    assert line.pop("ms") >= 0
    assert line == {
        "event": "webhook",
        "log_level": "info",
        "part": "receive",
        "source": "shop",
        "type": "sale",
        "id": "evt_1",
        "outcome": "accepted",
    }


@pytest.mark.parametrize(
    ("address", "headers", "outcome"),
    [
        ("/webhooks/shop", {}, "refused"),
        ("/webhooks/off", {}, "refused"),
        ("/webhooks/nobody", {}, "unknown_source"),
        ("/webhooks/shop", {"Content-Encoding": "gzip"}, "refused"),
    ],
)
def test_a_refusal_is_one_line_with_its_reason(client, lines, address, headers, outcome):
    client.post(address, data=sale(), headers=headers)
    (line,) = lines
    assert (line["event"], line["outcome"]) == ("webhook", outcome)
    assert line["reason"]


def test_no_line_holds_a_secret_or_a_body(client, lines):
    data = sale(email="ann@example.com")
    for headers in (signed(data), signed(data, "other"), {"Authorization": "Bearer tok3n"}):
        client.post("/webhooks/shop?token=tok3n", data=data, headers=headers)
    told = json.dumps(lines)
    assert len(lines) == 3
    for hidden in (SECRET, "ann@example.com", "tok3n", signed(data)["X-Signature"]):
        assert hidden not in told


def test_a_name_that_would_break_the_log_is_written_as_text(client, lines):
    client.post("/webhooks/a%0Ab%1B[31m", data=b"")
    assert lines[0]["source"].isprintable()


# ------------------------------------------------------------------------------------------------------ any request


@settings(
    max_examples=settings.default.max_examples * 3,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(
    data=st.binary(max_size=200),
    signature=st.one_of(st.none(), st.text(alphabet=st.characters(codec="latin-1", exclude_characters="\r\n"))),
    name=st.sampled_from(["shop", "off", "nobody"]),
)
def test_no_unsigned_request_is_taken_and_none_is_our_fault(client, bridge, data, signature, name):
    logging.disable()
    headers = {} if signature is None else {"X-Signature": signature}
    answer = client.post(f"/webhooks/{name}", data=data, headers=headers)
    assert answer.status_code == {"shop": 401, "off": 503, "nobody": 404}[name]
    assert stored(bridge) == []


def test_receive_takes_a_request_as_a_value(bridge):
    from bridge.model import Request

    data = sale()
    headers = {name.lower(): value for name, value in signed(data).items()}
    request = Request("POST", "http://h/webhooks/shop", "/webhooks/shop", "", headers, data)
    assert receive(bridge, "shop", lambda: request).ack.result(10) is Ack.ACCEPTED
    assert receive(bridge, "shop", lambda: request).ack.result(10) is Ack.DUPLICATE
