"""Signatures by a public key: Ed25519, ECDSA, RSA. Needs the package `cryptography`, imported only when used.

It costs 8 MB and 30 ms, and most providers sign with a shared secret: it is the optional extra `asymmetric`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from bridge.sources.keys import from_base64, from_hex

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES: Final = ("ed25519", "ecdsa-sha256", "rsa-sha256", "rsa-sha1")

HOW_TO_GET: Final = (
    "needs the package `cryptography`: install the bridge with its extra, `pip install 'datafast-bridge[asymmetric]'`,"
    " or add `cryptography` to requirements.txt"
)


def available() -> bool:
    return find_spec("cryptography") is not None


def verifier(kind: str, form: str, secret: str) -> Callable[[bytes, bytes], bool]:
    """(signature, message) → whether the public key made it. ValueError with a sentence for a key that is none."""
    if not available():
        raise ValueError(f"{kind} {HOW_TO_GET}")
    key = _load(kind, form, secret.strip())
    arguments = _arguments(kind)

    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - optional

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message, *arguments)
        except (InvalidSignature, ValueError):
            return False
        return True

    return verify


def _arguments(kind: str) -> tuple[Any, ...]:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - optional
    from cryptography.hazmat.primitives.asymmetric import ec, padding  # noqa: PLC0415 - optional

    return {
        "ed25519": (),
        "ecdsa-sha256": (ec.ECDSA(hashes.SHA256()),),
        "rsa-sha256": (padding.PKCS1v15(), hashes.SHA256()),
        "rsa-sha1": (padding.PKCS1v15(), hashes.SHA1()),  # noqa: S303 - what Paddle Classic signs with
    }[kind]


def _load(kind: str, form: str, secret: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - optional
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415 - optional

    wanted = {"ed25519": ed25519.Ed25519PublicKey, "ecdsa-sha256": ec.EllipticCurvePublicKey}
    try:
        key = _read(kind, form, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, wanted.get(kind, rsa.RSAPublicKey)):
        raise ValueError(f"the public key cannot be read as {form} for {kind}")  # noqa: TRY004 - a value as any other
    return key


def _read(kind: str, form: str, secret: str) -> Any:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - optional
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - optional

    if form == "pem":
        # Environment variables often hold the line breaks of a PEM as two characters.
        return serialization.load_pem_public_key(secret.replace("\\n", "\n").encode())
    if form == "der":
        return serialization.load_der_public_key(from_base64(secret))
    return ed25519.Ed25519PublicKey.from_public_bytes(_raw(form, secret)) if kind == "ed25519" else None


def _raw(form: str, secret: str) -> bytes:
    if form == "hex":
        return from_hex(secret)
    return from_base64(secret.removeprefix("whpk_"))
