"""The headers that make a body authentic, as each provider sends them. The time of signing is passed in.

The bridge's verifier knows nothing of this module: they agree only because both follow the providers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from bridge.errors import UsageError


def _mac(key: bytes, message: bytes) -> hmac.HMAC:
    return hmac.new(key, message, hashlib.sha256)


def stripe(body: bytes, secret: str, now_s: int) -> dict[str, str]:
    """`Stripe-Signature: t=…,v1=…` over `t.body`; the key is the whole `whsec_…` text."""
    signature = _mac(secret.encode(), b"%d." % now_s + body).hexdigest()
    return {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Stripe-Signature": f"t={now_s},v1={signature}",
    }


def lemonsqueezy(body: bytes, secret: str, event: str) -> dict[str, str]:
    """`X-Signature` over the exact bytes; no time is signed, and `X-Event-Name` is not either."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "LemonSqueezy-Hookshot",
        "X-Event-Name": event,
        "X-Signature": _mac(secret.encode(), body).hexdigest(),
    }


def standard_webhooks(body: bytes, secret: str, id: str, now_s: int, *, text_key: bool = False) -> dict[str, str]:  # noqa: A002
    """`webhook-signature: v1,…` over `id.time.body`.

    text_key: the secret's own bytes are the key (Polar); otherwise `whsec_` and base64, UsageError if it is not.
    """
    key = secret.encode() if text_key else _decoded(secret)
    signature = base64.b64encode(_mac(key, f"{id}.{now_s}.".encode() + body).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{signature}",
    }


def _decoded(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise UsageError("a Standard Webhooks secret is whsec_ and base64, such as `openssl rand -base64 32` prints")
    return key
