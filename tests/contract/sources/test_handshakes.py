"""Every handshake of every preset: what sets a webhook up is answered, whoever else asks is not."""

import base64
import hashlib
import hmac
import json
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from urllib.parse import quote

import pytest
from cases_kit import one_in
from hypothesis import given, settings
from hypothesis import strategies as st
from sources_kit import NOW, URL, request, secret_for, signed_request, source

from bridge import rules, sources
from bridge.errors import MappingError, SignatureError, SourceOff
from bridge.model import Reply
from bridge.sources.handshake import BODY_MAX, ECHO_MAX, TOKEN
from docs import providers

PRESETS = sources.presets()
SHAKING = sorted(name for name, said in PRESETS.items() if "handshake" in said)
SECRET = "a_secret_of_some_length"
VERIFY_TOKEN = "chosen-by-the-operator"
CHALLENGE = "3eZbrw1aB"


def rule_set(environ=None, **files):
    head = "visitor: v\ngoals:\n  - {goal: a, event: b}\n"
    return rules.load({f"{name}.yaml": said + head for name, said in files.items()}, environ or {}, PRESETS)


@cache
def loaded(preset, *secrets, verify_token=VERIFY_TOKEN):
    """The source of a mapping file that says no more than its provider."""
    environ = {"X_VERIFY_TOKEN": verify_token}
    made = rule_set(environ, x=f"provider: {preset}\n").sources["x"]
    return replace(made, secrets=secrets or (secret_for(made.verify),), public_url=URL)


def get(query="", headers=None, method="GET"):
    return request(b"", headers, f"{URL}?{query}" if query else URL, method)


def posted(made, document, secret=None):
    return signed_request(made, secret or made.secrets[0], json.dumps(document).encode())


def hmac_of(token, secret=SECRET):
    return hmac.new(secret.encode(), token.encode(), hashlib.sha256)


def text(body):
    return Reply(body.encode(), "text/plain; charset=utf-8")


def as_json(**said):
    return Reply(json.dumps(said).encode(), "application/json")


WEBSUB = f"hub.mode=subscribe&hub.topic=t&hub.challenge={CHALLENGE}&hub.lease_seconds=60"
PLAIN = "qgg8vlvZRS6UYooatFL8Aw"
EMPTY, NO_CONTENT = Reply(), Reply(status=204)

# preset -> each request that sets it up, made from its source, and the answer that its provider waits for
TABLE = {
    "discord": [(lambda made: posted(made, {"version": 1, "application_id": "1", "type": 0}), NO_CONTENT)],
    "dropbox": [(lambda _: get(f"challenge={CHALLENGE}"), text(CHALLENGE))],
    "intercom": [(lambda _: get(method="HEAD"), EMPTY)],
    "mailchimp": [(lambda _: get(f"token={SECRET}"), EMPTY), (lambda _: get(method="HEAD"), EMPTY)],
    "meta": [(lambda _: get(f"{WEBSUB}&hub.verify_token={VERIFY_TOKEN}"), text(CHALLENGE))],
    "microsoft-graph": [
        (
            lambda _: request(b"", {}, f"{URL}?validationToken=Validation%3A+Testing%20client"),
            text("Validation: Testing client"),
        ),
        (lambda _: get("validationToken=t"), text("t")),
    ],
    "notion": [(lambda made: posted(made, {"verification_token": "secret_abcdefgh"}), EMPTY)],
    "okta": [
        (lambda _: get(headers={"X-Okta-Verification-Challenge": CHALLENGE}), as_json(verification=CHALLENGE)),
    ],
    "slack": [
        (lambda made: posted(made, {"token": "t", "challenge": CHALLENGE, "type": "url_verification"}), text(CHALLENGE))
    ],
    "thrivecart": [(lambda _: get(method="HEAD"), EMPTY), (lambda _: get(), EMPTY)],
    "trello": [(lambda _: get(method="HEAD"), EMPTY)],
    "twitter": [
        (
            lambda _: get(f"crc_token={PLAIN}&nonce=1"),
            as_json(response_token="sha256=" + base64.b64encode(hmac_of(PLAIN).digest()).decode()),
        )
    ],
    "woocommerce": [
        (lambda _: request(b"webhook_id=7", {"Content-Type": "application/x-www-form-urlencoded"}), EMPTY),
        (lambda _: request(b"webhook_id=99999999999999999999"), EMPTY),
    ],
    "zoom": [
        (
            lambda made: posted(
                made, {"event": "endpoint.url_validation", "event_ts": 1, "payload": {"plainToken": PLAIN}}
            ),
            as_json(plainToken=PLAIN, encryptedToken=hmac_of(PLAIN).hexdigest()),
        )
    ],
    **{name: [(lambda _: get(WEBSUB), text(CHALLENGE))] for name in ("hub-sha1", "hub-sha256", "hub-sha512")},
}
ROWS = [(name, number) for name in TABLE for number in range(len(TABLE[name]))]


