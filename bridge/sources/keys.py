"""Secrets as people paste them → the bytes of a key; and verification by public key: Ed25519, ECDSA, RSA.

Stray white space is removed (environment files end in a newline). A secret without a key in it is an error, so that an
empty one never verifies anything. The package `cryptography` takes 8 MB and 30 ms, and most providers sign with a
shared secret, so it is imported when a source first needs it.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# What remains of a secret that was truncated.
_BARE_PREFIXES: Final = ("v1", "v1,", "v1a", "v1a,", "whsec_", "v1,whsec_", "whpk_", "ws_", "polar_whs_")
_URL_SAFE: Final = str.maketrans("-_", "+/")
_NAMED_PREFIX: Final = re.compile(r"[A-Za-z]+_")


def symmetric(form: str, secret: str) -> bytes:
    """The key in a secret. Raises ValueError with a sentence if there is none in this form."""
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
    """Strict hex in any case; unlike bytes.fromhex, it allows no spaces."""
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
    """`whsec_<base64>`, also `v1,whsec_…` (Supabase) and other prefixes (Loops); anything else is used as it is."""
    text = text.removeprefix("v1,").removeprefix("whsec_")
    for candidate in (text, _NAMED_PREFIX.sub("", text, count=1)):
        if "_" not in candidate:
            try:
                return from_base64(candidate)
            except ValueError:
                continue
    return text.encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------------------------------------------- public keys

PUBLIC_TYPES: Final = ("ed25519", "ecdsa-sha256", "rsa-sha256", "rsa-sha1")


def public_key_verifier(kind: str, form: str, secret: str) -> Callable[[bytes, bytes], bool]:
    """A function (signature, message) → valid? Raises ValueError with a sentence if the public key is unusable."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415 - see above
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - see above
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa  # noqa: PLC0415 - see above
    except ImportError as error:
        raise ValueError(
            f"{kind} needs the package `cryptography`, which does not load ({error}): install requirements.txt again"
        ) from error
    of_kind: dict[str, tuple[type, tuple[Any, ...]]] = {
        "ed25519": (ed25519.Ed25519PublicKey, ()),
        "ecdsa-sha256": (ec.EllipticCurvePublicKey, (ec.ECDSA(hashes.SHA256()),)),
        "rsa-sha256": (rsa.RSAPublicKey, (padding.PKCS1v15(), hashes.SHA256())),
        "rsa-sha1": (rsa.RSAPublicKey, (padding.PKCS1v15(), hashes.SHA1())),  # noqa: S303 - Paddle Classic signs with it
    }
    key_type, arguments = of_kind[kind]
    try:
        loaded = _read(kind, form, secret.strip())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        loaded = None
    if not isinstance(loaded, key_type):
        raise ValueError(f"the public key cannot be read as {form} for {kind}")  # noqa: TRY004 - the value is wrong
    key: Any = loaded

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message, *arguments)
        except (InvalidSignature, ValueError):
            return False
        return True

    return verify


def _read(kind: str, form: str, secret: str) -> Any:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - see above

    if form == "pem":
        # Environment variables often hold the line breaks of a PEM as two characters.
        return serialization.load_pem_public_key(secret.replace("\\n", "\n").encode())
    if form == "der":
        return serialization.load_der_public_key(from_base64(secret))
    raw = from_hex(secret) if form == "hex" else from_base64(secret.removeprefix("whpk_"))
    return ed25519.Ed25519PublicKey.from_public_bytes(raw) if kind == "ed25519" else None
