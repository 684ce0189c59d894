"""What tests of the sources need: a Source from any preset, requests, and a signer that knows every scheme.

The signer is written from the providers' side and shares no code with the verifier.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bridge import sources
from bridge.model import (
    BodyForm,
    EnvelopeSpec,
    LinkSpec,
    Place,
    Request,
    Requirement,
    SignatureSpec,
    Source,
    TimestampSpec,
    VerifySpec,
)
from bridge.rules.language.conditions import Case, Cases
from bridge.rules.language.paths import compile_path
from bridge.rules.language.templates import BeginsWith
from bridge.rules.reading.report import paths_or_templates
from bridge.rules.reading.when import compile_when

NOW = 1_700_000_000
URL = "https://bridge.example.com/webhooks/x"
VISITOR = "00000000-0000-4000-8000-000000000001"


def as_list(value):
    return [] if value is None else value if isinstance(value, list) else [value]


def places(said):
    return tuple(Place(*text.split(":", 1)) for text in as_list(said))


def paths(said):
    return tuple(compile_path(text) for text in as_list(said))


def verify_spec(said):
    signature, stamp = said.get("signature", {}), said.get("timestamp")
    timestamp = None
    if stamp:
        where = () if stamp["in"] == "signature" else places(stamp["in"])
        timestamp = TimestampSpec(where, stamp.get("prefix", ""), stamp.get("tolerance", 300), stamp.get("form"))
    return VerifySpec(
        said["type"],
        tuple(as_list(said.get("key", "text"))),
        SignatureSpec(
            places(signature.get("in")),
            signature.get("split"),
            signature.get("prefix", ""),
            signature.get("encoding", "hex"),
        ),
        timestamp,
        places(said.get("id")),
        said.get("signed", "{body}"),
        tuple(verify_spec(other) for other in said.get("or", ())),
    )


def flags(test):
    found = paths(test["path"] if isinstance(test, dict) else test)
    return tuple(BeginsWith(path, test["prefix"]) for path in found) if "prefix" in (test or ()) else found


def envelope_spec(said):
    test = said.get("test")
    mark = test.get("is", True) if isinstance(test, dict) else True
    mark = tuple(mark) if isinstance(mark, list) else mark
    return EnvelopeSpec(
        **{name: paths(said.get(name)) for name in ("id", "time", "order", "account")},
        type=paths_or_templates(said.get("type"), None),
        test=flags(test),
        test_is=mark,
    )


def source(preset, *secrets, **changes):
    """The source that a mapping file with only `provider: <preset>` compiles to."""
    said = sources.presets()[preset]
    return source_of(preset, said, *secrets, **changes)


def source_of(provider, said, *secrets, **changes):
    body = said.get("body", "json")
    made = Source(
        name=provider,
        provider=provider,
        verify=verify_spec(said["verify"]),
        secrets=secrets,
        envelope=envelope_spec(said.get("envelope", {})),
        id_is_signed=said.get("id_is_signed", True),
        body=BodyForm.JSON_FIELD if isinstance(body, dict) else BodyForm(body),
        body_field=body["json_field"] if isinstance(body, dict) else None,
        each=compile_path(said["each"]) if "each" in said else None,
        visitor=paths(said.get("visitor")),
        borrowed=paths(said.get("borrowed")),
        ignored=Cases(tuple(case(provider, one) for one in said.get("ignore", ()))),
        fingerprint=said.get("fingerprint"),
        objects=said.get("objects"),
        links=tuple(
            LinkSpec(link["kind"], paths(link["path"]), tuple(as_list(link.get("event", "*"))))
            for link in said.get("links", ())
        ),
    )
    return replace(made, **changes)


def refuse(where, sentence):
    raise AssertionError(f"{where}: {sentence}")


def case(provider, said):
    when = compile_when(said.get("when", {}), refuse)
    because = said.get("because", f"the handshake with which {provider} sets up or tries a webhook")
    because = said.get("because", f"the handshake with which {provider} sets up or tries a webhook")
    return Case(tuple(as_list(said.get("event", "*"))), when, because)


def require(**said):
    return tuple(Requirement(compile_path(path), tuple(as_list(value))) for path, value in said.items())


def request(body=b"", headers=None, url=URL, method="POST"):
    split = urlsplit(url)
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    return Request(method, url, split.path, split.query, lower, body)


# ------------------------------------------------------------------------------------------------------- signing

ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ECDSA = ec.derive_private_key(4711, ec.SECP256R1())


def secret_for(spec):
    """A secret of the form that this scheme takes."""
    if spec.type == "ed25519":
        raw = ED25519.public_key().public_bytes_raw()
        return raw.hex() if "hex" in spec.key else "whpk_" + base64.b64encode(raw).decode()
    if spec.type == "ecdsa-sha256":
        der = ECDSA.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(der).decode()
    if spec.type == "basic":
        return "user:pass:word"
    if "hex" in spec.key:
        return bytes(range(24)).hex()
    return "whsec_" + base64.b64encode(bytes(range(24))).decode() if "whsec" in spec.key else "a_secret_of_some_length"


def body_for(made):
    """A body in the source's form that holds all its own places, with the time of signing where it belongs."""
    document = {
        "type": "thing.happened",
        "id": "evt_1",
        "webhookTimestamp": NOW * 1000,
        "verification_token": "a_secret_of_some_length",
        "value": [{"clientState": "a_secret_of_some_length"}],
        "signature": {"timestamp": str(NOW), "token": "t" * 50, "signature": ""},
    }
    if made.body is BodyForm.FORM:
        return b"resource_name=sale&sale_id=1&b=2&a=1&thrivecart_secret=a_secret_of_some_length"
    if made.body is BodyForm.JSON_FIELD:
        from urllib.parse import urlencode

        return urlencode({made.body_field: json.dumps(document)}).encode()
    return json.dumps(document).encode()