def test_every_preset_with_a_hand_shake_is_in_the_table():
    assert sorted(TABLE) == SHAKING


@pytest.mark.parametrize(("name", "number"), ROWS)
def test_what_sets_a_webhook_up_is_answered_as_its_provider_wants_it(name, number):
    make, answer = TABLE[name][number]
    made = loaded(name)
    assert sources.handshake(made, make(made), NOW) == answer


@pytest.mark.parametrize("name", SHAKING)
def test_an_event_is_no_hand_shake(name):
    made = loaded(name)
    event = signed_request(made, made.secrets[0])
    assert sources.handshake(made, event, NOW) is None


# ------------------------------------------------------------------------------------------- whoever else asks


@pytest.mark.parametrize("name", ["discord", "slack", "zoom"])
def test_a_signed_hand_shake_of_somebody_else_is_refused(name):
    made = loaded(name)
    sent = TABLE[name][0][0](made)
    place = made.verify.signature.places[0].name.lower()
    forged = {place: made.verify.signature.prefix + "00" * (64 if name == "discord" else 32)}
    for headers in ({**sent.headers, **forged}, {k: v for k, v in sent.headers.items() if k != place}):
        with pytest.raises(SignatureError):
            sources.handshake(made, replace(sent, headers=headers), NOW)
    with pytest.raises(SignatureError):
        sources.handshake(made, sent, NOW + 4_000)


@pytest.mark.parametrize("name", ["slack", "zoom", "twitter", "discord"])
def test_without_a_secret_what_needs_one_asks_to_come_again(name):
    made = loaded(name)
    sent = TABLE[name][0][0](made)
    with pytest.raises(SourceOff):
        sources.handshake(replace(made, secrets=()), sent, NOW)


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"slack", "zoom", "twitter", "discord", "notion"}))
def test_what_needs_no_secret_is_answered_before_there_is_one(name):
    make, answer = TABLE[name][0]
    assert sources.handshake(replace(loaded(name), secrets=()), make(None), NOW) == answer


@pytest.mark.parametrize("token", ["", "other", VERIFY_TOKEN + "x", VERIFY_TOKEN.upper(), "%00", "%FF"])
def test_metas_challenge_is_echoed_only_to_who_knows_the_verify_token(token):
    with pytest.raises(SignatureError, match="X_VERIFY_TOKEN"):
        sources.handshake(loaded("meta"), get(f"{WEBSUB}&hub.verify_token={token}"), NOW)
    with pytest.raises(SignatureError, match="X_VERIFY_TOKEN"):
        sources.handshake(loaded("meta"), get(WEBSUB), NOW)


@pytest.mark.parametrize("chosen", ["über-geheim", "a b", "y" * 300])
def test_a_verify_token_may_be_any_string(chosen):
    made = loaded("meta", verify_token=chosen)
    assert sources.handshake(made, get(f"{WEBSUB}&hub.verify_token={quote(chosen)}"), NOW) == text(CHALLENGE)


@pytest.mark.parametrize("unset", ["", "  ", "changeme"])
def test_without_a_verify_token_nobody_knows_it_and_check_says_so(unset):
    with pytest.raises(SignatureError, match="X_VERIFY_TOKEN is not set"):
        sources.handshake(loaded("meta", verify_token=unset), get(f"{WEBSUB}&hub.verify_token={unset}"), NOW)
    warnings = rule_set({"X_VERIFY_TOKEN": unset}, x="provider: meta\n").warnings
    assert any("X_VERIFY_TOKEN is not set" in warning for warning in warnings)
    assert VERIFY_TOKEN not in repr(loaded("meta"))


@pytest.mark.parametrize("name", ["meta", "hub-sha1", "hub-sha256", "hub-sha512"])
@pytest.mark.parametrize("mode", ["unsubscribe", "denied", ""])
def test_nobody_is_helped_to_unsubscribe_us(name, mode):
    query = WEBSUB.replace("subscribe", mode) + f"&hub.verify_token={VERIFY_TOKEN}"
    assert sources.handshake(loaded(name), get(query), NOW) is None


