"""Signatures by a public key: Ed25519, ECDSA, RSA, by the package `cryptography`.

It costs 8 MB and 30 ms, and most providers sign with a shared secret: it is imported when a source first needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bridge.sources.keys import from_base64, from_hex

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES: Final = ("ed25519", "ecdsa-sha256", "rsa-sha256", "rsa-sha1")


def verifier(kind: str, form: str, secret: str) -> Callable[[bytes, bytes], bool]:
    """(signature, message) → whether the public key made it. ValueError with a sentence for a key that is none."""
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see above
    except ImportError as error:
        raise ValueError(
            f"{kind} needs the package `cryptography`, which does not load ({error}): install requirements.txt again"
        ) from error
    key = _load(kind, form, secret.strip())
    arguments = _arguments(kind)

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message, *arguments)
        except (InvalidSignature, ValueError):
            return False
        return True

    return verify


def _arguments(kind: str) -> tuple[Any, ...]:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric import ec, padding  # noqa: PLC0415 - see above

    return {
        "ed25519": (),
        "ecdsa-sha256": (ec.ECDSA(hashes.SHA256()),),
        "rsa-sha256": (padding.PKCS1v15(), hashes.SHA256()),
        "rsa-sha1": (padding.PKCS1v15(), hashes.SHA1()),  # noqa: S303 - what Paddle Classic signs with
    }[kind]


def _load(kind: str, form: str, secret: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415 - see above

    wanted = {"ed25519": ed25519.Ed25519PublicKey, "ecdsa-sha256": ec.EllipticCurvePublicKey}
    try:
        key = _read(kind, form, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, wanted.get(kind, rsa.RSAPublicKey)):
        raise ValueError(f"the public key cannot be read as {form} for {kind}")  # noqa: TRY004 - a value as any other
    return key


def _read(kind: str, form: str, secret: str) -> Any:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - see above

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
