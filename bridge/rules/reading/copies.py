"""A full copy of a shipped file, which no upgrade reaches: the rules by which it differs from that of this release."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from bridge.rules.reading.folder import provider_of, shipped
from bridge.rules.reading.layers import default_id
from bridge.rules.reading.rule import DEFAULTS
from bridge.rules.reading.strict_yaml import parse

_SHARED: Final = 3
_NAMED: Final = re.compile(r"\b(value|map)[.:](?P<name>[A-Za-z0-9_]+)")


class Copy(NamedTuple):
    """name: of the shipped file. differs: ids of rules that are not as shipped; lacks: those that are not there."""

    name: str
    differs: tuple[str, ...]
    lacks: tuple[str, ...]


def copy_of(text: str) -> Copy | None:
    """What a file that extends none is a copy of: it has the provider and at least half of the rules.

    Many files of one's own have one rule that a short shipped file has, too; `in_layers` is in no file but a copy.
    """
    own = _plain(text)
    if own is None or "extends" in own:
        return None
    mine = _rules(own)
    for name, text_ in shipped().items():
        theirs = _plain(text_) if provider_of(text_) == own.get("provider") else None
        if theirs is None:
            continue
        ids = _rules(theirs)
        there = [each for each in ids if each in mine]
        if 2 * len(there) >= len(ids) and (len(there) >= _SHARED or "in_layers" in own):
            differs = tuple(each for each in there if _meaning(own, mine[each]) != _meaning(theirs, ids[each]))
            return Copy(name, differs, tuple(each for each in ids if each not in mine))
    return None


def _plain(text: str) -> dict[str, Any] | None:
    tree, _ = parse(text)
    found = tree.plain() if tree is not None else None
    return found if isinstance(found, dict) else None


def _rules(file: dict[str, Any]) -> dict[str, dict[str, Any]]:
    listed = file.get("goals")
    goals = [rule for rule in listed if isinstance(rule, dict)] if isinstance(listed, list) else []
    made = [(rule, "payment" if "payment" in rule else str(rule.get("goal"))) for rule in goals]
    return {str(rule.get("id") or default_id(name) or ""): rule for rule, name in made}


def _meaning(file: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    """A rule with all that it reads of its file's `values` and `maps`."""
    found: dict[str, Any] = {"rule": rule}
    waiting = list(_names(rule))
    while waiting:
        kind, name = waiting.pop()
        if f"{kind} {name}" not in found:
            written = (file.get("values" if kind == "value" else "maps") or {}).get(name)
            found[f"{kind} {name}"] = written
            waiting += _names(written)
    return found


def _names(written: Any) -> Iterator[tuple[str, str]]:
    """The named values and tables that something reads."""
    if isinstance(written, dict) and isinstance(written.get("metadata"), list):
        yield from (("value", str(name)) for name in written["metadata"])
    if isinstance(written, dict) and isinstance(written.get("payment"), dict):
        yield from (("value", name) for names in DEFAULTS.values() for name in names)
    yield from ((match[1], match["name"]) for match in _NAMED.finditer(json.dumps(written, default=str)))