@pytest.mark.parametrize(
    "body",
    [
        b"webhook_id=", b"webhook_id=7x", b"webhook_id=7&a=b", b"a=b&webhook_id=7", b"webhook_id=7\n", b" webhook_id=7",
        b"webhook_id=-7", b"webhook_id=" + b"7" * 21, "webhook_id=\N{ARABIC-INDIC DIGIT SEVEN}".encode(),
        b'{"webhook_id":7}',
    ],
)  # fmt: skip
def test_woocommerces_ping_has_exactly_one_shape(body):
    assert sources.handshake(loaded("woocommerce"), request(body), NOW) is None


def test_a_ping_with_a_signature_is_judged_like_any_event():
    sent = request(b"webhook_id=7", {"X-WC-Webhook-Signature": "AAAA"})
    assert sources.handshake(loaded("woocommerce"), sent, NOW) is None


@pytest.mark.parametrize("name", SHAKING)
def test_a_large_body_is_not_looked_into(name):
    made = loaded(name)
    for make, _ in TABLE[name]:
        sent = make(made)
        if sent.method == "POST":
            assert sources.handshake(made, replace(sent, body=sent.body + b" " * (BODY_MAX + 1)), NOW) is None


NAMES = ["type", "event", "challenge", "payload", "plainToken", "verification_token"]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=8,
)
ANY_BODY = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([b"webhook_id=1", b'{"challenge": {}}', b'{"type": 0}', b"[" * 4_000, b'{"payload": {"a": 1}}']),
    ANY_JSON.map(lambda said: json.dumps(said).encode()),
)


@pytest.mark.parametrize("name", SHAKING)
@settings(max_examples=settings.default.max_examples * 3 // 5, deadline=None)
@given(
    body=ANY_BODY,
    query=st.text(st.characters(codec="latin-1"), max_size=60)
    | st.builds(lambda name, value: f"hub.mode=subscribe&{name}={quote(value)}", st.sampled_from(
        ["challenge", "crc_token", "hub.challenge", "hub.verify_token", "validationToken"]), st.text(max_size=300)),
    said=st.text(st.characters(codec="latin-1"), max_size=60),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    known=st.booleans(),
)  # fmt: skip
def test_whatever_comes_is_answered_within_bounds_or_refused(name, body, query, said, method, known):
    made = loaded(name) if known else replace(loaded(name), secrets=())
    headers = dict.fromkeys(
        ("x-okta-verification-challenge", "x-slack-signature", "x-zm-signature", "x-signature-ed25519"), said
    )
    sent = replace(request(body, headers, URL, method), query_string=query)
    try:
        reply = sources.handshake(made, sent, NOW)
    except (SignatureError, SourceOff):
        return
    assert reply is None or (reply.status in (200, 204) and len(reply.body) < 8 * ECHO_MAX)


# ------------------------------------------------------------------------------------------------------ echoes


@pytest.mark.parametrize("name", ["dropbox", "hub-sha1", "meta", "microsoft-graph"])
@pytest.mark.parametrize("said", ["x" * (ECHO_MAX + 1), "a%0Ab", "a%00b", "%E2%80%AE", "%1B[2J"])
def test_an_echo_is_short_and_printable_or_refused(name, said):
    query = f"hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge={said}&challenge={said}"
    with pytest.raises(SignatureError, match="printable"):
        sources.handshake(loaded(name), get(f"{query}&validationToken={said}"), NOW)


@pytest.mark.parametrize("said", ["x" * ECHO_MAX, "<script>alert(1)</script>", "1158201444", 'a "b" c'])
def test_an_echo_says_exactly_what_was_said(said):
    assert sources.handshake(loaded("dropbox"), get(f"challenge={quote(said)}"), NOW) == text(said)


@settings(max_examples=300)
@given(st.text(max_size=300))
def test_no_echo_is_anything_but_what_was_said_within_bounds(said):
    try:
        reply = sources.handshake(loaded("dropbox"), get(f"challenge={quote(said)}"), NOW)
    except SignatureError:
        assert len(said) > ECHO_MAX or not said.isprintable()
        return
    assert reply == (text(said) if said else None)


# -------------------------------------------------------------------------------------- Notion's first message


def first(token, headers=None):
    return request(json.dumps({"verification_token": token}).encode(), headers)


def test_notions_first_message_is_for_a_person_as_long_as_there_is_no_secret():
    off = replace(loaded("notion"), secrets=())
    reply = sources.handshake(off, first("secret_abcdefgh"), NOW)
    assert (reply.status, reply.body, reply.kept) == (200, b"", "secret_abcdefgh")
    assert "secret_" not in repr(reply)


def test_with_a_secret_notions_first_message_must_be_signed_and_is_not_kept():
    made = loaded("notion")
    for headers in ({}, {"X-Notion-Signature": "sha256=" + hmac_of("x", "secret_abcdefgh").hexdigest()}):
        with pytest.raises(SignatureError):
            sources.handshake(made, first("secret_abcdefgh", headers), NOW)
    assert sources.handshake(made, posted(made, {"verification_token": SECRET}), NOW).kept is None


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 201, "secret with spaces", "secret_\x1b[2Jxxxx", "secret_é_xxxxx", 5]
)
def test_what_no_token_looks_like_is_not_kept(token):
    off = replace(loaded("notion"), secrets=())
    assert sources.handshake(off, first(token), NOW) is None


