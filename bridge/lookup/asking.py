"""The questions to ask Stripe about a parked goal, and what the answers teach. Pure: it does not use the SDK.

DataFast's own guide puts the visitor on the metadata of the Checkout session; others put it on the subscription or the
payment intent. So the questions lead from the keys of an event to these objects, the likeliest first, and never ask
for an object that came with the event. Each answer may name new keys, which lead on.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from bridge import identity
from bridge.identity.choice import Observation
from bridge.identity.sentences import LOOKED_UP
from bridge.model import Document, Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bridge.model import Json, Key, Source
    from bridge.store.links.lookups import GoalToLookUp

QUESTIONS_PER_GOAL: Final = 8
_PER_KIND_MAX: Final = 2  # how many subscriptions, payment intents and so on are followed
_SESSIONS_MAX: Final = 5  # a purchase has one, rarely two
_CUSTOMER_SESSIONS_MAX: Final = 20

# What a restricted key must be allowed to read: Stripe's name of the permission, and the Dashboard's.
PERMISSIONS: Final = {
    "checkout_session": "Checkout Sessions",
    "subscription": "Subscriptions",
    "invoice": "Invoices",
    "charge": "Charges and Refunds",
    "payment_intent": "PaymentIntents",
}
# Where the objects of a permission are listed.
LISTS: Final = {
    "checkout_session": "/v1/checkout/sessions",
    "subscription": "/v1/subscriptions",
    "invoice": "/v1/invoices",
    "charge": "/v1/charges",
    "payment_intent": "/v1/payment_intents",
}
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")  # an id goes into a path
_DISPLAY_NAMES: Final = {"checkout.session": "checkout session", "invoice_payment": "invoice payment"}
# The event type that each object is read as, so that the mapping file's own links apply to it.
_EVENT_TYPES: Final = {
    "checkout.session": "checkout.session.completed",
    "subscription": "customer.subscription.updated",
    "invoice": "invoice.paid",
    "invoice_payment": "invoice_payment.paid",
    "charge": "charge.succeeded",
    "payment_intent": "payment_intent.succeeded",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One request to Stripe. target: `sessions` of a thing, the `object` itself, or the `invoices` of a payment."""

    key: Key
    target: str

    @property
    def permission(self) -> str:
        if self.target == "sessions":
            return "checkout_session"
        return "invoice" if self.target == "invoices" else self.key.kind

    @property
    def path(self) -> str:
        if self.target == "invoices":
            return "/v1/invoice_payments"
        return LISTS[self.permission] + ("" if self.target == "sessions" else f"/{self.key.id}")

    @property
    def params(self) -> Mapping[str, Any]:
        if self.target == "invoices":
            payment = {"type": "payment_intent", "payment_intent": self.key.id}
            return {"payment": payment, "expand": ["data.invoice"], "limit": _SESSIONS_MAX}
        if self.target == "object":
            return {}
        if self.key.kind == "customer":
            return {"customer": self.key.id, "status": "complete", "limit": _CUSTOMER_SESSIONS_MAX}
        return {self.key.kind: self.key.id, "limit": _SESSIONS_MAX}


class AnswerKind(StrEnum):
    """The classes of Stripe's answers, by what they stop."""

    FOUND = "found"  # objects, or an empty list of them
    MISSING = "missing"  # no such object (of this account, in this mode)
    REFUSED = "refused"  # this question is wrong
    PERMISSION = "permission"  # questions about this kind of thing
    ACCOUNT = "account"  # questions about this connected account
    KEY = "key"  # all questions, until the key is fixed
    RATE = "rate"  # all questions, for a while
    UNREACHABLE = "unreachable"  # likewise


@dataclass(frozen=True, slots=True)
class StripeAnswer:
    """The result of a question. message: our own sentence for people (Stripe's would quote the key and ids)."""

    kind: AnswerKind
    objects: tuple[Mapping[str, Json], ...] = field(default=(), repr=False)
    message: str = ""
    retry_after_ms: int | None = None


