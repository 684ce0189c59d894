"""The keys that a Stripe object names, in every API version since 2014, and the visitors in its invoice lines.

The table is by object, not by event type: Stripe sends the same object with many types. An id may be a string or the
expanded object, which is read as well, because it names further keys. Anything may be `null`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bridge.model import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.model import Json

VISITOR_KEY: Final = "datafast_visitor_id"
_DEPTH: Final = 3  # of expanded objects
_LINES: Final = 50


def _fields(written: str) -> tuple[tuple[str, str], ...]:
    """`id:session customer` → ((field, the kind of key that it names), …); most fields are named like their kind."""
    pairs = (word.partition(":") for word in written.split())
    return tuple((field, kind or field) for field, _, kind in pairs)


# object → its fields that name a key, with the key's kind
_LOOSE: Final = _fields("subscription payment_intent charge invoice customer")
_OWNER: Final = " customer customer_account:customer"
_FIELDS: Final = {
    "checkout.session": _fields("id:session subscription payment_intent invoice setup_intent" + _OWNER),
    "payment_intent": _fields("id:payment_intent latest_charge:charge invoice" + _OWNER),
    "charge": _fields("id:charge payment_intent invoice customer"),
    "subscription": _fields("id:subscription latest_invoice:invoice pending_setup_intent:setup_intent" + _OWNER),
    "invoice": _fields("id:invoice payment_intent charge quote" + _OWNER),
    "subscription_schedule": _fields("subscription released_subscription:subscription customer"),
    "setup_intent": _fields("id:setup_intent" + _OWNER),
    "quote": _fields("id:quote subscription invoice customer"),
    "customer": _fields("id:customer"),
    "discount": _fields("checkout_session:session subscription customer"),
    "product": (),
    "price": (),
    "plan": (),
}
# (kind, path) of the preset's `links:` that the table finds as well, so they are not read again.
COVERED: Final = frozenset(
    {(kind, f"data.object.{field}") for fields in (*_FIELDS.values(), _LOOSE) for field, kind in fields}
    | {
        ("subscription", "data.object.parent.subscription_details.subscription"),
        ("payment_intent", "data.object.payment.payment_intent"),
    }
)
# For an object that does not state its name: the name by event type.
_BY_TYPE: Final = (
    ("checkout.session.", "checkout.session"),
    ("payment_intent.", "payment_intent"),
    ("charge.dispute.", "dispute"),
    ("charge.refund.", "refund"),
    ("charge.", "charge"),
    ("customer.subscription.", "subscription"),
    ("invoice.", "invoice"),
    ("setup_intent.", "setup_intent"),
    ("quote.", "quote"),
)
_CUSTOMER_TYPES: Final = frozenset({"customer.created", "customer.updated", "customer.deleted"})


# What each object names in the current API version, by event type prefix: shows which types tie keys together.
_TIES: Final = (
    ("charge.dispute.", ()),
    ("charge.refund.", ()),
    ("charge.", ("charge", "payment_intent", "customer")),
    ("payment_intent.", ("charge", "payment_intent", "customer")),
    ("checkout.session.", ("session", "subscription", "payment_intent", "invoice", "setup_intent", "customer")),
    ("customer.subscription.", ("subscription", "invoice", "setup_intent", "customer")),
    ("invoice.", ("invoice", "subscription", "customer")),
    ("invoice_payment.", ("invoice", "payment_intent")),
    ("setup_intent.", ("setup_intent", "customer")),
    ("quote.", ("quote", "subscription", "invoice", "customer")),
)
_KIND: Final = re.compile(r"[a-z]{2,}(?:_[a-z]+)?_[A-Za-z0-9]+")


def names_its_kind(identifier: str) -> bool:
    """Whether an id shows its own kind, as `sub_1` does."""
    return _KIND.fullmatch(identifier) is not None


def ties(event_type: str) -> tuple[str, ...]:
    """The kinds of keys that events of this type tie together."""
    return next((kinds for prefix, kinds in _TIES if event_type.startswith(prefix)), ())


def keys(event_type: str, body: Json) -> Iterator[tuple[str, Json]]:
    """(kind, id) of everything that the event names, the strongest first. An id may be any JSON value."""
    stripe_object = _field(_field(body, "data"), "object")
    if isinstance(stripe_object, dict):
        yield from _keys_in(stripe_object, _object_name(event_type, stripe_object), _DEPTH)


def candidates(body: Json) -> tuple[Candidate, ...]:
    """Visitors in the metadata of an invoice's lines, where subscription metadata arrives in every version."""
    stripe_object = _field(_field(body, "data"), "object")
    found = []
    for position, line in enumerate(_list_elements(_field(stripe_object, "lines"))):
        value = _field(_field(line, "metadata"), VISITOR_KEY)
        if value is not None:
            found.append(Candidate(f"data.object.lines.data[{position}].metadata.{VISITOR_KEY}", value))
    return tuple(found)