# ------------------------------------------------------------------------------------------- several secrets


def test_zoom_is_answered_by_the_secret_that_verified():
    made = loaded("zoom", "older_secret_0000", "newer_secret_0000")
    for secret in made.secrets:
        sent = posted(made, {"event": "endpoint.url_validation", "payload": {"plainToken": PLAIN}}, secret)
        told = json.loads(sources.handshake(made, sent, NOW).body)
        assert told["encryptedToken"] == hmac_of(PLAIN, secret).hexdigest()


def test_x_is_answered_by_the_first_secret():
    made = loaded("twitter", "whsec_", "newer_secret_0000", "older_secret_0000")
    told = json.loads(sources.handshake(made, get(f"crc_token={PLAIN}"), NOW).body)
    assert told["response_token"] == "sha256=" + base64.b64encode(hmac_of(PLAIN, made.secrets[1]).digest()).decode()


# ------------------------------------------------------------------------- no answer is the signature of an event

COMPUTING = sorted(name for name in SHAKING if "hmac" in PRESETS[name]["handshake"])
HMACS = sorted(name for name, said in PRESETS.items() if said["verify"]["type"].startswith("hmac-"))


def answer_for(preset, token, secret):
    """The HMAC that a stranger (X) or a signer (Zoom) gets for a token."""
    made = loaded(preset, secret)
    if preset == "zoom":
        sent = posted(made, {"event": "endpoint.url_validation", "payload": {"plainToken": token}})
        return bytes.fromhex(json.loads(sources.handshake(made, sent, NOW).body)["encryptedToken"])
    told = json.loads(sources.handshake(made, get(f"crc_token={quote(token)}"), NOW).body)
    return base64.b64decode(told["response_token"].removeprefix("sha256="))


def test_the_presets_that_compute_are_known():
    assert COMPUTING == ["twitter", "zoom"]


@pytest.mark.parametrize(
    "token",
    [
        "", "x" * 129, '{"a":1}', "[]", "v0:1:{}", "1.{}", "a b", "a.b", "a+b", "a/b", "a=", "é", "a\n", "\0", "a%00",
    ],
)  # fmt: skip
@pytest.mark.parametrize("preset", COMPUTING)
def test_nothing_but_a_token_is_signed(preset, token):
    with pytest.raises((SignatureError, TypeError, AttributeError)):
        answer_for(preset, token, SECRET)


def forged(target, token, cuts, digest):
    """The request of `target` whose signed text is the token, cut into the parts that its scheme signs; or None."""
    names = re.findall(r"\{([^{}]*)\}", target.verify.signed)
    if re.sub(r"\{[^{}]*\}", "", target.verify.signed) or {"url", "path", "method"} & set(names):
        return None  # it signs what no token holds: a point, a colon, a URL (checked below)
    edges = [0, *sorted(min(cut, len(token)) for cut in cuts[: len(names) - 1]), len(token)]
    parts = dict(zip(names, (token[a:b] for a, b in pairwise(edges)), strict=False))
    body = {"type": "sale", "id": "evt_forged", "event-data": {"event": "opened"}, "signature": {}}
    headers = {}
    signature = target.verify.signature
    said = signature.prefix + (digest.hex() if signature.encoding == "hex" else base64.b64encode(digest).decode())
    for place, value in ((target.verify.timestamp and target.verify.timestamp.places, parts.get("timestamp")),):
        if place and place[0].where == "header":
            headers[place[0].name] = value
        elif place:
            body["signature"]["timestamp"] = value
    body["signature"]["token"] = parts.get("body:signature.token", "")
    if signature.places[0].where == "header":
        headers[signature.places[0].name] = said
    else:
        body["signature"]["signature"] = said
    return request(parts["body"].encode() if "body" in parts else json.dumps(body).encode(), headers)


