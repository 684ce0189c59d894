"""A body of one's own, signed by any preset's scheme: the bridge's verifier, which shares no code with it, agrees."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sources_kit import NOW, body_for, secret_for, source

from bridge import sources
from bridge.errors import SignatureError, UsageError
from bridge.model import BodyForm, Request
from bridge.sandbox import sign

BY_KEY_PAIR = ("ed25519", "ecdsa-sha256", "rsa-sha256", "rsa-sha1")
URL = "https://bridge.example.com/webhooks/x"


def unsigned(made):
    body = body_for(made).replace(b"a_secret_of_some_length", b"-")
    if made.verify.signature.places and made.verify.signature.places[0].name == "signature":
        body = json.dumps({**json.loads(body), "signature": ""}).encode()
    return Request("POST", URL, "/webhooks/x", "", {}, body)


def of_presets(wanted):
    return sorted(
        name for name, preset in sources.presets().items() if (preset["verify"]["type"] in BY_KEY_PAIR) is wanted
    )


@pytest.mark.parametrize("name", of_presets(False))
def test_the_verifier_accepts_what_was_signed_and_nothing_else(name):
    made = source(name)
    secret = secret_for(made.verify)
    made = replace(made, secrets=(secret,), require=(), public_url=None)
    sent = unsigned(made)
    if made.body is BodyForm.JSON_FIELD and made.verify.signature.places[0].where == "body":
        made = replace(made, body=BodyForm.JSON)  # the command puts it into its field afterwards
        sent = replace(sent, body=b'{"type": "Donation", "verification_token": "-"}')
    signed = sign.by_scheme(made.verify, sent, secret, "evt_own", NOW)
    sources.verify(made, signed, NOW)
    if made.verify.type in ("token", "basic"):
        return
    covers_body = "body}" in made.verify.signed or "sorted_form" in made.verify.signed
    forged = replace(signed, body=signed.body.replace(b"1", b"2")) if covers_body else replace(signed, headers={})
    if forged == signed:
        return
    with pytest.raises(SignatureError):
        sources.verify(made, forged, NOW)


@pytest.mark.parametrize("name", of_presets(True))
def test_nobody_can_sign_with_the_public_half_of_a_key(name):
    made = source(name)
    with pytest.raises(UsageError, match="private key"):
        sign.by_scheme(made.verify, unsigned(made), secret_for(made.verify), "evt_own", NOW)


def test_an_id_that_the_file_has_is_kept():
    made = source("standard-webhooks", secret_for(source("standard-webhooks").verify))
    given = replace(unsigned(made), headers={"webhook-id": "msg_mine"})
    assert sign.by_scheme(made.verify, given, made.secrets[0], "evt_own", NOW).headers["webhook-id"] == "msg_mine"
    assert (
        sign.by_scheme(made.verify, unsigned(made), made.secrets[0], "evt_own", NOW).headers["webhook-id"] == "evt_own"
    )
