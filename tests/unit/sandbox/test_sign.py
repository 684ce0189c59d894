"""The simulator's signatures, checked by other people's verifiers and by frozen headers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from bridge.errors import UsageError
from bridge.sandbox import sign

VECTORS = Path(__file__).parents[2] / "fixtures" / "simulator" / "stripe"


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_stripe_accepts_our_header(text: str) -> None:
    now_s = int(time.time())
    headers = sign.stripe(text.encode(), "whsec_test", now_s)
    assert stripe.WebhookSignature.verify_header(text, headers["Stripe-Signature"], "whsec_test")


def test_stripe_header_equals_a_frozen_one() -> None:
    vectors = json.loads((VECTORS / "signature_vectors.json").read_text())
    vector = next(v for v in vectors if v["expect"] == "ok")
    body = (VECTORS / "2020.invoice.paid.json").read_bytes()
    assert sign.stripe(body, vector["secret"], 1_700_000_000)["Stripe-Signature"] == vector["header"]


@given(st.text(max_size=200))
def test_standardwebhooks_accepts_our_headers(text: str) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    body = json.dumps({"text": text})
    headers = sign.standard_webhooks(body.encode(), secret, "msg_1", int(time.time()))
    assert Webhook(secret).verify(body, headers) == {"text": text}


def test_polar_signs_with_the_secrets_own_bytes() -> None:
    headers = sign.standard_webhooks(b"{}", "polar_whs_secret", "msg_1", 1_700_000_000, text_key=True)
    expected = hmac.new(b"polar_whs_secret", b"msg_1.1700000000.{}", hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()


def test_lemonsqueezy_signs_the_exact_bytes() -> None:
    headers = sign.lemonsqueezy(b'{"a":"\\/"}', "secret", "order_created")
    assert headers["X-Signature"] == hmac.new(b"secret", b'{"a":"\\/"}', hashlib.sha256).hexdigest()
    assert headers["X-Event-Name"] == "order_created"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "plain"])
def test_a_secret_that_is_no_key_is_refused_in_words(secret: str) -> None:
    with pytest.raises(UsageError, match="whsec_ and base64"):
        sign.standard_webhooks(b"{}", secret, "msg_1", 0)
