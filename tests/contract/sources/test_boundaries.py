"""One signature covers one reading: no byte moves over a boundary that the scheme does not mark, no body grows."""

import base64
import hashlib
import hmac
import struct
from dataclasses import replace

import pytest
from sources_kit import NOW, request, secret_for, signed_request, source, source_of

from bridge import rules, sources
from bridge.errors import SignatureError
from docs import providers

SECRET = "a_secret_of_some_length"
BODY = b'{"type": "thing.happened", "id": "evt_1"}'
ISO = "2023-11-14T22:13:20Z"


def reason(made, sent, now=NOW):
    try:
        sources.verify(made, sent, now)
    except SignatureError as error:
        return error.reason
    return "authentic"


def b64(message, secret=SECRET, name="sha256"):
    return base64.b64encode(hmac.new(secret.encode(), message, name).digest()).decode()


# --------------------------------------------------------------------------------------------------- moved bytes


def zendesk(stamp, body, signed):
    headers = {"X-Zendesk-Webhook-Signature": b64(signed), "X-Zendesk-Webhook-Signature-Timestamp": stamp}
    return reason(source("zendesk", SECRET), request(body, headers))


def test_zendesks_timestamp_cannot_take_a_byte_of_the_body_or_give_one():
    signed = ISO.encode() + BODY
    assert zendesk(ISO, BODY, signed) == "authentic"
    for cut in range(1, len(signed)):
        if cut != len(ISO):
            assert zendesk(signed[:cut].decode(), signed[cut:], signed) != "authentic"


@pytest.mark.parametrize(
    "stamp",
    [
        str(NOW),
        f"{NOW}000",
        "2023-11-14T22:13:20",
        "20231114T221320Z",
        "2023-W46-2T22:13:20Z",
        "2023-11-14 22:13:20Z",
        " " + ISO,
    ],
)
def test_zendesks_timestamp_is_of_one_form(stamp):
    assert (
        zendesk(stamp, BODY, stamp.encode() + BODY) == "the timestamp is not of the exact form that this scheme needs"
    )


@pytest.mark.parametrize("stamp", [ISO, "2023-11-14T22:13:20.123Z", "2023-11-15T00:13:20+02:00"])
def test_zendesks_timestamp_as_it_may_be_written(stamp):
    assert zendesk(stamp, BODY, stamp.encode() + BODY) == "authentic"


BARE = [
    name
    for name, said in sources.presets().items()
    if any(piece in said["verify"].get("signed", "") for piece in ("{timestamp}{", "}{timestamp}"))
]
STAMPED_IN_A_HEADER = [
    name for name in BARE if sources.presets()[name]["verify"]["timestamp"]["in"].startswith("header:")
]


def test_the_schemes_without_a_separator_are_known():
    assert {"zendesk", "hubspot-v3", "discord", "sendgrid", "mailgun", "box"} <= set(BARE)
    assert set(BARE) - set(STAMPED_IN_A_HEADER) == {"mailgun"}


@pytest.mark.parametrize("name", BARE)
def test_a_preset_without_a_separator_says_the_exact_form_of_its_timestamp(name):
    assert sources.presets()[name]["verify"]["timestamp"]["form"] in ("seconds", "milliseconds", "iso")


@pytest.mark.parametrize("name", STAMPED_IN_A_HEADER)
@pytest.mark.parametrize("moved", [1, 2, 3])
def test_the_digits_of_a_timestamp_stay_in_it(name, moved):
    made = source(name)
    secret = secret_for(made.verify)
    made = replace(made, secrets=(secret,))
    sent = signed_request(made, secret)
    assert reason(made, sent) == "authentic"
    header = made.verify.timestamp.places[0].name.lower()
    stamp = sent.headers[header]
    if "}{timestamp}" in made.verify.signed:
        shifted = replace(
            sent, body=sent.body + stamp[:moved].encode(), headers={**sent.headers, header: stamp[moved:]}
        )
        taken = replace(
            sent, body=sent.body[:-moved], headers={**sent.headers, header: sent.body[-moved:].decode() + stamp}
        )
    else:
        shifted = replace(
            sent, body=stamp[-moved:].encode() + sent.body, headers={**sent.headers, header: stamp[:-moved]}
        )
        taken = replace(
            sent, body=sent.body[moved:], headers={**sent.headers, header: stamp + sent.body[:moved].decode()}
        )
    for other in (shifted, taken):
        assert reason(made, other) != "authentic"
        assert reason(made, other) != "no signature matches"  # the bytes signed are the same: only the form tells


@pytest.mark.parametrize(
    ("stamp", "good"),
    [(str(NOW), True), (f"{NOW}000", True), (ISO, True), (f"{NOW}.5", False), ("2023-11-14T22:13:20", False)],
)
def test_a_mapping_file_without_a_separator_takes_only_what_shows_its_end(stamp, good):
    verify = {
        "type": "hmac-sha256",
        "signature": {"in": "header:X-S", "encoding": "base64"},
        "timestamp": {"in": "header:X-T"},
        "signed": "{timestamp}{body}",
    }
    headers = {"X-S": b64(stamp.encode() + BODY), "X-T": stamp}
    made = source_of("custom", {"verify": verify}, SECRET)
    assert (reason(made, request(BODY, headers)) == "authentic") is good
    separated = source_of("custom", {"verify": {**verify, "signed": "{timestamp}.{body}"}}, SECRET)
    headers["X-S"] = b64(stamp.encode() + b"." + BODY)
    assert reason(separated, request(BODY, headers)) == "authentic"