@cache
def sharing(preset, name):
    """A computing source x and a source y of any preset, with one secret."""
    secret = secret_for(source(name).verify)
    files = {"x": preset, "y": name}
    said = {stem: f"provider: {provider}\nsecret: ${{BOTH}}\n" for stem, provider in files.items()}
    return rule_set({"BOTH": secret}, **said), secret


def is_taken_as_an_event(target, sent, now):
    try:
        if target.handshakes and sources.handshake(target, sent, now) is not None:
            return False
        sources.verify(target, sent, now)
    except SignatureError:
        return False
    return sources.read(target, sent).quarantine is None


@pytest.mark.parametrize("name", one_in(3, HMACS))
@settings(max_examples=settings.default.max_examples * 2 // 5, deadline=None)
@given(
    token=st.one_of(
        st.from_regex(TOKEN, fullmatch=True),
        st.builds(lambda tail: f"{NOW}{tail}", st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True)),
        st.sampled_from(["1", "true", "null", "abc", str(NOW), "a_b-c"]),
    ),
    cuts=st.lists(st.integers(0, 128), min_size=2, max_size=2).map(lambda cuts: [10, *cuts]),
)
@pytest.mark.parametrize("preset", COMPUTING)
def test_no_answer_of_a_hand_shake_is_the_signature_of_an_event_of_any_preset(preset, name, token, cuts):
    """With the same secret at both. Where a token could be a signed text, the handshake is not answered at all."""
    both, secret = sharing(preset, name)
    if not any(one.does == "hmac" for one in both.sources["x"].handshakes):
        assert name == "mailgun"
        return
    sent = forged(both.sources["y"], token, cuts, answer_for(preset, token, secret))
    if sent is None:
        literal = re.sub(r"\{(url|path|method)\}", URL, both.sources["y"].verify.signed)
        assert not re.fullmatch(r"[A-Za-z0-9_-]*", re.sub(r"\{[^{}]*\}", "", literal))
        return
    assert not is_taken_as_an_event(both.sources["y"], sent, NOW)


def test_the_shared_secret_that_is_held_apart_would_have_let_anybody_in():
    """Mailgun signs a time and a nonce, together a token: X's answer is then the signature of whatever event."""
    token = f"{NOW}{'a1' * 25}"
    mailgun = replace(loaded("mailgun"), secrets=(SECRET,))
    sent = forged(mailgun, token, [10], answer_for("twitter", token, SECRET))
    assert is_taken_as_an_event(mailgun, sent, NOW)
    environ = {"BOTH": SECRET}
    files = {"x": "provider: twitter\nsecret: ${BOTH}\n", "y": "provider: mailgun\nsecret: ${BOTH}\n"}
    both = rule_set(environ, **files)
    assert both.sources["x"].handshakes == ()
    assert [warning for warning in both.warnings if "its secret is the same as that of y" in warning]
    apart = rule_set({"BOTH": SECRET, "OWN": "another_secret"}, **{**files, "y": "provider: mailgun\nsecret: ${OWN}\n"})
    assert len(apart.sources["x"].handshakes) == 1


@settings(max_examples=200)
@given(st.from_regex(TOKEN, fullmatch=True))
def test_x_never_takes_a_body_that_is_itself_a_token(token):
    """It would verify, and be kept in quarantine, which raises an alarm: anybody could raise it."""
    made = loaded("twitter", SECRET)
    signature = "sha256=" + base64.b64encode(answer_for("twitter", token, SECRET)).decode()
    sent = request(token.encode(), {"X-Twitter-Webhooks-Signature": signature})
    sources.verify(made, sent, NOW)
    with pytest.raises(SignatureError, match="token"):
        sources.handshake(made, sent, NOW)


# ---------------------------------------------------------------------------------------------- mapping files

CUSTOM = """provider: custom
verify: {type: token, signature: {in: "header:X-Token"}}
envelope: {type: type}
handshake: %s
"""


