"""One fault per test, built from one good request (the contract suite runs every preset)."""

import base64
import hashlib
import hmac
import sys
import zlib
from dataclasses import replace

import pytest
from sources_kit import (
    ED25519,
    NOW,
    URL,
    request,
    require,
    secret_for,
    signed_request,
    source,
    source_of,
)

from bridge import sources
from bridge.errors import SignatureError
from bridge.sources.keys import from_base64, from_hex, symmetric

SECRET = "whsec_stripe"
BODY = b'{"id": "evt_1", "type": "a.b"}'


def hexed(body=BODY, at=NOW, secret=SECRET):
    return hmac.new(secret.encode(), f"{at}.".encode() + body, "sha256").hexdigest()


def stripe_verdict(header, now=NOW, secrets=(SECRET,), body=BODY):
    return verdict(source("stripe", *secrets), request(body, {"Stripe-Signature": header}), now)


def verdict(made, sent, now=NOW):
    try:
        sources.verify(made, sent, now)
    except SignatureError as error:
        return error.reason
    return "authentic"


def test_stripe_as_it_is_sent():
    assert stripe_verdict(f"t={NOW},v1={hexed()}") == "authentic"


@pytest.mark.parametrize(
    "header",
    [
        f"t={NOW}, v1={hexed()}",
        f" t={NOW} ,\tv1={hexed()} ",
        f"t={NOW},v1={hexed().upper()}",
        f"v1={hexed()},t={NOW}",
        f"t={NOW},v1={'0' * 64},v1={hexed()}",
        f"t={NOW},v1=é,v1=zz,v1=,v1={hexed()},v0={'0' * 64},v2=x,,",
    ],
)
def test_stripe_with_harmless_variations(header):
    assert stripe_verdict(header) == "authentic"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "no signature of the expected form"),
        (f"t={NOW}", "no signature of the expected form"),
        (f"t={NOW},v0={hexed()}", "no signature of the expected form"),
        (f"v1={hexed()}", "timestamp is missing"),
        (f"t={NOW},t={NOW},v1={hexed()}", "timestamp is repeated"),
        (f"t={NOW + 1},t={NOW},v1={hexed()}", "timestamp is repeated"),
        (f"t=soon,v1={hexed()}", "timestamp is not a valid time"),
        (f"t=-{NOW},v1={hexed()}", "timestamp is not a valid time"),
        (f"t={NOW},v1={hexed()[:-2]}", "no signature matches"),
        (f"t={NOW},v1={hexed()}00", "no signature matches"),
        (f"t={NOW},v1= {hexed()[:32]} {hexed()[32:]}", "no signature matches"),
        (f"t={NOW},v1={hexed(secret='other')}", "no signature matches"),
        (f"t={NOW},v1={hexed(body=b'')}", "no signature matches"),
        (f"t={NOW}," + f"v1={'0' * 64}," * 17, "more than 16 signatures"),
    ],
)
def test_stripe_with_one_fault(header, reason):
    assert reason in stripe_verdict(header)


def test_the_reason_of_a_stale_signature_tells_the_skew():
    assert stripe_verdict(f"t={NOW},v1={hexed()}", NOW + 301) == "the timestamp is 301 s old, at most 300 s are allowed"
    assert "86400 s in the future" in stripe_verdict(f"t={NOW},v1={hexed()}", NOW - 86_400)


def test_a_timestamp_in_milliseconds_counts_as_milliseconds():
    at = NOW * 1000 + 500
    assert stripe_verdict(f"t={at},v1={hexed(at=at)}") == "authentic"


def test_whitespace_around_a_secret_is_no_part_of_it():
    assert stripe_verdict(f"t={NOW},v1={hexed()}", secrets=(f" {SECRET}\r\n",)) == "authentic"


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b'{"a":"\\/"}\r\n', "é".encode(), b"\0" * 10])
def test_the_raw_bytes_are_signed_whatever_they_are(body):
    assert stripe_verdict(f"t={NOW},v1={hexed(body)}", body=body) == "authentic"


def test_no_reason_holds_the_secret_or_the_signature_or_the_body():
    reasons = [
        stripe_verdict(header, now)
        for header in (f"t={NOW},v1={'0' * 64}", f"t=x,v1={hexed()}", "", f"t={NOW}")
        for now in (NOW, 0)
    ]
    for reason in reasons:
        assert SECRET not in reason
        assert hexed() not in reason
        assert "evt_1" not in reason


# ----------------------------------------------------------------------------------------------- other schemes


def custom(verify, *secrets, **changes):
    return source_of("custom", {"verify": verify}, *secrets, **changes)


