"""What subscriptions cost per month, and which prices they have: preset values that no template can express.

    stripe.prices          the ids of all prices, as a set: the order of a subscription's items is irrelevant
    stripe.monthly         the monthly sum of unit amount times quantity over all items, in whole units of the currency
    stripe.monthly_before  the same for the items before the change, with the current quantities: seats never matter

`paddle.…`, `polar.…`, `dodo.…`, `chargebee.…` and `creem.…` are the same for other providers, whose subscriptions are
first converted to Stripe's form. Computed in fractions and rounded once, at the end. A sum is missing if an item has no
fixed price of its own: metered, tiered, transformed (`transform_quantity`), in another currency, or when not all items
are in the event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from bridge.model import MISSING, Document, Json
from bridge.rules.language.values import Value, decimals, major, number, was

if TYPE_CHECKING:
    from bridge.rules.language.filters import Scope

    Item = Mapping[str, Any]
    Reader = Callable[[Document], Item]
    Builtin = Callable[[Scope], Value]

PER_MONTH: Final = {
    "day": Fraction(365, 12),
    "week": Fraction(52, 12),
    "month": Fraction(1),
    "year": Fraction(1, 12),
}
_CREEM: Final = {  # its terms for an interval
    "every-day": ("day", 1),
    "every-month": ("month", 1),
    "every-three-months": ("month", 3),
    "every-six-months": ("month", 6),
    "every-year": ("year", 1),
}
_ALWAYS_WHOLE: Final = ("ISK", "UGX")  # Stripe gives them two decimals that are always 00
_ITEMS_MAX: Final = 100  # Stripe allows 20; without a limit, a hostile body could make the fractions grow endlessly
_INTERVALS_MAX: Final = 1_095  # three years of days, Stripe's own limit


def _prices(read: Reader) -> Builtin:
    """The distinct price ids of all items of a subscription, or of all lines of an invoice, sorted."""

    def prices(scope: Scope) -> Value:
        found = {identifier for item in _items(read(scope.document)) if (identifier := _price_id(item))}
        return sorted(found) or MISSING

    return prices


def _monthly(read: Reader) -> Builtin:
    """What the items cost per month."""

    def monthly(scope: Scope) -> Value:
        now = read(scope.document)
        return _total(now, [_quantity(item) for item in _items(now)], _currency(now), scope)

    return monthly


def _monthly_before(scope: Scope) -> Value:
    """What the items from before the change would cost per month in the current quantities."""
    then = _object(was(scope.document))
    if len(_items(then)) > _ITEMS_MAX:
        return MISSING
    now = _object(scope.document)
    return _total(then, _current_quantities(then, now), _currency(now), scope)


# ------------------------------------------------------------------------------------------------- subscriptions


def _object(document: Document) -> Item:
    data = _map(document.body).get("data")
    return _map(_map(data).get("object"))


def _map(value: Json) -> Item:
    return value if isinstance(value, dict) else {}


def _maps(value: Json) -> list[Item]:
    return [_map(item) for item in value] if isinstance(value, list) else []


def _paddle(document: Document) -> Item:
    """A subscription or transaction from Paddle. A price with different amounts for some countries is not fixed."""
    data = _map(_map(document.body).get("data"))
    return _subscription(data.get("currency_code"), [_paddle_item(item) for item in _maps(data.get("items"))])


def _paddle_item(item: Item) -> Item:
    price = _map(item.get("price"))
    cycle, unit = _map(price.get("billing_cycle")), _map(price.get("unit_price"))
    stated = {
        "id": price.get("id"),
        "unit_amount": unit.get("amount"),
        "currency": unit.get("currency_code"),
        "recurring": {"interval": cycle.get("interval"), "interval_count": cycle.get("frequency")},
        "billing_scheme": "tiered" if price.get("unit_price_overrides") else None,
    }
    return {"price": stated, "quantity": item.get("quantity")}


def _polar(document: Document) -> Item:
    """A subscription from Polar: its amount covers all seats and prices, and is unknown with usage-based prices."""
    data = _map(_map(document.body).get("data"))
    metered = any(str(price.get("amount_type")).startswith("metered") for price in _maps(data.get("prices")))
    interval, count = data.get("recurring_interval"), data.get("recurring_interval_count")
    return _subscription(data.get("currency"), [_single_item(data.get("amount"), interval, count, metered=metered)])


def _dodo(document: Document) -> Item:
    """A subscription from Dodo Payments: a charge's total, and unknown if on demand or usage-based."""
    data = _map(_map(document.body).get("data"))
    metered = bool(data.get("on_demand") or data.get("meters"))
    interval, count = str(data.get("payment_frequency_interval")).lower(), data.get("payment_frequency_count")
    amount = data.get("recurring_pre_tax_amount")
    return _subscription(data.get("currency"), [_single_item(amount, interval, count, metered=metered)])


