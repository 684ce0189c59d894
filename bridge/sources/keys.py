"""Secrets as people paste them → the bytes of a key.

Stray whitespace is taken off (environment files end in a newline); a secret that leaves no key is no key, so that an
empty one never verifies anything.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

FORMS: Final = ("text", "whsec", "base64", "hex", "pem", "der", "whpk")

# What is left of a secret cut off.
_BARE_PREFIXES: Final = ("v1", "v1,", "v1a", "v1a,", "whsec_", "v1,whsec_", "whpk_", "ws_", "polar_whs_")
_URL_SAFE: Final = str.maketrans("-_", "+/")
_NAMED_PREFIX: Final = re.compile(r"[A-Za-z]+_")


def symmetric(form: str, secret: str) -> bytes:
    """The key in a secret. ValueError with a sentence if there is none, or none that this form allows."""
    text = secret.strip()
    if text in _BARE_PREFIXES:
        raise ValueError("the secret is only a prefix: the rest of it is missing")
    if form == "whsec":
        key = _whsec(text)
    elif form == "base64":
        key = from_base64(text)
    elif form == "hex":
        key = from_hex(text)
    elif form == "text":
        key = text.encode("utf-8", "surrogatepass")
    else:
        raise ValueError(f"`key: {form}` is for public keys (ed25519, ecdsa, rsa), not for a shared secret")
    if not key:
        raise ValueError("the secret is empty")
    return key


def from_hex(text: str) -> bytes:
    """Strict hex of any case: unlike bytes.fromhex, no blanks within."""
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise ValueError("it is not hex") from None


def from_base64(text: str) -> bytes:
    """Standard or URL-safe base64, padding optional."""
    text = text.rstrip("=").translate(_URL_SAFE)
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        raise ValueError("it is not base64") from None


def _whsec(text: str) -> bytes:
    """`whsec_<base64>`, also `v1,whsec_…` (Supabase) and other prefixes (Loops); what is no base64 is its own bytes."""
    text = text.removeprefix("v1,").removeprefix("whsec_")
    for candidate in (text, _NAMED_PREFIX.sub("", text, count=1)):
        if "_" not in candidate:
            try:
                return from_base64(candidate)
            except ValueError:
                continue
    return text.encode("utf-8", "surrogatepass")