def test_a_mapping_file_of_a_custom_sender():
    made = custom(
        {
            "type": "hmac-sha512",
            "key": "hex",
            "signature": {"in": ["header:X-Sign", "query:sign"], "split": " ", "prefix": "sig:", "encoding": "base64"},
            "timestamp": {"in": "header:X-Time", "tolerance": 10},
            "signed": "{method}|{path}|{timestamp}|{query:n}|{header:X-N}|{body:a.b}|{crc32}|{body}",
        },
        "00ff" * 8,
    )
    body = b'{"a": {"b": 7.50}}'
    message = b"POST|/webhooks/x|2023-11-14T22:13:20Z|q|h|7.50|%d|%b" % (zlib.crc32(body), body)
    raw = hmac.new(bytes.fromhex("00ff" * 8), message, "sha512").digest()
    text = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    headers = {"X-Time": "2023-11-14T22:13:20Z", "X-N": "h"}
    good = request(body, {**headers, "X-Sign": f"x sig:{text}"}, URL + "?n=q")
    assert verdict(made, good) == "authentic"
    assert verdict(made, request(body, headers, URL + f"?n=q&sign=sig%3A{text}")) == "authentic"
    assert verdict(made, good, NOW + 11) != "authentic"
    assert "n is missing" in verdict(made, replace(good, query_string=""))
    assert "X-N is missing" in verdict(made, replace(good, headers={"x-time": headers["X-Time"], "x-sign": "sig:00"}))
    assert "but the signature needs it" in verdict(made, replace(good, body=b"rubbish"))


def test_an_id_that_is_not_signed_is_no_reason_to_refuse_an_unreadable_body():
    made = custom({"type": "hmac-sha256", "signature": {"in": "header:X-Sign"}, "id": "body:id"}, SECRET)
    body = b"no document"
    signature = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
    assert verdict(made, request(body, {"X-Sign": signature})) == "authentic"


def test_the_id_is_a_part_of_what_is_signed():
    made = source("standard-webhooks", secret_for(source("svix").verify))
    sent = signed_request(made, made.secrets[0])
    assert verdict(made, sent) == "authentic"
    for missing in ({}, {"webhook-id": ""}):
        headers = {name: value for name, value in sent.headers.items() if name != "webhook-id"} | missing
        assert "id is missing" in verdict(made, replace(sent, headers=headers))
    assert verdict(made, replace(sent, headers={**sent.headers, "webhook-id": "msg_2"})) == "no signature matches"


def test_header_text_is_the_latin_1_of_its_bytes():
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    made = source("standard-webhooks", secret)
    raw = hmac.new(b"k" * 24, "msg_é".encode() + f".{NOW}.".encode() + BODY, "sha256").digest()
    headers = {
        "webhook-id": "msg_é".encode().decode("latin-1"),
        "webhook-timestamp": str(NOW),
        "webhook-signature": "v1," + base64.b64encode(raw).decode(),
    }
    assert verdict(made, request(BODY, headers)) == "authentic"


@pytest.mark.parametrize("written", ["Bearer tök", "bearer tök", "BEARER   tök "])
def test_a_bearer_token_may_be_any_text(written):
    assert verdict(source("bearer", "tök"), request(b"", {"Authorization": written})) == "authentic"
    assert verdict(source("bearer", "tok"), request(b"", {"Authorization": written})) == "no signature matches"
    wire = written.encode().decode("latin-1")
    assert verdict(source("bearer", "tök"), request(b"", {"Authorization": wire})) == "authentic"


@pytest.mark.parametrize(
    "header", ["Basic", "Basic ", "Basic !!", "Basic dXNlcg==", "Bearer dXNlcjpwYXNz", "dXNlcjpwYXNz"]
)
def test_basic_authentication_with_one_fault(header):
    made = source("chargebee", "user:pass")
    assert verdict(made, request(b"", {"Authorization": "Basic dXNlcjpwYXNz"})) == "authentic"
    assert verdict(made, request(b"", {"Authorization": header})) != "authentic"


def test_an_unkeyed_hash_without_the_secret_in_it_would_let_anyone_sign():
    made = custom({"type": "sha256", "signature": {"in": "header:X-S"}}, "secret")
    forged = request(b"x", {"X-S": hashlib.sha256(b"x").hexdigest()})
    assert "anyone could sign" in verdict(made, forged)
    assert "anyone could sign" in sources.problems(made)[0]