def _chargebee(document: Document) -> Item:
    """A subscription from Chargebee, in either catalogue. It does not state the billing period of an addon's price."""
    stated = _map(_map(_map(document.body).get("content")).get("subscription"))
    items = [item for item in _maps(stated.get("subscription_items")) if item.get("item_type") != "charge"]  # paid once
    if not items:
        items = [{"unit_price": stated.get("plan_unit_price"), "quantity": stated.get("plan_quantity")}]
    unknown = [stated.get(key) for key in ("addons", "item_tiers")]
    unknown += [item.get(key) for item in items for key in ("free_quantity", "metered_quantity")]
    metered = len(items) > 1 or any(unknown)
    interval, count = stated.get("billing_period_unit"), stated.get("billing_period")
    price = _single_item(items[0].get("unit_price"), interval, count, metered=metered)
    return _subscription(stated.get("currency_code"), [{**price, "quantity": items[0].get("quantity")}])


def _creem(document: Document) -> Item:
    """A subscription from Creem: the price of its product, for each of its units."""
    stated = _map(_map(document.body).get("object"))
    product, items = _map(stated.get("product")), _maps(stated.get("items"))
    interval, count = _CREEM.get(str(product.get("billing_period")), (None, 1))
    price = _single_item(product.get("price"), interval, count, metered=len(items) > 1)
    return _subscription(product.get("currency"), [{**price, "quantity": items[0].get("units") if items else 1}])


def _single_item(amount: Json, interval: Json, count: Json, *, metered: bool) -> Item:
    """A single item that stands for the whole subscription."""
    recurring = {"interval": interval, "interval_count": count}
    return {"price": {"unit_amount": amount, "recurring": recurring, "usage_type": "metered" if metered else None}}


def _subscription(currency: Json, items: list[Item]) -> Item:
    return {"currency": currency, "items": {"data": items}}


def _items(subscription: Item) -> list[Item]:
    """The items. Before 2018 a subscription had one plan and no items; an invoice has lines."""
    for key in ("items", "lines"):
        if listed := _maps(_map(subscription.get(key)).get("data")):
            return listed
    if subscription.get("plan"):
        return [{"plan": subscription["plan"], "quantity": subscription.get("quantity")}]
    return []


def _is_whole(subscription: Item) -> bool:
    return not _map(subscription.get("items")).get("has_more")


def _price(item: Item) -> Item:
    return _map(item.get("price")) or _map(item.get("plan"))


def _price_id(item: Item) -> str | None:
    """The id of an item's price, expanded or not, in any version of the API."""
    details = _map(_map(item.get("pricing")).get("price_details"))
    for price in (item.get("price"), details.get("price"), item.get("plan")):
        identifier = price.get("id") if isinstance(price, dict) else price
        if isinstance(identifier, str) and identifier:
            return identifier
    return None


def _quantity(item: Item) -> Fraction | None:
    stated = item.get("quantity")
    exact = number(1 if stated is None else stated)
    return None if exact is None else Fraction(exact)


def _currency(subscription: Item) -> str | None:
    """The subscription's own currency, or (before 2022) that of its first price."""
    items = _items(subscription)
    stated = subscription.get("currency") or (_price(items[0]).get("currency") if items else None)
    return stated if isinstance(stated, str) else None


