"""The table of values in docs/rules.md: what the presets of shipped files name, in which events, and in which unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bridge.presets import presets
from bridge.rules.reading.folder import provider_of, shipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MONEY: Final = "whole units of `currency`"
UNITS: Final = {  # of a value by its name, and what it is where the preset says nothing else
    "amount": (MONEY, "the amount of this transaction, tax included"),
    "amount_usd": ("US dollars", "the amount in US dollars, for comparing currencies"),
    "charged": (MONEY, "what the buyer had paid"),
    "country": ("two-letter code", "the country in the buyer's address"),
    "currency": ("three-letter code", "the currency of all amounts"),
    "discount": (MONEY, "the discount, if there was one"),
    "email": ("e-mail address", "the person's e-mail address; no shipped rule sends it"),
    "form": ("string", "the name of the form"),
    "interval": ("the provider's word", "the billing period: month, year and so on"),
    "kind": ("string", "what kind of payment it is"),
    "method": ("string", "how the person signed up"),
    "minutes": ("number", "how long the booking is"),
    "monthly": (f"{MONEY}, per month", "what all prices together cost per month"),
    "monthly_before": (f"{MONEY}, per month", "the same with the prices before the change and the new quantities"),
    "plan": ("string", "the name of what was bought"),
    "price": ("string", "the first price by its nickname, else its lookup key, else its id"),
    "prices": ("ids", "the ids of the prices"),
    "product": ("string", "the name of the product"),
    "reason": ("word", "the reason, in the provider's words"),
    "refunded_total": (MONEY, "the sum of all refunds so far, tax included"),
    "repository": ("string", "the repository"),
    "seats": ("number", "the sum of the quantities of all items"),
    "status": ("word", "the status, in the provider's words"),
    "store": ("word", "the app store"),
    "tier": ("string", "the name of the tier"),
    "transaction": ("id", "an id that all events about one payment share"),
    "type": ("string", "the kind of booking"),
    "variant": ("string", "the name of the variant"),
}
_HEAD: Final = "| preset | value | events | meaning | unit |\n|---|---|---|---|---|\n"


def providers() -> list[str]:
    """The presets of the shipped files, each once, in the order of the presets."""
    used = {provider_of(text) for text in shipped().values()}
    return [name for name in presets() if name in used]


def table() -> str:
    """One row per value, or per meaning of it, which then depends on the type of the event."""
    return _HEAD + "".join(row for name in providers() for row in _rows(name, presets()[name].get("values", {})))


def _rows(preset: str, values: Mapping[str, Any]) -> Iterator[str]:
    for name, written in values.items():
        unit, meaning = UNITS.get(name, ("", ""))
        meanings: dict[str, list[str]] = {}
        for entry in written if isinstance(written, list) else [written]:
            fields = entry if isinstance(entry, dict) else {}
            meanings.setdefault(fields.get("means", meaning), []).extend(_globs(fields.get("event", "*")))
        for means, globs in meanings.items():
            everything = "all others" if len(meanings) > 1 else "all"
            events = everything if "*" in globs else ", ".join(f"`{glob}`" for glob in globs)
            if unit:  # a value without a unit is a step to another value, or the name of the provider
                yield f"| `{preset}` | `{name}` | {events} | {means} | {unit} |\n"


def _globs(written: str | list[str]) -> list[str]:
    return [written] if isinstance(written, str) else written
