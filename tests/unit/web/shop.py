"""A small composition of real parts: a real store, inbox, counters and verifier; only the source is written here."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.errors import UnknownSource
from bridge.model import EnvelopeSpec, Place, SignatureSpec, Source, VerifySpec
from bridge.rules.paths import compile_path
from bridge.store.counters import Refusals
from bridge.store.inbox import Inbox

if TYPE_CHECKING:
    from bridge.settings import Settings
    from bridge.store import Store

SECRET = "s3cret-of-the-shop"
NOW_S = 1_790_000_000.0


def shop(secrets: tuple[str, ...] = (SECRET,)) -> Source:
    return Source(
        name="shop",
        provider="custom",
        verify=VerifySpec("hmac-sha256", signature=SignatureSpec((Place("header", "x-signature"),))),
        secrets=secrets,
        secret_names=("SHOP_WEBHOOK_SECRET",),
        secret_fault=None if secrets else "SHOP_WEBHOOK_SECRET is not set",
        envelope=EnvelopeSpec(type=(compile_path("type"),), id=(compile_path("id"),)),
    )


@dataclass
class SmallBridge:
    store: Store
    settings: Settings
    sources: dict[str, Source] = field(default_factory=lambda: {"shop": shop(), "off": shop(())})
    rules_fault: str | None = None

    def __post_init__(self):
        self.inbox = Inbox(self.store)
        self.counters = Refusals()

    def source(self, name: str) -> Source:
        try:
            return self.sources[name]
        except KeyError:
            raise UnknownSource(name) from None

    def now_s(self) -> float:
        return NOW_S


def sale(**fields: object) -> bytes:
    return json.dumps({"type": "sale", "id": "evt_1", **fields}).encode()


def signed(data: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Signature": hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()}