def questions(own: Sequence[Key], thread: Sequence[Key], event_type: str) -> tuple[Question, ...]:
    """What may lead to the visitor, the likeliest first.

    own: the keys of the goal's events; thread: other keys of the same purchase, the newest first.
    """
    kinds = {key.kind for key in (*own, *thread)}
    subscriptions, payments = _first_keys("subscription", own, thread), _first_keys("payment_intent", own, thread)
    asked: list[Question] = []
    if "session" not in kinds:
        asked += (Question(key, "sessions") for key in subscriptions or payments)
    if not event_type.startswith("customer.subscription."):
        asked += (Question(key, "object") for key in subscriptions)
    carries_charge = event_type.startswith("charge.") and not event_type.startswith(
        ("charge.dispute.", "charge.refund.")
    )
    if not payments and not carries_charge:
        asked += (Question(key, "object") for key in _first_keys("charge", own))
    if not subscriptions and not event_type.startswith("invoice."):
        asked += (Question(key, "object") for key in _first_keys("invoice", own, thread))
    if not kinds & {"session", "subscription", "invoice"}:
        asked += (Question(key, "invoices") for key in payments)
    if not carries_charge and not event_type.startswith("payment_intent."):
        asked += (Question(key, "object") for key in payments)
    asked += (Question(key, "sessions") for key in _first_keys("customer", own))
    return tuple(asked[:QUESTIONS_PER_GOAL])


def _first_keys(kind: str, *places: Iterable[Key]) -> list[Key]:
    """The keys of a kind from the first place that has some."""
    for keys in places:
        if found := [key for key in keys if key.kind == kind and _SAFE_ID.fullmatch(key.id)]:
            return found[:_PER_KIND_MAX]
    return []


def observations(
    source: Source, objects: Iterable[Mapping[str, Json]], waiting: GoalToLookUp, form: str, now_ms: int
) -> list[Observation]:
    """What Stripe's objects teach, read as if each had come with an event of its own.

    waiting: the goal for which they were looked up. Objects of the other mode teach nothing.
    """
    found = []
    for obj in _with_invoices(objects):
        if obj.get("livemode") is not None and obj["livemode"] is waiting.test:
            continue
        observation = _observation(source, obj, waiting, form, now_ms)
        if observation.keys:
            found.append(observation)
    return found


def _with_invoices(objects: Iterable[Mapping[str, Json]]) -> Iterable[Mapping[str, Json]]:
    """The invoice that an invoice payment brings along is an object like the others."""
    for obj in objects:
        yield obj
        invoice = obj.get("invoice")
        if obj.get("object") == "invoice_payment" and isinstance(invoice, dict):
            yield invoice


def _observation(source: Source, obj: Mapping[str, Json], waiting: GoalToLookUp, form: str, now_ms: int) -> Observation:
    kind, test, account = str(obj.get("object")), waiting.test, waiting.account
    envelope = Envelope(type=_EVENT_TYPES.get(kind, kind), test=test, account=account)
    body = {"type": envelope.type, "livemode": not test, "account": account, "data": {"object": obj}}
    document = Document(body, envelope={"type": envelope.type, "test": test, "account": account}, root=body)
    candidates = identity.candidates(source, document)
    named = identity.ranked(identity.judge(candidate, form) for candidate in candidates)
    return Observation(
        identity.keys(source, envelope, document),
        _created_at_ms(obj, now_ms),
        display_name(obj),
        waiting.event_id,
        _element(str(obj.get("id"))),
        named[0] if named else None,
    )


def display_name(obj: Mapping[str, Json]) -> str:
    """The name for people of the object that was looked up."""
    kind = str(obj.get("object"))
    return f"Stripe's {_DISPLAY_NAMES.get(kind, kind.replace('_', ' '))} {obj.get('id')}{LOOKED_UP}"


def _created_at_ms(obj: Mapping[str, Json], now_ms: int) -> int:
    created = obj.get("created")
    if not isinstance(created, int) or isinstance(created, bool) or not 0 < created * 1000 < now_ms:
        return now_ms
    return created * 1000


def _element(identifier: str) -> int:
    """A number for the object that no element of an event has: the same each time, and never a small one."""
    return 0x4000_0000 | (zlib.crc32(identifier.encode()) & 0x3FFF_FFFF)
