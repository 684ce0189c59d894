"""The headers that authenticate a body, as each provider sends them. The time of signing is passed in.

The bridge's verifier knows nothing of this module: they agree only because both follow the providers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from bridge.errors import UsageError
from bridge.model import Place
from bridge.sandbox import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Request, VerifySpec

_VARIABLE: Final = re.compile(r"\{([^{}]*)\}")


def _mac(key: bytes, message: bytes) -> hmac.HMAC:
    return hmac.new(key, message, hashlib.sha256)


def stripe(body: bytes, secret: str, now_s: int) -> dict[str, str]:
    """`Stripe-Signature: t=…,v1=…` over `t.body`; the key is the whole `whsec_…` string."""
    signature = _mac(secret.encode(), b"%d." % now_s + body).hexdigest()
    return {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Stripe-Signature": f"t={now_s},v1={signature}",
    }


def lemonsqueezy(body: bytes, secret: str, event: str) -> dict[str, str]:
    """`X-Signature` over the exact bytes; neither a time nor `X-Event-Name` is signed."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "LemonSqueezy-Hookshot",
        "X-Event-Name": event,
        "X-Signature": _mac(secret.encode(), body).hexdigest(),
    }


def tally(body: bytes, secret: str) -> dict[str, str]:
    """`Tally-Signature`: base64 over the exact bytes."""
    signature = base64.b64encode(_mac(secret.encode(), body).digest()).decode()
    return {"Content-Type": "application/json", "Tally-Signature": signature}


def calcom(body: bytes, secret: str) -> dict[str, str]:
    """`X-Cal-Signature-256`: hex over the exact bytes."""
    return {"Content-Type": "application/json", "X-Cal-Signature-256": _mac(secret.encode(), body).hexdigest()}


def standard_webhooks(
    body: bytes,
    secret: str,
    id: str,  # noqa: A002 - the standard's word
    now_s: int,
    *,
    text_key: bool = False,
    prefix: str = "webhook",
) -> dict[str, str]:
    """`webhook-signature: v1,…` over `id.time.body`. prefix: of the three headers (Clerk: svix).

    text_key: the secret's own bytes are the key (Polar); otherwise it is `whsec_` and base64, or UsageError.
    """
    key = secret.encode() if text_key else _decoded(secret)
    signature = base64.b64encode(_mac(key, f"{id}.{now_s}.".encode() + body).digest()).decode()
    return {
        "Content-Type": "application/json",
        f"{prefix}-id": id,
        f"{prefix}-timestamp": str(now_s),
        f"{prefix}-signature": f"v1,{signature}",
    }


