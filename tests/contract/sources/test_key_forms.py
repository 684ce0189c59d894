"""Providers that have used one secret in two forms: its own bytes, and what is decoded from it."""

import base64
import hashlib
import hmac

import pytest
from sources_kit import ED25519, NOW, as_list, request, secret_for, source, source_of

from bridge import rules, sources
from bridge.errors import MappingError, SignatureError

WHSEC = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
WS = "ws_" + "0a1b2c3d4e5f6071" * 4
BODY = b'{"type": "order.paid", "timestamp": "2026-11-28T07:00:00Z", "data": {"id": "ord_1"}}'


def delivery(key, body=BODY):
    raw = hmac.new(key, b"msg_1.%d.%b" % (NOW, body), hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(raw).decode()
    return request(body, {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature})


def is_authentic(made, sent):
    try:
        sources.verify(made, sent, NOW)
    except SignatureError:
        return False
    return True


@pytest.mark.parametrize(
    ("provider", "secret", "key"),
    [
        ("polar", WHSEC, bytes(range(1, 33))),
        ("polar", WHSEC, WHSEC.encode()),
        ("polar", "polar_whs_abc", b"polar_whs_abc"),
        ("whop", WS, WS.encode()),
        ("whop", WHSEC, bytes(range(1, 33))),
        ("whop", WHSEC, WHSEC.encode()),
    ],
)
def test_either_form_of_the_secret_is_a_key(provider, secret, key):
    made = source(provider, secret)
    assert is_authentic(made, delivery(key))
    assert is_authentic(source(provider, "other_secret", secret), delivery(key))
    assert not is_authentic(source(provider, "other_secret"), delivery(key))
    assert not is_authentic(made, delivery(key + b"x"))


@pytest.mark.parametrize("secret", ["", "whsec_", "v1,whsec_", "ws_", "polar_whs_", "   ", "whsec_="])
@pytest.mark.parametrize("provider", ["polar", "whop"])
def test_no_form_makes_a_key_of_nothing(provider, secret):
    for key in (b"", b"\0", base64.b64decode(secret.strip().removeprefix("whsec_") + "===", validate=False)):
        assert not is_authentic(source(provider, secret), delivery(key))


def test_a_secret_that_has_only_one_of_the_forms_is_usable():
    assert sources.problems(source("polar", "not base64 at all!")) == ()
    assert "only a prefix" in sources.problems(source("polar", "whsec_"))[0]


def load(verify):
    text = f"provider: custom\nverify: {verify}\nenvelope: {{type: type}}\nvisitor: v\ngoals: [{{goal: g, event: e}}]\n"
    return rules.load({"mine.yaml": text}, {"MINE_WEBHOOK_SECRET": "secret"}, {})


def test_a_mapping_file_may_name_several_forms():
    loaded = load('{type: hmac-sha256, key: [hex, text], signature: {in: "header:X-S"}}')
    assert loaded.sources["mine"].verify.key == ("hex", "text")
    loaded = load('{type: hmac-sha256, key: hex, signature: {in: "header:X-S"}}')
    assert loaded.sources["mine"].verify.key == ("hex",)


@pytest.mark.parametrize(
    ("forms", "sentence"),
    [
        ("[text, whsex]", 'unknown key "whsex"; did you mean "whsec"?'),
        ("[text, pem]", 'type hmac-sha256 takes the key text or whsec or base64 or hex, not "pem"'),
    ],
)
def test_a_form_that_does_not_exist_or_cannot_be_is_told(forms, sentence):
    with pytest.raises(MappingError) as caught:
        load(f'{{type: hmac-sha256, key: {forms}, signature: {{in: "header:X-S"}}}}')
    assert sentence in str(caught.value)


def test_the_hints_name_the_forms_that_the_dashboards_show():
    assert "whsec_…" in sources.presets()["polar"]["secret_hint"]
    assert "ws_…" in sources.presets()["whop"]["secret_hint"]
    assert as_list(sources.presets()["polar"]["verify"]["key"]) == ["whsec", "text"]


@pytest.mark.parametrize(
    "secret", [ED25519.public_key().public_bytes_raw().hex(), secret_for(source("standard-webhooks-ed25519").verify)]
)
def test_a_public_key_may_come_in_several_forms_too(secret):
    verify = {"type": "ed25519", "key": ["hex", "whpk"], "signature": {"in": "header:X-S"}}
    made = source_of("custom", {"verify": verify}, secret)
    assert sources.problems(made) == ()
    assert is_authentic(made, request(BODY, {"X-S": ED25519.sign(BODY).hex()}))
    assert not is_authentic(made, request(BODY + b" ", {"X-S": ED25519.sign(BODY).hex()}))
    assert "cannot be read as hex" in sources.problems(source_of("custom", {"verify": verify}, "neither"))[0]