def test_the_last_of_repeated_query_parameters_counts_everywhere():
    made = source("gumroad", "t")
    assert verdict(made, request(b"a=1", {}, URL + "?token=x&token=t")) == "authentic"
    assert verdict(made, request(b"a=1", {}, URL + "?token=t&token=x")) == "no signature matches"


def test_a_token_in_an_unreadable_body_is_no_token():
    assert "not a form" in verdict(source("kofi", "t"), request(b"&"))
    assert "no field 'data'" in verdict(source("kofi", "t"), request(b"a=1"))


def test_linear_trusts_the_time_in_the_signed_body_before_the_header():
    made = source("linear", "lk")
    sent = signed_request(made, "lk")
    replayed = replace(sent, headers={**sent.headers, "linear-timestamp": str(NOW + 5000)})
    assert "old" in verdict(made, replayed, NOW + 5000)


# ------------------------------------------------------------------------------------------------------ require


GUMROAD = b"seller_id=abc%3D%3D&resource_name=sale&sale_id=1"


def test_what_is_required_is_a_part_of_authentication():
    made = source("gumroad", "t", require=require(seller_id="abc=="))
    url = URL + "?token=t"
    assert verdict(made, request(GUMROAD, {}, url)) == "authentic"
    assert "`require` is not met: seller_id" in verdict(made, request(b"seller_id=other", {}, url))
    assert "`require` is not met" in verdict(made, request(b"resource_name=sale", {}, url))
    assert "is empty" in verdict(made, request(b"", {}, url))
    assert verdict(made, request(GUMROAD, {}, URL)) != "authentic"


def test_any_of_several_required_values_will_do_and_all_paths_must_hold():
    made = source("query-token", "t", require=require(**{"shop": ["1", "2"], "header.x-shop": "s", "query.v": "true"}))
    url = URL + "?token=t&v=true"
    assert verdict(made, request(b'{"shop": 2}', {"X-Shop": "s"}, url)) == "authentic"
    assert verdict(made, request(b'{"shop": 3}', {"X-Shop": "s"}, url)) != "authentic"
    assert verdict(made, request(b'{"shop": 2}', {"X-Shop": "S"}, url)) != "authentic"


@pytest.mark.parametrize("expected", [(), ("",), (" ",)])
def test_an_empty_requirement_is_never_met(expected):
    made = source("query-token", "t", require=require(a=list(expected)))
    for body in (b'{"a": ""}', b"{}", b'{"a": null}', b'{"a": " "}', b'{"a": []}'):
        assert verdict(made, request(body, {}, URL + "?token=t")) != "authentic"


# --------------------------------------------------------------------------------------------- stanza and secrets


@pytest.mark.parametrize(
    ("verify", "sentence"),
    [
        ({"type": "hmac-sha256"}, "`signature` must say where"),
        ({"type": "hmac-sha256", "signature": {"in": "header:X"}, "signed": "{boddy}"}, "no variable {boddy}"),
        ({"type": "hmac-sha256", "signature": {"in": "header:X"}, "signed": "{cookie:a}"}, "no variable {cookie:a}"),
        ({"type": "hmac-sha256", "key": "pem", "signature": {"in": "header:X"}}, "is for public keys"),
        (
            {"type": "hmac-sha256", "key": "hex", "signature": {"in": "header:X"}},
            "secret 1 of 1 is unusable: it is not hex",
        ),
        ({"type": "ed25519", "key": "hex", "signature": {"in": "header:X"}}, "cannot be read as hex for ed25519"),
        ({"type": "rsa-sha256", "key": "pem", "signature": {"in": "header:X"}}, "cannot be read as pem for rsa-sha256"),
        ({"type": "rsa-sha256", "key": "text", "signature": {"in": "header:X"}}, "cannot be read as text"),
    ],
)
def test_an_unusable_stanza_is_told_in_a_sentence_and_verifies_nothing(verify, sentence):
    made = custom(verify, "not hex")
    assert any(sentence in problem for problem in sources.problems(made))
    assert sentence in verdict(made, request(b"", {"X": "00"}))
    assert "not hex" not in " ".join(sources.problems(made)).replace("it is not hex", "")


