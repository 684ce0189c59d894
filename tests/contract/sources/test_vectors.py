"""The providers' own vectors, and computed ones of those that publish none (vectors/README.md names their origin)."""

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import standardwebhooks
import stripe
import time_machine
from sources_kit import as_list, request, source

from bridge import sources
from bridge.errors import SignatureError

HERE = Path(__file__).parent
VECTORS = {str(file.relative_to(HERE / "vectors"))[:-5]: file for file in sorted((HERE / "vectors").rglob("*.json"))}
STRIPE_VECTORS = json.loads((HERE / "stripe" / "signature_vectors.json").read_text())
# HubSpot's own vector of v1: its hash is right, but its body is no JSON, and what an unkeyed hash covers has to be.
NO_DOCUMENT = {"hubspot-01-v1"}
NEEDS_CODE = {"paddle-classic-code", "paypal-code", "rfc9421-code", "twilio-code"}


def vector(name):
    said = json.loads(VECTORS[name].read_text())
    body = base64.b64decode(said["body_base64"])
    return said, request(body, said["headers"], said["url"], said["method"])


def verdict(made, sent, now):
    try:
        sources.verify(made, sent, now)
    except SignatureError:
        return False
    return True


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_the_verdict_is_the_providers(name):
    said, sent = vector(name)
    if said["preset"] in NEEDS_CODE:
        assert said["preset"] not in sources.presets()  # a scheme that data cannot say is not pretended to be known
        return
    made = source(said["preset"], *as_list(said["secret"]))
    assert verdict(made, sent, said["now_unix"] or 0) is (said["valid"] and name not in NO_DOCUMENT)


@pytest.mark.parametrize("name", sorted(NO_DOCUMENT))
def test_a_vector_that_is_no_document_is_refused_for_that_alone(name):
    said, sent = vector(name)
    made = source(said["preset"], said["secret"])
    with pytest.raises(SignatureError, match="not JSON"):
        sources.verify(made, sent, 0)
    body = sent.body.replace(b"'", b'"')
    signature = hashlib.sha256(said["secret"].encode() + body).hexdigest()
    assert said["headers"]["X-HubSpot-Signature"] == hashlib.sha256(said["secret"].encode() + sent.body).hexdigest()
    assert verdict(made, replace(sent, body=body, headers={"x-hubspot-signature": signature}), 0)


@pytest.mark.parametrize("name", [name for name in VECTORS if name.startswith("standard-webhooks-0")])
def test_the_reference_library_agrees_on_standard_webhooks(name):
    said, sent = vector(name)
    with time_machine.travel(said["now_unix"], tick=False):
        try:
            standardwebhooks.Webhook(said["secret"]).verify(sent.body, dict(sent.headers))
        except standardwebhooks.WebhookVerificationError:
            expected = False
        else:
            expected = True
    assert verdict(source("standard-webhooks", said["secret"]), sent, said["now_unix"]) is expected


@pytest.mark.parametrize("said", STRIPE_VECTORS, ids=lambda said: f"{said['file'].split('/')[-1]} {said['expect']}")
def test_stripes_vectors_are_judged_as_a_strict_receiver_judges(said):
    body = (HERE / "stripe" / said["file"]).read_bytes()
    made = source("stripe", said["secret"])
    expected = said["expect"].startswith("ok")
    assert verdict(made, request(body, {"Stripe-Signature": said["header"]}), said["now"]) is expected


@pytest.mark.parametrize("said", STRIPE_VECTORS, ids=lambda said: f"{said['file'].split('/')[-1]} {said['expect']}")
def test_stripes_own_library_agrees_except_about_the_future(said):
    body = (HERE / "stripe" / said["file"]).read_text()
    with time_machine.travel(said["now"], tick=False):
        try:
            expected = stripe.WebhookSignature.verify_header(body, said["header"], said["secret"], tolerance=300)
        except stripe.SignatureVerificationError:
            expected = False
    made = source("stripe", said["secret"])
    ours = verdict(made, request(body.encode(), {"Stripe-Signature": said["header"]}), said["now"])
    assert ours is (expected and "one-sided" not in said["expect"])


def test_a_header_that_stripes_library_makes_is_accepted():
    header = stripe.WebhookSignature.generate_signature_header('{"id": "evt_é"}', "whsec_x", timestamp=1_700_000_000)
    made = source("stripe", "whsec_x")
    sources.verify(made, request('{"id": "evt_é"}'.encode(), {"Stripe-Signature": header}), 1_700_000_000)


def test_square_and_twilio_sign_the_url_as_it_was_registered_not_as_a_proxy_tells_it():
    for name in ("square-01", "twilio-01"):
        said, sent = vector(name)
        made = source(said["preset"], said["secret"])
        behind = replace(sent, url="http://10.0.0.1:8000/webhooks/x", path="/webhooks/x", query_string="")
        assert not verdict(made, behind, 0)
        assert verdict(replace(made, public_url=said["url"]), behind, 0)


def test_every_preset_has_a_vector_that_is_good():
    good = {said["preset"] for said in (json.loads(file.read_text()) for file in VECTORS.values()) if said["valid"]}
    assert set(sources.presets()) - good == {"stripe"}  # whose own are in stripe/


def test_there_are_at_least_eighty_presets():
    assert len(sources.presets()) >= 80


def test_twilio_signs_its_url_with_or_without_the_port():
    said, sent = vector("twilio-03-port-443")
    assert verdict(source("twilio", said["secret"]), sent, 0)
    for url, good in (
        ("https://mycompany.com/myapp.php?foo=1&bar=2", True),
        ("https://mycompany.com:443/myapp.php?foo=1&bar=2", True),
        ("https://mycompany.com:8443/myapp.php?foo=1&bar=2", False),
        ("https://other.com/myapp.php?foo=1&bar=2", False),
        ("https://[::1/", False),
    ):
        assert verdict(source("twilio", said["secret"], public_url=url), sent, 0) is good


def test_the_hash_in_twilios_url_has_to_be_that_of_the_body():
    said, sent = vector("derived/twilio-events-01")
    made = source("twilio-events", said["secret"])
    registered = replace(made, public_url=said["url"].partition("?")[0])
    behind = replace(sent, url="http://10.0.0.1/x")
    assert verdict(made, sent, 0)
    assert verdict(registered, behind, 0)
    assert not verdict(registered, replace(behind, body=sent.body + b" "), 0)
    assert not verdict(registered, replace(behind, query_string=""), 0)
    forged = hashlib.sha256(b"[]").hexdigest()
    assert not verdict(registered, replace(behind, body=b"[]", query_string=f"bodySHA256={forged}"), 0)
