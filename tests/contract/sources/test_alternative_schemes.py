"""Senders that sign in more than one way: a delivery is authentic by any of its sender's schemes, and by no mixture."""

import base64
import hmac
from dataclasses import replace

import pytest
from sources_kit import NOW, request, secret_for, signed_request, source

from bridge import rules, sources
from bridge.errors import MappingError, SignatureError

BODY = b'{"id": "evt_1", "eventType": "checkout.completed", "object": {"id": "ch_1"}}'
WHSEC = "whsec_" + base64.b64encode(bytes(range(24))).decode()
ALTERNATIVES = [
    (name, number)
    for name in sorted(sources.presets())
    for number, _ in enumerate(sources.presets()[name]["verify"].get("or", ()))
]


def reason(made, sent, now=NOW):
    try:
        sources.verify(made, sent, now)
    except SignatureError as error:
        return error.reason
    return "authentic"


def mac(key, message, name="sha256"):
    return hmac.new(key, message, name).digest()


def standard(key, body=BODY, at=NOW):
    text = base64.b64encode(mac(key, b"msg_1.%d.%b" % (at, body))).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": "v1," + text}


@pytest.mark.parametrize(("name", "number"), ALTERNATIVES)
def test_every_alternative_of_a_preset_is_good_by_itself(name, number):
    made = source(name)
    scheme = made.verify.alternatives[number]
    secret = secret_for(scheme)
    made = replace(made, secrets=(secret,))
    sent = signed_request(replace(made, verify=scheme), secret)
    assert reason(made, sent) == "authentic"
    assert reason(replace(made, secrets=("another_secret",)), sent) != "authentic"
    assert (
        reason(made, replace(sent, body=sent.body.replace(b"evt_1", b"evt_2").replace(b"a=1", b"a=2"))) != "authentic"
    )
    assert reason(replace(made, verify=replace(made.verify, alternatives=())), sent) != "authentic"


@pytest.mark.parametrize(
    "headers",
    [
        standard(bytes(range(24))),
        {"creem-signature": mac(WHSEC.encode(), BODY).hex()},
        {"creem-signature": mac(WHSEC.encode(), BODY).hex().upper()},
        {"x-creem-signature": mac(WHSEC.encode(), BODY).hex()},
        {"x-creem-signature": "sha256=" + mac(WHSEC.encode(), BODY).hex()},
        {**standard(bytes(range(24))), "creem-signature": "00"},
        {**standard(b"of a secret that is gone"), "creem-signature": mac(WHSEC.encode(), BODY).hex()},
    ],
)
def test_creem_signs_by_standard_webhooks_or_as_before(headers):
    made = source("creem", WHSEC)
    assert reason(made, request(BODY, headers)) == "authentic"
    assert reason(made, request(BODY + b" ", headers)) != "authentic"
    assert reason(source("creem", "whsec_b3RoZXI="), request(BODY, headers)) != "authentic"


def test_a_form_of_key_counts_only_in_the_scheme_that_uses_it():
    made = source("creem", WHSEC)
    assert reason(made, request(BODY, standard(WHSEC.encode()))) == "no signature matches"
    raw = mac(bytes(range(24)), BODY).hex()
    assert reason(made, request(BODY, {"creem-signature": raw})) == "no signature matches"


def test_the_reason_is_that_of_the_scheme_which_the_request_uses():
    made = source("creem", WHSEC)
    assert reason(made, request(BODY, {"creem-signature": "00"})) == "no signature matches"
    assert "301 s old" in reason(made, request(BODY, standard(bytes(range(24)))), NOW + 301)
    assert reason(made, request(BODY)) == "the request carries no signature"


def test_mollie_signs_with_and_without_the_name_of_the_hash():
    signature = mac(b"a_secret", BODY).hex()
    for header in (f"sha256={signature}", signature, f"00,{signature}", f"sha256=00,sha256={signature}"):
        assert reason(source("mollie", "a_secret"), request(BODY, {"X-Mollie-Signature": header})) == "authentic"


