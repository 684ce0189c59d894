"""The table of values in docs/rules.md: what the presets of shipped files name, in which events, and in which unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bridge.presets import presets
from bridge.rules.reading.folder import provider_of, shipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MONEY: Final = "whole units of `currency`"
UNITS: Final = {  # of a value by its name, and what it is where the preset says nothing else
    "amount": (MONEY, "what went this time, tax included"),
    "amount_usd": ("US dollars", "the amount in US dollars, to compare currencies"),
    "charged": (MONEY, "what had been paid"),
    "country": ("code of two letters", "the country of the buyer's address"),
    "currency": ("code of three letters", "the currency of all amounts"),
    "discount": (MONEY, "the discount, if there was one"),
    "email": ("address", "the address of the person; no shipped rule sends it"),
    "form": ("text", "the name of the form"),
    "interval": ("the provider's word", "the period of the price: month, year and so on"),
    "kind": ("text", "what kind of payment it is"),
    "method": ("text", "how somebody signed up"),
    "minutes": ("number", "how long the booking is"),
    "monthly": (f"{MONEY}, per month", "what all prices together cost per month"),
    "monthly_before": (f"{MONEY}, per month", "the same for the prices before the change, with the new quantities"),
    "plan": ("text", "the name of what was bought"),
    "price": ("text", "the first price by its nickname, else its lookup key, else its id"),
    "prices": ("ids", "the ids of the prices"),
    "product": ("text", "the name of the product"),
    "reason": ("word", "the reason, as the provider says it"),
    "refunded_total": (MONEY, "the sum of all refunds so far, tax included"),
    "repository": ("text", "the repository"),
    "seats": ("number", "the quantities of all items together"),
    "status": ("word", "the status, as the provider says it"),
    "store": ("word", "the app store"),
    "tier": ("text", "the name of the tier"),
    "transaction": ("id", "an id that all events about one payment share"),
    "type": ("text", "the kind of booking"),
    "variant": ("text", "the name of the variant"),
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
            said = entry if isinstance(entry, dict) else {}
            meanings.setdefault(said.get("means", meaning), []).extend(_globs(said.get("event", "*")))
        for means, globs in meanings.items():
            everything = "all others" if len(meanings) > 1 else "all"
            events = everything if "*" in globs else ", ".join(f"`{glob}`" for glob in globs)
            if unit:  # what has none is a step to a value that is told, or the name of the provider
                yield f"| `{preset}` | `{name}` | {events} | {means} | {unit} |\n"


def _globs(written: str | list[str]) -> list[str]:
    return [written] if isinstance(written, str) else written
