"""Which preset is asked against which library, and what the provider does that the preset's first scheme does not say.

A row that names only the two is signed as the preset says. `signs` is for providers with more than one form: it is how
*this* row's deliveries are signed, in the grammar of `verify`, so that a wrong preset is refused by its own provider.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sources_kit import ECDSA, ED25519, NOW, URL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.model import Request

DECODED: Final = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()  # 32 bytes, as most of them make it
DISCORD: Final = ED25519.public_key().public_bytes_raw().hex()


def _der(key: ec.EllipticCurvePrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


# ----------------------------------------------------------------------------------------------------------- bodies


def document(_: int) -> bytes:
    """Bytes that change when a body is decoded, parsed or tidied up on its way to the signature."""
    return '{"type":"thing.happened",\r\n "data": {"id":"evt_1", "name":"Zoë \\u00eb 🎉"},\t"n":1.0}\n'.encode()


def form(_: int) -> bytes:
    return b"MessageSid=evt_1&Body=Zo%C3%AB+%26+co&Empty=&B=2&A=1"


def linear(stamp: int) -> bytes:
    return json.dumps({"type": "Issue", "id": "evt_1", "webhookTimestamp": stamp}).encode()


def mailgun(stamp: int) -> bytes:
    signature = {"timestamp": str(stamp), "token": "t" * 50, "signature": ""}
    return json.dumps({"signature": signature, "event-data": {"event": "opened", "id": "evt_1"}}).encode()


# --------------------------------------------------------------------------------------------------------- variants


@dataclass(frozen=True, slots=True)
class Variant:
    """A good request that a provider writes in another way, or somebody else in a wrong one."""

    name: str
    good: bool
    edit: Callable[[Request], Request]


def header(name: str, edit: Callable[[str], str]) -> Callable[[Request], Request]:
    """The request with this header rewritten."""
    return lambda sent: replace(sent, headers={**sent.headers, name: edit(sent.headers[name])})


def renamed(old: str, new: str) -> Callable[[Request], Request]:
    """The request with this piece of all header names replaced."""
    return lambda sent: replace(sent, headers={name.replace(old, new): text for name, text in sent.headers.items()})


def without(removed: str) -> Callable[[Request], Request]:
    return lambda sent: replace(sent, headers={name: text for name, text in sent.headers.items() if name != removed})


def upper_case(text: str) -> str:
    """The hex of a signature, after its prefix, in capitals."""
    prefix, mark, digits = text.rpartition("=")
    return prefix + mark + digits.upper()


_V1A: Final = "v1a," + base64.b64encode(bytes(64)).decode() + " "


def of_standard_webhooks(family: str = "webhook") -> tuple[Variant, ...]:
    signature = f"{family}-signature"
    return (
        Variant("a signature of another version beside it", good=True, edit=header(signature, _V1A.__add__)),
        Variant("only of a version that does not exist", good=False, edit=header(signature, lambda s: "v9" + s[2:])),
        Variant("no id", good=False, edit=without(f"{family}-id")),
        Variant("another id", good=False, edit=header(f"{family}-id", lambda _: "msg_2")),
    )


# ------------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True, slots=True)
class Row:
    preset: str
    library: str  # a name in python.LIBRARIES or node.libraries
    how: str = "run"  # or "family": the scheme's library, the provider names the scheme; or "assumed": it names none
    form: str = ""  # which of its forms, if the provider has several
    secret: str = "a secret, of some length: äöü"
    other: str = ""  # another secret; made from the first if it is not said
    signs: Mapping[str, Any] | None = None
    signer: str = ""  # another library that signs, where the provider's own does not
    body: Callable[[int], bytes] = document
    changed: tuple[bytes, bytes] = (b"evt_1", b"evt_2")
    unit: int = 1  # how many of its timestamps make a second
    glue: str = ""  # between the elements of the signature's header, if it is more than `split`
    family: str = ""  # the header names begin with this in place of `webhook`
    signs_url: str = ""  # the URL as the provider signs it, if it is not the one that it calls
    headers: Mapping[str, str] = field(default_factory=dict)  # that the library asks for and nobody signs
    variants: tuple[Variant, ...] = ()


def standard(preset: str, library: str, **fields: Any) -> Row:
    """A row of the Standard Webhooks family."""
    variants = (*of_standard_webhooks(fields.get("family") or "webhook"), *fields.pop("variants", ()))
    return Row(preset, library, **{"secret": DECODED, "signer": "standardwebhooks", "variants": variants, **fields})


STANDARD: Final = {
    "type": "hmac-sha256",
    "key": "whsec",
    "signature": {"in": "header:webhook-signature", "split": " ", "prefix": "v1,", "encoding": "base64"},
    "timestamp": {"in": "header:webhook-timestamp", "tolerance": 300},
    "id": "header:webhook-id",
    "signed": "{id}.{timestamp}.{body}",
}
AS_TEXT: Final = {"signs": STANDARD | {"key": "text"}, "signer": "standardwebhooks, key as text"}
CREEM: Final = {"type": "hmac-sha256", "signature": {"in": "header:creem-signature"}}
SHOPIFY: Final = {
    "x-shopify-topic": "orders/paid",
    "x-shopify-shop-domain": "one.example",
    "x-shopify-api-version": "2026-10",
    "x-shopify-webhook-id": "1",
    "x-shopify-event-id": "2",
}

ROWS: Final = (
    standard("standard-webhooks", "standardwebhooks"),
    standard("standard-webhooks", "svix", family="svix"),
    standard("svix", "svix"),
    standard("svix", "svix", form="svix-*", family="svix"),
    standard("openai", "openai"),
    standard("openai", "openai", form="no whsec_", secret="c2VjcmV0IHNlY3JldCBzZWNyZXQ=", **AS_TEXT),
    standard("clerk", "clerk", family="svix", variants=(Variant("webhook-*", True, renamed("svix-", "webhook-")),)),
    standard("resend", "resend", family="svix"),
    standard("replicate", "replicate"),
    standard("dodo", "dodo"),
    standard("polar", "polar", form="whsec_… decoded", signs=STANDARD),
    standard("polar", "polar", form="whsec_… as text", **AS_TEXT),
    standard(
        "polar", "polar", form="polar_whs_… as text", secret="polar_whs_AbCdEfGhIjKlMnOpQrStUvWxYz012345", **AS_TEXT
    ),
    standard("whop", "whop", secret="ws_" + "0123456789abcdef" * 4, **AS_TEXT),
    standard("creem", "creem", form="Standard Webhooks", signs=STANDARD),
    Row(
        "creem",
        "creem",
        form="creem-signature",
        secret=DECODED,
        signs=CREEM,
        variants=(
            Variant("x-creem-signature", good=True, edit=renamed("creem", "x-creem")),
            Variant("sha256=", good=True, edit=header("creem-signature", "sha256=".__add__)),
            Variant("upper case", good=True, edit=header("creem-signature", upper_case)),
        ),
    ),
    standard("stytch", "svix", how="family", family="svix"),
    standard("beehiiv", "svix", how="assumed", family="svix"),
    standard("loops", "standardwebhooks", how="family"),
    standard("superwall", "svix", how="family", family="svix"),
    standard("gitlab", "standardwebhooks", how="family"),
    standard("supabase-auth", "standardwebhooks", how="family", secret="v1," + DECODED, glue=", "),
    Row(
        "stripe",
        "stripe",
        secret="whsec_" + "aB3" * 10,
        variants=(
            Variant("v0 beside it", good=True, edit=header("stripe-signature", lambda s: f"{s},v0={'0' * 64}")),
            Variant("v0 alone", good=False, edit=header("stripe-signature", lambda s: s.replace("v1=", "v0="))),
            Variant("time last", good=True, edit=header("stripe-signature", lambda s: ",".join(s.split(",")[::-1]))),
        ),
    ),
    Row("paddle", "paddle", secret="pdl_ntfset_01hdd6jzmzxv3p1ddh1qkk2pyr_V0rVLvXcbZ9Pz1"),
    Row(
        "shopify",
        "shopify",
        headers=SHOPIFY,
        variants=(Variant("shopify-*", good=True, edit=renamed("x-shopify-", "shopify-")),),
    ),
    Row("coinbase-commerce", "coinbase-commerce"),
    Row("razorpay", "razorpay"),
    Row("square", "square"),
    Row(
        "mollie",
        "mollie",
        variants=(
            Variant("no sha256=", True, header("x-mollie-signature", lambda text: text.removeprefix("sha256="))),
        ),
    ),
    Row("github", "octokit"),
    Row("github", "gidgethub"),
    Row("workos", "workos", unit=1000, glue=", "),
    Row(
        "linear",
        "linear",
        unit=1000,
        body=linear,
        headers={"linear-timestamp": str(NOW * 1000)},  # fresh even where the signed one is old
    ),
    Row("linear", "linear", form="time in the header alone", unit=1000, headers={"linear-timestamp": str(NOW * 1000)}),
    Row("notion", "notion", variants=(Variant("upper case", True, header("x-notion-signature", upper_case)),)),
    Row("slack", "slack"),
    Row("hubspot-v1", "hubspot v1"),
    Row("hubspot-v2", "hubspot v2"),
    Row("hubspot-v3", "hubspot v3", unit=1000),
    Row("discord", "discord", secret=DISCORD, other=DISCORD[::-1]),
    Row("mailgun", "mailgun", body=mailgun, changed=(b"ttt", b"uuu")),
    Row("sendgrid", "sendgrid", secret=_der(ECDSA), other=_der(ec.derive_private_key(815, ec.SECP256R1()))),
    Row("twilio", "twilio", body=form),
    Row("twilio", "twilio", form="a parameter twice", body=lambda _: form(_) + b"&A=3&A=2&A=1"),
    Row("twilio", "twilio", form="signed with the port", body=form, signs_url=URL.replace(".com/", ".com:443/")),
    Row("twilio-events", "twilio"),
)
