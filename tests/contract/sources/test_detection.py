"""`detect`: the scheme of a captured request is found, and one wrong setting is named."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sources_kit import NOW, as_list, body_for, request, secret_for, signed_request, source

from bridge import sources
from bridge.model import Place, SignatureSpec
from bridge.sources.detection import detect, fits, one_change, plain_source, signatures

HERE = Path(__file__).parent
VALID = {
    file.stem: said
    for file in sorted((HERE / "vectors").rglob("*.json"))
    if (said := json.loads(file.read_text()))["valid"]
}
# Neither can `verify:` say it: a signature over named parts, and a body that an unkeyed hash does not protect.
NOT_SAYABLE = {"rfc9421-01-hmac", "hubspot-01-v1"}
ASYMMETRIC = {"discord-01", "sendgrid-01", "paypal-01", "paddle-classic-01", "standard-webhooks-ed25519-01"}
DEEP_TOKENS = {"kofi-01", "microsoft-graph-01"}  # a token in a list, or in JSON within a form
HMACS = sorted(
    name
    for name, preset in sources.presets().items()
    if preset["verify"]["type"].startswith("hmac-") and "time_of_the_body" not in preset
)


def captured(said):
    return request(base64.b64decode(said["body_base64"]), said["headers"], said["url"], said["method"])


@pytest.mark.parametrize("name", sorted(set(VALID) - ASYMMETRIC - NOT_SAYABLE - DEEP_TOKENS))
def test_the_scheme_of_every_valid_vector_is_found_whatever_its_age(name):
    said = VALID[name]
    found = [detect(captured(said), secret) for secret in as_list(said["secret"])]
    assert any(found)


@pytest.mark.parametrize("name", sorted(NOT_SAYABLE | ASYMMETRIC))
def test_what_cannot_be_found_by_a_shared_secret_is_not_claimed(name):
    said = VALID[name]
    assert not any(detect(captured(said), secret) for secret in as_list(said["secret"]))


@pytest.mark.parametrize("name", HMACS)
def test_what_is_found_fits_the_next_request_too_and_no_forged_one(name):
    made = source(name)
    secret = secret_for(made.verify)
    body = body_for(made).replace(b"a_secret_of_some_length", b"something_else")  # it stands for a token elsewhere
    found = detect(signed_request(made, secret, body), secret)
    assert found is not None
    stamp = made.verify.timestamp
    fixed = stamp is not None and [place.where for place in stamp.places] == ["body"]
    after = signed_request(made, secret, body, at=NOW if fixed else NOW + 600, event_id="msg_2")
    assert fits(plain_source(after, found, secret), after)
    other = secret.replace("A", "B").replace("0", "1") if made.verify.key != ("text",) else secret[::-1]
    forged = signed_request(made, other, body)
    assert not fits(plain_source(forged, found, secret), forged)


@pytest.mark.parametrize("name", HMACS)
def test_another_secret_finds_nothing(name):
    made = source(name)
    sent = signed_request(made, secret_for(made.verify))
    assert detect(sent, "a secret that signed nothing") is None


def test_what_looks_like_a_signature_is_named_with_its_place_and_hash():
    sent = signed_request(source("github"), "s3cret-of-github")
    assert signatures(sent, "another") == [("header:x-hub-signature-256", "sha256")]


def broken(spec):
    """The scheme with one setting wrong at a time."""
    signature = spec.signature
    other = "base64" if signature.encoding == "hex" else "hex"
    yield "signature.encoding", replace(spec, signature=replace(signature, encoding=other))
    yield "signature.prefix", replace(spec, signature=replace(signature, prefix=signature.prefix + "x="))
    if signature.places[0].where == "header":
        yield "signature.in", replace(spec, signature=replace(signature, places=(Place("header", "X-Other"),)))
    yield "type", replace(spec, type="hmac-sha512" if spec.type != "hmac-sha512" else "hmac-sha1")
    if "{body}" in spec.signed:
        yield "signed", replace(spec, signed=spec.signed.replace("{body}", "-{body}"))
    if spec.timestamp and spec.timestamp.places:
        wrong = replace(spec.timestamp, places=(Place("header", "X-Wrong"),))
        yield "timestamp.in", replace(spec, timestamp=wrong)
    if spec.timestamp and not spec.timestamp.places and spec.timestamp.prefix:
        yield "timestamp.prefix", replace(spec, timestamp=replace(spec.timestamp, prefix="when="))


@pytest.mark.parametrize("name", HMACS)
def test_the_one_setting_that_is_wrong_is_named(name):
    made = source(name)
    secret = secret_for(made.verify)
    sent = signed_request(made, secret)
    found = detect(sent, secret)
    for setting, spec in broken(replace(made.verify, alternatives=())):
        wrong = replace(made, verify=spec, secrets=(secret,))
        if fits(wrong, sent):
            continue  # an empty prefix more, say: the verifier takes it all the same
        change = one_change(wrong, sent, found)
        assert change is not None, setting
        assert change[0] in {setting, setting.split(".")[0]}
        assert fits(replace(wrong, verify=change[1]), sent)


def test_a_template_that_nobody_else_uses_is_corrected_in_its_other_settings():
    spec = replace(source("github").verify, signed="our-own~{body}", alternatives=())
    made = replace(source("github", "s3cret-of-github"), verify=spec)
    sent = signed_request(made, "s3cret-of-github")
    assert detect(sent, "s3cret-of-github") is None
    wrong = replace(made, verify=replace(spec, signature=replace(spec.signature, prefix="sha1=")))
    change = one_change(wrong, sent, None)
    assert change is not None
    assert change[0] == "signature.prefix"
    assert change[1].signature.prefix == "sha256="


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00" * 100, b"{" * 5000, b'{"a":' * 50, b"\xff\xfe", b'{"x": NaN}', b"a=%zz&" * 50, b"[1, 2, 3]"],
    ids=range(8),
)
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_no_body_and_no_header_makes_it_raise(body, kind):
    headers = {"X-Signature": "é" * 64, "Signature": "," * 5000, "Content-Type": kind, "T": "9" * 400, "Id": ""}
    assert detect(request(body, headers), "secret") is None


def test_a_token_is_found_where_it_stands_and_so_is_a_password():
    for place, sent in (
        (Place("header", "x-token"), request(b"{}", {"X-Token": "tok_123456"})),
        (Place("query", "key"), request(b"{}", {}, "https://example.com/hook?key=tok_123456")),
        (Place("body", "auth.token"), request(b'{"auth": {"token": "tok_123456"}}', {})),
    ):
        found = detect(sent, "tok_123456")
        assert found is not None
        assert (found.type, found.signature) == ("token", SignatureSpec((place,)))
    basic = base64.b64encode(b"user:pass").decode()
    found = detect(request(b"{}", {"Authorization": f"Basic {basic}"}), "user:pass")
    assert found is not None
    assert found.type == "basic"
