"""The providers' objects as their API versions render them: keys and empty values, read from package data.

A file of `bridge/sandbox/shapes` holds one object in layers named for the versions that have them (`2020..acacia`).
`make` fills one in: a field that this version lacks is omitted, and one that no version has is a mistake.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bridge.sandbox.scenarios.story import Object

STRIPE: Final = {
    "2020": "2020-08-27",
    "acacia": "2024-12-18.acacia",
    "basil": "2025-08-27.basil",
    "dahlia": "2026-07-29.dahlia",
}
_ORDER: Final = tuple(STRIPE)


@cache
def _file(folder: str, name: str) -> Object:
    text = resources.files("bridge.sandbox").joinpath("shapes", folder, f"{name}.json").read_text("utf-8")
    loaded: Object = json.loads(text)
    return loaded


@cache
def _template(name: str, shape: str) -> Object:
    merged: Object = {}
    for span, layer in _file("stripe", name).items():
        first, last = span.split("..")
        if _ORDER.index(first) <= _ORDER.index(shape) <= _ORDER.index(last):
            merged |= layer
    return merged


@cache
def _known(name: str) -> frozenset[str]:
    return frozenset(key for layer in _file("stripe", name).values() for key in layer)


def stripe(name: str, shape: str, /, **values: Any) -> Object:
    """A Stripe object of one API version; KeyError for a field that no version has."""
    unknown = values.keys() - _known(name)
    if unknown:
        raise KeyError(f"{name} has no {sorted(unknown)}")
    empty = copy.deepcopy(_template(name, shape))
    return empty | {key: value for key, value in values.items() if key in empty}


def lemonsqueezy(name: str) -> Object:
    """The attributes and relationship names of a Lemon Squeezy object."""
    return copy.deepcopy(_file("lemonsqueezy", name))
