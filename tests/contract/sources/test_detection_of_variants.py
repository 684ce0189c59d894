"""`detect` finds the schemes of senders without a preset: every hash, encoding, prefix and place that they use."""

from __future__ import annotations

import base64
import hmac
import itertools

import pytest
from sources_kit import request

from bridge.sources.detection import detect, fits, plain_source

SECRET = "a secret of our own"
BODY = b'{"type": "order.paid", "id": "e1"}'
STAMP = "1790000000"
ENCODED = {
    "hex": bytes.hex,
    "capital hex": lambda digest: digest.hex().upper(),
    "base64": lambda digest: base64.b64encode(digest).decode(),
    "base64 without =": lambda digest: base64.b64encode(digest).decode().rstrip("="),
    "base64url": lambda digest: base64.urlsafe_b64encode(digest).decode(),
}
HASHES = ("sha1", "sha256", "sha512")
PREFIXES = ("", "sha256=", "v1=", "v1,", "hmac ", "HMAC-SHA256 ", "Signature: ", "s=")
NAMES = ("X-Signature", "x-hub-signature", "X-SHOP-HMAC", "Authorization", "webhook_signature")
TIMED = ("{t}.{b}", "{t}:{b}", "{t}{b}", "v0:{t}:{b}", "{b}.{t}", "{b}{t}", "{t}|{b}")
PLACES = ("X-Timestamp", "signature", "body")


def signed(message, algorithm="sha256", encoding="hex"):
    return ENCODED[encoding](hmac.digest(SECRET.encode(), message, algorithm))


def found(sent):
    spec = detect(sent, SECRET)
    assert spec is not None
    assert fits(plain_source(sent, spec, SECRET), sent)
    assert not fits(plain_source(sent, spec, "another"), sent)
    return spec


@pytest.mark.parametrize(("algorithm", "encoding"), list(itertools.product(HASHES, ENCODED)))
def test_every_hash_in_every_encoding(algorithm, encoding):
    sent = request(BODY, {"X-Signature": signed(BODY, algorithm, encoding)})
    assert found(sent).type == f"hmac-{algorithm}"


@pytest.mark.parametrize(("name", "prefix"), list(itertools.product(NAMES, PREFIXES)))
def test_every_header_with_every_prefix(name, prefix):
    found(request(BODY, {name: prefix + signed(BODY)}))


@pytest.mark.parametrize(("template", "place"), list(itertools.product(TIMED, PLACES)))
def test_the_time_wherever_it_stands(template, place):
    body = BODY if place != "body" else b'{"type": "order.paid", "sent_at": ' + STAMP.encode() + b"}"
    mac = signed(template.format(t=STAMP, b=body.decode()).encode())
    headers = {"X-Signature": f"t={STAMP},v1={mac}" if place == "signature" else mac}
    found(request(body, headers | ({place: STAMP} if place == "X-Timestamp" else {})))


@pytest.mark.parametrize("stamp", ["1790000000123", "2026-09-21T14:13:20Z", "2026-09-21T14:13:20.123+00:00"])
def test_other_forms_of_time(stamp):
    found(request(BODY, {"X-Signature": signed(f"{stamp}.".encode() + BODY), "X-Sent": stamp}))


@pytest.mark.parametrize("separator", [",", ";", " ", ", ", "; "])
@pytest.mark.parametrize("turned", [False, True])
def test_a_header_of_several_parts_in_any_order(separator, turned):
    parts = [f"t={STAMP}", f"sig={signed(f'{STAMP}.'.encode() + BODY)}"]
    found(request(BODY, {"Shop-Signature": separator.join(parts[::-1] if turned else parts)}))


def test_a_signature_in_the_query():
    found(request(BODY, {}, f"https://x.example/webhooks/shop?signature={signed(BODY)}"))
