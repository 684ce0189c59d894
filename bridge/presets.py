"""The known providers, as data: each entry of sources/presets.yaml is the defaults of a mapping file for its provider.

`like: other` takes all keys of another preset that are not written again. Some keys are for people, such as `where` to
click and `advice` on handing the visitor over. Everything that is special to a provider and can be data is here.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def presets() -> Mapping[str, dict[str, Any]]:
    """Name → the keys of a mapping file (verify, envelope, body, visitor, links, …). Plain data: do not change it."""
    text = files("bridge").joinpath("sources/presets.yaml").read_text(encoding="utf-8")
    # The C loader reads the same YAML nine times faster, and start-up has a budget.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    written: dict[str, dict[str, Any]] = yaml.load(text, Loader=loader)  # noqa: S506 - both are safe loaders
    return MappingProxyType({name: _resolved(name, written) for name in written})


def _resolved(name: str, written: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    preset = dict(written[name])
    other = preset.pop("like", None)
    return {**_resolved(other, written), **preset} if other else preset


def stated(provider: str, key: str) -> Any:
    """What a provider's preset says under one key; None if it says nothing, or there is no such preset."""
    return presets().get(provider, {}).get(key)


def event_names(provider: str) -> frozenset[str]:
    """Every event name that this provider is known to send; empty where there is no list."""
    return frozenset((stated(provider, "event_names") or "").split())