def custom(handshake, environ=None):
    return rule_set(environ, own=CUSTOM % handshake)


@pytest.mark.parametrize(
    ("said", "sent", "answer"),
    [
        ('{method: GET, echo: "query:challenge"}', get("challenge=c"), text("c")),
        ('{method: [GET], echo: "header:X-Check"}', get(headers={"X-Check": "c"}), text("c")),
        ('{signed: false, echo: "body:challenge"}', request(b'{"challenge": "c"}'), text("c")),
        ('{signed: false, echo: "body:challenge"}', request(b'{"other": "c"}'), None),
        ('{echo: "body:a.c", when: {"body:type": [x, y]}}', request(b'{"type": "z", "a": {"c": "c"}}'), None),
        (
            '{signed: false, echo: "body:challenge", json: {challenge: "{value}", ok: "yes"}}',
            request(b'{"challenge": "c\\"\\u0022"}'),
            as_json(challenge='c""', ok="yes"),
        ),
        (
            '[{method: GET, echo: "query:a"}, {method: GET, echo: "query:b"}]',
            get("b=2"),
            text("2"),
        ),
    ],
)
def test_a_custom_file_may_echo(said, sent, answer):
    assert sources.handshake(replace(custom(said).sources["own"], secrets=("s",)), sent, NOW) == answer


def test_a_custom_echo_of_a_body_is_for_the_signer_unless_the_file_says_otherwise():
    made = replace(custom('{echo: "body:challenge"}').sources["own"], secrets=("tok3n-of-x",))
    sent = request(b'{"challenge": "c"}', {"X-Token": "tok3n-of-x"})
    assert sources.handshake(made, sent, NOW) == text("c")
    with pytest.raises(SignatureError):
        sources.handshake(made, replace(sent, headers={"x-token": "another"}), NOW)


def test_a_custom_verify_token_is_the_sources_own_variable():
    said = '{method: GET, echo: "query:c", verify_token: "query:t"}'
    made = custom(said, {"OWN_VERIFY_TOKEN": "chosen"}).sources["own"]
    assert sources.handshake(made, get("c=1&t=chosen"), NOW) == text("1")
    with pytest.raises(SignatureError):
        sources.handshake(made, get("c=1&t=other"), NOW)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ('{hmac: "query:crc_token", method: GET, json: {a: "{hex}"}}', "can only echo a value of the request"),
        ('{keep: "body:token"}', "can only echo a value of the request"),
        ("{method: HEAD, answer: empty}", "can only echo a value of the request"),
        ('{body: "a={digits}", echo: "query:a"}', "can only echo a value of the request"),
        ("{method: GET}", 'a handshake needs exactly one answer, such as "echo"'),
        ('{method: GET, echo: "query:a", answer: empty}', 'a handshake needs exactly one answer, such as "echo"'),
        ('{method: PUT, echo: "query:a"}', 'GET, HEAD, POST, not "PUT"'),
        ('{echo: "challenge"}', '"challenge" is not a valid place'),
        ('{echo: "query:a", json: {a: "{hex}"}}', "can hold {value}, not {hex}"),
        ('{echo: "query:a", wen: {}}', 'unknown key "wen" in a handshake; did you mean "when"?'),
        ('{echo: "query:a", when: {type: x}}', '"type" is not a valid place'),
        ("echo", "must be a map, or a list of maps"),
    ],
)
def test_what_a_custom_file_may_not_say_is_one_clear_sentence(said, sentence):
    with pytest.raises(MappingError) as caught:
        custom(said)
    assert len(caught.value.problems) >= 1
    assert sentence in str(caught.value)
    assert all(problem.startswith("mappings/own.yaml:4:") for problem in caught.value.problems)


def test_the_hand_shake_of_a_preset_is_the_presets_own():
    with pytest.raises(MappingError, match=r"x\.yaml:2:1: the handshake of this provider belongs to its preset"):
        rule_set(x='provider: slack\nhandshake: {echo: "body:challenge"}\n')


def test_a_preset_that_cannot_be_set_up_is_warned_of():
    (warning,) = (w for w in rule_set(x="provider: coinbase-commerce\n").warnings if "cannot be set up" in w)
    assert warning.startswith("mappings/x.yaml:1:11: coinbase-commerce cannot be set up: ")
    assert "**Cannot be set up:** Coinbase Commerce was shut down" in providers.table()
