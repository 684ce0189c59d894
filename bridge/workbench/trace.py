"""A trace in words: the values considered as the visitor, the result of each rule, the keys that the event names.

`explain`, `why` and the console show the same trace (its form is in `bridge.route`), before routing or after it. This
module reads and decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from bridge.text import count

_OTHERS_NAMED: Final = 3  # rules for other event types
_NEAR: Final = 0.3  # as `charge.refunded` is to `charge.refund.updated`


def verdict(candidate: Mapping[str, Any]) -> str:
    """How a value that might be the visitor was judged."""
    if candidate.get("why"):
        return str(candidate["why"])
    if candidate.get("borrowed"):
        return "a bare UUID, perhaps your own user id: a visitor if DataFast knows it (dfv_ in front needs no proof)"
    if candidate.get("bare"):
        return "could be a visitor id, or your own user id: counts only when nothing else leads to a visitor"
    return "is a visitor id"


def for_its_type(element: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The traces of the rules for this event type."""
    return [rule for rule in element.get("rules", ()) if rule["result"] != "event"]


def other_types(element: Mapping[str, Any]) -> str:
    """How many rules are for other event types, and those with the most similar types; empty if none."""
    rules, event_type = element.get("rules", ()), str(element.get("type") or "")
    others: Sequence[Mapping[str, Any]] = [rule for rule in rules if rule["result"] == "event"]
    if not others:
        return ""
    noun = ("other is", "others are") if len(others) < len(rules) else ("rule is", "rules are")
    text = f"{count(len(others), *noun)} for event types other than {event_type or '(none)'}"
    near = [rule for rule in others if _likeness(event_type, rule) >= _NEAR] if len(others) > _OTHERS_NAMED else others
    named = [
        f"{rule['rule']} ({', '.join(filter(None, (origin_in_words(rule.get('origin')), rule.get('expected'))))})"
        for rule in sorted(near, key=lambda rule: -_likeness(event_type, rule))[:_OTHERS_NAMED]
    ]
    if not named:
        return f"{text}."
    left = len(others) - len(named)
    return f"{text}: {', '.join(named)}{f' and {left} more' if left else ''}"


def _likeness(event_type: str, rule: Mapping[str, Any]) -> float:
    """How similar a rule's event types are to this one, by their common prefix: `charge.dispute.`."""
    words = re.findall(r"[A-Za-z0-9]+", event_type)
    best = 0.0
    for text in str(rule.get("expected") or "").split(" or "):
        others = re.findall(r"[A-Za-z0-9]+", text)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(words, others, strict=False)))
        best = max(best, shared / max(len(words), len(others), 1))
    return best


def nearest(element: Mapping[str, Any]) -> str:
    """The rule that came nearest to a goal, and what kept it from one; empty if unknown."""
    near: Mapping[str, Any] | None = element.get("nearest")
    if near is None:
        return ""
    failing = int(near["failing"])
    difference = f"{near['path']} is {near.get('actual')}, expected {near.get('expected')}" if "path" in near else ""
    if not difference and failing == 1:
        return f"{called(near)}: {near.get('message')}"
    if not difference:
        others = count(failing - 1, "condition fails", "conditions fail")
        return f"{called(near)}: {near.get('message')}, and {others}"
    if failing == 1:
        left = int(near["conditions"]) - 1
        hold = "; its other condition holds" if left == 1 else "; its other conditions hold" if left else ""
        return f"{called(near)}: {difference}{hold}"
    return f"{called(near)}: {difference}; {failing} of its {near['conditions']} conditions fail"


def called(rule: Mapping[str, Any]) -> str:
    """A rule's id; in a layer, with its origin: `refund (override)`."""
    return with_origin(str(rule["rule"]), rule.get("origin"))


def with_origin(rule: str, origin: str | None) -> str:
    """A rule's id and, in a layer, its origin."""
    return f"{rule} ({origin_in_words(origin)})" if origin else rule


def origin_in_words(origin: str | None) -> str:
    """The origin of a layer's rule: `shipped`, `override` or `added`; empty outside layers."""
    return "added" if origin in ("layer", "like") else origin or ""


def rule_sentence(rule: Mapping[str, Any]) -> str:
    """The result of one rule in words."""
    notes = "".join(f"; {note}" for note in rule.get("notes", ()))
    match rule["result"]:
        case "matched":
            return f"matched: goal {rule['goal']}{notes}"
        case "condition":
            return f"no: {rule.get('path')} is {rule.get('actual')}, expected {rule.get('expected')}"
        case "follows":
            return f"not by itself: {rule.get('message')}"
        case "disabled":
            return "switched off (enabled: false)"
        case "event":
            return f"is for {rule.get('expected')}"
        case _:
            return f"failed: {rule.get('message')}"
