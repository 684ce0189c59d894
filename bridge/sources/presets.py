"""The providers we know, as data: presets.yaml, each the defaults of a mapping file for that provider.

`like: other` takes everything of another preset that is not said anew; `where` and `secret_hint` are for people.
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
    text = files("bridge.sources").joinpath("presets.yaml").read_text(encoding="utf-8")
    # The C loader reads the same YAML nine times faster, and start-up has a budget.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    said: dict[str, dict[str, Any]] = yaml.load(text, Loader=loader)  # noqa: S506 - both are safe loaders
    return MappingProxyType({name: _resolved(name, said) for name in said})


def _resolved(name: str, said: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    preset = dict(said[name])
    other = preset.pop("like", None)
    return {**_resolved(other, said), **preset} if other else preset