def _current_quantities(then: Item, now: Item) -> list[Fraction | None]:
    """The current quantity of each item from before the change.

    Items are matched by id, else by price, else by product. The rest were replaced: each gets the quantity of the
    replacements if these all have the same one; an item that was removed keeps its own.
    """
    left = list(_items(now)[:_ITEMS_MAX])
    found: dict[int, Fraction | None] = {}
    items = _items(then)
    for identity in (_item_id, _price_id, _product_id):
        for position, item in enumerate(items):
            same = identity(item)
            match = next((other for other in left if same and identity(other) == same), None)
            if position not in found and match is not None:
                found[position] = _quantity(match)
                left.remove(match)
    others = {_quantity(item) for item in left}
    replaced = others.pop() if len(others) == 1 else None
    return [
        found[position] if position in found else _quantity(item) if replaced is None else replaced
        for position, item in enumerate(items)
    ]


def _item_id(item: Item) -> str | None:
    identifier = item.get("id")
    return identifier if isinstance(identifier, str) else None


def _product_id(item: Item) -> str | None:
    product = _price(item).get("product")
    identifier = product.get("id") if isinstance(product, dict) else product
    return identifier if isinstance(identifier, str) else None


# --------------------------------------------------------------------------------------------------------- money


def _total(subscription: Item, quantities: list[Fraction | None], currency: str | None, scope: Scope) -> Value:
    """The monthly cost of all items, a decimal in whole units; MISSING if one has no fixed price."""
    items = _items(subscription)
    if currency is None or not items or len(items) > _ITEMS_MAX or not _is_whole(subscription):
        return MISSING
    total = Fraction(0)
    for item, quantity in zip(items, quantities, strict=True):
        cost = _cost(item, currency)
        if cost is None or quantity is None:
            return MISSING
        total += cost * quantity
    places = scope.own_decimals.get(currency.strip().upper(), decimals(currency))
    step = 100 if currency.strip().upper() in _ALWAYS_WHOLE else 1
    return MISSING if places is None else major(Decimal(step * _rounded(total / step)), places)


def _rounded(exact: Fraction) -> int:
    """Rounded half up, as people do it."""
    return (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)


def _cost(item: Item, currency: str) -> Fraction | None:
    """One unit of an item per month, in minor units; None if it has no fixed price in this currency."""
    price = _price(item)
    amount = _amount(price)
    if amount is None or not _is_fixed(item) or str(price.get("currency") or currency).upper() != currency.upper():
        return None
    recurring = _recurring(item)
    period = PER_MONTH.get(str(recurring.get("interval")))
    intervals = recurring.get("interval_count")
    intervals = 1 if intervals is None else intervals
    if period is None or not isinstance(intervals, int) or not 1 <= intervals <= _INTERVALS_MAX:
        return None
    return Fraction(amount) * period / intervals


def _is_fixed(item: Item) -> bool:
    """Whether the price is neither usage-based nor tiered, and its quantity not transformed."""
    for stated in (_map(item.get("price")), _map(item.get("plan")), _recurring(item)):
        if stated.get("usage_type") == "metered" or stated.get("billing_scheme") == "tiered":
            return False
        if any(stated.get(key) for key in ("tiers", "tiers_mode", "transform_quantity", "transform_usage", "meter")):
            return False
    return True


def _recurring(item: Item) -> Item:
    """The object with the interval: the price, or (before prices existed, and long next to them) the plan."""
    return _map(_map(item.get("price")).get("recurring")) or _map(item.get("plan"))


def _amount(price: Item) -> Decimal | None:
    """The amount in minor units: the whole number if there is one, else the decimal with fractions of a cent."""
    whole = number(price.get("unit_amount", price.get("amount")))
    exact = number(price.get("unit_amount_decimal", price.get("amount_decimal")))
    return whole if exact is None or (whole is not None and exact == exact.to_integral_value()) else exact


# ------------------------------------------------------------------------------------------------------ builtins

BUILTINS: Final[Mapping[str, Builtin]] = {
    "stripe.prices": _prices(_object),
    "stripe.monthly": _monthly(_object),
    "stripe.monthly_before": _monthly_before,
    "paddle.prices": _prices(_paddle),
    "paddle.monthly": _monthly(_paddle),
    "polar.monthly": _monthly(_polar),
    "dodo.monthly": _monthly(_dodo),
    "chargebee.monthly": _monthly(_chargebee),
    "creem.monthly": _monthly(_creem),
}
