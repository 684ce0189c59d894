"""One suite over the registry of presets: a new one is tested by being listed."""

import base64
import hashlib
import hmac
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from cases_kit import one_in
from hypothesis import given, settings
from hypothesis import strategies as st
from sources_kit import NOW, body_for, request, secret_for, signed_request, source

from bridge import rules, sources
from bridge.errors import SignatureError
from docs import providers

PRESETS = sorted(sources.presets())
TIMED = [name for name in PRESETS if "timestamp" in sources.presets()[name]["verify"]]
KEYED = [name for name in PRESETS if sources.presets()[name]["verify"]["type"] not in ("token", "basic")]
SEVERAL = [name for name in PRESETS if "split" in sources.presets()[name]["verify"].get("signature", {})]

every = pytest.mark.parametrize("name", PRESETS)


def ready(name):
    spec = source(name).verify
    secret = secret_for(spec)
    return source(name, secret), secret


def refused(made, sent, now=NOW):
    with pytest.raises(SignatureError):
        sources.verify(made, sent, now)
    return True


@every
def test_what_the_provider_signs_is_authentic(name):
    made, secret = ready(name)
    sources.verify(made, signed_request(made, secret), NOW)
    assert sources.problems(made) == ()


@every
def test_another_secret_is_refused(name):
    made, secret = ready(name)
    sent = signed_request(made, secret)
    other = "other:one" if made.verify.type == "basic" else "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXI="
    assert refused(replace(made, secrets=(other,)), sent)


@every
def test_any_of_several_secrets_will_do_even_beside_an_unusable_one(name):
    made, secret = ready(name)
    sent = signed_request(made, secret)
    sources.verify(replace(made, secrets=("", "whsec_", "another", f"  {secret}\r\n")), sent, NOW)


@every
@pytest.mark.parametrize("secrets", [(), ("",), (" \n",), ("whsec_",), ("v1,whsec_",), ("v1",), ("whpk_",)], ids=repr)
def test_an_empty_secret_never_verifies(name, secrets):
    made = replace(source(name), secrets=secrets)
    for key in ("", *secrets):
        forged = signed_request(made, key, signer=lambda spec, _, message, key=key: forge(spec, key, message))
        assert refused(made, forged)


def forge(spec, key, message):
    """With the empty key, and with what a careless decoder makes of a bare prefix."""
    if not spec.type.startswith("hmac"):
        return hashlib.sha256(message).digest()
    careless = base64.b64decode(key.removeprefix("whsec_") + "==") if "whsec" in spec.key else key.encode()
    return hmac.new(careless, message, spec.type[5:]).digest()


def test_basic_authentication_without_user_and_password_never_verifies():
    for secret in (":", " : ", "::"):
        made = source("chargebee", secret)
        assert refused(made, request(b"{}", {"Authorization": "Basic " + base64.b64encode(b":").decode()}))


@every
def test_a_request_without_its_signature_is_refused(name):
    made, secret = ready(name)
    sent = signed_request(made, secret)
    names = {place.name.lower() for place in made.verify.signature.places} | {"authorization"}
    bare = {header: value for header, value in sent.headers.items() if header not in names}
    body = b"a=1" if made.body == "form" else b"{}"
    assert refused(made, request(body, bare))


@pytest.mark.parametrize("name", [name for name in KEYED if name != "mailgun"])
def test_a_changed_body_is_refused(name):
    made, secret = ready(name)
    sent = signed_request(made, secret)
    changed = b"a=2&b=3" if made.body == "form" else sent.body.replace(b"evt_1", b"evt_2")
    assert refused(made, replace(sent, body=changed))


@pytest.mark.parametrize("name", KEYED)
def test_a_changed_signature_is_refused(name):
    made, secret = ready(name)
    sent = signed_request(made, secret, signer=lambda *_: b"\0" * 32)
    assert refused(made, sent)


@pytest.mark.parametrize("name", TIMED)
def test_the_old_and_the_future_are_refused_whoever_signed_them(name):
    made, secret = ready(name)
    sent = signed_request(made, secret)
    tolerance = made.verify.timestamp.tolerance_s
    for now in (NOW + tolerance, NOW - tolerance):
        sources.verify(made, sent, now)
    for now in (NOW + tolerance + 1, NOW - tolerance - 1):
        assert refused(made, sent, now)


@pytest.mark.parametrize("name", SEVERAL)
def test_more_than_sixteen_signatures_are_refused(name):
    made, secret = ready(name)
    split, place = made.verify.signature.split, made.verify.signature.places
    sent = signed_request(made, secret)
    header = place[0].name.lower()
    text = sent.headers[header]
    dummy = split + made.verify.signature.prefix + "00"
    sources.verify(made, replace(sent, headers={**sent.headers, header: text + dummy * 15}), NOW)
    assert refused(made, replace(sent, headers={**sent.headers, header: text + dummy * 16}))


anything = st.text(max_size=80) | st.text("0123456789abcdef=,;: vst1h-_/+\r\n\0é\ud800", max_size=80)