def _decoded(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise UsageError("a Standard Webhooks secret is whsec_ and base64, such as `openssl rand -base64 32` prints")
    return key


# ------------------------------------------------------------------------------- any sender, by its `verify` stanza


def by_scheme(spec: VerifySpec, request: Request, secret: str, event_id: str, now_s: int) -> Request:
    """The request as a sender of this scheme sends it now; UsageError if only the sender itself can sign.

    event_id: put where the scheme has its id, unless there is one. If the body has a place for a time or the signature,
    the body is rewritten.
    """
    if spec.type == "basic":
        return _with(request, Place("header", "authorization"), "Basic " + base64.b64encode(secret.encode()).decode())
    if spec.id and not _at(request, spec.id[0]):
        request = _with(request, spec.id[0], event_id)
    if "{body_hash_url}" in spec.signed:
        request = _with(request, Place("query", "bodySHA256"), hashlib.sha256(request.body).hexdigest())
    stamp = _stamp(spec, now_s)
    if spec.timestamp and spec.timestamp.places:
        request = _with(request, spec.timestamp.places[0], stamp)
    signature = secret if spec.type == "token" else _signature(spec, request, secret, stamp)
    text = spec.signature.prefix + signature
    if spec.timestamp and not spec.timestamp.places:
        text = f"{spec.timestamp.prefix}{stamp}{spec.signature.split or ','}{text}"
    return _with(request, spec.signature.places[0], text)


def _stamp(spec: VerifySpec, now_s: int) -> str:
    form = spec.timestamp.form if spec.timestamp else None
    if form == "iso":
        return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(now_s * 1000 if form == "milliseconds" else now_s)


def _signature(spec: VerifySpec, request: Request, secret: str, stamp: str) -> str:
    if spec.type != "sha256" and not spec.type.startswith("hmac-"):
        raise UsageError(f"only the sender itself can sign this: {spec.type} needs its private key")
    pieces = enumerate(_VARIABLE.split(spec.signed))
    given = {"timestamp": stamp, "secret": secret, "id": _at(request, spec.id[0]) if spec.id else None}
    message = b"".join(_value(piece, request, given) if index % 2 else piece.encode() for index, piece in pieces)
    if spec.type == "sha256":
        digest = hashlib.sha256(message).digest()
    else:
        digest = hmac.digest(_key(spec.key[0], secret), message, spec.type.removeprefix("hmac-"))
    return digest.hex() if spec.signature.encoding == "hex" else base64.b64encode(digest).decode()


def _key(form: str, secret: str) -> bytes:
    if form == "text" or (form == "whsec" and "whsec_" not in secret):
        return secret.encode()
    if form != "hex":
        return _decoded(secret.removeprefix("v1,"))
    try:
        return bytes.fromhex(secret)
    except ValueError:
        raise UsageError("the secret of this source must be hex digits") from None


def _value(name: str, request: Request, given: Mapping[str, str | None]) -> bytes:
    if name == "body":
        return request.body
    if name == "crc32":
        return str(zlib.crc32(request.body)).encode()
    if name == "sorted_form":
        return "".join(key + value for key, value in sorted(set(_form(request.body)))).encode()
    where, _, below = name.partition(":")
    plain = {"url": request.url, "body_hash_url": request.url, "path": request.path, "method": request.method, **given}
    found = _at(request, Place(where, below)) if below else plain.get(name)
    if not found:
        raise UsageError(f"the signature of this source covers {{{name}}}, which the file does not have")
    return found.encode()


def _form(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode(errors="surrogateescape"), keep_blank_values=True)


def _at(request: Request, place: Place) -> str | None:
    """The value at a place of the request; None if there is none."""
    if place.where == "header":
        return request.headers.get(place.name.lower())
    if place.where in ("query", "form"):
        text = request.query_string.encode() if place.where == "query" else request.body
        return dict(_form(text)).get(place.name)
    holder, last = _holder(request.body, place.name)
    found = holder.get(last) if holder is not None else None
    return None if found is None else str(found)


def _with(request: Request, place: Place, text: str) -> Request:
    """The request with this value at a place."""
    if place.where == "header":
        return replace(request, headers={**request.headers, place.name.lower(): text})
    if place.where == "query":
        query = urlencode({**dict(_form(request.query_string.encode())), place.name: text})
        return replace(request, query_string=query, url=f"{request.url.partition('?')[0]}?{query}")
    if place.where == "form":
        return replace(request, body=urlencode({**dict(_form(request.body)), place.name: text}).encode())
    document = json.loads(request.body)
    holder, last = _holder(document, place.name)
    if holder is None:
        raise UsageError(f"this source signs in the body, at {place.name}, for which the file has no place")
    holder[last] = int(text) if isinstance(holder.get(last), int) else text
    return replace(request, body=encode.compact(document))


def _holder(body: Any, dotted: str) -> tuple[dict[str, Any] | None, str]:
    """The object that holds the last name of `a.b` or `a[0].b`, in a document or its bytes, and that name."""
    *above, last = dotted.replace("[", ".").replace("]", "").split(".")
    try:
        found = json.loads(body) if isinstance(body, bytes) else body
        for name in above:
            found = found[int(name) if isinstance(found, list) else name]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None, last
    return (found if isinstance(found, dict) else None), last