@pytest.mark.parametrize("between", ["", "."])
def test_a_mapping_file_may_say_the_form_itself(between):
    text = (
        "provider: custom\nenvelope: {type: type}\nvisitor: v\ngoals: [{goal: g, event: e}]\n"
        'verify: {type: hmac-sha256, signature: {in: "header:x-s", encoding: base64}, '
        'timestamp: {in: "header:x-t", form: milliseconds}, signed: "{timestamp}' + between + '{body}"}\n'
    )
    made = rules.load({"mine.yaml": text}, {"MINE_WEBHOOK_SECRET": SECRET}, {}).sources["mine"]
    for stamp, verdict in ((f"{NOW}000", True), (str(NOW), False)):
        sent = request(BODY, {"x-s": b64(stamp.encode() + between.encode() + BODY), "x-t": stamp})
        assert (reason(made, sent) == "authentic") is verdict


# ------------------------------------------------------------------------------------------------ lengthened bodies


def _primes(count):
    found, number = [], 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _cube_root_bits(prime):
    """The first 32 bits of the fraction of a cube root, by integers alone."""
    root, bit = 0, 1 << 40
    while bit:
        if (root + bit) ** 3 <= prime << 96:
            root += bit
        bit >>= 1
    return root & 0xFFFFFFFF


CONSTANTS = [_cube_root_bits(prime) for prime in _primes(64)]


def _rotated(word, by):
    return (word >> by | word << (32 - by)) & 0xFFFFFFFF


def lengthened(digest, length, more):
    """(the bytes to append, the hash of everything): SHA-256 continued from a hash whose input nobody knows."""
    gap = b"\x80" + b"\0" * ((55 - length) % 64) + struct.pack(">Q", length * 8)
    total = length + len(gap) + len(more)
    rest = more + b"\x80" + b"\0" * ((55 - total) % 64) + struct.pack(">Q", total * 8)
    state = list(struct.unpack(">8I", digest))
    for start in range(0, len(rest), 64):
        state = _compressed(state, rest[start : start + 64])
    return gap + more, struct.pack(">8I", *state)


def _compressed(state, block):
    words = list(struct.unpack(">16I", block))
    for i in range(16, 64):
        early, late = words[i - 15], words[i - 2]
        low = _rotated(early, 7) ^ _rotated(early, 18) ^ early >> 3
        high = _rotated(late, 17) ^ _rotated(late, 19) ^ late >> 10
        words.append((words[i - 16] + low + words[i - 7] + high) & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = state
    for constant, word in zip(CONSTANTS, words, strict=True):
        mixed = _rotated(e, 6) ^ _rotated(e, 11) ^ _rotated(e, 25)
        first = h + mixed + (e & f ^ ~e & g) + constant + word
        second = (_rotated(a, 2) ^ _rotated(a, 13) ^ _rotated(a, 22)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (first + second) & 0xFFFFFFFF, a, b, c, (d + first) & 0xFFFFFFFF, e, f, g
    return [(old + new) & 0xFFFFFFFF for old, new in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("body", [b'[{"eventId": 1}]', b"[]", b""])
def test_a_body_made_longer_under_hubspots_unkeyed_hash_is_refused(version, body):
    made = source(f"hubspot-{version}", SECRET)
    before = SECRET.encode() + (b"POST" + made_url() if version == "v2" else b"")
    digest = hashlib.sha256(before + body).digest()
    assert reason(made, request(body, {"X-HubSpot-Signature": digest.hex()})) == "authentic"
    appended, forged = lengthened(digest, len(before + body), b'[{"eventId": 2}]')
    assert (
        forged == hashlib.sha256(before + body + appended).digest()
    )  # the forgery is perfect, and made without SECRET
    said = reason(made, request(body + appended, {"X-HubSpot-Signature": forged.hex()}))
    assert "unkeyed hash says nothing of it" in said


def made_url():
    return request().url.encode()


@pytest.mark.parametrize(
    "body", [b"not json", b"{'a': 1}", b'{"a": 1', b'{"a": 1, "a": 2}', b"a=1&b=2", b"\xff", b'{"a": NaN}']
)
def test_what_is_no_strict_json_is_not_authentic_under_an_unkeyed_hash(body):
    made = source("hubspot-v1", SECRET)
    digest = hashlib.sha256(SECRET.encode() + body).hexdigest()
    assert reason(made, request(body, {"X-HubSpot-Signature": digest})) not in ("authentic", "no signature matches")


def test_under_a_keyed_hash_an_unreadable_body_is_kept_for_a_person_to_look_at():
    body = b"not json"
    made = source("lemonsqueezy", SECRET)
    assert (
        reason(made, request(body, {"X-Signature": hmac.new(SECRET.encode(), body, "sha256").hexdigest()}))
        == "authentic"
    )


def test_hubspots_notes_say_which_version_to_prefer():
    for version in ("v1", "v2"):
        assert "prefer hubspot-v3" in sources.presets()[f"hubspot-{version}"]["note"]
        assert "prefer hubspot-v3" in providers.table()


def test_hmac_md5_is_known_for_those_who_have_nothing_else():
    verify = {"type": "hmac-md5", "signature": {"in": "header:X-S"}}
    signature = hmac.new(SECRET.encode(), BODY, "md5").hexdigest()
    assert reason(source_of("custom", {"verify": verify}, SECRET), request(BODY, {"X-S": signature})) == "authentic"
    assert reason(source_of("custom", {"verify": verify}, "other"), request(BODY, {"X-S": signature})) != "authentic"