@pytest.mark.parametrize("name", one_in(3, PRESETS))
@settings(max_examples=settings.default.max_examples * 3 // 20, deadline=None)
@given(data=st.data())
def test_whatever_arrives_only_a_signature_error_comes_out(name, data):
    """Law 3, from nothing but rubbish and from a genuine request with anything of it replaced."""
    made, secret = ready(name)
    sent = signed_request(made, secret)
    names = sorted({*sent.headers, "authorization", "x-other"})
    headers = data.draw(st.dictionaries(st.sampled_from(names), anything))
    prefixed = {
        header: data.draw(st.sampled_from(["", "t=", "v1=", made.verify.signature.prefix, "t=1700000000,v1="])) + value
        for header, value in headers.items()
    }
    changed = replace(
        sent,
        headers={**sent.headers, **prefixed} if data.draw(st.booleans()) else prefixed,
        body=data.draw(st.binary(max_size=60) | st.just(sent.body)),
        query_string=data.draw(anything | st.just(sent.query_string)),
        url=data.draw(anything | st.just(sent.url)),
        path=data.draw(anything),
        method=data.draw(st.sampled_from(["POST", "GET", "", "é"])),
    )
    now = data.draw(st.floats(allow_nan=True) | st.just(float(NOW)))
    try:
        sources.verify(made, changed, now)
    except SignatureError:
        return
    assert _vouched_for(made, sent, changed)


def _vouched_for(made, sent, changed):
    """What was accepted is what was signed: nobody can make another body pass."""
    return changed.body == sent.body or made.verify.type in ("token", "basic") or made.provider == "mailgun"


@every
@settings(max_examples=settings.default.max_examples // 10, deadline=None)
@given(
    body=st.binary(max_size=80) | st.text(max_size=80).map(str.encode),
    headers=st.dictionaries(st.text(max_size=9), anything),
)
def test_reading_whatever_arrives_gives_an_event_that_any_database_takes(name, body, headers):
    made = source(name)
    event = sources.read(made, request(body, headers))
    texts = [event.envelope.type, event.envelope.id or "", event.envelope.account or "", *event.dedupe_keys]
    texts += [*event.headers, *event.headers.values(), *event.query, *event.query.values(), event.quarantine or ""]
    for text in texts:
        assert "\0" not in text
        text.encode()
    assert event.body == body
    assert 1 <= len(event.dedupe_keys) <= 2
    assert event.dedupe_keys == sources.read(made, request(body, headers)).dedupe_keys


@every
def test_neither_the_signature_nor_a_credential_is_kept(name):
    made, secret = ready(name)
    sent = signed_request(made, secret)
    sent = replace(sent, headers={**sent.headers, "authorization": "Bearer x", "cookie": "a=b", "user-agent": "ua"})
    event = sources.read(made, sent)
    kept = {*event.headers, *event.query}
    assert kept.isdisjoint(
        {"authorization", "cookie", "token"} | {p.name.lower() for p in made.verify.signature.places}
    )
    assert event.headers["user-agent"] == "ua"
    assert secret not in repr(event)


@every
def test_a_preset_says_all_that_a_person_needs(name):
    said = sources.presets()[name]
    assert said["where"]
    assert said["secret_hint"]
    assert not said.keys() - {
        "where", "secret_hint", "checked", "note",
        "verify", "envelope", "body", "visitor", "borrowed", "links", "each", "id_is_signed", "formerly",
                    "retry_fields", "handshake", "handover",
        "links_named_by", "secret_form", "acknowledge", "cannot_be_set_up", "values", "decimals",
            "ignore", "event_names", "fingerprint", "id_note", "objects", "object_ids", "not_the_secret",
            "advice", "commands", "subscribe", "lookup", "page", "payments_by", "people",
    }  # fmt: skip


@every
def test_a_mapping_file_of_two_lines_compiles_to_the_preset(name):
    text = f"provider: {name}\npublic_url: https://x.example/y\nvisitor: [header.v]\ngoals: [{{goal: g, event: e}}]\n"
    secret = secret_for(source(name).verify)
    environ = {"MINE_WEBHOOK_SECRET": secret, "MINE_VERIFY_TOKEN": "chosen-by-the-operator"}
    loaded = rules.load({"mine.yaml": text}, environ, sources.presets())
    made, (said,) = source(name, secret), loaded.sources.values()
    for field in ("verify", "secrets", "envelope", "id_is_signed", "body", "body_field", "each", "links", "borrowed"):
        assert getattr(said, field) == getattr(made, field), field
    typeless = [warning for warning in loaded.warnings if "where the type of an event is" in warning]
    dead = [warning for warning in loaded.warnings if "cannot be set up" in warning]
    assert list(loaded.warnings) == dead + typeless
    assert bool(dead) is ("cannot_be_set_up" in sources.presets()[name])
    assert bool(typeless) is not bool(made.envelope.type)  # a general scheme says nothing of the events it signs


@every
def test_a_signed_body_is_read_into_type_and_id_where_the_preset_says(name):
    """Every path of the envelope reads something when a document is built to hold it."""
    made, _ = ready(name)
    event = sources.read(made, request(body_for(made), {"x-event": "1"}))
    assert event.quarantine is None


def test_the_registry_is_written_in_plain_yaml():
    text = files("bridge.sources").joinpath("presets.yaml").read_text()
    events = list(yaml.parse(text, yaml.CSafeLoader))
    assert not [event for event in events if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)]
    assert not list(_duplicate_keys(yaml.compose(text, yaml.CSafeLoader)))


def _duplicate_keys(node):
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        yield from (key for key in keys if keys.count(key) > 1)
        for _, value in node.value:
            yield from _duplicate_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _duplicate_keys(value)


def test_no_link_is_an_object_that_many_buyers_share():
    shared = {"product", "price", "plan", "store", "variant", "coupon", "payment_link"}
    kinds = {link["kind"] for said in sources.presets().values() for link in said.get("links", ())}
    assert kinds.isdisjoint(shared)


def test_the_table_of_providers_is_the_registrys():
    table = (Path(__file__).parents[3] / "docs" / "providers.md").read_text()
    assert table.startswith(providers.table()), "`make docs` writes docs/providers.md"


@every
def test_where_a_preset_looks_for_a_visitor_it_says_by_which_events_one_is_handed_over(name):
    said = sources.presets()[name]
    places = [*(said.get("visitor") or ()), *(said.get("borrowed") or ())]
    assert not places or "handover" in said
