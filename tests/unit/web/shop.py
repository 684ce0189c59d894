"""A small composition of real parts: a real store, inbox, counters and verifier; only the source is written here."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.errors import UnknownSource
from bridge.model import Destination, EnvelopeSpec, Place, SignatureSpec, Source, VerifySpec
from bridge.rules.language.paths import compile_path
from bridge.store.inbox.counters import Refusals
from bridge.store.inbox.first_messages import FirstMessages
from bridge.store.inbox.group_commit import Inbox

if TYPE_CHECKING:
    from conftest import Clock

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
        secret_error=None if secrets else "SHOP_WEBHOOK_SECRET is not set",
        envelope=EnvelopeSpec(type=(compile_path("type"),), id=(compile_path("id"),)),
    )


@dataclass(frozen=True)
class Rules:
    """As much of a rule set as the web looks at."""

    sources: dict[str, Source]
    hash: str = "hash"
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass
class SmallBridge:
    store: Store
    settings: Settings
    clock: Clock
    sources: dict[str, Source] = field(default_factory=lambda: {"shop": shop(), "off": shop(())})
    rules_fault: str | None = None

    woken = 0

    def __post_init__(self):
        self.rules = Rules(self.sources)
        self.inbox = Inbox(self.store)
        self.counters = Refusals()
        self.first_messages = FirstMessages()

    def source(self, name: str) -> Source:
        try:
            return self.sources[name]
        except KeyError:
            raise UnknownSource(name) from None

    def now_s(self) -> float:
        return NOW_S

    def destinations(self) -> dict[str, Destination]:
        return {"default": Destination("default", "df_hidden")}

    def wake(self) -> None:
        self.woken += 1


def sale(**fields: object) -> bytes:
    return json.dumps({"type": "sale", "id": "evt_1", **fields}).encode()


def signed(data: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Signature": hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()}