def stated(spec, at):
    """A time as the sender of this scheme writes it."""
    form = spec.timestamp.form if spec.timestamp else None
    if form == "iso":
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{at}000" if form == "milliseconds" else str(at)


def url_for(made, body):
    url = made.public_url or URL
    hashed = "{body_hash_url}" in made.verify.signed
    return f"{url}?bodySHA256={hashlib.sha256(body).hexdigest()}" if hashed else url


def signed_request(made, secret, body=None, at=NOW, event_id="msg_1", signer=None):
    """A request as the provider would send it, signed with the secret (or by `signer`)."""
    spec = made.verify
    body = body_for(made) if body is None else body
    headers, url, stamp = {}, url_for(made, body), stated(spec, at)
    if spec.id:
        headers[spec.id[0].name] = event_id
    if spec.timestamp and spec.timestamp.places and spec.timestamp.places[0].where == "header":
        headers[spec.timestamp.places[0].name] = stamp
    if spec.type == "token":
        text = spec.signature.prefix + secret
    elif spec.type == "basic":
        text = "Basic " + base64.b64encode(secret.encode()).decode()
    else:
        message = signed_bytes(spec.signed, body, url, stamp, event_id, secret)
        raw = (signer or sign)(spec, secret, message)
        text = spec.signature.prefix + (
            raw.hex() if spec.signature.encoding == "hex" else base64.b64encode(raw).decode()
        )
    if spec.timestamp and not spec.timestamp.places:
        text = spec.timestamp.prefix + stamp + spec.signature.split + text
    place = spec.signature.places[0] if spec.signature.places else Place("header", "Authorization")
    if place.where == "header":
        headers[place.name] = text
    elif place.where == "query":
        from urllib.parse import quote

        url += f"?{place.name}={quote(text)}"
    elif place.name == "signature":
        body = json.dumps({**json.loads(body), "signature": text}).encode()
    elif place.name == "signature.signature":
        document = json.loads(body)
        document["signature"]["signature"] = text
        body = json.dumps(document).encode()
    return request(body, headers, url)


def signed_bytes(template, body, url, stamp, event_id, secret):
    form = b""
    if "{sorted_form}" in template:
        form = "".join(k + v for k, v in sorted(set(parse_qsl(body.decode(), keep_blank_values=True)))).encode()
    known = {
        "body": body,
        "url": url.encode(),
        "other_port_url": url.replace("example.com/", "example.com:443/").encode(),
        "body_hash_url": url.encode(),
        "method": b"POST",
        "timestamp": stamp.encode(),
        "id": event_id.encode(),
        "secret": secret.encode(),
        "sorted_form": form,
        "body:signature.token": b"t" * 50,
    }
    return b"".join(
        known[piece] if index % 2 else piece.encode() for index, piece in enumerate(re.split(r"\{([^}]*)\}", template))
    )


def key_of(spec, secret):
    if "whsec" in spec.key:
        return base64.b64decode(secret.removeprefix("whsec_"))
    return bytes.fromhex(secret) if "hex" in spec.key and "text" not in spec.key else secret.encode()


def sign(spec, secret, message):
    if spec.type == "ed25519":
        return ED25519.sign(message)
    if spec.type == "ecdsa-sha256":
        return ECDSA.sign(message, ec.ECDSA(hashes.SHA256()))
    if spec.type == "sha256":
        return hashlib.sha256(message).digest()
    key = key_of(spec, secret)
    return hmac.new(key, message, spec.type.removeprefix("hmac-")).digest()