def test_convoy_signs_by_sha_256_unless_told_otherwise():
    for name in ("sha256", "sha512"):
        raw = mac(b"a_secret", BODY, name)
        sent = request(BODY, {"X-Convoy-Signature": raw.hex()})
        assert reason(source("convoy-hex", "a_secret"), sent) == "authentic"
        sent = request(BODY, {"X-Convoy-Signature": base64.b64encode(raw).decode()})
        assert reason(source("convoy-base64", "a_secret"), sent) == "authentic"
    assert reason(
        source("convoy-hex", "a_secret"), request(BODY, {"X-Convoy-Signature": mac(b"a_secret", BODY, "sha1").hex()})
    )


@pytest.mark.parametrize("provider", ["supabase-auth", "standard-webhooks", "clerk", "polar"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_signatures_may_be_separated_by_a_comma_and_a_space(provider, order):
    """Supabase, while a secret is rotated: the good one of three may stand anywhere."""
    keys = [bytes(range(24)), b"another key of 24 bytes.", b"a third"]
    signatures = [standard(keys[i])["webhook-signature"] for i in order]
    headers = {**standard(keys[0]), "webhook-signature": ", ".join(signatures)}
    assert reason(source(provider, WHSEC), request(BODY, headers)) == "authentic"
    assert reason(source(provider, "whsec_b3RoZXI="), request(BODY, headers)) == "no signature matches"


def test_no_signature_of_any_scheme_is_kept():
    made = source("creem", WHSEC)
    sent = request(BODY, {**standard(bytes(range(24))), "creem-signature": "aa", "x-creem-signature": "bb"})
    assert set(sources.read(made, sent).headers) == {"webhook-id", "webhook-timestamp"}


def test_what_proves_a_sender_by_any_scheme_is_not_kept_whatever_its_header_is_called():
    other = '{type: token, signature: {in: ["header:x-two", "query:q"]}}'
    stanza = '{type: token, signature: {in: "header:x-one"}, or: [' + other + "]}"
    made = loaded(f"provider: custom\nenvelope: {{type: type}}\nverify: {stanza}\n")
    event = sources.read(
        made, request(BODY, {"x-one": "a", "x-two": "b", "x-three": "c"}, "https://x.example/?q=1&r=2")
    )
    assert (event.headers, event.query) == ({"x-three": "c"}, {"r": "2"})


# --------------------------------------------------------------------------------------- an id that was really signed


def loaded(text, presets=None):
    (made,) = rules.load(
        {"mine.yaml": text + "visitor: v\ngoals: [{goal: g, event: e}]\n"},
        {"MINE_WEBHOOK_SECRET": WHSEC},
        presets or {},
    ).sources.values()
    return made


@pytest.mark.parametrize("provider", ["resend", "clerk", "openai", "polar", "dodo"])
def test_a_second_header_with_another_id_makes_no_new_event(provider):
    made = loaded(f"provider: {provider}\n", sources.presets())
    raw = standard(bytes(range(24)))
    first = request(BODY, raw)
    again = request(BODY, {**raw, "svix-id": "msg_forged"})
    swapped = request(BODY, {"svix-id": "msg_forged", **raw})
    assert reason(made, first) == "authentic"
    keys = set(sources.read(made, first).dedupe_keys)
    for sent in (again, swapped):
        assert reason(made, sent) == "authentic"
        assert keys & set(sources.read(made, sent).dedupe_keys)


STANZA = (
    'verify: {type: hmac-sha256, signature: {in: "header:x-s"}, id: ["header:a", "header:b"], signed: "{id}.{body}"}\n'
)


@pytest.mark.parametrize(
    ("where", "signed"),
    [
        ("header.a", True),
        ("[header.a, header.b]", True),
        ("header.b", False),
        ("[header.b, header.a]", False),
        ("header.c", False),
        ("id", True),
    ],
)
def test_an_id_counts_as_signed_only_if_it_is_read_as_it_was_signed(where, signed):
    made = loaded(f"provider: custom\n{STANZA}envelope: {{type: type, id: {where}}}\n")
    assert made.id_is_signed is signed


def test_an_id_must_be_signed_by_each_of_the_schemes():
    stanza = STANZA.replace("}\n", ', or: [{type: hmac-sha256, signature: {in: "header:x-t"}}]}\n')
    assert not loaded(f"provider: custom\n{stanza}envelope: {{type: type, id: header.a}}\n").id_is_signed
    assert loaded(f"provider: custom\n{stanza}envelope: {{type: type, id: id}}\n").id_is_signed


# ------------------------------------------------------------------------------------------------- in a mapping file


def test_a_mapping_file_says_its_own_alternatives():
    made = loaded(
        "provider: custom\nenvelope: {type: type}\n"
        'verify: {type: token, signature: {in: "header:x-t"}, '
        'or: [{type: basic}, {type: hmac-sha1, key: hex, signature: {in: "query:s"}}]}\n'
    )
    assert [scheme.type for scheme in made.verify.schemes] == ["token", "basic", "hmac-sha1"]
    made = replace(made, secrets=("user:pass",))
    assert reason(made, request(b"{}", {"x-t": "user:pass"})) == "authentic"
    assert reason(made, request(b"{}", {"authorization": "Basic dXNlcjpwYXNz"})) == "authentic"
    assert "key" not in reason(made, request(b"{}", {"x-t": "user:other"}))


def test_a_file_that_changes_a_part_of_a_preset_keeps_its_alternatives_and_one_that_says_all_does_not():
    kept = loaded(
        "provider: convoy-hex\nenvelope: {type: type}\nverify: {signature: {encoding: base64}}\n", sources.presets()
    )
    assert [scheme.type for scheme in kept.verify.schemes] == ["hmac-sha256", "hmac-sha512"]
    own = loaded(
        'provider: convoy-hex\nenvelope: {type: type}\nverify: {type: hmac-sha1, signature: {in: "header:x"}}\n',
        sources.presets(),
    )
    assert [scheme.type for scheme in own.verify.schemes] == ["hmac-sha1"]


@pytest.mark.parametrize(
    ("alternatives", "sentence"),
    [
        ("[{key: text}]", 'an entry of "or" needs "type"'),
        (
            "[{type: hmac-sha257, signature: {in: 'header:x'}}]",
            'unknown type "hmac-sha257"; did you mean "hmac-sha256"?',
        ),
        ("[{type: hmac-sha256}]", 'needs "signature"'),
        ("[{type: basic, preset: stripe}]", 'unknown key "preset" in an entry of or'),
        ("[{type: hmac-sha256, signature: {inn: 'header:x'}}]", 'unknown key "inn" in signature; did you mean "in"?'),
        ("{type: basic}", '"or"'),
    ],
)
def test_a_faulty_alternative_is_told_with_its_place(alternatives, sentence):
    with pytest.raises(MappingError) as caught:
        loaded(
            f"provider: custom\nenvelope: {{type: type}}\n"
            f'verify: {{type: token, signature: {{in: "header:x-t"}}, or: {alternatives}}}\n'
        )
    assert sentence in str(caught.value)
    assert "mine.yaml:3:" in str(caught.value)


@pytest.mark.parametrize(("url", "signed"), [("", True), ("public_url: https://shop.example/webhooks/x\n", False)])
def test_an_id_in_the_query_is_signed_only_where_the_url_is_the_one_that_was_sent(url, signed):
    """With `public_url` the signature covers that, whatever the query says."""
    stanza = 'verify: {type: hmac-sha256, signature: {in: "header:s"}, signed: "{url}{body}"}\n'
    made = loaded(f"provider: custom\n{url}{stanza}envelope: {{type: type, id: query.id}}\n")
    assert made.id_is_signed is signed