def _object_name(event_type: str, stripe_object: dict[str, Json]) -> str:
    name = stripe_object.get("object")
    if isinstance(name, str) and name:
        return name
    if event_type in _CUSTOMER_TYPES:
        return "customer"
    return next((name for prefix, name in _BY_TYPE if event_type.startswith(prefix)), "")


def _keys_in(stripe_object: dict[str, Json], name: str, depth: int) -> Iterator[tuple[str, Json]]:
    if depth == 0:
        return
    for field, kind in _FIELDS.get(name, _LOOSE):
        value = stripe_object.get(field)
        if value is not None:
            yield from _named(value, kind, depth)
    if name == "invoice":
        for value in _subscriptions(stripe_object):
            yield from _named(value, "subscription", depth)
        for payment in _list_elements(stripe_object.get("payments")):
            yield from _payment_keys(_field(payment, "payment"), depth)
    elif name == "invoice_payment":
        yield from _payment_keys(stripe_object.get("payment"), depth)
    elif name == "payment_intent":
        for charge in _list_elements(stripe_object.get("charges")):  # before 2022-11-15
            yield from _named(charge, "charge", depth)


def _named(value: Json, kind: str, depth: int) -> Iterator[tuple[str, Json]]:
    """(kind, id) of an id, or of an expanded object and the keys that it names."""
    if not isinstance(value, dict):
        yield kind, value
        return
    yield kind, value.get("id")
    name = value.get("object")
    if isinstance(name, str) and name in _FIELDS:
        yield from _keys_in(value, name, depth - 1)


def _payment_keys(payment: Json, depth: int) -> Iterator[tuple[str, Json]]:
    for kind in ("payment_intent", "charge"):
        yield from _named(_field(payment, kind), kind, depth)


def _subscriptions(invoice: dict[str, Json]) -> tuple[Json, ...]:
    """The subscription of an invoice, wherever its API version keeps it; if none, those of all its lines."""
    stated = (
        _field(_field(invoice.get("parent"), "subscription_details"), "subscription"),
        invoice.get("subscription"),
        _field(invoice.get("subscription_details"), "subscription"),
    )
    for value in stated:
        if value:
            return (value,)
    return tuple(value for line in _list_elements(invoice.get("lines")) if (value := _line_subscription(line)))


def _line_subscription(line: Json) -> Json:
    parent = _field(line, "parent")
    for value in (
        _field(_field(parent, "subscription_item_details"), "subscription"),
        _field(line, "subscription"),
        _field(_field(parent, "invoice_item_details"), "subscription"),
    ):
        if value:
            return value
    line_id = _field(line, "id")  # old versions: the line's id is the subscription's
    return line_id if isinstance(line_id, str) and line_id.startswith("sub_") else None


def _field(value: Json, name: str) -> Json:
    return value.get(name) if isinstance(value, dict) else None


def _list_elements(value: Json) -> list[Json]:
    """The elements of a Stripe list object (or a plain list)."""
    data = _field(value, "data") if isinstance(value, dict) else value
    return data[:_LINES] if isinstance(data, list) else []