def test_where_the_package_does_not_load_a_public_key_is_refused_with_a_sentence(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    made = source("discord", secret_for(source("discord").verify), name="without")
    made = replace(made, verify=replace(made.verify, signed="{timestamp}{body} "))  # compiled anew
    assert "ed25519 needs the package `cryptography`" in sources.problems(made)[0]
    assert "install requirements.txt again" in verdict(made, signed_request(made, made.secrets[0]))


def test_rsa_signatures_by_a_pem_key():
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    key = rsa.generate_private_key(65537, 2048)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for kind, digest in (("rsa-sha256", hashes.SHA256()), ("rsa-sha1", hashes.SHA1())):
        stanza = {"type": kind, "key": "pem", "signature": {"in": "header:X", "encoding": "base64"}}
        for written in (pem.decode(), pem.decode().replace("\n", "\\n")):
            made = custom(stanza, written)
            text = base64.b64encode(key.sign(b"body", padding.PKCS1v15(), digest)).decode()
            assert verdict(made, request(b"body", {"X": text})) == "authentic"
            assert verdict(made, request(b"bodY", {"X": text})) == "no signature matches"


def test_a_private_or_other_key_is_no_public_key():
    raw = ED25519.private_bytes_raw().hex()
    made = custom({"type": "ecdsa-sha256", "key": "der", "signature": {"in": "header:X"}}, raw)
    assert "cannot be read as der" in sources.problems(made)[0]


@pytest.mark.parametrize(
    ("form", "secret", "key"),
    [
        ("text", " a b \n", b"a b"),
        ("text", "tök", "tök".encode()),
        ("whsec", "whsec_YWJj", b"abc"),
        ("whsec", "YWJj", b"abc"),
        ("whsec", "v1,whsec_YWJj", b"abc"),
        ("whsec", "loops_YWJj", b"abc"),
        ("whsec", "whsec_YWI", b"ab"),
        ("whsec", "my own words!", b"my own words!"),
        ("base64", "-_8=", b"\xfb\xff"),
        ("base64", "+/8", b"\xfb\xff"),
        ("hex", "00FFaa", b"\x00\xff\xaa"),
    ],
)
def test_a_key_is_read_in_its_form(form, secret, key):
    assert symmetric(form, secret) == key


@pytest.mark.parametrize("form", ["text", "whsec", "base64", "hex"])
@pytest.mark.parametrize("secret", ["", " \t\r\n", "whsec_", "v1", "v1,whsec_"])
def test_an_empty_key_is_none(form, secret):
    with pytest.raises(ValueError, match=r"empty|prefix|hex|base64"):
        symmetric(form, secret)


@pytest.mark.parametrize("text", ["0", "zz", "0 0", "\N{FULLWIDTH DIGIT ZERO}0", "0x00", "é"])
def test_hex_is_strict(text):
    with pytest.raises(ValueError, match="hex"):
        from_hex(text)


@pytest.mark.parametrize("text", ["a", "ab!=", "a b c d", "YW=Jj", "é", "YWJj\n"])
def test_base64_is_strict(text):
    with pytest.raises(ValueError, match="base64"):
        from_base64(text)


def test_a_megabyte_with_sixteen_wrong_signatures_and_three_secrets_is_hashed_once_a_secret():
    """Not once a signature: forged requests must stay cheap."""
    made = source("stripe", "a", "b", "c")
    header = f"t={NOW}" + f",v1={'0' * 64}" * 16
    hashed = []

    def heard(_frame, what, called):
        if what == "c_call" and called.__name__ in ("hmac_digest", "hmac_new", "openssl_sha256"):
            hashed.append(called.__name__)

    sys.setprofile(heard)
    try:
        said = verdict(made, request(b"x" * 2**20, {"Stripe-Signature": header}))
    finally:
        sys.setprofile(None)
    assert said == "no signature matches"
    assert len(hashed) == 3


def test_a_timestamp_may_be_as_old_or_as_early_as_the_tolerance():
    for age_s, accepted in ((300, True), (-300, True), (301, False), (-301, False)):
        told = stripe_verdict(f"t={NOW},v1={hexed()}", NOW + age_s)
        assert (told == "authentic") is accepted
        assert accepted or told.startswith(f"the timestamp is 301 s {'old' if age_s > 0 else 'in the future'}")


def test_sixteen_signatures_are_tried_and_no_more():
    for wrong, accepted in ((15, True), (16, False)):
        told = stripe_verdict(f"t={NOW}," + f"v1={'0' * 64}," * wrong + f"v1={hexed()}")
        assert (told == "authentic") is accepted


def test_each_secret_is_tried_and_an_unusable_one_beside_a_good_one_is_no_reason_to_refuse():
    header = f"t={NOW},v1={hexed()}"
    assert stripe_verdict(header, secrets=("whsec_other", SECRET)) == "authentic"
    assert stripe_verdict(header, secrets=("whsec_other",)) == "no signature matches"
    assert sources.can_verify(source("stripe", SECRET))
    assert not sources.can_verify(source("stripe"))
