"""`detect` at the terminal: lines to paste, one wrong setting, and never a secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from bridge.cli import main

SECRET = "a_secret_nobody_may_see"
BODY = b'{"eventType": "FORM_RESPONSE", "eventId": "e1"}'
MAPPING = """provider: custom
secret: ${SHOP_WEBHOOK_SECRET}
verify:
  type: hmac-sha256
  signature: {in: "header:Tally-Signature", encoding: %s}
envelope: {type: eventType, id: eventId}
goals: []
"""


def signed(body=BODY):
    return base64.b64encode(hmac.digest(SECRET.encode(), body, "sha256")).decode()


@pytest.fixture
def captured(alone):
    file = alone / "captured.http"
    head = f"POST /webhooks/tally HTTP/1.1\r\nHost: hooks.example.com\r\nTally-Signature: {signed()}\r\n\r\n"
    file.write_bytes(head.encode() + BODY)
    return file


def run(capsys, *words, code=0):
    assert main(["detect", *map(str, words)]) == code
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    return said


def test_the_provider_line_of_a_request_as_it_came(captured, capsys):
    assert "    provider: tally\n" in run(capsys, captured, "--secret", SECRET).out


@pytest.mark.parametrize("headers", [{"Tally-Signature": signed()}, {"tally-signature": [signed()]}])
@pytest.mark.parametrize("body", [{"body": BODY.decode()}, {"body_base64": base64.b64encode(BODY).decode()}])
def test_the_exports_of_tools_that_catch_webhooks_are_read(alone, capsys, headers, body):
    (alone / "export.json").write_text(json.dumps({"method": "POST", "headers": headers, **body}))
    assert "provider: tally" in run(capsys, "export.json", "--secret", SECRET).out


def test_a_scheme_of_ones_own_is_printed_as_verify_says_it_and_loads(alone, capsys):
    stamp = "1700000000"
    mac = hashlib.sha512(b"")  # the length alone
    mac = hmac.new(SECRET.encode(), f"{stamp}|".encode() + BODY, hashlib.sha512)
    head = f"POST / HTTP/1.1\nX-Own: t={stamp};s={mac.hexdigest()}\n\n"
    (alone / "own.http").write_bytes(head.encode() + BODY)
    said = run(capsys, "own.http", "--secret", SECRET).out
    lines = [line[4:] for line in said.splitlines() if line.startswith("    ") and not line.startswith("      If")]
    (alone / "mappings").mkdir()
    own = "\n".join(lines) + "\nsecret: ${OWN_WEBHOOK_SECRET}\nenvelope: {type: eventType}\ngoals: []\n"
    (alone / "mappings" / "own.yaml").write_text(own)
    assert "The scheme of own fits this request." in run(capsys, "own.http", "--source", "own", "--secret", SECRET).out


def test_the_one_wrong_setting_of_a_source_is_printed_with_its_place(captured, alone, capsys, monkeypatch):
    (alone / "mappings").mkdir()
    (alone / "mappings" / "shop.yaml").write_text(MAPPING % "hex")
    monkeypatch.setenv("SHOP_WEBHOOK_SECRET", SECRET)
    said = run(capsys, captured, "--source", "shop").out
    assert "one change (signature.encoding):\n    verify:\n      signature:\n        encoding: base64\n" in said
    (alone / "mappings" / "shop.yaml").write_text(MAPPING % "base64")
    assert "fits this request" in run(capsys, captured, "--source", "shop").out


def test_age_is_a_note_and_not_a_failure(alone, capsys):
    message = b"1700000000." + BODY
    head = f"POST / HTTP/1.1\nX-Sig: {hmac.digest(SECRET.encode(), message, 'sha256').hex()}\nX-Time: 1700000000\n\n"
    (alone / "old.http").write_bytes(head.encode() + BODY)
    said = json.loads(run(capsys, "old.http", "--secret", SECRET, "--json").out)
    assert said["ok"] is True
    assert "old. detect ignores that; a running bridge allows 5 min." in said["notes"][0]


def test_a_line_end_that_an_editor_added_is_told(alone, capsys, captured):
    captured.write_bytes(captured.read_bytes() + b"\n")
    assert "an editor added it" in run(capsys, captured, "--secret", SECRET).out


def test_nothing_that_fits_is_said_with_what_to_look_at(captured, capsys):
    said = run(capsys, captured, "--secret", "another-one", code=1).out
    assert "header:tally-signature (SHA256)" in said
    assert "byte for byte" in said


def test_a_body_without_headers_is_refused_with_what_is_needed(alone, capsys):
    (alone / "body.json").write_bytes(BODY)
    said = run(capsys, "body.json", "--secret", SECRET, code=2)
    assert said.err.startswith("body.json: this is not a whole request.")


def test_a_secret_is_hidden_wherever_the_request_repeats_it(alone, capsys):
    (alone / "odd.http").write_bytes(f"POST / HTTP/1.1\nX-{SECRET}: {SECRET}\n\n".encode() + BODY)
    assert "type: token" in run(capsys, "odd.http", "--secret", SECRET).out


METHOD_AND_PATH = "POST\n/hooks\n1700000000\n"


@pytest.mark.parametrize(
    ("before", "more", "signed_as"),
    [
        (METHOD_AND_PATH, "", "{method}\n{path}\n{timestamp}\n{body}"),
        ("1700000000\n" + METHOD_AND_PATH.replace("1700000000\n", ""), "", "{timestamp}\n{method}\n{path}\n{body}"),
        ("1700000000./hooks.", "", "{timestamp}.{path}.{body}"),
        ("order.paid.1700000000.", "X-Event: order.paid\n", "{header:x-event}.{timestamp}.{body}"),
        ("1700000000.order.paid.", "X-Shop-Topic: order.paid\n", "{timestamp}.{header:x-shop-topic}.{body}"),
    ],
)
def test_method_path_and_what_happened_may_be_signed(alone, capsys, before, more, signed_as):
    mac = hmac.new(SECRET.encode(), before.encode() + BODY, hashlib.sha256).hexdigest()
    head = f"POST /hooks HTTP/1.1\nX-Sig: {mac}\nX-Timestamp: 1700000000\n{more}\n"
    (alone / "captured.http").write_bytes(head.encode() + BODY)
    found = json.loads(run(capsys, "captured.http", "--secret", SECRET, "--json").out)
    assert (found["ok"], found["verify"]["signed"]) == (True, signed_as)
    assert "id" not in found["verify"]
